package engine

import (
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// resumption is what one slice of a run read and the next one need not read again:
// who is in each list, how far the feeds that decide it have come, and at which page an
// evaluation or a reading of ids was interrupted. It lives in the process that worked on the slice; another
// one reads the lists anew, which costs calls and nothing else.
type resumption struct {
	run   string
	lists map[string]*listState // by settings id, as the slice left them
	feeds map[string][]feedRead // by table, page after page

	sweeps map[string]*sweep // by table

	incomplete string
}

// feedRead is how much of a first reading of a table was read up to a page.
type feedRead struct {
	page lockstep.Cursor
	read int64
}

// hand leaves to the run's next slice what this one knows of its lists: with whole, all
// of it, which takes that nothing it did to them is half done; else, and from a preview,
// which begins at the beginning, the evaluations that were interrupted.
func (s *session) hand(whole bool) {
	whole = whole && !s.dry()
	r := &resumption{run: s.run.ID, lists: map[string]*listState{}, sweeps: s.sync.sweeps}
	if whole {
		r.feeds, r.incomplete = s.sync.feeds, s.sync.incomplete
	}
	for _, l := range s.sync.lists {
		switch {
		case l.failed:
			continue
		case !whole || l.observed == nil && l.deciding == nil:
			if l.part != nil {
				r.lists[l.set.ID] = &listState{set: l.set, crm: l.crm, book: l.book, part: l.part}
			}
			continue
		}
		r.lists[l.set.ID] = &listState{ // not its members: they are stored
			set: l.set, crm: l.crm, book: l.book, sum: l.sum, admitted: l.admitted, newStrangers: l.newStrangers, checked: l.checked, joined: l.joined,
			observed: l.observed, fresh: l.fresh, touched: l.touched, tables: l.tables, evaluatedAt: l.evaluatedAt, again: l.again, decide: l.decide, deciding: l.deciding, part: l.part,
		}
	}
	s.e.cache.of(s.account.ID).left = r
}

// takeUp takes what the run's slice before this one left. Whatever was changed
// meanwhile in the list or its settings is read anew.
func (s *session) takeUp() error {
	c := s.e.cache.of(s.account.ID)
	r := c.left
	c.left = nil
	if r == nil || r.run != s.run.ID {
		return nil
	}
	s.sync.incomplete, s.sync.sweeps = r.incomplete, r.sweeps
	going := map[string]bool{} // tables whose reading goes on where it was left
	for table, f := range r.feeds {
		plan := s.sync.plans[table]
		if plan == nil {
			continue
		}
		page, err := s.e.Store.Cursor(s.ctx, s.account.ID, resumeCursor(plan))
		if err != nil {
			return err
		}
		// What came after the page up to which everything is stored is read again.
		at := slices.IndexFunc(f, func(f feedRead) bool { return f.page == page })
		if going[table] = at >= 0; going[table] {
			s.sync.feeds[table] = f[:at+1]
		}
	}
	for _, l := range s.sync.lists {
		was := r.lists[l.set.ID]
		if was == nil || was.rules() != l.rules() || was.crm.Query != l.crm.Query || was.deciding != nil && !going[l.set.MemberTable] {
			continue
		}
		l.part = was.part
		if was.observed == nil && was.deciding == nil {
			continue // the rest of it is as it is stored
		}
		// The CRM's counter stays the one that was read before the members.
		l.crm, l.sum, l.admitted = was.crm, was.sum, was.admitted
		l.observed, l.fresh, l.touched = was.observed, was.fresh, was.touched
		l.tables, l.evaluatedAt, l.again, l.decide, l.deciding = was.tables, was.evaluatedAt, was.again, was.decide, was.deciding
		l.newStrangers, l.checked, l.joined, l.begun = was.newStrangers, was.checked, was.joined, true
		if l.deciding != nil {
			l.deciding.page = map[lockstep.ID]bool{}
		}
		if err := s.loadMembers(l); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := s.sharing()
	for _, l := range s.sync.lists {
		if l.begun {
			l.sum.Book = l.sum.counter(l.members.InBook() - shared[l]) // with what this run has written
		}
	}
	return nil
}
