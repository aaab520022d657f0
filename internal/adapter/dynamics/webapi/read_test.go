package webapi

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

func TestIdentity(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	var who lockstep.OrganizationIdentity
	var err error
	w.count(func() { who, err = c.Identity(t.Context()) })
	if err != nil {
		t.Fatal(err)
	}
	if who.ID != w.org.OrganizationID() || who.Name != "Contoso" || who.Version != "9.2.24112.00183" || who.UserID == "" || who.URL != w.org.BaseURL()+"/" {
		t.Errorf("%+v", who)
	}
	if n := w.count(func() { _, err = c.Identity(t.Context()) }); n != 1 || err != nil {
		t.Errorf("the second time took %d calls, %v", n, err)
	}
}

func TestTables(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	_, _ = c.Identity(t.Context())
	var tables []lockstep.Table
	var err error
	n := w.count(func() { tables, err = c.Tables(t.Context(), []string{"contact", "no_such_table", "lead"}) })
	if err != nil || len(tables) != 2 || n != 1 {
		t.Fatalf("%d tables in %d calls: %v", len(tables), n, err)
	}
	contact := tables[0]
	if contact.Name != "contact" || contact.PrimaryName != "fullname" || !contact.ChangeTracked || contact.DisplayName == "" {
		t.Errorf("contact = %+v", contact.Name)
	}
	email, _ := contact.Column("emailaddress1")
	if email == nil || email.Type != lockstep.ColumnText || email.MaxLength != 100 || !email.Creatable || !email.Updatable || !email.Readable {
		t.Errorf("emailaddress1 = %+v", email)
	}
	gender, _ := contact.Column("gendercode")
	if gender == nil || gender.Type != lockstep.ColumnOption || !cmp.Equal(gender.Options, []lockstep.Option{{Value: 1, Label: "Male"}, {Value: 2, Label: "Female"}}) {
		t.Errorf("gendercode = %+v", gender)
	}
	birth, _ := contact.Column("birthdate")
	if birth == nil || birth.Type != lockstep.ColumnDate {
		t.Errorf("birthdate = %+v", birth)
	}
	created, _ := contact.Column("createdon")
	if created == nil || created.Creatable || created.Updatable || created.Type != lockstep.ColumnDateTime {
		t.Errorf("createdon = %+v", created)
	}
	parent, _ := contact.Column("parentcustomerid")
	if parent == nil || parent.Type != lockstep.ColumnLookup {
		t.Errorf("parentcustomerid = %+v", parent)
	}
	state, _ := contact.Column("statecode")
	if state == nil || state.Type != lockstep.ColumnState || len(state.Options) != 2 {
		t.Errorf("statecode = %+v", state)
	}
	if _, err := c.Tables(t.Context(), []string{"contact')/x"}); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a name that is none: %v", err)
	}
}

