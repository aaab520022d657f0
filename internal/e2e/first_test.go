package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// budget is the most calls that a run with nothing to do may make: twelve, and two
// a list.
func (w *world) budget() int64 {
	w.t.Helper()
	lists, err := w.app.Lists(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	n := int64(12)
	for _, l := range lists {
		if l.Activated {
			n += 2
		}
	}
	return n
}

func (w *world) allCalls() int64 {
	return total(w.calls("dataverse")) + total(w.calls("dotdigital"))
}

func (w *world) allWrites() int64 {
	return writes(w.calls("dataverse")) + writes(w.calls("dotdigital"))
}

// one returns the id of a record of a list's members that is eligible and whose
// address no other record has.
func (w *world) one(table string, skip int) (id, email string) {
	w.t.Helper()
	people := w.people(table)
	sharing := map[string]int{}
	for _, t := range []string{"contact", "lead", "account"} {
		for _, r := range w.people(t) {
			sharing[lockstep.NormalizeEmail(r.str("emailaddress1"))]++
		}
	}
	lists, err := w.app.Lists(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range lists {
		if !l.Activated || l.MemberTable != table || l.Dynamic {
			continue
		}
		for _, id := range w.membersOf(l) {
			email := lockstep.NormalizeEmail(people[id].str("emailaddress1"))
			if eligible(people[id]) && sharing[email] == 1 {
				if skip--; skip < 0 {
					return id, email
				}
			}
		}
	}
	w.t.Fatalf("no member of %s to play with", table)
	return "", ""
}

func (w *world) contact(email string) mailContact {
	w.t.Helper()
	var c mailContact
	w.mail("GET", "/contacts/v3/email/"+email, nil, &c)
	return c
}

func (w *world) record(table, id, columns string) rec {
	w.t.Helper()
	var r rec
	w.crm("GET", fmt.Sprintf("%ss(%s)?$select=%s", table, id, columns), nil, &r)
	return r
}

func (w *world) editContact(email string, fields map[string]any) {
	w.t.Helper()
	w.mail("PATCH", "/contacts/v3/email/"+email, map[string]any{"identifiers": map[string]any{"email": email}, "dataFields": fields}, nil)
}

func (w *world) editRecord(table, id string, columns map[string]any) {
	w.t.Helper()
	w.crm("PATCH", fmt.Sprintf("%ss(%s)", table, id), columns, nil)
}

// A second run with nothing changed writes nothing and stays within its calls.
func TestNothingChangedNothingWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 800, Seed: 3}})
	w.sync()
	for i := range 3 {
		w.resetCalls()
		run := w.sync()
		if n := w.allWrites(); n != 0 {
			t.Errorf("run %d wrote %d times: %v %v", i+2, n, w.calls("dataverse"), w.calls("dotdigital"))
		}
		if got, most := w.allCalls(), w.budget(); got > most {
			t.Errorf("run %d made %d calls, at most %d are allowed: %v %v", i+2, got, most, w.calls("dataverse"), w.calls("dotdigital"))
		}
		if run.Counts.Written != 0 || run.Status != lockstep.RunCompleted {
			t.Errorf("run %d: status %s, counts %+v", i+2, run.Status, run.Counts)
		}
		c := run.Counts
		if c.Read != c.Written+c.Equal+c.Conflicted+c.Rejected+c.Guarded {
			t.Errorf("run %d: the counts do not add up: %+v", i+2, c)
		}
	}
}

// An edit in the CRM travels within one run, does not come back and costs one write.
func TestEditInTheCRMTravels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 400, Seed: 4}})
	w.sync()
	w.sync()
	id, email := w.one("contact", 0)
	w.editRecord("contact", id, map[string]any{"address1_city": "Valparaíso", "jobtitle": nil})
	w.resetCalls()
	w.sync()
	if c := w.contact(email); c.DataFields["CITY"] != "Valparaíso" || c.DataFields["JOBTITLE"] != nil {
		t.Errorf("the platform has CITY %q and JOBTITLE %v", c.DataFields["CITY"], c.DataFields["JOBTITLE"])
	}
	if n := w.allWrites(); n != 1 {
		t.Errorf("%d writes, want 1: %v %v", n, w.calls("dataverse"), w.calls("dotdigital"))
	}
	for range 2 {
		w.resetCalls()
		w.sync()
		if n := w.allWrites(); n != 0 {
			t.Errorf("the edit came back: %v %v", w.calls("dataverse"), w.calls("dotdigital"))
		}
	}
}

// An edit on the platform travels within one run, does not come back and costs one
// write.
func TestEditOnThePlatformTravels(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 400, Seed: 5}})
	w.sync()
	w.sync()
	id, email := w.one("contact", 1)
	w.editContact(email, map[string]any{"JOBTITLE": "Keeper of the seals", "FIRSTNAME": "Ada"})
	w.resetCalls()
	w.sync()
	r := w.record("contact", id, "jobtitle,firstname")
	if r.str("jobtitle") != "Keeper of the seals" || r.str("firstname") != "Ada" {
		t.Errorf("the CRM has %v", r)
	}
	if n := writes(w.calls("dataverse")); n != 1 {
		t.Errorf("%d writes to the CRM, want 1: %v", n, w.calls("dataverse"))
	}
	w.sync() // the full name follows the first name
	for range 2 {
		w.resetCalls()
		w.sync()
		if n := w.allWrites(); n != 0 {
			t.Errorf("the edit came back: %v %v", w.calls("dataverse"), w.calls("dotdigital"))
		}
	}
	if c := w.contact(email); c.DataFields["FULLNAME"] != w.record("contact", id, "fullname").str("fullname") {
		t.Errorf("FULLNAME is %q", c.DataFields["FULLNAME"])
	}
}

