package engine

import (
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// related looks at the records whose values one lookup away may have changed: the
// record that is looked up changed, and the feed of their own table does not tell.
// Where everything is read anyway it only notes where to begin the next time.
func (s *session) related() error {
	reader, can := s.crm.(lockstep.DependantReader)
	if !can {
		return nil
	}
	for _, table := range s.tablesInOrder() {
		plan := s.sync.plans[table]
		if !slices.ContainsFunc(plan.query.Columns, func(c string) bool { return strings.Contains(c, ".") }) {
			continue
		}
		s.stage("reading changes of what %s records look up", tableName(table))
		if err := s.whole(func() error { return s.readRelated(reader, table, plan) }); err != nil {
			return err
		}
	}
	return nil
}

// relatedCursor names how far the changes of what a table's records look up were read.
func relatedCursor(plan *tablePlan) string { return plan.cursor + "/related" }

func (s *session) readRelated(reader lockstep.DependantReader, table string, plan *tablePlan) error {
	name := relatedCursor(plan)
	from, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	look := func(ids []lockstep.ID) error {
		s.mu.Lock()
		ids = slices.DeleteFunc(ids, func(id lockstep.ID) bool { // the platform knows nothing of the others
			_, linked := s.linkOf(lockstep.Ref{Table: table, ID: id})
			return !linked
		})
		s.mu.Unlock()
		if len(ids) == 0 {
			return s.cancelledNow()
		}
		err := s.crm.Records(s.ctx, plan.query, ids, func(recs []lockstep.Record) error {
			if err := s.mergePage(table, recs, nil); err != nil {
				return err
			}
			return s.keepMarks()
		})
		if err != nil {
			return err
		}
		return s.cancelledNow()
	}
	next, err := reader.Dependants(s.ctx, plan.query, from, look)
	if from != "" && lockstep.CodeOf(err) == lockstep.CodeExpired {
		next, err = reader.Dependants(s.ctx, plan.query, "", look)
	}
	if err != nil {
		return err
	}
	if err := s.sync.writer.drain(); err != nil {
		return err
	}
	if !s.dry() && next != from {
		s.sync.writer.at(name, next)
	}
	return nil
}
