package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// binary builds the real program.
func binary(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "lockstep")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "github.com/lockstep-sync/lockstep/cmd/lockstep")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build lockstep: %v\n%s", err, out)
	}
	return exe
}

// The real program is killed fifty times at seeded moments, while it serves and works
// on runs; whoever comes after it goes on, and in the end both sides agree, nothing
// is there twice and nothing is left to write.
func TestFiftyKillsOfTheBinary(t *testing.T) {
	exe := binary(t)
	const worlds, kills = 5, 10
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 700, Seed: 100 + seed, PlatformShare: 0.05}})
			before := w.booksNow()
			dice := rand.New(rand.NewPCG(seed, 50))
			if err := w.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			args := []string{"serve", "--listen", "127.0.0.1:0", "--data", w.cfg.DataDir}
			for _, h := range w.cfg.AllowHosts {
				args = append(args, "--allow-host", h)
			}
			interrupted := 0
			for range kills {
				w.queueWork(dice)
				ctx, stop := context.WithTimeout(t.Context(), time.Duration(30+dice.IntN(400))*time.Millisecond)
				out, err := exec.CommandContext(ctx, exe, args...).CombinedOutput() // killed without a word when ctx ends
				killed := ctx.Err() != nil
				stop()
				if !killed {
					t.Fatalf("the program ended by itself: %v\n%s", err, out)
				}
				if w.liveRun() != "" {
					interrupted++
				}
			}
			t.Logf("%d of %d kills hit a run that was queued or under way", interrupted, kills)
			id := w.liveRun()
			w.open()
			if id != "" {
				run, err := w.app.Wait(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				addsUp(t, run)
			}
			w.sync()
			w.sync()
			w.agree(before)
			w.resetCalls()
			run := w.sync()
			if changes := w.changes(run.ID); len(changes) != 0 || writes(w.calls("dotdigital")) != 0 {
				t.Errorf("not quiet: %v %v %v", changes, w.calls("dataverse"), w.calls("dotdigital"))
			}
		})
	}
}

// idle opens the product on its data without working on runs.
func (w *world) idle(do func()) {
	w.t.Helper()
	a, err := app.Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.app = a
	do()
	if err := a.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// liveRun returns the run that is queued or in process; empty when there is none.
func (w *world) liveRun() (id string) {
	w.t.Helper()
	w.idle(func() {
		runs, err := w.app.Runs(w.t.Context(), app.RunFilter{Type: lockstep.SyncMarketingLists, Limit: 5})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range runs {
			if !r.Status.Ended() {
				id = r.ID
			}
		}
	})
	return id
}

// queueWork edits some people and queues a run, unless one is still to be done.
func (w *world) queueWork(dice *rand.Rand) {
	w.t.Helper()
	if w.liveRun() != "" {
		return
	}
	w.idle(func() {
		w.mischief(dice, 15)
		if _, err := w.app.StartRun(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists}); err != nil {
			w.t.Fatal(err)
		}
	})
}
