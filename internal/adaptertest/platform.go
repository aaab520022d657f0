package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// PlatformFixture is what the suite does on the platform's own side, past the
// adapter: what people and time do there.
type PlatformFixture struct {
	// SystemBook is the name of an address book that the platform keeps for itself.
	SystemBook string
	// SystemField is the name of a data field that the platform keeps itself.
	SystemField string
	// BadEmail is an address that the platform refuses although it looks like one.
	BadEmail string
	// ActiveImports is how many imports may be under way at once; 0 = no limit.
	ActiveImports int

	// Pass lets time pass on the platform; jobs end within a minute of it.
	Pass func(d time.Duration)
	// Unsubscribe opts the holder of an address out of everything.
	Unsubscribe func(t testing.TB, email string)
	// UnsubscribeFrom opts the holder of an address out of one address book.
	UnsubscribeFrom func(t testing.TB, book lockstep.BookID, email string)
	// Resubscribe lets the holder of an address come back by the platform's own form.
	Resubscribe func(t testing.TB, email string)
	// Preference makes a marketing preference in a category, which is made with it; an
	// empty one is none. It returns the preference's id.
	Preference func(t testing.TB, category, name string) string
	// Choose lets the holder of an address choose in the preference centre.
	Choose func(t testing.TB, email, preference string, in bool)
	// LoseAnswer lets the next call that changes something take effect and drops
	// its answer.
	LoseAnswer func(t testing.TB)
}

// Platform checks an adapter against every promise of lockstep.Platform. open
// returns an adapter to a new, empty account each time. Jobs of the account must
// not end before Pass lets them.
func Platform(t *testing.T, open func(t *testing.T) (lockstep.Platform, PlatformFixture)) {
	tests := []struct {
		name string
		run  func(*platformSuite)
	}{
		{"Identity says who answers", (*platformSuite).identity},
		{"every method obeys its context and answers with Error", (*platformSuite).cancelled},
		{"methods are safe for concurrent use", (*platformSuite).concurrent},
		{"Fields reads all fields, the platform's own included", (*platformSuite).fields},
		{"CreateField makes a field of each type", (*platformSuite).createField},
		{"CreateField accepts an equal field and refuses another type", (*platformSuite).createFieldAgain},
		{"CreateField refuses a malformed field", (*platformSuite).createFieldMalformed},
		{"CreateField survives a lost answer", (*platformSuite).createFieldLost},
		{"Books reads all address books, the platform's own included", (*platformSuite).books},
		{"CreateBook refuses taken, reserved and malformed names", (*platformSuite).createBookRefused},
		{"CreateBook survives a lost answer", (*platformSuite).createBookLost},
		{"RenameBook renames", (*platformSuite).renameBook},
		{"RemoveFromBook removes from the book and keeps the contact", (*platformSuite).removeFromBook},
		{"RemoveFromBook refuses more than MaxRemove", (*platformSuite).removeTooMany},
		{"AwaitRemoval says when a removal has not ended", (*platformSuite).removalPending},
		{"Contacts reads all contacts", (*platformSuite).contacts},
		{"Contacts since a cursor reads the changed ones and leaves none out", (*platformSuite).contactsSince},
		{"Contacts of one book", (*platformSuite).contactsOfBook},
		{"Contacts delivers values in the order of the query", (*platformSuite).contactValues},
		{"Contacts delivers memberships only when asked", (*platformSuite).contactMemberships},
		{"Contacts tells standing", (*platformSuite).contactStanding},
		{"Contacts returns the callee's error as it is", (*platformSuite).contactsStopped},
		{"Contact reads one contact by its address", (*platformSuite).contact},
		{"Import creates and updates and names every row", (*platformSuite).importRows},
		{"Import leaves Absent alone and clears Null", (*platformSuite).importAbsentNull},
		{"Import keeps every value as it was given", (*platformSuite).importValues},
		{"Import by contact changes the address and never creates", (*platformSuite).importByContact},
		{"Import adds to address books", (*platformSuite).importBooks},
		{"Import may be given reused rows", (*platformSuite).importReuse},
		{"Import never subscribes who opted out", (*platformSuite).importOptedOut},
		{"Import refuses what it cannot hand over", (*platformSuite).importRefused},
		{"Import is throttled when too many are under way", (*platformSuite).importThrottled},
		{"Import whose answer is lost is Unknown and can be repeated", (*platformSuite).importLost},
		{"AwaitImport tells the fault of a refused row", (*platformSuite).importFault},
		{"AwaitImport says when an import has not ended", (*platformSuite).importPending},
		{"AwaitImport returns the callee's error as it is", (*platformSuite).importStopped},
		{"jobs that the platform does not know", (*platformSuite).unknownJobs},
		{"Suppressions since a cursor tells who, why and when", (*platformSuite).suppressionsSince},
		{"Suppressions leaves nobody out while rows move", (*platformSuite).suppressionsPaged},
		{"Unsubscribes tells who left one address book", (*platformSuite).unsubscribesSince},
		{"Suppress blocks known and unknown addresses", (*platformSuite).suppress},
		{"Suppress can be repeated after a lost answer", (*platformSuite).suppressLost},
		{"Resubscribe leaves the last word to the person", (*platformSuite).resubscribe},
		{"Preferences reads all preferences with their categories", (*platformSuite).preferences},
		{"Choices since a cursor tells who chose what and when", (*platformSuite).choicesSince},
		{"Choices leaves nobody out while people choose", (*platformSuite).choicesPaged},
		{"Choose writes choices and nothing else", (*platformSuite).chooses},
		{"Choose refuses each choice by itself and makes no contact", (*platformSuite).chooseRefused},
		{"Choose can be repeated after a lost answer", (*platformSuite).chooseLost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, fix := open(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tt.run(&platformSuite{T: t, p: p, fix: fix, ctx: ctx})
		})
	}
}

