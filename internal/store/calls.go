package store

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// AddCalls adds to what was counted of calls, by connection, slot and caller.
func (s *Store) AddCalls(ctx context.Context, counts []lockstep.CallCount) error {
	return in("store: count calls", s.InTx(ctx, func(tx Tx) error {
		for _, c := range counts {
			_, err := tx.Exec(ctx, `INSERT INTO calls (connection, slot, caller, calls, polls) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (connection, slot, caller) DO UPDATE SET calls = calls.calls + excluded.calls, polls = calls.polls + excluded.polls`,
				c.Connection, micros(c.At.Truncate(lockstep.CallSlot)), string(c.Caller), c.Calls, c.Polls)
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// Calls returns what was counted of the calls to a connection since a time, the oldest
// first.
func (s *Store) Calls(ctx context.Context, connection string, since time.Time) ([]lockstep.CallCount, error) {
	all, err := collect(ctx, s.db, func(r Rows) (lockstep.CallCount, error) {
		var slot int64
		var caller string
		c := lockstep.CallCount{Connection: connection}
		err := r.Scan(&slot, &caller, &c.Calls, &c.Polls)
		c.At, c.Caller = fromMicros(slot), lockstep.Caller(caller)
		return c, err
	}, `SELECT slot, caller, calls, polls FROM calls WHERE connection = $1 AND slot >= $2 ORDER BY slot, caller`, connection, micros(since))
	return all, in("store: read calls", err)
}

// priceOf is how many runs a price goes by.
const priceOf = 5

// PriceIn returns how many calls a run is expected to make: what its preview took and
// its changes will take, or what the last ones of its kind took; nil = there is nothing
// to go by.
func (s *Store) PriceIn(ctx context.Context, tx Tx, run *lockstep.Run) (*lockstep.Price, error) {
	if run.Preview != "" {
		p, err := runIn(ctx, tx, run.Preview)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		c := &p.Counts
		return &lockstep.Price{
			CRM:      p.Calls.CRM + portions(c.RecordsCreated+c.RecordsUpdated, 100) + portions(c.ListAdds+c.ListRemovals, 100),
			Platform: p.Calls.Platform + portions(c.ContactsCreated+c.ContactsUpdated+c.BookAdds, 10_000) + portions(c.BookRemovals, 1000),
			Basis:    "preview",
		}, nil
	}
	// A sync that begins by itself may look at less than one that somebody asks for.
	past, err := collect(ctx, tx, func(r Rows) (c lockstep.Calls, err error) {
		var doc string
		if err = r.Scan(&doc); err == nil && json.Unmarshal([]byte(doc), &c) != nil {
			err = damaged("the calls of a run")
		}
		return c, err
	}, `SELECT calls FROM runs WHERE account = $1 AND type = $2 AND list = $3 AND mode = $4 AND preview = '' AND status IN ('completed', 'completed_with_errors', 'previewed')
ORDER BY CASE WHEN scheduled = $5 THEN 0 ELSE 1 END, created DESC LIMIT $6`, run.Account, string(run.Type), run.List, string(run.Mode), run.Scheduled, priceOf)
	if err != nil || len(past) == 0 {
		return nil, in("store: price a run", err)
	}
	middle := func(of func(*lockstep.Calls) int64) int64 {
		all := make([]int64, len(past))
		for i := range past {
			all[i] = of(&past[i])
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return &lockstep.Price{
		CRM:      middle(func(c *lockstep.Calls) int64 { return c.CRM }),
		Platform: middle(func(c *lockstep.Calls) int64 { return c.Platform }),
		Basis:    "runs",
	}, nil
}

func portions(n, each int64) int64 { return (n + each - 1) / each }
