package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// unmarked is a stage on which nobody is told of deleted contacts: their changes are not
// tracked. A dynamic list is decided from the records that the feed tells of, and two
// records share an address, the one of which refuses to be mailed.
type unmarked struct {
	*stage
	h             *haste
	pages         *listPages
	active, twins lockstep.ListSettings
	ids           []string // of thirty others
	refuses       string   // the one of the two that keeps the other out
}

const activeQuery = `<condition attribute="statecode" operator="eq" value="0"/>`

func newUnmarked(t *testing.T) *unmarked {
	t.Helper()
	h := newHaste()
	p := &listPages{times: map[string]int{}}
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep, PageRows: 10}}
	o.twins.Clock, o.twins.Wrap = h.Clock, p.wrap
	w := &unmarked{stage: newStageOf(t, o), h: h, pages: p}
	w.alter(`{"table":"contact","change":"tracking-off"}`)
	w.run(lockstep.SyncCRMMetadata)
	w.active = w.list("Active", "contact", lockstep.ActionIgnore, activeQuery)
	w.twins = w.list("Twins", "contact", lockstep.ActionIgnore, `<condition attribute="jobtitle" operator="eq" value="Twin"/>`)
	for i := range 30 {
		w.ids = append(w.ids, w.cast("contact", fmt.Sprintf("p%02d@stage.example", i)))
	}
	w.refuses = w.cast("contact", "twin@stage.example", cols{"jobtitle": "Twin", "donotbulkemail": true})
	w.cast("contact", "twin@stage.example", cols{"jobtitle": "Twin", "lastname": "other"})
	w.sync()
	w.sync()
	w.quiet()
	w.wantIn("at first", w.twins)
	return w
}

// later lets most of a day pass, and the list be evaluated shortly before it is over, so
// that nothing but the ids can tell in the run after that who was deleted.
func (w *unmarked) later() {
	w.t.Helper()
	w.h.Advance(23 * time.Hour)
	w.crm("PATCH", "lists("+w.active.CRMID.String()+")", cols{"query": fmt.Sprintf(`<fetch><!-- %d --><entity name="contact"><attribute name="contactid"/><filter type="and">%s</filter></entity></fetch>`, w.h.Now().Unix(), activeQuery)}, nil)
	w.sync()
}

func (w *unmarked) kill(n int) {
	w.t.Helper()
	w.crm("DELETE", "contacts("+w.ids[n]+")", nil, nil)
}

// sweeps counts the pages of ids that were asked for since the last storm.
func (w *unmarked) sweeps() (n int) {
	for _, a := range w.pages.asks() {
		if strings.HasPrefix(a, "ids ") {
			n++
		}
	}
	return n
}

// A contact that is deleted while nobody tells of it leaves its address books with the
// first run after a day, and keeps nobody out any more.
func TestDeletedContactsOfAnUntrackedTable(t *testing.T) {
	t.Parallel()
	w := newUnmarked(t)
	w.later()
	w.h.Advance(30 * time.Minute)
	w.kill(7)
	w.kill(20)
	w.crm("DELETE", "contacts("+w.refuses+")", nil, nil)
	before := w.in(w.active)
	w.pages.storm(nil)
	w.sync()
	if n := w.sweeps(); n != 0 {
		t.Errorf("%d pages of ids before a day has passed", n)
	}
	if diff := gocmp.Diff(before, w.in(w.active)); diff != "" {
		t.Errorf("somebody was noticed before a day has passed (+):\n%s", diff)
	}
	w.h.Advance(40 * time.Minute)
	w.pages.storm(func(page string, times int) int {
		if page == "ids 3" && times <= 5 {
			return 503
		}
		return 0
	})
	run := w.sync()
	if run.Counts.Findings != 0 {
		t.Errorf("findings: %v", w.findings(run))
	}
	ids := slices.DeleteFunc(w.pages.asks(), func(a string) bool { return !strings.HasPrefix(a, "ids ") })
	if diff := gocmp.Diff([]string{"ids 1", "ids 2", "ids 3", "ids 3", "ids 3", "ids 3", "ids 3", "ids 3"}, ids); diff != "" {
		t.Errorf("pages of ids asked for (+):\n%s", diff)
	}
	w.sync()
	want := append(slices.DeleteFunc(before, func(who string) bool { return who == "p07" || who == "p20" }), "twin")
	if diff := gocmp.Diff(want, w.in(w.active)); diff != "" {
		t.Errorf("a day later (+):\n%s", diff)
	}
	w.wantIn("a day later", w.twins, "twin")
	w.pages.storm(nil)
	w.quiet()
	if n := w.sweeps(); n != 0 {
		t.Errorf("%d pages of ids on the same day", n)
	}
}

