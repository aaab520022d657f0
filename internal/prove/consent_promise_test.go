package prove

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// consentPromises are what the product promises about who may be mailed, and about
// how much it does unasked.
var consentPromises = []promise{
	{"no fault of its own", noAlarm},
	{"I9 consent", consentAgrees},
	{"I9 consent", choicesAgree},
	{"I6 ledger", ledgerHolds},
	{"I6 ratchet", nobodyIsOptedIn},
	{"I7 bounded", harmIsBounded},
	{"I10 order", newerStays},
}

// played is one cycle of the product.
type played struct {
	round    int
	from, to int // of the history's changes
	run      lockstep.Run
	// disturbed is set when a request went wrong, or the process was killed.
	disturbed bool
}

// alarm hears what the product itself calls an error: a panic of a run, damaged data.
type alarm struct{ s *sim }

// Enabled implements slog.Handler.
func (a alarm) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

// Handle implements slog.Handler.
func (a alarm) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(at slog.Attr) bool { text += fmt.Sprintf(" %s=%s", at.Key, at.Value); return true })
	a.s.stepMu.Lock()
	defer a.s.stepMu.Unlock()
	a.s.alarms = append(a.s.alarms, text)
	return nil
}

// WithAttrs implements slog.Handler.
func (a alarm) WithAttrs([]slog.Attr) slog.Handler { return a }

// WithGroup implements slog.Handler.
func (a alarm) WithGroup(string) slog.Handler { return a }

// noAlarm: nothing that the product itself calls a fault of its own happened.
func noAlarm(s *sim) {
	for _, text := range s.alarms {
		s.violated("no fault of its own", "%s", text)
	}
}

// done reports whether the run went all the way and could write.
func (p *played) done(types ...lockstep.SyncType) bool {
	return slices.Contains(types, p.run.Type) && p.run.Mode == lockstep.ModeApply &&
		(p.run.Status == lockstep.RunCompleted || p.run.Status == lockstep.RunCompletedWithErrors)
}

// laneTypes are the runs that carry consent, as a schedule starts them.
var laneTypes = []lockstep.SyncType{lockstep.SyncSuppressions, lockstep.SyncUnsubscribes, lockstep.SyncPreferences, lockstep.SyncOptIn}

// lane is a cycle of all of them.
func (s *sim) lane() {
	for _, t := range laneTypes {
		s.cycle(s.request(t, lockstep.ModeApply))
		if run := s.lastRun(); !s.faulty && run.Status != lockstep.RunCompleted && run.Status != lockstep.RunCompletedWithErrors {
			s.violated("I9 consent", "a run of %s without faults is %s: %s %s", t, run.Status, run.Error, run.Stage)
		}
	}
}

// look previews the runs of the lane.
func (s *sim) look() {
	before := s.history.writes[product]
	for _, t := range laneTypes {
		s.cycle(s.request(t, lockstep.ModePreview))
	}
	if n := s.history.writes[product] - before; n != 0 {
		s.violated("preview", "previews of the consent lane wrote %d times in round %d", n, s.round)
	}
}

// settings are what the seed's company has set: how careful the guards are.
func (s *sim) settings() {
	if s.plan.Floor == 0 {
		return
	}
	if _, err := s.app.UpdateAccount(s.ctx, s.account, app.AccountPatch{Guards: app.GuardPatch{Floor: &s.plan.Floor}}); err != nil {
		s.t.Fatal(err)
	}
}

// past is what both sides held at a moment.
type past struct {
	records map[string]*record
	people  map[string]*contact
	members map[string]map[string]bool // CRM list → records
	since   map[string]int             // what holds → the change that made it so
	had     map[string][]string        // contact → the addresses that it had before
}

