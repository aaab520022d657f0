package dataverse

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// maxCount is what @odata.count and /$count tell at most.
const maxCount = 5000

func (c *call) env() query.Env {
	return query.Env{Now: c.now, User: c.user.id, BusinessUnit: c.user.unit, Language: 1033}
}

// parse reads the query options of a table, OData or FetchXML.
func (c *call) parse(t *schema.Table) (*query.Query, error) {
	qt := c.sch.byName[t.Name]
	fetch, raw := "", c.query
	for part := range strings.SplitSeq(c.query, "&") {
		name, val, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, badRequest("The query of the URL is not valid.")
		}
		switch name {
		case "sql":
			return nil, notEmulated("The sql query option")
		case "savedQuery", "userQuery":
			return nil, notEmulated("The " + name + " query option")
		case "fetchXml":
			if fetch, err = url.QueryUnescape(val); err != nil {
				return nil, badRequest("The fetchXml parameter is not valid.")
			}
		}
	}
	if fetch != "" {
		return query.ParseFetch(c.sch, qt, fetch)
	}
	return query.ParseOData(c.sch, qt, raw)
}

// list answers a collection; scope narrows it to the rows related to one record.
func (c *call) list(t *schema.Table, scope *query.Scope) (*answer, error) {
	if err := c.need("Read", t); err != nil {
		return nil, err
	}
	q, err := c.parse(t)
	if err != nil {
		return nil, err
	}
	tracking := c.prefer.track || q.DeltaToken != "" || strings.Contains(q.SkipToken, `istracking="True"`)
	if tracking && scope == nil {
		return c.tracked(t, q)
	}
	opt := query.Options{Env: c.env(), Schema: c.sch, PageSize: c.prefer.pageSize, Scope: scope}
	page := 1
	if q.SkipToken != "" {
		var inner string
		if page, inner, _, err = query.ParseSkipToken(q.SkipToken); err != nil {
			return nil, err
		}
		if opt.After, err = q.ParseCookie(inner); err != nil {
			return nil, err
		}
		if opt.After == nil && inner == "" {
			opt.Skip = (page - 1) * pageSize(opt.PageSize)
		}
	}
	if q.Fetch {
		page = max(1, q.Page)
		if q.PageSize > 0 {
			opt.PageSize = min(q.PageSize, query.MaxPage)
		}
		if q.PagingCookie != "" && page > 1 {
			if opt.After, err = q.ParseCookie(q.PagingCookie); err != nil {
				return nil, err
			}
		} else if page > 1 {
			opt.Skip = (page - 1) * pageSize(opt.PageSize)
		}
	}
	c.drift(t)
	src := c.source(t)
	src.members = c.narrowToList(t, q, &opt)
	res, err := q.Run(src, opt)
	if err != nil {
		return nil, err
	}
	body, err := c.page(t, q, res, opt, src, page)
	if err != nil {
		return nil, err
	}
	a := pageAnswer(body)
	if applied := c.prefer.applied(false, true, false); applied != "" {
		a.set("Preference-Applied", applied)
	}
	return a, nil
}

func pageSize(n int) int {
	if n <= 0 {
		return query.MaxPage
	}
	return n
}

