// Package signin gets access tokens for Dynamics from Microsoft Entra ID or AD FS
// by client credentials: a client secret, or a certificate that signs an
// assertion (PS256 with x5t#S256 at Entra, RS256 with x5t at AD FS).
//
// One Source serves all callers of one connection. A token is asked for once,
// however many wait for it, and renewed when 80 % of its life is over or five
// minutes are left, whichever comes first. A refusal that only a person can mend
// is remembered for five minutes, so that a wrong secret is not tried in a loop.
package signin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// Config says who signs in, and where.
type Config struct {
	// Authority is "https://login.microsoftonline.com/<tenant>", or the same
	// without the tenant, or an AD FS address that ends in "/adfs". Empty means
	// that Discover tells it.
	Authority string
	Tenant    string // directory id or domain; may be empty when Authority names it
	ClientID  string
	Secret    string // the secret's value, or
	// Certificate is a PEM file with a certificate and its unencrypted RSA key.
	Certificate string
	// Resource is scheme and host of the organization, without a trailing slash.
	Resource string
	// Discover asks the organization for its authority.
	Discover func(ctx context.Context) (string, error)

	Now        func() time.Time
	Sleep      remote.Sleeper // nil waits in real time
	Log        *slog.Logger
	Transport  http.RoundTripper // nil means a guarded one
	AllowHosts []string
	Timeout    time.Duration // of one token request; default 60 s
}

// Source gives tokens. It is safe for concurrent use and is a remote.Authorizer.
type Source struct {
	cfg    Config
	client *http.Client
	cert   *certificate

	mu       sync.Mutex
	token    string
	expires  time.Time
	refresh  time.Time
	flight   *flight
	tokenURL string
	refused  *lockstep.Error // what only a person can mend
	retryAt  time.Time
}

type flight struct {
	done chan struct{}
	err  error
}

var _ remote.Authorizer = (*Source)(nil)

// refusalMemory is how long a refusal that needs a person is believed.
const refusalMemory = 5 * time.Minute

// retryPause is the least time before a request to a failing service is repeated.
const retryPause = 200 * time.Millisecond

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Source, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = remote.Sleep
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Minute
	}
	s := &Source{cfg: cfg}
	if cfg.ClientID == "" {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Field: "client_id", Msg: "the client id is missing", Hint: "copy the Application (client) ID of the app registration"}
	}
	if (cfg.Secret == "") == (cfg.Certificate == "") {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Field: "client_secret", Msg: "exactly one of client secret and certificate is needed", Hint: "enter the secret's value or paste the certificate with its key"}
	}
	if cfg.Certificate != "" {
		var err error
		if s.cert, err = parseCertificate(cfg.Certificate); err != nil {
			return nil, err
		}
	}
	if cfg.Authority != "" {
		if err := remote.CheckURL(cfg.Authority, cfg.AllowHosts); err != nil {
			e := lockstep.AsError(err)
			return nil, &lockstep.Error{Code: e.Code, Field: "authority", Msg: "the authority cannot be used: " + e.Msg, Hint: e.Hint, Scope: lockstep.ScopeConnection}
		}
		u, err := tokenURL(cfg.Authority, cfg.Tenant)
		if err != nil {
			return nil, err
		}
		s.tokenURL = u
	}
	transport := cfg.Transport
	if transport == nil {
		transport = remote.NewTransport(remote.Limits{}, cfg.AllowHosts)
	}
	s.client = &http.Client{
		Transport: limited{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "the sign-in service answered with a redirect, which is not followed", Hint: "check the authority"}
		},
	}
	return s, nil
}

// limited caps the answers of the token endpoint.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, remote.ErrorBody), resp.Body}
	}
	return resp, err
}

// Authorize returns "Bearer <token>". When that value was just refused it gets a
// new token, unless another caller already did.
func (s *Source) Authorize(ctx context.Context, refused string) (string, error) {
	s.mu.Lock()
	now := s.cfg.Now()
	current := "Bearer " + s.token
	if s.token != "" && now.Before(s.expires) && current != refused {
		if now.Before(s.refresh) || s.flight != nil {
			s.mu.Unlock()
			return current, nil
		}
	}
	if s.refused != nil && now.Before(s.retryAt) {
		e := *s.refused
		e.After = s.retryAt.Sub(now)
		s.mu.Unlock()
		return "", &e
	}
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		// The caller that happens to be first must not take the others down
		// with it when it is cancelled.
		go s.fetch(context.WithoutCancel(ctx), f)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return "", &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "signing in was cancelled", Scope: lockstep.ScopeConnection, Err: ctx.Err()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.err != nil {
		// A renewal ahead of time that fails costs nothing while the old token lasts.
		if now := s.cfg.Now(); s.token != "" && now.Before(s.expires) && "Bearer "+s.token != refused {
			return "Bearer " + s.token, nil
		}
		return "", f.err
	}
	return "Bearer " + s.token, nil
}

