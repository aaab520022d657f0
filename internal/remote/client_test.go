package remote_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// quick are limits that a test can wait for.
var quick = remote.Limits{Connect: time.Second, Header: 300 * time.Millisecond, Progress: 200 * time.Millisecond, Total: 2 * time.Second, Backoff: time.Millisecond}

func open(t *testing.T, h http.Handler, change func(*remote.Options)) (*remote.Client, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, _ := url.Parse(srv.URL)
	o := remote.Options{System: lockstep.SystemCRM, Name: "test", Title: "The server", Base: u, AllowHosts: []string{u.Host}, Limits: quick}
	if change != nil {
		change(&o)
	}
	c, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c, srv
}

func get(c *remote.Client, path string) remote.Call {
	u := c.Base()
	u.Path = path
	return remote.Call{Op: "read", Method: http.MethodGet, URL: u, Route: "/x", Repeatable: true}
}

func TestInternalTargets(t *testing.T) {
	targets := []string{
		"https://127.0.0.1/", "https://127.1/", "https://0.0.0.0/", "https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
		"https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/", "https://100.64.0.1/",
		"https://169.254.169.254/latest/meta-data", "https://[fd00:ec2::254]/", "https://[fe80::1%25eth0]/", "https://198.18.0.1/", "https://224.0.0.1/", "https://255.255.255.255/",
		"https://localhost/", "https://localhost./", "https://a.localhost/", "https://org.crm.dynamics.com@10.0.0.1/", "https://user:pw@org.crm.dynamics.com/",
		"http://org.crm.dynamics.com/", "https://org.crm.dynamics.com:8443/", "https://org.crm.dynamics.com:22/", `https://org.crm.dynamics.com\@evil.example/`,
		"https://org.crm.dynamics.com\r\nHost: x/", "https://org.crm.dynamics.com\t/", "https://\u043erg.crm.dynamics.com/", "https://org%2ecrm.dynamics.com/", "https://intranet/",
		"file:///etc/passwd", "gopher://a.example/", "ftp://a.example/", "unix:/var/run/docker.sock", "//a.example/", "", "https://", "https://[2002:7f00:1::]/", "https://a..example/", "https://-a.example/",
	}
	for _, target := range targets {
		if err := remote.CheckURL(target, nil); lockstep.CodeOf(err) != lockstep.CodeGuarded {
			t.Errorf("CheckURL(%q) = %v", target, err)
		}
	}
	for _, target := range []string{"https://org.crm4.dynamics.com", "https://org.crm.dynamics.com:443/x", "https://r1-api.dotdigital.com/v2", "https://8.8.8.8/", "https://xn--bcher-kva.example/"} {
		if err := remote.CheckURL(target, nil); err != nil {
			t.Errorf("CheckURL(%q) = %v", target, err)
		}
	}
}

func TestAllowedHostIsExact(t *testing.T) {
	allow := []string{"crm.internal", "10.0.0.5:8080"}
	for target, ok := range map[string]bool{
		"https://crm.internal/": true, "http://CRM.internal/": true, "https://crm.internal:8443/": false, "http://10.0.0.5:8080/": true,
		"http://10.0.0.5/": false, "https://x.crm.internal/": true /* a public name as far as anyone can see */, "http://x.crm.internal/": false, "https://user@crm.internal/": false,
	} {
		if err := remote.CheckURL(target, allow); (err == nil) != ok {
			t.Errorf("CheckURL(%q) = %v, want ok=%v", target, err, ok)
		}
	}
}

// A name that resolves to an internal address is stopped by the address dialled.
func TestDialledAddress(t *testing.T) {
	reached := atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer srv.Close()
	tr := remote.NewTransport(quick, nil)
	for _, host := range []string{srv.Listener.Addr().String(), "localhost:" + strings.Split(srv.Listener.Addr().String(), ":")[1]} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host, nil)
		resp, err := tr.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if lockstep.CodeOf(err) != lockstep.CodeGuarded || reached.Load() {
			t.Errorf("%s: %v, reached %v", host, err, reached.Load())
		}
	}
}

