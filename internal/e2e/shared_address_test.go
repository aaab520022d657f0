package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// applyPreview previews a run and applies the preview: what is written is exactly
// what was shown.
func (w *stage) applyPreview() lockstep.Run {
	w.t.Helper()
	preview, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		w.t.Fatal(err)
	}
	apply, err := w.app.ApplyPreview(w.t.Context(), preview.ID, "Kim")
	if err != nil {
		w.t.Fatal(err)
	}
	if apply, err = w.app.Wait(w.t.Context(), apply.ID); err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(w.changes(preview.ID), w.changes(apply.ID)); diff != "" {
		w.t.Errorf("previewed and written (-previewed +written):\n%s", diff)
	}
	return apply
}

// Two people swap their addresses: it settles, and nobody's data ends up under the
// other's address.
func TestTwoPeopleSwapAddresses(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"crm", "platform"} {
		t.Run(where, func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionRemove, "")
			ids := map[string]string{}
			for _, who := range []string{"ann", "ben"} {
				ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "City of " + who})
			}
			w.join(l, ids["ann"], ids["ben"])
			w.sync()
			if where == "crm" {
				w.editRecord("contact", ids["ann"], cols{"emailaddress1": "ben@stage.example"})
				w.editRecord("contact", ids["ben"], cols{"emailaddress1": "ann@stage.example"})
			} else {
				a, b := w.contact("ann@stage.example").ContactID, w.contact("ben@stage.example").ContactID
				w.readdress(a, "between@stage.example")
				w.readdress(b, "ann@stage.example")
				w.readdress(a, "ben@stage.example")
			}
			w.applyPreview()
			for range 2 {
				w.sync()
			}
			for _, who := range []string{"ann", "ben"} {
				r := w.record("contact", ids[who], "emailaddress1,jobtitle,address1_city,lastname")
				c := w.contact(r.str("emailaddress1"))
				got := []any{c.DataFields["JOBTITLE"], c.DataFields["CITY"], c.DataFields["LASTNAME"]}
				want := []any{"Job of " + who, "City of " + who, who}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s has the address %s (-want +got):\n%s", who, r.str("emailaddress1"), diff)
				}
				if r.str("jobtitle") != "Job of "+who {
					t.Errorf("%s's record is %v", who, r)
				}
			}
			a, b := w.record("contact", ids["ann"], "emailaddress1").str("emailaddress1"), w.record("contact", ids["ben"], "emailaddress1").str("emailaddress1")
			if a != "ben@stage.example" || b != "ann@stage.example" {
				t.Errorf("in the CRM Ann has %s and Ben %s", a, b)
			}
			w.wantIn("after the swap", l, "ann", "ben")
			w.quiet()
			w.editRecord("contact", ids["ann"], cols{"address1_city": "Elsewhere"})
			w.sync()
			if c := w.contact("ben@stage.example"); c.DataFields["CITY"] != "Elsewhere" {
				t.Errorf("an edit afterwards did not arrive: %+v", c)
			}
			if c := w.contact("ann@stage.example"); c.DataFields["CITY"] != "City of ben" {
				t.Errorf("an edit afterwards arrived at the wrong person: %+v", c)
			}
			w.quiet()
		})
	}
}

// An address is passed on: from one record to another, to a new record, and along a
// chain of three. Each contact keeps its own person.
func TestAddressPassedOn(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	ids := map[string]string{}
	for _, who := range []string{"ann", "ben", "cleo", "dora", "emil", "fay"} {
		ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "City of " + who})
		w.join(l, ids[who])
	}
	w.sync()
	contact := map[string]int64{}
	for who := range ids {
		contact[who] = w.contact(who + "@stage.example").ContactID
	}
	now := map[string]string{"ann": "ben", "ben": "ben.new", // to another record
		"cleo": "cleo.new", "gus": "cleo", // to a new record
		"dora": "emil", "emil": "fay", "fay": "fay.new"} // along a chain
	ids["gus"] = w.cast("contact", "", cols{"lastname": "gus", "jobtitle": "Job of gus", "address1_city": "City of gus"})
	w.join(l, ids["gus"])
	for who, email := range now {
		w.editRecord("contact", ids[who], cols{"emailaddress1": email + "@stage.example"})
	}
	w.applyPreview()
	for range 2 {
		w.sync()
	}
	for who, email := range now {
		r := w.record("contact", ids[who], "emailaddress1,jobtitle,address1_city,lastname")
		c := w.contact(email + "@stage.example")
		got := []any{r.str("emailaddress1"), r.str("jobtitle"), c.DataFields["JOBTITLE"], c.DataFields["CITY"], c.DataFields["LASTNAME"]}
		want := []any{email + "@stage.example", "Job of " + who, "Job of " + who, "City of " + who, who}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s has the address %s (-want +got):\n%s", who, email, diff)
		}
		if contact[who] != 0 && c.ContactID != contact[who] {
			t.Errorf("%s was contact %d and is %d", who, contact[who], c.ContactID)
		}
	}
	w.wantIn("afterwards", l, "ben", "ben.new", "cleo", "cleo.new", "emil", "fay", "fay.new")
	w.quiet()
}

