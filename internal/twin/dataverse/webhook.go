package dataverse

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// What a webhook's endpoint and step may be, of the option sets of the service.
const (
	contractWebhook = 8

	authWebhookKey  = 4
	authHTTPHeader  = 5
	authQueryString = 6

	stagePostOperation = 40
	modeAsynchronous   = 1
	stepEnabled        = 0
)

// delivered are the messages whose steps are carried out.
var delivered = []string{"Create", "Update", "Delete", "AddMember", "AddListMembers", "RemoveMember"}

// step is an enabled registration: what is posted where, and when.
type step struct {
	id        value.ID
	name      string
	message   string
	table     string   // empty: all
	filtering []uint16 // positions of the columns of which an update must write one; empty: any
	keepJob   bool     // the system job of a delivery that succeeded stays
	url       string   // with the authentication of types 4 and 6
	header    http.Header
}

// announcement is a message that somebody has registered for, noted on the write that it
// was made by.
type announcement struct {
	name    string
	table   *schema.Table
	members []value.ID // of a list
	sent    []uint16   // positions of the columns that an update wrote, ascending
	steps   []*step
	sch     *published
}

// webhooks are the registrations of an organization and what is on its way to them.
type webhooks struct {
	s     *Server
	steps atomic.Pointer[[]*step] // nil: nobody has registered
	stamp [2]int64                // of the tables of the registrations; guarded by the store's lock
	out   *deliveries
}

func newWebhooks(s *Server) *webhooks { return &webhooks{s: s, out: newDeliveries(s)} }

// refresh reads the registrations when they changed. The call has just begun a
// transaction, so that nobody else does the same.
func (h *webhooks) refresh(c *call) {
	stamp := [2]int64{c.view.Touched("serviceendpoint"), c.view.Touched("sdkmessageprocessingstep")}
	if stamp == h.stamp {
		return
	}
	h.stamp = stamp
	var steps []*step
	if t := c.sch.Table("sdkmessageprocessingstep"); t != nil {
		for _, row := range c.view.Page(nil, t.Name, value.ID{}, 10_000) {
			if st := c.registration(t, row); st != nil {
				steps = append(steps, st)
			}
		}
	}
	if steps == nil {
		h.steps.Store(nil)
		return
	}
	h.steps.Store(&steps)
}

// registration is what a step's row comes to; nil when it is not carried out.
func (c *call) registration(t *schema.Table, row *store.Row) *step {
	get := func(name string) value.Value { return row.Value(int(t.Column(name).Ord)) }
	endpoint := c.view.Get("serviceendpoint", get("eventhandler").GUID())
	kind := c.view.Get("sdkmessage", get("sdkmessageid").GUID())
	if endpoint == nil || kind == nil || get("statecode").Int() != stepEnabled {
		return nil
	}
	st := &step{
		id: row.ID, name: get("name").Text(), keepJob: !get("asyncautodelete").Bool(),
		message: kind.Value(int(c.sch.Table("sdkmessage").Column("name").Ord)).Text(),
	}
	if filter := c.view.Get("sdkmessagefilter", get("sdkmessagefilterid").GUID()); filter != nil {
		st.table = filter.Value(int(c.sch.Table("sdkmessagefilter").Column("primaryobjecttypecode").Ord)).Text()
		table := c.sch.Table(st.table)
		for _, name := range splitNames(get("filteringattributes").Text()) {
			if table == nil || table.Column(name) == nil { // the column was removed since
				continue
			}
			st.filtering = append(st.filtering, table.Column(name).Ord)
		}
	}
	e := c.sch.Table("serviceendpoint")
	text := func(name string) string { return endpoint.Value(int(e.Column(name).Ord)).Text() }
	st.url = text("url")
	switch secret := text("authvalue"); endpoint.Value(int(e.Column("authtype").Ord)).Int() {
	case authWebhookKey:
		st.url = withQuery(st.url, "code", secret)
	case authHTTPHeader:
		settings, _ := parseSettings(secret)
		st.header = http.Header{}
		for _, s := range settings {
			st.header.Set(s.Name, s.Value)
		}
	case authQueryString:
		settings, _ := parseSettings(secret)
		for _, s := range settings {
			st.url = withQuery(st.url, s.Name, s.Value)
		}
	}
	return st
}

