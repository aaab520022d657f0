package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// A list sync asks both sides who opted out before it writes anything to either, and the
// consent lane tells the email account, which is what mails, before the CRM.
func TestOptOutsComeFirst(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log []string
	wrap := func(name string, next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			query, _ := url.QueryUnescape(r.URL.RawQuery)
			mu.Lock()
			log = append(log, fmt.Sprint(name, " ", r.Method, " ", r.URL.Path, "?", query))
			mu.Unlock()
			next.ServeHTTP(rw, r)
		})
	}
	w := &stage{world: newWorld(t, worldOptions{twins: twin.Options{Contacts: 1, Plain: true, Wrap: wrap}, cfg: app.Config{}, bare: true})}
	w.mapFields()
	w.twins.Dataverse.OnWrite(func(dataverse.Write) {
		mu.Lock()
		log = append(log, "a row of the CRM is written")
		mu.Unlock()
	})
	suppress := lockstep.BulkSuppress
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{BulkOptOut: &suppress}); err != nil {
		t.Fatal(err)
	}
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ann, ben, cleo := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example"), w.cast("contact", "cleo@stage.example")
	w.join(l, ann, ben, cleo)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	first := func(lines []string, what ...string) int {
		for i, line := range lines {
			all := true
			for _, x := range what {
				all = all && strings.Contains(line, x)
			}
			if all {
				return i
			}
		}
		return -1
	}
	record := func(typ lockstep.SyncType) []string {
		mu.Lock()
		log = nil
		mu.Unlock()
		w.run(typ)
		mu.Lock()
		defer mu.Unlock()
		return log
	}
	w.editRecord("contact", ann, cols{"jobtitle": "Pilot"})
	w.editContact("ben@stage.example", cols{"JOBTITLE": "Baker"})
	w.quit(l, cleo)
	lines := record(lockstep.SyncMarketingLists)
	asked := []int{
		first(lines, fault.Dotdigital, "GET", "suppressed-since"), first(lines, fault.Dotdigital, "GET", "unsubscribed-since"),
		first(lines, fault.Dataverse, "GET", "contacts", "donotbulkemail eq true"),
	}
	writes := map[string]int{
		"the import": first(lines, fault.Dotdigital, "/import"), "the removal": first(lines, fault.Dotdigital, "/contacts/delete"),
		"the record": first(lines, "a row of the CRM"),
	}
	for what, at := range writes {
		for i, q := range asked {
			if q < 0 || at < 0 || q > at {
				t.Errorf("%s was call %d, question %d about opt-outs call %d of %q", what, at, i, q, lines)
			}
		}
	}
	w.optOut("ann@stage.example")
	w.editRecord("contact", ben, cols{"donotemail": true})
	lines = record(lockstep.SyncSuppressions)
	heard, blocked, flagged := first(lines, fault.Dataverse, "GET", "contacts", "donotbulkemail eq true"), first(lines, fault.Dotdigital, "suppress-contacts"), first(lines, "a row of the CRM")
	if heard < 0 || blocked < heard || flagged < blocked {
		t.Errorf("heard with call %d, told the account with %d and the CRM with %d of %q", heard, blocked, flagged, lines)
	}
}

// More imports than the account carries out at a time are sent one after the other as they
// end: nobody is lost, and of two edits of one person the later one stays.
func TestManyImports(t *testing.T) {
	t.Parallel()
	w := newStageWith(t, app.Config{ImportRows: 1})
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(60)
	w.join(l, ids...)
	w.sync()
	for round := range 2 {
		for i, id := range ids {
			w.editRecord("contact", id, cols{"address1_city": fmt.Sprint("City ", round, " of ", i)})
		}
		if run := w.sync(); run.Counts.ContactsUpdated != 60 {
			t.Errorf("counts %+v", run.Counts)
		}
		contacts := w.contacts("")
		for i := range ids {
			if got, want := contacts[fmt.Sprintf("p%03d@stage.example", i)].DataFields["CITY"], fmt.Sprint("City ", round, " of ", i); got != want {
				t.Errorf("%d lives in %v, want %s", i, got, want)
			}
		}
	}
	w.quiet()
}
