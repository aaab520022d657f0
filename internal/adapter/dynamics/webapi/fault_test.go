package webapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// Each fault that passes is survived without the caller noticing.
func TestPassingFaults(t *testing.T) {
	w := newWorld(t, options{})
	c := w.openWith(quick)
	w.write(c, "contact", people(1, 40))
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname"}}
	type f struct{ kind, args string }
	cases := []f{
		{"reset-before", ""},
		{"ack-lost", ""},
		{"hang", ""},
		{"truncate", `{"at":700}`},
		{"truncate", `{"at":701,"keep_length":true}`},
		{"truncate", `{"at":0}`},
		{"status", `{"code":502,"body":"html"}`},
		{"status", `{"code":503,"body":"empty"}`},
		{"status", `{"code":504}`},
		{"status", `{"code":408}`},
		{"token-expire", ""},
		{"status", `{"code":429,"headers":{"Retry-After":"0"}}`},
	}
	for _, v := range []string{"html", "empty", "null", "array", "bom", "gzip-garbage", "wrong-type"} {
		cases = append(cases, f{"garbage", `{"variant":"` + v + `"}`})
	}
	for _, tc := range cases {
		w.faults.Clear()
		w.fault(tc.kind, "", 1, tc.args)
		records, cursor, err := read(t.Context(), c, q, "")
		if err != nil || len(records) != 40 || cursor == "" {
			t.Errorf("%s %s: %d records: %v", tc.kind, tc.args, len(records), err)
		}
	}
	// The same on a write route.
	for i, tc := range cases {
		w.faults.Clear()
		w.fault(tc.kind, "", 1, tc.args)
		results, err := c.WriteRecords(t.Context(), "contact", people(1000+10*i, 10))
		if err != nil {
			t.Errorf("write, %s %s: %v", tc.kind, tc.args, err)
			continue
		}
		for _, e := range results {
			if e != nil {
				t.Errorf("write, %s %s: %v", tc.kind, tc.args, e)
			}
		}
	}
	w.faults.Clear()
	if n, _ := c.CountRecords(t.Context(), "contact"); n != int64(40+10*len(cases)) {
		t.Errorf("%d records, want %d", n, 40+10*len(cases))
	}
}

// Each fault that stays is reported within bounds, and never as success.
func TestLastingFaults(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 40))
	q := lockstep.RecordQuery{Table: "contact"}
	for _, tc := range []struct {
		kind, args string
		want       lockstep.Code
	}{
		{"reset-before", "", lockstep.CodeUnavailable},
		{"slow-body", `{"bytes_per_second":2}`, lockstep.CodeUnavailable},
		{"garbage", `{"variant":"html"}`, lockstep.CodeUnavailable},
		{"garbage", `{"variant":"null"}`, lockstep.CodeUnavailable},
		{"truncate", `{"at":700}`, lockstep.CodeUnavailable},
		{"status", `{"code":500}`, lockstep.CodeUnavailable},
		{"status", `{"code":503,"body":"html"}`, lockstep.CodeUnavailable},
		{"status", `{"code":403}`, lockstep.CodeForbidden},
		{"status", `{"code":401}`, lockstep.CodeUnauthorized},
		{"status", `{"code":400,"body":"html"}`, lockstep.CodeInvalid},
		{"status", `{"code":302,"headers":{"Location":"http://169.254.169.254/"}}`, lockstep.CodeUnavailable},
		{"huge", `{"bytes":5000000000}`, lockstep.CodeUnavailable},
	} {
		w.faults.Clear()
		l := quick
		l.Body, l.Attempts = 4<<20, 2
		c := w.openWith(l)
		if _, _, err := read(t.Context(), c, q, ""); err != nil {
			t.Fatal(err)
		}
		w.fault(tc.kind, "", 0, tc.args)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		records, cursor, err := read(ctx, c, q, "")
		cancel()
		if lockstep.CodeOf(err) != tc.want || len(records) != 0 || cursor != "" {
			t.Errorf("%s %s: %d records, %v", tc.kind, tc.args, len(records), err)
		}
		if err != nil && strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: the error holds an address: %v", tc.kind, err)
		}
		if _, err := c.WriteRecords(t.Context(), "contact", people(1, 2)); err == nil {
			t.Errorf("%s %s: a write was reported as done", tc.kind, tc.args)
		}
	}
}

func TestCancelledRead(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 3))
	w.fault("hang", "", 0, "")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, _, err := read(ctx, c, lockstep.RecordQuery{Table: "contact"}, ""); lockstep.CodeOf(err) != lockstep.CodeCancelled {
		t.Errorf("%v", err)
	}
}