// Several records with one address are one contact with one speaker, whichever of
// them is edited: nothing goes back and forth.
func TestSharedAddressHasOneSpeaker(t *testing.T) {
	t.Parallel()
	for name, tables := range map[string][2]string{"two contacts": {"contact", "contact"}, "contact and lead": {"contact", "lead"}, "lead and account": {"lead", "account"}} {
		t.Run(name, func(t *testing.T) {
			w := newStage(t)
			lists := map[string]lockstep.ListSettings{}
			ids := [2]string{}
			for i, table := range tables {
				if _, made := lists[table]; !made {
					lists[table] = w.list("List of "+table, table, lockstep.ActionIgnore, "")
				}
				w.twins.Clock.Advance(2 * time.Second)
				ids[i] = w.cast(table, "both@stage.example", cols{"address1_city": fmt.Sprintf("City %d", i)})
				w.join(lists[table], ids[i])
			}
			run := w.sync()
			w.told(run, lockstep.FindingDuplicate, "")
			if n := len(w.contacts("")); n != 1 {
				t.Fatalf("%d contacts, want 1", n)
			}
			for _, l := range lists {
				w.wantIn("at first", l, "both")
			}
			w.quiet()
			first := w.field("both@stage.example", "CITY")
			speaker := 0
			if first == "City 1" {
				speaker = 1
			}
			if name != "two contacts" && speaker != 0 {
				t.Errorf("the %s speaks, not the %s", tables[1], tables[0])
			}
			for i := range 5 {
				who := i % 2
				w.twins.Clock.Advance(2 * time.Second)
				city := fmt.Sprintf("Edit %d of %d", i, who)
				w.editRecord(tables[who], ids[who], cols{"address1_city": city})
				want := w.field("both@stage.example", "CITY")
				if who == speaker {
					want = city
				}
				rows := w.crmWrites.Load()
				w.sync()
				if got := w.field("both@stage.example", "CITY"); got != want {
					t.Errorf("edit %d: the platform has %q, want %q", i, got, want)
				}
				if n := w.crmWrites.Load() - rows; n != 0 {
					t.Errorf("edit %d: %d rows written in the CRM", i, n)
				}
				w.quiet()
			}
			// Without the speaker the other one speaks, and the contact stays where it belongs.
			w.editRecord(tables[speaker], ids[speaker], cols{"emailaddress1": "alone@stage.example"})
			w.sync()
			w.sync()
			other := 1 - speaker
			want := w.record(tables[other], ids[other], "address1_city").str("address1_city")
			if got := w.field("both@stage.example", "CITY"); got != want {
				t.Errorf("the remaining record does not speak: %q, want %q", got, want)
			}
			own := w.record(tables[speaker], ids[speaker], "address1_city").str("address1_city")
			if got := w.field("alone@stage.example", "CITY"); got != own {
				t.Errorf("the one that left: %q, want %q", got, own)
			}
			w.quiet()
		})
	}
}

