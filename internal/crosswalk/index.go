package crosswalk

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
	"sort"
	"strings"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Link is one open link as the index knows it. The rest of its entry is at Where.
type Link struct {
	Ref     lockstep.Ref
	Contact lockstep.ContactID
	// Email is the key of the entry's address, see EmailKey; 0 = none.
	Email uint64
	// Hash64 is the first half of the entry's content hash.
	Hash64 uint64
	Seen   uint64 // the entry's
	OptOut lockstep.OptOut
	Master bool
	Where  lockstep.BlobRange
}

// EmailKey returns the 64-bit key under which the index finds a normalised
// address; 0 only for the empty one. Different addresses may share a key by
// accident, but nobody can choose addresses that do.
func EmailKey(email string) uint64 { return emailKey([]byte(email)) }

func emailKey(email []byte) uint64 {
	if len(email) == 0 {
		return 0
	}
	sum := sha256.Sum256(email)
	return max(1, binary.LittleEndian.Uint64(sum[:8]))
}

// Index finds the open links of one account by record, contact and address. It
// takes about 80 bytes a link, at most 134 million links and a log of one
// terabyte. Reading is safe from several goroutines as long as nobody adds.
type Index struct {
	chunks []*chunk
	rows   uint32 // rows ever used, free ones included
	free   []uint32
	live   int

	byRef, byContact, byEmail hashTable

	tables   []string
	contacts contactPool
	blobs    []blob
	end      uint64 // first log address after the last blob
}

// Rows are kept in chunks of parallel arrays: no slack from growing, no padding.
const chunkRows = 1 << 13 // a whole number of memory pages

type chunk struct {
	id      [chunkRows]lockstep.ID
	contact [chunkRows]packed
	email   [chunkRows]uint64
	hash    [chunkRows]uint64
	seen    [chunkRows]uint64
	// place is the entry's address in the log, the blobs laid end to end, and its
	// length in the lower 24 bits.
	place [chunkRows]uint64
	// The rows of one contact and of one email key form chains, of which the
	// tables know the first; none = noRow.
	nextOfContact [chunkRows]uint32
	nextOfEmail   [chunkRows]uint32
	optOut        [chunkRows]uint8
	meta          [chunkRows]uint8 // table number << 1 | master
}

const (
	noRow      = 1<<32 - 1
	lengthBits = 24
	maxLength  = 1<<lengthBits - 1
	maxAddress = 1 << (64 - lengthBits)
	maxTables  = 127
	freeMeta   = 0xff // of a row that is not in use
)

type blob struct {
	id            int64
	start         uint64 // address of its first byte in the log
	size          int
	entries, live int
	closed        int // entries that close a link
	labels        []string
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	x := &Index{}
	x.byRef.hashOf = func(row uint32) uint64 { c, i := x.at(row); return refHash(c.id[i]) }
	x.byContact.hashOf = func(row uint32) uint64 { c, i := x.at(row); return mix(uint64(c.contact[i])) }
	x.byEmail.hashOf = func(row uint32) uint64 { c, i := x.at(row); return c.email[i] }
	return x
}

func (x *Index) at(row uint32) (*chunk, uint32) { return x.chunks[row/chunkRows], row % chunkRows }

func refHash(id lockstep.ID) uint64 {
	return mix(binary.LittleEndian.Uint64(id[:8]) ^ mix(binary.LittleEndian.Uint64(id[8:])))
}

// Len returns the number of open links.
func (x *Index) Len() int { return x.live }

// Add takes in a stored payload: its entries replace earlier ones of the same
// record, closed ones end the link. Blobs must come in the order of their ids. A
// payload that is damaged changes nothing.
func (x *Index) Add(blobID int64, payload []byte) error {
	if n := len(x.blobs); n > 0 && x.blobs[n-1].id >= blobID {
		return &lockstep.Error{
			Code: lockstep.CodeInternal, Op: "crosswalk: add batch", Scope: lockstep.ScopeConnection,
			Msg: "the blobs of the link log came out of order", Hint: "read them by ascending id",
		}
	}
	if x.end+uint64(len(payload)) > maxAddress {
		return damaged("the link log is longer than a terabyte")
	}
	b := blob{id: blobID, start: x.end, size: len(payload)}
	tables := len(x.tables)
	err := scan(payload, func(labels []string) { b.labels = labels }, func(_ int, h *head, body []byte) error {
		b.entries++
		if h.flags&flagClosed != 0 {
			b.closed++
		}
		if _, ok := x.tableNumber(h.table, true); !ok {
			return damaged("the link log names more than %d tables", maxTables)
		}
		if len(body) > maxLength {
			return damaged("an entry of %d bytes is too long", len(body))
		}
		return nil
	})
	if err == nil && int(x.rows)-len(x.free)+b.entries > maxRows {
		err = damaged("the link log has more than %d links", maxRows)
	}
	if err != nil {
		x.tables = x.tables[:tables]
		return err
	}
	b.labels = x.shareLabels(b.labels)
	x.blobs = append(x.blobs, b)
	x.end += uint64(len(payload))
	return scan(payload, nil, func(offset int, h *head, body []byte) error {
		x.put(h, b.start+uint64(offset), len(body))
		return nil
	})
}

