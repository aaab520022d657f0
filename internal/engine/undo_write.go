package engine

import (
	"errors"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// writeUndo carries out what one batch comes to: CRM records first, then contacts,
// then memberships.
func (s *session) writeUndo(u *undoing, w *undoWork) error {
	for _, table := range slices.Sorted(maps.Keys(w.records)) {
		if err := s.undoRecords(table, w.records[table]); err != nil {
			return err
		}
	}
	for rows := w.rows; len(rows) > 0; {
		n := min(len(rows), s.e.ImportRows)
		if err := s.undoImport(&batch{rows: rows[:n]}); err != nil {
			return err
		}
		rows = rows[n:]
	}
	for _, l := range s.sync.lists {
		for todo := w.removals[l]; len(todo) > 0; {
			n := min(len(todo), s.platform.MaxRemove())
			if err := s.undoAdds(u, l, todo[:n]); err != nil {
				return err
			}
			todo = todo[n:]
		}
		if err := s.undoListMembers(l, w.leave[l], false); err != nil {
			return err
		}
		if err := s.undoListMembers(l, w.join[l], true); err != nil {
			return err
		}
	}
	return nil
}

// noteRefused journals what was not undone, with what stands there now.
func (s *session) noteRefused(w *undoWork, c *lockstep.Commit) error {
	if len(w.refused) == 0 {
		return nil
	}
	id, err := s.plan(w.kind, journal.Encode(w.refused), len(w.refused))
	if err == nil && !s.dry() {
		c.Batches = append(slices.Clone(c.Batches), lockstep.BatchEnd{ID: id, State: lockstep.Refused})
	}
	return err
}

// storeLinks stores entries with anything else that belongs to the same step.
func (s *session) storeLinks(c lockstep.Commit, entries []crosswalk.Entry) error {
	out := newLinkChunks(s.sync.bases)
	for _, e := range entries {
		out.add(e)
	}
	c.Links = out.payloads()
	return s.commit(c)
}

// undoRecords writes old values to CRM records.
func (s *session) undoRecords(table string, todo []recordUndo) error {
	changes := make([]lockstep.Change, len(todo))
	rows := make([]lockstep.RecordWrite, len(todo))
	marks := make([]crosswalk.Entry, len(todo))
	for i := range todo {
		changes[i] = todo[i].change
		rows[i].ID, rows[i].Version = changes[i].Ref.ID, todo[i].version
		for _, f := range changes[i].Fields {
			rows[i].Fields = append(rows[i].Fields, lockstep.ColumnValue{Column: f.Name, Value: f.New})
		}
		marks[i] = beforehand(todo[i].before, todo[i].after)
	}
	id, err := s.plan(lockstep.WriteRecord, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	if s.dry() {
		s.count(lockstep.Counts{RecordsUpdated: int64(len(changes))})
		return nil
	}
	if err := s.storeLinks(lockstep.Commit{}, marks); err != nil {
		return err
	}
	s.e.step("write-records.before")
	results, err := s.crm.WriteRecords(s.ctx, table, rows)
	if err != nil {
		return err
	}
	s.e.step("write-records.after")
	entries := marks
	var n lockstep.Counts
	for i := range todo {
		if e := results[i]; e != nil {
			changes[i].State, changes[i].Cause = lockstep.Refused, e.Msg
			s.finding(lockstep.Finding{
				Code: lockstep.FindingRejected, Table: table, Record: changes[i].Ref.ID, Contact: changes[i].Contact, Field: e.Field,
				Message: "the CRM refused the old value: " + e.Msg, Hint: e.Hint,
			})
			entries[i] = forgotten(todo[i].before)
			n.Rejected, n.Written = n.Rejected+1, n.Written-1
			continue
		}
		changes[i].State = lockstep.Acknowledged
		entries[i] = todo[i].after
		n.RecordsUpdated++
	}
	s.count(n)
	return s.storeLinks(lockstep.Commit{Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}}, entries)
}

// beforehand is what a link says while it is not known whether a write arrives: sides
// that it sets apart are so already, sides that it joins not yet.
func beforehand(before, after crosswalk.Entry) crosswalk.Entry {
	e := forgotten(after)
	e.Base, e.Apart = slices.Clone(after.Base), slices.Clone(after.Apart)
	for pos, crm := range before.Apart {
		if crm.IsAbsent() || e.Apart != nil && !e.Apart[pos].IsAbsent() {
			continue
		}
		setApart(&e, pos, crm, before.Base[pos])
	}
	return e
}

// forgotten is an entry whose two sides are to be read again before anything is
// concluded from it.
func forgotten(e crosswalk.Entry) crosswalk.Entry {
	e.Hash, e.Seen = [16]byte{}, 0
	return e
}

// entry is the link that a row leads to.
func (r *row) entry() crosswalk.Entry {
	return crosswalk.Entry{
		Ref: r.ref, Contact: r.contact, Email: r.address(), Standing: r.standing, OptIn: r.optIn, OptOut: r.optOut, Master: r.master,
		Hash: r.hash, Seen: r.seen, Modified: r.modified, Base: r.base, Apart: r.parted,
	}
}

// undoImport writes old values to contacts and puts contacts back into books.
func (s *session) undoImport(b *batch) error {
	var err error
	if b.id, err = s.plan(lockstep.WriteContact, s.encode(b.rows, lockstep.Planned), len(b.rows)); err != nil {
		return err
	}
	if s.dry() {
		s.countRows(b.rows)
		return nil
	}
	var marks []crosswalk.Entry
	for i := range b.rows {
		if r := &b.rows[i]; r.changesValues() {
			marks = append(marks, beforehand(r.before.entry, r.entry()))
		}
	}
	if err := s.storeLinks(lockstep.Commit{}, marks); err != nil {
		return err
	}
	var refusedAll error
	if err := s.send(b); err != nil {
		if errors.Is(err, errYield) || lockstep.ScopeOf(err) == lockstep.ScopeConnection || transient(err) || s.ctx.Err() != nil {
			return err
		}
		refusedAll = err
	}
	var entries []crosswalk.Entry
	var n lockstep.Counts
	for i := range b.rows {
		r := &b.rows[i]
		switch {
		case refusedAll != nil:
			r.state, r.cause = lockstep.Refused, lockstep.AsError(refusedAll).Msg
		case r.result == nil:
			r.state, r.cause = lockstep.Unknown, "the platform's result does not mention this contact"
		case r.result.Fault != nil:
			r.state, r.cause = lockstep.Refused, r.result.Fault.Msg
		default:
			r.state = lockstep.Acknowledged
		}
		if r.state != lockstep.Acknowledged {
			n.Rejected, n.Written = n.Rejected+1, n.Written-1
			f := lockstep.Finding{Code: lockstep.FindingRejected, Table: r.ref.Table, Record: r.ref.ID, Contact: r.contact, Message: "the platform refused the contact: " + r.cause}
			if r.result != nil && r.result.Fault != nil {
				f.Hint = r.result.Fault.Hint
			}
			s.finding(f)
			if r.state == lockstep.Refused && r.changesValues() {
				entries = append(entries, forgotten(r.before.entry))
			}
			continue
		}
		n.ContactsUpdated++
		n.BookAdds += int64(len(r.adds))
		if r.changesValues() {
			r.seen = s.seenAfter(r)
			entries = append(entries, r.entry())
		}
		for _, l := range r.adds {
			if err := s.backInBook(l, r.ref, r.contact); err != nil {
				return err
			}
		}
	}
	s.count(n)
	s.mu.Lock()
	members := s.takePending()
	s.mu.Unlock()
	state := lockstep.Acknowledged
	if refusedAll != nil {
		state = lockstep.Refused
	}
	return s.storeLinks(lockstep.Commit{Members: members, Batches: []lockstep.BatchEnd{{ID: b.id, State: state, Payload: s.encode(b.rows, 0)}}}, entries)
}

func (r *row) changesValues() bool {
	return r.ref.Table != "" && slices.ContainsFunc(r.values, func(v lockstep.Value) bool { return !v.IsAbsent() })
}

// seenAfter is what the platform will say of a contact whose values were set back. An
// edit on the platform that waits to be carried over makes it come out differently,
// so that it is noticed.
func (s *session) seenAfter(r *row) uint64 {
	values := slices.Clone(r.before.entry.Base)
	if x := r.before; x.plat != nil && contactHash(x.plat) == x.entry.Seen {
		copy(values, x.plat.Values)
	}
	for i, v := range r.values {
		if !v.IsAbsent() {
			values[i] = v
		}
	}
	return seenHash(r.address(), r.standing, r.optIn, values)
}

// undoAdds takes contacts out of a book that the run put them into.
func (s *session) undoAdds(u *undoing, l *listState, changes []lockstep.Change) error {
	id, err := s.plan(lockstep.RemoveFromBook, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	if s.dry() {
		s.count(lockstep.Counts{BookRemovals: int64(len(changes))})
		return nil
	}
	contacts := make([]lockstep.ContactID, len(changes))
	s.mu.Lock()
	for i := range changes {
		contacts[i] = changes[i].Contact
		for _, m := range s.sameContact(l, &changes[i]) {
			m.Undone = true // whether the call arrives or not: they are not put back
			l.put(m)
		}
	}
	s.owe(l)
	members := s.takePending()
	s.mu.Unlock()
	if err := s.commit(lockstep.Commit{Members: members}); err != nil {
		return err
	}
	s.e.step("remove.before")
	job, err := s.platform.RemoveFromBook(s.ctx, l.book.ID, contacts)
	switch {
	case err == nil:
		s.e.step("remove.after")
		if err := s.e.Store.MarkSent(s.ctx, id, job); err != nil {
			return err
		}
		if err := s.awaitRemoval(job); err != nil {
			return err
		}
		s.e.step("removed.after")
	case lockstep.CodeOf(err) == lockstep.CodeNotFound: // without the book nobody is in it
	default:
		return err
	}
	for i := range changes {
		changes[i].State = lockstep.Acknowledged
		if err := s.leftBook(u, &changes[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	members = s.takePending()
	s.mu.Unlock()
	s.count(lockstep.Counts{BookRemovals: int64(len(changes))})
	return s.commit(lockstep.Commit{Members: members, Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}})
}

// awaitRemoval waits until a removal has ended, or the slice.
func (s *session) awaitRemoval(job lockstep.JobID) error {
	ctx, stop := s.within(0)
	defer stop()
	err := s.platform.AwaitRemoval(ctx, job)
	if err != nil && ctx.Err() != nil && s.ctx.Err() == nil {
		return errYield
	}
	return err
}

// sameContact returns the members of a list, of all records, that a change of one
// contact's place in the book is about. The caller holds s.mu.
func (s *session) sameContact(l *listState, c *lockstep.Change) []crosswalk.Member {
	var out []crosswalk.Member
	if c.Ref.Table == "" {
		if m, ok := l.members.Stranger(c.Contact); ok {
			out = append(out, m)
		}
		return out
	}
	if m, ok := l.members.Record(c.Ref.ID); ok {
		out = append(out, m)
	}
	for _, k := range s.sync.links.ByContact(c.Contact, nil) {
		if k.Ref.Table != l.set.MemberTable || k.Ref == c.Ref {
			continue
		}
		if m, ok := l.members.Record(k.Ref.ID); ok && m.Contact == c.Contact {
			out = append(out, m)
		}
	}
	return out
}

// leftBook notes that an undo took a contact out of a book.
func (s *session) leftBook(u *undoing, c *lockstep.Change) error {
	l := u.books[c.Book]
	if l == nil {
		return nil
	}
	if err := s.loadMembers(l); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.sameContact(l, c) {
		m.InBook, m.Former, m.Undone, m.Excluded = false, false, m.InList, m.InList
		l.put(m)
	}
	s.owe(l)
	return nil
}

// backInBook notes that an undo put a contact back into a book.
func (s *session) backInBook(l *listState, ref lockstep.Ref, contact lockstep.ContactID) error {
	m, err := s.member(l, ref, contact)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Contact, m.InBook, m.Undone, m.Excluded = contact, true, !m.InList, false
	l.put(m)
	s.owe(l)
	return nil
}

func (s *session) backInBooks(u *undoing, c *lockstep.Change) error {
	for _, b := range c.Books {
		if l := u.books[b]; l != nil {
			if err := s.backInBook(l, c.Ref, c.Contact); err != nil {
				return err
			}
		}
	}
	return nil
}

// undoListMembers takes records off a marketing list, or puts them back.
func (s *session) undoListMembers(l *listState, changes []lockstep.Change, join bool) error {
	if len(changes) == 0 {
		return nil
	}
	ids := make([]lockstep.ID, len(changes))
	for i := range changes {
		ids[i] = changes[i].Ref.ID
	}
	refused := map[int]bool{}
	err := s.callRecords(changes, func() ([]*lockstep.Error, error) {
		if join {
			return s.crm.AddMembers(s.ctx, l.set.CRMID, l.set.MemberTable, ids)
		}
		return s.crm.RemoveMembers(s.ctx, l.set.CRMID, ids)
	}, func(i int, e *lockstep.Error) {
		refused[i] = true
		s.finding(lockstep.Finding{
			Code: lockstep.FindingRejected, Table: changes[i].Ref.Table, Record: changes[i].Ref.ID, Contact: changes[i].Contact, List: l.set.ID,
			Message: "the CRM refused the change of the marketing list: " + e.Msg, Hint: e.Hint,
		})
	}, func(ok int64) lockstep.Counts {
		if join {
			return lockstep.Counts{ListAdds: ok}
		}
		return lockstep.Counts{ListRemovals: ok}
	})
	if err != nil || s.dry() {
		return err
	}
	for i := range changes {
		if refused[i] {
			continue
		}
		m, err := s.member(l, changes[i].Ref, changes[i].Contact)
		if err != nil {
			return err
		}
		m.Contact = changes[i].Contact
		if m.InList = join; join {
			m.Undone, m.Former = !m.InBook, false
			m.Excluded = m.Undone
		} else {
			m.Undone, m.Former, m.Excluded = m.InBook, m.InBook, false
		}
		s.mu.Lock()
		l.put(m)
		s.owe(l)
		s.mu.Unlock()
	}
	s.mu.Lock()
	members := s.takePending()
	s.mu.Unlock()
	return s.commit(lockstep.Commit{Members: members})
}
