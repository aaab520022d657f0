package dataverse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"sort"
	"strings"
)

// maxBatch is the most operations of one batch, those in change sets included.
const maxBatch = 1000

// part is one operation of a batch.
type part struct {
	id     string // Content-ID
	method string
	target string
	header http.Header
	body   []byte
}

// unit is one entry of a batch: a single operation or a change set.
type unit struct {
	parts     []part
	changeSet bool
}

// batch runs many operations in order. Without odata.continue-on-error it stops
// at the first failure, whose status becomes that of the whole.
func (c *call) batch() (*answer, error) {
	if c.method != http.MethodPost || len(c.path) > 1 {
		return nil, wrongMethod(c.method)
	}
	units, err := c.readBatch()
	if err != nil {
		return nil, err
	}
	boundary := "batchresponse_" + c.s.newID().String()
	var out bytes.Buffer
	status := http.StatusOK
	for _, u := range units {
		failed := 0
		if u.changeSet {
			failed = c.changeSet(&out, boundary, u)
		} else {
			a := c.runPart(u.parts[0], nil)
			writePart(&out, boundary, "", a, c.s.newID().String())
			if a.status >= 400 {
				failed = a.status
			}
		}
		if failed != 0 && !c.prefer.continueOnError {
			status = failed
			break
		}
	}
	out.WriteString("--" + boundary + "--\r\n")
	return (&answer{status: status, body: out.Bytes()}).set("Content-Type", "multipart/mixed; boundary="+boundary), nil
}

// readBatch takes the envelope apart; anything wrong with it refuses the whole.
func (c *call) readBatch() ([]unit, error) {
	reader, err := parts(c.header.Get("Content-Type"), c.body)
	if err != nil {
		return nil, err
	}
	var units []unit
	total := 0
	ids := map[string]bool{}
	for {
		p, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			return units, nil
		}
		if err != nil {
			return nil, badRequest("The batch request is malformed: %v.", err)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return nil, badRequest("The batch request is malformed: %v.", err)
		}
		u := unit{}
		if strings.HasPrefix(strings.ToLower(p.Header.Get("Content-Type")), "multipart/mixed") {
			u.changeSet = true
			inner, err := parts(p.Header.Get("Content-Type"), content)
			if err != nil {
				return nil, err
			}
			for {
				q, err := inner.NextRawPart()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return nil, badRequest("The change set is malformed: %v.", err)
				}
				content, err := io.ReadAll(q)
				if err != nil {
					return nil, badRequest("The change set is malformed: %v.", err)
				}
				one, err := readPart(q.Header, content)
				if err != nil {
					return nil, err
				}
				if one.method == http.MethodGet {
					return nil, badRequest("A change set must not contain a GET request.")
				}
				if one.id == "" || ids[one.id] {
					return nil, badRequest("Each request of a change set needs a Content-ID that is unique in the batch.")
				}
				ids[one.id] = true
				u.parts = append(u.parts, one)
			}
		} else {
			one, err := readPart(p.Header, content)
			if err != nil {
				return nil, err
			}
			u.parts = []part{one}
		}
		if total += len(u.parts); total > maxBatch {
			return nil, badRequest("The maximum number of requests in a batch is %d.", maxBatch)
		}
		units = append(units, u)
	}
}

func parts(contentType string, body []byte) (*multipart.Reader, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, badRequest("A batch needs the content type multipart/mixed with a boundary.")
	}
	if i := bytes.IndexByte(body, '\n'); i >= 0 && (i == 0 || body[i-1] != '\r') {
		return nil, badRequest("The lines of a batch end with carriage return and line feed.")
	}
	return multipart.NewReader(bytes.NewReader(body), params["boundary"]), nil
}

// readPart reads the HTTP request inside of a part.
func readPart(h textproto.MIMEHeader, content []byte) (part, error) {
	if !strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "application/http") {
		return part{}, badRequest("A part of a batch has the content type application/http.")
	}
	if !strings.EqualFold(h.Get("Content-Transfer-Encoding"), "binary") {
		return part{}, badRequest("A part of a batch has the Content-Transfer-Encoding binary.")
	}
	r := bufio.NewReader(bytes.NewReader(content))
	line, err := r.ReadString('\n')
	if err != nil {
		return part{}, badRequest("A part of the batch has no request line.")
	}
	method, rest, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), " ")
	at := strings.LastIndex(rest, " HTTP/1.1")
	if !ok || at < 0 || at+len(" HTTP/1.1") != len(rest) {
		return part{}, badRequest("'%.80s' is not a request line.", strings.TrimSpace(line))
	}
	header, err := textproto.NewReader(r).ReadMIMEHeader()
	if err != nil && len(header) == 0 {
		return part{}, badRequest("The headers of a part must be followed by an empty line.")
	}
	body, _ := io.ReadAll(r)
	id := h.Get("Content-ID")
	if id == "" {
		id = header.Get("Content-Id")
	}
	return part{id: id, method: method, target: rest[:at], header: http.Header(header), body: bytes.TrimSpace(body)}, nil
}

