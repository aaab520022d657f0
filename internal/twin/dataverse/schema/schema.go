// Package schema describes the tables of a Dataverse organization as the twin
// serves them: columns with their types, lengths, options and flags, 1:N and
// N:N relationships with their navigation names, and alternate keys.
//
// A Schema is immutable once published: a change clones what it touches and
// publishes the clone under the next metadata version, so readers need no lock.
package schema

import (
	"crypto/sha1"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Type is a column type.
type Type uint8

// Column types. Customer and Owner are lookups with several target tables.
const (
	String Type = iota + 1
	Memo
	Integer
	BigInt
	Decimal
	Double
	Money
	Boolean
	DateTime
	Picklist
	MultiSelect
	State
	Status
	Lookup
	Customer
	Owner
	UniqueID
	EntityName
)

var typeNames = [...]struct{ attribute, typeName, cast string }{
	String:      {"String", "StringType", "StringAttributeMetadata"},
	Memo:        {"Memo", "MemoType", "MemoAttributeMetadata"},
	Integer:     {"Integer", "IntegerType", "IntegerAttributeMetadata"},
	BigInt:      {"BigInt", "BigIntType", "BigIntAttributeMetadata"},
	Decimal:     {"Decimal", "DecimalType", "DecimalAttributeMetadata"},
	Double:      {"Double", "DoubleType", "DoubleAttributeMetadata"},
	Money:       {"Money", "MoneyType", "MoneyAttributeMetadata"},
	Boolean:     {"Boolean", "BooleanType", "BooleanAttributeMetadata"},
	DateTime:    {"DateTime", "DateTimeType", "DateTimeAttributeMetadata"},
	Picklist:    {"Picklist", "PicklistType", "PicklistAttributeMetadata"},
	MultiSelect: {"Virtual", "MultiSelectPicklistType", "MultiSelectPicklistAttributeMetadata"},
	State:       {"State", "StateType", "StateAttributeMetadata"},
	Status:      {"Status", "StatusType", "StatusAttributeMetadata"},
	Lookup:      {"Lookup", "LookupType", "LookupAttributeMetadata"},
	Customer:    {"Customer", "CustomerType", "LookupAttributeMetadata"},
	Owner:       {"Owner", "OwnerType", "LookupAttributeMetadata"},
	UniqueID:    {"Uniqueidentifier", "UniqueidentifierType", "UniqueIdentifierAttributeMetadata"},
	EntityName:  {"EntityName", "EntityNameType", "EntityNameAttributeMetadata"},
}

// AttributeType is the metadata name of the type, such as "Picklist".
func (t Type) AttributeType() string { return typeNames[t].attribute }

// TypeName is the value of AttributeTypeName, such as "PicklistType".
func (t Type) TypeName() string { return typeNames[t].typeName }

// MetadataType is the derived metadata type, such as "PicklistAttributeMetadata".
func (t Type) MetadataType() string { return typeNames[t].cast }

// IsLookup reports whether a column of this type holds a reference to a row.
func (t Type) IsLookup() bool { return t == Lookup || t == Customer || t == Owner }

// IsText reports whether a column of this type holds free text.
func (t Type) IsText() bool { return t == String || t == Memo || t == EntityName }

// IsOption reports whether a column of this type holds one option value.
func (t Type) IsOption() bool { return t == Picklist || t == State || t == Status }

// TypeOfMetadata returns the column type that a derived metadata type name
// creates; customer and owner lookups cannot be created that way.
func TypeOfMetadata(name string) (Type, bool) {
	for t := String; int(t) < len(typeNames); t++ {
		if typeNames[t].cast == name {
			return t, true
		}
	}
	return 0, false
}

// Level is the requirement level of a column. Only SystemRequired is enforced
// by the service.
type Level string

// Requirement levels.
const (
	None                Level = "None"
	Recommended         Level = "Recommended"
	ApplicationRequired Level = "ApplicationRequired"
	SystemRequired      Level = "SystemRequired"
)

// Date-time behaviours.
const (
	UserLocal           = "UserLocal"
	DateOnly            = "DateOnly"
	TimeZoneIndependent = "TimeZoneIndependent"
)

// Option is one value of an option column.
type Option struct {
	Value int32
	Label string
	// State is the state that a status option belongs to.
	State int32
	// DefaultStatus is the status that a state option brings when none is given.
	DefaultStatus int32
}

// Column describes one column.
type Column struct {
	Name       string // logical name, lower case
	SchemaName string
	ID         [16]byte
	Ord        uint16 // position in stored rows; never reused
	Type       Type
	Label      string
	Detail     string // description

	MaxLength       int    // characters; text only
	Format          string // Text, Email, Url, Phone, TextArea, DateOnly, DateAndTime …
	Behavior        string // DateTime only
	Min, Max        float64
	Precision       int
	PrecisionSource int
	Options         []Option
	OptionSet       string // name; "<table>_<column>" for a local one
	GlobalOptions   bool
	DefaultOption   int32 // -1: none
	DefaultTrue     bool
	FalseLabel      string
	TrueLabel       string
	Targets         []string // lookups: target tables

	Required    Level
	ForCreate   bool
	ForUpdate   bool
	ForRead     bool
	Custom      bool
	AttributeOf string // shadow columns: the column they accompany; not selectable
	BaseOf      string // money: the column whose amount this one repeats in the base currency
}

// Wire is the name of the column in Web API bodies: lookups are read as
// _name_value.
func (c *Column) Wire() string {
	if c.Type.IsLookup() {
		return "_" + c.Name + "_value"
	}
	return c.Name
}

// IsDate reports whether values carry no time of day.
func (c *Column) IsDate() bool { return c.Type == DateTime && c.Behavior == DateOnly }

// Option returns the option with this value.
func (c *Column) Option(v int32) (Option, bool) {
	for _, o := range c.Options {
		if o.Value == v {
			return o, true
		}
	}
	return Option{}, false
}

// Key statuses.
const (
	KeyPending    = "Pending"
	KeyInProgress = "InProgress"
	KeyActive     = "Active"
	KeyFailed     = "Failed"
)

// Key is an alternate key; usable when its Status is Active.
type Key struct {
	Name       string
	SchemaName string
	ID         [16]byte
	Label      string
	Columns    []string
	Status     string
}

// Cascade is the behaviour of a 1:N relationship.
type Cascade struct{ Assign, Delete, Merge, Reparent, Share, Unshare string }

// Relation is a 1:N relationship: rows of Referencing point to rows of Referenced.
type Relation struct {
	SchemaName    string
	ID            [16]byte
	Referenced    string
	ReferencedID  string
	Referencing   string
	Column        string // the lookup column
	Nav           string // single-valued navigation of the referencing table
	CollectionNav string // collection-valued navigation of the referenced table
	Cascade       Cascade
	Custom        bool
}

// ManyToMany is an N:N relationship held in an intersect table.
type ManyToMany struct {
	SchemaName       string
	ID               [16]byte
	Table1, Table2   string
	Intersect        string
	Column1, Column2 string
	Nav1, Nav2       string // navigation property on Table1, on Table2
	Custom           bool
}

// Table describes one table.
type Table struct {
	Name           string
	SchemaName     string
	Set            string
	ID             [16]byte
	Code           int // object type code
	PrimaryID      string
	PrimaryName    string
	Label, Plural  string
	Detail         string
	Ownership      string // UserOwned, OrganizationOwned, BusinessOwned, None
	Custom         bool
	Activity       bool
	Intersect      bool
	ChangeTracking bool
	Optimistic     bool // optimistic concurrency
	ReadOnly       bool // rows are made by the platform, not through the API

	columns []*Column // by Ord; nil where a column was removed
	byName  map[string]*Column
	byWire  map[string]*Column
	Keys    []*Key

	// OneToMany, ManyToOne and NToN are filled by the schema that owns the table.
	ManyToOne []*Relation
	OneToMany []*Relation
	NToN      []*ManyToMany
}

// Columns returns the columns in creation order; do not modify.
func (t *Table) Columns() []*Column {
	return slices.AppendSeq(make([]*Column, 0, len(t.columns)), t.All())
}

// All yields the columns in creation order, for what is done to every row.
func (t *Table) All() iter.Seq[*Column] {
	return func(yield func(*Column) bool) {
		for _, c := range t.columns {
			if c != nil && !yield(c) {
				return
			}
		}
	}
}

// Width is the number of column positions, including those of removed columns.
func (t *Table) Width() int { return len(t.columns) }

// At returns the column at a position, nil when it was removed.
func (t *Table) At(ord uint16) *Column {
	if int(ord) >= len(t.columns) {
		return nil
	}
	return t.columns[ord]
}

// Column returns a column by logical name.
func (t *Table) Column(name string) *Column { return t.byName[name] }

// WireColumn returns a readable column by its name in Web API bodies and queries.
func (t *Table) WireColumn(name string) *Column { return t.byWire[name] }

// Navigation returns the relationship behind a single-valued navigation property.
func (t *Table) Navigation(nav string) *Relation {
	for _, r := range t.ManyToOne {
		if r.Nav == nav {
			return r
		}
	}
	return nil
}

// Collection returns the 1:N relationship behind a collection-valued
// navigation property.
func (t *Table) Collection(nav string) *Relation {
	for _, r := range t.OneToMany {
		if r.CollectionNav == nav {
			return r
		}
	}
	return nil
}

// Many returns the N:N relationship behind a navigation property.
func (t *Table) Many(nav string) *ManyToMany {
	for _, r := range t.NToN {
		if (r.Table1 == t.Name && r.Nav1 == nav) || (r.Table2 == t.Name && r.Nav2 == nav) {
			return r
		}
	}
	return nil
}

// NavFor returns the navigation property that binds a lookup column to a target
// table; empty when there is none.
func (t *Table) NavFor(column, target string) string {
	for _, r := range t.ManyToOne {
		if r.Column == column && (r.Referenced == target || r.Referenced == "owner") {
			return r.Nav
		}
	}
	return ""
}

// Key returns an alternate key by logical name.
func (t *Table) Key(name string) *Key {
	for _, k := range t.Keys {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// AddColumn appends a column at the next position.
func (t *Table) AddColumn(c *Column) {
	c.Ord = uint16(len(t.columns))
	if c.Name == "" {
		c.Name = strings.ToLower(c.SchemaName)
	}
	if c.ID == ([16]byte{}) {
		c.ID = NameID("attribute", t.Name, c.Name)
	}
	if c.OptionSet == "" && (c.Type.IsOption() || c.Type == MultiSelect || c.Type == Boolean) {
		c.OptionSet = t.Name + "_" + c.Name
	}
	t.columns = append(t.columns, c)
	t.byName[c.Name] = c
	if c.AttributeOf == "" && c.ForRead {
		t.byWire[c.Wire()] = c
	}
}

// RemoveColumn drops a column; stored values stay in their rows, unreachable.
func (t *Table) RemoveColumn(name string) {
	c := t.byName[name]
	if c == nil {
		return
	}
	t.columns[c.Ord] = nil
	delete(t.byName, name)
	delete(t.byWire, c.Wire())
}

// ReplaceColumn puts a changed copy in the place of a column; the name may change.
func (t *Table) ReplaceColumn(old string, c *Column) {
	t.RemoveColumn(old)
	t.columns[c.Ord] = c
	t.byName[c.Name] = c
	if c.AttributeOf == "" && c.ForRead {
		t.byWire[c.Wire()] = c
	}
}

func (t *Table) clone() *Table {
	c := *t
	c.columns = slices.Clone(t.columns)
	c.byName = maps.Clone(t.byName)
	c.byWire = maps.Clone(t.byWire)
	c.Keys = make([]*Key, len(t.Keys))
	for i, k := range t.Keys {
		kk := *k
		c.Keys[i] = &kk
	}
	return &c
}

// NewTable returns a table without columns.
func NewTable(schemaName, set string, code int) *Table {
	name := strings.ToLower(schemaName)
	return &Table{
		Name: name, SchemaName: schemaName, Set: set, Code: code, ID: NameID("entity", name),
		Label: Words(schemaName), Ownership: "UserOwned",
		byName: map[string]*Column{}, byWire: map[string]*Column{},
	}
}

// Schema is one published state of all definitions.
type Schema struct {
	Version    int64 // global metadata version
	tables     map[string]*Table
	sets       map[string]*Table
	relations  []*Relation
	manyToMany []*ManyToMany
	nextCode   int
}

// Table returns a table by logical name, nil when there is none.
func (s *Schema) Table(name string) *Table { return s.tables[name] }

// Set returns a table by entity set name, nil when there is none.
func (s *Schema) Set(name string) *Table { return s.sets[name] }

// Tables returns all tables ordered by logical name.
func (s *Schema) Tables() []*Table {
	out := slices.Collect(maps.Values(s.tables))
	slices.SortFunc(out, func(a, b *Table) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Relations returns all 1:N relationships.
func (s *Schema) Relations() []*Relation { return s.relations }

// ManyToMany returns all N:N relationships.
func (s *Schema) ManyToMany() []*ManyToMany { return s.manyToMany }

// ByIntersect returns the N:N relationships held in an intersect table.
func (s *Schema) ByIntersect(table string) []*ManyToMany {
	var out []*ManyToMany
	for _, m := range s.manyToMany {
		if m.Intersect == table {
			out = append(out, m)
		}
	}
	return out
}

// Change returns the next version of the schema with f applied to a private
// copy. f may add and remove columns, keys, tables and relationships.
func (s *Schema) Change(f func(*Draft) error) (*Schema, error) {
	n := &Schema{
		Version: s.Version + 1, tables: maps.Clone(s.tables), relations: slices.Clone(s.relations),
		manyToMany: slices.Clone(s.manyToMany), nextCode: s.nextCode,
	}
	d := &Draft{s: n, owned: map[string]bool{}}
	if err := f(d); err != nil {
		return nil, err
	}
	n.link(d)
	return n, nil
}

// Draft is a schema under change.
type Draft struct {
	s     *Schema
	owned map[string]bool
}

// Table returns a private copy of a table to change, nil when there is none.
func (d *Draft) Table(name string) *Table {
	t := d.s.tables[name]
	if t == nil {
		return nil
	}
	if !d.owned[name] {
		t = t.clone()
		d.s.tables[name] = t
		d.owned[name] = true
	}
	return t
}

// Add adds a table; a zero code gets the next free one.
func (d *Draft) Add(t *Table) {
	if t.Code == 0 {
		t.Code = d.s.nextCode
		d.s.nextCode++
	}
	d.s.tables[t.Name] = t
	d.owned[t.Name] = true
}

// Remove drops a table and its relationships.
func (d *Draft) Remove(name string) {
	delete(d.s.tables, name)
	d.s.relations = slices.DeleteFunc(d.s.relations, func(r *Relation) bool { return r.Referenced == name || r.Referencing == name })
	d.s.manyToMany = slices.DeleteFunc(d.s.manyToMany, func(m *ManyToMany) bool {
		return m.Table1 == name || m.Table2 == name || m.Intersect == name
	})
}

// Relate adds a 1:N relationship.
func (d *Draft) Relate(r *Relation) {
	if r.ID == ([16]byte{}) {
		r.ID = NameID("relation", r.SchemaName)
	}
	d.s.relations = append(d.s.relations, r)
}

// RelateMany adds an N:N relationship.
func (d *Draft) RelateMany(m *ManyToMany) {
	if m.ID == ([16]byte{}) {
		m.ID = NameID("relation", m.SchemaName)
	}
	d.s.manyToMany = append(d.s.manyToMany, m)
}

// Unrelate drops the relationships of one lookup column.
func (d *Draft) Unrelate(table, column string) {
	d.s.relations = slices.DeleteFunc(d.s.relations, func(r *Relation) bool { return r.Referencing == table && r.Column == column })
}

// link rebuilds the maps that span tables. Tables whose relationships changed
// are copied so that published ones stay untouched.
func (s *Schema) link(d *Draft) {
	s.sets = make(map[string]*Table, len(s.tables))
	s.relations = slices.DeleteFunc(s.relations, func(r *Relation) bool {
		return s.tables[r.Referencing] == nil || (r.Referenced != "owner" && s.tables[r.Referenced] == nil)
	})
	s.manyToMany = slices.DeleteFunc(s.manyToMany, func(m *ManyToMany) bool {
		return s.tables[m.Table1] == nil || s.tables[m.Table2] == nil || s.tables[m.Intersect] == nil
	})
	for name := range s.tables {
		t := d.Table(name)
		t.ManyToOne, t.OneToMany, t.NToN = nil, nil, nil
		s.sets[t.Set] = t
	}
	for _, r := range s.relations {
		s.tables[r.Referencing].ManyToOne = append(s.tables[r.Referencing].ManyToOne, r)
		if t := s.tables[r.Referenced]; t != nil {
			t.OneToMany = append(t.OneToMany, r)
		}
	}
	for _, m := range s.manyToMany {
		s.tables[m.Table1].NToN = append(s.tables[m.Table1].NToN, m)
		if m.Table2 != m.Table1 {
			s.tables[m.Table2].NToN = append(s.tables[m.Table2].NToN, m)
		}
	}
}

// NameID derives a stable identifier from names (RFC 9562 version 5 layout).
func NameID(parts ...string) [16]byte {
	h := sha1.Sum([]byte("dataverse-twin\x00" + strings.Join(parts, "\x00")))
	var id [16]byte
	copy(id[:], h[:16])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Words splits a schema name into the words of a label: "FirstName" becomes
// "First Name"; a customization prefix up to the underscore is dropped.
func Words(schemaName string) string {
	if i := strings.IndexByte(schemaName, '_'); i > 0 && i < 9 {
		schemaName = schemaName[i+1:]
	}
	var b strings.Builder
	rs := []rune(strings.ReplaceAll(schemaName, "_", ": "))
	for i, r := range rs {
		upper := r >= 'A' && r <= 'Z'
		if i > 0 && upper && (rs[i-1] < 'A' || rs[i-1] > 'Z') && rs[i-1] != ' ' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// FormatID prints an identifier in the lower-case form of the wire.
func FormatID(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:])
}
