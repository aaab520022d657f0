package app

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// clocked is a product whose clock the test moves and whose runs the test ends.
type clocked struct {
	*App
	t       *testing.T
	now     time.Time
	account string
}

func newClocked(t *testing.T, at string) *clocked {
	t.Helper()
	c := &clocked{t: t, now: moment(t, at)}
	var err error
	c.App, err = Open(t.Context(), Config{DataDir: t.TempDir(), Now: func() time.Time { return c.now }})
	c.must(err)
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	org, err := c.store.SaveOrganization(t.Context(), lockstep.Organization{Name: "Contoso", Adapter: "dynamics"})
	c.must(err)
	acc, err := c.store.SaveAccount(t.Context(), lockstep.EmailAccount{Organization: org.ID, Name: "Marketing", Adapter: "dotdigital", Automatic: true})
	c.must(err)
	c.account = acc.ID
	for _, typ := range lockstep.SyncTypes {
		c.set(typ, lockstep.Schedule{Interval: lockstep.Manual})
	}
	return c
}

func moment(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (c *clocked) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *clocked) set(typ lockstep.SyncType, s lockstep.Schedule) lockstep.SyncSchedule {
	c.t.Helper()
	sc, err := c.SetSchedule(c.t.Context(), c.account, typ, s)
	c.must(err)
	return sc
}

// tick looks at the clock, twice, because the second look must change nothing, and
// returns the runs that are live and when it wants to look again.
func (c *clocked) tick() (live []lockstep.Run, next time.Time) {
	c.t.Helper()
	next, err := scheduler{c.App}.Tick(c.t.Context())
	c.must(err)
	live, err = c.store.LiveRuns(c.t.Context())
	c.must(err)
	again, err := scheduler{c.App}.Tick(c.t.Context())
	c.must(err)
	if n, err := c.store.LiveRuns(c.t.Context()); err != nil || len(n) != len(live) || !again.Equal(next) {
		c.t.Fatalf("the second look: %d runs, %s; the first: %d runs, %s, %v", len(n), again, len(live), next, err)
	}
	return live, next
}

// end carries a run out: it lasts, and does so much.
func (c *clocked) end(run lockstep.Run, lasts time.Duration, counts lockstep.Counts, status lockstep.RunStatus) {
	c.t.Helper()
	ctx, _, err := c.store.StartRun(c.t.Context(), run.ID)
	c.must(err)
	c.must(c.store.Commit(ctx, lockstep.Commit{Run: run.ID, Account: run.Account, Counts: counts}))
	c.now = c.now.Add(lasts)
	_, err = c.store.EndRun(ctx, run.ID, status, "", "")
	c.must(err)
}

// play lets the time pass until a moment and returns when runs began.
func (c *clocked) play(until string) (began []string) {
	c.t.Helper()
	for {
		live, next := c.tick()
		for _, run := range live {
			began = append(began, c.now.Format("Mon 15:04"))
			c.end(run, 0, lockstep.Counts{}, lockstep.RunCompleted)
		}
		if len(live) > 0 {
			continue
		}
		if next.IsZero() || next.After(moment(c.t, until)) {
			c.now = moment(c.t, until)
			return began
		}
		c.now = next
	}
}

func TestScheduledTimes(t *testing.T) {
	week := []lockstep.Weekday{1, 2, 3, 4, 5}
	c := newClocked(t, "2026-11-20 14:00") // a Friday
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "4h", Windows: []lockstep.Window{{Days: week, From: 18 * 60, To: 8 * 60}}})
	if got, want := c.play("2026-11-24 20:00"), []string{
		"Fri 18:00", "Fri 22:00", "Sat 02:00", "Sat 06:00", "Mon 18:00", "Mon 22:00", "Tue 02:00", "Tue 06:00", "Tue 18:00",
	}; !slices.Equal(got, want) {
		t.Errorf("runs began at %v, want %v", got, want)
	}

	// While the process was down a time was missed: it runs once, and then goes on as before.
	c.now = moment(t, "2026-11-25 07:10")
	if got, want := c.play("2026-11-25 23:00"), []string{"Wed 07:10", "Wed 18:00", "Wed 22:00"}; !slices.Equal(got, want) {
		t.Errorf("after a stop: %v, want %v", got, want)
	}
	// And when the window is closed by then, it runs when that opens.
	c.now = moment(t, "2026-11-26 09:30")
	if got, want := c.play("2026-11-26 21:00"), []string{"Thu 18:00"}; !slices.Equal(got, want) {
		t.Errorf("after a longer stop: %v, want %v", got, want)
	}
}

