package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

var soak = flag.Duration("soak", 10*time.Second, "for how long TestSoak edits and kills")

// keeper starts the real program on a data folder again and again, whenever it ended.
// Two of them are rivals for one folder: who comes second is refused.
type keeper struct {
	t      *testing.T
	args   []string
	ready  string // the program's ready file
	ended  chan struct{}
	killed *tally

	mu  sync.Mutex
	cmd *exec.Cmd // that serves now; nil = none
}

// tally is what all keepers count.
type tally struct {
	mu                  sync.Mutex
	serving             []time.Duration // from the start of a process until it served
	refused             int
	slowest             time.Duration // of the refusals
	together            int           // times that two served at once
	problems            []string
	memory, descriptors []int64 // of the process that serves, a sample a second
}

func (k *keeper) run(stop <-chan struct{}) {
	defer close(k.ended)
	for {
		select {
		case <-stop:
			return
		default:
		}
		_ = os.Remove(k.ready)
		var said bytes.Buffer
		cmd := exec.Command(k.args[0], k.args[1:]...)
		cmd.Stderr = &said
		begun := time.Now()
		if err := cmd.Start(); err != nil {
			k.t.Error(err)
			return
		}
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		err := k.watch(cmd, begun, over, stop)
		k.mu.Lock()
		k.cmd = nil
		k.mu.Unlock()
		var exit *exec.ExitError
		k.killed.mu.Lock()
		switch {
		case err == nil: // asked to stop
		case strings.Contains(said.String(), "uses the data folder"):
			k.killed.refused++
			k.killed.slowest = max(k.killed.slowest, time.Since(begun))
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		default:
			k.killed.problems = append(k.killed.problems, fmt.Sprintf("%v: %s", err, said.String()))
		}
		k.killed.mu.Unlock()
		select {
		case <-stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// watch waits for the program's end and notes when it began to serve.
func (k *keeper) watch(cmd *exec.Cmd, begun time.Time, over <-chan error, stop <-chan struct{}) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for serving := false; ; {
		select {
		case err := <-over:
			return err
		case <-stop:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return <-over
		case <-look.C:
			if serving {
				continue
			}
			if _, err := os.Stat(k.ready); err == nil {
				serving = true
				k.killed.mu.Lock()
				k.killed.serving = append(k.killed.serving, time.Since(begun))
				k.killed.mu.Unlock()
				k.mu.Lock()
				k.cmd = cmd
				k.mu.Unlock()
			}
		}
	}
}

func (k *keeper) process() *os.Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd == nil {
		return nil
	}
	return k.cmd.Process
}

// staff is who works on both sides during the soak: what they know of the people, so
// that they need not read everybody before each edit.
type staff struct {
	w      *world
	dice   *rand.Rand
	ids    []string // records of contacts
	emails []string // of contacts who are mailed
	list   lockstep.ListSettings
	in     []string // records in the list
	out    []string // taken out of it
}

func (w *world) staff(list lockstep.ListSettings) *staff {
	w.t.Helper()
	s := &staff{w: w, dice: rand.New(rand.NewPCG(77, 1)), list: list, in: w.membersOf(list), ids: slices.Sorted(maps.Keys(w.people("contact")))}
	for email, c := range w.contacts("") {
		if c.Channel["email"]["status"] == "subscribed" {
			s.emails = append(s.emails, email)
		}
	}
	slices.Sort(s.emails)
	slices.Sort(s.in)
	return s
}

// edit edits n people, each address of whom is its own.
func (s *staff) edit(n int) {
	s.w.t.Helper()
	for range n {
		id, word := s.any(s.ids), fmt.Sprintf("w%d", s.dice.IntN(1_000_000))
		switch s.dice.IntN(6) {
		case 0:
			s.w.editRecord("contact", id, map[string]any{"address1_city": word})
		case 1:
			s.w.editRecord("contact", id, map[string]any{"jobtitle": word})
		case 2:
			s.w.editRecord("contact", id, map[string]any{"jobtitle": nil})
		case 3:
			s.w.editContact(s.any(s.emails), map[string]any{"JOBTITLE": word})
		case 4:
			if len(s.out) > 0 {
				s.w.enlist(s.list, s.move(&s.out, &s.in))
			}
		case 5:
			s.w.delist(s.list, s.move(&s.in, &s.out))
		}
	}
}

func (s *staff) any(of []string) string { return of[s.dice.IntN(len(of))] }

// move takes somebody out of one group into another.
func (s *staff) move(from, to *[]string) string {
	i := s.dice.IntN(len(*from))
	id := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	*to = append(*to, id)
	return id
}

// soaked counts the list syncs since a moment that completed. Nothing but the kills is
// in their way, so that none may fail or be held by a guard. The syncs that the plain
// company has no columns or tables for are refused as invalid.
func (w *world) soaked(since time.Time) (completed int) {
	w.t.Helper()
	f := app.RunFilter{Account: w.account.ID, StartedAfter: since, Limit: 1000}
	for {
		runs, err := w.app.Runs(w.t.Context(), f)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range runs {
			switch {
			case r.Status == lockstep.RunFailed && r.Code != lockstep.CodeInvalid:
				w.t.Errorf("a run of %s failed: %s %s", r.Type, r.Code, r.Error)
			case r.Type == lockstep.SyncMarketingLists && r.Status == lockstep.RunCompleted:
				completed++
			}
		}
		if len(runs) < f.Limit {
			return completed
		}
		f.Before = runs[len(runs)-1].ID
	}
}

// sample returns the memory, in bytes, and the open descriptors of a process. Pages of
// files do not count as memory: those of the program come in as its code is used.
func sample(pid int) (memory, descriptors int64, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return 0, 0, false
	}
	resident, err := strconv.ParseInt(fields[1], 10, 64)
	shared, serr := strconv.ParseInt(fields[2], 10, 64)
	open, derr := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return (resident - shared) * int64(os.Getpagesize()), int64(len(open)), errors.Join(err, serr, derr) == nil
}

