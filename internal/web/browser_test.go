package web_test

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/web"
)

// shots is a folder for pictures of the pages, in light and dark, wide and narrow;
// empty = none are taken.
var shots = os.Getenv("LOCKSTEP_SCREENSHOTS")

var chromium = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the pages are tested in a real browser and none was found: install the Debian package chromium")
})

// tab is one tab of a real browser.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	troubles []string // what the browser's console complained about
}

// browser is one real browser for all tests of the package; TestMain ends it.
var browser struct {
	once  sync.Once
	ctx   context.Context
	err   error
	close []func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, stop := range slices.Backward(browser.close) {
		stop()
	}
	os.Exit(code)
}

func startBrowser() {
	path, err := chromium()
	if err != nil {
		browser.err = err
		return
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("no-first-run", true))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium refuses to sandbox for root
	}
	actx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, closeFirst := chromedp.NewContext(actx)
	browser.ctx, browser.close = ctx, []func(){stop, closeFirst} //nolint:fatcontext // made once, for all tests
	if err := chromedp.Do(ctx); err != nil {
		browser.err = fmt.Errorf("start %s: %w", path, err)
	}
}

// openBrowser opens a tab with cookies of its own.
func openBrowser(t *testing.T, address string) *tab {
	t.Helper()
	browser.once.Do(startBrowser)
	if browser.err != nil {
		t.Fatal(browser.err)
	}
	ctx, closeTab := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, url: address}
	err := chromedp.Listen(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch ev := ev.(type) {
		case *cdplog.EventEntryAdded:
			b.troubles = append(b.troubles, fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		case *runtime.EventExceptionThrown:
			b.troubles = append(b.troubles, fmt.Sprintf("%+v", ev.ExceptionDetails))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		b.t.Fatalf("%v; the page is %s", err, body)
	}
}

// js evaluates an expression.
func js[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true. It asks from outside: the page's policy
// forbids the page to evaluate text.
func (b *tab) until(expression string) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if v, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression)); err == nil && v {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("never true: %s; the page is %s", expression, js[string](b, `location.href + "\n" + document.body.innerText`))
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (b *tab) expectQuiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.troubles {
		b.t.Errorf("the browser complained: %s", s)
	}
}

func (b *tab) signIn(password string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.url+"/"), chromedp.WaitVisible(chromedp.CSS("#user")),
		chromedp.SendKeys(chromedp.CSS("#user"), app.AdminUser), chromedp.SendKeys(chromedp.CSS("#password"), password), chromedp.Click(chromedp.CSS("#signin")))
	b.until(`location.pathname === "/" && document.querySelector("h1")?.innerText === "Overview"`)
}

// shoot makes sure that the page fits wide and narrow windows, and takes pictures of
// it when they are wanted.
func (b *tab) shoot(name string) {
	b.t.Helper()
	schemes := []string{"light", "dark"}
	if shots == "" {
		schemes = schemes[:1]
	}
	for _, scheme := range schemes {
		for _, width := range []int64{400, 1280} {
			b.do(emulateScheme(scheme), chromedp.EmulateViewport(width, 900))
			if over := js[float64](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				b.t.Errorf("%s is %v pixels wider than a window of %d", name, over, width)
			}
			if shots == "" {
				continue
			}
			png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			if err == nil {
				err = os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), png, 0o600)
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

func emulateScheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
		return err
	})
}

// gate lets a test hold the engine before its next step.
type gate struct {
	mu   sync.Mutex
	shut chan struct{}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) pass(string) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// openTwinned is the product at work on the twins, provisioned, with no list
