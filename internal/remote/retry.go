package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// maxThrottles is how often one call lets itself be put off by a server.
const maxThrottles = 10

// retrier repeats a call while that is safe and may help: a repeatable one after
// a broken connection or a status that says "later"; any call that the other side
// surely did not take on (no connection, 429, 503 with a Retry-After).
type retrier struct {
	client *Client
	next   http.RoundTripper
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	st := stateOf(req)
	limits := r.client.o.Limits
	throttles := 0
	for st.attempt = 0; ; st.attempt++ {
		resp, err := r.once(req)
		again, wait := r.judge(st, resp, err)
		if again && !wait { // the pause was the server's wish, not a failure
			throttles++
		}
		if !again || st.attempt-throttles+1 >= limits.Attempts || throttles >= maxThrottles {
			return resp, err
		}
		if resp != nil {
			discard(resp)
		}
		if wait {
			if err := r.client.o.Sleep(req.Context(), r.client.backoff(st.attempt, limits.Backoff)); err != nil {
				return nil, err
			}
		}
	}
}

// judge says whether to try again, and whether to back off first. After a
// throttled answer the pause is kept by the gate that everybody waits at.
func (r *retrier) judge(st *callState, resp *http.Response, err error) (again, wait bool) {
	if st.base.Err() != nil {
		return false, false
	}
	if err != nil {
		if _, ok := errors.AsType[*lockstep.Error](err); ok {
			return false, false
		}
		return st.call.Repeatable || !maybeSent(st, err), true
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return true, false
	case http.StatusServiceUnavailable:
		_, asked := RetryAfter(resp.Header, r.client.o.Now())
		return asked || st.call.Repeatable, !asked
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusGatewayTimeout:
		return st.call.Repeatable, true
	}
	return false, false
}

// once sends one attempt under its own time limits.
func (r *retrier) once(req *http.Request) (*http.Response, error) {
	limits := r.client.o.Limits
	st := stateOf(req)
	ctx, cancel := context.WithCancelCause(req.Context())
	attempt := req.Clone(ctx)
	if req.GetBody != nil {
		attempt.Body, _ = req.GetBody()
	}
	// The time limit begins when the call is on its way, not while it waits for
	// its turn: observer starts it.
	timer := &attemptClock{cancel: cancel, total: limits.Total}
	attempt = attempt.WithContext(context.WithValue(ctx, clockKey{}, timer))
	resp, err := r.next.RoundTrip(attempt)
	if err != nil {
		timer.stop()
		if cause := context.Cause(ctx); cause != nil && st.base.Err() == nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &timedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, progress: limits.Progress, total: timer.timer()}
	return resp, nil
}

type clockKey struct{}

type attemptClock struct {
	cancel context.CancelCauseFunc
	total  time.Duration
	t      *time.Timer
}

// start begins the limit, or begins it anew for the repeat after a 401.
func (c *attemptClock) start() {
	c.stop()
	c.t = time.AfterFunc(c.total, func() { c.cancel(errLate) })
}

func (c *attemptClock) stop() {
	if c.t != nil {
		c.t.Stop()
	}
}

func (c *attemptClock) timer() *time.Timer {
	if c.t == nil {
		c.start()
	}
	return c.t
}

func discard(resp *http.Response) {
	// Reading a short rest keeps the connection usable.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// backoff is exponential with full jitter, at most 30 s.
func (c *Client) backoff(attempt int, base time.Duration) time.Duration {
	top := min(base<<min(attempt, 10), 30*time.Second)
	return time.Duration(c.o.Jitter(int64(top))) + time.Millisecond
}

// maybeSent reports whether the request may have reached the other side.
func maybeSent(st *callState, err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return false
	}
	return st.sent.Load()
}

// authorizer adds the credential, and asks for another one once after a 401.
type authorizer struct {
	client *Client
	next   http.RoundTripper
}

func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.client.o.Auth == nil || stateOf(req).call.Anonymous {
		return a.next.RoundTrip(req)
	}
	value, err := a.client.o.Auth.Authorize(req.Context(), "")
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", value)
	resp, err := a.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	fresh, err := a.client.o.Auth.Authorize(req.Context(), value)
	if err != nil {
		discard(resp)
		return nil, err
	}
	if fresh == value {
		return resp, nil
	}
	discard(resp)
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		again.Body, _ = req.GetBody()
	}
	again.Header.Set("Authorization", fresh)
	return a.next.RoundTrip(again)
}

// Basic is the Authorizer of a user name and password (RFC 7617).
func Basic(user, password string) Authorizer {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return fixed(r.Header.Get("Authorization"))
}

type fixed string

func (f fixed) Authorize(context.Context, string) (string, error) { return string(f), nil }
