package lockstep

import (
	"math/big"
	"strings"
	"time"
)

// Kind tells what a Value is.
type Kind uint8

// The kinds of a value. Absent means "not read" and is never written; Null is a
// known empty value. The difference is what keeps a failed read from blanking
// the other side.
const (
	Absent Kind = iota
	Null
	Text
	Number   // exact decimal, canonical text: no exponent, no trailing zeros after the point, "-0" is "0"
	Bool     // "true" or "false"
	DateTime // instant, "2006-01-02T15:04:05Z" in UTC; fractions are cut to whole seconds
	Date     // calendar day, "2006-01-02"
	Choices  // several option numbers, ascending, joined by commas: "1,4,7"
)

var kindNames = [...]string{"absent", "null", "text", "number", "bool", "datetime", "date", "choices"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "invalid"
}

// Value is one field's value in canonical text form. Values are small, comparable
// with ==, and share the text of the page they were read from.
type Value struct {
	kind Kind
	text string
}

// NullValue is a known empty value.
func NullValue() Value { return Value{kind: Null} }

// TextValue is s as it stands. The empty string is a Null: neither system keeps
// an empty text apart from none.
func TextValue(s string) Value {
	if s == "" {
		return Value{kind: Null}
	}
	return Value{kind: Text, text: s}
}

// BoolValue is a truth value.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, text: "true"}
	}
	return Value{kind: Bool, text: "false"}
}

// CanonicalValue is a value whose text the caller knows to be canonical for kind,
// for example because it came from Value.Text. Use the Parse functions for text
// from outside.
func CanonicalValue(kind Kind, text string) Value {
	switch kind {
	case Absent, Null:
		return Value{kind: kind}
	case Text:
		return TextValue(text)
	}
	return Value{kind: kind, text: text}
}

// ParseNumber reads a decimal number as JSON writes it, exponent included, and
// returns it in canonical form. ok is false when s is no number or is longer
// than 400 digits written out.
func ParseNumber(s string) (v Value, ok bool) {
	if plain, isPlain := plainNumber(s); isPlain {
		return Value{kind: Number, text: plain}, true
	}
	if len(s) > 64 || strings.ContainsAny(s, "/xXpP_iI") {
		return Value{}, false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 5 {
		return Value{}, false
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return Value{}, false
	}
	n, exact := r.FloatPrec()
	if !exact || n > 400 {
		return Value{}, false
	}
	t := r.FloatString(n)
	if len(t) > 400 {
		return Value{}, false
	}
	if plain, isPlain := plainNumber(t); isPlain {
		t = plain
	}
	return Value{kind: Number, text: t}, true
}

// plainNumber canonicalises digits[.digits] with an optional minus by cutting only.
func plainNumber(s string) (string, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 400 {
		return "", false
	}
	dot := -1
	for i := range len(digits) {
		switch c := digits[i]; {
		case c >= '0' && c <= '9':
		case c == '.' && dot < 0 && i > 0 && i < len(digits)-1:
			dot = i
		default:
			return "", false
		}
	}
	if digits[0] == '0' && len(digits) > 1 && dot != 1 {
		return "", false
	}
	if dot >= 0 {
		trimmed := strings.TrimRight(digits, "0")
		trimmed = strings.TrimSuffix(trimmed, ".")
		s = s[:len(s)-(len(digits)-len(trimmed))]
		digits = trimmed
	}
	if digits == "0" {
		return "0", true
	}
	return s, true
}

// ParseTime reads an ISO 8601 instant (blank instead of T and a missing zone,
// meaning UTC, are accepted) and returns it in canonical form.
func ParseTime(s string) (v Value, ok bool) {
	if len(s) == 20 && s[19] == 'Z' && s[10] == 'T' && isClock(s) { // already canonical
		return Value{kind: DateTime, text: s}, true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return TimeValue(t), true
		}
	}
	return Value{}, false
}

func isClock(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

// TimeValue is an instant, cut to whole seconds.
func TimeValue(t time.Time) Value {
	return Value{kind: DateTime, text: t.UTC().Format("2006-01-02T15:04:05Z")}
}

// ParseDate reads a calendar day, "2006-01-02".
func ParseDate(s string) (v Value, ok bool) {
	if len(s) != 10 {
		return Value{}, false
	}
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return Value{}, false
	}
	return Value{kind: Date, text: s}, true
}

// Kind tells what the value is.
func (v Value) Kind() Kind { return v.kind }

// Text returns the canonical text; empty for Absent and Null.
func (v Value) Text() string { return v.text }

// IsNull reports a known empty value.
func (v Value) IsNull() bool { return v.kind == Null }

// IsAbsent reports that the value was not read.
func (v Value) IsAbsent() bool { return v.kind == Absent }

// Bool returns the truth value of a Bool.
func (v Value) Bool() bool { return v.text == "true" }

// Time returns the instant of a DateTime, or midnight UTC of a Date.
func (v Value) Time() (t time.Time, ok bool) {
	var err error
	switch v.kind {
	case DateTime:
		t, err = time.Parse(time.RFC3339, v.text)
	case Date:
		t, err = time.Parse(time.DateOnly, v.text)
	default:
		return t, false
	}
	return t, err == nil
}

// String returns a form for people and tests; it shows the content, so it must
// not reach a log.
func (v Value) String() string {
	switch v.kind {
	case Absent:
		return "(absent)"
	case Null:
		return "(empty)"
	}
	return v.text
}

// MarshalJSON writes null, a JSON boolean, a JSON number or text; Absent is null.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case Absent, Null:
		return []byte("null"), nil
	case Bool, Number:
		return []byte(v.text), nil
	}
	return AppendJSONString(nil, v.text), nil
}
