package web_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/api"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
	"github.com/lockstep-sync/lockstep/internal/web"
)

// hand is a clock that is moved by hand, from the real time on.
type hand struct {
	mu  sync.Mutex
	off time.Duration
}

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.off)
}

func (h *hand) forward(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off += d
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// streamSurvives is how long the server lets a request and its answer take; streams
// of live pages take longer.
const streamSurvives = 3 * time.Second

// site is the product behind HTTP, and a browser without scripts.
type site struct {
	t        *testing.T
	url      string
	app      *app.App
	company  apptest.Seeded
	password string
	client   *http.Client
	clock    *hand
	log      *buffer
}

func openSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, clock: &hand{}, log: &buffer{}}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.app, s.company = apptest.Open(t, app.Config{Log: log})
	admin, err := s.app.EnsureAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.password = admin.Password
	server := httptest.NewUnstartedServer(web.Handler(s.app, log, web.Options{Now: s.clock.now}))
	server.Config.ReadTimeout, server.Config.WriteTimeout = streamSurvives, streamSurvives
	server.Start()
	t.Cleanup(server.Close)
	jar, _ := cookiejar.New(nil)
	s.url, s.client = server.URL, &http.Client{Jar: jar}
	return s
}

type answer struct {
	*http.Response
	body string
}

func (s *site) do(r *http.Request) answer {
	s.t.Helper()
	res, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{res, string(b)}
}

func (s *site) get(path string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(r)
}

func (s *site) post(path string, form url.Values) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return s.do(r)
}

func (s *site) signIn() {
	s.t.Helper()
	if a := s.post("/signin", url.Values{"user": {app.AdminUser}, "password": {s.password}}); a.StatusCode != http.StatusOK || a.Request.URL.Path != "/" {
		s.t.Fatalf("sign-in ended at %s with %d: %.300s", a.Request.URL, a.StatusCode, a.body)
	}
}

func TestPagesNeedASignIn(t *testing.T) {
	s := openSite(t)
	for _, path := range []string{"/", "/runs", "/runs/" + s.company.Completed.ID, "/conflicts", "/nowhere"} {
		if a := s.get(path); a.Request.URL.Path != "/signin" || strings.Contains(a.body, "Contoso") {
			t.Errorf("%s without a session ended at %s", path, a.Request.URL)
		}
	}
	for _, path := range []string{"/runs", "/lists/" + s.company.Customers.ID, "/conflicts/" + s.company.Conflict.ID, "/runs/" + s.company.Previewed.ID + "/apply", "/runs/" + s.company.Completed.ID + "/undo"} {
		if a := s.post(path, nil); a.Request.URL.Path != "/signin" {
			t.Errorf("POST %s without a session ended at %s", path, a.Request.URL)
		}
	}
	if a := s.get("/events/runs"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("events without a session answered %d", a.StatusCode)
	}
	// The page that was asked for follows the sign-in; a foreign one does not.
	for next, want := range map[string]string{"/conflicts": "/conflicts", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "": "/"} {
		a := s.post("/signin", url.Values{"user": {app.AdminUser}, "password": {s.password}, "next": {next}})
		if a.Request.URL.Path != want || a.Request.URL.Host != strings.TrimPrefix(s.url, "http://") {
			t.Errorf("sign-in with next=%q ended at %s", next, a.Request.URL)
		}
	}
}

func TestSignIn(t *testing.T) {
	s := openSite(t)
	for _, wrong := range []url.Values{{"user": {app.AdminUser}, "password": {"guess"}}, {"user": {"somebody"}, "password": {s.password}}, {}} {
		a := s.post("/signin", wrong)
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.body, "The user name or the password is wrong.") || strings.Contains(a.body, s.password) {
			t.Errorf("sign-in with %v answered %d: %s", wrong, a.StatusCode, a.body)
		}
	}
	s.signIn()
	if a := s.get("/"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "Contoso mailings") {
		t.Errorf("the overview answered %d: %s", a.StatusCode, a.body)
	}
	u, _ := url.Parse(s.url)
	cookies := s.client.Jar.Cookies(u)
	if a := s.post("/signout", nil); a.Request.URL.Path != "/signin" {
		t.Errorf("sign-out ended at %s", a.Request.URL)
	}
	s.client.Jar.SetCookies(u, cookies) // a copy of the cookie is worth nothing any more
	if a := s.get("/"); a.Request.URL.Path != "/signin" {
		t.Errorf("the session outlived its end: %s", a.Request.URL)
	}
}

