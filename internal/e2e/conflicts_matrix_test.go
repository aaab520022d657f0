package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// disputedField is one kind of value in the table of conflicts, with what its b, x and y
// are in each system. A multi-select flows to the platform only.
type disputedField struct {
	kind, label, column string
	outward             bool
	crm, platform       map[string]any
}

func disputedFields() []disputedField {
	field := func(kind, label, column string, crm, platform [3]any) disputedField {
		f := disputedField{kind: kind, label: label, column: column, crm: map[string]any{"(empty)": nil}, platform: map[string]any{"(empty)": nil}}
		for i, name := range []string{"b", "x", "y"} {
			f.crm[name], f.platform[name] = crm[i], platform[i]
		}
		return f
	}
	words := [3]any{"Clerk", "Pilot", "Nurse"}
	numbers := [3]any{3.0, 0.0, 7.0}
	multi := field("multi-select", "TOPICS", "lsx_tags", [3]any{"1", "1,2", "3"}, [3]any{"One", "One, Two", "Three"})
	multi.outward = true
	return []disputedField{
		field("text", "JOBTITLE", "jobtitle", words, words),
		field("number", "CHILDREN", "numberofchildren", numbers, numbers),
		field("option", "FAMILY", "familystatuscode", [3]any{1.0, 2.0, 3.0}, [3]any{"Single", "Married", "Divorced"}),
		field("date", "SINCE", "anniversary", [3]any{"2001-01-31", "1753-01-01", "2024-02-29"}, [3]any{"2001-01-31T00:00:00", "1753-01-01T00:00:00", "2024-02-29T00:00:00"}),
		multi,
	}
}

// name is what the table calls a value.
func (f *disputedField) name(values map[string]any, v any) string {
	for name, x := range values {
		if x == v {
			return name
		}
		if s, ok := v.(string); ok && x != nil && f.kind == "date" && strings.HasPrefix(s, fmt.Sprint(x)[:10]) {
			return name
		}
	}
	return fmt.Sprintf("?%v", v)
}

// of is what the table calls a value in label form.
func (f *disputedField) of(v lockstep.Value) string {
	if v.IsNull() {
		return "(empty)"
	}
	if f.kind == "number" {
		n, _ := strconv.ParseFloat(v.Text(), 64)
		return f.name(f.platform, n)
	}
	return f.name(f.platform, v.Text())
}

// conflictRow is one row of the table.
type conflictRow struct {
	section, crm, platform, later                     string
	crmSays, platformSays, writes, winner, kept, told string
	stays                                             bool
}

