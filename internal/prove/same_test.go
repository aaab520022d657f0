//go:build unsteady

package prove

import (
	"strings"
	"testing"
)

// The same seed gives the same requests in the same order at the same moments, with
// the same answers.
func TestSameSeedSameLog(t *testing.T) {
	needTemplate(t)
	for seed := *baseFlag; seed < *baseFlag+2; seed++ {
		a, b := simulate(t, newPlan(seed, actionCount(), *openFlag)), simulate(t, newPlan(seed, actionCount(), *openFlag))
		if len(a.log) < 100 {
			t.Errorf("seed %d: only %d lines", seed, len(a.log))
		}
		for i := range max(len(a.log), len(b.log)) {
			if i >= len(a.log) || i >= len(b.log) || a.log[i] != b.log[i] {
				lo := max(0, i-3)
				t.Errorf("seed %d differs at line %d:\n%s\n--- and ---\n%s", seed, i, strings.Join(a.log[min(lo, len(a.log)):min(i+2, len(a.log))], "\n"), strings.Join(b.log[min(lo, len(b.log)):min(i+2, len(b.log))], "\n"))
				break
			}
		}
	}
}
