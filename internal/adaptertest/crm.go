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

// CRMFixture is what the suite does on the CRM's own side, past the adapter: what
// people do there, and what goes wrong there. The CRM has the tables contact, lead
// and account with the columns of a standard Dynamics organization.
type CRMFixture struct {
	// OrganizationID is the id of the organization.
	OrganizationID string
	// PageRows is how many rows a page of the adapter under test holds.
	PageRows int
	// NewList makes a marketing list; a query makes it a dynamic one.
	NewList func(t testing.TB, name, table, query string) lockstep.ID
	// LockList forbids changes to a list's members.
	LockList func(t testing.TB, list lockstep.ID)
	// Delete deletes a record.
	Delete func(t testing.TB, table string, id lockstep.ID)
	// Deactivate makes a record inactive.
	Deactivate func(t testing.TB, table string, id lockstep.ID)
	// ExpireCursor makes the next read of changes find its cursor too old.
	ExpireCursor func(t testing.TB)
	// Refuse makes every write of a record fail by a business rule.
	Refuse func(t testing.TB, id lockstep.ID)
	// LoseAnswer lets the next call take effect and drops its answer.
	LoseAnswer func(t testing.TB)
	// Revoke takes the right to read a table away.
	Revoke func(t testing.TB, table string)
	// Untracked is the table of list memberships when it has no change tracking.
	Untracked string
	// Pass lets time pass on the CRM.
	Pass func(d time.Duration)
}

// CRM checks an adapter against every promise of lockstep.CRM. open returns an
// adapter to a new organization without business data each time.
func CRM(t *testing.T, open func(t *testing.T) (lockstep.CRM, CRMFixture)) {
	tests := []struct {
		name string
		run  func(*crmSuite)
	}{
		{"Identity says who answers", (*crmSuite).identity},
		{"every method obeys its context and answers with Error", (*crmSuite).cancelled},
		{"methods are safe for concurrent use", (*crmSuite).concurrent},
		{"Tables reads metadata and leaves unknown names out", (*crmSuite).tables},
		{"Changes reads every record with an empty cursor", (*crmSuite).everything},
		{"Changes reads what changed, deleted records included", (*crmSuite).delta},
		{"Changes goes on from a page's Resume", (*crmSuite).resume},
		{"Changes returns an error of each as it is", (*crmSuite).stop},
		{"Changes tells an expired cursor", (*crmSuite).expired},
		{"Changes refuses a cursor of other columns", (*crmSuite).otherColumns},
		{"a record carries versions that grow", (*crmSuite).versions},
		{"a record has one value for each column, absent apart from empty", (*crmSuite).values},
		{"a record shows state and opt-outs", (*crmSuite).flags},
		{"a column one lookup away is read", (*crmSuite).lookup},
		{"Dependants tells who looks up what changed", (*crmSuite).dependants},
		{"texts stay valid after the page", (*crmSuite).texts},
		{"a table without change tracking is read too", (*crmSuite).untracked},
		{"Keys reads all ids of a table", (*crmSuite).keys},
		{"Records leaves missing ids out", (*crmSuite).records},
		{"FindByEmail finds active records by the exact address", (*crmSuite).findByEmail},
		{"CountRecords counts", (*crmSuite).count},
		{"WriteRecords answers row by row", (*crmSuite).writeRows},
		{"WriteRecords keeps good rows when one is refused", (*crmSuite).oneRefused},
		{"WriteRecords takes a repeated create as written", (*crmSuite).repeatedCreate},
		{"WriteRecords never creates on update", (*crmSuite).updateMissing},
		{"WriteRecords leaves a record alone that changed since it was read", (*crmSuite).changedSince},
		{"WriteRecords clears with an empty value and leaves absent ones alone", (*crmSuite).clear},
		{"WriteRecords survives a lost answer", (*crmSuite).lostWrite},
		{"Lists reads static and dynamic lists", (*crmSuite).lists},
		{"StaticMembers sweeps the wanted lists", (*crmSuite).members},
		{"StaticMembers leaves out what is not newer", (*crmSuite).newerMembers},
		{"AddMembers takes members twice", (*crmSuite).addMembers},
		{"AddMembers answers row by row", (*crmSuite).addMissing},
		{"AddMembers refuses a list that cannot be changed", (*crmSuite).addRefused},
		{"RemoveMembers takes records that are no members", (*crmSuite).removeMembers},
		{"membership changes survive a lost answer", (*crmSuite).lostMembership},
		{"DynamicMembers evaluates the query", (*crmSuite).dynamic},
		{"DynamicMembers goes on from a page's Resume", (*crmSuite).dynamicResume},
		{"DynamicMembers names a query that cannot run", (*crmSuite).dynamicInvalid},
		{"QueryTables names tables and volatility", (*crmSuite).queryTables},
		{"a missing right is told as forbidden", (*crmSuite).forbidden},
		{"OptOuts reads the records that are closed to email", (*crmSuite).optOuts},
		{"OptOuts goes on where it ended", (*crmSuite).optOutsSince},
		{"own tables are installed once and removed", (*crmSuite).installs},
		{"own tables take rows", (*crmSuite).ownRows},
		{"own tables tell what changed", (*crmSuite).ownChanges},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			crm, f := open(t)
			tc.run(&crmSuite{T: t, CRM: crm, f: f})
		})
	}
}

