package prove

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
)

// action is something that a person does on one side. Each decides by its own dice,
// from what there is at that moment, and says what it did; "" when there was nothing
// to do it to. A new action is a line here.
//
// -open=false leaves those out that decide who is who.
type action struct {
	name   string
	weight int
	do     func(w *people) string
	// whoIsWho actions move an address from one record or contact to another, or end
	// what has one.
	whoIsWho bool
}

// people act on the twins.
type people struct {
	*sim
	rnd  *rand.Rand
	word string // a text that no other action writes
	// during is set while the product is at work.
	during bool
}

type cols = map[string]any

// actions are all of them. They are put together late, because some have the product
// work, during which people act.
var actions []action

func init() { //nolint:gochecknoinits // a table that its own entries come back to cannot be initialised otherwise
	actions = slices.Concat(dataActions, consentActions, massActions, setupActions, undoActions, backupActions)
}

// dataActions are what people do to records, contacts and memberships.
var dataActions = []action{
	{"edit a record", 20, func(w *people) string {
		r := w.someone()
		if r == nil {
			return ""
		}
		col := pick(w.rnd, editable[r.table])
		var v any = w.word
		if edited := w.editedThere(); w.during && edited != nil && w.rnd.IntN(2) == 0 {
			return w.edit(edited, cols{"jobtitle": v}) // while the product carries that here
		}
		switch {
		case col == "address1_city" && w.rnd.IntN(3) == 0:
			v = "Porto"
		case w.rnd.IntN(12) == 0 && col != "lastname" && col != "name":
			v = nil
		}
		return w.edit(r, cols{col: v})
	}, false},
	{"edit a contact", 16, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		field := pick(w.rnd, []string{"JOBTITLE", "PHONE", "FIRSTNAME"})
		var v any = w.word
		if w.rnd.IntN(12) == 0 {
			v = nil
		}
		return w.editContact(c, cols{field: v})
	}, false},
	{"edit both sides", 6, func(w *people) string {
		r := w.linked()
		if r == nil {
			return ""
		}
		c := w.history.byEmail(r.email())
		return w.edit(r, cols{"jobtitle": w.word + " crm"}) + "; " + w.editContact(c, cols{"JOBTITLE": w.word + " mail"})
	}, false},
	{"edit different fields", 4, func(w *people) string {
		r := w.linked()
		if r == nil {
			return ""
		}
		c := w.history.byEmail(r.email())
		return w.edit(r, cols{"jobtitle": w.word + " crm"}) + "; " + w.editContact(c, cols{"PHONE": w.word})
	}, false},
	{"create a record", 8, func(w *people) string {
		table := pick(w.rnd, []string{"contact", "contact", "lead", "account"})
		email := w.word + "@new.example"
		if all := w.history.contacts(); w.rnd.IntN(5) == 0 && len(all) > 0 && w.plan.Shared {
			email = pick(w.rnd, all).email // somebody the platform knows
		}
		r := w.create(table, email, w.rnd)
		for _, l := range lists {
			if l.table == table && l.dynamic == "" && w.rnd.IntN(2) == 0 {
				w.join(l, r)
			}
		}
		return "create " + table + " " + r + " " + email
	}, false},
	{"delete a record", 2, func(w *people) string {
		r := w.someone()
		if r == nil {
			return ""
		}
		w.crm("DELETE", r.table+"s("+r.id+")", nil, nil)
		return "delete " + r.table + " " + r.id
	}, false},
	{"deactivate", 3, func(w *people) string {
		r := w.someone()
		if r == nil || !r.active() || r.table == "lead" {
			return ""
		}
		return w.edit(r, cols{"statecode": 1, "statuscode": 2})
	}, false},
	{"reactivate", 3, func(w *people) string {
		for _, r := range w.shuffled("contact", "account") {
			if !r.active() && r.cols["masterid"] == "" {
				return w.edit(r, cols{"statecode": 0, "statuscode": 1})
			}
		}
		return ""
	}, false},
	{"merge", 2, func(w *people) string {
		var two []*record
		for _, r := range w.shuffled("contact") {
			if r.active() {
				two = append(two, r)
			}
		}
		if len(two) < 2 {
			return ""
		}
		ref := func(r *record) cols {
			return cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": r.id}
		}
		w.crm("POST", "Merge", cols{"Target": ref(two[0]), "Subordinate": ref(two[1]), "PerformParentingChecks": false}, nil)
		return "merge contact " + two[1].id + " into " + two[0].id
	}, true},
	{"qualify a lead", 2, func(w *people) string {
		for _, r := range w.shuffled("lead") {
			if r.active() {
				w.crm("POST", "leads("+r.id+")/Microsoft.Dynamics.CRM.QualifyLead", cols{"CreateAccount": false, "CreateContact": true, "CreateOpportunity": false, "Status": 3}, nil)
				return "qualify lead " + r.id
			}
		}
		return ""
	}, true},
	{"change an address in the CRM", 4, func(w *people) string {
		r := w.someone()
		if r == nil {
			return ""
		}
		return w.edit(r, cols{"emailaddress1": w.word + "@Moved.example"})
	}, true},
	{"blank an address or take another's", 1, func(w *people) string {
		r, o := w.someone(), w.someone()
		if r == nil || o == nil {
			return ""
		}
		return w.edit(r, cols{"emailaddress1": pick(w.rnd, []any{nil, "no address", o.cols["emailaddress1"]})})
	}, true},
	{"change an address on the platform", 3, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		return w.readdress(c, w.word+"@moved.example")
	}, true},
	{"swap two addresses in the CRM", 2, func(w *people) string {
		two := w.shuffled("contact", "lead")
		if len(two) < 2 {
			return ""
		}
		a, b := two[0].cols["emailaddress1"], two[1].cols["emailaddress1"]
		return w.edit(two[0], cols{"emailaddress1": b}) + "; " + w.edit(two[1], cols{"emailaddress1": a})
	}, true},
	{"swap two addresses on the platform", 1, func(w *people) string {
		a, b := w.subscriber(), w.subscriber()
		if a == nil || b == nil || a == b {
			return ""
		}
		x, y := a.email, b.email
		return w.readdress(a, w.word+"@between.example") + "; " + w.readdress(b, x) + "; " + w.readdress(a, y)
	}, true},
	{"join a marketing list", 10, func(w *people) string {
		l := w.staticList()
		all := w.shuffled(l.table)
		if len(all) == 0 || !all[0].active() {
			return ""
		}
		w.join(l, all[0].id)
		return "list " + l.name + " gets " + all[0].id
	}, false},
	{"leave a marketing list", 7, func(w *people) string {
		l := w.staticList()
		m := sortedKeys(w.history.members[l.id()])
		if len(m) == 0 {
			return ""
		}
		id := pick(w.rnd, m)
		w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.RemoveMemberList", l.id()), cols{"EntityId": id}, nil)
		return "list " + l.name + " loses " + id
	}, false},
	{"taken out of an address book", 3, func(w *people) string {
		c := w.subscriber()
		if c == nil || len(c.in) == 0 {
			return ""
		}
		book := pick(w.rnd, sortedKeys(c.in))
		w.mail("DELETE", "/v2/address-books/"+book+"/contacts/"+c.id, nil, nil)
		return "book " + book + " loses " + c.email
	}, false},
	{"sign up", 6, func(w *people) string {
		book := w.someBook()
		if book == "" {
			return ""
		}
		email := w.word + "@stranger.example"
		if r := w.someone(); w.rnd.IntN(2) == 0 && r != nil && strings.Contains(r.email(), "@") {
			email = r.email()
		}
		w.mail("POST", "/v2/address-books/"+book+"/contacts", cols{"email": email, "optInType": "Unknown", "emailType": "Html", "dataFields": []cols{{"key": "LASTNAME", "value": w.word}}}, nil)
		return "book " + book + ": " + email + " signs up"
	}, false},
	{"delete a contact", 1, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		w.mail("DELETE", "/contacts/v3/contactId/"+c.id, nil, nil)
		return "delete contact " + c.id + " " + c.email
	}, true},
	{"edit the query of a dynamic list", 1, func(w *people) string {
		for _, l := range lists {
			if l.dynamic != "" {
				city := pick(w.rnd, []string{"Porto", "Lima"})
				l.dynamic = strings.ReplaceAll(l.dynamic, "Porto", city)
				w.crm("PATCH", "lists("+l.id()+")", cols{"query": l.fetch()}, nil)
				return "list " + l.name + " is about " + city
			}
		}
		return ""
	}, false},
	{"rename a list", 1, func(w *people) string {
		l := w.staticList()
		w.crm("PATCH", "lists("+l.id()+")", cols{"listname": l.name + " " + w.word}, nil)
		return "list " + l.name + " is called " + w.word
	}, false},
}

