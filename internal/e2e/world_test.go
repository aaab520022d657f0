// Package e2e proves whole runs of the product against the twins over real HTTP.
// What the twins say is asked with a small client of its own, so that the adapters
// cannot vouch for themselves.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// world is the twins, the product on them, and a client that asks the twins.
type world struct {
	t       *testing.T
	twins   *twin.Twins
	ready   twin.Ready
	app     *app.App
	cfg     app.Config
	account lockstep.EmailAccount
	token   string
	since   time.Time // of the token, by the twins' clock
}

type worldOptions struct {
	twins twin.Options
	cfg   app.Config
	// bare leaves mappings and lists alone.
	bare bool
}

func newWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	ctx := t.Context()
	if o.twins.SigningKey == nil {
		o.twins.SigningKey = signingKey()
	}
	tw, err := twin.Start(ctx, o.twins)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tw.Close() })
	w := &world{t: t, twins: tw, ready: tw.Ready(), cfg: o.cfg}
	if w.cfg.DataDir == "" {
		w.cfg.DataDir = t.TempDir()
	}
	for _, u := range []string{w.ready.Dataverse.URL, w.ready.Dataverse.Authority, w.ready.Dotdigital.URL} {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		w.cfg.AllowHosts = append(w.cfg.AllowHosts, p.Host)
	}
	w.open()
	org, err := w.app.ConnectOrganization(ctx, "", "Sample", "dynamics", adapter.Settings{
		"url": w.ready.Dataverse.URL, "tenant": w.ready.Dataverse.Tenant, "client_id": w.ready.Dataverse.ClientID, "client_secret": w.ready.Dataverse.ClientSecret,
		"authority": strings.TrimSuffix(w.ready.Dataverse.Authority, "/"+w.ready.Dataverse.Tenant),
	})
	if err != nil {
		t.Fatalf("connect the organization: %v", err)
	}
	w.account, err = w.app.ConnectAccount(ctx, "", org.ID, "Marketing", "dotdigital", adapter.Settings{
		"endpoint": w.ready.Dotdigital.URL, "user": w.ready.Dotdigital.User, "password": w.ready.Dotdigital.Password,
	})
	if err != nil {
		t.Fatalf("connect the account: %v", err)
	}
	// Tests change settings between two syncs all the time; what guards that has tests
	// of its own.
	no := false
	if w.account, err = w.app.UpdateAccount(ctx, w.account.ID, app.AccountPatch{Guards: app.GuardPatch{ConfirmChanges: &no}}); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Provision(ctx, w.account.ID); err != nil {
		t.Fatalf("provision: %v", err)
	}
	if !o.bare {
		w.mapFields()
		w.activate()
	}
	return w
}

func (w *world) open() {
	w.t.Helper()
	a, err := app.Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := a.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.app = a
	w.t.Cleanup(func() { _ = a.Close(context.Background()) })
}

func (w *world) mapFields() {
	w.t.Helper()
	ctx := w.t.Context()
	for name, typ := range map[string]lockstep.FieldType{
		"JOBTITLE": lockstep.FieldText, "CITY": lockstep.FieldText, "COUNTRY": lockstep.FieldText,
		"PHONE": lockstep.FieldText, "BIRTHDATE": lockstep.FieldDate, "INCOME": lockstep.FieldNumber, "METHOD": lockstep.FieldText,
	} {
		if _, err := w.app.SaveLabel(ctx, lockstep.DataLabel{Account: w.account.ID, Name: name, Type: typ}); err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
			w.t.Fatalf("label %s: %v", name, err)
		}
	}
	w.run(lockstep.SyncDataLabels)
	for _, m := range []lockstep.DataMapping{
		{Label: "FIRSTNAME", Table: "contact", Direction: lockstep.ToCRM, Column: "firstname"},
		{Label: "LASTNAME", Table: "contact", Direction: lockstep.ToCRM, Column: "lastname"},
		{Label: "JOBTITLE", Table: "contact", Direction: lockstep.ToPlatform, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "contact", Direction: lockstep.ToCRM, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "lead", Direction: lockstep.ToPlatform, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "lead", Direction: lockstep.ToCRM, Column: "jobtitle"},
		{Label: "CITY", Table: "contact", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "COUNTRY", Table: "contact", Direction: lockstep.ToPlatform, Column: "address1_country"},
		{Label: "CITY", Table: "lead", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "CITY", Table: "account", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "PHONE", Table: "contact", Direction: lockstep.ToPlatform, Column: "telephone1"},
		{Label: "PHONE", Table: "contact", Direction: lockstep.ToCRM, Column: "telephone1"},
		{Label: "BIRTHDATE", Table: "contact", Direction: lockstep.ToPlatform, Column: "birthdate"},
		{Label: "INCOME", Table: "contact", Direction: lockstep.ToPlatform, Column: "annualincome"},
		{Label: "METHOD", Table: "contact", Direction: lockstep.ToPlatform, Column: "preferredcontactmethodcode"},
	} {
		m.Account = w.account.ID
		if _, err := w.app.SaveMapping(ctx, m); err != nil {
			w.t.Fatalf("mapping %s %s %s: %v", m.Label, m.Table, m.Direction, err)
		}
	}
}

