package dataverse

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// one is a single operation of a batch.
func one(method, path, body string, headers ...string) string {
	s := "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
	h := ""
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Content-ID" {
			s += "Content-ID: " + headers[i+1] + "\r\n"
			continue
		}
		h += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	return s + "\r\n" + method + " /api/data/v9.2/" + path + " HTTP/1.1\r\nContent-Type: application/json\r\n" + h + "\r\n" + body
}

func envelope(boundary string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\n" + p + "\r\n")
	}
	return b.String() + "--" + boundary + "--\r\n"
}

func changeSet(parts ...string) string {
	return "Content-Type: multipart/mixed; boundary=cs\r\n\r\n" + envelope("cs", parts...)
}

func (w *world) batch(headers []string, parts ...string) *reply {
	w.t.Helper()
	return w.do("POST", "$batch", envelope("b1", parts...), append([]string{"Content-Type", `multipart/mixed; boundary="b1"`}, headers...)...)
}

// statuses takes a batch answer apart; a change set gives its parts in brackets.
func statuses(t *testing.T, contentType string, body []byte) []string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/mixed" {
		t.Fatalf("content type %q", contentType)
	}
	var out []string
	for r := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(p)
		if strings.HasPrefix(p.Header.Get("Content-Type"), "multipart/mixed") {
			out = append(out, "["+strings.Join(statuses(t, p.Header.Get("Content-Type"), b), " ")+"]")
			continue
		}
		line, _, _ := strings.Cut(string(b), "\r\n")
		version, status, _ := strings.Cut(line, " ")
		if version != "HTTP/1.1" || p.Header.Get("Content-Type") != "application/http" {
			t.Fatalf("part %q", b)
		}
		out = append(out, status[:3])
	}
}

func TestBatch(t *testing.T) {
	w := newWorld(t)
	parts := []string{
		changeSet(
			one("POST", "accounts", `{"name":"Acme"}`, "Content-ID", "1"),
			one("POST", "contacts", `{"lastname":"King","parentcustomerid_account@odata.bind":"$1"}`, "Content-ID", "2"),
			strings.Replace(one("PUT", "X", `{"@odata.id":"$2"}`, "Content-ID", "3"), "/api/data/v9.2/X", "$1/primarycontactid/$ref", 1),
		),
		one("GET", "contacts?$select=lastname&$expand=parentcustomerid_account($select=name)", ""),
	}
	r := w.batch(nil, parts...).must(200)
	if diff := cmp.Diff([]string{"[204 204 204]", "200"}, statuses(t, r.header.Get("Content-Type"), r.body)); diff != "" {
		t.Fatalf("%s\n%s", diff, r.body)
	}
	if !strings.Contains(string(r.body), `"parentcustomerid_account":{"@odata.etag"`) || !strings.Contains(string(r.body), "Content-ID: 2\r\n") || !strings.Contains(string(r.body), "OData-EntityId: ") {
		t.Errorf("body %s", r.body)
	}
	if strings.Count(string(r.body), "\n") != strings.Count(string(r.body), "\r\n") {
		t.Error("line ends must be CRLF")
	}
	bad := one("POST", "contacts", `{"gendercode":9}`)
	good := one("POST", "contacts", `{"lastname":"Good"}`)
	r = w.batch(nil, good, bad, good).must(400)
	if diff := cmp.Diff([]string{"204", "400"}, statuses(t, r.header.Get("Content-Type"), r.body)); diff != "" {
		t.Errorf("it stops at the failure: %s", diff)
	}
	r = w.batch([]string{"Prefer", "odata.continue-on-error"}, good, bad, good).must(200)
	if diff := cmp.Diff([]string{"204", "400", "204"}, statuses(t, r.header.Get("Content-Type"), r.body)); diff != "" {
		t.Error(diff)
	}
	before := w.s.store.View().Count("contact")
	r = w.batch([]string{"Prefer", "odata.continue-on-error"}, changeSet(
		one("POST", "contacts", `{"lastname":"Never"}`, "Content-ID", "1"), one("POST", "contacts", `{"gendercode":9}`, "Content-ID", "2")), good).must(200)
	if diff := cmp.Diff([]string{"400", "204"}, statuses(t, r.header.Get("Content-Type"), r.body)); diff != "" {
		t.Error(diff)
	}
	if got := w.s.store.View().Count("contact"); got != before+1 {
		t.Errorf("the change set must be rolled back: %d rows, were %d", got, before)
	}
	r = w.batch([]string{"Prefer", "odata.continue-on-error"}, changeSet(one("PATCH", "$9", `{}`, "Content-ID", "1"))).must(200)
	if !strings.Contains(string(r.body), "404") && !strings.Contains(string(r.body), "400") {
		t.Errorf("forward reference %s", r.body)
	}
	w.batch(nil, changeSet(one("GET", "contacts", "", "Content-ID", "1"))).refused(400, "0x80060888")
	w.batch(nil, changeSet(one("POST", "contacts", "{}"))).refused(400, "0x80060888")
	many := make([]string, 1001)
	for i := range many {
		many[i] = one("GET", "WhoAmI", "")
	}
	w.batch(nil, many...).refused(400, "0x80060888")
	w.do("POST", "$batch", strings.ReplaceAll(envelope("b1", good), "\r\n", "\n"), "Content-Type", "multipart/mixed; boundary=b1").refused(400, "0x80060888")
	w.do("POST", "$batch", "{}", "Content-Type", "application/json").refused(400, "0x80060888")
	w.batch(nil, one("POST", "$batch", "")).must(400)
}