// The strictest word of all records that share an address counts, however it comes
// about, and ends with it.
func TestSharedAddressWithAnOptOut(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	contacts, leads := w.list("Contacts", "contact", lockstep.ActionIgnore, ""), w.list("Leads", "lead", lockstep.ActionIgnore, "")
	ann, lea := w.cast("contact", "both@stage.example"), w.cast("lead", "both@stage.example")
	w.join(contacts, ann, w.cast("contact", "other@stage.example"))
	w.join(leads, lea, w.cast("lead", "lone@stage.example"))
	w.sync()
	w.wantIn("at first", contacts, "both", "other")
	w.wantIn("at first", leads, "both", "lone")
	for _, flag := range []string{"donotbulkemail", "donotemail"} {
		for table, id := range map[string]string{"contact": ann, "lead": lea} {
			w.editRecord(table, id, cols{flag: true})
			w.sync()
			w.wantIn(table+" set "+flag, contacts, "other")
			w.wantIn(table+" set "+flag, leads, "lone")
			w.quiet()
			w.editRecord(table, id, cols{flag: false})
			w.sync()
			w.wantIn(table+" cleared "+flag, contacts, "both", "other")
			w.wantIn(table+" cleared "+flag, leads, "both", "lone")
			w.quiet()
		}
	}
	// Opted out by one record before the other exists.
	w.editRecord("lead", lea, cols{"donotemail": true})
	w.sync()
	late := w.cast("contact", "both@stage.example", cols{"lastname": "late"})
	w.join(contacts, late)
	w.sync()
	w.sync()
	w.wantIn("a third record", contacts, "other")
	w.quiet()
}

// A record that a user closed keeps out everybody with its address from the moment it is
// heard, also while it is in no list and whether or not its table has one, until it is
// opened, deleted or given another address.
func TestRecordInNoListThatRefuses(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *stage, table, id string){
		"opened":  func(w *stage, table, id string) { w.editRecord(table, id, cols{"donotemail": false}) },
		"deleted": func(w *stage, table, id string) { w.crm("DELETE", table+"s("+id+")", nil, nil) },
		"moved": func(w *stage, table, id string) {
			w.editRecord(table, id, cols{"emailaddress1": "elsewhere@stage.example"})
		},
	} {
		for _, table := range []string{"contact", "lead"} {
			t.Run(table+" "+name, func(t *testing.T) {
				w := newStage(t)
				l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
				closed := w.cast(table, "both@stage.example", cols{"donotemail": true})
				w.run(lockstep.SyncSuppressions)
				w.join(l, w.cast("contact", "both@stage.example"), w.cast("contact", "other@stage.example"))
				w.sync()
				w.wantIn("at first", l, "other")
				w.quiet()
				end(w, table, closed)
				w.sync()
				w.wantIn("afterwards", l, "both", "other")
				w.quiet()
				if name != "opened" {
					return
				}
				w.editRecord(table, closed, cols{"donotemail": true})
				w.run(lockstep.SyncSuppressions)
				w.wantIn("closed again", l, "other")
				w.sync()
				w.wantIn("closed again and synced", l, "other")
			})
		}
	}
}

// Where two members of one list share an address, the contact stays in the book until
// the last of them has left.
func TestSharedAddressLeavesWithTheLastMember(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	ann, ben := w.cast("contact", "both@stage.example", cols{"lastname": "ann"}), w.cast("contact", "both@stage.example", cols{"lastname": "ben"})
	w.join(l, ann, ben)
	w.sync()
	w.wantIn("at first", l, "both")
	w.quiet()
	w.quit(l, ann)
	w.sync()
	w.wantIn("one left", l, "both")
	w.sync() // the other one speaks from now on
	if got := w.field("both@stage.example", "LASTNAME"); got != "ben" {
		t.Errorf("%q speaks", got)
	}
	w.quiet()
	w.quit(l, ben)
	w.sync()
	w.wantIn("both left", l)
	w.quiet()
	w.join(l, ann)
	w.sync()
	w.wantIn("one is back", l, "both")
	w.quiet()
	w.crm("DELETE", "contacts("+ann+")", nil, nil)
	w.sync()
	w.wantIn("and deleted", l)
	w.quiet()
}

// Two records that share an address both get one of their own, in either order. One of them
// has joined the list meanwhile that the other one's contact is in the book of: it keeps
// nobody there whom it leaves as well.
func TestSharedAddressLeftByAllOfThem(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"ann", "ben"} {
		t.Run(first+" first", func(t *testing.T) {
			w := newStage(t)
			one, two := w.list("One", "contact", lockstep.ActionIgnore, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
			ids := map[string]string{}
			for _, who := range []string{"ann", "ben"} {
				ids[who] = w.cast("contact", "both@stage.example", cols{"lastname": who})
			}
			w.join(one, ids["ann"])
			w.join(two, ids["ben"])
			w.sync()
			w.wantIn("at first", one, "both")
			w.join(one, ids["ben"])
			for _, who := range []string{first, map[string]string{"ann": "ben", "ben": "ann"}[first]} {
				w.editRecord("contact", ids[who], cols{"emailaddress1": who + "@stage.example"})
			}
			w.sync()
			w.wantIn("both left", one, "ann", "ben")
			w.wantIn("both left", two, "ben")
			w.quiet()
		})
	}
}

