package dataverse

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

func TestAuthentication(t *testing.T) {
	w := newWorld(t)
	challenge := "Bearer authorization_uri=http://login.invalid/" + testTenant + "/oauth2/authorize, resource_id=" + w.url + "/"
	for _, token := range []string{"", "Basic x", "Bearer nonsense", "Bearer " + testApp + "|expired", "Bearer " + testApp + "|audience", "Bearer " + testApp + "|tenant"} {
		for _, path := range []string{"WhoAmI", "", "contacts", "$batch"} {
			r := w.get(path, "Authorization", token).must(401)
			if got := r.header.Get("WWW-Authenticate"); got != challenge {
				t.Fatalf("%q: %q, want %q", token, got, challenge)
			}
		}
	}
	as := func(app string) []string { return []string{"Authorization", "Bearer " + app + "|ok"} }
	w.get("WhoAmI", as(otherApp)...).refused(403, "0x80072560")
	if _, err := w.s.AddApplicationUser(AppUser{ClientID: otherApp, NoRole: true}); err != nil {
		t.Fatal(err)
	}
	w.get("WhoAmI", as(otherApp)...).refused(403, "0x80042F09")
	id, err := w.s.AddApplicationUser(AppUser{ClientID: otherApp, Disabled: true})
	if err != nil {
		t.Fatal(err)
	}
	w.get("WhoAmI", as(otherApp)...).refused(403, "0x80040225")
	w.do("PATCH", "systemusers("+id+")", `{"isdisabled":false}`).must(204)
	if got := w.get("WhoAmI()", as(otherApp)...).must(200).json()["UserId"]; got != id {
		t.Errorf("user %v, want %s", got, id)
	}
	if err := w.faults.Add(fault.Fault{Kind: "token-expire", Count: 1}); err != nil {
		t.Fatal(err)
	}
	w.get("WhoAmI").must(401)
	w.get("WhoAmI").must(200)
}

func TestPrivileges(t *testing.T) {
	w := newWorld(t)
	id := w.create("contacts", `{"lastname":"King"}`)
	account := w.create("accounts", `{"name":"Acme"}`)
	list := w.create("lists", `{"listname":"L","createdfromcode":2}`)
	for _, tc := range []struct {
		privilege, method, path, body string
	}{
		{"prvReadContact", "GET", "contacts?$top=1", ""},
		{"prvReadContact", "GET", "contacts(" + id + ")", ""},
		{"prvReadContact", "GET", "contacts/$count", ""},
		{"prvCreateContact", "POST", "contacts", `{"lastname":"x"}`},
		{"prvWriteContact", "PATCH", "contacts(" + id + ")", `{"lastname":"x"}`},
		{"prvDeleteContact", "DELETE", "contacts(" + id + ")", ""},
		{"prvAppendContact", "PATCH", "contacts(" + id + ")", `{"parentcustomerid_account@odata.bind":"/accounts(` + account + `)"}`},
		{"prvAppendToAccount", "PATCH", "contacts(" + id + ")", `{"parentcustomerid_account@odata.bind":"/accounts(` + account + `)"}`},
		{"prvWriteList", "POST", "lists(" + list + ")/Microsoft.Dynamics.CRM.AddMemberList", `{"EntityId":"` + id + `"}`},
		{"prvReadList", "GET", "listmembers", ""},
		{"prvReadEntity", "GET", "EntityDefinitions?$select=LogicalName", ""},
		{"prvCreateAttribute", "POST", "EntityDefinitions(LogicalName='contact')/Attributes", `{}`},
	} {
		if err := w.s.SetPrivilege(testApp, tc.privilege, false); err != nil {
			t.Fatal(err)
		}
		r := w.do(tc.method, tc.path, tc.body).refused(403, "0x80040220")
		if !strings.Contains(string(r.body), tc.privilege) {
			t.Errorf("the message must name %s: %s", tc.privilege, r.body)
		}
		if err := w.s.SetPrivilege(testApp, tc.privilege, true); err != nil {
			t.Fatal(err)
		}
	}
	w.get("contacts?$top=1").must(200)
	w.do("POST", "roles", `{"name":"Small","businessunitid@odata.bind":"/businessunits(`+w.s.org.rootUnit.String()+`)"}`).must(204)
	role := w.get("roles?$filter=name%20eq%20'Small'").rows()[0]["roleid"].(string)
	base := len(w.get("roles(" + role + ")/roleprivileges_association?$select=name").must(200).rows())
	if base != 9 {
		t.Errorf("a new role has %d privileges", base)
	}
	priv := w.get("privileges?$select=privilegeid,name&$filter=name%20eq%20'prvReadContact'").must(200).rows()[0]["privilegeid"]
	w.do("POST", "roles("+role+")/Microsoft.Dynamics.CRM.AddPrivilegesRole", fmt.Sprintf(`{"Privileges":[{"Depth":"Global","PrivilegeId":%q,"BusinessUnitId":%q,"PrivilegeName":"prvReadContact"}]}`, priv, w.s.org.rootUnit)).must(204)
	user := w.create("systemusers", `{"applicationid":"`+otherApp+`","businessunitid@odata.bind":"/businessunits(`+w.s.org.rootUnit.String()+`)"}`)
	w.do("POST", "systemusers("+user+")/systemuserroles_association/$ref", `{"@odata.id":"`+w.api+`roles(`+role+`)"}`).must(204)
	other := []string{"Authorization", "Bearer " + otherApp + "|ok"}
	w.get("contacts?$top=1", other...).must(200)
	w.do("POST", "contacts", `{}`, other...).refused(403, "0x80040220")
	w.do("DELETE", "systemusers("+user+")/systemuserroles_association("+role+")/$ref", "").must(204)
	w.get("contacts?$top=1", other...).refused(403, "0x80042F09")
}

