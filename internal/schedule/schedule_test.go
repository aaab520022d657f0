package schedule_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/schedule"
)

func plan(t interface{ Fatal(...any) }, text string) *schedule.Plan {
	var s lockstep.Schedule
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	p, err := schedule.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const minutes = "Mon 2006-01-02 15:04"

func shown(times []time.Time, zone string) string {
	z, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	var out []string
	for _, t := range times {
		out = append(out, t.In(z).Format(minutes))
	}
	return strings.Join(out, "\n")
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestTimes(t *testing.T) {
	for _, tc := range []struct {
		name, schedule, from, zone string
		want                       []string
	}{
		{
			"four-hourly at night on weekdays", `{"interval":"4h","windows":[{"days":["mon","tue","wed","thu","fri"],"from":"18:00","to":"08:00"}]}`, "2026-11-23T14:00:00Z", "UTC",
			[]string{"Mon 2026-11-23 18:00", "Mon 2026-11-23 22:00", "Tue 2026-11-24 02:00", "Tue 2026-11-24 06:00", "Tue 2026-11-24 18:00", "Tue 2026-11-24 22:00"},
		},
		{
			"the window of Friday ends on Saturday", `{"interval":"4h","windows":[{"days":["mon","tue","wed","thu","fri"],"from":"18:00","to":"08:00"}]}`, "2026-11-27T16:00:00Z", "UTC",
			[]string{"Fri 2026-11-27 20:00", "Sat 2026-11-28 00:00", "Sat 2026-11-28 04:00", "Mon 2026-11-30 18:00"},
		},
		{
			"two windows in two zones", `{"interval":"12h","windows":[{"days":["sat"],"from":"00:00","to":"00:00","zone":"Asia/Kathmandu"},{"days":["wed"],"from":"09:00","to":"10:00","zone":"Europe/London"}]}`, "2026-07-06T00:00:00Z", "UTC",
			[]string{"Wed 2026-07-08 08:00", "Fri 2026-07-10 18:15", "Sat 2026-07-11 06:15", "Wed 2026-07-15 08:00"},
		},
		{"by the minute", `{"interval":"15m"}`, "2026-11-23T23:50:30Z", "UTC", []string{"Tue 2026-11-24 00:05", "Tue 2026-11-24 00:20"}},
		{"once a day", `{"interval":"daily","at":"02:00"}`, "2026-11-23T14:00:00Z", "UTC", []string{"Tue 2026-11-24 02:00", "Wed 2026-11-25 02:00"}},
		{
			"once a day in a window of weekdays", `{"interval":"daily","windows":[{"days":["mon","fri"],"from":"18:00","to":"20:00","zone":"Europe/London"}]}`, "2026-03-23T18:00:00Z", "UTC",
			[]string{"Fri 2026-03-27 18:00", "Mon 2026-03-30 17:00"},
		},
		{"once a week", `{"interval":"weekly","at":"23:00","zone":"America/New_York"}`, "2026-10-28T03:00:00Z", "America/New_York", []string{"Tue 2026-11-03 23:00", "Tue 2026-11-10 23:00"}},
		{"an hour that does not exist", `{"interval":"daily","at":"02:30","zone":"America/New_York"}`, "2026-03-07T12:00:00Z", "America/New_York", []string{"Sun 2026-03-08 03:00", "Mon 2026-03-09 02:30"}},
		{"half an hour that does not exist", `{"interval":"daily","at":"02:15","zone":"Australia/Lord_Howe"}`, "2026-10-03T00:00:00Z", "Australia/Lord_Howe", []string{"Sun 2026-10-04 02:30", "Mon 2026-10-05 02:15"}},
		{"an hour that comes twice", `{"interval":"daily","at":"01:30","zone":"Europe/London"}`, "2026-10-24T12:00:00Z", "UTC", []string{"Sun 2026-10-25 00:30", "Mon 2026-10-26 01:30"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := shown(plan(t, tc.schedule).Times(at(tc.from), len(tc.want)), tc.zone)
			if d := cmp.Diff(strings.Join(tc.want, "\n"), got); d != "" {
				t.Error(d)
			}
		})
	}
	if _, ok := plan(t, `{"interval":"manual"}`).Next(at("2026-11-23T14:00:00Z")); ok {
		t.Error("a manual schedule is due")
	}
	now := at("2026-11-23T14:00:00Z")
	if next, ok := plan(t, `{"interval":"continuous"}`).Next(now); !ok || !next.Equal(now) {
		t.Errorf("a continuous schedule is due at %v", next)
	}
}

// zones are those in which clocks do what one does not think of.
var zones = []string{
	"Europe/London", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "Asia/Kathmandu", "Africa/Casablanca", "Africa/Cairo",
	"America/Sao_Paulo", "Pacific/Apia", "Pacific/Kiritimati", "Asia/Tehran", "Antarctica/Troll", "America/Santiago", "UTC",
}

// What is due once a day is due once on every day of seventeen years, wherever.
func TestOnceOnEveryDay(t *testing.T) {
	for _, name := range zones {
		z, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, clock := range []string{"00:00", "00:30", "02:30", "23:59"} {
			p := plan(t, `{"interval":"daily","at":"`+clock+`","zone":"`+name+`"}`)
			day := time.Date(2023, 12, 31, 12, 0, 0, 0, time.UTC)
			last := time.Date(2023, 12, 31, 12, 0, 0, 0, z)
			for day.Year() <= 2040 {
				day = day.AddDate(0, 0, 1)
				next, ok := p.Next(last)
				if !ok || next.In(z).Format(time.DateOnly) != day.Format(time.DateOnly) {
					t.Fatalf("%s %s: after %v comes %v, want one on %s", name, clock, last.In(z), next.In(z), day.Format(time.DateOnly))
				}
				if local := next.In(z).Format("15:04"); local < clock { // later only where the clock skips it
					t.Fatalf("%s: due at %s, want %s", name, local, clock)
				}
				last = next
			}
		}
	}
}

// drawn is a schedule with an interval of hours and some windows.
func drawn(t *rapid.T) (lockstep.Schedule, time.Time) {
	s := lockstep.Schedule{Interval: rapid.SampledFrom([]lockstep.Interval{"5m", "30m", "1h", "4h", "6h", "12h"}).Draw(t, "interval")}
	for range rapid.IntRange(0, 3).Draw(t, "windows") {
		w := lockstep.Window{
			From: lockstep.ClockTime(rapid.IntRange(0, 24*60-1).Draw(t, "from")), To: lockstep.ClockTime(rapid.IntRange(0, 24*60-1).Draw(t, "to")),
			Zone: rapid.SampledFrom(zones).Draw(t, "zone"),
		}
		for _, d := range rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 0, 4, rapid.ID[int]).Draw(t, "days") {
			w.Days = append(w.Days, lockstep.Weekday(d))
		}
		s.Windows = append(s.Windows, w)
	}
	return s, time.Date(2026, 1, 1, 0, rapid.IntRange(0, 366*24*60).Draw(t, "minute"), 0, 0, time.UTC)
}

// openBy is the meaning of windows, told by the clock on the wall alone.
func openBy(s lockstep.Schedule, t time.Time) bool {
	for _, w := range s.Windows {
		z, _ := time.LoadLocation(w.Zone)
		l := t.In(z)
		c := lockstep.ClockTime(l.Hour()*60 + l.Minute())
		on := func(d time.Weekday) bool {
			if len(w.Days) == 0 {
				return true
			}
			for _, x := range w.Days {
				if time.Weekday(x) == d {
					return true
				}
			}
			return false
		}
		yesterday := (l.Weekday() + 6) % 7
		switch {
		case w.From < w.To && c >= w.From && c < w.To && on(l.Weekday()),
			w.From >= w.To && c >= w.From && on(l.Weekday()),
			w.From >= w.To && c < w.To && on(yesterday):
			return true
		}
	}
	return len(s.Windows) == 0
}

// changes reports a change of any zone's clocks within two days of t: an hour that
// comes twice reads the same on the wall and is not the same.
func changes(s lockstep.Schedule, t time.Time) bool {
	for _, w := range s.Windows {
		z, _ := time.LoadLocation(w.Zone)
		_, a := t.Add(-48 * time.Hour).In(z).Zone()
		_, b := t.Add(48 * time.Hour).In(z).Zone()
		if a != b {
			return true
		}
	}
	return false
}

// The next run is due after the interval, in a window, and as early as that allows.
func TestNextIsTheEarliest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, last := drawn(t)
		p, err := schedule.New(s)
		if err != nil {
			t.Fatal(err)
		}
		next, ok := p.Next(last)
		if !ok {
			t.Fatal("no time is due")
		}
		due := last.Add(s.Interval.Every())
		if next.Before(due) {
			t.Fatalf("%v is before %v", next, due)
		}
		if changes(s, due) || changes(s, next) {
			return
		}
		if !openBy(s, next) {
			t.Fatalf("no window is open at %v", next)
		}
		for x := due; x.Before(next); x = x.Add(time.Minute) {
			if openBy(s, x) && !changes(s, x) {
				t.Fatalf("%v is open, %v was chosen", x, next)
			}
		}
	})
}

func TestOpenIsWhatTheWallSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now := drawn(t)
		p, err := schedule.New(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Open(now), openBy(s, now); got != want && !changes(s, now) {
			t.Fatalf("open %v, want %v", got, want)
		}
	})
}

func TestBadSchedules(t *testing.T) {
	for _, tc := range []struct{ schedule, field string }{
		{`{"interval":"3h"}`, "interval"},
		{`{}`, "interval"},
		{`{"interval":"daily","zone":"Local"}`, "zone"},
		{`{"interval":"daily","zone":"../etc/passwd"}`, "zone"},
		{`{"interval":"1h","windows":[{"from":"08:00","to":"09:00","zone":"Mars/Olympus"}]}`, "windows[0].zone"},
	} {
		var s lockstep.Schedule
		if err := json.Unmarshal([]byte(tc.schedule), &s); err != nil {
			t.Fatal(err)
		}
		_, err := schedule.New(s)
		if e := lockstep.AsError(err); err == nil || e.Field != tc.field || e.Hint == "" {
			t.Errorf("%s: %v, want an error about %s with a hint", tc.schedule, err, tc.field)
		}
	}
	for _, bad := range []string{`{"windows":[{"from":"24:00"}]}`, `{"windows":[{"days":["monday"]}]}`, `{"at":"2 pm"}`} {
		var s lockstep.Schedule
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := schedule.New(lockstep.Schedule{Interval: "1h", Windows: make([]lockstep.Window, 51)}); err == nil {
		t.Error("51 windows are taken")
	}
}