func TestSessionsExpire(t *testing.T) {
	s := openSite(t)
	s.signIn()
	for range 23 {
		s.clock.forward(29 * time.Minute)
		if a := s.get("/runs"); a.Request.URL.Path != "/runs" {
			t.Fatal("a session in use expired")
		}
	}
	s.clock.forward(29 * time.Minute) // 11 h 36 min
	s.get("/runs")
	s.clock.forward(25 * time.Minute)
	if a := s.get("/runs"); a.Request.URL.Path != "/signin" {
		t.Error("a session lived longer than 12 hours")
	}
	s.signIn()
	s.clock.forward(31 * time.Minute)
	if a := s.get("/runs"); a.Request.URL.Path != "/signin" {
		t.Error("an idle session lived longer than 30 minutes")
	}
}

func TestTriesAreLimited(t *testing.T) {
	s := openSite(t)
	try := func(user, password string) answer {
		return s.post("/signin", url.Values{"user": {user}, "password": {password}})
	}
	for n := range 5 {
		if a := try(app.AdminUser, "guess"); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("try %d answered %d", n+1, a.StatusCode)
		}
	}
	a := try(" ADMIN@example.com ", s.password)
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, "Too many tries") {
		t.Errorf("the sixth try answered %d: %s", a.StatusCode, a.body)
	}
	if a := try("somebody else", "guess"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("another name answered %d", a.StatusCode)
	}
	s.clock.forward(16 * time.Minute)
	s.signIn()
	s.signIn() // a success is no failed try
	for range 5 {
		s.signIn()
	}
}

func TestCookie(t *testing.T) {
	s := openSite(t)
	form := strings.NewReader(url.Values{"user": {app.AdminUser}, "password": {s.password}}.Encode())
	for _, tc := range []struct {
		secure bool
		name   string
	}{{false, "lockstep"}, {true, "__Host-lockstep"}} {
		_, _ = form.Seek(0, io.SeekStart)
		r := httptest.NewRequest(http.MethodPost, "/signin", form)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if tc.secure {
			r.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		web.Handler(s.app, nil, web.Options{}).ServeHTTP(w, r)
		cookies := w.Result().Cookies()
		if len(cookies) != 1 {
			t.Fatalf("%d cookies: %s", len(cookies), w.Body)
		}
		c := cookies[0]
		if c.Name != tc.name || c.Secure != tc.secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || len(c.Value) < 43 {
			t.Errorf("secure %v: cookie %+v", tc.secure, c)
		}
		if hsts := w.Header().Get("Strict-Transport-Security"); (hsts != "") != tc.secure {
			t.Errorf("secure %v: Strict-Transport-Security %q", tc.secure, hsts)
		}
	}
}

func TestForeignSitesChangeNothing(t *testing.T) {
	s := openSite(t)
	s.signIn()
	for _, headers := range []map[string]string{{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}} {
		for _, path := range []string{"/signin", "/signout", "/runs", "/lists/" + s.company.Partners.ID, "/conflicts/" + s.company.Conflict.ID, "/api/v1/runs"} {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader("activated=true&winner=crm&type=crm-metadata&mode=apply&account="+s.company.Account.ID))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for k, v := range headers {
				r.Header.Set(k, v)
			}
			if a := s.do(r); a.StatusCode != http.StatusForbidden {
				t.Errorf("POST %s with %v answered %d", path, headers, a.StatusCode)
			}
		}
	}
	if l, err := s.app.List(t.Context(), s.company.Account.ID, s.company.Partners.ID); err != nil || l.Activated {
		t.Errorf("a foreign site changed a list: %+v %v", l, err)
	}
}