func TestImpersonation(t *testing.T) {
	w := newWorld(t)
	user, err := w.s.AddApplicationUser(AppUser{ClientID: otherApp, Only: []string{"prvCreateContact", "prvReadContact"}})
	if err != nil {
		t.Fatal(err)
	}
	r := w.do("POST", "contacts", `{"lastname":"x"}`, "MSCRMCallerID", user, "Prefer", prefRep).must(201).json()
	if r["_createdby_value"] != user || r["_createdonbehalfby_value"] == nil || r["_ownerid_value"] != user {
		t.Errorf("row %v", r)
	}
	w.do("POST", "accounts", `{"name":"x"}`, "MSCRMCallerID", user).refused(403, "0x80040220")
	if err := w.s.SetPrivilege(testApp, "prvActOnBehalfOfAnotherUser", false); err != nil {
		t.Fatal(err)
	}
	w.do("POST", "contacts", `{"lastname":"x"}`, "MSCRMCallerID", user).refused(403, "0x8004A110")
}

func TestIdentity(t *testing.T) {
	w := newWorld(t)
	if got := w.get("RetrieveVersion()").must(200).json()["Version"]; !strings.HasPrefix(got.(string), "9.2.") {
		t.Errorf("version %v", got)
	}
	d := w.get("RetrieveCurrentOrganization(AccessType=@p)?@p=Microsoft.Dynamics.CRM.EndpointAccessType'Default'").must(200).json()["Detail"].(map[string]any)
	if d["OrganizationId"] != w.s.OrganizationID() || d["State"] != "Enabled" {
		t.Errorf("detail %v", d)
	}
	org := w.get("organizations(" + w.s.OrganizationID() + ")?$select=name,languagecode,expirechangetrackingindays").must(200).json()
	if words(org["name"], org["languagecode"], org["expirechangetrackingindays"]) != "Contoso 1033 7" {
		t.Errorf("org %v", org)
	}
	w.do("POST", "WhoAmI", "{}").must(405)
	w.get("WhoAmI2").refused(404, "0x8006088A")
	w.get(w.url + "/api/discovery/v2.0/Instances").must(403)
	object := "7d0a3c1e-0000-4000-8000-0000000000cc"
	if _, err := w.s.AddApplicationUser(AppUser{ClientID: otherApp, ObjectID: object}); err != nil {
		t.Fatal(err)
	}
	rows := w.get(w.url+"/api/discovery/v2.0/Instances", "Authorization", "Bearer "+object+"|user").must(200).rows()
	if len(rows) != 1 || rows[0]["Url"] != w.url || rows[0]["Id"] != w.s.OrganizationID() {
		t.Errorf("instances %v", rows)
	}
}

