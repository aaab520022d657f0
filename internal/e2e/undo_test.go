package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// undo reverses a run and waits for the end.
func (w *world) undo(r app.UndoRequest) lockstep.Run {
	w.t.Helper()
	run, err := w.app.UndoRun(w.t.Context(), r)
	if err == nil {
		run, err = w.app.Wait(w.t.Context(), run.ID)
	}
	if err != nil {
		w.t.Fatalf("undo: %v", err)
	}
	return run
}

// refusesUndo checks that a run cannot be undone, and that the answer says why.
func (w *world) refusesUndo(r app.UndoRequest, code lockstep.Code, says string) {
	w.t.Helper()
	_, err := w.app.UndoRun(w.t.Context(), r)
	if lockstep.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
		w.t.Errorf("undo of %+v: %v; want %s with %q", r, err, code, says)
	}
}

// settled checks that both systems are as wanted, and stay so in two more syncs.
func (w *stage) settled(when string, want map[string]string, except ...string) {
	w.t.Helper()
	for range 2 {
		diff := changed(want, w.state())
		for _, d := range diff {
			known := false
			for _, e := range except {
				known = known || strings.HasPrefix(strings.TrimLeft(d, "+-"), e)
			}
			if !known {
				w.t.Errorf("%s: %q", when, d)
			}
		}
		w.quiet()
	}
}

func TestUndoOfEditsFromTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Buyer", "address1_city": "Bonn"})
	bob := w.cast("contact", "bob@stage.example", cols{"jobtitle": "Clerk", "address1_city": "Kiel"})
	w.join(l, ann, bob)
	w.sync()
	w.quiet()

	w.editRecord("contact", ann, cols{"jobtitle": "Boss", "address1_city": "Rome"})
	w.editRecord("contact", bob, cols{"jobtitle": "Chief"})
	run := w.sync()
	edited := w.state()

	preview := w.undo(app.UndoRequest{Run: run.ID, Mode: lockstep.ModePreview})
	if preview.Status != lockstep.RunPreviewed || preview.Counts.ContactsUpdated != 2 || len(changed(edited, w.state())) != 0 {
		t.Fatalf("the preview of the undo: %+v, %v", preview, changed(edited, w.state()))
	}

	undo, err := w.app.ApplyPreview(t.Context(), preview.ID, "Kim")
	if err == nil {
		undo, err = w.app.Wait(t.Context(), undo.ID)
	}
	if err != nil || undo.Status != lockstep.RunCompleted || undo.Counts.ContactsUpdated != 2 {
		t.Fatalf("the undo: %+v, %v, %+v", undo, err, w.findings(undo))
	}
	want := w.state()
	for email, v := range map[string]string{"ann@stage.example": "Buyer", "bob@stage.example": "Clerk"} {
		if got := w.field(email, "JOBTITLE"); got != v {
			t.Errorf("%s has %v on the platform, want %s", email, got, v)
		}
	}
	if got := w.record("contact", ann, "jobtitle").str("jobtitle"); got != "Boss" {
		t.Errorf("the undo changed the CRM to %s", got)
	}
	w.settled("after the undo", want)

	w.refusesUndo(app.UndoRequest{Run: run.ID}, lockstep.CodeConflict, "was undone by run "+undo.ID)
	w.refusesUndo(app.UndoRequest{Run: run.ID, Record: "contact/" + ann}, lockstep.CodeConflict, "undo that run to bring it back")

	// The next edit on either side ends the parting.
	w.editRecord("contact", bob, cols{"jobtitle": "Owner"})
	w.sync()
	if got := w.field("bob@stage.example", "JOBTITLE"); got != "Owner" {
		t.Errorf("an edit after the undo did not travel: %v", got)
	}
	w.quiet()

	back := w.undo(app.UndoRequest{Run: undo.ID})
	w.told(back, lockstep.FindingMoved, bob)
	if got := w.field("ann@stage.example", "JOBTITLE"); got != "Boss" {
		t.Errorf("the undo of the undo left %v", got)
	}
	if got := w.field("bob@stage.example", "JOBTITLE"); got != "Owner" {
		t.Errorf("the undo of the undo wrote over a newer value: %v", got)
	}
	w.settled("after the undo of the undo", w.state())
	if _, err := w.app.UndoRun(t.Context(), app.UndoRequest{Run: run.ID, Mode: lockstep.ModePreview}); err != nil {
		t.Errorf("a run that was brought back cannot be undone again: %v", err)
	}
}

