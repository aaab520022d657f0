package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// restoredStage is a company whose CRM is about to be set back: the last writes there are
// users' and the product's own.
type restoredStage struct {
	*stage
	list                 lockstep.ListSettings
	ann, ben, cleo, dora string
	written              int64 // in the CRM since the backup
}

func newRestored(t *testing.T) *restoredStage {
	s := &restoredStage{stage: newStage(t)}
	s.list = s.stage.list("Readers", "contact", lockstep.ActionIgnore, "")
	s.ann = s.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot", "address1_city": "Oslo"})
	s.ben = s.cast("contact", "ben@stage.example", cols{"jobtitle": "Baker"})
	s.cleo = s.cast("contact", "cleo@stage.example", cols{"jobtitle": "Cook"})
	s.dora = s.cast("contact", "dora@stage.example")
	s.join(s.list, s.ann, s.ben, s.cleo, s.dora)
	s.sync()
	s.sync()
	before := s.crmWrites.Load() // the backup
	for _, city := range []string{"Drammen", "Voss", "Odda", "Bergen"} {
		s.editRecord("contact", s.ann, cols{"address1_city": city})
	}
	s.editContact("ben@stage.example", cols{"JOBTITLE": "Confectioner"})
	s.sync()
	s.sync()
	s.written = s.crmWrites.Load() - before
	if s.field("ann@stage.example", "CITY") != "Bergen" || s.record("contact", s.ben, "jobtitle").str("jobtitle") != "Confectioner" {
		t.Fatal("the edits did not arrive")
	}
	return s
}

// setBack restores the backup.
func (s *restoredStage) setBack() {
	s.t.Helper()
	if n := s.twins.Dataverse.Restore(int(s.written)); n != int(s.written) || s.record("contact", s.ann, "address1_city").str("address1_city") != "Oslo" {
		s.t.Fatalf("%d writes were taken back", n)
	}
	s.resetCalls()
	s.written = s.crmWrites.Load()
}

// untouched checks that the product has written nothing since the backup was restored.
func (s *restoredStage) untouched(when string) {
	s.t.Helper()
	if n := s.crmWrites.Load() - s.written; n != 0 || writes(s.calls("dotdigital")) != 0 {
		s.t.Errorf("%s: %d rows were written in the CRM, and on the platform %v", when, n, s.calls("dotdigital"))
	}
}

func (s *restoredStage) locked() string {
	s.t.Helper()
	acc, err := s.app.Account(s.t.Context(), s.account.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return acc.Locked
}

// agrees checks that both sides say the same of everybody.
func (s *restoredStage) agrees() {
	s.t.Helper()
	people := s.people("contact")
	for id, who := range map[string]string{s.ann: "ann", s.ben: "ben", s.cleo: "cleo"} {
		for column, label := range map[string]string{"jobtitle": "JOBTITLE", "address1_city": "CITY", "telephone1": "PHONE"} {
			if crm, mail := people[id].str(column), rec(s.contact(who+"@stage.example").DataFields).str(label); crm != mail {
				s.t.Errorf("%s of %s is %q in the CRM and %q on the platform", column, who, crm, mail)
			}
		}
	}
}

const wasSetBack = "the organization was set back to an earlier state"

// A CRM that was set back to a backup is noticed before anything is written, whatever
// comes first in the run. The account is locked, opt-outs are still heard, and once a
// person has unlocked it everybody is compared and both sides agree.
func TestRestoredCRMLocksBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(*restoredStage){
		"nothing happened":           func(*restoredStage) {},
		"an edit on the platform":    func(s *restoredStage) { s.editContact("ann@stage.example", cols{"PHONE": "12"}) },
		"an edit in the CRM":         func(s *restoredStage) { s.editRecord("contact", s.ann, cols{"telephone1": "12"}) },
		"another list":               func(s *restoredStage) { s.stage.list("Others", "contact", lockstep.ActionIgnore, "") },
		"somebody joins the list":    func(s *restoredStage) { s.join(s.list, s.cast("contact", "emil@stage.example")) },
		"somebody leaves the list":   func(s *restoredStage) { s.quit(s.list, s.dora) },
		"an opt-out in the CRM":      func(s *restoredStage) { s.editRecord("contact", s.ann, cols{"donotbulkemail": true}) },
		"an opt-out on the platform": func(s *restoredStage) { s.optOut("ann@stage.example") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRestored(t)
			s.setBack()
			act(s)
			s.resetCalls()
			s.written = s.crmWrites.Load()
			s.guardedRun(lockstep.SyncMarketingLists, wasSetBack)
			s.untouched("the run that noticed it")
			if why := s.locked(); !strings.Contains(why, wasSetBack) {
				t.Fatalf("the account is locked because of %q", why)
			}
			s.optOut("cleo@stage.example")
			s.resetCalls()
			s.guardedRun(lockstep.SyncMarketingLists, "the account is locked", wasSetBack)
			if run := s.run(lockstep.SyncSuppressions); run.Counts.OptOutsSeen == 0 {
				t.Errorf("opt-outs are not heard: %+v", run.Counts)
			}
			s.untouched("while it is locked")
			if _, err := s.app.UnlockAccount(t.Context(), s.account.ID, "Kim", "the backup was restored on purpose"); err != nil {
				t.Fatal(err)
			}
			s.run(lockstep.SyncSuppressions)
			s.sync()
			s.sync()
			s.agrees()
			if s.record("contact", s.cleo, "donotbulkemail")["donotbulkemail"] != true {
				t.Error("the opt-out that was heard while it was locked is not in the CRM")
			}
			if why := s.locked(); why != "" {
				t.Errorf("locked again: %s", why)
			}
			s.quiet()
		})
	}
}

