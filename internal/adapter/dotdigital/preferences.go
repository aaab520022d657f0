package dotdigital

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/lockstep-sync/lockstep"
)

var _ lockstep.PreferenceKeeper = (*Client)(nil)

const (
	// choicePage is the most rows that the reads of a preference answer with.
	choicePage = 1000
	// fewContacts is up to how many contacts a call each is less than an import and
	// the question what became of it.
	fewContacts = 2
	// fewOptIns is the same for opting in, which the call each refuses whom the service
	// itself does not mail.
	fewOptIns = 100
	// maxCategories bounds how deep categories may lie in each other; the service's
	// own do not.
	maxCategories = 8
)

type wirePreference struct {
	ID           int32            `json:"id"`
	PublicName   string           `json:"publicName"`
	IsPreference *bool            `json:"isPreference"`
	IsPublic     bool             `json:"isPublic"`
	Preferences  []wirePreference `json:"preferences"`
}

// Preferences reads the marketing preferences of the account with one call, in the
// order in which people see them. Categories are told with the preferences in them.
func (c *Client) Preferences(ctx context.Context) ([]lockstep.Preference, error) {
	q := call{op: "read marketing preferences", method: http.MethodGet, path: "/v2/preferences", repeat: true}
	var tree []wirePreference
	if err := c.do(ctx, q, func(body []byte) error { tree = nil; return array(&q, &tree)(body) }); err != nil {
		return nil, err
	}
	var all []lockstep.Preference
	var walk func([]wirePreference, string, int) bool
	walk = func(level []wirePreference, category string, depth int) bool {
		for _, p := range level {
			switch {
			case p.ID <= 0 || p.IsPreference == nil || depth > maxCategories:
				return false
			case *p.IsPreference:
				all = append(all, lockstep.Preference{ID: strconv.Itoa(int(p.ID)), Name: p.PublicName, Category: category, Public: p.IsPublic})
			case !walk(p.Preferences, p.PublicName, depth+1):
				return false
			}
		}
		return true
	}
	if !walk(tree, "", 0) {
		return nil, senseless(&q, "the answer is no tree of marketing preferences", nil)
	}
	return all, nil
}

type wireOptIn struct {
	Contact *struct {
		ID    int64  `json:"id"`
		Email string `json:"email"`
	} `json:"contact"`
	OptIns []struct {
		Preference  int32  `json:"marketingPreferenceId"`
		IsOptedIn   bool   `json:"isOptedIn"`
		DateModifed string `json:"dateModifed"` // the service's own spelling
	} `json:"marketingPreferenceOptIns"`
}

// Choices reads who changed their mind about a preference, 1000 a call: one call when
// nothing happened. The rows come in order of the contacts' ids, so none is left out
// while others change. The cursor is the time of the newest row that was read, by the
// service's own clock; the next read goes back five minutes behind it, because a row
// may become visible a little after the time that it carries. Contacts that may not be
// mailed, and those without an address, do not come.
func (c *Client) Choices(ctx context.Context, preference string, since lockstep.Cursor, each func([]lockstep.PreferenceChoice) error) (lockstep.Cursor, error) {
	q := call{op: "read choices of a marketing preference", method: http.MethodGet, route: "/v2/contacts/with-preference/{id}/opt-ins-since/{date}", repeat: true}
	id, err := preferenceID(q.name(), preference)
	if err != nil {
		return "", err
	}
	from, newest := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}
	if since != "" {
		if newest, err = time.Parse(timeForm, string(since)); err != nil {
			return "", &lockstep.Error{
				Code: lockstep.CodeExpired, Op: q.name(), Scope: lockstep.ScopeBatch,
				Msg: "the mark of the last read is none of Dotdigital's", Hint: "read from the beginning",
			}
		}
		from = newest.Add(-overlap)
	}
	q.path = "/v2/contacts/with-preference/" + strconv.Itoa(int(id)) + "/opt-ins-since/" + from.Format(timeForm)
	// Whoever changes their mind behind the page that is being read, is read next time.
	var began time.Time
	for next := int64(1); ; {
		q.query = "minContactId=" + strconv.FormatInt(next, 10)
		var rows []wireOptIn
		complete := func() bool {
			for i := range rows {
				if rows[i].Contact == nil || rows[i].Contact.ID <= 0 {
					return false
				}
			}
			return true
		}
		if err := c.do(ctx, q, func(body []byte) error { rows = nil; return decode(&q, '[', &rows, complete)(body) }); err != nil {
			return "", err
		}
		if len(rows) >= choicePage && began.IsZero() {
			if began, err = c.serverTime(ctx); err != nil {
				return "", err
			}
		}
		page := make([]lockstep.PreferenceChoice, 0, len(rows))
		last := next - 1
		for i := range rows {
			w := &rows[i]
			last = max(last, w.Contact.ID)
			for _, o := range w.OptIns {
				if o.Preference != id {
					continue
				}
				choice := lockstep.PreferenceChoice{
					Contact: lockstep.ContactID(strconv.FormatInt(w.Contact.ID, 10)), Email: w.Contact.Email, Preference: preference, OptedIn: o.IsOptedIn,
				}
				if at, ok := parseInstant(o.DateModifed); ok && at.Unix() > 0 {
					choice.At = at.UTC()
				}
				if choice.At.After(newest) {
					newest = choice.At
				}
				page = append(page, choice)
			}
		}
		if len(rows) >= choicePage && last < next {
			return "", senseless(&q, "the listing does not advance from page to page", nil)
		}
		if len(page) > 0 {
			if err := each(page); err != nil {
				return "", err
			}
		}
		if len(rows) < choicePage {
			if newest.IsZero() {
				return since, nil
			}
			if !began.IsZero() && newest.After(began) {
				newest = began
			}
			return lockstep.Cursor(newest.UTC().Format(timeForm)), nil
		}
		next = last + 1
	}
}