func TestRedirectIsAnError(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }),
		func(o *remote.Options) { o.Auth = remote.Basic("u", "p") })
	_, err := c.Do(t.Context(), get(c, "/"))
	if lockstep.CodeOf(err) != lockstep.CodeUnavailable || elsewhere.Load() != 0 {
		t.Errorf("%v, %d requests elsewhere", err, elsewhere.Load())
	}
}

func TestOtherOrigin(t *testing.T) {
	var got atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer other.Close()
	ou, _ := url.Parse(other.URL)
	c, srv := open(t, http.NotFoundHandler(), func(o *remote.Options) {
		o.Auth = remote.Basic("u", "p")
		o.AllowHosts = append(o.AllowHosts, ou.Host)
	})
	call := get(c, "/")
	call.URL = ou
	if _, err := c.Do(t.Context(), call); lockstep.CodeOf(err) != lockstep.CodeGuarded || got.Load() != 0 {
		t.Errorf("%v, %d requests", err, got.Load())
	}
	for _, link := range []string{other.URL + "/x", "https://" + strings.TrimPrefix(srv.URL, "http://"), "http://a@" + strings.TrimPrefix(srv.URL, "http://"), "//evil.example/x", "javascript:x", "http://%zz"} {
		if _, err := c.Link(link); lockstep.CodeOf(err) != lockstep.CodeGuarded {
			t.Errorf("Link(%q) = %v", link, err)
		}
	}
	if u, err := c.Link(srv.URL + "/next?a=b"); err != nil || u.Path != "/next" {
		t.Errorf("own link: %v %v", u, err)
	}
}

func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		name       string
		status     int
		header     string
		repeatable bool
		attempts   int32
	}{
		{"repeatable 502", 502, "", true, 5},
		{"repeatable 503", 503, "", true, 5},
		{"repeatable 504", 504, "", true, 5},
		{"repeatable 408", 408, "", true, 5},
		{"repeatable 500", 500, "", true, 1},
		{"repeatable 400", 400, "", true, 1},
		{"other 502", 502, "", false, 1},
		{"other 503", 503, "", false, 1},
		{"other 504", 504, "", false, 1},
	} {
		var n atomic.Int32
		c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			w.WriteHeader(tc.status)
		}), nil)
		call := get(c, "/")
		call.Repeatable = tc.repeatable
		call.Method = http.MethodPost
		call.Body = []byte("x")
		m := &lockstep.Meter{}
		resp, err := c.Do(lockstep.WithMeter(t.Context(), m), call)
		if err != nil || resp.Status != tc.status || n.Load() != tc.attempts || m.Calls().CRM != int64(tc.attempts) {
			t.Errorf("%s: %v %v, %d attempts, %+v counted", tc.name, resp, err, n.Load(), m.Calls())
			continue
		}
		_ = resp.Body.Close()
	}
}

func TestLostAnswer(t *testing.T) {
	var n atomic.Int32
	var bodies sync.Map
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies.Store(n.Add(1), string(b))
		if n.Load() == 1 {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
			return
		}
		fmt.Fprint(w, "done")
	}), nil)
	call := get(c, "/")
	call.Method, call.Body = http.MethodPost, []byte("payload")
	text, _, err := c.Fetch(t.Context(), call, 0)
	second, _ := bodies.Load(int32(2))
	if err != nil || text != "done" || second != "payload" {
		t.Errorf("repeatable: %q %v, body %v", text, err, second)
	}
	n.Store(0)
	call.Repeatable = false
	if _, err := c.Do(t.Context(), call); !lockstep.IsUnknown(err) || n.Load() != 1 {
		t.Errorf("not repeatable: %v after %d attempts, unknown %v", err, n.Load(), lockstep.IsUnknown(err))
	}
}

func TestRefusedConnectionIsNotUnknown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	_ = l.Close()
	c, err := remote.New(remote.Options{Name: "test", Base: u, AllowHosts: []string{u.Host}, Limits: quick})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(t.Context(), remote.Call{Op: "send", Method: http.MethodPost, URL: u, Body: []byte("x")})
	if lockstep.CodeOf(err) != lockstep.CodeUnavailable || lockstep.IsUnknown(err) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, unknown %v", err, lockstep.IsUnknown(err))
	}
}

