package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/subject"
)

// How much Explain tells at most, of each kind.
const (
	explainWrites = 20
	explainRows   = 50
)

// explained is what Explain knows on the way.
type explained struct {
	lockstep.Explanation
	entries  []crosswalk.Entry // of Links, in their order
	records  []lockstep.ID
	contacts []lockstep.ContactID
}

// Explain says who an address is on each side, where it belongs and why, what was last
// written and what is still to be written. It makes no call to either side and reads
// only those pieces of what is stored that may be about the address.
func (a *App) Explain(ctx context.Context, account, email string) (lockstep.Explanation, error) {
	email = lockstep.NormalizeEmail(email)
	x := &explained{Explanation: lockstep.Explanation{
		Email: email, Account: account, Links: []lockstep.ExplainedLink{}, LastWrites: []lockstep.ExplainedWrite{}, Pending: []lockstep.ExplainedWrite{},
		Findings: []lockstep.Finding{}, Conflicts: []lockstep.Conflict{}, Consent: lockstep.ExplainedConsent{Why: []string{}},
	}}
	if problem := lockstep.CheckEmail(email); problem != "" {
		return x.Explanation, invalid("email", problem, "give one whole address")
	}
	if _, err := a.store.Account(ctx, account); err != nil {
		return x.Explanation, err
	}
	for _, step := range []func(context.Context, *explained) error{a.explainLinks, a.explainMemberships, a.explainHistory, a.explainNextRun} {
		if err := step(ctx, x); err != nil {
			return x.Explanation, err
		}
	}
	x.consent()
	return x.Explanation, a.explainRestrictions(ctx, x)
}

