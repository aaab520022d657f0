//go:build unix

package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

// raw opens the database of o without any of the store.
func raw(t *testing.T, o Options) (*sql.DB, goose.Dialect) {
	t.Helper()
	if o.URL != "" {
		cfg, err := pgx.ParseConfig(o.URL)
		ok(t, err)
		db := stdlib.OpenDB(*cfg)
		t.Cleanup(func() { _ = db.Close() })
		return db, goose.DialectPostgres
	}
	ok(t, os.MkdirAll(o.Path, 0o700))
	db, err := openPool(uri(filepath.Join(o.Path, DatabaseFile), "_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_pragma=synchronous(OFF)"))
	ok(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db, goose.DialectSQLite3
}

// another is an empty database on the same engine.
func another(t *testing.T, o Options) Options {
	t.Helper()
	if o.URL != "" {
		o.URL = pgtest.Database(t)
	} else {
		o.Path = t.TempDir()
	}
	return o
}

// versions are those that the tables have had, oldest first.
func versions(t *testing.T) (all []int64) {
	t.Helper()
	files, err := fs.Glob(migrations, "migrations/*.sql")
	ok(t, err)
	for _, f := range files {
		v, err := goose.NumericComponent(f)
		ok(t, err)
		all = append(all, v)
	}
	return all
}

func migrateTo(t *testing.T, db *sql.DB, dialect goose.Dialect, version int64) {
	t.Helper()
	files, err := fs.Sub(migrations, "migrations")
	ok(t, err)
	p, err := goose.NewProvider(dialect, db, files)
	ok(t, err)
	_, err = p.UpTo(t.Context(), version)
	ok(t, err)
}

// table is the content of one: the names of its columns and its rows.
type table struct {
	name    string
	columns []string
	rows    [][]any
}

// everything reads all tables that are there, sequences too.
func everything(t *testing.T, db *sql.DB) (all []table) {
	t.Helper()
	for _, name := range append([]string{"sequences"}, tableNames...) {
		if c, there := content(t, db, name); there {
			all = append(all, c)
		}
	}
	return all
}

// content reads one table; there is false for one that came later.
func content(t *testing.T, db *sql.DB, name string) (c table, there bool) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+name)
	if err != nil {
		return c, false
	}
	defer rows.Close()
	c.name = name
	c.columns, err = rows.Columns()
	ok(t, err)
	for rows.Next() {
		values, into := make([]any, len(c.columns)), make([]any, len(c.columns))
		for i := range values {
			into[i] = &values[i]
		}
		ok(t, rows.Scan(into...))
		for i, v := range values {
			if b, is := v.([]byte); is && len(b) == 0 {
				values[i] = []byte{} // the driver makes no difference to NULL
			}
		}
		c.rows = append(c.rows, values)
	}
	ok(t, rows.Err())
	return c, true
}

// put inserts rows, of each no more than the given columns.
func put(t *testing.T, db *sql.DB, c table, columns []string) {
	t.Helper()
	var marks []string
	for i := range columns {
		marks = append(marks, fmt.Sprintf("$%d", i+1))
	}
	for _, row := range c.rows {
		var values []any
		for _, name := range columns {
			values = append(values, row[slices.Index(c.columns, name)])
		}
		_, err := db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", c.name, strings.Join(columns, ", "), strings.Join(marks, ", ")), values...)
		if err != nil {
			t.Fatalf("a row of %s with the columns %v: %v", c.name, columns, err)
		}
	}
}

// given is what two databases are compared by: the rows without the columns that only
// one of them was given.
func given(all []table, of []table) map[string][]string {
	out := map[string][]string{}
	for _, c := range all {
		i := slices.IndexFunc(of, func(o table) bool { return o.name == c.name })
		if i < 0 {
			continue
		}
		for _, row := range c.rows {
			line := ""
			for _, name := range of[i].columns {
				line += fmt.Sprintf(" %s=%q", name, fmt.Sprint(row[slices.Index(c.columns, name)]))
			}
			out[c.name] = append(out[c.name], line)
		}
		slices.Sort(out[c.name])
	}
	return out
}

// lived makes a database with something in every table.
func lived(t *testing.T, o Options) (run lockstep.Run, content []table) {
	t.Helper()
	s := mustOpen(t, o)
	a := account(t, s)
	ctx, run := started(t, s, a.ID)
	batch, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Payload: []byte("plan")})
	ok(t, err)
	_, err = s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Payload: []byte("open")})
	ok(t, err)
	ok(t, s.Commit(ctx, fullCommit(run, batch)))
	ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Choices: []lockstep.Choice{chosen(s, a.ID, "17", "ada@example.com", true)}}))
	ok(t, s.Stage(ctx, run.ID, "contact", []StagedRow{{"k", []byte("v")}}))
	ok(t, s.SaveTables(ctx, a.Organization, []lockstep.Table{{Name: "lead"}}))
	ok(t, s.SetSetting(ctx, "name", "value"))
	ok(t, s.SetSecrets(ctx, AccountSecrets(a.ID), map[string]string{"password": "secret"}))
	ok(t, s.Close())
	db, _ := raw(t, o)
	return run, everything(t, db)
}

