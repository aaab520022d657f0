package prove

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// hit is a fault that befalls one request.
type hit struct {
	kind string
	arg  string
	// args goes to a kind that the twin itself carries out.
	args  json.RawMessage
	taken bool
	act   func(s *sim, x *exchange)
}

func (h *hit) String() string {
	if h.arg == "" {
		return h.kind
	}
	return h.kind + "(" + h.arg + ")"
}

// transport carries a fault of the transport out and reports whether that was all
// that happens to the request now.
func (h *hit) transport(s *sim, x *exchange) bool {
	if h.act == nil {
		return false
	}
	if x.twin == "dataverse" && x.req.Method == http.MethodPost {
		s.unanswered[s.round] = true
	}
	h.act(s, x)
	return true
}

// kind is one kind of fault.
type kind struct {
	name string
	// applies says whether the kind exists on the twin.
	applies func(x *exchange) bool
	// make decides the details by rnd.
	make func(rnd *rand.Rand) *hit
	// weight is how often it is drawn among those that apply; 0 = 1.
	weight int
}

func anywhere(*exchange) bool    { return true }
func mailPaged(x *exchange) bool { return x.twin == "dotdigital" && paged(x) }
func mailCounted(x *exchange) bool {
	return mailPaged(x) && strings.HasPrefix(x.route, "GET /v2/")
}

func imports(x *exchange) bool {
	return strings.HasSuffix(x.route, "/import") && x.twin == "dotdigital"
}
func crmWrite(x *exchange) bool { return x.twin == "dataverse" && x.req.Method != http.MethodGet }
func paged(x *exchange) bool    { return x.twin != "entra" && x.req.Method == http.MethodGet }
func notToken(x *exchange) bool { return x.twin != "entra" }
func tokens(x *exchange) bool   { return x.twin != "dotdigital" }
func changeFeed(x *exchange) bool {
	return x.twin == "dataverse" && strings.Contains(x.req.URL.RawQuery, "deltatoken")
}

