package remote

import (
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/lockstep-sync/lockstep"
)

// observer counts and logs every attempt. It logs no address, no header but the
// request id, and no body: those hold people's data.
type observer struct {
	client *Client
	next   http.RoundTripper
}

func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	st := stateOf(req)
	if c, ok := req.Context().Value(clockKey{}).(*attemptClock); ok {
		c.start()
	}
	lockstep.MeterFrom(req.Context()).Count(o.client.o.System, st.call.Poll)
	start := o.client.o.Now()
	var traced lockstep.TracedAnswer
	if t := lockstep.TraceFrom(req.Context()); t != nil {
		traced = t.Call(lockstep.TracedCall{
			System: o.client.o.Name, Op: st.call.Op, Method: st.call.Method, Route: st.call.Route,
			Attempt: st.attempt + 1, Bytes: req.ContentLength, Rows: st.call.Rows, Poll: st.call.Poll,
		})
	}
	resp, err := o.next.RoundTrip(req)
	if traced != nil {
		trace(traced, resp, err)
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("system", o.client.o.Name), slog.String("method", req.Method), slog.String("route", st.call.Route),
		slog.Int("attempt", st.attempt+1), slog.Duration("took", o.client.o.Now().Sub(start)))
	if err != nil {
		o.client.o.Log.LogAttrs(req.Context(), slog.LevelDebug, "call failed", append(attrs, slog.String("code", string(faultCode(err))))...)
		return nil, err
	}
	if o.client.o.OnAnswer != nil {
		o.client.o.OnAnswer(resp.StatusCode, resp.Header)
	}
	o.client.o.Log.LogAttrs(req.Context(), slog.LevelDebug, "call", append(attrs, slog.Int("status", resp.StatusCode), slog.String("request_id", requestID(resp.Header)))...)
	return resp, nil
}

// trace tells of an answer, or why there is none; of its end once it has been read.
func trace(t lockstep.TracedAnswer, resp *http.Response, err error) {
	if err != nil {
		t.Answered(0, faultCode(err), "")
		t.End(0)
		return
	}
	t.Answered(resp.StatusCode, "", requestID(resp.Header))
	resp.Body = &tracedBody{ReadCloser: resp.Body, answer: t}
}

// tracedBody counts what is read of an answer, as it came.
type tracedBody struct {
	io.ReadCloser
	answer lockstep.TracedAnswer
	read   int64
	once   sync.Once
}

func (b *tracedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}

func (b *tracedBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.answer.End(b.read) })
	return err
}

// requestID is what to quote to the other side's support. It is cut to what such
// an id can look like, because it goes into logs and messages.
func requestID(h http.Header) string {
	for _, name := range []string{"X-Ms-Service-Request-Id", "Req_id", "X-Request-Id"} {
		v := h.Get(name)
		if v == "" || len(v) > 64 {
			continue
		}
		for i := range len(v) {
			if c := v[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return ""
			}
		}
		return v
	}
	return ""
}

// RequestID returns the request id of an answer, or "".
func (r *Response) RequestID() string { return requestID(r.Header) }
