package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// Guards stop what is more likely a mistake than a wish: an emptied list, a cleared
// column, a table that changed as a whole, settings that nobody looked at. What a guard
// is about is not begun; the rest of the run is done. A preview passes every guard,
// because it writes nothing, and so does the run that applies it, because a person saw
// its changes. Opt-outs pass too, whatever their number.

// guarded reports whether this run's guards are up.
func (s *session) guarded() bool {
	return !s.dry() && s.run.Preview == "" && s.run.Type != lockstep.SyncUndo
}

const guardHint = "start a preview, look at what it would write, and apply it if that is what you want"

// hold notes that a guard held something back of n people. The run ends as failed once
// everything else is done.
func (s *session) hold(n int, format string, args ...any) {
	s.count(lockstep.Counts{Read: int64(n), Guarded: int64(n)})
	s.stopped = append(s.stopped, fmt.Sprintf(format, args...))
}

// verdict is the error of a run in which a guard held something back.
func (s *session) verdict() error {
	if len(s.stopped) == 0 {
		return nil
	}
	return &lockstep.Error{Code: lockstep.CodeGuarded, Op: "guard", Msg: strings.Join(s.stopped, "; "), Hint: guardHint}
}

// consentReasons are those of removals that no guard may hold back: what people said.
// whyExcluded is said of those that an earlier process left undone.
var consentReasons = map[string]bool{
	merge.ExcludedDoNotEmail: true, merge.ExcludedBulkEmail: true, merge.ExcludedMaterial: true,
	merge.ExcludedUnsubscribed: true, merge.ExcludedSuppressed: true, merge.ExcludedOptIn: true,
	whyExcluded: true,
}

// guardRemovals keeps a list's removals back when they are too many; opt-outs stay.
func (s *session) guardRemovals(l *listState) {
	if !s.guarded() || len(l.removals) == 0 {
		return
	}
	var held []removal
	optOuts := make([]removal, 0, len(l.removals))
	for _, r := range l.removals {
		if consentReasons[r.why] {
			optOuts = append(optOuts, r)
		} else {
			held = append(held, r)
		}
	}
	known := l.stored.InBook
	if known == 0 {
		known = l.members.InBook()
	}
	limit := s.account.GuardLimit(known)
	if len(held) <= limit {
		return
	}
	l.removals, l.held = optOuts, true
	s.hold(len(held), "%d of %d people would be removed from the address book of the list %q, more than %d; none of them was", len(held), known, l.set.Name, limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range held {
		// Whom the record itself keeps out is decided anew by the next run, which has to
		// know why.
		if r.member.Excluded {
			if k, ok := s.sync.links.ByRef(lockstep.Ref{Table: l.set.MemberTable, ID: r.member.Record}); ok {
				s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: k})
			}
		}
	}
}

// known counts the records of a table that are linked to a contact.
func (s *session) known(table string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k := range s.sync.links.All() {
		if k.Ref.Table == table && k.Contact != "" {
			n++
		}
	}
	return n
}

// blanks are the people of one table of whom a value would be cleared on one side
// because the other side is empty. They are set aside until the feeds are read: only
// then it is known how many they are. Beyond the limit nobody is remembered, because
// none of them will be written.
type blanks struct {
	limit int
	// counted are at most limit people: those of earlier slices of the run and those who
	// are set aside.
	counted map[lockstep.ID]bool
	over    bool
	told    bool // that it is over
	// ids holds at most limit people, with what the platform said of those whom its
	// feed brought.
	ids map[lockstep.ID]*lockstep.Contact
}

// clears reports whether what a person is about to be told clears a value.
func (s *session) clears(p *person) bool {
	if s.sync.unblanked || !p.linked || p.adopted || !s.guarded() {
		return false
	}
	found := slices.ContainsFunc(p.toCRM, func(v lockstep.ColumnValue) bool { return v.Value.IsNull() })
	for i := 0; !found && i < len(p.row.values); i++ {
		old := p.row.old[i]
		found = p.row.values[i].IsNull() && !old.IsNull() && !old.IsAbsent()
	}
	if !found {
		return false
	}
	for k := range s.sync.resolve {
		if k.ref == p.rec.Ref {
			return false // a person decided
		}
	}
	return true
}

