package remote

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// The bounds of a pause that a server asks for. A shorter one is taken as a
// second; a longer one as ten minutes, after which we ask again.
const (
	MinPause = time.Second
	MaxPause = 10 * time.Minute
)

// RetryAfter reads a Retry-After header: seconds, with a fraction or not, or an
// HTTP date, compared with the answer's own Date so that a wrong clock on either
// side does no harm. The result is bounded. ok is false when there is none or it
// cannot be read.
func RetryAfter(h http.Header, now time.Time) (d time.Duration, ok bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil && s == s {
		switch {
		case s > MaxPause.Seconds():
			return MaxPause, true
		case s < MinPause.Seconds():
			return MinPause, true
		}
		return time.Duration(s * float64(time.Second)), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), MinPause), MaxPause), true
}

// Pace is the budget of one remote account: how many calls are in flight, and
// until when nobody may call. The number climbs by one for each full round of
// answers and is halved when the server says that it is too much. An urgent call, see
// lockstep.WithUrgency, goes first and has one place more. It is safe for concurrent
// use.
type Pace struct {
	mu       sync.Mutex
	limit    float64
	ceiling  int
	inFlight int
	gate     time.Time
	held     time.Time // until when only urgent calls may go
	cut      time.Time // when the limit was last halved
	waiting  []chan struct{}
	now      func() time.Time
	sleep    Sleeper
}

// Sleeper waits for d, or until ctx ends, whose cause it then returns.
type Sleeper func(ctx context.Context, d time.Duration) error

// NewPace returns a budget that begins with start calls in flight and never
// exceeds ceiling.
func NewPace(start, ceiling int) *Pace {
	ceiling = max(ceiling, 1)
	return &Pace{limit: float64(min(max(start, 1), ceiling)), ceiling: ceiling, now: time.Now, sleep: Sleep}
}

// goBy makes the pace go by another clock.
func (p *Pace) goBy(now func() time.Time, sleep Sleeper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.sleep = now, sleep
}

// SetCeiling changes the most calls in flight, for example to what the server
// recommends.
func (p *Pace) SetCeiling(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ceiling = max(n, 1)
	p.limit = min(p.limit, float64(p.ceiling))
	p.wake()
}

// InFlight returns the calls in flight and how many are allowed now.
func (p *Pace) InFlight() (now, limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight, int(p.limit)
}

// Pause keeps everybody from calling for d.
func (p *Pace) Pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := p.now().Add(d); until.After(p.gate) {
		p.gate = until
	}
}

// Hold keeps all but urgent calls, and questions about jobs, which services do not
// count, from calling for d: what is left of a rate limit is theirs.
func (p *Pace) Hold(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := p.now().Add(d); until.After(p.held) {
		p.held = until
	}
}

// acquire waits for the gate and for a free place. When the gate opens only after
// ctx's deadline it answers CodeThrottled at once: waiting would be in vain.
func (p *Pace) acquire(ctx context.Context, poll bool) error {
	urgent := lockstep.Urgent(ctx)
	for {
		p.mu.Lock()
		gate := p.gate
		if !urgent && !poll && p.held.After(gate) {
			// What is kept back is a courtesy and no limit: a call that could not
			// wait for the end of it goes.
			if end, ok := ctx.Deadline(); !ok || time.Until(end) >= p.held.Sub(p.now()) {
				gate = p.held
			}
		}
		if d := gate.Sub(p.now()); d > 0 {
			sleep := p.sleep
			p.mu.Unlock()
			if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
				return &lockstep.Error{
					Code: lockstep.CodeThrottled, Scope: lockstep.ScopeConnection, After: d,
					Msg: "the server asked for a pause that is longer than this call may take",
				}
			}
			if err := sleep(ctx, d); err != nil {
				return err
			}
			continue
		}
		places := int(p.limit)
		if urgent {
			places++
		}
		if p.inFlight < places {
			p.inFlight++
			p.mu.Unlock()
			return nil
		}
		turn := make(chan struct{})
		if urgent {
			p.waiting = slices.Insert(p.waiting, 0, turn)
		} else {
			p.waiting = append(p.waiting, turn)
		}
		p.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			p.mu.Lock()
			select {
			case <-turn: // the turn came meanwhile: pass it on
				p.wake()
			default:
				for i, w := range p.waiting {
					if w == turn {
						p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
						break
					}
				}
			}
			p.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

func (p *Pace) release(throttled, answered bool, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	full := p.inFlight >= int(p.limit)
	p.inFlight--
	now := p.now()
	switch {
	case throttled:
		// One burst of refusals is one message: halve once a second at most.
		if now.Sub(p.cut) >= time.Second || p.cut.IsZero() {
			p.limit = max(1, p.limit/2)
			p.cut = now
		}
		if until := now.Add(pause); until.After(p.gate) {
			p.gate = until
		}
	case answered && full && p.limit < float64(p.ceiling):
		p.limit = min(float64(p.ceiling), p.limit+1/p.limit)
	}
	p.wake()
}

// wake lets as many waiting callers look again as there are free places.
func (p *Pace) wake() {
	for free := max(int(p.limit)-p.inFlight, 0); free > 0 && len(p.waiting) > 0; free-- {
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
	}
}

// Sleep is the Sleeper of real time.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pacer puts Pace into the chain. The place is given back when the header of the
// answer is there: from then on the server has done its work.
type pacer struct {
	client *Client
	next   http.RoundTripper
}

func (p *pacer) RoundTrip(req *http.Request) (*http.Response, error) {
	pace := p.client.o.Pace
	if err := pace.acquire(req.Context(), stateOf(req).call.Poll); err != nil {
		return nil, err
	}
	resp, err := p.next.RoundTrip(req)
	if err != nil {
		pace.release(false, false, 0)
		return nil, err
	}
	throttled := resp.StatusCode == http.StatusTooManyRequests
	pause, asked := RetryAfter(resp.Header, p.client.o.Now())
	if resp.StatusCode == http.StatusServiceUnavailable && asked {
		throttled = true
	}
	if throttled && !asked {
		pause = MinPause + p.client.backoff(stateOf(req).attempt, p.client.o.Limits.Backoff)
	}
	pace.release(throttled, true, pause)
	return resp, nil
}
