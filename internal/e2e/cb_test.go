package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// labels makes data labels that exist on the platform as well.
func (w *stage) labels(typed map[string]lockstep.FieldType) {
	w.t.Helper()
	for name, typ := range typed {
		if _, err := w.app.SaveLabel(w.t.Context(), lockstep.DataLabel{Account: w.account.ID, Name: name, Type: typ}); err != nil {
			w.t.Fatalf("label %s: %v", name, err)
		}
	}
	w.run(lockstep.SyncDataLabels)
}

// mapping maps a label to a column of contact.
func (w *stage) mapping(label, column string, way lockstep.Direction, change ...func(*lockstep.DataMapping)) {
	w.t.Helper()
	m := lockstep.DataMapping{Account: w.account.ID, Label: label, Table: "contact", Column: column, Direction: way}
	for _, f := range change {
		f(&m)
	}
	if _, err := w.app.SaveMapping(w.t.Context(), m); err != nil {
		w.t.Fatalf("mapping %s %s %s: %v", label, column, way, err)
	}
}

func (w *stage) twoWay(label, column string, change ...func(*lockstep.DataMapping)) {
	w.t.Helper()
	w.mapping(label, column, lockstep.ToPlatform, change...)
	w.mapping(label, column, lockstep.ToCRM, change...)
}

// set patches data fields as strings, numbers or nulls.
func (w *stage) field(email, name string) any { return w.contact(email).DataFields[name] }

func platformCalls(w *world) int64 { return total(w.calls("dotdigital")) }

func TestCB01ListsThatAreNotActivatedCauseNoPlatformCall(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("Sleeping", "contact", lockstep.ActionRemove, "")
	no, yes := false, true
	w.patchList(l, app.ListPatch{Activated: &no})
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.resetCalls()
	for range 2 {
		w.sync()
		w.run(lockstep.SyncAddressBooksIn)
	}
	if n := platformCalls(w.world); n != 0 {
		t.Errorf("%d calls: %v", n, w.calls("dotdigital"))
	}
	if _, err := w.app.StartRun(t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, List: l.ID}); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a run of the list was taken: %v", err)
	}
	// Deactivated again, it is left as it is, whatever happens to its members.
	w.patchList(l, app.ListPatch{Activated: &yes})
	w.sync()
	w.patchList(l, app.ListPatch{Activated: &no})
	for id := range w.people("contact") {
		w.editRecord("contact", id, cols{"jobtitle": "Edited"})
	}
	w.signUp(w.book(l), "stranger@stage.example")
	before := w.state()
	w.resetCalls()
	w.sync()
	if n := platformCalls(w.world); n != 0 {
		t.Errorf("%d calls after the deactivation: %v", n, w.calls("dotdigital"))
	}
	if diff := changed(before, w.state()); len(diff) != 0 {
		t.Errorf("changed after the deactivation: %v", diff)
	}
}

func TestCB05ReservedNamesAreRefusedBeforeAnyCall(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	yes := true
	for _, name := range []string{"Test", "all contacts"} {
		id := newID()
		w.crm("POST", "lists", cols{"listid": id, "listname": name, "type": false, "createdfromcode": 2}, nil)
		if err := w.app.DiscoverLists(t.Context(), w.account.ID); err != nil {
			t.Fatal(err)
		}
		l, err := w.app.List(t.Context(), w.account.ID, id)
		if err != nil {
			t.Fatal(err)
		}
		w.resetCalls()
		if _, err := w.app.UpdateList(t.Context(), l.ID, app.ListPatch{Activated: &yes}); lockstep.CodeOf(err) != lockstep.CodeInvalid {
			t.Errorf("%q: %v", name, err)
		}
		w.sync()
		if n := platformCalls(w.world); n != 0 {
			t.Errorf("%q: %d calls: %v", name, n, w.calls("dotdigital"))
		}
	}
	// A list that gets such a name later is left alone and somebody is told.
	l := w.list("Fine", "contact", lockstep.ActionIgnore, "")
	w.join(l, w.cast("contact", "ann@stage.example"))
	w.sync()
	w.crm("PATCH", fmt.Sprintf("lists(%s)", l.CRMID), cols{"listname": "TEST"}, nil)
	w.resetCalls()
	run := w.sync()
	w.told(run, lockstep.FindingNameReserved, l.CRMID.String())
	if n := platformCalls(w.world); n != 0 {
		t.Errorf("%d calls: %v", n, w.calls("dotdigital"))
	}
}

