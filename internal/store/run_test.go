//go:build unix

package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

func TestRunStates(t *testing.T) {
	ctx := context.Background()
	ended := []lockstep.RunStatus{lockstep.RunCompleted, lockstep.RunCompletedWithErrors, lockstep.RunFailed, lockstep.RunCancelled, lockstep.RunPreviewed}
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		create := func() lockstep.Run {
			t.Helper()
			run, err := s.CreateRun(ctx, lockstep.Run{Account: a.ID, Type: lockstep.SyncDataLabels, Status: lockstep.RunCompleted})
			ok(t, err)
			if run.Status != lockstep.RunQueued || run.Mode != lockstep.ModeApply || run.ID == "" {
				t.Fatalf("a new run: %+v", run)
			}
			stored, err := s.Run(ctx, run.ID)
			ok(t, err)
			equal(t, stored, run)
			return run
		}
		for _, status := range ended {
			// from queued
			run := create()
			_, err := s.CreateRun(ctx, lockstep.Run{Account: a.ID, Type: lockstep.SyncDataLabels})
			wantCode(t, err, lockstep.CodeConflict)
			got, err := s.EndRun(ctx, run.ID, status, "why", "what to do")
			if status == lockstep.RunFailed || status == lockstep.RunCancelled {
				ok(t, err)
				if got.Status != status || got.Error != "why" || got.Hint != "what to do" || got.Ended.IsZero() {
					t.Fatalf("%+v", got)
				}
				run = create()
			} else {
				wantCode(t, err, lockstep.CodeConflict)
			}
			// from in process
			_, got, err = s.StartRun(ctx, run.ID)
			ok(t, err)
			if got.Status != lockstep.RunInProcess || got.Started.IsZero() {
				t.Fatalf("%+v", got)
			}
			begun := got.Started
			_, got, err = s.StartRun(ctx, run.ID)
			ok(t, err)
			if !got.Started.Equal(begun) {
				t.Fatal("the second turn changed the time of the start")
			}
			got, err = s.EndRun(ctx, run.ID, status, "", "")
			ok(t, err)
			if got.Status != status {
				t.Fatalf("%+v", got)
			}
			// from ended
			for _, next := range ended {
				_, err := s.EndRun(ctx, run.ID, next, "", "")
				wantCode(t, err, lockstep.CodeConflict)
			}
			_, _, err = s.StartRun(ctx, run.ID)
			wantCode(t, err, lockstep.CodeConflict)
			_, err = s.RequestCancel(ctx, run.ID)
			wantCode(t, err, lockstep.CodeConflict)
		}
		run := create()
		for _, wrong := range []lockstep.RunStatus{lockstep.RunQueued, lockstep.RunInProcess, "", "done"} {
			_, err := s.EndRun(ctx, run.ID, wrong, "", "")
			wantCode(t, err, lockstep.CodeInvalid)
		}
		for _, f := range []func() error{
			func() error { _, err := s.Run(ctx, "none"); return err },
			func() error { _, _, err := s.StartRun(ctx, "none"); return err },
			func() error { _, err := s.EndRun(ctx, "none", lockstep.RunFailed, "", ""); return err },
			func() error { _, err := s.RequestCancel(ctx, "none"); return err },
			func() error { _, err := s.CancelRequested(ctx, "none"); return err },
			func() error { _, err := s.Progress(ctx, "none"); return err },
			func() error { return s.SaveProgress(ctx, "none", nil) },
			func() error { return s.SetStage(ctx, "none", "x") },
			func() error { return s.Commit(ctx, lockstep.Commit{Run: "none"}) },
			func() error { _, err := s.Plan(ctx, lockstep.Batch{Run: "none"}); return err },
			func() error { return s.MarkSent(ctx, 99, "") },
			func() error { _, err := s.CreateRun(ctx, lockstep.Run{Account: "none"}); return err },
			func() error { _, err := s.Runs(ctx, RunFilter{Before: "none"}); return err },
			func() error { _, err := s.Conflicts(ctx, ConflictFilter{Before: "none"}); return err },
		} {
			wantCode(t, f(), lockstep.CodeNotFound)
		}
		for _, run := range []lockstep.Run{{Account: a.ID, Mode: "dry"}, {Account: a.ID, Mode: lockstep.ModePreview, Preview: "p"}} {
			_, err := s.CreateRun(ctx, run)
			wantCode(t, err, lockstep.CodeInvalid)
		}

		if asked, err := s.CancelRequested(ctx, run.ID); err != nil || asked {
			t.Fatal(asked, err)
		}
		got, err := s.RequestCancel(ctx, run.ID)
		ok(t, err)
		if asked, err := s.CancelRequested(ctx, run.ID); err != nil || !asked || !got.CancelRequested {
			t.Fatal(asked, err)
		}
	})
}

