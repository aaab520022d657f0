package engine

import (
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// emailLabel names the address in conflicts and changes; it is no data field.
const emailLabel = "EMAIL"

// person is one CRM record of a page on its way through linking and merging.
type person struct {
	rec    *lockstep.Record
	claim  uint64 // the key of the address that others wait for, 0 = none
	link   crosswalk.Link
	linked bool
	// entry is the link's base; for a record that is linked now for the first
	// time to a contact that exists, entry.Base holds what the platform said.
	entry   crosswalk.Entry
	adopted bool // linked to an existing contact in this run
	others  []crosswalk.Link
	// succeeds is set with adopted when what the contact says is what a record said that
	// has another address now: this one's word replaces it, where it is empty too.
	succeeds bool
	// replaces is set when the address may still be that of somebody's contact who is on
	// the way to another one: all that the record says is written then.
	replaces bool
	former   crosswalk.Link // to the contact that the record leaves
	vacated  []crosswalk.Link
	// refusal is the record's own link without a contact, refusing those of other
	// records with the address; group is the strictest word of all.
	refusal  crosswalk.Link
	refusing []crosswalk.Link
	group    lockstep.OptOut
	plat     *lockstep.Contact // as read now; nil = as the base
	// platPartial is set when plat does not tell the memberships.
	platPartial bool
	vals        []lockstep.Value // in label form, in the plan's order
	hash        transform.Hash128
	email       string // normalised
	noEmail     string // why it cannot be mailed; empty = it can
	lists       []*listState
	row         row
	aside       bool // put off by a guard
	toCRM       []lockstep.ColumnValue
	crmPos      []int // names written to the CRM, by position; -1 = the address
	crmOld      []lockstep.Value
}

// mergePage carries one page of records through link → merge → changes. plat tells
// what the platform says now about a linked contact; without it, or where it has
// no answer, the platform is taken to be as the base.
func (s *session) mergePage(table string, recs []lockstep.Record, plat func(lockstep.ContactID) *lockstep.Contact) error {
	plan := s.sync.plans[table]
	if plan == nil || len(recs) == 0 {
		return nil
	}
	for _, l := range s.sync.byTable[table] {
		if err := s.loadMembers(l); err != nil {
			return err
		}
	}
	wait, err := s.untangle(recs)
	if err != nil {
		return err
	}
	people := s.sync.people[:0]
	defer func() {
		clear(people) // its memory is kept for the next page, what it points to is not
		s.sync.people = people[:0]
	}()
	slab := make([]lockstep.Value, 0, len(recs)*len(plan.pos))
	var deferred []lockstep.Record
	var equal int64
	for i := range recs {
		r := &recs[i]
		if r.Deleted {
			s.gone(table, r.ID, nil)
			equal++
			continue
		}
		if wait[r.ID] {
			deferred = append(deferred, *r)
			continue
		}
		s.reopens(r)
		s.movesOn(r.Ref, lockstep.NormalizeEmail(r.Email))
		if !r.MergedInto.IsZero() {
			s.follow(table, r)
		}
		s.mu.Lock()
		link, linked := s.linkOf(r.Ref)
		var refusal crosswalk.Link
		if !linked {
			refusal, _ = s.sync.links.ByRef(r.Ref)
		}
		lists := s.scope(table, r.ID)
		s.mu.Unlock()
		if !r.MergedInto.IsZero() {
			link, linked = crosswalk.Link{}, false
		}
		if e, ok := s.sync.exchanged[r.Ref]; ok && s.dry() { // a run has noted it in the link
			link.Contact, link.Email, link.Hash64, link.Seen, link.Master = e.Contact, crosswalk.EmailKey(e.Email), 0, e.Seen, e.Master
		}
		p := person{rec: r, link: link, linked: linked, refusal: refusal, lists: lists, email: lockstep.NormalizeEmail(r.Email)}
		if s.lookedAt(&p) {
			equal++
			continue
		}
		if len(p.lists) == 0 {
			equal++
			var c *lockstep.Contact
			if linked && plat != nil {
				c = plat(link.Contact)
			}
			if c != nil && c.Email != "" && link.Email != crosswalk.EmailKey(lockstep.NormalizeEmail(c.Email)) && !s.shares(r.Ref) {
				s.sync.elsewhere[link.Contact] = true // nobody carries that into the link before others ask for it
			}
			moved := link.Email != crosswalk.EmailKey(p.email) || c != nil && lockstep.NormalizeEmail(c.Email) != p.email
			switch {
			case s.dry():
			case !linked && refusal.Ref == r.Ref && (refusal.Email != crosswalk.EmailKey(p.email) || r.OptOut == 0):
				s.retract(refusal) // its word was about another address, or is taken back
			case linked && moved && s.shares(r.Ref): // the others have the contact's address
				s.mu.Lock()
				others := s.sync.links.ByContact(link.Contact, nil)
				s.mu.Unlock()
				s.recheckOthers(r.Ref, others)
				s.sync.vacated[r.Ref] = movedAway
				s.unlink(link)
			case linked:
				// Changed while in no list of this run: looked at when it is in one again.
				if r.OptOut == 0 {
					s.withdraw(link)
				}
				s.unwanted(staleLink{link: link, platform: c != nil, opened: r.OptOut == 0, moved: moved && lockstep.CheckEmail(p.email) == ""})
				if link.Master {
					s.mu.Lock()
					others := s.sync.links.ByContact(link.Contact, nil)
					s.mu.Unlock()
					s.recheckOthers(link.Ref, others)
				}
			}
			s.leave(table, r.ID)
			continue
		}
		start := len(slab)
		slab = plan.t.Out(r, slab, s.report(r.Ref, link.Contact))
		p.vals = slab[start:len(slab):len(slab)]
		p.hash = transform.ContentHash(plan.t.Version(), p.email, r.OptOut, r.Inactive, p.vals)
		p.noEmail = lockstep.CheckEmail(p.email)
		if !r.MergedInto.IsZero() {
			p.noEmail = whyMerged
		}
		if linked && plat != nil {
			p.plat = plat(link.Contact)
		}
		if linked && p.plat == nil && link.Hash64 == p.hash.Hash64() && !s.due(&p) {
			// Closed by us and opened by somebody since it was looked at: it is as it was.
			if p.noEmail == "" {
				s.bars(p.email, r.OptOut)
			}
			equal++
			continue
		}
		if !s.claim(&p) {
			deferred = append(deferred, *r)
			continue
		}
		people = append(people, p)
	}
	s.count(lockstep.Counts{Read: equal, Equal: equal})
	if err := s.mergePeople(plan, people); err != nil {
		return err
	}
	if len(deferred) > 0 {
		// Records that share an address with one that is still on its way wait
		// until that one's contact is known.
		if err := s.sync.writer.drain(); err != nil {
			return err
		}
		if len(deferred) == len(recs) {
			// Nobody is on the way any more, so nobody is waited for.
			s.mu.Lock()
			clear(s.sync.inflight)
			s.mu.Unlock()
		}
		return s.mergePage(table, deferred, plat)
	}
	return nil
}

// speaks reports whether what the record says concerns others with its address.
func (p *person) speaks() bool {
	return p.noEmail == "" || p.noEmail == whyMerged && p.rec.OptOut != 0 && lockstep.CheckEmail(p.email) == ""
}

// claim takes the person's address for this record; false while another record with
// the same address is on its way. release gives it back.
func (s *session) claim(p *person) bool {
	if !p.speaks() {
		return true
	}
	k := crosswalk.EmailKey(p.email)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sync.inflight[k] > 0 {
		return false
	}
	s.sync.inflight[k]++
	p.claim = k
	return true
}

// due reports whether a record whose content did not change has to be looked at
// all the same, because of the lists it is in or because a person decided a conflict.
func (s *session) due(p *person) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range p.lists {
		if !l.touched {
			continue
		}
		m, ok := l.members.Record(p.rec.ID)
		if !ok || !m.InList || !m.InBook && !m.Excluded || l.ruled() {
			return true
		}
	}
	for k := range s.sync.resolve {
		if k.ref == p.rec.Ref {
			return true
		}
	}
	return s.sync.recheck[p.rec.Ref]
}

