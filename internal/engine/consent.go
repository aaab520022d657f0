package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// ConsentStore is what the consent lane keeps and reads.
type ConsentStore interface {
	AddressKey(email string) lockstep.AddressKey
	// Restrictions returns what stands against these addresses, in every scope.
	Restrictions(ctx context.Context, account string, keys []lockstep.AddressKey) ([]lockstep.Restriction, error)
	// PendingRestrictions returns those with an id above after of which somebody has
	// still to be told, by id.
	PendingRestrictions(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Restriction, error)
	// RestrictedSince returns those with a stamp above stamp, in its order.
	RestrictedSince(ctx context.Context, account string, stamp int64, each func(lockstep.Restriction) error) error
	// LiftedRestrictions grows whenever a restriction is lifted.
	LiftedRestrictions(ctx context.Context) (int64, error)
	// ConsentOf returns an address's ledger entries with a place above after.
	ConsentOf(ctx context.Context, key lockstep.AddressKey, after int64, limit int) ([]lockstep.ConsentEntry, error)
	// ConsentNoted returns which of these entries the ledger has, by id.
	ConsentNoted(ctx context.Context, ids []lockstep.ID) (map[lockstep.ID]bool, error)
	// Choices returns what addresses chose, for every preference; ChoicesShown the
	// choices that rows of the CRM show.
	Choices(ctx context.Context, account string, keys []lockstep.AddressKey) ([]lockstep.Choice, error)
	ChoicesShown(ctx context.Context, account string, rows []lockstep.ID) ([]lockstep.Choice, error)
	// ChoicesWithRows returns those that rows above after show, by row.
	ChoicesWithRows(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Choice, error)
	// PendingChoices returns those with an id above after of which a side has still to
	// be told, by id.
	PendingChoices(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Choice, error)
	// Accounts returns the organization's email accounts.
	Accounts(ctx context.Context, organization string) ([]lockstep.EmailAccount, error)
	// ImportsUnderWay reports whether an import that was planned before a time may
	// still be carried out.
	ImportsUnderWay(ctx context.Context, account string, before time.Time) (bool, error)
	// OpenConsentBatches returns the open batches of the account's runs of one type
	// of the consent lane.
	OpenConsentBatches(ctx context.Context, account string, t lockstep.SyncType) ([]lockstep.Batch, error)
}

// The destinations of an opt-out; see lockstep.Restriction.Told.
const (
	toldFlags    = "crm"      // the flags of the records with the address
	toldRow      = "row"      // the row in our table
	toldPlatform = "platform" // the account's own suppressions
	toldBooks    = "books"    // the address books that the list syncs fill
	toldAccounts = "accounts" // the organization's other email accounts
)

// consentPage is how many opt-outs are carried to their destinations at a time.
const consentPage = 200

// manyOptOuts is the number of records closed to bulk email in one run above which
// taking them out of their books is left to the list sync: it does so in bulk.
const manyOptOuts = 500

// statement is an opt-out as one system says it.
type statement struct {
	email   string // normalised
	scope   lockstep.ConsentScope
	object  string
	ref     lockstep.Ref
	contact lockstep.ContactID
	reason  lockstep.Standing
	system  lockstep.ConsentSystem
	origin  string
	actor   string
	why     string
	at      time.Time
	edited  time.Time // a row of the CRM: when anybody changed it last
	told    []string  // destinations that said it themselves
	quiet   bool      // nobody has to be told
	missed  bool      // the platform's feed had not told of it
}

// suppressions is the run of the type: opt-outs from all mail of the account, both
// ways. What the two sides say is first noted, in the ledger and as restrictions that
// stand from that moment; only then is everybody told who does not know it yet. A
// process that dies in between has noted it, and the next run goes on telling.
func (s *session) suppressions() error {
	if err := s.beginConsent(); err != nil {
		return err
	}
	if err := s.hearSuppressions(); err != nil {
		return err
	}
	if err := s.rowsLate(lockstep.SuppressionTable, lockstep.ScopeAccount); err != nil {
		return err
	}
	if err := s.tell(); err != nil {
		return err
	}
	return s.compareListings("consent/compared/account", func() ([]*listing, error) { return []*listing{s.accountListing()}, nil })
}

