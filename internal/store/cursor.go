package store

import (
	"context"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// Cursor returns an account's cursor; empty when it was never set.
func (s *Store) Cursor(ctx context.Context, account, name string) (lockstep.Cursor, error) {
	var value string
	var crc int64
	err := s.db.QueryRow(ctx, `SELECT value, crc FROM cursors WHERE account = $1 AND name = $2`, account, name).Scan(&value, &crc)
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return "", nil
	}
	if err == nil && checksum([]byte(value), account, name) != crc {
		err = damaged("cursor " + name)
	}
	if err != nil {
		return "", in("store: read cursor", err)
	}
	return lockstep.Cursor(value), nil
}

// Cursors returns all cursors of an account by name.
func (s *Store) Cursors(ctx context.Context, account string) (map[string]lockstep.Cursor, error) {
	cursors := make(map[string]lockstep.Cursor)
	_, err := collect(ctx, s.db, func(r Rows) (struct{}, error) {
		var name, value string
		var crc int64
		if err := r.Scan(&name, &value, &crc); err != nil {
			return struct{}{}, err
		}
		if checksum([]byte(value), account, name) != crc {
			return struct{}{}, damaged("cursor " + name)
		}
		cursors[name] = lockstep.Cursor(value)
		return struct{}{}, nil
	}, `SELECT name, value, crc FROM cursors WHERE account = $1`, account)
	return cursors, in("store: read cursors", err)
}

// SetCursor sets a cursor outside of a run, for example to begin again; an empty
// one forgets the name. Runs move cursors with Commit.
func (s *Store) SetCursor(ctx context.Context, account, name string, value lockstep.Cursor) error {
	return in("store: set cursor", s.InTx(ctx, func(tx Tx) error {
		return setCursors(ctx, tx, account, map[string]lockstep.Cursor{name: value})
	}))
}

func setCursors(ctx context.Context, tx Tx, account string, cursors map[string]lockstep.Cursor) error {
	for _, name := range slices.Sorted(maps.Keys(cursors)) {
		value := string(cursors[name])
		var err error
		if value == "" {
			_, err = tx.Exec(ctx, `DELETE FROM cursors WHERE account = $1 AND name = $2`, account, name)
		} else {
			_, err = tx.Exec(ctx, `INSERT INTO cursors (account, name, value, crc) VALUES ($1, $2, $3, $4)
ON CONFLICT (account, name) DO UPDATE SET value = excluded.value, crc = excluded.crc`, account, name, value, checksum([]byte(value), account, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
