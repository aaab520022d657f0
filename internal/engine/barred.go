package engine

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// barred are the addresses of standing opt-outs, as far as a list sync knows them.
// The consent lane works beside it, so the set is brought up to date before each
// import leaves.
type barred struct {
	// account are addresses that the account may not mail at all; fresh are those,
	// and the ones that a CRM user closed, that were noted after the records on their
	// way were read.
	account map[lockstep.AddressKey]bool
	fresh   map[lockstep.AddressKey]bool
	// stamp is up to where restrictions were read, and lifted how many had been lifted
	// before.
	stamp  int64
	lifted int64
	// closed are records that a CRM user closed to email, and closers those with an
	// address, or that had it once.
	closed  map[lockstep.Ref]closing
	closers map[lockstep.AddressKey][]lockstep.Ref
	// news are records that were closed since a list sync last looked at those who share
	// an address with them, and looking those of which one that did not end yet did; see
	// newlyClosed.
	news    map[lockstep.Ref]bool
	looking map[lockstep.Ref]bool
	// unmarked are addresses of suppressed people whose record does not say so;
	// opened are records that a CRM user opened again, and reverted those that are open
	// because the CRM was set back to a backup.
	unmarked map[lockstep.AddressKey]bool
	opened   map[lockstep.Ref]opening
	reverted map[lockstep.Ref]lockstep.AddressKey
}

// closing is when a record was closed to bulk email and to all email, zero = it was not,
// and with which address, the newest of those that it was closed with.
type closing struct {
	key       lockstep.AddressKey
	emails    []uint64 // crosswalk.EmailKey of each
	bulk, all time.Time
}

// renamed is a mailable contact that this run gave another address.
type renamed struct {
	contact lockstep.ContactID
	email   string
}

// opening is a record that was closed to email and says now that it is not.
type opening struct {
	key    lockstep.AddressKey
	optOut lockstep.OptOut
	at     time.Time
}

// consentStep is the consent lane's part of a list sync: who opted out on either side is
// noted, and so barred, before anything leaves for the address books. When
// that fails, nothing leaves. It is done once a run: in later slices the lane's own
// runs, which go on beside this one, are what brings news. Telling the CRM is theirs
// too.
func (s *session) consentStep() error {
	if _, ok := s.platform.(lockstep.SuppressionKeeper); !ok || s.dry() {
		return nil
	}
	const heardBy = "consent/heard-by"
	last, err := s.e.Store.Cursor(s.ctx, s.account.ID, heardBy)
	if err != nil || last == lockstep.Cursor(s.run.ID) {
		return err
	}
	s.stage("reading opt-outs")
	for _, step := range []func() error{s.hearPlatform, s.hearUnsubscribes, s.hearRecordsAgain} {
		if err := step(); err != nil {
			if s.ctx.Err() != nil || errors.Is(err, errYield) {
				return err
			}
			return consentFailed(err)
		}
	}
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{heardBy: lockstep.Cursor(s.run.ID)}})
}

// loadBarred reads which addresses are barred: everything the first time and when some
// were lifted, otherwise what was noted since.
func (s *session) loadBarred() error {
	lifted, err := s.e.Store.LiftedRestrictions(s.ctx)
	if err != nil {
		return err
	}
	c := s.e.cache.of(s.account.ID)
	if c.barred == nil || c.barred.lifted != lifted {
		c.barred = &barred{lifted: lifted, account: map[lockstep.AddressKey]bool{}, fresh: map[lockstep.AddressKey]bool{}, closed: map[lockstep.Ref]closing{}, news: map[lockstep.Ref]bool{}, looking: map[lockstep.Ref]bool{}, closers: map[lockstep.AddressKey][]lockstep.Ref{}}
	}
	s.sync.barred = c.barred
	s.sync.barred.unmarked, s.sync.barred.opened, s.sync.barred.reverted = map[lockstep.AddressKey]bool{}, map[lockstep.Ref]opening{}, map[lockstep.Ref]lockstep.AddressKey{}
	err = s.refreshBarred()
	clear(s.sync.barred.fresh)
	return err
}