// beginConsent prepares a run of the consent lane. When one side does not answer the run
// hears the other one and then fails: what people said there is noted, and bars them,
// however long the outage lasts.
func (s *session) beginConsent() error {
	if _, ok := s.platform.(lockstep.SuppressionKeeper); !ok {
		return &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "start run", Msg: "this email platform tells nobody's opt-outs"}
	}
	switch err := s.verify(); {
	case err == nil:
	case s.foreignCRM || s.foreignPlatform:
		// Opt-outs are heard of the side that is who it was; nobody is told.
		s.locked = lockstep.AsError(err).Msg
		s.stopped = append(s.stopped, s.locked)
	case s.ctx.Err() != nil || s.awayCRM != nil && s.awayPlatform != nil:
		return err
	}
	return s.closeConsentBatches()
}

// hearSuppressions notes what both sides say. One that fails does not keep the other
// from being heard.
func (s *session) hearSuppressions() error {
	var failed error
	if !s.foreignPlatform && s.awayPlatform == nil {
		s.stage("reading opt-outs of the email account")
		failed = s.hearPlatform()
		if failed != nil && (s.ctx.Err() != nil || errors.Is(failed, errYield) || lockstep.CodeOf(failed) == lockstep.CodeConflict) {
			return failed
		}
	}
	if !s.foreignCRM && s.awayCRM == nil {
		s.stage("reading opt-outs of the CRM")
		for _, hear := range []func() error{s.hearRecords, s.hearRows} {
			if err := hear(); err != nil {
				return cmp.Or(failed, err)
			}
		}
	}
	return cmp.Or(failed, s.away())
}

// closeConsentBatches ends what an earlier turn left open. Everything that the lane
// writes sets a value, so what may not have been written is simply written again: the
// restriction waits until it was told.
func (s *session) closeConsentBatches() error {
	if s.dry() {
		return nil
	}
	open, err := s.e.Store.OpenConsentBatches(s.ctx, s.account.ID, s.run.Type)
	if err != nil || len(open) == 0 {
		return err
	}
	var c lockstep.Commit
	for _, b := range open {
		c.Batches = append(c.Batches, lockstep.BatchEnd{ID: b.ID, State: lockstep.Dropped})
	}
	return s.commit(c)
}

// listing is one of the platform's listings of people who may not be mailed: that of the
// whole account, or that of an address book.
type listing struct {
	cursor string // of how far it was heard
	read   func(ctx context.Context, since lockstep.Cursor, each func([]lockstep.Suppression) error) (lockstep.Cursor, error)
	// says is what a row states, if that is an opt-out.
	says func(*lockstep.Suppression) (statement, bool)
}

// statements is what a page states.
func (l *listing) statements(page []lockstep.Suppression) []statement {
	said := make([]statement, 0, len(page))
	for i := range page {
		if st, optOut := l.says(&page[i]); optOut {
			said = append(said, st)
		}
	}
	return said
}

// hearListing notes what a listing has had to say since it was last heard.
func (s *session) hearListing(l *listing) error {
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, l.cursor)
	if err != nil {
		return err
	}
	next, err := l.read(s.ctx, since, func(page []lockstep.Suppression) error {
		said := l.statements(page)
		passing := int64(len(page) - len(said))
		s.countConsent(lockstep.Counts{Read: passing, Equal: passing})
		return s.hear(said)
	})
	return s.heard(l.cursor, since, next, err, func() error { return s.hearListing(l) })
}

// accountListing is the listing of the whole account.
func (s *session) accountListing() *listing {
	return &listing{
		cursor: "consent/suppressions",
		read:   s.platform.(lockstep.SuppressionKeeper).Suppressions,
		says: func(r *lockstep.Suppression) (statement, bool) {
			// A mailbox that was full or away for a while is no opt-out.
			return statement{
				email: lockstep.NormalizeEmail(r.Email), scope: lockstep.ScopeAccount, contact: r.Contact, reason: r.Reason,
				system: lockstep.ConsentPlatform, at: r.At, why: "the email account lists the address as " + r.Reason.String(), told: []string{toldPlatform},
			}, r.Reason != lockstep.SoftBounced
		},
	}
}

// hearPlatform notes who was suppressed in the email account.
func (s *session) hearPlatform() error { return s.hearListing(s.accountListing()) }

