package store

import (
	"context"
	"strings"
	"time"
)

// Forgotten counts what a sweep deleted.
type Forgotten struct{ Conflicts, Findings, Batches, Runs int64 }

// told are runs of which nothing is kept beside them, and that are not the latest of
// their kind.
const told = `status NOT IN ('queued', 'in_process') AND NOT EXISTS (SELECT 1 FROM journal WHERE journal.run = runs.id)
AND NOT EXISTS (SELECT 1 FROM conflicts WHERE conflicts.run = runs.id) AND NOT EXISTS (SELECT 1 FROM findings WHERE findings.run = runs.id)
AND EXISTS (SELECT 1 FROM runs later WHERE later.account = runs.account AND later.type = runs.type AND later.list = runs.list AND later.mode = runs.mode AND later.created > runs.created)`

// Forget deletes what is older than before: findings, the losing values of conflicts
// that are no longer open, the journal of what has ended, and runs of which nothing else
// is left; and it gives up records to be tried again that no run has looked at since. Of
// runs that their schedule started and that found nothing to do it deletes those older
// than quiet. It works in small steps, so that nobody waits long, and may be
// repeated.
func (s *Store) Forget(ctx context.Context, before, quiet time.Time) (Forgotten, error) {
	const op = "store: forget"
	var done Forgotten
	for _, what := range []struct {
		count  *int64
		before time.Time
		from   string
		id     string
	}{
		{&done.Conflicts, before, `conflicts WHERE detected_at < $1 AND (resolved OR winner <> 'held')`, "id"},
		{&done.Findings, before, `findings WHERE at < $1`, "id"},
		{nil, before, `filters WHERE log = 1 AND blob IN (SELECT id FROM journal WHERE planned < $1 AND (preview OR state IN (3, 4, 6)))`, "blob"},
		{&done.Batches, before, `journal WHERE planned < $1 AND (preview OR state IN (3, 4, 6))`, "id"},
		{nil, before, `calls WHERE slot < $1`, "slot"},
		{nil, before, `retries WHERE next < $1`, "next"}, // of which no list tells any more
		{&done.Runs, before, `runs WHERE created < $1 AND ` + told, "id"},
		{&done.Runs, quiet, `runs WHERE quiet AND created < $1 AND ` + told, "id"},
	} {
		q := `DELETE FROM ` + what.from
		if what.id == "id" {
			table, _, _ := strings.Cut(what.from, " ")
			q = `DELETE FROM ` + table + ` WHERE id IN (SELECT id FROM ` + what.from + ` LIMIT 500)`
		}
		for {
			var n int64
			err := s.InTx(ctx, func(tx Tx) (err error) {
				n, err = tx.Exec(ctx, q, micros(what.before))
				return err
			})
			if err != nil {
				return done, in(op, err)
			}
			if what.count != nil {
				*what.count += n
			}
			if n == 0 {
				break
			}
		}
	}
	return done, nil
}
