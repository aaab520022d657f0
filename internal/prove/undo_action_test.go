package prove

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// takesBack are the actions that -back draws (docs/guarantees.md, "Known to be broken").
var takesBack = map[string]bool{"undo a run": true, "back the product up, or put the backup back": true}

// undoActions let a person take back what a run did.
var undoActions = []action{
	{"undo a run", 2, func(w *people) string {
		if w.during || w.toUndo != "" || w.backup != nil || w.since > 0 {
			return ""
		}
		runs, err := w.app.Runs(w.ctx, app.RunFilter{Account: w.account, Limit: 40})
		if err != nil {
			w.t.Fatal(err)
		}
		runs = slices.DeleteFunc(runs, func(r lockstep.Run) bool {
			lists := r.Type == lockstep.SyncMarketingLists || r.Type == lockstep.SyncAddressBooksIn || r.Type == lockstep.SyncUndo
			return !lists || r.Mode != lockstep.ModeApply || !r.Status.Ended()
		})
		if len(runs) == 0 {
			return ""
		}
		run := runs[w.rnd.IntN(min(len(runs), 4))] // people undo what was done lately
		w.toUndo = run.ID
		return fmt.Sprintf("wants the run of round %d undone", w.roundOf(run.ID))
	}, false},
}

// roundOf is the round of a run, -1 for one that is not known.
func (s *sim) roundOf(run string) int {
	for i := range s.played {
		if s.played[i].run.ID == run {
			return s.played[i].round
		}
	}
	return -1
}

// undo previews the undo of the run that a person chose, and carries it out.
func (s *sim) undo() {
	run := s.toUndo
	s.toUndo = ""
	ask := func(mode lockstep.Mode) bool {
		refused := false
		s.cycle(func(ctx context.Context) error {
			u, err := s.app.UndoRun(ctx, app.UndoRequest{Run: run, Mode: mode})
			if err != nil {
				refused = true
				return err
			}
			s.started = u.ID
			return s.app.WorkOff(ctx)
		})
		return !refused
	}
	before := s.history.writes[product]
	if !ask(lockstep.ModePreview) {
		return
	}
	if n := s.history.writes[product] - before; n != 0 {
		s.violated("preview", "the preview of an undo wrote %d times in round %d", n, s.round)
	}
	if s.lastRun().Status == lockstep.RunPreviewed {
		ask(lockstep.ModeApply)
	}
}

// undoneWrites are what undos said that they would write.
type undoneWrites struct {
	values  map[string]bool // side, id, name and value
	members map[string]int  // contact and address book → the change at which the undo began
}

// taken is what a change put where.
func (c change) taken() string { return c.side + " " + c.id + " " + c.name + " " + c.new }

// undone reports whether a change of the product's was an undo's.
func (s *sim) undone(x change) bool {
	if !x.ours() {
		return false
	}
	return s.undoes().values[x.taken()]
}

// undoes reads the journals of all undos, once the life is over.
func (s *sim) undoes() *undoneWrites {
	if s.undoing != nil {
		return s.undoing
	}
	u := &undoneWrites{values: map[string]bool{}, members: map[string]int{}}
	for i := range s.played {
		if p := &s.played[i]; p.run.Type == lockstep.SyncUndo && p.run.Mode == lockstep.ModeApply {
			s.eachChange(p.run.ID, func(c *lockstep.Change) {
				for _, f := range c.Fields {
					u.values["mail "+string(c.Contact)+" "+f.Name+" "+f.New.Text()] = true
					u.values["crm "+c.Ref.ID.String()+" "+f.Name+" "+f.New.Text()] = true
				}
				for _, b := range append(slices.Clone(c.Books), c.Book) {
					if b != "" {
						u.members[string(c.Contact)+" "+string(b)] = p.from
					}
				}
			})
		}
	}
	s.undoing = u
	return u
}

func (s *sim) eachChange(run string, each func(*lockstep.Change)) {
	for after := int64(0); ; {
		changes, next, err := s.app.Changes(s.ctx, run, after, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range changes {
			each(&changes[i].Change)
		}
		if after = next; next == 0 {
			return
		}
	}
}

// setApart reports whether an undo had the last word about a field of a record and its
// contact: then the two sides differ on purpose until somebody edits one of them.
func (s *sim) setApart(r *record, c *contact, column, label string) bool {
	for _, x := range slices.Backward(s.history.changes) {
		if x.side == "crm" && x.id == r.id && x.name == column || x.side == "mail" && x.id == c.id && x.name == label {
			if x.who == person {
				return false
			}
			if s.undone(x) {
				return true
			}
		}
	}
	return false
}

// keptByUndo reports whether an undo put a contact into a list's book, or took it out,
// or found it so: that stays until a run sees that the membership of the list changed.
func (s *sim) keptByUndo(c *contact, e *expected) bool {
	if c == nil {
		return false
	}
	began, ok := s.undoes().members[c.id+" "+e.book]
	if !ok {
		return false
	}
	member := func(at int) bool {
		in := map[string]bool{}
		for _, x := range s.history.changes[:at] {
			if x.table == "listmember" && x.list == e.list.id() && s.history.records[e.list.table][x.id].email() == c.email {
				in[x.id] = x.kind == "create"
			}
		}
		return slices.Contains(slices.Collect(maps.Values(in)), true)
	}
	was := member(began)
	for i := range s.played {
		p := &s.played[i]
		if !p.done(lockstep.SyncMarketingLists) {
			continue
		}
		if p.from < began {
			was = member(p.to)
		} else if member(p.from) != was {
			return false
		}
	}
	return true
}

// undoPromises are what the product promises of an undo.
var undoPromises = []promise{{"undo is honest", undosAreHonest}}

// undosAreHonest: what an undo says it wrote is what happened, and nothing else did.
func undosAreHonest(s *sim) {
	m := newModel(s)
	mapped := map[string]bool{} // what the CRM derives of other columns is not
	for table := range memberCode {
		outward, inward := m.flows(table)
		for _, pairs := range []map[string]string{outward, inward} {
			for column, label := range pairs {
				mapped["crm "+column], mapped["mail "+label] = column != "fullname", label != "FULLNAME"
			}
		}
	}
	for i := range s.played {
		p := &s.played[i]
		if p.run.Type != lockstep.SyncUndo || p.run.Mode != lockstep.ModeApply || !p.run.Status.Ended() {
			continue
		}
		wrote := map[string]bool{}
		for k := p.from; k < p.to; k++ {
			if x := s.history.changes[k]; x.ours() && x.name != "" {
				wrote[x.taken()] = true
			}
		}
		s.eachChange(p.run.ID, func(c *lockstep.Change) {
			if c.State != lockstep.Acknowledged || c.Kind != lockstep.WriteContact && c.Kind != lockstep.WriteRecord {
				return
			}
			side, id := "mail", string(c.Contact)
			if c.Kind == lockstep.WriteRecord {
				side, id = "crm", c.Ref.ID.String()
			}
			for _, f := range c.Fields {
				what := side + " " + id + " " + f.Name + " " + f.New.Text()
				if !wrote[what] && f.Old.Text() != f.New.Text() && !p.disturbed {
					s.violated("undo is honest", "round %d: the undo says that it wrote %q, nothing did", p.round, what)
				}
			}
		})
		for k := p.from; k < p.to; k++ {
			if x := s.history.changes[k]; x.who == product && mapped[x.side+" "+x.name] && !s.undone(x) && !p.disturbed {
				s.violated("undo is honest", "round %d: the undo did what it does not say: %v", p.round, x)
			}
		}
	}
}
