package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// plugged is a stage on which code of the organization runs after each write of the
// product: after has it do something.
func plugged(t *testing.T) (w *stage, after func(func())) {
	t.Helper()
	var mu sync.Mutex
	var code func()
	wrap := func(name string, next http.Handler) http.Handler {
		if name != fault.Dataverse {
			return next
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(rw, r)
			if !strings.HasSuffix(r.URL.Path, "/Microsoft.Dynamics.CRM.UpdateMultiple") && !strings.HasSuffix(r.URL.Path, "/Microsoft.Dynamics.CRM.CreateMultiple") && !strings.HasSuffix(r.URL.Path, "/$batch") {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if code != nil {
				code()
			}
		})
	}
	w = &stage{world: newWorld(t, worldOptions{twins: twin.Options{Contacts: 1, Plain: true, Wrap: wrap}, cfg: app.Config{}, bare: true})}
	w.mapFields()
	return w, func(f func()) { mu.Lock(); code = f; mu.Unlock() }
}

// A plug-in that changes what the product has written (upper case, trimmed, a default)
// has the last word: the platform learns it, the product does not insist, and after that
// nothing is written any more.
func TestPluginAltersWhatIsWritten(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]func(string) any{
		"upper case": func(s string) any { return strings.ToUpper(s) },
		"cut off":    func(s string) any { return s[:min(4, len(s))] },
		"default":    func(string) any { return "n/a" },
		"cleared":    func(string) any { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, after := plugged(t)
			l := w.list("One", "contact", lockstep.ActionIgnore, "")
			var ids []string
			for _, who := range []string{"ann", "ben", "cleo"} {
				ids = append(ids, w.cast("contact", who+"@stage.example", cols{"jobtitle": "Base"}))
			}
			w.join(l, ids...)
			w.sync()
			w.sync()
			wrote := 0
			after(func() {
				for _, id := range ids[:2] {
					is := w.record("contact", id, "jobtitle").str("jobtitle")
					if to := alter(is); is != "" && fmt.Sprint(to) != is {
						wrote++
						w.editRecord("contact", id, cols{"jobtitle": to})
					}
				}
			})
			w.editContact("ann@stage.example", cols{"JOBTITLE": "Chief pilot"})
			w.editContact("ben@stage.example", cols{"PHONE": "12"})
			w.editContact("cleo@stage.example", cols{"JOBTITLE": "Cook"})
			var written []int64
			for range 4 {
				written = append(written, w.sync().Counts.Written)
			}
			if wrote == 0 {
				t.Fatal("the plug-in never ran")
			}
			if written[2]+written[3] != 0 {
				t.Errorf("the runs wrote %v times", written)
			}
			for i, who := range []string{"ann", "ben", "cleo"} {
				crm, mail := w.record("contact", ids[i], "jobtitle").str("jobtitle"), rec(w.contact(who+"@stage.example").DataFields).str("JOBTITLE")
				if crm != mail {
					t.Errorf("%s: the CRM has %q, the platform %q", who, crm, mail)
				}
			}
			if got := w.record("contact", ids[2], "jobtitle").str("jobtitle"); got != "Cook" {
				t.Errorf("another record has %q", got)
			}
		})
	}
}

// A plug-in that answers every write of the product with one of its own, to another field
// or back to the old value, does not start a game: a change costs two writes a side at
// most.
func TestPluginThatWritesBack(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"address1_city", "jobtitle", "telephone1"} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			w, after := plugged(t)
			l := w.list("One", "contact", lockstep.ActionIgnore, "")
			ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Base", "telephone1": "1", "address1_city": "Graz"})
			w.join(l, ann, w.cast("contact", "ben@stage.example"))
			w.sync()
			w.sync()
			n := 0
			after(func() {
				n++
				w.editRecord("contact", ann, cols{column: fmt.Sprint("plug-in ", n)})
			})
			w.editContact("ann@stage.example", cols{"JOBTITLE": "Pilot"})
			var written []int64
			for range 5 {
				written = append(written, w.sync().Counts.Written)
			}
			if n == 0 || n > 2 {
				t.Errorf("the plug-in ran %d times", n)
			}
			var sum int64
			for _, k := range written {
				sum += k
			}
			if sum > 4 || written[3]+written[4] != 0 {
				t.Errorf("the runs wrote %v times", written)
			}
			label := map[string]string{"address1_city": "CITY", "jobtitle": "JOBTITLE", "telephone1": "PHONE"}[column]
			if crm, mail := w.record("contact", ann, column).str(column), fmt.Sprint(w.field("ann@stage.example", label)); crm != mail {
				t.Errorf("the CRM has %q, the platform %q", crm, mail)
			}
		})
	}
}
