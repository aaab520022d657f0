package engine

import (
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// dueChoice is a choice of which a side has still to be told.
type dueChoice struct {
	choice lockstep.Choice
	verdict
	why   string
	entry lockstep.ID // of the ledger
	there bool        // the CRM has the row
	kept  bool        // stored as agreed
}

// row is the id of the choice's row, or what it is going to be.
func (d *dueChoice) row() lockstep.ID {
	switch c := &d.choice; {
	case !c.Row.IsZero():
		return c.Row
	case !c.Lost.IsZero():
		return lockstep.ChoiceID(c.Account, c.Preference+"\x00"+c.Lost.String(), c.Key)
	default:
		return c.ID
	}
}

// tellChoices carries the pending choices that come to one answer to the side that
// does not know it, and returns how many those are. With NoAnswer it counts the
// opt-ins and tells nobody.
func (s *session) tellChoices(p *preferences, answer lockstep.Answer) (n int, err error) {
	var after lockstep.ID
	for {
		page, err := s.pendingChoices(p, after)
		if err != nil || len(page) == 0 {
			return n, err
		}
		after = page[len(page)-1].ID
		if answer == lockstep.NoAnswer {
			due, _, err := s.dueChoices(p, page, lockstep.OptedIn)
			if err != nil {
				return n, err
			}
			n += len(due)
			continue
		}
		told, err := s.tellChoicePage(p, page, answer)
		if n += told; err != nil {
			return n, err
		}
		if err := s.checkpoint(); err != nil {
			return n, err
		}
	}
}

func (s *session) tellChoicePage(p *preferences, page []lockstep.Choice, answer lockstep.Answer) (int, error) {
	due, rest, err := s.dueChoices(p, page, answer)
	if err != nil {
		return 0, err
	}
	if due, err = s.lookAgain(due); err != nil {
		return 0, err
	}
	n := len(due)
	if !s.dry() {
		c := lockstep.Commit{Consent: s.choiceEntries(due), Choices: rest}
		if len(c.Consent)+len(c.Choices) > 0 {
			if err := s.commit(c); err != nil {
				return n, err
			}
		}
	}
	if s.locked != "" {
		return n, nil // noted, and told once the account is unlocked
	}
	// The email account first: it is what mails. When one side fails, the other is
	// told all the same.
	first := s.tellChoicePlatform(p, due)
	if s.ctx.Err() != nil || lockstep.CodeOf(first) == lockstep.CodeConflict {
		return n, first
	}
	if err := s.tellChoiceRows(due); first == nil {
		first = err
	}
	if first != nil || s.dry() {
		return n, first
	}
	return n, s.agreed(due)
}

// dueChoices are the choices of a page that come to an answer. rest are those that
// wait for nothing any more.
func (s *session) dueChoices(p *preferences, page []lockstep.Choice, answer lockstep.Answer) (due []*dueChoice, rest []lockstep.Choice, err error) {
	keys := make([]lockstep.AddressKey, len(page))
	for i := range page {
		keys[i] = page[i].Key
	}
	standing, err := s.standing(keys)
	if err != nil {
		return nil, nil, err
	}
	closed := map[lockstep.AddressKey]bool{}
	for _, r := range standing {
		if r.Scope == lockstep.ScopeAccount && r.Released.IsZero() {
			closed[r.Key] = true
		}
	}
	for i := range page {
		c := page[i]
		preference, defined := p.defined[c.Preference]
		if !defined {
			c.Pending = false
			rest = append(rest, c)
			continue
		}
		d := &dueChoice{choice: c, verdict: decide(c.Agreed, c.Platform, c.CRM)}
		where := "in the email account"
		if d.from == lockstep.ConsentCRM {
			where = "in the CRM"
		}
		d.why = fmt.Sprintf("%s %s: %s", d.answer, where, preference.Name)
		if d.answer == lockstep.OptedIn && closed[c.Key] {
			if c.Platform.Answer == lockstep.OptedIn {
				continue // it waits until the person is back
			}
			// Only the person can loosen what stands, so the row says so again.
			s.finding(lockstep.Finding{
				Code: lockstep.FindingStillOptedOut, Table: lockstep.ChoiceTable, Record: c.Row, Contact: c.Contact, Field: c.Preference,
				Message: "the row opts somebody in to " + preference.Name + " who opted out of all mail; it was set back",
				Hint:    "the person has to come back by the platform's own flow first; then opt them in again",
			})
			d.verdict = verdict{lockstep.OptedOut, d.at, lockstep.ConsentLockstep}
			d.why = "the address is closed to all mail of the email account"
		}
		if d.answer == answer {
			due = append(due, d)
		}
	}
	return due, rest, nil
}

// lookAgain reads the rows as they are now. What a user changed since the run has
// heard is left to the next run.
func (s *session) lookAgain(due []*dueChoice) ([]*dueChoice, error) {
	by := make(map[lockstep.ID]*dueChoice, len(due))
	ids := make([]lockstep.ID, 0, len(due))
	for _, d := range due {
		by[d.row()] = d
		ids = append(ids, d.row())
	}
	if len(ids) == 0 {
		return due, nil
	}
	moved := map[*dueChoice]bool{}
	q := lockstep.RecordQuery{Table: lockstep.ChoiceTable, Columns: []string{lockstep.OptedInColumn}}
	err := s.crm.Records(s.ctx, q, ids, func(page []lockstep.Record) error {
		for i := range page {
			d := by[page[i].ID]
			if d == nil {
				continue
			}
			d.there = true
			now := lockstep.NoAnswer
			if v := page[i].Values[0]; v.Kind() == lockstep.Bool {
				now = lockstep.AnswerOf(v.Bool())
			}
			moved[d] = !d.choice.Row.IsZero() && now != d.choice.CRM.Answer && now != d.answer
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	kept := due[:0]
	for _, d := range due {
		if moved[d] {
			continue
		}
		if c := &d.choice; !d.there && !c.Row.IsZero() { // deleted meanwhile
			lose(c)
		}
		kept = append(kept, d)
	}
	return kept, nil
}

// choiceEntries notes in the ledger what people said.
func (s *session) choiceEntries(due []*dueChoice) []lockstep.ConsentEntry {
	var entries []lockstep.ConsentEntry
	for _, d := range due {
		e := s.choiceEntry(d)
		if d.entry = e.ID; d.answer != d.choice.Agreed.Answer && d.from != lockstep.ConsentLockstep {
			entries = append(entries, e)
		}
	}
	return entries
}

func (s *session) choiceEntry(d *dueChoice) lockstep.ConsentEntry {
	c := &d.choice
	e := lockstep.ConsentEntry{
		Account: s.account.ID, Act: lockstep.ActRestricted, Scope: lockstep.ScopePreference, Object: c.Preference, Key: c.Key, Email: c.Email,
		Contact: c.Contact, System: d.from, Evidence: d.why, At: d.at, Seen: s.e.Now(), Run: s.run.ID,
	}
	if d.answer == lockstep.OptedIn {
		e.Act = lockstep.ActAllowed
	}
	e.ID = lockstep.ConsentID(&e)
	return e
}

// choiceTold notes in the ledger that a side knows.
func (s *session) choiceTold(d *dueChoice, system lockstep.ConsentSystem, target, how string) lockstep.ConsentEntry {
	e := s.choiceEntry(d)
	e.Act, e.System, e.Target, e.Evidence, e.About = lockstep.ActTold, system, target, how, d.entry
	e.At = e.Seen
	e.ID = lockstep.ConsentID(&e)
	return e
}

// tellChoicePlatform writes choices to the email account.
func (s *session) tellChoicePlatform(p *preferences, due []*dueChoice) error {
	var untold []*dueChoice
	for _, d := range due {
		if d.choice.Platform.Answer != d.answer {
			untold = append(untold, d)
		}
	}
	changes := planChoices(lockstep.ChoosePreference, untold)
	var told []lockstep.ConsentEntry
	return s.carryOut(changes, func() error {
		choices := make([]lockstep.PreferenceChoice, len(untold))
		for i, d := range untold {
			choices[i] = lockstep.PreferenceChoice{Contact: d.choice.Contact, Email: d.choice.Email, Preference: d.choice.Preference, OptedIn: d.answer == lockstep.OptedIn}
		}
		results, err := p.keeper.Choose(s.ctx, choices)
		if err != nil {
			return err
		}
		for i, d := range untold {
			c := &d.choice
			switch e := results[i]; {
			case e == nil:
				changes[i].State = lockstep.Acknowledged
				c.Platform = lockstep.Said{Answer: d.answer, At: d.at}
				s.count(lockstep.Counts{ContactsUpdated: 1})
				told = append(told, s.choiceTold(d, lockstep.ConsentPlatform, c.Account, "written to the email account"))
			case e.Code == lockstep.CodeNotFound && c.Contact != "":
				changes[i].State, changes[i].Cause = lockstep.Refused, e.Msg
				c.Contact = "" // another contact may have the address by now
			case e.Code == lockstep.CodeNotFound && d.answer == lockstep.OptedOut:
				changes[i].State, changes[i].Cause = lockstep.Dropped, "the email account has no contact with the address, which says as much"
				c.Platform = lockstep.Said{Answer: d.answer}
			default:
				s.choiceRefused(&changes[i], "the email account refused the choice", e)
			}
		}
		return nil
	}, func(c *lockstep.Commit) { keepDue(c, untold, told) })
}

// keepDue adds choices, as far as they have come, to a commit.
func keepDue(c *lockstep.Commit, due []*dueChoice, told []lockstep.ConsentEntry) {
	for _, d := range due {
		x := d.settled()
		if d.kept = !x.Pending; d.kept && d.answer == lockstep.OptedOut {
			c.Counts.OptOutsTold++
		}
		c.Choices = append(c.Choices, x)
	}
	c.Consent = append(c.Consent, told...)
}

// settled is the choice with what both sides have agreed on, if they have.
func (d *dueChoice) settled() lockstep.Choice {
	c := d.choice
	if c.Pending = c.Platform.Answer != d.answer || c.CRM.Answer != d.answer; !c.Pending {
		c.Agreed = lockstep.Said{Answer: d.answer, At: d.at}
	}
	return c
}

// tellChoiceRows writes choices to the rows of our table.
func (s *session) tellChoiceRows(due []*dueChoice) error {
	var made, changed []*dueChoice
	for _, d := range due {
		switch {
		case d.choice.CRM.Answer == d.answer:
		case d.there:
			changed = append(changed, d)
		default:
			made = append(made, d)
		}
	}
	for _, set := range [][]*dueChoice{made, changed} {
		if err := s.writeChoiceRows(set); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) writeChoiceRows(due []*dueChoice) error {
	changes := planChoices(lockstep.KeepRow, due)
	rows := make([]lockstep.RecordWrite, len(due))
	for i, d := range due {
		rows[i] = lockstep.RecordWrite{ID: d.row(), Create: !d.there, Fields: []lockstep.ColumnValue{
			{Column: lockstep.NameColumn, Value: lockstep.TextValue(d.choice.Email)},
			{Column: lockstep.EmailTextColumn, Value: lockstep.TextValue(d.choice.Email)},
			{Column: lockstep.AccountColumn, Value: lockstep.TextValue(s.account.ID)},
			{Column: lockstep.PreferenceColumn, Value: lockstep.TextValue(d.choice.Preference)},
			{Column: lockstep.OptedInColumn, Value: lockstep.BoolValue(d.answer == lockstep.OptedIn)},
			{Column: lockstep.OriginColumn, Value: lockstep.TextValue(string(d.from))},
		}}
		since := lockstep.ColumnValue{Column: lockstep.SinceColumn, Value: lockstep.NullValue()}
		if !d.at.IsZero() {
			since.Value = lockstep.TimeValue(d.at)
		}
		rows[i].Fields = append(rows[i].Fields, since)
	}
	var told []lockstep.ConsentEntry
	return s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, lockstep.ChoiceTable, rows)
		if err != nil {
			return err
		}
		for i, d := range due {
			if e := results[i]; e != nil {
				s.choiceRefused(&changes[i], "the CRM refused the row of a choice", e)
				continue
			}
			changes[i].State = lockstep.Acknowledged
			d.choice.Row, d.choice.Lost, d.choice.Unread = rows[i].ID, lockstep.ID{}, true
			d.choice.CRM = lockstep.Said{Answer: d.answer, At: d.at}
			n := lockstep.Counts{RecordsUpdated: 1}
			if rows[i].Create {
				n = lockstep.Counts{RecordsCreated: 1}
			}
			s.count(n)
			told = append(told, s.choiceTold(d, lockstep.ConsentCRM, toldRow, "shown as a row"))
		}
		return nil
	}, func(c *lockstep.Commit) { keepDue(c, due, told) })
}

// agreed stores the choices that were the same on both sides already.
func (s *session) agreed(due []*dueChoice) error {
	var c lockstep.Commit
	same := slices.DeleteFunc(slices.Clone(due), func(d *dueChoice) bool { return d.kept || d.settled().Pending })
	keepDue(&c, same, nil)
	if len(c.Choices) == 0 {
		return nil
	}
	return s.commit(c)
}

// planChoices is a change of the journal for each choice.
func planChoices(kind lockstep.ChangeKind, due []*dueChoice) []lockstep.Change {
	changes := make([]lockstep.Change, len(due))
	for i, d := range due {
		changes[i] = lockstep.Change{
			Kind: kind, State: lockstep.Planned, Ref: lockstep.Ref{Table: lockstep.ChoiceTable, ID: d.row()}, Contact: d.choice.Contact, Email: d.choice.Email,
			Name: d.choice.Preference, Why: d.why,
		}
		was := d.choice.Platform.Answer
		if kind == lockstep.KeepRow {
			was = d.choice.CRM.Answer
		}
		f := lockstep.FieldChange{Name: lockstep.OptedInColumn, New: lockstep.BoolValue(d.answer == lockstep.OptedIn)}
		if was != lockstep.NoAnswer {
			f.Old = lockstep.BoolValue(was == lockstep.OptedIn)
		}
		changes[i].Fields = []lockstep.FieldChange{f}
	}
	return changes
}
