package prove

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// The reference model: who has to be in which address book, and which values have to
// agree, as it follows from what both sides hold now. It knows nothing of how the
// product gets there.

// expected is what the model says of one list.
type expected struct {
	set     lockstep.ListSettings
	list    list
	book    string
	members []*record
	must    map[string]*record // addresses that must be in the book, with who speaks for them
	may     map[string]bool    // that may be
}

// model is what the world has to look like.
type model struct {
	s       *sim
	sharing map[string][]*record // living records by address
	lists   []expected
	// doubtful are addresses that somebody opted out on the platform at some time, and
	// records whose contact a person deleted there: the product may hold them back, or
	// not, by what it came to know and when.
	doubtful map[string]bool
	// refused are records and lists whose book the record's person unsubscribed from, or
	// somebody whose contact became the record's later, because it came to the address or
	// absorbed the other record: that stays with the person, whatever address they have now.
	refused map[string]bool
	// moved are addresses that were given or taken by anybody.
	moved map[string]bool
	// broken are lists whose query the CRM refuses.
	broken map[string]bool
}

func newModel(s *sim) *model {
	m := &model{s: s, sharing: map[string][]*record{}, doubtful: map[string]bool{}, refused: map[string]bool{}, moved: map[string]bool{}, broken: map[string]bool{}}
	h := s.history
	for _, r := range h.alive("contact", "lead", "account") {
		if r.email() != "" {
			m.sharing[r.email()] = append(m.sharing[r.email()], r)
		}
	}
	m.findDoubtful()
	m.findMoved()
	m.findRejected()
	all, err := s.app.Lists(s.ctx, s.account)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range lists {
		for _, set := range all {
			if set.CRMID.String() == l.id() {
				if e := m.expect(l, set); !m.broken[l.name] {
					m.lists = append(m.lists, e)
				}
			}
		}
	}
	return m
}

// findDoubtful walks through the history with everybody's address at each moment.
func (m *model) findDoubtful() {
	for email := range m.s.closed {
		m.doubtful[email] = true
	}
	for _, r := range m.s.history.cast {
		if r.table == lockstep.SuppressionTable {
			m.doubtful[lower(r.cols["lockstep_email"])] = true
		}
	}
	records := map[string]string{}
	left := map[string]map[string]int{} // address → records that had it, and the change that gave them another one
	type address struct {
		text  string
		since int // the change that gave it
	}
	had := map[string][]address{}       // every address that a contact had
	came := map[string]int{}            // the change that gave a record its address
	out := map[string]map[string]bool{} // contact → books that it unsubscribed from
	for i, c := range m.s.history.changes {
		switch {
		case c.side == "crm" && c.name == "emailaddress1":
			if was := records[c.id]; was != "" {
				if left[was] == nil {
					left[was] = map[string]int{}
				}
				left[was][c.id] = i
				if m.s.looked(came[c.id], i) {
					for id, books := range out {
						for k, email := range had[id] {
							if email.text != was || k+1 < len(had[id]) && m.s.heard(had[id][k+1].since, i) {
								continue
							}
							for book := range books {
								m.refused[c.id+" "+book] = true
							}
						}
					}
				}
			}
			records[c.id], came[c.id] = lower(c.new), i
		case c.side == "crm" && c.name == "masterid" && c.new != "":
			for key := range maps.Clone(m.refused) {
				if book, its := strings.CutPrefix(key, c.id+" "); its {
					m.refused[c.new+" "+book] = true
				}
			}
		case c.kind == "join-list" || c.kind == "return-to-list":
			delete(out[c.id], c.list)
		case c.kind == "unsubscribe-list":
			if out[c.id] == nil {
				out[c.id] = map[string]bool{}
			}
			out[c.id][c.list] = true
			// Who has the contact's address, or has the contact still, because nobody
			// has heard yet that either of them got another one.
			for k, email := range had[c.id] {
				if k+1 < len(had[c.id]) && m.s.heard(had[c.id][k+1].since, i) {
					continue
				}
				for id, e := range records {
					if since, left := left[email.text][id]; e == email.text || left && !m.s.heard(since, i) {
						m.refused[id+" "+c.list] = true
					}
				}
			}
		case c.side == "mail" && c.name == "email":
			had[c.id] = append(had[c.id], address{lower(c.new), i})
		case c.side == "mail" && (c.name == "status" && c.new != "subscribed" || c.kind == "delete" && c.name == ""):
			for _, email := range had[c.id] {
				m.doubtful[email.text] = true
				for id, e := range records {
					if e == email.text {
						m.doubtful[id] = true
					}
				}
				for id, since := range left[email.text] {
					if !m.s.heard(since, i) { // it was still the record's contact
						m.doubtful[id] = true
					}
				}
			}
		}
	}
}

// heard reports whether the lists were synced from beginning to end between two changes,
// and not only what a preview had shown of them.
func (s *sim) heard(since, until int) bool {
	return slices.ContainsFunc(s.played, func(p played) bool {
		return p.from > since && p.to <= until && p.done(lockstep.SyncMarketingLists) && p.run.Preview == ""
	})
}

