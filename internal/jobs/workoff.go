package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/lockstep-sync/lockstep"
)

// WorkOff carries out every run that is queued or was left in process, one after
// another in the calling goroutine and with the pauses that a worker would make,
// and returns when none is left or ctx ends. It is for a process that starts no
// workers; nobody else may be working on this database.
func (j *Jobs) WorkOff(ctx context.Context) error {
	w := &worker{jobs: j}
	for {
		live, err := j.store.LiveRuns(ctx)
		if err != nil || len(live) == 0 {
			return err
		}
		// One that is in process may be in the way of one that is queued.
		slices.SortStableFunc(live, func(x, y lockstep.Run) int { return strings.Compare(string(x.Status), string(y.Status)) })
		for _, run := range live {
			for {
				err := w.Work(ctx, &river.Job[runArgs]{JobRow: &rivertype.JobRow{}, Args: runArgs{Run: run.ID}})
				if cerr := ctx.Err(); cerr != nil {
					return cerr
				}
				if err == nil {
					break
				}
				wait := j.timing.firstPause
				if snooze, ok := errors.AsType[*river.JobSnoozeError](err); ok {
					wait = snooze.Duration
				}
				if err := sleep(ctx, wait); err != nil {
					return err
				}
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
