package query

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// maxFilterDepth bounds the nesting of parentheses and not, against hostile
// filters.
const maxFilterDepth = 100

// filterParser is a recursive descent over one $filter text.
type filterParser struct {
	*odata
	text  string
	at    int
	depth int
	// scopes holds the root (variable "") and the lambda variables around the
	// current position, innermost last.
	scopes []variable
}

type variable struct {
	name  string
	table Table
}

// filter reads a $filter (or the filter of $apply) over a table.
func (p *odata) filter(t Table, text string) (node, error) {
	f := &filterParser{odata: p, text: text, scopes: []variable{{table: t}}}
	n, err := f.or()
	if err != nil {
		return nil, err
	}
	f.space()
	if f.at < len(f.text) {
		return nil, f.syntax()
	}
	return n, nil
}

func (f *filterParser) syntax() error {
	return refuse(CodeODataQuery, "Syntax error at position %d in '%.120s'.", f.at, f.text)
}

func (f *filterParser) space() {
	for f.at < len(f.text) && (f.text[f.at] == ' ' || f.text[f.at] == '\t') {
		f.at++
	}
}

// accept consumes a punctuation character, with blanks before it.
func (f *filterParser) accept(c byte) bool {
	f.space()
	if f.at < len(f.text) && f.text[f.at] == c {
		f.at++
		return true
	}
	return false
}

// keyword consumes a word that is followed by a blank or parenthesis.
func (f *filterParser) keyword(word string) bool {
	f.space()
	rest := f.text[f.at:]
	if !strings.HasPrefix(rest, word) {
		return false
	}
	if len(rest) > len(word) && rest[len(word)] != ' ' && rest[len(word)] != '(' && rest[len(word)] != '\t' {
		return false
	}
	f.at += len(word)
	return true
}

// word reads an identifier, path or unquoted literal.
func (f *filterParser) word() string {
	f.space()
	start := f.at
	for f.at < len(f.text) {
		c := f.text[f.at]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("_./@$:+-", c) >= 0 {
			f.at++
			continue
		}
		break
	}
	return f.text[start:f.at]
}

