package dotdigital

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adaptertest"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	twin "github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

const (
	testUser     = "apiuser-000000000001@apiconnector.com"
	testPassword = "correct horse"
)

var epoch = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// account is an adapter with a twin on the other side.
type account struct {
	*Client
	t      testing.TB
	twin   *twin.Server
	url    string
	time   *clock.Clock
	faults *fault.Set
	stats  *stats.Counter
	sent   *atomic.Int64 // requests that left for the twin
}

// open returns a client of a new, empty account. Every request that the client
// makes is checked against the service's contract.
func open(t testing.TB, change ...func(*twin.Options)) *account {
	t.Helper()
	c := clock.NewFixed(epoch)
	a := &account{t: t, time: c, faults: fault.New(1, c), stats: stats.New(), sent: new(atomic.Int64)}
	t.Cleanup(a.faults.Close)
	o := twin.Options{Clock: c, Faults: a.faults, Stats: a.stats, Users: []twin.APIUser{{Name: testUser, Password: testPassword}}}
	for _, f := range change {
		f(&o)
	}
	a.twin = twin.New(o)
	srv := httptest.NewServer(a.twin.Handler())
	t.Cleanup(srv.Close)
	a.url = srv.URL
	a.twin.SetEndpoint(srv.URL + "/")
	a.Client = connectCounting(t, srv.URL, a.sent)
	return a
}

// connect opens a client of whatever answers at an address, with short pauses.
func connect(t testing.TB, address string) *Client {
	t.Helper()
	return connectCounting(t, address, new(atomic.Int64))
}

func connectCounting(t testing.TB, address string, sent *atomic.Int64) *Client {
	t.Helper()
	direct := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(direct.CloseIdleConnections)
	c, err := Open(t.Context(), adapter.Settings{"endpoint": address, "user": testUser, "password": testPassword},
		adapter.Env{Transport: contract{t, direct, sent}, AllowHosts: []string{hostOf(address)}})
	if err != nil {
		t.Fatal(err)
	}
	c.waits = waits{retry: []time.Duration{time.Millisecond, time.Millisecond}, poll: time.Millisecond, pollMax: 4 * time.Millisecond}
	return c
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// fail adds a fault rule.
func (a *account) fail(f fault.Fault) {
	a.t.Helper()
	f.Twin = fault.Dotdigital
	if err := a.faults.Add(f); err != nil {
		a.t.Fatal(err)
	}
}

// post does something on the account past the adapter.
func (a *account) post(t testing.TB, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, a.url+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(testUser, testPassword)
	a.sent.Add(1)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		answer, _ := io.ReadAll(resp.Body)
		t.Fatalf("POST %s: %d %s", path, resp.StatusCode, answer)
	}
}

// served returns what the twin counted. It counts a call a moment after the
// answer: every request that was sent is waited for.
func (a *account) served() stats.Counts {
	a.t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; runtime.Gosched() {
		if c := a.stats.Snapshot(); c.Calls >= a.sent.Load() {
			return c
		}
	}
	a.t.Fatalf("the twin served %d calls of %d", a.stats.Snapshot().Calls, a.sent.Load())
	return stats.Counts{}
}

// calls returns how often the service was asked for an operation.
func (a *account) calls(operation string) int64 { return a.served().Operations[operation] }

