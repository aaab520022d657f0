package prove

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// promise is one thing that the product promises. check reads the histories of both
// sides and the product's own audit after the faults have stopped and two cycles have
// run; what is broken it reports with violated. A new promise is a line here.
type promise struct {
	name  string
	check func(s *sim)
}

var promises = slices.Concat(dataPromises, consentPromises, orderPromises, undoPromises)

var dataPromises = []promise{
	{"I9 convergence", membershipAgrees},
	{"I9 convergence", valuesAgree},
	{"I3 no silent loss", nothingIsLost},
	{"I1 atomic item", nothingIsInvented},
	{"I5 no resurrection", nobodyComesBack},
	{"I6 ratchet", optOutsHold},
	{"I8 effectively once", nothingTwice},
	{"I11 explainable", everythingIsAudited},
	{"C-5 counts", countsAddUp},
}

// membershipAgrees: each book holds exactly who it has to hold.
func membershipAgrees(s *sim) {
	m := newModel(s)
	for _, e := range m.lists {
		if e.book == "" {
			s.violated("I9 convergence", "list %q has no address book", e.list.name)
			continue
		}
		for _, email := range sortedKeys(e.must) {
			c := s.history.byEmail(email)
			if (c == nil || !c.in[e.book]) && !s.keptByUndo(c, &e) && !s.refusedElsewhere(c) {
				s.violated("I9 convergence", "list %q: %s (%s %s) is missing in the address book %s; contact %+v", e.list.name, email, e.must[email].table, e.must[email].id, e.book, c)
			}
		}
		for _, c := range s.history.contacts() {
			if !c.in[e.book] || e.must[c.email] != nil || e.may[c.email] {
				continue
			}
			if s.unfollowed(c) || s.untraceable(c) {
				continue
			}
			if (!e.stays() || !s.signedUp(c, e.book)) && !s.keptByUndo(c, &e) {
				s.violated("I9 convergence", "list %q (%s): %s has no business in the address book %s", e.list.name, e.list.action, c.email, e.book)
			}
		}
	}
}

// unfollowed reports whether the record that a contact had an address of could not be
// given its new one, because the CRM refuses whatever is written there.
func (s *sim) unfollowed(p *contact) bool {
	had := map[string]bool{} // by the record that refuses what is written
	for _, c := range s.history.changes {
		if c.side == "crm" && c.id == s.injector.poisoned && c.name == "emailaddress1" {
			had[lower(c.new)] = true
		}
	}
	return !had[p.email] && slices.ContainsFunc(s.history.changes, func(c change) bool {
		return c.side == "mail" && c.id == p.id && c.name == "email" && c.old != "" && had[lower(c.old)]
	})
}

// refusedElsewhere reports whether a record that is closed to email has had an address
// that a person took from the contact on the platform: by whatever address the contact is
// mailed, it is the one whose owner refused.
func (s *sim) refusedElsewhere(p *contact) bool {
	return p != nil && slices.ContainsFunc(s.history.changes, func(c change) bool {
		if c.side != "mail" || c.id != p.id || c.name != "email" || c.who != person {
			return false
		}
		return slices.ContainsFunc(s.history.cast, func(r *record) bool {
			return !r.gone && r.optedOut() && r.email() != p.email && slices.ContainsFunc(s.history.changes, func(x change) bool {
				return x.side == "crm" && x.id == r.id && x.name == "emailaddress1" && lower(x.new) == lower(c.old)
			})
		})
	})
}

// untraceable reports whether an import made a contact and told nothing of it, and a
// person gave it or its record another address before a sync came to its end that could
// have met both under the one they had: nothing says then whose contact it is.
func (s *sim) untraceable(p *contact) bool {
	made, address := -1, ""
	for i, c := range s.history.changes {
		switch {
		case c.side == "mail" && c.id == p.id && c.kind == "create" && c.name == "":
			if !c.ours() || !s.unreported[c.round] {
				return false
			}
			made = i
		case made < 0 || c.who != person && c.side == "crm":
		case c.side == "mail" && c.id == p.id && c.kind == "create" && c.name == "email":
			address = lower(c.new)
		case c.side == "mail" && c.id == p.id && c.name == "email" && c.who == person, c.side == "crm" && c.name == "emailaddress1" && lower(c.old) == address:
			return !slices.ContainsFunc(s.played, func(x played) bool {
				return x.run.Type == lockstep.SyncMarketingLists && x.run.Mode == lockstep.ModeApply && x.run.Status != lockstep.RunFailed && x.to > made && x.to <= i
			})
		}
	}
	return false
}