func TestHeaders(t *testing.T) {
	s := openSite(t)
	check := func(a answer, path string) {
		t.Helper()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s %s: %s is %q, want %q", a.Request.Method, path, name, got, want)
			}
		}
		csp := a.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", path, csp)
			}
		}
		cache := a.Header.Get("Cache-Control")
		if static := strings.HasPrefix(path, "/static/") && a.StatusCode == http.StatusOK; static != strings.Contains(cache, "immutable") || !static && cache != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, cache)
		}
		if a.Header.Get("Content-Type") == "" && a.StatusCode != http.StatusNoContent && a.StatusCode/100 != 3 {
			t.Errorf("%s answered %d without a Content-Type", path, a.StatusCode)
		}
	}
	paths := []string{"/signin", "/healthz", "/readyz", "/api/openapi.json", "/api/v1/runs", "/api/nowhere", "/static/none.css", "/nowhere", "/runs/none"}
	for _, signedIn := range []bool{false, true} {
		if signedIn {
			s.signIn()
			overview := s.get("/").body
			assets := regexp.MustCompile(`"(/static/[^"]+)"`).FindAllStringSubmatch(overview, -1)
			if len(assets) != 3 {
				t.Fatalf("%d assets in the page", len(assets))
			}
			for _, m := range assets {
				paths = append(paths, m[1])
			}
			paths = append(paths, "/", "/runs", "/conflicts", "/runs/"+s.company.Completed.ID)
		}
		for _, path := range paths {
			check(s.get(path), path)
		}
	}
	for _, m := range []string{"TRACE", "CONNECT", "PROPFIND"} {
		r := httptest.NewRequest(m, "/", nil)
		r.Header.Set("Cookie", "lockstep=secret")
		w := httptest.NewRecorder()
		web.Handler(s.app, nil, web.Options{}).ServeHTTP(w, r)
		if w.Code != 405 || strings.Contains(w.Body.String(), "secret") || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s answered %d %s", m, w.Code, w.Body)
		}
	}
	// Nothing inline: the policy would only break it.
	for _, path := range []string{"/", "/runs", "/conflicts", "/runs/" + s.company.Completed.ID} {
		if m := regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=|javascript:`).FindString(s.get(path).body); m != "" {
			t.Errorf("%s has %q in the page", path, m)
		}
	}
}

func TestProbes(t *testing.T) {
	s := openSite(t)
	if a := s.get("/healthz"); a.StatusCode != http.StatusOK || a.body != "ok\n" {
		t.Errorf("/healthz answered %d %q", a.StatusCode, a.body)
	}
	if a := s.get("/readyz"); a.StatusCode != http.StatusOK || a.body != "ready\n" {
		t.Errorf("/readyz answered %d %q", a.StatusCode, a.body)
	}
	reader, _, err := s.app.CreateToken(t.Context(), "scraper", []string{app.ScopeRead}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	writer, _, err := s.app.CreateToken(t.Context(), "writer", []string{app.ScopeWrite}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"": http.StatusUnauthorized, "nonsense": http.StatusUnauthorized, writer: http.StatusForbidden, reader: http.StatusOK} {
		for name, h := range map[string]http.Handler{"everything": web.Handler(s.app, nil, web.Options{}), "probes": web.Probes(s.app, slog.New(slog.DiscardHandler))} {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want || (want == http.StatusOK) != strings.Contains(w.Body.String(), "lockstep_consent_lag_seconds") {
				t.Errorf("%s: /metrics with token %.8q answered %d", name, token, w.Code)
			}
		}
	}
	if err := s.app.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a := s.get("/healthz"); a.StatusCode != http.StatusOK {
		t.Errorf("/healthz answered %d without a store", a.StatusCode)
	}
	if a := s.get("/readyz"); a.StatusCode != http.StatusServiceUnavailable || a.body != "not ready\n" {
		t.Errorf("/readyz answered %d %q without a store", a.StatusCode, a.body)
	}
}

func TestPages(t *testing.T) {
	s := openSite(t)
	s.signIn()
	c := s.company
	for _, tc := range []struct {
		path    string
		status  int
		content []string // "!" before what must not be there
	}{
		{"/", 200, []string{"Contoso Ltd", "https://contoso.crm4.dynamics.com", "Account 1337", "Customers &lt;EMEA&gt;", "Partners", "Mirror the list", "Completed with findings", ">230<", "Bobby", "Keep platform", "!<EMEA>"}},
		{"/runs", 200, []string{"Marketing lists: Customers &lt;EMEA&gt;", "Marketing lists (preview)", "Data labels", "5,000"}},
		{"/runs/" + c.Completed.ID, 200, []string{"Robert 0", c.Email, "the platform refused the address"[1:], "correct it in the CRM"[1:], "Next page", "Contacts created", "etn=contact", "!Robert 100<"}},
		{"/runs/" + c.Previewed.ID, 200, []string{"Apply these changes", "Changes it would make", "Planned"}},
		{"/runs/" + c.Failed.ID, 200, []string{"The platform did not answer.", "Check its status page"}},
		{"/runs/none", 404, []string{"Not found", "Back to the overview"}},
		{"/runs?before=" + c.Completed.ID, 200, []string{"Data labels", "!Marketing lists"}},
		{"/conflicts", 200, []string{"Robert", "Bobby", "FIRSTNAME", "2026-11-20 08:30:00 UTC", "Keep Dynamics"}},
		{"/conflicts?decided=1", 200, []string{"None.", "!Bobby"}},
		{"/nowhere", 404, []string{"There is no page at this address."}},
	} {
		a := s.get(tc.path)
		if a.StatusCode != tc.status {
			t.Errorf("%s answered %d: %s", tc.path, a.StatusCode, a.body)
		}
		for _, want := range tc.content {
			not, want := strings.HasPrefix(want, "!"), strings.TrimPrefix(want, "!")
			if strings.Contains(a.body, want) == not {
				t.Errorf("%s: content %q wrong (unwanted: %v)", tc.path, want, not)
			}
		}
		if regexp.MustCompile(`(href|action)="[^"]*(@|%40)`).MatchString(a.body) {
			t.Errorf("%s has an address in a URL", tc.path)
		}
	}
	// Every change is on exactly one page.
	next, seen := "/runs/"+c.Completed.ID, 0
	for pages := 0; next != "" && pages < 10; pages++ {
		body := s.get(next).body
		seen += strings.Count(body, `class="address"`)
		next = ""
		if m := regexp.MustCompile(`id="changes-next" href="([^"]+)"`).FindStringSubmatch(body); m != nil {
			next = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if seen != apptest.Changes {
		t.Errorf("%d changes on all pages, want %d", seen, apptest.Changes)
	}
}

