package population

import (
	"strconv"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// company is an account, or the company that a lead works for.
type company struct {
	index    int
	country  *country
	brand    string // of its name and domain
	place    string
	trade    string
	industry int64
	style    int // of its mail addresses
	base     uint64
}

func (g *generator) company(a int) company {
	d := g.roll(ofCompany, a)
	c := company{index: a, country: &g.words.countries[pick(&d, g.words.pick)], style: d.n(4), base: d.next() >> 33}
	c.industry = int64(1 + d.n(33))
	n := len(brandWords) * len(placeWords) * len(tradeWords)
	// A step that is prime to n visits every name once.
	w := (a%n*100_003 + int(mix(g.opt.Seed)%uint64(n))) % n
	c.brand = brandWords[w%len(brandWords)]
	w /= len(brandWords)
	c.place = placeWords[w%len(placeWords)]
	c.trade = tradeWords[w/len(placeWords)]
	return c
}

func (c *company) appendName(dst []byte) []byte {
	if c.country.legalFirst {
		dst = append(append(dst, c.country.legal...), ' ')
	}
	dst = append(append(dst, c.brand...), ' ')
	dst = append(append(dst, c.place...), ' ')
	dst = append(dst, c.trade...)
	if round := c.round(); round > 0 {
		dst = strconv.AppendInt(append(dst, ' '), int64(round+1), 10)
	}
	if !c.country.legalFirst {
		dst = append(append(dst, ' '), c.country.legal...)
	}
	return dst
}

// round is how often all names had been used when this company was founded.
func (c *company) round() int {
	return c.index / (len(brandWords) * len(placeWords) * len(tradeWords))
}

func (c *company) appendDomain(dst []byte) []byte {
	dst = lower(lower(dst, c.brand), c.place)
	dst = lower(append(dst, '-'), c.trade)
	if round := c.round(); round > 0 {
		dst = strconv.AppendInt(dst, int64(round+1), 10)
	}
	return append(dst, ".example"...)
}

func lower(dst []byte, ascii string) []byte {
	for i := range len(ascii) {
		dst = append(dst, ascii[i]|0x20)
	}
	return dst
}

// person is a contact or a lead.
type person struct {
	first, last name
	country     *country
	company     company
	employed    bool
	number      int  // makes a private address unique
	stranger    bool // known to the email account alone
}

// contactPerson says who contact i is. Half of the contacts spread evenly over
// the accounts, half over the largest tenth; one in six has no account.
func (g *generator) contactPerson(i int) person {
	d := g.roll(ofPerson, i)
	if d.chance(0.16) {
		p := person{country: &g.words.countries[pick(&d, g.words.pick)], number: i}
		c := g.words.cultures[p.country.culture]
		p.first, p.last = pick(&d, c.firsts), pick(&d, c.lasts)
		return p
	}
	h := i / 2
	if i%2 == 0 {
		return g.employee(&d, g.company(h%g.accounts), h/g.accounts)
	}
	// A large account has at most ten contacts of the first half.
	return g.employee(&d, g.company(h%g.bigAccounts), 10+h/g.bigAccounts)
}

// leadPerson says who lead i is; three leads work for one company, which is no
// account yet.
func (g *generator) leadPerson(i int) person {
	d := g.roll(ofLead, i)
	return g.employee(&d, g.company(g.accounts+i/3), i%3)
}

// employee is the k-th person of a company. Its name differs from that of
// every other k, so that addresses are unique unless sharing is wanted.
func (g *generator) employee(d *dice, c company, k int) person {
	p := person{company: c, country: c.country, employed: true}
	cu := g.words.cultures[c.country.culture]
	if d.chance(0.12) { // from abroad
		cu = g.words.cultures[g.words.countries[pick(d, g.words.pick)].culture]
	}
	f, l := len(cu.firsts), len(cu.lasts)
	p.first = cu.firsts[(int(c.base)+k)%f]
	p.last = cu.lasts[(int(c.base>>8)+7*k+k/f)%l]
	return p
}

// appendMail appends the address that belongs to this person alone.
func (p *person) appendMail(dst []byte) []byte {
	first, last := p.first.latin, p.last.latin
	if !p.employed {
		dst = append(append(append(dst, first...), '.'), last...)
		dst = strconv.AppendInt(dst, int64(p.number), 10)
		if p.stranger {
			return append(dst, "@inbox.example"...)
		}
		return append(dst, [...]string{"@example.com", "@example.org", "@example.net", "@post.example"}[p.number%4]...)
	}
	switch p.company.style {
	case 0:
		first, last = last, first
		fallthrough
	case 1:
		dst = append(append(append(dst, first...), '.'), last...)
	case 2:
		dst = append(append(append(dst, first...), '_'), last...)
	default:
		dst = append(append(dst, first...), last...)
	}
	return p.company.appendDomain(append(dst, '@'))
}

// mailState is what happened to an address before it reached the CRM.
type mailState uint8

const (
	mailGood mailState = iota
	mailMissing
	mailMalformed
	mailMixedCase
	mailPadded
	mailLong
)

func mailKind(d *dice) mailState {
	switch u := d.unit(); {
	case u < 0.03:
		return mailMissing
	case u < 0.035:
		return mailMalformed
	case u < 0.055:
		return mailMixedCase
	case u < 0.065:
		return mailPadded
	case u < 0.0655:
		return mailLong
	}
	return mailGood
}

// appendContactMail appends the primary address of contact i as it stands in
// the CRM; nothing when there is none.
func (g *generator) appendContactMail(dst []byte, i int, p *person) []byte {
	d := g.roll(ofContactMail, i)
	kind := mailKind(&d)
	if d.chance(0.012) && i > 0 {
		// A colleague's address, or that of the record next to it: two contacts
		// share one mailbox.
		j := i - 2*g.accounts
		if i%2 == 1 {
			j = i - 2*g.bigAccounts
		}
		if j < 0 {
			j = i - 1
		}
		other := g.contactPerson(j)
		p = &other
	}
	return appendMailAs(dst, &d, p, kind)
}

func (g *generator) appendLeadMail(dst []byte, i int, p *person) []byte {
	d := g.roll(ofLeadMail, i)
	kind := mailKind(&d)
	if d.chance(0.05) { // someone the CRM already knows as a contact
		other := g.contactPerson(d.n(g.opt.Contacts))
		p = &other
	}
	return appendMailAs(dst, &d, p, kind)
}

func appendMailAs(dst []byte, d *dice, p *person, kind mailState) []byte {
	from := len(dst)
	switch kind {
	case mailMissing:
		return dst
	case mailPadded:
		if d.chance(0.5) {
			return p.appendMail(append(dst, ' '))
		}
		return append(p.appendMail(dst), ' ')
	case mailLong: // exactly the column's 100 characters
		const local = "a.very.long.mailbox.name.that.somebody.chose.for.a.whole.department"
		dst = append(dst, local...)
		n := len(dst)
		dst = append(p.company.appendLongDomain(append(dst, '@'), p.number), ".example"...)
		if pad := 100 - (len(dst) - from); pad > 0 { // x after the local part
			tail := string(dst[n:])
			dst = dst[:n]
			for range pad {
				dst = append(dst, 'x')
			}
			dst = append(dst, tail...)
		}
		return dst
	}
	dst = p.appendMail(dst)
	switch kind {
	case mailMixedCase:
		for i := from; i < len(dst); i++ {
			if c := dst[i]; c >= 'a' && c <= 'z' && (i == from || dst[i-1] == '.' || dst[i-1] == '@') {
				dst[i] = c &^ 0x20
			}
		}
	case mailMalformed:
		at := from
		for dst[at] != '@' {
			at++
		}
		switch d.n(5) {
		case 0: // cut off
			dst = dst[:at+1]
		case 1:
			dst[at] = ' '
		case 2:
			dst = append(dst[:at], append([]byte("@@"), dst[at+1:]...)...)
		case 3:
			dst = append(dst[:at], append([]byte("(at)"), dst[at+1:]...)...)
		default:
			dst = append(dst, ',')
		}
	}
	return dst
}

func (c *company) appendLongDomain(dst []byte, number int) []byte {
	return strconv.AppendInt(append(dst, 'd'), int64(c.index+number), 36)
}

// permissions are the opt-out columns of a record.
type permissions struct{ bulk, email, phone, post, material bool }

func (g *generator) permissions(table, i int) permissions {
	d := g.roll(ofOptOut, i<<2|table)
	var p permissions
	p.bulk = d.chance(0.06)
	p.email = d.chance(0.02)
	p.phone = d.chance(0.05)
	p.post = d.chance(0.03)
	p.material = d.chance(0.05) || p.bulk && d.chance(0.4)
	return p
}

// Tables for permissions.
const (
	contactTable = iota
	leadTable
	accountTable
)

// inactive is true for one record in twenty-five.
func (g *generator) inactive(table, i int) bool {
	d := g.roll(ofOptOut, i<<2|table)
	return mix(d.state^0x5EED)%25 == 0
}

func (g *generator) contactID(i int) value.ID { d := g.roll(ofContactID, i); return d.id() }
func (g *generator) accountID(i int) value.ID { d := g.roll(ofCompanyID, i); return d.id() }
func (g *generator) leadID(i int) value.ID    { d := g.roll(ofLeadID, i); return d.id() }
func (g *generator) userID(i int) value.ID    { d := g.roll(ofUserID, i); return d.id() }

// appendStreet appends the first address line.
func appendStreet(dst []byte, d *dice, c *country) []byte {
	street, n := pick(d, c.streets), int64(1+d.n(180))
	if c.numberFirst {
		return append(append(strconv.AppendInt(dst, n, 10), ' '), street...)
	}
	return strconv.AppendInt(append(append(dst, street...), ' '), n, 10)
}