func (s *Source) fetch(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	token, err := s.request(ctx)
	if c := lockstep.CodeOf(err); (c == lockstep.CodeUnavailable || c == lockstep.CodeThrottled) && ctx.Err() == nil {
		// Once more, after a moment: two requests at most for one failure.
		if s.cfg.Sleep(ctx, min(max(lockstep.AsError(err).After, retryPause), 10*time.Second)) == nil {
			token, err = s.request(ctx)
		}
	}
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight = nil
	if err != nil {
		f.err = err
		if c := lockstep.CodeOf(err); c == lockstep.CodeUnauthorized || c == lockstep.CodeForbidden || c == lockstep.CodeInvalid {
			s.refused, s.retryAt = lockstep.AsError(err), now.Add(refusalMemory)
		} else {
			// Keep a storm of callers off a service that is down.
			s.refused, s.retryAt = lockstep.AsError(err), now.Add(max(time.Second, lockstep.AsError(err).After))
		}
		return
	}
	s.refused = nil
	s.token = token.AccessToken
	// oauth2 counts expiry from the wall clock; ours may be another one.
	life := 10 * time.Minute // when the service does not say
	if !token.Expiry.IsZero() {
		life = time.Until(token.Expiry).Round(time.Second)
	}
	s.expires = now.Add(life)
	s.refresh = now.Add(max(life*8/10, 0))
	if early := s.expires.Add(-5 * time.Minute); life > 10*time.Minute && early.Before(s.refresh) {
		s.refresh = early
	}
}

func (s *Source) request(ctx context.Context) (*oauth2.Token, error) {
	endpoint := s.tokenURL
	if endpoint == "" {
		authority, err := s.discover(ctx)
		if err != nil {
			return nil, err
		}
		if endpoint, err = tokenURL(authority, s.cfg.Tenant); err != nil {
			return nil, err
		}
	}
	cc := clientcredentials.Config{ClientID: s.cfg.ClientID, ClientSecret: s.cfg.Secret, TokenURL: endpoint, AuthStyle: oauth2.AuthStyleInParams, EndpointParams: url.Values{}}
	onPremises := isADFS(endpoint)
	if onPremises {
		cc.EndpointParams.Set("resource", s.cfg.Resource+"/")
	} else {
		cc.Scopes = []string{s.cfg.Resource + "/.default"}
	}
	if s.cert != nil {
		assertion, err := s.cert.assertion(endpoint, s.cfg.ClientID, s.cfg.Now(), onPremises)
		if err != nil {
			return nil, &lockstep.Error{Code: lockstep.CodeInternal, Op: "sign-in", Msg: "the certificate's key cannot sign", Scope: lockstep.ScopeConnection, Err: err}
		}
		cc.EndpointParams.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		cc.EndpointParams.Set("client_assertion", assertion)
	}
	token, err := cc.Token(context.WithValue(ctx, oauth2.HTTPClient, s.client))
	if err != nil {
		return nil, explain(err, s.cfg.Now())
	}
	s.mu.Lock()
	s.tokenURL = endpoint
	s.mu.Unlock()
	if s.cfg.Log != nil {
		s.cfg.Log.LogAttrs(ctx, slog.LevelDebug, "signed in", slog.Time("until", token.Expiry))
	}
	return token, nil
}

// knownAuthorities are the sign-in services of Microsoft's clouds. A discovered
// authority must be one of them or be allowed by name: the credential is sent
// there, and whoever answers at the organization's address chose it.
var knownAuthorities = []string{"login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn", "login.chinacloudapi.cn", "login.windows.net"}