// A worker that was believed dead must not store anything once another has taken
// over its run.
func TestRunFence(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		stale, run := started(t, s, a.ID)
		id, err := s.Plan(stale, lockstep.Batch{Run: run.ID, Account: a.ID, Kind: lockstep.WriteContact})
		ok(t, err)
		fresh, _, err := s.StartRun(context.Background(), run.ID)
		ok(t, err)
		before := dump(t, s)
		for _, f := range []func(context.Context) error{
			func(ctx context.Context) error {
				_, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID})
				return err
			},
			func(ctx context.Context) error { return s.MarkSent(ctx, id, "job") },
			func(ctx context.Context) error {
				return s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{{1}}})
			},
			func(ctx context.Context) error { return s.SaveProgress(ctx, run.ID, []byte("p")) },
			func(ctx context.Context) error { return s.SetStage(ctx, run.ID, "reading") },
			func(ctx context.Context) error { return s.Stage(ctx, run.ID, "kind", []StagedRow{{Key: "k"}}) },
			func(ctx context.Context) error {
				_, err := s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
				return err
			},
		} {
			wantCode(t, f(stale), lockstep.CodeConflict)
			equal(t, dump(t, s), before)
		}
		ok(t, s.Commit(fresh, lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{{1}}}))
		ok(t, s.MarkSent(fresh, id, "job"))
		_, err = s.EndRun(fresh, run.ID, lockstep.RunCompleted, "", "")
		ok(t, err)
		wantCode(t, s.Commit(fresh, lockstep.Commit{Run: run.ID, Account: a.ID}), lockstep.CodeConflict)
		wantCode(t, s.Commit(context.Background(), lockstep.Commit{Run: run.ID, Account: a.ID}), lockstep.CodeConflict)
	})
}

// One run at a time works on the lists of an account, whatever its type.
func TestAccountBusy(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a, b := account(t, s), account(t, s)
		start := func(owner string, typ lockstep.SyncType, list string) (string, error) {
			run, err := s.CreateRun(ctx, lockstep.Run{Account: owner, Type: typ, List: list})
			ok(t, err)
			_, _, err = s.StartRun(ctx, run.ID)
			return run.ID, err
		}
		first, err := start(a.ID, lockstep.SyncMarketingLists, "1")
		ok(t, err)
		second, err := start(a.ID, lockstep.SyncAddressBooksIn, "")
		if !errors.Is(err, ErrAccountBusy) {
			t.Fatal(err)
		}
		_, err = start(a.ID, lockstep.SyncSuppressions, "")
		ok(t, err)
		_, err = start(b.ID, lockstep.SyncMarketingLists, "1")
		ok(t, err)
		_, _, err = s.StartRun(ctx, first) // taken over
		ok(t, err)
		_, err = s.EndRun(ctx, first, lockstep.RunCompleted, "", "")
		ok(t, err)
		_, _, err = s.StartRun(ctx, second)
		ok(t, err)
	})
}

func TestRunList(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
		o.Now = func() time.Time { return now }
		s := mustOpen(t, o)
		a, b := account(t, s), account(t, s)
		var all []lockstep.Run // newest first
		for i := range 12 {
			if i%3 == 0 { // several runs may be created in one microsecond
				now = now.Add(time.Minute)
			}
			owner := []string{a.ID, b.ID}[i%2]
			run, err := s.CreateRun(ctx, lockstep.Run{ID: fmt.Sprintf("run-%02d", i), Account: owner, Type: lockstep.SyncSuppressions, List: fmt.Sprint(i)})
			ok(t, err)
			if i%4 != 0 {
				_, run, err = s.StartRun(ctx, run.ID)
				ok(t, err)
			}
			if i%4 == 2 {
				run, err = s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
				ok(t, err)
			}
			all = append([]lockstep.Run{run}, all...)
		}
		pick := func(keep func(lockstep.Run) bool) []lockstep.Run {
			var out []lockstep.Run
			for _, r := range all {
				if keep(r) {
					out = append(out, r)
				}
			}
			return out
		}
		after := all[6].Created
		for name, c := range map[string]struct {
			filter RunFilter
			keep   func(lockstep.Run) bool
		}{
			"all":     {RunFilter{}, func(lockstep.Run) bool { return true }},
			"account": {RunFilter{Account: b.ID}, func(r lockstep.Run) bool { return r.Account == b.ID }},
			"status":  {RunFilter{Status: lockstep.RunQueued}, func(r lockstep.Run) bool { return r.Status == lockstep.RunQueued }},
			"type":    {RunFilter{Type: lockstep.SyncForms}, func(lockstep.Run) bool { return false }},
			"list":    {RunFilter{List: "5"}, func(r lockstep.Run) bool { return r.List == "5" }},
			"started": {RunFilter{StartedAfter: after}, func(r lockstep.Run) bool { return r.Started.After(after) }},
			"several": {RunFilter{Account: a.ID, Status: lockstep.RunCompleted, Type: lockstep.SyncSuppressions, StartedAfter: after}, func(r lockstep.Run) bool {
				return r.Account == a.ID && r.Status == lockstep.RunCompleted && r.Started.After(after)
			}},
		} {
			t.Run(name, func(t *testing.T) {
				for _, limit := range []int{0, 1, 5} {
					var got []lockstep.Run
					f := c.filter
					f.Limit = limit
					for {
						page, err := s.Runs(ctx, f)
						ok(t, err)
						if limit > 0 && len(page) > limit {
							t.Fatalf("%d runs on a page of %d", len(page), limit)
						}
						if len(page) == 0 {
							break
						}
						got = append(got, page...)
						f.Before = page[len(page)-1].ID
					}
					equal(t, got, pick(c.keep))
				}
			})
		}
		live, err := s.LiveRuns(ctx)
		ok(t, err)
		if len(live) != len(pick(func(r lockstep.Run) bool { return !r.Status.Ended() })) || live[0].ID != "run-00" {
			t.Fatalf("live: %+v", live)
		}
		ok(t, s.InTx(ctx, func(tx Tx) error {
			run, err := s.LiveRunIn(ctx, tx, a.ID, lockstep.SyncSuppressions, "0")
			if err != nil || run.ID != "run-00" {
				t.Errorf("%+v, %v", run, err)
			}
			_, err = s.LiveRunIn(ctx, tx, a.ID, lockstep.SyncSuppressions, "2")
			if lockstep.CodeOf(err) != lockstep.CodeNotFound {
				t.Error(err)
			}
			return nil
		}))
	})
}
