package webapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

var _ lockstep.WebhookInstaller = (*Client)(nil)

// The values of a registration, from the option sets of ServiceEndpoint and
// SdkMessageProcessingStep.
const (
	contractWebhook    = 8
	authHTTPHeader     = 5
	stagePostOperation = 40
	modeAsynchronous   = 1
)

const webhookRounds = 5 // times that what is registered is read anew after something failed on the way

const webhookHint = "give the application user the role System Administrator, or another one that may create, read, write and delete Service Endpoints and Sdk Message Processing Steps " +
	"and append both; without webhooks syncing works all the same, changes are only noticed by the next look"

// listTable is registered for whatever concerns who is in a list.
const listTable = "list"

// messages of each table that are worth a call. Those of a list are the ones by which
// its members come and go; an organization may lack some.
var (
	recordMessages = []string{"Create", "Update", "Delete"}
	listMessages   = []string{"Create", "Update", "Delete", "AddMember", "AddListMembers", "RemoveMember"}
)

// hookSpace is the name space of the ids of our endpoints and steps.
var hookSpace = lockstep.ID{0x6c, 0x6f, 0x63, 0x6b, 0x73, 0x74, 0x65, 0x70, 'w', 'e', 'b', 'h', 'o', 'o', 'k', 's'}

func endpointID(webhook string) string { return lockstep.NameID(hookSpace, webhook).String() }

// fingerprint tells two secrets apart without telling either: the service does not give
// a secret back.
func fingerprint(secret string) string {
	sum := sha256.Sum256([]byte("lockstep webhook\x00" + secret))
	return hex.EncodeToString(sum[:6])
}

const ownDetail = "Tells Lockstep that records changed. Key "

// checkWebhookURL says whether the service can and should call an address. When the
// organization itself is reached on this machine's loopback, so may we be.
func (c *Client) checkWebhookURL(raw string) error {
	allow := c.allow
	if u, err := url.Parse(raw); err == nil && loopback(c.http.Base().Hostname()) && loopback(u.Hostname()) {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		allow = append(slices.Clone(allow), net.JoinHostPort(u.Hostname(), port))
	}
	u, err := url.Parse(raw)
	if err == nil && (u.RawQuery != "" || u.Fragment != "") {
		err = &lockstep.Error{Msg: "it has a query or a fragment"}
	} else if err == nil {
		err = remote.CheckURL(raw, allow)
	}
	if err == nil {
		return nil
	}
	return &lockstep.Error{
		Code: lockstep.CodeInvalid, Field: "url", Op: "dynamics: register webhooks", Scope: lockstep.ScopeBatch,
		Msg:  "Dynamics cannot call Lockstep at this address: " + lockstep.AsError(err).Msg,
		Hint: "give the https address under which Lockstep is reached from the internet, on port 443",
	}
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

// endpoint is a webhook's address as it is registered.
type endpoint struct {
	ID          string `json:"serviceendpointid"`
	Name        string `json:"name"`
	URL         string `json:"url"`
	AuthType    int    `json:"authtype"`
	Description string `json:"description"`
}

// hookStep is a registered step.
type hookStep struct {
	ID         string `json:"sdkmessageprocessingstepid"`
	Name       string `json:"name"`
	Endpoint   string `json:"_eventhandler_value"`
	Message    string `json:"_sdkmessageid_value"`
	Filter     string `json:"_sdkmessagefilterid_value"`
	Stage      int    `json:"stage"`
	Mode       int    `json:"mode"`
	State      int    `json:"statecode"`
	AutoDelete bool   `json:"asyncautodelete"`
	Columns    string `json:"filteringattributes"`

	title, table string // message and table, of one that is wanted
}

// registered is what the organization has, and what it offers.
type registered struct {
	endpoints []endpoint
	steps     []hookStep
	messages  map[string]string    // id by name
	filters   map[[2]string]string // id by table and message id
}

// readWebhooks reads all that a comparison needs in one $batch.
func (c *Client) readWebhooks(ctx context.Context, webhook string, tables []string) (*registered, error) {
	const op = "read which webhooks are registered"
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	if c.before9() {
		return nil, &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Msg: "this version of Dynamics has no webhooks", Hint: "changes are noticed by the next look"}
	}
	anyOf := func(column string, values []string) string {
		parts := make([]string, len(values))
		for i, v := range values {
			parts[i] = column + "%20eq%20%27" + url.PathEscape(v) + "%27"
		}
		return strings.Join(parts, "%20or%20")
	}
	var parts []part
	for _, path := range []string{
		"serviceendpoints?$select=serviceendpointid,name,url,authtype,description&$filter=contract%20eq%208",
		"sdkmessageprocessingsteps?$select=sdkmessageprocessingstepid,name,_eventhandler_value,_sdkmessageid_value,_sdkmessagefilterid_value,stage,mode,statecode,asyncautodelete,filteringattributes" +
			"&$filter=_eventhandler_value%20eq%20" + endpointID(webhook) + "%20or%20startswith(name,%27" + url.PathEscape(ownName) + "%27)",
		"sdkmessages?$select=sdkmessageid,name&$filter=" + anyOf("name", listMessages),
		"sdkmessagefilters?$select=sdkmessagefilterid,primaryobjecttypecode,_sdkmessageid_value,iscustomprocessingstepallowed&$filter=" + anyOf("primaryobjecttypecode", tables),
	} {
		parts = append(parts, part{method: http.MethodGet, target: api + path})
	}
	answers, err := c.batch(ctx, op, parts)
	if err != nil {
		return nil, err
	}
	var endpoints struct{ Value []endpoint }
	var steps struct{ Value []hookStep }
	var messages struct {
		Value []struct{ SdkMessageID, Name string }
	}
	var filters struct {
		Value []struct {
			SdkMessageFilterID, PrimaryObjectTypeCode string
			Message                                   string `json:"_sdkmessageid_value"`
			Allowed                                   *bool  `json:"iscustomprocessingstepallowed"`
		}
	}
	for i, into := range []any{&endpoints, &steps, &messages, &filters} {
		if answers[i].err != nil {
			return nil, answers[i].err
		}
		if !decodeJSON(answers[i].body, into) {
			return nil, garbled(op)
		}
	}
	slices.SortFunc(steps.Value, func(a, b hookStep) int { return strings.Compare(a.Name, b.Name) })
	r := &registered{endpoints: endpoints.Value, steps: steps.Value, messages: map[string]string{}, filters: map[[2]string]string{}}
	for _, m := range messages.Value {
		r.messages[m.Name] = m.SdkMessageID
	}
	for _, f := range filters.Value {
		if f.Allowed == nil || *f.Allowed {
			r.filters[[2]string{f.PrimaryObjectTypeCode, f.Message}] = f.SdkMessageFilterID
		}
	}
	return r, nil
}

