package population

import (
	"strconv"
	"strings"
	"time"
)

var platformBooks = []string{"Website sign-ups", "Webshop customers", "Competition 2024", "Old newsletter (before 2022)", eventBook}

// genPlatform fills the email account: people it met by itself. Three in five
// are contacts of the CRM, some with other values there; the rest are leads and
// strangers.
func (g *generator) genPlatform(p Platform) error {
	if g.opt.PlatformShare < 0 {
		return nil
	}
	for _, f := range [...][2]string{{"COMPANY", "String"}, {"COUNTRY", "String"}, {"SHOP_ORDERS", "Numeric"}, {"LAST_ORDER", "Date"}, {"WANTS_PRINT", "Boolean"}} {
		if err := p.DataField(f[0], f[1]); err != nil {
			return err
		}
	}
	for _, b := range platformBooks {
		if err := p.AddressBook(b); err != nil {
			return err
		}
	}
	n := int(float64(g.opt.Contacts) * g.opt.PlatformShare)
	fields := make([]PlatformField, 0, 8)
	books := make([]string, 0, 2)
	step := max(1, g.opt.Contacts/max(1, n))
	for i := range n {
		subject := i + g.account*MaxContacts // each account draws on its own
		d := g.roll(ofPlatform, subject)
		var who person
		switch u := d.unit(); {
		case u < 0.60:
			// Steps over the contacts meet each at most once.
			who = g.contactPerson(i*step + d.n(step))
		case u < 0.75 && g.leads > 0:
			who = g.leadPerson(i * (g.leads / n) % g.leads)
		default:
			c := &g.words.countries[pick(&d, g.words.pick)]
			cu := g.words.cultures[c.culture]
			who = person{first: pick(&d, cu.firsts), last: pick(&d, cu.lasts), country: c, number: subject, stranger: true}
		}
		c := PlatformContact{Status: "subscribed", OptIn: [...]string{"Single", "Single", "Double", "Unknown"}[d.n(4)]}
		c.Email = strings.ToLower(string(who.appendMail(nil)))
		c.Created, c.Updated = g.moments(ofPlatform, subject)
		switch u := d.unit(); {
		case u < 0.08:
			c.Status, c.StatusAt = "unsubscribed", c.Updated
		case u < 0.10:
			c.Status, c.StatusAt = "suppressed", c.Updated
		case u < 0.12:
			c.Status, c.StatusAt = "hardBounced", c.Updated
		}
		fields, books = fields[:0], books[:0]
		first, last := who.first.text, who.last.text
		if d.chance(0.25) { // as typed into a form
			first, last = who.first.latin, strings.ToUpper(who.last.latin)
		}
		if d.chance(0.85) {
			fields = append(fields, PlatformField{"FIRSTNAME", first}, PlatformField{"LASTNAME", last})
		}
		if d.chance(0.5) {
			fields = append(fields, PlatformField{"COUNTRY", who.country.name})
		}
		if who.employed && d.chance(0.4) {
			fields = append(fields, PlatformField{"COMPANY", string(who.company.appendName(nil))})
		}
		if d.chance(0.3) {
			fields = append(fields, PlatformField{"SHOP_ORDERS", float64(d.n(20))}, PlatformField{"LAST_ORDER", c.Updated.Truncate(24 * time.Hour)})
		}
		if d.chance(0.2) {
			fields = append(fields, PlatformField{"WANTS_PRINT", d.chance(0.5)})
		}
		if d.chance(0.1) {
			fields = append(fields, PlatformField{"POSTCODE", strconv.Itoa(10_000 + d.n(89_999))})
		}
		if c.Status == "subscribed" { // who left is in no address book
			books = append(books, platformBooks[d.n(len(platformBooks))])
			if other := platformBooks[d.n(len(platformBooks))]; other != books[0] && d.chance(0.3) {
				books = append(books, other)
			}
		}
		c.Fields, c.Books = fields, books
		if err := p.Contact(c); err != nil {
			return err
		}
	}
	for _, c := range platformCampaigns {
		if err := p.Campaign(c); err != nil {
			return err
		}
	}
	return nil
}

var platformCampaigns = []PlatformCampaign{
	campaign("Monthly newsletter", "What is new this month, @FIRSTNAME@"),
	campaign("Product launch invitation", "You are invited: the new range"),
	campaign("Welcome", "Good to have you, @FIRSTNAME@"),
}

func campaign(name, subject string) PlatformCampaign {
	return PlatformCampaign{
		Name: name, Subject: subject, FromName: "Sample company",
		HTML: `<html><body><h1>` + name + `</h1><p><a href="https://www.example.com/read">Read more</a></p><p><a href="http://$UNSUB$">Unsubscribe</a></p></body></html>`,
		Text: name + "\n\nhttps://www.example.com/read\n\nUnsubscribe: http://$UNSUB$\n",
	}
}
