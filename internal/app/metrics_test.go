package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

func (c *clocked) figures() string {
	c.t.Helper()
	w := httptest.NewRecorder()
	c.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		c.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// shows demands lines of the metrics; @ stands for the account.
func (c *clocked) shows(lines ...string) {
	c.t.Helper()
	all := c.figures()
	for _, line := range lines {
		line = strings.ReplaceAll(line, "@", c.account)
		if !strings.Contains(all, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			var near []string
			for l := range strings.SplitSeq(all, "\n") {
				if strings.HasPrefix(l, name) {
					near = append(near, l)
				}
			}
			c.t.Errorf("no %q; there is\n%s", line, strings.Join(near, "\n"))
		}
	}
}

func TestMetrics(t *testing.T) {
	c := newClocked(t, "2026-11-20 14:00")
	c.shows(`lockstep_queue_age_seconds{lane="consent"} 0`, `lockstep_consent_lag_seconds{account="@"} 0`, `lockstep_account_locked{account="@"} 0`)
	c.set(lockstep.SyncUnsubscribes, lockstep.Schedule{Interval: "5m"})
	c.now = c.now.Add(7 * time.Minute)
	c.shows(`lockstep_schedule_overdue_seconds{account="@",type="unsubscribes"} 120`)
	live, _ := c.tick()
	c.now = c.now.Add(30 * time.Second)
	c.shows(`lockstep_queue_age_seconds{lane="consent"} 30`, `lockstep_queue_age_seconds{lane="runs"} 0`, `lockstep_runs{status="queued",type="unsubscribes"} 1`)

	// An opt-out is heard, and after a while everybody knows.
	ctx, run, err := c.store.StartRun(t.Context(), live[0].ID)
	c.must(err)
	key := c.store.AddressKey("ann@example.com")
	r := lockstep.Restriction{
		ID: lockstep.RestrictionID(c.account, lockstep.ScopeAccount, "", key), Account: c.account, Scope: lockstep.ScopeAccount, Key: key, Email: "ann@example.com",
		System: lockstep.ConsentPlatform, Seen: c.now, Pending: true,
	}
	c.must(c.store.Commit(ctx, lockstep.Commit{Run: run.ID, Account: c.account, Restrictions: []lockstep.Restriction{r}}))
	c.now = c.now.Add(90 * time.Second)
	c.shows(`lockstep_consent_lag_seconds{account="@"} 90`, `lockstep_consent_untold{account="@"} 1`, `lockstep_runs{status="in_process",type="unsubscribes"} 1`)
	all, err := c.store.Restrictions(t.Context(), c.account, []lockstep.AddressKey{key})
	c.must(err)
	r = all[0]
	r.Told = map[string]time.Time{"crm": c.now} // in part: the clock goes on
	c.must(c.store.Commit(ctx, lockstep.Commit{Run: run.ID, Account: c.account, Restrictions: []lockstep.Restriction{r}}))
	c.now = c.now.Add(time.Minute)
	c.shows(`lockstep_consent_lag_seconds{account="@"} 150`)
	all, err = c.store.Restrictions(t.Context(), c.account, []lockstep.AddressKey{key})
	c.must(err)
	r = all[0]
	r.Pending = false
	c.must(c.store.Commit(ctx, lockstep.Commit{Run: run.ID, Account: c.account, Restrictions: []lockstep.Restriction{r}}))
	c.shows(`lockstep_consent_lag_seconds{account="@"} 0`, `lockstep_consent_untold{account="@"} 0`)

	_, err = c.store.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
	c.must(err)
	ended := lockstep.Run{Account: c.account, Type: lockstep.SyncUnsubscribes, Mode: lockstep.ModeApply, Status: lockstep.RunCompleted, Counts: lockstep.Counts{OptOutsSeen: 3}, Calls: lockstep.Calls{CRM: 2, Platform: 5}}
	c.metrics.ended(&ended)
	c.shows(`lockstep_runs_ended_total{account="@",mode="apply",status="completed",type="unsubscribes"} 1`,
		`lockstep_changes_total{account="@",kind="opt_out_heard",type="unsubscribes"} 3`, `lockstep_api_calls_total{account="@",system="platform"} 5`,
		`lockstep_last_success_timestamp_seconds{account="@",type="unsubscribes"} 1.79518365e+09`)
	if all := c.figures(); strings.Contains(all, "ann@") || !strings.Contains(all, "go_goroutines") {
		t.Error("personal data, or nothing about the process")
	}
}