// Who shares an address with somebody that gets one of their own keeps the contact in the
// book of a list that they have joined in the same moment.
func TestSharedAddressKeptByWhoJoins(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	one, two := w.list("One", "contact", lockstep.ActionIgnore, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "both@stage.example", cols{"lastname": "ann"}), w.cast("contact", "both@stage.example", cols{"lastname": "ben"})
	w.join(one, ann)
	w.join(two, ben)
	w.sync()
	w.join(one, ben)
	w.editRecord("contact", ann, cols{"emailaddress1": "ann@stage.example"})
	if run := w.sync(); run.Counts.BookRemovals != 0 {
		t.Errorf("%d contacts were taken out of a book", run.Counts.BookRemovals)
	}
	w.wantIn("one left", one, "ann", "both")
	w.wantIn("one left", two, "both")
	w.quiet()
}

// Of two who share an address and change in the same moment, one loses the address: the
// other one speaks for the contact from then on, whichever is read first.
func TestSharedAddressLostBesideAnEdit(t *testing.T) {
	t.Parallel()
	for blanked := range 2 {
		t.Run(fmt.Sprint(blanked), func(t *testing.T) {
			w := newStage(t)
			l := w.list("Letters", "contact", lockstep.ActionIgnore, "")
			ids := []string{}
			for i := range 2 {
				ids = append(ids, w.cast("contact", "both@stage.example", cols{"address1_city": fmt.Sprintf("City %d", i)}))
				w.join(l, ids[i])
				w.twins.Clock.Advance(2 * time.Second)
			}
			w.sync()
			w.editRecord("contact", ids[blanked], cols{"emailaddress1": nil})
			w.editRecord("contact", ids[1-blanked], cols{"jobtitle": "Other"})
			w.sync()
			w.sync()
			if got, want := w.field("both@stage.example", "CITY"), fmt.Sprintf("City %d", 1-blanked); got != want {
				t.Errorf("the contact says %v, want %s", got, want)
			}
			if got := w.field("both@stage.example", "JOBTITLE"); got != "Other" {
				t.Errorf("the contact's job title is %v", got)
			}
			w.quiet()
		})
	}
}

// Of two who share an address and change in the same moment, the one that speaks for the
// contact goes over to an address that somebody else has: the other one speaks for the
// contact from then on, whichever is read first.
func TestSharedAddressLeftForAnothersBesideAnEdit(t *testing.T) {
	t.Parallel()
	for moved := range 2 {
		t.Run(fmt.Sprint(moved), func(t *testing.T) {
			w := newStage(t)
			l := w.list("Letters", "contact", lockstep.ActionIgnore, "")
			w.join(l, w.cast("contact", "ben@stage.example", nil))
			ids := []string{}
			for i := range 2 {
				ids = append(ids, w.cast("contact", "both@stage.example", cols{"address1_city": fmt.Sprintf("City %d", i)}))
				w.twins.Clock.Advance(2 * time.Second)
			}
			w.join(l, ids[moved])
			w.sync() // makes it the one that speaks
			w.join(l, ids[1-moved])
			w.sync()
			w.editRecord("contact", ids[moved], cols{"emailaddress1": "ben@stage.example"})
			w.editRecord("contact", ids[1-moved], cols{"jobtitle": "Other"})
			w.sync()
			if got, want := w.field("both@stage.example", "CITY"), fmt.Sprintf("City %d", 1-moved); got != want {
				t.Errorf("the contact says %v, want %s", got, want)
			}
			if got := w.field("both@stage.example", "JOBTITLE"); got != "Other" {
				t.Errorf("the contact's job title is %v", got)
			}
			w.quiet()
		})
	}
}