// refreshBarred adds what was noted since the last time.
func (s *session) refreshBarred() error {
	b := s.sync.barred
	return s.e.Store.RestrictedSince(s.ctx, s.account.ID, b.stamp, func(r lockstep.Restriction) error {
		b.stamp = max(b.stamp, r.Stamp)
		switch {
		case !r.Released.IsZero():
			delete(b.account, r.Key)
			delete(b.fresh, r.Key)
		case r.Scope == lockstep.ScopeAccount:
			b.account[r.Key], b.fresh[r.Key] = true, true
		case r.Scope == lockstep.ScopeBulk || r.Scope == lockstep.ScopeEmail:
			b.fresh[r.Key] = true
			c := b.closed[r.Ref]
			if c.key = r.Key; r.Scope == lockstep.ScopeBulk {
				c.bulk = r.At
			} else {
				c.all = r.At
			}
			if email := crosswalk.EmailKey(r.Email); !slices.Contains(c.emails, email) {
				c.emails = append(c.emails, email)
			}
			b.closed[r.Ref] = c
			b.news[r.Ref] = true
			if !slices.Contains(b.closers[r.Key], r.Ref) {
				b.closers[r.Key] = append(b.closers[r.Key], r.Ref)
			}
		}
		return nil
	})
}

// bars reports whether the account may not mail an address. A record that does not
// say so itself is noted; see remark.
func (s *session) bars(email string, optOut lockstep.OptOut) bool {
	b := s.sync.barred
	if len(b.account) == 0 {
		return false
	}
	key := s.e.Store.AddressKey(email)
	if !b.account[key] {
		return false
	}
	if optOut&lockstep.DoNotBulkEmail == 0 {
		b.unmarked[key] = true
	}
	return true
}

// reopens notes a record that a CRM user had closed to email and that is open now. One
// that is older than its closing was opened by nobody: the CRM was set back to a backup.
// It is taken as closed, and will be closed again.
func (s *session) reopens(r *lockstep.Record) {
	b := s.sync.barred
	if len(b.closed) == 0 || r.OptOut&lockstep.DoNotBulkEmail != 0 && r.OptOut&lockstep.DoNotEmail != 0 {
		return
	}
	c, ok := b.closed[r.Ref]
	if !ok {
		return
	}
	reverted := func(flag lockstep.OptOut, at time.Time) lockstep.OptOut {
		if r.OptOut&flag != 0 || at.IsZero() || r.Modified.IsZero() || !r.Modified.Before(at) {
			return 0
		}
		return flag
	}
	if back := reverted(lockstep.DoNotBulkEmail, c.bulk) | reverted(lockstep.DoNotEmail, c.all); back != 0 {
		r.OptOut |= back
		b.reverted[r.Ref] = c.key
		return
	}
	if (c.bulk.IsZero() || r.OptOut&lockstep.DoNotBulkEmail != 0) && (c.all.IsZero() || r.OptOut&lockstep.DoNotEmail != 0) {
		return // as closed as it was
	}
	b.opened[r.Ref] = opening{c.key, r.OptOut, r.Modified}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recheckOthers(r.Ref, s.sync.links.ByEmail(lockstep.NormalizeEmail(r.Email), nil))
}

// newlyClosed has those looked at again who share an address with a record that was
// closed since this was last done, or that this process has not met yet: they may have
// come into the books before anybody heard of it, and the consent lane fetches nobody out
// for what was closed before it listened for the first time.
func (s *session) newlyClosed() error {
	if b := s.sync.barred; b != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.Copy(b.looking, b.news)
		clear(b.news)
		for ref := range b.looking {
			for _, email := range b.closed[ref].emails {
				for _, l := range s.sync.links.ByEmailKey(email, nil) {
					if l.Ref != ref && l.Ref.Table != "" && l.Contact != "" && l.OptOut == 0 {
						s.sync.recheck[l.Ref] = true
					}
				}
			}
		}
	}
	return nil
}

// movesOn has those looked at again whom the word of a closed record kept out at an
// address that it has no more. Its link, if there is one, may be about yet another one.
func (s *session) movesOn(ref lockstep.Ref, email string) {
	c, ok := s.sync.barred.closed[ref]
	if !ok {
		return
	}
	now := crosswalk.EmailKey(email)
	for _, was := range c.emails {
		if was != now {
			s.withdraw(crosswalk.Link{Ref: ref, Email: was, OptOut: lockstep.DoNotBulkEmail})
		}
	}
}

// reopen ends what CRM users had closed themselves.
func (s *session) reopen(c *lockstep.Commit) error {
	b := s.sync.barred
	keys := make([]lockstep.AddressKey, 0, len(b.opened))
	for _, o := range b.opened {
		keys = append(keys, o.key)
	}
	if len(keys) == 0 {
		return nil
	}
	rs, err := s.e.Store.Restrictions(s.ctx, s.account.ID, keys)
	if err != nil {
		return err
	}
	for _, r := range rs {
		o, ok := b.opened[r.Ref]
		flag := lockstep.DoNotBulkEmail
		switch r.Scope {
		case lockstep.ScopeBulk:
		case lockstep.ScopeEmail:
			flag = lockstep.DoNotEmail
		default:
			continue
		}
		if !ok || o.optOut&flag != 0 || o.at.Before(r.At) {
			continue
		}
		e := lockstep.ConsentEntry{
			Account: r.Account, Act: lockstep.ActAllowed, Scope: r.Scope, Object: r.Object, Key: r.Key, Email: r.Email, Ref: r.Ref, Contact: r.Contact,
			System: lockstep.ConsentCRM, Evidence: "a CRM user opened the record to email again", At: o.at, Seen: s.e.Now(), About: r.Entry, Run: s.run.ID,
		}
		e.ID = lockstep.ConsentID(&e)
		c.Consent = append(c.Consent, e)
		c.Lifted = append(c.Lifted, r)
	}
	return nil
}

