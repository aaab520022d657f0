package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// Reasons of changes, as people read them.
const (
	whyNew      = "new member"
	whyLinked   = "first link to an existing contact"
	whyChanged  = "changed in the CRM"
	whyRenamed  = "the address changed in the CRM"
	whyDecided  = "a person decided a conflict"
	whyPlatform = "changed on the platform"
	whyMoved    = "the record belongs to another contact now"
	whyMerged   = "the record was merged into another one"
	whyInactive = "the record is inactive"
	whyGone     = "the contact was deleted on the platform"
	whyDeleted  = "the record was deleted"
	whyExcluded = "excluded from the list"
	whyLapsed   = "the record is inactive or has no usable address"
	whyAddress  = "the platform does not give the contact its record's address"
)

type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeConflict
	outcomeRejected
	outcomeHeld // the record was written too often; see breaker
)

type timeValue = time.Time

type undoBase struct {
	pos         int
	base, apart lockstep.Value
}

// row is what one record's contact has to be told, and what becomes of the link
// once the platform has said yes.
type row struct {
	ref      lockstep.Ref
	contact  lockstep.ContactID // empty = not on the platform yet
	email    string             // to be set on the platform; empty = leave it
	newEmail string             // the agreed address afterwards; empty = email
	oldEmail string             // that email replaces
	values   []lockstep.Value   // to be written, by position in names; nil = none
	old      []lockstep.Value
	base     []lockstep.Value // agreed afterwards
	parted   []lockstep.Value // what the CRM says where an undo set the sides apart; nil = nowhere
	hash     transform.Hash128
	seen     uint64 // what the platform will say of the contact afterwards
	modified int64
	standing lockstep.Standing
	optIn    lockstep.OptInType
	optOut   lockstep.OptOut
	master   bool
	why      string
	adds     []*listState
	demote   []crosswalk.Link
	undo     []undoBase
	closes   []lockstep.Ref // the placeholder of the contact, or the links of records that had it before
	outcome  outcome
	// apart is set while the platform has a value that is not the base: a held
	// conflict, or one that the CRM did not take. The platform is then asked before
	// the record is merged again.
	apart    bool
	keepOnly bool // nothing is sent; not even a link is made when there is none

	hearsay bool   // the record was asked beside its page, on which it may have got a link
	claims  bool   // others with the address wait until the row is stored
	claim   uint64 // the key of that address
	shown   bool   // a preview said so already that the contact would be made
	place   int    // in its batch, by when it came there

	before *subject // of an undo
	result *lockstep.ContactResult
	state  lockstep.ChangeState
	cause  string
}

// partedAt is what the CRM says of a label on which the sides were set apart; Absent
// when they were not.
func (r *row) partedAt(pos int) lockstep.Value {
	if r.parted == nil {
		return lockstep.Value{}
	}
	return r.parted[pos]
}

// part notes what the CRM says of a label on which the sides are apart; Absent ends
// that.
func (r *row) part(pos int, crm lockstep.Value) {
	if r.parted == nil {
		if crm.IsAbsent() {
			return
		}
		r.parted = make([]lockstep.Value, len(r.base))
	}
	r.parted[pos] = crm
}

// sends reports whether the platform has to be told anything.
func (r *row) sends() bool {
	if r.keepOnly {
		return false
	}
	return len(r.adds) > 0 || r.changes()
}

// changes reports whether the row says something of the contact itself.
func (r *row) changes() bool {
	if r.email != "" && r.contact != "" {
		return true
	}
	for i := range r.values {
		if !r.values[i].IsAbsent() {
			return true
		}
	}
	return false
}

// writer carries batches to the platform, a few at a time, and commits their
// outcomes in the order in which they were filled, so that a stored cursor never
// covers work that is not done.
type writer struct {
	s    *session
	cur  *batch
	slot chan struct{}
	wg   sync.WaitGroup
	last chan struct{} // closed when the batch before has committed
	plan chan struct{} // closed when the batch before is in the journal

	mu    sync.Mutex
	err   error
	spare [][]row // of batches that are done
}

// recycle keeps the memory of a batch that is done for the next one.
func (w *writer) recycle(b *batch) {
	clear(b.rows)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.spare) < w.s.e.InFlight {
		w.spare = append(w.spare, b.rows[:0])
	}
}

