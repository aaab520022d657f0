package dotdigital

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

type importResult struct {
	Status  string
	Summary *struct {
		NewContacts, UpdatedContacts, GloballySuppressed, InvalidEntries, DuplicateIdentifiers int
	}
	Created, Updated []struct {
		ContactID   int64
		Identifiers map[string]any
	}
	Failures []struct {
		ContactID   int64
		Identifiers map[string]any
		Failures    []struct{ FailureCode, Description string }
	}
}

func (a *account) importRows(body string) importResult {
	a.t.Helper()
	id := a.call("PUT", "/contacts/v3/import", body).want(202).value("importId").(string)
	return a.importStatus(id)
}

func (a *account) importStatus(id string) importResult {
	a.t.Helper()
	var out importResult
	a.get("/contacts/v3/import/" + id).want(200).into(&out)
	return out
}

func TestImportCreatesUpdatesAndClears(t *testing.T) {
	a := open(t, Options{})
	if err := a.AddField("POINTS", Numeric); err != nil {
		t.Fatal(err)
	}
	list := a.addList("Newsletter")
	r := a.importRows(fmt.Sprintf(`{"contacts":[
		{"matchIdentifier":"email","identifiers":{"email":"Ann@Example.com"},"dataFields":{"firstName":"Ann \u00e9\n","POINTS":12.50},"lists":[%d],"channelProperties":{"email":{"emailType":"plainText","optInType":"single"}}},
		{"matchIdentifier":"email","identifiers":{"email":"bob@example.com"},"dataFields":{"FIRSTNAME":"Bob"}}]}`, list))
	if r.Status != "Finished" || r.Summary.NewContacts != 2 || len(r.Created) != 2 {
		t.Fatalf("import: %+v", r)
	}
	if got := r.Created[0].Identifiers["email"]; got != "Ann@Example.com" {
		t.Errorf("created[0] names %v", got)
	}
	ann, _ := a.FindContact("ann@example.com")
	want := map[string]string{"FIRSTNAME": `"Ann é\n"`, "POINTS": "12.5"}
	if d := cmp.Diff(want, ann.Values); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int64{ann.ID}, a.Members(list)); d != "" {
		t.Error(d)
	}

	a.time.Advance(time.Hour)
	r = a.importRows(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"ann@example.com"},"dataFields":{"FIRSTNAME":null,"POINTS":7}}]}`)
	if r.Summary.UpdatedContacts != 1 || r.Updated[0].ContactID != ann.ID {
		t.Fatalf("update: %+v", r)
	}
	ann, _ = a.FindContact("ann@example.com")
	if d := cmp.Diff(map[string]string{"POINTS": "7"}, ann.Values); d != "" {
		t.Error(d)
	}
	if !ann.Updated.Equal(epoch.Add(time.Hour)) || !ann.Created.Equal(epoch) {
		t.Errorf("created %v updated %v", ann.Created, ann.Updated)
	}
}

func TestImportMergeOptions(t *testing.T) {
	for option, want := range map[string]map[string]string{
		"overwrite":           {"LASTNAME": `"new"`, "GENDER": `"new"`},
		"overwriteIfNotEmpty": {"FIRSTNAME": `"old"`, "LASTNAME": `"new"`, "GENDER": `"new"`},
		"overwriteIfEmpty":    {"FIRSTNAME": `"old"`, "LASTNAME": `"old"`, "GENDER": `"new"`},
	} {
		a := open(t, Options{})
		a.add(NewContact{Email: "a@example.com", Values: []Value{{"FIRSTNAME", "old"}, {"LASTNAME", "old"}}})
		a.importRows(`{"mergeOption":"` + option + `","contacts":[{"matchIdentifier":"email","identifiers":{"email":"a@example.com"},
			"dataFields":{"FIRSTNAME":null,"LASTNAME":"new","GENDER":"new"}}]}`)
		got, _ := a.FindContact("a@example.com")
		if d := cmp.Diff(want, got.Values); d != "" {
			t.Errorf("%s: %s", option, d)
		}
	}
}

func TestImportFailures(t *testing.T) {
	a := open(t, Options{SuppressedDomains: []string{"blocked.example"}})
	for _, f := range []struct {
		name string
		typ  FieldType
	}{{"POINTS", Numeric}, {"BORN", Date}, {"VIP", Boolean}} {
		if err := a.AddField(f.name, f.typ); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.AddCustomIdentifier("crmid"); err != nil {
		t.Fatal(err)
	}
	a.add(NewContact{Email: "taken@example.com", Mobile: "447700900123"})
	segment, err := a.AddSegment("Everyone", SegmentRule{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", 1001)
	row := func(more string) string {
		return `{"matchIdentifier":"email","identifiers":{"email":"x@example.com"},` + more + `}`
	}
	tests := []struct{ name, row, code string }{
		{"bad email", `{"matchIdentifier":"email","identifiers":{"email":"no at sign"}}`, "InvalidEmail"},
		{"no domain dot", `{"matchIdentifier":"email","identifiers":{"email":"a@localhost"}}`, "InvalidEmail"},
		{"no identifier", `{"matchIdentifier":"email","identifiers":{"mobileNumber":"447700900999"}}`, "NoValidIdentifiers"},
		{"identifiers missing", `{"matchIdentifier":"email"}`, "NoValidIdentifiers"},
		{"match missing", `{"identifiers":{"email":"x@example.com"}}`, "InvalidMatchIdentifier"},
		{"match unknown", `{"matchIdentifier":"passport","identifiers":{"email":"x@example.com","passport":"1"}}`, "InvalidMatchIdentifier"},
		{"contactId never creates", `{"matchIdentifier":"contactId","identifiers":{"contactId":99999,"email":"x@example.com"}}`, "InvalidContactId"},
		{"custom alone", `{"matchIdentifier":"crmid","identifiers":{"crmid":"1"}}`, "NoValidIdentifiers"},
		{"mobile with plus", `{"matchIdentifier":"mobileNumber","identifiers":{"mobileNumber":"+447700900124"}}`, "InvalidPhoneNumber"},
		{"email of another", `{"matchIdentifier":"mobileNumber","identifiers":{"mobileNumber":"447700900777","email":"TAKEN@example.com"}}`, "Duplicate"},
		{"blocked domain", `{"matchIdentifier":"email","identifiers":{"email":"x@Blocked.example"}}`, "SuppressedByDomain"},
		{"unknown field", row(`"dataFields":{"NOPE":1}`), "InvalidContact"},
		{"text for number", row(`"dataFields":{"POINTS":"12"}`), "InvalidContact"},
		{"19 digits", row(`"dataFields":{"POINTS":1234567890123456789}`), "InvalidContact"},
		{"10 decimals", row(`"dataFields":{"POINTS":0.1234567891}`), "InvalidContact"},
		{"number for text", row(`"dataFields":{"FIRSTNAME":1}`), "InvalidContact"},
		{"text for boolean", row(`"dataFields":{"VIP":"true"}`), "InvalidContact"},
		{"no date", row(`"dataFields":{"BORN":"2024-02-30"}`), "InvalidContact"},
		{"1001 characters", row(`"dataFields":{"FIRSTNAME":"` + long + `"}`), "InvalidContact"},
		{"system field", row(`"dataFields":{"LASTSUBSCRIBED":"2024-01-01T00:00:00Z"}`), "InvalidContact"},
		{"closed channel object", row(`"channelProperties":{"email":{"colour":"red"}}`), "ApiSchemaViolation"},
		{"status", row(`"channelProperties":{"email":{"status":"deleted"}}`), "InvalidContactStatus"},
		{"101 lists", row(`"lists":[` + strings.Repeat("3,", 100) + `3]`), "ApiSchemaViolation"},
		{"not an object", `7`, "ApiSchemaViolation"},
	}
	for _, tt := range tests {
		r := a.importRows(`{"contacts":[` + tt.row + `]}`)
		if len(r.Failures) != 1 || r.Failures[0].Failures[0].FailureCode != tt.code || r.Summary.NewContacts+r.Summary.UpdatedContacts != 0 {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	for name, lists := range map[string]string{"unknown list": "999", "system list": "1", "segment": fmt.Sprint(segment)} {
		r := a.importRows(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"taken@example.com"},"lists":[` + lists + `]}]}`)
		if r.Summary.UpdatedContacts != 1 || len(r.Failures) != 1 || r.Failures[0].Failures[0].FailureCode != "InvalidAddressBookIds" || r.Failures[0].ContactID == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := a.importRows(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"two@example.com"}},{"matchIdentifier":"email","identifiers":{"email":"TWO@example.com"}}]}`)
	if r.Summary.NewContacts != 1 || r.Summary.DuplicateIdentifiers != 1 {
		t.Errorf("twice in one import: %+v", r)
	}
}

func TestImportRequestsRefused(t *testing.T) {
	a := open(t, Options{MaxActiveImports: 2, ImportTime: time.Minute})
	for body, want := range map[string]string{
		`{"contacts":[`:                       "contacts:badJson",
		`{"contacts":[]}`:                     "contacts:noContactsSpecified",
		`{}`:                                  "contacts:noContactsSpecified",
		`[]`:                                  "contacts:badRequest",
		`{"contacts":[{}],"mergeOption":"x"}`: "contacts:badRequest",
		"{\"contacts\":[{\"a\":\"\xff\"}]}":   "contacts:badJson",
	} {
		a.call("PUT", "/contacts/v3/import", body).want(400, want)
	}
	a.get("/contacts/v3/import/nope").want(404, "contacts:importNotFound")
	one := `{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"x@example.com"}}]}`
	id := a.call("PUT", "/contacts/v3/import", one).want(202).value("importId").(string)
	a.call("POST", "/v2/contacts/import-collection", `{"contacts":[{"email":"y@example.com"}]}`).want(202)
	a.call("PUT", "/contacts/v3/import", one).want(429, "contacts:tooManyActiveImports")
	a.call("POST", "/v2/contacts/import-collection", `{"contacts":[{"email":"y@example.com"}]}`).want(400, "ERROR_IMPORT_TOOMANYACTIVEIMPORTS")
	if r := a.importStatus(id); r.Status != "NotFinished" || r.Summary != nil || r.Created != nil {
		t.Errorf("unfinished: %+v", r)
	}
	a.time.Advance(time.Minute)
	if r := a.importStatus(id); r.Status != "Finished" || r.Summary.NewContacts != 1 {
		t.Errorf("finished: %+v", r)
	}
	a.call("PUT", "/contacts/v3/import", one).want(202)
}

func TestImportStoresButDoesNotSubscribeSuppressed(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	a.add(NewContact{Email: "out@example.com", Status: "Unsubscribed"})
	a.add(NewContact{Email: "complained@example.com", Status: "IspComplained"})
	r := a.importRows(fmt.Sprintf(`{"contacts":[
		{"matchIdentifier":"email","identifiers":{"email":"out@example.com"},"dataFields":{"FIRSTNAME":"Out"},"lists":[%d]},
		{"matchIdentifier":"email","identifiers":{"email":"complained@example.com"},"channelProperties":{"email":{"status":"subscribed"}}}]}`, list))
	if r.Summary.UpdatedContacts != 2 || r.Summary.GloballySuppressed != 2 || len(r.Failures) != 2 {
		t.Fatalf("%+v", r)
	}
	out, _ := a.FindContact("out@example.com")
	if out.Status != "Unsubscribed" || out.Values["FIRSTNAME"] != `"Out"` || out.Lists != nil {
		t.Errorf("%+v", out)
	}
	a.time.Advance(time.Hour)
	a.importRows(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"out@example.com"},"channelProperties":{"email":{"status":"subscribed","resubscribeOptions":{"resubscribeWithNoChallenge":false}}}}]}`)
	if out, _ = a.FindContact("out@example.com"); out.Status != "Unsubscribed" {
		t.Errorf("challenged contact is %s", out.Status)
	}
	if !a.Confirm("out@example.com") {
		t.Error("no challenge was waiting")
	}
	if out, _ = a.FindContact("out@example.com"); out.Status != "Subscribed" || !out.Subscribed.Equal(epoch.Add(time.Hour)) {
		t.Errorf("%+v", out)
	}
}

