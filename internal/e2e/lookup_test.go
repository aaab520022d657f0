package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A column one lookup away is sent to the platform and never written.
func TestColumnBehindALookup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 200, Seed: 12}})
	if _, err := w.app.SaveLabel(t.Context(), lockstep.DataLabel{Account: w.account.ID, Name: "EMPLOYER", Type: lockstep.FieldText}); err != nil {
		t.Fatal(err)
	}
	w.run(lockstep.SyncDataLabels)
	m := lockstep.DataMapping{Account: w.account.ID, Label: "EMPLOYER", Table: "contact", Direction: lockstep.ToPlatform, Column: "parentcustomerid.name"}
	if _, err := w.app.SaveMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.Direction = lockstep.ToCRM
	if _, err := w.app.SaveMapping(t.Context(), m); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a column of another record can be written: %v", err)
	}
	w.sync()
	people := w.rows("contacts?$select=emailaddress1,statecode,donotemail,donotbulkemail&$expand=parentcustomerid_account($select=name)")
	sharing := map[string]int{}
	for _, p := range people {
		sharing[lockstep.NormalizeEmail(p.str("emailaddress1"))]++
	}
	all := w.contacts("")
	compared := 0
	for _, p := range people {
		email := lockstep.NormalizeEmail(p.str("emailaddress1"))
		c, ok := all[email]
		if !ok || sharing[email] > 1 || !eligible(p) {
			continue
		}
		want := ""
		if a, ok := p["parentcustomerid_account"].(map[string]any); ok {
			want = rec(a).str("name")
		}
		if got := rec(c.DataFields).str("EMPLOYER"); got != want && c.DataFields["FULLNAME"] != nil {
			t.Errorf("%s: EMPLOYER is %q on the platform, the account is called %q", email, got, want)
		}
		if want != "" {
			compared++
		}
	}
	if compared == 0 {
		t.Fatal("nobody with an account was compared")
	}
}

// A change of the record that is looked up reaches everybody who looks it up, and
// nobody else is read; when nothing changed it costs one call.
func TestChangeBehindALookup(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{"EMPLOYER": lockstep.FieldText})
	w.mapping("EMPLOYER", "parentcustomerid.name", lockstep.ToPlatform)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	firm := map[string]string{"acme": w.cast("account", "acme@firm.example"), "bolt": w.cast("account", "bolt@firm.example")}
	people := map[string]string{}
	for i := range 12 {
		name, at := fmt.Sprint("p", i), "acme"
		if i >= 9 {
			at = "bolt"
		}
		people[name] = at
		id := w.cast("contact", name+"@stage.example", cols{"parentcustomerid_account@odata.bind": "/accounts(" + firm[at] + ")"})
		if i != 8 { // somebody whom the platform does not know
			w.join(l, id)
		}
	}
	check := func(when string, names map[string]string) {
		t.Helper()
		for name, at := range people {
			if name == "p8" {
				continue
			}
			if got := w.field(name+"@stage.example", "EMPLOYER"); got != names[at] {
				t.Errorf("%s: %s works for %v, want %s", when, name, got, names[at])
			}
		}
	}
	w.sync()
	check("at first", map[string]string{"acme": "acme", "bolt": "bolt"})
	w.twins.Clock.Advance(time.Hour)
	w.quiet()
	if idle := w.calls("dataverse"); idle["account.read"] != 1 || idle["contact.read"] != 0 {
		t.Errorf("with nothing to do the looked-up table takes one call: %v", idle)
	}

	w.editRecord("account", firm["bolt"], cols{"name": "Bolt & Sons"})
	run := w.applyPreview()
	check("after the change", map[string]string{"acme": "acme", "bolt": "Bolt & Sons"})
	if run.Counts.ContactsUpdated != 3 {
		t.Errorf("%d contacts updated, want 3: %+v", run.Counts.ContactsUpdated, run.Counts)
	}
	w.quiet()
	w.twins.Clock.Advance(time.Hour)
	w.quiet()

	// Somebody who was in no list then is right when joining later.
	w.editRecord("account", firm["acme"], cols{"name": "Acme Ltd"})
	w.twins.Clock.Advance(time.Hour)
	w.sync()
	check("after another one", map[string]string{"acme": "Acme Ltd", "bolt": "Bolt & Sons"})
	w.quiet()
}

// A mapping may go through a lookup to any table: what it is made of is read when the
// mapping is made, and again with the metadata.
func TestColumnOfATableThatNobodyMaps(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{"SOURCE": lockstep.FieldText})
	m := lockstep.DataMapping{Account: w.account.ID, Label: "SOURCE", Table: "lead", Direction: lockstep.ToPlatform, Column: "campaignid.nosuchcolumn"}
	if _, err := w.app.SaveMapping(t.Context(), m); err == nil {
		t.Error("a column that is not there can be mapped")
	}
	m.Column = "campaignid.name"
	m, err := w.app.SaveMapping(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	l := w.list("Leads", "lead", lockstep.ActionIgnore, "")
	campaign := newID()
	w.crm("POST", "campaigns", cols{"campaignid": campaign, "name": "Spring fair"}, nil)
	w.join(l, w.cast("lead", "lea@stage.example", cols{"campaignid@odata.bind": "/campaigns(" + campaign + ")"}))
	w.run(lockstep.SyncCRMMetadata)
	w.sync()
	if got := w.field("lea@stage.example", "SOURCE"); got != "Spring fair" {
		t.Errorf("the source is %v", got)
	}
	w.quiet()
	w.crm("PATCH", "campaigns("+campaign+")", cols{"name": "Autumn fair"}, nil)
	w.sync()
	if got := w.field("lea@stage.example", "SOURCE"); got != "Autumn fair" {
		t.Errorf("after the change the source is %v", got)
	}
	w.quiet()
	w.alter(`{"table":"campaign","column":"name","change":"remove"}`)
	for _, f := range w.findings(w.run(lockstep.SyncCRMMetadata)) {
		if f.Code == lockstep.FindingMappingDisabled && f.Field != "campaignid.name" {
			t.Errorf("finding %+v", f)
		}
	}
	mappings, err := w.app.Mappings(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range mappings {
		if (o.Disabled != "") != (o.ID == m.ID) {
			t.Errorf("mapping of %s is disabled: %q", o.Column, o.Disabled)
		}
	}
	m.Table, m.ID = "campaign", ""
	m.Column = "name"
	if _, err := w.app.SaveMapping(t.Context(), m); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a table without members can be mapped: %v", err)
	}
}
