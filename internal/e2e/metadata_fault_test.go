package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// The CRM's metadata changes while a run reads. What has nothing to do with it goes
// on; nothing on the platform is blanked; a run that cannot go on says so.
func TestMetadataChangesDuringARun(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		`{"table":"contact","column":"jobtitle","change":"remove"}`,
		`{"table":"contact","column":"jobtitle","change":"rename","to":"new_occupation"}`,
		`{"table":"contact","column":"jobtitle","change":"max-length","max_length":3}`,
		`{"table":"contact","column":"preferredcontactmethodcode","change":"option-remove","option":3}`,
		`{"table":"contact","column":"preferredcontactmethodcode","change":"option-relabel","option":3,"to":"Telephone"}`,
		`{"table":"contact","change":"tracking-off"}`,
	} {
		for _, at := range []string{"list.read", "contact.delta", "batch"} {
			t.Run(at+" "+args, func(t *testing.T) {
				t.Parallel()
				w := newStage(t)
				l := w.list("One", "contact", lockstep.ActionIgnore, "")
				ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot", "address1_city": "Oslo", "preferredcontactmethodcode": 3})
				ben := w.cast("contact", "ben@stage.example", cols{"jobtitle": "Baker", "preferredcontactmethodcode": 3})
				cleo := w.cast("contact", "cleo@stage.example", cols{"jobtitle": "Cook"})
				w.join(l, ann, ben, cleo)
				w.sync()
				w.sync()
				w.crm("PATCH", "contacts("+ann+")", cols{"address1_city": "Bergen"}, nil)
				w.editContact("ben@stage.example", cols{"PHONE": "+47 55 100 200"})
				w.editContact("cleo@stage.example", cols{"JOBTITLE": "Chef de cuisine", "FIRSTNAME": "Cleo"})
				if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "metadata-change", Operation: at, Count: 1, Args: json.RawMessage(args)}); err != nil {
					t.Fatal(err)
				}
				run, err := w.app.StartRun(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
				if err != nil {
					t.Fatal(err)
				}
				if run, err = w.app.Wait(t.Context(), run.ID); err != nil && (run.Status != lockstep.RunFailed || run.Error == "") {
					t.Fatal(err)
				}
				addsUp(t, run)
				w.twins.Faults.Clear()
				w.run(lockstep.SyncCRMMetadata)
				w.sync()
				w.sync()
				if c := w.contact("ann@stage.example"); c.DataFields["CITY"] != "Bergen" || c.DataFields["JOBTITLE"] != "Pilot" || c.DataFields["METHOD"] == nil {
					t.Errorf("ann is %v", c.DataFields)
				}
				if c := w.contact("ben@stage.example"); c.DataFields["JOBTITLE"] != "Baker" || c.DataFields["METHOD"] == nil {
					t.Errorf("ben is %v", c.DataFields)
				}
				if r := w.record("contact", ben, "telephone1"); r.str("telephone1") != "+47 55 100 200" {
					t.Errorf("ben's record is %v", r)
				}
				if r := w.record("contact", cleo, "firstname"); r.str("firstname") != "Cleo" {
					t.Errorf("cleo's record is %v", r)
				}
				// Changes of the CRM are still seen, by whatever means are left.
				w.crm("PATCH", "contacts("+ann+")", cols{"address1_city": "Tromsø"}, nil)
				w.sync()
				if got := w.field("ann@stage.example", "CITY"); got != "Tromsø" {
					t.Errorf("afterwards an edit of the CRM does not arrive: %q", got)
				}
				w.sync()
				w.resetCalls()
				if run := w.sync(); run.Counts.Written != 0 || writes(w.calls("dotdigital")) != 0 {
					t.Errorf("not quiet: %+v", run.Counts)
				}
			})
		}
	}
}

