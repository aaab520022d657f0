package app

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
)

func counterAt(now *time.Time, b lockstep.CallBudget) *calling {
	return &calling{now: func() time.Time { return *now }, budget: b, fresh: map[slotOf]*lockstep.CallCount{}}
}

// Whatever is called and whenever: in no hour are more calls made than the budget allows,
// who waits as long as was said may call, and the last part is there for those who come
// first.
func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 1, 12, 1, 0, 0, time.UTC)
		b := lockstep.CallBudget{PerHour: rapid.IntRange(1, 60).Draw(t, "an hour"), PerDay: rapid.SampledFrom([]int{0, 0, 100, 400}).Draw(t, "a day")}
		c := counterAt(&now, b)
		type made struct {
			at     time.Time
			caller lockstep.Caller
		}
		var calls []made
		within := func(d time.Duration) (n int) {
			for _, m := range calls {
				if m.at.After(now.Add(-d)) {
					n++
				}
			}
			return n
		}
		callers := map[lockstep.Caller]func() bool{}
		for _, caller := range []lockstep.Caller{lockstep.CallerSchedule, lockstep.CallerPerson, lockstep.CallerConsent} {
			ctx := t.Context()
			switch caller {
			case lockstep.CallerSchedule:
				ctx = lockstep.WithPatience(ctx)
			case lockstep.CallerConsent:
				ctx = lockstep.WithUrgency(ctx)
			}
			callers[caller] = func() bool {
				wait := c.admit(ctx, false)
				if wait == 0 {
					calls = append(calls, made{now, caller})
					return true
				}
				if wait < 0 || wait > 24*time.Hour+lockstep.CallSlot {
					t.Fatalf("a wait of %s", wait)
				}
				return false
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			caller := rapid.SampledFrom([]lockstep.Caller{lockstep.CallerSchedule, lockstep.CallerPerson, lockstep.CallerConsent}).Draw(t, "caller")
			for range rapid.IntRange(1, 10).Draw(t, "calls") {
				if !callers[caller]() {
					break
				}
			}
			hour, dayUsed := within(time.Hour), within(24*time.Hour)
			if hour > b.PerHour || b.PerDay > 0 && dayUsed > b.PerDay {
				t.Fatalf("%d calls in an hour and %d in a day of a budget of %+v", hour, dayUsed, b)
			}
			if caller == lockstep.CallerSchedule && c.used(now, time.Hour) < int64(b.PerHour*80/100) && b.PerDay == 0 && !callers[caller]() {
				t.Fatalf("a sync has to wait although %d of %d calls were made", c.used(now, time.Hour), b.PerHour)
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute)
		}
		for _, try := range callers {
			for !try() {
				now = now.Add(c.wait(now, lockstep.CallerSchedule, 1)) // the most patient waits longest
			}
		}
	})
}

// What is kept back for opt-outs is there when syncs and people have used up theirs.
func TestOptOutsHaveTheLastOfTheBudget(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := counterAt(&now, lockstep.CallBudget{PerHour: 100})
	count := func(made func() time.Duration) (n int) {
		for made() == 0 {
			n++
		}
		return n
	}
	syncs := count(func() time.Duration { return c.admit(lockstep.WithPatience(t.Context()), false) })
	if wait := c.admit(lockstep.WithPatience(lockstep.WithUrgency(t.Context())), false); wait == 0 {
		t.Error("what the consent lane does in its own time takes of what is kept back")
	}
	people := count(func() time.Duration { return c.admit(t.Context(), false) })
	consent := count(func() time.Duration { return c.admit(lockstep.WithUrgency(t.Context()), false) })
	if syncs != 80 || people != 15 || consent != 5 {
		t.Errorf("%d calls of syncs, %d of people, %d of the consent lane", syncs, people, consent)
	}
	if wait := c.admit(t.Context(), true); wait != 0 {
		t.Errorf("a question about a job waits %s", wait)
	}
	if wait := c.wait(now, lockstep.CallerSchedule, 1); wait != time.Hour+lockstep.CallSlot {
		t.Errorf("syncs wait %s", wait)
	}
	if d := c.space(now, 4); d != 4*time.Hour/80 {
		t.Errorf("runs of four calls are %s apart", d)
	}
	now = now.Add(time.Hour + lockstep.CallSlot)
	if wait := c.wait(now, lockstep.CallerSchedule, 1_000_000); wait != 0 {
		t.Errorf("an hour later a run that costs more than all of it still waits %s", wait)
	}
	if d := c.space(now, 4); d != 0 {
		t.Errorf("nothing is used, and runs are %s apart", d)
	}
}
