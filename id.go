package lockstep

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // name-based UUIDs (RFC 9562 version 5) are defined over SHA-1; nothing secret depends on it.
	"encoding/hex"
	"fmt"
	"time"
)

// ID identifies a CRM record: the 16 bytes of its GUID in text order.
// The zero ID means "none".
type ID [16]byte

// ParseID reads a GUID in any case, with or without braces.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) == 38 && s[0] == '{' && s[37] == '}' {
		s = s[1:37]
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, &Error{Code: CodeInvalid, Msg: fmt.Sprintf("%.40q is not a record id", s), Hint: "give a GUID such as 22222222-0000-0000-0000-000000000002"}
	}
	pos := 0
	for i := 0; i < 36; i += 2 {
		if s[i] == '-' {
			i++
		}
		hi, lo := unhex(s[i]), unhex(s[i+1])
		if hi > 15 || lo > 15 {
			return ID{}, &Error{Code: CodeInvalid, Msg: fmt.Sprintf("%.40q is not a record id", s), Hint: "give a GUID such as 22222222-0000-0000-0000-000000000002"}
		}
		id[pos] = hi<<4 | lo
		pos++
	}
	return id, nil
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// String returns the GUID in lower case without braces.
func (id ID) String() string {
	var b [36]byte
	return string(id.Append(b[:0]))
}

// Append appends the text form to dst.
func (id ID) Append(dst []byte) []byte {
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

// IsZero reports whether id names no record.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns the text form.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// UnmarshalText reads the text form.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	*id = v
	return err
}

// NewID returns a time-ordered random id (UUID version 7) for records and rows
// that Lockstep creates.
func NewID(now time.Time) ID {
	var id ID
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	ms := uint64(now.UnixMilli())
	id[0], id[1], id[2], id[3], id[4], id[5] = byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms)
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// NameID returns the id that always belongs to name within space (UUID version
// 5): a repeated create chooses the same id and so cannot make a second record.
func NameID(space ID, name string) ID {
	h := sha1.New() //nolint:gosec // see import
	h.Write(space[:])
	h.Write([]byte(name))
	var id ID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}
