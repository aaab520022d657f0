package dataverse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// entityURL is the address of a row; key is the text between the parentheses.
func (c *call) entityURL(t *schema.Table, key string) string {
	return c.root() + t.Set + "(" + strings.NewReplacer("%27", "'", "%3D", "=", "%2C", ",").Replace(url.PathEscape(key)) + ")"
}

// postRow creates a row.
func (c *call) postRow(t *schema.Table) (*answer, error) {
	props, err := parseObject(c.body)
	if err != nil {
		return nil, err
	}
	var a *answer
	err = c.write(func() error {
		id, err := c.create(t, props)
		if err != nil {
			return err
		}
		a, err = c.written(t, id, id.String(), true)
		return err
	})
	return a, err
}

// written answers a create or update: 204 with the row's address, or its
// representation.
func (c *call) written(t *schema.Table, id value.ID, key string, created bool) (*answer, error) {
	address := c.entityURL(t, key)
	if !c.prefer.representation {
		a := noContent().set("Odata-Entityid", address)
		a.entity = c.entityURL(t, id.String())
		if created {
			a.set("Location", address)
		}
		return a, nil
	}
	q, err := c.parse(t)
	if err != nil {
		return nil, err
	}
	if c.method == http.MethodPatch {
		q.Expands = nil
	}
	row := c.view.Get(t.Name, id)
	body, err := c.rowBody(t, row, q)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	a := jsonAnswer(status, body).set("Etag", etag(row)).set("Odata-Entityid", address)
	a.entity = c.entityURL(t, id.String())
	if created {
		a.set("Location", address)
	}
	return a.set("Preference-Applied", c.prefer.applied(true, false, false)), nil
}

// precondition checks If-Match against a row that may be missing.
func (c *call) precondition(t *schema.Table, row *store.Row, tg *target) error {
	match := c.header.Get("If-Match")
	if match == "" {
		return nil
	}
	if row == nil {
		if tg.key != nil {
			return keyNotFound(tg)
		}
		return notFound(t.Name, tg.id)
	}
	if match == "*" {
		return nil
	}
	if !t.Optimistic {
		return fail(http.StatusBadRequest, codeNoOptimistic, "Optimistic concurrency isn't enabled for entity type %s. The IfVersionMatches concurrency behavior cannot be used.", t.Name)
	}
	if match != etag(row) {
		return fail(http.StatusPreconditionFailed, codeVersionMismatch, "The version of the existing record doesn't match the RowVersion property provided.")
	}
	return nil
}

// patchRow updates a row, or creates it where it is missing and no If-Match
// forbids that.
func (c *call) patchRow(tg *target) (*answer, error) {
	t := tg.table
	props, err := parseObject(c.body)
	if err != nil {
		return nil, err
	}
	var a *answer
	err = c.write(func() error {
		id, created, err := c.upsert(tg, props)
		if err != nil {
			return err
		}
		a, err = c.written(t, id, tg.text, created)
		return err
	})
	return a, err
}

// upsert updates the addressed row or creates it, honouring the call's
// conditional headers.
func (c *call) upsert(tg *target, props []prop) (value.ID, bool, error) {
	t := tg.table
	if tg.key != nil { // look again inside of the transaction
		tg.id = value.ID{}
		if err := c.findByKey(tg); err != nil {
			return value.ID{}, false, err
		}
	}
	var row *store.Row
	if !tg.id.IsZero() {
		row = c.view.Get(t.Name, tg.id)
	}
	if err := c.precondition(t, row, tg); err != nil {
		return value.ID{}, false, err
	}
	if row != nil {
		if c.header.Get("If-None-Match") == "*" {
			return value.ID{}, false, fail(http.StatusPreconditionFailed, codeDuplicateRecord, "A record with matching key values already exists.")
		}
		props = slices.DeleteFunc(slices.Clone(props), func(p prop) bool {
			return p.name == t.PrimaryID || tg.key != nil && slices.Contains(tg.key.Columns, p.name)
		})
		return row.ID, false, c.update(t, row.ID, props)
	}
	id, err := c.create(t, c.withKey(tg, props))
	return id, true, err
}

