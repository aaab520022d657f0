package app

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

var (
	nothingDone   = lockstep.Counts{Read: 4, Equal: 4}
	somethingDone = lockstep.Counts{Read: 1, Written: 1}
)

func (c *clocked) organization() string {
	c.t.Helper()
	acc, err := c.store.Account(c.t.Context(), c.account)
	c.must(err)
	return acc.Organization
}

func (c *clocked) hint() int {
	c.t.Helper()
	n, err := c.hurry(c.t.Context(), c.organization())
	c.must(err)
	return n
}

// Whatever happens and whenever: a change that the CRM told of is looked at by a run that
// was queued later, as soon as the pause after the run before is over; that pause is never
// cut short; and without a word of the CRM nothing is different.
func TestHintedRuns(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	rapid.Check(t, func(rt *rapid.T) {
		left, err := c.store.LiveRuns(t.Context()) // by a check that failed
		c.must(err)
		for _, run := range left {
			c.end(run, 0, nothingDone, lockstep.RunCompleted)
		}
		c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: lockstep.Continuous})
		var run *lockstep.Run
		var ended, told, usual time.Time // told: of a change that no run was queued after yet
		least, idle := time.Duration(0), 0
		look := func() {
			live, next := c.tick()
			switch {
			case run != nil:
				if len(live) != 1 || live[0].ID != run.ID {
					rt.Fatalf("beside a run: %d", len(live))
				}
			case len(live) == 1:
				if c.now.Before(ended.Add(least)) {
					rt.Fatalf("a run began %s after the one before, not %s", c.now.Sub(ended), least)
				}
				if told.IsZero() && c.now.Before(usual) {
					rt.Fatalf("a run began %s too early although nobody told of anything", usual.Sub(c.now))
				}
				run, told = &live[0], time.Time{}
			case !told.IsZero() && !c.now.Before(ended.Add(least)):
				rt.Fatalf("nobody looks at what was told %s ago; the next look is %s away", c.now.Sub(told), next.Sub(c.now))
			case !c.now.Before(usual):
				rt.Fatal("the usual run did not begin")
			}
		}
		ended, usual = c.now, c.now
		look()
		rt.Repeat(map[string]func(*rapid.T){
			"tell": func(*rapid.T) {
				if n := c.hint(); n != 1 {
					rt.Fatalf("%d syncs are concerned", n)
				}
				told = c.now
				look()
			},
			"wait": func(rt *rapid.T) {
				c.now = c.now.Add(time.Duration(rapid.SampledFrom([]int{1, 100, 900, 1000, 5000, 61_000, 301_000}).Draw(rt, "ms")) * time.Millisecond)
				look()
			},
			"end": func(rt *rapid.T) {
				if run == nil {
					return
				}
				counts, status := nothingDone, lockstep.RunCompleted
				least = busyPause
				switch rapid.IntRange(0, 3).Draw(rt, "how") {
				case 0:
					counts, idle = somethingDone, 0
				case 1:
					status, least = lockstep.RunFailed, failedPause
				}
				pause := min(busyPause<<min(idle, 20), idlePause)
				if counts == nothingDone {
					idle++
				}
				c.end(*run, time.Second, counts, status)
				run, ended, usual = nil, c.now, c.now.Add(max(pause, least))
				look()
			},
		})
	})
}

// What the CRM tells while a run is under way is looked at by the next one, right after
// it; then the syncs are as patient as before.
func TestHintWhileARunIsUnderWay(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: lockstep.Continuous})
	pause := func(hinted bool) time.Duration {
		t.Helper()
		live, _ := c.tick()
		if len(live) != 1 {
			t.Fatalf("%d runs", len(live))
		}
		if hinted {
			c.hint()
		}
		c.end(live[0], time.Second, nothingDone, lockstep.RunCompleted)
		ended := c.now
		if live, next := c.tick(); len(live) == 0 {
			c.now = next
		}
		return c.now.Sub(ended)
	}
	var got []time.Duration
	for i := range 10 {
		got = append(got, pause(i == 4 || i == 8)/time.Second)
	}
	if want := []time.Duration{1, 2, 4, 8, 1, 32, 60, 60, 1, 60}; !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v seconds", got, want)
	}
}

