package engine

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// giveUpImport is the age at which an import that never ends is no longer waited
// for; what it was to write is compared and planned anew.
const giveUpImport = 6 * time.Hour

// recover finds out what became of batches that an earlier process or slice left
// open. Nothing new is sent before, because an old import that is carried out late
// would put old values over new ones. Every write can be repeated, so a batch whose
// outcome cannot be known is simply dropped: what it was for is still different and
// is planned again.
func (s *session) recover() error {
	open, err := s.e.Store.OpenBatches(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	mine := slices.ContainsFunc(open, func(b lockstep.Batch) bool { return b.Run == s.run.ID })
	for _, b := range open {
		if b.Run != s.run.ID {
			owner, err := s.e.Store.Run(s.ctx, b.Run)
			if err != nil {
				return err
			}
			if owner.Type == lockstep.SyncUndo && !owner.Status.Ended() {
				if s.dry() || mine {
					continue // the undo goes on with it
				}
				return &lockstep.Error{
					Code: lockstep.CodeUnavailable, Op: "recover", Scope: lockstep.ScopeConnection, After: 2 * time.Second,
					Msg: "an undo was interrupted and goes first",
				}
			}
		}
		if b.Run != s.run.ID && s.dry() && (b.Kind != lockstep.WriteContact || b.State == lockstep.Sent) {
			continue // a preview settles nobody's affairs
		}
		changes, err := journal.Changes(b.Payload)
		if err != nil {
			return err
		}
		s.stage("finding out what became of interrupted work")
		if err := s.recoverBatch(b, changes); err != nil {
			return err
		}
	}
	return nil
}

// askFor is how long there is at least to ask what became of interrupted work.
const askFor = 5 * time.Second

// asking returns a context for asking what became of interrupted work. It lasts for a
// while also when what came before took all the time of the slice: work of a certain age
// is given up, and must have been asked about.
func (s *session) asking() (context.Context, context.CancelFunc) {
	return s.within(max(0, askFor-s.deadline.Sub(s.e.Ticks())))
}

func (s *session) recoverBatch(b lockstep.Batch, changes []lockstep.Change) (err error) {
	end := lockstep.BatchEnd{ID: b.ID, State: lockstep.Dropped}
	for i := range changes {
		if b.State != lockstep.Unknown || changes[i].State == lockstep.Unknown {
			changes[i].State, changes[i].Cause = lockstep.Dropped, "interrupted; compared and planned again"
		}
	}
	c := lockstep.Commit{}
	later := false   // the end is stored once this slice has made use of it
	settled := false // of those whom the import's result mentions
	switch {
	case b.Kind == lockstep.CreateBook || b.Kind == lockstep.RenameBook:
		for _, ch := range changes {
			s.sync.madeBooks[ch.List] = true
		}
		later = true
	case b.State == lockstep.Sent && b.Kind == lockstep.RemoveFromBook:
		ctx, stop := s.asking()
		defer stop()
		if err := s.platform.AwaitRemoval(ctx, b.Job); err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound && s.e.Now().Sub(b.Planned) < giveUpImport {
			if ctx.Err() != nil && s.ctx.Err() == nil {
				return errYield
			}
			return err
		}
	case b.State == lockstep.Sent && b.Kind == lockstep.WriteContact:
		if settled, err = s.recoverImport(b, changes, &c); err != nil {
			return err
		}
		later = !settled || slices.ContainsFunc(changes, unmentioned)
	case b.Kind == lockstep.WriteContact:
		later, settled = true, b.State == lockstep.Unknown
	}
	if later && b.Kind == lockstep.WriteContact {
		for _, ch := range changes {
			if settled && !unmentioned(ch) {
				continue
			}
			s.sync.maybe[contactKey(ch.Contact, ch.Email)] = append(s.sync.maybe[contactKey(ch.Contact, ch.Email)], ch)
			if ch.Contact != "" && ch.Email != "" {
				s.sync.maybe[contactKey("", ch.Email)] = append(s.sync.maybe[contactKey("", ch.Email)], ch)
			}
		}
	}
	end.Payload = journal.Encode(changes)
	for _, ch := range changes {
		if ch.State == lockstep.Acknowledged {
			end.State = lockstep.Acknowledged
		}
	}
	if later {
		s.sync.doubtful = append(s.sync.doubtful, end)
		if len(c.Links)+len(c.Members) == 0 {
			return nil
		}
		return s.commit(c)
	}
	c.Batches = []lockstep.BatchEnd{end}
	return s.commit(c)
}

// unmentioned reports that nobody knows of a change of an import whether it was made.
func unmentioned(c lockstep.Change) bool { return c.State == lockstep.Dropped }

// settleDoubts ends the batches whose outcome nobody knows, once books were compared
// and the platform's feed was read with them in mind.
func (s *session) settleDoubts() error {
	if s.dry() || len(s.sync.doubtful) == 0 {
		return nil
	}
	ends := s.sync.doubtful
	s.sync.doubtful = nil
	return s.commit(lockstep.Commit{Batches: ends})
}

func contactKey(id lockstep.ContactID, email string) string {
	if id != "" {
		return "#" + string(id)
	}
	return email
}

// echo reports whether a field's value on the platform is what an import wanted to
// write there whose outcome is not known: then it is our own word coming back and no
// change of the platform's. mine is set when it was this person's own record that
// spoke, and not another one that shares the contact.
func (s *session) echo(p *person, label string, v lockstep.Value) (ours, mine bool) {
	if len(s.sync.maybe) == 0 {
		return false, false
	}
	email := p.email
	if p.plat != nil {
		email = lockstep.NormalizeEmail(p.plat.Email)
	}
	for _, key := range [...]string{contactKey(p.row.contact, ""), email} {
		for _, c := range s.sync.maybe[key] {
			for _, f := range c.Fields {
				if f.Name == label && asWritten(f.New, v) {
					ours, mine = true, mine || c.Ref == p.rec.Ref
				}
			}
		}
	}
	return ours, mine
}

// asWritten reports whether a value that the platform has is one that was to be written there.
func asWritten(ours, there lockstep.Value) bool {
	return ours == there || ours.Text() == there.Text()
}

// brought are the changes of imports with unknown outcome that wanted the contact in
// an address book where it is: they were carried out. The caller holds s.mu.
func (s *session) brought(c *lockstep.Contact) []lockstep.Change {
	if len(s.sync.maybe) == 0 {
		return nil
	}
	var out []lockstep.Change
	for _, key := range [...]string{contactKey(c.ID, ""), lockstep.NormalizeEmail(c.Email)} {
		for _, ch := range s.sync.maybe[key] {
			there := slices.ContainsFunc(c.Books, func(b lockstep.Membership) bool { return !b.Unsubscribed && slices.Contains(ch.Books, b.Book) })
			again := slices.ContainsFunc(out, func(o lockstep.Change) bool { return o.Ref == ch.Ref })
			if l, linked := s.linkOf(ch.Ref); there && !again && ch.Ref.Table != "" && (!linked || l.Contact == c.ID) {
				out = append(out, ch)
			}
		}
	}
	return out
}

// recoverImport reads the result of an import that was accepted, links what it wrote
// and notes whom it put into which address book. The links are marked stale: their
// records are compared again, which costs a read and no write. settled is false when
// the outcome cannot be known.
func (s *session) recoverImport(b lockstep.Batch, changes []lockstep.Change, into *lockstep.Commit) (settled bool, err error) {
	ctx, stop := s.asking()
	defer stop()
	byContact, byEmail := map[lockstep.ContactID]int{}, map[string]int{}
	created := make([]bool, len(changes))
	for i, c := range changes {
		if c.Contact != "" {
			byContact[c.Contact] = i
		} else {
			byEmail[c.Email] = i
		}
	}
	err = s.platform.AwaitImport(ctx, b.Job, func(results []lockstep.ContactResult) error {
		for _, r := range results {
			i, ok := byContact[r.Contact]
			if !ok {
				if i, ok = byEmail[r.Email]; !ok {
					continue
				}
			}
			c := &changes[i]
			if r.Fault != nil {
				c.State, c.Cause = lockstep.Refused, r.Fault.Msg
			} else if c.State != lockstep.Refused {
				c.State, c.Cause, c.Contact = lockstep.Acknowledged, "", r.Contact
				created[i] = r.Created
			}
		}
		return nil
	})
	switch {
	case err == nil:
	case ctx.Err() != nil && s.ctx.Err() == nil && s.e.Now().Sub(b.Planned) < giveUpImport:
		return false, errYield
	case lockstep.CodeOf(err) == lockstep.CodeNotFound || s.e.Now().Sub(b.Planned) >= giveUpImport || lockstep.ScopeOf(err) != lockstep.ScopeConnection:
		return false, nil // lost or refused as a whole
	default:
		return false, err
	}
	out := newLinkChunks(s.sync.bases)
	s.mu.Lock()
	var known, left, demoted []crosswalk.Link
	var fresh []int
	written := map[lockstep.Ref]lockstep.Change{}
	for _, c := range changes {
		if c.State == lockstep.Acknowledged {
			written[c.Ref] = c
		}
	}
	moved := map[lockstep.Ref]bool{} // to a contact of their own, from one that they shared
	for i, c := range changes {
		if c.State != lockstep.Acknowledged || c.Ref.Table == "" {
			continue
		}
		l, ok := s.linkOf(c.Ref)
		switch {
		case ok && l.Contact == c.Contact:
			known = append(known, l)
			continue
		case ok:
			moved[c.Ref] = true
			for _, o := range s.sync.links.ByContact(l.Contact, nil) {
				if o.Ref != c.Ref && o.Ref.Table != "" {
					left = append(left, o) // one of these may have to speak for it now
				}
			}
		}
		if spoken(c) {
			demoted = append(demoted, slices.DeleteFunc(s.sync.links.ByContact(c.Contact, nil), func(o crosswalk.Link) bool {
				_, mine := written[o.Ref]
				return mine || !o.Master || o.Ref.Table == ""
			})...)
		}
		fresh = append(fresh, i)
	}
	s.mu.Unlock()
	for _, i := range fresh {
		out.add(s.recovered(changes[i], created[i]))
	}
	others, err := s.entries(left)
	if err != nil {
		return false, err
	}
	for _, e := range others {
		if e.Hash = [16]byte{}; !moved[e.Ref] {
			out.add(e)
		}
	}
	if others, err = s.entries(demoted); err != nil {
		return false, err
	}
	for _, e := range others {
		e.Hash, e.Seen, e.Master = [16]byte{}, 0, false
		out.add(e)
	}
	entries, err := s.entries(known)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		c := written[e.Ref]
		e.Hash, e.Email = [16]byte{}, c.Email
		for _, f := range c.Fields {
			if i, ok := slices.BinarySearch(s.sync.names, f.Name); ok {
				if e.Base[i] != f.New && e.Apart != nil {
					e.Apart[i] = lockstep.Value{} // an undo notes beforehand what it sets apart
				}
				e.Base[i] = f.New
			}
		}
		if e.Seen != 0 { // else what the contact says is not known, and is read again
			e.Seen = seenHash(e.Email, e.Standing, e.OptIn, e.Base)
		}
		out.add(e)
	}
	into.Links = out.payloads()
	return true, s.recoverMembers(changes, into)
}