// signedUp reports whether a person ever put the contact into the book.
func (s *sim) signedUp(p *contact, book string) bool {
	for i, c := range s.history.changes {
		if c.side == "mail" && c.id == p.id && c.kind == "join-list" && c.list == book && (c.who == person || i < s.since) {
			return true // the product has forgotten whom it put there before it went back to a backup
		}
	}
	return false
}

// valuesAgree: every mapped field of every member whose address is its own is equal
// on both sides.
func valuesAgree(s *sim) {
	m := newModel(s)
	seen := map[*record]bool{}
	for _, e := range m.lists {
		outward, inward := m.flows(e.list.table)
		for _, email := range sortedKeys(e.must) {
			r, c := e.must[email], s.history.byEmail(email)
			if c == nil || s.unfollowed(c) || len(m.sharing[email]) > 1 || seen[r] || r.id == s.injector.poisoned {
				continue
			}
			seen[r] = true
			for _, column := range sortedKeys(outward) {
				label := outward[column]
				if inward[column] != label && c.by[label] == person {
					continue // it flows the other way only: the CRM says no more than once
				}
				if !same(r.cols[column], c.fields[label]) && !s.setApart(r, c, column, label) {
					s.violated("I9 convergence", "%s %s, contact %s: %s is %q, %s is %q", r.table, r.id, c.id, column, r.cols[column], label, c.fields[label])
				}
			}
		}
	}
}

// nothingIsLost: what a person wrote on one side and something else replaced there
// had arrived on the other side before, or is kept in a conflict, or was replaced by a
// person on the same side.
func nothingIsLost(s *sim) {
	m := newModel(s)
	var conflicts []lockstep.Conflict
	for before := ""; ; {
		page, err := s.app.Conflicts(s.ctx, app.ConflictFilter{Account: s.account, Before: before, Limit: 100})
		if err != nil {
			s.t.Fatal(err)
		}
		conflicts = append(conflicts, page...)
		if len(page) < 100 {
			break
		}
		before = page[len(page)-1].ID
	}
	inConflict := func(v string) bool {
		for _, c := range conflicts {
			if c.CRM.Text() == v || c.Platform.Text() == v || v == "" && (c.CRM.IsNull() || c.Platform.IsNull()) {
				return true
			}
		}
		return false
	}
	pairs := m.stable()
	for r, c := range pairs {
		outward, inward := m.flows(r.table)
		for column, label := range outward {
			if column == "fullname" {
				continue // the CRM makes it of the other two
			}
			two := inward[column] == label
			there := map[string]bool{}
			for i, x := range s.history.changes {
				onCRM := x.side == "crm" && x.id == r.id && x.name == column
				onMail := x.side == "mail" && x.id == c.id && x.name == label
				if onMail {
					there[x.new] = true
				}
				if !onCRM && !onMail || x.who != person || !two && onMail {
					continue
				}
				s.kept(i, x, r, c, column, label, inConflict)
			}
		}
	}
}

// kept checks that the i-th change, which a person made, was not lost.
func (s *sim) kept(i int, x change, r *record, c *contact, column, label string, inConflict func(string) bool) {
	if i < s.since {
		return // what the product noted of it is forgotten
	}
	arrived := false
	for _, y := range s.history.changes[i+1:] {
		mine := y.side == x.side && y.id == x.id && y.name == x.name
		other := y.side != x.side && (y.side == "crm" && y.id == r.id && y.name == column || y.side == "mail" && y.id == c.id && y.name == label)
		if other && same(y.new, x.new) {
			arrived = true
		}
		if !mine {
			continue
		}
		// What is empty does not win over a value without being newer, and is no value
		// that a conflict could keep.
		if x.new == "" || y.who == person || s.undone(y) || arrived || same(y.new, x.new) || inConflict(x.new) {
			return
		}
		// The platform's writes are unconditional: what a person writes there after the
		// cycle has read it and before it writes is lost. A record of the CRM is written
		// only as it was read.
		if x.side == "mail" && x.round == y.round && y.at.Sub(x.at) < unconditional {
			return
		}
		s.violated("I3 no silent loss", "%v\n\twas replaced by\n\t%v\n\twithout having arrived on the other side or being in a conflict", x, y)
		return
	}
}

