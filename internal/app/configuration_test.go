package app_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
	"github.com/lockstep-sync/lockstep/internal/configuration"
	"github.com/lockstep-sync/lockstep/internal/store"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", "30") // every step waits for a disk
	}
	os.Exit(m.Run())
}

// product is a running product whose company has a second account, and two lists of one
// name in the first.
type product struct {
	*app.App
	company apptest.Seeded
	second  lockstep.EmailAccount
	now     *time.Time
}

func openProduct(t *testing.T) product {
	t.Helper()
	dir := t.TempDir()
	first, company := apptest.Open(t, app.Config{DataDir: dir})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	list := lockstep.ListSettings{Account: company.Account.ID, Name: "Fair", MemberTable: "contact", MembershipAction: lockstep.ActionIgnore, SubscriptionFilter: lockstep.FilterAnyOptOut}
	one, two, gone := list, list, list
	one.CRMID, two.CRMID, gone.CRMID = lockstep.NameID(lockstep.ID{}, "fair one"), lockstep.NameID(lockstep.ID{}, "fair two"), lockstep.NameID(lockstep.ID{}, "fair gone")
	two.Name, gone.Name, gone.Gone = "FAIR", "Was", true
	_, err = s.SaveLists(t.Context(), one, two, gone)
	second, err2 := s.SaveAccount(t.Context(), lockstep.EmailAccount{
		Organization: company.Organization.ID, Name: "Second", Adapter: "dotdigital", Identity: lockstep.AccountIdentity{ID: "1338"}, Settings: map[string]string{"user": "hush"},
	})
	if err := errors.Join(err, err2, s.Close()); err != nil {
		t.Fatal(err)
	}
	now := new(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC))
	a, err := app.Open(t.Context(), app.Config{DataDir: dir, Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(t.Context()) })
	return product{a, company, second, now}
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func (p product) export(t failer, account string) string {
	t.Helper()
	d, err := p.Configuration(context.Background(), account)
	if err != nil {
		t.Fatalf("export: %v", err)
	}
	return string(d.Text())
}

func parse(t failer, text string) configuration.Document {
	t.Helper()
	d, err := configuration.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return d
}

