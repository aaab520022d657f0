package dotdigital

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

var _ lockstep.SuppressionKeeper = (*Client)(nil)

const (
	// suppressionPage is the most that v2 listings take as select, and
	// suppressionOverlap is read again with each further page: rows move up when
	// somebody resubscribes between two pages.
	suppressionPage    = 1000
	suppressionOverlap = 100
	// maxSuppress is our own choice; the service publishes no limit.
	maxSuppress = 1000
)

type wireSuppression struct {
	Contact *struct {
		ID     int64  `json:"id"`
		Email  string `json:"email"`
		Status string `json:"status"`
	} `json:"suppressedContact"`
	DateRemoved string `json:"dateRemoved"`
	Reason      string `json:"reason"`
}

func (w *wireSuppression) suppression() lockstep.Suppression {
	s := lockstep.Suppression{Email: w.Contact.Email, Reason: standingOf(w.Reason)}
	if w.Reason == "" {
		s.Reason = standingOf(w.Contact.Status)
	}
	if w.Contact.ID > 0 {
		s.Contact = lockstep.ContactID(strconv.FormatInt(w.Contact.ID, 10))
	}
	if at, err := time.Parse(time.RFC3339, w.DateRemoved); err == nil && at.Unix() > 0 {
		s.At = at.UTC()
	}
	return s
}

// Suppressions reads who was suppressed in the account, 1000 a call: one call when
// nothing happened. The cursor is the time of the newest row that was read, by the
// service's own clock; the next read goes back five minutes behind it, because a row
// may become visible a little after the time that it carries.
func (c *Client) Suppressions(ctx context.Context, since lockstep.Cursor, each func([]lockstep.Suppression) error) (lockstep.Cursor, error) {
	q := call{op: "read suppressions", method: http.MethodGet, route: "/v2/contacts/suppressed-since/{date}", path: "/v2/contacts/suppressed-since/", repeat: true}
	return c.suppressedSince(ctx, q, since, each)
}

// Unsubscribes reads who left an address book by unsubscribing from it, as
// Suppressions does.
func (c *Client) Unsubscribes(ctx context.Context, book lockstep.BookID, since lockstep.Cursor, each func([]lockstep.Suppression) error) (lockstep.Cursor, error) {
	q := call{op: "read unsubscribes of an address book", method: http.MethodGet, route: "/v2/address-books/{id}/contacts/unsubscribed-since/{date}", repeat: true}
	path, err := bookPath(q.name(), book)
	if err != nil {
		return "", err
	}
	q.path = path + "/contacts/unsubscribed-since/"
	return c.suppressedSince(ctx, q, since, each)
}

func (c *Client) suppressedSince(ctx context.Context, q call, since lockstep.Cursor, each func([]lockstep.Suppression) error) (lockstep.Cursor, error) {
	from, newest := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}
	if since != "" {
		var err error
		if newest, err = time.Parse(timeForm, string(since)); err != nil {
			return "", &lockstep.Error{
				Code: lockstep.CodeExpired, Op: q.name(), Scope: lockstep.ScopeBatch,
				Msg: "the mark of the last read is none of Dotdigital's", Hint: "read from the beginning",
			}
		}
		from = newest.Add(-overlap)
	}
	q.path += from.UTC().Format(timeForm)
	before := map[string]bool{} // the rows of the page before
	for skip := 0; ; skip += suppressionPage - suppressionOverlap {
		var rows []wireSuppression
		q.query = "select=" + strconv.Itoa(suppressionPage) + "&skip=" + strconv.Itoa(skip)
		complete := func() bool {
			for i := range rows {
				if rows[i].Contact == nil {
					return false
				}
			}
			return true
		}
		err := c.do(ctx, q, func(body []byte) error { rows = nil; return decode(&q, '[', &rows, complete)(body) })
		if err != nil {
			return "", err
		}
		page := make([]lockstep.Suppression, 0, len(rows))
		seen := make(map[string]bool, len(rows))
		for i := range rows {
			key := strconv.FormatInt(rows[i].Contact.ID, 10) + " " + rows[i].DateRemoved
			if seen[key] {
				continue
			}
			seen[key] = true
			s := rows[i].suppression()
			if s.At.After(newest) {
				newest = s.At
			}
			if !before[key] {
				page = append(page, s)
			}
		}
		if len(rows) == suppressionPage && len(page) == 0 {
			return "", senseless(&q, "the listing does not advance from page to page", nil)
		}
		if len(page) > 0 {
			if err := each(page); err != nil {
				return "", err
			}
		}
		if len(rows) < suppressionPage {
			if newest.IsZero() {
				return since, nil
			}
			return lockstep.Cursor(newest.UTC().Format(timeForm)), nil
		}
		before = seen
	}
}

