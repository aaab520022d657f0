package e2e

import (
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// A static list that nobody uses for 90 days no longer syncs by itself, two weeks after a
// notice, unless it is exempt or somebody uses it.
func TestIdleLists(t *testing.T) {
	const day = 24 * time.Hour
	var clock ahead
	w := newStageWith(t, app.Config{Now: clock.now})
	yes, no := true, false
	idle, kept := w.list("Idle", "contact", lockstep.ActionIgnore, ""), w.patchList(w.list("Kept", "contact", lockstep.ActionIgnore, ""), app.ListPatch{KeepAutomatic: &yes})
	used, joined := w.list("Used", "contact", lockstep.ActionIgnore, ""), w.list("Joined", "contact", lockstep.ActionIgnore, "")
	dynamic := w.list("Dynamic", "contact", lockstep.ActionIgnore, `<condition attribute="emailaddress1" operator="not-null"/>`)
	all := []lockstep.ListSettings{idle, kept, used, joined, dynamic}
	ann := w.cast("contact", "ann@stage.example")
	for _, l := range all[:4] {
		w.join(l, ann)
	}
	w.sync()
	// told are the lists that a sync has something to say about.
	told := func() (out string) {
		t.Helper()
		found := w.findings(w.sync())
		for _, l := range all {
			for _, f := range found {
				if f.Code == lockstep.FindingListIdle && f.List == l.ID {
					out += l.Name + " "
				}
			}
		}
		return out
	}
	manual := func() (out string) {
		t.Helper()
		for _, l := range all {
			now, err := w.app.List(t.Context(), w.account.ID, l.ID)
			if err != nil {
				t.Fatal(err)
			}
			if now.ManualOnly {
				out += l.Name + " "
			}
		}
		return out
	}
	step := func(when string, d time.Duration, wantTold, wantManual string) {
		t.Helper()
		clock.pass(d)
		if got := told(); got != wantTold {
			t.Errorf("%s: told about %q, want %q", when, got, wantTold)
		}
		if got := manual(); got != wantManual {
			t.Errorf("%s: synced only when asked for: %q, want %q", when, got, wantManual)
		}
	}
	step("after 75 days", 75*day, "", "")
	step("after 77 days", 2*day, "Idle Used Joined ", "")
	step("the same day", time.Hour, "", "")
	// The CRM uses one of them, and somebody joins another.
	w.crm("PATCH", "lists("+used.CRMID.String()+")", cols{"lastusedon": clock.now().UTC().Format("2006-01-02T00:00:00Z")}, nil)
	ben := w.cast("contact", "ben@stage.example")
	w.join(joined, ben)
	step("after 80 days", 3*day, "", "")
	step("after 92 days", 12*day, "Idle ", "Idle ")
	step("after 93 days", day, "", "Idle ")

	w.join(idle, ben)
	w.sync()
	w.wantIn("not asked for", idle, "ann")
	if _, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, List: idle.ID}); err != nil {
		t.Fatal(err)
	}
	w.wantIn("asked for", idle, "ann", "ben")

	// Brought back it is counted from then on; and however long the product was off,
	// there is a notice first, and two weeks.
	w.patchList(idle, app.ListPatch{ManualOnly: &no})
	step("brought back", day, "", "")
	step("a year later", 365*day, "Idle Used Joined ", "")
	step("in time", 13*day, "", "")
	step("two weeks after the notice", day+time.Hour, "Idle Used Joined ", "Idle Used Joined ")
}
