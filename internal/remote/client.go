package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Limits bound one attempt of a call. A zero field takes its default.
type Limits struct {
	Connect  time.Duration // name resolution and TCP connect; default 10 s
	Header   time.Duration // from the sent request to the answer's header; default 60 s
	Progress time.Duration // longest wait for the next byte of a body; default 30 s
	Total    time.Duration // the whole attempt, body included; default 5 min
	Body     int64         // bytes of an answer after inflation; default 64 MB
	Attempts int           // attempts of a repeatable call; default 5
	Backoff  time.Duration // upper bound of the first pause between attempts; default 500 ms
}

// ErrorBody is the most that is read of an answer that reports an error.
const ErrorBody = 1 << 20

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&l.Connect, 10*time.Second)
	def(&l.Header, 60*time.Second)
	def(&l.Progress, 30*time.Second)
	def(&l.Total, 5*time.Minute)
	def(&l.Backoff, 500*time.Millisecond)
	if l.Body <= 0 {
		l.Body = 64 << 20
	}
	if l.Attempts <= 0 {
		l.Attempts = 5
	}
	return l
}

// Options configure a Client.
type Options struct {
	System lockstep.System // whose calls are counted
	Name   string          // "dynamics"; begins the Op of errors and names the system in logs
	Title  string          // "Dynamics"; the name in messages for people
	Base   *url.URL        // the only origin that is ever called
	// Auth gives the Authorization header; nil sends none.
	Auth   Authorizer
	Limits Limits
	// Pace is the budget of the remote account; nil makes one with the defaults.
	Pace *Pace
	// Admit is asked just before each attempt whether it fits the budget. It counts the
	// attempt and returns 0, or returns for how long calls of its kind have to wait: the
	// call is then answered with CodeThrottled. nil admits everything.
	Admit Admitter
	// OnAnswer sees the header of every answer, for limits and hints in it.
	OnAnswer func(status int, h http.Header)
	Log      *slog.Logger
	Now      func() time.Time
	// Jitter returns a number from 0 to below n, with which waits are spread; nil
	// draws it at random.
	Jitter func(n int64) int64
	// Sleep replaces waiting in real time; the pace then goes by Now. For tests.
	Sleep Sleeper
	// Transport replaces the guarded transport. The origin is still checked.
	Transport  http.RoundTripper
	AllowHosts []string
}

// Admitter keeps calls within a budget; see Options.Admit. poll marks a question about a
// job's progress, of which nobody is refused.
type Admitter func(ctx context.Context, poll bool) (wait time.Duration)

// Authorizer gives the value of the Authorization header.
type Authorizer interface {
	// Authorize returns the value to send. refused is empty, or the value that
	// was just answered with 401; returning it again means there is no other.
	Authorize(ctx context.Context, refused string) (string, error)
}

// Call is one request.
type Call struct {
	Op     string // what is tried: "update contact"
	Method string
	URL    *url.URL
	// Route is the address without data, for logs: "/contacts". The URL itself
	// is never logged.
	Route  string
	Header http.Header
	Body   []byte
	// Repeatable says that sending the call twice has the effect of once. GET,
	// HEAD, PUT and DELETE are not assumed to be; the caller says so.
	Repeatable bool
	// Rows is how many records the request carries, for traces; 0 = none, or not told.
	Rows int
	// Poll marks a question about the progress of a job.
	Poll bool
	// Anonymous sends no credential.
	Anonymous bool
	// MaxBody replaces Limits.Body.
	MaxBody int64
}

// Client calls one remote account. It is safe for concurrent use.
type Client struct {
	o     Options
	chain http.RoundTripper
	gzip  bool
}

// New returns a client. The base address is checked as CheckURL does.
func New(o Options) (*Client, error) {
	if err := CheckURL(o.Base.String(), o.AllowHosts); err != nil {
		return nil, err
	}
	o.Limits = o.Limits.withDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Title == "" {
		o.Title = o.Name
	}
	if o.Pace == nil {
		o.Pace = NewPace(4, 16)
	}
	if o.Jitter == nil {
		o.Jitter = rand.Int64N
	}
	if o.Sleep == nil {
		o.Sleep = Sleep
	} else {
		o.Pace.goBy(o.Now, o.Sleep)
	}
	base := o.Transport
	if base == nil {
		base = NewTransport(o.Limits, o.AllowHosts)
	}
	c := &Client{o: o, gzip: !isLoopback(o.Base.Hostname())}
	c.chain = &retrier{client: c, next: &authorizer{client: c, next: &guard{client: c, next: &pacer{client: c, next: &observer{client: c, next: base}}}}}
	return c, nil
}

// Pace returns the budget that all calls of this client share.
func (c *Client) Pace() *Pace { return c.o.Pace }