// mergePeople links and merges people of one page, writes to the CRM what the
// platform said, and queues what the platform has to be told.
func (s *session) mergePeople(plan *tablePlan, people []person) error {
	if len(people) == 0 {
		return nil
	}
	// Of all beforehand: what one of them does, and be it that it finds another contact,
	// may concern another, whose links were read before.
	for i := range people {
		if ref := people[i].rec.Ref; s.sync.recheck[ref] {
			delete(s.sync.recheck, ref)
			s.sync.looking[ref] = true
		}
	}
	if err := s.askClosers(people); err != nil {
		return err
	}
	if err := s.fetchEntries(people); err != nil {
		return err
	}
	if err := s.seekMasters(plan, people); err != nil {
		return err
	}
	if err := s.askPlatform(plan, people); err != nil {
		return err
	}
	for i := range people {
		if err := s.renounce(plan, people[i:i+1]); err != nil {
			return err
		}
	}
	if err := s.askClosers(people); err != nil { // of the addresses that were read now
		return err
	}
	var writes []*person
	for i := range people {
		p := &people[i]
		s.mergePerson(plan, p)
		s.expectAfter(plan, p)
		if s.dry() {
			s.sync.looked[p.rec.Ref] = len(p.lists)
			s.showOnce(p)
		}
		if s.clears(p) {
			if err := s.setAside(plan, p); err != nil {
				return err
			}
			s.mu.Lock()
			delete(s.sync.again, p.rec.Ref) // not tried yet
			s.mu.Unlock()
		}
		if len(p.toCRM) > 0 {
			writes = append(writes, p)
		}
	}
	if err := s.writeRecords(plan, writes); err != nil {
		return err
	}
	// Read and what became of it are counted at once, so that a commit in between
	// never stores one without the other.
	n := lockstep.Counts{Read: int64(len(people))}
	for i := range people {
		p := &people[i]
		if p.aside {
			n.Read--
			s.release(p)
			delete(s.sync.looking, p.rec.Ref)
			s.sync.writer.cur.note(p.row)
			if err := s.sync.writer.fill(); err != nil {
				return err
			}
			continue
		}
		queued, err := s.queue(p)
		if err != nil {
			return err
		}
		switch {
		case queued || len(p.toCRM) > 0:
			n.Written++
		case p.row.outcome == outcomeConflict:
			n.Conflicted++
		case p.row.outcome == outcomeRejected:
			n.Rejected++
		case p.row.outcome == outcomeHeld:
			n.Guarded++
		default:
			n.Equal++
		}
	}
	s.count(n)
	return nil
}

