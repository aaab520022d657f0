package webapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/solution"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
)

// openForSchema opens a client whose pauses pass at once.
func (w *world) openForSchema() *Client {
	w.t.Helper()
	w.env.Sleep = func(ctx context.Context, d time.Duration) error {
		w.clock.Advance(d)
		return ctx.Err()
	}
	return w.open()
}

// install installs and returns the steps that were taken.
func (w *world) install(c *Client) (steps []lockstep.SchemaStep) {
	w.t.Helper()
	if err := c.InstallSchema(w.t.Context(), func(s lockstep.SchemaStep) error { steps = append(steps, s); return nil }); err != nil {
		w.t.Fatal(err)
	}
	w.installed(c)
	return steps
}

// installed fails when anything is missing.
func (w *world) installed(c *Client) {
	w.t.Helper()
	if steps := w.plan(c); len(steps) != 0 {
		w.t.Fatalf("still missing: %v", steps)
	}
}

// complete fails when the solution's version does not say that the installation has
// come to its end.
func (w *world) complete() {
	w.t.Helper()
	if text := w.post(http.MethodGet, "solutions?$select=version&$filter=uniquename%20eq%20%27Lockstep%27", ""); !strings.Contains(text, `"version":"1.0.0.0"`) {
		w.t.Error(text)
	}
}

