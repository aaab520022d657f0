package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/merge"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// listSync is what the list syncs know during one slice.
type listSync struct {
	lists   []*listState // of this run, in synchronisation order
	byTable map[string][]*listState
	plans   map[string]*tablePlan

	// names are the labels of all tables' mappings; a link's base has one value
	// for each, and contacts are read and written with these fields.
	names  []string
	bases  []string         // what bases call them
	absent []lockstep.Value // one Absent for each name

	links *crosswalk.Index

	// madeBooks are lists whose address book an earlier process planned to make.
	madeBooks map[lockstep.ID]bool

	// maybe are the changes, by contact, of imports that may have been carried out
	// or not, and doubtful the ends of batches that wait for settleDoubts.
	maybe    map[string][]lockstep.Change
	doubtful []lockstep.BatchEnd

	approved *approval // when a preview is applied

	// Memory that is used again and again on the way of a page.
	people  []person
	slab    valueSlab
	scratch []lockstep.Value

	inflight map[uint64]int // addresses on their way to becoming contacts
	writer   *writer
	// incomplete says why nothing may be removed in this run; empty = it may.
	incomplete string
	creates    int             // records created in this run
	moved      map[string]bool // tables whose feed delivered something
	// changed are the records that the feed of a table told of, as long as it told
	// of all that changed since the last run and of few.
	changed      map[string]*changedRecords
	resolve      map[resolveKey]lockstep.Conflict
	takenUp      map[resolveKey]bool // decisions that were carried out, or told of
	resolvedUpTo time.Time
	recheck      map[lockstep.Ref]bool                       // records to be looked at again because of another one
	looking      map[lockstep.Ref]bool                       // those of them that are being looked at
	refused      map[uint64]map[lockstep.Ref]lockstep.OptOut // by the key of the address: the words of records without a contact, met in this slice
	about        map[lockstep.Ref]uint64                     // the key of the address that a record's word in refused is about
	asked        map[lockstep.Ref]bool                       // records that were asked for their word, or met; true = what counts is in refused, not in their link
	looked       map[lockstep.Ref]int                        // in a preview: records that were looked at, and in how many lists each was then
	shown        map[lockstep.Ref]shown                      // in a preview: what linked records' contacts were said to be told
	held         bool                                        // a change was not written because it was not previewed so
	deleted      map[lockstep.ContactID]bool                 // contacts that turned out to be gone from the platform
	readdressed  map[lockstep.ContactID]bool                 // contacts that turned out to have another address than was read
	renamed      []renamed                                   // contacts that were given another address
	leaving      map[lockstep.Ref]string                     // records that have another address now than their contact
	settled      map[lockstep.Ref]bool                       // those of them that were looked at in this slice
	vacated      map[lockstep.Ref]vacancy                    // records that do not count for their contact any more
	leftBehind   []leftBehind                                // links of contacts that their record left
	there        map[lockstep.Ref]int64                      // records that speak for a contact, and were asked for and found: when they were changed last
	exchanged    map[lockstep.Ref]crosswalk.Entry
	parted       map[lockstep.Ref]lockstep.ContactID // records that leave a contact in this run
	elsewhere    map[lockstep.ContactID]bool         // contacts that have another address than their links tell
	// expected holds, in a preview, who would have been created under an address.
	expected map[uint64]expectation
	pages    int
	feeds    map[string][]feedRead // tables that are being read for the first time

	history history

	retries map[lockstep.Ref]lockstep.Retry // records that a side did not take
	again   map[lockstep.Ref]bool           // of them, those that this slice tries again: true = and were not taken

	staleLinks []staleLink
	closeLinks []crosswalk.Link

	barred  *barred
	mergers []merger

	sweeps    map[string]*sweep  // by table: readings of ids that did not come to their end
	unread    bool               // the feeds of the CRM have not been read yet: who refuses since is not known
	observing bool               // the step only reads who is in the lists, or failed in that
	blanks    map[string]*blanks // by table
	unblanked bool               // those set aside are being carried on with
	clearing  map[int]bool       // names of which somebody set aside would lose the value in the CRM
}

