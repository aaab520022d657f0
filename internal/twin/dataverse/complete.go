package dataverse

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// complete fills what the platform fills and checks the row as a whole. old is
// nil for a new row.
func (c *call) complete(t *schema.Table, cells []store.Cell, old *store.Row, changed map[uint16]bool) error {
	if old == nil {
		c.defaults(t, cells)
	}
	if err := states(t, cells, old, changed); err != nil {
		return err
	}
	c.own(t, cells)
	c.price(t, cells)
	derive(t, cells)
	composeName(t, cells, c.nameConvention())
	switch t.Name {
	case "list":
		if err := c.completeList(t, cells, old, changed); err != nil {
			return err
		}
	case "campaign":
		if cellOf(t, cells, "codename").Value.IsNull() {
			put(t, cells, "codename", value.Text("CMP-"+strconv.FormatUint(1000+c.s.ids.Add(1), 10)))
		}
	case "systemuser":
		completeUser(c, t, cells, old)
	case "serviceendpoint":
		if err := completeEndpoint(t, cells, old); err != nil {
			return err
		}
	case "sdkmessageprocessingstep":
		if err := c.completeStep(t, cells); err != nil {
			return err
		}
	case "publisher":
		if err := c.completePublisher(t, cells, old); err != nil {
			return err
		}
	case "solution":
		if err := c.completeSolution(t, cells, old); err != nil {
			return err
		}
	}
	for col := range t.All() {
		if col.Required == schema.SystemRequired && cells[col.Ord].Value.IsNull() && col.Ord > schema.VersionOrd {
			return fail(http.StatusBadRequest, codeRequiredMissing, "The required field '%s' is missing on record of type '%s'.", col.Name, t.Name)
		}
	}
	return nil
}

// defaults sets the default of every option and two-option column that the body
// left out.
func (c *call) defaults(t *schema.Table, cells []store.Cell) {
	for col := range t.All() {
		if !cells[col.Ord].Value.IsNull() {
			continue
		}
		switch col.Type {
		case schema.Boolean:
			cells[col.Ord].Value = value.Bool(col.DefaultTrue)
		case schema.Picklist, schema.State:
			if col.DefaultOption >= 0 {
				cells[col.Ord].Value = value.Int(int64(col.DefaultOption))
			}
		}
	}
}

// states keeps statecode and statuscode a valid pair.
func states(t *schema.Table, cells []store.Cell, old *store.Row, changed map[uint16]bool) error {
	state, status := t.Column("statecode"), t.Column("statuscode")
	if state == nil || status == nil {
		return nil
	}
	reason := cells[status.Ord].Value
	moved := changed[state.Ord]
	if old != nil && moved && cells[state.Ord].Value.IsNull() || changed[status.Ord] && reason.IsNull() {
		return fail(http.StatusBadRequest, codeStateStatus, "State and status of a record of type '%s' cannot be empty.", t.Name)
	}
	if changed[status.Ord] && !moved {
		o, _ := status.Option(int32(reason.Int()))
		cells[state.Ord].Value = value.Int(int64(o.State))
		return nil
	}
	if changed[status.Ord] || old != nil && !moved {
		return pairOf(t, state, status, cells)
	}
	s, ok := state.Option(int32(cells[state.Ord].Value.Int()))
	if !ok {
		return fail(http.StatusBadRequest, codeStateStatus, "%d is not a valid state code on %s.", cells[state.Ord].Value.Int(), t.Name)
	}
	cells[status.Ord].Value = value.Int(int64(s.DefaultStatus))
	return nil
}

func pairOf(t *schema.Table, state, status *schema.Column, cells []store.Cell) error {
	if o, ok := status.Option(int32(cells[status.Ord].Value.Int())); ok && int64(o.State) == cells[state.Ord].Value.Int() {
		return nil
	}
	return fail(http.StatusBadRequest, codeStateStatus, "%d is not a valid status code for state code %s on %s.",
		cells[status.Ord].Value.Int(), cells[state.Ord].Value, t.Name)
}

