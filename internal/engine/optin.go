package engine

import (
	"slices"
	"strconv"

	"github.com/lockstep-sync/lockstep"
)

// optInStatus is the run of the type: how a contact agreed to be mailed is written to
// every CRM record with the address. Within one account the value follows the
// platform both ways; with several accounts the strongest of their values counts.
func (s *session) optInStatus() error {
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.closeConsentBatches(); err != nil {
		return err
	}
	var tables []string
	for _, name := range MemberTables {
		t := s.table(name)
		if t == nil {
			continue
		}
		if _, ok := t.Column(lockstep.OptInTypeColumn); ok {
			tables = append(tables, name)
		}
	}
	if len(tables) == 0 {
		return &lockstep.Error{
			Code: lockstep.CodeInvalid, Op: "start run", Msg: "the CRM has no column for the opt-in type", Hint: "run lockstep dynamics install, then crm-metadata",
		}
	}
	others, err := s.otherPlatforms()
	if err != nil {
		return err
	}
	s.stage("reading opt-in types")
	return s.whole(func() error { return s.readOptIns(tables, others) })
}

func (s *session) readOptIns(tables []string, others []lockstep.Platform) error {
	const name = "consent/opt-in"
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	next, err := s.platform.Contacts(s.ctx, lockstep.ContactQuery{Since: since}, func(page []lockstep.Contact) error {
		for part := range slices.Chunk(page, optInPage) {
			if err := s.carryOptIns(tables, others, part, since == ""); err != nil {
				return err
			}
		}
		return s.ctx.Err()
	})
	return s.heard(name, since, next, err, func() error { return s.readOptIns(tables, others) })
}

// optInPage is how many contacts are looked up in the CRM at a time.
const optInPage = 500

// carryOptIns writes the opt-in types of some contacts to their records. first is set
// when the account is read for the first time: what the platform said before Lockstep
// came is no change and does not fill the ledger.
func (s *session) carryOptIns(tables []string, others []lockstep.Platform, contacts []lockstep.Contact, first bool) error {
	value := make(map[string]lockstep.Contact, len(contacts))
	emails := make([]string, 0, len(contacts))
	for _, c := range contacts {
		e := lockstep.NormalizeEmail(c.Email)
		if lockstep.CheckEmail(e) != "" || c.Standing == lockstep.ContactDeleted {
			continue
		}
		if _, twice := value[e]; !twice {
			emails = append(emails, e)
		}
		value[e] = c
	}
	s.count(lockstep.Counts{Read: int64(len(emails))})
	changed := map[string]bool{}
	var entries []lockstep.ConsentEntry
	for _, table := range tables {
		var recs []lockstep.Record
		var was []lockstep.OptInType
		q := lockstep.RecordQuery{Table: table, Columns: []string{lockstep.OptInTypeColumn}, Inactive: true}
		err := s.crm.FindByEmail(s.ctx, q, emails, func(page []lockstep.Record) error {
			for _, r := range page {
				now := optInValue(r.Values[0])
				if now != value[lockstep.NormalizeEmail(r.Email)].OptIn {
					r.Values = nil // of the page's memory
					recs, was = append(recs, r), append(was, now)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		var changes []lockstep.Change
		var rows []lockstep.RecordWrite
		for i, r := range recs {
			email := lockstep.NormalizeEmail(r.Email)
			c := value[email]
			want := c.OptIn
			if want < was[i] { // another account may know of a stronger one
				for _, p := range others {
					o, err := p.Contact(s.ctx, email, nil)
					if lockstep.CodeOf(err) == lockstep.CodeNotFound {
						continue
					}
					if err != nil {
						return err
					}
					want = max(want, o.OptIn)
				}
				if want == was[i] {
					continue
				}
			}
			v := lockstep.CanonicalValue(lockstep.Number, strconv.Itoa(int(want)))
			rows = append(rows, lockstep.RecordWrite{ID: r.ID, Fields: []lockstep.ColumnValue{{Column: lockstep.OptInTypeColumn, Value: v}}})
			changes = append(changes, lockstep.Change{
				Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: r.Ref, Contact: c.ID, Email: email, Why: "the opt-in type on the platform is " + want.String(),
				Fields: []lockstep.FieldChange{{Name: lockstep.OptInTypeColumn, Old: lockstep.CanonicalValue(lockstep.Number, strconv.Itoa(int(was[i]))), New: v}},
			})
			changed[email] = true
		}
		for at := 0; at < len(changes); at += consentPage {
			to := min(at+consentPage, len(changes))
			if err := s.writeOptIns(table, changes[at:to], rows[at:to]); err != nil {
				return err
			}
		}
	}
	if !first && !s.dry() {
		for email := range changed {
			c := value[email]
			e := lockstep.ConsentEntry{
				Account: s.account.ID, Act: lockstep.ActAllowed, Scope: lockstep.ScopeOptIn, Key: s.e.Store.AddressKey(email), Email: email, Contact: c.ID,
				OptIn: c.OptIn, System: lockstep.ConsentPlatform, Evidence: "the opt-in type on the platform is " + c.OptIn.String(), At: c.Modified, Seen: s.e.Now(), Run: s.run.ID,
			}
			if c.OptIn == lockstep.OptInUnknown {
				e.Act = lockstep.ActRestricted
			}
			e.ID = lockstep.ConsentID(&e)
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(a, b lockstep.ConsentEntry) int { return slices.Compare(a.ID[:], b.ID[:]) })
	}
	s.count(lockstep.Counts{Written: int64(len(changed)), Equal: int64(len(emails) - len(changed))})
	if s.dry() {
		return nil
	}
	return s.commit(lockstep.Commit{Consent: entries})
}

func (s *session) writeOptIns(table string, changes []lockstep.Change, rows []lockstep.RecordWrite) error {
	return s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, table, rows)
		if err != nil {
			return err
		}
		for i := range changes {
			if e := results[i]; e != nil {
				changes[i].State, changes[i].Cause = lockstep.Refused, e.Msg
				s.finding(lockstep.Finding{
					Code: lockstep.FindingRejected, Table: table, Record: changes[i].Ref.ID, Contact: changes[i].Contact, Field: lockstep.OptInTypeColumn,
					Message: "the CRM refused the opt-in type: " + e.Msg, Hint: e.Hint,
				})
				continue
			}
			changes[i].State = lockstep.Acknowledged
			s.count(lockstep.Counts{RecordsUpdated: 1})
		}
		return nil
	})
}

// optInValue reads the column's value; an empty one says that nothing is known.
func optInValue(v lockstep.Value) lockstep.OptInType {
	n, err := strconv.Atoi(v.Text())
	if err != nil || n < 0 || n > int(lockstep.OptInVerifiedDouble) {
		return lockstep.OptInUnknown
	}
	return lockstep.OptInType(n)
}

// otherPlatforms opens the organization's other email accounts.
func (s *session) otherPlatforms() ([]lockstep.Platform, error) {
	all, err := s.e.Store.Accounts(s.ctx, s.org.ID)
	if err != nil {
		return nil, err
	}
	var others []lockstep.Platform
	for _, a := range all {
		if a.ID == s.account.ID {
			continue
		}
		p, err := s.e.Connector.Platform(s.ctx, a)
		if err != nil {
			return nil, err
		}
		others = append(others, p)
	}
	return others, nil
}
