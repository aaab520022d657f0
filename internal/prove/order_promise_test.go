package prove

import (
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// orderPromises are about what comes first within a cycle, as the requests of the whole
// life show it.
var orderPromises = []promise{
	{"opt-outs first", optOutsAreHeardFirst},
	{"opt-outs first", optOutsAreToldFirst},
}

// called is a request of the product that a twin carried out.
type called struct {
	cycle int // place in played
	what  heardOrDone
	route string
}

type heardOrDone uint8

const (
	otherCall     heardOrDone = iota
	hearsAccount              // who opted out of the whole account
	hearsBooks                // who left an address book
	importsPeople             // adds and updates contacts
	blocksPeople              // tells the platform of an opt-out
	writesCRM
)

// kindOfCall says what a request is for.
func kindOfCall(x *exchange) heardOrDone {
	switch {
	case strings.HasPrefix(x.route, "GET /v2/contacts/suppressed-since/"):
		return hearsAccount
	case strings.HasPrefix(x.route, "GET /v2/address-books/*/contacts/unsubscribed-since/"):
		return hearsBooks
	case imports(x):
		return importsPeople
	case x.route == "POST /v2/contacts/unsubscribe":
		return blocksPeople
	case x.twin == "dataverse" && x.req.Method != http.MethodGet && (x.req.Method != http.MethodPost || !strings.HasSuffix(x.route, "/$batch")):
		return writesCRM
	}
	return otherCall
}

// optOutsAreHeardFirst: no cycle adds anybody, or tells anybody of opt-outs, before it
// has heard of the opt-outs that there are.
func optOutsAreHeardFirst(s *sim) {
	heard := map[heardOrDone]bool{}
	cycle, filled := -1, -1 // filled: the first cycle that put people into address books
	for _, c := range s.calls {
		if c.cycle != cycle {
			cycle = c.cycle
			clear(heard)
		}
		if c.cycle >= len(s.played) {
			break
		}
		p := &s.played[c.cycle]
		heard[c.what] = true
		if c.what == importsPeople && filled < 0 && p.run.Type == lockstep.SyncMarketingLists {
			filled = c.cycle
		}
		unheard := !heard[hearsAccount] || !heard[hearsBooks] && c.cycle > filled
		switch {
		case c.what == importsPeople && p.run.Type == lockstep.SyncMarketingLists && unheard:
			s.violated("opt-outs first", "round %d: a list sync imported people before it had read who opted out (account %t, address books %t)", p.round, heard[hearsAccount], heard[hearsBooks])
			return
		case (c.what == blocksPeople || c.what == writesCRM) && p.run.Type == lockstep.SyncSuppressions && p.run.Status != lockstep.RunFailed && !heard[hearsAccount]:
			// One that the platform does not answer carries what the CRM says, and fails.
			s.violated("opt-outs first", "round %d: %s before a run of suppressions had read who opted out", p.round, c.route)
			return
		}
	}
}

// optOutsAreToldFirst: a run of preferences that nothing interrupts carries what people
// refused before what they chose.
func optOutsAreToldFirst(s *sim) {
	for i := range s.played {
		p := &s.played[i]
		if p.run.Type != lockstep.SyncPreferences || p.disturbed {
			continue
		}
		var in *change
		for k := p.from; k < p.to; k++ {
			x := &s.history.changes[k]
			preference, _ := isChoice(x.name)
			if x.who != product || preference == "" && x.name != "lockstep_optedin" {
				continue
			}
			switch {
			case x.new == "true":
				in = x
			case x.new == "false" && in != nil:
				s.violated("opt-outs first", "round %d: an opt-out was carried after an opt-in: %v after %v", p.round, *x, *in)
				return
			}
		}
	}
}
