package dotdigital

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const (
	// contactPage is the most contacts a page can have.
	contactPage = 5000
	maxPage     = 64 << 20
	// A change may become visible a little after the time that it carries. So every
	// now and then a read goes back by overlap behind the last such deep read; the
	// reads between go on where the one before began, because reading five minutes
	// back every time would bring every large import back several times over.
	overlap   = 5 * time.Minute
	deepEvery = 10 * time.Minute
	// maxFieldQuery is the most bytes of field names that go into an address;
	// beyond it all fields are asked for.
	maxFieldQuery = 4 << 10
)

// Contacts reads contacts in pages of up to 5000, one call a page, and asks for
// the next page while it works on one. It takes one call more for the service's
// time, and one when the data fields are not known. The cursor is the service's
// time before the first page.
func (c *Client) Contacts(ctx context.Context, query lockstep.ContactQuery, each func([]lockstep.Contact) error) (lockstep.Cursor, error) {
	const op = "read contacts"
	q := call{op: op, method: http.MethodGet, path: "/contacts/v3", repeat: true, max: maxPage}
	fields, err := c.fieldsNamed(ctx, query.Fields)
	if err != nil {
		return "", err
	}
	was, err := parseCursor(op, query.Since)
	if err != nil {
		return "", err
	}
	now, err := c.serverTime(ctx)
	if err != nil {
		return "", err
	}
	since, next := was.advance(now)
	if q.query, err = contactQuery(q.name(), query, fields, since, c.pageSize); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &listing{client: c, call: q}
	defer func() { // the page that was asked for ahead must not outlive the read
		cancel()
		l.ahead.drop()
	}()
	d := newDecoder(fields, query.Memberships)
	seen := map[string]bool{"": true}
	for marker := ""; ; {
		contacts, more, err := l.page(ctx, d, marker)
		if err != nil {
			return "", err
		}
		if len(contacts) > 0 {
			if err := each(contacts); err != nil {
				return "", err
			}
		}
		if more == "" {
			return next.cursor(), nil
		}
		if seen[more] {
			return "", senseless(&q, "the listing leads back to a page that was read already", nil)
		}
		seen[more] = true
		marker = more
	}
}

// watchPage is how many changed contacts BooksOfChanged looks at.
const watchPage = 1000

var _ lockstep.BookWatcher = (*Client)(nil)

