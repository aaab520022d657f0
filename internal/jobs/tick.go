package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/lockstep-sync/lockstep"
)

// Scheduler starts the runs that are due.
type Scheduler interface {
	// Tick starts what is due and returns when it wants to be called again at the latest;
	// zero = nothing is planned. It is called at that time, when a run has ended, and
	// every minute in any case. Of all the processes that share a database one calls
	// it at a time; should that ever be two, both must come to the same.
	Tick(ctx context.Context) (next time.Time, err error)
	// Window reports until when a run of a schedule has to wait because the window of
	// its schedule is closed; zero = it may go on.
	Window(ctx context.Context, run lockstep.Run) (until time.Time, err error)
}

const (
	tickQueue = "clock"
	// tickEvery bounds how long a change that another process made goes unnoticed.
	tickEvery = 10 * time.Second
	// tickAlone is for SQLite, where there is no other process: it bounds how long it goes
	// unnoticed that the system's clock was set forward.
	tickAlone = time.Minute
	// tickAfter is how soon after a failure of the database the clock is looked at again.
	tickAfter = 5 * time.Second
	// wakeAttempts bounds how often a clock that is being looked at is tried to be woken.
	wakeAttempts = 100
)

// tickArgs is the one job that looks at the clock. It is never done: it goes back to the
// queue until something is due. River's leader sees to it that there is one.
type tickArgs struct{}

// Kind names the job for River.
func (tickArgs) Kind() string { return "tick" }

// InsertOpts say that there is one such job at most.
func (tickArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: tickQueue, UniqueOpts: river.UniqueOpts{ByQueue: true, ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
	}}}
}

func periodicTick() *river.PeriodicJob {
	return river.NewPeriodicJob(river.PeriodicInterval(time.Minute),
		func() (river.JobArgs, *river.InsertOpts) { return tickArgs{}, nil },
		&river.PeriodicJobOpts{ID: "tick", RunOnStart: true})
}

type ticker struct {
	river.WorkerDefaults[tickArgs]
	jobs *Jobs
}

// Timeout is none: a tick that was lost with its process is taken over by those that live.
func (t *ticker) Timeout(*river.Job[tickArgs]) time.Duration { return -1 }

// Work looks at the clock once.
func (t *ticker) Work(ctx context.Context, job *river.Job[tickArgs]) (snooze error) {
	j := t.jobs
	defer func() { j.stir.ended(snooze, j.timing.firstPause) }()
	j.begun(job.ID)
	defer j.over(job.ID)
	next, err := j.scheduler.Tick(ctx)
	switch {
	case ctx.Err() != nil:
		return river.JobSnooze(0)
	case err != nil:
		j.log.Warn("the schedules could not be looked at; it is tried again", "err", err)
		return river.JobSnooze(tickAfter)
	case next.IsZero():
		return river.JobSnooze(j.tickMost())
	}
	return river.JobSnooze(min(max(time.Until(next), 0), j.tickMost()))
}

// tickMost is how much time passes at most until the clock is looked at again.
func (j *Jobs) tickMost() time.Duration {
	if j.stir != nil {
		return tickAlone
	}
	return tickEvery
}

// Wake has the schedules looked at soon, because something changed that they depend on.
func (j *Jobs) Wake() {
	select {
	case j.wakes <- struct{}{}:
	default: // it is about to happen
	}
}

// wakeUp carries out what Wake asks for until ctx ends. A clock that is being looked at
// may have been looked at too early: it is woken once it waits again.
func (j *Jobs) wakeUp(ctx context.Context) {
	again := time.NewTicker(j.timing.wake)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wakes:
		}
		for range wakeAttempts {
			woken, err := j.queue.wake(ctx)
			if err != nil && ctx.Err() == nil {
				j.log.Debug("the clock could not be woken", "err", err)
			}
			if woken {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
		}
	}
}

func (q *riverQueue[T]) wake(ctx context.Context) (woken bool, err error) {
	defer q.stir.note()
	waiting, err := q.client.JobList(ctx, river.NewJobListParams().Kinds(tickArgs{}.Kind()).
		States(rivertype.JobStateAvailable, rivertype.JobStateScheduled, rivertype.JobStateRetryable).First(1))
	if err != nil {
		return false, err
	}
	for _, job := range waiting.Jobs {
		now, err := q.client.JobRetry(ctx, job.ID)
		if err != nil {
			return false, err
		}
		woken = now.State != rivertype.JobStateRunning
	}
	return woken, nil
}
