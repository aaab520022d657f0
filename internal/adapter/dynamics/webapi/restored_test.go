package webapi

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// An organization that was set back is told by the count of changes in its delta links;
// changes, few or many, are not taken for it, nor is a count that has been made up for.
func TestSetBack(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 20))
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname"}}
	_, cursor, err := read(t.Context(), c, q, "")
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, from lockstep.Cursor, want bool, calls int64) {
		t.Helper()
		var got bool
		if n := w.count(func() { got, err = c.SetBack(t.Context(), q, from) }); n != calls || err != nil || got != want {
			t.Errorf("%s: %v in %d calls, %v; want %v in %d", when, got, n, err, want, calls)
		}
	}
	check("when nothing changed", cursor, false, 1)
	for n := range 3 {
		w.post("PATCH", "contacts("+id(7).String()+")", fmt.Sprintf(`{"firstname":"New %d"}`, n))
		check("when one record changed", cursor, false, 1)
	}
	w.write(c, "contact", people(100, 250))
	check("when many changed", cursor, false, 1)
	_, later, err := read(t.Context(), c, q, cursor)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.org.Restore(200); n != 200 {
		t.Fatalf("%d writes were taken back", n)
	}
	check("when writes since were taken back", later, true, 1)
	if _, _, err := read(t.Context(), c, q, later); lockstep.CodeOf(err) != lockstep.CodeExpired || !errors.Is(err, lockstep.ErrSetBack) {
		t.Errorf("the feed goes on: %v", err)
	}
	check("from before the backup", cursor, false, 1)
	w.write(c, "contact", people(400, 250))
	check("when more was written than taken back", later, false, 1)
	for _, other := range []lockstep.Cursor{"", "nonsense", "p.1234.2026-01-01T00:00:00Z.", later[:len(later)/2]} {
		check("of "+string(other), other, false, 0)
	}
	q.Columns = []string{"lastname"}
	check("of other columns", later, false, 0)
}