type crmSuite struct {
	*testing.T
	lockstep.CRM
	f CRMFixture
}

func crmID(n int) lockstep.ID {
	id, err := lockstep.ParseID(fmt.Sprintf("33333333-0000-4000-8000-%012d", n))
	if err != nil {
		panic(err)
	}
	return id
}

func crmIDs(from, count int) (out []lockstep.ID) {
	for n := range count {
		out = append(out, crmID(from+n))
	}
	return out
}

func set(column string, v lockstep.Value) lockstep.ColumnValue {
	return lockstep.ColumnValue{Column: column, Value: v}
}

// create makes contacts with the numbers from … from+count-1.
func (s *crmSuite) create(from, count int, more ...lockstep.ColumnValue) {
	s.Helper()
	var rows []lockstep.RecordWrite
	for n := from; n < from+count; n++ {
		rows = append(rows, lockstep.RecordWrite{ID: crmID(n), Create: true, Fields: append([]lockstep.ColumnValue{
			set("lastname", lockstep.TextValue(fmt.Sprintf("Last %d", n))), set("emailaddress1", lockstep.TextValue(fmt.Sprintf("p%d@example.com", n))),
		}, more...)})
	}
	s.write("contact", rows...)
}

func (s *crmSuite) write(table string, rows ...lockstep.RecordWrite) {
	s.Helper()
	s.done(len(rows))(s.WriteRecords(s.Context(), table, rows))
}

// done checks results that must all be good.
func (s *crmSuite) done(n int) func([]*lockstep.Error, error) {
	return func(results []*lockstep.Error, err error) {
		s.Helper()
		if err != nil {
			s.Fatal(err)
		}
		if len(results) != n {
			s.Fatalf("%d results for %d rows", len(results), n)
		}
		for i, e := range results {
			if e != nil {
				s.Fatalf("row %d: %v", i, e)
			}
		}
	}
}

