package engine

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// unsubscribes is the run of the type: who left a single list on the platform leaves
// the marketing list too.
func (s *session) unsubscribes() error {
	if err := s.beginConsent(); err != nil {
		return err
	}
	if !s.foreignPlatform && s.awayPlatform == nil {
		if err := s.hearUnsubscribes(); err != nil {
			return err
		}
	}
	if err := s.away(); err != nil {
		return err
	}
	if err := s.rowsLate(lockstep.UnsubscriberTable, lockstep.ScopeList); err != nil {
		return err
	}
	if err := s.tell(); err != nil {
		return err
	}
	return s.compareListings("consent/compared/lists", s.bookListings)
}

// booked are the settings of the lists that have an address book.
func (s *session) booked() ([]lockstep.ListSettings, error) {
	lists, err := s.e.Store.Lists(s.ctx, s.account.ID)
	return slices.DeleteFunc(lists, func(l lockstep.ListSettings) bool { return !l.Activated || l.Gone || l.Book == "" }), err
}

func (s *session) bookListings() ([]*listing, error) {
	lists, err := s.booked()
	all := make([]*listing, len(lists))
	for i := range lists {
		all[i] = s.bookListing(lists[i])
	}
	return all, err
}

// hearUnsubscribes notes who left the address books of the account's lists.
func (s *session) hearUnsubscribes() error {
	lists, err := s.booked()
	if err != nil {
		return err
	}
	s.stage("reading unsubscribes from lists")
	ask, next, err := s.booksToAsk(lists)
	if err != nil {
		return err
	}
	for _, l := range lists {
		if ask != nil && !ask[l.Book] {
			continue
		}
		if err := s.hearList(l); err != nil {
			return err
		}
	}
	if next == "" {
		return nil
	}
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{booksAsked: next}})
}

// roundEvery is how often runs that begin by themselves ask every address book who left
// it. In between they go by the contacts' modification time, of which the platform's
// documentation does not say in so many words that leaving a list moves it.
const roundEvery = time.Hour

// booksAsked is the cursor of what is known of the books: an askedBooks as JSON.
const booksAsked = "consent/books"

type askedBooks struct {
	Round time.Time         `json:"round"` // when all of them were asked last
	Books []lockstep.BookID `json:"books"` // those that were
	Mark  lockstep.Cursor   `json:"mark"`  // up to where changed contacts were looked at
}

// booksToAsk says which address books to ask who left them; nil = all. A question costs a
// call a book, most of them in vain. A run that a person asked for asks all the same; one
// that began by itself asks the books in which some contact changed, and every hour all
// of them. next is the cursor to store once they answered; empty = none.
func (s *session) booksToAsk(lists []lockstep.ListSettings) (ask map[lockstep.BookID]bool, next lockstep.Cursor, err error) {
	watcher, ok := s.platform.(lockstep.BookWatcher)
	if !ok || !s.run.Scheduled || s.dry() || len(lists) < 2 {
		return nil, "", nil
	}
	stored, err := s.e.Store.Cursor(s.ctx, s.account.ID, booksAsked)
	if err != nil {
		return nil, "", err
	}
	var was askedBooks
	if json.Unmarshal([]byte(stored), &was) != nil {
		was = askedBooks{} // begin anew
	}
	changed, all, mark, err := watcher.BooksOfChanged(s.ctx, was.Mark)
	if lockstep.CodeOf(err) == lockstep.CodeExpired {
		changed, all, mark, err = watcher.BooksOfChanged(s.ctx, "")
	}
	if err != nil {
		return nil, "", err
	}
	now := s.e.Now()
	if age := now.Sub(was.Round); age < 0 || age >= roundEvery {
		all = true
	}
	is := askedBooks{Round: was.Round, Mark: mark}
	if all {
		is.Round = now
	} else {
		ask = make(map[lockstep.BookID]bool, len(changed))
		for _, b := range changed {
			ask[b] = true
		}
	}
	for _, l := range lists {
		is.Books = append(is.Books, l.Book)
		if ask != nil && !slices.Contains(was.Books, l.Book) {
			ask[l.Book] = true
		}
	}
	slices.Sort(is.Books)
	doc, err := json.Marshal(is)
	return ask, lockstep.Cursor(doc), err
}

