package webapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/solution"
)

var _ lockstep.SchemaInstaller = (*Client)(nil)

// How long an installation waits for the service.
const (
	schemaRounds = 5                      // times that the organization is compared anew after something failed on the way
	roundPause   = 5 * time.Second        // before the organization is compared anew
	firstLook    = 100 * time.Millisecond // after which keys that are being built are looked at again
	keyPause     = 5 * time.Second        // the longest time between two looks
	keyLooks     = 240                    // then the index of an empty table should be there
	busyAttempts = 8                      // while somebody else customizes the organization
	lagAttempts  = 5                      // while a new table is not known to every server
)

const schemaHint = "give the application user the role System Customizer or System Administrator for the installation, and install again; without the tables syncing works all the same: " +
	"the flags of records are set, only the rows are not written"

// PlanSchema compares the organization with what we need: two calls.
func (c *Client) PlanSchema(ctx context.Context) ([]lockstep.SchemaStep, error) {
	state, err := c.readSchema(ctx)
	if err != nil {
		return nil, schemaError(err)
	}
	return schemaSteps(solution.Plan(state)), nil
}

func schemaSteps(steps []solution.Step) []lockstep.SchemaStep {
	out := make([]lockstep.SchemaStep, len(steps))
	for i, s := range steps {
		out[i] = s.SchemaStep
	}
	return out
}

// schemaError tells what to do about a right that is missing.
func schemaError(err error) error {
	e := lockstep.AsError(err)
	if e.Code != lockstep.CodeForbidden || e.Scope == lockstep.ScopeConnection {
		return err
	}
	out := *e
	out.Hint = schemaHint
	return &out
}

// InstallSchema adds what is missing, one component a call, because the service
// allows only one change of definitions at a time. When an answer is lost the
// organization is compared anew; nothing is made twice.
func (c *Client) InstallSchema(ctx context.Context, each func(lockstep.SchemaStep) error) error {
	var last error
	for range schemaRounds {
		state, err := c.readSchema(ctx)
		if err != nil {
			return schemaError(err)
		}
		steps := solution.Plan(state)
		for _, s := range steps {
			if s.Action == lockstep.SchemaBlocked {
				return &lockstep.Error{Code: lockstep.CodeConflict, Op: "dynamics: install our tables", Scope: lockstep.ScopeBatch, Msg: s.SchemaStep.String(), Hint: s.Hint}
			}
		}
		if len(steps) == 0 {
			return nil
		}
		in := &installer{c: c, state: state, each: each}
		if in.language, err = c.baseLanguage(ctx); err != nil {
			return schemaError(err)
		}
		again, err := in.run(ctx, steps)
		c.forgetSchema()
		if err == nil && !again {
			return nil
		}
		if err != nil && !again {
			return schemaError(err)
		}
		last = err
		if err := c.wait(ctx, "install our tables", roundPause); err != nil {
			return err
		}
	}
	return schemaError(last)
}

// forgetSchema drops what is known of the tables that an installation touches.
func (c *Client) forgetSchema() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range solution.Tables {
		delete(c.tables, solution.Tables[i].Logical())
		delete(c.bulk, solution.Tables[i].Logical())
	}
}

// installer carries out one plan.
type installer struct {
	c        *Client
	state    *solution.State
	language int // of labels: the organization's own
	each     func(lockstep.SchemaStep) error
}

// run carries steps out. again says that the organization must be compared anew:
// the answer of a call was lost, or what it makes is there already.
func (in *installer) run(ctx context.Context, steps []solution.Step) (again bool, err error) {
	for _, s := range steps {
		if s.Action == lockstep.SchemaPublish {
			if err := in.awaitKeys(ctx); err != nil {
				return false, err
			}
		}
		if s.Action == lockstep.SchemaWait {
			continue
		}
		if err := in.each(s.SchemaStep); err != nil {
			return false, err
		}
		if err := in.take(ctx, s); err != nil {
			switch codeOf(err) {
			case errDuplicateID, errKeyTaken, errNameTaken, errColumnTaken:
				return true, err
			}
			e := lockstep.AsError(err)
			return e.Unknown || e.Code == lockstep.CodeUnavailable, err
		}
	}
	return false, nil
}