func TestBulkMessages(t *testing.T) {
	w := newWorld(t)
	item := func(fields string) string { return `{"@odata.type":"Microsoft.Dynamics.CRM.contact",` + fields + `}` }
	call := func(message string, items ...string) *reply {
		return w.do("POST", "contacts/Microsoft.Dynamics.CRM."+message, `{"Targets":[`+strings.Join(items, ",")+`]}`)
	}
	r := call("CreateMultiple", item(`"lastname":"A"`), item(`"lastname":"B"`)).must(200).json()
	ids := r["Ids"].([]any)
	if len(ids) != 2 || r["@odata.context"] != w.api+"$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse" {
		t.Fatalf("answer %v", r)
	}
	if got := w.get(fmt.Sprintf("contacts(%s)?$select=lastname", ids[1])).json()["lastname"]; got != "B" {
		t.Errorf("order of ids: %v", got)
	}
	call("CreateMultiple", item(`"lastname":"C"`), item(`"gendercode":9`)).refused(400, "0x8004431A")
	call("CreateMultiple", `{"lastname":"no type"}`).refused(400, "0x80048d19")
	if n := w.s.store.View().Count("contact"); n != 2 {
		t.Errorf("%d rows; a bulk call takes all or none", n)
	}
	if r := call("UpdateMultiple", item(fmt.Sprintf(`"contactid":%q,"jobtitle":"CTO"`, ids[0]))).must(204); len(r.body) != 0 {
		t.Errorf("body %s", r.body)
	}
	call("UpdateMultiple", item(`"contactid":"99999999-0000-0000-0000-000000000009","jobtitle":"CTO"`)).refused(404, "0x80040217")
	call("UpsertMultiple", item(fmt.Sprintf(`"contactid":%q,"jobtitle":"CEO"`, ids[0])), item(`"contactid":"99999999-0000-0000-0000-000000000009","jobtitle":"New"`)).must(204)
	call("DeleteMultiple", item(fmt.Sprintf(`"contactid":%q`, ids[0]))).must(501)

	w.do("POST", "EntityDefinitions(LogicalName='lsx_subscription')/Keys", `{"SchemaName":"lsx_External","KeyAttributes":["lsx_externalid"]}`).must(204)
	for range 3 {
		w.get("EntityDefinitions(LogicalName='lsx_subscription')/Keys").must(200)
	}
	sub := func(fields string) string {
		return `{"Targets":[{"@odata.type":"Microsoft.Dynamics.CRM.lsx_subscription","@odata.id":"lsx_subscriptions(lsx_externalid='K1')",` + fields + `}]}`
	}
	const upsert = "lsx_subscriptions/Microsoft.Dynamics.CRM.UpsertMultiple"
	w.do("POST", upsert, sub(`"lsx_name":"x","lsx_externalid":"K1"`)).refused(400, "0x80040216")
	w.do("POST", upsert, sub(`"lsx_name":"x"`)).must(204)
	w.do("POST", upsert, sub(`"lsx_name":"y","lsx_externalid":"K1"`)).must(204)
	if got := w.get("lsx_subscriptions(lsx_externalid='K1')").json()["lsx_name"]; got != "y" {
		t.Errorf("got %v", got)
	}

	const probe = "sdkmessagefilters?$select=sdkmessagefilterid&$filter=sdkmessageid/name%20eq%20@m%20and%20primaryobjecttypecode%20eq%20@t&@m='CreateMultiple'&@t='contact'"
	if n := len(w.get(probe).must(200).rows()); n != 1 {
		t.Errorf("probe found %d", n)
	}
	if err := w.s.SetBulkMessages("contact", false); err != nil {
		t.Fatal(err)
	}
	if n := len(w.get(probe).must(200).rows()); n != 0 {
		t.Errorf("probe found %d", n)
	}
	call("CreateMultiple", item(`"lastname":"A"`)).must(501)
}

