package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/web"
)

// hooked is a world whose syncs run by themselves and whose clock can be put forward,
// with a server that the organization can call.
type hooked struct {
	*world
	server *httptest.Server
	ahead  atomic.Int64 // of the real time

	mu   sync.Mutex
	last hookCall
}

type hookCall struct {
	path   string
	header http.Header
	body   []byte
}

func newHooked(t *testing.T, cfg app.Config) *hooked {
	t.Helper()
	h := &hooked{}
	cfg.Schedules, cfg.Now = true, h.now
	h.world = newWorld(t, worldOptions{cfg: cfg, twins: twin.Options{Contacts: 120, Seed: 5, Plain: true}})
	h.serve(h.app)
	yes := true
	if _, err := h.app.UpdateAccount(t.Context(), h.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hooked) now() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }

// forward puts the product's clock forward and has it looked at.
func (h *hooked) forward(d time.Duration) {
	h.t.Helper()
	h.ahead.Add(int64(d))
	yes := true
	if _, err := h.app.UpdateAccount(h.t.Context(), h.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
		h.t.Fatal(err)
	}
}

// serve has a product answer the organization's calls, and keeps the last one.
func (h *hooked) serve(a *app.App) {
	inner := web.Handler(a, nil, web.Options{})
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.last = hookCall{r.URL.Path, r.Header.Clone(), body}
		h.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		inner.ServeHTTP(w, r)
	}))
	h.t.Cleanup(h.server.Close)
}

// register has the organization call the server, and returns how many steps that took.
func (h *hooked) register(q app.WebhookRequest) int {
	h.t.Helper()
	taken, err := h.app.RegisterWebhook(h.t.Context(), "Sample", q)
	if err != nil {
		h.t.Fatalf("register: %v", err)
	}
	return len(taken)
}

