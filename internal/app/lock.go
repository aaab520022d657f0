package app

import (
	"context"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// LockAccount keeps an email account and its organization from being written to,
// for a reason that people are shown. Opt-outs are still taken in.
func (a *App) LockAccount(ctx context.Context, id, reason string) (lockstep.EmailAccount, error) {
	reason = strings.TrimSpace(reason)
	if reason == "" {
		return lockstep.EmailAccount{}, invalid("reason", "a lock needs a reason", "say in a few words what is to be checked before anything is written again")
	}
	return a.setLock(ctx, id, reason)
}

// UnlockAccount lets an email account be written to again. Opt-outs that came in
// meanwhile are told by the next run of suppressions.
func (a *App) UnlockAccount(ctx context.Context, id string) (lockstep.EmailAccount, error) {
	return a.setLock(ctx, id, "")
}

func (a *App) setLock(ctx context.Context, id, reason string) (lockstep.EmailAccount, error) {
	acc, err := a.store.Account(ctx, id)
	if err != nil || acc.Locked == reason {
		return acc, err
	}
	acc.Locked = reason
	return a.saveAccount(ctx, acc)
}
