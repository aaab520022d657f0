package dataverse

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// alter publishes a changed schema. Storage for new tables and columns is made
// before anyone can address them.
func (s *Server) alter(f func(*schema.Draft) error) error {
	s.schemaMu.Lock()
	defer s.schemaMu.Unlock()
	old := s.sch.Load()
	next, err := old.Change(f)
	if err != nil {
		return err
	}
	for _, t := range next.Tables() {
		before := old.Table(t.Name)
		if before == nil {
			s.addStorage(t)
			continue
		}
		for _, c := range t.Columns() {
			if before.Column(c.Name) == nil && indexed(t, c) {
				s.store.AddIndex(t.Name, columnIndex(c.Name), int(c.Ord))
			}
		}
	}
	s.sch.Store(publish(next))
	return nil
}

// changeDefinitions serves POST, PUT and DELETE below EntityDefinitions.
func (c *call) changeDefinitions() (*answer, error) {
	if c.tx != nil {
		return nil, badRequest("Definitions cannot be changed in a change set.")
	}
	if c.method == http.MethodPatch {
		return nil, fail(http.StatusMethodNotAllowed, codeInvalidOperation, "PATCH is not supported for definitions; send the whole definition with PUT.")
	}
	if !c.path[0].parens {
		if c.method != http.MethodPost || len(c.path) > 1 {
			return nil, wrongMethod(c.method)
		}
		return c.createTable()
	}
	t, err := c.definedTable(c.path[0].inside)
	if err != nil {
		return nil, err
	}
	if len(c.path) == 1 {
		switch c.method {
		case http.MethodPut:
			return c.putTable(t)
		case http.MethodDelete:
			return c.deleteTable(t)
		}
		return nil, wrongMethod(c.method)
	}
	seg := c.path[1]
	switch {
	case seg.name == "Attributes" && c.method == http.MethodPost && !seg.parens:
		return c.createColumn(t)
	case seg.name == "Attributes" && c.method == http.MethodPut && seg.parens:
		return c.putColumn(t, seg.inside)
	case seg.name == "Attributes" && c.method == http.MethodDelete && seg.parens:
		return c.deleteColumn(t, seg.inside)
	case seg.name == "Keys" && c.method == http.MethodPost && !seg.parens:
		return c.createKey(t)
	case seg.name == "Keys" && c.method == http.MethodDelete && seg.parens:
		return c.deleteKey(t, seg.inside)
	}
	return nil, wrongMethod(c.method)
}

// jsonLabel reads the text of a Label object. The organization has one language, and
// a label that is not in it is refused.
type jsonLabel struct {
	LocalizedLabels []struct {
		Label        string
		LanguageCode int
	}
}

// UnmarshalJSON refuses labels of a language that the organization does not have.
func (l *jsonLabel) UnmarshalJSON(b []byte) error {
	type plain jsonLabel
	if err := json.Unmarshal(b, (*plain)(l)); err != nil {
		return err
	}
	for _, one := range l.LocalizedLabels {
		if one.LanguageCode != 1033 {
			return fmt.Errorf("the language %d of the label is not one of the organization's (1033)", one.LanguageCode)
		}
	}
	return nil
}

func (l *jsonLabel) text() string {
	if l == nil || len(l.LocalizedLabels) == 0 {
		return ""
	}
	return l.LocalizedLabels[0].Label
}

type jsonValue struct{ Value string }

type jsonOption struct {
	Value *int32
	Label *jsonLabel
}

// jsonColumn is a column definition as clients send it.
type jsonColumn struct {
	Type             string `json:"@odata.type"`
	SchemaName       string
	LogicalName      string
	DisplayName      *jsonLabel
	Description      *jsonLabel
	RequiredLevel    *jsonValue
	IsPrimaryName    bool
	MaxLength        *int
	FormatName       *jsonValue
	Format           string
	MinValue         *float64
	MaxValue         *float64
	Precision        *int
	PrecisionSource  *int
	DateTimeBehavior *jsonValue
	DefaultValue     *bool
	DefaultFormValue *int32
	OptionSet        *struct {
		Options     []jsonOption
		TrueOption  *jsonOption
		FalseOption *jsonOption
	}
	GlobalOptionSet string `json:"GlobalOptionSet@odata.bind"`
}

