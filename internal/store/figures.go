package store

import (
	"context"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Figures are what an operator watches.
type Figures struct {
	// Waiting and Working count the runs that are queued and in process.
	Waiting, Working []QueueFigure
	// Untold are opt-outs that somebody has not been told of yet, by account.
	Untold []UntoldFigure
	// Ended is when the latest run that wrote, of each account and type, began that
	// ended without failing.
	Ended []EndedFigure
}

// QueueFigure counts runs of a type, and says when the oldest of them was asked for.
type QueueFigure struct {
	Type   lockstep.SyncType
	Count  int64
	Oldest time.Time
}

// UntoldFigure counts an account's opt-outs that are not told everywhere, and says since
// when the oldest is not.
type UntoldFigure struct {
	Account string
	Count   int64
	Oldest  time.Time
}

// EndedFigure says when a run of an account and type began.
type EndedFigure struct {
	Account string
	Type    lockstep.SyncType
	Started time.Time
}

// Figures reads what an operator watches.
func (s *Store) Figures(ctx context.Context) (f Figures, err error) {
	const op = "store: read figures"
	queue := func(r Rows) (q QueueFigure, err error) {
		var t string
		var oldest int64
		err = r.Scan(&t, &q.Count, &oldest)
		q.Type, q.Oldest = lockstep.SyncType(t), fromMicros(oldest)
		return q, err
	}
	for status, into := range map[lockstep.RunStatus]*[]QueueFigure{lockstep.RunQueued: &f.Waiting, lockstep.RunInProcess: &f.Working} {
		if *into, err = collect(ctx, s.db, queue, `SELECT type, count(*), min(created) FROM runs WHERE status = $1 AND status IN ('queued', 'in_process') GROUP BY type`, string(status)); err != nil {
			return f, in(op, err)
		}
	}
	f.Untold, err = collect(ctx, s.db, func(r Rows) (u UntoldFigure, err error) {
		var oldest int64
		err = r.Scan(&u.Account, &u.Count, &oldest)
		u.Oldest = fromMicros(oldest)
		return u, err
	}, `SELECT account, count(*), min(pending_since) FROM restrictions WHERE pending GROUP BY account`)
	if err != nil {
		return f, in(op, err)
	}
	accounts, err := s.Accounts(ctx, "")
	if err != nil {
		return f, err
	}
	for _, a := range accounts {
		for _, t := range lockstep.SyncTypes {
			var started int64
			err := s.db.QueryRow(ctx, `SELECT started FROM runs WHERE account = $1 AND type = $2 AND mode = 'apply' AND status IN ('completed', 'completed_with_errors')
ORDER BY created DESC LIMIT 1`, a.ID, string(t)).Scan(&started)
			if lockstep.CodeOf(err) == lockstep.CodeNotFound {
				continue
			}
			if err != nil {
				return f, in(op, err)
			}
			f.Ended = append(f.Ended, EndedFigure{a.ID, t, fromMicros(started)})
		}
	}
	return f, nil
}
