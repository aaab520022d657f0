package query

import (
	"iter"
	"slices"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// plan is the executable part of a Query.
type plan struct {
	sources    []Table // the root, then one a join
	joins      []join
	filter     node
	filtered   bool // the request had a filter
	lateFilter bool // the filter looks at joined rows
	order      []order
	via        *related // of an $expand item: how its rows are found

	oncePerRoot    bool // distinct, but the root's key tells results apart
	distinctValues bool // distinct by the values of the outputs

	groups         []group
	aggregators    []aggregator
	slots          []slot // one an output of an aggregate query
	aliasOrder     []aliasOrder
	aggregateLimit int
}

// join adds the rows of one link-entity.
type join struct {
	parent   int // source that it hangs on
	to, from Column
	table    Table
	alias    string
	outer    bool
	first    bool // at most one row
	filter   node
}

func bindJoins(joins []join, e *Env) []join {
	out := slices.Clone(joins)
	for i := range out {
		out[i].filter = out[i].filter.bind(e)
	}
	return out
}

// order is one column to sort by. names is set for lookups, which sort by the
// primary name of the record they point to.
type order struct {
	operand
	name  string
	desc  bool
	names []nameOf
}

type nameOf struct {
	table  Table
	column Column
}

func (o *order) sortValue(x *exec, rows []Row) value.Value {
	v := o.operand.value(x, rows)
	if len(o.names) == 0 || v.IsNull() {
		return v
	}
	for _, n := range o.names {
		if row, ok := x.src.Get(n.table, v.GUID()); ok {
			return row.Value(n.column.Ordinal)
		}
	}
	return value.Value{}
}

// kind is the kind of the sort values.
func (o *order) kind() value.Kind {
	if len(o.names) > 0 {
		return value.KindText
	}
	return o.column.Kind
}

// exec is one run of a query.
type exec struct {
	src    Source
	schema Schema
	hashes map[hashed]map[value.Value][]Row
}

type hashed struct {
	table   string
	ordinal int
}

// lookup finds rows by a column, through the source's index or a hash built
// once a run.
func (x *exec) lookup(t Table, c Column, v value.Value) iter.Seq[Row] {
	if v.IsNull() {
		return func(func(Row) bool) {}
	}
	if c.Ordinal == t.PrimaryID().Ordinal {
		return func(yield func(Row) bool) {
			if row, ok := x.src.Get(t, v.GUID()); ok {
				yield(row)
			}
		}
	}
	if v.Kind() == c.Kind {
		if rows, ok := x.src.Lookup(t, c, v); ok {
			return rows
		}
	}
	k := hashed{t.LogicalName(), c.Ordinal}
	index := x.hashes[k]
	if index == nil {
		index = map[value.Value][]Row{}
		for row := range x.src.Scan(t, value.ID{}) {
			if cell := row.Value(c.Ordinal); !cell.IsNull() {
				h := hashable(cell)
				index[h] = append(index[h], row)
			}
		}
		if x.hashes == nil {
			x.hashes = map[hashed]map[value.Value][]Row{}
		}
		x.hashes[k] = index
	}
	return slices.Values(index[hashable(v)])
}

// expand fills rows[i+1…] with the joined rows and calls emit for each
// combination, until it returns false.
func (x *exec) expand(joins []join, rows []Row, i int, emit func() bool) bool {
	if i == len(joins) {
		return emit()
	}
	j := &joins[i]
	matched := false
	if parent := rows[j.parent]; parent != nil {
		for row := range x.lookup(j.table, j.from, parent.Value(j.to.Ordinal)) {
			rows[i+1] = row
			if !j.filter.match(x, rows) {
				continue
			}
			matched = true
			if !x.expand(joins, rows, i+1, emit) {
				return false
			}
			if j.first {
				break
			}
		}
	}
	rows[i+1] = nil
	if !matched && j.outer {
		return x.expand(joins, rows, i+1, emit)
	}
	return true
}

// refersToJoined reports whether a filter looks beyond the root row.
func refersToJoined(n node) bool {
	switch n := n.(type) {
	case and:
		return slices.ContainsFunc(n, refersToJoined)
	case or:
		return slices.ContainsFunc(n, refersToJoined)
	case *compare:
		return n.o.source > 0
	case *compareColumns:
		return n.a.source > 0 || n.b.source > 0
	case *isNull:
		return n.o.source > 0
	case *in:
		return n.o.source > 0
	case *between:
		return n.o.source > 0
	case *like:
		return n.o.source > 0
	case *containsOptions:
		return n.o.source > 0
	case *during:
		return n.o.source > 0
	case *relativeTo:
		return n.o.source > 0
	case *ofUser:
		return n.o.source > 0
	case *semi:
		return n.source > 0
	}
	return false
}

// each calls visit with every tuple of rows that the query matches, in the
// order of roots. after, when not nil, is the root key to start behind; with
// joins the root itself is visited again, because its tuples may be unfinished.
// visit must copy the tuple when it keeps it.
func (x *exec) each(q *Query, opt Options, after *value.ID, visit func(rows []Row) bool) {
	p := &q.plan
	filter := p.filter.bind(&opt.Env)
	joins := bindJoins(p.joins, &opt.Env)
	roots, _ := x.roots(q, filter, joins, opt, after)
	tuple := make([]Row, 1+len(joins))
	for root := range roots {
		tuple[0] = root
		if !p.lateFilter && !filter.match(x, tuple) {
			continue
		}
		if len(joins) == 0 {
			if !visit(tuple) {
				return
			}
			continue
		}
		goOn := true
		x.expand(joins, tuple, 0, func() bool {
			if p.lateFilter && !filter.match(x, tuple) {
				return true
			}
			goOn = visit(tuple)
			return goOn && !p.oncePerRoot
		})
		clear(tuple)
		if !goOn {
			return
		}
	}
}

// Run starts the query and holds one page of rows. Errors in the data (too many
// rows of an aggregate, a page beyond simple paging) are returned here.
//
// A FetchXML query pages by itself: by its paging cookie, else by its page
// number, unless the options already say where to continue.
func (q *Query) Run(src Source, opt Options) (*Result, error) {
	x := &exec{src: src, schema: opt.Schema}
	if q.Aggregate {
		return q.runAggregate(x, opt)
	}
	size, capped := q.pageSize(opt)
	if q.Fetch && opt.After == nil && q.PagingCookie != "" {
		key, err := q.ParseCookie(q.PagingCookie)
		if err != nil {
			return nil, err
		}
		opt.After = key
	}
	skip := 0
	if opt.After == nil {
		skip = q.skip(opt, size)
	}
	if skip+size > MaxSimplePaging {
		return nil, refuse(CodeSimplePaging, "Paging without a paging cookie ends at %d records.", MaxSimplePaging)
	}
	var rows []Row
	if q.streams(x, opt) {
		rows = q.stream(x, opt, skip+size+1)
	} else {
		rows = q.sorted(x, opt, skip+size+1)
	}
	stride := 1 + len(q.plan.joins)
	res := &Result{q: q, x: x, stride: stride}
	rows = rows[min(skip*stride, len(rows)):]
	if res.n = len(rows) / stride; res.n > size {
		res.n, rows = size, rows[:size*stride]
		res.more = !capped
	}
	res.rows = rows
	return res, nil
}

// pageSize returns the results a page; capped when nothing follows it because
// top cuts there.
func (q *Query) pageSize(opt Options) (size int, capped bool) {
	switch {
	case q.Top > 0 && (q.Fetch || opt.PageSize == 0):
		return min(q.Top, MaxPage), true
	case q.PageSize > 0:
		return q.PageSize, false
	case opt.PageSize > 0:
		return min(opt.PageSize, MaxPage), false
	}
	return MaxPage, false
}

func (q *Query) skip(opt Options, size int) int {
	if opt.Skip == 0 && q.Fetch && q.Page > 1 {
		return min(q.Page-1, MaxSimplePaging) * size
	}
	return opt.Skip
}

// streams reports whether the results come in key order by themselves.
func (q *Query) streams(x *exec, opt Options) bool {
	if len(q.plan.order) > 0 && !(len(q.plan.joins) == 0 && q.plan.order[0].isKey(q.Table)) || q.plan.distinctValues {
		return false
	}
	_, sorted := x.roots(q, q.plan.filter.bind(&opt.Env), bindJoins(q.plan.joins, &opt.Env), opt, nil)
	return sorted
}

// isKey reports whether an order is the ascending primary key.
func (o *order) isKey(t Table) bool {
	return !o.desc && o.source == 0 && len(o.steps) == 0 && o.column.Ordinal == t.PrimaryID().Ordinal
}

// stream reads until it has enough.
func (q *Query) stream(x *exec, opt Options, want int) []Row {
	p := &q.plan
	var after *value.ID
	if opt.After != nil {
		id := opt.After[len(p.order)].GUID()
		after = &id
	}
	stride := 1 + len(p.joins)
	rows := make([]Row, 0, min(want, 512)*stride)
	if stride == 1 {
		x.each(q, opt, after, func(t []Row) bool {
			rows = append(rows, t[0])
			return len(rows) < want
		})
		return rows
	}
	// The tuples of one root come together but in any order.
	var pending []entry
	flush := func() bool {
		slices.SortFunc(pending, func(a, b entry) int { return q.compareKeys(a.key, b.key) })
		for _, e := range pending {
			if len(rows) == want*stride {
				break
			}
			rows = append(rows, e.rows...)
		}
		pending = pending[:0]
		return len(rows) < want*stride
	}
	x.each(q, opt, after, func(t []Row) bool {
		key := q.key(x, t, nil)
		if len(pending) > 0 && !value.Equal(pending[0].key[0], key[0]) && !flush() {
			return false
		}
		if opt.After == nil || q.compareKeys(key, opt.After) > 0 {
			pending = append(pending, entry{key, slices.Clone(t)})
		}
		return true
	})
	flush()
	return rows
}

type entry struct {
	key  Key
	rows []Row
}

// sorted keeps the smallest want results behind After: it collects twice as
// many, sorts, and drops the upper half, so memory is bounded by the page.
func (q *Query) sorted(x *exec, opt Options, want int) []Row {
	p := &q.plan
	var best []entry
	var ceiling Key
	var seen map[string]struct{}
	if p.distinctValues {
		seen = map[string]struct{}{}
	}
	byKey := func(a, b entry) int { return q.compareKeys(a.key, b.key) }
	cut := func() {
		slices.SortFunc(best, byKey)
		if len(best) > want {
			clear(best[want:])
			best = best[:want]
		}
		if len(best) == want {
			ceiling = best[want-1].key
		}
	}
	var scratch Key
	var text []byte
	x.each(q, opt, nil, func(t []Row) bool {
		scratch = q.key(x, t, scratch[:0])
		if opt.After != nil && q.compareKeys(scratch, opt.After) <= 0 {
			return true
		}
		if ceiling != nil && q.compareKeys(scratch, ceiling) >= 0 {
			return true
		}
		if seen != nil {
			text = text[:0]
			for _, v := range scratch[len(p.order):] {
				text = append(hashable(v).AppendJSON(text), 0)
			}
			if _, dup := seen[string(text)]; dup {
				return true
			}
			seen[string(text)] = struct{}{}
		}
		best = append(best, entry{slices.Clone(scratch), slices.Clone(t)})
		if len(best) >= 2*want {
			cut()
		}
		return true
	})
	cut()
	stride := 1 + len(p.joins)
	rows := make([]Row, 0, len(best)*stride)
	for i := range best {
		rows = append(rows, best[i].rows...)
	}
	return rows
}

// key returns the position of a tuple: order values, then what tells tuples
// apart.
func (q *Query) key(x *exec, rows []Row, dst Key) Key {
	p := &q.plan
	for i := range p.order {
		dst = append(dst, p.order[i].sortValue(x, rows))
	}
	if p.distinctValues {
		for i := range q.Outputs {
			var v value.Value
			if row := rows[q.Outputs[i].source]; row != nil {
				v = row.Value(q.Outputs[i].Column.Ordinal)
			}
			dst = append(dst, v)
		}
		return dst
	}
	dst = append(dst, rows[0].Value(q.Table.PrimaryID().Ordinal))
	if p.oncePerRoot {
		return dst
	}
	for i, row := range rows[1:] {
		var v value.Value
		if row != nil {
			v = row.Value(p.joins[i].table.PrimaryID().Ordinal)
		}
		dst = append(dst, v)
	}
	return dst
}

func (q *Query) compareKeys(a, b Key) int {
	for i := range a {
		c := value.Compare(a[i], b[i])
		if c == 0 {
			continue
		}
		if i < len(q.plan.order) && q.plan.order[i].desc {
			return -c
		}
		return c
	}
	return 0
}

// Keyset reports whether the query can continue after a key. Queries that
// cannot (ordered by a link-entity column, distinct without the primary key,
// aggregates) page by number: Options.Skip.
func (q *Query) Keyset() bool {
	if q.Aggregate || q.plan.distinctValues {
		return false
	}
	return !slices.ContainsFunc(q.plan.order, func(o order) bool { return o.source > 0 })
}

// CountRows counts the results without paging or $top, up to MaxPage; exceeded
// tells that there are more.
func (q *Query) CountRows(src Source, opt Options) (n int, exceeded bool, err error) {
	x := &exec{src: src, schema: opt.Schema}
	if q.Aggregate {
		opt.Skip, opt.PageSize = 0, MaxPage
		all := *q
		all.Top, all.Page, all.PageSize = 0, 0, 0
		res, err := all.runAggregate(x, opt)
		if err != nil {
			return 0, false, err
		}
		return res.n, res.more, nil
	}
	if q.plan.distinctValues {
		n = len(q.sorted(x, Options{Env: opt.Env, Schema: opt.Schema, Scope: opt.Scope}, MaxPage+1)) / (1 + len(q.plan.joins))
	} else {
		x.each(q, opt, nil, func([]Row) bool {
			n++
			return n <= MaxPage
		})
	}
	return min(n, MaxPage), n > MaxPage, nil
}

// Match reports whether one row of the root table passes the query's filter.
// It is meant for queries without joins.
func (q *Query) Match(src Source, env Env, row Row) bool {
	x := &exec{src: src}
	tuple := make([]Row, 1+len(q.plan.joins))
	tuple[0] = row
	return q.plan.filter.bind(&env).match(x, tuple)
}

// RunExpand gives the rows of one of the query's $expand items for a row of its
// table. A ToOne navigation gives at most one record; others at most MaxPage.
func (q *Query) RunExpand(src Source, opt Options, x *Expand, parent Row) (*Result, error) {
	via := x.Query.plan.via
	opt.Scope = &Scope{Navigation: x.Navigation, From: q.Table, ID: parent.Value(q.Table.PrimaryID().Ordinal).GUID()}
	opt.PageSize, opt.After, opt.Skip = 0, nil, 0
	if x.Navigation.Cardinality != ToOne {
		return x.Query.Run(src, opt)
	}
	res := &Result{q: x.Query, stride: 1}
	for row := range via.rows(&exec{src: src, schema: opt.Schema}, parent) {
		res.rows, res.n = append(res.rows, row), 1
	}
	return res, nil
}

// Result is one page of results:
//
//	for res.Next() { rec := res.Record() … }
type Result struct {
	q      *Query
	x      *exec
	rows   []Row // stride rows a result
	values [][]value.Value
	stride int
	n, at  int
	more   bool
	rec    Record
}

// Len returns the number of results of the page.
func (r *Result) Len() int { return r.n }

// Next moves to the next record and reports whether there is one.
func (r *Result) Next() bool {
	if r.at >= r.n {
		return false
	}
	if r.values != nil {
		r.rec.values = r.values[r.at]
	} else {
		r.rec.rows = r.rows[r.at*r.stride : (r.at+1)*r.stride]
		r.rec.anonymous = r.q.plan.distinctValues
	}
	r.at++
	return true
}

// Ahead yields the root rows of the current record and of those behind it, at most
// n in all. Aggregates have none.
func (r *Result) Ahead(n int) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for i := max(0, r.at-1); i < min(r.at-1+n, r.n) && r.rows != nil; i++ {
			if !yield(r.rows[i*r.stride]) {
				return
			}
		}
	}
}

