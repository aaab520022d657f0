package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// TestNoPingPong makes a thousand edits on both sides in five rounds. Each round costs one
// write a person and side at most, the next run writes nothing, and both sides agree.
func TestNoPingPong(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	floor := 10_000
	w.guards(app.GuardPatch{Floor: &floor})
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	const people, rounds, edits = 90, 5, 200
	ids := make([]string, people)
	email := func(i int) string { return fmt.Sprintf("p%02d@stage.example", i) }
	for i := range ids {
		ids[i] = w.cast("contact", email(i), cols{"jobtitle": "base", "telephone1": "1"})
	}
	w.join(l, ids...)
	w.sync()
	w.sync()
	rnd := rand.New(rand.NewPCG(1, 10))
	columns := map[string]string{"JOBTITLE": "jobtitle", "PHONE": "telephone1"}
	for round := range rounds {
		inCRM, onPlatform := map[int]bool{}, map[int]bool{}
		for n := range edits {
			i, text := rnd.IntN(people), fmt.Sprint("edit ", round, " ", n)
			if n%10 == 0 {
				w.twins.Clock.Advance(time.Second)
			}
			label := []string{"JOBTITLE", "PHONE"}[rnd.IntN(2)]
			if rnd.IntN(2) == 0 {
				inCRM[i] = true
				w.editRecord("contact", ids[i], cols{columns[label]: text})
			} else {
				onPlatform[i] = true
				w.editContact(email(i), cols{label: text})
			}
		}
		w.twins.Clock.Advance(2 * time.Second)
		before := w.crmWrites.Load()
		run := w.sync()
		if n := run.Counts.RecordsUpdated; n > int64(len(onPlatform)) || w.crmWrites.Load()-before > n {
			t.Errorf("round %d: %d records written in %d writes, %d people were edited on the platform", round, n, w.crmWrites.Load()-before, len(onPlatform))
		}
		if n := run.Counts.ContactsUpdated; n > int64(len(inCRM)) {
			t.Errorf("round %d: %d contacts written, %d people were edited in the CRM", round, n, len(inCRM))
		}
		w.quiet()
	}
	contacts := w.contacts("")
	for _, r := range w.rows("contacts?$select=emailaddress1,jobtitle,telephone1") {
		c, ok := contacts[r.str("emailaddress1")]
		for label, column := range columns {
			if ok && fmt.Sprint(c.DataFields[label]) != r.str(column) {
				t.Errorf("%s: %s is %q in the CRM and %v on the platform", r.str("emailaddress1"), column, r.str(column), c.DataFields[label])
			}
		}
	}
}