// ownName begins the names of our steps, by which they are found.
const ownName = "Lockstep: "

// wanted are the steps of a webhook that the organization has the messages for, in a
// fixed order.
func (r *registered) wanted(w *lockstep.Webhook) []hookStep {
	var out []hookStep
	add := func(table, message, columns string) {
		filter := r.filters[[2]string{table, r.messages[message]}]
		if filter == "" {
			return
		}
		out = append(out, hookStep{
			ID: lockstep.NameID(hookSpace, w.ID+" "+message+" "+table).String(), Name: ownName + message + " of " + table, Endpoint: endpointID(w.ID),
			Message: r.messages[message], Filter: filter, Stage: stagePostOperation, Mode: modeAsynchronous, AutoDelete: true, Columns: columns,
			title: message, table: table,
		})
	}
	for _, table := range slices.Sorted(maps.Keys(w.Columns)) {
		for _, m := range recordMessages {
			columns := ""
			if m == "Update" {
				columns = strings.Join(slices.Compact(slices.Sorted(slices.Values(w.Columns[table]))), ",")
			}
			add(table, m, columns)
		}
	}
	for _, m := range listMessages {
		add(listTable, m, "")
	}
	return out
}

// same compares registrations without regard to the order of columns.
func (s *hookStep) same(o *hookStep) bool {
	order := func(text string) string {
		names := strings.Split(strings.ReplaceAll(text, " ", ""), ",")
		slices.Sort(names)
		return strings.Join(names, ",")
	}
	return strings.EqualFold(s.Endpoint, o.Endpoint) && strings.EqualFold(s.Message, o.Message) && strings.EqualFold(s.Filter, o.Filter) &&
		s.Name == o.Name && s.Stage == o.Stage && s.Mode == o.Mode && s.State == o.State && s.AutoDelete == o.AutoDelete && order(s.Columns) == order(o.Columns)
}

// hookChange is one call of an installation or removal.
type hookChange struct {
	lockstep.SchemaStep
	path  string // below the version's root
	route string
	body  map[string]any
}

func (h hookChange) method() string {
	switch h.Action {
	case lockstep.SchemaCreate:
		return http.MethodPost
	case lockstep.SchemaDelete:
		return http.MethodDelete
	}
	return http.MethodPatch
}

