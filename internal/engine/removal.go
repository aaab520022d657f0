package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
)

// removeFromBooks takes people out of address books: members that left the list or
// became excluded, and strangers where the list says so. After an incomplete read
// nobody is removed for being absent; what a record itself said, such as an opt-out,
// counts all the same.
func (s *session) removeFromBooks() error {
	for _, l := range s.sync.lists {
		if l.failed {
			continue
		}
		if s.sync.incomplete == "" {
			if err := s.collectRemovals(l); err != nil {
				return err
			}
		}
		s.spare(l)
		if err := s.checkSight(l); err != nil {
			return err
		}
		l.removals = grouped(l.removals)
		s.guardRemovals(l)
	}
	for _, l := range s.sync.lists {
		if l.failed || len(l.removals) == 0 {
			continue
		}
		s.stage("removing from %s", l)
		if err := s.removeAll(l); err != nil {
			return err
		}
	}
	return nil
}

// checkSight makes sure that who left a dynamic list can be seen: a query leaves out whom
// the application user may not read. A feed that tells of deleted records has shown that
// it may read all of its table.
func (s *session) checkSight(l *listState) error {
	reader, can := s.crm.(lockstep.KeyReader)
	if !can || !l.set.Dynamic || s.sync.plans[l.set.MemberTable] == nil {
		return nil
	}
	feed, err := s.e.Store.Cursor(s.ctx, s.account.ID, s.sync.plans[l.set.MemberTable].cursor)
	if err != nil || reader.TellsDeleted(feed) {
		return err
	}
	var left []lockstep.ID
	for _, r := range l.removals {
		if !r.member.Record.IsZero() {
			left = append(left, r.member.Record)
		}
	}
	for some := range slices.Chunk(left, latecomerChunk) {
		if _, err := s.ended(l.set.MemberTable, some); err != nil {
			return err
		}
	}
	return nil
}

// collectRemovals decides about everybody in the list's book who is not in the list.
func (s *session) collectRemovals(l *listState) error {
	strangersMatter := l.sum.Strangers > 0 || l.newStrangers
	mayRemoveStrangers := l.set.Dynamic || l.set.MembershipAction == lockstep.ActionRemove
	if !l.fresh && !l.touched && !(strangersMatter && mayRemoveStrangers) {
		return nil
	}
	if err := s.loadMembers(l); err != nil {
		return err
	}
	var quiet []crosswalk.Member
	s.mu.Lock()
	people := l.members.All()
	if l.observed != nil {
		people = l.members.Outside(l.observed)
	}
	for m := range people {
		stranger := m.Record.IsZero()
		inList := !stranger && l.has(m.Record)
		if inList && m.InList && m.InBook && m.Excluded {
			// Was to leave the book when an earlier process ended.
			why := whyExcluded
			if m.Lapsed {
				why = whyLapsed
			}
			l.removals = append(l.removals, removal{member: m, why: why})
			continue
		}
		if inList || !stranger && !l.fresh && m.InList {
			continue
		}
		out := merge.Membership(merge.MembershipInput{
			Dynamic: l.set.Dynamic, Action: l.set.MembershipAction, MirrorRemovals: l.set.MirrorRemovals,
			WasInList: m.InList || m.Former, InBook: m.InBook, WasInBook: m.InBook,
			FirstSeen: stranger && m.FirstSeen == s.cycle(), Unsubscribed: m.Unsubscribed, Standing: lockstep.Subscribed, Kept: m.Undone && !m.InList,
		})
		switch {
		case out.Op == merge.RemoveFromBook && s.elsewhere(l, m):
			m.InList, m.InBook, m.Undone = false, false, false // another record keeps the contact in the book
			quiet = append(quiet, m)
			for _, k := range s.sync.links.ByContact(m.Contact, nil) {
				s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: k}) // and may have to speak for it
			}
		case out.Op == merge.RemoveFromBook:
			m.InList, m.Undone = false, false
			l.removals = append(l.removals, removal{member: m, why: out.Why})
		case m.InList:
			m.InList, m.Former, m.Undone = false, m.InBook, false
			quiet = append(quiet, m)
		}
	}
	if !s.dry() {
		for _, m := range quiet {
			l.put(m)
		}
	}
	s.mu.Unlock()
	return nil
}