func TestCB06AChangeReachesTheOtherSideAndDoesNotComeBack(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example")
	w.join(l, ann)
	w.sync()
	var last string
	for i := range 4 {
		value := fmt.Sprintf("Title %d", i)
		if i%2 == 0 {
			w.editRecord("contact", ann, cols{"jobtitle": value})
		} else {
			w.editContact("ann@stage.example", cols{"JOBTITLE": value})
		}
		w.resetCalls()
		rows := w.crmWrites.Load()
		w.sync()
		if got := w.crmWrites.Load() - rows + writes(w.calls("dotdigital")); got != 1 {
			t.Errorf("edit %d cost %d writes", i, got)
		}
		crm, platform := w.record("contact", ann, "jobtitle").str("jobtitle"), w.field("ann@stage.example", "JOBTITLE")
		if crm != value || platform != value {
			t.Errorf("edit %d: %q in the CRM, %q on the platform, before %q", i, crm, platform, last)
		}
		last = value
		w.quiet()
	}
}

// Both sides changed the field differently: one wins by policy, the other value is
// kept and can be brought back, in either direction.
func TestCB07ConflictsUnderEachPolicyAndBack(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	columns := map[lockstep.Winner]string{lockstep.WinnerNewest: "nickname", lockstep.WinnerCRM: "department", lockstep.WinnerPlatform: "pager", lockstep.WinnerHold: "fax"}
	typed := map[string]lockstep.FieldType{}
	for policy := range columns {
		typed["BY_"+strings.ToUpper(string(policy))] = lockstep.FieldText
	}
	w.labels(typed)
	for policy, column := range columns {
		w.twoWay("BY_"+strings.ToUpper(string(policy)), column, func(m *lockstep.DataMapping) { m.Winner = policy })
	}
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	people := map[string]string{"crmlater": "", "platformlater": ""}
	for who := range people {
		c := cols{}
		for _, column := range columns {
			c[column] = "base"
		}
		people[who] = w.cast("contact", who+"@stage.example", c)
		w.join(l, people[who])
	}
	w.sync()
	w.quiet()
	edit := func(who, side string) {
		w.twins.Clock.Advance(3 * time.Second)
		c := cols{}
		for policy, column := range columns {
			if side == "crm" {
				c[column] = "crm"
			} else {
				c["BY_"+strings.ToUpper(string(policy))] = "platform"
			}
		}
		if side == "crm" {
			w.editRecord("contact", people[who], c)
		} else {
			w.editContact(who+"@stage.example", c)
		}
	}
	edit("crmlater", "platform")
	edit("crmlater", "crm")
	edit("platformlater", "crm")
	edit("platformlater", "platform")
	run := w.sync()
	winner := map[string]map[lockstep.Winner]string{
		"crmlater":      {lockstep.WinnerNewest: "crm", lockstep.WinnerCRM: "crm", lockstep.WinnerPlatform: "platform", lockstep.WinnerHold: "held"},
		"platformlater": {lockstep.WinnerNewest: "platform", lockstep.WinnerCRM: "crm", lockstep.WinnerPlatform: "platform", lockstep.WinnerHold: "held"},
	}
	check := func(when string) {
		t.Helper()
		for who, id := range people {
			r, c := w.record("contact", id, "nickname,department,pager,fax"), w.contact(who+"@stage.example")
			for policy, column := range columns {
				crm, platform := winner[who][policy], winner[who][policy]
				if crm == "held" {
					crm, platform = "crm", "platform"
				}
				if got := c.DataFields["BY_"+strings.ToUpper(string(policy))]; r.str(column) != crm || got != platform {
					t.Errorf("%s, %s, policy %s: %q in the CRM and %q on the platform, want %q and %q", when, who, policy, r.str(column), got, crm, platform)
				}
			}
		}
	}
	check("after the conflict")
	conflicts, err := w.app.Conflicts(t.Context(), app.ConflictFilter{Account: w.account.ID, Run: run.ID})
	if err != nil || len(conflicts) != 8 {
		t.Fatalf("%d conflicts, want 8: %v", len(conflicts), err)
	}
	for _, c := range conflicts {
		who := "crmlater"
		if c.Ref.ID.String() == people["platformlater"] {
			who = "platformlater"
		}
		if c.CRM.Text() != "crm" || c.Platform.Text() != "platform" || c.Base.Text() != "base" || c.Winner != winner[who][c.Policy] {
			t.Errorf("%s: %+v", who, c)
		}
	}
	w.quiet()
	check("a run later")
	// Every loser is brought back; of the held ones, one value each.
	for _, c := range conflicts {
		who, want := "crmlater", "platform"
		if c.Ref.ID.String() == people["platformlater"] {
			who = "platformlater"
		}
		if c.Winner == "platform" || c.Winner == "held" && who == "platformlater" {
			want = "crm"
		}
		if _, err := w.app.ResolveConflict(t.Context(), c.ID, want, "tester"); err != nil {
			t.Fatal(err)
		}
		winner[who][c.Policy] = want
	}
	w.sync()
	check("after the restore")
	w.quiet()
	check("a run after the restore")
}