func (x *Index) put(h *head, address uint64, length int) {
	table, _ := x.tableNumber(h.table, true)
	row, known := x.findRef(table, h.id)
	if known {
		c, i := x.at(row)
		if h.flags&flagClosed == 0 && c.email[i] == emailKey(h.email) && c.contact[i] == x.contacts.pack(h.contact) {
			// The usual case, and the one that must not walk the chain of an
			// address that thousands of records share.
			x.blobAt(c.place[i]>>lengthBits).live--
			x.set(row, table, h, address, length)
			return
		}
		x.unlink(row)
		if h.flags&flagClosed != 0 {
			x.byRef.remove(refHash(c.id[i]), row)
			c.meta[i] = freeMeta
			x.free = append(x.free, row)
			x.live--
			return
		}
	} else {
		if h.flags&flagClosed != 0 {
			return
		}
		row = x.newRow()
		x.live++
	}
	c, i := x.at(row)
	c.id[i] = h.id
	c.contact[i] = x.contacts.pack(h.contact)
	c.email[i] = emailKey(h.email)
	x.set(row, table, h, address, length)
	if !known {
		x.byRef.insert(refHash(h.id), row)
	}
	c.nextOfContact[i] = x.chain(&x.byContact, mix(uint64(c.contact[i])), row, c.contact[i] != 0, x.sameContact(c.contact[i]))
	c.nextOfEmail[i] = x.chain(&x.byEmail, c.email[i], row, c.email[i] != 0, x.sameEmail(c.email[i]))
}

func (x *Index) set(row uint32, table uint8, h *head, address uint64, length int) {
	c, i := x.at(row)
	c.hash[i] = h.hash.Hash64()
	c.seen[i] = h.seen
	c.optOut[i] = h.optOut
	c.place[i] = address<<lengthBits | uint64(length)
	c.meta[i] = table<<1 | h.flags&flagMaster
	x.blobAt(address).live++
}

// chain makes row the first of the rows with its key and returns the one that was
// first before.
func (x *Index) chain(t *hashTable, hash uint64, row uint32, keyed bool, same func(uint32) bool) uint32 {
	if !keyed {
		return noRow
	}
	first, ok := t.find(hash, same)
	if !ok {
		t.insert(hash, row)
		return noRow
	}
	t.replace(hash, first, row)
	return first
}

func (x *Index) sameContact(p packed) func(uint32) bool {
	return func(row uint32) bool { c, i := x.at(row); return c.contact[i] == p }
}

func (x *Index) sameEmail(key uint64) func(uint32) bool {
	return func(row uint32) bool { c, i := x.at(row); return c.email[i] == key }
}

// unlink takes a row out of its chains and its blob's count.
func (x *Index) unlink(row uint32) {
	c, i := x.at(row)
	x.blobAt(c.place[i]>>lengthBits).live--
	if c.contact[i] != 0 {
		x.unchain(&x.byContact, mix(uint64(c.contact[i])), row, x.sameContact(c.contact[i]), func(c *chunk) *[chunkRows]uint32 { return &c.nextOfContact })
	}
	if c.email[i] != 0 {
		x.unchain(&x.byEmail, c.email[i], row, x.sameEmail(c.email[i]), func(c *chunk) *[chunkRows]uint32 { return &c.nextOfEmail })
	}
}

func (x *Index) unchain(t *hashTable, hash uint64, row uint32, same func(uint32) bool, next func(*chunk) *[chunkRows]uint32) {
	at := func(row uint32) *uint32 { c, i := x.at(row); return &next(c)[i] }
	first, _ := t.find(hash, same)
	switch after := *at(row); {
	case first != row:
		for *at(first) != row {
			first = *at(first)
		}
		*at(first) = after
	case after == noRow:
		t.remove(hash, row)
	default:
		t.replace(hash, row, after)
	}
}

func (x *Index) newRow() uint32 {
	if n := len(x.free); n > 0 {
		row := x.free[n-1]
		x.free = x.free[:n-1]
		return row
	}
	if x.rows%chunkRows == 0 {
		x.chunks = append(x.chunks, new(chunk))
	}
	x.rows++
	return x.rows - 1
}

func (x *Index) tableNumber(name string, add bool) (uint8, bool) {
	if i := slices.Index(x.tables, name); i >= 0 {
		return uint8(i), true
	}
	if !add || len(x.tables) == maxTables {
		return 0, false
	}
	x.tables = append(x.tables, strings.Clone(name))
	return uint8(len(x.tables) - 1), true
}

