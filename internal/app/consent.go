package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// MaxEvidence is the longest evidence of a statement, in bytes.
const MaxEvidence = 2000

// maxStatements bounds what is read of one address; nobody has more.
const maxStatements = 10_000

// ConsentReport is the outcome of a verification of the consent ledger.
type ConsentReport = consent.Report

// VerifyConsent goes over the whole consent ledger. head, when not empty, is the head
// that an earlier report named: whether it is still part of the ledger is checked too.
func (a *App) VerifyConsent(ctx context.Context, head string) (ConsentReport, error) {
	var expect consent.Head
	if head != "" {
		var err error
		if expect, err = consent.ParseHead(head); err != nil {
			return ConsentReport{}, err
		}
	}
	return a.store.VerifyConsent(ctx, expect)
}

// Suppression is a standing opt-out, for people to see.
type Suppression struct {
	ID      string                `json:"id"`
	Account string                `json:"account"`
	Email   string                `json:"email,omitempty" doc:"Absent when the person was erased: the address stays restricted all the same."`
	Scope   lockstep.ConsentScope `json:"scope" enum:"account,email,bulk_email,list,preference,opt_in"`
	Object  string                `json:"object,omitempty" doc:"The list's settings id, or the preference's id on the platform."`
	// Word says how far it goes.
	Word     string                 `json:"word" enum:"unconfirmed,preference_refused,list_refused,bulk_email_refused,email_refused,all_refused,blocked,given" doc:"How far the restriction goes; the later in the list of values up to blocked, the stricter."`
	Reason   string                 `json:"reason,omitempty" doc:"What the platform gives as the reason."`
	System   lockstep.ConsentSystem `json:"system" enum:"crm,platform,lockstep" doc:"Where it was made."`
	Origin   string                 `json:"origin,omitempty" doc:"The email account where it was made, when that is another one."`
	Record   lockstep.Ref           `json:"record,omitzero"`
	Contact  lockstep.ContactID     `json:"contact,omitempty"`
	Actor    string                 `json:"actor,omitempty"`
	Evidence string                 `json:"evidence,omitempty"`
	At       time.Time              `json:"at,omitzero" doc:"When it was made; absent when not known."`
	Seen     time.Time              `json:"seen" doc:"When Lockstep saw it."`
	Entry    lockstep.ID            `json:"entry" doc:"The entry of the ledger that made it."`
	Told     map[string]time.Time   `json:"told,omitempty" doc:"When each destination had it: crm, row, platform, books."`
	Pending  bool                   `json:"pending" doc:"Some destination has still to be told."`
	Asked    time.Time              `json:"asked,omitzero" doc:"When a resubscription was asked for that waits for the person."`
	Released time.Time              `json:"released,omitzero" doc:"When the person came back by the platform's own flow; the restriction goes once everybody was told."`
	rank     merge.Consent
}

// strictness is what a restriction amounts to.
func strictness(scope lockstep.ConsentScope, reason lockstep.Standing) merge.Consent {
	switch scope {
	case lockstep.ScopeAccount:
		return max(merge.ConsentAllRefused, merge.ConsentOf(reason, 0, false, false))
	case lockstep.ScopeEmail:
		return merge.ConsentEmailRefused
	case lockstep.ScopeBulk:
		return merge.ConsentBulkRefused
	case lockstep.ScopeList:
		return merge.ConsentListRefused
	case lockstep.ScopePreference:
		return merge.ConsentPreferenceRefused
	}
	return merge.ConsentUnconfirmed
}

func reasonName(s lockstep.Standing) string {
	if s == lockstep.StandingUnknown {
		return ""
	}
	return s.String()
}

