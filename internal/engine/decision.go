package engine

import (
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/merge"
)

// resolveKey is what a person decided about.
type resolveKey struct {
	ref   lockstep.Ref
	label string
}

// resolvedCursor remembers up to when decided conflicts were carried out.
const resolvedCursor = "conflicts/carried-out"

// loadResolutions takes up conflicts that a person decided since the last run.
func (s *session) loadResolutions() error {
	var after time.Time
	c, err := s.e.Store.Cursor(s.ctx, s.account.ID, resolvedCursor)
	if err != nil {
		return err
	}
	if c != "" {
		if after, err = time.Parse(time.RFC3339Nano, string(c)); err != nil {
			after = time.Time{}
		}
	}
	resolved, err := s.e.Store.ResolvedConflicts(s.ctx, s.account.ID, after)
	if err != nil {
		return err
	}
	for _, c := range resolved {
		s.sync.resolve[resolveKey{c.Ref, c.Label}] = c
		if c.ResolvedAt.After(s.sync.resolvedUpTo) {
			s.sync.resolvedUpTo = c.ResolvedAt
		}
	}
	return nil
}

// decision returns what a person decided about a label of a record, and notes that
// it was taken up.
func (s *session) decision(p *person, label string) (lockstep.Conflict, bool) {
	k := resolveKey{p.rec.Ref, label}
	c, ok := s.sync.resolve[k]
	if ok {
		s.sync.takenUp[k] = true
	}
	return c, ok
}

// chosen is the value that a person wants on both sides.
func chosen(c lockstep.Conflict) lockstep.Value {
	if c.Winner == string(lockstep.WinnerPlatform) {
		return c.Platform
	}
	return c.CRM
}

// quarrelled reports whether a side still has one of the values that the decision
// was about.
func quarrelled(c lockstep.Conflict, v lockstep.Value) bool {
	return v == c.CRM || v == c.Platform || v == c.Base
}

// overtaken tells that a decision was not carried out.
func (s *session) overtaken(c lockstep.Conflict, msg, hint string) {
	s.finding(lockstep.Finding{
		Code: lockstep.FindingMoved, Table: c.Ref.Table, Record: c.Ref.ID, Contact: c.Contact, Field: c.Label,
		Message: msg + "; the decision was not carried out", Hint: hint,
	})
}

// decide carries out a person's decision about one field: the chosen value goes to
// both sides. False when one of them was changed again since: then they are merged
// as if nobody had decided.
func (s *session) decide(plan *tablePlan, p *person, i, pos int, c lockstep.Conflict, crm, plat lockstep.Value) bool {
	r := &p.row
	value := chosen(c)
	if plat.IsAbsent() {
		plat = r.base[pos]
	}
	if !quarrelled(c, crm) || !quarrelled(c, plat) {
		s.overtaken(c, changedAgain, lookAgain)
		return false
	}
	if crm != value {
		v, ok := plan.t.In(i, value, s.report(p.rec.Ref, r.contact))
		if !ok {
			r.outcome = outcomeRejected
			return true
		}
		p.toCRM = append(p.toCRM, lockstep.ColumnValue{Column: plan.t.Fields()[i].Column(), Value: v})
		p.crmPos = append(p.crmPos, pos)
		p.crmOld = append(p.crmOld, plan.stored(p.rec, i))
		r.undo = append(r.undo, undoBase{pos, r.base[pos], r.partedAt(pos)})
	}
	if plat != value {
		r.values[pos], r.old[pos] = value, plat
		r.why = whyDecided
	}
	r.base[pos] = value
	r.part(pos, lockstep.Value{})
	return true
}

const (
	changedAgain = "the field was changed again after the conflict"
	lookAgain    = "look at the record as it is now"
)

// decideEmail is the outcome of a person's decision about an address: the chosen one
// goes to whichever side does not have it. False when nobody decided, or when a side
// was changed again since.
func (s *session) decideEmail(p *person, plat string) (out merge.FieldOutcome, decided bool) {
	c, ok := s.decision(p, emailLabel)
	if !ok {
		return out, false
	}
	at, value := lockstep.TextValue(p.email), chosen(c)
	if !quarrelled(c, at) || !quarrelled(c, lockstep.TextValue(plat)) {
		s.overtaken(c, changedAgain, lookAgain)
		return out, false
	}
	out.Value, out.Base = value, value
	out.WriteCRM, out.WritePlatform = at != value, lockstep.TextValue(plat) != value
	return out, true
}

// readdress gives the record and its contact an address that neither of them has. A
// contact that speaks for other records too, or an address that is somebody else's,
// is no plain rename: then the record alone gets the address, and what follows from
// it is what follows from anybody's edit of it.
func (s *session) readdress(p *person, address lockstep.Value) {
	p.emailToCRM(address)
	s.mu.Lock()
	taken := slices.ContainsFunc(s.sync.links.ByEmail(address.Text(), nil), func(k crosswalk.Link) bool {
		return k.Ref != p.rec.Ref && k.Contact != p.link.Contact
	})
	s.mu.Unlock()
	r := &p.row
	if taken || !r.master || s.shared(p) {
		return
	}
	r.email, r.newEmail, r.why = address.Text(), address.Text(), whyDecided
}

// emailToCRM has the record's address written.
func (p *person) emailToCRM(address lockstep.Value) {
	p.toCRM = append(p.toCRM, lockstep.ColumnValue{Column: lockstep.EmailColumn, Value: address})
	p.crmPos = append(p.crmPos, -1)
	p.crmOld = append(p.crmOld, lockstep.TextValue(p.rec.Email))
}

// homeless tells of a decision about the address of a record that lost its contact.
func (s *session) homeless(p *person) {
	known := s.sync.takenUp[resolveKey{p.rec.Ref, emailLabel}]
	if c, ok := s.decision(p, emailLabel); ok && !known && chosen(c) != lockstep.TextValue(p.email) {
		s.overtaken(c, "the record has another contact, or none, since the conflict", lookAgain)
	}
}

// voiceless tells of decisions about the fields of a record that does not speak for
// its contact any more: what the contact says comes from another record.
func (s *session) voiceless(p *person) {
	for k := range s.sync.resolve {
		if k.ref != p.rec.Ref || k.label == emailLabel {
			continue
		}
		c, _ := s.decision(p, k.label)
		s.overtaken(c, "another record with the same address speaks for the contact", "edit the record that speaks for the contact, or give each record its own address")
	}
}

// decidedAll reports whether this run saw to all decisions that a person can expect
// it to carry out, so that they need not be taken up again.
func (s *session) decidedAll() bool {
	return s.run.List == "" && !s.sync.held && !slices.ContainsFunc(s.sync.lists, func(l *listState) bool { return l.failed })
}

// undecided tells of decisions that no step of the run took up.
func (s *session) undecided() {
	for k, c := range s.sync.resolve {
		if !s.sync.takenUp[k] {
			s.overtaken(c, "the record is in no activated list, or cannot be read", "change the value on either side by hand")
		}
	}
}
