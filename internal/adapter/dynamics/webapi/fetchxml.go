package webapi

import (
	"encoding/xml"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// The limits of a dynamic list's query; those of links and conditions are the
// service's own.
const (
	maxQueryDepth      = 64
	maxQueryLinks      = 15
	maxQueryConditions = 500
)

// fetchQuery is the stored query of a dynamic list, reduced to what decides who
// is in it.
type fetchQuery struct {
	entity   string
	body     string // filters and links of the entity, written anew
	tables   []string
	volatile bool
	// tests are the filters of the entity, all of which must hold; decided is set
	// when they are everything that the query asks for and each can be decided from
	// a record alone.
	tests   []test
	decided bool
}

// test decides a filter from a record as it was read; nil = only the service can.
type test func(*lockstep.Record) bool

func badQuery(msg, hint string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics", Field: "query", Msg: "the query of the dynamic list cannot be run: " + msg, Hint: hint, Scope: lockstep.ScopeBatch}
}

const openQuery = "open the list in Dynamics and save its query again"

// parseFetch reads FetchXML: no document type, no entities, bounded in size and
// depth. Columns, order, paging and layout are dropped; what filters is kept.
func parseFetch(text, member string) (*fetchQuery, error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return nil, badQuery("it is empty", openQuery)
	case len(text) > maxListQuery:
		return nil, badQuery("it is longer than 1 MB", "simplify the query in Dynamics")
	case trimmed[0] != '<':
		return nil, badQuery("it is not FetchXML", openQuery)
	}
	d := xml.NewDecoder(strings.NewReader(trimmed))
	d.Strict = true
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errors.New("not UTF-8") }
	p := &fetchParser{d: d, q: &fetchQuery{}}
	if err := p.document(); err != nil {
		if known, ok := errors.AsType[*lockstep.Error](err); ok {
			return nil, known
		}
		return nil, badQuery("it is not well-formed", openQuery)
	}
	if p.q.entity != member {
		return nil, badQuery(fmt.Sprintf("it asks for %.60q, but the list's members are of the table %s", p.q.entity, member), openQuery)
	}
	p.q.body = p.out.String()
	p.q.decided = p.links == 0 && !p.q.volatile && !slices.ContainsFunc(p.q.tests, func(t test) bool { return t == nil })
	return p.q, nil
}

type fetchParser struct {
	d                 *xml.Decoder
	q                 *fetchQuery
	out               strings.Builder
	links, conditions int
}

// next returns the next element or its end, skipping text and comments.
func (p *fetchParser) next() (xml.Token, error) {
	for {
		t, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, badQuery("it contains a document type", openQuery)
		case xml.StartElement:
			if t.Name.Space != "" {
				return nil, badQuery("it contains elements of a foreign namespace", openQuery)
			}
			return t, nil
		case xml.EndElement:
			return t, nil
		}
	}
}

func (p *fetchParser) document() error {
	t, err := p.next()
	if err != nil {
		return err
	}
	root, ok := t.(xml.StartElement)
	if !ok || root.Name.Local != "fetch" {
		return badQuery("it does not begin with fetch", openQuery)
	}
	if a := attribute(root, "aggregate"); a == "true" || a == "1" {
		return badQuery("it aggregates", "a list's query must name its members")
	}
	for {
		t, err := p.next()
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			break
		}
		if start.Name.Local != "entity" {
			if err := p.skip(2); err != nil {
				return err
			}
			continue
		}
		if p.q.entity != "" {
			return badQuery("it has two entities", openQuery)
		}
		if p.q.entity = attribute(start, "name"); !logicalName.MatchString(p.q.entity) {
			return badQuery("it names no table", openQuery)
		}
		p.q.tables = append(p.q.tables, p.q.entity)
		if err := p.children(2); err != nil {
			return err
		}
	}
	if p.q.entity == "" {
		return badQuery("it names no table", openQuery)
	}
	for { // nothing but space may follow
		t, err := p.d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return badQuery("something follows its end", openQuery)
			}
		case xml.Comment:
		default:
			return badQuery("something follows its end", openQuery)
		}
	}
}

