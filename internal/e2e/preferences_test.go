package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
)

// choosing is a stage with our tables, a clock that stands still, and two marketing
// preferences.
type choosing struct {
	*stage
	news, offers int32
}

func newChoosing(t *testing.T) *choosing {
	t.Helper()
	return newChoosingWith(t, app.Config{})
}

func newChoosingWith(t *testing.T, cfg app.Config) *choosing {
	t.Helper()
	h := newHaste()
	h.Clock = clock.NewFixed(time.Now())
	cfg.Now, cfg.Sleep = h.ours, h.sleep
	c := &choosing{stage: &stage{world: newWorld(t, worldOptions{twins: twin.Options{Contacts: 1, Plain: true, Clock: h.Clock}, cfg: cfg, bare: true})}}
	c.twins.Dataverse.OnWrite(func(dataverse.Write) { c.crmWrites.Add(1) })
	c.installTables()
	c.news = c.twins.Dotdigital.AddPreference("News", "n")
	c.offers, _ = c.twins.Dotdigital.AddPreferenceIn(c.twins.Dotdigital.AddCategory("By post", "p"), "Offers", "o")
	return c
}

// subscribe makes contacts on the platform.
func (w *stage) subscribe(emails ...string) {
	w.t.Helper()
	for _, e := range emails {
		w.mail("POST", "/v2/contacts", cols{"email": e, "optInType": "Single", "emailType": "Html"}, nil)
	}
}

// prefer is a person in the preference centre.
func (c *choosing) prefer(email string, preference int32, in bool) {
	c.t.Helper()
	if err := c.twins.Dotdigital.Act(dotdigital.Act{Email: email, Kind: dotdigital.Prefer, Preference: preference, OptedIn: in}); err != nil {
		c.t.Fatal(err)
	}
}

// later lets time pass on both sides.
func (c *choosing) later() { c.twins.Clock.Advance(time.Minute) }

// addRow is a CRM user who enters a choice.
func (c *choosing) addRow(email string, preference any, in bool) string {
	c.t.Helper()
	id := newID()
	c.crm("POST", "lockstep_preferencechoices", cols{
		"lockstep_preferencechoiceid": id, "lockstep_name": "by hand", "lockstep_email": email, "lockstep_account": c.account.ID,
		"lockstep_preferencekey": fmt.Sprint(preference), "lockstep_optedin": in,
	}, nil)
	return id
}

func (w *world) choiceRows() map[string]rec {
	w.t.Helper()
	out := map[string]rec{}
	for _, r := range w.rows("lockstep_preferencechoices?$select=lockstep_email,lockstep_account,lockstep_preferencekey,lockstep_optedin,lockstep_since,lockstep_origin") {
		key := strings.ToLower(r.str("lockstep_email")) + " " + r.str("lockstep_preferencekey")
		if r.str("lockstep_account") != w.account.ID {
			key += " of another account"
		}
		if _, twice := out[key]; twice {
			w.t.Errorf("two rows for %s", key)
		}
		out[key] = r
	}
	return out
}

// edit is a CRM user who changes a row.
func (c *choosing) edit(email string, preference int32, in bool) {
	c.t.Helper()
	r, ok := c.choiceRows()[fmt.Sprintf("%s %d", email, preference)]
	if !ok {
		c.t.Fatalf("there is no row for %s and %d", email, preference)
	}
	c.crm("PATCH", "lockstep_preferencechoices("+r.str("lockstep_preferencechoiceid")+")", cols{"lockstep_optedin": in}, nil)
}

// chosenState is what both sides say: "who preference: platform/crm", with in, out or -.
func (w *world) chosenState(preferences ...int32) []string {
	w.t.Helper()
	word := map[bool]string{true: "in", false: "out"}
	both := map[string][2]string{}
	for key, r := range w.choiceRows() {
		both[key] = [2]string{"-", word[r["lockstep_optedin"] == true]}
	}
	for _, p := range preferences {
		var said []struct {
			Contact struct{ Email string }
			OptIns  []struct {
				IsOptedIn bool
			} `json:"marketingPreferenceOptIns"`
		}
		w.mail("GET", fmt.Sprintf("/v2/contacts/with-preference/%d/opt-ins-since/2000-01-01", p), nil, &said)
		for _, s := range said {
			key := fmt.Sprintf("%s %d", strings.ToLower(s.Contact.Email), p)
			b, ok := both[key]
			if !ok {
				b[1] = "-"
			}
			b[0] = word[s.OptIns[0].IsOptedIn]
			both[key] = b
		}
	}
	out := []string{}
	for key, b := range both {
		out = append(out, key+": "+b[0]+"/"+b[1])
	}
	slices.Sort(out)
	return out
}

