package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// SchemaProgress is what one call of InstallSchema or RemoveSchema did.
type SchemaProgress struct {
	// Taken are the steps that were taken; looks at keys that are being built are
	// left out.
	Taken []lockstep.SchemaStep `json:"taken"`
	// Left are the steps that are still to be taken: call again. Empty means that
	// all is done.
	Left []lockstep.SchemaStep `json:"left"`
	// Confirm confirms what is left of a removal.
	Confirm string `json:"confirm,omitempty"`
}

// errTimeUp ends a call between two steps.
var errTimeUp = errors.New("time is up")

// PlanSchema says what installing our tables and columns would add to an organization,
// by id or name. Nothing is written.
func (a *App) PlanSchema(ctx context.Context, which string) ([]lockstep.SchemaStep, error) {
	_, in, err := a.schemaInstaller(ctx, which)
	if err != nil {
		return nil, err
	}
	return in.PlanSchema(ctx)
}

// InstallSchema adds our tables and columns to an organization. It can be called
// again after anything; a limit above 0 ends it between two steps when the time has
// passed. CodeConflict when a person has to repair something first, or when the same
// is under way already.
func (a *App) InstallSchema(ctx context.Context, which string, limit time.Duration) (SchemaProgress, error) {
	return a.changeSchema(ctx, which, limit, func(in lockstep.SchemaInstaller, each func(lockstep.SchemaStep) error) error {
		return in.InstallSchema(ctx, each)
	}, lockstep.SchemaInstaller.PlanSchema)
}

// PlanSchemaRemoval says what removing our tables and columns would delete, and
// returns the word that confirms just that.
func (a *App) PlanSchemaRemoval(ctx context.Context, which string) (steps []lockstep.SchemaStep, confirm string, err error) {
	org, in, err := a.schemaInstaller(ctx, which)
	if err != nil {
		return nil, "", err
	}
	steps, err = in.PlanSchemaRemoval(ctx)
	return steps, confirmation(org, steps), err
}

// confirmation is made from what would be deleted, without the numbers of rows, which
// change all the time.
func confirmation(org lockstep.Organization, steps []lockstep.SchemaStep) string {
	h := sha256.New()
	_, _ = h.Write([]byte(org.Identity.ID))
	for _, s := range steps {
		_, _ = h.Write([]byte("\x00" + string(s.Action) + "\x00" + string(s.Kind) + "\x00" + s.Table + "\x00" + s.Name))
	}
	return hex.EncodeToString(h.Sum(nil)[:5])
}

// RemoveSchema deletes our tables and columns with everything in them. confirm is the
// word that PlanSchemaRemoval returned for what is there. limit as in InstallSchema;
// what is left then has a confirmation of its own.
func (a *App) RemoveSchema(ctx context.Context, which, confirm string, limit time.Duration) (SchemaProgress, error) {
	steps, want, err := a.PlanSchemaRemoval(ctx, which)
	if err != nil || len(steps) == 0 {
		return SchemaProgress{Taken: []lockstep.SchemaStep{}, Left: []lockstep.SchemaStep{}}, err
	}
	if confirm != want {
		return SchemaProgress{}, &lockstep.Error{
			Code: lockstep.CodeConflict, Field: "confirm", Msg: "this does not confirm what is there to be deleted",
			Hint: "look at the removal again and give the word that comes with it",
		}
	}
	done, err := a.changeSchema(ctx, which, limit, func(in lockstep.SchemaInstaller, each func(lockstep.SchemaStep) error) error {
		return in.RemoveSchema(ctx, each)
	}, lockstep.SchemaInstaller.PlanSchemaRemoval)
	if len(done.Left) > 0 {
		if org, oerr := a.Organization(ctx, which); oerr == nil {
			done.Confirm = confirmation(org, done.Left)
		}
	}
	return done, err
}

func (a *App) changeSchema(ctx context.Context, which string, limit time.Duration, do func(lockstep.SchemaInstaller, func(lockstep.SchemaStep) error) error, plan func(lockstep.SchemaInstaller, context.Context) ([]lockstep.SchemaStep, error)) (SchemaProgress, error) {
	done := SchemaProgress{Taken: []lockstep.SchemaStep{}, Left: []lockstep.SchemaStep{}}
	org, in, err := a.schemaInstaller(ctx, which)
	if err != nil {
		return done, err
	}
	if _, busy := a.schemas.LoadOrStore(org.ID, true); busy {
		return done, &lockstep.Error{Code: lockstep.CodeConflict, Msg: "the tables of this organization are being installed or removed already", Hint: "wait until that is over"}
	}
	defer a.schemas.Delete(org.ID)
	began := a.now()
	err = do(in, func(s lockstep.SchemaStep) error {
		if limit > 0 && a.now().Sub(began) >= limit {
			return errTimeUp
		}
		if s.Action != lockstep.SchemaWait {
			done.Taken = append(done.Taken, s)
		}
		return nil
	})
	if errors.Is(err, errTimeUp) {
		if done.Left, err = plan(in, ctx); done.Left == nil {
			done.Left = []lockstep.SchemaStep{}
		}
	}
	return done, err
}

// schemaInstaller opens an organization whose schema can be changed.
func (a *App) schemaInstaller(ctx context.Context, which string) (lockstep.Organization, lockstep.SchemaInstaller, error) {
	org, crm, err := a.sameOrganization(ctx, which)
	if err != nil {
		return org, nil, err
	}
	in, ok := crm.(lockstep.SchemaInstaller)
	if !ok {
		return org, nil, &lockstep.Error{Code: lockstep.CodeUnsupported, Msg: "tables cannot be added to this CRM", Scope: lockstep.ScopeConnection}
	}
	return org, in, nil
}

// sameOrganization opens an organization and makes sure that it is the one that was
// connected.
func (a *App) sameOrganization(ctx context.Context, which string) (lockstep.Organization, lockstep.CRM, error) {
	org, err := a.Organization(ctx, which)
	if err != nil {
		return org, nil, err
	}
	crm, err := a.crm(ctx, org)
	if err != nil {
		return org, nil, err
	}
	who, err := crm.Identity(ctx)
	if err != nil {
		return org, nil, err
	}
	if who.ID != org.Identity.ID {
		return org, nil, anotherAnswers("organization", org.Identity.Name, who.Name)
	}
	return org, crm, nil
}

// RefreshMetadata queues a run that reads an organization's tables anew, for one of
// its accounts; the answer is empty when it has none, or when such a run waits already.
func (a *App) RefreshMetadata(ctx context.Context, which string) (lockstep.Run, error) {
	org, err := a.Organization(ctx, which)
	if err != nil {
		return lockstep.Run{}, err
	}
	accounts, err := a.store.Accounts(ctx, org.ID)
	if err != nil || len(accounts) == 0 {
		return lockstep.Run{}, err
	}
	i := max(slices.IndexFunc(accounts, func(acc lockstep.EmailAccount) bool { return acc.Default }), 0)
	run, err := a.StartRun(ctx, RunRequest{Account: accounts[i].ID, Type: lockstep.SyncCRMMetadata})
	if lockstep.CodeOf(err) == lockstep.CodeConflict {
		return lockstep.Run{}, nil
	}
	return run, err
}
