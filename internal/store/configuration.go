package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Configuration is what is kept of an email account that people decide about, with what
// Lockstep itself noted there.
type Configuration struct {
	Account  lockstep.EmailAccount
	Labels   []lockstep.DataLabel
	Mappings []lockstep.DataMapping
	Lists    []lockstep.ListSettings
	// Schedules are those that are stored, in no order.
	Schedules []lockstep.SyncSchedule
}

// Configuration returns what is configured for an email account. CodeNotFound.
func (s *Store) Configuration(ctx context.Context, account string) (Configuration, error) {
	return s.configuration(ctx, s.db, account)
}

// ConfigurationIn is Configuration within tx. What is there cannot be changed by others
// until the transaction ends.
func (s *Store) ConfigurationIn(ctx context.Context, tx Tx, account string) (Configuration, error) {
	// Writing the rows locks them on PostgreSQL; SQLite has one writer anyway.
	for _, lock := range []string{
		`UPDATE organizations SET name = name WHERE id = (SELECT organization FROM email_accounts WHERE id = $1)`,
		`UPDATE email_accounts SET doc = doc WHERE id = $1`,
		`UPDATE labels SET doc = doc WHERE account = $1`,
		`UPDATE mappings SET doc = doc WHERE account = $1`,
		`UPDATE lists SET doc = doc WHERE account = $1`,
		`UPDATE schedules SET doc = doc WHERE account = $1`,
	} {
		if _, err := tx.Exec(ctx, lock, account); err != nil {
			return Configuration{}, in("store: read configuration", err)
		}
	}
	return s.configuration(ctx, tx, account)
}

func (s *Store) configuration(ctx context.Context, r Reader, account string) (c Configuration, err error) {
	const op = "store: read configuration"
	c.Account, err = scanAccount(r.QueryRow(ctx, `SELECT id, is_default, doc, crc FROM email_accounts WHERE id = $1`, account))
	if err != nil {
		return c, missing(op, err, "email account", account)
	}
	if c.Labels, err = labels(ctx, r, account); err != nil {
		return c, in(op, err)
	}
	if c.Mappings, err = mappings(ctx, r, account); err != nil {
		return c, in(op, err)
	}
	if c.Lists, err = lists(ctx, r, account); err != nil {
		return c, in(op, err)
	}
	c.Schedules, err = schedules(ctx, r, account)
	return c, in(op, err)
}

// Edit is a change of an email account's configuration. What is new has no id.
type Edit struct {
	Account      *lockstep.EmailAccount // nil: as it is
	Labels       []lockstep.DataLabel
	DropLabels   []string // ids
	Mappings     []lockstep.DataMapping
	DropMappings []string // ids
	Lists        []lockstep.ListSettings
	Schedules    []lockstep.SyncSchedule
}

// EditIn stores a change of one account's configuration within tx. Errors as of
// SaveLabel, SaveMapping and SaveAccount; the caller gives the transaction up on one.
func (s *Store) EditIn(ctx context.Context, tx Tx, account string, e Edit) error {
	const op = "store: change configuration"
	for _, id := range e.DropMappings {
		if _, err := tx.Exec(ctx, `DELETE FROM mappings WHERE id = $1 AND account = $2`, id, account); err != nil {
			return in(op, err)
		}
	}
	for _, id := range e.DropLabels {
		if _, err := tx.Exec(ctx, `DELETE FROM labels WHERE id = $1 AND account = $2`, id, account); err != nil {
			return in(op, err)
		}
	}
	for i := range e.Labels {
		if e.Labels[i].ID == "" {
			e.Labels[i].ID = lockstep.NewID(s.now()).String()
		}
	}
	for i := range e.Mappings {
		if e.Mappings[i].ID == "" {
			e.Mappings[i].ID = lockstep.NewID(s.now()).String()
		}
	}
	if err := replaceLabels(ctx, tx, op, account, e.Labels); err != nil {
		return in(op, err)
	}
	if err := replaceMappings(ctx, tx, op, account, e.Mappings); err != nil {
		return in(op, err)
	}
	if err := replaceLists(ctx, tx, op, account, e.Lists); err != nil {
		return in(op, err)
	}
	for _, sc := range e.Schedules {
		if err := s.SaveScheduleIn(ctx, tx, sc); err != nil {
			return err
		}
	}
	if e.Account != nil {
		return in(op, putAccount(ctx, tx, op, e.Account))
	}
	return nil
}