// remark lets the consent lane close records to bulk email that have a suppressed
// address and do not say so: made, imported or opened after the opt-out, and records
// that a backup of the CRM has opened. What a CRM user had closed and opened again is
// open. The platform is told again of a suppressed address that this run gave to another
// contact than the one it closed; should the process die before that, the feed shows the
// contact to the next run, see noteReturns.
func (s *session) remark() error {
	b := s.sync.barred
	if s.dry() || b == nil {
		return nil
	}
	taken := map[lockstep.AddressKey]lockstep.ContactID{}
	s.mu.Lock()
	for _, r := range s.sync.renamed {
		if key := s.e.Store.AddressKey(r.email); b.account[key] {
			taken[key] = r.contact
		}
	}
	s.sync.renamed = nil
	s.mu.Unlock()
	if len(b.unmarked)+len(b.opened)+len(b.reverted)+len(taken) == 0 {
		return nil
	}
	var c lockstep.Commit
	if err := s.reopen(&c); err != nil {
		return err
	}
	keys := make([]lockstep.AddressKey, 0, len(b.unmarked)+len(b.reverted))
	for k := range b.unmarked {
		keys = append(keys, k)
	}
	for _, k := range b.reverted {
		if !b.unmarked[k] {
			keys = append(keys, k)
		}
	}
	for k := range taken {
		if !b.unmarked[k] {
			keys = append(keys, k)
		}
	}
	rs, err := s.e.Store.Restrictions(s.ctx, s.account.ID, keys)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if !r.Released.IsZero() || r.Email == "" {
			continue
		}
		before := len(r.Told)
		contact, moved := taken[r.Key]
		if _, told := r.Told[toldPlatform]; told && moved && r.Scope == lockstep.ScopeAccount && r.Contact != contact {
			tellAgain(&r, contact)
		}
		again := r.Scope == lockstep.ScopeAccount && b.unmarked[r.Key]
		if r.Scope == lockstep.ScopeBulk || r.Scope == lockstep.ScopeEmail {
			_, again = b.reverted[r.Ref]
		}
		if _, told := r.Told[toldFlags]; told && again {
			delete(r.Told, toldFlags)
			r.Pending = true
		}
		if len(r.Told) < before {
			c.Restrictions = append(c.Restrictions, r)
		}
	}
	clear(b.unmarked)
	clear(b.reverted)
	if len(c.Restrictions) == 0 && len(c.Lifted) == 0 {
		return nil
	}
	if err := s.commit(c); err != nil {
		return err
	}
	for ref, o := range b.opened {
		if o.optOut == 0 {
			delete(b.closed, ref)
		}
	}
	clear(b.opened)
	return nil
}

// bar takes out of a batch that is about to leave who opted out while it was filled.
// Who has a contact keeps what the base says; who has none is kept as a refusal, so
// that the record is looked at again when it changes.
func (s *session) bar(b *batch) error {
	if s.dry() || s.sync.barred == nil {
		return nil
	}
	if err := s.refreshBarred(); err != nil || len(s.sync.barred.fresh) == 0 {
		return err
	}
	kept := b.rows[:0]
	for i := range b.rows {
		r := b.rows[i]
		if !s.sync.barred.fresh[s.e.Store.AddressKey(r.address())] || len(r.adds) == 0 {
			kept = append(kept, r)
			continue
		}
		s.count(lockstep.Counts{Written: -1, Guarded: 1})
		if r.claims {
			s.letGo(r.claim)
		}
		if l, ok := s.lockedLink(r.ref); ok {
			s.mu.Lock()
			s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: l}) // looked at again
			s.mu.Unlock()
			continue
		}
		b.quiet = append(b.quiet, row{
			ref: r.ref, newEmail: r.address(), modified: r.modified, optOut: r.optOut | lockstep.DoNotBulkEmail, base: s.sync.absent, place: r.place,
		})
	}
	clear(b.rows[len(kept):])
	b.rows = kept
	return nil
}

func (s *session) lockedLink(ref lockstep.Ref) (crosswalk.Link, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linkOf(ref)
}
