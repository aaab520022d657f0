package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

func (w *stage) merge(winner, loser string) {
	w.t.Helper()
	ref := func(id string) cols {
		return cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": id}
	}
	w.crm("POST", "Merge", cols{"Target": ref(winner), "Subordinate": ref(loser), "PerformParentingChecks": false}, nil)
}

// Who deleted the contact of a record that then lost a merge said nothing about the
// survivor, which has an address of its own.
func TestSurvivorDoesNotInheritADeletion(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known %t", known), func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionIgnore, "")
			loser, winner := w.cast("contact", "loser@stage.example"), w.cast("contact", "winner@stage.example")
			w.join(l, loser, w.cast("contact", "ben@stage.example"))
			w.sync()
			w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("loser@stage.example").ContactID), nil, nil)
			if known {
				w.sync()
			}
			w.merge(winner, loser)
			w.sync() // the survivor is in no list
			w.join(l, winner)
			w.sync()
			w.sync()
			w.wantIn("after the merge", l, "ben", "winner")
			if _, there := w.contacts("")["loser@stage.example"]; there {
				t.Error("the deleted contact was made again")
			}
			w.quiet()
		})
	}
}

// A record that kept another one with its address out of the books, and is in no list any
// more, does so no longer once it is open again or deleted.
func TestRefusalEndsOutsideTheLists(t *testing.T) {
	t.Parallel()
	for name, linked := range map[string]bool{"with a contact": true, "without": false} {
		for _, end := range []string{"open", "delete", "delete unseen"} {
			t.Run(end+" "+name, func(t *testing.T) {
				w := newStage(t)
				l, other := w.list("One", "contact", lockstep.ActionIgnore, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
				refusing := w.cast("contact", "both@stage.example", cols{"donotbulkemail": !linked})
				w.join(l, refusing, w.cast("contact", "ben@stage.example"))
				w.sync()
				w.editRecord("contact", refusing, cols{"donotbulkemail": true})
				w.sync()
				w.join(other, w.cast("contact", "both@stage.example", cols{"lastname": "second"}))
				w.sync()
				w.wantIn("refused", other)
				w.quit(l, refusing)
				w.sync()
				w.wantIn("refused by a record in no list", other)
				switch end {
				case "open":
					w.editRecord("contact", refusing, cols{"donotbulkemail": false})
				case "delete unseen":
					if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "delta-expired", Count: 1}); err != nil {
						t.Fatal(err)
					}
					fallthrough
				default:
					w.crm("DELETE", "contacts("+refusing+")", nil, nil)
				}
				w.sync()
				w.sync()
				w.wantIn("nobody refuses any more", other, "both")
				w.quiet()
			})
		}
	}
}

// A record in no list came to somebody's address, was closed there and went on to another
// one: whom it kept out comes back, although its contact never had that address.
func TestRefusalMovesOnOutsideTheLists(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Letters", "contact", lockstep.ActionIgnore, "")
	other := w.list("Friends", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann)
	w.join(other, ben)
	w.sync()
	w.quit(other, ben)
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.editRecord("contact", ben, cols{"emailaddress1": "ann@stage.example", "donotbulkemail": true})
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.wantIn("while Ben's record refuses mail at Ann's address", l)
	w.editRecord("contact", ben, cols{"emailaddress1": "ben2@stage.example"})
	w.sync()
	w.sync()
	w.wantIn("after Ben's record went on to another address", l, "ann")
	w.quiet()
}

// Whoever was in an address book before anybody listened to what CRM users say leaves it,
// also for the word of a record that shares the address and is in no list.
func TestRefusalThatWasThereBefore(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Letters", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	ben := w.cast("contact", "ann@stage.example", cols{"lastname": "Ben", "donotbulkemail": true})
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.wantIn("after the record's word was heard", l)
	w.editRecord("contact", ben, cols{"donotbulkemail": false})
	w.run(lockstep.SyncSuppressions)
	w.sync()
	w.sync()
	w.wantIn("after the record was opened", l, "ann")
	w.quiet()
}

// One answer that leaves the address books out is not taken for their deletion.
func TestAddressBooksLeftOutOnce(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionAllowKnown, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	book := w.book(l)
	w.quit(l, ann)
	w.answer(fault.Dotdigital, "address-books.list", "[]", 1)
	w.sync()
	if now := w.book(l); now != book {
		t.Fatalf("the list has the book %s, and had %s", now, book)
	}
	w.sync()
	w.wantIn("afterwards", l, "ben")
	w.quiet()
}

