package dataverse

import (
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Limits of alternate keys.
const (
	maxKeys       = 10
	maxKeyColumns = 16
	maxKeyBytes   = 900
)

// createKey defines an alternate key. Its index is built later: the key goes
// from Pending over InProgress to Active or, when rows repeat its values, to
// Failed, one step each time someone looks at it.
func (c *call) createKey(t *schema.Table) (*answer, error) {
	if err := c.needPrivilege("prvWriteEntity", nil); err != nil {
		return nil, err
	}
	var d struct {
		SchemaName    string
		KeyAttributes []string
		DisplayName   *jsonLabel
	}
	if err := decode(c.body, &d); err != nil {
		return nil, err
	}
	if err := schemaName(d.SchemaName); err != nil {
		return nil, err
	}
	if len(d.KeyAttributes) == 0 || len(d.KeyAttributes) > maxKeyColumns || len(t.Keys) >= maxKeys {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A key has 1 to %d columns, a table at most %d keys.", maxKeyColumns, maxKeys)
	}
	size := 0
	for _, name := range d.KeyAttributes {
		col := t.Column(name)
		if col == nil {
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The key column '%.60s' does not exist on %s.", name, t.Name)
		}
		switch col.Type {
		case schema.String:
			size += 2 * col.MaxLength
		case schema.Decimal, schema.Integer, schema.DateTime, schema.Lookup, schema.Customer, schema.Owner, schema.Picklist:
			size += 16
		default:
			return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A column of the type %s cannot be part of a key.", col.Type.AttributeType())
		}
	}
	if size > maxKeyBytes {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "The key takes %d bytes; at most %d are possible.", size, maxKeyBytes)
	}
	in, err := c.solution(d.SchemaName)
	if err != nil {
		return nil, err
	}
	k := &schema.Key{SchemaName: d.SchemaName, Name: strings.ToLower(d.SchemaName), Label: orElse(d.DisplayName.text(), d.SchemaName), Columns: d.KeyAttributes, Status: schema.KeyPending}
	k.ID = schema.NameID("key", t.Name, k.Name)
	err = c.alter(func(draft *schema.Draft) error {
		n := draft.Table(t.Name)
		if n.Key(k.Name) != nil {
			return fail(http.StatusBadRequest, codeNameTaken, "A key with the name %s already exists on %s.", k.Name, t.Name)
		}
		n.Keys = append(n.Keys, k)
		return nil
	})
	if err == nil {
		err = c.s.belong(in, k.ID, keyComponent)
	}
	if err != nil {
		return nil, err
	}
	return c.definitionAnswer("EntityDefinitions(?)/Keys(?)", t.ID, k.ID), nil
}

func (c *call) deleteKey(t *schema.Table, inside string) (*answer, error) {
	if err := c.needPrivilege("prvWriteEntity", nil); err != nil {
		return nil, err
	}
	for _, k := range t.Keys {
		if !c.named(keyObject(t, k, k.Status), inside) {
			continue
		}
		err := c.alter(func(draft *schema.Draft) error {
			n := draft.Table(t.Name)
			n.Keys = slices.DeleteFunc(n.Keys, func(other *schema.Key) bool { return other.Name == k.Name })
			return nil
		})
		if err == nil {
			c.s.store.DropIndex(t.Name, k.Name)
			err = c.s.leaveSolutions(k.ID)
		}
		return noContent(), err
	}
	return nil, fail(http.StatusNotFound, codeObjectDoesNotExist, "Could not find a key %.80s.", inside)
}

// keyStatus is the present status of a key.
func (s *Server) keyStatus(table, key string) string {
	if t := s.sch.Load().Table(table); t != nil {
		if k := t.Key(key); k != nil {
			return k.Status
		}
	}
	return schema.KeyFailed
}

// observeKey tells the status of a key and lets its index job take a step.
func (s *Server) observeKey(table, key string) string {
	status := s.keyStatus(table, key)
	switch status {
	case schema.KeyPending:
		s.setKeyStatus(table, key, schema.KeyInProgress)
	case schema.KeyInProgress:
		s.buildKey(table, key)
	}
	return status
}

func (s *Server) setKeyStatus(table, key, status string) {
	_ = s.alter(func(d *schema.Draft) error {
		if t := d.Table(table); t != nil && t.Key(key) != nil {
			t.Key(key).Status = status
		}
		return nil
	})
}

// buildKey indexes the columns of a key and looks for repeated values.
func (s *Server) buildKey(table, key string) {
	t := s.sch.Load().Table(table)
	k := t.Key(key)
	ords := make([]int, len(k.Columns))
	for i, name := range k.Columns {
		ords[i] = int(t.Column(name).Ord)
	}
	s.store.AddIndex(table, key, ords...)
	status := schema.KeyActive
	if s.repeated(table, ords) {
		s.store.DropIndex(table, key)
		status = schema.KeyFailed
	}
	s.setKeyStatus(table, key, status)
}

func (s *Server) repeated(table string, ords []int) bool {
	view := s.store.View()
	seen := make(map[uint64][]*store.Row, view.Count(table))
	var after value.ID
	for {
		rows := view.Page(nil, table, after, 10_000)
	rows:
		for _, r := range rows {
			after = r.ID
			values := make([]value.Value, len(ords))
			for i, ord := range ords {
				if values[i] = r.Value(ord); values[i].IsNull() {
					continue rows
				}
			}
			h := store.Hash(values...)
		others:
			for _, o := range seen[h] {
				for i, ord := range ords {
					if !value.Equal(o.Value(ord), values[i]) {
						continue others
					}
				}
				return true
			}
			seen[h] = append(seen[h], r)
		}
		if len(rows) < 10_000 {
			return false
		}
	}
}
