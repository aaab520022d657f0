package dataverse

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const prefRep = "return=representation"

func TestCreateAnswers(t *testing.T) {
	w := newWorld(t)
	r := w.do("POST", "contacts", `{"lastname":"King"}`).must(204)
	if len(r.body) != 0 || !strings.HasPrefix(r.header.Get("OData-EntityId"), w.api+"contacts(") || r.header.Get("Location") != r.header.Get("OData-EntityId") {
		t.Errorf("headers %v body %s", r.header, r.body)
	}
	if r.header.Get("OData-Version") != "4.0" {
		t.Errorf("OData-Version %q", r.header.Get("OData-Version"))
	}
	r = w.do("POST", "contacts?$select=lastname", `{"lastname":"Ray"}`, "Prefer", prefRep).must(201)
	got := r.json()
	if got["@odata.context"] != w.api+"$metadata#contacts(lastname)/$entity" || got["lastname"] != "Ray" || r.header.Get("Preference-Applied") != prefRep {
		t.Errorf("%s %v", r.body, r.header)
	}
	if r.header.Get("ETag") != got["@odata.etag"] || !strings.HasPrefix(r.header.Get("ETag"), `W/"`) {
		t.Errorf("etag %q %v", r.header.Get("ETag"), got["@odata.etag"])
	}
	id := got["contactid"].(string)
	w.do("POST", "contacts", `{"contactid":"`+id+`"}`).refused(412, "0x80040237")
	w.do("POST", "contacts", `{"contactid":"{`+strings.ToUpper(id)+`}"}`).refused(412, "0x80040237")
}

func TestUpsert(t *testing.T) {
	w := newWorld(t)
	const id = "22222222-0000-0000-0000-000000000002"
	w.do("PATCH", "contacts("+id+")", `{"lastname":"King"}`, "If-Match", "*").refused(404, "0x80040217")
	r := w.do("PATCH", "contacts("+id+")", `{"lastname":"King"}`).must(204)
	if got := r.header.Get("OData-EntityId"); got != w.api+"contacts("+id+")" {
		t.Errorf("entity id %q", got)
	}
	w.do("PATCH", "contacts("+id+")", `{"lastname":"Ray"}`, "Prefer", prefRep).must(200)
	w.do("PATCH", "contacts(33333333-0000-0000-0000-000000000003)", `{"lastname":"New"}`, "Prefer", prefRep).must(201)
	w.do("PATCH", "contacts("+id+")", `{"lastname":"Ray"}`, "If-None-Match", "*").refused(412, "0x80040237")
	w.do("PATCH", "contacts("+id+")", `{"lastname":"Ray"}`, "If-None-Match", "null").must(204)
	w.do("DELETE", "contacts("+id+")", "").must(204)
	w.do("DELETE", "contacts("+id+")", "").refused(404, "0x80040217")
	w.get("contacts("+id+")").refused(404, "0x80040217")
}

func TestConcurrency(t *testing.T) {
	w := newWorld(t)
	id := w.create("contacts", `{"lastname":"King"}`)
	one := w.get("contacts(" + id + ")").must(200).header.Get("ETag")
	w.get("contacts("+id+")", "If-None-Match", one).must(304)
	w.get("contacts("+id+")", "If-None-Match", "null").must(200)
	w.do("PATCH", "contacts("+id+")", `{"lastname":"King"}`, "If-Match", one).must(204)
	two := w.get("contacts(" + id + ")").must(200).header.Get("ETag")
	if one == two {
		t.Error("an update with equal values must make a new version")
	}
	w.do("PATCH", "contacts("+id+")", `{"lastname":"Ray"}`, "If-Match", one).refused(412, "0x80060882")
	w.do("DELETE", "contacts("+id+")", "", "If-Match", one).refused(412, "0x80060882")
	w.do("DELETE", "contacts("+id+")", "", "If-Match", two).must(204)
	other := w.create("accounts", `{"name":"Acme"}`)
	var v1, v2 int64
	fmt.Sscanf(two, `W/"%d"`, &v1)
	fmt.Sscanf(w.get("accounts("+other+")").header.Get("ETag"), `W/"%d"`, &v2)
	if v2 <= v1 {
		t.Errorf("versions must rise across tables: %d then %d", v1, v2)
	}
}

