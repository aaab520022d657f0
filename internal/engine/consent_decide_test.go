package engine

import (
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

func TestWeigh(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 5, 3, 9, 0, s, 0, time.UTC) }
	listed := func(reason lockstep.Standing, s int) statement {
		return statement{scope: lockstep.ScopeAccount, system: lockstep.ConsentPlatform, reason: reason, at: at(s)}
	}
	row := func(s, edited int) statement {
		return statement{
			scope: lockstep.ScopeAccount, system: lockstep.ConsentCRM, reason: lockstep.Suppressed, ref: lockstep.Ref{Table: lockstep.SuppressionTable},
			at: at(s), edited: at(edited),
		}
	}
	flag := func(scope lockstep.ConsentScope, s int) statement {
		return statement{scope: scope, system: lockstep.ConsentCRM, ref: lockstep.Ref{Table: "contact"}, at: at(s)}
	}
	told := map[string]time.Time{toldPlatform: at(59)}
	heard := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentPlatform, Reason: lockstep.Unsubscribed, At: at(10), Listed: at(10), Told: told}
	entered := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentCRM, Reason: lockstep.Suppressed, At: at(10)}
	blocked := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentCRM, Reason: lockstep.Suppressed, At: at(10), Told: told}
	echoed := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentCRM, Reason: lockstep.Suppressed, At: at(10), Told: told, Listed: at(20)}
	back := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentPlatform, Reason: lockstep.Unsubscribed, At: at(10), Listed: at(10), Told: told, Released: at(30)}
	handedOn := &lockstep.Restriction{Scope: lockstep.ScopeAccount, System: lockstep.ConsentPlatform, Origin: "another", Reason: lockstep.Unsubscribed, At: at(40), Told: told}
	closed := &lockstep.Restriction{Scope: lockstep.ScopeBulk, System: lockstep.ConsentCRM, At: at(10)}

	for _, x := range []struct {
		name  string
		r     *lockstep.Restriction
		st    statement
		noted bool
		back  time.Time
		want  word
	}{
		{"an unsubscription", nil, listed(lockstep.Unsubscribed, 10), false, time.Time{}, saidAnew},
		{"it is read again", heard, listed(lockstep.Unsubscribed, 10), true, time.Time{}, saidBefore},
		{"it is read again, the person is back", back, listed(lockstep.Unsubscribed, 10), true, at(30), saidBefore},
		{"a page from before the person was back", back, listed(lockstep.Unsubscribed, 20), false, at(30), saidBefore},
		{"unsubscribed again, nobody saw that the person was back", heard, listed(lockstep.Unsubscribed, 20), false, time.Time{}, saidAnew},
		{"unsubscribed again after being back", back, listed(lockstep.Unsubscribed, 40), false, at(30), saidAnew},
		{"unsubscribed again, all of it is told", nil, listed(lockstep.Unsubscribed, 40), false, time.Time{}, saidAnew},
		{"without a time", nil, statement{scope: lockstep.ScopeAccount, system: lockstep.ConsentPlatform, reason: lockstep.Unsubscribed}, true, time.Time{}, saidAnew},
		{"the platform lists what it was told", blocked, listed(lockstep.Suppressed, 20), false, time.Time{}, saidEcho},
		{"what it was told by another account's run", handedOn, listed(lockstep.Suppressed, 20), false, time.Time{}, saidEcho},
		{"the same list again", echoed, listed(lockstep.Suppressed, 20), false, time.Time{}, saidBefore},
		{"listed anew after the echo", echoed, listed(lockstep.Unsubscribed, 30), false, time.Time{}, saidAnew},
		{"a complaint in place of the echo", blocked, listed(lockstep.Complained, 20), false, time.Time{}, saidAnew},
		{"listed before it was told", entered, listed(lockstep.Unsubscribed, 5), false, time.Time{}, saidAnew},
		{"a user's row", nil, row(10, 10), false, time.Time{}, saidAnew},
		{"it is read again while it stands", entered, row(10, 10), true, time.Time{}, saidBefore},
		{"a second row", entered, row(20, 20), false, time.Time{}, saidAnew},
		{"it is read again before it is closed", back, row(10, 10), true, at(30), saidBefore},
		{"a row that was not read before the person was back", back, row(20, 20), false, at(30), saidLate},
		{"such a row when all is told", nil, row(20, 20), false, at(30), saidLate},
		{"a row of the same second", nil, row(30, 30), false, at(30).Add(time.Millisecond), saidAnew},
		{"a row after the person was back", nil, row(40, 40), false, at(30), saidAnew},
		{"a closed row that a user opens", nil, row(10, 40), true, at(30), saidAnew},
		{"a row that could not be closed", nil, row(10, 10), true, at(30), saidLate},
		{"a flag", nil, flag(lockstep.ScopeBulk, 10), false, time.Time{}, saidAnew},
		{"a flag of a record that was edited", closed, flag(lockstep.ScopeBulk, 20), false, time.Time{}, saidBefore},
		{"a flag that closes the address", nil, flag(lockstep.ScopeAccount, 10), false, time.Time{}, saidAnew},
		{"it was there before the person was back", back, flag(lockstep.ScopeAccount, 20), false, at(30), saidBefore},
		{"it came after the person was back", back, flag(lockstep.ScopeAccount, 40), false, at(30), saidAnew},
	} {
		if got := weigh(x.r, &x.st, x.noted, x.back); got != x.want {
			t.Errorf("%s: %d, want %d", x.name, got, x.want)
		}
	}
}
