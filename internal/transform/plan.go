package transform

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Options are the settings of an account that shape values.
type Options struct {
	// Separator joins several columns or several choices in one text; empty = ", ".
	Separator string
	// MaxText is the most characters that a text field of the platform holds; 0 =
	// no limit.
	MaxText int
	// Related finds a column one lookup away; nil when there are none.
	Related func(lookup, column string) (*lockstep.Column, bool)
}

// Related returns the finder of columns one lookup away among the tables whose
// metadata was read.
func Related(t *lockstep.Table, tables []lockstep.Table) func(lookup, column string) (*lockstep.Column, bool) {
	return func(lookup, column string) (*lockstep.Column, bool) {
		l, ok := t.Column(lookup)
		if !ok || l.Type != lockstep.ColumnLookup {
			return nil, false
		}
		for _, target := range l.Targets {
			for i := range tables {
				if tables[i].Name != target {
					continue
				}
				if c, ok := tables[i].Column(column); ok {
					return c, true
				}
			}
		}
		return nil, false
	}
}

// Unread are the tables that a lookup of t leads to and whose metadata is not among
// tables.
func Unread(t *lockstep.Table, tables []lockstep.Table, lookup string) []string {
	col, ok := t.Column(lookup)
	if !ok || col.Type != lockstep.ColumnLookup {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(col.Targets), func(name string) bool {
		return slices.ContainsFunc(tables, func(t lockstep.Table) bool { return t.Name == name })
	})
}

// Problem is a mapping that cannot be used. The others go on without it.
type Problem struct {
	Mapping lockstep.DataMapping
	Err     *lockstep.Error
}

// Field is one label of a plan.
type Field struct {
	Label string
	Type  lockstep.FieldType
	// Out and In are the label's mappings in each direction, nil where there is none.
	Out, In *lockstep.DataMapping
	// OutDefault and InDefault are the mappings' defaults in label form; Absent
	// where there is none.
	OutDefault, InDefault lockstep.Value
	// Required tells that the CRM column of In cannot be empty.
	Required bool

	remade  int
	sources []source // of the label's value in the CRM
	names   []string // of the source columns
	limit   int      // characters of a text going out; 0 = none
	cut     bool     // what is too long going out
	sep     string
}

// Column returns the CRM column that the label is written to; empty when it is
// only sent to the platform.
func (f *Field) Column() string {
	if f.In == nil {
		return ""
	}
	return f.In.Column
}

// Report receives a problem with one value of one record: the label, a finding
// code, what is wrong and what to do. The texts hold no values.
type Report func(label, code, msg, hint string)

// Plan converts between the columns of one table and the labels of one account.
// It does not change and may be used by several goroutines.
type Plan struct {
	table   string
	columns []string
	labels  []string
	fields  []Field
	version uint64
	sep     string
}

// Compile checks the mappings of a table and makes the plan that carries them
// out. Mappings of other tables and suspended ones are passed over. A mapping
// that breaks a rule becomes a problem and is left out: one label is mapped once
// in each direction, its two directions name the same column of the table itself,
// one column takes values from one label, and several columns, separated by
// commas in the mapping, are joined only into a text label.
func Compile(table *lockstep.Table, labels []lockstep.DataLabel, mappings []lockstep.DataMapping, opts Options) (*Plan, []Problem) {
	if opts.Separator == "" {
		opts.Separator = ", "
	}
	c := compiler{table: table, opts: opts, labels: map[string]*lockstep.DataLabel{}, fields: map[string]*Field{}, writes: map[string]string{}}
	for i := range labels {
		c.labels[labels[i].Name] = &labels[i]
	}
	var problems []Problem
	for _, m := range mappings {
		if m.Table != table.Name || m.Disabled != "" {
			continue
		}
		if err := c.add(m); err != nil {
			problems = append(problems, Problem{Mapping: m, Err: lockstep.AsError(err)})
		}
	}
	return c.plan(), problems
}

type compiler struct {
	table  *lockstep.Table
	opts   Options
	labels map[string]*lockstep.DataLabel
	fields map[string]*Field
	writes map[string]string // column to the label that writes it
}