// Record returns the current record. It is overwritten by Next.
func (r *Result) Record() *Record { return &r.rec }

// Err returns nil: a page that Run returned is complete.
func (r *Result) Err() error { return nil }

// More reports whether more results follow this page; it is known from the
// start.
func (r *Result) More() bool { return r.more }

// FirstKey returns the position of the page's first record; nil for an empty
// page and for queries without Keyset.
func (r *Result) FirstKey() Key { return r.keyAt(0) }

// LastKey returns the position of the page's last record, see FirstKey.
func (r *Result) LastKey() Key { return r.keyAt(r.n - 1) }

func (r *Result) keyAt(i int) Key {
	if r.n == 0 || r.x == nil || !r.q.Keyset() {
		return nil
	}
	return r.q.key(r.x, r.rows[i*r.stride:(i+1)*r.stride], nil)
}

// Row returns the root row; nil for aggregates and for distinct results that do
// not stand for one record.
func (r *Record) Row() Row {
	if r.anonymous || len(r.rows) == 0 {
		return nil
	}
	return r.rows[0]
}

// Value returns the value of an output of the query that made the record.
func (r *Record) Value(o *Output) value.Value {
	if r.values != nil {
		return r.values[o.source]
	}
	row := r.rows[o.source]
	if row == nil {
		return value.Value{}
	}
	return row.Value(o.Column.Ordinal)
}
