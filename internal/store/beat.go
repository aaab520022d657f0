package store

import "context"

// Beat is a sign of life of a process.
func (s *Store) Beat(ctx context.Context, process string) error {
	return in("store: show a sign of life", s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO beats (process, count) VALUES ($1, 1)
ON CONFLICT (process) DO UPDATE SET count = beats.count + 1`, process)
		return err
	}))
}

// Beats returns how many signs of life each process has shown. A process lives as
// long as its number grows.
func (s *Store) Beats(ctx context.Context) (map[string]int64, error) {
	type row struct {
		process string
		count   int64
	}
	rows, err := collect(ctx, s.db, func(r Rows) (b row, err error) { return b, r.Scan(&b.process, &b.count) }, `SELECT process, count FROM beats`)
	if err != nil {
		return nil, in("store: read signs of life", err)
	}
	beats := make(map[string]int64, len(rows))
	for _, b := range rows {
		beats[b.process] = b.count
	}
	return beats, nil
}

// StopBeats forgets a process that has stopped.
func (s *Store) StopBeats(ctx context.Context, process string) error {
	return in("store: forget a process", s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM beats WHERE process = $1`, process)
		return err
	}))
}
