package app

import (
	"context"
	"time"
)

// Retention is how long findings, the losing values of conflicts and the journal are
// kept. What waits for a decision or for its end is kept longer.
const Retention = 90 * 24 * time.Hour

// sweepEvery is how often what is older is deleted.
const sweepEvery = time.Hour

// Forget deletes what is older than Retention.
func (a *App) Forget(ctx context.Context) error {
	done, err := a.store.Forget(ctx, a.now().Add(-Retention))
	if err == nil && done.Batches+done.Findings+done.Conflicts > 0 {
		a.log.Info("deleted what is older than the retention", "batches", done.Batches, "findings", done.Findings, "conflicts", done.Conflicts)
	}
	return err
}

// sweep forgets once an hour until ctx ends.
func (a *App) sweep(ctx context.Context) {
	next := time.NewTicker(sweepEvery)
	defer next.Stop()
	for {
		if err := a.Forget(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("what is older than the retention could not be deleted; it is tried again", "err", err)
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}
