package webapi

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// layout says which properties of a row are wanted and where they go.
type layout struct {
	t      *table
	query  lockstep.RecordQuery
	cols   *pagescan.Columns
	sel    string // the $select list
	values []valueColumn
	joins  []join

	etag, key, context, deletedID                   int
	email, state, merged, master, created, modified int // -1 where the table has no such column
	optOut                                          [3]int
}

type valueColumn struct {
	cell   int
	kind   columnKind
	joined bool // cell is the lookup; the value comes from the record it names
}

// join is a lookup of which columns of the other table are wanted.
type join struct {
	lookup  string
	cell    int      // of the lookup's id
	columns []string // of the other table
	at      []int    // where they go in Record.Values
}

// layoutFor prepares to read the columns of q.
func (c *Client) layoutFor(ctx context.Context, q lockstep.RecordQuery) (*layout, error) {
	t, err := c.lookUpTable(ctx, q.Table, q.Columns...)
	if err != nil {
		return nil, err
	}
	l := &layout{t: t, query: q}
	var names, selected []string
	add := func(wire string) int {
		if i := slices.Index(names, wire); i >= 0 {
			return i
		}
		names, selected = append(names, wire), append(selected, wire)
		return len(names) - 1
	}
	l.key = add(t.id)
	base := func(name string) int {
		col, ok := t.columns[name]
		if !ok {
			return -1
		}
		return add(col.wire())
	}
	l.email, l.state, l.merged, l.master = base("emailaddress1"), base("statecode"), base("merged"), base("masterid")
	l.created, l.modified = base("createdon"), base("modifiedon")
	l.optOut = [3]int{base("donotemail"), base("donotbulkemail"), base("donotsendmm")}
	for i, name := range q.Columns {
		lookup, column := splitColumn(name)
		first := column
		if lookup != "" {
			first = lookup
		}
		col, ok := t.columns[first]
		if !ok || lookup != "" && col.kind != lookupColumn {
			return nil, &lockstep.Error{
				Code: lockstep.CodeInvalid, Op: "dynamics: read " + t.name, Field: name, Scope: lockstep.ScopeBatch,
				Msg: fmt.Sprintf("the table %s has no readable column %q", t.name, first), Hint: "read the tables again and correct the mapping",
			}
		}
		cell := add(col.wire())
		if lookup == "" {
			l.values = append(l.values, valueColumn{cell: cell, kind: col.kind})
			continue
		}
		l.values = append(l.values, valueColumn{cell: cell, joined: true})
		at := slices.IndexFunc(l.joins, func(j join) bool { return j.lookup == lookup })
		if at < 0 {
			l.joins = append(l.joins, join{lookup: lookup, cell: cell})
			at = len(l.joins) - 1
		}
		l.joins[at].columns = append(l.joins[at].columns, column)
		l.joins[at].at = append(l.joins[at].at, i)
	}
	l.sel = strings.Join(selected, ",")
	extra := func(name string) int { names = append(names, name); return len(names) - 1 }
	l.etag, l.context, l.deletedID = extra("@odata.etag"), extra("@odata.context"), extra("id")
	l.cols = pagescan.NewColumns(names...)
	return l, nil
}

// hash names the columns of the query inside a cursor: a feed that was begun with
// other columns cannot be continued.
func (l *layout) hash() string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.t.name + "?" + l.sel + "?" + strings.Join(l.query.Columns, ",")))
	return strconv.FormatUint(h.Sum64(), 36)
}

// page is one decoded page.
type page struct {
	records     []lockstep.Record
	next, delta string // links as they came
	lookups     [][]lockstep.ID
}

// decode reads the rows of a page. Record texts share the page's memory.
func (l *layout) decode(text, op string) (*page, error) {
	p := pagescan.New(text, "value", l.cols)
	cells := make([]pagescan.Cell, l.cols.Len())
	// A row is rarely shorter than 300 bytes.
	guess := min(max(len(text)/300, 1), pageSize)
	out := &page{records: make([]lockstep.Record, 0, guess), lookups: make([][]lockstep.ID, len(l.joins))}
	var slab []lockstep.Value
	for {
		ok, err := p.Next(cells)
		if err != nil {
			e := garbled(op)
			e.Err = err
			return nil, e
		}
		if !ok {
			break
		}
		if len(slab) < len(l.values) {
			slab = make([]lockstep.Value, min(guess, 1000)*len(l.values))
		}
		values := slab[:len(l.values):len(l.values)]
		slab = slab[len(l.values):]
		r, err := l.record(cells, values)
		if err != nil {
			e := garbled(op)
			e.Err = err
			return nil, e
		}
		for i, j := range l.joins {
			var id lockstep.ID
			if c := cells[j.cell]; c.Kind() == pagescan.String {
				if id, err = lockstep.ParseID(c.Text()); err != nil {
					return nil, garbled(op)
				}
			}
			out.lookups[i] = append(out.lookups[i], id)
		}
		out.records = append(out.records, r)
	}
	out.next, out.delta = p.Member("@odata.nextLink").Text(), p.Member("@odata.deltaLink").Text()
	return out, nil
}

