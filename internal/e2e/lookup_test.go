package e2e

import (
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A column one lookup away is sent to the platform and never written.
func TestColumnBehindALookup(t *testing.T) {
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
