// Package api is the HTTP API of Lockstep, for automation: JSON under /api/v1 with
// API tokens, described by the OpenAPI 3.1 document at /api/openapi.json.
//
// Collections answer {"items": […], "next": "…"}; next is absent on the last page
// and is given back as the query parameter cursor. Times are RFC 3339 in UTC. What
// is not a success is problem details (RFC 9457). Members and query parameters that
// an operation does not know are refused.
//
// Nothing here logs a request: query strings and bodies may hold addresses.
package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const base = "/api/v1"

// MaxBody is the largest request body, in bytes.
const MaxBody = 1 << 20

// Options say how the API presents itself.
type Options struct {
	// Version is that of the product, for the OpenAPI document; "dev" when empty.
	Version string
}

type server struct {
	app *app.App
	api huma.API
	mux *http.ServeMux
}

// New returns the API. It answers everything under /api/.
func New(a *app.App, o Options) http.Handler {
	s := &server{app: a, mux: http.NewServeMux()}
	cfg := huma.DefaultConfig("Lockstep", cmpOr(o.Version, "dev"))
	cfg.Info.Description = "Keeps Microsoft Dynamics and an email marketing platform in step: marketing lists, mappings, runs with every change they made, conflicts."
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "/api/openapi", "", "", nil
	cfg.RejectUnknownQueryParameters = true
	cfg.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token. Its scopes are read and write."},
	}
	registry := huma.NewMapRegistry("#/components/schemas/", schemaName)
	cfg.Components.Schemas = registry
	for original, shown := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[lockstep.Value]():       reflect.TypeFor[value](),
		reflect.TypeFor[lockstep.ID]():          reflect.TypeFor[recordID](),
		reflect.TypeFor[lockstep.ChangeKind]():  reflect.TypeFor[changeKind](),
		reflect.TypeFor[lockstep.ChangeState](): reflect.TypeFor[changeState](),
	} {
		registry.RegisterTypeAlias(original, shown)
	}
	s.api = humago.New(s.mux, cfg)
	s.api.UseMiddleware(s.checkScope)
	s.connections()
	s.schema()
	s.webhooks()
	s.lists()
	s.schedules()
	s.budgets()
	s.settings()
	s.configuration()
	s.mappings()
	s.runs()
	s.conflicts()
	s.explain()
	s.consent()
	s.mux.HandleFunc("/api/", s.elsewhere)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares the same way
				panic(v)
			}
			write(w, problem(context.Background(), s.app.Report, fmt.Errorf("panic: %v", v)))
		}
	}()
	if !strings.HasPrefix(r.URL.Path, base+"/") {
		s.mux.ServeHTTP(w, r)
		return
	}
	token, err := authenticate(s.app, r)
	if err != nil {
		write(w, huma.ErrorWithHeaders(problem(r.Context(), s.app.Report, err), http.Header{"Www-Authenticate": {`Bearer realm="Lockstep"`}}))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	inner := r.WithContext(context.WithValue(r.Context(), tokenKey{}, token))
	s.mux.ServeHTTP(w, inner)
	r.Pattern = inner.Pattern // for the access log around us
}

type tokenKey struct{}

// Metrics serves what is counted, to holders of a token that may read.
func Metrics(a *app.App) http.Handler {
	metrics := a.Metrics()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := authenticate(a, r)
		switch {
		case err != nil:
			write(w, huma.ErrorWithHeaders(problem(r.Context(), a.Report, err), http.Header{"Www-Authenticate": {`Bearer realm="Lockstep"`}}))
		case !slices.Contains(token.Scopes, app.ScopeRead):
			write(w, newProblem(http.StatusForbidden, lockstep.CodeForbidden, "the token does not allow this", "use a token with the scope "+app.ScopeRead))
		default:
			metrics.ServeHTTP(w, r)
		}
	})
}

func authenticate(a *app.App, r *http.Request) (app.Token, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return app.Token{}, &lockstep.Error{Code: lockstep.CodeUnauthorized, Msg: "an API token is needed", Hint: "send it as \"Authorization: Bearer …\""}
	}
	return a.CheckToken(r.Context(), strings.TrimSpace(token))
}

// checkScope refuses operations that the caller's token does not allow.
func (s *server) checkScope(ctx huma.Context, next func(huma.Context)) {
	need, _ := ctx.Operation().Metadata["scope"].(string)
	token, _ := ctx.Context().Value(tokenKey{}).(app.Token)
	if !slices.Contains(token.Scopes, need) {
		p := newProblem(http.StatusForbidden, lockstep.CodeForbidden, "the token does not allow this", "use a token with the scope "+need)
		_, w := humago.Unwrap(ctx)
		write(w, p)
		return
	}
	next(ctx)
}

// caller says who acts, for the audit.
func caller(ctx context.Context) string {
	token, _ := ctx.Value(tokenKey{}).(app.Token)
	return "token " + token.Name
}