type platformSuite struct {
	*testing.T
	p   lockstep.Platform
	fix PlatformFixture
	ctx context.Context //nolint:containedctx // of one subtest
}

func (s *platformSuite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%v", err)
	}
}

func (s *platformSuite) wantCode(err error, want lockstep.Code) *lockstep.Error {
	s.Helper()
	var e *lockstep.Error
	if !errors.As(err, &e) {
		s.Fatalf("got error %v, want one with code %s", err, want)
	}
	if e.Code != want {
		s.Fatalf("got code %s (%v), want %s", e.Code, err, want)
	}
	if e.Msg == "" {
		s.Errorf("the error with code %s has no message", want)
	}
	return e
}

// load imports rows and returns their results by address.
func (s *platformSuite) load(fields []string, rows ...lockstep.ContactWrite) map[string]lockstep.ContactResult {
	s.Helper()
	job, err := s.p.Import(s.ctx, fields, rows)
	s.must(err)
	return s.results(job)
}

func (s *platformSuite) results(job lockstep.JobID) map[string]lockstep.ContactResult {
	s.Helper()
	s.fix.Pass(time.Minute)
	out := map[string]lockstep.ContactResult{}
	s.must(s.p.AwaitImport(s.ctx, job, func(rs []lockstep.ContactResult) error {
		for _, r := range rs {
			key := r.Email
			if key == "" {
				key = string(r.Contact)
			}
			if _, twice := out[key]; twice {
				s.Errorf("row %s is delivered twice", key)
			}
			out[key] = r
		}
		return nil
	}))
	return out
}

// read reads contacts by address.
func (s *platformSuite) read(q lockstep.ContactQuery) (map[string]lockstep.Contact, lockstep.Cursor) {
	s.Helper()
	out := map[string]lockstep.Contact{}
	cursor, err := s.p.Contacts(s.ctx, q, func(page []lockstep.Contact) error {
		for _, c := range page {
			out[lockstep.NormalizeEmail(c.Email)] = c
		}
		return nil
	})
	s.must(err)
	return out, cursor
}

func (s *platformSuite) book(name string) lockstep.AddressBook {
	s.Helper()
	b, err := s.p.CreateBook(s.ctx, name)
	s.must(err)
	return b
}

