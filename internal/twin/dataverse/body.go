package dataverse

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// prop is one property of a JSON object, its value still as text.
type prop struct {
	name string
	raw  json.RawMessage
}

// parseObject splits a JSON object into its properties in order. An empty body
// counts as an empty object.
func parseObject(b []byte) ([]prop, error) {
	b = bytes.TrimPrefix(bytes.TrimSpace(b), []byte("\xef\xbb\xbf"))
	if len(b) == 0 {
		return nil, nil
	}
	if !json.Valid(b) {
		return nil, badJSON()
	}
	return splitObject(b)
}

func badJSON() *apiError {
	return fail(400, codePayload, "The request body is not valid JSON.")
}

// splitObject splits an object that is known to be valid JSON.
func splitObject(b []byte) ([]prop, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' {
		return nil, fail(400, codePayload, "A JSON object was expected in the request body.")
	}
	var out []prop
	i := skipSpace(b, 1)
	for b[i] != '}' {
		end := valueEnd(b, i)
		name := b[i+1 : end-1]
		var key string
		if bytes.IndexByte(name, '\\') < 0 {
			key = string(name)
		} else if json.Unmarshal(b[i:end], &key) != nil {
			return nil, badJSON()
		}
		i = skipSpace(b, skipSpace(b, end)+1) // past the colon
		end = valueEnd(b, i)
		out = append(out, prop{key, b[i:end]})
		i = skipSpace(b, end)
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	if len(out) > 1 {
		seen := make(map[string]bool, len(out))
		for _, p := range out {
			if seen[p.name] {
				return nil, fail(400, codePayload, "The property '%.80s' appears more than once.", p.name)
			}
			seen[p.name] = true
		}
	}
	return out, nil
}