func (c *choosing) want(what string, want ...string) lockstep.Run {
	c.t.Helper()
	run := c.run(lockstep.SyncPreferences)
	addsUp(c.t, run)
	for i := range want {
		want[i] = strings.NewReplacer(" news:", fmt.Sprintf("@stage.example %d:", c.news), " offers:", fmt.Sprintf("@stage.example %d:", c.offers)).Replace(want[i])
	}
	if diff := cmp.Diff(append([]string{}, want...), c.chosenState(c.news, c.offers)); diff != "" {
		c.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	return run
}

// still checks that one more run writes nothing and says nothing.
func (c *choosing) still(what string) {
	c.t.Helper()
	before, state := c.crmWrites.Load(), c.chosenState(c.news, c.offers)
	c.resetCalls()
	run := c.run(lockstep.SyncPreferences)
	addsUp(c.t, run)
	if n := c.crmWrites.Load() - before; n != 0 || run.Counts.Written != 0 || run.Counts.Findings != 0 || c.choiceWrites() != 0 {
		c.t.Errorf("%s; not quiet afterwards: %d rows, %+v, %v", what, n, run.Counts, c.calls("dotdigital"))
	}
	if diff := cmp.Diff(state, c.chosenState(c.news, c.offers)); diff != "" {
		c.t.Errorf("%s; changed afterwards:\n%s", what, diff)
	}
}

func (w *world) choiceWrites() int64 {
	ops := w.calls("dotdigital")
	return ops["contacts.import"] + ops["contacts.set-preferences"]
}

// What people choose on the platform is shown in the CRM, what the CRM's users enter
// and edit reaches the platform; per preference, and for records of the CRM alone.
func TestCB20PreferencesBothWays(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example", "ben@stage.example", "cleo@stage.example", "stranger@stage.example")
	c.cast("contact", "ann@stage.example")
	c.cast("lead", "Ann@Stage.example") // several records, one address
	c.cast("lead", "ben@stage.example")
	c.cast("account", "cleo@stage.example")
	c.prefer("ann@stage.example", c.news, true)
	c.prefer("ann@stage.example", c.offers, false)
	c.prefer("ben@stage.example", c.news, false)
	c.prefer("stranger@stage.example", c.news, true)
	c.later()
	c.addRow("Cleo@Stage.example", c.offers, true)
	run := c.want("at first", "ann news: in/in", "ann offers: out/out", "ben news: out/out", "cleo offers: in/in", "stranger news: in/-")
	if run.Counts.OptOutsSeen != 2 || run.Counts.OptOutsTold != 2 {
		t.Errorf("the run counts %+v", run.Counts)
	}
	c.still("at first")

	rows := c.rows("lockstep_preferences?$select=lockstep_name,lockstep_category,lockstep_preferencekey,lockstep_account")
	got := []string{}
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s|%s|%s", r.str("lockstep_preferencekey"), r.str("lockstep_name"), r.str("lockstep_category")))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{fmt.Sprintf("%d|News|", c.news), fmt.Sprintf("%d|Offers|By post", c.offers)}, got); diff != "" {
		t.Errorf("the rows of the preferences (-want +got):\n%s", diff)
	}

	c.later()
	c.prefer("ann@stage.example", c.news, false)
	c.edit("ann@stage.example", c.offers, true) // the other preference of the same person, the other way
	c.edit("cleo@stage.example", c.offers, false)
	c.want("each side changed", "ann news: out/out", "ann offers: in/in", "ben news: out/out", "cleo offers: out/out", "stranger news: in/-")
	c.still("each side changed")

	// A record that is made later is told what its address chose before.
	c.cast("contact", "stranger@stage.example")
	c.want("a stranger becomes known", "ann news: out/out", "ann offers: in/in", "ben news: out/out", "cleo offers: out/out", "stranger news: in/in")
	c.still("a stranger became known")

	var words []string
	ledger, err := c.app.Consent(t.Context(), "ann@stage.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ledger.Entries {
		words = append(words, fmt.Sprint(e.Act, " ", e.Object, " ", e.System))
	}
	want := []string{
		fmt.Sprintf("restricted %d platform", c.offers), fmt.Sprintf("allowed %d platform", c.news),
		fmt.Sprintf("restricted %d platform", c.news), fmt.Sprintf("allowed %d crm", c.offers),
	}
	words = slices.DeleteFunc(words, func(s string) bool { return strings.HasPrefix(s, "told") })
	if diff := cmp.Diff(want, words); diff != "" {
		t.Errorf("the ledger (-want +got):\n%s", diff)
	}
}