func suppression(r *lockstep.Restriction) Suppression {
	rank := strictness(r.Scope, r.Reason)
	if !r.Released.IsZero() {
		rank = merge.ConsentGiven
	}
	return Suppression{
		ID: r.ID.String(), Account: r.Account, Email: r.Email, Scope: r.Scope, Object: r.Object, Word: rank.String(), Reason: reasonName(r.Reason),
		System: r.System, Origin: r.Origin, Record: r.Ref, Contact: r.Contact, Actor: r.Actor, Evidence: r.Evidence, At: r.At, Seen: r.Seen,
		Entry: r.Entry, Told: r.Told, Pending: r.Pending, Asked: r.Asked, Released: r.Released, rank: rank,
	}
}

// SuppressionFilter chooses standing opt-outs; zero fields choose all.
type SuppressionFilter struct {
	Account string // id
	Email   string
	State   string // pending, told or asked
	After   string // id of the last one of the page before
	Limit   int
}

// Suppressions returns standing opt-outs of every scope by id.
func (a *App) Suppressions(ctx context.Context, f SuppressionFilter) ([]Suppression, error) {
	q := store.RestrictionFilter{Account: f.Account, State: store.RestrictionState(f.State), Limit: f.Limit}
	if f.Email != "" {
		email, err := mailAddress(f.Email)
		if err != nil {
			return nil, err
		}
		q.Key = a.store.AddressKey(email)
	}
	if f.After != "" {
		var err error
		if q.After, err = lockstep.ParseID(f.After); err != nil {
			return nil, invalid("cursor", "the cursor is not one of ours", "use \"next\" of the page before")
		}
	}
	all, err := a.store.ListRestrictions(ctx, q)
	out := make([]Suppression, len(all))
	for i := range all {
		out[i] = suppression(&all[i])
	}
	return out, err
}

// mailAddress normalises an address that a person gave. The answer to a wrong one does not
// repeat it: answers are logged elsewhere.
func mailAddress(email string) (string, error) {
	email = lockstep.NormalizeEmail(email)
	if problem := lockstep.CheckEmail(email); problem != "" {
		return "", invalid("email", problem, "give one whole address, such as ada@example.com")
	}
	return email, nil
}

// reasons are what a person can give as the reason of a suppression, the least strict
// first.
var reasons = []lockstep.Standing{lockstep.Unsubscribed, lockstep.Suppressed, lockstep.HardBounced, lockstep.Complained}

func reasonNames() string {
	var out []string
	for _, r := range reasons {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

// SuppressRequest asks that an address be not mailed any more.
type SuppressRequest struct {
	Account  string // id
	Email    string
	Reason   string // unsubscribed, suppressed (also when empty), hard_bounced or complained
	Evidence string // what proves it, in words
	Actor    string // who asks
}

// Suppress closes an email account to an address: the ledger gets an entry, and the
// CRM and the platform are told by the next run of the consent lane, which is started.
// An address that is closed already keeps the stricter reason; made reports whether
// the suppression is new.
func (a *App) Suppress(ctx context.Context, r SuppressRequest) (s Suppression, made bool, err error) {
	email, err := mailAddress(r.Email)
	if err != nil {
		return s, false, err
	}
	reason := lockstep.Suppressed
	if r.Reason != "" {
		i := slices.IndexFunc(reasons, func(known lockstep.Standing) bool { return known.String() == r.Reason })
		if i < 0 {
			return s, false, invalid("reason", fmt.Sprintf("%.40q is not a reason", r.Reason), "use one of "+reasonNames())
		}
		reason = reasons[i]
	}
	if r.Evidence, err = evidence(r.Evidence); err != nil {
		return s, false, err
	}
	now := a.now()
	e := lockstep.ConsentEntry{
		Account: r.Account, Act: lockstep.ActRestricted, Scope: lockstep.ScopeAccount, Key: a.store.AddressKey(email), Email: email, Reason: reason,
		System: lockstep.ConsentLockstep, Actor: r.Actor, Evidence: r.Evidence, At: now, Seen: now,
	}
	e.ID = lockstep.ConsentID(&e)
	x := lockstep.Restriction{
		ID: lockstep.RestrictionID(r.Account, lockstep.ScopeAccount, "", e.Key), Account: r.Account, Scope: lockstep.ScopeAccount, Key: e.Key, Email: email,
		Reason: reason, System: lockstep.ConsentLockstep, Actor: r.Actor, Evidence: r.Evidence, At: now, Seen: now, Entry: e.ID, Pending: true,
	}
	standing, err := a.store.Restriction(ctx, x.ID)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeNotFound:
		made = true
	case err != nil:
		return s, false, err
	case !standing.Released.IsZero():
		made = true
	default:
		// Everybody is told anew: nobody knows whether the person had come back meanwhile.
		x.Contact, x.Listed, x.Former = standing.Contact, standing.ListedSince(), standing.Former
		if slices.Index(reasons, standing.Reason) > slices.Index(reasons, reason) || standing.Reason > lockstep.Complained {
			x.Reason, x.Evidence = standing.Reason, standing.Evidence // the strictest word stays, with what shows it
		}
	}
	if err := a.store.AppendConsent(ctx, []lockstep.ConsentEntry{e}, []lockstep.Restriction{x}, nil); err != nil {
		return s, false, err
	}
	a.tellSoon(ctx, r.Account)
	stored, err := a.store.Restriction(ctx, x.ID)
	return suppression(&stored), made, err
}

// evidence checks the words that prove a statement.
func evidence(s string) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", invalid("evidence", "the evidence is missing", "say in words what proves it, such as \"letter of 3 May\"")
	case len(s) > MaxEvidence:
		return "", invalid("evidence", fmt.Sprintf("the evidence is longer than %d bytes", MaxEvidence), "say where it is kept")
	}
	return s, nil
}