// replay goes through the history; each sees a change and the world before it. The
// last call has a change of nobody's, after everything.
func (s *sim) replay(each func(i int, x change, w *past)) {
	w := &past{records: map[string]*record{}, people: map[string]*contact{}, members: map[string]map[string]bool{}, since: map[string]int{}, had: map[string][]string{}}
	for i, x := range s.history.changes {
		each(i, x, w)
		if x.side == "crm" {
			w.crm(i, x)
		} else {
			w.mail(i, x)
		}
	}
	each(len(s.history.changes), change{who: person}, w)
}

// holds notes since when something holds.
func (w *past) holds(i int, what string, now bool) {
	_, was := w.since[what]
	switch {
	case now && !was:
		w.since[what] = i
	case !now && was:
		delete(w.since, what)
	}
}

func (w *past) crm(i int, x change) {
	if x.table == "listmember" {
		if w.members[x.list] == nil {
			w.members[x.list] = map[string]bool{}
		}
		if x.kind == "create" {
			w.members[x.list][x.id] = true
		} else {
			delete(w.members[x.list], x.id)
		}
		return
	}
	r := w.records[x.id]
	if r == nil {
		r = &record{table: x.table, id: x.id, cols: map[string]string{}}
		w.records[x.id] = r
	}
	r.gone = x.kind == "delete"
	if x.name == "" {
		return
	}
	r.cols[x.name] = x.new
	switch x.name {
	case "donotbulkemail", "donotemail":
		w.holds(i, "flag "+x.id+" "+x.name, x.new == "true")
	case "emailaddress1":
		delete(w.since, "address "+x.id)
		w.holds(i, "address "+x.id, true)
	}
}

func (w *past) mail(i int, x change) {
	p := w.people[x.id]
	if p == nil {
		p = &contact{id: x.id, status: "subscribed", fields: map[string]string{}, in: map[string]bool{}, left: map[string]bool{}}
		w.people[x.id] = p
	}
	switch x.kind {
	case "delete", "destroy":
		p.gone = true
		clear(p.in)
	case "create", "restore":
		p.gone = false
	case "join-list":
		p.in[x.list] = true
		delete(p.left, x.list)
	case "leave-list":
		delete(p.in, x.list)
	case "return-to-list":
		delete(p.left, x.list)
		p.in[x.list] = true
	case "unsubscribe-list":
		p.left[x.list] = true
		delete(p.in, x.list)
	}
	if x.list != "" {
		w.holds(i, "left "+x.id+" "+x.list, p.left[x.list])
	}
	switch {
	case x.name == "email":
		if p.email != "" {
			w.had[x.id] = append(w.had[x.id], p.email)
		}
		p.email = lower(x.new)
	case x.name == "status":
		p.status = x.new
		w.holds(i, "blocked "+x.id, p.blocked())
	case x.name != "":
		p.fields[x.name] = x.new
		if _, ok := isChoice(x.name); ok {
			w.holds(i, "out "+x.id+" "+x.name, x.new == "false")
		}
	}
}

// member reports whether a record is in a list.
func (w *past) member(id string) bool {
	for _, in := range w.members {
		if in[id] {
			return true
		}
	}
	return false
}

// having returns the living records of people with an address.
func (w *past) having(email string) []*record {
	var out []*record
	for _, r := range w.records {
		if !r.gone && r.email() == email && memberCode[r.table] != 0 {
			out = append(out, r)
		}
	}
	return out
}

// refuses reports whether a record with an address is closed to email.
func (w *past) refuses(email string) bool {
	return slices.ContainsFunc(w.having(email), (*record).optedOut)
}

