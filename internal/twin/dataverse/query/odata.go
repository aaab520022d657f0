package query

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// ParseOData reads the options of a URL's query (raw, still percent-encoded)
// over a table. It knows $select $filter $orderby $top $count $expand $apply
// $skiptoken $deltatoken and parameter aliases; any other name is refused, so
// fetchXml, savedQuery and userQuery must be taken away before.
func ParseOData(s Schema, t Table, rawQuery string) (*Query, error) {
	options, err := splitQuery(rawQuery)
	if err != nil {
		return nil, err
	}
	p := &odata{schema: s, aliases: map[string]string{}}
	for name, text := range options {
		if strings.HasPrefix(name, "@") {
			p.aliases[name] = text
		}
	}
	q := &Query{Table: t, plan: plan{sources: []Table{t}}}
	if text, ok := options["$apply"]; ok {
		for _, other := range []string{"$select", "$filter", "$orderby", "$top", "$count", "$expand"} {
			if _, both := options[other]; both {
				return nil, refuse(CodeODataQuery, "The query option '%s' cannot be combined with '$apply'.", other)
			}
		}
		if err := p.apply(q, text); err != nil {
			return nil, err
		}
	} else if err := p.options(q, options); err != nil {
		return nil, err
	}
	q.SkipToken, q.DeltaToken = options["$skiptoken"], options["$deltatoken"]
	return q, nil
}

// splitQuery decodes a query string. It splits at & alone, because $expand uses
// semicolons, and refuses a name given twice.
func splitQuery(raw string) (map[string]string, error) {
	options := map[string]string{}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		rawName, rawText, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return nil, refuse(CodeODataQuery, "The query string is not URL-encoded correctly.")
		}
		text, err := url.QueryUnescape(rawText)
		if err != nil {
			return nil, refuse(CodeODataQuery, "The query string is not URL-encoded correctly.")
		}
		switch name {
		case "$select", "$filter", "$orderby", "$top", "$count", "$expand", "$apply", "$skiptoken", "$deltatoken":
		default:
			if len(name) < 2 || name[0] != '@' {
				return nil, refuse(CodeODataQuery, "The query parameter %.80s is not supported", name)
			}
		}
		if _, twice := options[name]; twice {
			return nil, refuse(CodeODataQuery, "Query option '%.80s' was specified more than once, but it must be specified at most once.", name)
		}
		options[name] = text
	}
	return options, nil
}

type odata struct {
	schema     Schema
	aliases    map[string]string // nil inside $expand
	expands    int
	conditions int // of all filters
}

// options reads everything but $apply into q; the same for a request and for
// the parentheses of an $expand item.
func (p *odata) options(q *Query, options map[string]string) error {
	if text, ok := options["$select"]; ok {
		if err := p.selectList(q, text); err != nil {
			return err
		}
	} else {
		q.AllColumns = true
		for _, c := range q.Table.Columns() {
			q.output(c)
		}
	}
	if !slices.ContainsFunc(q.Outputs, func(o Output) bool { return o.Column.Ordinal == q.Table.PrimaryID().Ordinal }) {
		q.output(q.Table.PrimaryID())
	}
	q.plan.filter = always(true)
	if text, ok := options["$filter"]; ok {
		n, err := p.filter(q.Table, text)
		if err != nil {
			return err
		}
		q.plan.filter, q.plan.filtered = n, true
	}
	if text, ok := options["$orderby"]; ok {
		if err := p.orderBy(q, text); err != nil {
			return err
		}
	}
	if text, ok := options["$top"]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || text[0] == '+' {
			return refuse(CodeODataQuery, "Invalid value '%.40s' for $top query option found. The $top query option requires a positive integer value.", text)
		}
		q.Top = n
	}
	switch text, ok := options["$count"]; {
	case ok && text == "true":
		q.Count = true
	case ok && text != "false":
		return refuse(CodeODataQuery, "Invalid value '%.40s' for $count query option found. Valid values are 'true' or 'false'.", text)
	}
	if text, ok := options["$expand"]; ok {
		return p.expandList(q, text)
	}
	return nil
}

func (q *Query) output(c Column) {
	q.Outputs = append(q.Outputs, Output{Name: c.Property(), Kind: c.Kind, Table: q.Table, Column: c})
}