// BooksOfChanged reads the lists of the contacts that changed, at most a thousand: one
// call, and one for the service's time.
func (c *Client) BooksOfChanged(ctx context.Context, since lockstep.Cursor) (books []lockstep.BookID, all bool, next lockstep.Cursor, err error) {
	const op = "look for changed contacts"
	was, err := parseCursor(op, since)
	if err != nil {
		return nil, false, "", err
	}
	now, err := c.serverTime(ctx)
	if err != nil {
		return nil, false, "", err
	}
	from, mark := was.advance(now)
	if from.IsZero() {
		return nil, true, mark.cursor(), nil
	}
	q := call{op: op, method: http.MethodGet, path: "/contacts/v3", repeat: true, max: maxPage}
	if q.query, err = contactQuery(q.name(), lockstep.ContactQuery{Memberships: true}, nil, from, min(c.pageSize, watchPage)); err != nil {
		return nil, false, "", err
	}
	l := &listing{client: c, call: q, single: true}
	contacts, more, err := l.page(ctx, newDecoder(nil, true), "")
	if err != nil {
		return nil, false, "", err
	}
	found := map[lockstep.BookID]bool{}
	for i := range contacts {
		for _, m := range contacts[i].Books {
			found[m.Book] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), more != "", mark.cursor(), nil
}

// mark says how far the changes were read: up to read, and up to deep with the time
// allowed for late ones. Both are times of the service.
type mark struct{ read, deep time.Time }

// advance returns from when to read (zero = everything) and the mark afterwards.
func (m mark) advance(now time.Time) (since time.Time, after mark) {
	switch {
	case m.read.IsZero():
		return time.Time{}, mark{now, now}
	case now.Sub(m.deep) >= deepEvery || now.Before(m.read):
		return m.deep.Add(-overlap), mark{now, now}
	}
	return m.read, mark{now, m.deep}
}

// timeForm is how times are written: milliseconds are what the service tells.
const timeForm = "2006-01-02T15:04:05.000Z"

func (m mark) cursor() lockstep.Cursor {
	return lockstep.Cursor(m.read.UTC().Format(timeForm) + " " + m.deep.UTC().Format(timeForm))
}

func parseCursor(op string, c lockstep.Cursor) (m mark, err error) {
	if c == "" {
		return m, nil
	}
	read, deep, _ := strings.Cut(string(c), " ")
	if m.read, err = time.Parse(timeForm, read); err == nil {
		m.deep, err = time.Parse(timeForm, deep)
	}
	if err != nil {
		return m, &lockstep.Error{
			Code: lockstep.CodeExpired, Op: op, Scope: lockstep.ScopeBatch,
			Msg: "the mark of the last read is none of Dotdigital's", Hint: "read from the beginning",
		}
	}
	return m, nil
}

// contactQuery writes the query of a listing; a zero since asks for everything.
func contactQuery(op string, q lockstep.ContactQuery, fields []lockstep.DataField, since time.Time, limit int) (string, error) {
	v := url.Values{"limit": {strconv.Itoa(limit)}, "include": {"channelProperties"}}
	if q.Memberships {
		v.Set("include", "channelProperties|lists")
	}
	var names []string
	size := 0
	for _, f := range fields {
		if f.Type != "" { // one that the account does not have may not be asked for
			names = append(names, f.Name)
			size += len(f.Name) + 3
		}
	}
	switch {
	case size > maxFieldQuery:
		v.Set("data-fields", "[[ALL]]")
	case len(names) > 0:
		v.Set("data-fields", strings.Join(names, "|"))
	}
	if q.Book != "" {
		id, err := strconv.ParseInt(string(q.Book), 10, 32)
		if err != nil || id <= 0 {
			return "", invalid(op, "address_book_id", "this is not the id of an address book", "give the number that Dotdigital shows")
		}
		v.Set("~listId", strconv.FormatInt(id, 10))
	}
	if !since.IsZero() {
		v.Set("~modified", "gte::"+since.UTC().Format(timeForm))
	}
	return v.Encode(), nil
}

// listing reads the pages of one query.
type listing struct {
	client *Client
	call   call
	single bool // nothing is asked for ahead
	ahead  ahead
}

// ahead is the page that was asked for before it is needed.
type ahead struct {
	marker string
	answer chan fetched // nil = none
}

type fetched struct {
	text string
	err  error
}

// drop waits for the page that nobody wants any more; its context has ended.
func (a *ahead) drop() {
	if a.answer != nil {
		<-a.answer
		a.answer = nil
	}
}

// page returns the contacts of the page at marker and where the next one is.
func (l *listing) page(ctx context.Context, d *decoder, marker string) ([]lockstep.Contact, string, error) {
	waits := l.client.waits.retry
	for attempt := 0; ; attempt++ {
		text, err := l.text(ctx, marker)
		if err != nil {
			return nil, "", err
		}
		// The next page is on its way while this one is read. Where it is, is
		// guessed from the end of the page and confirmed by reading.
		if next := peekMarker(text); next != "" && next != marker && !l.single {
			l.ask(ctx, next)
		}
		contacts, next, err := d.page(text)
		if err == nil {
			return contacts, next, nil
		}
		// Cut or damaged on the way: ask again before giving up.
		if attempt >= len(waits) || !l.client.pause(ctx, waits[attempt]) {
			return nil, "", senseless(&l.call, "the page cannot be read", err)
		}
	}
}

// text returns the page at marker, which may have been asked for already.
func (l *listing) text(ctx context.Context, marker string) (string, error) {
	a := l.ahead
	if a.answer == nil {
		return l.fetch(ctx, marker)
	}
	l.ahead.answer = nil
	f := <-a.answer
	if a.marker != marker { // a wrong guess
		return l.fetch(ctx, marker)
	}
	return f.text, f.err
}

// ask requests a page ahead; one at a time.
func (l *listing) ask(ctx context.Context, marker string) {
	if l.ahead.answer != nil {
		return
	}
	marker = strings.Clone(marker)
	answer := make(chan fetched, 1)
	l.ahead = ahead{marker, answer}
	go func() {
		text, err := l.fetch(ctx, marker)
		answer <- fetched{text, err}
	}()
}

func (l *listing) fetch(ctx context.Context, marker string) (text string, err error) {
	q := l.call
	if marker != "" {
		q.query += "&marker=" + url.QueryEscape(marker)
	}
	err = l.client.do(ctx, q, func(body []byte) error {
		body = bytes.TrimSpace(body)
		if len(body) == 0 || body[0] != '{' || body[len(body)-1] != '}' {
			return senseless(&q, "the answer is no page of contacts: "+shapeOf(body), nil)
		}
		if !bytes.Contains(body[:min(len(body), 4<<10)], []byte(`"_items"`)) {
			if r := readRefusal(http.StatusBadRequest, body); r.known {
				return judge(q.name(), r, 0, false)
			}
		}
		text = string(body)
		return nil
	})
	return text, err
}

// Contact reads one contact by its address: one call, and one when the data fields
// are not known. The service has no other way to ask than with the address in the
// path; it is kept out of logs and errors.
func (c *Client) Contact(ctx context.Context, email string, fields []string) (lockstep.Contact, error) {
	q := call{op: "read a contact", method: http.MethodGet, route: "/contacts/v3/email/{email}", repeat: true}
	if problem := lockstep.CheckEmail(email); problem != "" {
		return lockstep.Contact{}, invalid(q.name(), "email", problem, "")
	}
	q.path = "/contacts/v3/email/" + escapeSegment(email)
	return c.contact(ctx, q, fields)
}

// ContactByID reads one contact by its id, which it keeps when its address changes. It
// costs what Contact costs.
func (c *Client) ContactByID(ctx context.Context, id lockstep.ContactID, fields []string) (lockstep.Contact, error) {
	q := call{op: "read a contact", method: http.MethodGet, route: "/contacts/v3/contactId/{contactId}", repeat: true}
	n, err := strconv.ParseInt(string(id), 10, 64)
	if err != nil {
		return lockstep.Contact{}, invalid(q.name(), "id", "the id of a contact is a number", "")
	}
	q.path = "/contacts/v3/contactId/" + strconv.FormatInt(n, 10)
	return c.contact(ctx, q, fields)
}

func (c *Client) contact(ctx context.Context, q call, fields []string) (lockstep.Contact, error) {
	known, err := c.fieldsNamed(ctx, fields)
	if err != nil {
		return lockstep.Contact{}, err
	}
	d := newDecoder(known, true)
	var contacts []lockstep.Contact
	err = c.do(ctx, q, func(body []byte) error {
		body = bytes.TrimSpace(body)
		if len(body) == 0 || body[0] != '{' {
			return senseless(&q, "the answer is not Dotdigital's: "+shapeOf(body), nil)
		}
		if r := readRefusal(http.StatusBadRequest, body); r.known {
			return judge(q.name(), r, 0, false)
		}
		var err error
		contacts, _, err = d.page(`{"_items":[` + string(body) + `]}`)
		if err == nil && len(contacts) != 1 {
			err = errNoObject
		}
		if err != nil {
			return senseless(&q, "the answer is no contact", err)
		}
		return nil
	})
	if err != nil {
		return lockstep.Contact{}, err
	}
	return contacts[0], nil
}

// escapeSegment escapes a text for one path segment; a plus too, which some
// servers take for a blank.
func escapeSegment(s string) string {
	return strings.ReplaceAll(url.PathEscape(s), "+", "%2B")
}