// fetchEntries reads the bases of the people that need one: their own link's, or
// that of the contact which already has their address.
func (s *session) fetchEntries(people []person) error {
	type want struct {
		p     *person
		link  crosswalk.Link
		check bool // the address has to be compared, only its key is known
	}
	var wants []want
	var ranges []lockstep.BlobRange
	var same []crosswalk.Link
	s.mu.Lock()
	for i := range people {
		p := &people[i]
		if p.linked {
			wants = append(wants, want{p, p.link, false})
			p.others = slices.DeleteFunc(s.sync.links.ByContact(p.link.Contact, nil), func(k crosswalk.Link) bool { return s.sync.vacated[k.Ref] != stays && k.Ref != p.rec.Ref })
			for i, o := range p.others {
				p.others[i].Master = o.Master && !s.parts(o)
			}
			if p.noEmail != "" && (s.shared(p) || s.sync.vacated[p.rec.Ref] != stays) {
				// It has no address any more, and others keep theirs or take it over. It
				// speaks for nobody from now on, not only once that is stored.
				s.recheckOthers(p.rec.Ref, p.others)
				s.sync.vacated[p.rec.Ref] = movedAway
				p.linked, p.others, p.former, p.plat = false, nil, p.link, nil
				wants = wants[:len(wants)-1]
			}
		}
		if p.noEmail != "" {
			continue
		}
		// Who has the address already needs to know of those alone who refuse it, unless
		// its contact is gone and its person came to the platform again.
		own := p.linked && p.link.Email == crosswalk.EmailKey(p.email)
		same = s.sync.links.ByEmail(p.email, same[:0])
		for _, l := range same {
			switch {
			case l.Ref == p.rec.Ref || own && l.Contact == p.link.Contact:
			case own && l.Contact != "":
				wants = append(wants, want{p, l, true})
			case s.left(l.Ref, p.email):
				p.replaces = !s.dry() || !s.sync.settled[l.Ref] // in a preview nobody has gone yet
			default:
				wants = append(wants, want{p, l, true})
			}
		}
	}
	labels := make([][]string, len(wants))
	for i, w := range wants {
		ranges = append(ranges, w.link.Where)
		labels[i] = s.sync.links.Labels(w.link.Where.Blob)
	}
	s.mu.Unlock()
	if len(wants) == 0 {
		return nil
	}
	bodies, err := s.e.Store.LinkRanges(s.ctx, ranges)
	if err != nil {
		return err
	}
	for i, w := range wants {
		e, err := crosswalk.DecodeEntry(labels[i], bodies[i])
		if err != nil {
			return err
		}
		e.Base, e.Apart = s.rebase(labels[i], e.Base), s.rebaseApart(labels[i], e.Apart)
		if !w.check {
			if x, ok := s.sync.exchanged[w.p.rec.Ref]; ok && s.dry() {
				e = x
				e.Base = slices.Clone(x.Base)
				w.p.others = nil
			}
			w.p.entry = e
			continue
		}
		own := w.p.linked && w.p.entry.Email == w.p.email
		if e.Email != w.p.email || own && e.Contact != "" && (s.isGone(&e) || !s.isGone(&w.p.entry)) {
			continue
		}
		// Another link has this address: its contact is this person's contact.
		s.join(w.p, w.link, e)
	}
	return nil
}

