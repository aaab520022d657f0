package e2e

import (
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// unmap deletes all mappings of a label.
func (w *stage) unmap(label string) {
	w.t.Helper()
	all, err := w.app.Mappings(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range all {
		if m.Label == label {
			if err := w.app.DeleteMapping(w.t.Context(), m.ID); err != nil {
				w.t.Fatalf("delete the mapping of %s: %v", label, err)
			}
		}
	}
}

// A field whose mappings are deleted and made again is known again of everybody on the
// platform, also of those whose contact was read meanwhile for its other fields.
func TestFieldMappedAgain(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{"TOWN": lockstep.FieldText})
	w.twoWay("TOWN", "address1_city")
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.signUp(w.book(l), "zoe@stage.example", "TOWN", "Rome")
	w.sync()
	w.unmap("TOWN")
	w.sync()
	w.twoWay("TOWN", "address1_city")
	w.sync()
	zoe := w.cast("contact", "zoe@stage.example")
	w.join(l, zoe)
	w.sync()
	if got := w.people("contact")[zoe].str("address1_city"); got != "Rome" {
		t.Errorf("the city of the record that zoe's contact found is %q, want Rome", got)
	}
	if got := w.field("zoe@stage.example", "TOWN"); got != "Rome" {
		t.Errorf("zoe's city on the platform is %v, want Rome", got)
	}
	w.sync() // the record's own fields follow
	w.quiet()
}
