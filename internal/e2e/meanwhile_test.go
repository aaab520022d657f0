package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// A membership is changed on both sides between two syncs: who left the marketing list is
// out, though they signed up to the book again, who joined it is in, though they were taken
// out of the book, and under every action alike. What was done is in the journal, and
// nothing goes back and forth.
func TestMembershipChangedOnBothSides(t *testing.T) {
	t.Parallel()
	for _, action := range []lockstep.MembershipAction{lockstep.ActionIgnore, lockstep.ActionRemove, lockstep.ActionAllowKnown, lockstep.ActionCreateContact} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			l := w.list("One", "contact", action, "")
			names := []string{"left.returned", "taken.rejoined", "both.out", "signed.joined"}
			ids := map[string]string{}
			for _, who := range append(names, "stays") {
				ids[who] = w.cast("contact", who+"@stage.example")
				if who != "signed.joined" {
					w.join(l, ids[who])
				}
			}
			w.sync()
			w.sync()
			book := w.book(l)
			w.quit(l, ids["left.returned"]) // leaves the list; signs up again on the platform
			w.takeOut(book, "left.returned@stage.example")
			w.signUp(book, "left.returned@stage.example")
			w.takeOut(book, "taken.rejoined@stage.example") // is taken out by hand; joins the list again
			w.quit(l, ids["taken.rejoined"])
			w.join(l, ids["taken.rejoined"])
			w.quit(l, ids["both.out"])
			w.takeOut(book, "both.out@stage.example")
			w.signUp(book, "signed.joined@stage.example")
			w.join(l, ids["signed.joined"])
			before := w.state()
			first := w.sync()
			w.sync()
			after := w.state()
			w.quiet()
			w.sync()
			if diff := cmp.Diff(after, w.state()); diff != "" {
				t.Errorf("it goes on:\n%s", diff)
			}
			w.wantIn("afterwards", l, "signed.joined", "stays", "taken.rejoined")
			for _, who := range []string{"taken.rejoined", "signed.joined", "stays"} {
				if after["list One: "+who] != "member" {
					t.Errorf("%s is not in the list", who)
				}
			}
			for _, who := range []string{"both.out", "left.returned"} {
				if after["list One: "+who] != "" {
					t.Errorf("%s is in the list", who)
				}
			}
			if len(changed(before, after)) > 0 && len(w.changes(first.ID)) == 0 {
				t.Errorf("no change was journalled: %q", changed(before, after))
			}
		})
	}
}