// withKey adds the values of the address to the body of a create; key columns in
// the body win, as on the service.
func (c *call) withKey(tg *target, props []prop) []prop {
	t := tg.table
	if tg.key == nil {
		props = slices.DeleteFunc(slices.Clone(props), func(p prop) bool { return p.name == t.PrimaryID })
		return append(props, prop{t.PrimaryID, []byte(`"` + tg.id.String() + `"`)})
	}
	out := slices.Clone(props)
	for i, name := range tg.names {
		if _, given := find(props, name); given {
			continue
		}
		col := t.Column(name)
		if !col.Type.IsLookup() {
			out = append(out, prop{name, tg.cells[i].Value.AppendJSON(nil)})
			continue
		}
		for _, rel := range t.ManyToOne {
			if _, given := find(props, rel.Nav+"@odata.bind"); rel.Column == name && !given {
				if ref := c.sch.Table(rel.Referenced); ref != nil && c.view.Get(ref.Name, tg.cells[i].Value.GUID()) != nil {
					out = append(out, prop{rel.Nav + "@odata.bind", []byte(`"/` + ref.Set + "(" + tg.cells[i].Value.GUID().String() + `)"`)})
					break
				}
			}
		}
	}
	return out
}

// deleteRow deletes a row.
func (c *call) deleteRow(tg *target) (*answer, error) {
	err := c.write(func() error {
		if tg.id.IsZero() {
			return keyNotFound(tg)
		}
		row := c.view.Get(tg.table.Name, tg.id)
		if row == nil {
			return notFound(tg.table.Name, tg.id)
		}
		if err := c.precondition(tg.table, row, tg); err != nil {
			return err
		}
		return c.remove(tg.table, tg.id)
	})
	if err != nil {
		return nil, err
	}
	return noContent(), nil
}

// references adds and removes links through $ref.
func (c *call) references(t *schema.Table, row *store.Row, nav query.Navigation, seg segment) (*answer, error) {
	other := value.ID{}
	var to *schema.Table
	switch {
	case c.method == http.MethodPost || c.method == http.MethodPut:
		props, err := parseObject(c.body)
		if err != nil {
			return nil, err
		}
		raw, _ := find(props, "@odata.id")
		text, ok := textOf(raw)
		if !ok {
			return nil, payload("'%s': '@odata.id' is missing.", t.Set)
		}
		tg, aerr := c.reference(text)
		if aerr != nil {
			return nil, aerr
		}
		other, to = tg.id, tg.table
	case seg.parens:
		id, err := value.ParseID(seg.inside)
		if err != nil {
			return nil, badRequest("'%.60s' is not a GUID.", seg.inside)
		}
		other, to = id, c.sch.Table(nav.Target)
	case c.method == http.MethodDelete && nav.Cardinality != query.ToOne:
		values, err := url.ParseQuery(c.query)
		if err != nil || values.Get("$id") == "" {
			return nil, badRequest("The record to disassociate is missing: name it in parentheses or in $id.")
		}
		tg, aerr := c.reference(values.Get("$id"))
		if aerr != nil {
			return nil, aerr
		}
		other, to = tg.id, tg.table
	}
	if (c.method == http.MethodPost) != (nav.Cardinality != query.ToOne) && c.method != http.MethodDelete {
		return nil, wrongMethod(c.method)
	}
	err := c.write(func() error {
		switch nav.Cardinality {
		case query.ToOne:
			return c.setLookup(t, row, t.Navigation(nav.Name), to, other)
		case query.ToMany:
			rel := t.Collection(nav.Name)
			child := c.sch.Table(rel.Referencing)
			if to != child {
				return payload("'%s': the reference is to %s, not to %s.", t.Set, to.Name, child.Name)
			}
			target := c.view.Get(child.Name, other)
			if target == nil {
				return notFound(child.Name, other)
			}
			if c.method == http.MethodDelete {
				return c.setLookup(child, target, rel, nil, value.ID{})
			}
			return c.setLookup(child, target, rel, t, row.ID)
		}
		return c.associate(t, row.ID, nav, to, other)
	})
	if err != nil {
		return nil, err
	}
	return noContent(), nil
}

