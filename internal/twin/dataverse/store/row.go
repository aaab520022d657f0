package store

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Row is one immutable version of a record. An update makes a new Row, so a
// reader may keep one as long as it likes.
type Row struct {
	ID      value.ID
	Version int64 // versionnumber, from the counter of the whole organization
	data    string
}

// Cell is one column of a row: its value and, for a lookup with several
// possible target tables, the index of the target among the column's Targets.
type Cell struct {
	Value  value.Value
	Target uint8
}

// Rows are encoded as a sequence of non-null fields in ascending column order:
//
//	uvarint(position delta <<4 | kind), payload
//
// The payload follows from the kind: a zigzag varint for whole numbers, Booleans,
// dates and date-times; length and bytes for texts, decimals (their decimal text)
// and multi-selects; eight bytes for doubles; target index and sixteen bytes for
// identifiers. The primary key and the version are not among the fields.

// Field is one encoded field of a row, for writers that copy it to the wire
// without making a Value of it.
type Field struct {
	Kind   value.Kind
	Int    int64  // whole numbers, Booleans, seconds, days, bits of a double
	Text   string // texts, decimals, multi-selects; the sixteen bytes of an identifier
	Target uint8
}

// Reader walks over the fields of a row in column order.
type Reader struct {
	data string
	ord  int
}

// Fields starts a walk over the row's non-null columns without primary key and
// version.
func (r *Row) Fields() Reader { return Reader{data: r.data, ord: -1} }

// Next returns the next field and its column's position; ok is false at the end.
func (d *Reader) Next() (ord int, f Field, ok bool) {
	if len(d.data) == 0 {
		return 0, Field{}, false
	}
	tag, n := uvarint(d.data)
	d.data = d.data[n:]
	d.ord += int(tag >> 4)
	f.Kind = value.Kind(tag & 15)
	switch f.Kind {
	case value.KindText, value.KindDecimal, value.KindMultiSelect:
		size, n := uvarint(d.data)
		f.Text = d.data[n : n+int(size)]
		d.data = d.data[n+int(size):]
	case value.KindGUID:
		f.Target = d.data[0]
		f.Text = d.data[1:17]
		d.data = d.data[17:]
	case value.KindDouble:
		var bits uint64
		for i := range 8 {
			bits = bits<<8 | uint64(d.data[i])
		}
		f.Int = int64(bits)
		d.data = d.data[8:]
	default:
		u, n := uvarint(d.data)
		f.Int = int64(u>>1) ^ -int64(u&1)
		d.data = d.data[n:]
	}
	return d.ord, f, true
}

// skipTo advances to the field at or after ord without decoding those before.
func (d *Reader) skipTo(want int) (Field, bool) {
	for {
		ord, f, ok := d.Next()
		if !ok || ord > want {
			return Field{}, false
		}
		if ord == want {
			return f, true
		}
	}
}

// Span is the place of one field in a row's encoding; it holds no pointer, so
// that writing many of them costs the garbage collector nothing.
type Span struct {
	Kind       value.Kind
	start, end uint32
}

// Locate finds the wanted fields in one walk: out[slot[ord]] receives the field
// at position ord where slot[ord] is not negative. Fields after the position
// last are not looked at. out must be zeroed.
func (r *Row) Locate(slot []int16, last int, out []Span) {
	d, i, ord := r.data, 0, -1
	for i < len(d) {
		tag, n := uint64(d[i]), 1
		if tag >= 0x80 {
			tag, n = uvarint(d[i:])
		}
		i += n
		if ord += int(tag >> 4); ord > last {
			return
		}
		kind, start := value.Kind(tag&15), i
		switch kind {
		case value.KindText, value.KindDecimal, value.KindMultiSelect:
			size, n := uint64(d[i]), 1
			if size >= 0x80 {
				size, n = uvarint(d[i:])
			}
			start += n
			i = start + int(size)
		case value.KindGUID:
			i += 17
		case value.KindDouble:
			i += 8
		default:
			for d[i] >= 0x80 {
				i++
			}
			i++
		}
		if ord < len(slot) && slot[ord] >= 0 {
			out[slot[ord]] = Span{kind, uint32(start), uint32(i)}
		}
	}
}

