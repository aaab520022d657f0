//go:build unix

package store

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

func TestForget(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		run, err := s.CreateRun(ctx, lockstep.Run{Account: a.ID, Type: lockstep.SyncMarketingLists})
		ok(t, err)
		turn, _, err := s.StartRun(ctx, run.ID)
		ok(t, err)
		payload := journal.Encode([]lockstep.Change{{Kind: lockstep.WriteContact, State: lockstep.Acknowledged, Contact: "1"}})
		plan := func() int64 {
			id, err := s.Plan(turn, lockstep.Batch{Run: run.ID, Account: a.ID, Kind: lockstep.WriteContact, Payload: payload, Rows: 1})
			ok(t, err)
			return id
		}
		ended, open := plan(), plan()
		ok(t, s.Commit(turn, lockstep.Commit{
			Run: run.ID, Account: a.ID, Batches: []lockstep.BatchEnd{{ID: ended, State: lockstep.Acknowledged, Payload: payload}},
			Findings:  []lockstep.Finding{{Code: lockstep.FindingRejected, Message: "no"}},
			Conflicts: []lockstep.Conflict{{Label: "A", Winner: "crm"}, {Label: "B", Winner: "held"}},
		}))
		got, err := s.Forget(ctx, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour))
		ok(t, err)
		equal(t, got, Forgotten{})
		got, err = s.Forget(ctx, time.Now().Add(time.Hour), time.Now().Add(time.Hour))
		ok(t, err)
		equal(t, got, Forgotten{Conflicts: 1, Findings: 1, Batches: 1})
		left, err := s.Batches(ctx, run.ID, 0, 10)
		ok(t, err)
		if len(left) != 1 || left[0].ID != open {
			t.Errorf("the journal keeps %+v, want what is open", left)
		}
		conflicts, err := s.Conflicts(ctx, ConflictFilter{Account: a.ID})
		ok(t, err)
		if len(conflicts) != 1 || conflicts[0].Winner != "held" {
			t.Errorf("the conflicts are %+v, want the one that waits", conflicts)
		}
	})
}

// Runs go with what they did; the latest of its kind stays, and quiet ones go early.
func TestForgetRuns(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
		o.Now = func() time.Time { return now }
		s := mustOpen(t, o)
		a := account(t, s)
		ran := func(id string, scheduled bool, c lockstep.Commit) {
			t.Helper()
			now = now.Add(time.Minute)
			_, err := s.CreateRun(ctx, lockstep.Run{ID: id, Account: a.ID, Type: lockstep.SyncMarketingLists, Scheduled: scheduled})
			ok(t, err)
			turn, _, err := s.StartRun(ctx, id)
			ok(t, err)
			c.Run, c.Account = id, a.ID
			ok(t, s.Commit(turn, c))
			_, err = s.EndRun(turn, id, lockstep.RunCompleted, "", "")
			ok(t, err)
		}
		conflict := []lockstep.Conflict{{Label: "B", Winner: "held"}}
		ran("waits", false, lockstep.Commit{Conflicts: conflict})
		ran("old", false, lockstep.Commit{})
		ran("quiet", true, lockstep.Commit{Counts: lockstep.Counts{Read: 3, Equal: 3}})
		ran("busy", true, lockstep.Commit{Counts: lockstep.Counts{Read: 3, Written: 3}})
		middle := now
		ran("asked", false, lockstep.Commit{})
		ran("latest", true, lockstep.Commit{})
		left := func() (ids []string) {
			t.Helper()
			runs, err := s.Runs(ctx, RunFilter{})
			ok(t, err)
			for _, r := range runs {
				ids = append(ids, r.ID)
			}
			return ids
		}
		_, err := s.Forget(ctx, now.Add(-time.Hour), now.Add(time.Hour))
		ok(t, err)
		equal(t, left(), []string{"latest", "asked", "busy", "old", "waits"})
		done, err := s.Forget(ctx, middle, middle)
		ok(t, err)
		equal(t, done.Runs, int64(1))
		equal(t, left(), []string{"latest", "asked", "busy", "waits"})
		_, err = s.Forget(ctx, now.Add(time.Hour), now.Add(time.Hour))
		ok(t, err)
		equal(t, left(), []string{"latest", "waits"})
	})
}