func (f *filterParser) or() (node, error) {
	if f.depth++; f.depth > maxFilterDepth {
		return nil, refuse(CodeODataQuery, "The $filter is nested too deeply.")
	}
	defer func() { f.depth-- }()
	n, err := f.and()
	if err != nil {
		return nil, err
	}
	list := or{n}
	for f.keyword("or") {
		if n, err = f.and(); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

func (f *filterParser) and() (node, error) {
	n, err := f.unary()
	if err != nil {
		return nil, err
	}
	list := and{n}
	for f.keyword("and") {
		if n, err = f.unary(); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

func (f *filterParser) unary() (node, error) {
	if f.keyword("not") {
		if f.depth++; f.depth > maxFilterDepth {
			return nil, refuse(CodeODataQuery, "The $filter is nested too deeply.")
		}
		defer func() { f.depth-- }()
		n, err := f.unary()
		if err != nil {
			return nil, err
		}
		return n.not(), nil
	}
	if f.accept('(') {
		n, err := f.or()
		if err != nil {
			return nil, err
		}
		if !f.accept(')') {
			return nil, f.syntax()
		}
		return n, nil
	}
	if f.conditions++; f.conditions > MaxConditions {
		return nil, refuse(CodeTooManyConditions, "The query has more than the %d allowed conditions.", MaxConditions)
	}
	start := f.at
	if f.at < len(f.text) && f.text[f.at] != '\'' {
		word := f.word()
		if f.at < len(f.text) && f.text[f.at] == '(' && word != "" {
			f.at++
			return f.call(word)
		}
	}
	f.at = start
	return f.comparison()
}

// call reads what follows name( … .
func (f *filterParser) call(name string) (node, error) {
	switch name {
	case "contains", "startswith", "endswith":
		return f.textFunction(name)
	}
	if function, ok := strings.CutPrefix(name, "Microsoft.Dynamics.CRM."); ok {
		return f.dynamicsFunction(function)
	}
	if i := strings.LastIndexByte(name, '/'); i > 0 && (name[i+1:] == "any" || name[i+1:] == "all") {
		return f.lambda(name[:i], name[i+1:] == "all")
	}
	return nil, refuse(CodeODataQuery, "An unknown function with name '%.80s' was found.", name)
}

func (f *filterParser) textFunction(name string) (node, error) {
	o, err := f.column(f.word())
	if err != nil {
		return nil, err
	}
	if !f.accept(',') {
		return nil, f.syntax()
	}
	lit, err := f.literal()
	if err != nil {
		return nil, err
	}
	if !f.accept(')') {
		return nil, f.syntax()
	}
	if o.column.Kind != value.KindText || lit.kind != quotedText {
		return nil, refuse(CodeODataQuery, "No function signature for the function with name '%s' matches the specified arguments: '%s'.", name, o.column.LogicalName)
	}
	text := lit.text
	if name != "startswith" {
		text = "%" + text
	}
	if name != "endswith" {
		text += "%"
	}
	return &like{o: o, p: compileLike(text)}, nil
}

// dynamicsFunction reads the named parameters of a Microsoft.Dynamics.CRM
// function: PropertyName and, where needed, PropertyValue or PropertyValues.
func (f *filterParser) dynamicsFunction(name string) (node, error) {
	operator, known := odataFunctions[name]
	if !known {
		return nil, refuse(CodeODataQuery, "An unknown function with name 'Microsoft.Dynamics.CRM.%.80s' was found.", name)
	}
	property, values, haveValues := "", []string(nil), false
	for {
		parameter := f.word()
		if !f.accept('=') {
			return nil, f.syntax()
		}
		switch parameter {
		case "PropertyName":
			lit, err := f.literal()
			if err != nil {
				return nil, err
			}
			if lit.kind != quotedText || property != "" {
				return nil, f.syntax()
			}
			property = lit.text
		case "PropertyValue", "PropertyValues":
			if haveValues {
				return nil, f.syntax()
			}
			haveValues = true
			var err error
			if values, err = f.functionValues(parameter == "PropertyValues"); err != nil {
				return nil, err
			}
		default:
			return nil, refuse(CodeODataQuery, "The function 'Microsoft.Dynamics.CRM.%s' has no parameter '%.80s'.", name, parameter)
		}
		if f.accept(',') {
			continue
		}
		if f.accept(')') {
			break
		}
		return nil, f.syntax()
	}
	o, err := f.functionColumn(property)
	if err != nil {
		return nil, err
	}
	return condition(o, operator, values)
}

// functionColumn finds the column that PropertyName gives: a lookup may be
// written by its logical name too.
func (f *filterParser) functionColumn(name string) (operand, error) {
	scope := f.scopes[len(f.scopes)-1]
	plain := name
	if scope.name != "" {
		plain = strings.TrimPrefix(name, scope.name+"/")
	}
	if c, ok := scope.table.Column(plain); ok {
		return operand{table: scope.table, column: c}, nil
	}
	return f.column(name)
}

// functionValues reads 'v', 5, @p or a JSON array whose strings may also be
// single-quoted.
func (f *filterParser) functionValues(list bool) ([]string, error) {
	f.space()
	if f.at < len(f.text) && f.text[f.at] == '@' {
		name := f.word()
		if f.aliases == nil {
			return nil, errAliasInExpand
		}
		inner := &filterParser{odata: f.odata, text: f.aliases[name], scopes: f.scopes}
		if strings.HasPrefix(strings.TrimSpace(inner.text), "@") {
			return nil, refuse(CodeODataQuery, "The parameter alias '%.80s' refers to another alias.", name)
		}
		values, err := inner.functionValues(list)
		if inner.space(); err == nil && inner.at < len(inner.text) {
			err = inner.syntax()
		}
		return values, err
	}
	if !list {
		lit, err := f.literal()
		if err != nil {
			return nil, err
		}
		if lit.kind == nullLiteral {
			return nil, f.syntax()
		}
		return []string{lit.text}, nil
	}
	if !f.accept('[') {
		return nil, f.syntax()
	}
	values := []string{}
	for !f.accept(']') {
		if len(values) > 0 && !f.accept(',') {
			return nil, f.syntax()
		}
		f.space()
		if f.at < len(f.text) && f.text[f.at] == '"' {
			end := f.at + 1
			for end < len(f.text) && f.text[end] != '"' {
				if f.text[end] == '\\' {
					end++
				}
				end++
			}
			var s string
			if end >= len(f.text) || json.Unmarshal([]byte(f.text[f.at:end+1]), &s) != nil {
				return nil, f.syntax()
			}
			f.at = end + 1
			values = append(values, s)
		} else {
			lit, err := f.literal()
			if err != nil {
				return nil, err
			}
			if lit.kind != quotedText {
				return nil, refuse(CodeODataQuery, "The values of PropertyValues must be strings.")
			}
			values = append(values, lit.text)
		}
		if len(values) > MaxValues {
			return nil, refuse(CodeTooManyValues, "The condition has more than %d values.", MaxValues)
		}
	}
	return values, nil
}

// lambda reads path/any( or path/all( up to the closing parenthesis.
func (f *filterParser) lambda(path string, all bool) (node, error) {
	scope := &f.scopes[len(f.scopes)-1]
	name := path
	if scope.name != "" {
		var ok bool
		if name, ok = strings.CutPrefix(path, scope.name+"/"); !ok {
			return nil, refuse(CodeODataQuery, "The path '%.80s' does not start with the lambda variable '%s'.", path, scope.name)
		}
	}
	if strings.Contains(name, "/") {
		return nil, refuse(CodeODataQuery, "any and all are not supported behind the single-valued path '%.80s'.", path)
	}
	nav, ok := scope.table.Navigation(name)
	if !ok || nav.Cardinality == ToOne {
		return nil, refuse(CodeODataQuery, "Could not find a collection-valued property named '%.80s' on type 'Microsoft.Dynamics.CRM.%s'.", name, scope.table.LogicalName())
	}
	r, err := resolve(f.schema, scope.table, nav)
	if err != nil {
		return nil, err
	}
	if f.accept(')') {
		if all {
			return nil, f.syntax()
		}
		return &lambda{path: r, pred: always(true)}, nil
	}
	word := f.word()
	v, rest, ok := strings.Cut(word, ":")
	if !ok || v == "" || strings.ContainsAny(v, "/.@$+-") {
		return nil, f.syntax()
	}
	f.at -= len(rest)
	for _, s := range f.scopes {
		if s.name == v {
			return nil, refuse(CodeODataQuery, "The range variable '%.80s' has already been declared.", v)
		}
	}
	f.scopes = append(f.scopes, variable{v, r.target})
	pred, err := f.or()
	f.scopes = f.scopes[:len(f.scopes)-1]
	if err != nil {
		return nil, err
	}
	if !f.accept(')') {
		return nil, f.syntax()
	}
	if all {
		return &lambda{path: r, pred: pred.not(), negated: true}, nil
	}
	return &lambda{path: r, pred: pred}, nil
}

// column resolves a path as written in the current scope.
func (f *filterParser) column(path string) (operand, error) {
	if path == "" {
		return operand{}, f.syntax()
	}
	scope := f.scopes[len(f.scopes)-1]
	if scope.name != "" {
		inner, ok := strings.CutPrefix(path, scope.name+"/")
		if !ok {
			return operand{}, refuse(CodeODataQuery, "The path '%.80s' does not start with the lambda variable '%s'.", path, scope.name)
		}
		path = inner
	}
	return f.path(scope.table, path)
}

type literalKind uint8

const (
	unquoted literalKind = iota
	quotedText
	nullLiteral
)

type constant struct {
	kind literalKind
	text string
}

// literal reads a constant or an alias of one.
func (f *filterParser) literal() (constant, error) {
	f.space()
	if f.at < len(f.text) && f.text[f.at] == '\'' {
		var b strings.Builder
		for i := f.at + 1; i < len(f.text); i++ {
			if f.text[i] != '\'' {
				b.WriteByte(f.text[i])
				continue
			}
			if i+1 < len(f.text) && f.text[i+1] == '\'' {
				b.WriteByte('\'')
				i++
				continue
			}
			f.at = i + 1
			return constant{quotedText, b.String()}, nil
		}
		return constant{}, refuse(CodeODataQuery, "There is an unterminated string literal in '%.120s'.", f.text)
	}
	word := f.word()
	switch {
	case word == "":
		return constant{}, f.syntax()
	case word == "null":
		return constant{kind: nullLiteral}, nil
	case word[0] == '@':
		if f.aliases == nil {
			return constant{}, errAliasInExpand
		}
		text, ok := f.aliases[word]
		if !ok || strings.TrimSpace(text) == "" {
			return constant{kind: nullLiteral}, nil
		}
		if strings.HasPrefix(strings.TrimSpace(text), "@") {
			return constant{}, refuse(CodeODataQuery, "The parameter alias '%.80s' refers to another alias.", word)
		}
		inner := &filterParser{odata: f.odata, text: text}
		c, err := inner.literal()
		if inner.space(); err == nil && inner.at < len(inner.text) {
			err = inner.syntax()
		}
		return c, err
	}
	return constant{unquoted, word}, nil
}

// side is one side of a comparison: a column or a constant.
type side struct {
	column   operand
	constant constant
	isColumn bool
}

func (f *filterParser) side() (side, error) {
	f.space()
	start := f.at
	if word := f.word(); word != "" && word != "null" && word != "true" && word != "false" &&
		(word[0] == '_' || word[0] >= 'a' && word[0] <= 'z' || word[0] >= 'A' && word[0] <= 'Z') && !isGUID(word) {
		o, err := f.column(word)
		return side{column: o, isColumn: true}, err
	}
	f.at = start
	c, err := f.literal()
	return side{constant: c}, err
}

func isGUID(s string) bool {
	_, err := value.ParseID(s)
	return err == nil
}

func (f *filterParser) comparison() (node, error) {
	left, err := f.side()
	if err != nil {
		return nil, err
	}
	name := f.word()
	op, ok := relationNames[name]
	if !ok || name == "neq" {
		return nil, f.syntax()
	}
	right, err := f.side()
	if err != nil {
		return nil, err
	}
	switch {
	case left.isColumn && right.isColumn:
		a, b := left.column, right.column
		if !value.Comparable(a.column.Kind, b.column.Kind) {
			return nil, mismatch(a.column.Kind, b.column.Kind.String(), name)
		}
		return &compareColumns{a, b, op}, nil
	case left.isColumn:
		return compareConstant(left.column, op, name, right.constant)
	case right.isColumn:
		return compareConstant(right.column, op.mirrored(), name, left.constant)
	}
	return nil, refuse(CodeODataQuery, "A comparison in $filter needs a property on at least one side.")
}

func mismatch(column value.Kind, other, operator string) error {
	return refuse(CodeODataQuery, "A binary operator with incompatible types was detected. Found operand types '%s' and '%s' for operator kind '%s'.", column, other, operator)
}

// compareConstant types a constant by the column. Text with LIKE wildcards
// matches as a pattern under eq and ne.
func compareConstant(o operand, op relation, name string, c constant) (node, error) {
	kind := o.column.Kind
	if c.kind == nullLiteral {
		if op != eq && op != ne {
			return nil, refuse(CodeODataQuery, "The null literal can only be compared with eq and ne.")
		}
		return &isNull{o, op == ne}, nil
	}
	wantsText := kind == value.KindText || kind == value.KindMultiSelect
	if wantsText != (c.kind == quotedText) {
		other := "Edm.String"
		if c.kind == unquoted {
			other = literalType(c.text)
		}
		return nil, mismatch(kind, other, name)
	}
	if op != eq && op != ne && (kind == value.KindBool || kind == value.KindGUID || kind == value.KindMultiSelect) {
		return nil, mismatch(kind, kind.String(), name)
	}
	switch kind {
	case value.KindText:
		if p := compileLike(c.text); (op == eq || op == ne) && p.hasWildcard() {
			return &like{o, p, op == ne}, nil
		}
		return &compare{o, op, value.Text(c.text)}, nil
	case value.KindBool:
		if c.text != "true" && c.text != "false" {
			return nil, mismatch(kind, literalType(c.text), name)
		}
	case value.KindInt, value.KindDecimal, value.KindDouble:
		for _, k := range [...]value.Kind{value.KindInt, value.KindDecimal, value.KindDouble} {
			if v, err := value.ParseText(c.text, k); err == nil {
				return &compare{o, op, v}, nil
			}
		}
		return nil, mismatch(kind, literalType(c.text), name)
	}
	v, err := value.ParseText(c.text, kind)
	if err != nil {
		return nil, mismatch(kind, literalType(c.text), name)
	}
	if v.IsNull() {
		return &isNull{o, op == ne}, nil
	}
	return &compare{o, op, v}, nil
}

// literalType names the Edm type of an unquoted constant for error texts.
func literalType(s string) string {
	if s == "true" || s == "false" {
		return "Edm.Boolean"
	}
	if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		return "Edm.Int32"
	}
	for _, k := range [...]value.Kind{value.KindDecimal, value.KindDouble, value.KindGUID, value.KindDate, value.KindDateTime} {
		if _, err := value.ParseText(s, k); err == nil {
			return k.String()
		}
	}
	return "unknown"
}
