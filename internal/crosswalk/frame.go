package crosswalk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unsafe"

	lockstep "github.com/lockstep-sync/lockstep"
)

const (
	frameVersion = 1
	headSize     = 3
	tailSize     = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func damaged(format string, args ...any) error {
	return &lockstep.Error{
		Code: lockstep.CodeInternal, Op: "crosswalk: read batch", Scope: lockstep.ScopeConnection,
		Msg:  fmt.Sprintf(format, args...),
		Hint: "the stored batch is damaged or was written by a newer version; restore the database from a backup or run a full comparison",
	}
}

// seal appends the trailer to a frame.
func seal(frame []byte, entries int) []byte {
	frame = binary.LittleEndian.AppendUint32(frame, uint32(entries))
	return binary.LittleEndian.AppendUint32(frame, crc32.Checksum(frame, castagnoli))
}

// unseal checks a frame and returns a reader of its body and the number of its
// entries.
func unseal(kind byte, frame []byte) (reader, int, error) {
	if len(frame) < headSize+tailSize {
		return reader{}, 0, damaged("the batch is cut off after %d bytes", len(frame))
	}
	if frame[0] != 'L' || frame[1] != kind {
		return reader{}, 0, damaged("the batch is of another kind")
	}
	if frame[2] != frameVersion {
		return reader{}, 0, damaged("the batch has format version %d, this program knows %d", frame[2], frameVersion)
	}
	end := len(frame) - 4
	if crc32.Checksum(frame[:end], castagnoli) != binary.LittleEndian.Uint32(frame[end:]) {
		return reader{}, 0, damaged("the checksum of the batch is wrong")
	}
	body := end - 4
	return reader{b: frame[:body], pos: headSize}, int(binary.LittleEndian.Uint32(frame[body:])), nil
}

// reader reads a body and remembers the first failure; after one, every read
// returns zero values.
type reader struct {
	b      []byte
	pos    int
	failed bool
}

func (r *reader) more() bool { return !r.failed && r.pos < len(r.b) }

func (r *reader) byte() byte {
	if r.failed || r.pos >= len(r.b) {
		r.failed = true
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

func (r *reader) uvarint() uint64 {
	if r.failed {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.pos:])
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.pos += n
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bytes returns the next n bytes of the body itself, not a copy.
func (r *reader) bytes(n int) []byte {
	if r.failed || n < 0 || n > len(r.b)-r.pos {
		r.failed = true
		return nil
	}
	b := r.b[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

// text returns the next length-prefixed bytes of the body itself.
func (r *reader) text() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	return r.bytes(int(n))
}

// peek views bytes as a string for a look-up that does not keep it.
func peek(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // the string lives no longer than the look-up, and b does not change meanwhile
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