// Of two answers that were never agreed on the newer counts, and of two at one time
// the opt-out.
func TestCB20NewestWinsAndATieOptsOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		platform, crm  bool
		platformFirst  bool
		crmFirst       bool
		want           string
		wantOptOutSeen int64
	}{
		{"the platform's opt-in is newer", true, false, false, true, "in/in", 0},
		{"the platform's opt-out is newer", false, true, false, true, "out/out", 1},
		{"the CRM's opt-in is newer", false, true, true, false, "in/in", 0},
		{"the CRM's opt-out is newer", true, false, true, false, "out/out", 1},
		{"a tie, the platform opts out", false, true, false, false, "out/out", 1},
		{"a tie, the CRM opts out", true, false, false, false, "out/out", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newChoosing(t)
			c.subscribe("ann@stage.example")
			c.cast("contact", "ann@stage.example")
			if tt.crmFirst {
				c.addRow("ann@stage.example", c.news, tt.crm)
				c.later()
			}
			c.prefer("ann@stage.example", c.news, tt.platform)
			if tt.platformFirst {
				c.later()
			}
			if !tt.crmFirst {
				c.addRow("ann@stage.example", c.news, tt.crm)
			}
			c.want(tt.name, "ann news: "+tt.want)
			c.still(tt.name)
		})
	}
}

// Who opted out of all mail is opted in to nothing: a user's row says so again.
func TestPreferenceOfSomebodyClosed(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example")
	c.cast("contact", "ann@stage.example")
	c.prefer("ann@stage.example", c.news, false)
	c.want("before", "ann news: out/out")
	c.later()
	c.optOut("ann@stage.example")
	c.run(lockstep.SyncSuppressions)
	c.edit("ann@stage.example", c.news, true)
	run := c.want("a user opts her in", "ann news: -/out") // the platform does not show who may not be mailed
	c.told(run, lockstep.FindingStillOptedOut, "")
	if c.choiceWrites() != 0 {
		t.Errorf("written to the platform: %v", c.calls("dotdigital"))
	}
	c.still("a user opted her in")
}

// A row of a user that names no preference, or no address, is a finding; one for an
// address that the platform does not know waits until it does.
func TestPreferenceRowsThatDoNotFit(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example")
	c.cast("contact", "ann@stage.example")
	unknown, nobody := c.addRow("ann@stage.example", 4711, true), c.addRow("no address", c.news, true)
	c.addRow("out@stage.example", c.news, false)
	in := c.addRow("in@stage.example", c.news, true)
	run := c.run(lockstep.SyncPreferences)
	addsUp(t, run)
	c.told(run, lockstep.FindingRejected, unknown)
	c.told(run, lockstep.FindingMalformedEmail, nobody)
	c.told(run, lockstep.FindingRejected, in)
	if n := len(c.findings(run)); n != 3 {
		t.Errorf("%d findings: %+v", n, c.findings(run))
	}
	if _, there := c.contacts("")["in@stage.example"]; there {
		t.Error("a choice made a contact")
	}
	c.subscribe("in@stage.example")
	if run = c.run(lockstep.SyncPreferences); run.Counts.ContactsUpdated != 1 || len(c.findings(run)) != 0 {
		t.Errorf("once the platform knows the address: %+v %+v", run.Counts, c.findings(run))
	}
	c.still("afterwards")
}