// askPlatform reads contacts of whose state no base tells: they changed on the platform
// while no list of a run wanted them, they got another address while this run went on,
// the record that spoke for them is gone, or its table
// has not all of the labels.
func (s *session) askPlatform(plan *tablePlan, people []person) error {
	for i := range people {
		p := &people[i]
		switch {
		case p.plat != nil:
			continue
		case p.linked && (p.link.Seen == 0 || s.sync.readdressed[p.link.Contact] || s.promoted(plan, p)):
		case p.adopted && (p.link.Seen == 0 || !spoke(p.link) || p.link.Ref.Table != "" && !plan.knows(p.entry.Base)):
		default:
			continue
		}
		c, err := s.platform.ContactByID(s.ctx, p.link.Contact, s.sync.names)
		switch {
		case lockstep.CodeOf(err) == lockstep.CodeNotFound:
			s.noteGone(p.link.Contact)
			c = lockstep.Contact{ID: p.link.Contact, Email: p.entry.Email, Standing: lockstep.ContactDeleted, Values: s.sync.absent}
		case err != nil:
			return err
		}
		p.plat = &c
		p.platPartial = true
	}
	return nil
}

// rebase brings base values from a batch's own labels into today's order.
func (s *session) rebase(labels []string, base []lockstep.Value) []lockstep.Value {
	if slices.Equal(labels, s.sync.bases) && len(base) == len(labels) {
		return base
	}
	out := make([]lockstep.Value, len(s.sync.names))
	for i, l := range labels {
		if j, ok := slices.BinarySearch(s.sync.bases, l); ok && i < len(base) {
			out[j] = base[i]
		}
	}
	return out
}

// rebaseApart is rebase for values of which there are none as a rule.
func (s *session) rebaseApart(labels []string, apart []lockstep.Value) []lockstep.Value {
	if apart == nil {
		return nil
	}
	return s.rebase(labels, apart)
}

