package population

import (
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Membership actions as the product's configuration names them.
const (
	actionIgnore        = "ignore"
	actionRemove        = "remove"
	actionAllowKnown    = "allow_known"
	actionCreateLead    = "create_lead"
	actionCreateContact = "create_contact"
)

// Plan is what a demo may make of the population's marketing lists. Which of
// them the product activates is its configuration; this is a suggestion.
type Plan struct {
	Lists []PlannedList
}

// PlannedList is one marketing list.
type PlannedList struct {
	ID   value.ID
	Name string
	// MemberTable is contact, lead or account.
	MemberTable string
	Dynamic     bool
	Locked      bool
	Inactive    bool
	// Action is a membership action: ignore, remove, allow_known, create_lead or
	// create_contact.
	Action string
	// Activate suggests to sync the list.
	Activate bool
	// AddressBook is the name of an address book that the email account already
	// has for this list; empty when there is none.
	AddressBook string
}

type listSpec struct {
	name, purpose, table string
	action               string
	activate             bool
	locked, inactive     bool
	sendOptedOut         bool
	book                 string
	query                string                         // dynamic lists
	member               func(g *generator, i int) bool // static lists; nil: empty
}

// eventBook exists on both sides from the start, so that adopting an address
// book by name can be seen.
const eventBook = "Event sign-ups"

var sampleLists = []listSpec{
	{
		name: "Company newsletter", purpose: "Monthly newsletter, everyone who asked for it", table: "contact", action: actionRemove, activate: true,
		member: func(g *generator, i int) bool { return g.draw(0, i) < 0.5 },
	},
	{
		name: "Newsletter – Germany", purpose: "German edition", table: "contact", action: actionAllowKnown, activate: true,
		member: func(g *generator, i int) bool {
			return g.draw(1, i) < 0.7 && g.contactCountry(i).name == "Germany"
		},
	},
	{
		name: eventBook, purpose: "Registered on the website for an event", table: "contact", action: actionCreateContact, book: eventBook,
		member: func(g *generator, i int) bool { return g.draw(2, i) < 0.03 },
	},
	{
		name: "Product launch – VIP invitations", purpose: "Hand-picked", table: "contact", action: actionIgnore, activate: true,
		member: func(g *generator, i int) bool { return g.draw(0, i) < 0.01 },
	},
	{
		name: "Customer advisory board", purpose: "Meets twice a year", table: "contact", action: actionIgnore, activate: true,
		member: func(g *generator, i int) bool { return i%max(1, g.opt.Contacts/12) == 0 },
	},
	{name: "Webinar waiting list", purpose: "Empty until the next webinar", table: "contact", action: actionAllowKnown, activate: true},
	{
		name: "Press and investors", purpose: "Maintained by corporate communication", table: "contact", action: actionRemove, locked: true,
		member: func(g *generator, i int) bool { return g.draw(3, i) < 0.002 },
	},
	{
		name: "Summer campaign (finished)", purpose: "Kept for the record", table: "contact", action: actionIgnore, inactive: true,
		member: func(g *generator, i int) bool { return g.draw(4, i) < 0.05 },
	},
	{
		name: "Key accounts", purpose: "Accounts with a named manager", table: "account", action: actionRemove, activate: true,
		member: func(g *generator, i int) bool { return i < g.bigAccounts },
	},
	{
		name: "Resellers and partners", purpose: "Partner programme", table: "account", action: actionIgnore,
		member: func(g *generator, i int) bool { return g.draw(5, i) < 0.2 },
	},
	{
		name: "Trade fair leads 2026", purpose: "Scanned at the booth", table: "lead", action: actionCreateLead, activate: true,
		member: func(g *generator, i int) bool { s, _ := g.leadSource(i); return s == 7 },
	},
	{
		name: "Web enquiries", purpose: "Form on the website", table: "lead", action: actionAllowKnown,
		member: func(g *generator, i int) bool { s, _ := g.leadSource(i); return s == 8 && g.draw(6, i) < 0.8 },
	},

	{
		name: "Everyone reachable", purpose: "All active contacts who may be mailed", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="statecode" operator="eq" value="0"/><condition attribute="donotbulkemail" operator="eq" value="0"/><condition attribute="donotemail" operator="eq" value="0"/><condition attribute="emailaddress1" operator="not-null"/></filter>`),
	},
	{
		name: "Customers in France", purpose: "Address in France, both spellings", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="address1_country" operator="in"><value>France</value><value>Frankreich</value></condition><condition attribute="statecode" operator="eq" value="0"/></filter>`),
	},
	{
		name: "Manufacturing decision makers", purpose: "Role and the account's industry", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="accountrolecode" operator="eq" value="1"/><condition attribute="statecode" operator="eq" value="0"/></filter><link-entity name="account" from="accountid" to="parentcustomerid" alias="company" link-type="inner"><filter type="or"><condition attribute="industrycode" operator="eq" value="12"/><condition attribute="industrycode" operator="eq" value="22"/></filter></link-entity>`),
	},
	{
		name: "New contacts, last 30 days", purpose: "Welcome series", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="createdon" operator="last-x-days" value="30"/><condition attribute="statecode" operator="eq" value="0"/></filter>`),
	},
	{
		name: "Subscribers – Plus and Premium", purpose: "By the subscription table", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="statecode" operator="eq" value="0"/></filter><link-entity name="lsx_subscription" from="lsx_contactid" to="contactid" alias="sub" link-type="inner"><filter type="and"><condition attribute="lsx_plan" operator="in"><value>100000001</value><value>100000002</value></condition><condition attribute="statecode" operator="eq" value="0"/></filter></link-entity>`),
	},
	{
		name: "My customers", purpose: "Depends on who asks: contacts of the current user", table: "contact", action: actionIgnore,
		query: fetch("contact", `<filter type="and"><condition attribute="ownerid" operator="eq-userid"/></filter>`),
	},
	{
		name: "Hot leads", purpose: "Open leads rated hot", table: "lead", action: actionIgnore, activate: true,
		query: fetch("lead", `<filter type="and"><condition attribute="leadqualitycode" operator="eq" value="1"/><condition attribute="statecode" operator="eq" value="0"/></filter>`),
	},
	{
		name: "Dormant leads", purpose: "Open and untouched for a year", table: "lead", action: actionIgnore,
		query: fetch("lead", `<filter type="and"><condition attribute="modifiedon" operator="olderthan-x-months" value="12"/><condition attribute="statecode" operator="eq" value="0"/></filter>`),
	},
	{
		name: "Accounts in Northern Europe", purpose: "Newsletter by post", table: "account", action: actionIgnore,
		query: fetch("account", `<filter type="and"><condition attribute="address1_country" operator="in"><value>Sweden</value><value>Sverige</value><value>Netherlands</value><value>Nederland</value></condition><condition attribute="donotbulkemail" operator="eq" value="0"/></filter>`),
	},
	{
		name: "Everyone we may not mail", purpose: "For reports; opted-out members stay in", table: "contact", action: actionIgnore, sendOptedOut: true,
		query: fetch("contact", `<filter type="or"><condition attribute="donotbulkemail" operator="eq" value="1"/><condition attribute="donotemail" operator="eq" value="1"/></filter>`),
	},
}

var plainLists = []listSpec{
	{
		name: "Everyone (static)", purpose: "All contacts", table: "contact", action: actionRemove, activate: true,
		member: func(*generator, int) bool { return true },
	},
	{
		name: "Everyone", purpose: "All active contacts", table: "contact", action: actionIgnore, activate: true,
		query: fetch("contact", `<filter type="and"><condition attribute="statecode" operator="eq" value="0"/></filter>`),
	},
}

// fetch writes a list's query the way the list editor does.
func fetch(table, filter string) string {
	title := "fullname"
	if table == "account" {
		title = "name"
	}
	return `<fetch version="1.0" output-format="xml-platform" mapping="logical" distinct="true"><entity name="` + table + `"><attribute name="` + title +
		`"/><attribute name="` + table + `id"/><order attribute="` + title + `" descending="false"/>` + filter + `</entity></fetch>`
}

