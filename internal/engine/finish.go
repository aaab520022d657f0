package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// finishLists stores what the next run needs to know of each list.
func (s *session) finishLists(outward bool) error {
	s.unfulfilled()
	if outward && s.decidedAll() {
		s.undecided()
	}
	if s.dry() {
		return s.commit(lockstep.Commit{})
	}
	if err := s.tidyLinks(); err != nil {
		return err
	}
	var err error
	c := lockstep.Commit{Cursors: map[string]lockstep.Cursor{}}
	s.mu.Lock()
	shared := s.sharing()
	var miscounted []lockstep.Finding
	for _, l := range s.sync.lists {
		l.sum.Row = max(l.sum.Row, l.crm.Version)
		skip := l.failed || l.held
		if l.held {
			l.sum = l.stored
		}
		if skip {
			l.sum.Dirty = true
		} else if outward {
			l.sum.Renewed = false
		}
		if l.members != nil && !skip {
			l.sum.InList, l.sum.InBook, l.sum.Strangers = l.members.InList(), l.members.InBook(), l.members.Strangers()
			if outward {
				// The platform's counter as it is now, as far as we can know: what it
				// said at the start, moved by what we did. If it says something else
				// next time, the book is read.
				l.sum.Book = l.sum.counter(l.members.InBook() - shared[l])
				l.sum.CRMCount = l.crm.Members + l.admitted
				l.sum.Rules = l.rules()
				raced, finding := s.raced(l)
				if finding != nil {
					miscounted = append(miscounted, *finding)
				}
				l.sum.Dirty = raced || l.members.Unsettled() > 0 || s.sync.held || s.sync.incomplete != "" || l.fresh && s.missing(l)
			} else if l.touched || l.newStrangers || l.owed != owesNothing {
				l.sum.Dirty = true // the outward half has not been done
			}
		} else if outward && !skip {
			l.sum.Book = l.book.Members
		}
		b, err := json.Marshal(l.sum)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		c.Cursors[l.cursor()] = lockstep.Cursor(b)
	}
	c.Members = s.takePending()
	s.mu.Unlock()
	for _, f := range miscounted {
		s.finding(f)
	}
	s.triedAgain()
	if outward {
		if c.Lists, err = s.stillUsed(); err != nil {
			return err
		}
	}
	if outward && s.decidedAll() && !s.sync.resolvedUpTo.IsZero() {
		c.Cursors[resolvedCursor] = lockstep.Cursor(s.sync.resolvedUpTo.UTC().Format(time.RFC3339Nano))
	}
	if err := s.commit(c); err != nil || !outward || s.sync.barred == nil {
		return err
	}
	clear(s.sync.barred.looking)
	return nil
}

// sharing counts, for each list, the members in its book beyond the first one with the
// same contact: the platform counts contacts, not records. The caller holds s.mu.
func (s *session) sharing() map[*listState]int {
	more := map[*listState]int{}
	for group := range s.sync.links.Shared() {
		for _, l := range s.sync.lists {
			if l.members == nil || l.failed {
				continue
			}
			n := 0
			for i := range group {
				if k := &group[i]; k.Ref.Table == l.set.MemberTable {
					if m, ok := l.members.Record(k.Ref.ID); ok && m.InBook && m.Contact == k.Contact {
						n++
					}
				}
			}
			more[l] += max(0, n-1)
		}
	}
	return more
}

// raced reports that somebody joined or left a static list between the reading of its
// counter and that of its members: with a counter that fits by chance the next run
// would not see who leaves. A counter that differs always, because not all members can
// be read, is told and believed from the second time on.
func (s *session) raced(l *listState) (raced bool, miscount *lockstep.Finding) {
	if l.set.Dynamic || !l.fresh {
		return false, nil
	}
	was, counted := l.sum.Unread, l.crm.Members+l.admitted
	l.sum.Unread = counted - l.observed.Len()
	if l.sum.Unread == 0 || l.sum.Unread != was {
		return l.sum.Unread != 0, nil
	}
	f := l.finding(lockstep.FindingMiscount, fmt.Sprintf("the CRM counts %d members of the list, %d of them can be read", counted, l.observed.Len()),
		"everybody who can be read is kept in step. See in the CRM whether the application user may read all rows of the list's table, and whether members were deleted")
	return false, &f
}

// missing reports members whose record never came: they are looked for again.
func (s *session) missing(l *listState) bool {
	for range l.members.Joined(l.observed) {
		return true
	}
	return false
}

// compactLinks keeps the log of links short: many small blobs are slower to read at
// start than a few large ones.
func (s *session) compactLinks() error {
	c := s.e.cache.of(s.account.ID)
	if s.dry() || len(c.blobs) < compactAbove {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	done, err := c.index.Compact(func(r []lockstep.BlobRange) ([][]byte, error) {
		for i := range r {
			if r[i].Length == 0 {
				r[i].Length = c.blobs[r[i].Blob]
			}
		}
		return s.e.Store.LinkRanges(s.ctx, r)
	}, 100_000)
	if err != nil || len(done.Drop) == 0 {
		return err
	}
	ids := make([]int64, len(done.Payloads))
	err = s.e.Store.Commit(s.ctx, lockstep.Commit{Run: s.run.ID, Account: s.account.ID, Links: done.Payloads, LinkIDs: ids, DropLinks: done.Drop})
	if err != nil {
		return err
	}
	if err := s.learn(ids, done.Payloads); err != nil {
		return err
	}
	for _, id := range done.Drop {
		delete(c.blobs, id)
	}
	return c.index.Drop(done.Drop)
}

// compactAbove is the number of link blobs from which they are rewritten. A million
// links fill about a thousand blobs that are already as large as they get.
const compactAbove = 256

// seenHash is a short hash of what the platform says of a contact. Absent and empty
// count the same, and a day is the same as its midnight: the platform knows neither
// difference.
func seenHash(email string, standing lockstep.Standing, optIn lockstep.OptInType, values []lockstep.Value) uint64 {
	b := make([]byte, 0, 256)
	b = append(b, byte(standing), byte(optIn))
	b = append(binary.AppendUvarint(b, uint64(len(email))), email...)
	for _, v := range values {
		midnight := ""
		if v.Kind() == lockstep.Date {
			midnight = "T00:00:00Z"
		}
		b = binary.AppendUvarint(b, uint64(len(v.Text())+len(midnight)))
		b = append(append(b, v.Text()...), midnight...)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}