// heard stores how far a feed was read. An expired cursor is forgotten and the feed
// is read from its beginning, once.
func (s *session) heard(name string, since, next lockstep.Cursor, err error, again func() error) error {
	if lockstep.CodeOf(err) == lockstep.CodeExpired && since != "" && !s.dry() {
		if err := s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{name: ""}}); err != nil {
			return err
		}
		return again()
	}
	if err != nil || s.dry() || next == since {
		return err
	}
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{name: next}})
}

// hearRecords notes whom the CRM's users closed to email. What that means for the
// email account is a policy: the contact leaves the address books whose filter says
// so, or the address is blocked in the whole account.
func (s *session) hearRecords() error {
	reader, ok := s.crm.(lockstep.OptOutReader)
	if !ok {
		return nil // the list sync sees them with everything else
	}
	for _, table := range MemberTables {
		if s.table(table) == nil {
			continue
		}
		if err := s.hearTable(reader, table); err != nil {
			return err
		}
	}
	return nil
}

// hearRecordsAgain is hearRecords for a list sync: what was said in the CRM since a run
// of the consent lane listened. Before the first one nothing is: to read everybody who is
// closed costs as many calls as there are pages of them, and whom a list sync meets
// says so itself.
func (s *session) hearRecordsAgain() error {
	reader, ok := s.crm.(lockstep.OptOutReader)
	if !ok {
		return nil
	}
	for _, table := range MemberTables {
		since, err := s.e.Store.Cursor(s.ctx, s.account.ID, recordsHeard(table))
		if err != nil {
			return err
		}
		if since == "" || s.table(table) == nil {
			continue
		}
		if err := s.hearTable(reader, table); err != nil {
			return err
		}
	}
	return nil
}

// recordsHeard is the cursor of the opt-outs of a table's records.
func recordsHeard(table string) string { return "consent/records/" + table }

func (s *session) hearTable(reader lockstep.OptOutReader, table string) error {
	name := recordsHeard(table)
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	var losers []lockstep.Record
	next, err := reader.OptOuts(s.ctx, table, since, func(recs []lockstep.Record) error {
		if since != "" { // what was merged before Lockstep came is as people left it
			losers = append(losers, absorbed(recs)...)
		}
		said := make([]statement, 0, len(recs))
		for i := range recs {
			r := &recs[i]
			st := statement{
				email: lockstep.NormalizeEmail(r.Email), scope: lockstep.ScopeBulk, ref: r.Ref, system: lockstep.ConsentCRM,
				at: r.Modified, why: "the record does not allow bulk email", told: []string{toldFlags},
			}
			if r.OptOut&lockstep.DoNotEmail != 0 {
				st.scope, st.why = lockstep.ScopeEmail, "the record does not allow email"
			}
			if s.account.BulkOptOut == lockstep.BulkSuppress {
				st.scope, st.reason, st.told = lockstep.ScopeAccount, lockstep.Suppressed, nil
			} else {
				st.object = r.Table + "/" + r.ID.String()
				// Everybody who was closed before Lockstep came: the list sync never
				// lets them in, so nobody has to be fetched out.
				st.quiet = since == ""
			}
			said = append(said, st)
		}
		return s.hear(said)
	})
	if err == nil {
		if done, err := s.closeSurvivors(table, losers); err != nil || !done {
			return err // those that were merged are read again
		}
	}
	return s.heard(name, since, next, err, func() error { return s.hearTable(reader, table) })
}

// hearRows notes addresses that a CRM user entered as suppressed.
func (s *session) hearRows() error {
	if s.table(lockstep.SuppressionTable) == nil {
		return nil // told where the rows would be written
	}
	const name = "consent/rows"
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	q := lockstep.RecordQuery{Table: lockstep.SuppressionTable, Columns: []string{lockstep.EmailTextColumn, lockstep.AccountColumn, lockstep.SinceColumn, lockstep.OriginColumn}}
	var strays []lockstep.Record
	next, err := s.crm.Changes(s.ctx, q, since, func(page lockstep.RecordPage) error {
		var said []statement
		var own []lockstep.Record
		for i := range page.Records {
			r := &page.Records[i]
			if r.Deleted || r.Inactive || len(r.Values) < 4 {
				continue
			}
			if a := r.Values[1].Text(); a != "" && a != s.account.ID {
				continue
			}
			st := statement{
				email: lockstep.NormalizeEmail(r.Values[0].Text()), scope: lockstep.ScopeAccount, reason: lockstep.Suppressed, system: lockstep.ConsentCRM,
				ref: r.Ref, at: cmp.Or(r.Created, r.Modified), edited: r.Modified, why: "the address is in the CRM's list of suppressions", told: []string{toldRow},
			}
			key := s.e.Store.AddressKey(st.email)
			if r.ID == lockstep.RestrictionID(s.account.ID, st.scope, "", key) {
				if r.Values[3].Text() == string(lockstep.ConsentPlatform) {
					own = append(own, lockstep.Record{Ref: r.Ref, Email: st.email})
				}
				continue // our own
			}
			said = append(said, st)
		}
		unknown, err := s.strays(own)
		if err != nil {
			return err
		}
		strays = append(strays, unknown...)
		return s.hear(said)
	})
	if err == nil && len(strays) > 0 {
		if s.locked != "" {
			return nil // read again when it may be written
		}
		if err := s.closeStrays(strays); err != nil {
			return err
		}
	}
	return s.heard(name, since, next, err, s.hearRows)
}

