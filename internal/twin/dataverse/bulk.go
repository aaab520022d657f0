package dataverse

import (
	"net/http"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// bulk carries out the messages that are bound to a set. A standard table takes
// all rows of a call or none.
func (c *call) bulk(t *schema.Table, message string) (*answer, error) {
	if c.method != http.MethodPost {
		return nil, wrongMethod(c.method)
	}
	if strings.HasPrefix(c.version, "8") {
		return nil, noSegment(crm + message)
	}
	switch message {
	case "CreateMultiple", "UpdateMultiple", "UpsertMultiple":
	case "DeleteMultiple":
		return nil, fail(http.StatusNotImplemented, codeMessageMissing, "DeleteMultiple has not been implemented for entity %s.", t.Name)
	default:
		return nil, noSegment(crm + message)
	}
	// UpsertMultiple has no filter of its own in every release: a table that takes
	// both others takes it.
	probe := message
	if message == "UpsertMultiple" {
		probe = "UpdateMultiple"
	}
	if !c.hasMessage(t.Name, probe) {
		return nil, fail(http.StatusNotImplemented, codeMessageMissing, "%s has not been implemented for entity %s.", message, t.Name)
	}
	props, err := parseObject(c.body)
	if err != nil {
		return nil, err
	}
	raw, _ := find(props, "Targets")
	items, ok := splitArray(raw)
	if !ok {
		return nil, payload("'%s': the parameter 'Targets' must be an array.", t.Set)
	}
	targets := make([][]prop, len(items))
	for i, item := range items {
		if targets[i], err = splitObject(item); err != nil {
			return nil, err
		}
		kind, _ := find(targets[i], "@odata.type")
		if text, _ := textOf(kind); strings.TrimPrefix(text, "#") != crm+t.Name {
			return nil, payload("'%s': every item of 'Targets' needs @odata.type \"%s%s\".", t.Set, crm, t.Name)
		}
	}
	ids := make([]value.ID, len(targets))
	err = c.write(func() error {
		for i, item := range targets {
			var err error
			switch message {
			case "CreateMultiple":
				ids[i], err = c.create(t, item)
			case "UpdateMultiple":
				err = c.updateItem(t, item)
			default:
				err = c.upsertItem(t, item)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if message != "CreateMultiple" {
		return noContent(), nil
	}
	body := append([]byte(nil), `{"@odata.context":`...)
	body = value.AppendString(body, c.context()+crm+"CreateMultipleResponse")
	body = append(body, `,"Ids":[`...)
	for i, id := range ids {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(id.Append(append(body, '"')), '"')
	}
	return jsonAnswer(http.StatusOK, append(body, "]}"...)), nil
}

// itemTarget finds the row an item addresses: by @odata.id, else by primary key.
func (c *call) itemTarget(t *schema.Table, item []prop) (*target, error) {
	if raw, ok := find(item, "@odata.id"); ok {
		text, _ := textOf(raw)
		segs, err := splitPath(text[strings.LastIndex(text, "/")+1:])
		if err != nil {
			return nil, err
		}
		if len(segs) != 1 || segs[0].name != t.Set || !segs[0].parens {
			return nil, payload("'%s': '%.80s' is not the address of a %s.", t.Set, text, t.Name)
		}
		tg, aerr := c.resolve(t, segs[0].inside)
		if aerr != nil {
			return nil, aerr
		}
		return tg, nil
	}
	if raw, ok := find(item, t.PrimaryID); ok {
		if text, ok := textOf(raw); ok {
			if id, err := value.ParseID(text); err == nil {
				return &target{table: t, id: id, text: id.String()}, nil
			}
		}
		return nil, payload("'%s', Cannot convert the value of '%s' to the expected type 'Edm.Guid'.", t.Set, t.PrimaryID)
	}
	return nil, payload("'%s': an item of 'Targets' has neither a primary key nor @odata.id.", t.Set)
}

func (c *call) updateItem(t *schema.Table, item []prop) error {
	tg, err := c.itemTarget(t, item)
	if err != nil {
		return err
	}
	if tg.id.IsZero() {
		return keyNotFound(tg)
	}
	return c.update(t, tg.id, without(item, t.PrimaryID))
}

func (c *call) upsertItem(t *schema.Table, item []prop) error {
	tg, err := c.itemTarget(t, item)
	if err != nil {
		return err
	}
	var row *store.Row
	if !tg.id.IsZero() {
		row = c.view.Get(t.Name, tg.id)
	}
	if row != nil {
		drop := []string{t.PrimaryID}
		if tg.key != nil {
			drop = append(drop, tg.key.Columns...)
		}
		return c.update(t, row.ID, without(item, drop...))
	}
	for _, name := range tg.names {
		if _, both := find(item, name); both {
			return fail(http.StatusBadRequest, codeUnexpected, "An unexpected error occurred: the key attribute '%s' is given twice, in @odata.id and in the body.", name)
		}
	}
	_, err = c.create(t, c.withKey(tg, item))
	return err
}

func without(item []prop, names ...string) []prop {
	return slices.DeleteFunc(slices.Clone(item), func(p prop) bool { return slices.Contains(names, p.name) })
}

// hasMessage reports whether a table has a message, as sdkmessagefilters tells.
func (c *call) hasMessage(table, message string) bool {
	filters := c.sch.Table("sdkmessagefilter")
	id := value.ID(schema.NameID("sdkmessagefilter", table, message))
	r := c.view.Get(filters.Name, id)
	return r != nil
}
