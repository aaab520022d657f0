package dataverse

import (
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Write is one applied write, for checkers that compare what a client believes
// with what happened.
type Write struct {
	Table   string
	ID      value.ID
	Kind    string   // "create", "update" or "delete"
	Columns []string // logical names of the columns whose value changed
	Version int64
	User    value.ID
	Time    time.Time
}

// OnWrite calls f for every committed write from now on, in order. f runs
// inside of the write: it must be quick and must not call the server.
func (s *Server) OnWrite(f func(Write)) {
	s.historyMu.Lock()
	defer s.historyMu.Unlock()
	s.observers = append(s.observers, f)
}

// record tells the observers about a committed transaction.
func (s *Server) record(changes []store.Change) {
	s.historyMu.Lock()
	observers := s.observers
	s.historyMu.Unlock()
	if len(observers) == 0 {
		return
	}
	sch := s.sch.Load()
	for _, ch := range changes {
		w := Write{Table: ch.Table, Kind: "update", Version: ch.Version, User: ch.User, Time: ch.Time}
		switch {
		case ch.New == nil:
			w.Kind, w.ID = "delete", ch.Old.ID
		case ch.Old == nil:
			w.Kind, w.ID = "create", ch.New.ID
		default:
			w.ID = ch.New.ID
		}
		if t := sch.Table(ch.Table); t != nil && ch.New != nil {
			w.Columns = changedColumns(t, ch.Old, ch.New)
		}
		for _, f := range observers {
			f(w)
		}
	}
}

func changedColumns(t *schema.Table, old, row *store.Row) []string {
	var out []string
	is := row.Cells(make([]store.Cell, t.Width()))
	was := make([]store.Cell, t.Width())
	if old != nil {
		was = old.Cells(was)
	}
	for _, col := range t.Columns() {
		if col.Ord != schema.VersionOrd && is[col.Ord] != was[col.Ord] {
			out = append(out, col.Name)
		}
	}
	return out
}
