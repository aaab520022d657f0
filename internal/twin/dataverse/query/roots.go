package query

import (
	"iter"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// roots finds the rows of the root table that the query has to look at: those
// of the scope, those that an indexed condition leaves, or all of them. sorted
// is true when they come in key order, and only then is after obeyed.
func (x *exec) roots(q *Query, filter node, joins []join, opt Options, after *value.ID) (rows iter.Seq[Row], sorted bool) {
	if opt.Scope != nil {
		return x.scoped(opt.Scope), false
	}
	if rows, ok := x.indexed(q.Table, filter, 0); ok {
		return rows, false
	}
	for i := range joins {
		if j := &joins[i]; j.parent == 0 && !j.outer {
			if rows, ok := x.driven(q.Table, j, i+1); ok {
				return rows, false
			}
		}
	}
	if rows, ok := x.tested(q.Table, filter); ok {
		return rows, false
	}
	if after == nil {
		return x.src.Scan(q.Table, value.ID{}), true
	}
	if len(joins) == 0 {
		return x.src.Scan(q.Table, *after), true
	}
	return func(yield func(Row) bool) {
		if row, ok := x.src.Get(q.Table, *after); ok && !yield(row) {
			return
		}
		x.src.Scan(q.Table, *after)(yield)
	}, true
}

// scoped yields the rows at the other end of a navigation property.
func (x *exec) scoped(s *Scope) iter.Seq[Row] {
	r, err := resolve(x.schema, s.From, s.Navigation)
	if err != nil {
		return func(func(Row) bool) {}
	}
	if s.Navigation.Cardinality == ToOne {
		return func(yield func(Row) bool) {
			if row, ok := x.src.Get(s.From, s.ID); ok {
				r.rows(x, row)(yield)
			}
		}
	}
	return r.rowsOf(x, value.GUID(s.ID))
}

// conjuncts yields the conditions that all must hold.
func conjuncts(n node) iter.Seq[node] {
	return func(yield func(node) bool) { walkAnd(n, yield) }
}

func walkAnd(n node, yield func(node) bool) bool {
	if list, ok := n.(and); ok {
		for _, c := range list {
			if !walkAnd(c, yield) {
				return false
			}
		}
		return true
	}
	return yield(n)
}

// indexed finds rows through an equality or set condition on an indexed column
// of the table, which the filter knows as source.
func (x *exec) indexed(t Table, filter node, source int) (iter.Seq[Row], bool) {
	for c := range conjuncts(filter) {
		var o *operand
		var values []value.Value
		switch c := c.(type) {
		case *compare:
			if c.op == eq {
				o, values = &c.o, []value.Value{c.v}
			}
		case *in:
			if !c.negated {
				o, values = &c.o, c.values
			}
		}
		if o == nil || o.source != source || len(o.steps) > 0 {
			continue
		}
		if rows, ok := x.byValues(t, o.column, values); ok {
			return rows, true
		}
	}
	return nil, false
}

// byValues finds rows by the values of one column if it is the key or indexed.
func (x *exec) byValues(t Table, c Column, values []value.Value) (iter.Seq[Row], bool) {
	if c.Ordinal == t.PrimaryID().Ordinal {
		return func(yield func(Row) bool) {
			for _, v := range values {
				if row, ok := x.src.Get(t, v.GUID()); ok && !yield(row) {
					return
				}
			}
		}, true
	}
	found := make([]iter.Seq[Row], 0, len(values))
	for _, v := range values {
		if v.Kind() != c.Kind {
			return nil, false // such as a whole number against 1.5
		}
		rows, ok := x.src.Lookup(t, c, v)
		if !ok {
			return nil, false
		}
		found = append(found, rows)
	}
	return func(yield func(Row) bool) {
		for _, rows := range found {
			for row := range rows {
				if !yield(row) {
					return
				}
			}
		}
	}, true
}

// driven turns an inner join on the root's key around: when the joined rows are
// found through an index of their own, the roots are those that they lead to.
// source is the join's own.
func (x *exec) driven(t Table, j *join, source int) (iter.Seq[Row], bool) {
	if j.to.Ordinal != t.PrimaryID().Ordinal {
		return nil, false
	}
	rows, ok := x.indexed(j.table, j.filter, source)
	if !ok {
		return nil, false
	}
	return x.back(t, rows, func(link Row) value.Value { return link.Value(j.from.Ordinal) }), true
}

// back follows link rows to distinct roots.
func (x *exec) back(t Table, links iter.Seq[Row], id func(Row) value.Value) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		seen := map[value.Value]struct{}{}
		for link := range links {
			v := id(link)
			if _, dup := seen[v]; dup || v.IsNull() {
				continue
			}
			seen[v] = struct{}{}
			if row, ok := x.src.Get(t, v.GUID()); ok && !yield(row) {
				return
			}
		}
	}
}

// tested is driven for the tests in the filter: exists, in, any, and any() over
// a many-to-many navigation whose other end is given by its key.
func (x *exec) tested(t Table, filter node) (iter.Seq[Row], bool) {
	for c := range conjuncts(filter) {
		switch c := c.(type) {
		case *semi:
			if !c.negated && c.mode == anyMatches && c.source == 0 {
				if rows, ok := x.driven(t, &c.joins[0], 1); ok {
					return rows, true
				}
			}
		case *lambda:
			r := &c.path
			if c.negated || c.source != 0 || r.nav.Cardinality == ToOne {
				continue
			}
			targets, ok := x.indexed(r.target, c.pred, 0)
			if !ok {
				continue
			}
			if r.nav.Cardinality == ToMany {
				return x.back(t, targets, func(row Row) value.Value { return row.Value(r.column.Ordinal) }), true
			}
			links := func(yield func(Row) bool) {
				for target := range targets {
					for link := range x.lookup(r.intersect, r.far, target.Value(r.target.PrimaryID().Ordinal)) {
						if !yield(link) {
							return
						}
					}
				}
			}
			return x.back(t, links, func(link Row) value.Value { return link.Value(r.near.Ordinal) }), true
		}
	}
	return nil, false
}
