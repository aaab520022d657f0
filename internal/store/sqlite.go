package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/lockstep-sync/lockstep"
)

// DatabaseFile is the name of the SQLite database in the data folder.
const DatabaseFile = "lockstep.db"

// checkedSize is the largest database whose pages are all checked at open; larger
// ones rely on the checksums of their rows.
const checkedSize = 100 << 20

// pragmas set up every connection. busy_timeout comes first, because switching to
// WAL may have to wait. Commits are synced to disk (FULL): the journal must be
// there after a power cut, before the call that it announces is made.
// secure_delete overwrites what is deleted, so that an erased person's values are not
// left behind in free pages.
const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)" +
	"&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(67108864)&_pragma=secure_delete(1)"

// What is read again and again is kept by the engine and not by SQLite, so each
// connection's cache of pages is small: that of the one which writes 4 MB, those of the
// readers 1 MB each.
const (
	writerPages = "&_pragma=cache_size(-4000)"
	readerPages = "&_pragma=cache_size(-1000)&_pragma=query_only(1)"
)

type sqliteDB struct {
	write *sql.DB // one connection: Go's queue is fair, SQLite's is not
	read  *sql.DB
	lock  *os.File
	// ailing is set while the last transaction failed because of the disk.
	ailing atomic.Bool
}

func openSQLite(ctx context.Context, folder string, log *slog.Logger) (_ *sqliteDB, err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The data folder cannot be made.", Hint: "Check the path and its permissions.", Err: err}
	}
	lock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	d := &sqliteDB{lock: lock}
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	path, err := filepath.Abs(filepath.Join(folder, DatabaseFile))
	if err != nil {
		return nil, err
	}
	// Personal data: readable by this user alone, whatever the folder allows. SQLite
	// gives its side files the permissions of the database.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The database file cannot be made.", Hint: "Check the data folder's permissions.", Err: err}
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	name := "file:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() + pragmas
	if d.write, err = openPool(name + writerPages + "&_txlock=immediate"); err != nil {
		return nil, err
	}
	d.write.SetMaxOpenConns(1)
	if err := d.check(ctx, path, log); err != nil {
		return nil, err
	}
	if err := migrate(ctx, goose.DialectSQLite3, d.write); err != nil {
		return nil, sqliteError(ctx, err)
	}
	if d.read, err = openPool(name + readerPages); err != nil {
		return nil, err
	}
	d.read.SetMaxOpenConns(4)
	d.read.SetMaxIdleConns(4)
	return d, nil
}

// check looks for damage that makes the file unusable as a whole.
func (d *sqliteDB) check(ctx context.Context, path string, log *slog.Logger) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The database file cannot be read.", Hint: "Check its permissions.", Err: err}
	}
	if info.Size() > checkedSize {
		log.Info("database is large, its pages are checked as they are read", "bytes", info.Size())
		return nil
	}
	var found string
	if err := d.write.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return sqliteError(ctx, err)
	}
	if found != "ok" {
		e := damaged("the file")
		e.Err = errors.New(found)
		return e
	}
	return nil
}

func (d *sqliteDB) sqlite() *sql.DB         { return d.write }
func (d *sqliteDB) postgres() *pgxpool.Pool { return nil }

func (d *sqliteDB) Close() error {
	var errs []error
	if d.read != nil {
		errs = append(errs, d.read.Close())
	}
	if d.write != nil {
		errs = append(errs, d.write.Close())
	}
	errs = append(errs, d.lock.Close()) // last: closing it lets the next process in
	return errors.Join(errs...)
}

// wipe moves everything from the write-ahead log to the database and empties the log,
// which still holds pages as they were. A long read keeps it from that; then the log
// is overwritten by what is written next.
func (d *sqliteDB) wipe(ctx context.Context, log *slog.Logger) error {
	const tries = 20
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for range tries {
		var busy, pages, moved int64
		if err := d.write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &moved); err != nil {
			return sqliteError(ctx, err)
		}
		if busy == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return sqliteError(ctx, ctx.Err())
		case <-retry.C:
		}
	}
	log.Warn("the write-ahead log could not be emptied, because the database is being read; erased values are in it until it is written over")
	return nil
}