// consentAgrees: who opted out on one side has opted out on the other.
func consentAgrees(s *sim) {
	m := newModel(s)
	h := s.history
	known := map[*record]bool{} // members of a list
	for _, e := range m.lists {
		for _, r := range e.members {
			known[r] = true
		}
	}
	rows := map[string]map[string]*record{} // table → address → an open row
	for _, table := range []string{lockstep.SuppressionTable, lockstep.UnsubscriberTable} {
		rows[table] = map[string]*record{}
		for _, r := range h.alive(table) {
			if r.active() {
				rows[table][lower(r.cols["lockstep_email"])] = r
			}
		}
	}
	for _, c := range h.contacts() {
		if m.moved[c.email] || !usable(c.email) {
			continue
		}
		if c.blocked() {
			for _, r := range m.sharing[c.email] {
				// A record that nobody mails is closed when the address opts out, not when
				// it is opened or made later.
				if r.cols["donotbulkemail"] != "true" && r.id != s.injector.poisoned && (known[r] || s.closedLast(r, c)) {
					s.violated("I9 consent", "%s is %s on the platform, %s %s allows bulk email", c.email, c.status, r.table, r.id)
				}
			}
			if rows[lockstep.SuppressionTable][c.email] == nil && !s.rowTaken(lockstep.SuppressionTable, c.email) {
				s.violated("I9 consent", "%s is %s on the platform, no row says so", c.email, c.status)
			}
		} else if row := rows[lockstep.SuppressionTable][c.email]; row != nil {
			s.violated("I9 consent", "the row %s suppresses %s, the platform says %s", row.id, c.email, c.status)
		}
		for _, e := range m.lists {
			if !c.left[e.book] {
				continue
			}
			for _, r := range e.members {
				if r.email() == c.email && r.id != s.injector.poisoned && e.list.dynamic == "" && !s.joinedAgain(r, c, e) {
					s.violated("I9 consent", "%s unsubscribed from list %q, %s %s is a member", c.email, e.list.name, r.table, r.id)
				}
			}
			if rows[lockstep.UnsubscriberTable][c.email] == nil && !s.rowTaken(lockstep.UnsubscriberTable, c.email) {
				s.violated("I9 consent", "%s unsubscribed from list %q, no row says so", c.email, e.list.name)
			}
		}
		for _, r := range m.sharing[c.email] {
			if r.id == s.injector.poisoned {
				continue
			}
			want := slices.Index([]string{"Unknown", "Single", "Double", "VerifiedDouble"}, c.fields["optInType"])
			if got := r.cols[lockstep.OptInTypeColumn]; got != "" && got != "0" || want > 0 {
				if got != string(rune('0'+max(want, 0))) && s.toldOptIn(r, c) {
					s.violated("I9 consent", "%s is %q on the platform, %s %s says %q", c.email, c.fields["optInType"], r.table, r.id, got)
				}
			}
		}
	}
}

// lastChange is the place of the last change that fits, -1 without one.
func (s *sim) lastChange(fits func(x change) bool) int {
	for i, x := range slices.Backward(s.history.changes) {
		if fits(x) {
			return i
		}
	}
	return -1
}

// closedLast reports whether a contact opted out after its record had the address and
// was opened or closed by a person. That the product closes the contact at last is no
// opt-out of its own where it has told the record of the same one.
func (s *sim) closedLast(r *record, c *contact) bool {
	back := s.lastChange(func(x change) bool {
		return x.side == "mail" && x.id == c.id && x.name == "status" && !x.ours() && !blocking(x.new)
	})
	told := s.lastChange(func(x change) bool { return x.id == r.id && x.ours() && x.name == "donotbulkemail" && x.new == "true" })
	out := s.lastChange(func(x change) bool {
		return x.side == "mail" && x.id == c.id && x.name == "status" && (!x.ours() || told <= back)
	})
	open := s.lastChange(func(x change) bool {
		return x.id == r.id && x.who == person && (x.kind == "create" || x.name == "emailaddress1" || x.name == "donotbulkemail")
	})
	return out > open
}

// joinedAgain reports whether a person put a record into a list after its contact had
// left the book.
func (s *sim) joinedAgain(r *record, c *contact, e expected) bool {
	left := s.lastChange(func(x change) bool { return x.kind == "unsubscribe-list" && x.id == c.id && x.list == e.book })
	joined := s.lastChange(func(x change) bool {
		return x.side == "crm" && x.id == r.id && x.who == person && (x.table == "listmember" && x.kind == "create" && x.list == e.list.id() || x.kind == "create")
	})
	return joined > left
}

