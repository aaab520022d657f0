package engine

import (
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// moves is what is known about the addresses that move within and around one page
// of records.
type moves struct {
	page map[lockstep.Ref]bool
	now  map[lockstep.Ref]*lockstep.Record // of the page, and those that had their addresses
	held map[lockstep.Ref][]crosswalk.Link // who is linked under the address that a record has now
	// asked are the records that were read for now, whether they exist or not.
	asked map[lockstep.Ref]bool
}

// vacancy is why a record does not count for the contact that it is still linked to.
type vacancy uint8

const (
	stays     vacancy = iota
	movedAway         // it has another address now, or none, and will not rename the contact
	ended             // it was deleted or merged
)

// untangle sees to addresses that move from one record to another. An address that
// a record has now may still be that of somebody else's contact, because that
// person's own change of address has not been carried out yet: taking the contact
// over would put one person's data under another's address. It returns the records
// of the page that have to wait until others have moved away.
func (s *session) untangle(recs []lockstep.Record) (wait map[lockstep.ID]bool, err error) {
	var movers []lockstep.Ref
	s.mu.Lock()
	for i := range recs {
		delete(s.sync.vacated, recs[i].Ref)
		if len(s.holders(&recs[i])) > 0 {
			movers = append(movers, recs[i].Ref)
		}
	}
	s.mu.Unlock()
	if len(movers) == 0 {
		return nil, nil
	}
	m := &moves{page: make(map[lockstep.Ref]bool, len(recs)), now: make(map[lockstep.Ref]*lockstep.Record, len(recs)), held: map[lockstep.Ref][]crosswalk.Link{}, asked: map[lockstep.Ref]bool{}}
	for i := range recs {
		m.page[recs[i].Ref], m.now[recs[i].Ref] = true, &recs[i]
	}
	if err := s.whoMoved(m, movers); err != nil {
		return nil, err
	}
	for _, ref := range movers {
		if ring := s.ring(m, ref); ring != nil {
			if s.sync.writer.busy() {
				// What is on its way may write links of the ring, or end it.
				if err := s.sync.writer.drain(); err != nil {
					return nil, err
				}
				return s.untangle(recs)
			}
			if err := s.exchange(ring); err != nil {
				return nil, err
			}
		}
	}
	wait = map[lockstep.ID]bool{}
	var before []lockstep.Ref
	for _, ref := range movers {
		for _, h := range m.held[ref] {
			switch {
			case s.sync.leaving[h.Ref] == "" || s.sync.settled[h.Ref]:
			case m.page[h.Ref]:
				wait[ref.ID] = true
			case !slices.Contains(before, h.Ref):
				before = append(before, h.Ref)
			}
		}
	}
	if len(wait) == len(recs) {
		wait = nil // nobody would ever begin
	}
	for ref := range m.page {
		if s.sync.leaving[ref] != "" && !wait[ref.ID] {
			s.sync.settled[ref] = true
		}
	}
	for _, ref := range before {
		s.sync.settled[ref] = true
		if err := s.mergePage(ref.Table, []lockstep.Record{*m.now[ref]}, nil); err != nil {
			return nil, err
		}
	}
	if len(before) > 0 {
		err = s.sync.writer.drain()
	}
	return wait, err
}

// holders are the links of other people's contacts under the address that a record
// has now, when the record came to that address since it was last looked at. Who is
// known to have ended holds nothing. The caller holds s.mu.
func (s *session) holders(r *lockstep.Record) []crosswalk.Link {
	if r.Deleted || r.Email == "" {
		return nil
	}
	email := lockstep.NormalizeEmail(r.Email)
	own, linked := s.linkOf(r.Ref)
	if linked && own.Email == crosswalk.EmailKey(email) || lockstep.CheckEmail(email) != "" {
		return nil
	}
	if _, done := s.sync.exchanged[r.Ref]; done {
		return nil
	}
	return slices.DeleteFunc(s.sync.links.ByEmail(email, nil), func(k crosswalk.Link) bool {
		return k.Ref.Table == "" || k.Contact == "" || k.Ref == r.Ref || linked && k.Contact == own.Contact || s.sync.vacated[k.Ref] == ended
	})
}

// whoMoved finds out which of the holders have another address now themselves.
func (s *session) whoMoved(m *moves, frontier []lockstep.Ref) error {
	for len(frontier) > 0 {
		var next []lockstep.Ref
		missing := map[string][]lockstep.ID{}
		s.mu.Lock()
		for _, ref := range frontier {
			r := m.now[ref]
			if _, done := m.held[ref]; done || r == nil {
				continue
			}
			m.held[ref] = s.holders(r)
			for _, h := range m.held[ref] {
				next = append(next, h.Ref)
				if m.now[h.Ref] == nil && s.sync.plans[h.Ref.Table] != nil {
					m.asked[h.Ref] = true
					missing[h.Ref.Table] = append(missing[h.Ref.Table], h.Ref.ID)
				}
			}
		}
		s.mu.Unlock()
		for _, table := range slices.Sorted(maps.Keys(missing)) {
			ids := missing[table]
			for _, l := range s.sync.byTable[table] {
				if err := s.loadMembers(l); err != nil {
					return err
				}
			}
			err := s.crm.Records(s.ctx, s.sync.plans[table].query, ids, func(recs []lockstep.Record) error {
				for i := range recs {
					r := recs[i]
					r.Values = slices.Clone(r.Values)
					m.now[r.Ref] = &r
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		for _, ref := range next {
			r := m.now[ref]
			delete(s.sync.leaving, ref) // what an earlier page found may be over
			if r == nil || r.Deleted {
				if r != nil || m.asked[ref] {
					s.sync.vacated[ref] = ended
				}
				continue
			}
			s.mu.Lock()
			link, _ := s.linkOf(ref)
			member := len(s.scope(ref.Table, ref.ID)) > 0
			s.mu.Unlock()
			email := lockstep.NormalizeEmail(r.Email)
			usable, moved := lockstep.CheckEmail(email) == "", link.Email != crosswalk.EmailKey(email)
			switch {
			case !r.MergedInto.IsZero(): // its contact goes to the survivor
			case usable && moved && member:
				s.sync.leaving[ref] = email
			case moved:
				s.sync.vacated[ref] = movedAway
			}
		}
		frontier = next
	}
	return nil
}

// leftBehind is the link to a contact that its record left, or that outlived it.
type leftBehind struct {
	link    crosswalk.Link
	deleted bool
	now     *lockstep.Contact // the contact, where it was read since
}

// leaveBehind notes that a record leaves the contact which it was linked to.
func (s *session) leaveBehind(b leftBehind) {
	if b.link.Contact != "" && !s.dry() {
		s.sync.leftBehind = append(s.sync.leftBehind, b)
	}
}

// keepLeftBehind appends the links of contacts that no record is linked to any more
// once those of closed have ended. They are kept without a record, so that the first
// one with their address finds them. Where the record lives on under another address,
// the link is a master's: what the contact says is what that record said, and for
// whoever takes the address nobody's word.
func (s *session) keepLeftBehind(out *linkChunks, closed []crosswalk.Link) error {
	var alone []crosswalk.Link
	var left []leftBehind
	seen := map[lockstep.ContactID]bool{}
	s.mu.Lock()
	for _, b := range s.sync.leftBehind {
		held := slices.ContainsFunc(s.sync.links.ByContact(b.link.Contact, nil), func(k crosswalk.Link) bool {
			return !slices.ContainsFunc(closed, func(c crosswalk.Link) bool { return c.Ref == k.Ref })
		})
		if !held && !seen[b.link.Contact] {
			alone, left = append(alone, b.link), append(left, b)
		}
		seen[b.link.Contact] = true
	}
	s.mu.Unlock()
	s.sync.leftBehind = nil
	entries, err := s.entries(alone)
	if err != nil {
		return err
	}
	for i, e := range entries {
		if c := left[i].now; c != nil {
			e.Email, e.Standing, e.OptIn, e.Seen, e.Base = lockstep.NormalizeEmail(c.Email), c.Standing, c.OptIn, contactHash(c), c.Values
		} else if !spoke(left[i].link) {
			e.Seen = 0 // what it says is asked when somebody takes it over
		}
		if s.isGone(&e) {
			continue
		}
		out.add(crosswalk.Entry{
			Ref: placeholder(e.Contact), Contact: e.Contact, Email: e.Email, Standing: e.Standing, OptIn: e.OptIn, Master: !left[i].deleted, Seen: e.Seen, Base: e.Base,
		})
	}
	return nil
}

// left reports whether a record is known to be leaving an address.
func (s *session) left(ref lockstep.Ref, email string) bool {
	now := s.sync.leaving[ref]
	return now != "" && now != email
}

// ring follows an address from record to record and returns those that pass theirs
// on in a circle beginning with ref; nil when they do not.
func (s *session) ring(m *moves, ref lockstep.Ref) []lockstep.Ref {
	var path []lockstep.Ref
	for cur := ref; ; {
		path = append(path, cur)
		held := slices.DeleteFunc(slices.Clone(m.held[cur]), func(k crosswalk.Link) bool { return s.sync.vacated[k.Ref] == ended })
		if len(held) != 1 || s.sync.leaving[held[0].Ref] == "" || s.shares(cur) {
			return nil
		}
		if cur = held[0].Ref; cur == ref {
			return path
		}
		if slices.Contains(path, cur) {
			return nil
		}
	}
}

// shares reports whether a record is not the only one of a contact; one that has ended
// does not count.
func (s *session) shares(ref lockstep.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	link, linked := s.linkOf(ref)
	return !linked || slices.ContainsFunc(s.sync.links.ByContact(link.Contact, nil), func(k crosswalk.Link) bool {
		return k.Ref != ref && k.Ref.Table != "" && s.sync.vacated[k.Ref] != ended
	})
}

// exchange gives each record of a ring the contact that has its address now. The
// platform takes an address only when nobody has it, so contacts cannot be renamed
// in a circle; what differs is then written to each contact.
func (s *session) exchange(ring []lockstep.Ref) error {
	if _, done := s.sync.exchanged[ring[0]]; done {
		return nil
	}
	links := make([]crosswalk.Link, len(ring))
	s.mu.Lock()
	for i, ref := range ring {
		links[i], _ = s.linkOf(ref)
	}
	s.mu.Unlock()
	entries, err := s.entries(links)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if s.isGone(&e) {
			return nil // nobody has its address on the platform, or somebody else by now
		}
	}
	out := newLinkChunks(s.sync.bases)
	for i, ref := range ring {
		e := entries[(i+1)%len(ring)]
		// It speaks for the contact if the one before did; else the contact is asked first.
		e.Ref, e.Hash, e.Apart, e.OptOut, e.Modified = ref, [16]byte{}, nil, entries[i].OptOut, entries[i].Modified
		e.Base = slices.Clone(e.Base)
		plan := s.sync.plans[ref.Table]
		if !plan.knows(e.Base) {
			e.Seen = 0
		}
		plan.agree(e.Base)
		s.sync.exchanged[ref] = e
		delete(s.sync.leaving, ref)
		out.add(e)
	}
	s.exchangeMembers(ring)
	if s.dry() {
		return nil
	}
	return s.commit(lockstep.Commit{Links: out.payloads()})
}

// exchangeMembers lets the places in the address books go with the contacts, where
// both records are members of the list.
func (s *session) exchangeMembers(ring []lockstep.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sync.lists {
		if l.members == nil {
			continue
		}
		was := make([]crosswalk.Member, len(ring))
		all := true
		for i, ref := range ring {
			m, ok := l.members.Record(ref.ID)
			was[i], all = m, all && ok && m.InList && l.has(ref.ID) && ref.Table == l.set.MemberTable
		}
		if !all {
			continue
		}
		for i := range ring {
			m, from := was[i], was[(i+1)%len(ring)]
			m.Contact, m.InBook, m.Unsubscribed, m.Excluded, m.Lapsed = from.Contact, from.InBook, from.Unsubscribed, from.Excluded, from.Lapsed
			if s.dry() {
				l.members.Set(m)
			} else {
				l.put(m)
			}
		}
	}
}
