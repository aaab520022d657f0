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
	Excluded     bool // kept out by filter, opt-out or the state of the record
	// Lapsed tells of somebody Excluded that only the state of the record did it, such as
	// being inactive, and nothing that the person said. Without Excluded it is not kept.
	Lapsed bool
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
	memberLapsed
)

func memberBits(m Member) byte {
	var f byte
	for i, on := range [...]bool{m.InList, m.InBook, m.Former, m.Unsubscribed, m.Excluded, !m.Record.IsZero(), m.Undone, m.Excluded && m.Lapsed} {
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
		Lapsed: f&memberLapsed != 0,
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
		if r.failed || m.Lapsed && !m.Excluded || m.Record.IsZero() == (flags&memberHasRecord != 0) {
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

// Members is the remembered set of one list, in about 40 bytes a record. Reading is
// safe from several goroutines as long as nobody writes.
type Members struct {
	// Rows of members with a record are kept in chunks, so that growing copies
	// little and leaves nothing behind; free are those not in use, with no flags.
	chunks [][]memberRow
	free   []uint32
	byID   hashTable
	// seen holds FirstSeen of rows, by row, where it is not 0.
	seen map[uint32]int64

	strangers map[packed]strangerState
	contacts  contactPool
	counts    memberCounts
}

type memberRow struct {
	id      lockstep.ID
	contact packed
	flags   byte
}

type strangerState struct {
	firstSeen int64
	flags     byte
}

// memberCounts are kept with every change, so that nobody has to go through all
// members to count them.
type memberCounts struct {
	records, inList, listed, inBook, strangers, unsettled int
}

func (c *memberCounts) add(flags byte, by int) {
	if flags&memberInList != 0 {
		c.inList += by
	}
	if flags&memberInBook != 0 {
		c.inBook += by
	}
	switch {
	case flags&memberHasRecord == 0:
		if flags&memberInBook != 0 {
			c.strangers += by
		}
	default:
		c.records += by
		if flags&memberInList != 0 {
			c.listed += by
		}
	}
	if isUnsettled(flags) {
		c.unsettled += by
	}
}

// isUnsettled reports somebody of the list of whom it is not settled whether he
// belongs into the book.
func isUnsettled(flags byte) bool {
	return flags&(memberInList|memberInBook|memberExcluded) == memberInList
}

const memberChunk = 1 << 10

// NewMembers returns an empty set.
func NewMembers() *Members { return NewMembersSized(0) }

// NewMembersSized returns an empty set with room for about n records; room for more
// than a million is made when they come.
func NewMembersSized(n int) *Members {
	s := &Members{strangers: map[packed]strangerState{}, seen: map[uint32]int64{}}
	s.byID.hashOf = func(row uint32) uint64 { return refHash(s.at(row).id) }
	if n = min(n, 1_000_000); n > 0 {
		s.byID.resize(n*20/17 + 16)
		s.chunks = append(s.chunks, make([]memberRow, 0, min(n, memberChunk)))
	}
	return s
}

func (s *Members) at(row uint32) *memberRow { return &s.chunks[row/memberChunk][row%memberChunk] }

func (s *Members) find(id lockstep.ID) (uint32, bool) {
	return s.byID.find(refHash(id), func(row uint32) bool { return s.at(row).id == id })
}

func (s *Members) newRow() uint32 {
	if n := len(s.free); n > 0 {
		row := s.free[n-1]
		s.free = s.free[:n-1]
		return row
	}
	last := len(s.chunks) - 1
	if last < 0 || len(s.chunks[last]) == memberChunk {
		var c []memberRow // the first one grows: most lists are small
		if last >= 0 {
			c = make([]memberRow, 0, memberChunk)
		}
		s.chunks = append(s.chunks, c)
		last++
	}
	s.chunks[last] = append(s.chunks[last], memberRow{})
	return uint32(last*memberChunk + len(s.chunks[last]) - 1)
}

// Add takes in a stored payload. Payloads must come in the order in which they
// were stored. A damaged one changes nothing.
func (s *Members) Add(payload []byte) error {
	n := 0
	if err := scanMembers(payload, func(Member, []byte) error { n++; return nil }); err != nil {
		return err
	}
	if s.counts.records+n > maxRows {
		return damaged("the list has more than %d members", maxRows)
	}
	return scanMembers(payload, func(m Member, contact []byte) error {
		s.set(m, s.contacts.pack(contact))
		return nil
	})
}

// Set takes in one member, or takes it out when it is Gone.
func (s *Members) Set(m Member) { s.set(m, s.contacts.pack([]byte(m.Contact))) }

func (s *Members) set(m Member, contact packed) {
	flags := memberBits(m)
	if m.Record.IsZero() {
		if old, ok := s.strangers[contact]; ok {
			s.counts.add(old.flags, -1)
		}
		if m.Gone() {
			delete(s.strangers, contact)
			return
		}
		s.strangers[contact] = strangerState{firstSeen: m.FirstSeen, flags: flags}
		s.counts.add(flags, 1)
		return
	}
	row, known := s.find(m.Record)
	if known {
		s.counts.add(s.at(row).flags, -1)
	}
	if m.Gone() {
		if known {
			s.byID.remove(refHash(m.Record), row)
			delete(s.seen, row)
			s.at(row).flags = 0
			s.free = append(s.free, row)
		}
		return
	}
	if !known {
		row = s.newRow()
	}
	*s.at(row) = memberRow{id: m.Record, contact: contact, flags: flags}
	if !known {
		s.byID.insert(refHash(m.Record), row)
	}
	if m.FirstSeen != 0 {
		s.seen[row] = m.FirstSeen
	} else {
		delete(s.seen, row)
	}
	s.counts.add(flags, 1)
}

// Len returns the number of people remembered.
func (s *Members) Len() int { return s.counts.records + len(s.strangers) }

// InList returns how many were in the marketing list.
func (s *Members) InList() int { return s.counts.inList }

// InBook returns how many were in the address book.
func (s *Members) InBook() int { return s.counts.inBook }

// Strangers returns how many are in the address book without a record.
func (s *Members) Strangers() int { return s.counts.strangers }

// Unsettled returns how many are in the list and neither in the book nor excluded.
func (s *Members) Unsettled() int { return s.counts.unsettled }

func (s *Members) member(row uint32) Member {
	r := s.at(row)
	m := memberOf(r.flags)
	m.Record, m.Contact = r.id, s.contacts.unpack(r.contact)
	if len(s.seen) > 0 {
		m.FirstSeen = s.seen[row]
	}
	return m
}

func (s *Members) stranger(p packed, state strangerState) Member {
	m := memberOf(state.flags)
	m.Contact, m.FirstSeen = s.contacts.unpack(p), state.firstSeen
	return m
}

// Record returns the member with this record.
func (s *Members) Record(id lockstep.ID) (Member, bool) {
	row, ok := s.find(id)
	if !ok {
		return Member{}, false
	}
	return s.member(row), true
}

// listed reports whether a record is in the list.
func (s *Members) listed(id lockstep.ID) bool {
	row, ok := s.find(id)
	return ok && s.at(row).flags&memberInList != 0
}

// Stranger returns the member without a record that has this contact. A contact
// of a member with a record is found through the links.
func (s *Members) Stranger(contact lockstep.ContactID) (Member, bool) {
	p, known := s.contacts.lookup(contact)
	state, ok := s.strangers[p]
	if !known || !ok {
		return Member{}, false
	}
	return s.stranger(p, state), true
}

// rows iterates over the rows in use for which wanted is true.
func (s *Members) rows(wanted func(*memberRow) bool, yield func(Member) bool) bool {
	for c := range s.chunks {
		for i := range s.chunks[c] {
			if r := &s.chunks[c][i]; r.flags != 0 && wanted(r) && !yield(s.member(uint32(c*memberChunk+i))) {
				return false
			}
		}
	}
	return true
}

// All iterates over everybody in no particular order.
func (s *Members) All() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		if s.rows(func(*memberRow) bool { return true }, yield) {
			s.allStrangers(yield)
		}
	}
}

func (s *Members) allStrangers(yield func(Member) bool) {
	for p, state := range s.strangers {
		if !yield(s.stranger(p, state)) {
			return
		}
	}
}

// Listed iterates over the records in the list, in no particular order.
func (s *Members) Listed() iter.Seq[lockstep.ID] {
	return func(yield func(lockstep.ID) bool) {
		for _, c := range s.chunks {
			for i := range c {
				if c[i].flags&memberInList != 0 && !yield(c[i].id) {
					return
				}
			}
		}
	}
}

// Waiting iterates over the records of Unsettled, in no particular order.
func (s *Members) Waiting() iter.Seq[lockstep.ID] {
	return func(yield func(lockstep.ID) bool) {
		if s.counts.unsettled == 0 {
			return
		}
		for _, c := range s.chunks {
			for i := range c {
				if isUnsettled(c[i].flags) && !yield(c[i].id) {
					return
				}
			}
		}
	}
}

// Left iterates over those who were in the list and were not observed in it now.
func (s *Members) Left(now *Observed) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		s.rows(func(r *memberRow) bool { return r.flags&memberInList != 0 && !now.Has(r.id) }, yield)
	}
}

