package query

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// memory is a small organization: a schema and its rows in key order.
type memory struct {
	tables map[string]*memTable
	// unindexed makes Lookup refuse, so that queries scan.
	unindexed bool
	// scanned counts the rows that Scan yielded.
	scanned int
}

type memTable struct {
	name, set string
	columns   []Column
	navs      map[string]Navigation
	rows      []*memRow
}

type memRow struct{ values []value.Value }

func (r *memRow) Value(i int) value.Value { return r.values[i] }

func (t *memTable) LogicalName() string { return t.name }
func (t *memTable) SetName() string     { return t.set }
func (t *memTable) PrimaryID() Column   { return t.columns[0] }
func (t *memTable) Columns() []Column   { return t.columns }
func (t *memTable) PrimaryName() (Column, bool) {
	if len(t.columns) > 1 && t.columns[1].Kind == value.KindText {
		return t.columns[1], true
	}
	return Column{}, false
}

func (t *memTable) Column(name string) (Column, bool) {
	for _, c := range t.columns {
		if c.LogicalName == name {
			return c, true
		}
	}
	return Column{}, false
}

func (t *memTable) Navigation(name string) (Navigation, bool) {
	n, ok := t.navs[name]
	return n, ok
}

func (m *memory) TableByName(name string) (Table, bool) {
	t, ok := m.tables[name]
	return t, ok
}

func (m *memory) TableBySet(name string) (Table, bool) {
	for _, t := range m.tables {
		if t.set == name {
			return t, true
		}
	}
	return nil, false
}

func (m *memory) find(t *memTable, id value.ID) (int, bool) {
	return slices.BinarySearchFunc(t.rows, id, func(r *memRow, id value.ID) int { return r.values[0].GUID().Compare(id) })
}

func (m *memory) Scan(t Table, after value.ID) iter.Seq[Row] {
	mt := m.tables[t.LogicalName()]
	return func(yield func(Row) bool) {
		i, found := m.find(mt, after)
		if found {
			i++
		}
		for _, r := range slices.Clone(mt.rows[i:]) {
			m.scanned++
			if !yield(r) {
				return
			}
		}
	}
}

func (m *memory) Get(t Table, id value.ID) (Row, bool) {
	mt := m.tables[t.LogicalName()]
	if i, ok := m.find(mt, id); ok {
		return mt.rows[i], true
	}
	return nil, false
}

func (m *memory) Lookup(t Table, c Column, v value.Value) (iter.Seq[Row], bool) {
	if v.IsNull() || v.Kind() != c.Kind {
		panic("Lookup of a value that the column cannot hold")
	}
	if m.unindexed || c.Kind != value.KindGUID && c.Kind != value.KindInt {
		return nil, false
	}
	return func(yield func(Row) bool) {
		for _, r := range m.tables[t.LogicalName()].rows {
			if value.Equal(r.values[c.Ordinal], v) && !yield(r) {
				return
			}
		}
	}, true
}

// put inserts or replaces a row.
func (m *memory) put(table string, values ...value.Value) {
	t := m.tables[table]
	for len(values) < len(t.columns) {
		values = append(values, value.Null())
	}
	row := &memRow{values}
	if i, found := m.find(t, values[0].GUID()); found {
		t.rows[i] = row
	} else {
		t.rows = slices.Insert(t.rows, i, row)
	}
}

func (m *memory) remove(table string, id value.ID) {
	t := m.tables[table]
	if i, ok := m.find(t, id); ok {
		t.rows = slices.Delete(slices.Clone(t.rows), i, i+1)
	}
}

// id makes a readable GUID: a table's digit and a number.
func id(table, n int) value.ID {
	return value.MustID(fmt.Sprintf("%08d-0000-4abc-8def-%012d", table, n))
}

func guidOf(table, n int) value.Value { return value.GUID(id(table, n)) }

var now = time.Date(2026, 3, 18, 10, 30, 0, 0, time.UTC) // a Wednesday

var env = Env{Now: now, User: id(9, 1), BusinessUnit: id(8, 1), Teams: []value.ID{id(7, 1)}, Language: 1033}

func columns(list ...Column) []Column {
	for i := range list {
		list[i].Ordinal = i
	}
	return list
}

func newMemory() *memory {
	col := func(name string, kind value.Kind) Column { return Column{LogicalName: name, Kind: kind} }
	lookup := func(name string, targets ...string) Column {
		return Column{LogicalName: name, Kind: value.KindGUID, Lookup: true, Targets: targets}
	}
	option := func(name string) Column { return Column{LogicalName: name, Kind: value.KindInt, Option: true} }
	return &memory{tables: map[string]*memTable{
		"contact": {name: "contact", set: "contacts", columns: columns(
			col("contactid", value.KindGUID), col("fullname", value.KindText), col("emailaddress1", value.KindText),
			option("statecode"), col("donotemail", value.KindBool), col("creditlimit", value.KindDecimal),
			col("score", value.KindInt), col("weight", value.KindDouble), col("birthdate", value.KindDate),
			col("createdon", value.KindDateTime), col("interests", value.KindMultiSelect),
			lookup("parentcustomerid", "account", "contact"), lookup("ownerid", "systemuser"), col("nickname", value.KindText),
			option("language"),
		), navs: map[string]Navigation{
			"parentcustomerid_account": {Name: "parentcustomerid_account", Cardinality: ToOne, Target: "account", Column: "parentcustomerid"},
			"listcontact_association":  {Name: "listcontact_association", Cardinality: ManyToMany, Target: "list", Intersect: "listmember", Near: "entityid", Far: "listid"},
		}},
		"account": {name: "account", set: "accounts", columns: columns(
			col("accountid", value.KindGUID), col("name", value.KindText), lookup("primarycontactid", "contact"), col("revenue", value.KindDecimal),
		), navs: map[string]Navigation{
			"primarycontactid":          {Name: "primarycontactid", Cardinality: ToOne, Target: "contact", Column: "primarycontactid"},
			"contact_customer_accounts": {Name: "contact_customer_accounts", Cardinality: ToMany, Target: "contact", Column: "parentcustomerid"},
		}},
		"list": {
			name: "list", set: "lists", columns: columns(col("listid", value.KindGUID), col("listname", value.KindText)),
			navs: map[string]Navigation{
				"listcontact_association": {Name: "listcontact_association", Cardinality: ManyToMany, Target: "contact", Intersect: "listmember", Near: "listid", Far: "entityid"},
			},
		},
		"listmember": {name: "listmember", set: "listmembers", columns: columns(
			col("listmemberid", value.KindGUID), lookup("listid", "list"), lookup("entityid", "contact"),
		), navs: map[string]Navigation{}},
		"systemuser": {name: "systemuser", set: "systemusers", columns: columns(col("systemuserid", value.KindGUID), col("fullname", value.KindText)), navs: map[string]Navigation{}},
	}}
}

