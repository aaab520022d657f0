package schema

import (
	"strconv"
	"strings"
)

// The builders below make the declarations of the standard tables short. Each
// takes the schema name (the logical name is its lower-case form) and returns a
// column that every caller may read, create and update.

func column(name string, t Type) *Column {
	return &Column{
		SchemaName: name, Name: strings.ToLower(name), Type: t, Label: Words(name),
		Required: None, ForCreate: true, ForUpdate: true, ForRead: true, DefaultOption: -1,
	}
}

// Text declares a single-line text column of at most length characters.
func Text(name string, length int) *Column {
	c := column(name, String)
	c.MaxLength, c.Format = length, "Text"
	return c
}

// email declares an address column; all of Dataverse's take 100 characters.
func email(name string) *Column { c := Text(name, 100); c.Format = "Email"; return c }

func phone(name string, length int) *Column { c := Text(name, length); c.Format = "Phone"; return c }
func web(name string) *Column               { c := Text(name, 200); c.Format = "Url"; return c }

func memo(name string, length int) *Column {
	c := column(name, Memo)
	c.MaxLength, c.Format = length, "TextArea"
	return c
}

func whole(name string, low, high float64) *Column {
	c := column(name, Integer)
	c.Min, c.Max, c.Format = low, high, "None"
	return c
}

func number(name string, t Type, low, high float64, precision int) *Column {
	c := column(name, t)
	c.Min, c.Max, c.Precision = low, high, precision
	return c
}

func money(name string, high float64) *Column {
	c := number(name, Money, 0, high, 2)
	c.PrecisionSource = 2
	return c
}

func flag(name string, on bool) *Column {
	c := column(name, Boolean)
	c.DefaultTrue, c.FalseLabel, c.TrueLabel = on, "No", "Yes"
	return c
}

func labels(c *Column, no, yes string) *Column {
	c.FalseLabel, c.TrueLabel = no, yes
	return c
}

// forbid declares one of the "do not contact by" columns: true means do not.
func forbid(name, label string) *Column {
	c := labels(flag(name, false), "Allow", "Do Not Allow")
	c.Label = label
	return c
}

// choice declares an option column; options reads "1 Male|2 Female".
func choice(name string, def int32, options string) *Column {
	c := column(name, Picklist)
	c.DefaultOption, c.Options = def, parseOptions(options)
	return c
}

func multi(name, options string) *Column {
	c := column(name, MultiSelect)
	c.Options = parseOptions(options)
	return c
}

func parseOptions(s string) []Option {
	var out []Option
	for part := range strings.SplitSeq(s, "|") {
		v, label, _ := strings.Cut(part, " ")
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			panic("schema: option " + part)
		}
		out = append(out, Option{Value: int32(n), Label: label})
	}
	return out
}

func when(name string) *Column {
	c := column(name, DateTime)
	c.Format, c.Behavior = "DateAndTime", UserLocal
	return c
}

// day declares a date that the service keeps as a moment (format DateOnly,
// behaviour UserLocal).
func day(name string) *Column {
	c := when(name)
	c.Format = "DateOnly"
	return c
}

// dateOnly declares a date without time (behaviour DateOnly).
func dateOnly(name string) *Column {
	c := day(name)
	c.Behavior = DateOnly
	return c
}

func guid(name string) *Column { return column(name, UniqueID) }

func lookup(name string, targets ...string) *Column {
	c := column(name, Lookup)
	c.Targets = targets
	return c
}

func customer(name string) *Column {
	c := column(name, Customer)
	c.Targets = []string{"account", "contact"}
	return c
}

func readOnly(c *Column) *Column { c.ForCreate, c.ForUpdate = false, false; return c }
func createOnly(c *Column) *Column {
	c.ForUpdate = false
	return c
}
func writeOnly(c *Column) *Column  { c.ForRead = false; return c }
func updateOnly(c *Column) *Column { c.ForCreate = false; return c }
func require(c *Column, l Level) *Column {
	c.Required = l
	return c
}
func labelled(c *Column, label string) *Column { c.Label = label; return c }

// states declares statecode and statuscode. states reads "0 Active=1|1 Inactive=2"
// (value, label, default status); statuses reads "1 Active@0|2 Inactive@1"
// (value, label, state).
func states(states, statuses string) []*Column {
	st := column("StateCode", State)
	st.Label, st.DefaultOption, st.Required = "Status", 0, SystemRequired
	for _, o := range parseOptions(states) {
		label, def, _ := strings.Cut(o.Label, "=")
		n, _ := strconv.Atoi(def)
		st.Options = append(st.Options, Option{Value: o.Value, Label: label, DefaultStatus: int32(n)})
	}
	status := column("StatusCode", Status)
	status.Label = "Status Reason"
	status.DefaultOption = -1
	for _, o := range parseOptions(statuses) {
		label, state, _ := strings.Cut(o.Label, "@")
		n, _ := strconv.Atoi(state)
		status.Options = append(status.Options, Option{Value: o.Value, Label: label, State: int32(n)})
	}
	return []*Column{st, status}
}

func standardStates() []*Column {
	return states("0 Active=1|1 Inactive=2", "1 Active@0|2 Inactive@1")
}

// builder collects the tables of a schema before they are linked.
type builder struct {
	d *Draft
}

// versionColumn is second in every table; see VersionOrd.
func versionColumn() *Column {
	c := readOnly(column("VersionNumber", BigInt))
	c.Label = "Version Number"
	return c
}

