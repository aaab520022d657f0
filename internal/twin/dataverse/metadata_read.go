package dataverse

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// object is a metadata object under construction: properties in order, with
// values that encoding/json can write.
type object []field

type field struct {
	name  string
	value any
}

// MarshalJSON writes the properties in their order.
func (o object) MarshalJSON() ([]byte, error) { return appendJSON(nil, o) }

// appendJSON writes definitions without looking at what is nested in them once a level, as
// a Marshaler would.
func appendJSON(dst []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case object:
		dst = append(dst, '{')
		for i, f := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(value.AppendString(dst, f.name), ':')
			if dst, err = appendJSON(dst, f.value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case []object:
		dst = append(dst, '[')
		for i, o := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendJSON(dst, o); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case string:
		return value.AppendString(dst, v), nil
	}
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (o object) get(name string) (any, bool) {
	for _, f := range o {
		if f.name == name {
			return f.value, true
		}
	}
	return nil, false
}

func id(b [16]byte) string { return schema.FormatID(b) }

func label(text string, managed bool, owner [16]byte) object {
	if text == "" {
		return object{{"LocalizedLabels", []any{}}, {"UserLocalizedLabel", nil}}
	}
	l := object{{"Label", text}, {"LanguageCode", 1033}, {"IsManaged", managed}, {"MetadataId", id(schema.NameID("label", id(owner), text))}, {"HasChanged", nil}}
	return object{{"LocalizedLabels", []any{l}}, {"UserLocalizedLabel", l}}
}

func managed(v any, name string) object {
	return object{{"Value", v}, {"CanBeChanged", true}, {"ManagedPropertyLogicalName", name}}
}

// tableObject is the EntityMetadata of a table without its collections.
func tableObject(t *schema.Table) object {
	var privileges []any
	for _, v := range verbs {
		name := privilegeName(v.name, t)
		privileges = append(privileges, object{
			{"CanBeBasic", true},
			{"CanBeDeep", true},
			{"CanBeGlobal", true},
			{"CanBeLocal", true},
			{"CanBeEntityReference", false},
			{"CanBeParentEntityReference", false},
			{"Name", name},
			{"PrivilegeId", privilegeID(name).String()},
			{"PrivilegeType", v.name},
		})
	}
	name := any(t.PrimaryName)
	if t.PrimaryName == "" {
		name = nil
	}
	return object{
		{"MetadataId", id(t.ID)},
		{"LogicalName", t.Name},
		{"SchemaName", t.SchemaName},
		{"EntitySetName", t.Set},
		{"LogicalCollectionName", t.Set},
		{"CollectionSchemaName", t.SchemaName + "s"},
		{"PrimaryIdAttribute", t.PrimaryID},
		{"PrimaryNameAttribute", name},
		{"PrimaryImageAttribute", nil},
		{"ObjectTypeCode", t.Code},
		{"OwnershipType", t.Ownership},
		{"TableType", "Standard"},
		{"DisplayName", label(t.Label, !t.Custom, t.ID)},
		{"DisplayCollectionName", label(t.Plural, !t.Custom, t.ID)},
		{"Description", label(t.Detail, !t.Custom, t.ID)},
		{"IsCustomEntity", t.Custom},
		{"IsManaged", !t.Custom},
		{"IsIntersect", t.Intersect},
		{"IsActivity", t.Activity},
		{"IsActivityParty", t.Activity},
		{"IsLogicalEntity", false},
		{"IsPrivate", false},
		{"IsCustomizable", managed(!t.ReadOnly, "iscustomizable")},
		{"IsDuplicateDetectionEnabled", managed(false, "canmodifyduplicatedetectionsettings")},
		{"IsAuditEnabled", managed(false, "canmodifyauditsettings")},
		{"CanCreateAttributes", managed(!t.ReadOnly, "cancreateattributes")},
		{"ChangeTrackingEnabled", t.ChangeTracking},
		{"CanChangeTrackingBeEnabled", managed(!t.Intersect, "canchangetrackingbeenabled")},
		{"IsOptimisticConcurrencyEnabled", t.Optimistic},
		{"EnforceStateTransitions", false},
		{"IsStateModelAware", t.Column("statecode") != nil},
		{"HasNotes", false},
		{"HasActivities", false},
		{"DataProviderId", nil},
		{"Privileges", privileges},
		{"CreatedOn", "1900-01-01T00:00:00Z"},
		{"ModifiedOn", "1900-01-01T00:00:00Z"},
	}
}

// columnObject is the AttributeMetadata of a column: its base properties.
func columnObject(t *schema.Table, c *schema.Column) object {
	var of any
	if c.AttributeOf != "" {
		of = c.AttributeOf
	}
	return object{
		{"MetadataId", id(c.ID)},
		{"LogicalName", c.Name},
		{"SchemaName", c.SchemaName},
		{"EntityLogicalName", t.Name},
		{"AttributeType", c.Type.AttributeType()},
		{"AttributeTypeName", object{{"Value", c.Type.TypeName()}}},
		{"AttributeOf", of},
		{"ColumnNumber", int(c.Ord) + 1},
		{"DisplayName", label(c.Label, !c.Custom, c.ID)},
		{"Description", label(c.Detail, !c.Custom, c.ID)},
		{"IsCustomAttribute", c.Custom},
		{"IsManaged", !c.Custom},
		{"IsPrimaryId", c.Name == t.PrimaryID},
		{"IsPrimaryName", c.Name == t.PrimaryName},
		{"IsLogical", c.AttributeOf != ""},
		{"IsSecured", false},
		{"IsFilterable", true},
		{"IsSearchable", c.Type.IsText()},
		{"IsRetrievable", true},
		{"IsValidForCreate", c.ForCreate},
		{"IsValidForRead", c.ForRead},
		{"IsValidForUpdate", c.ForUpdate},
		{"IsValidODataAttribute", c.AttributeOf == ""},
		{"IsRequiredForForm", false},
		{"RequiredLevel", managed(string(c.Required), "canmodifyrequirementlevelsettings")},
		{"SourceType", 0},
		{"AutoNumberFormat", nil},
		{"LinkedAttributeId", nil},
		{"IsCustomizable", managed(true, "iscustomizable")},
	}
}

// typedObject adds what only columns of this type have. Option sets are
// navigation properties and stay out unless expanded.
func typedObject(c *schema.Column) object {
	number := func(f float64) any {
		if f == math.Trunc(f) && math.Abs(f) < 1e15 {
			return int64(f)
		}
		return f
	}
	switch c.Type {
	case schema.String:
		return object{{"MaxLength", c.MaxLength}, {"DatabaseLength", 2 * c.MaxLength}, {"Format", c.Format}, {"FormatName", object{{"Value", c.Format}}}}
	case schema.Memo:
		return object{{"MaxLength", c.MaxLength}, {"Format", c.Format}}
	case schema.Integer:
		return object{{"MinValue", int64(c.Min)}, {"MaxValue", int64(c.Max)}, {"Format", "None"}}
	case schema.Decimal, schema.Double:
		return object{{"MinValue", number(c.Min)}, {"MaxValue", number(c.Max)}, {"Precision", c.Precision}}
	case schema.Money:
		var of any
		if c.BaseOf != "" {
			of = c.BaseOf
		}
		return object{{"MinValue", number(c.Min)}, {"MaxValue", number(c.Max)}, {"Precision", c.Precision}, {"PrecisionSource", c.PrecisionSource}, {"IsBaseCurrency", c.BaseOf != ""}, {"CalculationOf", of}}
	case schema.DateTime:
		return object{{"Format", c.Format}, {"DateTimeBehavior", object{{"Value", c.Behavior}}}}
	case schema.Boolean:
		return object{{"DefaultValue", c.DefaultTrue}}
	case schema.Picklist, schema.MultiSelect:
		return object{{"DefaultFormValue", c.DefaultOption}}
	case schema.State, schema.Status:
		return object{{"DefaultFormValue", nil}}
	case schema.Lookup, schema.Customer, schema.Owner:
		return object{{"Targets", c.Targets}, {"Format", "None"}}
	}
	return nil
}

// optionSet is the option set of a column.
func optionSet(c *schema.Column) object {
	option := func(o schema.Option, extra ...field) object {
		out := object{
			{"Value", o.Value},
			{"Color", nil},
			{"IsManaged", !c.Custom},
			{"ExternalValue", ""},
			{"ParentValues", []any{}},
			{"MetadataId", nil},
			{"HasChanged", nil},
			{"Label", label(o.Label, !c.Custom, c.ID)},
			{"Description", label("", false, c.ID)},
		}
		return append(extra, out...)
	}
	head := object{{"MetadataId", id(schema.NameID("optionset", c.OptionSet))}, {"Name", c.OptionSet}, {"IsGlobal", c.GlobalOptions}, {"IsCustomOptionSet", c.Custom}}
	switch c.Type {
	case schema.Boolean:
		return append(head, field{"OptionSetType", "Boolean"},
			field{"TrueOption", option(schema.Option{Value: 1, Label: c.TrueLabel})}, field{"FalseOption", option(schema.Option{Value: 0, Label: c.FalseLabel})})
	case schema.State:
		var options []any
		for _, o := range c.Options {
			options = append(options, option(o, field{"@odata.type", "#" + crm + "StateOptionMetadata"}, field{"DefaultStatus", o.DefaultStatus}, field{"InvariantName", strings.ReplaceAll(o.Label, " ", "")}))
		}
		return append(head, field{"OptionSetType", "State"}, field{"Options", options})
	case schema.Status:
		var options []any
		for _, o := range c.Options {
			options = append(options, option(o, field{"@odata.type", "#" + crm + "StatusOptionMetadata"}, field{"State", o.State}, field{"TransitionData", nil}))
		}
		return append(head, field{"OptionSetType", "Status"}, field{"Options", options})
	}
	options := []any{}
	for _, o := range c.Options {
		options = append(options, option(o))
	}
	return append(head, field{"OptionSetType", "Picklist"}, field{"Options", options})
}

func keyObject(t *schema.Table, k *schema.Key, status string) object {
	return object{
		{"MetadataId", id(k.ID)},
		{"LogicalName", k.Name},
		{"SchemaName", k.SchemaName},
		{"EntityLogicalName", t.Name},
		{"KeyAttributes", k.Columns},
		{"EntityKeyIndexStatus", status},
		{"IsManaged", false},
		{"IsSynchronous", false},
		{"DisplayName", label(k.Label, false, k.ID)},
	}
}

func relationObject(r *schema.Relation) object {
	referenced := r.Referenced
	return object{
		{"MetadataId", id(r.ID)},
		{"SchemaName", r.SchemaName},
		{"RelationshipType", "OneToManyRelationship"},
		{"IsCustomRelationship", r.Custom},
		{"IsManaged", !r.Custom},
		{"IsValidForAdvancedFind", true},
		{"ReferencedAttribute", r.ReferencedID},
		{"ReferencedEntity", referenced},
		{"ReferencingAttribute", r.Column},
		{"ReferencingEntity", r.Referencing},
		{"ReferencedEntityNavigationPropertyName", r.CollectionNav},
		{"ReferencingEntityNavigationPropertyName", r.Nav},
		{"IsHierarchical", false},
		{"CascadeConfiguration", object{{"Assign", r.Cascade.Assign}, {"Delete", r.Cascade.Delete}, {"Merge", r.Cascade.Merge}, {"Reparent", r.Cascade.Reparent}, {"Share", r.Cascade.Share}, {"Unshare", r.Cascade.Unshare}}},
	}
}

func manyObject(m *schema.ManyToMany) object {
	return object{
		{"MetadataId", id(m.ID)},
		{"SchemaName", m.SchemaName},
		{"RelationshipType", "ManyToManyRelationship"},
		{"IsCustomRelationship", m.Custom},
		{"IsManaged", !m.Custom},
		{"Entity1LogicalName", m.Table1},
		{"Entity2LogicalName", m.Table2},
		{"IntersectEntityName", m.Intersect},
		{"Entity1IntersectAttribute", m.Column1},
		{"Entity2IntersectAttribute", m.Column2},
		{"Entity1NavigationPropertyName", m.Nav1},
		{"Entity2NavigationPropertyName", m.Nav2},
	}
}

// entityDefinitions serves reading and changing of table definitions.
func (c *call) entityDefinitions() (*answer, error) {
	if c.method != http.MethodGet {
		return c.changeDefinitions()
	}
	if err := c.needPrivilege("prvReadEntity", nil); err != nil {
		return nil, err
	}
	opts, err := parseMetadataOptions(c.query)
	if err != nil {
		return nil, err
	}
	if !c.path[0].parens {
		if len(c.path) > 1 {
			return nil, noSegment(c.path[1].name)
		}
		var all []object
		for _, t := range c.sch.Tables() {
			o, keep, err := c.tableWith(t, opts)
			if err != nil {
				return nil, err
			}
			if keep {
				all = append(all, o)
			}
		}
		return c.metadataList("EntityDefinitions", all)
	}
	t, err := c.definedTable(c.path[0].inside)
	if err != nil {
		return nil, err
	}
	if len(c.path) == 1 {
		o, _, err := c.tableWith(t, opts)
		if err != nil {
			return nil, err
		}
		return c.metadataObject("EntityDefinitions/$entity", o)
	}
	return c.definitionPart(t, opts)
}

// definedTable resolves LogicalName='x' or a MetadataId.
func (c *call) definedTable(inside string) (*schema.Table, error) {
	if name, ok := strings.CutPrefix(inside, "LogicalName="); ok {
		name, quoted := unquote(name)
		if t := c.sch.Table(name); t != nil && quoted {
			return t, nil
		}
		return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find an entity with name %.60s.", name)
	}
	for _, t := range c.sch.Tables() {
		if strings.EqualFold(id(t.ID), inside) {
			return t, nil
		}
	}
	return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find an entity with id %.60s.", inside)
}

// tableWith selects and expands one table's definition.
func (c *call) tableWith(t *schema.Table, opts *metadataOptions) (object, bool, error) {
	full := tableObject(t)
	keep, err := opts.matches(full)
	if err != nil || !keep {
		return nil, false, err
	}
	out, err := opts.choose(full)
	if err != nil {
		return nil, false, err
	}
	for _, x := range opts.expand {
		list, err := c.tableCollection(t, x.name, true)
		if err != nil {
			return nil, false, err
		}
		picked, err := x.options.pick(list)
		if err != nil {
			return nil, false, err
		}
		out = append(out, field{x.name, picked})
	}
	return out, true, nil
}

// tableCollection lists a collection of a table definition. Inside of $expand
// columns have their base properties only.
func (c *call) tableCollection(t *schema.Table, name string, base bool) ([]object, error) {
	var out []object
	switch name {
	case "Attributes":
		for _, col := range t.Columns() {
			if base {
				out = append(out, columnObject(t, col))
				continue
			}
			o := object{{"@odata.type", "#" + crm + col.Type.MetadataType()}}
			out = append(out, append(append(o, columnObject(t, col)...), typedObject(col)...))
		}
	case "Keys":
		for _, k := range t.Keys {
			out = append(out, keyObject(t, k, c.s.observeKey(t.Name, k.Name)))
		}
	case "ManyToOneRelationships":
		for _, r := range t.ManyToOne {
			out = append(out, relationObject(r))
		}
	case "OneToManyRelationships":
		for _, r := range t.OneToMany {
			out = append(out, relationObject(r))
		}
	case "ManyToManyRelationships":
		for _, m := range t.NToN {
			out = append(out, manyObject(m))
		}
	default:
		return nil, badRequest("The property '%.60s' cannot be expanded on EntityMetadata.", name)
	}
	return out, nil
}

// definitionPart serves what lies below one table definition.
func (c *call) definitionPart(t *schema.Table, opts *metadataOptions) (*answer, error) {
	seg, rest := c.path[1], c.path[2:]
	if v, ok := tableObject(t).get(seg.name); ok && !seg.parens {
		return c.metadataProperty(t, seg.name, v, rest)
	}
	list, err := c.tableCollection(t, seg.name, false)
	if err != nil {
		return nil, noSegment(seg.name)
	}
	context := "EntityDefinitions('" + t.Name + "')/" + seg.name
	if seg.name == "Attributes" {
		return c.attributes(t, seg, rest, list, opts, context)
	}
	if seg.parens {
		for _, o := range list {
			if c.named(o, seg.inside) && len(rest) == 0 {
				chosen, err := opts.choose(o)
				if err != nil {
					return nil, err
				}
				return c.metadataObject(context+"/$entity", chosen)
			}
		}
		return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find %s(%.80s).", seg.name, seg.inside)
	}
	if len(rest) > 0 {
		return nil, noSegment(rest[0].name)
	}
	picked, err := opts.pick(list)
	if err != nil {
		return nil, err
	}
	return c.metadataList(context, picked)
}

// named reports whether a predicate names an object by id, LogicalName or
// SchemaName.
func (c *call) named(o object, inside string) bool {
	for _, key := range [...]string{"LogicalName", "SchemaName"} {
		if text, ok := strings.CutPrefix(inside, key+"="); ok {
			name, _ := unquote(text)
			v, has := o.get(key)
			return has && v == name
		}
	}
	v, _ := o.get("MetadataId")
	s, _ := v.(string)
	return strings.EqualFold(s, inside)
}

// attributes serves columns: all, one, or those of one type with what that type
// adds.
func (c *call) attributes(t *schema.Table, seg segment, rest []segment, list []object, opts *metadataOptions, context string) (*answer, error) {
	if seg.parens {
		kept := list[:0:0]
		for _, o := range list {
			if c.named(o, seg.inside) {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find an attribute with specified name: %.80s", seg.inside)
		}
		list = kept
	}
	cast := ""
	if len(rest) > 0 {
		cast = rest[0].message()
		if cast == "" || len(rest) > 1 {
			return nil, noSegment(rest[len(rest)-1].name)
		}
		if cast == "EnumAttributeMetadata" {
			return nil, badRequest("The abstract type EnumAttributeMetadata cannot be queried.")
		}
	}
	var out []object
	for _, o := range list {
		name, _ := o.get("LogicalName")
		col := t.Column(name.(string))
		if cast != "" && cast != "AttributeMetadata" && cast != col.Type.MetadataType() {
			continue
		}
		keep, err := opts.matches(o)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		if cast != "" && len(o) > 0 && o[0].name == "@odata.type" {
			o = o[1:]
			if cast == "AttributeMetadata" {
				o = columnObject(t, col)
			}
		}
		chosen, err := opts.choose(o)
		if err != nil {
			return nil, err
		}
		for _, x := range opts.expand {
			if cast == "" || cast == "AttributeMetadata" || !col.Type.IsOption() && col.Type != schema.MultiSelect && col.Type != schema.Boolean || x.name != "OptionSet" && x.name != "GlobalOptionSet" {
				return nil, badRequest("Could not find a property named '%s' on type '%s%s'.", x.name, crm, orElse(cast, "AttributeMetadata"))
			}
			var set any
			if (x.name == "GlobalOptionSet") == col.GlobalOptions || x.name == "OptionSet" {
				picked, err := x.options.choose(optionSet(col))
				if err != nil {
					return nil, err
				}
				set = picked
			}
			chosen = append(chosen, field{x.name, set})
		}
		out = append(out, chosen)
	}
	if cast != "" {
		context += "/" + crm + cast
	}
	if seg.parens {
		if len(out) == 0 {
			return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "The attribute %.80s is not of the type %s.", seg.inside, cast)
		}
		return c.metadataObject(context+"/$entity", out[0])
	}
	return c.metadataList(context, out)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// metadataProperty serves one property of a table definition.
func (c *call) metadataProperty(t *schema.Table, name string, v any, rest []segment) (*answer, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(rest) == 1 && rest[0].name == "$value" {
		if s, ok := v.(string); ok {
			b = []byte(s)
		}
		return (&answer{status: http.StatusOK, body: b}).set("Content-Type", "text/plain"), nil
	}
	if len(rest) > 0 {
		return nil, noSegment(rest[0].name)
	}
	return c.metadataObject("EntityDefinitions("+id(t.ID)+")/"+name, object{{"value", json.RawMessage(b)}})
}

// relationshipDefinitions serves relationships across tables.
func (c *call) relationshipDefinitions() (*answer, error) {
	if c.method != http.MethodGet {
		return c.changeRelationships()
	}
	if err := c.needPrivilege("prvReadRelationship", nil); err != nil {
		return nil, err
	}
	opts, err := parseMetadataOptions(c.query)
	if err != nil {
		return nil, err
	}
	cast := ""
	if len(c.path) > 1 {
		if cast = c.path[1].message(); cast == "" || len(c.path) > 2 {
			return nil, noSegment(c.path[1].name)
		}
	}
	var list []object
	if cast != "ManyToManyRelationshipMetadata" {
		for _, r := range c.sch.Relations() {
			o := relationObject(r)
			if cast == "" {
				o = append(object{{"@odata.type", "#" + crm + "OneToManyRelationshipMetadata"}}, o...)
			}
			list = append(list, o)
		}
	}
	if cast != "OneToManyRelationshipMetadata" {
		for _, m := range c.sch.ManyToMany() {
			o := manyObject(m)
			if cast == "" {
				o = append(object{{"@odata.type", "#" + crm + "ManyToManyRelationshipMetadata"}}, o...)
			}
			list = append(list, o)
		}
	}
	if !c.path[0].parens {
		picked, err := opts.pick(list)
		if err != nil {
			return nil, err
		}
		return c.metadataList("RelationshipDefinitions", picked)
	}
	for _, o := range list {
		if c.named(o, c.path[0].inside) {
			chosen, err := opts.choose(o)
			if err != nil {
				return nil, err
			}
			return c.metadataObject("RelationshipDefinitions/$entity", chosen)
		}
	}
	return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find a relationship %.80s.", c.path[0].inside)
}

func (c *call) metadataList(context string, list []object) (*answer, error) {
	if list == nil {
		list = []object{}
	}
	return c.metadataObject(context, object{{"value", list}})
}

func (c *call) metadataObject(context string, o object) (*answer, error) {
	body, err := appendJSON(nil, append(object{{"@odata.context", c.context() + context}}, o...))
	if err != nil {
		return nil, err
	}
	return jsonAnswer(http.StatusOK, body), nil
}
