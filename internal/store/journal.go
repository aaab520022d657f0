package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

const batchColumns = `id, run, account, kind, state, job, size, planned, ended, payload, crc`

func scanBatch(r Rows) (lockstep.Batch, error) {
	var b lockstep.Batch
	var kind, state, size, planned, ended, crc int64
	var job string
	if err := r.Scan(&b.ID, &b.Run, &b.Account, &kind, &state, &job, &size, &planned, &ended, &b.Payload, &crc); err != nil {
		return b, err
	}
	b.Kind, b.State, b.Job, b.Rows = lockstep.ChangeKind(kind), lockstep.ChangeState(state), lockstep.JobID(job), int(size)
	b.Planned, b.Ended = fromMicros(planned), fromMicros(ended)
	if batchSum(b.ID, b.Run, b.Kind, b.Payload) != crc || state < int64(lockstep.Planned) || state > int64(lockstep.Dropped) {
		return b, damaged("journal batch " + strconv.FormatInt(b.ID, 10))
	}
	return b, nil
}

func batchSum(id int64, run string, kind lockstep.ChangeKind, payload []byte) int64 {
	return checksum(payload, strconv.FormatInt(id, 10), run, kind.String())
}

// Plan journals a batch of changes and returns its id. When it returns, the batch
// is on disk: the call that it announces may be made. CodeConflict when the run is
// not in process.
func (s *Store) Plan(ctx context.Context, b lockstep.Batch) (int64, error) {
	const op = "store: plan batch"
	if b.State != 0 && b.State != lockstep.Planned {
		return 0, invalid(op, "state", "A new batch is planned, not %s.", b.State)
	}
	var id int64
	err := s.InTx(ctx, func(tx Tx) error {
		account, preview, _, err := hold(ctx, tx, op, b.Run)
		if err != nil {
			return err
		}
		if b.Account != account {
			return invalid(op, "account", "The batch is of account %q, its run of %q.", b.Account, account)
		}
		if id, err = take(ctx, tx, "journal", 1); err != nil {
			return err
		}
		payload := notNil(b.Payload)
		_, err = tx.Exec(ctx, `INSERT INTO journal (id, run, account, preview, kind, state, job, size, planned, ended, payload, crc)
VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, 0, $9, $10)`,
			id, b.Run, account, preview, int64(b.Kind), string(b.Job), int64(b.Rows), micros(s.now()), payload, batchSum(id, b.Run, b.Kind, payload))
		return err
	})
	if err != nil {
		return 0, in(op, err)
	}
	return id, nil
}

// MarkSent notes that the call of a batch went out and which job the other side
// answered with; job may be empty. It may be repeated with the job once that is
// known. CodeConflict when the batch has ended or its run is not in process.
func (s *Store) MarkSent(ctx context.Context, id int64, job lockstep.JobID) error {
	const op = "store: mark batch sent"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		var run string
		err := tx.QueryRow(ctx, `SELECT run FROM journal WHERE id = $1`, id).Scan(&run)
		if err != nil {
			return missing(op, err, "journal batch", strconv.FormatInt(id, 10))
		}
		if _, _, _, err := hold(ctx, tx, op, run); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE journal SET state = 2, job = $2 WHERE id = $1 AND state IN (1, 2)`, id, string(job))
		if err == nil && n == 0 {
			err = conflict(op, "Batch %d is neither planned nor sent.", id)
		}
		return err
	}))
}

// consentTypes are the sync types of the consent lane, for a statement.
var consentTypes = func() string {
	var names []string
	for _, t := range []lockstep.SyncType{lockstep.SyncSuppressions, lockstep.SyncUnsubscribes, lockstep.SyncPreferences, lockstep.SyncOptIn} {
		names = append(names, "'"+string(t)+"'")
	}
	return strings.Join(names, ", ")
}()

// OpenBatches returns an account's batches whose outcome is not known, in the order
// in which they were planned: planned by a run that applies, sent, or unknown. They
// are settled before anything else is sent. Those of the consent lane, which works
// beside all other runs, are not among them.
func (s *Store) OpenBatches(ctx context.Context, account string) ([]lockstep.Batch, error) {
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal
WHERE account = $1 AND state IN (1, 2, 5) AND (state <> 1 OR preview = $2)
AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = journal.run AND runs.type IN (`+consentTypes+`)) ORDER BY id`, account, false)
	return batches, in("store: read open batches", err)
}