// Preferences come, are renamed and go; a row that a user deletes comes back.
func TestPreferencesComeAndGo(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example")
	c.cast("contact", "ann@stage.example")
	c.prefer("ann@stage.example", c.news, true)
	c.want("at first", "ann news: in/in")
	c.later()
	path := fmt.Sprintf("/v2/preferences/%d", c.news)
	c.mail("PUT", path, cols{"publicName": "Headlines"}, nil)
	fresh := c.twins.Dotdigital.AddPreference("Events", "e")
	c.prefer("ann@stage.example", fresh, false)
	names := func() string {
		var out []string
		for _, r := range c.rows("lockstep_preferences?$select=lockstep_name,statecode") {
			out = append(out, r.str("lockstep_name")+" "+r.str("statecode"))
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	c.run(lockstep.SyncPreferences)
	if got := names(); got != "Events 0, Headlines 0, Offers 0" {
		t.Errorf("the preferences are %s", got)
	}
	if r := c.choiceRows()[fmt.Sprintf("ann@stage.example %d", fresh)]; r == nil || r["lockstep_optedin"] != false || r.str("lockstep_origin") != "platform" || r.str("lockstep_since") == "" {
		t.Errorf("the row of the new preference: %v", r)
	}
	c.mail("DELETE", fmt.Sprintf("/v2/preferences/%d", fresh), nil, nil)
	row := c.choiceRows()[fmt.Sprintf("ann@stage.example %d", c.news)].str("lockstep_preferencechoiceid")
	c.crm("DELETE", "lockstep_preferencechoices("+row+")", nil, nil)
	c.run(lockstep.SyncPreferences)
	if got := names(); got != "Events 1, Headlines 0, Offers 0" {
		t.Errorf("after one is deleted the preferences are %s", got)
	}
	if got := c.chosenState(c.news); !slices.Contains(got, fmt.Sprintf("ann@stage.example %d: in/in", c.news)) || len(got) != 2 {
		t.Errorf("after her row was deleted: %v", got)
	}
	if r := c.choiceRows()[fmt.Sprintf("ann@stage.example %d", fresh)]; r == nil {
		t.Error("what she chose for the preference that is gone is gone too")
	}
	// A user's word about a preference that is gone is carried to nobody.
	c.later()
	c.edit("ann@stage.example", fresh, true)
	run := c.run(lockstep.SyncPreferences)
	c.told(run, lockstep.FindingRejected, "")
	c.still("afterwards")
}

// Each account has its own preferences and rows; a row without an account is about
// the default one.
func TestPreferencesOfTwoAccounts(t *testing.T) {
	t.Parallel()
	w, more := newAccounts(t, 2)
	b := more[0]
	one := w.twins.Dotdigital.AddPreference("News", "n")
	var two struct{ ID int32 }
	b.mail("POST", "/v2/preferences", cols{"publicName": "Other", "privateName": "o", "isPreference": true}, &two)
	w.cast("contact", "ann@stage.example")
	w.subscribe("ann@stage.example")
	b.create("ann@stage.example", "Single")
	c := &choosing{stage: w, news: one}
	c.prefer("ann@stage.example", one, true)
	b.mail("PUT", "/v2/contacts/ann@stage.example/preferences", []cols{{"id": two.ID, "isPreference": true, "isOptedIn": false}}, nil)
	w.cast("contact", "ben@stage.example")
	w.subscribe("ben@stage.example")
	b.create("ben@stage.example", "Single")
	if two.ID != one {
		t.Fatalf("the preferences are %d and %d: a row of one account cannot be taken for one of the other", one, two.ID)
	}
	w.crm("POST", "lockstep_preferencechoices", cols{
		"lockstep_name": "by hand", "lockstep_email": "ben@stage.example", "lockstep_preferencekey": fmt.Sprint(one), "lockstep_optedin": true,
	}, nil)
	for range 2 {
		w.run(lockstep.SyncPreferences)
		b.run(lockstep.SyncPreferences)
	}
	var got []string
	for key, r := range w.choiceRows() {
		got = append(got, fmt.Sprint(key, " ", r["lockstep_optedin"]))
	}
	slices.Sort(got)
	want := []string{fmt.Sprintf("ann@stage.example %d true", one), fmt.Sprintf("ann@stage.example %d of another account false", two.ID), fmt.Sprintf("ben@stage.example %d", one)}
	want[2] = fmt.Sprintf("ben@stage.example %d of another account true", one) // as the user entered it
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	var said []any
	if b.mail("GET", fmt.Sprintf("/v2/contacts/with-preference/%d/opt-ins-since/2000-01-01", two.ID), nil, &said); len(said) != 1 {
		t.Errorf("in the other account there are %v", said)
	}
	if got := w.chosenState(one); !slices.Contains(got, fmt.Sprintf("ben@stage.example %d: in/-", one)) {
		t.Errorf("ben's choice did not reach the default account: %v", got)
	}
}

// Without our tables the run says what to do.
func TestPreferencesWithoutTables(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncPreferences})
	if err == nil || run.Status != lockstep.RunFailed || !strings.Contains(run.Hint, "lockstep dynamics install") {
		t.Errorf("the run ended %s: %s, %s (%v)", run.Status, run.Error, run.Hint, err)
	}
}

