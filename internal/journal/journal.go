// Package journal is the compact form in which a batch of changes is stored: one
// record a batch, written before the call and replaced, with each change's own
// outcome, after the acknowledged answer. From it the per-record history is read.
//
// Layout, all integers unsigned varints unless said otherwise:
//
//	'J' version(1)
//	names: count, then each name as length and bytes   (fields, books, reasons, tables)
//	rows:  each as kind(1) state(1) flags(1) and the members that flags announce
//	crc32 (Castagnoli) of everything before, 4 bytes little endian
//
// Names are listed once because a batch repeats them in each row.
package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/lockstep-sync/lockstep"
)

const version = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// flags of a row
const (
	hasRef = 1 << iota
	hasContact
	hasList
	hasBook
	hasBooks
	hasName
	hasCause
	hasFields
)

// Writer builds the payload of one batch. The zero value is ready; Reset reuses
// its memory.
type Writer struct {
	names map[string]uint64
	order []string
	rows  []byte
	n     int
}

// Reset empties the writer and keeps its memory.
func (w *Writer) Reset() {
	clear(w.names)
	w.order, w.rows, w.n = w.order[:0], w.rows[:0], 0
}

// Len returns the number of changes added.
func (w *Writer) Len() int { return w.n }

func (w *Writer) name(s string) {
	i, ok := w.names[s]
	if !ok {
		if w.names == nil {
			w.names = map[string]uint64{}
		}
		i = uint64(len(w.order))
		w.names[s] = i
		w.order = append(w.order, s)
	}
	w.rows = binary.AppendUvarint(w.rows, i)
}

func (w *Writer) text(s string) {
	w.rows = binary.AppendUvarint(w.rows, uint64(len(s)))
	w.rows = append(w.rows, s...)
}

func (w *Writer) value(v lockstep.Value) {
	w.rows = append(w.rows, byte(v.Kind()))
	if v.Kind() > lockstep.Null {
		w.text(v.Text())
	}
}

// Add appends one change.
func (w *Writer) Add(c *lockstep.Change) {
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(c.Ref.Table != "", hasRef)
	set(c.Contact != "" || c.Email != "", hasContact)
	set(!c.List.IsZero(), hasList)
	set(c.Book != "", hasBook)
	set(len(c.Books) > 0, hasBooks)
	set(c.Name != "", hasName)
	set(c.Cause != "", hasCause)
	set(len(c.Fields) > 0, hasFields)
	w.rows = append(w.rows, byte(c.Kind), byte(c.State), flags)
	w.name(c.Why)
	if flags&hasRef != 0 {
		w.name(c.Ref.Table)
		w.rows = append(w.rows, c.Ref.ID[:]...)
	}
	if flags&hasContact != 0 {
		w.text(string(c.Contact))
		w.text(c.Email)
	}
	if flags&hasList != 0 {
		w.rows = append(w.rows, c.List[:]...)
	}
	if flags&hasBook != 0 {
		w.name(string(c.Book))
	}
	if flags&hasBooks != 0 {
		w.rows = binary.AppendUvarint(w.rows, uint64(len(c.Books)))
		for _, b := range c.Books {
			w.name(string(b))
		}
	}
	if flags&hasName != 0 {
		w.text(c.Name)
	}
	if flags&hasCause != 0 {
		w.text(c.Cause)
	}
	if flags&hasFields != 0 {
		w.rows = binary.AppendUvarint(w.rows, uint64(len(c.Fields)))
		for i := range c.Fields {
			w.name(c.Fields[i].Name)
			w.value(c.Fields[i].Old)
			w.value(c.Fields[i].New)
		}
	}
	w.n++
}