func (h *hooked) schedule() lockstep.SyncSchedule {
	h.t.Helper()
	all, err := h.app.Schedules(h.t.Context(), h.account.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, sc := range all {
		if sc.Type == lockstep.SyncMarketingLists {
			return sc
		}
	}
	return lockstep.SyncSchedule{}
}

func (h *hooked) runs() int {
	h.t.Helper()
	runs, err := h.app.Runs(h.t.Context(), app.RunFilter{Account: h.account.ID, Type: lockstep.SyncMarketingLists, Limit: 500})
	if err != nil {
		h.t.Fatal(err)
	}
	return len(runs)
}

// rest lets runs find nothing until the next one is nearly a minute away.
func (h *hooked) rest() {
	h.t.Helper()
	for range 50 {
		h.until("the syncs wait", func() bool { sc := h.schedule(); return sc.State == lockstep.SyncNone && sc.Next.After(h.now()) })
		if h.schedule().Next.Sub(h.now()) > 50*time.Second {
			h.ahead.Add(int64(3 * time.Second)) // past the time in which even a hint waits
			return
		}
		h.forward(time.Minute)
		h.until("the next run began", func() bool { sc := h.schedule(); return sc.State != lockstep.SyncNone || sc.Next.After(h.now()) })
	}
	h.t.Fatal("the syncs do not come to rest")
}

// soon waits for something, and fails unless it came before the next run that would
// have begun without a hint.
func (h *hooked) soon(what string, next time.Time, so func() bool) {
	h.t.Helper()
	h.until(what, so)
	if !h.now().Before(next) {
		h.t.Errorf("%s, but no sooner than without webhooks", what)
	}
}

func (h *hooked) onPlatform(email, title string) func() bool {
	return func() bool { return h.contacts("")[email].DataFields["JOBTITLE"] == title }
}

// post calls a webhook as the organization would, and returns the status.
func (h *hooked) post(method, path, key string, body []byte, header ...string) int {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL+path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set(lockstep.WebhookHeader, key)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

// counted is what a counter of the product stands at; empty when there is none.
func (h *hooked) counted(name string) string {
	w := httptest.NewRecorder()
	h.app.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(h.t.Context(), http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// An edit in Dynamics is on the platform without waiting for the next look; one that
// nobody told of is found by that look.
func TestWebhooksWakeSyncs(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, cfg app.Config) {
		h := newHooked(t, cfg)
		if n := h.register(app.WebhookRequest{URL: h.server.URL}); n != 16 {
			t.Errorf("%d steps", n)
		}
		if n := h.register(app.WebhookRequest{}); n != 0 {
			t.Errorf("%d steps to register what is registered", n)
		}
		id, email := h.one("contact", 0)
		h.until("everybody is on the platform", func() bool { return len(h.contacts("")[email].Lists) > 0 })
		h.rest()
		next := h.schedule().Next
		h.editRecord("contact", id, map[string]any{"jobtitle": "At once"})
		h.soon("the edit is on the platform", next, h.onPlatform(email, "At once"))

		h.rest()
		before := h.runs()
		h.editRecord("contact", id, map[string]any{"fax": "1234"}) // a column that matters to nobody
		if err := h.twins.Dataverse.WaitDeliveries(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := h.twins.Dataverse.Deliveries(); d.Failed != 0 || d.Delivered == 0 || h.runs() != before {
			t.Errorf("%+v, %d runs after %d", d, h.runs(), before)
		}

		// Somebody switched it off in Dynamics.
		for _, step := range h.rows("sdkmessageprocessingsteps?$select=name") {
			h.crm("PATCH", "sdkmessageprocessingsteps("+step.str("sdkmessageprocessingstepid")+")", map[string]any{"statecode": 1, "statuscode": 2}, nil)
		}
		h.editRecord("contact", id, map[string]any{"jobtitle": "Found"})
		h.forward(time.Minute)
		h.until("the edit nobody told of is found", h.onPlatform(email, "Found"))
		if w, err := h.app.PlanWebhook(t.Context(), "Sample", app.WebhookRequest{}); err != nil || w.Registered || len(w.Steps) != 15 || w.Steps[0].Action != lockstep.SchemaChange {
			t.Errorf("%+v %v", w, err)
		}
		if n := h.register(app.WebhookRequest{}); n != 15 {
			t.Errorf("%d steps to switch it on again", n)
		}
		h.rest()
		next = h.schedule().Next
		h.editRecord("contact", id, map[string]any{"jobtitle": "Told again"})
		h.soon("the edit is on the platform", next, h.onPlatform(email, "Told again"))
	})
}

// A column that is mapped later wakes the syncs as the others do, without anybody
// registering anew, and one that is not mapped any more does not.
func TestWebhooksFollowTheMappings(t *testing.T) {
	t.Parallel()
	h := newHooked(t, app.Config{})
	h.register(app.WebhookRequest{URL: h.server.URL})
	watched := func(column string) func() bool {
		return func() bool {
			steps := h.rows("sdkmessageprocessingsteps?$select=filteringattributes")
			return slices.ContainsFunc(steps, func(s rec) bool { return slices.Contains(strings.Split(s.str("filteringattributes"), ","), column) })
		}
	}
	if watched("fax")() {
		t.Fatal("a column is watched that is not mapped")
	}
	m, err := h.app.SaveMapping(t.Context(), lockstep.DataMapping{Account: h.account.ID, Label: "COUNTRY", Table: "lead", Direction: lockstep.ToPlatform, Column: "fax"})
	if err != nil {
		t.Fatal(err)
	}
	h.until("the newly mapped column is watched", watched("fax"))
	if err := h.app.DeleteMapping(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	h.until("the column that is mapped no more is left alone", func() bool { return !watched("fax")() })
}

// A call is a hint and no more: repeated, late, out of order or large, it changes
// nothing; forged, it is refused.
func TestWebhookCallsAreHints(t *testing.T) {
	t.Parallel()
	h := newHooked(t, app.Config{})
	h.register(app.WebhookRequest{URL: h.server.URL})
	id, email := h.one("contact", 0)
	h.until("everybody is on the platform", func() bool { return len(h.contacts("")[email].Lists) > 0 })
	h.rest()
	h.editRecord("contact", id, map[string]any{"jobtitle": "First"})
	h.until("the first edit is on the platform", h.onPlatform(email, "First"))
	h.mu.Lock()
	first := h.last
	h.mu.Unlock()
	key := first.header.Get(lockstep.WebhookHeader)
	if len(key) != 43 || !strings.HasPrefix(first.path, app.HookPath) || !bytes.Contains(first.body, []byte("First")) {
		t.Fatalf("call %s with a key of %d characters: %s", first.path, len(key), first.body)
	}
	h.editRecord("contact", id, map[string]any{"jobtitle": "Second"})
	h.until("the second edit is on the platform", h.onPlatform(email, "Second"))
	h.rest()

	for _, tc := range []struct {
		what, method, path, key string
		body                    []byte
		header                  []string
		status                  int
		counted                 string
	}{
		{"no key", "POST", first.path, "", first.body, nil, 401, "unauthorized"},
		{"wrong key", "POST", first.path, strings.Repeat("A", 43), first.body, nil, 401, "unauthorized"},
		{"key in the URL", "POST", first.path + "?" + lockstep.WebhookHeader + "=" + key, "", first.body, nil, 401, "unauthorized"},
		{"unknown id", "POST", first.path + "x", key, first.body, nil, 404, "unknown"},
		{"no id", "POST", app.HookPath, key, first.body, nil, 404, "unknown"},
		{"longer path", "POST", first.path + "/x", key, first.body, nil, 404, "unknown"},
		{"GET", "GET", first.path, key, nil, nil, 405, "method"},
		{"PUT", "PUT", first.path, key, first.body, nil, 405, "method"},
		{"oversized", "POST", first.path, key, make([]byte, 400<<10), nil, 413, "oversized"},
	} {
		before, count := h.schedule().Next, h.counted(`lockstep_webhook_calls_total{outcome="`+tc.counted+`"}`)
		if got := h.post(tc.method, tc.path, tc.key, tc.body, tc.header...); got != tc.status {
			t.Errorf("%s: %d", tc.what, got)
		}
		if now := h.counted(`lockstep_webhook_calls_total{outcome="` + tc.counted + `"}`); now == count || count == "" {
			t.Errorf("%s is not counted: %s, then %s", tc.what, count, now)
		}
		if !h.schedule().Next.Equal(before) {
			t.Errorf("%s woke the syncs", tc.what)
		}
	}
	writes := h.twins.Dataverse.Deliveries()
	for _, tc := range []struct {
		what   string
		body   []byte
		header []string
	}{
		{"replayed", first.body, nil},
		{"twice", first.body, nil},
		{"nonsense", []byte("]"), nil},
		{"empty", nil, nil},
		{"cut off", make([]byte, 400<<10), []string{"X-Ms-Dynamics-Msg-Size-Exceeded", "true"}},
	} {
		before := h.runs()
		if got := h.post("POST", first.path, key, tc.body, tc.header...); got != 204 {
			t.Errorf("%s: %d", tc.what, got)
		}
		h.until(tc.what+" has the syncs look", func() bool { sc := h.schedule(); return h.runs() > before && sc.State == lockstep.SyncNone })
		runs, err := h.app.Runs(t.Context(), app.RunFilter{Account: h.account.ID, Type: lockstep.SyncMarketingLists, Limit: 1})
		if err != nil || !runs[0].Counts.Quiet() {
			t.Errorf("%s: the run did something: %+v %v", tc.what, runs, err)
		}
		h.ahead.Add(int64(3 * time.Second))
	}
	if !h.onPlatform(email, "Second")() || h.record("contact", id, "jobtitle").str("jobtitle") != "Second" {
		t.Error("an old call brought an old value back")
	}
	if now := h.twins.Dataverse.Deliveries(); now != writes {
		t.Errorf("hints wrote to Dynamics: %+v after %+v", now, writes)
	}
	if wakes, calls := h.counted(`lockstep_webhook_wakes_total{organization="`+h.account.Organization+`"}`), h.counted(`lockstep_webhook_calls_total{outcome="accepted"}`); len(wakes) == 0 || calls == "0" {
		t.Errorf("%q wakes after %q calls are counted", wakes, calls)
	}
}

// However many calls come, few runs follow.
func TestWebhookBurst(t *testing.T) {
	t.Parallel()
	h := newHooked(t, app.Config{})
	h.register(app.WebhookRequest{URL: h.server.URL})
	id, email := h.one("contact", 0)
	h.until("everybody is on the platform", func() bool { return len(h.contacts("")[email].Lists) > 0 })
	h.rest()
	h.editRecord("contact", id, map[string]any{"jobtitle": "First"})
	h.until("the edit is on the platform", h.onPlatform(email, "First"))
	h.rest()
	h.mu.Lock()
	call := h.last
	h.mu.Unlock()
	before, began := h.runs(), time.Now()
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() {
			for n := 0; n < 125 || time.Since(began) < 4*time.Second; n++ {
				if got := h.post("POST", call.path, call.header.Get(lockstep.WebhookHeader), call.body); got != 204 {
					t.Errorf("status %d", got)
				}
			}
		})
	}
	sending.Wait()
	sent := time.Since(began)
	h.until("the syncs looked and wait again", func() bool {
		sc := h.schedule()
		return h.runs() > before && sc.State == lockstep.SyncNone && sc.Next.Sub(h.now()) > 30*time.Second
	})
	// One at once, one a second while calls come, and one for the last of them.
	if n, most := h.runs()-before, int(sent/time.Second)+2; n > most {
		t.Errorf("%d runs, want %d at most in %s", n, most, sent)
	}
}

// A new secret works from the moment on at which it is registered, and the former one
// no longer. What is removed is gone from Dynamics, and not known to us.
func TestWebhookRotationAndRemoval(t *testing.T) {
	t.Parallel()
	h := newHooked(t, app.Config{})
	h.register(app.WebhookRequest{URL: h.server.URL + "/"})
	id, email := h.one("contact", 0)
	h.until("everybody is on the platform", func() bool { return len(h.contacts("")[email].Lists) > 0 })
	h.rest()
	call := func(title string) (path, key string) {
		next := h.schedule().Next
		h.editRecord("contact", id, map[string]any{"jobtitle": title})
		h.soon("the edit "+title+" is on the platform", next, h.onPlatform(email, title))
		h.rest()
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.last.path, h.last.header.Get(lockstep.WebhookHeader)
	}
	path, former := call("One")
	if n := h.register(app.WebhookRequest{NewSecret: true}); n != 1 {
		t.Errorf("%d steps", n)
	}
	if got := h.post("POST", path, former, nil); got != 401 {
		t.Errorf("the former secret: %d", got)
	}
	same, key := call("Two")
	if same != path || key == former {
		t.Error("the organization did not hear of the new secret")
	}

	// A rotation that the organization refuses leaves the former secret at work.
	if err := h.twins.Dataverse.SetPrivilege(h.ready.Dataverse.ClientID, "prvWriteServiceEndpoint", false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.app.RegisterWebhook(t.Context(), "Sample", app.WebhookRequest{NewSecret: true}); lockstep.CodeOf(err) != lockstep.CodeForbidden || !strings.Contains(lockstep.AsError(err).Hint, "Service Endpoints") {
		t.Errorf("without the right to write: %v", err)
	}
	if _, still := call("Three"); still != key {
		t.Error("the secret changed although it was refused")
	}
	if err := h.twins.Dataverse.SetPrivilege(h.ready.Dataverse.ClientID, "prvWriteServiceEndpoint", true); err != nil {
		t.Fatal(err)
	}
	if n := h.register(app.WebhookRequest{}); n != 1 {
		t.Errorf("%d steps to end the rotation", n)
	}
	if got := h.post("POST", path, key, nil); got != 401 {
		t.Errorf("the secret before the rotation that was ended: %d", got)
	}

	taken, err := h.app.RemoveWebhook(t.Context(), "Sample")
	if err != nil || len(taken) != 16 || taken[15].Kind != lockstep.SchemaWebhook {
		t.Errorf("%v %v", taken, err)
	}
	if n := len(h.rows("serviceendpoints?$select=name")) + len(h.rows("sdkmessageprocessingsteps?$select=name")); n != 0 {
		t.Errorf("%d rows are left in Dynamics", n)
	}
	if got := h.post("POST", path, key, nil); got != 404 {
		t.Errorf("a call after the removal: %d", got)
	}
	if taken, err = h.app.RemoveWebhook(t.Context(), "Sample"); err != nil || len(taken) != 0 {
		t.Errorf("%v %v", taken, err)
	}
}

// A call that reaches one process wakes the syncs wherever they run, and a secret that
// one process changed is soon known to the others.
func TestWebhookReachesAnotherProcess(t *testing.T) {
	t.Parallel()
	h := newHooked(t, app.Config{DatabaseURL: pgtest.Database(t)})
	cfg := h.cfg
	cfg.Now = h.now
	other, err := app.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	h.serve(other)
	h.register(app.WebhookRequest{URL: h.server.URL})
	id, email := h.one("contact", 0)
	h.until("everybody is on the platform", func() bool { return len(h.contacts("")[email].Lists) > 0 })
	for _, title := range []string{"One", "Two"} {
		h.rest()
		next := h.schedule().Next
		h.editRecord("contact", id, map[string]any{"jobtitle": title})
		h.soon("the edit is on the platform", next, h.onPlatform(email, title))
		h.register(app.WebhookRequest{NewSecret: true})
	}
}
