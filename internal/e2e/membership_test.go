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

// scene is one list with the same cast as any other scene: people who are treated
// differently by each membership action.
type scene struct {
	name   string
	list   lockstep.ListSettings
	mirror bool
	ids    map[string]string
}

// who is the last name of a role's record, and the part of the address before the @.
func (s *scene) who(role string) string { return strings.ReplaceAll(role, " ", "-") + "-" + s.name }

func (s *scene) email(role string) string { return s.who(role) + "@stage.example" }

// members are those of the marketing list before the first sync.
var members = []string{"member", "leaver", "handed out", "list unsubscriber", "later refuser"}

func (w *stage) scene(table string, action lockstep.MembershipAction, mirror bool) *scene {
	w.t.Helper()
	s := &scene{name: strings.ReplaceAll(fmt.Sprintf("%s-%s-%t", table, action, mirror), "_", ""), mirror: mirror, ids: map[string]string{}}
	s.list = w.list(s.name, table, action, "")
	s.list = w.patchList(s.list, app.ListPatch{MirrorRemovals: &mirror})
	for _, role := range members {
		s.ids[role] = w.cast(table, s.email(role))
		w.join(s.list, s.ids[role])
	}
	s.ids["no email"] = w.cast(table, "", cols{nameColumn(table): s.who("no email")})
	w.join(s.list, s.ids["no email"])
	for _, role := range []string{"known", "known suppressed", "namesake", "refuser"} {
		s.ids[role] = w.cast(table, s.email(role))
	}
	w.twins.Clock.Advance(2 * time.Second)
	s.ids["younger namesake"] = w.cast(table, s.email("namesake"), cols{nameColumn(table): s.who("younger namesake")})
	w.editRecord(table, s.ids["refuser"], cols{"donotbulkemail": true})
	return s
}

func nameColumn(table string) string {
	if table == "account" {
		return "name"
	}
	return "lastname"
}

// unfold is what happens between the first sync and the second.
func (w *stage) unfold(s *scene) {
	w.t.Helper()
	book := w.book(s.list)
	for _, role := range []string{"known", "known suppressed", "namesake", "refuser", "unknown", "unknown suppressed"} {
		w.signUp(book, s.email(role))
	}
	w.optOut(s.email("known suppressed"))
	w.optOut(s.email("unknown suppressed"))
	w.quit(s.list, s.ids["leaver"])
	w.takeOut(book, s.email("handed out"))
	w.optOutOf(book, s.email("list unsubscriber"))
	w.editRecord(s.list.MemberTable, s.ids["later refuser"], cols{"donotemail": true})
}

func (s *scene) cell(format, role string) string {
	return fmt.Sprintf(format, s.name, s.email(role))
}

const inBook, outOfBook = "+book %s: %s", "-book %s: %s"

// wants says which cells the second and the third sync may change.
func (s *scene) wants() (second, third []string) {
	action, table := s.list.MembershipAction, s.list.MemberTable
	second = append(second, s.cell(inBook, "handed out"), s.cell(outOfBook, "later refuser"))
	switch {
	case s.mirror, action == lockstep.ActionRemove:
		second = append(second, s.cell(outOfBook, "leaver"))
	}
	admit := func(role string) {
		lastName := s.who(role)
		second = append(second, fmt.Sprintf("+list %s: %s", s.name, lastName))
		if table != "account" {
			second = append(second, fmt.Sprintf("contact %s LASTNAME = %s", s.email(role), lastName))
		}
		if table == "contact" {
			second = append(second, fmt.Sprintf("contact %s METHOD = Any", s.email(role))) // the CRM's default
		}
		second = append(second, fmt.Sprintf("contact %s FULLNAME = %s", s.email(role), lastName))
	}
	switch action {
	case lockstep.ActionRemove: // nobody is removed in the cycle that met them first
		for _, role := range []string{"known", "namesake", "refuser", "unknown"} {
			third = append(third, s.cell(outOfBook, role))
		}
	case lockstep.ActionAllowKnown, lockstep.ActionCreateLead, lockstep.ActionCreateContact:
		admit("known")
		admit("namesake")
		if action != lockstep.ActionAllowKnown {
			admit("unknown")
			name := s.who("unknown")
			key := "crm " + table + " " + name
			second = append(second, "+"+key, key+" emailaddress1 = "+s.email("unknown"), key+" lastname = "+name, key+" fullname = "+name,
				key+" statecode = 0", key+" donotemail = false", key+" donotbulkemail = false")
			if table == "contact" {
				second = append(second, key+" preferredcontactmethodcode = 1")
			}
		}
	}
	return second, third
}