func (in *installer) take(ctx context.Context, s solution.Step) error {
	const definitions = "EntityDefinitions"
	switch {
	case s.Action == lockstep.SchemaPublish:
		return in.publish(ctx)
	case s.Kind == lockstep.SchemaPublisher:
		id := lockstep.NameID(schemaSpace, "publisher "+solution.Publisher)
		in.state.Publisher = &solution.PublisherState{ID: id.String(), Prefix: solution.Prefix}
		return in.post(ctx, s, "publishers", map[string]any{
			"publisherid": id.String(), "uniquename": solution.Publisher, "friendlyname": solution.Title,
			"customizationprefix": solution.Prefix, "customizationoptionvalueprefix": solution.OptionPrefix,
		})
	case s.Kind == lockstep.SchemaSolution:
		id := lockstep.NameID(schemaSpace, "solution "+solution.Name)
		in.state.Solution = &solution.SolutionState{ID: id.String(), Version: solution.Unfinished, Publisher: in.state.Publisher.ID}
		return in.post(ctx, s, "solutions", map[string]any{
			"solutionid": id.String(), "uniquename": solution.Name, "friendlyname": solution.Title, "description": solution.Detail,
			"version": solution.Unfinished, "publisherid@odata.bind": "/publishers(" + in.state.Publisher.ID + ")",
		})
	case s.Kind == lockstep.SchemaTable && s.Action == lockstep.SchemaCreate:
		return in.post(ctx, s, definitions, in.table(s.Of))
	case s.Kind == lockstep.SchemaTable:
		return in.put(ctx, s, definitions+"("+s.ID+")", "", func(m map[string]any) { m["ChangeTrackingEnabled"] = true })
	case s.Kind == lockstep.SchemaColumn && s.Action == lockstep.SchemaCreate:
		return in.post(ctx, s, definition(s.Of)+"/Attributes", in.column(s.Column))
	case s.Option != nil:
		return in.post(ctx, s, "InsertOptionValue", map[string]any{
			"EntityLogicalName": s.Of.Logical(), "AttributeLogicalName": s.Column.Logical(), "Value": s.Option.Value, "Label": in.label(s.Option.Label), "SolutionUniqueName": solution.Name,
		})
	case s.Kind == lockstep.SchemaColumn:
		return in.put(ctx, s, definition(s.Of)+"/Attributes("+s.ID+")", "/Microsoft.Dynamics.CRM.StringAttributeMetadata", func(m map[string]any) { m["MaxLength"] = s.Column.Length })
	case s.Kind == lockstep.SchemaKey:
		return in.post(ctx, s, definition(s.Of)+"/Keys", map[string]any{
			"@odata.type": crmType + "EntityKeyMetadata", "SchemaName": s.Key.Name, "KeyAttributes": s.Key.Columns, "DisplayName": in.label(s.Key.Label),
		})
	}
	return fmt.Errorf("no way to %s", s.SchemaStep)
}

// schemaSpace is the name space of the ids of our publisher and solution, which are
// the same everywhere, so that making them twice is noticed.
var schemaSpace = lockstep.ID{0x6c, 0x6f, 0x63, 0x6b, 0x73, 0x74, 0x65, 0x70, 's', 'o', 'l', 'u', 't', 'i', 'o', 'n'}

const crmType = "Microsoft.Dynamics.CRM."

func definition(t *solution.Table) string {
	return "EntityDefinitions(LogicalName=%27" + t.Logical() + "%27)"
}

