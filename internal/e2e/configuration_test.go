package e2e

import (
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/configuration"
)

// A document that makes a label and maps it at once works without a second one, and what
// it changes waits for a preview as everything does.
func TestConfigurationIsAppliedToARunningAccount(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	yes := true
	w.guards(app.GuardPatch{ConfirmChanges: &yes})
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(3)
	for _, id := range ids {
		w.editRecord("contact", id, cols{"address1_postalcode": "4020"})
	}
	w.join(l, ids...)
	w.sync()
	d, err := w.app.Configuration(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	text := string(d.Text())
	text = strings.Replace(text, "    labels:\n", "    labels:\n      - {name: ZIP, type: text}\n", 1)
	text = strings.Replace(text, "    mappings:\n", "    mappings:\n      - {label: ZIP, table: contact, direction: to_platform, column: address1_postalcode}\n", 1)
	if d, err = configuration.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if plan, err := w.app.ApplyConfiguration(t.Context(), d, "", ""); err != nil || len(plan.Changes) != 2 {
		t.Fatalf("%+v, %v", plan.Changes, err)
	}
	w.resetCalls()
	w.guardedRun(lockstep.SyncMarketingLists, "the mappings of contact")
	if n := w.allWrites(); n != 0 {
		t.Errorf("%d writes", n)
	}
	// Its field is not there yet: the mapping carries nothing, and the run says so.
	if _, applied := w.approve(lockstep.SyncMarketingLists); applied.Status != lockstep.RunCompletedWithErrors || applied.Counts.Findings != 1 || applied.Counts.ContactsUpdated != 0 {
		t.Errorf("%s %+v", applied.Status, applied.Counts)
	}
	w.run(lockstep.SyncDataLabels)
	if run := w.sync(); run.Status != lockstep.RunCompleted || run.Counts.ContactsUpdated != 3 {
		t.Errorf("%s %+v", run.Status, run.Counts)
	}
	for email, c := range w.contacts(w.book(l)) {
		if c.DataFields["ZIP"] != "4020" {
			t.Errorf("%s has %v", email, c.DataFields)
		}
	}
	if plan, err := w.app.PlanConfiguration(t.Context(), d, ""); err != nil || len(plan.Changes) > 0 {
		t.Errorf("there is a difference: %+v, %v", plan.Changes, err)
	}
	w.quiet()
}