// setLookup points a row's lookup to another row, or to none.
func (c *call) setLookup(t *schema.Table, row *store.Row, rel *schema.Relation, to *schema.Table, id value.ID) error {
	if err := c.need("Write", t); err != nil {
		return err
	}
	if err := c.poisoned(t, row.ID); err != nil {
		return err
	}
	cells := row.Cells(make([]store.Cell, t.Width()))
	changed := map[uint16]bool{}
	if to == nil || c.method == http.MethodDelete {
		cells[t.Column(rel.Column).Ord] = store.Cell{}
		changed[t.Column(rel.Column).Ord] = true
	} else if err := c.point(t, cells, rel, to, id, changed); err != nil {
		return err
	}
	return c.replace(t, row, cells, changed)
}

// associate adds or removes a row of an intersect table.
func (c *call) associate(t *schema.Table, id value.ID, nav query.Navigation, to *schema.Table, other value.ID) error {
	if nav.Intersect == "listmember" {
		return fail(http.StatusBadRequest, codeNotSupported, "%s is not supported for ListMember.", map[bool]string{true: "Disassociate", false: "Associate"}[c.method == http.MethodDelete])
	}
	if to.Name != nav.Target {
		return payload("'%s': the reference is to %s, not to %s.", t.Set, to.Name, nav.Target)
	}
	if err := c.need("Append", t); err != nil {
		return err
	}
	if err := c.need("AppendTo", to); err != nil {
		return err
	}
	if c.view.Get(to.Name, other) == nil {
		return notFound(to.Name, other)
	}
	if nav.Intersect == "systemuserroles" {
		user, role := id, other
		if t.Name == "role" {
			user, role = other, id
		}
		if err := c.sameUnit(user, role); err != nil {
			return err
		}
	}
	x := c.sch.Table(nav.Intersect)
	near, far := x.Column(nav.Near), x.Column(nav.Far)
	var existing *store.Row
	for _, r := range c.view.Find(nil, x.Name, columnIndex(nav.Near), store.Hash(value.GUID(id)), value.ID{}, 100_000) {
		if r.Value(int(near.Ord)).GUID() == id && r.Value(int(far.Ord)).GUID() == other {
			existing = r
		}
	}
	if c.method == http.MethodDelete {
		if existing == nil {
			return notFound(nav.Target, other)
		}
		c.tx.Delete(x.Name, existing.ID)
		return nil
	}
	if existing != nil {
		return fail(http.StatusPreconditionFailed, codeDuplicateRecord, "Cannot insert duplicate key.")
	}
	cells := make([]store.Cell, x.Width())
	cells[near.Ord].Value, cells[far.Ord].Value = value.GUID(id), value.GUID(other)
	if depth := x.Column("privilegedepthmask"); depth != nil {
		cells[depth.Ord].Value = value.Int(globalDepth)
	}
	c.stamp(x, cells, true)
	c.tx.Put(x.Name, store.NewRow(c.s.newID(), c.tx.Next(), cells))
	return nil
}

func (c *call) sameUnit(user, role value.ID) error {
	u, r := c.view.Get("systemuser", user), c.view.Get("role", role)
	if u == nil {
		return notFound("systemuser", user)
	}
	if r == nil {
		return notFound("role", role)
	}
	if u.Value(int(c.sch.Table("systemuser").Column("businessunitid").Ord)).GUID() != r.Value(int(c.sch.Table("role").Column("businessunitid").Ord)).GUID() {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The role's business unit does not match the user's business unit.")
	}
	return nil
}