// activate activates the lists that the population suggests.
func (w *world) activate() {
	w.t.Helper()
	ctx := w.t.Context()
	for _, p := range w.twins.Plan.Lists {
		if !p.Activate {
			continue
		}
		l, err := w.app.List(ctx, w.account.ID, p.ID.String())
		if err != nil {
			w.t.Fatal(err)
		}
		yes, action := true, lockstep.MembershipAction(p.Action)
		if p.Dynamic {
			action = lockstep.ActionIgnore
		}
		if _, err := w.app.UpdateList(ctx, l.ID, app.ListPatch{Activated: &yes, MembershipAction: &action}); err != nil {
			w.t.Fatalf("activate %s: %v", p.Name, err)
		}
	}
}

// run carries out one run and fails the test when the run fails.
func (w *world) run(t lockstep.SyncType) lockstep.Run {
	w.t.Helper()
	run, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: t})
	if err != nil {
		w.t.Fatalf("%s: %v", t, err)
	}
	return run
}

func (w *world) sync() lockstep.Run { w.t.Helper(); return w.run(lockstep.SyncMarketingLists) }

// bearer returns a token for asking the Dataverse twin, fetched once.
func (w *world) bearer() string {
	w.t.Helper()
	if w.token != "" && w.twins.Clock.Now().Sub(w.since) < 30*time.Minute {
		return w.token
	}
	d := w.ready.Dataverse
	res, err := http.PostForm(d.TokenURL, url.Values{"grant_type": {"client_credentials"}, "client_id": {d.ClientID}, "client_secret": {d.ClientSecret}, "scope": {d.Scope}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&tok); err != nil || tok.AccessToken == "" {
		w.t.Fatalf("no token: %v", err)
	}
	w.token, w.since = tok.AccessToken, w.twins.Clock.Now()
	return w.token
}

// crm calls the Dataverse twin and decodes its answer into out when that is not nil.
func (w *world) crm(method, path string, body, out any) {
	w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.ready.Dataverse.API + strings.ReplaceAll(path, " ", "%20")
	}
	w.call(method, path, body, out, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+w.bearer())
		r.Header.Set("OData-Version", "4.0")
		r.Header.Set("Prefer", "odata.maxpagesize=5000")
	})
}

// mail calls the Dotdigital twin.
func (w *world) mail(method, path string, body, out any) {
	w.t.Helper()
	w.call(method, w.ready.Dotdigital.URL+path, body, out, func(r *http.Request) { r.SetBasicAuth(w.ready.Dotdigital.User, w.ready.Dotdigital.Password) })
}

func (w *world) call(method, u string, body, out any, prepare func(*http.Request)) {
	w.t.Helper()
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, u, rd)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	prepare(req)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %s: %.300s", method, u, res.Status, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			w.t.Fatalf("%s %s: %v in %.200s", method, u, err, b)
		}
	}
}

type rec map[string]any

func (r rec) str(k string) string {
	switch v := r[k].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strings.TrimSuffix(fmt.Sprintf("%.4f", v), ".0000")
	}
	return fmt.Sprint(r[k])
}

// rows reads a whole collection of the CRM twin.
func (w *world) rows(path string) []rec {
	w.t.Helper()
	var out []rec
	for path != "" {
		var page struct {
			Value []rec  `json:"value"`
			Next  string `json:"@odata.nextLink"`
		}
		w.crm("GET", path, nil, &page)
		out = append(out, page.Value...)
		path = page.Next
	}
	return out
}

type mailContact struct {
	ContactID   int64                      `json:"contactId"`
	Identifiers struct{ Email string }     `json:"identifiers"`
	DataFields  map[string]any             `json:"dataFields"`
	Lists       []struct{ ID int64 }       `json:"lists"`
	Channel     map[string]map[string]any  `json:"channelProperties"`
	Status      string                     `json:"status"`
	Extra       map[string]json.RawMessage `json:"-"`
}

// contacts reads all contacts of the platform twin, or a book's.
func (w *world) contacts(book string) map[string]mailContact {
	w.t.Helper()
	out := map[string]mailContact{}
	q := "/contacts/v3?limit=5000&data-fields=" + url.QueryEscape("[[ALL]]") + "&include=" + url.QueryEscape("lists|channelProperties")
	if book != "" {
		q += "&~listId=" + book
	}
	for q != "" {
		var page struct {
			Items []mailContact `json:"_items"`
			Links map[string]struct {
				Marker string `json:"marker"`
			} `json:"_links"`
		}
		w.mail("GET", q, nil, &page)
		for _, c := range page.Items {
			out[strings.ToLower(c.Identifiers.Email)] = c
		}
		next, ok := page.Links["next"]
		if !ok || next.Marker == "" {
			break
		}
		if i := strings.Index(q, "&marker="); i >= 0 {
			q = q[:i]
		}
		q += "&marker=" + url.QueryEscape(next.Marker)
	}
	return out
}

// calls returns how often each operation of a twin was called since the last reset.
func (w *world) calls(name string) map[string]int64 {
	return w.twins.Counters[name].Snapshot().Operations
}

func (w *world) resetCalls() {
	for _, c := range w.twins.Counters {
		c.Reset()
	}
}

// writes counts the calls that change something.
func writes(ops map[string]int64) (n int64) {
	for op, k := range ops {
		_, does, _ := strings.Cut(op, ".")
		if does == "" {
			does = op
		}
		for _, verb := range []string{"create", "update", "upsert", "delete", "add", "remove", "import", "batch", "patch", "post"} {
			if strings.Contains(does, verb) && !strings.Contains(does, "status") {
				n += k
				break
			}
		}
	}
	return n
}

func total(ops map[string]int64, except ...string) (n int64) {
	for op, k := range ops {
		if !slices.Contains(except, op) {
			n += k
		}
	}
	return n
}