// next starts a batch.
func (w *writer) next() *batch {
	b := &batch{}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.spare); n > 0 {
		b.rows, w.spare = w.spare[n-1], w.spare[:n-1]
	}
	return b
}

func newWriter(s *session) *writer {
	done := make(chan struct{})
	close(done)
	return &writer{s: s, cur: &batch{}, slot: make(chan struct{}, s.e.InFlight), last: done, plan: done}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
}

// queue hands a person's row to the current batch and reports whether the platform
// will be told anything.
func (s *session) queue(p *person) (bool, error) {
	r := &p.row
	s.release(p)
	delete(s.sync.looking, p.rec.Ref)
	s.leaveBehind(leftBehind{link: p.former})
	if p.adopted && p.link.Ref.Table == "" {
		r.closes = append(r.closes, p.link.Ref)
	}
	for _, k := range p.vacated {
		r.closes = append(r.closes, k.Ref)
	}
	if r.contact == "" && r.standing == lockstep.ContactDeleted {
		if !s.dry() {
			s.sync.writer.cur.note(*r)
		}
		return false, s.sync.writer.fill()
	}
	if r.contact == "" && (r.keepOnly || len(r.adds) == 0) {
		if p.link.Ref == p.rec.Ref && !p.linked && !s.dry() && (p.group == 0 || p.noEmail != "") {
			s.mu.Lock()
			s.sync.closeLinks = append(s.sync.closeLinks, p.link) // it left its contact for nobody's
			s.mu.Unlock()
		}
		return false, s.refuse(p)
	}
	s.expect(p)
	w := s.sync.writer
	// Until its link is stored nobody else with the address finds the contact, or knows
	// who speaks for it and what was said: two in one import would both write to it.
	r.claims = r.contact == "" || r.email != "" || p.adopted || r.changes()
	if !r.sends() || !s.permittedRow(r) {
		if r.contact == "" {
			if p.link.Ref == p.rec.Ref && !s.dry() {
				s.stale(p.link, false)
			}
			return false, nil
		}
		if !s.dry() {
			s.keepClaim(r)
			w.cur.note(*r)
		}
		return false, w.fill()
	}
	s.keepClaim(r)
	if n := len(w.cur.rows); n == cap(w.cur.rows) {
		// Rows are large: a few steps to the full size instead of many.
		w.cur.rows = slices.Grow(w.cur.rows, max(64, min(3*n, s.e.ImportRows-n)))
	}
	w.cur.send(*r)
	return true, w.fill()
}

// keepClaim keeps others with the row's address waiting until the row is stored.
func (s *session) keepClaim(r *row) {
	if r.claims {
		r.claim = crosswalk.EmailKey(r.address())
		s.mu.Lock()
		s.sync.inflight[r.claim]++
		s.mu.Unlock()
	}
}

// expect works out what the platform will say of the contact once the row was
// written, so that the echo of it is recognised.
func (s *session) expect(p *person) {
	r := &p.row
	if s.sync.scratch == nil {
		s.sync.scratch = make([]lockstep.Value, len(s.sync.names))
	}
	values := s.sync.scratch
	clear(values)
	switch {
	case p.plat != nil:
		copy(values, p.plat.Values)
	case p.linked || p.adopted:
		copy(values, p.entry.Base)
	}
	for i, v := range r.values {
		if !v.IsAbsent() {
			values[i] = v
		}
	}
	standing := r.standing
	if r.contact == "" {
		standing = lockstep.Subscribed
	}
	r.seen = seenHash(r.address(), standing, r.optIn, values)
	if p.plat != nil && !r.sends() {
		r.seen = contactHash(p.plat)
	}
	if r.apart {
		r.seen = 0
	}
}

func (r *row) address() string {
	if r.newEmail != "" {
		return r.newEmail
	}
	return r.email
}

// release ends the time in which a page's person keeps others with the same
// address waiting; a row on its way to the platform goes on doing so.
func (s *session) release(p *person) {
	if p.claim != 0 {
		s.letGo(p.claim)
		p.claim = 0
	}
}

// letGo gives back what was claimed, by its key: the address of who claimed it may be
// another one by now.
func (s *session) letGo(k uint64) {
	s.mu.Lock()
	if s.sync.inflight[k]--; s.sync.inflight[k] <= 0 {
		delete(s.sync.inflight, k)
	}
	s.mu.Unlock()
}