// A book that is gone and cannot be made anew leaves what is known of its members.
func TestAddressBookThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionAllowKnown, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	book := w.book(l)
	w.quit(l, ann)
	w.answer(fault.Dotdigital, "address-books.list", "[]", 2)
	run := w.sync()
	w.told(run, lockstep.FindingNameTaken, l.CRMID.String())
	if now := w.book(l); now != book {
		t.Fatalf("the list has the book %s, and had %s", now, book)
	}
	w.sync()
	w.wantIn("afterwards", l, "ben")
	w.quiet()
}

// Two records share an address and one of them refuses for both. When it is open again the
// other one comes back too, whichever the last thing was that the process stored before it
// died, although nothing changed of it.
func TestCrashBesideASharedAddress(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, o worldOptions) *world {
		w := newStageOf(t, o)
		contacts, leads := w.list("Contacts", "contact", lockstep.ActionIgnore, ""), w.list("Leads", "lead", lockstep.ActionIgnore, "")
		ann, lea := w.cast("contact", "both@stage.example"), w.cast("lead", "both@stage.example")
		w.join(contacts, ann)
		w.join(leads, lea)
		w.sync()
		w.editRecord("lead", lea, cols{"donotbulkemail": true})
		w.sync()
		w.wantIn("refused", contacts)
		w.editRecord("lead", lea, cols{"donotbulkemail": false})
		return w.world
	}
	w, steps, _ := interruptedRun(t, 0, lockstep.SyncMarketingLists, begin)
	want := w.bothSides()
	t.Logf("dying at each of %d steps: %v", len(steps), steps)
	for k := range steps {
		if !strings.HasPrefix(steps[k], "commit") {
			continue
		}
		t.Run(fmt.Sprint(k+1), func(t *testing.T) {
			t.Parallel()
			w, _, _ := interruptedRun(t, int64(k+1), lockstep.SyncMarketingLists, begin)
			if diff := cmp.Diff(want, w.bothSides()); diff != "" {
				t.Errorf("the process died at %s; differs from the undisturbed run (-) as follows:\n%s", steps[k], diff)
			}
			w.silent("the process died at " + steps[k])
		})
	}
}

// Who has the address of a contact that unsubscribed from a book is taken for that person,
// and stays out of the book with an address of their own; of another book they are a member.
func TestUnsubscriptionGoesAlongToAnotherAddress(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	one, two := w.list("One", "contact", lockstep.ActionIgnore, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
	w.join(one, w.cast("contact", "both@stage.example", cols{"lastname": "ann"}))
	w.sync()
	w.optOutOf(w.book(one), "both@stage.example")
	w.sync()
	ben := w.cast("contact", "both@stage.example", cols{"lastname": "ben"})
	w.join(one, ben)
	w.join(two, ben)
	w.sync()
	w.sync() // the platform refused to put the contact into the one book, which had it looked at
	w.wantIn("shared", one)
	w.wantIn("shared", two, "both")
	w.editRecord("contact", ben, cols{"emailaddress1": "ben@stage.example"})
	w.sync()
	w.wantIn("with an address of its own", one)
	w.wantIn("with an address of its own", two, "ben")
	w.quiet()
}

// A record goes over to the contact that has its new address, and another one, of somebody in
// no list, comes to its old one. Where the run ends before the old contact has left the book
// of a list that takes strangers in, the next one takes in nobody for it.
func TestCrashWithAContactThatWasLeft(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, o worldOptions) *world {
		w := newStageOf(t, o)
		l, other := w.list("One", "contact", lockstep.ActionAllowKnown, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
		ann, cara := w.cast("contact", "ann@stage.example"), w.cast("contact", "cara@stage.example")
		w.join(l, ann)
		w.sync()
		w.signUp(w.book(l), "unknown@stage.example")
		w.signUp(w.book(other), "ben@stage.example")
		w.sync()
		w.editRecord("contact", ann, cols{"emailaddress1": "ben@stage.example"})
		w.editRecord("contact", cara, cols{"emailaddress1": "ann@stage.example"})
		return w.world
	}
	w, steps, _ := interruptedRun(t, 0, lockstep.SyncMarketingLists, begin)
	want := w.bothSides()
	t.Logf("dying at each of %d steps: %v", len(steps), steps)
	for k := range steps {
		t.Run(fmt.Sprint(k+1), func(t *testing.T) {
			t.Parallel()
			w, _, _ := interruptedRun(t, int64(k+1), lockstep.SyncMarketingLists, begin)
			if diff := cmp.Diff(want, w.bothSides()); diff != "" {
				t.Errorf("the process died at %s; differs from the undisturbed run (-) as follows:\n%s", steps[k], diff)
			}
			w.silent("the process died at " + steps[k])
		})
	}
}

// A record comes to another address while it is in no list, and the contact that it had is
// deleted: that says nothing about the address which the record comes back with.
func TestDeletionOfAContactThatWasLeft(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "first@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.quit(l, ann)
	w.sync()
	w.editRecord("contact", ann, cols{"emailaddress1": "second@stage.example"})
	w.editContact("first@stage.example", cols{"PHONE": "12"}) // it is asked for when a list wants the record
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("first@stage.example").ContactID), nil, nil)
	w.join(l, ann)
	w.sync()
	w.sync()
	w.wantIn("come back", l, "ben", "second")
	if _, there := w.contacts("")["first@stage.example"]; there {
		t.Error("the deleted contact was made again")
	}
	w.quiet()
}

