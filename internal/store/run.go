package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const runColumns = `id, account, type, list, mode, preview, status, stage, counts, calls, created, started, ended, error, hint, cancel_requested, undoes, undo_record, undo_field, approved_by, code, scheduled, again, price`

func scanRun(r interface{ Scan(...any) error }) (lockstep.Run, error) {
	var run lockstep.Run
	var syncType, mode, status, counts, calls, code, price string
	var created, started, ended int64
	err := r.Scan(&run.ID, &run.Account, &syncType, &run.List, &mode, &run.Preview, &status, &run.Stage, &counts, &calls,
		&created, &started, &ended, &run.Error, &run.Hint, &run.CancelRequested, &run.Undoes, &run.UndoRecord, &run.UndoField, &run.ApprovedBy, &code, &run.Scheduled, &run.Again, &price)
	if err != nil {
		return lockstep.Run{}, err
	}
	run.Type, run.Mode, run.Status = lockstep.SyncType(syncType), lockstep.Mode(mode), lockstep.RunStatus(status)
	run.Code = lockstep.Code(code)
	run.Created, run.Started, run.Ended = fromMicros(created), fromMicros(started), fromMicros(ended)
	if json.Unmarshal([]byte(counts), &run.Counts) != nil || json.Unmarshal([]byte(calls), &run.Calls) != nil || !knownStatus(run.Status) ||
		price != "" && json.Unmarshal([]byte(price), &run.Price) != nil {
		return lockstep.Run{}, damaged("run " + run.ID)
	}
	return run, nil
}

func knownStatus(s lockstep.RunStatus) bool {
	switch s {
	case lockstep.RunQueued, lockstep.RunInProcess, lockstep.RunCompleted, lockstep.RunCompletedWithErrors,
		lockstep.RunFailed, lockstep.RunCancelled, lockstep.RunPreviewed:
		return true
	}
	return false
}

// CreateRun stores a new, queued run. See CreateRunIn.
func (s *Store) CreateRun(ctx context.Context, run lockstep.Run) (lockstep.Run, error) {
	err := s.InTx(ctx, func(tx Tx) (err error) {
		run, err = s.CreateRunIn(ctx, tx, run)
		return err
	})
	return run, err
}

// CreateRunIn stores a new, queued run within tx and returns it with its id and
// time of creation. CodeConflict: a run of the same account, type and list is
// queued or in process. CodeNotFound: there is no such account.
func (s *Store) CreateRunIn(ctx context.Context, tx Tx, run lockstep.Run) (lockstep.Run, error) {
	const op = "store: create run"
	if run.ID == "" {
		run.ID = lockstep.NewID(s.now()).String()
	}
	if run.Created.IsZero() {
		run.Created = s.now()
	}
	if run.Mode == "" {
		run.Mode = lockstep.ModeApply
	}
	if run.Mode != lockstep.ModeApply && run.Mode != lockstep.ModePreview {
		return run, invalid(op, "mode", "A run is of mode %q or %q, not %.40q.", lockstep.ModeApply, lockstep.ModePreview, run.Mode)
	}
	if run.Preview != "" && run.Mode != lockstep.ModeApply {
		return run, invalid(op, "preview", "A preview cannot apply another preview.")
	}
	if (run.Type == lockstep.SyncUndo) != (run.Undoes != "") {
		return run, invalid(op, "undoes", "An undo, and nothing else, says which run it reverses.")
	}
	run.Status = lockstep.RunQueued
	run.Created = fromMicros(micros(run.Created))
	run.Started, run.Ended = time.Time{}, time.Time{}
	counts, _ := json.Marshal(run.Counts)
	calls, _ := json.Marshal(run.Calls)
	price := ""
	if run.Price != nil {
		doc, _ := json.Marshal(run.Price)
		price = string(doc)
	}
	_, err := tx.Exec(ctx, `INSERT INTO runs (`+runColumns+`, fence, job, progress, progress_crc)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, '', '', $12, $13, $14, $15, $16, '', $17, '', $18, 0, 0, NULL, 0)`,
		run.ID, run.Account, string(run.Type), run.List, string(run.Mode), run.Preview, string(run.Status), clean(run.Stage),
		string(counts), string(calls), micros(run.Created), run.CancelRequested, run.Undoes, run.UndoRecord, run.UndoField, clean(run.ApprovedBy), run.Scheduled, price)
	if lockstep.CodeOf(err) == lockstep.CodeConflict {
		return run, conflict(op, "A %s run of this account and list is queued or in process already.", run.Type)
	}
	return run, in(op, err)
}

// Run returns a run. CodeNotFound.
func (s *Store) Run(ctx context.Context, id string) (lockstep.Run, error) {
	return runIn(ctx, s.db, id)
}

