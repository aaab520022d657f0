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
	// Old and New are the values of Columns before and after; nulls where the row
	// was not there.
	Old, New []value.Value
	Version  int64
	User     value.ID
	Time     time.Time
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
		if t := sch.Table(ch.Table); t != nil {
			w.compare(t, ch.Old, ch.New)
		}
		for _, f := range observers {
			f(w)
		}
	}
}

// compare notes the columns that differ between two versions of a row, either of
// which may be missing.
func (w *Write) compare(t *schema.Table, old, row *store.Row) {
	was, is := make([]store.Cell, t.Width()), make([]store.Cell, t.Width())
	if old != nil {
		was = old.Cells(was)
	}
	if row != nil {
		is = row.Cells(is)
	}
	for _, col := range t.Columns() {
		if col.Ord != schema.VersionOrd && is[col.Ord] != was[col.Ord] {
			w.Columns = append(w.Columns, col.Name)
			w.Old, w.New = append(w.Old, was[col.Ord].Value), append(w.New, is[col.Ord].Value)
		}
	}
}
