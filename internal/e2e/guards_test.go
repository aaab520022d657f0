package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// crowd makes n contacts with a city and returns their ids.
func (w *stage) crowd(n int) []string {
	w.t.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, w.cast("contact", fmt.Sprintf("p%03d@stage.example", i), cols{"address1_city": "Graz", "jobtitle": "Clerk"}))
	}
	return ids
}

// guardedRun carries out a run that a guard must stop.
func (w *world) guardedRun(typ lockstep.SyncType, says ...string) lockstep.Run {
	w.t.Helper()
	run, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: typ})
	if lockstep.CodeOf(err) != lockstep.CodeGuarded || run.Status != lockstep.RunFailed || run.Code != lockstep.CodeGuarded || run.Hint == "" {
		w.t.Fatalf("the run is %s with code %q, error %q, hint %q (%v), want it stopped by a guard", run.Status, run.Code, run.Error, run.Hint, err)
	}
	for _, s := range says {
		if !strings.Contains(run.Error, s) {
			w.t.Errorf("the guard says %q, without %q", run.Error, s)
		}
	}
	addsUp(w.t, run)
	return run
}

// approve previews a sync and has Kim apply it.
func (w *world) approve(typ lockstep.SyncType) (preview, applied lockstep.Run) {
	w.t.Helper()
	preview, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: typ, Mode: lockstep.ModePreview})
	if err != nil {
		w.t.Fatal(err)
	}
	if applied, err = w.app.ApplyPreview(w.t.Context(), preview.ID, "Kim"); err == nil {
		applied, err = w.app.Wait(w.t.Context(), applied.ID)
	}
	if err != nil {
		w.t.Fatalf("apply the preview: %v", err)
	}
	if applied.ApprovedBy != "Kim" {
		w.t.Errorf("the run was approved by %q", applied.ApprovedBy)
	}
	return preview, applied
}

func (w *world) guards(p app.GuardPatch) {
	w.t.Helper()
	acc, err := w.app.UpdateAccount(w.t.Context(), w.account.ID, app.AccountPatch{Guards: p})
	if err != nil {
		w.t.Fatal(err)
	}
	w.account = acc
}

