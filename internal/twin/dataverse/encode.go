package dataverse

import (
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// projection writes rows of one table as JSON straight from their encoding: one
// walk over a row's fields, no value made in between.
type projection struct {
	c     *call
	t     *schema.Table
	cols  []outColumn
	slot  []int16 // by column position: index into cols, -1 when not wanted
	found []store.Span
	last  int // highest wanted position

	omitNull  bool
	annotates bool // one of the three below
	formatted bool
	nav       bool
	lookup    bool
	names     map[value.ID]string // primary names of lookup targets
	dates     dates
}

type outColumn struct {
	col *schema.Column
	key []byte // `,"name":`
	ord int
}

func (c *call) projection(t *schema.Table, columns []*schema.Column) *projection {
	p := &projection{
		c: c, t: t, slot: make([]int16, t.Width()),
		formatted: c.prefer.wants(annFormatted), nav: c.prefer.wants(annNav), lookup: c.prefer.wants(annLookup),
	}
	p.annotates = p.formatted || p.nav || p.lookup
	for i := range p.slot {
		p.slot[i] = -1
	}
	add := func(col *schema.Column) {
		if col == nil || p.slot[col.Ord] >= 0 {
			return
		}
		p.slot[col.Ord] = int16(len(p.cols))
		p.last = max(p.last, int(col.Ord))
		p.cols = append(p.cols, outColumn{col: col, key: []byte(`,"` + col.Wire() + `":`), ord: int(col.Ord)})
	}
	money := false
	for _, col := range columns {
		add(col)
		money = money || col.Type == schema.Money
	}
	if money {
		add(t.Column("transactioncurrencyid"))
	}
	p.found = make([]store.Span, len(p.cols))
	return p
}

// columnsOf translates the outputs of a query over a table.
func columnsOf(t *schema.Table, outputs []query.Output) []*schema.Column {
	cols := make([]*schema.Column, 0, len(outputs)+1)
	for i := range outputs {
		if col := t.Column(outputs[i].Column.LogicalName); col != nil {
			cols = append(cols, col)
		}
	}
	return cols
}

// appendRow writes a row as an object without its closing brace. The entity tag
// comes first, so that every property follows a comma.
func (p *projection) appendRow(dst []byte, row *store.Row) []byte {
	dst = append(dst, `{"@odata.etag":"W/\"`...)
	dst = strconv.AppendInt(dst, row.Version, 10)
	dst = append(dst, `\""`...)
	clear(p.found)
	row.Locate(p.slot, p.last, p.found)
	for i := range p.cols {
		col := &p.cols[i]
		switch col.ord {
		case schema.IDOrd:
			dst = append(append(dst, col.key...), '"')
			dst = append(row.ID.Append(dst), '"')
			continue
		case schema.VersionOrd:
			dst = append(dst, col.key...)
			dst = strconv.AppendInt(dst, row.Version, 10)
			continue
		}
		place := p.found[i]
		if place.Kind == value.KindNull {
			if !p.omitNull {
				dst = append(append(dst, col.key...), "null"...)
			}
			continue
		}
		if p.annotates {
			dst = p.annotate(dst, col.col, col.col.Wire(), row.Field(place), row)
		}
		dst = append(dst, col.key...)
		switch place.Kind {
		case value.KindText:
			dst = value.AppendString(dst, row.Text(place))
		case value.KindDateTime:
			dst = p.dates.appendTime(dst, row.Number(place))
		case value.KindDate:
			dst = append(p.dates.appendDay(append(dst, '"'), row.Number(place)), '"')
		case value.KindInt:
			dst = strconv.AppendInt(dst, row.Number(place), 10)
		case value.KindBool:
			dst = strconv.AppendBool(dst, row.Number(place) != 0)
		case value.KindDecimal:
			dst = append(dst, row.Text(place)...)
		case value.KindMultiSelect:
			dst = append(append(append(dst, '"'), row.Text(place)...), '"')
		default:
			dst = row.Field(place).Value().AppendJSON(dst)
		}
	}
	return dst
}

func (p *projection) comma(dst []byte) []byte {
	if dst[len(dst)-1] == '{' {
		return dst
	}
	return append(dst, ',')
}

// annotate writes the annotations of one property, before the property.
func (p *projection) annotate(dst []byte, col *schema.Column, name string, f store.Field, row *store.Row) []byte {
	put := func(annotation, text string) {
		dst = p.comma(dst)
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, '@')
		dst = append(dst, annotation...)
		dst = append(dst, `":`...)
		dst = value.AppendString(dst, text)
	}
	if p.formatted {
		if text, ok := p.format(col, f, row); ok {
			put(annFormatted, text)
		}
	}
	if col.Type.IsLookup() {
		target := ""
		if int(f.Target) < len(col.Targets) {
			target = col.Targets[f.Target]
		}
		if p.nav {
			if nav := p.t.NavFor(col.Name, target); nav != "" {
				put(annNav, nav)
			}
		}
		if p.lookup {
			put(annLookup, target)
		}
	}
	return dst
}

