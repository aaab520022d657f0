package dataverse

import (
	"encoding/json"
	"net/http"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// memberTable is the table of a list's members by its member type.
func memberTable(code int64) string {
	switch code {
	case 1:
		return "account"
	case 2:
		return "contact"
	case 4:
		return "lead"
	}
	return ""
}

// list is a marketing list as the membership actions see it.
type list struct {
	row     *store.Row
	member  *schema.Table
	dynamic bool
}

func (c *call) openList(id value.ID) (*list, error) {
	t := c.sch.Table("list")
	row := c.view.Get("list", id)
	if row == nil {
		return nil, notFound("list", id)
	}
	get := func(name string) value.Value { return row.Value(int(t.Column(name).Ord)) }
	return &list{row: row, member: c.sch.Table(memberTable(get("membertype").Int())), dynamic: get("type").Bool()}, nil
}

// editList opens a list whose members may be changed and checks the privileges.
// Which ones the service asks for is not documented; the twin asks for all that
// could matter.
func (c *call) editList(id value.ID) (*list, error) {
	t := c.sch.Table("list")
	for _, verb := range [...]string{"Read", "Write", "Append", "AppendTo"} {
		if err := c.need(verb, t); err != nil {
			return nil, err
		}
	}
	l, err := c.openList(id)
	if err != nil {
		return nil, err
	}
	for _, verb := range [...]string{"Read", "Append", "AppendTo"} {
		if err := c.need(verb, l.member); err != nil {
			return nil, err
		}
	}
	switch {
	case l.dynamic:
		return nil, fail(http.StatusBadRequest, codeDynamicList, "The operation is not valid for a dynamic list.")
	case l.row.Value(int(t.Column("lockstatus").Ord)).Bool():
		return nil, fail(http.StatusBadRequest, codeListLocked, "Cannot perform the operation, because the list is locked.")
	case l.row.Value(int(t.Column("statecode").Ord)).Int() != 0:
		return nil, fail(http.StatusBadRequest, codeInactive, "The list is inactive; its members cannot be changed.")
	}
	return l, nil
}

// membership returns the intersect row of a member, nil when it is none.
func (c *call) membership(listID, member value.ID) *store.Row {
	t := c.sch.Table("listmember")
	listOrd, memberOrd := int(t.Column("listid").Ord), int(t.Column("entityid").Ord)
	after := value.ID{}
	for {
		rows := c.view.Find(nil, t.Name, columnIndex("entityid"), store.Hash(value.GUID(member)), after, 100)
		for _, r := range rows {
			if r.Value(memberOrd).GUID() == member && r.Value(listOrd).GUID() == listID {
				return r
			}
			after = r.ID
		}
		if len(rows) < 100 {
			return nil
		}
	}
}

// addMember adds a row to a list; adding it again changes nothing.
func (c *call) addMember(l *list, member value.ID) (value.ID, bool, error) {
	row := c.view.Get(l.member.Name, member)
	if row == nil {
		for _, other := range [...]string{"account", "contact", "lead"} {
			if other != l.member.Name && c.view.Get(other, member) != nil {
				return value.ID{}, false, fail(http.StatusBadRequest, codeMemberType, "Unsupported list member type: the list holds %s records, %s is a %s.", l.member.Name, member, other)
			}
		}
		return value.ID{}, false, notFound(l.member.Name, member)
	}
	if err := c.poisoned(l.member, member); err != nil {
		return value.ID{}, false, err
	}
	if existing := c.membership(l.row.ID, member); existing != nil {
		return existing.ID, false, nil
	}
	t := c.sch.Table("listmember")
	cells := make([]store.Cell, t.Width())
	target := uint8(0)
	for i, name := range t.Column("entityid").Targets {
		if name == l.member.Name {
			target = uint8(i)
		}
	}
	put(t, cells, "listid", value.GUID(l.row.ID))
	cells[t.Column("entityid").Ord] = store.Cell{Value: value.GUID(member), Target: target}
	put(t, cells, "entitytype", value.Text(l.member.Name))
	if name := row.Value(int(l.member.Column(l.member.PrimaryName).Ord)); !name.IsNull() {
		put(t, cells, "name", value.Text(cut(name.Text(), 100)))
	}
	put(t, cells, "owninguser", value.GUID(c.user.id))
	put(t, cells, "owningbusinessunit", value.GUID(c.user.unit))
	c.stamp(t, cells, true)
	id := c.s.newID()
	c.tx.Put(t.Name, store.NewRow(id, c.tx.Next(), cells))
	return id, true, nil
}

func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// addMemberCount moves list.membercount. Whether the service also moves
// modifiedon is not documented; the twin does.
func (c *call) addMemberCount(id value.ID, n int) {
	t := c.sch.Table("list")
	row := c.view.Get("list", id)
	if row == nil || n == 0 {
		return
	}
	cells := row.Cells(make([]store.Cell, t.Width()))
	count := cellOf(t, cells, "membercount")
	count.Value = value.Int(max(0, count.Value.Int()+int64(n)))
	c.stamp(t, cells, false)
	c.tx.Put("list", store.NewRow(id, c.tx.Next(), cells))
}

// addMembers adds many rows and keeps the count. It returns how many were new.
func (c *call) addMembers(l *list, members []value.ID) (added int, err error) {
	for _, m := range members {
		_, fresh, err := c.addMember(l, m)
		if err != nil {
			return 0, err
		}
		if fresh {
			added++
		}
	}
	c.addMemberCount(l.row.ID, added)
	return added, nil
}

// entityID reads an entity parameter: an object with @odata.type and the
// primary key.
func (c *call) entityID(raw []byte) (*schema.Table, value.ID, error) {
	props, err := splitObject(raw)
	if err != nil {
		return nil, value.ID{}, err
	}
	kind, _ := find(props, "@odata.type")
	text, _ := textOf(kind)
	name, ok := cutType(text)
	t := c.sch.Table(name)
	if !ok || t == nil {
		return nil, value.ID{}, payload("an entity parameter needs @odata.type.")
	}
	key, _ := find(props, t.PrimaryID)
	id, perr := value.ParseID(firstText(key))
	if perr != nil {
		return nil, value.ID{}, payload("'%s': the entity parameter needs '%s'.", t.Set, t.PrimaryID)
	}
	return t, id, nil
}

func firstText(raw []byte) string { s, _ := textOf(raw); return s }

func cutType(text string) (string, bool) {
	if len(text) > 0 && text[0] == '#' {
		text = text[1:]
	}
	if len(text) <= len(crm) || text[:len(crm)] != crm {
		return "", false
	}
	return text[len(crm):], true
}

// addListMembers is the unbound action AddListMembersList.
func (c *call) addListMembers(props []prop) (*answer, error) {
	raw, ok := find(props, "List")
	if !ok {
		return nil, payload("the parameter 'List' is missing.")
	}
	t, id, err := c.entityID(raw)
	if err != nil {
		return nil, err
	}
	if t.Name != "list" {
		return nil, payload("the parameter 'List' must be a list.")
	}
	membersRaw, _ := find(props, "Members")
	items, ok := splitArray(membersRaw)
	if !ok {
		return nil, payload("the parameter 'Members' must be an array.")
	}
	return noContent(), c.write(func() error {
		l, err := c.editList(id)
		if err != nil {
			return err
		}
		members, err := c.membersOf(l, items)
		if err != nil {
			return err
		}
		added, err := c.addMembers(l, members)
		if added > 0 {
			c.announce(announcement{name: "AddListMembers", table: t, members: members}, nil)
		}
		return err
	})
}

func (c *call) membersOf(l *list, items []json.RawMessage) ([]value.ID, error) {
	members := make([]value.ID, len(items))
	for i, item := range items {
		t, id, err := c.entityID(item)
		if err != nil {
			return nil, err
		}
		if t != l.member {
			return nil, fail(http.StatusBadRequest, codeMemberType, "Unsupported list member type: the list holds %s records, not %s.", l.member.Name, t.Name)
		}
		members[i] = id
	}
	return members, nil
}

// listAction carries out an action that is bound to one list.
func (c *call) listAction(id value.ID, message string, props []prop) (*answer, error) {
	switch message {
	case "AddMemberList", "RemoveMemberList":
		raw, _ := find(props, "EntityId")
		member, err := value.ParseID(firstText(raw))
		if err != nil {
			return nil, payload("'lists': the parameter 'EntityId' must be a GUID.")
		}
		if message == "RemoveMemberList" {
			return noContent(), c.write(func() error { return c.removeMember(id, member) })
		}
		var membership value.ID
		err = c.write(func() error {
			l, err := c.editList(id)
			if err != nil {
				return err
			}
			var fresh bool
			if membership, fresh, err = c.addMember(l, member); err != nil || !fresh {
				return err
			}
			c.addMemberCount(id, 1)
			c.announce(announcement{name: "AddMember", table: c.sch.Table("list"), members: []value.ID{member}}, nil)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return c.response(message, `"Id":"`+membership.String()+`"`), nil
	case "CopyMembersList":
		raw, ok := find(props, "TargetList")
		if !ok {
			return nil, payload("'lists': the parameter 'TargetList' is missing.")
		}
		t, target, err := c.entityID(raw)
		if err != nil {
			return nil, err
		}
		if t.Name != "list" {
			return nil, payload("'lists': the parameter 'TargetList' must be a list.")
		}
		return noContent(), c.write(func() error { return c.copyMembers(id, target) })
	case "CopyDynamicListToStatic":
		var made value.ID
		err := c.write(func() (err error) { made, err = c.freeze(id); return err })
		if err != nil {
			return nil, err
		}
		return c.response(message, `"StaticListId":"`+made.String()+`"`), nil
	case "QualifyMemberList":
		return noContent(), c.write(func() error { return c.qualifyMembers(id, props) })
	}
	return nil, noSegment(crm + message)
}

func (c *call) removeMember(id, member value.ID) error {
	l, err := c.editList(id)
	if err != nil {
		return err
	}
	row := c.membership(l.row.ID, member)
	if row == nil {
		return fail(http.StatusBadRequest, codeNotListMember, "The specified record is not a member of the list.")
	}
	if err := c.poisoned(l.member, member); err != nil {
		return err
	}
	c.tx.Delete("listmember", row.ID)
	c.addMemberCount(id, -1)
	c.announce(announcement{name: "RemoveMember", table: c.sch.Table("list"), members: []value.ID{member}}, nil)
	return nil
}

// members returns the member ids of a static list.
func (c *call) members(id value.ID) []value.ID {
	t := c.sch.Table("listmember")
	listOrd, memberOrd := int(t.Column("listid").Ord), int(t.Column("entityid").Ord)
	var out []value.ID
	after := value.ID{}
	for {
		rows := c.view.Find(nil, t.Name, columnIndex("listid"), store.Hash(value.GUID(id)), after, 5000)
		for _, r := range rows {
			if r.Value(listOrd).GUID() == id {
				out = append(out, r.Value(memberOrd).GUID())
			}
			after = r.ID
		}
		if len(rows) < 5000 {
			return out
		}
	}
}

func (c *call) copyMembers(from, to value.ID) error {
	source, err := c.openList(from)
	if err != nil {
		return err
	}
	l, err := c.editList(to)
	if err != nil {
		return err
	}
	if source.member != l.member {
		return fail(http.StatusBadRequest, codeMemberType, "The lists have members of different types.")
	}
	if source.dynamic {
		return fail(http.StatusBadRequest, codeDynamicList, "The operation is not valid for a dynamic list.")
	}
	_, err = c.addMembers(l, c.members(from))
	return err
}

// freeze makes a static list of the present members of a dynamic one.
func (c *call) freeze(id value.ID) (value.ID, error) {
	source, err := c.openList(id)
	if err != nil {
		return value.ID{}, err
	}
	if !source.dynamic {
		return value.ID{}, fail(http.StatusBadRequest, codeInvalidArgument, "The list is not a dynamic list.")
	}
	t := c.sch.Table("list")
	text := source.row.Value(int(t.Column("query").Ord)).Text()
	if text == "" {
		return value.ID{}, fail(http.StatusBadRequest, codeInvalidArgument, "The dynamic list has no query.")
	}
	q, err := query.ParseFetch(c.sch, c.sch.byName[source.member.Name], text)
	if err != nil {
		return value.ID{}, err
	}
	var members []value.ID
	idOutput := query.Output{}
	for _, o := range q.Outputs {
		if o.Column.Ordinal == schema.IDOrd && o.Table != nil && o.Table.LogicalName() == source.member.Name {
			idOutput = o
		}
	}
	opt := query.Options{Env: c.env(), Schema: c.sch}
	for {
		res, err := q.Run(c.plainSource(), opt)
		if err != nil {
			return value.ID{}, err
		}
		for res.Next() {
			switch rec := res.Record(); {
			case rec.Row() != nil:
				members = append(members, rec.Row().Value(schema.IDOrd).GUID())
			case idOutput.Table != nil:
				members = append(members, rec.Value(&idOutput).GUID())
			}
		}
		if err := res.Err(); err != nil {
			return value.ID{}, err
		}
		if !res.More() || !q.Keyset() {
			break
		}
		opt.After = res.LastKey()
	}
	name := source.row.Value(int(t.Column("listname").Ord)).Text()
	code := source.row.Value(int(t.Column("createdfromcode").Ord))
	made, err := c.create(t, []prop{
		{"listname", value.AppendString(nil, cut(name, 128))}, {"type", []byte("false")}, {"createdfromcode", code.AppendJSON(nil)},
	})
	if err != nil {
		return value.ID{}, err
	}
	l, err := c.editList(made)
	if err != nil {
		return value.ID{}, err
	}
	_, err = c.addMembers(l, members)
	return made, err
}

func (c *call) plainSource() source { return source{view: c.view, reach: c.reach()} }

// qualifyMembers keeps only the given members, or removes them.
func (c *call) qualifyMembers(id value.ID, props []prop) error {
	l, err := c.editList(id)
	if err != nil {
		return err
	}
	raw, ok := find(props, "ListMember")
	items, isArray := splitArray(raw)
	if !ok || !isArray {
		return payload("'lists': the parameter 'ListMember' must be an array.")
	}
	keep, _ := find(props, "OverrideorRemove")
	if string(keep) != "true" && string(keep) != "false" {
		return payload("'lists': the parameter 'OverrideorRemove' must be a Boolean.")
	}
	named, err := c.membersOf(l, items)
	if err != nil {
		return err
	}
	given := map[value.ID]bool{}
	for _, m := range named {
		given[m] = true
	}
	removed := 0
	for _, m := range c.members(id) {
		if given[m] == (string(keep) == "true") {
			continue
		}
		c.tx.Delete("listmember", c.membership(id, m).ID)
		removed++
	}
	c.addMemberCount(id, -removed)
	return nil
}

// response is the answer of a message with a result.
func (c *call) response(message, fields string) *answer {
	body := append([]byte(nil), `{"@odata.context":`...)
	body = value.AppendString(body, c.context()+crm+message+"Response")
	body = append(append(append(body, ','), fields...), '}')
	return jsonAnswer(http.StatusOK, body)
}
