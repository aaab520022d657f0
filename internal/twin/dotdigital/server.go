package dotdigital

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

// twinName is this twin's name in fault rules and counters.
const twinName = "dotdigital"

// APIUser is one API user of the emulated account.
type APIUser struct {
	// Name has the shape apiuser-xxxxxxxxxxxx@apiconnector.com.
	Name string
	// Password is compared in constant time.
	Password string
}

// Options configure a Server. The zero value is a working account without API
// users: every call is then answered 401.
type Options struct {
	// Clock is the twins' time; a new one when nil.
	Clock *clock.Clock
	// Faults injects failures; fault.None when nil.
	Faults fault.Injector
	// Stats counts the calls; a new counter when nil.
	Stats *stats.Counter
	// Users may sign in with HTTP Basic.
	Users []APIUser
	// AccountName is shown by account-info; "Demo" when empty. So is AccountID,
	// which is 1 when zero.
	AccountName string
	AccountID   int32
	// Seed makes job ids and simulated engagement reproducible.
	Seed uint64

	// ImportTime is how long an import stays NotFinished on the twins' clock,
	// plus ImportRowTime for each row. Zero finishes at once.
	ImportTime    time.Duration
	ImportRowTime time.Duration
	// JobTime is the same for deletions and segment refreshes.
	JobTime time.Duration
	// SendTime is how long a due send stays Sending.
	SendTime time.Duration

	// MaxActiveImports is the number of imports of both API versions that may
	// be unfinished at once; 25 when zero.
	MaxActiveImports int
	// MaxActiveDeletes is the same for v3 bulk deletes; 25 when zero.
	MaxActiveDeletes int
	// ContactAllowance is how many contacts the account may hold; an import
	// that would exceed it ends in ExceedsAllowedContactLimit. Zero: no limit.
	ContactAllowance int
	// MaxCustomIdentifiers caps the custom identifiers; 10 when zero.
	MaxCustomIdentifiers int
	// SuppressedDomains are mail domains (lower case) that the account owner
	// blocks: rows with such an address are refused.
	SuppressedDomains []string

	// RateLimit is off when zero.
	RateLimit RateLimit
	// WrongRegion answers 403 to every call but account-info, as a region does
	// that the account does not live in.
	WrongRegion bool

	// History is told every applied write, in order, with the server's lock
	// held: it must be quick and must not call the server.
	History func(Write)
}

// Server emulates one Dotdigital account. Safe for concurrent use.
type Server struct {
	opt    Options
	clock  *clock.Clock
	faults fault.Injector
	stats  *stats.Counter
	users  map[string][sha256.Size]byte
	routes *router
	limits limiter

	maxPage atomic.Int64 // see SetMaxPage

	mu       sync.RWMutex
	pcg      *rand.PCG
	rng      *rand.Rand
	endpoint string

	contacts
	fields     fieldSet
	lists      map[int32]*list
	listNames  map[string]int32
	listOrder  []int32
	nextListID int32
	prefs      preferenceSet
	customIDs  []*customIdentifier
	imports    importJobs
	removals   map[string]*removalJob
	deletes    map[string]*deleteJob
	campaigns  map[int32]*campaign
	campOrder  []int32
	nextCamp   int32
	sends      []*send
	sendByID   map[string]*send
	dueSend    int64
}

// New returns an account with the standard data fields and the system lists.
func New(opt Options) *Server {
	if opt.Clock == nil {
		opt.Clock = clock.New()
	}
	if opt.Faults == nil {
		opt.Faults = fault.None{}
	}
	if opt.Stats == nil {
		opt.Stats = stats.New()
	}
	if opt.AccountName == "" {
		opt.AccountName = "Demo"
	}
	if opt.AccountID == 0 {
		opt.AccountID = 1
	}
	if opt.MaxActiveImports == 0 {
		opt.MaxActiveImports = 25
	}
	if opt.MaxActiveDeletes == 0 {
		opt.MaxActiveDeletes = 25
	}
	if opt.MaxCustomIdentifiers == 0 {
		opt.MaxCustomIdentifiers = 10
	}
	s := &Server{
		opt: opt, clock: opt.Clock, faults: opt.Faults, stats: opt.Stats,
		users:     make(map[string][sha256.Size]byte, len(opt.Users)),
		pcg:       rand.NewPCG(opt.Seed, 0x446f7464),
		lists:     map[int32]*list{},
		listNames: map[string]int32{},
		imports:   importJobs{byID: map[string]*importJob{}},
		removals:  map[string]*removalJob{},
		deletes:   map[string]*deleteJob{},
		campaigns: map[int32]*campaign{},
		sendByID:  map[string]*send{},
		dueSend:   never,
		nextCamp:  1,
	}
	s.rng = rand.New(s.pcg)
	s.contacts.init()
	s.prefs.init()
	for _, u := range opt.Users {
		s.users[u.Name] = sha256.Sum256([]byte(u.Password))
	}
	s.fields.init()
	s.addSystemLists()
	s.routes = newRouter(routeTable())
	s.limits.init(opt.RateLimit)
	return s
}