// Field decodes a located field of the row.
func (r *Row) Field(s Span) Field {
	f := Field{Kind: s.Kind}
	if s.Kind == value.KindNull {
		return f
	}
	d := r.Text(s)
	switch s.Kind {
	case value.KindText, value.KindDecimal, value.KindMultiSelect:
		f.Text = d
	case value.KindGUID:
		f.Target, f.Text = d[0], d[1:]
	case value.KindDouble:
		for i := range 8 {
			f.Int = f.Int<<8 | int64(d[i])
		}
	default:
		f.Int = r.Number(s)
	}
	return f
}

// Text is the content of a located text, decimal or multi-select.
func (r *Row) Text(s Span) string { return r.data[s.start:s.end] }

// Number is the content of a located whole number, Boolean (0 or 1), date (days
// since 1970) or date-time (seconds since then).
func (r *Row) Number(s Span) int64 {
	u, _ := uvarint(r.data[s.start:s.end])
	return int64(u>>1) ^ -int64(u&1)
}

// Warm reads a little of each row, so that the processor fetches all of them from
// memory at the same time. Rows lie anywhere in memory: a writer that takes one
// after the other waits for each, which costs more than to encode it. Call it with
// the WarmRows that are written next.
//
//go:noinline
func Warm(rows []*Row) (sum int64) {
	for _, r := range rows {
		sum += r.Version
	}
	for _, r := range rows {
		for i := 0; i < len(r.data); i += cacheLine {
			sum += int64(r.data[i])
		}
	}
	return sum
}

// WarmRows is how many rows Warm is best called with: enough to wait for all of
// them at once, and so few that the first is still in the cache when the last is
// there.
const WarmRows = 32

const cacheLine = 64

func uvarint(s string) (uint64, int) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), 1
	}
	var x uint64
	var shift uint
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		b := s[i]
		if b < 0x80 {
			return x | uint64(b)<<shift, i + 1
		}
		x |= uint64(b&0x7f) << shift
		shift += 7
	}
	panic("store: damaged row")
}

// Value makes a value of the field.
func (f Field) Value() value.Value {
	switch f.Kind {
	case value.KindBool:
		return value.Bool(f.Int != 0)
	case value.KindInt:
		return value.Int(f.Int)
	case value.KindDouble:
		return value.Double(math.Float64frombits(uint64(f.Int)))
	case value.KindDecimal:
		v, err := value.ParseDecimal(f.Text)
		if err != nil {
			panic("store: damaged row: " + err.Error())
		}
		return v
	case value.KindText:
		return value.Text(f.Text)
	case value.KindMultiSelect:
		v, err := value.ParseText(f.Text, value.KindMultiSelect)
		if err != nil {
			panic("store: damaged row: " + err.Error())
		}
		return v
	case value.KindDateTime:
		return value.DateTime(time.Unix(f.Int, 0))
	case value.KindDate:
		return value.DateOf(time.Unix(f.Int*86400, 0).UTC())
	case value.KindGUID:
		return value.GUID(f.ID())
	}
	return value.Null()
}

// ID is the identifier in a field of that kind.
func (f Field) ID() value.ID {
	var id value.ID
	copy(id[:], f.Text)
	return id
}

// Value returns the value at a column's position; null where never set.
func (r *Row) Value(ord int) value.Value {
	switch ord {
	case schema.IDOrd:
		return value.GUID(r.ID)
	case schema.VersionOrd:
		return value.Int(r.Version)
	}
	d := r.Fields()
	if f, ok := d.skipTo(ord); ok {
		return f.Value()
	}
	return value.Null()
}

// Cell returns the value at a position with the index of its lookup target.
func (r *Row) Cell(ord int) Cell {
	if ord == schema.IDOrd || ord == schema.VersionOrd {
		return Cell{Value: r.Value(ord)}
	}
	d := r.Fields()
	if f, ok := d.skipTo(ord); ok {
		return Cell{Value: f.Value(), Target: f.Target}
	}
	return Cell{}
}

