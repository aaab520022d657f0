package engine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// join links a record to the contact that already has its address: one that is
// known to the platform alone, or one that other records share.
func (s *session) join(p *person, l crosswalk.Link, e crosswalk.Entry) {
	if l.Contact == "" || s.sync.elsewhere[l.Contact] {
		if l.Ref.Table != "" && s.sync.vacated[l.Ref] == stays {
			p.refusing = append(p.refusing, l)
		}
		return
	}
	if p.linked && p.link.Contact == l.Contact {
		return
	}
	if p.adopted && s.tells(p.link, &p.entry) >= s.tells(l, &e) {
		return // one candidate is enough
	}
	// When the address changed to one that another contact has, this record moves
	// over to that contact; membership takes the old one out of the books.
	if p.linked {
		s.recheckOthers(p.rec.Ref, p.others)
		p.former = p.link
	}
	p.linked, p.plat, p.platPartial = false, nil, false
	p.adopted = true
	p.entry = e
	p.link = l
	s.mu.Lock()
	p.others = s.sync.links.ByContact(l.Contact, nil)
	s.mu.Unlock()
	p.vacated = slices.DeleteFunc(slices.Clone(p.others), func(k crosswalk.Link) bool { return s.sync.vacated[k.Ref] == stays })
	p.others = slices.DeleteFunc(p.others, func(k crosswalk.Link) bool { return s.sync.vacated[k.Ref] != stays || s.left(k.Ref, p.email) })
	p.succeeds = s.sync.vacated[l.Ref] == movedAway || l.Ref.Table == "" && l.Master
}

// renounce takes a person's contact from it again that was found by its address and has
// another one on the platform by now: its own record is in no list, so that nobody has
// carried the change into the CRM, nor into the link. Whoever has the address there
// beside it is found instead.
func (s *session) renounce(plan *tablePlan, one []person) error {
	p := &one[0]
	for p.adopted && p.plat != nil && p.plat.Standing != lockstep.ContactDeleted && p.plat.Email != "" && lockstep.NormalizeEmail(p.plat.Email) != p.email {
		s.sync.elsewhere[p.link.Contact] = true
		p.adopted, p.succeeds, p.replaces, p.plat, p.platPartial = false, false, false, nil, false
		p.entry, p.others, p.vacated, p.refusing = crosswalk.Entry{}, nil, nil, nil
		p.link, p.former = p.former, crosswalk.Link{}
		p.linked = p.link.Contact != ""
		if p.linked {
			p.link.Seen = 0 // what the platform said of it is read again
		}
		if err := s.fetchEntries(one); err != nil {
			return err
		}
		if err := s.seekMasters(plan, one); err != nil {
			return err
		}
		if err := s.askPlatform(plan, one); err != nil {
			return err
		}
	}
	return nil
}

// tells is how much a link with an address tells of the contact that has it: most that
// of a record which has the address and speaks for the contact, least that to a contact
// which is gone.
func (s *session) tells(l crosswalk.Link, e *crosswalk.Entry) int {
	switch {
	case s.isGone(e):
		return -1
	case l.Ref.Table == "":
		return 0
	case s.sync.vacated[l.Ref] != stays:
		return 1
	case !l.Master:
		return 2
	}
	return 3
}

// isGone reports whether the contact of a link is known to be deleted.
func (s *session) isGone(e *crosswalk.Entry) bool {
	return e.Standing == lockstep.ContactDeleted || s.goneNow(e.Contact)
}

// goneNow reports whether a contact turned out to be deleted in this slice.
func (s *session) goneNow(id lockstep.ContactID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sync.deleted[id]
}

// noteGone notes that a contact turned out to be deleted.
func (s *session) noteGone(id lockstep.ContactID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync.deleted[id] = true
}

// spoke reports whether the base of a link is what was agreed on with its contact: of
// records that share one, that of the record which speaks for it.
func spoke(l crosswalk.Link) bool { return l.Master || l.Ref.Table == "" }

