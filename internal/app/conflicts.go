package app

import (
	"context"
	"fmt"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// ResolveConflict notes which side's value a person wants; the next run of
// marketing-lists writes it to both sides. An address is given to the record and its
// contact by the rules of any change of address. CodeConflict when it was decided
// already, or when it is about a field of a record that does not speak for its
// contact any more: what the contact says comes from another record then.
func (a *App) ResolveConflict(ctx context.Context, id, winner, by string) (lockstep.Conflict, error) {
	if winner != "crm" && winner != "platform" {
		return lockstep.Conflict{}, invalid("winner", fmt.Sprintf("%q is not a side", winner), "use crm or platform")
	}
	c, err := a.store.Conflict(ctx, id)
	if err != nil {
		return c, err
	}
	if !c.Resolved && c.Column != lockstep.EmailColumn {
		speaks, err := a.speaks(ctx, c.Account, c.Ref)
		if err != nil {
			return c, err
		}
		if !speaks {
			return c, &lockstep.Error{
				Code: lockstep.CodeConflict, Op: "resolve conflict",
				Msg:  fmt.Sprintf("The record %s shares its address with another one, which speaks for the contact since; nothing of this record is written to the contact.", c.Ref),
				Hint: "Edit the record that speaks for the contact (explain tells which), or give each record its own address.",
			}
		}
	}
	return a.store.ResolveConflict(ctx, id, winner, by)
}

// speaks reports whether a record is the one that its contact's fields come from. A
// record without a contact counts as one: nobody speaks in its place.
func (a *App) speaks(ctx context.Context, account string, ref lockstep.Ref) (bool, error) {
	speaks := true
	err := a.store.Links(ctx, account, 0, func(b lockstep.StoredBlob) error {
		return crosswalk.Decode(b.Payload, func(_, _ int, e crosswalk.Entry) error {
			if e.Ref == ref {
				speaks = e.Closed || e.Contact == "" || e.Master
			}
			return nil
		})
	})
	return speaks, err
}