// mergePerson decides what one person's record and contact have to be told.
func (s *session) mergePerson(plan *tablePlan, p *person) {
	s.disinherit(p)
	p.row = row{ref: p.rec.Ref, optOut: p.rec.OptOut, email: p.email, hash: p.hash, modified: p.rec.Modified.Unix(), master: true, why: whyNew}
	r := &p.row
	known := p.linked || p.adopted
	if known {
		r.contact = p.link.Contact
		r.standing, r.optIn = p.entry.Standing, p.entry.OptIn
		r.why = whyChanged
		if p.adopted {
			r.why = whyLinked
		}
	}
	if p.plat != nil {
		r.standing, r.optIn = p.plat.Standing, p.plat.OptIn
	}
	if s.goneNow(r.contact) {
		r.standing = lockstep.ContactDeleted
	}
	r.base = s.sync.slab.take(len(s.sync.names))
	if p.linked {
		copy(r.base, p.entry.Base)
		r.parted = slices.Clone(p.entry.Apart)
	}
	s.chooseMaster(plan, p)
	if r.master && p.plat != nil && (p.linked && !p.link.Master || p.adopted && len(r.demote) == 0 && (p.succeeds || !spoke(p.link))) {
		s.succeed(plan, p)
	}
	s.foresee(plan, p)
	if !p.linked && !p.adopted && p.noEmail != whyMerged && forsaken(p.refusal) {
		r.standing = lockstep.ContactDeleted
	}
	if r.standing == lockstep.ContactDeleted {
		// Deleted on the platform: nobody is made anew from the CRM's copy.
		s.finding(lockstep.Finding{
			Code: lockstep.FindingContactGone, Table: plan.table, Record: p.rec.ID, Contact: r.contact,
			Message: "the contact was deleted on the platform; it is not created again", Hint: "add the person on the platform if that was a mistake",
		})
		r.outcome = outcomeRejected
		switch {
		case p.adopted: // after the contact had gone; see disinherit
			r.modified = 0
			if len(r.demote) > 0 {
				r.master, r.demote = false, nil
			}
		case p.linked && p.entry.Modified == 0:
			r.modified = 0
		case p.linked && p.entry.Email != p.email && p.noEmail == "":
			r.contact, r.master, r.demote, r.parted = "", true, nil, nil // see forsaken
			clear(r.base)
		}
		s.membership(plan, p)
		r.keepOnly = true
		return
	}
	s.mergeEmail(p)
	if r.master {
		s.mergeFields(plan, p)
	} else {
		s.voiceless(p)
	}
	s.membership(plan, p)
}

// disinherit ends a record's link to a contact that is gone and that never had the
// record's address: it was that of the loser of a merge, or of somebody else to whose
// address the record came when the contact had gone, or the record came to its address
// while in no list. Who deleted the contact said nothing about that address.
func (s *session) disinherit(p *person) {
	inherited := p.linked && p.entry.Modified == 0 && p.entry.Email != p.email && p.noEmail == ""
	if !inherited || !s.isGone(&p.entry) {
		return
	}
	p.linked, p.others, p.former, p.plat = false, nil, p.link, nil
}

