package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/engine"
)

// UndoWindow is the age up to which a run can be undone.
const UndoWindow = 30 * 24 * time.Hour

// UndoRequest asks for a run to be reversed, in full or in part.
type UndoRequest struct {
	Run    string
	Record string // "TABLE/ID"; empty = all records
	Field  string // a data label or a CRM column; empty = all, memberships included
	Mode   lockstep.Mode
}

// UndoRun queues the undo of a run: itself a run, which can be previewed, applied and
// undone. It writes old values back where both sides are as the run left them. A run
// that cannot be undone is refused with CodeConflict and the reason.
func (a *App) UndoRun(ctx context.Context, r UndoRequest) (lockstep.Run, error) {
	target, err := a.store.Run(ctx, r.Run)
	if err != nil {
		return lockstep.Run{}, err
	}
	undo := lockstep.Run{Account: target.Account, Type: lockstep.SyncUndo, Mode: r.Mode, Undoes: target.ID, UndoField: r.Field}
	switch r.Mode {
	case "":
		undo.Mode = lockstep.ModeApply
	case lockstep.ModeApply, lockstep.ModePreview:
	default:
		return lockstep.Run{}, invalid("mode", fmt.Sprintf("%q is not a mode", r.Mode), "use apply or preview")
	}
	if r.Record != "" {
		ref, err := lockstep.ParseRef(r.Record)
		if err != nil {
			return lockstep.Run{}, err
		}
		undo.UndoRecord = ref.Path()
	}
	if err := a.undoable(ctx, target, undo); err != nil {
		return lockstep.Run{}, err
	}
	return a.jobs.Enqueue(ctx, undo)
}

// undoable says why a run cannot be undone, nil when it can.
func (a *App) undoable(ctx context.Context, target, undo lockstep.Run) error {
	refuse := func(hint, msg string, args ...any) error {
		return &lockstep.Error{Code: lockstep.CodeConflict, Op: "undo", Msg: fmt.Sprintf(msg, args...), Hint: hint}
	}
	switch {
	case target.Mode == lockstep.ModePreview:
		return refuse("undo the run that applied it", "run %s is a preview and wrote nothing", target.ID)
	case !target.Status.Ended():
		return refuse("wait until it has ended, or cancel it", "run %s is %s", target.ID, target.Status)
	case target.Type.Consent():
		return refuse("the person can opt in again", "run %s carried opt-outs, and an opt-out is never undone", target.ID)
	}
	totals, err := a.store.JournalTotals(ctx, target.ID)
	if err != nil {
		return err
	}
	c := target.Counts
	wrote := c.ContactsCreated + c.ContactsUpdated + c.RecordsCreated + c.RecordsUpdated + c.BookAdds + c.BookRemovals + c.ListAdds + c.ListRemovals
	switch old := a.now().Sub(target.Ended); {
	case old > UndoWindow:
		return refuse("set the values by hand", "run %s ended %d days ago; a run can be undone for %d days", target.ID, int(old.Hours()/24), int(UndoWindow.Hours()/24))
	case totals[lockstep.Planned]+totals[lockstep.Sent]+totals[lockstep.Unknown] > 0:
		return engine.OpenWork(target)
	case len(totals) == 0 && wrote > 0:
		return refuse("set the values by hand", "the journal of run %s is not kept any more", target.ID)
	case totals[lockstep.Acknowledged] == 0:
		return refuse("", "run %s wrote nothing, so there is nothing to undo", target.ID)
	}
	undos, err := a.store.Undos(ctx, target.ID)
	if err != nil {
		return err
	}
	for _, u := range undos {
		if u.Status != lockstep.RunCompleted && u.Status != lockstep.RunCompletedWithErrors || !covers(u, undo) {
			continue // one that was cut short may be done again: what it undid is left alone
		}
		back, err := a.undone(ctx, u)
		if err != nil {
			return err
		}
		if !back {
			return refuse("undo that run to bring it back", "run %s was undone by run %s at %s", target.ID, u.ID, u.Ended.UTC().Format(time.RFC3339))
		}
	}
	open, err := a.store.OpenBatches(ctx, target.Account)
	if err != nil {
		return err
	}
	for _, b := range open {
		owner, err := a.store.Run(ctx, b.Run)
		if err != nil {
			return err
		}
		if owner.Status.Ended() && (owner.Type == lockstep.SyncMarketingLists || owner.Type == lockstep.SyncAddressBooksIn || owner.Type == lockstep.SyncUndo) {
			return engine.OpenWork(owner)
		}
	}
	return nil
}

// covers reports whether an undo has done all that another one asks for.
func covers(done, asked lockstep.Run) bool {
	return (done.UndoRecord == "" || done.UndoRecord == asked.UndoRecord) && (done.UndoField == "" || done.UndoField == asked.UndoField)
}

// undone reports whether a run was reversed as a whole and not brought back since.
func (a *App) undone(ctx context.Context, run lockstep.Run) (bool, error) {
	u, err := a.UndoneBy(ctx, run.ID)
	return u.ID != "", err
}

// UndoneBy returns the run that reversed a run as a whole; its ID is empty when there
// is none, or when that one was itself undone.
func (a *App) UndoneBy(ctx context.Context, id string) (lockstep.Run, error) {
	undos, err := a.store.Undos(ctx, id)
	if err != nil {
		return lockstep.Run{}, err
	}
	for _, u := range slices.Backward(undos) {
		if u.UndoRecord != "" || u.UndoField != "" || u.Status != lockstep.RunCompleted && u.Status != lockstep.RunCompletedWithErrors {
			continue
		}
		back, err := a.undone(ctx, u)
		if err != nil || !back {
			return u, err
		}
	}
	return lockstep.Run{}, nil
}