// Outside iterates over everybody who was not observed in the list now, and over
// those observed who are to leave the book: in list and book, and excluded.
func (s *Members) Outside(now *Observed) iter.Seq[Member] {
	const leaving = memberInList | memberInBook | memberExcluded
	return func(yield func(Member) bool) {
		whole := s.rows(func(r *memberRow) bool {
			return r.flags&leaving == leaving || !now.stays(s, r) && !now.Has(r.id)
		}, yield)
		if whole {
			s.allStrangers(yield)
		}
	}
}

// Joined iterates, in ascending order, over the observed records that were not in
// the list.
func (s *Members) Joined(now *Observed) iter.Seq[lockstep.ID] {
	return func(yield func(lockstep.ID) bool) {
		for _, id := range now.ids { // whoever else now has comes from the list
			if !s.listed(id) && !yield(id) {
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
	// With a base, ids are those of asked that are in the list; of all others the
	// base tells.
	base  *Members
	asked []lockstep.ID
	rest  int // how many of the others are in the list
}

// Add notes a record; one that was noted before does no harm.
func (o *Observed) Add(id lockstep.ID) { o.ids = append(o.ids, id) }

// Seal sorts the set. It must be called before anything is asked.
func (o *Observed) Seal() { o.ids = sorted(o.ids) }

func sorted(ids []lockstep.ID) []lockstep.ID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

// Moved is what a sweep would deliver when, of all records, only those asked about
// may have joined or left the list: in are the ones of them that are in it. It goes on
// asking s about the others, whose place in the list must not change meanwhile.
func (s *Members) Moved(asked, in []lockstep.ID) *Observed {
	o := &Observed{base: s, asked: sorted(slices.Clone(asked)), ids: sorted(slices.Clone(in)), rest: s.counts.listed}
	for _, id := range o.asked {
		if s.listed(id) {
			o.rest--
		}
	}
	return o
}

// Len returns the number of different records.
func (o *Observed) Len() int { return len(o.ids) + o.rest }

// Has reports whether a record was observed.
func (o *Observed) Has(id lockstep.ID) bool {
	if _, ok := slices.BinarySearchFunc(o.ids, id, compareIDs); ok || o.base == nil {
		return ok
	}
	return !o.wasAsked(id) && o.base.listed(id)
}

func (o *Observed) wasAsked(id lockstep.ID) bool {
	_, ok := slices.BinarySearchFunc(o.asked, id, compareIDs)
	return ok
}

// stays reports, without a look-up, a member of the base that nobody asked about.
func (o *Observed) stays(s *Members, r *memberRow) bool {
	return o.base == s && r.flags&memberInList != 0 && !o.wasAsked(r.id)
}

// All iterates over the records in ascending order.
func (o *Observed) All() iter.Seq[lockstep.ID] {
	if o.base == nil {
		return slices.Values(o.ids)
	}
	all := slices.Clone(o.ids)
	for id := range o.base.Listed() {
		if !o.wasAsked(id) {
			all = append(all, id)
		}
	}
	return slices.Values(sorted(all))
}

func compareIDs(a, b lockstep.ID) int { return bytes.Compare(a[:], b[:]) }
