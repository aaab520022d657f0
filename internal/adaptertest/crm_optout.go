package adaptertest

import (
	"errors"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// closedSince reads opt-outs to their end. ok is false for a CRM that cannot be asked
// for them.
func (s *crmSuite) closedSince(table string, since lockstep.Cursor) (seen map[lockstep.ID]lockstep.Record, end lockstep.Cursor, ok bool) {
	s.Helper()
	r, ok := s.CRM.(lockstep.OptOutReader)
	if !ok {
		return nil, "", false
	}
	seen = map[lockstep.ID]lockstep.Record{}
	end, err := r.OptOuts(s.Context(), table, since, func(records []lockstep.Record) error {
		for _, r := range records {
			seen[r.ID] = r
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return seen, end, true
}

func (s *crmSuite) optOuts() {
	on := lockstep.BoolValue(true)
	for table, name := range map[string]string{"contact": "lastname", "lead": "lastname", "account": "name"} {
		var rows []lockstep.RecordWrite
		for n := range 5 {
			rows = append(rows, lockstep.RecordWrite{ID: crmID(n + 1), Create: true, Fields: []lockstep.ColumnValue{set(name, lockstep.TextValue("x")), set("emailaddress1", lockstep.TextValue("Ada@example.com"))}})
		}
		rows[1].Fields = append(rows[1].Fields, set("donotemail", on))
		rows[2].Fields = append(rows[2].Fields, set("donotbulkemail", on))
		rows[3].Fields = append(rows[3].Fields, set("donotemail", on), set("donotbulkemail", on))
		rows[4].Fields = append(rows[4].Fields, set("donotpostalmail", on))
		s.write(table, rows...)
		s.f.Deactivate(s, table, crmID(3))
		got, _, ok := s.closedSince(table, "")
		if !ok {
			return
		}
		want := map[lockstep.ID]lockstep.OptOut{crmID(2): lockstep.DoNotEmail, crmID(3): lockstep.DoNotBulkEmail, crmID(4): lockstep.DoNotEmail | lockstep.DoNotBulkEmail}
		if len(got) != len(want) {
			s.Errorf("%s: %d records, want %d", table, len(got), len(want))
		}
		for id, flags := range want {
			if r := got[id]; r.Table != table || r.OptOut != flags || r.Email != "Ada@example.com" || r.Inactive != (id == crmID(3)) || r.Version == 0 || r.Modified.IsZero() {
				s.Errorf("%s: %+v", table, r)
			}
		}
	}
}

func (s *crmSuite) optOutsSince() {
	on := set("donotbulkemail", lockstep.BoolValue(true))
	first := 2*s.f.PageRows + 20 // written at once: many share a time across the ends of pages
	s.create(1, first, on)
	got, cursor, ok := s.closedSince("contact", "")
	if !ok {
		return
	}
	if len(got) != first {
		s.Errorf("%d records, want %d", len(got), first)
	}
	s.f.Pass(time.Hour)
	s.create(5000, 2, on)
	s.write("contact", lockstep.RecordWrite{ID: crmID(7), Fields: []lockstep.ColumnValue{set("jobtitle", lockstep.TextValue("x"))}})
	s.write("contact", lockstep.RecordWrite{ID: crmID(8), Fields: []lockstep.ColumnValue{set("donotbulkemail", lockstep.BoolValue(false))}})
	got, cursor, _ = s.closedSince("contact", cursor)
	for _, n := range []int{5000, 5001, 7} {
		if _, ok := got[crmID(n)]; !ok {
			s.Errorf("record %d did not come", n)
		}
	}
	if _, ok := got[crmID(8)]; ok {
		s.Error("a record that is open again came")
	}
	if got, _, _ = s.closedSince("contact", cursor); len(got) > 3 {
		s.Errorf("%d records came again, want 3 at most", len(got))
	}
	stop := errors.New("stop")
	if _, err := s.CRM.(lockstep.OptOutReader).OptOuts(s.Context(), "contact", "", func([]lockstep.Record) error { return stop }); !errors.Is(err, stop) {
		s.Errorf("the error of each came back as %v", err)
	}
	_, err := s.CRM.(lockstep.OptOutReader).OptOuts(s.Context(), "contact", "not a cursor of ours", func([]lockstep.Record) error { return nil })
	s.want(err, lockstep.CodeExpired)
}