// Positions that every table has in common: the primary key and versionnumber.
const (
	IDOrd      = 0
	VersionOrd = 1
)

// table declares a table with its primary key first and its row version second.
func (b *builder) table(schemaName, set string, code int, idName, nameColumn string, cols ...[]*Column) *Table {
	t := NewTable(schemaName, set, code)
	t.Plural = Words(strings.ToUpper(set[:1]) + set[1:])
	id := guid(idName)
	id.ForUpdate, id.Required = false, SystemRequired
	id.Label = t.Label
	t.PrimaryID, t.PrimaryName = id.Name, nameColumn
	t.AddColumn(id)
	t.AddColumn(versionColumn())
	for _, group := range cols {
		for _, c := range group {
			t.AddColumn(c)
		}
	}
	for _, c := range t.Columns() {
		if c.Type == Money && c.BaseOf == "" && t.Column(c.Name+"_base") == nil {
			base := readOnly(number(c.SchemaName+"_Base", Money, -922337203685477, 922337203685477, 4))
			base.BaseOf, base.Label = c.Name, c.Label+" (Base)"
			t.AddColumn(base)
		}
	}
	for _, c := range t.Columns() {
		if c.Type.IsLookup() {
			addShadow(t, c)
		}
	}
	b.d.Add(t)
	return t
}

// addShadow adds the <lookup>name column that metadata lists beside a lookup.
func addShadow(t *Table, c *Column) {
	if t.Column(c.Name+"name") != nil {
		return
	}
	s := readOnly(Text(c.SchemaName+"Name", 100))
	s.AttributeOf, s.Custom = c.Name, c.Custom
	t.AddColumn(s)
}

// relate declares the relationship of one lookup column to one target with the
// name of its collection-valued side. A polymorphic column gets one navigation
// property per target.
func (b *builder) relate(table, col, target, collection string) *Relation {
	t := b.d.s.tables[table]
	c := t.Column(col)
	nav := c.Name
	if len(c.Targets) > 1 && c.Type != Owner {
		nav = c.Name + "_" + target
	}
	if c.Custom {
		nav = c.SchemaName
	}
	ref := b.d.s.tables[target]
	refID := target + "id"
	if ref != nil {
		refID = ref.PrimaryID
	}
	r := &Relation{
		SchemaName: collection, Referenced: target, ReferencedID: refID, Referencing: table,
		Column: col, Nav: nav, CollectionNav: collection, Custom: c.Custom,
		Cascade: Cascade{"NoCascade", "RemoveLink", "NoCascade", "NoCascade", "NoCascade", "NoCascade"},
	}
	b.d.Relate(r)
	return r
}

// relateRest declares relationships for every lookup column that has none yet.
func (b *builder) relateRest() {
	declared := map[[2]string]map[string]bool{}
	for _, r := range b.d.s.relations {
		k := [2]string{r.Referencing, r.Column}
		if declared[k] == nil {
			declared[k] = map[string]bool{}
		}
		declared[k][r.Referenced] = true
	}
	for _, t := range b.d.s.Tables() {
		for _, c := range t.Columns() {
			if !c.Type.IsLookup() {
				continue
			}
			targets := c.Targets
			if c.Type == Owner {
				targets = []string{"owner"}
			}
			for _, target := range targets {
				if !declared[[2]string{t.Name, c.Name}][target] {
					b.relate(t.Name, c.Name, target, "lk_"+t.Name+"_"+c.Name+"_"+target)
				}
			}
		}
	}
}

// NewCustomTable returns a table as a customizer creates it: primary key,
// version, the primary name column, and what the platform adds by ownership.
func NewCustomTable(schemaName, ownership string, primary *Column) *Table {
	t := NewTable(schemaName, setName(strings.ToLower(schemaName)), 0)
	t.Custom, t.ChangeTracking, t.Optimistic, t.Ownership = true, true, true, ownership
	id := guid(schemaName + "Id")
	id.ForUpdate, id.Required, id.Label, id.Custom = false, SystemRequired, t.Label, true
	t.PrimaryID, t.PrimaryName = id.Name, primary.Name
	t.AddColumn(id)
	t.AddColumn(versionColumn())
	t.AddColumn(primary)
	groups := [][]*Column{standardStates(), priced(), audit()}
	if ownership == "UserOwned" {
		groups = append(groups, owned())
	}
	for _, g := range groups {
		for _, c := range g {
			t.AddColumn(c)
		}
	}
	for _, c := range t.Columns() {
		if c.Type.IsLookup() {
			addShadow(t, c)
		}
	}
	return t
}

// setName makes the plural the service makes.
func setName(name string) string {
	switch {
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "ay") && !strings.HasSuffix(name, "ey") && !strings.HasSuffix(name, "oy"):
		return name[:len(name)-1] + "ies"
	case strings.HasSuffix(name, "s"), strings.HasSuffix(name, "x"), strings.HasSuffix(name, "ch"), strings.HasSuffix(name, "sh"):
		return name + "es"
	}
	return name + "s"
}

// RelateStandard declares the relationships of a new table's platform lookups.
func (d *Draft) RelateStandard(t *Table) {
	b := &builder{d: d}
	for _, c := range t.Columns() {
		switch {
		case c.Type == Owner:
			b.relate(t.Name, c.Name, "owner", "owner_"+t.Name)
		case c.Type.IsLookup():
			for _, target := range c.Targets {
				b.relate(t.Name, c.Name, target, "lk_"+t.Name+"_"+c.Name)
			}
		}
	}
}
