package prove

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// plan is everything that a seed decides beforehand. What happens to single requests
// is drawn when they arrive, from the seed, the round and their number.
type plan struct {
	Seed      uint64
	FaultRate float64
	// Shared lets several records have one address, and addresses move between them.
	Shared bool
	// Floor is how many people the guards always let through; 0 = the usual number.
	Floor int
	// Poison has a plug-in of the CRM refuse every write of one record.
	Poison bool
	// PageRows is how many rows of a feed the product asks for at a time; 0 = as in
	// earnest, which no life of this size fills.
	PageRows int
	// ImportRows is how many contacts an import has at most; 0 = the usual number.
	ImportRows int
	Rounds     []round
	// Dropped names what the shrinker took out, see shrink_test.go.
	Dropped map[string]bool
}

// round is what people do, and then one cycle of the product.
type round struct {
	Pause   time.Duration // since the last one
	Do      string        // sync, preview, inward, labels, all, lane, look
	Actions []act
	Kill    *kill
	Skew    time.Duration // of the product's clock
}

// act is one action of a person.
type act struct {
	Index  int
	Name   string
	During int // while the round's n-th request is under way; 0 = before the cycle
}

// kill ends the process.
type kill struct {
	Request int // at this request of the round, or
	Step    int // at this step of the engine
	Before  bool
	// Upgrade asks the process to stop, which leaves it the time to keep what it knows of
	// what is under way. A newer version goes on.
	Upgrade bool
}

// dice returns the random source of one decision. It depends on the seed and on what
// is decided, never on what was drawn before: taking an action out leaves the others
// as they are.
func dice(seed uint64, what string, n ...int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, what, n)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func (s *sim) random(what string, n ...int) *rand.Rand { return dice(s.plan.Seed, what, n...) }

// drawn is the weight of an action in a plan.
func (a *action) drawn(open bool) int {
	if !open && a.whoIsWho || !*backFlag && takesBack[a.name] {
		return 0
	}
	return a.weight
}

// newPlan makes the plan of a seed with n actions; open draws those too that decide who
// is who.
func newPlan(seed uint64, n int, open bool) *plan {
	rnd := dice(seed, "plan")
	p := &plan{Seed: seed, Shared: open, FaultRate: faultRate, Dropped: map[string]bool{}}
	switch rnd.IntN(10) {
	case 0:
		p.FaultRate = 0 // people alone
	case 1:
		p.FaultRate = 5 * faultRate
	}
	p.Floor = pick(dice(seed, "settings"), []int{3, 5, 0, 0})
	p.Poison = dice(seed, "poison").IntN(4) == 0
	p.ImportRows = pick(dice(seed, "import rows"), []int{0, 3})
	p.PageRows = pick(dice(seed, "pages"), []int{0, 0, 4, 15})
	total := 0
	for _, a := range actions {
		total += a.drawn(open)
	}
	for i := 0; i < n; {
		r := round{Pause: time.Duration(1+rnd.IntN(90)) * time.Minute, Do: "sync"}
		switch rnd.IntN(40) {
		case 0:
			r.Pause = 8 * 24 * time.Hour // the delta tokens are dead by then
		case 1, 2:
			r.Pause = 26 * time.Hour
		}
		switch rnd.IntN(24) {
		case 0, 1:
			r.Do = "preview"
		case 2:
			r.Do = "inward"
		case 3:
			r.Do = "labels"
		case 4, 5, 6, 7, 8:
			r.Do = "all"
		case 9, 10:
			r.Do = "lane"
		case 11:
			r.Do = "look"
		}
		if rnd.IntN(10) == 0 {
			r.Skew = time.Duration(rnd.IntN(7200)-3600) * time.Second
		}
		for k := 1 + int(rnd.ExpFloat64()*25); k > 0 && i < n; k-- {
			a := act{Index: i}
			if rnd.IntN(4) == 0 {
				a.During = 1 + rnd.IntN(60)
			}
			pick := dice(seed, "action", i).IntN(total)
			for _, x := range actions {
				if pick -= x.drawn(open); pick < 0 {
					a.Name = x.name
					break
				}
			}
			r.Actions = append(r.Actions, a)
			i++
		}
		if rnd.IntN(5) == 0 {
			k := &kill{Before: rnd.IntN(2) == 0}
			if rnd.IntN(2) == 0 {
				k.Request = 1 + rnd.IntN(60)
			} else {
				k.Step = 1 + rnd.IntN(80)
			}
			r.Kill = k
		} else if up := dice(seed, "upgrade", len(p.Rounds)); up.IntN(12) == 0 {
			r.Kill = &kill{Upgrade: true, Before: up.IntN(2) == 0, Request: 1 + up.IntN(60)}
		}
		p.Rounds = append(p.Rounds, r)
	}
	return p
}

// the sizes of the population that a seed chooses.
func (s *sim) population() (contacts, leads, accounts int) {
	rnd := s.random("population")
	return 15 + rnd.IntN(20), 5 + rnd.IntN(12), 2 + rnd.IntN(4)
}

// list is a marketing list of the simulated company.
type list struct {
	name, table string
	action      lockstep.MembershipAction
	dynamic     string // FetchXML conditions
}

var lists = []list{
	{"Letters", "contact", lockstep.ActionIgnore, ""},
	{"Readers", "contact", lockstep.ActionRemove, ""},
	{"Friends", "contact", lockstep.ActionAllowKnown, ""},
	{"Sign-ups", "contact", lockstep.ActionCreateContact, ""},
	{"In Porto", "contact", lockstep.ActionIgnore, `<condition attribute="address1_city" operator="eq" value="Porto"/>`},
	{"Prospects", "lead", lockstep.ActionRemove, ""},
	{"Enquiries", "lead", lockstep.ActionCreateLead, ""},
	{"Companies", "account", lockstep.ActionIgnore, ""},
}

func (l list) id() string {
	for i := range lists {
		if lists[i].name == l.name {
			return fmt.Sprintf("11111111-0000-4000-8000-%012d", i+1)
		}
	}
	return ""
}

func (l list) fetch() string {
	return fmt.Sprintf(`<fetch version="1.0" mapping="logical" distinct="true"><entity name="%s"><attribute name="%sid"/><filter type="and">%s</filter></entity></fetch>`, l.table, l.table, l.dynamic)
}

// recordID makes the id of a record that a person creates.
func recordID(rnd *rand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", rnd.Uint32(), rnd.IntN(1<<16), rnd.IntN(1<<12), rnd.IntN(1<<12), rnd.Int64N(1<<48))
}

var memberCode = map[string]int{"account": 1, "contact": 2, "lead": 4}

func lower(s string) string { return strings.ToLower(strings.TrimSpace(s)) }
