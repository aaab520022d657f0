package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

func TestBreakerTrips(t *testing.T) {
	ref := lockstep.Ref{Table: "contact", ID: lockstep.ID{1}}
	for name, c := range map[string]struct {
		writes string // one run after the other: where it wrote to; "-" = nothing
		every  time.Duration
		trips  bool
	}{
		"nobody wrote":                     {"", time.Second, false},
		"back and forth":                   {"p c p c p", 14 * time.Second, true},
		"back and forth within runs":       {"pc pc pc pc pc", 14 * time.Second, true},
		"four runs":                        {"pc pc pc pc", time.Second, false},
		"somebody types fast":              {"p p p p p p p p p", time.Second, false},
		"somebody types fast in the CRM":   {"c c c c c c c c c", time.Second, false},
		"an answer once":                   {"p p c p p p", time.Second, false},
		"slowly":                           {"p c p c p c p c p", 15 * time.Second, false},
		"runs between which wrote nothing": {"p - c - p - c - p", 7 * time.Second, true},
		"a rest after four":                {"p c p c - - - - - p", 10 * time.Second, false},
		"more than five":                   {"p p p p c p c p", 5 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			for i, to := range strings.Fields(c.writes) {
				now = now.Add(c.every)
				if strings.Contains(to, "c") {
					b.wrote(ref, fmt.Sprint(i), toCRM, now)
				}
				if strings.Contains(to, "p") {
					b.wrote(ref, fmt.Sprint(i), toPlatform, now)
				}
			}
			if got := b.trips(ref, now); got != c.trips {
				t.Errorf("trips: %v", got)
			}
			if b.trips(lockstep.Ref{Table: "lead", ID: ref.ID}, now) {
				t.Error("another record trips")
			}
			if b.trips(ref, now.Add(-time.Hour)) {
				t.Error("trips by a clock that was set back")
			}
		})
	}
}

// Each hold is twice as long as the one before, unless the record rested as long as the
// last one; a hold begins to count anew.
func TestBreakerHoldsLonger(t *testing.T) {
	ref := lockstep.Ref{Table: "contact", ID: lockstep.ID{1}}
	var b breaker
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	run := 0
	quarrel := func() time.Duration {
		t.Helper()
		for !b.trips(ref, now) {
			if run++; run > 1000 {
				t.Fatal("never trips")
			}
			now = now.Add(time.Second)
			b.wrote(ref, fmt.Sprint(run), direction(run%2), now)
		}
		n := b.next(ref, now)
		d := lockstep.RetryDelay(n)
		b.hold(ref, n, now.Add(d))
		if !b.held(ref) {
			t.Fatal("not held")
		}
		now = now.Add(d)
		b.release(ref)
		if b.held(ref) || b.trips(ref, now) {
			t.Fatal("not counted from the beginning")
		}
		return d
	}
	var got []time.Duration
	for range 4 {
		got = append(got, quarrel())
	}
	now = now.Add(time.Hour)
	got = append(got, quarrel())
	if want := fmt.Sprint([]time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 5 * time.Minute}); fmt.Sprint(got) != want {
		t.Errorf("held for %v, want %s", got, want)
	}
}

// However many records are written, few are remembered; those that rest make room, and
// one that is held does not.
func TestBreakerIsBounded(t *testing.T) {
	ref := func(n int) lockstep.Ref {
		return lockstep.Ref{Table: "contact", ID: lockstep.ID{byte(n), byte(n >> 8), byte(n >> 16)}}
	}
	var b breaker
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.wrote(ref(0), "first", toCRM, now)
	b.hold(ref(0), 1, now.Add(5*time.Minute))
	for n := range 3 * breakRows {
		b.wrote(ref(n), "run", toPlatform, now)
	}
	if len(b.rows) != breakRows {
		t.Fatalf("%d records are remembered", len(b.rows))
	}
	now = now.Add(2 * time.Minute)
	b.wrote(ref(2*breakRows), "later", toPlatform, now)
	if len(b.rows) != 2 || !b.held(ref(0)) {
		t.Errorf("%d records are remembered, the first is held: %v", len(b.rows), b.held(ref(0)))
	}
	for n := range 3 * breakRows {
		b.wrote(ref(n), "much later", toPlatform, now.Add(time.Hour))
	}
	now = now.Add(2 * time.Hour)
	b.wrote(ref(2*breakRows), "at last", toPlatform, now)
	if len(b.rows) != 1 {
		t.Errorf("%d records are remembered at last", len(b.rows))
	}
}