// RunIn is Run within tx.
func (s *Store) RunIn(ctx context.Context, tx Tx, id string) (lockstep.Run, error) {
	return runIn(ctx, tx, id)
}

func runIn(ctx context.Context, r Reader, id string) (lockstep.Run, error) {
	run, err := scanRun(r.QueryRow(ctx, `SELECT `+runColumns+` FROM runs WHERE id = $1`, id))
	return run, missing("store: read run", err, "run", id)
}

// LiveRunIn returns the queued or running run of an account, type and list, if
// there is one, within tx. CodeNotFound.
func (s *Store) LiveRunIn(ctx context.Context, tx Tx, account string, t lockstep.SyncType, list string) (lockstep.Run, error) {
	run, err := scanRun(tx.QueryRow(ctx, `SELECT `+runColumns+` FROM runs
WHERE account = $1 AND type = $2 AND list = $3 AND status IN ('queued', 'in_process')`, account, string(t), list))
	return run, missing("store: read run", err, "live run of", string(t))
}

// RunFilter chooses runs; zero fields choose all.
type RunFilter struct {
	Type         lockstep.SyncType
	Mode         lockstep.Mode
	Status       lockstep.RunStatus
	Account      string
	List         string
	StartedAfter time.Time
	// Before is the id of the last run of the page before.
	Before string
	// Limit is the most runs to return: 100 when it is 0, never more than 1,000.
	Limit int
}

// Runs returns runs, newest first.
func (s *Store) Runs(ctx context.Context, f RunFilter) ([]lockstep.Run, error) {
	const op = "store: list runs"
	var w filter
	if f.Type != "" {
		w.and("type = ?", string(f.Type))
	}
	if f.Mode != "" {
		w.and("mode = ?", string(f.Mode))
	}
	if f.Status != "" {
		w.and("status = ?", string(f.Status))
	}
	if f.Account != "" {
		w.and("account = ?", f.Account)
	}
	if f.List != "" {
		w.and("list = ?", f.List)
	}
	if !f.StartedAfter.IsZero() {
		w.and("started > ?", micros(f.StartedAfter))
	}
	if f.Before != "" {
		last, err := s.Run(ctx, f.Before)
		if err != nil {
			return nil, err
		}
		w.and("(created, id) < (?, ?)", micros(last.Created), last.ID)
	}
	w.args = append(w.args, pageSize(f.Limit))
	runs, err := collect(ctx, s.db, func(r Rows) (lockstep.Run, error) { return scanRun(r) },
		`SELECT `+runColumns+` FROM runs`+w.text.String()+` ORDER BY created DESC, id DESC LIMIT `+list(len(w.args), 1), w.args...)
	return runs, in(op, err)
}

// LiveRuns returns every run that is queued or in process, oldest first.
func (s *Store) LiveRuns(ctx context.Context) ([]lockstep.Run, error) {
	runs, err := collect(ctx, s.db, func(r Rows) (lockstep.Run, error) { return scanRun(r) },
		`SELECT `+runColumns+` FROM runs WHERE status IN ('queued', 'in_process') ORDER BY created, id`)
	return runs, in("store: list runs", err)
}

// SetRunJobIn notes, within tx, which job of the job runner carries a run.
func (s *Store) SetRunJobIn(ctx context.Context, tx Tx, id string, job int64) error {
	_, err := tx.Exec(ctx, `UPDATE runs SET job = $2 WHERE id = $1`, id, job)
	return in("store: set job", err)
}

// RunJobIn returns, within tx, which job carries a run; 0 = none.
func (s *Store) RunJobIn(ctx context.Context, tx Tx, id string) (int64, error) {
	var job int64
	err := tx.QueryRow(ctx, `SELECT job FROM runs WHERE id = $1`, id).Scan(&job)
	return job, missing("store: read job", err, "run", id)
}

// fenceKey carries which turn of work on which run a context belongs to.
type fenceKey struct{}

type fence struct {
	run  string
	turn int64
}

// ErrAccountBusy is StartRun's answer while another run works on the account's lists.
var ErrAccountBusy = errors.New("another run works on the lists of the account")

// StartRun begins one turn of work on a run: the run is in process from now on, and
// the returned context stands for this turn. Plan, MarkSent, Commit and the other
// writes of a run refuse, with CodeConflict, a context of an earlier turn: a worker
// that was believed dead and wakes up can no longer store anything. CodeConflict
// also when the run has ended. ErrAccountBusy: another run works on who is who and
// who is where in the account; the database sees to it that there is one such run.
func (s *Store) StartRun(ctx context.Context, id string) (context.Context, lockstep.Run, error) {
	const op = "store: start run"
	var run lockstep.Run
	var turn int64
	err := s.InTx(ctx, func(tx Tx) error {
		err := tx.QueryRow(ctx, `UPDATE runs SET status = 'in_process', fence = fence + 1,
  started = CASE WHEN started = 0 THEN $2 ELSE started END
WHERE id = $1 AND status IN ('queued', 'in_process') RETURNING fence`, id, micros(s.now())).Scan(&turn)
		if lockstep.CodeOf(err) == lockstep.CodeConflict {
			return ErrAccountBusy
		}
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
			return err
		}
		var rerr error
		if run, rerr = runIn(ctx, tx, id); rerr != nil {
			return rerr
		}
		if err != nil {
			return conflict(op, "The run has ended: it is %s.", run.Status)
		}
		return nil
	})
	if errors.Is(err, ErrAccountBusy) {
		return ctx, run, err
	}
	if err != nil {
		return ctx, run, in(op, err)
	}
	return context.WithValue(ctx, fenceKey{}, fence{id, turn}), run, nil
}