// own sets the owner of a new row and the columns that follow from the owner.
func (c *call) own(t *schema.Table, cells []store.Cell) {
	owner := t.Column("ownerid")
	if owner == nil {
		return
	}
	if cells[owner.Ord].Value.IsNull() {
		cells[owner.Ord] = store.Cell{Value: value.GUID(c.user.id)}
	}
	cell := cells[owner.Ord]
	kind := owner.Targets[cell.Target]
	user, team := value.Null(), value.Null()
	if kind == "team" {
		team = cell.Value
	} else {
		user = cell.Value
	}
	put(t, cells, "owninguser", user)
	put(t, cells, "owningteam", team)
	unit := value.GUID(c.s.org.rootUnit)
	if r := c.view.Get(kind, cell.Value.GUID()); r != nil {
		unit = r.Value(int(c.sch.Table(kind).Column("businessunitid").Ord))
	}
	put(t, cells, "owningbusinessunit", unit)
}

// price sets currency, exchange rate and the amounts in the base currency.
func (c *call) price(t *schema.Table, cells []store.Cell) {
	currency := t.Column("transactioncurrencyid")
	if currency == nil || t.Column("exchangerate") == nil {
		return
	}
	priced := false
	for col := range t.All() {
		priced = priced || col.Type == schema.Money && col.BaseOf == "" && !cells[col.Ord].Value.IsNull()
	}
	if priced && cells[currency.Ord].Value.IsNull() {
		cells[currency.Ord].Value = value.GUID(c.s.org.currency)
	}
	rate := value.Null()
	if id := cells[currency.Ord].Value; !id.IsNull() {
		if r := c.view.Get("transactioncurrency", id.GUID()); r != nil {
			rate = r.Value(int(c.sch.Table("transactioncurrency").Column("exchangerate").Ord))
		}
	}
	put(t, cells, "exchangerate", rate)
	for col := range t.All() {
		if col.BaseOf == "" {
			continue
		}
		amount := cellOf(t, cells, col.BaseOf).Value
		if !amount.IsNull() && !rate.IsNull() && rate.Float() != 1 {
			if v, err := value.Double(amount.Float() / rate.Float()).Rescale(value.MoneyScale); err == nil {
				amount = v
			}
		}
		cells[col.Ord].Value = amount
	}
}

// derive recomputes columns that repeat others: the parts of a customer lookup
// and the composed addresses.
func derive(t *schema.Table, cells []store.Cell) {
	split := func(customer, account, contact string) {
		cell := *cellOf(t, cells, customer)
		a, b := value.Null(), value.Null()
		if cell.Target == 0 {
			a = cell.Value
		} else {
			b = cell.Value
		}
		put(t, cells, account, a)
		put(t, cells, contact, b)
	}
	switch t.Name {
	case "contact":
		split("parentcustomerid", "accountid", "parentcontactid")
	case "lead":
		split("customerid", "accountid", "contactid")
	}
	for _, prefix := range [...]string{"address1_", "address2_", "address3_"} {
		composite := t.Column(prefix + "composite")
		if composite == nil {
			continue
		}
		text := func(name string) string { return cellOf(t, cells, prefix+name).Value.Text() }
		cells[composite.Ord].Value = value.Null()
		if s := compose(text("line1"), text("line2"), text("line3"), text("city"), text("stateorprovince"), text("postalcode"), text("country")); s != "" {
			cells[composite.Ord].Value = value.Text(s)
		}
	}
}

// compose lays an address out in lines as the service does for most countries.
func compose(line1, line2, line3, city, state, zip, country string) string {
	var lines []string
	add := func(s string) {
		if s != "" {
			lines = append(lines, s)
		}
	}
	add(line1)
	add(line2)
	add(line3)
	town := city
	if region := strings.TrimSpace(state + " " + zip); region != "" {
		if town != "" && state != "" {
			town += ","
		}
		town = strings.TrimSpace(town + " " + region)
	}
	add(town)
	add(country)
	return strings.Join(lines, "\r\n")
}

// nameConvention is the organization's order of name parts.
func (c *call) nameConvention() int64 {
	if r := c.view.Get("organization", c.s.org.id); r != nil {
		return r.Value(int(c.sch.Table("organization").Column("fullnameconventioncode").Ord)).Int()
	}
	return 1
}