// valueSlab hands out slices of values from larger pieces of memory, so that the
// people of a page cost a few allocations and not some each.
type valueSlab struct{ free []lockstep.Value }

// take returns n absent values.
func (v *valueSlab) take(n int) []lockstep.Value {
	if len(v.free) < n {
		v.free = make([]lockstep.Value, max(n, 1024))
	}
	out := v.free[:n:n]
	v.free = v.free[n:]
	return out
}

// tablePlan is how records of one table become contacts and back.
type tablePlan struct {
	table string
	t     *transform.Plan
	query lockstep.RecordQuery
	pos   []int // index of each of the plan's labels in listSync.names
	rules []merge.Rule
	// cursor is the name under which the table's feed is kept; it changes with
	// the columns, so that a new column is read for everybody.
	cursor string
}

// stored is what a record has in the column that label i flows into, as it is there:
// the label form may be less exact.
func (t *tablePlan) stored(rec *lockstep.Record, i int) lockstep.Value {
	at := slices.Index(t.t.Columns(), t.t.Fields()[i].Column())
	if at < 0 || at >= len(rec.Values) {
		return lockstep.Value{}
	}
	return rec.Values[at]
}

// agree takes what the table's labels never agreed on for empty: of a contact that
// another table's record spoke for.
func (t *tablePlan) agree(base []lockstep.Value) {
	for _, pos := range t.pos {
		if base[pos].IsAbsent() {
			base[pos] = lockstep.NullValue()
		}
	}
}

// knows reports whether a base tells of all labels of the table: that of another table's
// record says nothing of those which its own table does not have, and the contact may.
func (t *tablePlan) knows(base []lockstep.Value) bool {
	return !slices.ContainsFunc(t.pos, func(pos int) bool { return base[pos].IsAbsent() })
}

// listState is one marketing list and its address book during a run.
type listState struct {
	set     lockstep.ListSettings
	crm     lockstep.MarketingList
	book    lockstep.AddressBook
	renewed bool // the book is a new one, so nobody is in it

	sum      listSummary
	members  *crosswalk.Members // who was where after the last run; loaded when needed
	observed *crosswalk.Observed
	fresh    bool // observed was read in this run
	// tables are those that a dynamic list's query reads; evaluatedAt is when that
	// began, and again is set when the feed then told of changes that the answer
	// may not know.
	tables      []string
	evaluatedAt time.Time
	again       bool
	// part is what an evaluation that did not come to its end has told so far.
	part *evaluation
	// decide tells of a record whether it is in a dynamic list, where that can be
	// told; see lockstep.MemberDecider. deciding is set while a feed that names every
	// record does so.
	decide   func(*lockstep.Record) bool
	deciding *deciding
	// stored is the summary as the last run left it, and owed is set while this
	// one has work for the list that would be forgotten if the process died; see
	// session.owe.
	stored   listSummary
	owed     debt
	begun    bool // an earlier slice of this run, in this process, left it as it is here
	checked  bool // its book was compared in this run
	failed   bool // could not be read; left alone in this run
	joined   bool // a membership of its own is newer than the last run's
	touched  bool // something about its members has to be looked at
	pending  *crosswalk.MemberBatch
	blobs    []int64 // stored payloads that members was read from
	removals []removal
	held     bool // a guard held removals back

	ruleText string // rules of ruleBook, once asked for
	ruleBook lockstep.BookID

	newStrangers bool
	admitted     int // strangers added to the marketing list in this run
}

type removal struct {
	member crosswalk.Member
	why    string
	also   []crosswalk.Member // other records of the same contact that leave with it
}

