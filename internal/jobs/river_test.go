package jobs

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

func TestCalm(t *testing.T) {
	var out strings.Builder
	var stopping atomic.Bool
	log := slog.New(calm{slog.NewTextHandler(&out, nil), &stopping})
	log.With("a", 1).WithGroup("g").Warn("shown as info")
	log.Info("not shown")
	log.Error("cut off in the middle of work", "error", "error inserting: context canceled")
	stopping.Store(true)
	log.Error("not shown, as it is our own doing", "error", "error inserting: context canceled")
	log.Error("also at the end", "error", "the disk is full")
	if s := out.String(); strings.Count(s, "level=INFO") != 1 || strings.Count(s, "level=WARN") != 2 || strings.Contains(s, "not shown") {
		t.Fatal(s)
	}
}

// The system's clock is set back by an hour: what was put aside for a moment, or was about
// to begin, does not wait for that hour to come again.
func TestClockSetBack(t *testing.T) {
	for name, o := range map[string]store.Options{"sqlite": {Path: t.TempDir()}, "postgres": {URL: pgtest.Database(t)}} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }))
			put, later := f.enqueue(t, "a"), f.enqueue(t, "b")
			ahead := time.Now().UTC().Add(time.Hour)
			for id, state := range map[string]string{put.ID: "scheduled", later.ID: "available"} {
				ok(t, f.s.InTx(context.Background(), func(tx store.Tx) error {
					when := any(ahead)
					if o.URL == "" {
						when = ahead.Format("2006-01-02 15:04:05.000")
					}
					n, err := tx.Exec(context.Background(), `UPDATE river_job SET state = '`+state+`', scheduled_at = $1 WHERE CAST(args AS TEXT) LIKE $2`, when, "%"+id+"%")
					if err == nil && n != 1 {
						t.Fatalf("%d jobs", n)
					}
					return err
				}))
			}
			f.begin(t)
			for _, id := range []string{put.ID, later.ID} {
				if run := f.wait(t, id); run.Status != lockstep.RunCompleted {
					t.Errorf("the run is %s", run.Status)
				}
			}
		})
	}
}
