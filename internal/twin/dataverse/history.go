package dataverse

import (
	"strings"
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
	Kind    string   // "create", "update", "delete", "definition" or "restore"
	Columns []string // logical names of the columns whose value changed
	// Old and New are the values of Columns before and after; nulls where the row
	// was not there.
	Old, New []value.Value
	Version  int64
	// User is the system user that the write was made for, Caller the one that
	// called: another one when it impersonates.
	User, Caller value.ID
	// Operation is the call as counters and fault rules name it.
	Operation string
	// Path is what a definition's change was addressed to, below the service root.
	Path string
	// Undone is how many of the last writes a restored backup took back.
	Undone int
	Time   time.Time
}

// OnWrite calls f for every committed write from now on, in order. f runs
// inside of the write: it must be quick and must not call the server.
func (s *Server) OnWrite(f func(Write)) {
	s.historyMu.Lock()
	defer s.historyMu.Unlock()
	s.observers = append(s.observers, f)
}

func (s *Server) watching() []func(Write) {
	s.historyMu.Lock()
	defer s.historyMu.Unlock()
	return s.observers
}

// tell tells the observers about a write that is none of a row.
func (s *Server) tell(w Write) {
	for _, f := range s.watching() {
		f(w)
	}
}

// alter changes definitions on behalf of a call.
func (c *call) alter(f func(*schema.Draft) error) error {
	err := c.s.alter(f)
	if err == nil {
		c.s.tell(Write{
			Kind: "definition", User: c.user.id, Caller: c.user.real, Operation: c.op, Time: c.now, Path: strings.Join(pathTexts(c.path), "/"),
		})
	}
	return err
}

// record tells the observers and the registered webhooks about a committed transaction.
func (s *Server) record(changes []store.Change) {
	s.hooks.collect(changes)
	observers := s.watching()
	if len(observers) == 0 {
		return
	}
	sch := s.sch.Load()
	for _, ch := range changes {
		w := Write{Table: ch.Table, Kind: "update", Version: ch.Version, User: ch.User, Caller: ch.Caller, Operation: ch.Operation, Time: ch.Time}
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
	for col := range t.All() {
		if col.Ord != schema.VersionOrd && is[col.Ord] != was[col.Ord] {
			w.Columns = append(w.Columns, col.Name)
			w.Old, w.New = append(w.Old, was[col.Ord].Value), append(w.New, is[col.Ord].Value)
		}
	}
}