// page writes the envelope of one page.
func (c *call) page(t *schema.Table, q *query.Query, res *query.Result, opt query.Options, src query.Source, page int) ([]byte, error) {
	dst := pageBuffer()
	dst = append(dst, `{"@odata.context":`...)
	dst = value.AppendString(dst, c.context()+contextOf(t, q))
	if q.Count {
		n, exceeded, err := q.CountRows(src, query.Options{Env: opt.Env, Schema: opt.Schema, Scope: opt.Scope})
		if err != nil {
			return nil, err
		}
		if !q.Fetch {
			dst = append(dst, `,"@odata.count":`...)
			dst = strconv.AppendInt(dst, int64(n), 10)
		}
		if c.prefer.wants(annTotal) {
			dst = append(dst, `,"@`+annTotal+`":`...)
			dst = strconv.AppendInt(dst, int64(n), 10)
		}
		if c.prefer.wants(annTotalLimit) {
			dst = append(dst, `,"@`+annTotalLimit+`":`...)
			dst = strconv.AppendBool(dst, exceeded)
		}
	} else {
		if c.prefer.wants(annTotal) {
			dst = append(dst, `,"@`+annTotal+`":-1`...)
		}
		if c.prefer.wants(annTotalLimit) {
			dst = append(dst, `,"@`+annTotalLimit+`":false`...)
		}
	}
	if c.prefer.wants(annMetadata) {
		dst = append(dst, `,"@`+annMetadata+`":"`...)
		dst = strconv.AppendInt(dst, c.sch.Version, 10)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"value":[`...)
	start := len(dst)
	w := c.recordWriter(t, q, src, opt)
	skip := c.skipOne()
	n := 0
	for res.Next() {
		if n%store.WarmRows == 0 {
			w.warm(res)
		}
		if n++; skip && n == 2 {
			continue
		}
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = w.append(dst, res.Record()); err != nil {
			return nil, err
		}
	}
	if err := res.Err(); err != nil {
		return nil, err
	}
	if !res.More() {
		return append(dst, "]}"...), nil
	}
	last, variant := res.LastKey(), c.repeat()
	switch variant {
	case dupRows:
		last = res.FirstKey()
	case dupEmpty:
		dst = dst[:start]
	}
	dst = append(dst, ']')
	cookie := q.Cookie(page, res.FirstKey(), last)
	if q.Fetch {
		if c.prefer.wants(annCookie) && q.Keyset() {
			dst = append(dst, `,"@`+annCookie+`":`...)
			dst = value.AppendString(dst, query.SkipToken(page+1, cookie, false))
		}
		if c.prefer.wants(annMore) {
			dst = append(dst, `,"@`+annMore+`":true`...)
		}
		return append(dst, '}'), nil
	}
	dst = append(dst, `,"@odata.nextLink":`...)
	dst = value.AppendString(dst, c.bend(c.link("$skiptoken", query.SkipToken(page+1, cookie, false)), variant))
	return append(dst, '}'), nil
}

// link is the URL of the call with one option set and the paging options of the
// request taken away.
func (c *call) link(option, val string) string {
	var b strings.Builder
	b.WriteString(c.root())
	b.WriteString(strings.Join(pathTexts(c.path), "/"))
	b.WriteByte('?')
	for part := range strings.SplitSeq(c.query, "&") {
		name, _, _ := strings.Cut(part, "=")
		name, _ = url.QueryUnescape(name)
		if part == "" || name == "$skiptoken" || name == "$deltatoken" {
			continue
		}
		b.WriteString(part)
		b.WriteByte('&')
	}
	b.WriteString(option + "=" + strings.ReplaceAll(url.QueryEscape(val), "+", "%20"))
	return b.String()
}

// pathTexts writes the segments of a path as they stand in a URL.
func pathTexts(path []segment) []string {
	out := make([]string, len(path))
	for i, s := range path {
		out[i] = s.name
		if s.parens {
			out[i] += "(" + strings.ReplaceAll(url.PathEscape(s.inside), "%27", "'") + ")"
		}
	}
	return out
}

// contextOf is the fragment of the context URL that names set and columns.
func contextOf(t *schema.Table, q *query.Query) string {
	var parts []string
	if !q.AllColumns {
		parts = append(parts, q.Select...)
	}
	for _, x := range q.Expands {
		parts = append(parts, x.Navigation.Name+"("+strings.Join(x.Query.Select, ",")+")")
	}
	if len(parts) == 0 {
		return t.Set
	}
	return t.Set + "(" + strings.Join(parts, ",") + ")"
}

// recordWriter writes the results of one query.
type recordWriter struct {
	c   *call
	q   *query.Query
	p   *projection
	raw bool // rows can be written straight from their encoding
	src query.Source
	opt query.Options
	sub []*recordWriter
}

func (c *call) recordWriter(t *schema.Table, q *query.Query, src query.Source, opt query.Options) *recordWriter {
	w := &recordWriter{c: c, q: q, src: src, opt: opt}
	w.raw = !q.Aggregate && !q.Distinct
	for i := range q.Outputs {
		o := &q.Outputs[i]
		if o.Table == nil || o.Aggregated || o.Table.LogicalName() != t.Name || o.Name != o.Column.Property() {
			w.raw = false
		}
	}
	var cols []*schema.Column
	if w.raw {
		cols = columnsOf(t, q.Outputs)
	}
	w.p = c.projection(t, cols)
	w.p.omitNull = q.Fetch
	for i := range q.Expands {
		x := &q.Expands[i]
		w.sub = append(w.sub, c.recordWriter(c.sch.Table(x.Table.LogicalName()), x.Query, src, query.Options{Env: opt.Env, Schema: opt.Schema}))
	}
	return w
}

// warm prepares the current record and those behind it for being written.
func (w *recordWriter) warm(res *query.Result) {
	if !w.raw {
		return
	}
	var rows [store.WarmRows]*store.Row
	n := 0
	for r := range res.Ahead(len(rows)) {
		if rows[n], _ = r.(*store.Row); rows[n] != nil {
			n++
		}
	}
	store.Warm(rows[:n])
}

func (w *recordWriter) append(dst []byte, rec *query.Record) ([]byte, error) {
	row, _ := rec.Row().(*store.Row)
	if w.raw && row != nil {
		dst = w.p.appendRow(dst, row)
	} else {
		dst = append(dst, '{')
		if row != nil && !w.q.Aggregate && !w.q.Distinct {
			dst = append(dst, `"@odata.etag":"W/\"`...)
			dst = strconv.AppendInt(dst, row.Version, 10)
			dst = append(dst, `\""`...)
		}
		for i := range w.q.Outputs {
			dst = w.p.appendOutput(dst, &w.q.Outputs[i], rec.Value(&w.q.Outputs[i]))
		}
	}
	for i := range w.q.Expands {
		if row == nil {
			break
		}
		var err error
		if dst, err = w.expand(dst, i, row); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// expand writes one expanded navigation property of a row.
func (w *recordWriter) expand(dst []byte, i int, row *store.Row) ([]byte, error) {
	x := &w.q.Expands[i]
	target := w.c.sch.Table(x.Table.LogicalName())
	if err := w.c.need("Read", target); err != nil {
		return nil, err
	}
	dst = append(w.p.comma(dst), '"')
	dst = append(append(dst, x.Navigation.Name...), `":`...)
	single := x.Navigation.Cardinality == query.ToOne
	if single && !w.targetMatches(x, row) {
		return append(dst, "null"...), nil
	}
	res, err := w.q.RunExpand(w.src, w.opt, x, row)
	if err != nil {
		return nil, err
	}
	if !single {
		dst = append(dst, '[')
	}
	n := 0
	for res.Next() {
		if n++; n > 1 {
			dst = append(dst, ',')
		}
		if x.Ref {
			id := res.Record().Row().Value(schema.IDOrd).GUID()
			dst = append(dst, `{"@odata.id":"`+w.c.root()+target.Set+"("+id.String()+`)"}`...)
			continue
		}
		if dst, err = w.sub[i].append(dst, res.Record()); err != nil {
			return nil, err
		}
	}
	if err := res.Err(); err != nil {
		return nil, err
	}
	if single {
		if n == 0 {
			dst = append(dst, "null"...)
		}
		return dst, nil
	}
	dst = append(dst, ']')
	dst = append(dst, `,"`+x.Navigation.Name+`@odata.nextLink":`...)
	return value.AppendString(dst, w.c.root()+w.p.t.Set+"("+row.ID.String()+")/"+x.Navigation.Name), nil
}

// targetMatches reports whether a lookup with several possible tables points to
// the table of this navigation property.
func (w *recordWriter) targetMatches(x *query.Expand, row *store.Row) bool {
	rel := w.p.t.Navigation(x.Navigation.Name)
	if rel == nil || rel.Referenced == "owner" {
		return true
	}
	col := w.p.t.Column(rel.Column)
	cell := row.Cell(int(col.Ord))
	return !cell.Value.IsNull() && int(cell.Target) < len(col.Targets) && col.Targets[cell.Target] == rel.Referenced
}

// source picks how the rows of a table are read: through an index when the
// filter is a conjunction that fixes an indexed lookup, else in key order.
func (c *call) source(t *schema.Table) source {
	src := source{view: c.view, reach: c.reach()}
	filter := ""
	for part := range strings.SplitSeq(c.query, "&") {
		if name, val, _ := strings.Cut(part, "="); name == "$filter" || strings.EqualFold(name, "%24filter") {
			filter, _ = url.QueryUnescape(val)
		}
	}
	words := strings.Fields(filter)
	for i, w := range words {
		if w == "or" || w == "not" || strings.ContainsAny(w, "()") {
			return source{view: c.view, reach: c.reach()} // also when an earlier word fixed a lookup
		}
		if i+2 >= len(words) || words[i+1] != "eq" {
			continue
		}
		if col := t.WireColumn(w); col != nil && col.Type.IsLookup() && c.view.HasIndex(t.Name, columnIndex(col.Name)) {
			if id, err := value.ParseID(words[i+2]); err == nil {
				src.narrow = &narrowing{table: t.Name, index: columnIndex(col.Name), key: store.Hash(value.GUID(id))}
			}
		}
	}
	if src.narrow == nil {
		src.since = sinceOf(c, t, words)
	}
	return src
}

// sinceOf finds "versionnumber gt n" in a conjunction and returns the ids of the
// rows written since, when they are few.
func sinceOf(c *call, t *schema.Table, words []string) *since {
	for i, w := range words {
		if w != "versionnumber" || i+2 >= len(words) || words[i+1] != "gt" && words[i+1] != "ge" {
			continue
		}
		n, err := strconv.ParseInt(words[i+2], 10, 64)
		if err != nil {
			return nil
		}
		if words[i+1] == "ge" {
			n--
		}
		if changed := c.view.ChangedCount(t.Name, n); changed < 100_000 && changed < c.view.Count(t.Name)/4 {
			return newSince(t.Name, c.view.Changed(nil, t.Name, n, 0, changed))
		}
	}
	return nil
}

// count answers /$count: a plain number behind a byte order mark.
func (c *call) count(t *schema.Table, scope *query.Scope) (*answer, error) {
	if err := c.need("Read", t); err != nil {
		return nil, err
	}
	q, err := c.parse(t)
	if err != nil {
		return nil, err
	}
	var n int
	if q.DeltaToken != "" {
		if n, err = c.countChanges(t, q); err != nil {
			return nil, err
		}
	} else {
		opt := query.Options{Env: c.env(), Schema: c.sch, Scope: scope}
		src := c.source(t)
		src.members = c.narrowToList(t, q, &opt)
		if n, _, err = q.CountRows(src, opt); err != nil {
			return nil, err
		}
	}
	a := &answer{status: http.StatusOK, body: []byte("\ufeff" + strconv.Itoa(min(n, maxCount)))}
	return a.set("Content-Type", "text/plain"), nil
}

// getRow answers one record.
func (c *call) getRow(tg *target) (*answer, error) {
	t := tg.table
	if err := c.need("Read", t); err != nil {
		return nil, err
	}
	if t.Name == "listmember" {
		return nil, fail(http.StatusBadRequest, codeNotSupported, "The 'Retrieve' method does not support entities of type 'listmember'.")
	}
	if tg.id.IsZero() && tg.key != nil {
		return nil, keyNotFound(tg)
	}
	row := c.view.Get(t.Name, tg.id)
	if row == nil {
		return nil, notFound(t.Name, tg.id)
	}
	if reach := c.reach(); reach != nil && !reach(t.Name, row) {
		return nil, c.outOfReach(t, tg.id)
	}
	q, err := c.parse(t)
	if err != nil {
		return nil, err
	}
	if match := c.header.Get("If-None-Match"); match == etag(row) && t.Optimistic && len(q.Expands) == 0 && len(c.prefer.annotations) == 0 {
		return (&answer{status: http.StatusNotModified}).set("Etag", etag(row)), nil
	}
	body, err := c.rowBody(t, row, q)
	if err != nil {
		return nil, err
	}
	a := jsonAnswer(http.StatusOK, body).set("Etag", etag(row))
	if applied := c.prefer.applied(false, false, false); applied != "" {
		a.set("Preference-Applied", applied)
	}
	return a, nil
}

func etag(r *store.Row) string { return `W/"` + strconv.FormatInt(r.Version, 10) + `"` }

// rowBody is the representation of one row with its context.
func (c *call) rowBody(t *schema.Table, row *store.Row, q *query.Query) ([]byte, error) {
	if q.Top > 0 || q.Count || q.Aggregate || strings.Contains(c.query, "$filter=") || strings.Contains(c.query, "$orderby=") && len(q.Expands) == 0 {
		return nil, badRequest("A single record takes the query options $select and $expand only.")
	}
	src := source{view: c.view, reach: c.reach()}
	w := c.recordWriter(t, q, src, query.Options{Env: c.env(), Schema: c.sch})
	dst := append([]byte(nil), `{"@odata.context":`...)
	dst = value.AppendString(dst, c.context()+contextOf(t, q)+"/$entity")
	dst = append(dst, ',')
	obj := w.p.appendRow(nil, row)
	dst = append(dst, obj[1:]...)
	for i := range q.Expands {
		var err error
		if dst, err = w.expand(dst, i, row); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// property serves what lies below one row: a column, its raw value, a
// navigation property, references.
func (c *call) property(tg *target, seg segment, rest []segment) (*answer, error) {
	t := tg.table
	row := c.view.Get(t.Name, tg.id)
	if row == nil {
		return nil, notFound(t.Name, tg.id)
	}
	if col := t.WireColumn(seg.name); col != nil && !seg.parens {
		return c.columnValue(t, row, col, rest)
	}
	nav, ok := c.sch.byName[t.Name].Navigation(seg.name)
	if !ok {
		return nil, noSegment(seg.name)
	}
	ref := len(rest) == 1 && rest[0].name == "$ref"
	if ref && c.method != http.MethodGet {
		return c.references(t, row, nav, seg)
	}
	if len(rest) > 1 || len(rest) == 1 && !ref && rest[0].name != "$count" || seg.parens {
		return nil, noSegment(seg.name)
	}
	if c.method != http.MethodGet {
		return nil, wrongMethod(c.method)
	}
	related := c.sch.Table(nav.Target)
	if nav.Cardinality != query.ToOne {
		if ref {
			return nil, badRequest("Reading the references of a collection-valued navigation property is not supported.")
		}
		scope := &query.Scope{Navigation: nav, From: c.sch.byName[t.Name], ID: row.ID}
		if len(rest) == 1 {
			return c.count(related, scope)
		}
		return c.list(related, scope)
	}
	rel := t.Navigation(nav.Name)
	col := t.Column(rel.Column)
	cell := row.Cell(int(col.Ord))
	if cell.Value.IsNull() || rel.Referenced != "owner" && col.Targets[cell.Target] != rel.Referenced {
		return noContent(), nil
	}
	related = c.sch.Table(col.Targets[cell.Target])
	if ref {
		body := append([]byte(nil), `{"@odata.context":`...)
		body = value.AppendString(body, c.context()+"$ref")
		body = append(body, `,"@odata.id":`...)
		body = value.AppendString(body, c.root()+related.Set+"("+cell.Value.GUID().String()+")")
		return jsonAnswer(http.StatusOK, append(body, '}')), nil
	}
	return c.getRow(&target{table: related, id: cell.Value.GUID()})
}

// columnValue reads, sets or clears one column.
func (c *call) columnValue(t *schema.Table, row *store.Row, col *schema.Column, rest []segment) (*answer, error) {
	raw := len(rest) == 1 && rest[0].name == "$value"
	if len(rest) > 0 && !raw {
		return nil, noSegment(rest[0].name)
	}
	switch c.method {
	case http.MethodGet:
		if err := c.need("Read", t); err != nil {
			return nil, err
		}
		v := row.Value(int(col.Ord))
		if v.IsNull() {
			return noContent(), nil
		}
		if raw {
			return (&answer{status: http.StatusOK, body: []byte(v.String())}).set("Content-Type", "text/plain"), nil
		}
		body := append([]byte(nil), `{"@odata.context":`...)
		body = value.AppendString(body, c.context()+t.Set+"("+row.ID.String()+")/"+col.Wire())
		body = append(body, `,"value":`...)
		return jsonAnswer(http.StatusOK, append(v.AppendJSON(body), '}')), nil
	case http.MethodPut, http.MethodDelete:
		if raw {
			return nil, wrongMethod(c.method)
		}
		if col.Type.IsLookup() {
			return nil, badRequest("A lookup is changed through its navigation property.")
		}
		token := json.RawMessage("null")
		if c.method == http.MethodPut {
			props, err := parseObject(c.body)
			if err != nil {
				return nil, err
			}
			found := false
			for _, p := range props {
				if p.name == "value" {
					token, found = p.raw, true
				}
			}
			if !found {
				return nil, payload("'%s': the property 'value' is missing.", t.Set)
			}
		}
		err := c.write(func() error { return c.update(t, row.ID, []prop{{col.Name, token}}) })
		if err != nil {
			return nil, err
		}
		return noContent(), nil
	}
	return nil, wrongMethod(c.method)
}