// change sends a change of definitions. It waits while somebody else customizes the
// organization, and while a new table is not known to the server that is asked.
func (in *installer) change(ctx context.Context, op string, r request) error {
	api, err := in.c.api(ctx)
	if err != nil {
		return err
	}
	r.op, r.target = op, api+r.target
	if r.route == "/EntityDefinitions" && r.method != http.MethodDelete {
		r.more = http.Header{}
		r.more.Set("MSCRM.SolutionUniqueName", solution.Name)
		r.more.Set("MSCRM.MergeLabels", "true")
	}
	busy, lag := 0, 0
	for {
		_, _, err := in.c.fetch(ctx, r)
		var pause time.Duration
		switch code := codeOf(err); {
		case err == nil:
			return nil
		case (code == errCustomizing || code == errImporting) && busy < busyAttempts:
			busy++
			pause = time.Duration(busy) * 5 * time.Second
		case lockstep.CodeOf(err) == lockstep.CodeNotFound && r.method != http.MethodDelete && lag < lagAttempts && lockstep.ScopeOf(err) != lockstep.ScopeConnection:
			pause = 500 * time.Millisecond << lag
			lag++
		default:
			return err
		}
		if err := in.c.wait(ctx, op, pause); err != nil {
			return err
		}
	}
}

func (in *installer) post(ctx context.Context, s solution.Step, path string, body map[string]any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	route := "/EntityDefinitions"
	switch s.Kind {
	case lockstep.SchemaPublisher, lockstep.SchemaSolution:
		route = "/" + path
	}
	return in.change(ctx, s.SchemaStep.String(), request{method: post, target: path, route: route, body: b})
}

