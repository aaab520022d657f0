package store

import (
	"context"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// labelKey is what makes a label's name unique: the platform does not tell upper
// from lower case.
func labelKey(name string) string { return strings.ToLower(clean(name)) }

// Labels returns an account's data labels by name.
func (s *Store) Labels(ctx context.Context, account string) ([]lockstep.DataLabel, error) {
	all, err := labels(ctx, s.db, account)
	return all, in("store: read labels", err)
}

func labels(ctx context.Context, r Reader, account string) ([]lockstep.DataLabel, error) {
	return collect(ctx, r, func(r Rows) (lockstep.DataLabel, error) {
		var l lockstep.DataLabel
		var id, doc string
		var crc int64
		if err := r.Scan(&id, &doc, &crc); err != nil {
			return l, err
		}
		return l, fromDoc(doc, crc, &l, "label", id, account)
	}, `SELECT id, doc, crc FROM labels WHERE account = $1 ORDER BY name_key`, account)
}

// SaveLabel stores a data label in place of the one with the same id; without an
// id it is new. CodeConflict: the account has another label of this name, upper and
// lower case being the same.
func (s *Store) SaveLabel(ctx context.Context, l lockstep.DataLabel) (lockstep.DataLabel, error) {
	const op = "store: save label"
	if l.ID == "" {
		l.ID = lockstep.NewID(s.now()).String()
	}
	err := s.InTx(ctx, func(tx Tx) error { return putLabel(ctx, tx, op, l) })
	return l, in(op, err)
}

func putLabel(ctx context.Context, tx Tx, op string, l lockstep.DataLabel) error {
	if l.Name == "" {
		return invalid(op, "name", "A data label needs a name.")
	}
	doc, crc, err := toDoc(l, "label", l.ID, l.Account)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `INSERT INTO labels (id, account, name_key, doc, crc) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET name_key = excluded.name_key, doc = excluded.doc, crc = excluded.crc
WHERE labels.account = excluded.account`, l.ID, l.Account, labelKey(l.Name), doc, crc)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeConflict:
		return conflict(op, "The account has a data label %.80q already.", l.Name)
	case err == nil && n == 0:
		return conflict(op, "Data label %.80q belongs to another account.", l.ID)
	}
	return err
}

func replaceLabels(ctx context.Context, tx Tx, op, account string, labels []lockstep.DataLabel) error {
	for _, l := range labels {
		if l.ID == "" || l.Account != account {
			return invalid(op, "labels", "A data label without an id or of another account.")
		}
		if err := putLabel(ctx, tx, op, l); err != nil {
			return err
		}
	}
	return nil
}

// DeleteLabel forgets a data label; the field on the platform stays. CodeConflict
// while a mapping uses it, CodeNotFound.
func (s *Store) DeleteLabel(ctx context.Context, id string) error {
	const op = "store: delete label"
	return in(op, s.InTx(ctx, func(tx Tx) error {
		var used int64
		err := tx.QueryRow(ctx, `SELECT count(*) FROM mappings m JOIN labels l ON l.account = m.account AND l.name_key = m.label_key WHERE l.id = $1`, id).Scan(&used)
		if err != nil {
			return err
		}
		if used > 0 {
			return conflict(op, "The data label is mapped to %d columns.", used)
		}
		n, err := tx.Exec(ctx, `DELETE FROM labels WHERE id = $1`, id)
		if err == nil && n == 0 {
			err = &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: "There is no data label with this id."}
		}
		return err
	}))
}

// Mappings returns an account's data mappings by label, table and direction.
func (s *Store) Mappings(ctx context.Context, account string) ([]lockstep.DataMapping, error) {
	all, err := mappings(ctx, s.db, account)
	return all, in("store: read mappings", err)
}

func mappings(ctx context.Context, r Reader, account string) ([]lockstep.DataMapping, error) {
	return collect(ctx, r, func(r Rows) (lockstep.DataMapping, error) {
		var m lockstep.DataMapping
		var id, doc string
		var crc int64
		if err := r.Scan(&id, &doc, &crc); err != nil {
			return m, err
		}
		return m, fromDoc(doc, crc, &m, "mapping", id, account)
	}, `SELECT id, doc, crc FROM mappings WHERE account = $1 ORDER BY label_key, table_name, direction`, account)
}

// SaveMapping stores a data mapping in place of the one with the same id; without
// an id it is new. CodeConflict: the label has another mapping for this table and
// direction.
func (s *Store) SaveMapping(ctx context.Context, m lockstep.DataMapping) (lockstep.DataMapping, error) {
	const op = "store: save mapping"
	if m.ID == "" {
		m.ID = lockstep.NewID(s.now()).String()
	}
	err := s.InTx(ctx, func(tx Tx) error { return putMapping(ctx, tx, op, m) })
	return m, in(op, err)
}

func putMapping(ctx context.Context, tx Tx, op string, m lockstep.DataMapping) error {
	doc, crc, err := toDoc(m, "mapping", m.ID, m.Account)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `INSERT INTO mappings (id, account, label_key, table_name, direction, doc, crc) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET label_key = excluded.label_key, table_name = excluded.table_name, direction = excluded.direction, doc = excluded.doc, crc = excluded.crc
WHERE mappings.account = excluded.account`, m.ID, m.Account, labelKey(m.Label), m.Table, string(m.Direction), doc, crc)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeConflict:
		return conflict(op, "Data label %.80q has a mapping %s for table %.80q already.", m.Label, m.Direction, m.Table)
	case err == nil && n == 0:
		return conflict(op, "Data mapping %.80q belongs to another account.", m.ID)
	}
	return err
}

func replaceMappings(ctx context.Context, tx Tx, op, account string, mappings []lockstep.DataMapping) error {
	for _, m := range mappings {
		if m.ID == "" || m.Account != account {
			return invalid(op, "mappings", "A data mapping without an id or of another account.")
		}
		if err := putMapping(ctx, tx, op, m); err != nil {
			return err
		}
	}
	return nil
}

// DeleteMapping forgets a data mapping. CodeNotFound.
func (s *Store) DeleteMapping(ctx context.Context, id string) error {
	return s.deleteRow(ctx, "store: delete mapping", "data mapping", `DELETE FROM mappings WHERE id = $1`, id)
}
