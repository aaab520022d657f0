package dataverse

import (
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// administratorTemplate is the template id of the System Administrator role.
var administratorTemplate = value.MustID("627090ff-40a3-4053-8790-584edc5be201")

// verbs are the privileges of a table with their access rights.
var verbs = []struct {
	name  string
	right int64
}{{"Read", 1}, {"Write", 2}, {"Append", 4}, {"AppendTo", 16}, {"Create", 32}, {"Delete", 65536}, {"Share", 262144}, {"Assign", 524288}}

// otherPrivileges are those that belong to no table of the twin.
var otherPrivileges = []string{
	"prvReadEntity", "prvCreateEntity", "prvWriteEntity", "prvDeleteEntity", "prvReadAttribute", "prvCreateAttribute", "prvWriteAttribute", "prvDeleteAttribute",
	"prvReadRelationship", "prvCreateRelationship", "prvWriteRelationship", "prvDeleteRelationship", "prvReadOptionSet", "prvCreateOptionSet", "prvWriteOptionSet",
	"prvPublishCustomization", "prvImportCustomization", "prvMerge", "prvActOnBehalfOfAnotherUser", "prvBypassCustomBusinessLogic", "prvBypassCustomPlugins",
	"prvOverrideCreatedOnCreatedBy", "prvBulkDelete", "prvQualifyLead",
}

// basePrivileges are what every new role has.
var basePrivileges = []string{
	"prvReadUser", "prvReadBusinessUnit", "prvReadOrganization", "prvReadTransactionCurrency", "prvReadSavedQuery",
	"prvReadEntity", "prvReadAttribute", "prvReadRelationship", "prvReadOptionSet",
}

func privilegeID(name string) value.ID { return value.ID(schema.NameID("privilege", name)) }

// insert stores a row made by the platform itself.
func (c *call) insert(table string, id value.ID, values map[string]any) {
	t := c.sch.Table(table)
	cells := make([]store.Cell, t.Width())
	c.defaults(t, cells)
	for name, v := range values {
		col := t.Column(name)
		if col == nil {
			panic("dataverse: " + table + " has no column " + name)
		}
		cells[col.Ord] = store.Cell{Value: toValue(v)}
	}
	if col := t.Column("statuscode"); col != nil && cells[col.Ord].Value.IsNull() {
		o, _ := t.Column("statecode").Option(int32(cellOf(t, cells, "statecode").Value.Int()))
		cells[col.Ord].Value = value.Int(int64(o.DefaultStatus))
	}
	c.stamp(t, cells, true)
	c.tx.Put(table, store.NewRow(id, c.tx.Next(), cells))
}

func toValue(v any) value.Value {
	switch v := v.(type) {
	case value.Value:
		return v
	case value.ID:
		return value.GUID(v)
	case string:
		return value.Text(v)
	case int:
		return value.Int(int64(v))
	case int64:
		return value.Int(v)
	case bool:
		return value.Bool(v)
	}
	panic(fmt.Sprintf("dataverse: no value for %T", v))
}

// platform runs f as the SYSTEM user in a transaction.
func (s *Server) platform(f func(c *call) error) error {
	c := &call{
		s: s, sch: s.sch.Load(), now: s.clock.Now(), view: s.store.View(),
		user: &principal{id: s.org.system, real: s.org.system, unit: s.org.rootUnit, rights: s.everything()},
	}
	return c.write(func() error { return f(c) })
}

// everything is the right to everything, of the platform itself.
func (s *Server) everything() privileges {
	out := privileges{}
	for _, name := range s.privilegeNames() {
		out[name] = globalDepth
	}
	return out
}

func (s *Server) privilegeNames() []string {
	out := slices.Clone(otherPrivileges)
	for _, t := range s.sch.Load().Tables() {
		for _, v := range verbs {
			if name := privilegeName(v.name, t); !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// seed makes the rows every organization begins with.
func (s *Server) seed() {
	id := func(name string) value.ID { return value.ID(schema.NameID("organization", s.opt.UniqueName, name)) }
	s.org = org{id: id("organization"), rootUnit: id("root unit"), currency: id("currency"), system: id("system"), admin: id("administrator role")}
	err := s.platform(func(c *call) error {
		c.insert("transactioncurrency", s.org.currency, map[string]any{
			"currencyname": "US Dollar", "isocurrencycode": "USD", "currencysymbol": "$",
			"exchangerate": value.Decimal(10_000_000_000, 10), "currencyprecision": 2,
		})
		c.insert("organization", s.org.id, map[string]any{
			"name": s.opt.OrganizationName, "languagecode": 1033, "localeid": 1033,
			"basecurrencyid": s.org.currency, "expirechangetrackingindays": 7,
		})
		c.insert("publisher", id("publisher"), map[string]any{
			"uniquename": "DefaultPublisher" + s.opt.UniqueName, "friendlyname": "Default Publisher for " + s.opt.UniqueName,
			"customizationprefix": "new", "customizationoptionvalueprefix": 10_000,
		})
		c.insert("solution", id("solution"), map[string]any{
			"uniquename": "Default", "friendlyname": "Default Solution", "version": "1.0", "publisherid": id("publisher"), "isvisible": false,
		})
		c.insert("businessunit", s.org.rootUnit, map[string]any{"name": s.opt.OrganizationName, "organizationid": s.org.id})
		c.insert("systemuser", s.org.system, map[string]any{"fullname": "SYSTEM", "lastname": "SYSTEM", "businessunitid": s.org.rootUnit, "accessmode": 3})
		c.insert("role", s.org.admin, map[string]any{"name": "System Administrator", "businessunitid": s.org.rootUnit, "roletemplateid": administratorTemplate})
		for _, t := range c.sch.Tables() {
			c.seedTable(t)
		}
		for _, name := range otherPrivileges {
			c.seedPrivilege(name, 0)
		}
		return nil
	})
	if err != nil {
		panic(err) // nothing in seed can be refused
	}
}

// seedTable makes the privileges, messages and the default view of a table.
func (c *call) seedTable(t *schema.Table) {
	for _, v := range verbs {
		c.seedPrivilege(privilegeName(v.name, t), v.right)
	}
	messages := []string{"Create", "Retrieve", "RetrieveMultiple", "Update", "Delete"}
	switch {
	case t.Name == "listmember":
		messages = []string{"RetrieveMultiple"}
	case t.ReadOnly:
		messages = []string{"Retrieve", "RetrieveMultiple"}
	case t.Ownership == "UserOwned":
		messages = append(messages, bulkMessages...)
	}
	if t.Name == "list" {
		messages = append(messages, "AddMember", "AddListMembers", "RemoveMember")
	}
	for _, m := range messages {
		c.seedMessage(t, m)
	}
	if t.Ownership == "UserOwned" {
		id := value.ID(schema.NameID("savedquery", t.Name))
		c.insert("savedquery", id, map[string]any{
			"name": "Active " + t.Plural, "returnedtypecode": t.Name, "querytype": 0, "isdefault": true,
			"fetchxml": `<fetch version="1.0" mapping="logical"><entity name="` + t.Name + `"><attribute name="` + t.PrimaryName + `"/><filter><condition attribute="statecode" operator="eq" value="0"/></filter></entity></fetch>`,
		})
	}
}

var bulkMessages = []string{"CreateMultiple", "UpdateMultiple", "UpsertMultiple"}

func (c *call) seedMessage(t *schema.Table, name string) {
	message := value.ID(schema.NameID("sdkmessage", name))
	if c.view.Get("sdkmessage", message) == nil {
		c.insert("sdkmessage", message, map[string]any{"name": name})
	}
	id := value.ID(schema.NameID("sdkmessagefilter", t.Name, name))
	if c.view.Get("sdkmessagefilter", id) == nil {
		c.insert("sdkmessagefilter", id, map[string]any{"name": name, "sdkmessageid": message, "primaryobjecttypecode": t.Name, "secondaryobjecttypecode": "none"})
	}
}

func (c *call) seedPrivilege(name string, right int64) {
	id := privilegeID(name)
	if c.view.Get("privilege", id) != nil {
		return
	}
	c.insert("privilege", id, map[string]any{"name": name, "accessright": right})
	c.grantOne(c.s.org.admin, id, globalDepth)
}

func grantID(role, privilege value.ID) value.ID {
	return value.ID(schema.NameID("roleprivilege", role.String(), privilege.String()))
}

func (c *call) grantOne(role, privilege value.ID, depth int) {
	t := c.sch.Table("roleprivileges")
	cells := make([]store.Cell, t.Width())
	put(t, cells, "roleid", value.GUID(role))
	put(t, cells, "privilegeid", value.GUID(privilege))
	put(t, cells, "privilegedepthmask", value.Int(int64(depth)))
	c.tx.Put(t.Name, store.NewRow(grantID(role, privilege), c.tx.Next(), cells))
}

// grantBase gives a new role what every role has.
func (c *call) grantBase(role value.ID) {
	for _, name := range basePrivileges {
		if c.view.Get("privilege", privilegeID(name)) != nil {
			c.grantOne(role, privilegeID(name), globalDepth)
		}
	}
}

// grant is AddPrivilegesRole and ReplacePrivilegesRole.
func (c *call) grant(role value.ID, props []prop, replace bool) error {
	t := c.sch.Table("role")
	if err := c.need("Write", t); err != nil {
		return err
	}
	if c.view.Get("role", role) == nil {
		return notFound("role", role)
	}
	raw, _ := find(props, "Privileges")
	items, ok := splitArray(raw)
	if !ok {
		return payload("'roles': the parameter 'Privileges' must be an array.")
	}
	if replace {
		for _, r := range c.view.Find(nil, "roleprivileges", columnIndex("roleid"), store.Hash(value.GUID(role)), value.ID{}, 100_000) {
			c.tx.Delete("roleprivileges", r.ID)
		}
	}
	depths := map[string]int{"Basic": 1, "Local": 2, "Deep": 4, "Global": 8, "0": 1, "1": 2, "2": 4, "3": 8}
	for _, item := range items {
		fields, err := splitObject(item)
		if err != nil {
			return err
		}
		idText, _ := find(fields, "PrivilegeId")
		depthText, _ := find(fields, "Depth")
		id, perr := value.ParseID(firstText(idText))
		if perr != nil {
			return payload("'roles': 'PrivilegeId' must be a GUID.")
		}
		depth := depths[firstText(depthText)]
		if depth == 0 {
			depth = depths[string(depthText)]
		}
		if depth == 0 {
			return payload("'roles': 'Depth' must be Basic, Local, Deep or Global.")
		}
		if c.view.Get("privilege", id) == nil {
			return notFound("privilege", id)
		}
		c.grantOne(role, id, depth)
	}
	return nil
}

// AppUser describes an application user to set up.
type AppUser struct {
	// ClientID is the application's client id, a GUID.
	ClientID string
	// Name is the full name; empty takes one derived from the client id.
	Name string
	// ObjectID is the directory object id; empty makes one.
	ObjectID string
	// NoRole leaves the user without any role; else it gets a role of its own
	// that starts as a copy of System Administrator.
	NoRole bool
	// Only names the privileges of the role, such as "prvReadContact"; nil
	// means all that exist.
	Only []string
	// Without takes privileges away.
	Without []string
	// Disabled makes the user disabled.
	Disabled bool
}

// AddApplicationUser makes the user row of an application, a role for it and the
// assignment; it returns the systemuserid. Adding the same client id again
// replaces what was there.
func (s *Server) AddApplicationUser(u AppUser) (string, error) {
	app, err := value.ParseID(u.ClientID)
	if err != nil {
		return "", fmt.Errorf("application user: client id %q: %w", u.ClientID, err)
	}
	user := value.ID(schema.NameID("application user", s.opt.UniqueName, app.String()))
	role := value.ID(schema.NameID("application role", s.opt.UniqueName, app.String()))
	object := value.ID(schema.NameID("application object", s.opt.UniqueName, app.String()))
	if u.ObjectID != "" {
		if object, err = value.ParseID(u.ObjectID); err != nil {
			return "", fmt.Errorf("application user: object id %q: %w", u.ObjectID, err)
		}
	}
	name := u.Name
	if name == "" {
		name = "# " + app.String()[:8]
	}
	err = s.platform(func(c *call) error {
		c.insert("systemuser", user, map[string]any{
			"fullname": name, "applicationid": app, "azureactivedirectoryobjectid": object,
			"businessunitid": s.org.rootUnit, "accessmode": 4, "isdisabled": u.Disabled,
		})
		assigned := value.ID(schema.NameID("assignment", user.String(), role.String()))
		for _, r := range c.view.Find(nil, "roleprivileges", columnIndex("roleid"), store.Hash(value.GUID(role)), value.ID{}, 100_000) {
			c.tx.Delete("roleprivileges", r.ID)
		}
		if u.NoRole {
			c.tx.Delete("systemuserroles", assigned)
			return nil
		}
		c.insert("role", role, map[string]any{"name": "Integration " + name, "businessunitid": s.org.rootUnit})
		t := c.sch.Table("systemuserroles")
		cells := make([]store.Cell, t.Width())
		put(t, cells, "systemuserid", value.GUID(user))
		put(t, cells, "roleid", value.GUID(role))
		c.tx.Put(t.Name, store.NewRow(assigned, c.tx.Next(), cells))
		names := u.Only
		if names == nil {
			names = s.privilegeNames()
		}
		for _, n := range names {
			if slices.Contains(u.Without, n) {
				continue
			}
			if c.view.Get("privilege", privilegeID(n)) == nil {
				return fmt.Errorf("application user: there is no privilege %q", n)
			}
			c.grantOne(role, privilegeID(n), globalDepth)
		}
		return nil
	})
	return user.String(), err
}

// SetPrivilege grants (at organization depth) or revokes one privilege of the
// role that AddApplicationUser made for a client id.
func (s *Server) SetPrivilege(clientID, privilege string, granted bool) error {
	if granted {
		return s.grant(clientID, privilege, globalDepth)
	}
	return s.grant(clientID, privilege, 0)
}

// grant gives the role of an application user a privilege at a depth; 0 takes it away.
func (s *Server) grant(clientID, privilege string, depth int) error {
	app, err := value.ParseID(clientID)
	if err != nil {
		return fmt.Errorf("privilege: client id %q: %w", clientID, err)
	}
	role := value.ID(schema.NameID("application role", s.opt.UniqueName, app.String()))
	return s.platform(func(c *call) error {
		if c.view.Get("role", role) == nil || c.view.Get("privilege", privilegeID(privilege)) == nil {
			return fmt.Errorf("privilege: no role for client %s or no privilege %q", clientID, privilege)
		}
		c.tx.Delete("roleprivileges", grantID(role, privilegeID(privilege)))
		if depth > 0 {
			c.grantOne(role, privilegeID(privilege), depth)
		}
		return nil
	})
}

// NarrowPrivilege grants a privilege for the rows that an application user owns alone.
func (s *Server) NarrowPrivilege(clientID, privilege string) error {
	return s.grant(clientID, privilege, userDepth)
}

// SetBulkMessages says whether a table has CreateMultiple, UpdateMultiple and
// UpsertMultiple, as clients find out from sdkmessagefilters.
func (s *Server) SetBulkMessages(table string, available bool) error {
	t := s.sch.Load().Table(table)
	if t == nil {
		return fmt.Errorf("bulk messages: there is no table %q", table)
	}
	return s.platform(func(c *call) error {
		for _, m := range bulkMessages {
			if available {
				c.seedMessage(t, m)
			} else {
				c.tx.Delete("sdkmessagefilter", value.ID(schema.NameID("sdkmessagefilter", table, m)))
			}
		}
		return nil
	})
}

func (s *Server) environmentID() string {
	return schema.FormatID(schema.NameID("environment", s.opt.UniqueName))
}
