package jobs

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

// watch is a Scheduler whose looks at the clock a test sees.
type watch struct {
	looks  chan string
	name   string
	inside *atomic.Int64
	next   func() time.Time
	until  atomic.Pointer[time.Time] // when the window opens
}

func (w *watch) Tick(ctx context.Context) (time.Time, error) {
	if n := w.inside.Add(1); n > 1 {
		w.looks <- "two at a time"
	}
	defer w.inside.Add(-1)
	select {
	case w.looks <- w.name:
	case <-ctx.Done():
	}
	return w.next(), ctx.Err()
}

func (w *watch) Window(context.Context, lockstep.Run) (time.Time, error) {
	if until := w.until.Load(); until != nil {
		return *until, nil
	}
	return time.Time{}, nil
}

func never() time.Time { return time.Time{} }

func scheduled(t *testing.T, o store.Options, timing timing, r Runner, w *watch) fixture {
	t.Helper()
	s, account := open(t, o)
	j, err := newJobs(context.Background(), s, r, w, nil, timing)
	ok(t, err)
	return fixture{j, s, account}
}

// The clock is looked at when work begins, at the time that the scheduler asked for,
// when it is woken and when a run has ended.
func TestClock(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		w := &watch{looks: make(chan string), inside: new(atomic.Int64)}
		soon := time.Now().Add(300 * time.Millisecond)
		asked := 0
		w.next = func() time.Time {
			if asked++; asked == 1 {
				return soon
			}
			return time.Time{}
		}
		f := scheduled(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }), w)
		f.begin(t)
		receive(t, w.looks)
		receive(t, w.looks)
		if time.Now().Before(soon) {
			t.Error("looked before it was asked to")
		}
		run := f.enqueue(t, "")
		receive(t, w.looks)
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCompleted {
			t.Errorf("%+v", got)
		}
		f.Wake()
		receive(t, w.looks)
	})
}

// Of two processes one looks at the clock, and the other one when that is gone.
func TestOneClock(t *testing.T) {
	o := store.Options{URL: pgtest.Database(t)}
	looks, inside := make(chan string), new(atomic.Int64)
	start := func(name string) fixture {
		timing := quick
		timing.deadAfter = time.Second
		return scheduled(t, o, timing, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }),
			&watch{looks: looks, name: name, inside: inside, next: time.Now})
	}
	first := start("first")
	ok(t, first.Start(t.Context()))
	receive(t, looks)
	second := start("second")
	second.begin(t)
	for range 20 {
		if got := receive(t, looks); got != "first" && got != "second" {
			t.Fatal(got)
		}
	}
	stopped := make(chan bool)
	go func() { first.end(t); close(stopped) }()
	for gone := false; !gone; {
		select {
		case <-looks:
		case <-stopped:
			gone = true
		}
	}
	for range 5 {
		if got := receive(t, looks); got != "second" {
			t.Fatal(got)
		}
	}
}

// A run of a schedule waits for its window; one that a person asks for does not.
func TestWaitsForItsWindow(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		w := &watch{looks: make(chan string, 1000), inside: new(atomic.Int64), next: never}
		far := time.Now().Add(time.Hour)
		w.until.Store(&far)
		var slices atomic.Int64
		f := scheduled(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) { slices.Add(1); return true, nil }), w)
		f.begin(t)
		run, err := f.Enqueue(t.Context(), lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists, Scheduled: true})
		ok(t, err)
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			got, err := f.s.Run(t.Context(), run.ID)
			ok(t, err)
			if strings.HasPrefix(got.Stage, "waiting for its window") {
				break
			}
			<-look.C
		}
		if slices.Load() != 0 {
			t.Fatal("it worked while its window was closed")
		}
		// It is in nobody's way: another run of the account's lists goes on.
		if got := f.wait(t, f.enqueue(t, "one list").ID); got.Status != lockstep.RunCompleted {
			t.Fatalf("%+v", got)
		}
		now, err := f.Enqueue(t.Context(), lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists})
		ok(t, err)
		if now.ID != run.ID {
			t.Fatalf("%+v", now)
		}
		ids := []string{now.ID}
		if now.Again != "" { // it was being looked at in that moment
			ids = append(ids, now.Again)
		}
		for _, id := range ids {
			if got := f.wait(t, id); got.Status != lockstep.RunCompleted || got.Scheduled {
				t.Errorf("%+v", got)
			}
		}
	})
}