func (c *compiler) add(m lockstep.DataMapping) error {
	label, ok := c.labels[m.Label]
	if !ok {
		return refuse("label", fmt.Sprintf("data label %.40q does not exist", m.Label), "create it or choose another one")
	}
	names := strings.Split(m.Column, ",")
	if len(names) > 1 {
		if m.Direction == lockstep.ToCRM {
			return refuse("column", fmt.Sprintf("data label %s cannot flow into several columns", label.Name), "map it to one column")
		}
		if label.Type != lockstep.FieldText {
			return refuse("column", fmt.Sprintf("several columns can only be joined into a label of type text; %s is of type %s", label.Name, label.Type), "map one column, or use a text label")
		}
	}
	var sources []source
	var first *lockstep.Column
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		col, hop, err := c.column(names[i], label.Name)
		if err != nil {
			return err
		}
		if err := CheckMapping(*label, *col, m.Direction, hop); err != nil {
			return err
		}
		if first == nil {
			first = col
		}
		sources = append(sources, newSource(col, label.Type, m.AsNumber, c.opts.Separator))
	}
	f := c.fields[label.Name]
	fresh := f == nil
	if fresh {
		f = &Field{Label: label.Name, Type: label.Type, remade: label.Remade, sources: sources, names: names, sep: c.opts.Separator}
	} else if !slices.Equal(f.names, names) {
		if f.Out != nil && m.Direction == lockstep.ToPlatform || f.In != nil && m.Direction == lockstep.ToCRM {
			return duplicate(label.Name, c.table.Name)
		}
		return refuse("column", fmt.Sprintf("the two directions of data label %s name different columns", label.Name), "choose the same column for both directions")
	}
	switch m.Direction {
	case lockstep.ToPlatform:
		if f.Out != nil {
			return duplicate(label.Name, c.table.Name)
		}
		next := *f
		next.Out, next.sources = &m, sources // its own way of writing options counts
		if label.Type == lockstep.FieldText {
			next.limit, next.cut = c.opts.MaxText, m.Truncate
		}
		var err error
		if next.OutDefault, err = next.parseDefault(m); err != nil {
			return err
		}
		*f = next
	case lockstep.ToCRM:
		if f.In != nil {
			return duplicate(label.Name, c.table.Name)
		}
		if by, taken := c.writes[names[0]]; taken {
			return refuse("column", fmt.Sprintf("column %s takes its value from data label %s already", names[0], by), "choose another column")
		}
		next := *f
		next.In, next.Required = &m, first.Required
		var err error
		if next.InDefault, err = next.parseDefault(m); err != nil {
			return err
		}
		*f = next
		c.writes[names[0]] = label.Name
	}
	if fresh {
		c.fields[label.Name] = f
	}
	return nil
}

func duplicate(label, table string) error {
	return &lockstep.Error{
		Code: lockstep.CodeConflict, Op: "check mapping", Field: "label",
		Msg: fmt.Sprintf("data label %s is mapped for %s in this direction already", label, table), Hint: "change the existing mapping instead",
	}
}

// column finds a column of the table, or one lookup away: "lookup.column".
func (c *compiler) column(name, label string) (col *lockstep.Column, hop bool, err error) {
	lookup, far, hop := strings.Cut(name, ".")
	switch {
	case !hop:
		col, _ = c.table.Column(name)
	case strings.Contains(far, "."):
		return nil, true, refuse("column", fmt.Sprintf("column %.100q of data label %s is more than one lookup away", name, label), "choose a column of the table or of a record it looks up")
	case c.opts.Related != nil:
		if col, hop = c.opts.Related(lookup, far); !hop {
			col = nil
		}
		hop = true
	}
	if col == nil {
		return nil, hop, &lockstep.Error{
			Code: lockstep.CodeNotFound, Op: "check mapping", Field: "column",
			Msg:  fmt.Sprintf("column %.100q of table %s, mapped to data label %s, does not exist in the CRM any more", name, c.table.Name, label),
			Hint: "choose another column, or refresh the CRM metadata if it is new",
		}
	}
	return col, hop, nil
}

func (f *Field) parseDefault(m lockstep.DataMapping) (lockstep.Value, error) {
	if m.Empty != lockstep.EmptyDefault {
		return lockstep.Value{}, nil
	}
	v, ok := coerce(f.Type, lockstep.TextValue(m.Default))
	if !ok || v.IsNull() {
		return v, refuse("default", fmt.Sprintf("the default for data label %s is not of type %s", f.Label, f.Type), "give a value of that type, or choose clear or keep for empty values")
	}
	var flt *fault
	if m.Direction == lockstep.ToCRM {
		v, flt = f.settle(v, m.Truncate)
	} else {
		v, flt = f.fit(v)
	}
	if flt != nil {
		return v, refuse("default", fmt.Sprintf("the default for data label %s cannot be used: %s", f.Label, flt.msg), flt.hint)
	}
	return v, nil
}

func (c *compiler) plan() *Plan {
	p := &Plan{table: c.table.Name, sep: c.opts.Separator}
	for _, f := range c.fields {
		p.fields = append(p.fields, *f)
	}
	slices.SortFunc(p.fields, func(a, b Field) int { return cmp.Compare(a.Label, b.Label) })
	for i := range p.fields {
		f := &p.fields[i]
		p.labels = append(p.labels, f.Label)
		f.sources = slices.Clone(f.sources)
		for j, name := range f.names {
			at := slices.Index(p.columns, name)
			if at < 0 {
				at = len(p.columns)
				p.columns = append(p.columns, name)
			}
			f.sources[j].at = at
		}
	}
	p.version = p.fingerprint(c.opts)
	return p
}

