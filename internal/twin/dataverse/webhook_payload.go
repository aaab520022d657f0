package dataverse

import (
	"crypto/sha256"
	"slices"
	"strconv"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// maxHookBody is the size above which the contents are left out of a webhook's body.
const maxHookBody = 256 << 10

// contracts is the namespace of the types in a webhook's body.
const contracts = ":http://schemas.microsoft.com/xrm/2011/Contracts"

// correlation is the same for all receivers and attempts of one write.
func correlation(item delivery) (id value.ID) {
	sum := sha256.Sum256(strconv.AppendInt([]byte(item.change.Table+"/"), item.change.Version, 10))
	copy(id[:], sum[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// hookBody is the RemoteExecutionContext of a message as JSON. exceeded says that its
// contents were left out because they are too large.
func (s *Server) hookBody(item delivery) (body []byte, exceeded bool) {
	if body = s.appendContext(nil, item, true); len(body) <= maxHookBody {
		return body, false
	}
	return s.appendContext(nil, item, false), true
}

func (s *Server) appendContext(b []byte, item delivery, whole bool) []byte {
	ch, m := item.change, item.message
	id := changedID(ch)
	date := strconv.FormatInt(ch.Time.UnixMilli(), 10)
	text := func(name, v string) {
		b = value.AppendString(append(append(append(b, ',', '"'), name...), '"', ':'), v)
	}
	raw := func(name, v string) { b = append(append(append(append(b, ',', '"'), name...), '"', ':'), v...) }

	b = append(b, `{"BusinessUnitId":"`+s.org.rootUnit.String()+`"`...)
	text("CorrelationId", correlation(item).String())
	raw("Depth", "1")
	text("InitiatingUserId", ch.Caller.String())
	if whole {
		b = append(b, `,"InputParameters":`...)
		b = s.appendInput(b, item)
	}
	for _, name := range [...]string{"IsExecutingOffline", "IsInTransaction", "IsOfflinePlayback"} {
		raw(name, "false")
	}
	raw("IsolationMode", "1")
	text("MessageName", m.name)
	raw("Mode", "1")
	text("OperationCreatedOn", "/Date("+date+"+0000)/")
	text("OperationId", correlation(item).String())
	text("OrganizationId", s.org.id.String())
	text("OrganizationName", s.opt.UniqueName)
	b = append(b, `,"OutputParameters":[`...)
	if m.name == "Create" && whole {
		b = append(b, `{"key":"id","value":"`+id.String()+`"}`...)
	}
	b = append(b, ']')
	b = append(b, `,"OwningExtension":{"Id":"`+item.step.id.String()+`","KeyAttributes":[],"LogicalName":"sdkmessageprocessingstep","Name":`...)
	b = append(value.AppendString(b, item.step.name), `,"RowVersion":null}`...)
	if whole {
		raw("ParentContext", "null")
		raw("PostEntityImages", "[]")
		raw("PreEntityImages", "[]")
	}
	text("PrimaryEntityId", id.String())
	text("PrimaryEntityName", m.table.Name)
	text("RequestId", correlation(item).String())
	text("SecondaryEntityName", "none")
	raw("SharedVariables", "[]")
	raw("Stage", "40")
	text("UserId", ch.User.String())
	return append(b, '}')
}

func changedID(ch store.Change) value.ID {
	if ch.New != nil {
		return ch.New.ID
	}
	return ch.Old.ID
}

// appendInput writes the parameters of the message.
func (s *Server) appendInput(b []byte, item delivery) []byte {
	ch, m := item.change, item.message
	switch m.name {
	case "Delete":
		b = append(b, `[{"key":"Target","value":`...)
		return append(appendReference(b, m.table.Name, ch.Old.ID), "}]"...)
	case "AddMember", "RemoveMember":
		b = append(b, `[{"key":"ListId","value":"`+ch.New.ID.String()+`"},{"key":"EntityId","value":"`...)
		return append(m.members[0].Append(b), `"}]`...)
	case "AddListMembers":
		b = append(b, `[{"key":"ListId","value":"`+ch.New.ID.String()+`"},{"key":"MemberIds","value":[`...)
		for i, id := range m.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(id.Append(append(b, '"')), '"')
		}
		return append(b, `]}]`...)
	}
	b = append(b, `[{"key":"Target","value":{"__type":"Entity`+contracts+`","Attributes":[`...)
	b = m.appendAttributes(b, ch.New)
	b = append(b, `],"EntityState":null,"FormattedValues":[],"Id":"`+ch.New.ID.String()+`","KeyAttributes":[],"LogicalName":`...)
	b = value.AppendString(b, m.table.Name)
	return append(b, `,"RelatedEntities":[],"RowVersion":"`+strconv.FormatInt(ch.New.Version, 10)+`"}}]`...)
}

// appendAttributes writes the values of a created row, or those that an update wrote
// and what the platform adds to them.
func (m *announcement) appendAttributes(b []byte, row *store.Row) []byte {
	cells := row.Cells(make([]store.Cell, m.table.Width()))
	first := true
	for col := range m.table.All() {
		if col.Ord == schema.VersionOrd || col.AttributeOf != "" || !col.ForRead {
			continue
		}
		v := cells[col.Ord]
		if m.name == "Create" && v.Value.IsNull() ||
			m.name == "Update" && !slices.Contains(m.sent, col.Ord) && col.Ord != schema.IDOrd && col.Name != "modifiedon" && col.Name != "modifiedby" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `{"key":`...)
		b = append(value.AppendString(b, col.Name), `,"value":`...)
		if col.Ord == schema.IDOrd {
			v.Value = value.GUID(row.ID)
		}
		b = append(appendAttribute(b, col, v), '}')
	}
	return b
}

func appendAttribute(b []byte, col *schema.Column, cell store.Cell) []byte {
	v := cell.Value
	option := func(n int64) {
		b = append(b, `{"__type":"OptionSetValue`+contracts+`","Value":`...)
		b = append(strconv.AppendInt(b, n, 10), '}')
	}
	switch {
	case v.IsNull():
		return append(b, "null"...)
	case col.Type.IsOption():
		option(v.Int())
		return b
	case col.Type == schema.MultiSelect:
		b = append(b, '[')
		for i, n := range v.Options() {
			if i > 0 {
				b = append(b, ',')
			}
			option(int64(n))
		}
		return append(b, ']')
	case col.Type == schema.Money:
		b = append(b, `{"__type":"Money`+contracts+`","Value":`...)
		return append(v.AppendJSON(b), '}')
	case col.Type.IsLookup():
		target := ""
		if int(cell.Target) < len(col.Targets) {
			target = col.Targets[cell.Target]
		}
		return appendReference(b, target, v.GUID())
	case col.Type == schema.DateTime:
		return append(strconv.AppendInt(append(b, `"/Date(`...), v.Time().UnixMilli(), 10), `)/"`...)
	}
	return v.AppendJSON(b)
}

func appendReference(b []byte, table string, id value.ID) []byte {
	b = append(b, `{"__type":"EntityReference`+contracts+`","Id":"`+id.String()+`","KeyAttributes":[],"LogicalName":`...)
	return append(value.AppendString(b, table), `,"Name":null,"RowVersion":null}`...)
}