// A held field goes on being held while its neighbours travel, and a person's edit
// that makes both sides equal ends the quarrel.
func TestHeldFieldEndsByAgreement(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{"HELD": lockstep.FieldText})
	w.twoWay("HELD", "fax", func(m *lockstep.DataMapping) { m.Winner = lockstep.WinnerHold })
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"fax": "base"})
	w.join(l, ann)
	w.sync()
	w.editRecord("contact", ann, cols{"fax": "crm", "jobtitle": "Pilot"})
	w.editContact("ann@stage.example", cols{"HELD": "platform", "FIRSTNAME": "Ann"})
	w.sync()
	r, c := w.record("contact", ann, "fax,firstname"), w.contact("ann@stage.example")
	if r.str("fax") != "crm" || c.DataFields["HELD"] != "platform" || r.str("firstname") != "Ann" || c.DataFields["JOBTITLE"] != "Pilot" {
		t.Errorf("%v and %v", r, c.DataFields)
	}
	w.sync()
	w.editContact("ann@stage.example", cols{"HELD": "crm"})
	w.sync()
	w.quiet()
	w.editContact("ann@stage.example", cols{"HELD": "onward"})
	w.sync()
	if got := w.record("contact", ann, "fax").str("fax"); got != "onward" {
		t.Errorf("after the agreement an edit does not travel: %q", got)
	}
}

// What is cleared in the CRM is cleared on the platform under clear, stays under
// keep, and becomes the default under default; for each label type.
func TestCB08ClearedInTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	policies := []lockstep.EmptyPolicy{lockstep.EmptyClear, lockstep.EmptyKeep, lockstep.EmptyDefault}
	type kind struct {
		typ          lockstep.FieldType
		column       string
		value        any
		full, preset any // as the platform shows them
		given        string
	}
	kinds := map[string]kind{
		"T": {lockstep.FieldText, "nickname", "Annie", "Annie", "None", "None"},
		"N": {lockstep.FieldNumber, "numberofchildren", 3, float64(3), float64(7), "7"},
		"D": {lockstep.FieldDate, "anniversary", "2020-02-29", "2020-02-29T00:00:00", "2001-01-01T00:00:00", "2001-01-01"},
		"O": {lockstep.FieldText, "familystatuscode", 2, "Married", "Unknown", "Unknown"},
		"B": {lockstep.FieldBool, "creditonhold", true, true, nil, ""},
	}
	typed := map[string]lockstep.FieldType{}
	for k, v := range kinds {
		for _, p := range policies {
			typed[k+"_"+strings.ToUpper(string(p))] = v.typ
		}
	}
	w.labels(typed)
	for k, v := range kinds {
		for _, p := range policies {
			if v.given == "" && p == lockstep.EmptyDefault {
				continue
			}
			w.mapping(k+"_"+strings.ToUpper(string(p)), v.column, lockstep.ToPlatform, func(m *lockstep.DataMapping) {
				m.Empty = p
				if p == lockstep.EmptyDefault {
					m.Default = v.given
				}
			})
		}
	}
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	full, empty := cols{}, cols{}
	for _, v := range kinds {
		full[v.column], empty[v.column] = v.value, nil
	}
	ann := w.cast("contact", "ann@stage.example", full)
	w.join(l, ann)
	w.sync()
	check := func(when string, want func(kind, lockstep.EmptyPolicy) any) {
		t.Helper()
		c := w.contact("ann@stage.example")
		for k, v := range kinds {
			for _, p := range policies {
				if v.given == "" && p == lockstep.EmptyDefault {
					continue
				}
				got, exp := c.DataFields[k+"_"+strings.ToUpper(string(p))], want(v, p)
				if s, ok := got.(string); ok && v.typ == lockstep.FieldDate {
					got = strings.TrimSuffix(s, "Z")
				}
				if got != exp {
					t.Errorf("%s: %s under %s is %v, want %v", when, v.column, p, got, exp)
				}
			}
		}
		w.quiet()
	}
	check("filled", func(v kind, _ lockstep.EmptyPolicy) any { return v.full })
	w.editRecord("contact", ann, empty)
	w.sync()
	check("cleared", func(v kind, p lockstep.EmptyPolicy) any {
		switch p {
		case lockstep.EmptyKeep:
			return v.full
		case lockstep.EmptyDefault:
			return v.preset
		}
		return nil
	})
	w.editRecord("contact", ann, full)
	w.sync()
	check("filled again", func(v kind, _ lockstep.EmptyPolicy) any { return v.full })
}

