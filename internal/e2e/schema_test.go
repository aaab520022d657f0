package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Our tables come to the CRM; then they are known, and are no tables to map.
func TestOwnTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{bare: true})
	ctx := t.Context()
	before := w.run(lockstep.SyncCRMMetadata)
	planned, err := w.app.PlanSchema(ctx, "Sample")
	if err != nil || len(planned) == 0 {
		t.Fatalf("%v %v", planned, err)
	}
	// A call whose time is up before the first step takes none.
	done, err := w.app.InstallSchema(ctx, w.account.Organization, time.Nanosecond)
	if err != nil || len(done.Taken) != 0 || len(done.Left) != len(planned) {
		t.Fatalf("%v %v", done, err)
	}
	done, err = w.app.InstallSchema(ctx, w.account.Organization, 0)
	if err != nil || len(done.Taken) != len(planned) || len(done.Left) != 0 {
		t.Fatalf("%v %v", done, err)
	}
	run, err := w.app.RefreshMetadata(ctx, w.account.Organization)
	if err != nil {
		t.Fatal(err)
	}
	if run, err = w.app.Wait(ctx, run.ID); err != nil || run.Counts.Read < before.Counts.Read+40 {
		t.Errorf("%d columns read, %d before: %v", run.Counts.Read, before.Counts.Read, err)
	}
	tables, err := w.app.Tables(ctx, w.account.ID)
	if err != nil || len(tables) != 3 || slices.ContainsFunc(tables, func(t lockstep.Table) bool { return slices.Contains(lockstep.OwnTables, t.Name) }) {
		t.Errorf("%d tables to map: %v", len(tables), err)
	}
	_, err = w.app.SaveMapping(ctx, lockstep.DataMapping{Account: w.account.ID, Label: "FIRSTNAME", Table: lockstep.SuppressionTable, Direction: lockstep.ToPlatform, Column: lockstep.NameColumn})
	if lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a mapping of a table of ours: %v", err)
	}
	if n := len(w.rows("lockstep_suppressions?$select=lockstep_email")); n != 0 {
		t.Errorf("%d rows", n)
	}
	_, confirm, err := w.app.PlanSchemaRemoval(ctx, "Sample")
	if err != nil {
		t.Fatal(err)
	}
	if done, err = w.app.RemoveSchema(ctx, "Sample", confirm, time.Nanosecond); err != nil || len(done.Taken) != 0 || done.Confirm == "" {
		t.Fatalf("%v %v", done, err)
	}
	if done, err = w.app.RemoveSchema(ctx, "Sample", done.Confirm, 0); err != nil || len(done.Left) != 0 || done.Confirm != "" {
		t.Fatalf("%v %v", done, err)
	}
	if planned, err = w.app.PlanSchema(ctx, "Sample"); err != nil || len(planned) != 14 {
		t.Errorf("%d steps after the removal: %v", len(planned), err)
	}
}
