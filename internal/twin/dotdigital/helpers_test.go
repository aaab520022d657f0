package dotdigital

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

const (
	testUser     = "apiuser-000000000001@apiconnector.com"
	testPassword = "correct horse"
)

var epoch = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// account is a twin behind real HTTP.
type account struct {
	t *testing.T
	*Server
	url    string
	time   *clock.Clock
	client *http.Client
	// observe, when set, sees every answer.
	observe func(req *http.Request, reqBody []byte, resp *http.Response, body []byte)
}

func open(t *testing.T, opt Options) *account {
	t.Helper()
	if opt.Clock == nil {
		opt.Clock = clock.NewFixed(epoch)
	}
	opt.Users = append(opt.Users, APIUser{testUser, testPassword})
	s := New(opt)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	s.SetEndpoint(srv.URL + "/")
	return &account{t: t, Server: s, url: srv.URL, time: opt.Clock, client: srv.Client()}
}

type answer struct {
	t      *testing.T
	call   string
	status int
	header http.Header
	body   []byte
}

func (a *account) send(req *http.Request, body []byte) answer {
	a.t.Helper()
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: reading: %v", req.Method, req.URL, err)
	}
	if a.observe != nil {
		a.observe(req, body, resp, got)
	}
	return answer{a.t, req.Method + " " + req.URL.RequestURI(), resp.StatusCode, resp.Header, got}
}

// call makes a signed-in JSON call. body is JSON text or a value; "" is none.
func (a *account) call(method, path string, body any) answer {
	a.t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			a.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, a.url+path, bytes.NewReader(text))
	if err != nil {
		a.t.Fatal(err)
	}
	if len(text) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth(testUser, testPassword)
	return a.send(req, text)
}

func (a *account) get(path string) answer { a.t.Helper(); return a.call("GET", path, nil) }

// want checks the status and, for each text given, that the body holds it.
func (r answer) want(status int, contains ...string) answer {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: status %d, want %d; body %.400s", r.call, r.status, status, r.body)
	}
	for _, c := range contains {
		if !strings.Contains(string(r.body), c) {
			r.t.Fatalf("%s: body lacks %q: %.800s", r.call, c, r.body)
		}
	}
	return r
}

func (r answer) into(v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		r.t.Fatalf("%s: %v in %.400s", r.call, err, r.body)
	}
}

// value walks a JSON answer by member names and array indexes.
func (r answer) value(path ...any) any {
	r.t.Helper()
	var v any
	r.into(&v)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				r.t.Fatalf("%s: no element %d in %.400s", r.call, p, r.body)
			}
			v = l[p]
		}
	}
	return v
}

func (a *account) addList(name string) int32 {
	a.t.Helper()
	id, err := a.AddList(name, false)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

func (a *account) add(c NewContact) int64 {
	a.t.Helper()
	id, err := a.Loader().Contact(c)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}