// decide changes something through the use cases that everybody else calls; what they
// refuse does not happen.
func decide(t *rapid.T, p product) {
	ctx, account := context.Background(), p.company.Account.ID
	one := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	text := func(name string) string {
		return rapid.OneOf(rapid.SampledFrom([]string{"", "yes", "12:30", "a: #b", "- x", "\"\\\n"}), rapid.StringN(0, 8, -1)).Draw(t, name)
	}
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0:
		if flag("second") {
			account = p.second.ID
		}
		_, _ = p.UpdateAccount(ctx, account, app.AccountPatch{
			Description: new(text("description")), Priority: new([]string{"lead", "account", "contact"}), CreateCap: new(rapid.IntRange(0, 900).Draw(t, "cap")),
			BulkOptOut: new(lockstep.BulkSuppress), AloneWithSuppressions: new(flag("alone")), Automatic: new(flag("automatic")),
			Guards: app.GuardPatch{Percent: new(rapid.IntRange(1, 100).Draw(t, "percent")), ConfirmChanges: new(flag("confirm"))},
		})
		if flag("default") {
			_, _ = p.UpdateAccount(ctx, account, app.AccountPatch{Default: new(true)})
		}
	case 1:
		name := one("label", "SCORE", "NOTE", "BORN", "KEEN")
		_, _ = p.SaveLabel(ctx, lockstep.DataLabel{
			Account: account, Name: name, Type: map[string]lockstep.FieldType{"SCORE": "number", "NOTE": "text", "BORN": "date", "KEEN": "boolean"}[name],
			Default: one("value", "", "7", "true", "2020-02-29", "a"), Description: text("description"), Private: flag("private"),
		})
	case 2:
		labels, _ := p.Labels(ctx, account)
		l := rapid.SampledFrom(labels).Draw(t, "label")
		if flag("delete") {
			if !l.Synced { // what the platform has, the other product has too
				_ = p.DeleteLabel(ctx, account, l.ID)
			}
			break
		}
		l.Description, l.Private = text("description"), flag("private")
		_, _ = p.SaveLabel(ctx, l)
	case 3:
		m := lockstep.DataMapping{
			Account: account, Label: one("label", "FIRSTNAME", "LASTNAME", "VISITS"), Table: "contact", Direction: lockstep.Direction(one("direction", "to_platform", "to_crm")),
			Column: one("column", "firstname", "lastname", "numberofvisits", "gendercode", "firstname,lastname"), Winner: lockstep.Winner(one("winner", "", "crm", "hold")),
			Empty: lockstep.EmptyPolicy(one("empty", "", "keep", "default")), Default: one("value", "", "4", "a"), Truncate: flag("truncate"), AsNumber: flag("number"),
		}
		mappings, _ := p.Mappings(ctx, account)
		for _, old := range mappings {
			if flag("delete") {
				_ = p.DeleteMapping(ctx, old.ID)
			} else if old.Label == m.Label && old.Direction == m.Direction {
				m.ID = old.ID
			}
		}
		_, _ = p.SaveMapping(ctx, m)
	case 4, 5:
		lists, _ := p.Lists(ctx, account)
		_, _ = p.UpdateList(ctx, rapid.SampledFrom(lists).Draw(t, "list").ID, app.ListPatch{
			Activated: new(flag("activated")), MembershipAction: new(lockstep.MembershipAction(one("action", "ignore", "remove", "allow_known", "create_contact", "create_lead"))),
			SubscriptionFilter: new(lockstep.SubscriptionFilter(one("filter", "none", "suppressed", "opt_in_at_least"))), MinOptIn: new(lockstep.OptInType(rapid.IntRange(0, 3).Draw(t, "opt-in"))),
			MirrorRemovals: new(flag("mirror")), ClearOnSend: new(flag("clear")), SyncOrder: new(rapid.IntRange(0, 50).Draw(t, "order")), ManualOnly: new(flag("manual")), KeepAutomatic: new(flag("keep")),
		})
	case 6:
		s := lockstep.Schedule{Interval: rapid.SampledFrom(lockstep.Intervals).Draw(t, "interval"), Zone: one("zone", "", "UTC", "Asia/Tokyo"), At: lockstep.ClockTime(rapid.IntRange(0, 1439).Draw(t, "at"))}
		for range rapid.IntRange(0, 2).Draw(t, "windows") {
			s.Windows = append(s.Windows, lockstep.Window{From: 60, To: lockstep.ClockTime(rapid.IntRange(0, 1439).Draw(t, "to")), Zone: one("its zone", "", "Europe/London"), Days: []lockstep.Weekday{5, 1}})
		}
		_, _ = p.SetSchedule(ctx, account, rapid.SampledFrom(lockstep.SyncTypes).Draw(t, "type"), s)
	}
}

