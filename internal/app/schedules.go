package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/schedule"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// A continuous sync looks again soon after it found something, and less and less often
// while nothing happens.
const (
	busyPause = time.Second
	idlePause = time.Minute
	// failedPause keeps a sync that fails, because of a wrong password for example, from
	// trying all the time.
	failedPause = 5 * time.Minute
	// hintedPause is the shortest time between two runs of a sync with a fixed interval,
	// however often the CRM says that something changed.
	hintedPause = 30 * time.Second
)

// maxTimes is the most times that NextTimes answers.
const maxTimes = 1000

// Schedules returns the schedule of each sync type of an account in the order of a
// cycle, the default where nobody decided otherwise, and where each stands.
func (a *App) Schedules(ctx context.Context, account string) ([]lockstep.SyncSchedule, error) {
	acc, err := a.store.Account(ctx, account)
	if err != nil {
		return nil, err
	}
	stored, err := a.store.Schedules(ctx, account)
	if err != nil {
		return nil, err
	}
	c, err := a.counters(ctx, acc)
	if err != nil {
		return nil, err
	}
	all := make([]lockstep.SyncSchedule, 0, len(lockstep.SyncTypes))
	for _, t := range lockstep.SyncTypes {
		sc := scheduleOf(stored, account, t)
		sc.Account = account
		sc.State, sc.Waits = lockstep.SyncNone, waits(acc, &sc, stored)
		if sc.Waits == "" && sc.Interval != lockstep.Manual {
			if wait, side := c.wait(a.now(), t, nil); wait > 0 {
				sc.Waits = fmt.Sprintf("the budget of calls to %s is used up until %s", side, a.now().Add(wait).UTC().Format("15:04 MST"))
			}
		}
		latest, err := a.store.Runs(ctx, store.RunFilter{Account: account, Type: t, Mode: lockstep.ModeApply, Limit: 1})
		if err != nil {
			return nil, err
		}
		for _, run := range latest {
			sc.Last = cmp.Or(run.Started, run.Created)
			switch run.Status {
			case lockstep.RunQueued:
				sc.State = lockstep.SyncQueued
			case lockstep.RunInProcess:
				sc.State = lockstep.SyncWorking
			}
		}
		all = append(all, sc)
	}
	return all, nil
}

// waits says why a sync does not begin by itself although it has a schedule.
func waits(acc lockstep.EmailAccount, sc *lockstep.SyncSchedule, stored []lockstep.SyncSchedule) string {
	switch {
	case sc.Interval == lockstep.Manual:
		return ""
	case !acc.Automatic:
		return "the account does not sync by itself"
	case acc.Locked != "" && !sc.Type.Consent():
		return "the account is locked: " + acc.Locked
	case sc.Type == lockstep.SyncAddressBooksIn && sc.Interval == lockstep.Continuous && scheduleOf(stored, sc.Account, lockstep.SyncMarketingLists).Interval == lockstep.Continuous:
		return "marketing-lists is continuous and does the same first"
	}
	return ""
}

// scheduleOf is the schedule of an account's sync type, which is the default where none
// is stored; Account is empty then.
func scheduleOf(stored []lockstep.SyncSchedule, account string, t lockstep.SyncType) lockstep.SyncSchedule {
	for i := range stored {
		if stored[i].Account == account && stored[i].Type == t {
			return stored[i]
		}
	}
	return lockstep.SyncSchedule{Type: t, Schedule: lockstep.DefaultSchedule(t)}
}

// SetSchedule changes when a sync type of an account runs by itself. An interval counts
// from now.
func (a *App) SetSchedule(ctx context.Context, account string, t lockstep.SyncType, s lockstep.Schedule) (lockstep.SyncSchedule, error) {
	var none lockstep.SyncSchedule
	if !slices.Contains(lockstep.SyncTypes, t) {
		return none, unknownType(t)
	}
	plan, err := checkSchedule(&s)
	if err != nil {
		return none, err
	}
	err = a.store.InTx(ctx, func(tx store.Tx) error {
		sc, err := a.store.ScheduleIn(ctx, tx, account, t)
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
			return err
		}
		sc.Account, sc.Type = account, t
		a.reschedule(&sc, s, plan)
		return a.store.SaveScheduleIn(ctx, tx, sc)
	})
	if err != nil {
		return none, err
	}
	a.jobs.Wake()
	all, err := a.Schedules(ctx, account)
	if err != nil {
		return none, err
	}
	return all[slices.IndexFunc(all, func(sc lockstep.SyncSchedule) bool { return sc.Type == t })], nil
}

// checkSchedule completes a schedule, or says what of it cannot be.
func checkSchedule(s *lockstep.Schedule) (*schedule.Plan, error) {
	plan, err := schedule.New(*s)
	if err == nil {
		s.Interval, err = lockstep.ParseInterval(string(s.Interval))
	}
	return plan, err
}

