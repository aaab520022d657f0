package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// maxWords bounds a reason and a name that a person gives, in bytes.
const maxWords = 500

// words checks what a person says for the record.
func words(field, text, missing, hint string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return text, invalid(field, missing, hint)
	}
	if len(text) > maxWords {
		return text, invalid(field, fmt.Sprintf("the text has more than %d characters", maxWords), "say it shorter")
	}
	return text, nil
}

// LockAccount keeps an email account and its organization from being written to,
// for a reason that people are shown. Opt-outs are still taken in.
func (a *App) LockAccount(ctx context.Context, id, reason string) (lockstep.EmailAccount, error) {
	reason, err := words("reason", reason, "a lock needs a reason", "say in a few words what is to be checked before anything is written again")
	if err != nil {
		return lockstep.EmailAccount{}, err
	}
	return a.setLock(ctx, id, reason, "")
}

// UnlockAccount lets an email account be written to again; who did so and why is kept
// with the account. Opt-outs that came in meanwhile are told by the next run of
// suppressions. CodeConflict while the database is taken for a copy: Rearm comes first.
func (a *App) UnlockAccount(ctx context.Context, id, by, reason string) (lockstep.EmailAccount, error) {
	by, err := words("by", by, "an unlocking needs a name", "say who takes responsibility")
	if err != nil {
		return lockstep.EmailAccount{}, err
	}
	if reason, err = words("reason", reason, "an unlocking needs a reason", "say in a few words what was checked"); err != nil {
		return lockstep.EmailAccount{}, err
	}
	if err := a.refuseCopy(ctx, "unlock account"); err != nil {
		return lockstep.EmailAccount{}, err
	}
	return a.setLock(ctx, id, "", a.signed(by, reason))
}

// signed is what is kept of a decision.
func (a *App) signed(by, reason string) string {
	return fmt.Sprintf("%s by %s: %s", a.now().UTC().Format(time.RFC3339), by, reason)
}

func (a *App) setLock(ctx context.Context, id, reason, unlocked string) (lockstep.EmailAccount, error) {
	acc, err := a.store.Account(ctx, id)
	if err != nil || acc.Locked == reason {
		return acc, err
	}
	acc.Locked = reason
	if reason == "" {
		acc.Unlocked = unlocked
	}
	return a.store.SaveAccount(ctx, acc)
}