// listSummary is what a run keeps of a list so that the next one can tell
// cheaply whether anything happened.
type listSummary struct {
	CRMCount int `json:"crm_count"`        // the CRM's member counter when the members were last known
	Unread   int `json:"unread,omitempty"` // by how much that counter was greater than what was read
	// Apart is by how much the platform's counter was greater than the number of its
	// members that were read, when they last were; Believed, that it was so twice running.
	Apart     int       `json:"apart,omitempty"`
	Believed  bool      `json:"believed,omitempty"`
	InList    int       `json:"in_list"`
	Book      int       `json:"book"` // the platform's member counter that belongs to InBook
	InBook    int       `json:"in_book"`
	Strangers int       `json:"strangers"`
	Version   int64     `json:"version"`       // newest membership seen
	Row       int64     `json:"row,omitempty"` // version of the list itself
	FullAt    time.Time `json:"full_at"`
	Rules     string    `json:"rules"` // settings that decide membership
	Dirty     bool      `json:"dirty,omitempty"`
	// Renewed is set until a run has ended that filled a book made anew.
	Renewed bool `json:"renewed,omitempty"`
	// Query remembers the dynamic list's query and the feeds it was evaluated at.
	Query string `json:"query,omitempty"`
}

// counter is what the platform's counter says of so many members in the book.
func (sum *listSummary) counter(members int) int {
	if sum.Believed {
		return members + sum.Apart
	}
	return members
}

func (l *listState) cursor() string { return "list/" + l.set.ID }

func (l *listState) rules() string {
	if l.ruleText == "" || l.ruleBook != l.book.ID { // asked for every member
		l.ruleBook = l.book.ID
		l.ruleText = fmt.Sprint(l.set.MembershipAction, l.set.SubscriptionFilter, l.set.MinOptIn, l.set.MirrorRemovals, l.set.Dynamic, l.book.ID)
	}
	return l.ruleText
}

// ruled reports whether the rules of membership changed since the last sync, so that
// every member has to be looked at again.
func (l *listState) ruled() bool { return l.sum.Rules != "" && l.sum.Rules != l.rules() }

func (l *listState) finding(code, msg, hint string) lockstep.Finding {
	return lockstep.Finding{Code: code, Table: "list", Record: l.set.CRMID, List: l.set.ID, Message: msg, Hint: hint}
}

// has reports whether a record is in the marketing list now.
func (l *listState) has(id lockstep.ID) bool {
	if l.observed != nil {
		return l.observed.Has(id)
	}
	if l.deciding != nil && l.deciding.page[id] {
		return true
	}
	m, ok := l.members.Record(id)
	return ok && m.InList
}

func newListSync() *listSync {
	return &listSync{
		byTable: map[string][]*listState{}, plans: map[string]*tablePlan{}, inflight: map[uint64]int{},
		madeBooks: map[lockstep.ID]bool{}, maybe: map[string][]lockstep.Change{}, moved: map[string]bool{}, changed: map[string]*changedRecords{}, resolve: map[resolveKey]lockstep.Conflict{}, takenUp: map[resolveKey]bool{}, expected: map[uint64]expectation{}, deleted: map[lockstep.ContactID]bool{}, readdressed: map[lockstep.ContactID]bool{},
		leaving: map[lockstep.Ref]string{}, settled: map[lockstep.Ref]bool{}, vacated: map[lockstep.Ref]vacancy{}, exchanged: map[lockstep.Ref]crosswalk.Entry{}, elsewhere: map[lockstep.ContactID]bool{}, recheck: map[lockstep.Ref]bool{}, looking: map[lockstep.Ref]bool{}, there: map[lockstep.Ref]int64{}, refused: map[uint64]map[lockstep.Ref]lockstep.OptOut{}, about: map[lockstep.Ref]uint64{}, asked: map[lockstep.Ref]bool{}, looked: map[lockstep.Ref]int{}, shown: map[lockstep.Ref]shown{},
		blanks: map[string]*blanks{}, clearing: map[int]bool{}, feeds: map[string][]feedRead{}, again: map[lockstep.Ref]bool{},
		parted: map[lockstep.Ref]lockstep.ContactID{}, sweeps: map[string]*sweep{}, history: history{asking: make(chan struct{}, 1)},
	}
}

