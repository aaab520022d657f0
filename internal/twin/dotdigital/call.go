package dotdigital

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// call is one request while it is served.
type call struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	route  *route
	params []string
	family family
	user   string // the API user

	// The answer is kept until the operation has released its locks: a client
	// that reads slowly must not keep others waiting.
	status int
	body   []byte
	// pooled is the buffer that body lies in, if it is to be reused.
	pooled *[]byte
}

// apiError is an answer that is not a success. v2 prints text and code in one
// message, v3 prints them as errorCode and description.
type apiError struct {
	status  int
	code    string
	text    string
	details []errorDetail
	// bare leaves the code out of a v2 message.
	bare bool
	// body, when set, is the whole answer.
	body any
}

type errorDetail struct {
	Item        string `json:"item,omitempty"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return strconv.Itoa(e.status) + " " + e.code + " " + e.text }

var errUnauthorized = &apiError{status: http.StatusUnauthorized, text: "Authorization has been denied for this request.", bare: true}

// v2Error is a refusal of the v2 API: 404 for the not-found codes, 403 for
// features, 400 for everything else.
func v2Error(code, text string) *apiError {
	status := http.StatusBadRequest
	switch {
	case strings.HasSuffix(code, "_NOT_FOUND") && code != "ERROR_IMPORT_REPORT_NOT_FOUND", code == "ERROR_DATAFIELD_NOTFOUND" && text == "":
		status = http.StatusNotFound
	case code == "ERROR_FEATURENOTACTIVE":
		status = http.StatusForbidden
	}
	return &apiError{status: status, code: code, text: text}
}

func badParameter(text string) *apiError { return v2Error("ERROR_PARAMETER_INVALID", text) }

func v3Error(status int, code, text string) *apiError {
	return &apiError{status: status, code: code, text: text}
}

// fail answers err in the shape of the call's API version.
func (c *call) fail(err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{status: http.StatusInternalServerError, code: "ERROR_UNKNOWN", text: "The twin failed."}
	}
	if e.body != nil {
		c.reply(e.status, e.body)
		return
	}
	if c.family.service == "" {
		text := e.text
		switch {
		case text == "":
			text = "Error: " + e.code
		case !e.bare:
			text += " " + e.code
		}
		c.reply(e.status, struct {
			Message string `json:"message"`
		}{text})
		return
	}
	if e.status == http.StatusUnauthorized {
		// The v3 services answer 401 without a body.
		_ = c.empty(e.status)
		return
	}
	c.reply(e.status, struct {
		ErrorCode   string        `json:"errorCode"`
		Description string        `json:"description"`
		Details     []errorDetail `json:"details,omitempty"`
	}{c.family.service + ":" + e.code, e.text, e.details})
}

// reply answers a small value as JSON.
func (c *call) reply(status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		status = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString(`{"message":"The twin could not encode its answer."}`)
	}
	c.write(status, bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

// write sets the answer.
func (c *call) write(status int, body []byte) { c.status, c.body = status, body }

// empty answers without a body.
func (c *call) empty(status int) error {
	c.status, c.body = status, nil
	return nil
}

// flush sends the answer to the client.
func (c *call) flush() {
	if c.body == nil {
		c.w.Header().Del("Content-Type")
	} else {
		c.w.Header().Set("Content-Length", strconv.Itoa(len(c.body)))
	}
	c.w.WriteHeader(c.status)
	_, _ = c.w.Write(c.body)
	if c.pooled != nil {
		putBuffer(c.pooled)
	}
}

// query returns a query parameter; v2 matches its name ignoring case.
func (c *call) query(name string) (string, bool) {
	q := c.r.URL.Query()
	if v, ok := q[name]; ok {
		return v[0], true
	}
	if c.family.service == "" {
		for k, v := range q {
			if strings.EqualFold(k, name) {
				return v[0], true
			}
		}
	}
	return "", false
}

func (c *call) queryAll(name string) []string {
	var out []string
	for k, v := range c.r.URL.Query() {
		if strings.EqualFold(k, name) {
			out = append(out, v...)
		}
	}
	return out
}

const maxSelect = 1000

// page reads select and skip of a v2 listing.
func (c *call) page(byDefault int) (limit, skip int, err error) {
	limit = byDefault
	if v, ok := c.query("select"); ok && v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxSelect {
			return 0, 0, badParameter("Select must be a whole number from 1 to 1000.")
		}
		limit = n
	}
	if v, ok := c.query("skip"); ok && v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return 0, 0, badParameter("Skip must be a whole number of at least 0.")
		}
		skip = n
	}
	return limit, skip, nil
}

func (c *call) boolQuery(name string) (bool, error) {
	v, ok := c.query(name)
	if !ok || v == "" {
		return false, nil
	}
	switch strings.ToLower(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, badParameter(name + " must be true or false.")
}

// id reads a path parameter that must be a positive int32.
func (c *call) id(param int) (int32, error) {
	n, err := strconv.ParseInt(c.params[param], 10, 32)
	if err != nil || n < 1 {
		return 0, badParameter("The id in the path must be a positive number.")
	}
	return int32(n), nil
}

// since reads a date in the path, in milliseconds since 1970.
func (c *call) since(param int) (int64, error) {
	t, ok := parseDate(c.params[param])
	if !ok {
		return 0, badParameter("The date in the path is not an ISO 8601 date.")
	}
	return t.UnixMilli(), nil
}

const (
	maxSmallBody  = 4 << 20
	maxV2Import   = 10 << 20
	maxV3Import   = 50 << 20
	maxSingleBody = 1 << 20
)

// decode binds a small v2 JSON body; names match ignoring case and unknown
// names are ignored, as the service binds.
func (c *call) decode(v any, limit int64) error {
	if err := c.wantJSON(); err != nil {
		return err
	}
	body, err := readAll(c.r, limit)
	if err != nil {
		return badParameter("The request is too large or broke off.")
	}
	defer putBuffer(body)
	if err := json.Unmarshal(*body, v); err != nil {
		return v2Error("ERROR_MALFORMED_REQUEST", "The request body is not the JSON that this call takes.")
	}
	return nil
}

func (c *call) wantJSON() error {
	mt, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || mt != "application/json" && mt != "text/json" {
		if c.family.service != "" {
			return v3Error(http.StatusBadRequest, "badRequest", "The Content-Type must be application/json.")
		}
		return v2Error("ERROR_CONTENT_TYPE_IS_NOT_SUPPORTED", "The Content-Type must be application/json.")
	}
	return nil
}

var errTooLarge = errors.New("body over the limit")

// buffers are kept between calls because an import body has tens of megabytes.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

func getBuffer() *[]byte {
	b := buffers.Get().(*[]byte)
	*b = (*b)[:0]
	return b
}

func putBuffer(b *[]byte) { buffers.Put(b) }

// readAll reads the whole body into a pooled buffer.
func readAll(r *http.Request, limit int64) (*[]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	pb := getBuffer()
	b := *pb
	if n := int(r.ContentLength); n > 0 && cap(b) < n+1 {
		b = make([]byte, 0, n+1)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			*pb = b
			putBuffer(pb)
			return nil, errTooLarge
		}
		if err == io.EOF {
			*pb = b
			return pb, nil
		}
		if err != nil {
			*pb = b
			putBuffer(pb)
			return nil, err
		}
	}
}

// dateLayouts are the forms that real clients put into paths and values.
var dateLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02",
}

func parseDate(s string) (time.Time, bool) {
	if len(s) < 10 || len(s) > 40 {
		return time.Time{}, false
	}
	for _, l := range dateLayouts {
		if t, err := time.Parse(l, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

const wireTime = "2006-01-02T15:04:05.000Z"

// appendTime appends a quoted time of the answers.
func appendTime(b []byte, ms int64) []byte {
	b = append(b, '"')
	b = time.UnixMilli(ms).UTC().AppendFormat(b, wireTime)
	return append(b, '"')
}

func formatTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(wireTime) }
