package store

import (
	"context"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const conflictColumns = `id, run, account, table_name, record, contact, label, column_name, base_kind, base, crm_kind, crm, platform_kind, platform,
crm_at, platform_at, policy, winner, resolved, resolved_by, detected_at, resolved_at`

func scanConflict(r interface{ Scan(...any) error }) (lockstep.Conflict, error) {
	var c lockstep.Conflict
	var record, contact, policy, base, crm, platform string
	var baseKind, crmKind, platformKind, crmAt, platformAt, detected, resolved int64
	err := r.Scan(&c.ID, &c.Run, &c.Account, &c.Ref.Table, &record, &contact, &c.Label, &c.Column, &baseKind, &base, &crmKind, &crm, &platformKind, &platform,
		&crmAt, &platformAt, &policy, &c.Winner, &c.Resolved, &c.ResolvedBy, &detected, &resolved)
	if err != nil {
		return c, err
	}
	c.Contact, c.Policy = lockstep.ContactID(contact), lockstep.Winner(policy)
	c.Base = lockstep.CanonicalValue(lockstep.Kind(baseKind), base)
	c.CRM = lockstep.CanonicalValue(lockstep.Kind(crmKind), crm)
	c.Platform = lockstep.CanonicalValue(lockstep.Kind(platformKind), platform)
	c.CRMAt, c.PlatformAt, c.DetectedAt, c.ResolvedAt = fromMicros(crmAt), fromMicros(platformAt), fromMicros(detected), fromMicros(resolved)
	return c, parseID(record, &c.Ref.ID, "conflict "+c.ID)
}

// ConflictFilter chooses conflicts; zero fields choose all.
type ConflictFilter struct {
	Account string
	Run     string
	// Resolved chooses by whether a winner was decided; nil = both.
	Resolved *bool
	// Before is the id of the last conflict of the page before.
	Before string
	Limit  int
}

// Conflicts returns conflicts, newest first.
func (s *Store) Conflicts(ctx context.Context, f ConflictFilter) ([]lockstep.Conflict, error) {
	const op = "store: list conflicts"
	var w filter
	if f.Account != "" {
		w.and("account = ?", f.Account)
	}
	if f.Run != "" {
		w.and("run = ?", f.Run)
	}
	if f.Resolved != nil {
		w.and("resolved = ?", *f.Resolved)
	}
	if f.Before != "" {
		last, err := s.Conflict(ctx, f.Before)
		if err != nil {
			return nil, err
		}
		w.and("(detected_at, id) < (?, ?)", micros(last.DetectedAt), last.ID)
	}
	w.args = append(w.args, pageSize(f.Limit))
	conflicts, err := collect(ctx, s.db, func(r Rows) (lockstep.Conflict, error) { return scanConflict(r) },
		`SELECT `+conflictColumns+` FROM conflicts`+w.text.String()+` ORDER BY detected_at DESC, id DESC LIMIT `+list(len(w.args), 1), w.args...)
	return conflicts, in(op, err)
}

// Conflict returns one conflict. CodeNotFound.
func (s *Store) Conflict(ctx context.Context, id string) (lockstep.Conflict, error) {
	c, err := scanConflict(s.db.QueryRow(ctx, `SELECT `+conflictColumns+` FROM conflicts WHERE id = $1`, id))
	return c, missing("store: read conflict", err, "conflict", id)
}

// ResolveConflict notes a person's decision: winner is "crm" or "platform", by says
// who decided. CodeConflict when it was decided already.
func (s *Store) ResolveConflict(ctx context.Context, id, winner, by string) (lockstep.Conflict, error) {
	const op = "store: resolve conflict"
	if winner != string(lockstep.WinnerCRM) && winner != string(lockstep.WinnerPlatform) {
		return lockstep.Conflict{}, invalid(op, "winner", "The winner is %q or %q, not %.40q.", lockstep.WinnerCRM, lockstep.WinnerPlatform, winner)
	}
	var c lockstep.Conflict
	err := s.InTx(ctx, func(tx Tx) error {
		n, err := tx.Exec(ctx, `UPDATE conflicts SET winner = $2, resolved_by = $3, resolved_at = $4, resolved = $5 WHERE id = $1 AND resolved = $6`,
			id, winner, clean(by), micros(s.now()), true, false)
		if err != nil {
			return err
		}
		c, err = scanConflict(tx.QueryRow(ctx, `SELECT `+conflictColumns+` FROM conflicts WHERE id = $1`, id))
		if err == nil && n == 0 {
			err = conflict(op, "The conflict was decided already, for %s.", c.Winner)
		}
		return err
	})
	return c, missing(op, err, "conflict", id)
}

// addConflicts appends conflicts. One that has the id of an earlier conflict takes
// its place unless that was resolved meanwhile: a person's decision stands.
func (s *Store) addConflicts(ctx context.Context, tx Tx, c lockstep.Commit) error {
	now := s.now()
	_, err := insert(ctx, tx, `INSERT INTO conflicts (`+conflictColumns+`) VALUES`, `ON CONFLICT (id) DO UPDATE SET
run = excluded.run, table_name = excluded.table_name, record = excluded.record, contact = excluded.contact, label = excluded.label, column_name = excluded.column_name,
base_kind = excluded.base_kind, base = excluded.base, crm_kind = excluded.crm_kind, crm = excluded.crm, platform_kind = excluded.platform_kind, platform = excluded.platform,
crm_at = excluded.crm_at, platform_at = excluded.platform_at, policy = excluded.policy, winner = excluded.winner, resolved = excluded.resolved, resolved_by = excluded.resolved_by,
detected_at = excluded.detected_at, resolved_at = excluded.resolved_at
WHERE NOT conflicts.resolved AND conflicts.account = excluded.account`, 22, len(c.Conflicts), func(args []any, i int) []any {
		x := c.Conflicts[i]
		if x.ID == "" {
			x.ID = lockstep.NewID(now).String()
		}
		if x.DetectedAt.IsZero() {
			x.DetectedAt = now
		}
		return append(args, x.ID, c.Run, c.Account, x.Ref.Table, recordID(x.Ref.ID), string(x.Contact), clean(x.Label), x.Column,
			int64(x.Base.Kind()), clean(x.Base.Text()), int64(x.CRM.Kind()), clean(x.CRM.Text()), int64(x.Platform.Kind()), clean(x.Platform.Text()),
			micros(x.CRMAt), micros(x.PlatformAt), string(x.Policy), x.Winner, x.Resolved, clean(x.ResolvedBy), micros(x.DetectedAt), micros(x.ResolvedAt))
	})
	return err
}

// ResolvedConflicts returns an account's conflicts that a person decided after a
// time, in the order of the decisions.
func (s *Store) ResolvedConflicts(ctx context.Context, account string, after time.Time) ([]lockstep.Conflict, error) {
	conflicts, err := collect(ctx, s.db, func(r Rows) (lockstep.Conflict, error) { return scanConflict(r) },
		`SELECT `+conflictColumns+` FROM conflicts WHERE account = $1 AND resolved = $2 AND resolved_at > $3 ORDER BY resolved_at, id`, account, true, micros(after))
	return conflicts, in("store: list decided conflicts", err)
}