func TestValidation(t *testing.T) {
	w := newWorld(t)
	id := w.create("contacts", `{"lastname":"King"}`)
	account := w.create("accounts", `{"name":"Acme"}`)
	for _, tc := range []struct{ name, body, code string }{
		{"too long", `{"firstname":"` + strings.Repeat("x", 51) + `"}`, "0x80044331"},
		{"astral characters count twice", `{"firstname":"` + strings.Repeat("😀", 26) + `"}`, "0x80044331"},
		{"unknown option", `{"gendercode":7}`, "0x8004431A"},
		{"option as text", `{"gendercode":"1"}`, "0x80048d19"},
		{"unknown column", `{"shoesize":1}`, "0x80048d19"},
		{"wrong case", `{"FirstName":"A"}`, "0x80048d19"},
		{"lookup value", `{"_parentcustomerid_value":"` + account + `"}`, "0x80048d19"},
		{"number for boolean", `{"donotemail":1}`, "0x80048d19"},
		{"text for number", `{"numberofchildren":"3"}`, "0x80048d19"},
		{"range", `{"numberofchildren":-1}`, "0x8004432F"},
		{"money range", `{"creditlimit":-1}`, "0x80040317"},
		{"date with time", `{"birthdate":"1980-05-17T00:00:00Z"}`, "0x80048d19"},
		{"invalid status pair", `{"statecode":0,"statuscode":2}`, "0x80048408"},
		{"unknown status", `{"statuscode":9}`, "0x80048408"},
		{"bare nav of a polymorphic lookup", `{"parentcustomerid@odata.bind":"/accounts(` + account + `)"}`, "0x80048d19"},
		{"nav in wrong case", `{"ParentCustomerId_account@odata.bind":"/accounts(` + account + `)"}`, "0x80048d19"},
		{"nav of another table", `{"parentcustomerid_contact@odata.bind":"/accounts(` + account + `)"}`, "0x80048d19"},
		{"not JSON", `{"firstname":`, "0x80048d19"},
		{"property twice", `{"firstname":"a","firstname":"b"}`, "0x80048d19"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.t = t
			w.do("PATCH", "contacts("+id+")", tc.body, "If-Match", "*").refused(400, tc.code)
		})
	}
	w.t = t
	w.do("PATCH", "contacts("+id+")", `{"parentcustomerid_account@odata.bind":"/accounts(99999999-0000-0000-0000-000000000009)"}`).refused(404, "0x80040217")
	w.do("POST", "lists", `{"createdfromcode":2}`).refused(400, "0x80040200")
	w.do("POST", "contacts", `{"firstname":"No last name"}`).must(204)
	if got := w.get("contacts(" + id + ")?$select=firstname").json()["firstname"]; got != nil {
		t.Errorf("a refused write left %v", got)
	}
}