// oneFault fires one kind for every call.
type oneFault struct {
	fault.None
	kind, args string
}

func (f oneFault) Take(_, kind, _ string) (fault.Hit, bool) {
	return fault.Hit{Kind: kind, Args: []byte(f.args)}, kind == f.kind
}

func TestImportFaults(t *testing.T) {
	rows := make([]string, 20)
	for k := range rows {
		rows[k] = fmt.Sprintf(`{"matchIdentifier":"email","identifiers":{"email":"p%d@example.com"}}`, k)
	}
	body := `{"contacts":[` + strings.Join(rows, ",") + `]}`
	for args, check := range map[string]func(importResult) bool{
		`{"share":0.25}`:      func(r importResult) bool { return r.Summary.NewContacts == 15 && r.Summary.InvalidEntries == 5 },
		`{"mode":"stuck"}`:    func(r importResult) bool { return r.Status == "NotFinished" },
		`{"mode":"watchdog"}`: func(r importResult) bool { return r.Status == "RejectedByWatchdog" },
		`{"mode":"no-report"}`: func(r importResult) bool {
			return r.Status == "Finished" && r.Summary == nil && r.Created == nil
		},
	} {
		a := open(t, Options{Faults: oneFault{kind: "bulk-partial", args: args}})
		if r := a.importRows(body); !check(r) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	a := open(t, Options{Faults: oneFault{kind: "bulk-partial", args: `{"mode":"lost"}`}})
	id := a.call("PUT", "/contacts/v3/import", body).want(202).value("importId").(string)
	a.get("/contacts/v3/import/"+id).want(404, "contacts:importNotFound")

	a = open(t, Options{Faults: oneFault{kind: "too-many-imports"}})
	a.call("PUT", "/contacts/v3/import", body).want(429, "contacts:tooManyActiveImports")

	a = open(t, Options{Faults: oneFault{kind: "row-poison", args: `{"email":"P7@example.com","code":"Blocker"}`}})
	r := a.importRows(body)
	if len(r.Failures) != 1 || r.Failures[0].Identifiers["email"] != "p7@example.com" || r.Failures[0].Failures[0].FailureCode != "Blocker" {
		t.Errorf("%+v", r)
	}
	a = open(t, Options{ContactAllowance: 10})
	if r := a.importRows(body); r.Status != "ExceedsAllowedContactLimit" {
		t.Errorf("%+v", r)
	}
}
