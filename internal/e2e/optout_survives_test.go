package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// optedOut are people who opted out, each on one side, and what became of them since.
type optedOut struct {
	*stage
	readers, leads lockstep.ListSettings
	people         []*refuser
}

type refuser struct {
	what, side string
	table, id  string
	emails     []string // all that the person ever had
}

var refusals = []string{"platform", "crm bulk", "crm all"}

func newOptedOut(t *testing.T) *optedOut {
	t.Helper()
	w := newStage(t)
	s := &optedOut{stage: w, readers: w.list("Readers", "contact", lockstep.ActionIgnore, ""), leads: w.list("Prospects", "lead", lockstep.ActionIgnore, "")}
	for i := range 8 { // they stay, so that no guard has a reason to hold anything back
		w.join(s.readers, w.cast("contact", fmt.Sprintf("stays%d@stage.example", i)))
	}
	return s
}

// person makes somebody for each side on which one can opt out.
func (s *optedOut) person(what, table string, each func(*refuser)) {
	s.t.Helper()
	for _, side := range refusals {
		email := strings.ReplaceAll(what+"."+side, " ", "-") + "@stage.example"
		p := &refuser{what: what, side: side, table: table, emails: []string{email}, id: s.cast(table, email)}
		if table == "lead" {
			s.join(s.leads, p.id)
		} else {
			s.join(s.readers, p.id)
		}
		s.people = append(s.people, p)
		if each != nil {
			each(p)
		}
	}
}

// lanes lets everything run until nothing should be left to do.
func (s *optedOut) lanes() {
	s.t.Helper()
	for range 2 {
		s.run(lockstep.SyncSuppressions)
		s.run(lockstep.SyncUnsubscribes)
		s.sync()
	}
}

// refuse has everybody opt out.
func (s *optedOut) refuse() {
	s.t.Helper()
	s.lanes()
	for _, p := range s.people {
		if _, in := s.bookOf(p)[p.emails[0]]; !in {
			s.t.Fatalf("%s %s was never in the book", p.what, p.side)
		}
	}
	s.twins.Clock.Advance(time.Minute)
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
	s.stayOut("at first")
	s.twins.Clock.Advance(time.Minute)
}

func (s *optedOut) bookOf(p *refuser) map[string]mailContact {
	if p.table == "lead" {
		return s.contacts(s.book(s.leads))
	}
	return s.contacts(s.book(s.readers))
}

// stayOut checks that none of them is in an address book, and that the platform mails
// none of those who opted out there.
func (s *optedOut) stayOut(when string) {
	s.t.Helper()
	all := s.contacts("")
	for _, l := range []lockstep.ListSettings{s.readers, s.leads} {
		in := s.contacts(s.book(l))
		for _, p := range s.people {
			for _, email := range p.emails {
				if _, there := in[email]; there {
					s.t.Errorf("%s: %s, opted out on side %s, is in %s as %s", when, p.what, p.side, l.Name, email)
				}
				if c, known := all[email]; known && p.side == "platform" && c.Channel["email"]["status"] == "subscribed" {
					s.t.Errorf("%s: %s, opted out on side %s, is subscribed as %s", when, p.what, p.side, email)
				}
			}
		}
	}
	if n := len(s.contacts(s.book(s.readers))); n < 8 {
		s.t.Errorf("%s: only %d are left in the book", when, n)
	}
}

// An opt-out stays one, whichever side it was said on, when the record gets another
// address, is merged, qualified, deleted and made again, or comes once more from a
// file on either side. A CRM user's flag restricts the record's address books and goes
// with the record, unless the account's policy is that it closes the address.
func TestOptedOutStaysOut(t *testing.T) {
	t.Parallel()
	for _, policy := range []lockstep.BulkOptOut{lockstep.BulkListRemoval, lockstep.BulkSuppress} {
		t.Run(string(policy), func(t *testing.T) { optedOutStaysOut(t, policy) })
	}
}

