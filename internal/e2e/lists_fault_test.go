package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// A dynamic list whose query cannot be evaluated any more keeps its members where they
// are, somebody is told, and the other lists go on. Once it can it is followed again.
func TestDynamicListThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	const sound = `<condition attribute="address1_city" operator="eq" value="Oslo"/>`
	fetch := func(inner string) string {
		return `<fetch version="1.0" mapping="logical"><entity name="contact"><attribute name="contactid"/>` + inner + `</entity></fetch>`
	}
	w := newStage(t)
	d := w.list("Of Oslo", "contact", lockstep.ActionIgnore, sound)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	var ids []string
	for _, who := range []string{"ann", "ben", "cleo"} {
		ids = append(ids, w.cast("contact", who+"@stage.example", cols{"address1_city": "Oslo"}))
	}
	w.join(l, ids...)
	w.sync()
	w.wantIn("at first", d, "ann", "ben", "cleo")
	for i, query := range []string{
		fetch(`<filter><condition attribute="nickname" operator="not-null"/></filter>`), // which is deleted below
		`<fetch aggregate="true"><entity name="contact"><attribute name="contactid" aggregate="count" alias="n"/></entity></fetch>`,
	} {
		w.crm("PATCH", "lists("+d.CRMID.String()+")", cols{"query": query}, nil)
		if i == 0 {
			w.alter(`{"table":"contact","column":"nickname","change":"remove"}`)
		}
		w.editRecord("contact", ids[0], cols{"address1_city": "Bergen"}) // would leave the sound query
		w.editRecord("contact", ids[1], cols{"jobtitle": fmt.Sprint("Job ", i)})
		w.quit(l, ids[2])
		run := w.sync()
		w.told(run, lockstep.FindingListUnreadable, d.CRMID.String())
		w.wantIn(query, d, "ann", "ben", "cleo")
		w.wantIn(query, l, "ann", "ben")
		if got := w.field("ben@stage.example", "JOBTITLE"); got != fmt.Sprint("Job ", i) {
			t.Errorf("%s: an edit of a member did not travel: %v", query, got)
		}
		w.join(l, ids[2])
		w.sync()
		w.wantIn(query, l, "ann", "ben", "cleo")
	}
	w.crm("PATCH", "lists("+d.CRMID.String()+")", cols{"query": fetch(`<filter>` + sound + `</filter>`)}, nil)
	w.sync()
	w.wantIn("sound again", d, "ben", "cleo")
	w.quiet()
}

// A locked marketing list is read and not written: its members flow, a stranger waits
// until it is unlocked, and the other lists go on.
func TestLockedList(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Locked", "contact", lockstep.ActionCreateContact, "")
	other := w.list("Open", "contact", lockstep.ActionCreateContact, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.join(other, ann)
	w.sync()
	w.crm("PATCH", "lists("+l.CRMID.String()+")", cols{"lockstatus": true}, nil)
	w.signUp(w.book(l), "zoe@stage.example")
	w.signUp(w.book(other), "yan@stage.example")
	w.editRecord("contact", ben, cols{"jobtitle": "Baker"})
	w.optOutOf(w.book(l), "ann@stage.example")
	run := w.sync()
	w.told(run, lockstep.FindingListUnusable, l.CRMID.String())
	if n := len(w.membersOf(l)); n != 2 {
		t.Errorf("the locked list has %d members", n)
	}
	if n := len(w.membersOf(other)); n != 2 {
		t.Errorf("the open list has %d members", n)
	}
	if got := w.field("ben@stage.example", "JOBTITLE"); got != "Baker" {
		t.Errorf("an edit of a member did not travel: %v", got)
	}
	w.wantIn("locked", l, "ben", "zoe")
	lane, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncUnsubscribes})
	if err != nil && lane.Status == lockstep.RunFailed && lane.Error == "" {
		t.Errorf("the lane: %v", err)
	}
	w.noted("ann@stage.example")
	w.crm("PATCH", "lists("+l.CRMID.String()+")", cols{"lockstatus": false}, nil)
	w.run(lockstep.SyncUnsubscribes)
	w.sync()
	w.sync()
	if n := len(w.membersOf(l)); n != 2 { // ann has left, zoe has come
		t.Errorf("the unlocked list has %d members", n)
	}
	w.wantIn("unlocked", l, "ben", "zoe")
	w.quiet()
}

// An application user that loses the right to read a table, or the members of lists, sees
// nobody there: nobody is taken out of a book for it, the message names right and table,
// and the runs go on when it is given back.
func TestPrivilegeTakenAway(t *testing.T) {
	t.Parallel()
	for _, privilege := range []string{"prvReadContact", "prvReadList", "prvReadLead", "prvWriteContact"} {
		t.Run(privilege, func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			contacts, leads := w.list("Contacts", "contact", lockstep.ActionRemove, ""), w.list("Leads", "lead", lockstep.ActionRemove, "")
			d := w.list("Everybody", "contact", lockstep.ActionIgnore, `<condition attribute="emailaddress1" operator="like" value="%@stage.example"/>`)
			ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
			w.join(contacts, ann, ben)
			w.join(leads, w.cast("lead", "lea@stage.example"))
			w.sync()
			w.sync()
			w.editContact("ann@stage.example", cols{"JOBTITLE": "Pilot"})
			w.signUp(w.book(contacts), "zoe@stage.example")
			client := w.ready.Dataverse.ClientID
			if err := w.twins.Dataverse.SetPrivilege(client, privilege, false); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
				told := run.Error + run.Hint
				for _, f := range w.findings(run) {
					told += f.Message + f.Hint
				}
				if !strings.Contains(told, privilege) {
					t.Errorf("the run is %s and does not name %s: %q (%v)", run.Status, privilege, told, err)
				}
				w.wantIn("without the right", d, "ann", "ben")
				w.wantIn("without the right", leads, "lea")
				if in := w.in(contacts); len(in) < 2 || in[0] != "ann" || in[1] != "ben" {
					t.Errorf("without the right: in the book of contacts are %v", in)
				}
			}
			if err := w.twins.Dataverse.SetPrivilege(client, privilege, true); err != nil {
				t.Fatal(err)
			}
			w.sync()
			w.sync()
			w.wantIn("with the right", contacts, "ann", "ben")
			if r := w.record("contact", ann, "jobtitle"); r.str("jobtitle") != "Pilot" {
				t.Errorf("what was edited meanwhile did not travel: %v", r)
			}
			w.quiet()
		})
	}
}