func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fail(http.StatusBadRequest, codePayload, "The definition is not valid: %v", err)
	}
	return nil
}

func schemaName(name string) error {
	prefix, rest, ok := strings.Cut(name, "_")
	valid := ok && len(prefix) >= 2 && len(prefix) <= 8 && rest != "" && !strings.EqualFold(prefix, "mscrm") && len(name) <= 100
	for _, r := range name {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	}
	if !valid {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The schema name '%.80s' needs a publisher prefix of 2 to 8 characters, an underscore and letters, digits or underscores.", name)
	}
	return nil
}

// column makes a column of its definition.
func (d *jsonColumn) column() (*schema.Column, error) {
	kind := strings.TrimPrefix(strings.TrimPrefix(d.Type, "#"), crm)
	typ, ok := schema.TypeOfMetadata(kind)
	if !ok || typ == schema.State || typ == schema.Status || typ == schema.UniqueID || typ == schema.EntityName || typ.IsLookup() {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A column of the type '%.80s' cannot be created this way.", d.Type)
	}
	if err := schemaName(d.SchemaName); err != nil {
		return nil, err
	}
	col := &schema.Column{
		SchemaName: d.SchemaName, Name: strings.ToLower(d.SchemaName), Type: typ, Label: orElse(d.DisplayName.text(), schema.Words(d.SchemaName)), Detail: d.Description.text(),
		Required: schema.None, ForCreate: true, ForUpdate: true, ForRead: true, Custom: true, DefaultOption: -1, Format: d.Format,
	}
	if d.RequiredLevel != nil {
		switch l := schema.Level(d.RequiredLevel.Value); l {
		case schema.None, schema.Recommended, schema.ApplicationRequired:
			col.Required = l
		default:
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The requirement level '%.40s' cannot be set.", d.RequiredLevel.Value)
		}
	}
	if d.GlobalOptionSet != "" {
		return nil, notEmulated("A column on a global option set")
	}
	return col, d.details(col)
}

