package prove

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sameSeeds is how many lives the ordinary tests play twice; -seeds replaces it.
const sameSeeds = 8

// The same seed gives the same requests in the same order at the same moments, with
// the same answers, however many processors there are and whatever else they do.
func TestSameSeedSameLog(t *testing.T) {
	needTemplate(t)
	n := *seedsFlag
	if n == 0 {
		n = sameSeeds
	}
	for seed := *baseFlag; seed < *baseFlag+uint64(n); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			a, b := simulate(t, newPlan(seed, actionCount(), *openFlag)).log, simulate(t, newPlan(seed, actionCount(), *openFlag)).log
			if len(a) < 100 {
				t.Errorf("only %d lines", len(a))
			}
			if slices.Equal(a, b) {
				return
			}
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			around := func(log []string) string {
				return strings.Join(log[min(max(0, at-3), len(log)):min(at+2, len(log))], "\n")
			}
			t.Errorf("the logs, of %d and %d lines, differ at line %d:\n%s\n--- and ---\n%s", len(a), len(b), at, around(a), around(b))
		})
	}
}
