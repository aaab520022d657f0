package dataverse

import (
	"net/url"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

const crm = "Microsoft.Dynamics.CRM."

// segment is one step of a resource path: a name and what stands in parentheses.
type segment struct {
	name   string
	inside string // decoded text between the parentheses
	parens bool
}

// message returns the name of a bound function or action, "" when the segment
// is not one.
func (s segment) message() string {
	name, ok := strings.CutPrefix(s.name, crm)
	if !ok {
		return ""
	}
	return name
}

// splitPath cuts an escaped path below the service root. Slashes inside of key
// predicates count as separators, as on the real service, which therefore finds
// no such key.
func splitPath(escaped string) ([]segment, *apiError) {
	var out []segment
	for part := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		text, err := url.PathUnescape(part)
		if err != nil {
			return nil, badRequest("The URL segment '%.60s' is not valid.", part)
		}
		seg := segment{name: text}
		if i := strings.IndexByte(text, '('); i >= 0 {
			if !strings.HasSuffix(text, ")") {
				return nil, badRequest("Unbalanced parentheses in the URL segment '%.60s'.", part)
			}
			seg = segment{name: text[:i], inside: text[i+1 : len(text)-1], parens: true}
		}
		out = append(out, seg)
	}
	return out, nil
}

// pair is one name=literal of a key predicate or parameter list.
type pair struct{ name, literal string }

// splitPairs reads "a='x',b=1"; a lone literal gives one pair without a name.
func splitPairs(s string) ([]pair, *apiError) {
	var out []pair
	for rest := s; rest != ""; {
		quoted := false
		end, eq := len(rest), -1
		for i := range len(rest) {
			c := rest[i]
			switch {
			case c == '\'':
				quoted = !quoted
			case quoted:
			case c == '=' && eq < 0:
				eq = i
			case c == ',':
				end = i
			}
			if end == i {
				break
			}
		}
		if quoted {
			return nil, badRequest("There is an unterminated string literal in '%.60s'.", s)
		}
		item := rest[:end]
		if eq >= 0 && eq < end {
			out = append(out, pair{strings.TrimSpace(item[:eq]), strings.TrimSpace(item[eq+1:])})
		} else {
			out = append(out, pair{"", strings.TrimSpace(item)})
		}
		if end == len(rest) {
			break
		}
		rest = rest[end+1:]
	}
	return out, nil
}

func unquote(literal string) (string, bool) {
	if len(literal) < 2 || literal[0] != '\'' || literal[len(literal)-1] != '\'' {
		return "", false
	}
	return strings.ReplaceAll(literal[1:len(literal)-1], "''", "'"), true
}

// target is a row addressed by a URL: by its id, or by an alternate key.
type target struct {
	table *schema.Table
	id    value.ID    // zero when addressed by an alternate key that matches nothing
	key   *schema.Key // nil when addressed by id
	names []string    // the columns of the key …
	cells []store.Cell
	text  string // the predicate as written, for the echo in OData-EntityId
}

// unusableInKeys are characters that the service does not find in key values,
// encoded or not.
const unusableInKeys = `/<>*%&:\?+`

// resolve reads a key predicate of a table and looks an alternate key up.
func (c *call) resolve(t *schema.Table, inside string) (*target, *apiError) {
	pairs, err := splitPairs(inside)
	if err != nil {
		return nil, err
	}
	if len(pairs) == 0 {
		return nil, badRequest("The key in the request URI is not valid for resource '%s'.", t.Set)
	}
	if len(pairs) == 1 && (pairs[0].name == "" || pairs[0].name == t.PrimaryID && t.Name != "systemuser" && t.Name != "team") {
		id, perr := value.ParseID(pairs[0].literal)
		if perr != nil {
			return nil, badRequest("The key in the request URI is not valid for resource '%s': '%.60s' is not a GUID.", t.Set, pairs[0].literal)
		}
		return &target{table: t, id: id, text: id.String()}, nil
	}
	tg := &target{table: t, text: inside}
	for _, p := range pairs {
		col := t.WireColumn(p.name)
		if col == nil {
			return nil, badRequest("The key property '%.60s' in the request URI does not exist on '%s'.", p.name, t.Set)
		}
		literal := p.literal
		switch {
		case col.Type.IsText():
			s, ok := unquote(literal)
			if !ok {
				return nil, badRequest("The key property '%s' needs a quoted string.", p.name)
			}
			if strings.ContainsAny(s, unusableInKeys) {
				return nil, badRequest("The value of the key property '%s' has a character that cannot be used in a key: one of %s.", p.name, unusableInKeys)
			}
			literal = s
		case strings.HasPrefix(literal, "'"):
			return nil, badRequest("The key property '%s' must not be quoted.", p.name)
		}
		v, perr := value.ParseText(literal, kindOf(col))
		if perr != nil {
			return nil, badRequest("The key property '%s' is not valid: %v.", p.name, perr)
		}
		tg.names = append(tg.names, col.Name)
		tg.cells = append(tg.cells, store.Cell{Value: v})
	}
	return tg, c.findByKey(tg)
}