func orDefault[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// details reads what depends on the type.
func (d *jsonColumn) details(col *schema.Column) error {
	bad := func(what string) error {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The definition of the column %s is not valid: %s.", col.Name, what)
	}
	limit := func(least, most float64) error {
		col.Min, col.Max = orDefault(d.MinValue, least), orDefault(d.MaxValue, most)
		if col.Min < least || col.Max > most || col.Min > col.Max {
			return bad("MinValue and MaxValue")
		}
		return nil
	}
	switch col.Type {
	case schema.String, schema.Memo:
		most := 4000
		col.Format = orElse(col.Format, "Text")
		if d.FormatName != nil {
			col.Format = d.FormatName.Value
		}
		if col.Type == schema.Memo {
			most, col.Format = 1_048_576, "TextArea"
		}
		col.MaxLength = orDefault(d.MaxLength, 0)
		if col.MaxLength < 1 || col.MaxLength > most {
			return bad(fmt.Sprintf("MaxLength must lie between 1 and %d", most))
		}
	case schema.Integer:
		return limit(-2147483648, 2147483647)
	case schema.Decimal, schema.Double, schema.Money:
		col.Precision, col.PrecisionSource = orDefault(d.Precision, 2), orDefault(d.PrecisionSource, 0)
		if most := map[schema.Type]int{schema.Decimal: 10, schema.Double: 5, schema.Money: 4}[col.Type]; col.Precision < 0 || col.Precision > most {
			return bad(fmt.Sprintf("Precision must lie between 0 and %d", most))
		}
		most := map[schema.Type]float64{schema.Decimal: 1e11, schema.Double: 1e11, schema.Money: 922337203685477}[col.Type]
		return limit(-most, most)
	case schema.DateTime:
		col.Format, col.Behavior = orElse(col.Format, "DateAndTime"), schema.UserLocal
		if d.DateTimeBehavior != nil {
			col.Behavior = d.DateTimeBehavior.Value
		}
		if col.Behavior != schema.UserLocal && col.Behavior != schema.DateOnly && col.Behavior != schema.TimeZoneIndependent {
			return bad("DateTimeBehavior")
		}
	case schema.Boolean:
		col.DefaultTrue, col.FalseLabel, col.TrueLabel = orDefault(d.DefaultValue, false), "No", "Yes"
		if d.OptionSet == nil || d.OptionSet.TrueOption == nil || d.OptionSet.FalseOption == nil {
			return bad("OptionSet with TrueOption and FalseOption is missing")
		}
		col.TrueLabel, col.FalseLabel = orElse(d.OptionSet.TrueOption.Label.text(), "Yes"), orElse(d.OptionSet.FalseOption.Label.text(), "No")
	case schema.Picklist, schema.MultiSelect:
		if d.OptionSet == nil {
			return bad("OptionSet is missing")
		}
		for _, o := range d.OptionSet.Options {
			if o.Value == nil {
				return bad("an option has no Value")
			}
			if _, twice := col.Option(*o.Value); twice {
				return bad("an option value appears twice")
			}
			col.Options = append(col.Options, schema.Option{Value: *o.Value, Label: o.Label.text()})
		}
		col.DefaultOption = orDefault(d.DefaultFormValue, -1)
	}
	return nil
}

// addColumn adds a column and what accompanies it.
func addColumn(t *schema.Table, col *schema.Column) error {
	if t.Column(col.Name) != nil {
		return fail(http.StatusBadRequest, codeDuplicateSchemaName, "An attribute with the name '%s' already exists on the entity '%s'.", col.Name, t.Name)
	}
	t.AddColumn(col)
	if col.Type == schema.Money {
		t.AddColumn(&schema.Column{
			SchemaName: col.SchemaName + "_Base", Type: schema.Money, Label: col.Label + " (Base)", Required: schema.None, ForRead: true, Custom: true,
			DefaultOption: -1, Min: -922337203685477, Max: 922337203685477, Precision: 4, BaseOf: col.Name,
		})
	}
	if col.Type.IsLookup() {
		t.AddColumn(&schema.Column{
			SchemaName: col.SchemaName + "Name", Type: schema.String, MaxLength: 100, Format: "Text", Label: col.Label, Required: schema.None, ForRead: true, Custom: true,
			DefaultOption: -1, AttributeOf: col.Name,
		})
	}
	return nil
}

func (c *call) definitionAnswer(path string, ids ...[16]byte) *answer {
	for _, b := range ids {
		path = strings.Replace(path, "?", id(b), 1)
	}
	return noContent().set("Odata-Entityid", c.root()+path).set("Location", c.root()+path)
}

func (c *call) createTable() (*answer, error) {
	if err := c.needPrivilege("prvCreateEntity", nil); err != nil {
		return nil, err
	}
	var d struct {
		Type                  string `json:"@odata.type"`
		SchemaName            string
		DisplayName           *jsonLabel
		DisplayCollectionName *jsonLabel
		Description           *jsonLabel
		OwnershipType         string
		HasActivities         bool
		IsActivity            bool
		ChangeTrackingEnabled *bool
		Attributes            []jsonColumn
	}
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	if strings.TrimPrefix(d.Type, "#") != crm+"EntityMetadata" {
		return nil, payload("'EntityDefinitions': @odata.type must be %sEntityMetadata.", crm)
	}
	if err := schemaName(d.SchemaName); err != nil {
		return nil, err
	}
	if d.IsActivity {
		return nil, notEmulated("Creating an activity table")
	}
	if d.OwnershipType != "UserOwned" && d.OwnershipType != "OrganizationOwned" {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "OwnershipType must be UserOwned or OrganizationOwned.")
	}
	if d.DisplayName.text() == "" || d.DisplayCollectionName.text() == "" {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "DisplayName and DisplayCollectionName are required.")
	}
	var primary *schema.Column
	var others []*schema.Column
	for i := range d.Attributes {
		col, err := d.Attributes[i].column()
		if err != nil {
			return nil, err
		}
		if !d.Attributes[i].IsPrimaryName {
			others = append(others, col)
			continue
		}
		if primary != nil || col.Type != schema.String {
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A table needs exactly one primary name column, of the type String.")
		}
		primary = col
	}
	if primary == nil {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A table needs exactly one primary name column, of the type String.")
	}
	in, err := c.solution(d.SchemaName)
	if err != nil {
		return nil, err
	}
	t := schema.NewCustomTable(d.SchemaName, d.OwnershipType, primary)
	t.Label, t.Plural, t.Detail = d.DisplayName.text(), d.DisplayCollectionName.text(), d.Description.text()
	t.ChangeTracking = orDefault(d.ChangeTrackingEnabled, true)
	for _, col := range others {
		if err := addColumn(t, col); err != nil {
			return nil, err
		}
	}
	err = c.alter(func(draft *schema.Draft) error {
		if draft.Table(t.Name) != nil {
			return fail(http.StatusBadRequest, codeNameTaken, "An entity with the name %s already exists.", t.Name)
		}
		draft.Add(t)
		draft.RelateStandard(t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.s.platform(func(p *call) error { p.seedTable(p.sch.Table(t.Name)); p.grantNew(c, t); return nil })
	if err == nil {
		err = c.s.belong(in, t.ID, entityComponent)
	}
	return c.definitionAnswer("EntityDefinitions(?)", t.ID), err
}

// grantNew gives the roles of the creating user the privileges of a new table,
// as the service does for system administrators and customizers.
func (c *call) grantNew(creator *call, t *schema.Table) {
	assigned := c.sch.Table("systemuserroles")
	for _, a := range c.view.Find(nil, assigned.Name, columnIndex("systemuserid"), store.Hash(value.GUID(creator.user.id)), value.ID{}, 100) {
		role := a.Value(int(assigned.Column("roleid").Ord)).GUID()
		for _, v := range verbs {
			c.grantOne(role, privilegeID(privilegeName(v.name, t)), globalDepth)
		}
	}
}

func (c *call) createColumn(t *schema.Table) (*answer, error) {
	if err := c.needPrivilege("prvCreateAttribute", nil); err != nil {
		return nil, err
	}
	var d jsonColumn
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	col, err := d.column()
	if err != nil {
		return nil, err
	}
	in, err := c.solution(d.SchemaName)
	if err != nil {
		return nil, err
	}
	err = c.alter(func(draft *schema.Draft) error { return addColumn(draft.Table(t.Name), col) })
	if err == nil {
		err = c.s.belong(in, col.ID, attributeComponent)
	}
	if err != nil {
		return nil, err
	}
	return c.definitionAnswer("EntityDefinitions(?)/Attributes(?)", t.ID, col.ID), nil
}

// putTable updates a definition: labels and change tracking, which cannot be
// switched off again.
func (c *call) putTable(t *schema.Table) (*answer, error) {
	if err := c.needPrivilege("prvWriteEntity", nil); err != nil {
		return nil, err
	}
	var d struct {
		SchemaName            string
		DisplayName           *jsonLabel
		DisplayCollectionName *jsonLabel
		Description           *jsonLabel
		ChangeTrackingEnabled *bool
	}
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	if d.SchemaName != t.SchemaName {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The whole definition must be sent, with the unchanged SchemaName.")
	}
	err := c.alter(func(draft *schema.Draft) error {
		n := draft.Table(t.Name)
		n.Label, n.Plural, n.Detail = orElse(d.DisplayName.text(), n.Label), orElse(d.DisplayCollectionName.text(), n.Plural), orElse(d.Description.text(), n.Detail)
		if d.ChangeTrackingEnabled != nil && *d.ChangeTrackingEnabled != n.ChangeTracking {
			if n.ChangeTracking {
				return fail(http.StatusBadRequest, codeInvalidArgument, "Change tracking of %s cannot be switched off.", t.Name)
			}
			if n.Intersect {
				return fail(http.StatusBadRequest, codeTrackingIntersect, "Change tracking is not possible for the intersect entity %s.", t.Name)
			}
			n.ChangeTracking = true
		}
		return nil
	})
	return noContent(), err
}

func (c *call) deleteTable(t *schema.Table) (*answer, error) {
	if err := c.needPrivilege("prvDeleteEntity", nil); err != nil {
		return nil, err
	}
	if !t.Custom {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The table %s belongs to a managed solution and cannot be deleted.", t.Name)
	}
	err := c.alter(func(draft *schema.Draft) error { draft.Remove(t.Name); return nil })
	if err == nil {
		c.s.store.DropTable(t.Name)
		err = c.s.leaveSolutions(t.ID)
	}
	return noContent(), err
}

func (c *call) findColumn(t *schema.Table, inside string) (*schema.Column, error) {
	for _, col := range t.Columns() {
		if c.named(columnObject(t, col), inside) {
			return col, nil
		}
	}
	return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find an attribute with specified name: %.80s", inside)
}

// putColumn updates a column: label, requirement level and maximum length.
func (c *call) putColumn(t *schema.Table, inside string) (*answer, error) {
	if err := c.needPrivilege("prvWriteAttribute", nil); err != nil {
		return nil, err
	}
	col, err := c.findColumn(t, inside)
	if err != nil {
		return nil, err
	}
	var d jsonColumn
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	if d.SchemaName != col.SchemaName {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The whole definition must be sent, with the unchanged SchemaName.")
	}
	next := *col
	next.Label, next.Detail = orElse(d.DisplayName.text(), col.Label), orElse(d.Description.text(), col.Detail)
	if d.RequiredLevel != nil && col.Required != schema.SystemRequired {
		next.Required = schema.Level(d.RequiredLevel.Value)
	}
	if d.MaxLength != nil {
		if *d.MaxLength < col.MaxLength && !col.Custom {
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "MaxLength of %s cannot be reduced.", col.Name)
		}
		next.MaxLength = *d.MaxLength
	}
	err = c.alter(func(draft *schema.Draft) error { draft.Table(t.Name).ReplaceColumn(col.Name, &next); return nil })
	return noContent(), err
}

func (c *call) deleteColumn(t *schema.Table, inside string) (*answer, error) {
	if err := c.needPrivilege("prvDeleteAttribute", nil); err != nil {
		return nil, err
	}
	col, err := c.findColumn(t, inside)
	if err != nil {
		return nil, err
	}
	if !col.Custom || col.Name == t.PrimaryID || col.Name == t.PrimaryName || col.BaseOf != "" || col.AttributeOf != "" {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The column %s cannot be deleted.", col.Name)
	}
	err = c.alter(func(draft *schema.Draft) error {
		n := draft.Table(t.Name)
		n.Keys = slices.DeleteFunc(n.Keys, func(k *schema.Key) bool { return slices.Contains(k.Columns, col.Name) })
		for _, other := range n.Columns() {
			if other.BaseOf == col.Name || other.AttributeOf == col.Name {
				n.RemoveColumn(other.Name)
			}
		}
		n.RemoveColumn(col.Name)
		draft.Unrelate(t.Name, col.Name)
		return nil
	})
	if err == nil {
		err = c.s.leaveSolutions(col.ID)
	}
	return noContent(), err
}

// changeRelationships creates and deletes relationships.
func (c *call) changeRelationships() (*answer, error) {
	if c.tx != nil {
		return nil, badRequest("Definitions cannot be changed in a change set.")
	}
	if c.path[0].parens && c.method == http.MethodDelete && len(c.path) == 1 {
		for _, r := range c.sch.Relations() {
			if r.Custom && c.named(relationObject(r), c.path[0].inside) {
				t := c.sch.Table(r.Referencing)
				return c.deleteColumn(t, "LogicalName='"+r.Column+"'")
			}
		}
		return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find a relationship %.80s that can be deleted.", c.path[0].inside)
	}
	if c.method != http.MethodPost || len(c.path) > 1 || c.path[0].parens {
		return nil, wrongMethod(c.method)
	}
	if err := c.needPrivilege("prvCreateRelationship", nil); err != nil {
		return nil, err
	}
	var d struct {
		Type                 string `json:"@odata.type"`
		SchemaName           string
		ReferencedEntity     string
		ReferencedAttribute  string
		ReferencingEntity    string
		CascadeConfiguration *schema.Cascade
		Lookup               *jsonColumn
	}
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	if strings.TrimPrefix(d.Type, "#") != crm+"OneToManyRelationshipMetadata" {
		return nil, notEmulated("Creating a relationship of the type " + d.Type)
	}
	if err := schemaName(d.SchemaName); err != nil {
		return nil, err
	}
	if d.Lookup == nil {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The relationship has no Lookup.")
	}
	if err := schemaName(d.Lookup.SchemaName); err != nil {
		return nil, err
	}
	referenced, referencing := c.sch.Table(d.ReferencedEntity), c.sch.Table(d.ReferencingEntity)
	if referenced == nil || referencing == nil || d.ReferencedAttribute != "" && d.ReferencedAttribute != referenced.PrimaryID {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "ReferencedEntity, ReferencedAttribute or ReferencingEntity is not valid.")
	}
	col := &schema.Column{
		SchemaName: d.Lookup.SchemaName, Name: strings.ToLower(d.Lookup.SchemaName), Type: schema.Lookup, Targets: []string{referenced.Name},
		Label: orElse(d.Lookup.DisplayName.text(), schema.Words(d.Lookup.SchemaName)), Required: schema.None, ForCreate: true, ForUpdate: true, ForRead: true, Custom: true, DefaultOption: -1,
	}
	in, err := c.solution(d.SchemaName)
	if err != nil {
		return nil, err
	}
	cascade := schema.Cascade{Assign: "NoCascade", Delete: "RemoveLink", Merge: "NoCascade", Reparent: "NoCascade", Share: "NoCascade", Unshare: "NoCascade"}
	if d.CascadeConfiguration != nil {
		cascade = *d.CascadeConfiguration
	}
	switch cascade.Delete {
	case "Cascade", "RemoveLink", "Restrict":
	default:
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The delete behaviour '%.40s' is not valid.", cascade.Delete)
	}
	rel := &schema.Relation{
		SchemaName: d.SchemaName, ID: schema.NameID("relation", d.SchemaName), Referenced: referenced.Name, ReferencedID: referenced.PrimaryID, Referencing: referencing.Name,
		Column: col.Name, Nav: col.SchemaName, CollectionNav: d.SchemaName, Cascade: cascade, Custom: true,
	}
	err = c.alter(func(draft *schema.Draft) error {
		for _, r := range c.sch.Relations() {
			if strings.EqualFold(r.SchemaName, d.SchemaName) {
				return fail(http.StatusBadRequest, codeNameTaken, "A relationship with the name %s already exists.", d.SchemaName)
			}
		}
		if err := addColumn(draft.Table(referencing.Name), col); err != nil {
			return err
		}
		draft.Relate(rel)
		return nil
	})
	if err == nil {
		err = c.s.belong(in, rel.ID, relationComponent)
	}
	if err != nil {
		return nil, err
	}
	return c.definitionAnswer("RelationshipDefinitions(?)", rel.ID), nil
}