// decided is what people decided, without what differs between two products.
func decided(t failer, p product) any {
	t.Helper()
	type account struct {
		Account   lockstep.EmailAccount
		Labels    []lockstep.DataLabel
		Mappings  []lockstep.DataMapping
		Lists     []lockstep.ListSettings
		Schedules []lockstep.Schedule
	}
	var all []account
	accounts, err := p.Accounts(context.Background())
	for _, acc := range accounts {
		var one account
		var err1, err2, err3, err4 error
		one.Account = acc.Guarded()
		one.Account.ID, one.Account.Organization, one.Account.BulkOptOut = "", "", cmp.Or(acc.BulkOptOut, lockstep.BulkListRemoval)
		if len(acc.Priority) == 0 {
			one.Account.Priority = lockstep.DefaultPriority
		}
		one.Labels, err1 = p.Labels(context.Background(), acc.ID)
		one.Mappings, err2 = p.Mappings(context.Background(), acc.ID)
		one.Lists, err3 = p.Lists(context.Background(), acc.ID)
		schedules, err4 := p.Schedules(context.Background(), acc.ID)
		err = errors.Join(err, err1, err2, err3, err4)
		for i := range one.Labels {
			one.Labels[i].ID, one.Labels[i].Account = "", ""
		}
		for i := range one.Mappings {
			one.Mappings[i].ID, one.Mappings[i].Account = "", ""
		}
		one.Lists = slices.DeleteFunc(one.Lists, func(l lockstep.ListSettings) bool { return l.Gone })
		for i := range one.Lists {
			one.Lists[i].ID, one.Lists[i].Account = "", ""
		}
		slices.SortFunc(one.Lists, func(a, b lockstep.ListSettings) int { return strings.Compare(a.CRMID.String(), b.CRMID.String()) })
		for _, s := range schedules {
			one.Schedules = append(one.Schedules, s.Schedule)
		}
		all = append(all, one)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return all
}

// Whatever was decided in one product is the same in another after it was exported here
// and applied there, byte for byte.
func TestConfigurationGoesFromOneProductToAnother(t *testing.T) {
	here, there := openProduct(t), openProduct(t)
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 5).Draw(t, "decisions") {
			decide(t, here)
		}
		text := here.export(t, "")
		d := parse(t, text)
		before := there.export(t, "")
		plan, err := there.PlanConfiguration(context.Background(), d, "")
		if err != nil {
			t.Fatalf("plan: %v\n%s", err, text)
		}
		if there.export(t, "") != before {
			t.Fatalf("a plan wrote something")
		}
		if same := before == text; same != (len(plan.Changes) == 0) {
			t.Fatalf("same is %v, changes are %+v", same, plan.Changes)
		}
		done, err := there.ApplyConfiguration(context.Background(), d, "", plan.Fingerprint)
		if err != nil {
			t.Fatalf("apply: %v\n%s", err, text)
		}
		if diff := gocmp.Diff(plan, done); diff != "" {
			t.Fatalf("what was applied is not the plan:\n%s", diff)
		}
		if diff := gocmp.Diff(text, there.export(t, "")); diff != "" {
			t.Fatalf("(-here +there)\n%s", diff)
		}
		if diff := gocmp.Diff(decided(t, here), decided(t, there), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-here +there)\n%s", diff)
		}
		if again, err := there.PlanConfiguration(context.Background(), d, ""); err != nil || len(again.Changes) > 0 {
			t.Fatalf("after it was applied there is a difference: %+v, %v", again.Changes, err)
		}
	})
	// What is no decision stayed as it was.
	lists, err := there.Lists(t.Context(), there.company.Account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		if l.ID == there.company.Customers.ID && l.Book != "42" || l.Name == "Was" && !l.Gone {
			t.Errorf("%+v", l)
		}
	}
	acc, err := there.Account(t.Context(), "Second")
	if err != nil || acc.Identity.ID != "1338" || acc.Settings["user"] != "hush" {
		t.Errorf("%+v, %v", acc, err)
	}
}

func TestConfigurationHoldsNoSecretsAndNoIDs(t *testing.T) {
	p := openProduct(t)
	text := p.export(t, "")
	for _, not := range []string{"hush", "1337", "dotdigital", p.company.Account.ID, p.company.Customers.ID, p.company.Customers.CRMID.String(), p.company.Label.ID, "Was"} {
		if strings.Contains(text, not) {
			t.Errorf("%q is in\n%s", not, text)
		}
	}
	if n := strings.Count(text, "crm_id:"); n != 2 {
		t.Errorf("%d lists have an id, want the two that share a name:\n%s", n, text)
	}
	if one := p.export(t, "Second"); strings.Contains(one, "Contoso mailings") || !strings.Contains(one, "- name: Second\n") {
		t.Error(one)
	}
}

