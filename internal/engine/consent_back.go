package engine

import (
	"context"
	"maps"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// comeback is what a mailable contact with a restricted address means.
type comeback uint8

const (
	notBack   comeback = iota
	cameBack           // the platform's own flow has let its person back
	otherSelf          // another contact has the address now, which the platform was never told of
)

// isBack asks the platform whether it mails an address again of whose opt-out it was
// told. Only the platform's own flow can have done that, because nothing that Lockstep
// writes does; and because it is asked after it was told, no clock has to say which
// came first. What the platform closes is a contact, which takes that along when it gets
// another address: a contact that comes to a closed address after it is as mailable as
// before, and nobody has let it back.
func (s *session) isBack(r *lockstep.Restriction) (c lockstep.Contact, back comeback, err error) {
	if _, told := r.Told[toldPlatform]; !told || r.Scope != lockstep.ScopeAccount || !r.Released.IsZero() || r.Email == "" {
		return c, notBack, nil
	}
	c, err = s.platform.Contact(s.ctx, r.Email, nil)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeNotFound:
		return c, notBack, nil
	case err != nil || c.Standing != lockstep.Subscribed && c.Standing != lockstep.SoftBounced:
		return c, notBack, err
	case r.Contact == "" || r.Contact == c.ID:
		return c, cameBack, nil
	}
	switch _, err := s.platform.ContactByID(s.ctx, r.Contact, nil); {
	case lockstep.CodeOf(err) != lockstep.CodeNotFound && err != nil:
		return c, notBack, err
	case err == nil || !c.Created.IsZero() && c.Created.Before(r.ListedSince()):
		return c, otherSelf, nil
	}
	return c, cameBack, nil // the closed one is gone, and its person a new one
}

// askBack looks whether people who were asked to confirm that they want mail again
// have done so.
func (s *session) askBack(page []lockstep.Restriction) error {
	for i := range page {
		r := &page[i]
		if r.Asked.IsZero() || s.dry() {
			continue
		}
		c, back, err := s.isBack(r)
		if err != nil {
			return err
		}
		switch back {
		case cameBack:
			s.tellings = append(s.tellings, s.letBack(r, &c, "the person confirmed the wish to be mailed again"))
		case otherSelf:
			tellAgain(r, c.ID)
		case notBack:
		}
	}
	return nil
}

// tellAgain lets the platform be told of a restriction once more, of the contact that has
// its address now.
func tellAgain(r *lockstep.Restriction, contact lockstep.ContactID) {
	delete(r.Told, toldPlatform)
	passTo(r, contact)
	r.Pending = true
}

// passTo notes which contact has a restricted address now.
func passTo(r *lockstep.Restriction, contact lockstep.ContactID) {
	if r.Contact != contact {
		keepClosed(r)
	}
	r.Contact = contact
}

// listedAnew has the platform list a restricted address at another time: it was asked to
// block it.
func listedAnew(r *lockstep.Restriction) {
	keepClosed(r)
	r.Listed = time.Time{}
}

// keepClosed notes since when the account is closed to the contact of a restriction.
func keepClosed(r *lockstep.Restriction) {
	at := r.ListedSince()
	if r.Contact == "" || at.IsZero() {
		return
	}
	former := maps.Clone(r.Former)
	if former == nil {
		former = map[lockstep.ContactID]time.Time{}
	}
	former[r.Contact] = at
	r.Former = former
}

// letBack ends what a restriction forbids, because the platform's own flow brought
// the person back. The restriction goes once everybody was told. Times are those of
// the platform: an opt-out after it counts again.
func (s *session) letBack(r *lockstep.Restriction, c *lockstep.Contact, why string) lockstep.ConsentEntry {
	now := s.e.Now()
	r.Released = c.Modified
	if r.Released.IsZero() {
		r.Released = now
	}
	r.Pending, r.Contact = true, c.ID
	e := lockstep.ConsentEntry{
		Account: r.Account, Act: lockstep.ActAllowed, Scope: r.Scope, Object: r.Object, Key: r.Key, Email: r.Email, Ref: r.Ref, Contact: c.ID,
		OptIn: c.OptIn, System: lockstep.ConsentPlatform, Evidence: why, At: c.Modified, Seen: now, About: r.Entry, Run: s.run.ID,
	}
	e.ID = lockstep.ConsentID(&e)
	return e
}