// OpenConsentBatches returns the open batches of an account's applying runs of one
// type of the consent lane.
func (s *Store) OpenConsentBatches(ctx context.Context, account string, t lockstep.SyncType) ([]lockstep.Batch, error) {
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal
WHERE account = $1 AND state IN (1, 2, 5) AND preview = $2
AND EXISTS (SELECT 1 FROM runs WHERE runs.id = journal.run AND runs.type = $3) ORDER BY id`, account, false, string(t))
	return batches, in("store: read open batches", err)
}

// ImportsUnderWay reports whether an import of contacts that was planned before a
// time may still be carried out.
func (s *Store) ImportsUnderWay(ctx context.Context, account string, before time.Time) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT count(*) FROM journal
WHERE account = $1 AND state IN (1, 2, 5) AND preview = $2 AND kind = $3 AND planned < $4`,
		account, false, int64(lockstep.WriteContact), micros(before)).Scan(&n)
	return n > 0, in("store: read open batches", err)
}

// Batches returns the batches of a run with ids above after, in their order.
func (s *Store) Batches(ctx context.Context, run string, after int64, limit int) ([]lockstep.Batch, error) {
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal
WHERE run = $1 AND id > $2 ORDER BY id LIMIT $3`, run, after, pageSize(limit))
	return batches, in("store: read batches", err)
}

// PlannedBatches is Batches without those that were sent, ended or dropped: what is
// left to do of a preview that is being applied.
func (s *Store) PlannedBatches(ctx context.Context, run string, after int64, limit int) ([]lockstep.Batch, error) {
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal
WHERE run = $1 AND id > $2 AND state = 1 ORDER BY id LIMIT $3`, run, after, pageSize(limit))
	return batches, in("store: read batches", err)
}

// endBatch notes the outcome of an open batch of the account. A preview's batch may
// be ended by the run that applies it.
func (s *Store) endBatch(ctx context.Context, tx Tx, op, account string, end lockstep.BatchEnd) error {
	var run, owner string
	var kind int64
	err := tx.QueryRow(ctx, `SELECT run, account, kind FROM journal WHERE id = $1`, end.ID).Scan(&run, &owner, &kind)
	if err == nil && owner != account {
		return invalid(op, "batches", "Batch %d belongs to another account.", end.ID)
	}
	if err != nil {
		return missing(op, err, "journal batch", strconv.FormatInt(end.ID, 10))
	}
	ended := micros(s.now())
	switch end.State {
	case lockstep.Acknowledged, lockstep.Refused, lockstep.Dropped:
	case lockstep.Unknown, lockstep.Planned: // Planned: it turned out that nothing arrived
		ended = 0
	default:
		return invalid(op, "state", "A batch cannot end as %s.", end.State)
	}
	var n int64
	if end.Payload == nil {
		n, err = tx.Exec(ctx, `UPDATE journal SET state = $2, ended = $3 WHERE id = $1 AND state IN (1, 2, 5)`,
			end.ID, int64(end.State), ended)
	} else {
		n, err = tx.Exec(ctx, `UPDATE journal SET state = $2, ended = $3, payload = $4, crc = $5 WHERE id = $1 AND state IN (1, 2, 5)`,
			end.ID, int64(end.State), ended, end.Payload, batchSum(end.ID, run, lockstep.ChangeKind(kind), end.Payload))
	}
	if err == nil && n == 0 {
		err = conflict(op, "Batch %d has ended already.", end.ID)
	}
	if err == nil && end.State == lockstep.Acknowledged && end.Payload != nil {
		err = addFilters(ctx, tx, journalFilters, []int64{end.ID}, [][]byte{journal.Subjects(end.Payload)})
	}
	return err
}

// notNil keeps an empty payload apart from NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
