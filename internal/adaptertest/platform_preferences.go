package adaptertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// asker returns the platform as one with marketing preferences; one without cannot
// pass these tests, and its suite must not ask for them.
func (s *platformSuite) asker() lockstep.PreferenceKeeper {
	k, ok := s.p.(lockstep.PreferenceKeeper)
	if !ok {
		s.Fatal("the platform has no marketing preferences")
	}
	return k
}

// choices reads the choices for a preference as "address" → opted in, and checks that
// each row is whole.
func (s *platformSuite) choices(preference string, since lockstep.Cursor) (map[string]bool, lockstep.Cursor) {
	s.Helper()
	got := map[string]bool{}
	next, err := s.asker().Choices(s.ctx, preference, since, func(page []lockstep.PreferenceChoice) error {
		for _, c := range page {
			if c.Contact == "" || c.At.IsZero() || c.Preference != preference {
				s.Errorf("a choice lacks something: %+v", c)
			}
			got[lockstep.NormalizeEmail(c.Email)] = c.OptedIn
		}
		return nil
	})
	if err != nil {
		s.Fatalf("Choices: %v", err)
	}
	return got, next
}

// choose writes choices while time passes, for platforms that do it by a job.
func (s *platformSuite) choose(choices ...lockstep.PreferenceChoice) ([]*lockstep.Error, error) {
	s.Helper()
	type outcome struct {
		res []*lockstep.Error
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := s.asker().Choose(s.ctx, choices)
		done <- outcome{res, err}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case o := <-done:
			return o.res, o.err
		case <-tick.C:
			s.fix.Pass(time.Second)
		}
	}
}

func (s *platformSuite) chosen(choices ...lockstep.PreferenceChoice) {
	s.Helper()
	res, err := s.choose(choices...)
	if err != nil {
		s.Fatalf("Choose: %v", err)
	}
	for i, e := range res {
		if e != nil {
			s.Errorf("choice %d is refused: %v", i, e)
		}
	}
}

func has(m map[string]bool, key string) bool { _, ok := m[key]; return ok }

func choice(email, preference string, in bool) lockstep.PreferenceChoice {
	return lockstep.PreferenceChoice{Email: email, Preference: preference, OptedIn: in}
}