func (g *generator) lists() []listSpec {
	if g.opt.Plain {
		return plainLists
	}
	return sampleLists
}

// draw is a number from 0 to 1 for record i; lists that share a stream overlap.
func (g *generator) draw(stream, i int) float64 {
	d := g.roll(ofMember, i<<8|stream)
	return d.unit()
}

func (g *generator) contactCountry(i int) *country { p := g.contactPerson(i); return p.country }

func (g *generator) listID(i int) value.ID { d := g.roll(ofListID, i); return d.id() }

func (g *generator) plan() Plan {
	var p Plan
	for i, l := range g.lists() {
		p.Lists = append(p.Lists, PlannedList{
			ID: g.listID(i), Name: l.name, MemberTable: l.table, Dynamic: l.query != "", Locked: l.locked, Inactive: l.inactive,
			Action: l.action, Activate: l.activate, AddressBook: l.book,
		})
	}
	return p
}

var listColumns = columns("listname", "type", "createdfromcode", "membertype", "query", "lockstatus", "donotsendonoptout",
	"ignoreinactivelistmembers", "purpose", "source", "statecode", "statuscode", "createdon", "modifiedon", "ownerid")

func (g *generator) genLists(crm CRM) error {
	if err := crm.Begin("list", listColumns); err != nil {
		return err
	}
	codes := map[string]int64{"account": 1, "contact": 2, "lead": 4}
	for i, l := range g.lists() {
		created := g.opt.Now.AddDate(0, -2*(i+1), 0).Add(10 * 60 * 60 * 1e9)
		r := &g.row
		r.reset(len(listColumns))
		r.keep(0, l.name)
		r.vals[1] = value.Bool(l.query != "")
		r.vals[2], r.vals[3] = value.Int(codes[l.table]), value.Int(codes[l.table])
		r.keep(4, l.query)
		r.vals[5] = value.Bool(l.locked)
		r.vals[6] = value.Bool(!l.sendOptedOut)
		r.vals[7] = value.Bool(true)
		r.keep(8, l.purpose)
		r.keep(9, "Sample company")
		r.vals[10], r.vals[11] = value.Int(0), value.Int(0)
		if l.inactive {
			r.vals[10], r.vals[11] = value.Int(1), value.Int(1)
		}
		r.vals[12], r.vals[13] = value.DateTime(created), value.DateTime(created.AddDate(0, 0, 1))
		r.vals[14] = value.GUID(g.userID(i % g.users))
		if err := crm.Row(g.listID(i), r.values()); err != nil {
			return err
		}
	}
	for i, l := range g.lists() {
		if l.query != "" || l.member == nil {
			continue
		}
		if err := g.genMembers(crm, g.listID(i), l); err != nil {
			return err
		}
	}
	return nil
}

