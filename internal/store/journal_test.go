//go:build unix

package store

import (
	"testing"

	"github.com/lockstep-sync/lockstep"
)

func ids(batches []lockstep.Batch) []int64 {
	out := []int64{}
	for _, b := range batches {
		out = append(out, b.ID)
	}
	return out
}

func TestJournal(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		plan := func(run string) int64 {
			t.Helper()
			id, err := s.Plan(ctx, lockstep.Batch{Run: run, Account: a.ID, Kind: lockstep.WriteContact, Payload: []byte("p"), Rows: 2})
			ok(t, err)
			return id
		}
		end := func(id int64, state lockstep.ChangeState) error {
			return s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Batches: []lockstep.BatchEnd{{ID: id, State: state}}})
		}
		planned, sent, unknown, acknowledged, refused, dropped := plan(run.ID), plan(run.ID), plan(run.ID), plan(run.ID), plan(run.ID), plan(run.ID)
		ok(t, s.MarkSent(ctx, sent, ""))
		ok(t, s.MarkSent(ctx, sent, "job"))
		ok(t, s.MarkSent(ctx, unknown, ""))
		ok(t, end(unknown, lockstep.Unknown))
		ok(t, end(acknowledged, lockstep.Acknowledged))
		ok(t, end(refused, lockstep.Refused))
		ok(t, end(dropped, lockstep.Dropped))
		for _, id := range []int64{unknown, acknowledged, refused, dropped} {
			wantCode(t, s.MarkSent(ctx, id, "late"), lockstep.CodeConflict)
		}

		// A preview's plans are not open: nothing of them was or will be sent as such.
		preview, err := s.CreateRun(ctx, lockstep.Run{Account: a.ID, Type: lockstep.SyncDataLabels, Mode: lockstep.ModePreview})
		ok(t, err)
		_, _, err = s.StartRun(ctx, preview.ID)
		ok(t, err)
		p1, p2, p3 := plan(preview.ID), plan(preview.ID), plan(preview.ID)
		open, err := s.OpenBatches(ctx, a.ID)
		ok(t, err)
		equal(t, ids(open), []int64{planned, sent, unknown})
		if open[1].Job != "job" || open[1].State != lockstep.Sent || open[2].State != lockstep.Unknown || open[0].Rows != 2 || open[0].Kind != lockstep.WriteContact || open[0].Planned.IsZero() || !open[2].Ended.IsZero() {
			t.Fatalf("%+v", open)
		}
		ok(t, end(unknown, lockstep.Acknowledged))
		ok(t, end(sent, lockstep.Planned)) // it turned out that nothing arrived
		ok(t, s.MarkSent(ctx, sent, "again"))

		// The run that applies a preview ends its batches.
		ok(t, end(p1, lockstep.Dropped))
		left, err := s.PlannedBatches(ctx, preview.ID, 0, 0)
		ok(t, err)
		equal(t, ids(left), []int64{p2, p3})
		left, err = s.PlannedBatches(ctx, preview.ID, p2, 0)
		ok(t, err)
		equal(t, ids(left), []int64{p3})
		shown, err := s.Batches(ctx, preview.ID, 0, 2)
		ok(t, err)
		equal(t, ids(shown), []int64{p1, p2})
		shown, err = s.Batches(ctx, preview.ID, p2, 2)
		ok(t, err)
		equal(t, ids(shown), []int64{p3})

		_, err = s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: "other"})
		wantCode(t, err, lockstep.CodeInvalid)
		_, err = s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, State: lockstep.Sent})
		wantCode(t, err, lockstep.CodeInvalid)
	})
}
