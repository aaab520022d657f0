package signin

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tenant   = "11111111-aaaa-4bbb-8ccc-222222222222"
	client   = "33333333-aaaa-4bbb-8ccc-444444444444"
	password = "correct horse+battery/staple="
	resource = "https://contoso.crm4.dynamics.com"
)

type keyPair struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

var pair = sync.OnceValue(func() keyPair {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lockstep"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(key)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return keyPair{key, cert, string(text)}
})

type directory struct {
	*entra.Service
	t      *testing.T
	clock  *clock.Clock
	faults *fault.Set
	stats  *stats.Counter
	cfg    Config
}

func newDirectory(t *testing.T) *directory {
	t.Helper()
	d := &directory{t: t, clock: clock.New(), stats: stats.New()}
	d.faults = fault.New(1, d.clock)
	t.Cleanup(d.faults.Close)
	var err error
	d.Service, err = entra.New(entra.Options{Tenant: tenant, Resources: []string{resource}, Clock: d.clock, Faults: d.faults, Stats: d.stats, Key: pair().key})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.AddApplication(entra.Application{ClientID: client, Secrets: []entra.Secret{{Value: password}}, Certificates: []*x509.Certificate{pair().cert}}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(d.Service)
	t.Cleanup(srv.Close)
	u, _ := url.Parse(srv.URL)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	d.cfg = Config{Authority: srv.URL + "/" + tenant, ClientID: client, Secret: password, Resource: resource, Now: d.clock.Now, AllowHosts: []string{u.Host}, Transport: transport}
	return d
}

func (d *directory) source() *Source {
	d.t.Helper()
	s, err := New(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// requests returns how many token requests arrived.
func (d *directory) requests() int64 { return d.stats.Snapshot().Operations["token"] }

func (d *directory) check(value string) {
	d.t.Helper()
	if _, err := d.Verify(strings.TrimPrefix(value, "Bearer "), resource); err != nil {
		d.t.Errorf("the token is not good: %v", err)
	}
}

func TestSecretAndCertificate(t *testing.T) {
	d := newDirectory(t)
	value, err := d.source().Authorize(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	d.check(value)
	d.cfg.Secret, d.cfg.Certificate = "", pair().pem
	if value, err = d.source().Authorize(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	d.check(value)
}

func TestRenewal(t *testing.T) {
	d := newDirectory(t)
	s := d.source()
	first, err := s.Authorize(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	d.clock.Advance(47 * time.Minute) // less than 80 % of an hour
	if v, _ := s.Authorize(t.Context(), ""); v != first {
		t.Error("renewed too early")
	}
	d.clock.Advance(2 * time.Minute)
	second, err := s.Authorize(t.Context(), "")
	if err != nil || second == first {
		t.Errorf("not renewed at 80 %% of its life: %v", err)
	}
	// Refused: one new token, for whoever asks with the refused one.
	third, err := s.Authorize(t.Context(), second)
	if err != nil || third == second {
		t.Errorf("not renewed after a refusal: %v", err)
	}
	if v, _ := s.Authorize(t.Context(), second); v != third {
		t.Error("a second caller with the refused token made another one")
	}
	if n := d.requests(); n != 3 {
		t.Errorf("%d token requests, want 3", n)
	}
}

func TestSingleFlight(t *testing.T) {
	d := newDirectory(t)
	s := d.source()
	// The first caller gives up at once; the others still get its token.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Authorize(ctx, ""); err != nil && lockstep.CodeOf(err) != lockstep.CodeCancelled {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Authorize(t.Context(), ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := d.requests(); n != 1 {
		t.Errorf("%d token requests for 50 callers", n)
	}
}

func TestRenewalThatFailsKeepsTheOldToken(t *testing.T) {
	d := newDirectory(t)
	s := d.source()
	first, _ := s.Authorize(t.Context(), "")
	d.clock.Advance(50 * time.Minute)
	if err := d.faults.Add(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Args: json.RawMessage(`{"status":503}`)}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Authorize(t.Context(), ""); err != nil || v != first {
		t.Errorf("%v", err)
	}
	d.clock.Advance(20 * time.Minute)
	if _, err := s.Authorize(t.Context(), ""); lockstep.CodeOf(err) != lockstep.CodeUnavailable {
		t.Errorf("%v", err)
	}
	d.faults.Clear()
	d.clock.Advance(10 * time.Second)
	if v, err := s.Authorize(t.Context(), ""); err != nil || v == first {
		t.Errorf("%v", err)
	}
}

func TestPassingFailureOfTheService(t *testing.T) {
	d := newDirectory(t)
	if err := d.faults.Add(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Count: 1, Args: json.RawMessage(`{"status":503}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.source().Authorize(t.Context(), ""); err != nil || d.requests() != 2 {
		t.Errorf("%v after %d requests", err, d.requests())
	}
}

func TestAdvice(t *testing.T) {
	for number, want := range map[int]struct{ field, in string }{
		7000215: {"client_secret", "Value"}, 7000222: {"client_secret", "expired"}, 700016: {"client_id", "no application"}, 90002: {"tenant", "no such tenant"},
		500011: {"url", "no Dynamics organization"}, 700027: {"certificate", "not accepted"}, 65001: {"client_id", "consent"}, 4242: {"", "AADSTS4242"},
	} {
		d := newDirectory(t)
		if err := d.faults.Add(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Args: json.RawMessage(fmt.Sprintf(`{"aadsts":%d}`, number))}); err != nil {
			t.Fatal(err)
		}
		s := d.source()
		_, err := s.Authorize(t.Context(), "")
		e := lockstep.AsError(err)
		if e.Field != want.field || !strings.Contains(e.Msg+e.Hint, want.in) || e.Scope != lockstep.ScopeConnection || e.Upstream != fmt.Sprintf("AADSTS%d", number) {
			t.Errorf("%d: %+v", number, e)
		}
		if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "Trace ID") {
			t.Errorf("%d: the error holds what it must not: %v", number, err)
		}
		_, _ = s.Authorize(t.Context(), "")
		if d.requests() != 1 {
			t.Errorf("%d: a refusal was tried %d times", number, d.requests())
		}
	}
}

func TestConfiguration(t *testing.T) {
	otherKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(otherKey)}))
	certOnly, _, _ := strings.Cut(pair().pem, "-----BEGIN PRIVATE")
	for name, tc := range map[string]struct {
		cfg   Config
		field string
	}{
		"no client":        {Config{Secret: "x"}, "client_id"},
		"no credential":    {Config{ClientID: client}, "client_secret"},
		"both":             {Config{ClientID: client, Secret: "x", Certificate: "y"}, "client_secret"},
		"no pem":           {Config{ClientID: client, Certificate: "y"}, "certificate"},
		"no key":           {Config{ClientID: client, Certificate: certOnly}, "certificate"},
		"another's key":    {Config{ClientID: client, Certificate: certOnly + pkcs1}, "certificate"},
		"huge":             {Config{ClientID: client, Certificate: strings.Repeat("x", 2<<20)}, "certificate"},
		"http authority":   {Config{ClientID: client, Secret: "x", Authority: "http://login.microsoftonline.com/x"}, "authority"},
		"inner authority":  {Config{ClientID: client, Secret: "x", Authority: "https://10.0.0.1/x"}, "authority"},
		"no tenant":        {Config{ClientID: client, Secret: "x", Authority: "https://login.microsoftonline.com"}, "tenant"},
		"no tenant common": {Config{ClientID: client, Secret: "x", Authority: "https://login.microsoftonline.com/common"}, "tenant"},
	} {
		if _, err := New(tc.cfg); lockstep.AsError(err).Field != tc.field || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for authority, want := range map[string]string{
		"https://login.microsoftonline.com":           "https://login.microsoftonline.com/t.example/oauth2/v2.0/token",
		"https://login.microsoftonline.com/common/":   "https://login.microsoftonline.com/t.example/oauth2/v2.0/token",
		"https://login.microsoftonline.com/" + tenant: "https://login.microsoftonline.com/" + tenant + "/oauth2/v2.0/token",
		"https://sts.contoso.example/adfs":            "https://sts.contoso.example/adfs/oauth2/token",
	} {
		if got, err := tokenURL(authority, "t.example"); got != want || err != nil {
			t.Errorf("%s: %s %v", authority, got, err)
		}
	}
}

// The credential goes only to Microsoft's sign-in services or to one that an
// administrator named, whatever the organization's answer says.
func TestDiscoveredAuthority(t *testing.T) {
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	defer thief.Close()
	for _, authority := range []string{
		thief.URL + "/" + tenant, "https://login.microsoftonline.com.evil.example/x", "https://evil.example/login.microsoftonline.com", "http://login.microsoftonline.com/x",
		"https://a@login.microsoftonline.com/x", "https://login.microsoftonline.com:8443/x", "",
	} {
		d := newDirectory(t)
		d.cfg.Authority = ""
		d.cfg.Discover = func(context.Context) (string, error) { return authority, nil }
		if _, err := d.source().Authorize(t.Context(), ""); lockstep.CodeOf(err) != lockstep.CodeGuarded || stolen.Load() != 0 {
			t.Errorf("%q: %v, %d requests", authority, err, stolen.Load())
		}
	}
	d := newDirectory(t)
	own := d.cfg.Authority
	d.cfg.Authority = ""
	d.cfg.Discover = func(context.Context) (string, error) { return own, nil }
	value, err := d.source().Authorize(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	d.check(value)
}

func TestChallenge(t *testing.T) {
	for header, want := range map[string]string{
		`Bearer authorization_uri=https://login.microsoftonline.com/t/oauth2/authorize, resource_id=https://o/`: "https://login.microsoftonline.com/t",
		`bearer authorization_uri="https://sts.example/adfs/oauth2/authorize"`:                                  "https://sts.example/adfs",
		`Bearer resource_id=https://o/, authorization_uri=https://l.example/t/oauth2/v2.0/authorize`:            "https://l.example/t",
		`Negotiate`: "", `Bearer`: "", `Bearer authorization_uri=`: "", `Basic authorization_uri=x`: "",
	} {
		h := http.Header{}
		h.Add("WWW-Authenticate", "NTLM")
		h.Add("WWW-Authenticate", header)
		if got, ok := Challenge(h); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", header, got, ok)
		}
	}
}

// AD FS knows neither scopes nor the newer way to name a certificate.
func TestADFS(t *testing.T) {
	var form url.Values
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.PostForm
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"t","token_type":"bearer","expires_in":3600}`)
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s, err := New(Config{Authority: srv.URL + "/adfs", ClientID: client, Certificate: pair().pem, Resource: "https://crm.contoso.example", AllowHosts: []string{u.Host}, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Authorize(t.Context(), ""); v != "Bearer t" || err != nil {
		t.Fatal(v, err)
	}
	head, _ := base64.RawURLEncoding.DecodeString(strings.Split(form.Get("client_assertion"), ".")[0])
	if form.Get("resource") != "https://crm.contoso.example/" || form.Has("scope") || !bytes.Contains(head, []byte("RS256")) || !bytes.Contains(head, []byte(`"x5t":`)) {
		t.Errorf("%v %s", form, head)
	}
}

func TestHangingServiceIsBounded(t *testing.T) {
	d := newDirectory(t)
	d.cfg.Timeout = 100 * time.Millisecond
	if err := d.faults.Add(fault.Fault{Twin: fault.Entra, Kind: "hang"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.source().Authorize(t.Context(), ""); lockstep.CodeOf(err) != lockstep.CodeUnavailable {
		t.Errorf("%v", err)
	}
}
