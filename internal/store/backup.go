package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"github.com/lockstep-sync/lockstep"
)

// copyPages is how many pages, of 4 KiB, are copied between two looks at the context.
const copyPages = 1024

// How a database is opened to be read: beside the process that uses it, or in the
// knowledge that nobody does.
const (
	inUse  = "mode=rw&_pragma=busy_timeout(5000)&_pragma=query_only(1)"
	unused = "immutable=1"
)

// Backup writes what the embedded database of a data folder holds at this moment to the
// file to, which must not exist, and returns its size in bytes. It takes nothing from the
// process that uses the folder: writers go on, and none of what they write meanwhile is
// in the copy. The file appears when it is complete, checked and on disk; it is readable
// by its owner alone. What is beside the database, the master key and the mark of the
// folder, is not in it. CodeNotFound: the folder has no database. CodeConflict: the file
// exists already.
func Backup(ctx context.Context, folder, to string) (size int64, err error) {
	const op = "back up the database"
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return 0, occupied(op, to)
	}
	from := filepath.Join(folder, DatabaseFile)
	if _, err := os.Stat(from); err != nil {
		return 0, &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: fmt.Sprintf("There is no database in the data folder %s.", folder), Hint: "Give the folder that lockstep serve uses.", Err: err}
	}
	part, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".part-*")
	if err != nil {
		return 0, unwritable(op, to, err)
	}
	defer os.Remove(part.Name()) //nolint:errcheck // after it was published under its name there is none
	if err := part.Close(); err != nil {
		return 0, unwritable(op, to, err)
	}
	if size, err = copyDatabase(ctx, uri(from, inUse), part.Name()); err != nil {
		return 0, in(op, err)
	}
	// A link does not replace what came to be there meanwhile, as a rename would.
	switch err := os.Link(part.Name(), to); {
	case errors.Is(err, fs.ErrExist):
		return 0, occupied(op, to)
	case err != nil: // not every file system has links
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			return 0, occupied(op, to)
		}
		if err := os.Rename(part.Name(), to); err != nil {
			return 0, unwritable(op, to, err)
		}
	}
	syncFolder(filepath.Dir(to))
	return size, nil
}

// Restore makes the file from the database of a data folder that no process uses, and
// returns under which name the database is now that was there; empty = there was none.
// Until everything of from is checked and on disk, the folder's database stays what it
// was. CodeInvalid: from is no database of Lockstep. CodeConflict: a process uses the
// folder, or a newer Lockstep wrote from.
func Restore(ctx context.Context, folder, from string, now time.Time) (aside string, err error) {
	const op = "restore the database"
	if _, err := os.Stat(from); err != nil {
		return "", &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: fmt.Sprintf("The backup %s cannot be read.", from), Hint: "Check the path.", Err: err}
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", unwritable(op, folder, err)
	}
	lock, err := lockFolder(folder)
	if err != nil {
		return "", in(op, err)
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	database := filepath.Join(folder, DatabaseFile)
	part := database + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a restore that was killed
		return "", unwritable(op, folder, err)
	}
	defer os.Remove(part) //nolint:errcheck // in its place it has another name
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", unwritable(op, folder, err)
	}
	if err := f.Close(); err != nil {
		return "", unwritable(op, folder, err)
	}
	how := inUse
	if _, err := os.Stat(from + "-wal"); errors.Is(err, fs.ErrNotExist) {
		how = unused // it may be where nothing can be written, as side files would have to be
	}
	if _, err := copyDatabase(ctx, uri(from, how), part); err != nil {
		return "", in(op, err)
	}
	if aside, err = setAside(ctx, database, now); err != nil {
		return "", unwritable(op, folder, err)
	}
	if err := os.Rename(part, database); err != nil {
		return "", unwritable(op, folder, err)
	}
	syncFolder(folder)
	return aside, nil
}

