package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

func (s *platformSuite) contacts() {
	const n = 23
	rows := make([]lockstep.ContactWrite, n)
	for i := range rows {
		rows[i] = row(fmt.Sprintf("p%02d@example.com", i))
	}
	res := s.load(nil, rows...)
	got, cursor := s.read(lockstep.ContactQuery{})
	if len(got) != n || cursor == "" {
		s.Fatalf("read %d contacts with cursor %q, want %d and a cursor", len(got), cursor, n)
	}
	for email, r := range res {
		c := got[email]
		if c.ID != r.Contact || c.Created.IsZero() || c.Modified.IsZero() || len(c.Values) != 0 {
			s.Errorf("%s: import told contact %s, reading gave %+v", email, r.Contact, c)
		}
	}
}

func (s *platformSuite) contactsSince() {
	name := s.field("CITY", lockstep.FieldText)
	s.load([]string{name}, row("old@example.com", lockstep.TextValue("Bonn")), row("touched@example.com", lockstep.TextValue("Bonn")))
	s.fix.Pass(time.Hour)
	all, cursor := s.read(lockstep.ContactQuery{})
	if len(all) != 2 {
		s.Fatalf("the first read gave %d contacts", len(all))
	}
	// Immediately after the cursor, and long after.
	for range 2 {
		s.load([]string{name}, row("touched@example.com", lockstep.TextValue("Ulm")), row("new@example.com", lockstep.NullValue()))
		var got map[string]lockstep.Contact
		got, cursor = s.read(lockstep.ContactQuery{Since: cursor})
		for _, email := range []string{"touched@example.com", "new@example.com"} {
			if got[email].ID == "" {
				s.Errorf("a changed contact was left out: %s", email)
			}
		}
		if got["old@example.com"].ID != "" {
			s.Error("a contact was read again that had not changed for an hour")
		}
		s.fix.Pass(time.Hour)
	}
	// Many reads without a change cost no row, however often.
	_, cursor = s.read(lockstep.ContactQuery{Since: cursor})
	s.fix.Pass(time.Hour)
	if got, _ := s.read(lockstep.ContactQuery{Since: cursor}); len(got) != 0 {
		s.Errorf("nothing changed, yet %d contacts came", len(got))
	}
}

func (s *platformSuite) contactsOfBook() {
	b := s.book("Some")
	s.load(nil, row("out@example.com"), lockstep.ContactWrite{Email: "in@example.com", Books: []lockstep.BookID{b.ID}})
	got, _ := s.read(lockstep.ContactQuery{Book: b.ID})
	if len(got) != 1 || got["in@example.com"].ID == "" {
		s.Errorf("members: %v", got)
	}
}

// sampleValues are one value of each kind that a field can hold.
func sampleValues() (names []string, types []lockstep.FieldType, values []lockstep.Value) {
	add := func(name string, t lockstep.FieldType, v lockstep.Value) {
		names, types, values = append(names, name), append(types, t), append(values, v)
	}
	add("V_TEXT", lockstep.FieldText, lockstep.TextValue("Zoë \"Z\" \\ Łuk\n日本 😀 <&>"))
	add("V_DIGITS", lockstep.FieldText, lockstep.TextValue("007"))
	add("V_WHOLE", lockstep.FieldNumber, lockstep.CanonicalValue(lockstep.Number, "-42"))
	add("V_EXACT", lockstep.FieldNumber, lockstep.CanonicalValue(lockstep.Number, "12345678901234.567891234"))
	add("V_DATE", lockstep.FieldDate, lockstep.CanonicalValue(lockstep.DateTime, "2024-02-29T23:59:58Z"))
	add("V_YES", lockstep.FieldBool, lockstep.BoolValue(true))
	add("V_NO", lockstep.FieldBool, lockstep.BoolValue(false))
	return names, types, values
}

