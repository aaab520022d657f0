package e2e

import (
	"fmt"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// A data field that somebody deletes on the platform, or makes anew with another type, is
// no cleared value: nothing is blanked in the CRM, edits of other fields go on both ways,
// and somebody is told of the one that stands still.
func TestDataFieldDeletedOnThePlatform(t *testing.T) {
	t.Parallel()
	for _, anew := range []string{"", "Numeric", "String"} {
		for _, metadata := range []bool{false, true} {
			t.Run(fmt.Sprintf("anew %q, labels compared %t", anew, metadata), func(t *testing.T) {
				t.Parallel()
				w := newStage(t)
				l := w.list("One", "contact", lockstep.ActionIgnore, "")
				ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot", "address1_city": "Oslo"})
				ben := w.cast("contact", "ben@stage.example", cols{"jobtitle": "Baker", "address1_city": "Oslo"})
				cleo := w.cast("contact", "cleo@stage.example", cols{"jobtitle": "Cook"})
				w.join(l, ann, ben, cleo)
				job := map[string]string{ann: "Pilot", ben: "Baker", cleo: "Chef"}
				in := []string{"ann", "ben", "cleo"}
				for _, who := range []string{"dora", "emil", "fay", "gus", "hal"} {
					id := w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who})
					w.join(l, id)
					job[id], in = "Job of "+who, append(in, who)
				}
				w.sync()
				w.sync()
				w.mail("DELETE", "/v2/data-fields/JOBTITLE", nil, nil)
				if anew != "" {
					w.mail("POST", "/v2/data-fields", cols{"name": "JOBTITLE", "type": anew, "visibility": "Private"}, nil)
				}
				w.editRecord("contact", ann, cols{"address1_city": "Bergen"})
				w.editRecord("contact", cleo, cols{"jobtitle": "Chef"})
				w.editContact("ben@stage.example", cols{"PHONE": "+47 55 100 200"})
				if metadata {
					run := w.run(lockstep.SyncDataLabels)
					if anew == "Numeric" {
						told := false
						for _, f := range w.findings(run) {
							told = told || f.Code == lockstep.FindingMappingDisabled && f.Field == "JOBTITLE"
						}
						if !told {
							t.Error("nobody was told that the field has another type")
						}
					}
				}
				for i := range 3 {
					// The first run may learn of it only when an import is refused.
					run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
					if err != nil && i > 0 {
						t.Errorf("the sync is %s: %q, %q", run.Status, run.Error, run.Hint)
					}
				}
				check := func(when string, filled bool) {
					t.Helper()
					for id, want := range job {
						r := w.record("contact", id, "jobtitle,emailaddress1")
						if got := r.str("jobtitle"); got != want {
							t.Errorf("%s: the CRM has the job title %q, had %q", when, got, want)
						}
						if got := w.field(r.str("emailaddress1"), "JOBTITLE"); filled && got != want {
							t.Errorf("%s: the platform has the job title %q, want %q", when, got, want)
						}
					}
				}
				check("afterwards", anew == "String")
				if got := w.field("ann@stage.example", "CITY"); got != "Bergen" {
					t.Errorf("an edit of another field did not arrive: %q", got)
				}
				if got := w.record("contact", ben, "telephone1").str("telephone1"); got != "+47 55 100 200" {
					t.Errorf("an edit of another field on the platform did not arrive: %q", got)
				}
				w.wantIn("afterwards", l, in...)
				if anew == "Numeric" { // somebody has to put it right
					w.mail("DELETE", "/v2/data-fields/JOBTITLE", nil, nil)
				}
				w.run(lockstep.SyncDataLabels)
				w.sync()
				w.sync()
				check("with a field again", true)
				w.quiet()
			})
		}
	}
}
