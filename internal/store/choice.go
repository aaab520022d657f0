package store

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/lockstep-sync/lockstep"
)

const choiceColumns = `id, account, address, shown, pending, doc, crc`

func choiceSum(doc string, id lockstep.ID, account string, key lockstep.AddressKey, shown []byte, pending bool) int64 {
	return checksum([]byte(doc), "choice", id.String(), account, keyName(key), string(shown), strconv.FormatBool(pending))
}

func choiceRow(r Rows) (c lockstep.Choice, err error) {
	var id, key, shown []byte
	var account, doc string
	var pending bool
	var crc int64
	if err := r.Scan(&id, &account, &key, &shown, &pending, &doc, &crc); err != nil {
		return c, err
	}
	if len(id) != len(c.ID) || len(key) != len(c.Key) ||
		choiceSum(doc, lockstep.ID(id), account, lockstep.AddressKey(key), shown, pending) != crc {
		return c, damaged("a choice")
	}
	if err := json.Unmarshal([]byte(doc), &c); err != nil {
		return c, err
	}
	c.Key, c.Pending = lockstep.AddressKey(key), pending
	return c, nil
}

// putChoices stores choices in place of those with the same id. Of people who were
// erased it keeps none.
func (s *Store) putChoices(ctx context.Context, tx Tx, choices []lockstep.Choice) error {
	if len(choices) == 0 {
		return nil
	}
	if s.saltErr != nil {
		return s.saltErr
	}
	last := make(map[lockstep.ID]int, len(choices)) // PostgreSQL refuses a statement that writes a row twice
	keys := make([]lockstep.AddressKey, 0, len(choices))
	for i := range choices {
		last[choices[i].ID] = i
		keys = append(keys, choices[i].Key)
	}
	erased, err := erasedAmong(ctx, tx, keys)
	if err != nil {
		return err
	}
	kept := make([]lockstep.Choice, 0, len(last))
	docs := make([]string, 0, len(last))
	for i, c := range choices {
		if last[c.ID] != i || erased[c.Key] {
			continue
		}
		for _, said := range []*lockstep.Said{&c.Platform, &c.CRM, &c.Agreed} {
			said.At = said.At.UTC()
		}
		doc, err := json.Marshal(c)
		if err != nil {
			return err
		}
		kept, docs = append(kept, c), append(docs, string(doc))
	}
	_, err = insert(ctx, tx, `INSERT INTO choices (`+choiceColumns+`) VALUES`, `ON CONFLICT (id) DO UPDATE SET
account = excluded.account, address = excluded.address, shown = excluded.shown, pending = excluded.pending, doc = excluded.doc, crc = excluded.crc`,
		7, len(kept), func(args []any, i int) []any {
			c := &kept[i]
			shown := []byte{}
			if !c.Row.IsZero() {
				shown = c.Row[:]
			}
			return append(args, c.ID[:], c.Account, c.Key[:], shown, c.Pending, docs[i], choiceSum(docs[i], c.ID, c.Account, c.Key, shown, c.Pending))
		})
	return err
}

// Choices returns what addresses chose in an account, for every preference, in no
// order.
func (s *Store) Choices(ctx context.Context, account string, keys []lockstep.AddressKey) ([]lockstep.Choice, error) {
	return s.choicesBy(ctx, account, "address", keyBytes(keys))
}

// ChoicesShown returns the choices that these rows of the CRM show, in no order.
func (s *Store) ChoicesShown(ctx context.Context, account string, rows []lockstep.ID) ([]lockstep.Choice, error) {
	ids := make([][]byte, 0, len(rows))
	for i := range rows {
		ids = append(ids, rows[i][:])
	}
	return s.choicesBy(ctx, account, "length(shown) > 0 AND shown", ids)
}

func (s *Store) choicesBy(ctx context.Context, account, column string, values [][]byte) ([]lockstep.Choice, error) {
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	var all []lockstep.Choice
	err := inPortions(ctx, s.db, values, `SELECT `+choiceColumns+` FROM choices WHERE account = $1 AND `+column+` IN (`, func(r Rows) error {
		c, err := choiceRow(r)
		all = append(all, c)
		return err
	}, account)
	return all, in("store: read choices", err)
}

// ChoicesWithRows returns choices that a row of the CRM shows, by row, with rows above
// after.
func (s *Store) ChoicesWithRows(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Choice, error) {
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	all, err := collect(ctx, s.db, choiceRow, `SELECT `+choiceColumns+` FROM choices
WHERE account = $1 AND length(shown) > 0 AND shown > $2 ORDER BY shown LIMIT $3`, account, after[:], pageSize(limit))
	return all, in("store: read choices with rows", err)
}

// PendingChoices returns choices of which a side has still to be told, by id, with
// ids above after.
func (s *Store) PendingChoices(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Choice, error) {
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	all, err := collect(ctx, s.db, choiceRow, `SELECT `+choiceColumns+` FROM choices
WHERE account = $1 AND pending AND id > $2 ORDER BY id LIMIT $3`, account, after[:], pageSize(limit))
	return all, in("store: read pending choices", err)
}