// explainLinks finds who has the address.
func (a *App) explainLinks(ctx context.Context, x *explained) error {
	type found struct {
		entry  crosswalk.Entry
		labels []string
	}
	var links map[lockstep.Ref]found
	subjects := []subject.Hash{subject.Of(x.Email)}
	// First whose entry ever had the address, then what became of those since.
	for range 2 {
		links = map[lockstep.Ref]found{}
		err := a.store.LinksAbout(ctx, x.Account, subjects, func(b lockstep.StoredBlob) error {
			known := func(ref lockstep.Ref) bool { _, ok := links[ref]; return ok }
			return crosswalk.Find(b.Payload, x.Email, known, func(labels []string, e crosswalk.Entry) error {
				links[e.Ref] = found{e, labels}
				return nil
			})
		})
		if err != nil {
			return err
		}
		for ref := range links {
			subjects = append(subjects, subject.Record(ref.ID))
		}
	}
	for ref, f := range links {
		if f.entry.Closed || f.entry.Email != x.Email {
			delete(links, ref)
		}
	}
	labels, err := a.store.Labels(ctx, x.Account)
	if err != nil {
		return err
	}
	today := map[string]string{} // what bases call each label; nothing is agreed on of a field that was made anew
	for i := range labels {
		today[labels[i].BaseName()] = labels[i].Name
	}
	refs := slices.SortedFunc(maps.Keys(links), func(a, b lockstep.Ref) int {
		switch {
		case (a.Table == "") != (b.Table == ""):
			if a.Table == "" {
				return 1 // known on the platform only
			}
			return -1
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	for _, ref := range refs {
		f := links[ref]
		e := f.entry
		l := lockstep.ExplainedLink{
			Contact: e.Contact, Speaks: e.Master && e.Contact != "", Standing: e.Standing.String(), OptIn: e.OptIn.String(), OptOuts: optOuts(e.OptOut),
			Agreed: map[string]lockstep.Value{}, Memberships: []lockstep.ExplainedMembership{},
		}
		if ref.Table != "" {
			l.Record = &ref
			x.records = append(x.records, ref.ID)
		}
		if e.Contact != "" && !slices.Contains(x.contacts, e.Contact) {
			x.contacts = append(x.contacts, e.Contact)
		}
		for i, base := range f.labels {
			n := today[base]
			switch {
			case n == "" || i >= len(e.Base) || e.Base[i].IsAbsent():
			case i < len(e.Apart) && !e.Apart[i].IsAbsent():
				if l.Apart == nil {
					l.Apart = map[string]lockstep.ExplainedApart{}
				}
				l.Apart[n] = lockstep.ExplainedApart{CRM: e.Apart[i], Platform: e.Base[i]}
			default:
				l.Agreed[n] = e.Base[i]
			}
		}
		x.Links, x.entries = append(x.Links, l), append(x.entries, e)
	}
	return nil
}

func optOuts(o lockstep.OptOut) (out []string) {
	for _, f := range []struct {
		flag lockstep.OptOut
		says string
	}{{lockstep.DoNotEmail, merge.ExcludedDoNotEmail}, {lockstep.DoNotBulkEmail, merge.ExcludedBulkEmail}, {lockstep.DoNotMaterial, merge.ExcludedMaterial}} {
		if o&f.flag != 0 {
			out = append(out, f.says)
		}
	}
	return out
}

func (a *App) explainMemberships(ctx context.Context, x *explained) error {
	lists, err := a.store.Lists(ctx, x.Account)
	if err != nil {
		return err
	}
	var subjects []subject.Hash
	byRecord, byContact := map[lockstep.ID]int{}, map[lockstep.ContactID]int{}
	for i := range x.Links {
		if r := x.Links[i].Record; r != nil {
			byRecord[r.ID] = i
			subjects = append(subjects, subject.Record(r.ID))
		}
		if c := x.Links[i].Contact; c != "" {
			if _, ok := byContact[c]; !ok {
				byContact[c] = i
				subjects = append(subjects, subject.Of(string(c)))
			}
		}
	}
	if len(subjects) == 0 {
		return nil
	}
	for _, l := range lists {
		if !l.Activated {
			continue
		}
		last := map[int]crosswalk.Member{}
		strangers := map[int]crosswalk.Member{}
		err := a.store.MembersAbout(ctx, l.ID, subjects, func(b lockstep.StoredBlob) error {
			want := func(id lockstep.ID, contact []byte) bool {
				if id.IsZero() {
					_, ok := byContact[lockstep.ContactID(contact)]
					return ok
				}
				_, ok := byRecord[id]
				return ok
			}
			return crosswalk.FindMembers(b.Payload, want, func(m crosswalk.Member) {
				if m.Record.IsZero() {
					strangers[byContact[m.Contact]] = m
				} else {
					last[byRecord[m.Record]] = m
				}
			})
		})
		if err != nil {
			return err
		}
		for i := range x.Links {
			m, ok := last[i]
			if !ok {
				m, ok = strangers[i]
			}
			if !ok || m.Gone() {
				continue
			}
			x.Links[i].Memberships = append(x.Links[i].Memberships, lockstep.ExplainedMembership{
				List: l.ID, Name: l.Name, InList: m.InList, InAddressBook: m.InBook, Excluded: m.Excluded, Unsubscribed: m.Unsubscribed, Why: x.why(&l, i, m),
				Dynamic: l.Dynamic, MembershipAction: l.MembershipAction, SubscriptionFilter: l.SubscriptionFilter, MirrorRemovals: l.MirrorRemovals,
			})
		}
	}
	return nil
}

// groupOptOut is the strictest of what all records with the address say.
func (x *explained) groupOptOut() (all lockstep.OptOut) {
	for i := range x.entries {
		all |= x.entries[i].OptOut
	}
	return all
}

// why says in words why a person is where it is in one list.
func (x *explained) why(l *lockstep.ListSettings, i int, m crosswalk.Member) string {
	e := &x.entries[i]
	member := "a member of the marketing list"
	if l.Dynamic {
		member = "in the result of the dynamic list's query"
	}
	switch {
	case m.Undone:
		return merge.ReasonUndone
	case m.InList && m.InBook:
		return member
	case m.InList:
		reason, excluded := merge.Excluded(l.SubscriptionFilter, l.MinOptIn, x.groupOptOut(), e.Standing, m.Unsubscribed, e.OptIn)
		switch {
		case excluded:
		case m.Unsubscribed:
			reason = merge.ReasonLeftBook
		case !e.Standing.Mailable():
			reason = merge.ReasonNotMailable + ": " + e.Standing.String()
		case m.Excluded:
			reason = "kept out when it was last looked at: the record is inactive, or the platform refused it (see the findings)"
		default:
			reason = "the next run puts it in"
		}
		return member + ", but not in the address book: " + reason
	case m.InBook && m.Former:
		return "left the marketing list; this list leaves such people in its address book"
	case m.InBook && l.Dynamic:
		return "in the address book and not in the query's result: the next run takes it out"
	case m.InBook:
		return "in the address book and not in the marketing list; " + map[lockstep.MembershipAction]string{
			lockstep.ActionRemove:        "the list's membership action takes such people out, in the cycle after the one that met them first",
			lockstep.ActionAllowKnown:    "the list's membership action adds those whom the CRM knows",
			lockstep.ActionCreateLead:    "the list's membership action adds them, with a new lead where the CRM does not know them",
			lockstep.ActionCreateContact: "the list's membership action adds them, with a new contact where the CRM does not know them",
			lockstep.ActionIgnore:        "the list's membership action leaves such people alone",
		}[l.MembershipAction]
	case m.Unsubscribed:
		return merge.ReasonLeftBook
	}
	return "not in the marketing list any more"
}

// explainHistory tells what was written, found and quarrelled about.
func (a *App) explainHistory(ctx context.Context, x *explained) error {
	if len(x.Links) == 0 {
		return nil
	}
	var subjects []subject.Hash
	for _, id := range x.records {
		subjects = append(subjects, subject.Record(id))
	}
	for _, id := range x.contacts {
		subjects = append(subjects, subject.Of(string(id)))
	}
	about := func(c *lockstep.Change) bool {
		return c.Ref.Table != "" && slices.Contains(x.records, c.Ref.ID) || c.Contact != "" && slices.Contains(x.contacts, c.Contact) || c.Email == x.Email
	}
	ids, err := a.store.BatchesAbout(ctx, x.Account, subjects)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if len(x.LastWrites) >= explainWrites {
			break
		}
		b, err := a.store.Batch(ctx, id)
		if err != nil {
			return err
		}
		var writes []lockstep.ExplainedWrite
		err = journal.Decode(b.Payload, func(c lockstep.Change) error {
			if about(&c) && c.State != lockstep.Dropped {
				at := b.Ended
				if at.IsZero() {
					at = b.Planned
				}
				writes = append(writes, lockstep.ExplainedWrite{Run: b.Run, At: at, Change: c})
			}
			return nil
		})
		if err != nil {
			return err
		}
		slices.Reverse(writes)
		switch b.State {
		case lockstep.Planned, lockstep.Sent, lockstep.Unknown:
			x.Pending = append(x.Pending, writes...)
		default:
			x.LastWrites = append(x.LastWrites, writes...)
		}
	}
	x.LastWrites = x.LastWrites[:min(len(x.LastWrites), explainWrites)]
	findings, err := a.store.FindingsAbout(ctx, x.Account, x.records, x.contacts, explainRows)
	if err != nil {
		return err
	}
	conflicts, err := a.store.ConflictsAbout(ctx, x.Account, x.records, x.contacts, explainRows)
	x.Findings, x.Conflicts = append(x.Findings, findings...), append(x.Conflicts, conflicts...)
	return err
}

// explainNextRun says when what is still different will be carried over.
func (a *App) explainNextRun(ctx context.Context, x *explained) error {
	live, err := a.store.LiveRuns(ctx)
	if err != nil {
		return err
	}
	x.NextRun.Text = "no run is queued; the next run of marketing-lists carries over what is different"
	schedules, err := a.Schedules(ctx, x.Account)
	if err != nil {
		return err
	}
	for _, sc := range schedules {
		if sc.Type == lockstep.SyncMarketingLists && sc.Waits == "" && !sc.Next.IsZero() {
			x.NextRun.Text = "the next run of marketing-lists is due at " + sc.Next.UTC().Format(time.RFC3339) + " and carries over what is different"
		}
	}
	for _, run := range live {
		if run.Account == x.Account && run.Type == lockstep.SyncMarketingLists && run.Mode == lockstep.ModeApply {
			x.NextRun = lockstep.ExplainedRun{Run: run.ID, Status: run.Status, Text: fmt.Sprintf("run %s is %s", run.ID, run.Status)}
		}
	}
	return nil
}

// consent says whether the address may be mailed, as the links know it.
func (x *explained) consent() {
	c := &x.Consent
	c.Mailable = len(x.entries) > 0
	platform := ""
	for i := range x.entries {
		e := &x.entries[i]
		for _, says := range optOuts(e.OptOut) {
			c.Why = append(c.Why, e.Ref.Path()+": "+says)
		}
		if e.OptOut&(lockstep.DoNotEmail|lockstep.DoNotBulkEmail) != 0 {
			c.Mailable = false
		}
		if e.Contact != "" && platform == "" {
			platform = fmt.Sprintf("contact %s is %s on the platform, opt-in %s", e.Contact, e.Standing, e.OptIn)
			c.Mailable = c.Mailable && e.Standing.Mailable()
		}
	}
	if platform == "" {
		c.Mailable, platform = false, "no contact of the email account has the address"
	}
	c.Why = append(c.Why, platform)
}

// explainRestrictions adds what the consent lane has on record against the address.
func (a *App) explainRestrictions(ctx context.Context, x *explained) error {
	rs, err := a.store.Restrictions(ctx, x.Account, []lockstep.AddressKey{a.store.AddressKey(x.Email)})
	if err != nil {
		return err
	}
	for i := range rs {
		r := &rs[i]
		if !r.Released.IsZero() {
			continue
		}
		since := "at an unknown time"
		if !r.At.IsZero() {
			since = r.At.UTC().Format("2006-01-02 15:04 UTC")
		}
		why := fmt.Sprintf("%s, said in %s %s: %s", suppression(r).Word, r.System, since, cmp.Or(r.Evidence, "no evidence is kept"))
		if r.Pending {
			why += "; not everybody was told yet"
		}
		x.Consent.Why = append(x.Consent.Why, why)
		if r.Scope != lockstep.ScopeList && r.Scope != lockstep.ScopePreference {
			x.Consent.Mailable = false
		}
	}
	return nil
}
