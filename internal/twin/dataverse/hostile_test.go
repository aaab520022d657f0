package dataverse

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestHostileRequests throws damaged requests at the twin: every one must get an
// answer that says what is wrong, never a crash or a lock that stays.
func TestHostileRequests(t *testing.T) {
	w := newWorld(t)
	id := w.create("contacts", `{"lastname":"x"}`)
	list := w.create("lists", `{"listname":"L","createdfromcode":2}`)
	handler := w.s.Handler()
	paths := []string{
		"contacts", "contacts(" + id + ")", "contacts(emailaddress1='x',lastname='y')", "contacts(" + id + ")/lastname/$value", "contacts(" + id + ")/parentcustomerid_account/$ref",
		"contacts/$count", "contacts/Microsoft.Dynamics.CRM.CreateMultiple", "contacts/Microsoft.Dynamics.CRM.UpsertMultiple", "lists(" + list + ")/Microsoft.Dynamics.CRM.AddMemberList",
		"lists(" + list + ")/Microsoft.Dynamics.CRM.QualifyMemberList", "lists(" + list + ")/listcontact_association", "AddListMembersList", "Merge", "$batch", "WhoAmI", "RetrieveTotalRecordCount(EntityNames=@p)",
		"EntityDefinitions", "EntityDefinitions(LogicalName='contact')/Attributes", "EntityDefinitions(LogicalName='contact')/Keys", "RelationshipDefinitions", "InsertOptionValue", "roles(" + id + ")/Microsoft.Dynamics.CRM.AddPrivilegesRole",
		"systemusers(" + id + ")/systemuserroles_association/$ref", "listmembers", "leads(" + id + ")/Microsoft.Dynamics.CRM.QualifyLead", "contacts()", "(", "a/b/c/d", "contacts(", "'",
	}
	queries := []string{"", "$select=lastname", "$filter=lastname eq 'x", "$skiptoken=<cookie", "$deltatoken=1!2", "$deltatoken=99999999999999999999!01/01/2026 00:00:00", "fetchXml=<fetch", "$expand=a(b(c", "$apply=groupby((lastname))", "$top=99999999999999999999", "@p=[\"x\""}
	bodies := []string{
		"", "{}", "[]", "null", `"x"`, "{", `{"a":`, `{"lastname":"` + strings.Repeat("x", 300) + `"}`, `{"Targets":[{}]}`, `{"Targets":{}}`, `{"Targets":[{"@odata.type":"Microsoft.Dynamics.CRM.contact","@odata.id":"contacts("}]}`,
		`{"EntityId":7}`, `{"List":{},"Members":[1]}`, `{"List":{"@odata.type":"#Microsoft.Dynamics.CRM.list","listid":"` + list + `"},"Members":[null]}`, `{"Target":{},"Subordinate":{}}`, `{"parentcustomerid_account@odata.bind":"$1/x"}`,
		`{"parentcustomerid_account":{"primarycontactid":{"parentcustomerid_account":{"primarycontactid":{"x":1}}}}}`, `{"contact_customer_contacts":[1,{}]}`, `{"@odata.id":"http://[::1"}`, `{"ListMember":[],"OverrideorRemove":1}`,
		`{"Privileges":[{"PrivilegeId":"x"}]}`, `{"SchemaName":"lsx_A","KeyAttributes":["lastname","lastname"]}`, `{"@odata.type":"Microsoft.Dynamics.CRM.EntityMetadata"}`, "\xff\xfe", `{"\ud800":1}`, `{"lastname":"\ud800"}`,
		"--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nGET /api/data/v9.2/contacts HTTP/1.1\r\n\r\n\r\n--b--\r\n", "--b\r\n\r\n--b--", "--b\r\nContent-Type: multipart/mixed\r\n\r\n--b--",
	}
	prefers := []string{"", "return=representation", "odata.track-changes", "odata.maxpagesize=1", "odata.maxpagesize=x", `odata.include-annotations="*"`, `odata.include-annotations="[`, "odata.continue-on-error"}
	rapid.Check(t, func(t *rapid.T) {
		pick := func(name string, from []string) string { return from[rapid.IntRange(0, len(from)-1).Draw(t, name)] }
		damage := func(name, s string) string {
			if s == "" || rapid.IntRange(0, 2).Draw(t, name+" kept") != 0 {
				return s
			}
			i := rapid.IntRange(0, len(s)-1).Draw(t, name+" at")
			return s[:i] + rapid.StringN(0, 3, 6).Draw(t, name+" with") + s[i+rapid.IntRange(0, 1).Draw(t, name+" cut"):]
		}
		path, query, body := damage("path", pick("path", paths)), damage("query", pick("query", queries)), damage("body", pick("body", bodies))
		method := pick("method", []string{"GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"})
		r := httptest.NewRequest(method, "http://host/", strings.NewReader(body))
		r.URL.Path = "/api/data/v9.2/" + path
		r.URL.RawPath = r.URL.EscapedPath()
		r.URL.RawQuery = query
		r.RequestURI = r.URL.RequestURI()
		r.Header.Set("Authorization", "Bearer "+testApp+"|ok")
		r.Header.Set("Content-Type", "multipart/mixed; boundary=b")
		r.Header.Set("Prefer", pick("prefer", prefers))
		if rapid.Bool().Draw(t, "conditional") {
			r.Header.Set("If-Match", pick("match", []string{"*", `W/"1"`, "x"}))
		}
		out := httptest.NewRecorder()
		handler.ServeHTTP(out, r)
		if out.Code == http.StatusInternalServerError || out.Code < 200 {
			t.Fatalf("%s %s?%s answered %d: %s", method, path, query, out.Code, out.Body)
		}
		if out.Code >= 400 && !strings.Contains(out.Body.String(), `"code":"0x`) && !strings.HasPrefix(out.Header().Get("Content-Type"), "multipart/") {
			t.Fatalf("%s %s?%s answered %d without a code: %q", method, path, query, out.Code, out.Body)
		}
	})
	w.get("WhoAmI").must(200)
	w.create("contacts", `{"lastname":"still alive"}`)
}
