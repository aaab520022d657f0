package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Setting returns a setting of the installation; empty when it was never set.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	var value string
	err := s.db.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value)
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return "", nil
	}
	return value, in("store: read setting", err)
}

// SetSetting sets a setting of the installation; an empty value forgets it.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	return in("store: set setting", s.InTx(ctx, func(tx Tx) error {
		if value == "" {
			_, err := tx.Exec(ctx, `DELETE FROM settings WHERE name = $1`, name)
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, clean(value))
		return err
	}))
}
