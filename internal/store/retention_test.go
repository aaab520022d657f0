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
		got, err := s.Forget(ctx, time.Now().Add(-time.Hour))
		ok(t, err)
		equal(t, got, Forgotten{})
		got, err = s.Forget(ctx, time.Now().Add(time.Hour))
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
