package jobs

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/riverqueue/river"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// runArgs is what River keeps of a job: an id, nothing personal.
type runArgs struct {
	Run string `json:"run" river:"unique"`
}

// Kind names the job for River.
func (runArgs) Kind() string { return "run" }

type worker struct {
	river.WorkerDefaults[runArgs]
	jobs *Jobs
}

// Timeout is none: a slice that does not get on is cancelled here, and what a lost
// process was at is taken over by those that live.
func (w *worker) Timeout(*river.Job[runArgs]) time.Duration { return -1 }

// NextRetry is asked only after the store itself failed.
func (w *worker) NextRetry(*river.Job[runArgs]) time.Time {
	return time.Now().Add(w.jobs.timing.firstPause)
}

var (
	errCancelGrace = errors.New("the run was cancelled and did not end in time")
	errStalled     = errors.New("the work made no call for too long")
)

// Work does one slice. It returns nil, which removes the job, only when the run has
// ended.
func (w *worker) Work(ctx context.Context, job *river.Job[runArgs]) (snooze error) {
	j, id := w.jobs, job.Args.Run
	defer func() { j.stir.ended(snooze, j.timing.firstPause) }()
	j.begun(job.ID)
	defer j.over(job.ID)
	ctx, run, err := j.store.StartRun(ctx, id)
	if errors.Is(err, store.ErrAccountBusy) {
		return river.JobSnooze(j.timing.watch)
	}
	switch lockstep.CodeOf(err) {
	case "":
	case lockstep.CodeNotFound:
		return nil
	case lockstep.CodeConflict: // it has ended
		j.announce(id)
		return nil
	default:
		return j.again(ctx, err)
	}
	if run.CancelRequested {
		return j.end(ctx, id, lockstep.RunCancelled, nil)
	}
	if run.Scheduled && j.scheduler != nil {
		switch until, err := j.scheduler.Window(ctx, run); {
		case err != nil:
			return j.again(ctx, err)
		case !until.IsZero():
			return j.await(ctx, run, until)
		}
	}

	meter := &lockstep.Meter{}
	slice, cancel := context.WithCancelCause(lockstep.WithMeter(ctx, meter))
	defer cancel(nil)
	var watched sync.WaitGroup
	watched.Go(func() { j.watchCancel(slice, id, cancel) })
	watched.Go(func() { j.watchProgress(slice, meter, cancel) })
	done, err := j.slice(slice, id)
	over, cause := slice.Err(), context.Cause(slice)
	cancel(nil)
	watched.Wait()

	// Whatever the slice answered, what follows must be stored: the context may be
	// over, the right to write that it carries is not.
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		j.mu.Lock()
		delete(j.trouble, id)
		j.mu.Unlock()
	}
	run, rerr := j.store.Run(ctx, id)
	switch {
	case rerr != nil:
		return rerr
	case run.Status.Ended():
		j.announce(id)
		return nil
	case err == nil && done:
		return j.end(ctx, id, outcome(run), nil)
	case run.CancelRequested || isCancel(cause):
		return j.end(ctx, id, lockstep.RunCancelled, nil)
	case err == nil:
		return river.JobSnooze(0)
	case over != nil && !errors.Is(cause, errStalled): // the process stops; the next one goes on
		return river.JobSnooze(0)
	case over != nil:
		return j.pause(ctx, id, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The work did not get on in time."})
	}
	switch lockstep.CodeOf(err) {
	case lockstep.CodeThrottled, lockstep.CodeUnavailable:
		return j.pause(ctx, id, lockstep.AsError(err))
	case lockstep.CodeCancelled:
		return j.end(ctx, id, lockstep.RunCancelled, err)
	}
	return j.end(ctx, id, lockstep.RunFailed, err)
}

// slice calls the runner; a panic is an internal error of this run alone.
func (j *Jobs) slice(ctx context.Context, id string) (done bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			j.log.Error("a run panicked", "run", id, "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			done, err = false, &lockstep.Error{Code: lockstep.CodeInternal, Scope: lockstep.ScopeConnection, Msg: "Internal error.", Hint: "See the log; this is a fault of Lockstep."}
		}
	}()
	return j.runner.Slice(ctx, id, j.timing.slice)
}

// watchProgress cancels a slice that makes no call to either side for too long.
// However long a slice takes, as long as it gets on it is left alone.
func (j *Jobs) watchProgress(ctx context.Context, meter *lockstep.Meter, cancel context.CancelCauseFunc) {
	look := time.NewTicker(max(j.timing.stall/10, time.Millisecond))
	defer look.Stop()
	made, since := meter.Calls(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if now := meter.Calls(); now != made {
			made, since = now, time.Now()
		} else if time.Since(since) >= j.timing.stall {
			cancel(errStalled)
			return
		}
	}
}

