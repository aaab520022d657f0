package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// Backup writes the embedded database of a data folder to the file to, whether a process
// uses the folder or not, and returns its size in bytes; see store.Backup.
// CodeUnsupported: the data is in PostgreSQL.
func Backup(ctx context.Context, cfg Config, to string) (size int64, err error) {
	if cfg.DatabaseURL != "" {
		return 0, &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "back up the database", Msg: "the data is in PostgreSQL, which has its own backups", Hint: "use pg_dump (one moment of one database) or the backups of your server, and keep the master key apart"}
	}
	return store.Backup(ctx, cfg.DataDir, to)
}

// Restored is what a restored folder needs before it acts.
type Restored struct {
	// Aside is the file that the earlier database is kept in; empty = there was none.
	Aside string `json:"aside,omitempty"`
	// Rearm says that the accounts will be locked until the folder is re-armed: it is
	// another place than the one that the backup was made of.
	Rearm bool `json:"rearm"`
	// MasterKey says that the folder or the environment has a master key. The one that
	// was in use at the backup is needed.
	MasterKey bool `json:"master_key"`
}

// Restore puts a backup in the place of the embedded database of a data folder that no
// process uses; see store.Restore. CodeUnsupported: the data is in PostgreSQL.
func Restore(ctx context.Context, cfg Config, from string) (r Restored, err error) {
	if cfg.DatabaseURL != "" {
		return r, &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "restore the database", Msg: "the data is in PostgreSQL, which has its own backups", Hint: "use pg_restore or psql while no process of Lockstep runs"}
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(cfg.DataDir, name))
		return !errors.Is(err, fs.ErrNotExist)
	}
	now := time.Now
	if cfg.Now != nil {
		now = cfg.Now
	}
	if r.Aside, err = store.Restore(ctx, cfg.DataDir, from, now()); err != nil {
		return r, err
	}
	r.Rearm = !there(markFile)
	r.MasterKey = os.Getenv(secret.EnvKey) != "" || there(secret.FileName)
	return r, nil
}
