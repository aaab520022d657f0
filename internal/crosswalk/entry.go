package crosswalk

import (
	"encoding/binary"
	"fmt"
	"slices"

	lockstep "github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// Entry is one link with its base: a CRM record and the contact it belongs to.
type Entry struct {
	Ref     lockstep.Ref
	Contact lockstep.ContactID
	Email   string // normalised; the address both sides agreed on
	// Standing and OptIn are the contact's, as last read.
	Standing lockstep.Standing
	OptIn    lockstep.OptInType
	// Master marks the record that speaks for the contact; without a contact, one whose own
	// was deleted.
	Master bool
	// Closed ends the link; everything but Ref is then of no account.
	Closed bool
	// Hash is that of the record content from which the base follows.
	Hash transform.Hash128
	// OptOut are the record's own "do not …" flags: the strictest of all records
	// that share an address counts for each of them.
	OptOut lockstep.OptOut
	// Seen is a hash, of the caller's making, of what the platform says of the
	// contact; 0 = not known.
	Seen uint64
	// Modified is when the CRM record last changed, in Unix seconds; 0 is a mark of the
	// engine's.
	Modified int64
	// Base has one value for each label of the batch: what both sides last agreed
	// on, Absent where they never did.
	Base []lockstep.Value
	// Apart has what the CRM record says of the labels on which the two sides are left
	// different, by an undo or because the platform changed what only flows there;
	// Absent for all others. Base then has what the platform says. Nil when the sides
	// differ nowhere.
	Apart []lockstep.Value
}

const (
	flagMaster = 1 << iota
	flagClosed
	flagApart
	flagsKnown = 1<<iota - 1
)

// The tables of nearly all links are written as one byte; 0 stands for a name
// that follows.
var tableNames = [...]string{"", "contact", "lead", "account"}

// Batch collects entries for one payload.
type Batch struct {
	labels  int
	head    int // bytes of buf before the first entry
	buf     []byte
	scratch []byte
	n       int
}

// NewBatch starts a batch whose entries have a base value for each of labels.
func NewBatch(labels []string) *Batch {
	b := &Batch{labels: len(labels), buf: []byte{'L', 'K', frameVersion}}
	b.buf = binary.AppendUvarint(b.buf, uint64(len(labels)))
	for _, l := range labels {
		b.buf = appendText(b.buf, l)
	}
	b.head = len(b.buf)
	return b
}

// Reset takes all entries out and keeps the memory and the labels.
func (b *Batch) Reset() { b.buf, b.n = b.buf[:b.head], 0 }

// Append adds an entry. Base must have one value for each label of the batch, or
// none at all (then every value is Absent); anything else is a mistake of the
// caller and panics.
func (b *Batch) Append(e Entry) {
	if len(e.Base) != 0 && len(e.Base) != b.labels {
		panic(fmt.Sprintf("crosswalk: entry with %d base values in a batch of %d labels", len(e.Base), b.labels))
	}
	if len(e.Apart) != 0 && len(e.Apart) != b.labels {
		panic(fmt.Sprintf("crosswalk: entry with %d values apart in a batch of %d labels", len(e.Apart), b.labels))
	}
	b.scratch = appendEntry(b.scratch[:0], &e, b.labels)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(b.scratch)))
	b.buf = append(b.buf, b.scratch...)
	b.n++
}

// appendRaw adds an entry in encoded form, from a batch with the same labels.
func (b *Batch) appendRaw(body []byte) {
	b.buf = binary.AppendUvarint(b.buf, uint64(len(body)))
	b.buf = append(b.buf, body...)
	b.n++
}

// Len returns the number of entries.
func (b *Batch) Len() int { return b.n }

// Bytes returns the finished payload. Entries can still be appended afterwards
// for a later call.
func (b *Batch) Bytes() []byte {
	frame := make([]byte, len(b.buf), len(b.buf)+tailSize)
	copy(frame, b.buf)
	return seal(frame, b.n)
}

