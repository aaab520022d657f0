package engine

import (
	"time"

	"github.com/lockstep-sync/lockstep"
)

// A record that a side did not take is tried again when it changes, and as long as it
// does not, by runs that begin after a growing delay: what made the other side refuse it
// may have gone without anything being said about it in a feed.

// patientAfter is the number of attempts up to which a contact that could not be given
// another address is tried again by each run: somebody else may have had the address, and
// leave it in the same moment.
const patientAfter = 3

// loadRetries reads which records wait for another attempt.
func (s *session) loadRetries() error {
	all, err := s.e.Store.Retries(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	s.sync.retries = make(map[lockstep.Ref]lockstep.Retry, len(all))
	for _, r := range all {
		s.sync.retries[r.Ref] = r
	}
	return nil
}

// tryAgain has the records of a table looked at whose time has come. Those of lists that
// this run is not about go on waiting.
func (s *session) tryAgain(table string) error {
	now := s.e.Now()
	var due []lockstep.Ref
	s.mu.Lock()
	for ref, r := range s.sync.retries {
		_, tried := s.sync.again[ref]
		if ref.Table == table && !tried && !early(r, now) {
			due = append(due, ref)
		}
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	for _, l := range s.sync.byTable[table] {
		if err := s.loadMembers(l); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range due {
		if len(s.scope(table, ref.ID)) > 0 {
			s.sync.again[ref], s.sync.recheck[ref] = false, true
		}
	}
	return nil
}

// early reports whether it is too early to try a record again.
func early(r lockstep.Retry, now time.Time) bool {
	wait := r.Next.Sub(now)
	return wait > 0 && wait <= lockstep.MaxRetryDelay // longer only by a clock that was wrong
}

// rejected tells that a side did not take a record, and when it is tried again.
func (s *session) rejected(f lockstep.Finding) {
	id, ref := s.finding(f), lockstep.Ref{Table: f.Table, ID: f.Record}
	if ref.ID.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.sync.retries[ref]
	if !s.sync.again[ref] { // both sides may refuse it at once
		r.Attempts++
	}
	r.Ref, r.Finding, r.Next = ref, id, s.e.Now().Add(lockstep.RetryDelay(r.Attempts))
	s.sync.retries[ref], s.sync.again[ref] = r, true
	s.retries = append(s.retries, r)
}

// waits reports whether a record that was refused once more is left alone until it is
// tried again. The caller holds s.mu.
func (s *session) waits(ref lockstep.Ref) bool {
	attempts := s.sync.retries[ref].Attempts
	if !s.sync.again[ref] { // else this one is counted, and a run's attempts are one
		attempts++
	}
	return attempts >= patientAfter
}

// took notes that a record was taken. The caller holds s.mu.
func (s *session) took(ref lockstep.Ref) {
	if _, waits := s.sync.retries[ref]; waits && !s.sync.again[ref] {
		delete(s.sync.retries, ref)
		s.taken = append(s.taken, ref)
	}
}

// triedAgain forgets the records that were tried again and that nobody refused: there was
// nothing left to write.
func (s *session) triedAgain() {
	if s.sync.approved != nil {
		return // it writes what a preview showed, and may have left some of them alone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref := range s.sync.again {
		s.took(ref)
	}
}