// Cells decodes the row into dst, indexed by column position, and returns it. It
// grows where the row has columns that dst's owner does not know yet, so that a
// column added meanwhile keeps its value.
func (r *Row) Cells(dst []Cell) []Cell {
	clear(dst)
	dst[schema.IDOrd].Value = value.GUID(r.ID)
	dst[schema.VersionOrd].Value = value.Int(r.Version)
	for d := r.Fields(); ; {
		ord, f, ok := d.Next()
		if !ok {
			return dst
		}
		if ord >= len(dst) {
			dst = append(dst, make([]Cell, ord+1-len(dst))...)
		}
		dst[ord] = Cell{Value: f.Value(), Target: f.Target}
	}
}

// NewRow encodes cells, indexed by column position, as a row.
func NewRow(id value.ID, version int64, cells []Cell) *Row {
	var buf [1024]byte
	b := AppendCells(buf[:0], cells)
	return &Row{ID: id, Version: version, data: string(b)}
}

// AppendCells appends the encoded non-null cells to dst.
func AppendCells(dst []byte, cells []Cell) []byte {
	prev := -1
	for ord := schema.VersionOrd + 1; ord < len(cells); ord++ {
		if cells[ord].Value.IsNull() {
			continue
		}
		dst = appendTag(dst, ord-prev, cells[ord].Value.Kind())
		dst = appendPayload(dst, cells[ord])
		prev = ord
	}
	return dst
}

func appendTag(dst []byte, delta int, k value.Kind) []byte {
	return binary.AppendUvarint(dst, uint64(delta)<<4|uint64(k))
}

func appendPayload(dst []byte, c Cell) []byte {
	v := c.Value
	switch v.Kind() {
	case value.KindBool:
		if v.Bool() {
			return append(dst, 2)
		}
		return append(dst, 0)
	case value.KindInt:
		return binary.AppendVarint(dst, v.Int())
	case value.KindDateTime:
		return binary.AppendVarint(dst, v.Unix())
	case value.KindDate:
		return binary.AppendVarint(dst, floorDays(v.Unix()))
	case value.KindDouble:
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v.Float()))
	case value.KindGUID:
		id := v.GUID()
		dst = append(dst, c.Target)
		return append(dst, id[:]...)
	case value.KindDecimal:
		var buf [48]byte
		text := v.AppendJSON(buf[:0])
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		return append(dst, text...)
	default:
		dst = binary.AppendUvarint(dst, uint64(len(v.Text())))
		return append(dst, v.Text()...)
	}
}

func floorDays(seconds int64) int64 {
	d := seconds / 86400
	if seconds%86400 < 0 {
		d--
	}
	return d
}

// hashCells is the index key of the given columns of a row; ok is false when
// one of them is null, because such a row is in no index.
func (r *Row) hashCells(ords []int) (h uint64, ok bool) {
	h = hashSeed
	for _, ord := range ords {
		v := r.Value(ord)
		if v.IsNull() {
			return 0, false
		}
		h = hashValue(h, v)
	}
	return h, true
}

// Hash is the index key of a tuple of non-null values.
func Hash(values ...value.Value) uint64 {
	h := uint64(hashSeed)
	for _, v := range values {
		h = hashValue(h, v)
	}
	return h
}

const hashSeed = 14695981039346656037

// hashValue mixes a value so that values the service finds equal share a key:
// texts without regard to case and surrounding the trailing blanks it keeps,
// numbers without regard to their scale.
func hashValue(h uint64, v value.Value) uint64 {
	const prime = 1099511628211
	switch v.Kind() {
	case value.KindGUID:
		id := v.GUID()
		a, b := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
		h = (h ^ a) * prime
		h ^= h >> 29
		h = (h ^ b) * prime
		return h ^ h>>32
	case value.KindText, value.KindMultiSelect:
		s := value.Fold(v.Text())
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		return (h ^ 0xff) * prime
	case value.KindDecimal:
		s := v.String()
		if strings.Contains(s, ".") {
			s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
		}
		return hashValue(h, value.Text(s))
	case value.KindDateTime, value.KindDate:
		return (h ^ uint64(v.Unix())) * prime
	case value.KindDouble:
		return (h ^ math.Float64bits(v.Float())) * prime
	case value.KindBool:
		if v.Bool() {
			return (h ^ 1) * prime
		}
		return h * prime
	}
	h = (h ^ uint64(v.Int())) * prime
	return h ^ h>>32
}