// toldOptIn reports whether a contact changed after its record had the address: only
// the platform's changes are followed. A choice, or a message that asks whether somebody
// wants mail again, moves no contact's modification time.
func (s *sim) toldOptIn(r *record, c *contact) bool {
	changed := s.lastChange(func(x change) bool {
		return x.side == "mail" && x.id == c.id && x.kind != "preference" && x.kind != "challenge"
	})
	there := s.lastChange(func(x change) bool {
		return x.id == r.id && (x.kind == "create" || x.name == "emailaddress1" || x.name == lockstep.OptInTypeColumn && x.who == person)
	})
	return changed > there
}

// rowTaken reports whether a person took a row of ours about an address away.
func (s *sim) rowTaken(table, email string) bool {
	return s.lastChange(func(x change) bool {
		return x.table == table && x.who == person && x.kind == "delete" && lower(s.history.records[table][x.id].cols["lockstep_email"]) == email
	}) >= 0
}

// choiceRows are the living rows of choices.
func (s *sim) choiceRows() map[choice][]*record {
	out := map[choice][]*record{}
	for _, r := range s.history.alive(lockstep.ChoiceTable) {
		if r.active() {
			out[r.choice()] = append(out[r.choice()], r)
		}
	}
	return out
}

// choicesAgree: what people chose for each preference is the same on both sides.
func choicesAgree(s *sim) {
	m := newModel(s)
	rows := s.choiceRows()
	for _, c := range s.history.contacts() {
		if c.blocked() && !m.moved[c.email] {
			s.closedToChoices(c, rows)
		}
		if m.moved[c.email] || m.doubtful[c.email] || !usable(c.email) || c.blocked() || len(m.sharing[c.email]) == 0 {
			continue
		}
		for i := range preferences {
			key := choice{c.email, string(rune('1' + i))}
			said, shown := c.chosen(key.preference), rows[key]
			if said == "" && len(shown) == 0 {
				continue
			}
			if said == "" && s.madeLater(c, shown) {
				continue // who says nothing has opted in to nothing
			}
			if !slices.ContainsFunc(shown, func(r *record) bool { return r.cols["lockstep_optedin"] == said }) {
				s.violated("I9 consent", "%s chose %q for preference %s on the platform, %d rows in the CRM say %v", c.email, said, key.preference, len(shown), values(shown))
			}
		}
	}
}

// heardOf reports whether a run could hear what a closed contact chose last: the platform
// tells no choices of who is closed.
func (s *sim) heardOf(c *contact, preference string) bool {
	chose := s.lastChange(func(x change) bool { return x.side == "mail" && x.id == c.id && x.name == "preference:"+preference })
	closed := s.lastChange(func(x change) bool {
		return x.side == "mail" && x.id == c.id && x.name == "status" && blocking(x.new) && !blocking(x.old)
	})
	return chose < 0 || slices.ContainsFunc(s.played, func(p played) bool { return p.done(lockstep.SyncPreferences) && chose < p.from && p.to <= closed })
}

// closedToChoices: a user does not opt in who is closed to all mail; the row is set back.
func (s *sim) closedToChoices(c *contact, rows map[choice][]*record) {
	closed := s.lastChange(func(x change) bool { return x.side == "mail" && x.id == c.id && x.name == "status" })
	for i := range preferences {
		key := choice{c.email, string(rune('1' + i))}
		if len(rows[key]) != 1 || c.chosen(key.preference) == "true" {
			continue
		}
		r := rows[key][0]
		if r.cols["lockstep_optedin"] != "true" || s.choiceTaken(key) {
			continue
		}
		last := s.lastChange(func(x change) bool { return x.id == r.id && x.name == "lockstep_optedin" })
		out := s.lastChange(func(x change) bool { return x.id == r.id && x.name == "lockstep_optedin" && x.new == "false" })
		// A row that was changed and changed back before anybody looked was not changed.
		seen := out < 0 || slices.ContainsFunc(s.played, func(p played) bool { return p.done(lockstep.SyncPreferences) && out < p.from && p.to <= last })
		if last > closed && s.history.changes[last].who == person && seen && s.heardOf(c, key.preference) {
			s.violated("I6 ratchet", "a user opted %s in to preference %s, who is %s: the row was not set back", c.email, key.preference, c.status)
		}
	}
}