func TestComputedColumns(t *testing.T) {
	w := newWorld(t)
	account := w.create("accounts", `{"name":"Acme"}`)
	id := w.create("contacts", `{"firstname":"Ada","lastname":"King","fullname":"Someone Else","createdon":"2001-01-01T00:00:00Z",
		"parentcustomerid_account@odata.bind":"/accounts(`+account+`)","address1_line1":"1 High St","address1_city":"Bath","address1_country":"UK",
		"creditlimit":20000,"birthdate":"1980-05-17"}`)
	got := w.get("contacts(" + id + ")").must(200).json()
	want := map[string]any{
		"fullname": "Ada King", "createdon": "2026-03-01T10:00:00Z", "modifiedon": "2026-03-01T10:00:00Z", "_parentcustomerid_value": account, "_accountid_value": account,
		"address1_composite": "1 High St\r\nBath\r\nUK", "birthdate": "1980-05-17", "donotemail": false, "followemail": true, "merged": false, "firstname": "Ada", "suffix": nil,
		"_ownerid_value": got["_owninguser_value"],
	}
	for k, v := range want {
		if diff := cmp.Diff(v, got[k]); diff != "" {
			t.Errorf("%s: %s", k, diff)
		}
	}
	for _, money := range []string{"creditlimit", "creditlimit_base"} {
		if s := words(got[money]); s != "20000.0000" {
			t.Errorf("%s is %s", money, s)
		}
	}
	if got["_transactioncurrencyid_value"] == nil || got["exchangerate"] == nil || words(got["statecode"], got["statuscode"]) != "0 1" {
		t.Errorf("currency or state missing: %v %v %v", got["_transactioncurrencyid_value"], got["statecode"], got["statuscode"])
	}
	if _, ok := got["parentcustomerid"]; ok {
		t.Error("a lookup must not appear under its navigation name")
	}
	sel := w.get("contacts(" + id + ")?$select=creditlimit").json()
	if sel["_transactioncurrencyid_value"] == nil || sel["contactid"] != id || len(sel) != 5 {
		t.Errorf("selected %v", sel)
	}
	w.do("PATCH", "contacts("+id+")", `{"lastname":"Lovelace","statecode":1}`).must(204)
	got = w.get("contacts(" + id + ")?$select=fullname,statecode,statuscode").json()
	if got["fullname"] != "Ada Lovelace" || words(got["statecode"], got["statuscode"]) != "1 2" {
		t.Errorf("got %v", got)
	}
	w.do("PATCH", "contacts("+id+")", `{"statuscode":1,"firstname":"","parentcustomerid_account@odata.bind":null}`).must(204)
	got = w.get("contacts(" + id + ")?$select=fullname,firstname,statecode,_parentcustomerid_value").json()
	if got["fullname"] != "Lovelace" || got["firstname"] != nil || words(got["statecode"]) != "0" || got["_parentcustomerid_value"] != nil {
		t.Errorf("got %v", got)
	}
}

func TestAnnotations(t *testing.T) {
	w := newWorld(t)
	account := w.create("accounts", `{"name":"Acme"}`)
	w.create("contacts", `{"lastname":"King","gendercode":2,"donotemail":true,"creditlimit":1234.5,"parentcustomerid_account@odata.bind":"/accounts(`+account+`)"}`)
	const sel = "contacts?$select=lastname,gendercode,donotemail,creditlimit,_parentcustomerid_value,suffix&$count=true"
	plain := w.get(sel).must(200)
	if strings.Contains(string(plain.body), "@OData") || strings.Contains(string(plain.body), "@Microsoft") || plain.header.Get("Preference-Applied") != "" {
		t.Errorf("annotations without being asked: %s", plain.body)
	}
	r := w.get(sel, "Prefer", `odata.maxpagesize=2,odata.include-annotations="*"`).must(200)
	if got := r.header.Get("Preference-Applied"); got != `odata.maxpagesize=2, odata.include-annotations="*"` {
		t.Errorf("applied %q", got)
	}
	row := r.rows()[0]
	for k, v := range map[string]any{
		"gendercode@OData.Community.Display.V1.FormattedValue": "Female", "donotemail@OData.Community.Display.V1.FormattedValue": "Do Not Allow",
		"creditlimit@OData.Community.Display.V1.FormattedValue": "$1,234.50", "_parentcustomerid_value@OData.Community.Display.V1.FormattedValue": "Acme",
		"_parentcustomerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty": "parentcustomerid_account",
		"_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":            "account",
	} {
		if row[k] != v {
			t.Errorf("%s is %v, want %v", k, row[k], v)
		}
	}
	if _, ok := row["lastname@OData.Community.Display.V1.FormattedValue"]; ok {
		t.Error("texts have no formatted value")
	}
	if strings.Index(string(r.body), "gendercode@OData") > strings.Index(string(r.body), `"gendercode":`) {
		t.Error("annotations come before the property")
	}
	top := r.json()
	if words(top["@odata.count"], top["@Microsoft.Dynamics.CRM.totalrecordcount"], top["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"]) != "1 1 false" {
		t.Errorf("counts %v", top)
	}
	r = w.get(sel, "Prefer", `odata.include-annotations="OData.Community.Display.V1.FormattedValue"`).must(200)
	if strings.Contains(string(r.body), "lookuplogicalname") {
		t.Error("only the wanted annotations")
	}
}

