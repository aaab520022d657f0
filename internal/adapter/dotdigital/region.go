package dotdigital

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// defaultEndpoint answers account-info for accounts of every region (Dotdigital
// developer hub, "API endpoints").
const defaultEndpoint = "https://r1-api.dotdigital.com"

// parseEndpoint reads an API address as an administrator or the service gives it
// and brings it to the form that calls start with: no path, no trailing slash,
// today's host name for the old ones.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, invalid("dotdigital: API address", "endpoint", "the API address is not a web address", "give it like "+defaultEndpoint)
	}
	host := strings.ToLower(u.Host)
	if official(u.Hostname()) {
		if p := u.Port(); p != "" && p != "443" {
			return nil, invalid("dotdigital: API address", "endpoint", "Dotdigital does not serve this port", "give it like "+defaultEndpoint)
		}
		u.Scheme = "https"
		host = currentName(strings.ToLower(u.Hostname()))
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

// official reports whether a host is one of Dotdigital's API hosts, of today or
// from before the company changed its name.
func official(host string) bool {
	host = strings.ToLower(host)
	if host == "api.dotmailer.com" || host == "apiconnector.com" {
		return true
	}
	name, ok := strings.CutSuffix(host, "-api.dotdigital.com")
	if !ok {
		name, ok = strings.CutSuffix(host, "-api.dotmailer.com")
	}
	if !ok || name == "" || len(name) > 20 {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// currentName returns today's name of an official host.
func currentName(host string) string {
	if host == "api.dotmailer.com" || host == "apiconnector.com" {
		return "r1-api.dotdigital.com"
	}
	return strings.Replace(host, "-api.dotmailer.com", "-api.dotdigital.com", 1)
}

// link is the way to one API address.
type link struct {
	base *url.URL
	// calls repeats what a repeat can mend; singles gives up at the first failure.
	// They share connections and pace.
	calls, singles *remote.Client
}

// region is where the account lives, once it is known.
type region struct {
	mu    sync.Mutex
	links map[string]*link // by origin
	// account is the link to the account's region; nil = not known yet.
	account *link
	// confirmed is when a refused call last led to the same address again: the
	// refusal was then about rights, and need not be followed up each time.
	confirmed time.Time
}

// linkTo returns the link to an address. The caller holds the lock.
func (c *Client) linkTo(u *url.URL) (*link, error) {
	if l := c.region.links[u.String()]; l != nil {
		return l, nil
	}
	o := remote.Options{
		System: lockstep.SystemPlatform, Name: "dotdigital", Title: "Dotdigital", Base: u, Auth: c.auth,
		Limits: limits, Pace: c.pace, Admit: c.admit, OnAnswer: c.learnLimit, Log: c.log, Now: c.now, Sleep: c.sleep, Jitter: c.jitter, Transport: c.transport, AllowHosts: c.allowed,
	}
	once := o
	once.Limits.Attempts = 1
	var l link
	var err error
	l.base = u
	if l.calls, err = remote.New(o); err != nil {
		return nil, err
	}
	if l.singles, err = remote.New(once); err != nil {
		return nil, err
	}
	c.region.links[u.String()] = &l
	return &l, nil
}

// learnLimit keeps everybody waiting until the window of a rate limit ends.
func (c *Client) learnLimit(status int, h http.Header) {
	if status == http.StatusTooManyRequests && h.Get("Retry-After") == "" {
		if d := windowLeft(h); d > 0 {
			c.pace.Pause(d)
		}
	}
	left, errLeft := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	limit, errLimit := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	if errLimit == nil {
		c.grants.tiered.Store(true)
	}
	if errLeft == nil && errLimit == nil && left <= limit/reserve {
		if d := windowLeft(h); d > 0 {
			c.pace.Hold(d)
		}
	}
}

// reserve is the part of a rate limit, one in so many, that ordinary calls leave to
// opt-outs and to the account's other integrations.
const reserve = 5

// linkFor returns the link that a call goes over; the first call of all asks for
// the account's region.
func (c *Client) linkFor(ctx context.Context, q *call) (*link, error) {
	c.region.mu.Lock()
	defer c.region.mu.Unlock()
	if q.home {
		home := c.entered
		if official(home.Hostname()) {
			home, _ = url.Parse(defaultEndpoint)
		}
		return c.linkTo(home)
	}
	if l := c.region.account; l != nil {
		return l, nil
	}
	c.region.mu.Unlock()
	// Two first calls at once ask twice; both get the same answer.
	_, l, err := c.accountInfo(ctx, q.op, false)
	c.region.mu.Lock()
	return l, err
}

// settle takes the ApiEndpoint that account-info named. It never follows to a host
// outside Dotdigital that nobody entered: the next call would carry the
// credentials there.
func (c *Client) settle(op, named string) (*link, error) {
	u := c.entered
	if strings.TrimSpace(named) != "" {
		var err error
		if u, err = parseEndpoint(named); err != nil {
			return nil, &lockstep.Error{
				Code: lockstep.CodeUnavailable, Op: op, Scope: lockstep.ScopeConnection,
				Msg: "Dotdigital names an API address for the account that is none", Hint: "check the API address that was entered",
			}
		}
		if !c.mayReceiveCredentials(u) {
			return nil, &lockstep.Error{
				Code: lockstep.CodeGuarded, Op: op, Scope: lockstep.ScopeConnection, Field: "endpoint",
				Msg:  "the service names " + u.Host + " as the account's API address, which is not Dotdigital's; the credentials are not sent there",
				Hint: "check the API address that was entered; if that host is right, enter it",
			}
		}
	}
	c.region.mu.Lock()
	defer c.region.mu.Unlock()
	l, err := c.linkTo(u)
	if err == nil {
		c.region.account = l
	}
	return l, err
}

func (c *Client) mayReceiveCredentials(u *url.URL) bool {
	if official(u.Hostname()) {
		return u.Scheme == "https"
	}
	known := u.Host == c.entered.Host || slices.Contains(c.allowed, u.Host) || slices.Contains(c.allowed, u.Hostname())
	return known && (u.Scheme == "https" || c.entered.Scheme == "http")
}

// moved asks again where the account lives after a region refused it, and reports
// whether the answer is another address than before.
func (c *Client) moved(ctx context.Context, from *link) bool {
	c.region.mu.Lock()
	recent := !c.region.confirmed.IsZero() && c.now().Sub(c.region.confirmed).Abs() < 5*time.Minute
	current := c.region.account
	c.region.mu.Unlock()
	if current != from {
		return true // somebody else found out meanwhile
	}
	if recent {
		return false
	}
	_, l, err := c.accountInfo(ctx, "find the account's region", false)
	if err != nil {
		return false
	}
	if l != from {
		return true
	}
	c.region.mu.Lock()
	c.region.confirmed = c.now()
	c.region.mu.Unlock()
	return false
}