// unconditional is how long a cycle may take from reading a contact to writing it.
const unconditional = 10 * time.Minute

// nothingIsInvented: whatever the product writes into a field was at some moment the
// value of the other side; in particular it never blanks what nobody blanked.
func nothingIsInvented(s *sim) {
	m := newModel(s)
	held := map[string]map[string]bool{} // side → values
	for _, side := range []string{"crm", "mail"} {
		held[side] = map[string]bool{}
	}
	label := map[string]bool{}
	column := map[string]bool{}
	for _, table := range []string{"contact", "lead", "account"} {
		outward, inward := m.flows(table)
		for c, l := range outward {
			label[l], column[c] = true, true
		}
		for c, l := range inward {
			label[l], column[c] = true, true
		}
	}
	for _, x := range s.history.changes {
		mapped := x.side == "crm" && column[x.name] || x.side == "mail" && label[x.name]
		if !mapped {
			continue
		}
		other := "crm"
		if x.side == "crm" {
			other = "mail"
		}
		if x.ours() && x.new != "" && !held[other][x.new] && !(x.kind == "create" && strings.HasPrefix(x.name, "lastname")) && x.name != "fullname" && x.name != "FULLNAME" && !s.undone(x) {
			s.violated("I1 atomic item", "nobody ever wrote the value that the product wrote: %v", x)
		}
		held[x.side][x.new] = true
	}
}

// nobodyComesBack: what a person deleted is not made again by the other side's copy. Who
// signed up since, or while a sync ran in which their record was deleted, is a newcomer,
// of whom there is no record.
func nobodyComesBack(s *sim) {
	address := map[string]string{}
	type moment struct{ change, round int }
	deleted := map[string]moment{}  // by the record's id
	made := map[string]int{}        // the change, by the record's id
	signedUp := map[string]moment{} // by the address
	for i, x := range s.history.changes {
		switch {
		case x.side == "mail" && x.name == "email":
			address[x.id] = x.new
		case x.kind == "join-list" && x.who == person:
			signedUp[address[x.id]] = moment{i, x.round}
		case x.side == "crm" && x.kind == "delete" && x.who == person && x.table != "listmember":
			deleted[x.id] = moment{i, x.round}
		case x.side == "crm" && x.kind == "create" && x.ours() && x.name == "emailaddress1":
			gone, was := deleted[x.id]
			first, ours := made[x.id]
			up, newcomer := signedUp[lower(x.new)]
			during := up.round == x.round && gone.round == x.round && up.change > made[x.id]
			if was && !(newcomer && (up.change > gone.change || during)) && !(ours && s.neverHeardOf(first, gone.change)) {
				s.violated("I5 no resurrection", "%v", x)
			}
			made[x.id] = i
			delete(deleted, x.id)
		}
	}
}

// neverHeardOf reports whether nobody may have told the product that its record was made,
// in the change made, when a person deleted it: the answer was lost, and no sync came to
// its end before.
func (s *sim) neverHeardOf(made, deleted int) bool {
	return s.unanswered[s.history.changes[made].round] && !slices.ContainsFunc(s.played, func(x played) bool {
		return x.run.Type == lockstep.SyncMarketingLists && x.run.Mode == lockstep.ModeApply && x.run.Status != lockstep.RunFailed && x.to > made && x.to <= deleted
	})
}

// optOutsHold: the product weakens no opt-out.
func optOutsHold(s *sim) {
	for _, x := range s.history.changes {
		if x.ours() && x.side == "mail" && x.name == "status" && x.new == "subscribed" && x.old != "" && x.old != "noSubscription" {
			s.violated("I6 ratchet", "the product subscribed somebody again: %v", x)
		}
	}
	s.addsRespectOptOuts()
}

