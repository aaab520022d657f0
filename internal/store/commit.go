package store

import (
	"context"
	"encoding/json"

	"github.com/lockstep-sync/lockstep"
)

// Commit stores everything that follows from one acknowledged step of a run, all of
// it or nothing. CodeConflict, with nothing stored, when the run is not in process,
// when another worker has taken it over, when a batch has ended already, when a
// blob to be replaced is gone, or when a name is taken.
func (s *Store) Commit(ctx context.Context, c lockstep.Commit) error {
	const op = "store: commit"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		account, _, counts, err := hold(ctx, tx, op, c.Run)
		if err != nil {
			return err
		}
		if c.Account != account {
			return invalid(op, "account", "The step is of account %q, its run of %q.", c.Account, account)
		}
		for _, end := range c.Batches {
			if err := s.endBatch(ctx, tx, op, account, end); err != nil {
				return err
			}
		}
		g := growth{}
		steps := []func() error{
			func() error { return dropLinks(ctx, tx, g, op, account, c.DropLinks) },
			func() error { return addLinks(ctx, tx, g, account, c.Links, c.LinkIDs) },
			func() error { return dropMembers(ctx, tx, g, op, c.DropMembers) },
			func() error { return addMembers(ctx, tx, g, c.Members) },
			func() error { return g.store(ctx, tx) },
			func() error {
				again, err := s.addFindings(ctx, tx, c)
				c.Counts.Findings -= min(again, c.Counts.Findings)
				return err
			},
			func() error { return putRetries(ctx, tx, account, c.Retries, c.Taken) },
			func() error { return s.addConflicts(ctx, tx, c) },
			func() error { return setCursors(ctx, tx, account, c.Cursors) },
			func() error { return replaceLists(ctx, tx, op, account, c.Lists) },
			func() error { return replaceLabels(ctx, tx, op, account, c.Labels) },
			func() error { return replaceMappings(ctx, tx, op, account, c.Mappings) },
			func() error { return s.putChoices(ctx, tx, c.Choices) },
			// Last, because every writer of the ledger waits for the one before.
			func() error { return s.addConsent(ctx, tx, c.Run, c.Consent, c.Restrictions, c.Lifted) },
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		if c.Progress != nil {
			if err := saveProgress(ctx, tx, c.Run, c.Progress); err != nil {
				return err
			}
		}
		return addTotals(ctx, tx, c, counts)
	}))
}

// addTotals brings what people see of the run up to date.
func addTotals(ctx context.Context, tx Tx, c lockstep.Commit, counts lockstep.Counts) error {
	var count, calls, stage, price *string // nil leaves what is there
	if c.Counts != (lockstep.Counts{}) {
		counts.Add(c.Counts)
		doc, err := json.Marshal(counts)
		if err != nil {
			return err
		}
		count = new(string(doc))
	}
	if c.Calls != (lockstep.Calls{}) {
		doc, err := json.Marshal(c.Calls)
		if err != nil {
			return err
		}
		calls = new(string(doc))
	}
	if c.Stage != "" {
		stage = new(clean(c.Stage))
	}
	if c.Price != nil {
		doc, err := json.Marshal(c.Price)
		if err != nil {
			return err
		}
		price = new(string(doc))
	}
	if count == nil && calls == nil && stage == nil && price == nil {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE runs SET counts = COALESCE($2, counts), calls = COALESCE($3, calls), stage = COALESCE($4, stage), price = COALESCE($5, price) WHERE id = $1`, c.Run, count, calls, stage, price)
	return err
}
