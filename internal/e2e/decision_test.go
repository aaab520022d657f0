package e2e

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// quarrel finds a run's conflict about a label of a record.
func (w *stage) quarrel(run lockstep.Run, id, label string) lockstep.Conflict {
	w.t.Helper()
	all, err := w.app.Conflicts(w.t.Context(), app.ConflictFilter{Account: w.account.ID, Run: run.ID})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		if c.Label == label && c.Ref.ID.String() == id {
			return c
		}
	}
	w.t.Fatalf("no conflict about %s of %s: %+v", label, id, all)
	return lockstep.Conflict{}
}

func (w *stage) choose(c lockstep.Conflict, winner string) {
	w.t.Helper()
	if _, err := w.app.ResolveConflict(w.t.Context(), c.ID, winner, "tester"); err != nil {
		w.t.Fatal(err)
	}
}

// disputed is a person whose address was changed differently on both sides, after the
// run that met it; the side that was changed later has won.
func (w *stage) disputed(l lockstep.ListSettings, name, later string) (id string, contact int64, c lockstep.Conflict) {
	w.t.Helper()
	id = w.cast("contact", name+"@stage.example", cols{"jobtitle": "Job of " + name})
	w.join(l, id)
	w.sync()
	contact = w.contact(name + "@stage.example").ContactID
	edits := []func(){
		func() { w.editRecord("contact", id, cols{"emailaddress1": name + ".crm@stage.example"}) },
		func() { w.readdress(contact, name+".platform@stage.example") },
	}
	if later == "crm" {
		edits[0], edits[1] = edits[1], edits[0]
	}
	for _, edit := range edits {
		w.twins.Clock.Advance(2 * time.Second)
		edit()
	}
	c = w.quarrel(w.sync(), id, "EMAIL")
	w.wantAddress("after the conflict", id, contact, name+"."+later+"@stage.example")
	if c.Winner != later {
		w.t.Errorf("%s won, want %s", c.Winner, later)
	}
	return id, contact, c
}

func (w *stage) wantAddress(when, id string, contact int64, email string) {
	w.t.Helper()
	got := []string{w.record("contact", id, "emailaddress1").str("emailaddress1"), w.byID(contact).Identifiers.Email}
	if diff := cmp.Diff([]string{email, email}, got); diff != "" {
		w.t.Errorf("%s (-want +got, CRM and platform):\n%s", when, diff)
	}
}

// A person's decision about an address reaches both sides, as a rename of the same
// contact; a preview shows it, and afterwards nothing goes on.
func TestDecidedAddressReachesBothSides(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	for name, x := range map[string]struct{ later, want string }{
		"ann": {"crm", "platform"}, "ben": {"platform", "crm"}, "cleo": {"crm", "crm"}, "dora": {"platform", "platform"},
	} {
		id, contact, c := w.disputed(l, name, x.later)
		w.choose(c, x.want)
		w.applyPreview()
		w.wantAddress(name+" decided for "+x.want, id, contact, name+"."+x.want+"@stage.example")
		w.quiet()
		if job := w.byID(contact).DataFields["JOBTITLE"]; job != "Job of "+name {
			t.Errorf("%s's contact says %v", name, job)
		}
	}
	w.wantIn("at last", l, "ann.platform", "ben.crm", "cleo.crm", "dora.platform")
}

// An address that somebody else's contact has meanwhile is no rename: the record gets
// it and shares that contact, as after anybody's edit.
func TestDecidedAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	id, contact, c := w.disputed(l, "ann", "crm")
	other := w.cast("contact", "ann.platform@stage.example", cols{"jobtitle": "Other"})
	w.join(l, other)
	w.sync()
	w.choose(c, "platform")
	w.sync()
	w.sync()
	if got := w.record("contact", id, "emailaddress1").str("emailaddress1"); got != "ann.platform@stage.example" {
		t.Errorf("the record has %s", got)
	}
	if got := w.byID(contact).Identifiers.Email; got != "ann.crm@stage.example" {
		t.Errorf("the contact was renamed to %s", got)
	}
	w.wantIn("afterwards", l, "ann.platform")
	w.quiet()
}