// Columns returns the CRM columns to read, in the order that Out expects.
func (p *Plan) Columns() []string { return p.columns }

// Labels returns the names of the labels, in ascending order: the order of all
// label values.
func (p *Plan) Labels() []string { return p.labels }

// Fields returns the labels with their mappings, in the order of Labels. It must
// not be changed.
func (p *Plan) Fields() []Field { return p.fields }

// Version is a hash of everything that decides what a record's values become:
// when it differs, every record has to be compared again. It is the same in every
// process.
func (p *Plan) Version() uint64 { return p.version }

func (p *Plan) fingerprint(opts Options) uint64 {
	buf := []byte{1} // of the rules of this package; raise it when a conversion changes
	text := func(s ...string) {
		for _, s := range s {
			buf = appendText(buf, s)
		}
	}
	flag := func(on bool) {
		buf = append(buf, 0)
		if on {
			buf[len(buf)-1] = 1
		}
	}
	text(p.table, opts.Separator)
	buf = binary.AppendVarint(buf, int64(opts.MaxText))
	for i := range p.fields {
		f := &p.fields[i]
		text(f.Label, string(f.Type))
		if f.remade > 0 {
			text("remade", strconv.Itoa(f.remade))
		}
		for _, m := range []*lockstep.DataMapping{f.Out, f.In} {
			flag(m != nil)
			if m != nil {
				text(m.Column, string(m.Empty), m.Default)
				flag(m.Truncate)
				flag(m.AsNumber)
			}
		}
		for j := range f.sources {
			col := f.sources[j].col
			text(string(col.Type), col.Min, col.Max)
			buf = binary.AppendVarint(buf, int64(col.MaxLength))
			buf = binary.AppendVarint(buf, int64(col.Precision))
			flag(col.Required)
			buf = binary.AppendVarint(buf, int64(len(col.Options)))
			options := slices.Clone(col.Options)
			slices.SortFunc(options, func(a, b lockstep.Option) int { return cmp.Compare(a.Value, b.Value) })
			for _, o := range options {
				buf = binary.AppendVarint(buf, o.Value)
				text(o.Label)
			}
		}
	}
	sum := sha256.Sum256(buf)
	return binary.LittleEndian.Uint64(sum[:8])
}

// Out appends a record's values in label form to dst, one for each label, the
// ones that only flow into the CRM included: the merge needs both sides. A value
// that cannot be converted is reported and Absent, so that nothing is written for
// it. A record that was read with other columns than Columns is a mistake of the
// caller; missing values are Absent.
func (p *Plan) Out(rec *lockstep.Record, dst []lockstep.Value, report Report) []lockstep.Value {
	for i := range p.fields {
		f := &p.fields[i]
		v, flt := f.read(rec.Values)
		if flt != nil {
			if report != nil {
				report(f.Label, flt.code, flt.msg, flt.hint)
			}
			v = lockstep.Value{}
		}
		dst = append(dst, v)
	}
	return dst
}

// Platform returns the label form of a value that the platform has for label i:
// of the label's type, and only as exact as the CRM column can keep it when the
// label flows there, so that a value is equal to itself after a round trip. A
// value that the column cannot take is reported and Absent: then neither side is
// written.
func (p *Plan) Platform(i int, v lockstep.Value, report Report) lockstep.Value {
	f := &p.fields[i]
	v, ok := coerce(f.Type, v)
	var flt *fault
	if !ok {
		flt = conversion("the platform's value is not of type "+string(f.Type), "correct the value on the platform")
	} else if f.In != nil {
		v, flt = f.settle(v, f.In.Truncate)
	}
	if flt != nil {
		if report != nil {
			report(f.Label, flt.code, flt.msg, flt.hint)
		}
		return lockstep.Value{}
	}
	return v
}

// In turns a value of label i into one for its CRM column. ok is false when
// nothing must be written: the label does not flow into the CRM, the value is
// Absent, or it does not fit and was reported.
func (p *Plan) In(i int, v lockstep.Value, report Report) (col lockstep.Value, ok bool) {
	f := &p.fields[i]
	if f.In == nil || v.IsAbsent() {
		return lockstep.Value{}, false
	}
	var flt *fault
	if v, ok = coerce(f.Type, v); !ok {
		flt = conversion("the value is not of type "+string(f.Type), "correct the value on the platform")
	} else {
		col, flt = f.sources[0].column(v, f.In.Truncate)
	}
	if flt != nil {
		if report != nil {
			report(f.Label, flt.code, flt.msg, flt.hint)
		}
		return lockstep.Value{}, false
	}
	return col, true
}
