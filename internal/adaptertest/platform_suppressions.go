package adaptertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// keeper returns the platform as one that keeps suppressions; one that does not
// cannot pass these tests, and its suite must not ask for them.
func (s *platformSuite) keeper() lockstep.SuppressionKeeper {
	k, ok := s.p.(lockstep.SuppressionKeeper)
	if !ok {
		s.Fatal("the platform keeps no suppressions")
	}
	return k
}

func (s *platformSuite) suppressions(since lockstep.Cursor) (map[string]lockstep.Suppression, lockstep.Cursor) {
	s.Helper()
	got := map[string]lockstep.Suppression{}
	next, err := s.keeper().Suppressions(s.ctx, since, func(page []lockstep.Suppression) error {
		for _, r := range page {
			got[lockstep.NormalizeEmail(r.Email)] = r
		}
		return nil
	})
	if err != nil {
		s.Fatalf("Suppressions: %v", err)
	}
	return got, next
}

func (s *platformSuite) suppressionsSince() {
	s.load(nil, row("ann@example.com"), row("bob@example.com"), row("cid@example.com"))
	got, since := s.suppressions("")
	if len(got) != 0 {
		s.Errorf("nobody is suppressed and %d rows came", len(got))
	}
	s.fix.Unsubscribe(s, "ann@example.com")
	got, since = s.suppressions(since)
	ann, ok := got["ann@example.com"]
	if !ok || ann.Reason != lockstep.Unsubscribed || ann.At.IsZero() || ann.Contact == "" {
		s.Errorf("after Ann left: %+v", got)
	}
	s.fix.Pass(time.Hour)
	s.fix.Unsubscribe(s, "bob@example.com")
	if got, since = s.suppressions(since); got["bob@example.com"].Reason != lockstep.Unsubscribed {
		s.Errorf("after Bob left too: %+v", got)
	}
	s.fix.Pass(time.Hour)
	if got, _ = s.suppressions(since); len(got) > 1 || len(got) == 1 && got["bob@example.com"].Email == "" {
		s.Errorf("when nothing happened: %+v", got)
	}
	if got, _ = s.suppressions(""); len(got) != 2 {
		s.Errorf("from the beginning: %+v", got)
	}
}

func (s *platformSuite) suppressionsPaged() {
	const n = 2500
	rows := make([]lockstep.ContactWrite, n)
	emails := make([]string, n)
	for i := range rows {
		emails[i] = fmt.Sprintf("p%04d@example.com", i)
		rows[i] = row(emails[i])
	}
	s.load(nil, rows...)
	for part := range slices.Chunk(emails, s.keeper().MaxSuppress()) {
		if res, err := s.keeper().Suppress(s.ctx, part); err != nil || slices.ContainsFunc(res, func(e *lockstep.Error) bool { return e != nil }) {
			s.Fatalf("Suppress: %v %v", err, res)
		}
	}
	// Somebody comes back between two pages: the rows behind move up.
	got := map[string]bool{}
	first := true
	_, err := s.keeper().Suppressions(s.ctx, "", func(page []lockstep.Suppression) error {
		for _, r := range page {
			got[r.Email] = true
		}
		if first {
			first = false
			for _, e := range emails[:20] {
				s.fix.Resubscribe(s, e)
			}
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	if len(got) != n {
		s.Errorf("%d of %d suppressed people were read", len(got), n)
	}
}

func (s *platformSuite) unsubscribesSince() {
	a, b := s.book("Some"), s.book("Others")
	in := func(email string, books ...lockstep.BookID) lockstep.ContactWrite {
		w := row(email)
		w.Books = books
		return w
	}
	s.load(nil, in("ann@example.com", a.ID, b.ID), in("bob@example.com", a.ID))
	read := func(book lockstep.BookID, since lockstep.Cursor) ([]string, lockstep.Cursor) {
		var got []string
		next, err := s.keeper().Unsubscribes(s.ctx, book, since, func(page []lockstep.Suppression) error {
			for _, r := range page {
				got = append(got, r.Email)
				if r.At.IsZero() {
					s.Errorf("%+v tells no time", r)
				}
			}
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
		return got, next
	}
	if got, _ := read(a.ID, ""); len(got) != 0 {
		s.Errorf("nobody left and %v came", got)
	}
	s.fix.UnsubscribeFrom(s, a.ID, "ann@example.com")
	got, since := read(a.ID, "")
	if !slices.Equal(got, []string{"ann@example.com"}) {
		s.Errorf("who left: %v", got)
	}
	if got, _ := read(b.ID, ""); len(got) != 0 {
		s.Errorf("who left the other book: %v", got)
	}
	s.fix.Pass(time.Hour)
	s.fix.UnsubscribeFrom(s, a.ID, "bob@example.com")
	if got, _ = read(a.ID, since); !slices.Contains(got, "bob@example.com") {
		s.Errorf("who left later: %v", got)
	}
}

func (s *platformSuite) suppress() {
	s.load(nil, row("ann@example.com"), row("bob@example.com"))
	s.fix.Unsubscribe(s, "bob@example.com")
	for range 2 { // twice is as good as once
		res, err := s.keeper().Suppress(s.ctx, []string{"Ann@Example.com", "bob@example.com", "new@example.com", "not an address", "ann@example.com"})
		if err != nil {
			s.Fatal(err)
		}
		for i, e := range res {
			if (e != nil) != (i == 3) {
				s.Errorf("address %d: %v", i, e)
			}
		}
	}
	got, _ := s.suppressions("")
	for _, e := range []string{"ann@example.com", "bob@example.com", "new@example.com"} {
		if got[e].Reason.Mailable() || got[e].Email == "" {
			s.Errorf("%s is not suppressed: %+v", e, got[e])
		}
	}
	contacts, _ := s.read(lockstep.ContactQuery{})
	for e, c := range contacts {
		if c.Standing.Mailable() {
			s.Errorf("%s is %s", e, c.Standing)
		}
	}
	if _, err := s.keeper().Suppress(s.ctx, make([]string, s.keeper().MaxSuppress()+1)); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		s.Errorf("too many addresses: %v", err)
	}
}

func (s *platformSuite) suppressLost() {
	s.load(nil, row("ann@example.com"))
	s.fix.LoseAnswer(s)
	if _, err := s.keeper().Suppress(s.ctx, []string{"ann@example.com"}); err != nil && !lockstep.IsUnknown(err) {
		s.Errorf("a lost answer: %v", err)
	}
	if got, _ := s.suppressions(""); got["ann@example.com"].Email == "" {
		s.Error("the suppression got lost with its answer")
	}
}

func (s *platformSuite) resubscribe() {
	s.load(nil, row("ann@example.com"), row("bob@example.com"))
	s.fix.Unsubscribe(s, "ann@example.com")
	got, err := s.keeper().Resubscribe(s.ctx, "ann@example.com")
	if err != nil || got != lockstep.ResubscribeDone && got != lockstep.ResubscribeChallenged {
		s.Fatalf("Resubscribe: %v %v", got, err)
	}
	if got == lockstep.ResubscribeChallenged {
		if now, _ := s.suppressions(""); now["ann@example.com"].Email == "" {
			s.Error("she is mailed before she confirmed")
		}
	}
	if _, err := s.keeper().Resubscribe(s.ctx, "nobody@example.com"); lockstep.CodeOf(err) != lockstep.CodeNotFound {
		s.Errorf("somebody unknown: %v", err)
	}
	if _, err := s.keeper().Resubscribe(s.ctx, "nonsense"); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		s.Errorf("no address: %v", err)
	}
}