// conflictRows reads the table of conflicts, one row for each order of the two edits.
func conflictRows(t *testing.T) (rows []conflictRow) {
	t.Helper()
	text, err := os.ReadFile("../merge/testdata/conflicts.golden")
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "#" || f[0] == "CRM":
		case line[0] == '[':
			section = strings.TrimPrefix(strings.Trim(strings.TrimSpace(line), "[]"), "policy ")
		default:
			r := conflictRow{section, f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9] == "stays"}
			orders := []string{r.later}
			if r.later == "any" {
				orders = []string{"crm", "platform"}
			}
			if r.crm == "same" || r.platform == "same" {
				orders = orders[:1] // one edit has no order
			}
			for _, r.later = range orders {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// dispute is a person in a cell of the table.
type dispute struct {
	conflictRow
	email, id string
	contact   int64
}

// TestConflictsEndToEnd checks every row of the table of conflicts with whole runs:
// what each side says afterwards and what was written, the conflict, what is kept, who
// is told, and that a person who decides for the value that lost gets it on both sides.
func TestConflictsEndToEnd(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	floor := 10_000
	w.guards(app.GuardPatch{Floor: &floor})
	label := func(s string) cols {
		return cols{"LocalizedLabels": []cols{{"Label": s, "LanguageCode": 1033}}}
	}
	w.crm("POST", "EntityDefinitions(LogicalName='contact')/Attributes", cols{
		"@odata.type": "Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata", "SchemaName": "lsx_Tags", "DisplayName": label("Tags"),
		"OptionSet": cols{"IsGlobal": false, "OptionSetType": "Picklist", "Options": []cols{{"Value": 1, "Label": label("One")}, {"Value": 2, "Label": label("Two")}, {"Value": 3, "Label": label("Three")}}},
	}, nil)
	w.run(lockstep.SyncCRMMetadata)
	w.labels(map[string]lockstep.FieldType{"CHILDREN": lockstep.FieldNumber, "FAMILY": lockstep.FieldText, "SINCE": lockstep.FieldDate, "TOPICS": lockstep.FieldText})
	fields := disputedFields()
	for _, f := range fields {
		if f.label != "JOBTITLE" { // which is mapped already
			w.mapping(f.label, f.column, lockstep.ToPlatform)
			if !f.outward {
				w.mapping(f.label, f.column, lockstep.ToCRM)
			}
		}
	}
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	rows := map[string][]conflictRow{}
	for _, r := range conflictRows(t) {
		rows[r.section] = append(rows[r.section], r)
	}
	for _, policy := range []lockstep.Winner{lockstep.WinnerCRM, lockstep.WinnerPlatform, lockstep.WinnerNewest, lockstep.WinnerHold} {
		t.Run(string(policy), func(t *testing.T) {
			w.winner(policy, fields)
			w.playConflicts(t, l, fields, rows[string(policy)], rows["multi-select"])
		})
	}
}

// winner makes a policy that of all two-way fields.
func (w *stage) winner(policy lockstep.Winner, fields []disputedField) {
	w.t.Helper()
	mappings, err := w.app.Mappings(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range mappings {
		if m.Table == "contact" && slices.ContainsFunc(fields, func(f disputedField) bool { return f.label == m.Label && !f.outward }) {
			m.Winner = policy
			if _, err := w.app.SaveMapping(w.t.Context(), m); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *stage) playConflicts(t *testing.T, l lockstep.ListSettings, fields []disputedField, rows, multi []conflictRow) {
	t.Helper()
	people := make([]*dispute, len(rows))
	for i, r := range rows {
		p := &dispute{conflictRow: r, email: fmt.Sprintf("%s.%02d@stage.example", r.section, i)}
		before := cols{}
		for _, f := range fields {
			before[f.column] = f.crm["b"]
		}
		p.id = w.cast("contact", p.email, before)
		people[i] = p
	}
	ids := make([]string, len(people))
	for i, p := range people {
		ids[i] = p.id
	}
	w.join(l, ids...)
	w.sync()
	w.sync()
	for _, p := range people {
		p.contact = w.contact(p.email).ContactID
	}
	for _, turn := range []string{"first", "second"} {
		w.twins.Clock.Advance(2 * time.Second)
		for _, p := range people {
			if (p.later == "crm") == (turn == "second") {
				w.disputeInCRM(p, fields)
			} else {
				w.disputeOnPlatform(p, fields)
			}
		}
	}
	w.twins.Clock.Advance(2 * time.Second)
	run := w.sync()
	conflicts, findings := w.conflictsOf(run), w.findings(run)
	written := w.fieldsWritten(run, fields)
	t.Logf("%d people, %d conflicts, %d findings", len(people), len(conflicts), len(findings))
	inBook, now := w.contacts(w.book(l)), w.bothSay(fields)
	for _, p := range people {
		told := "-"
		for _, f := range findings {
			if f.Record.String() == p.id {
				told = f.Code
			}
		}
		if told != p.told {
			t.Errorf("%s: told %s, want %s", p, told, p.told)
		}
		if _, stays := inBook[p.email]; stays != p.stays {
			t.Errorf("%s: in the address book: %v, want %v", p, stays, p.stays)
		}
		for _, f := range fields {
			want := p.conflictRow
			if f.outward {
				i := slices.IndexFunc(multi, func(r conflictRow) bool { return r.crm == p.crm && r.platform == p.platform })
				want = multi[i]
			}
			key := p.id + " " + f.label
			got := conflictRow{section: want.section, crm: want.crm, platform: want.platform, later: want.later, told: want.told, stays: want.stays}
			got.crmSays, got.platformSays = now.crm(p, &f), now.platform(p, &f)
			got.writes, got.winner, got.kept = "-", "-", "-"
			if x, ok := written[key]; ok {
				got.writes = x.side + "=" + x.is
				if f.outward {
					got.kept = x.was
				}
			}
			if c, ok := conflicts[key]; ok {
				got.winner = c.Winner
				switch c.Winner {
				case "crm":
					got.kept = f.of(c.Platform)
				case "platform":
					got.kept = f.of(c.CRM)
				default:
					got.kept = f.of(c.CRM) + "," + f.of(c.Platform)
				}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(conflictRow{})); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", p, f.kind, diff)
			}
		}
	}
	w.quiet()
	w.decideForTheLosers(t, people, fields, conflicts)
}

// decideForTheLosers chooses, in every conflict, the value that lost; of a held field in
// turn either. Both sides must have it after the next run.
func (w *stage) decideForTheLosers(t *testing.T, people []*dispute, fields []disputedField, conflicts map[string]lockstep.Conflict) {
	t.Helper()
	want := map[string]string{}
	held := 0
	for _, p := range people {
		for _, f := range fields {
			key := p.id + " " + f.label
			c, ok := conflicts[key]
			if !ok {
				continue
			}
			choice := map[string]string{"crm": "platform", "platform": "crm"}[c.Winner]
			if choice == "" {
				choice = []string{"crm", "platform"}[held%2]
				held++
			}
			w.choose(c, choice)
			if want[key] = f.of(c.CRM); choice == "platform" {
				want[key] = f.of(c.Platform)
			}
		}
	}
	w.sync()
	now := w.bothSay(fields)
	for _, p := range people {
		for _, f := range fields {
			if v, ok := want[p.id+" "+f.label]; ok && (now.crm(p, &f) != v || now.platform(p, &f) != v) {
				t.Errorf("%s, %s: after the decision for %s the CRM says %s and the platform %s", p, f.kind, v, now.crm(p, &f), now.platform(p, &f))
			}
		}
	}
	w.quiet()
}

func (p *dispute) String() string {
	return fmt.Sprintf("policy %s, CRM %s, platform %s, later %s", p.section, p.crm, p.platform, p.later)
}

// disputeInCRM makes the CRM's edit of a person.
func (w *stage) disputeInCRM(p *dispute, fields []disputedField) {
	w.t.Helper()
	edit := cols{}
	for _, f := range fields {
		switch {
		case p.crm == "changed", p.crm == "deleted" && p.platform == "equal":
			edit[f.column] = f.crm["x"]
		case p.crm == "cleared":
			edit[f.column] = nil
		}
	}
	if len(edit) > 0 {
		w.editRecord("contact", p.id, edit)
	}
	if p.crm == "deleted" {
		w.crm("DELETE", "contacts("+p.id+")", nil, nil)
	}
}

// disputeOnPlatform makes the platform's edit.
func (w *stage) disputeOnPlatform(p *dispute, fields []disputedField) {
	w.t.Helper()
	edit := cols{}
	for _, f := range fields {
		switch {
		case p.platform == "changed":
			edit[f.label] = f.platform["y"]
		case p.platform == "cleared", p.platform == "equal" && p.crm == "cleared":
			edit[f.label] = nil
		case p.platform == "equal" && p.crm == "same":
			edit[f.label] = f.platform["b"]
		case p.platform == "equal":
			edit[f.label] = f.platform["x"]
		}
	}
	if len(edit) > 0 {
		w.editContact(p.email, edit)
	}
	if p.platform == "deleted" {
		w.mail("DELETE", fmt.Sprintf("/contacts/v3/contactId/%d", p.contact), nil, nil)
	}
}

// conflictsOf are a run's conflicts by record and label.
func (w *stage) conflictsOf(run lockstep.Run) map[string]lockstep.Conflict {
	w.t.Helper()
	out := map[string]lockstep.Conflict{}
	all, err := w.app.Conflicts(w.t.Context(), app.ConflictFilter{Account: w.account.ID, Run: run.ID, Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		out[c.Ref.ID.String()+" "+c.Label] = c
	}
	return out
}

// bothSides is what the two systems say about everybody.
type bothSides struct {
	records  map[string]rec
	contacts map[string]mailContact
}

func (w *stage) bothSay(fields []disputedField) bothSides {
	w.t.Helper()
	columns := "contactid"
	for _, f := range fields {
		columns += "," + f.column
	}
	now := bothSides{records: map[string]rec{}, contacts: w.contacts("")}
	for _, r := range w.rows("contacts?$select=" + columns) {
		now.records[r.str("contactid")] = r
	}
	return now
}

func (s bothSides) crm(p *dispute, f *disputedField) string {
	r, ok := s.records[p.id]
	if !ok {
		return "(deleted)"
	}
	return f.name(f.crm, r[f.column])
}

func (s bothSides) platform(p *dispute, f *disputedField) string {
	c, ok := s.contacts[p.email]
	if !ok {
		return "(deleted)"
	}
	return f.name(f.platform, c.DataFields[f.label])
}

// fieldWrite is what a run wrote into a field, in the table's words.
type fieldWrite struct{ side, was, is string }

// fieldsWritten are the fields that a run wrote, by record and label.
func (w *stage) fieldsWritten(run lockstep.Run, fields []disputedField) map[string]fieldWrite {
	w.t.Helper()
	all, _, err := w.app.Changes(w.t.Context(), run.ID, 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]fieldWrite{}
	for _, c := range all {
		for _, x := range c.Fields {
			for _, f := range fields {
				key := c.Ref.ID.String() + " " + f.label
				_, twice := out[key]
				switch {
				case c.State != lockstep.Acknowledged:
				case twice && (x.Name == f.label || x.Name == f.column):
					w.t.Errorf("%s of %s was written twice", f.label, c.Ref)
				case c.Kind == lockstep.WriteRecord && x.Name == f.column:
					out[key] = fieldWrite{"crm", "", f.stored(x.New)}
				case c.Kind == lockstep.WriteContact && x.Name == f.label:
					out[key] = fieldWrite{"platform", f.of(x.Old), f.of(x.New)}
				}
			}
		}
	}
	return out
}

// stored is what the table calls a value of the CRM's column.
func (f *disputedField) stored(v lockstep.Value) string {
	if v.IsNull() {
		return "(empty)"
	}
	if n, err := strconv.ParseFloat(v.Text(), 64); err == nil {
		return f.name(f.crm, n)
	}
	return f.name(f.crm, v.Text())
}
