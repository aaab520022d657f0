// Package engine carries out one run of one sync: feeds → link → merge → journal
// → write → acknowledge → cursor. It knows the two ports and the pure packages
// and nothing of any vendor, database or web page.
//
// A run is worked in slices, so that a deploy or a crash costs one slice: each
// slice opens a session, goes through the stages of the sync type from the
// beginning and finds done work done. What makes that cheap is that everything a
// slice achieved is stored in the same transaction as the mark of how far it came.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Store is what the engine keeps and reads.
type Store interface {
	Run(ctx context.Context, id string) (lockstep.Run, error)
	CancelRequested(ctx context.Context, id string) (bool, error)

	Organization(ctx context.Context, id string) (lockstep.Organization, error)
	Account(ctx context.Context, id string) (lockstep.EmailAccount, error)
	// LockAccount keeps the account from being written to until a person unlocks it.
	LockAccount(ctx context.Context, id, reason string) error
	Lists(ctx context.Context, account string) ([]lockstep.ListSettings, error)
	Labels(ctx context.Context, account string) ([]lockstep.DataLabel, error)
	Mappings(ctx context.Context, account string) ([]lockstep.DataMapping, error)
	Tables(ctx context.Context, organization string) ([]lockstep.Table, error)
	SaveTables(ctx context.Context, organization string, tables []lockstep.Table) error
	Cursor(ctx context.Context, account, name string) (lockstep.Cursor, error)

	// Plan stores a batch before its call and returns its id.
	Plan(ctx context.Context, b lockstep.Batch) (int64, error)
	MarkSent(ctx context.Context, batch int64, job lockstep.JobID) error
	// OpenBatches returns the account's batches that were planned by an applying
	// run or sent and whose end is not known.
	OpenBatches(ctx context.Context, account string) ([]lockstep.Batch, error)
	// BatchesBelow returns a run's ended batches with ids below before, newest first;
	// 0 begins with the newest.
	BatchesBelow(ctx context.Context, run string, before int64, limit int) ([]lockstep.Batch, error)
	// Progress returns what Commit.Progress stored of a run last; nil = nothing.
	Progress(ctx context.Context, run string) ([]byte, error)
	// PlannedBatches returns a preview's batches with an id above after.
	PlannedBatches(ctx context.Context, run string, after int64, limit int) ([]lockstep.Batch, error)
	Commit(ctx context.Context, c lockstep.Commit) error

	Links(ctx context.Context, account string, after int64, each func(lockstep.StoredBlob) error) error
	LinkRanges(ctx context.Context, ranges []lockstep.BlobRange) ([][]byte, error)
	Members(ctx context.Context, list string, each func(lockstep.StoredBlob) error) error

	ConsentStore

	// Retries returns the records that a side did not take and that are tried again.
	Retries(ctx context.Context, account string) ([]lockstep.Retry, error)

	// ResolvedConflicts returns conflicts that a person decided after a time.
	ResolvedConflicts(ctx context.Context, account string, after time.Time) ([]lockstep.Conflict, error)
}

// Connector opens the two sides of an email account.
type Connector interface {
	CRM(ctx context.Context, org lockstep.Organization) (lockstep.CRM, error)
	Platform(ctx context.Context, account lockstep.EmailAccount) (lockstep.Platform, error)
}

// Config is what an Engine is made of. Zero sizes take the defaults.
type Config struct {
	Store     Store
	Connector Connector
	Now       func() time.Time
	Log       *slog.Logger
	// ImportRows is the most contacts in one import; default 10,000. An import is
	// also one journal record and one unit of retry.
	ImportRows int
	// InFlight is how many imports may be under way at once; default 2.
	InFlight int
	// FullMembers is the age at which a static list's members are read in full
	// although nothing hints at a change; default 24 hours.
	FullMembers time.Duration
	// Ticks is a clock that nobody sets, by which the time of a slice is measured. By
	// default it is Now: readings of the system's clock know how far they are apart even
	// when it is set between them.
	Ticks func() time.Time
	// Sleep waits between two attempts of a call; nil waits in real time.
	Sleep func(context.Context, time.Duration) error
	// OnStep, when set, is called just before and just after every durable or
	// network step with its name. Tests stop the process there.
	OnStep func(step string)
}

// Engine carries out runs. Safe for concurrent use by several runs of different
// accounts.
type Engine struct {
	Config
	cache    linkCache
	sentinel sentinel
}

// New returns an engine.
func New(c Config) *Engine {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ticks == nil {
		c.Ticks = c.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ImportRows == 0 {
		c.ImportRows = 10_000
	}
	if c.InFlight == 0 {
		c.InFlight = 2
	}
	if c.FullMembers == 0 {
		c.FullMembers = 24 * time.Hour
	}
	if c.Sleep == nil {
		c.Sleep = pause
	}
	return &Engine{Config: c}
}

func (e *Engine) step(name string) {
	if e.OnStep != nil {
		e.OnStep(name)
	}
}

// errYield ends a slice early: the budget is used up, the rest is for the next one.
var errYield = errors.New("slice used up")

// Slice works on a run for about budget and reports whether nothing is left to do.
// ctx carries the store's right to write to the run. An error with CodeThrottled or
// CodeUnavailable may pass: the next slice goes on from what is stored. Any other
// ends the run; what was acknowledged before stays.
func (e *Engine) Slice(ctx context.Context, runID string, budget time.Duration) (done bool, err error) {
	run, err := e.Store.Run(ctx, runID)
	if err != nil {
		return false, err
	}
	e.step("run.start")
	s, err := e.open(ctx, run, budget)
	if err == nil {
		err = s.work()
	}
	if errors.Is(err, errYield) {
		err = nil
	} else if err == nil {
		done = true
	}
	if err != nil {
		e.sentinel.forget(run.Account) // perhaps another system answers
	}
	if serr := s.saveCalls(); err == nil {
		err = serr
	}
	e.step("run.end")
	return done && err == nil, err
}

// transient reports an error that may pass by itself.
func transient(err error) bool {
	c := lockstep.CodeOf(err)
	return c == lockstep.CodeThrottled || c == lockstep.CodeUnavailable
}
