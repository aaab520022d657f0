package dotdigital

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Scheme is how an API user's calls are limited.
type Scheme string

// The two schemes that accounts are met with; Unlimited is the default here.
const (
	Unlimited Scheme = ""
	Tiered    Scheme = "tiered"
	Flat      Scheme = "flat"
)

// RateLimit configures the limits. The service does not publish the numbers of
// the tiers; zero values mean 150, 600 and 1,200 a minute and 2,000 an hour.
type RateLimit struct {
	Scheme Scheme
	// Low, Medium and High are calls a minute of the three limited tiers.
	Low, Medium, High int
	// Hourly is the limit of the flat scheme over a rolling hour.
	Hourly int
}

type tier uint8

const (
	low tier = iota
	medium
	high
	free
)

var tierScopes = [...]string{"lowCallRate", "mediumCallRate", "highCallRate", "unlimitedCallRate"}

// limiter counts calls in the twins' time.
type limiter struct {
	mu     sync.Mutex
	rule   RateLimit
	window int64
	used   [free]int
	// minutes are the calls of the last hour by minute, for the flat scheme.
	minutes [60]struct {
		minute int64
		calls  int
	}
}

func (l *limiter) init(rule RateLimit) {
	for _, d := range []struct {
		n         *int
		byDefault int
	}{{&rule.Low, 150}, {&rule.Medium, 600}, {&rule.High, 1200}, {&rule.Hourly, 2000}} {
		if *d.n == 0 {
			*d.n = d.byDefault
		}
	}
	l.rule = rule
}

// SetRateLimit replaces the limits and forgets the calls counted so far.
func (s *Server) SetRateLimit(rule RateLimit) {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.limits.init(rule)
	s.limits.used = [free]int{}
	clear(s.limits.minutes[:])
}

func (l *limiter) hourLocked(minute int64) int {
	n := 0
	for _, m := range l.minutes {
		if m.minute > minute-60 {
			n += m.calls
		}
	}
	return n
}

// hour returns the calls of the last hour and those that remain.
func (l *limiter) hour(now int64) (used, left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used = l.hourLocked(now / time.Minute.Milliseconds())
	return used, max(0, l.rule.Hourly-used)
}

var errFlatLimit = v2Error("ERROR_APIUSAGE_EXCEEDED",
	"Your account has generated excess API activity and is being temporarily capped. Please contact support.")

func (l *limiter) admit(c *call) error {
	now := c.s.now()
	minute := now / time.Minute.Milliseconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	scheme := l.rule.Scheme
	hit, forced := c.s.faults.Take(twinName, "throttle", c.route.operation)
	if forced {
		var args struct {
			Scheme Scheme `json:"scheme"`
		}
		if len(hit.Args) > 0 {
			_ = json.Unmarshal(hit.Args, &args)
		}
		if args.Scheme != Unlimited {
			scheme = args.Scheme
		}
		if scheme == Unlimited {
			scheme = Tiered
		}
	}
	if scheme == Flat {
		if forced || !c.route.uncounted && l.hourLocked(minute) >= l.rule.Hourly {
			return l.flatRefusal(c)
		}
	}
	slot := &l.minutes[minute%60]
	if slot.minute != minute {
		slot.minute, slot.calls = minute, 0
	}
	if !c.route.uncounted {
		slot.calls++
	}
	if scheme != Tiered {
		return nil
	}
	if l.window != minute {
		l.window, l.used = minute, [free]int{}
	}
	t := c.route.tier
	h := c.w.Header()
	reset := (minute + 1) * 60
	h.Set("X-RateLimit-Scope", tierScopes[t])
	h.Set("X-RateLimit-Reset", strconv.FormatInt(reset, 10))
	if t == free && !forced {
		return nil
	}
	t = min(t, high)
	limit := [...]int{l.rule.Low, l.rule.Medium, l.rule.High}[t]
	over := l.used[t] >= limit || forced
	if !over {
		l.used[t]++
	}
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	left := limit - l.used[t]
	if forced {
		left = 0
	}
	h.Set("X-RateLimit-Remaining", strconv.Itoa(left))
	if over {
		return &apiError{
			status: http.StatusTooManyRequests, code: "tooManyRequests", bare: true,
			text: "The call rate limit of this scope is used up until the time in X-RateLimit-Reset.",
		}
	}
	return nil
}

// flatRefusal is a 400 in both API versions.
func (l *limiter) flatRefusal(c *call) error {
	if c.family.service == "" {
		return errFlatLimit
	}
	return v3Error(http.StatusBadRequest, "badRequest", errFlatLimit.text+" "+errFlatLimit.code)
}
