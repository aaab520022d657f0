package store

import (
	"context"
)

// StagedRow is one row that a run puts aside until its counterpart arrives.
type StagedRow struct {
	Key     string
	Payload []byte
}

// Stage puts rows aside for a run under a kind. A row takes the place of an earlier
// one with the same key.
func (s *Store) Stage(ctx context.Context, run, kind string, rows []StagedRow) error {
	const op = "store: stage"
	rows = lastOfEachKey(rows)
	return in(op, s.InTx(ctx, func(tx Tx) error {
		if _, _, _, err := hold(ctx, tx, op, run); err != nil {
			return err
		}
		_, err := insert(ctx, tx, `INSERT INTO staged (run, kind, key, payload, crc) VALUES`,
			`ON CONFLICT (run, kind, key) DO UPDATE SET payload = excluded.payload, crc = excluded.crc`, 5, len(rows), func(args []any, i int) []any {
				r := rows[i]
				return append(args, run, kind, []byte(r.Key), notNil(r.Payload), checksum(r.Payload, run, kind, r.Key))
			})
		return err
	}))
}

// lastOfEachKey leaves out rows that a later one replaces: PostgreSQL refuses a
// statement that writes a row twice.
func lastOfEachKey(rows []StagedRow) []StagedRow {
	last := make(map[string]int, len(rows))
	for i, r := range rows {
		last[r.Key] = i
	}
	if len(last) == len(rows) {
		return rows
	}
	kept := make([]StagedRow, 0, len(last))
	for i, r := range rows {
		if last[r.Key] == i {
			kept = append(kept, r)
		}
	}
	return kept
}

func scanStaged(run, kind string) func(Rows) (StagedRow, error) {
	return func(r Rows) (StagedRow, error) {
		var key, payload []byte
		var crc int64
		if err := r.Scan(&key, &payload, &crc); err != nil {
			return StagedRow{}, err
		}
		if checksum(payload, run, kind, string(key)) != crc {
			return StagedRow{}, damaged("a staged row of kind " + kind)
		}
		return StagedRow{string(key), payload}, nil
	}
}

// Staged hands over the rows that a run has staged under these keys, in no order;
// keys without a row are left out.
func (s *Store) Staged(ctx context.Context, run, kind string, keys []string, each func(StagedRow) error) error {
	const op = "store: read staged rows"
	const portion = 100
	for from := 0; from < len(keys); from += portion {
		some := keys[from:min(len(keys), from+portion)]
		args := []any{run, kind}
		for _, k := range some {
			args = append(args, []byte(k))
		}
		rows, err := collect(ctx, s.db, scanStaged(run, kind),
			`SELECT key, payload, crc FROM staged WHERE run = $1 AND kind = $2 AND key IN (`+list(3, len(some))+`)`, args...)
		if err != nil {
			return in(op, err)
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// EachStaged hands over all rows that a run has staged under a kind with keys above
// after, in the order of their keys' bytes.
func (s *Store) EachStaged(ctx context.Context, run, kind, after string, each func(StagedRow) error) error {
	const portion = 500
	// The empty key is the smallest: it must not be left out of a read from the
	// beginning.
	above := "key >= $3"
	for at := after; ; above = "key > $3" {
		if at != "" {
			above = "key > $3"
		}
		rows, err := collect(ctx, s.db, scanStaged(run, kind),
			`SELECT key, payload, crc FROM staged WHERE run = $1 AND kind = $2 AND `+above+` ORDER BY key LIMIT $4`, run, kind, []byte(at), int64(portion))
		if err != nil {
			return in("store: read staged rows", err)
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
			at = r.Key
		}
		if len(rows) < portion {
			return nil
		}
	}
}

// ClearStaged deletes what a run has staged: of one kind, or everything when kind is
// empty. It goes in small transactions, so that other writers get their turn.
func (s *Store) ClearStaged(ctx context.Context, run, kind string) error {
	const op = "store: clear staged rows"
	kinds := []string{kind}
	if kind == "" {
		var err error
		kinds, err = collect(ctx, s.db, func(r Rows) (string, error) {
			var k string
			err := r.Scan(&k)
			return k, err
		}, `SELECT DISTINCT kind FROM staged WHERE run = $1`, run)
		if err != nil {
			return in(op, err)
		}
	}
	for _, k := range kinds {
		for more := true; more; {
			err := s.InTx(ctx, func(tx Tx) error {
				n, err := tx.Exec(ctx, `DELETE FROM staged WHERE run = $1 AND kind = $2 AND key IN
(SELECT key FROM staged WHERE run = $1 AND kind = $2 ORDER BY key LIMIT 5000)`, run, k)
				more = n > 0
				return err
			})
			if err != nil {
				return in(op, err)
			}
		}
	}
	return nil
}