// company is the organization of the golden tests.
//
//	contact 1 Ada King    account 1, lists 1 and 2
//	contact 2 Bob Ray     account 1, list 1
//	contact 3 cäsar 50%   no account, list 2
//	contact 4 Dora King   account 2
//	contact 5 (nothing but its key)
func company() *memory {
	m := newMemory()
	text, date := value.Text, func(s string) value.Value {
		v, err := value.ParseDateTime(s)
		if err != nil {
			panic(err)
		}
		return v
	}
	null := value.Null()
	m.put("systemuser", guidOf(9, 1), text("Zoe Owner"))
	m.put("systemuser", guidOf(9, 2), text("Abe Owner"))
	m.put("account", guidOf(2, 1), text("Acme"), guidOf(1, 1), value.Decimal(1000000, 4))
	m.put("account", guidOf(2, 2), text("Beta"), guidOf(1, 4), value.Decimal(2500000, 4))
	m.put("account", guidOf(2, 3), text("Gamma"))
	m.put("contact", guidOf(1, 1), text("Ada King"), text("ada@x.org"), value.Int(0), value.Bool(false), value.Decimal(1000000, 4),
		value.Int(10), value.Double(1.5), value.Date(1980, 5, 17), date("2026-03-18T09:00:00Z"), value.MultiSelect(1, 2), guidOf(2, 1), guidOf(9, 1), text("ADA@X.ORG"), value.Int(1033))
	m.put("contact", guidOf(1, 2), text("Bob Ray"), text("bob@y.org"), value.Int(0), value.Bool(true), value.Decimal(500000, 4),
		value.Int(20), value.Double(2), value.Date(1990, 1, 2), date("2026-03-11T00:00:00Z"), value.MultiSelect(2, 30), guidOf(2, 1), guidOf(9, 2), text("Bobby"), value.Int(1031))
	m.put("contact", guidOf(1, 3), text("cäsar 50%"), null, value.Int(1), value.Bool(false), value.Decimal(5, 1),
		value.Int(30), value.Double(-4), value.Date(2000, 2, 29), date("2026-02-18T23:59:59Z"), null, null, guidOf(7, 1), text("C_x"), null)
	m.put("contact", guidOf(1, 4), text("Dora King"), text("DORA@x.org"), value.Int(1), value.Bool(false), null,
		value.Int(20), null, null, date("2025-03-17T12:00:00Z"), value.MultiSelect(3), guidOf(2, 2), guidOf(9, 1), null, null)
	m.put("contact", guidOf(1, 5))
	m.put("list", guidOf(3, 1), text("Newsletter"))
	m.put("list", guidOf(3, 2), text("Customers"))
	m.put("listmember", guidOf(4, 1), guidOf(3, 1), guidOf(1, 1))
	m.put("listmember", guidOf(4, 2), guidOf(3, 1), guidOf(1, 2))
	m.put("listmember", guidOf(4, 3), guidOf(3, 2), guidOf(1, 1))
	m.put("listmember", guidOf(4, 4), guidOf(3, 2), guidOf(1, 3))
	return m
}

// text writes results as "name=value name=value; …", without nulls, GUIDs short.
func textOf(q *Query, res *Result) string {
	var rows []string
	for res.Next() {
		var cells []string
		rec := res.Record()
		for i := range q.Outputs {
			v := rec.Value(&q.Outputs[i])
			if v.IsNull() {
				continue
			}
			s := v.String()
			if v.Kind() == value.KindGUID {
				s = short(v.GUID())
			}
			cells = append(cells, q.Outputs[i].Name+"="+s)
		}
		rows = append(rows, strings.Join(cells, " "))
	}
	return strings.Join(rows, "; ")
}

func short(id value.ID) string {
	s := id.String()
	return strings.TrimLeft(s[:8], "0") + "." + strings.TrimLeft(s[24:], "0")
}

// keys returns the short primary keys of a result.
func keysOf(q *Query, res *Result) string {
	var out []string
	for res.Next() {
		out = append(out, short(res.Record().Row().Value(q.Table.PrimaryID().Ordinal).GUID()))
	}
	return strings.Join(out, " ")
}

func table(t *testing.T, m *memory, name string) Table {
	t.Helper()
	tab, ok := m.TableByName(name)
	if !ok {
		t.Fatalf("no table %s", name)
	}
	return tab
}
