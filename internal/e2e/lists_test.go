package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

func (w *stage) runList(l lockstep.ListSettings) lockstep.Run {
	w.t.Helper()
	run, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, List: l.ID})
	if err != nil {
		w.t.Fatalf("run of %s: %v", l.Name, err)
	}
	return run
}

// Lists are synced in their order, lists of their own account of time not at all by
// the automatic run, and a run of one list leaves the others alone.
func TestOrderManualAndSingleRuns(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	ann := w.cast("contact", "ann@stage.example")
	order := map[string]int{"Alpha": 30, "Beta": 10, "Gamma": 20}
	lists := map[string]lockstep.ListSettings{}
	for name, n := range order {
		l := w.list(name, "contact", lockstep.ActionIgnore, "")
		lists[name] = w.patchList(l, app.ListPatch{SyncOrder: &n})
		w.join(l, ann)
	}
	yes := true
	manual := w.patchList(w.list("Manual", "contact", lockstep.ActionIgnore, ""), app.ListPatch{ManualOnly: &yes})
	w.join(manual, ann)
	run := w.sync()
	changes, _, err := w.app.Changes(t.Context(), run.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, c := range changes {
		if c.Kind == lockstep.CreateBook {
			made = append(made, c.Name)
		}
	}
	if diff := cmp.Diff([]string{"Beta", "Gamma", "Alpha"}, made); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	w.quiet()
	before := w.state()
	w.runList(manual)
	if diff := cmp.Diff([]string{"+book Manual", "+book Manual: ann@stage.example"}, changed(before, w.state())); diff != "" {
		t.Errorf("the manual list (-want +got):\n%s", diff)
	}
	w.quiet()

	// A run of one list: a member and an edit of another list wait for theirs.
	ben, cleo := w.cast("contact", "ben@stage.example"), w.cast("contact", "cleo@stage.example")
	w.join(lists["Alpha"], ben)
	w.join(lists["Beta"], cleo)
	w.runList(lists["Alpha"])
	w.wantIn("after a run of Alpha", lists["Alpha"], "ann", "ben")
	w.wantIn("after a run of Alpha", lists["Beta"], "ann")
	w.editContact("ben@stage.example", cols{"JOBTITLE": "Baker"})
	w.runList(lists["Beta"])
	w.wantIn("after a run of Beta", lists["Beta"], "ann", "cleo")
	w.sync()
	if got := w.record("contact", ben, "jobtitle").str("jobtitle"); got != "Baker" {
		t.Errorf("an edit of a member of another list was lost: %q", got)
	}
	w.quiet()
	w.runList(manual)
	w.quiet()
}

func TestListRenamedInTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Before", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	book := w.book(l)
	w.crm("PATCH", fmt.Sprintf("lists(%s)", l.CRMID), cols{"listname": "After – größer"}, nil)
	before := w.state()
	w.sync()
	want := []string{"+book After – größer", "+book After – größer: ann@stage.example", "-book Before", "-book Before: ann@stage.example"}
	if diff := cmp.Diff(want, changed(before, w.state())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if w.book(l) != book {
		t.Error("another book")
	}
	w.quiet()
}

// Deleted on the platform, an address book is made again and filled again; nobody is
// lost on the CRM's side, and a stranger does not come back.
func TestAddressBookDeleted(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	other := w.list("Two", "contact", lockstep.ActionIgnore, "")
	for _, who := range []string{"ann", "ben"} {
		id := w.cast("contact", who+"@stage.example")
		w.join(l, id)
		w.join(other, id)
	}
	w.sync()
	book := w.book(l)
	w.optOut("ben@stage.example")
	w.mail("DELETE", "/v2/address-books/"+book, nil, nil)
	w.sync()
	if w.book(l) == book {
		t.Fatal("the book is still the deleted one")
	}
	w.wantIn("made again", l, "ann")
	w.wantIn("the other list", other, "ann")
	if n := len(w.membersOf(l)); n != 2 {
		t.Errorf("%d members in the CRM, want 2", n)
	}
	w.sync()
	w.quiet()
}

// A book that merely has the list's name is not taken over; linked by a person, it is,
// and its members are treated as the action says.
func TestAddressBookOfThatNameExists(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	var made struct{ ID int64 }
	w.mail("POST", "/v2/address-books", cols{"name": "Taken", "visibility": "Private"}, &made)
	book := lockstep.BookID(fmt.Sprint(made.ID))
	w.signUp(string(book), "stranger@stage.example")
	w.signUp(string(book), "ann@stage.example")
	l := w.list("Taken", "contact", lockstep.ActionRemove, "")
	free := w.list("Free", "contact", lockstep.ActionIgnore, "")
	for _, who := range []string{"ann", "ben"} {
		id := w.cast("contact", who+"@stage.example")
		w.join(l, id)
		w.join(free, id)
	}
	run := w.sync()
	w.told(run, lockstep.FindingNameTaken, l.CRMID.String())
	w.wantIn("not taken over", free, "ann", "ben")
	if got := w.contacts(string(book)); len(got) != 2 {
		t.Errorf("the book has %d members", len(got))
	}
	w.quiet()
	l = w.patchList(l, app.ListPatch{Book: &book})
	w.sync()
	w.wantIn("linked", l, "ann", "ben", "stranger")
	w.sync()
	w.wantIn("the next cycle", l, "ann", "ben")
	w.quiet()
	if _, err := w.app.UpdateList(t.Context(), free.ID, app.ListPatch{Book: &book}); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("a book was linked twice: %v", err)
	}
}

