package query

import (
	"iter"
	"slices"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// node is one part of a filter. Negation is pushed down to the leaves while
// parsing (not), because a leaf knows what its negation means for nulls:
// "not equal" and its kin match nulls, "not less than" does not.
type node interface {
	// bind resolves what depends on the time and the user.
	bind(e *Env) node
	// match evaluates the node over a root row and its joined rows.
	match(x *exec, rows []Row) bool
	not() node
}

// operand is a column of one of the rows, possibly behind lookups.
type operand struct {
	source int
	steps  []step
	table  Table
	column Column
}

// step follows a lookup to the table at its end.
type step struct {
	ordinal int
	table   Table
}

func (o *operand) value(x *exec, rows []Row) value.Value {
	row := rows[o.source]
	for i := range o.steps {
		if row == nil {
			return value.Value{}
		}
		row = x.follow(row, &o.steps[i])
	}
	if row == nil {
		return value.Value{}
	}
	return row.Value(o.column.Ordinal)
}

func (x *exec) follow(row Row, s *step) Row {
	v := row.Value(s.ordinal)
	if v.IsNull() {
		return nil
	}
	if next, ok := x.src.Get(s.table, v.GUID()); ok {
		return next
	}
	return nil
}

type always bool

func (n always) bind(*Env) node          { return n }
func (n always) match(*exec, []Row) bool { return bool(n) }
func (n always) not() node               { return !n }

type and []node

func (n and) bind(e *Env) node { return and(bindAll(n, e)) }
func (n and) not() node        { return or(negateAll(n)) }
func (n and) match(x *exec, rows []Row) bool {
	for _, c := range n {
		if !c.match(x, rows) {
			return false
		}
	}
	return true
}

type or []node

func (n or) bind(e *Env) node { return or(bindAll(n, e)) }
func (n or) not() node        { return and(negateAll(n)) }
func (n or) match(x *exec, rows []Row) bool {
	for _, c := range n {
		if c.match(x, rows) {
			return true
		}
	}
	return false
}

func bindAll(nodes []node, e *Env) []node {
	out := make([]node, len(nodes))
	for i, n := range nodes {
		out[i] = n.bind(e)
	}
	return out
}

func negateAll(nodes []node) []node {
	out := make([]node, len(nodes))
	for i, n := range nodes {
		out[i] = n.not()
	}
	return out
}

// relation is one of the six comparisons.
type relation uint8

const (
	eq relation = iota
	ne
	lt
	ge
	gt
	le
)

var relationNames = map[string]relation{"eq": eq, "ne": ne, "neq": ne, "lt": lt, "ge": ge, "gt": gt, "le": le}

// opposite exploits the order of the constants: each pair is a negation.
func (r relation) opposite() relation { return r ^ 1 }

// mirrored swaps the operands' sides.
func (r relation) mirrored() relation {
	switch r {
	case lt:
		return gt
	case gt:
		return lt
	case le:
		return ge
	case ge:
		return le
	}
	return r
}

func (r relation) holds(c int) bool {
	switch r {
	case eq:
		return c == 0
	case ne:
		return c != 0
	case lt:
		return c < 0
	case le:
		return c <= 0
	case gt:
		return c > 0
	}
	return c >= 0
}

// compare tests a column against a constant that is not null.
type compare struct {
	o  operand
	op relation
	v  value.Value
}

func (n *compare) bind(*Env) node { return n }
func (n *compare) not() node      { return &compare{n.o, n.op.opposite(), n.v} }
func (n *compare) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	if v.IsNull() {
		return n.op == ne
	}
	return n.op.holds(value.Compare(v, n.v))
}

// compareColumns tests two columns of the same rows.
type compareColumns struct {
	a, b operand
	op   relation
}

func (n *compareColumns) bind(*Env) node { return n }
func (n *compareColumns) not() node      { return &compareColumns{n.a, n.b, n.op.opposite()} }
func (n *compareColumns) match(x *exec, rows []Row) bool {
	a, b := n.a.value(x, rows), n.b.value(x, rows)
	if a.IsNull() || b.IsNull() {
		return n.op == ne
	}
	return n.op.holds(value.Compare(a, b))
}

type isNull struct {
	o       operand
	negated bool
}

func (n *isNull) bind(*Env) node                 { return n }
func (n *isNull) not() node                      { return &isNull{n.o, !n.negated} }
func (n *isNull) match(x *exec, rows []Row) bool { return n.o.value(x, rows).IsNull() != n.negated }