func TestAlternateKey(t *testing.T) {
	w := newWorld(t)
	w.create("lsx_subscriptions", `{"lsx_name":"One","lsx_externalid":"A-1"}`)
	const by = "lsx_subscriptions(lsx_externalid='A-1')"
	w.get(by).refused(400, "0x80060890")
	w.do("POST", "EntityDefinitions(LogicalName='lsx_subscription')/Keys", `{"@odata.type":"Microsoft.Dynamics.CRM.EntityKeyMetadata","SchemaName":"lsx_External","KeyAttributes":["lsx_externalid"]}`).must(204)
	w.get(by).refused(400, "0x80060890")
	var seen []string
	for range 3 {
		seen = append(seen, w.get("EntityDefinitions(LogicalName='lsx_subscription')/Keys?$select=EntityKeyIndexStatus").rows()[0]["EntityKeyIndexStatus"].(string))
	}
	if diff := cmp.Diff([]string{"Pending", "InProgress", "Active"}, seen); diff != "" {
		t.Fatal(diff)
	}
	if got := w.get(by + "?$select=lsx_name").must(200).json()["lsx_name"]; got != "One" {
		t.Errorf("got %v", got)
	}
	w.get("lsx_subscriptions(lsx_externalid='B-2')").refused(404, "0x80060891")
	w.get("lsx_subscriptions(lsx_externalid='B%2F2')").refused(400, "0x80060888")
	w.do("PATCH", "lsx_subscriptions(lsx_externalid='B-2')", `{"lsx_name":"Two"}`, "If-Match", "*").refused(404, "0x80060891")
	r := w.do("PATCH", "lsx_subscriptions(lsx_externalid='B-2')", `{"lsx_name":"Two"}`).must(204)
	if got := r.header.Get("OData-EntityId"); got != w.api+"lsx_subscriptions(lsx_externalid='B-2')" {
		t.Errorf("the key form must be echoed, got %q", got)
	}
	w.do("PATCH", "lsx_subscriptions(lsx_externalid='B-2')", `{"lsx_name":"Two again","lsx_externalid":"Z"}`, "Prefer", prefRep).must(200)
	w.get("lsx_subscriptions(lsx_externalid='B-2')").must(200)
	w.do("POST", "lsx_subscriptions", `{"lsx_name":"Three","lsx_externalid":"a-1"}`).refused(412, "0x80060892")
	w.do("POST", "lsx_subscriptions", `{"lsx_name":"Null keys are free"}`).must(204)
	w.do("POST", "lsx_subscriptions", `{"lsx_name":"Null keys are free"}`).must(204)
	w.do("DELETE", by, "").must(204)

	w.create("accounts", `{"name":"Same"}`)
	w.create("accounts", `{"name":"same"}`)
	w.do("POST", "EntityDefinitions(LogicalName='account')/Keys", `{"SchemaName":"lsx_Name","KeyAttributes":["name"]}`).must(204)
	last := ""
	for range 3 {
		last = w.get("EntityDefinitions(LogicalName='account')/Keys").rows()[0]["EntityKeyIndexStatus"].(string)
	}
	if last != "Failed" {
		t.Errorf("a key over repeated values is %s", last)
	}
}