func TestRowPoison(t *testing.T) {
	w := newWorld(t)
	a, b := w.create("contacts", `{"lastname":"A"}`), w.create("contacts", `{"lastname":"B"}`)
	if err := w.faults.Add(fault.Fault{Kind: "row-poison", Args: []byte(`{"id":"` + b + `","message":"Not on my watch"}`)}); err != nil {
		t.Fatal(err)
	}
	w.do("PATCH", "contacts("+a+")", `{"jobtitle":"x"}`).must(204)
	r := w.do("PATCH", "contacts("+b+")", `{"jobtitle":"x"}`).refused(400, "0x80040265")
	if !strings.Contains(string(r.body), "Not on my watch") {
		t.Errorf("body %s", r.body)
	}
	r = w.batch([]string{"Prefer", "odata.continue-on-error"}, one("PATCH", "contacts("+a+")", `{"jobtitle":"y"}`), one("PATCH", "contacts("+b+")", `{"jobtitle":"y"}`)).must(200)
	if diff := cmp.Diff([]string{"204", "400"}, statuses(t, r.header.Get("Content-Type"), r.body)); diff != "" {
		t.Error(diff)
	}
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	w.create("lists", `{"listname":"L","createdfromcode":4,"type":false}`)
	w.do("POST", "lists", `{"listname":"L","createdfromcode":3}`).refused(400, "0x8004431A")
	list := w.create("lists", `{"listname":"News","createdfromcode":2}`)
	got := w.get("lists(" + list + ")").json()
	if words(got["type"], got["membertype"], got["statecode"], got["statuscode"], got["membercount"], got["donotsendonoptout"]) != "false 2 0 0 0 true" {
		t.Errorf("new list %v", got)
	}
	a, b := w.create("contacts", `{"lastname":"A"}`), w.create("contacts", `{"lastname":"B"}`)
	lead := w.create("leads", `{"lastname":"L"}`)
	action := func(id, name, body string) *reply {
		w.t.Helper()
		return w.do("POST", "lists("+id+")/Microsoft.Dynamics.CRM."+name, body)
	}
	r := action(list, "AddMemberList", `{"EntityId":"`+a+`"}`).must(200).json()
	again := action(list, "AddMemberList", `{"EntityId":"`+a+`"}`).must(200).json()
	if r["Id"] == nil || r["Id"] != again["Id"] || r["@odata.context"] != w.api+"$metadata#Microsoft.Dynamics.CRM.AddMemberListResponse" {
		t.Errorf("%v %v", r, again)
	}
	action(list, "AddMemberList", `{"EntityId":"`+lead+`"}`).refused(400, "0x80040301")
	action(list, "AddMemberList", `{"EntityId":"99999999-0000-0000-0000-000000000009"}`).refused(404, "0x80040217")
	members := func(table string, ids ...string) string {
		out := make([]string, len(ids))
		for i, id := range ids {
			out[i] = `{"@odata.type":"Microsoft.Dynamics.CRM.` + table + `","` + table + `id":"` + id + `"}`
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	add := func(list, members string) *reply {
		return w.do("POST", "AddListMembersList", `{"List":{"@odata.type":"Microsoft.Dynamics.CRM.list","listid":"`+list+`"},"Members":`+members+`}`)
	}
	add(list, members("contact", a, b)).must(204)
	add(list, members("lead", lead)).refused(400, "0x80040301")
	add(list, members("contact", a, "99999999-0000-0000-0000-000000000009")).refused(404, "0x80040217")
	action(list, "AddListMembersList", `{}`).refused(404, "0x8006088A")
	count := func(list string) string {
		return words(w.get("lists(" + list + ")?$select=membercount").json()["membercount"])
	}
	if count(list) != "2" {
		t.Errorf("membercount %s", count(list))
	}
	rows := w.get("listmembers?$select=_entityid_value,entitytype&$filter=_listid_value%20eq%20" + list).must(200).rows()
	if len(rows) != 2 || rows[0]["entitytype"] != "contact" {
		t.Errorf("members %v", rows)
	}
	if rows := w.get("lists(" + list + ")/listcontact_association?$select=lastname").must(200).rows(); len(rows) != 2 {
		t.Errorf("association %v", rows)
	}
	w.get("lists(" + list + ")/listcontact_association/$count").must(200)
	fetch := `<fetch><entity name="contact"><attribute name="lastname"/><link-entity name="listmember" from="entityid" to="contactid"><filter><condition attribute="listid" operator="eq" value="` + list + `"/></filter></link-entity></entity></fetch>`
	if rows := w.get("contacts?fetchXml=" + strings.NewReplacer(" ", "%20", `"`, "%22", "<", "%3C", ">", "%3E", "=", "%3D").Replace(fetch)).must(200).rows(); len(rows) != 2 {
		t.Errorf("link-entity %v", rows)
	}
	w.do("POST", "lists("+list+")/listcontact_association/$ref", `{"@odata.id":"contacts(`+a+`)"}`).must(400)
	w.do("POST", "listmembers", `{}`).must(400)
	w.get("listmembers(" + rows[0]["listmemberid"].(string) + ")").must(400)
	action(list, "RemoveMemberList", `{"EntityId":"`+b+`"}`).must(204)
	action(list, "RemoveMemberList", `{"EntityId":"`+b+`"}`).refused(400, "0x80048458")
	if rows := w.get("lists(" + list + ")/listcontact_association?$select=lastname").must(200).rows(); len(rows) != 1 || rows[0]["lastname"] != "A" {
		t.Errorf("association after the removal %v", rows)
	}
	if count(list) != "1" {
		t.Errorf("membercount %s", count(list))
	}
	add(list, members("contact", b)).must(204)
	w.do("DELETE", "contacts("+b+")", "").must(204)
	if count(list) != "1" {
		t.Errorf("a deleted contact leaves its lists; membercount %s", count(list))
	}

	dynamic := w.create("lists", `{"listname":"Dyn","createdfromcode":2,"type":true,"query":"<fetch><entity name=\"contact\"><attribute name=\"lastname\"/><filter><condition attribute=\"lastname\" operator=\"eq\" value=\"A\"/></filter></entity></fetch>"}`)
	action(dynamic, "AddMemberList", `{"EntityId":"`+a+`"}`).refused(400, "0x8004F701")
	add(dynamic, members("contact", a)).refused(400, "0x8004F701")
	w.do("PATCH", "lists("+dynamic+")", `{"lockstatus":true}`).refused(400, "0x8004F703")
	w.do("PATCH", "lists("+dynamic+")", `{"query":"<fetch><entity name=\"lead\"/></fetch>"}`).must(400)
	frozen := action(dynamic, "CopyDynamicListToStatic", `{}`).must(200).json()["StaticListId"].(string)
	if count(frozen) != "1" {
		t.Errorf("frozen list has %s members", count(frozen))
	}
	w.do("PATCH", "lists("+frozen+")", `{"type":true}`).must(204)
	if got := w.get("lists(" + frozen + ")?$select=type").json()["type"]; got != false {
		t.Errorf("type cannot be changed, is %v", got)
	}

	other := w.create("lists", `{"listname":"Copy","createdfromcode":2}`)
	c := w.create("contacts", `{"lastname":"C"}`)
	add(other, members("contact", c)).must(204)
	action(list, "CopyMembersList", `{"TargetList":{"@odata.type":"Microsoft.Dynamics.CRM.list","listid":"`+other+`"}}`).must(204)
	action(list, "CopyMembersList", `{"TargetList":{"@odata.type":"Microsoft.Dynamics.CRM.list","listid":"`+other+`"}}`).must(204)
	if count(other) != "2" {
		t.Errorf("copied list has %s members", count(other))
	}
	action(other, "QualifyMemberList", `{"ListMember":`+members("contact", c)+`,"OverrideorRemove":true}`).must(204)
	if count(other) != "1" {
		t.Errorf("qualified list has %s members", count(other))
	}
	action(other, "QualifyMemberList", `{"ListMember":`+members("contact", c)+`,"OverrideorRemove":false}`).must(204)
	if count(other) != "0" {
		t.Errorf("qualified list has %s members", count(other))
	}
	w.do("PATCH", "lists("+other+")", `{"lockstatus":true}`).must(204)
	add(other, members("contact", c)).refused(400, "0x80040302")
	w.do("PATCH", "lists("+list+")", `{"statecode":1}`).must(204)
	if got := w.get("lists(" + list + ")?$select=statuscode").json()["statuscode"]; words(got) != "1" {
		t.Errorf("inactive status %v", got)
	}
	w.do("PATCH", "lists("+list+")", `{"listname":"x"}`).refused(400, "0x80040230")
	add(list, members("contact", c)).refused(400, "0x80040230")
}

func TestBareEnvironment(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Profile = Bare })
	w.get("lists").refused(404, "0x8006088A")
	w.get("EntityDefinitions(LogicalName='list')").refused(404, "0x80040217")
	w.create("contacts", `{"lastname":"King"}`)
}

