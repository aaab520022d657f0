package entra

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

const (
	tenantID = "11111111-aaaa-4bbb-8ccc-222222222222"
	clientID = "33333333-aaaa-4bbb-8ccc-444444444444"
	secret   = "correct horse+battery/staple="
	resource = "http://127.0.0.1:5081"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// keys are slow to make, so all tests share two.
var testKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

func certificate(t *testing.T, key *rsa.PrivateKey, end time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type fixture struct {
	*Service
	clock  *clock.Clock
	stats  *stats.Counter
	server *httptest.Server
	cert   *x509.Certificate
	key    *rsa.PrivateKey
}

func setUp(t *testing.T, faults fault.Injector) *fixture {
	t.Helper()
	f := &fixture{clock: clock.NewFixed(start), stats: stats.New(), key: testKeys()[0]}
	var err error
	f.Service, err = New(Options{Tenant: tenantID, Domains: []string{"example.com"}, Resources: []string{resource + "/"}, Key: testKeys()[1], Clock: f.clock, Stats: f.stats, Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	f.cert = certificate(t, f.key, start.AddDate(1, 0, 0))
	err = f.AddApplication(Application{
		ClientID: clientID, Certificates: []*x509.Certificate{f.cert},
		Secrets: []Secret{{Value: secret}, {Value: "old", Expires: start.Add(-time.Hour)}, {Value: "soon", Expires: start.Add(time.Hour)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fixture) endpoint() string { return f.server.URL + "/" + tenantID + "/oauth2/v2.0/token" }

func (f *fixture) ask(t *testing.T, address string, form url.Values) (int, map[string]any) {
	t.Helper()
	resp, err := http.PostForm(address, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatalf("status %d: %v", resp.StatusCode, err)
	}
	return resp.StatusCode, body
}

func bySecret(changes ...string) url.Values {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {resource + "/.default"}}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			form.Del(changes[i])
		} else {
			form.Set(changes[i], changes[i+1])
		}
	}
	return form
}

func TestSecretThroughOAuthLibrary(t *testing.T) {
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		f := setUp(t, nil)
		config := clientcredentials.Config{ClientID: clientID, ClientSecret: secret, TokenURL: f.endpoint(), Scopes: []string{resource + "/.default"}, AuthStyle: style}
		token, err := config.Token(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if token.TokenType != "Bearer" || token.Extra("expires_in") != 3599.0 {
			t.Errorf("got %s for %v s", token.TokenType, token.Extra("expires_in"))
		}
		claims, err := f.Verify(token.AccessToken, strings.ToUpper(resource)+"/")
		if err != nil {
			t.Fatal(err)
		}
		if claims.AppID != clientID || claims.Tenant != tenantID || claims.Audience != resource || claims.ObjectID == "" || !claims.Expires.Equal(start.Add(DefaultLifetime)) {
			t.Errorf("claims %+v", claims)
		}
		if got := f.stats.Snapshot(); got.Operations["token"] != 1 || got.BytesIn == 0 || got.BytesOut == 0 {
			t.Errorf("counted %+v", got)
		}
	}
}

func TestRefusals(t *testing.T) {
	f := setUp(t, nil)
	bare := f.server.URL
	tests := []struct {
		name    string
		address string
		form    url.Values
		status  int
		code    string
		number  float64
	}{
		{"wrong secret", "", bySecret("client_secret", "wrong"), 401, "invalid_client", 7000215},
		{"expired secret", "", bySecret("client_secret", "old"), 401, "invalid_client", 7000222},
		{"unknown client", "", bySecret("client_id", tenantID), 400, "unauthorized_client", 700016},
		{"unknown tenant", bare + "/nowhere.example/oauth2/v2.0/token", bySecret(), 400, "invalid_request", 90002},
		{"common tenant", bare + "/common/oauth2/v2.0/token", bySecret(), 400, "invalid_request", 50059},
		{"unknown resource", "", bySecret("scope", "http://other/.default"), 400, "invalid_resource", 500011},
		{"scope without default", "", bySecret("scope", resource+"/user_impersonation"), 400, "invalid_scope", 70011},
		{"two resources", "", bySecret("scope", resource+"/.default "+resource+"/.default"), 400, "invalid_scope", 70011},
		{"no scope", "", bySecret("scope", ""), 400, "invalid_request", 900144},
		{"no credential", "", bySecret("client_secret", ""), 401, "invalid_client", 7000218},
		{"no grant", "", bySecret("grant_type", ""), 400, "invalid_request", 900144},
		{"unknown grant", "", bySecret("grant_type", "magic"), 400, "unsupported_grant_type", 70003},
		{"device code", "", bySecret("grant_type", "device_code", "device_code", "x"), 401, "invalid_client", 7000218},
		{"device code, full name", "", bySecret("grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", "x"), 401, "invalid_client", 7000218},
		{"device code endpoint", bare + "/" + tenantID + "/oauth2/v2.0/devicecode", bySecret(), 401, "invalid_client", 7000218},
		{"secret and assertion", "", bySecret("client_assertion", "a.b.c"), 400, "invalid_request", 9002313},
		{"parameter twice", "", func() url.Values { v := bySecret(); v.Add("scope", "x"); return v }(), 400, "invalid_request", 9002313},
		{"interactive", "", bySecret("grant_type", "authorization_code"), 501, "unsupported_grant_type", 0},
		{"version 1", bare + "/" + tenantID + "/oauth2/token", bySecret(), 501, "server_error", 0},
		{"parameters in the URL", bare + "/" + tenantID + "/oauth2/v2.0/token?" + bySecret().Encode(), url.Values{}, 400, "invalid_request", 900144},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address := tt.address
			if address == "" {
				address = f.endpoint()
			}
			status, body := f.ask(t, address, tt.form)
			if status != tt.status || body["error"] != tt.code {
				t.Errorf("got %d %v, want %d %s", status, body["error"], tt.status, tt.code)
			}
			if tt.number == 0 {
				return
			}
			codes, _ := body["error_codes"].([]any)
			if len(codes) != 1 || codes[0] != tt.number {
				t.Errorf("codes %v, want %v", codes, tt.number)
			}
			text, _ := body["error_description"].(string)
			for _, part := range []string{"AADSTS", "Trace ID: ", "Correlation ID: ", "Timestamp: 2026-03-01 10:00:00Z"} {
				if !strings.Contains(text, part) {
					t.Errorf("%q lacks %q", text, part)
				}
			}
			for _, key := range []string{"timestamp", "trace_id", "correlation_id", "error_uri"} {
				if body[key] == nil {
					t.Errorf("the body lacks %s", key)
				}
			}
			if strings.Contains(text, secret) {
				t.Error("the error shows the secret")
			}
		})
	}
}

func TestSecretLife(t *testing.T) {
	f := setUp(t, nil)
	form := bySecret("client_secret", "soon")
	if status, body := f.ask(t, f.endpoint(), form); status != 200 {
		t.Fatalf("before its end: %d %v", status, body)
	}
	f.clock.Advance(time.Hour)
	if status, body := f.ask(t, f.endpoint(), form); status != 401 || body["error"] != "invalid_client" {
		t.Errorf("after its end: %d %v", status, body["error"])
	}
	f.RemoveApplication(strings.ToUpper(clientID))
	if status, body := f.ask(t, f.endpoint(), bySecret()); status != 400 || body["error"] != "unauthorized_client" {
		t.Errorf("after removal: %d %v", status, body["error"])
	}
}

// jwt builds an assertion by hand.
type jwt struct {
	head, claims map[string]any
	key          *rsa.PrivateKey
}

func (f *fixture) assertion(alg string) *jwt {
	j := &jwt{head: map[string]any{"typ": "JWT", "alg": alg}, key: f.key, claims: map[string]any{
		"aud": f.endpoint(), "iss": clientID, "sub": clientID, "jti": rand.Text(),
		"nbf": start.Unix(), "exp": start.Add(10 * time.Minute).Unix(),
	}}
	if alg == "PS256" {
		sum := sha256.Sum256(f.cert.Raw)
		j.head["x5t#S256"] = base64.RawURLEncoding.EncodeToString(sum[:])
	} else {
		sum := sha1.Sum(f.cert.Raw)
		j.head["x5t"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return j
}

func (j *jwt) sign(t *testing.T) string {
	t.Helper()
	enc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	in := enc(j.head) + "." + enc(j.claims)
	digest := sha256.Sum256([]byte(in))
	var sig []byte
	var err error
	if j.head["alg"] == "PS256" {
		sig, err = rsa.SignPSS(rand.Reader, j.key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		sig, err = rsa.SignPKCS1v15(rand.Reader, j.key, crypto.SHA256, digest[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return in + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func byAssertion(assertion string) url.Values {
	return bySecret("client_secret", "", "client_assertion", assertion, "client_assertion_type", assertionType)
}

func TestAssertions(t *testing.T) {
	f := setUp(t, nil)
	if err := f.AddAuthority("https://localhost:5446/" + tenantID); err != nil {
		t.Fatal(err)
	}
	set := func(claim string, v any) func(*jwt) { return func(j *jwt) { j.claims[claim] = v } }
	tests := []struct {
		name   string
		alg    string
		change func(*jwt)
		number float64 // 0: issued
	}{
		{"PS256", "PS256", nil, 0},
		{"RS256", "RS256", nil, 0},
		{"other address", "PS256", set("aud", "https://localhost:5446/"+tenantID+"/oauth2/v2.0/token"), 0},
		{"audience in a list", "PS256", set("aud", []string{f.endpoint()}), 0},
		{"other host", "PS256", set("aud", "https://evil.example/"+tenantID+"/oauth2/v2.0/token"), 50012},
		{"issuer as audience", "PS256", set("aud", f.server.URL+"/"+tenantID+"/v2.0"), 50012},
		{"other key", "PS256", func(j *jwt) { j.key = testKeys()[1] }, 700027},
		{"unknown thumbprint", "RS256", func(j *jwt) { j.head["x5t"] = "AAAA" }, 700027},
		{"no thumbprint", "RS256", func(j *jwt) { delete(j.head, "x5t") }, 50012},
		{"algorithm none", "RS256", func(j *jwt) { j.head["alg"] = "none" }, 50012},
		{"expired", "PS256", set("exp", start.Add(-6*time.Minute).Unix()), 50013},
		{"no end", "PS256", func(j *jwt) { delete(j.claims, "exp") }, 50013},
		{"endless", "PS256", set("exp", start.AddDate(10, 0, 0).Unix()), 50013},
		{"not yet valid", "PS256", set("nbf", start.Add(6*time.Minute).Unix()), 50013},
		{"small skew", "PS256", set("nbf", start.Add(4*time.Minute).Unix()), 0},
		{"other issuer", "PS256", set("iss", tenantID), 50012},
		{"other subject", "PS256", set("sub", tenantID), 50012},
		{"no id", "PS256", set("jti", ""), 50012},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := f.assertion(tt.alg)
			if tt.change != nil {
				tt.change(j)
			}
			status, body := f.ask(t, f.endpoint(), byAssertion(j.sign(t)))
			if tt.number == 0 {
				if status != 200 || body["access_token"] == nil {
					t.Errorf("got %d %v", status, body)
				}
				return
			}
			codes, _ := body["error_codes"].([]any)
			if status != 401 || len(codes) != 1 || codes[0] != tt.number {
				t.Errorf("got %d %v, want 401 %v", status, body, tt.number)
			}
		})
	}
	t.Run("replay", func(t *testing.T) {
		form := byAssertion(f.assertion("PS256").sign(t))
		if status, body := f.ask(t, f.endpoint(), form); status != 200 {
			t.Fatal(body)
		}
		if status, body := f.ask(t, f.endpoint(), form); status != 401 {
			t.Errorf("second use: %d %v", status, body)
		}
	})
}

func TestVerify(t *testing.T) {
	f, other := setUp(t, nil), setUp(t, nil)
	other.tenant = "99999999-aaaa-4bbb-8ccc-222222222222" // same key, another directory
	strange, err := New(Options{Tenant: tenantID, Resources: []string{resource}, Key: testKeys()[0], Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := strange.AddApplication(Application{ClientID: clientID, Secrets: []Secret{{Value: secret}}}); err != nil {
		t.Fatal(err)
	}
	token := func(s *Service) string {
		issued, refused := s.issue(s.application(clientID), resource, "1", "http://x", bent{})
		if refused != nil {
			t.Fatal(refused)
		}
		return issued.AccessToken
	}
	good := token(f.Service)
	head, rest, _ := strings.Cut(good, ".")
	claims, sig, _ := strings.Cut(rest, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"` + f.keyID + `"}`))
	tests := []struct {
		name, token, audience string
		want                  error
	}{
		{"good", good, resource, nil},
		{"any audience", good, "", nil},
		{"audience", good, "http://127.0.0.1:9", ErrAudience},
		{"tenant", token(other.Service), resource, ErrTenant},
		{"key", token(strange), resource, ErrSignature},
		{"changed claims", head + "." + claims[:len(claims)-2] + "." + sig, resource, ErrSignature},
		{"algorithm none", none + "." + claims + ".", resource, ErrSignature},
		{"garbage", "abc", resource, ErrSignature},
	}
	for _, tt := range tests {
		if _, err := f.Verify(tt.token, tt.audience); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	f.clock.Advance(DefaultLifetime)
	if _, err := f.Verify(good, resource); !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	f := setUp(t, nil)
	get := func(path string) (int, map[string]any) {
		resp, err := http.Get(f.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	_, doc := get("/" + tenantID + "/v2.0/.well-known/openid-configuration")
	if doc["token_endpoint"] != f.endpoint() || doc["issuer"] != f.server.URL+"/"+tenantID+"/v2.0" {
		t.Errorf("discovery %v", doc)
	}
	if _, doc := get("/example.com/v2.0/.well-known/openid-configuration"); doc["issuer"] != f.server.URL+"/"+tenantID+"/v2.0" {
		t.Errorf("by domain: issuer %v", doc["issuer"])
	}
	if status, doc := get("/other/v2.0/.well-known/openid-configuration"); status != 400 || doc["error"] != "invalid_tenant" {
		t.Errorf("unknown tenant: %d %v", status, doc)
	}
	jwks, _ := url.Parse(doc["jwks_uri"].(string))
	_, set := get(jwks.Path)
	key := set["keys"].([]any)[0].(map[string]any)
	n, err := base64.RawURLEncoding.DecodeString(key["n"].(string))
	if err != nil || new(big.Int).SetBytes(n).Cmp(testKeys()[1].N) != 0 || key["e"] != "AQAB" {
		t.Errorf("key set %v", set)
	}
	query := url.Values{"api-version": {"1.1"}, "authorization_endpoint": {f.server.URL + "/" + tenantID + "/oauth2/v2.0/authorize"}}
	if status, doc := get("/common/discovery/instance?" + query.Encode()); status != 200 || doc["tenant_discovery_endpoint"] != f.server.URL+"/"+tenantID+"/v2.0/.well-known/openid-configuration" {
		t.Errorf("instance: %d %v", status, doc)
	}
	query.Set("authorization_endpoint", "https://evil.example/x/oauth2/v2.0/authorize")
	if status, doc := get("/common/discovery/instance?" + query.Encode()); status != 400 || doc["error"] != "invalid_instance" {
		t.Errorf("strange instance: %d %v", status, doc)
	}
	if status, doc := get("/common/UserRealm/ada@example.com?api-version=1.0"); status != 200 || doc["account_type"] != "Managed" {
		t.Errorf("realm: %d %v", status, doc)
	}
	if status, doc := get("/" + tenantID + "/oauth2/v2.0/token"); status != 400 || doc["error"] != "invalid_request" {
		t.Errorf("GET of the token endpoint: %d %v", status, doc)
	}
}

func TestTokenExpireFault(t *testing.T) {
	tests := []struct {
		args    string
		status  int
		expires float64
		ends    time.Duration // of the token's exp from now
	}{
		{``, 200, 1, time.Second},
		{`{"lifetime":"90s"}`, 200, 90, 90 * time.Second},
		{`{"skew":"-10m"}`, 200, 3599, 3599*time.Second - 10*time.Minute},
		{`{"aadsts":7000222}`, 401, 0, 0},
		{`{"status":503}`, 503, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			faults := fault.New(1, clock.New())
			t.Cleanup(faults.Close)
			rule := fault.Fault{Twin: fault.Entra, Kind: "token-expire", Operation: "token", Count: 1, Args: json.RawMessage(tt.args)}
			if err := faults.Add(rule); err != nil {
				t.Fatal(err)
			}
			f := setUp(t, faults)
			status, body := f.ask(t, f.endpoint(), bySecret())
			if status != tt.status {
				t.Fatalf("status %d: %v", status, body)
			}
			if status == 200 {
				claims, err := f.Verify(body["access_token"].(string), resource)
				if err != nil || body["expires_in"] != tt.expires || !claims.Expires.Equal(start.Add(tt.ends)) {
					t.Errorf("got %v, %v, expires %v", err, body["expires_in"], claims.Expires)
				}
			}
			if status, body := f.ask(t, f.endpoint(), bySecret()); status != 200 || body["expires_in"] != 3599.0 {
				t.Errorf("after the fault: %d %v", status, body)
			}
		})
	}
}

func TestServedOverTLS(t *testing.T) {
	f := setUp(t, nil)
	ca, config, err := NewCA(f.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(f)
	server.TLS = config
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // one handshake fails on purpose
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("the authority's certificate is no PEM")
	}
	// The certificates follow the twins' clock, so the client has to as well.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Time: f.clock.Now}}}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		address := strings.Replace(server.URL, "127.0.0.1", host, 1)
		resp, err := client.Get(address + "/" + tenantID + "/v2.0/.well-known/openid-configuration")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), `"token_endpoint":"`+address+"/") {
			t.Errorf("%s: %v %s", host, err, body)
		}
	}
	strict := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Time: f.clock.Now}}}
	if resp, err := strict.Get(server.URL); err == nil {
		resp.Body.Close()
		t.Error("a client without the authority connected")
	}
}

func TestWeakCertificateIsRefused(t *testing.T) {
	f := setUp(t, nil)
	ca, config, err := NewCA(start)
	if err != nil || len(ca) == 0 {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := f.AddApplication(Application{ClientID: clientID, Certificates: []*x509.Certificate{leaf}}); err == nil {
		t.Error("a certificate with an ECDSA key was taken")
	}
}
