package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// second is another email account of the stage's organization.
type second struct {
	*stage
	lockstep.EmailAccount
	user, password string
}

// newAccounts is a stage with n email accounts on one organization, where our tables
// are installed.
func newAccounts(t *testing.T, n int) (*stage, []*second) {
	t.Helper()
	w := &stage{world: newWorld(t, worldOptions{twins: twin.Options{Contacts: 1, Plain: true, DotdigitalAccounts: n}, bare: true})}
	w.mapFields()
	w.installTables()
	var more []*second
	for k, a := range w.ready.DotdigitalAccounts[1:] {
		acc, err := w.app.ConnectAccount(t.Context(), "", w.account.Organization, fmt.Sprintf("Brand %d", k+2), "dotdigital", adapter.Settings{
			"endpoint": a.URL, "user": a.User, "password": a.Password,
		})
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, &second{w, acc, a.User, a.Password})
	}
	return w, more
}

func (w *world) installTables() {
	w.t.Helper()
	if _, err := w.app.InstallSchema(w.t.Context(), w.account.Organization, 0); err != nil {
		w.t.Fatal(err)
	}
	run, err := w.app.RefreshMetadata(w.t.Context(), w.account.Organization)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.app.Wait(w.t.Context(), run.ID); err != nil {
		w.t.Fatal(err)
	}
}

func (a *second) run(t lockstep.SyncType) lockstep.Run {
	a.t.Helper()
	run, err := a.app.RunToEnd(a.t.Context(), app.RunRequest{Account: a.ID, Type: t})
	if err != nil {
		a.t.Fatalf("%s of %s: %v", t, a.Name, err)
	}
	return run
}

func (a *second) mail(method, path string, body, out any) {
	a.t.Helper()
	a.call(method, a.ready.Dotdigital.URL+path, body, out, func(r *http.Request) { r.SetBasicAuth(a.user, a.password) })
}

func (a *second) create(email, optIn string) {
	a.t.Helper()
	a.mail("POST", "/v2/contacts", cols{"email": email, "optInType": optIn, "emailType": "Html"}, nil)
}

// suppressed are the addresses that the account does not mail, with the reason.
func (a *second) suppressed() []string {
	a.t.Helper()
	var rows []struct {
		SuppressedContact struct{ Email string }
		Reason            string
	}
	a.mail("GET", "/v2/contacts/suppressed-since/2000-01-01?select=1000", nil, &rows)
	out := []string{}
	for _, r := range rows {
		out = append(out, r.SuppressedContact.Email+" "+r.Reason)
	}
	slices.Sort(out)
	return out
}

// suppressionRows are the rows of our table: address, reason, account.
func (w *world) suppressionRows(accounts map[string]string) []string {
	w.t.Helper()
	out := []string{}
	for _, r := range w.rows("lockstep_suppressions?$select=lockstep_email,lockstep_reason,lockstep_account,lockstep_since,statecode") {
		if r.str("statecode") != "0" {
			continue
		}
		at := "at a time"
		if r.str("lockstep_since") == "" {
			at = "at no time"
		}
		out = append(out, r.str("lockstep_email")+" "+r.str("lockstep_reason")+" "+accounts[r.str("lockstep_account")]+" "+at)
	}
	slices.Sort(out)
	return out
}