// The contact of a record that lost a merge, whose survivor has one of its own, goes to
// whoever comes to its address.
func TestAddressOfAMergedRecord(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	loser, winner, third := w.cast("contact", "loser@stage.example"), w.cast("contact", "winner@stage.example"), w.cast("contact", "third@stage.example")
	w.join(l, loser, winner, third)
	w.sync()
	left := w.contact("loser@stage.example").ContactID
	w.quit(l, loser)
	w.sync()
	w.sync() // the platform has no more to say of the contact
	w.merge(winner, loser)
	w.sync()
	w.wantIn("merged", l, "third", "winner")
	w.editRecord("contact", loser, cols{"emailaddress1": "elsewhere@stage.example"})
	w.editRecord("contact", third, cols{"emailaddress1": "loser@stage.example"})
	w.sync()
	w.sync()
	w.wantIn("the address taken", l, "loser", "winner")
	if now := w.contact("loser@stage.example").ContactID; now != left {
		t.Errorf("the address belongs to contact %d, and to %d before", now, left)
	}
	w.quiet()
}

// A record comes to the address of somebody whose contact has been deleted, and goes on to
// another one: nobody deleted its own contact.
func TestAddressOfADeletedContactPassedThrough(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, cleo := w.cast("contact", "ann@stage.example"), w.cast("contact", "cleo@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	w.sync()
	w.editRecord("contact", cleo, cols{"emailaddress1": "ann@stage.example"})
	w.join(l, cleo)
	w.sync()
	w.editRecord("contact", ann, cols{"jobtitle": "Edited"})
	w.editRecord("contact", cleo, cols{"jobtitle": "Edited"})
	w.sync()
	w.wantIn("at the address of the deleted contact", l, "ben")
	w.editRecord("contact", cleo, cols{"emailaddress1": "own@stage.example"})
	w.editRecord("contact", ann, cols{"emailaddress1": "elsewhere@stage.example"})
	w.sync()
	w.sync()
	w.wantIn("at its own address", l, "ben", "own")
	w.quiet()
}

func (w *stage) keepsAddress(id, email string) {
	w.t.Helper()
	if now := w.record("contact", id, "emailaddress1").str("emailaddress1"); now != email {
		w.t.Errorf("the record's address is %s; a user gave it %s", now, email)
	}
}

// The platform restores the deleted contact of somebody who has another address by now when
// the old one comes to it again, with another record or by a sign-up: the contact goes with
// the address, and the record keeps the one that its user gave it.
func TestDeletedContactRestoredForItsAddress(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (w *stage, l lockstep.ListSettings, ann string) {
		w = newStage(t)
		l = w.list("One", "contact", lockstep.ActionIgnore, "")
		ann = w.cast("contact", "ann@stage.example")
		w.join(l, ann, w.cast("contact", "ben@stage.example"))
		w.sync()
		w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
		w.editRecord("contact", ann, cols{"emailaddress1": "elsewhere@stage.example"})
		return w, l, ann
	}
	t.Run("another record", func(t *testing.T) {
		t.Parallel()
		w, l, ann := begin(t)
		cleo := w.cast("contact", "ann@stage.example", cols{"lastname": "cleo"})
		w.join(l, cleo)
		for _, f := range w.findings(w.sync()) {
			if f.Code == lockstep.FindingContactGone && f.Record.String() == cleo {
				t.Errorf("the contact that the sync made is taken for deleted: %+v", f)
			}
		}
		w.sync()
		w.wantIn("at the address of the deleted contact", l, "ann", "ben")
		restored := w.contact("ann@stage.example").ContactID
		w.keepsAddress(ann, "elsewhere@stage.example")
		w.editRecord("contact", cleo, cols{"emailaddress1": "cleo@stage.example"})
		w.sync()
		w.wantIn("at its own address", l, "ben", "cleo")
		if now := w.contact("cleo@stage.example").ContactID; now != restored {
			t.Errorf("the address belongs to contact %d, and its record's was %d", now, restored)
		}
		w.quiet()
	})
	t.Run("sign-up", func(t *testing.T) {
		t.Parallel()
		w, l, ann := begin(t)
		w.sync()
		w.signUp(w.book(l), "ann@stage.example")
		w.sync()
		w.wantIn("signed up", l, "ann", "ben")
		w.keepsAddress(ann, "elsewhere@stage.example")
		w.quiet()
	})
}

// A record got another address when its contact had gone, and leaves the lists: when it is in
// one again its person is still not made anew.
func TestDeletedContactOfARecordInNoList(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	w.editRecord("contact", ann, cols{"emailaddress1": "elsewhere@stage.example"})
	w.sync()
	w.quit(l, ann)
	w.sync()
	w.editRecord("contact", ann, cols{"emailaddress1": "third@stage.example"})
	w.sync()
	w.join(l, ann)
	w.sync()
	w.wantIn("back in the list", l, "ben")
	w.quiet()
	x, err := w.app.Explain(t.Context(), w.account.ID, "third@stage.example")
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Links) != 1 || x.Links[0].Contact != "" || x.Links[0].Speaks || x.Links[0].Standing != lockstep.ContactDeleted.String() {
		t.Errorf("it is explained as %+v", x.Links)
	}
	w.signUp(w.book(l), "third@stage.example")
	w.sync()
	w.sync()
	w.editRecord("contact", ann, cols{"jobtitle": "Edited"})
	w.sync()
	w.wantIn("signed up", l, "ben", "third")
	if c := w.contact("third@stage.example"); c.DataFields["JOBTITLE"] != "Edited" {
		t.Errorf("the contact is %+v", c)
	}
	w.quiet()
}

