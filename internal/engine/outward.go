package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// latecomerChunk is how many records are read by their ids at a time.
const latecomerChunk = 5000

// outward reads what changed in the CRM, table by table in the order of priority,
// and carries it to the platform.
func (s *session) outward() error {
	s.sync.unread = false
	if err := s.askUnread(); err != nil {
		return err
	}
	for _, table := range s.tablesInOrder() {
		if err := s.readTable(table); err != nil {
			return err
		}
		if err := s.sync.writer.drain(); err != nil {
			return err
		}
		if err := s.sweepDeleted(table); err != nil {
			return err
		}
	}
	return nil
}

// tablesInOrder are the tables of this run's lists, the ones that speak for a
// shared address first.
func (s *session) tablesInOrder() []string {
	var out []string
	seen := map[string]bool{}
	for _, list := range [][]string{s.account.Priority, MemberTables} {
		for _, t := range list {
			if !seen[t] && len(s.sync.byTable[t]) > 0 {
				seen[t] = true
				out = append(out, t)
			}
		}
	}
	return out
}

// resumeCursor names the page at which a feed that did not come to its end goes on.
func resumeCursor(plan *tablePlan) string { return plan.cursor + "/page" }

func (s *session) readTable(table string) error {
	plan := s.sync.plans[table]
	resume := resumeCursor(plan)
	from, err := s.e.Store.Cursor(s.ctx, s.account.ID, plan.cursor)
	if err != nil {
		return err
	}
	full := from == ""
	page, err := s.e.Store.Cursor(s.ctx, s.account.ID, resume)
	if err != nil {
		return err
	}
	if full {
		s.stage("reading all records of %s", tableName(table))
	} else {
		s.stage("reading changes of %s", tableName(table))
	}
	_, goesOn := s.sync.feeds[table]
	counted := full && (page == "" || goesOn) // every record since the beginning
	start := from
	if page != "" {
		start = page // a slice or a process ended in the middle of the feed
	}
	// Only a feed that is read from the last run's end to its own names every record
	// that changed; a full one does not name those that were deleted.
	s.sync.changed[table] = &changedRecords{unknown: full || page != ""}
	var read int64
	if goesOn && page != "" {
		read = s.sync.feeds[table][len(s.sync.feeds[table])-1].read
	}
	delta := from != "" && page == ""
	unnamed := s.othersDependOn(table, full)
	next, err := s.crm.Changes(s.ctx, plan.query, start, func(pg lockstep.RecordPage) error {
		if delta {
			s.sync.history.seen()
		}
		if delta && read == 0 {
			if err := s.massChange(table, plan, pg); err != nil {
				return err
			}
		}
		read += int64(len(pg.Records))
		for i := range pg.Records {
			delete(unnamed, pg.Records[i].ID)
		}
		s.stirred(table, pg.Records)
		if err := s.mergePage(table, pg.Records, nil); err != nil {
			return err
		}
		if err := s.keepMarks(); err != nil {
			return err
		}
		if pg.Resume != "" && !s.dry() {
			s.sync.writer.at(resume, pg.Resume)
			if counted {
				s.sync.feeds[table] = append(s.sync.feeds[table], feedRead{pg.Resume, read})
			}
		}
		if err := s.checkpoint(); err != nil {
			if ferr := s.sync.writer.flush(); ferr != nil {
				return ferr
			}
			return err
		}
		return s.cancelledNow()
	})
	if lockstep.CodeOf(err) == lockstep.CodeExpired {
		if errors.Is(err, lockstep.ErrSetBack) {
			err = s.setBack(countWentDown)
			s.sync.history.stop(err)
			return err
		}
		// The delta token is too old: everything is compared once, and nobody is
		// removed on the strength of it alone.
		s.stage("the change token has expired; comparing everything")
		if cerr := s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{plan.cursor: "", resume: ""}}); cerr != nil {
			return cerr
		}
		// What made the token useless, a restored backup for one, may have changed
		// records to times long past: who was in a list before is asked again.
		delete(s.sync.feeds, table)
		s.mu.Lock()
		for _, l := range s.sync.lists {
			if l.deciding != nil && l.set.MemberTable == table {
				l.deciding.all = crosswalk.Observed{}
			}
			if l.set.Dynamic && slices.Contains(l.tables, table) {
				l.again, l.part = l.again || l.observed != nil, nil
			}
		}
		s.mu.Unlock()
		if from != "" || page != "" {
			return s.readTable(table)
		}
	}
	if err != nil {
		return err
	}
	if counted {
		whole, err := s.complete(table, read)
		if err != nil {
			return err
		}
		s.decided(table, whole)
	}
	if s.dry() {
		return nil
	}
	if err := s.findEnded(table, unnamed); err != nil {
		return err
	}
	s.sync.writer.at(resume, "")
	s.sync.writer.at(plan.cursor, next)
	return nil
}