// hold makes sure that the run may be written to by ctx, and keeps it so until the
// transaction ends.
func hold(ctx context.Context, tx Tx, op, id string) (account string, preview bool, counts lockstep.Counts, err error) {
	var status, mode, doc string
	var turn int64
	// Writing the row locks it on PostgreSQL; SQLite has one writer anyway.
	err = tx.QueryRow(ctx, `UPDATE runs SET fence = fence WHERE id = $1 RETURNING account, mode, status, counts, fence`, id).
		Scan(&account, &mode, &status, &doc, &turn)
	if err != nil {
		return "", false, counts, missing(op, err, "run", id)
	}
	if status != string(lockstep.RunInProcess) {
		return "", false, counts, conflict(op, "The run is %s, not in process; nothing was stored.", status)
	}
	if f, ok := ctx.Value(fenceKey{}).(fence); ok && f.run == id && f.turn != turn {
		return "", false, counts, conflict(op, "Another worker has taken over the run; nothing was stored.")
	}
	if err := json.Unmarshal([]byte(doc), &counts); err != nil {
		return "", false, counts, damaged("run " + id)
	}
	return account, mode == string(lockstep.ModePreview), counts, nil
}

// EndRun ends a run. status is one for which Ended reports true; message and hint
// say why a run failed, for people. CodeConflict when it has ended already, or
// when a queued run is to end otherwise than cancelled or failed.
func (s *Store) EndRun(ctx context.Context, id string, status lockstep.RunStatus, message, hint string) (lockstep.Run, error) {
	var run lockstep.Run
	err := s.InTx(ctx, func(tx Tx) (err error) {
		run, err = s.EndRunIn(ctx, tx, id, status, message, hint)
		return err
	})
	return run, err
}

// FailRun ends a run as failed because of an error. See EndRun.
func (s *Store) FailRun(ctx context.Context, id string, cause *lockstep.Error) (lockstep.Run, error) {
	var run lockstep.Run
	err := s.InTx(ctx, func(tx Tx) (err error) {
		run, err = s.FailRunIn(ctx, tx, id, cause)
		return err
	})
	return run, err
}

// FailRunIn is FailRun within tx.
func (s *Store) FailRunIn(ctx context.Context, tx Tx, id string, cause *lockstep.Error) (lockstep.Run, error) {
	if _, err := tx.Exec(ctx, `UPDATE runs SET code = $2 WHERE id = $1 AND status IN ('queued', 'in_process')`, id, string(cause.Code)); err != nil {
		return lockstep.Run{}, err
	}
	run, err := s.EndRunIn(ctx, tx, id, lockstep.RunFailed, cause.Msg, cause.Hint)
	if err == nil {
		run.Code = cause.Code
	}
	return run, err
}

// SetUnscheduledIn notes, within tx, that a person asked for a run that its schedule
// had queued, and returns it.
func (s *Store) SetUnscheduledIn(ctx context.Context, tx Tx, id string) (lockstep.Run, error) {
	if _, err := tx.Exec(ctx, `UPDATE runs SET scheduled = $2 WHERE id = $1`, id, false); err != nil {
		return lockstep.Run{}, in("store: set unscheduled", err)
	}
	return runIn(ctx, tx, id)
}

// RunAgainIn notes, within tx, that a run is to be followed by another one as soon as it
// has ended, and returns it with the other one's id. A person asked: a run that waits
// for the window of its schedule does not wait any longer.
func (s *Store) RunAgainIn(ctx context.Context, tx Tx, id string) (lockstep.Run, error) {
	const op = "store: run again"
	_, err := tx.Exec(ctx, `UPDATE runs SET scheduled = $3, again = CASE WHEN again = '' THEN $2 ELSE again END WHERE id = $1 AND status IN ('queued', 'in_process')`,
		id, lockstep.NewID(s.now()).String(), false)
	if err != nil {
		return lockstep.Run{}, in(op, err)
	}
	return runIn(ctx, tx, id)
}

