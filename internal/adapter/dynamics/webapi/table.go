package webapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// columnKind is how a column looks on the wire.
type columnKind uint8

const (
	otherColumn columnKind = iota
	textColumn
	numberColumn
	boolColumn
	timeColumn
	choicesColumn
	lookupColumn
	idColumn
)

type column struct {
	name string
	kind columnKind
}

// wire returns the column's property: a lookup is read as _name_value.
func (c column) wire() string {
	if c.kind == lookupColumn {
		return "_" + c.name + "_value"
	}
	return c.name
}

// relation is where a lookup leads: the table, and the name under which it is set.
type relation struct{ table, navigation string }

// table is what the adapter itself must know of a table to read and write it.
type table struct {
	name, set, id, primaryName string
	tracked                    bool
	columns                    map[string]column
	relations                  map[string][]relation // by lookup; nil until needed
	loaded                     time.Time
}

// staleAfter is how old a definition must be to be read again because a column is
// missing in it: the column may be new.
const staleAfter = time.Minute

// has reports whether the table has all the columns, each perhaps "lookup.column".
func (t *table) has(columns []string) bool {
	for _, name := range columns {
		if lookup, column := splitColumn(name); lookup != "" {
			name = lookup
		} else {
			name = column
		}
		if _, ok := t.columns[name]; !ok {
			return false
		}
	}
	return true
}

type label struct {
	UserLocalizedLabel *struct{ Label string }
	LocalizedLabels    []struct{ Label string }
}

func (l label) text(fallback string) string {
	if l.UserLocalizedLabel != nil && l.UserLocalizedLabel.Label != "" {
		return l.UserLocalizedLabel.Label
	}
	if len(l.LocalizedLabels) > 0 && l.LocalizedLabels[0].Label != "" {
		return l.LocalizedLabels[0].Label
	}
	return fallback
}

type entityMetadata struct {
	LogicalName, SchemaName, EntitySetName   string
	PrimaryIdAttribute, PrimaryNameAttribute string //nolint:staticcheck // the service's own names
	ChangeTrackingEnabled                    bool
	DisplayName                              label
	Attributes                               []attributeMetadata
}

type attributeMetadata struct {
	LogicalName, SchemaName    string
	AttributeType              string
	AttributeTypeName          struct{ Value string }
	AttributeOf                *string
	IsValidForRead             bool
	IsValidForCreate           bool
	IsValidForUpdate           bool
	IsPrimaryId                bool //nolint:staticcheck // the service's own name
	RequiredLevel              struct{ Value string }
	DisplayName, Description   label
	MaxLength, Precision       int
	MinValue, MaxValue         json.Number
	DateTimeBehavior           *struct{ Value string }
	Targets                    []string // tables that a lookup leads to
	OptionSet, GlobalOptionSet *optionSet
}

type optionSet struct {
	Options []struct {
		Value int64
		Label label
	}
	TrueOption, FalseOption *struct {
		Value int64
		Label label
	}
}

// kind tells how a column is read; otherColumn means that it cannot be.
func (a *attributeMetadata) kind() columnKind {
	if a.AttributeTypeName.Value == "MultiSelectPicklistType" {
		return choicesColumn
	}
	switch a.AttributeType {
	case "String", "Memo", "EntityName":
		return textColumn
	case "Integer", "BigInt", "Decimal", "Double", "Money", "Picklist", "State", "Status":
		return numberColumn
	case "Boolean":
		return boolColumn
	case "DateTime":
		return timeColumn
	case "Lookup", "Customer", "Owner":
		return lookupColumn
	case "Uniqueidentifier":
		return idColumn
	}
	return otherColumn
}

// lookUpTable returns what is known of a table, asking the service the first time,
// and again when one of the columns that are needed is not known.
func (c *Client) lookUpTable(ctx context.Context, name string, need ...string) (*table, error) {
	c.mu.Lock()
	t := c.tables[name]
	c.mu.Unlock()
	if t != nil && (t.has(need) || c.now().Sub(t.loaded) < staleAfter) {
		return t, nil
	}
	if !logicalName.MatchString(name) {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics", Msg: fmt.Sprintf("%.60q is not the logical name of a table", name), Scope: lockstep.ScopeBatch}
	}
	text, err := c.get(ctx, "read the definition of "+name, "/EntityDefinitions", "EntityDefinitions(LogicalName=%27"+name+"%27)?$select=LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,ChangeTrackingEnabled"+
		"&$expand=Attributes($select=LogicalName,AttributeType,AttributeTypeName,AttributeOf,IsValidForRead)")
	if err != nil {
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			e := *lockstep.AsError(err)
			e.Msg, e.Hint = "there is no table "+name+" in this organization", "check whether the app that brings it is installed"
			return nil, &e
		}
		return nil, err
	}
	var m entityMetadata
	if json.Unmarshal([]byte(text), &m) != nil || m.EntitySetName == "" || m.PrimaryIdAttribute == "" {
		return nil, garbled("read the definition of " + name)
	}
	return c.learn(&m), nil
}

