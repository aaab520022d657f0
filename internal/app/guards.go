package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// The bounds of the guards' settings.
const (
	maxGuardRows  = 1_000_000
	maxGuardFloor = 10_000
	maxBulkWindow = 7 * 24 * time.Hour
)

// GuardPatch changes how much one run of an account may do without being asked; nil
// stays. See lockstep.EmailAccount.
type GuardPatch struct {
	Percent, Rows, Floor *int
	// BulkUntil ends at most 7 days ahead; a time that has passed ends the window now.
	BulkUntil      *time.Time
	ConfirmChanges *bool
}

func (p *GuardPatch) apply(acc *lockstep.EmailAccount, now time.Time) error {
	var problems []error
	number := func(field string, v *int, most int, to *int) {
		switch {
		case v == nil:
		case *v < 1 || *v > most:
			problems = append(problems, invalid(field, fmt.Sprintf("the limit is between 1 and %d", most), ""))
		default:
			*to = *v
		}
	}
	number("guard_percent", p.Percent, 100, &acc.GuardPercent)
	number("guard_rows", p.Rows, maxGuardRows, &acc.GuardRows)
	number("guard_floor", p.Floor, maxGuardFloor, &acc.GuardFloor)
	if p.BulkUntil != nil {
		switch until := p.BulkUntil.UTC(); {
		case until.Sub(now) > maxBulkWindow:
			problems = append(problems, invalid("bulk_until", "a bulk window ends at most 7 days ahead", "open it shortly before the mass change"))
		case !until.After(now):
			acc.BulkUntil = time.Time{}
		default:
			acc.BulkUntil = until
		}
	}
	if p.ConfirmChanges != nil {
		acc.ConfirmChanges = *p.ConfirmChanges
	}
	return errors.Join(problems...)
}