// succeed lets a record speak from now on for a contact for which another one spoke:
// what the contact says is that one's word, which this one's replaces.
func (s *session) succeed(plan *tablePlan, p *person) {
	copy(p.row.base, p.plat.Values)
	for i, pos := range plan.pos {
		p.row.base[pos] = plan.t.Platform(i, p.plat.Values[pos], s.report(p.rec.Ref, p.row.contact))
	}
	p.row.parted = nil
}

// chooseMaster decides which of several records that share an address speaks for
// the contact.
func (s *session) chooseMaster(plan *tablePlan, p *person) {
	r := &p.row
	var group []lockstep.Ref
	mine := s.candidate(plan, p)
	for _, o := range p.others {
		if o.Ref == p.rec.Ref || o.Ref.Table == "" {
			continue
		}
		group = append(group, o.Ref)
		if !o.Master {
			continue
		}
		if s.outranks(o, p, mine) {
			r.master = false
		} else {
			r.demote = append(r.demote, o)
		}
	}
	if len(group) > 0 && (!p.linked || p.adopted || len(r.demote) > 0) { // told once, when the group comes about
		slices.SortFunc(group, func(a, b lockstep.Ref) int { return slices.Compare(a.ID[:], b.ID[:]) })
		s.finding(lockstep.Finding{
			Code: lockstep.FindingDuplicate, Table: plan.table, Record: p.rec.ID, Contact: r.contact,
			Message: fmt.Sprintf("shares its email address with %s; one of them speaks for the contact", refs(group)),
			Hint:    "merge the records or give each its own address",
		})
	}
	if r.master && p.adopted && (len(r.demote) > 0 || p.succeeds) {
		copy(r.base, p.entry.Base) // the contact's base stays what both sides agreed on
		plan.agree(r.base)
	}
}

