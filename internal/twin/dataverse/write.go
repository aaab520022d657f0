package dataverse

import (
	"net/http"
	"slices"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// write runs f in a transaction, that of the surrounding change set if there is
// one. An error of f takes its writes back.
func (c *call) write(f func() error) error {
	if c.tx != nil {
		c.tx.Operation = c.op
		mark := c.tx.Mark()
		err := f()
		if err != nil {
			c.tx.Undo(mark)
		}
		return err
	}
	c.begin()
	done := false
	defer func() {
		if !done { // a panic must not leave the store locked
			c.end(false)
		}
	}()
	err := f()
	done = true
	c.end(err == nil)
	return err
}

func (c *call) begin() {
	c.tx = c.s.store.Begin(c.user.id, c.now)
	c.tx.Operation, c.tx.Caller = c.op, c.user.real
	c.view = c.tx.View
	c.s.hooks.refresh(c)
}

func (c *call) end(commit bool) {
	if commit {
		c.tx.Commit()
	} else {
		c.tx.Rollback()
	}
	c.tx = nil
	c.view = c.s.store.View()
}

// maxDepth bounds nested writes: deep inserts and cascades.
const maxDepth = 20

func (c *call) deeper() error {
	if c.depth++; c.depth > maxDepth {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The rows of the request are nested more than %d deep.", maxDepth)
	}
	return nil
}

func cellOf(t *schema.Table, cells []store.Cell, name string) *store.Cell {
	if col := t.Column(name); col != nil {
		return &cells[col.Ord]
	}
	return &store.Cell{}
}

func put(t *schema.Table, cells []store.Cell, name string, v value.Value) {
	if col := t.Column(name); col != nil {
		cells[col.Ord] = store.Cell{Value: v}
	}
}

// create inserts a row from a body and returns its id.
func (c *call) create(t *schema.Table, props []prop) (value.ID, error) {
	if err := c.deeper(); err != nil {
		return value.ID{}, err
	}
	defer func() { c.depth-- }()
	if t.ReadOnly {
		return value.ID{}, fail(http.StatusBadRequest, codeNotSupported, "The 'Create' method does not support entities of type '%s'.", t.Name)
	}
	if err := c.need("Create", t); err != nil {
		return value.ID{}, err
	}
	if _, given := find(props, "overriddencreatedon"); given {
		if err := c.needPrivilege("prvOverrideCreatedOnCreatedBy", t); err != nil {
			return value.ID{}, err
		}
	}
	cells := make([]store.Cell, t.Width())
	changed := map[uint16]bool{}
	deep, err := c.apply(t, cells, props, true, changed)
	if err != nil {
		return value.ID{}, err
	}
	id := cells[schema.IDOrd].Value.GUID()
	if id.IsZero() {
		id = c.s.newID()
	}
	if err := c.poisoned(t, id); err != nil {
		return value.ID{}, err
	}
	if c.view.Get(t.Name, id) != nil {
		return value.ID{}, fail(http.StatusPreconditionFailed, codeDuplicateRecord, "Cannot insert duplicate key.")
	}
	cells[schema.IDOrd].Value = value.GUID(id)
	if err := c.complete(t, cells, nil, changed); err != nil {
		return value.ID{}, err
	}
	c.stamp(t, cells, true)
	if err := c.unique(t, id, cells); err != nil {
		return value.ID{}, err
	}
	c.tx.Put(t.Name, store.NewRow(id, c.tx.Next(), cells))
	c.announce(announcement{name: "Create", table: t}, nil)
	if t.Name == "role" {
		c.grantBase(id)
	}
	for _, d := range deep {
		for _, raw := range d.rows {
			if err := c.createChild(t, id, d.nav, raw); err != nil {
				return value.ID{}, err
			}
		}
	}
	return id, nil
}

// createChild makes one row of a nested collection.
func (c *call) createChild(t *schema.Table, id value.ID, nav string, raw []byte) error {
	rel := t.Collection(nav)
	if rel == nil {
		return fail(http.StatusBadRequest, codeNotSupported, "Rows cannot be created through '%s'; use the actions of the list.", nav)
	}
	props, err := splitObject(raw)
	if err != nil {
		return err
	}
	child := c.sch.Table(rel.Referencing)
	if rel.Nav == "" {
		return noSegment(nav)
	}
	bind := []byte(`"/` + t.Set + "(" + id.String() + `)"`)
	_, err = c.create(child, append(slices.Clone(props), prop{rel.Nav + "@odata.bind", bind}))
	return err
}

// update changes a row from a body. Sending equal values still makes a new
// version, as the service does.
func (c *call) update(t *schema.Table, id value.ID, props []prop) error {
	row := c.view.Get(t.Name, id)
	if row == nil {
		return notFound(t.Name, id)
	}
	if t.ReadOnly {
		return fail(http.StatusBadRequest, codeNotSupported, "The 'Update' method does not support entities of type '%s'.", t.Name)
	}
	if err := c.need("Write", t); err != nil {
		return err
	}
	if err := c.poisoned(t, id); err != nil {
		return err
	}
	cells := row.Cells(make([]store.Cell, t.Width()))
	changed := map[uint16]bool{}
	if _, err := c.apply(t, cells, props, false, changed); err != nil {
		return err
	}
	return c.replace(t, row, cells, changed)
}

// replace completes, checks and stores changed cells of an existing row.
func (c *call) replace(t *schema.Table, row *store.Row, cells []store.Cell, changed map[uint16]bool) error {
	if owner := t.Column("ownerid"); owner != nil && changed[owner.Ord] && cells[owner.Ord] != row.Cell(int(owner.Ord)) {
		if err := c.need("Assign", t); err != nil {
			return err
		}
	}
	if err := c.complete(t, cells, row, changed); err != nil {
		return err
	}
	c.stamp(t, cells, false)
	if err := c.unique(t, row.ID, cells); err != nil {
		return err
	}
	c.tx.Put(t.Name, store.NewRow(row.ID, c.tx.Next(), cells))
	c.announce(announcement{name: "Update", table: t}, changed)
	return nil
}

// stamp sets who wrote when.
func (c *call) stamp(t *schema.Table, cells []store.Cell, creating bool) {
	now, user := value.DateTime(c.now), value.GUID(c.user.id)
	behalf := value.Null()
	if c.user.real != c.user.id {
		behalf = value.GUID(c.user.real)
	}
	if creating {
		created := now
		if v := cellOf(t, cells, "overriddencreatedon").Value; !v.IsNull() {
			put(t, cells, "overriddencreatedon", now)
			created = v
		}
		put(t, cells, "createdon", created)
		put(t, cells, "createdby", user)
		put(t, cells, "createdonbehalfby", behalf)
	}
	put(t, cells, "modifiedon", now)
	put(t, cells, "modifiedby", user)
	put(t, cells, "modifiedonbehalfby", behalf)
}

// unique refuses a second row with the values of an active alternate key.
func (c *call) unique(t *schema.Table, id value.ID, cells []store.Cell) error {
keys:
	for _, k := range t.Keys {
		if k.Status != schema.KeyActive {
			continue
		}
		values := make([]value.Value, len(k.Columns))
		for i, name := range k.Columns {
			if values[i] = cellOf(t, cells, name).Value; values[i].IsNull() {
				continue keys
			}
		}
		for _, r := range c.byKey(t, k, values, 2) {
			if r.ID != id {
				return fail(http.StatusPreconditionFailed, codeDuplicateKey,
					"A record that has the attribute values of the entity key %s already exists. The entity key requires that this set of attributes contains unique values. Select unique values and try again.", k.SchemaName)
			}
		}
	}
	return nil
}

// remove deletes a row and what belongs to it.
func (c *call) remove(t *schema.Table, id value.ID) error {
	if err := c.deeper(); err != nil {
		return err
	}
	defer func() { c.depth-- }()
	row := c.view.Get(t.Name, id)
	if row == nil {
		return notFound(t.Name, id)
	}
	switch {
	case t.Name == "listmember":
		return fail(http.StatusBadRequest, codeNotSupported, "Members leave a list through RemoveMemberList.")
	case t.Name == "systemuser" || t.Name == "organization" || t.Name == "businessunit" || t.ReadOnly:
		return fail(http.StatusMethodNotAllowed, codeNotSupported, "The 'Delete' method does not support entities of type '%s'.", t.Name)
	}
	if err := c.need("Delete", t); err != nil {
		return err
	}
	if err := c.poisoned(t, id); err != nil {
		return err
	}
	if t.Name == "publisher" || t.Name == "solution" {
		if err := c.forgetSolution(t, row); err != nil {
			return err
		}
	}
	for _, rel := range t.OneToMany {
		child := c.sch.Table(rel.Referencing)
		if child == nil || child.Intersect || !c.view.HasIndex(child.Name, columnIndex(rel.Column)) {
			continue
		}
		if err := c.unlink(rel, child, id); err != nil {
			return err
		}
	}
	for _, m := range t.NToN {
		c.leave(t, m, id)
	}
	c.tx.Delete(t.Name, id)
	c.announce(announcement{name: "Delete", table: t}, nil)
	return nil
}

// unlink carries out the delete behaviour of one relationship.
func (c *call) unlink(rel *schema.Relation, child *schema.Table, id value.ID) error {
	ord := int(child.Column(rel.Column).Ord)
	for {
		rows := c.view.Find(nil, child.Name, columnIndex(rel.Column), store.Hash(value.GUID(id)), value.ID{}, 1000)
		done := true
		for _, r := range rows {
			cell := r.Cell(ord)
			if cell.Value.GUID() != id || child.Column(rel.Column).Targets[cell.Target] != rel.Referenced {
				continue
			}
			done = false
			switch rel.Cascade.Delete {
			case "Restrict":
				return fail(http.StatusMethodNotAllowed, codeCannotDelete, "The object you tried to delete is associated with another object and cannot be deleted.")
			case "Cascade":
				if err := c.remove(child, r.ID); err != nil {
					return err
				}
			default:
				cells := r.Cells(make([]store.Cell, child.Width()))
				cells[ord] = store.Cell{}
				derive(child, cells)
				c.stamp(child, cells, false)
				c.tx.Put(child.Name, store.NewRow(r.ID, c.tx.Next(), cells))
			}
		}
		if done {
			return nil
		}
	}
}

// leave removes the intersect rows of a row that goes.
func (c *call) leave(t *schema.Table, m *schema.ManyToMany, id value.ID) {
	column := m.Column1
	if m.Table2 == t.Name {
		column = m.Column2
	}
	x := c.sch.Table(m.Intersect)
	ord := int(x.Column(column).Ord)
	lists := map[value.ID]bool{}
	for {
		done := true
		for _, r := range c.view.Find(nil, x.Name, columnIndex(column), store.Hash(value.GUID(id)), value.ID{}, 1000) {
			if r.Value(ord).GUID() != id {
				continue
			}
			done = false
			if x.Name == "listmember" && t.Name != "list" {
				lists[r.Value(int(x.Column("listid").Ord)).GUID()] = true
			}
			c.tx.Delete(x.Name, r.ID)
		}
		if done {
			break
		}
	}
	for _, list := range sortedIDs(lists) {
		c.addMemberCount(list, -1)
	}
}

func sortedIDs(set map[value.ID]bool) []value.ID {
	out := make([]value.ID, 0, len(set))
	for id := range set {
		out = append(out, id)
	}
	slices.SortFunc(out, value.ID.Compare)
	return out
}