// syncLists is the run of address-books-in and, with outward, of marketing-lists.
func (s *session) syncLists(outward bool) error {
	s.sync = newListSync()
	unlock := s.e.cache.lock(s.account.ID)
	defer unlock()
	if err := s.beginAgain(); err != nil {
		return err
	}
	if err := s.chooseLists(); err != nil {
		return err
	}
	if len(s.sync.lists) == 0 {
		return nil // a list that is not activated never causes a call to the platform
	}
	s.estimate()
	if err := s.verifyLately(); err != nil {
		return err
	}
	if err := s.fieldsLately(); err != nil {
		return err
	}
	if err := s.compilePlans(); err != nil {
		return err
	}
	if outward {
		if err := s.consentStep(); err != nil {
			return err
		}
	}
	if err := s.loadBarred(); err != nil {
		return err
	}
	if err := s.loadLinks(); err != nil {
		return err
	}
	if err := s.loadRetries(); err != nil {
		return err
	}
	if err := s.loadApproval(); err != nil {
		return err
	}
	if outward {
		if err := s.confirmSettings(); err != nil {
			return err
		}
	}
	if err := s.recover(); err != nil {
		return err
	}
	if err := s.linkBooks(); err != nil {
		return err
	}
	for _, l := range s.sync.lists {
		s.sync.byTable[l.set.MemberTable] = append(s.sync.byTable[l.set.MemberTable], l)
		if err := s.loadSummary(l); err != nil {
			return err
		}
	}
	if err := s.takeUp(); err != nil {
		return err
	}
	s.sync.writer = newWriter(s)
	defer s.sync.writer.stop()
	s.sync.unread = true
	steps := []func() error{s.observing(s.observeStatic), s.observing(s.observeDynamicFirst), s.loadResolutions, s.inward, s.settleDoubts, s.strangers}
	if outward {
		steps = append(steps, s.related, s.newlyClosed, s.outward, s.blankings, s.observing(s.observeDynamicMoved), s.tidyLinks, s.latecomers, s.blankings, s.removeFromBooks, s.settle)
	}
	if !outward {
		steps = append(steps, s.blankings)
	}
	steps = append(steps, s.remark)
	for _, step := range steps {
		if err := s.checkpoint(); err != nil {
			return s.abandon(err)
		}
		if err := step(); err != nil {
			return s.abandon(err)
		}
		if err := s.sync.writer.drain(); err != nil {
			return s.abandon(err)
		}
	}
	if err := s.finishLists(outward); err != nil {
		return err
	}
	if err := s.compactLinks(); err != nil {
		return err
	}
	return s.verdict()
}

// observing is a step that reads who is in lists and writes nothing. When a call fails
// in it, the lists that were read before are as a slice leaves them that ends in order.
func (s *session) observing(step func() error) func() error {
	return func() error {
		s.sync.observing = true
		err := step()
		s.sync.observing = err != nil
		return err
	}
}

// abandon waits for what is on its way before a slice ends early, so that its
// outcome is stored and not asked for again. What was read is left to the next slice
// where there will be one.
func (s *session) abandon(cause error) error {
	if err := s.sync.writer.drain(); err != nil && !errors.Is(err, cause) && s.ctx.Err() == nil {
		return errors.Join(cause, err)
	}
	switch alive := s.ctx.Err() == nil; {
	case errors.Is(cause, errYield) && alive, transient(cause) && alive && s.sync.observing:
		s.hand(true)
	case transient(cause) || !alive:
		s.hand(false)
	}
	return cause
}