func (s *session) hearList(l lockstep.ListSettings) error {
	err := s.hearListing(s.bookListing(l))
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return nil // the book is gone; the list sync sees to it
	}
	return err
}

// bookListing is the listing of those who left a list's address book.
func (s *session) bookListing(l lockstep.ListSettings) *listing {
	return &listing{
		cursor: "consent/list/" + l.ID + "/" + string(l.Book),
		read: func(ctx context.Context, since lockstep.Cursor, each func([]lockstep.Suppression) error) (lockstep.Cursor, error) {
			return s.platform.(lockstep.SuppressionKeeper).Unsubscribes(ctx, l.Book, since, each)
		},
		says: func(r *lockstep.Suppression) (statement, bool) {
			return statement{
				email: lockstep.NormalizeEmail(r.Email), scope: lockstep.ScopeList, object: l.ID, contact: r.Contact, reason: lockstep.Unsubscribed,
				system: lockstep.ConsentPlatform, at: r.At, why: "unsubscribed from the list " + l.Name, told: []string{toldPlatform},
			}, true
		},
	}
}

// tellLists takes people out of the marketing lists that they left on the platform.
// The members of a dynamic list follow from its query alone.
func (s *session) tellLists(rs []*lockstep.Restriction) error {
	rs = waiting(rs, toldFlags)
	if len(rs) == 0 {
		return nil
	}
	lists, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	for _, l := range lists {
		mine := slices.DeleteFunc(slices.Clone(rs), func(r *lockstep.Restriction) bool { return r.Object != l.ID })
		if len(mine) == 0 {
			continue
		}
		if !l.Dynamic && !l.Gone {
			if err := s.leaveList(l, mine); err != nil {
				return err
			}
			continue
		}
		for _, r := range mine {
			r.Told[toldFlags] = s.e.Now()
		}
	}
	for _, r := range rs {
		if !slices.ContainsFunc(lists, func(l lockstep.ListSettings) bool { return l.ID == r.Object }) {
			r.Told[toldFlags] = s.e.Now() // the list is not kept in step any more
		}
	}
	return nil
}

func (s *session) leaveList(l lockstep.ListSettings, rs []*lockstep.Restriction) error {
	t := s.telling(rs, "taken out of the marketing list", "the CRM refused to take the record out of the list "+l.Name)
	recs, err := t.find(l.MemberTable, func(*lockstep.Record) bool { return true })
	if err != nil {
		return err
	}
	err = t.write(recs, lockstep.Change{Kind: lockstep.RemoveFromList, List: l.CRMID}, lockstep.Counts{ListRemovals: 1}, func(part []lockstep.Record) ([]*lockstep.Error, error) {
		ids := make([]lockstep.ID, len(part))
		for i := range part {
			ids[i] = part[i].ID
		}
		return s.crm.RemoveMembers(s.ctx, l.CRMID, ids)
	})
	if err != nil {
		return err
	}
	t.done()
	return nil
}

// tellListRows writes a row of our own table for each person who left a list.
func (s *session) tellListRows(rs []*lockstep.Restriction) error {
	rs = waiting(rs, toldRow)
	if len(rs) == 0 {
		return nil
	}
	lists, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	byID := make(map[string]lockstep.ListSettings, len(lists))
	for _, l := range lists {
		byID[l.ID] = l
	}
	return s.writeRows(rs, lockstep.UnsubscriberTable, func(r *lockstep.Restriction) []lockstep.ColumnValue {
		l := byID[r.Object]
		return []lockstep.ColumnValue{
			{Column: lockstep.ListIDColumn, Value: lockstep.TextValue(l.CRMID.String())},
			{Column: lockstep.ListNameColumn, Value: lockstep.TextValue(l.Name)},
			{Column: lockstep.ReasonColumn, Value: lockstep.TextValue(r.Reason.String())},
		}
	})
}