// setAside puts a person off. Its link is marked in storage, so that the person is
// looked at again whatever becomes of this run.
func (s *session) setAside(plan *tablePlan, p *person) error {
	b, err := s.blanksOf(plan.table)
	if err != nil {
		return err
	}
	if !b.over && !b.counted[p.rec.ID] {
		if len(b.counted) == b.limit {
			b.limit = s.account.GuardLimit(s.known(plan.table))
		}
		if b.over = len(b.counted) >= b.limit; b.over {
			clear(b.ids)
		} else {
			b.counted[p.rec.ID] = true
		}
	}
	if !b.over {
		if c := p.plat; c != nil && !p.platPartial {
			own := *c
			own.Values, own.Books = slices.Clone(c.Values), slices.Clone(c.Books)
			b.ids[p.rec.ID] = &own
		} else if _, kept := b.ids[p.rec.ID]; !kept {
			b.ids[p.rec.ID] = nil
		}
	}
	for i, v := range p.toCRM {
		if v.Value.IsNull() && p.crmPos[i] >= 0 {
			s.sync.clearing[p.crmPos[i]] = true
		}
	}
	r := &p.row
	p.toCRM, p.crmPos, p.crmOld = nil, nil, nil
	clear(r.base)
	copy(r.base, p.entry.Base)
	r.parted = slices.Clone(p.entry.Apart)
	r.values, r.old, r.adds, r.demote, r.undo = nil, nil, nil, nil, nil
	r.email, r.oldEmail, r.newEmail = "", "", p.entry.Email
	r.master, r.hash, r.seen = p.entry.Master, transform.Hash128{}, p.link.Seen
	if p.plat != nil {
		r.seen = 0
	}
	p.aside = true
	return nil
}

func clearedMark(table string) string { return "guard/cleared/" + table }

// blanksOf returns the people of a table who were set aside, with those whom earlier
// slices of this run have carried on with: the guard is about a run, however many
// slices or processes it takes.
func (s *session) blanksOf(table string) (*blanks, error) {
	if b := s.sync.blanks[table]; b != nil {
		return b, nil
	}
	b := &blanks{limit: s.account.GuardLimit(0), counted: map[lockstep.ID]bool{}, ids: map[lockstep.ID]*lockstep.Contact{}}
	mark, err := s.e.Store.Cursor(s.ctx, s.account.ID, clearedMark(table))
	if err != nil {
		return nil, err
	}
	if run, ids, _ := strings.Cut(string(mark), " "); run == s.run.ID {
		for id := range strings.FieldsSeq(ids) {
			if parsed, err := lockstep.ParseID(id); err == nil {
				b.counted[parsed] = true
			}
		}
	}
	s.sync.blanks[table] = b
	return b, nil
}

// keepCounted notes whom the run counts, before anything of them is cleared.
func (s *session) keepCounted(table string, b *blanks) error {
	if s.dry() {
		return nil
	}
	mark := []string{s.run.ID}
	for id := range b.counted {
		mark = append(mark, id.String())
	}
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{clearedMark(table): lockstep.Cursor(strings.Join(mark, " "))}})
}

