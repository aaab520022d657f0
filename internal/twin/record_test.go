package twin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/history"
)

type remembered struct {
	First, Last int64
	Entries     []history.Entry
}

// course makes some calls and returns what the twins remember of them.
func course(t *testing.T) (got remembered, c *client, twins *Twins) {
	t.Helper()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	twins, c = start(t, Options{Contacts: 50, Seed: 5, PlatformShare: -1, DotdigitalAccounts: 2, History: 1000, Clock: clock.NewFixed(now)})
	crm := func(method, path, body string) {
		t.Helper()
		if code := c.do(method, c.ready.Dataverse.API+path, body, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+c.token)
			r.Header.Set("Content-Type", "application/json")
		}, nil); code >= 400 {
			t.Fatalf("%s %s: %d", method, path, code)
		}
	}
	email := func(k int, method, path, body string) {
		t.Helper()
		if code := c.of(k, method, path, body, nil); code >= 400 {
			t.Fatalf("%s %s: %d", method, path, code)
		}
	}
	steer := func(path, body string) {
		t.Helper()
		if code := c.control("POST", path, body, nil); code != 200 {
			t.Fatalf("%s %s: %d", path, body, code)
		}
	}
	const row = "contacts(11111111-0000-0000-0000-000000000001)"
	crm("PATCH", row, `{"lastname":"King","donotbulkemail":false}`)
	email(1, "POST", "/v2/address-books", `{"name":"News"}`)
	preference := twins.Accounts[1].AddPreference("Offers", "o")
	email(1, "PUT", "/contacts/v3/import", `{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"king@example.com"},"dataFields":{"FIRSTNAME":"Ada"},"lists":[3]}]}`)
	crm("PATCH", row, `{"lastname":"Ray"}`)
	crm("PATCH", row, `{"lastname":"Ray","donotbulkemail":true}`)
	steer("/people", fmt.Sprintf(`{"account":2,"email":"king@example.com","act":"preference","preference":%d,"opted_in":true}`, preference))
	steer("/people", `{"account":2,"email":"king@example.com","act":"unsubscribe"}`)
	email(1, "POST", "/v2/contacts/resubscribe", `{"unsubscribedContact":{"email":"king@example.com"}}`)
	steer("/people", `{"account":2,"email":"king@example.com","act":"confirm"}`)
	steer("/faults", `{"twin":"dataverse","operation":"whoami","kind":"env-restore","count":1,"args":{"writes":1}}`)
	crm("GET", "WhoAmI", "")
	crm("DELETE", row, "")
	c.control("GET", "/history", "", &got)
	return got, c, twins
}

func TestHistory(t *testing.T) {
	got, c, twins := course(t)
	var lines []string
	for k, e := range got.Entries {
		if e.Seq != int64(k+1) {
			t.Errorf("entry %d has the number %d", k, e.Seq)
		}
		line := fmt.Sprint(e.Twin, e.Account, " ", e.Operation, " ", e.Kind, " ", e.ID, e.Email)
		for _, ch := range e.Changes {
			switch ch.Name {
			case "lastname", "donotbulkemail", "status", "email", "name", "FIRSTNAME":
				line += fmt.Sprintf(" %s:%s>%s", ch.Name, ch.Old, ch.New)
			default:
				if strings.HasPrefix(ch.Name, "preference:") {
					line += fmt.Sprintf(" %s:%s>%s", ch.Name, ch.Old, ch.New)
				}
			}
		}
		if strings.HasPrefix(e.ID, "11111111") {
			line = strings.Replace(line, "11111111-0000-0000-0000-000000000001", "row", 1)
		}
		lines = append(lines, line)
		wantPrincipal := e.Twin == "dotdigital" && !strings.HasPrefix(e.Operation, "people.")
		if wantPrincipal != (e.Principal == c.ready.DotdigitalAccounts[1].User) || e.OnBehalfOf != "" || !e.Time.Equal(twins.Clock.Now()) {
			t.Errorf("%s by %q at %v", line, e.Principal, e.Time)
		}
		if e.Twin == "dataverse" && e.Kind != "restore" && len(e.Principal) != 36 {
			t.Errorf("%s by %q", line, e.Principal)
		}
	}
	want := []string{
		`dataverse0 contact.upsert create row lastname:null>"King" donotbulkemail:null>false`,
		`dotdigital2 address-books.create list-create 3 name:null>"News"`,
		`dotdigital2 contacts.import create 1001king@example.com email:null>"king@example.com" FIRSTNAME:null>"Ada"`,
		`dotdigital2 contacts.import join-list 1001king@example.com`,
		`dataverse0 contact.upsert update row lastname:"King">"Ray"`,
		`dataverse0 contact.upsert update row donotbulkemail:false>true`,
		`dotdigital2 people.preference preference 1001king@example.com preference:1:null>true`,
		`dotdigital2 people.unsubscribe leave-list 1001king@example.com`,
		`dotdigital2 people.unsubscribe status 1001king@example.com status:"subscribed">"unsubscribed"`,
		`dotdigital2 contacts.resubscribe challenge 1001king@example.com`,
		`dotdigital2 people.confirm status 1001king@example.com status:"unsubscribed">"subscribed"`,
		`dataverse0 fault.env-restore restore 1`,
		`dataverse0 contact.delete delete row lastname:"Ray">null donotbulkemail:false>null`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	var page remembered
	if c.control("GET", "/history?after=4&limit=2", "", &page); page.First != 1 || page.Last != int64(len(want)) || len(page.Entries) != 2 || page.Entries[0].Seq != 5 {
		t.Errorf("page %+v", page)
	}
	if code := c.control("GET", "/history?after=x", "", nil); code != 400 {
		t.Errorf("after=x: %d", code)
	}
	for e := range twins.History.After(12) {
		if e.Seq != 13 || e.Kind != "delete" {
			t.Errorf("in the process: %+v", e)
		}
	}

	// All but the random credentials, which the system user's id follows, is the
	// same each time.
	text := func(r remembered) string {
		out, _ := json.Marshal(r)
		return strings.NewReplacer(r.Entries[0].Principal, "system user", r.Entries[1].Principal, "API user").Replace(string(out))
	}
	again, _, _ := course(t)
	if diff := cmp.Diff(text(got), text(again)); diff != "" {
		t.Errorf("the same course is remembered in another way: %s", diff)
	}

	_, plain := start(t, Options{Contacts: 1})
	if code := plain.control("GET", "/history", "", nil); code != 409 {
		t.Errorf("without a history: %d", code)
	}
}