// activated yet.
func openTwinned(t *testing.T) (address, password string, g *gate) {
	t.Helper()
	ctx := t.Context()
	tw, err := twin.Start(ctx, twin.Options{Contacts: 300, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tw.Close() })
	ready, g := tw.Ready(), &gate{}
	cfg := app.Config{DataDir: t.TempDir(), OnStep: g.pass}
	for _, u := range []string{ready.Dataverse.URL, ready.Dataverse.Authority, ready.Dotdigital.URL} {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		cfg.AllowHosts = append(cfg.AllowHosts, parsed.Host)
	}
	a, err := app.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	t.Cleanup(g.open)
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	org, err := a.ConnectOrganization(ctx, "", "Sample", "dynamics", map[string]string{
		"url": ready.Dataverse.URL, "tenant": ready.Dataverse.Tenant,
		"client_id": ready.Dataverse.ClientID, "client_secret": ready.Dataverse.ClientSecret, "authority": strings.TrimSuffix(ready.Dataverse.Authority, "/"+ready.Dataverse.Tenant),
	})
	if err != nil {
		t.Fatal(err)
	}
	acc, err := a.ConnectAccount(ctx, "", org.ID, "Marketing", "dotdigital", map[string]string{"endpoint": ready.Dotdigital.URL, "user": ready.Dotdigital.User, "password": ready.Dotdigital.Password})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Provision(ctx, acc.ID); err != nil {
		t.Fatal(err)
	}
	admin, err := a.EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(web.Handler(a, nil, web.Options{}))
	base, stop := context.WithCancel(context.Background())
	server.Config.BaseContext = func(net.Listener) context.Context { return base }
	server.Config.WriteTimeout = 5 * time.Second // streams live longer
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(stop)
	return server.URL, admin.Password, g
}

// From the sign-in to an applied preview, with the run watched live.
func TestBrowserPreviewAndApply(t *testing.T) {
	address, password, g := openTwinned(t)
	b := openBrowser(t, address)
	b.do(chromedp.Navigate(b.url+"/"), chromedp.WaitVisible(chromedp.CSS("#user")))
	b.shoot("signin")
	b.signIn(password)
	b.until(`document.querySelectorAll("tr[id^=list-]").length > 3`)

	// Activate the first static list of contacts, and preview it.
	name := js[string](b, `(() => { const row = [...document.querySelectorAll("tr[id^=list-]")].find((r) => /Static,\s+contacts/.test(r.innerText) && /Activate/.test(r.innerText));
		row.querySelector("button[value=true]").id = "try"; return row.querySelector("th").firstChild.textContent.trim() })()`)
	b.do(chromedp.Click(chromedp.CSS("#try")))
	b.until(`document.querySelectorAll("tr[id^=list-] button[value=preview]").length === 1`)
	g.close()
	b.do(chromedp.Click(chromedp.CSS("tr[id^=list-] button[value=preview]")))
	b.until(`location.pathname.startsWith("/runs/") && document.querySelector("#state")?.innerText.includes("In process")`)
	if got := js[string](b, `document.querySelector("h1").innerText`); got != "Marketing lists: "+name+" (preview)" {
		t.Errorf("the page is called %q", got)
	}
	b.shoot("run-live")
	// The same page, not another one, has to show the end.
	js[bool](b, `window.same = true`)
	b.do(chromedp.Focus(chromedp.CSS("#cancel")))
	g.open()
	b.until(`document.querySelector("#state").innerText.includes("Previewed")`)
	if !js[bool](b, `window.same === true && document.querySelectorAll("#changes tbody tr").length > 0 && document.getElementById("say").innerText === "Previewed"`) {
		t.Errorf("the page did not follow the run: %s", js[string](b, `document.body.innerText`))
	}
	b.shoot("run-previewed")

	b.do(chromedp.Click(chromedp.CSS("#apply")))
	b.until(`document.querySelector("#state")?.innerText.includes("Completed")`)
	applied := js[string](b, `location.pathname`)
	b.do(chromedp.Navigate(b.url + "/"))
	b.until(`document.querySelectorAll("#runs tbody tr").length >= 3`)
	if members := js[string](b, `[...document.querySelectorAll("tr[id^=list-]")].find((r) => r.innerText.includes("Deactivate")).querySelector("[data-name=Members]").innerText`); members == "–" || members == "0" {
		t.Errorf("the synced list has %q members", members)
	}
	b.shoot("overview")

	// The run is undone: a preview first, then exactly that.
	b.do(chromedp.Navigate(b.url + applied))
	b.do(chromedp.Click(chromedp.CSS("#undo")))
	b.until(`document.querySelector("h1")?.innerText === "Undo (preview)" && document.querySelector("#state").innerText.includes("Previewed")`)
	b.shoot("undo-previewed")
	b.do(chromedp.Click(chromedp.CSS("#apply")))
	b.until(`document.querySelector("h1")?.innerText === "Undo" && document.querySelector("#state").innerText.includes("Completed")`)
	b.do(chromedp.Navigate(b.url + applied))
	b.until(`document.querySelector("#undone-by") && !document.querySelector("#undo")`)
	if strings.Contains(js[string](b, `location.href`), "@") {
		t.Error("an address is in the URL")
	}
	b.expectQuiet()
}