// blankings carries on with the people who were set aside, unless they are too many. It
// comes right after the feeds, before it is asked who left the dynamic lists, so that a
// run goes the way that a preview shows, and once more after the latecomers.
func (s *session) blankings() error {
	if err := s.doubtCleared(); err != nil {
		return err
	}
	s.sync.unblanked = true
	defer func() { s.sync.unblanked = false }()
	for _, table := range MemberTables {
		b := s.sync.blanks[table]
		if b == nil {
			continue
		}
		if b.told || !b.over && len(b.ids) == 0 {
			continue
		}
		if b.over {
			b.told = true
			s.hold(b.limit+1, "a mapped value would be cleared of more than %d people of %s because it is empty on the other side; none of them was written", b.limit, table)
			continue
		}
		if err := s.keepCounted(table, b); err != nil {
			return err
		}
		ids := slices.SortedFunc(maps.Keys(b.ids), func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
		byContact := map[lockstep.ContactID]*lockstep.Contact{}
		for _, c := range b.ids {
			if c != nil {
				byContact[c.ID] = c
			}
		}
		clear(b.ids)
		for part := range slices.Chunk(ids, latecomerChunk) {
			err := s.crm.Records(s.ctx, s.sync.plans[table].query, part, func(recs []lockstep.Record) error {
				return s.mergePage(table, recs, func(id lockstep.ContactID) *lockstep.Contact { return byContact[id] })
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Above both, a delta is taken for a table that changed as a whole.
const (
	massPercent = 30
	massRows    = 100
)

var errEnough = errors.New("counted enough")

// massChange stops a run before it writes when a feed of changes brings most of the
// people known of a table with other content than at the last run. A feed of one page is counted
// as it is. Of a longer one, the pages after the first are read ahead once, only to be
// counted and only as far as it takes; that is exact and holds nothing in memory, and
// costs those pages' calls twice.
func (s *session) massChange(table string, plan *tablePlan, first lockstep.RecordPage) error {
	if !s.guarded() || s.account.BulkUntil.After(s.e.Now()) {
		return nil
	}
	changed := s.differ(plan, first.Records)
	if first.Resume == "" && changed <= massRows {
		return nil
	}
	known := s.known(table)
	limit := max(massRows, known*massPercent/100)
	if changed <= limit && first.Resume != "" {
		s.stage("counting changes of %s", tableName(table))
		_, err := s.crm.Changes(s.ctx, plan.query, first.Resume, func(pg lockstep.RecordPage) error {
			if changed += s.differ(plan, pg.Records); changed > limit {
				return errEnough
			}
			return s.ctx.Err()
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		s.stage("reading changes of %s", tableName(table))
	}
	if changed <= limit {
		return nil
	}
	s.hold(changed, "at least %d of %d known people of %s changed since the last run, more than %d %%; nothing of it was written", changed, known, table, massPercent)
	err := lockstep.AsError(s.verdict())
	err.Hint = "if a mass change was intended, " + guardHint + ", or declare it with bulk_until of the account"
	return err
}

// differ counts linked records whose content is not that of the last run.
func (s *session) differ(plan *tablePlan, recs []lockstep.Record) int {
	n := 0
	var slab []lockstep.Value
	for i := range recs {
		r := &recs[i]
		if r.Deleted {
			continue
		}
		s.mu.Lock()
		link, linked := s.linkOf(r.Ref)
		s.mu.Unlock()
		if !linked {
			continue
		}
		slab = plan.t.Out(r, slab[:0], func(string, string, string, string) {})
		hash := transform.ContentHash(plan.t.Version(), lockstep.NormalizeEmail(r.Email), r.OptOut, r.Inactive, slab)
		if link.Hash64 != hash.Hash64() {
			n++
		}
	}
	return n
}

// settingsCursor remembers the settings under which was synced last: a hash for each
// list and for each table's mappings.
const settingsCursor = "guard/settings"

// settingsNow are the settings of this run's lists and of their tables.
func (s *session) settingsNow() (now, names map[string]string, err error) {
	now, names = map[string]string{}, map[string]string{}
	add := func(key, name string, parts ...any) error {
		b, err := json.Marshal(parts)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		now[key], names[key] = hex.EncodeToString(sum[:12]), name
		return nil
	}
	for _, l := range s.sync.lists {
		set := &l.set
		query := ""
		if set.Dynamic {
			query = l.crm.Query
		}
		err := add("list/"+set.ID, fmt.Sprintf("the rules of the list %q", set.Name),
			set.MemberTable, set.Dynamic, query, set.MembershipAction, set.SubscriptionFilter, set.MinOptIn, set.MirrorRemovals)
		if err != nil {
			return nil, nil, err
		}
		key := "mappings/" + set.MemberTable
		if now[key] != "" {
			continue
		}
		var mapped []string
		for _, m := range s.mappings {
			if m.Table != set.MemberTable {
				continue
			}
			m.ID, m.Disabled = "", ""
			b, err := json.Marshal(m)
			if err != nil {
				return nil, nil, err
			}
			mapped = append(mapped, string(b))
		}
		slices.Sort(mapped)
		if err := add(key, "the mappings of "+set.MemberTable, mapped); err != nil {
			return nil, nil, err
		}
	}
	return now, names, nil
}

// confirmSettings stops a run whose settings are not those of the last one, until a
// preview under the new ones was applied. What was never synced has nothing to confirm.
func (s *session) confirmSettings() error {
	now, names, err := s.settingsNow()
	if err != nil {
		return err
	}
	if s.dry() { // what the preview shows goes by these settings
		shown, err := json.Marshal(now)
		if err != nil {
			return err
		}
		return s.commit(lockstep.Commit{Progress: shown})
	}
	kept := map[string]string{}
	c, err := s.e.Store.Cursor(s.ctx, s.account.ID, settingsCursor)
	if err != nil {
		return err
	}
	if c != "" && json.Unmarshal([]byte(c), &kept) != nil {
		kept = map[string]string{}
	}
	var changed []string
	same := true
	for _, key := range slices.Sorted(maps.Keys(now)) {
		same = same && kept[key] == now[key]
		if was := kept[key]; was != "" && was != now[key] {
			changed = append(changed, key)
		}
	}
	if same {
		return nil
	}
	if len(changed) > 0 && s.account.ConfirmChanges {
		if err := s.seen(changed, now, names); err != nil {
			return err
		}
	}
	maps.Copy(kept, now)
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{settingsCursor: lockstep.Cursor(text)}})
}

// seen reports, as an error, settings that the applied preview did not go by.
func (s *session) seen(changed []string, now, names map[string]string) error {
	shown := map[string]string{}
	if s.run.Preview != "" {
		text, err := s.e.Store.Progress(s.ctx, s.run.Preview)
		if err != nil {
			return err
		}
		if len(text) > 0 && json.Unmarshal(text, &shown) != nil {
			shown = map[string]string{}
		}
	}
	var unseen []string
	for _, key := range changed {
		if shown[key] != now[key] {
			unseen = append(unseen, names[key])
		}
	}
	if len(unseen) == 0 {
		return nil
	}
	since := "the last sync"
	if s.run.Preview != "" {
		since = "the preview"
	}
	return &lockstep.Error{
		Code: lockstep.CodeGuarded, Op: "guard", Hint: guardHint,
		Msg: fmt.Sprintf("changed since %s: %s; nothing was written", since, strings.Join(unseen, ", ")),
	}
}

// mostlySuppressed reports whether the flags of CRM records would block more addresses
// in the whole email account than a run may do unasked. They are noted, and Lockstep
// keeps them out of every address book at once; only the account is not told yet.
func (s *session) mostlySuppressed() (bool, error) {
	if s.account.BulkOptOut != lockstep.BulkSuppress || !s.guarded() {
		return false, nil
	}
	n := 0
	var after lockstep.ID
	for {
		page, err := s.e.Store.PendingRestrictions(s.ctx, s.account.ID, after, consentPage)
		if err != nil {
			return false, err
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].ID
		for i := range page {
			if byFlag(&page[i]) {
				n++
			}
		}
	}
	if n <= s.account.GuardLimit(0) {
		return false, nil
	}
	people := 0
	for _, table := range MemberTables {
		if s.table(table) == nil {
			continue
		}
		count, err := s.crm.CountRecords(s.ctx, table)
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeUnsupported {
			return false, err
		}
		people += int(count)
	}
	limit := s.account.GuardLimit(people)
	if n <= limit {
		return false, nil
	}
	s.count(lockstep.Counts{Guarded: int64(n), Written: -int64(n)})
	s.stopped = append(s.stopped, fmt.Sprintf("%d addresses would be blocked in the email account because their CRM records do not allow bulk email, more than %d; they are noted and kept out of the address books, and none was blocked", n, limit))
	return true, nil
}

// byFlag reports whether a restriction blocks an address because of a record's flag and
// the email account does not know it yet.
func byFlag(r *lockstep.Restriction) bool {
	_, told := r.Told[toldPlatform]
	return !told && r.Scope == lockstep.ScopeAccount && r.System == lockstep.ConsentCRM && r.Origin == "" && r.Released.IsZero() && r.Asked.IsZero() &&
		slices.Contains(MemberTables, r.Ref.Table)
}

// grouped joins removals of one contact: each is removed once, for the most telling
// reason.
func grouped(all []removal) []removal {
	seen := make(map[lockstep.ContactID]int, len(all))
	out := all[:0]
	for _, r := range all {
		at, ok := seen[r.member.Contact]
		switch {
		case r.member.Contact == "":
		case !ok:
			seen[r.member.Contact] = len(out)
			out = append(out, r)
		default:
			if was := &out[at]; consentReasons[r.why] && (was.why == whyExcluded || !consentReasons[was.why]) {
				was.why = r.why
			}
			out[at].also = append(out[at].also, slices.Concat([]crosswalk.Member{r.member}, r.also)...)
		}
	}
	return out
}
