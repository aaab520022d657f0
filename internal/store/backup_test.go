//go:build unix

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
)

// A copy that is made while others write is one moment: what one transaction wrote is in
// it as a whole or not at all, and every checksum fits.
func TestBackupWhileWriting(t *testing.T) {
	ctx := t.Context()
	o := Options{Path: filepath.Join(t.TempDir(), "data folder?#%41")}
	s := mustOpen(t, o)
	a := account(t, s)
	turn, run := started(t, s, a.ID)
	stop, over := make(chan struct{}), make(chan struct{})
	var written atomic.Int64
	go func() {
		defer close(over)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := written.Load() + 1
			batch, err := s.Plan(turn, lockstep.Batch{Run: run.ID, Account: a.ID, Payload: make([]byte, 50_000)})
			if err == nil {
				err = s.Commit(turn, lockstep.Commit{
					Run: run.ID, Account: a.ID, Links: [][]byte{make([]byte, 50_000)}, Batches: []lockstep.BatchEnd{{ID: batch, State: lockstep.Acknowledged}},
					Cursors: map[string]lockstep.Cursor{"n": lockstep.Cursor(fmt.Sprint(n)), "m": lockstep.Cursor(fmt.Sprint(n))},
				})
			}
			if err != nil {
				t.Errorf("write %d: %v", n, err)
				return
			}
			written.Store(n)
		}
	}()
	type copied struct {
		file  string
		least int64 // writes that it must hold
	}
	var copies []copied
	for i := range 12 {
		to := filepath.Join(t.TempDir(), "copy")
		least := written.Load()
		size, err := Backup(ctx, o.Path, to)
		if err != nil || size == 0 {
			t.Fatalf("copy %d: %d bytes, %v", i, size, err)
		}
		copies = append(copies, copied{to, least})
	}
	close(stop)
	<-over
	if n := written.Load(); n < 2 {
		t.Fatalf("only %d writes beside the copies", n)
	}
	for i, from := range copies {
		folder := t.TempDir()
		if aside, err := Restore(ctx, folder, from.file, time.Now()); err != nil || aside != "" {
			t.Fatalf("restore: %q, %v", aside, err)
		}
		c := mustOpen(t, Options{Path: folder})
		var found string
		if err := c.SQLite().QueryRow(`PRAGMA integrity_check`).Scan(&found); err != nil || found != "ok" {
			t.Fatalf("copy %d: %s, %v", i, found, err)
		}
		cursors := map[string]lockstep.Cursor{}
		for _, name := range []string{"n", "m"} {
			v, err := c.Cursor(ctx, a.ID, name)
			ok(t, err)
			cursors[name] = v
		}
		n := 0
		if cursors["n"] != "" {
			_, err := fmt.Sscan(string(cursors["n"]), &n)
			ok(t, err)
		}
		acknowledged, open, blobs := 0, 0, 0
		for after := int64(0); ; {
			page, err := c.Batches(ctx, run.ID, after, 100)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			for _, b := range page {
				after = b.ID
				if b.State == lockstep.Acknowledged {
					acknowledged++
				} else {
					open++
				}
			}
		}
		ok(t, c.Links(ctx, a.ID, 0, func(lockstep.StoredBlob) error { blobs++; return nil }))
		if cursors["n"] != cursors["m"] || acknowledged != n || blobs != n || open > 1 || int64(n) < from.least {
			t.Fatalf("copy %d: cursors %v, %d batches acknowledged, %d open, %d links; %d were written before", i, cursors, acknowledged, open, blobs, from.least)
		}
		_, err := c.VerifyConsent(ctx, consent.Head{})
		ok(t, err)
	}
}

func TestBackupRefuses(t *testing.T) {
	ctx := t.Context()
	folder, away := t.TempDir(), t.TempDir()
	to := filepath.Join(away, "copy")
	_, err := Backup(ctx, folder, to)
	wantCode(t, err, lockstep.CodeNotFound)
	s := mustOpen(t, Options{Path: folder})
	ok(t, s.SetSetting(ctx, "a", "first"))
	stopped, stop := context.WithCancel(ctx)
	stop()
	_, err = Backup(stopped, folder, to)
	wantCode(t, err, lockstep.CodeCancelled)
	_, err = Backup(ctx, folder, filepath.Join(away, "none", "copy"))
	wantCode(t, err, lockstep.CodeUnavailable)
	if left, err := os.ReadDir(away); err != nil || len(left) != 0 {
		t.Fatalf("a backup that failed left %v, %v", left, err)
	}
	_, err = Backup(ctx, folder, to)
	ok(t, err)
	_, err = Backup(ctx, folder, to)
	wantCode(t, err, lockstep.CodeConflict)

	// While a process has the folder, nobody takes its database away.
	_, err = Restore(ctx, folder, to, time.Now())
	wantCode(t, err, lockstep.CodeConflict)
	ok(t, s.SetSetting(ctx, "a", "second"))
	ok(t, s.Close())
	value := func(want string) {
		t.Helper()
		s := mustOpen(t, Options{Path: folder})
		if got, err := s.Setting(ctx, "a"); err != nil || got != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		ok(t, s.Close())
	}
	text, err := os.ReadFile(to)
	ok(t, err)
	bad := filepath.Join(away, "bad")
	for what, content := range map[string][]byte{"cut off": text[:len(text)/2], "not a database": []byte("hello"), "empty": nil} {
		ok(t, os.WriteFile(bad, content, 0o600))
		if _, err := Restore(ctx, folder, bad, time.Now()); err == nil {
			t.Fatalf("a file that is %s was restored", what)
		}
		value("second")
	}

	// A killed process leaves a write-ahead log; it belongs to the database before.
	crashed := mustOpen(t, Options{Path: folder})
	ok(t, crashed.SetSetting(ctx, "a", "third"))
	log, err := os.ReadFile(filepath.Join(folder, DatabaseFile+"-wal"))
	ok(t, err)
	if len(log) == 0 {
		t.Fatal("no write-ahead log")
	}
	snapshot, err := os.ReadFile(filepath.Join(folder, DatabaseFile))
	ok(t, err)
	ok(t, crashed.Close())
	ok(t, os.WriteFile(filepath.Join(folder, DatabaseFile), snapshot, 0o600))
	ok(t, os.WriteFile(filepath.Join(folder, DatabaseFile+"-wal"), log, 0o600))
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	aside, err := Restore(ctx, folder, to, now)
	ok(t, err)
	if want := filepath.Join(folder, DatabaseFile+".before-20261123T100000"); aside != want {
		t.Fatalf("set aside as %s", aside)
	}
	value("first")
	if _, err := Restore(ctx, folder, to, now); err == nil {
		t.Fatal("what was set aside was replaced")
	}
	value("first")
	_, err = Restore(ctx, folder, aside, now.Add(time.Second))
	ok(t, err)
	value("third")

	// A newer program's backup is refused before anything is touched.
	s = mustOpen(t, Options{Path: folder})
	ok(t, s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, $1)`, true)
		return err
	}))
	ok(t, s.Close())
	_, err = Restore(ctx, t.TempDir(), filepath.Join(folder, DatabaseFile), now)
	wantCode(t, err, lockstep.CodeConflict)
	if errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}