// reschedule has a sync type go by another schedule from now on.
func (a *App) reschedule(sc *lockstep.SyncSchedule, s lockstep.Schedule, plan *schedule.Plan) {
	sc.Schedule, sc.Run, sc.Idle, sc.Again, sc.Earliest = s, "", 0, false, time.Time{} // a run under way is not what the next one goes by any more
	sc.Next, _ = plan.Next(a.now())
}

// NextTimes returns the next times at which a schedule starts a run whose predecessor
// began at from; the zero time is now. A continuous schedule has one: when its window
// is open next.
func (a *App) NextTimes(s lockstep.Schedule, from time.Time, count int) ([]time.Time, error) {
	plan, err := schedule.New(s)
	if err != nil {
		return nil, err
	}
	if count < 1 || count > maxTimes {
		return nil, invalid("count", fmt.Sprintf("%d times cannot be computed", count), fmt.Sprintf("ask for 1 to %d", maxTimes))
	}
	if from.IsZero() {
		from = a.now()
	}
	return plan.Times(from.UTC(), count), nil
}

// scheduler starts what is due; see jobs.Scheduler.
type scheduler struct{ *App }

// Tick starts what is due in every account.
func (a scheduler) Tick(ctx context.Context) (time.Time, error) {
	accounts, err := a.store.Accounts(ctx, "")
	if err != nil {
		return time.Time{}, err
	}
	stored, err := a.store.Schedules(ctx, "")
	if err != nil {
		return time.Time{}, err
	}
	var first time.Time
	for _, acc := range accounts {
		calls, err := a.counters(ctx, acc)
		if err != nil {
			return time.Time{}, err
		}
		for _, t := range lockstep.SyncTypes { // in the order of a cycle, so that consent comes first
			sc := scheduleOf(stored, acc.ID, t)
			isNew := sc.Account == ""
			sc.Account = acc.ID
			if !isNew && sc.Next.IsZero() || waits(acc, &sc, stored) != "" {
				continue
			}
			next := sc.Next
			if latest, bounded := latestDue(&sc, a.now()); bounded && next.After(latest) {
				if next, err = a.recall(ctx, acc.ID, t); err != nil {
					return time.Time{}, err
				}
			}
			if !next.After(a.now()) {
				if next, err = a.begin(ctx, acc.ID, t, calls); err != nil {
					return time.Time{}, err
				}
			}
			if !next.IsZero() && (first.IsZero() || next.Before(first)) {
				first = next
			}
		}
	}
	return first, nil
}

// latestDue is the latest time at which a schedule can be due as seen from now; bounded is
// false when it is never due by itself. What is later was planned before the clock was set
// back.
func latestDue(sc *lockstep.SyncSchedule, now time.Time) (latest time.Time, bounded bool) {
	plan, err := schedule.New(sc.Schedule)
	if err != nil || sc.Interval == lockstep.Manual {
		return latest, false
	}
	if sc.Interval == lockstep.Continuous {
		return plan.Opening(now.Add(max(sc.Pause, failedPause))), true
	}
	return plan.Next(now)
}

// recall brings what is due too late forward to the latest time at which it can be due.
func (a scheduler) recall(ctx context.Context, account string, t lockstep.SyncType) (next time.Time, err error) {
	err = a.store.InTx(ctx, func(tx store.Tx) error {
		sc, err := a.store.ScheduleIn(ctx, tx, account, t)
		if err != nil {
			return err
		}
		now := a.now()
		if latest, bounded := latestDue(&sc, now); bounded && sc.Next.After(latest) {
			if sc.Next = latest; sc.Run != "" {
				sc.Next = now // which its run is asked about first
			}
			err = a.store.SaveScheduleIn(ctx, tx, sc)
		}
		next = sc.Next
		return err
	})
	return next, err
}