func (s *platformSuite) field(name string, typ lockstep.FieldType) string {
	s.Helper()
	s.must(s.p.CreateField(s.ctx, lockstep.DataField{Name: name, Type: typ, Private: true}))
	return name
}

func row(email string, values ...lockstep.Value) lockstep.ContactWrite {
	return lockstep.ContactWrite{Email: email, Values: values}
}

func (s *platformSuite) identity() {
	first, err := s.p.Identity(s.ctx)
	s.must(err)
	if first.ID == "" || first.Endpoint == "" {
		s.Errorf("identity %+v lacks an id or an endpoint", first)
	}
	again, err := s.p.Identity(s.ctx)
	s.must(err)
	if first != again {
		s.Errorf("identity changed from %+v to %+v", first, again)
	}
}

// everyCall calls each method once.
func (s *platformSuite) everyCall(ctx context.Context) map[string]error {
	out := map[string]error{}
	_, out["Identity"] = s.p.Identity(ctx)
	_, out["Fields"] = s.p.Fields(ctx)
	out["CreateField"] = s.p.CreateField(ctx, lockstep.DataField{Name: "ANY", Type: lockstep.FieldText})
	_, out["Books"] = s.p.Books(ctx)
	_, out["CreateBook"] = s.p.CreateBook(ctx, "Any")
	out["RenameBook"] = s.p.RenameBook(ctx, "7", "Any")
	_, out["RemoveFromBook"] = s.p.RemoveFromBook(ctx, "7", []lockstep.ContactID{"7"})
	out["AwaitRemoval"] = s.p.AwaitRemoval(ctx, "7")
	_, out["Contacts"] = s.p.Contacts(ctx, lockstep.ContactQuery{}, func([]lockstep.Contact) error { return nil })
	_, out["Contact"] = s.p.Contact(ctx, "ann@example.com", nil)
	_, out["ContactByID"] = s.p.ContactByID(ctx, "7", nil)
	_, out["Import"] = s.p.Import(ctx, nil, []lockstep.ContactWrite{{Email: "ann@example.com"}})
	out["AwaitImport"] = s.p.AwaitImport(ctx, "7", func([]lockstep.ContactResult) error { return nil })
	return out
}

func (s *platformSuite) cancelled() {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for name, err := range s.everyCall(ctx) {
		var e *lockstep.Error
		if !errors.As(err, &e) || e.Code == lockstep.CodeInternal {
			s.Errorf("%s with an ended context: got %v, want an Error that says so", name, err)
			continue
		}
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s with an ended context: %v does not carry the cause", name, err)
		}
	}
	if got, _ := s.read(lockstep.ContactQuery{}); len(got) > 0 {
		s.Errorf("calls with an ended context wrote %d contacts", len(got))
	}
}

func (s *platformSuite) concurrent() {
	name := s.field("CITY", lockstep.FieldText)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			email := fmt.Sprintf("p%d@example.com", w)
			job, err := s.p.Import(s.ctx, []string{name}, []lockstep.ContactWrite{row(email, lockstep.TextValue("Bonn"))})
			if err == nil {
				s.fix.Pass(time.Minute)
				err = s.p.AwaitImport(s.ctx, job, func(rs []lockstep.ContactResult) error {
					if len(rs) != 1 || rs[0].Email != email {
						s.Errorf("import of %s was told %+v", email, rs)
					}
					return nil
				})
			}
			if err == nil {
				_, err = s.p.Contact(s.ctx, email, []string{name})
			}
			if err == nil {
				_, err = s.p.Books(s.ctx)
			}
			if err != nil {
				s.Errorf("worker %d: %v", w, err)
			}
		})
	}
	wg.Wait()
}

func (s *platformSuite) findField(name string) (lockstep.DataField, bool) {
	s.Helper()
	all, err := s.p.Fields(s.ctx)
	s.must(err)
	i := slices.IndexFunc(all, func(f lockstep.DataField) bool { return strings.EqualFold(f.Name, name) })
	if i < 0 {
		return lockstep.DataField{}, false
	}
	return all[i], true
}