// children copies what filters out of an entity or link.
func (p *fetchParser) children(depth int) error {
	for {
		t, err := p.next()
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			return nil
		}
		switch start.Name.Local {
		case "filter":
			var t test
			t, err = p.filter(start, depth+1)
			p.q.tests = append(p.q.tests, t)
		case "link-entity":
			err = p.link(start, depth+1)
		default: // columns, order, layout
			err = p.skip(depth + 1)
		}
		if err != nil {
			return err
		}
	}
}

func (p *fetchParser) link(start xml.StartElement, depth int) error {
	if depth > maxQueryDepth {
		return badQuery("it nests too deep", "simplify the query in Dynamics")
	}
	if p.links++; p.links > maxQueryLinks {
		return badQuery(fmt.Sprintf("it has more than %d related tables", maxQueryLinks), "simplify the query in Dynamics")
	}
	name := attribute(start, "name")
	if !logicalName.MatchString(name) {
		return badQuery("a related table has no name", openQuery)
	}
	if !slices.Contains(p.q.tables, name) {
		p.q.tables = append(p.q.tables, name)
	}
	p.open(start, "name", "from", "to", "alias", "link-type", "intersect", "visible")
	if err := p.children(depth); err != nil {
		return err
	}
	p.out.WriteString("</link-entity>")
	return nil
}

func (p *fetchParser) filter(start xml.StartElement, depth int) (test, error) {
	if depth > maxQueryDepth {
		return nil, badQuery("it nests too deep", "simplify the query in Dynamics")
	}
	p.open(start, "type", "isquickfindfields", "overridequickfindrecordlimitenabled", "overridequickfindrecordlimitdisabled", "hint")
	var tests []test
	for {
		t, err := p.next()
		if err != nil {
			return nil, err
		}
		inner, ok := t.(xml.StartElement)
		if !ok {
			p.out.WriteString("</filter>")
			return combine(start, tests), nil
		}
		var it test
		switch inner.Name.Local {
		case "filter":
			it, err = p.filter(inner, depth+1)
		case "condition":
			it, err = p.condition(inner)
		case "link-entity": // any, all and their opposites
			err = p.link(inner, depth+1)
		default:
			// Leaving out what filters would let more people in.
			err = badQuery(fmt.Sprintf("it contains the unknown condition %.60q", inner.Name.Local), openQuery)
		}
		if err != nil {
			return nil, err
		}
		tests = append(tests, it)
	}
}

// combine is the test of a whole filter; nil when a part of it, or what the filter
// itself says, is left to the service.
func combine(filter xml.StartElement, parts []test) test {
	if len(parts) == 0 || slices.ContainsFunc(parts, func(t test) bool { return t == nil }) {
		return nil
	}
	for _, a := range filter.Attr {
		if a.Name.Local != "type" {
			return nil
		}
	}
	switch attribute(filter, "type") {
	case "and", "":
		return func(r *lockstep.Record) bool {
			return !slices.ContainsFunc(parts, func(t test) bool { return !t(r) })
		}
	case "or":
		return func(r *lockstep.Record) bool {
			return slices.ContainsFunc(parts, func(t test) bool { return t(r) })
		}
	}
	return nil
}

func (p *fetchParser) condition(start xml.StartElement) (test, error) {
	if p.conditions++; p.conditions > maxQueryConditions {
		return nil, badQuery(fmt.Sprintf("it has more than %d conditions", maxQueryConditions), "simplify the query in Dynamics")
	}
	if isVolatile(attribute(start, "operator")) {
		p.q.volatile = true
	}
	p.open(start, "attribute", "operator", "value", "valueof", "entityname", "column")
	var values []string
	for {
		t, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, badQuery("it contains a document type", openQuery)
		case xml.EndElement:
			p.out.WriteString("</condition>")
			return comparison(start, values), nil
		case xml.StartElement:
			if t.Name.Local != "value" || t.Name.Space != "" {
				return nil, badQuery(fmt.Sprintf("a condition contains the unknown element %.60q", t.Name.Local), openQuery)
			}
			var v string
			if err := p.d.DecodeElement(&v, &t); err != nil {
				return nil, err
			}
			values = append(values, v)
			p.out.WriteString("<value>")
			p.out.WriteString(escapeXML(v))
			p.out.WriteString("</value>")
		}
	}
}