// composeName recomputes fullname and yomifullname of people.
func composeName(t *schema.Table, cells []store.Cell, convention int64) {
	if t.Name != "contact" && t.Name != "lead" && t.Name != "systemuser" {
		return
	}
	text := func(name string) string { return cellOf(t, cells, name).Value.Text() }
	set := func(name, full string) {
		if full == "" {
			put(t, cells, name, value.Null())
			return
		}
		put(t, cells, name, value.Text(full))
	}
	if t.Name == "systemuser" && text("firstname") == "" && text("lastname") == "" {
		return
	}
	set("fullname", fullName(convention, text("firstname"), text("middlename"), text("lastname")))
	set("yomifullname", fullName(convention, text("yomifirstname"), text("yomimiddlename"), text("yomilastname")))
}

func fullName(convention int64, first, middle, last string) string {
	join := func(sep string, parts ...string) string {
		var out []string
		for _, p := range parts {
			if p != "" {
				out = append(out, p)
			}
		}
		return strings.Join(out, sep)
	}
	initial := ""
	if middle != "" {
		initial = string([]rune(middle)[:1]) + "."
	}
	switch convention {
	case 0:
		return join(", ", last, first)
	case 2:
		return join(", ", last, join(" ", first, initial))
	case 3:
		return join(" ", first, initial, last)
	case 4:
		return join(", ", last, join(" ", first, middle))
	case 5:
		return join(" ", first, middle, last)
	case 6:
		return join(" ", last, first)
	case 7:
		return last + first
	}
	return join(" ", first, last)
}

// completeList applies the rules of marketing lists.
func (c *call) completeList(t *schema.Table, cells []store.Cell, old *store.Row, changed map[uint16]bool) error {
	text := cellOf(t, cells, "query").Value.Text()
	dynamic := cellOf(t, cells, "type").Value.Bool()
	if old == nil {
		put(t, cells, "membercount", value.Int(0))
		from := cellOf(t, cells, "createdfromcode").Value
		if from.IsNull() {
			return nil // reported as missing
		}
		if kind := cellOf(t, cells, "membertype"); kind.Value.IsNull() {
			kind.Value = from
		} else if kind.Value.Int() != from.Int() {
			return fail(http.StatusBadRequest, codeMemberType, "The member type %d does not fit to createdfromcode %d.", kind.Value.Int(), from.Int())
		}
	} else if old.Value(int(t.Column("statecode").Ord)).Int() == 1 && !changed[t.Column("statecode").Ord] {
		return fail(http.StatusBadRequest, codeInactive, "The list is inactive and cannot be changed until it is activated.")
	}
	if dynamic && cellOf(t, cells, "lockstatus").Value.Bool() {
		return fail(http.StatusBadRequest, codeLockDynamic, "The dynamic list cannot be locked.")
	}
	if !changed[t.Column("query").Ord] || text == "" {
		return nil
	}
	if !dynamic {
		return fail(http.StatusBadRequest, codeInvalidArgument, "A static list has no query.")
	}
	member := c.sch.byName[memberTable(cellOf(t, cells, "membertype").Value.Int())]
	if _, err := query.ParseFetch(c.sch, member, text); err != nil {
		return err
	}
	return nil
}

// completeUser fills what the platform takes over from the directory.
func completeUser(c *call, t *schema.Table, cells []store.Cell, old *store.Row) {
	if old != nil || cellOf(t, cells, "applicationid").Value.IsNull() {
		return
	}
	app := cellOf(t, cells, "applicationid").Value.GUID()
	if cellOf(t, cells, "fullname").Value.IsNull() {
		put(t, cells, "fullname", value.Text("# "+app.String()[:8]))
	}
	if cellOf(t, cells, "azureactivedirectoryobjectid").Value.IsNull() {
		put(t, cells, "azureactivedirectoryobjectid", value.GUID(c.s.newID()))
	}
	put(t, cells, "accessmode", value.Int(4))
	put(t, cells, "internalemailaddress", value.Text(app.String()+"@application.invalid"))
}
