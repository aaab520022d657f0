package adaptertest

import (
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// install brings our tables to the CRM; false when that is not possible there.
func (s *crmSuite) install() bool {
	s.Helper()
	c, ok := s.CRM.(lockstep.SchemaInstaller)
	if !ok {
		return false
	}
	if err := c.InstallSchema(s.Context(), func(lockstep.SchemaStep) error { return nil }); err != nil {
		s.Fatal(err)
	}
	return true
}

func (s *crmSuite) installs() {
	c, ok := s.CRM.(lockstep.SchemaInstaller)
	if !ok {
		return
	}
	planned, err := c.PlanSchema(s.Context())
	if err != nil || len(planned) == 0 {
		s.Fatalf("%d steps: %v", len(planned), err)
	}
	for _, st := range planned {
		if st.Action == lockstep.SchemaBlocked || st.Name == "" {
			s.Errorf("%+v", st)
		}
	}
	if tables, err := s.Tables(s.Context(), lockstep.OwnTables); err != nil || len(tables) != 0 {
		s.Errorf("%d of our tables are there after a plan: %v", len(tables), err)
	}
	s.install()
	tables, err := s.Tables(s.Context(), lockstep.OwnTables)
	if err != nil || len(tables) != len(lockstep.OwnTables) {
		s.Fatalf("%d tables: %v", len(tables), err)
	}
	for _, t := range tables {
		if !t.ChangeTracked || t.PrimaryName != lockstep.NameColumn {
			s.Errorf("%+v", t.Name)
		}
	}
	if planned, err = c.PlanSchema(s.Context()); err != nil || len(planned) != 0 {
		s.Errorf("missing after the installation: %v %v", planned, err)
	}
	if err := c.InstallSchema(s.Context(), func(st lockstep.SchemaStep) error { return fmt.Errorf("taken again: %s", st) }); err != nil {
		s.Error(err)
	}
	if planned, err = c.PlanSchemaRemoval(s.Context()); err != nil || len(planned) == 0 {
		s.Fatalf("nothing to remove: %v", err)
	}
	if err := c.RemoveSchema(s.Context(), func(lockstep.SchemaStep) error { return nil }); err != nil {
		s.Fatal(err)
	}
	if tables, err := s.Tables(s.Context(), lockstep.OwnTables); err != nil || len(tables) != 0 {
		s.Errorf("%d of our tables are left: %v", len(tables), err)
	}
}

// suppression is a row of ours.
func suppression(n int) lockstep.RecordWrite {
	email := lockstep.TextValue(fmt.Sprintf("p%d@example.com", n))
	return lockstep.RecordWrite{ID: crmID(n), Create: true, Fields: []lockstep.ColumnValue{
		set(lockstep.NameColumn, email), set(lockstep.EmailTextColumn, email), set(lockstep.AccountColumn, lockstep.TextValue("A")),
		set(lockstep.ReasonColumn, lockstep.TextValue("Unsubscribed")), set(lockstep.SinceColumn, lockstep.CanonicalValue(lockstep.DateTime, "2026-03-01T10:00:00Z")),
	}}
}

func suppressions(from, count int) (rows []lockstep.RecordWrite) {
	for n := from; n < from+count; n++ {
		rows = append(rows, suppression(n))
	}
	return rows
}

func (s *crmSuite) ownRows() {
	if !s.install() {
		return
	}
	const table = lockstep.SuppressionTable
	q := lockstep.RecordQuery{Table: table, Columns: []string{lockstep.EmailTextColumn, lockstep.ReasonColumn, lockstep.SinceColumn, lockstep.OriginColumn}}
	s.write(table, suppressions(1, 150)...)
	s.write(table, suppressions(1, 150)...) // there already
	s.write(table, suppressions(140, 20)...)
	s.write(table, lockstep.RecordWrite{ID: crmID(3), Fields: []lockstep.ColumnValue{set(lockstep.ReasonColumn, lockstep.TextValue("Complained")), set(lockstep.SinceColumn, lockstep.NullValue())}})
	got := s.byID(q, crmIDs(1, 200)...)
	if len(got) != 159 {
		s.Errorf("%d rows, want 159", len(got))
	}
	since := lockstep.CanonicalValue(lockstep.DateTime, "2026-03-01T10:00:00Z")
	if v := got[crmID(2)].Values; v[0].Text() != "p2@example.com" || v[1].Text() != "Unsubscribed" || v[2] != since || !v[3].IsNull() {
		s.Errorf("%v", v)
	}
	if v := got[crmID(3)].Values; v[1].Text() != "Complained" || !v[2].IsNull() {
		s.Errorf("%v", v)
	}
	if r := got[crmID(2)]; r.Table != table || r.Version == 0 || r.Modified.IsZero() || r.Inactive || r.Email != "" || r.OptOut != 0 {
		s.Errorf("%+v", r)
	}
	// The key of the table lets no second row of an address in, whoever made the first.
	other := suppression(1)
	other.ID = crmID(900)
	results, err := s.WriteRecords(s.Context(), table, []lockstep.RecordWrite{other, suppression(901)})
	if err != nil || results[0] == nil || results[0].Code != lockstep.CodeConflict || results[0].Scope != lockstep.ScopeRecord || results[1] != nil {
		s.Errorf("%v %v", results, err)
	}
	// The same address in another account is another row.
	other.Fields[2] = set(lockstep.AccountColumn, lockstep.TextValue("B"))
	s.write(table, other)
	if n, err := s.CountRecords(s.Context(), table); err != nil || n != 161 {
		s.Errorf("%d rows counted, want 161: %v", n, err)
	}
	err = s.FindByEmail(s.Context(), q, []string{"p1@example.com"}, func([]lockstep.Record) error { return nil })
	s.want(err, lockstep.CodeUnsupported)
	s.write(lockstep.ChoiceTable, lockstep.RecordWrite{ID: crmID(1), Create: true, Fields: []lockstep.ColumnValue{
		set(lockstep.EmailTextColumn, lockstep.TextValue("a@example.com")), set(lockstep.PreferenceColumn, lockstep.TextValue("17")), set(lockstep.OptedInColumn, lockstep.BoolValue(true)),
	}})
	cq := lockstep.RecordQuery{Table: lockstep.ChoiceTable, Columns: []string{lockstep.PreferenceColumn, lockstep.OptedInColumn}}
	if v := s.byID(cq, crmID(1))[crmID(1)].Values; v[0].Text() != "17" || !v[1].Bool() {
		s.Errorf("%v", v)
	}
	s.create(1, 1, set(lockstep.OptInTypeColumn, lockstep.CanonicalValue(lockstep.Number, "3")))
}

func (s *crmSuite) ownChanges() {
	if !s.install() {
		return
	}
	const table = lockstep.SuppressionTable
	q := lockstep.RecordQuery{Table: table, Columns: []string{lockstep.EmailTextColumn, lockstep.AccountColumn}}
	s.write(table, suppressions(1, s.f.PageRows+50)...)
	got, cursor := s.read(q, "")
	if len(got) != s.f.PageRows+50 {
		s.Errorf("%d rows, want %d", len(got), s.f.PageRows+50)
	}
	s.f.Pass(time.Minute)
	state := func(n int, v string) lockstep.RecordWrite {
		return lockstep.RecordWrite{ID: crmID(n), Fields: []lockstep.ColumnValue{set("statecode", lockstep.CanonicalValue(lockstep.Number, v))}}
	}
	s.write(table, state(1, "1"), state(2, "1"))
	s.write(table, state(2, "0"))
	s.f.Delete(s, table, crmID(3))
	s.write(table, suppression(5000))
	got, cursor = s.read(q, cursor)
	if len(got) != 4 || !got[crmID(1)].Inactive || got[crmID(2)].Inactive || !got[crmID(3)].Deleted || got[crmID(3)].Table != table || got[crmID(5000)].Values[0].Text() != "p5000@example.com" {
		s.Errorf("%d changes: %+v", len(got), got)
	}
	if got, _ = s.read(q, cursor); len(got) != 0 {
		s.Errorf("the changes came again: %d", len(got))
	}
	s.f.Deactivate(s, table, crmID(4)) // by a person
	if r := s.byID(q, crmID(4))[crmID(4)]; !r.Inactive || r.Values[1].Text() != "A" {
		s.Errorf("%+v", r)
	}
}