// Base returns the configured address.
func (c *Client) Base() *url.URL { u := *c.o.Base; return &u }

// Response is an answer. The body is inflated, capped and must be closed.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
	// Length is the announced length of Body, or -1 when it is unknown.
	Length int64
	// After is the pause that a 429 or 503 asked for, bounded; 0 when none.
	After time.Duration
}

// callState is what the layers of the chain share about one call.
type callState struct {
	call    *Call
	base    context.Context // the caller's context, without the attempt's limits
	sent    atomic.Bool     // some attempt may have reached the other side
	attempt int
}

type stateKey struct{}

func stateOf(req *http.Request) *callState {
	return req.Context().Value(stateKey{}).(*callState)
}

// Do sends the call. An answer of any status is returned as it is once repeating
// does not help; an error is a *lockstep.Error and means that there is no answer.
// Unknown is set on it when the call may have taken effect.
func (c *Client) Do(ctx context.Context, call Call) (*Response, error) {
	if call.MaxBody <= 0 {
		call.MaxBody = c.o.Limits.Body
	}
	st := &callState{call: &call, base: ctx}
	ctx = context.WithValue(ctx, stateKey{}, st)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { st.sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, call.Method, call.URL.String(), nil)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: c.op(&call), Msg: "the request cannot be formed", Scope: lockstep.ScopeBatch}
	}
	maps.Copy(req.Header, call.Header)
	if call.Body != nil {
		req.ContentLength = int64(len(call.Body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(call.Body)), nil }
		req.Body, _ = req.GetBody()
	}
	if req.Header.Get("Accept-Encoding") == "" && c.gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "Lockstep")
	}
	resp, err := c.chain.RoundTrip(req)
	if err != nil {
		return nil, c.fault(st, err)
	}
	after, _ := RetryAfter(resp.Header, c.o.Now())
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		after = 0
	}
	limit := call.MaxBody
	if resp.StatusCode >= 400 {
		limit = min(limit, ErrorBody)
	}
	body, length, err := openBody(resp, limit)
	if err != nil {
		return nil, c.fault(st, err)
	}
	return &Response{
		Status: resp.StatusCode, Header: resp.Header, Length: length, After: after,
		Body: &answerBody{ReadCloser: body, fault: func(err error) error { return c.fault(st, err) }},
	}, nil
}

func (c *Client) op(call *Call) string { return c.o.Name + ": " + call.Op }

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// ReadText reads a whole answer into one string and closes it. sizeHint spares
// copying; 0 when nothing is known.
func ReadText(r *Response, sizeHint int) (string, error) {
	defer r.Body.Close()
	var b strings.Builder
	if r.Length > 0 && r.Length < 64<<20 {
		sizeHint = int(r.Length)
	}
	if sizeHint > 0 && sizeHint <= 64<<20 {
		b.Grow(sizeHint)
	}
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(&b, struct{ io.Reader }{r.Body}, buf[:]); err != nil {
		return "", err
	}
	return b.String(), nil
}

// Fetch sends the call and reads the whole answer. A repeatable call is sent again
// when the answer breaks off on the way. sizeHint is the expected length, 0 when
// nothing is known.
func (c *Client) Fetch(ctx context.Context, call Call, sizeHint int) (string, *Response, error) {
	for attempt := 0; ; attempt++ {
		resp, err := c.Do(ctx, call)
		if err != nil {
			return "", nil, err
		}
		text, err := ReadText(resp, sizeHint)
		if err == nil {
			return text, resp, nil
		}
		var large tooLargeError
		if !call.Repeatable || attempt+1 >= c.o.Limits.Attempts || ctx.Err() != nil || errors.As(err, &large) {
			return "", nil, err
		}
		if c.o.Sleep(ctx, c.backoff(attempt, c.o.Limits.Backoff)) != nil {
			return "", nil, err
		}
	}
}

// answerBody turns what goes wrong while reading into a *lockstep.Error.
type answerBody struct {
	io.ReadCloser
	fault func(error) error
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.fault(err)
	}
	return n, err
}

// Link checks an address that an answer told us to call next: it must be of the
// configured origin. Relative addresses are resolved against the base.
func (c *Client) Link(link string) (*url.URL, error) {
	u, err := url.Parse(link)
	if err == nil {
		u = c.o.Base.ResolveReference(u)
	}
	if err != nil || !sameOrigin(u, c.o.Base) {
		return nil, &lockstep.Error{
			Code: lockstep.CodeGuarded, Op: c.o.Name, Scope: lockstep.ScopeConnection,
			Msg:  c.o.Title + " answered with a link that leads to another server",
			Hint: "nothing was sent there; check what answers at " + c.o.Base.Host,
		}
	}
	return u, nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.User == nil && a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}