func message(action lockstep.SchemaAction, s *hookStep, body map[string]any) hookChange {
	h := hookChange{SchemaStep: lockstep.SchemaStep{Action: action, Kind: lockstep.SchemaMessage, Table: s.table, Name: cmp.Or(s.title, s.Name)}, path: "sdkmessageprocessingsteps", route: "/sdkmessageprocessingsteps", body: body}
	if s.Columns != "" && action != lockstep.SchemaDelete {
		h.Detail = strings.ReplaceAll(s.Columns, ",", ", ")
	}
	if action != lockstep.SchemaCreate {
		h.path += "(" + s.ID + ")"
	}
	return h
}

func address(action lockstep.SchemaAction, e *endpoint, detail string, body map[string]any) hookChange {
	h := hookChange{SchemaStep: lockstep.SchemaStep{Action: action, Kind: lockstep.SchemaWebhook, Name: e.Name, Detail: detail}, path: "serviceendpoints", route: "/serviceendpoints", body: body}
	if action != lockstep.SchemaCreate {
		h.path += "(" + e.ID + ")"
	}
	return h
}

// plan is what has to be done so that a webhook is registered as wanted. Endpoints that
// another life of this installation left, with an address below the same base, go.
func (r *registered) plan(w *lockstep.Webhook) []hookChange {
	own := endpoint{
		ID: endpointID(w.ID), Name: "Lockstep", URL: w.URL, AuthType: authHTTPHeader, Description: ownDetail + fingerprint(w.Secret),
	}
	body := map[string]any{
		"name": own.Name, "url": own.URL, "authtype": own.AuthType, "description": own.Description,
		"authvalue": `<settings><setting name="` + lockstep.WebhookHeader + `" value="` + w.Secret + `"/></settings>`,
	}
	var out []hookChange
	is := endpoint{}
	for i := range r.endpoints {
		switch e := &r.endpoints[i]; {
		case strings.EqualFold(e.ID, own.ID):
			is = *e
		case strings.HasPrefix(e.Description, ownDetail) && strings.HasPrefix(e.URL, w.Base+"/"):
			out = append(out, r.removal(e.ID)...)
		}
	}
	switch {
	case is.ID == "":
		body["serviceendpointid"], body["contract"] = own.ID, contractWebhook
		out = append(out, address(lockstep.SchemaCreate, &own, own.URL, body))
	case is.URL != own.URL:
		out = append(out, address(lockstep.SchemaChange, &own, own.URL, body))
	case is.Description != own.Description || is.AuthType != own.AuthType:
		out = append(out, address(lockstep.SchemaChange, &own, "another secret", body))
	case is.Name != own.Name:
		out = append(out, address(lockstep.SchemaChange, &own, "its name", body))
	}
	wanted := r.wanted(w)
	for i := range r.steps {
		s := &r.steps[i]
		if strings.EqualFold(s.Endpoint, own.ID) && !slices.ContainsFunc(wanted, func(o hookStep) bool { return strings.EqualFold(o.ID, s.ID) }) {
			out = append(out, message(lockstep.SchemaDelete, s, nil))
		}
	}
	for i := range wanted {
		want := &wanted[i]
		body := map[string]any{
			"name": want.Name, "stage": want.Stage, "mode": want.Mode, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
			"sdkmessageid@odata.bind": "/sdkmessages(" + want.Message + ")", "sdkmessagefilterid@odata.bind": "/sdkmessagefilters(" + want.Filter + ")",
			"eventhandler_serviceendpoint@odata.bind": "/serviceendpoints(" + want.Endpoint + ")",
		}
		if want.Columns != "" {
			body["filteringattributes"] = want.Columns
		}
		j := slices.IndexFunc(r.steps, func(o hookStep) bool { return strings.EqualFold(o.ID, want.ID) })
		switch {
		case j < 0:
			body["sdkmessageprocessingstepid"] = want.ID
			out = append(out, message(lockstep.SchemaCreate, want, body))
		case !r.steps[j].same(want):
			body["statecode"], body["statuscode"] = 0, 1
			out = append(out, message(lockstep.SchemaChange, want, body))
		}
	}
	return out
}

