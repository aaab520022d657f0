package dataverse

import (
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

// Profile says which kind of environment the twin is.
type Profile string

// The profiles.
const (
	// Online is an online environment with the Sales app and a customer's own table.
	Online Profile = "online-9.2"
	// Bare is a plain Power Apps environment: no leads, lists or campaigns.
	Bare Profile = "bare-dataverse"
)

// Options configure a twin. Clock and Tokens are required.
type Options struct {
	Clock  *clock.Clock
	Faults fault.Injector // nil: none
	Stats  *stats.Counter // nil: a private one
	Tokens TokenVerifier
	// BaseURL is scheme and host without a trailing slash; set it later with
	// SetBaseURL when the port is not known yet.
	BaseURL string
	// Authority is the URL that the 401 answer names, without the trailing
	// /oauth2/authorize, such as http://127.0.0.1:5082/<tenant>.
	Authority string
	// TenantID is the directory whose tokens are accepted; empty accepts any.
	TenantID string
	Profile  Profile // empty: Online
	// OrganizationName is the friendly name; UniqueName and URLName as discovery
	// tells them.
	OrganizationName, UniqueName, URLName string
	// Seed makes generated ids differ between organizations.
	Seed string
	// Limits of service protection; the zero value enforces none.
	Limits Limits
}

// organizationVersion is what RetrieveVersion answers.
const organizationVersion = "9.2.24112.00183"

// maxBody bounds a request body, as the service does at the gateway.
const maxBody = 128 << 20

// maxURL is the longest URL of a plain request; inside of a batch it is maxBatchURL.
const (
	maxURL      = 32 << 10
	maxBatchURL = 64 << 10
)

// Server is one Dataverse organization. Safe for concurrent use.
type Server struct {
	opt    Options
	clock  *clock.Clock
	faults fault.Injector
	stats  *stats.Counter
	store  *store.Store
	limits *limiter

	sch      atomic.Pointer[published]
	schemaMu sync.Mutex

	base atomic.Pointer[string]
	ids  atomic.Uint64

	maxPage atomic.Int64 // see SetMaxPage

	floor atomic.Int64 // oldest delta token that is still honoured

	memberMu   sync.Mutex
	memberSets []*memberSet // newest last

	privMu    sync.Mutex
	privCache map[value.ID]privileges
	privAt    int64

	org org

	hooks *webhooks

	historyMu sync.Mutex
	observers []func(Write)
}

// org holds the ids of the rows every organization begins with.
type org struct {
	id, rootUnit, currency, system, admin value.ID
}

// New returns an organization with its system rows and no business data.
func New(opt Options) *Server {
	if opt.Faults == nil {
		opt.Faults = fault.None{}
	}
	if opt.Stats == nil {
		opt.Stats = stats.New()
	}
	if opt.Profile == "" {
		opt.Profile = Online
	}
	if opt.OrganizationName == "" {
		opt.OrganizationName = "Contoso"
	}
	if opt.UniqueName == "" {
		opt.UniqueName = "unqcontoso"
	}
	if opt.URLName == "" {
		opt.URLName = "contoso"
	}
	s := &Server{
		opt: opt, clock: opt.Clock, faults: opt.Faults, stats: opt.Stats,
		store: store.New(1_000_000), limits: newLimiter(opt.Limits), privCache: map[value.ID]privileges{},
	}
	s.hooks = newWebhooks(s)
	s.SetBaseURL(opt.BaseURL)
	full := opt.Profile == Online
	s.sch.Store(publish(schema.Standard(schema.Apps{Sales: full, Subscriptions: full})))
	for _, t := range s.sch.Load().Tables() {
		s.addStorage(t)
	}
	s.seed()
	s.store.Observe(s.record)
	return s
}

// addStorage makes room for a table's rows and indexes what the service indexes:
// every lookup, the address columns and active keys.
func (s *Server) addStorage(t *schema.Table) {
	s.store.AddTable(t.Name)
	for _, c := range t.Columns() {
		if indexed(t, c) {
			s.store.AddIndex(t.Name, columnIndex(c.Name), int(c.Ord))
		}
	}
}

// indexed names the columns with an index. Ownership and audit lookups have
// none: nearly all rows share their values.
func indexed(t *schema.Table, c *schema.Column) bool {
	switch c.Name {
	case "ownerid", "owninguser", "owningteam", "owningbusinessunit", "createdby", "createdonbehalfby",
		"modifiedby", "modifiedonbehalfby", "transactioncurrencyid", "preferredsystemuserid":
		return false
	case "emailaddress1", "applicationid", "azureactivedirectoryobjectid":
		return true
	case "systemuserid", "roleid", "privilegeid":
		return t.Intersect
	case "accountid", "parentcontactid", "contactid":
		return c.ForCreate // derived copies of the customer lookup are not searched
	}
	return c.Type.IsLookup()
}

// SetBaseURL tells the twin under which scheme and host it is reached.
func (s *Server) SetBaseURL(u string) {
	u = strings.TrimSuffix(u, "/")
	s.base.Store(&u)
}

// BaseURL is the scheme and host without a trailing slash.
func (s *Server) BaseURL() string { return *s.base.Load() }

// OrganizationID is the id of the organization.
func (s *Server) OrganizationID() string { return s.org.id.String() }

func (s *Server) newID() value.ID {
	n := s.ids.Add(1)
	return value.ID(schema.NameID("row", s.opt.Seed, strconv.FormatUint(n, 10)))
}

// call is one request, or one part of a batch.
type call struct {
	s       *Server
	sch     *published
	method  string
	header  http.Header
	path    []segment
	query   string // raw
	body    []byte
	user    *principal
	version string // of the path, such as "9.2"
	now     time.Time
	prefer  prefer
	op      string
	view    store.View
	tx      *store.Tx // inside of a change set
	refs    map[string]string
	poison  *poison
	depth   int // of nested writes
}

// answer is a finished response.
type answer struct {
	status int
	header http.Header
	body   []byte
	entity string // address of the created or changed row, for Content-ID references
	pooled bool   // body returns to pageBuffers once sent
}

// pageBuffers keeps the bodies of pages for the next ones.
var pageBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 256<<10); return &b }}

