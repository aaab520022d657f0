// Package subject makes small filters of whom a stored piece of a log is about:
// records, contacts, addresses. A filter answers "not in here" for nearly everybody who
// is not, so that what is kept of one person among a million is found by reading a few
// pieces instead of all. It holds hashes and no personal data.
//
// A filter is a Bloom filter of 12 bits a subject, 8 of them set, which is wrong about
// some 3 strangers in 1,000 and about no subject:
//
//	'S' version(1), then a whole number of 64-bit words
package subject

import (
	"hash/fnv"
	"math/bits"

	"github.com/lockstep-sync/lockstep"
)

const (
	version = 1
	perHash = 12
	probes  = 8
)

// Hash names a record, a contact or an address.
type Hash uint64

// Record names a CRM record.
func Record(id lockstep.ID) Hash { return Of(string(id[:])) }

// Of names whatever a text identifies.
func Of(s string) Hash {
	h := fnv.New64a()
	h.Write([]byte(s))
	x := h.Sum64() // mixed once more, because a probe takes the upper bits
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return Hash(x ^ x>>32)
}

// Filter returns the filter of these subjects.
func Filter(subjects []Hash) []byte {
	words := max(1, (len(subjects)*perHash+63)/64)
	out := make([]byte, 2+8*words)
	out[0], out[1] = 'S', version
	for _, h := range subjects {
		for p := range h.probe(words) {
			out[2+p/8] |= 1 << (p % 8)
		}
	}
	return out
}

// MayConcern reports whether what a filter was made of may be about one of the
// subjects. A filter that is missing or not understood may concern anybody.
func MayConcern(filter []byte, subjects []Hash) bool {
	words := (len(filter) - 2) / 8
	if words < 1 || len(filter) != 2+8*words || filter[0] != 'S' || filter[1] != version {
		return true
	}
	for _, s := range subjects {
		in := true
		for p := range s.probe(words) {
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

// probe yields the bits of a subject.
func (h Hash) probe(words int) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		x := uint64(h)
		step := bits.RotateLeft64(x, 32) | 1
		for range probes {
			bit, _ := bits.Mul64(x, uint64(words)*64)
			if !yield(bit) {
				return
			}
			x = x*0x9e3779b97f4a7c15 + step
		}
	}
}
