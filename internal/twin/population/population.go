// Package population makes a believable sample company for the twins: accounts,
// contacts, leads, marketing lists with members, subscriptions, campaigns and
// users for the organization, and an email account that is already in use.
//
// Everything is made up from the package's own word lists; mail domains end in
// .example or are example.com, example.org and example.net, so no address can
// belong to a person. The same Options give the same stream, record by record;
// nothing is held while it flows, because every attribute is a function of the
// seed, the record's index and the population's time.
//
// The data is as untidy as a customer's: names in many scripts, values at the
// limit of their column, missing, malformed, padded and shared addresses, two
// spellings of a country, inactive records, opt-outs.
package population

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// MaxContacts bounds a population.
const MaxContacts = 20_000_000

// Options say what to make.
type Options struct {
	// Contacts is N, the number of contact records; 1 to MaxContacts. Accounts
	// (N/18) and leads (0.3 N) follow from it.
	Contacts int
	// Seed chooses one of many sample companies.
	Seed uint64
	// Now is the time up to which the company's history reaches; created and
	// modified times are spread over the six years before. It is cut to the day.
	Now time.Time
	// Plain makes the population of benchmarks instead: Contacts contacts, each
	// active with a unique valid address and ten fields, in one dynamic and one
	// static list, and an empty email account.
	Plain bool
	// PlatformShare is how many contacts the email account starts with, as a
	// share of N from 0 to 1. Negative means none, 0 means 0.02.
	PlatformShare float64
}

// Column is a column of the rows that follow. Target is the table that a lookup
// column points to, empty for other columns.
type Column struct {
	Name, Target string
}

// CRM receives the organization's records in this order: users, accounts,
// contacts, subscriptions, leads, campaigns, lists, members. A record comes
// after the records it points to.
type CRM interface {
	// Begin announces the table and columns of the following rows. Columns of a
	// column definition that a row lacks are null, not the column's default.
	Begin(table string, columns []Column) error
	// Row adds a record. values has the order of the columns and is reused: the
	// receiver may keep the values but not the slice.
	Row(id value.ID, values []value.Value) error
	// Members adds members to a static list. members is reused.
	Members(list value.ID, memberTable string, members []value.ID) error
}

// Platform receives the email account's content: data fields, then address
// books, contacts and campaigns.
type Platform interface {
	// DataField adds a field; kind is String, Numeric, Date or Boolean.
	DataField(name, kind string) error
	// AddressBook adds a private address book.
	AddressBook(name string) error
	// Contact adds a contact; its Fields and Books are reused. In a large
	// population an address may come twice, of two people with one name: the
	// first counts.
	Contact(c PlatformContact) error
	// Campaign adds an unsent campaign.
	Campaign(c PlatformCampaign) error
}

// PlatformCampaign is an email that was prepared and not sent.
type PlatformCampaign struct {
	Name, Subject, FromName, HTML, Text string
}

// PlatformContact is a contact of the email account.
type PlatformContact struct {
	Email string
	// Status is subscribed, unsubscribed, suppressed or hardBounced.
	Status string
	// StatusAt is when it left, zero while subscribed.
	StatusAt         time.Time
	OptIn            string // Unknown, Single, Double or VerifiedDouble
	Created, Updated time.Time
	Fields           []PlatformField
	Books            []string // names of address books
}

// PlatformField is a data field's value: a string, a float64, a bool or a time.
type PlatformField struct {
	Name  string
	Value any
}

// Generate streams a population into the two systems and returns the plan of
// its lists. platform may be nil.
func Generate(opt Options, crm CRM, platform Platform) (Plan, error) {
	g, err := newGenerator(opt)
	if err != nil {
		return Plan{}, err
	}
	steps := []func(CRM) error{g.genUsers, g.genAccounts, g.genContacts, g.genSubscriptions, g.genLeads, g.genCampaigns, g.genLists}
	if opt.Plain {
		steps = []func(CRM) error{g.genUsers, g.genPlainContacts, g.genLists}
	}
	for _, step := range steps {
		if err := step(crm); err != nil {
			return Plan{}, err
		}
	}
	if platform != nil && !opt.Plain {
		if err := g.genPlatform(platform); err != nil {
			return Plan{}, err
		}
	}
	return g.plan(), nil
}

