package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/lockstep-sync/lockstep"
)

// minPool is the least number of connections: what a process with a few workers,
// the job runner's own work and the web pages use at once.
const minPool = 12

type postgresDB struct{ pool *pgxpool.Pool }

func openPostgres(ctx context.Context, address string) (*postgresDB, error) {
	cfg, err := pgxpool.ParseConfig(address)
	if err != nil {
		// The driver's error quotes the address; a password may be part of it.
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Msg: "The database URL cannot be read.", Hint: "Give it as postgres://user:password@host:5432/name", Field: "database-url"}
	}
	if !strings.Contains(address, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, minPool)
	}
	db := stdlib.OpenDB(*cfg.ConnConfig.Copy())
	err = migrate(ctx, goose.DialectPostgres, db)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, postgresError(ctx, err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, postgresError(ctx, err)
	}
	return &postgresDB{pool}, nil
}

func (d *postgresDB) sqlite() *sql.DB         { return nil }
func (d *postgresDB) postgres() *pgxpool.Pool { return d.pool }

func (d *postgresDB) Close() error {
	d.pool.Close()
	return nil
}

// wipe lets the server use the room of rows' earlier versions again. Their bytes are
// gone once other rows were written there; write-ahead logs and backups are the
// administrator's.
func (d *postgresDB) wipe(ctx context.Context, log *slog.Logger) error {
	_, err := d.pool.Exec(ctx, `VACUUM consent, restrictions, links, members, journal, findings, conflicts, staged`)
	if err != nil {
		log.Warn("rows' earlier versions were not cleared; the server does so by itself later", "err", postgresError(ctx, err))
	}
	return nil
}

func (d *postgresDB) Query(ctx context.Context, q string, args ...any) (Rows, error) {
	if err := storable(args); err != nil {
		return nil, err
	}
	rows, err := d.pool.Query(ctx, q, args...)
	return postgresRows{ctx, rows}, postgresError(ctx, err)
}

func (d *postgresDB) QueryRow(ctx context.Context, q string, args ...any) Row {
	if err := storable(args); err != nil {
		return refusedRow{err}
	}
	return postgresRow{ctx, d.pool.QueryRow(ctx, q, args...)}
}

func (d *postgresDB) ping(ctx context.Context) error {
	var one int64
	return d.QueryRow(ctx, `SELECT 1`).Scan(&one)
}

func (d *postgresDB) InTx(ctx context.Context, f func(Tx) error) error {
	tx, err := d.pool.Begin(ctx)
	if err != nil {
		return postgresError(ctx, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after Commit it does nothing
	if err := f(postgresTx{tx}); err != nil {
		return err
	}
	return postgresError(ctx, tx.Commit(ctx))
}

type postgresTx struct{ tx pgx.Tx }

func (t postgresTx) Native() any { return t.tx }

func (t postgresTx) Exec(ctx context.Context, q string, args ...any) (int64, error) {
	if err := storable(args); err != nil {
		return 0, err
	}
	tag, err := t.tx.Exec(ctx, q, args...)
	return tag.RowsAffected(), postgresError(ctx, err)
}

func (t postgresTx) Query(ctx context.Context, q string, args ...any) (Rows, error) {
	if err := storable(args); err != nil {
		return nil, err
	}
	rows, err := t.tx.Query(ctx, q, args...)
	return postgresRows{ctx, rows}, postgresError(ctx, err)
}

func (t postgresTx) QueryRow(ctx context.Context, q string, args ...any) Row {
	if err := storable(args); err != nil {
		return refusedRow{err}
	}
	return postgresRow{ctx, t.tx.QueryRow(ctx, q, args...)}
}

type postgresRows struct {
	ctx context.Context
	pgx.Rows
}

func (r postgresRows) Scan(dest ...any) error { return postgresError(r.ctx, r.Rows.Scan(dest...)) }
func (r postgresRows) Err() error             { return postgresError(r.ctx, r.Rows.Err()) }

type postgresRow struct {
	ctx context.Context
	row pgx.Row
}

func (r postgresRow) Scan(dest ...any) error { return postgresError(r.ctx, r.row.Scan(dest...)) }

// postgresError turns a driver's error into one that decides. Codes are those of
// the PostgreSQL manual's appendix "PostgreSQL Error Codes".
func postgresError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e := commonError(ctx, err); e != nil {
		return e
	}
	unavailable := func(msg, hint string) error {
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: msg, Hint: hint, Err: err}
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		var ce *pgconn.ConnectError
		var ne net.Error
		if errors.As(err, &ce) || errors.As(err, &ne) || pgconn.SafeToRetry(err) {
			return unavailable("The database does not answer.", "Check that PostgreSQL runs and that this machine may connect to it.")
		}
		return err
	}
	switch pe.Code {
	case "23505":
		return &lockstep.Error{Code: lockstep.CodeConflict, Msg: "It exists already.", Err: err}
	case "23503":
		return missingOwner(err)
	case "40001", "40P01", "55P03":
		return unavailable("The database is busy with a competing change.", "It is tried again.")
	case "XX001", "XX002":
		e := damaged("a page")
		e.Err = err
		return e
	}
	switch pe.Code[:2] {
	case "28":
		return &lockstep.Error{Code: lockstep.CodeUnauthorized, Scope: lockstep.ScopeConnection, Msg: "The database refuses the user or the password.", Hint: "Check the database URL.", Err: err}
	case "08", "57":
		return unavailable("The database ended the connection.", "Check that PostgreSQL runs.")
	case "53":
		return unavailable("The database is out of room, memory or connections.", "Make room on the database server.")
	}
	return err
}