// othersDependOn are the records of a table that keep others out of the books, or share
// a contact with them. A full reading does not name those of them that were deleted.
func (s *session) othersDependOn(table string, full bool) map[lockstep.ID]bool {
	if !full || s.dry() {
		return nil
	}
	out := map[lockstep.ID]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sync.links.All() {
		if k.OptOut != 0 && k.Ref.Table == table {
			out[k.Ref.ID] = true
		}
	}
	for group := range s.sync.links.Shared() {
		for i := range group {
			if group[i].Ref.Table == table {
				out[group[i].Ref.ID] = true
			}
		}
	}
	return out
}

// findEnded asks for records that a full reading did not name and sees to those that do
// not exist any more, before the cursor says that the reading is done.
func (s *session) findEnded(table string, unnamed map[lockstep.ID]bool) error {
	if len(unnamed) == 0 {
		return nil
	}
	ids := slices.SortedFunc(maps.Keys(unnamed), func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
	s.stage("looking for records of %s that were deleted", tableName(table))
	for some := range slices.Chunk(ids, latecomerChunk) {
		ended, err := s.ended(table, some)
		if err != nil {
			return err
		}
		for _, id := range ended {
			s.gone(table, id, nil)
		}
	}
	return s.keepMarks()
}

// ended asks the CRM which of these records do not exist any more. An empty answer is no
// failure here: it is asked about few.
func (s *session) ended(table string, ids []lockstep.ID) (ended []lockstep.ID, err error) {
	there := make(map[lockstep.ID]bool, len(ids))
	err = s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table}, ids, func(recs []lockstep.Record) error {
		for i := range recs {
			there[recs[i].ID] = !recs[i].Deleted
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !there[id] {
			ended = append(ended, id)
		}
	}
	return s.provenGone(table, ended)
}

// provenGone leaves out of records that the CRM did not show those that it has. That the
// application user may not read one is an error: what else it may not read, nobody knows.
func (s *session) provenGone(table string, unseen []lockstep.ID) ([]lockstep.ID, error) {
	teller, can := s.crm.(lockstep.GoneTeller)
	if !can || len(unseen) == 0 {
		return unseen, nil
	}
	return teller.Gone(s.ctx, table, unseen)
}

// complete compares a full read with the table's own count: a read that ended
// early is never taken as "the rest was deleted". whole says that as many were read as
// there are.
func (s *session) complete(table string, read int64) (whole bool, err error) {
	count, err := s.crm.CountRecords(s.ctx, table)
	if err != nil {
		if lockstep.CodeOf(err) == lockstep.CodeUnsupported {
			return false, nil
		}
		return false, err
	}
	short := count - read
	if short > 50 || short > 0 && short*1000 > count {
		s.sync.incomplete = fmt.Sprintf("%d of %d records of %s were read", read, count, table)
		s.finding(lockstep.Finding{
			Code: lockstep.FindingIncomplete, Table: table, Message: s.sync.incomplete,
			Hint: "nothing is removed in this run; if it happens again check the application user's rights on all records of the table",
		})
	}
	return short <= 0, nil
}

// cancelledNow asks for a person's wish to stop, once a page.
func (s *session) cancelledNow() error {
	if s.sync.pages++; s.sync.pages%4 != 0 {
		return nil
	}
	return s.cancelled()
}

// latecomers looks at people whom the feed did not bring although something has to
// be done about them: new members whose record did not change, and linked records
// that changed while no list of a run wanted them. What comes of that may concern
// others again, of tables that were looked at before.
func (s *session) latecomers() error {
	for round := range latecomerRounds {
		if err := s.lookLate(round > 0); err != nil {
			return err
		}
		if err := s.sync.writer.drain(); err != nil {
			return err
		}
	}
	return nil
}

// latecomerRounds is how often others are looked at in one run because of what came of
// somebody; who is left is marked for the next run.
const latecomerRounds = 3

// lookLate looks at latecomers once; concerned restricts it to those whom somebody else
// concerns.
func (s *session) lookLate(concerned bool) error {
	for _, table := range s.tablesInOrder() {
		var ids, again []lockstep.ID
		seen := map[lockstep.ID]bool{}
		want := func(id lockstep.ID) {
			if seen[id] {
				return
			}
			// A preview changes nothing, so what it looked at still looks undone, unless
			// a list was found to have the record only afterwards.
			if lists, looked := s.sync.looked[lockstep.Ref{Table: table, ID: id}]; looked {
				s.mu.Lock()
				now := len(s.scope(table, id))
				s.mu.Unlock()
				if now <= lists {
					return
				}
			}
			seen[id] = true
			ids = append(ids, id)
		}
		for _, l := range s.sync.byTable[table] {
			if concerned || l.failed || !l.fresh {
				continue
			}
			if l.ruled() {
				for id := range l.observed.All() {
					want(id)
				}
				continue
			}
			some := slices.Collect(l.members.Joined(l.observed))
			for id := range l.members.Waiting() {
				if l.observed.Has(id) {
					some = append(some, id)
				}
			}
			slices.SortFunc(some, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
			for _, id := range some {
				want(id)
			}
		}
		if !concerned {
			staleIDs, err := s.staleMembers(table)
			if err != nil {
				return err
			}
			for _, id := range staleIDs {
				want(id)
			}
			if err := s.tryAgain(table); err != nil {
				return err
			}
			for k := range s.sync.resolve {
				if k.ref.Table == table {
					want(k.ref.ID)
				}
			}
		}
		s.mu.Lock()
		for ref := range s.sync.recheck {
			if ref.Table == table && (!concerned || len(s.scope(table, ref.ID)) > 0) {
				again = append(again, ref.ID)
			}
		}
		s.mu.Unlock()
		for _, id := range again {
			want(id)
		}
		if len(ids) == 0 {
			continue
		}
		slices.SortFunc(ids, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		s.stage("looking at %d members of %s lists", len(ids), tableName(table))
		for len(ids) > 0 {
			n := min(len(ids), latecomerChunk)
			err := s.crm.Records(s.ctx, s.sync.plans[table].query, ids[:n], func(recs []lockstep.Record) error {
				return s.mergePage(table, recs, nil)
			})
			if err != nil {
				return err
			}
			ids = ids[n:]
			if err := s.checkpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

// stale marks a link whose record, or with platform whose contact, changed.
func (s *session) stale(l crosswalk.Link, platform bool) {
	if l.Hash64 != 0 || platform && l.Seen != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: l, platform: platform})
	}
}

// unwanted marks the link of a record that changed while no list of the run wanted it.
func (s *session) unwanted(l staleLink) {
	l.opened = l.opened && l.link.OptOut != 0
	if l.link.Hash64 != 0 || l.platform && l.link.Seen != 0 || l.opened || l.moved {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sync.staleLinks = append(s.sync.staleLinks, l)
	}
}

type staleLink struct {
	link     crosswalk.Link
	platform bool // the contact changed
	opened   bool // the record does not refuse to be mailed
	moved    bool // the record has an address that its contact was not given
	waits    bool // the record is looked at when it is tried again, and not before
}

// staleMembers are the records of this run's lists whose link is marked to be
// looked at again.
func (s *session) staleMembers(table string) ([]lockstep.ID, error) {
	var marked, out []lockstep.ID
	s.mu.Lock()
	for k := range s.sync.links.All() {
		if k.Hash64 == 0 && k.Ref.Table == table {
			marked = append(marked, k.Ref.ID)
		}
	}
	s.mu.Unlock()
	if len(marked) == 0 {
		return nil, nil
	}
	for _, l := range s.sync.byTable[table] {
		if err := s.loadMembers(l); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range marked {
		if len(s.scope(table, id)) > 0 {
			out = append(out, id)
		}
	}
	return out, nil
}

// gone sees to a record that was deleted: it leaves every book; the contact stays. now is
// the contact where it was read.
func (s *session) gone(table string, id lockstep.ID, now *lockstep.Contact) {
	s.leave(table, id)
	s.mu.Lock()
	l, ok := s.sync.links.ByRef(lockstep.Ref{Table: table, ID: id})
	s.mu.Unlock()
	s.movesOn(lockstep.Ref{Table: table, ID: id}, "")
	if ok && !s.dry() {
		s.sync.vacated[l.Ref] = ended
		s.withdraw(l)
		s.leaveBehind(leftBehind{link: l, deleted: true, now: now})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.recheckOthers(l.Ref, s.sync.links.ByContact(l.Contact, nil))
		s.sync.closeLinks = append(s.sync.closeLinks, l)
	}
}

// unlink ends a link.
func (s *session) unlink(l crosswalk.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync.closeLinks = append(s.sync.closeLinks, l)
}

// leave takes a record that is in none of this run's lists out of their books.
func (s *session) leave(table string, id lockstep.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sync.byTable[table] {
		if l.failed || l.members == nil {
			continue
		}
		if m, ok := l.members.Record(id); ok && m.InList && l.fresh && !l.observed.Has(id) {
			l.touched = true
		}
	}
}

// follow moves the link of a record that lost a merge to the surviving one, unless
// that one has a contact of its own. The loser itself has no contact from then on; what
// it says against mailing its address counts as before.
func (s *session) follow(table string, r *lockstep.Record) {
	if email := lockstep.NormalizeEmail(r.Email); r.OptOut != 0 && lockstep.CheckEmail(email) == "" {
		s.heardWord(email, r.Ref, r.OptOut) // from now on, whoever has the address is looked at first
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dry() {
		return
	}
	s.sync.vacated[r.Ref] = ended
	loser, ok := s.linkOf(r.Ref)
	if !ok {
		return
	}
	s.recheckOthers(loser.Ref, s.sync.links.ByContact(loser.Contact, nil))
	s.sync.mergers = append(s.sync.mergers, merger{loser: loser, survivor: lockstep.Ref{Table: table, ID: r.MergedInto}})
}

type merger struct {
	loser    crosswalk.Link
	survivor lockstep.Ref
}

// keepMarks stores what a page said about links before the cursor moves past the
// page: nothing would say it again.
func (s *session) keepMarks() error {
	if s.dry() || len(s.sync.staleLinks)+len(s.sync.closeLinks)+len(s.sync.mergers)+len(s.sync.leftBehind) == 0 {
		return nil
	}
	if err := s.sync.writer.drain(); err != nil {
		return err
	}
	return s.tidyLinks()
}

// tidyLinks stores what the feeds said about links apart from their content:
// changed while unwanted, deleted, merged.
func (s *session) tidyLinks() error {
	stale, closed, mergers := s.sync.staleLinks, s.sync.closeLinks, s.sync.mergers
	if len(stale)+len(closed)+len(mergers)+len(s.sync.leftBehind) == 0 {
		return nil
	}
	out := newLinkChunks(s.sync.bases)
	var load []crosswalk.Link
	s.mu.Lock()
	stale = slices.DeleteFunc(stale, func(l staleLink) bool { // looked at, or ended, since it was marked
		now, ok := s.sync.links.ByRef(l.link.Ref)
		return !ok || now.Where != l.link.Where
	})
	s.mu.Unlock()
	slices.SortStableFunc(stale, func(a, b staleLink) int { // any other mark counts for more
		switch {
		case a.waits == b.waits:
			return 0
		case a.waits:
			return -1
		}
		return 1
	})
	for _, l := range stale {
		load = append(load, l.link)
	}
	for _, m := range mergers {
		load = append(load, m.loser)
	}
	entries, err := s.entries(load)
	if err != nil {
		return err
	}
	for i := range stale {
		e := entries[i]
		e.Hash = [16]byte{}
		if stale[i].waits {
			e.Hash = [16]byte{1} // fits no content
		}
		if stale[i].platform {
			e.Seen = 0
		}
		if stale[i].opened {
			e.OptOut = 0
		}
		if stale[i].moved && e.Standing != lockstep.ContactDeleted {
			// By the time a list wants the record its contact may be gone; see disinherit.
			e.Seen, e.Modified = 0, 0
		}
		out.add(e)
	}
	followed, inherited := map[lockstep.Ref]bool{}, map[lockstep.ContactID]bool{}
	var handed []crosswalk.Entry
	for i, m := range mergers {
		s.mu.Lock()
		_, own := s.linkOf(m.loser.Ref) // else it is kept for what it refuses
		survivor, linked := s.sync.links.ByRef(m.survivor)
		linked = linked && (survivor.Contact != "" || forsaken(survivor)) // perhaps since the merge was noticed
		s.mu.Unlock()
		if own {
			closed = append(closed, m.loser)
		}
		if linked || followed[m.survivor] || s.sync.vacated[m.survivor] == ended { // or was merged itself, which may be heard first
			continue
		}
		followed[m.survivor], inherited[m.loser.Contact] = true, true
		// Whether the contact still exists is asked: no feed tells of those that are gone.
		e := entries[len(stale)+i]
		e.Ref, e.Hash, e.OptOut, e.Seen, e.Modified = m.survivor, [16]byte{}, 0, 0, 0
		handed = append(handed, e)
	}
	for _, m := range mergers {
		if !inherited[m.loser.Contact] {
			s.leaveBehind(leftBehind{link: m.loser, deleted: true})
		}
	}
	for _, l := range closed {
		out.add(crosswalk.Entry{Ref: l.Ref, Closed: true})
	}
	if err := s.keepLeftBehind(out, closed); err != nil {
		return err
	}
	for _, e := range handed {
		out.add(e)
	}
	if err := s.commit(lockstep.Commit{Links: out.payloads()}); err != nil {
		return err
	}
	s.sync.staleLinks, s.sync.closeLinks, s.sync.mergers = nil, nil, nil
	return nil
}

// entries reads the entries of links.
func (s *session) entries(links []crosswalk.Link) ([]crosswalk.Entry, error) {
	ranges := make([]lockstep.BlobRange, len(links))
	labels := make([][]string, len(links))
	s.mu.Lock()
	for i, l := range links {
		ranges[i] = l.Where
		labels[i] = s.sync.links.Labels(l.Where.Blob)
	}
	s.mu.Unlock()
	bodies, err := s.e.Store.LinkRanges(s.ctx, ranges)
	if err != nil {
		return nil, err
	}
	out := make([]crosswalk.Entry, len(links))
	for i := range links {
		if out[i], err = crosswalk.DecodeEntry(labels[i], bodies[i]); err != nil {
			return nil, err
		}
		out[i].Base, out[i].Apart = s.rebase(labels[i], out[i].Base), s.rebaseApart(labels[i], out[i].Apart)
	}
	return out, nil
}
