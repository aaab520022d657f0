package app

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// A database that was copied or restored elsewhere must not act: it knows last week's
// people and would mail, remove and overwrite in the name of the original. So the place
// of the database has a mark that does not travel with it, which is compared at start:
// a random id in a file beside an embedded database, and what PostgreSQL says of its
// cluster and database.

const (
	markFile    = "instance"
	markSetting = "instance"
	armSetting  = "instance.rearmed"

	copyReason = "this database is a copy of the one that was connected, or was restored in another place; nothing is written until it is re-armed"
	rearmHint  = "make sure that the original does not run any more, then re-arm this one with lockstep rearm --by NAME"
)

// place returns the mark of where the database is, and makes one where there is none
// and may is set.
func (a *App) place(ctx context.Context, may bool) (string, error) {
	if a.cfg.DatabaseURL != "" {
		return a.store.Place(ctx)
	}
	path := filepath.Join(a.cfg.DataDir, markFile)
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		return strings.TrimSpace(string(text)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", &lockstep.Error{Code: lockstep.CodeUnavailable, Op: "read the instance mark", Msg: "the file " + markFile + " in the data folder cannot be read", Hint: "check its permissions", Err: err}
	case !may:
		return "", nil
	}
	mark := strings.ToLower(rand.Text())
	if err := os.WriteFile(path, []byte(mark+"\n"), 0o600); err != nil {
		return "", &lockstep.Error{Code: lockstep.CodeUnavailable, Op: "write the instance mark", Msg: "the file " + markFile + " cannot be made in the data folder", Hint: "check the folder's permissions", Err: err}
	}
	return mark, nil
}

// isCopy reports whether the database is in another place than it was armed in.
func (a *App) isCopy(ctx context.Context) (bool, error) {
	armed, err := a.store.Setting(ctx, markSetting)
	if err != nil || armed == "" {
		return false, err
	}
	here, err := a.place(ctx, false)
	return here != armed, err
}

// refuseCopy is the refusal of what only the original may do.
func (a *App) refuseCopy(ctx context.Context, op string) error {
	copied, err := a.isCopy(ctx)
	if err == nil && copied {
		err = &lockstep.Error{Code: lockstep.CodeConflict, Op: op, Msg: copyReason, Hint: rearmHint}
	}
	return err
}

// arm compares the place of the database with the one that it was armed in and locks
// every account when it is another one. A database without a mark takes this place's.
func (a *App) arm(ctx context.Context) error {
	armed, err := a.store.Setting(ctx, markSetting)
	if err != nil {
		return err
	}
	if armed == "" {
		here, err := a.place(ctx, true)
		if err != nil {
			return err
		}
		return a.store.SetSetting(ctx, markSetting, here)
	}
	copied, err := a.isCopy(ctx)
	if err != nil || !copied {
		return err
	}
	a.log.Error("the database is a copy; every account is locked", "hint", rearmHint)
	accounts, err := a.store.Accounts(ctx, "")
	if err != nil {
		return err
	}
	for _, acc := range accounts {
		if err := a.store.LockAccount(ctx, acc.ID, copyReason); err != nil {
			return err
		}
	}
	return nil
}

// Rearm makes this the place of the database and unlocks the accounts that were locked
// because it was another one. Accounts that are locked for another reason stay so.
// Without a copy it changes nothing. It returns the unlocked accounts.
func (a *App) Rearm(ctx context.Context, by string) ([]lockstep.EmailAccount, error) {
	by, err := words("by", by, "re-arming needs a name", "say who takes responsibility")
	if err != nil {
		return nil, err
	}
	copied, err := a.isCopy(ctx)
	if err != nil {
		return nil, err
	}
	note := a.signed(by, "re-armed")
	if copied {
		here, err := a.place(ctx, true)
		if err != nil {
			return nil, err
		}
		if err := a.store.SetSetting(ctx, armSetting, note); err != nil {
			return nil, err
		}
		if err := a.store.SetSetting(ctx, markSetting, here); err != nil {
			return nil, err
		}
	}
	accounts, err := a.store.Accounts(ctx, "")
	if err != nil {
		return nil, err
	}
	unlocked := []lockstep.EmailAccount{}
	for _, acc := range accounts {
		if acc.Locked != copyReason {
			continue
		}
		if acc, err = a.setLock(ctx, acc.ID, "", note); err != nil {
			return nil, err
		}
		unlocked = append(unlocked, acc)
	}
	return unlocked, nil
}
