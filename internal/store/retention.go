package store

import (
	"context"
	"strings"
	"time"
)

// Forgotten counts what a sweep deleted.
type Forgotten struct{ Conflicts, Findings, Batches int64 }

// Forget deletes what is older than before: findings, the losing values of conflicts
// that are no longer open, and the journal of what has ended. It works in small steps,
// so that nobody waits long, and may be repeated.
func (s *Store) Forget(ctx context.Context, before time.Time) (Forgotten, error) {
	const op = "store: forget"
	var done Forgotten
	at := micros(before)
	for _, what := range []struct {
		count *int64
		from  string
		id    string
	}{
		{&done.Conflicts, `conflicts WHERE detected_at < $1 AND (resolved OR winner <> 'held')`, "id"},
		{&done.Findings, `findings WHERE at < $1`, "id"},
		{nil, `filters WHERE log = 1 AND blob IN (SELECT id FROM journal WHERE planned < $1 AND (preview OR state IN (3, 4, 6)))`, "blob"},
		{&done.Batches, `journal WHERE planned < $1 AND (preview OR state IN (3, 4, 6))`, "id"},
	} {
		q := `DELETE FROM ` + what.from
		if what.id == "id" {
			table, _, _ := strings.Cut(what.from, " ")
			q = `DELETE FROM ` + table + ` WHERE id IN (SELECT id FROM ` + what.from + ` LIMIT 500)`
		}
		for {
			var n int64
			err := s.InTx(ctx, func(tx Tx) (err error) {
				n, err = tx.Exec(ctx, q, at)
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