func (s *platformSuite) importValues() {
	names, types, values := sampleValues()
	for i, n := range names {
		s.field(n, types[i])
	}
	if r := s.load(names, row("ann@example.com", values...))["ann@example.com"]; r.Fault != nil {
		s.Fatalf("the row was refused: %v", r.Fault)
	}
	listed, _ := s.read(lockstep.ContactQuery{Fields: names})
	single, err := s.p.Contact(s.ctx, "ann@example.com", names)
	s.must(err)
	for i, n := range names {
		if got := listed["ann@example.com"].Values[i]; got != values[i] {
			s.Errorf("%s: Contacts gave %s %q, want %s %q", n, got.Kind(), got, values[i].Kind(), values[i])
		}
		if got := single.Values[i]; got != values[i] {
			s.Errorf("%s: Contact gave %s %q, want %s %q", n, got.Kind(), got, values[i].Kind(), values[i])
		}
	}
	// A calendar day is stored as its midnight.
	s.load([]string{"V_DATE"}, row("ann@example.com", lockstep.CanonicalValue(lockstep.Date, "1999-12-31")))
	single, err = s.p.Contact(s.ctx, "ann@example.com", []string{"V_DATE"})
	s.must(err)
	if want := lockstep.CanonicalValue(lockstep.DateTime, "1999-12-31T00:00:00Z"); single.Values[0] != want {
		s.Errorf("a calendar day came back as %s", single.Values[0])
	}
}

func (s *platformSuite) contactValues() {
	names, types, values := sampleValues()
	for i, n := range names {
		s.field(n, types[i])
	}
	s.load(names, row("ann@example.com", values...))
	s.load(nil, row("bob@example.com"))
	slices.Reverse(names)
	slices.Reverse(values)
	names[0] = strings.ToLower(names[0])
	names = append(names[:2], append([]string{"NO_SUCH_FIELD"}, names[2:]...)...)
	values = append(values[:2], append([]lockstep.Value{{}}, values[2:]...)...)
	got, _ := s.read(lockstep.ContactQuery{Fields: names})
	if !slices.Equal(got["ann@example.com"].Values, values) {
		s.Errorf("values of %v:\n got %v\nwant %v", names, got["ann@example.com"].Values, values)
	}
	for i, v := range got["bob@example.com"].Values {
		want := lockstep.NullValue()
		if names[i] == "NO_SUCH_FIELD" {
			want = lockstep.Value{}
		}
		if v != want {
			s.Errorf("blank %s came as %s %q, want %s", names[i], v.Kind(), v, want.Kind())
		}
	}
	if len(got["bob@example.com"].Values) != len(names) {
		s.Errorf("%d values for %d fields", len(got["bob@example.com"].Values), len(names))
	}
}

func (s *platformSuite) contactMemberships() {
	a, b := s.book("First"), s.book("Second")
	s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: []lockstep.BookID{a.ID, b.ID}}, row("bob@example.com"))
	s.fix.UnsubscribeFrom(s, b.ID, "ann@example.com")
	got, _ := s.read(lockstep.ContactQuery{})
	if got["ann@example.com"].Books != nil {
		s.Errorf("memberships came unasked: %v", got["ann@example.com"].Books)
	}
	got, _ = s.read(lockstep.ContactQuery{Memberships: true})
	books := got["ann@example.com"].Books
	own := slices.DeleteFunc(slices.Clone(books), func(m lockstep.Membership) bool { return m.Book != a.ID && m.Book != b.ID })
	slices.SortFunc(own, func(x, y lockstep.Membership) int { return strings.Compare(string(x.Book), string(y.Book)) })
	want := []lockstep.Membership{{Book: a.ID}, {Book: b.ID, Unsubscribed: true}}
	slices.SortFunc(want, func(x, y lockstep.Membership) int { return strings.Compare(string(x.Book), string(y.Book)) })
	if diff := cmp.Diff(want, own); diff != "" {
		s.Errorf("memberships (-want +got):\n%s", diff)
	}
	if got["ann@example.com"].Standing != lockstep.Subscribed {
		s.Errorf("leaving one book changed the standing to %s", got["ann@example.com"].Standing)
	}
	if slices.ContainsFunc(got["bob@example.com"].Books, func(m lockstep.Membership) bool { return m.Book == a.ID || m.Book == b.ID }) {
		s.Errorf("bob is in %v", got["bob@example.com"].Books)
	}
}

func (s *platformSuite) contactStanding() {
	s.load(nil, row("in@example.com"), row("out@example.com"))
	s.fix.Unsubscribe(s, "out@example.com")
	got, _ := s.read(lockstep.ContactQuery{})
	if c := got["in@example.com"]; c.Standing != lockstep.Subscribed {
		s.Errorf("in@ is %s", c.Standing)
	}
	if c := got["out@example.com"]; c.Standing != lockstep.Unsubscribed || c.Standing.Mailable() {
		s.Errorf("out@ is %s", c.Standing)
	}
}

