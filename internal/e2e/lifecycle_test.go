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
)

// readdress changes a contact's address on the platform.
func (w *stage) readdress(id int64, email string) {
	w.t.Helper()
	w.mail("PATCH", fmt.Sprintf("/contacts/v3/contactId/%d", id), cols{"identifiers": cols{"contactId": id, "email": email}}, nil)
}

// byID reads a contact of the platform whatever its address is.
func (w *stage) byID(id int64) mailContact {
	w.t.Helper()
	var c mailContact
	w.mail("GET", fmt.Sprintf("/contacts/v3/contactId/%d", id), nil, &c)
	return c
}

// in lists who is in a list's address book, sorted, without the domain.
func (w *stage) in(l lockstep.ListSettings) []string {
	w.t.Helper()
	out := []string{}
	for email := range w.contacts(w.book(l)) {
		out = append(out, strings.TrimSuffix(email, "@stage.example"))
	}
	slices.Sort(out)
	return out
}

func (w *stage) wantIn(when string, l lockstep.ListSettings, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), w.in(l)); diff != "" {
		w.t.Errorf("%s: in the book of %s (-want +got):\n%s", when, l.Name, diff)
	}
}

// A changed address is a rename: the same contact, in the same lists, with the same
// preferences, in whichever system it was changed.
func TestCB26AChangedAddressIsARename(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	one, two := w.list("One", "contact", lockstep.ActionIgnore, ""), w.list("Two", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(one, ann, ben)
	w.join(two, ann, ben)
	w.sync()
	w.optOutOf(w.book(two), "ann@stage.example")
	w.sync()
	annID, benID := w.contact("ann@stage.example").ContactID, w.contact("ben@stage.example").ContactID
	w.editContact("ann@stage.example", cols{"GENDER": "F"}) // nobody maps it

	w.editRecord("contact", ann, cols{"emailaddress1": "Ann.New@Stage.example"})
	w.readdress(benID, "ben.new@stage.example")
	before := w.contacts("")
	w.sync()
	after := w.contacts("")
	if len(before) != len(after) {
		t.Errorf("%d contacts became %d", len(before), len(after))
	}
	if c := w.byID(annID); c.Identifiers.Email != "ann.new@stage.example" || c.DataFields["GENDER"] != "F" {
		t.Errorf("Ann's contact is %+v", c)
	}
	if r := w.record("contact", ben, "emailaddress1"); r.str("emailaddress1") != "ben.new@stage.example" {
		t.Errorf("Ben's record is %v", r)
	}
	if r := w.record("contact", ann, "emailaddress1"); r.str("emailaddress1") != "Ann.New@Stage.example" {
		t.Errorf("the spelling of Ann's address in the CRM was changed: %v", r)
	}
	w.wantIn("after the rename", one, "ann.new", "ben.new")
	w.wantIn("after the rename", two, "ben.new")
	w.quiet()

	w.optOut("ann.new@stage.example")
	w.editRecord("contact", ann, cols{"emailaddress1": "ann.third@stage.example"})
	w.sync()
	if c := w.byID(annID); c.Channel["email"]["status"] != "unsubscribed" {
		t.Errorf("the opt-out got lost with the old address: %+v", c)
	}
	if c, ok := w.contacts("")["ann.third@stage.example"]; ok && c.ContactID != annID {
		t.Errorf("a second contact was made for somebody who opted out: %+v", c)
	}
	w.wantIn("after the rename of an opted-out person", one, "ben.new")
	w.quiet()
}

// The address was changed on both sides: one wins, the other is kept, both agree.
func TestAddressChangedOnBothSides(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann)
	w.sync()
	id := w.contact("ann@stage.example").ContactID
	w.readdress(id, "ann.platform@stage.example")
	w.twins.Clock.Advance(5 * time.Second)
	w.editRecord("contact", ann, cols{"emailaddress1": "ann.crm@stage.example"})
	run := w.sync()
	if got, want := w.byID(id).Identifiers.Email, "ann.crm@stage.example"; got != want {
		t.Errorf("the platform has %s, want the later %s", got, want)
	}
	if got := w.record("contact", ann, "emailaddress1").str("emailaddress1"); got != "ann.crm@stage.example" {
		t.Errorf("the CRM has %s", got)
	}
	conflicts, err := w.app.Conflicts(t.Context(), app.ConflictFilter{Account: w.account.ID, Run: run.ID})
	if err != nil || len(conflicts) != 1 || conflicts[0].Platform.Text() != "ann.platform@stage.example" || conflicts[0].Winner != "crm" {
		t.Errorf("conflicts %+v, %v", conflicts, err)
	}
	w.quiet()
}