// editable are the columns that people edit.
var editable = map[string][]string{
	"contact": {"jobtitle", "telephone1", "firstname", "lastname", "address1_city", "address1_country"},
	"lead":    {"jobtitle", "address1_city", "lastname"},
	"account": {"name", "address1_city"},
}

func pick[T any](rnd *rand.Rand, all []T) T { return all[rnd.IntN(len(all))] }

// shuffled returns the living records of tables in an order of the dice.
func (w *people) shuffled(tables ...string) []*record {
	all := w.history.alive(tables...)
	w.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (w *people) contacts() []*contact {
	all := w.history.contacts()
	w.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (w *people) someone() *record {
	if all := w.history.alive("contact", "contact", "lead", "account"); len(all) > 0 {
		return pick(w.rnd, all)
	}
	return nil
}

func (w *people) subscriber() *contact {
	for _, c := range w.contacts() {
		if c.status == "subscribed" {
			return c
		}
	}
	return nil
}

// linked returns a contact of the CRM whose address a subscriber has.
func (w *people) linked() *record {
	for _, r := range w.shuffled("contact") {
		if c := w.history.byEmail(r.email()); r.active() && c != nil && c.status == "subscribed" {
			return r
		}
	}
	return nil
}

// editedThere returns a record whose contact somebody gave another job title in this
// round.
func (w *people) editedThere() *record {
	for _, x := range slices.Backward(w.history.changes) {
		if x.round != w.round {
			return nil
		}
		if x.side != "mail" || x.name != "JOBTITLE" || x.who != person {
			continue
		}
		for _, r := range w.history.alive("contact", "lead") {
			if r.email() != "" && r.email() == w.history.people[x.id].email {
				return r
			}
		}
	}
	return nil
}

func (w *people) staticList() list {
	for {
		if l := pick(w.rnd, lists); l.dynamic == "" {
			return l
		}
	}
}

// someBook is the address book of one of the lists, once it has one.
func (w *people) someBook() string {
	if len(w.books) == 0 {
		return ""
	}
	return pick(w.rnd, w.books)
}

func (w *people) edit(r *record, c cols) string {
	w.crm("PATCH", r.table+"s("+r.id+")", c, nil)
	return fmt.Sprintf("%s %s: %s", r.table, r.id, brief(c))
}

func (w *people) editContact(c *contact, fields cols) string {
	w.mail("PATCH", "/contacts/v3/contactId/"+c.id, cols{"identifiers": cols{"contactId": json.Number(c.id), "email": c.email}, "dataFields": fields}, nil)
	return fmt.Sprintf("contact %s %s: %s", c.id, c.email, brief(fields))
}

func (w *people) readdress(c *contact, email string) string {
	was := c.email
	w.mail("PATCH", "/contacts/v3/contactId/"+c.id, cols{"identifiers": cols{"contactId": json.Number(c.id), "email": email}}, nil)
	return fmt.Sprintf("contact %s %s: address %s", c.id, was, email)
}

func brief(c cols) string {
	b, _ := json.Marshal(c)
	return string(b)
}

// create makes a record in the CRM and returns its id.
func (s *sim) create(table, email string, rnd *rand.Rand) string {
	id := recordID(rnd)
	name, _, _ := strings.Cut(email, "@")
	c := cols{table + "id": id}
	if email != "" {
		c["emailaddress1"] = email
	}
	switch table {
	case "account":
		c["name"] = "Co " + name
	default:
		c["lastname"], c["firstname"] = "L "+name, "F "+name
	}
	if rnd.IntN(3) == 0 {
		c["address1_city"] = "Porto"
	}
	s.crm("POST", table+"s", c, nil)
	return id
}

func (s *sim) join(l list, id string) {
	s.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.AddMemberList", l.id()), cols{"EntityId": id}, nil)
}

// crm has a person call the CRM. What the CRM refuses does not happen.
func (s *sim) crm(method, path string, body, out any) bool {
	h := http.Header{"Authorization": {"Bearer " + personToken}, "Odata-Version": {"4.0"}, "Content-Type": {"application/json"}, "Prefer": {"odata.maxpagesize=5000"}}
	return s.ask("https://"+crmHost+"/api/data/v9.2/"+strings.ReplaceAll(path, " ", "%20"), method, h, body, out)
}

// mail has a person call the platform.
func (s *sim) mail(method, path string, body, out any) bool {
	r := http.Request{Header: http.Header{"Content-Type": {"application/json"}}}
	r.SetBasicAuth(apiUser, apiPassword)
	return s.ask("https://"+mailHost+path, method, r.Header, body, out)
}

func (s *sim) ask(url, method string, h http.Header, body, out any) bool {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			s.t.Fatal(err)
		}
	}
	res := s.call(person, method, url, h, b)
	answer, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 300 {
		s.refused = fmt.Sprintf("%s %s: %d %.200s", method, url, res.StatusCode, answer)
		return false
	}
	s.refused = ""
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			s.t.Fatalf("%s %s: %v in %.200s", method, url, err, answer)
		}
	}
	return true
}

// act carries out one action of the plan.
func (s *sim) act(a act) {
	if s.plan.drops("a", fmt.Sprint(a.Index)) {
		return
	}
	i := slices.IndexFunc(actions, func(x action) bool { return x.name == a.Name })
	s.refused = ""
	did := actions[i].do(&people{sim: s, rnd: s.random("act", a.Index), word: fmt.Sprintf("w%d", a.Index), during: a.During > 0})
	if s.refused != "" {
		did += " REFUSED " + s.refused
	}
	if did != "" {
		s.done++
		s.acted[a.Name]++
	}
	s.note("%d.%d action %d %s: %s", s.round, s.requests, a.Index, a.Name, did)
}
