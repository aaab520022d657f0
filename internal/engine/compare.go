package engine

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// The platform's listings of opt-outs are compared as a whole with what is known every
// compareEvery, as long as that takes fewCalls, and otherwise every compareRarely.
const (
	compareEvery  = time.Hour
	compareRarely = 24 * time.Hour
	fewCalls      = 10
)

// compareListings reads listings from their beginning now and then, after everybody was
// told of what they said since the last time. Who opted out without that having told of
// it is heard now, and told. It can wait, and so leaves a part of the budget to others.
func (s *session) compareListings(mark string, listings func() ([]*listing, error)) error {
	if s.dry() {
		return nil
	}
	due, err := s.compareDue(mark)
	if err != nil || !due {
		return err
	}
	all, err := listings()
	if err != nil {
		return err
	}
	s.stage("comparing the opt-outs of the email account with those that are known")
	began, before, heard := s.e.Now(), s.meter.Calls().Platform, s.totals().OptOutsSeen
	for _, l := range all {
		err := s.compare(l)
		if errors.Is(err, lockstep.ErrBudget) {
			return nil // the next run does it
		}
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound { // the book is gone; the list sync sees to it
			return err
		}
	}
	if err := s.compared(mark, began, s.meter.Calls().Platform-before); err != nil || s.totals().OptOutsSeen == heard {
		return err
	}
	return s.tell()
}

// compareDue reports whether it is time again. The first time is a while after the
// listings were first heard: that has just read them as a whole.
func (s *session) compareDue(mark string) (bool, error) {
	stored, err := s.e.Store.Cursor(s.ctx, s.account.ID, mark)
	if err != nil {
		return false, err
	}
	at, calls, _ := strings.Cut(string(stored), " ")
	last, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return false, s.compared(mark, s.e.Now(), 0)
	}
	every := compareEvery
	if n, _ := strconv.Atoi(calls); n > fewCalls {
		every = compareRarely
	}
	past := s.e.Now().Sub(last)
	return past >= every || past < 0, nil
}

// compared keeps when listings were last compared and how many calls that took.
func (s *session) compared(mark string, began time.Time, calls int64) error {
	doc := began.UTC().Format(time.RFC3339) + " " + strconv.FormatInt(calls, 10)
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{mark: lockstep.Cursor(doc)}})
}

// compare hears what a listing says and nobody has heard. What it has said since it was
// last heard was not missed, so it is asked for that once more before.
func (s *session) compare(l *listing) error {
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, l.cursor)
	if err != nil || since == "" { // it is read as a whole each time
		return err
	}
	var missed []statement
	_, err = l.read(lockstep.WithPatience(s.ctx), "", func(page []lockstep.Suppression) error {
		news, err := s.unknown(l.statements(page))
		missed = append(missed, news...)
		return cmp.Or(err, s.cancelled())
	})
	if err != nil || len(missed) == 0 {
		return err
	}
	if missed, err = s.notElsewhere(missed); err != nil || len(missed) == 0 {
		return err
	}
	if err := s.hearListing(l); err != nil {
		return err
	}
	for i := range missed {
		missed[i].missed = true
	}
	for part := range slices.Chunk(missed, consentPage) {
		if err := s.hear(part); err != nil {
			return err
		}
	}
	return nil
}

// noteMissed counts an opt-out that was missed and lets people know of it.
func (s *session) noteMissed(n *lockstep.Counts, st *statement) {
	n.OptOutsMissed++
	f := lockstep.Finding{
		Code: lockstep.FindingOptOutMissed, Contact: st.contact,
		Message: "the email account lists an opt-out that it had not told of when it was made; it counts from now on",
		Hint:    "the consent ledger says since when it stands; look at what was mailed to the contact in between",
	}
	if st.scope == lockstep.ScopeList {
		f.List = st.object
	}
	s.finding(f)
}

// unknown are those statements that would be an opt-out nobody knows of.
func (s *session) unknown(said []statement) ([]statement, error) {
	if len(said) == 0 {
		return nil, nil
	}
	keys := make([]lockstep.AddressKey, len(said))
	entries := make([]lockstep.ConsentEntry, len(said))
	for i := range said {
		keys[i] = s.e.Store.AddressKey(said[i].email)
		entries[i] = s.entry(&said[i], keys[i])
	}
	known, err := s.standing(keys)
	if err != nil {
		return nil, err
	}
	noted, err := s.noted(entries)
	if err != nil {
		return nil, err
	}
	var out []statement
	for i := range said {
		st := &said[i]
		var r *lockstep.Restriction
		if x, ok := known[lockstep.RestrictionID(s.account.ID, st.scope, st.object, keys[i])]; ok {
			r = &x
		}
		if lockstep.CheckEmail(st.email) == "" && weigh(r, st, noted[entries[i].ID], time.Time{}) == saidAnew && !listedAs(r, st) {
			out = append(out, *st)
		}
	}
	return out, nil
}

// listedAs reports whether a statement is about the act by which the platform closed to
// what a restriction is about. Another reason for it is no other act.
func listedAs(r *lockstep.Restriction, st *statement) bool {
	return r != nil && !st.at.IsZero() && r.ListedSince().Equal(st.at)
}

// notElsewhere leaves out what was heard of the same contact when it had another address:
// a contact takes what it is closed to along, and nobody has opted out anew.
func (s *session) notElsewhere(said []statement) ([]statement, error) {
	by := map[lockstep.ContactID][]int{}
	for i := range said {
		by[said[i].contact] = append(by[said[i].contact], i)
	}
	heard := make([]bool, len(said))
	err := s.e.Store.RestrictedSince(s.ctx, s.account.ID, 0, func(r lockstep.Restriction) error {
		for _, i := range by[r.Contact] {
			heard[i] = heard[i] || sameAct(&r, &said[i], r.ListedSince())
		}
		for contact, at := range r.Former {
			for _, i := range by[contact] {
				heard[i] = heard[i] || sameAct(&r, &said[i], at)
			}
		}
		return nil
	})
	out := said[:0]
	for i := range said {
		if !heard[i] {
			out = append(out, said[i])
		}
	}
	return out, err
}

// sameAct reports whether a statement tells of the act by which the platform closed to its
// contact at a time, when it had the address of a restriction.
func sameAct(r *lockstep.Restriction, st *statement, closed time.Time) bool {
	return st.contact != "" && r.Scope == st.scope && r.Object == st.object && !st.at.After(closed)
}