// kinds are the faults that are drawn. What the name says is in package fault.
var kinds = []kind{
	{"refuse", anywhere, transport(func(s *sim, x *exchange) {
		x.reply(nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	}), 0},
	{"reset-before", anywhere, transport(func(s *sim, x *exchange) {
		x.connected()
		x.reply(nil, reset)
	}), 0},
	{"ack-lost", anywhere, transport(func(s *sim, x *exchange) {
		s.serve(x)
		x.reply(nil, reset)
	}), 0},
	{"late-apply", notToken, func(rnd *rand.Rand) *hit {
		delay := time.Duration(100+rnd.IntN(120_000)) * time.Millisecond
		code := []int{500, 502, 503, 504}[rnd.IntN(4)]
		return &hit{arg: fmt.Sprintf("%d in %s", code, delay), act: func(s *sim, x *exchange) {
			x.connected()
			req := x.req.Clone(s.ctx) // whoever sent it may be gone by then
			s.later(delay, func() { s.call("late", req.Method, req.URL.String(), req.Header, x.body) })
			s.reply(x, code, nil, "")
		}}
	}, 0},
	{"hang", anywhere, func(rnd *rand.Rand) *hit {
		applied := rnd.IntN(2) == 0
		return &hit{arg: fmt.Sprintf("applied %t", applied), act: func(s *sim, x *exchange) {
			x.connected()
			if applied {
				s.serve(x)
			}
		}}
	}, 0},
	{"slow-body", anywhere, func(rnd *rand.Rand) *hit {
		for1 := time.Duration(1+rnd.IntN(40)) * time.Second
		return &hit{arg: for1.String(), act: func(s *sim, x *exchange) {
			res := s.serve(x)
			res.Body = &slowBody{ReadCloser: res.Body, pause: for1, x: x}
			x.reply(res, nil)
		}}
	}, 0},
	{"truncate", anywhere, func(rnd *rand.Rand) *hit {
		share, announced := rnd.Float64(), rnd.IntN(2) == 0
		return &hit{arg: fmt.Sprintf("%.2f announced %t", share, announced), act: func(s *sim, x *exchange) {
			res := s.serve(x)
			all, _ := io.ReadAll(res.Body)
			part := all[:int(share*float64(len(all)))]
			res.Body = io.NopCloser(bytes.NewReader(part))
			if announced && len(part) < len(all) {
				res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(part), broken{}))
			} else {
				res.Header.Del("Content-Length")
				res.ContentLength = -1
			}
			x.reply(res, nil)
		}}
	}, 0},
	{"garbage", anywhere, func(rnd *rand.Rand) *hit {
		variant := []string{"html", "empty", "null", "array", "gzip", "bom"}[rnd.IntN(6)]
		applied := rnd.IntN(2) == 0
		return &hit{arg: fmt.Sprintf("%s applied %t", variant, applied), act: func(s *sim, x *exchange) {
			x.connected()
			if applied || variant == "empty" && x.route == "PUT /v2/contacts/*/preferences" {
				s.serve(x) // that is what it answers: nobody could tell
			}
			if what := kindOfCall(x); variant == "array" && !applied && (what == hearsAccount || what == hearsBooks) {
				s.deaf[len(s.played)] = true
				s.calls = append(s.calls, called{len(s.played), what, x.route}) // that nobody opted out, for all anybody could tell
			}
			h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
			body := ""
			switch variant {
			case "html":
				h.Set("Content-Type", "text/html")
				body = "<!DOCTYPE html><html><body>Sign in</body></html>"
			case "null":
				body = "null"
			case "array":
				body = "[]"
			case "bom":
				body = "\xEF\xBB\xBF{}"
			case "gzip":
				h.Set("Content-Encoding", "gzip")
				body = "\x1f\x8b\x08\x00 no gzip"
			}
			s.reply(x, http.StatusOK, h, body)
		}}
	}, 0},
	{"status", notToken, func(rnd *rand.Rand) *hit {
		code := []int{400, 401, 403, 404, 408, 409, 412, 413, 415, 500, 502, 503, 504}[rnd.IntN(13)]
		return &hit{arg: strconv.Itoa(code), act: func(s *sim, x *exchange) {
			x.connected()
			s.reply(x, code, nil, "")
		}}
	}, 0},
	{"retry-after", notToken, func(rnd *rand.Rand) *hit {
		code := []int{429, 503}[rnd.IntN(2)]
		value := []string{"", "0", "-1", "1000000000", "1.5", "7", "Sat, 01 Jan 2000 00:00:30 GMT", "soon"}[rnd.IntN(8)]
		return &hit{arg: fmt.Sprintf("%d %q", code, value), act: func(s *sim, x *exchange) {
			x.connected()
			h := http.Header{}
			if value != "" {
				h.Set("Retry-After", value)
			}
			s.reply(x, code, h, "")
		}}
	}, 0},
	{"throttle", notToken, inside(""), 0},
	{"token-expire", tokens, inside(""), 0},
	{"delta-expired", changeFeed, inside(""), 0},
	{"row-poison", crmWrite, inside(`{"code":"0x80040265"}`, `{"code":"0x80044331"}`, `{"code":"0x80040237"}`, `{"code":"0x80040220"}`), 0},
	{"row-poison", imports, inside(""), 10},
	{"bulk-partial", imports, inside("", `{"mode":"watchdog"}`, `{"mode":"lost"}`, `{"mode":"no-report"}`, `{"share":0.5}`), 6},
	{"too-many-imports", imports, inside(""), 2},
	{"page-dup", paged, inside("", `{"variant":"loop","mode":"loop"}`, `{"variant":"empty"}`, `{"variant":"host"}`), 0},
	{"page-drift", mailPaged, inside(""), 0},
	// Some of the platform's pages are counted, so that a row is skipped when one before it
	// goes. Those of the CRM, and of the platform's contacts, go on after the last row: that
	// one is left out there nobody could notice.
	{"page-skip", mailCounted, inside(""), 0},
	// Somebody takes the account's rights away for a moment: one import fails for good
	// beside others that do not.
	{"status", imports, answer(401, ""), 6},
	{"garbage", fields, answer(200, "[]"), 6},
}

// fields is the call that tells an account's data fields, of which every account has some.
func fields(x *exchange) bool { return x.route == "GET /v2/data-fields" }

// answer is a kind that says this instead of carrying the request out.
func answer(code int, body string) func(*rand.Rand) *hit {
	return func(*rand.Rand) *hit {
		return &hit{arg: fmt.Sprint(code, body), act: func(s *sim, x *exchange) {
			x.connected()
			var h http.Header
			if body != "" {
				h = http.Header{"Content-Type": {"application/json; charset=utf-8"}}
			}
			s.reply(x, code, h, body)
		}}
	}
}

