package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// answer makes the next n calls of an operation answer a literal body.
func (w *world) answer(twinName, operation, body string, n int) {
	w.t.Helper()
	args, err := json.Marshal(map[string]any{"code": 200, "content": body, "headers": map[string]string{"Content-Type": "application/json"}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.twins.Faults.Add(fault.Fault{Twin: twinName, Kind: fault.Status, Operation: operation, Count: n, Args: args}); err != nil {
		w.t.Fatal(err)
	}
}

// Another organization, or another account, that answers under the known address
// gets nothing written, and the message says what is wrong.
func TestAnotherSystemAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, twin, operation, body, says string }{
		{"organization", fault.Dataverse, "whoami", `{"BusinessUnitId":"11111111-1111-1111-1111-111111111111","UserId":"22222222-2222-2222-2222-222222222222","OrganizationId":"33333333-3333-3333-3333-333333333333"}`, "another organization answers"},
		{"account", fault.Dotdigital, "account-info", `{"id":987654,"properties":[{"name":"ApiEndpoint","type":"String","value":"%s"}]}`, "another account answers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			s.edit()
			body := tc.body
			if strings.Contains(body, "%s") {
				body = fmt.Sprintf(body, s.ready.Dotdigital.URL)
			}
			if err := s.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.open() // who answers is asked anew
			s.answer(tc.twin, tc.operation, body, 5)
			s.resetCalls()
			run := s.attempt()
			if run.Status != lockstep.RunFailed || !strings.Contains(run.Error, tc.says) || run.Hint == "" {
				t.Errorf("the run is %s: %q, %q", run.Status, run.Error, run.Hint)
			}
			if n := s.allWrites(); n != 0 {
				t.Errorf("%d writes: %v %v", n, s.calls("dataverse"), s.calls("dotdigital"))
			}
			s.twins.Faults.Clear()
			if again := s.attempt(); again.Code != lockstep.CodeGuarded || !strings.Contains(again.Error, "locked") || s.allWrites() != 0 {
				t.Errorf("the run after that is %s: %q", again.Status, again.Error)
			}
			if acc, err := s.app.UnlockAccount(t.Context(), s.account.ID, "Kim", "a proxy answered"); err != nil || !strings.Contains(acc.Unlocked, "Kim: a proxy answered") {
				t.Errorf("unlock: %+v %v", acc, err)
			}
			s.whole("after another system answered")
		})
	}
}

// An answer without end, and a page of a proxy instead of JSON, end in a clear
// message, change nothing and are over when they are over.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, kind, args, twin, operation string }{
		{"5 GB from the CRM", fault.Huge, "", fault.Dataverse, "contact.delta"},
		{"5 GB from the platform", fault.Huge, "", fault.Dotdigital, "contacts.list"},
		{"a proxy's page for the CRM", fault.Garbage, `{"variant":"html"}`, fault.Dataverse, "*"},
		{"a proxy's page for the platform", fault.Garbage, `{"variant":"html"}`, fault.Dotdigital, "*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			s.edit()
			if err := s.twins.Faults.Add(fault.Fault{Twin: tc.twin, Kind: tc.kind, Operation: tc.operation, Args: json.RawMessage(tc.args)}); err != nil {
				t.Fatal(err)
			}
			run, err := s.app.StartRun(t.Context(), app.RunRequest{Account: s.account.ID, Type: lockstep.SyncMarketingLists})
			if err != nil {
				t.Fatal(err)
			}
			for run.Stage == "" || !strings.HasPrefix(run.Stage, "waiting") && !run.Status.Ended() {
				if run, err = s.app.Run(t.Context(), run.ID); err != nil {
					t.Fatal(err)
				}
				select {
				case <-time.After(5 * time.Millisecond): // between two looks
				case <-t.Context().Done():
					t.Fatal("nothing happened")
				}
			}
			if told := run.Error + run.Stage; run.Status == lockstep.RunFailed && run.Error == "" || strings.Contains(told, "Internal error") {
				t.Errorf("the run is %s at %q: %q", run.Status, run.Stage, run.Error)
			}
			s.twins.Faults.Clear()
			if _, err := s.app.Wait(t.Context(), run.ID); err != nil && run.Status != lockstep.RunFailed {
				t.Error(err)
			}
			s.whole(tc.name)
		})
	}
}

// A side that says that a list or a book of more than a hundred is empty is not
// believed.
func TestEmptyAnswerIsNoRemoval(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, twin, operation, body string }{
		{"members", fault.Dataverse, "listmember.read", `{"@odata.context":"x","value":[]}`},
		{"dynamic", fault.Dataverse, "contact.read", `{"@odata.context":"x","value":[]}`},
		{"book", fault.Dotdigital, "contacts.list", `{"_items":[],"_links":{"self":{"href":"x"}}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 500, Seed: 9}, bare: true})
			w.mapFields()
			w.switchOn("Company newsletter", lockstep.ActionRemove)
			w.switchOn("Everyone reachable", lockstep.ActionIgnore)
			w.sync()
			w.sync()
			before := w.booksNow()
			// Every list is read in full: an administrator changed its rules.
			for _, name := range []string{"Company newsletter", "Everyone reachable"} {
				no := false
				if _, err := w.app.UpdateList(t.Context(), w.listNamed(name).ID, app.ListPatch{MirrorRemovals: &no}); err != nil {
					t.Fatal(err)
				}
			}
			w.answer(tc.twin, tc.operation, tc.body, 3)
			run := w.sync()
			w.twins.Faults.Clear()
			findings, err := w.app.Findings(t.Context(), run.ID, "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			told := false
			for _, f := range findings {
				told = told || f.Code == lockstep.FindingIncomplete
			}
			if !told {
				t.Errorf("nobody was told; findings %+v", findings)
			}
			for book, people := range w.booksNow() {
				if len(people) < len(before[book]) {
					t.Errorf("book %s had %d people and has %d", book, len(before[book]), len(people))
				}
			}
		})
	}
}

// An expired change token means one full comparison, which writes nothing.
func TestExpiredTokenComparesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 300, Seed: 12}})
	w.sync()
	w.sync()
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "delta-expired", Count: 1}); err != nil {
		t.Fatal(err)
	}
	w.resetCalls()
	run := w.sync()
	addsUp(t, run)
	if n := w.allWrites() - w.calls("dataverse")["batch"]; n+run.Counts.Written != 0 {
		t.Errorf("%d writes, %+v: %v %v", n, run.Counts, w.calls("dataverse"), w.calls("dotdigital"))
	}
	if run.Counts.Read < 300 {
		t.Errorf("only %d records were compared", run.Counts.Read)
	}
	w.resetCalls()
	if again := w.sync(); again.Counts.Read > 50 {
		t.Errorf("the next run compared %d records again", again.Counts.Read)
	}
}