// begin starts the run of a schedule that is due, unless one is under way, and returns
// when it is due next; zero when that is not known before the run has ended.
func (a scheduler) begin(ctx context.Context, account string, t lockstep.SyncType, calls counters) (next time.Time, err error) {
	err = a.store.InTx(ctx, func(tx store.Tx) error {
		switch _, err := a.store.LiveRunIn(ctx, tx, account, t, ""); {
		case err == nil:
			return nil // looked at again when that has ended
		case lockstep.CodeOf(err) != lockstep.CodeNotFound:
			return err
		}
		now := a.now()
		sc, err := a.store.ScheduleIn(ctx, tx, account, t)
		isNew := lockstep.CodeOf(err) == lockstep.CodeNotFound
		if isNew {
			sc, err = lockstep.SyncSchedule{Account: account, Type: t, Schedule: lockstep.DefaultSchedule(t), Next: now}, nil
		}
		if err != nil {
			return err
		}
		plan, err := schedule.New(sc.Schedule)
		if err != nil {
			return err
		}
		if isNew && (sc.Interval == lockstep.Daily || sc.Interval == lockstep.Weekly) {
			sc.Next, _ = plan.Next(now) // its time of day is to come
		}
		if sc.Run != "" {
			if err := a.rest(ctx, tx, &sc, calls); err != nil {
				return err
			}
		}
		switch due := !sc.Next.IsZero() && !sc.Next.After(now); {
		case due && !plan.Open(now): // missed while the window was open
			sc.Next = plan.Opening(now)
		case due:
			run := lockstep.Run{Account: account, Type: t, Mode: lockstep.ModeApply, Scheduled: true}
			price, err := a.store.PriceIn(ctx, tx, &run)
			if err != nil {
				return err
			}
			if wait, _ := calls.wait(now, t, price); wait > 0 {
				next = now.Add(wait) // or sooner, when the budget is changed: nothing is stored
				return nil
			}
			if run, err = a.jobs.EnqueueIn(ctx, tx, run); err != nil {
				return err
			}
			if sc.Interval == lockstep.Continuous {
				sc.Run = run.ID
				return a.store.SaveScheduleIn(ctx, tx, sc)
			}
			sc.Next, _ = plan.Following(sc.Next, now)
			sc.Earliest = now.Add(hintedPause)
		}
		next = sc.Next
		return a.store.SaveScheduleIn(ctx, tx, sc)
	})
	return next, err
}

// rest says when a continuous sync is due again after its run has ended.
func (a scheduler) rest(ctx context.Context, tx store.Tx, sc *lockstep.SyncSchedule, calls counters) error {
	run, err := a.store.RunIn(ctx, tx, sc.Run)
	if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
		return err
	}
	if !run.Counts.Quiet() {
		sc.Idle = 0
	}
	pause := min(busyPause<<min(sc.Idle, 20), idlePause)
	if run.Counts.Quiet() {
		sc.Idle++
	}
	least := max(busyPause, calls.space(a.now(), &run))
	if run.Status == lockstep.RunFailed {
		least = failedPause
	}
	pause = max(pause, least)
	if sc.Again {
		pause = least
	}
	ended, now := run.Ended, a.now()
	if ended.IsZero() || ended.After(now) { // it was purged, or the clock was set back
		ended = now
	}
	sc.Run, sc.Again, sc.Next, sc.Earliest, sc.Pause = "", false, ended.Add(pause), ended.Add(least), pause
	return nil
}

// hinted says whether a sync looks as soon as the CRM says that something changed. That of
// the suppressions does whatever its interval, because what changed may be an opt-out.
func hinted(sc *lockstep.SyncSchedule) bool {
	return sc.Interval == lockstep.Continuous || sc.Type == lockstep.SyncSuppressions && sc.Interval.Every() > 0
}

// hurry has the syncs that go by an organization's word look now, because the
// organization said that something changed, and returns how many it concerns. What keeps
// a sync from running keeps it from running all the same: an account that does not sync
// by itself or is locked, a closed window, a budget that is used up, the pause after a
// failure. A run that is under way may have looked too early and is followed by another.
func (a *App) hurry(ctx context.Context, organization string) (int, error) {
	accounts, err := a.store.Accounts(ctx, organization)
	if err != nil {
		return 0, err
	}
	stored, err := a.store.Schedules(ctx, "")
	if err != nil {
		return 0, err
	}
	concerned := 0
	for _, acc := range accounts {
		for i := range stored {
			if stored[i].Account != acc.ID || !hinted(&stored[i]) || waits(acc, &stored[i], stored) != "" {
				continue // one that nothing is stored of is due already
			}
			err := a.store.InTx(ctx, func(tx store.Tx) error {
				sc, err := a.store.ScheduleIn(ctx, tx, acc.ID, stored[i].Type)
				if err != nil || !hinted(&sc) || sc.Next.IsZero() {
					return err
				}
				if now := a.now(); sc.Run != "" {
					sc.Again = true
				} else if due := later(now, sc.Earliest); due.Before(sc.Next) {
					sc.Next = due
				}
				return a.store.SaveScheduleIn(ctx, tx, sc)
			})
			if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
				return concerned, err
			}
			concerned++
		}
	}
	if concerned > 0 {
		a.jobs.Wake()
	}
	return concerned, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Window is how long a scheduled run has to wait for its window.
func (a scheduler) Window(ctx context.Context, run lockstep.Run) (time.Time, error) {
	stored, err := a.store.Schedules(ctx, run.Account)
	if err != nil {
		return time.Time{}, err
	}
	plan, err := schedule.New(scheduleOf(stored, run.Account, run.Type).Schedule)
	if now := a.now(); err == nil && !plan.Open(now) {
		return plan.Opening(now), nil
	}
	return time.Time{}, err
}
