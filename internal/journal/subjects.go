package journal

import (
	"hash/fnv"
	"math/bits"

	"github.com/lockstep-sync/lockstep"
)

// A filter of a batch's subjects, the records and contacts that its changes are
// about, answers "not in this batch" for nearly everybody who is not, so that one
// person's history is found without decoding everybody's. It is a Bloom filter:
//
//	'S' version(1), then a whole number of 64-bit words, little endian
//
// with 12 bits a subject and 8 of them set, about 3 wrong answers in 1,000.
const (
	filterVersion  = 1
	bitsPerSubject = 12
	probes         = 8
)

// Subjects returns the filter of a payload; nil when it is damaged.
func Subjects(payload []byte) []byte {
	r, ok := open(payload)
	if !ok {
		return nil
	}
	var hashes []uint64
	for !r.bad && r.pos < len(r.text) {
		r.skip(&hashes)
	}
	if r.bad {
		return nil
	}
	words := max(1, (len(hashes)*bitsPerSubject+63)/64)
	out := make([]byte, 2+8*words)
	out[0], out[1] = 'S', filterVersion
	for _, h := range hashes {
		for p := range probe(h, words) {
			out[2+p/8] |= 1 << (p % 8)
		}
	}
	return out
}

// probe yields the bits of one subject.
func probe(h uint64, words int) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		step := bits.RotateLeft64(h, 32) | 1
		for range probes {
			hi, _ := bits.Mul64(h, uint64(words)*64)
			if !yield(hi) {
				return
			}
			h = h*0x9e3779b97f4a7c15 + step
		}
	}
}

// Subject names a record or a contact for MayConcern.
type Subject uint64

// OfRecord names a CRM record.
func OfRecord(id lockstep.ID) Subject { return Subject(hashOf(string(id[:]))) }

// OfContact names a contact.
func OfContact(id lockstep.ContactID) Subject { return Subject(hashOf(string(id))) }

func hashOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) //nolint:errcheck // a hash never fails
	x := h.Sum64()     // mixed once more: a probe takes the upper bits
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// MayConcern reports whether a batch with this filter may be about one of the
// subjects. A filter that is missing or not understood may concern anybody.
func MayConcern(filter []byte, subjects []Subject) bool {
	words := (len(filter) - 2) / 8
	if words < 1 || len(filter) != 2+8*words || filter[0] != 'S' || filter[1] != filterVersion {
		return true
	}
	for _, s := range subjects {
		in := true
		for p := range probe(uint64(s), words) {
			if filter[2+p/8]&(1<<(p%8)) == 0 {
				in = false
				break
			}
		}
		if in {
			return true
		}
	}
	return false
}

// skip reads past one change and notes whom it is about.
func (r *reader) skip(subjects *[]uint64) {
	r.cut(2)
	flags := r.byte()
	r.uvarint() // why
	if flags&hasRef != 0 {
		r.uvarint()
		*subjects = append(*subjects, hashOf(r.cut(16)))
	}
	if flags&hasContact != 0 {
		if contact := r.string(); contact != "" {
			*subjects = append(*subjects, hashOf(contact))
		}
		r.string()
	}
	if flags&hasList != 0 {
		r.cut(16)
	}
	if flags&hasBook != 0 {
		r.uvarint()
	}
	if flags&hasBooks != 0 {
		for range r.count() {
			r.uvarint()
		}
	}
	if flags&hasName != 0 {
		r.string()
	}
	if flags&hasCause != 0 {
		r.string()
	}
	if flags&hasFields != 0 {
		for range r.count() {
			r.uvarint()
			r.skipValue()
			r.skipValue()
		}
	}
}

func (r *reader) skipValue() {
	if lockstep.Kind(r.byte()) > lockstep.Null {
		r.string()
	}
}

// open checks a payload and reads past its names.
func open(payload []byte) (*reader, bool) {
	if !whole(payload) {
		return nil, false
	}
	r := &reader{text: string(payload[2 : len(payload)-4])}
	for range r.count() {
		r.names = append(r.names, r.string())
	}
	return r, !r.bad
}