// The new address is one that the platform knows already, as somebody nobody in the
// CRM has: the record belongs to that contact from now on.
func TestAddressChangedToThatOfAnUnlinkedContact(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot"})
	w.join(l, ann)
	w.sync()
	w.mail("POST", "/v2/contacts", cols{"email": "other@stage.example"}, nil)
	old, other := w.contact("ann@stage.example").ContactID, w.contact("other@stage.example").ContactID
	w.editRecord("contact", ann, cols{"emailaddress1": "other@stage.example"})
	w.sync()
	w.sync()
	if c := w.byID(other); c.Identifiers.Email != "other@stage.example" || c.DataFields["JOBTITLE"] != "Pilot" {
		t.Errorf("the contact is %+v", c)
	}
	if c := w.byID(old); c.Identifiers.Email != "ann@stage.example" {
		t.Errorf("the former contact is %+v", c)
	}
	w.wantIn("afterwards", l, "other")
	w.quiet()
	w.editRecord("contact", ann, cols{"jobtitle": "Navigator"})
	w.sync()
	if c := w.byID(other); c.DataFields["JOBTITLE"] != "Navigator" {
		t.Errorf("an edit afterwards did not arrive: %+v", c)
	}
	if c := w.byID(old); c.DataFields["JOBTITLE"] != "Pilot" {
		t.Errorf("the former contact was written: %+v", c)
	}
	w.quiet()
}

// Without a usable address nobody is mailed; with one again the same contact is back.
func TestAddressClearedMalformedAndCorrected(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]any{"cleared": nil, "malformed": "ann at stage dot example"} {
		t.Run(name, func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionIgnore, "")
			ann := w.cast("contact", "ann@stage.example")
			w.join(l, ann, w.cast("contact", "ben@stage.example"))
			w.sync()
			id := w.contact("ann@stage.example").ContactID
			w.editRecord("contact", ann, cols{"emailaddress1": bad})
			run := w.sync()
			code := lockstep.FindingNoEmail
			if bad != nil {
				code = lockstep.FindingMalformedEmail
			}
			w.told(run, code, ann)
			w.wantIn("without an address", l, "ben")
			if c := w.byID(id); c.Identifiers.Email != "ann@stage.example" {
				t.Errorf("the contact is %+v", c)
			}
			if r := w.record("contact", ann, "emailaddress1"); r["emailaddress1"] != bad {
				t.Errorf("the record is %v", r)
			}
			w.quiet()
			w.editRecord("contact", ann, cols{"emailaddress1": "ann.b@stage.example"})
			w.sync()
			if c := w.byID(id); c.Identifiers.Email != "ann.b@stage.example" {
				t.Errorf("the contact is %+v", c)
			}
			w.wantIn("with an address again", l, "ann.b", "ben")
			w.quiet()
		})
	}
}

// A deleted record's contact leaves the lists and stays in the account.
func TestRecordDeleted(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionAllowKnown, "")
	d := w.list("Two", "contact", lockstep.ActionIgnore, `<condition attribute="lastname" operator="not-null"/><condition attribute="emailaddress1" operator="like" value="%stage.example"/>`)
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.crm("DELETE", "contacts("+ann+")", nil, nil)
	w.sync()
	w.wantIn("after the deletion", l, "ben")
	w.wantIn("after the deletion", d, "ben")
	if c := w.contact("ann@stage.example"); c.DataFields["LASTNAME"] != "ann" {
		t.Errorf("the contact is %+v", c)
	}
	w.quiet()
	again := w.cast("contact", "ann@stage.example", cols{"lastname": "Ann the second"})
	w.join(l, again)
	w.sync()
	w.wantIn("with a new record", l, "ann", "ben")
	if c := w.contact("ann@stage.example"); c.DataFields["LASTNAME"] != "Ann the second" {
		t.Errorf("the contact is %+v", c)
	}
	w.quiet()
}

func TestRecordDeactivatedAndReactivated(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionAllowKnown, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.editRecord("contact", ann, cols{"statecode": 1, "statuscode": 2})
	w.sync()
	w.wantIn("deactivated", l, "ben")
	w.quiet()
	w.editRecord("contact", ann, cols{"statecode": 0, "statuscode": 1})
	w.sync()
	w.wantIn("reactivated", l, "ann", "ben")
	w.quiet()
}

