package dataverse

import (
	"net/url"
	"strconv"
	"strings"
)

// metadataOptions are the query options of definitions: $select, $filter on
// properties, $expand of collections. Definitions are never paged.
type metadataOptions struct {
	selected []string
	filter   []metadataCondition
	expand   []metadataExpand
}

type metadataExpand struct {
	name    string
	options *metadataOptions
}

type metadataCondition struct {
	path  []string
	not   bool
	value any // string, bool, int64 or nil
}

func parseMetadataOptions(raw string) (*metadataOptions, error) {
	o := &metadataOptions{}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, val, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(name)
		val, err2 := url.QueryUnescape(val)
		if err1 != nil || err2 != nil {
			return nil, badRequest("The query of the URL is not valid.")
		}
		if err := o.set(name, val); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *metadataOptions) set(name, val string) error {
	switch name {
	case "$select":
		for item := range strings.SplitSeq(val, ",") {
			o.selected = append(o.selected, strings.TrimSpace(item))
		}
	case "$filter":
		conditions, err := parseMetadataFilter(val)
		if err != nil {
			return err
		}
		o.filter = conditions
	case "$expand":
		for _, item := range splitTop(val, ',') {
			x := metadataExpand{name: strings.TrimSpace(item), options: &metadataOptions{}}
			if i := strings.IndexByte(x.name, '('); i >= 0 && strings.HasSuffix(x.name, ")") {
				for _, inner := range splitTop(x.name[i+1:len(x.name)-1], ';') {
					n, v, _ := strings.Cut(inner, "=")
					if err := x.options.set(strings.TrimSpace(n), v); err != nil {
						return err
					}
				}
				x.name = x.name[:i]
			}
			o.expand = append(o.expand, x)
		}
	case "LabelLanguages":
	default:
		if strings.HasPrefix(name, "$") {
			return badRequest("The query option '%.40s' is not supported for definitions.", name)
		}
	}
	return nil
}

// splitTop cuts at a separator outside of parentheses and quotes.
func splitTop(s string, sep byte) []string {
	var out []string
	depth, quoted, start := 0, false, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) {
			switch {
			case s[i] == '\'':
				quoted = !quoted
			case quoted:
			case s[i] == '(':
				depth++
			case s[i] == ')':
				depth--
			}
		}
		if i == len(s) || s[i] == sep && depth == 0 && !quoted {
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return out
}

// parseMetadataFilter reads conditions "path eq|ne literal" joined by and.
func parseMetadataFilter(s string) ([]metadataCondition, error) {
	var out []metadataCondition
	words := strings.Fields(s)
	for i := 0; i < len(words); {
		if len(out) > 0 {
			if words[i] != "and" {
				return nil, notEmulated("A filter on definitions with '" + words[i] + "'")
			}
			i++
		}
		if i+2 >= len(words) || words[i+1] != "eq" && words[i+1] != "ne" {
			return nil, notEmulated("A filter on definitions other than comparisons with eq and ne joined by and")
		}
		c := metadataCondition{path: strings.Split(words[i], "/"), not: words[i+1] == "ne"}
		literal := words[i+2]
		i += 3
		for strings.Count(literal, "'")%2 == 1 && i < len(words) {
			literal += " " + words[i]
			i++
		}
		if strings.HasPrefix(literal, crm) { // an enumeration value
			_, literal, _ = strings.Cut(literal, "'")
			literal = "'" + literal
		}
		switch {
		case strings.HasPrefix(literal, "'"):
			text, ok := unquote(literal)
			if !ok {
				return nil, badRequest("'%.60s' is not a string literal.", literal)
			}
			c.value = text
		case literal == "true" || literal == "false":
			c.value = literal == "true"
		case literal == "null":
		default:
			n, err := strconv.ParseInt(literal, 10, 64)
			if err == nil {
				c.value = n
			} else {
				c.value = literal // a GUID
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// matches reports whether an object passes the filter.
func (o *metadataOptions) matches(obj object) (bool, error) {
	for _, c := range o.filter {
		v, known := any(obj), true
		for _, step := range c.path {
			inner, ok := v.(object)
			if !ok {
				known = false
				break
			}
			if v, known = inner.get(step); !known {
				break
			}
		}
		if !known {
			return false, badRequest("Could not find a property named '%.60s'.", strings.Join(c.path, "/"))
		}
		if n, ok := v.(int); ok {
			v = int64(n)
		}
		if (v == c.value) == c.not {
			return false, nil
		}
	}
	return true, nil
}

// choose keeps the selected properties; MetadataId and the type always stay.
func (o *metadataOptions) choose(obj object) (object, error) {
	if len(o.selected) == 0 {
		return obj, nil
	}
	var out object
	for _, f := range obj {
		if f.name == "MetadataId" || f.name == "@odata.type" {
			out = append(out, f)
		}
	}
	for _, name := range o.selected {
		v, ok := obj.get(name)
		if !ok {
			return nil, badRequest("Could not find a property named '%.60s' on the type.", name)
		}
		if name != "MetadataId" {
			out = append(out, field{name, v})
		}
	}
	return out, nil
}

// pick filters and selects a list.
func (o *metadataOptions) pick(list []object) ([]object, error) {
	out := []object{}
	for _, obj := range list {
		keep, err := o.matches(obj)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		chosen, err := o.choose(obj)
		if err != nil {
			return nil, err
		}
		out = append(out, chosen)
	}
	return out, nil
}