// A decision about one of several records that share a contact concerns that record:
// it comes back to the contact, or leaves it, and the others stay.
func TestDecidedAddressOfASharedContact(t *testing.T) {
	t.Parallel()
	for _, later := range []string{"crm", "platform"} {
		t.Run(later+" won", func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionRemove, "")
			other := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Other"})
			w.join(l, other)
			w.sync()
			w.twins.Clock.Advance(2 * time.Second)
			id := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Mine"})
			w.join(l, id)
			w.sync()
			contact := w.contact("ann@stage.example").ContactID
			crm := func() { w.editRecord("contact", id, cols{"emailaddress1": "ann.crm@stage.example"}) }
			plat := func() { w.readdress(contact, "ann.platform@stage.example") }
			first, second, want := plat, crm, "platform"
			if later == "platform" {
				first, second, want = crm, plat, "crm"
			}
			first()
			w.twins.Clock.Advance(2 * time.Second)
			second()
			c := w.quarrel(w.sync(), id, "EMAIL")
			w.sync()
			w.choose(c, want)
			for range 3 {
				w.sync()
			}
			if got := w.record("contact", id, "emailaddress1").str("emailaddress1"); got != "ann."+want+"@stage.example" {
				t.Errorf("the record has %s", got)
			}
			w.wantAddress("the other record", other, contact, "ann.platform@stage.example")
			if want == "crm" {
				w.wantIn("afterwards", l, "ann.crm", "ann.platform")
				if job := w.field("ann.crm@stage.example", "JOBTITLE"); job != "Mine" {
					t.Errorf("its own contact says %v", job)
				}
			} else {
				w.wantIn("afterwards", l, "ann.platform")
			}
			w.quiet()
		})
	}
}

// A decision that events overtook is told, and what happened since is not lost.
func TestDecisionThatWasOvertaken(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, annsContact, c := w.disputed(l, "ann", "crm")
	w.choose(c, "platform")
	w.twins.Clock.Advance(2 * time.Second)
	w.editRecord("contact", ann, cols{"emailaddress1": "third@stage.example"})
	w.told(w.sync(), lockstep.FindingMoved, ann)
	w.wantAddress("a third address", ann, annsContact, "third@stage.example")
	w.quiet()

	w.twins.Clock.Advance(2 * time.Second)
	w.mail("PATCH", "/contacts/v3/email/third@stage.example", cols{"dataFields": cols{"JOBTITLE": "platform"}}, nil)
	w.twins.Clock.Advance(2 * time.Second)
	w.editRecord("contact", ann, cols{"jobtitle": "crm"})
	c = w.quarrel(w.sync(), ann, "JOBTITLE")
	w.choose(c, "platform")
	w.editRecord("contact", ann, cols{"jobtitle": "third"})
	w.told(w.sync(), lockstep.FindingMoved, ann)
	if got := w.field("third@stage.example", "JOBTITLE"); got != "third" {
		t.Errorf("the edit after the decision did not arrive: %v", got)
	}
	w.quiet()

	_, _, c = w.disputed(l, "ben", "crm")
	w.choose(c, "platform")
	w.quit(l, c.Ref.ID.String())
	w.told(w.sync(), lockstep.FindingMoved, c.Ref.ID.String())
}

// Nobody can decide what a record says that does not speak for its contact.
func TestDecisionAboutARecordThatDoesNotSpeak(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	leads, contacts := w.list("Leads", "lead", lockstep.ActionIgnore, ""), w.list("Contacts", "contact", lockstep.ActionIgnore, "")
	lea := w.cast("lead", "both@stage.example", cols{"jobtitle": "base"})
	w.join(leads, lea)
	w.sync()
	w.twins.Clock.Advance(2 * time.Second)
	w.mail("PATCH", "/contacts/v3/email/both@stage.example", cols{"dataFields": cols{"JOBTITLE": "platform"}}, nil)
	w.twins.Clock.Advance(2 * time.Second)
	w.editRecord("lead", lea, cols{"jobtitle": "crm"})
	c := w.quarrel(w.sync(), lea, "JOBTITLE")
	ann := w.cast("contact", "both@stage.example", cols{"jobtitle": "speaker"})
	w.join(contacts, ann)
	w.sync()
	if got := w.field("both@stage.example", "JOBTITLE"); got != "speaker" {
		t.Fatalf("the contact says %v", got)
	}
	if _, err := w.app.ResolveConflict(t.Context(), c.ID, "platform", "tester"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("the decision was taken: %v", err)
	}
	w.editRecord("contact", ann, cols{"emailaddress1": "ann@stage.example"})
	w.sync()
	w.sync()
	w.choose(c, "platform")
	w.editRecord("contact", ann, cols{"emailaddress1": "both@stage.example"}) // it comes back before the run
	w.told(w.sync(), lockstep.FindingMoved, lea)
}