// A token expires: one renewal for all the callers that wait for it.
func TestTokenIsRenewedOnce(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	if _, err := c.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := w.signIns.Snapshot().Operations["token"]
	w.clock.Advance(2 * time.Hour)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Identity(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.signIns.Snapshot().Operations["token"] - before; n != 1 {
		t.Errorf("%d token requests for 50 waiting calls", n)
	}
}

// An expired secret is not tried in a loop.
func TestExpiredSecretIsNotAStorm(t *testing.T) {
	w := newWorld(t, options{})
	w.settings["client_secret"] = "old"
	c := w.open()
	for range 20 {
		_, err := c.Identity(t.Context())
		if e := lockstep.AsError(err); e.Code != lockstep.CodeUnauthorized || e.Upstream != "AADSTS7000222" || e.Field != "client_secret" {
			t.Fatalf("%v", err)
		}
	}
	if n := w.signIns.Snapshot().Operations["token"]; n != 1 {
		t.Errorf("%d attempts within five minutes", n)
	}
	w.clock.Advance(6 * time.Minute)
	_, _ = c.Identity(t.Context())
	if n := w.signIns.Snapshot().Operations["token"]; n != 2 {
		t.Errorf("%d attempts after six minutes", n)
	}
}

func TestConnectTest(t *testing.T) {
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>hello</html>")
	}))
	defer html.Close()
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	host := func(u string) string { return strings.TrimPrefix(u, "http://") }
	for _, tc := range []struct {
		name    string
		options options
		change  func(w *world)
		step    string // the one that fails
		in      string // part of cause or fix
	}{
		{name: "works"},
		{name: "unreachable", change: func(w *world) {
			w.settings["url"], w.env.AllowHosts = gone.URL, append(w.env.AllowHosts, host(gone.URL))
		}, step: "reachable", in: "refused"},
		{name: "html", change: func(w *world) {
			w.settings["url"], w.env.AllowHosts = html.URL, append(w.env.AllowHosts, host(html.URL))
		}, step: "dynamics", in: "not a Dynamics organization"},
		{name: "404", change: func(w *world) {
			w.settings["url"], w.env.AllowHosts = missing.URL, append(w.env.AllowHosts, host(missing.URL))
		}, step: "dynamics", in: "not a Dynamics organization"},
		{name: "wrong secret", change: func(w *world) { w.settings["client_secret"] = "wrong" }, step: "sign-in", in: "not its Secret ID"},
		{name: "expired secret", change: func(w *world) { w.settings["client_secret"] = "old" }, step: "sign-in", in: "expired"},
		{name: "unknown client", change: func(w *world) { w.settings["client_id"] = "99999999-aaaa-4bbb-8ccc-444444444444" }, step: "sign-in", in: "no application with this client id"},
		{name: "wrong tenant", change: func(w *world) {
			w.settings["authority"] = "http://" + w.env.AllowHosts[1] + "/99999999-aaaa-4bbb-8ccc-222222222222"
		}, step: "sign-in", in: "tenant"},
		{name: "no application user", options: options{noUser: true}, step: "application-user", in: "application user"},
		{name: "no role", options: options{user: &dataverse.AppUser{NoRole: true}}, step: "application-user", in: "role"},
		{name: "disabled", options: options{user: &dataverse.AppUser{Disabled: true}}, step: "application-user", in: "disabled"},
		{name: "no privilege", options: options{user: &dataverse.AppUser{Without: []string{"prvReadLead"}}}, step: "privileges", in: "prvReadLead"},
		{name: "bare", options: options{profile: dataverse.Bare}, step: "marketing-lists", in: "Sales"},
	} {
		w := newWorld(t, tc.options)
		if tc.change != nil {
			tc.change(w)
		}
		steps := w.open().ConnectTest(t.Context())
		last := steps[len(steps)-1]
		for _, s := range steps[:len(steps)-1] {
			if !s.OK {
				t.Errorf("%s: step %s failed and was not the last", tc.name, s.Name)
			}
		}
		switch {
		case tc.step == "" && (!last.OK || len(steps) != 7):
			t.Errorf("%s: %+v", tc.name, steps)
		case tc.step != "" && (last.OK || last.Name != tc.step || !strings.Contains(last.Cause+" "+last.Fix, tc.in) || last.Fix == ""):
			t.Errorf("%s: %s: %s: %s", tc.name, last.Name, last.Cause, last.Fix)
		}
	}
	// The token is for another organization: the wrong audience.
	w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				r.Header.Set("Authorization", "Bearer another")
			}
			h.ServeHTTP(rw, r)
		})
	}})
	steps := w.open().ConnectTest(t.Context())
	if last := steps[len(steps)-1]; last.Name != "sign-in" || !strings.Contains(last.Cause, "does not accept the access token") {
		t.Errorf("wrong audience: %+v", last)
	}
}

// A link in an answer that leads elsewhere is not followed.
func TestForeignLinks(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, target := range []string{other.URL + "/api/data/v9.2/contacts", "https://169.254.169.254/api/data/x", "http://user@127.0.0.1/api/data/", "/etc/passwd", "file:///etc/passwd"} {
		for _, member := range []string{"@odata.nextLink", "@odata.deltaLink"} {
			w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") == "" || !strings.HasSuffix(r.URL.Path, "/contacts") {
						h.ServeHTTP(rw, r)
						return
					}
					rw.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
					_ = json.NewEncoder(rw).Encode(map[string]any{"value": []any{}, member: target})
				})
			}})
			c := w.open()
			_, cursor, err := read(t.Context(), c, lockstep.RecordQuery{Table: "contact"}, "")
			if err == nil || cursor != "" || elsewhere.Load() != 0 {
				t.Errorf("%s to %s: %v, %d calls", member, target, err, elsewhere.Load())
			}
		}
	}
}