// removal is what has to be done so that an endpoint is gone: its steps go first.
func (r *registered) removal(id string) []hookChange {
	var out []hookChange
	for i := range r.steps {
		if strings.EqualFold(r.steps[i].Endpoint, id) {
			out = append(out, message(lockstep.SchemaDelete, &r.steps[i], nil))
		}
	}
	for i := range r.endpoints {
		if strings.EqualFold(r.endpoints[i].ID, id) {
			out = append(out, address(lockstep.SchemaDelete, &r.endpoints[i], r.endpoints[i].URL, nil))
		}
	}
	return out
}

func hookTables(w *lockstep.Webhook) []string {
	return append(slices.Sorted(maps.Keys(w.Columns)), listTable)
}

func hookSteps(changes []hookChange) []lockstep.SchemaStep {
	out := make([]lockstep.SchemaStep, len(changes))
	for i := range changes {
		out[i] = changes[i].SchemaStep
	}
	return out
}

// PlanWebhook compares what is registered with what is wanted: one call.
func (c *Client) PlanWebhook(ctx context.Context, w lockstep.Webhook) ([]lockstep.SchemaStep, error) {
	if err := c.checkWebhookURL(w.URL); err != nil {
		return nil, err
	}
	r, err := c.readWebhooks(ctx, w.ID, hookTables(&w))
	if err != nil {
		return nil, hookError(err)
	}
	return hookSteps(r.plan(&w)), nil
}

// InstallWebhook registers a webhook, one call a step.
func (c *Client) InstallWebhook(ctx context.Context, w lockstep.Webhook, each func(lockstep.SchemaStep) error) error {
	if err := c.checkWebhookURL(w.URL); err != nil {
		return err
	}
	return c.changeWebhooks(ctx, w.ID, hookTables(&w), each, func(r *registered) []hookChange { return r.plan(&w) })
}

// PlanWebhookRemoval names what of a webhook is registered: one call.
func (c *Client) PlanWebhookRemoval(ctx context.Context, id string) ([]lockstep.SchemaStep, error) {
	r, err := c.readWebhooks(ctx, id, []string{listTable})
	if err != nil {
		return nil, hookError(err)
	}
	return hookSteps(r.removal(endpointID(id))), nil
}

// RemoveWebhook takes a registration away, its steps first.
func (c *Client) RemoveWebhook(ctx context.Context, id string, each func(lockstep.SchemaStep) error) error {
	return c.changeWebhooks(ctx, id, []string{listTable}, each, func(r *registered) []hookChange { return r.removal(endpointID(id)) })
}

// changeWebhooks carries a plan out. When an answer is lost, or something is there or
// gone already, what is registered is compared anew; ids that follow from the webhook
// keep anything from being made twice.
func (c *Client) changeWebhooks(ctx context.Context, webhook string, tables []string, each func(lockstep.SchemaStep) error, plan func(*registered) []hookChange) error {
	var last error
	for range webhookRounds {
		r, err := c.readWebhooks(ctx, webhook, tables)
		if err != nil {
			return hookError(err)
		}
		changes := plan(r)
		if len(changes) == 0 {
			return nil
		}
		if last = c.applyHooks(ctx, changes, each); last == nil {
			return nil
		}
		e := lockstep.AsError(last)
		again := e.Unknown || e.Code == lockstep.CodeUnavailable || codeOf(last) == errDuplicateID || e.Code == lockstep.CodeNotFound && e.Scope == lockstep.ScopeRecord
		if !again {
			return hookError(last)
		}
		if err := c.wait(ctx, "register webhooks", roundPause); err != nil {
			return err
		}
	}
	return hookError(last)
}

func (c *Client) applyHooks(ctx context.Context, changes []hookChange, each func(lockstep.SchemaStep) error) error {
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	for _, h := range changes {
		if err := each(h.SchemaStep); err != nil {
			return err
		}
		r := request{op: h.SchemaStep.String(), method: h.method(), target: api + h.path, route: h.route}
		switch h.Action {
		case lockstep.SchemaChange:
			r.ifMatch, r.repeatable = true, true
		case lockstep.SchemaDelete:
			r.repeatable = true
		}
		if h.body != nil {
			if r.body, err = json.Marshal(h.body); err != nil {
				return err
			}
		}
		if _, _, err := c.fetch(ctx, r); err != nil && (h.Action != lockstep.SchemaDelete || lockstep.CodeOf(err) != lockstep.CodeNotFound) {
			return err
		}
	}
	return nil
}

// hookError tells what to do about a right that is missing.
func hookError(err error) error {
	e := lockstep.AsError(err)
	if e.Code != lockstep.CodeForbidden || e.Scope == lockstep.ScopeConnection {
		return err
	}
	out := *e
	out.Hint = webhookHint
	return &out
}