// looked reports whether a sync of the lists, however it ended, was under way between two
// changes: what it saw of a record's contact then it knows of the record.
func (s *sim) looked(since, until int) bool {
	return slices.ContainsFunc(s.played, func(p played) bool {
		return p.to > since && p.from <= until && p.run.Type == lockstep.SyncMarketingLists && p.run.Mode == lockstep.ModeApply
	})
}

// findRejected finds the records that a side refuses still, which the product tells of and
// tries again.
func (m *model) findRejected() {
	runs, err := m.s.app.Runs(m.s.ctx, app.RunFilter{Limit: 1000})
	if err != nil {
		m.s.t.Fatal(err)
	}
	for _, run := range runs {
		if run.Counts.Findings == 0 {
			continue
		}
		found, err := m.s.app.Findings(m.s.ctx, run.ID, "", 1000)
		if err != nil {
			m.s.t.Fatal(err)
		}
		for _, f := range found {
			if f.Code == lockstep.FindingRejected && f.Retry != nil {
				m.doubtful[f.Record.String()] = true
			}
		}
	}
}

// members are the records that the CRM says are in the list.
func (m *model) members(l list) []*record {
	var out []*record
	if l.dynamic == "" {
		for _, id := range sortedKeys(m.s.history.members[l.id()]) {
			if r := m.s.history.records[l.table][id]; r != nil && !r.gone {
				out = append(out, r)
			}
		}
		return out
	}
	var row struct{ Query string }
	m.s.crm("GET", "lists("+l.id()+")?$select=query", nil, &row)
	var page struct{ Value []map[string]any }
	m.broken[l.name] = !m.s.crm("GET", l.table+"s?fetchXml="+url.QueryEscape(row.Query), nil, &page)
	for _, v := range page.Value {
		if id, ok := v[l.table+"id"].(string); ok {
			out = append(out, m.s.history.records[l.table][id])
		}
	}
	return out
}

func usable(email string) bool { return lockstep.CheckEmail(email) == "" }

func (m *model) expect(l list, set lockstep.ListSettings) expected {
	e := expected{set: set, list: l, book: string(set.Book), members: m.members(l), must: map[string]*record{}, may: map[string]bool{}}
	for _, r := range e.members {
		email := r.email()
		if !usable(email) || !r.active() || r.optedOut() {
			continue
		}
		c := m.s.history.byEmail(email)
		switch {
		case c != nil && (c.status != "subscribed" && c.status != "softBounced" || c.left[e.book]):
			continue // opted out on the platform
		case m.doubtful[email] || m.doubtful[r.id] || m.refused[r.id+" "+e.book]:
			e.may[email] = true
			continue
		case slices.ContainsFunc(m.sharing[email], (*record).optedOut):
			// The strictest word of the records with the address counts, as far as
			// they are known: one in no list may not be.
			e.may[email] = true
			continue
		}
		e.must[email] = r
	}
	return e
}

// stays reports whether a stranger may stay in the list's book.
func (e *expected) stays() bool {
	return e.list.dynamic == "" && e.list.action != lockstep.ActionRemove
}

// findMoved finds addresses that were given or taken by anybody.
func (m *model) findMoved() {
	for _, c := range m.s.history.changes {
		m.moves(c, m.moved)
	}
}

// moves notes the addresses that a change gives or takes.
func (m *model) moves(c change, moved map[string]bool) {
	switch {
	case c.side == "crm" && c.name == "emailaddress1" && c.kind != "create", c.side == "mail" && c.name == "email" && c.old != "":
		moved[lower(c.old)], moved[lower(c.new)] = true, true
	case c.side == "mail" && (c.kind == "delete" || c.kind == "restore" || c.kind == "destroy"):
		moved[m.s.history.people[c.id].email] = true
	}
}

// stable are the pairs in which nothing ever happened to the address: one record, one
// contact, from the beginning to the end.
func (m *model) stable() map[*record]*contact {
	h := m.s.history
	born := map[string]int{}
	for _, c := range h.changes {
		if c.side == "crm" && c.name == "emailaddress1" && c.kind == "create" {
			born[lower(c.new)]++
		}
	}
	out := map[*record]*contact{}
	for _, r := range h.alive("contact", "lead", "account") {
		e := r.email()
		if r.id != m.s.injector.poisoned && !m.moved[e] && born[e] == 1 && r.cols["merged"] != "true" {
			if c := h.byEmail(e); c != nil {
				out[r] = c
			}
		}
	}
	return out
}

// outward returns the pairs of column and data field that flow to the platform, and
// inward those that flow to the CRM, of a table.
func (m *model) flows(table string) (outward, inward map[string]string) {
	all, err := m.s.app.Mappings(m.s.ctx, m.s.account)
	if err != nil {
		m.s.t.Fatal(err)
	}
	outward, inward = map[string]string{}, map[string]string{}
	for _, x := range all {
		if x.Table != table || x.Label == misfit || x.Column == "address1_country" && m.s.renamed {
			continue
		}
		if x.Direction == lockstep.ToPlatform {
			outward[x.Column] = x.Label
		} else {
			inward[x.Column] = x.Label
		}
	}
	return outward, inward
}

func same(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }
