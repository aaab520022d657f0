// Package value is the compact value of one Dataverse column.
//
// A Value is copied by value and holds at most one string, so that millions of
// rows can be kept without one heap object a cell. It knows the kinds that the
// Web API puts on the wire, compares them the way the organization's database
// does (text without regard to case, null before everything), writes itself as
// JSON and reads itself strictly: a Boolean is never taken from 0 or 1, a whole
// number never from 1.5, a date only from ISO 8601.
//
// Readings chosen where Microsoft's documentation is silent: text comparison
// distinguishes accents and trailing blanks; GUIDs order by their bytes as
// written, not in SQL Server's group order; a multi-select value is written in
// ascending order.
package value

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind tells what a Value holds.
type Kind uint8

// The kinds of a column. KindInt also carries option values (choice, state,
// status reason), KindDecimal also money, KindGUID also lookups.
const (
	KindNull Kind = iota
	KindBool
	KindInt
	KindDecimal
	KindDouble
	KindText
	KindDateTime
	KindDate
	KindGUID
	KindMultiSelect
)

var kindNames = [...]string{"null", "Edm.Boolean", "Edm.Int64", "Edm.Decimal", "Edm.Double", "Edm.String", "Edm.DateTimeOffset", "Edm.Date", "Edm.Guid", "MultiSelectPicklist"}

// String returns the Edm name of the kind as error texts use it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Value is one column's value. The zero Value is null. Values are comparable
// with == only for identity of representation; use Equal for Dataverse's
// equality.
type Value struct {
	s     string // text; for a multi-select its wire text "1,2,3", ascending
	hi    int64  // bool, int, double bits, seconds or days since 1970; high half of a decimal or GUID
	lo    uint64 // low half of a decimal or GUID
	kind  Kind
	scale uint8 // decimal places
}

// Null returns the null value, the same as Value{}.
func Null() Value { return Value{} }

// Bool returns a two-option value.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, hi: 1}
	}
	return Value{kind: KindBool}
}

// Int returns a whole number or option value.
func Int(n int64) Value { return Value{kind: KindInt, hi: n} }

// Double returns a floating point number. NaN and infinities have no place in a
// Dataverse column and become null.
func Double(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: KindDouble, hi: int64(math.Float64bits(f))}
}

// Text returns a text value. An empty string stays an empty text; whether a
// write stores it as null is the caller's rule.
func Text(s string) Value { return Value{kind: KindText, s: s} }

// DateTime returns the moment t in UTC, cut to whole seconds.
func DateTime(t time.Time) Value { return Value{kind: KindDateTime, hi: t.Unix()} }

// Date returns a date without time. Out-of-range days and months are normalised
// as by time.Date.
func Date(year int, month time.Month, day int) Value {
	return Value{kind: KindDate, hi: floorDiv(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix(), 86400)}
}

// DateOf returns the calendar day of t in t's own zone.
func DateOf(t time.Time) Value { return Date(t.Date()) }

// GUID returns a unique identifier or lookup value.
func GUID(id ID) Value {
	hi, lo := id.halves()
	return Value{kind: KindGUID, hi: int64(hi), lo: lo}
}

// MultiSelect returns a set of option values; order and repetition of the
// arguments do not matter. No option at all is null, as in Dataverse.
func MultiSelect(options ...int) Value {
	if len(options) == 0 {
		return Value{}
	}
	sorted := slices.Clone(options)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	b := make([]byte, 0, 8*len(sorted))
	for i, n := range sorted {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return Value{kind: KindMultiSelect, s: string(b)}
}

// Kind returns what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Bool returns the two-option value, false for any other kind.
func (v Value) Bool() bool { return v.kind == KindBool && v.hi != 0 }

// Int returns the whole number of an int, the whole part of a decimal or
// double, 0 for any other kind.
func (v Value) Int() int64 {
	switch v.kind {
	case KindInt:
		return v.hi
	case KindDecimal:
		u, _ := v.dec().divPow10(v.scale)
		if n, ok := u.int64(); ok {
			return n
		}
	case KindDouble:
		return int64(v.Float())
	}
	return 0
}

// Float returns a number of any numeric kind as the nearest float, 0 for other
// kinds.
func (v Value) Float() float64 {
	switch v.kind {
	case KindInt:
		return float64(v.hi)
	case KindDecimal:
		return v.dec().float() / math.Pow10(int(v.scale))
	case KindDouble:
		return math.Float64frombits(uint64(v.hi))
	}
	return 0
}

// Text returns the text of a text value, the wire text "1,2,3" of a
// multi-select, "" for any other kind.
func (v Value) Text() string { return v.s }

// Time returns a date-time, or a date's midnight, in UTC; the zero time for
// any other kind.
func (v Value) Time() time.Time {
	switch v.kind {
	case KindDateTime:
		return time.Unix(v.hi, 0).UTC()
	case KindDate:
		return time.Unix(v.hi*86400, 0).UTC()
	}
	return time.Time{}
}

// Unix returns Time as seconds since 1970, 0 for kinds without time.
func (v Value) Unix() int64 {
	switch v.kind {
	case KindDateTime:
		return v.hi
	case KindDate:
		return v.hi * 86400
	}
	return 0
}

// GUID returns the identifier, the zero ID for any other kind.
func (v Value) GUID() ID {
	if v.kind != KindGUID {
		return ID{}
	}
	return idOf(uint64(v.hi), v.lo)
}

// Options returns the ascending option values of a multi-select.
func (v Value) Options() []int {
	if v.kind != KindMultiSelect {
		return nil
	}
	var out []int
	for part := range strings.SplitSeq(v.s, ",") {
		n, _ := strconv.Atoi(part)
		out = append(out, n)
	}
	return out
}

// HasOption reports whether option is selected in a multi-select.
func (v Value) HasOption(option int) bool {
	if v.kind != KindMultiSelect {
		return false
	}
	var buf [20]byte
	want := strconv.AppendInt(buf[:0], int64(option), 10)
	for part := range strings.SplitSeq(v.s, ",") {
		if part == string(want) {
			return true
		}
	}
	return false
}

// Compare orders two values: null first, then by value; numeric kinds compare
// with each other, dates with date-times (a date is its midnight in UTC), text
// without regard to case. Values of kinds that have no common order compare by
// kind, so that the order is total.
func Compare(a, b Value) int {
	if a.kind != b.kind {
		switch {
		case a.isNumber() && b.isNumber():
			return compareNumbers(a, b)
		case a.isTime() && b.isTime():
			return cmp.Compare(a.Unix(), b.Unix())
		}
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case KindBool, KindInt, KindDateTime, KindDate:
		return cmp.Compare(a.hi, b.hi)
	case KindDouble:
		return cmp.Compare(a.Float(), b.Float())
	case KindDecimal:
		return compareDecimals(a, b)
	case KindText:
		return CompareFold(a.s, b.s)
	case KindMultiSelect:
		return cmp.Compare(a.s, b.s)
	case KindGUID:
		if c := cmp.Compare(uint64(a.hi), uint64(b.hi)); c != 0 {
			return c
		}
		return cmp.Compare(a.lo, b.lo)
	}
	return 0
}

// Equal reports whether Compare finds no difference; two nulls are equal here
// (a query's null semantics are the query's business).
func Equal(a, b Value) bool {
	if a.kind == KindText && b.kind == KindText {
		return EqualFold(a.s, b.s)
	}
	return Compare(a, b) == 0
}

// Comparable reports whether values of the two kinds have a common order.
func Comparable(a, b Kind) bool {
	x, y := Value{kind: a}, Value{kind: b}
	return a == b || x.isNumber() && y.isNumber() || x.isTime() && y.isTime()
}

func (v Value) isNumber() bool {
	return v.kind == KindInt || v.kind == KindDecimal || v.kind == KindDouble
}
func (v Value) isTime() bool { return v.kind == KindDateTime || v.kind == KindDate }

func compareNumbers(a, b Value) int {
	if a.kind == KindDouble || b.kind == KindDouble {
		return cmp.Compare(a.Float(), b.Float())
	}
	return compareDecimals(a.asDecimal(), b.asDecimal())
}

// String returns v for people: like the JSON form but text unquoted.
func (v Value) String() string {
	switch v.kind {
	case KindText, KindMultiSelect:
		return v.s
	case KindGUID:
		return v.GUID().String()
	case KindDateTime, KindDate:
		b := v.AppendJSON(nil)
		return string(b[1 : len(b)-1])
	}
	return string(v.AppendJSON(nil))
}

// ID is a GUID, its bytes in the order of its text form.
type ID [16]byte

// IsZero reports whether id is the all-zero GUID, which no record has.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders two ids by their bytes.
func (id ID) Compare(other ID) int {
	a, b := id.halves()
	c, d := other.halves()
	if r := cmp.Compare(a, c); r != 0 {
		return r
	}
	return cmp.Compare(b, d)
}

// String returns the lower-case form without braces.
func (id ID) String() string { return string(id.Append(nil)) }

// Append appends the lower-case form without braces to dst.
func (id ID) Append(dst []byte) []byte {
	dst = slices.Grow(dst, 36)
	dst = hex.AppendEncode(dst, id[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:16])
}

// MarshalText returns the lower-case form, so that an ID is a JSON string.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// UnmarshalText reads what ParseID reads.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	if err == nil {
		*id = parsed
	}
	return err
}

func (id ID) halves() (hi, lo uint64) {
	for i := range 8 {
		hi = hi<<8 | uint64(id[i])
		lo = lo<<8 | uint64(id[i+8])
	}
	return hi, lo
}

func idOf(hi, lo uint64) (id ID) {
	for i := 7; i >= 0; i-- {
		id[i], id[i+8] = byte(hi), byte(lo)
		hi, lo = hi>>8, lo>>8
	}
	return id
}

// ErrGUID is why ParseID refuses a text.
var ErrGUID = errors.New("not a GUID of the form 01234567-89ab-cdef-0123-456789abcdef")

// ParseID reads a GUID in any case, with or without braces around it.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) == 38 && s[0] == '{' && s[37] == '}' {
		s = s[1:37]
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrGUID
	}
	n := 0
	for i := 0; i < 36; i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		h, l := unhex(s[i]), unhex(s[i+1])
		if h > 15 || l > 15 {
			return ID{}, ErrGUID
		}
		id[n] = h<<4 | l
		n++
		i++
	}
	return id, nil
}

// MustID is ParseID for constants; it panics on a bad text.
func MustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(fmt.Sprintf("value.MustID(%q): %v", s, err))
	}
	return id
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
