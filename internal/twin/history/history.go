// Package history keeps what was written to the twins, by whom and in which order.
// Checkers read it to verify promises that only a course of events can break: that
// nobody was resubscribed without a confirmation, that a value was not overwritten
// by an older one, that nothing was written twice.
//
// A log holds a bounded number of entries; the oldest go first. The same calls in
// the same order under the same seed and clock give the same entries.
package history

import (
	"encoding/json"
	"iter"
	"sync"
	"time"
)

// Entry is one accepted write. A call that writes several things makes several
// entries, in the order in which they took effect.
type Entry struct {
	// Seq counts up by one from 1 over both twins.
	Seq int64 `json:"seq"`
	// Time is the twins' time.
	Time time.Time `json:"time"`
	// Twin is "dataverse" or "dotdigital".
	Twin string `json:"twin"`
	// Account is the email account, from 1; 0 for Dataverse.
	Account int32 `json:"account,omitempty"`
	// Operation names the call as the counters do; "people." and the act where a
	// person acted on the platform's side, "fault." and the kind where a fault did.
	Operation string `json:"operation"`
	// Kind says what was done. Dataverse: create, update, delete of a row,
	// definition (a table, column or other definition changed), restore (a backup).
	// Dotdigital: create, update, restore, delete, destroy of a contact, its status,
	// preference, consent, join-list, leave-list, list-status, challenge and
	// list-challenge; and field-, list-, preference-, identifier-, campaign- and
	// send- with create, update or delete.
	Kind string `json:"kind"`
	// Principal is who called: the API user of the account, or the id of the system
	// user. OnBehalfOf is the system user that it acted for, when that is another
	// one. Both are empty where nobody called.
	Principal  string `json:"principal,omitempty"`
	OnBehalfOf string `json:"on_behalf_of,omitempty"`
	// Table is the table of a Dataverse row.
	Table string `json:"table,omitempty"`
	// ID is the row's id, the contactId, or what identifies the object.
	ID string `json:"id"`
	// Email is the contact's address after the write.
	Email string `json:"email,omitempty"`
	// List is the list of a membership.
	List int32 `json:"list,omitempty"`
	// Version is the row version that a Dataverse write made.
	Version int64 `json:"version,omitempty"`
	// Changes are the values that are different now.
	Changes []Change `json:"changes,omitempty"`
}

// Change is a value before and after a write. Old and New are JSON; null where
// there was or is none.
type Change struct {
	// Name is a column, or of a contact: a data field in upper case, "email",
	// "status", "optInType" and the like, or "preference:" and an id.
	Name string          `json:"name"`
	Old  json.RawMessage `json:"old"`
	New  json.RawMessage `json:"new"`
}

// Log keeps the latest entries. Safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	max  int
	next int64
	ring []Entry // the entry with number seq is at seq % max once it is full
}

// New returns a log of at most max entries, of which there must be one at least.
func New(limit int) *Log { return &Log{max: max(1, limit), next: 1} }

// Add appends an entry and gives it its number.
func (l *Log) Add(e Entry) {
	for i := range e.Changes {
		c := &e.Changes[i]
		if len(c.Old) == 0 {
			c.Old = json.RawMessage("null")
		}
		if len(c.New) == 0 {
			c.New = json.RawMessage("null")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Seq = l.next
	l.next++
	if len(l.ring) < l.max {
		l.ring = append(l.ring, e)
		return
	}
	l.ring[(e.Seq-1)%int64(l.max)] = e
}

// Bounds are the numbers of the oldest entry that is kept and of the newest one;
// first is last+1 in an empty log.
func (l *Log) Bounds() (first, last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first(), l.next - 1
}

func (l *Log) first() int64 { return l.next - int64(len(l.ring)) }

// After yields the kept entries behind a number, in order, until the newest at the
// time of its end. Entries that are dropped meanwhile are left out.
func (l *Log) After(seq int64) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for batch := make([]Entry, 0, 256); ; {
			batch = l.read(batch[:0], seq)
			for _, e := range batch {
				if !yield(e) {
					return
				}
				seq = e.Seq
			}
			if len(batch) == 0 {
				return
			}
		}
	}
}

// read copies entries behind a number while they cannot change.
func (l *Log) read(dst []Entry, seq int64) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := max(seq+1, l.first()); n < l.next && len(dst) < cap(dst); n++ {
		dst = append(dst, l.ring[(n-1)%int64(l.max)])
	}
	return dst
}