func TestPagesInACircle(t *testing.T) {
	var n atomic.Int32
	w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" || !strings.HasSuffix(r.URL.Path, "/contacts") {
				h.ServeHTTP(rw, r)
				return
			}
			n.Add(1)
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(rw, `{"value":[{"contactid":%q}],"@odata.nextLink":"http://%s%s?$skiptoken=%d"}`, id(1), r.Host, r.URL.Path, n.Load()%3)
		})
	}})
	c := w.open()
	_, _, err := read(t.Context(), c, lockstep.RecordQuery{Table: "contact"}, "")
	if lockstep.CodeOf(err) != lockstep.CodeUnavailable || n.Load() > 6 {
		t.Errorf("%v after %d calls", err, n.Load())
	}
}

// The adapter's own view of a page that is not in step with the number of calls.
func TestThrottledFeedCompletes(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 30))
	if err := w.faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "status", Every: 2, Count: 2, Args: json.RawMessage(`{"code":429,"headers":{"Retry-After":"1"}}`)}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	records, _, err := read(t.Context(), c, lockstep.RecordQuery{Table: "contact"}, "")
	if err != nil || len(records) != 30 {
		t.Errorf("%d records: %v", len(records), err)
	}
	records, _, err = read(t.Context(), c, lockstep.RecordQuery{Table: "contact"}, "")
	if err != nil || len(records) != 30 || time.Since(start) < time.Second {
		t.Errorf("%d records after %v: %v", len(records), time.Since(start), err)
	}
}

func TestRefusalsAreClassified(t *testing.T) {
	type want struct {
		Code     lockstep.Code
		Scope    lockstep.Scope
		Field    string
		Upstream string
	}
	for name, tc := range map[string]struct {
		status int
		body   string
		want   want
	}{
		"missing":         {404, `{"error":{"code":"0x80040217","message":"contact With Id = x Does Not Exist"}}`, want{lockstep.CodeNotFound, record, "", "0x80040217"}},
		"too long":        {400, `{"error":{"code":"0x80044331","message":"Die Länge des Attributes 'jobtitle' der Entität 'contact' überschreitet '100'."}}`, want{lockstep.CodeInvalid, record, "jobtitle", "0x80044331"}},
		"signed":          {400, `{"error":{"code":"-2147220969","message":""}}`, want{lockstep.CodeNotFound, record, "", "0x80040217"}},
		"no prefix":       {403, `{"error":{"code":"80040220","message":"Principal user is missing prvReadContact privilege (Name=prvReadContact)"}}`, want{lockstep.CodeForbidden, call, "prvReadContact", "0x80040220"}},
		"throttled":       {429, `{"error":{"code":"0x80072322","message":"x"}}`, want{lockstep.CodeThrottled, all, "", "0x80072322"}},
		"throttled plain": {429, `{"error":{"code":"429","message":"x"}}`, want{lockstep.CodeThrottled, all, "", ""}},
		"unknown code":    {400, `{"error":{"code":"0x81234567","message":"secret@example.com"}}`, want{lockstep.CodeInvalid, call, "", "0x81234567"}},
		"zero":            {400, `{"error":{"code":"0x0","message":"x"}}`, want{lockstep.CodeInvalid, call, "", ""}},
		"empty":           {400, `{"error":{"code":"","message":"x"}}`, want{lockstep.CodeInvalid, call, "", ""}},
		"html":            {502, `<html>`, want{lockstep.CodeUnavailable, all, "", ""}},
		"expired":         {400, `{"error":{"code":"0x80044352","message":"x"}}`, want{lockstep.CodeExpired, call, "", "0x80044352"}},
		"not a member":    {403, `{"error":{"code":"0x80072560","message":"x"}}`, want{lockstep.CodeForbidden, all, "", "0x80072560"}},
	} {
		e := refusal(tc.status, tc.body)
		if d := cmp.Diff(tc.want, want{e.Code, e.Scope, e.Field, e.Upstream}); d != "" {
			t.Errorf("%s: %v\n%s", name, e, d)
		}
		if strings.Contains(e.Error(), "secret@") || e.Msg == "" {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// The number of calls in flight follows what the service recommends, in both directions
// and from the next answer on, and stays within what we allow ourselves.
func TestRecommendedParallelism(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	for _, hint := range []int{50, 4, 1, 50} {
		w.org.SetLimits(dataverse.Limits{Parallel: hint})
		if _, err := c.Identity(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 60 { // successes let the number grow as far as it may
			wg.Go(func() { _, _ = c.Identity(t.Context()) })
		}
		wg.Wait()
		_, limit := c.http.Pace().InFlight()
		if limit > min(hint, maxInFlight) || limit < 1 || hint == 50 && limit <= 4 {
			t.Errorf("recommended are %d calls at a time, allowed %d", hint, limit)
		}
	}
}
