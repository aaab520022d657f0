package cli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

func TestScheduleCommands(t *testing.T) {
	dir := t.TempDir()
	a, _ := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, "schedules", "--data", dir).want(t, 0, "Contoso mailings", "suppressions", "5m", "waits: the account does not sync by itself")
	run(t, "schedules", "set", "unsubscribes", "--data", dir).want(t, 2, "--interval")
	run(t, "schedules", "set", "everything", "--interval", "1h", "--data", dir).want(t, 2, "not a sync type")
	run(t, "schedules", "set", "unsubscribes", "--interval", "3h", "--data", dir).want(t, 1, "not an interval", "12h")
	run(t, "schedules", "set", "unsubscribes", "--interval", "4h", "--window", "sometimes", "--data", dir).want(t, 2, "not a window")
	run(t, "schedules", "set", "unsubscribes", "--interval", "4h", "--window", "mon-fri 18:00-08:00 Mars/Olympus", "--data", dir).want(t, 1, "not a time zone")
	run(t, "schedules", "set", "unsubscribes", "--interval", "4h", "--window", "mon-wed,fri 18:00-08:00 Europe/London", "--window", "12:00-13:00", "--data", dir).
		want(t, 0, "unsubscribes: 4h, mon,tue,wed,fri 18:00-08:00 Europe/London; 12:00-13:00; next ", "Nothing begins yet")
	run(t, "schedules", "set", "crm-metadata", "--interval", "daily", "--at", "03:15", "--zone", "Asia/Tokyo", "--data", dir).want(t, 0, "daily, at 03:15 Asia/Tokyo; next ", " 18:15")

	var answer struct{ Items []lockstep.SyncSchedule }
	run(t, "schedules", "--json", "--data", dir).want(t, 0).object(t, &answer)
	if len(answer.Items) != len(lockstep.SyncTypes) {
		t.Errorf("%+v", answer.Items)
	}
	var times struct{ Times []string }
	run(t, "schedules", "next", "--interval", "4h", "--window", "mon-fri 18:00-08:00", "--from", "2026-11-20T14:00:00Z", "--count", "5", "--json", "--data", dir).want(t, 0).object(t, &times)
	want := []string{"2026-11-20T18:00:00Z", "2026-11-20T22:00:00Z", "2026-11-21T02:00:00Z", "2026-11-21T06:00:00Z", "2026-11-23T18:00:00Z"}
	if d := cmp.Diff(want, times.Times); d != "" {
		t.Error(d)
	}
	run(t, "schedules", "next", "--interval", "daily", "--at", "02:30", "--zone", "Europe/London", "--from", "2027-03-27T12:00:00Z", "--count", "1", "--data", dir).want(t, 0, "Sun", "2027-03-28")
	run(t, "schedules", "next", "--interval", "1h", "--from", "soon", "--data", dir).want(t, 2, "not a time")
}

func TestReadWindow(t *testing.T) {
	for text, want := range map[string]string{
		"18:00-08:00":                       `{"from":"18:00","to":"08:00"}`,
		"mon-fri 18:00-08:00 Europe/London": `{"days":["mon","tue","wed","thu","fri"],"from":"18:00","to":"08:00","zone":"Europe/London"}`,
		"sat-mon 1:00-2:00":                 `{"days":["sat","sun","mon"],"from":"1:00","to":"2:00"}`,
		"Sun,wed 00:00-00:00 UTC":           `{"days":["sun","wed"],"from":"00:00","to":"00:00","zone":"UTC"}`,
		"":                                  "", "mon": "", "mon-funday 1:00-2:00": "", "1:00-2:00 UTC UTC": "", "1:00-2:00 mon 3:00-4:00": "", "mon UTC 1:00-2:00": "",
	} {
		w, err := readWindow(text)
		if (err != nil) != (want == "") {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, _ := json.Marshal(w); err == nil && string(got) != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	a, _ := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, "settings", "--data", dir).want(t, 0, "Retention  30 days")
	run(t, "settings", "--retention-days", "0", "--data", dir).want(t, 1, "1 to 3650")
	run(t, "settings", "--retention-days", "90", "--data", dir).want(t, 0, "Retention  90 days")
	var s app.Settings
	run(t, "settings", "--json", "--data", dir).want(t, 0).object(t, &s)
	if s.RetentionDays != 90 {
		t.Errorf("%+v", s)
	}
}
