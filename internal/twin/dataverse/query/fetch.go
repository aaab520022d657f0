package query

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// FetchEntity returns the logical name of a FetchXML's root entity, for callers
// that do not know the table beforehand (the query of a dynamic list).
func FetchEntity(text string) (string, error) {
	root, err := parseXML(text)
	if err != nil {
		return "", err
	}
	entity, err := rootEntity(root)
	if err != nil {
		return "", err
	}
	return entity.get("name"), nil
}

func rootEntity(root *element) (*element, error) {
	if root.name != "fetch" || len(root.kids) != 1 || root.kids[0].name != "entity" {
		return nil, refuse(CodeInvalidQuery, "Invalid XML: FetchXML is one 'fetch' element with one 'entity' element.")
	}
	return root.kids[0], nil
}

// ParseFetch reads FetchXML whose root entity must be t.
func ParseFetch(s Schema, t Table, text string) (*Query, error) {
	root, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	entity, err := rootEntity(root)
	if err != nil {
		return nil, err
	}
	name := entity.get("name")
	if _, ok := s.TableByName(name); !ok {
		return nil, noEntity(name)
	}
	if name != t.LogicalName() {
		return nil, refuse(CodeEntitiesDontMatch, "The entity '%s' of the FetchXML does not match the entity '%s' of the request.", name, t.LogicalName())
	}
	p := &fetch{schema: s, q: &Query{Table: t, Fetch: true, plan: plan{filter: always(true)}}}
	if err := p.root(root); err != nil {
		return nil, err
	}
	scope := &fetchScope{fetch: p, sources: []Table{t}, names: map[string]int{name: 0}, main: true}
	filter, err := scope.build(entity)
	if err != nil {
		return nil, err
	}
	return p.q, p.finish(scope, filter)
}

func noEntity(name string) error {
	return refuse(CodeNoEntity, "The entity with a name = '%.80s' was not found in the MetadataCache.", name)
}

func noAttribute(t Table, name string) error {
	return refuse(CodeNoAttribute, "'%s' entity doesn't contain attribute with Name = '%.80s'.", t.LogicalName(), name)
}

// fetch holds what is common to one FetchXML text.
type fetch struct {
	schema     Schema
	q          *Query
	conditions int
	links      int
	orders     []fetchOrder
	// noAttributes is true after a no-attrs element: the key alone is wanted.
	noAttributes bool
}

// fetchOrder is an order element; those of the root go before those of links.
type fetchOrder struct {
	source int
	e      *element
}

func (p *fetch) root(root *element) error {
	q := p.q
	var err error
	for _, f := range []struct {
		name string
		to   *bool
	}{{"aggregate", &q.Aggregate}, {"distinct", &q.Distinct}, {"returntotalrecordcount", &q.Count}} {
		if *f.to, err = root.flag(f.name); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		to   *int
		most int
	}{{"top", &q.Top, MaxPage}, {"page", &q.Page, 1 << 30}, {"count", &q.PageSize, MaxPage}, {"aggregatelimit", &q.plan.aggregateLimit, MaxAggregateRows}} {
		s, ok := root.attr(f.name)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > f.most {
			return refuse(CodeInvalidQuery, "Invalid XML: the attribute '%s' of 'fetch' must be a whole number from 1 to %d.", f.name, f.most)
		}
		*f.to = n
	}
	if q.Top > 0 && (q.Page > 0 || q.PageSize > 0) {
		return refuse(CodeInvalidQuery, "The attribute 'top' cannot be combined with the paging attributes 'page' and 'count'.")
	}
	q.PagingCookie = root.get("paging-cookie")
	if s := root.get("datasource"); s != "" {
		return notEmulated("The data source '%.40s'", s)
	}
	return nil
}

// fetchScope is one set of joined rows: that of the query, or that of a link
// that only tests for existence.
type fetchScope struct {
	*fetch
	sources []Table
	names   map[string]int // link aliases and the root's name
	joins   []join
	main    bool
	late    and // conditions that refer to rows joined further on
}

