package transform

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	lockstep "github.com/lockstep-sync/lockstep"
)

// fault says why a value cannot be converted. It holds no value: values are
// personal data.
type fault struct{ code, msg, hint string }

func conversion(msg, hint string) *fault {
	return &fault{code: lockstep.FindingConversion, msg: msg, hint: hint}
}

// source converts between one column and one label type.
type source struct {
	at       int // place in the record's values
	col      *lockstep.Column
	to       lockstep.FieldType
	asNumber bool
	sep      string
	min, max string            // canonical numbers, empty = no limit
	label    map[string]string // option number to label
	number   map[string]string // option label to number; "" = several options have it
	folded   map[string]string // the same without regard to case and outer spaces
	yes, no  string
}

// The ranges of Dataverse's number types where the metadata states none, from its
// column type reference.
var numberRange = map[lockstep.ColumnType][2]string{
	lockstep.ColumnWhole:   {"-2147483648", "2147483647"},
	lockstep.ColumnBigInt:  {"-9223372036854775808", "9223372036854775807"},
	lockstep.ColumnDecimal: {"-100000000000", "100000000000"},
	lockstep.ColumnDouble:  {"-100000000000", "100000000000"},
	lockstep.ColumnMoney:   {"-922337203685477", "922337203685477"},
}

func newSource(col *lockstep.Column, to lockstep.FieldType, asNumber bool, sep string) source {
	s := source{col: col, to: to, asNumber: asNumber, sep: sep, yes: "Yes", no: "No"}
	limits := numberRange[col.Type]
	s.min, s.max = limits[0], limits[1]
	if v, ok := lockstep.ParseNumber(col.Min); ok {
		s.min = v.Text()
	}
	if v, ok := lockstep.ParseNumber(col.Max); ok {
		s.max = v.Text()
	}
	if len(col.Options) == 0 {
		return s
	}
	s.label, s.number, s.folded = map[string]string{}, map[string]string{}, map[string]string{}
	note := func(m map[string]string, label, number string) {
		if known, ok := m[label]; ok && known != number {
			number = ""
		}
		m[label] = number
	}
	for _, o := range col.Options {
		number := strconv.FormatInt(o.Value, 10)
		s.label[number] = o.Label
		note(s.number, o.Label, number)
		note(s.folded, fold(o.Label), number)
	}
	if col.Type == lockstep.ColumnBool {
		if l := s.label["1"]; l != "" {
			s.yes = l
		}
		if l := s.label["0"]; l != "" {
			s.no = l
		}
	}
	return s
}

func fold(label string) string { return strings.ToLower(strings.TrimSpace(label)) }

// read returns the label's value in the CRM.
func (f *Field) read(values []lockstep.Value) (lockstep.Value, *fault) {
	if len(f.sources) == 1 {
		s := &f.sources[0]
		if s.at >= len(values) {
			return lockstep.Value{}, nil
		}
		v, flt := s.toLabel(values[s.at])
		if flt != nil {
			return v, flt
		}
		return f.fit(v)
	}
	var parts []string
	for i := range f.sources {
		s := &f.sources[i]
		if s.at >= len(values) || values[s.at].IsAbsent() {
			return lockstep.Value{}, nil
		}
		v, flt := s.toLabel(values[s.at])
		if flt != nil {
			return v, flt
		}
		if !v.IsNull() {
			parts = append(parts, v.Text())
		}
	}
	return f.fit(lockstep.TextValue(strings.Join(parts, f.sep)))
}

// fit applies the platform's limit on texts to a value that goes out.
func (f *Field) fit(v lockstep.Value) (lockstep.Value, *fault) {
	if f.limit <= 0 || len(v.Text()) <= f.limit || v.Kind() != lockstep.Text {
		return v, nil
	}
	if utf8.RuneCountInString(v.Text()) <= f.limit {
		return v, nil
	}
	// Of an option's label, a part would not be found again on the way back.
	if whole := f.In != nil && f.sources[0].col.Type != lockstep.ColumnText; !f.cut || whole {
		return v, &fault{
			code: lockstep.FindingTooLong, msg: fmt.Sprintf("the text is longer than the %d characters of a field on the platform", f.limit),
			hint: "shorten it, or let the mapping cut texts that are too long",
		}
	}
	n := 0
	for i := range v.Text() {
		if n == f.limit {
			return lockstep.TextValue(v.Text()[:i]), nil
		}
		n++
	}
	return v, nil
}

// settle returns what a label value is after a round trip through the CRM column.
func (f *Field) settle(v lockstep.Value, cut bool) (lockstep.Value, *fault) {
	if v.IsAbsent() || v.IsNull() {
		return v, nil
	}
	s := &f.sources[0]
	col, flt := s.column(v, cut)
	if flt != nil {
		return v, flt
	}
	if v, flt = s.toLabel(col); flt != nil {
		return v, flt
	}
	return f.fit(v)
}