// fill sends the current batch once it is full.
func (w *writer) fill() error {
	if len(w.cur.rows) < w.s.e.ImportRows && len(w.cur.quiet) < 4*w.s.e.ImportRows {
		return nil
	}
	return w.flush()
}

// at notes that everything read up to cursor is in this batch or an earlier one.
func (w *writer) at(name string, c lockstep.Cursor) {
	if w.cur.cursors == nil {
		w.cur.cursors = map[string]lockstep.Cursor{}
	}
	w.cur.cursors[name] = c
}

// flush starts the current batch on its way.
func (w *writer) flush() error {
	if err := w.failed(); err != nil {
		return err
	}
	b := w.cur
	// Once the batch is stored nobody reads its records again: what was noted about
	// their opt-outs has to be stored before.
	if err := w.s.remark(); err != nil {
		return err
	}
	if err := w.s.bar(b); err != nil {
		return err
	}
	if err := w.markConcerned(b); err != nil {
		return err
	}
	w.cur = w.next()
	if len(b.rows) == 0 && len(b.quiet) == 0 && len(b.cursors) == 0 {
		return nil
	}
	select {
	case w.slot <- struct{}{}:
	case <-w.s.ctx.Done():
		return w.s.ctx.Err()
	}
	before, after, turn, planned := w.last, make(chan struct{}), w.plan, make(chan struct{})
	w.last, w.plan = after, planned
	w.wg.Go(func() {
		defer func() { close(after); <-w.slot }()
		err := w.carry(b, before, turn, planned)
		for _, rows := range [][]row{b.rows, b.quiet} {
			for i := range rows {
				if rows[i].claims {
					w.s.letGo(rows[i].claim)
				}
			}
		}
		if err != nil {
			w.fail(err)
		}
		w.recycle(b)
	})
	return nil
}

// drain sends what is left and waits until everything is acknowledged and stored.
func (w *writer) drain() error {
	ferr := w.flush()
	w.wg.Wait()
	if err := w.failed(); err != nil {
		return err
	}
	return ferr
}

// busy reports whether anything is on its way, or waits to be.
func (w *writer) busy() bool {
	return len(w.slot)+len(w.cur.rows)+len(w.cur.quiet)+len(w.cur.cursors) > 0
}

// stop waits for what is on its way.
func (w *writer) stop() { w.wg.Wait() }

// journal stores what a batch is about to say, in the order in which the batches were
// filled: turn is closed when the one before is in the journal, planned afterwards.
func (w *writer) journal(b *batch, turn <-chan struct{}, planned chan<- struct{}) (err error) {
	defer close(planned)
	if len(b.rows) == 0 {
		<-turn
		return nil
	}
	payload := w.s.encode(b.rows, lockstep.Planned)
	<-turn
	b.id, err = w.s.plan(lockstep.WriteContact, payload, len(b.rows))
	return err
}

// carry takes one batch from journal to acknowledgement.
func (w *writer) carry(b *batch, before, turn <-chan struct{}, planned chan<- struct{}) error {
	s := w.s
	if err := w.journal(b, turn, planned); err != nil {
		return err
	}
	if s.dry() {
		s.countRows(b.rows)
		<-before
		return s.commit(lockstep.Commit{})
	}
	var refusedAll error
	if len(b.rows) > 0 {
		if err := s.send(b); err != nil {
			if lockstep.ScopeOf(err) == lockstep.ScopeConnection || transient(err) || s.ctx.Err() != nil {
				return err
			}
			refusedAll = err
		}
	}
	<-before
	if err := w.failed(); err != nil {
		return err // an earlier batch is not stored, so nothing that follows may be
	}
	return s.acknowledge(b, refusedAll)
}