// EndRunIn is EndRun within tx.
func (s *Store) EndRunIn(ctx context.Context, tx Tx, id string, status lockstep.RunStatus, message, hint string) (lockstep.Run, error) {
	const op = "store: end run"
	if !status.Ended() || !knownStatus(status) {
		return lockstep.Run{}, invalid(op, "status", "A run cannot end as %.40q.", status)
	}
	n, err := tx.Exec(ctx, `UPDATE runs SET status = $2, ended = $3, error = $4, hint = $5, stage = ''
WHERE id = $1 AND (status = 'in_process' OR (status = 'queued' AND $2 IN ('cancelled', 'failed')))`,
		id, string(status), micros(s.now()), clean(message), clean(hint))
	if err != nil {
		return lockstep.Run{}, in(op, err)
	}
	run, err := runIn(ctx, tx, id)
	if err != nil {
		return run, err
	}
	if n == 0 {
		return run, conflict(op, "A run that is %s cannot become %s.", run.Status, status)
	}
	if f, ok := ctx.Value(fenceKey{}).(fence); ok && f.run == id {
		var turn int64
		if err := tx.QueryRow(ctx, `SELECT fence FROM runs WHERE id = $1`, id).Scan(&turn); err != nil {
			return run, in(op, err)
		}
		if turn != f.turn {
			return run, conflict(op, "Another worker has taken over the run.")
		}
	}
	if run.Scheduled && status == lockstep.RunCompleted && run.Counts.Quiet() {
		if _, err := tx.Exec(ctx, `UPDATE runs SET quiet = $2 WHERE id = $1`, id, true); err != nil {
			return run, in(op, err)
		}
	}
	return run, nil
}

// RequestCancel asks a run to end after its current batch. CodeConflict when it
// has ended.
func (s *Store) RequestCancel(ctx context.Context, id string) (lockstep.Run, error) {
	var run lockstep.Run
	err := s.InTx(ctx, func(tx Tx) (err error) {
		run, err = s.RequestCancelIn(ctx, tx, id)
		return err
	})
	return run, err
}

// RequestCancelIn is RequestCancel within tx.
func (s *Store) RequestCancelIn(ctx context.Context, tx Tx, id string) (lockstep.Run, error) {
	const op = "store: cancel run"
	n, err := tx.Exec(ctx, `UPDATE runs SET cancel_requested = $2 WHERE id = $1 AND status IN ('queued', 'in_process')`, id, true)
	if err != nil {
		return lockstep.Run{}, in(op, err)
	}
	run, err := runIn(ctx, tx, id)
	if err == nil && n == 0 {
		err = conflict(op, "The run has ended: it is %s.", run.Status)
	}
	return run, err
}

// CancelRequested reports whether a person asked the run to end.
func (s *Store) CancelRequested(ctx context.Context, id string) (bool, error) {
	var asked bool
	err := s.db.QueryRow(ctx, `SELECT cancel_requested FROM runs WHERE id = $1`, id).Scan(&asked)
	return asked, missing("store: read run", err, "run", id)
}

// SetStage says, for people, what a run is doing.
func (s *Store) SetStage(ctx context.Context, id, stage string) error {
	const op = "store: set stage"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		if _, _, _, err := hold(ctx, tx, op, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE runs SET stage = $2 WHERE id = $1`, id, clean(stage))
		return err
	}))
}

// Shelve puts a run that is in process back among the queued ones, so that it is in
// nobody's way until it is taken up again; stage says for people why.
func (s *Store) Shelve(ctx context.Context, id, stage string) error {
	const op = "store: shelve run"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		if _, _, _, err := hold(ctx, tx, op, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE runs SET status = 'queued', stage = $2 WHERE id = $1`, id, clean(stage))
		return err
	}))
}

// Progress returns the engine's private state of a run; nil when it has none.
func (s *Store) Progress(ctx context.Context, id string) ([]byte, error) {
	var blob []byte
	var crc int64
	err := s.db.QueryRow(ctx, `SELECT progress, progress_crc FROM runs WHERE id = $1`, id).Scan(&blob, &crc)
	if err != nil {
		return nil, missing("store: read progress", err, "run", id)
	}
	if blob != nil && checksum(blob, id) != crc {
		return nil, in("store: read progress", damaged("the progress of run "+id))
	}
	return blob, nil
}

// SaveProgress replaces the engine's private state of a run in process.
func (s *Store) SaveProgress(ctx context.Context, id string, blob []byte) error {
	const op = "store: save progress"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		if _, _, _, err := hold(ctx, tx, op, id); err != nil {
			return err
		}
		return saveProgress(ctx, tx, id, blob)
	}))
}

func saveProgress(ctx context.Context, tx Tx, id string, blob []byte) error {
	_, err := tx.Exec(ctx, `UPDATE runs SET progress = $2, progress_crc = $3 WHERE id = $1`, id, blob, checksum(blob, id))
	return err
}
