package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// session is one slice's work on one run.
type session struct {
	e        *Engine
	ctx      context.Context
	run      lockstep.Run
	deadline time.Time
	budget   time.Duration
	begun    bool // the first checkpoint was passed
	meter    *lockstep.Meter

	org      lockstep.Organization
	account  lockstep.EmailAccount
	crm      lockstep.CRM
	platform lockstep.Platform

	labels   []lockstep.DataLabel
	mappings []lockstep.DataMapping
	tables   []lockstep.Table

	// mu guards what writers on other goroutines change when a batch is
	// acknowledged: the link index, the members of the lists, counts and findings
	// waiting for the next commit.
	mu        sync.Mutex
	counts    lockstep.Counts // since the last commit
	sum       lockstep.Counts // committed in this slice
	findings  []lockstep.Finding
	conflicts []lockstep.Conflict
	retries   []lockstep.Retry // for the next commit, as taken
	taken     []lockstep.Ref
	found     map[string]bool // findings of this slice, so that one problem is told once
	before    lockstep.Calls  // of earlier slices of this run

	price *lockstep.Price // of a run that began without one, for the next commit

	verified bool // who answers was asked in this slice

	linking sync.Mutex // held while links are stored and learnt

	sync *listSync // the state of a list sync; nil for other types

	// locked says why nothing may be written; the consent lane then only listens.
	locked    string
	previewed []lockstep.Restriction  // in a preview: opt-outs that a run would note
	tellings  []lockstep.ConsentEntry // who was told, for the next commit
	many      int                     // people fetched out of their books in this slice

	stopped []string // what guards held back
	// flagsHeld keeps suppressions that follow from flags of CRM records from being told;
	// foreignCRM and foreignPlatform say that another system answers than was connected.
	flagsHeld, foreignCRM, foreignPlatform bool
	// awayCRM and awayPlatform say why a side could not be asked who it is.
	awayCRM, awayPlatform error
}

func (e *Engine) open(ctx context.Context, run lockstep.Run, budget time.Duration) (*session, error) {
	s := &session{e: e, run: run, deadline: e.Ticks().Add(budget), budget: budget, meter: &lockstep.Meter{}, before: run.Calls, found: map[string]bool{}}
	s.ctx = lockstep.WithMeter(ctx, s.meter)
	switch {
	case run.Type.Consent():
		s.ctx = lockstep.WithUrgency(s.ctx)
	case run.Scheduled:
		s.ctx = lockstep.WithPatience(s.ctx)
	}
	var err error
	if s.account, err = e.Store.Account(ctx, run.Account); err != nil {
		return s, err
	}
	if s.locked = s.account.Locked; s.locked != "" && !run.Type.Consent() {
		return s, &lockstep.Error{
			Code: lockstep.CodeGuarded, Op: "open account " + s.account.Name, Msg: "the account is locked: " + s.account.Locked,
			Hint: "check what changed, then unlock the account with lockstep accounts unlock; opt-outs are still taken in",
		}
	}
	if s.org, err = e.Store.Organization(ctx, s.account.Organization); err != nil {
		return s, err
	}
	if s.labels, err = e.Store.Labels(ctx, s.account.ID); err != nil {
		return s, err
	}
	if s.mappings, err = e.Store.Mappings(ctx, s.account.ID); err != nil {
		return s, err
	}
	if s.tables, err = e.Store.Tables(ctx, s.org.ID); err != nil {
		return s, err
	}
	if s.crm, err = e.Connector.CRM(s.ctx, s.org); err != nil {
		return s, err
	}
	if s.platform, err = e.Connector.Platform(s.ctx, s.account); err != nil {
		return s, err
	}
	return s, nil
}

func (s *session) work() error {
	switch s.run.Type {
	case lockstep.SyncCRMMetadata:
		return s.crmMetadata()
	case lockstep.SyncDataLabels:
		return s.dataLabels()
	case lockstep.SyncSuppressions:
		return s.suppressions()
	case lockstep.SyncUnsubscribes:
		return s.unsubscribes()
	case lockstep.SyncPreferences:
		return s.marketingPreferences()
	case lockstep.SyncOptIn:
		return s.optInStatus()
	case lockstep.SyncAddressBooksIn:
		return s.syncLists(false)
	case lockstep.SyncMarketingLists:
		return s.syncLists(true)
	case lockstep.SyncUndo:
		return s.undoRun()
	}
	return &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "start run", Msg: fmt.Sprintf("this version cannot run %s", s.run.Type)}
}

// dry reports that nothing may be written: the run is a preview.
func (s *session) dry() bool { return s.run.Mode == lockstep.ModePreview }

