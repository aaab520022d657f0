package dataverse

import (
	"fmt"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Loader fills a table with many rows before it is served. It checks each value
// once against its column and computes what the platform computes; it does not
// check references, privileges or alternate keys and leaves no history.
type Loader struct {
	c       *call
	t       *schema.Table
	columns []*schema.Column
	targets []uint8
	defs    []store.Cell // what every row begins with
	cells   []store.Cell
	slab    store.Slab
	name    int64
	touched map[string]bool
}

// Loader starts loading a table. columns are logical names; a lookup with
// several possible tables is named by its navigation property, such as
// "parentcustomerid_account" or "entityid_contact", which says where it points.
// Beside what clients may write, createdon, modifiedon and the primary key may
// be given. Rows appear when Close is called.
func (s *Server) Loader(table string, columns []string) (*Loader, error) {
	sch := s.sch.Load()
	t := sch.Table(table)
	if t == nil {
		return nil, fmt.Errorf("load: there is no table %q", table)
	}
	c := &call{
		s: s, sch: sch, now: s.clock.Now(), view: s.store.View(),
		user: &principal{id: s.org.system, real: s.org.system, unit: s.org.rootUnit, rights: s.everything()},
	}
	l := &Loader{c: c, t: t, defs: make([]store.Cell, t.Width()), cells: make([]store.Cell, t.Width()), name: c.nameConvention(), touched: map[string]bool{}}
	for _, name := range columns {
		col, target := t.Column(name), uint8(0)
		if col == nil {
			if rel := t.Navigation(name); rel != nil {
				col = t.Column(rel.Column)
				for i, to := range col.Targets {
					if to == rel.Referenced {
						target = uint8(i)
					}
				}
			}
		}
		if col == nil || col.AttributeOf != "" || col.Ord == schema.VersionOrd {
			return nil, fmt.Errorf("load: %s has no column or navigation property %q", table, name)
		}
		l.columns, l.targets = append(l.columns, col), append(l.targets, target)
		l.touched[col.Name] = true
	}
	c.defaults(t, l.defs)
	c.own(t, l.defs)
	c.stamp(t, l.defs, true)
	if t.Name == "systemuser" { // required, and nobody outside knows its id
		put(t, l.defs, "businessunitid", value.GUID(s.org.rootUnit))
	}
	if err := states(t, l.defs, nil, map[uint16]bool{}); err != nil {
		return nil, err
	}
	return l, nil
}

// Append adds a row; values are in the order of the columns. An error names the
// column and leaves the row out.
func (l *Loader) Append(values ...value.Value) error {
	if len(values) != len(l.columns) {
		return fmt.Errorf("load %s: %d values for %d columns", l.t.Name, len(values), len(l.columns))
	}
	copy(l.cells, l.defs)
	for i, v := range values {
		col := l.columns[i]
		if v.IsNull() {
			l.cells[col.Ord] = store.Cell{}
			continue
		}
		if k := kindOf(col); v.Kind() != k && !(k == value.KindDecimal && (v.Kind() == value.KindInt || v.Kind() == value.KindDouble)) {
			return fmt.Errorf("load %s: column %s holds %s, not %s", l.t.Name, col.Name, k, v.Kind())
		}
		v, err := check(l.t, col, v)
		if err != nil {
			return fmt.Errorf("load %s: %w", l.t.Name, err)
		}
		l.cells[col.Ord] = store.Cell{Value: v, Target: l.targets[i]}
	}
	id := l.cells[schema.IDOrd].Value.GUID()
	if id.IsZero() {
		id = l.c.s.newID()
	}
	if err := l.fill(); err != nil {
		return err
	}
	l.slab.Add(id, l.cells)
	return nil
}

// fill computes what the platform computes.
func (l *Loader) fill() error {
	t := l.t
	if state, status := t.Column("statecode"), t.Column("statuscode"); state != nil && status != nil {
		changed := map[uint16]bool{}
		if l.touched["statecode"] || l.touched["statuscode"] {
			changed[state.Ord], changed[status.Ord] = l.touched["statecode"], l.touched["statuscode"]
			if err := states(t, l.cells, nil, changed); err != nil {
				return fmt.Errorf("load %s: %w", t.Name, err)
			}
		}
	}
	if l.touched["ownerid"] {
		l.c.own(t, l.cells)
	}
	l.c.price(t, l.cells)
	derive(t, l.cells)
	composeName(t, l.cells, l.name)
	switch t.Name {
	case "list":
		if kind := cellOf(t, l.cells, "membertype"); kind.Value.IsNull() {
			kind.Value = cellOf(t, l.cells, "createdfromcode").Value
		}
		if count := cellOf(t, l.cells, "membercount"); count.Value.IsNull() {
			count.Value = value.Int(0)
		}
	case "listmember":
		entity := t.Column("entityid")
		cellOf(t, l.cells, "entitytype").Value = value.Text(entity.Targets[l.cells[entity.Ord].Target])
	}
	return nil
}

// Close makes the rows visible. For list members it also brings the lists'
// membercount up to date.
func (l *Loader) Close() error {
	rows := l.slab.Rows()
	if err := l.c.s.store.Load(l.t.Name, rows); err != nil {
		return err
	}
	if l.t.Name != "listmember" {
		return nil
	}
	counts := map[value.ID]int{}
	ord := int(l.t.Column("listid").Ord)
	for _, r := range rows {
		counts[r.Value(ord).GUID()]++
	}
	set := map[value.ID]bool{}
	for id := range counts {
		set[id] = true
	}
	return l.c.s.platform(func(c *call) error {
		for _, id := range sortedIDs(set) {
			c.addMemberCount(id, counts[id])
		}
		return nil
	})
}
