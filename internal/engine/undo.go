package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// An undo walks the journal of a run backwards, batch by batch, and writes what each
// acknowledged change replaced, where both sides are still as that change left them.
// What was changed since, and what must not or cannot be taken back, becomes a
// finding and stays.
//
// Before a batch is written, the links say already that the two sides are set apart
// there (crosswalk.Entry.Apart), with both hashes forgotten: that is true whether the
// write arrives or not, because sides that turn out to be equal simply agree. So a
// process may die at any moment and whoever comes next neither repeats what was
// undone nor carries the old value to the other side.

// undoing is the state of an undo in one slice.
type undoing struct {
	target lockstep.Run
	record lockstep.Ref // zero = all
	field  string       // empty = all
	why    string
	lists  map[lockstep.ID]*listState // by marketing list
	books  map[lockstep.BookID]*listState
	done   undoProgress
	// own are the fields whose writes an earlier process left open: true when they
	// turned out to be carried out, false when they are to be written again. ends are
	// the batches that are closed once that is done.
	own  map[undoKey]bool
	ends []lockstep.BatchEnd
}

type undoKey struct {
	ref   lockstep.Ref
	field string
}

// undoProgress is what the next slice needs to know.
type undoProgress struct {
	Below   int64           `json:"below"` // the batches of the run from this one on are undone
	Scanned bool            `json:"scanned"`
	Direct  bool            `json:"direct"` // few enough: every contact is asked for by itself
	Stays   int64           `json:"stays"`  // contacts that the run made
	Feed    lockstep.Cursor `json:"feed,omitempty"`
}

// undoAsks is the number of changes up to which each contact is asked for by itself;
// for more the platform's feed tells who changed.
const undoAsks = 100

// undoRun is the work of an undo.
func (s *session) undoRun() error {
	s.sync = newListSync()
	unlock := s.e.cache.lock(s.account.ID)
	defer unlock()
	u, err := s.openUndo()
	if err != nil {
		return err
	}
	if err := s.chooseUndoLists(u); err != nil {
		return err
	}
	if err := s.compilePlans(); err != nil {
		return err
	}
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.consentStep(); err != nil {
		return err // who was in an address book may have opted out just now
	}
	if err := s.loadBarred(); err != nil {
		return err
	}
	if err := s.loadLinks(); err != nil {
		return err
	}
	if err := s.loadApproval(); err != nil {
		return err
	}
	for _, l := range s.sync.lists {
		s.sync.byTable[l.set.MemberTable] = append(s.sync.byTable[l.set.MemberTable], l)
		if err := s.loadSummary(l); err != nil {
			return err
		}
	}
	if err := s.recoverUndo(u); err != nil {
		return err
	}
	if err := s.scanUndo(u); err != nil {
		return err
	}
	if err := s.whatMoved(u); err != nil {
		return err
	}
	for {
		if err := s.checkpoint(); err != nil {
			return err
		}
		if err := s.cancelled(); err != nil {
			return err
		}
		batches, err := s.e.Store.BatchesBelow(s.ctx, u.target.ID, u.done.Below, 1)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return s.finishUndo(u)
		}
		s.stage("undoing batch %d of run %s", batches[0].ID, u.target.ID)
		if err := s.undoBatch(u, &batches[0]); err != nil {
			return err
		}
	}
}

func (s *session) openUndo() (*undoing, error) {
	u := &undoing{
		field: s.run.UndoField, why: "undoes run " + s.run.Undoes, own: map[undoKey]bool{},
		lists: map[lockstep.ID]*listState{}, books: map[lockstep.BookID]*listState{},
	}
	var err error
	if u.target, err = s.e.Store.Run(s.ctx, s.run.Undoes); err != nil {
		return nil, err
	}
	if u.target.Account != s.account.ID {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "undo", Msg: "the run belongs to another account"}
	}
	if s.run.UndoRecord != "" {
		if u.record, err = lockstep.ParseRef(s.run.UndoRecord); err != nil {
			return nil, err
		}
	}
	kept, err := s.e.Store.Progress(s.ctx, s.run.ID)
	if err == nil && kept != nil {
		err = json.Unmarshal(kept, &u.done)
	}
	return u, err
}

// progress is what is stored of how far the undo came.
func (u *undoing) progress() []byte {
	b, _ := json.Marshal(u.done) // numbers, booleans and a text cannot fail
	return b
}