func withQuery(address, name, v string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + url.QueryEscape(name) + "=" + url.QueryEscape(v)
}

// announce notes on the last write which message made it, when somebody has
// registered for that. changed are the columns that an update wrote.
func (c *call) announce(m announcement, changed map[uint16]bool) {
	all := c.s.hooks.steps.Load()
	if all == nil || strings.Contains(c.header.Get("MSCRM.BypassBusinessLogicExecution"), "CustomAsync") {
		return
	}
	for _, st := range *all {
		if st.message == m.name && (st.table == "" || st.table == m.table.Name) &&
			(len(st.filtering) == 0 || slices.ContainsFunc(st.filtering, func(ord uint16) bool { return changed[ord] })) {
			m.steps = append(m.steps, st)
		}
	}
	if m.steps == nil {
		return
	}
	for ord := range changed {
		m.sent = append(m.sent, ord)
	}
	slices.Sort(m.sent)
	m.sch = c.sch
	c.tx.Note(&m)
}

// collect hands the messages of a committed transaction over for delivery. It runs
// under the store's lock.
func (h *webhooks) collect(changes []store.Change) {
	if h.steps.Load() == nil {
		return
	}
	for _, ch := range changes {
		if m, ok := ch.Note.(*announcement); ok {
			for _, st := range m.steps {
				h.out.add(delivery{step: st, message: m, change: ch})
			}
		}
	}
}

// setting is one header or query parameter of an endpoint's authentication.
type setting struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

// parseSettings reads <settings><setting name="…" value="…"/></settings>.
func parseSettings(text string) ([]setting, error) {
	var doc struct {
		XMLName  xml.Name  `xml:"settings"`
		Settings []setting `xml:"setting"`
	}
	d := xml.NewDecoder(bytes.NewReader([]byte(text)))
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the settings")
	}
	if len(doc.Settings) == 0 {
		return nil, errors.New("there is no setting")
	}
	return doc.Settings, nil
}

func headerName(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return false
		}
	}
	return s != ""
}

func headerValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func invalidArgument(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, codeInvalidArgument, format, args...)
}

// completeEndpoint applies the rules of webhook endpoints.
func completeEndpoint(t *schema.Table, cells []store.Cell, old *store.Row) error {
	get := func(name string) value.Value { return cellOf(t, cells, name).Value }
	for _, name := range [...]string{"name", "url", "contract", "authtype"} {
		if get(name).IsNull() {
			return nil // reported as missing
		}
	}
	if old != nil && old.Value(int(t.Column("contract").Ord)) != get("contract") {
		return invalidArgument("The contract of a service endpoint cannot be changed.")
	}
	if get("contract").Int() != contractWebhook {
		return notEmulated("A service endpoint that is no webhook (contract 8)")
	}
	if err := checkHookURL(get("url").Text()); err != nil {
		return err
	}
	secret, kind := get("authvalue").Text(), get("authtype").Int()
	switch kind {
	case authWebhookKey:
		if secret == "" {
			return invalidArgument("A webhook with the authentication type WebhookKey needs an authvalue.")
		}
		return nil
	case authHTTPHeader, authQueryString:
	default:
		return invalidArgument("The authentication type %d is not valid for the contract Webhook; 4, 5 and 6 are.", kind)
	}
	settings, err := parseSettings(secret)
	if err != nil {
		return invalidArgument("The authvalue must be the XML <settings><setting name=\"…\" value=\"…\"/></settings>.")
	}
	for _, s := range settings {
		if s.Name == "" || kind == authHTTPHeader && (!headerName(s.Name) || !headerValue(s.Value)) {
			return invalidArgument("A setting of the authvalue is not valid.")
		}
	}
	return nil
}

