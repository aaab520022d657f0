package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// lateBody bounds the request body that late-apply keeps in memory, in bytes.
const lateBody = 128 << 20

// Middleware implements Injector.
//
// Wrappers between the server and this handler must offer Unwrap (see
// http.ResponseController), or resets degrade to a closed connection.
func (s *Set) Middleware(twin string, operation func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.idle.Load() {
			next.ServeHTTP(w, r)
			return
		}
		_, refuseJudged := s.fresh.LoadAndDelete(freshKey(twin, r.RemoteAddr))
		s.serve(w, r, s.judge(twin, operation(r), refuseJudged), twin, next)
	})
}

func (s *Set) serve(w http.ResponseWriter, r *http.Request, j judged, twin string, next http.Handler) {
	switch j.action {
	case Refuse, ResetBefore:
		drop(w)
	case AckLost:
		next.ServeHTTP(&sink{header: http.Header{}}, r)
		drop(w)
	case Hang:
		s.hang(r, j.args.(hangArgs), j.done)
		drop(w)
	}
	if j.cut != nil || j.slow != nil || j.action == Garbage {
		// What is cut or prefixed is JSON, not its compressed form.
		r.Header.Del("Accept-Encoding")
	}
	if j.skew != nil {
		w.Header().Set("Date", s.clock.Now().Add(time.Duration(j.skew.Skew)).Format(http.TimeFormat))
	}
	if j.slow != nil {
		w = &slow{ResponseWriter: w, pace: j.slow.BytesPerSecond, ctx: r.Context(), done: j.done, closing: s.closing}
	}
	if j.retry != nil {
		w = &retry{ResponseWriter: w, value: j.retry.Value}
	}
	if j.cut == nil {
		s.answer(w, r, j, twin, next)
		return
	}
	full := &recorder{header: w.Header().Clone()}
	s.answer(full, r, j, twin, next)
	cut(w, full, *j.cut)
}

// answer serves the call or what replaces its answer.
func (s *Set) answer(w http.ResponseWriter, r *http.Request, j judged, twin string, next http.Handler) {
	switch j.action {
	case "":
		next.ServeHTTP(w, r)
	case Status:
		status(w, j.args.(statusArgs), twin)
	case LateApply:
		s.lateApply(w, r, j.args.(lateArgs), twin, next)
	case Garbage:
		garbage(w, r, j.args.(garbageArgs), next)
	case Huge:
		huge(w, j.args.(hugeArgs).Bytes, twin)
	}
}

// drop ends the client's connection with a TCP reset, without an answer. It
// panics with http.ErrAbortHandler, so that handlers around it learn that no
// answer left. With HTTP/2 or a wrapper without Unwrap the panic alone makes
// the server close the stream.
func drop(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		reset(c)
	}
	panic(http.ErrAbortHandler)
}

// hang waits until the client leaves, the time is over or the rules are cleared.
func (s *Set) hang(r *http.Request, a hangArgs, done <-chan struct{}) {
	// The server notices that a client left only once the body is read.
	_, _ = io.Copy(io.Discard, r.Body)
	var over <-chan time.Time
	if a.For > 0 {
		t := time.NewTimer(time.Duration(a.For))
		defer t.Stop()
		over = t.C
	}
	select {
	case <-r.Context().Done():
	case <-over:
	case <-done:
	case <-s.closing:
	}
}

func (s *Set) lateApply(w http.ResponseWriter, r *http.Request, a lateArgs, twin string, next http.Handler) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, lateBody))
	if err != nil {
		http.Error(w, "late-apply keeps at most "+strconv.Itoa(lateBody)+" bytes of a request", http.StatusRequestEntityTooLarge)
		return
	}
	again := r.Clone(context.WithoutCancel(r.Context()))
	again.Body = io.NopCloser(bytes.NewReader(body))
	due := s.clock.Now().Add(time.Duration(a.Delay))
	s.later(func() {
		if s.wait(time.Duration(a.Delay), due, a.Clock == "twin") {
			next.ServeHTTP(&sink{header: http.Header{}}, again)
		}
	})
	status(w, statusArgs{Code: a.Code, Body: "json"}, twin)
}

// wait sleeps for the delay in real time, or until the twins' clock shows due,
// and reports false when the set is closed first.
func (s *Set) wait(delay time.Duration, due time.Time, twinClock bool) bool {
	t := time.NewTimer(delay)
	defer t.Stop()
	for {
		var moved <-chan struct{}
		if twinClock {
			moved = s.clock.Moved()
			left := due.Sub(s.clock.Now())
			if left <= 0 {
				return true
			}
			t.Reset(left)
		}
		select {
		case <-s.closing:
			return false
		case <-moved:
		case <-t.C:
			if !twinClock {
				return true
			}
		}
	}
}

// status answers a code in the manner of the twin, without serving the call.
func status(w http.ResponseWriter, a statusArgs, twin string) {
	h := w.Header()
	body := a.Content
	contentType := "application/json; charset=utf-8"
	switch a.Body {
	case "html":
		contentType = "text/html; charset=utf-8"
		if body == "" {
			text := strconv.Itoa(a.Code) + " " + http.StatusText(a.Code)
			body = "<!DOCTYPE html><html><head><title>" + text + "</title></head><body><h1>" + text + "</h1></body></html>"
		}
	case "json":
		if body == "" {
			body = errorJSON(twin, a.Code)
		}
	}
	if body != "" {
		h.Set("Content-Type", contentType)
	}
	for k, v := range a.Headers {
		h.Set(k, v)
	}
	w.WriteHeader(a.Code)
	if a.Code != http.StatusNoContent && a.Code != http.StatusNotModified {
		_, _ = io.WriteString(w, body)
	}
}

