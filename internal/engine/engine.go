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
	"fmt"
	"log/slog"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Store is what the engine keeps and reads.
type Store interface {
	Run(ctx context.Context, id string) (lockstep.Run, error)
	// SetRunStatus moves a run on; errMsg and hint explain RunFailed.
	SetRunStatus(ctx context.Context, id string, status lockstep.RunStatus, errMsg, hint string, at time.Time) error
	Organization(ctx context.Context, id string) (lockstep.Organization, error)
	EmailAccount(ctx context.Context, id string) (lockstep.EmailAccount, error)
	ListSettings(ctx context.Context, account string) ([]lockstep.ListSettings, error)
	DataLabels(ctx context.Context, account string) ([]lockstep.DataLabel, error)
	DataMappings(ctx context.Context, account string) ([]lockstep.DataMapping, error)
	Tables(ctx context.Context, organization string) ([]lockstep.Table, error)
	SaveTables(ctx context.Context, organization string, tables []lockstep.Table) error
	Cursor(ctx context.Context, account, name string) (lockstep.Cursor, error)

	// Plan stores a batch before its call and returns its id.
	Plan(ctx context.Context, b lockstep.Batch) (int64, error)
	MarkSent(ctx context.Context, batch int64, job lockstep.JobID) error
	// OpenBatches returns the account's batches that were planned by an applying
	// run or sent and whose end is not known.
	OpenBatches(ctx context.Context, account string) ([]lockstep.Batch, error)
	// PlannedBatches returns a preview's batches with an id above after.
	PlannedBatches(ctx context.Context, run string, after int64, limit int) ([]lockstep.Batch, error)
	Commit(ctx context.Context, c lockstep.Commit) error

	Links(ctx context.Context, account string, after int64, each func(lockstep.StoredBlob) error) error
	LinkRanges(ctx context.Context, ranges []lockstep.BlobRange) ([][]byte, error)
	Members(ctx context.Context, list string, each func(lockstep.StoredBlob) error) error

	// Resolutions returns conflicts that a person decided and that no run has
	// carried out yet.
	Resolutions(ctx context.Context, account string) ([]lockstep.Conflict, error)
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
	// OnStep, when set, is called just before and just after every durable or
	// network step with its name. Tests stop the process there.
	OnStep func(step string)
}

// Engine carries out runs. Safe for concurrent use by several runs of different
// accounts.
type Engine struct {
	Config
	cache linkCache
}

// New returns an engine.
func New(c Config) *Engine {
	if c.Now == nil {
		c.Now = time.Now
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
	return &Engine{Config: c}
}

func (e *Engine) step(name string) {
	if e.OnStep != nil {
		e.OnStep(name)
	}
}

// errYield ends a slice early: the budget is used up, the rest is for the next one.
var errYield = errors.New("slice used up")

// Slice works on a run for about budget and reports whether it has ended. A
// returned error means "try again" (its Code and After say when): the run is
// still in process. Failures that trying again cannot mend end the run instead.
func (e *Engine) Slice(ctx context.Context, runID string, budget time.Duration) (done bool, err error) {
	run, err := e.Store.Run(ctx, runID)
	if err != nil {
		return false, err
	}
	if run.Status.Ended() {
		return true, nil
	}
	if run.CancelRequested {
		return true, e.end(ctx, run, lockstep.RunCancelled, nil)
	}
	if run.Status == lockstep.RunQueued {
		e.step("run.start")
		if err := e.Store.SetRunStatus(ctx, run.ID, lockstep.RunInProcess, "", "", e.Now()); err != nil {
			return false, err
		}
		run.Status = lockstep.RunInProcess
	}
	s, err := e.open(ctx, run, e.Now().Add(budget))
	if err == nil {
		err = s.work()
	}
	var final lockstep.RunStatus
	switch {
	case err == nil:
		final = lockstep.RunCompleted
		if run.Mode == lockstep.ModePreview {
			final = lockstep.RunPreviewed
		} else if s.totals().Findings > 0 || s.totals().Rejected > 0 {
			final = lockstep.RunCompletedWithErrors
		}
	case errors.Is(err, errYield):
		return false, nil
	case ctx.Err() != nil: // shutdown: the next process goes on from here
		return false, ctx.Err()
	case lockstep.CodeOf(err) == lockstep.CodeCancelled:
		final, err = lockstep.RunCancelled, nil
	case transient(err):
		e.Log.WarnContext(ctx, "run interrupted, will go on", "run_id", run.ID, "type", run.Type, "error", publicError(err))
		return false, err
	default:
		final = lockstep.RunFailed
	}
	if serr := s.saveCalls(); serr != nil && err == nil {
		return false, serr
	}
	return true, e.end(ctx, run, final, err)
}

func transient(err error) bool {
	switch lockstep.CodeOf(err) {
	case lockstep.CodeThrottled, lockstep.CodeUnavailable:
		return true
	case lockstep.CodeExpired: // the cursor was forgotten; the next slice reads in full
		return true
	}
	return false
}

func (e *Engine) end(ctx context.Context, run lockstep.Run, status lockstep.RunStatus, cause error) error {
	e.step("run.end")
	msg, hint := "", ""
	if cause != nil {
		le := lockstep.AsError(cause)
		msg, hint = le.Msg, le.Hint
		if le.Op != "" {
			msg = le.Op + ": " + msg
		}
		e.Log.ErrorContext(ctx, "run failed", "run_id", run.ID, "type", run.Type, "code", le.Code, "error", publicError(cause))
	}
	return e.Store.SetRunStatus(ctx, run.ID, status, msg, hint, e.Now())
}

// publicError is what may be logged of an error: an *lockstep.Error holds no
// personal data; anything else is named by its type only.
func publicError(err error) string {
	var le *lockstep.Error
	if errors.As(err, &le) {
		return le.Error()
	}
	return fmt.Sprintf("%T", err)
}
