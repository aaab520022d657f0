package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

func scanList(r interface{ Scan(...any) error }) (lockstep.ListSettings, error) {
	var l lockstep.ListSettings
	var id, account, doc string
	var crc int64
	if err := r.Scan(&id, &account, &doc, &crc); err != nil {
		return l, err
	}
	return l, fromDoc(doc, crc, &l, "list", id, account)
}

// Lists returns an account's list settings in the order in which they are synced.
func (s *Store) Lists(ctx context.Context, account string) ([]lockstep.ListSettings, error) {
	all, err := lists(ctx, s.db, account)
	return all, in("store: read lists", err)
}

func lists(ctx context.Context, r Reader, account string) ([]lockstep.ListSettings, error) {
	return collect(ctx, r, func(r Rows) (lockstep.ListSettings, error) { return scanList(r) },
		`SELECT id, account, doc, crc FROM lists WHERE account = $1 ORDER BY sync_order, name, id`, account)
}

// List returns the settings of one list. CodeNotFound.
func (s *Store) List(ctx context.Context, id string) (lockstep.ListSettings, error) {
	l, err := scanList(s.db.QueryRow(ctx, `SELECT id, account, doc, crc FROM lists WHERE id = $1`, id))
	return l, missing("store: read list", err, "list", id)
}

// SaveLists stores list settings, each in place of the account's earlier settings
// for the same marketing list, whose id stays; new ones without an id get one. It
// returns them as stored.
func (s *Store) SaveLists(ctx context.Context, lists ...lockstep.ListSettings) ([]lockstep.ListSettings, error) {
	const op = "store: save lists"
	saved := make([]lockstep.ListSettings, 0, len(lists))
	err := s.InTx(ctx, func(tx Tx) error {
		for _, l := range lists {
			if l.CRMID.IsZero() {
				return invalid(op, "crm_id", "List settings %.80q name no marketing list.", l.Name)
			}
			var id string
			err := tx.QueryRow(ctx, `SELECT id FROM lists WHERE account = $1 AND crm_id = $2`, l.Account, l.CRMID.String()).Scan(&id)
			switch {
			case err == nil:
				l.ID = id
			case lockstep.CodeOf(err) != lockstep.CodeNotFound:
				return err
			case l.ID == "":
				l.ID = lockstep.NewID(s.now()).String()
			}
			if err := putList(ctx, tx, op, l); err != nil {
				return err
			}
			saved = append(saved, l)
		}
		return nil
	})
	if err != nil {
		return nil, in(op, err)
	}
	return saved, nil
}

// putList stores settings in place of those with the same id.
func putList(ctx context.Context, tx Tx, op string, l lockstep.ListSettings) error {
	l.Name = clean(l.Name)
	doc, crc, err := toDoc(l, "list", l.ID, l.Account)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `INSERT INTO lists (id, account, crm_id, name, sync_order, doc, crc) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET crm_id = excluded.crm_id, name = excluded.name, sync_order = excluded.sync_order, doc = excluded.doc, crc = excluded.crc
WHERE lists.account = excluded.account`,
		l.ID, l.Account, l.CRMID.String(), l.Name, int64(l.SyncOrder), doc, crc)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeConflict:
		return conflict(op, "The account has settings for marketing list %s already.", l.CRMID)
	case err == nil && n == 0:
		return conflict(op, "List settings %.80q belong to another account.", l.ID)
	}
	return err
}

func replaceLists(ctx context.Context, tx Tx, op, account string, lists []lockstep.ListSettings) error {
	for _, l := range lists {
		if l.ID == "" || l.Account != account {
			return invalid(op, "lists", "List settings without an id or of another account.")
		}
		if err := putList(ctx, tx, op, l); err != nil {
			return err
		}
	}
	return nil
}

// DeleteList forgets the settings of a list. The list, its address book and what is
// known of its members stay. CodeNotFound.
func (s *Store) DeleteList(ctx context.Context, id string) error {
	return s.deleteRow(ctx, "store: delete list", "list", `DELETE FROM lists WHERE id = $1`, id)
}

func (s *Store) deleteRow(ctx context.Context, op, what, statement, id string) error {
	return in(op, s.InTx(ctx, func(tx Tx) error {
		n, err := tx.Exec(ctx, statement, id)
		if err == nil && n == 0 {
			err = &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: "There is no " + what + " with this id."}
		}
		return err
	}))
}