// The clock is set back by an hour: nothing waits for longer than its interval because of
// it, and by its time of day a sync runs once more at the most.
func TestClockSetBack(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncSuppressions, lockstep.Schedule{Interval: lockstep.Continuous})
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	c.set(lockstep.SyncDataLabels, lockstep.Schedule{Interval: lockstep.Daily, At: 2 * 60})
	live, _ := c.tick()
	if len(live) != 1 || live[0].Type != lockstep.SyncSuppressions {
		t.Fatalf("%+v", live)
	}
	c.end(live[0], time.Minute, lockstep.Counts{}, lockstep.RunFailed) // a pause of five minutes
	c.tick()
	c.now = c.now.Add(-time.Hour) // 13:01
	due := func(typ lockstep.SyncType) time.Duration {
		all, err := c.Schedules(t.Context(), c.account)
		c.must(err)
		for _, sc := range all {
			if sc.Type == typ {
				return sc.Next.Sub(c.now)
			}
		}
		return -1
	}
	c.tick()
	for typ, want := range map[lockstep.SyncType]time.Duration{lockstep.SyncSuppressions: 5 * time.Minute, lockstep.SyncUnsubscribes: 5 * time.Minute, lockstep.SyncDataLabels: 12*time.Hour + 59*time.Minute} {
		if got := due(typ); got != want {
			t.Errorf("%s is due in %s, want %s", typ, got, want)
		}
	}
	// While one is under way.
	c.now = c.now.Add(5 * time.Minute)
	live, _ = c.tick()
	if len(live) != 2 {
		t.Fatalf("%+v", live)
	}
	for _, run := range live {
		c.end(run, 0, lockstep.Counts{Written: 1}, lockstep.RunCompleted)
	}
	c.now = c.now.Add(-time.Hour)
	c.tick()
	if got := due(lockstep.SyncSuppressions); got != time.Second {
		t.Errorf("what ended in the future is due again in %s", got)
	}
	if got := due(lockstep.SyncUnsubscribes); got != 5*time.Minute {
		t.Errorf("what began in the future is due again in %s", got)
	}
}

// The machine sleeps for twelve hours: each schedule catches up with one run, and goes on
// as before.
func TestSuspended(t *testing.T) {
	c := newClocked(t, "2026-11-20 20:00")
	c.set(lockstep.SyncSuppressions, lockstep.Schedule{Interval: lockstep.Continuous})
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: "1h"})
	c.set(lockstep.SyncDataLabels, lockstep.Schedule{Interval: lockstep.Daily, At: 2 * 60})
	c.play("2026-11-20 21:02")
	c.now = c.now.Add(12 * time.Hour)
	began := map[lockstep.SyncType]int{}
	for range 5 { // looks at the same moment
		live, _ := c.tick()
		for _, run := range live {
			began[run.Type]++
			c.end(run, 0, lockstep.Counts{}, lockstep.RunCompleted)
		}
	}
	for _, typ := range []lockstep.SyncType{lockstep.SyncSuppressions, lockstep.SyncUnsubscribes, lockstep.SyncMarketingLists, lockstep.SyncDataLabels} {
		if began[typ] != 1 {
			t.Errorf("%s caught up with %d runs", typ, began[typ])
		}
	}
	next := map[lockstep.SyncType]string{lockstep.SyncUnsubscribes: "2026-11-21 09:05", lockstep.SyncMarketingLists: "2026-11-21 10:00", lockstep.SyncDataLabels: "2026-11-22 02:00"}
	all, err := c.Schedules(t.Context(), c.account)
	c.must(err)
	for _, sc := range all {
		if want := next[sc.Type]; want != "" && !sc.Next.Equal(moment(t, want)) {
			t.Errorf("%s goes on at %s, want %s", sc.Type, sc.Next, want)
		}
	}
}

// A run that takes longer than its interval is not overtaken; the next one begins when
// it has ended.
func TestScheduledRunsDoNotOverlap(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	c.now = moment(t, "2026-11-20 14:05")
	live, _ := c.tick()
	if len(live) != 1 || !live[0].Scheduled {
		t.Fatalf("%+v", live)
	}
	c.now = moment(t, "2026-11-20 14:12")
	if now, next := c.tick(); len(now) != 1 || !next.IsZero() {
		t.Fatalf("%d runs, next look %s", len(now), next)
	}
	c.end(live[0], time.Minute, lockstep.Counts{}, lockstep.RunCompleted)
	live, next := c.tick()
	if len(live) != 1 || !next.Equal(moment(t, "2026-11-20 14:15")) {
		t.Fatalf("%+v, %s", live, next)
	}
}