func TestPropertiesAndNavigation(t *testing.T) {
	w := newWorld(t)
	account := w.create("accounts", `{"name":"Acme"}`)
	id := w.create("contacts", `{"lastname":"King","parentcustomerid_account@odata.bind":"`+w.api+`accounts(`+account+`)"}`)
	if got := w.get("contacts(" + id + ")/lastname").must(200).json()["value"]; got != "King" {
		t.Errorf("got %v", got)
	}
	if got := string(w.get("contacts(" + id + ")/lastname/$value").must(200).body); got != "King" {
		t.Errorf("got %q", got)
	}
	w.get("contacts(" + id + ")/suffix").must(204)
	w.do("PUT", "contacts("+id+")/jobtitle", `{"value":"CTO"}`).must(204)
	if got := w.get("contacts(" + id + ")/jobtitle").json()["value"]; got != "CTO" {
		t.Errorf("got %v", got)
	}
	w.do("DELETE", "contacts("+id+")/jobtitle", "").must(204)
	w.get("contacts(" + id + ")/jobtitle").must(204)
	if got := w.get("contacts(" + id + ")/parentcustomerid_account?$select=name").must(200).json()["name"]; got != "Acme" {
		t.Errorf("got %v", got)
	}
	w.get("contacts(" + id + ")/parentcustomerid_contact").must(204)
	if got := w.get("contacts(" + id + ")/parentcustomerid_account/$ref").json()["@odata.id"]; got != w.api+"accounts("+account+")" {
		t.Errorf("got %v", got)
	}
	if rows := w.get("accounts(" + account + ")/contact_customer_accounts?$select=lastname").must(200).rows(); len(rows) != 1 || rows[0]["lastname"] != "King" {
		t.Errorf("rows %v", rows)
	}
	exp := w.get("contacts(" + id + ")?$select=lastname&$expand=parentcustomerid_account($select=name),parentcustomerid_contact($select=lastname)").must(200).json()
	if a, _ := exp["parentcustomerid_account"].(map[string]any); a["name"] != "Acme" || exp["parentcustomerid_contact"] != nil {
		t.Errorf("expanded %v", exp)
	}
	w.do("DELETE", "contacts("+id+")/parentcustomerid_account/$ref", "").must(204)
	w.do("POST", "accounts("+account+")/contact_customer_accounts/$ref", `{"@odata.id":"`+w.api+`contacts(`+id+`)"}`).must(204)
	w.do("PUT", "accounts("+account+")/primarycontactid/$ref", `{"@odata.id":"`+w.api+`contacts(`+id+`)"}`).must(204)
	w.do("DELETE", "accounts("+account+")", "").must(204)
	if got := w.get("contacts(" + id + ")?$select=_parentcustomerid_value,_accountid_value").json(); got["_parentcustomerid_value"] != nil || got["_accountid_value"] != nil {
		t.Errorf("the link must go with the account: %v", got)
	}
	deep := w.create("contacts", `{"lastname":"Deep","parentcustomerid_account":{"name":"Made in place"}}`)
	if got := w.get("contacts(" + deep + ")/parentcustomerid_account?$select=name").json()["name"]; got != "Made in place" {
		t.Errorf("deep insert: %v", got)
	}
	w.get("shoes").refused(404, "0x8006088A")
	w.get("contacts("+id+")/shoe").refused(404, "0x8006088A")
	w.do("PATCH", "contacts", `{}`).must(405)
	w.do("DELETE", "contacts", "").must(405)
}