// mergeEmail follows a changed address: it is a rename, not a new person.
func (s *session) mergeEmail(p *person) {
	if !p.linked {
		s.homeless(p)
		if p.adopted && p.row.contact != "" {
			p.row.email, p.row.newEmail = "", p.email // matched by this address: nothing to rename
		}
		return
	}
	base, crm := p.entry.Email, p.email
	plat := base
	if p.plat != nil && p.plat.Email != "" {
		plat = lockstep.NormalizeEmail(p.plat.Email)
	}
	r := &p.row
	r.email = ""
	r.newEmail = base
	if p.noEmail != "" {
		crm = base // an unusable address is no rename; membership sees to it
	}
	out, decided := s.decideEmail(p, plat)
	if !decided {
		out = merge.Field(merge.FieldInput{
			Rule: merge.Rule{Out: merge.Way{Mapped: true, Required: true}, In: merge.Way{Mapped: true, Required: true, Cautious: true}, Policy: lockstep.WinnerNewest},
			Base: lockstep.TextValue(base), CRM: lockstep.TextValue(crm), Platform: lockstep.TextValue(plat),
			CRMAt: p.rec.Modified, PlatformAt: platAt(p),
		})
	}
	if out.Conflict {
		s.conflict(p, emailLabel, lockstep.EmailColumn, out, lockstep.WinnerNewest, lockstep.TextValue(base), lockstep.TextValue(crm), lockstep.TextValue(plat))
	}
	switch {
	case out.WritePlatform && out.WriteCRM:
		s.readdress(p, out.Value)
	case out.WritePlatform && r.master && !s.shared(p):
		delete(s.sync.elsewhere, r.contact)
		r.email, r.newEmail, r.oldEmail = out.Value.Text(), out.Value.Text(), base
		r.why = whyRenamed
	case out.WritePlatform:
		// The record shares its contact with others that keep the old address: it
		// becomes a person of its own.
		s.recheckOthers(p.rec.Ref, p.others)
		p.linked, p.others, p.former = false, nil, p.link
		r.contact, r.email, r.newEmail, r.master, r.demote = "", crm, crm, true, nil
		r.standing, r.optIn, r.why = lockstep.StandingUnknown, lockstep.OptInUnknown, whyNew
		clear(r.base)
		r.parted, p.plat = nil, nil
	case out.WriteCRM:
		p.emailToCRM(out.Value)
		r.newEmail = out.Value.Text()
	default:
		r.newEmail = out.Base.Text()
	}
}

// mergeFields merges each mapped label of the record that speaks for the contact.
func (s *session) mergeFields(plan *tablePlan, p *person) {
	r := &p.row
	r.values = s.sync.slab.take(len(s.sync.names))
	known := p.linked || p.adopted
	if known { // else nothing was there
		r.old = s.sync.slab.take(len(s.sync.names))
		copy(r.old, r.base)
	}
	held, waiting := s.holds(p), []string(nil)
	for i, pos := range plan.pos {
		in := merge.FieldInput{Rule: plan.rules[i], Base: r.base[pos], Apart: r.partedAt(pos), CRM: p.vals[i], CRMAt: p.rec.Modified}
		switch {
		case p.plat != nil:
			in.Platform, in.PlatformAt = plan.t.Platform(i, p.plat.Values[pos], s.report(p.rec.Ref, r.contact)), p.plat.Modified
			if ours, mine := s.echo(p, s.sync.names[pos], in.Platform); mine || ours && p.linked {
				in.Base, r.base[pos] = in.Platform, in.Platform
			}
		case p.linked:
			in.Platform = lockstep.Value{} // as the base
		case p.adopted && len(r.demote) == 0 && !p.succeeds:
			in.Platform = lockstep.NullValue()
			if v := p.entry.Base[pos]; !v.IsAbsent() { // what the platform said of the contact nobody had linked
				in.Platform = plan.t.Platform(i, v, s.report(p.rec.Ref, r.contact))
				if _, mine := s.echo(p, s.sync.names[pos], in.Platform); mine {
					in.Base, r.base[pos] = in.Platform, in.Platform
				}
			}
		case p.adopted:
			in.Platform = lockstep.Value{}
		default:
			in.Platform = lockstep.NullValue()
		}
		label := s.sync.names[pos]
		if c, ok := s.decision(p, label); ok && s.decide(plan, p, i, pos, c, in.CRM, in.Platform) {
			continue
		}
		out := merge.Drift(in, merge.Field(in))
		if held != free && (out.WritePlatform || out.WriteCRM) {
			waiting = append(waiting, label)
			continue
		}
		r.part(pos, out.Apart)
		if out.Conflict {
			s.conflict(p, label, plan.t.Fields()[i].Column(), out, in.Rule.Policy, in.Base, in.CRM, in.Platform)
			r.apart = r.apart || out.Winner == merge.Neither
		}
		switch {
		case p.replaces && !known && in.Rule.Out.Mapped && !out.WritePlatform && in.CRM.IsNull():
			r.values[pos], r.base[pos] = in.CRM, in.CRM
		case out.WritePlatform:
			r.values[pos] = out.Value
			if p.plat != nil || p.adopted {
				r.old[pos] = in.Platform
			}
			r.base[pos] = out.Base
		case out.WriteCRM:
			v, ok := plan.t.In(i, out.Value, s.report(p.rec.Ref, r.contact))
			if !ok {
				r.outcome, r.apart = outcomeRejected, true
				r.part(pos, in.Apart)
				continue // the base stays, so that a corrected value travels
			}
			p.toCRM = append(p.toCRM, lockstep.ColumnValue{Column: plan.t.Fields()[i].Column(), Value: v})
			p.crmPos = append(p.crmPos, pos)
			p.crmOld = append(p.crmOld, plan.stored(p.rec, i))
			r.base[pos] = out.Base
			r.undo = append(r.undo, undoBase{pos, in.Base, in.Apart})
		default:
			r.base[pos] = out.Base
			if r.old != nil {
				r.old[pos] = out.Base // agreed, even if the platform refuses the row
			}
		}
	}
	if len(waiting) > 0 {
		s.holdBack(p, waiting, held)
	}
}

