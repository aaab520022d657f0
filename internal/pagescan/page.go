package pagescan

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Columns are the names of the members that are wanted of each row. They may be
// used by several pages, one after the other or at once.
type Columns struct {
	names []string
	index map[string]int
}

// NewColumns returns the columns with these names, in this order. Names must be
// distinct.
func NewColumns(names ...string) *Columns {
	c := &Columns{names: names, index: make(map[string]int, len(names))}
	for i, n := range names {
		c.index[n] = i
	}
	return c
}

// Len returns how many columns there are.
func (c *Columns) Len() int { return len(c.names) }

// Page pulls the rows out of a collection: the elements of one array member of
// the outermost object. The other members of that object, before or after the
// rows, are kept as cells.
type Page struct {
	scanner
	cols    *Columns
	MaxRow  int // bytes of one row; 0 = MaxRow
	rows    string
	outside []member
	state   pageState
	seen    bool // the rows were there
	order   order
	err     error
}

type pageState uint8

const (
	inOuter pageState = iota
	inRows
	atEnd
)

type member struct {
	name string
	cell Cell
}

// order remembers the members of the row before: rows of one page name theirs in
// the same order, so that comparing with the memory nearly always replaces a
// look-up.
type order struct {
	names []string
	cols  []int // -1 = not wanted
}

// New returns the page in text whose rows are in the member named rows. The text
// must not change any more, which a string cannot.
func New(text, rows string, cols *Columns) *Page {
	return &Page{scanner: scanner{s: text}, rows: rows, cols: cols}
}

// Next reads the next row into cells, which must have the length of the columns,
// and reports whether there was one. After the last row it checks what follows.
func (p *Page) Next(cells []Cell) (bool, error) {
	if p.err != nil || p.state == atEnd {
		return false, p.err
	}
	ok, err := p.next(cells)
	if err != nil {
		p.err = err
		return false, err
	}
	return ok, nil
}

func (p *Page) next(cells []Cell) (bool, error) {
	if p.state == inOuter {
		if err := p.begin(); err != nil || p.state == atEnd {
			return false, err
		}
	} else {
		more, err := p.more(']')
		if err != nil {
			return false, err
		}
		if !more {
			return false, p.after()
		}
	}
	limit := p.MaxRow
	if limit <= 0 {
		limit = MaxRow
	}
	start := p.pos
	// The row must end within the limit: a scanner over the limited text reports
	// a longer one as cut off.
	whole := p.s
	if len(whole)-start > limit {
		p.s = whole[:start+limit]
	}
	err := p.object(p.cols, cells, &p.order, 3)
	cut := len(p.s) < len(whole)
	p.s = whole
	if err != nil {
		if cut && p.pos >= start+limit-12 {
			p.pos = start
			return false, p.fail("a row is too long")
		}
		return false, err
	}
	return true, nil
}

// begin reads up to the first row.
func (p *Page) begin() error {
	if !utf8.ValidString(p.s) {
		return p.fail("text that is not UTF-8")
	}
	p.space()
	more, err := p.open('{', '}', 1)
	if err != nil {
		return err
	}
	if !more {
		return p.end()
	}
	return p.members()
}

// members reads outer members until the rows begin or the object ends.
func (p *Page) members() error {
	for {
		name, escaped, err := p.key()
		if err != nil {
			return err
		}
		if escaped {
			name = unescape(name)
		}
		if name == p.rows && p.peek() == '[' {
			if p.seen {
				return p.fail("the rows come twice")
			}
			p.seen = true
			more, err := p.open('[', ']', 2)
			if err != nil {
				return err
			}
			if more {
				p.state = inRows
				return nil
			}
			return p.after()
		}
		c, err := p.value(1)
		if err != nil {
			return err
		}
		if len(p.outside) < 64 {
			p.outside = append(p.outside, member{name, c})
		}
		more, err := p.more('}')
		if err != nil {
			return err
		}
		if !more {
			return p.end()
		}
	}
}

// after reads what follows the rows.
func (p *Page) after() error {
	more, err := p.more('}')
	if err != nil {
		return err
	}
	if more {
		return p.members()
	}
	return p.end()
}