// A contact and a lead share an address. When the contact's record, which speaks, gets
// another one, the lead speaks from then on, although it is looked at before it is stored
// that the other one has left.
func TestSharedAddressLeftWhileThePlatformChanged(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	letters, leads := w.list("Letters", "contact", lockstep.ActionIgnore, ""), w.list("Leads", "lead", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "both@stage.example", cols{"address1_city": "City of the contact"})
	w.join(letters, ann)
	w.join(leads, w.cast("lead", "both@stage.example", cols{"address1_city": "City of the lead"}))
	w.sync()
	w.editContact("both@stage.example", cols{"JOBTITLE": "Other"})
	w.editRecord("contact", ann, cols{"emailaddress1": "ann@stage.example"})
	w.sync()
	w.sync()
	if got := w.field("both@stage.example", "CITY"); got != "City of the lead" {
		t.Errorf("the contact says %v, want what the lead says", got)
	}
	w.wantIn("one left", leads, "both")
	w.wantIn("one left", letters, "ann")
	w.quiet()
}

// A contact and a lead swap addresses, and three people pass theirs on in a circle
// while one of them is edited on the platform.
func TestAddressesGoRound(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	contacts, leads := w.list("Contacts", "contact", lockstep.ActionIgnore, ""), w.list("Leads", "lead", lockstep.ActionRemove, "")
	type one struct{ table, id, from, to string }
	people := map[string]*one{
		"ann": {"contact", "", "ann", "lea"}, "lea": {"lead", "", "lea", "ann"},
		"ben": {"contact", "", "ben", "cleo"}, "cleo": {"contact", "", "cleo", "dora"}, "dora": {"contact", "", "dora", "ben"},
	}
	for who, p := range people {
		p.id = w.cast(p.table, p.from+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "City of " + who})
		if p.table == "lead" {
			w.join(leads, p.id)
		} else {
			w.join(contacts, p.id)
		}
	}
	w.sync()
	for _, p := range people {
		w.editRecord(p.table, p.id, cols{"emailaddress1": p.to + "@stage.example"})
	}
	w.applyPreview()
	w.sync()
	for who, p := range people {
		r := w.record(p.table, p.id, "emailaddress1,jobtitle,lastname")
		c := w.contact(p.to + "@stage.example")
		got := []any{r.str("emailaddress1"), r.str("jobtitle"), c.DataFields["JOBTITLE"], c.DataFields["CITY"], c.DataFields["LASTNAME"]}
		want := []any{p.to + "@stage.example", "Job of " + who, "Job of " + who, "City of " + who, who}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", who, diff)
		}
	}
	w.wantIn("afterwards", contacts, "ben", "cleo", "dora", "lea")
	w.wantIn("afterwards", leads, "ann")
	w.quiet()
	if n := len(w.contacts("")); n != len(people) {
		t.Errorf("%d contacts, want %d", n, len(people))
	}
}

// Contacts swap their addresses on the platform while the records are edited: each
// edit stays with its person.
func TestSwapOnThePlatformWithEdits(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ids, contact := map[string]string{}, map[string]int64{}
	for _, who := range []string{"ann", "ben"} {
		ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who})
		w.join(l, ids[who])
	}
	w.sync()
	for who := range ids {
		contact[who] = w.contact(who + "@stage.example").ContactID
	}
	w.readdress(contact["ann"], "between@stage.example")
	w.readdress(contact["ben"], "ann@stage.example")
	w.readdress(contact["ann"], "ben@stage.example")
	for who, id := range ids {
		w.editRecord("contact", id, cols{"address1_city": "City of " + who})
	}
	for range 3 {
		w.sync()
	}
	for who, id := range ids {
		c, r := w.byID(contact[who]), w.record("contact", id, "emailaddress1,jobtitle")
		if c.DataFields["CITY"] != "City of "+who || c.DataFields["JOBTITLE"] != "Job of "+who || r.str("jobtitle") != "Job of "+who || r.str("emailaddress1") != c.Identifiers.Email {
			t.Errorf("%s: record %v, contact %s %v", who, r, c.Identifiers.Email, c.DataFields)
		}
	}
	w.quiet()
}

// Somebody's contact was deleted on the platform, and their record has another address
// since, which a new contact has: who exchanges addresses with them gets that contact,
// not the one that is gone.
func TestSwapWithSomebodyWhoseContactIsGone(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ids := map[string]string{}
	for _, who := range []string{"ann", "ben"} {
		ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who})
		w.join(l, ids[who])
	}
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	w.sync()
	w.editRecord("contact", ids["ann"], cols{"emailaddress1": "new@stage.example"})
	w.sync()
	w.signUp(w.book(l), "new@stage.example")
	w.sync()
	w.editRecord("contact", ids["ann"], cols{"emailaddress1": "ben@stage.example"})
	w.editRecord("contact", ids["ben"], cols{"emailaddress1": "new@stage.example"})
	for range 2 {
		w.sync()
	}
	w.editRecord("contact", ids["ben"], cols{"address1_city": "City of ben"})
	w.sync()
	c := w.contact("new@stage.example")
	if c.DataFields["CITY"] != "City of ben" || c.DataFields["JOBTITLE"] != "Job of ben" {
		t.Errorf("Ben has the address new@stage.example, its contact says %v", c.DataFields)
	}
	w.quiet()
}