// The real program syncs by itself for a while, under edits on both sides. Two rivals
// start it on one data folder, and in the first third of the time whoever serves is killed
// at random moments; then nobody is. Afterwards nothing is lost, there twice or come back.
func TestSoak(t *testing.T) {
	// Ten edits a second are a large company's. Among fewer people most of a table would
	// change while a run is under way, and the guards would rightly hold it.
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 4_000, Seed: 77, Plain: true}})
	lists, err := w.app.Lists(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	lists = slices.DeleteFunc(lists, func(l lockstep.ListSettings) bool { return !l.Activated || l.Dynamic || l.MemberTable != "contact" })
	before := w.booksNow()
	w.sync()
	staff := w.staff(lists[0])
	yes := true
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	exe, counts, stop := binary(t), &tally{}, make(chan struct{})
	var rivals []*keeper
	for i := range 2 {
		k := &keeper{t: t, ready: filepath.Join(t.TempDir(), fmt.Sprint(i)), ended: make(chan struct{}), killed: counts}
		k.args = []string{exe, "serve", "--listen", "127.0.0.1:0", "--data", w.cfg.DataDir, "--ready-file", k.ready}
		for _, h := range w.cfg.AllowHosts {
			k.args = append(k.args, "--allow-host", h)
		}
		rivals = append(rivals, k)
		go k.run(stop)
	}
	begun, kills, edits := time.Now(), 0, 0
	kill := begun.Add(time.Second)
	everySecond := time.NewTicker(time.Second)
	defer everySecond.Stop()
	for time.Since(begun) < *soak {
		<-everySecond.C
		staff.edit(10)
		edits += 10
		var serving []*os.Process
		for _, k := range rivals {
			if p := k.process(); p != nil {
				serving = append(serving, p)
			}
		}
		if len(serving) > 1 {
			counts.together++
		}
		calm := time.Since(begun) > *soak/3
		for _, p := range serving {
			if memory, open, ok := sample(p.Pid); ok && calm {
				counts.memory, counts.descriptors = append(counts.memory, memory), append(counts.descriptors, open)
			}
			if !calm && time.Now().After(kill) {
				_ = p.Kill()
				kills++
				kill = time.Now().Add(time.Duration(500+staff.dice.IntN(8000)) * time.Millisecond)
			}
		}
	}
	close(stop)
	for _, k := range rivals {
		<-k.ended
	}
	var state int64
	_ = filepath.WalkDir(w.cfg.DataDir, func(_ string, e fs.DirEntry, err error) error {
		if info, ierr := e.Info(); err == nil && ierr == nil {
			state += info.Size()
		}
		return err
	})
	for _, p := range counts.problems {
		t.Errorf("a process ended by itself: %s", p)
	}
	if counts.together > 0 || kills == 0 || len(counts.serving) <= kills/2 || counts.refused == 0 {
		t.Errorf("%d kills, %d starts, %d refused, two at once %d times", kills, len(counts.serving), counts.refused, counts.together)
	}
	slices.Sort(counts.serving)
	at := func(share float64) time.Duration {
		return counts.serving[int(share*float64(len(counts.serving)-1))].Round(time.Millisecond)
	}
	t.Logf("%s, %d edits, %d kills; start to serving p50 %s, p99 %s; %d rivals refused, the slowest in %s; data folder %d KB",
		*soak, edits, kills, at(0.5), at(0.99), counts.refused, counts.slowest.Round(time.Millisecond), state/1000)
	if n := len(counts.memory); n > 1 {
		t.Logf("undisturbed for %d s: memory %d to %d KB, by %.0f KB a minute, in the second half by %.0f; descriptors %d to %d", n, slices.Min(counts.memory)/1000,
			slices.Max(counts.memory)/1000, slope(counts.memory)*60/1000, slope(counts.memory[n/2:])*60/1000, slices.Min(counts.descriptors), slices.Max(counts.descriptors))
	}

	w.open()
	disturbed, undisturbed := w.soaked(begun), w.soaked(begun.Add(*soak/3))
	disturbed -= undisturbed
	t.Logf("%d list syncs completed under kills, %d undisturbed", disturbed, undisturbed)
	if undisturbed == 0 && *soak >= time.Minute { // the first sync after a kill may take all of a shorter one
		t.Error("no list sync completed although nobody was killed")
	}
	no := false
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &no}); err != nil {
		t.Fatal(err)
	}
	w.until("what was begun has ended", func() bool {
		runs, err := w.app.Runs(t.Context(), app.RunFilter{Limit: 20})
		return err == nil && !slices.ContainsFunc(runs, func(r lockstep.Run) bool { return !r.Status.Ended() })
	})
	w.sync()
	w.sync()
	w.agree(before)
	w.silent("the soak")
}

// slope is by how much values rise from one to the next, by least squares.
func slope(values []int64) float64 {
	var sx, sy, sxx, sxy float64
	for i, v := range values {
		x, y := float64(i), float64(v)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	n := float64(len(values))
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
