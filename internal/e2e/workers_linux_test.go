package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// crew is several processes of the real program that work on one database.
type crew struct {
	t    *testing.T
	exe  string
	w    *world
	hand []*exec.Cmd
}

// hire starts one more worker.
func (c *crew) hire() {
	c.t.Helper()
	args := []string{"worker", "--data", c.w.cfg.DataDir, "--listen", "127.0.0.1:0"}
	for _, h := range c.w.cfg.AllowHosts {
		args = append(args, "--allow-host", h)
	}
	cmd := exec.Command(c.exe, args...)
	cmd.Env = append(os.Environ(), "LOCKSTEP_DATABASE_URL="+c.w.cfg.DatabaseURL)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.hand = append(c.hand, cmd)
}

// lose kills one of them.
func (c *crew) lose(i int) {
	cmd := c.hand[i]
	c.hand = append(c.hand[:i:i], c.hand[i+1:]...)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (c *crew) signal(hand []*exec.Cmd, s syscall.Signal) {
	c.t.Helper()
	for _, cmd := range hand {
		if err := cmd.Process.Signal(s); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Three processes share a database and the runs of many lists. They are killed at random
// moments, and three are stopped for so long that others take over what they were at, and
// then go on. In the end everybody is where they belong, nothing is there twice, and
// nothing is left to write. It plays alone: twice, beside the worlds of all other tests on
// two cores, no further run ended for minutes, and why is not known.
func TestWorkersShareADatabase(t *testing.T) {
	people, kills, pause := 1500, 4, 50*time.Second
	if *thorough {
		people, kills = 200_000, 25
	}
	w := newWorld(t, worldOptions{cfg: app.Config{DatabaseURL: pgtest.Database(t)}, twins: twin.Options{Contacts: people, Seed: 40, Plain: true}, bare: true})
	w.mapFields()
	// Forty lists, each with a part of the people, and some with two.
	contacts := w.rows("contacts?$select=contactid")
	const lists = 40
	for i := range lists {
		var id string
		w.crm("POST", "lists", map[string]any{"listname": fmt.Sprintf("Part %02d", i), "createdfromcode": 2, "type": false}, nil)
		for _, l := range w.rows("lists?$select=listid,listname&$filter=" + fmt.Sprintf("listname eq 'Part %02d'", i)) {
			id = l.str("listid")
		}
		for at := i * len(contacts) / lists; at < min(len(contacts), (i+2)*len(contacts)/lists); at += 1000 {
			var members []map[string]any
			for _, m := range contacts[at:min(len(contacts), at+1000, (i+2)*len(contacts)/lists)] {
				members = append(members, map[string]any{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": m.str("contactid")})
			}
			w.crm("POST", "AddListMembersList", map[string]any{"List": map[string]any{"@odata.type": "Microsoft.Dynamics.CRM.list", "listid": id}, "Members": members}, nil)
		}
	}
	if err := w.app.DiscoverLists(t.Context(), w.account.ID); err != nil {
		t.Fatal(err)
	}
	for i := range lists {
		w.switchOn(fmt.Sprintf("Part %02d", i), lockstep.ActionIgnore)
	}
	before := w.booksNow()
	var runs []string
	if err := w.app.Stop(t.Context()); err != nil { // nobody but the workers works from here on
		t.Fatal(err)
	}
	for i := range lists {
		run, err := w.app.StartRun(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, List: w.listNamed(fmt.Sprintf("Part %02d", i)).ID})
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, run.ID)
	}

	c := &crew{t: t, exe: binary(t), w: w}
	var asleep []*exec.Cmd
	t.Cleanup(func() {
		for _, cmd := range asleep {
			_ = cmd.Process.Kill()
		}
		for len(c.hand) > 0 {
			c.lose(0)
		}
	})
	for range 3 {
		c.hire()
	}
	ended := func() (n int) {
		for _, id := range runs {
			run, err := w.app.Run(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if run.Status == lockstep.RunFailed || run.Status == lockstep.RunCancelled {
				t.Fatalf("run %s is %s: %s", id, run.Status, run.Error)
			}
			if run.Status.Ended() {
				n++
			}
		}
		return n
	}
	dice := rand.New(rand.NewPCG(40, 3))
	w.until("somebody works", func() bool { return ended() > 0 })
	asleep = c.hand // one of them is at work
	c.signal(asleep, syscall.SIGSTOP)
	wake := time.After(pause)
	c.hand = nil
	for range 3 {
		c.hire()
	}
	for n := range kills {
		w.within(5*time.Minute, "more runs have ended", func() bool { return ended() > min(lists-1, (n+1)*lists/(kills+2)) })
		c.lose(dice.IntN(len(c.hand)))
		c.hire()
	}
	<-wake
	c.signal(asleep, syscall.SIGCONT)
	c.hand = append(c.hand, asleep...)
	w.within(20*time.Minute, "all runs have ended", func() bool { return ended() == lists })
	for _, id := range runs {
		run, err := w.app.Run(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		addsUp(t, run)
	}
	for len(c.hand) > 0 { // in order, this time
		cmd := c.hand[0]
		c.hand = c.hand[1:]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("a worker that was asked to stop: %v", err)
		}
	}
	w.open()
	w.sync()
	w.agree(before)
	w.silent("the workers")
}