// stage says what the run is doing, for people; it is stored with the next commit. what
// is a text of the program: names and numbers are put in where it has a verb, so that
// those who watch the run as a whole are told the same of every list. A list is given as
// its *listState and a table as a tableName.
func (s *session) stage(what string, about ...any) {
	s.run.Stage = what
	if len(about) > 0 {
		s.run.Stage = fmt.Sprintf(what, about...)
	}
	t := lockstep.TraceFrom(s.ctx)
	if t == nil {
		return
	}
	var table, list string
	for _, a := range about {
		switch a := a.(type) {
		case tableName:
			table = string(a)
		case *listState:
			list = a.set.ID
		}
	}
	t.Step(what, table, list)
}

// tableName is the name of a table in what stage is told.
type tableName string

// String is the name of the list, for stage.
func (l *listState) String() string { return l.set.Name }

// checkpoint is asked between batches: it ends the slice when its time is up, the
// process is stopping or a person cancelled the run.
//
// That time begins at the first checkpoint. What comes before is read by every slice
// again; where a server's limits make that take longer than a slice, the run would
// otherwise never get beyond it.
func (s *session) checkpoint() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if !s.begun {
		s.begun, s.deadline = true, s.e.Ticks().Add(s.budget)
	}
	if s.e.Ticks().After(s.deadline) && !s.dryLists() {
		return errYield
	}
	return nil
}

// dryLists reports a preview of a list sync. It keeps no cursor, as nothing is done by
// it, so it is worked in one slice: another one would begin at the beginning.
func (s *session) dryLists() bool { return s.sync != nil && s.dry() }

// beginAgain takes back what an interrupted process has planned of a preview of lists,
// which is planned again from the beginning.
func (s *session) beginAgain() error {
	if !s.dryLists() {
		return nil
	}
	var ends []lockstep.BatchEnd
	for after := int64(0); ; {
		batches, err := s.e.Store.PlannedBatches(s.ctx, s.run.ID, after, 100)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			break
		}
		for _, b := range batches {
			after = b.ID
			ends = append(ends, lockstep.BatchEnd{ID: b.ID, State: lockstep.Dropped, Payload: journal.Encode(nil)})
		}
	}
	counted := s.run.Counts
	counted.Findings = 0 // the same findings have the same ids
	if len(ends) == 0 && counted == (lockstep.Counts{}) {
		return nil
	}
	return s.commit(lockstep.Commit{Batches: ends, Counts: counted.Negated()})
}

// whole lets the slice's time stand still during a step of which nothing is kept
// until it is done: a list or a feed that takes longer to read than a slice lasts
// would otherwise be begun again by every slice and never come to its end. Nothing
// may be on its way when the step ends.
func (s *session) whole(step func() error) error {
	began := s.e.Ticks()
	err := step()
	s.deadline = s.deadline.Add(s.e.Ticks().Sub(began))
	return err
}

// within returns a context that ends with the slice, or a while after it. It does not
// compare our clock with another one.
func (s *session) within(after time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.deadline.Add(after).Sub(s.e.Ticks()))
}

// cancelled asks the store whether a person cancelled the run.
func (s *session) cancelled() error {
	asked, err := s.e.Store.CancelRequested(s.ctx, s.run.ID)
	if err != nil {
		return err
	}
	if asked {
		return &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "a person cancelled the run"}
	}
	return nil
}

// finding notes a problem of one record; it is stored with the next commit. The
// same problem of the same record is told once a run. It returns the finding's id.
func (s *session) finding(f lockstep.Finding) (id string) {
	key := f.Code + "\x00" + f.Table + "\x00" + f.Record.String() + "\x00" + string(f.Contact) + "\x00" + f.List + "\x00" + f.Field
	f.ID = lockstep.NameID(findingSpace, s.run.ID+"\x00"+key).String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found[key] {
		return f.ID
	}
	s.found[key] = true
	f.Run, f.Account, f.At = s.run.ID, s.account.ID, s.e.Now()
	s.findings = append(s.findings, f)
	s.counts.Findings++
	return f.ID
}

// findingSpace makes a finding's id the same when a slice is worked again.
var findingSpace = lockstep.ID{0x6c, 0x6f, 0x63, 0x6b, 0x73, 0x74, 0x65, 0x70, 'f', 'i', 'n', 'd', 'i', 'n', 'g'}

// count adds to the counts that the next commit stores.
func (s *session) count(d lockstep.Counts) {
	s.mu.Lock()
	s.counts.Add(d)
	s.mu.Unlock()
}

func (s *session) totals() lockstep.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.run.Counts
	t.Add(s.sum)
	t.Add(s.counts)
	return t
}

func (s *session) calls() lockstep.Calls {
	c := s.meter.Calls()
	c.CRM += s.before.CRM
	c.Platform += s.before.Platform
	c.Polls += s.before.Polls
	return c
}