func (s *crmSuite) read(q lockstep.RecordQuery, from lockstep.Cursor) (map[lockstep.ID]lockstep.Record, lockstep.Cursor) {
	s.Helper()
	out := map[lockstep.ID]lockstep.Record{}
	end, err := s.Changes(s.Context(), q, from, func(p lockstep.RecordPage) error {
		for _, r := range p.Records {
			out[r.ID] = r
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	if end == "" {
		s.Fatal("no cursor for the next time")
	}
	return out, end
}

func (s *crmSuite) byID(q lockstep.RecordQuery, ids ...lockstep.ID) map[lockstep.ID]lockstep.Record {
	s.Helper()
	out := map[lockstep.ID]lockstep.Record{}
	err := s.Records(s.Context(), q, ids, func(rs []lockstep.Record) error {
		for _, r := range rs {
			out[r.ID] = r
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *crmSuite) want(err error, code lockstep.Code) {
	s.Helper()
	var e *lockstep.Error
	if !errors.As(err, &e) || e.Code != code {
		s.Errorf("error %v (%s), want the code %s", err, lockstep.CodeOf(err), code)
	}
}

func (s *crmSuite) identity() {
	who, err := s.Identity(s.Context())
	if err != nil || who.ID != s.f.OrganizationID || who.UserID == "" || who.Version == "" {
		s.Errorf("%+v %v", who, err)
	}
}

func (s *crmSuite) cancelled() {
	s.create(1, 1)
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	q := lockstep.RecordQuery{Table: "contact"}
	list := s.f.NewList(s, "L", "contact", "")
	dynamic := lockstep.MarketingList{ID: crmID(1), MemberTable: "contact", Dynamic: true, Query: `<fetch><entity name="contact"/></fetch>`}
	for name, f := range map[string]func() error{
		"Identity": func() error { _, err := s.Identity(ctx); return err },
		"Tables":   func() error { _, err := s.Tables(ctx, []string{"contact"}); return err },
		"Changes": func() error {
			_, err := s.Changes(ctx, q, "", func(lockstep.RecordPage) error { return nil })
			return err
		},
		"Records": func() error { return s.Records(ctx, q, crmIDs(1, 1), func([]lockstep.Record) error { return nil }) },
		"FindByEmail": func() error {
			return s.FindByEmail(ctx, q, []string{"a@b.c"}, func([]lockstep.Record) error { return nil })
		},
		"CountRecords": func() error { _, err := s.CountRecords(ctx, "contact"); return err },
		"WriteRecords": func() error {
			_, err := s.WriteRecords(ctx, "contact", []lockstep.RecordWrite{{ID: crmID(2), Create: true}})
			return err
		},
		"Lists": func() error { _, err := s.Lists(ctx); return err },
		"StaticMembers": func() error {
			return s.StaticMembers(ctx, lockstep.MemberQuery{Lists: []lockstep.ID{list}}, func([]lockstep.ListMember) error { return nil })
		},
		"DynamicMembers": func() error {
			return s.DynamicMembers(ctx, dynamic, "", func(lockstep.IDPage) error { return nil })
		},
		"AddMembers":    func() error { _, err := s.AddMembers(ctx, list, "contact", crmIDs(1, 1)); return err },
		"RemoveMembers": func() error { _, err := s.RemoveMembers(ctx, list, crmIDs(1, 1)); return err },
	} {
		var e *lockstep.Error
		if err := f(); !errors.As(err, &e) || e.Code != lockstep.CodeCancelled {
			s.Errorf("%s: %v (%s)", name, err, lockstep.CodeOf(err))
		}
	}
}

func (s *crmSuite) concurrent() {
	s.create(1, 20)
	list := s.f.NewList(s, "L", "contact", "")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			var err error
			switch n % 4 {
			case 0:
				_, err = s.Changes(s.Context(), lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}, "", func(lockstep.RecordPage) error { return nil })
			case 1:
				_, err = s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{{ID: crmID(n + 1), Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.TextValue("x"))}}})
			case 2:
				_, err = s.AddMembers(s.Context(), list, "contact", crmIDs(1+n, 2))
			default:
				_, err = s.Tables(s.Context(), []string{"contact"})
			}
			if err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
}

func (s *crmSuite) tables() {
	tables, err := s.Tables(s.Context(), []string{"contact", "nosuchtable", "account"})
	if err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, t := range tables {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"account", "contact"}) {
		s.Fatalf("tables %v", names)
	}
	for _, t := range tables {
		c, ok := t.Column("emailaddress1")
		if !ok || c.Type != lockstep.ColumnText || c.MaxLength != 100 || !c.Readable || !c.Creatable || !c.Updatable || c.DisplayName == "" {
			s.Errorf("%s: %+v", t.Name, c)
		}
		if c, ok := t.Column("statecode"); !ok || c.Type != lockstep.ColumnState || len(c.Options) < 2 {
			s.Errorf("%s: %+v", t.Name, c)
		}
		if c, ok := t.Column("donotemail"); !ok || c.Type != lockstep.ColumnBool {
			s.Errorf("%s: %+v", t.Name, c)
		}
		if c, ok := t.Column("modifiedon"); !ok || c.Type != lockstep.ColumnDateTime || c.Creatable || c.Updatable {
			s.Errorf("%s: %+v", t.Name, c)
		}
	}
}

func (s *crmSuite) everything() {
	s.create(1, 250)
	got, _ := s.read(lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}, "")
	if len(got) != 250 {
		s.Fatalf("%d records", len(got))
	}
	for n := 1; n <= 250; n++ {
		r := got[crmID(n)]
		if r.Table != "contact" || r.Email != fmt.Sprintf("p%d@example.com", n) || r.Values[0].Text() != fmt.Sprintf("Last %d", n) || r.Created.IsZero() || r.Modified.IsZero() || r.Deleted {
			s.Fatalf("%d: %+v", n, r)
		}
	}
}

func (s *crmSuite) delta() {
	s.create(1, 20)
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}
	_, cursor := s.read(q, "")
	got, cursor := s.read(q, cursor)
	if len(got) != 0 {
		s.Errorf("nothing changed, and %d records came", len(got))
	}
	s.write("contact", lockstep.RecordWrite{ID: crmID(3), Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("New"))}})
	s.create(30, 1)
	s.f.Delete(s, "contact", crmID(4))
	got, cursor = s.read(q, cursor)
	if len(got) != 3 || got[crmID(3)].Values[0].Text() != "New" || got[crmID(30)].Deleted || !got[crmID(4)].Deleted || got[crmID(4)].Table != "contact" {
		s.Errorf("%d changes: %+v", len(got), got)
	}
	if got, _ = s.read(q, cursor); len(got) != 0 {
		s.Errorf("the changes came again: %d", len(got))
	}
}

