package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// quarrel is a person whose job title a plug-in of the CRM and an automation of the
// platform both insist on: each answers every other value with its own.
type quarrel struct {
	*stage
	clock *haste
	list  lockstep.ListSettings
	ann   string
	over  bool
	turns int
}

func newQuarrel(t *testing.T) *quarrel {
	h := newHaste()
	q := &quarrel{stage: newStageOf(t, worldOptions{twins: twin.Options{Clock: h.Clock}, cfg: app.Config{Now: h.ours, Sleep: h.sleep}}), clock: h}
	q.list = q.stage.list("One", "contact", lockstep.ActionIgnore, "")
	q.ann = q.cast("contact", "ann@stage.example", cols{"jobtitle": "Base", "telephone1": "1"})
	q.join(q.list, q.ann, q.cast("contact", "ben@stage.example", cols{"jobtitle": "Baker"}))
	q.sync()
	q.sync()
	return q
}

// title is what each side has.
func (q *quarrel) title() (crm, mail string) {
	return q.record("contact", q.ann, "jobtitle").str("jobtitle"), rec(q.contact("ann@stage.example").DataFields).str("JOBTITLE")
}

// insist lets both programs answer what they find.
func (q *quarrel) insist() {
	if q.over {
		return
	}
	crm, mail := q.title()
	if crm != "CRM's" {
		q.turns++
		q.editRecord("contact", q.ann, cols{"jobtitle": "CRM's"})
	}
	if mail != "Platform's" {
		q.turns++
		q.editContact("ann@stage.example", cols{"JOBTITLE": "Platform's"})
	}
}

// turn is one run, some seconds later, and what the programs answer; it returns what the
// run wrote of ann.
func (q *quarrel) turn() int64 {
	q.t.Helper()
	q.clock.Advance(5 * time.Second)
	run := q.sync()
	addsUp(q.t, run)
	q.insist()
	return run.Counts.ContactsUpdated + run.Counts.RecordsUpdated
}

func (q *quarrel) loops(run lockstep.Run) (out []lockstep.Finding) {
	q.t.Helper()
	for _, f := range q.findings(run) {
		if f.Code == lockstep.FindingLoop {
			out = append(out, f)
		}
	}
	return out
}

// until has runs go on until one holds ann, and returns how many wrote her before.
func (q *quarrel) until() (writers int, held lockstep.Finding) {
	q.t.Helper()
	for range 20 {
		q.clock.Advance(5 * time.Second)
		preview := q.previewed()
		run := q.sync()
		addsUp(q.t, run)
		saw, told := q.loops(preview), q.loops(run)
		if len(saw) != len(told) || preview.Counts.RecordsUpdated != run.Counts.RecordsUpdated || preview.Counts.ContactsUpdated != run.Counts.ContactsUpdated {
			q.t.Errorf("the preview said %+v %v, the run did %+v %v", preview.Counts, saw, run.Counts, told)
		}
		if len(told) > 0 {
			if run.Counts.Guarded != 1 || run.Counts.Rejected+run.Counts.Conflicted+run.Counts.Written != 0 {
				q.t.Errorf("the run that holds: %+v", run.Counts)
			}
			return writers, told[0]
		}
		if run.Counts.ContactsUpdated+run.Counts.RecordsUpdated > 0 {
			writers++
		}
		q.insist()
	}
	q.t.Fatal("nothing stops them")
	return 0, lockstep.Finding{}
}

