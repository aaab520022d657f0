package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// crmColumn is a mapped column with the label that it must equal.
type crmColumn struct{ column, label string }

var mapped = map[string][]crmColumn{
	"contact": {
		{"firstname", "FIRSTNAME"},
		{"lastname", "LASTNAME"},
		{"fullname", "FULLNAME"},
		{"jobtitle", "JOBTITLE"},
		{"address1_city", "CITY"},
		{"address1_country", "COUNTRY"},
		{"telephone1", "PHONE"},
		{"birthdate", "BIRTHDATE"},
		{"annualincome", "INCOME"},
		{"preferredcontactmethodcode", "METHOD"},
	},
	"lead":    {{"firstname", "FIRSTNAME"}, {"lastname", "LASTNAME"}, {"fullname", "FULLNAME"}, {"jobtitle", "JOBTITLE"}, {"address1_city", "CITY"}},
	"account": {{"name", "FULLNAME"}, {"address1_city", "CITY"}},
}

var method = map[string]string{"1": "Any", "2": "Email", "3": "Phone", "4": "Fax", "5": "Mail"}

func sets(table string) string { return table + "s" }

// people reads all records of a member table by id.
func (w *world) people(table string) map[string]rec {
	w.t.Helper()
	cols := []string{"emailaddress1", "statecode", "donotemail", "donotbulkemail", table + "id", "modifiedon"}
	for _, c := range mapped[table] {
		cols = append(cols, c.column)
	}
	out := map[string]rec{}
	for _, r := range w.rows(sets(table) + "?$select=" + strings.Join(cols, ",")) {
		out[r.str(table+"id")] = r
	}
	return out
}

// queryPage is the most that one page of a query returns. It has no link to the next.
const queryPage = 5000

// membersOf asks the CRM twin who is in a marketing list.
func (w *world) membersOf(l lockstep.ListSettings) []string {
	w.t.Helper()
	var out []string
	if !l.Dynamic {
		for _, r := range w.rows(fmt.Sprintf("listmembers?$select=_entityid_value&$filter=_listid_value eq %s", l.CRMID)) {
			out = append(out, r.str("_entityid_value"))
		}
		return out
	}
	var list rec
	w.crm("GET", fmt.Sprintf("lists(%s)?$select=query", l.CRMID), nil, &list)
	members := w.rows(sets(l.MemberTable) + "?fetchXml=" + url.QueryEscape(list.str("query")))
	if len(members) >= queryPage {
		w.t.Fatalf("list %q has %d members or more, and only the first page of a query is read here", l.Name, queryPage)
	}
	for _, r := range members {
		out = append(out, r.str(l.MemberTable+"id"))
	}
	return out
}

func eligible(r rec) bool {
	return r != nil && r.str("statecode") == "0" && r.str("donotemail") != "true" && r.str("donotbulkemail") != "true" &&
		lockstep.CheckEmail(lockstep.NormalizeEmail(r.str("emailaddress1"))) == ""
}

