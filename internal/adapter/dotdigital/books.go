package dotdigital

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-sync/lockstep"
)

const (
	bookPage = 1000 // the most that v2 listings take as select
	// bookOverlap is read again with each further page: rows shift when somebody
	// deletes a list between two pages.
	bookOverlap = 100
	maxBookName = 128
)

type wireBook struct {
	ID         int64  `json:"id,omitempty"`
	Name       string `json:"name"`
	Visibility string `json:"visibility,omitempty"`
	Contacts   int    `json:"contacts,omitempty"`
}

func (w wireBook) book() lockstep.AddressBook {
	return lockstep.AddressBook{ID: lockstep.BookID(strconv.FormatInt(w.ID, 10)), Name: w.Name, Members: w.Contacts, System: reservedBook(w.Name)}
}

func reservedBook(name string) bool {
	for _, r := range lockstep.ReservedBookNames {
		if strings.EqualFold(strings.TrimSpace(name), r) {
			return true
		}
	}
	return false
}

// Books reads all address books, 1000 a call.
func (c *Client) Books(ctx context.Context) ([]lockstep.AddressBook, error) {
	var books []lockstep.AddressBook
	seen := map[int64]bool{}
	for skip := 0; ; skip += bookPage - bookOverlap {
		var rows []wireBook
		q := call{
			op: "read address books", method: http.MethodGet, path: "/v2/address-books", repeat: true,
			query: "select=" + strconv.Itoa(bookPage) + "&skip=" + strconv.Itoa(skip),
		}
		err := c.do(ctx, q, func(body []byte) error { rows = nil; return array(&q, &rows)(body) })
		if err != nil {
			return nil, err
		}
		fresh := 0
		for _, w := range rows {
			if w.ID <= 0 || seen[w.ID] {
				continue
			}
			seen[w.ID] = true
			books = append(books, w.book())
			fresh++
		}
		// A short page is the last one. A full page without anything new would be
		// a listing that does not advance.
		if len(rows) < bookPage {
			return books, nil
		}
		if fresh == 0 {
			return nil, senseless(&q, "the listing does not advance from page to page", nil)
		}
	}
}

// bookName checks a name as the service would (developer hub, "Create address
// book"): 1 to 128 characters, not one of its own.
func bookName(op, name string) (string, error) {
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		return "", invalid(op, "name", "an address book needs a name", "")
	case !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxBookName:
		return "", invalid(op, "name", "the name of an address book has at most 128 characters", "choose a shorter name")
	case reservedBook(name):
		return "", invalid(op, "name", "Dotdigital keeps the name "+strconv.Quote(name)+" for itself", "choose another name")
	}
	return name, nil
}

// CreateBook makes a private address book. When the answer is lost it looks
// whether the book is there before it tries again, at most once.
func (c *Client) CreateBook(ctx context.Context, name string) (lockstep.AddressBook, error) {
	q := call{op: "create address book", method: http.MethodPost, path: "/v2/address-books"}
	name, err := bookName(q.name(), name)
	if err != nil {
		return lockstep.AddressBook{}, err
	}
	q.json = wireBook{Name: name, Visibility: "Private"}
	for attempt := 0; ; attempt++ {
		var made wireBook
		err = c.do(ctx, q, object(&q, &made, func() bool { return made.ID > 0 }))
		if err == nil {
			made.Name = name
			return made.book(), nil
		}
		// A name that is taken after an attempt with an unknown outcome was taken by
		// that attempt, if it was carried out a moment too late to be seen.
		late := attempt > 0 && lockstep.CodeOf(err) == lockstep.CodeConflict
		if !lockstep.IsUnknown(err) && !late || ctx.Err() != nil {
			return lockstep.AddressBook{}, err
		}
		books, readErr := c.Books(ctx)
		if readErr != nil {
			return lockstep.AddressBook{}, err
		}
		for _, b := range books {
			if !strings.EqualFold(b.Name, name) {
				continue
			}
			if b.Members == 0 {
				return b, nil
			}
			// One that somebody filled already cannot be the one just made.
			return lockstep.AddressBook{}, judge(q.name(), refusal{status: http.StatusBadRequest, code: "ERROR_ADDRESSBOOK_DUPLICATE", known: true}, 0, false)
		}
		if attempt > 0 {
			return lockstep.AddressBook{}, err
		}
	}
}