// choiceTaken reports whether a person took away a row of a choice.
func (s *sim) choiceTaken(c choice) bool {
	return s.lastChange(func(x change) bool {
		return x.table == lockstep.ChoiceTable && x.who == person && x.kind == "delete" && s.history.records[x.table][x.id].choice() == c
	}) >= 0
}

// madeLater reports whether a contact came after its address had been opted out in the
// CRM: who says nothing has not opted in.
func (s *sim) madeLater(c *contact, rows []*record) bool {
	made := s.lastChange(func(x change) bool { return x.side == "mail" && x.id == c.id && x.kind == "create" })
	for _, r := range rows {
		first := slices.IndexFunc(s.history.changes, func(x change) bool {
			return x.name == "lockstep_optedin" && x.new == "false" && s.history.records[x.table][x.id].choice() == r.choice()
		})
		if first > made || r.cols["lockstep_optedin"] != "false" {
			return false
		}
	}
	return true
}

func values(rows []*record) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.cols["lockstep_optedin"])
	}
	return out
}

// ledgerHolds: the ledger is whole, and every opt-out that a run could hear of is in it.
func ledgerHolds(s *sim) {
	report, err := s.app.VerifyConsent(s.ctx, "")
	if err != nil || report.Broken != nil {
		s.violated("I6 ledger", "the ledger does not verify: %v %v", err, report.Broken)
	}
	type entry struct {
		email  string
		scope  lockstep.ConsentScope
		object string
	}
	missing := map[entry]string{}
	m := newModel(s)
	next := 0
	s.replay(func(i int, _ change, w *past) {
		for ; next < len(s.played) && s.played[next].to == i; next++ {
			p := &s.played[next]
			if p.from < s.since {
				continue // forgotten
			}
			before := func(what string) bool { since, ok := w.since[what]; return ok && since < p.from }
			for id, c := range w.people {
				if c.gone || !usable(c.email) || m.moved[c.email] {
					continue
				}
				heard := !s.deaf[next]
				if heard && p.done(lockstep.SyncSuppressions, lockstep.SyncMarketingLists) && before("blocked "+id) {
					missing[entry{c.email, lockstep.ScopeAccount, ""}] = c.status
				}
				for _, e := range m.lists {
					if heard && p.done(lockstep.SyncUnsubscribes, lockstep.SyncMarketingLists) && before("left "+id+" "+e.book) {
						missing[entry{c.email, lockstep.ScopeList, e.set.ID}] = "unsubscribed from " + e.list.name
					}
				}
				for k := range preferences {
					n := string(rune('1' + k))
					if p.done(lockstep.SyncPreferences) && before("out "+id+" preference:"+n) && !m.doubtful[c.email] && !s.choseInCRM(choice{c.email, n}) &&
						slices.ContainsFunc(w.having(c.email), func(r *record) bool { return before("address " + r.id) }) {
						missing[entry{c.email, lockstep.ScopePreference, n}] = "refused the preference " + n
					}
				}
			}
			for id, r := range w.records {
				if r.gone || !usable(r.email()) || m.moved[r.email()] || m.doubtful[r.email()] || !p.done(lockstep.SyncSuppressions) || !before("address "+id) {
					continue
				}
				switch {
				case before("flag " + id + " donotemail"):
					missing[entry{r.email(), lockstep.ScopeEmail, ""}] = "donotemail of " + r.table + " " + id
				case before("flag "+id+" donotbulkemail") && r.cols["donotemail"] != "true":
					missing[entry{r.email(), lockstep.ScopeBulk, ""}] = "donotbulkemail of " + r.table + " " + id
				}
			}
		}
	})
	for want, why := range missing {
		ledger, err := s.app.Consent(s.ctx, want.email)
		if err != nil {
			s.t.Fatal(err)
		}
		if !slices.ContainsFunc(ledger.Entries, func(e app.ConsentStatement) bool {
			return e.Act == lockstep.ActRestricted && e.Scope == want.scope && (want.object == "" || e.Object == want.object)
		}) {
			s.violated("I6 ledger", "the ledger does not know that %s opted out of %s %s (%s)", want.email, want.scope, want.object, why)
		}
	}
}

