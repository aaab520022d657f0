package transform

import (
	"crypto/sha256"
	"encoding/binary"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Hash128 is the hash of what a CRM record says to the platform. The zero value
// means "never sent" and equals no hash of a content.
type Hash128 [16]byte

// IsZero reports that nothing was hashed.
func (h Hash128) IsZero() bool { return h == Hash128{} }

// Hash64 is the first half, which is enough to tell that something changed.
func (h Hash128) Hash64() uint64 { return binary.LittleEndian.Uint64(h[:8]) }

// ContentHash hashes what a record says: the mapping version as seed, its
// normalised address, the flags that decide membership, and its label values.
//
// It is the first half of the SHA-256 of: the seed as 8 bytes, little-endian; one
// byte of opt-out flags; one byte 0 or 1 for inactive; the address; the number of
// values as unsigned varint; then for each value one byte for its kind and, for
// kinds that have one, its text. A text is its length in bytes as unsigned varint
// followed by the bytes. Absent, Null and an empty text differ by their kind, and
// no two different inputs have the same encoding. The result is the same in every
// process, on every machine and in every version; values that people choose
// cannot be made to collide.
func ContentHash(seed uint64, email string, optOut lockstep.OptOut, inactive bool, values []lockstep.Value) Hash128 {
	var stack [1024]byte
	buf := binary.LittleEndian.AppendUint64(stack[:0], seed)
	buf = append(buf, byte(optOut), 0)
	if inactive {
		buf[len(buf)-1] = 1
	}
	buf = appendText(buf, email)
	buf = binary.AppendUvarint(buf, uint64(len(values)))
	for i := range values {
		kind := values[i].Kind()
		buf = append(buf, byte(kind))
		if kind > lockstep.Null {
			buf = appendText(buf, values[i].Text())
		}
	}
	sum := sha256.Sum256(buf)
	h := Hash128(sum[:16])
	if h.IsZero() { // keep the zero value free, even for the one content in 2^128
		h[0] = 1
	}
	return h
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
