package population

import (
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

var userColumns = columns("firstname", "lastname", "internalemailaddress", "domainname", "title")

func (g *generator) genUsers(crm CRM) error {
	if err := crm.Begin("systemuser", userColumns); err != nil {
		return err
	}
	cultures := []string{"en", "de", "en", "fr", "sv", "es", "pl"}
	for i := range g.users {
		d := g.roll(ofUser, i)
		c := g.words.cultures[cultures[i%len(cultures)]]
		first, last := pick(&d, c.firsts), pick(&d, c.lasts)
		r := &g.row
		r.reset(len(userColumns))
		r.keep(0, first.text)
		r.keep(1, last.text)
		for _, col := range []int{2, 3} {
			r.buf = append(append(append(r.buf, first.latin...), '.'), last.latin...)
			r.buf = append(strconv.AppendInt(r.buf, int64(i), 10), "@sales.example"...)
			r.made(col)
		}
		r.keep(4, pick(&d, []string{"Sales Manager", "Sales Representative", "Marketing Manager", "CRM Administrator"}))
		if err := crm.Row(g.userID(i), r.values()); err != nil {
			return err
		}
	}
	return nil
}

var accountColumns = columns("name", "accountnumber", "emailaddress1", "telephone1", "websiteurl", "industrycode", "customertypecode",
	"accountcategorycode", "ownershipcode", "revenue", "numberofemployees", "creditlimit", "description",
	"donotbulkemail", "donotemail", "donotphone", "donotpostalmail", "donotsendmm", "preferredcontactmethodcode",
	"address1_line1", "address1_city", "address1_stateorprovince", "address1_postalcode", "address1_country",
	"statecode", "statuscode", "createdon", "modifiedon", "ownerid")

func (g *generator) genAccounts(crm CRM) error {
	if err := crm.Begin("account", accountColumns); err != nil {
		return err
	}
	for i := range g.accounts {
		c := g.company(i)
		d := g.roll(ofCompanyRow, i)
		r := &g.row
		r.reset(len(accountColumns))
		r.buf = c.appendName(r.buf)
		r.made(0)
		r.buf = strconv.AppendInt(append(r.buf, "AC-"...), int64(100_000+i), 10)
		r.made(1)
		if kind := mailKind(&d); kind != mailMissing {
			r.buf = append(r.buf, pick(&d, []string{"info@", "office@", "hello@", "sales@"})...)
			if kind == mailMalformed {
				r.buf = r.buf[:len(r.buf)-1]
			}
			r.buf = c.appendDomain(r.buf)
			r.made(2)
		}
		r.buf = fill(r.buf, &d, c.country.phone)
		r.made(3)
		if d.chance(0.8) {
			r.buf = c.appendDomain(append(r.buf, "https://www."...))
			r.made(4)
		}
		if d.chance(0.9) {
			r.vals[5] = value.Int(c.industry)
		}
		r.vals[6] = value.Int([...]int64{3, 3, 3, 8, 8, 5, 9, 10}[d.n(8)])
		if d.chance(0.5) {
			r.vals[7] = value.Int(int64(1 + d.n(2)))
			r.vals[8] = value.Int(int64(1 + d.n(4)))
		}
		if d.chance(0.7) {
			size := 1 + d.n(50)
			size *= 1 + d.n(40)
			r.vals[9] = value.Decimal(int64(size)*int64(80_000+d.n(60_000))*100+int64(d.n(100)), 2)
			r.vals[10] = value.Int(int64(size))
		}
		if d.chance(0.3) {
			r.vals[11] = value.Decimal(int64(1+d.n(500))*100_000, 2)
		}
		if d.chance(0.1) {
			r.keep(12, pick(&d, notes))
		}
		g.common(r, 13, accountTable, i)
		r.vals[18] = value.Int(1)
		g.address(r, 19, &d, c.country)
		g.state(r, 24, accountTable, i)
		g.times(r, 26, ofCompanyRow, i)
		if err := crm.Row(g.accountID(i), r.values()); err != nil {
			return err
		}
	}
	return nil
}

// common sets the five opt-out columns from col on.
func (g *generator) common(r *row, col, table, i int) {
	p := g.permissions(table, i)
	for k, b := range [...]bool{p.bulk, p.email, p.phone, p.post, p.material} {
		r.vals[col+k] = value.Bool(b)
	}
}

// address sets line1, city, state, postal code and country from col on.
func (g *generator) address(r *row, col int, d *dice, c *country) {
	city := d.n(len(c.cities))
	if d.chance(0.9) {
		r.buf = appendStreet(r.buf, d, c)
		r.made(col)
		r.buf = fill(r.buf, d, c.postal)
		r.made(col + 3)
	}
	r.keep(col+1, c.cities[city])
	r.keep(col+2, c.states[city%len(c.states)])
	switch u := d.unit(); {
	case u < 0.02: // unknown
	case u < 0.05:
		r.keep(col+4, c.variant)
	default:
		r.keep(col+4, c.name)
	}
}

// state sets statecode and statuscode of an account or a contact.
func (g *generator) state(r *row, col, table, i int) {
	state, status := int64(0), int64(1)
	if g.inactive(table, i) {
		state, status = 1, 2
	}
	r.vals[col], r.vals[col+1] = value.Int(state), value.Int(status)
}

// times sets createdon, modifiedon and the owner from col on.
func (g *generator) times(r *row, col int, subject uint64, i int) {
	created, modified := g.moments(subject, i)
	r.vals[col], r.vals[col+1] = value.DateTime(created), value.DateTime(modified)
	d := g.roll(ofUser, i^0x7FFFFF)
	r.vals[col+2] = value.GUID(g.userID(d.n(g.users)))
}

var contactColumns = columns("firstname", "lastname", "middlename", "salutation", "nickname", "jobtitle", "department", "emailaddress1",
	"emailaddress2", "telephone1", "mobilephone", "description", "birthdate", "gendercode", "familystatuscode", "preferredcontactmethodcode",
	"accountrolecode", "annualincome", "creditlimit", "numberofchildren", "parentcustomerid", "followemail",
	"donotbulkemail", "donotemail", "donotphone", "donotpostalmail", "donotsendmm",
	"address1_line1", "address1_city", "address1_stateorprovince", "address1_postalcode", "address1_country",
	"statecode", "statuscode", "createdon", "modifiedon", "ownerid")

var longText = strings.Repeat("Lorem ipsum is not in our style; this note fills its column to the last character. ", 25)[:2000]

func (g *generator) genContacts(crm CRM) error {
	if err := crm.Begin("contact", contactColumns); err != nil {
		return err
	}
	day := g.opt.Now
	for i := range g.opt.Contacts {
		p := g.contactPerson(i)
		d := g.roll(ofContactRow, i)
		r := &g.row
		r.reset(len(contactColumns))
		r.keep(0, p.first.text)
		r.keep(1, p.last.text)
		if d.chance(0.03) {
			cu := g.words.cultures[p.country.culture]
			r.keep(2, pick(&d, cu.firsts).text)
		}
		if d.chance(0.6) {
			r.keep(3, salutations[p.first.gender])
		}
		switch u := d.unit(); {
		case u < 0.003:
			r.keep(4, pick(&d, []string{"☕", "Sunny ☀️", "🚀", "👩‍💻 Dev"}))
		case u < 0.05:
			r.keep(4, p.first.latin)
		}
		if p.employed && d.chance(0.85) {
			r.keep(5, pick(&d, jobTitles))
			r.keep(6, pick(&d, departments))
		}
		r.buf = g.appendContactMail(r.buf, i, &p)
		r.made(7)
		if d.chance(0.07) {
			r.buf = append(append(r.buf, p.first.latin...), '.')
			r.buf = append(strconv.AppendInt(r.buf, int64(i), 36), "@example.net"...)
			r.made(8)
		}
		if d.chance(0.7) {
			r.buf = fill(r.buf, &d, p.country.phone)
			r.made(9)
		}
		if d.chance(0.4) {
			r.buf = fill(r.buf, &d, p.country.phone)
			r.made(10)
		}
		g.rarities(r, &d)
		if d.chance(0.6) {
			r.vals[12] = value.DateOf(day.AddDate(0, 0, -18*365-d.n(60*365)))
		}
		if d.chance(0.7) {
			r.vals[13] = value.Int(p.first.gender)
		}
		if d.chance(0.3) {
			r.vals[14] = value.Int(int64(1 + d.n(4)))
		}
		r.vals[15] = value.Int(1)
		if d.chance(0.4) {
			r.vals[15] = value.Int(int64(2 + d.n(4)))
		}
		if p.employed && d.chance(0.5) {
			r.vals[16] = value.Int(int64(1 + d.n(3)))
		}
		if d.chance(0.1) {
			r.vals[17] = value.Decimal(int64(20_000+d.n(180_000))*100, 2)
		}
		if d.chance(0.05) {
			r.vals[18] = value.Decimal(int64(d.n(5_000_000)), 2)
		}
		if d.chance(0.15) {
			r.vals[19] = value.Int(int64(d.n(5)))
		}
		if p.employed {
			r.vals[20] = value.GUID(g.accountID(p.company.index))
		}
		r.vals[21] = value.Bool(!d.chance(0.05))
		g.common(r, 22, contactTable, i)
		g.address(r, 27, &d, p.country)
		g.state(r, 32, contactTable, i)
		g.times(r, 34, ofContactTime, i)
		if err := crm.Row(g.contactID(i), r.values()); err != nil {
			return err
		}
	}
	return nil
}

// rarities sets the note and now and then fills a column to its limit.
func (g *generator) rarities(r *row, d *dice) {
	switch u := d.unit(); {
	case u < 0.0005:
		r.keep(11, longText)
	case u < 0.001: // last name of 50 characters
		r.keep(1, "Freifrau von und zu Hohenlangenstein-Wolkenburg-Au")
	case u < 0.0015: // job title of 100 characters
		r.keep(5, longText[:100])
	case u < 0.06:
		r.keep(11, pick(d, notes))
	}
}

var subscriptionColumns = columns("lsx_name", "lsx_externalid", "lsx_contactid", "lsx_startson", "lsx_renewedat", "lsx_price", "lsx_plan",
	"lsx_topics", "lsx_autorenew", "lsx_seats", "lsx_discount", "lsx_score", "statecode", "statuscode", "createdon", "modifiedon", "ownerid")

// genSubscriptions gives every fifth contact a row of the customer's own table.
func (g *generator) genSubscriptions(crm CRM) error {
	if err := crm.Begin("lsx_subscription", subscriptionColumns); err != nil {
		return err
	}
	plans := [...]string{"Basic", "Plus", "Premium"}
	for i := 0; i < g.opt.Contacts; i += 5 {
		d := g.roll(ofSubscription, i)
		plan := [...]int{0, 0, 0, 1, 1, 2}[d.n(6)]
		created, _ := g.moments(ofSubscription, i)
		r := &g.row
		r.reset(len(subscriptionColumns))
		r.buf = append(append(r.buf, plans[plan]...), ' ')
		r.buf = strconv.AppendInt(r.buf, int64(created.Year()), 10)
		r.made(0)
		r.buf = strconv.AppendInt(append(r.buf, "SUB-"...), int64(1_000_000+i), 10)
		r.made(1)
		r.vals[2] = value.GUID(g.contactID(i))
		r.vals[3] = value.DateOf(created)
		if age := g.opt.Now.Sub(created); age > 365*24*time.Hour {
			r.vals[4] = value.DateTime(created.AddDate(int(age/(365*24*time.Hour)), 0, 0).Add(-24 * time.Hour))
		}
		r.vals[5] = value.Decimal([...]int64{990, 2490, 9900}[plan], 2)
		r.vals[6] = value.Int(int64(100_000_000 + plan))
		var topics []int
		for t := range 4 {
			if d.chance(0.4) {
				topics = append(topics, 100_000_000+t)
			}
		}
		r.vals[7] = value.MultiSelect(topics...)
		r.vals[8] = value.Bool(d.chance(0.8))
		r.vals[9] = value.Int(int64(1 + d.n(25)))
		if d.chance(0.2) {
			r.vals[10] = value.Decimal(int64(d.n(5000)), 2)
		}
		r.vals[11] = value.Double(float64(d.n(20_000_000))/100_000 - 100)
		state, status := int64(0), int64(1)
		if d.chance(0.15) {
			state, status = 1, 2
		}
		r.vals[12], r.vals[13] = value.Int(state), value.Int(status)
		g.times(r, 14, ofSubscription, i)
		id := g.roll(ofSubscriptionID, i)
		if err := crm.Row(id.id(), r.values()); err != nil {
			return err
		}
	}
	return nil
}

var leadColumns = columns("subject", "firstname", "lastname", "companyname", "jobtitle", "emailaddress1", "telephone1", "mobilephone",
	"websiteurl", "description", "leadsourcecode", "leadqualitycode", "industrycode", "revenue", "numberofemployees", "budgetamount",
	"estimatedclosedate", "decisionmaker", "preferredcontactmethodcode", "parentaccountid",
	"donotbulkemail", "donotemail", "donotphone", "donotpostalmail", "donotsendmm",
	"address1_line1", "address1_city", "address1_stateorprovince", "address1_postalcode", "address1_country",
	"statecode", "statuscode", "createdon", "modifiedon", "ownerid")

func (g *generator) genLeads(crm CRM) error {
	if err := crm.Begin("lead", leadColumns); err != nil {
		return err
	}
	subjects := []string{"Interested in ", "Quote request: ", "Trade fair contact – ", "Web enquiry about ", "Demo requested: ", "Anfrage "}
	products := []string{"the new range", "a service contract", "spare parts", "training", "consulting", "Großmengen", "licences"}
	for i := range g.leads {
		p := g.leadPerson(i)
		d := g.roll(ofLeadRow, i)
		r := &g.row
		r.reset(len(leadColumns))
		r.buf = append(append(r.buf, pick(&d, subjects)...), pick(&d, products)...)
		r.made(0)
		if d.chance(0.93) {
			r.keep(1, p.first.text)
		}
		r.keep(2, p.last.text)
		r.buf = p.company.appendName(r.buf)
		r.made(3)
		if d.chance(0.7) {
			r.keep(4, pick(&d, jobTitles))
		}
		r.buf = g.appendLeadMail(r.buf, i, &p)
		r.made(5)
		if d.chance(0.6) {
			r.buf = fill(r.buf, &d, p.country.phone)
			r.made(6)
		}
		if d.chance(0.2) {
			r.buf = fill(r.buf, &d, p.country.phone)
			r.made(7)
		}
		if d.chance(0.3) {
			r.buf = p.company.appendDomain(append(r.buf, "https://"...))
			r.made(8)
		}
		if d.chance(0.15) {
			r.keep(9, pick(&d, notes))
		}
		source, quality := g.leadSource(i)
		if source > 0 {
			r.vals[10] = value.Int(source)
		}
		r.vals[11] = value.Int(quality)
		if d.chance(0.7) {
			r.vals[12] = value.Int(p.company.industry)
		}
		if d.chance(0.4) {
			r.vals[13] = value.Decimal(int64(1+d.n(9000))*1_000_000, 2)
			r.vals[14] = value.Int(int64(1 + d.n(5000)))
		}
		if d.chance(0.3) {
			r.vals[15] = value.Decimal(int64(1+d.n(2000))*10_000, 2)
			r.vals[16] = value.DateOf(g.opt.Now.AddDate(0, 0, d.n(200)-20))
		}
		r.vals[17] = value.Bool(d.chance(0.25))
		r.vals[18] = value.Int(int64(1 + d.n(2)))
		if d.chance(0.1) {
			r.vals[19] = value.GUID(g.accountID(d.n(g.accounts)))
		}
		g.common(r, 20, leadTable, i)
		g.address(r, 25, &d, p.country)
		r.vals[30], r.vals[31] = value.Int(0), value.Int(int64(1+d.n(2)))
		switch u := d.unit(); {
		case u < 0.12:
			r.vals[30], r.vals[31] = value.Int(1), value.Int(3)
		case u < 0.22:
			r.vals[30], r.vals[31] = value.Int(2), value.Int(int64(4+d.n(4)))
		}
		g.times(r, 32, ofLeadRow, i)
		if err := crm.Row(g.leadID(i), r.values()); err != nil {
			return err
		}
	}
	return nil
}

// leadSource returns the leadsourcecode (0: none) and the leadqualitycode.
func (g *generator) leadSource(i int) (source, quality int64) {
	d := g.roll(ofLeadRow, i)
	d.state ^= 0xF00D
	if d.chance(0.9) {
		source = [...]int64{7, 7, 7, 8, 8, 8, 8, 6, 1, 2, 3, 4, 5, 9, 10}[d.n(15)]
	}
	return source, [...]int64{1, 2, 2, 2, 3, 3}[d.n(6)]
}

var campaignColumns = columns("name", "codename", "typecode", "objective", "promotioncodename", "proposedstart", "proposedend", "actualstart",
	"budgetedcost", "expectedresponse", "statecode", "statuscode", "createdon", "modifiedon", "ownerid")

var campaigns = []struct {
	name, code string
	kind       int64
	status     int64 // 0 proposed, 1 ready, 2 launched, 3 completed
	start      int   // days from now
}{
	{"Spring trade fair", "FAIR-SPRING", 3, 3, -160},
	{"Monthly newsletter", "NEWS-MONTHLY", 2, 2, -30},
	{"Product launch", "LAUNCH", 1, 1, 21},
	{"Webinar: service contracts", "WEB-SERVICE", 3, 2, -5},
	{"Sommeraktion – Ersatzteile", "SOMMER", 2, 0, 60},
	{"Rentrée: offre de bienvenue", "RENTREE", 2, 0, 90},
	{"Customer satisfaction survey", "SURVEY", 5, 3, -300},
	{"Win back dormant customers", "WINBACK", 2, 1, 7},
}

func (g *generator) genCampaigns(crm CRM) error {
	if err := crm.Begin("campaign", campaignColumns); err != nil {
		return err
	}
	for i, c := range campaigns {
		start := g.opt.Now.AddDate(0, 0, c.start).Add(9 * time.Hour)
		r := &g.row
		r.reset(len(campaignColumns))
		r.keep(0, c.name)
		r.keep(1, c.code)
		r.vals[2] = value.Int(c.kind)
		r.keep(3, "Raise replies over last year's.")
		r.keep(4, "PROMO-"+c.code)
		r.vals[5] = value.DateTime(start)
		r.vals[6] = value.DateTime(start.AddDate(0, 0, 14))
		if c.status >= 2 {
			r.vals[7] = value.DateTime(start)
		}
		r.vals[8] = value.Decimal(int64(1+i)*250_000, 2)
		r.vals[9] = value.Int(int64(5 + i))
		r.vals[10], r.vals[11] = value.Int(0), value.Int(c.status)
		created := start.AddDate(0, 0, -45)
		if created.After(g.opt.Now) {
			created = g.opt.Now.AddDate(0, 0, -10)
		}
		r.vals[12], r.vals[13] = value.DateTime(created), value.DateTime(created.Add(time.Hour))
		r.vals[14] = value.GUID(g.userID(i % g.users))
		id := g.roll(ofCampaignID, i)
		if err := crm.Row(id.id(), r.values()); err != nil {
			return err
		}
	}
	return nil
}
