package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
)

// stage is a world with next to nobody in it: a test brings its own cast.
type stage struct {
	*world
	crmWrites atomic.Int64 // rows written in the CRM, by whomever
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return newStageWith(t, app.Config{})
}

func newStageWith(t *testing.T, cfg app.Config) *stage {
	t.Helper()
	return newStageOf(t, worldOptions{cfg: cfg})
}

func newStageOf(t *testing.T, o worldOptions) *stage {
	t.Helper()
	o.twins.Contacts, o.twins.Plain, o.bare = 1, true, true
	w := &stage{world: newWorld(t, o)}
	w.mapFields()
	w.twins.Dataverse.OnWrite(func(x dataverse.Write) { w.crmWrites.Add(1) })
	return w
}

type cols = map[string]any

func newID() string { return lockstep.NewID(time.Now()).String() }

// cast makes a record in the CRM and returns its id. Its last name is the part of
// the address before the @.
func (w *stage) cast(table, email string, more ...cols) string {
	w.t.Helper()
	id := newID()
	c := cols{table + "id": id}
	if email != "" {
		c["emailaddress1"] = email
	}
	name, _, _ := strings.Cut(email, "@")
	if name == "" {
		name = "nobody"
	}
	if table == "account" {
		c["name"] = name
	} else {
		c["lastname"] = name
	}
	for _, m := range more {
		maps.Copy(c, m)
	}
	w.crm("POST", table+"s", c, nil)
	return id
}

var memberCode = map[string]int{"account": 1, "contact": 2, "lead": 4}

// list makes a marketing list, dynamic when it has a filter (FetchXML conditions),
// activated with an action.
func (w *stage) list(name, table string, action lockstep.MembershipAction, filter string) lockstep.ListSettings {
	w.t.Helper()
	id := newID()
	c := cols{"listid": id, "listname": name, "type": filter != "", "createdfromcode": memberCode[table]}
	if filter != "" {
		c["query"] = fmt.Sprintf(`<fetch version="1.0" mapping="logical" distinct="true"><entity name="%s"><attribute name="%sid"/><filter type="and">%s</filter></entity></fetch>`, table, table, filter)
	}
	w.crm("POST", "lists", c, nil)
	if err := w.app.DiscoverLists(w.t.Context(), w.account.ID); err != nil {
		w.t.Fatal(err)
	}
	l, err := w.app.List(w.t.Context(), w.account.ID, id)
	if err != nil {
		w.t.Fatal(err)
	}
	yes := true
	return w.patchList(l, app.ListPatch{Activated: &yes, MembershipAction: &action})
}

func (w *stage) patchList(l lockstep.ListSettings, p app.ListPatch) lockstep.ListSettings {
	w.t.Helper()
	l, err := w.app.UpdateList(w.t.Context(), l.ID, p)
	if err != nil {
		w.t.Fatalf("list %s: %v", l.Name, err)
	}
	return l
}

// book is the address book of a list.
func (w *stage) book(l lockstep.ListSettings) string {
	w.t.Helper()
	l, err := w.app.List(w.t.Context(), w.account.ID, l.ID)
	if err != nil || l.Book == "" {
		w.t.Fatalf("list %s has no address book: %v", l.Name, err)
	}
	return string(l.Book)
}

func (w *stage) join(l lockstep.ListSettings, ids ...string) {
	w.t.Helper()
	var members []cols
	for _, id := range ids {
		members = append(members, cols{"@odata.type": "Microsoft.Dynamics.CRM." + l.MemberTable, l.MemberTable + "id": id})
	}
	w.crm("POST", "AddListMembersList", cols{"List": cols{"@odata.type": "Microsoft.Dynamics.CRM.list", "listid": l.CRMID.String()}, "Members": members}, nil)
}

func (w *stage) quit(l lockstep.ListSettings, id string) {
	w.t.Helper()
	w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.RemoveMemberList", l.CRMID), cols{"EntityId": id}, nil)
}

// signUp puts a person into an address book, as a form does, and returns the id.
func (w *stage) signUp(book, email string, fields ...string) int64 {
	w.t.Helper()
	var data []cols
	for i := 0; i+1 < len(fields); i += 2 {
		data = append(data, cols{"key": fields[i], "value": fields[i+1]})
	}
	var c struct{ ID int64 }
	w.mail("POST", "/v2/address-books/"+book+"/contacts", cols{"email": email, "optInType": "Unknown", "emailType": "Html", "dataFields": data}, &c)
	return c.ID
}