func (s *crmSuite) resume() {
	total := 2*s.f.PageRows + 20
	s.create(1, total)
	q := lockstep.RecordQuery{Table: "contact"}
	seen := map[lockstep.ID]bool{}
	var resumes []lockstep.Cursor
	_, err := s.Changes(s.Context(), q, "", func(p lockstep.RecordPage) error {
		resumes = append(resumes, p.Resume)
		if len(resumes) == 1 {
			for _, r := range p.Records {
				seen[r.ID] = true
			}
		}
		return nil
	})
	if err != nil || len(resumes) < 2 || resumes[len(resumes)-1] != "" || resumes[0] == "" {
		s.Fatalf("%d pages, %v", len(resumes), err)
	}
	rest, _ := s.read(q, resumes[0])
	for id := range rest {
		seen[id] = true
	}
	if len(seen) != total {
		s.Errorf("%d records in the first page and what follows it, want %d", len(seen), total)
	}
}

func (s *crmSuite) stop() {
	s.create(1, 3)
	stop := errors.New("stop")
	calls := 0
	_, err := s.Changes(s.Context(), lockstep.RecordQuery{Table: "contact"}, "", func(lockstep.RecordPage) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		s.Errorf("%v after %d calls", err, calls)
	}
}

func (s *crmSuite) expired() {
	s.create(1, 3)
	q := lockstep.RecordQuery{Table: "contact"}
	_, cursor := s.read(q, "")
	s.f.ExpireCursor(s)
	_, err := s.Changes(s.Context(), q, cursor, func(lockstep.RecordPage) error { return nil })
	s.want(err, lockstep.CodeExpired)
	_, err = s.Changes(s.Context(), q, "not a cursor of ours", func(lockstep.RecordPage) error { return nil })
	s.want(err, lockstep.CodeExpired)
}

func (s *crmSuite) otherColumns() {
	s.create(1, 3)
	_, cursor := s.read(lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}, "")
	_, err := s.Changes(s.Context(), lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname", "jobtitle"}}, cursor, func(lockstep.RecordPage) error { return nil })
	s.want(err, lockstep.CodeExpired)
}

func (s *crmSuite) versions() {
	s.create(1, 2)
	q := lockstep.RecordQuery{Table: "contact"}
	before := s.byID(q, crmIDs(1, 2)...)
	s.write("contact", lockstep.RecordWrite{ID: crmID(1), Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("x"))}})
	after := s.byID(q, crmIDs(1, 2)...)
	if before[crmID(1)].Version <= 0 || after[crmID(1)].Version <= before[crmID(1)].Version || after[crmID(1)].Version <= after[crmID(2)].Version || after[crmID(2)].Version != before[crmID(2)].Version {
		s.Errorf("before %+v\nafter %+v", before, after)
	}
}

func (s *crmSuite) values() {
	fields := []lockstep.ColumnValue{
		set("lastname", lockstep.TextValue("Ünïcøde \"quoted\" \\ 😀 <&> \u202e")), set("birthdate", lockstep.CanonicalValue(lockstep.Date, "1980-05-17")),
		set("gendercode", lockstep.CanonicalValue(lockstep.Number, "2")), set("donotphone", lockstep.BoolValue(true)), set("creditlimit", lockstep.CanonicalValue(lockstep.Number, "1234.5")),
		set("numberofchildren", lockstep.CanonicalValue(lockstep.Number, "0")), set("description", lockstep.TextValue("line 1\nline 2\ttab")),
		set("lastusedincampaign", lockstep.Value{}), set("jobtitle", lockstep.NullValue()),
	}
	s.write("contact", lockstep.RecordWrite{ID: crmID(1), Create: true, Fields: fields})
	s.write("contact", lockstep.RecordWrite{ID: crmID(1), Fields: []lockstep.ColumnValue{set("lastusedincampaign", lockstep.CanonicalValue(lockstep.DateTime, "2026-03-01T10:00:00Z"))}})
	var columns []string
	var want []lockstep.Value
	for _, f := range fields {
		columns, want = append(columns, f.Column), append(want, f.Value)
	}
	want[7] = lockstep.CanonicalValue(lockstep.DateTime, "2026-03-01T10:00:00Z")
	q := lockstep.RecordQuery{Table: "contact", Columns: columns}
	fed, _ := s.read(q, "")
	for source, got := range map[string][]lockstep.Value{"Records": s.byID(q, crmID(1))[crmID(1)].Values, "Changes": fed[crmID(1)].Values} {
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b lockstep.Value) bool { return a == b })); d != "" {
			s.Errorf("%s\n%s", source, d)
		}
	}
}

