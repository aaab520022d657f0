package dataverse

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Limits are the service protection limits per user and web server, over a
// sliding window of five minutes. A zero number does not limit. Those of the
// service are 6,000 requests, 20 minutes of execution and 52 concurrent
// requests.
type Limits struct {
	Requests   int
	Execution  time.Duration
	Concurrent int
	// Servers is how many web servers serve the organization; 0 means 1. A client
	// stays on one as long as it returns the ARRAffinity cookie.
	Servers int
	// Parallel is the recommended degree of parallelism told in x-ms-dop-hint;
	// 0 means 4.
	Parallel int
}

// ServiceLimits are the documented limits of the service with two servers.
var ServiceLimits = Limits{Requests: 6000, Execution: 20 * time.Minute, Concurrent: 52, Servers: 2, Parallel: 8}

const limitWindow = 5 * time.Minute

type limiter struct {
	mu     sync.Mutex
	limits Limits
	next   int
	usage  map[usageKey]*usage
}

type usageKey struct {
	user   value.ID
	server int
}

// usage is what one user did on one server. Requests and execution are counted
// in slices of the window, so that a busy client costs no more memory.
type usage struct {
	slots    [slots]slot
	running  int
	refusals int // in a row
}

const slots = 60 // of five seconds

type slot struct {
	number   int64
	requests int
	busy     time.Duration
}

func newLimiter(l Limits) *limiter {
	if l.Servers <= 0 {
		l.Servers = 1
	}
	if l.Parallel <= 0 {
		l.Parallel = 4
	}
	return &limiter{limits: l, usage: map[usageKey]*usage{}}
}

// SetLimits replaces the service protection limits and forgets the usage.
func (s *Server) SetLimits(l Limits) {
	n := newLimiter(l)
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.limits.limits, s.limits.usage = n.limits, n.usage
}

// enter counts a request in, or refuses it. release counts it out and writes
// the usage headers into the answer.
func (l *limiter) enter(s *Server, u *principal, r *http.Request, op string) (release func(*answer), refusal *apiError) {
	now := s.clock.Now()
	started := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	limits := l.limits
	if hit, ok := s.faults.Take("dataverse", "throttle", op); ok {
		limits = throttleArgs(limits, hit.Args)
		if limits == l.limits {
			return nil, l.refuse(&usage{}, codeThrottleRequests, "Number of requests exceeded the limit of 6000 over time window of 300 seconds.", 0)
		}
	}
	server := l.server(r)
	key := usageKey{u.real, server}
	use := l.usage[key]
	if use == nil {
		use = &usage{}
		l.usage[key] = use
	}
	n := now.Unix() / int64(limitWindow/slots/time.Second)
	requests, busy, oldest := use.total(n)
	wait := time.Duration(oldest+slots-n) * (limitWindow / slots)
	switch {
	case limits.Concurrent > 0 && use.running >= limits.Concurrent:
		return nil, l.refuse(use, codeThrottleConcurrent, "Number of concurrent requests exceeded the limit of "+strconv.Itoa(limits.Concurrent)+".", 0)
	case limits.Requests > 0 && requests >= limits.Requests:
		return nil, l.refuse(use, codeThrottleRequests, "Number of requests exceeded the limit of "+strconv.Itoa(limits.Requests)+" over time window of 300 seconds.", wait)
	case limits.Execution > 0 && busy >= limits.Execution:
		return nil, l.refuse(use, codeThrottleTime, "Combined execution time of incoming requests exceeded limit of "+
			strconv.FormatInt(limits.Execution.Milliseconds(), 10)+" milliseconds over time window of 300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.", wait)
	}
	use.refusals = 0
	use.running++
	sl := use.at(n)
	sl.requests++
	remaining := 6000
	if limits.Requests > 0 {
		remaining = limits.Requests - requests - 1
	}
	timeLeft := 1200 * time.Second
	if limits.Execution > 0 {
		timeLeft = limits.Execution - busy
	}
	return func(a *answer) {
		l.mu.Lock()
		use.running--
		use.at(n).busy += time.Since(started)
		l.mu.Unlock()
		if a == nil { // the call panicked
			return
		}
		a.set("X-Ms-Ratelimit-Burst-Remaining-Xrm-Requests", strconv.Itoa(remaining))
		a.set("X-Ms-Ratelimit-Time-Remaining-Xrm-Requests", strconv.FormatFloat(timeLeft.Seconds(), 'f', 2, 64))
		a.set("X-Ms-Dop-Hint", strconv.Itoa(limits.Parallel))
		a.set("Set-Cookie", "ARRAffinity=server"+strconv.Itoa(server)+"; Path=/; HttpOnly")
	}, nil
}

// refuse words a 429. Going on regardless makes the wait longer.
func (l *limiter) refuse(use *usage, code, message string, wait time.Duration) *apiError {
	use.refusals++
	wait = max(wait, time.Second) + time.Duration(min(use.refusals-1, 120))*time.Second
	e := fail(http.StatusTooManyRequests, code, "%s", message)
	e.header = http.Header{"Retry-After": {strconv.Itoa(int(wait.Seconds()))}}
	return e
}

// server picks the web server of a request: the one its cookie names, else the
// next in turn.
func (l *limiter) server(r *http.Request) int {
	if c, err := r.Cookie("ARRAffinity"); err == nil {
		if n, err := strconv.Atoi(strings.TrimPrefix(c.Value, "server")); err == nil && n >= 0 && n < l.limits.Servers {
			return n
		}
	}
	l.next = (l.next + 1) % l.limits.Servers
	return l.next
}

func (u *usage) at(n int64) *slot {
	s := &u.slots[n%slots]
	if s.number != n {
		*s = slot{number: n}
	}
	return s
}

// total adds up the window that ends with slot n and names its oldest busy slot.
func (u *usage) total(n int64) (requests int, busy time.Duration, oldest int64) {
	oldest = n
	for _, s := range u.slots {
		if s.number > n-slots && s.number <= n && (s.requests > 0 || s.busy > 0) {
			requests += s.requests
			busy += s.busy
			oldest = min(oldest, s.number)
		}
	}
	return requests, busy, oldest
}