// changeSet runs the operations of a change set in one transaction and writes
// their answers, or one error for all. It returns the failing status, else 0.
func (c *call) changeSet(out *bytes.Buffer, boundary string, u unit) int {
	inner := "changesetresponse_" + c.s.newID().String()
	answers := make([]*answer, 0, len(u.parts))
	refs := map[string]string{}
	c.begin()
	open := true
	defer func() {
		if open { // a panic must not leave the store locked
			c.end(false)
		}
	}()
	for _, p := range u.parts {
		a := c.runPart(p, refs)
		if a.status >= 400 {
			open = false
			c.end(false)
			writePart(out, boundary, "", a, c.s.newID().String())
			return a.status
		}
		if a.entity != "" {
			refs[p.id] = a.entity
		}
		answers = append(answers, a)
	}
	open = false
	c.end(true)
	out.WriteString("--" + boundary + "\r\nContent-Type: multipart/mixed; boundary=" + inner + "\r\n\r\n")
	for i, a := range answers {
		writePart(out, inner, u.parts[i].id, a, c.s.newID().String())
	}
	out.WriteString("--" + inner + "--\r\n\r\n")
	return 0
}

// inherited are headers of the envelope that hold for every part.
var inherited = []string{"MSCRM.SuppressDuplicateDetection", "MSCRM.SolutionUniqueName", "MSCRM.BypassBusinessLogicExecution"}

// runPart answers one operation. refs is non-nil inside of a change set.
func (c *call) runPart(p part, refs map[string]string) *answer {
	legacy := strings.HasPrefix(c.version, "8")
	sub := &call{
		s: c.s, sch: c.s.sch.Load(), method: p.method, header: p.header, body: p.body, user: c.user, version: c.version,
		now: c.now, view: c.view, tx: c.tx, refs: refs,
	}
	for _, name := range inherited {
		if v := c.header.Get(name); v != "" && p.header.Get(name) == "" {
			p.header.Set(name, v)
		}
	}
	var err *apiError
	if sub.prefer, err = c.s.parsePrefer(p.header); err != nil {
		return c.s.refusal(err, legacy, nil)
	}
	target := p.target
	if len(target) > maxBatchURL {
		return c.s.refusal(badRequest("The request URL is longer than %d characters.", maxBatchURL), legacy, &sub.prefer)
	}
	if strings.HasPrefix(target, "$") && !strings.HasPrefix(target, "$batch") {
		id, rest, _ := strings.Cut(target[1:], "/")
		full, ok := refs[id]
		if !ok {
			return c.s.refusal(badRequest("Content-ID Reference: '$%s' does not exist in the batch context.", id), legacy, &sub.prefer)
		}
		target = full
		if rest != "" {
			target += "/" + rest
		}
	}
	u, perr := url.Parse(target)
	if perr != nil {
		return c.s.refusal(badRequest("'%.80s' is not a valid URL.", target), legacy, &sub.prefer)
	}
	rest := u.EscapedPath()
	if _, below, ok := apiPath(rest); ok {
		rest = below
	} else if strings.HasPrefix(rest, "/") {
		return c.s.refusal(noSegment(rest), legacy, &sub.prefer)
	}
	sub.query = u.RawQuery
	sub.op = operationName(p.method, rest, u.RawQuery, p.header)
	c.s.disturb(sub)
	sub.sch = c.s.sch.Load()
	if sub.path, err = splitPath(rest); err != nil {
		return c.s.refusal(err, legacy, &sub.prefer)
	}
	if sub.path[0].name == "$batch" {
		return c.s.refusal(badRequest("A batch cannot contain a batch."), legacy, &sub.prefer)
	}
	return sub.answer()
}

// writePart writes one answer as a part of the response.
func writePart(out *bytes.Buffer, boundary, id string, a *answer, request string) {
	out.WriteString("--" + boundary + "\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n")
	if id != "" {
		out.WriteString("Content-ID: " + id + "\r\n")
	}
	fmt.Fprintf(out, "\r\nHTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	names := make([]string, 0, len(a.header))
	for k := range a.header {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		for _, v := range a.header[k] {
			out.WriteString(spelled(k) + ": " + v + "\r\n")
		}
	}
	out.WriteString("OData-Version: 4.0\r\n")
	if a.status >= 400 {
		out.WriteString("REQ_ID: " + request + "\r\n")
	}
	out.WriteString("\r\n")
	out.Write(a.body)
	out.WriteString("\r\n")
}

// spelled gives header names the casing of the service.
func spelled(name string) string {
	switch name {
	case "Odata-Entityid":
		return "OData-EntityId"
	case "Etag":
		return "ETag"
	case "Www-Authenticate":
		return "WWW-Authenticate"
	}
	return name
}
