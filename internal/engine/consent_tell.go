package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
)

// toldBack stands for everybody who has to know that a person came back.
const toldBack = "back"

// tellPlatform blocks addresses in the email account.
func (s *session) tellPlatform(rs []*lockstep.Restriction) error {
	keeper := s.platform.(lockstep.SuppressionKeeper)
	for part := range slices.Chunk(waiting(rs, toldPlatform), keeper.MaxSuppress()) {
		changes := make([]lockstep.Change, len(part))
		emails := make([]string, len(part))
		for i, r := range part {
			emails[i] = r.Email
			changes[i] = lockstep.Change{Kind: lockstep.SuppressContact, State: lockstep.Planned, Ref: r.Ref, Contact: r.Contact, Email: r.Email, Why: r.Evidence}
		}
		err := s.carryOut(changes, func() error {
			results, err := keeper.Suppress(s.ctx, emails)
			if err != nil {
				return err
			}
			for i, r := range part {
				if refused := results[i]; refused != nil {
					s.optOutRefused(r, &changes[i], "the email account refused to block the address", refused)
					continue
				}
				changes[i].State = lockstep.Acknowledged
				listedAnew(r)
				s.told(r, toldPlatform, lockstep.ConsentPlatform, lockstep.Ref{}, "blocked in the email account")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tellAccounts hands suppressions to the organization's other email accounts. They
// stand there from that commit on; their own next runs block them.
func (s *session) tellAccounts(rs []*lockstep.Restriction) error {
	rs = waiting(rs, toldAccounts)
	if len(rs) == 0 {
		return nil
	}
	now := s.e.Now()
	var others []lockstep.EmailAccount
	if !s.account.AloneWithSuppressions {
		all, err := s.e.Store.Accounts(s.ctx, s.org.ID)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.ID != s.account.ID && !a.AloneWithSuppressions {
				others = append(others, a)
			}
		}
	}
	var c lockstep.Commit
	keys := make([]lockstep.AddressKey, len(rs))
	for i, r := range rs {
		keys[i] = r.Key
	}
	for _, a := range others {
		standing, err := s.e.Store.Restrictions(s.ctx, a.ID, keys)
		if err != nil {
			return err
		}
		has := map[lockstep.ID]lockstep.Restriction{}
		for _, r := range standing {
			has[r.ID] = r
		}
		for _, r := range rs {
			if r.Origin != "" { // handed on by the account where it was made
				continue
			}
			id := lockstep.RestrictionID(a.ID, lockstep.ScopeAccount, "", r.Key)
			if was, ok := has[id]; ok && was.Released.IsZero() && was.Reason >= r.Reason {
				continue
			}
			e := lockstep.ConsentEntry{
				Account: a.ID, Act: lockstep.ActRestricted, Scope: lockstep.ScopeAccount, Key: r.Key, Email: r.Email, Ref: r.Ref, Reason: r.Reason,
				System: r.System, Actor: r.Actor, Evidence: r.Evidence + " (" + s.account.Name + ")", At: r.At, Seen: now, About: r.Entry, Run: s.run.ID,
			}
			e.ID = lockstep.ConsentID(&e)
			c.Consent = append(c.Consent, e)
			c.Restrictions = append(c.Restrictions, lockstep.Restriction{
				ID: id, Account: a.ID, Scope: lockstep.ScopeAccount, Key: r.Key, Email: r.Email, Ref: r.Ref, Reason: r.Reason, System: r.System,
				Origin: s.account.ID, Actor: r.Actor, Evidence: e.Evidence, At: r.At, Seen: now, Entry: e.ID, Told: map[string]time.Time{}, Pending: true,
			})
		}
	}
	if s.dry() {
		return nil
	}
	if len(c.Restrictions) > 0 {
		if err := s.commit(c); err != nil {
			return err
		}
	}
	for _, r := range rs {
		r.Told[toldAccounts] = now
	}
	return nil
}

// tellFlags closes every CRM record with the address to bulk email.
func (s *session) tellFlags(rs []*lockstep.Restriction) error {
	if rs = waiting(rs, toldFlags); len(rs) == 0 {
		return nil
	}
	t := s.telling(rs, "closed to bulk email", "the CRM refused to close the record to bulk email")
	closed := []lockstep.ColumnValue{{Column: lockstep.BulkEmailColumn, Value: lockstep.BoolValue(true)}}
	for _, table := range MemberTables {
		if s.table(table) == nil {
			continue
		}
		recs, err := t.find(table, func(r *lockstep.Record) bool { return r.OptOut&lockstep.DoNotBulkEmail == 0 })
		if err != nil {
			return err
		}
		change := lockstep.Change{
			Kind: lockstep.WriteRecord, Fields: []lockstep.FieldChange{{Name: lockstep.BulkEmailColumn, Old: lockstep.BoolValue(false), New: lockstep.BoolValue(true)}},
		}
		err = t.write(recs, change, lockstep.Counts{RecordsUpdated: 1}, func(part []lockstep.Record) ([]*lockstep.Error, error) {
			rows := make([]lockstep.RecordWrite, len(part))
			for i := range part {
				rows[i] = lockstep.RecordWrite{ID: part[i].ID, Fields: closed}
			}
			return s.crm.WriteRecords(s.ctx, table, rows)
		})
		if err != nil {
			return err
		}
	}
	t.done()
	return nil
}

// tellClosed closes records again that a CRM user had closed and a backup of the CRM
// has opened. A record that is gone or closed has nothing to be told.
func (s *session) tellClosed(rs []*lockstep.Restriction) error {
	for _, r := range waiting(rs, toldFlags) {
		column, flag := lockstep.BulkEmailColumn, lockstep.DoNotBulkEmail
		if r.Scope == lockstep.ScopeEmail {
			column, flag = lockstep.AllEmailColumn, lockstep.DoNotEmail
		}
		open := false
		err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: r.Ref.Table, Inactive: true}, []lockstep.ID{r.Ref.ID}, func(page []lockstep.Record) error {
			for i := range page {
				open = open || page[i].OptOut&flag == 0
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !open {
			r.Told[toldFlags] = s.e.Now()
			continue
		}
		change := lockstep.Change{
			Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: r.Ref, Contact: r.Contact, Email: r.Email, Why: "a backup of the CRM had opened it",
			Fields: []lockstep.FieldChange{{Name: column, Old: lockstep.BoolValue(false), New: lockstep.BoolValue(true)}},
		}
		done, err := s.writeOne(change, 0, r, toldFlags, "the CRM refused to close the record again")
		if err != nil {
			return err
		}
		if done {
			r.Told[toldFlags] = s.e.Now()
		}
	}
	return nil
}

// telling carries opt-outs to the CRM records with their addresses.
type telling struct {
	s             *session
	rs            []*lockstep.Restriction
	by            map[string]*lockstep.Restriction // by address
	refused       map[*lockstep.Restriction]bool
	said, problem string
}

func (s *session) telling(rs []*lockstep.Restriction, said, problem string) *telling {
	t := &telling{s: s, rs: rs, by: make(map[string]*lockstep.Restriction, len(rs)), refused: map[*lockstep.Restriction]bool{}, said: said, problem: problem}
	for _, r := range rs {
		t.by[r.Email] = r
	}
	return t
}

func (t *telling) of(r *lockstep.Record) *lockstep.Restriction {
	return t.by[lockstep.NormalizeEmail(r.Email)]
}

// find returns the records of a table with one of the addresses, active or not.
func (t *telling) find(table string, want func(*lockstep.Record) bool) ([]lockstep.Record, error) {
	emails := make([]string, len(t.rs))
	for i, r := range t.rs {
		emails[i] = r.Email
	}
	var found []lockstep.Record
	err := t.s.crm.FindByEmail(t.s.ctx, lockstep.RecordQuery{Table: table, Inactive: true}, emails, func(recs []lockstep.Record) error {
		for i := range recs {
			if t.of(&recs[i]) != nil && want(&recs[i]) {
				found = append(found, recs[i])
			}
		}
		return nil
	})
	return found, err
}

// write carries one change to records, some at a time. each is what every written
// record adds to the run's counts.
func (t *telling) write(recs []lockstep.Record, change lockstep.Change, each lockstep.Counts, call func([]lockstep.Record) ([]*lockstep.Error, error)) error {
	for part := range slices.Chunk(recs, consentPage) {
		changes := make([]lockstep.Change, len(part))
		for i := range part {
			r := t.of(&part[i])
			changes[i] = change
			changes[i].State, changes[i].Ref, changes[i].Contact, changes[i].Email, changes[i].Why = lockstep.Planned, part[i].Ref, r.Contact, r.Email, r.Evidence
		}
		err := t.s.carryOut(changes, func() error {
			results, err := call(part)
			if err != nil {
				return err
			}
			for i := range part {
				r := t.of(&part[i])
				if e := results[i]; e != nil {
					t.refused[r] = true
					t.s.optOutRefused(r, &changes[i], t.problem, e)
					continue
				}
				changes[i].State = lockstep.Acknowledged
				t.s.count(each)
				t.s.toldPart(r, toldFlags, lockstep.ConsentCRM, part[i].Ref, t.said)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// done stamps those of whom no record refused to hear, those without a record among
// them.
func (t *telling) done() {
	for _, r := range t.rs {
		if !t.refused[r] {
			r.Told[toldFlags] = t.s.e.Now()
		}
	}
}

// tellRows writes a row of our own table for each suppressed address.
func (s *session) tellRows(rs []*lockstep.Restriction) error {
	return s.writeRows(waiting(rs, toldRow), lockstep.SuppressionTable, func(r *lockstep.Restriction) []lockstep.ColumnValue {
		return []lockstep.ColumnValue{{Column: lockstep.ReasonColumn, Value: lockstep.TextValue(r.Reason.String())}}
	})
}

// writeRows writes one row for each restriction into a table of ours. Its id is the
// restriction's, so that a repeat finds the row there.
func (s *session) writeRows(rs []*lockstep.Restriction, table string, more func(*lockstep.Restriction) []lockstep.ColumnValue) error {
	if len(rs) == 0 {
		return nil
	}
	if s.table(table) == nil {
		s.finding(lockstep.Finding{
			Code: lockstep.FindingNotInstalled, Table: table,
			Message: "opt-outs are kept and acted upon, but not shown as rows in Dynamics: the table " + table + " is not there",
			Hint:    "run lockstep dynamics install",
		})
		return nil
	}
	for part := range slices.Chunk(rs, consentPage) {
		changes := make([]lockstep.Change, len(part))
		rows := make([]lockstep.RecordWrite, len(part))
		var there, taken []*lockstep.Restriction
		for i, r := range part {
			origin := string(r.System)
			fields := append([]lockstep.ColumnValue{
				{Column: lockstep.NameColumn, Value: lockstep.TextValue(r.Email)},
				{Column: lockstep.EmailTextColumn, Value: lockstep.TextValue(r.Email)},
				{Column: lockstep.AccountColumn, Value: lockstep.TextValue(s.account.ID)},
				{Column: lockstep.OriginColumn, Value: lockstep.TextValue(origin)},
			}, more(r)...)
			if !r.At.IsZero() {
				fields = append(fields, lockstep.ColumnValue{Column: lockstep.SinceColumn, Value: lockstep.TimeValue(r.At)})
			}
			rows[i] = lockstep.RecordWrite{ID: r.ID, Create: true, Fields: fields}
			changes[i] = lockstep.Change{Kind: lockstep.KeepRow, State: lockstep.Planned, Ref: lockstep.Ref{Table: table, ID: r.ID}, Contact: r.Contact, Email: r.Email, Why: r.Evidence}
		}
		err := s.carryOut(changes, func() error {
			results, err := s.crm.WriteRecords(s.ctx, table, rows)
			if err != nil {
				return err
			}
			for i, r := range part {
				if e := results[i]; e != nil && e.Code == lockstep.CodeConflict {
					taken = append(taken, r)
					changes[i].State, changes[i].Cause = lockstep.Refused, e.Msg
				} else if e != nil {
					s.optOutRefused(r, &changes[i], "the CRM refused the row", e)
				} else {
					changes[i].State = lockstep.Acknowledged
					there = append(there, r)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range taken {
			if err := s.takeRow(table, r); err != nil {
				return err
			}
		}
		if err := s.openRows(table, there); err != nil {
			return err
		}
	}
	return nil
}

// takeRow lets a row that a user entered say an opt-out, where the key of the table lets
// no second one in. One that was closed is opened again.
func (s *session) takeRow(table string, r *lockstep.Restriction) error {
	ids, err := s.rowsAbout(table, r)
	if err != nil {
		return err
	}
	var row *lockstep.Record
	q := lockstep.RecordQuery{Table: table, Columns: []string{lockstep.AccountColumn}}
	err = s.crm.Records(s.ctx, q, ids, func(page []lockstep.Record) error {
		for i := range page {
			if len(page[i].Values) == 1 && page[i].Values[0].Text() == s.account.ID {
				x := page[i]
				row = &x
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case row == nil:
		s.finding(lockstep.Finding{
			Code: lockstep.FindingRejected, Table: table, Record: r.ID, Contact: r.Contact,
			Message: "the CRM has another row with the address, which was not read yet", Hint: "the next run reads it",
		})
		return nil
	case !row.Inactive:
		s.told(r, toldRow, lockstep.ConsentCRM, row.Ref, "shown as a row")
		return nil
	}
	return s.openRow(row.Ref, r)
}

// openRows sees to it that rows which are there are open: one may have been closed when
// the person had come back in between.
func (s *session) openRows(table string, rs []*lockstep.Restriction) error {
	if s.dry() || len(rs) == 0 {
		return nil
	}
	by := make(map[lockstep.ID]*lockstep.Restriction, len(rs))
	ids := make([]lockstep.ID, 0, len(rs))
	for _, r := range rs {
		by[r.ID] = r
		ids = append(ids, r.ID)
	}
	closed := map[lockstep.ID]bool{}
	err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table}, ids, func(page []lockstep.Record) error {
		for i := range page {
			closed[page[i].ID] = page[i].Inactive
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		row := lockstep.Ref{Table: table, ID: id}
		if !closed[id] {
			s.told(by[id], toldRow, lockstep.ConsentCRM, row, "shown as a row")
		} else if err := s.openRow(row, by[id]); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) openRow(row lockstep.Ref, r *lockstep.Restriction) error {
	change := lockstep.Change{
		Kind: lockstep.KeepRow, State: lockstep.Planned, Ref: row, Contact: r.Contact, Email: r.Email, Why: r.Evidence,
		Fields: []lockstep.FieldChange{{Name: lockstep.StateColumn, New: lockstep.CanonicalValue(lockstep.Number, "0")}},
	}
	done, err := s.writeOne(change, 0, r, toldRow, "the CRM refused to open the row again")
	if done {
		r.Told[toldRow] = s.e.Now()
	}
	return err
}

// tellBooks takes people whom the CRM closed to email out of the address books whose
// filter says so. While an import that was planned before is still under way it may
// put them back, so they are looked at again.
func (s *session) tellBooks(rs []*lockstep.Restriction) error {
	rs = waiting(rs, toldBooks)
	if len(rs) == 0 {
		return nil
	}
	if s.many += len(rs); s.many > manyOptOuts {
		for _, r := range rs {
			r.Told[toldBooks] = s.e.Now()
		}
		return nil
	}
	sets, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	remove := map[lockstep.BookID][]*lockstep.Restriction{}
	for _, r := range rs {
		c, err := s.platform.Contact(s.ctx, r.Email, nil)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		r.Contact = c.ID
		optOut := lockstep.DoNotBulkEmail
		if r.Scope == lockstep.ScopeEmail {
			optOut = lockstep.DoNotEmail
		}
		for _, m := range c.Books {
			for _, l := range sets {
				if !l.Activated || l.Book != m.Book || m.Unsubscribed {
					continue
				}
				if _, out := merge.Excluded(l.SubscriptionFilter, l.MinOptIn, optOut, c.Standing, false, c.OptIn); out {
					remove[l.Book] = append(remove[l.Book], r)
				}
			}
		}
	}
	for _, l := range sets {
		for part := range slices.Chunk(remove[l.Book], s.platform.MaxRemove()) {
			if err := s.removeOptedOut(l, part); err != nil {
				return err
			}
		}
		delete(remove, l.Book)
	}
	if s.dry() {
		return nil
	}
	for _, r := range rs {
		again, err := s.e.Store.ImportsUnderWay(s.ctx, s.account.ID, r.Seen)
		if err != nil {
			return err
		}
		if !again {
			s.told(r, toldBooks, lockstep.ConsentPlatform, lockstep.Ref{}, "in none of the address books that do not allow it")
		}
	}
	return nil
}

func (s *session) removeOptedOut(l lockstep.ListSettings, rs []*lockstep.Restriction) error {
	changes := make([]lockstep.Change, len(rs))
	ids := make([]lockstep.ContactID, len(rs))
	for i, r := range rs {
		ids[i] = r.Contact
		changes[i] = lockstep.Change{Kind: lockstep.RemoveFromBook, State: lockstep.Planned, Ref: r.Ref, Contact: r.Contact, Email: r.Email, List: l.CRMID, Book: l.Book, Why: r.Evidence}
	}
	return s.carryOut(changes, func() error {
		job, err := s.platform.RemoveFromBook(s.ctx, l.Book, ids)
		if err == nil {
			err = s.platform.AwaitRemoval(s.ctx, job)
		}
		if err != nil {
			return err
		}
		for i := range changes {
			changes[i].State = lockstep.Acknowledged
		}
		s.count(lockstep.Counts{BookRemovals: int64(len(changes))})
		return nil
	})
}

// tellBack carries it on that a person came back by the platform's own flow: what
// Lockstep itself closed because of the opt-out is opened again, what a CRM user
// closed stays closed.
func (s *session) tellBack(rs []*lockstep.Restriction) error {
	for _, r := range rs {
		done := true
		if r.Scope == lockstep.ScopeAccount {
			open, err := s.othersAllow(r)
			if err != nil {
				return err
			}
			if open {
				if done, err = s.openRecords(r); err != nil {
					return err
				}
			}
		}
		table := lockstep.SuppressionTable
		if r.Scope == lockstep.ScopeList {
			table = lockstep.UnsubscriberTable
		}
		if s.table(table) != nil {
			closed, err := s.closeRows(table, r)
			if err != nil {
				return err
			}
			done = done && closed
		}
		if done {
			r.Told[toldBack] = s.e.Now()
		}
	}
	return nil
}

// rowsAbout are the rows that may say an opt-out: ours, and those that users entered, as
// the ledger knows them.
func (s *session) rowsAbout(table string, r *lockstep.Restriction) ([]lockstep.ID, error) {
	ids := []lockstep.ID{r.ID}
	err := s.ledger(r.Key, func(e *lockstep.ConsentEntry) {
		if e.Act == lockstep.ActRestricted && e.Scope == r.Scope && e.Ref.Table == table && !slices.Contains(ids, e.Ref.ID) {
			ids = append(ids, e.Ref.ID)
		}
	})
	return ids, err
}

// closeRows closes the rows about a restriction. It reports whether the CRM refused
// none.
func (s *session) closeRows(table string, r *lockstep.Restriction) (bool, error) {
	ids, err := s.rowsAbout(table, r)
	if err != nil {
		return false, err
	}
	var open []lockstep.ID
	err = s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table}, ids, func(page []lockstep.Record) error {
		for i := range page {
			if !page[i].Inactive {
				open = append(open, page[i].ID)
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	all := true
	for _, id := range open {
		change := lockstep.Change{
			Kind: lockstep.KeepRow, State: lockstep.Planned, Ref: lockstep.Ref{Table: table, ID: id}, Contact: r.Contact, Email: r.Email, Why: "the person came back",
			Fields: []lockstep.FieldChange{{Name: lockstep.StateColumn, New: lockstep.CanonicalValue(lockstep.Number, "1")}},
		}
		done, err := s.writeOne(change, 0, r, toldBack, "the CRM refused to close the row")
		if err != nil {
			return false, err
		}
		all = all && done
	}
	return all, nil
}

// othersAllow reports whether no other account of the organization restricts the
// address.
func (s *session) othersAllow(r *lockstep.Restriction) (bool, error) {
	all, err := s.e.Store.Accounts(s.ctx, s.org.ID)
	if err != nil {
		return false, err
	}
	for _, a := range all {
		if a.ID == s.account.ID {
			continue
		}
		rs, err := s.e.Store.Restrictions(s.ctx, a.ID, []lockstep.AddressKey{r.Key})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(rs, func(o lockstep.Restriction) bool {
			return o.Scope == lockstep.ScopeAccount && o.Released.IsZero()
		}) {
			return false, nil
		}
	}
	return true, nil
}

// openRecords takes back the flags that Lockstep set because of a restriction; the
// ledger says which they are. It reports whether the CRM refused none.
func (s *session) openRecords(r *lockstep.Restriction) (bool, error) {
	ours := map[lockstep.Ref]bool{}
	for after := int64(0); ; {
		entries, err := s.e.Store.ConsentOf(s.ctx, r.Key, after, 1000)
		if err != nil {
			return false, err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			after = e.Seq
			switch {
			case e.Act == lockstep.ActTold && e.Target == toldFlags && e.Scope == lockstep.ScopeAccount && e.Ref.Table != "":
				ours[e.Ref] = true
			case e.Act == lockstep.ActRestricted && (e.Scope == lockstep.ScopeBulk || e.Scope == lockstep.ScopeEmail):
				delete(ours, e.Ref) // a user closed it too
			}
		}
	}
	all := true
	for _, table := range MemberTables {
		var ids []lockstep.ID
		for ref := range ours {
			if ref.Table == table {
				ids = append(ids, ref.ID)
			}
		}
		if len(ids) == 0 || s.table(table) == nil {
			continue
		}
		slices.SortFunc(ids, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		var recs []lockstep.Record
		err := s.crm.Records(s.ctx, lockstep.RecordQuery{Table: table}, ids, func(page []lockstep.Record) error {
			for _, rec := range page {
				// Lockstep never sets the flag against all email: who did has closed it.
				if rec.OptOut == lockstep.DoNotBulkEmail && lockstep.NormalizeEmail(rec.Email) == r.Email {
					recs = append(recs, rec)
				}
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		for _, rec := range recs {
			change := lockstep.Change{
				Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: rec.Ref, Contact: r.Contact, Email: r.Email, Why: "the person came back",
				Fields: []lockstep.FieldChange{{Name: lockstep.BulkEmailColumn, Old: lockstep.BoolValue(true), New: lockstep.BoolValue(false)}},
			}
			done, err := s.writeOne(change, rec.Version, r, toldBack, "the CRM refused to open the record to bulk email")
			if err != nil {
				return false, err
			}
			all = all && done
		}
	}
	return all, nil
}

// writeOne writes one row of the CRM, and reports whether the CRM took it. What opens
// somebody to email rests on the version in which the row was read: whoever was edited
// since is looked at again in the next run.
func (s *session) writeOne(change lockstep.Change, version int64, r *lockstep.Restriction, destination, problem string) (done bool, err error) {
	changes := []lockstep.Change{change}
	write := lockstep.RecordWrite{ID: change.Ref.ID, Version: version}
	for _, f := range change.Fields {
		write.Fields = append(write.Fields, lockstep.ColumnValue{Column: f.Name, Value: f.New})
	}
	err = s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, change.Ref.Table, []lockstep.RecordWrite{write})
		if err != nil {
			return err
		}
		switch refused := results[0]; {
		case refused != nil && refused.Code == lockstep.CodeStale:
			changes[0].State, changes[0].Cause = lockstep.Refused, refused.Msg
			return nil
		case refused != nil:
			s.optOutRefused(r, &changes[0], problem, refused)
			return nil
		}
		changes[0].State, done = lockstep.Acknowledged, true
		s.toldPart(r, destination, lockstep.ConsentCRM, change.Ref, change.Why)
		return nil
	})
	return done, err
}

// carryOut journals changes, lets call make them, and stores the outcome. In a
// preview they are only stored. A call whose answer was lost leaves the batch open;
// what it was for still waits and is done again. more adds to what is stored with the
// outcome.
func (s *session) carryOut(changes []lockstep.Change, call func() error, more ...func(*lockstep.Commit)) error {
	if len(changes) == 0 {
		return nil
	}
	if s.dry() {
		return s.planOnly(changes)
	}
	id, err := s.plan(changes[0].Kind, journal.Encode(changes), len(changes))
	if err != nil {
		return err
	}
	s.e.step(changes[0].Kind.String() + ".before")
	if err := call(); err != nil {
		if !lockstep.IsUnknown(err) && s.ctx.Err() == nil {
			for i := range changes {
				changes[i].State, changes[i].Cause = lockstep.Dropped, lockstep.AsError(err).Msg
			}
			if cerr := s.commit(lockstep.Commit{Batches: []lockstep.BatchEnd{{ID: id, State: lockstep.Dropped, Payload: journal.Encode(changes)}}}); cerr != nil {
				return cerr
			}
		}
		return err
	}
	s.e.step(changes[0].Kind.String() + ".after")
	state := lockstep.Refused
	for i := range changes {
		if changes[i].State == lockstep.Acknowledged {
			state = lockstep.Acknowledged
		}
	}
	end := lockstep.Commit{Batches: []lockstep.BatchEnd{{ID: id, State: state, Payload: journal.Encode(changes)}}}
	for _, add := range more {
		add(&end)
	}
	return s.commit(end)
}

// optOutRefused notes that somebody would not hear of an opt-out. It goes on waiting
// and is tried again by every run.
func (s *session) optOutRefused(r *lockstep.Restriction, c *lockstep.Change, what string, refused *lockstep.Error) {
	c.State, c.Cause = lockstep.Refused, refused.Msg
	s.finding(lockstep.Finding{
		Code: lockstep.FindingRejected, Table: c.Ref.Table, Record: c.Ref.ID, Contact: r.Contact, Field: refused.Field,
		Message: fmt.Sprintf("%s: %s", what, refused.Msg), Hint: refused.Hint,
	})
}
