package e2e

import (
	"fmt"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// Cost follows change: with 100,000 people in step, a run that finds nothing stays
// within twelve calls and two a list, and one that finds a hundred changed people
// within twenty more.
func TestHundredChangesOfAHundredThousand(t *testing.T) {
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 100_000, Seed: 11, Plain: true}, bare: true})
	w.mapFields()
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, l := range lists {
		if _, err := w.app.UpdateList(t.Context(), l.ID, app.ListPatch{Activated: &yes}); err != nil {
			t.Fatal(err)
		}
	}
	run := w.sync()
	if run.Counts.ContactsCreated != 100_000 || run.Status != lockstep.RunCompleted {
		t.Fatalf("first run: %s, %+v", run.Status, run.Counts)
	}
	w.resetCalls()
	w.sync()
	if n, most := w.allCalls(), w.budget(); n > most || w.allWrites() != 0 {
		t.Errorf("with nothing changed: %d calls (at most %d), %d writes: %v %v", n, most, w.allWrites(), w.calls("dataverse"), w.calls("dotdigital"))
	}

	var page struct{ Value []rec }
	w.crm("GET", "contacts?$select=contactid,emailaddress1&$top=100", nil, &page)
	for _, r := range page.Value[:100] {
		w.editRecord("contact", r.str("contactid"), map[string]any{"address1_city": "Ushuaia"})
	}
	w.resetCalls()
	run = w.sync()
	if n, most := w.allCalls(), w.budget()+20; n > most {
		t.Errorf("with a hundred changes: %d calls, at most %d are allowed: %v %v", n, most, w.calls("dataverse"), w.calls("dotdigital"))
	}
	if run.Counts.Written != 100 || run.Counts.ContactsUpdated != 100 {
		t.Errorf("counts %+v", run.Counts)
	}
	for _, i := range []int{0, 50, 99} {
		if c := w.contact(page.Value[i].str("emailaddress1")); c.DataFields["CITY"] != "Ushuaia" {
			t.Errorf("contact %d has CITY %v", i, c.DataFields["CITY"])
		}
	}
	w.resetCalls()
	w.sync()
	if n, most := w.allCalls(), w.budget(); n > most || w.allWrites() != 0 {
		t.Errorf("afterwards: %d calls (at most %d), %d writes: %v", n, most, w.allWrites(), fmt.Sprint(w.calls("dataverse"), w.calls("dotdigital")))
	}
}