// Too many removals stop before the first one, opt-outs go on, other lists too; a
// person applies a preview and they are removed.
func TestGuardRemovals(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	other := w.list("Others", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(40)
	w.join(l, ids...)
	w.join(other, ids[:5]...)
	w.sync()
	for _, id := range ids[:11] {
		w.quit(l, id)
	}
	w.quit(other, ids[0])
	w.editRecord("contact", ids[20], cols{"donotbulkemail": true})
	run := w.guardedRun(lockstep.SyncMarketingLists, "11 of 40", `"Readers"`, "more than 10")
	if run.Counts.Guarded != 11 || run.Counts.BookRemovals != 2 { // one of Others, and the opt-out
		t.Errorf("counts %+v", run.Counts)
	}
	in := w.contacts(w.book(l))
	if _, there := in["p020@stage.example"]; there || len(in) != 39 || len(w.contacts(w.book(other))) != 4 {
		t.Errorf("%d people are in the guarded book, %d in the other", len(in), len(w.contacts(w.book(other))))
	}
	w.guardedRun(lockstep.SyncMarketingLists, "11 of")
	preview, applied := w.approve(lockstep.SyncMarketingLists)
	if preview.Counts.BookRemovals != 11 || applied.Counts.BookRemovals != 11 || len(w.contacts(w.book(l))) != 28 {
		t.Errorf("previewed %+v, applied %+v, %d people left", preview.Counts, applied.Counts, len(w.contacts(w.book(l))))
	}
	w.quiet()
}

// What the records themselves say, other than an opt-out, is guarded like any removal,
// again and again until somebody looked.
func TestGuardDeactivated(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(20)
	w.join(l, ids...)
	w.sync()
	for _, id := range ids[:12] {
		w.editRecord("contact", id, cols{"statecode": 1, "statuscode": 2})
	}
	w.guardedRun(lockstep.SyncMarketingLists, "12 of 20")
	w.guardedRun(lockstep.SyncMarketingLists, "12 of 20")
	rows := 12
	w.guards(app.GuardPatch{Floor: &rows})
	if run := w.sync(); run.Counts.BookRemovals != 12 {
		t.Errorf("with a higher floor: %+v", run.Counts)
	}
	w.quiet()
}

// A column that was cleared for many is not carried to the other side unasked, in
// either direction; a few are, and a person's look lets the rest pass.
func TestGuardBlankings(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(30)
	w.join(l, ids...)
	w.sync()
	for _, id := range ids[:10] {
		w.editRecord("contact", id, cols{"address1_city": nil})
	}
	if run := w.sync(); run.Counts.ContactsUpdated != 10 {
		t.Errorf("ten cleared cities: %+v", run.Counts)
	}
	w.quiet()
	for _, id := range ids[10:21] {
		w.editRecord("contact", id, cols{"address1_city": nil})
	}
	w.editRecord("contact", ids[25], cols{"address1_city": "Linz"})
	run := w.guardedRun(lockstep.SyncMarketingLists, "more than 10 people of contact")
	city := func(i int) any { return w.contact(fmt.Sprintf("p%03d@stage.example", i)).DataFields["CITY"] }
	for i := 10; i < 21; i++ {
		if city(i) != "Graz" {
			t.Fatalf("the city of %d is %v", i, city(i))
		}
	}
	if run.Counts.Guarded != 11 || city(25) != "Linz" {
		t.Errorf("counts %+v, the other edit %v", run.Counts, city(25))
	}
	preview, applied := w.approve(lockstep.SyncMarketingLists)
	if preview.Counts.ContactsUpdated != 11 || applied.Counts.ContactsUpdated != 11 || city(15) != nil {
		t.Errorf("previewed %+v, applied %+v, city %v", preview.Counts, applied.Counts, city(15))
	}
	w.quiet()

	for i := range 11 { // and from the platform
		w.editContact(fmt.Sprintf("p%03d@stage.example", i), cols{"JOBTITLE": nil})
	}
	before := w.crmWrites.Load()
	empty := func() (n int) {
		for _, r := range w.rows("contacts?$select=jobtitle,emailaddress1") {
			if strings.HasSuffix(r.str("emailaddress1"), "@stage.example") && r["jobtitle"] == nil {
				n++
			}
		}
		return n
	}
	if empty() != 0 {
		t.Fatal("somebody has no title")
	}
	w.guardedRun(lockstep.SyncMarketingLists, "more than 10 people of contact")
	if w.crmWrites.Load() != before || empty() != 0 {
		t.Errorf("%d rows written, %d titles cleared", w.crmWrites.Load()-before, empty())
	}
	w.approve(lockstep.SyncMarketingLists)
	if empty() != 11 {
		t.Errorf("%d titles cleared after the approval, want 11", empty())
	}
	w.quiet()
}

// newSliced is a stage on which the slice that waits for the next import ends after it:
// interrupt says what happens then, once.
func newSliced(t *testing.T) (w *stage, interrupt func(do func())) {
	var late atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	once := func() {}
	w = newStageWith(t, app.Config{Now: now, Ticks: now, OnStep: func(name string) {
		if name == "await.after" {
			once()
		}
	}})
	return w, func(do func()) {
		once = func() {
			once = func() {}
			do()
			late.Add(int64(25 * time.Second)) // the slice is over
		}
	}
}

// A guard is about a run, however many slices it takes: what an earlier one has cleared
// counts.
func TestGuardBlankingsInSlices(t *testing.T) {
	t.Parallel()
	w, interrupt := newSliced(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(30)
	w.join(l, ids...)
	w.sync()
	for _, id := range ids[:8] {
		w.editRecord("contact", id, cols{"address1_city": nil})
	}
	interrupt(func() {
		for _, id := range ids[8:13] {
			w.editRecord("contact", id, cols{"address1_city": nil})
		}
	})
	w.guardedRun(lockstep.SyncMarketingLists, "more than 10 people of contact")
	for i := range 13 {
		if city := w.contact(fmt.Sprintf("p%03d@stage.example", i)).DataFields["CITY"]; (city == nil) != (i < 8) {
			t.Errorf("the city of %d is %v", i, city)
		}
	}
}

// People whose records were deactivated in a slice that ended before it took them
// out of the book still count for the guard of the slice that goes on; people who opted
// out leave with that slice all the same.
func TestGuardDeactivatedInSlices(t *testing.T) {
	t.Parallel()
	w, interrupt := newSliced(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(20)
	w.join(l, ids...)
	w.sync()
	for _, id := range ids[:12] {
		w.editRecord("contact", id, cols{"statecode": 1, "statuscode": 2})
	}
	for _, id := range ids[12:15] {
		w.editRecord("contact", id, cols{"donotbulkemail": true})
	}
	w.editRecord("contact", ids[19], cols{"address1_city": "Linz"}) // an import after which the slice ends
	ended := false
	interrupt(func() { ended = true })
	run := w.guardedRun(lockstep.SyncMarketingLists, "12 of 20")
	if left := len(w.contacts(w.book(l))); !ended || run.Counts.BookRemovals != 3 || left != 17 {
		t.Errorf("slice ended: %t, counts %+v, %d in the book, want 17", ended, run.Counts, left)
	}
	w.guardedRun(lockstep.SyncMarketingLists, "12 of 20")
	rows := 12
	w.guards(app.GuardPatch{Floor: &rows})
	if run := w.sync(); run.Counts.BookRemovals != 12 {
		t.Errorf("with a higher floor: %+v", run.Counts)
	}
	w.quiet()
}

// changeMapping changes the mapping of a label to the CRM's contacts.
func (w *world) changeMapping(label string, change func(*lockstep.DataMapping)) {
	w.t.Helper()
	all, err := w.app.Mappings(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range all {
		if m.Label == label && m.Table == "contact" && m.Direction == lockstep.ToCRM {
			change(&m)
			if _, err := w.app.SaveMapping(w.t.Context(), m); err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatal("there is no such mapping")
}

// Flags of many CRM records do not block their addresses in the whole account
// unasked. The opt-outs count all the same: nobody of them is mailed by our lists.
func TestGuardSuppressions(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	suppress := lockstep.BulkSuppress
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{BulkOptOut: &suppress}); err != nil {
		t.Fatal(err)
	}
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(30)
	w.join(l, ids...)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	for _, id := range ids[:11] {
		w.editRecord("contact", id, cols{"donotbulkemail": true})
	}
	suppressed := func() (n int) {
		for _, c := range w.contacts("") {
			if c.Channel["email"]["status"] == "suppressed" || c.Channel["email"]["status"] == "unsubscribed" {
				n++
			}
		}
		return n
	}
	before := suppressed()
	run := w.guardedRun(lockstep.SyncSuppressions, "11 addresses")
	if run.Counts.OptOutsSeen != 11 || suppressed() != before {
		t.Errorf("counts %+v, %d blocked", run.Counts, suppressed()-before)
	}
	if w.sync(); len(w.contacts(w.book(l))) != 19 {
		t.Errorf("%d people are in the book, want 19", len(w.contacts(w.book(l))))
	}
	w.approve(lockstep.SyncSuppressions)
	if suppressed()-before != 11 {
		t.Errorf("%d blocked after the approval", suppressed()-before)
	}
	w.run(lockstep.SyncSuppressions)
}

// A table that changed as a whole is not carried over unasked, whether the feed
// has one page or many; a bulk window and an applied preview let it pass.
func TestGuardEverythingChanged(t *testing.T) {
	t.Parallel()
	for _, page := range []int{0, 20} {
		t.Run(fmt.Sprint("pages of ", page), func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			ids := w.crowd(140)
			w.join(l, ids...)
			w.sync()
			w.twins.Dataverse.SetMaxPage(page)
			edit := func(city string, n int) {
				for _, id := range ids[:n] {
					w.editRecord("contact", id, cols{"address1_city": city})
				}
			}
			edit("Linz", 100)
			if run := w.sync(); run.Counts.ContactsUpdated != 100 {
				t.Fatalf("a hundred edits: %+v", run.Counts)
			}
			edit("Wels", 101)
			w.resetCalls()
			w.guardedRun(lockstep.SyncMarketingLists, "101 of 140 known people of contact")
			if n := writes(w.calls("dotdigital")); n != 0 {
				t.Errorf("%d writes: %v", n, w.calls("dotdigital"))
			}
			if page == 0 {
				soon := time.Now().Add(time.Hour)
				w.guards(app.GuardPatch{BulkUntil: &soon})
				if run := w.sync(); run.Counts.ContactsUpdated != 101 {
					t.Errorf("in a bulk window: %+v", run.Counts)
				}
			} else if _, applied := w.approve(lockstep.SyncMarketingLists); applied.Counts.ContactsUpdated != 101 {
				t.Errorf("approved: %+v", applied.Counts)
			}
			w.quiet()
		})
	}
}

// Changed settings of what was synced wait for a preview that somebody applied; a
// preview under older settings does not do, and a new list needs none.
func TestGuardChangedSettings(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	yes := true
	w.guards(app.GuardPatch{ConfirmChanges: &yes})
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(3)
	w.join(l, ids...)
	w.sync()
	fresh := w.list("New ones", "contact", lockstep.ActionIgnore, "")
	w.join(fresh, ids[0])
	w.sync()

	remove := lockstep.ActionRemove
	w.patchList(l, app.ListPatch{MembershipAction: &remove})
	w.editRecord("contact", ids[0], cols{"address1_city": "Linz"})
	w.resetCalls()
	w.guardedRun(lockstep.SyncMarketingLists, `the rules of the list "Readers"`)
	if n := w.allWrites(); n != 0 {
		t.Errorf("%d writes", n)
	}
	if _, applied := w.approve(lockstep.SyncMarketingLists); applied.Counts.ContactsUpdated != 1 {
		t.Errorf("approved: %+v", applied.Counts)
	}
	w.quiet()

	old, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	w.changeMapping("JOBTITLE", func(m *lockstep.DataMapping) { m.Winner = lockstep.WinnerCRM })
	w.guardedRun(lockstep.SyncMarketingLists, "the mappings of contact")
	apply, err := w.app.ApplyPreview(t.Context(), old.ID, "Kim")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.app.Wait(t.Context(), apply.ID); lockstep.CodeOf(err) != lockstep.CodeGuarded || !strings.Contains(err.Error(), "since the preview") {
		t.Errorf("a preview of older settings: %v", err)
	}
	w.approve(lockstep.SyncMarketingLists)
	w.quiet()
}

// A database that was copied to another folder writes nothing, hears opt-outs, and acts
// once it was re-armed.
func TestCopyOfTheDatabase(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(3)
	w.join(l, ids...)
	w.sync()
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	original := w.cfg.DataDir
	w.cfg.DataDir = t.TempDir()
	files, err := os.ReadDir(original)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() == "instance" {
			continue // a backup of the database is not one of the machine
		}
		text, err := os.ReadFile(filepath.Join(original, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(w.cfg.DataDir, f.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	w.optOut("p000@stage.example")
	w.editRecord("contact", ids[1], cols{"address1_city": "Linz"})
	before := w.crmWrites.Load()
	w.guardedRun(lockstep.SyncMarketingLists, "is a copy")
	if run := w.run(lockstep.SyncSuppressions); run.Counts.OptOutsSeen != 1 || run.Counts.OptOutsTold != 0 {
		t.Errorf("the copy heard %+v", run.Counts)
	}
	if w.crmWrites.Load() != before || w.contact("p001@stage.example").DataFields["CITY"] != "Graz" {
		t.Error("the copy wrote")
	}
	if _, err := w.app.UnlockAccount(t.Context(), w.account.ID, "Kim", "I want to"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("unlocking instead of re-arming: %v", err)
	}
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open() // still a copy
	w.guardedRun(lockstep.SyncMarketingLists, "is a copy")
	if _, err := w.app.Rearm(t.Context(), " "); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("re-armed by nobody: %v", err)
	}
	unlocked, err := w.app.Rearm(t.Context(), "Kim")
	if err != nil || len(unlocked) != 1 || !strings.Contains(unlocked[0].Unlocked, "Kim") {
		t.Fatalf("Rearm: %+v %v", unlocked, err)
	}
	w.sync()
	if w.contact("p001@stage.example").DataFields["CITY"] != "Linz" {
		t.Error("the re-armed copy did not write")
	}
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.sync()
}

var randomStates = flag.Int("states", 60, "how many random states TestPreviewEqualsReality goes through")

// What a preview shows of a random state is what the run then does.
func TestPreviewEqualsReality(t *testing.T) {
	t.Parallel()
	const seed = 5
	dice := rand.New(rand.NewPCG(seed, 6))
	w := newStage(t)
	lists := []lockstep.ListSettings{
		w.list("Allow known", "contact", lockstep.ActionAllowKnown, ""),
		w.list("Remove", "contact", lockstep.ActionRemove, ""),
		w.list("Query", "contact", lockstep.ActionIgnore, `<condition attribute="address1_city" operator="eq" value="A"/>`),
	}
	names := []string{"ann", "bob", "cid", "dan", "eve", "fay", "gil", "hal"}
	ids, member := map[string]string{}, map[string]bool{}
	for _, n := range names {
		ids[n] = w.cast("contact", n+"@stage.example", cols{"jobtitle": "0"})
	}
	w.join(lists[0], ids["ann"], ids["bob"], ids["cid"])
	w.join(lists[1], ids["bob"], ids["dan"])
	for _, k := range []string{"0ann", "0bob", "0cid", "1bob", "1dan"} {
		member[k] = true
	}
	w.sync()
	maybe := func(v string) any {
		if dice.IntN(4) == 0 {
			return nil
		}
		return v
	}
	wrote := 0
	for state := range *randomStates {
		var log []string
		known := w.contacts("")
		for range 1 + dice.IntN(4) {
			n := names[dice.IntN(len(names))]
			email := n + "@stage.example"
			_, on := known[email]
			v := fmt.Sprint(state)
			switch k := dice.IntN(8); {
			case k == 0:
				i := dice.IntN(2)
				key := fmt.Sprint(i, n)
				if member[key] {
					w.quit(lists[i], ids[n])
				} else {
					w.join(lists[i], ids[n])
				}
				member[key] = !member[key]
				log = append(log, fmt.Sprint("member ", key, member[key]))
			case k == 1:
				city := []any{"A", "B", nil}[dice.IntN(3)]
				w.editRecord("contact", ids[n], cols{"address1_city": city})
				log = append(log, fmt.Sprint(n, " city ", city))
			case k == 2 && on:
				w.signUp(w.book(lists[dice.IntN(2)]), email)
				log = append(log, n+" signs up")
			case k == 3:
				flag := dice.IntN(2) == 0
				w.editRecord("contact", ids[n], cols{"donotbulkemail": flag})
				log = append(log, fmt.Sprint(n, " bulk ", flag))
			case k == 4 && on:
				x := maybe(v)
				w.editContact(email, cols{"JOBTITLE": x})
				log = append(log, fmt.Sprint(n, " platform job ", x))
			default:
				x := maybe(v)
				w.editRecord("contact", ids[n], cols{"jobtitle": x, "telephone1": maybe(v)})
				log = append(log, fmt.Sprint(n, " crm job ", x))
			}
		}
		preview, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
		if err != nil {
			t.Fatal(err)
		}
		run := w.sync()
		want, got := w.changes(preview.ID), w.changes(run.ID)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
			t.Fatalf("state %d of seed %d, %q (-preview +run):\n%s", state, seed, log, diff)
		}
		// A run looks again at some whom it has just written; it counts them as equal.
		preview.Counts.Read, preview.Counts.Equal, run.Counts.Read, run.Counts.Equal = 0, 0, 0, 0
		if diff := cmp.Diff(preview.Counts, run.Counts); diff != "" {
			t.Fatalf("state %d of seed %d, %q: counts (-preview +run):\n%s", state, seed, log, diff)
		}
		if len(got) > 0 {
			wrote++
		}
	}
	t.Logf("%d states, in %d of them there was something to write", *randomStates, wrote)
	if wrote < *randomStates/2 {
		t.Errorf("only %d of %d states had anything to write", wrote, *randomStates)
	}
}
