package engine

import (
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