// responsible is who a person says is responsible, with the token that was used.
func responsible(ctx context.Context, by string) string {
	if by = strings.TrimSpace(by); by == "" {
		return caller(ctx)
	}
	return by + " (" + caller(ctx) + ")"
}

// later are resources that are planned and not in this version.
var later = []string{"timeline", "campaigns", "sends"}

// elsewhere answers for every path and method that no operation has.
func (s *server) elsewhere(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(probe); pattern != "/api/" {
			allowed = append(allowed, m)
		}
	}
	resource := strings.Split(strings.TrimPrefix(r.URL.Path, base+"/"), "/")
	switch {
	case len(allowed) > 0:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		write(w, newProblem(http.StatusMethodNotAllowed, lockstep.CodeUnsupported, "the resource has no such method", "use "+strings.Join(allowed, " or ")))
	case slices.Contains(later, resource[0]):
		write(w, newProblem(http.StatusNotImplemented, lockstep.CodeUnsupported, "this is not in this version", ""))
	default:
		write(w, newProblem(http.StatusNotFound, lockstep.CodeNotFound, "there is nothing at this path", "see /api/openapi.json"))
	}
}

// operation describes one call. extra are statuses beyond those that any call can
// answer.
func operation(id, method, path, tag, summary string, extra ...int) huma.Operation {
	scope := app.ScopeWrite
	if method == http.MethodGet {
		scope = app.ScopeRead
	}
	return huma.Operation{
		OperationID: id, Method: method, Path: base + path, Summary: summary, Tags: []string{tag}, MaxBodyBytes: MaxBody,
		Security: []map[string][]string{{"token": {}}}, Metadata: map[string]any{"scope": scope},
		Errors: append([]int{
			http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests,
			http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable,
		}, extra...),
	}
}

// withBody are the statuses that an operation with a body adds.
var withBody = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusConflict, http.StatusRequestTimeout}

// handle registers an operation whose errors are the product's.
func handle[I, O any](s *server, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, problem(ctx, s.app.Report, err)
		}
		return out, nil
	})
}

// page is the body of every collection.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Give it back as cursor for the next page; absent on the last."`
}

type pageOut[T any] struct{ Body page[T] }

func newPage[T any](items []T, next string) *pageOut[T] {
	if items == nil {
		items = []T{}
	}
	return &pageOut[T]{page[T]{items, next}}
}

// cut makes a page of up to limit from limit+1 items that were asked for.
func cut[T any](items []T, limit int, id func(T) string) *pageOut[T] {
	if len(items) <= limit {
		return newPage(items, "")
	}
	return newPage(items[:limit], id(items[limit-1]))
}

// Paging is what collections that have pages take.
type Paging struct {
	Cursor string `query:"cursor" maxLength:"80" doc:"next of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"The most items of a page."`
}

type oneOut[T any] struct{ Body T }

func one[T any](v T, err error) (*oneOut[T], error) { return &oneOut[T]{v}, err }

// InAccount chooses an email account in a query.
type InAccount struct {
	Account string `query:"account" maxLength:"200" doc:"Id or name of the email account; without it, all."`
}

// accounts returns the email account that was named, or all.
func (s *server) accounts(ctx context.Context, which string) ([]lockstep.EmailAccount, error) {
	if which == "" {
		return s.app.Accounts(ctx)
	}
	acc, err := s.app.Account(ctx, which)
	return []lockstep.EmailAccount{acc}, err
}

// ofAccounts joins what several accounts have.
func ofAccounts[T any](ctx context.Context, s *server, which string, get func(context.Context, string) ([]T, error)) (*pageOut[T], error) {
	accounts, err := s.accounts(ctx, which)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, acc := range accounts {
		some, err := get(ctx, acc.ID)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return newPage(all, ""), nil
}

// The schemas of values that write themselves as JSON.
type (
	value       struct{}
	recordID    struct{}
	changeKind  struct{}
	changeState struct{}
)

// Schema describes a field's value.
func (value) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		OneOf:       []*huma.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}, {Type: "null"}},
		Description: "A field's value. Days are YYYY-MM-DD, instants RFC 3339 in UTC, several options numbers joined by commas; null is empty, or was not known.",
	}
}

// Schema describes the id of a CRM record.
func (recordID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Format: "uuid", Description: "The id of a CRM record."}
}

// Schema names the kinds of change.
func (changeKind) Schema(huma.Registry) *huma.Schema {
	return names(func(i uint8) string { return lockstep.ChangeKind(i).String() })
}

// Schema names the states of a change.
func (changeState) Schema(huma.Registry) *huma.Schema {
	return names(func(i uint8) string { return lockstep.ChangeState(i).String() })
}

func names(name func(uint8) string) *huma.Schema {
	s := &huma.Schema{Type: "string"}
	for i := uint8(1); name(i) != "invalid"; i++ {
		s.Enum = append(s.Enum, name(i))
	}
	return s
}