func TestMergeAndQualify(t *testing.T) {
	w := newWorld(t)
	winner := w.create("contacts", `{"lastname":"Winner"}`)
	loser := w.create("contacts", `{"lastname":"Loser","emailaddress1":"l@x.org"}`)
	sub := w.create("lsx_subscriptions", `{"lsx_name":"S","lsx_ContactId@odata.bind":"/contacts(`+loser+`)"}`)
	ref := func(id string) string {
		return `{"@odata.type":"Microsoft.Dynamics.CRM.contact","contactid":"` + id + `"}`
	}
	w.do("POST", "Merge", `{"Target":`+ref(winner)+`,"Subordinate":`+ref(loser)+`,"UpdateContent":{"@odata.type":"Microsoft.Dynamics.CRM.contact","emailaddress1":"l@x.org"},"PerformParentingChecks":false}`).must(204)
	got := w.get("contacts(" + loser + ")?$select=merged,_masterid_value,statecode").json()
	if got["merged"] != true || got["_masterid_value"] != winner || words(got["statecode"]) != "1" {
		t.Errorf("loser %v", got)
	}
	if got := w.get("contacts(" + winner + ")?$select=emailaddress1").json()["emailaddress1"]; got != "l@x.org" {
		t.Errorf("winner %v", got)
	}
	if got := w.get("lsx_subscriptions(" + sub + ")?$select=_lsx_contactid_value").json()["_lsx_contactid_value"]; got != winner {
		t.Errorf("children stay at %v", got)
	}
	lead := w.create("leads", `{"firstname":"Lea","lastname":"Der","companyname":"Acme","emailaddress1":"lea@x.org","donotbulkemail":true}`)
	r := w.do("POST", "leads("+lead+")/Microsoft.Dynamics.CRM.QualifyLead", `{"CreateAccount":true,"CreateContact":true,"CreateOpportunity":false,"Status":3}`).must(200)
	if len(r.rows()) != 2 {
		t.Fatalf("made %s", r.body)
	}
	contact := w.get("contacts(" + r.rows()[1]["contactid"].(string) + ")").json()
	if contact["emailaddress1"] != "lea@x.org" || contact["donotbulkemail"] != true || contact["_originatingleadid_value"] != lead || contact["_parentcustomerid_value"] != r.rows()[0]["accountid"] {
		t.Errorf("contact %v", contact)
	}
	if got := w.get("leads(" + lead + ")?$select=statecode,statuscode").json(); words(got["statecode"], got["statuscode"]) != "1 3" {
		t.Errorf("lead %v", got)
	}
}

func TestErrorShapes(t *testing.T) {
	w := newWorld(t)
	r := w.get(w.url+"/api/data/v8.2/contacts(22222222-0000-0000-0000-000000000002)").refused(404, "0x80040217")
	if !strings.Contains(string(r.body), `"innererror"`) {
		t.Errorf("v8.2 carries innererror: %s", r.body)
	}
	r = w.get("contacts(22222222-0000-0000-0000-000000000002)").refused(404, "0x80040217")
	if strings.Contains(string(r.body), "innererror") || !strings.Contains(string(r.body), "contact With Id = 22222222-0000-0000-0000-000000000002 Does Not Exist") {
		t.Errorf("body %s", r.body)
	}
	for _, id := range []string{"REQ_ID", "X-Ms-Service-Request-Id"} {
		if r.header.Get(id) == "" && len(r.header[id]) == 0 {
			t.Errorf("header %s is missing: %v", id, r.header)
		}
	}
	w.get("contacts?sql="+url.QueryEscape("SELECT 1")).refused(http.StatusNotImplemented, "0x80040219")
	w.get("contacts?savedQuery=22222222-0000-0000-0000-000000000002").refused(http.StatusNotImplemented, "0x80040219")
	w.do("POST", "ImportSolution", `{}`).refused(http.StatusNotImplemented, "0x80040219")
	w.do("POST", "sdkmessageprocessingstepimages", `{}`).refused(http.StatusNotImplemented, "0x80040219")
	w.get("$metadata").refused(http.StatusNotImplemented, "0x80040219")
	w.get("contacts?$filter="+strings.Repeat("x", 33_000)).refused(400, "0x80060888")
}