func (s *platformSuite) fields() {
	f, ok := s.findField(s.fix.SystemField)
	if !ok || !f.System {
		s.Errorf("field %s: got %+v, want it marked as the platform's own", s.fix.SystemField, f)
	}
}

func (s *platformSuite) createField() {
	for _, want := range []lockstep.DataField{
		{Name: "A_TEXT", Type: lockstep.FieldText, Private: true, Default: lockstep.TextValue(`say "hi"`)},
		{Name: "A_NUMBER", Type: lockstep.FieldNumber, Default: lockstep.CanonicalValue(lockstep.Number, "12.5")},
		{Name: "A_DATE", Type: lockstep.FieldDate, Private: true, Default: lockstep.NullValue()},
		{Name: "A_BOOL", Type: lockstep.FieldBool, Private: true, Default: lockstep.BoolValue(true)},
	} {
		s.must(s.p.CreateField(s.ctx, want))
		got, ok := s.findField(want.Name)
		if !ok {
			s.Errorf("field %s is not there after CreateField", want.Name)
			continue
		}
		if got.Type != want.Type || got.Private != want.Private || got.System || got.Default != want.Default {
			s.Errorf("field %s: got %+v, want %+v", want.Name, got, want)
		}
	}
}

func (s *platformSuite) createFieldAgain() {
	f := lockstep.DataField{Name: "SCORE", Type: lockstep.FieldNumber, Private: true}
	s.must(s.p.CreateField(s.ctx, f))
	if err := s.p.CreateField(s.ctx, f); err != nil {
		s.Errorf("an equal field: %v", err)
	}
	f.Name = "score"
	f.Type = lockstep.FieldText
	s.wantCode(s.p.CreateField(s.ctx, f), lockstep.CodeConflict)
	if got, _ := s.findField("SCORE"); got.Type != lockstep.FieldNumber {
		s.Errorf("the field's type became %s", got.Type)
	}
}

func (s *platformSuite) createFieldMalformed() {
	for _, f := range []lockstep.DataField{
		{Name: "", Type: lockstep.FieldText},
		{Name: strings.Repeat("X", 200), Type: lockstep.FieldText},
		{Name: "NO SPACE/ALLOWED", Type: lockstep.FieldText},
		{Name: "NO_TYPE", Type: "colour"},
		{Name: "BAD_DEFAULT", Type: lockstep.FieldNumber, Default: lockstep.TextValue("many")},
	} {
		s.wantCode(s.p.CreateField(s.ctx, f), lockstep.CodeInvalid)
	}
}

func (s *platformSuite) createFieldLost() {
	s.fix.LoseAnswer(s)
	s.must(s.p.CreateField(s.ctx, lockstep.DataField{Name: "LOST", Type: lockstep.FieldDate}))
	if f, ok := s.findField("LOST"); !ok || f.Type != lockstep.FieldDate {
		s.Errorf("after a lost answer the field is %+v", f)
	}
}

func (s *platformSuite) findBook(name string) []lockstep.AddressBook {
	s.Helper()
	all, err := s.p.Books(s.ctx)
	s.must(err)
	return slices.DeleteFunc(all, func(b lockstep.AddressBook) bool { return !strings.EqualFold(b.Name, name) })
}

func (s *platformSuite) books() {
	if own := s.findBook(s.fix.SystemBook); len(own) != 1 || !own[0].System {
		s.Errorf("address book %q: got %+v, want one marked as the platform's own", s.fix.SystemBook, own)
	}
	made := s.book("Newsletter ü & co")
	if made.ID == "" || made.Name != "Newsletter ü & co" || made.System || made.Members != 0 {
		s.Errorf("CreateBook returned %+v", made)
	}
	s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: []lockstep.BookID{made.ID}})
	made.Members = 1
	if diff := cmp.Diff([]lockstep.AddressBook{made}, s.findBook("Newsletter ü & co")); diff != "" {
		s.Errorf("the book as listed (-made +listed):\n%s", diff)
	}
}