// choseInCRM reports whether a person ever entered or changed a choice in the CRM.
func (s *sim) choseInCRM(c choice) bool {
	return s.lastChange(func(x change) bool {
		return x.table == lockstep.ChoiceTable && x.who == person && s.history.records[x.table][x.id].choice() == c
	}) >= 0
}

// said is what a person said about a preference on one side.
type said struct {
	in bool
	at time.Time
}

// nobodyIsOptedIn: the product opts nobody in without a newer act of the person.
func nobodyIsOptedIn(s *sim) {
	m := newModel(s)
	type side struct {
		choice
		crm bool
	}
	words := map[side][]said{}
	rowsOf := map[choice]map[string]bool{}
	back := map[string]time.Time{} // addresses whose holder came back, by their own act
	wish := map[string]bool{}      // contacts whose last own word is that they want mail
	// moved are addresses that were given or taken so far. A contact takes what it chose to
	// its new address, where nobody said it; a row stays with the old one.
	moved := map[string]bool{}
	s.replay(func(i int, x change, w *past) {
		m.moves(x, moved)
		switch {
		case x.side == "crm" && x.table == lockstep.SuppressionTable && x.name == lockstep.StateColumn && x.new == "1" && x.ours():
			if email := lower(w.records[x.id].cols["lockstep_email"]); back[email].IsZero() {
				s.violated("I6 ratchet", "a suppression was taken back though the person never came back: %v of %s", x, email)
			}
		case x.side == "crm" && x.name == "donotbulkemail" && x.old == "true" && x.new != "true" && x.ours():
			if r := w.records[x.id]; back[r.email()].IsZero() {
				s.violated("I6 ratchet", "the product took an opt-out off a record: %v", x)
			} else if r.cols["donotemail"] == "true" && s.heardFlag(w, x) {
				s.violated("I6 ratchet", "the product opened a record that a user has closed: %v", x)
			}
		case x.side == "mail" && x.ours() && x.new == "true" && strings.HasPrefix(x.name, "preference:") && w.people[x.id].blocked() && s.longBefore(w, "blocked "+x.id, x):
			s.violated("I6 ratchet", "the product opts somebody in who is %s: %v", w.people[x.id].status, x)
		case x.side == "crm" && x.name == "donotemail" && x.old == "true" && x.ours():
			s.violated("I6 ratchet", "the product took an opt-out off a record: %v", x)
		case x.side == "mail" && x.name == "optInType" && x.old != "" && x.ours():
			s.violated("I6 ratchet", "the product changed how somebody agreed to be mailed: %v", x)
		case x.side == "mail" && x.name == "status" && !x.ours():
			if wish[x.id] = !blocking(x.new); wish[x.id] {
				back[w.people[x.id].email] = x.at
			}
		case x.side == "mail" && x.name == "email" && (x.old == "" && !x.ours() || wish[x.id]):
			back[lower(x.new)] = x.at // they signed up, or had come back under another address
			wish[x.id] = true
		case x.side == "mail" && x.kind == "join-list" && x.name == "" && x.ours() && w.people[x.id].blocked():
			s.violated("I6 ratchet", "%s, who is %s, was added: %v", w.people[x.id].email, w.people[x.id].status, x)
		}
		var key choice
		var other side
		switch {
		case x.table == lockstep.ChoiceTable && x.name == "lockstep_optedin":
			key = s.history.records[x.table][x.id].choice()
			other = side{key, false}
			if rowsOf[key] == nil {
				rowsOf[key] = map[string]bool{}
			}
			rowsOf[key][x.id] = true
		case x.side == "mail":
			p, ok := isChoice(x.name)
			if !ok {
				return
			}
			key = choice{w.people[x.id].email, p}
			other = side{key, true}
		default:
			return
		}
		mine := side{key, !other.crm}
		if x.who == person {
			words[mine] = append(words[mine], said{x.new == "true", x.at})
			return
		}
		if !x.ours() || x.new != "true" || moved[key.email] || m.doubtful[key.email] || len(rowsOf[key]) > 1 {
			return
		}
		s.optedIn(x, words[mine], words[other])
	})
}

