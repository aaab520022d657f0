package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// ahead is a clock of the product that a test moves.
type ahead struct{ by atomic.Int64 }

func (a *ahead) now() time.Time       { return time.Now().Add(time.Duration(a.by.Load())) }
func (a *ahead) pass(d time.Duration) { a.by.Add(int64(d)) }

// waiting are the findings of records that wait for another attempt, by record.
func (w *stage) waiting() map[string]lockstep.Finding {
	w.t.Helper()
	found, err := w.app.Waiting(w.t.Context(), w.account.ID, "", 500)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]lockstep.Finding{}
	for _, f := range found {
		if f.Retry == nil || f.Message == "" || f.Code != lockstep.FindingRejected {
			w.t.Errorf("%+v", f)
		}
		out[f.Record.String()] = f
	}
	return out
}

func (w *stage) poison(twin, operation string, args cols) {
	w.t.Helper()
	w.twins.Faults.Clear()
	doc, err := json.Marshal(args)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.twins.Faults.Add(fault.Fault{Twin: twin, Kind: "row-poison", Operation: operation, Args: doc}); err != nil {
		w.t.Fatal(err)
	}
}

// One row in a hundred is always refused: the others get through, it is tried again less
// and less often, together with the others that wait, and told with its reason until the
// other side takes it.
func TestRefusedRowsAreTriedAgain(t *testing.T) {
	t.Parallel()
	var clock ahead
	w := newStageWith(t, app.Config{Now: clock.now})
	l := w.list("Many", "contact", lockstep.ActionIgnore, "")
	var ids []string
	for i := range 200 {
		ids = append(ids, w.cast("contact", fmt.Sprintf("p%03d@stage.example", i)))
	}
	w.join(l, ids...)
	bad := []string{"p007@stage.example", "p107@stage.example"}
	w.poison(fault.Dotdigital, "contacts.import", cols{"emails": bad})
	run := w.sync()
	if c := run.Counts; c.ContactsCreated != 198 || c.Rejected != 2 || run.Status != lockstep.RunCompletedWithErrors {
		t.Fatalf("status %s, counts %+v", run.Status, c)
	}
	var delays []int
	began := clock.now()
	for attempt := 1; attempt <= 12; attempt++ {
		waiting := w.waiting()
		if got := slices.Sorted(maps.Keys(waiting)); !slices.Equal(got, []string{ids[7], ids[107]}) {
			t.Fatalf("waiting after %d attempts: %v", attempt, got)
		}
		f := waiting[ids[7]]
		delay := f.Retry.Next.Sub(began).Round(time.Minute)
		delays = append(delays, int(delay/time.Minute))
		if f.Retry.Attempts != attempt || f.Run != run.ID {
			t.Fatalf("attempt %d: %+v", attempt, f.Retry)
		}
		// Before its time nobody asks again, however often the sync runs.
		clock.pass(delay - time.Minute)
		w.resetCalls()
		if early := w.sync(); early.Counts.Rejected != 0 || w.calls("dotdigital")["contacts.import"] != 0 || len(w.findings(early)) != 0 {
			t.Fatalf("%v before its time: %+v %v", delay, early.Counts, w.calls("dotdigital"))
		}
		clock.pass(2 * time.Minute)
		began = clock.now()
		w.resetCalls()
		run = w.sync()
		if n := w.calls("dotdigital")["contacts.import"]; n != 1 || run.Counts.Rejected != 2 {
			t.Fatalf("attempt %d: %d imports, %+v", attempt+1, n, run.Counts)
		}
	}
	if want := []int{5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440, 1440}; !slices.Equal(delays, want) {
		t.Errorf("delays in minutes: %v", delays)
	}
	// A person who knows that it is mended need not wait.
	w.poison(fault.Dotdigital, "contacts.import", cols{"emails": bad[1:]})
	asked, err := w.app.RetryFinding(t.Context(), w.waiting()[ids[7]].ID)
	if err == nil {
		asked, err = w.app.Wait(t.Context(), asked.ID)
	}
	if err != nil || asked.Counts.ContactsCreated != 1 || asked.Counts.Rejected != 0 {
		t.Fatalf("asked for: %+v %v", asked.Counts, err)
	}
	if got := w.waiting(); len(got) != 1 || got[ids[107]].Retry.Attempts != 13 {
		t.Errorf("still waiting: %v", got)
	}
	w.twins.Faults.Clear()
	clock.pass(25 * time.Hour)
	if run := w.sync(); run.Counts.ContactsCreated != 1 || len(w.waiting()) != 0 {
		t.Errorf("once it is mended: %+v, waiting %v", run.Counts, w.waiting())
	}
	if n := len(w.contacts(w.book(l))); n != 200 {
		t.Errorf("%d people in the address book", n)
	}
	clock.pass(25 * time.Hour)
	w.quiet()
}

// A record that the CRM does not let change, and a contact that cannot have an address,
// are tried again like any other.
func TestRefusedUpdatesAreTriedAgain(t *testing.T) {
	t.Parallel()
	var clock ahead
	w := newStageWith(t, app.Config{Now: clock.now})
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.sync()

	w.poison(fault.Dataverse, "", cols{"id": ann})
	w.editContact("ann@stage.example", cols{"JOBTITLE": "Chief"})
	w.told(w.sync(), lockstep.FindingRejected, ann)
	w.twins.Faults.Clear()
	if run := w.sync(); run.Counts.RecordsUpdated != 0 {
		t.Errorf("before its time: %+v", run.Counts)
	}
	clock.pass(6 * time.Minute)
	w.sync()
	if got := w.record("contact", ann, "jobtitle").str("jobtitle"); got != "Chief" || len(w.waiting()) != 0 {
		t.Errorf("job title %q, waiting %v", got, w.waiting())
	}
	w.quiet()

	w.poison(fault.Dotdigital, "contacts.import", cols{"emails": []string{"new@stage.example"}})
	w.editRecord("contact", ben, cols{"emailaddress1": "new@stage.example"})
	for range 3 { // somebody else may have it still
		w.told(w.sync(), lockstep.FindingRejected, ben)
	}
	w.resetCalls()
	if run := w.sync(); run.Counts.Rejected != 0 || w.calls("dotdigital")["contacts.import"] != 0 {
		t.Errorf("a fourth time at once: %+v", run.Counts)
	}
	w.twins.Faults.Clear()
	clock.pass(21 * time.Minute)
	w.sync()
	if got := slices.Sorted(maps.Keys(w.contacts(w.book(l)))); strings.Join(got, " ") != "ann@stage.example new@stage.example" {
		t.Errorf("in the address book: %v", got)
	}
	if got := w.waiting(); len(got) != 0 {
		t.Errorf("waiting %v", got)
	}
	w.quiet()
}