// Because the platform is empty, no column of the CRM ever becomes 0, No or a date
// long past: not at the first sync, not when a value is cleared, under no policy.
func TestCB09EmptyOnThePlatformNeverBecomesAValue(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	kinds := map[string]struct {
		typ    lockstep.FieldType
		column string
		value  any
		there  any
	}{
		"T": {lockstep.FieldText, "nickname", "Annie", "Annie"},
		"N": {lockstep.FieldNumber, "numberofchildren", 3, "3"},
		"M": {lockstep.FieldNumber, "creditlimit", 12.5, "12.5000"},
		"D": {lockstep.FieldDate, "anniversary", "2020-02-29", "2020-02-29"},
		"B": {lockstep.FieldBool, "creditonhold", true, "true"},
		"O": {lockstep.FieldText, "familystatuscode", 2, "2"},
	}
	typed := map[string]lockstep.FieldType{}
	var columns []string
	for k, v := range kinds {
		typed["IN_"+k] = v.typ
		columns = append(columns, v.column)
	}
	w.labels(typed)
	for k, v := range kinds {
		w.twoWay("IN_"+k, v.column)
	}
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	full, empty, cleared := cols{}, cols{}, cols{}
	for k, v := range kinds {
		full[v.column], empty[v.column], cleared["IN_"+k] = v.value, nil, nil
	}
	ann, ben, cleo := w.cast("contact", "ann@stage.example", full), w.cast("contact", "ben@stage.example", empty), w.cast("contact", "cleo@stage.example", full)
	w.mail("POST", "/v2/contacts", cols{"email": "cleo@stage.example"}, nil) // there already, with nothing filled in
	w.join(l, ann, ben, cleo)
	w.sync()
	check := func(when, id string, filled bool) {
		t.Helper()
		r := w.record("contact", id, strings.Join(columns, ","))
		for _, v := range kinds {
			if got := r.str(v.column); filled && got != v.there && got+"000" != v.there || !filled && r[v.column] != nil {
				t.Errorf("%s: %s is %v, filled %t", when, v.column, r[v.column], filled)
			}
		}
	}
	unchanged := func(when string) {
		t.Helper()
		if r := w.record("contact", ben, strings.Join(columns, ",")); r["numberofchildren"] != nil || r["creditlimit"] != nil || r["anniversary"] != nil || r["nickname"] != nil || r["familystatuscode"] != nil {
			t.Errorf("%s: %v", when, r)
		}
	}
	check("first sync, full", ann, true)
	unchanged("first sync, empty")
	check("first sync, empty on the platform", cleo, true)
	w.editContact("ben@stage.example", cols{"FIRSTNAME": "Ben"}) // an edit that has nothing to do with them
	w.sync()
	unchanged("another field was edited")
	w.twins.Clock.Advance(3 * time.Second)
	w.editContact("ann@stage.example", cleared)
	w.sync()
	r := w.record("contact", ann, strings.Join(columns, ","))
	for _, v := range kinds {
		if got := r[v.column]; got != nil {
			t.Errorf("cleared on the platform: %s is %v", v.column, got)
		}
	}
	w.quiet()
}

