package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const answer = `{"value":[{"fullname":"Zoë Åström"}]}`

// rig is a twin of one route on a real socket that counts what it applies.
type rig struct {
	*httptest.Server
	set     *Set
	clock   *clock.Clock
	applied atomic.Int32
	bodies  chan string // bodies of the applied requests
	client  *http.Client
}

func newRig(t *testing.T, wrapListener bool) *rig {
	t.Helper()
	g := &rig{clock: clock.NewFixed(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), bodies: make(chan string, 16)}
	g.set = New(1, g.clock)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.applied.Add(1)
		g.bodies <- string(b)
		if r.URL.Path == "/busy" {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("X-Compressible", "yes")
		}
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = io.WriteString(w, answer)
	})
	name := func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/") }
	g.Server = httptest.NewUnstartedServer(g.set.Middleware(Dataverse, name, handler))
	if wrapListener {
		g.Listener = Listener(g.Listener, g.set, Dataverse)
	}
	g.Start()
	g.client = g.Client()
	t.Cleanup(func() {
		g.set.Close()
		g.client.CloseIdleConnections()
		g.Close()
	})
	return g
}

func (g *rig) inject(t *testing.T, f Fault, args string) {
	t.Helper()
	if args != "" {
		f.Args = json.RawMessage(args)
	}
	if err := g.set.Add(f); err != nil {
		t.Fatal(err)
	}
}

// post makes one call and returns the answer with as much of its body as came.
func (g *rig) post(t *testing.T, path string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+path, strings.NewReader("write"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := g.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func wantReset(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a connection reset", err)
	}
}

func TestUndisturbed(t *testing.T) {
	g := newRig(t, true)
	res, body, err := g.post(t, "/contact.write")
	if err != nil || res.StatusCode != http.StatusOK || body != answer {
		t.Fatalf("%v %v %q", res, err, body)
	}
}

func TestResets(t *testing.T) {
	for _, tc := range []struct {
		kind    string
		applied int32
	}{{Refuse, 0}, {ResetBefore, 0}, {AckLost, 1}} {
		t.Run(tc.kind, func(t *testing.T) {
			g := newRig(t, false)
			g.inject(t, Fault{Kind: tc.kind, Operation: "contact.*", Count: 1}, "")
			_, _, err := g.post(t, "/contact.write")
			wantReset(t, err)
			if got := g.applied.Load(); got != tc.applied {
				t.Errorf("applied %d times, want %d", got, tc.applied)
			}
			if res, _, err := g.post(t, "/contact.write"); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("after the rule is spent: %v", err)
			}
		})
	}
}

func TestRefuseAtTheListener(t *testing.T) {
	g := newRig(t, true)
	if _, _, err := g.post(t, "/a"); err != nil {
		t.Fatal(err)
	}
	// The kept connection was accepted before the rule: its next call is refused
	// too, then a fresh connection is, and the third attempt passes.
	g.inject(t, Fault{Kind: Refuse, Count: 2}, "")
	_, _, err := g.post(t, "/a")
	wantReset(t, err)

	// Nothing is written, so it is the listener that ends it, while dialing or after.
	c, err := net.Dial("tcp", g.Listener.Addr().String())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	wantReset(t, err)

	if _, _, err := g.post(t, "/a"); err != nil {
		t.Errorf("third call: %v", err)
	}
	if st := g.set.States()[0]; st.Hits != 2 || st.Matched != 2 {
		t.Errorf("state %+v", st)
	}
}

func TestRefuseCountsAFreshConnectionOnce(t *testing.T) {
	g := newRig(t, true)
	g.inject(t, Fault{Kind: Refuse, After: 1}, "")
	if _, _, err := g.post(t, "/a"); err != nil {
		t.Errorf("first connection: %v", err)
	}
	_, _, err := g.post(t, "/a")
	wantReset(t, err)
}

func TestLateApply(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: LateApply, Count: 1}, `{"code":504,"delay":"1h","clock":"twin"}`)
	res, body, err := g.post(t, "/contact.write")
	if err != nil || res.StatusCode != http.StatusGatewayTimeout || !json.Valid([]byte(body)) {
		t.Fatalf("%v %v %q", res, err, body)
	}
	if g.applied.Load() != 0 {
		t.Fatal("applied before its time")
	}
	g.clock.Advance(59 * time.Minute)
	g.clock.Advance(time.Minute)
	if got := <-g.bodies; got != "write" {
		t.Errorf("applied the body %q", got)
	}

	g.set.Clear()
	g.inject(t, Fault{Kind: LateApply}, `{"delay":"1ms"}`)
	if res, _, err = g.post(t, "/contact.write"); err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%v %v", res, err)
	}
	<-g.bodies
}

func TestLateApplyIsDroppedByClose(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: LateApply}, `{"delay":"24h"}`)
	if _, _, err := g.post(t, "/contact.write"); err != nil {
		t.Fatal(err)
	}
	g.set.Close()
	if g.applied.Load() != 0 {
		t.Error("applied while closing")
	}
}

