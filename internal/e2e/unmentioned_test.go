package e2e

import (
	"encoding/json"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// An import that ends without saying whom it wrote may have put somebody into an address
// book. Who leaves the list before the next run leaves the book as well, and is not taken
// for a stranger who came to it by a form.
func TestWhomAnImportDoesNotMentionLeavesTheBookWithTheList(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Letters", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, w.cast("contact", "cem@stage.example"))
	w.sync()
	w.join(l, ann, ben)
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "bulk-partial", Count: 1, Args: json.RawMessage(`{"mode":"no-report"}`)}); err != nil {
		t.Fatal(err)
	}
	run := w.sync()
	if run.Counts.Rejected != 2 {
		t.Fatalf("%d were not known of, want 2", run.Counts.Rejected)
	}
	w.quit(l, ann)
	w.sync()
	w.sync()
	there := w.contacts(w.book(l))
	if _, in := there["ann@stage.example"]; in {
		t.Error("she left the list and is still in its book")
	}
	if _, in := there["ben@stage.example"]; !in {
		t.Error("he is not in the book")
	}
	w.quiet()
}
