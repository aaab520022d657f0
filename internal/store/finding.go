package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Findings returns a run's findings in the order of their ids, which is the order
// in which they were made unless the engine chose ids. after is the last id of the
// page before.
func (s *Store) Findings(ctx context.Context, run, after string, limit int) ([]lockstep.Finding, error) {
	findings, err := collect(ctx, s.db, scanFinding, `SELECT `+findingColumns+` FROM findings
WHERE run = $1 AND id > $2 ORDER BY id LIMIT $3`, run, after, pageSize(limit))
	if err == nil {
		err = s.addRetries(ctx, findings)
	}
	return findings, in("store: read findings", err)
}

const findingColumns = `id, run, account, code, table_name, record, contact, list, field, message, hint, at`

func scanFinding(r Rows) (lockstep.Finding, error) {
	var f lockstep.Finding
	var record, contact string
	var at int64
	if err := r.Scan(&f.ID, &f.Run, &f.Account, &f.Code, &f.Table, &record, &contact, &f.List, &f.Field, &f.Message, &f.Hint, &at); err != nil {
		return f, err
	}
	f.Contact, f.At = lockstep.ContactID(contact), fromMicros(at)
	return f, parseID(record, &f.Record, "finding "+f.ID)
}

// addFindings stores a commit's findings and returns how many the run has already: a
// slice that is worked again after a crash tells the same ones again.
func (s *Store) addFindings(ctx context.Context, tx Tx, c lockstep.Commit) (again int64, err error) {
	now := s.now()
	added, err := insert(ctx, tx, `INSERT INTO findings (id, run, account, code, table_name, record, contact, list, field, message, hint, at) VALUES`, `ON CONFLICT (id) DO NOTHING`,
		12, len(c.Findings), func(args []any, i int) []any {
			f := c.Findings[i]
			if f.ID == "" {
				f.ID = lockstep.NewID(now).String()
			}
			if f.At.IsZero() {
				f.At = now
			}
			return append(args, f.ID, c.Run, c.Account, f.Code, f.Table, recordID(f.Record), string(f.Contact), f.List, clean(f.Field), clean(f.Message), clean(f.Hint), micros(f.At))
		})
	return int64(len(c.Findings)) - added, err
}

// recordID and parseID carry a record id as columns do; the zero id is empty.
func recordID(id lockstep.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func parseID(s string, id *lockstep.ID, what string) error {
	if s == "" {
		return nil
	}
	var err error
	if *id, err = lockstep.ParseID(s); err != nil {
		return damaged(what)
	}
	return nil
}
