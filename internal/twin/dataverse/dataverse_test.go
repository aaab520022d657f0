package dataverse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

const (
	testTenant = "7d0a3c1e-0000-4000-8000-000000000001"
	testApp    = "7d0a3c1e-0000-4000-8000-0000000000aa"
	otherApp   = "7d0a3c1e-0000-4000-8000-0000000000bb"
)

var testNow = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// world is a twin behind a real HTTP server with one application user.
type world struct {
	t      *testing.T
	s      *Server
	clock  *clock.Clock
	faults *fault.Set
	url    string
	api    string
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	fixed := clock.NewFixed(testNow)
	w := &world{t: t, clock: fixed, faults: fault.New(1, fixed)}
	opt := Options{
		Clock: w.clock, Faults: w.faults, Authority: "http://login.invalid/" + testTenant, TenantID: testTenant,
		Tokens: VerifierFunc(func(token string) (Token, error) {
			app, rest, ok := strings.Cut(token, "|")
			if !ok {
				return Token{}, errors.New("bad token")
			}
			tk := Token{AppID: app, Audience: w.url, Tenant: testTenant, Expires: testNow.Add(24 * 365 * time.Hour)}
			switch rest {
			case "expired":
				tk.Expires = testNow
			case "audience":
				tk.Audience = "https://other.example"
			case "tenant":
				tk.Tenant = "someone"
			case "user":
				tk.AppID, tk.ObjectID = otherApp, app
			}
			return tk, nil
		}),
	}
	for _, f := range change {
		f(&opt)
	}
	w.s = New(opt)
	srv := httptest.NewServer(w.s.Handler())
	t.Cleanup(srv.Close)
	w.url, w.api = srv.URL, srv.URL+"/api/data/v9.2/"
	w.s.SetBaseURL(srv.URL)
	if _, err := w.s.AddApplicationUser(AppUser{ClientID: testApp}); err != nil {
		t.Fatal(err)
	}
	return w
}

// reply is an answer with its body read.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

func (w *world) do(method, path, body string, headers ...string) *reply {
	w.t.Helper()
	target := path
	if !strings.HasPrefix(path, "http") {
		target = w.api + path
	}
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, target, in)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testApp+"|ok")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return &reply{w.t, res.StatusCode, res.Header, b}
}

func (w *world) get(path string, headers ...string) *reply {
	w.t.Helper()
	return w.do("GET", path, "", headers...)
}

// must fails the test unless the answer has the status.
func (r *reply) must(status int) *reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	return r
}

// refused fails the test unless the answer is the error.
func (r *reply) refused(status int, code string) *reply {
	r.t.Helper()
	var e struct {
		Error struct{ Code, Message string }
	}
	if r.status != status || json.Unmarshal(r.body, &e) != nil || e.Error.Code != code || e.Error.Message == "" {
		r.t.Fatalf("answer %d %s, want %d %s", r.status, r.body, status, code)
	}
	return r
}

func (r *reply) json() map[string]any {
	r.t.Helper()
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		r.t.Fatalf("%v in %s", err, r.body)
	}
	return out
}

func (r *reply) rows() []map[string]any {
	r.t.Helper()
	list, ok := r.json()["value"].([]any)
	if !ok {
		r.t.Fatalf("no value array in %s", r.body)
	}
	out := make([]map[string]any, len(list))
	for i, v := range list {
		out[i] = v.(map[string]any)
	}
	return out
}

// create makes a row and returns its id.
func (w *world) create(set, body string) string {
	w.t.Helper()
	r := w.do("POST", set, body).must(204)
	entity := r.header.Get("OData-EntityId")
	return entity[strings.LastIndex(entity, "(")+1 : len(entity)-1]
}

func TestSmoke(t *testing.T) {
	w := newWorld(t)
	if got := w.get("WhoAmI").must(200).json()["OrganizationId"]; got != w.s.OrganizationID() {
		t.Errorf("organization %v", got)
	}
	id := w.create("contacts", `{"firstname":"Ada","lastname":"King","emailaddress1":"a@x.org"}`)
	got := w.get("contacts(" + id + ")?$select=fullname,emailaddress1").must(200).json()
	if got["fullname"] != "Ada King" || got["contactid"] != id {
		t.Errorf("got %v", got)
	}
	rows := w.get("contacts?$select=fullname&$filter=emailaddress1%20eq%20'A@X.ORG'").must(200).rows()
	if len(rows) != 1 {
		t.Errorf("rows %v", rows)
	}
	t.Logf("%s", w.get("contacts?$select=fullname", "Prefer", `odata.include-annotations="*"`).body)
}

// words prints values with single spaces between them.
func words(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }
