package dotdigital

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
)

// internet answers by host name, without a network, and writes down who was
// shown the credentials.
type internet struct {
	t     *testing.T
	hosts map[string]http.HandlerFunc
	mu    sync.Mutex
	asked []string // "host path"
}

func (n *internet) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.asked = append(n.asked, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
	n.mu.Unlock()
	if r.Header.Get("Authorization") == "" {
		n.t.Errorf("a call without credentials to %s", r.URL.Host)
	}
	h := n.hosts[r.URL.Host]
	if h == nil {
		n.t.Errorf("the credentials were sent to %s", r.URL.Host)
		h = http.NotFound
	}
	w := httptest.NewRecorder()
	h(w, r)
	return w.Result(), nil
}

func (n *internet) calls(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := 0
	for _, a := range n.asked {
		if a == address {
			c++
		}
	}
	return c
}

func (n *internet) open(endpoint string, allow ...string) *Client {
	n.t.Helper()
	s := adapter.Settings{"user": testUser, "password": testPassword}
	if endpoint != "" {
		s["endpoint"] = endpoint
	}
	c, err := Open(n.t.Context(), s, adapter.Env{Transport: n, AllowHosts: allow})
	if err != nil {
		n.t.Fatal(err)
	}
	c.waits = waits{}
	return c
}

func accountAt(endpoint string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/account-info" {
			wrongRegion(w, r)
			return
		}
		fmt.Fprintf(w, `{"id":7,"properties":[{"name":"Name","type":"String","value":"Demo"},{"name":"ApiEndpoint","type":"String","value":%q}]}`, endpoint)
	}
}

func wrongRegion(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprint(w, `{"message":"Forbidden: Access is denied"}`)
}

func oneField(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `[{"name":"FIRSTNAME","type":"String","visibility":"Private"}]`)
}

func TestRegionIsDiscovered(t *testing.T) {
	for _, entered := range []string{"", "https://r1-api.dotdigital.com", "https://r2-api.dotdigital.com/", "https://r3-api.dotmailer.com", "https://api.dotmailer.com/v2/", "https://apiconnector.com", "http://R1-API.dotmailer.com:443"} {
		n := &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt("https://r2-api.dotdigital.com/"), "r2-api.dotdigital.com": oneField}}
		c := n.open(entered)
		for range 3 {
			if _, err := c.Fields(t.Context()); err != nil {
				t.Errorf("entered %q: %v", entered, err)
			}
		}
		if a, b := n.calls("https://r1-api.dotdigital.com/v2/account-info"), n.calls("https://r2-api.dotdigital.com/v2/data-fields"); a != 1 || b != 3 || len(n.asked) != 4 {
			t.Errorf("entered %q: calls %v", entered, n.asked)
		}
		id, err := c.Identity(t.Context())
		if want := (lockstep.AccountIdentity{ID: "7", Name: "Demo", Endpoint: "https://r2-api.dotdigital.com"}); err != nil || id != want {
			t.Errorf("entered %q: identity %+v, %v", entered, id, err)
		}
	}
}

func TestMovedAccountIsFoundOnce(t *testing.T) {
	n := &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt("https://r2-api.dotdigital.com"), "r2-api.dotdigital.com": oneField, "r3-api.dotdigital.com": oneField}}
	c := n.open("")
	if _, err := c.Fields(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.hosts["r2-api.dotdigital.com"] = wrongRegion
	n.hosts["r1-api.dotdigital.com"] = accountAt("https://r3-api.dotdigital.com")
	if _, err := c.Fields(t.Context()); err != nil {
		t.Errorf("after the move: %v", err)
	}
	if got := n.calls("https://r1-api.dotdigital.com/v2/account-info"); got != 2 {
		t.Errorf("the region was asked for %d times, want 2", got)
	}
}

func TestRefusedRightIsNotAskedAgainAndAgain(t *testing.T) {
	n := &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt("https://r2-api.dotdigital.com"), "r2-api.dotdigital.com": wrongRegion}}
	c := n.open("")
	for range 5 {
		_, err := c.Fields(t.Context())
		if e := lockstep.AsError(err); e.Code != lockstep.CodeForbidden || e.Hint == "" {
			t.Fatalf("got %v", err)
		}
	}
	if a, b := n.calls("https://r1-api.dotdigital.com/v2/account-info"), n.calls("https://r2-api.dotdigital.com/v2/data-fields"); a != 2 || b != 5 {
		t.Errorf("%d questions about the region and %d calls, want 2 and 5", a, b)
	}
	n.hosts["r2-api.dotdigital.com"] = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"message":"Error: ERROR_FEATURENOTACTIVE"}`)
	}
	c = n.open("")
	if _, err := c.Fields(t.Context()); lockstep.CodeOf(err) != lockstep.CodeForbidden || lockstep.ScopeOf(err) != lockstep.ScopeBatch {
		t.Errorf("a missing feature: %v", err)
	}
	if got := n.calls("https://r1-api.dotdigital.com/v2/account-info"); got != 3 {
		t.Errorf("a missing feature was taken for a wrong region")
	}
}

// TestCredentialsStayHome: whatever account-info says, only Dotdigital's hosts and
// those an administrator entered are called.
func TestCredentialsStayHome(t *testing.T) {
	for _, endpoint := range []string{
		"https://evil.example", "https://r1-api.dotdigital.com.evil.example", "https://evil.example/r1-api.dotdigital.com", "https://-api.dotdigital.com",
		"https://a.b-api.dotdigital.com", "https://x@evil.example", "ftp://r1-api.dotdigital.com", "https://r1-api.dotdigital.com:8443",
		"http://169.254.169.254", "https://evil.example?-api.dotdigital.com", "javascript:alert(1)", "https://r1-api.dotdigital.com@evil.example",
	} {
		n := &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt(endpoint)}}
		_, err := n.open("").Fields(t.Context())
		if code := lockstep.CodeOf(err); code != lockstep.CodeGuarded && code != lockstep.CodeUnavailable {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
		if strings.Contains(fmt.Sprint(err), testPassword) {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	// What an administrator entered elsewhere may be followed to.
	n := &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt("https://relay.example/"), "relay.example": oneField}}
	if _, err := n.open("", "relay.example").Fields(t.Context()); err != nil {
		t.Errorf("an entered host: %v", err)
	}
	// A plain-text address of an official host is never used in plain text.
	n = &internet{t: t, hosts: map[string]http.HandlerFunc{"r1-api.dotdigital.com": accountAt("http://r1-api.dotdigital.com")}}
	n.hosts["r1-api.dotdigital.com"] = accountAt("http://r1-api.dotdigital.com")
	_, _ = n.open("http://r1-api.dotdigital.com").Fields(t.Context())
	if i := slices.IndexFunc(n.asked, func(a string) bool { return strings.HasPrefix(a, "http:") }); i >= 0 {
		t.Errorf("the credentials went over plain text: %s", n.asked[i])
	}
}

func TestOpenRefusesBadSettings(t *testing.T) {
	for name, s := range map[string]adapter.Settings{
		"nothing":        {},
		"no password":    {"user": testUser},
		"no address":     {"user": testUser, "password": "x", "endpoint": "dotdigital"},
		"internal":       {"user": testUser, "password": "x", "endpoint": "https://127.0.0.1"},
		"plain text":     {"user": testUser, "password": "x", "endpoint": "http://relay.example"},
		"with a user":    {"user": testUser, "password": "x", "endpoint": "https://me@r1-api.dotdigital.com"},
		"unknown option": {"user": testUser, "password": "x", "colour": "red"},
	} {
		if c, err := Open(t.Context(), s, adapter.Env{}); err == nil || c != nil {
			t.Errorf("%s: opened", name)
		}
	}
	k := Kind()
	if k.Name != "dotdigital" || k.OpenPlatform == nil || k.OpenCRM != nil {
		t.Errorf("kind %+v", k)
	}
	open, sealed := k.Split(adapter.Settings{"user": "u", "password": "p", "endpoint": "e"})
	if open["password"] != "" || sealed["password"] != "p" || len(sealed) != 1 {
		t.Errorf("the password is not sealed: %v", open)
	}
	if c, err := Open(t.Context(), adapter.Settings{"user": testUser, "password": testPassword}, adapter.Env{}); err != nil {
		t.Errorf("default settings: %v", err)
	} else if text := fmt.Sprintf("%v %+v %#v", c, c, k); strings.Contains(text, testPassword) {
		t.Error("the password shows when the client is printed")
	}
}

func TestConnectTest(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Welcome</html>") }))
	defer page.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer broken.Close()
	elsewhere := httptest.NewServer(accountAt("https://evil.example"))
	defer elsewhere.Close()
	refused := open(t)
	refused.auth = open(t).auth
	refused.fail(status401())

	for name, tt := range map[string]struct {
		client *Client
		passed int
		ok     bool
	}{
		"works":                {open(t).Client, 4, true},
		"nobody there":         {connect(t, gone.URL), 0, false},
		"a web page":           {connect(t, page.URL), 1, false},
		"a broken server":      {connect(t, broken.URL), 1, false},
		"wrong password":       {refused.Client, 2, false},
		"another host's fault": {connect(t, elsewhere.URL), 3, false},
	} {
		steps := tt.client.ConnectTest(t.Context())
		passed := 0
		for i, s := range steps {
			if s.OK {
				passed++
			} else if i != len(steps)-1 || s.Detail == "" || s.Fix == "" {
				t.Errorf("%s: step %+v must be the last and say cause and fix", name, s)
			}
			if text := fmt.Sprint(s); strings.Contains(text, testPassword) || strings.Contains(text, testUser) {
				t.Errorf("%s: the step holds credentials: %s", name, text)
			}
		}
		if passed != tt.passed || (passed == len(steps)) != tt.ok {
			t.Errorf("%s: %+v", name, steps)
		}
	}
}