func TestHangAndSlowBodies(t *testing.T) {
	stop := make(chan struct{})
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			fmt.Fprint(w, "begin")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}), func(o *remote.Options) { o.Limits.Attempts = 2 })
	defer close(stop)
	_, err := c.Do(t.Context(), get(c, "/hang"))
	if lockstep.CodeOf(err) != lockstep.CodeUnavailable {
		t.Errorf("hang: %v", err)
	}
	_, _, err = c.Fetch(t.Context(), get(c, "/slow"), 0)
	if lockstep.CodeOf(err) != lockstep.CodeUnavailable || !strings.Contains(err.Error(), "stopped sending") {
		t.Errorf("slow body: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = c.Do(ctx, get(c, "/hang")); lockstep.CodeOf(err) != lockstep.CodeUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err = c.Do(ctx, get(c, "/hang")); lockstep.CodeOf(err) != lockstep.CodeCancelled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTruncatedAnswerIsFetchedAgain(t *testing.T) {
	var n atomic.Int32
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		if n.Add(1) < 3 {
			fmt.Fprint(w, "01234")
			return
		}
		fmt.Fprint(w, "0123456789")
	}), nil)
	text, _, err := c.Fetch(t.Context(), get(c, "/"), 0)
	if err != nil || text != "0123456789" || n.Load() != 3 {
		t.Errorf("%q %v after %d attempts", text, err, n.Load())
	}
}

func TestBodyCap(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		case "/zipped":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte("hello"))
			_ = z.Close()
		case "/damaged":
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "this is no gzip")
		case "/announced":
			w.Header().Set("Content-Length", "99999999")
			w.WriteHeader(http.StatusOK)
		case "/error":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write(make([]byte, remote.ErrorBody+1))
		default:
			for range 2048 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}
	}), func(o *remote.Options) { o.Limits.Body = 1 << 20; o.Limits.Attempts = 1 })
	for _, path := range []string{"/bomb", "/announced", "/stream", "/error"} {
		text, _, err := c.Fetch(t.Context(), get(c, path), 0)
		if lockstep.CodeOf(err) != lockstep.CodeUnavailable || !strings.Contains(err.Error(), "too large") || text != "" {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
	if text, _, err := c.Fetch(t.Context(), get(c, "/zipped"), 0); err != nil || text != "hello" {
		t.Errorf("zipped: %q %v", text, err)
	}
	if _, _, err := c.Fetch(t.Context(), get(c, "/damaged"), 0); lockstep.CodeOf(err) != lockstep.CodeUnavailable || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("damaged: %v", err)
	}
}

// tokens hands out a new value for each refusal, up to a number.
type tokens struct{ n, most int32 }

func (a *tokens) Authorize(_ context.Context, refused string) (string, error) {
	now := fmt.Sprintf("Bearer %d", atomic.LoadInt32(&a.n))
	if refused == now && atomic.LoadInt32(&a.n) < a.most {
		now = fmt.Sprintf("Bearer %d", atomic.AddInt32(&a.n, 1))
	}
	return now, nil
}

func TestUnauthorizedOnce(t *testing.T) {
	var n atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if b, _ := io.ReadAll(r.Body); string(b) != "body" {
			t.Errorf("body %q", b)
		}
		if r.Header.Get("Authorization") != "Bearer 1" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	auth := &tokens{most: 5}
	c, _ := open(t, h, func(o *remote.Options) { o.Auth = auth })
	call := get(c, "/")
	call.Method, call.Body = http.MethodPost, []byte("body")
	resp, err := c.Do(t.Context(), call)
	if err != nil || resp.Status != 200 || n.Load() != 2 {
		t.Errorf("%v %v after %d", resp, err, n.Load())
	}
	n.Store(0)
	never := &tokens{n: 10, most: 100}
	c, _ = open(t, h, func(o *remote.Options) { o.Auth = never })
	call.URL = c.Base()
	resp, err = c.Do(t.Context(), call)
	if err != nil || resp.Status != 401 || n.Load() != 2 || never.n != 11 {
		t.Errorf("never accepted: %v %v after %d calls and %d tokens", resp, err, n.Load(), never.n-10)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"120": 2 * time.Minute, "1.5": 1500 * time.Millisecond, "0": time.Second, "-5": time.Second, "1000000000": 10 * time.Minute, "1e300": 10 * time.Minute,
		"Sun, 01 Mar 2026 10:00:30 GMT": 30 * time.Second, "Sun, 01 Mar 2026 09:00:00 GMT": time.Second, "Mon, 01 Mar 2027 10:00:00 GMT": 10 * time.Minute,
		"NaN": -1, "soon": -1, "": -1,
	} {
		got, ok := remote.RetryAfter(http.Header{"Retry-After": {v}}, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q = %v %v, want %v", v, got, ok, want)
		}
	}
	h := http.Header{"Retry-After": {"Sun, 01 Mar 2026 12:00:30 GMT"}, "Date": {"Sun, 01 Mar 2026 12:00:00 GMT"}}
	if got, _ := remote.RetryAfter(h, now); got != 30*time.Second {
		t.Errorf("against the answer's own clock: %v", got)
	}
}

