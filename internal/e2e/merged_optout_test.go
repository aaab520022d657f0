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
	t.Parallel()
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

// A record that refused mail and was merged away keeps refusing for everybody with its
// address, also while the same run reads them before it.
func TestMergedRecordGoesOnRefusing(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	open, refuses, winner := w.cast("contact", "ann@stage.example"), w.cast("contact", "ann@stage.example", cols{"donotbulkemail": true}), w.cast("contact", "cleo@stage.example")
	w.join(l, open, refuses, w.cast("contact", "ben@stage.example"))
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.merge(winner, refuses)
	w.sync()
	for _, id := range []string{open, refuses} { // in the order in which they are read
		w.twins.Clock.Advance(2 * time.Second)
		w.editRecord("contact", id, cols{"jobtitle": "Editor"})
	}
	w.sync()
	w.wantIn("after both were edited", l, "ben")
	if _, made := w.contacts("")["ann@stage.example"]; made {
		t.Error("the platform got a contact with an address that is refused")
	}
}