// publishXML and publishAll have nothing to do: changes are in force at once.
func (c *call) publishXML(props []prop) (*answer, error) {
	if err := c.needPrivilege("prvPublishCustomization", nil); err != nil {
		return nil, err
	}
	if raw, ok := find(props, "ParameterXml"); !ok || firstText(raw) == "" {
		return nil, payload("the parameter 'ParameterXml' is missing.")
	}
	return noContent(), nil
}

func (c *call) publishAll([]prop) (*answer, error) {
	if err := c.needPrivilege("prvPublishCustomization", nil); err != nil {
		return nil, err
	}
	return noContent(), nil
}

// optionTarget reads the column that an option message is about.
func (c *call) optionTarget(props []prop) (*schema.Table, *schema.Column, error) {
	if err := c.needPrivilege("prvWriteAttribute", nil); err != nil {
		return nil, nil, err
	}
	if _, ok := find(props, "OptionSetName"); ok {
		return nil, nil, notEmulated("Changing a global option set")
	}
	table, _ := find(props, "EntityLogicalName")
	column, _ := find(props, "AttributeLogicalName")
	t := c.sch.Table(firstText(table))
	if t == nil || t.Column(firstText(column)) == nil {
		return nil, nil, fail(http.StatusBadRequest, codeInvalidArgument, "EntityLogicalName or AttributeLogicalName is not valid.")
	}
	col := t.Column(firstText(column))
	if col.Type != schema.Picklist && col.Type != schema.MultiSelect {
		return nil, nil, fail(http.StatusBadRequest, codeInvalidArgument, "%s is not a choice column.", col.Name)
	}
	return t, col, nil
}