// addsRespectOptOuts: whom the product puts into a book had not opted out, on either
// side, when the round began.
func (s *sim) addsRespectOptOuts() {
	type state struct {
		email, bulk, mail string
		ours, over        bool // the product closed it to bulk email; the person came back since
	}
	records := map[string]*state{}
	emails := map[string]string{} // contact → address
	left := map[string]bool{}     // contact and book
	round := -1
	var refusing map[string]bool
	member := map[string]map[string]bool{}
	joined := map[string]int{} // record → the round in which it came into its first list
	refuses := func(id string) bool {
		r := records[id]
		return r != nil && (r.bulk == "true" && !r.over || r.mail == "true") && r.email != "" && len(member[id]) > 0
	}
	closed := func(email string) map[string]map[string]bool {
		out := map[string]map[string]bool{}
		for id, r := range records {
			if r.email == email && refuses(id) {
				out[id] = map[string]bool{"donotbulkemail": r.bulk == "true" && !r.over, "donotemail": r.mail == "true"}
			}
		}
		return out
	}
	again := func(email string) {
		delete(refusing, email)
		for id, r := range records {
			refusing[email] = refusing[email] || r.email == email && refuses(id)
		}
	}
	for i, x := range s.history.changes {
		if x.round != round {
			round = x.round
			refusing = map[string]bool{}
			for id, r := range records {
				if refuses(id) {
					refusing[r.email] = true
				}
			}
		}
		switch {
		case x.side == "crm" && x.table == "listmember":
			if member[x.id] == nil {
				member[x.id] = map[string]bool{}
			}
			if x.kind == "create" {
				if len(member[x.id]) == 0 {
					joined[x.id] = round
				}
				member[x.id][x.list] = true
			} else {
				// Who was in a list between two readings of it only is not known, nor whom the
				// product took out of the last one.
				brief := refuses(x.id) && (joined[x.id] >= round-1 || x.ours())
				delete(member[x.id], x.list)
				if brief && len(member[x.id]) == 0 {
					again(records[x.id].email)
				}
			}
		case x.side == "crm":
			r := records[x.id]
			if r == nil {
				r = &state{}
				records[x.id] = r
			}
			if x.kind == "delete" {
				delete(records, x.id)
				again(r.email) // a record's flag goes with it
				continue
			}
			switch x.name {
			case "emailaddress1":
				delete(refusing, r.email) // the address is in other hands now
				delete(refusing, lower(x.new))
				r.email = lower(x.new)
			case "donotbulkemail":
				r.bulk, r.ours, r.over = x.new, x.ours(), false
			case "donotemail":
				r.mail = x.new
			}
			if x.new == "false" && strings.HasPrefix(x.name, "donot") {
				delete(refusing, r.email)
			}
		case x.name == "email":
			emails[x.id] = lower(x.new)
		case x.name == "status" && x.new == "subscribed" && x.who == person:
			// What the product closed because the platform did goes with the person's
			// return; a user's own word stays.
			for _, r := range records {
				r.over = r.over || r.ours && r.email == emails[x.id]
			}
			again(emails[x.id])
		case x.kind == "return-to-list" && x.ours():
			s.violated("I6 ratchet", "the product undid an unsubscription from a book: %v", x)
		case x.kind == "unsubscribe-list":
			left[x.id+" "+x.list] = true
		case x.kind == "join-list":
			// A record that refuses may be read after another with its address; the
			// contact then leaves the book within the same run.
			if x.ours() && refusing[emails[x.id]] && !s.leftAgain(i, x, closed(emails[x.id])) {
				s.violated("I6 ratchet", "%s, who had opted out in the CRM before the round, was added: %v", emails[x.id], x)
			}
			if x.ours() && left[x.id+" "+x.list] {
				s.violated("I6 ratchet", "%s, who had unsubscribed from the book, was added: %v", emails[x.id], x)
			}
			delete(left, x.id+" "+x.list)
		}
	}
}

