package e2e

import (
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// A full read that delivers fewer records than the table holds is told, removes
// nobody for being absent, and the next runs make good what it missed. An opt-out
// that it did read is not held back.
func TestShortReadRemovesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 900, Seed: 21, Plain: true}, bare: true})
	w.mapFields()
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, l := range lists {
		if !l.Dynamic {
			if _, err := w.app.UpdateList(t.Context(), l.ID, app.ListPatch{Activated: &yes}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.sync()
	if n := len(w.contacts("")); n != 900 {
		t.Fatalf("%d contacts after the first run", n)
	}
	for _, f := range []fault.Fault{
		{Twin: fault.Dataverse, Kind: "delta-expired", Count: 1},
		{Twin: fault.Dataverse, Kind: "page-skip", Operation: "contact.delta", Count: 1},
	} {
		if err := w.twins.Faults.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	id, email := w.one("contact", 3)
	w.editRecord("contact", id, map[string]any{"donotbulkemail": true})
	run := w.sync()
	findings, err := w.app.Findings(t.Context(), run.ID, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, f := range findings {
		told = told || f.Code == lockstep.FindingIncomplete
	}
	if c := w.contact(email); len(c.Lists) != 0 {
		t.Error("an opt-out was held back with the removals")
	}
	if !told || run.Counts.BookRemovals != 1 {
		t.Errorf("told %t, %d removals: %+v", told, run.Counts.BookRemovals, findings)
	}
	w.twins.Faults.Clear()
	w.sync()
	for _, l := range lists {
		if !l.Dynamic {
			set, err := w.app.List(t.Context(), w.account.ID, l.ID)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(w.contacts(string(set.Book))); n != 899 {
				t.Errorf("%d of 899 are in the address book", n)
			}
		}
	}
	w.resetCalls()
	if run := w.sync(); len(w.changes(run.ID)) != 0 {
		t.Error("not quiet")
	}
}