// build reads the entity element and returns its filter.
func (s *fetchScope) build(entity *element) (node, error) {
	filters, err := s.level(entity, 0)
	if err != nil {
		return nil, err
	}
	for i := range filters {
		n, err := s.conditions(filters[i].elements, filters[i].source)
		if err != nil {
			return nil, err
		}
		n = append(n, filters[i].tests...)
		if filters[i].source == 0 {
			s.late = append(n, s.late...)
			continue
		}
		s.joins[filters[i].source-1].filter = n
	}
	return s.late, nil
}

// levelFilter is what an entity or link-entity filters by.
type levelFilter struct {
	source   int
	elements []*element
	tests    and // links that only test
}

// level reads the children of an entity or link-entity. Filters are returned
// unread, because they may name links that come later.
func (s *fetchScope) level(e *element, source int) ([]levelFilter, error) {
	own := levelFilter{source: source}
	var inner []levelFilter
	for _, kid := range e.kids {
		switch kid.name {
		case "attribute", "all-attributes", "no-attrs":
			if !s.main {
				return nil, refuse(CodeInvalidQuery, "Columns cannot be selected from the link-entity '%.80s', which only tests for existence.", e.get("name"))
			}
			if err := s.attribute(kid, source); err != nil {
				return nil, err
			}
		case "order":
			if !s.main {
				return nil, refuse(CodeInvalidQuery, "The link-entity '%.80s' only tests for existence and cannot be ordered.", e.get("name"))
			}
			s.orders = append(s.orders, fetchOrder{source, kid})
		case "filter":
			own.elements = append(own.elements, kid)
		case "link-entity":
			switch kind := kid.get("link-type"); kind {
			case "exists", "in":
				n, err := s.test(kid, source, anyMatches)
				if err != nil {
					return nil, err
				}
				own.tests = append(own.tests, n)
			case "", "inner", "natural", "outer", "matchfirstrowusingcrossapply":
				more, err := s.link(kid, source)
				if err != nil {
					return nil, err
				}
				inner = append(inner, more...)
			case "any", "not any", "all", "not all":
				return nil, refuse(CodeInvalidQuery, "The link-type '%s' is only valid for a link-entity inside a filter.", kind)
			default:
				return nil, refuse(CodeInvalidQuery, "Invalid XML: the link-type '%.40s' is not known.", kind)
			}
		default:
			return nil, refuse(CodeInvalidQuery, "Invalid XML: the element '%.80s' is not allowed inside '%s'.", kid.name, e.name)
		}
	}
	return append([]levelFilter{own}, inner...), nil
}

// link adds a join that contributes rows.
func (s *fetchScope) link(e *element, parent int) ([]levelFilter, error) {
	if s.links++; s.links > MaxLinks {
		return nil, refuse(CodeTooManyLinks, "The query has more than the %d allowed link-entity elements.", MaxLinks)
	}
	name := e.get("name")
	t, ok := s.schema.TableByName(name)
	if !ok {
		return nil, noEntity(name)
	}
	j := join{parent: parent, table: t, filter: always(true)}
	kind := e.get("link-type")
	j.outer, j.first = kind == "outer", kind == "matchfirstrowusingcrossapply"
	from, to := e.get("from"), e.get("to")
	if from == "" || to == "" {
		return nil, refuse(CodeInvalidQuery, "The link-entity '%.80s' needs the attributes 'from' and 'to'.", name)
	}
	if j.from, ok = t.Column(from); !ok {
		return nil, noAttribute(t, from)
	}
	if j.to, ok = s.sources[parent].Column(to); !ok {
		return nil, noAttribute(s.sources[parent], to)
	}
	if !value.Comparable(j.from.Kind, j.to.Kind) {
		return nil, refuse(CodeInvalidQuery, "The columns '%s' and '%s' of the link-entity '%s' have different types.", from, to, name)
	}
	alias := e.get("alias")
	for n := 1; alias == ""; n++ {
		if candidate := name + strconv.Itoa(n); !has(s.names, candidate) {
			alias = candidate
		}
	}
	if has(s.names, alias) {
		return nil, refuse(CodeInvalidQuery, "The alias '%.80s' is used more than once.", alias)
	}
	s.sources = append(s.sources, t)
	source := len(s.sources) - 1
	s.names[alias] = source
	j.alias = alias
	s.joins = append(s.joins, j)
	return s.level(e, source)
}

