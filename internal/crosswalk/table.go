package crosswalk

// hashTable maps 64-bit hashes to row numbers by open addressing with linear
// probing. It keeps 4 bytes a slot: the row number and a few bits of the hash,
// which spare most looks at rows that merely share a neighbourhood. Rows with one
// hash may be many; the owner compares keys.
type hashTable struct {
	slots []uint32 // 0 = free, else tag and row+1
	used  int
	// hashOf returns the hash of a row that is in the table.
	hashOf func(row uint32) uint64
}

const (
	rowBits = 27
	maxRows = 1<<rowBits - 1
	rowMask = 1<<rowBits - 1
)

func tag(hash uint64) uint32 { return uint32(hash) &^ rowMask }

// home spreads hashes over any number of slots by their upper bits.
func (t *hashTable) home(hash uint64) int {
	return int((hash >> 32) * uint64(len(t.slots)) >> 32)
}

// find returns the row for which same is true among those with this hash.
func (t *hashTable) find(hash uint64, same func(row uint32) bool) (row uint32, ok bool) {
	if len(t.slots) == 0 {
		return 0, false
	}
	for i := t.home(hash); t.slots[i] != 0; {
		if s := t.slots[i]; s&^rowMask == tag(hash) && same(s&rowMask-1) {
			return s&rowMask - 1, true
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return 0, false
}

func (t *hashTable) insert(hash uint64, row uint32) {
	if t.used*20 >= len(t.slots)*17 { // at most 85 % full
		t.resize(max(16, len(t.slots)*6/5))
	}
	t.place(hash, row)
	t.used++
}

func (t *hashTable) place(hash uint64, row uint32) {
	i := t.home(hash)
	for t.slots[i] != 0 {
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	t.slots[i] = tag(hash) | (row + 1)
}

func (t *hashTable) resize(n int) {
	old := t.slots
	t.slots = make([]uint32, n)
	for _, s := range old {
		if s != 0 {
			row := s&rowMask - 1
			t.place(t.hashOf(row), row)
		}
	}
}

// slotOf returns the slot that holds the row, which must be there.
func (t *hashTable) slotOf(hash uint64, row uint32) int {
	i := t.home(hash)
	for t.slots[i]&rowMask != row+1 {
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return i
}

// remove takes the row out and moves later ones up, so that no marks of removed
// rows are left behind.
func (t *hashTable) remove(hash uint64, row uint32) {
	free := t.slotOf(hash, row)
	n := len(t.slots)
	for i := free; ; {
		if i++; i == n {
			i = 0
		}
		s := t.slots[i]
		if s == 0 {
			break
		}
		home := t.home(t.hashOf(s&rowMask - 1))
		// s may move to the free slot unless its home lies behind it.
		if (i-home+n)%n >= (i-free+n)%n {
			t.slots[free] = s
			free = i
		}
	}
	t.slots[free] = 0
	t.used--
}

// replace puts another row with the same hash into a row's slot.
func (t *hashTable) replace(hash uint64, row, by uint32) {
	t.slots[t.slotOf(hash, row)] = tag(hash) | (by + 1)
}

// mix spreads the bits of a key that is not random by itself.
func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