func (s *crmSuite) flags() {
	s.create(1, 4)
	on := lockstep.BoolValue(true)
	s.write("contact",
		lockstep.RecordWrite{ID: crmID(1), Fields: []lockstep.ColumnValue{set("donotemail", on)}},
		lockstep.RecordWrite{ID: crmID(2), Fields: []lockstep.ColumnValue{set("donotbulkemail", on), set("donotsendmm", on)}})
	s.f.Deactivate(s, "contact", crmID(3))
	got := s.byID(lockstep.RecordQuery{Table: "contact"}, crmIDs(1, 4)...)
	for n, want := range map[int]lockstep.OptOut{1: lockstep.DoNotEmail, 2: lockstep.DoNotBulkEmail | lockstep.DoNotMaterial, 3: 0, 4: 0} {
		if r := got[crmID(n)]; r.OptOut != want || r.Inactive != (n == 3) {
			s.Errorf("%d: %+v", n, r)
		}
	}
}

func (s *crmSuite) lookup() {
	s.write("account", lockstep.RecordWrite{ID: crmID(100), Create: true, Fields: []lockstep.ColumnValue{set("name", lockstep.TextValue("Acme"))}})
	s.create(1, 1, set("parentcustomerid", lockstep.TextValue("account "+crmID(100).String())))
	s.create(2, 1)
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"parentcustomerid.name", "parentcustomerid"}}
	fed, _ := s.read(q, "")
	for source, got := range map[string]map[lockstep.ID]lockstep.Record{"Records": s.byID(q, crmIDs(1, 2)...), "Changes": fed} {
		if v := got[crmID(1)].Values; v[0].Text() != "Acme" || v[1].Text() != crmID(100).String() {
			s.Errorf("%s: %v", source, v)
		}
		if v := got[crmID(2)].Values; !v[0].IsNull() || !v[1].IsNull() {
			s.Errorf("%s: %v", source, v)
		}
	}
}

func (s *crmSuite) texts() {
	s.create(1, 300)
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}
	kept, _ := s.read(q, "")
	for range 5 { // whatever reuses memory does it now
		s.read(q, "")
	}
	for n := 1; n <= 300; n++ {
		if r := kept[crmID(n)]; r.Values[0].Text() != fmt.Sprintf("Last %d", n) || r.Email != fmt.Sprintf("p%d@example.com", n) {
			s.Fatalf("%d: %v %q", n, r.Values, r.Email)
		}
	}
}

func (s *crmSuite) untracked() {
	if s.f.Untracked == "" {
		return
	}
	q := lockstep.RecordQuery{Table: s.f.Untracked}
	list := s.f.NewList(s, "L", "contact", "")
	s.create(1, 6)
	s.done(3)(s.AddMembers(s.Context(), list, "contact", crmIDs(1, 3)))
	before, cursor := s.read(q, "")
	if len(before) != 3 {
		s.Errorf("%d rows, want 3", len(before))
	}
	s.f.Pass(time.Hour)
	s.done(2)(s.AddMembers(s.Context(), list, "contact", crmIDs(4, 2)))
	if k, ok := s.CRM.(lockstep.KeyReader); ok && k.TellsDeleted(cursor) {
		s.Error("its feed is said to tell of deleted records")
	}
	after, _ := s.read(q, cursor)
	fresh := 0
	for id := range after {
		if _, ok := before[id]; !ok {
			fresh++
		}
	}
	if fresh != 2 {
		s.Errorf("%d new rows, want 2", fresh)
	}
}

// keys reads the ids of a table, and again from the second page on, when a record before
// it is gone.
func (s *crmSuite) keys() {
	k, ok := s.CRM.(lockstep.KeyReader)
	if !ok {
		return
	}
	n := 2*s.f.PageRows + 20
	s.create(1, n)
	s.f.Deactivate(s, "contact", crmID(2))
	s.f.Delete(s, "contact", crmID(3))
	if _, cursor := s.read(lockstep.RecordQuery{Table: "contact"}, ""); !k.TellsDeleted(cursor) {
		s.Error("the feed of a table with change tracking is said not to tell of deleted records")
	}
	seen := map[lockstep.ID]int{}
	var resume []lockstep.Cursor
	take := func(p lockstep.IDPage) error {
		for _, id := range p.IDs {
			seen[id]++
		}
		resume = append(resume, p.Resume)
		return nil
	}
	if err := k.Keys(s.Context(), "contact", "", take); err != nil || len(resume) != 3 || resume[2] != "" {
		s.Fatalf("%d pages: %v", len(resume), err)
	}
	if len(seen) != n-1 || seen[crmID(3)] != 0 || seen[crmID(2)] != 1 {
		s.Errorf("%d ids, want %d", len(seen), n-1)
	}
	s.f.Delete(s, "contact", crmID(1))
	if err := k.Keys(s.Context(), "contact", resume[0], take); err != nil || len(resume) != 5 {
		s.Fatalf("%d pages: %v", len(resume), err)
	}
	twice := 0
	for _, times := range seen {
		twice += times - 1
	}
	if twice != n-1-s.f.PageRows {
		s.Errorf("%d ids behind the first page, want %d", twice, n-1-s.f.PageRows)
	}
	s.want(k.Keys(s.Context(), "lead", resume[0], take), lockstep.CodeExpired)
	s.want(k.Keys(s.Context(), "nosuchtable", "", take), lockstep.CodeNotFound)
}