func (a *account) fixture() adaptertest.PlatformFixture {
	return adaptertest.PlatformFixture{
		SystemBook:    "Test",
		SystemField:   "LASTSUBSCRIBED",
		BadEmail:      "someone@localhost",
		ActiveImports: 25,
		Pass:          func(d time.Duration) { a.time.Advance(d) },
		Unsubscribe: func(t testing.TB, email string) {
			a.post(t, "/v2/contacts/unsubscribe", map[string]string{"email": email})
		},
		UnsubscribeFrom: func(t testing.TB, book lockstep.BookID, email string) {
			a.post(t, "/v2/address-books/"+string(book)+"/contacts/unsubscribe", map[string]string{"email": email})
		},
		Resubscribe: func(t testing.TB, email string) {
			a.post(t, "/v2/contacts/resubscribe-with-no-challenge", map[string]any{"unsubscribedContact": map[string]string{"email": email}})
		},
		Preference: func(t testing.TB, category, name string) string {
			in := int32(0)
			if category != "" {
				in = a.twin.AddCategory(category, category)
			}
			id, ok := a.twin.AddPreferenceIn(in, name, name)
			if !ok {
				t.Fatalf("no preference could be made in %q", category)
			}
			return strconv.Itoa(int(id))
		},
		Choose: func(t testing.TB, email, preference string, in bool) {
			id, err := strconv.Atoi(preference)
			if err == nil {
				err = a.twin.Act(twin.Act{Email: email, Kind: twin.Prefer, Preference: int32(id), OptedIn: in})
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		LoseAnswer: func(testing.TB) {
			for _, op := range []string{"contacts.import", "address-books.create", "data-fields.create", "contacts.suppress"} {
				a.fail(fault.Fault{Kind: fault.AckLost, Operation: op, Count: 1})
			}
		},
	}
}

// contract checks every request against the service's published description.
type contract struct {
	t    testing.TB
	next http.RoundTripper
	sent *atomic.Int64
}

// maxChecked keeps the big imports of the measurements out of the validator.
const maxChecked = 64 << 10

func (c contract) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	if len(body) <= maxChecked {
		if problem := violates(r, body); problem != "" {
			c.t.Errorf("%s %s breaks the contract: %s", r.Method, r.URL.Path, problem)
		}
	}
	again := r.Clone(r.Context())
	if r.Body != nil {
		again.Body = io.NopCloser(bytes.NewReader(body))
	}
	c.sent.Add(1)
	return c.next.RoundTrip(again)
}

// contracts are read once: the description of v2 alone has 180 operations.
var contracts = sync.OnceValues(func() (map[string]validator.Validator, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil, fmt.Errorf("there is no go.mod above the test")
		}
		dir = up
	}
	out := map[string]validator.Validator{}
	for prefix, name := range map[string]string{"/v2/": "dotdigital-v2.json", "/contacts/v3": "dotdigital-v3-contacts.json"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "shared", "contracts", "dotdigital", "normalised", name))
		if err != nil {
			return nil, fmt.Errorf("the contracts of the service are missing: they are needed beside the checkout: %w", err)
		}
		doc, err := libopenapi.NewDocument(text)
		if err != nil {
			return nil, err
		}
		v, errs := validator.NewValidator(doc)
		if len(errs) > 0 {
			return nil, errs[0]
		}
		out[prefix] = v
	}
	return out, nil
})

// contractLock: the validator compiles schemas as it goes.
var contractLock sync.Mutex

// violates returns how a request breaks the contract; empty = it does not.
func violates(r *http.Request, body []byte) string {
	all, err := contracts()
	if err != nil {
		return err.Error()
	}
	for prefix, v := range all {
		if !strings.HasPrefix(r.URL.Path, prefix) {
			continue
		}
		check := r.Clone(context.Background())
		check.Body = io.NopCloser(bytes.NewReader(body))
		contractLock.Lock()
		ok, problems := v.ValidateHttpRequestSync(check)
		contractLock.Unlock()
		if ok {
			return ""
		}
		var texts []string
		for _, p := range problems {
			texts = append(texts, p.Message+": "+p.Reason)
			for _, s := range p.SchemaValidationErrors {
				texts = append(texts, s.Reason)
			}
		}
		return strings.Join(texts, "; ")
	}
	return "no part of the API begins like this"
}

func TestContractSeesViolations(t *testing.T) {
	for name, tt := range map[string]struct{ method, target, body string }{
		"unknown path":       {"GET", "/v2/no-such-thing", ""},
		"too large a page":   {"GET", "/contacts/v3?limit=5001", ""},
		"filter shape":       {"GET", "/contacts/v3?~modified=2024-01-01", ""},
		"unknown include":    {"GET", "/contacts/v3?include=everything", ""},
		"no rows":            {"PUT", "/contacts/v3/import", `{"contacts":[]}`},
		"no identifiers":     {"PUT", "/contacts/v3/import", `{"contacts":[{"matchIdentifier":"email"}]}`},
		"contact id as text": {"PUT", "/contacts/v3/import", `{"contacts":[{"matchIdentifier":"contactId","identifiers":{"contactId":"7"}}]}`},
		"list as text":       {"PUT", "/contacts/v3/import", `{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"a@example.com"},"lists":["2"]}]}`},
		"unknown member":     {"POST", "/v2/address-books", `{"name":"x","colour":"red"}`},
		"field type":         {"POST", "/v2/data-fields", `{"name":"X","type":"Colour"}`},
	} {
		r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
		r.SetBasicAuth(testUser, testPassword)
		r.Header.Set("Content-Type", "application/json")
		if violates(r, []byte(tt.body)) == "" {
			t.Errorf("%s: the contract test does not see it", name)
		}
	}
}

func TestPlatform(t *testing.T) {
	adaptertest.Platform(t, func(t *testing.T) (lockstep.Platform, adaptertest.PlatformFixture) {
		a := open(t, func(o *twin.Options) { o.ImportTime, o.JobTime = 30*time.Second, 30*time.Second })
		return a.Client, a.fixture()
	})
}