// script answers without a network, so that time can be virtual.
type script func(n int32, req *http.Request) *http.Response

type scripted struct {
	n  atomic.Int32
	do script
}

func (s *scripted) RoundTrip(req *http.Request) (*http.Response, error) {
	r := s.do(s.n.Add(1), req)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Body = http.NoBody
	return r, nil
}

func virtual(t *testing.T, pace *remote.Pace, do script) *remote.Client {
	t.Helper()
	c, err := remote.New(remote.Options{Name: "test", Base: &url.URL{Scheme: "https", Host: "api.example.com"}, Transport: &scripted{do: do}, Pace: pace, Limits: remote.Limits{Total: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestThrottledCallersWaitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var early atomic.Int32
		pace := remote.NewPace(8, 8)
		c := virtual(t, pace, func(n int32, _ *http.Request) *http.Response {
			if time.Since(start) < 120*time.Second {
				if time.Since(start) > 0 {
					early.Add(1)
				}
				return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"120"}}}
			}
			return &http.Response{StatusCode: http.StatusOK}
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				resp, err := c.Do(t.Context(), remote.Call{Op: "send", Method: http.MethodPost, URL: c.Base()}) // not repeatable: a 429 was not accepted
				if err != nil || resp.Status != 200 {
					t.Errorf("%v %v", resp, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 120*time.Second || took > 125*time.Second || early.Load() != 0 {
			t.Errorf("took %v, %d early", took, early.Load())
		}
		if _, limit := pace.InFlight(); limit > 5 {
			t.Errorf("limit %d after a burst of refusals, want it halved", limit)
		}
	})
}

func TestThrottledBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := virtual(t, nil, func(int32, *http.Request) *http.Response {
			return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"300"}}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := c.Do(ctx, remote.Call{Op: "read", Method: http.MethodGet, URL: c.Base(), Repeatable: true})
		if e := lockstep.AsError(err); e.Code != lockstep.CodeThrottled || e.After != 5*time.Minute || time.Since(start) != 0 {
			t.Errorf("%v after %v, waited %v", err, e.After, time.Since(start))
		}
	})
}

func TestPaceClimbsAndKeepsItsCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inFlight, most atomic.Int32
		pace := remote.NewPace(2, 50)
		c := virtual(t, pace, func(int32, *http.Request) *http.Response {
			n := inFlight.Add(1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			time.Sleep(time.Second)
			inFlight.Add(-1)
			return &http.Response{StatusCode: http.StatusOK}
		})
		run := func(calls int) {
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() { _, _ = c.Do(t.Context(), remote.Call{Op: "read", Method: http.MethodGet, URL: c.Base()}) })
			}
			wg.Wait()
		}
		run(400)
		if m := most.Load(); m < 8 || m > 50 {
			t.Errorf("most in flight %d, want it to have climbed", m)
		}
		pace.SetCeiling(4)
		most.Store(0)
		run(40)
		if m := most.Load(); m > 4 {
			t.Errorf("%d in flight above the ceiling of 4", m)
		}
	})
}

