package app

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Resubscription is what came of the wish to mail a suppressed address again.
type Resubscription struct {
	// State is "confirmed" when the platform mails the address again, "challenged"
	// when it asked the person to confirm, "refused" when it never will.
	State string `json:"state"`
	// Note says in words what happens next.
	Note string `json:"note"`
}

// Resubscribe asks the platform to mail a suppressed address again. proof says how
// it is known that the person wishes so; by is who vouches for it. Both go to the
// consent ledger before the platform hears of it. CodeInvalid without evidence;
// CodeConflict when the platform refuses.
func (a *App) Resubscribe(ctx context.Context, id, proof, by string) (Resubscription, error) {
	proof, err := evidence(proof)
	if err != nil {
		return Resubscription{}, err
	}
	r, err := a.restriction(ctx, id)
	if err != nil {
		return Resubscription{}, err
	}
	acc, err := a.store.Account(ctx, r.Account)
	if err != nil {
		return Resubscription{}, err
	}
	answer, err := a.engine.Resubscribe(ctx, a.store, acc, r, by, proof)
	if err != nil {
		return Resubscription{}, err
	}
	switch answer {
	case lockstep.ResubscribeDone:
		a.tellSoon(ctx, r.Account)
		return Resubscription{"confirmed", "the platform mails the address again; the CRM's records are opened by the next run of suppressions"}, nil
	case lockstep.ResubscribeChallenged:
		return Resubscription{"challenged", "the platform asked the person to confirm; until then nothing changes"}, nil
	}
	return Resubscription{}, &lockstep.Error{
		Code: lockstep.CodeConflict, Field: "id", Msg: "the platform will not mail this address again: it complained, bounced for good or is blocked by the platform itself",
		Hint: "only the platform's support can change that; the refusal is in the consent ledger",
	}
}