// maxPooled is the largest body kept.
const maxPooled = 64 << 20

func pageBuffer() []byte { return (*pageBuffers.Get().(*[]byte))[:0] }

// pageAnswer is a JSON answer whose body came from pageBuffer.
func pageAnswer(body []byte) *answer {
	a := jsonAnswer(http.StatusOK, body)
	a.pooled = true
	return a
}

func (a *answer) set(k, v string) *answer {
	if a.header == nil {
		a.header = http.Header{}
	}
	a.header[k] = []string{v}
	return a
}

func noContent() *answer { return &answer{status: http.StatusNoContent} }

func jsonAnswer(status int, body []byte) *answer {
	return (&answer{status: status, body: body}).set("Content-Type", "application/json; odata.metadata=minimal")
}

// Handler serves the Web API and the discovery service.
func (s *Server) Handler() http.Handler {
	inner := s.faults.Middleware("dataverse", operation, http.HandlerFunc(s.serve))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &countingReader{ReadCloser: r.Body}
		r.Body = body
		out := &countingWriter{ResponseWriter: w}
		done := false
		defer func() {
			status := strconv.Itoa(out.code())
			if !done { // a transport fault ended the connection
				status = "reset"
			}
			s.stats.Call(operation(r), status, body.n, out.n)
		}()
		inner.ServeHTTP(out, r)
		done = true
	})
}

type countingReader struct {
	io.ReadCloser
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}

type countingWriter struct {
	http.ResponseWriter
	status int
	n      int64
}

func (c *countingWriter) code() int {
	if c.status == 0 {
		return http.StatusOK
	}
	return c.status
}

func (c *countingWriter) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// apiPath cuts a request path into the API version and the resource path.
func apiPath(escaped string) (version, rest string, ok bool) {
	rest, ok = strings.CutPrefix(escaped, "/api/data/v")
	if !ok {
		return "", "", false
	}
	version, rest, _ = strings.Cut(rest, "/")
	switch version {
	case "8.2", "9.0", "9.1", "9.2":
		return version, rest, true
	}
	return "", "", false
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	escaped := r.URL.EscapedPath()
	if after, ok := strings.CutPrefix(escaped, "/api/discovery/v2.0/"); ok {
		s.send(w, r, s.discovery(r, after))
		return
	}
	version, rest, ok := apiPath(escaped)
	if !ok {
		if strings.HasPrefix(escaped, "/api/data/") {
			if user, refusal := s.authenticate(r); user == nil {
				s.send(w, r, refusal)
				return
			}
			s.send(w, r, s.refusal(fail(http.StatusNotFound, codeSegmentNotFound, "This API version is not served; v8.2, v9.0, v9.1 and v9.2 are."), false, nil))
			return
		}
		http.NotFound(w, r)
		return
	}
	s.send(w, r, s.handle(r, version, rest))
}

