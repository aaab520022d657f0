package e2e

import (
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A sync that begins by itself waits while its part of the budget is used up, a person's
// goes on a little longer, opt-outs are heard all the same, and a budget that is raised
// counts at once.
func TestBudgetOfCalls(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, cfg app.Config) {
		w := newWorld(t, worldOptions{cfg: cfg, twins: twin.Options{Contacts: 60, Seed: 5, Plain: true}})
		first := w.sync()
		if p := first.Price; p == nil || p.Basis != "lists" || p.CRM == 0 || p.Platform == 0 {
			t.Errorf("the first sync had the price %+v", p)
		}
		for range 8 {
			w.sync()
		}
		used := func() app.CallUse {
			t.Helper()
			all, err := w.app.Budgets(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range all {
				if u.Kind == "account" {
					return u
				}
			}
			t.Fatal("the account has no budget")
			return app.CallUse{}
		}
		if u := used(); u.Hour.Person < first.Calls.Platform || u.Hour.Total != u.Day.Total {
			t.Errorf("%+v of %d calls", u, first.Calls.Platform)
		}
		limit := int(used().Hour.Total) * 10 / 8
		if _, err := w.app.SetBudget(t.Context(), w.account.Name, &limit, nil); err != nil {
			t.Fatal(err)
		}
		yes := true
		if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
			t.Fatal(err)
		}
		schedule := func() lockstep.SyncSchedule {
			t.Helper()
			all, err := w.app.Schedules(t.Context(), w.account.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, sc := range all {
				if sc.Type == lockstep.SyncMarketingLists {
					return sc
				}
			}
			return lockstep.SyncSchedule{}
		}
		id, email := w.one("contact", 0)
		w.editRecord("contact", id, map[string]any{"jobtitle": "Within the budget"})
		w.until("the sync waits and says so", func() bool { return strings.Contains(schedule().Waits, "budget of calls to the email account") })
		w.until("opt-outs are listened to all the same", func() bool {
			runs, err := w.app.Runs(t.Context(), app.RunFilter{Account: w.account.ID, Type: lockstep.SyncSuppressions, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			return len(runs) == 1 && runs[0].Scheduled && runs[0].Status == lockstep.RunCompleted
		})
		if w.contacts("")[email].DataFields["JOBTITLE"] == "Within the budget" {
			t.Error("it did not wait")
		}
		none := 0
		if _, err := w.app.SetBudget(t.Context(), w.account.Name, &none, nil); err != nil {
			t.Fatal(err)
		}
		w.until("it goes on once there is room", func() bool { return w.contacts("")[email].DataFields["JOBTITLE"] == "Within the budget" })
	})
}
