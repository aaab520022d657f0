package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// optingOut is a world in which people opted out in every way and nobody was told yet.
func optingOut(t *testing.T, o worldOptions) *world {
	t.Helper()
	o.twins = twin.Options{Contacts: 1, Plain: true, Clock: o.twins.Clock}
	o.bare = true
	w := &stage{world: newWorld(t, o)}
	w.mapFields()
	w.installTables()
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := map[string]string{}
	for i, who := range []string{"ann", "ben", "cleo", "dora", "emil"} {
		ids[who] = fixedID(i)
		w.cast("contact", who+"@stage.example", cols{"contactid": ids[who]})
		w.join(l, ids[who])
	}
	w.cast("lead", "ann@stage.example", cols{"leadid": fixedID(20)})
	w.cast("account", "ann@stage.example", cols{"accountid": fixedID(21)})
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.run(lockstep.SyncUnsubscribes)
	w.optOut("ann@stage.example")
	w.twins.Dotdigital.SetStatus("cleo@stage.example", "HardBounced")
	w.editRecord("contact", ids["ben"], cols{"donotbulkemail": true})
	w.optOutOf(w.book(l), "dora@stage.example")
	w.crm("POST", "lockstep_suppressions", cols{"lockstep_suppressionid": fixedID(22), "lockstep_name": "by hand", "lockstep_email": "emil@stage.example", "lockstep_account": w.account.ID}, nil)
	return w.world
}

func fixedID(n int) string { return fmt.Sprintf("7b3f0a52-6a0a-4c4e-9a4e-6f3a6f2d%04d", n) }

// toldState is what the two sides hold, the rows of our tables included.
func (w *world) toldState() map[string]string {
	w.t.Helper()
	out := (&stage{world: w}).state()
	maps.DeleteFunc(out, func(k, _ string) bool { return strings.HasSuffix(k, " LASTSUBSCRIBED") }) // a time
	for _, table := range []string{"lockstep_suppressions", "lockstep_listunsubscribers"} {
		n := map[string]int{}
		for _, r := range w.rows(table + "?$select=lockstep_email,lockstep_reason,statecode") {
			n[r.str("lockstep_email")+" "+r.str("lockstep_reason")+" "+r.str("statecode")]++
		}
		for k, v := range n {
			out[table+" "+k] = fmt.Sprint(v)
		}
	}
	return out
}

// The process may die at any step of a run of the consent lane: the next one goes on
// telling, everybody is told, nobody twice in a way that shows, and the ledger holds.
func TestConsentCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, typ := range []lockstep.SyncType{lockstep.SyncSuppressions, lockstep.SyncUnsubscribes} {
		t.Run(string(typ), func(t *testing.T) {
			w, steps, run := interruptedRun(t, 0, typ, optingOut)
			if run.Counts.OptOutsTold == 0 {
				t.Fatalf("nothing was told: %+v", run.Counts)
			}
			want := w.toldState()
			t.Logf("dying at each of %d steps: %v", len(steps), steps)
			for k := int64(1); k <= int64(len(steps)); k++ {
				t.Run(fmt.Sprint(k), func(t *testing.T) {
					t.Parallel()
					w, steps, _ := interruptedRun(t, k, typ, optingOut)
					if diff := cmp.Diff(want, w.toldState()); diff != "" {
						t.Errorf("the process died at %s; differs from the undisturbed run (-) as follows:\n%s", steps[len(steps)-1], diff)
					}
					report, err := w.app.VerifyConsent(t.Context(), "")
					if err != nil || report.Broken != nil || report.Entries == 0 {
						t.Errorf("the ledger: %+v %v", report, err)
					}
					w.resetCalls()
					if run := w.run(typ); run.Counts.OptOutsSeen+run.Counts.OptOutsTold+run.Counts.RecordsUpdated != 0 || writes(w.calls("dotdigital")) != 0 {
						t.Errorf("not quiet afterwards: %+v %v", run.Counts, w.calls("dotdigital"))
					}
				})
			}
		})
	}
}