// spare takes back removals of contacts that their record left, or whose record has
// another address by now, where another one shares them that is in the list, or took them
// over since and brought them into the book.
func (s *session) spare(l *listState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.removals = slices.DeleteFunc(l.removals, func(r removal) bool {
		if r.why != whyMoved && r.why != whyAddress && r.why != whyLapsed {
			return false
		}
		kept := slices.ContainsFunc(s.sync.links.ByContact(r.member.Contact, nil), func(k crosswalk.Link) bool {
			m, ok := l.members.Record(k.Ref.ID)
			return ok && k.Ref.ID != r.member.Record && k.Ref.Table == l.set.MemberTable && m.Contact == k.Contact && m.InList && m.InBook && !m.Excluded
		})
		if r.why == whyMoved && !kept {
			kept = s.elsewhere(l, r.member)
		}
		if !kept || s.dry() {
			return kept
		}
		if m, ok := l.members.Record(r.member.Record); ok && m.InBook && m.Excluded {
			m.InBook = false
			l.put(m)
		}
		if _, met := l.members.Stranger(r.member.Contact); met && r.why == whyMoved {
			l.put(crosswalk.Member{Contact: r.member.Contact}) // whoever shares it is in the list
		}
		return true
	})
}

// elsewhere reports whether another record of the same contact is in the list, which is
// not about to leave the contact itself. The caller holds s.mu.
func (s *session) elsewhere(l *listState, m crosswalk.Member) bool {
	if m.Contact == "" {
		return false
	}
	return slices.ContainsFunc(s.sync.links.ByContact(m.Contact, nil), func(k crosswalk.Link) bool {
		o, ok := l.members.Record(k.Ref.ID)
		return k.Ref.Table == l.set.MemberTable && k.Ref.ID != m.Record && l.has(k.Ref.ID) && s.sync.parted[k.Ref] != m.Contact && !(ok && o.Excluded && o.Contact == m.Contact)
	})
}

