package control

import (
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

type mailer struct {
	got    []Behaviour
	acts   []Act
	silent bool // has sent nothing
}

func (m *mailer) Act(a Act) error {
	m.acts = append(m.acts, a)
	if a.Email == "nobody@example.com" {
		return errors.New("no such contact")
	}
	return nil
}

func (m *mailer) React(b Behaviour) (Reaction, error) {
	m.got = append(m.got, b)
	if b.Campaign != 7 {
		return Reaction{}, errors.New("never sent")
	}
	return Reaction{Recipients: 10, Opens: int(b.Opens * 10)}, nil
}

func (m *mailer) Sends() iter.Seq[Send] {
	return func(yield func(Send) bool) {
		if m.silent {
			return
		}
		_ = yield(Send{ID: "s1", Account: 1, Campaign: 7, CampaignName: "News", Status: "Sent", Accepted: noon, Due: noon.Add(time.Minute), Recipients: slices.Values([]string{"a@example.com", `"b"@example.com`})}) &&
			yield(Send{ID: "s2", Account: 1, Campaign: 8, Status: "Scheduled", Accepted: noon, Due: noon, Recipients: slices.Values([]string(nil))})
	}
}

type rig struct {
	*httptest.Server
	counter *stats.Counter
	faults  *fault.Set
	clock   *clock.Clock
	mailer  *mailer
	second  *mailer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{counter: stats.New(), clock: clock.NewFixed(noon), mailer: &mailer{}, second: &mailer{silent: true}}
	g.faults = fault.New(1, g.clock)
	opt := Options{
		Token: "secret", Counters: map[string]*stats.Counter{"dataverse": g.counter, "dotdigital": stats.New()},
		Faults: g.faults, Clock: g.clock, Accounts: []Account{{1, g.mailer}, {2, g.second}},
	}
	g.Server = httptest.NewServer(New(opt))
	t.Cleanup(g.Close)
	return g
}

func (g *rig) call(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	res, err := g.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s: not JSON: %q", method, path, b)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

func TestOnlyTheTokenOpens(t *testing.T) {
	g := newRig(t)
	for _, header := range []string{"", "Bearer", "Bearer wrong", "Basic secret", "secret"} {
		req, _ := http.NewRequest(http.MethodGet, g.URL+"/stats", nil)
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		res, err := g.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%q: %d", header, res.StatusCode)
		}
	}
}

func TestStats(t *testing.T) {
	g := newRig(t)
	g.counter.Call("contact.read", "200", 10, 20)
	g.counter.Call("contact.read", "429", 1, 2)
	want := `{"dataverse":{"calls":2,"operations":{"contact.read":2},"errors":{"429":1},"bytes_in":11,"bytes_out":22},` +
		`"dotdigital":{"calls":0,"operations":{},"errors":{},"bytes_in":0,"bytes_out":0}}`
	if code, got := g.call(t, "GET", "/stats", ""); code != 200 || got != want {
		t.Errorf("%d %s", code, got)
	}
	if code, got := g.call(t, "POST", "/stats/reset", ""); code != 200 || strings.Contains(got, "429") {
		t.Errorf("%d %s", code, got)
	}
	if g.counter.Snapshot().Calls != 0 {
		t.Error("not reset")
	}
}

func TestFaults(t *testing.T) {
	g := newRig(t)
	code, got := g.call(t, "POST", "/faults", `{"twin":"dotdigital","kind":"status","rate":0.5,"every":2,"after":1,"count":3,"operation":"contact.*","args":{"code":503}}`)
	if code != 200 {
		t.Fatalf("%d %s", code, got)
	}
	want := []fault.Fault{{Twin: "dotdigital", Kind: "status", Rate: 0.5, Every: 2, After: 1, Count: 3, Operation: "contact.*", Args: json.RawMessage(`{"code":503}`)}}
	if diff := cmp.Diff(want, g.faults.Active()); diff != "" {
		t.Error(diff)
	}
	if code, got = g.call(t, "GET", "/faults", ""); code != 200 || !strings.Contains(got, `"hits":0`) {
		t.Errorf("%d %s", code, got)
	}
	if code, got = g.call(t, "DELETE", "/faults", ""); code != 200 || got != `{"faults":[]}` || len(g.faults.Active()) != 0 {
		t.Errorf("%d %s", code, got)
	}
}

func TestClock(t *testing.T) {
	g := newRig(t)
	if code, got := g.call(t, "POST", "/clock", `{"advance":"24h"}`); code != 200 || got != `{"now":"2026-01-03T12:00:00Z"}` {
		t.Errorf("%d %s", code, got)
	}
	if code, got := g.call(t, "POST", "/clock", `{"advance":"-12h"}`); code != 200 || got != `{"now":"2026-01-03T00:00:00Z"}` {
		t.Errorf("%d %s", code, got)
	}
	if _, got := g.call(t, "GET", "/clock", ""); got != `{"now":"2026-01-03T00:00:00Z"}` {
		t.Error(got)
	}
}

func TestRecipients(t *testing.T) {
	g := newRig(t)
	for _, campaign := range []string{`7`, `"7"`} {
		code, got := g.call(t, "POST", "/recipients", `{"campaign":`+campaign+`,"opens":0.5,"clicks":0.25,"bounces":0.1,"unsubscribes":0.05,"pageviews":1}`)
		if code != 200 || got != `{"recipients":10,"opens":5,"clicks":0,"bounces":0,"unsubscribes":0,"pageviews":0}` {
			t.Errorf("%d %s", code, got)
		}
	}
	want := Behaviour{Campaign: 7, Opens: 0.5, Clicks: 0.25, Bounces: 0.1, Unsubscribes: 0.05, PageViews: 1}
	if diff := cmp.Diff([]Behaviour{want, want}, g.mailer.got); diff != "" {
		t.Error(diff)
	}
	if code, got := g.call(t, "POST", "/recipients", `{"campaign":8}`); code != 409 || !strings.Contains(got, "campaign 8: never sent") {
		t.Errorf("%d %s", code, got)
	}
}

func TestSends(t *testing.T) {
	g := newRig(t)
	want := `{"sends":[{"id":"s1","account":1,"campaign":7,"campaign_name":"News","status":"Sent","accepted":"2026-01-02T12:00:00Z","due":"2026-01-02T12:01:00Z","recipients":["a@example.com","\"b\"@example.com"],"recipient_count":2},` +
		`{"id":"s2","account":1,"campaign":8,"campaign_name":"","status":"Scheduled","accepted":"2026-01-02T12:00:00Z","due":"2026-01-02T12:00:00Z","recipients":[],"recipient_count":0}]}`
	if code, got := g.call(t, "GET", "/sends", ""); code != 200 || got != want {
		t.Errorf("%d %s", code, got)
	}
}

func TestRefusals(t *testing.T) {
	g := newRig(t)
	for _, tc := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/nothing", "", 404, "no such call"},
		{"PUT", "/stats", "", 404, "no such call"},
		{"POST", "/faults", "", 400, "body is empty"},
		{"POST", "/faults", "[]", 400, "not what is expected"},
		{"POST", "/faults", `{"kind":"hang"} {}`, 400, "follows the JSON object"},
		{"POST", "/faults", `{"kind":"hang","rates":1}`, 400, "rates"},
		{"POST", "/faults", `{"kind":"hang","every":"1"}`, 400, "every cannot be a string"},
		{"POST", "/faults", `{"kind":"boom"}`, 400, "boom"},
		{"POST", "/faults", `{"kind":"` + strings.Repeat("x", maxBody) + `"}`, 413, "longer than"},
		{"POST", "/clock", `{}`, 400, "advance"},
		{"POST", "/clock", `{"advance":"1e9h"}`, 400, "advance"},
		{"POST", "/clock", `{"advance":"2000000h"}`, 400, "at most"},
		{"POST", "/recipients", `{"opens":1}`, 400, "campaign"},
		{"POST", "/recipients", `{"campaign":7,"opens":2}`, 400, "opens is 2"},
		{"POST", "/recipients", `{"campaign":7,"pageviews":-1}`, 400, "pageviews is -1"},
	} {
		code, got := g.call(t, tc.method, tc.path, tc.body)
		if code != tc.code || !strings.Contains(got, tc.want) {
			t.Errorf("%s %s %.40s: %d %s", tc.method, tc.path, tc.body, code, got)
		}
	}
	req, _ := http.NewRequest(http.MethodPost, g.URL+"/clock", strings.NewReader(`{"advance":"1h"}`))
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("Content-Type", "text/plain")
	res, err := g.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d", res.StatusCode)
	}
}