// Edits of different fields on both sides both survive; of the same field one wins
// by policy and the other is kept and can be restored.
func TestEditsOnBothSides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 400, Seed: 6}})
	w.sync()
	w.sync()
	id, email := w.one("contact", 2)
	w.editRecord("contact", id, map[string]any{"telephone1": "+56 32 100 200", "jobtitle": "Harbour master"})
	w.editContact(email, map[string]any{"FIRSTNAME": "Inés", "JOBTITLE": "Lighthouse keeper"})
	run := w.sync()
	r, c := w.record("contact", id, "telephone1,firstname,jobtitle"), w.contact(email)
	if r.str("firstname") != "Inés" || c.DataFields["PHONE"] != "+56 32 100 200" {
		t.Errorf("an edit was lost: CRM %v, platform %v", r, c.DataFields)
	}
	if r.str("jobtitle") != rec(c.DataFields).str("JOBTITLE") {
		t.Errorf("the sides disagree: %q in the CRM, %q on the platform", r.str("jobtitle"), c.DataFields["JOBTITLE"])
	}
	conflicts, err := w.app.Conflicts(t.Context(), app.ConflictFilter{Account: w.account.ID, Run: run.ID})
	if err != nil {
		t.Fatal(err)
	}
	var found *lockstep.Conflict
	for i := range conflicts {
		if conflicts[i].Label == "JOBTITLE" && conflicts[i].Ref.ID.String() == id {
			found = &conflicts[i]
		}
	}
	if found == nil {
		t.Fatalf("the conflict was not kept: %+v", conflicts)
	}
	if found.CRM.Text() != "Harbour master" || found.Platform.Text() != "Lighthouse keeper" || found.CRMAt.IsZero() || found.PlatformAt.IsZero() {
		t.Errorf("conflict %+v", *found)
	}
	loser, want := "platform", "Lighthouse keeper"
	if found.Winner == "platform" {
		loser, want = "crm", "Harbour master"
	}
	if _, err := w.app.ResolveConflict(t.Context(), found.ID, loser, "tester"); err != nil {
		t.Fatal(err)
	}
	w.sync()
	if got := w.record("contact", id, "jobtitle").str("jobtitle"); got != want {
		t.Errorf("after the restore the CRM has %q, want %q", got, want)
	}
	if got := w.contact(email).DataFields["JOBTITLE"]; got != want {
		t.Errorf("after the restore the platform has %q, want %q", got, want)
	}
	w.sync()
	w.resetCalls()
	w.sync()
	if n := w.allWrites(); n != 0 {
		t.Errorf("not quiet afterwards: %v %v", w.calls("dataverse"), w.calls("dotdigital"))
	}
}

// A preview writes nothing; applying it writes exactly what it showed, and what
// moved meanwhile is told and left alone.
func TestPreviewThenApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 400, Seed: 8}})
	w.resetCalls()
	preview, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	if n := w.allWrites(); n != 0 {
		t.Fatalf("the preview wrote: %v %v", w.calls("dataverse"), w.calls("dotdigital"))
	}
	if preview.Status != lockstep.RunPreviewed || preview.Counts.ContactsCreated == 0 {
		t.Fatalf("preview %+v", preview)
	}
	id, email := w.one("contact", 0)
	w.editRecord("contact", id, map[string]any{"address1_city": "Elsewhere"})
	apply, err := w.app.ApplyPreview(t.Context(), preview.ID, "Kim")
	if err != nil {
		t.Fatal(err)
	}
	if apply, err = w.app.Wait(t.Context(), apply.ID); err != nil {
		t.Fatal(err)
	}
	planned, written := w.changes(preview.ID), w.changes(apply.ID)
	for k := range written {
		// Whoever turns out to share an address with somebody who refuses is not kept in a
		// book until there is another preview.
		if !planned[k] && !strings.HasPrefix(k, lockstep.RemoveFromBook.String()+" ") {
			t.Errorf("written but not previewed: %s", k)
		}
	}
	missing := 0
	for k := range planned {
		if !written[k] {
			missing++
		}
	}
	if missing != 1 {
		t.Errorf("%d previewed changes were not written, want 1: that of the record that moved", missing)
	}
	if _, ok := w.contacts("")[email]; ok {
		t.Errorf("the record that changed after the preview was written all the same")
	}
	findings, err := w.app.Findings(t.Context(), apply.ID, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, f := range findings {
		told = told || f.Code == lockstep.FindingMoved && f.Record.String() == id
	}
	if !told {
		t.Error("nobody was told about the record that moved")
	}
	w.sync()
	if c := w.contact(email); c.DataFields["CITY"] != "Elsewhere" {
		t.Errorf("the next run wrote CITY %v", c.DataFields["CITY"])
	}
}

// changes returns what a run's changes say.
func (w *world) changes(run string) map[string]bool {
	w.t.Helper()
	out := map[string]bool{}
	all, _, err := w.app.Changes(w.t.Context(), run, 0, 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		if c.State == lockstep.Dropped {
			continue
		}
		k := fmt.Sprint(c.Kind, c.Ref, c.List, c.Email, c.Name, len(c.Books))
		for _, f := range c.Fields {
			k += fmt.Sprintf(" %s=%s", f.Name, f.New)
		}
		out[k] = true
	}
	return out
}
