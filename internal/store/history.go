package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/subject"
)

// The logs whose pieces have filters of their subjects.
const (
	journalFilters = 1
	linkFilters    = 2
	memberFilters  = 3
)

// addFilters stores the filters of new pieces; nil = none could be made.
func addFilters(ctx context.Context, tx Tx, log int64, blobs []int64, filters [][]byte) error {
	var have []int
	for i := range filters {
		if filters[i] != nil {
			have = append(have, i)
		}
	}
	_, err := insert(ctx, tx, `INSERT INTO filters (log, blob, filter) VALUES`, `ON CONFLICT (log, blob) DO UPDATE SET filter = excluded.filter`, 3, len(have),
		func(args []any, i int) []any { return append(args, log, blobs[have[i]], filters[have[i]]) })
	return err
}

func dropFilters(ctx context.Context, tx Tx, log int64, blobs []int64) error {
	for _, blob := range blobs {
		if _, err := tx.Exec(ctx, `DELETE FROM filters WHERE log = $1 AND blob = $2`, log, blob); err != nil {
			return err
		}
	}
	return nil
}

// piece is a stored piece of a log with the filter of its subjects; nil = none.
type piece struct {
	id     int64
	filter []byte
}

// concerning returns the ids of the pieces that may be about one of the subjects.
func (s *Store) concerning(ctx context.Context, subjects []subject.Hash, q string, args ...any) ([]int64, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var p piece
		if err := rows.Scan(&p.id, &p.filter); err != nil {
			return nil, err
		}
		if subject.MayConcern(p.filter, subjects) {
			ids = append(ids, p.id)
		}
	}
	return ids, rows.Err()
}

// BatchesAbout returns the ids of the batches of an account's applying runs that may
// be about one of the subjects, newest first.
func (s *Store) BatchesAbout(ctx context.Context, account string, subjects []subject.Hash) ([]int64, error) {
	ids, err := s.concerning(ctx, subjects, `SELECT journal.id, filters.filter FROM journal LEFT JOIN filters ON filters.log = 1 AND filters.blob = journal.id
WHERE journal.account = $1 AND NOT journal.preview ORDER BY journal.id DESC`, account)
	return ids, in("store: read the journal's filters", err)
}

// LinksAbout hands over an account's link batches that may be about one of the
// subjects, oldest first. CodeConflict when they were rewritten meanwhile: begin
// again.
func (s *Store) LinksAbout(ctx context.Context, account string, subjects []subject.Hash, each func(lockstep.StoredBlob) error) error {
	const op = "store: read links"
	ids, err := s.concerning(ctx, subjects, `SELECT links.blob, filters.filter FROM links LEFT JOIN filters ON filters.log = 2 AND filters.blob = links.blob
WHERE links.account = $1 AND links.part = 0 ORDER BY links.blob`, account)
	if err != nil {
		return in(op, err)
	}
	for _, id := range ids {
		next := 0
		blob := lockstep.StoredBlob{ID: id}
		_, err := collect(ctx, s.db, func(r Rows) (struct{}, error) {
			var part, parts, crc int64
			var payload []byte
			if err := r.Scan(&part, &parts, &payload, &crc); err != nil {
				return struct{}{}, err
			}
			if int(part) != next || partSum(id, int(part), int(parts), account, payload) != crc {
				return struct{}{}, damaged(fmt.Sprintf("link batch %d", id))
			}
			next++
			blob.Payload = append(blob.Payload, payload...)
			return struct{}{}, nil
		}, `SELECT part, parts, payload, crc FROM links WHERE blob = $1 ORDER BY part`, id)
		if err == nil && next == 0 {
			err = conflict(op, "The links were rewritten meanwhile.")
		}
		if err != nil {
			return in(op, err)
		}
		if err := each(blob); err != nil {
			return err
		}
	}
	return nil
}

// MembersAbout is LinksAbout for the membership batches of a list.
func (s *Store) MembersAbout(ctx context.Context, listID string, subjects []subject.Hash, each func(lockstep.StoredBlob) error) error {
	const op = "store: read members"
	ids, err := s.concerning(ctx, subjects, `SELECT members.id, filters.filter FROM members LEFT JOIN filters ON filters.log = 3 AND filters.blob = members.id
WHERE members.list = $1 ORDER BY members.id`, listID)
	if err != nil {
		return in(op, err)
	}
	for _, id := range ids {
		var crc int64
		blob := lockstep.StoredBlob{ID: id}
		if err := s.db.QueryRow(ctx, `SELECT payload, crc FROM members WHERE id = $1`, id).Scan(&blob.Payload, &crc); err != nil {
			return in(op, err)
		}
		if checksum(blob.Payload, strconv.FormatInt(id, 10), listID) != crc {
			return in(op, damaged(fmt.Sprintf("membership batch %d", id)))
		}
		if err := each(blob); err != nil {
			return err
		}
	}
	return nil
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
	if err == nil {
		err = s.addRetries(ctx, findings)
	}
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