// format is the text that a form would show for a value. Texts and identifiers
// have none.
func (p *projection) format(col *schema.Column, f store.Field, row *store.Row) (string, bool) {
	switch col.Type {
	case schema.Picklist, schema.State, schema.Status:
		o, ok := col.Option(int32(f.Int))
		return o.Label, ok
	case schema.Boolean:
		if f.Int != 0 {
			return col.TrueLabel, true
		}
		return col.FalseLabel, true
	case schema.MultiSelect:
		var names []string
		for _, n := range f.Value().Options() {
			if o, ok := col.Option(int32(n)); ok {
				names = append(names, o.Label)
			}
		}
		return strings.Join(names, "; "), true
	case schema.Lookup, schema.Customer, schema.Owner:
		if int(f.Target) >= len(col.Targets) {
			return "", false
		}
		return p.nameOf(col.Targets[f.Target], f.ID())
	case schema.Money:
		v, err := f.Value().Rescale(2)
		if err != nil {
			return "", false
		}
		return p.symbol(col, row) + group(v.String()), true
	case schema.Integer, schema.BigInt:
		return group(strconv.FormatInt(f.Int, 10)), true
	case schema.Decimal, schema.Double:
		v, err := f.Value().Rescale(min(col.Precision, value.MaxScale))
		if err != nil {
			return "", false
		}
		return group(v.String()), true
	case schema.DateTime:
		t := f.Value().Time()
		if col.IsDate() || col.Format == "DateOnly" {
			return t.Format("1/2/2006"), true
		}
		return t.Format("1/2/2006 3:04 PM"), true
	}
	return "", false
}

func (p *projection) nameOf(table string, id value.ID) (string, bool) {
	if name, ok := p.names[id]; ok {
		return name, name != ""
	}
	name := ""
	if t := p.c.sch.Table(table); t != nil && t.PrimaryName != "" {
		if r := p.c.view.Get(table, id); r != nil {
			name = r.Value(int(t.Column(t.PrimaryName).Ord)).Text()
		}
	}
	if p.names == nil {
		p.names = map[value.ID]string{}
	}
	p.names[id] = name
	return name, name != ""
}

func (p *projection) symbol(col *schema.Column, row *store.Row) string {
	currency := p.c.s.org.currency
	if c := p.t.Column("transactioncurrencyid"); c != nil && row != nil && col.BaseOf == "" {
		if v := row.Value(int(c.Ord)); !v.IsNull() {
			currency = v.GUID()
		}
	}
	t := p.c.sch.Table("transactioncurrency")
	if r := p.c.view.Get("transactioncurrency", currency); r != nil {
		return r.Value(int(t.Column("currencysymbol").Ord)).Text()
	}
	return ""
}

// group puts commas between thousands.
func group(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, rest := s, ""
	if i := strings.IndexByte(s, '.'); i >= 0 {
		whole, rest = s[:i], s[i:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return sign + whole + rest
}

// dates writes dates and times. It remembers the last day written, because the
// rows of a page were often created or changed on the same one.
type dates struct {
	day  int64
	text []byte // of day; empty before the first
}

// appendDay writes the civil date of a day since 1970.
func (d *dates) appendDay(dst []byte, day int64) []byte {
	if day != d.day || len(d.text) == 0 {
		d.day, d.text = day, appendDate(d.text[:0], day)
	}
	return append(dst, d.text...)
}

// appendTime writes seconds since 1970 as a date and time in UTC, quoted.
func (d *dates) appendTime(dst []byte, seconds int64) []byte {
	day := floorDiv(seconds, 86400)
	s := seconds - day*86400
	h, m := s/3600, s/60%60
	s %= 60
	dst = d.appendDay(append(dst, '"'), day)
	return append(dst, 'T', byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10), 'Z', '"')
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func appendTwo(dst []byte, n int64) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendDate writes the civil date of a day since 1970 (proleptic Gregorian,
// counted in eras of 400 years).
func appendDate(dst []byte, days int64) []byte {
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	y := yoe + era*400
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d := doy - (153*mp+2)/5 + 1
	m := mp + 3
	if m > 12 {
		m -= 12
	}
	if m <= 2 {
		y++
	}
	if y < 0 || y > 9999 {
		return time.Unix(days*86400, 0).UTC().AppendFormat(dst, time.DateOnly)
	}
	dst = appendTwo(dst, y/100)
	dst = appendTwo(dst, y%100)
	dst = append(dst, '-')
	dst = appendTwo(dst, m)
	dst = append(dst, '-')
	return appendTwo(dst, d)
}

// appendOutput writes one property of a FetchXML or aggregate result, whose
// value does not come from the root row alone.
func (p *projection) appendOutput(dst []byte, o *query.Output, v value.Value) []byte {
	if v.IsNull() {
		if p.omitNull {
			return dst
		}
	} else if o.Table != nil && !o.Aggregated && p.annotates {
		if t := p.c.sch.Table(o.Table.LogicalName()); t != nil {
			if col := t.Column(o.Column.LogicalName); col != nil {
				dst = p.annotateValue(dst, t, col, o.Name, v)
			}
		}
	}
	dst = p.comma(dst)
	dst = value.AppendString(dst, o.Name)
	dst = append(dst, ':')
	return v.AppendJSON(dst)
}

// annotateValue annotates a value of any table; the target of a lookup with
// several possible tables is found by looking.
func (p *projection) annotateValue(dst []byte, t *schema.Table, col *schema.Column, name string, v value.Value) []byte {
	cells := make([]store.Cell, int(col.Ord)+1)
	cells[col.Ord].Value = v
	if col.Type.IsLookup() {
		for i, target := range col.Targets {
			if p.c.view.Get(target, v.GUID()) != nil {
				cells[col.Ord].Target = uint8(i)
				break
			}
		}
	}
	if col.Ord <= schema.VersionOrd {
		return dst
	}
	d := store.NewRow(value.ID{}, 0, cells).Fields()
	_, f, _ := d.Next()
	of := *p
	of.t = t
	dst = of.annotate(dst, col, name, f, nil)
	p.names = of.names
	return dst
}