// hear notes statements: what is new goes to the ledger and stands as a restriction
// from the commit on.
func (s *session) hear(said []statement) error {
	if len(said) == 0 {
		return nil
	}
	keys := make([]lockstep.AddressKey, 0, len(said))
	for i := range said {
		keys = append(keys, s.e.Store.AddressKey(said[i].email))
	}
	known, err := s.standing(keys)
	if err != nil {
		return err
	}
	suppressed, err := s.suppressed(said, keys, known)
	if err != nil {
		return err
	}
	entries := make([]lockstep.ConsentEntry, len(said))
	for i := range said {
		entries[i] = s.entry(&said[i], keys[i])
	}
	noted, err := s.noted(entries)
	if err != nil {
		return err
	}
	var c lockstep.Commit
	var n lockstep.Counts
	for i := range said {
		st, key, e := &said[i], keys[i], &entries[i]
		n.Read++
		if problem := lockstep.CheckEmail(st.email); problem != "" {
			if st.system == lockstep.ConsentCRM && st.scope != lockstep.ScopeAccount {
				n.Equal++ // nobody can be mailed there
				continue
			}
			n.Rejected++
			s.finding(lockstep.Finding{
				Code: lockstep.FindingMalformedEmail, Table: st.ref.Table, Record: st.ref.ID, Contact: st.contact,
				Message: "an opt-out names something that is no address: " + problem, Hint: "correct the address where the opt-out was made",
			})
			continue
		}
		var r *lockstep.Restriction
		if x, ok := known[lockstep.RestrictionID(s.account.ID, st.scope, st.object, key)]; ok {
			r = &x
		}
		back, err := s.lastBack(r, st, key)
		if err != nil {
			return err
		}
		switch weigh(r, st, noted[e.ID], back) {
		case saidBefore:
			n.Equal++
			continue
		case saidEcho:
			n.Equal++
			passTo(r, cmp.Or(st.contact, r.Contact))
			r.Listed = st.at
			c.Restrictions = append(c.Restrictions, *r)
			known[r.ID] = *r
			continue
		case saidLate:
			n.Equal++
			x, allowed := s.tooLate(r, st, e, back)
			c.Consent = append(c.Consent, *e, allowed)
			c.Restrictions = append(c.Restrictions, x)
			known[x.ID], noted[e.ID] = x, true
			continue
		case saidAnew:
		}
		if st.scope == lockstep.ScopeBulk && suppressed[key] {
			n.Equal++ // set by ourselves because the address is suppressed
			continue
		}
		if noted[e.ID] && !st.edited.IsZero() { // said again with the same row
			st.at = st.edited
			*e = s.entry(st, key)
		}
		x := s.restriction(r, st, e)
		known[x.ID], noted[e.ID] = x, true
		c.Consent = append(c.Consent, *e)
		c.Restrictions = append(c.Restrictions, x)
		n.OptOutsSeen++
		n.Written++
		if st.missed {
			s.noteMissed(&n, st)
		}
	}
	s.countConsent(n)
	if s.dry() {
		s.previewed = append(s.previewed, c.Restrictions...)
		return nil
	}
	if len(c.Restrictions) == 0 {
		return nil
	}
	return s.commit(c)
}

// countConsent adds to the run's counts. What a list sync hears of opt-outs on its way
// is not among the people that it read.
func (s *session) countConsent(n lockstep.Counts) {
	if s.sync != nil {
		n.Read, n.Written, n.Equal, n.Rejected = 0, 0, 0, 0
	}
	s.count(n)
}

