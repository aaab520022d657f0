package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// Some proofs have many cases. The ordinary run takes a seeded handful of them, and
// `make crashes` all.
var (
	thorough = flag.Bool("thorough", false, "all cases of the crash and storage tests, instead of a handful")
	drawn    = flag.Uint64("draw", 1, "the `SEED` from which cases of the crash tests are drawn")
)

// The process that recovers dies as well: the third one ends the run in the state that
// an undisturbed run has, and everything is quiet.
func TestSecondCrashDuringRecovery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ       lockstep.SyncType
		begin     func(*testing.T, worldOptions) *world
		few, many int
	}{
		{lockstep.SyncMarketingLists, reference, 5, 400},
		{lockstep.SyncSuppressions, optingOut, 2, 50},
		{lockstep.SyncUnsubscribes, optingOut, 1, 50},
	} {
		t.Run(string(c.typ), func(t *testing.T) {
			state := func(w *world) []string {
				if c.typ == lockstep.SyncMarketingLists {
					return w.bothSides()
				}
				var out []string
				told := w.toldState()
				for _, k := range slices.Sorted(maps.Keys(told)) {
					out = append(out, k+" = "+told[k])
				}
				return out
			}
			w, steps, _ := interruptedRun(t, 0, c.typ, c.begin)
			want, n := state(w), len(steps)
			pairs := c.few
			if *thorough {
				pairs = c.many
			}
			dice := rand.New(rand.NewPCG(*drawn, uint64(n)))
			for i := range pairs {
				first := 1 + dice.IntN(n)
				// Half of the second deaths are among the first steps of the recovery, which
				// are few; the others anywhere in what is left of the run.
				left := n - first + 12
				if i%2 == 0 {
					left = min(left, 12)
				}
				second := 1 + dice.IntN(left)
				t.Run(fmt.Sprintf("%d and %d", first, second), func(t *testing.T) {
					t.Parallel()
					w, lives, _ := interruptedRuns(t, []int64{int64(first), int64(second)}, c.typ, c.begin)
					died := make([]string, len(lives))
					for i, steps := range lives {
						died[i] = strings.Join(steps[max(0, len(steps)-3):], " ")
					}
					if diff := cmp.Diff(want, state(w)); diff != "" {
						t.Errorf("the processes died at %q; differs from the undisturbed run (-) as follows:\n%s", died, diff)
					}
					if c.typ == lockstep.SyncMarketingLists {
						w.silent(fmt.Sprintf("the processes died at %q", died))
						return
					}
					report, err := w.app.VerifyConsent(t.Context(), "")
					if err != nil || report.Broken != nil || report.Entries == 0 {
						t.Errorf("the ledger: %+v %v", report, err)
					}
					w.resetCalls()
					if run := w.run(c.typ); run.Counts.OptOutsSeen+run.Counts.OptOutsTold+run.Counts.RecordsUpdated != 0 || writes(w.calls("dotdigital")) != 0 {
						t.Errorf("not quiet afterwards: %+v %v", run.Counts, w.calls("dotdigital"))
					}
				})
			}
		})
	}
}
