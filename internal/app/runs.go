package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// RunRequest asks for one run.
type RunRequest struct {
	Account string // id
	Type    lockstep.SyncType
	List    string // list settings id; empty = all lists that are due
	Mode    lockstep.Mode
	preview string
	by      string
}

// StartRun queues a run. When the same one is queued already that is returned, and when
// it is in process, with the id of the one that follows it: see lockstep.Run.Again.
// CodeConflict when it is queued or in process in another mode.
func (a *App) StartRun(ctx context.Context, r RunRequest) (lockstep.Run, error) {
	if r.Mode == "" {
		r.Mode = lockstep.ModeApply
	}
	switch {
	case !slices.Contains(lockstep.SyncTypes, r.Type):
		return lockstep.Run{}, unknownType(r.Type)
	case r.Mode != lockstep.ModeApply && r.Mode != lockstep.ModePreview:
		return lockstep.Run{}, invalid("mode", fmt.Sprintf("%q is not a mode", r.Mode), "use apply or preview")
	case r.List != "" && r.Type != lockstep.SyncMarketingLists && r.Type != lockstep.SyncAddressBooksIn:
		return lockstep.Run{}, invalid("list", fmt.Sprintf("%s is not about single lists", r.Type), "leave the list out")
	}
	if _, err := a.store.Account(ctx, r.Account); err != nil {
		return lockstep.Run{}, err
	}
	if r.List != "" {
		l, err := a.store.List(ctx, r.List)
		if err != nil {
			return lockstep.Run{}, err
		}
		if l.Account != r.Account {
			return lockstep.Run{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "list", Msg: "the list belongs to another account"}
		}
		if !l.Activated {
			return lockstep.Run{}, invalid("list", fmt.Sprintf("the list %q is not activated for email", l.Name), "activate it first")
		}
	}
	return a.jobs.Enqueue(ctx, lockstep.Run{Account: r.Account, Type: r.Type, List: r.List, Mode: r.Mode, Preview: r.preview, ApprovedBy: r.by})
}

func unknownType(t lockstep.SyncType) error {
	return invalid("type", fmt.Sprintf("%.40q is not a sync type of this version", t), fmt.Sprintf("use one of %v", lockstep.SyncTypes))
}

// ApplyPreview queues a run that writes exactly what a preview showed, and no guard
// holds it back: by, who is kept with the run, has seen the changes.
func (a *App) ApplyPreview(ctx context.Context, id, by string) (lockstep.Run, error) {
	by, err := words("by", by, "applying a preview needs a name", "say who takes responsibility")
	if err != nil {
		return lockstep.Run{}, err
	}
	p, err := a.store.Run(ctx, id)
	if err != nil {
		return p, err
	}
	if p.Status != lockstep.RunPreviewed {
		return p, &lockstep.Error{Code: lockstep.CodeConflict, Msg: fmt.Sprintf("the run is %s, not a finished preview", p.Status), Hint: "start a preview and apply it once it has ended"}
	}
	if p.Type == lockstep.SyncUndo {
		target, err := a.store.Run(ctx, p.Undoes)
		if err != nil {
			return lockstep.Run{}, err
		}
		run := lockstep.Run{Account: p.Account, Type: p.Type, Mode: lockstep.ModeApply, Preview: p.ID, ApprovedBy: by, Undoes: p.Undoes, UndoRecord: p.UndoRecord, UndoField: p.UndoField}
		if err := a.undoable(ctx, target, run); err != nil {
			return lockstep.Run{}, err
		}
		return a.jobs.Enqueue(ctx, run)
	}
	return a.StartRun(ctx, RunRequest{Account: p.Account, Type: p.Type, List: p.List, Mode: lockstep.ModeApply, preview: p.ID, by: by})
}

// RunToEnd starts a run and waits for its end. A failed run is an error.
func (a *App) RunToEnd(ctx context.Context, r RunRequest) (lockstep.Run, error) {
	run, err := a.StartRun(ctx, r)
	if err != nil {
		return run, err
	}
	ended, err := a.Wait(ctx, run.ID)
	if run.Again == "" {
		return ended, err
	}
	again, err := a.Wait(ctx, run.Again) // it was under way when it was asked for
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return ended, nil // and was cancelled
	}
	return again, err
}

// Wait waits for a run's end. A failed run is an error.
func (a *App) Wait(ctx context.Context, id string) (lockstep.Run, error) {
	run, err := a.jobs.Wait(ctx, id)
	if err == nil && run.Status == lockstep.RunFailed {
		err = &lockstep.Error{Code: cmp.Or(run.Code, lockstep.CodeUnavailable), Msg: run.Error, Hint: run.Hint}
	}
	return run, err
}

// RunFilter chooses runs; zero fields choose all.
type RunFilter = store.RunFilter

// Runs returns runs, newest first.
func (a *App) Runs(ctx context.Context, f RunFilter) ([]lockstep.Run, error) {
	return a.store.Runs(ctx, f)
}

// Run returns one run.
func (a *App) Run(ctx context.Context, id string) (lockstep.Run, error) { return a.store.Run(ctx, id) }

// CancelRun asks a run to end after its current batch.
func (a *App) CancelRun(ctx context.Context, id string) (lockstep.Run, error) {
	return a.jobs.Cancel(ctx, id)
}

// ShownChange is one change of a run with its time.
type ShownChange struct {
	ID string `json:"id"`
	lockstep.Change
	At time.Time `json:"at"`
}

// Changes returns a run's changes from the journal, a batch or more at a time;
// next continues, 0 = the end.
func (a *App) Changes(ctx context.Context, run string, after int64, atLeast int) (changes []ShownChange, next int64, err error) {
	if _, err := a.store.Run(ctx, run); err != nil {
		return nil, 0, err
	}
	changes = []ShownChange{}
	for len(changes) < atLeast {
		batches, err := a.store.Batches(ctx, run, after, 4)
		if err != nil {
			return nil, 0, err
		}
		if len(batches) == 0 {
			return changes, 0, nil
		}
		for _, b := range batches {
			at := b.Ended
			if at.IsZero() {
				at = b.Planned
			}
			n := 0
			err := journal.Decode(b.Payload, func(c lockstep.Change) error {
				n++
				changes = append(changes, ShownChange{ID: fmt.Sprintf("%d.%d", b.ID, n), Change: c, At: at})
				return nil
			})
			if err != nil {
				return nil, 0, err
			}
			after = b.ID
			if len(changes) >= atLeast {
				break
			}
		}
	}
	return changes, after, nil
}

// Findings returns a run's findings; after is the id of the last one seen.
func (a *App) Findings(ctx context.Context, run, after string, limit int) ([]lockstep.Finding, error) {
	if _, err := a.store.Run(ctx, run); err != nil {
		return nil, err
	}
	return a.store.Findings(ctx, run, after, limit)
}

// ConflictFilter chooses conflicts; zero fields choose all.
type ConflictFilter = store.ConflictFilter

// Conflicts returns edits that were made on both sides, newest first.
func (a *App) Conflicts(ctx context.Context, f ConflictFilter) ([]lockstep.Conflict, error) {
	return a.store.Conflicts(ctx, f)
}