// entry is a statement as the ledger has it.
func (s *session) entry(st *statement, key lockstep.AddressKey) lockstep.ConsentEntry {
	e := lockstep.ConsentEntry{
		Account: s.account.ID, Act: lockstep.ActRestricted, Scope: st.scope, Object: st.object, Key: key, Email: st.email, Ref: st.ref,
		Contact: st.contact, Reason: st.reason, System: st.system, Actor: st.actor, Evidence: st.why, At: st.at, Seen: s.e.Now(), Run: s.run.ID,
	}
	e.ID = lockstep.ConsentID(&e)
	return e
}

// restriction is what stands from a new act on; was is what stood before, nil when
// nothing did. Who was told of an earlier act is told of this one as well: nobody knows
// what happened in between. Only a row that says it already need not be written.
func (s *session) restriction(was *lockstep.Restriction, st *statement, e *lockstep.ConsentEntry) lockstep.Restriction {
	r := lockstep.Restriction{
		ID: lockstep.RestrictionID(e.Account, e.Scope, e.Object, e.Key), Account: e.Account, Scope: e.Scope, Object: e.Object, Key: e.Key, Email: e.Email,
		Ref: e.Ref, Contact: e.Contact, Reason: e.Reason, System: e.System, Origin: st.origin, Actor: e.Actor, Evidence: e.Evidence, At: e.At, Seen: e.Seen,
		Entry: e.ID, Told: map[string]time.Time{}, Pending: !st.quiet,
	}
	if was != nil {
		before := *was
		passTo(&before, cmp.Or(r.Contact, was.Contact))
		r.Contact, r.Former = before.Contact, before.Former
	}
	if was != nil && was.Released.IsZero() {
		r.Reason, r.Listed = max(r.Reason, was.Reason), was.ListedSince()
		if at, ok := was.Told[toldRow]; ok {
			r.Told[toldRow] = at
		}
	}
	for _, t := range st.told {
		r.Told[t] = e.Seen
	}
	if st.system == lockstep.ConsentPlatform {
		r.Listed = st.at
	}
	return r
}

// tooLate is what remains of an act that the person's return has overtaken: nothing
// but to close the row that still says it.
func (s *session) tooLate(was *lockstep.Restriction, st *statement, e *lockstep.ConsentEntry, back time.Time) (lockstep.Restriction, lockstep.ConsentEntry) {
	allowed := lockstep.ConsentEntry{
		Account: e.Account, Act: lockstep.ActAllowed, Scope: e.Scope, Object: e.Object, Key: e.Key, Email: e.Email, System: lockstep.ConsentPlatform,
		Evidence: "came back after the address had been closed", At: back, Seen: e.Seen, About: e.ID, Run: e.Run,
	}
	allowed.ID = lockstep.ConsentID(&allowed)
	if was != nil {
		return *was, allowed
	}
	r := s.restriction(nil, st, e)
	r.Released, r.Pending = back, true
	return r, allowed
}

// noted tells which statements about a whole account the ledger has already.
func (s *session) noted(entries []lockstep.ConsentEntry) (map[lockstep.ID]bool, error) {
	var ids []lockstep.ID
	for i := range entries {
		if entries[i].Scope == lockstep.ScopeAccount {
			ids = append(ids, entries[i].ID)
		}
	}
	if len(ids) == 0 {
		return map[lockstep.ID]bool{}, nil
	}
	return s.e.Store.ConsentNoted(s.ctx, ids)
}

// lastBack returns when a person came back last. It is asked only of rows of the CRM
// about addresses that nothing stands against.
func (s *session) lastBack(r *lockstep.Restriction, st *statement, key lockstep.AddressKey) (time.Time, error) {
	if r != nil || st.ref.Table != lockstep.SuppressionTable {
		if r != nil {
			return r.Released, nil
		}
		return time.Time{}, nil
	}
	var back time.Time
	err := s.ledger(key, func(e *lockstep.ConsentEntry) {
		if e.Act == lockstep.ActAllowed && e.Scope == lockstep.ScopeAccount && e.At.After(back) {
			back = e.At
		}
	})
	return back, err
}

