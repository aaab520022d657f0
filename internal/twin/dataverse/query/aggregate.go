package query

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// group is one group key of an aggregate query.
type group struct {
	o    operand
	part string // date part, "" for the value itself
}

// aggregator is one computed value; at is its place among the outputs.
type aggregator struct {
	o        operand
	kind     string // count countcolumn sum avg min max
	distinct bool
}

type aliasOrder struct {
	output int
	desc   bool
}

// slot says where an output of an aggregate query comes from.
type slot struct {
	group bool
	index int
}

func (q *Query) groupBy(o operand, name, part string) error {
	kind := o.column.Kind
	switch part {
	case "":
	case "day", "week", "month", "quarter", "year":
		if kind != value.KindDateTime && kind != value.KindDate {
			return refuse(CodeInvalidQuery, "The date grouping '%s' is not valid for the column '%s'.", part, o.column.LogicalName)
		}
		kind = value.KindInt
	case "fiscal-period", "fiscal-year":
		return notEmulated("The date grouping '%s'", part)
	default:
		return refuse(CodeInvalidQuery, "Invalid XML: the date grouping '%.40s' is not known.", part)
	}
	q.plan.groups = append(q.plan.groups, group{o, part})
	q.plan.slots = append(q.plan.slots, slot{true, len(q.plan.groups) - 1})
	q.Outputs = append(q.Outputs, Output{Name: name, Kind: kind, Table: o.table, Column: o.column, source: len(q.Outputs)})
	if part != "" {
		out := &q.Outputs[len(q.Outputs)-1]
		out.Table, out.Aggregated = nil, true
	}
	return nil
}

func (q *Query) aggregate(o operand, name, kind string, distinct bool) error {
	c := o.column
	numeric := c.Kind == value.KindDecimal || c.Kind == value.KindDouble || c.Kind == value.KindInt && !c.Option
	out := Output{Name: name, Kind: c.Kind, Table: o.table, Column: c, Aggregated: true, source: len(q.Outputs)}
	valid := true
	switch kind {
	case "count", "countcolumn":
		out.Kind, out.Table = value.KindInt, nil
	case "sum", "avg":
		valid = numeric
	case "min", "max":
		valid = numeric || c.Kind == value.KindDateTime || c.Kind == value.KindDate
	default:
		return refuse(CodeInvalidArgument, "Invalid value '%.40s' for an aggregate.", kind)
	}
	if !valid {
		return refuse(CodeInvalidArgument, "The aggregate '%s' is not valid for the column '%s'.", kind, c.LogicalName)
	}
	if distinct && kind != "countcolumn" {
		return refuse(CodeInvalidArgument, "distinct is only valid with the aggregate 'countcolumn'.")
	}
	q.plan.aggregators = append(q.plan.aggregators, aggregator{o, kind, distinct})
	q.plan.slots = append(q.plan.slots, slot{false, len(q.plan.aggregators) - 1})
	q.Outputs = append(q.Outputs, out)
	return nil
}

// datePart returns the number that a date is grouped by. Weeks count from the
// one with 1 January.
func datePart(v value.Value, part string, weekStart time.Weekday) value.Value {
	if v.IsNull() || part == "" {
		return v
	}
	t := v.Time()
	n := 0
	switch part {
	case "day":
		n = t.Day()
	case "week":
		first := year(t)
		lead := (int(first.Weekday()) - int(weekStart) + 7) % 7
		n = (t.YearDay()-1+lead)/7 + 1
	case "month":
		n = int(t.Month())
	case "quarter":
		n = (int(t.Month())-1)/3 + 1
	case "year":
		n = t.Year()
	}
	return value.Int(int64(n))
}

// bucket collects one group.
type bucket struct {
	keys   []value.Value
	values []value.Value          // running sum, minimum or maximum
	counts []int64                // rows or non-null values
	seen   []map[value.Value]bool // for distinct counts
}