// checkHookURL refuses what the service cannot or will not call. The machine of the
// twin itself stands for the internet: any port of it, and plain HTTP, are called.
func checkHookURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return invalidArgument("The url of a webhook must be an absolute http or https URL without user information.")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	if u.Scheme != "https" {
		return invalidArgument("The url of a webhook must begin with https.")
	}
	if p := u.Port(); p != "" && p != "443" && p != "80" {
		return invalidArgument("A webhook cannot be called on port %s; only 80 and 443 are open.", p)
	}
	return nil
}

func splitNames(text string) []string {
	var out []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// completeStep applies the rules of registered steps.
func (c *call) completeStep(t *schema.Table, cells []store.Cell) error {
	get := func(name string) value.Value { return cellOf(t, cells, name).Value }
	for _, name := range [...]string{"stage", "mode", "rank", "supporteddeployment", "sdkmessageid", "eventhandler"} {
		if get(name).IsNull() {
			return nil // reported as missing
		}
	}
	if t.Column("eventhandler").Targets[cellOf(t, cells, "eventhandler").Target] != "serviceendpoint" {
		return notEmulated("A step that runs a plug-in")
	}
	switch {
	case get("supporteddeployment").Int() != 0:
		return invalidArgument("A step of a service endpoint can be deployed to the server only.")
	case get("mode").Int() == modeAsynchronous && get("stage").Int() != stagePostOperation:
		return invalidArgument("Only steps of the stage PostOperation (40) can be asynchronous.")
	case get("mode").Int() != modeAsynchronous && get("asyncautodelete").Bool():
		return invalidArgument("asyncautodelete is for asynchronous steps only.")
	case get("mode").Int() != modeAsynchronous:
		return notEmulated("A synchronous step")
	}
	m := c.view.Get("sdkmessage", get("sdkmessageid").GUID())
	name := m.Value(int(c.sch.Table("sdkmessage").Column("name").Ord)).Text()
	if !slices.Contains(delivered, name) {
		return notEmulated("A step of the message " + name)
	}
	var table *schema.Table
	if id := get("sdkmessagefilterid"); !id.IsNull() {
		f := c.sch.Table("sdkmessagefilter")
		filter := c.view.Get(f.Name, id.GUID())
		if filter.Value(int(f.Column("sdkmessageid").Ord)).GUID() != get("sdkmessageid").GUID() {
			return invalidArgument("The message filter does not belong to the message %s.", name)
		}
		if !filter.Value(int(f.Column("iscustomprocessingstepallowed").Ord)).Bool() {
			return invalidArgument("Custom steps are not allowed for this message and table.")
		}
		table = c.sch.Table(filter.Value(int(f.Column("primaryobjecttypecode").Ord)).Text())
	}
	columns := splitNames(get("filteringattributes").Text())
	if len(columns) > 0 && (name != "Update" || table == nil) {
		return invalidArgument("Filtering attributes are for the message Update of one table only.")
	}
	for _, col := range columns {
		if table.Column(col) == nil {
			return invalidArgument("'%.100s' is no attribute of %s.", col, table.Name)
		}
	}
	return nil
}

// reportJob keeps the system job of a delivery, as clients find it in asyncoperations.
func (s *Server) reportJob(d delivery, began time.Time, failure string) {
	if failure == "" && !d.step.keepJob {
		return
	}
	_ = s.platform(func(c *call) error {
		values := map[string]any{
			"name": cut(d.step.name, 256), "operationtype": 1, "owningextensionid": d.step.id, "statecode": 3, "statuscode": 30,
			"startedon": value.DateTime(began), "completedon": value.DateTime(c.now), "ownerid": d.change.User,
		}
		if failure != "" {
			values["statuscode"], values["message"], values["friendlymessage"] = 31, failure, failure
		}
		if c.view.Get("sdkmessageprocessingstep", d.step.id) == nil {
			delete(values, "owningextensionid") // it was deleted meanwhile
		}
		c.insert("asyncoperation", c.s.newID(), values)
		return nil
	})
}