func (s *crmSuite) records() {
	s.create(1, 30)
	got := s.byID(lockstep.RecordQuery{Table: "contact"}, append(crmIDs(1, 30), crmID(999), crmID(5))...)
	if len(got) != 30 {
		s.Errorf("%d records, want 30", len(got))
	}
	if got := s.byID(lockstep.RecordQuery{Table: "contact"}); len(got) != 0 {
		s.Errorf("%d records of no ids", len(got))
	}
	s.create(1000, 2000)
	if got := s.byID(lockstep.RecordQuery{Table: "contact"}, crmIDs(900, 2200)...); len(got) != 2000 {
		s.Errorf("%d records of many ids, want 2,000", len(got))
	}
	err := s.Records(s.Context(), lockstep.RecordQuery{Table: "contact", Columns: []string{"nosuchcolumn"}}, crmIDs(1, 1), func([]lockstep.Record) error { return nil })
	s.want(err, lockstep.CodeInvalid)
}

func (s *crmSuite) findByEmail() {
	emails := []string{"Ada@Example.com", "o'brien@example.com", "per%cent_under[score]@example.com", "ada@example.org", "ada+tag@example.com"}
	for i, e := range emails {
		s.write("contact", lockstep.RecordWrite{ID: crmID(i), Create: true, Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("x")), set("emailaddress1", lockstep.TextValue(e))}})
	}
	s.write("contact", lockstep.RecordWrite{ID: crmID(50), Create: true, Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("twin")), set("emailaddress1", lockstep.TextValue("ada@example.com"))}})
	s.f.Deactivate(s, "contact", crmID(3))
	asked := []string{"ada@example.com", "o'brien@example.com", "per%cent_under[score]@example.com", "ada@example.org", "perxcentxunders@example.com", "%@example.com", "_da@example.com"}
	var got []lockstep.ID
	err := s.FindByEmail(s.Context(), lockstep.RecordQuery{Table: "contact"}, asked, func(rs []lockstep.Record) error {
		for _, r := range rs {
			got = append(got, r.ID)
		}
		return nil
	})
	slices.SortFunc(got, func(a, b lockstep.ID) int { return strings.Compare(a.String(), b.String()) })
	if d := cmp.Diff([]lockstep.ID{crmID(0), crmID(1), crmID(2), crmID(50)}, got); d != "" || err != nil {
		s.Errorf("%v\n%s", err, d)
	}
}

func (s *crmSuite) count() {
	s.create(1, 42)
	if n, err := s.CountRecords(s.Context(), "contact"); n != 42 || err != nil {
		s.Errorf("%d %v", n, err)
	}
}

func (s *crmSuite) lists() {
	static := s.f.NewList(s, "Customers", "contact", "")
	query := `<fetch><entity name="lead"><filter><condition attribute="companyname" operator="not-null"/></filter></entity></fetch>`
	dynamic := s.f.NewList(s, "Companies", "lead", query)
	s.create(1, 3)
	s.done(3)(s.AddMembers(s.Context(), static, "contact", crmIDs(1, 3)))
	lists, err := s.Lists(s.Context())
	if err != nil || len(lists) != 2 {
		s.Fatalf("%v %v", lists, err)
	}
	for _, l := range lists {
		want := lockstep.MarketingList{ID: static, Name: "Customers", MemberTable: "contact", Members: 3}
		if l.ID == dynamic {
			want = lockstep.MarketingList{ID: dynamic, Name: "Companies", MemberTable: "lead", Dynamic: true, Query: query, Members: l.Members}
		}
		want.Version, want.Modified = l.Version, l.Modified
		if l != want || l.Modified.IsZero() {
			s.Errorf("%+v", l)
		}
	}
}

func (s *crmSuite) sweep(q lockstep.MemberQuery) map[lockstep.ID][]lockstep.ListMember {
	s.Helper()
	out := map[lockstep.ID][]lockstep.ListMember{}
	err := s.StaticMembers(s.Context(), q, func(ms []lockstep.ListMember) error {
		for _, m := range ms {
			out[m.List] = append(out[m.List], m)
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *crmSuite) members() {
	s.create(1, 60)
	var lists []lockstep.ID
	for n := range 25 {
		l := s.f.NewList(s, fmt.Sprint("List ", n), "contact", "")
		lists = append(lists, l)
		s.done(n + 1)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, n+1)))
	}
	for _, wanted := range [][]lockstep.ID{lists[4:5], lists[3:9], lists} {
		got := s.sweep(lockstep.MemberQuery{Lists: wanted})
		for _, l := range wanted {
			if n := slices.Index(lists, l); len(got[l]) != n+1 {
				s.Errorf("list %d of %d wanted: %d members", n, len(wanted), len(got[l]))
			}
		}
	}
	if got := s.sweep(lockstep.MemberQuery{}); len(got) != 0 {
		s.Errorf("no lists wanted, and %d came", len(got))
	}
}