// optedIn checks that the product, when it opts somebody in on one side, has heard so
// on the other side after the last time that the person said no on this one.
func (s *sim) optedIn(x change, mine, other []said) {
	recent := func(w said) bool { return x.at.Sub(w.at) < unconditional }
	var yes time.Time // the newest word that the run may have read
	for i, w := range other {
		if w.in && (recent(w) || i == len(other)-1 || recent(other[i+1])) {
			yes = w.at
		}
	}
	if yes.IsZero() {
		s.violated("I6 ratchet", "nobody chose what the product wrote: %v", x)
		return
	}
	for _, w := range mine {
		if w.in || recent(w) {
			continue
		}
		switch a, b := w.at.Truncate(time.Second), yes.Truncate(time.Second); {
		case a.After(b):
			s.violated("I6 ratchet", "an opt-in of %s replaced a newer opt-out of %s: %v", yes.Format(time.TimeOnly), w.at.Format(time.TimeOnly), x)
			return
		case a.Equal(b) && mine[0].at.Truncate(time.Second).Equal(a) && other[0].at.Truncate(time.Second).Equal(a) && !mine[len(mine)-1].in:
			s.violated("I6 ratchet", "said in and out at the same moment, the opt-in counted: %v", x)
			return
		}
	}
}

// longBefore reports whether something has held since before the round of a change.
func (s *sim) longBefore(w *past, what string, x change) bool {
	since, ok := w.since[what]
	return ok && s.history.changes[since].round < x.round
}

// heardFlag reports whether a user closed a record to all email after the product had
// closed it to bulk email, and a run that reads opt-outs has ended well between that and
// the round of a change.
func (s *sim) heardFlag(w *past, x change) bool {
	since, ok := w.since["flag "+x.id+" donotemail"]
	return ok && since > w.since["flag "+x.id+" donotbulkemail"] && slices.ContainsFunc(s.played, func(p played) bool {
		return p.done(lockstep.SyncSuppressions) && since < p.from && p.round < x.round
	})
}

// newerStays: what the product writes on one side is not a value that the other side
// has long replaced.
func newerStays(s *sim) {
	m := newModel(s)
	for r, c := range m.stable() {
		outward, inward := m.flows(r.table)
		for column, label := range outward {
			s.ordered(r, c, "crm", column, "mail", label)
		}
		for column, label := range inward {
			s.ordered(r, c, "mail", label, "crm", column)
		}
	}
}

// ordered looks at one field that flows from one side to the other.
func (s *sim) ordered(r *record, c *contact, from, source, to, target string) {
	id := map[string]string{"crm": r.id, "mail": c.id}
	held := map[string]time.Time{} // value → when the source replaced it
	now := ""
	for _, x := range s.history.changes {
		switch {
		case x.side == from && x.id == id[from] && x.name == source:
			if held[now] = x.at; now != x.new {
				delete(held, x.new)
			}
			now = x.new
		case x.side == to && x.id == id[to] && x.name == target && x.who == product && x.new != "" && !same(x.new, now) && !s.undone(x):
			if at, ok := held[x.new]; ok && x.at.Sub(at) > unconditional {
				s.violated("I10 order", "%v, though %s had replaced that by %q at %s", x, source, now, at.Format("02 15:04:05"))
			}
		}
	}
}