func TestChanges(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 300))
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname", "jobtitle", "birthdate", "gendercode", "createdon"}}
	records, cursor, err := read(t.Context(), c, q, "")
	if err != nil || len(records) != 300 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	r := records[0]
	if r.Table != "contact" || r.Email == "" || r.Version == 0 || r.Created.IsZero() || r.Modified.IsZero() || r.Inactive || r.OptOut != 0 {
		t.Errorf("%+v", r)
	}
	if r.Values[0] != lockstep.TextValue("First") || !r.Values[1].IsNull() || !r.Values[2].IsNull() || r.Values[4].Kind() != lockstep.DateTime {
		t.Errorf("values %v", r.Values)
	}
	var n int64
	n = w.count(func() { records, cursor, err = read(t.Context(), c, q, cursor) })
	if err != nil || len(records) != 0 || n != 1 {
		t.Fatalf("idle: %d records in %d calls: %v", len(records), n, err)
	}
	w.write(c, "contact", []lockstep.RecordWrite{
		{ID: id(7), Fields: []lockstep.ColumnValue{{Column: "jobtitle", Value: lockstep.TextValue("CTO \"&\" <ü>\n")}, {Column: "donotbulkemail", Value: lockstep.BoolValue(true)}, {Column: "gendercode", Value: lockstep.CanonicalValue(lockstep.Number, "2")}, {Column: "birthdate", Value: lockstep.CanonicalValue(lockstep.Date, "1980-05-17")}}},
		{ID: id(8), Fields: []lockstep.ColumnValue{{Column: "firstname", Value: lockstep.NullValue()}}},
	})
	w.post("PATCH", "contacts("+id(10).String()+")", `{"statecode":1}`)
	w.post("DELETE", "contacts("+id(9).String()+")", "")
	n = w.count(func() { records, cursor, err = read(t.Context(), c, q, cursor) })
	if err != nil || len(records) != 4 || n != 1 {
		t.Fatalf("delta: %d records in %d calls: %v", len(records), n, err)
	}
	byID := map[lockstep.ID]lockstep.Record{}
	for _, r := range records {
		byID[r.ID] = r
	}
	seven := byID[id(7)]
	if seven.OptOut != lockstep.DoNotBulkEmail || seven.Values[1].Text() != "CTO \"&\" <ü>\n" || seven.Values[2] != lockstep.CanonicalValue(lockstep.Date, "1980-05-17") || seven.Values[3].Text() != "2" {
		t.Errorf("%+v", seven)
	}
	if !byID[id(8)].Values[0].IsNull() || !byID[id(9)].Deleted || !byID[id(10)].Inactive {
		t.Errorf("%+v", records)
	}
	// Another set of columns is another feed.
	if _, _, err = read(t.Context(), c, lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}, cursor); lockstep.CodeOf(err) != lockstep.CodeExpired {
		t.Errorf("other columns: %v", err)
	}
	w.fault("delta-expired", "", 1, "")
	if _, _, err = read(t.Context(), c, q, cursor); lockstep.CodeOf(err) != lockstep.CodeExpired {
		t.Errorf("expired: %v", err)
	}
}

func TestPagesAreCountedAndResumable(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 290))
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname"}}
	stop := errors.New("stop")
	var resume lockstep.Cursor
	seen := map[lockstep.ID]bool{}
	_, err := c.Changes(t.Context(), q, "", func(p lockstep.RecordPage) error {
		for _, r := range p.Records {
			seen[r.ID] = true
		}
		resume = p.Resume
		return stop
	})
	if !errors.Is(err, stop) || resume == "" || len(seen) != 100 {
		t.Fatalf("stopped with %v after %d records, resume %v", err, len(seen), resume != "")
	}
	records, cursor, err := read(t.Context(), c, q, resume)
	if err != nil || cursor == "" {
		t.Fatal(err)
	}
	for _, r := range records {
		seen[r.ID] = true
	}
	if len(seen) != 290 || len(records) != 190 {
		t.Errorf("%d records in all, %d after resuming", len(seen), len(records))
	}
	n := w.count(func() { _, _, err = read(t.Context(), c, q, "") })
	if n != 3 || err != nil {
		t.Errorf("290 rows took %d calls, want 3: %v", n, err)
	}
}

func TestUntrackedTableIsPolled(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 50))
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname"}}
	tab, err := c.lookUpTable(t.Context(), "contact")
	if err != nil {
		t.Fatal(err)
	}
	tab.tracked = false
	records, cursor, err := read(t.Context(), c, q, "")
	if err != nil || len(records) != 50 || cursor[0] != 'p' {
		t.Fatalf("%d records, cursor %.2s: %v", len(records), cursor, err)
	}
	w.clock.Advance(time.Hour)
	w.write(c, "contact", []lockstep.RecordWrite{{ID: id(3), Fields: []lockstep.ColumnValue{{Column: "firstname", Value: lockstep.TextValue("New")}}}})
	w.clock.Advance(time.Hour)
	records, cursor, err = read(t.Context(), c, q, cursor)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range records {
		found = found || r.ID == id(3) && r.Values[0].Text() == "New"
	}
	if !found {
		t.Errorf("the change is not among %d records", len(records))
	}
	records, _, err = read(t.Context(), c, q, cursor)
	if err != nil || len(records) != 1 {
		t.Errorf("the overlap holds %d records, want the one that changed last: %v", len(records), err)
	}
}