func (p *odata) selectList(q *Query, text string) error {
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		c, err := property(q.Table, name)
		if err != nil {
			return err
		}
		if !slices.Contains(q.Select, name) {
			q.Select = append(q.Select, name)
			q.output(c)
		}
	}
	return nil
}

// property finds a column by its name on the wire: a lookup only as _name_value.
func property(t Table, name string) (Column, error) {
	logical := name
	if strings.HasPrefix(name, "_") && strings.HasSuffix(name, "_value") && len(name) > len("_x_value")-1 {
		logical = name[1 : len(name)-len("_value")]
	}
	if c, ok := t.Column(logical); ok && c.Property() == name {
		return c, nil
	}
	if c, ok := t.Column(name); ok && c.Property() == name {
		return c, nil
	}
	return Column{}, refuse(CodeODataQuery, "Could not find a property named '%.80s' on type 'Microsoft.Dynamics.CRM.%s'.", name, t.LogicalName())
}

func (p *odata) orderBy(q *Query, text string) error {
	for item := range strings.SplitSeq(text, ",") {
		fields := strings.Fields(item)
		desc := false
		if len(fields) == 2 && (fields[1] == "asc" || fields[1] == "desc") {
			desc = fields[1] == "desc"
			fields = fields[:1]
		}
		if len(fields) != 1 {
			return refuse(CodeODataQuery, "Syntax error in the $orderby expression '%.80s'.", item)
		}
		path := fields[0]
		if path[0] == '@' {
			if p.aliases == nil {
				return errAliasInExpand
			}
			if path = strings.TrimSpace(p.aliases[path]); path == "" {
				continue // an alias without value is null: no order
			}
		}
		o, err := p.path(q.Table, path)
		if err != nil {
			return err
		}
		if err := q.orderOn(p.schema, o, path, desc); err != nil {
			return err
		}
	}
	return nil
}

var errAliasInExpand = refuse(CodeODataQuery, "Parameter aliases are not supported inside $expand.")

// orderOn adds one order; a lookup orders by the name of the record it points
// to.
func (q *Query) orderOn(s Schema, o operand, name string, desc bool) error {
	if o.column.Kind == value.KindMultiSelect {
		return refuse(CodeODataQuery, "The property '%.80s' cannot be used in the order.", name)
	}
	ord := order{operand: o, name: name, desc: desc}
	if o.column.Lookup {
		for _, target := range o.column.Targets {
			if t, ok := s.TableByName(target); ok {
				if c, ok := t.PrimaryName(); ok {
					ord.names = append(ord.names, nameOf{t, c})
				}
			}
		}
	}
	q.plan.order = append(q.plan.order, ord)
	return nil
}

// path resolves a property, possibly behind single-valued navigations.
func (p *odata) path(t Table, text string) (operand, error) {
	o := operand{}
	for {
		head, rest, more := strings.Cut(text, "/")
		if !more {
			c, err := property(t, head)
			o.table, o.column = t, c
			return o, err
		}
		nav, ok := t.Navigation(head)
		if !ok {
			return o, refuse(CodeODataQuery, "Could not find a property named '%.80s' on type 'Microsoft.Dynamics.CRM.%s'.", head, t.LogicalName())
		}
		if nav.Cardinality != ToOne {
			return o, refuse(CodeODataQuery, "The collection '%s' can only be used with any() or all().", head)
		}
		r, err := resolve(p.schema, t, nav)
		if err != nil {
			return o, err
		}
		o.steps = append(o.steps, step{r.column.Ordinal, r.target})
		t, text = r.target, rest
	}
}

