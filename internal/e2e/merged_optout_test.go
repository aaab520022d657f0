package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Who opted out does not come back by being merged: the record that absorbs theirs is
// closed too, though it has another address, whichever side they said it on and whether
// anybody had heard it before the merge. A user may open it, and then it stays open.
func TestMergeKeepsTheStricterWord(t *testing.T) {
	for _, side := range refusals {
		for _, heard := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s heard %t", side, heard), func(t *testing.T) {
				t.Parallel()
				w := newStage(t)
				l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
				loser, winner := w.cast("contact", "ann.old@stage.example"), w.cast("contact", "ann@stage.example")
				w.join(l, loser, winner, w.cast("contact", "ben@stage.example"))
				w.sync()
				w.run(lockstep.SyncSuppressions)
				column := "donotbulkemail"
				switch side {
				case "platform":
					w.optOut("ann.old@stage.example")
				case "crm bulk":
					w.editRecord("contact", loser, cols{column: true})
				case "crm all":
					column = "donotemail"
					w.editRecord("contact", loser, cols{column: true})
				}
				if heard {
					w.run(lockstep.SyncSuppressions)
					w.sync()
					w.wantIn("before the merge", l, "ann", "ben")
				}
				w.merge(winner, loser)
				if heard {
					w.sync() // hears it as the lane does
				} else {
					w.run(lockstep.SyncSuppressions)
					w.run(lockstep.SyncSuppressions) // what the first one told
				}
				if r := w.record("contact", winner, column); r[column] != true {
					t.Errorf("the survivor is %v", r)
				}
				for range 2 {
					w.sync()
					w.run(lockstep.SyncSuppressions)
				}
				w.wantIn("after the merge", l, "ben")
				if c := w.contact("ann@stage.example"); c.Channel["email"]["status"] != "subscribed" {
					t.Errorf("the survivor's own address was blocked: %v", c.Channel)
				}
				w.quiet()
				w.twins.Clock.Advance(2 * time.Second)
				w.editRecord("contact", winner, cols{column: false})
				for range 2 {
					w.sync()
					w.run(lockstep.SyncSuppressions)
				}
				w.wantIn("opened by a user", l, "ann", "ben")
				w.quiet()
			})
		}
	}
}
