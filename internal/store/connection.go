package store

import (
	"context"
	"sync"

	"github.com/lockstep-sync/lockstep"
)

// Organization returns a connected organization. CodeNotFound.
func (s *Store) Organization(ctx context.Context, id string) (lockstep.Organization, error) {
	var o lockstep.Organization
	var doc string
	var crc int64
	err := s.db.QueryRow(ctx, `SELECT doc, crc FROM organizations WHERE id = $1`, id).Scan(&doc, &crc)
	if err == nil {
		err = fromDoc(doc, crc, &o, "organization", id)
	}
	return o, missing("store: read organization", err, "organization", id)
}

// Organizations returns all organizations by name.
func (s *Store) Organizations(ctx context.Context) ([]lockstep.Organization, error) {
	return s.organizations(ctx, s.db)
}

// OrganizationsIn is Organizations within tx, and keeps others from changing them until
// the transaction ends.
func (s *Store) OrganizationsIn(ctx context.Context, tx Tx) ([]lockstep.Organization, error) {
	if _, err := tx.Exec(ctx, `UPDATE organizations SET name = name`); err != nil {
		return nil, in("store: read organizations", err)
	}
	return s.organizations(ctx, tx)
}

func (s *Store) organizations(ctx context.Context, r Reader) ([]lockstep.Organization, error) {
	all, err := collect(ctx, r, func(r Rows) (lockstep.Organization, error) {
		var o lockstep.Organization
		var id, doc string
		var crc int64
		if err := r.Scan(&id, &doc, &crc); err != nil {
			return o, err
		}
		return o, fromDoc(doc, crc, &o, "organization", id)
	}, `SELECT id, doc, crc FROM organizations ORDER BY name, id`)
	return all, in("store: read organizations", err)
}

// SaveOrganization stores an organization in place of the one with the same id;
// without an id it is new. Settings must not hold secrets; see SetSecrets.
func (s *Store) SaveOrganization(ctx context.Context, o lockstep.Organization) (lockstep.Organization, error) {
	if o.ID == "" {
		o.ID = lockstep.NewID(s.now()).String()
	}
	return o, s.InTx(ctx, func(tx Tx) error { return s.SaveOrganizationIn(ctx, tx, o) })
}

// SaveOrganizationIn is SaveOrganization within tx, of one that has an id.
func (s *Store) SaveOrganizationIn(ctx context.Context, tx Tx, o lockstep.Organization) error {
	const op = "store: save organization"
	doc, crc, err := toDoc(o, "organization", o.ID)
	if err != nil {
		return in(op, err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO organizations (id, name, doc, crc) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, doc = excluded.doc, crc = excluded.crc`, o.ID, clean(o.Name), doc, crc)
	return in(op, err)
}

func scanAccount(r interface{ Scan(...any) error }) (lockstep.EmailAccount, error) {
	var a lockstep.EmailAccount
	var id, doc string
	var isDefault bool
	var crc int64
	if err := r.Scan(&id, &isDefault, &doc, &crc); err != nil {
		return a, err
	}
	err := fromDoc(doc, crc, &a, "account", id)
	a.Default = isDefault
	return a, err
}

// Account returns an email account. CodeNotFound.
func (s *Store) Account(ctx context.Context, id string) (lockstep.EmailAccount, error) {
	a, err := scanAccount(s.db.QueryRow(ctx, `SELECT id, is_default, doc, crc FROM email_accounts WHERE id = $1`, id))
	return a, missing("store: read account", err, "email account", id)
}

// Accounts returns the email accounts of an organization, or of all when
// organization is empty, by name.
func (s *Store) Accounts(ctx context.Context, organization string) ([]lockstep.EmailAccount, error) {
	var w filter
	if organization != "" {
		w.and("organization = ?", organization)
	}
	accounts, err := collect(ctx, s.db, func(r Rows) (lockstep.EmailAccount, error) { return scanAccount(r) },
		`SELECT id, is_default, doc, crc FROM email_accounts`+w.text.String()+` ORDER BY name, id`, w.args...)
	return accounts, in("store: read accounts", err)
}

// SaveAccount stores an email account in place of the one with the same id;
// without an id it is new. Each organization has exactly one default account: the
// first is, and stays so until another is saved as the default. Settings must not
// hold secrets; see SetSecrets. CodeConflict when the account would move to another
// organization.
func (s *Store) SaveAccount(ctx context.Context, a lockstep.EmailAccount) (lockstep.EmailAccount, error) {
	const op = "store: save account"
	if a.ID == "" {
		a.ID = lockstep.NewID(s.now()).String()
	}
	err := s.InTx(ctx, func(tx Tx) error { return putAccount(ctx, tx, op, &a) })
	return a, in(op, err)
}

// putAccount stores an account, and notes in it whether it is the default one.
func putAccount(ctx context.Context, tx Tx, op string, a *lockstep.EmailAccount) error {
	// Writing the organization's row makes accounts of one organization queue.
	if n, err := tx.Exec(ctx, `UPDATE organizations SET name = name WHERE id = $1`, a.Organization); err != nil {
		return err
	} else if n == 0 {
		return &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: "The account's organization does not exist.", Field: "organization"}
	}
	if a.Default {
		if _, err := tx.Exec(ctx, `UPDATE email_accounts SET is_default = $3 WHERE organization = $1 AND id <> $2 AND is_default`, a.Organization, a.ID, false); err != nil {
			return err
		}
	} else {
		var others int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM email_accounts WHERE organization = $1 AND id <> $2 AND is_default`, a.Organization, a.ID).Scan(&others); err != nil {
			return err
		}
		a.Default = others == 0
	}
	doc, crc, err := toDoc(*a, "account", a.ID)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `INSERT INTO email_accounts (id, organization, name, is_default, doc, crc) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, is_default = excluded.is_default, doc = excluded.doc, crc = excluded.crc
WHERE email_accounts.organization = excluded.organization`, a.ID, a.Organization, clean(a.Name), a.Default, doc, crc)
	if err == nil && n == 0 {
		err = conflict(op, "An email account cannot move to another organization.")
	}
	return err
}