// leftAgain reports whether the product took back, in the same round or in the next run
// that it could carry through, that it put a contact into a book, or the person left it
// before it could, or none of the records that refused, each with its flags, did so any
// more or had the address.
func (s *sim) leftAgain(i int, join change, refusing map[string]map[string]bool) bool {
	end := len(s.history.changes)
	for _, p := range s.played {
		if i < p.to && p.done(lockstep.SyncMarketingLists) {
			end = p.to
			break
		}
	}
	for j, x := range s.history.changes[i+1:] {
		if x.round != join.round && i+1+j >= end {
			return false
		}
		if x.side == "mail" && x.id == join.id && x.list == join.list && (x.kind == "leave-list" || x.kind == "unsubscribe-list") {
			return true
		}
		flags := refusing[x.id]
		if flags == nil || x.who != person {
			continue
		}
		if _, flag := flags[x.name]; flag {
			flags[x.name] = x.new == "true"
		}
		if x.name == "emailaddress1" || x.table != "listmember" && x.kind == "delete" || !flags["donotbulkemail"] && !flags["donotemail"] {
			if delete(refusing, x.id); len(refusing) == 0 {
				return true
			}
		}
	}
	return false
}

// nothingTwice: no two living records that the product made are of the same person,
// and no two contacts have one address.
func nothingTwice(s *sim) {
	made := map[string]string{}
	contacts := map[string]string{}
	for _, p := range s.history.contacts() {
		if other := contacts[p.email]; other != "" {
			s.violated("I8 effectively once", "contacts %s and %s have the address %s", other, p.id, p.email)
		}
		contacts[p.email] = p.id
	}
	for _, x := range s.history.changes {
		if x.side != "crm" || x.kind != "create" || !x.ours() || x.name != "emailaddress1" {
			continue
		}
		key := x.table + " " + lower(x.new)
		if other := made[key]; other != "" && other != x.id { // the same one again is nobodyComesBack's affair
			if r := s.history.records[x.table][other]; r != nil && !r.gone && r.active() && r.email() == lower(x.new) {
				s.violated("I8 effectively once", "two %ss were made for %s: %s and %s", x.table, lower(x.new), other, x.id)
			}
		}
		made[key] = x.id
	}
}

// everythingIsAudited: each value that the product wrote is in the journal of a run.
func everythingIsAudited(s *sim) {
	audit := map[string]bool{}
	before := ""
	for {
		runs, err := s.app.Runs(s.ctx, app.RunFilter{Limit: 1000, Before: before})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, run := range runs {
			before = run.ID
			for after := int64(0); ; {
				changes, next, err := s.app.Changes(s.ctx, run.ID, after, 1000)
				if err != nil {
					s.t.Fatal(err)
				}
				for _, c := range changes {
					for _, f := range c.Fields {
						audit[f.Name+"\x00"+f.New.Text()] = true
					}
				}
				if after = next; next == 0 {
					break
				}
			}
		}
		if len(runs) < 1000 {
			break
		}
	}
	m := newModel(s)
	known := map[string]bool{}
	for _, table := range []string{"contact", "lead", "account"} {
		outward, inward := m.flows(table)
		for c, l := range outward {
			known["mail "+l], known["crm "+c] = true, true
		}
		for c, l := range inward {
			known["mail "+l], known["crm "+c] = true, true
		}
	}
	for _, x := range s.history.changes[s.since:] {
		if x.ours() && known[x.side+" "+x.name] && x.new != "" && x.name != "fullname" && !audit[x.name+"\x00"+x.new] {
			s.violated("I11 explainable", "no run's journal has this write: %v", x)
		}
	}
}

// countsAddUp: every record that a run read is accounted for.
func countsAddUp(s *sim) {
	runs, err := s.app.Runs(s.ctx, app.RunFilter{Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, run := range runs {
		c := run.Counts
		if run.Type != lockstep.SyncMarketingLists || run.Status != lockstep.RunCompleted && run.Status != lockstep.RunCompletedWithErrors {
			continue
		}
		if c.Read != c.Written+c.Equal+c.Conflicted+c.Rejected+c.Guarded {
			s.violated("C-5 counts", "%s: %+v", fmt.Sprint(run.Created), c)
		}
	}
}