// A preview shows both directions and writes nothing; a locked account takes in what
// was said and tells it once it is unlocked.
func TestPreferencesPreviewedAndLocked(t *testing.T) {
	t.Parallel()
	c := newChoosing(t)
	c.subscribe("ann@stage.example", "ben@stage.example")
	c.cast("contact", "ann@stage.example")
	c.cast("contact", "ben@stage.example")
	c.prefer("ann@stage.example", c.news, false)
	c.addRow("ben@stage.example", c.news, true)
	before := c.crmWrites.Load()
	run, err := c.app.RunToEnd(t.Context(), app.RunRequest{Account: c.account.ID, Type: lockstep.SyncPreferences, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	changes, _, err := c.app.Changes(t.Context(), run.ID, 0, 100)
	var kinds []string
	for _, x := range changes {
		kinds = append(kinds, x.Kind.String()+" "+x.Email)
	}
	slices.Sort(kinds)
	if diff := cmp.Diff([]string{"choose_preference ben@stage.example", "keep_row ", "keep_row ", "keep_row ann@stage.example"}, kinds); err != nil || diff != "" {
		t.Errorf("previewed (-want +got, %v):\n%s", err, diff)
	}
	if c.crmWrites.Load() != before || c.choiceWrites() != 0 {
		t.Error("the preview wrote")
	}

	if _, err := c.app.LockAccount(t.Context(), c.account.ID, "the environment was restored"); err != nil {
		t.Fatal(err)
	}
	run = c.run(lockstep.SyncPreferences)
	if run.Counts.OptOutsSeen != 1 || c.crmWrites.Load() != before || c.choiceWrites() != 0 {
		t.Errorf("while locked: %+v, %d rows, %v", run.Counts, c.crmWrites.Load()-before, c.calls("dotdigital"))
	}
	if l, err := c.app.Consent(t.Context(), "ann@stage.example"); err != nil || len(l.Entries) != 1 {
		t.Errorf("the ledger while locked: %+v %v", l, err)
	}
	if _, err := c.app.UnlockAccount(t.Context(), c.account.ID, "Kim", "looked at"); err != nil {
		t.Fatal(err)
	}
	c.want("unlocked", "ann news: out/out", "ben news: in/in")
	c.still("unlocked")
}

// Somebody who opts out while a run is about to opt them in stays out.
func TestPreferenceOptOutDuringTheRun(t *testing.T) {
	t.Parallel()
	var c *choosing
	armed := false
	c = newChoosingWith(t, app.Config{OnStep: func(step string) {
		if armed && step == "keep_row.before" {
			armed = false
			c.later()
			c.prefer("ann@stage.example", c.news, true)
			c.prefer("ann@stage.example", c.news, false)
		}
	}})
	c.subscribe("ann@stage.example", "ben@stage.example")
	c.cast("contact", "ann@stage.example")
	c.cast("contact", "ben@stage.example")
	c.prefer("ben@stage.example", c.news, true)
	c.run(lockstep.SyncPreferences)
	c.addRow("ann@stage.example", c.news, true)
	c.prefer("ben@stage.example", c.news, false) // carried before any opt-in
	armed = true
	c.run(lockstep.SyncPreferences)
	if armed {
		t.Fatal("the run never came to the step")
	}
	c.want("somebody opted out meanwhile", "ann news: out/out", "ben news: out/out")
	c.still("somebody opted out meanwhile")
}

// choosingApart is a world in which both sides have said things that nobody carried.
func choosingApart(t *testing.T, o worldOptions) *world {
	t.Helper()
	o.twins = twin.Options{Contacts: 1, Plain: true, Clock: o.twins.Clock}
	o.bare = true
	w := &stage{world: newWorld(t, o)}
	w.installTables()
	c := &choosing{stage: w, news: w.twins.Dotdigital.AddPreference("News", "n"), offers: w.twins.Dotdigital.AddPreference("Offers", "o")}
	for i, who := range []string{"ann", "ben", "cleo", "dora", "emil"} {
		c.cast("contact", who+"@stage.example", cols{"contactid": fixedID(i)})
		c.subscribe(who + "@stage.example")
	}
	c.prefer("ann@stage.example", c.news, true)
	c.prefer("ben@stage.example", c.news, false)
	c.prefer("emil@stage.example", c.news, true)
	c.run(lockstep.SyncPreferences)
	c.prefer("ann@stage.example", c.news, false)
	c.prefer("ben@stage.example", c.news, true)
	c.addRow("cleo@stage.example", c.news, true)
	c.addRow("dora@stage.example", c.offers, false)
	c.edit("emil@stage.example", c.news, false)
	c.addRow("emil@stage.example", c.offers, true)
	return w.world
}

// The process may die at any step: the next one goes on, both sides agree as after an
// undisturbed run, and the ledger holds.
func TestPreferencesCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	outcome := func(w *world) []string {
		out := w.chosenState(1, 2)
		for _, who := range []string{"ann", "ben", "cleo", "dora", "emil"} {
			l, err := w.app.Consent(w.t.Context(), who+"@stage.example")
			if err != nil {
				w.t.Fatal(err)
			}
			for _, e := range l.Entries {
				if e.Act != lockstep.ActTold {
					out = append(out, fmt.Sprint(who, " ", e.Act, " ", e.Object, " ", e.System))
				}
			}
		}
		return out
	}
	w, steps, run := interruptedRun(t, 0, lockstep.SyncPreferences, choosingApart)
	if run.Counts.OptOutsTold == 0 || run.Counts.ContactsUpdated == 0 {
		t.Fatalf("nothing was told: %+v", run.Counts)
	}
	want := outcome(w)
	t.Logf("dying at each of %d steps: %v\n%s", len(steps), steps, strings.Join(want, "\n"))
	for k := int64(1); k <= int64(len(steps)); k++ {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			w, steps, _ := interruptedRun(t, k, lockstep.SyncPreferences, choosingApart)
			// A choice that was carried to the platform and whose acknowledgement got lost
			// is heard there as the platform's own word; the ledger then has both.
			got := slices.DeleteFunc(outcome(w), func(line string) bool {
				carried, echo := strings.CutSuffix(line, " platform")
				return echo && !slices.Contains(want, line) && slices.Contains(want, carried+" crm")
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the process died at %s; differs from the undisturbed run (-) as follows:\n%s", steps[len(steps)-1], diff)
			}
			if report, err := w.app.VerifyConsent(t.Context(), ""); err != nil || report.Broken != nil || report.Entries == 0 {
				t.Errorf("the ledger: %+v %v", report, err)
			}
			w.resetCalls()
			if run := w.run(lockstep.SyncPreferences); run.Counts.RecordsCreated+run.Counts.RecordsUpdated+run.Counts.Written != 0 || w.choiceWrites() != 0 {
				t.Errorf("not quiet afterwards: %+v %v", run.Counts, w.calls("dotdigital"))
			}
		})
	}
}