// Each membership action changes exactly the cells that it is there for, in both
// systems, with removals mirrored and without.
func TestCB03MembershipActionsChangeTheirCellsOnly(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	var scenes []*scene
	for _, c := range []struct {
		table  string
		action lockstep.MembershipAction
	}{
		{"contact", lockstep.ActionIgnore},
		{"contact", lockstep.ActionRemove},
		{"contact", lockstep.ActionAllowKnown},
		{"contact", lockstep.ActionCreateContact},
		{"lead", lockstep.ActionIgnore},
		{"lead", lockstep.ActionRemove},
		{"lead", lockstep.ActionAllowKnown},
		{"lead", lockstep.ActionCreateLead},
		{"account", lockstep.ActionIgnore},
		{"account", lockstep.ActionRemove},
		{"account", lockstep.ActionAllowKnown},
	} {
		for _, mirror := range []bool{true, false} {
			scenes = append(scenes, w.scene(c.table, c.action, mirror))
		}
	}
	run := w.sync()
	for _, s := range scenes {
		w.told(run, lockstep.FindingNoEmail, s.ids["no email"])
	}
	w.quiet()

	wantSecond, wantThird := []string{}, []string{}
	for _, s := range scenes {
		w.unfold(s)
		second, third := s.wants()
		wantSecond, wantThird = append(wantSecond, second...), append(wantThird, third...)
	}
	slices.Sort(wantSecond)
	slices.Sort(wantThird)
	before := w.state()
	run = w.sync()
	after := w.state()
	if diff := cmp.Diff(wantSecond, changed(before, after)); diff != "" {
		t.Errorf("the second sync (-want +got):\n%s", diff)
	}
	for _, s := range scenes {
		switch s.list.MembershipAction {
		case lockstep.ActionAllowKnown, lockstep.ActionCreateContact, lockstep.ActionCreateLead:
			w.told(run, lockstep.FindingDuplicate, s.ids["namesake"])
			w.told(run, lockstep.FindingBlockedByConsent, s.ids["refuser"])
		}
	}
	w.applyPreview()
	if diff := cmp.Diff(wantThird, changed(after, w.state())); diff != "" {
		t.Errorf("the third sync (-want +got):\n%s", diff)
	}
	w.quiet()
	w.quiet()
}

// A preview shows what becomes of strangers, and applying it does that. What a record
// that does not exist yet will say of its contact cannot be previewed: it follows with
// the next run.
func TestStrangersPreviewed(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	scenes := []*scene{w.scene("contact", lockstep.ActionAllowKnown, true), w.scene("contact", lockstep.ActionCreateContact, true), w.scene("lead", lockstep.ActionRemove, false)}
	w.applyPreview()
	w.quiet()
	for _, s := range scenes {
		w.unfold(s)
	}
	w.applyPreview()
	for _, s := range scenes[:2] {
		if got := w.field(s.email("known"), "LASTNAME"); got != s.who("known") {
			t.Errorf("%s has LASTNAME %v", s.email("known"), got)
		}
	}
	w.applyPreview()
	if got := w.field(scenes[1].email("unknown"), "LASTNAME"); got != scenes[1].who("unknown") {
		t.Errorf("%s has LASTNAME %v", scenes[1].email("unknown"), got)
	}
	w.sync()
	w.quiet()
}

