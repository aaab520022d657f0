package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// flags are the addresses' records that are closed to bulk email, by last name.
func (w *stage) closed() []string {
	w.t.Helper()
	out := []string{}
	for _, table := range []string{"account", "contact", "lead"} {
		for _, r := range w.people(table) {
			if r["donotbulkemail"] == true {
				out = append(out, table+" "+r.str("emailaddress1"))
			}
		}
	}
	slices.Sort(out)
	return out
}

// An opt-out on the platform closes every record with the address, whichever table
// it is in and whether it is active, and nothing else; it is told once.
func TestCB11PlatformOptOutClosesEveryRecord(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.cast("lead", "Ann@Stage.example")
	w.cast("account", "ann@stage.example")
	twin := w.cast("contact", "ann@stage.example", cols{"lastname": "ann the second"})
	w.editRecord("contact", twin, cols{"statecode": 1})
	w.cast("lead", "other@stage.example")
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 0 {
		t.Fatalf("before anybody opted out: %v", got)
	}
	w.optOut("ann@stage.example")
	run := w.run(lockstep.SyncSuppressions)
	want := []string{"account ann@stage.example", "contact ann@stage.example", "contact ann@stage.example", "lead Ann@Stage.example"}
	if diff := cmp.Diff(want, w.closed()); diff != "" {
		t.Errorf("closed records (-want +got):\n%s", diff)
	}
	if run.Counts.OptOutsSeen != 1 || run.Counts.OptOutsTold != 1 || run.Counts.RecordsUpdated != 4 {
		t.Errorf("the run counts %+v", run.Counts)
	}
	w.told(run, lockstep.FindingNotInstalled, "") // nobody installed our tables here
	x, err := w.app.Explain(t.Context(), w.account.ID, "ann@stage.example")
	if err != nil || x.Consent.Mailable || !slices.ContainsFunc(x.Consent.Why, func(s string) bool { return strings.Contains(s, "said in platform") }) {
		t.Errorf("explained as %+v: %v", x.Consent, err)
	}
	before := w.crmWrites.Load()
	w.resetCalls()
	if run := w.run(lockstep.SyncSuppressions); run.Counts.OptOutsSeen != 0 || w.crmWrites.Load() != before || writes(w.calls("dotdigital")) != 0 {
		t.Errorf("told twice: %+v", run.Counts)
	}
	w.sync()
	w.quiet()
	if _, there := w.contacts(w.book(l))["ann@stage.example"]; there {
		t.Error("she is in the address book")
	}
	if w.contact("ann@stage.example").Channel["email"]["status"] != "unsubscribed" {
		t.Error("she was subscribed again")
	}
}

// A record that is made after the opt-out is closed too, and never added.
func TestOptOutHoldsForRecordsMadeLater(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.join(l, w.cast("contact", "ann@stage.example", cols{"lastname": "made again"}))
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 2 {
		t.Errorf("closed: %v", got)
	}
	w.sync()
	if len(w.contacts(w.book(l))) != 0 {
		t.Errorf("the book has %v", w.contacts(w.book(l)))
	}
	w.quiet()
}

// A record that a CRM user closes leaves the address books with the consent lane
// alone, before any list sync.
func TestCRMOptOutLeavesTheBooksAtOnce(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	open := w.list("Statements", "contact", lockstep.ActionIgnore, "")
	none := lockstep.FilterNone
	open = w.patchList(open, app.ListPatch{SubscriptionFilter: &none})
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.join(open, ann)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.editRecord("contact", ann, cols{"donotbulkemail": true})
	before := w.state()
	w.run(lockstep.SyncSuppressions)
	if diff := cmp.Diff([]string{"-book Readers: ann@stage.example"}, changed(before, w.state())); diff != "" {
		t.Errorf("the lane changed (-want +got):\n%s", diff)
	}
	w.sync()
	if diff := cmp.Diff([]string{"-book Readers: ann@stage.example"}, changed(before, w.state())); diff != "" {
		t.Errorf("the list sync then (-want +got):\n%s", diff)
	}
	w.quiet()
	w.run(lockstep.SyncSuppressions)
	// Allowing it again is the user's to take back, since it was the user's to say.
	w.editRecord("contact", ann, cols{"donotbulkemail": false})
	w.sync()
	if diff := cmp.Diff([]string{"crm contact ann donotbulkemail = false"}, changed(before, w.state())); diff != "" {
		t.Errorf("after it was taken back (-want +got):\n%s", diff)
	}
	w.quiet()
	w.editRecord("contact", ann, cols{"donotbulkemail": true}) // and said again
	w.run(lockstep.SyncSuppressions)
	if diff := cmp.Diff([]string{"-book Readers: ann@stage.example"}, changed(before, w.state())); diff != "" {
		t.Errorf("the second time (-want +got):\n%s", diff)
	}
}

