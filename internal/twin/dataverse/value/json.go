package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MinTime is the earliest date-time a column takes.
var MinTime = time.Date(1753, 1, 1, 0, 0, 0, 0, time.UTC)

// AppendJSON appends v as the Web API writes it: numbers plain (money with its
// four places, a double always with a point or exponent), date-times as
// "2026-03-01T10:00:00Z", dates as "2026-03-01", GUIDs lower-case, a
// multi-select as "1,2,3".
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case KindBool:
		return strconv.AppendBool(dst, v.hi != 0)
	case KindInt:
		return strconv.AppendInt(dst, v.hi, 10)
	case KindDecimal:
		return appendDecimal(dst, v)
	case KindDouble:
		n := len(dst)
		dst = strconv.AppendFloat(dst, v.Float(), 'g', -1, 64)
		for _, c := range dst[n:] {
			if c == '.' || c == 'e' {
				return dst
			}
		}
		return append(dst, '.', '0')
	case KindText:
		return AppendString(dst, v.s)
	case KindMultiSelect:
		dst = append(dst, '"')
		dst = append(dst, v.s...)
		return append(dst, '"')
	case KindDateTime:
		dst = append(dst, '"')
		dst = v.Time().AppendFormat(dst, "2006-01-02T15:04:05Z")
		return append(dst, '"')
	case KindDate:
		dst = append(dst, '"')
		dst = v.Time().AppendFormat(dst, time.DateOnly)
		return append(dst, '"')
	case KindGUID:
		dst = append(dst, '"')
		dst = v.GUID().Append(dst)
		return append(dst, '"')
	}
	return append(dst, "null"...)
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && plainASCII(s[i:i+8]) {
			i += 8
			continue
		}
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// plainASCII reports whether eight bytes are ASCII without a control character,
// a quotation mark or a backslash, looking at all of them at once. It may say no
// to some that are.
func plainASCII(s string) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	quote, slash := x^ones*'"', x^ones*'\\'
	return (x|(x-ones*' ')|(quote-ones)|(slash-ones))&high == 0
}

// ErrType is the reason when a JSON token or literal has another type than the
// column.
var ErrType = errors.New("the value has another type than the column")

// ParseJSON reads one scalar JSON token for a column of the wanted kind. null
// gives the null value for every kind. It refuses what Dataverse refuses:
// strings for numbers, 0 and 1 for Booleans, fractions for whole numbers, dates
// outside of ISO 8601 or before 1753, arrays and objects.
func ParseJSON(token []byte, want Kind) (Value, error) {
	if len(token) == 0 {
		return Value{}, errors.New("empty JSON value")
	}
	mismatch := func() (Value, error) {
		return Value{}, fmt.Errorf("%w: cannot convert to %s", ErrType, want)
	}
	switch c := token[0]; c {
	case 'n', 't', 'f':
		switch s := string(token); {
		case s == "null":
			return Value{}, nil
		case s == "true" && want == KindBool:
			return Bool(true), nil
		case s == "false" && want == KindBool:
			return Bool(false), nil
		}
		return mismatch()
	case '"':
		switch want {
		case KindText, KindDateTime, KindDate, KindGUID, KindMultiSelect:
		default:
			return mismatch()
		}
		s, err := unquote(token)
		if err != nil {
			return Value{}, err
		}
		return ParseText(s, want)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if !json.Valid(token) {
			return mismatch()
		}
		switch want {
		case KindInt, KindDecimal, KindDouble:
			return ParseText(string(token), want)
		}
	}
	return mismatch()
}

func unquote(token []byte) (string, error) {
	plain := len(token) >= 2 && token[len(token)-1] == '"'
	for i := 1; plain && i < len(token)-1; i++ {
		plain = token[i] != '\\' && token[i] != '"' && token[i] >= ' '
	}
	if plain && utf8.Valid(token) {
		return string(token[1 : len(token)-1]), nil
	}
	var s string
	err := json.Unmarshal(token, &s)
	return s, err
}

// ParseText reads the text form of a value: an OData literal without its quotes
// or a FetchXML condition value. Booleans are true and false in any case; 0 and
// 1 are not taken (FetchXML's own rule for them is the caller's). A decimal with
// more than ten places is refused; an empty multi-select is null.
func ParseText(s string, want Kind) (Value, error) {
	switch want {
	case KindText:
		return Text(s), nil
	case KindBool:
		switch {
		case strings.EqualFold(s, "true"):
			return Bool(true), nil
		case strings.EqualFold(s, "false"):
			return Bool(false), nil
		}
	case KindInt:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && s[0] != '+' {
			return Int(n), nil
		}
		// A whole number may be written 3.0 or 3e2.
		d, err := ParseDecimal(s)
		if err == nil {
			if q, rem := d.dec().divPow10(d.scale); rem == 0 {
				if n, ok := q.int64(); ok {
					return Int(n), nil
				}
			}
		}
	case KindDecimal:
		return ParseDecimal(s)
	case KindDouble:
		f, err := strconv.ParseFloat(s, 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) && !strings.ContainsAny(s, "xX_pP") {
			return Double(f), nil
		}
	case KindDateTime:
		return ParseDateTime(s)
	case KindDate:
		return ParseDate(s)
	case KindGUID:
		id, err := ParseID(s)
		if err != nil {
			return Value{}, err
		}
		return GUID(id), nil
	case KindMultiSelect:
		if s == "" {
			return Value{}, nil
		}
		var options []int
		for part := range strings.SplitSeq(s, ",") {
			n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 32)
			if err != nil {
				return Value{}, fmt.Errorf("%w: %.40q is not an option value", ErrType, part)
			}
			options = append(options, int(n))
		}
		return MultiSelect(options...), nil
	}
	return Value{}, fmt.Errorf("%w: cannot convert %.40q to %s", ErrType, s, want)
}

// ParseDateTime reads ISO 8601 with seconds optional, fractions cut, and the
// zone Z or an offset; a bare date is its midnight in UTC.
func ParseDateTime(s string) (Value, error) {
	if len(s) == len(time.DateOnly) {
		d, err := ParseDate(s)
		if err != nil {
			return Value{}, err
		}
		return DateTime(d.Time()), nil
	}
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Before(MinTime) {
				return Value{}, fmt.Errorf("%.40q is before 1753-01-01", s)
			}
			return DateTime(t), nil
		}
	}
	return Value{}, fmt.Errorf("%w: %.40q is not an ISO 8601 date and time with zone", ErrType, s)
}

// ParseDate reads the date form 2026-03-01.
func ParseDate(s string) (Value, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Value{}, fmt.Errorf("%w: %.40q is not a date of the form YYYY-MM-DD", ErrType, s)
	}
	if t.Before(MinTime) {
		return Value{}, fmt.Errorf("%.40q is before 1753-01-01", s)
	}
	return DateOf(t), nil
}
