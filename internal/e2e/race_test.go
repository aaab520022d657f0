package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// racing is a stage on which somebody edits records in the CRM in the moment in which
// the product's write of records is on its way.
func racing(t *testing.T) (w *stage, edit *atomic.Pointer[func()]) {
	t.Helper()
	edit = &atomic.Pointer[func()]{}
	wrap := func(name string, next http.Handler) http.Handler {
		if name != fault.Dataverse {
			return next
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Microsoft.Dynamics.CRM.UpdateMultiple") || strings.HasSuffix(r.URL.Path, "/$batch") {
				if f := edit.Load(); f != nil {
					(*f)()
				}
			}
			next.ServeHTTP(rw, r)
		})
	}
	w = &stage{world: newWorld(t, worldOptions{twins: twin.Options{Contacts: 1, Plain: true, Wrap: wrap}, cfg: app.Config{}, bare: true})}
	w.mapFields()
	return w, edit
}

// TestWritersRacingOnARow lets people in the CRM edit records just before the product
// writes what the platform said about them: the same field, under a policy by which
// either side wins, or another one; once, or again with each further try. No edit may
// vanish: what lost is a conflict that shows it, and different fields are both kept.
func TestWritersRacingOnARow(t *testing.T) {
	t.Parallel()
	w, edit := racing(t)
	mappings, err := w.app.Mappings(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mappings {
		if m.Table == "contact" && m.Label == "PHONE" {
			m.Winner = lockstep.WinnerPlatform
			if _, err := w.app.SaveMapping(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	type racer struct {
		id, email string
		label     string // what the platform edits
		column    string // what the CRM's writers edit
		writers   int
		last      string // of their edits
	}
	var racers []*racer
	var ids []string
	for _, what := range [][2]string{{"JOBTITLE", "jobtitle"}, {"PHONE", "telephone1"}, {"JOBTITLE", "telephone1"}, {"PHONE", "jobtitle"}, {"JOBTITLE", "nickname"}} {
		for writers := range 4 {
			r := &racer{email: fmt.Sprintf("racer.%02d@stage.example", len(racers)), label: what[0], column: what[1], writers: writers}
			r.id = w.cast("contact", r.email, cols{"jobtitle": "base", "telephone1": "base"})
			racers, ids = append(racers, r), append(ids, r.id)
		}
	}
	w.join(l, ids...)
	w.sync()
	w.sync()
	w.twins.Clock.Advance(2 * time.Second)
	for _, r := range racers {
		w.editContact(r.email, cols{r.label: "platform"})
	}
	w.twins.Clock.Advance(2 * time.Second)
	tries := 0
	people := func() {
		tries++
		for _, r := range racers {
			if tries <= r.writers {
				r.last = fmt.Sprintf("crm %d", tries)
				w.editRecord("contact", r.id, cols{r.column: r.last})
			}
		}
	}
	edit.Store(&people)
	conflicts := map[string][]lockstep.Conflict{}
	for range 4 {
		all, err := w.app.Conflicts(t.Context(), app.ConflictFilter{Account: w.account.ID, Run: w.sync().ID, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			key := c.Ref.ID.String() + " " + c.Label
			conflicts[key] = append(conflicts[key], c)
		}
	}
	if tries < 3 {
		t.Errorf("the product tried %d times only; the race was not run", tries)
	}
	for _, r := range racers {
		columns := map[string]string{"JOBTITLE": "jobtitle", "PHONE": "telephone1"}
		want := map[string]string{"jobtitle": "base", "telephone1": "base", columns[r.label]: "platform"}
		clash := r.writers > 0 && r.column == columns[r.label]
		if r.writers > 0 && (!clash || r.label == "JOBTITLE") { // the newest wins, and that is the CRM's
			want[r.column] = r.last
		}
		now, c := w.record("contact", r.id, "jobtitle,telephone1,nickname"), w.contact(r.email)
		for label, column := range columns {
			if now.str(column) != want[column] || c.DataFields[label] != want[column] {
				t.Errorf("%+v: %s is %s in the CRM and %v on the platform, want %s", *r, column, now.str(column), c.DataFields[label], want[column])
			}
		}
		told := slices.ContainsFunc(conflicts[r.id+" "+r.label], func(c lockstep.Conflict) bool {
			return c.Platform.Text() == "platform" && (c.CRM.Text() == r.last || c.Winner == "crm") // the CRM's own last edit stands
		})
		if told != clash {
			t.Errorf("%+v: conflicts %+v", *r, conflicts[r.id+" "+r.label])
		}
		if r.column == "nickname" && r.writers > 0 && now.str("nickname") != r.last {
			t.Errorf("%+v: the nickname is %q", *r, now.str("nickname"))
		}
	}
	w.sync()
	if again := w.sync(); again.Counts.Written != 0 {
		t.Errorf("the race goes on: %+v", again.Counts)
	}
}

// TestUndoRacingWithAnEdit edits a record just before an undo gives it its old value
// back: the edit stays and goes to the platform, somebody is told, and others are undone.
func TestUndoRacingWithAnEdit(t *testing.T) {
	t.Parallel()
	w, edit := racing(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Buyer"}), w.cast("contact", "ben@stage.example", cols{"jobtitle": "Clerk"})
	w.join(l, ann, ben)
	w.sync()
	w.sync()
	w.editContact("ann@stage.example", cols{"JOBTITLE": "Boss"})
	w.editContact("ben@stage.example", cols{"JOBTITLE": "Chief"})
	run := w.sync()
	people := func() {
		w.twins.Clock.Advance(2 * time.Second)
		w.editRecord("contact", ann, cols{"jobtitle": "Queen"})
		edit.Store(nil)
	}
	edit.Store(&people)
	undo := w.undo(app.UndoRequest{Run: run.ID})
	if edit.Load() != nil {
		t.Fatal("the undo wrote nothing to the CRM")
	}
	w.told(undo, lockstep.FindingRejected, ann)
	w.sync()
	w.sync()
	for who, want := range map[string][2]string{ann: {"Queen", "Queen"}, ben: {"Clerk", "Chief"}} {
		email := map[string]string{ann: "ann@stage.example", ben: "ben@stage.example"}[who]
		if got := [2]string{w.record("contact", who, "jobtitle").str("jobtitle"), fmt.Sprint(w.field(email, "JOBTITLE"))}; got != want {
			t.Errorf("%s: %v, want %v", email, got, want)
		}
	}
	if again := w.sync(); again.Counts.Written != 0 {
		t.Errorf("afterwards %+v", again.Counts)
	}
}
