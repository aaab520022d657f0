package dataverse

import (
	"iter"
	"slices"
	"sort"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// kindOf is the kind of a column's values.
func kindOf(c *schema.Column) value.Kind {
	switch c.Type {
	case schema.String, schema.Memo, schema.EntityName:
		return value.KindText
	case schema.Decimal, schema.Money:
		return value.KindDecimal
	case schema.Double:
		return value.KindDouble
	case schema.Boolean:
		return value.KindBool
	case schema.DateTime:
		if c.IsDate() {
			return value.KindDate
		}
		return value.KindDateTime
	case schema.Lookup, schema.Customer, schema.Owner, schema.UniqueID:
		return value.KindGUID
	case schema.MultiSelect:
		return value.KindMultiSelect
	}
	return value.KindInt
}

// published is a schema with the view that the query engine has of it.
type published struct {
	*schema.Schema
	byName map[string]*queryTable
	bySet  map[string]*queryTable
}

func publish(s *schema.Schema) *published {
	p := &published{Schema: s, byName: map[string]*queryTable{}, bySet: map[string]*queryTable{}}
	for _, t := range s.Tables() {
		q := &queryTable{t: t, columns: map[string]query.Column{}, navs: map[string]query.Navigation{}}
		for _, c := range t.Columns() {
			if c.AttributeOf != "" || !c.ForRead {
				continue
			}
			qc := query.Column{
				LogicalName: c.Name, Ordinal: int(c.Ord), Kind: kindOf(c), Lookup: c.Type.IsLookup(),
				Option: c.Type.IsOption(), Targets: c.Targets,
			}
			q.columns[c.Name] = qc
			q.ordered = append(q.ordered, qc)
		}
		for _, r := range t.ManyToOne {
			target := r.Referenced
			if target == "owner" {
				target = "systemuser"
			}
			q.navs[r.Nav] = query.Navigation{Name: r.Nav, Cardinality: query.ToOne, Target: target, Column: r.Column}
		}
		for _, r := range t.OneToMany {
			q.navs[r.CollectionNav] = query.Navigation{Name: r.CollectionNav, Cardinality: query.ToMany, Target: r.Referencing, Column: r.Column}
		}
		for _, m := range t.NToN {
			if m.Table1 == t.Name {
				q.navs[m.Nav1] = query.Navigation{Name: m.Nav1, Cardinality: query.ManyToMany, Target: m.Table2, Intersect: m.Intersect, Near: m.Column1, Far: m.Column2}
			} else {
				q.navs[m.Nav2] = query.Navigation{Name: m.Nav2, Cardinality: query.ManyToMany, Target: m.Table1, Intersect: m.Intersect, Near: m.Column2, Far: m.Column1}
			}
		}
		p.byName[t.Name], p.bySet[t.Set] = q, q
	}
	return p
}

// TableByName finds a table for the query engine.
func (p *published) TableByName(name string) (query.Table, bool) {
	if t := p.byName[name]; t != nil {
		return t, true
	}
	return nil, false
}

// TableBySet finds a table by its set for the query engine.
func (p *published) TableBySet(name string) (query.Table, bool) {
	if t := p.bySet[name]; t != nil {
		return t, true
	}
	return nil, false
}

type queryTable struct {
	t       *schema.Table
	columns map[string]query.Column
	ordered []query.Column
	navs    map[string]query.Navigation
}

func (q *queryTable) LogicalName() string { return q.t.Name }
func (q *queryTable) SetName() string     { return q.t.Set }
func (q *queryTable) PrimaryID() query.Column {
	return q.columns[q.t.PrimaryID]
}

func (q *queryTable) PrimaryName() (query.Column, bool) {
	c, ok := q.columns[q.t.PrimaryName]
	return c, ok
}

func (q *queryTable) Column(name string) (query.Column, bool) {
	c, ok := q.columns[name]
	return c, ok
}
func (q *queryTable) Columns() []query.Column { return q.ordered }
func (q *queryTable) Navigation(name string) (query.Navigation, bool) {
	n, ok := q.navs[name]
	return n, ok
}

// source reads the store for the query engine in short slices. When narrow is
// set, Scan of its table walks an index instead of the whole table.
type source struct {
	view   store.View
	narrow *narrowing
	since  *since
	// members narrows the table of a list's members to that list.
	members *memberSet
	// reach says which rows the caller may read; nil = all.
	reach func(table string, r query.Row) bool
}

// withinReach are those of rows that the caller may read.
func (s source) withinReach(name string, rows iter.Seq[query.Row]) iter.Seq[query.Row] {
	if s.reach == nil {
		return rows
	}
	return func(yield func(query.Row) bool) {
		for r := range rows {
			if s.reach(name, r) && !yield(r) {
				return
			}
		}
	}
}

// since replaces the full scan of one table by its recently written rows, in
// key order.
type since struct {
	table string
	rows  []*store.Row
}

func newSince(table string, rows []*store.Row) *since {
	slices.SortFunc(rows, func(a, b *store.Row) int { return a.ID.Compare(b.ID) })
	return &since{table, rows}
}

func (s *since) fetch(dst []*store.Row, after value.ID, n int) []*store.Row {
	i := 0
	if !after.IsZero() {
		i = sort.Search(len(s.rows), func(i int) bool { return s.rows[i].ID.Compare(after) > 0 })
	}
	return append(dst, s.rows[i:min(len(s.rows), i+n)]...)
}

// narrowing replaces the full scan of one table by the rows of one index value,
// in the same order.
type narrowing struct {
	table, index string
	key          uint64
}

const sliceRows = 1024

func (s source) Scan(t query.Table, after value.ID) iter.Seq[query.Row] {
	name := t.LogicalName()
	fetch := func(dst []*store.Row, after value.ID, n int) []*store.Row { return s.view.Page(dst, name, after, n) }
	if s.narrow != nil && s.narrow.table == name {
		fetch = func(dst []*store.Row, after value.ID, n int) []*store.Row {
			return s.view.Find(dst, name, s.narrow.index, s.narrow.key, after, n)
		}
	}
	if s.since != nil && s.since.table == name {
		fetch = s.since.fetch
	}
	if s.members != nil && s.members.table == name {
		fetch = func(dst []*store.Row, after value.ID, n int) []*store.Row {
			return s.members.fetch(s.view, dst, after, n)
		}
	}
	return s.withinReach(name, inSlices(fetch, after))
}

// inSlices yields rows slice by slice, the first one small because many scans
// end early.
func inSlices(fetch func([]*store.Row, value.ID, int) []*store.Row, after value.ID) iter.Seq[query.Row] {
	return func(yield func(query.Row) bool) {
		n := 64
		var buf []*store.Row
		for {
			buf = fetch(buf[:0], after, n)
			for _, r := range buf {
				if !yield(r) {
					return
				}
			}
			if len(buf) < n {
				return
			}
			after = buf[len(buf)-1].ID
			n = sliceRows
		}
	}
}

func (s source) Get(t query.Table, id value.ID) (query.Row, bool) {
	if r := s.view.Get(t.LogicalName(), id); r != nil && (s.reach == nil || s.reach(t.LogicalName(), r)) {
		return r, true
	}
	return nil, false
}

func (s source) Lookup(t query.Table, c query.Column, v value.Value) (iter.Seq[query.Row], bool) {
	name, index := t.LogicalName(), columnIndex(c.LogicalName)
	if s.narrow != nil && s.narrow.table == name && s.narrow.index == index {
		return nil, false // Scan is already that index, in key order
	}
	if s.members != nil && name == "listmember" && c.LogicalName == "listid" {
		return nil, false // the scan of the members' table is already narrowed to the list
	}
	if c.Ordinal == schema.IDOrd {
		return func(yield func(query.Row) bool) {
			if r, ok := s.Get(t, v.GUID()); ok {
				yield(r)
			}
		}, true
	}
	if !s.view.HasIndex(name, index) {
		return nil, false
	}
	key := store.Hash(v)
	fetch := func(dst []*store.Row, after value.ID, n int) []*store.Row {
		return s.view.Find(dst, name, index, key, after, n)
	}
	return s.withinReach(name, func(yield func(query.Row) bool) {
		for r := range inSlices(fetch, value.ID{}) {
			if value.Equal(r.Value(c.Ordinal), v) && !yield(r) {
				return
			}
		}
	}), true
}

// columnIndex names the single-column index of a column.
func columnIndex(column string) string { return "ix_" + column }
