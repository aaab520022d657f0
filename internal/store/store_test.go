//go:build unix

package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

// holdEnv makes the test program open this data folder and wait, to be the other
// process of TestSecondProcess.
const holdEnv = "LOCKSTEP_TEST_HOLD"

// held keeps the other process's store from being collected, which would let go of
// the folder.
var held *Store

func TestMain(m *testing.M) {
	if folder := os.Getenv(holdEnv); folder != "" {
		var err error
		if held, err = Open(context.Background(), Options{Path: folder}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		select {}
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", "15") // every step waits for a disk
	}
	pgtest.Main(m)
}

// engines runs a test on both engines, each with an empty database.
func engines(t *testing.T, test func(t *testing.T, o Options)) {
	t.Helper()
	ring, err := secret.NewKeyring([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, Options{Path: filepath.Join(t.TempDir(), "data folder?#%41"), Sealer: ring})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, Options{URL: pgtest.Database(t), Sealer: ring})
	})
}

// tester is what helpers need of *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// account makes an organization with one email account.
func account(t tester, s *Store) lockstep.EmailAccount {
	t.Helper()
	o, err := s.SaveOrganization(context.Background(), lockstep.Organization{Name: "Contoso", Adapter: "dynamics"})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.SaveAccount(context.Background(), lockstep.EmailAccount{Organization: o.ID, Name: "Contoso EU", Adapter: "dotdigital"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// started makes a run that is in process and the context to work on it.
func started(t tester, s *Store, account string) (context.Context, lockstep.Run) {
	t.Helper()
	run, err := s.CreateRun(context.Background(), lockstep.Run{Account: account, Type: lockstep.SyncMarketingLists})
	if err != nil {
		t.Fatal(err)
	}
	ctx, run, err := s.StartRun(context.Background(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, run
}

func wantCode(t tester, err error, code lockstep.Code) {
	t.Helper()
	if got := lockstep.CodeOf(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
	var e *lockstep.Error
	if err != nil && (!errors.As(err, &e) || e.Op == "") {
		t.Fatalf("the error does not say what was tried: %v", err)
	}
}

func equal(t tester, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

func ok(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		ok(t, s.Ping(ctx))
		if s.Exclusive() != (o.Path != "") || (s.SQLite() == nil) != (o.Path == "") || (s.Postgres() == nil) != (o.URL == "") {
			t.Fatal("the store does not know its engine")
		}
		a := account(t, s)
		ok(t, s.Close())
		s = mustOpen(t, o)
		again, err := s.Account(ctx, a.ID)
		ok(t, err)
		equal(t, again, a)

		// Tables of a newer version are left alone.
		ok(t, s.InTx(ctx, func(tx Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, $1)`, true)
			return err
		}))
		ok(t, s.Close())
		_, err = Open(ctx, o)
		wantCode(t, err, lockstep.CodeConflict)
		if !strings.Contains(err.Error(), "newer Lockstep") {
			t.Fatal(err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	ctx := context.Background()
	for _, o := range []Options{{}, {Path: "x", URL: "y"}, {URL: "postgres://u:hunter2@host:port/x"}} {
		_, err := Open(ctx, o)
		wantCode(t, err, lockstep.CodeInvalid)
		if strings.Contains(err.Error(), "hunter2") {
			t.Fatalf("the error shows the password: %v", err)
		}
	}
	_, err := Open(ctx, Options{URL: "postgres://u:hunter2@127.0.0.1:1/x?connect_timeout=2"})
	wantCode(t, err, lockstep.CodeUnavailable)
	if strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
		t.Fatalf("the error shows the password: %v", err)
	}
	folder := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(folder, DatabaseFile), []byte(strings.Repeat("no database ", 1000)), 0o600))
	_, err = Open(ctx, Options{Path: folder})
	if !IsDamaged(err) {
		t.Fatalf("a file that is no database: %v", err)
	}
}

func TestSecondProcess(t *testing.T) {
	ctx := context.Background()
	folder := t.TempDir()
	program, err := os.Executable()
	ok(t, err)
	other := exec.Command(program)
	other.Env = append(os.Environ(), holdEnv+"="+folder)
	out, err := other.StdoutPipe()
	ok(t, err)
	ok(t, other.Start())
	defer other.Process.Kill()
	word := make([]byte, 5)
	if _, err := out.Read(word); err != nil || string(word[:4]) != "open" {
		t.Fatalf("the other process says %q, %v", word, err)
	}

	begin := time.Now()
	_, err = Open(ctx, Options{Path: folder})
	wantCode(t, err, lockstep.CodeConflict)
	if !strings.Contains(err.Error(), fmt.Sprintf("process %d", other.Process.Pid)) {
		t.Fatalf("the error does not name the process: %v", err)
	}
	if d := time.Since(begin); d > 5*time.Second { // promised: 1 s; the machine may be busy
		t.Fatalf("refused after %v", d)
	}

	ok(t, other.Process.Kill())
	_ = other.Wait()
	s := mustOpen(t, Options{Path: folder})
	_, err = Open(ctx, Options{Path: folder})
	wantCode(t, err, lockstep.CodeConflict)
	ok(t, s.Close())
	mustOpen(t, Options{Path: folder})
}

// A full disk stops the commit, names itself, and is over when there is room again.
func TestDiskFull(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir()})
	a := account(t, s)
	ctx, run := started(t, s, a.ID)
	limit := func(pages int) {
		t.Helper()
		_, err := s.SQLite().Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
		ok(t, err)
	}
	c := lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{make([]byte, 1<<20)}}
	before := dump(t, s)
	limit(1) // SQLite takes no less than what is in use
	for range 2 {
		err := s.Commit(ctx, c)
		wantCode(t, err, lockstep.CodeUnavailable)
		if !strings.Contains(err.Error(), "full") {
			t.Fatal(err)
		}
		equal(t, dump(t, s), before)
	}
	limit(1 << 30)
	ok(t, s.Commit(ctx, c))
}

func TestInTx(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		set := func(tx Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO settings (name, value) VALUES ($2, $1)`, "value", "name")
			return err
		}
		boom := errors.New("boom")
		if err := s.InTx(ctx, func(tx Tx) error { return errors.Join(set(tx), boom) }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = s.InTx(ctx, func(tx Tx) error { ok(t, set(tx)); panic(boom) })
		}()
		cancelled, cancel := context.WithCancel(ctx)
		err := s.InTx(cancelled, func(tx Tx) error {
			ok(t, set(tx))
			cancel()
			return nil
		})
		if lockstep.CodeOf(err) != lockstep.CodeCancelled {
			t.Fatalf("commit after cancel: %v", err)
		}
		if v, err := s.Setting(ctx, "name"); err != nil || v != "" {
			t.Fatalf("a rolled back write is there: %q, %v", v, err)
		}
		// A COMMIT that is refused leaves nothing behind, no open transaction either.
		ok(t, s.InTx(ctx, func(tx Tx) error {
			_, err := tx.Exec(ctx, `CREATE TABLE child (name TEXT REFERENCES settings (name) DEFERRABLE INITIALLY DEFERRED)`)
			return err
		}))
		err = s.InTx(ctx, func(tx Tx) error {
			ok(t, set(tx))
			_, err := tx.Exec(ctx, `INSERT INTO child (name) VALUES ('nobody')`)
			return err
		})
		if lockstep.CodeOf(err) != lockstep.CodeNotFound {
			t.Fatalf("a refused commit: %v", err)
		}
		if v, err := s.Setting(ctx, "name"); err != nil || v != "" {
			t.Fatalf("a refused write is there: %q, %v", v, err)
		}
		ok(t, s.InTx(ctx, func(tx Tx) error {
			if o.URL != "" {
				_ = tx.Native().(pgx.Tx)
			}
			return set(tx)
		}))
		err = s.InTx(ctx, set)
		if lockstep.CodeOf(err) != lockstep.CodeConflict {
			t.Fatalf("second insert: %v", err)
		}
		if v, err := s.Setting(ctx, "name"); err != nil || v != "value" {
			t.Fatalf("$2 before $1: %q, %v", v, err)
		}
	})
}

func TestSettingsAndCursors(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		ok(t, s.SetSetting(ctx, "a", "1"))
		ok(t, s.SetSetting(ctx, "a", "2\x00\xff"))
		ok(t, s.SetSetting(ctx, "b", "3"))
		ok(t, s.SetSetting(ctx, "b", ""))
		for name, want := range map[string]string{"a": "2\uFFFD", "b": "", "c": ""} {
			if got, err := s.Setting(ctx, name); err != nil || got != want {
				t.Fatalf("Setting(%s) = %q, %v", name, got, err)
			}
		}
		ok(t, s.SetCursor(ctx, "one", "contacts", "delta:1"))
		ok(t, s.SetCursor(ctx, "one", "contacts", "delta:2"))
		ok(t, s.SetCursor(ctx, "one", "leads", "x"))
		ok(t, s.SetCursor(ctx, "two", "contacts", "y"))
		ok(t, s.SetCursor(ctx, "one", "leads", ""))
		for _, bad := range []string{"a\x00b", "\xff"} {
			wantCode(t, s.SetCursor(ctx, "one", "contacts", lockstep.Cursor(bad)), lockstep.CodeInvalid)
			_, err := s.Cursor(ctx, "one", bad)
			wantCode(t, err, lockstep.CodeInvalid)
			_, err = s.Runs(ctx, RunFilter{Account: bad})
			wantCode(t, err, lockstep.CodeInvalid)
		}
		got, err := s.Cursors(ctx, "one")
		ok(t, err)
		equal(t, got, map[string]lockstep.Cursor{"contacts": "delta:2"})
		for _, c := range []struct {
			account, name string
			want          lockstep.Cursor
		}{{"one", "contacts", "delta:2"}, {"two", "contacts", "y"}, {"two", "leads", ""}} {
			if got, err := s.Cursor(ctx, c.account, c.name); err != nil || got != c.want {
				t.Fatalf("Cursor(%s, %s) = %q, %v", c.account, c.name, got, err)
			}
		}
	})
}

func TestTokens(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
		o.Now = func() time.Time { return now }
		s := mustOpen(t, o)
		plain, made, err := s.CreateToken(ctx, "CI", []string{"runs:read", "runs:write"}, now.Add(time.Hour))
		ok(t, err)
		other, forever, err := s.CreateToken(ctx, "for ever", nil, time.Time{})
		ok(t, err)
		got, err := s.CheckToken(ctx, plain)
		ok(t, err)
		equal(t, got, made)
		got, err = s.CheckToken(ctx, other)
		ok(t, err)
		equal(t, got, forever)
		all, err := s.Tokens(ctx)
		ok(t, err)
		if len(all) != 2 {
			t.Fatal(all)
		}
		for _, bad := range []string{
			"", "lockstep_", plain + "A", plain[:len(plain)-2] + "AA", strings.ToUpper(plain),
			plain[:len("lockstep_")+33] + other[len("lockstep_")+33:], strings.Replace(plain, "lockstep_", "lockstep_'", 1),
		} {
			_, err := s.CheckToken(ctx, bad)
			wantCode(t, err, lockstep.CodeUnauthorized)
		}
		ok(t, s.InTx(ctx, func(tx Tx) error {
			_, err := tx.Exec(ctx, `UPDATE api_tokens SET scopes = $1 WHERE id = $2`, `["admin"]`, forever.ID)
			return err
		}))
		_, err = s.CheckToken(ctx, other)
		wantCode(t, err, lockstep.CodeUnauthorized)
		ok(t, s.DeleteToken(ctx, forever.ID))
		_, err = s.CheckToken(ctx, other)
		wantCode(t, err, lockstep.CodeUnauthorized)
		wantCode(t, s.DeleteToken(ctx, forever.ID), lockstep.CodeNotFound)
		now = now.Add(time.Hour)
		_, err = s.CheckToken(ctx, plain)
		wantCode(t, err, lockstep.CodeUnauthorized)
	})
}

// The database holds personal data: nobody else on the machine may read it.
func TestFilesArePrivate(t *testing.T) {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Options{Path: folder})
	ok(t, s.SetSetting(context.Background(), "name", "value"))
	files, err := filepath.Glob(filepath.Join(folder, DatabaseFile+"*"))
	ok(t, err)
	if len(files) < 2 {
		t.Fatalf("only %v: the write-ahead log was expected too", files)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		ok(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(f), info.Mode().Perm())
		}
	}
}