// spoken reports whether a change told a contact what its record says: the record speaks
// for the contact, and none of the others that share it does so any longer.
func spoken(c lockstep.Change) bool {
	return slices.ContainsFunc(c.Fields, func(f lockstep.FieldChange) bool { return f.Name != emailLabel })
}

// recovered is the link of a record whose contact an interrupted import wrote.
func (s *session) recovered(c lockstep.Change, created bool) crosswalk.Entry {
	base := make([]lockstep.Value, len(s.sync.names))
	if created {
		for i := range base {
			base[i] = lockstep.NullValue() // what was not written is empty
		}
	}
	for _, f := range c.Fields {
		if i, ok := slices.BinarySearch(s.sync.names, f.Name); ok {
			base[i] = f.New
		}
	}
	e := crosswalk.Entry{Ref: c.Ref, Contact: c.Contact, Email: c.Email, Standing: lockstep.Subscribed, Master: true, Base: base}
	if created {
		e.Seen = seenHash(c.Email, lockstep.Subscribed, 0, base)
	}
	return e // of a contact that was there before the rest is not known: it is read again
}

// recoverMembers notes whom an interrupted import put into address books. Their lists
// are read in full by whoever works on them next: a record that was deleted or left a
// list meanwhile has to leave the book, and nothing would tell of it again.
//
// The contact that a record left with this import has to leave its books too, unless
// another record keeps it there. Whom a record had in a book its membership tells, and
// not its link, which may have ended with what was stored before.
func (s *session) recoverMembers(changes []lockstep.Change, into *lockstep.Commit) error {
	settings, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	for i := range settings {
		set := &settings[i]
		l := &listState{set: *set}
		batch := crosswalk.NewMemberBatch()
		for _, c := range changes {
			if c.State != lockstep.Acknowledged || c.Ref.Table != set.MemberTable || set.Book == "" || !slices.Contains(c.Books, set.Book) {
				continue
			}
			if err := s.loadMembers(l); err != nil {
				return err
			}
			if left, leaves := leavesBehind(l, c.Ref.ID, c.Contact); leaves {
				batch.Append(left)
			}
			batch.Append(crosswalk.Member{Record: c.Ref.ID, Contact: c.Contact, InList: true, InBook: true})
		}
		if batch.Len() == 0 {
			continue
		}
		into.Members = append(into.Members, lockstep.MemberBlob{List: set.ID, Payload: batch.Bytes()})
		if err := s.loadSummary(l); err != nil {
			return err
		}
		l.sum.Dirty = true
		cursor, err := json.Marshal(l.sum)
		if err != nil {
			return err
		}
		if into.Cursors == nil {
			into.Cursors = map[string]lockstep.Cursor{}
		}
		into.Cursors[l.cursor()] = lockstep.Cursor(cursor)
	}
	return nil
}
