package engine

import (
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// feedCursor names the platform's feed. A change of the fields that are read makes
// it start again, so that a new field is read for everybody.
func (s *session) feedCursor() string {
	h := lockstep.NameID(findingSpace, fmt.Sprint(s.sync.bases))
	return "contacts/" + h.String()[:8]
}

// feedMark keeps which feed of the platform was read last.
const feedMark = "contacts"

// since is where the platform's feed goes on. It begins anew when other fields were read
// since it was left: what was stored meanwhile tells nothing of those that are read again.
func (s *session) since(feed string) (lockstep.Cursor, error) {
	last, err := s.e.Store.Cursor(s.ctx, s.account.ID, feedMark)
	if err != nil {
		return "", err
	}
	if string(last) == feed {
		return s.e.Store.Cursor(s.ctx, s.account.ID, feed)
	}
	// A preview does so too: what it learns of the platform is stored.
	marks := map[string]lockstep.Cursor{feedMark: lockstep.Cursor(feed)}
	if last != "" {
		marks[feed] = ""
	}
	if err := s.commit(lockstep.Commit{Cursors: marks}); err != nil {
		return "", err
	}
	return s.e.Store.Cursor(s.ctx, s.account.ID, feed)
}

// inward reads what changed on the platform and carries it to the CRM: linked
// contacts are merged against their record as it is now, contacts that nobody has
// linked are remembered so that a record with their address finds them.
func (s *session) inward() error {
	s.stage("reading changes of the platform")
	return s.whole(s.readPlatform)
}

func (s *session) readPlatform() error {
	name := s.feedCursor()
	since, err := s.since(name)
	if err != nil {
		return err
	}
	next, err := s.platform.Contacts(s.ctx, lockstep.ContactQuery{Since: since, Fields: s.sync.names, Memberships: true}, func(page []lockstep.Contact) error {
		if err := s.noteReturns(page); err != nil {
			return err
		}
		if err := s.takeContacts(page); err != nil {
			return err
		}
		if err := s.keepMarks(); err != nil {
			return err
		}
		return s.ctx.Err()
	})
	if lockstep.CodeOf(err) == lockstep.CodeExpired {
		if cerr := s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{name: ""}}); cerr != nil {
			return cerr
		}
		if since != "" {
			return s.readPlatform()
		}
	}
	if err != nil {
		return err
	}
	if s.dry() || s.run.Type == lockstep.SyncMarketingLists && s.run.List != "" {
		return nil // a run of one list did not look at the others' strangers
	}
	s.sync.writer.at(name, next)
	return nil
}

