package dotdigital

import "math/bits"

// idSet is an ordered set of contact indexes: a bitmap in pages of 4,096, so
// that five thousand sparse lists and one full list both stay small, and so
// that members come in ascending order without sorting. The zero value is empty.
type idSet struct {
	pages []*[64]uint64
	n     int
}

func (s *idSet) has(i uint32) bool {
	p := int(i >> 12)
	return p < len(s.pages) && s.pages[p] != nil && s.pages[p][i>>6&63]>>(i&63)&1 == 1
}

func (s *idSet) add(i uint32) {
	p := int(i >> 12)
	for len(s.pages) <= p {
		s.pages = append(s.pages, nil)
	}
	if s.pages[p] == nil {
		s.pages[p] = new([64]uint64)
	}
	w := &s.pages[p][i>>6&63]
	if *w>>(i&63)&1 == 1 {
		return
	}
	*w |= 1 << (i & 63)
	s.n++
}

// remove reports whether i was a member.
func (s *idSet) remove(i uint32) bool {
	if !s.has(i) {
		return false
	}
	s.pages[i>>12][i>>6&63] &^= 1 << (i & 63)
	s.n--
	return true
}

// next returns the smallest member that is at least i.
func (s *idSet) next(i uint32) (uint32, bool) {
	w := i >> 6 & 63
	mask := ^uint64(0) << (i & 63)
	for p := int(i >> 12); p < len(s.pages); p++ {
		if page := s.pages[p]; page != nil {
			for ; w < 64; w++ {
				if v := page[w] & mask; v != 0 {
					return uint32(p)<<12 | w<<6 | uint32(bits.TrailingZeros64(v)), true
				}
				mask = ^uint64(0)
			}
		}
		w, mask = 0, ^uint64(0)
	}
	return 0, false
}

// all iterates over the members in ascending order, beginning with from.
func (s *idSet) all(from uint32) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for i, ok := s.next(from); ok; i, ok = s.next(i + 1) {
			if !yield(i) {
				return
			}
		}
	}
}