func TestLoader(t *testing.T) {
	w := newWorld(t)
	list := w.create("lists", `{"listname":"News","createdfromcode":2}`)
	account := w.create("accounts", `{"name":"Acme"}`)
	l, err := w.s.Loader("contact", []string{"contactid", "firstname", "lastname", "parentcustomerid_account", "creditlimit", "statuscode", "createdon"})
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{"a0000000-0000-0000-0000-000000000003", "a0000000-0000-0000-0000-000000000001"}
	for _, id := range ids {
		err := l.Append(value.GUID(value.MustID(id)), value.Text("Ada"), value.Text("King"), value.GUID(value.MustID(account)), value.Decimal(5, 0), value.Int(2),
			value.DateTime(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(value.Null(), value.Text(strings.Repeat("x", 51)), value.Null(), value.Null(), value.Null(), value.Null(), value.Null()); err == nil {
		t.Error("an over-long value must be refused")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := w.get("contacts(" + ids[0] + ")").must(200).json()
	if words(got["fullname"], got["statecode"], got["statuscode"], got["createdon"], got["_accountid_value"], got["creditlimit_base"]) != "Ada King 1 2 2020-01-01T00:00:00Z "+account+" 5.0000" {
		t.Errorf("loaded %v", got)
	}
	m, err := w.s.Loader("listmember", []string{"listid", "entityid_contact"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := m.Append(value.GUID(value.MustID(list)), value.GUID(value.MustID(id))); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.get("lists(" + list + ")?$select=membercount").json()["membercount"]; words(n) != "2" {
		t.Errorf("membercount %v", n)
	}
	if rows := w.get("listmembers?$filter=_listid_value%20eq%20" + list).rows(); len(rows) != 2 || rows[0]["entitytype"] != "contact" {
		t.Errorf("members %v", rows)
	}
	if _, err := w.s.Loader("contact", []string{"nope"}); err == nil {
		t.Error("an unknown column must be refused")
	}
}

func TestHistory(t *testing.T) {
	w := newWorld(t)
	var writes []string
	w.s.OnWrite(func(x Write) {
		kept := []string{}
		for _, c := range x.Columns {
			if c == "jobtitle" || c == "lastname" {
				kept = append(kept, c)
			}
		}
		writes = append(writes, words(x.Table, x.Kind, kept))
	})
	id := w.create("contacts", `{"lastname":"A"}`)
	w.do("PATCH", "contacts("+id+")", `{"jobtitle":"x"}`).must(204)
	w.do("PATCH", "contacts("+id+")", `{"gendercode":9}`).must(400)
	w.do("DELETE", "contacts("+id+")", "").must(204)
	if diff := cmp.Diff([]string{"contact create [lastname]", "contact update [jobtitle]", "contact delete [lastname jobtitle]"}, writes); diff != "" {
		t.Error(diff)
	}
}

func TestWritesInParallel(t *testing.T) {
	w := newWorld(t)
	const workers, each = 4, 25
	errs := make(chan error, workers)
	for range workers {
		go func() {
			for range each {
				req, _ := http.NewRequest(http.MethodPost, w.api+"contacts", strings.NewReader(`{"lastname":"x"}`))
				req.Header.Set("Authorization", "Bearer "+testApp+"|ok")
				res, err := http.DefaultClient.Do(req)
				if err == nil {
					res.Body.Close()
					if res.StatusCode != http.StatusNoContent {
						err = fmt.Errorf("status %d", res.StatusCode)
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := w.s.store.View().Count("contact"); n != workers*each {
		t.Errorf("%d rows", n)
	}
}
