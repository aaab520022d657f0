// Package dotdigital is the adapter to an email account of Dotdigital (formerly
// dotmailer). Contacts go through the contacts API v3; address books, data fields
// and removals from address books exist in API v2 only.
//
// Facts of the service that decide how this package works:
//
//   - An account lives in one region and is refused by the others; account-info
//     of region r1 tells every account's API address (developer hub, "API
//     endpoints").
//   - A bulk import is accepted first and carried out later. Its result names the
//     contact id of every row and the rows that were refused; the two are not
//     disjoint (contacts API v3, "Import contacts").
//   - Rate limits come as 429 with X-RateLimit headers or, for older API users, as
//     400 with ERROR_APIUSAGE_EXCEEDED (developer hub, "Call rate limits").
//   - The listing filters by modification time with "greater or equal" only, and
//     that time is the service's.
//
// An import never carries a subscription status or resubscribe options: a person who
// opted out stays opted out whatever is imported. Opt-outs travel by Suppress alone,
// and back by Resubscribe alone, which leaves the last word to the person.
//
// Where the service's documentation is silent this package takes the careful
// reading: a contact whose email channel has no subscription is not mailable, a
// channel status that is not known counts as blocked by the platform, list and
// data field names are compared without regard to case, and an account's
// answer "not found" counts only in the API's own error shape.
package dotdigital

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// The limits of one call.
const (
	// maxImport is our own choice below the 50 MB that an import may have: a
	// repeat stays cheap and two imports can overlap.
	maxImport = 25_000
	// maxRemove is our own choice; the service publishes no limit.
	maxRemove = 1000
)

// Client is a connection to one Dotdigital account. It is safe for concurrent use.
type Client struct {
	entered   *url.URL // the API address the administrator entered
	allowed   []string // hosts an administrator entered, which may be internal
	auth      remote.Authorizer
	transport http.RoundTripper
	pace      *remote.Pace
	admit     remote.Admitter
	grants    grants
	log       *slog.Logger
	now       func() time.Time
	sleep     remote.Sleeper // nil = in real time
	jitter    func(n int64) int64
	waits     waits
	pageSize  int // contacts of a page
	maxBody   int // bytes of one import

	region region
	fields fieldCache
}

var _ lockstep.Platform = (*Client)(nil)

// Kind describes the adapter for the register.
func Kind() adapter.Kind {
	return adapter.Kind{
		Name:  "dotdigital",
		Title: "Dotdigital",
		Options: []adapter.Option{
			{
				Name: "endpoint", Title: "API address", Type: adapter.URL, Default: defaultEndpoint, Example: defaultEndpoint,
				Help: "The account's region is found by itself; change this only for a test system.",
			},
			{
				Name: "user", Title: "API user", Type: adapter.Text, Required: true, Example: "apiuser-0123456789ab@apiconnector.com",
				Help: "Create an API user for Lockstep alone under Settings, Access, API users.",
			},
			{
				Name: "password", Title: "API password", Type: adapter.Secret, Required: true,
				Help: "The password of the API user.",
			},
		},
		OpenPlatform: func(ctx context.Context, s adapter.Settings, env adapter.Env) (lockstep.Platform, error) {
			return Open(ctx, s, env)
		},
	}
}

// Open returns a client for the account that the settings name. It makes no call:
// the account's region is found with the first one.
func Open(_ context.Context, s adapter.Settings, env adapter.Env) (*Client, error) {
	s, err := Kind().Validate(s)
	if err != nil {
		return nil, err
	}
	entered, err := parseEndpoint(s["endpoint"])
	if err != nil {
		return nil, err
	}
	c := &Client{
		entered:   entered,
		allowed:   slices.Clone(env.AllowHosts),
		auth:      remote.Basic(s["user"], s["password"]),
		transport: env.Transport,
		pace:      remote.NewPace(4, 16),
		admit:     env.Admit,
		log:       env.Log,
		now:       env.Now,
		sleep:     env.Sleep,
		jitter:    env.Jitter,
		waits:     defaultWaits,
		pageSize:  cmp.Or(env.PageRows, contactPage),
		maxBody:   maxImportBody,
		region:    region{links: map[string]*link{}},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.jitter == nil {
		c.jitter = rand.Int64N
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.transport == nil {
		c.transport = remote.NewTransport(limits, c.allowed)
	}
	c.transport = quota{c.transport}
	if _, err := c.linkTo(entered); err != nil {
		return nil, err
	}
	return c, nil
}

// MaxImport is the most rows that Import takes.
func (c *Client) MaxImport() int { return maxImport }

// MaxRemove is the most contacts that RemoveFromBook takes.
func (c *Client) MaxRemove() int { return maxRemove }
