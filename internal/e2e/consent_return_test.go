package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// newReturning is a stage with our tables, on which ann is a member of a list and the
// platform knows her.
func newReturning(t *testing.T, cfg app.Config) (w *stage, record string) {
	t.Helper()
	w = newStageWith(t, cfg)
	w.installTables()
	record = w.cast("contact", "ann@stage.example")
	w.join(w.list("Readers", "contact", lockstep.ActionIgnore, ""), record)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	return w, record
}

// enter has a CRM user enter ann's address as suppressed.
func (w *stage) enter(more ...cols) (id string) {
	w.t.Helper()
	c := cols{"lockstep_suppressionid": newID(), "lockstep_name": "by hand", "lockstep_email": "ann@stage.example"}
	for _, m := range more {
		maps.Copy(c, m)
	}
	w.crm("POST", "lockstep_suppressions", c, nil)
	return fmt.Sprint(c["lockstep_suppressionid"])
}

// back has ann come back by the platform's own flow.
func (w *stage) back() {
	w.t.Helper()
	w.twins.Clock.Advance(time.Minute)
	w.mail("POST", "/v2/contacts/resubscribe-with-no-challenge", cols{"unsubscribedContact": cols{"email": "ann@stage.example"}}, nil)
	w.twins.Clock.Advance(time.Minute)
}

// openRows are the rows that say that an address is suppressed, by who entered them.
func (w *stage) openRows() []string {
	w.t.Helper()
	out := []string{}
	for _, r := range w.rows("lockstep_suppressions?$select=lockstep_name,lockstep_email,statecode") {
		if r.str("statecode") == "0" {
			out = append(out, r.str("lockstep_name"))
		}
	}
	slices.Sort(out)
	return out
}

func (w *stage) wantClosed(when string, records int, rows ...string) {
	w.t.Helper()
	if got := w.closed(); len(got) != records {
		w.t.Errorf("%s: closed are %v, want %d", when, got, records)
	}
	if diff := cmp.Diff(rows, w.openRows()); diff != "" && len(rows)+len(w.openRows()) > 0 {
		w.t.Errorf("%s: open rows (-want +got):\n%s", when, diff)
	}
	status := fmt.Sprint(w.contact("ann@stage.example").Channel["email"]["status"])
	if status != "subscribed" != (records > 0) {
		w.t.Errorf("%s: she is %s", when, status)
	}
}

func (w *stage) suppression() app.Suppression {
	w.t.Helper()
	all, err := w.app.Suppressions(w.t.Context(), app.SuppressionFilter{Account: w.account.ID, Email: "ann@stage.example"})
	if err != nil || len(all) != 1 {
		w.t.Fatalf("the suppressions are %+v: %v", all, err)
	}
	return all[0]
}

// Several rows may say that an address is suppressed, those that were entered while it
// was suppressed already among them. When the person comes back, all are closed.
func TestComingBackClosesEveryRow(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	w.enter()
	w.run(lockstep.SyncSuppressions)
	w.enter()
	w.enter(cols{"lockstep_account": w.account.ID})
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("suppressed", 1, "by hand", "by hand", "by hand")
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back", 0)
	w.sync() // into the book again
	w.quiet()
}

// Who came back, and whether, is not told by our clock: it may be wrong by an hour.
func TestComingBackWhateverOurClockSays(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			w, _ := newReturning(t, app.Config{Now: func() time.Time { return time.Now().Add(skew) }})
			w.enter()
			w.run(lockstep.SyncSuppressions)
			w.sync()
			w.run(lockstep.SyncSuppressions)
			w.wantClosed("suppressed", 1, "by hand")
			w.back()
			w.sync()
			w.run(lockstep.SyncSuppressions)
			w.wantClosed("back", 0)
		})
	}
}

// The key of the table lets no second row of an address and account in: the one that a
// user once entered says the next opt-out, and is opened for it.
func TestRowOfAUserSaysTheNextOptOut(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	w.enter(cols{"lockstep_account": w.account.ID})
	w.run(lockstep.SyncSuppressions)
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back", 0)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("out again", 1, "by hand")
	if s := w.suppression(); s.Pending || s.Reason != "unsubscribed" {
		t.Errorf("the suppression is %+v", s)
	}
	w.quiet()
}