// put changes a definition: the service takes whole ones only, so it is read first.
func (in *installer) put(ctx context.Context, s solution.Step, path, cast string, edit func(map[string]any)) error {
	text, err := in.c.get(ctx, s.SchemaStep.String(), "/EntityDefinitions", path+cast)
	if err != nil {
		return err
	}
	var m map[string]any
	if !decodeJSON(text, &m) {
		return garbled(s.SchemaStep.String())
	}
	for name := range m {
		if name == "@odata.context" || name == "@odata.etag" {
			delete(m, name)
		}
	}
	if cast != "" {
		m["@odata.type"] = crmType + "StringAttributeMetadata"
	}
	edit(m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return in.change(ctx, s.SchemaStep.String(), request{
		method: http.MethodPut, target: path, route: "/EntityDefinitions", body: b, repeatable: true,
	})
}

// publish makes labels visible, then raises the solution's version, which says that
// the installation has come to its end.
func (in *installer) publish(ctx context.Context) error {
	var list strings.Builder
	for i := range solution.Tables {
		t := &solution.Tables[i]
		if !t.Existing || in.state.Tables[t.Logical()] != nil {
			list.WriteString("<entity>" + t.Logical() + "</entity>")
		}
	}
	body, err := json.Marshal(map[string]string{"ParameterXml": "<importexportxml><entities>" + list.String() + "</entities></importexportxml>"})
	if err != nil {
		return err
	}
	if err := in.change(ctx, "publish our tables", request{method: post, target: "PublishXml", route: "/PublishXml", body: body, repeatable: true}); err != nil {
		return err
	}
	return in.change(ctx, "mark the installation as complete", request{
		method: patch, target: "solutions(" + in.state.Solution.ID + ")", route: "/solutions", body: []byte(`{"version":"` + solution.Version + `"}`), ifMatch: true, repeatable: true,
	})
}

// awaitKeys waits until the indexes of our keys are built.
func (in *installer) awaitKeys(ctx context.Context) error {
	for look := 0; ; look++ {
		state, err := in.c.readSchema(ctx)
		if err != nil {
			return err
		}
		building := solution.Step{}
		for _, s := range solution.Plan(state) {
			switch {
			case s.Action == lockstep.SchemaBlocked:
				return &lockstep.Error{Code: lockstep.CodeConflict, Op: "dynamics: install our tables", Scope: lockstep.ScopeBatch, Msg: s.SchemaStep.String(), Hint: s.Hint}
			case s.Action == lockstep.SchemaWait:
				building = s
			}
		}
		if building.Action == "" {
			return nil
		}
		if look >= keyLooks {
			return &lockstep.Error{
				Code: lockstep.CodeConflict, Op: "dynamics: install our tables", Scope: lockstep.ScopeBatch, Msg: "Dynamics has not built the index of the key " + building.Name + " of " + building.Table,
				Hint: "look at the system jobs of the organization, then install again",
			}
		}
		if err := in.each(building.SchemaStep); err != nil {
			return err
		}
		if err := in.c.wait(ctx, "wait for the keys of our tables", min(firstLook<<min(look, 10), keyPause)); err != nil {
			return err
		}
	}
}

func (in *installer) label(text string) map[string]any {
	return map[string]any{
		"@odata.type":     crmType + "Label",
		"LocalizedLabels": []any{map[string]any{"@odata.type": crmType + "LocalizedLabel", "Label": text, "LanguageCode": in.language}},
	}
}

func (in *installer) table(t *solution.Table) map[string]any {
	columns := make([]any, len(t.Columns))
	for i := range t.Columns {
		m := in.column(&t.Columns[i])
		if i == 0 {
			m["IsPrimaryName"] = true
		}
		columns[i] = m
	}
	return map[string]any{
		"@odata.type": crmType + "EntityMetadata", "SchemaName": t.Name, "DisplayName": in.label(t.Label), "DisplayCollectionName": in.label(t.Plural), "Description": in.label(t.Detail),
		"OwnershipType": "UserOwned", "HasActivities": false, "HasNotes": false, "IsActivity": false, "ChangeTrackingEnabled": true, "Attributes": columns,
	}
}

func (in *installer) column(c *solution.Column) map[string]any {
	m := map[string]any{
		"@odata.type": crmType + string(c.Type) + "AttributeMetadata", "SchemaName": c.Name, "DisplayName": in.label(c.Label), "Description": in.label(c.Detail),
		"RequiredLevel": map[string]any{"Value": string(c.Level), "CanBeChanged": true, "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings"},
	}
	option := func(o lockstep.Option) map[string]any {
		return map[string]any{"Value": o.Value, "Label": in.label(o.Label)}
	}
	switch c.Type {
	case solution.Text:
		m["MaxLength"], m["FormatName"] = c.Length, map[string]any{"Value": "Text"}
	case solution.Moment:
		m["Format"], m["DateTimeBehavior"] = "DateAndTime", map[string]any{"Value": solution.TimeZoneIndependent}
	case solution.Bool:
		m["DefaultValue"] = false
		m["OptionSet"] = map[string]any{"@odata.type": crmType + "BooleanOptionSetMetadata", "FalseOption": option(c.Options[0]), "TrueOption": option(c.Options[1])}
	case solution.Picklist:
		options := make([]any, len(c.Options))
		for i, o := range c.Options {
			options[i] = option(o)
		}
		m["OptionSet"] = map[string]any{"@odata.type": crmType + "OptionSetMetadata", "IsGlobal": false, "OptionSetType": "Picklist", "Options": options}
	}
	return m
}

// baseLanguage is the language of the organization: labels in another one alone are
// refused.
func (c *Client) baseLanguage(ctx context.Context) (int, error) {
	const op = "ask for the organization's language"
	text, err := c.get(ctx, op, "/organizations", "organizations?$select=languagecode")
	if err != nil {
		return 0, err
	}
	var answer struct{ Value []struct{ LanguageCode int } }
	if !decodeJSON(text, &answer) || len(answer.Value) != 1 || answer.Value[0].LanguageCode == 0 {
		return 0, garbled(op)
	}
	return answer.Value[0].LanguageCode, nil
}

// readSchema reads what there is of our components in one $batch.
func (c *Client) readSchema(ctx context.Context) (*solution.State, error) {
	const op = "read which of our tables are there"
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	var parts []part
	get := func(path string) { parts = append(parts, part{method: http.MethodGet, target: api + path}) }
	get("publishers?$select=publisherid,customizationprefix&$filter=uniquename%20eq%20%27" + solution.Publisher + "%27")
	get("solutions?$select=solutionid,version,ismanaged,_publisherid_value&$filter=uniquename%20eq%20%27" + solution.Name + "%27")
	for i := range solution.Tables {
		t := &solution.Tables[i]
		columns, options := definition(t)+"/Attributes", definition(t)+"/Attributes/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet,GlobalOptionSet"
		if t.Existing {
			only := "$filter=LogicalName%20eq%20%27" + t.Columns[0].Logical() + "%27"
			columns, options = columns+"?"+only, options+"&"+only
		}
		get(definition(t) + "?$select=MetadataId,LogicalName,EntitySetName,OwnershipType,ChangeTrackingEnabled")
		get(columns)
		get(options)
		get(definition(t) + "/Keys?$select=MetadataId,LogicalName,KeyAttributes,EntityKeyIndexStatus")
	}
	answers, err := c.batch(ctx, op, parts)
	if err != nil {
		return nil, err
	}
	var publishers struct {
		Value []struct{ PublisherID, CustomizationPrefix string }
	}
	var solutions struct {
		Value []struct {
			SolutionID, Version string
			IsManaged           bool
			Publisher           string `json:"_publisherid_value"`
		}
	}
	for i, into := range []any{&publishers, &solutions} {
		if answers[i].err != nil {
			return nil, answers[i].err
		}
		if !decodeJSON(answers[i].body, into) {
			return nil, garbled(op)
		}
	}
	state := &solution.State{Tables: map[string]*solution.TableState{}}
	if v := publishers.Value; len(v) > 0 {
		state.Publisher = &solution.PublisherState{ID: v[0].PublisherID, Prefix: v[0].CustomizationPrefix}
	}
	if v := solutions.Value; len(v) > 0 {
		state.Solution = &solution.SolutionState{ID: v[0].SolutionID, Version: v[0].Version, Managed: v[0].IsManaged, Publisher: v[0].Publisher}
	}
	for i := range solution.Tables {
		got := answers[2+4*i : 6+4*i]
		if got[0].err != nil && got[0].err.Code == lockstep.CodeNotFound {
			continue
		}
		t, err := readTableState(got, op)
		if err != nil {
			return nil, err
		}
		state.Tables[solution.Tables[i].Logical()] = t
	}
	return state, nil
}

func readTableState(got []partAnswer, op string) (*solution.TableState, error) {
	var entity struct {
		MetadataID, EntitySetName, OwnershipType string
		ChangeTrackingEnabled                    bool
	}
	type attribute struct {
		MetadataID string
		attributeMetadata
	}
	var attributes struct{ Value []attribute }
	var options struct{ Value []attributeMetadata }
	var keys struct {
		Value []struct {
			MetadataID, LogicalName string
			KeyAttributes           []string
			EntityKeyIndexStatus    string
		}
	}
	for i, into := range []any{&entity, &attributes, &options, &keys} {
		if got[i].err != nil {
			return nil, got[i].err
		}
		if !decodeJSON(got[i].body, into) {
			return nil, garbled(op)
		}
	}
	t := &solution.TableState{
		ID: entity.MetadataID, Set: entity.EntitySetName, Ownership: entity.OwnershipType, Tracked: entity.ChangeTrackingEnabled,
		Columns: map[string]solution.ColumnState{}, Keys: map[string]solution.KeyState{},
	}
	for i := range attributes.Value {
		a := &attributes.Value[i]
		col := solution.ColumnState{ID: a.MetadataID, Type: a.AttributeType, Length: a.MaxLength}
		if a.DateTimeBehavior != nil {
			col.Behavior = a.DateTimeBehavior.Value
		}
		if j := slices.IndexFunc(options.Value, func(o attributeMetadata) bool { return o.LogicalName == a.LogicalName }); j >= 0 {
			for _, o := range options.Value[j].options() {
				col.Options = append(col.Options, o.Value)
			}
		}
		t.Columns[a.LogicalName] = col
	}
	for _, k := range keys.Value {
		t.Keys[k.LogicalName] = solution.KeyState{ID: k.MetadataID, Status: k.EntityKeyIndexStatus, Columns: k.KeyAttributes}
	}
	return t, nil
}
