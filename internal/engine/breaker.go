package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Two programs that answer every change of a record with one of their own, a plug-in in
// the CRM and an automation on the platform, would have each run write the same record for
// ever. No single change is wrong, so no merge notices; that it never ends is noticed by
// counting. What merge writes because a side drifted goes in both directions then, while
// somebody who types fast writes in one.

const (
	// breakAt is the number of runs that may write one record within breakWithin.
	breakAt     = 5
	breakWithin = time.Minute
	// breakEach is how many of them wrote to each side at least.
	breakEach = 2
	// breakRows is how many records are counted at a time. A run that writes more of them
	// is no quarrel about one; its first ones are counted.
	breakRows = 10_000
)

// direction is where a write goes to.
type direction uint8

const (
	toPlatform direction = iota
	toCRM
)

// breaker counts how many runs wrote each record of an account lately, and holds those
// that other programs keep changing. It lives in the process: after a restart it counts
// from the beginning, so that a quarrel costs a few writes more, and a record that was held
// is written when it changes or when its attempt is due. session.mu guards it.
type breaker struct {
	rows  map[lockstep.Ref]*turns
	swept time.Time
}

// turns are the last runs that wrote one record, the oldest first.
type turns struct {
	last  [breakAt]turn
	held  bool
	holds int       // one after the other, without a rest as long as the last of them
	until time.Time // the end of the last of them
}

// turn is one run's writes of one record.
type turn struct {
	run string // empty = none
	at  time.Time
	to  [2]bool // by direction
}

// wrote counts a write that a side acknowledged.
func (b *breaker) wrote(ref lockstep.Ref, run string, to direction, now time.Time) {
	t := b.rows[ref]
	if t == nil {
		if len(b.rows) >= breakRows && !b.sweep(now) {
			return
		}
		if b.rows == nil {
			b.rows = map[lockstep.Ref]*turns{}
		}
		t = &turns{}
		b.rows[ref] = t
	}
	newest := &t.last[breakAt-1]
	if newest.run != run {
		copy(t.last[:], t.last[1:])
		*newest = turn{run: run, at: now}
	}
	newest.to[to] = true
}

// sweep forgets the records that rest, once a minute at most, and reports whether there is
// room.
func (b *breaker) sweep(now time.Time) bool {
	if since := now.Sub(b.swept); since < 0 || since >= breakWithin {
		b.swept = now
		for ref, t := range b.rows {
			if !lately(t.last[breakAt-1].at, now, breakWithin) && !t.busy(now) {
				delete(b.rows, ref)
			}
		}
	}
	return len(b.rows) < breakRows
}

// trips reports whether a record has been written too often to be written once more.
func (b *breaker) trips(ref lockstep.Ref, now time.Time) bool {
	t := b.rows[ref]
	if t == nil || t.last[0].run == "" {
		return false
	}
	var each [2]int
	for _, w := range t.last {
		if !lately(w.at, now, breakWithin) {
			return false
		}
		for to, did := range w.to {
			if did {
				each[to]++
			}
		}
	}
	return min(each[toPlatform], each[toCRM]) >= breakEach
}

// next is the number of the hold that would begin now.
func (b *breaker) next(ref lockstep.Ref, now time.Time) int {
	if t := b.rows[ref]; t != nil && t.busy(now) {
		return t.holds + 1
	}
	return 1
}

// hold has a record held that was written too often.
func (b *breaker) hold(ref lockstep.Ref, holds int, until time.Time) {
	if t := b.rows[ref]; t != nil {
		t.held, t.holds, t.until = true, holds, until
	}
}

// release ends a hold; the record is counted from the beginning.
func (b *breaker) release(ref lockstep.Ref) {
	if t := b.rows[ref]; t != nil {
		t.held, t.last = false, [breakAt]turn{}
	}
}

// held reports whether a record is held, for as long as its next attempt is not due.
func (b *breaker) held(ref lockstep.Ref) bool {
	t := b.rows[ref]
	return t != nil && t.held
}

// busy reports whether the last hold goes on, or ended less than its own length ago.
func (t *turns) busy(now time.Time) bool {
	rest := lockstep.RetryDelay(t.holds)
	return t.holds > 0 && now.Before(t.until.Add(rest)) && t.until.Sub(now) <= rest // longer only by a clock that was wrong
}

// lately reports whether a moment is past, and by less than a while.
func lately(at, now time.Time, within time.Duration) bool {
	ago := now.Sub(at)
	return ago >= 0 && ago < within
}

func (s *session) breaker() *breaker { return &s.e.cache.of(s.account.ID).breaker }

// holding says whether a record's fields may be written.
type holding uint8

const (
	free  holding = iota
	trips         // written too often: from now on it is held
	waits         // held since an earlier run
)

// holds reports whether a record's fields are left alone in this run: it was written too
// often, and its next attempt is not due.
func (s *session) holds(p *person) holding {
	b, ref := s.breaker(), p.rec.Ref
	if !p.linked || !p.link.Master {
		return free
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.e.Now()
	switch {
	case !b.held(ref):
		if b.trips(ref, now) {
			return trips
		}
		return free
	case early(s.sync.retries[ref], now):
		return waits
	case !s.dry():
		b.release(ref)
	}
	return free
}

// holdBack leaves the fields of a person as they are on either side, so that they are
// merged when the record is tried again, from what both sides say then. Its address, its
// membership and what it says about being mailed go their way.
func (s *session) holdBack(p *person, labels []string, why holding) {
	r, ref := &p.row, p.rec.Ref
	r.apart = true // what the platform says is asked then; until then the record is as it was looked at
	if r.outcome == outcomeNone {
		r.outcome = outcomeHeld
	}
	s.mu.Lock()
	s.sync.again[ref] = true // what else is written of it does not end its waiting
	s.mu.Unlock()
	if why == waits {
		return
	}
	now := s.e.Now()
	s.mu.Lock()
	holds := s.breaker().next(ref, now)
	s.mu.Unlock()
	slices.Sort(labels)
	f := lockstep.Finding{
		Code: lockstep.FindingLoop, Table: ref.Table, Record: ref.ID, Contact: r.contact,
		Message: fmt.Sprintf("%d runs wrote the record within a minute, to both sides, and %s changed again: something on each side answers every write with one of its own. Its fields are left as they are for %s",
			breakAt, strings.Join(labels, ", "), lockstep.RetryDelay(holds)),
		Hint: "find the plug-in, workflow or automation that sets the field on either side and stop one of them, or map the data label one way; nothing is lost, the record is taken up again by itself or with lockstep findings retry",
	}
	if len(labels) == 1 {
		f.Field = labels[0]
	}
	id := s.finding(f)
	if s.dry() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	retry := lockstep.Retry{Ref: ref, Finding: id, Attempts: holds, Next: now.Add(lockstep.RetryDelay(holds))}
	s.breaker().hold(ref, holds, retry.Next)
	s.sync.retries[ref] = retry
	s.retries = append(s.retries, retry)
}
