package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// sweepEvery is how often the ids of a table are read whose feed does not tell of
// deleted records. That takes one call for every 5,000 records.
const sweepEvery = 24 * time.Hour

// sweepMark names what is kept of a table's last sweep: when it began, and heldSweep
// when a guard stopped what came of it.
func sweepMark(table string) string { return "sweep/" + table }

const heldSweep = "held"

// sweep is a reading of all ids of a table under way.
type sweep struct {
	began time.Time
	next  lockstep.Cursor    // the page it goes on with; empty = none was read, or all were
	any   bool               // an id was read
	met   crosswalk.Observed // of the linked records
}

// sweepDeleted looks, once a day, for linked records of a table that were deleted
// without its feed telling: those whose id is not among all ids of the table, and whom
// the CRM does not know when it is asked for them. They are taken as the feed's deletions
// are. A reading that did not come to its end says nothing of anybody.
func (s *session) sweepDeleted(table string) error {
	reader, can := s.crm.(lockstep.KeyReader)
	if !can || s.sync.incomplete != "" {
		return nil
	}
	feed, err := s.e.Store.Cursor(s.ctx, s.account.ID, s.sync.plans[table].cursor)
	if err != nil || feed == "" || reader.TellsDeleted(feed) {
		return err
	}
	due, err := s.sweepDue(table)
	if err != nil || !due {
		return err
	}
	s.stage("reading the ids of all records of %s, whose deletions are not tracked", tableName(table))
	if err := s.whole(func() error { return s.readKeys(reader, table) }); err != nil {
		return err
	}
	read := s.sync.sweeps[table]
	delete(s.sync.sweeps, table)
	return s.takeDeleted(table, read)
}

// sweepDue reports whether a day has passed since the last sweep. One that a guard
// stopped is done again by the preview that shows what would come of it, and by the run
// that applies that. The first one is due a day after the table was first found to need
// it: it has just been read as a whole.
func (s *session) sweepDue(table string) (bool, error) {
	mark, err := s.e.Store.Cursor(s.ctx, s.account.ID, sweepMark(table))
	if err != nil {
		return false, err
	}
	at, held, _ := strings.Cut(string(mark), " ")
	last, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return false, s.swept(table, s.e.Now(), "")
	}
	past := s.e.Now().Sub(last)
	return past >= sweepEvery || past < 0 || held != "" && !s.guarded(), nil
}

// swept keeps when a table's last sweep began and what became of it.
func (s *session) swept(table string, began time.Time, how string) error {
	if s.dry() {
		return nil
	}
	mark := strings.TrimSpace(began.UTC().Format(time.RFC3339) + " " + how)
	return s.commit(lockstep.Commit{Cursors: map[string]lockstep.Cursor{sweepMark(table): lockstep.Cursor(mark)}})
}

// readKeys reads the ids of a table, from where it was interrupted if it was.
func (s *session) readKeys(reader lockstep.KeyReader, table string) error {
	read := s.sync.sweeps[table]
	resumed := read != nil && read.next != ""
	if !resumed {
		read = &sweep{began: s.e.Now()}
		s.sync.sweeps[table] = read
	}
	err := reader.Keys(s.ctx, table, read.next, func(pg lockstep.IDPage) error {
		s.mu.Lock()
		for _, id := range pg.IDs {
			if _, linked := s.sync.links.ByRef(lockstep.Ref{Table: table, ID: id}); linked {
				read.met.Add(id)
			}
		}
		s.mu.Unlock()
		read.next, read.any = pg.Resume, read.any || len(pg.IDs) > 0
		return s.cancelledNow()
	})
	if err != nil && resumed && lockstep.CodeOf(err) == lockstep.CodeExpired {
		delete(s.sync.sweeps, table)
		return s.readKeys(reader, table)
	}
	read.met.Seal()
	return err
}

// takeDeleted sees to the linked records that a sweep did not meet.
func (s *session) takeDeleted(table string, read *sweep) error {
	var unmet []lockstep.ID
	known := 0
	s.mu.Lock()
	for k := range s.sync.links.All() {
		if k.Ref.Table != table {
			continue
		}
		if known++; !read.met.Has(k.Ref.ID) {
			unmet = append(unmet, k.Ref.ID)
		}
	}
	s.mu.Unlock()
	if !read.any && known > 0 {
		s.finding(lockstep.Finding{
			Code: lockstep.FindingIncomplete, Table: table, Message: fmt.Sprintf("the CRM answered that the table %s is empty; %d of its records are known", table, known),
			Hint: "none of them was taken for deleted. Check the application user's rights on all records of the table",
		})
		return s.swept(table, read.began, "")
	}
	slices.SortFunc(unmet, func(a, b lockstep.ID) int { return slices.Compare(a[:], b[:]) })
	limit := s.account.GuardLimit(known)
	var deleted []lockstep.Record
	for some := range slices.Chunk(unmet, latecomerChunk) {
		ended, err := s.ended(table, some) // some may have been made since their place was passed
		if err != nil {
			return err
		}
		for _, id := range ended {
			deleted = append(deleted, lockstep.Record{Ref: lockstep.Ref{Table: table, ID: id}, Deleted: true})
		}
		if s.guarded() && len(deleted) > limit {
			s.hold(len(deleted), "at least %d of %d linked records of %s are not in the CRM any more, more than %d; none of them was taken for deleted", len(deleted), known, table, limit)
			return s.swept(table, read.began, heldSweep)
		}
	}
	for some := range slices.Chunk(deleted, latecomerChunk) {
		s.stirred(table, some)
		if err := s.mergePage(table, some, nil); err != nil {
			return err
		}
		if err := s.keepMarks(); err != nil {
			return err
		}
	}
	return s.swept(table, read.began, "")
}
