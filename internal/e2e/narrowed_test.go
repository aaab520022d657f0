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

// narrow gives some contacts to somebody else and has the application user see none but
// its own: fewer come back than before, and nothing says why.
func (w *unmarked) narrow(ids ...string) {
	w.t.Helper()
	kim := newID()
	w.crm("POST", "systemusers", cols{"systemuserid": kim, "applicationid": newID(), "businessunitid@odata.bind": "/businessunits(" + w.rootUnit() + ")"}, nil)
	for _, id := range ids {
		w.crm("PATCH", "contacts("+id+")", cols{"ownerid@odata.bind": "/systemusers(" + kim + ")"}, nil)
	}
	w.sync()
	w.sync()
	if err := w.stage.twins.Dataverse.NarrowPrivilege(w.ready.Dataverse.ClientID, "prvReadContact"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *unmarked) widen() {
	w.t.Helper()
	if err := w.stage.twins.Dataverse.SetPrivilege(w.ready.Dataverse.ClientID, "prvReadContact", true); err != nil {
		w.t.Fatal(err)
	}
}

func (w *unmarked) rootUnit() string {
	w.t.Helper()
	var who struct{ BusinessUnitID string }
	w.crm("GET", "WhoAmI", nil, &who)
	return who.BusinessUnitID
}

// failsOverSight has the lists synced and checks that the run names what is missing, and
// that nobody left a book.
func (w *unmarked) failsOverSight(when string, want []string) {
	w.t.Helper()
	run, _ := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
	if told := run.Error + run.Hint; run.Status != lockstep.RunFailed || !strings.Contains(told, "prvReadContact") || !strings.Contains(told, "table contact") {
		w.t.Errorf("%s: the run is %s and says %q", when, run.Status, told)
	}
	if diff := gocmp.Diff(want, w.in(w.active)); diff != "" {
		w.t.Errorf("%s: in the book (-want +got):\n%s", when, diff)
	}
}

// An application user that may not read all records of a table any more sees some of
// them no longer. Whom it does not see was not deleted, has not left a list, and stays in
// the books; when the right is back, everything goes on.
func TestRightsCutToSomeRecords(t *testing.T) {
	t.Parallel()
	t.Run("a query is evaluated", func(t *testing.T) {
		t.Parallel()
		w := newUnmarked(t)
		before := w.in(w.active)
		w.narrow(w.ids[3], w.ids[4])
		w.crm("PATCH", "lists("+w.active.CRMID.String()+")", cols{"query": fmt.Sprintf(`<fetch><!-- again --><entity name="contact"><attribute name="contactid"/><filter type="and">%s</filter></entity></fetch>`, activeQuery)}, nil)
		w.failsOverSight("evaluated", before)
		w.widen()
		w.sync()
		w.sync()
		w.quiet()
		if diff := gocmp.Diff(before, w.in(w.active)); diff != "" {
			t.Errorf("with the right (-want +got):\n%s", diff)
		}
	})
	t.Run("the ids are swept", func(t *testing.T) {
		t.Parallel()
		w := newUnmarked(t)
		before := w.in(w.active)
		w.later()
		w.narrow(w.ids[3], w.ids[4])
		w.kill(7)
		w.h.Advance(2 * time.Hour)
		w.failsOverSight("swept", before)
		w.widen()
		w.sync()
		w.sync()
		w.quiet()
		if diff := gocmp.Diff(slices.DeleteFunc(slices.Clone(before), func(who string) bool { return who == "p07" }), w.in(w.active)); diff != "" {
			t.Errorf("with the right (-want +got):\n%s", diff)
		}
	})
	t.Run("a contact changes", func(t *testing.T) {
		t.Parallel()
		w := newUnmarked(t)
		before := w.in(w.active)
		w.narrow(w.ids[3], w.ids[4])
		w.editContact("p03@stage.example", cols{"JOBTITLE": "Pilot"})
		w.failsOverSight("read for the contact", before)
		w.widen()
		w.sync()
		w.sync()
		w.quiet()
	})
}
