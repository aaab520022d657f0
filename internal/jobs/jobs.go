// Package jobs carries out runs: it queues them, works on them in short slices,
// tries again what may succeed later, cancels, and continues after a crash. It is
// the only importer of River, whose tables live in the store's own database, so
// that a run and the job that carries it are committed together.
//
// Work is cut into slices of some seconds: a job runs one slice and goes back to the
// queue until its run has ended. What is lost with a process is one slice. A step that
// cannot be interrupted may make a slice longer; how long a slice takes is not bounded,
// only how long it may go without a call to either side.
//
// River has no heartbeat, and by its own measure, the age of an attempt, a lost job
// cannot be told from a long one. Where several processes share a database, each
// therefore shows that it lives, and takes over the jobs of those that do not. The
// store's fence keeps a worker that wakes up late from storing anything.
//
// Runs of the consent lane have a queue and workers of their own: however much other
// work is waiting or under way, an opt-out does not wait behind it.
//
// At most one run of an email account, sync type and list is queued or in process.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/riverqueue/river/rivertype"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// Runner does the work of a run.
type Runner interface {
	// Slice works on a run for about budget and returns between two batches, with
	// everything done so far committed. done reports that the run has no work left.
	// It is called again until then. ctx carries the right to write to the run: use
	// it, or one made from it, for every call to the store. It is cancelled when the
	// process must stop at once.
	//
	// An error with CodeThrottled or CodeUnavailable is tried again later, after
	// Error.After if that is set; any other ends the run as failed.
	Slice(ctx context.Context, run string, budget time.Duration) (done bool, err error)
}

// timing is how long things take; tests shorten it.
type timing struct {
	slice       time.Duration // budget of a slice
	softStop    time.Duration // how long Stop waits for slices to end by themselves
	stall       time.Duration // when a slice that makes no call is cancelled
	beat        time.Duration // between two signs of life of a process
	deadAfter   time.Duration // when the jobs of a process without a sign of life are taken over
	cancelGrace time.Duration // how long a run may go on after a person's cancel
	watch       time.Duration // between two looks at a row that others change
	window      time.Duration // between two looks at whether a closed window is open
	budget      time.Duration // between two looks at whether a budget of calls has room
	wake        time.Duration // between two attempts to wake a clock that is being looked at
	firstPause  time.Duration // after a transient error; doubled each time
	longPause   time.Duration // the longest such pause
	giveUp      time.Duration // how long a run may fail without one good slice
}

// A slice and the ending of its last batch fit into the time that Stop allows, and
// that into the 30 s which service managers usually grant.
var usual = timing{
	slice: 20 * time.Second, softStop: 25 * time.Second,
	stall: 5 * time.Minute, beat: 5 * time.Second, deadAfter: 40 * time.Second,
	cancelGrace: 30 * time.Second, watch: 500 * time.Millisecond, window: 10 * time.Second, budget: time.Minute, wake: 100 * time.Millisecond,
	firstPause: 2 * time.Second, longPause: 5 * time.Minute, giveUp: time.Hour,
}

// Jobs queues runs and works on them.
type Jobs struct {
	store     *store.Store
	runner    Runner
	scheduler Scheduler // nil = none
	wakes     chan struct{}
	onEnd     func(lockstep.Run) // nil = nobody wants to know
	log       *slog.Logger
	timing    timing
	sleep     func(context.Context, time.Duration) error // nil: the queue keeps the pauses
	queue     queue
	stir      *stir  // of SQLite; nil on PostgreSQL
	life      func() // ends the signs of life and waits for that; nil: not started

	mu      sync.Mutex
	ended   chan struct{}      // closed and replaced whenever a run ends here
	told    chan struct{}      // closed and replaced whenever a run is cancelled here
	trouble map[string]trouble // by run, since its last good slice
	working map[int64]int      // jobs that this process works on
}

type trouble struct {
	since time.Time
	count int
}

// New makes the job runner's tables and returns a runner that does not work yet;
// see Start. Without Start it can still queue runs for other processes. With a
// scheduler, nil = none, it also starts runs when they are due.
func New(ctx context.Context, s *store.Store, r Runner, due Scheduler, log *slog.Logger) (*Jobs, error) {
	return newJobs(ctx, s, r, due, log, usual)
}