// A record got another address when its contact had gone, and absorbs another record: whoever
// deleted the contact is not overruled by the merge.
func TestDeletedContactOfASurvivor(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, cleo := w.cast("contact", "ann@stage.example"), w.cast("contact", "cleo@stage.example")
	w.join(l, ann, cleo, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	w.editRecord("contact", ann, cols{"emailaddress1": "elsewhere@stage.example"})
	w.sync()
	w.merge(ann, cleo)
	w.sync()
	w.sync()
	w.wantIn("merged", l, "ben")
	w.quiet()
}

// Somebody whose contact was deleted comes to the platform again: the records with the
// address get the new contact, those that were there before and those that come now.
func TestDeletedContactMadeAgainByItsPerson(t *testing.T) {
	t.Parallel()
	for _, emptied := range []bool{false, true} {
		t.Run(fmt.Sprintf("emptied recycle bin %v", emptied), func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionIgnore, "")
			other := w.list("Two", "contact", lockstep.ActionRemove, "")
			ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Old"})
			w.join(l, ann, w.cast("contact", "ben@stage.example"))
			w.join(other, ann)
			w.sync()
			w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
			w.sync()
			w.wantIn("deleted", l, "ben")
			if emptied { // else the platform restores the contact
				w.mail("POST", "/v2/accounts/empty-recycle-bin", nil, nil)
			}
			w.signUp(w.book(l), "ann@stage.example")
			w.sync()
			w.sync()
			w.wantIn("signed up", l, "ann", "ben")
			w.wantIn("signed up", other, "ann")
			second := w.cast("contact", "ann@stage.example")
			w.twins.Clock.Advance(2 * time.Second) // of two members the one that was edited later speaks for the contact
			w.editRecord("contact", ann, cols{"jobtitle": "New"})
			w.join(l, second)
			w.sync()
			w.quiet()
			if c := w.contact("ann@stage.example"); c.DataFields["JOBTITLE"] != "New" {
				t.Errorf("the contact is %+v", c)
			}
			w.quit(l, ann)
			w.sync()
			w.wantIn("kept by the second record", l, "ann", "ben")
			w.quiet()
		})
	}
}
