package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// keptOf lists which of these values the data folder still holds, and in which file.
func (w *stage) keptOf(values ...string) []string {
	w.t.Helper()
	var found []string
	files, err := filepath.Glob(filepath.Join(w.cfg.DataDir, "lockstep.db*"))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("the data folder holds %v: %v", files, err)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			w.t.Fatal(err)
		}
		folded := bytes.ToLower(content)
		for _, v := range values {
			if bytes.Contains(folded, bytes.ToLower([]byte(v))) {
				found = append(found, v+" in "+filepath.Base(f))
			}
		}
	}
	return found
}

// Who was erased on both sides and here has left nothing behind, and a form, a record
// or a list with the same address does not bring them back.
func TestErasedPersonStaysAway(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionCreateContact, "")
	ann := w.cast("contact", "ann.kestrel@stage.example", cols{"jobtitle": "Canary keeper", "telephone1": "+44 7700 900461", "address1_city": "Wrenfield"})
	ben := w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.sync()
	w.editRecord("contact", ann, cols{"jobtitle": "Falcon keeper"})
	w.sync()
	w.run(lockstep.SyncSuppressions)
	values := []string{"ann.kestrel", "Canary keeper", "Falcon keeper", "900461", "Wrenfield", ann}
	if got := w.keptOf(values[:5]...); len(got) < 5 {
		t.Fatalf("before the erasure only %v are there: the test looks at nothing", got)
	}

	// Gone on both sides first, as the instructions say.
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann.kestrel@stage.example").ContactID), nil, nil)
	w.crm("DELETE", "contacts("+ann+")", nil, nil)
	w.sync()
	if _, err := w.app.Erase(t.Context(), "Ann.Kestrel@stage.example", "admin", false); err != nil {
		t.Fatal(err)
	}
	if got := w.keptOf(values...); len(got) > 0 {
		t.Errorf("after the erasure: %v", got)
	}
	if r, err := w.app.VerifyConsent(t.Context(), ""); err != nil || r.Broken != nil {
		t.Errorf("the ledger: %+v %v", r, err)
	}

	// The same address comes again from everywhere.
	before := len(w.people("contact"))
	w.join(l, w.cast("contact", "ann.kestrel@stage.example"))
	w.sync()
	if _, there := w.contacts(w.book(l))["ann.kestrel@stage.example"]; there {
		t.Error("a new record with the address put the person into the address book")
	}
	w.signUp(w.book(l), "ann.kestrel@stage.example")
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if n := len(w.people("contact")); n != before+1 {
		t.Errorf("there are %d records, want %d: the person was made again", n, before+1)
	}
	if c, err := w.app.Consent(t.Context(), "ann.kestrel@stage.example"); err != nil || !c.Erased || c.Accounts[0].Word != "all_refused" {
		t.Errorf("%+v %v", c, err)
	}
	if _, there := w.contacts(w.book(l))["ben@stage.example"]; !there {
		t.Error("somebody else left the address book")
	}
}

// The process that holds the links in memory goes on with what is kept now.
func TestErasureBetweenRuns(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	var all []string
	for i := range 12 {
		all = append(all, w.cast("contact", fmt.Sprintf("p%02d@stage.example", i), cols{"jobtitle": fmt.Sprint("Job ", i)}))
	}
	w.join(l, all...)
	w.sync()
	if _, err := w.app.Erase(t.Context(), "p04@stage.example", "admin", false); err != nil {
		t.Fatal(err)
	}
	for i, id := range all {
		if i != 4 {
			w.editRecord("contact", id, cols{"jobtitle": fmt.Sprint("New job ", i)})
		}
	}
	w.sync()
	w.run(lockstep.SyncSuppressions)
	for i := range all {
		email := fmt.Sprintf("p%02d@stage.example", i)
		if c, there := w.contacts(w.book(l))[email]; i != 4 && (!there || c.DataFields["JOBTITLE"] != fmt.Sprint("New job ", i)) {
			t.Errorf("%s: %+v (%v)", email, c, there)
		}
	}
}