// noteReturns sees to contacts that the platform mails although an opt-out of its
// account stands. What was read may be older than the opt-out, so the platform is asked.
func (s *session) noteReturns(page []lockstep.Contact) error {
	if s.dry() || s.sync.barred == nil {
		return nil
	}
	if err := s.refreshBarred(); err != nil || len(s.sync.barred.account) == 0 {
		return err
	}
	var keys []lockstep.AddressKey
	for i := range page {
		c := &page[i]
		if c.Standing != lockstep.Subscribed && c.Standing != lockstep.SoftBounced {
			continue
		}
		if key := s.e.Store.AddressKey(c.Email); s.sync.barred.account[key] {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rs, err := s.e.Store.Restrictions(s.ctx, s.account.ID, keys)
	if err != nil {
		return err
	}
	var c lockstep.Commit
	for i := range rs {
		contact, back, err := s.isBack(&rs[i])
		if err != nil {
			return err
		}
		switch back {
		case notBack:
			continue
		case cameBack:
			c.Consent = append(c.Consent, s.letBack(&rs[i], &contact, "subscribed again on the platform"))
		case otherSelf:
			tellAgain(&rs[i], contact.ID)
		}
		c.Restrictions = append(c.Restrictions, rs[i])
	}
	if len(c.Restrictions) == 0 {
		return nil
	}
	if err := s.commit(c); err != nil {
		return err
	}
	return s.refreshBarred() // only what is stored is true
}

// strays are those of our own rows of which Lockstep knows nothing, because it was put
// back to a backup from before it wrote them.
func (s *session) strays(own []lockstep.Record) ([]lockstep.Record, error) {
	if len(own) == 0 {
		return nil, nil
	}
	keys := make([]lockstep.AddressKey, len(own))
	for i := range own {
		keys[i] = s.e.Store.AddressKey(own[i].Email)
	}
	known, err := s.standing(keys)
	if err != nil {
		return nil, err
	}
	var out []lockstep.Record
	for i := range own {
		if _, ours := known[own[i].ID]; ours {
			continue
		}
		closed := false // by Lockstep, and opened again by a user
		if err := s.ledger(keys[i], func(e *lockstep.ConsentEntry) { closed = closed || e.Ref == own[i].Ref }); err != nil {
			return nil, err
		}
		if !closed {
			out = append(out, own[i])
		}
	}
	return out, nil
}

// closeStrays closes those whose person the platform mails again. An opt-out that is
// heard of later opens its row anew.
func (s *session) closeStrays(rows []lockstep.Record) error {
	for i := range rows {
		c, err := s.platform.Contact(s.ctx, rows[i].Email, nil)
		switch {
		case lockstep.CodeOf(err) == lockstep.CodeNotFound:
			continue
		case err != nil:
			return err
		case c.Standing != lockstep.Subscribed && c.Standing != lockstep.SoftBounced:
			continue
		}
		if err := s.closeStray(&rows[i], c.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) closeStray(row *lockstep.Record, contact lockstep.ContactID) error {
	closed := lockstep.CanonicalValue(lockstep.Number, "1")
	changes := []lockstep.Change{{
		Kind: lockstep.KeepRow, State: lockstep.Planned, Ref: row.Ref, Contact: contact, Email: row.Email, Why: "the person came back",
		Fields: []lockstep.FieldChange{{Name: lockstep.StateColumn, New: closed}},
	}}
	write := []lockstep.RecordWrite{{ID: row.ID, Fields: []lockstep.ColumnValue{{Column: lockstep.StateColumn, Value: closed}}}}
	return s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, row.Table, write)
		if err != nil {
			return err
		}
		if refused := results[0]; refused != nil {
			s.optOutRefused(&lockstep.Restriction{Contact: contact}, &changes[0], "the CRM refused to close the row", refused)
			return nil
		}
		changes[0].State = lockstep.Acknowledged
		return nil
	})
}

// ConsentWriter keeps what people do about consent outside of runs.
type ConsentWriter interface {
	AppendConsent(ctx context.Context, entries []lockstep.ConsentEntry, restrictions []lockstep.Restriction, lifted []lockstep.ID) error
}

// Resubscribe asks the platform, by its own flow, to mail an address again whose
// holder wished so: evidence says how that is known, and actor who vouches for it. The
// wish is in the ledger before the platform hears of it, and the restriction stands
// until the platform says that the person is back; a process that dies in between
// leaves a restriction that the next run asks about.
func (e *Engine) Resubscribe(ctx context.Context, store ConsentWriter, account lockstep.EmailAccount, r lockstep.Restriction, actor, evidence string) (lockstep.Resubscribed, error) {
	const op = "resubscribe"
	if account.Locked != "" {
		return 0, &lockstep.Error{Code: lockstep.CodeGuarded, Op: op, Msg: "the account is locked: " + account.Locked, Hint: "check what changed, then unlock the account"}
	}
	if r.Scope != lockstep.ScopeAccount || r.Email == "" || !r.Released.IsZero() {
		return 0, &lockstep.Error{Code: lockstep.CodeInvalid, Op: op, Field: "id", Msg: "this is not a standing suppression of a known address", Hint: "a record that a CRM user closed is opened in the CRM; a list is joined again by its form"}
	}
	if _, told := r.Told[toldPlatform]; !told {
		return 0, &lockstep.Error{Code: lockstep.CodeConflict, Op: op, Msg: "the email account was not told of this suppression yet, so it cannot ask the person whether to end it", Hint: "run suppressions first, then ask again"}
	}
	platform, err := e.Connector.Platform(ctx, account)
	if err != nil {
		return 0, err
	}
	keeper, ok := platform.(lockstep.SuppressionKeeper)
	if !ok {
		return 0, &lockstep.Error{Code: lockstep.CodeUnsupported, Op: op, Msg: "this email platform cannot be asked"}
	}
	say := func(act lockstep.ConsentAct, system lockstep.ConsentSystem, why string) lockstep.ConsentEntry {
		now := e.Now()
		entry := lockstep.ConsentEntry{
			Account: r.Account, Act: act, Scope: r.Scope, Object: r.Object, Key: r.Key, Email: r.Email, Ref: r.Ref, Contact: r.Contact,
			System: system, Actor: actor, Evidence: why, At: now, Seen: now, About: r.Entry,
		}
		entry.ID = lockstep.ConsentID(&entry)
		return entry
	}
	pending := r.Pending
	r.Asked, r.Pending = e.Now(), true
	if err := store.AppendConsent(ctx, []lockstep.ConsentEntry{say(lockstep.ActAsked, lockstep.ConsentLockstep, evidence)}, []lockstep.Restriction{r}, nil); err != nil {
		return 0, err
	}
	e.step("resubscribe.before")
	answer, err := keeper.Resubscribe(ctx, r.Email)
	if err != nil {
		return 0, err
	}
	e.step("resubscribe.after")
	switch answer {
	case lockstep.ResubscribeDone:
		// Its next run reads the contact and lets the person back with the platform's
		// own time.
		return answer, nil
	case lockstep.ResubscribeImpossible:
		// Whoever has not heard of the opt-out yet has still to be told.
		r.Asked, r.Pending = time.Time{}, pending
		return answer, store.AppendConsent(ctx, []lockstep.ConsentEntry{say(lockstep.ActRefused, lockstep.ConsentPlatform, "the platform will not mail the address again")}, []lockstep.Restriction{r}, nil)
	}
	return answer, nil
}