func preferenceID(op, preference string) (int32, error) {
	n, err := strconv.ParseInt(preference, 10, 32)
	if err != nil || n <= 0 {
		return 0, invalid(op, "preference", "this is not the id of a marketing preference", "give the number that Dotdigital shows")
	}
	return int32(n), nil
}

// wireChoice is a choice as both ways of writing one take it.
type wireChoice struct {
	ID           int32 `json:"id"`
	IsPreference *bool `json:"isPreference,omitempty"`
	IsOptedIn    bool  `json:"isOptedIn"`
}

// chooser is one contact with what it chooses.
type chooser struct {
	contact lockstep.ContactID
	email   string
	said    []wireChoice
	at      []int // places in the call
}

// Choose writes choices: a call for each contact when they are one or two, or when the
// contact's id is not given; otherwise one import for every 10,000 contacts and the
// questions what became of it. Contacts that may not be mailed can refuse more; they
// are written by import, because the other call refuses them. To opt them in is refused:
// an import would do it, which is why opt-ins are imported only when they are many.
func (c *Client) Choose(ctx context.Context, choices []lockstep.PreferenceChoice) ([]*lockstep.Error, error) {
	const op = "write choices of marketing preferences"
	results := make([]*lockstep.Error, len(choices))
	who := map[string]*chooser{}
	var byID, byEmail []*chooser
	for i, choice := range choices {
		id, err := preferenceID("dotdigital: "+op, choice.Preference)
		problem := ""
		switch {
		case err != nil:
			results[i] = lockstep.AsError(err)
			continue
		case choice.Contact != "" && !wholeID(string(choice.Contact)):
			problem = "this is not the id of a contact"
		case choice.Contact == "":
			problem = lockstep.CheckEmail(lockstep.NormalizeEmail(choice.Email))
		}
		if problem != "" {
			results[i] = invalid("dotdigital: "+op, "email", problem, "")
			continue
		}
		key := string(choice.Contact)
		if key == "" {
			key = lockstep.NormalizeEmail(choice.Email)
		}
		p := who[key]
		if p == nil {
			p = &chooser{contact: choice.Contact, email: lockstep.NormalizeEmail(choice.Email)}
			who[key] = p
			if p.contact != "" {
				byID = append(byID, p)
			} else {
				byEmail = append(byEmail, p)
			}
		}
		p.said, p.at = append(p.said, wireChoice{ID: id, IsOptedIn: choice.OptedIn}), append(p.at, i)
	}
	alone := byEmail
	few := fewContacts
	if slices.ContainsFunc(choices, func(c lockstep.PreferenceChoice) bool { return c.OptedIn }) {
		few = fewOptIns
	}
	if len(byID) <= few {
		alone, byID = append(alone, byID...), nil
	}
	for _, p := range alone {
		refused, err := c.chooseAlone(ctx, p)
		if err != nil {
			return nil, err
		}
		if refused != nil && refused.Upstream == "ERROR_CONTACT_SUPPRESSED" {
			out := chooser{contact: p.contact, email: p.email}
			for k, w := range p.said {
				if w.IsOptedIn {
					results[p.at[k]] = refused
				} else {
					out.said, out.at = append(out.said, w), append(out.at, p.at[k])
				}
			}
			if len(out.said) == 0 {
				continue
			}
			*p = out
			if p.email != "" {
				known, err := c.Contact(ctx, p.email, nil)
				if err != nil {
					return nil, err
				}
				p.contact = known.ID
			}
			byID = append(byID, p)
			continue
		}
		for _, i := range p.at {
			results[i] = refused
		}
	}
	for len(byID) > 0 {
		n := min(len(byID), 10_000)
		if err := c.chooseTogether(ctx, byID[:n], results); err != nil {
			return nil, err
		}
		byID = byID[n:]
	}
	return results, nil
}

