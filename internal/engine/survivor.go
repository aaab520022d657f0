package engine

import (
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// absorbed are those of the records, all of them closed to email in some way, that were
// merged into another one.
func absorbed(recs []lockstep.Record) (out []lockstep.Record) {
	for i := range recs {
		if !recs[i].MergedInto.IsZero() {
			out = append(out, recs[i])
		}
	}
	return out
}

// survivor is a record that absorbed a closed one, which it does not say.
type survivor struct {
	statement
	missing lockstep.OptOut
}

// closeSurvivors closes the records that absorbed one which is closed to email: of two
// records that turn out to be one person the stricter word counts. They are closed as a
// user closes them, so that a user may open them again. done is false when that has to be
// tried once more.
//
// A record that is merged twice takes its word along step by step: what is written here
// is heard like any other change.
func (s *session) closeSurvivors(table string, losers []lockstep.Record) (done bool, err error) {
	if len(losers) == 0 {
		return true, nil
	}
	if s.locked != "" {
		return false, nil
	}
	word := map[lockstep.ID]lockstep.Record{} // what is said of a survivor, and by which record
	var ids []lockstep.ID
	for _, r := range losers {
		was, more := word[r.MergedInto]
		if !more {
			ids = append(ids, r.MergedInto)
		} else if r.OptOut |= was.OptOut; r.Modified.Before(was.Modified) {
			r.Modified = was.Modified
		}
		word[r.MergedInto] = r
	}
	done = true
	for part := range slices.Chunk(ids, consentPage) {
		var open []survivor
		err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table, Inactive: true}, part, func(recs []lockstep.Record) error {
			for i := range recs {
				r, loser := &recs[i], word[recs[i].ID]
				x := survivor{missing: loser.OptOut & (lockstep.DoNotEmail | lockstep.DoNotBulkEmail) &^ r.OptOut}
				if x.missing == 0 {
					continue
				}
				x.statement = statement{
					email: lockstep.NormalizeEmail(r.Email), scope: lockstep.ScopeBulk, object: table + "/" + r.ID.String(), ref: r.Ref,
					system: lockstep.ConsentCRM, at: loser.Modified, told: []string{toldFlags},
					why: fmt.Sprintf("the %s %s, which was merged into the record, is closed to email", table, loser.ID),
				}
				if x.missing&lockstep.DoNotEmail != 0 {
					x.scope = lockstep.ScopeEmail
				}
				open = append(open, x)
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		if open, err = s.unheard(open); err != nil {
			return false, err
		}
		all, err := s.shut(table, open)
		if err != nil {
			return false, err
		}
		done = done && all
	}
	return done, nil
}

// unheard leaves those out of whom the ledger tells already: whom a user has opened since
// is not closed again for the same merge.
func (s *session) unheard(open []survivor) ([]survivor, error) {
	ids := make([]lockstep.ID, len(open))
	for i := range open {
		ids[i] = s.entry(&open[i].statement, s.e.Store.AddressKey(open[i].email)).ID
	}
	if len(open) == 0 {
		return nil, nil
	}
	noted, err := s.e.Store.ConsentNoted(s.ctx, ids)
	if err != nil {
		return nil, err
	}
	var out []survivor
	for i := range open {
		if !noted[ids[i]] {
			out = append(out, open[i])
		}
	}
	return out, nil
}

// shut closes survivors and notes why. all is false when the CRM refused one.
func (s *session) shut(table string, open []survivor) (all bool, err error) {
	changes := make([]lockstep.Change, len(open))
	rows := make([]lockstep.RecordWrite, len(open))
	for i := range open {
		x := &open[i]
		rows[i].ID = x.ref.ID
		changes[i] = lockstep.Change{Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: x.ref, Email: x.email, Why: x.why}
		for _, f := range []struct {
			flag   lockstep.OptOut
			column string
		}{{lockstep.DoNotEmail, lockstep.AllEmailColumn}, {lockstep.DoNotBulkEmail, lockstep.BulkEmailColumn}} {
			if x.missing&f.flag != 0 {
				changes[i].Fields = append(changes[i].Fields, lockstep.FieldChange{Name: f.column, Old: lockstep.BoolValue(false), New: lockstep.BoolValue(true)})
				rows[i].Fields = append(rows[i].Fields, lockstep.ColumnValue{Column: f.column, Value: lockstep.BoolValue(true)})
			}
		}
	}
	all = true
	var said []statement
	err = s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, table, rows)
		if err != nil {
			return err
		}
		for i, e := range results {
			if e != nil {
				all = false
				s.optOutRefused(&lockstep.Restriction{}, &changes[i], "the CRM refused to close the record that absorbed a closed one", e)
				continue
			}
			changes[i].State = lockstep.Acknowledged
			s.count(lockstep.Counts{RecordsUpdated: 1})
			said = append(said, open[i].statement)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	return all, s.hear(said)
}
