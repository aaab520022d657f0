package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
)

// approval holds the changes of a preview that a person approved. A run that
// applies it plans everything anew from what both sides say now and writes only
// what comes out exactly as previewed.
type approval struct {
	planned map[digest]*approved
	subject map[digest]bool // what the approved changes are about, whatever they say
}

type approved struct {
	about string // without personal data
	ref   lockstep.Ref
	list  lockstep.ID
	used  bool
}

type digest [16]byte

// loadApproval reads the preview that this run applies.
func (s *session) loadApproval() error {
	if s.run.Preview == "" {
		return nil
	}
	a := &approval{planned: map[digest]*approved{}, subject: map[digest]bool{}}
	after := int64(0)
	for {
		batches, err := s.e.Store.PlannedBatches(s.ctx, s.run.Preview, after, 20)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			break
		}
		for _, b := range batches {
			after = b.ID
			err := journal.Decode(b.Payload, func(c lockstep.Change) error {
				if c.State != lockstep.Planned {
					return nil // shown, and not to be written
				}
				full, subject := s.digests(&c)
				a.planned[full] = &approved{about: c.Kind.String(), ref: c.Ref, list: c.List}
				a.subject[subject] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	s.sync.approved = a
	return nil
}

// digests returns what a change says and what it is about.
func (s *session) digests(c *lockstep.Change) (full, subject digest) {
	h := sha256.New()
	put := func(parts ...string) {
		for _, p := range parts {
			var n [8]byte
			binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
			h.Write(n[:])
			io.WriteString(h, p) //nolint:errcheck // a hash never fails
		}
	}
	put(c.Kind.String(), c.Ref.String(), c.List.String())
	if c.Ref.Table == "" || c.Kind == lockstep.RemoveFromBook {
		put(string(c.Contact), s.bookKey(c.Book), c.Name)
	}
	copy(subject[:], h.Sum(nil))
	put(c.Email, c.Name)
	for _, b := range c.Books {
		put(s.bookKey(b))
	}
	for _, f := range c.Fields {
		put(f.Name, f.New.Kind().String(), f.New.Text())
	}
	copy(full[:], h.Sum(nil))
	return full, subject
}

// bookKey names a book the same before and after it was made.
func (s *session) bookKey(b lockstep.BookID) string {
	if b == "" {
		return ""
	}
	for _, l := range s.sync.lists {
		if l.book.ID == b || l.set.Book == b || NewBook(l.set.ID) == b {
			return l.set.ID
		}
	}
	return string(b)
}

// permitted returns the changes that may be carried out: all of them, unless a
// preview is applied; then those that are exactly as previewed, and those that take
// people out of a book who do not want to be in it. What differs is told and left for a
// later run.
func (s *session) permitted(changes []lockstep.Change) []lockstep.Change {
	a := s.sync.approved
	if a == nil {
		return changes
	}
	out := changes[:0]
	for i := range changes {
		c := &changes[i]
		full, subject := s.digests(c)
		if p := a.planned[full]; p != nil {
			p.used = true
			out = append(out, *c)
			continue
		}
		if c.Kind == lockstep.RemoveFromBook && consentReasons[c.Why] {
			out = append(out, *c)
			continue
		}
		msg := "was not part of the preview"
		if a.subject[subject] {
			msg = "is different now from what the preview showed"
		}
		s.moved(c.Kind, c.Ref, c.Contact, c.List, msg)
	}
	return out
}

func (s *session) moved(kind lockstep.ChangeKind, ref lockstep.Ref, contact lockstep.ContactID, list lockstep.ID, msg string) {
	f := lockstep.Finding{
		Code: lockstep.FindingMoved, Table: ref.Table, Record: ref.ID, Contact: contact, Field: kind.String(),
		Message: fmt.Sprintf("the change (%s) %s; it was not written", kind, msg), Hint: "run a new preview",
	}
	for _, l := range s.sync.lists {
		if l.set.CRMID == list {
			f.List = l.set.ID
		}
	}
	s.finding(f)
	s.sync.held = true
}

// permittedRow is permitted for a contact's row.
func (s *session) permittedRow(r *row) bool {
	if s.sync.approved == nil {
		return true
	}
	changes, err := journal.Changes(s.encode([]row{*r}, lockstep.Planned))
	if err != nil || len(changes) != 1 {
		return false
	}
	if len(s.permitted(changes)) == 1 {
		return true
	}
	r.hash = [16]byte{} // the next run looks at this record again
	r.seen = 0          // and at what the platform says of its contact
	if r.contact != "" {
		if r.values != nil {
			r.base = r.old
		}
		if r.base == nil {
			r.base = s.sync.absent
		}
		if r.email != "" {
			r.newEmail = r.oldEmail // the contact was not renamed
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range r.adds {
		l.sum.Dirty = true
		s.owe(l)
		if m, ok := l.members.Record(r.ref.ID); ok && m.Excluded {
			m.Excluded = false // what kept the person out is gone, and no feed tells again
			s.keep(l, m)
		}
	}
	return false
}

// unfulfilled tells which previewed changes turned out not to be needed any more.
func (s *session) unfulfilled() {
	if s.sync.approved == nil {
		return
	}
	for _, p := range s.sync.approved.planned {
		if !p.used {
			f := lockstep.Finding{
				Code: lockstep.FindingMoved, Table: p.ref.Table, Record: p.ref.ID, Field: p.about,
				Message: "the previewed change (" + p.about + ") is not needed any more or differs; it was not written", Hint: "run a new preview",
			}
			s.finding(f)
		}
	}
}

// expectation is a contact that a preview would have created: who speaks for it, and
// what both sides would agree on.
type expectation struct {
	first merge.Candidate
	base  []lockstep.Value
	books map[*listState]bool // whose address book it would be in
}

// foresee lets a preview see what a run would see: the second record with an
// address finds the contact that the first one made.
func (s *session) foresee(plan *tablePlan, p *person) {
	if !s.dry() || p.linked || p.adopted || p.noEmail != "" {
		return
	}
	first, ok := s.sync.expected[crosswalk.EmailKey(p.email)]
	if !ok || first.first.Ref == p.rec.Ref {
		return
	}
	p.adopted = true
	p.entry.Base = first.base
	p.row.email, p.row.newEmail = "", p.email
	if p.row.master = merge.Less(s.candidate(plan, p), first.first); p.row.master {
		copy(p.row.base, first.base)
		p.row.demote = []crosswalk.Link{{Ref: first.first.Ref}}
	}
}

// lookedAt reports, in a preview, that a feed brings a record which was looked at
// before: a run has stored what came out of that, and finds it equal.
func (s *session) lookedAt(p *person) bool {
	lists, looked := s.sync.looked[p.rec.Ref]
	_, exchanged := s.sync.exchanged[p.rec.Ref]
	return looked && len(p.lists) <= lists && !exchanged && !s.sync.recheck[p.rec.Ref]
}

// shown is what a preview said that a record's contact, and the record itself, would be
// told.
type shown struct {
	email  string
	values []lockstep.Value
	adds   []*listState
	toCRM  []lockstep.ColumnValue
}

// showOnce keeps a preview from showing a change again of a record that it looks at a
// second time, because a dynamic list was found to have it: a run would have written it.
func (s *session) showOnce(p *person) {
	r := &p.row
	was, again := s.sync.shown[p.rec.Ref]
	if !again {
		late := s.sync.recheck[p.rec.Ref] || slices.ContainsFunc(s.sync.byTable[p.rec.Table], func(l *listState) bool { return l.set.Dynamic && l.deciding == nil })
		if late && (len(p.toCRM) > 0 || r.sends()) {
			s.sync.shown[p.rec.Ref] = shown{r.email, slices.Clone(r.values), slices.Clone(r.adds), p.toCRM}
		}
		return
	}
	r.shown = true
	if r.email == was.email {
		r.email, r.oldEmail, r.newEmail = "", "", r.address()
	}
	r.adds = slices.DeleteFunc(r.adds, func(l *listState) bool { return slices.Contains(was.adds, l) })
	for i := range min(len(r.values), len(was.values)) {
		if r.values[i] == was.values[i] {
			r.values[i] = lockstep.Value{}
		}
	}
	p.toCRM = slices.DeleteFunc(slices.Clone(p.toCRM), func(v lockstep.ColumnValue) bool { return slices.Contains(was.toCRM, v) })
}

// expectAfter remembers what a preview would have made of a person.
func (s *session) expectAfter(plan *tablePlan, p *person) {
	if !s.dry() || p.noEmail != "" || p.row.contact != "" || !p.row.master || p.row.keepOnly {
		return
	}
	k := crosswalk.EmailKey(p.email)
	books := s.sync.expected[k].books
	if books == nil {
		books = map[*listState]bool{}
	}
	for _, l := range p.row.adds {
		books[l] = true
	}
	s.sync.expected[k] = expectation{s.candidate(plan, p), slices.Clone(p.row.base), books}
}

// expectedIn reports whether a preview would have put the person's contact into the
// list's book already, because of another record.
func (s *session) expectedIn(l *listState, p *person) bool {
	if !s.dry() || p.noEmail != "" {
		return false
	}
	e := s.sync.expected[crosswalk.EmailKey(p.email)]
	return e.first.Ref != p.rec.Ref && e.books[l]
}

func (s *session) candidate(plan *tablePlan, p *person) merge.Candidate {
	return merge.Candidate{Ref: p.rec.Ref, Rank: merge.Rank(s.account.Priority, plan.table), Member: true, Modified: p.rec.Modified.Unix()}
}