// A list that is deleted in the CRM is detached: its address book stays as it is.
func TestListDeletedInTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l, other := w.list("Going", "contact", lockstep.ActionRemove, ""), w.list("Staying", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann)
	w.join(other, ann)
	w.sync()
	book := w.book(l)
	w.crm("DELETE", fmt.Sprintf("lists(%s)", l.CRMID), nil, nil)
	before := w.state()
	w.sync()
	if diff := changed(before, w.state()); len(diff) != 0 {
		t.Errorf("changed: %v", diff)
	}
	got, err := w.app.List(t.Context(), w.account.ID, l.ID)
	if err != nil || !got.Gone {
		t.Errorf("the list is %+v, %v", got, err)
	}
	w.editRecord("contact", ann, cols{"jobtitle": "Edited"})
	w.signUp(book, "stranger@stage.example")
	w.sync()
	if n := len(w.contacts(book)); n != 2 {
		t.Errorf("%d members in the detached book, want 2", n)
	}
	w.quiet()
}

// Members without any list in common, the same member in many lists: what one list
// does to its book is not done to another.
func TestMemberOfManyLists(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	ann := w.cast("contact", "ann@stage.example")
	var lists []lockstep.ListSettings
	for i, action := range []lockstep.MembershipAction{lockstep.ActionIgnore, lockstep.ActionRemove, lockstep.ActionAllowKnown, lockstep.ActionCreateContact} {
		l := w.list(fmt.Sprintf("List %d", i), "contact", action, "")
		w.join(l, ann)
		lists = append(lists, l)
	}
	w.sync()
	w.quiet()
	w.quit(lists[1], ann)
	w.optOutOf(w.book(lists[2]), "ann@stage.example")
	w.sync()
	var in []string
	for _, l := range lists {
		if len(w.in(l)) == 1 {
			in = append(in, l.Name)
		}
	}
	if diff := cmp.Diff([]string{"List 0", "List 3"}, in); diff != "" {
		t.Errorf("Ann is in (-want +got):\n%s", diff)
	}
	w.quiet()
	w.join(lists[1], ann)
	w.sync()
	w.wantIn("a member again", lists[1], "ann")
	w.quiet()
}

// Somebody who was taken out of a book by hand is back after one run and, where a
// preview is made first, as the preview said.
func TestTakenOutByHandComesBack(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	d := w.list("Dynamic", "contact", lockstep.ActionIgnore, `<condition attribute="emailaddress1" operator="like" value="%stage.example"/>`)
	for i := range 30 {
		w.join(l, w.cast("contact", fmt.Sprintf("p%d@stage.example", i)))
	}
	w.sync()
	take := func() {
		for i := range 25 { // more than are asked for one by one
			w.takeOut(w.book(l), fmt.Sprintf("p%d@stage.example", i))
		}
	}
	take()
	w.mail("DELETE", fmt.Sprintf("/v2/contacts/%d", w.contact("p0@stage.example").ContactID), nil, nil)
	w.applyPreview()
	if n := len(w.in(l)); n != 29 {
		t.Errorf("%d in the book, want 29: all but the deleted one", n)
	}
	w.takeOut(w.book(d), "p7@stage.example")
	w.sync()
	w.sync() // a dynamic list is evaluated before somebody is added to it again
	if in := w.in(d); !slices.Contains(in, "p7") || slices.Contains(in, "p0") {
		t.Errorf("in the dynamic list's book: %s", strings.Join(in, " "))
	}
	w.sync()
	w.quiet()
}

