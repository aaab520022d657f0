package engine

import (
	"context"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// askBack looks whether people who were asked to confirm that they want mail again
// have done so.
func (s *session) askBack(page []lockstep.Restriction) error {
	for i := range page {
		r := &page[i]
		if r.Asked.IsZero() || !r.Released.IsZero() || r.Email == "" || s.dry() {
			continue
		}
		c, err := s.platform.Contact(s.ctx, r.Email, nil)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		if c.Standing.Mailable() && c.Standing != lockstep.StandingUnknown {
			s.tellings = append(s.tellings, s.letBack(r, &c, "the person confirmed the wish to be mailed again"))
		}
	}
	return nil
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

// cameBack notes contacts that the platform mails again although an opt-out of its
// account stands: only the platform's own flow can have brought them back, because
// nothing that Lockstep writes does.
func (s *session) cameBack(page []lockstep.Contact) error {
	if s.dry() || s.sync.barred == nil || len(s.sync.barred.account) == 0 {
		return nil
	}
	var keys []lockstep.AddressKey
	by := map[lockstep.AddressKey]*lockstep.Contact{}
	for i := range page {
		c := &page[i]
		if c.Standing != lockstep.Subscribed && c.Standing != lockstep.SoftBounced {
			continue
		}
		key := s.e.Store.AddressKey(c.Email)
		if s.sync.barred.account[key] && by[key] == nil {
			by[key] = c
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
	for _, r := range rs {
		told, ok := r.Told[toldPlatform]
		contact := by[r.Key]
		// What was read may be older than the telling: then it says nothing.
		said := told
		if r.System == lockstep.ConsentPlatform && r.Origin == "" && !r.At.IsZero() {
			said = r.At
		}
		if !ok || r.Scope != lockstep.ScopeAccount || !r.Released.IsZero() || r.Email == "" || !contact.Modified.After(said) {
			continue
		}
		c.Consent = append(c.Consent, s.letBack(&r, contact, "subscribed again on the platform"))
		c.Restrictions = append(c.Restrictions, r)
		delete(s.sync.barred.account, r.Key)
	}
	if len(c.Restrictions) == 0 {
		return nil
	}
	return s.commit(c)
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