func (s *platformSuite) createBookRefused() {
	s.book("Customers")
	_, err := s.p.CreateBook(s.ctx, "Customers")
	s.wantCode(err, lockstep.CodeConflict)
	for _, name := range []string{"", "   ", strings.Repeat("n", 500), s.fix.SystemBook, strings.ToUpper(s.fix.SystemBook)} {
		_, err := s.p.CreateBook(s.ctx, name)
		s.wantCode(err, lockstep.CodeInvalid)
	}
}

func (s *platformSuite) createBookLost() {
	s.fix.LoseAnswer(s)
	b, err := s.p.CreateBook(s.ctx, "Once")
	s.must(err)
	if all := s.findBook("Once"); len(all) != 1 || all[0].ID != b.ID {
		s.Errorf("after a lost answer there are %+v, CreateBook returned %+v", all, b)
	}
}

func (s *platformSuite) renameBook() {
	b := s.book("Before")
	s.book("Taken")
	s.must(s.p.RenameBook(s.ctx, b.ID, "After"))
	if got := s.findBook("After"); len(got) != 1 || got[0].ID != b.ID {
		s.Errorf("renamed book: %+v", got)
	}
	if got := s.findBook("Before"); len(got) != 0 {
		s.Errorf("the old name is still there: %+v", got)
	}
	s.must(s.p.RenameBook(s.ctx, b.ID, "After")) // the same name is no change
	s.wantCode(s.p.RenameBook(s.ctx, b.ID, "Taken"), lockstep.CodeConflict)
	s.wantCode(s.p.RenameBook(s.ctx, b.ID, s.fix.SystemBook), lockstep.CodeInvalid)
	s.wantCode(s.p.RenameBook(s.ctx, "987654", "Nobody"), lockstep.CodeNotFound)
}

func (s *platformSuite) removeFromBook() {
	b := s.book("Leavers")
	in := []lockstep.BookID{b.ID}
	res := s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: in}, lockstep.ContactWrite{Email: "bob@example.com", Books: in})
	ann := res["ann@example.com"].Contact
	for range 2 { // a removal can be repeated
		job, err := s.p.RemoveFromBook(s.ctx, b.ID, []lockstep.ContactID{ann})
		s.must(err)
		s.fix.Pass(time.Minute)
		s.must(s.p.AwaitRemoval(s.ctx, job))
	}
	members, _ := s.read(lockstep.ContactQuery{Book: b.ID})
	if len(members) != 1 || members["bob@example.com"].ID == "" {
		s.Errorf("members after the removal: %v", members)
	}
	c, err := s.p.Contact(s.ctx, "ann@example.com", nil)
	s.must(err)
	if c.Standing != lockstep.Subscribed {
		s.Errorf("removal from a book changed the standing to %s", c.Standing)
	}
	_, err = s.p.RemoveFromBook(s.ctx, "987654", []lockstep.ContactID{ann})
	s.wantCode(err, lockstep.CodeNotFound)
}

func (s *platformSuite) removeTooMany() {
	b := s.book("Crowd")
	ids := make([]lockstep.ContactID, s.p.MaxRemove()+1)
	for i := range ids {
		ids[i] = lockstep.ContactID(fmt.Sprint(100_000 + i))
	}
	_, err := s.p.RemoveFromBook(s.ctx, b.ID, ids)
	s.wantCode(err, lockstep.CodeInvalid)
	_, err = s.p.RemoveFromBook(s.ctx, b.ID, ids[1:]) // strangers are passed over
	s.must(err)
}

// wantPending checks that a wait ends with its context and says so.
func (s *platformSuite) wantPending(wait func(context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	err := wait(ctx)
	s.wantCode(err, lockstep.CodeUnavailable)
	if !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("%v does not carry the context's error", err)
	}
}

func (s *platformSuite) removalPending() {
	b := s.book("Slow")
	res := s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: []lockstep.BookID{b.ID}})
	job, err := s.p.RemoveFromBook(s.ctx, b.ID, []lockstep.ContactID{res["ann@example.com"].Contact})
	s.must(err)
	s.wantPending(func(ctx context.Context) error { return s.p.AwaitRemoval(ctx, job) })
	s.fix.Pass(time.Minute)
	s.must(s.p.AwaitRemoval(s.ctx, job))
}