func TestActions(t *testing.T) {
	s := openSite(t)
	s.signIn()
	c := s.company
	start := url.Values{"account": {c.Account.ID}, "type": {"marketing-lists"}, "list": {c.Newsletter.ID}, "mode": {"preview"}}
	a := s.post("/runs", start)
	if !strings.HasPrefix(a.Request.URL.Path, "/runs/") || !strings.Contains(a.body, "Marketing lists: Newsletter (preview)") || !strings.Contains(a.body, "Queued") {
		t.Fatalf("the run ended at %s: %s", a.Request.URL, a.body)
	}
	run := a.Request.URL.Path
	start.Set("mode", "apply")
	if a := s.post("/runs", start); a.Request.URL.Path != run {
		t.Errorf("the run in the way is not shown but %s: %d", a.Request.URL, a.StatusCode)
	}
	if a := s.post(run+"/cancel", nil); a.Request.URL.Path != run || !strings.Contains(a.body, "Cancelled") {
		t.Errorf("cancel ended at %s: %s", a.Request.URL, a.body)
	}
	if a := s.post(run+"/cancel", nil); a.StatusCode != http.StatusConflict {
		t.Errorf("the second cancel answered %d", a.StatusCode)
	}
	if a := s.post("/runs", url.Values{"account": {c.Account.ID}, "type": {"forms"}}); a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.body, "is not a sync type") {
		t.Errorf("an unknown type answered %d: %s", a.StatusCode, a.body)
	}
	if a := s.post("/runs/"+c.Previewed.ID+"/apply", nil); !strings.Contains(a.body, "The preview that this run applies") {
		t.Errorf("apply ended at %s: %s", a.Request.URL, a.body)
	}
	if a := s.get("/runs/" + c.Completed.ID); !strings.Contains(a.body, "Preview the undo of this run") {
		t.Errorf("the run offers no undo: %s", a.body)
	}
	if a := s.post("/runs/"+c.Completed.ID+"/undo", nil); !strings.Contains(a.body, "Undo (preview)") || !strings.Contains(a.body, "The run that this one undoes") {
		t.Errorf("undo ended at %s: %s", a.Request.URL, a.body)
	}
	if a := s.get("/runs/" + c.Completed.ID); strings.Count(a.body, "Try again now") != 1 || !strings.Contains(a.body, "Tried 3 times, again from") {
		t.Errorf("the run does not offer to try one record again: %s", a.body)
	}
	if a := s.post("/findings/finding-0/retry", nil); !strings.HasPrefix(a.Request.URL.Path, "/runs/") || a.StatusCode != http.StatusOK {
		t.Errorf("the retry ended at %s: %d", a.Request.URL, a.StatusCode)
	}
	if a := s.post("/findings/none/retry", nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("a finding that is not there answered %d", a.StatusCode)
	}
	if a := s.post("/runs/"+c.Previewed.ID+"/undo", nil); a.StatusCode != http.StatusConflict || !strings.Contains(a.body, "wrote nothing") {
		t.Errorf("the undo of a preview answered %d: %s", a.StatusCode, a.body)
	}
	s.post("/lists/"+c.Partners.ID, url.Values{"activated": {"true"}})
	if l, err := s.app.List(t.Context(), c.Account.ID, c.Partners.ID); err != nil || !l.Activated {
		t.Errorf("the list is not activated: %+v %v", l, err)
	}
	if a := s.post("/lists/"+c.Partners.ID, nil); a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("an empty form answered %d", a.StatusCode)
	}
	if a := s.post("/conflicts/"+c.Conflict.ID, url.Values{"winner": {"both"}}); a.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("an unknown side answered %d", a.StatusCode)
	}
	if a := s.post("/conflicts/"+c.Conflict.ID, url.Values{"winner": {"crm"}, "back": {"/conflicts"}}); a.Request.URL.Path != "/conflicts" || strings.Contains(a.body, "Bobby") {
		t.Errorf("the decision ended at %s: %s", a.Request.URL, a.body)
	}
	if a := s.get("/conflicts?decided=1"); !strings.Contains(a.body, "Dynamics kept") || !strings.Contains(a.body, app.AdminUser) {
		t.Errorf("the decision is not shown: %s", a.body)
	}
	if a := s.post("/lists/"+c.Partners.ID, url.Values{"activated": {strings.Repeat("x", api.MaxBody)}}); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a form over the limit answered %d", a.StatusCode)
	}
}

