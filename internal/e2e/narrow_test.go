package e2e

import (
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A few changes of a large dynamic list are asked about one by one: who left, who
// joined and who changed and stayed are told apart without evaluating the list.
func TestFewChangesOfALargeDynamicList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 26_000, Seed: 5, Plain: true, PlatformShare: -1}, bare: true})
	w.mapFields()
	l, err := w.app.List(t.Context(), w.account.ID, "Everyone")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	if _, err := w.app.UpdateList(t.Context(), l.ID, app.ListPatch{Activated: &yes}); err != nil {
		t.Fatal(err)
	}
	if run := w.sync(); run.Counts.ContactsCreated != 26_000 {
		t.Fatalf("%+v", run.Counts)
	}
	if l, err = w.app.List(t.Context(), w.account.ID, l.ID); err != nil {
		t.Fatal(err)
	}
	var page struct{ Value []rec }
	w.crm("GET", "contacts?$select=emailaddress1&$top=3", nil, &page)
	one := func(i int) (id, email string) {
		return page.Value[i].str("contactid"), strings.ToLower(page.Value[i].str("emailaddress1"))
	}
	leaver, leaverEmail := one(0)
	stayer, stayerEmail := one(1)
	deleted, deletedEmail := one(2)
	w.editRecord("contact", leaver, map[string]any{"statecode": 1, "statuscode": 2})
	w.editRecord("contact", stayer, map[string]any{"address1_city": "Ushuaia"})
	w.crm("DELETE", "contacts("+deleted+")", nil, nil)
	w.crm("POST", "contacts", map[string]any{"firstname": "Joy", "lastname": "Joiner", "emailaddress1": "joy.joiner@stage.example"}, nil)
	w.resetCalls()
	if run := w.sync(); run.Status != lockstep.RunCompleted {
		t.Fatalf("the run is %s", run.Status)
	}
	// One call asks about the four changed records and one reads the joined one; the
	// whole list would take six.
	if n := w.calls("dataverse")["contact.read"]; n > 2 {
		t.Errorf("%d calls read contacts: %v", n, w.calls("dataverse"))
	}
	in := w.contacts(string(l.Book))
	if len(in) != 26_000-1 {
		t.Errorf("%d contacts are in the book", len(in))
	}
	for email, want := range map[string]bool{leaverEmail: false, deletedEmail: false, stayerEmail: true, "joy.joiner@stage.example": true} {
		if c, is := in[strings.ToLower(email)]; is != want {
			t.Errorf("%s in the book: %t, want %t", email, is, want)
		} else if email == stayerEmail && c.DataFields["CITY"] != "Ushuaia" {
			t.Errorf("the changed member has CITY %v", c.DataFields["CITY"])
		}
	}
}
