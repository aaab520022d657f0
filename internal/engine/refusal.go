package engine

import (
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// A refusal is a link without a contact: a member of a list that must not be mailed,
// or shares its address with one that must not, and for whom no contact was made. It
// is kept because its word counts for every record with the address, also for those
// that are read later, and because those it keeps out come back when it changes.

// forsaken reports whether a link without a contact tells that its record's contact was
// deleted on the platform, and that the record has another address since: its own person
// is not made anew, of whoever else has one of the addresses nobody has deleted a contact,
// and one that the platform restores is theirs. Such a link is a master's.
func forsaken(l crosswalk.Link) bool { return l.Contact == "" && l.Master }

// linkOf returns the link of a record that has a contact. The caller holds s.mu.
func (s *session) linkOf(ref lockstep.Ref) (crosswalk.Link, bool) {
	l, ok := s.sync.links.ByRef(ref)
	if !ok || l.Contact == "" {
		return crosswalk.Link{}, false
	}
	return l, true
}

// groupOptOut is what the CRM says against mailing the person: the strictest of all
// records that share the contact or the address. Where this record's own word is
// new, the others are looked at again.
func (s *session) groupOptOut(p *person) lockstep.OptOut {
	all := p.rec.OptOut
	s.unsay(p.rec.Ref, p.email, p.rec.OptOut)
	if s.sync.asked[p.rec.Ref] {
		s.sync.asked[p.rec.Ref] = false // its link is as it is now
	}
	others, emails := slices.Concat(p.others, p.refusing), []string{p.email}
	if email := p.onPlatform(); email != "" && p.row.email == "" { // the address that is mailed
		s.mu.Lock()
		others = s.sync.links.ByEmail(email, others)
		s.mu.Unlock()
		emails = append(emails, email)
	}
	for _, o := range others {
		if o.Ref != p.rec.Ref && o.Ref.Table != "" && !s.sync.asked[o.Ref] && s.sync.vacated[o.Ref] == stays {
			all |= o.OptOut
		}
	}
	for _, email := range emails {
		for ref, word := range s.sync.refused[crosswalk.EmailKey(email)] {
			if ref != p.rec.Ref {
				all |= word
			}
		}
	}
	if all != 0 && p.noEmail == "" {
		s.heardWord(p.email, p.rec.Ref, p.rec.OptOut) // so that whoever withdraws what keeps it out finds it
	}
	was := p.refusal
	if p.linked {
		was = p.link
	}
	if was.OptOut != p.rec.OptOut {
		s.recheckOthers(p.rec.Ref, p.others)
		if p.noEmail == "" || p.noEmail == whyMerged {
			s.mu.Lock()
			s.recheckOthers(p.rec.Ref, s.sync.links.ByEmail(p.email, nil))
			s.mu.Unlock()
		}
	}
	if was.Email != crosswalk.EmailKey(p.email) {
		s.withdraw(was)
		if !p.linked && was.OptOut != 0 {
			s.sync.asked[p.rec.Ref] = true // its link says no more what it said; what it refuses now is heard
		}
	}
	return all
}

// onPlatform is the address that the person's contact has on the platform, where it is
// another one than the record's; empty otherwise. A refusal of either holds.
func (p *person) onPlatform() string {
	if p.plat == nil || p.plat.Standing == lockstep.ContactDeleted {
		return ""
	}
	if email := lockstep.NormalizeEmail(p.plat.Email); email != p.email && lockstep.CheckEmail(email) == "" {
		return email
	}
	return ""
}

// askClosers asks the records that users closed, as far as the ledger or their links know,
// and that have the addresses of people, where neither this slice nor a link which these
// people's own lookup meets tells of it: their page of the feed comes later, they are in
// none of the lists, or the platform has given the address to another contact than theirs.
// What a user says in the CRM counts for everybody with the address from the moment it is
// heard. It goes with the record, which may have been opened, deleted or given another
// address since.
func (s *session) askClosers(people []person) error {
	ask := map[string][]lockstep.ID{}
	for i := range people {
		p := &people[i]
		if p.noEmail != "" {
			continue
		}
		for _, email := range []string{p.email, p.onPlatform()} {
			if email == "" {
				continue
			}
			for _, ref := range s.closers(p, email) {
				if _, done := s.sync.asked[ref]; done {
					continue
				}
				s.sync.asked[ref] = true // once, whoever has the address
				ask[ref.Table] = append(ask[ref.Table], ref.ID)
			}
		}
	}
	for _, table := range slices.Sorted(maps.Keys(ask)) {
		if err := s.ask(table, ask[table]); err != nil {
			return err
		}
	}
	return nil
}

// closers are the other records that were closed with an address, as far as is known, and
// whose word about it the person's own lookup does not meet.
func (s *session) closers(p *person, email string) (out []lockstep.Ref) {
	var meets []lockstep.Ref
	s.mu.Lock()
	for _, l := range s.sync.links.ByEmail(email, nil) {
		switch {
		case l.OptOut == 0 || l.Ref.Table == "" || l.Ref == p.rec.Ref:
		case l.Contact == "" || l.Contact == p.link.Contact || p.link.Contact == "":
			meets = append(meets, l.Ref)
		default:
			out = append(out, l.Ref)
		}
	}
	s.mu.Unlock()
	b := s.sync.barred
	if len(b.closers) == 0 {
		return out
	}
	for _, ref := range b.closers[s.e.Store.AddressKey(email)] {
		if _, closed := b.closed[ref]; closed && ref != p.rec.Ref && !slices.Contains(meets, ref) && !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	return out
}

// askUnread asks the refusing records of tables whose feed this run does not read, since
// nobody else tells when they change: those whom they kept out are looked at again then.
func (s *session) askUnread() error {
	unread := map[string][]lockstep.ID{}
	s.mu.Lock()
	for l := range s.sync.links.All() {
		if l.Contact == "" && l.OptOut != 0 && len(s.sync.byTable[l.Ref.Table]) == 0 && s.table(l.Ref.Table) != nil {
			unread[l.Ref.Table] = append(unread[l.Ref.Table], l.Ref.ID)
		}
	}
	s.mu.Unlock()
	for _, table := range slices.Sorted(maps.Keys(unread)) {
		for ids := range slices.Chunk(unread[table], latecomerChunk) {
			if err := s.ask(table, ids); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask reads records and notes their words. Who does not exist any more, or says something
// else than a refusal that is kept of it, no longer keeps anybody out by that.
func (s *session) ask(table string, ids []lockstep.ID) error {
	there := make(map[lockstep.ID]bool, len(ids))
	err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table, Inactive: true}, ids, func(recs []lockstep.Record) error {
		for i := range recs {
			there[recs[i].ID] = !recs[i].Deleted
			if err := s.refuses(&recs[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		ref := lockstep.Ref{Table: table, ID: id}
		s.sync.asked[ref] = true
		if !there[id] {
			s.gone(table, id, nil)
			s.sync.vacated[ref] = ended
		}
	}
	return nil
}

// refuses notes what a record says against mailing its address. One that has no link is
// kept as a refusal, so that those whom it keeps out are looked at again when it changes.
func (s *session) refuses(r *lockstep.Record) error {
	if r.Deleted {
		return nil
	}
	s.reopens(r)
	email := lockstep.NormalizeEmail(r.Email)
	s.mu.Lock()
	l, known := s.sync.links.ByRef(r.Ref)
	s.mu.Unlock()
	if known && l.Contact == "" && len(s.sync.byTable[r.Table]) == 0 && (l.OptOut != r.OptOut || l.Email != crosswalk.EmailKey(email)) && !s.dry() {
		s.retract(l)
	}
	if r.OptOut == 0 || lockstep.CheckEmail(email) != "" {
		return nil
	}
	s.heardWord(email, r.Ref, r.OptOut)
	if known || s.dry() {
		return nil
	}
	w := s.sync.writer
	w.cur.note(row{ref: r.Ref, newEmail: email, modified: r.Modified.Unix(), optOut: r.OptOut, base: s.sync.absent, hearsay: true})
	return w.fill()
}

// heardWord keeps the word of a record about an address for the rest of the slice. It
// is about one address at a time.
func (s *session) heardWord(email string, ref lockstep.Ref, word lockstep.OptOut) {
	s.unsay(ref, email, word)
	k := crosswalk.EmailKey(email)
	s.sync.about[ref] = k
	if s.sync.refused[k] == nil {
		s.sync.refused[k] = map[lockstep.Ref]lockstep.OptOut{}
	}
	s.sync.refused[k][ref] = word
}

// unsay forgets the word of a record that was heard in this slice, now that it has an
// address and a word of which whoever asks is about to tell. Those at the address that
// it was about are looked at again when it kept them out and does no more.
func (s *session) unsay(ref lockstep.Ref, email string, now lockstep.OptOut) {
	k, said := s.sync.about[ref]
	if !said {
		return
	}
	was := s.sync.refused[k][ref]
	delete(s.sync.refused[k], ref)
	delete(s.sync.about, ref)
	if k != crosswalk.EmailKey(email) || was&^now != 0 {
		s.withdraw(crosswalk.Link{Ref: ref, Email: k, OptOut: was})
	}
}

// withdraw has those looked at again whom the word of a link kept out: its record is
// gone, or has another address now.
func (s *session) withdraw(l crosswalk.Link) {
	if l.OptOut == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recheckOthers(l.Ref, s.sync.links.ByEmailKey(l.Email, nil))
	for ref := range s.sync.refused[l.Email] { // their links may be on their way
		if ref != l.Ref {
			s.sync.recheck[ref] = true
		}
	}
}

// retract ends a refusal. Until that is stored its word counts no more.
func (s *session) retract(l crosswalk.Link) {
	s.withdraw(l)
	s.sync.vacated[l.Ref] = movedAway
	if forsaken(l) {
		s.unwanted(staleLink{link: l, opened: true})
		return
	}
	s.unlink(l)
}

// refuse keeps the word of a person for whom there is no contact.
func (s *session) refuse(p *person) error {
	if merged := p.noEmail == whyMerged; p.group == 0 || merged && p.rec.OptOut == 0 || p.noEmail != "" && !merged {
		if p.refusal.Ref == p.rec.Ref && !s.dry() {
			s.mu.Lock()
			s.sync.closeLinks = append(s.sync.closeLinks, p.refusal)
			s.mu.Unlock()
		}
		return nil
	}
	s.heardWord(p.email, p.rec.Ref, p.rec.OptOut)
	if s.dry() {
		return nil
	}
	w := s.sync.writer
	w.cur.note(row{ref: p.rec.Ref, newEmail: p.email, hash: p.hash, modified: p.rec.Modified.Unix(), optOut: p.rec.OptOut, base: s.sync.absent})
	return w.fill()
}