// A suppression reaches every account of the organization, whether it was made on a
// platform, as a row in the CRM, or with Lockstep; an account that keeps to itself
// neither gives nor takes.
func TestCB12SuppressionsReachEveryAccount(t *testing.T) {
	t.Parallel()
	w, more := newAccounts(t, 3)
	b, alone := more[0], more[1]
	names := map[string]string{w.account.ID: "first", b.ID: "second", alone.ID: "alone"}
	yes := true
	if _, err := w.app.UpdateAccount(t.Context(), alone.ID, app.AccountPatch{AloneWithSuppressions: &yes}); err != nil {
		t.Fatal(err)
	}
	w.cast("contact", "ann@stage.example")
	b.create("ann@stage.example", "Single") // the first account does not know her
	everybody := func() {
		w.run(lockstep.SyncSuppressions)
		b.run(lockstep.SyncSuppressions)
		alone.run(lockstep.SyncSuppressions)
		w.run(lockstep.SyncSuppressions)
	}
	everybody()
	b.mail("POST", "/v2/contacts/unsubscribe", cols{"email": "ann@stage.example"}, nil)
	alone.mail("POST", "/v2/contacts/unsubscribe", cols{"email": "kept@stage.example"}, nil)
	w.crm("POST", "lockstep_suppressions", cols{"lockstep_name": "by hand", "lockstep_email": "Row@Stage.example", "lockstep_account": w.account.ID}, nil)
	if _, _, err := w.app.Suppress(t.Context(), app.SuppressRequest{Account: w.account.ID, Email: "letter@stage.example", Evidence: "a letter", Actor: "Kim"}); err != nil {
		t.Fatal(err)
	}
	everybody()
	first := &second{w, w.account, w.ready.Dotdigital.User, w.ready.Dotdigital.Password}
	for _, e := range []string{"ann@stage.example", "row@stage.example", "letter@stage.example"} {
		for _, a := range []*second{first, b} {
			if !slices.ContainsFunc(a.suppressed(), func(s string) bool { return len(s) > len(e) && s[:len(e)] == e }) {
				t.Errorf("%s is not suppressed in %s: %v", e, a.Name, a.suppressed())
			}
		}
	}
	if diff := cmp.Diff([]string{"kept@stage.example Unsubscribed"}, alone.suppressed()); diff != "" {
		t.Errorf("the account that keeps to itself (-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(first.suppressed(), func(s string) bool { return s == "kept@stage.example Unsubscribed" }) {
		t.Error("what it kept to itself got out")
	}
	want := []string{
		"ann@stage.example unsubscribed first at a time", "ann@stage.example unsubscribed second at a time", "kept@stage.example unsubscribed alone at a time",
		"letter@stage.example suppressed first at a time", "letter@stage.example suppressed second at a time", "row@stage.example suppressed second at a time",
	}
	rows := w.suppressionRows(names)
	rows = slices.DeleteFunc(rows, func(s string) bool { return s == "Row@Stage.example  first at no time" }) // as the user entered it
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if n := len(w.closed()); n != 1 {
		t.Errorf("closed: %v", w.closed())
	}
	before := w.state()
	w.resetCalls()
	everybody()
	if diff := cmp.Diff([]string{}, changed(before, w.state())); diff != "" || writes(w.calls("dotdigital")) != 0 {
		t.Errorf("told again: %v\n%s", w.calls("dotdigital"), diff)
	}
}

// Who comes back to one account is closed in the CRM as long as another one does not
// mail the address.
func TestComingBackToOneOfTwoAccounts(t *testing.T) {
	t.Parallel()
	w, more := newAccounts(t, 2)
	b := more[0]
	w.cast("contact", "ann@stage.example")
	both := func() {
		for range 2 {
			w.run(lockstep.SyncSuppressions)
			b.run(lockstep.SyncSuppressions)
		}
	}
	both()
	w.optOut("ann@stage.example")
	both()
	back := func(a *second) {
		t.Helper()
		all, err := w.app.Suppressions(t.Context(), app.SuppressionFilter{Account: a.ID, Email: "ann@stage.example", Limit: 5})
		if err != nil || len(all) != 1 {
			t.Fatalf("%d restrictions of her: %v", len(all), err)
		}
		if _, err := w.app.Resubscribe(t.Context(), all[0].ID, "asked at the counter", "Kim"); err != nil {
			t.Fatal(err)
		}
		w.twins.Clock.Advance(time.Minute)
		k := slices.IndexFunc(w.ready.DotdigitalAccounts, func(x twin.DotdigitalAccount) bool { return x.User == a.user })
		w.twins.Accounts[k].Confirm("ann@stage.example")
		both()
	}
	back(&second{w, w.account, w.ready.Dotdigital.User, w.ready.Dotdigital.Password})
	if len(w.closed()) != 1 {
		t.Errorf("the second account does not mail her, and closed are %v", w.closed())
	}
	back(b)
	if len(w.closed()) != 0 {
		t.Errorf("she is back in both, and closed are %v", w.closed())
	}
}

// The opt-in type is the strongest of all accounts, and exact within one.
func TestCB19OptInTypeIsTheStrongest(t *testing.T) {
	t.Parallel()
	w, more := newAccounts(t, 2)
	b := more[0]
	contact := w.cast("contact", "ann@stage.example")
	lead := w.cast("lead", "Ann@stage.example")
	first := &second{w, w.account, w.ready.Dotdigital.User, w.ready.Dotdigital.Password}
	set := func(a *second, to string) {
		t.Helper()
		w.twins.Clock.Advance(time.Second)
		a.mail("PATCH", "/contacts/v3/email/ann%40stage.example", cols{"channelProperties": cols{"email": cols{"optInType": to}}}, nil)
	}
	want := func(what string, n int) {
		t.Helper()
		for range 2 {
			first.run(lockstep.SyncOptIn)
			b.run(lockstep.SyncOptIn)
		}
		for table, id := range map[string]string{"contact": contact, "lead": lead} {
			if got := w.record(table, id, "lockstep_optintype").str("lockstep_optintype"); got != fmt.Sprint(n) {
				t.Errorf("%s: the %s has %q, want %d", what, table, got, n)
			}
		}
	}
	first.create("ann@stage.example", "Single")
	want("single in the first", 1)
	b.create("ann@stage.example", "Double")
	want("double in the second", 2)
	set(first, "unknown")
	want("down in the first", 2)
	set(b, "single")
	want("down in the second", 1)
	set(b, "unknown")
	want("down in both", 0)
	before := w.crmWrites.Load()
	first.run(lockstep.SyncOptIn)
	b.run(lockstep.SyncOptIn)
	if w.crmWrites.Load() != before {
		t.Error("written again")
	}
}

// Rows of opt-outs that were told before our tables came are written once they are
// there; a row closed when somebody came back is open again after the next opt-out.
func TestSuppressionRows(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.cast("contact", "ann@stage.example")
	w.signUp(w.anyBook(), "ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.optOut("ann@stage.example")
	w.run(lockstep.SyncSuppressions)
	w.installTables()
	names := map[string]string{w.account.ID: "account"}
	row := "ann@stage.example unsubscribed account at a time"
	want := func(what string, rows ...string) {
		t.Helper()
		w.run(lockstep.SyncSuppressions)
		if diff := cmp.Diff(append([]string{}, rows...), w.suppressionRows(names)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	want("after the tables came", row)
	all, err := w.app.Suppressions(t.Context(), app.SuppressionFilter{Email: "ann@stage.example", Limit: 5})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d restrictions: %v", len(all), err)
	}
	if _, err := w.app.Resubscribe(t.Context(), all[0].ID, "asked at the counter", "Kim"); err != nil {
		t.Fatal(err)
	}
	w.twins.Clock.Advance(time.Minute)
	w.twins.Dotdigital.Confirm("ann@stage.example")
	want("after she came back")
	w.twins.Clock.Advance(time.Minute)
	w.optOut("ann@stage.example")
	want("after the second opt-out", row)
	before := w.crmWrites.Load()
	want("when nothing happened", row)
	if w.crmWrites.Load() != before {
		t.Error("rows were written again")
	}
}

// anyBook is an address book of the test's own.
func (w *stage) anyBook() string {
	w.t.Helper()
	var b struct{ ID int64 }
	w.mail("POST", "/v2/address-books", cols{"name": "Any", "visibility": "Private"}, &b)
	return fmt.Sprint(b.ID)
}
