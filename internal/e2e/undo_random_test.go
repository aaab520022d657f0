package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// queueUndo queues an undo that nobody works on yet, and closes the product.
func (w *world) queueUndo(run string) lockstep.Run {
	w.t.Helper()
	if err := w.app.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	a, err := app.Open(w.t.Context(), w.cfg) // not started
	if err != nil {
		w.t.Fatal(err)
	}
	undo, err := a.UndoRun(w.t.Context(), app.UndoRequest{Run: run})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := a.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return undo
}

// The process dies at each step of an undo in turn, and of the undo of that undo, and
// so on: whoever comes next ends it, and both systems are as they were.
func TestUndoKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Undo", "contact", lockstep.ActionAllowKnown, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Buyer", "telephone1": "1"})
	bob := w.cast("contact", "bob@stage.example", cols{"jobtitle": "Clerk", "telephone1": "2"})
	cid := w.cast("contact", "cid@stage.example", cols{"jobtitle": "Cook"})
	w.cast("contact", "dan@stage.example", cols{"jobtitle": "Diver"})
	eve := w.cast("contact", "eve@stage.example", cols{"jobtitle": "Editor"})
	w.join(l, ann, bob, cid)
	w.sync()
	w.signUp(w.book(l), "dan@stage.example", "JOBTITLE", "Diver", "LASTNAME", "dan")
	w.editRecord("contact", ann, cols{"jobtitle": "Boss"})
	w.editContact("bob@stage.example", cols{"PHONE": "3"})
	w.quit(l, cid)
	w.join(l, eve)
	run := w.sync()
	w.quiet()
	states := []map[string]string{w.state()}

	for k, steps := int64(1), int64(2); k <= steps; k++ {
		undo := w.queueUndo(run.ID)
		names := w.doomed(undo.ID, k)
		w.open()
		ended, err := w.app.Wait(t.Context(), undo.ID)
		if err != nil {
			t.Fatalf("after a crash at step %d of %v: %v", k, names, err)
		}
		addsUp(t, ended)
		if k == 1 {
			states = append(states, w.state())
			if len(changed(states[0], states[1])) < 5 {
				t.Fatalf("the undo changed only %q", changed(states[0], states[1]))
			}
		}
		if diff := changed(states[k%2], w.state()); len(diff) != 0 {
			t.Fatalf("after a crash at step %d of %v: %q; %+v", k, names, diff, w.findings(ended))
		}
		if k%4 < 2 {
			w.quiet()
		}
		if int64(len(names)) == k { // it died; there may be one more step
			steps = k + 1
		}
		run = ended
	}
}

// A hundred random runs are undone: what nobody touched since is as it was before.
func TestHundredRandomRunsUndone(t *testing.T) {
	t.Parallel()
	const seed = 7
	dice := rand.New(rand.NewPCG(seed, 11))
	var clock ahead
	w := newStageWith(t, app.Config{Now: clock.now})
	l := w.list("Undo", "contact", lockstep.ActionIgnore, "")
	names := []string{"ann", "bob", "cid", "dan", "eve", "fay"}
	ids, member := map[string]string{}, map[string]bool{}
	for i, n := range names {
		ids[n] = w.cast("contact", n+"@stage.example", cols{"jobtitle": "0", "telephone1": "0", "address1_city": "0"})
		if i < 4 {
			w.join(l, ids[n])
			member[n] = true
		}
	}
	w.sync()
	onPlatform := func() map[string]bool {
		known := map[string]bool{}
		for email := range w.contacts("") {
			known[strings.TrimSuffix(email, "@stage.example")] = true
		}
		return known
	}
	value := 0
	edit := func(n string, known map[string]bool) (cell, v string) {
		value++
		v = fmt.Sprint(value)
		columns := map[string]string{"JOBTITLE": "jobtitle", "PHONE": "telephone1", "CITY": "address1_city"}
		label := []string{"JOBTITLE", "PHONE", "CITY"}[dice.IntN(3)]
		if known[n] && dice.IntN(2) == 0 {
			w.editContact(n+"@stage.example", cols{label: v})
			return fmt.Sprintf("contact %s@stage.example %s", n, label), v
		}
		w.editRecord("contact", ids[n], cols{columns[label]: v})
		return fmt.Sprintf("crm contact %s %s", n, columns[label]), v
	}
	undone := 0
	for round := 0; undone < 100; round++ {
		if round > 150 {
			t.Fatalf("only %d of %d runs wrote anything", undone, round)
		}
		clock.pass(15 * time.Second) // nobody is taken for programs that quarrel
		known := onPlatform()
		var log []string
		for range 1 + dice.IntN(3) {
			n := names[dice.IntN(len(names))]
			switch dice.IntN(5) {
			case 0:
				if member[n] {
					w.quit(l, ids[n])
				} else {
					w.join(l, ids[n])
				}
				member[n] = !member[n]
				log = append(log, fmt.Sprint(n, " member ", member[n]))
			default:
				cell, v := edit(n, known)
				log = append(log, cell+" = "+v)
			}
		}
		before := w.state()
		run := w.sync()
		written := w.state()
		touched := map[string]bool{}
		since := map[string]string{}
		if dice.IntN(3) == 0 {
			n := names[dice.IntN(len(names))]
			cell, v := edit(n, onPlatform())
			touched[n], since[cell] = true, v
			log = append(log, "since: "+cell+" = "+v)
		}
		if len(changed(before, written)) == 0 {
			continue
		}
		undo := w.undo(app.UndoRequest{Run: run.ID})
		undone++
		addsUp(t, undo)
		after := w.state()
		for cell, v := range since {
			if after[cell] != v {
				t.Errorf("round %d, %v: the undo wrote over an edit: %s is %q", round, log, cell, after[cell])
			}
		}
		for _, cell := range slices.Sorted(maps.Keys(union(before, written))) {
			made := strings.HasPrefix(cell, "contact ") && before[strings.Join(strings.Fields(cell)[:2], " ")] == ""
			person := slices.ContainsFunc(names, func(n string) bool { return touched[n] && strings.Contains(cell, n) })
			if made || person || before[cell] == written[cell] {
				continue
			}
			if after[cell] != before[cell] {
				t.Errorf("round %d, %v: %s was %q, the run made it %q, the undo left %q; findings %+v", round, log, cell, before[cell], written[cell], after[cell], w.findings(undo))
			}
		}
		if round%10 == 9 {
			w.sync() // what was edited since
			w.quiet()
		}
		if t.Failed() {
			return
		}
	}
}

func union(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}