// tellSoon starts the run that tells others of an opt-out. Should it not start, the
// next one tells them.
func (a *App) tellSoon(ctx context.Context, account string) {
	if !slices.Contains(lockstep.SyncTypes, lockstep.SyncSuppressions) {
		return
	}
	_, err := a.StartRun(ctx, RunRequest{Account: account, Type: lockstep.SyncSuppressions})
	if err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
		a.log.Warn("a run that tells of an opt-out did not start; the next one tells it", "account", account, "code", lockstep.CodeOf(err))
	}
}

// KeepSuppression says why a restriction cannot simply be deleted. CodeNotFound when
// there is none with this id.
func (a *App) KeepSuppression(ctx context.Context, id string) error {
	r, err := a.restriction(ctx, id)
	if err != nil {
		return err
	}
	return &lockstep.Error{
		Code: lockstep.CodeConflict, Field: "id",
		Msg:  "an opt-out is lifted only by the person's own wish, through the platform's own flow",
		Hint: "when you can prove that wish, call POST /suppressions/" + r.ID.String() + "/resubscribe with the evidence: the platform asks the person to confirm",
	}
}

func (a *App) restriction(ctx context.Context, id string) (lockstep.Restriction, error) {
	parsed, err := lockstep.ParseID(id)
	if err != nil {
		return lockstep.Restriction{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "id", Msg: "there is no such suppression"}
	}
	return a.store.Restriction(ctx, parsed)
}

// PersonConsent answers, for one address: may we mail it, why, since when, and who
// was told.
type PersonConsent struct {
	Email string `json:"email"`
	// Erased is set when the person's values were erased.
	Erased   bool               `json:"erased" doc:"The person was erased: values are not known any more, restrictions stand."`
	Accounts []AccountConsent   `json:"accounts" doc:"Where the address stands in each email account."`
	Entries  []ConsentStatement `json:"entries" doc:"What the ledger says of the address, oldest first."`
	Cut      bool               `json:"cut,omitempty" doc:"The ledger says more than is shown here."`
}

// AccountConsent is where an address stands in one email account.
type AccountConsent struct {
	Account string `json:"account"`
	Name    string `json:"name,omitempty"`
	// Word is the strictest of Scopes.
	Word   string           `json:"word" enum:"nothing_on_record,given,unconfirmed,preference_refused,list_refused,bulk_email_refused,email_refused,all_refused,blocked" doc:"The strictest of the scopes."`
	Scopes []StandingByWord `json:"scopes" doc:"The strictest first."`
}