// commit stores c with everything that waits: counts, findings, calls, stage.
func (s *session) commit(c lockstep.Commit) error {
	c.Run, c.Account = s.run.ID, s.account.ID
	c.Calls, c.Stage, c.Price = s.calls(), s.run.Stage, s.price
	s.mu.Lock()
	c.Counts.Add(s.counts)
	c.Findings = append(c.Findings, s.findings...)
	c.Conflicts = append(c.Conflicts, s.conflicts...)
	c.Retries, c.Taken = append(c.Retries, s.retries...), append(c.Taken, s.taken...)
	s.counts, s.findings, s.conflicts, s.retries, s.taken = lockstep.Counts{}, nil, nil, nil, nil
	var err error
	c.Cursors, err = s.owedCursors(c.Cursors)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if len(c.Links) > 0 {
		// Links are learnt in the order in which they are stored.
		s.linking.Lock()
		defer s.linking.Unlock()
		c.LinkIDs = make([]int64, len(c.Links))
	}
	s.e.step("commit.before")
	if err := s.e.Store.Commit(s.ctx, c); err != nil {
		return err
	}
	s.e.step("commit.after")
	if t := lockstep.TraceFrom(s.ctx); t != nil {
		t.Stored(c.Counts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Add(c.Counts)
	if len(c.Links) > 0 && s.sync != nil {
		return s.learn(c.LinkIDs, c.Links)
	}
	return nil
}

// saveCalls stores counts, calls and findings that no commit carried yet.
func (s *session) saveCalls() error {
	if s.account.ID == "" || s.ctx.Err() != nil {
		return nil //nolint:nilerr // without an account, or once the context has ended, nothing can be stored
	}
	return s.commit(lockstep.Commit{})
}

// plan journals changes before their call.
func (s *session) plan(kind lockstep.ChangeKind, payload []byte, rows int) (int64, error) {
	if err := s.present(); err != nil {
		return 0, err
	}
	if err := s.keepConflicts(); err != nil {
		return 0, err
	}
	s.e.step("plan.before")
	id, err := s.e.Store.Plan(s.ctx, lockstep.Batch{
		Run: s.run.ID, Account: s.account.ID, Kind: kind, State: lockstep.Planned,
		Payload: payload, Rows: rows, Planned: s.e.Now(),
	})
	if err == nil {
		s.e.step("plan.after")
	}
	return id, err
}

// keepConflicts stores the conflicts that wait, before anything is written that one of
// them decided: once one side's value is gone and the process with it, both sides look
// as if they had agreed.
func (s *session) keepConflicts() error {
	s.mu.Lock()
	c := lockstep.Commit{Run: s.run.ID, Account: s.account.ID, Conflicts: s.conflicts}
	s.conflicts = nil
	s.mu.Unlock()
	if len(c.Conflicts) == 0 {
		return nil
	}
	c.Calls, c.Stage = s.calls(), s.run.Stage
	s.e.step("commit.before")
	if err := s.e.Store.Commit(s.ctx, c); err != nil {
		return err
	}
	s.e.step("commit.after")
	return nil
}

// planOnly stores what a preview found.
func (s *session) planOnly(changes []lockstep.Change) error {
	for len(changes) > 0 {
		n := min(len(changes), 1000)
		if _, err := s.plan(changes[0].Kind, journal.Encode(changes[:n]), n); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return s.commit(lockstep.Commit{})
}

// callEach journals changes that are each a call of their own, makes the calls and
// stores the outcome. call returns why the other side refused the change, or an
// error that ends the run. finish adds to the last commit.
func (s *session) callEach(changes []lockstep.Change, call func(*lockstep.Change) (*lockstep.Error, error), finish func(*lockstep.Commit)) error {
	var end lockstep.Commit
	if len(changes) > 0 {
		id, err := s.plan(changes[0].Kind, journal.Encode(changes), len(changes))
		if err != nil {
			return err
		}
		var failed error
		for i := range changes {
			s.e.step(changes[i].Kind.String() + ".before")
			refused, err := call(&changes[i])
			if err != nil {
				failed = err
				changes[i].State = lockstep.Unknown
				if !lockstep.IsUnknown(err) {
					changes[i].State = lockstep.Dropped
				}
				changes[i].Cause = lockstep.AsError(err).Msg
				for j := i + 1; j < len(changes); j++ {
					changes[j].State = lockstep.Dropped
				}
				break
			}
			s.e.step(changes[i].Kind.String() + ".after")
			changes[i].State = lockstep.Acknowledged
			if refused != nil {
				changes[i].State, changes[i].Cause = lockstep.Refused, refused.Msg
			}
		}
		end.Batches = []lockstep.BatchEnd{{ID: id, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}}
		if failed != nil {
			if lockstep.IsUnknown(failed) {
				end.Batches = nil // stays open: the next slice finds out
			}
			if finish != nil {
				finish(&end)
			}
			if err := s.commit(end); err != nil {
				return err
			}
			return failed
		}
	}
	if finish != nil {
		finish(&end)
	}
	return s.commit(end)
}
