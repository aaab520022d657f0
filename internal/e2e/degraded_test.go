package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// An organization without bulk messages, as on premises, or whose tables do not track
// their changes, gets the same: edits and opt-outs go both ways, who leaves leaves, a
// stranger becomes a record, and it ends quiet.
func TestOrganizationThatOffersLess(t *testing.T) {
	t.Parallel()
	for name, less := range map[string]struct{ bulk, tracked bool }{"no bulk messages": {false, true}, "no change tracking": {true, false}, "neither": {false, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			for _, table := range []string{"contact", "lead", "account"} {
				if err := w.twins.Dataverse.SetBulkMessages(table, less.bulk); err != nil {
					t.Fatal(err)
				}
				if !less.tracked {
					w.alter(fmt.Sprintf(`{"table":%q,"change":"tracking-off"}`, table))
				}
			}
			w.run(lockstep.SyncCRMMetadata)
			l := w.list("Readers", "contact", lockstep.ActionCreateContact, "")
			d := w.list("Of Oslo", "contact", lockstep.ActionIgnore, `<condition attribute="address1_city" operator="eq" value="Oslo"/>`)
			ids := map[string]string{}
			for _, who := range []string{"ann", "ben", "cleo", "dora", "emil", "fay", "gus"} {
				ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "Oslo"})
				w.join(l, ids[who])
			}
			w.sync()
			w.run(lockstep.SyncSuppressions)
			w.run(lockstep.SyncUnsubscribes)
			w.wantIn("at first", l, "ann", "ben", "cleo", "dora", "emil", "fay", "gus")
			w.twins.Clock.Advance(20 * time.Minute) // so that the edits are newer than what was read
			w.editRecord("contact", ids["ann"], cols{"address1_city": "Bergen", "emailaddress1": "ann.new@stage.example"})
			w.editContact("ben@stage.example", cols{"JOBTITLE": "Baker"})
			w.optOut("cleo@stage.example")
			w.editRecord("contact", ids["dora"], cols{"donotbulkemail": true})
			w.quit(l, ids["emil"])
			w.crm("DELETE", "contacts("+ids["fay"]+")", nil, nil)
			w.optOutOf(w.book(l), "gus@stage.example")
			w.signUp(w.book(l), "zoe@stage.example", "LASTNAME", "Zoe")
			for range 2 {
				w.run(lockstep.SyncSuppressions)
				w.run(lockstep.SyncUnsubscribes)
				w.sync()
			}
			w.wantIn("afterwards", l, "ann.new", "ben", "zoe")
			w.wantIn("afterwards", d, "ben", "emil", "gus")
			if got := w.field("ann.new@stage.example", "CITY"); got != "Bergen" {
				t.Errorf("an edit of the CRM did not travel: %v", got)
			}
			if r := w.record("contact", ids["ben"], "jobtitle"); r.str("jobtitle") != "Baker" {
				t.Errorf("an edit of the platform did not travel: %v", r)
			}
			if got := w.closed(); !slices.Equal(got, []string{"contact cleo@stage.example", "contact dora@stage.example"}) {
				t.Errorf("closed: %v", got)
			}
			n := 0
			for _, r := range w.people("contact") {
				if r.str("emailaddress1") == "zoe@stage.example" {
					n++
				}
			}
			if n != 1 {
				t.Errorf("zoe is in the CRM %d times", n)
			}
			w.quiet()
		})
	}
}
