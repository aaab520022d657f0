package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// knownEnough is how many members a list must have had for an empty answer to be
// taken for a failure instead of the truth.
const knownEnough = 100

// observeStatic finds out who is in each static list. A list is read in full only
// when something hints at a change that the newest memberships do not explain:
// its counter moved, its rules changed, the last run left work, or a day has passed.
func (s *session) observeStatic() error {
	var full, hinted []*listState
	since, newest := int64(-1), int64(0)
	for _, l := range s.sync.lists {
		newest = max(newest, l.sum.Version)
		switch {
		case l.set.Dynamic || l.observed != nil:
			continue
		case s.needsFull(l):
			full = append(full, l)
		default:
			hinted = append(hinted, l)
			if since < 0 || l.sum.Version < since {
				since = l.sum.Version
			}
		}
	}
	if len(hinted) > 0 {
		more, err := s.observeNew(hinted, since)
		if err != nil {
			return err
		}
		full = append(full, more...)
	}
	if len(full) > 0 {
		s.stage("reading the members of %d static lists", len(full))
		if err := s.whole(func() error { return s.observeFull(full) }); err != nil {
			return err
		}
	}
	// Whatever was as new when this run began was read by now, of every list: the next
	// question for newer ones need not begin at the list in which nothing happened for
	// longest. Not what is newer than that: it may have come after its list was read.
	for _, l := range append(hinted, full...) {
		l.sum.Version = max(l.sum.Version, newest)
	}
	return nil
}

func (s *session) needsFull(l *listState) bool {
	return l.sum.FullAt.IsZero() || l.sum.Dirty || l.sum.Rules != l.rules() || s.e.Now().Sub(l.sum.FullAt) > s.e.FullMembers
}