func TestLogHasNoPersonalData(t *testing.T) {
	s := openSite(t)
	s.signIn()
	token, _, err := s.app.CreateToken(t.Context(), "test", app.Scopes, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s.get("/runs/" + s.company.Completed.ID + "?x=ada@example.com")
	s.get("/ada@example.com")
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/api/v1/records/explain?email=ada@example.com", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	if a := s.do(r); a.StatusCode != http.StatusOK {
		t.Fatalf("explain answered %d: %s", a.StatusCode, a.body)
	}
	log := s.log.String()
	for _, secret := range []string{"@", "%40", "ada", token, s.password} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log: %s", secret, log)
		}
	}
	for _, want := range []string{`route="GET /runs/{id}" status=200`, `route="GET /api/v1/records/explain" status=200`, `route="POST /signin" status=303`, "method=GET", "duration="} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log: %s", want, log)
		}
	}
}

// A live page shows what changes, and its stream ends with the run.
func TestStreamFollowsARun(t *testing.T) {
	s := openSite(t)
	s.signIn()
	run, err := s.app.StartRun(t.Context(), app.RunRequest{Account: s.company.Account.ID, Type: lockstep.SyncCRMMetadata})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events/runs/"+run.ID, nil)
	res, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("Content-Type %q", got)
	}
	first := make([]byte, 4096)
	n, err := res.Body.Read(first)
	if err != nil || !strings.HasPrefix(string(first[:n]), "event: fragment\ndata: ") || !strings.Contains(string(first[:n]), "Queued") {
		t.Fatalf("the first event is %q, %v", first[:n], err)
	}
	<-time.After(streamSurvives + streamSurvives/4)
	if _, err := s.app.CancelRun(t.Context(), run.ID); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(rest), "Cancelled") || !strings.HasSuffix(string(rest), "event: end\ndata: \n\n") {
		t.Errorf("the stream went on with %q, %v", rest, err)
	}
}

// A stream does not outlive the session and does not prolong it.
func TestStreamEndsWithTheSession(t *testing.T) {
	s := openSite(t)
	s.signIn()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events/runs", nil)
	res, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	s.clock.forward(31 * time.Minute)
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(res.Body)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream outlives its session")
	}
	if a := s.get("/events/runs"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the stream can be opened again: %d", a.StatusCode)
	}
	s.signIn()
	s.clock.forward(29 * time.Minute)
	r, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events/runs", nil)
	again, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
	s.clock.forward(2 * time.Minute)
	if a := s.get("/runs"); again.StatusCode != http.StatusOK || a.Request.URL.Path != "/signin" {
		t.Errorf("a stream (%d) prolonged its session: %s", again.StatusCode, a.Request.URL)
	}
}

func TestPanicsAndFailuresShowAReference(t *testing.T) {
	s := openSite(t)
	s.signIn()
	if err := s.app.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	a := s.get("/runs")
	m := regexp.MustCompile(`reference ([0-9a-f]{8}) `).FindStringSubmatch(a.body)
	if a.StatusCode != http.StatusInternalServerError || m == nil || strings.Contains(a.body, "database") {
		t.Fatalf("answered %d: %s", a.StatusCode, a.body)
	}
	if !strings.Contains(s.log.String(), m[1]) {
		t.Errorf("reference %s is not in the log: %s", m[1], s.log)
	}
}
