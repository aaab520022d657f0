package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// Whatever people do on both sides between runs, two runs later both sides agree and
// a third one writes nothing.
func TestRandomEditsConverge(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 250, Seed: seed, PlatformShare: 0.1}})
			before := w.booksNow()
			w.sync()
			rnd := rand.New(rand.NewPCG(seed, 99))
			for round := range 3 {
				log := w.mischief(rnd, 25)
				w.sync()
				w.sync()
				w.agree(before)
				w.resetCalls()
				if run := w.sync(); w.allWrites() != 0 {
					changes, _, _ := w.app.Changes(t.Context(), run.ID, 0, 100)
					t.Errorf("round %d: not quiet: %v %v %+v", round, w.calls("dataverse"), w.calls("dotdigital"), changes)
				}
				if t.Failed() {
					t.Fatalf("round %d, after:\n%s", round, strings.Join(log, "\n"))
				}
			}
		})
	}
}

// mischief does n random things on either side and tells what it did.
func (w *world) mischief(rnd *rand.Rand, n int) (log []string) {
	w.t.Helper()
	lists, err := w.app.Lists(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	var static []lockstep.ListSettings
	members := map[string][]string{}
	for _, l := range lists {
		if l.Activated && !l.Dynamic && l.MemberTable == "contact" {
			static = append(static, l)
			members[l.ID] = w.membersOf(l)
		}
	}
	people := w.people("contact")
	ids := slices.Sorted(maps.Keys(people))
	contacts := w.contacts("")
	emails := slices.Sorted(maps.Keys(contacts))
	for i := range n {
		id := ids[rnd.IntN(len(ids))]
		email := emails[rnd.IntN(len(emails))]
		l := static[rnd.IntN(len(static))]
		word := fmt.Sprintf("v%d-%d", i, rnd.IntN(1000))
		note := func(format string, a ...any) { log = append(log, fmt.Sprintf(format, a...)) }
		switch rnd.IntN(9) {
		case 0:
			note("CRM %s: city %s", id, word)
			w.editRecord("contact", id, map[string]any{"address1_city": word})
		case 1:
			note("CRM %s: jobtitle %s", id, word)
			w.editRecord("contact", id, map[string]any{"jobtitle": word})
		case 2:
			if contacts[email].Channel["email"]["status"] != "subscribed" {
				continue
			}
			note("platform %s: JOBTITLE %s", email, word)
			w.editContact(email, map[string]any{"JOBTITLE": word})
		case 3:
			no := rnd.IntN(2) == 0
			note("CRM %s: donotbulkemail %t", id, no)
			w.editRecord("contact", id, map[string]any{"donotbulkemail": no})
		case 4:
			if l := l; len(members[l.ID]) > 0 {
				m := members[l.ID][rnd.IntN(len(members[l.ID]))]
				note("CRM list %s: remove %s", l.Name, m)
				members[l.ID] = slices.DeleteFunc(members[l.ID], func(x string) bool { return x == m })
				w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.RemoveMemberList", l.CRMID), map[string]any{"EntityId": m}, nil)
			}
		case 5:
			note("CRM list %s: add %s", l.Name, id)
			w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.AddMemberList", l.CRMID), map[string]any{"EntityId": id}, nil)
		case 6:
			note("CRM %s: address %s", id, word)
			w.editRecord("contact", id, map[string]any{"emailaddress1": word + "@example.com"})
		case 7:
			note("CRM %s: jobtitle empty", id)
			w.editRecord("contact", id, map[string]any{"jobtitle": nil})
		case 8:
			state := rnd.IntN(4) / 3
			note("CRM %s: statecode %d", id, state)
			w.editRecord("contact", id, map[string]any{"statecode": state, "statuscode": state + 1})
		}
	}
	return log
}
