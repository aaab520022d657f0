package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Undos returns the applying runs that reverse a run, or a part of it, oldest first.
func (s *Store) Undos(ctx context.Context, run string) ([]lockstep.Run, error) {
	runs, err := collect(ctx, s.db, func(r Rows) (lockstep.Run, error) { return scanRun(r) },
		`SELECT `+runColumns+` FROM runs WHERE undoes = $1 AND undoes <> '' AND mode = $2 ORDER BY created, id`, run, string(lockstep.ModeApply))
	return runs, in("store: list undos", err)
}

// JournalTotals counts a run's journalled changes by the state of their batch.
func (s *Store) JournalTotals(ctx context.Context, run string) (map[lockstep.ChangeState]int64, error) {
	const op = "store: count changes"
	rows, err := s.db.Query(ctx, `SELECT state, CAST(SUM(size) AS BIGINT) FROM journal WHERE run = $1 GROUP BY state`, run)
	if err != nil {
		return nil, in(op, err)
	}
	defer rows.Close()
	totals := map[lockstep.ChangeState]int64{}
	for rows.Next() {
		var state, n int64
		if err := rows.Scan(&state, &n); err != nil {
			return nil, in(op, err)
		}
		totals[lockstep.ChangeState(state)] = n
	}
	return totals, in(op, rows.Err())
}

// BatchesBelow returns the ended batches of a run with ids below before, the newest
// first; before 0 begins with the newest of all.
func (s *Store) BatchesBelow(ctx context.Context, run string, before int64, limit int) ([]lockstep.Batch, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal
WHERE run = $1 AND id < $2 AND state IN (3, 4, 6) ORDER BY id DESC LIMIT $3`, run, before, pageSize(limit))
	return batches, in("store: read batches", err)
}