// SetEndpoint sets the address that account-info reports as ApiEndpoint and
// that paging links start with. Until then the Host header of a call is used.
func (s *Server) SetEndpoint(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoint = strings.TrimRight(url, "/")
}

func (s *Server) now() int64 { return s.clock.Now().UnixMilli() }

// newID returns a GUID that only the seed and the order of calls decide.
// The caller holds the lock.
func (s *Server) newID() string {
	const hex = "0123456789abcdef"
	var b [36]byte
	hi, lo := s.rng.Uint64(), s.rng.Uint64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	for i, n := 0, 0; i < len(b); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			b[i] = '-'
			continue
		}
		v := hi
		if n >= 16 {
			v = lo
		}
		b[i] = hex[v>>(60-4*(n%16))&15]
		n++
	}
	return string(b[:])
}

// Handler serves the account's HTTP API.
func (s *Server) Handler() http.Handler {
	operation := func(r *http.Request) string {
		rt, _, _ := s.routes.match(r)
		return rt.operation
	}
	inner := s.faults.Middleware(twinName, operation, http.HandlerFunc(s.serve))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &countingWriter{ResponseWriter: w}
		cr := &countingReader{ReadCloser: r.Body}
		r.Body = cr
		finished := false
		defer func() {
			status := "connection-lost"
			if cw.status != 0 && finished && !cw.hijacked {
				status = strconv.Itoa(cw.status)
			} else if finished && !cw.hijacked {
				status = "200"
			}
			s.stats.Call(operation(r), status, cr.n, cw.n)
		}()
		inner.ServeHTTP(cw, r)
		finished = true
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	rt, params, known := s.routes.match(r)
	c := &call{s: s, w: w, r: r, route: rt, params: params, family: familyOf(r.URL.Path)}
	w.Header().Set("Content-Type", c.family.mediaType)
	err := s.admit(c, known)
	if err == nil {
		err = rt.serve(s, c)
	}
	if err != nil {
		c.fail(err)
	}
	c.flush()
}

// admit runs the checks that come before the operation: region, credentials,
// rate limits, and whether the operation is emulated.
func (s *Server) admit(c *call, known bool) error {
	if s.opt.WrongRegion && c.route.operation != "account-info" {
		return &apiError{status: http.StatusForbidden, code: "forbidden", text: "Forbidden: Access is denied", bare: true}
	}
	name, password, ok := c.r.BasicAuth()
	want, exists := s.users[name]
	got := sha256.Sum256([]byte(password))
	if !ok || !exists || subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return errUnauthorized
	}
	c.user = name
	if err := s.limits.admit(c); err != nil {
		return err
	}
	if !known {
		if c.family.prefix == "" {
			return &apiError{status: http.StatusNotFound, text: "No API lives at this path.", bare: true}
		}
		return &apiError{
			status: http.StatusNotImplemented, code: "notEmulated", bare: true,
			text: c.r.Method + " on this path is not emulated by the Dotdigital twin.",
		}
	}
	s.mu.RLock()
	due := s.dueSend
	s.mu.RUnlock()
	if now := s.now(); due <= now {
		s.mu.Lock()
		s.settleSends(now)
		s.mu.Unlock()
	}
	return nil
}

// family is one service of the API: it decides media type and error shape.
type family struct {
	prefix    string
	service   string
	mediaType string
}

var families = []family{
	{"/v2", "", "application/json; charset=utf-8"},
	{"/contacts/v3", "contacts", "application/json"},
	{"/configuration/v3", "customIdentifiers", "application/json"},
	{"/insightdata/v3", "insightData", "application/json"},
	{"/events/v3", "events", "application/json"},
	{"/data-firehose/v3", "dataFirehose", "application/json"},
	{"/cpaas", "cpaas", "application/json"},
}

func familyOf(path string) family {
	path = strings.ToLower(path)
	for _, f := range families {
		if rest, ok := strings.CutPrefix(path, f.prefix); ok && (rest == "" || rest[0] == '/') {
			return f
		}
	}
	return family{mediaType: "application/json; charset=utf-8"}
}

// countingWriter records what the client is sent.
type countingWriter struct {
	http.ResponseWriter
	status   int
	n        int64
	hijacked bool
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countingWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *countingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

type countingReader struct {
	io.ReadCloser
	n int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	return n, err
}
