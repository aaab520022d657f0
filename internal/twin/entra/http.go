package entra

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// operation names a request for counters and fault rules.
func operation(r *http.Request) string {
	switch p := r.URL.Path; {
	case strings.HasSuffix(p, "/oauth2/v2.0/token"), strings.HasSuffix(p, "/oauth2/token"):
		return "token"
	case strings.HasSuffix(p, "/devicecode"):
		return "devicecode"
	case strings.HasSuffix(p, "/openid-configuration"), strings.HasSuffix(p, "/discovery/instance"):
		return "discovery"
	case strings.HasSuffix(p, "/keys"):
		return "keys"
	case strings.HasPrefix(strings.ToLower(p), "/common/userrealm/"):
		return "userrealm"
	}
	return "other"
}

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", s.token)
	mux.HandleFunc("/{tenant}/oauth2/v2.0/token", s.onlyPost)
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/devicecode", s.deviceCode)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.configuration)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.keys)
	mux.HandleFunc("GET /common/discovery/instance", s.instance)
	mux.HandleFunc("GET /common/UserRealm/{user}", s.userRealm)
	mux.HandleFunc("GET /common/userrealm/{user}", s.userRealm)
	for _, path := range []string{"/{tenant}/oauth2/token", "/{tenant}/oauth2/authorize", "/{tenant}/oauth2/v2.0/authorize", "/{tenant}/oauth2/v2.0/logout", "/{tenant}/adminconsent"} {
		mux.HandleFunc(path, s.notEmulated)
	}
	return mux
}

func (s *Service) notEmulated(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, &refusal{http.StatusNotImplemented, "server_error", 0, "This endpoint is not emulated."})
}

func (s *Service) onlyPost(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, &refusal{http.StatusBadRequest, "invalid_request", 900561, fmt.Sprintf("The endpoint only accepts POST requests. Received a %s request.", r.Method)})
}

// counted records every request in the counters.
func (s *Service) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := &countingBody{ReadCloser: r.Body}
		out := &countingWriter{ResponseWriter: w}
		r.Body = in
		status := "connection-lost"
		defer func() { s.stats.Call(operation(r), status, in.n, out.n) }()
		next.ServeHTTP(out, r)
		if out.status == 0 {
			out.status = http.StatusOK
		}
		status = strconv.Itoa(out.status)
	})
}

type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

type countingWriter struct {
	http.ResponseWriter
	n      int64
	status int
}

func (w *countingWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// base is the address that the client used.
func base(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// refusal is an OAuth error with its AADSTS number; 0 for none.
type refusal struct {
	status int
	code   string // OAuth's error
	number int
	text   string
}

func (e *refusal) Error() string { return fmt.Sprintf("AADSTS%d: %s", e.number, e.text) }

func (s *Service) refuse(w http.ResponseWriter, e *refusal) {
	now := s.clock.Now().Format("2006-01-02 15:04:05Z")
	trace, correlation := newID(), newID()
	body := map[string]any{
		"error":             e.code,
		"error_description": e.text,
		"timestamp":         now,
		"trace_id":          trace,
		"correlation_id":    correlation,
	}
	if e.number > 0 {
		body["error_description"] = fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", e.number, e.text, trace, correlation, now)
		body["error_codes"] = []int{e.number}
		body["error_uri"] = fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", e.number)
	}
	writeJSON(w, e.status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone; nobody to tell
}

func (s *Service) unknownTenant(segment string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_request", 90002, fmt.Sprintf("Tenant '%.80s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", segment)}
}

// configuration is the OpenID discovery document.
func (s *Service) configuration(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	issuerTenant := s.tenant
	switch {
	case strings.EqualFold(tenant, "common"), strings.EqualFold(tenant, "organizations"):
		issuerTenant = "{tenantid}"
	case !s.isTenant(tenant):
		e := s.unknownTenant(tenant)
		e.code = "invalid_tenant"
		s.refuse(w, e)
		return
	}
	root := base(r) + "/" + url.PathEscape(tenant)
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                base(r) + "/" + issuerTenant + "/v2.0",
		"token_endpoint":                        root + "/oauth2/v2.0/token",
		"authorization_endpoint":                root + "/oauth2/v2.0/authorize",
		"device_authorization_endpoint":         root + "/oauth2/v2.0/devicecode",
		"end_session_endpoint":                  root + "/oauth2/v2.0/logout",
		"jwks_uri":                              root + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"claims_supported":                      []string{"aud", "iss", "sub", "iat", "exp", "nbf", "tid", "oid", "appid", "azp"},
		"tenant_region_scope":                   nil,
		"cloud_instance_name":                   r.Host,
	})
}

// instance answers which authorities belong together: here, only this one.
func (s *Service) instance(w http.ResponseWriter, r *http.Request) {
	u, err := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	known := err == nil && strings.EqualFold(u.Host, r.Host)
	if err == nil && !known {
		s.mu.Lock()
		known = s.bases[u.Scheme+"://"+strings.ToLower(u.Host)]
		s.mu.Unlock()
	}
	if !known {
		s.refuse(w, &refusal{http.StatusBadRequest, "invalid_instance", 50049, "Unknown or invalid instance."})
		return
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": base(r) + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []map[string]any{{
			"preferred_network": r.Host, "preferred_cache": r.Host, "aliases": []string{r.Host},
		}},
	})
}

// userRealm tells whether a user's domain signs in here or at a federation.
func (s *Service) userRealm(w http.ResponseWriter, r *http.Request) {
	_, domain, ok := strings.Cut(r.PathValue("user"), "@")
	kind := "Unknown"
	if ok && s.isTenant(domain) {
		kind = "Managed"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"ver": "1.0", "account_type": kind, "domain_name": domain,
		"cloud_instance_name": r.Host, "cloud_audience_urn": "urn:federation:MicrosoftOnline",
	})
}

// deviceCode refuses: no application here allows public client flows.
func (s *Service) deviceCode(w http.ResponseWriter, r *http.Request) {
	if tenant := r.PathValue("tenant"); !s.isTenant(tenant) {
		s.refuse(w, s.unknownTenant(tenant))
		return
	}
	s.refuse(w, missingCredential())
}
