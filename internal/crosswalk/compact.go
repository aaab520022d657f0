package crosswalk

import (
	"slices"

	lockstep "github.com/lockstep-sync/lockstep"
)

// ChunkEntries is the most entries of a payload that Compact writes.
const ChunkEntries = 1000

// Compaction is a shorter form of a part of the link log: Payloads say what the
// blobs in Drop said and still counts. Both belong in one transaction; then the
// payloads are added to the index under their new ids, and the dropped blobs
// removed with Drop.
type Compaction struct {
	Payloads [][]byte
	Drop     []int64
}

// Compact rewrites small and outdated blobs, the oldest first, into payloads of
// at most ChunkEntries entries. A call takes on at most limit entries, outdated
// ones included, but one blob at least; fetch reads whole blobs. With nothing
// worth doing it returns an empty Compaction. The index itself is not changed.
func (x *Index) Compact(fetch func([]lockstep.BlobRange) ([][]byte, error), limit int) (Compaction, error) {
	return x.compact(fetch, limit, ChunkEntries)
}

func (x *Index) compact(fetch func([]lockstep.BlobRange) ([][]byte, error), limit, chunk int) (Compaction, error) {
	chosen := x.wasteful(limit, chunk)
	if len(chosen) == 0 {
		return Compaction{}, nil
	}
	w := compactor{index: x, chunk: chunk}
	for i := range chosen {
		b := &x.blobs[chosen[i]]
		payloads, err := fetch([]lockstep.BlobRange{{Blob: b.id, Offset: 0, Length: b.size}})
		if err != nil {
			return Compaction{}, err
		}
		if len(payloads) != 1 || len(payloads[0]) != b.size {
			return Compaction{}, damaged("blob %d is not there as it was stored", b.id)
		}
		// Where an older blob stays, its entry would come back to life if the one
		// that closed it were gone.
		keepClosed := chosen[i] != i
		if err := w.take(b, payloads[0], keepClosed); err != nil {
			return Compaction{}, err
		}
		w.out.Drop = append(w.out.Drop, b.id)
	}
	for _, g := range w.groups {
		g.flush(&w.out)
	}
	if w.taken == w.kept && len(w.out.Payloads) >= len(w.out.Drop) {
		return Compaction{}, nil // the same again under another id
	}
	return w.out, nil
}

// wasteful returns the positions of the blobs to rewrite: those with less than
// half a chunk of entries that count, or with less than half of theirs.
func (x *Index) wasteful(limit, chunk int) []int {
	var chosen []int
	entries, live := 0, 0
	for i := range x.blobs {
		b := &x.blobs[i]
		if b.live >= chunk/2 && b.live*2 >= b.entries {
			continue
		}
		if len(chosen) > 0 && entries+b.entries > limit {
			break
		}
		chosen = append(chosen, i)
		entries += b.entries
		live += b.live
	}
	// One small blob alone would only be written again as it is.
	if len(chosen) == 1 && live*2 >= entries && x.blobs[chosen[0]].closed == 0 {
		return nil
	}
	return chosen
}

type compactor struct {
	index  *Index
	chunk  int
	out    Compaction
	groups []*group
	// taken and kept count entries before and after.
	taken, kept int
}

// group collects entries that have the same labels.
type group struct {
	labels []string
	batch  *Batch
}

func (g *group) flush(out *Compaction) {
	if g.batch.Len() > 0 {
		out.Payloads = append(out.Payloads, g.batch.Bytes())
		g.batch.Reset()
	}
}

func (w *compactor) group(labels []string) *group {
	for _, g := range w.groups {
		if slices.Equal(g.labels, labels) {
			return g
		}
	}
	g := &group{labels: labels, batch: NewBatch(labels)}
	w.groups = append(w.groups, g)
	return g
}

func (w *compactor) take(b *blob, payload []byte, keepClosed bool) error {
	g := w.group(b.labels)
	return scan(payload, nil, func(offset int, h *head, body []byte) error {
		w.taken++
		table, _ := w.index.tableNumber(h.table, false)
		row, open := w.index.findRef(table, h.id)
		switch closed := h.flags&flagClosed != 0; {
		case closed && (open || !keepClosed):
			return nil
		case !closed && !open:
			return nil
		case !closed:
			c, i := w.index.at(row)
			if c.place[i]>>lengthBits != b.start+uint64(offset) {
				return nil // a later entry replaced it
			}
		}
		w.kept++
		g.batch.appendRaw(body)
		if g.batch.Len() == w.chunk {
			g.flush(&w.out)
		}
		return nil
	})
}

// Drop forgets blobs that a compaction replaced. A blob that still holds an open
// link is an error, and then none is dropped: its replacement was not added.
func (x *Index) Drop(blobIDs []int64) error {
	for _, id := range blobIDs {
		if i, ok := x.blobIndex(id); ok && x.blobs[i].live > 0 {
			return &lockstep.Error{
				Code: lockstep.CodeInternal, Op: "crosswalk: drop blobs", Scope: lockstep.ScopeConnection,
				Msg: "a blob to drop still holds open links", Hint: "add the compacted payloads first",
			}
		}
	}
	x.blobs = slices.DeleteFunc(x.blobs, func(b blob) bool { return slices.Contains(blobIDs, b.id) })
	return nil
}