func appendEntry(dst []byte, e *Entry, labels int) []byte {
	var flags byte
	if e.Master {
		flags |= flagMaster
	}
	if e.Closed {
		flags |= flagClosed
	}
	apart := slices.ContainsFunc(e.Apart, func(v lockstep.Value) bool { return !v.IsAbsent() })
	if apart {
		flags |= flagApart
	}
	dst = append(dst, flags)
	code := 0
	for i := 1; i < len(tableNames); i++ {
		if tableNames[i] == e.Ref.Table {
			code = i
		}
	}
	dst = append(dst, byte(code))
	if code == 0 {
		dst = appendText(dst, e.Ref.Table)
	}
	dst = append(dst, e.Ref.ID[:]...)
	dst = appendText(dst, string(e.Contact))
	dst = appendText(dst, e.Email)
	dst = append(dst, byte(e.Standing), byte(e.OptIn), byte(e.OptOut))
	dst = append(dst, e.Hash[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, e.Seen)
	dst = binary.AppendVarint(dst, e.Modified)
	dst = appendValues(dst, e.Base, labels)
	if apart {
		dst = appendValues(dst, e.Apart, labels)
	}
	return dst
}

func appendValues(dst []byte, values []lockstep.Value, labels int) []byte {
	for i := range labels {
		var v lockstep.Value
		if i < len(values) {
			v = values[i]
		}
		dst = append(dst, byte(v.Kind()))
		if v.Kind() > lockstep.Null {
			dst = appendText(dst, v.Text())
		}
	}
	return dst
}

// head is an entry without its base, as views into the payload.
type head struct {
	table           string // a view as well
	contact, email  []byte
	id              lockstep.ID
	standing, optIn byte
	optOut          byte
	flags           byte
	hash            transform.Hash128
	seen            uint64
	modified        int64
}

func readHead(r *reader) head {
	var h head
	h.flags = r.byte()
	switch code := r.byte(); {
	case h.flags&^byte(flagsKnown) != 0 || int(code) >= len(tableNames):
		r.failed = true
	case code == 0:
		h.table = peek(r.text())
	default:
		h.table = tableNames[code]
	}
	copy(h.id[:], r.bytes(len(h.id)))
	h.contact = r.text()
	h.email = r.text()
	h.standing, h.optIn, h.optOut = r.byte(), r.byte(), r.byte()
	copy(h.hash[:], r.bytes(len(h.hash)))
	if b := r.bytes(8); len(b) == 8 {
		h.seen = binary.LittleEndian.Uint64(b)
	}
	h.modified = r.varint()
	return h
}

// skimBase checks the values of an entry without keeping them.
func skimBase(r *reader, flags byte, labels int) {
	if flags&flagApart != 0 {
		labels *= 2
	}
	for range labels {
		if r.failed {
			return
		}
		kind := lockstep.Kind(r.byte())
		if kind > lockstep.Choices {
			r.failed = true
		}
		if kind > lockstep.Null {
			r.text()
		}
	}
}

// DecodeEntry reads one entry from the bytes that Decode or a Link pointed to;
// labels are those of its batch, see Index.Labels. The entry's texts share one
// copy of the bytes.
func DecodeEntry(labels []string, body []byte) (Entry, error) {
	r := reader{b: body}
	h := readHead(&r)
	values := r.pos
	skimBase(&r, h.flags, len(labels))
	if r.failed || r.pos != len(body) {
		return Entry{}, damaged("an entry of %d bytes does not have the form of a link with %d labels", len(body), len(labels))
	}
	text := string(body) // one copy, of which all texts are parts
	part := func(b []byte, end int) string { return text[end-len(b) : end] }
	e := Entry{
		Ref:      lockstep.Ref{ID: h.id},
		Standing: lockstep.Standing(h.standing), OptIn: lockstep.OptInType(h.optIn), OptOut: lockstep.OptOut(h.optOut),
		Master: h.flags&flagMaster != 0, Closed: h.flags&flagClosed != 0,
		Hash: h.hash, Seen: h.seen, Modified: h.modified,
	}
	r.pos = 1
	if code := r.byte(); code == 0 {
		t := r.text()
		e.Ref.Table = part(t, r.pos)
	} else {
		e.Ref.Table = tableNames[code]
	}
	r.bytes(len(h.id))
	c := r.text()
	e.Contact = lockstep.ContactID(part(c, r.pos))
	m := r.text()
	e.Email = part(m, r.pos)
	if len(labels) > 0 {
		read := func() []lockstep.Value {
			out := make([]lockstep.Value, len(labels))
			for i := range out {
				if kind := lockstep.Kind(r.byte()); kind > lockstep.Null {
					t := r.text()
					out[i] = lockstep.CanonicalValue(kind, part(t, r.pos))
				} else {
					out[i] = lockstep.CanonicalValue(kind, "")
				}
			}
			return out
		}
		r.pos = values
		e.Base = read()
		if h.flags&flagApart != 0 {
			e.Apart = read()
		}
	}
	return e, nil
}

// Labels returns the labels of a payload.
func Labels(payload []byte) ([]string, error) {
	r, _, err := unseal('K', payload)
	if err != nil {
		return nil, err
	}
	return readLabels(&r)
}

func readLabels(r *reader) ([]string, error) {
	n := r.uvarint()
	if n > uint64(len(r.b)) { // every label takes a byte at least
		return nil, damaged("the batch claims %d labels", n)
	}
	labels := make([]string, 0, n)
	for range n {
		labels = append(labels, string(r.text()))
	}
	if r.failed {
		return nil, damaged("the labels of the batch are cut off")
	}
	return labels, nil
}

// scan calls each with every entry of a payload: its place, its head and its
// encoded form. It checks the whole form of the batch on the way.
func scan(payload []byte, start func(labels []string), each func(offset int, h *head, body []byte) error) error {
	r, count, err := unseal('K', payload)
	if err != nil {
		return err
	}
	labels, err := readLabels(&r)
	if err != nil {
		return err
	}
	if start != nil {
		start(labels)
	}
	n := 0
	var h head // one for all entries: each may not keep it
	for r.more() {
		body := r.text()
		er := reader{b: body, failed: r.failed}
		h = readHead(&er)
		skimBase(&er, h.flags, len(labels))
		if er.failed || er.pos != len(body) {
			return damaged("entry %d of the batch is malformed", n)
		}
		if each != nil {
			if err := each(r.pos-len(body), &h, body); err != nil {
				return err
			}
		}
		n++
	}
	if r.failed || n != count {
		return damaged("the batch has %d entries and claims %d", n, count)
	}
	return nil
}

// Decode calls each with every entry of a payload and its place in it. The
// payload is checked as a whole first: a damaged one yields an error and no
// entry. An error from each ends the reading and is returned as it is.
func Decode(payload []byte, each func(offset, length int, e Entry) error) error {
	if err := scan(payload, nil, nil); err != nil {
		return err
	}
	var labels []string
	return scan(payload, func(l []string) { labels = l }, func(offset int, _ *head, body []byte) error {
		e, err := DecodeEntry(labels, body)
		if err != nil {
			return err
		}
		return each(offset, len(body), e)
	})
}