// learn keeps the definition of a table.
func (c *Client) learn(m *entityMetadata) *table {
	t := m.table()
	t.loaded = c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables[t.name] = t
	return t
}

func (m *entityMetadata) table() *table {
	t := &table{name: m.LogicalName, set: m.EntitySetName, id: m.PrimaryIdAttribute, primaryName: m.PrimaryNameAttribute, tracked: m.ChangeTrackingEnabled, columns: make(map[string]column, len(m.Attributes))}
	for i := range m.Attributes {
		a := &m.Attributes[i]
		if k := a.kind(); k != otherColumn && a.AttributeOf == nil && a.IsValidForRead {
			t.columns[a.LogicalName] = column{a.LogicalName, k}
		}
	}
	return t
}

// forget drops what is known of a table after the service contradicted it, so
// that the next call reads it anew.
func (c *Client) forget(name string, err error) {
	switch codeOf(err) {
	case errNoQueryTable, errNoQueryColumn, errUndeclared, 0x80060888, errTrackingOff, errTrackingNever:
		c.mu.Lock()
		delete(c.tables, name)
		c.mu.Unlock()
	}
}

// relationsOf returns where the lookups of a table lead.
func (c *Client) relationsOf(ctx context.Context, t *table) (map[string][]relation, error) {
	c.mu.Lock()
	known := t.relations
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	text, err := c.get(ctx, "read the lookups of "+t.name, "/EntityDefinitions/ManyToOneRelationships",
		"EntityDefinitions(LogicalName=%27"+t.name+"%27)/ManyToOneRelationships?$select=ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Value []struct{ ReferencingAttribute, ReferencedEntity, ReferencingEntityNavigationPropertyName string }
	}
	if json.Unmarshal([]byte(text), &answer) != nil {
		return nil, garbled("read the lookups of " + t.name)
	}
	known = map[string][]relation{}
	for _, r := range answer.Value {
		known[r.ReferencingAttribute] = append(known[r.ReferencingAttribute], relation{r.ReferencedEntity, r.ReferencingEntityNavigationPropertyName})
	}
	c.mu.Lock()
	t.relations = known
	c.mu.Unlock()
	return known, nil
}

// optionCasts are the types of columns whose options must be asked for by type.
var optionCasts = []string{"Picklist", "MultiSelectPicklist", "State", "Status", "Boolean"}

// Tables reads the definitions of the named tables, types, limits and options
// included, in one call.
func (c *Client) Tables(ctx context.Context, names []string) ([]lockstep.Table, error) {
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, nil
	}
	const op = "read table definitions"
	var parts []part
	get := func(path string) { parts = append(parts, part{method: http.MethodGet, target: api + path}) }
	for _, n := range names {
		if !logicalName.MatchString(n) {
			return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics: " + op, Msg: fmt.Sprintf("%.60q is not the logical name of a table", n), Scope: lockstep.ScopeBatch}
		}
		entity := "EntityDefinitions(LogicalName=%27" + n + "%27)"
		get(entity + "?$select=LogicalName,SchemaName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,ChangeTrackingEnabled,DisplayName")
		get(entity + "/Attributes")
		for _, cast := range optionCasts {
			expand := "OptionSet,GlobalOptionSet"
			if cast == "State" || cast == "Status" || cast == "Boolean" {
				expand = "OptionSet"
			}
			get(entity + "/Attributes/Microsoft.Dynamics.CRM." + cast + "AttributeMetadata?$select=LogicalName&$expand=" + expand)
		}
	}
	answers, err := c.batch(ctx, op, parts)
	if err != nil {
		return nil, err
	}
	per := 2 + len(optionCasts)
	var out []lockstep.Table
	for i := range names {
		got := answers[i*per : (i+1)*per]
		if got[0].err != nil {
			if got[0].err.Code == lockstep.CodeNotFound {
				continue
			}
			return nil, got[0].err
		}
		if got[1].err != nil {
			return nil, got[1].err
		}
		var m entityMetadata
		var attributes struct{ Value []attributeMetadata }
		if json.Unmarshal([]byte(got[0].body), &m) != nil || json.Unmarshal([]byte(got[1].body), &attributes) != nil {
			return nil, garbled(op)
		}
		options := map[string][]lockstep.Option{}
		for k, cast := range optionCasts {
			a := got[2+k]
			if a.err != nil {
				if cast == "MultiSelectPicklist" { // unknown before version 9
					continue
				}
				return nil, a.err
			}
			var list struct{ Value []attributeMetadata }
			if json.Unmarshal([]byte(a.body), &list) != nil {
				return nil, garbled(op)
			}
			for j := range list.Value {
				options[list.Value[j].LogicalName] = list.Value[j].options()
			}
		}
		m.Attributes = attributes.Value
		out = append(out, m.describe(options))
		c.learn(&m)
	}
	return out, nil
}