// What happened while a list was not activated is made up for once it is again.
func TestListActivatedAgain(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	ids := map[string]string{}
	for _, who := range []string{"ann", "ben", "cleo", "dora"} {
		ids[who] = w.cast("contact", who+"@stage.example")
		w.join(l, ids[who])
	}
	other := w.list("Two", "contact", lockstep.ActionIgnore, "")
	w.join(other, ids["ann"])
	w.sync()
	yes, no := true, false
	w.patchList(l, app.ListPatch{Activated: &no})
	w.quit(l, ids["ann"])
	w.crm("DELETE", "contacts("+ids["ben"]+")", nil, nil)
	w.editRecord("contact", ids["cleo"], cols{"donotemail": true})
	w.editRecord("contact", ids["dora"], cols{"emailaddress1": "dora.new@stage.example", "jobtitle": "Diver"})
	w.join(l, w.cast("contact", "emil@stage.example"))
	w.signUp(w.book(l), "stranger@stage.example")
	w.sync()
	w.wantIn("not activated", l, "ann", "ben", "cleo", "dora", "stranger")
	w.patchList(l, app.ListPatch{Activated: &yes})
	w.sync()
	w.wantIn("activated again", l, "dora.new", "emil", "stranger")
	if got := w.field("dora.new@stage.example", "JOBTITLE"); got != "Diver" {
		t.Errorf("an edit made meanwhile: %v", got)
	}
	w.wantIn("the other list", other, "ann")
	w.sync()
	w.wantIn("a cycle later", l, "dora.new", "emil")
	w.quiet()
}

// Each list of a run has an outcome of its own: one whose query cannot be evaluated is
// left alone, and the others have what was done about them.
func TestWhatCameOfEachList(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	alpha, beta := w.list("Alpha", "contact", lockstep.ActionIgnore, ""), w.list("Beta", "contact", lockstep.ActionIgnore, "")
	w.list("Broken", "contact", lockstep.ActionIgnore, `<condition attribute="department" operator="eq" value="Nobody"/>`)
	w.alter(`{"table":"contact","column":"department","change":"remove"}`)
	first := 1
	w.patchList(beta, app.ListPatch{SyncOrder: &first})
	w.join(alpha, ann)
	w.join(alpha, ben)
	w.join(beta, ann)
	outcomes := func(id string) (out []string) {
		lists, err := w.app.RunLists(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lists {
			out = append(out, fmt.Sprintf("%s %s +%d -%d findings %d reason %t", l.Name, l.Status, l.BookAdds, l.BookRemovals, l.Findings, l.Reason != ""))
		}
		return out
	}
	preview, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Beta previewed +1 -0 findings 0 reason false", "Alpha previewed +2 -0 findings 0 reason false", "Broken failed +0 -0 findings 1 reason true"}, outcomes(preview.ID)); diff != "" {
		t.Errorf("the preview (-want +got):\n%s", diff)
	}
	run := w.sync()
	if diff := cmp.Diff([]string{"Beta completed +1 -0 findings 0 reason false", "Alpha completed +2 -0 findings 0 reason false", "Broken failed +0 -0 findings 1 reason true"}, outcomes(run.ID)); diff != "" {
		t.Errorf("the first run (-want +got):\n%s", diff)
	}
	if run.Status != lockstep.RunCompletedWithErrors {
		t.Errorf("the run is %s", run.Status)
	}
	w.quit(alpha, ben)
	one := w.runList(alpha)
	if diff := cmp.Diff([]string{"Alpha completed +0 -1 findings 0 reason false"}, outcomes(one.ID)); diff != "" {
		t.Errorf("a run of one list (-want +got):\n%s", diff)
	}
}

// Who joined is asked for from where the last run's reading ended, not from where the list
// stands in which nothing happened for longest.
func TestNewMembersAreReadOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 300, Seed: 12}})
	w.switchOn("Webinar waiting list", lockstep.ActionIgnore)
	w.switchOn("Company newsletter", lockstep.ActionIgnore)
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	lists = slices.DeleteFunc(lists, func(l lockstep.ListSettings) bool { return !l.Activated || l.Dynamic })
	at := slices.IndexFunc(lists, func(l lockstep.ListSettings) bool { return l.MemberTable == "contact" })
	if at < 0 || len(lists) < 2 {
		t.Fatalf("%d static lists", len(lists))
	}
	busy := lists[at]
	in := w.membersOf(busy)
	var others []string
	for _, id := range slices.Sorted(maps.Keys(w.people("contact"))) {
		if !slices.Contains(in, id) {
			others = append(others, id)
		}
	}
	w.sync()
	for _, id := range others[:60] {
		w.enlist(busy, id)
	}
	w.sync()
	w.twins.Dataverse.SetMaxPage(20)
	for _, id := range others[60:62] {
		w.enlist(busy, id)
		w.resetCalls()
		w.sync()
		if n := w.calls("dataverse")["listmember.read"]; n != 1 && id == others[61] {
			t.Errorf("two runs after 60 had joined, one more took %d calls", n)
		}
	}
	if n := len(w.membersOf(busy)); n != len(in)+62 {
		t.Errorf("%d members, want %d", n, len(in)+62)
	}
}