// A row that the platform refuses is told, not counted as written, and written once
// the record was corrected; the other rows go through.
func TestCB10RefusedRowsAreReportedAndRetried(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ids := map[string]string{}
	for _, who := range []string{"ann", "ben", "cleo"} {
		ids[who] = w.cast("contact", who+"@stage.example")
		w.join(l, ids[who])
	}
	refuse := func() {
		t.Helper()
		if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "row-poison", Operation: "contacts.import", Args: json.RawMessage(`{"email":"ben@stage.example"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	refuse()
	run := w.sync()
	w.told(run, lockstep.FindingRejected, ids["ben"])
	if c := run.Counts; c.ContactsCreated != 2 || c.Written != 2 || c.Rejected != 1 || run.Status != lockstep.RunCompletedWithErrors {
		t.Errorf("status %s, counts %+v", run.Status, c)
	}
	w.wantIn("one refused", l, "ann", "cleo")
	w.twins.Faults.Clear()
	w.editRecord("contact", ids["ben"], cols{"jobtitle": "Corrected"})
	w.sync()
	w.wantIn("corrected", l, "ann", "ben", "cleo")
	// Refused later, as an update: the old value stays and the new one follows.
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: "row-poison", Operation: "contacts.import"}); err != nil {
		t.Fatal(err)
	}
	w.editRecord("contact", ids["ben"], cols{"jobtitle": "Refused"})
	run = w.sync()
	w.told(run, lockstep.FindingRejected, ids["ben"])
	if c := run.Counts; c.ContactsUpdated != 0 || c.Written != 0 || c.Rejected != 1 {
		t.Errorf("counts %+v", c)
	}
	w.twins.Faults.Clear()
	w.editRecord("contact", ids["ben"], cols{"address1_city": "Oslo"})
	w.sync()
	if c := w.contact("ben@stage.example"); c.DataFields["JOBTITLE"] != "Refused" || c.DataFields["CITY"] != "Oslo" {
		t.Errorf("afterwards %+v", c.DataFields)
	}
	w.quiet()
}

// A row that the CRM refuses is told, and the difference is not forgotten.
func TestRefusedByTheCRM(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann, ben := w.cast("contact", "ann@stage.example"), w.cast("contact", "ben@stage.example")
	w.join(l, ann, ben)
	w.sync()
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "row-poison", Args: json.RawMessage(`{"id":"` + ann + `"}`)}); err != nil {
		t.Fatal(err)
	}
	w.editContact("ann@stage.example", cols{"JOBTITLE": "Refused"})
	w.editContact("ben@stage.example", cols{"JOBTITLE": "Taken"})
	run := w.sync()
	w.told(run, lockstep.FindingRejected, ann)
	if got := w.record("contact", ben, "jobtitle").str("jobtitle"); got != "Taken" {
		t.Errorf("Ben's neighbour's refusal held his edit back: %q", got)
	}
	w.twins.Faults.Clear()
	w.editContact("ann@stage.example", cols{"FIRSTNAME": "Ann"})
	w.sync()
	if r := w.record("contact", ann, "jobtitle,firstname"); r.str("jobtitle") != "Refused" || r.str("firstname") != "Ann" {
		t.Errorf("afterwards %v", r)
	}
	w.sync()
	w.quiet()
}

func TestCB28LabelIsMappableOnceItExistsOnThePlatform(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	ctx := t.Context()
	if _, err := w.app.SaveLabel(ctx, lockstep.DataLabel{Account: w.account.ID, Name: "nick name", Type: lockstep.FieldText}); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a malformed name was taken: %v", err)
	}
	if _, err := w.app.SaveLabel(ctx, lockstep.DataLabel{Account: w.account.ID, Name: "NICK", Type: lockstep.FieldText}); err != nil {
		t.Fatal(err)
	}
	m := lockstep.DataMapping{Account: w.account.ID, Label: "NICK", Table: "contact", Column: "nickname", Direction: lockstep.ToPlatform}
	if _, err := w.app.SaveMapping(ctx, m); lockstep.CodeOf(err) != lockstep.CodeInvalid || lockstep.AsError(err).Field != "label" {
		t.Errorf("mapped although the platform does not have it: %v", err)
	}
	w.run(lockstep.SyncDataLabels)
	if _, err := w.app.SaveMapping(ctx, m); err != nil {
		t.Errorf("not mappable after the sync: %v", err)
	}
	// A field made on the platform becomes a label that can be mapped at once.
	w.mail("POST", "/v2/data-fields", cols{"name": "SHOE_SIZE", "type": "Numeric", "visibility": "Private"}, nil)
	w.run(lockstep.SyncDataLabels)
	m.Label, m.Column = "SHOE_SIZE", "numberofchildren"
	if _, err := w.app.SaveMapping(ctx, m); err != nil {
		t.Errorf("a field of the platform is not mappable: %v", err)
	}
}

func TestCB29MappingsOfTheWrongTypeAreRefused(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{"X_TEXT": lockstep.FieldText, "X_NUMBER": lockstep.FieldNumber, "X_DATE": lockstep.FieldDate, "X_BOOL": lockstep.FieldBool})
	out, in := lockstep.ToPlatform, lockstep.ToCRM
	fits := map[string][]lockstep.Direction{ // label column → directions that fit
		"X_TEXT nickname": {out, in}, "X_TEXT numberofchildren": {out}, "X_TEXT birthdate": {out}, "X_TEXT creditonhold": {out},
		"X_TEXT familystatuscode": {out, in}, "X_TEXT parentcustomerid": {out}, "X_TEXT creditlimit": {out}, "X_TEXT contactid": {out},
		"X_NUMBER nickname": {}, "X_NUMBER numberofchildren": {out, in}, "X_NUMBER creditlimit": {out, in}, "X_NUMBER birthdate": {}, "X_NUMBER creditonhold": {},
		"X_NUMBER familystatuscode": {out, in}, "X_NUMBER parentcustomerid": {},
		"X_DATE nickname": {}, "X_DATE birthdate": {out, in}, "X_DATE numberofchildren": {}, "X_DATE createdon": {out},
		"X_BOOL nickname": {}, "X_BOOL creditonhold": {out, in}, "X_BOOL numberofchildren": {}, "X_BOOL familystatuscode": {},
		"X_TEXT nosuchcolumn": {}, "NO_SUCH_LABEL nickname": {}, "X_TEXT fullname": {out},
	}
	for what, ways := range fits {
		label, column, _ := strings.Cut(what, " ")
		for _, way := range []lockstep.Direction{out, in} {
			saved, err := w.app.SaveMapping(t.Context(), lockstep.DataMapping{Account: w.account.ID, Label: label, Table: "contact", Column: column, Direction: way})
			want := len(ways) == 2 || len(ways) == 1 && ways[0] == way
			if (err == nil) != want {
				t.Errorf("%s to %s, %s: %v, want it to fit: %t", label, column, way, err, want)
			}
			code := lockstep.CodeOf(err)
			if err != nil && (code != lockstep.CodeInvalid && code != lockstep.CodeNotFound || lockstep.AsError(err).Msg == "") {
				t.Errorf("%s to %s, %s: an unclear refusal: %v", label, column, way, err)
			}
			if err == nil {
				if err := w.app.DeleteMapping(t.Context(), saved.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// The same label twice in one direction, or two CRM columns for one label.
	if _, err := w.app.SaveMapping(t.Context(), lockstep.DataMapping{Account: w.account.ID, Label: "JOBTITLE", Table: "contact", Column: "nickname", Direction: out}); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("a label was mapped twice in one direction: %v", err)
	}
	// What lies behind a lookup never flows in.
	if _, err := w.app.SaveMapping(t.Context(), lockstep.DataMapping{Account: w.account.ID, Label: "X_TEXT", Table: "contact", Column: "parentcustomerid.name", Direction: in}); err == nil {
		t.Error("a looked-up column was mapped into the CRM")
	}
}