// setAside gives the database a second name, under which it stays when another one takes
// its place, and leaves nothing beside it that SQLite would take for a part of that one.
func setAside(ctx context.Context, database string, now time.Time) (aside string, err error) {
	if _, err := os.Stat(database); errors.Is(err, fs.ErrNotExist) {
		return "", dropSideFiles(database)
	}
	// What is in the write-ahead log alone goes into the database. One that is damaged
	// cannot take it; then the log is set aside as well.
	if db, err := openPool(uri(database, "_pragma=busy_timeout(5000)")); err == nil {
		_, _ = db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
		_ = db.Close()
	}
	aside = fmt.Sprintf("%s.before-%s", database, now.UTC().Format("20060102T150405"))
	if err := os.Link(database, aside); errors.Is(err, fs.ErrExist) {
		return "", err
	} else if err != nil { // not every file system has links
		if err := os.Rename(database, aside); err != nil {
			return "", err
		}
	}
	if err := os.Rename(database+"-wal", aside+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return aside, dropSideFiles(database)
}

func dropSideFiles(database string) error {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if err := os.Remove(database + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyDatabase copies one moment of the database from to the empty file to, checks the
// copy and sees to it that it is on disk.
func copyDatabase(ctx context.Context, from, to string) (size int64, err error) {
	if err := copyAll(ctx, from, uri(to, "_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)")); err != nil {
		return 0, sqliteError(ctx, err)
	}
	if err := checkCopy(ctx, to); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	err = f.Sync()
	info, serr := f.Stat()
	if err := errors.Join(err, serr, f.Close()); err != nil {
		return 0, unwritable("", to, err)
	}
	return info.Size(), nil
}

// copyAll copies page by page what one read transaction sees, so that the copy is one
// moment however long it takes.
func copyAll(ctx context.Context, from, to string) (err error) {
	connect, err := sqlite.NewConnector(from)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connect)
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	var tables int64 // the first read is where the transaction begins
	if err := conn.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables); err != nil {
		return err
	}
	err = conn.Raw(func(c any) error {
		source, ok := c.(interface {
			NewBackup(to string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("the SQLite driver cannot copy a database")
		}
		b, err := source.NewBackup(to)
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(copyPages)
			}
		}
		return errors.Join(err, b.Finish())
	})
	_, rollback := conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
	return errors.Join(err, rollback)
}

// checkCopy reports whether every page of a copy can be read and it is a database of
// Lockstep that this program knows.
func checkCopy(ctx context.Context, path string) error {
	db, err := openPool(uri(path, unused))
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // only read
	var found string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return sqliteError(ctx, err)
	}
	if found != "ok" {
		e := damaged("the file")
		e.Err = errors.New(found)
		return e
	}
	var tables int64
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name IN ('goose_db_version', 'settings', 'journal')`).Scan(&tables); err != nil {
		return sqliteError(ctx, err)
	}
	if tables != 3 {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Msg: "The file is a database, but not one of Lockstep.", Hint: "Give a file that lockstep backup made."}
	}
	var stored int64
	if err := db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version`).Scan(&stored); err != nil {
		return sqliteError(ctx, err)
	}
	known, err := newestMigration()
	if err != nil {
		return err
	}
	return notNewer(stored, known)
}

// uri names a database file to SQLite.
func uri(path, options string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return "file:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() + "?" + options
}

// syncFolder makes a new name last. Not every system can sync a folder.
func syncFolder(folder string) {
	if d, err := os.Open(folder); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

func occupied(op, path string) error {
	return &lockstep.Error{Code: lockstep.CodeConflict, Op: op, Msg: fmt.Sprintf("The file %s exists already; it was left as it is.", path), Hint: "Give another name, for example one with the date."}
}

func unwritable(op, path string, err error) error {
	return &lockstep.Error{Code: lockstep.CodeUnavailable, Op: op, Msg: path + " cannot be written.", Hint: "Check that the folder exists, its permissions and the room on its disk.", Err: err}
}
