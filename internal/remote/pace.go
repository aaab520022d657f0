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
// answers and is halved when the server says that it is too much. Places are given in
// the order in which they were asked for; an urgent call, see lockstep.WithUrgency,
// goes first and has one place more. It is safe for concurrent use.
type Pace struct {
	mu       sync.Mutex
	limit    float64
	ceiling  int
	inFlight int
	gate     time.Time
	held     time.Time // until when only urgent calls may go
	cut      time.Time // when the limit was last halved
	waiting  []*caller // in the order in which they get places, urgent ones first
	now      func() time.Time
	sleep    Sleeper
}

// caller is somebody who waits for a place.
type caller struct {
	ctx          context.Context
	urgent, poll bool
	placed       bool
	pause        time.Duration // until the gate opens, when places were last given
	// look is closed when the caller has its place, or has to look at the gate again;
	// nil while the caller waits for the gate.
	look chan struct{}
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
	p.place()
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

// closed returns for how long nobody of the caller's kind may call; 0 or less when it
// may now.
func (p *Pace) closed(c *caller) time.Duration {
	now := p.now()
	wait := p.gate.Sub(now)
	if held := p.held.Sub(now); !c.urgent && !c.poll && held > wait {
		// What is kept back is a courtesy and no limit: a call that could not
		// wait for the end of it goes.
		if end, ok := c.ctx.Deadline(); !ok || time.Until(end) >= held {
			return held
		}
	}
	return wait
}

// acquire waits for the gate and for a free place. When the gate opens only after
// ctx's deadline it answers CodeThrottled at once: waiting would be in vain.
func (p *Pace) acquire(ctx context.Context, poll bool) error {
	c := &caller{ctx: ctx, urgent: lockstep.Urgent(ctx), poll: poll}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := len(p.waiting)
	if c.urgent {
		at = slices.IndexFunc(p.waiting, func(w *caller) bool { return !w.urgent })
		if at < 0 {
			at = len(p.waiting)
		}
	}
	p.waiting = slices.Insert(p.waiting, at, c)
	for {
		p.place()
		if c.placed {
			return nil
		}
		if err := p.wait(c); err != nil {
			if c.placed { // the place came meanwhile: pass it on
				p.inFlight--
			} else {
				p.waiting = slices.DeleteFunc(p.waiting, func(w *caller) bool { return w == c })
			}
			p.place()
			return err
		}
	}
}

// wait lets go of the lock until the gate opens for the caller or, when it is open,
// until there is something to look at.
func (p *Pace) wait(c *caller) error {
	if pause := c.pause; pause > 0 {
		if end, ok := c.ctx.Deadline(); ok && time.Until(end) < pause {
			return &lockstep.Error{
				Code: lockstep.CodeThrottled, Scope: lockstep.ScopeConnection, After: pause,
				Msg: "the server asked for a pause that is longer than this call may take",
			}
		}
		sleep := p.sleep
		p.mu.Unlock()
		defer p.mu.Lock()
		return sleep(c.ctx, pause)
	}
	look := make(chan struct{})
	c.look = look
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-look:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// place gives the free places to those who wait, in their order. Who waited for a
// place and finds the gate closed is told to wait for that.
func (p *Pace) place() {
	p.waiting = slices.DeleteFunc(p.waiting, func(c *caller) bool {
		c.pause = p.closed(c)
		places := int(p.limit)
		if c.urgent {
			places++
		}
		if c.pause <= 0 && p.inFlight < places {
			c.placed = true
			p.inFlight++
		}
		if c.look != nil && (c.placed || c.pause > 0) {
			close(c.look)
			c.look = nil
		}
		return c.placed
	})
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
	p.place()
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

type turnKey struct{}

// WithTurn returns a context whose calls each wait for turn to return before they ask
// for a place. With it a test decides in which order those go that begin at the same
// moment.
func WithTurn(ctx context.Context, turn func(*http.Request)) context.Context {
	return context.WithValue(ctx, turnKey{}, turn)
}

// pacer puts Pace into the chain. The place is given back when the header of the
// answer is there: from then on the server has done its work.
type pacer struct {
	client *Client
	next   http.RoundTripper
}

func (p *pacer) RoundTrip(req *http.Request) (*http.Response, error) {
	pace := p.client.o.Pace
	if turn, ok := req.Context().Value(turnKey{}).(func(*http.Request)); ok {
		turn(req)
	}
	if err := pace.acquire(req.Context(), stateOf(req).call.Poll); err != nil {
		return nil, err
	}
	if admit := p.client.o.Admit; admit != nil {
		if wait := admit(req.Context(), stateOf(req).call.Poll); wait > 0 {
			pace.release(false, false, 0)
			return nil, &lockstep.Error{
				Code: lockstep.CodeThrottled, Scope: lockstep.ScopeConnection, After: wait, Err: lockstep.ErrBudget,
				Msg:  "the budget of calls to " + p.client.o.Title + " is used up",
				Hint: "it goes on by itself; to make it go on sooner, raise the budget",
			}
		}
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