// Our own row is opened again as well, whichever of the two was told first.
func TestOurRowIsOpenedAgain(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	for range 2 {
		w.optOut("ann@stage.example")
		w.run(lockstep.SyncSuppressions)
		w.wantClosed("out", 1, "ann@stage.example")
		w.back()
		w.sync()
		w.run(lockstep.SyncSuppressions)
		w.wantClosed("back", 0)
	}
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.back()
	w.sync() // notes that she is back, which nobody was told of when she leaves again
	w.optOut("ann@stage.example")
	w.sync()
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back after nobody was told that she was out", 0)
}

// A row that a user opens again is a new opt-out.
func TestRowThatIsOpenedByAUser(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	id := w.enter()
	w.run(lockstep.SyncSuppressions)
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back", 0)
	w.twins.Clock.Advance(time.Minute)
	w.crm("PATCH", "lockstep_suppressions("+id+")", cols{"statecode": 0}, nil)
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("opened", 1, "by hand")
}

// A row that was entered before the person came back, and is read after that, is
// closed: the person's act is the newer one.
func TestRowThatIsReadTooLate(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.enter()
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back", 0)
	w.twins.Clock.Advance(time.Minute)
	w.enter()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("entered after that", 1, "by hand")
}

// Somebody who comes back and leaves again between two runs has left anew: what was
// opened in between is closed.
func TestOptOutAfterAReturnThatNobodySaw(t *testing.T) {
	t.Parallel()
	w, record := newReturning(t, app.Config{})
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.back()
	w.editRecord("contact", record, cols{"donotbulkemail": false})
	w.twins.Clock.Advance(time.Minute)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("unsubscribed again", 1, "ann@stage.example")
	w.back()
	w.editRecord("contact", record, cols{"donotbulkemail": false})
	w.twins.Clock.Advance(time.Minute)
	w.act("ann@stage.example", dotdigital.Complain)
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("complained", 1, "ann@stage.example")
	if s := w.suppression(); s.Pending || s.Reason != "complained" {
		t.Errorf("the suppression is %+v", s)
	}
}

// Nobody is let back whose opt-out the platform has not heard of: it would have nothing
// to ask the person about.
func TestAskedBeforeThePlatformWasTold(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	w.enter()
	w.lock()
	w.run(lockstep.SyncSuppressions)
	w.unlock()
	if _, err := w.app.Resubscribe(t.Context(), w.suppression().ID, "a letter", "Kim"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Fatalf("asked: %v", err)
	}
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("told", 1, "by hand")
	got, err := w.app.Resubscribe(t.Context(), w.suppression().ID, "a letter", "Kim")
	if err != nil || got.State != "challenged" {
		t.Fatalf("asked again: %+v %v", got, err)
	}
}

// Whoever was told in part is told again: a row that the CRM would not close while the
// record was opened already.
func TestReturnThatWasToldInPart(t *testing.T) {
	t.Parallel()
	w, _ := newReturning(t, app.Config{})
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	row := w.rows("lockstep_suppressions?$select=lockstep_suppressionid")[0].str("lockstep_suppressionid")
	w.back()
	w.sync()
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "row-poison", Args: json.RawMessage(`{"id":"` + row + `"}`)}); err != nil {
		t.Fatal(err)
	}
	run := w.run(lockstep.SyncSuppressions)
	w.told(run, lockstep.FindingRejected, row)
	if got := w.closed(); len(got) != 0 || len(w.openRows()) != 1 {
		t.Fatalf("closed are %v, open rows %v", got, w.openRows())
	}
	w.twins.Faults.Clear()
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("back", 0)
}

// When the platform cannot be asked about one of several who came back, nobody of them
// is passed over: the next sync asks about all.
func TestReturnsThatCouldNotBeAskedAbout(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	all := []string{"ann@stage.example", "ben@stage.example", "cleo@stage.example"}
	for _, email := range all {
		w.join(l, w.cast("contact", email))
	}
	w.sync()
	for _, email := range all {
		w.optOut(email)
	}
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.twins.Clock.Advance(time.Minute)
	for _, email := range all {
		w.mail("POST", "/v2/contacts/resubscribe-with-no-challenge", cols{"unsubscribedContact": cols{"email": email}}, nil)
	}
	w.twins.Clock.Advance(time.Minute)
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "status", Operation: "contacts.get", After: 2, Args: json.RawMessage(`{"code":403}`)}); err != nil {
		t.Fatal(err)
	}
	if run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists}); err == nil || run.Status != lockstep.RunFailed {
		t.Fatalf("the run ended %s: %v", run.Status, err)
	}
	w.twins.Faults.Clear()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 0 {
		t.Errorf("closed: %v", got)
	}
	w.sync()
	if got := w.contacts(w.book(l)); len(got) != 3 {
		t.Errorf("in the book: %v", got)
	}
}