func TestMetadataRead(t *testing.T) {
	w := newWorld(t)
	all := w.get("EntityDefinitions?$select=LogicalName,EntitySetName,ChangeTrackingEnabled&$filter=ChangeTrackingEnabled%20eq%20true%20and%20IsIntersect%20eq%20false").must(200).rows()
	found := map[any]any{}
	for _, e := range all {
		found[e["LogicalName"]] = e["EntitySetName"]
		if e["MetadataId"] == nil || len(e) != 4 {
			t.Fatalf("entity %v", e)
		}
	}
	if found["contact"] != "contacts" || found["listmember"] != nil || found["lsx_subscription"] != "lsx_subscriptions" {
		t.Errorf("tables %v", found)
	}
	w.get("EntityDefinitions?$top=1").refused(400, "0x80060888")
	e := w.get("EntityDefinitions(LogicalName='contact')?$select=LogicalName,ObjectTypeCode,DisplayName&$expand=Attributes($select=LogicalName,AttributeType;$filter=LogicalName%20eq%20'emailaddress1'),Keys").must(200).json()
	attrs := e["Attributes"].([]any)
	if words(e["ObjectTypeCode"]) != "2" || len(attrs) != 1 || e["Keys"] == nil {
		t.Errorf("entity %v", e)
	}
	if got := string(w.get("EntityDefinitions(" + e["MetadataId"].(string) + ")/ObjectTypeCode/$value").must(200).body); got != "2" {
		t.Errorf("code %q", got)
	}
	expanded := w.get("EntityDefinitions(LogicalName='contact')?$expand=Attributes").must(200)
	if strings.Contains(string(expanded.body), `"MaxLength"`) || strings.Contains(string(expanded.body), `"OptionSet"`) {
		t.Error("$expand=Attributes has base properties only")
	}
	mail := w.get("EntityDefinitions(LogicalName='contact')/Attributes(LogicalName='emailaddress1')").must(200).json()
	if words(mail["@odata.type"], mail["MaxLength"], mail["AttributeType"], mail["FormatName"]) != "#Microsoft.Dynamics.CRM.StringAttributeMetadata 100 String map[Value:Email]" {
		t.Errorf("column %v", mail)
	}
	pick := w.get("EntityDefinitions(LogicalName='contact')/Attributes/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet($select=Options,Name),GlobalOptionSet($select=Options)").must(200).rows()
	gender := map[string]any{}
	for _, p := range pick {
		if p["LogicalName"] == "gendercode" {
			gender = p["OptionSet"].(map[string]any)
		}
	}
	options, _ := gender["Options"].([]any)
	if len(options) != 2 || words(options[1].(map[string]any)["Value"]) != "2" {
		t.Errorf("options %v", gender)
	}
	w.get("EntityDefinitions(LogicalName='contact')/Attributes/Microsoft.Dynamics.CRM.EnumAttributeMetadata").must(400)
	status := w.get("EntityDefinitions(LogicalName='list')/Attributes(LogicalName='statuscode')/Microsoft.Dynamics.CRM.StatusAttributeMetadata?$expand=OptionSet").must(200).json()
	first := status["OptionSet"].(map[string]any)["Options"].([]any)[0].(map[string]any)
	if words(first["Value"], first["State"]) != "0 0" {
		t.Errorf("status %v", first)
	}
	rels := w.get("EntityDefinitions(LogicalName='contact')/ManyToOneRelationships?$select=ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName&$filter=ReferencingAttribute%20eq%20'parentcustomerid'").must(200).rows()
	navs := map[any]any{}
	for _, r := range rels {
		navs[r["ReferencedEntity"]] = r["ReferencingEntityNavigationPropertyName"]
	}
	if diff := cmp.Diff(map[any]any{"account": "parentcustomerid_account", "contact": "parentcustomerid_contact"}, navs); diff != "" {
		t.Error(diff)
	}
	many := w.get("EntityDefinitions(LogicalName='list')/ManyToManyRelationships?$select=SchemaName,IntersectEntityName").must(200).rows()
	if len(many) != 4 {
		t.Errorf("many to many %v", many)
	}
	w.get("RelationshipDefinitions(SchemaName='contact_customer_accounts')/Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata").must(200)
	w.do("PATCH", "EntityDefinitions(LogicalName='contact')", `{}`).must(405)
}

const lbl = `{"@odata.type":"Microsoft.Dynamics.CRM.Label","LocalizedLabels":[{"Label":"Text","LanguageCode":1033}]}`

