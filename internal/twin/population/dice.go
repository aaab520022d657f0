package population

import (
	"math/bits"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// dice are random numbers that depend on the seed, a subject and an index only,
// so that any attribute of any record can be computed again without a table.
type dice struct{ state uint64 }

// roll returns the dice of one subject, such as the mail address of contact i.
func (g *generator) roll(subject uint64, i int) dice {
	return dice{mix(g.opt.Seed ^ mix(subject<<48^uint64(i)+0x9E3779B97F4A7C15))}
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

func (d *dice) next() uint64 {
	d.state += 0x9E3779B97F4A7C15
	return mix(d.state)
}

// n returns a number from 0 to limit-1.
func (d *dice) n(limit int) int {
	hi, _ := bits.Mul64(d.next(), uint64(limit))
	return int(hi)
}

// chance is true in p of 1 cases.
func (d *dice) chance(p float64) bool { return d.unit() < p }

func (d *dice) unit() float64 { return float64(d.next()>>11) / (1 << 53) }

func pick[T any](d *dice, list []T) T { return list[d.n(len(list))] }

func (d *dice) id() value.ID {
	var id value.ID
	hi, lo := d.next(), d.next()
	for i := range 8 {
		id[i], id[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Subjects of dice.
const (
	ofUser uint64 = iota + 1
	ofUserID
	ofCompany
	ofCompanyID
	ofCompanyRow
	ofPerson
	ofContactID
	ofContactMail
	ofContactRow
	ofContactTime
	ofLead
	ofLeadID
	ofLeadMail
	ofLeadRow
	ofListID
	ofMember
	ofCampaignID
	ofSubscription
	ofSubscriptionID
	ofPlatform
	ofOptOut
)

// moments returns when a record was made and last changed: more of them lately,
// none in the last hour before the population's time.
func (g *generator) moments(subject uint64, i int) (created, modified time.Time) {
	const years = 6 * 365 * 24 * time.Hour
	d := g.roll(subject, i)
	u := d.unit()
	age := time.Hour + time.Duration(u*u*float64(years))
	created = g.opt.Now.Add(-age).Truncate(time.Second)
	modified = created
	if d.chance(0.7) {
		v := d.unit()
		modified = g.opt.Now.Add(-time.Hour - time.Duration(v*v*float64(age-time.Hour))).Truncate(time.Second)
	}
	return created, modified
}
