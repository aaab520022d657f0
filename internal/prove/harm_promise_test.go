package prove

import (
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// harmIsBounded: no run takes more people out of a book, or clears a value of more,
// than the guard allows, unless a person applied its preview or they opted out, which
// those did too whose record refuses and has not followed them to a new address yet.
// Whom the run itself put into the book is not lost to it.
func harmIsBounded(s *sim) {
	acc, err := s.app.Account(s.ctx, s.account)
	if err != nil {
		s.t.Fatal(err)
	}
	next := 0
	removed, size := map[string]int{}, map[string]int{}
	joined := map[string]bool{} // contact and book
	cleared := map[string]map[string]bool{}
	synced := 0 // the change after which the newest sync of the lists began that came to its end
	// met are the members of lists whom such a sync met, with the address that they had
	// then; listed are those of the run at hand.
	met, listed := map[string]string{}, map[string]string{}
	noted := -1
	note := func(w *past) { // who is in a list as the next run begins
		if noted == next {
			return
		}
		noted = next
		clear(listed)
		for _, in := range w.members {
			for id := range in {
				if r := w.records[id]; r != nil {
					listed[id] = r.email()
				}
			}
		}
	}
	// taken reports whether somebody took over the contact since: what they do not have was
	// the value of somebody else. Who is in no list takes nobody's over before a sync finds
	// them in one.
	taken := func(w *past, email string) bool {
		return slices.ContainsFunc(w.having(email), func(r *record) bool {
			return w.since["address "+r.id] >= synced || met[r.id] != email && (listed[r.id] == email || w.member(r.id))
		})
	}
	// speaking are the records that may speak for who has an address: not those that were
	// merged into others, unless there is nobody else.
	speaking := func(w *past, email string) []*record {
		all := w.having(email)
		if own := slices.DeleteFunc(slices.Clone(all), func(r *record) bool { return r.cols["merged"] == "true" }); len(own) > 0 {
			return own
		}
		return all
	}
	s.replay(func(i int, x change, w *past) {
		for next < len(s.played) && s.played[next].to <= i {
			note(w)
			p := &s.played[next]
			next++
			if p.run.Preview == "" && p.run.Type != lockstep.SyncUndo {
				for book, n := range removed {
					if limit := acc.GuardLimit(size[book]); n > limit {
						s.violated("I7 bounded", "round %d: %d of %d people left the book %s in one run of %s, the guard allows %d", p.round, n, size[book], book, p.run.Type, limit)
					}
				}
				for what, who := range cleared {
					if limit := acc.GuardLimit(0); len(who) > limit {
						s.violated("I7 bounded", "round %d: %d people lost a value in %s in one run of %s, the guard allows %d: %v", p.round, len(who), what, p.run.Type, limit, sortedKeys(who))
					}
				}
			}
			clear(removed)
			clear(joined)
			clear(size)
			clear(cleared)
			if p.done(lockstep.SyncMarketingLists) {
				synced = p.from
				maps.DeleteFunc(met, func(id, email string) bool { return w.records[id].email() != email })
				maps.Copy(met, listed)
			}
		}
		if next < len(s.played) && i >= s.played[next].from {
			note(w)
		}
		if next == len(s.played) || i < s.played[next].from || x.who != product {
			return
		}
		switch {
		case x.kind == "join-list":
			joined[x.id+" "+x.list] = true
		case x.kind == "leave-list":
			c := w.people[x.id]
			if size[x.list] == 0 {
				for _, o := range w.people {
					if o.in[x.list] && !joined[o.id+" "+x.list] {
						size[x.list]++
					}
				}
			}
			optedOut := c.blocked() || s.closedAddress(c.email) || w.refuses(c.email) || slices.ContainsFunc(w.had[c.id], w.refuses)
			if !optedOut && !joined[x.id+" "+x.list] {
				removed[x.list]++
			}
		case strings.HasSuffix(x.name, "_composite"): // the CRM puts it together from other columns
		case x.name != "" && x.old != "" && x.new == "" && memberCode[x.table] != 0:
			if cleared[x.table] == nil {
				cleared[x.table] = map[string]bool{}
			}
			cleared[x.table][x.id] = true
		case x.side == "mail" && x.old != "" && x.new == "" && x.name != "" && strings.ToUpper(x.name) == x.name:
			for _, table := range []string{"contact", "lead", "account"} {
				if taken(w, w.people[x.id].email) {
					break
				}
				if !slices.ContainsFunc(speaking(w, w.people[x.id].email), func(r *record) bool { return r.table == table }) {
					continue
				}
				what := "the platform, of " + table + "s"
				if cleared[what] == nil {
					cleared[what] = map[string]bool{}
				}
				cleared[what][x.id] = true
				break
			}
		}
	})
}

// closedAddress reports whether somebody ever closed an address by a row of the CRM or
// in the product itself.
func (s *sim) closedAddress(email string) bool {
	if _, ok := s.closed[email]; ok {
		return true
	}
	for _, r := range s.history.cast {
		if r.table == lockstep.SuppressionTable && lower(r.cols["lockstep_email"]) == email {
			return true
		}
	}
	return false
}