// compilePlans turns the mappings of each member table into a plan. A mapping that
// cannot work is suspended with a finding; the others go on.
func (s *session) compilePlans() error {
	if len(s.tables) == 0 {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "start run", Msg: "the CRM's metadata was never read", Hint: "run crm-metadata first"}
	}
	known := map[string]bool{}
	type compiled struct {
		plan *transform.Plan
		t    *lockstep.Table
	}
	all := map[string]compiled{}
	for _, name := range MemberTables {
		t := s.table(name)
		if t == nil {
			continue
		}
		plan, problems := transform.Compile(t, s.labels, s.mappings, transform.Options{MaxText: maxText, Related: transform.Related(t, s.tables)})
		for _, p := range problems {
			s.finding(lockstep.Finding{
				Code: lockstep.FindingMappingDisabled, Table: name, Field: p.Mapping.Column,
				Message: fmt.Sprintf("the mapping of label %s is suspended: %s", p.Mapping.Label, p.Err.Msg), Hint: p.Err.Hint,
			})
		}
		all[name] = compiled{plan, t}
		for _, l := range plan.Labels() {
			known[l] = true
		}
	}
	for l := range known {
		s.sync.names = append(s.sync.names, l)
	}
	slices.Sort(s.sync.names)
	for _, l := range s.sync.names {
		s.sync.bases = append(s.sync.bases, s.label(l).BaseName())
	}
	s.sync.absent = make([]lockstep.Value, len(s.sync.names))
	for name, c := range all {
		tp := &tablePlan{table: name, t: c.plan, query: lockstep.RecordQuery{Table: name, Columns: c.plan.Columns()}}
		for _, f := range c.plan.Fields() {
			tp.rules = append(tp.rules, merge.NewRule(f.Out, f.In, f.OutDefault, f.InDefault, f.Required))
		}
		for _, l := range c.plan.Labels() {
			i, _ := slices.BinarySearch(s.sync.names, l)
			tp.pos = append(tp.pos, i)
		}
		tp.cursor = fmt.Sprintf("records/%s/%016x", name, c.plan.Version())
		s.sync.plans[name] = tp
	}
	for _, l := range s.sync.lists {
		if s.sync.plans[l.set.MemberTable] == nil {
			return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "start run", Msg: "the organization has no table " + l.set.MemberTable, Hint: "run crm-metadata again"}
		}
	}
	return nil
}

// maxText is the most characters that a text field of the platforms holds.
const maxText = 1000

func (s *session) loadSummary(l *listState) error {
	c, err := s.e.Store.Cursor(s.ctx, s.account.ID, l.cursor())
	if err != nil {
		return err
	}
	if c != "" {
		if err := json.Unmarshal([]byte(c), &l.sum); err != nil {
			l.sum = listSummary{}
		}
	}
	if l.crm.Version != 0 && l.crm.Version < l.sum.Row {
		return s.setBack(fmt.Sprintf("version %d of the list %q instead of %d", l.crm.Version, l.set.Name, l.sum.Row))
	}
	if l.renewed || l.sum.Renewed {
		l.renewed, l.sum = true, listSummary{Renewed: true}
	}
	l.stored = l.sum
	return nil
}

// debt is what a list is owed by the next run if this one does not end.
type debt uint8

const (
	owesNothing debt = iota
	owesNote         // not stored yet
	owesNoted        // stored
)

// owe sees to it that a list is looked at in full by whoever works on it next,
// unless this run ends and says otherwise. It is stored with the next commit, so
// ahead of or together with the cursor of the feed that gave rise to it: without
// it the feed would not tell again what a dying process only remembered. The
// caller holds s.mu.
func (s *session) owe(l *listState) {
	if l.owed == owesNothing && !s.dry() {
		l.owed = owesNote
	}
}

// oweStrangers notes that somebody is in the list's book whom nobody has seen to. What
// was stored of the list earlier in this run does not say so: it is stored again. The
// caller holds s.mu.
func (s *session) oweStrangers(l *listState) {
	if !l.newStrangers && l.owed == owesNoted {
		l.owed = owesNote
	}
	l.newStrangers = true
	s.owe(l)
}

// owedCursors are the summaries that commit stores for owe. The caller holds s.mu.
func (s *session) owedCursors(into map[string]lockstep.Cursor) (map[string]lockstep.Cursor, error) {
	if s.sync == nil {
		return into, nil
	}
	cloned := false
	for _, l := range s.sync.lists {
		if l.owed != owesNote {
			continue
		}
		l.owed = owesNoted
		if _, has := into[l.cursor()]; has {
			continue
		}
		sum := l.stored
		sum.Dirty = true
		if l.newStrangers {
			sum.Strangers = max(sum.Strangers, 1)
		}
		b, err := json.Marshal(sum)
		if err != nil {
			return into, err
		}
		if !cloned {
			if into = maps.Clone(into); into == nil {
				into = map[string]lockstep.Cursor{}
			}
			cloned = true
		}
		into[l.cursor()] = lockstep.Cursor(b)
	}
	return into, nil
}