func (c *call) changeOptions(t *schema.Table, col *schema.Column, f func([]schema.Option) ([]schema.Option, error)) error {
	next := *col
	var err error
	if next.Options, err = f(slices.Clone(col.Options)); err != nil {
		return err
	}
	return c.alter(func(d *schema.Draft) error { d.Table(t.Name).ReplaceColumn(col.Name, &next); return nil })
}

func optionLabel(props []prop) string {
	raw, _ := find(props, "Label")
	var l jsonLabel
	if json.Unmarshal(raw, &l) != nil {
		return ""
	}
	return l.text()
}

func (c *call) insertOption(props []prop) (*answer, error) {
	t, col, err := c.optionTarget(props)
	if err != nil {
		return nil, err
	}
	if raw, ok := find(props, "SolutionUniqueName"); ok && c.byUniqueName(c.sch.Table("solution"), firstText(raw)) == nil {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The solution '%.80s' does not exist.", firstText(raw))
	}
	var n int32 = 100_000_000
	for _, o := range col.Options {
		n = max(n, o.Value+1)
	}
	if raw, ok := find(props, "Value"); ok && json.Unmarshal(raw, &n) != nil {
		return nil, payload("the parameter 'Value' must be a whole number.")
	}
	err = c.changeOptions(t, col, func(options []schema.Option) ([]schema.Option, error) {
		if _, twice := col.Option(n); twice {
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The option value %d exists already.", n)
		}
		return append(options, schema.Option{Value: n, Label: optionLabel(props)}), nil
	})
	if err != nil {
		return nil, err
	}
	return c.response("InsertOptionValue", fmt.Sprintf(`"NewOptionValue":%d`, n)), nil
}

// editOption changes or removes one existing option.
func (c *call) editOption(props []prop, f func([]schema.Option, int) []schema.Option) (*answer, error) {
	t, col, err := c.optionTarget(props)
	if err != nil {
		return nil, err
	}
	raw, _ := find(props, "Value")
	var n int32
	if json.Unmarshal(raw, &n) != nil {
		return nil, payload("the parameter 'Value' must be a whole number.")
	}
	return noContent(), c.changeOptions(t, col, func(options []schema.Option) ([]schema.Option, error) {
		i := slices.IndexFunc(options, func(o schema.Option) bool { return o.Value == n })
		if i < 0 {
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "There is no option value %d.", n)
		}
		return f(options, i), nil
	})
}

func (c *call) updateOption(props []prop) (*answer, error) {
	return c.editOption(props, func(options []schema.Option, i int) []schema.Option {
		options[i].Label = optionLabel(props)
		return options
	})
}

func (c *call) deleteOption(props []prop) (*answer, error) {
	return c.editOption(props, func(options []schema.Option, i int) []schema.Option { return slices.Delete(options, i, i+1) })
}
