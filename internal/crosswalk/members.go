package crosswalk

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Member is what is known of one person in one list: a record of the CRM, a
// contact in the address book, or both.
type Member struct {
	// Record is the CRM record; zero for a stranger. It is the key when set,
	// otherwise Contact is.
	Record  lockstep.ID
	Contact lockstep.ContactID
	InList  bool // of the marketing list, at the last sync
	InBook  bool // of the address book, at the last sync
	// Former is set while somebody who left the list stays in the book.
	Former       bool
	Unsubscribed bool // left the book by unsubscribing
	Excluded     bool // kept out by filter or opt-out
	// Undone is set when an undo put the person into the book or took it out: that
	// stays so for as long as InList does.
	Undone bool
	// FirstSeen numbers the cycle that met the person in the book first, in a
	// count of the caller's own; 0 = not seen there.
	FirstSeen int64
}

// Gone reports that there is nothing left to remember: such a member, appended to
// a batch, takes the person out of the set.
func (m Member) Gone() bool {
	return !m.InList && !m.InBook && !m.Former && !m.Unsubscribed && !m.Excluded
}

const (
	memberInList = 1 << iota
	memberInBook
	memberFormer
	memberUnsubscribed
	memberExcluded
	memberHasRecord
	memberUndone
	memberFlags = 1<<iota - 1
)

func memberBits(m Member) byte {
	var f byte
	for i, on := range [...]bool{m.InList, m.InBook, m.Former, m.Unsubscribed, m.Excluded, !m.Record.IsZero(), m.Undone} {
		if on {
			f |= 1 << i
		}
	}
	return f
}

func memberOf(f byte) Member {
	return Member{
		InList: f&memberInList != 0, InBook: f&memberInBook != 0, Former: f&memberFormer != 0,
		Unsubscribed: f&memberUnsubscribed != 0, Excluded: f&memberExcluded != 0, Undone: f&memberUndone != 0,
	}
}

// MemberBatch collects members of one list for one payload.
type MemberBatch struct {
	buf []byte
	n   int
}

// NewMemberBatch starts a batch.
func NewMemberBatch() *MemberBatch { return &MemberBatch{buf: []byte{'L', 'M', frameVersion}} }

// Append adds a member; a later one with the same key replaces it.
func (b *MemberBatch) Append(m Member) {
	b.buf = append(b.buf, memberBits(m))
	if !m.Record.IsZero() {
		b.buf = append(b.buf, m.Record[:]...)
	}
	b.buf = appendText(b.buf, string(m.Contact))
	b.buf = binary.AppendVarint(b.buf, m.FirstSeen)
	b.n++
}

// Len returns the number of members.
func (b *MemberBatch) Len() int { return b.n }

// Bytes returns the finished payload. Members can still be appended afterwards
// for a later call.
func (b *MemberBatch) Bytes() []byte {
	frame := make([]byte, len(b.buf), len(b.buf)+tailSize)
	copy(frame, b.buf)
	return seal(frame, b.n)
}

// DecodeMembers calls each with every member of a payload. A damaged payload
// yields an error and no member. An error from each ends the reading and is
// returned as it is.
func DecodeMembers(payload []byte, each func(Member) error) error {
	if err := scanMembers(payload, func(Member, []byte) error { return nil }); err != nil {
		return err
	}
	return scanMembers(payload, func(m Member, contact []byte) error {
		m.Contact = lockstep.ContactID(contact)
		return each(m)
	})
}

func scanMembers(payload []byte, each func(m Member, contact []byte) error) error {
	r, count, err := unseal('M', payload)
	if err != nil {
		return err
	}
	n := 0
	for r.more() {
		flags := r.byte()
		m := memberOf(flags)
		if flags&memberHasRecord != 0 {
			copy(m.Record[:], r.bytes(len(m.Record)))
		}
		contact := r.text()
		m.FirstSeen = r.varint()
		if r.failed || flags&^byte(memberFlags) != 0 || m.Record.IsZero() == (flags&memberHasRecord != 0) {
			return damaged("member %d of the batch is malformed", n)
		}
		if err := each(m, contact); err != nil {
			return err
		}
		n++
	}
	if n != count {
		return damaged("the batch has %d members and claims %d", n, count)
	}
	return nil
}

// Members is the remembered set of one list. Reading is safe from several
// goroutines as long as nobody writes.
type Members struct {
	records   map[lockstep.ID]memberState
	strangers map[packed]memberState
	contacts  contactPool
	inList    int
	inBook    int
}

type memberState struct {
	contact   packed
	firstSeen int64
	flags     byte
}

// NewMembers returns an empty set.
func NewMembers() *Members { return NewMembersSized(0) }

// NewMembersSized returns an empty set with room for about n records; room for more
// than a million is made when they come.
func NewMembersSized(n int) *Members {
	return &Members{records: make(map[lockstep.ID]memberState, min(max(n, 0), 1_000_000)), strangers: map[packed]memberState{}}
}