func (d *sqliteDB) Query(ctx context.Context, q string, args ...any) (Rows, error) {
	if err := storable(args); err != nil {
		return nil, err
	}
	rows, err := d.read.QueryContext(ctx, q, args...) //nolint:rowserrcheck // the caller reads the rows and asks for their error
	return sqliteRows{ctx, rows}, sqliteError(ctx, err)
}

func (d *sqliteDB) QueryRow(ctx context.Context, q string, args ...any) Row {
	if err := storable(args); err != nil {
		return refusedRow{err}
	}
	return sqliteRow{ctx, d.read.QueryRowContext(ctx, q, args...)}
}

// ping reads, and, after the disk failed a transaction, also writes: the database can
// be read on a full disk.
func (d *sqliteDB) ping(ctx context.Context) error {
	var one int64
	if err := d.QueryRow(ctx, `SELECT 1`).Scan(&one); err != nil || !d.ailing.Load() {
		return err
	}
	return d.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO settings (name, value) VALUES ('probe', '') ON CONFLICT (name) DO UPDATE SET value = excluded.value`)
		return err
	})
}

func (d *sqliteDB) InTx(ctx context.Context, f func(Tx) error) (err error) {
	defer func() {
		if ill := diskFailed(err); ill || err == nil {
			d.ailing.Store(ill)
		}
	}()
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return sqliteError(ctx, err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := f(sqliteTx{tx}); err != nil {
		return err
	}
	return sqliteError(ctx, tx.Commit())
}

type sqliteTx struct{ tx *sql.Tx }

func (t sqliteTx) Native() any { return t.tx }

func (t sqliteTx) Exec(ctx context.Context, q string, args ...any) (int64, error) {
	if err := storable(args); err != nil {
		return 0, err
	}
	res, err := t.tx.ExecContext(ctx, q, args...)
	if err != nil {
		return 0, sqliteError(ctx, err)
	}
	n, err := res.RowsAffected()
	return n, sqliteError(ctx, err)
}

func (t sqliteTx) Query(ctx context.Context, q string, args ...any) (Rows, error) {
	if err := storable(args); err != nil {
		return nil, err
	}
	rows, err := t.tx.QueryContext(ctx, q, args...) //nolint:rowserrcheck // the caller reads the rows and asks for their error
	return sqliteRows{ctx, rows}, sqliteError(ctx, err)
}

func (t sqliteTx) QueryRow(ctx context.Context, q string, args ...any) Row {
	if err := storable(args); err != nil {
		return refusedRow{err}
	}
	return sqliteRow{ctx, t.tx.QueryRowContext(ctx, q, args...)}
}

type sqliteRows struct {
	ctx context.Context
	*sql.Rows
}

func (r sqliteRows) Close()                 { _ = r.Rows.Close() } // its error is also Err's
func (r sqliteRows) Scan(dest ...any) error { return sqliteError(r.ctx, r.Rows.Scan(dest...)) }
func (r sqliteRows) Err() error             { return sqliteError(r.ctx, r.Rows.Err()) }

type sqliteRow struct {
	ctx context.Context
	row *sql.Row
}

func (r sqliteRow) Scan(dest ...any) error { return sqliteError(r.ctx, r.row.Scan(dest...)) }

// primary are the bits of a code of SQLite that say what happened; the others say where.
const primary = 0xff

// diskFailed reports whether the database could not be written because of the disk.
func diskFailed(err error) bool {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	switch se.Code() & primary {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return true
	}
	return false
}

// sqliteError turns a driver's error into one that decides.
func sqliteError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e := commonError(ctx, err); e != nil {
		return e
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return err
	}
	switch se.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return &lockstep.Error{Code: lockstep.CodeConflict, Msg: "It exists already.", Err: err}
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return missingOwner(err)
	}
	switch se.Code() & primary {
	case sqlite3.SQLITE_FULL:
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "The disk of the data folder is full.", Hint: "Make room; syncing goes on by itself.", Err: err}
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "The database file cannot be read or written.", Hint: "Check the disk of the data folder and the file's permissions.", Err: err}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "Another program holds the database.", Hint: "Close other programs that have the database file open.", Err: err}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		e := damaged("the file")
		e.Err = fmt.Errorf("SQLite: %w", err)
		return e
	}
	return err
}
