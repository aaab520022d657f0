package dataverse

import (
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// merge is the action Merge: the subordinate becomes inactive and points to the
// target, children of relationships that follow merges move to the target.
func (c *call) merge(props []prop) (*answer, error) {
	raw, ok := find(props, "Target")
	if !ok {
		return nil, payload("the parameter 'Target' is missing.")
	}
	t, winner, err := c.entityID(raw)
	if err != nil {
		return nil, err
	}
	raw, ok = find(props, "Subordinate")
	if !ok {
		return nil, payload("the parameter 'Subordinate' is missing.")
	}
	t2, loser, err := c.entityID(raw)
	if err != nil {
		return nil, err
	}
	if t != t2 || t.Column("masterid") == nil || t.Column("merged") == nil {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "Only two contacts, accounts or leads can be merged.")
	}
	var content []prop
	if raw, ok := find(props, "UpdateContent"); ok && !isNull(raw) {
		if content, err = splitObject(raw); err != nil {
			return nil, err
		}
	}
	if winner == loser {
		return nil, fail(http.StatusBadRequest, codeInvalidArgument, "A record cannot be merged with itself.")
	}
	return noContent(), c.write(func() error {
		if err := c.needPrivilege("prvMerge", t); err != nil {
			return err
		}
		row := c.view.Get(t.Name, loser)
		if row == nil {
			return notFound(t.Name, loser)
		}
		if err := c.update(t, winner, without(content, t.PrimaryID)); err != nil {
			return err
		}
		for _, rel := range t.OneToMany {
			if rel.Column == "masterid" || rel.Referencing == "listmember" {
				continue
			}
			if err := c.moveChildren(rel, t, loser, winner); err != nil {
				return err
			}
		}
		row = c.view.Get(t.Name, loser) // children may be of the same table
		cells := row.Cells(make([]store.Cell, t.Width()))
		put(t, cells, "merged", value.Bool(true))
		put(t, cells, "masterid", value.GUID(winner))
		state := t.Column("statecode")
		cells[state.Ord].Value = value.Int(int64(state.Options[len(state.Options)-1].Value))
		return c.replace(t, row, cells, map[uint16]bool{state.Ord: true})
	})
}

// moveChildren points the children of one row to another.
func (c *call) moveChildren(rel *schema.Relation, t *schema.Table, from, to value.ID) error {
	child := c.sch.Table(rel.Referencing)
	if child == nil || child.Intersect || !c.view.HasIndex(child.Name, columnIndex(rel.Column)) {
		return nil
	}
	col := child.Column(rel.Column)
	for {
		moved := 0
		for _, r := range c.view.Find(nil, child.Name, columnIndex(rel.Column), store.Hash(value.GUID(from)), value.ID{}, 1000) {
			cells := r.Cells(make([]store.Cell, child.Width()))
			if cells[col.Ord].Value.GUID() != from || col.Targets[cells[col.Ord].Target] != t.Name {
				continue
			}
			cells[col.Ord].Value = value.GUID(to)
			if err := c.replace(child, r, cells, map[uint16]bool{col.Ord: true}); err != nil {
				return err
			}
			moved++
		}
		if moved == 0 {
			return nil
		}
	}
}

// leadToContact are the columns that qualification carries over.
var leadToContact = []string{
	"salutation", "firstname", "middlename", "lastname", "jobtitle", "emailaddress1", "emailaddress2", "emailaddress3",
	"telephone1", "telephone2", "telephone3", "mobilephone", "fax", "pager", "websiteurl", "description",
	"donotemail", "donotbulkemail", "donotphone", "donotfax", "donotpostalmail", "donotsendmm", "preferredcontactmethodcode",
	"address1_line1", "address1_line2", "address1_line3", "address1_city", "address1_stateorprovince", "address1_postalcode", "address1_country",
	"address1_county", "address1_telephone1",
}

// qualifyLead is the bound action QualifyLead: the lead becomes qualified and,
// as asked, an account and a contact are made of it.
func (c *call) qualifyLead(id value.ID, props []prop) (*answer, error) {
	flag := func(name string) bool { raw, _ := find(props, name); return string(raw) == "true" }
	if flag("CreateOpportunity") {
		return nil, notEmulated("QualifyLead with CreateOpportunity")
	}
	status := []byte("3")
	if raw, ok := find(props, "Status"); ok {
		status = raw
	}
	var made []string
	err := c.write(func() error {
		t := c.sch.Table("lead")
		row := c.view.Get("lead", id)
		if row == nil {
			return notFound("lead", id)
		}
		if row.Value(int(t.Column("statecode").Ord)).Int() != 0 {
			return fail(http.StatusBadRequest, codeStateStatus, "The lead is already closed.")
		}
		get := func(name string) value.Value { return row.Value(int(t.Column(name).Ord)) }
		origin := prop{"originatingleadid@odata.bind", []byte(`"/leads(` + id.String() + `)"`)}
		change := []prop{{"statecode", []byte("1")}, {"statuscode", status}}
		parent := ""
		if flag("CreateAccount") && !get("companyname").IsNull() {
			account, err := c.create(c.sch.Table("account"), []prop{{"name", get("companyname").AppendJSON(nil)}, origin})
			if err != nil {
				return err
			}
			parent = `"/accounts(` + account.String() + `)"`
			made = append(made, `{"@odata.type":"#`+crm+`account","accountid":"`+account.String()+`"}`)
			change = append(change, prop{"parentaccountid@odata.bind", []byte(parent)})
		}
		if flag("CreateContact") {
			body := []prop{origin}
			for _, name := range leadToContact {
				if v := get(name); !v.IsNull() {
					body = append(body, prop{name, v.AppendJSON(nil)})
				}
			}
			if parent != "" {
				body = append(body, prop{"parentcustomerid_account@odata.bind", []byte(parent)})
			}
			contact, err := c.create(c.sch.Table("contact"), body)
			if err != nil {
				return err
			}
			made = append(made, `{"@odata.type":"#`+crm+`contact","contactid":"`+contact.String()+`"}`)
			change = append(change, prop{"parentcontactid@odata.bind", []byte(`"/contacts(` + contact.String() + `)"`)})
		}
		return c.update(t, id, change)
	})
	if err != nil {
		return nil, err
	}
	body := append([]byte(nil), `{"@odata.context":`...)
	body = value.AppendString(body, c.context()+"Collection("+crm+"crmbaseentity)")
	return jsonAnswer(http.StatusOK, append(body, `,"value":[`+strings.Join(made, ",")+`]}`...)), nil
}