// takeContacts sorts a page of contacts into echoes, changes and contacts that
// nobody has linked.
func (s *session) takeContacts(page []lockstep.Contact) error {
	changed := map[string][]lockstep.ID{} // table → records to read
	byID := map[lockstep.ContactID]*lockstep.Contact{}
	fresh := newLinkChunks(s.sync.bases)
	n := 0
	s.mu.Lock()
	var links []crosswalk.Link
	for i := range page {
		c := &page[i]
		seen := contactHash(c)
		links = s.sync.links.ByContact(c.ID, links[:0])
		linked := false
		same := true
		for _, l := range links {
			linked = linked || l.Ref.Table != ""
			same = same && l.Seen == seen
		}
		brought := s.brought(c)
		strange := s.strange(c, links, brought)
		if !linked && c.Email != "" && c.Standing != lockstep.ContactDeleted {
			s.returned(c)
		}
		switch {
		case len(links) > 0 && same && !strange:
		case linked:
			byID[c.ID] = c
			for _, l := range links {
				if l.Ref.Table != "" {
					changed[l.Ref.Table] = append(changed[l.Ref.Table], l.Ref.ID)
				}
			}
			n++
		case c.Email == "" || c.Standing == lockstep.ContactDeleted && len(links) == 0:
		case len(brought) > 0:
			for i, ch := range brought {
				ch.Contact, ch.Email = c.ID, lockstep.NormalizeEmail(c.Email)
				e := s.recovered(ch, false)
				e.Standing, e.OptIn, e.Master = c.Standing, c.OptIn, i == 0
				for j, v := range e.Base {
					if !asWritten(v, c.Values[j]) { // the person may have come to the book in another way
						e.Base[j] = lockstep.Value{}
					}
				}
				fresh.add(e)
			}
			if len(links) > 0 {
				fresh.add(crosswalk.Entry{Ref: placeholder(c.ID), Closed: true})
			}
		default:
			fresh.add(crosswalk.Entry{
				Ref: placeholder(c.ID), Contact: c.ID, Email: lockstep.NormalizeEmail(c.Email), Standing: c.Standing, OptIn: c.OptIn,
				Seen: seen, Base: c.Values,
			})
		}
	}
	s.mu.Unlock()
	// A preview notes them too: it is knowledge about the platform, not a change of it.
	if payloads := fresh.payloads(); len(payloads) > 0 {
		if err := s.commit(lockstep.Commit{Links: payloads}); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	plat := func(id lockstep.ContactID) *lockstep.Contact { return byID[id] }
	for _, table := range MemberTables {
		ids := changed[table]
		if len(ids) == 0 || s.sync.plans[table] == nil {
			continue
		}
		there := make(map[lockstep.ID]bool, len(ids))
		err := s.crm.Records(s.ctx, s.sync.plans[table].query, ids, func(recs []lockstep.Record) error {
			for i := range recs {
				there[recs[i].ID] = true
			}
			return s.mergePage(table, recs, plat)
		})
		if err != nil {
			return err
		}
		ended, err := s.provenGone(table, slices.DeleteFunc(slices.Clone(ids), func(id lockstep.ID) bool { return there[id] }))
		if err != nil {
			return err
		}
		for _, id := range ended {
			s.mu.Lock()
			l, _ := s.linkOf(lockstep.Ref{Table: table, ID: id})
			s.mu.Unlock()
			s.gone(table, id, byID[l.Contact]) // no feed told of it
		}
	}
	return s.sync.writer.drain()
}

// returned has the records looked at again that have the address of a contact to which
// none is linked: theirs may have been deleted before its person made this one. The caller
// holds s.mu.
func (s *session) returned(c *lockstep.Contact) {
	s.recheckOthers(lockstep.Ref{}, s.sync.links.ByEmail(lockstep.NormalizeEmail(c.Email), nil))
}

// strange notes people who are in one of our books without being in its list, those
// who left one by unsubscribing, and those whom an import brought that was interrupted.
// It reports whether the contact's own records have to be looked at because of it. The
// caller holds s.mu.
func (s *session) strange(c *lockstep.Contact, links []crosswalk.Link, brought []lockstep.Change) bool {
	look := false
	for _, b := range c.Books {
		l := s.listOfBook(b.Book)
		if l == nil || l.failed {
			continue
		}
		if l.members == nil {
			if err := s.loadMembers(l); err != nil {
				l.failed = true
				continue
			}
		}
		var known []crosswalk.Member
		for _, k := range links {
			if m, ok := l.members.Record(k.Ref.ID); ok && k.Ref.Table != "" {
				known = append(known, m)
				if m.InBook == b.Unsubscribed || m.Unsubscribed != b.Unsubscribed {
					look = true
				}
			}
		}
		stranger, met := l.members.Stranger(c.ID)
		if b.Unsubscribed {
			if met && stranger.InBook {
				s.keep(l, crosswalk.Member{Contact: c.ID}) // who has left is nobody to be admitted
			}
			continue
		}
		if len(known) > 0 {
			s.came(l, known)
		}
		if slices.ContainsFunc(known, func(m crosswalk.Member) bool { return m.InList || m.InBook || m.Former }) {
			continue
		}
		for _, m := range known { // left the list, and its book by unsubscribing, and comes back as anybody would
			m.Unsubscribed, m.Excluded = false, false
			s.keep(l, m)
		}
		ours := false
		for _, ch := range brought {
			if ch.Ref.Table != l.set.MemberTable || !slices.Contains(ch.Books, b.Book) {
				continue
			}
			if met && !ours {
				s.keep(l, crosswalk.Member{Contact: c.ID}) // no stranger
			}
			if left, leaves := leavesBehind(l, ch.Ref.ID, c.ID); leaves {
				s.keep(l, left)
			}
			s.keep(l, crosswalk.Member{Record: ch.Ref.ID, Contact: c.ID, InList: true, InBook: true})
			ours = true
		}
		if ours {
			s.owe(l) // the record may have left the list meanwhile
			look = true
			continue
		}
		if met {
			// Met by this run before it was interrupted: nobody has seen to them yet.
			l.newStrangers = l.newStrangers || stranger.FirstSeen == s.cycle()
			continue
		}
		s.keep(l, crosswalk.Member{Contact: c.ID, InBook: true, FirstSeen: s.cycle()})
		s.oweStrangers(l)
	}
	return look
}

// came notes that a contact is in the list's book although none of its records was
// known to be: somebody put it there, or an import of ours that was interrupted. If
// its records leave the list before they are looked at, nothing else would tell.
func (s *session) came(l *listState, known []crosswalk.Member) {
	if slices.ContainsFunc(known, func(m crosswalk.Member) bool { return m.InBook }) {
		return
	}
	wanted := slices.ContainsFunc(known, func(m crosswalk.Member) bool { return m.InList && !m.Excluded })
	for _, m := range known {
		if m.InList && (!m.Excluded || !wanted) {
			m.InBook = true
			s.keep(l, m)
			s.owe(l)
		}
	}
}

// keep notes a member's new state, in a preview for this run alone.
func (s *session) keep(l *listState, m crosswalk.Member) {
	if s.dry() {
		l.members.Set(m)
		return
	}
	l.put(m)
}

// cycle names this run for the rule that nobody is removed in the cycle that first met
// them. It is compared for being the same alone: our clock may have been set back.
func (s *session) cycle() int64 { return s.run.Created.UnixMicro() }

// placeholder is the reference of a contact that no CRM record is linked to.
func placeholder(id lockstep.ContactID) lockstep.Ref {
	return lockstep.Ref{ID: lockstep.NameID(placeholderSpace, string(id))}
}

var placeholderSpace = lockstep.ID{'c', 'o', 'n', 't', 'a', 'c', 't', ' ', 'a', 'l', 'o', 'n', 'e'}

// contactHash is a short hash of what the platform says of a contact, to tell our
// own write coming back from somebody's change.
func contactHash(c *lockstep.Contact) uint64 {
	return seenHash(lockstep.NormalizeEmail(c.Email), c.Standing, c.OptIn, c.Values)
}

// settle reads the platform's changes once more after a large import, so that the
// next run does not have to tell the echo of this one from other people's changes.
func (s *session) settle() error {
	if s.dry() || s.totals().ContactsCreated+s.totals().ContactsUpdated <= settleAbove {
		return nil
	}
	s.stage("reading back what was written")
	return s.whole(s.readPlatform)
}

// settleAbove is the number of written contacts from which reading them back at
// once saves the next run more than one page.
const settleAbove = 5000
