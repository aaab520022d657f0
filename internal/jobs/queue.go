package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

const (
	queueName    = "runs"
	consentQueue = "consent"
	// workers is how many runs one process works on at a time, and consentWorkers how
	// many of the consent lane beside them.
	workers        = 4
	consentWorkers = 2
	// migrateLock is the number of the PostgreSQL lock under which River's tables
	// are made: processes that start together must take turns.
	migrateLock = 0x4c6f636b73746570 // "Lockstep"
)

// queue is what Jobs needs of River, without the type of its transactions.
type queue interface {
	start(ctx context.Context) error
	stop(ctx context.Context) error
	stopNow(ctx context.Context) error
	// insert returns the id of the run's job, which may be one that was there.
	insert(ctx context.Context, tx store.Tx, run lockstep.Run) (int64, error)
	running(ctx context.Context, tx store.Tx, job int64) (bool, error)
	cancel(ctx context.Context, tx store.Tx, job int64) error
	// hurry ends the pause of a job that waits.
	hurry(ctx context.Context, tx store.Tx, job int64) error
	// wake has the schedules looked at now, unless somebody is at it.
	wake(ctx context.Context) (woken bool, err error)
	// hasten ends the pauses of jobs that wait for longer than any job is put aside: the
	// system's clock was set back since.
	hasten(ctx context.Context) error
	// rescue makes jobs that look running available again. Nobody may be working.
	rescue(ctx context.Context) error
	// id is the name under which this process works.
	id() string
	// claimed lists the jobs that look running.
	claimed(ctx context.Context) ([]claim, error)
	// abandon ends a claimed job within tx, unless somebody has it anew since.
	abandon(ctx context.Context, tx store.Tx, c claim) error
}

// claim is a job that a process works on, or worked on when it was lost.
type claim struct {
	job int64
	run string
	by  string
	at  time.Time
}

func newQueue(ctx context.Context, j *Jobs) (queue, error) {
	if db := j.store.SQLite(); db != nil {
		j.stir = newStir()
		return newRiver(ctx, j, newSQLiteDriver(db, j.stir, queueName, consentQueue, tickQueue), func(up func() error) error { return up() })
	}
	return newRiver(ctx, j, riverpgxv5.New(j.store.Postgres()), func(up func() error) error {
		return j.store.InTx(ctx, func(tx store.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrateLock)); err != nil {
				return err
			}
			return up()
		})
	})
}

type riverQueue[T any] struct {
	driver   riverdriver.Driver[T]
	client   *river.Client[T]
	stopping *atomic.Bool
	stir     *stir // nil: the database tells by itself
}

func newRiver[T any](ctx context.Context, j *Jobs, driver riverdriver.Driver[T], alone func(func() error) error) (queue, error) {
	stopping := new(atomic.Bool)
	log := slog.New(calm{j.log.Handler(), stopping})
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	err = alone(func() error {
		_, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	list := river.NewWorkers()
	if err := river.AddWorkerSafely(list, &worker{jobs: j}); err != nil {
		return nil, err
	}
	if err := river.AddWorkerSafely(list, &ticker{jobs: j}); err != nil {
		return nil, err
	}
	queues := map[string]river.QueueConfig{queueName: {MaxWorkers: workers}, consentQueue: {MaxWorkers: consentWorkers}}
	var periodic []*river.PeriodicJob
	if j.scheduler != nil {
		queues[tickQueue] = river.QueueConfig{MaxWorkers: 1}
		periodic = append(periodic, periodicTick())
	}
	poll := 250 * time.Millisecond
	if j.stir != nil {
		poll = askIdle // the listener says more often that there may be work
	}
	client, err := river.NewClient(driver, &river.Config{
		Logger:       log,
		Workers:      list,
		Queues:       queues,
		PeriodicJobs: periodic,
		// A job is usually fetched on a notification; the cooldown bounds how
		// soon after another, the interval how late when a notification is lost.
		FetchCooldown:     20 * time.Millisecond,
		FetchPollInterval: poll,
		JobTimeout:        -1, // River then takes over no job either
		SoftStopTimeout:   j.timing.softStop,
		// Our own errors are counted and bounded by Jobs, not by River.
		MaxAttempts: math.MaxInt16,
	})
	if err != nil {
		return nil, err
	}
	return &riverQueue[T]{driver, client, stopping, j.stir}, nil
}

func (q *riverQueue[T]) start(ctx context.Context) error {
	q.stopping.Store(false)
	// River would take the end of this context as a wish to stop.
	return q.client.Start(context.WithoutCancel(ctx))
}

func (q *riverQueue[T]) stop(ctx context.Context) error {
	q.stopping.Store(true)
	return q.client.Stop(ctx)
}

func (q *riverQueue[T]) stopNow(ctx context.Context) error { return q.client.StopAndCancel(ctx) }

func (q *riverQueue[T]) insert(ctx context.Context, tx store.Tx, run lockstep.Run) (int64, error) {
	defer q.stir.note()
	name := queueName
	if run.Type.Consent() {
		name = consentQueue
	}
	res, err := q.client.InsertTx(ctx, tx.Native().(T), runArgs{Run: run.ID}, &river.InsertOpts{
		Queue: name,
		UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
		}},
	})
	if err != nil {
		return 0, err
	}
	return res.Job.ID, nil
}