func TestPeople(t *testing.T) {
	g := newRig(t)
	for _, tt := range []struct {
		body string
		code int
		text string
	}{
		{`{"email":"a@example.com","act":"unsubscribe"}`, 200, `{}`},
		{`{"account":2,"email":"a@example.com","act":"list-unsubscribe","list":3}`, 200, `{}`},
		{`{"account":2,"email":"a@example.com","act":"preference","preference":4,"opted_in":false}`, 200, `{}`},
		{`{"account":3,"email":"a@example.com","act":"unsubscribe"}`, 400, `account is 3; accounts 1 to 2 exist`},
		{`{"email":"nobody@example.com","act":"unsubscribe"}`, 409, `no such contact`},
		{`{"act":"unsubscribe"}`, 400, `email and act`},
		{`{"email":"a@example.com"}`, 400, `email and act`},
		{`{"email":"a@example.com","act":"list-unsubscribe"}`, 400, `list is needed`},
		{`{"email":"a@example.com","act":"unsubscribe","list":3}`, 400, `list is needed`},
		{`{"email":"a@example.com","act":"preference","preference":4}`, 400, `opted_in`},
		{`{"email":"a@example.com","act":"unsubscribe","why":"spam"}`, 400, `why`},
	} {
		if code, got := g.call(t, "POST", "/people", tt.body); code != tt.code || !strings.Contains(got, tt.text) {
			t.Errorf("%s: %d %s, want %d %s", tt.body, code, got, tt.code, tt.text)
		}
	}
	if diff := cmp.Diff([]Act{{Email: "a@example.com", Act: "unsubscribe"}, {Email: "nobody@example.com", Act: "unsubscribe"}}, g.mailer.acts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Act{{Email: "a@example.com", Act: "list-unsubscribe", List: 3}, {Email: "a@example.com", Act: "preference", Preference: 4}}, g.second.acts); diff != "" {
		t.Error(diff)
	}
	if code, got := g.call(t, "POST", "/recipients", `{"account":2,"campaign":7,"opens":0.5}`); code != 200 || len(g.second.got) != 1 {
		t.Errorf("%d %s", code, got)
	}
}