// splitArray splits an array that is known to be valid JSON.
func splitArray(b []byte) ([]json.RawMessage, bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '[' {
		return nil, false
	}
	var out []json.RawMessage
	i := skipSpace(b, 1)
	for b[i] != ']' {
		end := valueEnd(b, i)
		out = append(out, b[i:end])
		i = skipSpace(b, end)
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
	return out, true
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// valueEnd returns the position after the JSON value that starts at i.
func valueEnd(b []byte, i int) int {
	depth := 0
	for {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			i++
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1
			}
		default:
			if depth == 0 {
				for i < len(b) && !bytes.ContainsRune([]byte(" \n\r\t,]}"), rune(b[i])) {
					i++
				}
				return i
			}
		}
		i++
	}
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

func textOf(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

func find(props []prop, name string) (json.RawMessage, bool) {
	for _, p := range props {
		if p.name == name {
			return p.raw, true
		}
	}
	return nil, false
}

// nested are the related rows of a deep insert, made after their parent.
type nested struct {
	nav  string
	rows []json.RawMessage
}

// apply writes the properties of a body into cells. changed collects the
// positions that were written.
func (c *call) apply(t *schema.Table, cells []store.Cell, props []prop, creating bool, changed map[uint16]bool) ([]nested, error) {
	var deep []nested
	for _, p := range props {
		if nav, ok := strings.CutSuffix(p.name, "@odata.bind"); ok {
			if err := c.bind(t, cells, nav, p.raw, creating, changed); err != nil {
				return nil, err
			}
			continue
		}
		if p.name == "@odata.type" {
			kind, _ := textOf(p.raw)
			if strings.TrimPrefix(kind, "#") != crm+t.Name {
				return nil, payload("'%s': the type '%.80s' does not fit.", t.Set, kind)
			}
			continue
		}
		if strings.Contains(p.name, "@") {
			continue // annotations carry no data
		}
		col := t.Column(p.name)
		if rel := t.Navigation(p.name); rel != nil {
			if isNull(p.raw) {
				if err := c.bind(t, cells, p.name, p.raw, creating, changed); err != nil {
					return nil, err
				}
				continue
			}
			if p.raw[0] == '{' {
				if err := c.insertParent(t, cells, rel, p.raw, changed); err != nil {
					return nil, err
				}
				continue
			}
			return nil, payload("'%s': '%s' is a navigation property; set it with %s@odata.bind.", t.Set, p.name, p.name)
		}
		if t.Collection(p.name) != nil || t.Many(p.name) != nil {
			rows, ok := splitArray(p.raw)
			if !ok || !creating {
				return nil, payload("'%s': the collection '%s' takes an array, on create only.", t.Set, p.name)
			}
			deep = append(deep, nested{p.name, rows})
			continue
		}
		if col == nil || col.Type.IsLookup() || col.AttributeOf != "" {
			return nil, payload("'%s', The property '%.80s' does not exist on type '%s%s'. Make sure to only use property names that are defined by the type.", t.Set, p.name, crm, t.Name)
		}
		if !writable(col, creating) {
			continue
		}
		v, err := coerce(t, col, p.raw)
		if err != nil {
			return nil, err
		}
		cells[col.Ord] = store.Cell{Value: v}
		changed[col.Ord] = true
	}
	return deep, nil
}

// writable reports whether a value sent for a column is kept. Values for columns
// that the platform maintains are dropped without an error, as the service does.
func writable(col *schema.Column, creating bool) bool {
	if col.Name == "createdon" || col.Ord == schema.VersionOrd {
		return false
	}
	if creating {
		return col.ForCreate
	}
	return col.ForUpdate
}

// bind sets a lookup through its navigation property.
func (c *call) bind(t *schema.Table, cells []store.Cell, nav string, raw json.RawMessage, creating bool, changed map[uint16]bool) error {
	rel := t.Navigation(nav)
	if rel == nil {
		return payload("'%s': An undeclared property '%.80s' which only has property annotations in the payload but no property value was found in the payload. "+
			"In OData, only declared navigation properties and declared named streams can be represented as properties without values.", t.Set, nav)
	}
	col := t.Column(rel.Column)
	if !writable(col, creating) {
		return nil
	}
	if isNull(raw) {
		cells[col.Ord] = store.Cell{}
		changed[col.Ord] = true
		return nil
	}
	text, ok := textOf(raw)
	if !ok {
		return payload("'%s': '%s@odata.bind' must be a string.", t.Set, nav)
	}
	tg, aerr := c.reference(text)
	if aerr != nil {
		return aerr
	}
	return c.point(t, cells, rel, tg.table, tg.id, changed)
}

// point points a lookup to an existing row.
func (c *call) point(t *schema.Table, cells []store.Cell, rel *schema.Relation, to *schema.Table, id value.ID, changed map[uint16]bool) error {
	col := t.Column(rel.Column)
	index := -1
	for i, name := range col.Targets {
		if name == to.Name && (rel.Referenced == to.Name || rel.Referenced == "owner") {
			index = i
		}
	}
	if index < 0 {
		return payload("'%s': the navigation property '%s' refers to %s, not to %s.", t.Set, rel.Nav, rel.Referenced, to.Name)
	}
	if c.view.Get(to.Name, id) == nil {
		return notFound(to.Name, id)
	}
	if col.Type != schema.Owner {
		if err := c.need("Append", t); err != nil {
			return err
		}
		if err := c.need("AppendTo", to); err != nil {
			return err
		}
	}
	cells[col.Ord] = store.Cell{Value: value.GUID(id), Target: uint8(index)}
	changed[col.Ord] = true
	return nil
}

// insertParent makes the row of a nested single-valued navigation property and
// points the lookup to it.
func (c *call) insertParent(t *schema.Table, cells []store.Cell, rel *schema.Relation, raw json.RawMessage, changed map[uint16]bool) error {
	parent := c.sch.Table(rel.Referenced)
	if parent == nil {
		return payload("'%s': '%s' cannot be created in place.", t.Set, rel.Nav)
	}
	props, err := splitObject(raw)
	if err != nil {
		return err
	}
	id, err := c.create(parent, props)
	if err != nil {
		return err
	}
	return c.point(t, cells, rel, parent, id, changed)
}