func (s *crmSuite) newerMembers() {
	s.create(1, 10)
	l := s.f.NewList(s, "L", "contact", "")
	s.done(5)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, 5)))
	newest := int64(0)
	for _, m := range s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}})[l] {
		newest = max(newest, m.Version)
	}
	s.done(5)(s.AddMembers(s.Context(), l, "contact", crmIDs(4, 5)))
	got := s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}, AfterVersion: newest})[l]
	if len(got) != 3 || newest == 0 {
		s.Errorf("%d members newer than %d, want 3", len(got), newest)
	}
}

func (s *crmSuite) addMembers() {
	s.create(1, 10)
	l := s.f.NewList(s, "L", "contact", "")
	s.done(10)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, 10)))
	s.done(10)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, 10)))
	if got := s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}})[l]; len(got) != 10 {
		s.Errorf("%d members", len(got))
	}
}

func (s *crmSuite) addMissing() {
	s.create(1, 5)
	l := s.f.NewList(s, "L", "contact", "")
	results, err := s.AddMembers(s.Context(), l, "contact", append(crmIDs(1, 5), crmID(99)))
	if err != nil || len(results) != 6 || results[0] != nil || results[5] == nil || results[5].Scope != lockstep.ScopeRecord {
		s.Errorf("%v %v", results, err)
	}
	if got := s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}})[l]; len(got) != 5 {
		s.Errorf("%d members", len(got))
	}
}

func (s *crmSuite) addRefused() {
	s.create(1, 2)
	l := s.f.NewList(s, "L", "contact", "")
	s.f.LockList(s, l)
	dynamic := s.f.NewList(s, "D", "contact", `<fetch><entity name="contact"/></fetch>`)
	for name, list := range map[string]lockstep.ID{"locked": l, "dynamic": dynamic, "missing": crmID(888)} {
		_, err := s.AddMembers(s.Context(), list, "contact", crmIDs(1, 2))
		var e *lockstep.Error
		if !errors.As(err, &e) || e.Scope == lockstep.ScopeConnection || e.Code != lockstep.CodeInvalid && e.Code != lockstep.CodeNotFound {
			s.Errorf("%s: %v", name, err)
		}
	}
}

func (s *crmSuite) removeMembers() {
	s.create(1, 10)
	l := s.f.NewList(s, "L", "contact", "")
	s.done(6)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, 6)))
	s.done(6)(s.RemoveMembers(s.Context(), l, crmIDs(4, 6)))
	s.done(6)(s.RemoveMembers(s.Context(), l, crmIDs(4, 6)))
	if got := s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}})[l]; len(got) != 3 {
		s.Errorf("%d members", len(got))
	}
}

func (s *crmSuite) lostMembership() {
	s.create(1, 10)
	l := s.f.NewList(s, "L", "contact", "")
	s.f.LoseAnswer(s)
	s.done(10)(s.AddMembers(s.Context(), l, "contact", crmIDs(1, 10)))
	s.f.LoseAnswer(s)
	s.done(4)(s.RemoveMembers(s.Context(), l, crmIDs(1, 4)))
	if got := s.sweep(lockstep.MemberQuery{Lists: []lockstep.ID{l}})[l]; len(got) != 6 {
		s.Errorf("%d members", len(got))
	}
}

func (s *crmSuite) dynamic() {
	s.create(1, 30)
	s.create(31, 10, set("jobtitle", lockstep.TextValue("CTO")))
	q := `<fetch version="1.0"><entity name="contact"><attribute name="fullname"/><order attribute="lastname"/><filter type="and"><condition attribute="jobtitle" operator="eq" value="CTO"/></filter></entity></fetch>`
	seen := map[lockstep.ID]int{}
	err := s.DynamicMembers(s.Context(), lockstep.MarketingList{ID: crmID(1), MemberTable: "contact", Dynamic: true, Query: q}, "", func(p lockstep.IDPage) error {
		for _, id := range p.IDs {
			seen[id]++
		}
		return nil
	})
	if err != nil || len(seen) != 10 {
		s.Errorf("%d members: %v", len(seen), err)
	}
	for id, n := range seen {
		if n != 1 {
			s.Errorf("%s came %d times", id, n)
		}
	}
}