// StandingByWord is where an address stands in one scope, and why.
type StandingByWord struct {
	Word        string                 `json:"word"`
	Scope       lockstep.ConsentScope  `json:"scope"`
	Object      string                 `json:"object,omitempty"`
	Reason      string                 `json:"reason,omitempty"`
	OptIn       string                 `json:"opt_in,omitempty"`
	System      lockstep.ConsentSystem `json:"system" doc:"Where it was said."`
	Since       time.Time              `json:"since,omitzero"`
	Seen        time.Time              `json:"seen"`
	Actor       string                 `json:"actor,omitempty"`
	Evidence    string                 `json:"evidence,omitempty"`
	Entry       lockstep.ID            `json:"entry" doc:"The entry of the ledger that says so."`
	Suppression string                 `json:"suppression,omitempty" doc:"The id of the suppression."`
	Pending     bool                   `json:"pending,omitempty" doc:"Some destination has still to be told."`
	Told        map[string]time.Time   `json:"told,omitempty"`
	Asked       time.Time              `json:"asked,omitzero"`
	rank        merge.Consent
}

// ConsentStatement is an entry of the ledger with those who were told of it.
type ConsentStatement struct {
	Seq      int64                  `json:"seq" doc:"The row of the ledger."`
	ID       lockstep.ID            `json:"id"`
	Account  string                 `json:"account,omitempty"`
	Act      lockstep.ConsentAct    `json:"act" enum:"restricted,allowed,asked,refused,told,erased"`
	Scope    lockstep.ConsentScope  `json:"scope"`
	Object   string                 `json:"object,omitempty"`
	Record   lockstep.Ref           `json:"record,omitzero"`
	Contact  lockstep.ContactID     `json:"contact,omitempty"`
	Reason   string                 `json:"reason,omitempty"`
	OptIn    string                 `json:"opt_in,omitempty"`
	System   lockstep.ConsentSystem `json:"system"`
	Actor    string                 `json:"actor,omitempty"`
	Evidence string                 `json:"evidence,omitempty"`
	At       time.Time              `json:"at,omitzero"`
	Seen     time.Time              `json:"seen"`
	Run      string                 `json:"run,omitempty"`
	Told     []ConsentTelling       `json:"told,omitempty"`
}

// ConsentTelling is who was told of an entry, and when.
type ConsentTelling struct {
	Seq    int64                  `json:"seq"`
	System lockstep.ConsentSystem `json:"system" enum:"crm,platform,lockstep"`
	Target string                 `json:"target,omitempty" doc:"The email account, for a platform."`
	Object string                 `json:"object,omitempty"`
	At     time.Time              `json:"at"`
}

// Consent answers for one address from what is kept; it makes no call to either side.
func (a *App) Consent(ctx context.Context, email string) (PersonConsent, error) {
	email, err := mailAddress(email)
	out := PersonConsent{Email: email, Accounts: []AccountConsent{}, Entries: []ConsentStatement{}}
	if err != nil {
		return out, err
	}
	key := a.store.AddressKey(email)
	var entries []lockstep.ConsentEntry
	for after := int64(0); ; after = entries[len(entries)-1].Seq {
		page, err := a.store.ConsentOf(ctx, key, after, 1000)
		if store.IsDamaged(err) { // a person can do something about it, so say what it is
			e := *lockstep.AsError(err)
			e.Code = lockstep.CodeUnavailable
			return out, &e
		}
		if err != nil {
			return out, err
		}
		entries = append(entries, page...)
		if len(page) < 1000 {
			break
		}
		if len(entries) >= maxStatements {
			out.Cut = true
			break
		}
	}
	out.statements(entries)
	accounts, err := a.Accounts(ctx)
	if err != nil {
		return out, err
	}
	for _, acc := range accounts {
		restrictions, err := a.store.Restrictions(ctx, acc.ID, []lockstep.AddressKey{key})
		if err != nil {
			return out, err
		}
		out.Accounts = append(out.Accounts, standing(acc, restrictions, entries))
	}
	return out, nil
}