// Looking is frequent while something happens, rare while nothing does, and patient
// while it fails.
func TestContinuous(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: lockstep.Continuous})
	pause := func(counts lockstep.Counts, status lockstep.RunStatus) time.Duration {
		live, _ := c.tick()
		if len(live) != 1 {
			t.Fatalf("%d runs", len(live))
		}
		c.end(live[0], time.Second, counts, status)
		ended := c.now
		live, next := c.tick()
		if len(live) > 0 {
			t.Fatal("no pause")
		}
		c.now = next
		return next.Sub(ended)
	}
	quiet, busy := lockstep.Counts{Read: 4, Equal: 4, Rejected: 1, Findings: 1}, lockstep.Counts{Read: 1, Written: 1}
	var got []time.Duration
	for range 9 {
		got = append(got, pause(quiet, lockstep.RunCompleted))
	}
	got = append(got, pause(busy, lockstep.RunCompletedWithErrors), pause(busy, lockstep.RunCompleted), pause(quiet, lockstep.RunCompleted), pause(quiet, lockstep.RunFailed))
	var want []time.Duration
	for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 1, 1, 300} {
		want = append(want, time.Duration(seconds)*time.Second)
	}
	if !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v", got, want)
	}
}

func TestNothingBeginsByItself(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: "5m"})
	c.now = moment(t, "2026-11-20 15:00")
	waiting := func() (why []string) {
		all, err := c.Schedules(t.Context(), c.account)
		c.must(err)
		for _, sc := range all {
			if sc.Waits != "" {
				why = append(why, string(sc.Type)+": "+sc.Waits)
			}
		}
		return why
	}

	no, yes := false, true
	_, err := c.UpdateAccount(t.Context(), c.account, AccountPatch{Automatic: &no})
	c.must(err)
	if live, next := c.tick(); len(live) != 0 || !next.IsZero() || len(waiting()) != 2 {
		t.Errorf("switched off: %d runs, %s, %v", len(live), next, waiting())
	}
	_, err = c.UpdateAccount(t.Context(), c.account, AccountPatch{Automatic: &yes})
	c.must(err)
	_, err = c.LockAccount(t.Context(), c.account, "being restored")
	c.must(err)
	live, _ := c.tick()
	if len(live) != 1 || live[0].Type != lockstep.SyncUnsubscribes || !slices.Equal(waiting(), []string{"marketing-lists: the account is locked: being restored"}) {
		t.Errorf("locked: %+v, %v", live, waiting())
	}
	_, err = c.UnlockAccount(t.Context(), c.account, "Kim", "restored")
	c.must(err)
	if live, _ := c.tick(); len(live) != 2 || len(waiting()) != 0 {
		t.Errorf("unlocked: %+v, %v", live, waiting())
	}
}

// By default consent is exchanged every five minutes, and what has a time of day waits
// for it.
func TestDefaultSchedules(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.must(c.store.InTx(t.Context(), func(tx store.Tx) error {
		_, err := tx.Exec(t.Context(), `DELETE FROM schedules`)
		return err
	}))
	live, next := c.tick()
	var types []lockstep.SyncType
	for _, run := range live {
		types = append(types, run.Type)
	}
	// The sync of lists takes the address books in first.
	idle := []lockstep.SyncType{lockstep.SyncCRMMetadata, lockstep.SyncAddressBooksIn}
	want := slices.DeleteFunc(slices.Clone(lockstep.SyncTypes), func(typ lockstep.SyncType) bool { return slices.Contains(idle, typ) })
	slices.Sort(types)
	slices.Sort(want)
	if !slices.Equal(types, want) || !next.Equal(moment(t, "2026-11-20 14:05")) {
		t.Errorf("%v began, next %s", types, next)
	}
	all, err := c.Schedules(t.Context(), c.account)
	c.must(err)
	for _, sc := range all {
		if sc.Type == lockstep.SyncCRMMetadata && !sc.Next.Equal(moment(t, "2026-11-21 02:00")) {
			t.Errorf("%+v", sc)
		}
		if !slices.Contains(idle, sc.Type) && (sc.State != lockstep.SyncQueued || !sc.Last.Equal(c.now)) {
			t.Errorf("%+v", sc)
		}
	}
}

// A run that goes on when its window closes waits for the next one, and a person who
// asks for it does not.
func TestWindowOfARun(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m", Windows: []lockstep.Window{{From: 12 * 60, To: 15 * 60}}})
	run := lockstep.Run{Account: c.account, Type: lockstep.SyncUnsubscribes}
	for at, want := range map[string]string{"2026-11-20 14:59": "", "2026-11-20 15:00": "2026-11-21 12:00"} {
		c.now = moment(t, at)
		until, err := scheduler{c.App}.Window(t.Context(), run)
		c.must(err)
		if want == "" && !until.IsZero() || want != "" && !until.Equal(moment(t, want)) {
			t.Errorf("at %s: until %s, want %q", at, until, want)
		}
	}
}
