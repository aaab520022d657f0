package e2e

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep/internal/remote"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

// haste is a clock that twins and product share. Whoever wants to wait does not:
// the clock moves on instead, so that an hour of a server's displeasure takes no
// time and every rule about it still holds.
type haste struct {
	*clock.Clock
	// skew is added to what the product takes for the time.
	skew func() time.Duration

	mu      sync.Mutex
	waits   []time.Duration
	answers []answer
}

// answer is what a twin said, when, by the shared clock.
type answer struct {
	twin, route string
	asked, said time.Time
	status      int
	retryAfter  string
}

func newHaste() *haste { return &haste{Clock: clock.New()} }

// newHasteAtNoon is newHaste at noon of the day after this process began: worlds that
// are compared begin on one day, also when the real one ends between them.
func newHasteAtNoon() *haste {
	h := newHaste()
	h.Advance(noon.Sub(h.Now()))
	return h
}

var noon = time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour)

// ours is what the product's own clock shows.
func (h *haste) ours() time.Time {
	if h.skew == nil {
		return h.Now()
	}
	return h.Now().Add(h.skew())
}

func (h *haste) sleep(ctx context.Context, d time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	h.waits = append(h.waits, d)
	h.mu.Unlock()
	h.Advance(d)
	return nil
}

// wrap notes what a twin answers.
func (h *haste) wrap(twinName string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answer{twin: twinName, route: r.Method + " " + r.URL.Path, asked: h.Now()}
		s := &statusOf{ResponseWriter: w}
		defer func() {
			a.said, a.status, a.retryAfter = h.Now(), s.code, w.Header().Get("Retry-After")
			h.mu.Lock()
			h.answers = append(h.answers, a)
			h.mu.Unlock()
		}()
		next.ServeHTTP(s, r)
	})
}

type statusOf struct {
	http.ResponseWriter
	code int
}

func (s *statusOf) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusOf) WriteHeader(code int) {
	if s.code == 0 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *statusOf) Write(b []byte) (int, error) {
	if s.code == 0 {
		s.code = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// forget begins a new record.
func (h *haste) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waits, h.answers = nil, nil
}

// repeats returns, for every answer with one of the codes, how long it took until
// the same was asked again; refusals that nobody followed up are left out.
func (h *haste) repeats(codes ...int) (pauses []time.Duration, of []answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, a := range h.answers {
		if !slices.Contains(codes, a.status) {
			continue
		}
		for _, b := range h.answers[i+1:] {
			if b.twin == a.twin && b.route == a.route && !b.asked.Before(a.said) {
				pauses, of = append(pauses, b.asked.Sub(a.said)), append(of, a)
				break
			}
		}
	}
	return pauses, of
}

// patient checks that nobody came back before the server wanted it, or before least
// where it said nothing sensible, and that no pause was longer than ten minutes.
func (h *haste) patient(t *testing.T, least time.Duration, codes ...int) {
	t.Helper()
	pauses, of := h.repeats(codes...)
	if len(pauses) == 0 {
		t.Errorf("nothing was refused with %v and asked again", codes)
	}
	for i, d := range pauses {
		want := least
		if s, err := strconv.Atoi(of[i].retryAfter); err == nil && s > 0 {
			want = min(max(least, time.Duration(s)*time.Second), remote.MaxPause)
		}
		if d < want {
			t.Errorf("%s %s: %d with Retry-After %q; asked again after %s, want at least %s", of[i].twin, of[i].route, of[i].status, of[i].retryAfter, d, want)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if longest := slices.Max(append(h.waits, 0)); longest > remote.MaxPause {
		t.Errorf("a wait of %s", longest)
	}
}