// MaxSuppress is the most addresses that Suppress takes.
func (c *Client) MaxSuppress() int { return maxSuppress }

// Suppress blocks addresses: one call, and one more for each address that the
// account does not know, which is created blocked. All of it can be repeated.
func (c *Client) Suppress(ctx context.Context, emails []string) ([]*lockstep.Error, error) {
	q := call{op: "suppress contacts", method: http.MethodPut, path: "/v2/contacts/suppress-contacts", repeat: true}
	if len(emails) == 0 || len(emails) > maxSuppress {
		return nil, invalid(q.name(), "emails", "a call takes 1 to 1000 addresses", "hand them over in portions")
	}
	type row struct {
		Email string `json:"email"`
	}
	results := make([]*lockstep.Error, len(emails))
	rows := make([]row, 0, len(emails))
	place := make(map[string][]int, len(emails))
	for i, email := range emails {
		if problem := lockstep.CheckEmail(email); problem != "" {
			results[i] = lockstep.AsError(invalid(q.name(), "email", problem, ""))
			continue
		}
		key := lockstep.NormalizeEmail(email)
		if place[key] == nil {
			rows = append(rows, row{email})
		}
		place[key] = append(place[key], i)
	}
	if len(rows) == 0 {
		return results, nil
	}
	var answer struct {
		Suppressed []struct{ Email *string } `json:"suppressed"`
		NotFound   []struct{ Email *string } `json:"notFound"`
	}
	q.json = rows
	if err := c.do(ctx, q, object(&q, &answer, func() bool { return answer.Suppressed != nil || answer.NotFound != nil })); err != nil {
		return nil, err
	}
	done := make(map[string]bool, len(answer.Suppressed))
	for _, r := range answer.Suppressed {
		if r.Email != nil {
			done[lockstep.NormalizeEmail(*r.Email)] = true
		}
	}
	for _, r := range rows {
		key := lockstep.NormalizeEmail(r.Email)
		if done[key] {
			continue
		}
		at := place[key]
		// Unknown, or in the recycle bin: it must be blocked all the same before
		// somebody adds it.
		err := c.unsubscribe(ctx, emails[at[0]])
		switch e := lockstep.AsError(err); {
		case err == nil:
		case e.Code == lockstep.CodeInvalid || e.Code == lockstep.CodeConflict || e.Code == lockstep.CodeNotFound:
			for _, i := range at {
				results[i] = e
			}
		default:
			return nil, err
		}
	}
	return results, nil
}

// unsubscribe opts an address out of the account.
func (c *Client) unsubscribe(ctx context.Context, email string) error {
	q := call{op: "unsubscribe a contact", method: http.MethodPost, path: "/v2/contacts/unsubscribe", repeat: true}
	q.json = struct {
		Email string `json:"email"`
	}{email}
	var row wireSuppression
	return c.do(ctx, q, object(&q, &row, func() bool { return row.Contact != nil }))
}

// Resubscribe asks the service to mail an address again. The service writes to the
// person, who has to confirm unless the service knows better.
func (c *Client) Resubscribe(ctx context.Context, email string) (lockstep.Resubscribed, error) {
	q := call{op: "resubscribe a contact", method: http.MethodPost, path: "/v2/contacts/resubscribe", repeat: true}
	if problem := lockstep.CheckEmail(email); problem != "" {
		return 0, invalid(q.name(), "email", problem, "")
	}
	type contact struct {
		Email string `json:"email"`
	}
	q.json = struct {
		Contact contact `json:"unsubscribedContact"`
		Locale  string  `json:"preferredLocale"`
	}{contact{email}, ""}
	var answer struct {
		Status string `json:"status"`
	}
	if err := c.do(ctx, q, object(&q, &answer, func() bool { return answer.Status != "" })); err != nil {
		if lockstep.AsError(err).Upstream == "ERROR_CONTACT_RESUBSCRIPTION_INVALID" {
			return lockstep.ResubscribeDone, nil // it is not suppressed, or not any more
		}
		return 0, err
	}
	switch strings.ToLower(answer.Status) {
	case "contactadded":
		return lockstep.ResubscribeDone, nil
	case "contactchallenged":
		return lockstep.ResubscribeChallenged, nil
	case "contactcannotbeunsuppressed":
		return lockstep.ResubscribeImpossible, nil
	}
	return 0, senseless(&q, "the answer is a status that this call does not have", nil)
}
