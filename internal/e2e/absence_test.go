package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// Lockstep is off for eight days, longer than the CRM remembers what it deleted, while
// records are deleted, merged and edited and people opt out on both sides. Then it is on
// again: everybody who is gone or refuses is out of the books, nobody else is, and what
// was edited has arrived.
func TestEightDaysOff(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	many := 100
	w.guards(app.GuardPatch{Floor: &many})
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	ids := w.crowd(60)
	w.join(l, ids...)
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.run(lockstep.SyncUnsubscribes)
	w.sync()
	book := w.book(l)
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	email := func(i int) string { return fmt.Sprintf("p%03d@stage.example", i) }
	gone := map[int]bool{}
	for i := range 15 {
		w.crm("DELETE", "contacts("+ids[i]+")", nil, nil)
		gone[i] = true
	}
	for i := 15; i < 20; i++ {
		w.optOut(email(i))
		gone[i] = true
	}
	for i := 20; i < 25; i++ {
		w.editRecord("contact", ids[i], cols{"donotbulkemail": true})
		gone[i] = true
	}
	for i := 25; i < 30; i++ {
		w.merge(ids[i+5], ids[i])
		gone[i] = true
	}
	w.optOutOf(book, email(35))
	gone[35] = true
	w.editRecord("contact", ids[40], cols{"address1_city": "Linz"})
	w.editContact(email(41), cols{"JOBTITLE": "Boss"})
	w.twins.Clock.Advance(8 * 24 * time.Hour)
	w.editRecord("contact", ids[42], cols{"address1_city": "Wels"})
	w.open()
	w.sync()
	w.run(lockstep.SyncSuppressions)
	w.run(lockstep.SyncUnsubscribes)
	w.sync()
	var want []string
	for i := range ids {
		if !gone[i] {
			want = append(want, fmt.Sprintf("p%03d", i))
		}
	}
	w.wantIn("on again", l, want...)
	closed := w.closed()
	for i := 15; i < 20; i++ {
		if !slices.Contains(closed, "contact "+email(i)) {
			t.Errorf("%s opted out on the platform, and the record does not say so", email(i))
		}
	}
	for i, city := range map[int]string{40: "Linz", 42: "Wels", 43: "Graz"} {
		if got := w.field(email(i), "CITY"); got != city {
			t.Errorf("%s lives in %v, want %s", email(i), got, city)
		}
	}
	if r := w.record("contact", ids[41], "jobtitle"); r.str("jobtitle") != "Boss" {
		t.Errorf("an edit on the platform did not arrive: %v", r)
	}
	w.quiet()
}

// Who opted out and whose record was deactivated meanwhile is not let in again by its
// being activated.
func TestReactivatedRecordOfSomebodyWhoOptedOut(t *testing.T) {
	t.Parallel()
	s := newOptedOut(t)
	s.person("reactivated", "contact", nil)
	s.person("reactivated unheard", "contact", nil)
	s.lanes()
	for _, p := range s.people {
		if p.what == "reactivated unheard" { // inactive before it was said
			s.editRecord("contact", p.id, cols{"statecode": 1, "statuscode": 2})
		}
	}
	s.sync()
	for _, p := range s.people {
		switch p.side {
		case "platform":
			s.optOut(p.emails[0])
		case "crm bulk":
			s.editRecord(p.table, p.id, cols{"donotbulkemail": true})
		case "crm all":
			s.editRecord(p.table, p.id, cols{"donotemail": true})
		}
	}
	s.lanes()
	for _, p := range s.people {
		s.editRecord("contact", p.id, cols{"statecode": 1, "statuscode": 2})
	}
	s.lanes()
	for _, p := range s.people {
		s.editRecord("contact", p.id, cols{"statecode": 0, "statuscode": 1})
	}
	s.lanes()
	s.stayOut("active again")
	s.quiet()
}

// A record is deleted and one is made anew under the same id, which an upsert may do: it is
// somebody new, the opt-out of its address still holds, and one with another address has a
// contact of its own.
func TestRecordMadeAgainUnderItsID(t *testing.T) {
	t.Parallel()
	for _, seen := range []bool{true, false} {
		t.Run(fmt.Sprintf("the deletion was seen %t", seen), func(t *testing.T) {
			t.Parallel()
			w := newStage(t)
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			ann, ben, cleo := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot"}), w.cast("contact", "ben@stage.example", cols{"jobtitle": "Baker"}), w.cast("contact", "cleo@stage.example")
			w.join(l, ann, ben, cleo)
			w.sync()
			w.optOut("ann@stage.example")
			w.run(lockstep.SyncSuppressions)
			w.sync()
			for _, id := range []string{ann, ben} {
				w.crm("DELETE", "contacts("+id+")", nil, nil)
			}
			if seen {
				w.sync()
				w.wantIn("deleted", l, "cleo")
			}
			w.crm("POST", "contacts", cols{"contactid": ann, "lastname": "ann", "emailaddress1": "ann@stage.example"}, nil)
			w.crm("POST", "contacts", cols{"contactid": ben, "lastname": "bert", "emailaddress1": "bert@stage.example"}, nil)
			w.join(l, ann, ben)
			for range 2 {
				w.sync()
				w.run(lockstep.SyncSuppressions)
			}
			w.wantIn("made again", l, "bert", "cleo")
			if got := w.closed(); !slices.Contains(got, "contact ann@stage.example") {
				t.Errorf("closed: %v", got)
			}
			if c := w.contact("bert@stage.example"); c.DataFields["LASTNAME"] != "bert" || c.DataFields["JOBTITLE"] != nil {
				t.Errorf("the new contact is %v", c.DataFields)
			}
			w.quiet()
		})
	}
}

