package e2e

import (
	"encoding/json"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// noted checks that somebody is barred from the account by what was heard.
func (w *stage) noted(email string) {
	w.t.Helper()
	all, err := w.app.Suppressions(w.t.Context(), app.SuppressionFilter{Account: w.account.ID, Email: email})
	if err != nil || len(all) == 0 {
		w.t.Errorf("nobody heard that %s opted out: %+v %v", email, all, err)
	}
}

// While one side does not let anybody in, or does not tell its opt-outs, those of the
// other one are heard all the same and bar who said them. The runs say what is wrong, and
// everybody is told once both sides answer again.
func TestOptOutsAreHeardWhileOneSideIsAway(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		fault  fault.Fault
		reopen bool // so that somebody has to sign in anew
		says   lockstep.Code
	}{
		{"the client secret expired", fault.Fault{Twin: fault.Entra, Kind: "token-expire", Args: json.RawMessage(`{"aadsts":7000222}`)}, true, lockstep.CodeUnauthorized},
		{"the organization refuses the application user", fault.Fault{Twin: fault.Dataverse, Kind: fault.Status, Args: json.RawMessage(`{"code":403}`)}, false, lockstep.CodeForbidden},
		{"the flags of the CRM cannot be read", fault.Fault{Twin: fault.Dataverse, Kind: fault.Status, Operation: "contact.read", Args: json.RawMessage(`{"code":403}`)}, false, lockstep.CodeForbidden},
		{"the email account's password was changed", fault.Fault{Twin: fault.Dotdigital, Kind: fault.Status, Args: json.RawMessage(`{"code":401}`)}, false, lockstep.CodeUnauthorized},
		{"the email account does not tell its suppressions", fault.Fault{Twin: fault.Dotdigital, Kind: fault.Status, Operation: "contacts.suppressed-since", Args: json.RawMessage(`{"code":403}`)}, false, lockstep.CodeForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			other := w.list("Offers", "contact", lockstep.ActionIgnore, "")
			ann, ben, cleo := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example"), w.cast("contact", "cleo@stage.example")
			w.join(l, ann, ben, cleo)
			w.join(other, ann, ben, cleo)
			w.sync()
			w.run(lockstep.SyncSuppressions)
			w.run(lockstep.SyncUnsubscribes)
			if tc.reopen {
				if err := w.app.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.open()
			}
			w.optOut("ann@stage.example")
			w.editRecord("contact", ben, cols{"donotemail": true})
			w.optOutOf(w.book(other), "cleo@stage.example")
			w.bearer()
			if err := w.twins.Faults.Add(tc.fault); err != nil {
				t.Fatal(err)
			}
			before := w.crmWrites.Load()
			w.resetCalls()
			for _, lane := range []lockstep.SyncType{lockstep.SyncSuppressions, lockstep.SyncUnsubscribes} {
				run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lane})
				if tc.fault.Operation != "" && lane == lockstep.SyncUnsubscribes {
					continue // it has nothing to do with what fails
				}
				if run.Status != lockstep.RunFailed || run.Code != tc.says || run.Hint == "" {
					t.Errorf("%s is %s with code %q, hint %q: %v", lane, run.Status, run.Code, run.Hint, err)
				}
			}
			if tc.fault.Twin != fault.Dotdigital {
				w.noted("ann@stage.example")
				w.noted("cleo@stage.example")
			} else {
				w.noted("ben@stage.example")
			}
			if n := w.calls(fault.Entra)["token"]; n > 1 {
				t.Errorf("%d attempts to sign in", n)
			}
			if tc.fault.Operation == "" && w.crmWrites.Load() != before {
				t.Error("somebody was told")
			}
			w.twins.Faults.Clear()
			if tc.reopen { // a refused secret is not tried again for five minutes
				if err := w.app.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.open()
			}
			w.run(lockstep.SyncSuppressions)
			w.run(lockstep.SyncUnsubscribes)
			w.sync()
			if r := w.record("contact", ann, "donotbulkemail"); r["donotbulkemail"] != true {
				t.Errorf("ann's record is %v", r)
			}
			w.wantIn("afterwards", l, "cleo")
			w.wantIn("afterwards", other)
			w.quiet()
		})
	}
}