// A preview and a run of the address books notice it as well.
func TestRestoredCRMIsNoticedByEveryRunOfLists(t *testing.T) {
	t.Parallel()
	for _, r := range []app.RunRequest{
		{Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview},
		{Type: lockstep.SyncAddressBooksIn},
	} {
		t.Run(fmt.Sprint(r.Type, " ", r.Mode), func(t *testing.T) {
			t.Parallel()
			s := newRestored(t)
			s.setBack()
			s.editContact("ann@stage.example", cols{"PHONE": "12"})
			s.resetCalls()
			r.Account = s.account.ID
			run, err := s.app.RunToEnd(t.Context(), r)
			if lockstep.CodeOf(err) != lockstep.CodeGuarded || !strings.Contains(run.Error, wasSetBack) {
				t.Errorf("%s %q %v", run.Status, run.Error, err)
			}
			s.untouched("the run")
			if s.locked() == "" {
				t.Error("the account is not locked")
			}
		})
	}
}

// Where more was changed after the backup was restored than before it, the count of
// changes proves nothing; a list that is older than it was does.
func TestRestoredCRMIsKnownByItsLists(t *testing.T) {
	t.Parallel()
	s := newRestored(t)
	before := s.crmWrites.Load()
	s.crm("PATCH", "lists("+s.list.CRMID.String()+")", cols{"description": "of the newsletter"}, nil)
	s.sync()
	s.written += s.crmWrites.Load() - before
	s.setBack()
	for n := range 30 {
		s.editRecord("contact", s.cleo, cols{"jobtitle": fmt.Sprint("Cook ", n)})
	}
	s.editContact("ann@stage.example", cols{"PHONE": "12"})
	s.resetCalls()
	s.written = s.crmWrites.Load()
	s.guardedRun(lockstep.SyncMarketingLists, wasSetBack, "Readers")
	s.untouched("the run that noticed it")
	if _, err := s.app.UnlockAccount(t.Context(), s.account.ID, "Kim", "looked at"); err != nil {
		t.Fatal(err)
	}
	s.sync()
	s.sync()
	s.agrees()
	s.quiet()
}

// Where nothing proves it, what the records say is compared, and both sides agree.
func TestRestoredCRMThatCannotBeProven(t *testing.T) {
	t.Parallel()
	s := newRestored(t)
	s.setBack()
	for n := range 30 {
		s.editRecord("contact", s.cleo, cols{"jobtitle": fmt.Sprint("Cook ", n)})
	}
	s.sync()
	s.sync()
	if why := s.locked(); why != "" {
		t.Errorf("locked: %s", why)
	}
	if got := s.field("cleo@stage.example", "JOBTITLE"); got != "Cook 29" {
		t.Errorf("an edit made after it did not arrive: %q", got)
	}
}

// A run that writes before it reads the CRM's feed asks once whether the CRM was set
// back; one that writes nothing, or what the feed told of, asks nothing more.
func TestAskingWhetherTheCRMWasRestored(t *testing.T) {
	t.Parallel()
	s := newRestored(t)
	calls := func() (n int64) {
		s.t.Helper()
		s.resetCalls()
		s.sync()
		for _, k := range s.calls("dataverse") {
			n += k
		}
		return n
	}
	idle := calls()
	s.editRecord("contact", s.ann, cols{"address1_city": "Graz"})
	if n := calls(); n != idle {
		t.Errorf("an edit in the CRM costs %d calls to it, an idle run %d", n, idle)
	}
	calls()
	s.editContact("ann@stage.example", cols{"PHONE": "12"})
	s.resetCalls()
	s.sync()
	if n := s.calls("dataverse")["contact.delta"]; n != 2 {
		t.Errorf("an edit on the platform costs %d looks at the feed: %v", n, s.calls("dataverse"))
	}
}
