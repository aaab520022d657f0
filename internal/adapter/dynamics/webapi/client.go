// Package webapi is the CRM port over the Dataverse Web API (OData v4), online and
// on-premises, versions 8.0 to 9.2.
//
// Records are read in pages of 5,000 and scanned, not decoded; the request for the
// next page leaves as soon as its link is seen. Changes come from change tracking;
// a table without it is polled by its modification time, which cannot see deletes.
// Columns one lookup away are read in a second step, because change tracking
// allows no expansion.
//
// Rows are written with the bulk messages where a table has them, otherwise in
// $batch; a call that one row spoils is repeated row by row in one $batch. Every
// write can be repeated: creates carry ids that the caller chose, updates set
// values, adding a member twice is silent, removing twice is recognised.
//
// Our own tables are described in package solution; they are added and removed one
// component a call, and what is there is compared first, so that either can be
// stopped and begun again anywhere.
//
// Addresses of people travel in request bodies only: a query by email is sent
// inside $batch, so that no proxy or server log keeps it as part of a URL.
//
// Readings chosen where Microsoft's documentation is silent: the In function takes
// JSON strings and matches exactly; the version of a membership is its
// versionnumber; a 503 with Retry-After was not carried out.
package webapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/signin"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// Limits of the service that shape our calls.
const (
	pageSize     = 5000     // rows of a page, the service's maximum
	maxURL       = 30_000   // bytes of a plain request's address; the service allows 32 KB
	maxBatchURL  = 60_000   // bytes of an address inside $batch; the service allows 64 KB
	maxInFlight  = 50       // concurrent calls; 52 are refused
	writeRows    = 100      // rows of a write call
	bindMembers  = 1000     // members of one AddListMembersList
	batchParts   = 100      // operations of a $batch that writes; 1,000 are allowed
	maxListQuery = 1 << 20  // bytes of a dynamic list's query
	listRow      = 16 << 20 // bytes of one marketing list with its query
)

// Client is the connection to one organization. It is safe for concurrent use.
type Client struct {
	http  *remote.Client
	allow []string // see adapter.Env.AllowHosts
	root  string   // path of the organization: "" online, "/Contoso" on-premises
	now   func() time.Time
	log   *slog.Logger
	// sleep waits; tests let the time pass at once.
	sleep remote.Sleeper
	// jitter returns a number from 0 to below n, with which waits are spread.
	jitter func(n int64) int64
	// pageRows is pageSize; tests take less.
	pageRows int

	// asking is held by the one caller that negotiates the version.
	asking chan struct{}

	mu      sync.Mutex
	version string // "v9.2" once negotiated
	server  string // the server's own version, when it was asked
	tables  map[string]*table
	bulk    map[string]bulkMessages
	// unversioned are tables that cannot compare versions before they write.
	unversioned map[string]bool
	identity    lockstep.OrganizationIdentity
}

var (
	_ lockstep.CRM             = (*Client)(nil)
	_ lockstep.MemberTester    = (*Client)(nil)
	_ lockstep.MemberDecider   = (*Client)(nil)
	_ lockstep.DependantReader = (*Client)(nil)
	_ lockstep.KeyReader       = (*Client)(nil)
	_ lockstep.RestoreReader   = (*Client)(nil)
)