// ledger hands the account's entries about an address to each, in their order.
func (s *session) ledger(key lockstep.AddressKey, each func(*lockstep.ConsentEntry)) error {
	for after := int64(0); ; {
		entries, err := s.e.Store.ConsentOf(s.ctx, key, after, 1000)
		if err != nil || len(entries) == 0 {
			return err
		}
		for i := range entries {
			after = entries[i].Seq
			if entries[i].Account == s.account.ID {
				each(&entries[i])
			}
		}
	}
}

// suppressed tells which of the addresses whose records say that they are closed to
// bulk email are suppressed in an account of the organization: the flag is then ours,
// whichever account's run has set it.
func (s *session) suppressed(said []statement, keys []lockstep.AddressKey, known map[lockstep.ID]lockstep.Restriction) (map[lockstep.AddressKey]bool, error) {
	var asked []lockstep.AddressKey
	for i := range said {
		if said[i].scope == lockstep.ScopeBulk {
			asked = append(asked, keys[i])
		}
	}
	out := map[lockstep.AddressKey]bool{}
	if len(asked) == 0 {
		return out, nil
	}
	for _, r := range known {
		if r.Scope == lockstep.ScopeAccount {
			out[r.Key] = true
		}
	}
	accounts, err := s.e.Store.Accounts(s.ctx, s.org.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		if a.ID == s.account.ID {
			continue
		}
		rs, err := s.e.Store.Restrictions(s.ctx, a.ID, asked)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			if r.Scope == lockstep.ScopeAccount {
				out[r.Key] = true
			}
		}
	}
	return out, nil
}

// standing returns what stands against addresses, by id.
func (s *session) standing(keys []lockstep.AddressKey) (map[lockstep.ID]lockstep.Restriction, error) {
	rs, err := s.e.Store.Restrictions(s.ctx, s.account.ID, keys)
	if err != nil {
		return nil, err
	}
	known := make(map[lockstep.ID]lockstep.Restriction, len(rs))
	for _, r := range rs {
		known[r.ID] = r
	}
	return known, nil
}

// tell carries what stands to everybody who does not know it yet. When one
// destination fails, the others are told all the same.
func (s *session) tell() error {
	if s.locked != "" {
		return s.verdict() // noted, and told once the account is unlocked
	}
	if s.dry() {
		if err := s.tellPage(s.previewed); err != nil || s.account.BulkOptOut != lockstep.BulkSuppress {
			return err
		}
	}
	s.stage("telling opt-outs")
	var err error
	if s.flagsHeld, err = s.mostlySuppressed(); err != nil {
		return err
	}
	var after lockstep.ID
	for {
		page, err := s.e.Store.PendingRestrictions(s.ctx, s.account.ID, after, consentPage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return s.verdict()
		}
		after = page[len(page)-1].ID
		if s.flagsHeld {
			page = slices.DeleteFunc(page, func(r lockstep.Restriction) bool { return byFlag(&r) })
		}
		if err := s.tellPage(page); err != nil {
			return err
		}
		if err := s.checkpoint(); err != nil {
			return err
		}
	}
}

// tellPage carries some restrictions to their destinations.
func (s *session) tellPage(page []lockstep.Restriction) error {
	var whole, books, lists, back []*lockstep.Restriction
	if err := s.askBack(page); err != nil {
		return err
	}
	for i := range page {
		r := &page[i]
		if r.Told == nil {
			r.Told = map[string]time.Time{}
		}
		switch {
		case r.Email == "": // erased: the key alone restricts
			r.Pending = false
		case !r.Released.IsZero():
			back = append(back, r)
		case r.Scope == lockstep.ScopeAccount:
			whole = append(whole, r)
		case r.Scope == lockstep.ScopeBulk || r.Scope == lockstep.ScopeEmail:
			books = append(books, r)
		case r.Scope == lockstep.ScopeList:
			lists = append(lists, r)
		}
	}
	var first error
	keep := func(err error) bool {
		if err != nil && first == nil {
			first = err
		}
		return err == nil
	}
	// The email accounts first: they are what mails.
	if keep(s.tellPlatform(whole)) {
		keep(s.tellAccounts(whole))
	}
	keep(s.tellBooks(books))
	keep(s.tellClosed(books))
	if keep(s.tellFlags(whole)) {
		keep(s.tellRows(whole))
	}
	if keep(s.tellLists(lists)) {
		keep(s.tellListRows(lists))
	}
	keep(s.tellBack(back))
	if s.dry() || first != nil && (s.ctx.Err() != nil || lockstep.CodeOf(first) == lockstep.CodeConflict) {
		return first
	}
	var c lockstep.Commit
	var n lockstep.Counts
	for i := range page {
		r := &page[i]
		if r.Pending = !s.everybodyKnows(r); !r.Pending {
			n.OptOutsTold++
			if !r.Released.IsZero() {
				c.Lifted = append(c.Lifted, *r)
				continue
			}
		}
		c.Restrictions = append(c.Restrictions, *r)
	}
	c.Consent = s.tellings
	s.tellings = nil
	s.count(n)
	if err := s.commit(c); err != nil {
		return err
	}
	return first
}

