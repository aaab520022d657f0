package engine

import (
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// A refusal is a link without a contact: a member of a list that must not be mailed,
// or shares its address with one that must not, and for whom no contact was made. It
// is kept because its word counts for every record with the address, also for those
// that are read later, and because those it keeps out come back when it changes.

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
	delete(s.sync.refused[p.email], p.rec.Ref)
	for _, o := range slices.Concat(p.others, p.refusing) {
		if o.Ref != p.rec.Ref && o.Ref.Table != "" {
			all |= o.OptOut
		}
	}
	for ref, word := range s.sync.refused[p.email] {
		if ref != p.rec.Ref {
			all |= word
		}
	}
	was := p.refusal
	if p.linked {
		was = p.link
	}
	if was.OptOut != p.rec.OptOut {
		s.recheckOthers(p.rec.Ref, p.others)
		s.recheckOthers(p.rec.Ref, p.refusing)
		if p.noEmail == whyMerged {
			s.mu.Lock()
			s.recheckOthers(p.rec.Ref, s.sync.links.ByEmail(p.email, nil))
			s.mu.Unlock()
		}
	}
	if was.Email != crosswalk.EmailKey(p.email) {
		s.withdraw(was)
	}
	return all
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
	if s.sync.refused[p.email] == nil {
		s.sync.refused[p.email] = map[lockstep.Ref]lockstep.OptOut{}
	}
	s.sync.refused[p.email][p.rec.Ref] = p.rec.OptOut
	if s.dry() {
		return nil
	}
	w := s.sync.writer
	w.cur.quiet = append(w.cur.quiet, row{ref: p.rec.Ref, newEmail: p.email, hash: p.hash, modified: p.rec.Modified.Unix(), optOut: p.rec.OptOut, base: s.sync.absent})
	return w.fill()
}
