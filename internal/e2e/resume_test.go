package e2e

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A first load that takes many slices reads no list, no address book and no record
// more often than one that is done at once.
func TestFirstLoadInManySlices(t *testing.T) {
	t.Parallel()
	load := func(slow bool) (crm, mail map[string]int64, w *world, slices int64) {
		h := newHaste()
		var loading atomic.Bool
		var began atomic.Int64
		o := worldOptions{twins: twin.Options{Contacts: 12_000, Seed: 7, PlatformShare: 0.05, Clock: h.Clock}}
		o.cfg = app.Config{Now: h.ours, Sleep: h.sleep, ImportRows: 1500, OnStep: func(name string) {
			if loading.Load() && name == "import.before" {
				if n := began.Add(1); slow && n%3 == 0 {
					h.Advance(25 * time.Second) // the slice is over
				}
			}
		}}
		w = newWorld(t, o)
		w.resetCalls()
		loading.Store(true)
		w.sync()
		loading.Store(false)
		return w.calls("dataverse"), w.calls("dotdigital"), w, began.Load()
	}
	crm, mail, quick, _ := load(false)
	slowCRM, slowMail, slow, imports := load(true)
	slices := slowCRM["list.read"] // each begins by reading the lists
	if slices < 4 {
		t.Fatalf("%d slices for %d imports", slices, imports)
	}
	if n, want := slowCRM["listmember.read"], crm["listmember.read"]; n != want {
		t.Errorf("the members of static lists took %d calls, %d when done at once", n, want)
	}
	if n, want := slowCRM["contact.read"], crm["contact.read"]+slices; n > want {
		t.Errorf("records took %d calls by slices, want at most %d", n, want)
	}
	if n, want := slowMail["contacts.list"], mail["contacts.list"]+slices; n > want {
		t.Errorf("contacts took %d calls by slices, want at most %d", n, want)
	}
	if n, want := total(slowCRM)+total(slowMail), total(crm)+total(mail)+8*slices; n > want {
		t.Errorf("%d calls in %d slices, want at most %d: %v %v", n, slices, want, slowCRM, slowMail)
	}
	if diff := cmp.Diff(quick.bothSides(), slow.bothSides()); diff != "" {
		t.Errorf("the slices ended differently (+):\n%s", diff)
	}
	slow.sync()
	slow.silent("after a load in slices")
}