func TestUndoOfEditsFromThePlatform(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Buyer", "telephone1": "1"})
	bob := w.cast("contact", "bob@stage.example", cols{"jobtitle": "Clerk"})
	w.join(l, ann, bob)
	w.sync()
	w.quiet()

	w.editContact("ann@stage.example", cols{"JOBTITLE": "Boss", "PHONE": "2", "FIRSTNAME": "Anna"})
	w.editContact("bob@stage.example", cols{"JOBTITLE": "Chief"})
	run := w.sync()
	w.quiet()
	w.editRecord("contact", bob, cols{"jobtitle": "Owner"}) // not synced yet
	edited := w.state()

	one := w.undo(app.UndoRequest{Run: run.ID, Record: "contact/" + ann, Field: "PHONE"})
	if got := changed(edited, w.state()); len(got) != 1 || got[0] != "crm contact ann telephone1 = 1" {
		t.Errorf("the undo of one field changed %q; %+v", got, w.findings(one))
	}
	undo := w.undo(app.UndoRequest{Run: run.ID})
	w.told(undo, lockstep.FindingMoved, bob)
	// The full name follows from the first name, in the CRM and by the mapping.
	if got := changed(edited, w.state()); strings.Join(got, "; ") != "-crm contact ann firstname; contact ann@stage.example FULLNAME = ann; crm contact ann fullname = ann; crm contact ann jobtitle = Buyer; crm contact ann telephone1 = 1" {
		t.Errorf("the undo changed %q; %+v", got, w.findings(undo))
	}
	changes, _, err := w.app.Changes(t.Context(), undo.ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, c := range changes {
		if c.State == lockstep.Refused {
			refused++
			if c.Ref.ID.String() != bob || c.Fields[0].Old.Text() != "Owner" || c.Fields[0].New.Text() != "Clerk" {
				t.Errorf("the refused change does not show what stands there now: %+v", c)
			}
		}
	}
	if refused != 1 {
		t.Errorf("%d refused changes, want 1", refused)
	}
	w.sync() // bob's edit travels
	w.settled("after the undo", w.state())
	if got := w.field("ann@stage.example", "JOBTITLE"); got != "Boss" {
		t.Errorf("the old value went on to the platform: %v", got)
	}
	w.undo(app.UndoRequest{Run: undo.ID})
	if got := w.record("contact", ann, "jobtitle,firstname"); got.str("jobtitle") != "Boss" || got.str("firstname") != "Anna" {
		t.Errorf("the undo of the undo left %v", got)
	}
	w.sync() // the full name that follows from it
	w.settled("after the undo of the undo", w.state())
}

func TestUndoOfMemberships(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	bob := w.cast("contact", "bob@stage.example")
	cid := w.cast("contact", "cid@stage.example")
	w.join(l, ann, bob, cid)
	first := w.sync()
	w.quiet()

	// Three leave the list; one of them unsubscribes from everything afterwards.
	w.quit(l, ann)
	w.quit(l, bob)
	left := w.sync()
	w.wantIn("after leaving", l, "cid")
	w.quiet()
	w.optOut("bob@stage.example")
	undo := w.undo(app.UndoRequest{Run: left.ID})
	w.told(undo, lockstep.FindingBlockedByConsent, bob)
	w.wantIn("after the undo", l, "ann", "cid")
	w.sync()
	w.settled("after the undo", w.state())

	again := w.undo(app.UndoRequest{Run: undo.ID})
	w.wantIn("after the undo of the undo", l, "cid")
	if again.Counts.BookRemovals != 1 {
		t.Errorf("the undo of the undo: %+v", again.Counts)
	}
	w.settled("after the undo of the undo", w.state())

	// The first sync made contacts: they leave the book and stay in the account.
	undo = w.undo(app.UndoRequest{Run: first.ID})
	w.told(undo, lockstep.FindingNotUndone, "")
	w.wantIn("after undoing the first sync", l)
	if w.contact("cid@stage.example").ContactID == 0 {
		t.Error("the undo deleted a contact")
	}
	w.settled("after undoing the first sync", w.state())
	w.editRecord("contact", cid, cols{"jobtitle": "Boss"})
	w.sync()
	w.wantIn("after an edit of the record", l) // membership did not change
	w.quit(l, cid)
	w.sync()
	w.join(l, cid)
	w.sync()
	w.wantIn("after joining again", l, "cid")
	w.quiet()
}

func TestUndoOfStrangersWhoBecameMembers(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "lead", lockstep.ActionCreateLead, "")
	dan := w.cast("lead", "dan@stage.example")
	w.cast("lead", "eve@stage.example")
	w.join(l, dan)
	w.sync()
	w.signUp(w.book(l), "eve@stage.example")
	w.signUp(w.book(l), "new@stage.example")
	run := w.sync()
	if run.Counts.ListAdds != 2 || run.Counts.RecordsCreated != 1 {
		t.Fatalf("the run: %+v", run.Counts)
	}
	w.quiet()
	before := w.state()
	undo := w.undo(app.UndoRequest{Run: run.ID})
	w.told(undo, lockstep.FindingNotUndone, "")
	got := changed(before, w.state())
	want := []string{
		"-contact eve@stage.example FULLNAME", "-contact eve@stage.example LASTNAME", "-contact new@stage.example FULLNAME", "-contact new@stage.example LASTNAME",
		"-list Undo: eve", "-list Undo: new",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the undo changed %q, want %q", got, want)
	}
	w.settled("after the undo", w.state())
	w.undo(app.UndoRequest{Run: undo.ID})
	w.settled("after the undo of the undo", before)
}

func TestWhatCannotBeUndone(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Buyer"})
	w.join(l, ann)
	run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	w.refusesUndo(app.UndoRequest{Run: run.ID}, lockstep.CodeConflict, "is a preview")
	w.refusesUndo(app.UndoRequest{Run: newID()}, lockstep.CodeNotFound, "")
	w.sync()
	w.refusesUndo(app.UndoRequest{Run: w.sync().ID}, lockstep.CodeConflict, "wrote nothing")

	w.editRecord("contact", ann, cols{"emailaddress1": "anne@stage.example", "jobtitle": "Boss"})
	run = w.sync()
	w.refusesUndo(app.UndoRequest{Run: run.ID, Record: "ann"}, lockstep.CodeInvalid, "names no record")
	undo := w.undo(app.UndoRequest{Run: run.ID})
	w.told(undo, lockstep.FindingNotUndone, ann)
	if got := w.field("anne@stage.example", "JOBTITLE"); got != "Buyer" {
		t.Errorf("the rest of the change was not undone: %v", got)
	}
	w.settled("after the undo", w.state())
}
