package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// StagedRow is one row that a run puts aside until its counterpart arrives.
type StagedRow struct {
	Key     string
	Payload []byte
}

// stagedID is where a row is kept; rows of one run and kind lie together, in the
// order of their keys.
func stagedID(run, kind, key string) []byte {
	id := make([]byte, 0, len(run)+len(kind)+len(key)+2)
	return append(append(append(append(append(id, run...), 0), kind...), 0), key...)
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
		_, err := insert(ctx, tx, `INSERT INTO staged (id, payload, crc) VALUES`,
			`ON CONFLICT (id) DO UPDATE SET payload = excluded.payload, crc = excluded.crc`, 3, len(rows), func(args []any, i int) []any {
				id := stagedID(run, kind, rows[i].Key)
				return append(args, id, notNil(rows[i].Payload), checksum(rows[i].Payload, string(id)))
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
	place := len(stagedID(run, kind, ""))
	return func(r Rows) (StagedRow, error) {
		var id, payload []byte
		var crc int64
		if err := r.Scan(&id, &payload, &crc); err != nil {
			return StagedRow{}, err
		}
		if checksum(payload, string(id)) != crc {
			return StagedRow{}, damaged("a staged row of kind " + kind)
		}
		return StagedRow{string(id[place:]), payload}, nil
	}
}

// Staged hands over the rows that a run has staged under these keys, in no order;
// keys without a row are left out.
func (s *Store) Staged(ctx context.Context, run, kind string, keys []string, each func(StagedRow) error) error {
	const op = "store: read staged rows"
	const portion = 100
	for from := 0; from < len(keys); from += portion {
		some := keys[from:min(len(keys), from+portion)]
		args := make([]any, 0, len(some))
		for _, k := range some {
			args = append(args, stagedID(run, kind, k))
		}
		rows, err := collect(ctx, s.db, scanStaged(run, kind),
			`SELECT id, payload, crc FROM staged WHERE id IN (`+list(1, len(some))+`)`, args...)
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
	above := "id >= $1"
	for at := after; ; above = "id > $1" {
		if at != "" {
			above = "id > $1"
		}
		rows, err := collect(ctx, s.db, scanStaged(run, kind),
			`SELECT id, payload, crc FROM staged WHERE `+above+` AND id < $2 ORDER BY id LIMIT $3`, stagedID(run, kind, at), following(stagedID(run, kind, "")), int64(portion))
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

// following is the smallest id above all that begin with prefix, whose last byte is
// zero.
func following(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1] = 1
	return end
}

// ClearStaged deletes what a run has staged: of one kind, or everything when kind is
// empty. It goes in small transactions, so that other writers get their turn.
func (s *Store) ClearStaged(ctx context.Context, run, kind string) error {
	const portion = 5000
	from := append([]byte(run), 0)
	if kind != "" {
		from = stagedID(run, kind, "")
	}
	end := following(from)
	for more := true; more; {
		err := s.InTx(ctx, func(tx Tx) error {
			to := end
			err := tx.QueryRow(ctx, `SELECT id FROM staged WHERE id >= $1 AND id < $2 ORDER BY id LIMIT 1 OFFSET $3`, from, end, int64(portion)).Scan(&to)
			if more = err == nil; !more && lockstep.CodeOf(err) != lockstep.CodeNotFound {
				return err
			}
			_, err = tx.Exec(ctx, `DELETE FROM staged WHERE id >= $1 AND id < $2`, from, to)
			return err
		})
		if err != nil {
			return in("store: clear staged rows", err)
		}
	}
	return nil
}