// toLabel turns a column's value into label form.
func (s *source) toLabel(v lockstep.Value) (lockstep.Value, *fault) {
	kind := v.Kind()
	if kind <= lockstep.Null {
		return v, nil
	}
	switch s.col.Type {
	case lockstep.ColumnOption, lockstep.ColumnState, lockstep.ColumnStatus:
		if s.to == lockstep.FieldText && kind == lockstep.Number {
			return s.optionText(v.Text())
		}
	case lockstep.ColumnMultiOption:
		return s.choicesText(v)
	case lockstep.ColumnBool:
		if s.to == lockstep.FieldText && kind == lockstep.Bool {
			if v.Bool() {
				return lockstep.TextValue(s.yes), nil
			}
			return lockstep.TextValue(s.no), nil
		}
	}
	label, ok := coerce(s.to, v)
	if !ok {
		return lockstep.Value{}, conversion(fmt.Sprintf("column %s holds a value that is not of type %s", s.col.Name, s.to), "refresh the CRM metadata; the column's type may have changed")
	}
	return label, nil
}

func (s *source) optionText(number string) (lockstep.Value, *fault) {
	if s.asNumber {
		return lockstep.TextValue(number), nil
	}
	label, ok := s.label[number]
	if !ok {
		return lockstep.Value{}, conversion(fmt.Sprintf("column %s holds option %.20s, which its list does not have", s.col.Name, number), "refresh the CRM metadata")
	}
	return lockstep.TextValue(label), nil
}

func (s *source) choicesText(v lockstep.Value) (lockstep.Value, *fault) {
	if v.Kind() == lockstep.Text {
		return v, nil
	}
	var b strings.Builder
	for number := range strings.SplitSeq(v.Text(), ",") {
		label, flt := s.optionText(number)
		if flt != nil {
			return lockstep.Value{}, flt
		}
		if b.Len() > 0 {
			b.WriteString(s.sep)
		}
		b.WriteString(label.Text())
	}
	return lockstep.TextValue(b.String()), nil
}

// coerce brings a value to the kind that labels of a type have: Text, Number,
// Bool or, for dates, DateTime, where a day is its midnight in UTC.
func coerce(to lockstep.FieldType, v lockstep.Value) (lockstep.Value, bool) {
	kind := v.Kind()
	if kind <= lockstep.Null {
		return v, true
	}
	switch to {
	case lockstep.FieldText:
		if kind == lockstep.Text {
			return v, true
		}
		return lockstep.TextValue(v.Text()), true
	case lockstep.FieldNumber:
		switch kind {
		case lockstep.Number:
			return v, true
		case lockstep.Text:
			return lockstep.ParseNumber(strings.TrimSpace(v.Text()))
		}
	case lockstep.FieldBool:
		if kind == lockstep.Bool {
			return v, true
		}
		if kind == lockstep.Text {
			switch fold(v.Text()) {
			case "true":
				return lockstep.BoolValue(true), true
			case "false":
				return lockstep.BoolValue(false), true
			}
		}
	case lockstep.FieldDate:
		switch kind {
		case lockstep.DateTime:
			return v, true
		case lockstep.Date:
			return lockstep.CanonicalValue(lockstep.DateTime, v.Text()+"T00:00:00Z"), true
		case lockstep.Text:
			text := strings.TrimSpace(v.Text())
			if day, ok := lockstep.ParseDate(text); ok {
				return coerce(to, day)
			}
			return lockstep.ParseTime(text)
		}
	}
	return lockstep.Value{}, false
}

// column turns a value in label form into one for the column. An empty value
// stays empty: no type has a stand-in for it.
func (s *source) column(v lockstep.Value, cut bool) (lockstep.Value, *fault) {
	if v.IsNull() {
		if s.col.Required {
			return v, conversion(fmt.Sprintf("column %s cannot be empty", s.col.Name), "set a value on the platform, or let the mapping keep the CRM's")
		}
		return v, nil
	}
	switch s.col.Type {
	case lockstep.ColumnText:
		return s.textColumn(v, cut)
	case lockstep.ColumnWhole, lockstep.ColumnBigInt, lockstep.ColumnDecimal, lockstep.ColumnDouble, lockstep.ColumnMoney:
		return s.numberColumn(v)
	case lockstep.ColumnBool:
		return v, nil
	case lockstep.ColumnDateTime, lockstep.ColumnDate:
		return s.dateColumn(v)
	case lockstep.ColumnOption, lockstep.ColumnState, lockstep.ColumnStatus:
		return s.optionColumn(v)
	}
	return lockstep.Value{}, conversion(fmt.Sprintf("column %s cannot be written", s.col.Name), "map it to the platform only")
}