// Payload returns the finished batch in memory of its own.
func (w *Writer) Payload() []byte {
	size := 2 + len(w.rows) + 4 + binary.MaxVarintLen64
	for _, s := range w.order {
		size += len(s) + 3
	}
	out := make([]byte, 0, size)
	out = append(out, 'J', version)
	out = binary.AppendUvarint(out, uint64(len(w.order)))
	for _, s := range w.order {
		out = binary.AppendUvarint(out, uint64(len(s)))
		out = append(out, s...)
	}
	out = append(out, w.rows...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// Encode returns the payload of these changes.
func Encode(changes []lockstep.Change) []byte {
	var w Writer
	for i := range changes {
		w.Add(&changes[i])
	}
	return w.Payload()
}

type reader struct {
	text  string
	pos   int
	bad   bool
	names []string
}

func (r *reader) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

func (r *reader) byte() byte {
	if r.pos >= len(r.text) {
		r.bad = true
		return 0
	}
	r.pos++
	return r.text[r.pos-1]
}

func (r *reader) cut(n uint64) string {
	if n > uint64(len(r.text)-r.pos) {
		r.bad = true
		return ""
	}
	s := r.text[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return s
}

func (r *reader) string() string { return r.cut(r.uvarint()) }

func (r *reader) name() string {
	i := r.uvarint()
	if i >= uint64(len(r.names)) {
		r.bad = true
		return ""
	}
	return r.names[i]
}

func (r *reader) id() (id lockstep.ID) {
	copy(id[:], r.cut(16))
	return id
}

func (r *reader) value() lockstep.Value {
	k := lockstep.Kind(r.byte())
	if k > lockstep.Choices {
		r.bad = true
		return lockstep.Value{}
	}
	if k <= lockstep.Null {
		return lockstep.CanonicalValue(k, "")
	}
	return lockstep.CanonicalValue(k, r.string())
}

func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.text)-r.pos) { // each item takes a byte at least
		r.bad = true
		return 0
	}
	return int(n)
}

func damaged() error {
	return &lockstep.Error{Code: lockstep.CodeInternal, Op: "journal: read batch", Msg: "a stored batch of changes is damaged", Hint: "restore the data folder from a backup; nothing was written from this batch"}
}

// whole reports whether a payload is as it was made.
func whole(payload []byte) bool {
	return len(payload) >= 7 && payload[0] == 'J' && payload[1] == version &&
		crc32.Checksum(payload[:len(payload)-4], castagnoli) == binary.LittleEndian.Uint32(payload[len(payload)-4:])
}

// Decode hands the changes of a payload to each, in order. A damaged payload is
// an error before the first change.
func Decode(payload []byte, each func(lockstep.Change) error) error {
	r, ok := open(payload)
	if !ok {
		return damaged()
	}
	for !r.bad && r.pos < len(r.text) {
		c := lockstep.Change{Kind: lockstep.ChangeKind(r.byte()), State: lockstep.ChangeState(r.byte())}
		flags := r.byte()
		c.Why = r.name()
		if flags&hasRef != 0 {
			c.Ref.Table = r.name()
			c.Ref.ID = r.id()
		}
		if flags&hasContact != 0 {
			c.Contact = lockstep.ContactID(r.string())
			c.Email = r.string()
		}
		if flags&hasList != 0 {
			c.List = r.id()
		}
		if flags&hasBook != 0 {
			c.Book = lockstep.BookID(r.name())
		}
		if flags&hasBooks != 0 {
			for range r.count() {
				c.Books = append(c.Books, lockstep.BookID(r.name()))
			}
		}
		if flags&hasName != 0 {
			c.Name = r.string()
		}
		if flags&hasCause != 0 {
			c.Cause = r.string()
		}
		if flags&hasFields != 0 {
			n := r.count()
			c.Fields = make([]lockstep.FieldChange, 0, n)
			for range n {
				c.Fields = append(c.Fields, lockstep.FieldChange{Name: r.name(), Old: r.value(), New: r.value()})
			}
		}
		if r.bad {
			break
		}
		if err := each(c); err != nil {
			return err
		}
	}
	if r.bad {
		return damaged()
	}
	return nil
}

// Changes returns all changes of a payload.
func Changes(payload []byte) ([]lockstep.Change, error) {
	var out []lockstep.Change
	err := Decode(payload, func(c lockstep.Change) error {
		out = append(out, c)
		return nil
	})
	return out, err
}