func TestHang(t *testing.T) {
	for _, release := range []string{"client", "clear", "for"} {
		t.Run(release, func(t *testing.T) {
			g := newRig(t, false)
			args := ""
			if release == "for" {
				args = `{"for":"1ms"}`
			}
			g.inject(t, Fault{Kind: Hang}, args)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.URL, strings.NewReader("x"))
			done := make(chan error, 1)
			go func() {
				_, err := g.client.Do(req)
				done <- err
			}()
			for g.set.States()[0].Hits == 0 { // until the call hangs
				runtime.Gosched()
			}
			switch release {
			case "client":
				cancel()
			case "clear":
				g.set.Clear()
			}
			if err := <-done; err == nil {
				t.Error("a hanging call was answered")
			}
			if g.applied.Load() != 0 {
				t.Error("a hanging call was applied")
			}
		})
	}
}

func TestSlowBody(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: SlowBody}, `{"bytes_per_second":1}`)
	res, err := g.client.Get(g.URL + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 64)
	n, err := res.Body.Read(first)
	if err != nil || n != 1 {
		t.Fatalf("first read: %d bytes, %v", n, err)
	}
	g.set.Clear() // the rest comes at once
	rest, err := io.ReadAll(res.Body)
	if got := string(first[:n]) + string(rest); err != nil || got != answer {
		t.Errorf("%v %q", err, got)
	}
}

func TestTruncate(t *testing.T) {
	at := strings.Index(answer, "ë") + 1 // inside a UTF-8 sequence
	cut := strconv.Itoa(at)

	g := newRig(t, false)
	g.inject(t, Fault{Kind: Truncate, Operation: "short"}, `{"at":`+cut+`}`)
	g.inject(t, Fault{Kind: Truncate, Operation: "wrong"}, `{"at":`+cut+`,"keep_length":true}`)
	g.inject(t, Fault{Kind: Truncate, Operation: "half"}, ``)

	res, body, err := g.post(t, "/short")
	if err != nil || body != answer[:at] || res.ContentLength != int64(at) {
		t.Errorf("short: %v %q length %d", err, body, res.ContentLength)
	}
	if res.Header.Get("X-Compressible") != "" {
		t.Error("an answer to be cut may be compressed")
	}
	if res.Header.Get("Content-Type") != "application/json; odata.metadata=minimal" {
		t.Errorf("headers changed: %v", res.Header)
	}
	res, body, err = g.post(t, "/wrong")
	if !errors.Is(err, io.ErrUnexpectedEOF) || body != answer[:at] || res.ContentLength != int64(len(answer)) {
		t.Errorf("wrong: %v %q length %d", err, body, res.ContentLength)
	}
	if _, body, err = g.post(t, "/half"); err != nil || len(body) != len(answer)/2 {
		t.Errorf("half: %v %q", err, body)
	}
}

func TestGarbage(t *testing.T) {
	for _, tc := range []struct {
		variant, contentType, body string
		applied                    int32
	}{
		{"html", "text/html; charset=utf-8", page, 0},
		{"empty", "application/json; charset=utf-8", "", 0},
		{"null", "application/json; charset=utf-8", "null", 0},
		{"array", "application/json; charset=utf-8", "[]", 0},
		{"bom", "application/json; odata.metadata=minimal", "\xEF\xBB\xBF" + answer, 1},
		{"wrong-type", "text/html; charset=utf-8", answer, 1},
	} {
		g := newRig(t, false)
		g.inject(t, Fault{Kind: Garbage}, `{"variant":"`+tc.variant+`"}`)
		res, body, err := g.post(t, "/a")
		if err != nil || res.StatusCode != http.StatusOK || body != tc.body || res.Header.Get("Content-Type") != tc.contentType {
			t.Errorf("%s: %v %q %v", tc.variant, err, body, res.Header)
		}
		if g.applied.Load() != tc.applied {
			t.Errorf("%s: applied %d times", tc.variant, g.applied.Load())
		}
	}
	g := newRig(t, false)
	g.inject(t, Fault{Kind: Garbage}, `{"variant":"gzip-garbage","apply":true}`)
	if _, _, err := g.post(t, "/a"); err == nil { // the client unzips
		t.Error("gzip garbage was readable")
	}
	if g.applied.Load() != 1 {
		t.Error("apply was not heeded")
	}
}

