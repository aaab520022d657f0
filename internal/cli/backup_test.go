package cli

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

func TestBackupAndRestoreCommands(t *testing.T) {
	dir, away := t.TempDir(), t.TempDir()
	copied := filepath.Join(away, "copy.db")
	run(t, "backup", "--data", dir).want(t, ExitUsage, "--to")
	run(t, "backup", "--to", copied).want(t, ExitUsage, "--data")
	run(t, "backup", "--data", dir, "--to", copied).want(t, ExitFailed, "no database in the data folder")
	run(t, "backup", "--database-url", "postgres://u:hunter2@db/x", "--to", copied).want(t, ExitFailed, "pg_dump")
	run(t, "restore", "--database-url", "postgres://u:hunter2@db/x", "--from", copied).want(t, ExitFailed, "pg_restore")

	a, _ := apptest.Open(t, app.Config{DataDir: dir}) // in use from here on
	run(t, "backup", "--data", dir, "--to", filepath.Join(away, "no folder", "copy.db")).want(t, ExitFailed, "cannot be written")
	var made struct {
		File  string
		Bytes int64
	}
	run(t, "backup", "--data", dir, "--to", copied, "--json").want(t, ExitDone).object(t, &made)
	info, err := os.Stat(copied)
	if err != nil || made.File != copied || made.Bytes != info.Size() {
		t.Fatalf("%+v, the file has %v, %v", made, info, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left, err := os.ReadDir(away); err != nil || len(left) != 1 {
		t.Errorf("beside the copy: %v, %v", left, err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(copied)
	if err != nil || bytes.Contains(text, bytes.TrimSpace(key)) {
		t.Errorf("the copy holds the master key, or %v", err)
	}
	run(t, "backup", "--data", dir, "--to", copied).want(t, ExitFailed, "exists already")
	run(t, "restore", "--data", dir, "--from", copied).want(t, ExitFailed, "uses the data folder")
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// In its own folder the database acts; in another one it does not.
	run(t, "accounts", "lock", "Contoso mailings", "--reason", "after the backup", "--data", dir).want(t, ExitDone)
	run(t, "restore", "--data", dir, "--from", filepath.Join(away, "nothing.db")).want(t, ExitFailed, "cannot be read")
	run(t, "restore", "--data", dir, "--from", filepath.Join(dir, "master.key")).want(t, ExitFailed, "damaged")
	run(t, "accounts", "list", "--data", dir).want(t, ExitDone, "after the backup")
	run(t, "restore", "--data", dir, "--from", copied).want(t, ExitDone, "is kept as", "Preview the first sync")
	run(t, "accounts", "list", "--data", dir).want(t, ExitDone, "syncs when asked")
	other := filepath.Join(away, "another place")
	run(t, "restore", "--data", other, "--from", copied).want(t, ExitDone, "Put the master.key", "lockstep rearm")
	run(t, "accounts", "list", "--data", other).want(t, ExitDone, "is a copy")

	// A program that is older than the tables says so and leaves them alone.
	db, err := sql.Open("sqlite", filepath.Join(dir, "lockstep.db"))
	if err == nil {
		_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "serve", "--listen", "127.0.0.1:0", "--data", dir).want(t, ExitFailed, "used by a newer Lockstep", "Update this program, or restore a backup")
}