func (w *world) plan(c *Client) []lockstep.SchemaStep {
	w.t.Helper()
	steps, err := c.PlanSchema(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return steps
}

func TestInstallSchema(t *testing.T) {
	w := newWorld(t, options{})
	c := w.openForSchema()
	_, _ = c.Identity(t.Context())
	var planned []lockstep.SchemaStep
	if n := w.count(func() { planned = w.plan(c) }); n != 1 {
		t.Errorf("the plan took %d calls", n)
	}
	// Publisher, solution, four tables with a key each, three columns, publication.
	if len(planned) != 14 || planned[0].Kind != lockstep.SchemaPublisher || planned[1].Kind != lockstep.SchemaSolution || planned[13].Action != lockstep.SchemaPublish {
		t.Fatalf("%d steps: %v", len(planned), planned)
	}
	if tables, err := c.Tables(t.Context(), lockstep.OwnTables); err != nil || len(tables) != 0 {
		t.Fatalf("the plan wrote: %d tables, %v", len(tables), err)
	}
	taken := w.install(c)
	waits := 0
	for _, s := range taken {
		if s.Action == lockstep.SchemaWait {
			waits++
		}
	}
	if len(taken)-waits != 14 || waits == 0 {
		t.Errorf("%d steps and %d looks at keys", len(taken)-waits, waits)
	}
	tables, err := c.Tables(t.Context(), append([]string{"contact"}, lockstep.OwnTables...))
	if err != nil || len(tables) != 5 {
		t.Fatalf("%d tables: %v", len(tables), err)
	}
	for _, table := range tables[1:] {
		if name, ok := table.Column(lockstep.NameColumn); !table.ChangeTracked || !ok || table.PrimaryName != lockstep.NameColumn || name.MaxLength != 320 {
			t.Errorf("%s: %+v", table.Name, name)
		}
	}
	if optIn, ok := tables[0].Column(lockstep.OptInTypeColumn); !ok || optIn.Type != lockstep.ColumnOption || len(optIn.Options) != 4 || optIn.Options[3] != (lockstep.Option{Value: 3, Label: "Verified double"}) {
		t.Errorf("%+v", optIn)
	}
	// All of it belongs to the solution, which is complete.
	w.complete()
	if text := w.post(http.MethodGet, "solutioncomponents?$select=objectid&$filter=solutionid/uniquename%20eq%20%27Lockstep%27&$count=true", ""); !strings.Contains(text, `"@odata.count":11`) {
		t.Errorf("not eleven components: %s", text)
	}
	if again := w.install(c); len(again) != 0 {
		t.Errorf("the second installation took %v", again)
	}
}

// The installation is stopped before every step but one; each time a new process goes
// on with it.
func TestInstallSchemaStoppedAnywhere(t *testing.T) {
	w := newWorld(t, options{})
	stop := errors.New("stop")
	for processes := 1; ; processes++ {
		n := 0
		err := w.openForSchema().InstallSchema(t.Context(), func(lockstep.SchemaStep) error {
			if n++; n > 1 {
				return stop
			}
			return nil
		})
		if err == nil {
			if processes < 14 {
				t.Errorf("done by %d processes of one step each", processes)
			}
			break
		}
		if !errors.Is(err, stop) || processes > 30 {
			t.Fatalf("process %d: %v", processes, err)
		}
	}
	w.installed(w.open())
	w.complete()
}

// The answers to calls are lost, one after the other.
func TestInstallSchemaWithLostAnswers(t *testing.T) {
	for _, operation := range []string{"publisher.create", "solution.create", "metadata.write", "publish-xml", "solution.update"} {
		t.Run(operation, func(t *testing.T) {
			w := newWorld(t, options{})
			w.fault("ack-lost", operation, 3, "")
			w.install(w.openForSchema())
		})
	}
}

// What a customer or an accident changed afterwards is repaired where it can be.
func TestInstallSchemaRepairs(t *testing.T) {
	w := newWorld(t, options{})
	c := w.openForSchema()
	w.install(c)
	w.post(http.MethodDelete, "EntityDefinitions(LogicalName='lockstep_preference')/Attributes(LogicalName='lockstep_category')", "")
	w.fault("metadata-change", "", 1, `{"table":"lockstep_suppression","column":"lockstep_reason","change":"max-length","max_length":40}`)
	_, _ = c.Identity(t.Context())
	w.fault("metadata-change", "", 1, `{"table":"lead","column":"lockstep_optintype","change":"option-remove","option":2}`)
	_, _ = c.Identity(t.Context())
	w.fault("metadata-change", "", 1, `{"table":"lockstep_listunsubscriber","change":"tracking-off"}`)
	_, _ = c.Identity(t.Context())
	got := map[string]string{}
	for _, s := range w.plan(c) {
		got[s.Table+"."+s.Name] = string(s.Action) + " " + s.Detail
	}
	want := map[string]string{
		"lockstep_preference.lockstep_category": "create text of 200 characters", "lockstep_suppression.lockstep_reason": "change lengthen from 40 to 100 characters",
		"lead.lockstep_optintype": "change add the option 2 Double", ".lockstep_listunsubscriber": "change switch change tracking on", ".Lockstep": "publish version 1.0.0.0",
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	w.install(c)
}

// Differences that only a person can repair stop the installation before it writes.
func TestInstallSchemaBlocked(t *testing.T) {
	label := func(s string) string {
		return `{"LocalizedLabels":[{"Label":"` + s + `","LanguageCode":1033}]}`
	}
	for name, tc := range map[string]struct{ path, body, want string }{
		"a column of another type": {
			"EntityDefinitions(LogicalName='lead')/Attributes",
			`{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lockstep_OptInType","MaxLength":10,"DisplayName":` + label("x") + `}`,
			"lead.lockstep_optintype: choice of Unknown, Single, Double, Verified double: the column is of the type String, and a column's type cannot be changed",
		},
		"a publisher with another prefix": {
			"publishers", `{"uniquename":"lockstep","friendlyname":"x","customizationprefix":"other","customizationoptionvalueprefix":20000}`, `the publisher lockstep has the prefix "other", not "lockstep"`,
		},
		"a table owned by the organization": {
			"EntityDefinitions", `{"@odata.type":"Microsoft.Dynamics.CRM.EntityMetadata","SchemaName":"lockstep_Preference","OwnershipType":"OrganizationOwned","DisplayName":` + label("x") + `,"DisplayCollectionName":` + label("xs") +
				`,"Attributes":[{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lockstep_Name","IsPrimaryName":true,"MaxLength":100,"DisplayName":` + label("n") + `}]}`,
			"lockstep_preference: the table is not owned by users or teams",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			w.post(http.MethodPost, tc.path, tc.body)
			c := w.openForSchema()
			err := c.InstallSchema(t.Context(), func(s lockstep.SchemaStep) error { return errors.New("a step was taken: " + s.String()) })
			if lockstep.CodeOf(err) != lockstep.CodeConflict || !strings.Contains(err.Error(), tc.want) || lockstep.AsError(err).Hint == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

// A key whose values repeat already is told, with what to do.
func TestInstallSchemaKeyFails(t *testing.T) {
	w := newWorld(t, options{})
	c := w.openForSchema()
	err := c.InstallSchema(t.Context(), func(s lockstep.SchemaStep) error {
		if s.Kind == lockstep.SchemaKey && s.Action == lockstep.SchemaCreate && s.Table == lockstep.SuppressionTable {
			for range 2 {
				w.post(http.MethodPost, "lockstep_suppressions", `{"lockstep_account":"a","lockstep_email":"a@example.com"}`)
			}
		}
		return nil
	})
	if lockstep.CodeOf(err) != lockstep.CodeConflict || !strings.Contains(err.Error(), "rows repeat the values") {
		t.Error(err)
	}
}

func TestInstallSchemaWithoutRight(t *testing.T) {
	w := newWorld(t, options{user: &dataverse.AppUser{Without: []string{"prvCreateEntity"}}})
	err := w.openForSchema().InstallSchema(t.Context(), func(lockstep.SchemaStep) error { return nil })
	e := lockstep.AsError(err)
	if e.Code != lockstep.CodeForbidden || e.Field != "prvCreateEntity" || !strings.Contains(e.Msg, "prvCreateEntity") || !strings.Contains(e.Hint, "System Customizer") || !strings.Contains(e.Hint, "the flags of records are set") {
		t.Errorf("%+v", e)
	}
}

// An organization without the Sales app has no leads, and needs no column there.
func TestInstallSchemaWithoutSales(t *testing.T) {
	w := newWorld(t, options{profile: dataverse.Bare})
	for _, s := range w.install(w.openForSchema()) {
		if s.Table == "lead" {
			t.Errorf("%v", s)
		}
	}
}

func TestRemoveSchema(t *testing.T) {
	w := newWorld(t, options{})
	c := w.openForSchema()
	if steps, err := c.PlanSchemaRemoval(t.Context()); err != nil || len(steps) != 0 {
		t.Fatalf("nothing is there, and %v is to be removed (%v)", steps, err)
	}
	w.install(c)
	w.write(c, lockstep.SuppressionTable, []lockstep.RecordWrite{
		{ID: id(1), Create: true, Fields: []lockstep.ColumnValue{{Column: lockstep.EmailTextColumn, Value: lockstep.TextValue("a@example.com")}}},
		{ID: id(2), Create: true, Fields: []lockstep.ColumnValue{{Column: lockstep.EmailTextColumn, Value: lockstep.TextValue("b@example.com")}}},
	})
	w.write(c, "contact", []lockstep.RecordWrite{{ID: id(3), Create: true, Fields: []lockstep.ColumnValue{{Column: "lastname", Value: lockstep.TextValue("x")}, {Column: lockstep.OptInTypeColumn, Value: lockstep.CanonicalValue(lockstep.Number, "2")}}}, person(4)})
	steps, err := c.PlanSchemaRemoval(t.Context())
	if err != nil || len(steps) != 9 {
		t.Fatalf("%v %v", steps, err)
	}
	rows := map[string]int64{}
	for _, s := range steps {
		rows[s.Table+"."+s.Name] = s.Rows
	}
	if rows["."+lockstep.SuppressionTable] != 2 || rows["contact."+lockstep.OptInTypeColumn] != 1 || rows["lead."+lockstep.OptInTypeColumn] != 0 {
		t.Errorf("%v", rows)
	}
	stop := errors.New("stop")
	n := 0
	if err := c.RemoveSchema(t.Context(), func(lockstep.SchemaStep) error {
		if n++; n > 4 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := c.RemoveSchema(t.Context(), func(lockstep.SchemaStep) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if steps, err := c.PlanSchemaRemoval(t.Context()); err != nil || len(steps) != 0 {
		t.Errorf("left over: %v %v", steps, err)
	}
	w.install(c) // and it can be installed again
}

// The keys fit into what the service allows, whatever is added to the description.
func TestKeysFit(t *testing.T) {
	for i := range solution.Tables {
		table := &solution.Tables[i]
		for _, k := range table.Keys {
			bytes := 0
			for _, name := range k.Columns {
				for j := range table.Columns {
					if table.Columns[j].Logical() == name {
						bytes += 2 * table.Columns[j].Length
					}
				}
			}
			if bytes == 0 || bytes > 900 {
				t.Errorf("%s: %d bytes", k.Name, bytes)
			}
		}
	}
}

// When a row is created that is there already, the service may tell the repeated
// alternate key instead of the repeated id.
func TestRepeatedCreateToldByKey(t *testing.T) {
	told := 0
	w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			maps.Copy(rw.Header(), rec.Header())
			body := rec.Body.String()
			told += strings.Count(body, "0x80040237")
			rw.WriteHeader(rec.Code)
			_, _ = io.WriteString(rw, strings.ReplaceAll(body, "0x80040237", "0x80060892"))
		})
	}})
	c := w.openForSchema()
	w.install(c)
	row := func(n int) lockstep.RecordWrite {
		return lockstep.RecordWrite{ID: id(n), Create: true, Fields: []lockstep.ColumnValue{
			{Column: lockstep.EmailTextColumn, Value: lockstep.TextValue("a@example.com")}, {Column: lockstep.AccountColumn, Value: lockstep.TextValue("A")},
		}}
	}
	w.write(c, lockstep.SuppressionTable, []lockstep.RecordWrite{row(1)})
	w.write(c, lockstep.SuppressionTable, []lockstep.RecordWrite{row(1)})
	if told == 0 {
		t.Error("no repeated row was told")
	}
	results, err := c.WriteRecords(t.Context(), lockstep.SuppressionTable, []lockstep.RecordWrite{row(2)})
	if err != nil || results[0] == nil || results[0].Code != lockstep.CodeConflict {
		t.Errorf("another row with the key: %v %v", results, err)
	}
}

// Somebody else is customizing, and the server that is asked does not know the new
// table yet: the installation waits for both.
func TestInstallSchemaWaits(t *testing.T) {
	refusals := map[string]int{}
	w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			refuse := func(status int, code string) {
				refusals[code]++
				rw.Header().Set("Content-Type", "application/json")
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, `{"error":{"code":"`+code+`","message":"not now"}}`)
			}
			switch {
			case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/EntityDefinitions") && refusals["0x80071151"] < 3:
				refuse(http.StatusBadRequest, "0x80071151")
			case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/Keys") && refusals["0x8006088A"] < 2:
				refuse(http.StatusNotFound, "0x8006088A")
			case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/PublishXml") && refusals["0x80048543"] < 2:
				refuse(http.StatusBadRequest, "0x80048543")
			default:
				h.ServeHTTP(rw, r)
			}
		})
	}})
	steps := w.install(w.openForSchema())
	made := 0
	for _, s := range steps {
		if s.Action != lockstep.SchemaWait {
			made++
		}
	}
	if made != 14 || refusals["0x80071151"] != 3 || refusals["0x8006088A"] != 2 || refusals["0x80048543"] != 2 {
		t.Errorf("%d steps, refused %v", made, refusals)
	}
}

// Two installations at once: what the other has made meanwhile is no error.
func TestInstallSchemaBesideAnother(t *testing.T) {
	w := newWorld(t, options{})
	once := false
	err := w.openForSchema().InstallSchema(t.Context(), func(s lockstep.SchemaStep) error {
		if !once && s.Kind == lockstep.SchemaTable && s.Name == lockstep.UnsubscriberTable {
			once = true
			w.install(w.openForSchema())
		}
		return nil
	})
	if err != nil || !once {
		t.Errorf("%v", err)
	}
	w.installed(w.open())
}