// A record that a user closes to all email while it is closed by us stays as it is,
// though the user had opened it once before.
func TestComingBackLeavesWhatAUserClosedTwice(t *testing.T) {
	t.Parallel()
	w, record := newReturning(t, app.Config{})
	w.editRecord("contact", record, cols{"donotemail": true})
	w.run(lockstep.SyncSuppressions)
	w.editRecord("contact", record, cols{"donotemail": false})
	w.twins.Clock.Advance(time.Minute)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.wantClosed("out", 1, "ann@stage.example")
	w.editRecord("contact", record, cols{"donotemail": true})
	w.run(lockstep.SyncSuppressions)
	w.back()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 1 {
		t.Errorf("closed are %v", got)
	}
	if got := w.openRows(); len(got) != 0 {
		t.Errorf("open rows: %v", got)
	}
}

// A record that a user edits between being read and being opened is not opened on the
// strength of what was read: the next run looks at it as it is then.
func TestEditedWhileComingBack(t *testing.T) {
	t.Parallel()
	for _, edit := range []struct {
		name  string
		cols  cols
		after int // records that are closed after another run
	}{
		{"something else", cols{"jobtitle": "Edited"}, 0},
		{"the address", cols{"emailaddress1": "new@stage.example"}, 1},
	} {
		t.Run(edit.name, func(t *testing.T) {
			var meanwhile func()
			w, record := newReturning(t, app.Config{OnStep: func(step string) {
				if meanwhile != nil && step == lockstep.WriteRecord.String()+".before" {
					now := meanwhile
					meanwhile = nil
					now()
				}
			}})
			w.optOut("ann@stage.example")
			w.run(lockstep.SyncSuppressions)
			w.wantClosed("out", 1, "ann@stage.example")
			w.back()
			w.sync()
			meanwhile = func() { w.editRecord("contact", record, edit.cols) }
			w.run(lockstep.SyncSuppressions)
			if meanwhile != nil {
				t.Fatal("no record was written")
			}
			if got := w.closed(); len(got) != 1 {
				t.Errorf("closed are %v after the edit", got)
			}
			w.run(lockstep.SyncSuppressions)
			if got := w.closed(); len(got) != edit.after {
				t.Errorf("closed are %v after another run, want %d", got, edit.after)
			}
		})
	}
}

// A run that reads the platform alone, and the inward half of a sync, know no record that
// was closed since: nobody is put into a book before the CRM's changes were read.
func TestNobodyIsAddedBeforeTheCRMWasRead(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("another record refuses %v", closed), func(t *testing.T) {
			w := newStage(t)
			l := w.list("Readers", "lead", lockstep.ActionIgnore, "")
			ann := w.cast("lead", "ann@stage.example")
			w.join(l, ann, w.cast("lead", "ben@stage.example"))
			w.join(w.list("Heads", "contact", lockstep.ActionIgnore, ""), w.cast("contact", "lea@stage.example"))
			w.sync()
			w.editRecord("lead", ann, cols{"donotbulkemail": true})
			w.sync()
			w.wantIn("closed", l, "ben")
			w.cast("contact", "ann@stage.example", cols{"donotbulkemail": closed})
			w.editRecord("lead", ann, cols{"donotbulkemail": false})
			w.editContact("ann@stage.example", cols{"JOBTITLE": "Head"})
			if run := w.run(lockstep.SyncAddressBooksIn); run.Counts.BookAdds != 0 {
				t.Errorf("put into books although the CRM was not read: %+v", run.Counts)
			}
			w.run(lockstep.SyncSuppressions)
			want := int64(1)
			if closed {
				want = 0
			}
			if run := w.sync(); run.Counts.BookAdds != want || run.Counts.BookRemovals != 0 {
				t.Errorf("%d put into a book, want: %+v", want, run.Counts)
			}
			w.quiet()
		})
	}
}
