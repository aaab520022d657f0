package e2e

import (
	"slices"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
)

func (w *stage) act(email string, kind dotdigital.ActKind) {
	w.t.Helper()
	if err := w.twins.Dotdigital.Act(dotdigital.Act{Email: email, Kind: kind}); err != nil {
		w.t.Fatal(err)
	}
}

// lock keeps everybody from being told until unlock.
func (w *stage) lock() {
	w.t.Helper()
	if _, err := w.app.LockAccount(w.t.Context(), w.account.ID, "somebody looks"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *stage) unlock() {
	w.t.Helper()
	if _, err := w.app.UnlockAccount(w.t.Context(), w.account.ID, "Kim", "nothing was wrong"); err != nil {
		w.t.Fatal(err)
	}
}

// An opt-out of which nobody was told yet can be said again by somebody else, more
// strictly.
func TestStricterOptOutBeforeAnybodyWasTold(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.lock()
	if _, _, err := w.app.Suppress(t.Context(), app.SuppressRequest{Account: w.account.ID, Email: "ann@stage.example", Reason: "unsubscribed", Evidence: "a letter", Actor: "Kim"}); err != nil {
		t.Fatal(err)
	}
	w.act("ann@stage.example", dotdigital.Complain)
	w.run(lockstep.SyncSuppressions)
	w.unlock()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); !slices.Equal(got, []string{"contact ann@stage.example"}) {
		t.Errorf("closed: %v", got)
	}
	all, err := w.app.Suppressions(t.Context(), app.SuppressionFilter{Account: w.account.ID, Email: "ann@stage.example"})
	if err != nil || len(all) != 1 || all[0].Reason != "complained" || all[0].Pending {
		t.Errorf("the suppressions are %+v: %v", all, err)
	}
}

// A mailbox that was full for a while is no opt-out, though the platform lists it
// beside them.
func TestSoftBounceIsNoOptOut(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	for range 20 {
		w.twins.Dotdigital.Bounce("ann@stage.example", false)
	}
	if got := w.contact("ann@stage.example").Channel["email"]["status"]; got != "softBounced" {
		t.Fatalf("she is %v", got)
	}
	for range 2 {
		if run := w.run(lockstep.SyncSuppressions); run.Counts.OptOutsSeen != 0 || run.Counts.Written != 0 {
			t.Errorf("the run counts %+v", run.Counts)
		}
		w.sync()
	}
	if got := w.closed(); len(got) != 0 {
		t.Errorf("closed: %v", got)
	}
}

// The platform's refusal to let somebody back does not end the telling of the opt-out.
func TestRefusedReturnIsStillTold(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.act("ann@stage.example", dotdigital.Complain)
	w.lock()
	w.run(lockstep.SyncSuppressions)
	w.unlock()
	all, err := w.app.Suppressions(t.Context(), app.SuppressionFilter{Account: w.account.ID, Email: "ann@stage.example"})
	if err != nil || len(all) != 1 {
		t.Fatalf("the suppressions are %+v: %v", all, err)
	}
	if _, err := w.app.Resubscribe(t.Context(), all[0].ID, "a letter", "Kim"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Fatalf("asked to let her back: %v", err)
	}
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); !slices.Equal(got, []string{"contact ann@stage.example"}) {
		t.Errorf("closed: %v", got)
	}
}

// A record that was closed because of an opt-out and opened by a CRM user before the
// next list sync looks as it did at the last one; it is closed again all the same.
func TestOpenedBetweenTwoSyncsIsClosedAgain(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann)
	w.sync()
	w.optOut("ann@stage.example")
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if len(w.closed()) != 1 {
		t.Fatal("the opt-out was not told")
	}
	w.editRecord("contact", ann, cols{"donotbulkemail": false})
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); !slices.Equal(got, []string{"contact ann@stage.example"}) {
		t.Errorf("closed: %v", got)
	}
}

// A row that takes the place of a deleted one is what its user says.
func TestOptOutInARowThatReplacesAnother(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example")
	c.cast("contact", "ann@stage.example")
	first := c.addRow("ann@stage.example", c.news, true)
	c.want("at first", "ann news: in/in")
	c.later()
	c.crm("DELETE", "lockstep_preferencechoices("+first+")", nil, nil)
	c.addRow("ann@stage.example", c.news, false)
	c.want("replaced", "ann news: out/out")
	c.still("replaced")
}

// While nobody is told anything, both sides come to say the same and one of them then
// thinks better of it: that is the newest word, though it is also what was agreed
// before.
func TestSecondThoughtsWhileLocked(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example")
	c.cast("contact", "ann@stage.example")
	c.prefer("ann@stage.example", c.news, false)
	c.want("at first", "ann news: out/out")
	c.lock()
	c.later()
	c.prefer("ann@stage.example", c.news, true)
	c.edit("ann@stage.example", c.news, true)
	c.run(lockstep.SyncPreferences)
	c.later()
	c.edit("ann@stage.example", c.news, false)
	c.unlock()
	c.want("after the lock", "ann news: out/out")
	c.still("after the lock")
}

// What the platform closes is a contact. Another one that is given the closed address is
// mailable there; nobody has come back by that, and it is closed too.
func TestAnotherContactAtAClosedAddressIsNobodyWhoCameBack(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example"))
	w.sync()
	ann, ben := w.contact("ann@stage.example").ContactID, w.contact("ben@stage.example").ContactID
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.readdress(ann, "ann.before@stage.example")
	w.readdress(ben, "ann@stage.example")
	for range 2 {
		w.sync()
		w.run(lockstep.SyncSuppressions)
	}
	if c := w.contact("ann@stage.example"); c.ContactID != ben || c.Channel["email"]["status"] == "subscribed" {
		t.Errorf("the closed address is mailed: contact %d, %v", c.ContactID, c.Channel["email"])
	}
	if got := w.closed(); !slices.Contains(got, "contact ann@stage.example") {
		t.Errorf("closed: %v", got)
	}
}