// dynamicResume interrupts an evaluation after its second page. Meanwhile one who was
// told of goes, and one joins behind.
func (s *crmSuite) dynamicResume() {
	n := 3*s.f.PageRows + 20
	s.create(1, n)
	list := lockstep.MarketingList{ID: crmID(1), MemberTable: "contact", Dynamic: true, Query: `<fetch><entity name="contact"><filter><condition attribute="lastname" operator="not-null"/></filter></entity></fetch>`}
	stop := errors.New("the line went dead")
	seen := map[lockstep.ID]int{}
	var at, last lockstep.Cursor
	pages := 0
	take := func(p lockstep.IDPage) error {
		for _, id := range p.IDs {
			seen[id]++
		}
		if last = p.Resume; last != "" {
			at = last
		}
		if pages++; pages == 2 {
			return stop
		}
		return nil
	}
	if err := s.DynamicMembers(s.Context(), list, "", take); !errors.Is(err, stop) || at == "" {
		s.Fatalf("the evaluation did not stop at its second page: %v, to go on at %q", err, at)
	}
	if len(seen) != 2*s.f.PageRows {
		s.Errorf("%d members on two pages", len(seen))
	}
	s.f.Delete(s, "contact", crmID(1))
	s.create(n+1, 1)
	if err := s.DynamicMembers(s.Context(), list, at, take); err != nil || last != "" {
		s.Fatalf("the evaluation did not come to its end: %v, to go on at %q", err, last)
	}
	if len(seen) != n+1 || pages != 4 {
		s.Errorf("%d members on %d pages, want %d on 4", len(seen), pages, n+1)
	}
	for id, times := range seen {
		if times != 1 {
			s.Errorf("%s came %d times", id, times)
		}
	}
	other := list
	other.Query = strings.Replace(list.Query, "lastname", "firstname", 1)
	for name, err := range map[string]error{
		"the position in another query": s.DynamicMembers(s.Context(), other, at, take),
		"a damaged position":            s.DynamicMembers(s.Context(), list, at+"</cookie>", take),
		"no position":                   s.DynamicMembers(s.Context(), list, "page 3", take),
	} {
		if lockstep.CodeOf(err) != lockstep.CodeExpired {
			s.Errorf("%s: %v", name, err)
		}
	}
	if pages != 4 {
		s.Errorf("%d pages came from positions that are none", pages-4)
	}
}

func (s *crmSuite) dynamicInvalid() {
	for name, q := range map[string]string{
		"empty": "", "number": "4711", "broken": "<fetch>", "deleted column": `<fetch><entity name="contact"><filter><condition attribute="nosuch" operator="null"/></filter></entity></fetch>`,
		"other table": `<fetch><entity name="lead"/></fetch>`, "doctype": `<!DOCTYPE x><fetch><entity name="contact"/></fetch>`,
		"aggregate": `<fetch aggregate="true"><entity name="contact"><attribute name="contactid" aggregate="count" alias="n"/></entity></fetch>`,
	} {
		err := s.DynamicMembers(s.Context(), lockstep.MarketingList{ID: crmID(1), MemberTable: "contact", Dynamic: true, Query: q}, "", func(lockstep.IDPage) error { return nil })
		var e *lockstep.Error
		if !errors.As(err, &e) || e.Code != lockstep.CodeInvalid || e.Scope == lockstep.ScopeConnection || e.Msg == "" {
			s.Errorf("%s: %v", name, err)
		}
	}
}

func (s *crmSuite) queryTables() {
	q := `<fetch><entity name="contact"><link-entity name="account" from="accountid" to="parentcustomerid"><filter><condition attribute="createdon" operator="%s" value="7"/></filter></link-entity></entity></fetch>`
	for op, volatile := range map[string]bool{"last-x-days": true, "eq-userid": true, "on-or-after": false} {
		tables, v, err := s.QueryTables(lockstep.MarketingList{MemberTable: "contact", Query: fmt.Sprintf(q, op)})
		if err != nil || v != volatile || !slices.Contains(tables, "contact") || !slices.Contains(tables, "account") {
			s.Errorf("%s: %v %v %v", op, tables, v, err)
		}
	}
	_, _, err := s.QueryTables(lockstep.MarketingList{MemberTable: "contact", Query: "4711"})
	s.want(err, lockstep.CodeInvalid)
}

func (s *crmSuite) forbidden() {
	s.create(1, 1)
	s.f.Revoke(s, "contact")
	_, err := s.Changes(s.Context(), lockstep.RecordQuery{Table: "contact"}, "", func(lockstep.RecordPage) error {
		s.Error("a page came without the right to read")
		return nil
	})
	s.want(err, lockstep.CodeForbidden)
	if !strings.Contains(lockstep.AsError(err).Error(), "prvReadContact") && !strings.Contains(strings.ToLower(lockstep.AsError(err).Error()), "contact") {
		s.Errorf("the error does not name what is missing: %v", err)
	}
}