// What the CRM tells of may be an opt-out: the sync of the suppressions looks at once, and
// then no more often than every half minute, whatever its interval. Its interval is kept
// without a word of the CRM, and that of other syncs with one.
func TestHintedSuppressions(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.set(lockstep.SyncSuppressions, lockstep.Schedule{Interval: "5m"})
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	begun := func() []lockstep.SyncType {
		t.Helper()
		live, _ := c.tick()
		var types []lockstep.SyncType
		for _, run := range live {
			types = append(types, run.Type)
			c.end(run, time.Second, nothingDone, lockstep.RunCompleted)
		}
		return types
	}
	begun()
	start := c.now
	got := map[lockstep.SyncType][]int{}
	for second := 1; second <= 480; second++ {
		c.now = start.Add(time.Duration(second) * time.Second)
		if second >= 61 && second <= 125 {
			c.hint()
		}
		for _, typ := range begun() {
			got[typ] = append(got[typ], second)
		}
	}
	if want := []int{61, 91, 121, 151, 451}; !slices.Equal(got[lockstep.SyncSuppressions], want) {
		t.Errorf("the suppressions began after %v seconds, want %v", got[lockstep.SyncSuppressions], want)
	}
	if want := []int{300}; !slices.Equal(got[lockstep.SyncUnsubscribes], want) {
		t.Errorf("the unsubscribes began after %v seconds, want %v", got[lockstep.SyncUnsubscribes], want)
	}
}

// A hint brings forward only what may run, and of fixed intervals only the suppressions'.
func TestHintsRespectWhatIsInTheWay(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	idle := func() {
		t.Helper()
		for range 8 {
			live, next := c.tick()
			for _, run := range live {
				c.end(run, time.Second, nothingDone, lockstep.RunCompleted)
			}
			if len(live) == 0 {
				c.now = next
			}
		}
		for {
			live, _ := c.tick()
			if len(live) == 0 {
				break
			}
			for _, run := range live {
				c.end(run, time.Second, nothingDone, lockstep.RunCompleted)
			}
		}
		c.now = c.now.Add(2 * time.Second)
		if live, _ := c.tick(); len(live) != 0 {
			t.Fatal("it does not come to rest")
		}
	}
	runs := func() int { live, _ := c.tick(); return len(live) }
	end := func() {
		live, _ := c.tick()
		for _, run := range live {
			c.end(run, time.Second, nothingDone, lockstep.RunCompleted)
		}
	}
	continuous := lockstep.Schedule{Interval: lockstep.Continuous}
	c.set(lockstep.SyncMarketingLists, continuous)
	c.set(lockstep.SyncAddressBooksIn, continuous) // marketing-lists does it first
	c.set(lockstep.SyncSuppressions, continuous)
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "12h"})
	idle()
	if n := c.hint(); n != 2 || runs() != 2 {
		t.Errorf("%d syncs are concerned, %d run", n, runs())
	}
	end()
	c.set(lockstep.SyncSuppressions, lockstep.Schedule{Interval: lockstep.Manual})
	idle()

	if n, err := c.hurry(t.Context(), "another organization"); err != nil || n != 0 || runs() != 0 {
		t.Errorf("another organization: %d syncs, %d run, %v", n, runs(), err)
	}
	no, yes := false, true
	for what, patch := range map[string][2]func() error{
		"paused": {
			func() error {
				_, err := c.UpdateAccount(t.Context(), c.account, AccountPatch{Automatic: &no})
				return err
			},
			func() error {
				_, err := c.UpdateAccount(t.Context(), c.account, AccountPatch{Automatic: &yes})
				return err
			},
		},
		"locked": {
			func() error { _, err := c.LockAccount(t.Context(), c.account, "being looked at"); return err },
			func() error { _, err := c.UnlockAccount(t.Context(), c.account, "Kim", "looked at"); return err },
		},
	} {
		c.must(patch[0]())
		if n := c.hint(); n != 0 || runs() != 0 {
			t.Errorf("%s: %d syncs, %d run", what, n, runs())
		}
		c.must(patch[1]())
		if runs() != 0 {
			t.Errorf("%s: a hint that came meanwhile was kept", what)
		}
	}

	c.set(lockstep.SyncMarketingLists, lockstep.Schedule{Interval: lockstep.Continuous, Windows: []lockstep.Window{{From: 18 * 60, To: 20 * 60}}})
	c.hint()
	if _, next := c.tick(); runs() != 0 || !next.Equal(moment(t, "2026-11-20 18:00")) {
		t.Errorf("a closed window: %d run, the next at %s", runs(), next)
	}

	c.set(lockstep.SyncMarketingLists, continuous)
	idle()
	now := c.now
	org, err := c.store.Organization(t.Context(), c.organization())
	c.must(err)
	org.Budget = lockstep.CallBudget{PerHour: 10}
	_, err = c.store.SaveOrganization(t.Context(), org)
	c.must(err)
	calls, err := c.callsOfCRM(t.Context(), org)
	c.must(err)
	for calls.admit(lockstep.WithUrgency(t.Context()), false) == 0 { // to the last one, which a sync that costs nothing waits for too
	}
	c.hint()
	if _, next := c.tick(); runs() != 0 || !next.After(now.Add(time.Minute)) {
		t.Errorf("a budget that is used up: %d run, the next at %s", runs(), next)
	}
}

