package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// FilteredBatch is a batch of the journal with the filter of its subjects; the filter
// is nil when the batch has none.
type FilteredBatch struct {
	ID     int64
	Filter []byte
}

// BatchFilters returns the batches of an account's applying runs with ids below
// before, newest first; 0 begins with the newest.
func (s *Store) BatchFilters(ctx context.Context, account string, before int64, limit int) ([]FilteredBatch, error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	batches, err := collect(ctx, s.db, func(r Rows) (b FilteredBatch, err error) { return b, r.Scan(&b.ID, &b.Filter) },
		`SELECT journal.id, journal_subjects.filter FROM journal LEFT JOIN journal_subjects ON journal_subjects.batch = journal.id
WHERE journal.account = $1 AND NOT journal.preview AND journal.id < $2 ORDER BY journal.id DESC LIMIT $3`, account, before, pageSize(limit))
	return batches, in("store: read the journal's filters", err)
}

// Batch returns one batch of the journal. CodeNotFound.
func (s *Store) Batch(ctx context.Context, id int64) (lockstep.Batch, error) {
	batches, err := collect(ctx, s.db, scanBatch, `SELECT `+batchColumns+` FROM journal WHERE id = $1`, id)
	if err != nil {
		return lockstep.Batch{}, in("store: read batch", err)
	}
	if len(batches) == 0 {
		return lockstep.Batch{}, &lockstep.Error{Code: lockstep.CodeNotFound, Op: "store: read batch", Msg: "The batch is not in the journal."}
	}
	return batches[0], nil
}

// FindingsAbout returns an account's newest findings about records or contacts.
func (s *Store) FindingsAbout(ctx context.Context, account string, records []lockstep.ID, contacts []lockstep.ContactID, limit int) ([]lockstep.Finding, error) {
	w, ok := about(account, records, contacts)
	if !ok {
		return nil, nil
	}
	w.args = append(w.args, pageSize(limit))
	findings, err := collect(ctx, s.db, scanFinding, `SELECT `+findingColumns+` FROM findings`+w.text.String()+` ORDER BY at DESC, id DESC LIMIT `+list(len(w.args), 1), w.args...)
	return findings, in("store: read findings", err)
}

// ConflictsAbout returns an account's newest conflicts about records or contacts,
// those that nobody has decided first.
func (s *Store) ConflictsAbout(ctx context.Context, account string, records []lockstep.ID, contacts []lockstep.ContactID, limit int) ([]lockstep.Conflict, error) {
	w, ok := about(account, records, contacts)
	if !ok {
		return nil, nil
	}
	w.args = append(w.args, pageSize(limit))
	conflicts, err := collect(ctx, s.db, func(r Rows) (lockstep.Conflict, error) { return scanConflict(r) },
		`SELECT `+conflictColumns+` FROM conflicts`+w.text.String()+` ORDER BY resolved, detected_at DESC, id DESC LIMIT `+list(len(w.args), 1), w.args...)
	return conflicts, in("store: read conflicts", err)
}

// about chooses rows by account and by record or contact; false without either.
func about(account string, records []lockstep.ID, contacts []lockstep.ContactID) (*filter, bool) {
	w := &filter{}
	w.and("account = ?", account)
	args := w.args
	var parts string
	add := func(column string, n int) {
		if n > 0 {
			if parts != "" {
				parts += " OR "
			}
			parts += column + " IN (" + list(len(args)-n+1, n) + ")"
		}
	}
	for _, id := range records {
		args = append(args, recordID(id))
	}
	add("record", len(records))
	for _, id := range contacts {
		args = append(args, string(id))
	}
	add("contact", len(contacts))
	if parts == "" {
		return w, false
	}
	w.args = args
	w.text.WriteString(" AND (" + parts + ")")
	return w, true
}