// statements fills Entries, each telling under what it is about.
func (p *PersonConsent) statements(entries []lockstep.ConsentEntry) {
	at := make(map[lockstep.ID]int, len(entries))
	for i := range entries {
		e := &entries[i]
		p.Erased = p.Erased || e.Act == lockstep.ActErased
		when := e.At
		if when.IsZero() {
			when = e.Seen
		}
		if of, known := at[e.About]; known && e.Act == lockstep.ActTold {
			p.Entries[of].Told = append(p.Entries[of].Told, ConsentTelling{Seq: e.Seq, System: e.System, Target: e.Target, Object: e.Object, At: when})
			continue
		}
		at[e.ID] = len(p.Entries)
		s := ConsentStatement{
			Seq: e.Seq, ID: e.ID, Account: e.Account, Act: e.Act, Scope: e.Scope, Object: e.Object, Record: e.Ref, Contact: e.Contact,
			Reason: reasonName(e.Reason), System: e.System, Actor: e.Actor, Evidence: e.Evidence, At: e.At, Seen: e.Seen, Run: e.Run,
		}
		if e.Scope == lockstep.ScopeOptIn {
			s.OptIn = e.OptIn.String()
		}
		p.Entries = append(p.Entries, s)
	}
}

// standing is what restrictions, and the last words where there is none, come to.
func standing(acc lockstep.EmailAccount, restrictions []lockstep.Restriction, entries []lockstep.ConsentEntry) AccountConsent {
	type place struct {
		scope  lockstep.ConsentScope
		object string
	}
	out := AccountConsent{Account: acc.ID, Name: acc.Name, Word: "nothing_on_record", Scopes: []StandingByWord{}}
	restricted := map[place]bool{}
	for i := range restrictions {
		r := &restrictions[i]
		if !r.Released.IsZero() {
			continue // the person came back; not everybody was told yet
		}
		restricted[place{r.Scope, r.Object}] = true
		s := suppression(r)
		out.Scopes = append(out.Scopes, StandingByWord{
			Word: s.Word, Scope: s.Scope, Object: s.Object, Reason: s.Reason, System: s.System, Since: s.At, Seen: s.Seen, Actor: s.Actor, Evidence: s.Evidence,
			Entry: s.Entry, Suppression: s.ID, Pending: s.Pending, Told: s.Told, Asked: s.Asked, rank: s.rank,
		})
	}
	last := map[place]*lockstep.ConsentEntry{}
	for i := range entries {
		if e := &entries[i]; e.Account == acc.ID && e.Act != lockstep.ActTold && e.Act != lockstep.ActErased {
			last[place{e.Scope, e.Object}] = e
		}
	}
	for at, e := range last {
		if restricted[at] || e.Act != lockstep.ActAllowed {
			continue
		}
		s := StandingByWord{
			Word: merge.ConsentGiven.String(), Scope: e.Scope, Object: e.Object, System: e.System, Since: e.At, Seen: e.Seen, Actor: e.Actor, Evidence: e.Evidence, Entry: e.ID,
		}
		if e.Scope == lockstep.ScopeOptIn {
			s.OptIn = e.OptIn.String()
		}
		out.Scopes = append(out.Scopes, s)
	}
	slices.SortFunc(out.Scopes, func(a, b StandingByWord) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Object, b.Object))
	})
	if len(out.Scopes) > 0 {
		out.Word = out.Scopes[0].Word
	}
	return out
}

// Erasure says what an erasure took away.
type Erasure = store.Erasure

// Erase takes the values of the person behind an address out of everything that
// Lockstep keeps. by is who asks. The address itself stays closed in every account.
func (a *App) Erase(ctx context.Context, email, by string, force bool) (Erasure, error) {
	email, err := mailAddress(email)
	if err != nil {
		return Erasure{}, err
	}
	return a.store.EraseAddress(ctx, email, by, force)
}
