package entra

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// token serves the token endpoint.
func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	bend, faulted := s.bend()
	if faulted && bend.refusal != nil {
		s.refuse(w, bend.refusal)
		return
	}
	answer, refused := s.grant(r, bend)
	if refused != nil {
		s.refuse(w, refused)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// bent is what a token-expire fault does to one answer.
type bent struct {
	lifetime time.Duration
	skew     time.Duration
	refusal  *refusal
}

// bend asks for a token-expire fault on this call. Its args, all optional:
// "lifetime" of the token (a duration such as "5s"; one second unless given),
// "skew" of the issuer's clock (such as "-10m"), "aadsts" to refuse with that
// number (7000215 and 7000222 answer 401, others 400), "status" to fail with
// that HTTP status.
func (s *Service) bend() (bent, bool) {
	hit, ok := s.faults.Take(fault.Entra, "token-expire", "token")
	if !ok {
		return bent{}, false
	}
	var args struct {
		Lifetime, Skew string
		AADSTS, Status int
	}
	b := bent{lifetime: time.Second}
	if len(hit.Args) > 0 && json.Unmarshal(hit.Args, &args) != nil {
		return b, true
	}
	if d, err := time.ParseDuration(args.Skew); err == nil {
		b.skew, b.lifetime = d, 0
	}
	if d, err := time.ParseDuration(args.Lifetime); err == nil && d > 0 {
		b.lifetime = d
	}
	switch args.AADSTS {
	case 0:
		if args.Status >= 400 && args.Status < 600 {
			b.refusal = &refusal{args.Status, "temporarily_unavailable", 90033, "A transient error has occurred. Please try again."}
		}
	case 7000222:
		b.refusal = expiredSecret("")
	case 7000215:
		b.refusal = wrongSecret("")
	default:
		b.refusal = &refusal{http.StatusBadRequest, "invalid_client", args.AADSTS, "The request was refused by a fault rule."}
		if args.Status >= 400 && args.Status < 600 {
			b.refusal.status = args.Status
		}
	}
	return b, true
}

// issued is the successful answer.
type issued struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	ExtExpiresIn int    `json:"ext_expires_in"`
	AccessToken  string `json:"access_token"`
}

func missing(parameter string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request", 900144, fmt.Sprintf("The request body must contain the following parameter: '%s'.", parameter)}
}

func missingCredential() *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
}

func wrongSecret(clientID string) *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_client", 7000215, fmt.Sprintf("Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%.80s'.", clientID)}
}

func expiredSecret(clientID string) *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_client", 7000222, fmt.Sprintf("The provided client secret keys for app '%.80s' are expired. Create new keys for your app, or consider using certificate credentials for added security.", clientID)}
}

func malformed() *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request", 9002313, "Invalid request. Request is malformed or invalid."}
}

// grant checks a token request and issues the token.
func (s *Service) grant(r *http.Request, b bent) (*issued, *refusal) {
	form, refused := readForm(r)
	if refused != nil {
		return nil, refused
	}
	grantType := form.Get("grant_type")
	if grantType == "" {
		return nil, missing("grant_type")
	}
	tenant := r.PathValue("tenant")
	if strings.EqualFold(tenant, "common") || strings.EqualFold(tenant, "organizations") {
		return nil, &refusal{http.StatusBadRequest, "invalid_request", 50059, "No tenant-identifying information found in either the request or implied by any provided credentials."}
	}
	if !s.isTenant(tenant) {
		return nil, s.unknownTenant(tenant)
	}
	clientID, secret, basic := r.BasicAuth()
	if basic {
		// OAuth encodes both parts as form values before it builds the header.
		var err1, err2 error
		clientID, err1 = url.QueryUnescape(clientID)
		secret, err2 = url.QueryUnescape(secret)
		if id := form.Get("client_id"); err1 != nil || err2 != nil || form.Get("client_secret") != "" || id != "" && id != clientID {
			return nil, malformed()
		}
	} else {
		clientID, secret = form.Get("client_id"), form.Get("client_secret")
	}
	if clientID == "" {
		return nil, missing("client_id")
	}
	app := s.application(clientID)
	if app == nil {
		return nil, &refusal{http.StatusBadRequest, "unauthorized_client", 700016, fmt.Sprintf("Application with identifier '%.80s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.", clientID, tenant)}
	}
	switch grantType {
	case "client_credentials":
	case "device_code", "urn:ietf:params:oauth:grant-type:device_code":
		if form.Get("device_code") == "" {
			return nil, missing("device_code")
		}
		return nil, missingCredential()
	case "authorization_code", "refresh_token", "password", "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:saml2-bearer":
		return nil, &refusal{http.StatusNotImplemented, "unsupported_grant_type", 0, fmt.Sprintf("The grant type '%s' is not emulated.", grantType)}
	default:
		return nil, &refusal{http.StatusBadRequest, "unsupported_grant_type", 70003, fmt.Sprintf("The app requested an unsupported grant type '%.80s'.", grantType)}
	}
	resource, refused := s.resource(form.Get("scope"))
	if refused != nil {
		return nil, refused
	}
	acr := "1"
	assertion := form.Get("client_assertion")
	switch {
	case assertion != "" && secret != "":
		return nil, malformed()
	case assertion != "":
		if form.Get("client_assertion_type") != assertionType {
			return nil, &refusal{http.StatusBadRequest, "invalid_request", 50012, "The parameter 'client_assertion_type' must be '" + assertionType + "'."}
		}
		if refused := s.checkAssertion(app, assertion, r); refused != nil {
			return nil, refused
		}
		acr = "2"
	case secret != "":
		if refused := s.checkSecret(app, secret); refused != nil {
			return nil, refused
		}
	default:
		return nil, missingCredential()
	}
	return s.issue(app, resource, acr, base(r), b)
}