// in tests membership in a set; its negation matches nulls.
type in struct {
	o       operand
	values  []value.Value // distinct, not null
	set     map[value.Value]struct{}
	negated bool
}

// newIn builds the set; long lists are hashed.
func newIn(o operand, values []value.Value, negated bool) *in {
	n := &in{o: o, negated: negated}
	seen := make(map[value.Value]struct{}, len(values))
	for _, v := range values {
		k := hashable(v)
		if _, dup := seen[k]; !dup && !v.IsNull() {
			seen[k] = struct{}{}
			n.values = append(n.values, v)
		}
	}
	if len(n.values) > 8 {
		n.set = seen
	}
	return n
}

func (n *in) bind(*Env) node { return n }
func (n *in) not() node      { return &in{n.o, n.values, n.set, !n.negated} }
func (n *in) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	if v.IsNull() {
		return n.negated
	}
	if n.set != nil {
		_, ok := n.set[hashable(v)]
		return ok != n.negated
	}
	for i := range n.values {
		if value.Equal(n.values[i], v) {
			return !n.negated
		}
	}
	return n.negated
}

// hashable maps values that are Equal to one map key.
func hashable(v value.Value) value.Value {
	switch v.Kind() {
	case value.KindText:
		return value.Text(value.Fold(v.Text()))
	case value.KindDecimal, value.KindInt:
		if d, err := v.Rescale(value.MaxScale); err == nil {
			return d
		}
	case value.KindDouble:
		if d, err := v.Rescale(value.MaxScale); err == nil && value.Equal(d, v) {
			return d
		}
	case value.KindDate:
		return value.DateTime(v.Time())
	}
	return v
}

// between tests a closed interval; null is neither inside nor outside.
type between struct {
	o       operand
	lo, hi  value.Value
	negated bool
}

func (n *between) bind(*Env) node { return n }
func (n *between) not() node      { return &between{n.o, n.lo, n.hi, !n.negated} }
func (n *between) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	if v.IsNull() {
		return false
	}
	return (value.Compare(v, n.lo) >= 0 && value.Compare(v, n.hi) <= 0) != n.negated
}

// like tests a text pattern; its negation matches nulls.
type like struct {
	o       operand
	p       pattern
	negated bool
}

func (n *like) bind(*Env) node { return n }
func (n *like) not() node      { return &like{n.o, n.p, !n.negated} }
func (n *like) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	if v.IsNull() {
		return n.negated
	}
	return n.p.match(v.Text()) != n.negated
}

// containsOptions tests whether a multi-select has one of the options; its
// negation matches nulls.
type containsOptions struct {
	o       operand
	options []int
	negated bool
}

func (n *containsOptions) bind(*Env) node { return n }
func (n *containsOptions) not() node      { return &containsOptions{n.o, n.options, !n.negated} }
func (n *containsOptions) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	return slices.ContainsFunc(n.options, v.HasOption) != n.negated
}

// during tests a half-open span of time. nulls tells what a null gives.
type during struct {
	o              operand
	span           span
	negated, nulls bool
}

func (n *during) bind(*Env) node { return n }
func (n *during) not() node      { return &during{n.o, n.span, !n.negated, false} }
func (n *during) match(x *exec, rows []Row) bool {
	v := n.o.value(x, rows)
	if v.IsNull() {
		return n.nulls
	}
	at := v.Unix()
	return (at >= n.span.from && at < n.span.to) != n.negated
}

// relativeTo is a span of time that depends on now.
type relativeTo struct {
	o       operand
	span    func(*Env) span
	negated bool
}

func (n *relativeTo) bind(e *Env) node {
	return &during{o: n.o, span: n.span(e), negated: n.negated}
}
func (n *relativeTo) not() node               { return &relativeTo{n.o, n.span, !n.negated} }
func (n *relativeTo) match(*exec, []Row) bool { panic("query: relative date was not bound") }

// ofUser tests a column against ids or the language of the calling user.
type ofUser struct {
	o       operand
	values  func(*Env) []value.Value
	negated bool
}

func (n *ofUser) bind(e *Env) node        { return newIn(n.o, n.values(e), n.negated) }
func (n *ofUser) not() node               { return &ofUser{n.o, n.values, !n.negated} }
func (n *ofUser) match(*exec, []Row) bool { panic("query: user condition was not bound") }

