package webapi

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/remote"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

const (
	tenantID = "11111111-aaaa-4bbb-8ccc-222222222222"
	appID    = "33333333-aaaa-4bbb-8ccc-444444444444"
	password = "correct horse+battery/staple="
)

// world is an organization with its directory, on real sockets.
type world struct {
	t        *testing.T
	org      *dataverse.Server
	dir      *entra.Service
	faults   *fault.Set
	clock    *clock.Clock
	received atomic.Int64 // requests to the organization
	signIns  *stats.Counter
	settings adapter.Settings
	env      adapter.Env
}

// patient are the limits of tests in which nothing hangs, quick those of tests in
// which something does.
var (
	patient = remote.Limits{Backoff: time.Millisecond}
	quick   = remote.Limits{Header: 500 * time.Millisecond, Progress: 300 * time.Millisecond, Total: 10 * time.Second, Backoff: time.Millisecond}
)

// pageRows is the page size of the clients under test.
const pageRows = 100

// directoryKey is shared, because keys are slow to make.
var directoryKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

type options struct {
	profile dataverse.Profile
	user    *dataverse.AppUser
	noUser  bool
	limits  dataverse.Limits
	wrap    func(http.Handler) http.Handler
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	c := clock.New()
	w := &world{t: t, clock: c, faults: fault.New(1, c), signIns: stats.New()}
	var err error
	w.dir, err = entra.New(entra.Options{Tenant: tenantID, Key: directoryKey(), Clock: c, Stats: w.signIns, Faults: w.faults})
	if err != nil {
		t.Fatal(err)
	}
	dir := httptest.NewServer(w.dir)
	t.Cleanup(dir.Close)
	w.org = dataverse.New(dataverse.Options{
		Clock: c, Faults: w.faults, TenantID: tenantID, Authority: dir.URL + "/" + tenantID, Profile: o.profile,
		OrganizationName: "Contoso", UniqueName: "unqcontoso", URLName: "contoso", Limits: o.limits,
		Tokens: dataverse.VerifierFunc(func(token string) (dataverse.Token, error) {
			claims, err := w.dir.Verify(token, w.org.BaseURL())
			return dataverse.Token{AppID: claims.AppID, Audience: claims.Audience, Tenant: claims.Tenant, Expires: claims.Expires}, err
		}),
	})
	h := w.org.Handler()
	if o.wrap != nil {
		h = o.wrap(h)
	}
	org := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.received.Add(1) // before the answer, unlike the twin's own statistics
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(org.Close)
	t.Cleanup(w.faults.Close)
	w.org.SetBaseURL(org.URL)
	w.dir.AddResource(org.URL)
	if err := w.dir.AddApplication(entra.Application{ClientID: appID, Secrets: []entra.Secret{{Value: password}, {Value: "old", Expires: time.Now().Add(-time.Hour)}}}); err != nil {
		t.Fatal(err)
	}
	if !o.noUser {
		u := dataverse.AppUser{}
		if o.user != nil {
			u = *o.user
		}
		u.ClientID = appID
		if _, err := w.org.AddApplicationUser(u); err != nil {
			t.Fatal(err)
		}
	}
	ou, _ := url.Parse(org.URL)
	du, _ := url.Parse(dir.URL)
	w.settings = adapter.Settings{"url": org.URL, "client_id": appID, "client_secret": password}
	w.env = adapter.Env{Now: c.Now, AllowHosts: []string{ou.Host, du.Host}}
	return w
}

func (w *world) open() *Client { return w.openWith(patient) }

func (w *world) openWith(l remote.Limits) *Client {
	w.t.Helper()
	limitsFor = func(adapter.Settings) remote.Limits { return l }
	c, err := Open(w.t.Context(), w.settings, w.env)
	if err != nil {
		w.t.Fatal(err)
	}
	c.pageRows = pageRows
	return c
}

// fault adds a rule.
func (w *world) fault(kind, operation string, count int, args string) {
	w.t.Helper()
	f := fault.Fault{Twin: fault.Dataverse, Kind: kind, Operation: operation, Count: count}
	if args != "" {
		f.Args = json.RawMessage(args)
	}
	if err := w.faults.Add(f); err != nil {
		w.t.Fatal(err)
	}
}

// count runs f and returns how many calls the organization received meanwhile.
func (w *world) count(f func()) int64 {
	before := w.received.Load()
	f()
	return w.received.Load() - before
}

func id(n int) lockstep.ID {
	v, err := lockstep.ParseID(fmt.Sprintf("22222222-0000-4000-8000-%012d", n))
	if err != nil {
		panic(err)
	}
	return v
}

// person is a contact to write.
func person(n int) lockstep.RecordWrite {
	return lockstep.RecordWrite{ID: id(n), Create: true, Fields: []lockstep.ColumnValue{
		{Column: "firstname", Value: lockstep.TextValue("First")},
		{Column: "lastname", Value: lockstep.TextValue(fmt.Sprintf("Last %d", n))},
		{Column: "emailaddress1", Value: lockstep.TextValue(fmt.Sprintf("person.%d@example.com", n))},
	}}
}

func people(from, count int) (out []lockstep.RecordWrite) {
	for n := from; n < from+count; n++ {
		out = append(out, person(n))
	}
	return out
}

func ids(from, count int) (out []lockstep.ID) {
	for n := from; n < from+count; n++ {
		out = append(out, id(n))
	}
	return out
}

// write writes rows that must all be accepted.
func (w *world) write(c *Client, table string, rows []lockstep.RecordWrite) {
	w.t.Helper()
	results, err := c.WriteRecords(w.t.Context(), table, rows)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, e := range results {
		if e != nil {
			w.t.Fatalf("row %d: %v", i, e)
		}
	}
}

// post speaks to the twin directly, past the adapter.
func (w *world) post(method, path, body string) string {
	w.t.Helper()
	c := w.open()
	var b []byte
	if body != "" {
		b = []byte(body)
	}
	h := http.Header{"Content-Type": {"application/json"}, "OData-Version": {"4.0"}, "OData-MaxVersion": {"4.0"}, "Accept": {"application/json"}, "User-Agent": {"fixture"}}
	text, resp, err := c.http.Fetch(w.t.Context(), remote.Call{Op: "test", Method: method, URL: c.url("/api/data/v9.2/" + path), Header: h, Body: b}, 0)
	if err != nil || resp.Status >= 300 {
		w.t.Fatalf("%s %s: %v %v %s", method, path, resp, err, text)
	}
	if l := resp.Header.Get("OData-EntityId"); l != "" {
		return l[strings.LastIndexByte(l, '(')+1 : len(l)-1]
	}
	return text
}

func (w *world) newList(name, table string, query string) lockstep.ID {
	w.t.Helper()
	code := map[string]int{"account": 1, "contact": 2, "lead": 4}[table]
	body := fmt.Sprintf(`{"listname":%q,"createdfromcode":%d,"type":%v`, name, code, query != "")
	if query != "" {
		q, _ := json.Marshal(query)
		body += `,"query":` + string(q)
	}
	l, err := lockstep.ParseID(w.post(http.MethodPost, "lists", body+"}"))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// read reads a feed to its end.
func read(ctx context.Context, c *Client, q lockstep.RecordQuery, from lockstep.Cursor) (records []lockstep.Record, end lockstep.Cursor, err error) {
	end, err = c.Changes(ctx, q, from, func(p lockstep.RecordPage) error {
		records = append(records, p.Records...)
		return nil
	})
	return records, end, err
}