// report turns a conversion problem of one record into a finding.
func (s *session) report(ref lockstep.Ref, contact lockstep.ContactID) transform.Report {
	return func(label, code, msg, hint string) {
		s.finding(lockstep.Finding{Code: code, Table: ref.Table, Record: ref.ID, Contact: contact, Field: label, Message: msg, Hint: hint})
	}
}

func platAt(p *person) (t timeValue) {
	if p.plat != nil {
		return p.plat.Modified
	}
	return t
}

// keeper reports whether another record of the same contact keeps it in the list's
// address book. The caller holds s.mu.
func (s *session) keeper(l *listState, p *person) bool {
	for _, o := range p.others {
		if o.Ref == p.rec.Ref || o.Ref.Table != l.set.MemberTable || p.row.contact == "" || o.Contact != p.row.contact || s.parts(o) {
			continue
		}
		if m, ok := l.members.Record(o.Ref.ID); ok && m.InBook && m.InList {
			return true
		}
	}
	return false
}

// leavesBehind is what remains in the list's book of the contact that a record had there
// before it got another one: somebody who has to leave.
func leavesBehind(l *listState, id lockstep.ID, now lockstep.ContactID) (left crosswalk.Member, leaves bool) {
	was, _ := l.members.Record(id)
	return crosswalk.Member{Contact: was.Contact, InBook: true, Former: true}, was.InBook && was.Contact != "" && was.Contact != now
}