// Add takes in a stored payload. Payloads must come in the order in which they
// were stored. A damaged one changes nothing.
func (s *Members) Add(payload []byte) error {
	if err := scanMembers(payload, func(Member, []byte) error { return nil }); err != nil {
		return err
	}
	return scanMembers(payload, func(m Member, contact []byte) error {
		s.set(m, s.contacts.pack(contact))
		return nil
	})
}

// Set takes in one member, or takes it out when it is Gone.
func (s *Members) Set(m Member) { s.set(m, s.contacts.pack([]byte(m.Contact))) }

func (s *Members) set(m Member, contact packed) {
	state := memberState{contact: contact, firstSeen: m.FirstSeen, flags: memberBits(m)}
	if m.Record.IsZero() {
		replace(s, s.strangers, contact, state, m.Gone())
	} else {
		replace(s, s.records, m.Record, state, m.Gone())
	}
}

func replace[K comparable](s *Members, in map[K]memberState, key K, state memberState, gone bool) {
	if old, ok := in[key]; ok {
		s.count(old.flags, -1)
	}
	if gone {
		delete(in, key)
		return
	}
	in[key] = state
	s.count(state.flags, 1)
}

func (s *Members) count(flags byte, by int) {
	if flags&memberInList != 0 {
		s.inList += by
	}
	if flags&memberInBook != 0 {
		s.inBook += by
	}
}

// Len returns the number of people remembered.
func (s *Members) Len() int { return len(s.records) + len(s.strangers) }

// InList returns how many were in the marketing list.
func (s *Members) InList() int { return s.inList }

// InBook returns how many were in the address book.
func (s *Members) InBook() int { return s.inBook }

func (s *Members) member(id lockstep.ID, state memberState) Member {
	m := memberOf(state.flags)
	m.Record, m.Contact, m.FirstSeen = id, s.contacts.unpack(state.contact), state.firstSeen
	return m
}

// Record returns the member with this record.
func (s *Members) Record(id lockstep.ID) (Member, bool) {
	state, ok := s.records[id]
	if !ok {
		return Member{}, false
	}
	return s.member(id, state), true
}

// Stranger returns the member without a record that has this contact. A contact
// of a member with a record is found through the links.
func (s *Members) Stranger(contact lockstep.ContactID) (Member, bool) {
	p, known := s.contacts.lookup(contact)
	state, ok := s.strangers[p]
	if !known || !ok {
		return Member{}, false
	}
	return s.member(lockstep.ID{}, state), true
}

// All iterates over everybody in no particular order.
func (s *Members) All() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for id, state := range s.records {
			if !yield(s.member(id, state)) {
				return
			}
		}
		for _, state := range s.strangers {
			if !yield(s.member(lockstep.ID{}, state)) {
				return
			}
		}
	}
}

// Left iterates over those who were in the list and were not observed in it now.
func (s *Members) Left(now *Observed) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for id, state := range s.records {
			if state.flags&memberInList != 0 && !now.Has(id) && !yield(s.member(id, state)) {
				return
			}
		}
	}
}

// Joined iterates, in ascending order, over the observed records that were not in
// the list.
func (s *Members) Joined(now *Observed) iter.Seq[lockstep.ID] {
	return func(yield func(lockstep.ID) bool) {
		for id := range now.All() {
			if s.records[id].flags&memberInList == 0 && !yield(id) {
				return
			}
		}
	}
}

// Snapshot returns payloads of at most ChunkEntries members each that say
// everything the set knows; they replace all payloads stored before. The order is
// that of the keys, so that equal sets have equal snapshots.
func (s *Members) Snapshot() [][]byte {
	all := make([]Member, 0, s.Len())
	for m := range s.All() {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Member) int {
		if c := bytes.Compare(a.Record[:], b.Record[:]); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.Contact), []byte(b.Contact))
	})
	var payloads [][]byte
	for part := range slices.Chunk(all, ChunkEntries) {
		b := NewMemberBatch()
		for _, m := range part {
			b.Append(m)
		}
		payloads = append(payloads, b.Bytes())
	}
	return payloads
}

// Observed is the set of records that a sweep over one list delivered, 16 bytes
// each. Add them all, then Seal, then ask.
type Observed struct {
	ids []lockstep.ID
}

// Add notes a record; one that was noted before does no harm.
func (o *Observed) Add(id lockstep.ID) { o.ids = append(o.ids, id) }

// Seal sorts the set. It must be called before anything is asked.
func (o *Observed) Seal() {
	slices.SortFunc(o.ids, compareIDs)
	o.ids = slices.Compact(o.ids)
}

// Len returns the number of different records.
func (o *Observed) Len() int { return len(o.ids) }

// Has reports whether a record was observed.
func (o *Observed) Has(id lockstep.ID) bool {
	_, ok := slices.BinarySearchFunc(o.ids, id, compareIDs)
	return ok
}

// All iterates over the records in ascending order.
func (o *Observed) All() iter.Seq[lockstep.ID] { return slices.Values(o.ids) }

func compareIDs(a, b lockstep.ID) int { return bytes.Compare(a[:], b[:]) }