func TestRecordsAndLookups(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "account", []lockstep.RecordWrite{{ID: id(1), Create: true, Fields: []lockstep.ColumnValue{{Column: "name", Value: lockstep.TextValue("Acme")}}}})
	rows := people(10, 3)
	rows[0].Fields = append(rows[0].Fields, lockstep.ColumnValue{Column: "parentcustomerid", Value: lockstep.TextValue("account " + id(1).String())})
	w.write(c, "contact", rows)
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"parentcustomerid.name", "lastname", "parentcustomerid"}}
	got := map[lockstep.ID][]lockstep.Value{}
	err := c.Records(t.Context(), q, []lockstep.ID{id(10), id(11), id(99), id(10)}, func(rs []lockstep.Record) error {
		for _, r := range rs {
			got[r.ID] = r.Values
		}
		return nil
	})
	want := map[lockstep.ID][]lockstep.Value{
		id(10): {lockstep.TextValue("Acme"), lockstep.TextValue("Last 10"), lockstep.TextValue(id(1).String())},
		id(11): {lockstep.NullValue(), lockstep.TextValue("Last 11"), lockstep.NullValue()},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b lockstep.Value) bool { return a == b })); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	records, _, err := read(t.Context(), c, q, "")
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	for _, r := range records {
		if r.ID == id(10) && r.Values[0] != lockstep.TextValue("Acme") {
			t.Errorf("feed: %v", r.Values)
		}
	}
	if err := c.Records(t.Context(), lockstep.RecordQuery{Table: "contact", Columns: []string{"nosuch"}}, ids(10, 1), nil); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("unknown column: %v", err)
	}
}

func TestManyRecordsGoIntoOneBatch(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	c.pageRows = pageSize
	w.write(c, "contact", people(1, 3000))
	got := 0
	var err error
	n := w.count(func() {
		err = c.Records(t.Context(), lockstep.RecordQuery{Table: "contact"}, ids(1, 3500), func(rs []lockstep.Record) error { got += len(rs); return nil })
	})
	if err != nil || got != 3000 || n != 1 {
		t.Errorf("%d records in %d calls: %v", got, n, err)
	}
}

func TestFindByEmail(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	addresses := []string{`Ada@Example.com`, `o'brien@example.com`, `100%_[x]@example.com`, `"a b"@example.com`, `ada@example.org`, `back\slash@example.com`}
	var rows []lockstep.RecordWrite
	for i, a := range addresses {
		rows = append(rows, lockstep.RecordWrite{ID: id(i + 1), Create: true, Fields: []lockstep.ColumnValue{{Column: "lastname", Value: lockstep.TextValue("x")}, {Column: "emailaddress1", Value: lockstep.TextValue(a)}}})
	}
	w.write(c, "contact", rows)
	w.post("PATCH", "contacts("+id(5).String()+")", `{"statecode":1}`)
	var asked []string
	for _, a := range addresses {
		asked = append(asked, lockstep.NormalizeEmail(a))
	}
	asked = append(asked, "nobody@example.com", "1002xxx@example.com", "a\nb@example.com", "")
	var got []lockstep.ID
	var err error
	n := w.count(func() {
		err = c.FindByEmail(t.Context(), lockstep.RecordQuery{Table: "contact"}, asked, func(rs []lockstep.Record) error {
			for _, r := range rs {
				got = append(got, r.ID)
			}
			return nil
		})
	})
	want := []lockstep.ID{id(1), id(2), id(3), id(4), id(6)}
	if d := cmp.Diff(want, got); d != "" || err != nil || n != 1 {
		t.Errorf("%d calls, %v\n%s", n, err, d)
	}
}

func TestCountRecords(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 120))
	if n, err := c.CountRecords(t.Context(), "contact"); n != 120 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if _, err := c.CountRecords(t.Context(), "x]\""); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("%v", err)
	}
	if _, err := c.CountRecords(t.Context(), "nosuch"); err == nil {
		t.Error("an unknown table was counted")
	}
}

func TestUnknownTable(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	_, _, err := read(t.Context(), c, lockstep.RecordQuery{Table: "nosuch"}, "")
	if lockstep.CodeOf(err) != lockstep.CodeNotFound || lockstep.ScopeOf(err) == lockstep.ScopeConnection {
		t.Errorf("%v", err)
	}
}