// findByKey finds the row of an alternate key; the columns may come in any order.
func (c *call) findByKey(tg *target) *apiError {
	t := tg.table
	for _, k := range t.Keys {
		if len(k.Columns) != len(tg.names) {
			continue
		}
		values := make([]value.Value, len(k.Columns))
		matched := 0
		for i, name := range k.Columns {
			for j, given := range tg.names {
				if given == name {
					values[i] = tg.cells[j].Value
					matched++
				}
			}
		}
		if matched != len(k.Columns) {
			continue
		}
		tg.key = k
		if status := c.s.keyStatus(t.Name, k.Name); status != schema.KeyActive {
			return fail(400, codeKeyNotDefined, "The alternate key %s of %s is %s and cannot be used yet.", k.Name, t.Name, status)
		}
		rows := c.byKey(t, k, values, 2)
		if len(rows) > 1 {
			return fail(400, codeManyByKey, "More than one %s has this value of the key %s.", t.Name, k.Name)
		}
		if len(rows) == 1 {
			tg.id = rows[0].ID
		}
		return nil
	}
	return fail(400, codeKeyNotDefined, "The specified key attributes are not a defined key for the %s entity", t.Name)
}

// byKey returns at most limit rows that carry the values of an alternate key.
func (c *call) byKey(t *schema.Table, k *schema.Key, values []value.Value, limit int) []*store.Row {
	var out []*store.Row
	after := value.ID{}
	for {
		rows := c.view.Find(nil, t.Name, k.Name, store.Hash(values...), after, 64)
		for _, r := range rows {
			same := true
			for i, name := range k.Columns {
				same = same && value.Equal(r.Value(int(t.Column(name).Ord)), values[i])
			}
			if same {
				out = append(out, r)
			}
			after = r.ID
		}
		if len(rows) < 64 || len(out) >= limit {
			return out
		}
	}
}

// reference resolves the text of an @odata.bind or @odata.id: a path or URL of
// one row, or $n for a row of the same change set.
func (c *call) reference(text string) (*target, *apiError) {
	if strings.HasPrefix(text, "$") {
		id, rest, _ := strings.Cut(text[1:], "/")
		full, ok := c.refs[id]
		if !ok || rest != "" {
			return nil, badRequest("Content-ID Reference: '$%s' does not exist in the batch context.", id)
		}
		text = full
	}
	if u, err := url.Parse(text); err == nil && u.IsAbs() {
		i := strings.LastIndex(u.EscapedPath(), "/")
		text = u.EscapedPath()[i+1:]
	}
	text = strings.TrimPrefix(text, "/")
	if i := strings.LastIndexByte(text, '/'); i >= 0 && !strings.ContainsAny(text[:i], "('") {
		text = text[i+1:]
	}
	segs, err := splitPath(text)
	if err != nil {
		return nil, err
	}
	if len(segs) != 1 || !segs[0].parens {
		return nil, badRequest("'%.80s' is not the address of a record.", text)
	}
	t := c.sch.Set(segs[0].name)
	if t == nil {
		return nil, badRequest("Resource not found for the segment '%s'.", segs[0].name)
	}
	tg, err := c.resolve(t, segs[0].inside)
	if err != nil {
		return nil, err
	}
	if tg.id.IsZero() {
		return nil, keyNotFound(tg)
	}
	return tg, nil
}

func keyNotFound(tg *target) *apiError {
	return fail(404, codeKeyRecordNotFound, "A record with the specified key values does not exist in %s entity", tg.table.Name)
}