// An administrator restores a backup of the organization while a run reads: the account
// is locked, and once a person has looked, everybody is compared. What
// vanished is not created again from the platform's copy, nothing is there twice, and
// both sides agree afterwards.
func TestEnvironmentRestored(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"whoami", "list.read", "contact.delta", "contact.read"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			s.edit()
			s.sync()
			s.edit()
			before := len(s.people("contact"))
			if err := s.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "env-restore", Operation: at, Count: 1, Args: json.RawMessage(`{"writes":40}`)}); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				s.attempt()
			}
			s.twins.Faults.Clear()
			if acc, err := s.app.Account(t.Context(), s.account.ID); err != nil || !strings.Contains(acc.Locked, wasSetBack) {
				t.Errorf("the account is locked because of %q: %v", acc.Locked, err)
			}
			if _, err := s.app.UnlockAccount(t.Context(), s.account.ID, "Kim", "the backup was restored on purpose"); err != nil {
				t.Fatal(err)
			}
			s.sync()
			times := map[string]int{}
			for _, r := range s.people("contact") {
				times[lockstep.NormalizeEmail(r.str("emailaddress1"))]++
			}
			for _, e := range s.arrivals {
				if times[e] > 1 {
					t.Errorf("%s is in the CRM %d times", e, times[e])
				}
			}
			if n := len(s.people("contact")); n > before+1 {
				t.Errorf("the CRM had %d contacts and has %d", before, n)
			}
			for i, c := range map[int]crmColumn{0: {"address1_city", "CITY"}, 1: {"jobtitle", "JOBTITLE"}} {
				if crm, mail := s.record("contact", s.members[i], c.column).str(c.column), rec(s.contact(s.emails[i]).DataFields).str(c.label); crm != mail {
					t.Errorf("%s is %q in the CRM and %q on the platform", c.label, crm, mail)
				}
			}
			// What is edited after the restore is not taken for something old.
			s.editRecord("contact", s.members[0], cols{"address1_city": "Restored"})
			s.sync()
			if got := s.contact(s.emails[0]).DataFields["CITY"]; got != "Restored" {
				t.Errorf("an edit after the restore was lost: %v", got)
			}
			s.silent("after the restore")
		})
	}
}

// An import that never ends is waited for and not sent again; after six hours what
// became of it is read back, and the run ends as if nothing had been.
func TestImportThatNeverEnds(t *testing.T) {
	t.Parallel()
	h := newHaste()
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep}}
	o.twins.Clock = h.Clock
	undisturbed := reference(t, o)
	undisturbed.sync()
	undisturbed.sync()
	want := undisturbed.bothSides()

	h = newHaste()
	o = worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep}}
	o.twins.Clock = h.Clock
	w := reference(t, o)
	ctx := t.Context()
	if err := w.app.Close(ctx); err != nil {
		t.Fatal(err)
	}
	keys, err := secret.Load("", w.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(ctx, store.Options{Path: w.cfg.DataDir, Sealer: keys})
	if err != nil {
		t.Fatal(err)
	}
	var run lockstep.Run
	err = st.InTx(ctx, func(tx store.Tx) (err error) {
		run, err = st.CreateRunIn(ctx, tx, lockstep.Run{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModeApply})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "bulk-partial", Count: 1, Args: json.RawMessage(`{"mode":"stuck"}`)}); err != nil {
		t.Fatal(err)
	}
	w.resetCalls()
	waited := false
	e := engine.New(engine.Config{Store: st, Connector: sides{w}, Now: h.ours, ImportRows: w.cfg.ImportRows, InFlight: 1, OnStep: func(name string) {
		if name == "await.before" && !waited {
			waited = true
			h.Advance(time.Hour) // the slice is over
		}
	}})
	imports := func() int64 { return w.calls("dotdigital")["contacts.import"] }
	slice := func(budget time.Duration) bool {
		t.Helper()
		turn, _, err := st.StartRun(ctx, run.ID)
		if err != nil {
			t.Fatal(err)
		}
		done, err := e.Slice(turn, run.ID, budget)
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeUnavailable {
			t.Fatal(err)
		}
		return done
	}
	slice(time.Minute)
	for range 3 {
		slice(0) // asks for some seconds
		h.Advance(time.Hour)
	}
	if n := imports(); n != 1 {
		t.Fatalf("%d imports were sent while the first had not ended", n)
	}
	h.Advance(3 * time.Hour)
	for n := 0; !slice(time.Minute); n++ {
		if n > 200 {
			t.Fatal("the run does not end")
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	if run, err = w.app.Wait(ctx, run.ID); err != nil {
		t.Fatal(err)
	}
	w.sync()
	if got := fmt.Sprint(w.bothSides()); got != fmt.Sprint(want) {
		t.Errorf("differs from the undisturbed run: %s\nwant %s", got, want)
	}
	w.silent("after the import that never ended")
}