// Whichever version a database is of, what is in it is there after the update, and can be
// worked with. And processes of that version which still run go on writing to the tables
// of the newest one.
func TestUpdateFromEveryVersion(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		first, full := lived(t, o)
		newest, dialect := raw(t, another(t, o))
		migrateTo(t, newest, dialect, versions(t)[len(versions(t))-1])
		for _, version := range versions(t) {
			t.Run(fmt.Sprint(version), func(t *testing.T) {
				o, run := another(t, o), first
				db, _ := raw(t, o)
				migrateTo(t, db, dialect, version)
				then := everything(t, db)
				for _, c := range then {
					rows := full[slices.IndexFunc(full, func(f table) bool { return f.name == c.name })]
					put(t, db, rows, c.columns)
					put(t, newest, rows, c.columns)
				}
				for _, c := range slices.Backward(then) {
					_, err := newest.ExecContext(ctx, "DELETE FROM "+c.name)
					ok(t, err)
				}
				second := version < 7 // when two runs could work on the lists of an account
				if second {
					_, err := db.ExecContext(ctx, `INSERT INTO runs (id, account, type, list, mode, preview, status, stage, counts, calls, created, started, ended, error, hint, cancel_requested, fence, job, progress_crc)
SELECT 'zz', account, 'address-books-in', list, mode, preview, status, stage, counts, calls, created, started, ended, error, hint, cancel_requested, fence, job, progress_crc FROM runs`)
					ok(t, err)
				}
				ok(t, db.Close())

				s := mustOpen(t, o)
				if second {
					r, err := s.Run(ctx, "zz")
					if err != nil || r.Status != lockstep.RunQueued {
						t.Fatalf("the run that came second: %q, %v", r.Status, err)
					}
					ok(t, s.InTx(ctx, func(tx Tx) error {
						_, err := tx.Exec(ctx, `DELETE FROM runs WHERE id = 'zz'`)
						return err
					}))
				}
				db, _ = raw(t, o)
				now := everything(t, db)
				ok(t, db.Close())
				equal(t, given(now, then), given(full, then))
				for _, c := range now {
					if slices.ContainsFunc(then, func(o table) bool { return o.name == c.name }) {
						continue
					}
					if len(c.rows) > 0 {
						t.Errorf("%s, which came later, has rows: %v", c.name, c.rows)
					}
				}

				// Another process goes on with the run and ends it.
				turn, run, err := s.StartRun(ctx, run.ID)
				ok(t, err)
				open, err := s.OpenBatches(ctx, run.Account)
				if err != nil || len(open) != 1 || string(open[0].Payload) != "open" {
					t.Fatalf("open batches: %v, %v", open, err)
				}
				ok(t, s.Commit(turn, lockstep.Commit{
					Run: run.ID, Account: run.Account, Batches: []lockstep.BatchEnd{{ID: open[0].ID, State: lockstep.Dropped}}, Links: [][]byte{[]byte("more")},
					Choices: []lockstep.Choice{chosen(s, run.Account, "18", "bob@example.com", true)},
				}))
				if _, payloads := links(t, s, run.Account, 0); len(payloads) != 4 {
					t.Errorf("%d link batches", len(payloads))
				}
				ok(t, s.InTx(turn, func(tx Tx) error {
					_, err := s.EndRunIn(turn, tx, run.ID, lockstep.RunCompleted, "", "")
					return err
				}))
				if version >= 2 {
					rep, err := s.VerifyConsent(ctx, consent.Head{})
					if err != nil || rep.Broken != nil || rep.Entries != 2 {
						t.Errorf("the ledger: %+v, %v", rep, err)
					}
				}
				if secrets, err := s.Secrets(ctx, AccountSecrets(run.Account)); err != nil || secrets["password"] != "secret" {
					t.Errorf("secrets: %d, %v", len(secrets), err)
				}
			})
		}
	})
}

// What a migration may not do, because an older process that still runs would fail on it.
var subtracts = regexp.MustCompile(`(?i)\b(DROP|RENAME)\b|ALTER\s+COLUMN|ADD\s+CONSTRAINT|ADD\s+COLUMN[^;]*NOT NULL(?:[^;D]|D[^E])*;`)

func TestMigrationsOnlyAdd(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	ok(t, err)
	for _, f := range files {
		text, err := fs.ReadFile(migrations, f)
		ok(t, err)
		if !strings.Contains(string(text), "-- +goose Up") {
			t.Errorf("%s has nothing that goose carries out", f)
		}
		if bad := subtracts.FindString(string(text)); bad != "" {
			t.Errorf("%s: %q is no addition: first a version that does without, and only the one after takes away", f, bad)
		}
	}
	for _, bad := range []string{"DROP TABLE x;", "ALTER TABLE a RENAME COLUMN b TO c;", "ALTER TABLE a ADD COLUMN b TEXT NOT NULL;", "ALTER TABLE a\n ADD COLUMN b BIGINT NOT NULL REFERENCES c (d);"} {
		if subtracts.FindString(bad) == "" {
			t.Errorf("%q passes for an addition", bad)
		}
	}
}
