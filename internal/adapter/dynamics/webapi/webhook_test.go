package webapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
)

func hook() lockstep.Webhook {
	return lockstep.Webhook{
		ID: "abc", Base: "https://lockstep.example.com", URL: "https://lockstep.example.com/hooks/dynamics/abc", Secret: strings.Repeat("s", 43),
		Columns: map[string][]string{"contact": {"emailaddress1", "jobtitle", "emailaddress1"}, "lead": {"emailaddress1"}, "account": {"name"}},
	}
}

func lines(steps []lockstep.SchemaStep) (out []string) {
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

// rowsOf reads rows of the twin as the client under test sees them.
func rowsOf(t *testing.T, c *Client, w lockstep.Webhook) *registered {
	t.Helper()
	r, err := c.readWebhooks(t.Context(), w.ID, hookTables(&w))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is registered is what is wanted, whatever it was before, and only what differs is
// written.
func TestWebhookRegistration(t *testing.T) {
	w := newWorld(t, options{})
	t.Cleanup(w.org.Close)
	c, want := w.open(), hook()
	plan, err := c.PlanWebhook(t.Context(), want)
	if err != nil || len(plan) != 16 {
		t.Fatalf("%v %v", lines(plan), err)
	}
	for i, line := range map[int]string{0: "create webhook Lockstep: " + want.URL, 1: "create message account.Create", 5: "create message contact.Update: emailaddress1, jobtitle", 13: "create message list.AddMember"} {
		if got := plan[i].String(); got != line {
			t.Errorf("step %d: %q, want %q", i, got, line)
		}
	}
	var taken []lockstep.SchemaStep
	each := func(s lockstep.SchemaStep) error { taken = append(taken, s); return nil }
	if err := c.InstallWebhook(t.Context(), want, each); err != nil || !slices.Equal(taken, plan) {
		t.Fatalf("%v %v", lines(taken), err)
	}
	install := func(change func(*lockstep.Webhook), wanted ...string) {
		t.Helper()
		change(&want)
		planned, err := c.PlanWebhook(t.Context(), want)
		if err != nil || !slices.Equal(lines(planned), wanted) {
			t.Errorf("plan %q %v, want %q", lines(planned), err, wanted)
		}
		if n := w.count(func() { err = c.InstallWebhook(t.Context(), want, each) }); err != nil || n != int64(1+len(wanted)) {
			t.Errorf("%d calls for %d steps: %v", n, len(wanted), err)
		}
		if left, err := c.PlanWebhook(t.Context(), want); err != nil || len(left) != 0 {
			t.Errorf("left %v %v", lines(left), err)
		}
	}
	install(func(*lockstep.Webhook) {})
	install(func(h *lockstep.Webhook) { h.Columns["contact"] = []string{"jobtitle", "emailaddress1"} }) // another order
	install(func(h *lockstep.Webhook) { h.Columns["contact"] = append(h.Columns["contact"], "address1_city") }, "change message contact.Update: address1_city, emailaddress1, jobtitle")
	install(func(h *lockstep.Webhook) { h.Secret = strings.Repeat("t", 43) }, "change webhook Lockstep: another secret")
	install(func(h *lockstep.Webhook) { h.Base = "https://other.example.com"; h.URL = h.Base + "/x" }, "change webhook Lockstep: https://other.example.com/x")
	install(func(h *lockstep.Webhook) { delete(h.Columns, "lead") }, "delete message Lockstep: Create of lead", "delete message Lockstep: Delete of lead", "delete message Lockstep: Update of lead")

	// A webhook of an earlier life at the same address goes; that of others stays.
	stranger := hook()
	stranger.ID, stranger.Base, stranger.URL = "stranger", "https://stranger.example.com", "https://stranger.example.com/hooks/dynamics/stranger"
	stranger.Columns = map[string][]string{}
	if err := c.InstallWebhook(t.Context(), stranger, each); err != nil {
		t.Fatal(err)
	}
	before := want.ID
	want.ID = "reborn"
	taken = nil
	if err := c.InstallWebhook(t.Context(), want, each); err != nil {
		t.Fatal(err, lines(taken))
	}
	if r := rowsOf(t, c, want); len(r.endpoints) != 2 || len(r.steps) != 12+6 || endpointID(before) == endpointID(want.ID) {
		t.Errorf("%d endpoints, %d steps", len(r.endpoints), len(r.steps))
	}
	taken = nil
	if err := c.RemoveWebhook(t.Context(), want.ID, each); err != nil || len(taken) != 13 {
		t.Errorf("%v %v", lines(taken), err)
	}
	if r := rowsOf(t, c, want); len(r.endpoints) != 1 || r.endpoints[0].URL != stranger.URL || len(r.steps) != 6 {
		t.Errorf("left %+v", r.endpoints)
	}
	if plan, err := c.PlanWebhookRemoval(t.Context(), want.ID); err != nil || len(plan) != 0 {
		t.Errorf("%v %v", lines(plan), err)
	}
}

// An installation that is stopped, or whose answers are lost, is ended by the next one,
// and nothing is made twice.
func TestWebhookRegistrationResumes(t *testing.T) {
	w := newWorld(t, options{})
	t.Cleanup(w.org.Close)
	c := w.open()
	c.sleep = func(context.Context, time.Duration) error { return nil }
	stop := errors.New("stopped")
	for pass := 1; pass <= 3; pass++ { // the endpoint and eight of fifteen steps
		left := 3
		err := c.InstallWebhook(t.Context(), hook(), func(lockstep.SchemaStep) error {
			if left--; left < 0 {
				return stop
			}
			return nil
		})
		if r := rowsOf(t, c, hook()); !errors.Is(err, stop) || len(r.endpoints)+len(r.steps) != 3*pass {
			t.Fatalf("%d rows after %d times three steps: %v", len(r.endpoints)+len(r.steps), pass, err)
		}
	}
	w.fault("ack-lost", "sdkmessageprocessingstep.create", 2, "")
	w.fault("status", "sdkmessageprocessingstep.create", 1, `{"code":503}`)
	if err := c.InstallWebhook(t.Context(), hook(), func(lockstep.SchemaStep) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if r := rowsOf(t, c, hook()); len(r.endpoints) != 1 || len(r.steps) != 15 {
		t.Errorf("%d endpoints, %d steps", len(r.endpoints), len(r.steps))
	}
	w.faults.Clear()
	w.fault("ack-lost", "sdkmessageprocessingstep.delete", 2, "")
	if err := c.RemoveWebhook(t.Context(), hook().ID, func(lockstep.SchemaStep) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if r := rowsOf(t, c, hook()); len(r.endpoints)+len(r.steps) != 0 {
		t.Errorf("%d endpoints, %d steps", len(r.endpoints), len(r.steps))
	}
}

// What cannot be registered is one clear message, before anything is written.
func TestWebhookRefusals(t *testing.T) {
	w := newWorld(t, options{})
	t.Cleanup(w.org.Close)
	c := w.open()
	for url, cause := range map[string]string{
		"http://lockstep.example.com/x": "https", "https://lockstep.example.com:8443/x": "port 443", "https://10.0.0.1/x": "internal", "https://lockstep/x": "not a public name",
		"https://user@lockstep.example.com/x": "user name", "lockstep.example.com": "not a web address", "https://lockstep.example.com/x?key=y": "query", "ftp://lockstep.example.com": "https", "http://192.168.1.1/": "https",
	} {
		h := hook()
		h.URL = url
		_, err := c.PlanWebhook(t.Context(), h)
		if e := lockstep.AsError(err); e.Code != lockstep.CodeInvalid || e.Field != "url" || !strings.Contains(e.Msg, cause) {
			t.Errorf("%s: %v", url, err)
		}
		if n := w.count(func() { err = c.InstallWebhook(t.Context(), h, nil) }); n != 0 || lockstep.CodeOf(err) != lockstep.CodeInvalid {
			t.Errorf("%s: %d calls, %v", url, n, err)
		}
	}
	for _, local := range []string{"http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:8080/x"} {
		h := hook()
		h.URL = local
		if _, err := c.PlanWebhook(t.Context(), h); err != nil {
			t.Errorf("%s, beside a twin on the same machine: %v", local, err)
		}
	}
	for _, privilege := range []string{"prvReadServiceEndpoint", "prvCreateServiceEndpoint", "prvCreateSdkMessageProcessingStep", "prvAppendToServiceEndpoint"} {
		if err := w.org.SetPrivilege(appID, privilege, false); err != nil {
			t.Fatal(err)
		}
		err := c.InstallWebhook(t.Context(), hook(), func(lockstep.SchemaStep) error { return nil })
		if e := lockstep.AsError(err); e.Code != lockstep.CodeForbidden || !strings.Contains(e.Msg, privilege) || !strings.Contains(e.Hint, "System Administrator") {
			t.Errorf("without %s: %v", privilege, err)
		}
		if err := w.org.SetPrivilege(appID, privilege, true); err != nil {
			t.Fatal(err)
		}
	}
}

// An organization without lists is told of what it has.
func TestWebhookWithoutSales(t *testing.T) {
	w := newWorld(t, options{profile: dataverse.Bare})
	t.Cleanup(w.org.Close)
	h := hook()
	delete(h.Columns, "lead")
	plan, err := w.open().PlanWebhook(t.Context(), h)
	if err != nil || len(plan) != 7 {
		t.Errorf("%v %v", lines(plan), err)
	}
}

// An organization elsewhere cannot call this machine.
func TestWebhookLoopbackIsForTwins(t *testing.T) {
	w := newWorld(t, options{})
	w.settings["url"] = "https://contoso.crm4.dynamics.com"
	w.env.Transport = refusing{}
	c := w.open()
	h := hook()
	h.URL = "http://127.0.0.1:8080/x"
	if _, err := c.PlanWebhook(t.Context(), h); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("%v", err)
	}
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no call is wanted")
}
