package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// A preview whose process dies in the middle shows each change once, as if nothing had
// happened.
func TestInterruptedPreviewPlansOnce(t *testing.T) {
	t.Parallel()
	w := newStageWith(t, app.Config{ImportRows: 4})
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	for i := range 20 {
		w.join(l, w.cast("contact", fmt.Sprintf("p%d@stage.example", i), cols{"jobtitle": "Pilot"}))
	}
	whole, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		t.Fatal(err)
	}
	want := w.planned(whole.ID)
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, err := secret.Load("", w.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	create := func() lockstep.Run {
		t.Helper()
		st, err := store.Open(t.Context(), store.Options{Path: w.cfg.DataDir, Sealer: keys})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		run, err := st.CreateRun(t.Context(), lockstep.Run{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	run := create()
	// It dies at each of its first steps in turn, at last when four batches are planned.
	planned := int64(0)
	for k := int64(1); planned < 4; k++ {
		planned = 0
		for _, step := range w.doomed(run.ID, k) {
			if step == "plan.after" {
				planned++
			}
		}
	}
	w.doomed(run.ID, 0)
	w.open()
	run, err = w.app.Wait(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.planned(run.ID)); diff != "" {
		t.Errorf("changes (-whole +interrupted):\n%s", diff)
	}
	if diff := cmp.Diff(whole.Counts, run.Counts); diff != "" {
		t.Errorf("counts (-whole +interrupted):\n%s", diff)
	}
}

// planned counts a preview's changes, each by what it does.
func (w *stage) planned(run string) map[string]int {
	w.t.Helper()
	out := map[string]int{}
	all, _, err := w.app.Changes(w.t.Context(), run, 0, 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		out[fmt.Sprint(c.Kind, c.Ref, c.Email, c.Name)]++
	}
	return out
}