func TestMetadataWrite(t *testing.T) {
	w := newWorld(t)
	version := func() string {
		return w.get("contacts?$top=1&$select=fullname", "Prefer", `odata.include-annotations="Microsoft.Dynamics.CRM.globalmetadataversion"`).json()["@Microsoft.Dynamics.CRM.globalmetadataversion"].(string)
	}
	before := version()
	r := w.do("POST", "EntityDefinitions", `{"@odata.type":"Microsoft.Dynamics.CRM.EntityMetadata","SchemaName":"lsk_Send","OwnershipType":"UserOwned","DisplayName":`+lbl+`,"DisplayCollectionName":`+lbl+`,"HasActivities":false,"HasNotes":false,
		"Attributes":[{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lsk_Name","IsPrimaryName":true,"MaxLength":200,"FormatName":{"Value":"Text"},"DisplayName":`+lbl+`}]}`).must(204)
	if !strings.Contains(r.header.Get("OData-EntityId"), "EntityDefinitions(") {
		t.Errorf("header %v", r.header)
	}
	w.do("POST", "EntityDefinitions", `{"@odata.type":"Microsoft.Dynamics.CRM.EntityMetadata","SchemaName":"lsk_Send","OwnershipType":"UserOwned","DisplayName":`+lbl+`,"DisplayCollectionName":`+lbl+`,
		"Attributes":[{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lsk_Name","IsPrimaryName":true,"MaxLength":200}]}`).refused(400, "0x8004022A")
	if version() == before {
		t.Error("the metadata version must move")
	}
	set := w.get("EntityDefinitions(LogicalName='lsk_send')?$select=EntitySetName").must(200).json()["EntitySetName"].(string)
	const attributes = "EntityDefinitions(LogicalName='lsk_send')/Attributes"
	for _, body := range []string{
		`{"@odata.type":"Microsoft.Dynamics.CRM.IntegerAttributeMetadata","SchemaName":"lsk_Clicks","MinValue":0,"MaxValue":100,"Format":"None","DisplayName":` + lbl + `}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.MoneyAttributeMetadata","SchemaName":"lsk_Value","MinValue":0,"MaxValue":100,"Precision":2,"PrecisionSource":1}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.DateTimeAttributeMetadata","SchemaName":"lsk_SentOn","Format":"DateAndTime","DateTimeBehavior":{"Value":"UserLocal"}}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.BooleanAttributeMetadata","SchemaName":"lsk_Opened","DefaultValue":false,"OptionSet":{"TrueOption":{"Value":1,"Label":` + lbl + `},"FalseOption":{"Value":0,"Label":` + lbl + `}}}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.PicklistAttributeMetadata","SchemaName":"lsk_State","OptionSet":{"IsGlobal":false,"OptionSetType":"Picklist","Options":[{"Value":100000000,"Label":` + lbl + `}]}}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata","SchemaName":"lsk_Tags","OptionSet":{"Options":[{"Value":1,"Label":` + lbl + `},{"Value":2,"Label":` + lbl + `}]}}`,
		`{"@odata.type":"Microsoft.Dynamics.CRM.MemoAttributeMetadata","SchemaName":"lsk_Notes","MaxLength":5000,"Format":"TextArea"}`,
	} {
		w.do("POST", attributes, body).must(204)
	}
	w.do("POST", attributes, `{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lsk_Clicks","MaxLength":10}`).refused(400, "0x80047013")
	w.do("POST", attributes, `{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"NoPrefix","MaxLength":10}`).refused(400, "0x80040203")
	w.do("POST", "RelationshipDefinitions", `{"@odata.type":"Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata","SchemaName":"lsk_contact_lsk_send","ReferencedEntity":"contact","ReferencedAttribute":"contactid","ReferencingEntity":"lsk_send",
		"CascadeConfiguration":{"Assign":"NoCascade","Delete":"Cascade","Merge":"NoCascade","Reparent":"NoCascade","Share":"NoCascade","Unshare":"NoCascade"},
		"Lookup":{"@odata.type":"Microsoft.Dynamics.CRM.LookupAttributeMetadata","SchemaName":"lsk_ContactId","AttributeType":"Lookup","DisplayName":`+lbl+`}}`).must(204)
	w.do("POST", "PublishXml", `{"ParameterXml":"<importexportxml/>"}`).must(204)
	w.do("POST", "PublishAllXml", "").must(204)
	contact := w.create("contacts", `{"lastname":"King"}`)
	id := w.create(set, `{"lsk_name":"One","lsk_clicks":3,"lsk_value":1.25,"lsk_tags":"2,1","lsk_ContactId@odata.bind":"/contacts(`+contact+`)"}`)
	got := w.get(set + "(" + id + ")").must(200).json()
	if words(got["lsk_clicks"], got["lsk_value"], got["lsk_tags"], got["lsk_opened"], got["_lsk_contactid_value"], got["lsk_value_base"]) != "3 1.2500 1,2 false "+contact+" 1.2500" {
		t.Errorf("row %v", got)
	}
	w.do("POST", set, `{"lsk_contactid@odata.bind":"/contacts(`+contact+`)"}`).refused(400, "0x80048d19")
	w.do("POST", set, `{"lsk_clicks":101}`).refused(400, "0x8004432F")
	if rows := w.get("contacts(" + contact + ")/lsk_contact_lsk_send").must(200).rows(); len(rows) != 1 {
		t.Errorf("children %v", rows)
	}
	if n := w.do("POST", "InsertOptionValue", `{"EntityLogicalName":"lsk_send","AttributeLogicalName":"lsk_state","Label":`+lbl+`}`).must(200).json()["NewOptionValue"]; words(n) != "100000001" {
		t.Errorf("option %v", n)
	}
	w.create(set, `{"lsk_state":100000001}`)
	w.do("DELETE", "contacts("+contact+")", "").must(204)
	w.get(set+"("+id+")").refused(404, "0x80040217")
	w.do("DELETE", "EntityDefinitions(LogicalName='lsk_send')/Attributes(LogicalName='lsk_notes')", "").must(204)
	w.get(set + "?$select=lsk_notes").must(400)
	w.do("DELETE", "EntityDefinitions(LogicalName='lsk_send')", "").must(204)
	w.get(set).refused(404, "0x8006088A")
	w.do("DELETE", "EntityDefinitions(LogicalName='contact')", "").must(400)
}

