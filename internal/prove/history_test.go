package prove

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
)

// who writes: people on either side, the product, or a call of the product that is
// applied after everybody gave it up.
const (
	person  = "person"
	product = "product"
	late    = "late"
)

// change is one value that changed on one side.
type change struct {
	at    time.Time
	round int
	who   string
	side  string // "crm" or "mail"
	table string // contact, lead, account, list, listmember; "" on the platform
	id    string // of the record or contact
	kind  string // create, update, delete; on the platform also join-list and the like
	list  string // of a membership
	name  string // column or data field
	old   string
	new   string
}

func (c change) String() string {
	s := fmt.Sprintf("%s round %d %s: %s %s %s %s", c.at.Format("02 15:04:05.000"), c.round, c.who, c.side, c.kind, c.table, c.id)
	if c.list != "" {
		s += " list " + c.list
	}
	if c.name != "" {
		s += fmt.Sprintf(" %s %q -> %q", c.name, c.old, c.new)
	}
	return s
}

func (c change) ours() bool { return c.who != person }

// history is what happened on both sides, and what they hold now as it follows from
// that alone.
type history struct {
	who     string
	round   int
	changes []change
	records map[string]map[string]*record // by table and id
	cast    []*record                     // contacts, leads and accounts in order of appearance
	people  map[string]*contact           // by id
	order   []*contact
	members map[string]map[string]bool // CRM list → record ids
	writes  map[string]int             // by who
	// emails are the addresses that a person has touched in a way that changes who
	// is behind them.
}

// record is a row of the CRM.
type record struct {
	table, id string
	cols      map[string]string
	gone      bool
}

func (r *record) email() string { return strings.ToLower(strings.TrimSpace(r.cols["emailaddress1"])) }

func (r *record) active() bool {
	return !r.gone && (r.cols["statecode"] == "0" || r.cols["statecode"] == "")
}

func (r *record) optedOut() bool {
	return r.cols["donotemail"] == "true" || r.cols["donotbulkemail"] == "true"
}

// contact is a contact of the platform.
type contact struct {
	id     string
	email  string
	status string
	fields map[string]string
	by     map[string]string // who wrote a field last
	in     map[string]bool   // lists
	left   map[string]bool   // lists that the person unsubscribed from
	gone   bool
}

func newHistory() *history {
	return &history{records: map[string]map[string]*record{}, people: map[string]*contact{}, members: map[string]map[string]bool{}, writes: map[string]int{}}
}

var kept = map[string]bool{
	"contact": true, "lead": true, "account": true, "list": true, "listmember": true,
	lockstep.SuppressionTable: true, lockstep.UnsubscriberTable: true, lockstep.PreferenceTable: true, lockstep.ChoiceTable: true,
}

// crm hears of every write in the CRM.
func (h *history) crm(w dataverse.Write) {
	if !kept[w.Table] {
		return
	}
	h.writes[h.who]++
	id := w.ID.String()
	c := change{at: w.Time, round: h.round, who: h.who, side: "crm", table: w.Table, id: id, kind: w.Kind}
	if w.Table == "listmember" {
		cols := w.New
		if w.Kind == "delete" {
			cols = w.Old
		}
		for i, name := range w.Columns {
			switch name {
			case "listid":
				c.list = cols[i].String()
			case "entityid":
				c.id = cols[i].String()
			}
		}
		if h.members[c.list] == nil {
			h.members[c.list] = map[string]bool{}
		}
		switch w.Kind {
		case "create":
			h.members[c.list][c.id] = true
		case "delete":
			delete(h.members[c.list], c.id)
		}
		h.changes = append(h.changes, c)
		return
	}
	if h.records[w.Table] == nil {
		h.records[w.Table] = map[string]*record{}
	}
	r := h.records[w.Table][id]
	if r == nil {
		r = &record{table: w.Table, id: id, cols: map[string]string{}}
		h.records[w.Table][id] = r
		if w.Table != "list" {
			h.cast = append(h.cast, r)
		}
	}
	r.gone = w.Kind == "delete"
	if w.Kind != "update" {
		h.changes = append(h.changes, c)
	}
	if w.Kind == "delete" {
		return
	}
	for i, name := range w.Columns {
		if skipped[name] {
			continue
		}
		f := c
		f.name, f.old, f.new = name, text(w.Old[i].IsNull(), w.Old[i].String()), text(w.New[i].IsNull(), w.New[i].String())
		r.cols[name] = f.new
		h.changes = append(h.changes, f)
	}
}

var skipped = map[string]bool{"modifiedon": true, "modifiedby": true, "createdon": true, "createdby": true, "ownerid": true, "owningbusinessunit": true, "owninguser": true, "versionnumber": true}

func text(null bool, s string) string {
	if null {
		return ""
	}
	return s
}

// mail hears of every write on the platform.
func (h *history) mail(w dotdigital.Write) {
	who := h.who
	switch {
	case w.Source == "fault":
		who = person // somebody changes a contact while its pages are read
	case w.Source == "import" && who == person:
		who = product // a job of the product's that a person's call finds due
	}
	h.writes[who]++
	id := strconv.FormatInt(w.ContactID, 10)
	c := change{at: w.Time, round: h.round, who: who, side: "mail", id: id, kind: w.Kind}
	if w.List != 0 {
		c.list = strconv.Itoa(int(w.List))
	}
	p := h.people[id]
	if p == nil {
		p = &contact{id: id, status: "subscribed", fields: map[string]string{}, by: map[string]string{}, in: map[string]bool{}, left: map[string]bool{}}
		h.people[id] = p
		h.order = append(h.order, p)
	}
	switch w.Kind {
	case "delete", "destroy":
		p.gone = true
		clear(p.in)
	case "create", "restore":
		p.gone = false
	case "join-list":
		p.in[c.list] = true
		delete(p.left, c.list)
	case "leave-list":
		delete(p.in, c.list)
	case "list-status": // unsubscribed from the list, or returned to it
		if p.left[c.list] {
			delete(p.left, c.list)
			p.in[c.list] = true
			c.kind = "return-to-list"
		} else {
			p.left[c.list] = true
			delete(p.in, c.list)
			c.kind = "unsubscribe-list"
		}
	}
	if w.Kind != "update" && w.Kind != "status" {
		h.changes = append(h.changes, c)
	}
	for _, f := range w.Changes {
		x := c
		x.name, x.old, x.new = f.Name, plain(f.Old), plain(f.New)
		switch f.Name {
		case "email":
			p.email = strings.ToLower(x.new)
		case "status":
			p.status = x.new
		default:
			p.fields[f.Name], p.by[f.Name] = x.new, who
		}
		h.changes = append(h.changes, x)
	}
}

// plain is a JSON literal as text.
func plain(literal string) string {
	var s string
	if json.Unmarshal([]byte(literal), &s) == nil {
		return s
	}
	if literal == "null" {
		return ""
	}
	return literal
}

// alive returns the records of tables that exist, in order of appearance.
func (h *history) alive(tables ...string) []*record {
	var out []*record
	for _, r := range h.cast {
		if !r.gone && slices.Contains(tables, r.table) {
			out = append(out, r)
		}
	}
	return out
}

// contacts returns the contacts that exist, in order of appearance.
func (h *history) contacts() []*contact {
	var out []*contact
	for _, p := range h.order {
		if !p.gone && p.email != "" {
			out = append(out, p)
		}
	}
	return out
}

func (h *history) byEmail(email string) *contact {
	if email == "" {
		return nil
	}
	for _, p := range h.order {
		if !p.gone && p.email == email {
			return p
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