// agree checks that every activated list's address book holds exactly who it has to
// hold and that every mapped field of every member is equal on both sides.
// strangersBefore are the members that each book had before the first sync.
func (w *world) agree(strangersBefore map[lockstep.BookID]map[string]bool) {
	w.t.Helper()
	lists, err := w.app.Lists(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	people := map[string]map[string]rec{}
	for t := range mapped {
		people[t] = w.people(t)
	}
	all := w.contacts("")
	sharing := map[string]int{} // how many records of any table have an address
	refused := map[string]bool{}
	for _, recs := range people {
		for _, r := range recs {
			email := lockstep.NormalizeEmail(r.str("emailaddress1"))
			sharing[email]++
			if r.str("donotemail") == "true" || r.str("donotbulkemail") == "true" {
				refused[email] = true // by one of the records that share the address
			}
		}
	}
	listed := map[string]bool{} // addresses that a refusing member of any list has
	for _, l := range lists {
		if !l.Activated {
			continue
		}
		for _, id := range w.membersOf(l) {
			if r := people[l.MemberTable][id]; r.str("donotemail") == "true" || r.str("donotbulkemail") == "true" {
				listed[lockstep.NormalizeEmail(r.str("emailaddress1"))] = true
			}
		}
	}
	checked, compared := 0, 0
	for _, l := range lists {
		if !l.Activated {
			continue
		}
		if l.Book == "" {
			w.t.Errorf("list %q has no address book", l.Name)
			continue
		}
		checked++
		want, maybe := map[string]bool{}, map[string]bool{}
		for _, id := range w.membersOf(l) {
			r := people[l.MemberTable][id]
			if !eligible(r) {
				continue
			}
			email := lockstep.NormalizeEmail(r.str("emailaddress1"))
			c, ok := all[email]
			if ok && c.Channel["email"]["status"] != "subscribed" && c.Channel["email"]["status"] != "softBounced" {
				continue // opted out on the platform
			}
			if sharing[email] > 1 && refused[email] {
				// The strictest word of all list members with the address counts; one of
				// a record in no list may not be known.
				maybe[email] = !listed[email]
				continue
			}
			want[email] = true
			if !ok {
				w.t.Errorf("list %q: a member (%s %s) is not on the platform", l.Name, l.MemberTable, id)
				continue
			}
			if sharing[email] > 1 {
				continue // speaks for the contact or not: covered by its own test
			}
			for _, m := range mapped[l.MemberTable] {
				compared++
				got, exp := value(c.DataFields[m.label], m.label), value(r[m.column], m.label)
				if got != exp {
					w.t.Errorf("%s %s: %s is %q on the platform and %q in the CRM", l.MemberTable, id, m.label, got, exp)
				}
			}
		}
		got := w.contacts(string(l.Book))
		for email := range want {
			if _, ok := got[email]; !ok {
				w.t.Errorf("list %q (%s): %s is missing in the address book", l.Name, l.MembershipAction, email)
			}
		}
		for email := range got {
			if want[email] || maybe[email] {
				continue
			}
			stays := !l.Dynamic && l.MembershipAction != lockstep.ActionRemove
			if !stays || !strangersBefore[l.Book][email] {
				w.t.Errorf("list %q (%s, dynamic %t): %s has no business in the address book; %s", l.Name, l.MembershipAction, l.Dynamic, email, w.story(email))
			}
		}
	}
	if checked == 0 || compared == 0 {
		w.t.Fatal("nothing was compared")
	}
}

// value brings one side's value into a form that compares.
func value(v any, label string) string {
	s := rec{"v": v}.str("v")
	switch label {
	case "BIRTHDATE":
		s, _, _ = strings.Cut(s, "T")
		s, _, _ = strings.Cut(s, " ")
	case "METHOD":
		if m, ok := method[s]; ok {
			return m
		}
	}
	return s
}

// booksNow tells who is in each address book.
func (w *world) booksNow() map[lockstep.BookID]map[string]bool {
	w.t.Helper()
	var books []struct {
		ID   int64
		Name string
	}
	w.mail("GET", "/v2/address-books?select=1000", nil, &books)
	out := map[lockstep.BookID]map[string]bool{}
	for _, b := range books {
		id := fmt.Sprint(b.ID)
		out[lockstep.BookID(id)] = map[string]bool{}
		if strings.EqualFold(b.Name, "All contacts") || strings.EqualFold(b.Name, "Test") {
			continue
		}
		for _, email := range slices.Collect(maps.Keys(w.contacts(id))) {
			out[lockstep.BookID(id)][email] = true
		}
	}
	return out
}

// After the first sync every activated list's members are in its address book and
// every mapped field agrees, whatever the size of the company.
func TestFirstSyncAgrees(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 42} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 1500, Seed: seed, PlatformShare: 0.1}})
			before := w.booksNow()
			w.sync()
			w.agree(before)
			w.sync()
			w.agree(before)
		})
	}
}

// story tells all that is known of an address, for a test that failed.
func (w *world) story(email string) string {
	w.t.Helper()
	var b strings.Builder
	x, err := w.app.Explain(w.t.Context(), w.account.ID, email)
	said, _ := json.MarshalIndent(x, "", " ")
	fmt.Fprintf(&b, "explained (%v): %s\n", err, said)
	contact := w.contacts("")[email]
	fmt.Fprintf(&b, "on the platform: %+v\n", contact)
	for _, table := range []string{"contact", "lead", "account"} {
		for id, r := range w.people(table) {
			if lockstep.NormalizeEmail(r.str("emailaddress1")) == email || strings.Contains(string(said), id) {
				fmt.Fprintf(&b, "%s %s: %v\n", table, id, r)
			}
		}
	}
	runs, err := w.app.Runs(w.t.Context(), app.RunFilter{Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range slices.Backward(runs) {
		changes, _, err := w.app.Changes(w.t.Context(), r.ID, 0, 100_000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range changes {
			line, _ := json.Marshal(c)
			if c.Email == email || strings.Contains(string(line), `"`+email+`"`) || c.Contact != "" && string(c.Contact) == fmt.Sprint(contact.ContactID) {
				fmt.Fprintf(&b, "%s %s %s: %s\n", r.Created.Format(time.TimeOnly), r.ID, r.Status, line)
			}
		}
	}
	return b.String()
}