// handle authenticates, reads and answers one request.
func (s *Server) handle(r *http.Request, version, rest string) *answer {
	legacy := strings.HasPrefix(version, "8")
	user, refusal := s.authenticate(r)
	if user == nil {
		return refusal
	}
	if len(r.URL.RequestURI()) > maxURL {
		return s.refusal(badRequest("The request URL is longer than %d characters.", maxURL), legacy, nil)
	}
	release, throttled := s.limits.enter(s, user, r, operation(r))
	if throttled != nil {
		return s.refusal(throttled, legacy, nil)
	}
	c := &call{
		s: s, sch: s.sch.Load(), method: r.Method, header: r.Header, query: r.URL.RawQuery, user: user,
		version: version, now: s.clock.Now(), op: operation(r), view: s.store.View(),
	}
	var a *answer
	defer func() { release(a) }()
	a = c.run(r, rest)
	return a
}

func (c *call) run(r *http.Request, rest string) *answer {
	legacy := strings.HasPrefix(c.version, "8")
	var err *apiError
	if c.prefer, err = c.s.parsePrefer(c.header); err != nil {
		return c.s.refusal(err, legacy, nil)
	}
	if aerr := c.impersonate(); aerr != nil {
		return c.s.refusal(aerr, legacy, &c.prefer)
	}
	if aerr := c.bypass(); aerr != nil {
		return c.s.refusal(aerr, legacy, &c.prefer)
	}
	c.s.disturb(c)
	c.sch = c.s.sch.Load()
	body, rerr := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if rerr != nil {
		return c.s.refusal(badRequest("The request body could not be read."), legacy, &c.prefer)
	}
	if len(body) > maxBody {
		return c.s.refusal(fail(http.StatusRequestEntityTooLarge, codeTooLarge, "The request is longer than %d bytes.", maxBody), legacy, &c.prefer)
	}
	c.body = body
	if c.path, err = splitPath(rest); err != nil {
		return c.s.refusal(err, legacy, &c.prefer)
	}
	return c.answer()
}

// answer routes the call and turns errors into bodies.
func (c *call) answer() *answer {
	a, err := c.route()
	if err != nil {
		return c.s.refusal(asAPIError(err), strings.HasPrefix(c.version, "8"), &c.prefer)
	}
	return a
}

func (s *Server) refusal(e *apiError, legacy bool, p *prefer) *answer {
	a := jsonAnswer(e.status, appendError(nil, e, legacy, p != nil && p.wants("Microsoft.PowerApps.CDS.HelpLink")))
	maps.Copy(a.header, e.header)
	return a
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, a *answer) {
	defer func() {
		if a.pooled && cap(a.body) <= maxPooled {
			b := a.body
			pageBuffers.Put(&b)
		}
	}()
	h := w.Header()
	for k, v := range a.header {
		h[spelled(k)] = v
	}
	h["OData-Version"] = []string{"4.0"}
	id := s.newID().String()
	h["REQ_ID"] = []string{id} // the service's own casing
	h.Set("X-Ms-Service-Request-Id", id)
	h.Set("Cache-Control", "no-cache")
	if len(a.body) > 1024 && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(a.status)
		z := zippers.Get().(*gzip.Writer)
		z.Reset(w)
		_, _ = z.Write(a.body)
		_ = z.Close()
		z.Reset(nil) // the connection is not kept alive by the pool
		zippers.Put(z)
		return
	}
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// zippers keeps compressors, of which each has about a megabyte of tables.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

func acceptsGzip(header string) bool {
	for item := range strings.SplitSeq(header, ",") {
		coding, q, _ := strings.Cut(strings.TrimSpace(item), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}

// root is the service root of the call's version, with a trailing slash.
func (c *call) root() string { return c.s.BaseURL() + "/api/data/v" + c.version + "/" }

// context is the start of an @odata.context.
func (c *call) context() string { return c.root() + "$metadata#" }

// operation names a request for counters and fault rules.
func operation(r *http.Request) string {
	escaped := r.URL.EscapedPath()
	if strings.HasPrefix(escaped, "/api/discovery/") {
		return "discovery"
	}
	_, rest, ok := apiPath(escaped)
	if !ok {
		return "other"
	}
	return operationName(r.Method, rest, r.URL.RawQuery, r.Header)
}