// One answer after the other is inflated, whatever became of those before.
func TestInflatesAnswersInTurn(t *testing.T) {
	c, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		fmt.Fprint(z, strings.Repeat(r.URL.Path, 5_000))
		_ = z.Close()
		w.Header().Set("Content-Encoding", "gzip")
		if strings.HasSuffix(r.URL.Path, "cut") {
			b.Truncate(b.Len() / 2)
		}
		_, _ = w.Write(b.Bytes())
	}), nil)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			path := fmt.Sprintf("/%d", i)
			if i%3 == 0 {
				path += "cut"
			}
			call := get(c, path)
			call.Repeatable = false
			text, _, err := c.Fetch(t.Context(), call, 0)
			if cut := i%3 == 0; cut != (err != nil) || !cut && text != strings.Repeat(path, 5_000) {
				t.Errorf("%s: %d bytes, %v", path, len(text), err)
			}
		})
	}
	wg.Wait()
}

// Who asked first goes first, also after a pause that all had to wait for.
func TestPaceKeepsTheOrder(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			const callers = 12
			var mu sync.Mutex
			var order []string
			c := virtual(t, remote.NewPace(1, 1), func(n int32, r *http.Request) *http.Response {
				mu.Lock()
				if n > 1 {
					order = append(order, r.URL.Path)
				}
				mu.Unlock()
				time.Sleep(time.Duration(100+n) * time.Millisecond)
				if n == 1 {
					return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}}
				}
				return &http.Response{StatusCode: http.StatusOK}
			})
			var want []string
			var wg sync.WaitGroup
			for i := range callers {
				u := c.Base()
				u.Path = fmt.Sprintf("/%02d", i)
				if i > 0 {
					want = append(want, u.Path)
				}
				wg.Go(func() { _, _ = c.Do(t.Context(), remote.Call{Op: "read", Method: http.MethodGet, URL: u}) })
				time.Sleep(time.Millisecond)
			}
			wg.Wait()
			want = append(want, "/00") // it asks again
			if d := cmp.Diff(want, order); d != "" {
				t.Fatalf("the calls arrived in another order (-want +got):\n%s", d)
			}
		})
	}
}

// An urgent call has a place of its own, and goes while others are held back.
func TestPaceLetsUrgentCallsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pace := remote.NewPace(2, 2)
		c := virtual(t, pace, func(int32, *http.Request) *http.Response {
			time.Sleep(time.Minute)
			return &http.Response{StatusCode: http.StatusOK}
		})
		call := func(ctx context.Context) {
			_, _ = c.Do(ctx, remote.Call{Op: "read", Method: http.MethodGet, URL: c.Base()})
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { call(t.Context()) })
		}
		synctest.Wait()
		start := time.Now()
		call(lockstep.WithUrgency(t.Context()))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("behind 20 others an urgent call took %v, want the minute of the call itself", d)
		}
		wg.Wait()
		pace.Hold(time.Hour)
		start = time.Now()
		call(lockstep.WithUrgency(t.Context()))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("while others are held an urgent call took %v", d)
		}
		start = time.Now()
		call(t.Context())
		if d := time.Since(start); d < 58*time.Minute {
			t.Errorf("another call waited %v only", d)
		}
		if n, _ := pace.InFlight(); n != 0 {
			t.Errorf("%d in flight in the end", n)
		}
	})
}

func TestNothingPersonalIsLoggedOrReported(t *testing.T) {
	var logs bytes.Buffer
	c, srv := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-ms-service-request-id", "id-1")
		if r.URL.Path == "/break/ada@example.com" {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.Close()
		}
	}), func(o *remote.Options) {
		o.Log = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Auth = remote.Basic("user", "hunter2")
		o.Limits.Attempts = 2
	})
	call := get(c, "/ok/ada@example.com")
	call.URL.RawQuery = "email=ada@example.com"
	if _, _, err := c.Fetch(t.Context(), call, 0); err != nil {
		t.Fatal(err)
	}
	call = get(c, "/break/ada@example.com")
	_, err := c.Do(t.Context(), call)
	if err == nil {
		t.Fatal("a broken call succeeded")
	}
	all := logs.String() + err.Error()
	for _, secret := range []string{"ada", "hunter2", srv.URL, "email="} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in %s", secret, all)
		}
	}
	if !strings.Contains(logs.String(), "request_id=id-1") || !strings.Contains(logs.String(), "route=/x") {
		t.Errorf("log lacks the request id or route: %s", logs.String())
	}
}
