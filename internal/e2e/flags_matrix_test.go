package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// Every combination of the CRM's flags on what the platform says of the person, under
// both policies: who may be in a book is decided by the strictest word, each side learns
// what the other one has to know, and no flag of a user is ever taken back.
func TestFlagsAndStandingsCombined(t *testing.T) {
	t.Parallel()
	flags := []string{"donotemail", "donotbulkemail", "donotsendmm", "followemail"}
	for _, policy := range []lockstep.BulkOptOut{lockstep.BulkListRemoval, lockstep.BulkSuppress} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			many := 1000
			if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{BulkOptOut: &policy, Guards: app.GuardPatch{Floor: &many}}); err != nil {
				t.Fatal(err)
			}
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			type one struct {
				id, email string
				bits      int
				refuses   bool // on the platform
			}
			var all []one
			var ids []string
			for bits := range 16 {
				for _, refuses := range []bool{false, true} {
					p := one{email: fmt.Sprintf("p%02d.%t@stage.example", bits, refuses), bits: bits, refuses: refuses}
					p.id = w.cast("contact", p.email)
					all, ids = append(all, p), append(ids, p.id)
				}
			}
			w.join(l, ids...)
			w.sync()
			w.run(lockstep.SyncSuppressions)
			for _, p := range all {
				set := cols{}
				for i, f := range flags {
					set[f] = p.bits>>i&1 == 1
				}
				w.editRecord("contact", p.id, set)
				if p.refuses {
					w.optOut(p.email)
				}
			}
			for range 2 {
				w.run(lockstep.SyncSuppressions)
				w.sync()
			}
			var want []string
			contacts := w.contacts("")
			for _, p := range all {
				mail, bulk := p.bits&1 != 0, p.bits&2 != 0
				if !mail && !bulk && !p.refuses {
					want = append(want, p.email[:len(p.email)-len("@stage.example")])
				}
				r := w.record("contact", p.id, "donotemail,donotbulkemail,donotsendmm,followemail")
				closed := bulk || p.refuses || policy == lockstep.BulkSuppress && mail
				for i, f := range flags {
					is, was := r[f] == true, p.bits>>i&1 == 1
					if f == "donotbulkemail" {
						was = closed
					}
					if is != was {
						t.Errorf("%s: %s is %t", p.email, f, is)
					}
				}
				blocked := contacts[p.email].Channel["email"]["status"] != "subscribed"
				if should := p.refuses || policy == lockstep.BulkSuppress && (mail || bulk); blocked != should {
					t.Errorf("%s: the platform says %v", p.email, contacts[p.email].Channel["email"]["status"])
				}
			}
			slices.Sort(want)
			w.wantIn("afterwards", l, want...)
			w.quiet()
		})
	}
}