// send hands the rows to the platform and reads what became of each.
func (s *session) send(b *batch) error {
	writes := make([]lockstep.ContactWrite, len(b.rows))
	for i := range b.rows {
		r := &b.rows[i]
		cw := &writes[i]
		cw.Contact, cw.Values = r.contact, r.values
		if cw.Values == nil {
			cw.Values = s.sync.absent
		}
		if r.contact == "" || r.email != "" {
			cw.Email = r.address()
		}
		if i > 0 && slices.Equal(r.adds, b.rows[i-1].adds) {
			cw.Books = writes[i-1].Books // most people join the same books
			continue
		}
		for _, l := range r.adds {
			cw.Books = append(cw.Books, l.book.ID)
		}
	}
	for attempt := 0; ; attempt++ {
		s.e.step("import.before")
		job, err := s.platform.Import(s.ctx, s.sync.names, writes)
		if err == nil {
			s.e.step("import.after")
			b.job = job
			break
		}
		var le *lockstep.Error
		if !errors.As(err, &le) || attempt >= 5 || !transient(err) {
			return err
		}
		// Repeating is safe: rows are matched by address or id and set to values.
		if err := s.e.Sleep(s.ctx, max(le.After, time.Duration(attempt+1)*200*time.Millisecond)); err != nil {
			return err
		}
	}
	s.e.step("sent.before")
	if err := s.e.Store.MarkSent(s.ctx, b.id, b.job); err != nil {
		return err
	}
	s.e.step("await.before")
	ctx, stop := s.within(time.Minute)
	defer stop()
	match := newMatcher(b.rows)
	err := s.platform.AwaitImport(ctx, b.job, func(results []lockstep.ContactResult) error {
		for i := range results {
			match.take(&results[i])
		}
		return nil
	})
	if err != nil && ctx.Err() != nil && s.ctx.Err() == nil {
		return errYield // the import goes on; the next slice asks again
	}
	if err == nil {
		s.e.step("await.after")
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// matcher finds the row that a result is about. Results come mostly in the order
// of the rows, so the next row is tried first.
type matcher struct {
	rows []row
	next int
	byID map[string]int
}

func newMatcher(rows []row) *matcher { return &matcher{rows: rows} }

func (m *matcher) is(r *row, res *lockstep.ContactResult) bool {
	if r.contact != "" {
		return r.contact == res.Contact && (res.Email == "" || r.address() == res.Email)
	}
	return r.address() == res.Email
}

func (m *matcher) take(res *lockstep.ContactResult) {
	if m.next < len(m.rows) && m.is(&m.rows[m.next], res) {
		m.set(m.next, res)
		m.next++
		return
	}
	if m.byID == nil {
		m.byID = make(map[string]int, len(m.rows))
		for i := range m.rows {
			if m.rows[i].contact != "" {
				m.byID["#"+string(m.rows[i].contact)] = i
			} else {
				m.byID[m.rows[i].address()] = i
			}
		}
	}
	// The address first: it may be that of a contact which another row was to give
	// another one, and which was not given it.
	i, ok := m.byID[res.Email]
	if !ok {
		i, ok = m.byID["#"+string(res.Contact)]
	}
	if !ok {
		return // about nobody of ours
	}
	m.set(i, res)
	m.next = i + 1
}

func (m *matcher) set(i int, res *lockstep.ContactResult) {
	if old := m.rows[i].result; old != nil && old.Fault != nil {
		if old.Contact == "" {
			old.Contact = res.Contact
		}
		return // a fault is not undone by a later mention
	}
	kept := *res
	m.rows[i].result = &kept
}

// acknowledge stores what became of a batch: journal, links, members, cursors.
func (s *session) acknowledge(b *batch, refusedAll error) error {
	var c lockstep.Commit
	var counts lockstep.Counts
	links := newLinkChunks(s.sync.bases)
	s.mu.Lock()
	written, now := s.breaker(), s.e.Now()
	touched := map[*listState]bool{}
	var findings []lockstep.Finding
	state := lockstep.Acknowledged
	if refusedAll != nil {
		state = lockstep.Refused
	}
	for i := range b.rows {
		r := &b.rows[i]
		switch {
		case b.lost(refusedAll):
			r.state, r.cause = lockstep.Unknown, lockstep.AsError(refusedAll).Msg
		case refusedAll != nil:
			r.state, r.cause = lockstep.Refused, lockstep.AsError(refusedAll).Msg
		case r.result == nil:
			r.state, r.cause = lockstep.Unknown, "the platform's result does not mention this contact"
			state = lockstep.Unknown // the next run meets whom the import made and put into books
		case r.result.Fault != nil:
			r.state, r.cause = lockstep.Refused, r.result.Fault.Msg
			if r.contact == "" {
				r.contact = r.result.Contact // it is there, although not all of the row was taken
			}
		default:
			r.state = lockstep.Acknowledged
		}
		if r.state != lockstep.Acknowledged {
			findings = append(findings, s.refused(r))
			if r.oldEmail != "" && r.result != nil && r.result.Fault != nil && r.result.Fault.Field == "email" {
				s.outdated(r)
			}
			counts.Rejected++
			counts.Written--
			// Whether an address is taken changes with somebody else's, so that a contact
			// which could not be renamed is tried again.
			if l, ok := s.linkOf(r.ref); ok && (r.state == lockstep.Unknown || r.oldEmail != "") {
				s.sync.staleLinks = append(s.sync.staleLinks, staleLink{link: l, platform: true, waits: r.state == lockstep.Refused && s.waits(r.ref)})
			}
			continue
		}
		if r.result.Created {
			counts.ContactsCreated++
		} else {
			counts.ContactsUpdated++
		}
		counts.BookAdds += int64(len(r.adds))
		if r.contact != "" && r.changes() {
			written.wrote(r.ref, s.run.ID, toPlatform, now)
		}
		if r.contact == "" {
			r.contact = r.result.Contact
			r.standing = lockstep.Subscribed
			delete(s.sync.deleted, r.contact) // a platform may restore the contact that the address had
			if !r.result.Created {
				r.meets()
			}
		}
		if r.oldEmail != "" && r.email != "" && (r.standing == lockstep.Subscribed || r.standing == lockstep.SoftBounced) {
			s.sync.renamed = append(s.sync.renamed, renamed{r.contact, r.address()})
		}
		s.took(r.ref)
		for _, l := range r.adds {
			l.put(crosswalk.Member{Record: r.ref.ID, Contact: r.contact, InList: true, InBook: true})
			touched[l] = true
		}
	}
	for r, quiet := range b.inOrder() {
		switch {
		case quiet && (!r.hearsay || !s.met(b, r.ref)), !quiet && r.state == lockstep.Acknowledged:
			s.linkEntries(links, r)
		case !quiet && r.state == lockstep.Refused && r.contact != "":
			s.linkRefused(links, r)
		}
	}
	c.Members = s.takePending()
	s.counts.Add(counts)
	s.mu.Unlock()
	for _, f := range findings {
		s.rejected(f)
	}
	if len(b.rows) > 0 && !b.lost(refusedAll) { // else it stays open, and the next run finds out
		c.Batches = []lockstep.BatchEnd{{ID: b.id, State: state, Payload: s.encode(b.rows, 0)}}
	}
	c.Links = links.payloads()
	c.Cursors = maps.Clone(b.cursors)
	return s.commit(c)
}

// meets notes that an import wrote to a contact which nobody knew of: what was not
// written there is not known, and is looked at.
func (r *row) meets() {
	for i := range r.base {
		if i >= len(r.values) || r.values[i].IsAbsent() {
			r.base[i] = lockstep.Value{}
		}
	}
	r.hash, r.seen = transform.Hash128{}, 0
}

// met reports whether a record has a link, or gets one by a batch. The caller holds s.mu.
func (s *session) met(b *batch, ref lockstep.Ref) bool {
	_, linked := s.sync.links.ByRef(ref)
	return linked || slices.ContainsFunc(b.rows, func(r row) bool { return r.ref == ref })
}

// linkRefused links a record to the contact that was found for it although the platform
// took nothing: who speaks for the contact is decided once, and not again by each record
// that shares it. Of a link that there is already, the address which was found to be
// agreed on is kept. The caller holds s.mu.
func (s *session) linkRefused(links *linkChunks, r *row) {
	if l, ok := s.linkOf(r.ref); ok && l.Contact == r.contact {
		if r.email != "" {
			return // as it is
		}
		r.hash = transform.Hash128{1} // fits no content, and asks for no look at it
	}
	if r.values != nil {
		r.base = r.old
	}
	r.seen = 0 // a part of it may have been taken
	s.linkEntries(links, r)
}

// outdated takes a contact that keeps an address which is its record's no more out of
// its books until it can be given the new one: with what is sent to the old address
// somebody else would be mailed. The caller holds s.mu.
func (s *session) outdated(r *row) {
	for _, l := range s.sync.byTable[r.ref.Table] {
		if l.failed || l.members == nil {
			continue
		}
		m, ok := l.members.Record(r.ref.ID)
		if !ok || !m.InBook || !l.has(r.ref.ID) || m.Contact != r.contact { // who left the list leaves the book anyway
			continue
		}
		m.Excluded, m.Lapsed = true, true
		l.put(m)
		l.removals = append(l.removals, removal{member: m, why: whyAddress})
		s.owe(l)
	}
}

// refused notes why a row was not taken and keeps its member out until the record
// changes or is tried again: asking at once with the same words gets the same answer.
func (s *session) refused(r *row) lockstep.Finding {
	for _, l := range r.adds {
		if r.state == lockstep.Refused {
			l.put(crosswalk.Member{Record: r.ref.ID, Contact: r.contact, InList: true, Excluded: true})
		} else {
			l.sum.Dirty = true
			s.owe(l)
		}
	}
	f := lockstep.Finding{Code: lockstep.FindingRejected, Table: r.ref.Table, Record: r.ref.ID, Contact: r.contact, Message: "the platform refused the contact: " + r.cause}
	if r.state == lockstep.Unknown {
		f.Message = "it is not known whether the platform took the contact: " + r.cause
	}
	if r.result != nil && r.result.Fault != nil {
		f.Hint = r.result.Fault.Hint
	}
	return f
}

// linkEntries appends the link of an acknowledged row. The caller holds s.mu.
func (s *session) linkEntries(links *linkChunks, r *row) {
	e := crosswalk.Entry{
		Ref: r.ref, Contact: r.contact, Email: r.address(), Standing: r.standing, OptIn: r.optIn, OptOut: r.optOut, Master: r.master,
		Hash: r.hash, Seen: r.seen, Modified: r.modified, Base: r.base, Apart: r.parted,
	}
	links.add(e)
	for _, ref := range r.closes {
		links.add(crosswalk.Entry{Ref: ref, Closed: true})
	}
	for _, d := range r.demote {
		links.add(crosswalk.Entry{
			Ref: d.Ref, Contact: d.Contact, Email: e.Email, Standing: r.standing, OptIn: r.optIn, OptOut: d.OptOut,
			Seen: r.seen, Modified: r.modified, Base: r.base,
		})
	}
}

// linkChunks collects links into payloads small enough that one of them is read
// quickly.
type linkChunks struct {
	names []string
	cur   *crosswalk.Batch
	out   [][]byte
}

func newLinkChunks(names []string) *linkChunks { return &linkChunks{names: names} }

func (c *linkChunks) add(e crosswalk.Entry) {
	if c.cur == nil {
		c.cur = crosswalk.NewBatch(c.names)
	}
	c.cur.Append(e)
	if c.cur.Len() >= crosswalk.ChunkEntries {
		c.out = append(c.out, c.cur.Bytes())
		c.cur.Reset()
	}
}

func (c *linkChunks) payloads() [][]byte {
	if c.cur != nil && c.cur.Len() > 0 {
		c.out, c.cur = append(c.out, c.cur.Bytes()), nil
	}
	return c.out
}

// journals keeps the buffers in which payloads grow.
var journals = sync.Pool{New: func() any { return &journal.Writer{} }}

// encode is the journal payload of rows. state overrides each row's own when set.
func (s *session) encode(rows []row, state lockstep.ChangeState) []byte {
	w := journals.Get().(*journal.Writer)
	defer journals.Put(w)
	w.Reset()
	var fields []lockstep.FieldChange
	var books []lockstep.BookID
	for i := range rows {
		r := &rows[i]
		fields, books = fields[:0], books[:0]
		if r.oldEmail != "" && r.email != "" && r.contact != "" {
			fields = append(fields, lockstep.FieldChange{Name: emailLabel, Old: lockstep.TextValue(r.oldEmail), New: lockstep.TextValue(r.email)})
		}
		for j, v := range r.values {
			if !v.IsAbsent() {
				f := lockstep.FieldChange{Name: s.sync.names[j], New: v}
				if r.old != nil {
					f.Old = r.old[j]
				}
				fields = append(fields, f)
			}
		}
		for _, l := range r.adds {
			books = append(books, l.book.ID)
		}
		c := lockstep.Change{Kind: lockstep.WriteContact, State: state, Ref: r.ref, Contact: r.contact, Email: r.address(), Books: books, Fields: fields, Why: r.why, Cause: r.cause}
		if state == 0 {
			c.State = r.state
		}
		w.Add(&c)
	}
	return w.Payload()
}

// countRows counts what a preview would write.
func (s *session) countRows(rows []row) {
	var n lockstep.Counts
	for i := range rows {
		if rows[i].contact == "" && !rows[i].shown {
			n.ContactsCreated++
		} else {
			n.ContactsUpdated++
		}
		n.BookAdds += int64(len(rows[i].adds))
	}
	s.count(n)
}
