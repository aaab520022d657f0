package engine

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/lockstep-sync/lockstep"
)

// A CRM that was set back to a backup says of its records what they said long ago, and a
// merge would take that for the wish of its users: what the platform has learnt since would
// be overwritten. No record tells of it; but the CRM counts its changes, the count never
// goes down in one history, and each feed ends with what it was. So it is asked before the
// first write of a run, unless a feed that went on from where it was has answered already:
// a run that writes nothing, and one that first hears of changes in the CRM, costs no call
// more.
//
// What cannot be proven is compared as before: as many changes were made since as were
// lost, or the position in the feed was given up because it is too old or the table is not
// tracked.

const countWentDown = "its count of changes went down"

// history is what a slice knows of the CRM's count of changes.
type history struct {
	asking chan struct{} // held by the one writer that asks
	mu     sync.Mutex
	asked  bool  // it did not go down
	back   error // it did
}

// answer is what is known by now.
func (h *history) answer() (known bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked || h.back != nil, h.back
}

// seen notes that a feed went on from where it was.
func (h *history) seen() {
	h.mu.Lock()
	h.asked = true
	h.mu.Unlock()
}

// stop keeps what is waiting to be written from being written.
func (h *history) stop(err error) {
	h.mu.Lock()
	h.back = err
	h.mu.Unlock()
}

// present makes sure, before anything is written, that the CRM was not set back since the
// feeds were read last.
func (s *session) present() error {
	if s.sync == nil || s.dry() || s.run.Type == lockstep.SyncUndo {
		return nil
	}
	h := &s.sync.history
	if known, err := h.answer(); known {
		return err
	}
	select {
	case h.asking <- struct{}{}:
		defer func() { <-h.asking }()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	if known, err := h.answer(); known {
		return err // another writer has asked meanwhile
	}
	tables := map[string]bool{}
	for _, l := range s.sync.lists {
		tables[l.set.MemberTable] = true
	}
	for _, table := range slices.Sorted(maps.Keys(tables)) { // one of them is as good as another
		plan := s.sync.plans[table]
		from, err := s.e.Store.Cursor(s.ctx, s.account.ID, plan.cursor)
		if err != nil {
			return err
		}
		if from == "" {
			continue
		}
		if err := s.compareHistory(plan, from); err != nil {
			if lockstep.CodeOf(err) == lockstep.CodeGuarded {
				h.stop(err)
			}
			return err
		}
		break
	}
	h.seen()
	return nil
}

// compareHistory locks the account when the CRM was set back since a feed returned a
// cursor.
func (s *session) compareHistory(plan *tablePlan, from lockstep.Cursor) error {
	reader, can := s.crm.(lockstep.RestoreReader)
	if !can || from == "" {
		return nil
	}
	back, err := reader.SetBack(s.ctx, plan.query, from)
	if back {
		return s.setBack(countWentDown)
	}
	if err != nil && (lockstep.ScopeOf(err) == lockstep.ScopeConnection || transient(err) || s.ctx.Err() != nil) {
		return err
	}
	return nil // what is wrong with the table alone is seen to when its feed is read
}

// setBack locks the account, so that nothing is written by later runs either until a
// person has looked. What is known of the CRM's feeds belongs to the history that was
// lost: the run after the unlocking reads everything and compares it.
func (s *session) setBack(proof string) error {
	e := &lockstep.Error{
		Code: lockstep.CodeGuarded, Op: "compare versions", Msg: "the organization was set back to an earlier state, as from a backup: " + proof,
		Hint: "the account is locked and nothing more is written: look in Dynamics at what was restored, then unlock the account with lockstep accounts unlock; the next run compares everybody on both sides, a preview shows what it would write",
	}
	if err := s.e.Store.LockAccount(s.ctx, s.account.ID, e.Msg); err != nil {
		return err
	}
	s.e.sentinel.forget(s.account.ID)
	c := lockstep.Commit{Cursors: map[string]lockstep.Cursor{}}
	for _, plan := range s.sync.plans {
		for _, name := range []string{plan.cursor, resumeCursor(plan), relatedCursor(plan)} {
			c.Cursors[name] = ""
		}
	}
	lists, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	for _, set := range lists {
		l := listState{set: set}
		was, err := s.e.Store.Cursor(s.ctx, s.account.ID, l.cursor())
		if err != nil {
			return err
		}
		if was == "" || json.Unmarshal([]byte(was), &l.sum) != nil {
			continue
		}
		l.sum.Version, l.sum.Row, l.sum.Dirty = 0, 0, true
		b, err := json.Marshal(l.sum)
		if err != nil {
			return err
		}
		c.Cursors[l.cursor()] = lockstep.Cursor(b)
	}
	if err := s.commit(c); err != nil {
		return err
	}
	return e
}