// everybodyKnows reports whether every destination of a restriction was told.
func (s *session) everybodyKnows(r *lockstep.Restriction) bool {
	for _, d := range s.destinations(r) {
		if _, ok := r.Told[d]; !ok {
			return false
		}
	}
	return true
}

func (s *session) destinations(r *lockstep.Restriction) []string {
	switch {
	case r.Email == "":
		return nil
	case !r.Released.IsZero():
		return []string{toldBack}
	case r.Scope == lockstep.ScopeAccount:
		if !r.Asked.IsZero() {
			return []string{toldBack} // asked about again and again until the person answers
		}
		return s.withRow(lockstep.SuppressionTable, toldPlatform, toldAccounts, toldFlags)
	case r.Scope == lockstep.ScopeList:
		return s.withRow(lockstep.UnsubscriberTable, toldFlags)
	}
	return []string{toldBooks, toldFlags}
}

// withRow adds the row of our own table to destinations where the CRM has the table.
func (s *session) withRow(table string, to ...string) []string {
	if s.table(table) != nil {
		to = append(to, toldRow)
	}
	return to
}

// rowsLate lets the rows be written of opt-outs that were told before our tables came
// to the CRM.
func (s *session) rowsLate(table string, scope lockstep.ConsentScope) error {
	name := "consent/rows-of/" + table
	done, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil || done != "" || s.dry() || s.table(table) == nil {
		return err
	}
	var c lockstep.Commit
	err = s.e.Store.RestrictedSince(s.ctx, s.account.ID, 0, func(r lockstep.Restriction) error {
		if _, written := r.Told[toldRow]; written || r.Scope != scope || r.Pending || r.Email == "" || !r.Released.IsZero() {
			return nil
		}
		r.Pending = true
		if c.Restrictions = append(c.Restrictions, r); len(c.Restrictions) < 1000 {
			return nil
		}
		all := c
		c = lockstep.Commit{}
		return s.commit(all)
	})
	if err != nil {
		return err
	}
	c.Cursors = map[string]lockstep.Cursor{name: "done"}
	return s.commit(c)
}

// told notes that a destination knows a restriction, and in the ledger who was told.
func (s *session) told(r *lockstep.Restriction, destination string, system lockstep.ConsentSystem, ref lockstep.Ref, how string) {
	r.Told[destination] = s.e.Now()
	s.toldPart(r, destination, system, ref, how)
}

// toldPart notes in the ledger who was told where others have still to be told before
// the destination knows.
func (s *session) toldPart(r *lockstep.Restriction, destination string, system lockstep.ConsentSystem, ref lockstep.Ref, how string) {
	now := s.e.Now()
	e := lockstep.ConsentEntry{
		Account: r.Account, Act: lockstep.ActTold, Scope: r.Scope, Object: r.Object, Key: r.Key, Email: r.Email, Ref: ref, Contact: r.Contact,
		Reason: r.Reason, System: system, Target: destination, Evidence: how, At: now, Seen: now, About: r.Entry, Run: s.run.ID,
	}
	if system == lockstep.ConsentPlatform {
		e.Target = r.Account
	}
	e.ID = lockstep.ConsentID(&e)
	s.tellings = append(s.tellings, e)
}

// waiting are those of rs that a destination was not told of.
func waiting(rs []*lockstep.Restriction, destination string) []*lockstep.Restriction {
	return slices.DeleteFunc(slices.Clone(rs), func(r *lockstep.Restriction) bool {
		_, ok := r.Told[destination]
		return ok
	})
}

// consentFailed says of an error of the consent step what it means for the run.
func consentFailed(err error) error {
	e := *lockstep.AsError(err)
	e.Msg = "opt-outs could not be exchanged, so nothing was sent to the address books: " + e.Msg
	return &e
}