// bookPath returns the path of an address book.
func bookPath(op string, id lockstep.BookID) (string, error) {
	n, err := strconv.ParseInt(string(id), 10, 32)
	if err != nil || n <= 0 {
		return "", invalid(op, "address_book_id", "this is not the id of an address book", "give the number that Dotdigital shows")
	}
	return "/v2/address-books/" + strconv.FormatInt(n, 10), nil
}

// RenameBook renames an address book. It reads the book first, because the
// service takes a rename without a visibility for one that makes it private: two
// calls.
func (c *Client) RenameBook(ctx context.Context, id lockstep.BookID, name string) error {
	const op = "rename address book"
	q := call{op: op, method: http.MethodGet, route: "/v2/address-books/{id}", repeat: true}
	var err error
	if name, err = bookName(q.name(), name); err != nil {
		return err
	}
	if q.path, err = bookPath(q.name(), id); err != nil {
		return err
	}
	var now wireBook
	if err = c.do(ctx, q, object(&q, &now, func() bool { return now.ID > 0 })); err != nil {
		return err
	}
	if now.Name == name {
		return nil
	}
	q.method = http.MethodPut
	q.json = wireBook{Name: name, Visibility: now.Visibility}
	return c.do(ctx, q, func(body []byte) error {
		if len(bytes.TrimSpace(body)) == 0 {
			return nil
		}
		var renamed wireBook
		return object(&q, &renamed, func() bool { return true })(body)
	})
}

// RemoveFromBook starts a removal of at most 1000 contacts. Repeating it is
// harmless: who is no member any more is passed over.
func (c *Client) RemoveFromBook(ctx context.Context, id lockstep.BookID, contacts []lockstep.ContactID) (lockstep.JobID, error) {
	q := call{op: "remove from address book", method: http.MethodPost, route: "/v2/address-books/{id}/contacts/delete", repeat: true, rows: len(contacts)}
	path, err := bookPath(q.name(), id)
	if err != nil {
		return "", err
	}
	if len(contacts) == 0 || len(contacts) > maxRemove {
		return "", invalid(q.name(), "contacts", "a removal takes 1 to 1000 contacts", "hand them over in portions")
	}
	q.path = path + "/contacts/delete"
	q.body = make([]byte, 0, 12*len(contacts))
	for i, id := range contacts {
		n, err := strconv.ParseInt(string(id), 10, 64)
		if err != nil || n <= 0 {
			return "", invalid(q.name(), "contacts", "contact "+strconv.Itoa(i)+" of the removal has no id of Dotdigital", "")
		}
		q.body = append(q.body, "[,"[min(i, 1)])
		q.body = strconv.AppendInt(q.body, n, 10)
	}
	q.body = append(q.body, ']')
	var job removal
	if err := c.do(ctx, q, object(&q, &job, func() bool { return jobName(job.ID) })); err != nil {
		return "", err
	}
	return lockstep.JobID(job.ID), nil
}

type removal struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// AwaitRemoval asks until a removal has ended.
func (c *Client) AwaitRemoval(ctx context.Context, job lockstep.JobID) error {
	q := call{op: "await removal from address book", method: http.MethodGet, route: "/v2/contacts/deletion/{id}", repeat: true, poll: true}
	if !jobName(string(job)) {
		return unknownJob(q.name())
	}
	q.path = "/v2/contacts/deletion/" + string(job)
	return c.await(ctx, &q, string(job), func() (bool, error) {
		var now removal
		if err := c.do(ctx, q, object(&q, &now, func() bool { return now.Status != "" })); err != nil {
			return false, err
		}
		switch strings.ToLower(now.Status) {
		case "completed", "finished":
			return true, nil
		case "failed":
			return false, &lockstep.Error{
				Code: lockstep.CodeUnavailable, Op: q.name(), Scope: lockstep.ScopeBatch, Upstream: "Failed", Unknown: true,
				Msg: "Dotdigital could not end the removal " + string(job), Hint: "repeat it; if it fails again, give Dotdigital's support this number",
			}
		}
		return false, nil
	})
}
