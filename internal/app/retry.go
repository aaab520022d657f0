package app

import (
	"context"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/engine"
)

// Waiting returns the latest findings about an account's records that a side did not take
// and that are tried again, in the order of their ids; after is the id of the last one
// seen.
func (a *App) Waiting(ctx context.Context, account, after string, limit int) ([]lockstep.Finding, error) {
	return a.store.Waiting(ctx, account, after, limit)
}

// RetryFinding tries again what a finding is about: it starts a run of the sync that met
// it, which looks at the record whether it changed or not. CodeNotFound; CodeConflict for
// what an undo did not take back, and when the run cannot begin.
func (a *App) RetryFinding(ctx context.Context, id string) (lockstep.Run, error) {
	f, err := a.store.Finding(ctx, id)
	if err != nil {
		return lockstep.Run{}, err
	}
	met, err := a.store.Run(ctx, f.Run)
	if err != nil {
		return lockstep.Run{}, err
	}
	r := RunRequest{Account: met.Account, Type: met.Type, List: met.List}
	switch met.Type {
	case lockstep.SyncUndo:
		return lockstep.Run{}, &lockstep.Error{Code: lockstep.CodeConflict, Op: "retry", Msg: "an undo found this", Hint: "undo the run again: what was not taken back then is tried once more"}
	case lockstep.SyncMarketingLists, lockstep.SyncAddressBooksIn:
		r.Type = lockstep.SyncMarketingLists
		if slices.Contains(engine.MemberTables, f.Table) && !f.Record.IsZero() {
			if err := a.store.RetryNow(ctx, f); err != nil {
				return lockstep.Run{}, err
			}
		}
	}
	return a.StartRun(ctx, r)
}
