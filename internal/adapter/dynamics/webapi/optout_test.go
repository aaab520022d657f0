package webapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// closed loads records that are all closed to bulk email, modified at one time.
func (w *world) closed(table string, from, count int, modified string) {
	w.t.Helper()
	name := map[string]string{"contact": "lastname", "lead": "lastname", "account": "name"}[table]
	l, err := w.org.Loader(table, []string{table + "id", name, "emailaddress1", "donotbulkemail", "modifiedon"})
	if err != nil {
		w.t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339, modified)
	if err != nil {
		w.t.Fatal(err)
	}
	for n := from; n < from+count; n++ {
		if err := l.Append(value.GUID(value.ID(id(n))), value.Text("x"), value.Text("p@example.com"), value.Bool(true), value.DateTime(at)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// optOuts reads to the end and counts how often each record came.
func (w *world) optOuts(c *Client, table string, since lockstep.Cursor) (map[lockstep.ID]int, lockstep.Cursor) {
	w.t.Helper()
	seen := map[lockstep.ID]int{}
	end, err := c.OptOuts(w.t.Context(), table, since, func(records []lockstep.Record) error {
		for _, r := range records {
			if r.OptOut == 0 || r.Modified.IsZero() || r.Version == 0 || r.Email == "" {
				w.t.Errorf("%+v", r)
			}
			seen[r.ID]++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return seen, end
}

func TestOptOutsAskForClosedRecordsAlone(t *testing.T) {
	var queries []string
	w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/leads") {
				q, _ := url.QueryUnescape(r.URL.RawQuery)
				queries = append(queries, q)
			}
			h.ServeHTTP(rw, r)
		})
	}})
	c := w.open()
	w.closed("lead", 1, 1, "2026-03-01T10:00:00Z")
	_, cursor := w.optOuts(c, "lead", "")
	if n := w.count(func() { w.optOuts(c, "lead", cursor) }); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	if len(queries) != 2 {
		t.Fatalf("%d queries", len(queries))
	}
	if q := queries[0]; !strings.Contains(q, "$filter=(donotemail eq true or donotbulkemail eq true)&$orderby=modifiedon asc,leadid asc") {
		t.Error(q)
	}
	// The time is ten minutes before the newest row, not before now.
	if q := queries[1]; !strings.Contains(q, "and modifiedon ge 2026-03-01T09:50:00Z&") {
		t.Error(q)
	}
}

// More records than a page holds carry one time: none is lost or repeated where a
// page ends among them, and the next read reaches back over all of them.
func TestOptOutsWithEqualTimes(t *testing.T) {
	for _, table := range []string{"contact", "lead", "account"} {
		t.Run(table, func(t *testing.T) {
			w := newWorld(t, options{})
			c := w.open()
			w.closed(table, 1, 50, "2026-03-01T09:00:00Z")
			w.closed(table, 100, 2*pageRows+30, "2026-03-01T10:00:00Z")
			seen, cursor := w.optOuts(c, table, "")
			if len(seen) != 50+2*pageRows+30 {
				t.Errorf("%d records, want %d", len(seen), 50+2*pageRows+30)
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("%s came %d times", id, n)
				}
			}
			// Another transaction of that time becomes visible late.
			w.closed(table, 900, 1, "2026-03-01T10:00:00Z")
			seen, cursor = w.optOuts(c, table, cursor)
			if len(seen) != 2*pageRows+31 || seen[id(900)] != 1 {
				t.Errorf("%d records the second time, want %d", len(seen), 2*pageRows+31)
			}
			// The time of our machine plays no part.
			w.clock.Advance(48 * time.Hour)
			w.closed(table, 901, 1, "2026-03-01T10:00:01Z")
			if seen, _ = w.optOuts(c, table, cursor); seen[id(901)] != 1 {
				t.Error("a record a second newer did not come")
			}
		})
	}
}

// A read that stops covers what was delivered and no more.
func TestOptOutsStop(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.closed("contact", 1, pageRows, "2026-03-01T08:00:00Z")
	w.closed("contact", 500, pageRows, "2026-03-01T10:00:00Z")
	w.closed("contact", 1000, 20, "2026-03-01T12:00:00Z")
	stop := errors.New("stop")
	pages := 0
	cursor, err := c.OptOuts(t.Context(), "contact", "", func([]lockstep.Record) error {
		if pages++; pages == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if seen, _ := w.optOuts(c, "contact", cursor); len(seen) != 2*pageRows+20 {
		t.Errorf("%d records after the stop, want %d", len(seen), 2*pageRows+20)
	}
	cursor, err = c.OptOuts(t.Context(), "contact", "", func([]lockstep.Record) error { return stop })
	if cursor != "" || !errors.Is(err, stop) {
		t.Errorf("nothing was taken, and the cursor is %q (%v)", cursor, err)
	}
}

func TestOptOutsRefusals(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	_, cursor := w.optOuts(c, "contact", "")
	none := func([]lockstep.Record) error { return nil }
	for name, tc := range map[string]struct {
		table string
		since lockstep.Cursor
		want  lockstep.Code
	}{
		"another table's cursor": {"lead", cursor, lockstep.CodeExpired},
		"no cursor of ours":      {"contact", "o.contact.yesterday", lockstep.CodeExpired},
		"a table without flags":  {"list", "", lockstep.CodeUnsupported},
		"no table":               {"nosuchtable", "", lockstep.CodeNotFound},
	} {
		if _, err := c.OptOuts(t.Context(), tc.table, tc.since, none); lockstep.CodeOf(err) != tc.want {
			t.Errorf("%s: %v (%s), want %s", name, err, lockstep.CodeOf(err), tc.want)
		}
	}
}
