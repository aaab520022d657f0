package dotdigital

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// maxSmall is the most bytes of any answer but a page of contacts and an import's
// result.
const maxSmall = 8 << 20

// limits bound one attempt of a call. The service itself may work on a call for
// two minutes and asks clients to wait 121 seconds (developer hub, "API
// conventions").
var limits = remote.Limits{Header: 121 * time.Second, Total: 121 * time.Second, Body: maxSmall}

// waits are the pauses between questions and between attempts.
type waits struct {
	retry   []time.Duration // before each repeat of a call that was answered senselessly
	poll    time.Duration   // before the second question about a job; doubles from there
	pollMax time.Duration
}

var defaultWaits = waits{
	retry:   []time.Duration{time.Second, 5 * time.Second},
	poll:    100 * time.Millisecond,
	pollMax: 15 * time.Second,
}

// call is one request to the service.
type call struct {
	op     string // "read contacts"
	method string
	path   string // escaped
	route  string // the path without data, for logs; empty = path
	query  string // encoded
	json   any    // request body; nil = none
	body   []byte // request body that is JSON already
	poll   bool   // a question about a job
	// repeat says that sending the call twice has the effect of once.
	repeat bool
	// single sends the call once whatever happens: somebody waits for the answer.
	single bool
	// home sends the call to the address that knows every account's region.
	home bool
	max  int64
	rows int // records in the request, for traces
}

func (q *call) name() string { return "dotdigital: " + q.op }

// writes reports whether the call may change something: when its answer is lost
// it may have taken effect.
func (q *call) writes() bool { return q.method != http.MethodGet }

// do makes a call and hands the body of a successful answer to read, which says
// whether it makes sense. The body is valid until read returns.
func (c *Client) do(ctx context.Context, q call, read func(body []byte) error) error {
	if q.json != nil {
		var err error
		if q.body, err = json.Marshal(q.json); err != nil {
			return &lockstep.Error{Code: lockstep.CodeInternal, Op: q.name(), Err: err}
		}
	}
	rediscovered := false
	for attempt := 0; ; attempt++ {
		at, err := c.linkFor(ctx, &q)
		if err != nil {
			return err
		}
		answered, err := c.attempt(ctx, at, &q, read)
		if err == nil {
			return nil
		}
		e := lockstep.AsError(err)
		if e.Code == lockstep.CodeForbidden && !strings.HasPrefix(e.Upstream, "ERROR_") && !q.home && !rediscovered {
			// Not a missing feature or right, which has a code of its own: the account
			// may live in another region. Asked once a call.
			rediscovered = true
			if c.moved(ctx, at) {
				continue
			}
			return err
		}
		// Calls that were not answered have been repeated on the way already.
		if !answered || !q.repeat || q.single || e.Code != lockstep.CodeUnavailable || attempt >= len(c.waits.retry) {
			return err
		}
		wait := c.waits.retry[attempt]
		if wait += time.Duration(c.jitter(int64(wait/4) + 1)); e.After > wait {
			return err
		}
		if !c.pause(ctx, wait) {
			return err
		}
	}
}

// pause waits; false means that ctx ended first.
func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	if c.sleep != nil {
		return c.sleep(ctx, d) == nil
	}
	return remote.Sleep(ctx, d) == nil
}

// attempt makes the call once, as far as this package repeats it. answered says
// that an answer came, of whatever kind.
func (c *Client) attempt(ctx context.Context, at *link, q *call, read func([]byte) error) (answered bool, err error) {
	client := at.calls
	if q.single {
		client = at.singles
	}
	route := q.route
	if route == "" {
		route = q.path
	}
	target := *at.base
	target.RawQuery = q.query
	if target.Path, err = url.PathUnescape(q.path); err != nil {
		return false, &lockstep.Error{Code: lockstep.CodeInternal, Op: q.name(), Err: err}
	}
	target.RawPath = q.path
	header := http.Header{"Accept": {"application/json"}}
	if q.body != nil {
		header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(ctx, remote.Call{
		Op: q.op, Method: q.method, URL: &target, Route: route, Header: header, Body: q.body,
		Repeatable: q.repeat, Poll: q.poll, Rows: q.rows, MaxBody: max(q.max, maxSmall),
	})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	buf := getBuffer()
	defer putBuffer(buf)
	if resp.Length > 0 {
		buf.Grow(int(resp.Length) + bytes.MinRead)
	}
	_, err = buf.ReadFrom(resp.Body)
	if resp.Status < 200 || resp.Status >= 300 {
		if err != nil {
			buf.Reset() // the status alone decides
		}
		return true, judge(q.name(), readRefusal(resp.Status, buf.Bytes()), pauseAsked(resp.Header), q.writes())
	}
	if err != nil {
		e := *lockstep.AsError(err)
		e.Unknown = q.writes()
		return true, &e
	}
	return true, read(buf.Bytes())
}

// object decodes the answer of a call that answers with a JSON object and checks
// that it holds what it must. An answer with a message is an error whatever its
// status: the service has no member of that name on success.
func object(q *call, into any, complete func() bool) func([]byte) error {
	return decode(q, '{', into, complete)
}

// array decodes the answer of a call that answers with a JSON array.
func array(q *call, into any) func([]byte) error {
	return decode(q, '[', into, func() bool { return true })
}

func decode(q *call, opens byte, into any, complete func() bool) func([]byte) error {
	return func(body []byte) error {
		body = bytes.TrimSpace(body)
		if len(body) > 0 && body[0] == '{' {
			if r := readRefusal(http.StatusBadRequest, body); r.known {
				return judge(q.name(), r, 0, q.writes())
			}
		}
		if len(body) == 0 || body[0] != opens {
			return senseless(q, "the answer is not Dotdigital's: "+shapeOf(body), nil)
		}
		if err := json.Unmarshal(body, into); err != nil {
			return senseless(q, "the answer is not the JSON that this call has", jsonCause(err))
		}
		if !complete() {
			return senseless(q, "the answer lacks what this call answers with", nil)
		}
		return nil
	}
}

// shapeOf names what an answer looks like, without quoting it.
func shapeOf(body []byte) string {
	switch {
	case len(body) == 0:
		return "it is empty"
	case body[0] == '<':
		return "it is a web page"
	case body[0] == '{' || body[0] == '[':
		return "it has another shape"
	}
	return "it is no JSON"
}

// jsonCause keeps the place of a JSON error and drops what it quotes.
func jsonCause(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("the JSON breaks at byte %d", syntax.Offset)
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the member %s has another type", kind.Field)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	return b
}

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= 16<<20 {
		buffers.Put(b)
	}
}