func optedOutStaysOut(t *testing.T, policy lockstep.BulkOptOut) {
	s := newOptedOut(t)
	many := 100 // opt out here at a time
	if _, err := s.app.UpdateAccount(t.Context(), s.account.ID, app.AccountPatch{BulkOptOut: &policy, Guards: app.GuardPatch{Floor: &many}}); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"readdressed", "readdressed there", "survivor", "heir", "again", "imported", "imported there", "copied"} {
		s.person(what, "contact", nil)
	}
	s.person("qualified", "lead", nil)
	s.refuse()
	ref := func(id string) cols {
		return cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": id}
	}
	for _, p := range s.people {
		if (p.what == "heir" || p.what == "again") && p.side != "platform" && policy != lockstep.BulkSuppress {
			continue
		}
		email := p.emails[0]
		fresh := strings.Replace(email, "@", ".new@", 1)
		switch p.what {
		case "readdressed":
			s.editRecord("contact", p.id, cols{"emailaddress1": fresh})
			p.emails = append(p.emails, fresh)
		case "readdressed there":
			s.readdress(s.contact(email).ContactID, fresh)
			p.emails = append(p.emails, fresh)
		case "survivor": // absorbs a record of somebody who never opted out
			other := s.cast("contact", fresh)
			s.join(s.readers, other)
			s.crm("POST", "Merge", cols{"Target": ref(p.id), "Subordinate": ref(other), "PerformParentingChecks": false}, nil)
			p.emails = append(p.emails, fresh)
		case "heir": // is absorbed by a record that takes over the address
			heir := s.cast("contact", "", cols{"lastname": "heir of " + email})
			s.join(s.readers, heir)
			s.crm("POST", "Merge", cols{
				"Target": ref(heir), "Subordinate": ref(p.id), "PerformParentingChecks": false,
				"UpdateContent": cols{"@odata.type": "Microsoft.Dynamics.CRM.contact", "emailaddress1": email},
			}, nil)
		case "again":
			s.crm("DELETE", "contacts("+p.id+")", nil, nil)
			s.lanes()
			s.join(s.readers, s.cast("contact", email))
		case "imported": // a file into the CRM has a row for somebody who is there already
			s.join(s.readers, s.cast("contact", strings.ToUpper(email), cols{"lastname": "from a file", "donotbulkemail": false}))
		case "imported there":
			if p.side == "platform" || policy == lockstep.BulkSuppress {
				continue // the platform refuses to
			}
			s.mail("POST", "/v2/address-books/"+s.book(s.readers)+"/contacts", cols{"email": email, "optInType": "Single", "emailType": "Html"}, nil)
		case "copied": // the same person as a lead
			s.join(s.leads, s.cast("lead", email))
		case "qualified":
			s.crm("POST", "leads("+p.id+")/Microsoft.Dynamics.CRM.QualifyLead", cols{"CreateAccount": false, "CreateContact": true, "CreateOpportunity": false, "Status": 3}, nil)
			for id, r := range s.world.people("contact") {
				if r.str("emailaddress1") == email {
					s.join(s.readers, id)
				}
			}
		}
	}
	s.lanes()
	s.stayOut("afterwards")
	s.quiet()
}

// copyFolder copies a data folder, the mark of its place with it.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// An opt-out stays one when Lockstep itself is set back to a backup from before it,
// when it is installed anew against the same two systems, and when the organization is
// set back to a backup.
func TestOptedOutStaysOutAfterARestore(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"backup of Lockstep", "fresh install", "backup of the organization"} {
		t.Run(what, func(t *testing.T) {
			s := newOptedOut(t)
			s.person("contact", "contact", nil)
			s.person("lead", "lead", nil)
			s.lanes()
			backup := t.TempDir()
			if err := s.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			copyFolder(t, s.cfg.DataDir, backup)
			s.open()
			written := s.crmWrites.Load()
			s.refuse()
			written = s.crmWrites.Load() - written
			books := [2]lockstep.BookID{lockstep.BookID(s.book(s.readers)), lockstep.BookID(s.book(s.leads))}
			// So that everybody is looked at again.
			touch := func() {
				for _, p := range s.people {
					s.editRecord(p.table, p.id, cols{"jobtitle": "Edited after the " + what})
				}
			}
			switch what {
			case "backup of Lockstep":
				if err := s.app.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.twins.Clock.Advance(30 * 24 * time.Hour)
				copyFolder(t, backup, s.cfg.DataDir)
				s.open()
				touch()
			case "fresh install":
				if err := s.app.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.again(books)
				touch()
			case "backup of the organization":
				args := json.RawMessage(fmt.Sprintf(`{"writes":%d}`, written))
				if err := s.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "env-restore", Operation: "whoami", Count: 1, Args: args}); err != nil {
					t.Fatal(err)
				}
				s.crm("GET", "WhoAmI", nil, nil)
				if n := len(s.closed()); n != 0 {
					t.Fatalf("%d records are closed after the organization was set back", n)
				}
				s.guardedRun(lockstep.SyncMarketingLists, wasSetBack)
				if _, err := s.app.UnlockAccount(t.Context(), s.account.ID, "Kim", "the backup was restored on purpose"); err != nil {
					t.Fatal(err)
				}
			}
			s.lanes()
			s.stayOut("after the " + what)
			if what == "backup of the organization" {
				touch() // by somebody who knows nothing of opt-outs
				s.lanes()
				s.stayOut("edited after the " + what)
			}
			s.quiet()
		})
	}
}

// again installs the product anew against the same two systems.
func (s *optedOut) again(books [2]lockstep.BookID) {
	s.t.Helper()
	s.cfg.DataDir = s.t.TempDir()
	s.open()
	org, err := s.app.ConnectOrganization(s.t.Context(), "", "Sample", "dynamics", s.crmSettings())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.account, err = s.app.ConnectAccount(s.t.Context(), "", org.ID, "Marketing", "dotdigital", s.mailSettings()); err != nil {
		s.t.Fatal(err)
	}
	no, yes, action := false, true, lockstep.ActionIgnore
	if s.account, err = s.app.UpdateAccount(s.t.Context(), s.account.ID, app.AccountPatch{Guards: app.GuardPatch{ConfirmChanges: &no}}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.app.Provision(s.t.Context(), s.account.ID); err != nil {
		s.t.Fatal(err)
	}
	s.mapFields()
	for i, l := range []*lockstep.ListSettings{&s.readers, &s.leads} {
		known, err := s.app.List(s.t.Context(), s.account.ID, l.CRMID.String())
		if err != nil {
			s.t.Fatal(err)
		}
		*l = s.patchList(known, app.ListPatch{Activated: &yes, MembershipAction: &action, Book: &books[i]})
	}
}
