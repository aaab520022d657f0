package engine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// subject is one record and its contact as they are now.
type subject struct {
	link   crosswalk.Link
	linked bool
	entry  crosswalk.Entry
	rec    *lockstep.Record // nil = not there any more, or not asked for
	hash   transform.Hash128
	vals   []lockstep.Value // of rec, in label form
	plat   *lockstep.Contact
	gone   bool // the contact was deleted, or has another address than its link
}

// undoWork is what one batch of the undone run comes to.
type undoWork struct {
	kind     lockstep.ChangeKind
	rows     []row
	records  map[string][]recordUndo // by table
	removals map[*listState][]lockstep.Change
	leave    map[*listState][]lockstep.Change // marketing lists
	join     map[*listState][]lockstep.Change
	refused  []lockstep.Change
	count    lockstep.Counts
}

// recordUndo is one CRM record that gets old values back.
type recordUndo struct {
	change  lockstep.Change
	version int64 // of the record that the decision rests on
	before  crosswalk.Entry
	after   crosswalk.Entry
}

// undoBatch reverses one batch of the run.
func (s *session) undoBatch(u *undoing, b *lockstep.Batch) error {
	all, err := journal.Changes(b.Payload)
	if err != nil {
		return err
	}
	slices.Reverse(all)
	changes := slices.DeleteFunc(all, func(c lockstep.Change) bool { return !u.concerns(&c) })
	w := &undoWork{
		kind: b.Kind, records: map[string][]recordUndo{}, removals: map[*listState][]lockstep.Change{},
		leave: map[*listState][]lockstep.Change{}, join: map[*listState][]lockstep.Change{},
	}
	if len(changes) > 0 {
		if err := s.refreshBarred(); err != nil {
			return err
		}
		known, err := s.subjects(u, changes)
		if err != nil {
			return err
		}
		for i := range changes {
			if err := s.undoChange(u, w, &changes[i], known); err != nil {
				return err
			}
		}
		if err := s.writeUndo(u, w); err != nil {
			return err
		}
	}
	u.done.Below = b.ID
	c := lockstep.Commit{Progress: u.progress(), Batches: u.ends, Counts: w.count}
	if err := s.noteRefused(w, &c); err != nil {
		return err
	}
	s.mu.Lock()
	c.Members = s.takePending()
	s.mu.Unlock()
	if err := s.commit(c); err != nil {
		return err
	}
	u.ends = nil
	clear(u.own)
	return nil
}

