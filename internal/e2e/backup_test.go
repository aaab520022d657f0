package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// A backup is made while a sync is at work, and its folder restored when the world has
// moved on: whatever moment it is of, the restored one writes nothing until it is
// re-armed, then takes nothing back of what was done since, and is quiet.
func TestBackupDuringASync(t *testing.T) {
	t.Parallel()
	h := newHasteAtNoon()
	var mu sync.Mutex
	var steps, every int
	var copies []string
	away := t.TempDir()
	var dir string
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep, OnStep: func(string) {
		mu.Lock()
		defer mu.Unlock()
		if every == 0 {
			return
		}
		if steps++; steps%every != 0 {
			return
		}
		to := filepath.Join(away, fmt.Sprintf("%03d.db", steps))
		if _, err := store.Backup(t.Context(), dir, to); err != nil {
			t.Errorf("backup at step %d: %v", steps, err)
		}
		copies = append(copies, to)
	}}}
	o.twins.Clock = h.Clock
	w := reference(t, o)
	// Which of several records with one address speaks for the contact may be decided
	// anew when the copy is older than that decision.
	var shared []string
	for email, n := range w.sharing() {
		if n > 1 {
			shared = append(shared, email)
		}
	}
	state := func() []string {
		return slices.DeleteFunc(w.bothSides(), func(line string) bool {
			return slices.ContainsFunc(shared, func(email string) bool { return strings.Contains(line, " "+email) })
		})
	}
	mu.Lock()
	dir, every = w.cfg.DataDir, 9
	mu.Unlock()
	addsUp(t, w.sync())
	mu.Lock()
	every = 0
	mu.Unlock()
	w.silent("the sync that was copied")
	want := state()
	if len(copies) < 4 {
		t.Fatalf("only %d copies in %d steps", len(copies), steps)
	}
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range copies {
		w.cfg.DataDir = t.TempDir()
		if err := os.WriteFile(filepath.Join(w.cfg.DataDir, "master.key"), key, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := app.Restore(t.Context(), w.cfg, from)
		if err != nil || !r.Rearm || !r.MasterKey || r.Aside != "" {
			t.Fatalf("restore: %+v, %v", r, err)
		}
		w.open()
		if rep, err := w.app.VerifyConsent(t.Context(), ""); err != nil || rep.Broken != nil {
			t.Errorf("%s: the ledger: %+v, %v", from, rep, err)
		}
		live, err := w.app.Runs(t.Context(), app.RunFilter{Account: w.account.ID, Limit: 1})
		if err != nil || len(live) != 1 {
			t.Fatal(err)
		}
		// The run that was at work is continued, and finds the account locked.
		if run, err := w.app.Wait(t.Context(), live[0].ID); run.Code != lockstep.CodeGuarded {
			t.Errorf("%s: the copy went on: %s %q %v", from, run.Status, run.Code, err)
		}
		w.guardedRun(lockstep.SyncMarketingLists, "is a copy")
		if diff := cmp.Diff(want, state()); diff != "" {
			t.Errorf("%s wrote before it was re-armed (-before +after):\n%s", from, diff)
		}
		if _, err := w.app.Rearm(t.Context(), "Kim"); err != nil {
			t.Fatal(err)
		}
		addsUp(t, w.sync())
		if diff := cmp.Diff(want, state()); diff != "" {
			t.Errorf("%s took something back (-before +after):\n%s", from, diff)
		}
		w.silent(from)
		if err := w.app.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d copies within %d steps", len(copies), steps)
}
