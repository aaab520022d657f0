package remote_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// budget is a server that allows a number of calls in each window and puts off the
// others until there is room again. A window slides, or begins anew at fixed times.
type budget struct {
	calls   int
	window  time.Duration
	sliding bool
	latency func() time.Duration

	mu       sync.Mutex
	taken    []time.Time // when the calls of the window were taken on
	served   int
	refused  int
	inFlight int
	most     int
	closed   time.Time // nobody was to call before
	since    time.Time // when that was said
	early    int
}

func (b *budget) answer(int32, *http.Request) *http.Response {
	b.mu.Lock()
	now := time.Now()
	if now.After(b.since) && now.Before(b.closed) {
		b.early++
	}
	b.inFlight++
	b.most = max(b.most, b.inFlight)
	begin := now.Add(-b.window)
	if !b.sliding {
		begin = now.Truncate(b.window).Add(-1)
	}
	for len(b.taken) > 0 && !b.taken[0].After(begin) {
		b.taken = b.taken[1:]
	}
	ok := len(b.taken) < b.calls
	room := now
	switch {
	case ok:
		b.taken = append(b.taken, now)
	case b.sliding:
		room = b.taken[0].Add(b.window)
	default:
		room = now.Truncate(b.window).Add(b.window)
	}
	b.mu.Unlock()
	time.Sleep(b.latency())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if ok {
		b.served++
		return &http.Response{StatusCode: http.StatusOK}
	}
	b.refused++
	now = time.Now()
	wait := max(1, int((room.Sub(now)+time.Second-1)/time.Second))
	// Of a longer wait, the product asks again after MaxPause.
	if until := now.Add(min(time.Duration(wait)*time.Second, remote.MaxPause)); until.After(b.closed) {
		b.since, b.closed = now, until
	}
	return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {strconv.Itoa(wait)}}}
}

// TestPaceUsesWhatIsAllowed plays an hour of calls against servers with all kinds of
// budgets: never more calls in flight than allowed, never one before the time that the
// server named, and at least 85 % of the calls that budget and latency allow.
func TestPaceUsesWhatIsAllowed(t *testing.T) {
	hours := 12
	if n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS")); err == nil {
		hours = max(n/2000, 1)
	}
	for seed := range uint64(hours) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		ceiling := 1 + rnd.IntN(24)
		latency := time.Duration(50+rnd.IntN(2000)) * time.Millisecond
		steady := rnd.IntN(2) == 0
		window := []time.Duration{time.Minute, 5 * time.Minute, time.Hour}[rnd.IntN(3)]
		// What the calls in flight could do at most, and a budget below or above it.
		possible := float64(ceiling) * float64(time.Hour) / float64(latency)
		b := &budget{
			window: window, sliding: rnd.IntN(2) == 0,
			calls: max(1, int(min(possible, 20_000)*[]float64{0.05, 0.3, 0.8, 1.5}[rnd.IntN(4)]*window.Hours())),
			latency: func() time.Duration {
				if steady {
					return latency
				}
				return latency/2 + time.Duration(rnd.Int64N(int64(latency)))
			},
		}
		workers, urgent := ceiling*(1+rnd.IntN(3)), rnd.IntN(3)
		name := fmt.Sprintf("hour %d: %d calls in %v, sliding %v, %d in flight of %v, %d workers", seed, b.calls, window, b.sliding, ceiling, latency, workers)
		synctest.Test(t, func(t *testing.T) {
			pace := remote.NewPace(4, ceiling)
			c := virtual(t, pace, b.answer)
			begin := time.Now()
			// Truncate goes by the calendar: the hour begins with a window.
			time.Sleep(begin.Truncate(time.Hour).Add(time.Hour).Sub(begin))
			end := time.Now().Add(time.Hour)
			var wg sync.WaitGroup
			for i := range workers + urgent {
				wg.Go(func() {
					ctx, pause := t.Context(), time.Duration(0)
					if i >= workers { // an opt-out now and then
						ctx, pause = lockstep.WithUrgency(ctx), 10*time.Second
					}
					for time.Now().Before(end) {
						time.Sleep(pause)
						_, _ = c.Do(ctx, remote.Call{Op: "read", Method: http.MethodGet, URL: c.Base()})
					}
				})
			}
			time.Sleep(time.Until(end))
			b.mu.Lock()
			served, refused, most, early := b.served, b.refused, b.most, b.early
			b.mu.Unlock()
			limit := ceiling
			if urgent > 0 {
				limit++ // the place of urgent calls
			}
			if most > limit {
				t.Errorf("%s: %d in flight", name, most)
			}
			if early > 0 {
				t.Errorf("%s: %d calls before the time that the server named", name, early)
			}
			allowed := float64(b.calls) * float64(time.Hour) / float64(window)
			if share := float64(served) / min(allowed, possible); share < 0.85 {
				t.Errorf("%s: %d calls served and %d refused, %.0f %% of what is possible", name, served, refused, 100*share)
			}
			wg.Wait()
			if n, _ := pace.InFlight(); n != 0 {
				t.Errorf("%s: %d in flight in the end", name, n)
			}
		})
	}
}