func TestServiceProtection(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Limits = Limits{Requests: 4, Servers: 2, Parallel: 6} })
	var statuses []int
	for range 10 {
		statuses = append(statuses, w.get("WhoAmI").status)
	}
	if diff := cmp.Diff([]int{200, 200, 200, 200, 200, 200, 200, 200, 429, 429}, statuses); diff != "" {
		t.Errorf("two servers have four requests each: %s", diff)
	}
	one := w.get("WhoAmI", "Cookie", "ARRAffinity=server0").refused(429, "0x80072322").header.Get("Retry-After")
	two := w.get("WhoAmI", "Cookie", "ARRAffinity=server0").refused(429, "0x80072322").header.Get("Retry-After")
	var a, b int
	fmt.Sscan(one, &a)
	fmt.Sscan(two, &b)
	if a <= 0 || b <= a {
		t.Errorf("Retry-After %q then %q; going on makes it longer", one, two)
	}
	w.clock.Advance(6 * time.Minute)
	r := w.get("WhoAmI").must(200)
	if r.header.Get("x-ms-dop-hint") != "6" || r.header.Get("x-ms-ratelimit-burst-remaining-xrm-requests") != "3" || !strings.HasPrefix(r.header.Get("Set-Cookie"), "ARRAffinity=") {
		t.Errorf("headers %v", r.header)
	}
	w.s.SetLimits(Limits{})
	if err := w.faults.Add(fault.Fault{Twin: "dataverse", Kind: "throttle", Count: 1}); err != nil {
		t.Fatal(err)
	}
	w.get("WhoAmI").refused(http.StatusTooManyRequests, "0x80072322")
	w.get("WhoAmI").must(200)
	w.s.SetLimits(Limits{Execution: time.Nanosecond})
	w.get("WhoAmI").must(200)
	w.get("WhoAmI").refused(429, "0x80072321")
}

func TestOperationsAreCounted(t *testing.T) {
	counter := stats.New()
	w := newWorld(t, func(o *Options) { o.Stats = counter })
	id := w.create("contacts", `{"lastname":"x"}`)
	w.get("WhoAmI")
	w.get("contacts?$select=lastname")
	w.get("contacts?$select=lastname", "Prefer", "odata.track-changes")
	w.get("contacts(" + id + ")")
	w.do("PATCH", "contacts("+id+")", `{}`, "If-Match", "*")
	w.do("PATCH", "contacts("+id+")", `{}`)
	w.do("POST", "contacts/Microsoft.Dynamics.CRM.CreateMultiple", `{"Targets":[]}`)
	w.do("POST", "AddListMembersList", `{}`)
	w.get("EntityDefinitions")
	w.get("nope")
	w.batch(nil, one("GET", "WhoAmI", ""))
	got := counter.Snapshot()
	want := map[string]int64{
		"contact.create": 1, "whoami": 1, "contact.read": 2, "contact.delta": 1, "contact.update": 1, "contact.upsert": 1, "contact.create-multiple": 1,
		"list.add-members": 1, "metadata.read": 1, "nope.read": 1, "batch": 1,
	}
	if diff := cmp.Diff(want, got.Operations); diff != "" {
		t.Error(diff)
	}
	if got.Errors["404"] != 1 || got.Errors["400"] != 1 || got.BytesIn == 0 || got.BytesOut == 0 {
		t.Errorf("counts %+v", got)
	}
}