// removeAll carries out a list's removals, as many at a time as the platform takes.
func (s *session) removeAll(l *listState) error {
	todo := l.removals
	l.removals = nil
	slices.SortFunc(todo, func(a, b removal) int { return cmp.Compare(a.member.Contact, b.member.Contact) })
	for len(todo) > 0 {
		n := min(len(todo), s.platform.MaxRemove())
		if err := s.removeSome(l, todo[:n]); err != nil {
			return err
		}
		todo = todo[n:]
		if err := s.checkpoint(); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) removeSome(l *listState, todo []removal) error {
	changes := make([]lockstep.Change, 0, len(todo))
	for _, r := range todo {
		c := lockstep.Change{Kind: lockstep.RemoveFromBook, State: lockstep.Planned, Contact: r.member.Contact, List: l.set.CRMID, Book: l.book.ID, Why: r.why}
		if !r.member.Record.IsZero() {
			c.Ref = lockstep.Ref{Table: l.set.MemberTable, ID: r.member.Record}
		}
		changes = append(changes, c)
	}
	if changes = s.permitted(changes); len(changes) == 0 {
		return nil
	}
	if !s.verified && !s.dry() {
		if err := s.verify(); err != nil {
			return err
		}
	}
	id, err := s.plan(lockstep.RemoveFromBook, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	if s.dry() {
		s.count(lockstep.Counts{BookRemovals: int64(len(changes))})
		return s.commit(lockstep.Commit{})
	}
	ids := make([]lockstep.ContactID, len(changes))
	for i := range changes {
		ids[i] = changes[i].Contact
	}
	s.e.step("remove.before")
	job, err := s.platform.RemoveFromBook(s.ctx, l.book.ID, ids)
	if err != nil {
		return err
	}
	s.e.step("remove.after")
	if err := s.e.Store.MarkSent(s.ctx, id, job); err != nil {
		return err
	}
	ctx, stop := s.within(0)
	defer stop()
	if err := s.platform.AwaitRemoval(ctx, job); err != nil {
		if ctx.Err() != nil && s.ctx.Err() == nil {
			return errYield
		}
		return err
	}
	s.e.step("removed.after")
	permitted := map[lockstep.ContactID]bool{}
	for i := range changes {
		changes[i].State = lockstep.Acknowledged
		permitted[changes[i].Contact] = true
	}
	s.mu.Lock()
	for _, r := range todo {
		if !permitted[r.member.Contact] {
			continue
		}
		for _, m := range slices.Concat(r.also, []crosswalk.Member{r.member}) {
			m.InBook, m.Former = false, false
			l.put(m)
		}
		if _, met := l.members.Stranger(r.member.Contact); met && !r.member.Record.IsZero() {
			// Met once its record had ended, and gone from the book with it: to be a
			// stranger still would have the next run admit whom a user deleted.
			l.put(crosswalk.Member{Contact: r.member.Contact})
		}
	}
	members := s.takePending()
	s.mu.Unlock()
	s.count(lockstep.Counts{BookRemovals: int64(len(changes))})
	return s.commit(lockstep.Commit{Members: members, Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}})
}

// strangers sees to people who are in a book and not in its list, where the list's
// membership action lets them into the CRM.
func (s *session) strangers() error {
	for _, l := range s.sync.lists {
		if l.failed || l.set.Dynamic {
			continue
		}
		if err := s.checkDrift(l); err != nil {
			return err
		}
		switch l.set.MembershipAction {
		case lockstep.ActionAllowKnown, lockstep.ActionCreateLead, lockstep.ActionCreateContact:
		default:
			continue
		}
		if l.sum.Strangers == 0 && !l.newStrangers {
			continue
		}
		if err := s.admit(l); err != nil {
			return err
		}
	}
	for _, l := range s.sync.lists {
		if l.set.Dynamic && !l.failed {
			if err := s.checkDrift(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkDrift reads an address book in full when its counter is not what our own
// record of it explains.
func (s *session) checkDrift(l *listState) error {
	if l.renewed || isNew(l.book.ID) || l.book.Members == l.sum.Book && !l.sum.FullAt.IsZero() && l.sum.Rules == l.rules() {
		return nil
	}
	if l.book.Members == 0 && l.sum.InBook == 0 && l.sum.Strangers == 0 || l.checked && l.book.Members == l.sum.Book {
		l.checked = true
		return nil
	}
	l.checked = true
	if err := s.loadMembers(l); err != nil {
		return err
	}
	s.stage("reading the members of address book %s", l)
	there := map[lockstep.ContactID]bool{}
	err := s.whole(func() error {
		_, err := s.platform.Contacts(s.ctx, lockstep.ContactQuery{Book: l.book.ID, Memberships: true}, func(page []lockstep.Contact) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range page {
				there[page[i].ID] = true
				s.strange(&page[i], s.sync.links.ByContact(page[i].ID, nil), nil)
			}
			return s.ctx.Err()
		})
		return err
	})
	if err != nil {
		return err
	}
	if len(there) == 0 && l.members.InBook() > knownEnough {
		s.finding(l.finding(lockstep.FindingIncomplete, fmt.Sprintf("the platform answered that the address book is empty; it had %d members at the last sync", l.members.InBook()),
			"nothing was changed for this list. If the book was emptied on purpose, deactivate the list and activate it again"))
		l.failed = true
		return nil
	}
	s.miscounted(l, len(there))
	var left []crosswalk.Member
	s.mu.Lock()
	for m := range l.members.All() {
		if m.InBook && !there[m.Contact] {
			left = append(left, m)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(left, func(a, b crosswalk.Member) int { return cmp.Compare(a.Contact, b.Contact) })
	return s.lost(l, left)
}

// miscounted compares the platform's counter with what was read. A difference may come
// from somebody who joined between the two; one that is there again the next time is
// told, and believed from then on, because the book would be read in every run.
func (s *session) miscounted(l *listState, read int) {
	apart := l.book.Members - read
	l.sum.Believed = apart != 0 && apart == l.sum.Apart
	l.sum.Apart = apart
	if l.sum.Believed {
		s.finding(l.finding(lockstep.FindingMiscount, fmt.Sprintf("the platform counts %d contacts in the address book, %d of them can be read", l.book.Members, read),
			"everybody who can be read is kept in step. If the difference is not explained by contacts that the platform is about to delete, ask the platform's support which they are"))
	}
}

// lost sees to members who are no longer in the book: one who was taken out by hand
// is added again, unless it left by unsubscribing; one whose contact was deleted is
// not, because adding would bring the contact back.
func (s *session) lost(l *listState, left []crosswalk.Member) error {
	if len(left) == 0 {
		return nil
	}
	if err := s.findDeleted(left); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range left {
		m.Former = false // who comes again comes as anybody would
		m.InBook, m.Excluded = false, false
		if s.dry() {
			l.members.Set(m)
		} else {
			l.put(m)
		}
	}
	l.touched = true
	s.owe(l)
	switch {
	case l.observed != nil:
	case l.set.Dynamic:
		l.sum.Dirty = true // looked at in the next run, which evaluates the query
	default:
		now := &crosswalk.Observed{} // nothing moved in the CRM: the members are those of the last run
		for m := range l.members.All() {
			if m.InList {
				now.Add(m.Record)
			}
		}
		now.Seal()
		l.observed, l.fresh = now, true
	}
	return nil
}

// askEach is the number of contacts up to which each is asked for by itself; for
// more of them reading the whole account costs less.
const askEach = 20

// findDeleted finds out which of these members' contacts do not exist any more, or have
// another address than was read, and notes it in their links. The platform's feed does not
// tell about deletions.
func (s *session) findDeleted(members []crosswalk.Member) error {
	var links []crosswalk.Link
	s.mu.Lock()
	for _, m := range members {
		for _, k := range s.sync.links.ByContact(m.Contact, nil) {
			if k.Ref.Table != "" {
				links = append(links, k)
			}
		}
	}
	s.mu.Unlock()
	entries, err := s.entries(links)
	if err != nil {
		return err
	}
	wanted, addresses := map[lockstep.ContactID]bool{}, map[lockstep.ContactID]string{}
	for _, e := range entries {
		wanted[e.Contact] = true
	}
	found := func(c *lockstep.Contact) {
		if wanted[c.ID] && c.Standing != lockstep.ContactDeleted {
			addresses[c.ID] = lockstep.NormalizeEmail(c.Email)
		}
	}
	if len(entries) > askEach {
		s.stage("looking for contacts that were deleted")
		err := s.whole(func() error {
			_, err := s.platform.Contacts(s.ctx, lockstep.ContactQuery{}, func(page []lockstep.Contact) error {
				for i := range page {
					found(&page[i])
				}
				return s.ctx.Err()
			})
			return err
		})
		if err != nil {
			return err
		}
	} else {
		for _, e := range entries {
			c, err := s.platform.ContactByID(s.ctx, e.Contact, nil)
			if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
				return err
			}
			if err == nil {
				found(&c)
			}
		}
	}
	out := newLinkChunks(s.sync.bases)
	for _, e := range entries {
		switch email, exists := addresses[e.Contact]; {
		case !exists:
			s.noteGone(e.Contact)
			e.Standing, e.Hash = lockstep.ContactDeleted, [16]byte{}
			out.add(e)
		case email != e.Email:
			// It got another address since this run read the platform's changes, and what
			// that address is closed to counts: whoever adds it again asks for it first.
			s.sync.readdressed[e.Contact] = true
			e.Seen = 0
			out.add(e)
		}
	}
	payloads := out.payloads()
	if s.dry() || len(payloads) == 0 {
		return nil
	}
	return s.commit(lockstep.Commit{Links: payloads})
}

func isNew(b lockstep.BookID) bool {
	return len(b) >= len(newBookPrefix) && string(b[:len(newBookPrefix)]) == newBookPrefix
}

// admit adds the strangers of one list to it: the record with their address, or
// where the list says so a new one.
func (s *session) admit(l *listState) error {
	if err := s.loadMembers(l); err != nil {
		return err
	}
	if l.crm.Locked || l.crm.Inactive {
		s.finding(l.finding(lockstep.FindingListUnusable, "the marketing list is locked or inactive, so nobody can be added to it", "unlock or reactivate it"))
		return nil
	}
	var links []crosswalk.Link
	s.mu.Lock()
	ours := l.leaving()
	for m := range l.members.All() { // a former one's record has another contact now; to admit it would have whoever comes to its address join
		if m.Record.IsZero() && m.InBook && !m.Unsubscribed && !m.Former && !ours[m.Contact] {
			for _, k := range s.sync.links.ByContact(m.Contact, nil) {
				if k.Ref.Table == "" || k.Ref.Table == l.set.MemberTable {
					links = append(links, k)
					break
				}
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(links, func(a, b crosswalk.Link) int { return slices.Compare(a.Ref.ID[:], b.Ref.ID[:]) })
	for len(links) > 0 {
		n := min(len(links), 500)
		entries, err := s.entries(links[:n])
		if err != nil {
			return err
		}
		if err := s.admitSome(l, entries); err != nil {
			return err
		}
		links = links[n:]
		if err := s.checkpoint(); err != nil {
			return err
		}
	}
	return nil
}

// leaving are the strangers whom a member brought into the book: its record is gone, or
// has another contact now, and they leave with it. To admit them would make again what
// a user deleted. The caller holds s.mu.
func (l *listState) leaving() map[lockstep.ContactID]bool {
	out := map[lockstep.ContactID]bool{}
	for m := range l.members.All() {
		if m.Record.IsZero() && m.InBook {
			out[m.Contact] = false
		}
	}
	for m := range l.members.All() {
		if _, stranger := out[m.Contact]; stranger && !m.Record.IsZero() && m.InBook {
			out[m.Contact] = true
		}
	}
	return out
}

// candidate is a stranger with the records that have its address.
type candidate struct {
	entry   crosswalk.Entry
	matches []lockstep.Record
}

func (s *session) admitSome(l *listState, entries []crosswalk.Entry) error {
	plan := s.sync.plans[l.set.MemberTable]
	byEmail := map[string]*candidate{}
	var emails []string
	for _, e := range entries {
		if lockstep.CheckEmail(e.Email) == "" && byEmail[e.Email] == nil {
			byEmail[e.Email] = &candidate{entry: e}
			emails = append(emails, e.Email)
		}
	}
	if len(emails) == 0 {
		return nil
	}
	slices.Sort(emails)
	s.stage("looking for strangers of %s", l)
	err := s.crm.FindByEmail(s.ctx, plan.query, emails, func(recs []lockstep.Record) error {
		for _, r := range recs {
			if c := byEmail[lockstep.NormalizeEmail(r.Email)]; c != nil && !r.Inactive {
				c.matches = append(c.matches, r)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var add []admission
	for _, email := range emails {
		c := byEmail[email]
		in := merge.MembershipInput{
			Action: l.set.MembershipAction, MirrorRemovals: l.set.MirrorRemovals, InBook: true, WasInBook: true,
			Standing: c.entry.Standing, Matches: len(c.matches), CreateLeft: s.createCap() - s.sync.creates,
		}
		best, cands := 0, make([]merge.Candidate, len(c.matches))
		for i, r := range c.matches {
			in.MatchInList = in.MatchInList || l.has(r.ID)
			in.MatchOptOut |= r.OptOut
			cands[i] = merge.Candidate{Ref: r.Ref, Member: l.has(r.ID), Modified: -r.Created.Unix()} // the oldest
		}
		if len(cands) > 0 {
			best = merge.Best(cands)
		}
		out := merge.Membership(in)
		if out.Finding != "" {
			f := lockstep.Finding{Code: out.Finding, Contact: c.entry.Contact, List: l.set.ID, Message: out.Why}
			if len(c.matches) > 0 {
				f.Table, f.Record = plan.table, c.matches[best].ID
			}
			s.finding(f)
		}
		switch out.Op {
		case merge.AddToList:
			add = append(add, admission{c: c, rec: c.matches[best], why: out.Why})
		case merge.CreateRecord:
			s.sync.creates++
			add = append(add, admission{c: c, create: true, why: out.Why})
		}
	}
	return s.admitAll(l, plan, add)
}

type admission struct {
	c      *candidate
	rec    lockstep.Record
	create bool
	why    string
}

func (s *session) createCap() int {
	if s.account.CreateCap > 0 {
		return s.account.CreateCap
	}
	return lockstep.DefaultCreateCap
}

// admitAll creates the records that have to be created, adds all to the list, and
// links each to the contact it came from.
func (s *session) admitAll(l *listState, plan *tablePlan, add []admission) error {
	var creates []lockstep.Change
	var rows []lockstep.RecordWrite
	for i := range add {
		a := &add[i]
		if !a.create {
			continue
		}
		// The id follows from the contact: creating again creates the same record.
		id := lockstep.NameID(l.set.CRMID, "stranger/"+s.account.ID+"/"+string(a.c.entry.Contact))
		a.rec.Ref = lockstep.Ref{Table: plan.table, ID: id}
		w := lockstep.RecordWrite{ID: id, Create: true, Fields: s.newRecord(plan, a.c.entry)}
		c := lockstep.Change{Kind: lockstep.CreateRecord, State: lockstep.Planned, Ref: a.rec.Ref, Contact: a.c.entry.Contact, List: l.set.CRMID, Why: a.why}
		for _, f := range w.Fields {
			c.Fields = append(c.Fields, lockstep.FieldChange{Name: f.Column, New: f.Value})
		}
		if len(s.permitted([]lockstep.Change{c})) == 0 {
			a.why = ""
			continue
		}
		creates, rows = append(creates, c), append(rows, w)
	}
	refused := map[lockstep.ID]bool{}
	if len(creates) > 0 {
		err := s.callRecords(creates, func() ([]*lockstep.Error, error) { return s.crm.WriteRecords(s.ctx, plan.table, rows) }, func(i int, e *lockstep.Error) {
			refused[creates[i].Ref.ID] = true
			s.finding(lockstep.Finding{
				Code: lockstep.FindingRejected, Table: plan.table, Record: creates[i].Ref.ID, Contact: creates[i].Contact, List: l.set.ID, Field: e.Field,
				Message: "the CRM refused the new record: " + e.Msg, Hint: e.Hint,
			})
		}, func(ok int64) lockstep.Counts { return lockstep.Counts{RecordsCreated: ok} })
		if err != nil {
			return err
		}
	}
	var joins []lockstep.Change
	var ids []lockstep.ID
	for _, a := range add {
		if a.why == "" || refused[a.rec.ID] {
			continue
		}
		c := lockstep.Change{Kind: lockstep.AddToList, State: lockstep.Planned, Ref: lockstep.Ref{Table: plan.table, ID: a.rec.ID}, Contact: a.c.entry.Contact, List: l.set.CRMID, Why: a.why}
		if len(s.permitted([]lockstep.Change{c})) == 0 {
			continue
		}
		joins, ids = append(joins, c), append(ids, a.rec.ID)
	}
	if len(joins) == 0 {
		return nil
	}
	err := s.callRecords(joins, func() ([]*lockstep.Error, error) { return s.crm.AddMembers(s.ctx, l.set.CRMID, plan.table, ids) }, func(i int, e *lockstep.Error) {
		refused[joins[i].Ref.ID] = true
		s.finding(lockstep.Finding{
			Code: lockstep.FindingRejected, Table: plan.table, Record: joins[i].Ref.ID, Contact: joins[i].Contact, List: l.set.ID,
			Message: "the CRM refused the list member: " + e.Msg, Hint: e.Hint,
		})
	}, func(ok int64) lockstep.Counts { return lockstep.Counts{ListAdds: ok} })
	if err != nil {
		return err
	}
	now := &crosswalk.Observed{}
	for m := range l.members.All() {
		if l.observed == nil && m.InList {
			now.Add(m.Record)
		}
	}
	if l.observed != nil {
		for id := range l.observed.All() {
			now.Add(id)
		}
	}
	note := l.put
	if s.dry() {
		note = l.members.Set
		// A record that a preview would create cannot be read, so the preview does not
		// tell what its contact would be given.
		for _, c := range creates {
			refused[c.Ref.ID] = true
		}
	}
	joined := ids[:0]
	s.mu.Lock()
	for i, id := range ids {
		if !refused[id] {
			now.Add(id)
			if left, leaves := leavesBehind(l, id, joins[i].Contact); leaves {
				note(left)
			}
			note(crosswalk.Member{Contact: joins[i].Contact}) // no stranger any more
			note(crosswalk.Member{Record: id, Contact: joins[i].Contact, InBook: true})
			l.admitted++
			joined = append(joined, id)
		}
	}
	s.mu.Unlock()
	now.Seal()
	l.observed, l.fresh, l.touched = now, true, true
	if len(joined) == 0 {
		return nil
	}
	// Linking is the same as for any member that the platform knows already.
	return s.crm.Records(s.ctx, plan.query, joined, func(recs []lockstep.Record) error { return s.mergePage(plan.table, recs, nil) })
}

// newRecord are the columns of a record made for a stranger: the mapped inward
// fields, the address, and a last name, which people expect a record to have.
func (s *session) newRecord(plan *tablePlan, e crosswalk.Entry) []lockstep.ColumnValue {
	out := []lockstep.ColumnValue{{Column: lockstep.EmailColumn, Value: lockstep.TextValue(e.Email)}}
	named := false
	for i, pos := range plan.pos {
		if v := e.Base[pos]; plan.rules[i].In.Mapped && !v.IsAbsent() && !v.IsNull() {
			ref := placeholder(e.Contact)
			if cv, ok := plan.t.In(i, v, s.report(ref, e.Contact)); ok {
				col := plan.t.Fields()[i].Column()
				named = named || col == lastNameColumn
				out = append(out, lockstep.ColumnValue{Column: col, Value: cv})
			}
		}
	}
	if !named {
		local := e.Email
		for i := range local {
			if local[i] == '@' {
				local = local[:i]
				break
			}
		}
		out = append(out, lockstep.ColumnValue{Column: lastNameColumn, Value: lockstep.TextValue(local)})
	}
	return out
}

// lastNameColumn names a person in the CRM's tables of people.
const lastNameColumn = "lastname"

// callRecords journals changes that travel in one call, makes it and stores each
// one's outcome.
func (s *session) callRecords(changes []lockstep.Change, call func() ([]*lockstep.Error, error), refused func(i int, e *lockstep.Error), counts func(ok int64) lockstep.Counts) error {
	id, err := s.plan(changes[0].Kind, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	if s.dry() {
		s.count(counts(int64(len(changes))))
		return s.commit(lockstep.Commit{})
	}
	s.e.step(changes[0].Kind.String() + ".before")
	results, err := call()
	if err != nil {
		return err
	}
	s.e.step(changes[0].Kind.String() + ".after")
	var ok int64
	for i := range changes {
		changes[i].State = lockstep.Acknowledged
		if e := results[i]; e != nil {
			changes[i].State, changes[i].Cause = lockstep.Refused, e.Msg
			refused(i, e)
			continue
		}
		ok++
	}
	s.count(counts(ok))
	return s.commit(lockstep.Commit{Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}})
}