func (l *layout) record(cells []pagescan.Cell, values []lockstep.Value) (r lockstep.Record, err error) {
	r.Table = l.t.name
	if c := cells[l.context]; c.Kind() == pagescan.String && strings.HasSuffix(c.Raw(), "/$deletedEntity") {
		r.Deleted = true
		r.ID, err = lockstep.ParseID(cells[l.deletedID].Text())
		return r, err
	}
	if r.ID, err = lockstep.ParseID(cells[l.key].Text()); err != nil {
		return r, err
	}
	r.Version = etagVersion(cells[l.etag].Raw())
	cell := func(i int) pagescan.Cell {
		if i < 0 {
			return pagescan.Cell{}
		}
		return cells[i]
	}
	if c := cell(l.email); c.Kind() == pagescan.String {
		r.Email = c.Text()
	}
	if c := cell(l.state); c.Kind() == pagescan.Number {
		r.Inactive = c.Raw() != "0"
	}
	if c := cell(l.master); c.Kind() == pagescan.String && (l.merged < 0 || cell(l.merged).Kind() == pagescan.True) {
		if r.MergedInto, err = lockstep.ParseID(c.Text()); err != nil {
			return r, err
		}
	}
	for i, flag := range [...]lockstep.OptOut{lockstep.DoNotEmail, lockstep.DoNotBulkEmail, lockstep.DoNotMaterial} {
		if cell(l.optOut[i]).Kind() == pagescan.True {
			r.OptOut |= flag
		}
	}
	if r.Created, err = instant(cell(l.created)); err != nil {
		return r, err
	}
	if r.Modified, err = instant(cell(l.modified)); err != nil {
		return r, err
	}
	r.Values = values
	for i, v := range l.values {
		if v.joined {
			// Nothing there is a known empty value; a record that cannot be
			// read stays absent.
			if values[i] = (lockstep.Value{}); cells[v.cell].Kind() == pagescan.Null {
				values[i] = lockstep.NullValue()
			}
			continue
		}
		if values[i], err = toValue(cells[v.cell], v.kind); err != nil {
			return r, err
		}
	}
	return r, nil
}

// etagVersion reads the number in W/\"12345\"; 0 when there is none.
func etagVersion(raw string) (n int64) {
	for i := range len(raw) {
		if c := raw[i]; c >= '0' && c <= '9' {
			if n > (1<<63-10)/10 {
				return 0
			}
			n = n*10 + int64(c-'0')
		} else if n > 0 {
			return n
		}
	}
	return n
}

func instant(c pagescan.Cell) (time.Time, error) {
	if c.Kind() != pagescan.String {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339, c.Text())
}

// errKind reports a value that is not of its column's type; it holds no value.
type errKind struct{ got pagescan.Kind }

func (e errKind) Error() string {
	return "a value of another type than its column's: " + e.got.String()
}

// toValue converts a cell to the canonical value of its column.
func toValue(c pagescan.Cell, kind columnKind) (lockstep.Value, error) {
	switch c.Kind() {
	case pagescan.Absent:
		return lockstep.Value{}, nil
	case pagescan.Null:
		return lockstep.NullValue(), nil
	case pagescan.True, pagescan.False:
		if kind == boolColumn {
			return lockstep.BoolValue(c.Kind() == pagescan.True), nil
		}
	case pagescan.Number:
		if kind == numberColumn {
			if v, ok := lockstep.ParseNumber(c.Raw()); ok {
				return v, nil
			}
		}
	case pagescan.String:
		s := c.Text()
		switch kind {
		case textColumn:
			return lockstep.TextValue(s), nil
		case lookupColumn, idColumn:
			if id, err := lockstep.ParseID(s); err == nil {
				if t := id.String(); t != s {
					s = t
				}
				return lockstep.TextValue(s), nil
			}
		case timeColumn:
			if len(s) == len(time.DateOnly) {
				if v, ok := lockstep.ParseDate(s); ok {
					return v, nil
				}
			} else if v, ok := lockstep.ParseTime(s); ok {
				return v, nil
			}
		case choicesColumn:
			if v, ok := choices(s); ok {
				return v, nil
			}
		}
	}
	return lockstep.Value{}, errKind{c.Kind()}
}

// choices sorts the option numbers of a multi-select column.
func choices(s string) (lockstep.Value, bool) {
	if s == "" {
		return lockstep.NullValue(), true
	}
	var numbers []int64
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(f), 10, 64)
		if err != nil {
			return lockstep.Value{}, false
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	var b strings.Builder
	for i, n := range slices.Compact(numbers) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(n, 10))
	}
	return lockstep.CanonicalValue(lockstep.Choices, b.String()), true
}