func newJobs(ctx context.Context, s *store.Store, r Runner, due Scheduler, log *slog.Logger, t timing) (*Jobs, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Jobs{store: s, runner: r, scheduler: due, wakes: make(chan struct{}, 1), log: log, timing: t, ended: make(chan struct{}), told: make(chan struct{}), trouble: make(map[string]trouble), working: make(map[int64]int)}
	var err error
	if j.queue, err = newQueue(ctx, j); err != nil {
		return nil, fmt.Errorf("jobs: start River: %w", err)
	}
	return j, nil
}

// OnEnd has f called with each run that this process ended. Call it before Start.
func (j *Jobs) OnEnd(f func(lockstep.Run)) { j.onEnd = f }

// SetPause replaces the first pause after an error that may pass, which is doubled
// each time; usually 2 s. It is for tests, and is called before Start.
func (j *Jobs) SetPause(d time.Duration) { j.timing.firstPause = d }

// SetSleep replaces the pauses of runs by a function that lets the time pass. It is
// for tests, and is called before Start.
func (j *Jobs) SetSleep(sleep func(context.Context, time.Duration) error) { j.sleep = sleep }

// Start begins to work on queued runs, and continues those that a process left
// behind. On SQLite, which one process has to itself, that happens at once; on
// PostgreSQL the job of a process that was killed is taken over when it has shown no
// sign of life for 40 seconds. ctx is only for starting.
func (j *Jobs) Start(ctx context.Context) error {
	if j.store.Exclusive() {
		if err := j.queue.rescue(ctx); err != nil {
			return fmt.Errorf("jobs: take over: %w", err)
		}
	}
	live, err := j.store.LiveRuns(ctx)
	if err != nil {
		return err
	}
	for _, run := range live {
		// A run whose job is still there keeps it.
		if err := j.store.InTx(ctx, func(tx store.Tx) error { return j.carry(ctx, tx, run) }); err != nil {
			return fmt.Errorf("jobs: continue: %w", err)
		}
		if run.Status == lockstep.RunInProcess {
			j.log.Info("continuing a run", "run", run.ID, "type", run.Type, "account", run.Account)
		}
	}
	if !j.store.Exclusive() {
		if err := j.store.Beat(ctx, j.queue.id()); err != nil {
			return fmt.Errorf("jobs: start: %w", err)
		}
	}
	if err := j.queue.start(ctx); err != nil {
		return fmt.Errorf("jobs: start: %w", err)
	}
	j.live(context.WithoutCancel(ctx))
	return nil
}