// subjects reads both sides of everybody whom these changes are about.
func (s *session) subjects(u *undoing, changes []lockstep.Change) (map[lockstep.Ref]*subject, error) {
	out := map[lockstep.Ref]*subject{}
	var links []crosswalk.Link
	var linked []*subject
	byTable := map[string][]lockstep.ID{}
	s.mu.Lock()
	for i := range changes {
		c := &changes[i]
		ref := subjectRef(c)
		if ref.ID.IsZero() || out[ref] != nil {
			continue
		}
		x := &subject{}
		out[ref] = x
		if x.link, x.linked = s.linkOf(ref); x.linked {
			links, linked = append(links, x.link), append(linked, x)
		}
		if s.sync.plans[ref.Table] != nil {
			byTable[ref.Table] = append(byTable[ref.Table], ref.ID)
		}
	}
	s.mu.Unlock()
	entries, err := s.entries(links)
	if err != nil {
		return nil, err
	}
	for i, x := range linked {
		x.entry = entries[i]
		if !u.done.Direct && x.link.Seen != 0 {
			continue
		}
		c, err := s.platform.ContactByID(s.ctx, x.entry.Contact, s.sync.names)
		switch {
		case lockstep.CodeOf(err) == lockstep.CodeNotFound || err == nil && c.Standing == lockstep.ContactDeleted:
			x.gone = true
		case err != nil:
			return nil, err
		default:
			x.plat = &c
			x.entry.Standing, x.entry.OptIn = c.Standing, c.OptIn
		}
	}
	for _, table := range slices.Sorted(maps.Keys(byTable)) { // the same calls in the same order each time
		plan, ids := s.sync.plans[table], byTable[table]
		err := s.crm.Records(s.ctx, plan.query, ids, func(recs []lockstep.Record) error {
			for i := range recs {
				r := recs[i]
				if x := out[r.Ref]; x != nil && !r.Deleted {
					x.rec = &r
					x.vals = plan.t.Out(&r, nil, nil)
					x.hash = transform.ContentHash(plan.t.Version(), lockstep.NormalizeEmail(r.Email), r.OptOut, r.Inactive, x.vals)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// subjectRef is under what a change's subject is linked: its record, or the
// placeholder of a contact without one.
func subjectRef(c *lockstep.Change) lockstep.Ref {
	if c.Ref.Table == "" && c.Contact != "" {
		return placeholder(c.Contact)
	}
	return c.Ref
}

// undoChange decides about one change.
func (s *session) undoChange(u *undoing, w *undoWork, c *lockstep.Change, known map[lockstep.Ref]*subject) error {
	x := known[subjectRef(c)]
	written, refused := w.size(), len(w.refused)
	findings := s.findingsSoFar()
	switch c.Kind {
	case lockstep.WriteContact:
		if err := s.undoContact(u, w, c, x); err != nil {
			return err
		}
	case lockstep.WriteRecord:
		s.undoRecord(u, w, c, x)
	case lockstep.RemoveFromBook:
		if u.field != "" {
			return nil
		}
		if err := s.undoRemoval(u, w, c, x); err != nil {
			return err
		}
	case lockstep.AddToList, lockstep.RemoveFromList:
		if u.field != "" {
			return nil
		}
		if err := s.undoListMember(u, w, c); err != nil {
			return err
		}
	case lockstep.CreateRecord:
		s.notUndone(c, "", "the CRM record that the run made stays; the run's undo only takes it off the marketing list", "deactivate or delete the record in Dynamics if it is not wanted")
	case lockstep.CreateBook:
		s.notUndone(c, "", "the address book that the run made stays, without the people that the run put into it", "delete the address book on the platform if it is not wanted")
	case lockstep.RenameBook:
		s.notUndone(c, "", "the address book keeps the name of its marketing list", "rename the marketing list in Dynamics; the address book follows")
	case lockstep.CreateField:
		s.notUndone(c, c.Name, "the contact data field "+c.Name+" that the run made stays", "delete the data field on the platform if it is not wanted")
	case lockstep.SuppressContact, lockstep.ChoosePreference, lockstep.KeepRow:
		s.notUndone(c, "", "what a person said about being mailed is never taken back by an undo", "the person can opt in again")
	default:
		s.notUndone(c, "", fmt.Sprintf("a change of kind %s cannot be taken back", c.Kind), "")
	}
	w.count.Read++
	switch {
	case w.size() > written:
		w.count.Written++
	case len(w.refused) > refused || s.findingsSoFar() > findings:
		w.count.Rejected++
	default:
		w.count.Equal++
	}
	return nil
}

// size is how many changes are to be written.
func (w *undoWork) size() int {
	n := len(w.rows)
	for _, r := range w.records {
		n += len(r)
	}
	for _, m := range []map[*listState][]lockstep.Change{w.removals, w.leave, w.join} {
		for _, c := range m {
			n += len(c)
		}
	}
	return n
}

// findingsSoFar is how many findings this slice has made.
func (s *session) findingsSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.found)
}

func (s *session) notUndone(c *lockstep.Change, field, msg, hint string) {
	f := lockstep.Finding{Code: lockstep.FindingNotUndone, Table: c.Ref.Table, Record: c.Ref.ID, Contact: c.Contact, Field: field, Message: msg, Hint: hint}
	if c.Ref.Table == "" && !c.List.IsZero() {
		f.Table, f.Record = "list", c.List
	}
	s.finding(f)
}

// movedSince tells that something was changed since the run, and keeps what stands there
// now beside what would have been written.
func (s *session) movedSince(u *undoing, w *undoWork, c *lockstep.Change, field string, now, back lockstep.Value, where, hint string) {
	msg := fmt.Sprintf("was changed again %s since run %s and stays as it is", where, u.target.ID)
	name := field
	if name == "" {
		name = "it"
	}
	s.finding(lockstep.Finding{
		Code: lockstep.FindingMoved, Table: c.Ref.Table, Record: c.Ref.ID, Contact: c.Contact, Field: field,
		Message: name + " " + msg + "; the refused change of this undo shows what stands there now", Hint: hint,
	})
	r := lockstep.Change{Kind: c.Kind, State: lockstep.Refused, Ref: c.Ref, Contact: c.Contact, List: c.List, Book: c.Book, Why: u.why, Cause: "changed again " + where}
	if field != "" {
		r.Fields = []lockstep.FieldChange{{Name: field, Old: now, New: back}}
	}
	w.refused = append(w.refused, r)
}

// Where something was changed, and who is asked to decide.
const (
	onPlatform  = "on the platform"
	inCRM       = "in the CRM"
	onBothSides = "on both sides"

	askPlatformSide = "whoever keeps the contact on the platform decides: to go back, set the value there by hand"
	askCRMSide      = "whoever owns the record in Dynamics decides: to go back, set the value there by hand"
)

// present is what the platform says of a label now, in label form.
func (x *subject) present(plan *tablePlan, i, pos int) lockstep.Value {
	if x.plat == nil {
		return x.entry.Base[pos]
	}
	return plan.t.Platform(i, x.plat.Values[pos], nil)
}

func (x *subject) apart(pos int) lockstep.Value {
	if x.entry.Apart == nil {
		return lockstep.Value{}
	}
	return x.entry.Apart[pos]
}

// unsynced reports on which side a label was edited since the last sync; empty = on
// neither.
func (s *session) unsynced(plan *tablePlan, x *subject, i, pos int, platform lockstep.Value) string {
	in := merge.FieldInput{Rule: plan.rules[i], Base: x.entry.Base[pos], Apart: x.apart(pos), CRM: x.vals[i], Platform: platform, CRMAt: x.rec.Modified}
	if x.plat != nil {
		in.PlatformAt = x.plat.Modified
	}
	out := merge.Field(in)
	switch {
	case out.Conflict:
		return onBothSides
	case out.WritePlatform:
		return inCRM
	case out.WriteCRM:
		return onPlatform
	}
	return ""
}

// usable says why nothing of a subject's fields can be undone; empty = it can.
func (s *session) usable(c *lockstep.Change, x *subject) (where, hint string) {
	switch {
	case x == nil || !x.linked || c.Contact != "" && x.entry.Contact != c.Contact:
		return "so that the record has another contact, or none", "set the values by hand"
	case x.rec == nil:
		return "by deleting the record", "restore the record in Dynamics first"
	case x.gone:
		return "by deleting the contact or giving it another address", askPlatformSide
	case !x.link.Master:
		return "so that another record speaks for the contact", "edit the record that speaks for the contact"
	}
	return "", ""
}

// setApart makes an entry say what both sides will say of a label after the undo.
func setApart(e *crosswalk.Entry, pos int, crm, platform lockstep.Value) {
	e.Base[pos] = platform
	if e.Apart == nil {
		if crm == platform {
			return
		}
		e.Apart = make([]lockstep.Value, len(e.Base))
	}
	e.Apart[pos] = crm
	if crm == platform {
		e.Apart[pos] = lockstep.Value{}
	}
}

// undoContact takes back what the run wrote to a contact: fields get their old
// values, address books that it was put into are left.
func (s *session) undoContact(u *undoing, w *undoWork, c *lockstep.Change, x *subject) error {
	if u.field == "" {
		for _, book := range c.Books {
			if err := s.undoBookAdd(u, w, c, book); err != nil {
				return err
			}
		}
	}
	if metFirst(c) {
		if u.field != "" {
			s.notUndone(c, u.field, "what the contact said before the run is not known", "set the value by hand")
		}
		return nil
	}
	plan := s.sync.plans[c.Ref.Table]
	var r *row
	for _, f := range c.Fields {
		if u.field != "" && f.Name != u.field {
			continue
		}
		switch {
		case f.Name == emailLabel:
			s.notUndone(c, emailLabel, "an address is not set back by an undo: mail and consent follow the address that the person has now", "change the address in Dynamics or on the platform; the other side follows")
			continue
		case f.Old.IsAbsent():
			s.notUndone(c, f.Name, "what the platform said before the run is not known", "set the value by hand")
			continue
		}
		i, ok := -1, false
		if plan != nil {
			i, ok = slices.BinarySearch(plan.t.Labels(), f.Name)
		}
		if !ok {
			s.notUndone(c, f.Name, "the data label is not mapped any more", "map it again, then undo")
			continue
		}
		if where, hint := s.usable(c, x); where != "" {
			s.movedSince(u, w, c, f.Name, lockstep.Value{}, f.Old, where, hint)
			continue
		}
		pos := plan.pos[i]
		now := x.present(plan, i, pos)
		again, ours := u.own[undoKey{c.Ref, f.Name}]
		switch {
		case now == f.Old && (!ours || again):
			continue // as it was before the run
		case now != f.New && now != f.Old:
			s.movedSince(u, w, c, f.Name, now, f.Old, onPlatform, askPlatformSide)
			continue
		}
		if where := s.unsynced(plan, x, i, pos, now); where != "" && !ours {
			s.movedSince(u, w, c, f.Name, now, f.Old, where, askCRMSide)
			continue
		}
		if r == nil {
			r = s.undoRow(u, c, x)
		}
		crm := x.vals[i]
		if crm.IsAbsent() { // it cannot be converted: it counts as it did
			if crm = x.apart(pos); crm.IsAbsent() {
				crm = x.entry.Base[pos]
			}
		}
		r.values[pos], r.old[pos] = f.Old, f.New
		e := crosswalk.Entry{Base: r.base, Apart: r.parted}
		setApart(&e, pos, crm, f.Old)
		r.parted = e.Apart
	}
	if r != nil && s.permittedUndo(r) {
		w.rows = append(w.rows, *r)
	}
	return nil
}

// undoRow is a contact that is to be told something.
func (s *session) undoRow(u *undoing, c *lockstep.Change, x *subject) *row {
	n := len(s.sync.names)
	return &row{
		ref: c.Ref, contact: c.Contact, newEmail: x.entry.Email, values: make([]lockstep.Value, n), old: make([]lockstep.Value, n),
		base: slices.Clone(x.entry.Base), parted: slices.Clone(x.entry.Apart), hash: x.entry.Hash, seen: x.entry.Seen, modified: x.entry.Modified,
		standing: x.entry.Standing, optIn: x.entry.OptIn, optOut: x.entry.OptOut, master: x.entry.Master, why: u.why, before: x,
	}
}

func (s *session) permittedUndo(r *row) bool {
	if s.sync.approved == nil {
		return true
	}
	changes, err := journal.Changes(s.encode([]row{*r}, lockstep.Planned))
	return err == nil && len(s.permitted(changes)) == 1
}

// undoRecord gives columns of a CRM record their old values back.
func (s *session) undoRecord(u *undoing, w *undoWork, c *lockstep.Change, x *subject) {
	plan := s.sync.plans[c.Ref.Table]
	out := recordUndo{change: lockstep.Change{Kind: lockstep.WriteRecord, State: lockstep.Planned, Ref: c.Ref, Contact: c.Contact, Why: u.why}}
	var after lockstep.Record
	for _, f := range c.Fields {
		i := -1
		if plan != nil {
			i = slices.IndexFunc(plan.t.Fields(), func(t transform.Field) bool { return t.Column() == f.Name })
		}
		if u.field != "" && f.Name != u.field && (i < 0 || plan.t.Labels()[i] != u.field) {
			continue
		}
		switch {
		case f.Name == lockstep.EmailColumn:
			s.notUndone(c, f.Name, "an address is not set back by an undo: mail and consent follow the address that the person has now", "change the address in Dynamics or on the platform; the other side follows")
			continue
		case slices.Contains(consentColumns, f.Name):
			s.notUndone(c, f.Name, "an opt-out is never taken back by an undo", "the person can opt in again")
			continue
		case i < 0:
			s.notUndone(c, f.Name, "no data label flows into the column any more", "map it again, then undo, or set the value by hand")
			continue
		case f.Old.IsAbsent():
			s.notUndone(c, f.Name, "what the record said before the run is not known", "set the value by hand")
			continue
		}
		if where, hint := s.usable(c, x); where != "" {
			s.movedSince(u, w, c, f.Name, lockstep.Value{}, f.Old, where, hint)
			continue
		}
		pos := plan.pos[i]
		now := plan.stored(x.rec, i)
		again, ours := u.own[undoKey{c.Ref, f.Name}]
		if now == f.Old && (!ours || again) {
			continue
		}
		if as, ok := plan.t.In(i, x.vals[i], nil); now != f.Old && now != f.New && !(ok && as == f.New) {
			s.movedSince(u, w, c, f.Name, now, f.Old, inCRM, askCRMSide)
			continue
		}
		platform := x.present(plan, i, pos)
		if where := s.unsynced(plan, x, i, pos, platform); where != "" && !ours {
			s.movedSince(u, w, c, f.Name, now, f.Old, where, askPlatformSide)
			continue
		}
		if len(out.change.Fields) == 0 {
			after, out.version = *x.rec, x.rec.Version
			after.Values = slices.Clone(x.rec.Values)
			out.before, out.after = x.entry, x.entry
			out.after.Base, out.after.Apart = slices.Clone(x.entry.Base), slices.Clone(x.entry.Apart)
		}
		after.Values[slices.Index(plan.t.Columns(), f.Name)] = f.Old
		vals := plan.t.Out(&after, nil, nil)
		setApart(&out.after, pos, vals[i], x.entry.Base[pos])
		out.change.Fields = append(out.change.Fields, lockstep.FieldChange{Name: f.Name, Old: f.New, New: f.Old})
	}
	if len(out.change.Fields) == 0 || len(s.permitted([]lockstep.Change{out.change})) == 0 {
		return
	}
	if x.hash == x.entry.Hash { // else an edit waits to be carried over, and goes on waiting
		out.after.Hash = transform.ContentHash(plan.t.Version(), lockstep.NormalizeEmail(after.Email), after.OptOut, after.Inactive, plan.t.Out(&after, nil, nil))
	}
	w.records[c.Ref.Table] = append(w.records[c.Ref.Table], out)
}

// consentColumns are what a record itself says about being mailed.
var consentColumns = []string{"donotemail", "donotbulkemail", "donotsendmm", "donotsendmarketingmaterial"}

// member returns what is remembered of a change's person in a list.
func (s *session) member(l *listState, ref lockstep.Ref, contact lockstep.ContactID) (crosswalk.Member, error) {
	if err := s.loadMembers(l); err != nil {
		return crosswalk.Member{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ref.Table != "" {
		m, _ := l.members.Record(ref.ID)
		m.Record = ref.ID
		return m, nil
	}
	m, _ := l.members.Stranger(contact)
	m.Contact = contact
	return m, nil
}

// undoBookAdd takes a contact out of a book that the run put it into.
func (s *session) undoBookAdd(u *undoing, w *undoWork, c *lockstep.Change, book lockstep.BookID) error {
	l := u.books[book]
	if l == nil {
		s.notUndone(c, "", "the address book does not belong to a marketing list any more", "take the contact out of it on the platform")
		return nil
	}
	m, err := s.member(l, c.Ref, c.Contact)
	if err != nil || !m.InBook || m.Contact != c.Contact {
		return err // it left the book since
	}
	out := lockstep.Change{Kind: lockstep.RemoveFromBook, State: lockstep.Planned, Ref: c.Ref, Contact: c.Contact, List: l.set.CRMID, Book: book, Why: u.why}
	if len(s.permitted([]lockstep.Change{out})) == 1 {
		w.removals[l] = append(w.removals[l], out)
	}
	return nil
}

// undoRemoval puts a contact back into a book that the run took it out of, unless
// the person does not want that.
func (s *session) undoRemoval(u *undoing, w *undoWork, c *lockstep.Change, x *subject) error {
	l := u.books[c.Book]
	if l == nil {
		s.notUndone(c, "", "the address book does not belong to a marketing list any more", "put the contact into it on the platform")
		return nil
	}
	m, err := s.member(l, c.Ref, c.Contact)
	if err != nil || m.InBook {
		return err
	}
	switch {
	case x == nil || !x.linked || x.entry.Contact != c.Contact:
		s.notUndone(c, "", "the contact is not known any more, so it was not put back into the address book", "put it into the address book on the platform")
		return nil
	case x.gone:
		s.movedSince(u, w, c, "", lockstep.Value{}, lockstep.Value{}, "by deleting the contact or giving it another address", askPlatformSide)
		return nil
	case c.Ref.Table != "" && (x.rec == nil || x.rec.Inactive):
		s.movedSince(u, w, c, "", lockstep.Value{}, lockstep.Value{}, "by deleting or deactivating the record", askCRMSide)
		return nil
	}
	if why := s.unwilling(l, m, x); why != "" {
		s.finding(lockstep.Finding{
			Code: lockstep.FindingBlockedByConsent, Table: c.Ref.Table, Record: c.Ref.ID, Contact: c.Contact, List: l.set.ID,
			Message: "not put back into the address book: " + why, Hint: "an undo never brings back somebody who does not want to be mailed; the person can opt in again",
		})
		return nil
	}
	r := s.undoRow(u, c, x)
	r.adds = []*listState{l}
	if s.permittedUndo(r) {
		w.rows = append(w.rows, *r)
	}
	return nil
}

// unwilling says why a person may not be put into a book.
func (s *session) unwilling(l *listState, m crosswalk.Member, x *subject) string {
	optOut := x.entry.OptOut
	if x.rec != nil {
		optOut |= x.rec.OptOut
	}
	s.mu.Lock()
	for _, k := range slices.Concat(s.sync.links.ByContact(x.entry.Contact, nil), s.sync.links.ByEmail(x.entry.Email, nil)) {
		if k.Ref != x.link.Ref {
			optOut |= k.OptOut
		}
	}
	s.mu.Unlock()
	if why, no := merge.Excluded(l.set.SubscriptionFilter, l.set.MinOptIn, optOut, x.entry.Standing, m.Unsubscribed, x.entry.OptIn); no {
		return why
	}
	switch {
	case s.bars(x.entry.Email, lockstep.DoNotBulkEmail):
		return merge.ExcludedSuppressed
	case m.Unsubscribed:
		return merge.ReasonLeftBook
	case !x.entry.Standing.Mailable():
		return merge.ReasonNotMailable
	case lockstep.CheckEmail(x.entry.Email) != "":
		return merge.ReasonNoEmail
	}
	return ""
}

// undoListMember takes a record off a marketing list that the run added it to, or the
// other way round.
func (s *session) undoListMember(u *undoing, w *undoWork, c *lockstep.Change) error {
	l := u.lists[c.List]
	if l == nil {
		s.notUndone(c, "", "the marketing list does not exist any more or has no address book", "")
		return nil
	}
	if l.crm.Locked || l.crm.Inactive {
		s.finding(l.finding(lockstep.FindingListUnusable, "the marketing list is locked or inactive, so its members stay", "unlock or reactivate it, then undo"))
		return nil
	}
	m, err := s.member(l, c.Ref, c.Contact)
	if err != nil {
		return err
	}
	out := lockstep.Change{Kind: lockstep.RemoveFromList, State: lockstep.Planned, Ref: c.Ref, Contact: c.Contact, List: c.List, Why: u.why}
	into := w.leave
	if c.Kind == lockstep.RemoveFromList {
		out.Kind, into = lockstep.AddToList, w.join
	}
	if m.InList == (out.Kind == lockstep.AddToList) {
		return nil // it is so already
	}
	if len(s.permitted([]lockstep.Change{out})) == 1 {
		into[l] = append(into[l], out)
	}
	return nil
}