// previewed is a preview of the list sync.
func (q *quarrel) previewed() lockstep.Run {
	q.t.Helper()
	run, err := q.app.StartRun(q.t.Context(), app.RunRequest{Account: q.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err == nil {
		run, err = q.app.Wait(q.t.Context(), run.ID)
	}
	if err != nil {
		q.t.Fatal(err)
	}
	return run
}

// Two programs that answer each other through the product are stopped after five runs.
// One finding tells of it, everybody else goes on, who opts out is heard, and when they
// have come to rest both sides agree.
func TestQuarrelIsHeld(t *testing.T) {
	t.Parallel()
	q := newQuarrel(t)
	q.editContact("ann@stage.example", cols{"JOBTITLE": "Platform's"})
	writers, f := q.until()
	if writers != 5 {
		t.Errorf("%d runs wrote the record", writers)
	}
	if f.Record.String() != q.ann || f.Field != "JOBTITLE" || f.Message == "" || f.Hint == "" || f.Contact == "" {
		t.Errorf("%+v", f)
	}
	turns := q.turns
	for range 12 {
		if n := q.turn(); n != 0 {
			t.Fatalf("written %d times while held", n)
		}
	}
	if q.turns > turns+2 {
		t.Errorf("the programs went on: %d turns, then %d", turns, q.turns)
	}
	// Her other fields wait as well; others' do not, and nobody is told twice.
	q.editRecord("contact", q.ann, cols{"telephone1": "2"})
	q.editContact("ben@stage.example", cols{"JOBTITLE": "Cook"})
	run := q.sync()
	if len(q.findings(run)) != 0 || run.Counts.RecordsUpdated != 1 || run.Counts.ContactsUpdated != 0 {
		t.Errorf("while she is held: %+v %v", run.Counts, q.findings(run))
	}
	found, err := q.app.Waiting(t.Context(), q.account.ID, "", 500)
	if err != nil || len(found) != 1 || found[0].ID != f.ID || found[0].Retry.Attempts != 1 {
		t.Errorf("waiting: %+v %v", found, err)
	}
	// They go on after the delay, and are held for longer.
	q.clock.Advance(5 * time.Minute)
	writers, _ = q.until()
	if writers != 5 {
		t.Errorf("%d runs wrote the record the second time", writers)
	}
	q.clock.Advance(6 * time.Minute)
	if n := q.turn(); n != 0 {
		t.Errorf("the second time she is not held for longer: %d written", n)
	}
	q.over = true
	q.clock.Advance(5 * time.Minute)
	q.sync()
	q.agree("after they came to rest")
	if got := q.field("ann@stage.example", "PHONE"); got != "2" {
		t.Errorf("an edit made while she was held did not arrive: %q", got)
	}
	q.quiet()
}

func (q *quarrel) agree(when string) {
	q.t.Helper()
	if crm, mail := q.title(); crm != mail {
		q.t.Errorf("%s: the CRM has %q, the platform %q", when, crm, mail)
	}
	if found, err := q.app.Waiting(q.t.Context(), q.account.ID, "", 500); err != nil || len(found) != 0 {
		q.t.Errorf("%s: waiting %v %v", when, found, err)
	}
}

// Whoever stopped one of the programs need not wait.
func TestQuarrelIsTakenUpWhenAsked(t *testing.T) {
	t.Parallel()
	q := newQuarrel(t)
	q.editContact("ann@stage.example", cols{"JOBTITLE": "Platform's"})
	_, f := q.until()
	q.over = true
	run, err := q.app.RetryFinding(t.Context(), f.ID)
	if err == nil {
		run, err = q.app.Wait(t.Context(), run.ID)
	}
	if err != nil || run.Counts.RecordsUpdated+run.Counts.ContactsUpdated != 1 {
		t.Errorf("%+v %v", run.Counts, err)
	}
	q.agree("after asking")
	q.quiet()
}

// What somebody says about being mailed, an address and a place in a list are never held.
func TestHeldRecordStillLeaves(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act   func(*quarrel)
		check func(*quarrel) string
	}{
		"opts out in the CRM": {
			func(q *quarrel) { q.editRecord("contact", q.ann, cols{"donotbulkemail": true}) },
			func(q *quarrel) string {
				if in := q.contacts(q.book(q.list)); len(in) != 1 {
					return fmt.Sprint("in the book: ", in)
				}
				return ""
			},
		},
		"leaves the list": {
			func(q *quarrel) { q.quit(q.list, q.ann) },
			func(q *quarrel) string {
				if in := q.contacts(q.book(q.list)); len(in) != 1 {
					return fmt.Sprint("in the book: ", in)
				}
				return ""
			},
		},
		"unsubscribes": {
			func(q *quarrel) { q.optOut("ann@stage.example") },
			func(q *quarrel) string {
				if q.record("contact", q.ann, "donotbulkemail")["donotbulkemail"] != true {
					return "the CRM was not told"
				}
				return ""
			},
		},
		"joins another list": {
			func(q *quarrel) {
				other := q.stage.list("Two", "contact", lockstep.ActionIgnore, "")
				q.join(other, q.ann)
			},
			func(q *quarrel) string {
				q.sync()
				if crm, mail := q.title(); crm == mail {
					return "that she was written ended her waiting"
				}
				q.clock.Advance(6 * time.Minute)
				q.sync()
				if crm, mail := q.title(); crm != mail {
					return fmt.Sprintf("the CRM has %q, the platform %q", crm, mail)
				}
				return ""
			},
		},
		"gets another address": {
			func(q *quarrel) { q.editRecord("contact", q.ann, cols{"emailaddress1": "anna@stage.example"}) },
			func(q *quarrel) string {
				if _, there := q.contacts(q.book(q.list))["anna@stage.example"]; !there {
					return "the contact has the old address"
				}
				return ""
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQuarrel(t)
			q.editContact("ann@stage.example", cols{"JOBTITLE": "Platform's"})
			q.until()
			q.over = true
			c.act(q)
			q.run(lockstep.SyncSuppressions)
			q.sync()
			if wrong := c.check(q); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

// People who edit faster than any program are not held when they do so on one side, and
// lose nothing when they do so on both.
func TestFastEditorsLoseNothing(t *testing.T) {
	t.Parallel()
	q := newQuarrel(t)
	q.over = true
	for n := range 8 {
		q.editRecord("contact", q.ann, cols{"jobtitle": fmt.Sprint("Pilot ", n)})
		if wrote := q.turn(); wrote != 1 {
			t.Fatalf("edit %d: %d written", n, wrote)
		}
	}
	for n := range 8 {
		if n%2 == 0 {
			q.editContact("ann@stage.example", cols{"JOBTITLE": fmt.Sprint("Cook ", n)})
		} else {
			q.editRecord("contact", q.ann, cols{"jobtitle": fmt.Sprint("Cook ", n)})
		}
		q.turn()
	}
	q.clock.Advance(6 * time.Minute)
	q.sync()
	if crm, mail := q.title(); crm != mail || crm != "Cook 7" {
		t.Errorf("the CRM has %q, the platform %q", crm, mail)
	}
	q.agree("at last")
	q.quiet()
}