// chooseAlone writes what one contact chooses.
func (c *Client) chooseAlone(ctx context.Context, p *chooser) (*lockstep.Error, error) {
	q := call{op: "write a contact's marketing preferences", method: http.MethodPut, route: "/v2/contacts/{contact}/preferences", repeat: true}
	name := url.PathEscape(p.email) // it is the address that chose: the contact may have another one by now
	if p.email == "" {
		name = string(p.contact)
	}
	q.path = "/v2/contacts/" + name + "/preferences"
	yes := true
	said := make([]wireChoice, len(p.said))
	for i, w := range p.said {
		w.IsPreference = &yes
		said[i] = w
	}
	q.json = said
	err := c.do(ctx, q, func(body []byte) error {
		if len(bytes.TrimSpace(body)) > 0 {
			return senseless(&q, "the answer is not empty", nil) // somebody else's: nobody knows whether it was done
		}
		return nil
	})
	switch e := lockstep.AsError(err); {
	case err == nil:
		return nil, nil
	case e.Unknown:
		return nil, err
	case e.Upstream == "ERROR_PREFERENCE_NOT_FOUND":
		e.Code = lockstep.CodeInvalid // the contact is there
		return e, nil
	case e.Code == lockstep.CodeInvalid || e.Code == lockstep.CodeNotFound || e.Code == lockstep.CodeConflict || e.Upstream == "ERROR_CONTACT_SUPPRESSED":
		return e, nil
	}
	return nil, err
}

// chooseTogether writes what many contacts choose with one import, which changes
// nothing else of them.
func (c *Client) chooseTogether(ctx context.Context, people []*chooser, results []*lockstep.Error) error {
	q := call{op: "import marketing preferences", method: http.MethodPut, path: "/contacts/v3/import", repeat: true, rows: len(people)}
	type identifiers struct {
		Contact int64 `json:"contactId"`
	}
	type row struct {
		Match       string       `json:"matchIdentifier"`
		Identifiers identifiers  `json:"identifiers"`
		Preferences []wireChoice `json:"preferences"`
	}
	body := struct {
		Merge    string `json:"mergeOption"`
		Contacts []row  `json:"contacts"`
	}{Merge: "overwrite"}
	waiting := make(map[lockstep.ContactID]*chooser, len(people))
	for _, p := range people {
		id, err := strconv.ParseInt(string(p.contact), 10, 64)
		if err != nil {
			return invalid(q.name(), "contact", "this is not the id of a contact", "")
		}
		body.Contacts = append(body.Contacts, row{"contactId", identifiers{id}, p.said})
		waiting[p.contact] = p
	}
	q.json = body
	var accepted struct {
		ID string `json:"importId"`
	}
	if err := c.do(ctx, q, object(&q, &accepted, func() bool { return jobName(accepted.ID) })); err != nil {
		return err
	}
	err := c.awaitImport(ctx, accepted.ID, func(page []lockstep.ContactResult) error {
		for _, r := range page {
			if p := waiting[r.Contact]; p != nil {
				delete(waiting, r.Contact)
				for _, i := range p.at {
					results[i] = r.Fault
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range waiting {
		for _, i := range p.at {
			results[i] = &lockstep.Error{
				Code: lockstep.CodeNotFound, Op: q.name(), Field: "contact", Scope: lockstep.ScopeRecord,
				Msg: "the import does not tell what became of the contact", Hint: "it is tried again",
			}
		}
	}
	return nil
}
