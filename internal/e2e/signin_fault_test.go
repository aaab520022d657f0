package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// What the sign-in service refuses ends in one clear message and two requests at
// most, however often the run tries; what passes by itself is waited for. Somebody
// who unsubscribes meanwhile stays unsubscribed.
func TestSignInFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, args string
		count      int    // how often the service fails; 0 = as long as it is asked
		says, hint string // empty: the run must not fail
		tokens     int64  // most requests to the service
	}{
		{"expired secret", `{"aadsts":7000222}`, 0, "the client secret or certificate has expired", "create a new one under Certificates & secrets of the app registration and enter it here", 2},
		{"wrong secret", `{"aadsts":7000215}`, 0, "the client secret is wrong", "paste the secret's Value, not its Secret ID; create a new secret if the value is lost", 2},
		{"another refusal", `{"aadsts":50034}`, 0, "the sign-in service does not accept the application's credential (AADSTS50034)", "check client id, tenant and secret or certificate", 2},
		{"clock of the issuer is far ahead", `{"skew":"2h"}`, 0, "Dynamics does not accept the access token", "check that the tenant is the organization's own, and the address of the organization", 2},
		{"not available", `{"status":503}`, 1, "", "", 2},
		{"not available for a while", `{"status":503}`, 7, "", "", 20},
		{"clock of the issuer is behind", `{"skew":"-10m"}`, 0, "", "", 3},
		{"clock of the issuer is ahead", `{"skew":"10m"}`, 1, "", "", 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			s.edit()
			if err := s.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.open() // it has to sign in anew
			s.mail("POST", "/v2/contacts/unsubscribe", map[string]any{"email": s.emails[4]}, nil)
			s.bearer()
			if err := s.twins.Faults.Add(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Count: tc.count, Args: json.RawMessage(tc.args)}); err != nil {
				t.Fatal(err)
			}
			for attempt := range 2 {
				s.resetCalls()
				run := s.attempt()
				if tc.says == "" && run.Status == lockstep.RunFailed || tc.says != "" && (run.Status != lockstep.RunFailed || run.Error != tc.says || run.Hint != tc.hint) {
					t.Errorf("attempt %d is %s: %q, %q", attempt, run.Status, run.Error, run.Hint)
				}
				if n := total(s.calls(fault.Entra)); n > tc.tokens {
					t.Errorf("attempt %d asked %d times for a token: %v", attempt, n, s.calls(fault.Entra))
				}
			}
			s.twins.Faults.Clear()
			s.haste.Advance(5 * time.Minute) // so long a refusal is believed
			s.whole(tc.name)
			if got := s.contact(s.emails[4]).Channel["email"]["status"]; got != "unsubscribed" {
				t.Errorf("who unsubscribed meanwhile is %v", got)
			}
		})
	}
}