// memberBatch is how many members are handed over at once.
const memberBatch = 1000

func (g *generator) genMembers(crm CRM, list value.ID, l listSpec) error {
	n, id := g.opt.Contacts, g.contactID
	switch l.table {
	case "lead":
		n, id = g.leads, g.leadID
	case "account":
		n, id = g.accounts, g.accountID
	}
	batch := make([]value.ID, 0, memberBatch)
	for i := range n {
		if !l.member(g, i) {
			continue
		}
		if batch = append(batch, id(i)); len(batch) == cap(batch) {
			if err := crm.Members(list, l.table, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return crm.Members(list, l.table, batch)
}

var plainColumns = columns("firstname", "lastname", "emailaddress1", "jobtitle", "department", "telephone1", "address1_city",
	"address1_postalcode", "address1_country", "birthdate", "gendercode", "numberofchildren",
	"statecode", "statuscode", "createdon", "modifiedon", "ownerid")

// genPlainContacts makes the contacts of a benchmark.
func (g *generator) genPlainContacts(crm CRM) error {
	if err := crm.Begin("contact", plainColumns); err != nil {
		return err
	}
	en := g.words.cultures["en"]
	at := &g.words.countries[0]
	for i := range g.opt.Contacts {
		d := g.roll(ofContactRow, i)
		first, last := pick(&d, en.firsts), pick(&d, en.lasts)
		r := &g.row
		r.reset(len(plainColumns))
		r.keep(0, first.text)
		r.keep(1, last.text)
		p := person{first: first, last: last, number: i}
		r.buf = p.appendMail(r.buf)
		r.made(2)
		r.keep(3, pick(&d, jobTitles))
		r.keep(4, pick(&d, departments))
		r.buf = fill(r.buf, &d, at.phone)
		r.made(5)
		r.keep(6, pick(&d, at.cities))
		r.buf = fill(r.buf, &d, at.postal)
		r.made(7)
		r.keep(8, at.name)
		r.vals[9] = value.DateOf(g.opt.Now.AddDate(0, 0, -18*365-d.n(60*365)))
		r.vals[10] = value.Int(first.gender)
		r.vals[11] = value.Int(int64(d.n(5)))
		r.vals[12], r.vals[13] = value.Int(0), value.Int(1)
		g.times(r, 14, ofContactTime, i)
		if err := crm.Row(g.contactID(i), r.values()); err != nil {
			return err
		}
	}
	return nil
}