// Under Remove a stranger leaves the list and stays in the account, with everything
// that is known of the person.
func TestCB04RemovedFromTheListNotFromTheAccount(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionRemove, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	book := w.book(l)
	w.signUp(book, "stranger@stage.example", "FIRSTNAME", "Stray")
	w.sync()
	if _, there := w.contacts(book)["stranger@stage.example"]; !there {
		t.Error("removed in the cycle that met the stranger for the first time")
	}
	before := w.state()
	w.sync()
	if diff := cmp.Diff([]string{"-book Readers: stranger@stage.example"}, changed(before, w.state())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c := w.contact("stranger@stage.example"); c.DataFields["FIRSTNAME"] != "Stray" {
		t.Errorf("the contact is %+v", c)
	}
	w.quiet()
}

// Somebody who signed up and became a member before the next cycle stays.
func TestRemoveLeavesWhoBecameAMember(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionRemove, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.signUp(w.book(l), "new@stage.example")
	w.sync()
	w.join(l, w.cast("contact", "new@stage.example"))
	for range 3 {
		w.sync()
		if _, there := w.contacts(w.book(l))["new@stage.example"]; !there {
			t.Fatal("the new member was removed")
		}
	}
	w.quiet()
}

// A dynamic list is a one-way street: who is no longer in the query leaves the book,
// so do strangers at once, and the CRM's membership is never written.
func TestCB02DynamicListNeverWritesToTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	ids := map[string]string{}
	for _, name := range []string{"ann", "ben", "cleo"} {
		ids[name] = w.cast("contact", name+"@stage.example", cols{"address1_city": "Porto"})
	}
	stranger := w.cast("contact", "known@stage.example", cols{"address1_city": "Lima"})
	for _, action := range []lockstep.MembershipAction{lockstep.ActionIgnore, lockstep.ActionAllowKnown} {
		w.list("Porto "+string(action), "contact", action, `<condition attribute="address1_city" operator="eq" value="Porto"/>`)
	}
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.sync()
	w.quiet()
	var want []string
	for _, l := range lists {
		if !l.Activated {
			continue
		}
		for _, who := range []string{"known", "unknown"} {
			w.signUp(w.book(l), who+"@stage.example")
			want = append(want, "-book "+l.Name+": "+who+"@stage.example")
		}
		want = append(want, "-book "+l.Name+": ben@stage.example", "+book "+l.Name+": dora@stage.example")
	}
	w.editRecord("contact", ids["ben"], cols{"address1_city": "Faro"})
	w.cast("contact", "dora@stage.example", cols{"address1_city": "Porto"})
	want = append(want, "+contact dora@stage.example") // compared below without the fields
	slices.Sort(want)
	before := w.state()
	rows := w.crmWrites.Load()
	w.sync()
	var got []string
	for _, c := range changed(before, w.state()) {
		switch {
		case strings.Contains(c, " contact ") && strings.Contains(c, "ben@") || strings.HasPrefix(c, "contact ben@"):
		case strings.HasPrefix(c, "contact dora@stage.example = "):
			got = append(got, "+contact dora@stage.example")
		case strings.HasPrefix(c, "contact dora@stage.example "):
		default:
			got = append(got, c)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := w.crmWrites.Load() - rows; n != 0 {
		t.Errorf("%d rows were written in the CRM", n)
	}
	w.quiet()
	// Back again, as if nothing had been.
	w.editRecord("contact", ids["ben"], cols{"address1_city": "Porto"})
	w.editRecord("contact", stranger, cols{"address1_city": "Porto"})
	w.sync()
	for _, l := range lists {
		if l.Activated {
			book := w.contacts(w.book(l))
			if len(book) != 5 {
				t.Errorf("%s has %d members, want 5", l.Name, len(book))
			}
		}
	}
	w.quiet()
}

// Creation uses the part before the @ where the platform knows no last name, sets
// what is mapped, and stops at the account's limit for one run.
func TestStrangersBecomeRecords(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Sign-ups", "contact", lockstep.ActionCreateContact, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	book := w.book(l)
	w.signUp(book, "grace@stage.example", "FIRSTNAME", "Grace", "LASTNAME", "Hopper", "JOBTITLE", "Admiral", "CITY", "Arlington")
	w.signUp(book, "barbara@stage.example", "FIRSTNAME", "Barbara")
	run := w.sync()
	if run.Counts.RecordsCreated != 2 || run.Counts.ListAdds != 2 {
		t.Errorf("counts %+v", run.Counts)
	}
	want := map[string]string{"grace@stage.example": "Grace Hopper Admiral ", "barbara@stage.example": "Barbara barbara  "} // CITY is not mapped into the CRM
	got := map[string]string{}
	for _, r := range w.people("contact") {
		if e := r.str("emailaddress1"); want[e] != "" {
			got[e] = fmt.Sprintf("%s %s %s %s", r.str("firstname"), r.str("lastname"), r.str("jobtitle"), r.str("address1_city"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.sync() // the full name of a new record comes back to the platform
	w.quiet()
}

func TestStrangersUpToTheLimitOfOneRun(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Sign-ups", "lead", lockstep.ActionCreateLead, "")
	w.join(l, w.cast("lead", "ann@stage.example"))
	w.sync()
	for i := range lockstep.DefaultCreateCap + 3 {
		w.signUp(w.book(l), fmt.Sprintf("stranger%d@stage.example", i))
	}
	run := w.sync()
	if run.Counts.RecordsCreated != lockstep.DefaultCreateCap {
		t.Errorf("%d records were created, want %d", run.Counts.RecordsCreated, lockstep.DefaultCreateCap)
	}
	w.told(run, lockstep.FindingCreateCap, "")
	if run = w.sync(); run.Counts.RecordsCreated != 3 {
		t.Errorf("%d records were created by the next run, want the other 3", run.Counts.RecordsCreated)
	}
	w.quiet()
}

// A subscription filter decides at entry and at exit, and everybody comes back once
// the reason is gone. A record that allows no email at all is out under every filter.
func TestSubscriptionFilters(t *testing.T) {
	t.Parallel()
	flags := []string{"donotemail", "donotbulkemail", "donotsendmm"}
	excluded := map[lockstep.SubscriptionFilter]map[string]bool{
		lockstep.FilterNone:      {"donotemail": true},
		lockstep.FilterBulkEmail: {"donotemail": true, "donotbulkemail": true},
		lockstep.FilterAnyOptOut: {"donotemail": true, "donotbulkemail": true},
		lockstep.FilterMaterial:  {"donotemail": true, "donotbulkemail": true, "donotsendmm": true},
	}
	w := newStage(t)
	all := map[lockstep.SubscriptionFilter]lockstep.ListSettings{}
	for filter := range excluded {
		l := w.list("Filter "+string(filter), "contact", lockstep.ActionIgnore, "")
		all[filter] = w.patchList(l, app.ListPatch{SubscriptionFilter: &filter})
	}
	flagged := map[string]string{} // entry: flagged from the start
	turning := map[string]string{} // exit: flagged later
	for _, f := range flags {
		flagged[f], turning[f] = w.cast("contact", "entry-"+f+"@stage.example", cols{f: true}), w.cast("contact", "exit-"+f+"@stage.example")
		for _, l := range all {
			w.join(l, flagged[f], turning[f])
		}
	}
	check := func(when string, inBook func(filter lockstep.SubscriptionFilter, who, flag string) bool) {
		t.Helper()
		for filter, l := range all {
			book := w.contacts(w.book(l))
			for _, f := range flags {
				for _, who := range []string{"entry", "exit"} {
					_, got := book[who+"-"+f+"@stage.example"]
					if want := inBook(filter, who, f); got != want {
						t.Errorf("%s, filter %s: %s-%s in the book: %t, want %t", when, filter, who, f, got, want)
					}
				}
			}
		}
		w.quiet()
	}
	w.sync()
	check("at entry", func(filter lockstep.SubscriptionFilter, who, f string) bool {
		return who == "exit" || !excluded[filter][f]
	})
	for f, id := range turning {
		w.editRecord("contact", id, cols{f: true})
	}
	w.sync()
	check("after setting the flags", func(filter lockstep.SubscriptionFilter, _, f string) bool { return !excluded[filter][f] })
	for _, ids := range []map[string]string{flagged, turning} {
		for f, id := range ids {
			w.editRecord("contact", id, cols{f: false})
		}
	}
	w.sync()
	check("after clearing the flags", func(lockstep.SubscriptionFilter, string, string) bool { return true })
	// A stricter filter takes effect with the next run as well.
	for _, f := range flags {
		w.editRecord("contact", turning[f], cols{f: true})
	}
	l := all[lockstep.FilterNone]
	strict := lockstep.FilterMaterial
	w.patchList(l, app.ListPatch{SubscriptionFilter: &strict})
	excluded[lockstep.FilterNone] = excluded[lockstep.FilterMaterial]
	w.sync()
	check("after a stricter filter", func(filter lockstep.SubscriptionFilter, who, f string) bool {
		return who == "entry" || !excluded[filter][f]
	})
}

// Who opted out on the platform is not put into a book again, by whatever filter.
func TestOptOutsOnThePlatformStay(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	none := lockstep.FilterNone
	l = w.patchList(l, app.ListPatch{SubscriptionFilter: &none})
	for _, who := range []string{"reader", "suppressed", "left"} {
		w.join(l, w.cast("contact", who+"@stage.example"))
	}
	early := w.cast("contact", "early@stage.example")
	w.optOut("early@stage.example") // suppressed before the first sync
	w.join(l, early)
	w.sync()
	book := w.book(l)
	check := func(when string, want ...string) {
		t.Helper()
		got := []string{}
		for email := range w.contacts(book) {
			got = append(got, strings.TrimSuffix(email, "@stage.example"))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		w.quiet()
	}
	check("at first", "left", "reader", "suppressed")
	w.optOut("suppressed@stage.example")
	w.optOutOf(book, "left@stage.example")
	w.sync()
	check("after opting out", "reader")
	for id := range w.people("contact") { // an edit is no reason to write to them again
		w.editRecord("contact", id, cols{"jobtitle": "Edited"})
	}
	w.sync()
	check("after an edit of the record", "reader")
	yes, no := true, false
	w.patchList(l, app.ListPatch{Activated: &no})
	w.patchList(l, app.ListPatch{Activated: &yes})
	w.sync()
	check("after activating the list again", "reader")
}

// A record that was made of a stranger and deleted by a user is not made again while the
// contact, which has changed since, still waits to leave the book.
func TestDeletedStrangerIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Sign-ups", "contact", lockstep.ActionCreateContact, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.signUp(w.book(l), "zoe@stage.example")
	w.sync()
	var made []string
	for _, r := range w.people("contact") {
		if r.str("emailaddress1") == "zoe@stage.example" {
			made = append(made, r.str("contactid"))
		}
	}
	if len(made) != 1 {
		t.Fatalf("records of zoe: %v", made)
	}
	w.twins.Clock.Advance(time.Minute)
	w.crm("DELETE", "contacts("+made[0]+")", nil, nil)
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "status", Operation: "address-books.remove-members", Args: json.RawMessage(`{"code":403}`)}); err != nil {
		t.Fatal(err)
	}
	if run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists}); err == nil || run.Status != lockstep.RunFailed {
		t.Fatalf("the run ended %s: %v", run.Status, err)
	}
	w.twins.Faults.Clear()
	w.twins.Clock.Advance(time.Minute)
	w.mail("PATCH", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("zoe@stage.example").ContactID), cols{"dataFields": cols{"CITY": "Lima"}}, nil)
	w.sync()
	w.sync()
	for _, r := range w.people("contact") {
		if r.str("emailaddress1") == "zoe@stage.example" {
			t.Errorf("made again: %v", r)
		}
	}
	if _, in := w.contacts(w.book(l))["zoe@stage.example"]; in {
		t.Error("she is still in the book")
	}
}

// A run stores what a list is owed, meets a stranger afterwards, and fails before it has
// seen to them: the next run does.
func TestStrangerMetByARunThatFails(t *testing.T) {
	t.Parallel()
	w := newStageWith(t, app.Config{PageRows: 1}) // who is nobody's is stored before the stranger is met
	l := w.list("One", "contact", lockstep.ActionCreateContact, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.join(l, w.cast("contact", "ben@stage.example")) // the list is owed a reading in full
	w.mail("POST", "/v2/contacts", cols{"email": "nobody@stage.example", "optInType": "Unknown", "emailType": "Html"}, nil)
	w.twins.Clock.Advance(time.Second)
	w.signUp(w.book(l), "stranger@stage.example")
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "row-poison", Args: json.RawMessage(`{"code":"0x80040220","status":403}`)}); err != nil {
		t.Fatal(err)
	}
	if run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists}); err == nil || run.Status != lockstep.RunFailed {
		t.Fatalf("the run that may not create a record is %s: %v", run.Status, err)
	}
	w.twins.Faults.Clear()
	if run := w.sync(); run.Counts.RecordsCreated != 1 || run.Counts.ListAdds != 1 {
		t.Errorf("the next run did not see to the stranger: %+v", run.Counts)
	}
	w.wantIn("after the failure", l, "ann", "ben", "stranger")
	w.quiet()
}