var errStop = errors.New("stop here")

func (s *platformSuite) contactsStopped() {
	s.load(nil, row("ann@example.com"))
	calls := 0
	cursor, err := s.p.Contacts(s.ctx, lockstep.ContactQuery{}, func([]lockstep.Contact) error { calls++; return errStop })
	if err != errStop || cursor != "" || calls != 1 { //nolint:errorlint // the very error is promised
		s.Errorf("got cursor %q, error %v after %d calls", cursor, err, calls)
	}
}

func (s *platformSuite) contact() {
	name := s.field("CITY", lockstep.FieldText)
	const odd = "o'neil+a/b?c#d%25&e@sub.example.com"
	res := s.load([]string{name}, row(odd, lockstep.TextValue("Ulm")))
	c, err := s.p.Contact(s.ctx, odd, []string{name})
	s.must(err)
	if c.ID != res[odd].Contact || c.Email != odd || len(c.Values) != 1 || c.Values[0] != lockstep.TextValue("Ulm") || c.Standing != lockstep.Subscribed {
		s.Errorf("got %+v, import told %+v", c, res[odd])
	}
	_, err = s.p.Contact(s.ctx, "nobody@example.com", []string{name})
	e := s.wantCode(err, lockstep.CodeNotFound)
	if strings.Contains(e.Error(), "nobody") {
		s.Errorf("the error names the person: %v", e)
	}
}

func (s *platformSuite) importRows() {
	name := s.field("CITY", lockstep.FieldText)
	first := s.load([]string{name}, row("ann@example.com", lockstep.TextValue("Bonn")))
	got := s.load([]string{name}, row("ann@example.com", lockstep.TextValue("Ulm")), row("bob@example.com", lockstep.TextValue("Ulm")))
	if len(got) != 2 {
		s.Fatalf("two rows gave results %v", got)
	}
	ann, bob := got["ann@example.com"], got["bob@example.com"]
	if !first["ann@example.com"].Created || ann.Created || !bob.Created {
		s.Errorf("Created is %t for a first, %t for a second and %t for another first import", first["ann@example.com"].Created, ann.Created, bob.Created)
	}
	if ann.Contact == "" || bob.Contact == "" || ann.Contact == bob.Contact || ann.Contact != first["ann@example.com"].Contact {
		s.Errorf("contacts: %v then %v", first, got)
	}
	if ann.Fault != nil || bob.Fault != nil {
		s.Errorf("faults: %v", got)
	}
}

func (s *platformSuite) importAbsentNull() {
	names := []string{s.field("KEEP", lockstep.FieldText), s.field("CLEAR", lockstep.FieldNumber), s.field("CHANGE", lockstep.FieldText)}
	s.load(names, row("ann@example.com", lockstep.TextValue("a"), lockstep.CanonicalValue(lockstep.Number, "1"), lockstep.TextValue("c")))
	s.load(names, row("ann@example.com", lockstep.Value{}, lockstep.NullValue(), lockstep.TextValue("d")))
	c, err := s.p.Contact(s.ctx, "ann@example.com", names)
	s.must(err)
	if want := []lockstep.Value{lockstep.TextValue("a"), lockstep.NullValue(), lockstep.TextValue("d")}; !slices.Equal(c.Values, want) {
		s.Errorf("got %v, want %v", c.Values, want)
	}
}

