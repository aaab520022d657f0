package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// onDisk begins the reference world and queues its run; from here on the disk counts.
func onDisk(t *testing.T, fail func(*disk)) (*world, *disk, lockstep.Run) {
	t.Helper()
	h := newHasteAtNoon()
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep, RetryPause: time.Millisecond, DataDir: t.TempDir()}}
	o.twins.Clock = h.Clock
	d := newDisk(t, o.cfg.DataDir)
	w := reference(t, o)
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := app.Open(t.Context(), w.cfg) // works on runs when it is told to
	if err != nil {
		t.Fatal(err)
	}
	w.app = a
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	run, err := a.StartRun(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
	if err != nil {
		t.Fatal(err)
	}
	d.set(func() { fail(d) })
	d.watch()
	return w, d, run
}

// afterwards checks that a run came to its end and that nothing is left to do.
func (w *world) afterwards(d *disk, run lockstep.Run, want []string, what string) {
	w.t.Helper()
	if _, _, failures := d.state(); failures == 0 {
		w.t.Errorf("%s: nothing failed", what)
	}
	run, err := w.app.Run(w.t.Context(), run.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	if run.Status != lockstep.RunCompleted && run.Status != lockstep.RunCompletedWithErrors {
		w.t.Errorf("%s: the run is %s: %s", what, run.Status, run.Error)
	}
	addsUp(w.t, run)
	if diff := cmp.Diff(want, w.bothSides()); diff != "" {
		w.t.Errorf("%s: differs from the undisturbed run (-) as follows:\n%s", what, diff)
	}
	if err := w.app.Ready(w.t.Context()); err != nil {
		w.t.Errorf("%s: not ready afterwards: %v", what, err)
	}
	if err := w.app.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.silent(what)
}

// Whichever write or sync of the embedded database fails in a run, and from whichever
// write on the disk is full: nothing is taken for done that was not stored, a full
// disk is said openly and stops every call that changes something, and the run ends
// as an undisturbed one once the disk is well again.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	w, d, run := onDisk(t, func(*disk) {})
	if err := w.app.WorkOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	writes, syncs, _ := d.state()
	want := w.bothSides()
	if run, err := w.app.Run(t.Context(), run.ID); err != nil || run.Status != lockstep.RunCompletedWithErrors && run.Status != lockstep.RunCompleted {
		t.Fatalf("the undisturbed run is %s: %v", run.Status, err)
	}
	t.Logf("the undisturbed run writes %d times and syncs %d times", writes, syncs)
	if writes < 100 || syncs < 20 {
		t.Fatal("the disk saw too little")
	}
	dice := rand.New(rand.NewPCG(*drawn, uint64(writes)))
	choose := func(n, few int) (which []int) {
		for i := range n {
			which = append(which, i+1)
		}
		if *thorough {
			return which
		}
		dice.Shuffle(n, func(i, j int) { which[i], which[j] = which[j], which[i] })
		which = which[:few]
		slices.Sort(which)
		return which
	}
	// Another run may take a few writes less, since imports travel in parallel.
	for name, c := range map[string]struct {
		fail  func(d *disk, n int)
		which []int
	}{
		"write": {func(d *disk, n int) { d.badWrite = n }, choose(writes*9/10, 3)},
		"sync":  {func(d *disk, n int) { d.badSync = n }, choose(syncs*9/10, 2)},
	} {
		for _, n := range c.which {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				w, d, run := onDisk(t, func(d *disk) { c.fail(d, n) })
				if err := w.app.WorkOff(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.afterwards(d, run, want, fmt.Sprint(name, " ", n, " failed"))
			})
		}
	}
	for _, n := range choose(writes*9/10, 3) {
		t.Run(fmt.Sprint("full from write ", n), func(t *testing.T) {
			t.Parallel()
			w, d, run := onDisk(t, func(d *disk) { d.fullFrom = n })
			worked := make(chan error, 1)
			go func() { worked <- w.app.WorkOff(t.Context()) }()
			<-d.full
			<-d.tries // by now every slice has ended, and none can begin
			before := w.allWrites()
			err := w.app.Ready(t.Context())
			if e := lockstep.AsError(err); err == nil || e.Code != lockstep.CodeUnavailable || !strings.Contains(e.Msg, "full") || e.Hint == "" {
				t.Errorf("a full disk is told as %v", err)
			}
			if stored, err := w.app.Run(t.Context(), run.ID); err != nil || stored.Status.Ended() {
				t.Errorf("on a full disk the run is %s: %v", stored.Status, err)
			}
			if n := w.allWrites() - before; n != 0 {
				t.Errorf("%d writes to the two sides on a full disk", n)
			}
			d.heal()
			if err := <-worked; err != nil {
				t.Fatal(err)
			}
			w.afterwards(d, run, want, fmt.Sprint("the disk was full from write ", n, " on"))
		})
	}
}