// edits replaces texts in a document; each must be there.
func edits(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in\n%s", pairs[i], text)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestPlanInWords(t *testing.T) {
	p := openProduct(t)
	base := p.export(t, "Contoso mailings")
	visits := "      - label: VISITS\n        table: contact\n        direction: to_platform\n        column: numberofvisits\n        winner: newest\n        empty: clear\n"
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                     {base, nil},
		"no sections":                 {"accounts:\n  - name: contoso MAILINGS\n", nil},
		"a list that is absent":       {"accounts:\n  - name: Contoso mailings\n    lists: []\n", nil},
		"a setting":                   {edits(t, base, `description: ""`, "description: All of Europe", "guard_percent: 5", "guard_percent: 7"), []string{"settings: changed\n  description: (none) → All of Europe\n  guard_percent: 5 → 7"}},
		"settings that are not named": {"accounts:\n  - name: Contoso mailings\n    settings:\n      automatic: true\n", []string{"settings: changed\n  automatic: false → true"}},
		"the order of tables":         {edits(t, base, "[contact, lead, account]", "[lead, contact, account]"), []string{"settings: changed\n  priority: contact, lead, account → lead, contact, account"}},
		"a new label, mapped": {
			edits(t, base, "    labels:\n", "    labels:\n      - name: score\n        type: number\n        default: \"0\"\n", "    mappings:\n", "    mappings:\n      - {label: SCORE, table: contact, direction: to_crm, column: numberofvisits}\n"),
			[]string{
				"label SCORE: created (the next data-labels run makes its field on the platform)\n  name: SCORE\n  type: number\n  default: \"0\"",
				"mapping SCORE to_crm of contact: created\n  label: SCORE\n  table: contact\n  direction: to_crm\n  column: numberofvisits\n  winner: newest\n  empty: clear",
			},
		},
		"a label":           {edits(t, base, "      - name: VISITS\n        type: number\n", "      - {name: visits, type: number, private: true, description: In the shop}\n"), []string{"label VISITS: changed\n  private: false → true\n  description: (none) → In the shop"}},
		"a label less":      {edits(t, base, "      - name: FIRSTNAME\n        type: text\n", ""), []string{"label FIRSTNAME: deleted (its field on the platform stays, and the next data-labels run reads it again)"}},
		"a mapping":         {edits(t, base, "winner: newest", "winner: hold", "empty: clear\n", "empty: default\n        default: \"0\"\n"), []string{"mapping VISITS to_platform of contact: changed\n  winner: newest → hold\n  empty: clear → default\n  default: (none) → \"0\""}},
		"all mappings less": {edits(t, base, "    mappings:\n"+visits, "    mappings: []\n"), []string{"mapping VISITS to_platform of contact: deleted (values already written stay)"}},
		"another direction": {edits(t, base, "direction: to_platform", "direction: to_crm"), []string{
			"mapping VISITS to_crm of contact: created\n  label: VISITS\n  table: contact\n  direction: to_crm\n  column: numberofvisits\n  winner: newest\n  empty: clear",
			"mapping VISITS to_platform of contact: deleted (values already written stay)",
		}},
		"a list":           {"accounts:\n  - name: Contoso mailings\n    lists:\n      - name: partners\n        activated: true\n        min_opt_in: double\n", []string{"list \"Partners\": changed\n  activated: false → true\n  min_opt_in: unknown → double"}},
		"one of two lists": {"accounts:\n  - name: Contoso mailings\n    lists:\n      - name: fair\n        crm_id: " + lockstep.NameID(lockstep.ID{}, "fair two").String() + "\n        sync_order: 3\n", []string{"list \"FAIR\" " + lockstep.NameID(lockstep.ID{}, "fair two").String() + ": changed\n  sync_order: 0 → 3"}},
		"a schedule": {
			edits(t, base, "      - type: marketing-lists\n        interval: continuous\n", "      - type: marketing-lists\n        interval: 4H\n        windows:\n          - {days: [mon, FRI], from: 18:00, to: \"8:00\", zone: Europe/London}\n          - {from: \"12:00\", to: \"13:00\"}\n"),
			[]string{"schedule marketing-lists: changed\n  interval: continuous → 4h\n  windows: (none) → mon,fri 18:00-08:00 Europe/London; 12:00-13:00"},
		},
		"all schedules less": {"accounts:\n  - name: Contoso mailings\n    schedules: []\n", nil}, // they are at their defaults
		"another default":    {"accounts:\n  - name: Second\n    settings:\n      default: true\n", []string{"settings: changed (the default account in place of \"Contoso mailings\")\n  default: false → true"}},
		"another default, both named": {
			"accounts:\n  - name: Contoso mailings\n    settings:\n      default: false\n  - name: Second\n    settings:\n      default: true\n",
			[]string{"settings: changed\n  default: true → false", "settings: changed (the default account in place of \"Contoso mailings\")\n  default: false → true"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := p.PlanConfiguration(t.Context(), parse(t, tc.text), "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range plan.Changes {
				got = append(got, plan.Changes[i].String())
			}
			if diff := gocmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if p.export(t, "Contoso mailings") != base {
		t.Error("a plan wrote something")
	}
}

// told lists the problems of an error as path: message.
func told(err error) []string {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		if err == nil {
			return nil
		}
		e := lockstep.AsError(err)
		return []string{e.Field + ": " + e.Msg}
	}
	var all []string
	for _, one := range joined.Unwrap() {
		all = append(all, told(one)...)
	}
	return all
}

func TestDocumentsAreRefused(t *testing.T) {
	p := openProduct(t)
	base := p.export(t, "")
	const start = "accounts:\n  - name: Contoso mailings\n"
	for name, tc := range map[string]struct {
		text, account string
		want          []string // path: message, in this order
	}{
		"no accounts":        {"accounts: []\n", "", []string{"accounts: the document is about no email account"}},
		"an unknown account": {"accounts:\n  - name: Nobody\n", "", []string{`accounts[0].name: there is no email account "Nobody"`}},
		"an unknown target":  {start, "Nobody", []string{`account: there is no email account "Nobody"`}},
		"a target for two":   {base, "Second", []string{"account: the document is about 2 accounts and cannot be about another one"}},
		"an organization":    {"accounts:\n  - name: Second\n    organization: Fabrikam\n", "", []string{`accounts[0].organization: there is no organization "Fabrikam"`}},
		"an account twice":   {"accounts:\n  - name: Second\n  - name: second\n", "", []string{`accounts[1].name: the email account "second" is in the document twice`}},
		"two defaults":       {start + "    settings:\n      default: true\n  - name: Second\n    settings:\n      default: true\n", "", []string{"accounts[1].settings.default: an organization has one default account"}},
		"no default":         {start + "    settings:\n      default: false\n", "", []string{"accounts[0].settings.default: an organization has one default account"}},
		"settings": {
			start + "    settings:\n      priority: [lead]\n      create_cap: -1\n      bulk_opt_out: cry\n      guard_percent: 0\n      guard_rows: 0\n      guard_floor: 10001\n      description: \"" + strings.Repeat("x", 2001) + "\"\n", "",
			[]string{
				"accounts[0].settings.description: the text has more than 2000 characters", "accounts[0].settings.priority: the priority is an order of contact, lead, account",
				"accounts[0].settings.create_cap: the cap is between 0 and 1000000 records", `accounts[0].settings.bulk_opt_out: "cry" is not what a bulk email opt-out can do`,
				"accounts[0].settings.guard_percent: the limit is between 1 and 100", "accounts[0].settings.guard_rows: the limit is between 1 and 1000000", "accounts[0].settings.guard_floor: the limit is between 1 and 10000",
			},
		},
		"labels": {
			edits(t, base, "      - name: VISITS\n        type: number\n", "      - {name: VISITS, type: text}\n      - {name: visits, type: number}\n      - {name: ÄGE, type: number, default: old}\n      - {name: GENDER, type: text}\n      - {name: NEW, type: color}\n"), "",
			[]string{
				"accounts[0].labels[2].type: a label's name and type cannot be changed", `accounts[0].labels[3].name: the label "visits" is there twice`,
				"accounts[0].labels[4].name: the name of the data label contains a character that the platform does not take", "accounts[0].labels[4].default: the default does not fit a number label",
				"accounts[0].labels[5].name: the field GENDER of every email account is not known yet", `accounts[0].labels[6].type: "color" is not a label type`,
			},
		},
		"a label that is mapped":               {edits(t, base, "      - name: VISITS\n        type: number\n", ""), "", []string{"accounts[0].labels: the label VISITS is not among them, but mapped for contact"}},
		"a label that mappings left alone use": {start + "    labels: []\n", "", []string{"accounts[0].labels: the label VISITS is not among them, but mapped for contact"}},
		"mappings": {
			start + "    mappings:\n" +
				"      - {label: VISITS, table: contact, direction: sideways, column: numberofvisits, winner: me, empty: never}\n" +
				"      - {label: VISITS, table: invoice, direction: to_crm, column: name}\n" +
				"      - {label: NONE, table: contact, direction: to_crm, column: firstname}\n" +
				"      - {label: FIRSTNAME, table: contact, direction: to_crm, column: gendercode}\n" +
				"      - {label: FIRSTNAME, table: contact, direction: to_crm, column: firstname}\n" +
				"      - {label: LASTNAME, table: contact, direction: to_platform, column: lastname}\n" +
				"      - {label: LASTNAME, table: contact, direction: to_crm, column: firstname}\n", "",
			[]string{
				`accounts[0].mappings[0].direction: "sideways" is not a direction`, `accounts[0].mappings[0].winner: "me" is not a policy`, `accounts[0].mappings[0].empty: "never" is not a policy for empty values`,
				`accounts[0].mappings[1].table: "invoice" is not a table that can be mapped`, `accounts[0].mappings[2].label: data label "NONE" does not exist`,
				"accounts[0].mappings[3].column: column gendercode, wanted for data label FIRSTNAME, cannot be written", "accounts[0].mappings[4].label: the label FIRSTNAME is mapped for contact in this direction already",
				"accounts[0].mappings[6].column: the two directions of data label LASTNAME name different columns",
			},
		},
		"lists": {
			start + "    lists:\n" +
				"      - {name: Nowhere}\n      - {name: Was}\n      - {name: fair}\n      - {name: Fair, crm_id: 11111111-1111-1111-1111-111111111111}\n" +
				"      - {name: Newsletter, membership_action: create_lead}\n      - {name: Partners, subscription_filter: all, min_opt_in: triple, sync_order: -1}\n      - {name: Partners}\n      - {name: Customers <EMEA>, membership_action: create_lead}\n", "",
			[]string{
				`accounts[0].lists[0].name: the CRM has no marketing list "Nowhere"`, `accounts[0].lists[1].name: the CRM has no marketing list "Was"`, `accounts[0].lists[2].name: 2 marketing lists are called "fair"`,
				`accounts[0].lists[3].name: the CRM has no marketing list "Fair" with the id "11111111-1111-1111-1111-111111111111"`,
				"accounts[0].lists[4].membership_action: a dynamic list cannot create records: its members are the result of its query",
				`accounts[0].lists[5].min_opt_in: "triple" is not an opt-in type`, `accounts[0].lists[5].subscription_filter: "all" is not a subscription filter`, "accounts[0].lists[5].sync_order: the order is between 0 and 1000000",
				`accounts[0].lists[6].name: the marketing list "Partners" is there twice`,
				`accounts[0].lists[7].membership_action: create_lead needs a list of leads, this one has members of type "contact"`,
			},
		},
		"schedules": {
			start + "    schedules:\n      - {type: undo, interval: 1h}\n      - {type: suppressions, interval: 3h}\n      - {type: suppressions, interval: 5m}\n" +
				"      - type: unsubscribes\n        interval: daily\n        at: noon\n        zone: Mars\n        windows:\n          - {from: \"25:00\", to: \"1:00\", days: [mon, someday]}\n", "",
			[]string{
				`accounts[0].schedules[0].type: "undo" is not a sync type of this version`, `accounts[0].schedules[1].interval: "3h" is not an interval`, "accounts[0].schedules[2].type: the schedule of suppressions is there twice",
				`accounts[0].schedules[3].at: "noon" is not a time of day`, `accounts[0].schedules[3].windows[0].from: "25:00" is not a time of day`, `accounts[0].schedules[3].windows[0].days[1]: "someday" is not a day of the week`,
				`accounts[0].schedules[3].zone: "Mars" is not a time zone`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := parse(t, tc.text)
			_, err := p.PlanConfiguration(t.Context(), d, tc.account)
			got := told(err)
			if len(got) > 1 {
				if want := fmt.Sprintf(": there are %d problems in the document; nothing was written", len(got)-1); len(got) > 2 && got[0] != want {
					t.Errorf("it begins with %q, want %q", got[0], want)
				}
				got = got[1:]
			}
			if diff := gocmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if _, err2 := p.ApplyConfiguration(t.Context(), d, tc.account, ""); fmt.Sprint(err2) != fmt.Sprint(err) {
				t.Errorf("apply says %v, plan %v", err2, err)
			}
		})
	}
	if p.export(t, "") != base {
		t.Error("something was written")
	}
}

// A problem in the last item keeps everything before it from being written.
func TestADocumentIsAppliedAsAWhole(t *testing.T) {
	p := openProduct(t)
	base := p.export(t, "")
	text := edits(t, base, `description: ""`, "description: new", "    labels:\n", "    labels:\n      - {name: SCORE, type: number}\n", "winner: newest", "winner: crm", "activated: true", "activated: false", "interval: continuous", "interval: 1h")
	last := strings.LastIndex(text, "interval: ")
	wrong := text[:last] + "interval: 7m" + text[last+len("interval: 15m"):]
	if _, err := p.ApplyConfiguration(t.Context(), parse(t, wrong), "", ""); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Fatalf("%v", err)
	}
	if diff := gocmp.Diff(base, p.export(t, "")); diff != "" {
		t.Errorf("something was written:\n%s", diff)
	}
	plan, err := p.ApplyConfiguration(t.Context(), parse(t, text), "", "")
	if err != nil || len(plan.Changes) != 5 {
		t.Fatalf("%+v, %v", plan.Changes, err)
	}
	if p.export(t, "") == base {
		t.Error("nothing was written")
	}
	schedules, err := p.Schedules(t.Context(), p.company.Account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range schedules {
		if s.Interval == "1h" && !s.Next.Equal(p.now.Add(time.Hour)) {
			t.Errorf("%s is due at %s", s.Type, s.Next)
		}
	}
}

// A schedule that a document with schedules does not name goes by its default again.
func TestSchedulesThatAreLeftOutAreTheDefaults(t *testing.T) {
	p := openProduct(t)
	base := p.export(t, "")
	if _, err := p.SetSchedule(t.Context(), p.company.Account.ID, lockstep.SyncOptIn, lockstep.Schedule{Interval: "8h"}); err != nil {
		t.Fatal(err)
	}
	d := parse(t, "accounts:\n  - name: Contoso mailings\n    schedules: []\n")
	plan, err := p.ApplyConfiguration(t.Context(), d, "", "")
	if err != nil || len(plan.Changes) != 1 || plan.Changes[0].Name != "opt-in-status" {
		t.Fatalf("%+v, %v", plan.Changes, err)
	}
	if diff := gocmp.Diff(base, p.export(t, "")); diff != "" {
		t.Error(diff)
	}
}

// The default account changes whichever of both is named first.
func TestTheDefaultAccountChanges(t *testing.T) {
	p := openProduct(t)
	for _, text := range []string{
		"accounts:\n  - name: Contoso mailings\n    settings: {default: false}\n  - name: Second\n    settings: {default: true}\n",
		"accounts:\n  - name: Contoso mailings\n    settings: {default: true}\n  - name: Second\n    settings: {create_cap: 7}\n",
		"accounts:\n  - name: Second\n    settings: {default: true}\n",
	} {
		d := parse(t, text)
		if _, err := p.ApplyConfiguration(t.Context(), d, "", ""); err != nil {
			t.Fatal(err)
		}
		_, now, _ := strings.Cut(text, "default: true")
		want := "Second"
		if strings.Contains(now, "name: Second") {
			want = "Contoso mailings"
		}
		for _, name := range []string{"Contoso mailings", "Second"} {
			if acc, err := p.Account(t.Context(), name); err != nil || acc.Default != (name == want) {
				t.Errorf("%s: default is %v, %v", name, acc.Default, err)
			}
		}
		if plan, err := p.PlanConfiguration(t.Context(), d, ""); err != nil || len(plan.Changes) > 0 {
			t.Errorf("%+v, %v", plan.Changes, err)
		}
	}
}

func TestAPlanIsAppliedAsItWasShown(t *testing.T) {
	p := openProduct(t)
	text := edits(t, p.export(t, "Contoso mailings"), "winner: newest", "winner: crm")
	d := parse(t, text)
	plan, err := p.PlanConfiguration(t.Context(), d, "")
	if err != nil {
		t.Fatal(err)
	}
	refused := func(d configuration.Document, why string) {
		t.Helper()
		before := p.export(t, "")
		if _, err := p.ApplyConfiguration(t.Context(), d, "", plan.Fingerprint); lockstep.CodeOf(err) != lockstep.CodeConflict || !strings.Contains(err.Error(), "has changed since") {
			t.Errorf("%s: %v", why, err)
		}
		if p.export(t, "") != before {
			t.Errorf("%s: something was written", why)
		}
	}
	refused(parse(t, edits(t, text, "winner: crm", "winner: hold")), "another document")
	if _, err := p.UpdateList(t.Context(), p.company.Partners.ID, app.ListPatch{ManualOnly: new(true)}); err != nil {
		t.Fatal(err)
	}
	refused(d, "another state")
	if _, err := p.UpdateList(t.Context(), p.company.Partners.ID, app.ListPatch{ManualOnly: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ApplyConfiguration(t.Context(), d, "", plan.Fingerprint); err != nil {
		t.Error(err)
	}
	refused(d, "it was applied already")
}

// How long the audit is kept, and the budgets of the organizations, are in a document of
// everything, and go with the rest or not at all.
func TestWhatAllAccountsShareIsConfigured(t *testing.T) {
	p := openProduct(t)
	text := p.export(t, "")
	orgs, err := p.Organizations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := orgs[0].Name
	head := "installation:\n  retention_days: 30\n\norganizations:\n  - name: " + name + "\n    calls_per_hour: 0\n    calls_per_day: 0\n"
	if !strings.HasPrefix(text, head) {
		t.Fatalf("the document begins with\n%.300s\nand not with\n%s", text, head)
	}
	if strings.Contains(p.export(t, "Second"), "installation") {
		t.Error("the document of one account tells of all")
	}
	changed := strings.Replace(text, head, "installation:\n  retention_days: 90\norganizations:\n  - name: "+strings.ToUpper(name)+"\n    calls_per_day: 50000\n", 1)
	plan, err := p.PlanConfiguration(t.Context(), parse(t, changed), "")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, c := range plan.Changes {
		words = append(words, c.String())
	}
	if got, want := strings.Join(words, "\n"), "installation: changed\n  retention_days: 30 → 90\norganization "+name+": changed\n  calls_per_day: 0 → 50000"; got != want {
		t.Errorf("the plan is\n%s\nwant\n%s", got, want)
	}
	// One mistake anywhere, and nothing of it is written.
	for bad, says := range map[string]string{
		strings.Replace(changed, "retention_days: 90", "retention_days: 0", 1):      "installation.retention_days",
		strings.Replace(changed, "calls_per_day: 50000", "calls_per_day: -1", 1):    "organizations[0].calls_per_day",
		strings.Replace(changed, strings.ToUpper(name), "Nobody", 1):                "organizations[0].name",
		strings.Replace(changed, "accounts:", "  - {name: "+name+"}\naccounts:", 1): "organizations[1].name",
		strings.Replace(changed, "interval: 5m", "interval: 6m", 1):                 "schedules",
	} {
		if _, err := p.ApplyConfiguration(t.Context(), parse(t, bad), "", ""); lockstep.CodeOf(err) != lockstep.CodeInvalid || !strings.Contains(fields(err), says) {
			t.Errorf("%s: %v at %s", says, err, fields(err))
		}
		if p.export(t, "") != text {
			t.Fatalf("%s: something was written", says)
		}
	}
	if _, err := p.ApplyConfiguration(t.Context(), parse(t, changed), "", plan.Fingerprint); err != nil {
		t.Fatal(err)
	}
	s, err := p.Settings(t.Context())
	if err != nil || s.RetentionDays != 90 {
		t.Errorf("%+v, %v", s, err)
	}
	if orgs, err = p.Organizations(t.Context()); err != nil || orgs[0].Budget != (lockstep.CallBudget{PerDay: 50000}) || orgs[0].Name != name {
		t.Errorf("%+v, %v", orgs[0], err)
	}
	if _, err := p.ApplyConfiguration(t.Context(), parse(t, changed), "", plan.Fingerprint); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("the plan is of another state: %v", err)
	}
	if plan, err := p.PlanConfiguration(t.Context(), parse(t, changed), ""); err != nil || len(plan.Changes) > 0 {
		t.Errorf("%+v, %v", plan.Changes, err)
	}
}

// fields are the places that an error names.
func fields(err error) string {
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		out := ""
		for _, one := range all.Unwrap() {
			out += fields(one) + " "
		}
		return out
	}
	return lockstep.AsError(err).Field
}

// What one account has can be given to another of another name, whose name stays.
func TestAConfigurationForAnotherAccount(t *testing.T) {
	p := openProduct(t)
	text := edits(t, p.export(t, "Second"), "- name: Second", "- name: Sandbox", "labels: []", "labels:\n      - {name: SCORE, type: text}", "create_cap: 0", "create_cap: 9")
	if _, err := p.ApplyConfiguration(t.Context(), parse(t, text), "Second", ""); err != nil {
		t.Fatal(err)
	}
	got := p.export(t, "Second")
	for _, want := range []string{"- name: Second\n", "create_cap: 9\n", "- name: SCORE\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// A suspended mapping that the document has as it is stays suspended and is no problem.
func TestSuspendedMappingsStay(t *testing.T) {
	p := openProduct(t)
	dir := t.TempDir()
	a, company := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	m := company.Mapping
	m.Column, m.Disabled = "deleted", "its column was deleted"
	_, err = s.SaveMapping(t.Context(), m)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if p.App, err = app.Open(t.Context(), app.Config{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.App.Close(t.Context()) })
	text := edits(t, p.export(t, ""), `description: ""`, "description: new")
	if plan, err := p.ApplyConfiguration(t.Context(), parse(t, text), "", ""); err != nil || len(plan.Changes) != 1 {
		t.Fatalf("%+v, %v", plan.Changes, err)
	}
	mappings, err := p.Mappings(t.Context(), company.Account.ID)
	if err != nil || len(mappings) != 1 || mappings[0] != m {
		t.Errorf("%+v, %v", mappings, err)
	}
}