// The pages' grids, decisions and paging, on the seeded company.
func TestBrowserGrids(t *testing.T) {
	s := openSite(t)
	b := openBrowser(t, s.url)
	b.signIn(s.password)
	b.shoot("company")
	b.do(chromedp.Navigate(b.url + "/runs"))
	b.shoot("runs")

	b.do(chromedp.Navigate(b.url + "/runs/" + s.company.Completed.ID))
	js[bool](b, `window.same = true`)
	b.do(chromedp.Click(chromedp.CSS("#changes-next")))
	b.until(`document.querySelector("#changes tbody").innerText.includes("Robert 100")`)
	if !js[bool](b, `window.same === true && document.querySelectorAll("#changes").length === 1 && location.search.includes("changes=")`) {
		t.Error("the next page of changes was not swapped in")
	}
	b.shoot("run")

	b.do(chromedp.Navigate(b.url + "/conflicts"))
	b.shoot("conflicts")
	js[bool](b, `window.same = true`)
	b.do(chromedp.Click(chromedp.CSS("button[value=platform]")))
	b.until(`document.querySelector("#conflicts").innerText.includes("None.")`)
	if !js[bool](b, `window.same === true`) {
		t.Error("the decision loaded the page anew")
	}
	if c, err := s.app.Conflicts(t.Context(), app.ConflictFilter{}); err != nil || len(c) != 1 || c[0].Winner != "platform" || c[0].ResolvedBy != app.AdminUser {
		t.Errorf("the conflict is %+v, %v", c, err)
	}
	b.do(chromedp.Navigate(b.url + "/nowhere"))
	b.shoot("problem")
	b.mu.Lock()
	b.troubles = nil // a page that is not there is an entry in the console
	b.mu.Unlock()

	// By keyboard: the first stop leads past the header, and what has the focus shows it.
	b.do(chromedp.Navigate(b.url+"/"), chromedp.KeyEvent("\t"))
	if got := js[string](b, `document.activeElement.className + " " + getComputedStyle(document.activeElement).outlineStyle`); got != "skip solid" {
		t.Errorf("the first stop of the keyboard is %q", got)
	}
	b.do(chromedp.KeyEvent("\r"))
	b.until(`document.activeElement.id === "main"`)
	stops := js[float64](b, `[...document.querySelectorAll("main button, main a")].filter((e) => e.tabIndex < 0 || !(e.innerText || e.getAttribute("aria-label"))).length`)
	if stops != 0 {
		t.Errorf("%v commands cannot be reached or have no name", stops)
	}
	b.expectQuiet()
}

// Every page works with plain links and forms.
func TestBrowserWithoutScript(t *testing.T) {
	s := openSite(t)
	b := openBrowser(t, s.url)
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	b.signIn(s.password)
	b.do(chromedp.Click(chromedp.CSS("#list-" + s.company.Newsletter.ID + " button[value=preview]")))
	b.until(`document.querySelector("#state")?.innerText.includes("Queued")`)
	runs, err := s.app.Runs(t.Context(), app.RunFilter{List: s.company.Newsletter.ID})
	if err != nil || len(runs) != 1 || runs[0].Mode != lockstep.ModePreview {
		t.Errorf("the runs are %+v, %v", runs, err)
	}
	b.do(chromedp.Navigate(b.url+"/runs/"+s.company.Completed.ID), chromedp.Click(chromedp.CSS("#changes-next")))
	b.until(`document.querySelector("#changes tbody")?.innerText.includes("Robert 100")`)
	b.do(chromedp.Navigate(b.url+"/conflicts"), chromedp.Click(chromedp.CSS("button[value=crm]")))
	b.until(`document.querySelector("#conflicts")?.innerText.includes("None.")`)
	b.expectQuiet()
}