// readForm takes the parameters from the body alone, so that no secret belongs
// into a URL, and each at most once.
func readForm(r *http.Request) (url.Values, *refusal) {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return nil, missing("grant_type")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody {
		return nil, malformed()
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, malformed()
	}
	for _, values := range form {
		if len(values) > 1 {
			return nil, malformed()
		}
	}
	return form, nil
}

// resource reads the scope: one "<resource>/.default"; the OpenID scopes that
// Microsoft's libraries add are ignored.
func (s *Service) resource(scope string) (string, *refusal) {
	if strings.TrimSpace(scope) == "" {
		return "", missing("scope")
	}
	resource := ""
	for part := range strings.FieldsSeq(scope) {
		switch part {
		case "openid", "profile", "offline_access", "email":
			continue
		}
		name, ok := strings.CutSuffix(part, "/.default")
		if !ok || name == "" || resource != "" {
			return "", &refusal{http.StatusBadRequest, "invalid_scope", 70011, fmt.Sprintf("The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope %.200s is not valid.", scope)}
		}
		resource = name
	}
	if resource == "" {
		return "", &refusal{http.StatusBadRequest, "invalid_scope", 70011, fmt.Sprintf("The provided value for the input parameter 'scope' is not valid. The scope %.200s is not valid.", scope)}
	}
	s.mu.Lock()
	known := s.resources[normalResource(resource)]
	s.mu.Unlock()
	if !known {
		return "", &refusal{http.StatusBadRequest, "invalid_resource", 500011, fmt.Sprintf("The resource principal named %.200s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", resource, s.tenant)}
	}
	return resource, nil
}

func (s *Service) checkSecret(app *application, secret string) *refusal {
	sum := sha256.Sum256([]byte(secret))
	now := s.clock.Now()
	expired := false
	for i := range app.secrets {
		if subtle.ConstantTimeCompare(app.secrets[i].sum[:], sum[:]) != 1 {
			continue
		}
		if end := app.secrets[i].expires; end.IsZero() || now.Before(end) {
			return nil
		}
		expired = true
	}
	if expired {
		return expiredSecret(app.clientID)
	}
	return wrongSecret(app.clientID)
}

func badAssertion(number int, text string) *refusal {
	return &refusal{http.StatusUnauthorized, "invalid_client", number, text}
}

