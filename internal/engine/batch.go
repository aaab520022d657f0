package engine

import (
	"iter"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// batch is one import with what is stored together with its acknowledgement.
type batch struct {
	rows    []row // sent
	quiet   []row // only the link changes
	cursors map[string]lockstep.Cursor
	id      int64
	job     lockstep.JobID
	places  int // that are taken
}

// send adds a row that the platform is sent.
func (b *batch) send(r row) {
	b.places++
	r.place = b.places
	b.rows = append(b.rows, r)
}

// note adds a row of which only the link changes.
func (b *batch) note(r row) {
	b.places++
	r.place = b.places
	b.quiet = append(b.quiet, r)
}

// inOrder are all rows as they came, and whether only the link of one changes. A later
// one knows of those before it, and may say more of their records.
func (b *batch) inOrder() iter.Seq2[*row, bool] {
	slices.SortStableFunc(b.quiet, func(x, y row) int { return x.place - y.place })
	return func(yield func(*row, bool) bool) {
		for i, j := 0, 0; i < len(b.rows) || j < len(b.quiet); {
			if quiet := i == len(b.rows) || j < len(b.quiet) && b.quiet[j].place < b.rows[i].place; quiet {
				if !yield(&b.quiet[j], true) {
					return
				}
				j++
				continue
			}
			if !yield(&b.rows[i], false) {
				return
			}
			i++
		}
	}
}

// lost reports that the platform took the import and cannot say what became of it.
func (b *batch) lost(err error) bool { return err != nil && b.job != "" && lockstep.IsUnknown(err) }