// Open returns a client for the organization that the settings describe. It sends
// nothing: the first call signs in and finds out the version.
func Open(_ context.Context, s adapter.Settings, env adapter.Env) (*Client, error) {
	base, root, err := organizationURL(s["url"], env.AllowHosts)
	if err != nil {
		return nil, err
	}
	c := &Client{root: root, allow: env.AllowHosts, now: env.Now, log: env.Log, sleep: env.Sleep, jitter: env.Jitter, tables: map[string]*table{}, bulk: map[string]bulkMessages{}, unversioned: map[string]bool{}, asking: make(chan struct{}, 1), pageRows: cmp.Or(env.PageRows, pageSize)}
	if c.now == nil {
		c.now = time.Now
	}
	if c.jitter == nil {
		c.jitter = rand.Int64N
	}
	if c.sleep == nil {
		c.sleep = remote.Sleep
	}
	source, err := signin.New(signin.Config{
		Authority: s["authority"], Tenant: s["tenant"], ClientID: s["client_id"], Secret: s["client_secret"], Certificate: s["certificate"],
		Resource: base.Scheme + "://" + base.Host, Discover: c.discoverAuthority,
		Now: env.Now, Sleep: c.sleep, Log: env.Log, Transport: env.Transport, AllowHosts: env.AllowHosts,
	})
	if err != nil {
		return nil, err
	}
	c.http, err = remote.New(remote.Options{
		System: lockstep.SystemCRM, Name: "dynamics", Title: "Dynamics", Base: base, Auth: source, Limits: limitsFor(s),
		Pace: remote.NewPace(4, 16), Admit: env.Admit, Log: env.Log, Now: env.Now, Sleep: env.Sleep, Jitter: env.Jitter, Transport: env.Transport, AllowHosts: env.AllowHosts,
		OnAnswer: func(_ int, h http.Header) { c.observe(h) },
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// limitsFor is a seam for tests, which cannot wait for a minute.
var limitsFor = func(adapter.Settings) remote.Limits { return remote.Limits{} }

// observe follows the parallelism that the service recommends.
func (c *Client) observe(h http.Header) {
	if v := h.Get("X-Ms-Dop-Hint"); v != "" {
		if n, err := strconv.Atoi(v); err == nil && n > 0 {
			c.http.Pace().SetCeiling(min(n, maxInFlight))
		}
	}
}

// organizationURL takes an address as people copy it, the path of the API or of a
// page included, and returns the origin and the organization's path.
func organizationURL(raw string, allow []string) (*url.URL, string, error) {
	raw = strings.TrimSpace(raw)
	bad := func(err error) error {
		e := lockstep.AsError(err)
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "url", Op: "dynamics", Msg: "the organization's address cannot be used: " + e.Msg, Hint: e.Hint, Scope: lockstep.ScopeConnection}
	}
	if err := remote.CheckURL(raw, allow); err != nil {
		return nil, "", bad(err)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, "", bad(err)
	}
	path := u.Path
	for _, cut := range []string{"/api/", "/main.aspx", "/XRMServices"} {
		if i := strings.Index(path, cut); i >= 0 {
			path = path[:i]
		}
	}
	path = strings.Trim(path, "/")
	if strings.ContainsAny(path, "/%?#\\.") {
		return nil, "", bad(&lockstep.Error{Msg: "there is an unknown path after the host", Hint: "enter it like https://contoso.crm4.dynamics.com"})
	}
	if path != "" {
		path = "/" + path
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, path, nil
}

// discoverAuthority asks the organization, without a token, where to sign in.
func (c *Client) discoverAuthority(ctx context.Context) (string, error) {
	resp, err := c.http.Do(ctx, remote.Call{Op: "find the sign-in service", Method: http.MethodGet, URL: c.url("/api/data/v9.0/WhoAmI"), Route: "/", Repeatable: true, Anonymous: true, MaxBody: remote.ErrorBody})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if a, ok := signin.Challenge(resp.Header); ok && resp.Status == http.StatusUnauthorized {
		return a, nil
	}
	return "", notDynamics()
}

func notDynamics() *lockstep.Error {
	return &lockstep.Error{
		Code: lockstep.CodeUnavailable, Op: "dynamics", Field: "url", Scope: lockstep.ScopeConnection,
		Msg:  "what answers at this address is not a Dynamics organization",
		Hint: "enter the address that you see in the browser when Dynamics is open, such as https://contoso.crm4.dynamics.com",
	}
}

// url makes an address from a path and query that are already encoded.
func (c *Client) url(pathAndQuery string) *url.URL {
	u := c.http.Base()
	path, query, _ := strings.Cut(pathAndQuery, "?")
	u.Path, u.RawQuery = c.root+path, query
	if p, err := url.PathUnescape(u.Path); err == nil && p != u.Path {
		u.RawPath, u.Path = u.Path, p
	}
	return u
}

// api returns the path of the negotiated version: "/api/data/v9.2/".
func (c *Client) api(ctx context.Context) (string, error) {
	if v := c.knownVersion(); v != "" {
		return "/api/data/" + v + "/", nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return "", cancelled("find the version", ctx.Err())
	}
	v := c.knownVersion()
	if v == "" {
		var err error
		if v, err = c.negotiate(ctx); err != nil {
			return "", err
		}
	}
	return "/api/data/" + v + "/", nil
}

func (c *Client) knownVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// negotiate finds the highest version that both sides know. The organizations of
// Microsoft's clouds all serve 9.2; others are asked.
func (c *Client) negotiate(ctx context.Context) (string, error) {
	host := strings.ToLower(c.http.Base().Hostname())
	for _, suffix := range []string{".dynamics.com", ".microsoftdynamics.us", ".appsplatform.us", ".dynamics.cn"} {
		if strings.HasSuffix(host, suffix) {
			c.setVersion("v9.2", "")
			return "v9.2", nil
		}
	}
	var last error
	for _, probe := range []string{"v9.0", "v8.2", "v8.0"} {
		text, _, err := c.fetch(ctx, request{op: "find the version", method: http.MethodGet, target: "/api/data/" + probe + "/RetrieveVersion()", route: "/RetrieveVersion", repeatable: true})
		if err != nil {
			if e := lockstep.AsError(err); e.Code == lockstep.CodeNotFound || e.Code == lockstep.CodeUnsupported || e.Code == lockstep.CodeInvalid {
				last = err
				continue
			}
			return "", err
		}
		var answer struct{ Version string }
		var major, minor int
		if json.Unmarshal([]byte(text), &answer) != nil {
			return "", notDynamics()
		}
		if n, _ := fmt.Sscanf(answer.Version, "%d.%d", &major, &minor); n != 2 || major < 8 {
			return "", notDynamics()
		}
		v := fmt.Sprintf("v%d.%d", major, minor)
		if major > 9 || major == 9 && minor > 2 {
			v = "v9.2"
		}
		c.setVersion(v, answer.Version)
		return v, nil
	}
	if lockstep.CodeOf(last) == lockstep.CodeNotFound {
		return "", notDynamics()
	}
	return "", last
}

func (c *Client) setVersion(v, server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = v
	if server != "" {
		c.server = server
	}
}

// before9 reports a server that has neither bulk messages nor record counts.
func (c *Client) before9() bool { return strings.HasPrefix(c.knownVersion(), "v8") }

// request is one call of the service. target is path and query from the root of
// the organization, encoded.
type request struct {
	op, method, target, route string
	prefer                    string
	ifMatch                   bool        // update only what exists
	more                      http.Header // further headers
	body                      []byte
	contentType               string
	repeatable                bool
	sizeHint                  int
	maxBody                   int64
	rows                      int // records in the request, for traces
}

func (c *Client) header(r request) http.Header {
	h := http.Header{
		"Accept": {"application/json"}, "OData-MaxVersion": {"4.0"}, "OData-Version": {"4.0"}, "If-None-Match": {"null"},
	}
	if r.prefer != "" {
		h.Set("Prefer", r.prefer)
	}
	if r.ifMatch {
		h.Set("If-Match", "*")
		h.Del("If-None-Match")
	}
	maps.Copy(h, r.more)
	if r.body != nil {
		ct := r.contentType
		if ct == "" {
			ct = "application/json; charset=utf-8"
		}
		h.Set("Content-Type", ct)
	}
	return h
}

// garbledAttempts is how often a repeatable request is sent when what comes back
// is not an answer of the service: a page of a proxy, half an answer.
const garbledAttempts = 3

// fetch sends a request and returns the whole answer, or why it was refused.
func (c *Client) fetch(ctx context.Context, r request) (string, http.Header, error) {
	for attempt := 1; ; attempt++ {
		text, resp, err := c.http.Fetch(ctx, remote.Call{Op: r.op, Method: r.method, URL: c.url(r.target), Route: r.route, Header: c.header(r), Body: r.body, Repeatable: r.repeatable, Rows: r.rows, MaxBody: r.maxBody}, r.sizeHint)
		if err != nil {
			return "", nil, err
		}
		if resp.Status >= 400 {
			e := refusal(resp.Status, text)
			e.Op = "dynamics: " + r.op
			e.After = max(e.After, resp.After)
			if resp.Status >= 500 && r.method != http.MethodGet && resp.Status != http.StatusNotImplemented && resp.After == 0 {
				e.Unknown = true
			}
			return "", nil, e
		}
		if resp.Status == http.StatusNoContent || whole(resp.Header, text) {
			return text, resp.Header, nil
		}
		if !r.repeatable || attempt >= garbledAttempts {
			e := garbled(r.op)
			e.Unknown = r.method != http.MethodGet
			return "", nil, e
		}
		if err := c.wait(ctx, r.op, time.Duration(attempt)*100*time.Millisecond); err != nil {
			return "", nil, err
		}
	}
}

// whole reports whether an answer is of the kind that the service sends, and is
// there to its end as far as its ends tell.
func whole(h http.Header, text string) bool {
	switch {
	case isMedia(h, "application/json"):
		text = strings.TrimSpace(text)
		return strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}")
	case isMedia(h, "multipart/mixed"):
		return strings.HasSuffix(strings.TrimSpace(text), "--")
	}
	return false
}

func isMedia(h http.Header, types ...string) bool {
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return false
	}
	return slices.Contains(types, mt)
}

// garbled is the answer that came with 200 and is not what the service sends.
func garbled(op string) *lockstep.Error {
	return &lockstep.Error{
		Code: lockstep.CodeUnavailable, Op: "dynamics: " + op, Scope: lockstep.ScopeConnection,
		Msg: "the answer is not one of Dynamics", Hint: "check whether a proxy or a sign-in page answers in its place",
	}
}

// get reads path below the version's root. A long address goes inside $batch.
func (c *Client) get(ctx context.Context, op, route, path string) (string, error) {
	api, err := c.api(ctx)
	if err != nil {
		return "", err
	}
	return c.getTarget(ctx, op, route, api+path, "", 0)
}

func (c *Client) getTarget(ctx context.Context, op, route, target, prefer string, sizeHint int) (string, error) {
	if len(target) > maxURL {
		return c.getInBatch(ctx, op, target, prefer)
	}
	text, _, err := c.fetch(ctx, request{op: op, method: http.MethodGet, target: target, route: route, prefer: prefer, repeatable: true, sizeHint: sizeHint})
	return text, err
}

// getInBatch sends a GET whose address is too long for a plain request, or holds
// something that must not stand in one.
func (c *Client) getInBatch(ctx context.Context, op, target, prefer string) (string, error) {
	if len(target) > maxBatchURL {
		return "", &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics: " + op, Msg: "the query is too long for Dynamics", Scope: lockstep.ScopeBatch}
	}
	answers, err := c.batch(ctx, op, []part{{method: http.MethodGet, target: target, prefer: prefer}})
	if err != nil {
		return "", err
	}
	if answers[0].err != nil {
		return "", answers[0].err
	}
	return answers[0].body, nil
}

// link turns an address out of an answer into a target.
func (c *Client) link(s string) (string, error) {
	u, err := c.http.Link(s)
	if err != nil {
		return "", err
	}
	target := u.EscapedPath()
	if !strings.HasPrefix(target, c.root+"/api/data/") {
		return "", garbled("follow a link")
	}
	target = strings.TrimPrefix(target, c.root)
	if u.RawQuery != "" {
		target += "?" + u.RawQuery
	}
	return target, nil
}

// Identity asks who answers: one call, and one more the first time.
func (c *Client) Identity(ctx context.Context) (lockstep.OrganizationIdentity, error) {
	text, err := c.get(ctx, "ask who we are", "/WhoAmI", "WhoAmI()")
	if err != nil {
		return lockstep.OrganizationIdentity{}, err
	}
	var who struct{ UserID, OrganizationID string }
	if json.Unmarshal([]byte(text), &who) != nil || who.OrganizationID == "" {
		return lockstep.OrganizationIdentity{}, notDynamics()
	}
	id := strings.ToLower(who.OrganizationID)
	c.mu.Lock()
	known, server := c.identity, c.server
	c.mu.Unlock()
	if known.ID == id {
		known.UserID = strings.ToLower(who.UserID)
		return known, nil
	}
	known = lockstep.OrganizationIdentity{ID: id, UserID: strings.ToLower(who.UserID), URL: c.http.Base().String() + c.root, Version: server}
	text, err = c.get(ctx, "read the organization", "/RetrieveCurrentOrganization", "RetrieveCurrentOrganization(AccessType=@p)?@p=Microsoft.Dynamics.CRM.EndpointAccessType%27Default%27")
	switch code := lockstep.CodeOf(err); {
	case err == nil:
		var answer struct {
			Detail struct {
				FriendlyName, OrganizationVersion string
				Endpoints                         struct{ Keys, Values []string }
			}
		}
		if json.Unmarshal([]byte(text), &answer) != nil {
			return lockstep.OrganizationIdentity{}, garbled("read the organization")
		}
		known.Name, known.Version = answer.Detail.FriendlyName, answer.Detail.OrganizationVersion
		for i, k := range answer.Detail.Endpoints.Keys {
			if k == "WebApplication" && i < len(answer.Detail.Endpoints.Values) {
				known.URL = answer.Detail.Endpoints.Values[i]
			}
		}
	case code == lockstep.CodeNotFound || code == lockstep.CodeUnsupported || code == lockstep.CodeInvalid:
		// Older servers lack the function: the id, which matters, is known.
	default:
		return lockstep.OrganizationIdentity{}, err
	}
	c.mu.Lock()
	c.identity = known
	c.mu.Unlock()
	return known, nil
}