func (s *platformSuite) importByContact() {
	name := s.field("CITY", lockstep.FieldText)
	ann := s.load([]string{name}, row("ann@example.com", lockstep.TextValue("Bonn")))["ann@example.com"].Contact
	job, err := s.p.Import(s.ctx, []string{name}, []lockstep.ContactWrite{
		{Contact: ann, Email: "ann.new@example.com", Values: []lockstep.Value{lockstep.TextValue("Ulm")}},
		{Contact: "99999999", Values: []lockstep.Value{lockstep.TextValue("Ulm")}},
	})
	s.must(err)
	var renamed, stranger *lockstep.ContactResult
	for _, r := range s.results(job) {
		if r.Contact == ann {
			renamed = &r
		} else {
			stranger = &r
		}
	}
	if renamed == nil || renamed.Created || renamed.Fault != nil {
		s.Errorf("the renamed contact's result: %+v", renamed)
	}
	if stranger == nil || stranger.Fault == nil || stranger.Fault.Code != lockstep.CodeNotFound || stranger.Created {
		s.Errorf("the result of a contact that does not exist: %+v", stranger)
	}
	c, err := s.p.Contact(s.ctx, "ann.new@example.com", []string{name})
	s.must(err)
	if c.ID != ann || c.Values[0] != lockstep.TextValue("Ulm") {
		s.Errorf("after the change of address: %+v", c)
	}
	_, err = s.p.Contact(s.ctx, "ann@example.com", nil)
	s.wantCode(err, lockstep.CodeNotFound)
	if all, _ := s.read(lockstep.ContactQuery{}); len(all) != 1 {
		s.Errorf("there are %d contacts, want 1", len(all))
	}
}

func (s *platformSuite) importBooks() {
	a, b := s.book("First"), s.book("Second")
	s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: []lockstep.BookID{a.ID}})
	s.load(nil, lockstep.ContactWrite{Email: "ann@example.com", Books: []lockstep.BookID{b.ID, a.ID}})
	for _, id := range []lockstep.BookID{a.ID, b.ID} {
		if got, _ := s.read(lockstep.ContactQuery{Book: id}); len(got) != 1 {
			s.Errorf("book %s has %d members, want 1", id, len(got))
		}
	}
}

func (s *platformSuite) importReuse() {
	name := s.field("CITY", lockstep.FieldText)
	values := []lockstep.Value{lockstep.TextValue("Bonn")}
	rows := []lockstep.ContactWrite{{Email: "ann@example.com", Values: values}}
	fields := []string{name}
	job, err := s.p.Import(s.ctx, fields, rows)
	s.must(err)
	values[0], rows[0].Email, fields[0] = lockstep.TextValue("Ulm"), "bob@example.com", "OTHER"
	if got := s.results(job); got["ann@example.com"].Contact == "" || len(got) != 1 {
		s.Errorf("results after the rows were reused: %v", got)
	}
	c, err := s.p.Contact(s.ctx, "ann@example.com", []string{name})
	s.must(err)
	if c.Values[0] != lockstep.TextValue("Bonn") {
		s.Errorf("the reused rows were written: %v", c.Values)
	}
}

func (s *platformSuite) importOptedOut() {
	name := s.field("CITY", lockstep.FieldText)
	a := s.book("Some")
	s.load([]string{name}, row("ann@example.com", lockstep.TextValue("Bonn")))
	s.fix.Unsubscribe(s, "ann@example.com")
	res := s.load([]string{name}, lockstep.ContactWrite{Email: "ann@example.com", Values: []lockstep.Value{lockstep.TextValue("Ulm")}, Books: []lockstep.BookID{a.ID}})
	if _, told := res["ann@example.com"]; !told {
		s.Error("nobody told what became of the row")
	}
	got, _ := s.read(lockstep.ContactQuery{})
	if c := got["ann@example.com"]; c.Standing.Mailable() {
		s.Errorf("after the import she is %s", c.Standing)
	}
}

func (s *platformSuite) importRefused() {
	many := make([]lockstep.ContactWrite, s.p.MaxImport()+1)
	for i := range many {
		many[i] = row(fmt.Sprintf("p%d@example.com", i))
	}
	for name, tt := range map[string]struct {
		fields []string
		rows   []lockstep.ContactWrite
	}{
		"no rows":             {nil, nil},
		"too many rows":       {nil, many},
		"nobody":              {nil, []lockstep.ContactWrite{{}}},
		"missing value":       {[]string{"CITY"}, []lockstep.ContactWrite{row("ann@example.com")}},
		"malformed book":      {nil, []lockstep.ContactWrite{{Email: "ann@example.com", Books: []lockstep.BookID{`1],"x":[2`}}}},
		"malformed contact":   {nil, []lockstep.ContactWrite{{Contact: `1},{`}}},
		"address of no shape": {nil, []lockstep.ContactWrite{row("ann@example.com"), {Email: ""}}},
	} {
		_, err := s.p.Import(s.ctx, tt.fields, tt.rows)
		var e *lockstep.Error
		if !errors.As(err, &e) || e.Code != lockstep.CodeInvalid || e.Unknown {
			s.Errorf("%s: got %v, want %s before anything is sent", name, err, lockstep.CodeInvalid)
		}
	}
	if got, _ := s.read(lockstep.ContactQuery{}); len(got) != 0 {
		s.Errorf("refused imports wrote %d contacts", len(got))
	}
}

