// Package entra is a local stand-in for Microsoft Entra ID as far as a service
// that calls Dataverse needs it: the client credentials grant of the version 2.0
// token endpoint, by secret and by certificate, with the discovery documents
// that Microsoft's own libraries ask for.
//
// One Service holds one directory (tenant). It is an http.Handler that may be
// served over several addresses and over both http and TLS at once; documents
// and tokens name the address of the request. Secrets, assertions and tokens are
// never written anywhere but into the answer that they belong to.
//
// Interactive grants (authorization code, refresh token, password, on behalf of)
// and the version 1.0 token endpoint answer 501; the device code flow is refused
// as for an application that allows no public client flows.
//
// Readings chosen where Microsoft's documentation is silent: an assertion must
// have a jti, which is taken once, and must end within 24 hours; an assertion
// outside of its time is AADSTS50013; one with a wrong audience, issuer or
// subject, a used jti or a broken form is AADSTS50012; an unknown certificate or
// a bad signature is AADSTS700027; all of these answer 401 invalid_client. A
// resource is found with and without trailing slash, and the audience claim
// repeats it as requested. Five minutes of clock skew are allowed.
package entra

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

// DefaultLifetime is how long a token lives.
const DefaultLifetime = 3599 * time.Second

const (
	skew             = 5 * time.Minute
	maxAssertionLife = 24 * time.Hour
	maxBody          = 1 << 20
)

// Options configure a Service.
type Options struct {
	// Tenant is the directory's GUID. Required.
	Tenant string
	// Domains are verified domain names that may stand for the tenant in URLs.
	Domains []string
	// Resources are the URIs for which tokens are issued, such as
	// "http://127.0.0.1:5081". AddResource adds more.
	Resources []string
	// Lifetime of a token on the twins' clock; 0 means DefaultLifetime.
	Lifetime time.Duration
	// Key signs the tokens; nil generates one of 2048 bits.
	Key *rsa.PrivateKey

	Clock  *clock.Clock   // nil: a new one
	Stats  *stats.Counter // nil: a private one
	Faults fault.Injector // nil: none
}

// Application is a registered confidential client.
type Application struct {
	// ClientID is the application's GUID.
	ClientID string
	// ObjectID is the GUID of its service principal, the oid of its tokens;
	// empty derives one from the client id.
	ObjectID     string
	Secrets      []Secret
	Certificates []*x509.Certificate
}

// Secret is one client secret. A zero Expires never expires.
type Secret struct {
	Value   string
	Expires time.Time
}

// Service issues and verifies tokens. Safe for concurrent use.
type Service struct {
	tenant   string
	domains  []string
	lifetime time.Duration
	key      *rsa.PrivateKey
	keyID    string
	clock    *clock.Clock
	stats    *stats.Counter
	faults   fault.Injector
	handler  http.Handler

	mu        sync.Mutex
	apps      map[string]*application // by lower-case client id
	resources map[string]bool         // normalised
	bases     map[string]bool         // scheme://host of further authorities
	used      map[string]time.Time    // client id and jti of assertions, until their end
	verified  map[[32]byte]Claims     // tokens whose signature was checked
}

type application struct {
	clientID, objectID string
	secrets            []storedSecret
	certificates       []*x509.Certificate
}

// storedSecret keeps a digest, so that a dump of the process shows no secret.
type storedSecret struct {
	sum     [32]byte
	expires time.Time
}

// New returns a service without applications.
func New(o Options) (*Service, error) {
	if o.Tenant == "" {
		return nil, errors.New("entra: the tenant's id is missing")
	}
	if o.Key == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("entra: generate the signing key: %w", err)
		}
		o.Key = key
	}
	if o.Clock == nil {
		o.Clock = clock.New()
	}
	if o.Stats == nil {
		o.Stats = stats.New()
	}
	if o.Faults == nil {
		o.Faults = fault.None{}
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&o.Key.PublicKey))
	s := &Service{
		tenant: strings.ToLower(o.Tenant), domains: o.Domains, lifetime: o.Lifetime,
		key: o.Key, keyID: base64.RawURLEncoding.EncodeToString(sum[:20]),
		clock: o.Clock, stats: o.Stats, faults: o.Faults,
		apps: map[string]*application{}, resources: map[string]bool{}, bases: map[string]bool{},
		used: map[string]time.Time{}, verified: map[[32]byte]Claims{},
	}
	for _, r := range o.Resources {
		s.AddResource(r)
	}
	s.handler = s.counted(s.faults.Middleware(fault.Entra, operation, s.routes()))
	return s, nil
}

// ServeHTTP serves the directory.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Tenant returns the directory's GUID in lower case.
func (s *Service) Tenant() string { return s.tenant }

// AddResource registers a URI for which tokens may be asked.
func (s *Service) AddResource(uri string) {
	s.mu.Lock()
	s.resources[normalResource(uri)] = true
	s.mu.Unlock()
}

// AddAuthority names a further address (scheme and host, a path is ignored)
// under which the service is reached, so that an assertion addressed to its
// token endpoint there is taken on any address.
func (s *Service) AddAuthority(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("entra: %q is no http or https address", rawURL)
	}
	s.mu.Lock()
	s.bases[u.Scheme+"://"+strings.ToLower(u.Host)] = true
	s.mu.Unlock()
	return nil
}

// AddApplication registers an application or replaces the one with its client
// id. Certificates must hold RSA keys of at least 2048 bits.
func (s *Service) AddApplication(a Application) error {
	if a.ClientID == "" {
		return errors.New("entra: the application has no client id")
	}
	app := &application{clientID: a.ClientID, objectID: a.ObjectID, certificates: a.Certificates}
	if app.objectID == "" {
		app.objectID = derivedID("service principal", s.tenant, strings.ToLower(a.ClientID))
	}
	for _, c := range a.Certificates {
		if key, ok := c.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() < 2048 {
			return fmt.Errorf("entra: a certificate of application %s has no RSA key of 2048 bits or more", a.ClientID)
		}
	}
	for _, secret := range a.Secrets {
		app.secrets = append(app.secrets, storedSecret{sha256.Sum256([]byte(secret.Value)), secret.Expires})
	}
	s.mu.Lock()
	s.apps[strings.ToLower(a.ClientID)] = app
	s.mu.Unlock()
	return nil
}

// RemoveApplication removes an application; its tokens stay valid until they
// expire, as in the real directory.
func (s *Service) RemoveApplication(clientID string) {
	s.mu.Lock()
	delete(s.apps, strings.ToLower(clientID))
	s.mu.Unlock()
}

func (s *Service) application(clientID string) *application {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apps[strings.ToLower(clientID)]
}

// isTenant reports whether a path segment names this directory.
func (s *Service) isTenant(segment string) bool {
	if strings.EqualFold(segment, s.tenant) {
		return true
	}
	for _, d := range s.domains {
		if strings.EqualFold(segment, d) {
			return true
		}
	}
	return false
}

// normalResource is the form in which resources are compared.
func normalResource(uri string) string {
	return strings.ToLower(strings.TrimRight(uri, "/"))
}

// derivedID makes a stable GUID of names.
func derivedID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return guid(sum[:16])
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail
	return guid(b[:])
}

func guid(b []byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// thumbprints returns the x5t and x5t#S256 of a certificate.
func thumbprints(c *x509.Certificate) (sha1Sum, sha256Sum string) {
	a, b := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(a[:]), base64.RawURLEncoding.EncodeToString(b[:])
}