// GeneratePlatform streams the content of a further email account: one that the
// same company met other people with. account is 0 for the account of Generate.
func GeneratePlatform(opt Options, account int, platform Platform) error {
	g, err := newGenerator(opt)
	if err != nil || opt.Plain {
		return err
	}
	g.account = account
	return g.genPlatform(platform)
}

// PlanOf returns the plan of a population without making it.
func PlanOf(opt Options) (Plan, error) {
	g, err := newGenerator(opt)
	if err != nil {
		return Plan{}, err
	}
	return g.plan(), nil
}

type generator struct {
	opt   Options
	words *vocabulary

	users, accounts, bigAccounts, leads int
	account                             int // which email account is made

	row row
}

func newGenerator(opt Options) (*generator, error) {
	switch {
	case opt.Contacts < 1 || opt.Contacts > MaxContacts:
		return nil, fmt.Errorf("population: %d contacts asked for; 1 to %d are possible", opt.Contacts, MaxContacts)
	case opt.PlatformShare > 1:
		return nil, fmt.Errorf("population: the platform share is %v; at most 1", opt.PlatformShare)
	case opt.Now.IsZero():
		return nil, errors.New("population: the time is missing")
	}
	opt.Now = opt.Now.UTC().Truncate(24 * time.Hour)
	if opt.PlatformShare == 0 {
		opt.PlatformShare = 0.02
	}
	g := &generator{opt: opt, words: words()}
	g.users = min(60, max(8, opt.Contacts/500))
	g.accounts = max(1, opt.Contacts/18)
	g.bigAccounts = max(1, g.accounts/10)
	g.leads = opt.Contacts * 3 / 10
	return g, nil
}

// row assembles one record: text that is made for it is collected in one buffer
// and becomes one string.
type row struct {
	vals  []value.Value
	buf   []byte
	spans []span
	start int
}

type span struct{ col, from, to int }

func (r *row) reset(columns int) {
	if cap(r.vals) < columns {
		r.vals = make([]value.Value, columns)
	}
	r.vals = r.vals[:columns]
	clear(r.vals)
	r.buf, r.spans, r.start = r.buf[:0], r.spans[:0], 0
}

// keep sets a column to a text that already exists.
func (r *row) keep(col int, s string) {
	if s != "" {
		r.vals[col] = value.Text(s)
	}
}

// made sets a column to what was appended to buf since the last call.
func (r *row) made(col int) {
	if len(r.buf) > r.start {
		r.spans = append(r.spans, span{col, r.start, len(r.buf)})
	}
	r.start = len(r.buf)
}

// values completes the record.
func (r *row) values() []value.Value {
	s := string(r.buf)
	for _, p := range r.spans {
		r.vals[p.col] = value.Text(s[p.from:p.to])
	}
	return r.vals
}

// fill appends a pattern: # becomes a digit, @ a capital letter.
func fill(dst []byte, d *dice, pattern string) []byte {
	for i := range len(pattern) {
		switch c := pattern[i]; c {
		case '#':
			dst = append(dst, byte('0'+d.n(10)))
		case '@':
			dst = append(dst, byte('A'+d.n(26)))
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func columns(names ...string) []Column {
	out := make([]Column, len(names))
	for i, n := range names {
		out[i].Name = n
		switch n {
		case "ownerid", "preferredsystemuserid":
			out[i].Target = "systemuser"
		case "parentcustomerid", "parentaccountid":
			out[i].Target = "account"
		case "lsx_contactid":
			out[i].Target = "contact"
		case "campaignid":
			out[i].Target = "campaign"
		}
	}
	return out
}
