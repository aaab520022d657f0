package transform

import (
	"flag"
	"os"
	"testing"
)

// TestMain has rapid draw more often than its usual hundred times, because a draw costs
// microseconds here. RAPID_CHECKS asks for another number; make properties for a million.
func TestMain(m *testing.M) {
	if os.Getenv("RAPID_CHECKS") == "" {
		_ = flag.Set("rapid.checks", "2000")
	}
	os.Exit(m.Run())
}