// Stop takes no more work, lets slices end by themselves, and cancels those that
// have not ended after some 25 seconds or when ctx ends. Their runs stay in process
// and are continued by the next Start.
func (j *Jobs) Stop(ctx context.Context) error {
	if j.life != nil {
		defer j.life() // slices that are ending still need the signs of life
	}
	err := j.queue.stop(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return j.queue.stopNow(last)
}

// carry puts the job of a run into the queue; a job that is there already stays.
func (j *Jobs) carry(ctx context.Context, tx store.Tx, run lockstep.Run) error {
	job, err := j.queue.insert(ctx, tx, run)
	if err != nil {
		return err
	}
	return j.store.SetRunJobIn(ctx, tx, run.ID, job)
}

// Enqueue stores a new run and queues its job, both or neither. When the same work
// is queued already, that run is returned instead. CodeConflict, with the run that
// is in the way: a run of the same account, type and list is queued or in process in
// another mode. One that is in process in the same mode is returned and followed by
// another, see lockstep.Run.Again: however often it is asked for, by one.
func (j *Jobs) Enqueue(ctx context.Context, run lockstep.Run) (lockstep.Run, error) {
	for attempt := 1; ; attempt++ {
		var stored lockstep.Run
		err := j.store.InTx(ctx, func(tx store.Tx) (err error) {
			stored, err = j.EnqueueIn(ctx, tx, run)
			return err
		})
		// Somebody was faster between the look and the insert (PostgreSQL).
		if lockstep.CodeOf(err) == lockstep.CodeConflict && stored.Status == "" && attempt < 3 {
			continue
		}
		return stored, err
	}
}

// EnqueueIn is Enqueue within tx.
func (j *Jobs) EnqueueIn(ctx context.Context, tx store.Tx, run lockstep.Run) (lockstep.Run, error) {
	if run.Mode == "" {
		run.Mode = lockstep.ModeApply
	}
	live, err := j.store.LiveRunIn(ctx, tx, run.Account, run.Type, run.List)
	switch {
	case err == nil && live.Status == lockstep.RunQueued && live.Mode == run.Mode && live.Preview == run.Preview && !live.CancelRequested &&
		live.Undoes == run.Undoes && live.UndoRecord == run.UndoRecord && live.UndoField == run.UndoField:
		if !live.Scheduled || run.Scheduled {
			return live, nil
		}
		if live, err = j.store.SetUnscheduledIn(ctx, tx, live.ID); err != nil {
			return live, err
		}
		return live, j.hurry(ctx, tx, live.ID)
	case err == nil && live.Status == lockstep.RunInProcess && run.Mode == lockstep.ModeApply && live.Mode == run.Mode && run.Preview == "" && run.Undoes == "" && live.Undoes == "" &&
		!run.Scheduled && !live.CancelRequested:
		if live, err = j.store.RunAgainIn(ctx, tx, live.ID); err != nil {
			return live, err
		}
		return live, j.hurry(ctx, tx, live.ID)
	case err == nil:
		return live, &lockstep.Error{
			Code: lockstep.CodeConflict, Op: "jobs: enqueue",
			Msg:  fmt.Sprintf("Run %s of the same sync is %s.", live.ID, live.Status),
			Hint: "Wait until it has ended, or cancel it.",
		}
	case lockstep.CodeOf(err) != lockstep.CodeNotFound:
		return lockstep.Run{}, err
	}
	if run.Price, err = j.store.PriceIn(ctx, tx, &run); err != nil {
		return lockstep.Run{}, err
	}
	created, err := j.store.CreateRunIn(ctx, tx, run)
	if err != nil {
		return lockstep.Run{}, err
	}
	return created, j.carry(ctx, tx, created)
}

// hurry ends the wait of a run for the window of its schedule.
func (j *Jobs) hurry(ctx context.Context, tx store.Tx, run string) error {
	job, err := j.store.RunJobIn(ctx, tx, run)
	if err != nil || job == 0 {
		return err
	}
	return j.queue.hurry(ctx, tx, job)
}

// Cancel ends a run: at once when nobody works on it, otherwise after its current
// batch; the returned run tells which. CodeConflict when it has ended.
func (j *Jobs) Cancel(ctx context.Context, id string) (lockstep.Run, error) {
	var run lockstep.Run
	err := j.store.InTx(ctx, func(tx store.Tx) (err error) {
		if run, err = j.store.RequestCancelIn(ctx, tx, id); err != nil {
			return err
		}
		job, err := j.store.RunJobIn(ctx, tx, id)
		if err != nil {
			return err
		}
		if running, err := j.queue.running(ctx, tx, job); err != nil || running {
			return err // the worker sees the request
		}
		if err := j.queue.cancel(ctx, tx, job); err != nil {
			return err
		}
		run, err = j.store.EndRunIn(ctx, tx, id, lockstep.RunCancelled, "", "")
		return err
	})
	switch {
	case err == nil && run.Status.Ended():
		j.conclude(run)
	case err == nil:
		j.mu.Lock()
		close(j.told)
		j.told = make(chan struct{})
		j.mu.Unlock()
	}
	return run, err
}

// Wait returns a run once it has ended, whichever process works on it. Its error is
// about the waiting; how the run ended is in its status.
func (j *Jobs) Wait(ctx context.Context, id string) (lockstep.Run, error) {
	look := time.NewTicker(j.timing.watch)
	defer look.Stop()
	for {
		j.mu.Lock()
		ended := j.ended
		j.mu.Unlock()
		run, err := j.store.Run(ctx, id)
		if err != nil || run.Status.Ended() {
			return run, err
		}
		select {
		case <-ended:
		case <-look.C:
		case <-ctx.Done():
			return run, &lockstep.Error{Code: lockstep.CodeCancelled, Op: "jobs: wait", Msg: "The waiting was stopped; the run goes on.", Scope: lockstep.ScopeConnection, Err: context.Cause(ctx)}
		}
	}
}

// conclude tells everybody of a run that has ended here.
func (j *Jobs) conclude(run lockstep.Run) {
	j.announce(run.ID)
	j.Wake()
	if j.onEnd != nil {
		j.onEnd(run)
	}
}

// announce wakes those who wait for a run's end.
func (j *Jobs) announce(run string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.ended)
	j.ended = make(chan struct{})
	delete(j.trouble, run)
}

// isCancel reports whether River was asked, for example by an administrator of its
// queue, to cancel the job.
func isCancel(err error) bool {
	var c *rivertype.JobCancelError
	return errors.As(err, &c)
}
