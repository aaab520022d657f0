package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// folder is what the process that is killed has to know.
type folder struct {
	Dir   string
	Hosts []string
}

// TestWorkUntilKilled is no test of its own: it is the process that TestKills kills.
// It goes on with the runs of a data folder until none is left.
func TestWorkUntilKilled(t *testing.T) {
	told := os.Getenv("LOCKSTEP_TEST_KILL")
	if told == "" {
		return
	}
	var where folder
	if err := json.Unmarshal([]byte(told), &where); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cfg: app.Config{DataDir: where.Dir, AllowHosts: where.Hosts, ImportRows: 4, RetryPause: time.Millisecond}}
	w.open()
	runs, err := w.app.Runs(t.Context(), app.RunFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if !r.Status.Ended() {
			if _, err := w.app.Wait(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The process is killed at random moments of a run, over and over; whoever comes
// after it ends the run, and nothing is lost or there twice.
func TestKills(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := newStormy(t) // one after the other: between fork and exec a child holds every lock of its parent
			s.edit()
			s.switchOn("Customers in France", lockstep.ActionIgnore)
			if err := s.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			a, err := app.Open(t.Context(), s.cfg) // not started: it only queues the run
			if err != nil {
				t.Fatal(err)
			}
			run, err := a.StartRun(t.Context(), app.RunRequest{Account: s.account.ID, Type: lockstep.SyncMarketingLists})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			cfg, err := json.Marshal(folder{s.cfg.DataDir, s.cfg.AllowHosts})
			if err != nil {
				t.Fatal(err)
			}
			dice := rand.New(rand.NewPCG(seed, 7))
			kills := 0
			for ; kills < 10; kills++ {
				ctx, stop := context.WithTimeout(t.Context(), time.Duration(60+dice.IntN(40*(kills+2)))*time.Millisecond)
				c := exec.CommandContext(ctx, exe, "-test.run=^TestWorkUntilKilled$") // killed without a word when ctx ends
				c.Env = append(os.Environ(), "LOCKSTEP_TEST_KILL="+string(cfg))
				out, err := c.CombinedOutput()
				killed := ctx.Err() != nil
				stop()
				if err == nil {
					break // it was faster
				}
				if !killed {
					t.Fatalf("the process ended with %v: %s", err, out)
				}
			}
			s.open()
			if run, err = s.app.Wait(t.Context(), run.ID); err != nil {
				t.Fatalf("after %d kills: %v", kills, err)
			}
			addsUp(t, run)
			t.Logf("%d kills", kills)
			s.whole(fmt.Sprint("after ", kills, " kills"))
		})
	}
}