func (a *attributeMetadata) options() []lockstep.Option {
	set := a.OptionSet
	if set == nil {
		set = a.GlobalOptionSet
	}
	if set == nil {
		return nil
	}
	var out []lockstep.Option
	for _, o := range set.Options {
		out = append(out, lockstep.Option{Value: o.Value, Label: o.Label.text("")})
	}
	if f := set.FalseOption; f != nil {
		out = append(out, lockstep.Option{Value: f.Value, Label: f.Label.text("No")})
	}
	if t := set.TrueOption; t != nil {
		out = append(out, lockstep.Option{Value: t.Value, Label: t.Label.text("Yes")})
	}
	return out
}

// neverWritten are columns that the service fills in itself, whatever its
// metadata says: it drops or misplaces what a client sends for them.
var neverWritten = map[string]bool{
	"createdon": true, "createdby": true, "createdonbehalfby": true, "modifiedon": true, "modifiedby": true, "modifiedonbehalfby": true, "versionnumber": true, "fullname": true,
	"owningbusinessunit": true, "owninguser": true, "owningteam": true, "merged": true, "masterid": true, "overriddencreatedon": true, "importsequencenumber": true, "exchangerate": true,
}

func (m *entityMetadata) describe(options map[string][]lockstep.Option) lockstep.Table {
	t := lockstep.Table{Name: m.LogicalName, DisplayName: m.DisplayName.text(m.SchemaName), PrimaryName: m.PrimaryNameAttribute, ChangeTracked: m.ChangeTrackingEnabled}
	for i := range m.Attributes {
		a := &m.Attributes[i]
		kind := a.kind()
		if a.AttributeOf != nil {
			continue // the shadow of another column
		}
		col := lockstep.Column{
			Table: m.LogicalName, Name: a.LogicalName, DisplayName: a.DisplayName.text(a.SchemaName), Description: a.Description.text(""), Type: a.columnType(),
			Options: options[a.LogicalName], Readable: a.IsValidForRead && kind != otherColumn,
			Creatable: a.IsValidForCreate && !neverWritten[a.LogicalName] && kind != otherColumn, Updatable: a.IsValidForUpdate && !neverWritten[a.LogicalName] && kind != otherColumn && a.LogicalName != m.PrimaryIdAttribute,
			Required: a.RequiredLevel.Value == "SystemRequired" && a.IsValidForCreate && a.LogicalName != m.PrimaryIdAttribute,
		}
		switch col.Type {
		case lockstep.ColumnText:
			col.MaxLength = a.MaxLength
		case lockstep.ColumnLookup:
			col.Targets = a.Targets
		case lockstep.ColumnWhole, lockstep.ColumnBigInt, lockstep.ColumnDecimal, lockstep.ColumnDouble, lockstep.ColumnMoney:
			col.Precision = a.Precision
			if v, ok := lockstep.ParseNumber(a.MinValue.String()); ok {
				col.Min = v.Text()
			}
			if v, ok := lockstep.ParseNumber(a.MaxValue.String()); ok {
				col.Max = v.Text()
			}
		}
		t.Columns = append(t.Columns, col)
	}
	return t
}

func (a *attributeMetadata) columnType() lockstep.ColumnType {
	if a.AttributeTypeName.Value == "MultiSelectPicklistType" {
		return lockstep.ColumnMultiOption
	}
	switch a.AttributeType {
	case "String", "Memo":
		return lockstep.ColumnText
	case "Integer":
		return lockstep.ColumnWhole
	case "BigInt":
		return lockstep.ColumnBigInt
	case "Decimal":
		return lockstep.ColumnDecimal
	case "Double":
		return lockstep.ColumnDouble
	case "Money":
		return lockstep.ColumnMoney
	case "Boolean":
		return lockstep.ColumnBool
	case "DateTime":
		if a.DateTimeBehavior != nil && a.DateTimeBehavior.Value == "DateOnly" {
			return lockstep.ColumnDate
		}
		return lockstep.ColumnDateTime
	case "Picklist":
		return lockstep.ColumnOption
	case "State":
		return lockstep.ColumnState
	case "Status":
		return lockstep.ColumnStatus
	case "Lookup", "Customer", "Owner":
		return lockstep.ColumnLookup
	case "Uniqueidentifier":
		return lockstep.ColumnID
	}
	return lockstep.ColumnOther
}

// splitColumn parts "lookup.column".
func splitColumn(s string) (lookup, name string) {
	if l, n, ok := strings.Cut(s, "."); ok {
		return l, n
	}
	return "", s
}