func has(m map[string]int, k string) bool { _, ok := m[k]; return ok }

// test builds a link that only tests.
func (s *fetchScope) test(e *element, parent int, mode semiMode) (node, error) {
	inner := &fetchScope{fetch: s.fetch, sources: []Table{s.sources[parent]}, names: map[string]int{}}
	filters, err := inner.link(e, 0)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		n, err := inner.conditions(f.elements, f.source)
		if err != nil {
			return nil, err
		}
		n = append(n, f.tests...)
		inner.joins[f.source-1].filter = n
	}
	if len(inner.late) > 0 {
		return nil, notEmulated("A condition with entityname on a deeper link inside a link-entity of type '%s'", e.get("link-type"))
	}
	return &semi{source: parent, joins: inner.joins, mode: mode}, nil
}

// conditions reads filter elements; those that refer to rows joined after
// source go to late.
func (s *fetchScope) conditions(filters []*element, source int) (and, error) {
	var out and
	for _, e := range filters {
		reach := source
		n, err := s.filter(e, source, &reach)
		if err != nil {
			return nil, err
		}
		if reach > source {
			s.late = append(s.late, n)
		} else {
			out = append(out, n)
		}
	}
	return out, nil
}

func (s *fetchScope) filter(e *element, source int, reach *int) (node, error) {
	var nodes []node
	for _, kid := range e.kids {
		var n node
		var err error
		switch kid.name {
		case "condition":
			n, err = s.condition(kid, source, reach)
		case "filter":
			n, err = s.filter(kid, source, reach)
		case "link-entity":
			switch kind := kid.get("link-type"); kind {
			case "any", "not all":
				n, err = s.test(kid, source, anyMatches)
			case "not any":
				if n, err = s.test(kid, source, anyMatches); err == nil {
					n = n.not()
				}
			case "all":
				n, err = s.test(kid, source, noneMatches)
			default:
				err = refuse(CodeInvalidQuery, "The link-type '%.40s' is not valid for a link-entity inside a filter.", kind)
			}
		default:
			err = refuse(CodeInvalidQuery, "Invalid XML: the element '%.80s' is not allowed inside 'filter'.", kid.name)
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	switch kind := e.get("type"); {
	case kind != "" && kind != "and" && kind != "or":
		return nil, refuse(CodeInvalidQuery, "Invalid XML: the filter type '%.40s' is not 'and' or 'or'.", kind)
	case len(nodes) == 0:
		return always(true), nil
	case kind == "or":
		return or(nodes), nil
	}
	return and(nodes), nil
}

func (s *fetchScope) condition(e *element, source int, reach *int) (node, error) {
	if s.fetch.conditions++; s.fetch.conditions > MaxConditions {
		return nil, refuse(CodeTooManyConditions, "The query has more than the %d allowed conditions.", MaxConditions)
	}
	if alias, ok := e.attr("entityname"); ok {
		if source, ok = s.names[alias]; !ok {
			return nil, refuse(CodeInvalidQuery, "No link-entity has the alias '%.80s' that a condition names.", alias)
		}
	}
	o, err := s.operand(e.get("attribute"), source)
	if err != nil {
		return nil, err
	}
	*reach = max(*reach, o.source)
	operator := e.get("operator")
	if other, ok := e.attr("valueof"); ok {
		op, ok := relationNames[operator]
		if !ok {
			return nil, refuse(CodeInvalidArgument, "The condition operator '%.40s' cannot be used with 'valueof'.", operator)
		}
		if alias, column, ok := strings.Cut(other, "."); ok {
			if source, ok = s.names[alias]; !ok {
				return nil, refuse(CodeInvalidQuery, "No link-entity has the alias '%.80s' that a condition names.", alias)
			}
			other = column
		}
		b, err := s.operand(other, source)
		if err != nil {
			return nil, err
		}
		*reach = max(*reach, b.source)
		if !value.Comparable(o.column.Kind, b.column.Kind) {
			return nil, refuse(CodeInvalidArgument, "The columns '%s' and '%s' of a condition have different types.", o.column.LogicalName, b.column.LogicalName)
		}
		return &compareColumns{o, b, op}, nil
	}
	var values []string
	if v, ok := e.attr("value"); ok {
		values = append(values, v)
	}
	for _, kid := range e.kids {
		if kid.name != "value" {
			return nil, refuse(CodeInvalidQuery, "Invalid XML: the element '%.80s' is not allowed inside 'condition'.", kid.name)
		}
		values = append(values, kid.text)
	}
	return condition(o, operator, values)
}

func (s *fetchScope) operand(name string, source int) (operand, error) {
	t := s.sources[source]
	c, ok := t.Column(name)
	if !ok {
		return operand{}, noAttribute(t, name)
	}
	return operand{source: source, table: t, column: c}, nil
}

// attribute adds outputs, group keys or aggregates.
func (s *fetchScope) attribute(e *element, source int) error {
	q, t := s.q, s.sources[source]
	prefix := ""
	if source > 0 {
		prefix = s.joins[source-1].alias + "."
	}
	if e.name == "no-attrs" {
		s.noAttributes = true
		return nil
	}
	if e.name == "all-attributes" {
		if q.Aggregate {
			return refuse(CodeInvalidQuery, "all-attributes is not allowed in an aggregate query.")
		}
		if source == 0 {
			q.AllColumns = true
		}
		for _, c := range t.Columns() {
			s.addOutput(Output{Name: outputName(prefix, c), Kind: c.Kind, Table: t, Column: c, source: source})
		}
		return nil
	}
	o, err := s.operand(e.get("name"), source)
	if err != nil {
		return err
	}
	alias := e.get("alias")
	if q.Aggregate {
		return s.aggregateAttribute(e, o, alias)
	}
	for _, name := range []string{"aggregate", "groupby", "dategrouping"} {
		if e.get(name) != "" {
			return refuse(CodeInvalidQuery, "The attribute '%s' is only allowed in an aggregate query.", name)
		}
	}
	if s := e.get("rowaggregate"); s != "" {
		return notEmulated("The row aggregate '%.40s'", s)
	}
	out := Output{Name: cmp.Or(alias, outputName(prefix, o.column)), Kind: o.column.Kind, Table: t, Column: o.column, source: source}
	if alias != "" && slices.ContainsFunc(q.Outputs, func(x Output) bool { return x.Name == alias }) {
		return refuse(CodeInvalidQuery, "The alias '%.80s' is used more than once.", alias)
	}
	s.addOutput(out)
	return nil
}

// outputName is the wire name: a lookup of the root as _name_value, a linked
// column by its plain name behind the alias.
func outputName(prefix string, c Column) string {
	if prefix == "" {
		return c.Property()
	}
	return prefix + c.LogicalName
}

func (s *fetchScope) addOutput(o Output) {
	for i := range s.q.Outputs {
		if s.q.Outputs[i].Name == o.Name {
			return
		}
	}
	s.q.Outputs = append(s.q.Outputs, o)
}

func (s *fetchScope) aggregateAttribute(e *element, o operand, alias string) error {
	if alias == "" {
		return refuse(CodeInvalidQuery, "The attribute '%s' of an aggregate query needs an alias.", o.column.LogicalName)
	}
	if slices.ContainsFunc(s.q.Outputs, func(x Output) bool { return x.Name == alias }) {
		return refuse(CodeInvalidQuery, "The alias '%.80s' is used more than once.", alias)
	}
	grouped, err := e.flag("groupby")
	if err != nil {
		return err
	}
	kind := e.get("aggregate")
	if grouped == (kind != "") {
		return refuse(CodeInvalidQuery, "The attribute '%s' of an aggregate query needs either 'aggregate' or 'groupby'.", o.column.LogicalName)
	}
	if grouped {
		return s.q.groupBy(o, alias, e.get("dategrouping"))
	}
	distinct, err := e.flag("distinct")
	if err != nil {
		return err
	}
	return s.q.aggregate(o, alias, kind, distinct)
}

// finish makes the query ready once everything is read.
func (p *fetch) finish(s *fetchScope, filter node) error {
	q := p.q
	q.plan.sources, q.plan.joins, q.plan.filter = s.sources, s.joins, filter
	q.plan.lateFilter = len(s.joins) > 0 && refersToJoined(filter)
	q.plan.filtered = true
	if q.Aggregate {
		if len(q.Outputs) == 0 {
			return refuse(CodeInvalidQuery, "An aggregate query needs at least one attribute.")
		}
	} else if !slices.ContainsFunc(q.Outputs, func(o Output) bool { return o.source == 0 }) && !q.Distinct && len(s.joins) == 0 && !p.noAttributes {
		q.AllColumns = true
		for _, c := range q.Table.Columns() {
			q.output(c)
		}
	}
	key := q.Table.PrimaryID()
	hasKey := slices.ContainsFunc(q.Outputs, func(o Output) bool {
		return o.source == 0 && o.Table != nil && o.Column.Ordinal == key.Ordinal
	})
	if !q.Aggregate && !q.Distinct && !hasKey {
		q.output(key)
	}
	if q.Distinct && !q.Aggregate {
		if len(q.Outputs) == 0 {
			return refuse(CodeInvalidQuery, "A distinct query needs at least one attribute.")
		}
		onlyRoot := !slices.ContainsFunc(q.Outputs, func(o Output) bool { return o.source != 0 })
		q.plan.oncePerRoot = hasKey && onlyRoot
		q.plan.distinctValues = !q.plan.oncePerRoot
	}
	slices.SortStableFunc(p.orders, func(a, b fetchOrder) int { return cmp.Compare(a.source, b.source) })
	for _, o := range p.orders {
		if err := s.order(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *fetchScope) order(o fetchOrder) error {
	desc, err := o.e.flag("descending")
	if err != nil {
		return err
	}
	alias, attribute := o.e.get("alias"), o.e.get("attribute")
	if (alias == "") == (attribute == "") {
		return refuse(CodeInvalidQuery, "An order needs either 'attribute' or, in an aggregate query, 'alias'.")
	}
	if alias != "" {
		i := slices.IndexFunc(s.q.Outputs, func(x Output) bool { return x.Name == alias })
		if i < 0 || !s.q.Aggregate {
			return refuse(CodeInvalidQuery, "An order names the alias '%.80s', which no attribute of an aggregate query has.", alias)
		}
		s.q.plan.aliasOrder = append(s.q.plan.aliasOrder, aliasOrder{i, desc})
		return nil
	}
	if s.q.Aggregate {
		return refuse(CodeInvalidQuery, "An aggregate query is ordered by 'alias', not by 'attribute'.")
	}
	source := o.source
	if name, ok := o.e.attr("entityname"); ok {
		if source, ok = s.names[name]; !ok {
			return refuse(CodeInvalidQuery, "No link-entity has the alias '%.80s' that an order names.", name)
		}
	}
	on, err := s.operand(attribute, source)
	if err != nil {
		return err
	}
	return s.q.orderOn(s.schema, on, attribute, desc)
}