// textColumn counts as Dataverse does: a character beyond the basic plane, such
// as an emoji, takes two places.
func (s *source) textColumn(v lockstep.Value, cut bool) (lockstep.Value, *fault) {
	text, limit := v.Text(), s.col.MaxLength
	if limit <= 0 || len(text) <= limit {
		return v, nil
	}
	units := 0
	for i, r := range text {
		units++
		if r > 0xFFFF {
			units++
		}
		if units <= limit {
			continue
		}
		if cut {
			return lockstep.TextValue(text[:i]), nil
		}
		return v, &fault{
			code: lockstep.FindingTooLong, msg: fmt.Sprintf("the text is longer than the %d characters of column %s", limit, s.col.Name),
			hint: "shorten it on the platform, lengthen the column, or let the mapping cut texts that are too long",
		}
	}
	return v, nil
}

func (s *source) numberColumn(v lockstep.Value) (lockstep.Value, *fault) {
	text := v.Text()
	whole := s.col.Type == lockstep.ColumnWhole || s.col.Type == lockstep.ColumnBigInt
	decimals := 0
	if i := strings.IndexByte(text, '.'); i >= 0 {
		decimals = len(text) - i - 1
	}
	switch {
	case whole && decimals > 0:
		return v, conversion(fmt.Sprintf("column %s takes whole numbers only", s.col.Name), "correct the value on the platform")
	case !whole && decimals > s.col.Precision:
		return v, conversion(fmt.Sprintf("column %s takes %d digits after the point and the number has more", s.col.Name, s.col.Precision), "round the value on the platform, or raise the column's precision")
	case s.min != "" && compareNumbers(text, s.min) < 0 || s.max != "" && compareNumbers(text, s.max) > 0:
		return v, conversion("the number is outside the range of column "+s.col.Name, "correct the value on the platform, or widen the column's range")
	case s.col.Type == lockstep.ColumnDouble && digits(text) > 15:
		return v, conversion(fmt.Sprintf("column %s keeps 15 digits and the number has more", s.col.Name), "round the value on the platform")
	}
	return v, nil
}

// digits counts the significant digits of a canonical number.
func digits(s string) int {
	s = strings.TrimPrefix(s, "-")
	if !strings.Contains(s, ".") {
		return len(strings.TrimRight(s, "0"))
	}
	return len(strings.TrimLeft(strings.Replace(s, ".", "", 1), "0"))
}

// compareNumbers compares canonical numbers exactly.
func compareNumbers(a, b string) int {
	negA, negB := a[0] == '-', b[0] == '-'
	switch {
	case negA && !negB:
		return -1
	case negB && !negA:
		return 1
	case negA:
		a, b = b[1:], a[1:]
	}
	intA, fracA, _ := strings.Cut(a, ".")
	intB, fracB, _ := strings.Cut(b, ".")
	if len(intA) != len(intB) {
		if len(intA) < len(intB) {
			return -1
		}
		return 1
	}
	if c := strings.Compare(intA, intB); c != 0 {
		return c
	}
	return strings.Compare(fracA, fracB) // no trailing zeros: text order is number order
}

// The instants that Dataverse keeps, from its column type reference.
var (
	earliest = time.Date(1753, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
)

func (s *source) dateColumn(v lockstep.Value) (lockstep.Value, *fault) {
	t, ok := v.Time()
	if !ok || t.Before(earliest) || !t.Before(latest.AddDate(0, 0, 1)) {
		return v, conversion("the date is outside the range of column "+s.col.Name, "the CRM keeps the years 1753 to 9999; correct the value on the platform")
	}
	if s.col.Type == lockstep.ColumnDate {
		return lockstep.CanonicalValue(lockstep.Date, v.Text()[:len("2006-01-02")]), nil
	}
	return v, nil
}

func (s *source) optionColumn(v lockstep.Value) (lockstep.Value, *fault) {
	text := v.Text()
	number, known := "", false
	if s.to == lockstep.FieldText && !s.asNumber {
		if number, known = s.number[text]; !known {
			number, known = s.folded[fold(text)]
		}
		if known && number == "" {
			return v, conversion(fmt.Sprintf("several options of column %s have this label", s.col.Name), "send the option's number instead of its label")
		}
	}
	if !known {
		if n, ok := lockstep.ParseNumber(strings.TrimSpace(text)); ok {
			_, known = s.label[n.Text()]
			number = n.Text()
		}
	}
	if !known {
		return v, conversion(fmt.Sprintf("column %s has no such option", s.col.Name), "correct the value on the platform, or add the option in the CRM and refresh its metadata")
	}
	return lockstep.CanonicalValue(lockstep.Number, number), nil
}
