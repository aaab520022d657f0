package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// DeleteOrganization forgets an organization with its secrets and the metadata of its
// tables. CodeNotFound; CodeConflict while it has email accounts.
func (s *Store) DeleteOrganization(ctx context.Context, id string) error {
	const op = "store: delete organization"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		// Writing the row makes an account that is being added wait, and this wait for it.
		if n, err := tx.Exec(ctx, `UPDATE organizations SET name = name WHERE id = $1`, id); err != nil {
			return err
		} else if n == 0 {
			return &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: "There is no organization with this id."}
		}
		var accounts int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM email_accounts WHERE organization = $1`, id).Scan(&accounts); err != nil {
			return err
		}
		if accounts > 0 {
			return conflict(op, "The organization has %d email accounts.", accounts)
		}
		return deleteAll(ctx, tx, id,
			`DELETE FROM crm_tables WHERE organization = $1`,
			`DELETE FROM secrets WHERE owner_table = 'organizations' AND owner = $1`,
			`DELETE FROM calls WHERE connection = $1`,
			`DELETE FROM organizations WHERE id = $1`)
	}))
}

// DeleteAccount forgets an email account with everything that is kept for it: its
// secrets, settings, links, members, runs and what they did. Another account of the
// organization becomes the default when it was. The consent ledger stays. CodeNotFound;
// CodeConflict while a run of it has not ended or an opt-out waits to be carried to it.
func (s *Store) DeleteAccount(ctx context.Context, id string) error {
	const op = "store: delete account"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		var organization string
		err := tx.QueryRow(ctx, `SELECT organization FROM email_accounts WHERE id = $1`, id).Scan(&organization)
		if err != nil {
			return missing(op, err, "email account", id)
		}
		for _, q := range []string{`UPDATE organizations SET name = name WHERE id = $1`, `UPDATE email_accounts SET name = name WHERE organization = $1`} {
			if _, err := tx.Exec(ctx, q, organization); err != nil {
				return err
			}
		}
		var live int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM runs WHERE account = $1 AND status IN ('queued', 'in_process')`, id).Scan(&live); err != nil {
			return err
		}
		if live > 0 {
			return conflict(op, "%d runs of the account have not ended.", live)
		}
		var pending int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM restrictions WHERE account = $1 AND pending`, id).Scan(&pending); err != nil {
			return err
		}
		if pending > 0 {
			return conflict(op, "%d opt-outs have not been carried to the other side yet.", pending)
		}
		runs, err := collect(ctx, tx, func(r Rows) (run string, err error) { return run, r.Scan(&run) }, `SELECT id FROM runs WHERE account = $1`, id)
		if err != nil {
			return err
		}
		for _, run := range runs {
			from := append([]byte(run), 0)
			if _, err := tx.Exec(ctx, `DELETE FROM staged WHERE id >= $1 AND id < $2`, from, append([]byte(run), 1)); err != nil {
				return err
			}
		}
		if err := deleteAll(ctx, tx, id,
			`DELETE FROM filters WHERE log = 1 AND blob IN (SELECT id FROM journal WHERE account = $1)`,
			`DELETE FROM filters WHERE log = 2 AND blob IN (SELECT blob FROM links WHERE account = $1)`,
			`DELETE FROM filters WHERE log = 3 AND blob IN (SELECT m.id FROM members m JOIN lists l ON l.id = m.list WHERE l.account = $1)`,
			`DELETE FROM schedules WHERE account = $1`,
			`DELETE FROM calls WHERE connection = $1`,
			`DELETE FROM restrictions WHERE account = $1`,
			`DELETE FROM choices WHERE account = $1`,
			`DELETE FROM journal WHERE account = $1`,
			`DELETE FROM retries WHERE account = $1`,
			`DELETE FROM findings WHERE account = $1`,
			`DELETE FROM conflicts WHERE account = $1`,
			`DELETE FROM runs WHERE account = $1`,
			`DELETE FROM cursors WHERE account = $1`,
			`DELETE FROM links WHERE account = $1`,
			`DELETE FROM logs WHERE name = 'links/' || $1`,
			`DELETE FROM members WHERE list IN (SELECT id FROM lists WHERE account = $1)`,
			`DELETE FROM logs WHERE name IN (SELECT 'members/' || id FROM lists WHERE account = $1)`,
			`DELETE FROM mappings WHERE account = $1`,
			`DELETE FROM labels WHERE account = $1`,
			`DELETE FROM lists WHERE account = $1`,
			`DELETE FROM secrets WHERE owner_table = 'email_accounts' AND owner = $1`,
			`DELETE FROM email_accounts WHERE id = $1`); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE email_accounts SET is_default = $2 WHERE organization = $1
AND NOT EXISTS (SELECT 1 FROM email_accounts o WHERE o.organization = $1 AND o.is_default)
AND id = (SELECT min(o.id) FROM email_accounts o WHERE o.organization = $1)`, organization, true)
		return err
	}))
}

func deleteAll(ctx context.Context, tx Tx, id string, queries ...string) error {
	for _, q := range queries {
		if _, err := tx.Exec(ctx, q, id); err != nil {
			return err
		}
	}
	return nil
}