// With the policy for it, a CRM user's flag blocks the address in the whole account,
// and taking the flag back does not resubscribe anybody.
func TestCRMOptOutBlocksTheAccount(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann)
	lead := w.cast("lead", "ann@stage.example")
	w.sync()
	suppress := lockstep.BulkSuppress
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{BulkOptOut: &suppress}); err != nil {
		t.Fatal(err)
	}
	w.run(lockstep.SyncSuppressions)
	w.editRecord("lead", lead, cols{"donotbulkemail": true})
	w.run(lockstep.SyncSuppressions)
	if got := fmt.Sprint(w.contact("ann@stage.example").Channel["email"]["status"]); got != "suppressed" {
		t.Errorf("she is %s", got)
	}
	if diff := cmp.Diff([]string{"contact ann@stage.example", "lead ann@stage.example"}, w.closed()); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
	w.sync()
	w.editRecord("contact", ann, cols{"donotbulkemail": false})
	w.editRecord("lead", lead, cols{"donotbulkemail": false})
	for range 2 {
		w.sync()
		w.run(lockstep.SyncSuppressions)
	}
	if got := fmt.Sprint(w.contact("ann@stage.example").Channel["email"]["status"]); got != "suppressed" {
		t.Errorf("unticking a box made her %s", got)
	}
	if len(w.contacts(w.book(l))) != 0 {
		t.Error("she is in the book again")
	}
}

// Who unsubscribes from one list leaves that marketing list and no other.
func TestListUnsubscribeLeavesTheMarketingList(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l, other := w.list("Readers", "contact", lockstep.ActionIgnore, ""), w.list("Offers", "contact", lockstep.ActionIgnore, "")
	dynamic := w.list("Everybody", "contact", lockstep.ActionIgnore, `<condition attribute="emailaddress1" operator="like" value="%@stage.example"/>`)
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.join(other, ann)
	w.sync()
	w.run(lockstep.SyncUnsubscribes)
	before := w.state()
	w.optOutOf(w.book(l), "ann@stage.example")
	w.optOutOf(w.book(dynamic), "ann@stage.example")
	w.run(lockstep.SyncUnsubscribes)
	want := []string{"-book Everybody: ann@stage.example", "-book Readers: ann@stage.example", "-list Readers: ann"}
	if diff := cmp.Diff(want, changed(before, w.state())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for range 2 {
		w.sync()
		w.run(lockstep.SyncUnsubscribes)
	}
	if diff := cmp.Diff(want, changed(before, w.state())); diff != "" {
		t.Errorf("later (-want +got):\n%s", diff)
	}
	w.quiet()
}

// Nothing leaves for the address books in a cycle whose consent step failed.
func TestCB13NothingGoesOutWhenTheConsentStepFails(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"contacts.suppressed-since", "address-books.unsubscribed-since"} {
		t.Run(operation, func(t *testing.T) {
			w := newStage(t)
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			w.join(l, w.cast("contact", "ann@stage.example"))
			w.sync()
			w.join(l, w.cast("contact", "ben@stage.example"))
			if err := w.twins.Faults.Add(fault.Fault{Twin: "dotdigital", Kind: "status", Operation: operation, Args: json.RawMessage(`{"code":403}`)}); err != nil {
				t.Fatal(err)
			}
			w.resetCalls()
			run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
			if err == nil || run.Status != lockstep.RunFailed || !strings.Contains(run.Error, "nothing was sent") {
				t.Errorf("the run ended %s: %s (%v)", run.Status, run.Error, err)
			}
			if n := writes(w.calls("dotdigital")); n != 0 {
				t.Errorf("%d writes went out", n)
			}
		})
	}
}