// A table that cannot be read, or of which less is told than there is, loses nobody.
func TestUntrackedTableThatIsNotTold(t *testing.T) {
	t.Parallel()
	w := newUnmarked(t)
	for _, tc := range []struct {
		name   string
		status int
		body   string
		code   string // of the finding; "failed" = the run fails
	}{
		{"locked out", 403, "", "failed"},
		{"an empty answer", 200, `{"value":[]}`, lockstep.FindingIncomplete},
		{"a part of it", 200, `{"value":[{"contactid":"` + w.ids[0] + `"}]}`, ""},
		{"no more rows than that", 200, `{"value":[{"contactid":"` + w.ids[0] + `"}],"@Microsoft.Dynamics.CRM.morerecords":true}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.t = t
			w.later()
			w.h.Advance(time.Hour)
			before := w.state()
			w.pages.storm(func(page string, times int) int {
				if page == "ids 1" && times < 3 {
					return tc.status
				}
				return 0
			})
			w.pages.mu.Lock()
			w.pages.body = tc.body
			w.pages.mu.Unlock()
			run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
			if w.sweeps() == 0 {
				t.Error("no ids were asked for")
			}
			switch {
			case tc.code == "failed":
				if run.Status != lockstep.RunFailed || run.Error == "" {
					t.Errorf("the run is %s: %q, %v", run.Status, run.Error, err)
				}
			case err != nil || tc.code == "" && run.Counts.Findings != 0:
				t.Errorf("the run is %s: %v, %v", run.Status, err, w.findings(run))
			case tc.code != "":
				w.told(run, tc.code, "")
			}
			w.pages.storm(nil)
			w.sync()
			if got := changed(before, w.state()); len(got) != 0 {
				t.Errorf("changed: %v", got)
			}
		})
	}
}

// More deleted records than the guard allows wait for a person, and are not looked for
// again until a preview or the next day.
func TestManyDeletedContactsOfAnUntrackedTable(t *testing.T) {
	t.Parallel()
	w := newUnmarked(t)
	w.later()
	w.h.Advance(time.Hour)
	for n := range 12 {
		w.kill(n)
	}
	before := w.in(w.active)
	run, _ := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
	if run.Code != lockstep.CodeGuarded || !strings.Contains(run.Error, "12 of 33 linked records of contact") {
		t.Errorf("the run is %s: %q", run.Status, run.Error)
	}
	w.pages.storm(nil)
	w.quiet()
	if n := w.sweeps(); n != 0 {
		t.Errorf("%d pages of ids on the same day", n)
	}
	if diff := gocmp.Diff(before, w.in(w.active)); diff != "" {
		t.Errorf("held (+):\n%s", diff)
	}
	if preview, _ := w.approve(lockstep.SyncMarketingLists); preview.Counts.BookRemovals != 12 {
		t.Errorf("the preview shows %d removals", preview.Counts.BookRemovals)
	}
	if diff := gocmp.Diff(before[12:], w.in(w.active)); diff != "" {
		t.Errorf("approved (+):\n%s", diff)
	}
	w.quiet()
}