var reset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

func transport(act func(*sim, *exchange)) func(*rand.Rand) *hit {
	return func(*rand.Rand) *hit { return &hit{act: act} }
}

// inside is a kind that the twin carries out, with one of these arguments.
func inside(args ...string) func(*rand.Rand) *hit {
	return func(rnd *rand.Rand) *hit {
		h := &hit{}
		if a := args[rnd.IntN(len(args))]; a != "" {
			h.arg, h.args = a, json.RawMessage(a)
		}
		return h
	}
}

// reply answers in the name of something that is not the twin.
func (s *sim) reply(x *exchange, code int, h http.Header, body string) {
	if h == nil {
		h = http.Header{"Content-Type": {"application/json"}}
		if body == "" && code >= 400 {
			body = `{"error":{"code":"0x80040216","message":"` + http.StatusText(code) + `"},"message":"` + http.StatusText(code) + ` ERROR_UNKNOWN"}`
		}
	}
	s.log[x.log] += fmt.Sprintf(" %d", code)
	x.reply(&http.Response{
		StatusCode: code, Status: strconv.Itoa(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: x.req,
	}, nil)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// slowBody pauses before its first byte.
type slowBody struct {
	io.ReadCloser
	pause time.Duration
	x     *exchange
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.pause > 0 {
		t := time.NewTimer(b.pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.x.req.Context().Done():
			return 0, b.x.req.Context().Err()
		}
		b.pause = 0
	}
	return b.ReadCloser.Read(p)
}

// faultRate is the share of requests that a fault befalls.
const faultRate = 0.02

// chooseFault draws the fault of a request, if any.
func (s *sim) chooseFault(x *exchange) *hit {
	rnd := s.random("fault", s.round, x.number)
	if !s.faulty {
		return nil
	}
	rate := s.plan.FaultRate * s.rarity(x)
	if imports(x) {
		rate *= 3 // most of what is written goes this way, in few calls
	}
	if s.plan.Dropped["faults"] || rnd.Float64() >= rate {
		return nil
	}
	var fit []kind
	for _, k := range kinds {
		if k.applies(x) {
			for range max(k.weight, 1) {
				fit = append(fit, k)
			}
		}
	}
	k := fit[rnd.IntN(len(fit))]
	h := k.make(rnd)
	h.kind = k.name
	id := fmt.Sprintf("%d.%d", s.round, x.number)
	if s.plan.drops("f", id) {
		return nil
	}
	s.struck = append(s.struck, id)
	return h
}

// rarity is how much more often than others a request is hit because its route is rare
// in this life: a call that is made twice has to meet as many faults as one that is made
// a hundred times.
func (s *sim) rarity(x *exchange) float64 {
	key := x.twin + " " + x.route
	if s.routes[key] == 0 {
		for _, k := range kinds {
			if k.applies(x) {
				s.possible[coverKey{k.name, x.twin, x.route}]++
			}
		}
	}
	s.routes[key]++
	even := float64(s.requested) / float64(len(s.routes))
	s.requested++
	return min(6, max(0.5, even/float64(s.routes[key])))
}

// injector hands the twins the faults that they carry out themselves.
type injector struct {
	current *hit
	// poisoned is a record of the CRM that a plug-in never lets the product write.
	poisoned string
	history  *history
}

var _ fault.Injector = (*injector)(nil)

// Take implements fault.Injector.
func (i *injector) Take(twin, kind, _ string) (fault.Hit, bool) {
	if h := i.current; h != nil && h.act == nil && h.kind == kind && !h.taken {
		h.taken = true
		args := h.args
		if args == nil {
			args = json.RawMessage("{}")
		}
		return fault.Hit{Kind: kind, Args: args}, true
	}
	if twin == "dataverse" && kind == "row-poison" && i.poisoned != "" && i.history.who != person {
		return fault.Hit{Kind: kind, Args: json.RawMessage(`{"id":"` + i.poisoned + `"}`)}, true
	}
	return fault.Hit{}, false
}

// Middleware implements fault.Injector: the transport is the simulation's.
func (i *injector) Middleware(_ string, _ func(*http.Request) string, next http.Handler) http.Handler {
	return next
}