// Somebody who opts out while the sync has read them and not yet sent them is not
// added: neither on the platform nor with a flag in the CRM.
func TestOptOutDuringTheSync(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"platform", "crm"} {
		t.Run(side, func(t *testing.T) {
			var w *stage
			var ann string
			happened := false
			opt := func(step string) {
				if step != "plan.before" || happened || ann == "" {
					return
				}
				happened = true
				if side == "platform" {
					w.optOut("ann@stage.example")
				} else {
					w.editRecord("contact", ann, cols{"donotbulkemail": true})
				}
				w.run(lockstep.SyncSuppressions)
			}
			w = newStageWith(t, app.Config{OnStep: func(step string) { opt(step) }})
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			w.join(l, w.cast("contact", "ben@stage.example"))
			w.sync()
			w.run(lockstep.SyncSuppressions)
			id := w.cast("contact", "ann@stage.example")
			w.join(l, id, w.cast("contact", "cleo@stage.example"))
			ann = id
			w.sync()
			if !happened {
				t.Fatal("the run never came to the step")
			}
			for range 2 {
				w.sync()
				w.run(lockstep.SyncSuppressions)
			}
			book := w.contacts(w.book(l))
			if _, in := book["ann@stage.example"]; in || len(book) != 2 {
				t.Errorf("the book has %d members, Ann: %t", len(book), in)
			}
			w.quiet()
		})
	}
}

// Who comes back by the platform's own flow is open again where Lockstep had closed
// the records, and stays closed where a user had.
func TestComingBack(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.cast("lead", "ann@stage.example")
	w.cast("account", "ann@stage.example", cols{"donotbulkemail": true}) // a user's
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 3 {
		t.Fatalf("closed: %v", got)
	}
	w.sync()
	w.twins.Clock.Advance(time.Hour)
	w.mail("POST", "/v2/contacts/resubscribe-with-no-challenge", cols{"unsubscribedContact": cols{"email": "ann@stage.example"}}, nil)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	if diff := cmp.Diff([]string{"account ann@stage.example"}, w.closed()); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
	// And out again: the second opt-out counts as the first did.
	w.twins.Clock.Advance(time.Hour)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	if got := w.closed(); len(got) != 3 {
		t.Errorf("closed after the second opt-out: %v", got)
	}
}

// A locked pair writes nothing and still takes opt-outs in; they are told once it is
// unlocked.
func TestGuardLockedPairTakesOptOutsIn(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	if _, err := w.app.LockAccount(t.Context(), w.account.ID, "the environment was restored"); err != nil {
		t.Fatal(err)
	}
	w.optOut("ann@stage.example")
	before := w.crmWrites.Load()
	run := w.run(lockstep.SyncSuppressions)
	if run.Counts.OptOutsSeen != 1 || run.Counts.OptOutsTold != 0 || w.crmWrites.Load() != before {
		t.Errorf("while locked: %+v, %d rows written", run.Counts, w.crmWrites.Load()-before)
	}
	before = w.crmWrites.Load()
	if refused := w.guardedRun(lockstep.SyncMarketingLists, "the account is locked", "the environment was restored"); refused.Counts.Written != 0 || w.crmWrites.Load() != before {
		t.Errorf("a list sync of a locked account: %+v", refused.Counts)
	}
	if _, err := w.app.UnlockAccount(t.Context(), w.account.ID, "Kim", "the environment is the old one"); err != nil {
		t.Fatal(err)
	}
	if run = w.run(lockstep.SyncSuppressions); run.Counts.OptOutsTold != 1 || len(w.closed()) != 1 {
		t.Errorf("unlocked: %+v, closed %v", run.Counts, w.closed())
	}
}