// lambda is any() or all() over a collection-valued navigation. all(p) is kept
// as "not any(not p)".
type lambda struct {
	source  int
	path    related
	pred    node
	negated bool
}

func (n *lambda) bind(e *Env) node {
	return &lambda{n.source, n.path, n.pred.bind(e), n.negated}
}
func (n *lambda) not() node { return &lambda{n.source, n.path, n.pred, !n.negated} }
func (n *lambda) match(x *exec, rows []Row) bool {
	row := rows[n.source]
	if row == nil {
		return n.negated
	}
	inner := make([]Row, 1)
	for r := range n.path.rows(x, row) {
		inner[0] = r
		if n.pred.match(x, inner) {
			return !n.negated
		}
	}
	return n.negated
}

// related is a navigation with its tables and columns resolved.
type related struct {
	nav       Navigation
	from      Table // the table that has the navigation
	target    Table
	column    Column // lookup: of from for ToOne, of target for ToMany
	intersect Table
	near, far Column
}

func resolve(s Schema, from Table, nav Navigation) (related, error) {
	r := related{nav: nav, from: from}
	fail := func(what string) (related, error) {
		return r, refuse(CodeODataQuery, "The navigation property '%s' of '%s' points to the unknown %s.", nav.Name, from.LogicalName(), what)
	}
	var ok bool
	if r.target, ok = s.TableByName(nav.Target); !ok {
		return fail("table '" + nav.Target + "'")
	}
	switch nav.Cardinality {
	case ToOne:
		if r.column, ok = from.Column(nav.Column); !ok {
			return fail("column '" + nav.Column + "'")
		}
	case ToMany:
		if r.column, ok = r.target.Column(nav.Column); !ok {
			return fail("column '" + nav.Column + "'")
		}
	default:
		if r.intersect, ok = s.TableByName(nav.Intersect); !ok {
			return fail("table '" + nav.Intersect + "'")
		}
		var ok2 bool
		r.near, ok = r.intersect.Column(nav.Near)
		if r.far, ok2 = r.intersect.Column(nav.Far); !ok || !ok2 {
			return fail("columns '" + nav.Near + "' and '" + nav.Far + "'")
		}
	}
	return r, nil
}

// rows yields the records at the other end for one record of the near table.
func (r *related) rows(x *exec, row Row) iter.Seq[Row] {
	if r.nav.Cardinality == ToOne {
		return func(yield func(Row) bool) {
			if next := x.follow(row, &step{r.column.Ordinal, r.target}); next != nil {
				yield(next)
			}
		}
	}
	return r.rowsOf(x, row.Value(r.from.PrimaryID().Ordinal))
}

// rowsOf is rows for a collection, given the near record's id.
func (r *related) rowsOf(x *exec, id value.Value) iter.Seq[Row] {
	if r.nav.Cardinality == ToMany {
		return x.lookup(r.target, r.column, id)
	}
	return func(yield func(Row) bool) {
		for link := range x.lookup(r.intersect, r.near, id) {
			far := link.Value(r.far.Ordinal)
			if far.IsNull() {
				continue
			}
			if next, ok := x.src.Get(r.target, far.GUID()); ok && !yield(next) {
				return
			}
		}
	}
}

// semi is a join that only tests: link-entity with link-type exists, in, any,
// not any, all and not all. Its first join hangs on the outer row, which is
// source 0 of the inner rows.
type semi struct {
	source  int
	joins   []join
	mode    semiMode
	negated bool
}

type semiMode uint8

const (
	anyMatches  semiMode = iota // a linked row passes the link's filter
	noneMatches                 // linked rows exist, none passes (link-type "all")
)

func (n *semi) bind(e *Env) node { return &semi{n.source, bindJoins(n.joins, e), n.mode, n.negated} }
func (n *semi) not() node        { return &semi{n.source, n.joins, n.mode, !n.negated} }
func (n *semi) match(x *exec, rows []Row) bool {
	if rows[n.source] == nil {
		return n.negated
	}
	inner := make([]Row, 1+len(n.joins))
	inner[0] = rows[n.source]
	found := false
	x.expand(n.joins, inner, 0, func() bool { found = true; return false })
	if n.mode == noneMatches {
		if found {
			return n.negated
		}
		bare := n.joins[0]
		bare.filter = always(true)
		x.expand([]join{bare}, inner[:2], 0, func() bool { found = true; return false })
	}
	return found != n.negated
}