// Rows with addresses that cannot be mailed are told one by one and keep nobody else back.
// What only looks odd is mailed.
func TestAddressesOfAllKinds(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
	good := map[string]string{
		"info@stage.example": "info", "plus+tag@stage.example": "plus+tag", "o'neill@stage.example": "o'neill",
		strings.Repeat("l", 64) + "@stage.example": strings.Repeat("l", 64),
	}
	good["\t padded@stage.example "] = "padded"
	var want []string
	for address, name := range good {
		w.join(l, w.cast("contact", address, cols{"lastname": "good"}))
		want = append(want, name)
	}
	slices.Sort(want)
	bad := map[string]string{}
	for _, address := range []string{"full＠stage.example", "two@at@stage.example", "no.domain@", "@stage.example", "blank space@stage.example", "dot..dot@stage.example", strings.Repeat("x", 85) + "@stage.example"} {
		id := w.cast("contact", address, cols{"lastname": "bad"})
		w.join(l, id)
		bad[id] = address
	}
	run := w.sync()
	for id, address := range bad {
		told := slices.ContainsFunc(w.findings(run), func(f lockstep.Finding) bool { return f.Record.String() == id })
		if !told {
			t.Errorf("nobody was told of %q", address)
		}
	}
	w.wantIn("afterwards", l, want...)
	w.quiet()
}

// Three leads and an account with one address are one contact with one speaker. All are
// remembered: whoever of them is edited, refuses or leaves, the contact has the data of
// one and the strictest word of all.
func TestSharedAddressOfFour(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	leads, accounts := w.list("Leads", "lead", lockstep.ActionIgnore, ""), w.list("Accounts", "account", lockstep.ActionIgnore, "")
	type one struct{ table, id string }
	var all []one
	for i := range 4 {
		p := one{"lead", ""}
		if i == 3 {
			p.table = "account"
		}
		p.id = w.cast(p.table, "all@stage.example", cols{"address1_city": fmt.Sprint("City ", i)})
		all = append(all, p)
		if p.table == "lead" {
			w.join(leads, p.id)
		} else {
			w.join(accounts, p.id)
		}
		w.twins.Clock.Advance(2 * time.Second)
	}
	w.join(leads, w.cast("lead", "other@stage.example"))
	w.join(accounts, w.cast("account", "else@stage.example"))
	run := w.sync()
	w.told(run, lockstep.FindingDuplicate, "")
	w.wantIn("at first", leads, "all", "other")
	w.wantIn("at first", accounts, "all", "else")
	w.quiet()
	speaker := w.field("all@stage.example", "CITY")
	for round := range 2 {
		for i, p := range all {
			w.twins.Clock.Advance(2 * time.Second)
			city := fmt.Sprintf("Edit %d of %d", round, i)
			before := w.field("all@stage.example", "CITY")
			rows := w.crmWrites.Load() + 1
			was := w.record(p.table, p.id, "address1_city").str("address1_city")
			w.editRecord(p.table, p.id, cols{"address1_city": city})
			want := before
			if was == speaker {
				want, speaker = city, city
			}
			w.sync()
			if got := w.field("all@stage.example", "CITY"); got != want {
				t.Errorf("the %s %d was edited: the platform has %q, want %q", p.table, i, got, want)
			}
			if n := w.crmWrites.Load() - rows; n != 0 {
				t.Errorf("the %s %d was edited: %d other rows were written", p.table, i, n)
			}
		}
	}
	for i, p := range all {
		w.editRecord(p.table, p.id, cols{"donotbulkemail": true})
		w.sync()
		w.wantIn(fmt.Sprintf("the %s %d refuses", p.table, i), leads, "other")
		w.wantIn(fmt.Sprintf("the %s %d refuses", p.table, i), accounts, "else")
		w.editRecord(p.table, p.id, cols{"donotbulkemail": false})
		w.sync()
		w.wantIn(fmt.Sprintf("the %s %d allows it again", p.table, i), leads, "all", "other")
		w.wantIn(fmt.Sprintf("the %s %d allows it again", p.table, i), accounts, "all", "else")
	}
	w.quiet()
}