// chooseUndoLists takes all marketing lists that have an address book, whether they
// are activated or not: what a run did to them can be taken back all the same.
func (s *session) chooseUndoLists(u *undoing) error {
	crmLists, err := s.crm.Lists(s.ctx)
	if err != nil {
		return err
	}
	settings, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	for _, set := range settings {
		i := slices.IndexFunc(crmLists, func(l lockstep.MarketingList) bool { return l.ID == set.CRMID })
		if i < 0 || set.Book == "" || s.table(set.MemberTable) == nil {
			continue
		}
		l := &listState{set: set, crm: crmLists[i], book: lockstep.AddressBook{ID: set.Book, Name: set.Name}}
		s.sync.lists = append(s.sync.lists, l)
		u.lists[set.CRMID], u.books[set.Book] = l, l
	}
	return nil
}

// recoverUndo finds out what became of this undo's own batches that an earlier
// process left open, and sees to it that nobody else's are open.
func (s *session) recoverUndo(u *undoing) error {
	open, err := s.e.Store.OpenBatches(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	for _, b := range open {
		if b.Run == s.run.ID {
			if err := s.recoverOwn(u, &b); err != nil {
				return err
			}
			continue
		}
		owner, err := s.e.Store.Run(s.ctx, b.Run)
		if err != nil {
			return err
		}
		switch {
		case owner.Type != lockstep.SyncMarketingLists && owner.Type != lockstep.SyncAddressBooksIn && owner.Type != lockstep.SyncUndo:
		case owner.Status.Ended():
			return OpenWork(owner)
		default:
			return &lockstep.Error{
				Code: lockstep.CodeUnavailable, Op: "undo", Scope: lockstep.ScopeConnection, After: 2 * time.Second,
				Msg: fmt.Sprintf("run %s is in the middle of its work", owner.ID),
			}
		}
	}
	return nil
}

// OpenWork says that nothing can be undone as long as it is not known what became of
// an interrupted run's last writes.
func OpenWork(owner lockstep.Run) error {
	return &lockstep.Error{
		Code: lockstep.CodeConflict, Op: "undo", Msg: fmt.Sprintf("run %s ended while writes were on their way; what became of them is not known yet", owner.ID),
		Hint: "run marketing-lists once: it finds out first. Then undo",
	}
}

// recoverOwn settles a batch of this undo. A job that the platform took is waited for
// and its result read. Of other calls nobody knows whether they arrived: they are made
// again, which changes nothing where they did.
func (s *session) recoverOwn(u *undoing, b *lockstep.Batch) error {
	changes, err := journal.Changes(b.Payload)
	if err != nil {
		return err
	}
	end := lockstep.BatchEnd{ID: b.ID, State: lockstep.Dropped}
	c := lockstep.Commit{}
	if b.State == lockstep.Sent && b.Job != "" {
		if c.Members, err = s.recoverJob(u, b, changes); err != nil {
			return err
		}
	}
	for i := range changes {
		ch := &changes[i]
		if ch.State == lockstep.Acknowledged {
			end.State = lockstep.Acknowledged
		}
		for _, f := range ch.Fields {
			if ch.State == lockstep.Acknowledged || ch.State == lockstep.Planned {
				u.own[undoKey{ch.Ref, f.Name}] = ch.State == lockstep.Acknowledged
			}
		}
		if ch.State == lockstep.Planned {
			ch.State, ch.Cause = lockstep.Dropped, "interrupted; made again"
		}
	}
	end.Payload = journal.Encode(changes)
	if end.State == lockstep.Dropped {
		u.ends = append(u.ends, end) // closed once it was made again
		return nil
	}
	c.Batches = []lockstep.BatchEnd{end}
	return s.commit(c)
}

// recoverJob waits for a job of the platform and notes what it did.
func (s *session) recoverJob(u *undoing, b *lockstep.Batch, changes []lockstep.Change) ([]lockstep.MemberBlob, error) {
	ctx, stop := s.asking()
	defer stop()
	settle := func(err error) error {
		switch {
		case err == nil || lockstep.CodeOf(err) == lockstep.CodeNotFound:
			return nil // of a lost job nothing is known
		case ctx.Err() != nil && s.ctx.Err() == nil && s.e.Now().Sub(b.Planned) < giveUpImport:
			return errYield
		case s.e.Now().Sub(b.Planned) >= giveUpImport:
			return nil
		}
		return err
	}
	if b.Kind == lockstep.RemoveFromBook {
		err := s.platform.AwaitRemoval(ctx, b.Job)
		if err != nil {
			return nil, settle(err)
		}
		for i := range changes {
			changes[i].State = lockstep.Acknowledged
			if err := s.leftBook(u, &changes[i]); err != nil {
				return nil, err
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.takePending(), nil
	}
	byContact := map[lockstep.ContactID]int{}
	for i := range changes {
		byContact[changes[i].Contact] = i
	}
	err := s.platform.AwaitImport(ctx, b.Job, func(results []lockstep.ContactResult) error {
		for _, r := range results {
			i, ok := byContact[r.Contact]
			switch {
			case !ok:
			case r.Fault != nil:
				changes[i].State, changes[i].Cause = lockstep.Refused, r.Fault.Msg
			case changes[i].State != lockstep.Refused:
				changes[i].State = lockstep.Acknowledged
			}
		}
		return nil
	})
	if err := settle(err); err != nil {
		return nil, err
	}
	for i := range changes {
		if changes[i].State == lockstep.Acknowledged {
			if err := s.backInBooks(u, &changes[i]); err != nil {
				return nil, err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takePending(), nil
}

// concerns reports whether a change of the undone run is to be reversed.
func (u *undoing) concerns(c *lockstep.Change) bool {
	return c.State == lockstep.Acknowledged && (u.record.Table == "" || c.Ref == u.record)
}

// scanUndo counts what is to be undone, once.
func (s *session) scanUndo(u *undoing) error {
	if u.done.Scanned {
		return nil
	}
	s.stage("reading the journal of run %s", u.target.ID)
	var found, stays int64
	for below := int64(0); ; {
		batches, err := s.e.Store.BatchesBelow(s.ctx, u.target.ID, below, 4)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			break
		}
		for _, b := range batches {
			below = b.ID
			err := journal.Decode(b.Payload, func(c lockstep.Change) error {
				if u.concerns(&c) {
					found++
					if c.Kind == lockstep.WriteContact && metFirst(&c) {
						stays++
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	if found == 0 {
		msg := "the run changed nothing that is in its journal"
		if u.record.Table != "" {
			msg = "the run changed nothing of " + u.record.Path()
		}
		return &lockstep.Error{Code: lockstep.CodeConflict, Op: "undo", Msg: msg, Hint: "look at the run's changes"}
	}
	u.done.Scanned, u.done.Stays, u.done.Direct = true, stays, found <= undoAsks
	return s.commit(lockstep.Commit{Progress: u.progress()})
}

// metFirst reports a contact of which nothing was known before the run: it was made
// by it, or met by it for the first time.
func metFirst(c *lockstep.Change) bool {
	known := func(f lockstep.FieldChange) bool { return !f.Old.IsAbsent() }
	return c.Why == whyNew && !slices.ContainsFunc(c.Fields, known)
}

// whatMoved marks the links of contacts that were changed on the platform since the
// last sync, so that they are asked for before anything of theirs is undone.
func (s *session) whatMoved(u *undoing) error {
	if u.done.Direct {
		return nil
	}
	s.stage("reading changes of the platform")
	since := u.done.Feed
	if since == "" {
		var err error
		if since, err = s.e.Store.Cursor(s.ctx, s.account.ID, s.feedCursor()); err != nil {
			return err
		}
	}
	marked := 0
	next, err := s.platform.Contacts(s.ctx, lockstep.ContactQuery{Since: since, Fields: s.sync.names}, func(page []lockstep.Contact) error {
		s.mu.Lock()
		var links []crosswalk.Link
		for i := range page {
			seen := contactHash(&page[i])
			links = s.sync.links.ByContact(page[i].ID, links[:0])
			for _, l := range links {
				if l.Ref.Table != "" && l.Seen != seen && l.Seen != 0 {
					s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: l, platform: true})
					marked++
				}
			}
		}
		s.mu.Unlock()
		if marked > undoMostMoved {
			return &lockstep.Error{
				Code: lockstep.CodeConflict, Op: "undo", Msg: fmt.Sprintf("more than %d contacts were changed on the platform since the last sync", undoMostMoved),
				Hint: "run marketing-lists first, then undo",
			}
		}
		return s.tidyLinks()
	})
	if err != nil {
		return err
	}
	u.done.Feed = next
	return s.commit(lockstep.Commit{Progress: u.progress()})
}

// undoMostMoved bounds the contacts that are asked for one by one.
const undoMostMoved = 5000

// finishUndo tells what is left as it is, once for all.
func (s *session) finishUndo(u *undoing) error {
	s.unfulfilled()
	if u.done.Stays > 0 {
		s.finding(lockstep.Finding{
			Code:    lockstep.FindingNotUndone,
			Message: fmt.Sprintf("contacts that the run made, or met for the first time, stay in the email account with the values they were given, and leave only the address books that the run put them into (%d)", u.done.Stays),
			Hint:    "Lockstep deletes no contacts. Delete them on the platform if they are not wanted",
		})
	}
	s.mu.Lock()
	members := s.takePending()
	s.mu.Unlock()
	return s.commit(lockstep.Commit{Members: members, Progress: u.progress()})
}