func (p *Page) end() error {
	p.space()
	if p.pos != len(p.s) {
		return p.fail("something follows the end")
	}
	if !p.seen {
		return p.fail("the member " + p.rows + " with the rows is missing")
	}
	p.state = atEnd
	return nil
}

// Member returns an outer member read so far; all of them once Next reported the
// end.
func (p *Page) Member(name string) Cell {
	for _, v := range slices.Backward(p.outside) {
		if v.name == name {
			return v.cell
		}
	}
	return Cell{}
}

// object reads one object into cells.
func (s *scanner) object(cols *Columns, cells []Cell, o *order, depth int) error {
	clear(cells)
	more, err := s.open('{', '}', depth)
	for at := 0; more && err == nil; at++ {
		var name string
		var escaped bool
		if name, escaped, err = s.key(); err != nil {
			return err
		}
		col := o.column(cols, at, name, escaped)
		var c Cell
		if c, err = s.value(depth); err != nil {
			return err
		}
		if col >= 0 {
			cells[col] = c
		}
		more, err = s.more('}')
	}
	return err
}

func (o *order) column(cols *Columns, at int, name string, escaped bool) int {
	if at < len(o.names) && o.names[at] == name && !escaped {
		return o.cols[at]
	}
	plainName := name
	if escaped {
		plainName = unescape(name)
	}
	col, ok := cols.index[plainName]
	if !ok {
		col = -1
	}
	switch {
	case escaped || at > len(o.names) || at >= 4096:
	case at == len(o.names):
		o.names, o.cols = append(o.names, name), append(o.cols, col)
	default:
		o.names[at], o.cols[at] = name, col
	}
	return col
}

// Members reads the members of an object cell into cells, which must have the
// length of the columns.
func (c Cell) Members(cols *Columns, cells []Cell) error {
	s := scanner{s: c.raw}
	if c.kind != Object {
		return s.fail("an object was expected")
	}
	return s.object(cols, cells, &order{}, 1)
}

// Elements calls each for the elements of an array cell.
func (c Cell) Elements(each func(Cell) error) error {
	s := scanner{s: c.raw}
	if c.kind != Array {
		return s.fail("an array was expected")
	}
	more, err := s.open('[', ']', 1)
	for more && err == nil {
		var e Cell
		if e, err = s.value(1); err != nil {
			return err
		}
		if err = each(e); err != nil {
			return err
		}
		more, err = s.more(']')
	}
	return err
}

// EachMember calls each for the members of an object cell, in order.
func (c Cell) EachMember(each func(name string, value Cell) error) error {
	s := scanner{s: c.raw}
	if c.kind != Object {
		return s.fail("an object was expected")
	}
	more, err := s.open('{', '}', 1)
	for more && err == nil {
		name, escaped, err := s.key()
		if err != nil {
			return err
		}
		if escaped {
			name = unescape(name)
		}
		v, err := s.value(1)
		if err != nil {
			return err
		}
		if err := each(name, v); err != nil {
			return err
		}
		if more, err = s.more('}'); err != nil {
			return err
		}
	}
	return err
}

// Peek looks for a text member of the outermost object near either end of a page
// without reading the rows, so that the next page can be asked for while this one
// is read. It is a guess to be confirmed by Member: a page can be made to fool it.
func Peek(text, name string) (value string, ok bool) {
	const window = 80 << 10 // longer than the longest link
	quoted := `"` + name + `":`
	try := func(part string, i int) (string, bool) {
		if i < 0 || i > 0 && part[i-1] == '\\' {
			return "", false
		}
		s := scanner{s: part, pos: i + len(quoted)}
		s.space()
		if s.peek() != '"' {
			return "", false
		}
		raw, escaped, err := s.str()
		if err != nil {
			return "", false
		}
		return Cell{kind: String, escaped: escaped, raw: raw}.Text(), true
	}
	tail := text[max(0, len(text)-window):]
	if v, ok := try(tail, strings.LastIndex(tail, quoted)); ok {
		return v, true
	}
	head := text[:min(len(text), window)]
	return try(head, strings.Index(head, quoted))
}