// LockAccount notes why an email account must not be written to; one that is locked
// already keeps its reason. It changes nothing else, so that a run can call it beside
// a person who edits the account.
func (s *Store) LockAccount(ctx context.Context, id, reason string) error {
	const op = "store: lock account"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		a, err := scanAccount(tx.QueryRow(ctx, `SELECT id, is_default, doc, crc FROM email_accounts WHERE id = $1`, id))
		if err != nil || a.Locked != "" {
			return missing(op, err, "email account", id)
		}
		a.Locked = clean(reason)
		doc, crc, err := toDoc(a, "account", a.ID)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE email_accounts SET doc = $2, crc = $3 WHERE id = $1`, a.ID, doc, crc)
		return err
	}))
}

// SaveTables stores an organization's table metadata in place of what was known.
func (s *Store) SaveTables(ctx context.Context, organization string, tables []lockstep.Table) error {
	const op = "store: save tables"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM crm_tables WHERE organization = $1`, organization); err != nil {
			return err
		}
		for _, t := range tables {
			doc, crc, err := toDoc(t, "table", organization, t.Name)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `INSERT INTO crm_tables (organization, name, doc, crc) VALUES ($1, $2, $3, $4)`, organization, t.Name, doc, crc); err != nil {
				if lockstep.CodeOf(err) == lockstep.CodeConflict {
					return invalid(op, "tables", "Table %.80q is given twice.", t.Name)
				}
				return err
			}
		}
		return nil
	}))
}

// Tables returns an organization's table metadata as last saved, by name. The columns
// are shared with other callers and must not be changed.
func (s *Store) Tables(ctx context.Context, organization string) ([]lockstep.Table, error) {
	tables, err := collect(ctx, s.db, func(r Rows) (lockstep.Table, error) {
		var t lockstep.Table
		var name, doc string
		var crc int64
		if err := r.Scan(&name, &doc, &crc); err != nil {
			return t, err
		}
		if s.schema.get(organization, name, doc, crc, &t) {
			return t, nil
		}
		if err := fromDoc(doc, crc, &t, "table", organization, name); err != nil {
			return t, err
		}
		s.schema.put(organization, name, doc, crc, t)
		return t, nil
	}, `SELECT name, doc, crc FROM crm_tables WHERE organization = $1 ORDER BY name`, organization)
	return tables, in("store: read tables", err)
}

// decoded keeps table metadata in both forms: every slice of a run reads it, and it
// seldom changes.
type decoded struct {
	mu     sync.Mutex
	tables map[[2]string]storedTable // by organization and name
}

type storedTable struct {
	doc   string
	crc   int64
	table lockstep.Table
}

// get returns what exactly this document was decoded to before.
func (d *decoded) get(organization, name, doc string, crc int64, t *lockstep.Table) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.tables[[2]string{organization, name}]
	if !ok || k.crc != crc || k.doc != doc {
		return false
	}
	*t = k.table
	return true
}

func (d *decoded) put(organization, name, doc string, crc int64, t lockstep.Table) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables == nil {
		d.tables = map[[2]string]storedTable{}
	}
	d.tables[[2]string{organization, name}] = storedTable{doc, crc, t}
}
