package prove

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The hosts of the simulated world.
const (
	crmHost   = "contoso.crm4.dynamics.com"
	mailHost  = "r1-api.dotdigital.com"
	entraHost = "login.microsoftonline.com"
)

// network stands between the product and the twins. Every request of the product
// parks here until the simulation lets it arrive, so that the seed, not the
// goroutine scheduler, decides in which order things happen, how long they take and
// what goes wrong on the way.
//
// Before that, each call and each durable step of the product waits for its turn. A turn
// is given when nothing else of the product can go on, to one at a time: what goroutines
// do at the same moment they do in an order that what they do decides.
type network struct {
	mu      sync.Mutex
	arrived []*exchange
	turns   []*turn
	dead    bool          // the process was killed: nothing leaves it any more
	wake    chan struct{} // something arrived, or waits for its turn
}

// turn is a goroutine that waits to go on.
type turn struct {
	key func() string // asked only where there is a choice
	on  chan struct{}
}

// exchange is one request of the product on its way to a twin and back.
type exchange struct {
	key    string // orders requests that arrive at the same moment
	route  string // method and path without ids
	twin   string // dataverse, dotdigital, entra
	number int    // in this round
	req    *http.Request
	body   []byte
	answer chan reply
	fault  *hit
	rnd    *rand.Rand
	log    int // its line in the log
}

type reply struct {
	res *http.Response
	err error
}

func newNetwork() *network { return &network{wake: make(chan struct{}, 1)} }

// turn waits until it is the caller's turn to do what the key tells.
func (n *network) turn(key func() string) {
	t := &turn{key, make(chan struct{})}
	n.mu.Lock()
	n.turns = append(n.turns, t)
	n.mu.Unlock()
	n.awake()
	<-t.on
}

// callTurn is turn for a call.
func (n *network) callTurn(req *http.Request) {
	n.turn(func() string {
		var body []byte
		if req.GetBody != nil {
			if r, err := req.GetBody(); err == nil {
				body, _ = io.ReadAll(r)
			}
		}
		return keyOf(req, body)
	})
}

// next gives the next turn and reports whether somebody waited for it.
func (n *network) next() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.turns) == 0 {
		return false
	}
	first := 0
	if len(n.turns) > 1 {
		least := n.turns[0].key()
		for i, t := range n.turns[1:] {
			if key := t.key(); key < least {
				first, least = i+1, key
			}
		}
	}
	close(n.turns[first].on)
	n.turns = slices.Delete(n.turns, first, first+1)
	return true
}

func (n *network) awake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// keyOf tells a request from others.
func keyOf(req *http.Request, body []byte) string {
	if bytes.Contains(body, []byte("batch_")) {
		body = boundary.ReplaceAll(body, []byte("batch_"))
	}
	return routeOf(req) + " " + req.URL.RequestURI() + " " + string(body)
}

// RoundTrip implements http.RoundTripper for the product.
func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
	}
	x := &exchange{req: req, body: body, answer: make(chan reply, 1), route: routeOf(req)}
	x.key = keyOf(req, body)
	switch req.URL.Host {
	case crmHost:
		x.twin = "dataverse"
	case mailHost:
		x.twin = "dotdigital"
	case entraHost:
		x.twin = "entra"
	}
	n.mu.Lock()
	dead := n.dead
	if !dead {
		n.arrived = append(n.arrived, x)
	}
	n.mu.Unlock()
	if dead {
		return nil, context.Canceled
	}
	n.awake()
	select {
	case r := <-x.answer:
		return r.res, r.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// connected tells the product that its request has a connection, as http.Transport
// does: from then on it may have taken effect.
func (x *exchange) connected() {
	if t := httptrace.ContextClientTrace(x.req.Context()); t != nil && t.GotConn != nil {
		t.GotConn(httptrace.GotConnInfo{})
	}
}

func (x *exchange) gone() bool { return x.req.Context().Err() != nil }

var boundary = regexp.MustCompile(`batch_[A-Z0-9]+`)

// routeOf is the method and the path, with a star for what names somebody or something.
func routeOf(r *http.Request) string {
	segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/api/data/v9.2"), "/")
	for i, s := range segments {
		if open := strings.IndexByte(s, '('); open >= 0 { // contacts(…)
			if end := strings.IndexByte(s, ')'); end > open+1 {
				segments[i] = s[:open+1] + "*" + s[end:]
			}
			continue
		}
		if s != "" && '0' <= s[0] && s[0] <= '9' || len(s) == 36 && s[8] == '-' || strings.Contains(s, "@") || strings.Contains(s, "%40") {
			segments[i] = "*"
		}
	}
	return r.Method + " " + strings.Join(segments, "/")
}

// event is something that the simulation does at a moment of virtual time.
type event struct {
	at    time.Time
	order int // among those of the same moment: as they were planned
	do    func()
}

// later plans f.
func (s *sim) later(d time.Duration, f func()) {
	s.planned++
	e := event{time.Now().Add(d), s.planned, f}
	i, _ := slices.BinarySearchFunc(s.events, e, func(a, b event) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.order - b.order
	})
	s.events = slices.Insert(s.events, i, e)
}