// comparison is the test of a condition. Only one is decided here: whether the record
// is active, which is never null and compares as a number does. Texts compare by the
// collation of the database, flags may be null, times move: those are the service's.
func comparison(c xml.StartElement, values []string) test {
	for _, a := range c.Attr {
		if !slices.Contains([]string{"attribute", "operator", "value", "uiname", "uitype", "uihidden"}, a.Name.Local) {
			return nil
		}
	}
	if v := attribute(c, "value"); v != "" {
		values = append(values, v)
	}
	if attribute(c, "attribute") != "statecode" || len(values) != 1 || values[0] != "0" {
		return nil
	}
	switch attribute(c, "operator") {
	case "eq", "in":
		return func(r *lockstep.Record) bool { return !r.Inactive }
	case "ne":
		return func(r *lockstep.Record) bool { return r.Inactive }
	}
	return nil
}

// open writes a start tag with those attributes that decide something.
func (p *fetchParser) open(start xml.StartElement, keep ...string) {
	p.out.WriteString("<" + start.Name.Local)
	for _, a := range start.Attr {
		if a.Name.Space == "" && slices.Contains(keep, a.Name.Local) {
			p.out.WriteString(" " + a.Name.Local + `="` + escapeXML(a.Value) + `"`)
		}
	}
	p.out.WriteString(">")
}

// skip reads past an element whose start was read.
func (p *fetchParser) skip(depth int) error {
	for open := 1; open > 0; {
		t, err := p.next()
		if err != nil {
			return err
		}
		if _, ok := t.(xml.StartElement); ok {
			open++
		} else {
			open--
		}
		if depth+open > maxQueryDepth {
			return badQuery("it nests too deep", "simplify the query in Dynamics")
		}
	}
	return nil
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

// isVolatile reports operators whose result moves with time alone, or with the
// user who asks.
func isVolatile(op string) bool {
	switch op {
	case "today", "yesterday", "tomorrow", "last-seven-days", "next-seven-days":
		return true
	}
	for _, prefix := range []string{"this-", "last-", "next-", "olderthan-"} {
		if strings.HasPrefix(op, prefix) {
			return true
		}
	}
	return strings.Contains(op, "userid") || strings.Contains(op, "userteams") || strings.Contains(op, "useroruser") || strings.Contains(op, "businessid") || strings.Contains(op, "userlanguage")
}

// hash tells queries apart whose members are not the same.
func (q *fetchQuery) hash() uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, q.entity+"\x00"+q.body)
	return h.Sum64()
}

// members writes the query for one page of the members' keys, narrowed to these
// records when there are any: filters beside each other must all hold.
func (q *fetchQuery) members(key string, among []lockstep.ID, rows, page int, cookie string) string {
	var b strings.Builder
	b.WriteString(`<fetch version="1.0" mapping="logical" distinct="true" count="` + strconv.Itoa(rows) + `" page="` + strconv.Itoa(page) + `"`)
	if cookie != "" {
		b.WriteString(` paging-cookie="` + escapeXML(cookie) + `"`)
	}
	b.WriteString(`><entity name="` + q.entity + `"><attribute name="` + key + `"/><order attribute="` + key + `"/>` + q.body)
	if len(among) > 0 {
		b.WriteString(`<filter><condition attribute="` + key + `" operator="in">`)
		for _, id := range among {
			b.WriteString(`<value>` + id.String() + `</value>`)
		}
		b.WriteString(`</condition></filter>`)
	}
	b.WriteString(`</entity></fetch>`)
	return b.String()
}

// pagingCookie takes the inner cookie out of the annotation, where it is encoded
// twice; empty when there is none.
func pagingCookie(annotation string) string {
	var outer struct {
		Cookie string `xml:"pagingcookie,attr"`
	}
	if annotation == "" || xml.Unmarshal([]byte(annotation), &outer) != nil {
		return ""
	}
	s := outer.Cookie
	for range 2 {
		u, err := url.QueryUnescape(s)
		if err != nil {
			return ""
		}
		s = u
	}
	return s
}
