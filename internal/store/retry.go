package store

import (
	"context"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// Retries returns the records of an account that wait for another attempt, in no order.
func (s *Store) Retries(ctx context.Context, account string) ([]lockstep.Retry, error) {
	all, err := collect(ctx, s.db, scanRetry, `SELECT table_name, record, finding, attempts, next FROM retries WHERE account = $1`, account)
	return all, in("store: read retries", err)
}

func scanRetry(r Rows) (x lockstep.Retry, err error) {
	var record string
	var attempts, next int64
	if err := r.Scan(&x.Ref.Table, &record, &x.Finding, &attempts, &next); err != nil {
		return x, err
	}
	x.Attempts, x.Next = int(attempts), fromMicros(next)
	return x, parseID(record, &x.Ref.ID, "retry")
}

// Waiting returns the latest findings about the records of an account that wait for
// another attempt, in the order of their ids. after is the last id of the page before.
func (s *Store) Waiting(ctx context.Context, account, after string, limit int) ([]lockstep.Finding, error) {
	const op = "store: read what is tried again"
	findings, err := collect(ctx, s.db, scanFinding, `SELECT `+findingColumns+` FROM findings
WHERE id IN (SELECT finding FROM retries WHERE account = $1 AND finding > $2 ORDER BY finding LIMIT $3) ORDER BY id`, account, after, pageSize(limit))
	if err == nil {
		err = s.addRetries(ctx, findings)
	}
	return findings, in(op, err)
}

// Finding returns one finding. CodeNotFound.
func (s *Store) Finding(ctx context.Context, id string) (lockstep.Finding, error) {
	const op = "store: read finding"
	found, err := collect(ctx, s.db, scanFinding, `SELECT `+findingColumns+` FROM findings WHERE id = $1`, id)
	if err == nil && len(found) == 0 {
		err = &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: "There is no finding with this id."}
	}
	if err == nil {
		err = s.addRetries(ctx, found)
	}
	if err != nil {
		return lockstep.Finding{}, in(op, err)
	}
	return found[0], nil
}

// RetryNow has the record of a finding tried again by the next run.
func (s *Store) RetryNow(ctx context.Context, f lockstep.Finding) error {
	return in("store: retry", s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO retries (account, table_name, record, finding, attempts, next) VALUES ($1, $2, $3, $4, 0, $5)
ON CONFLICT (account, table_name, record) DO UPDATE SET next = excluded.next`, f.Account, f.Table, recordID(f.Record), f.ID, micros(s.now()))
		return err
	}))
}

// putRetries stores when records are tried again, and forgets those that were taken.
func putRetries(ctx context.Context, tx Tx, account string, retries []lockstep.Retry, taken []lockstep.Ref) error {
	for _, ref := range taken {
		if _, err := tx.Exec(ctx, `DELETE FROM retries WHERE account = $1 AND table_name = $2 AND record = $3`, account, ref.Table, recordID(ref.ID)); err != nil {
			return err
		}
	}
	last := make(map[lockstep.Ref]int, len(retries)) // PostgreSQL refuses a statement that writes a row twice
	for i := range retries {
		last[retries[i].Ref] = i
	}
	kept := make([]*lockstep.Retry, 0, len(last))
	for i := range retries {
		if last[retries[i].Ref] == i {
			kept = append(kept, &retries[i])
		}
	}
	_, err := insert(ctx, tx, `INSERT INTO retries (account, table_name, record, finding, attempts, next) VALUES`,
		`ON CONFLICT (account, table_name, record) DO UPDATE SET finding = excluded.finding, attempts = excluded.attempts, next = excluded.next`,
		6, len(kept), func(args []any, i int) []any {
			r := kept[i]
			return append(args, account, r.Ref.Table, recordID(r.Ref.ID), r.Finding, int64(r.Attempts), micros(r.Next))
		})
	return err
}

// addRetries tells of findings of one account when what they are about is tried again.
func (s *Store) addRetries(ctx context.Context, findings []lockstep.Finding) error {
	for some := range slices.Chunk(findings, maxParams) {
		args := []any{some[0].Account}
		for i := range some {
			if !some[i].Record.IsZero() {
				args = append(args, recordID(some[i].Record))
			}
		}
		if len(args) == 1 {
			continue
		}
		waiting, err := collect(ctx, s.db, scanRetry, `SELECT table_name, record, finding, attempts, next FROM retries WHERE account = $1 AND record IN (`+list(2, len(args)-1)+`)`, args...)
		if err != nil {
			return err
		}
		by := make(map[lockstep.Ref]*lockstep.Retry, len(waiting))
		for i := range waiting {
			by[waiting[i].Ref] = &waiting[i]
		}
		for i := range some {
			f := &some[i]
			if r := by[lockstep.Ref{Table: f.Table, ID: f.Record}]; r != nil && (f.Code == lockstep.FindingRejected || r.Finding == f.ID) {
				f.Retry = r
			}
		}
	}
	return nil
}