// membership decides about the person's place in the address book of each list.
func (s *session) membership(plan *tablePlan, p *person) {
	r := &p.row
	optOut := s.groupOptOut(p)
	p.group = optOut
	barred := (p.noEmail == "" || p.noEmail == whyMerged) && s.bars(p.email, p.rec.OptOut)
	if email := p.onPlatform(); email != "" && r.email == "" {
		barred = s.bars(email, p.rec.OptOut) || barred
	}
	gone := r.contact == "" && r.standing == lockstep.ContactDeleted
	var found []lockstep.Finding
	s.mu.Lock()
	delete(s.sync.parted, p.rec.Ref)
	if p.former.Contact != "" && p.former.Contact != r.contact {
		s.sync.parted[p.rec.Ref] = p.former.Contact
	}
	for _, l := range p.lists {
		m, ok := l.members.Record(p.rec.ID)
		if ok && m.InBook && m.Excluded { // was to leave the book, which is decided anew
			l.removals = slices.DeleteFunc(l.removals, func(x removal) bool { return x.member.Record == p.rec.ID })
		}
		if ok && m.Contact != "" && m.Contact != r.contact {
			// The record belongs to another contact now; the old one stays in the
			// book only if somebody else keeps it there, which spare asks when all
			// have been looked at: whoever shares it may leave it in the same run.
			if left, leaves := leavesBehind(l, p.rec.ID, r.contact); leaves && !gone {
				l.removals = append(l.removals, removal{member: left, why: whyMoved})
				if !s.dry() {
					l.put(left)
				}
				s.owe(l)
			}
			m.InBook, m.Contact = false, ""
		}
		m.Record = p.rec.ID
		unsubscribed := m.Unsubscribed
		inBook := m.InBook
		if p.plat != nil && !p.platPartial {
			inBook = false
			for _, b := range p.plat.Books {
				if b.Book == l.book.ID {
					inBook, unsubscribed = !b.Unsubscribed, b.Unsubscribed
				}
			}
		}
		if !inBook && !m.InBook && (s.keeper(l, p) || s.expectedIn(l, p)) {
			inBook = true // another record of the same contact is in the book already
		}
		if !inBook && r.contact != "" && !m.InBook {
			if st, isStranger := l.members.Stranger(r.contact); isStranger && st.InBook {
				inBook = true
				if !s.dry() {
					l.put(crosswalk.Member{Contact: r.contact}) // no stranger any more
				}
			}
		}
		reason, excluded := merge.Excluded(l.set.SubscriptionFilter, l.set.MinOptIn, optOut, r.standing, unsubscribed, r.optIn)
		if !excluded && p.rec.Inactive {
			reason, excluded = whyInactive, true
		}
		if !excluded && barred {
			reason, excluded = merge.ExcludedSuppressed, true
		}
		if !excluded && r.outcome == outcomeRejected && r.standing == lockstep.ContactDeleted {
			reason = whyGone
		}
		out := merge.Membership(merge.MembershipInput{
			Dynamic: l.set.Dynamic, Action: l.set.MembershipAction, MirrorRemovals: l.set.MirrorRemovals,
			InList: true, WasInList: m.InList, InBook: inBook, WasInBook: m.InBook,
			NoEmail: p.noEmail != "", Excluded: reason, Standing: r.standing, Unsubscribed: unsubscribed, Kept: m.Undone && m.InList,
		})
		if out.Finding != "" {
			f := lockstep.Finding{Code: out.Finding, Table: plan.table, Record: p.rec.ID, Contact: r.contact, List: l.set.ID, Message: out.Why}
			if p.noEmail != "" {
				f.Message, f.Hint = p.noEmail, "correct the address in the CRM"
				if p.email != "" {
					f.Code = lockstep.FindingMalformedEmail
				}
			}
			found = append(found, f)
		}
		was := m
		m.Undone = m.Undone && m.InList && !inBook
		m.InList, m.Unsubscribed, m.Excluded, m.Lapsed = true, unsubscribed, false, false
		if r.contact != "" {
			m.Contact = r.contact
		}
		switch out.Op {
		case merge.AddToBook:
			if s.sync.unread {
				s.sync.recheck[p.rec.Ref] = true // somebody with the address may refuse since
				continue
			}
			r.adds = append(r.adds, l)
			continue // noted when it is acknowledged
		case merge.RemoveFromBook:
			m.InBook, m.Excluded, m.Lapsed = true, true, !consentReasons[out.Why]
			if s.keeper(l, p) {
				m.InBook = false // that record decides
			} else {
				l.removals = append(l.removals, removal{member: m, why: out.Why})
				s.owe(l)
			}
		default:
			m.InBook = inBook
			m.Excluded = !inBook
		}
		if m != was && !s.dry() {
			l.put(m)
		}
	}
	s.mu.Unlock()
	for _, f := range found {
		s.finding(f)
	}
	if p.noEmail != "" && r.contact == "" {
		r.keepOnly = true
		r.outcome = outcomeRejected
	}
	if r.contact == "" && len(r.adds) == 0 {
		r.keepOnly = true // nobody is created who would be in no book
	}
}
