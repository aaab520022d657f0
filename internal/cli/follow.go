package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// lookEvery is how often a run is looked at while it is shown.
const lookEvery = 200 * time.Millisecond

// follow shows a run's progress until it has ended and returns it. total is how many
// people it will read, 0 when nobody knows.
func follow(ctx context.Context, p *progress, id string, total int64, look func(ctx context.Context, id string) (lockstep.Run, error)) (lockstep.Run, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		run, err := look(ctx, id)
		if err != nil || run.Status.Ended() {
			return run, err
		}
		stage := run.Stage
		if run.Status == lockstep.RunQueued {
			stage = "waiting"
		}
		p.update(stage, run.Counts.Read, total)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return run, &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "stopped watching; run " + id + " goes on where it is worked on", Err: context.Cause(ctx)}
		}
	}
}

// runError says why a run did not do its work.
func runError(run lockstep.Run) error {
	switch run.Status {
	case lockstep.RunFailed:
		return &lockstep.Error{Code: cmp.Or(run.Code, lockstep.CodeUnavailable), Op: "run " + run.ID, Msg: run.Error, Hint: run.Hint}
	case lockstep.RunCancelled:
		return &lockstep.Error{Code: lockstep.CodeCancelled, Op: "run " + run.ID, Msg: "the run was cancelled"}
	}
	return nil
}

// runLine says in one line what a run did.
func runLine(run lockstep.Run) string {
	c, would := run.Counts, ""
	if run.Mode == lockstep.ModePreview {
		would = "would be "
	}
	s := fmt.Sprintf("%s read, %s %swritten, %s memberships, %s findings", thousands(c.Read), thousands(c.Written), would,
		thousands(c.BookAdds+c.BookRemovals+c.ListAdds+c.ListRemovals), thousands(c.Findings))
	if !run.Started.IsZero() && !run.Ended.IsZero() {
		s += fmt.Sprintf(", %s", run.Ended.Sub(run.Started).Round(100*time.Millisecond))
	}
	return s
}