func (s *platformSuite) importThrottled() {
	if s.fix.ActiveImports == 0 {
		return
	}
	var jobs []lockstep.JobID
	for i := range s.fix.ActiveImports {
		job, err := s.p.Import(s.ctx, nil, []lockstep.ContactWrite{row(fmt.Sprintf("p%d@example.com", i))})
		s.must(err)
		jobs = append(jobs, job)
	}
	_, err := s.p.Import(s.ctx, nil, []lockstep.ContactWrite{row("late@example.com")})
	if e := s.wantCode(err, lockstep.CodeThrottled); e.After <= 0 || e.Unknown {
		s.Errorf("the refusal says After %s, Unknown %t", e.After, e.Unknown)
	}
	for _, job := range jobs {
		s.results(job)
	}
	s.load(nil, row("late@example.com"))
}

func (s *platformSuite) importLost() {
	name := s.field("CITY", lockstep.FieldText)
	rows := []lockstep.ContactWrite{row("ann@example.com", lockstep.TextValue("Bonn")), row("bob@example.com", lockstep.TextValue("Bonn"))}
	s.fix.LoseAnswer(s)
	_, err := s.p.Import(s.ctx, []string{name}, rows)
	if e := s.wantCode(err, lockstep.CodeUnavailable); !e.Unknown {
		s.Errorf("a lost answer is not marked Unknown: %v", err)
	}
	if got := s.load([]string{name}, rows...); len(got) != 2 {
		s.Errorf("the repeat gave %v", got)
	}
	if all, _ := s.read(lockstep.ContactQuery{}); len(all) != 2 {
		s.Errorf("there are %d contacts after the repeat, want 2", len(all))
	}
}

func (s *platformSuite) importFault() {
	got := s.load(nil, row(s.fix.BadEmail), row("ann@example.com"))
	bad, good := got[s.fix.BadEmail], got["ann@example.com"]
	if bad.Fault == nil || bad.Created || bad.Fault.Scope != lockstep.ScopeRecord || bad.Fault.Code != lockstep.CodeInvalid || bad.Fault.Msg == "" {
		s.Errorf("the refused row's result: %+v, fault %+v", bad, bad.Fault)
	}
	if good.Fault != nil || good.Contact == "" {
		s.Errorf("the other row's result: %+v", good)
	}
}

func (s *platformSuite) importPending() {
	job, err := s.p.Import(s.ctx, nil, []lockstep.ContactWrite{row("ann@example.com")})
	s.must(err)
	s.wantPending(func(ctx context.Context) error {
		return s.p.AwaitImport(ctx, job, func(rs []lockstep.ContactResult) error {
			s.Errorf("results before the end: %v", rs)
			return nil
		})
	})
	for range 2 { // the result can be asked for again
		if got := s.results(job); got["ann@example.com"].Contact == "" {
			s.Errorf("after the wait: %v", got)
		}
	}
}

func (s *platformSuite) importStopped() {
	job, err := s.p.Import(s.ctx, nil, []lockstep.ContactWrite{row("ann@example.com")})
	s.must(err)
	s.fix.Pass(time.Minute)
	err = s.p.AwaitImport(s.ctx, job, func([]lockstep.ContactResult) error { return errStop })
	if err != errStop { //nolint:errorlint // the very error is promised
		s.Errorf("got %v", err)
	}
}

func (s *platformSuite) unknownJobs() {
	for _, job := range []lockstep.JobID{"00000000-0000-4000-8000-000000000000", "", "../../v2/account-info", "a b"} {
		s.wantCode(s.p.AwaitImport(s.ctx, job, func([]lockstep.ContactResult) error { return nil }), lockstep.CodeNotFound)
		s.wantCode(s.p.AwaitRemoval(s.ctx, job), lockstep.CodeNotFound)
	}
}