// observeNew reads the memberships that are newer than the last run's. It returns
// the lists whose counter says that there is more to it.
func (s *session) observeNew(lists []*listState, since int64) (more []*listState, err error) {
	byID := map[lockstep.ID]*listState{}
	ids := make([]lockstep.ID, 0, len(lists))
	for _, l := range lists {
		byID[l.set.CRMID] = l
		ids = append(ids, l.set.CRMID)
	}
	added := map[*listState][]lockstep.ListMember{}
	err = s.crm.StaticMembers(s.ctx, lockstep.MemberQuery{Lists: ids, AfterVersion: since}, func(page []lockstep.ListMember) error {
		for _, m := range page {
			if l := byID[m.List]; l != nil && m.Version > l.sum.Version {
				added[l] = append(added[l], m)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, l := range lists {
		l.joined = len(added[l]) > 0
		if !l.joined && l.crm.Members == l.sum.CRMCount {
			continue
		}
		// Once some of the newcomers are stored, the counter may fit although others
		// left: an interrupted run must not be fooled by that.
		s.mu.Lock()
		s.owe(l)
		s.mu.Unlock()
		if err := s.loadMembers(l); err != nil {
			return nil, err
		}
		now := &crosswalk.Observed{}
		for id := range l.members.Listed() {
			now.Add(id)
		}
		joined := 0
		for _, a := range added[l] {
			l.sum.Version = max(l.sum.Version, a.Version)
			if m, ok := l.members.Record(a.Record); !ok || !m.InList {
				joined++
			}
			now.Add(a.Record)
		}
		if l.crm.Members != l.sum.CRMCount+joined {
			more = append(more, l)
			continue
		}
		now.Seal()
		l.observed, l.fresh, l.touched = now, true, true
	}
	return more, nil
}

// observeFull reads the members of these lists in one sweep.
func (s *session) observeFull(lists []*listState) error {
	type reading struct {
		members crosswalk.Observed
		version int64
	}
	byID := map[lockstep.ID]*reading{}
	ids := make([]lockstep.ID, 0, len(lists))
	for _, l := range lists {
		if err := s.loadMembers(l); err != nil {
			return err
		}
		byID[l.set.CRMID] = &reading{version: l.sum.Version}
		ids = append(ids, l.set.CRMID)
	}
	err := s.crm.StaticMembers(s.ctx, lockstep.MemberQuery{Lists: ids}, func(page []lockstep.ListMember) error {
		for _, m := range page {
			if r := byID[m.List]; r != nil {
				r.members.Add(m.Record)
				r.version = max(r.version, m.Version)
			}
		}
		return s.ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, l := range lists {
		r := byID[l.set.CRMID]
		r.members.Seal()
		l.joined = l.joined || r.version > l.sum.Version
		l.observed, l.sum.Version = &r.members, r.version
		l.fresh, l.touched = true, true
		l.sum.FullAt = s.e.Now()
		s.doubt(l)
	}
	return nil
}

// doubt refuses an empty answer for a list that was not empty before.
func (s *session) doubt(l *listState) {
	if l.observed.Len() > 0 || l.members.InList() <= knownEnough {
		return
	}
	s.finding(l.finding(lockstep.FindingIncomplete,
		fmt.Sprintf("the CRM answered that the list is empty; it had %d members at the last sync", l.members.InList()),
		"nothing was removed. If the list was emptied on purpose, remove its members in smaller steps or deactivate it"))
	l.failed = true
}

// observeDynamicFirst evaluates the dynamic lists that have to be evaluated whatever
// the records say: new ones, changed ones, and those that move with time alone.
func (s *session) observeDynamicFirst() error {
	first, err := s.firstLoad()
	if err != nil {
		return err
	}
	return s.observeDynamic(func(l *listState, _ []string, volatile bool) bool {
		return volatile || s.needsFull(l) || l.sum.Query != l.crm.Query
	}, func(l *listState) error {
		if !first[l.set.MemberTable] || l.decide == nil {
			return s.evaluate(l)
		}
		if err := s.loadMembers(l); err != nil {
			return err
		}
		if l.members.Len() > 0 {
			return s.evaluate(l)
		}
		l.deciding, l.touched = &deciding{began: s.e.Now(), page: map[lockstep.ID]bool{}}, true
		return nil
	})
}

// deciding is what a list learns of its members while the table's feed delivers every
// record from the beginning to the end.
type deciding struct {
	began time.Time
	page  map[lockstep.ID]bool // members on the page that is taken up
	all   crosswalk.Observed
}

// firstLoad are the tables whose feed is about to name every record while nobody is
// linked yet, so that whoever is met later need not be known earlier. A preview
// evaluates the lists: it would otherwise not know in the end who was in them.
func (s *session) firstLoad() (map[string]bool, error) {
	tables := map[string]bool{}
	if s.dry() || s.run.Type != lockstep.SyncMarketingLists {
		return tables, nil
	}
	for _, table := range s.tablesInOrder() {
		plan := s.sync.plans[table]
		begun := false
		for _, name := range []string{plan.cursor, resumeCursor(plan)} {
			c, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
			if err != nil {
				return nil, err
			}
			begun = begun || c != ""
		}
		tables[table] = !begun
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.sync.links.All() {
		if k.Ref.Table != "" {
			clear(tables)
			break
		}
	}
	return tables, nil
}

// decided takes the answer of the feed for the lists that waited for it. whole says
// that the feed named every record there is; otherwise the lists are evaluated.
func (s *session) decided(table string, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sync.byTable[table] {
		d := l.deciding
		if d == nil {
			continue
		}
		l.deciding = nil
		if !whole || l.failed {
			continue
		}
		d.all.Seal()
		l.observed, l.fresh = &d.all, true
		l.sum.FullAt, l.sum.Query = d.began, l.crm.Query
	}
}

// observeDynamicMoved evaluates the other ones whose records turned out to have
// changed.
func (s *session) observeDynamicMoved() error {
	return s.observeDynamic(func(l *listState, tables []string, _ bool) bool {
		return l.again || slices.ContainsFunc(tables, func(t string) bool {
			return s.sync.moved[t] || len(s.sync.byTable[t]) == 0 // nobody follows that table's changes
		})
	}, s.reevaluate)
}

func (s *session) observeDynamic(need func(l *listState, tables []string, volatile bool) bool, evaluate func(*listState) error) error {
	for _, l := range s.sync.lists {
		if !l.set.Dynamic || l.failed || l.observed != nil && !l.again || l.deciding != nil {
			continue
		}
		tables, volatile, err := s.crm.QueryTables(l.crm)
		if err != nil {
			s.unreadable(l, err)
			continue
		}
		l.tables = tables
		if d, ok := s.crm.(lockstep.MemberDecider); ok && len(tables) == 1 && tables[0] == l.set.MemberTable {
			l.decide = d.DecideMembers(l.crm)
		}
		if !need(l, tables, volatile) {
			continue
		}
		s.stage("evaluating the list %s", l)
		if err := s.whole(func() error { return evaluate(l) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) unreadable(l *listState, err error) {
	le := lockstep.AsError(err)
	s.finding(l.finding(lockstep.FindingListUnreadable, "the query of the dynamic list cannot be evaluated: "+le.Msg, le.Hint))
	l.failed = true
}

func (s *session) evaluate(l *listState) error {
	if err := s.loadMembers(l); err != nil {
		return err
	}
	resumed := l.part != nil && l.part.next != ""
	if !resumed {
		l.part = &evaluation{began: s.e.Now()}
	}
	part := l.part
	err := s.crm.DynamicMembers(s.ctx, l.crm, part.next, func(pg lockstep.IDPage) error {
		for _, id := range pg.IDs {
			part.members.Add(id)
		}
		part.next = pg.Resume
		return s.ctx.Err()
	})
	if err != nil && resumed && lockstep.CodeOf(err) == lockstep.CodeExpired {
		l.part = nil
		return s.evaluate(l)
	}
	if err != nil {
		return s.queryFailed(l, err)
	}
	part.members.Seal()
	l.observed, l.fresh, l.touched, l.part = &part.members, true, true, nil
	l.evaluatedAt, l.again = part.began, false
	l.sum.FullAt, l.sum.Query = part.began, l.crm.Query
	s.doubt(l)
	return nil
}

// evaluation is a dynamic list's evaluation under way. One that a failure interrupts is
// gone on with by the run's next slice: it says no more than one that took so long would,
// and what the feed tells of since it began is looked at again, as for that one.
type evaluation struct {
	began   time.Time
	next    lockstep.Cursor // the page it goes on with; empty = none was read, or all were
	members crosswalk.Observed
}

// queryFailed keeps one list's bad query from ending the run.
func (s *session) queryFailed(l *listState, err error) error {
	if c := lockstep.CodeOf(err); c == lockstep.CodeInvalid || c == lockstep.CodeNotFound || c == lockstep.CodeForbidden {
		s.unreadable(l, err)
		return nil
	}
	return err
}

// changedRecords are the records that a feed told of, and which of them are in the
// lists that can be decided from a record. unknown is set when it did not tell of all
// that changed, or of too many to be asked about one by one.
type changedRecords struct {
	ids     []lockstep.ID
	in      map[*listState]map[lockstep.ID]bool
	unknown bool
}

// maxChangedRecords bounds the memory for changedRecords.
const maxChangedRecords = 20_000

func (c *changedRecords) add(recs []lockstep.Record, lists []*listState) {
	if c == nil || c.unknown {
		return
	}
	if len(c.ids)+len(recs) > maxChangedRecords {
		c.ids, c.in, c.unknown = nil, nil, true
		return
	}
	for i := range recs {
		c.ids = append(c.ids, recs[i].ID)
	}
	for _, l := range lists {
		if l.decide == nil {
			continue
		}
		if c.in[l] == nil {
			if c.in == nil {
				c.in = map[*listState]map[lockstep.ID]bool{}
			}
			c.in[l] = map[lockstep.ID]bool{}
		}
		for i := range recs {
			c.in[l][recs[i].ID] = l.decide(&recs[i]) // the last word counts
		}
	}
}

// membersOfPage is how many members one call of an evaluation tells.
const membersOfPage = 5000

// reevaluate brings the members of a dynamic list up to date after the feed of its
// table. Where the query reads no other table, whoever did not change is in it as
// before, so that asking about the changed records alone is enough; it is done when
// it takes fewer calls than evaluating the list.
func (s *session) reevaluate(l *listState) error {
	changed := s.sync.changed[l.set.MemberTable]
	tester, can := s.crm.(lockstep.MemberTester)
	if !can && l.decide == nil || l.observed != nil || len(l.tables) != 1 || l.tables[0] != l.set.MemberTable || changed == nil || changed.unknown {
		return s.evaluate(l)
	}
	if err := s.loadMembers(l); err != nil {
		return err
	}
	if l.decide == nil && calls(len(changed.ids), lockstep.TestedMembers) >= calls(l.members.InList()+1, membersOfPage) {
		return s.evaluate(l)
	}
	var now []lockstep.ID
	if l.decide != nil {
		for id, in := range changed.in[l] {
			if in {
				now = append(now, id)
			}
		}
	} else {
		asked := slices.Clone(changed.ids)
		slices.SortFunc(asked, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		err := tester.DynamicMembersAmong(s.ctx, l.crm, slices.Compact(asked), func(ids []lockstep.ID) error {
			now = append(now, ids...)
			return s.ctx.Err()
		})
		if err != nil {
			return s.queryFailed(l, err)
		}
	}
	s.mu.Lock()
	l.observed, l.fresh, l.touched = l.members.Moved(changed.ids, now), true, true
	s.mu.Unlock()
	s.doubt(l)
	return nil
}

// calls is how many calls it takes to tell n things, so many in each.
func calls(n, each int) int { return (n + each - 1) / each }

// clockDoubt is by how much the clocks of this machine and of the CRM may differ.
const clockDoubt = 10 * time.Minute

// stirred notes, before a page of the feed is taken up, which dynamic lists may have
// changed with it. Those that are evaluated after the feed must not be forgotten when
// the process dies between; those that were evaluated before it are evaluated again
// when a record changed since.
func (s *session) stirred(table string, recs []lockstep.Record) {
	if len(recs) == 0 {
		return
	}
	s.sync.moved[table] = true
	s.sync.changed[table].add(recs, s.sync.byTable[table])
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sync.lists {
		if l.deciding != nil && l.set.MemberTable == table {
			clear(l.deciding.page)
			for i := range recs {
				if l.decide(&recs[i]) {
					l.deciding.page[recs[i].ID] = true
					l.deciding.all.Add(recs[i].ID)
				}
			}
		}
		if !l.set.Dynamic || l.failed || !slices.Contains(l.tables, table) {
			continue
		}
		if l.part != nil && changedSince(recs, l.part.began) {
			l.part = nil // what it told of them may be out of date, and nothing will say so again
		}
		switch {
		case l.observed == nil:
			s.owe(l)
		case !l.again:
			l.again = changedSince(recs, l.evaluatedAt)
		}
	}
}

// changedSince reports whether one of these records may have changed since a list was
// evaluated.
func changedSince(recs []lockstep.Record, at time.Time) bool {
	since := at.Add(-clockDoubt)
	return slices.ContainsFunc(recs, func(r lockstep.Record) bool { return r.Deleted || r.Modified.After(since) })
}

// scope returns the lists of this run in which a record is now. The caller holds
// s.mu.
func (s *session) scope(table string, id lockstep.ID) []*listState {
	var dst []*listState
	for _, l := range s.sync.byTable[table] {
		if !l.failed && l.members != nil && l.has(id) {
			dst = append(dst, l)
		}
	}
	return dst
}

// listOfBook returns the list of this run that an address book belongs to.
func (s *session) listOfBook(b lockstep.BookID) *listState {
	for _, l := range s.sync.lists {
		if l.book.ID == b && !strings.HasPrefix(string(b), newBookPrefix) {
			return l
		}
	}
	return nil
}
