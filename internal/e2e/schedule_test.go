package e2e

import (
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// until looks until something is so.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	w.within(2*time.Minute, what, so)
}

func (w *world) within(long time.Duration, what string, so func() bool) {
	w.t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	limit := time.After(long)
	for !so() {
		select {
		case <-look.C:
		case <-limit:
			w.t.Fatalf("it never came to pass: %s", what)
		}
	}
}

// onBothStores runs a test on the embedded database and on PostgreSQL.
func onBothStores(t *testing.T, test func(t *testing.T, cfg app.Config)) {
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, app.Config{Schedules: true}) })
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, app.Config{Schedules: true, DatabaseURL: pgtest.Database(t)})
	})
}

// Nobody starts anything: an edit on either side reaches the other one, an opt-out takes
// effect, and once nothing happens any more nothing is written.
func TestRunsByItself(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, cfg app.Config) {
		w := newWorld(t, worldOptions{cfg: cfg, twins: twin.Options{Contacts: 120, Seed: 5, Plain: true}})
		yes := true
		if _, err := w.app.SetSchedule(t.Context(), w.account.ID, lockstep.SyncSuppressions, lockstep.Schedule{Interval: lockstep.Continuous}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
			t.Fatal(err)
		}
		id, email := w.one("contact", 0)
		w.until("everybody is on the platform", func() bool { return len(w.contacts("")[email].Lists) > 0 })
		w.editRecord("contact", id, map[string]any{"jobtitle": "By itself"})
		w.until("the CRM's edit is on the platform", func() bool { return w.contacts("")[email].DataFields["JOBTITLE"] == "By itself" })
		w.editContact(email, map[string]any{"JOBTITLE": "And back"})
		w.until("the platform's edit is in the CRM", func() bool { return w.record("contact", id, "jobtitle").str("jobtitle") == "And back" })
		w.editRecord("contact", id, map[string]any{"donotemail": true})
		w.until("the opt-out took effect", func() bool { return len(w.contact(email).Lists) == 0 })

		// What is asked for meanwhile is done, too, and everything comes to rest.
		if _, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists}); err != nil {
			t.Fatal(err)
		}
		w.until("three runs in a row were quiet", func() bool {
			runs, err := w.app.Runs(t.Context(), app.RunFilter{Account: w.account.ID, Limit: 3})
			if err != nil {
				t.Fatal(err)
			}
			quiet := len(runs) == 3
			for _, r := range runs {
				quiet = quiet && r.Scheduled && r.Status.Ended() && r.Counts.Quiet()
			}
			return quiet
		})
		all, err := w.app.Schedules(t.Context(), w.account.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, sc := range all {
			if books := sc.Type == lockstep.SyncAddressBooksIn; sc.Last.IsZero() != books || (sc.Waits != "") != books {
				t.Errorf("%+v", sc)
			}
		}
	})
}

// Syncs that run by themselves do not ask address books in vain who left them, and still
// hear who leaves one. A sync that a person asks for asks them all.
func TestAsksOnlyBooksWhereSomethingChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{cfg: app.Config{Schedules: true}, twins: twin.Options{Contacts: 120, Seed: 5, Plain: true}})
	for _, typ := range []lockstep.SyncType{lockstep.SyncMarketingLists, lockstep.SyncUnsubscribes} {
		if _, err := w.app.SetSchedule(t.Context(), w.account.ID, typ, lockstep.Schedule{Interval: lockstep.Continuous}); err != nil {
			t.Fatal(err)
		}
	}
	yes := true
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
		t.Fatal(err)
	}
	// cheap waits until each has run at its lowest price: without a question to a book.
	cheap := func() {
		for typ, most := range map[lockstep.SyncType]int64{lockstep.SyncMarketingLists: 6, lockstep.SyncUnsubscribes: 3} {
			w.until(string(typ)+" asked no book", func() bool {
				runs, err := w.app.Runs(t.Context(), app.RunFilter{Account: w.account.ID, Type: typ, Limit: 1})
				if err != nil {
					t.Fatal(err)
				}
				return len(runs) == 1 && runs[0].Status == lockstep.RunCompleted && runs[0].Counts.Quiet() && runs[0].Calls.Platform <= most
			})
		}
	}
	cheap()
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	var from lockstep.ListSettings
	for _, l := range lists {
		if !l.Dynamic && l.Activated && len(w.membersOf(l)) > 0 {
			from = l
		}
	}
	var email string
	for email = range w.contacts(string(from.Book)) {
		break
	}
	members := len(w.membersOf(from))
	w.mail("POST", "/v2/address-books/"+string(from.Book)+"/contacts/unsubscribe", map[string]any{"email": email}, nil)
	w.until("who left the address book left the marketing list", func() bool { return len(w.membersOf(from)) == members-1 })
	cheap()

	w.resetCalls()
	w.run(lockstep.SyncUnsubscribes)
	if asked := w.calls("dotdigital")["address-books.unsubscribed-since"]; asked < int64(len(lists)) {
		t.Errorf("of %d books %d were asked", len(lists), asked)
	}
}