func (x *Index) findRef(table uint8, id lockstep.ID) (uint32, bool) {
	return x.byRef.find(refHash(id), func(row uint32) bool {
		c, i := x.at(row)
		return c.id[i] == id && c.meta[i]>>1 == table
	})
}

func (x *Index) link(row uint32) Link {
	c, i := x.at(row)
	address := c.place[i] >> lengthBits
	b := x.blobAt(address)
	return Link{
		Ref:     lockstep.Ref{Table: x.tables[c.meta[i]>>1], ID: c.id[i]},
		Contact: x.contacts.unpack(c.contact[i]),
		Email:   c.email[i],
		Hash64:  c.hash[i],
		Seen:    c.seen[i],
		OptOut:  lockstep.OptOut(c.optOut[i]),
		Master:  c.meta[i]&flagMaster != 0,
		Where:   lockstep.BlobRange{Blob: b.id, Offset: int(address - b.start), Length: int(c.place[i] & maxLength)},
	}
}

// ByRef returns the link of a record.
func (x *Index) ByRef(ref lockstep.Ref) (Link, bool) {
	table, ok := x.tableNumber(ref.Table, false)
	if !ok {
		return Link{}, false
	}
	row, ok := x.findRef(table, ref.ID)
	if !ok {
		return Link{}, false
	}
	return x.link(row), true
}

// ByContact appends the links of a contact to dst, the master and all others, in
// no particular order.
func (x *Index) ByContact(id lockstep.ContactID, dst []Link) []Link {
	p, ok := x.contacts.lookup(id)
	if !ok || p == 0 {
		return dst
	}
	row, ok := x.byContact.find(mix(uint64(p)), x.sameContact(p))
	for ok {
		dst = append(dst, x.link(row))
		c, i := x.at(row)
		row, ok = c.nextOfContact[i], c.nextOfContact[i] != noRow
	}
	return dst
}

// ByEmail appends the links whose address has the key of this normalised one, in
// no particular order. They are candidates: the address itself is in the entry.
func (x *Index) ByEmail(email string, dst []Link) []Link { return x.ByEmailKey(EmailKey(email), dst) }

// ByEmailKey is ByEmail for an address of which only the key is known.
func (x *Index) ByEmailKey(key uint64, dst []Link) []Link {
	if key == 0 {
		return dst
	}
	row, ok := x.byEmail.find(key, x.sameEmail(key))
	for ok {
		dst = append(dst, x.link(row))
		c, i := x.at(row)
		row, ok = c.nextOfEmail[i], c.nextOfEmail[i] != noRow
	}
	return dst
}

// All iterates over the open links in no particular order. Nothing may be added
// meanwhile.
func (x *Index) All() iter.Seq[Link] {
	return func(yield func(Link) bool) {
		for row := range x.rows {
			if c, i := x.at(row); c.meta[i] != freeMeta && !yield(x.link(row)) {
				return
			}
		}
	}
}

// Shared iterates over the groups of links that have one contact in common, in no
// particular order. The slice is valid until the next step. Nothing may be added
// meanwhile.
func (x *Index) Shared() iter.Seq[[]Link] {
	return func(yield func([]Link) bool) {
		var done map[packed]bool
		var group []Link
		for row := range x.rows {
			c, i := x.at(row)
			if c.meta[i] == freeMeta || c.contact[i] == 0 || c.nextOfContact[i] == noRow || done[c.contact[i]] {
				continue
			}
			if done == nil {
				done = map[packed]bool{}
			}
			done[c.contact[i]] = true
			if group = x.ByContact(x.contacts.unpack(c.contact[i]), group[:0]); !yield(group) {
				return
			}
		}
	}
}

// Labels returns the labels of a blob's entries, nil when the blob is not known.
// The slice is shared and must not be changed.
func (x *Index) Labels(blobID int64) []string {
	if i, ok := x.blobIndex(blobID); ok {
		return x.blobs[i].labels
	}
	return nil
}

func (x *Index) blobIndex(id int64) (int, bool) {
	return sort.Find(len(x.blobs), func(i int) int {
		switch {
		case id < x.blobs[i].id:
			return -1
		case id > x.blobs[i].id:
			return 1
		}
		return 0
	})
}

// blobAt returns the blob that holds a log address.
func (x *Index) blobAt(address uint64) *blob {
	i := sort.Search(len(x.blobs), func(i int) bool { return x.blobs[i].start > address })
	return &x.blobs[i-1]
}

func (x *Index) shareLabels(labels []string) []string {
	// Neighbours nearly always have the same labels.
	for i := len(x.blobs) - 1; i >= max(0, len(x.blobs)-64); i-- {
		if slices.Equal(x.blobs[i].labels, labels) {
			return x.blobs[i].labels
		}
	}
	return labels
}