func TestStatus(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: Status, Operation: "json"}, `{"code":503}`)
	g.inject(t, Fault{Kind: Status, Operation: "html"}, `{"code":502,"body":"html","headers":{"X-Proxy":"edge"}}`)
	g.inject(t, Fault{Kind: Status, Operation: "literal"}, `{"code":400,"content":"{\"message\":\"ERROR_APIUSAGE_EXCEEDED\"}"}`)
	g.inject(t, Fault{Kind: Status, Operation: "empty"}, `{"code":504,"body":"empty"}`)
	for _, tc := range []struct {
		path string
		code int
		body string
	}{
		{"/json", 503, `{"error":{"code":"0x80040216","message":"Service Unavailable"}}`},
		{"/html", 502, "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"},
		{"/literal", 400, `{"message":"ERROR_APIUSAGE_EXCEEDED"}`},
		{"/empty", 504, ""},
	} {
		res, body, err := g.post(t, tc.path)
		if err != nil || res.StatusCode != tc.code || body != tc.body {
			t.Errorf("%s: %v %q", tc.path, err, body)
		}
		if tc.path == "/html" && res.Header.Get("X-Proxy") != "edge" {
			t.Errorf("headers %v", res.Header)
		}
	}
	if g.applied.Load() != 0 {
		t.Error("a refused call was applied")
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		args, path string
		code       int
		want       []string
	}{
		{`{"value":"-1"}`, "/busy", 429, []string{"-1"}},
		{`{"value":"1000000000"}`, "/busy", 429, []string{"1000000000"}},
		{`{"value":"Wed, 21 Oct 2015 07:28:00 GMT"}`, "/busy", 429, []string{"Wed, 21 Oct 2015 07:28:00 GMT"}},
		{`{}`, "/busy", 429, nil},
		{`{"value":"0.5","code":503}`, "/a", 503, []string{"0.5"}},
		{`{"value":"9"}`, "/a", 200, nil},
	} {
		g := newRig(t, false)
		g.inject(t, Fault{Kind: RetryAfter}, tc.args)
		res, _, err := g.post(t, tc.path)
		if err != nil || res.StatusCode != tc.code || strings.Join(res.Header.Values("Retry-After"), "|") != strings.Join(tc.want, "|") {
			t.Errorf("%s %s: %v %v", tc.args, tc.path, err, res)
		}
	}
}

func TestClockSkew(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: ClockSkew}, `{"skew":"-1h"}`)
	res, _, err := g.post(t, "/a")
	if err != nil || res.Header.Get("Date") != "Sun, 01 Mar 2026 11:00:00 GMT" {
		t.Errorf("%v %v", err, res)
	}
}

func TestHugeIsValidJSONOfTheAskedSize(t *testing.T) {
	for _, size := range []int{1, 15, 113, 114, 5000, 400_000} {
		g := newRig(t, false)
		g.inject(t, Fault{Kind: Huge}, `{"bytes":`+strconv.Itoa(size)+`}`)
		_, body, err := g.post(t, "/a")
		if err != nil || !json.Valid([]byte(body)) {
			t.Errorf("%d: %v, valid %v: %.80q", size, err, json.Valid([]byte(body)), body)
		}
		if size > 1000 && (len(body) > size || len(body) < size-200) {
			t.Errorf("asked %d bytes, got %d", size, len(body))
		}
	}
	// Nothing is held: a client that leaves ends the stream.
	g := newRig(t, false)
	g.inject(t, Fault{Kind: Huge}, "")
	res, err := g.client.Get(g.URL + "/a")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(res.Body, 32<<20)); n != 32<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	res.Body.Close()
}

func TestModifiersCombineWithAnAction(t *testing.T) {
	g := newRig(t, false)
	g.inject(t, Fault{Kind: Status}, `{"code":503,"content":"0123456789"}`)
	g.inject(t, Fault{Kind: RetryAfter}, `{"value":"3"}`)
	g.inject(t, Fault{Kind: Truncate}, `{"at":4}`)
	g.inject(t, Fault{Kind: ClockSkew}, `{"skew":"1h"}`)
	res, body, err := g.post(t, "/a")
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || body != "0123" || res.Header.Get("Retry-After") != "3" ||
		res.Header.Get("Date") != "Sun, 01 Mar 2026 13:00:00 GMT" {
		t.Errorf("%v %q %v", err, body, res)
	}
}

func TestResetReachesThroughTLS(t *testing.T) {
	set := New(1, clock.New())
	defer set.Close()
	s := httptest.NewUnstartedServer(set.Middleware(Entra, func(*http.Request) string { return "token" },
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })))
	s.Listener = Listener(s.Listener, set, Entra)
	s.StartTLS()
	defer s.Close()
	if err := set.Add(Fault{Kind: ResetBefore, Count: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Client().Post(s.URL, "text/plain", bytes.NewReader([]byte("x")))
	wantReset(t, err)
	s.Client().CloseIdleConnections()
}

func TestDroppedCallsAreVisibleToTheHandlerAround(t *testing.T) {
	for _, kind := range []string{ResetBefore, AckLost} {
		set := New(1, clock.New())
		inner := set.Middleware(Dataverse, func(*http.Request) string { return "x" }, http.NotFoundHandler())
		finished := make(chan bool, 1)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			done := false
			defer func() { finished <- done }()
			inner.ServeHTTP(w, r)
			done = true
		}))
		if err := set.Add(Fault{Kind: kind}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Client().Post(s.URL, "", nil); err == nil {
			t.Errorf("%s: answered", kind)
		}
		if <-finished {
			t.Errorf("%s: looks like a finished call", kind)
		}
		set.Close()
		s.Close()
	}
}