func (q *riverQueue[T]) running(ctx context.Context, tx store.Tx, job int64) (bool, error) {
	row, err := q.client.JobGetTx(ctx, tx.Native().(T), job)
	if errors.Is(err, rivertype.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return row.State == rivertype.JobStateRunning, nil
}

func (q *riverQueue[T]) cancel(ctx context.Context, tx store.Tx, job int64) error {
	defer q.stir.note()
	_, err := q.client.JobCancelTx(ctx, tx.Native().(T), job)
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil
	}
	return err
}

func (q *riverQueue[T]) hurry(ctx context.Context, tx store.Tx, job int64) error {
	defer q.stir.note()
	_, err := q.client.JobRetryTx(ctx, tx.Native().(T), job)
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil
	}
	return err
}

// longestPause is longer than any pause of a run, those that a server asked for included.
const longestPause = 15 * time.Minute

func (q *riverQueue[T]) hasten(ctx context.Context) error {
	defer q.stir.note()
	waiting, err := q.client.JobList(ctx, river.NewJobListParams().States(rivertype.JobStateAvailable, rivertype.JobStateScheduled, rivertype.JobStateRetryable).First(1000))
	if err != nil {
		return err
	}
	now := time.Now()
	for _, job := range waiting.Jobs {
		most := longestPause
		if job.Kind == (tickArgs{}).Kind() {
			most = 2 * tickAlone
		}
		if job.ScheduledAt.Sub(now) <= most {
			continue
		}
		if _, err := q.client.JobRetry(ctx, job.ID); err != nil && !errors.Is(err, rivertype.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (q *riverQueue[T]) id() string { return q.client.ID() }

func (q *riverQueue[T]) claimed(ctx context.Context) ([]claim, error) {
	const portion = 1000
	p := &riverdriver.JobGetStuckParams{Max: portion, StuckHorizon: time.Now().UTC().AddDate(1, 0, 0)}
	var all []claim
	for {
		jobs, err := q.driver.GetExecutor().JobGetStuck(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, job := range jobs {
			var args runArgs
			if job.AttemptedAt == nil || len(job.AttemptedBy) == 0 || json.Unmarshal(job.EncodedArgs, &args) != nil {
				continue
			}
			all = append(all, claim{job: job.ID, run: args.Run, by: job.AttemptedBy[len(job.AttemptedBy)-1], at: *job.AttemptedAt})
			p.AfterID = job.ID
		}
		if len(jobs) < portion {
			return all, nil
		}
	}
}

func (q *riverQueue[T]) abandon(ctx context.Context, tx store.Tx, c claim) error {
	now := time.Now().UTC()
	lost, err := json.Marshal(rivertype.AttemptError{At: now, Error: lostProcess})
	if err != nil {
		return err
	}
	_, err = q.driver.UnwrapExecutor(tx.Native().(T)).JobRescueMany(ctx, &riverdriver.JobRescueManyParams{
		ID: []int64{c.job}, Error: [][]byte{lost}, FinalizedAt: []*time.Time{&now}, ScheduledAt: []time.Time{now}, State: []string{string(rivertype.JobStateDiscarded)},
		StuckHorizon: c.at.Add(time.Microsecond), // a later attempt is somebody's who lives
	})
	return err
}

const lostProcess = "The process that worked on it is gone."

func (q *riverQueue[T]) rescue(ctx context.Context) error {
	const portion = 1000
	now := time.Now().UTC()
	// The clock may have been ahead when they began; nobody works on any of them.
	horizon := now.AddDate(1, 0, 0)
	lost, err := json.Marshal(rivertype.AttemptError{At: now, Error: lostProcess})
	if err != nil {
		return err
	}
	exec := q.driver.GetExecutor()
	for {
		stuck, err := exec.JobGetStuck(ctx, &riverdriver.JobGetStuckParams{Max: portion, StuckHorizon: horizon})
		if err != nil || len(stuck) == 0 {
			return err
		}
		p := &riverdriver.JobRescueManyParams{StuckHorizon: horizon}
		for _, job := range stuck {
			p.ID = append(p.ID, job.ID)
			p.Error = append(p.Error, lost)
			p.FinalizedAt = append(p.FinalizedAt, nil)
			p.ScheduledAt = append(p.ScheduledAt, now)
			p.State = append(p.State, string(rivertype.JobStateAvailable))
		}
		if _, err := exec.JobRescueMany(ctx, p); err != nil {
			return err
		}
	}
}

// calm lowers what River logs by one level: it warns of ordinary cancels and calls a slow
// database an error. What it was about to do when it was stopped, and could not, is the
// leader's of the next process, and worth a line to those alone who look for faults.
type calm struct {
	slog.Handler
	stopping *atomic.Bool
}

func lower(l slog.Level) slog.Level { return l - 4 }

// Enabled reports whether a record of a level, lowered, is wanted.
func (h calm) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lower(l))
}

// Handle passes a record on with its level lowered.
func (h calm) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	if h.stopping.Load() && cancelled(r) {
		if r.Level = slog.LevelDebug; !h.Handler.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// cancelled reports that a record tells of an error which is the end of a context. River
// logs errors as text.
func cancelled(r slog.Record) (is bool) {
	r.Attrs(func(a slog.Attr) bool {
		is = is || strings.Contains(a.Value.String(), context.Canceled.Error())
		return !is
	})
	return is
}

// WithAttrs and WithGroup keep the level lowered.
func (h calm) WithAttrs(a []slog.Attr) slog.Handler { return calm{h.Handler.WithAttrs(a), h.stopping} }

// WithGroup is like WithAttrs.
func (h calm) WithGroup(n string) slog.Handler { return calm{h.Handler.WithGroup(n), h.stopping} }
