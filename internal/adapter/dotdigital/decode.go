package dotdigital

import (
	"errors"
	"net/url"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

var (
	errNoContactID = errors.New("a contact has no id")
	errNoObject    = errors.New("one object was expected")
)

// contactColumns are the members that are read of a contact.
var contactColumns = pagescan.NewColumns("contactId", "status", "created", "updated", "identifiers", "dataFields", "channelProperties", "lists")

const (
	colContact = iota
	colStatus
	colCreated
	colUpdated
	colIdentifiers
	colDataFields
	colChannels
	colLists
	contactColumnCount
)

// decoder reads contacts out of pages. What is kept of a page is copied into one
// text of its own, so that a value that somebody keeps does not keep the page.
// A decoder is for one goroutine.
type decoder struct {
	fields      []lockstep.DataField
	memberships bool
	// index finds a data field by its upper-case name; guess remembers which one
	// came at which place, because every row names them in the same order.
	index map[string]int
	guess []guess
	books map[string]lockstep.BookID

	cells  [contactColumnCount]pagescan.Cell
	text   []byte // of the page's kept texts, one after the other
	pieces []piece
}

type guess struct {
	name string
	at   int // -1 = not wanted
}

// piece is one kept text: it ends at end and begins where the one before ends.
type piece struct {
	kind lockstep.Kind
	end  int
}

func newDecoder(fields []lockstep.DataField, memberships bool) *decoder {
	d := &decoder{fields: fields, memberships: memberships, index: make(map[string]int, len(fields)), books: map[string]lockstep.BookID{}}
	for i, f := range fields {
		if f.Type != "" {
			d.index[strings.ToUpper(f.Name)] = i
		}
	}
	return d
}

// page reads all contacts of a page and where the next page is; empty = nowhere.
func (d *decoder) page(text string) ([]lockstep.Contact, string, error) {
	p := pagescan.New(text, "_items", contactColumns)
	d.text, d.pieces = d.text[:0], d.pieces[:0]
	n := len(d.fields)
	var (
		contacts []lockstep.Contact
		members  []lockstep.Membership
		spans    []int // end of each contact's memberships
	)
	values := make([]pagescan.Cell, n)
	for {
		ok, err := p.Next(d.cells[:])
		if err != nil {
			return nil, "", err
		}
		if !ok {
			break
		}
		var c lockstep.Contact
		if err := d.contact(&c, values, &members); err != nil {
			return nil, "", err
		}
		if contacts == nil {
			contacts = make([]lockstep.Contact, 0, 1+len(text)/250)
		}
		contacts = append(contacts, c)
		spans = append(spans, len(members))
	}
	d.settle(contacts)
	if d.memberships {
		start := 0
		for i := range contacts {
			contacts[i].Books = members[start:spans[i]:spans[i]]
			start = spans[i]
		}
	}
	return contacts, strings.Clone(nextMarker(p.Member("_links"))), nil
}

// keep appends a text that the contact keeps.
func (d *decoder) keep(kind lockstep.Kind, s string) {
	d.text = append(d.text, s...)
	d.pieces = append(d.pieces, piece{kind, len(d.text)})
}

// settle gives the contacts their texts: id, address and values.
func (d *decoder) settle(contacts []lockstep.Contact) {
	text := string(d.text)
	n := len(d.fields)
	slab := make([]lockstep.Value, n*len(contacts))
	start, at := 0, 0
	next := func() (lockstep.Kind, string) {
		p := d.pieces[at]
		s := text[start:p.end]
		start, at = p.end, at+1
		return p.kind, s
	}
	for i := range contacts {
		c := &contacts[i]
		_, id := next()
		_, email := next()
		c.ID, c.Email = lockstep.ContactID(id), email
		c.Values, slab = slab[:n:n], slab[n:]
		for f := range c.Values {
			kind, s := next()
			c.Values[f] = lockstep.CanonicalValue(kind, s)
		}
	}
}

// contact reads the row in d.cells.
func (d *decoder) contact(c *lockstep.Contact, values []pagescan.Cell, members *[]lockstep.Membership) error {
	cells := &d.cells
	id := cells[colContact]
	if id.Kind() != pagescan.Number || !wholeID(id.Raw()) {
		return errNoContactID
	}
	d.keep(lockstep.Text, id.Raw())
	c.Created, _ = parseInstant(cells[colCreated].Text())
	c.Modified, _ = parseInstant(cells[colUpdated].Text())

	var email pagescan.Cell
	if cells[colIdentifiers].Kind() == pagescan.Object {
		if err := cells[colIdentifiers].EachMember(func(name string, v pagescan.Cell) error {
			if name == "email" {
				email = v
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if email.Kind() == pagescan.String {
		d.keep(lockstep.Text, email.Text())
	} else {
		d.keep(lockstep.Text, "")
	}

	clear(values)
	if len(values) > 0 && cells[colDataFields].Kind() == pagescan.Object {
		at := 0
		if err := cells[colDataFields].EachMember(func(name string, v pagescan.Cell) error {
			if f := d.field(at, name); f >= 0 {
				values[f] = v
			}
			at++
			return nil
		}); err != nil {
			return err
		}
	}
	answered := cells[colDataFields].Kind() == pagescan.Object || cells[colDataFields].Kind() == pagescan.Null
	for i, v := range values {
		d.value(d.fields[i].Type, v, answered)
	}

	c.Standing = standingOf(cells[colStatus].Text())
	if cells[colChannels].Kind() == pagescan.Object {
		if err := d.channel(c, cells[colChannels]); err != nil {
			return err
		}
	}
	if d.memberships && cells[colLists].Kind() == pagescan.Array {
		return cells[colLists].Elements(func(list pagescan.Cell) error { return d.membership(list, members) })
	}
	return nil
}

// field finds the data field that a row names at a place.
func (d *decoder) field(at int, name string) int {
	if at < len(d.guess) && d.guess[at].name == name {
		return d.guess[at].at
	}
	f, ok := d.index[name]
	if !ok {
		if f, ok = d.index[strings.ToUpper(name)]; !ok {
			f = -1
		}
	}
	switch g := (guess{strings.Clone(name), f}); {
	case at < len(d.guess):
		d.guess[at] = g
	case at == len(d.guess) && at < 1024:
		d.guess = append(d.guess, g)
	}
	return f
}

// value keeps the value of a data field. answered says that the row carried its
// data fields: one that exists but is missing there is blank, not unread.
func (d *decoder) value(t lockstep.FieldType, v pagescan.Cell, answered bool) {
	switch v.Kind() {
	case pagescan.Absent:
		if answered && t != "" {
			d.keep(lockstep.Null, "")
			return
		}
		d.keep(lockstep.Absent, "")
	case pagescan.Null:
		d.keep(lockstep.Null, "")
	default:
		s := v.Text()
		if t == lockstep.FieldDate {
			if at, ok := parseInstant(s); ok && at.Year() > 1 {
				d.text = at.AppendFormat(d.text, "2006-01-02T15:04:05Z")
				d.pieces = append(d.pieces, piece{lockstep.DateTime, len(d.text)})
				return
			}
		}
		val := typed(t, s)
		d.keep(val.Kind(), val.Text())
	}
}

// channel reads the email channel's properties.
func (d *decoder) channel(c *lockstep.Contact, channels pagescan.Cell) error {
	gone := c.Standing == lockstep.ContactDeleted
	return channels.EachMember(func(name string, email pagescan.Cell) error {
		if name != "email" || email.Kind() != pagescan.Object {
			return nil
		}
		return email.EachMember(func(name string, v pagescan.Cell) error {
			if v.Kind() != pagescan.String {
				return nil
			}
			switch name {
			case "status":
				// The recycle bin is the contact's, whatever its channel says.
				if !gone {
					c.Standing = standingOf(v.Text())
				}
			case "optInType":
				c.OptIn = optInOf(v.Text())
			}
			return nil
		})
	})
}

// membership reads one element of a contact's lists.
func (d *decoder) membership(list pagescan.Cell, members *[]lockstep.Membership) error {
	if list.Kind() != pagescan.Object {
		return nil
	}
	var m lockstep.Membership
	err := list.EachMember(func(name string, v pagescan.Cell) error {
		switch {
		case name == "id" && v.Kind() == pagescan.Number && wholeID(v.Raw()):
			id, ok := d.books[v.Raw()]
			if !ok {
				id = lockstep.BookID(strings.Clone(v.Raw()))
				d.books[string(id)] = id
			}
			m.Book = id
		case name == "status":
			m.Unsubscribed = strings.EqualFold(v.Text(), "suppressed") || strings.EqualFold(v.Text(), "unsubscribed")
		}
		return nil
	})
	if err == nil && m.Book != "" {
		*members = append(*members, m)
	}
	return err
}

// wholeID reports whether a JSON number can be an id: digits only.
func wholeID(s string) bool {
	if len(s) == 0 || len(s) > 19 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// single scans one JSON object for the wanted members.
func single(text string, cols *pagescan.Columns, cells []pagescan.Cell) error {
	p := pagescan.New(`{"":[`+text+`]}`, "", cols)
	p.MaxRow = len(text) + 16
	ok, err := p.Next(cells)
	if err != nil {
		return err
	}
	if !ok {
		return errNoObject
	}
	if ok, err = p.Next(make([]pagescan.Cell, len(cells))); err == nil && ok {
		err = errNoObject
	}
	return err
}

// nextMarker reads where the listing goes on; empty = nowhere. The link itself is
// never followed: it may lead anywhere.
func nextMarker(links pagescan.Cell) (marker string) {
	if links.Kind() != pagescan.Object {
		return ""
	}
	var link string
	err := links.EachMember(func(name string, v pagescan.Cell) error {
		if name != "next" || v.Kind() != pagescan.Object {
			return nil
		}
		return v.EachMember(func(name string, v pagescan.Cell) error {
			switch {
			case v.Kind() != pagescan.String:
			case name == "marker":
				marker = v.Text()
			case name == "link":
				link = v.Text()
			}
			return nil
		})
	})
	if err != nil {
		return ""
	}
	if marker == "" && link != "" {
		if u, err := url.Parse(link); err == nil {
			marker = u.Query().Get("marker")
		}
	}
	return marker
}

// peekMarker guesses where the listing goes on from either end of a page, without
// reading its rows. Inside a text the quotes of the name would be escaped, so what
// it finds is a member's name; whether it is the right member is seen later.
func peekMarker(text string) string {
	const window = 16 << 10
	const name = `"_links":`
	tail := text[max(0, len(text)-window):]
	if i := strings.LastIndex(tail, name); i >= 0 {
		return firstMarker(tail[i+len(name):])
	}
	head := text[:min(len(text), window)]
	if _, after, ok := strings.Cut(head, name); ok {
		return firstMarker(after)
	}
	return ""
}

// firstMarker reads the links that text begins with; what follows them is of no
// matter.
func firstMarker(text string) string {
	depth := 0
	inText := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				p := pagescan.New(`{"_links":`+text[:i+1]+`,"_items":[]}`, "_items", contactColumns)
				var cells [contactColumnCount]pagescan.Cell
				if _, err := p.Next(cells[:]); err != nil {
					return ""
				}
				return nextMarker(p.Member("_links"))
			}
		}
	}
	return ""
}
