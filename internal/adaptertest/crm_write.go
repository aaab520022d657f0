package adaptertest

import (
	"strings"

	"github.com/lockstep-sync/lockstep"
)

func (s *crmSuite) writeRows() {
	s.create(1, 2)
	results, err := s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{
		{ID: crmID(1), Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.TextValue("fits"))}},
		{ID: crmID(2), Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.TextValue(strings.Repeat("x", 101)))}},
		{ID: crmID(3), Create: true, Fields: []lockstep.ColumnValue{set("gendercode", lockstep.CanonicalValue(lockstep.Number, "99"))}},
	})
	if err != nil || len(results) != 3 || results[0] != nil || results[1] == nil || results[2] == nil {
		s.Fatalf("%v %v", results, err)
	}
	if e := results[1]; e.Code != lockstep.CodeInvalid || e.Scope != lockstep.ScopeRecord || e.Field != "jobtitle" || !strings.Contains(e.Msg, "100") {
		s.Errorf("too long: %+v", e)
	}
	if e := results[2]; e.Code != lockstep.CodeInvalid || e.Scope != lockstep.ScopeRecord {
		s.Errorf("unknown option: %+v", e)
	}
	if results, err := s.WriteRecords(s.Context(), "contact", nil); err != nil || len(results) != 0 {
		s.Errorf("no rows: %v %v", results, err)
	}
}

func (s *crmSuite) oneRefused() {
	s.f.Refuse(s, crmID(150))
	var rows []lockstep.RecordWrite
	for n := range 300 {
		rows = append(rows, lockstep.RecordWrite{ID: crmID(n), Create: true, Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("x"))}})
	}
	results, err := s.WriteRecords(s.Context(), "contact", rows)
	if err != nil {
		s.Fatal(err)
	}
	for i, e := range results {
		if (e != nil) != (i == 150) {
			s.Errorf("row %d: %v", i, e)
		}
	}
	if got := s.byID(lockstep.RecordQuery{Table: "contact"}, crmIDs(0, 300)...); len(got) != 299 {
		s.Errorf("%d records written, want 299", len(got))
	}
}

func (s *crmSuite) repeatedCreate() {
	s.create(1, 10)
	s.create(1, 10)
	s.create(5, 10) // some there, some not
	if n := len(s.byID(lockstep.RecordQuery{Table: "contact"}, crmIDs(1, 20)...)); n != 14 {
		s.Errorf("%d records, want 14", n)
	}
}

func (s *crmSuite) updateMissing() {
	s.create(1, 2)
	up := func(n int) lockstep.RecordWrite {
		return lockstep.RecordWrite{ID: crmID(n), Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("x"))}}
	}
	results, err := s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{up(1), up(77), up(2)})
	if err != nil || results[0] != nil || results[2] != nil || results[1] == nil || results[1].Code != lockstep.CodeNotFound {
		s.Errorf("%v %v", results, err)
	}
	if len(s.byID(lockstep.RecordQuery{Table: "contact"}, crmID(77))) != 0 {
		s.Error("an update created a record")
	}
}

func (s *crmSuite) changedSince() {
	s.create(1, 3)
	query := lockstep.RecordQuery{Table: "contact", Columns: []string{"jobtitle"}}
	title := func(r lockstep.Record, title string) lockstep.RecordWrite {
		return lockstep.RecordWrite{ID: r.ID, Version: r.Version, Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.TextValue(title))}}
	}
	read := s.byID(query, crmIDs(1, 3)...)
	if len(read) != 3 || read[crmID(2)].Version == 0 {
		s.Fatalf("read %+v", read)
	}
	// Somebody changes the second one, in a column that nobody asked for.
	s.done(1)(s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{{ID: read[crmID(2)].ID, Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("Other"))}}}))
	results, err := s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{title(read[crmID(1)], "a"), title(read[crmID(2)], "b"), title(read[crmID(3)], "c")})
	if err != nil || results[0] != nil || results[2] != nil || results[1] == nil || results[1].Code != lockstep.CodeStale || results[1].Scope != lockstep.ScopeRecord {
		s.Fatalf("%v %v", results, err)
	}
	now := s.byID(query, crmIDs(1, 3)...)
	for n, want := range []string{"a", "", "c"} {
		if got := now[crmID(n+1)].Values[0].Text(); got != want {
			s.Errorf("record %d: %q, want %q", n+1, got, want)
		}
	}
	// Of several writes to one record in a call, the later ones rest on the first.
	s.done(2)(s.WriteRecords(s.Context(), "contact", []lockstep.RecordWrite{title(now[crmID(2)], "d"), title(now[crmID(2)], "e")}))
	if got := s.byID(query, crmID(2))[crmID(2)].Values[0].Text(); got != "e" {
		s.Errorf("after two writes %q", got)
	}
}

func (s *crmSuite) clear() {
	s.create(1, 1, set("jobtitle", lockstep.TextValue("CTO")), set("department", lockstep.TextValue("IT")))
	s.write("contact", lockstep.RecordWrite{ID: crmID(1), Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.NullValue()), set("department", lockstep.Value{})}})
	v := s.byID(lockstep.RecordQuery{Table: "contact", Columns: []string{"jobtitle", "department"}}, crmID(1))[crmID(1)].Values
	if !v[0].IsNull() || v[1].Text() != "IT" {
		s.Errorf("%v", v)
	}
}

func (s *crmSuite) lostWrite() {
	s.create(1, 1)
	s.f.LoseAnswer(s)
	s.create(10, 20)
	s.f.LoseAnswer(s)
	s.write("contact", lockstep.RecordWrite{ID: crmID(10), Fields: []lockstep.ColumnValue{set("lastname", lockstep.TextValue("once"))}})
	got, _ := s.read(lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname"}}, "")
	if len(got) != 21 || got[crmID(10)].Values[0].Text() != "once" {
		s.Errorf("%d records, want 21", len(got))
	}
}
