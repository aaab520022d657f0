package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Setting returns a setting of the installation; empty when it was never set.
func (s *Store) Setting(ctx context.Context, name string) (string, error) {
	return s.setting(ctx, s.db, name)
}

// SettingIn is Setting within tx.
func (s *Store) SettingIn(ctx context.Context, tx Tx, name string) (string, error) {
	return s.setting(ctx, tx, name)
}

func (s *Store) setting(ctx context.Context, r Reader, name string) (string, error) {
	var value string
	err := r.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value)
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return "", nil
	}
	return value, in("store: read setting", err)
}

// SetSetting sets a setting of the installation; an empty value forgets it.
func (s *Store) SetSetting(ctx context.Context, name, value string) error {
	return s.InTx(ctx, func(tx Tx) error { return s.SetSettingIn(ctx, tx, name, value) })
}

// SetSettingIn is SetSetting within tx.
func (s *Store) SetSettingIn(ctx context.Context, tx Tx, name, value string) (err error) {
	if value == "" {
		_, err = tx.Exec(ctx, `DELETE FROM settings WHERE name = $1`, name)
	} else {
		_, err = tx.Exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, clean(value))
	}
	return in("store: set setting", err)
}