func errorJSON(twin string, code int) string {
	text := http.StatusText(code)
	switch twin {
	case Dotdigital:
		return fmt.Sprintf(`{"message":"%s ERROR_UNKNOWN"}`, text)
	case Entra:
		return fmt.Sprintf(`{"error":"temporarily_unavailable","error_description":%q}`, text)
	default:
		return fmt.Sprintf(`{"error":{"code":"0x80040216","message":%q}}`, text)
	}
}

const page = `<!DOCTYPE html><html><head><title>Sign in</title></head><body><form action="/login" method="post"><input name="user"><input name="password" type="password"></form></body></html>`

func garbage(w http.ResponseWriter, r *http.Request, a garbageArgs, next http.Handler) {
	switch a.Variant {
	case "bom":
		full := &recorder{header: w.Header().Clone()}
		next.ServeHTTP(full, r)
		full.header.Del("Content-Length")
		full.replay(w, append([]byte("\xEF\xBB\xBF"), full.body.Bytes()...))
		return
	case "wrong-type":
		full := &recorder{header: w.Header().Clone()}
		next.ServeHTTP(full, r)
		full.header.Set("Content-Type", "text/html; charset=utf-8")
		full.replay(w, full.body.Bytes())
		return
	}
	if a.Apply {
		next.ServeHTTP(&sink{header: http.Header{}}, r)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	var body string
	switch a.Variant {
	case "html":
		h.Set("Content-Type", "text/html; charset=utf-8")
		body = page
	case "null":
		body = "null"
	case "array":
		body = "[]"
	case "gzip-garbage":
		h.Set("Content-Encoding", "gzip")
		body = "\x1f\x8b\x08\x00 this only begins like gzip \x00\x01\x02"
	}
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, body)
}

// huge streams an answer that stays well-formed up to its end, which a client
// with a size limit never sees.
func huge(w http.ResponseWriter, n int64, twin string) {
	head, tail := `{"value":[`, `]}`
	row := []byte(`{"contactid":"6f1c3a52-8c1d-4f60-9a44-0a6d3b0f7c11","emailaddress1":"someone@example.com","fullname":"Someone"},`)
	if twin == Dotdigital {
		head, tail = `[`, `]`
		row = []byte(`{"id":1001,"email":"someone@example.com","optInType":"Single","emailType":"Html","dataFields":null,"status":"Subscribed"},`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	block := bytes.Repeat(row, 512)
	if _, err := io.WriteString(w, head); err != nil {
		return
	}
	for n -= int64(len(head) + len(tail)); n > int64(len(row)); {
		part := block
		if int64(len(part)) > n {
			part = part[:n/int64(len(row))*int64(len(row))]
		}
		if n-int64(len(part)) <= int64(len(row)) {
			part = part[:len(part)-1] // no comma after the last row
			n = 0
		}
		if _, err := w.Write(part); err != nil {
			return
		}
		n -= int64(len(part))
	}
	_, _ = io.WriteString(w, tail)
}

// cut sends the first bytes of a recorded answer.
func cut(w http.ResponseWriter, full *recorder, a truncateArgs) {
	body := full.body.Bytes()
	at := len(body) / 2
	if a.At != nil {
		at = int(min(*a.At, int64(len(body))))
	}
	if !a.KeepLength {
		full.header.Del("Content-Length")
		full.replay(w, body[:at])
		return
	}
	full.header.Set("Content-Length", strconv.Itoa(len(body)))
	full.replay(w, body[:at])
	if at < len(body) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // ends the connection short of what was announced
	}
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
func (r *recorder) Flush() {}

// replay sends the recorded head with another body.
func (r *recorder) replay(w http.ResponseWriter, body []byte) {
	h := w.Header()
	clear(h)
	maps.Copy(h, r.header)
	if r.code == 0 {
		r.code = http.StatusOK
	}
	w.WriteHeader(r.code)
	if len(body) > 0 {
		_, _ = w.Write(body)
	}
}

// sink swallows an answer.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) Flush()                      {}

// retry replaces the Retry-After header of 429 and 503 answers.
type retry struct {
	http.ResponseWriter
	value *string
	wrote bool
}

func (r *retry) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *retry) WriteHeader(code int) {
	if !r.wrote && (code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable) {
		r.Header().Del("Retry-After")
		if r.value != nil {
			r.Header().Set("Retry-After", *r.value)
		}
	}
	r.wrote = r.wrote || code >= 200
	r.ResponseWriter.WriteHeader(code)
}

func (r *retry) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// slow sends a body at a pace until the rules are cleared.
type slow struct {
	http.ResponseWriter
	pace    float64 // bytes a second
	ctx     context.Context
	done    <-chan struct{}
	closing <-chan struct{}
	free    bool
}

var errLeft = errors.New("fault: the client left a slow answer")

func (s *slow) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *slow) Write(b []byte) (int, error) {
	// Ten pieces a second, or one byte at a time below that.
	piece := max(1, int(s.pace/10))
	pause := time.Duration(float64(time.Second) * float64(piece) / s.pace)
	sent := 0
	for len(b) > 0 {
		if s.free {
			n, err := s.ResponseWriter.Write(b)
			return sent + n, err
		}
		n, err := s.ResponseWriter.Write(b[:min(piece, len(b))])
		sent += n
		if err != nil {
			return sent, err
		}
		b = b[n:]
		if err := http.NewResponseController(s.ResponseWriter).Flush(); err != nil {
			return sent, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return sent, errLeft
		case <-s.done:
			s.free = true
		case <-s.closing:
			s.free = true
		}
		t.Stop()
	}
	return sent, nil
}
