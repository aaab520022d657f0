package store

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// index is an ordered set of rows by (key, primary key), kept in chunks so that
// an insertion moves little memory and three million entries cost sixteen bytes
// each. The primary index uses the first half of the id as key, which makes its
// order that of the ids; a secondary index uses a hash of its columns, which
// makes the rows of one value a contiguous run in the order of their ids.
type index struct {
	chunks [][]entry
	n      int
}

type entry struct {
	key uint64
	row *Row
}

const chunkMax = 512

func idKey(id value.ID) uint64 { return binary.BigEndian.Uint64(id[:8]) }

func compareEntry(e entry, key uint64, id value.ID) int {
	if c := cmp.Compare(e.key, key); c != 0 {
		return c
	}
	return slices.Compare(e.row.ID[:], id[:])
}

// seek returns the position of the first entry at or after (key, id).
func (x *index) seek(key uint64, id value.ID) (chunk, pos int) {
	chunk = sort.Search(len(x.chunks), func(i int) bool {
		c := x.chunks[i]
		return compareEntry(c[len(c)-1], key, id) >= 0
	})
	if chunk == len(x.chunks) {
		return chunk, 0
	}
	c := x.chunks[chunk]
	pos = sort.Search(len(c), func(i int) bool { return compareEntry(c[i], key, id) >= 0 })
	return chunk, pos
}

func (x *index) get(key uint64, id value.ID) *Row {
	c, p := x.seek(key, id)
	if c < len(x.chunks) && p < len(x.chunks[c]) {
		if e := x.chunks[c][p]; compareEntry(e, key, id) == 0 {
			return e.row
		}
	}
	return nil
}

// put inserts the row or takes the place of the one with its key and id.
func (x *index) put(key uint64, row *Row) {
	e := entry{key, row}
	c, p := x.seek(key, row.ID)
	if c == len(x.chunks) {
		if c == 0 {
			x.chunks = append(x.chunks, append(make([]entry, 0, chunkMax), e))
			x.n++
			return
		}
		c--
		p = len(x.chunks[c])
	}
	chunk := x.chunks[c]
	if p < len(chunk) && compareEntry(chunk[p], key, row.ID) == 0 {
		chunk[p] = e
		return
	}
	x.n++
	if len(chunk) < chunkMax {
		x.chunks[c] = slices.Insert(chunk, p, e)
		return
	}
	half := len(chunk) / 2
	right := append(make([]entry, 0, chunkMax), chunk[half:]...)
	clear(chunk[half:])
	left := chunk[:half]
	if p <= half {
		left = slices.Insert(left, p, e)
	} else {
		right = slices.Insert(right, p-half, e)
	}
	x.chunks[c] = left
	x.chunks = slices.Insert(x.chunks, c+1, right)
}

func (x *index) remove(key uint64, id value.ID) {
	c, p := x.seek(key, id)
	if c == len(x.chunks) || p == len(x.chunks[c]) || compareEntry(x.chunks[c][p], key, id) != 0 {
		return
	}
	x.n--
	if x.chunks[c] = slices.Delete(x.chunks[c], p, p+1); len(x.chunks[c]) == 0 {
		x.chunks = slices.Delete(x.chunks, c, c+1)
	}
}

// build replaces the content with entries, which it sorts.
func (x *index) build(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return compareEntry(a, b.key, b.row.ID) })
	x.chunks, x.n = nil, len(entries)
	const fill = chunkMax * 3 / 4
	for len(entries) > 0 {
		n := min(fill, len(entries))
		x.chunks = append(x.chunks, append(make([]entry, 0, chunkMax), entries[:n]...))
		entries = entries[n:]
	}
}

// all appends every entry to dst.
func (x *index) all(dst []entry) []entry {
	for _, c := range x.chunks {
		dst = append(dst, c...)
	}
	return dst
}

// run appends to dst at most limit rows strictly after (key, after), in order;
// with sameKey only those of that key.
func (x *index) run(dst []*Row, key uint64, after value.ID, started bool, sameKey bool, limit int) []*Row {
	c, p := x.seek(key, after)
	for ; c < len(x.chunks); c, p = c+1, 0 {
		for _, e := range x.chunks[c][p:] {
			if sameKey && e.key != key {
				return dst
			}
			if started && e.key == key && e.row.ID == after {
				continue
			}
			dst = append(dst, e.row)
			if len(dst) >= limit {
				return dst
			}
		}
	}
	return dst
}
