package adaptertest

import (
	"errors"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// dependants follows changes of records that others look up: from one account to
// many contacts, over several pages, and not a word more once they are told.
func (s *crmSuite) dependants() {
	d, ok := s.CRM.(lockstep.DependantReader)
	if !ok {
		return
	}
	account := func(n int, name string, create bool) {
		s.write("account", lockstep.RecordWrite{ID: crmID(n), Create: create, Fields: []lockstep.ColumnValue{set("name", lockstep.TextValue(name))}})
	}
	many := s.f.PageRows*2 + 3
	account(9001, "Acme", true)
	account(9002, "Bolt", true)
	s.create(1, many, set("parentcustomerid", lockstep.TextValue("account "+crmID(9001).String())))
	s.create(many+1, 1, set("parentcustomerid", lockstep.TextValue("account "+crmID(9002).String())))
	s.create(many+2, 1)
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"lastname", "parentcustomerid.name"}}
	read := func(from lockstep.Cursor) ([]lockstep.ID, lockstep.Cursor) {
		s.Helper()
		got := map[lockstep.ID]bool{}
		next, err := d.Dependants(s.Context(), q, from, func(ids []lockstep.ID) error {
			for _, id := range ids {
				got[id] = true
			}
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
		ids := make([]lockstep.ID, 0, len(got))
		for id := range got {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		return ids, next
	}
	want := func(when string, got []lockstep.ID, ids ...lockstep.ID) {
		s.Helper()
		slices.SortFunc(ids, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		if diff := cmp.Diff(append([]lockstep.ID{}, ids...), got); diff != "" {
			s.Errorf("%s (-want +got):\n%.500s", when, diff)
		}
	}
	got, cursor := read("")
	want("with an empty cursor", got)
	s.f.Pass(time.Hour)
	got, cursor = read(cursor)
	want("when nothing changed", got)
	s.f.Pass(time.Hour)
	account(9002, "Bolt & Sons", false)
	before := cursor
	got, cursor = read(cursor)
	want("one account changed", got, crmID(many+1))
	got, _ = read(before)
	want("read again from the same cursor", got, crmID(many+1))
	s.f.Pass(time.Hour)
	account(9001, "Acme Ltd", false)
	got, cursor = read(cursor)
	want("an account of many", got, crmIDs(1, many)...)
	s.f.Pass(time.Hour)
	account(9003, "Nobody's", true)
	got, _ = read(cursor)
	if slices.Contains(got, crmID(many+2)) {
		s.Errorf("a record without an account is told")
	}
	boom := errors.New("stop")
	if _, err := d.Dependants(s.Context(), q, before, func([]lockstep.ID) error { return boom }); !errors.Is(err, boom) {
		s.Errorf("an error of each became %v", err)
	}
	q.Columns = []string{"parentcustomerid.name", "parentcustomerid.telephone1"}
	_, err := d.Dependants(s.Context(), q, before, func([]lockstep.ID) error { return nil })
	s.want(err, lockstep.CodeExpired)
	_, err = d.Dependants(s.Context(), q, "nonsense", func([]lockstep.ID) error { return nil })
	s.want(err, lockstep.CodeExpired)
}