// loadMembers reads who was where after the last run.
func (s *session) loadMembers(l *listState) error {
	if l.members != nil {
		return nil
	}
	m := crosswalk.NewMembersSized(l.sum.InList + l.sum.Strangers)
	err := s.e.Store.Members(s.ctx, l.set.ID, func(b lockstep.StoredBlob) error {
		l.blobs = append(l.blobs, b.ID)
		return m.Add(b.Payload)
	})
	if err != nil {
		return err
	}
	if l.renewed && !l.begun {
		for _, member := range slices.Collect(m.All()) {
			member.InBook = false
			m.Set(member)
			if !s.dry() {
				l.note(member)
			}
		}
	}
	l.members = m
	return nil
}

// put notes a member's new state; it is stored with the next commit.
func (l *listState) put(m crosswalk.Member) {
	l.members.Set(m)
	l.note(m)
}

func (l *listState) note(m crosswalk.Member) {
	if l.pending == nil {
		l.pending = crosswalk.NewMemberBatch()
	}
	l.pending.Append(m)
}

// takePending returns the members waiting to be stored. The caller holds s.mu.
func (s *session) takePending() []lockstep.MemberBlob {
	var out []lockstep.MemberBlob
	for _, l := range s.sync.lists {
		if l.pending != nil && l.pending.Len() > 0 {
			out = append(out, lockstep.MemberBlob{List: l.set.ID, Payload: l.pending.Bytes()})
			l.pending = nil
		}
	}
	return out
}

// linkCache keeps each account's links in memory between runs of one process and
// lets one run at a time work on an account.
type linkCache struct {
	mu       sync.Mutex
	accounts map[string]*cachedLinks
}

type cachedLinks struct {
	busy  sync.Mutex
	index *crosswalk.Index
	last  int64
	blobs map[int64]int // blob → entries

	barred  *barred
	left    *resumption
	breaker breaker
}

func (c *linkCache) of(account string) *cachedLinks {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accounts == nil {
		c.accounts = map[string]*cachedLinks{}
	}
	if c.accounts[account] == nil {
		c.accounts[account] = &cachedLinks{}
	}
	return c.accounts[account]
}

func (c *linkCache) lock(account string) (unlock func()) {
	l := c.of(account)
	l.busy.Lock()
	return l.busy.Unlock
}

// loadLinks brings the account's links into memory: everything the first time,
// afterwards what was stored since.
func (s *session) loadLinks() error {
	c := s.e.cache.of(s.account.ID)
	if c.index == nil {
		c.index, c.last, c.blobs = crosswalk.NewIndex(), 0, map[int64]int{}
	}
	s.sync.links = c.index
	read := func() error {
		return s.e.Store.Links(s.ctx, s.account.ID, c.last, func(b lockstep.StoredBlob) error { return c.add(b.ID, b.Payload) })
	}
	err := read()
	if lockstep.CodeOf(err) == lockstep.CodeExpired { // somebody was erased: batches were written anew
		c.index, c.last, c.blobs = crosswalk.NewIndex(), 0, map[int64]int{}
		s.sync.links = c.index
		err = read()
	}
	if err != nil {
		c.index = nil // read from the beginning next time
	}
	return err
}

// learn takes in links that this run stored: nobody else stores links of the account
// meanwhile. The caller holds s.mu.
func (s *session) learn(ids []int64, payloads [][]byte) error {
	c := s.e.cache.of(s.account.ID)
	for i, id := range ids {
		if err := c.add(id, payloads[i]); err != nil {
			c.index = nil // read from the beginning next time
			return err
		}
	}
	return nil
}

func (c *cachedLinks) add(id int64, payload []byte) error {
	if c.index == nil {
		return nil // an earlier failure; the run ends
	}
	if err := c.index.Add(id, payload); err != nil {
		return err
	}
	c.last = id
	c.blobs[id] = len(payload)
	return nil
}
