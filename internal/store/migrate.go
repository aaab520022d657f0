package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/lockstep-sync/lockstep"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the tables up to date. Of several processes that start at once
// against PostgreSQL, one does it and the others wait.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	var opts []goose.ProviderOption
	if dialect == goose.DialectPostgres {
		// Ask for the lock every second, for five minutes.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, db, files, opts...)
	if err != nil {
		return err
	}
	if _, err = p.Up(ctx); err != nil {
		return fmt.Errorf("update the tables: %w", err)
	}
	stored, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	return notNewer(stored, sources[len(sources)-1].Version)
}

// notNewer refuses tables that a newer program made.
func notNewer(stored, known int64) error {
	if stored <= known {
		return nil
	}
	return &lockstep.Error{Code: lockstep.CodeConflict, Msg: fmt.Sprintf("The database was used by a newer Lockstep (tables at version %d, this program knows %d).", stored, known), Hint: "Update this program, or restore a backup made before the update."}
}

// newestMigration is the version of the tables that this program makes.
func newestMigration() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	return goose.NumericComponent(files[len(files)-1])
}

// commonError recognises what both engines report alike; nil = neither.
func commonError(ctx context.Context, err error) error {
	var e *lockstep.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, sql.ErrNoRows): // pgx.ErrNoRows matches too
		return &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "It does not exist."}
	case ctx.Err() != nil:
		return &lockstep.Error{Code: lockstep.CodeCancelled, Scope: lockstep.ScopeConnection, Msg: "The work was stopped.", Err: context.Cause(ctx)}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "The database did not answer in time.", Err: err}
	}
	return nil
}

func missingOwner(err error) error {
	return &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "What it belongs to (organization, email account or run) does not exist, or it is still in use.", Err: err}
}