// expandList reads the items of an $expand.
func (p *odata) expandList(q *Query, text string) error {
	items, err := splitOutside(text, ',')
	if err != nil {
		return err
	}
	for _, item := range items {
		x, err := p.expandItem(q.Table, strings.TrimSpace(item))
		if err != nil {
			return err
		}
		for i := range q.Expands {
			if q.Expands[i].Navigation.Name == x.Navigation.Name {
				return refuse(CodeODataQuery, "The navigation property '%s' is expanded more than once.", x.Navigation.Name)
			}
		}
		q.Expands = append(q.Expands, x)
	}
	crossed := 0
	for i := range q.Expands {
		x := &q.Expands[i]
		nested := len(x.Query.Expands) > 0
		switch x.Navigation.Cardinality {
		case ManyToMany:
			crossed++
			if nested {
				return refuse(CodeODataQuery, "The many-to-many navigation property '%s' cannot have a nested $expand.", x.Navigation.Name)
			}
		case ToMany:
			if nested && (x.Query.Top > 0 || len(x.Query.plan.order) > 0) {
				return refuse(CodeODataQuery, "$top and $orderby are not supported in the $expand of '%s', which has a nested $expand.", x.Navigation.Name)
			}
		}
		for j := range x.Query.Expands {
			if x.Query.Expands[j].Navigation.Cardinality == ManyToMany {
				return refuse(CodeODataQuery, "The many-to-many navigation property '%s' cannot be expanded inside another $expand.", x.Query.Expands[j].Navigation.Name)
			}
		}
	}
	if crossed > 0 && crossed < len(q.Expands) {
		return refuse(CodeODataQuery, "Many-to-many navigation properties cannot be expanded together with other ones.")
	}
	return nil
}

func (p *odata) expandItem(t Table, item string) (Expand, error) {
	var x Expand
	if p.expands++; p.expands > MaxExpands {
		return x, refuse(CodeODataQuery, "The query has more than the %d allowed $expand items.", MaxExpands)
	}
	name, inner := item, ""
	open := strings.IndexByte(item, '(')
	if open >= 0 {
		if !strings.HasSuffix(item, ")") {
			return x, refuse(CodeODataQuery, "Syntax error in $expand near '%.80s'.", item)
		}
		name, inner = item[:open], item[open+1:len(item)-1]
	}
	name, x.Ref = strings.CutSuffix(name, "/$ref")
	nav, ok := t.Navigation(name)
	if !ok {
		return x, refuse(CodeODataQuery, "Could not find a property named '%.80s' on type 'Microsoft.Dynamics.CRM.%s'.", name, t.LogicalName())
	}
	if x.Ref && (nav.Cardinality != ToOne || open >= 0) {
		return x, refuse(CodeODataQuery, "$ref is not supported for the expanded navigation property '%s'.", name)
	}
	r, err := resolve(p.schema, t, nav)
	if err != nil {
		return x, err
	}
	options := map[string]string{}
	if open >= 0 {
		parts, err := splitOutside(inner, ';')
		if err != nil {
			return x, err
		}
		for _, part := range parts {
			option, text, ok := strings.Cut(part, "=")
			option = strings.TrimSpace(option)
			switch option {
			case "$select", "$filter", "$orderby", "$top", "$expand":
			default:
				ok = false
			}
			if _, twice := options[option]; !ok || twice {
				return x, refuse(CodeODataQuery, "The option '%.80s' is not supported inside the $expand of '%s'.", option, name)
			}
			if nav.Cardinality == ToOne && option != "$select" && option != "$expand" {
				return x, refuse(CodeODataQuery, "The option '%s' is not supported inside the $expand of the single-valued '%s'.", option, name)
			}
			options[option] = strings.TrimSpace(text)
		}
	}
	x.Navigation, x.Table = nav, r.target
	x.Query = &Query{Table: r.target, plan: plan{sources: []Table{r.target}, via: &r}}
	outer := p.aliases
	p.aliases = nil
	defer func() { p.aliases = outer }()
	return x, p.options(x.Query, options)
}

// splitOutside splits at a separator that is outside of quotes and parentheses.
func splitOutside(text string, separator byte) ([]string, error) {
	var parts []string
	depth, start, quoted := 0, 0, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
			if depth < 0 {
				return nil, refuse(CodeODataQuery, "Unbalanced parentheses in '%.80s'.", text)
			}
		case c == separator && depth == 0:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	if depth != 0 || quoted {
		return nil, refuse(CodeODataQuery, "Unbalanced parentheses or quotes in '%.80s'.", text)
	}
	return append(parts, text[start:]), nil
}

// RefuseTracking returns the refusal when the query has options that change
// tracking does not allow ($filter $orderby $expand $top), else nil.
func (q *Query) RefuseTracking() error {
	var option string
	switch {
	case q.Aggregate:
		option = "$apply"
	case q.plan.filtered:
		option = "$filter"
	case len(q.plan.order) > 0:
		option = "$orderby"
	case len(q.Expands) > 0:
		option = "$expand"
	case q.Top > 0:
		option = "$top"
	default:
		return nil
	}
	return refuse(CodeODataQuery, "The query parameter %s is not supported when change tracking is requested", option)
}