// A copy of the database does not lead the calls away from the original.
func TestCopyTouchesNoWebhook(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.must(c.store.SetSetting(t.Context(), markSetting, "elsewhere"))
	if _, err := c.RegisterWebhook(t.Context(), "", WebhookRequest{URL: "https://lockstep.example.com"}); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("register: %v", err)
	}
	if _, err := c.RemoveWebhook(t.Context(), ""); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("remove: %v", err)
	}
}

// A webhook is known by its secret and by nothing else, a secret that was changed
// elsewhere soon, and one that was taken away at once no longer in this process.
func TestCheckHook(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	ctx, org := t.Context(), c.organization()
	check := func(id, key string, want lockstep.Code) {
		t.Helper()
		if got, err := c.CheckHook(ctx, id, key); lockstep.CodeOf(err) != want || err == nil && got != org {
			t.Errorf("%q with %q: %q, %v", id, key, got, err)
		}
	}
	register := func(present, former string) {
		c.must(c.store.SetSetting(ctx, hookSetting(org), `{"id":"abc","base":"https://lockstep.example.com"}`))
		c.must(c.store.SetSecrets(ctx, store.WebhookSecrets(org), map[string]string{presentSecret: present, formerSecret: former}))
	}
	check("abc", "", lockstep.CodeNotFound)
	register("one", "")
	c.hooks.forget()
	check("abc", "one", "")
	check("abc", "", lockstep.CodeUnauthorized)
	check("abc", "One", lockstep.CodeUnauthorized)
	check("abd", "one", lockstep.CodeNotFound)
	check("", "", lockstep.CodeNotFound)

	// Another process changed the secret: while it does so both work.
	register("two", "one")
	check("abc", "two", lockstep.CodeUnauthorized) // it was looked at just now
	c.hooks.loaded = c.hooks.loaded.Add(-hookAgain - time.Millisecond)
	check("abc", "two", "")
	check("abc", "one", "")
	register("two", "")
	c.hooks.loaded = c.hooks.loaded.Add(-hookAge - time.Millisecond)
	check("abc", "one", lockstep.CodeUnauthorized)
	check("abc", "two", "")

	// The database fails: what is known still counts, and not every call asks again.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.CheckHook(gone, "abc", "two"); err != nil {
		t.Errorf("a caller that hung up: %v", err)
	}
	c.must(c.forgetWebhook(ctx, org))
	check("abc", "two", lockstep.CodeNotFound)

	// Without a secret nobody is let in.
	c.must(c.store.SetSetting(ctx, hookSetting(org), `{"id":"abc","base":"https://lockstep.example.com"}`))
	c.hooks.forget()
	check("abc", "", lockstep.CodeNotFound)
	c.must(c.store.SetSetting(ctx, hookSetting(org), `{"id":`))
	c.hooks.forget()
	check("abc", "", lockstep.CodeInternal)
	c.must(c.forgetWebhook(ctx, org))
	c.hooks.failed = time.Time{}
	check("abc", "", lockstep.CodeNotFound)
	c.must(c.store.Close())
	c.hooks.forget()
	if _, err := c.CheckHook(ctx, "abc", "two"); err == nil {
		t.Error("a database that is closed")
	}
}