func (s *platformSuite) preferences() {
	got, err := s.asker().Preferences(s.ctx)
	if err != nil || len(got) != 0 {
		s.Fatalf("an account without preferences has %+v (%v)", got, err)
	}
	news, offers := s.fix.Preference(s, "", "News"), s.fix.Preference(s, "Channels", "Offers & more")
	if got, err = s.asker().Preferences(s.ctx); err != nil {
		s.Fatal(err)
	}
	slices.SortFunc(got, func(a, b lockstep.Preference) int { return len(a.Category) - len(b.Category) })
	want := []lockstep.Preference{{ID: news, Name: "News", Public: true}, {ID: offers, Name: "Offers & more", Category: "Channels", Public: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("preferences (-want +got):\n%s", diff)
	}
}

func (s *platformSuite) choicesSince() {
	s.load(nil, row("ann@example.com"), row("bob@example.com"), row("cid@example.com"))
	news, offers := s.fix.Preference(s, "", "News"), s.fix.Preference(s, "", "Offers")
	if got, _ := s.choices(news, ""); len(got) != 0 {
		s.Errorf("nobody chose and %v came", got)
	}
	s.fix.Choose(s, "ann@example.com", news, true)
	s.fix.Choose(s, "bob@example.com", news, false)
	s.fix.Choose(s, "cid@example.com", offers, true)
	got, since := s.choices(news, "")
	if diff := cmp.Diff(map[string]bool{"ann@example.com": true, "bob@example.com": false}, got); diff != "" {
		s.Errorf("from the beginning (-want +got):\n%s", diff)
	}
	s.fix.Pass(time.Hour)
	s.fix.Choose(s, "bob@example.com", news, true)
	if got, since = s.choices(news, since); !got["bob@example.com"] {
		s.Errorf("after Bob changed his mind: %v", got)
	}
	s.fix.Pass(time.Hour)
	if got, _ = s.choices(news, since); len(got) > 1 {
		s.Errorf("when nothing happened: %v", got)
	}
	s.fix.Pass(-time.Hour - time.Minute) // a choice may show a while after its time
	s.fix.Choose(s, "ann@example.com", news, false)
	s.fix.Pass(time.Hour)
	if got, _ = s.choices(news, since); !has(got, "ann@example.com") || got["ann@example.com"] {
		s.Errorf("after Ann's choice showed late: %v", got)
	}
	_, err := s.asker().Choices(s.ctx, news, "no cursor", nil)
	s.wantCode(err, lockstep.CodeExpired)
	_, err = s.asker().Choices(s.ctx, "no preference", "", nil)
	s.wantCode(err, lockstep.CodeInvalid)
	_, err = s.asker().Choices(s.ctx, "2000000000", "", nil)
	s.wantCode(err, lockstep.CodeNotFound)
}

func (s *platformSuite) choicesPaged() {
	const n = 2300
	rows := make([]lockstep.ContactWrite, n)
	for i := range rows {
		rows[i] = row(fmt.Sprintf("p%04d@example.com", i))
	}
	contact := s.load(nil, rows...)
	news := s.fix.Preference(s, "", "News")
	all := make([]lockstep.PreferenceChoice, n)
	for i := range all {
		all[i] = choice(rows[i].Email, news, i%2 == 0)
		all[i].Contact = contact[rows[i].Email].Contact
	}
	s.chosen(all...)
	got := map[string]bool{}
	first := true
	since, err := s.asker().Choices(s.ctx, news, "", func(page []lockstep.PreferenceChoice) error {
		for _, c := range page {
			got[c.Email] = true
		}
		if first { // somebody behind the page changes their mind, and much later somebody before it
			first = false
			s.fix.Choose(s, rows[0].Email, news, false)
			s.fix.Pass(time.Hour)
			s.fix.Choose(s, rows[n-1].Email, news, true)
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	if len(got) != n {
		s.Errorf("%d of %d choices were read", len(got), n)
	}
	late, _ := s.choices(news, since)
	if in, read := late[rows[0].Email]; in || !read {
		s.Errorf("who changed their mind during the read is not read by the next one, which has %d rows", len(late))
	}
}

func (s *platformSuite) chooses() {
	news, offers := s.fix.Preference(s, "", "News"), s.fix.Preference(s, "Channels", "Offers")
	loaded := s.load(nil, row("ann@example.com"), row("bob@example.com"), row("cid@example.com"), row("dan@example.com"), row("eve@example.com"))
	s.fix.Unsubscribe(s, "eve@example.com")
	before, _ := s.read(lockstep.ContactQuery{})
	s.fix.Choose(s, "ann@example.com", offers, true)
	of := func(email, preference string, in bool) lockstep.PreferenceChoice {
		c := choice(email, preference, in)
		c.Contact = loaded[email].Contact
		return c
	}
	for range 2 { // twice is as good as once
		// One at a time, by id and by address, and several at a time.
		s.chosen(of("ann@example.com", news, true))
		s.chosen(choice("Bob@Example.com", news, false), choice("bob@example.com", offers, true))
		s.chosen(of("cid@example.com", news, true), of("dan@example.com", news, false), of("cid@example.com", offers, false), of("bob@example.com", news, false))
		s.chosen(of("eve@example.com", news, false))
		s.chosen(choice("eve@example.com", offers, false))
	}
	got, _ := s.choices(news, "")
	if diff := cmp.Diff(map[string]bool{"ann@example.com": true, "bob@example.com": false, "cid@example.com": true, "dan@example.com": false}, got); diff != "" {
		s.Errorf("news (-want +got):\n%s", diff)
	}
	got, _ = s.choices(offers, "")
	if diff := cmp.Diff(map[string]bool{"ann@example.com": true, "bob@example.com": true, "cid@example.com": false}, got); diff != "" {
		s.Errorf("offers (-want +got):\n%s", diff)
	}
	after, _ := s.read(lockstep.ContactQuery{})
	for e, c := range before {
		if after[e].Standing != c.Standing {
			s.Errorf("%s was %s and is %s", e, c.Standing, after[e].Standing)
		}
	}
	if len(after) != len(before) {
		s.Errorf("there were %d contacts and are %d", len(before), len(after))
	}
}

func (s *platformSuite) chooseRefused() {
	news := s.fix.Preference(s, "", "News")
	loaded := s.load(nil, row("ann@example.com"), row("bob@example.com"), row("cid@example.com"))
	by := func(id lockstep.ContactID, preference string) lockstep.PreferenceChoice {
		return lockstep.PreferenceChoice{Contact: id, Preference: preference, OptedIn: true}
	}
	ann, bob, cid := loaded["ann@example.com"].Contact, loaded["bob@example.com"].Contact, loaded["cid@example.com"].Contact
	res, err := s.choose(
		choice("nobody@example.com", news, true), choice("no address", news, true), by(ann, "nonsense"), by("none", news),
		by("99999999", news), by(ann, news), by(bob, news), by(cid, "2000000000"),
	)
	if err != nil {
		s.Fatal(err)
	}
	want := []lockstep.Code{lockstep.CodeNotFound, lockstep.CodeInvalid, lockstep.CodeInvalid, lockstep.CodeInvalid, lockstep.CodeNotFound, "", "", lockstep.CodeInvalid}
	for i, e := range res {
		code := lockstep.Code("")
		if e != nil {
			code = e.Code
		}
		if code != want[i] {
			s.Errorf("choice %d: %q (%v), want %q", i, code, e, want[i])
		}
	}
	if got, _ := s.choices(news, ""); len(got) != 2 || !got["ann@example.com"] || !got["bob@example.com"] {
		s.Errorf("of those that were not refused there are %v", got)
	}
	contacts, _ := s.read(lockstep.ContactQuery{})
	if _, made := contacts["nobody@example.com"]; made {
		s.Error("a choice made a contact")
	}
}

func (s *platformSuite) chooseLost() {
	news := s.fix.Preference(s, "", "News")
	loaded := s.load(nil, row("ann@example.com"), row("bob@example.com"), row("cid@example.com"))
	var all []lockstep.PreferenceChoice
	for e, r := range loaded {
		all = append(all, lockstep.PreferenceChoice{Contact: r.Contact, Email: e, Preference: news})
	}
	s.fix.LoseAnswer(s)
	if _, err := s.choose(all...); err != nil {
		if !lockstep.IsUnknown(err) {
			s.Errorf("a lost answer: %v", err)
		}
		s.chosen(all...)
	}
	if got, _ := s.choices(news, ""); len(got) != 3 {
		s.Errorf("the choices got lost with their answer: %v", got)
	}
}