// A preview of the lane shows what it would do and does not do it.
func TestSuppressionsPreviewed(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.optOut("ann@stage.example")
	before := w.state()
	run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncSuppressions, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	changes, _, err := w.app.Changes(t.Context(), run.ID, 0, 100)
	if err != nil || len(changes) != 1 || changes[0].Kind != lockstep.WriteRecord || changes[0].Fields[0].Name != "donotbulkemail" {
		t.Errorf("previewed: %+v %v", changes, err)
	}
	if diff := cmp.Diff([]string{}, changed(before, w.state())); diff != "" {
		t.Errorf("the preview changed:\n%s", diff)
	}
	if run := w.run(lockstep.SyncSuppressions); run.Counts.OptOutsSeen != 1 {
		t.Errorf("after the preview: %+v", run.Counts)
	}
}

// A wish to be mailed again goes to the platform with its evidence in the ledger, and
// changes nothing until the platform says that the person confirmed.
func TestResubscribe(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"), w.cast("contact", "bob@stage.example"))
	w.sync()
	w.optOut("ann@stage.example")
	w.twins.Dotdigital.SetStatus("bob@stage.example", "IspComplained")
	w.run(lockstep.SyncSuppressions)
	w.sync()
	id := func(email string) string {
		all, err := w.app.Suppressions(t.Context(), app.SuppressionFilter{Email: email, Limit: 10})
		if err != nil || len(all) != 1 {
			t.Fatalf("suppressions of %s: %v %v", email, all, err)
		}
		return all[0].ID
	}
	if _, err := w.app.Resubscribe(t.Context(), id("ann@stage.example"), " ", "Kim"); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("without evidence: %v", err)
	}
	if _, err := w.app.Resubscribe(t.Context(), id("bob@stage.example"), "asked at the fair", "Kim"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("somebody who complained: %v", err)
	}
	got, err := w.app.Resubscribe(t.Context(), id("ann@stage.example"), "asked by telephone on 3 May", "Kim")
	if err != nil || got.State != "challenged" {
		t.Fatalf("Resubscribe: %+v %v", got, err)
	}
	w.run(lockstep.SyncSuppressions)
	if n := len(w.closed()); n != 2 {
		t.Errorf("before she confirmed %d records are closed", n)
	}
	w.twins.Clock.Advance(time.Minute)
	w.twins.Dotdigital.Confirm("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	if diff := cmp.Diff([]string{"contact bob@stage.example"}, w.closed()); diff != "" {
		t.Errorf("after she confirmed (-want +got):\n%s", diff)
	}
	w.sync()
	if _, in := w.contacts(w.book(l))["ann@stage.example"]; !in {
		t.Error("the list sync did not bring her back")
	}
	ledger, err := w.app.Consent(t.Context(), "ann@stage.example")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(ledger)
	for _, want := range []string{"asked by telephone on 3 May", "Kim", "confirmed"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the ledger does not say %q: %s", want, text)
		}
	}
	w.quiet()
}

// Who is in a list's address book without a record, and unsubscribes from it, is not put
// into the marketing list by a record that comes later, also where somebody else came to the
// book meanwhile, so that it has as many members as before.
func TestWhoHasUnsubscribedFromABookIsNotAdmitted(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Friends", "contact", lockstep.ActionAllowKnown, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.signUp(w.book(l), "ben@stage.example")
	w.sync() // nobody knows him
	w.optOutOf(w.book(l), "ben@stage.example")
	w.signUp(w.book(l), "cem@stage.example")
	w.sync()
	w.run(lockstep.SyncUnsubscribes)
	w.cast("contact", "ben@stage.example")
	w.cast("contact", "cem@stage.example")
	before := w.state()
	w.signUp(w.book(l), "dea@stage.example") // so that strangers are looked at
	w.sync()
	for _, line := range changed(before, w.state()) {
		if strings.HasPrefix(line, "+list") && line != "+list Friends: cem" {
			t.Error(line)
		}
	}
	if _, in := w.contacts(w.book(l))["ben@stage.example"]; in {
		t.Error("he is in the book again")
	}
}