func (s *Source) discover(ctx context.Context) (string, error) {
	if s.cfg.Discover == nil {
		return "", &lockstep.Error{Code: lockstep.CodeInvalid, Field: "authority", Msg: "the authority is missing", Hint: "enter it like https://login.microsoftonline.com/<tenant>", Scope: lockstep.ScopeConnection}
	}
	authority, err := s.cfg.Discover(ctx)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(authority)
	if err == nil && u.Scheme == "https" && u.User == nil && (u.Port() == "" || u.Port() == "443") && slices.Contains(knownAuthorities, strings.ToLower(u.Hostname())) {
		return authority, nil
	}
	if err == nil && slices.ContainsFunc(s.cfg.AllowHosts, func(a string) bool { return strings.EqualFold(a, u.Host) }) && remote.CheckURL(authority, s.cfg.AllowHosts) == nil {
		return authority, nil
	}
	return "", &lockstep.Error{
		Code: lockstep.CodeGuarded, Field: "authority", Scope: lockstep.ScopeConnection,
		Msg:  "the organization names a sign-in service that is not one of Microsoft's; the credential was not sent there",
		Hint: "enter the authority yourself if it is right, for example that of your AD FS",
	}
}

func isADFS(u string) bool { return strings.Contains(u, "/adfs/") || strings.HasSuffix(u, "/adfs") }

// tokenURL returns the token endpoint of an authority.
func tokenURL(authority, tenant string) (string, error) {
	base := strings.TrimRight(authority, "/")
	u, err := url.Parse(base)
	if err != nil {
		return "", &lockstep.Error{Code: lockstep.CodeInvalid, Field: "authority", Msg: "the authority is not a web address", Scope: lockstep.ScopeConnection}
	}
	if isADFS(base) {
		return base + "/oauth2/token", nil
	}
	path := strings.Trim(u.Path, "/")
	shared := path == "common" || path == "organizations"
	if path == "" || shared {
		if tenant == "" {
			return "", &lockstep.Error{Code: lockstep.CodeInvalid, Field: "tenant", Msg: "the tenant is missing", Hint: "enter the Directory (tenant) ID of the app registration", Scope: lockstep.ScopeConnection}
		}
		u.Path = ""
		base = strings.TrimRight(u.String(), "/") + "/" + url.PathEscape(tenant)
	}
	return base + "/oauth2/v2.0/token", nil
}

// Challenge reads the authority out of the WWW-Authenticate headers with which a
// Dynamics organization answers a request without a token. ok is false when none
// of them is one.
func Challenge(h http.Header) (authority string, ok bool) {
	for _, v := range h.Values("WWW-Authenticate") {
		scheme, params, _ := strings.Cut(strings.TrimSpace(v), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		for p := range strings.SplitSeq(params, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "authorization_uri") {
				continue
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			value = strings.TrimRight(value, "/")
			value = strings.TrimSuffix(strings.TrimSuffix(value, "/oauth2/authorize"), "/oauth2/v2.0/authorize")
			if value != "" {
				return value, true
			}
		}
	}
	return "", false
}

// explain turns a failed token request into advice. The body of the answer is
// read for its codes only.
func explain(err error, now time.Time) *lockstep.Error {
	re, ok := asRetrieve(err)
	if _, onTheWay := errors.AsType[*url.Error](err); !ok && !onTheWay {
		return &lockstep.Error{
			Code: lockstep.CodeUnavailable, Op: "sign-in", Scope: lockstep.ScopeConnection,
			Msg: "what answers at the authority is not a sign-in service", Hint: "check the authority, and whether a proxy answers in its place",
		}
	}
	if !ok {
		e := remote.Fault(err, "the sign-in service", remote.Limits{})
		e.Op = "sign-in"
		if e.Hint == "" {
			e.Hint = "check that login.microsoftonline.com, or your authority, can be reached"
		}
		return e
	}
	e := &lockstep.Error{Op: "sign-in", Scope: lockstep.ScopeConnection, Code: lockstep.CodeUnauthorized}
	if re.Response != nil {
		status := re.Response.StatusCode
		if status == http.StatusTooManyRequests || status >= 500 || re.ErrorCode == "temporarily_unavailable" {
			e.Code, e.Msg = lockstep.CodeUnavailable, "the sign-in service is not available at the moment"
			if status == http.StatusTooManyRequests {
				e.Code = lockstep.CodeThrottled
			}
			e.After, _ = remote.RetryAfter(re.Response.Header, now)
			return e
		}
	}
	var body struct {
		Codes []int `json:"error_codes"`
	}
	_ = json.Unmarshal(re.Body, &body)
	if len(body.Codes) == 0 {
		if n := codeInText(re.ErrorDescription); n > 0 {
			body.Codes = []int{n}
		}
	}
	return advise(e, re.ErrorCode, body.Codes)
}