// runAggregate groups and computes over at most MaxAggregateRows rows.
func (q *Query) runAggregate(x *exec, opt Options) (*Result, error) {
	p := &q.plan
	limit := MaxAggregateRows
	if p.aggregateLimit > 0 {
		limit = p.aggregateLimit
	}
	buckets := map[string]*bucket{}
	var order []*bucket
	newBucket := func(keys []value.Value) *bucket {
		n := len(p.aggregators)
		b := &bucket{keys: keys, values: make([]value.Value, n), counts: make([]int64, n), seen: make([]map[value.Value]bool, n)}
		order = append(order, b)
		return b
	}
	if len(p.groups) == 0 {
		buckets[""] = newBucket(nil)
	}
	rows, exceeded := 0, false
	scratch := make([]value.Value, len(p.groups))
	var text []byte
	x.each(q, opt, nil, func(tuple []Row) bool {
		if rows++; rows > limit {
			exceeded = true
			return false
		}
		text = text[:0]
		for i := range p.groups {
			g := &p.groups[i]
			scratch[i] = datePart(g.o.value(x, tuple), g.part, opt.Env.WeekStart)
			text = append(hashable(scratch[i]).AppendJSON(text), 0)
		}
		b := buckets[string(text)]
		if b == nil {
			b = newBucket(slices.Clone(scratch))
			buckets[string(text)] = b
		}
		for i := range p.aggregators {
			b.add(i, &p.aggregators[i], x, tuple)
		}
		return true
	})
	if exceeded {
		return nil, &Error{http.StatusBadRequest, CodeAggregateLimit, "The maximum record limit is exceeded. Reduce the number of records."}
	}
	slices.SortFunc(order, func(a, b *bucket) int {
		for _, o := range p.aliasOrder {
			c := value.Compare(q.slotValue(a, o.output), q.slotValue(b, o.output))
			if o.desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return compareValues(a.keys, b.keys)
	})
	size, capped := q.pageSize(opt)
	skip := q.skip(opt, size)
	res := &Result{q: q}
	if skip < len(order) {
		order = order[skip:]
		if len(order) > size {
			order, res.more = order[:size], !capped
		}
		for _, b := range order {
			values := make([]value.Value, len(q.Outputs))
			for i := range values {
				values[i] = q.slotValue(b, i)
			}
			res.values = append(res.values, values)
		}
	}
	res.n = len(res.values)
	return res, nil
}

func compareValues(a, b []value.Value) int {
	for i := range a {
		if c := value.Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

func (b *bucket) add(i int, a *aggregator, x *exec, tuple []Row) {
	if a.kind == "count" {
		b.counts[i]++
		return
	}
	v := a.o.value(x, tuple)
	if v.IsNull() {
		return
	}
	if a.distinct {
		if b.seen[i] == nil {
			b.seen[i] = map[value.Value]bool{}
		}
		k := hashable(v)
		if b.seen[i][k] {
			return
		}
		b.seen[i][k] = true
	}
	b.counts[i]++
	switch a.kind {
	case "sum", "avg":
		b.values[i] = value.Add(b.values[i], v)
	case "min":
		if b.values[i].IsNull() || value.Compare(v, b.values[i]) < 0 {
			b.values[i] = v
		}
	case "max":
		if b.values[i].IsNull() || value.Compare(v, b.values[i]) > 0 {
			b.values[i] = v
		}
	}
}

func (q *Query) slotValue(b *bucket, output int) value.Value {
	s := q.plan.slots[output]
	if s.group {
		return b.keys[s.index]
	}
	switch a := &q.plan.aggregators[s.index]; a.kind {
	case "count", "countcolumn":
		return value.Int(b.counts[s.index])
	case "avg":
		if b.counts[s.index] > 0 {
			return b.values[s.index].DivInt(b.counts[s.index])
		}
		return value.Value{}
	}
	v := b.values[s.index]
	if v.Kind() == value.KindDouble && math.IsInf(v.Float(), 0) {
		return value.Value{}
	}
	return v
}

// apply reads $apply: [filter(…)/]groupby((…)[,aggregate(…)]) or
// [filter(…)/]aggregate(…).
func (p *odata) apply(q *Query, text string) error {
	q.Aggregate = true
	q.plan.filter, q.plan.filtered = always(true), true
	steps, err := splitOutside(text, '/')
	if err != nil {
		return err
	}
	bad := func() error {
		return refuse(CodeODataQuery, "Syntax error in $apply '%.120s'.", text)
	}
	if inner, ok := callOf(steps[0], "filter"); ok {
		n, err := p.filter(q.Table, inner)
		if err != nil {
			return err
		}
		q.plan.filter = n
		steps = steps[1:]
	}
	if len(steps) != 1 {
		return bad()
	}
	if inner, ok := callOf(steps[0], "aggregate"); ok {
		return p.aggregates(q, inner)
	}
	inner, ok := callOf(steps[0], "groupby")
	if !ok {
		return bad()
	}
	parts, err := splitOutside(inner, ',')
	if err != nil {
		return err
	}
	if len(parts) > 2 {
		return bad()
	}
	keys, ok := callOf(parts[0], "")
	if !ok {
		return bad()
	}
	for key := range strings.SplitSeq(keys, ",") {
		key = strings.TrimSpace(key)
		o, err := p.path(q.Table, key)
		if err != nil {
			return err
		}
		name := key
		if len(o.steps) > 0 {
			name = o.table.LogicalName() + "_" + o.column.LogicalName
		}
		if err := q.groupBy(o, name, ""); err != nil {
			return err
		}
	}
	if len(parts) == 2 {
		inner, ok := callOf(parts[1], "aggregate")
		if !ok {
			return bad()
		}
		return p.aggregates(q, inner)
	}
	return nil
}

// callOf returns what is between the parentheses of name( … ).
func callOf(s, name string) (string, bool) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, name+"(")
	if !ok || !strings.HasSuffix(rest, ")") {
		return "", false
	}
	return rest[:len(rest)-1], true
}

func (p *odata) aggregates(q *Query, text string) error {
	for item := range strings.SplitSeq(text, ",") {
		words := strings.Fields(item)
		if len(words) == 3 && words[0] == "$count" && words[1] == "as" {
			if err := p.named(q, words[2]); err != nil {
				return err
			}
			if err := q.aggregate(operand{table: q.Table, column: q.Table.PrimaryID()}, words[2], "count", false); err != nil {
				return err
			}
			continue
		}
		if len(words) != 5 || words[1] != "with" || words[3] != "as" {
			return refuse(CodeODataQuery, "Syntax error in the aggregate '%.80s'.", item)
		}
		if err := p.named(q, words[4]); err != nil {
			return err
		}
		o, err := p.path(q.Table, words[0])
		if err != nil {
			return err
		}
		kind, distinct := words[2], false
		switch kind {
		case "average":
			kind = "avg"
		case "countdistinct":
			kind, distinct = "countcolumn", true
		case "sum", "min", "max":
		default:
			return refuse(CodeODataQuery, "The aggregation method '%.40s' is not known.", kind)
		}
		if err := q.aggregate(o, words[4], kind, distinct); err != nil {
			return err
		}
	}
	return nil
}

func (p *odata) named(q *Query, alias string) error {
	if slices.ContainsFunc(q.Outputs, func(o Output) bool { return o.Name == alias }) {
		return refuse(CodeODataQuery, "The alias '%.80s' is used more than once.", alias)
	}
	return nil
}