// TestAddressThatIsNotGiven: the platform gives nobody the address of a contact in its
// recycle bin. The contact whose record has it now keeps an address that is somebody
// else's, and is out of the books until it can be renamed.
func TestAddressThatIsNotGiven(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	w.sync()
	w.editRecord("contact", ann, cols{"emailaddress1": "ben@stage.example"})
	w.editRecord("contact", ben, cols{"emailaddress1": "ann@stage.example"})
	w.told(w.sync(), lockstep.FindingRejected, ben)
	w.wantIn("refused", l)
	w.told(w.sync(), lockstep.FindingRejected, ben)
	w.wantIn("refused again", l)
	w.mail("POST", "/v2/accounts/empty-recycle-bin", nil, nil)
	w.sync()
	w.wantIn("renamed", l, "ann")
	w.quiet()
}

// Two records behind one contact that nobody knew of when it was sent to, and that the
// platform mails nobody at for now: it keeps what it is sent and lets nobody into a book.
// One of the records speaks for it all the same, however often both are tried again.
func TestRecordsBehindARefusedContactDoNotTakeTurns(t *testing.T) {
	t.Parallel()
	clock := &ahead{}
	var w *stage
	signedUp := true
	w = newStageWith(t, app.Config{Now: clock.now, OnStep: func(step string) {
		if signedUp || step != "plan.before" {
			return
		}
		signedUp = true
		w.mail("POST", "/v2/contacts", cols{"email": "ann@stage.example", "optInType": "Single", "emailType": "Html"}, nil)
		for range 20 {
			w.twins.Dotdigital.Bounce("ann@stage.example", false)
		}
	}})
	readers, companies := w.list("Readers", "contact", lockstep.ActionIgnore, ""), w.list("Companies", "account", lockstep.ActionIgnore, "")
	w.sync() // makes the address books
	w.join(readers, w.cast("contact", "ann@stage.example"))
	w.join(companies, w.cast("account", "ann@stage.example", cols{"name": "Ann's Shop"}))
	signedUp = false
	for try := range 3 {
		w.sync()
		if name := w.contact("ann@stage.example").DataFields["FULLNAME"]; name == "Ann's Shop" {
			t.Errorf("try %d: the account speaks for the contact, and not the person", try)
		}
		clock.pass(lockstep.MaxRetryDelay)
		w.twins.Clock.Advance(lockstep.MaxRetryDelay)
	}
	if !signedUp {
		t.Error("nothing was planned")
	}
}

// Of the one who speaks for a contact and a newcomer to its address the one that was
// changed later speaks, whichever the feed tells of first, on one page or on two.
func TestNewcomerBesideTheSpeaker(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{0, 1} {
		for _, last := range []string{"speaker", "newcomer"} {
			t.Run(fmt.Sprintf("%s changed last, pages of %d", last, rows), func(t *testing.T) {
				t.Parallel()
				w := newStageWith(t, app.Config{PageRows: rows})
				l := w.list("One", "contact", lockstep.ActionIgnore, "")
				speaker := w.cast("contact", "both@stage.example", cols{"address1_city": "Old"})
				w.join(l, speaker)
				w.sync()
				changes := map[string]func(){
					"speaker":  func() { w.editRecord("contact", speaker, cols{"address1_city": "Of the speaker"}) },
					"newcomer": func() { w.join(l, w.cast("contact", "both@stage.example", cols{"address1_city": "Of the newcomer"})) },
				}
				first := map[string]string{"speaker": "newcomer", "newcomer": "speaker"}[last]
				for _, who := range []string{first, last} {
					w.twins.Clock.Advance(2 * time.Second)
					changes[who]()
				}
				w.sync()
				w.quiet()
				if got := w.field("both@stage.example", "CITY"); got != "Of the "+last {
					t.Errorf("the contact has %q", got)
				}
			})
		}
	}
}
