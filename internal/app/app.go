// Package app is the running product: configuration becomes a store, adapters, an
// engine and jobs, and the use cases that web, API and command line share live
// here. Nobody imports it but those and end-to-end tests.
package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/jobs"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/telemetry"
)

// Config says where the data is and what the product may reach.
type Config struct {
	// DataDir keeps the embedded database and the master key. With DatabaseURL it
	// keeps the key alone, unless LOCKSTEP_MASTER_KEY is set.
	DataDir     string
	DatabaseURL string
	Log         *slog.Logger
	Now         func() time.Time
	// Ticks is a clock that nobody sets, see engine.Config; nil = Now.
	Ticks func() time.Time
	// AllowHosts are hosts, "name" or "name:port", that an administrator allows
	// although they are internal or not encrypted. The twins of a demo are.
	AllowHosts []string
	// Schedules has this process start the runs that are due. Of several processes on one
	// database one does at a time.
	Schedules bool
	// ImportRows, InFlight: see engine.Config.
	ImportRows, InFlight int
	// PageRows: see adapter.Env. For tests.
	PageRows int
	// RetryPause is the first pause of a run after an error that may pass; 0 takes
	// the default. For tests.
	RetryPause time.Duration
	// Sleep replaces every wait of a run: for a server that asked for a pause, for
	// a job, before another attempt; nil waits in real time. It must make Now
	// advance. For tests.
	Sleep func(context.Context, time.Duration) error
	// Jitter spreads waits, see adapter.Env; nil draws at random.
	Jitter func(n int64) int64
	// Transport sends the calls of the adapters; nil means guarded transports that
	// refuse internal addresses. Where it connects to is not checked any more, so
	// it is for tests and for a proxy that guards by itself.
	Transport http.RoundTripper
	// OnStep: see engine.Config. For tests.
	OnStep func(string)
}

// App is the running product.
type App struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	store    *store.Store
	adapters *adapter.Set
	engine   *engine.Engine
	jobs     *jobs.Jobs
	metrics  *metrics
	traces   *telemetry.Traces // nil = none

	// schemas are the organizations whose schema is being changed, and the webhooks.
	schemas sync.Map

	hooks knownHooks
	hints hints
	// remapped is told when mappings were changed.
	remapped chan struct{}

	stopSweep context.CancelFunc // under mu
	sweeping  sync.WaitGroup

	storing sync.Mutex // of the calls that were counted

	mu        sync.Mutex
	crms      map[string]openCRM
	platforms map[string]openPlatform
	callings  map[string]*calling // by the id of the organization or email account
}

// Open opens the store and prepares everything; Start begins to work on runs.
func Open(ctx context.Context, cfg Config) (_ *App, err error) {
	a := &App{cfg: cfg, log: cfg.Log, now: cfg.Now, crms: map[string]openCRM{}, platforms: map[string]openPlatform{}, callings: map[string]*calling{}}
	a.hints.waiting, a.hints.come = map[string]bool{}, make(chan struct{}, 1)
	a.remapped = make(chan struct{}, 1)
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.traces, err = telemetry.Open(ctx, a.log); err != nil {
		a.log.Warn("no traces are shown", "err", err)
	}
	a.log = telemetry.Logger(a.log, a.traces)
	defer func() {
		if err != nil {
			a.handOver(ctx)
		}
	}()
	keys, err := secret.Load(os.Getenv(secret.EnvKey), cfg.DataDir)
	if err != nil {
		return nil, err
	}
	o := store.Options{Log: a.log, Sealer: keys, Now: a.now}
	if cfg.DatabaseURL != "" {
		o.URL = cfg.DatabaseURL
	} else {
		o.Path = cfg.DataDir
	}
	if a.store, err = store.Open(ctx, o); err != nil {
		return nil, err
	}
	if err := a.arm(ctx); err != nil {
		return nil, errors.Join(err, a.store.Close())
	}
	a.metrics = newMetrics(a)
	a.adapters = adapter.NewSet(dynamics.Kind(), dotdigital.Kind())
	a.engine = engine.New(engine.Config{
		Store: a.store, Connector: connector{a}, Now: a.now, Ticks: a.cfg.Ticks, Log: a.log,
		ImportRows: cfg.ImportRows, InFlight: cfg.InFlight, OnStep: cfg.OnStep, Sleep: cfg.Sleep,
	})
	var due jobs.Scheduler
	if cfg.Schedules {
		due = scheduler{a}
	}
	if a.jobs, err = jobs.New(ctx, a.store, traced{a.engine, a}, due, a.log); err != nil {
		return nil, errors.Join(err, a.store.Close())
	}
	a.jobs.OnEnd(func(run lockstep.Run) {
		a.metrics.ended(&run)
		a.traces.Ended(run)
	})
	if cfg.RetryPause > 0 {
		a.jobs.SetPause(cfg.RetryPause)
	}
	if cfg.Sleep != nil {
		a.jobs.SetSleep(cfg.Sleep)
	}
	return a, nil
}

// Start begins to work on runs, and to delete what is older than the retention.
func (a *App) Start(ctx context.Context) error {
	if err := a.jobs.Start(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopSweep == nil {
		sweep, stop := context.WithCancel(context.WithoutCancel(ctx))
		a.stopSweep = stop
		a.sweeping.Go(func() { a.sweep(sweep) })
		a.sweeping.Go(func() { a.keepCalls(sweep) })
		a.sweeping.Go(func() { a.passOn(sweep) })
		a.sweeping.Go(func() { a.mendWebhooks(sweep) })
	}
	return nil
}

// WorkOff carries out every run that is queued or was left in process, in the
// calling goroutine; for a process in which Start is not called.
func (a *App) WorkOff(ctx context.Context) error { return a.jobs.WorkOff(ctx) }

// Stop lets running batches end and stops working; what is kept can still be read and
// changed. Close does it too.
func (a *App) Stop(ctx context.Context) error {
	a.mu.Lock()
	if a.stopSweep != nil {
		a.stopSweep()
	}
	a.mu.Unlock()
	a.sweeping.Wait()
	err := a.jobs.Stop(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := a.storeCalls(last); err != nil {
		a.log.Warn("the calls that were made last are not counted", "err", err)
	}
	return err
}

// Close lets running batches end, stops working and closes the store.
func (a *App) Close(ctx context.Context) error {
	defer a.handOver(ctx)
	return errors.Join(a.Stop(ctx), a.store.Close())
}

// handTime is how long the collector of traces may take for what is left at the end.
const handTime = 3 * time.Second

func (a *App) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handTime)
	defer cancel()
	if err := a.traces.Close(ctx); err != nil {
		a.log.Warn("the last traces could not be handed over", "err", err)
	}
}

// traced shows the slices of runs.
type traced struct {
	jobs.Runner
	a *App
}

// Slice implements jobs.Runner.
func (t traced) Slice(ctx context.Context, id string, budget time.Duration) (done bool, err error) {
	ctx = telemetry.WithRun(ctx, id)
	if t.a.traces == nil {
		return t.Runner.Slice(ctx, id, budget)
	}
	run, err := t.a.store.Run(ctx, id)
	if err != nil {
		return false, err
	}
	ctx, end := t.a.traces.Slice(ctx, run)
	defer func() { end(done, err) }()
	return t.Runner.Slice(ctx, id, budget)
}

// Ready reports whether the store answers.
func (a *App) Ready(ctx context.Context) error { return a.store.Ping(ctx) }

// Adapters returns the systems that can be connected.
func (a *App) Adapters() *adapter.Set { return a.adapters }

func invalid(field, msg, hint string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Field: field, Msg: msg, Hint: hint}
}