// takeOut removes a person from an address book by hand.
func (w *stage) takeOut(book, email string) {
	w.t.Helper()
	w.mail("DELETE", fmt.Sprintf("/v2/address-books/%s/contacts/%d", book, w.contact(email).ContactID), nil, nil)
}

// optOutOf is a person who unsubscribes from one address book; optOut from all.
func (w *stage) optOutOf(book, email string) {
	w.t.Helper()
	w.mail("POST", "/v2/address-books/"+book+"/contacts/unsubscribe", cols{"email": email}, nil)
}

func (w *stage) optOut(email string) {
	w.t.Helper()
	w.mail("POST", "/v2/contacts/unsubscribe", cols{"email": email}, nil)
}

// state is what both systems hold, cell by cell, apart from times.
func (w *stage) state() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	who := map[string]string{}
	for _, table := range []string{"account", "contact", "lead"} {
		for id, r := range w.people(table) {
			name := r.str("lastname")
			if table == "account" {
				name = r.str("name")
			}
			who[id] = name
			key := "crm " + table + " " + name
			if _, twice := out[key]; twice {
				key += " " + id
				who[id] += " " + id
			}
			out[key] = "here"
			for k, v := range r {
				if k != "modifiedon" && k != table+"id" && k[0] != '@' && v != nil {
					out[key+" "+k] = r.str(k)
				}
			}
		}
	}
	names := map[string]string{}
	for _, l := range w.rows("lists?$select=listname") {
		names[l.str("listid")] = l.str("listname")
	}
	for _, m := range w.rows("listmembers?$select=_entityid_value,_listid_value") {
		out[fmt.Sprintf("list %s: %s", names[m.str("_listid_value")], who[m.str("_entityid_value")])] = "member"
	}
	for email, c := range w.contacts("") {
		out["contact "+email] = fmt.Sprint(c.Channel["email"]["status"])
		for k, v := range c.DataFields {
			if v != nil {
				out["contact "+email+" "+k] = rec(c.DataFields).str(k)
			}
		}
	}
	var books []struct {
		ID   int64
		Name string
	}
	w.mail("GET", "/v2/address-books?select=1000", nil, &books)
	for _, b := range books {
		out["book "+b.Name] = "here"
		if reservedBook(b.Name) {
			continue
		}
		for email := range w.contacts(fmt.Sprint(b.ID)) {
			out[fmt.Sprintf("book %s: %s", b.Name, email)] = "member"
		}
	}
	return out
}

func reservedBook(name string) bool {
	return strings.EqualFold(name, "All contacts") || strings.EqualFold(name, "Test")
}

// changed lists the cells that differ, sorted: "+cell", "-cell", "cell = new value".
func changed(before, after map[string]string) []string {
	out := []string{}
	for k, v := range after {
		was, ok := before[k]
		switch {
		case !ok && (v == "here" || v == "member"):
			out = append(out, "+"+k)
		case was != v:
			out = append(out, k+" = "+v)
		}
	}
	for k := range before {
		if _, ok := after[k]; !ok {
			out = append(out, "-"+k)
		}
	}
	slices.Sort(out)
	return out
}

// quiet checks that a run with nothing to do writes nothing.
func (w *stage) quiet() {
	w.t.Helper()
	w.resetCalls()
	before := w.crmWrites.Load() // looking people up by address is a POST, but no write
	if run := w.sync(); w.crmWrites.Load() != before || writes(w.calls("dotdigital")) != 0 || run.Counts.Written != 0 {
		w.t.Errorf("a run with nothing to do wrote %d rows: %+v %v %v", w.crmWrites.Load()-before, run.Counts, w.calls("dataverse"), w.calls("dotdigital"))
	}
}

// found returns the codes of a run's findings as "code record-or-contact-or-list".
func (w *stage) findings(run lockstep.Run) []lockstep.Finding {
	w.t.Helper()
	f, err := w.app.Findings(w.t.Context(), run.ID, "", 10_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// told checks that a run has a finding of a code about a record.
func (w *stage) told(run lockstep.Run, code, record string) {
	w.t.Helper()
	all := w.findings(run)
	for _, f := range all {
		if f.Code == code && (record == "" || f.Record.String() == record || string(f.Contact) == record) {
			return
		}
	}
	w.t.Errorf("no finding %s about %s; there are %+v", code, record, all)
}