// Of two merged records the loser's contact leaves the lists, the survivor's stays;
// a survivor without a contact of its own takes over the loser's.
func TestRecordsMerged(t *testing.T) {
	t.Parallel()
	ref := func(id string) cols {
		return cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": id}
	}
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	loser, winner := w.cast("contact", "loser@stage.example"), w.cast("contact", "winner@stage.example")
	heirless, heir := w.cast("contact", "heirless@stage.example"), w.cast("contact", "", cols{"lastname": "heir"})
	w.join(l, loser, winner, heirless)
	w.sync()
	legacy := w.contact("heirless@stage.example").ContactID
	w.crm("POST", "Merge", cols{"Target": ref(winner), "Subordinate": ref(loser), "PerformParentingChecks": false}, nil)
	w.crm("POST", "Merge", cols{
		"Target": ref(heir), "Subordinate": ref(heirless), "PerformParentingChecks": false,
		"UpdateContent": cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "emailaddress1": "heirless@stage.example"},
	}, nil)
	w.join(l, heir)
	w.sync()
	w.wantIn("after the merge", l, "heirless", "winner")
	w.sync()
	if c := w.byID(legacy); c.DataFields["LASTNAME"] != "heir" {
		t.Errorf("the survivor does not speak for the contact: %+v", c)
	}
	w.wantIn("after the merge", l, "heirless", "winner")
	w.quiet()
	w.editRecord("contact", heir, cols{"address1_city": "Lagos"})
	w.sync()
	if c := w.byID(legacy); c.DataFields["CITY"] != "Lagos" {
		t.Errorf("an edit of the survivor did not arrive: %+v", c)
	}
	w.quiet()
}

// A qualified lead leaves the leads' list; the contact that it became has the same
// contact on the platform.
func TestLeadQualified(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	leads, contacts := w.list("Leads", "lead", lockstep.ActionIgnore, ""), w.list("Contacts", "contact", lockstep.ActionIgnore, "")
	lead := w.cast("lead", "lea@stage.example", cols{"firstname": "Lea", "jobtitle": "Buyer"})
	w.join(leads, lead, w.cast("lead", "leo@stage.example"))
	w.join(contacts, w.cast("contact", "ann@stage.example"))
	w.sync()
	id := w.contact("lea@stage.example").ContactID
	w.crm("POST", "leads("+lead+")/Microsoft.Dynamics.CRM.QualifyLead", cols{"CreateAccount": false, "CreateContact": true, "CreateOpportunity": false, "Status": 3}, nil)
	w.sync()
	w.wantIn("qualified", leads, "leo")
	var became string
	for k, r := range w.people("contact") {
		if r.str("emailaddress1") == "lea@stage.example" {
			became = k
		}
	}
	if became == "" {
		t.Fatal("the twin made no contact")
	}
	w.join(contacts, became)
	w.sync()
	w.wantIn("as a contact", contacts, "ann", "lea")
	w.wantIn("as a contact", leads, "leo")
	w.sync()
	w.quiet()
	w.editRecord("contact", became, cols{"jobtitle": "Customer"})
	w.sync()
	if c := w.contact("lea@stage.example"); c.ContactID != id || c.DataFields["JOBTITLE"] != "Customer" {
		t.Errorf("the contact is %+v, was %d", c, id)
	}
	w.quiet()
}

// Deleted on the platform: nobody is made anew from the CRM's copy, and somebody is
// told.
func TestContactDeletedOnThePlatform(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann, w.cast("contact", "ben@stage.example"))
	w.sync()
	w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", w.contact("ann@stage.example").ContactID), nil, nil)
	run := w.sync()
	w.wantIn("after the deletion", l, "ben")
	w.told(run, lockstep.FindingContactGone, ann)
	if _, there := w.contacts("")["ann@stage.example"]; there {
		t.Error("the contact was made again")
	}
	if r := w.record("contact", ann, "statecode,emailaddress1"); r.str("statecode") != "0" || r.str("emailaddress1") != "ann@stage.example" {
		t.Errorf("the record is %v", r)
	}
	w.quiet()
	w.editRecord("contact", ann, cols{"jobtitle": "Edited"})
	w.sync()
	if _, there := w.contacts("")["ann@stage.example"]; there {
		t.Error("the contact was made again after an edit of the record")
	}
	w.quiet()
}
