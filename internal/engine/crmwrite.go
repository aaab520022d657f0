package engine

import (
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// writeRecords writes to the CRM what the platform said about these people. A row
// that is refused keeps its old base, so that the difference is seen again. A record
// that somebody edits in this moment is left alone and looked at again, as it is then.
func (s *session) writeRecords(plan *tablePlan, people []*person) error {
	if len(people) == 0 {
		return nil
	}
	changes := make([]lockstep.Change, 0, len(people))
	kept := people[:0]
	for _, p := range people {
		c := lockstep.Change{Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: p.rec.Ref, Contact: p.row.contact, Why: whyPlatform}
		for i, cv := range p.toCRM {
			c.Fields = append(c.Fields, lockstep.FieldChange{Name: cv.Column, Old: p.crmOld[i], New: cv.Value})
		}
		if ok := s.permitted([]lockstep.Change{c}); len(ok) == 0 {
			s.undo(p)
			p.row.hash = transform.Hash128{} // fits no content
			continue
		}
		changes = append(changes, c)
		kept = append(kept, p)
	}
	if len(changes) == 0 {
		return nil
	}
	id, err := s.plan(lockstep.WriteRecord, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	if s.dry() {
		s.count(lockstep.Counts{RecordsUpdated: int64(len(changes))})
		return nil
	}
	rows := make([]lockstep.RecordWrite, len(kept))
	for i, p := range kept {
		rows[i] = lockstep.RecordWrite{ID: p.rec.ID, Version: p.rec.Version, Fields: p.toCRM}
	}
	s.e.step("write-records.before")
	results, err := s.crm.WriteRecords(s.ctx, plan.table, rows)
	if err != nil {
		return err // the batch stays open; set-to-value writes are simply repeated
	}
	s.e.step("write-records.after")
	var n lockstep.Counts
	for i, p := range kept {
		if refused := results[i]; refused != nil && refused.Code == lockstep.CodeStale {
			changes[i].State, changes[i].Cause = lockstep.Dropped, refused.Msg
			s.undo(p)
			p.row.hash = transform.Hash128{} // fits no content
			continue
		} else if refused != nil {
			changes[i].State, changes[i].Cause = lockstep.Refused, refused.Msg
			s.rejected(lockstep.Finding{
				Code: lockstep.FindingRejected, Table: plan.table, Record: p.rec.ID, Contact: p.row.contact, Field: refused.Field,
				Message: "the CRM refused the change: " + refused.Msg, Hint: refused.Hint,
			})
			s.undo(p)
			p.row.outcome = outcomeRejected // counted with those that were read
			continue
		}
		changes[i].State = lockstep.Acknowledged
		n.RecordsUpdated++
		s.mu.Lock()
		s.breaker().wrote(p.rec.Ref, s.run.ID, toCRM, s.e.Now())
		if !p.row.sends() {
			s.took(p.rec.Ref)
		}
		s.mu.Unlock()
		s.wrote(plan, p)
	}
	s.count(n)
	return s.commit(lockstep.Commit{Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}})
}

// undo takes back what a refused CRM write would have made the base.
func (s *session) undo(p *person) {
	for _, u := range p.row.undo {
		p.row.base[u.pos] = u.base
		p.row.part(u.pos, u.apart)
		p.row.apart = true
	}
	for i := range p.toCRM {
		if p.crmPos[i] < 0 {
			p.row.email, p.row.newEmail, p.row.apart = "", p.entry.Email, true
		}
	}
	p.toCRM, p.crmPos, p.crmOld = nil, nil, nil
}

// wrote brings the record's hash to what the record says after our write, so that
// the write coming back through the feed is no change. A record that got another address
// is looked at once more: who refuses the one that it had said nothing about this one.
func (s *session) wrote(plan *tablePlan, p *person) {
	if at := slices.Index(p.crmPos, -1); at >= 0 {
		s.unsay(p.rec.Ref, lockstep.NormalizeEmail(p.toCRM[at].Value.Text()), p.rec.OptOut)
		p.row.hash = transform.Hash128{} // fits no content
		return
	}
	vals := append([]lockstep.Value(nil), p.vals...)
	for i := range p.toCRM {
		for j, pos := range plan.pos {
			if pos == p.crmPos[i] {
				vals[j] = p.row.base[pos]
			}
		}
	}
	p.row.hash = transform.ContentHash(plan.t.Version(), p.email, p.rec.OptOut, p.rec.Inactive, vals)
}

// conflict keeps both values of a field that was changed on both sides.
func (s *session) conflict(p *person, label, column string, out merge.FieldOutcome, policy lockstep.Winner, base, crm, plat lockstep.Value) {
	winner := map[merge.Side]string{merge.CRM: "crm", merge.Platform: "platform", merge.Neither: "held"}[out.Winner]
	if policy == "" {
		policy = lockstep.WinnerNewest
	}
	c := lockstep.Conflict{
		Run: s.run.ID, Account: s.account.ID, Ref: p.rec.Ref, Contact: p.row.contact, Label: label, Column: column,
		Base: base, CRM: crm, Platform: plat, CRMAt: p.rec.Modified, PlatformAt: platAt(p), Policy: policy, Winner: winner, DetectedAt: s.e.Now(),
	}
	// The same quarrel over the same values is one conflict, however often it is met.
	c.ID = lockstep.NameID(findingSpace, fmt.Sprint("conflict", s.account.ID, c.Ref, label, crm, plat)).String()
	s.mu.Lock()
	s.conflicts = append(s.conflicts, c)
	s.mu.Unlock()
	if p.row.outcome == outcomeNone {
		p.row.outcome = outcomeConflict
	}
}