// seekMasters asks for records that speak for a contact: those in no list of this run,
// whether they are still there, because a feed that is read from its beginning does not
// tell of those that were deleted, and nobody would ever take their place; and those whom
// a newcomer would follow, when they were changed last, because the feed may tell of that
// after it has told of the newcomer.
func (s *session) seekMasters(plan *tablePlan, people []person) error {
	asked := map[string][]lockstep.ID{}
	for i := range people {
		p := &people[i]
		for _, o := range p.others {
			if _, known := s.sync.there[o.Ref]; known || o.Ref == p.rec.Ref || !o.Master || s.sync.plans[o.Ref.Table] == nil || slices.Contains(asked[o.Ref.Table], o.Ref.ID) {
				continue
			}
			listed, outranks := s.listed(o.Ref), s.outranks(o, p, s.candidate(plan, p))
			if outranks && !listed || !outranks && listed && p.adopted && o.Ref.Table == plan.table {
				asked[o.Ref.Table] = append(asked[o.Ref.Table], o.Ref.ID)
			}
		}
	}
	for _, table := range slices.Sorted(maps.Keys(asked)) {
		err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table}, asked[table], func(recs []lockstep.Record) error {
			for i := range recs {
				s.sync.there[recs[i].Ref] = recs[i].Modified.Unix()
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range asked[table] {
			ref := lockstep.Ref{Table: table, ID: id}
			if _, there := s.sync.there[ref]; !there && !s.listed(ref) {
				s.sync.vacated[ref] = ended
				s.gone(table, id, nil)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	for i := range people {
		p := &people[i]
		p.others = slices.DeleteFunc(p.others, func(o crosswalk.Link) bool {
			dead := o.Ref != p.rec.Ref && s.sync.vacated[o.Ref] == ended
			if dead && p.adopted {
				p.vacated = append(p.vacated, o)
			}
			return dead
		})
	}
	return nil
}

// listed reports whether a record is in a list of this run.
func (s *session) listed(ref lockstep.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.scope(ref.Table, ref.ID)) > 0
}

// outranks reports whether a record that speaks for a contact goes on doing so beside
// another one of the same contact.
func (s *session) outranks(o crosswalk.Link, p *person, mine merge.Candidate) bool {
	other := merge.Candidate{Ref: o.Ref, Rank: merge.Rank(s.account.Priority, o.Ref.Table), Member: s.listed(o.Ref)}
	if p.adopted || p.entry.Ref == o.Ref {
		other.Modified = p.entry.Modified
	}
	if at, asked := s.sync.there[o.Ref]; asked {
		other.Modified = at
	}
	// Between records of one table that are both members, the one that speaks
	// already goes on speaking: a later edit of the other must not make the
	// contact flip from one to the other.
	if !p.adopted && mine.Rank == other.Rank && other.Member {
		other.Modified = mine.Modified + 1
	}
	return merge.Less(other, mine)
}

// recheckOthers has the records that shared a contact with ref looked at again: one
// of them may have to speak for it now.
func (s *session) recheckOthers(ref lockstep.Ref, others []crosswalk.Link) {
	for _, o := range others {
		if o.Ref != ref && o.Ref.Table != "" {
			s.sync.recheck[o.Ref] = true
		}
	}
}

// markConcerned marks the links of records that have to be looked at again because of
// somebody in the batch, before or together with that one's: once the batch is stored
// nothing would tell of them again.
func (w *writer) markConcerned(b *batch) error {
	s := w.s
	if s.dry() || len(s.sync.recheck)+len(s.sync.looking) == 0 {
		return nil
	}
	mine := map[lockstep.Ref]bool{}
	for _, rows := range [][]row{b.rows, b.quiet} {
		for i := range rows {
			if r := &rows[i]; s.sync.recheck[r.ref] {
				mine[r.ref], r.hash = true, transform.Hash128{}
			}
		}
	}
	unmarked := func() (out []crosswalk.Link) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, refs := range []map[lockstep.Ref]bool{s.sync.recheck, s.sync.looking} {
			for ref := range refs {
				if l, ok := s.sync.links.ByRef(ref); ok && !mine[ref] && l.Hash64 != 0 {
					out = append(out, l)
				}
			}
		}
		return out
	}
	if len(unmarked()) == 0 {
		return nil
	}
	w.wg.Wait() // what is on its way may write the same links
	if err := w.failed(); err != nil {
		return err
	}
	links := unmarked()
	slices.SortFunc(links, func(a, b crosswalk.Link) int { return slices.Compare(a.Ref.ID[:], b.Ref.ID[:]) })
	entries, err := s.entries(links)
	if err != nil {
		return err
	}
	out := newLinkChunks(s.sync.bases)
	for _, e := range entries {
		e.Hash = transform.Hash128{}
		out.add(e)
	}
	return s.commit(lockstep.Commit{Links: out.payloads()})
}

// promoted reports that a record which did not speak for its contact has to do so
// now, because nobody else does who outranks it.
func (s *session) promoted(plan *tablePlan, p *person) bool {
	return p.linked && !p.link.Master && !slices.ContainsFunc(p.others, func(o crosswalk.Link) bool {
		return o.Ref != p.rec.Ref && o.Ref.Table != "" && o.Master && s.outranks(o, p, s.candidate(plan, p))
	})
}

// parts reports whether a record leaves the contact of its link in this run, which is not
// stored yet: it speaks for the contact no more.
func (s *session) parts(l crosswalk.Link) bool {
	return l.Contact != "" && s.sync.parted[l.Ref] == l.Contact
}

func (s *session) shared(p *person) bool {
	return slices.ContainsFunc(p.others, func(o crosswalk.Link) bool { return o.Ref != p.rec.Ref && o.Ref.Table != "" })
}

func refs(group []lockstep.Ref) string {
	out := ""
	for i, g := range group {
		if i == 5 {
			return out + fmt.Sprintf(" and %d more", len(group)-i)
		}
		if i > 0 {
			out += ", "
		}
		out += g.String()
	}
	return out
}