// watchCancel cancels a slice that goes on for too long after a person cancelled
// its run. A slice ends by itself between two batches, so this is for one that
// hangs.
func (j *Jobs) watchCancel(ctx context.Context, id string, cancel context.CancelCauseFunc) {
	// Where other processes share the database one of them may be told; otherwise all
	// who cancel do it here.
	var look <-chan time.Time
	if !j.store.Exclusive() {
		ticker := time.NewTicker(j.timing.watch)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		j.mu.Lock()
		told := j.told
		j.mu.Unlock()
		if asked, err := j.store.CancelRequested(ctx, id); err == nil && asked {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-look:
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(j.timing.cancelGrace):
		cancel(errCancelGrace)
	}
}

// outcome is how a run ends that has no work left.
func outcome(run lockstep.Run) lockstep.RunStatus {
	switch {
	case run.Mode == lockstep.ModePreview:
		return lockstep.RunPreviewed
	case run.Counts.Findings > 0 || run.Counts.Rejected > 0:
		return lockstep.RunCompletedWithErrors
	}
	return lockstep.RunCompleted
}

// end ends a run. When that cannot be stored, the job stays and tries again.
func (j *Jobs) end(ctx context.Context, id string, status lockstep.RunStatus, cause error) error {
	var message, hint string
	if cause != nil {
		e := lockstep.AsError(cause)
		if message = e.Msg; message == "" {
			message = "The run ended with: " + string(e.Code) + "."
		}
		hint = e.Hint
		j.log.Warn("a run ended early", "run", id, "status", status, "code", e.Code, "op", e.Op, "err", cause)
	}
	var run lockstep.Run
	err := j.store.InTx(ctx, func(tx store.Tx) (err error) {
		if status == lockstep.RunFailed && cause != nil {
			run, err = j.store.FailRunIn(ctx, tx, id, &lockstep.Error{Code: lockstep.CodeOf(cause), Msg: message, Hint: hint})
		} else {
			run, err = j.store.EndRunIn(ctx, tx, id, status, message, hint)
		}
		if err != nil || run.Again == "" || status == lockstep.RunCancelled {
			return err
		}
		_, err = j.EnqueueIn(ctx, tx, lockstep.Run{ID: run.Again, Account: run.Account, Type: run.Type, List: run.List, Mode: run.Mode})
		return err
	})
	switch lockstep.CodeOf(err) {
	case "", lockstep.CodeNotFound:
	case lockstep.CodeConflict:
		// Either it has ended, or another worker has it: look again shortly.
		return river.JobSnooze(j.timing.watch)
	default:
		return j.again(ctx, err)
	}
	if err == nil {
		j.conclude(run)
	} else { // it is not there any more
		j.announce(id)
	}
	return nil
}

// await puts a run aside until the window of its schedule opens again. Other runs of the
// account go on meanwhile.
func (j *Jobs) await(ctx context.Context, run lockstep.Run, until time.Time) error {
	if err := j.store.Shelve(ctx, run.ID, "waiting for its window, which opens at "+until.UTC().Format(time.RFC3339)); err != nil {
		return j.again(ctx, err)
	}
	// Not until then: the window may be changed, and who ends the wait may do so in this
	// moment, when the job does not wait yet.
	return river.JobSnooze(min(time.Until(until), j.timing.window))
}

// pause puts a run aside after an error that may pass, and fails it when that has
// gone on for too long.
func (j *Jobs) pause(ctx context.Context, id string, cause *lockstep.Error) error {
	if errors.Is(cause, lockstep.ErrBudget) { // nothing is wrong
		return j.rest(ctx, id, min(cause.After, j.timing.budget), cause.After, cause)
	}
	now := time.Now()
	j.mu.Lock()
	t := j.trouble[id]
	if t.count == 0 {
		t.since = now
	}
	t.count++
	j.trouble[id] = t
	j.mu.Unlock()
	if now.Sub(t.since) > j.timing.giveUp {
		return j.end(ctx, id, lockstep.RunFailed, cause)
	}
	wait := min(j.timing.firstPause<<min(t.count-1, 20), j.timing.longPause)
	wait = max(wait, cause.After)
	return j.rest(ctx, id, wait, wait, cause)
}

// rest puts a run aside for a while; told is for how long at most, for people.
func (j *Jobs) rest(ctx context.Context, id string, wait, told time.Duration, cause *lockstep.Error) error {
	j.log.Info("a run is paused", "run", id, "for", wait, "code", cause.Code, "err", cause)
	if err := j.store.SetStage(ctx, id, fmt.Sprintf("waiting %s: %s", told.Round(time.Second), cause.Msg)); err != nil {
		j.log.Warn("the pause could not be noted", "run", id, "err", err)
	}
	if j.sleep != nil && j.sleep(ctx, wait) == nil {
		wait = 0
	}
	return river.JobSnooze(wait)
}

// again is for errors of the store, which say nothing about the run.
func (j *Jobs) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return river.JobSnooze(0)
	}
	j.log.Warn("the database failed a job; it is tried again", "err", err)
	return err
}