// drive lets virtual time pass until done is closed: it admits what arrives, in an
// order that does not depend on the scheduler, and lets the planned events happen.
func (s *sim) drive(done <-chan struct{}) {
	for {
		synctest.Wait()
		if s.net.next() {
			continue
		}
		s.admit()
		select {
		case <-done:
			return
		default:
		}
		var due <-chan time.Time
		var timer *time.Timer
		if len(s.events) > 0 {
			e := s.events[0]
			wait := time.Until(e.at)
			if wait <= 0 {
				s.events = s.events[1:]
				e.do()
				continue
			}
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-s.net.wake:
		case <-done:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// settle lets everything happen that is still planned, such as calls that are applied
// late, while the product rests.
func (s *sim) settle(d time.Duration) {
	done := make(chan struct{})
	time.AfterFunc(d, func() { close(done) })
	s.drive(done)
}

// admit numbers the requests that arrived and plans what becomes of them.
func (s *sim) admit() {
	s.net.mu.Lock()
	arrived := s.net.arrived
	s.net.arrived = nil
	s.net.mu.Unlock()
	slices.SortStableFunc(arrived, func(a, b *exchange) int { return strings.Compare(a.key, b.key) })
	for i, x := range arrived {
		// Who of two that ask the same at the same moment came first is not known: both
		// fare alike.
		if i == 0 || arrived[i-1].key != x.key {
			s.requests++
		}
		x.number = s.requests
		x.rnd = s.random("request", s.round, x.number)
		x.fault = s.chooseFault(x)
		name := ""
		if x.fault != nil {
			name = x.fault.String()
		}
		x.log = len(s.log)
		s.log = append(s.log, fmt.Sprintf("%s %d.%d %s %08x %s", time.Now().UTC().Format("02T15:04:05.000000"), s.round, x.number, x.route, sum(x.key), name))
		if x.fault != nil && x.fault.act != nil {
			s.coverage[coverKey{x.fault.kind, x.twin, x.route}]++
		}
		latency := 2*time.Millisecond + time.Duration(x.rnd.ExpFloat64()*float64(40*time.Millisecond))
		if x.rnd.IntN(100) == 0 {
			latency += time.Duration(x.rnd.IntN(5000)) * time.Millisecond
		}
		s.later(latency, func() { s.arrive(x) })
	}
}

func sum(key string) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key)
	return h.Sum32()
}

// arrive is the moment at which a request reaches the other side.
func (s *sim) arrive(x *exchange) {
	s.volatile(x.number)
	if s.dying(x.number, false) || x.gone() {
		return
	}
	if x.fault != nil && x.fault.transport(s, x) {
		return
	}
	res := s.serve(x)
	if s.dying(x.number, true) {
		return
	}
	back := time.Millisecond + time.Duration(x.rnd.ExpFloat64()*float64(15*time.Millisecond))
	s.later(back, func() { x.reply(res, nil) })
}

func (x *exchange) reply(res *http.Response, err error) {
	select {
	case x.answer <- reply{res, err}:
	default: // answered already
	}
}

// serve has the twin answer the request at this moment.
func (s *sim) serve(x *exchange) *http.Response {
	x.connected()
	s.injector.current = x.fault
	defer func() { s.injector.current = nil }()
	res := s.call(product, x.req.Method, x.req.URL.String(), x.req.Header, x.body)
	if res.StatusCode < 300 {
		if what := kindOfCall(x); what != otherCall {
			s.calls = append(s.calls, called{len(s.played), what, x.route})
		}
	}
	if x.fault != nil && x.fault.kind == "bulk-partial" && strings.Contains(x.fault.arg, "no-report") {
		s.unreported[s.round] = true
	}
	if x.fault != nil && x.fault.taken { // not every call has what its fault needs, such as a second page
		s.coverage[coverKey{x.fault.kind, x.twin, x.route}]++
	}
	s.log[x.log] += fmt.Sprintf(" %d", res.StatusCode)
	if x.twin != "entra" { // a token is another each time
		b, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(b))
		s.log[x.log] += fmt.Sprintf(" %08x", sum(string(b)))
		if *bodiesFlag {
			s.log[x.log] += fmt.Sprintf("\n    > %s\n    < %s", x.key, b)
		}
	}
	return res
}

// call has a twin answer a request in the name of somebody.
func (s *sim) call(who, method, url string, header http.Header, body []byte) *http.Response {
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header = header.Clone()
	r.RequestURI, r.RemoteAddr, r.TLS = r.URL.RequestURI(), "192.0.2.1:40000", &tls.ConnectionState{}
	before := s.history.who
	s.history.who = who
	defer func() { s.history.who = before }()
	w := httptest.NewRecorder()
	s.hosts[r.URL.Host].ServeHTTP(w, r)
	return w.Result()
}

func TestRouteOf(t *testing.T) {
	for path, want := range map[string]string{
		"/contacts/v3/import/1dfbd65b-519c-488b-ba14-24e3466aac40":          "GET /contacts/v3/import/*",
		"/contacts/v3/import/adfbd65b-519c-488b-ba14-24e3466aac40":          "GET /contacts/v3/import/*",
		"/v2/address-books/17/contacts/unsubscribed-since/2000-01-01T00:00": "GET /v2/address-books/*/contacts/unsubscribed-since/*",
		"/contacts/v3/email/p1@people.example":                              "GET /contacts/v3/email/*",
		"/api/data/v9.2/contacts(1dfbd65b-519c-488b-ba14-24e3466aac40)/x":   "GET /contacts(*)/x",
		"/api/data/v9.2/WhoAmI()":                                           "GET /WhoAmI()",
		"/v2/server-time":                                                   "GET /v2/server-time",
	} {
		r, err := http.NewRequest(http.MethodGet, "https://"+mailHost+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := routeOf(r); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