// audience is a JWT aud claim: one text or a list.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// checkAssertion verifies a client assertion signed with a registered
// certificate.
func (s *Service) checkAssertion(app *application, token string, r *http.Request) *refusal {
	var head struct {
		Alg  string `json:"alg"`
		SHA1 string `json:"x5t"`
		SHA2 string `json:"x5t#S256"`
	}
	var claims struct {
		Audience  audience `json:"aud"`
		Issuer    string   `json:"iss"`
		Subject   string   `json:"sub"`
		ID        string   `json:"jti"`
		NotBefore *float64 `json:"nbf"`
		Expires   *float64 `json:"exp"`
	}
	signed, signature, err := splitJWT(token, &head, &claims)
	if err != nil || head.Alg != "PS256" && head.Alg != "RS256" || head.SHA1 == "" && head.SHA2 == "" {
		return badAssertion(50012, "Authentication failed: the client assertion is not a JWT signed with PS256 or RS256 that names its certificate.")
	}
	var key *rsa.PublicKey
	var end time.Time
	for _, c := range app.certificates {
		x5t, x5t256 := thumbprints(c)
		if (head.SHA2 == "" || head.SHA2 == x5t256) && (head.SHA1 == "" || head.SHA1 == x5t) {
			key, end = c.PublicKey.(*rsa.PublicKey), c.NotAfter
		}
	}
	if key == nil {
		return badAssertion(700027, "The certificate with identifier used to sign the client assertion is not registered on application.")
	}
	digest := sha256.Sum256([]byte(signed))
	if head.Alg == "PS256" {
		err = rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature)
	}
	if err != nil {
		return badAssertion(700027, "Client assertion failed signature validation.")
	}
	now := s.clock.Now()
	switch {
	case !now.Before(end):
		return expiredSecret(app.clientID)
	case claims.Expires == nil || *claims.Expires > 1<<40 || !now.Before(unix(*claims.Expires).Add(skew)),
		claims.NotBefore != nil && unix(*claims.NotBefore).After(now.Add(skew)),
		unix(*claims.Expires).After(now.Add(maxAssertionLife)):
		return badAssertion(50013, "Assertion is not within its valid time range. Review the clock of the client and the claims nbf and exp.")
	case !strings.EqualFold(claims.Issuer, app.clientID) || !strings.EqualFold(claims.Subject, app.clientID):
		return badAssertion(50012, "Authentication failed: the claims iss and sub of the client assertion must both be the client id.")
	case !slices.ContainsFunc(claims.Audience, func(a string) bool { return s.isTokenEndpoint(a, r) }):
		return badAssertion(50012, "Authentication failed: the claim aud of the client assertion is not the token endpoint.")
	case claims.ID == "" || len(claims.ID) > 256:
		return badAssertion(50012, "Authentication failed: the client assertion has no usable jti claim.")
	case !s.takeID(strings.ToLower(app.clientID)+" "+claims.ID, unix(*claims.Expires).Add(skew), now):
		return badAssertion(50012, "Authentication failed: the client assertion has been used before.")
	}
	return nil
}

func unix(seconds float64) time.Time { return time.Unix(int64(seconds), 0) }

// isTokenEndpoint reports whether a URL is the token endpoint of this tenant at
// an address under which the service is reached.
func (s *Service) isTokenEndpoint(text string, r *http.Request) bool {
	u, err := url.Parse(text)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return false
	}
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !s.isTenant(tenant) || rest != "oauth2/v2.0/token" {
		return false
	}
	at := u.Scheme + "://" + strings.ToLower(u.Host)
	s.mu.Lock()
	defer s.mu.Unlock()
	return at == strings.ToLower(base(r)) || s.bases[at]
}

// takeID remembers an assertion's id until the assertion ends and reports
// whether it was new.
func (s *Service) takeID(id string, end, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, seen := s.used[id]; seen && now.Before(until) {
		return false
	}
	if len(s.used) >= 1024 && len(s.used)&(len(s.used)-1) == 0 {
		for k, until := range s.used {
			if !now.Before(until) {
				delete(s.used, k)
			}
		}
	}
	s.used[id] = end
	return true
}

// issue signs an access token.
func (s *Service) issue(app *application, resource, acr, at string, b bent) (*issued, *refusal) {
	lifetime := s.lifetime
	if b.lifetime > 0 {
		lifetime = b.lifetime
	}
	now := s.clock.Now().Add(b.skew)
	head := map[string]string{"typ": "JWT", "alg": "RS256", "kid": s.keyID, "x5t": s.keyID}
	claims := map[string]any{
		"aud": resource, "iss": at + "/" + s.tenant + "/v2.0",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"appid": app.clientID, "azp": app.clientID, "appidacr": acr, "azpacr": acr, "idtyp": "app",
		"oid": app.objectID, "sub": app.objectID, "tid": s.tenant, "uti": newID(), "ver": "1.0",
	}
	signed := part(head) + "." + part(claims)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, &refusal{http.StatusInternalServerError, "server_error", 90033, "The token could not be signed."}
	}
	seconds := int(lifetime / time.Second)
	return &issued{"Bearer", seconds, seconds, signed + "." + base64.RawURLEncoding.EncodeToString(signature)}, nil
}

func part(v any) string {
	b, _ := json.Marshal(v) // maps of strings and numbers
	return base64.RawURLEncoding.EncodeToString(b)
}

var errJWT = errors.New("not a JWT")

// splitJWT decodes the parts of a compact JWT.
func splitJWT(token string, head, claims any) (signed string, signature []byte, err error) {
	if len(token) > 64<<10 {
		return "", nil, errJWT
	}
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 || strings.Count(token, ".") != 2 {
		return "", nil, errJWT
	}
	signed = token[:dot]
	h, c, _ := strings.Cut(signed, ".")
	for _, p := range []struct {
		text string
		to   any
	}{{h, head}, {c, claims}} {
		b, err := base64.RawURLEncoding.DecodeString(p.text)
		if err != nil || json.Unmarshal(b, p.to) != nil {
			return "", nil, errJWT
		}
	}
	signature, err = base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		return "", nil, errJWT
	}
	return signed, signature, nil
}
