package dataverse

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// receiver keeps the webhook calls it gets and answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []hookCall
	answer func(n int) int // status of the n-th call, from 0
}

type hookCall struct {
	header http.Header
	query  string
	size   int
	body   map[string]any
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{answer: func(int) int { return 204 }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		call := hookCall{header: q.Header, query: q.URL.RawQuery, size: len(b)}
		if err == nil {
			err = json.Unmarshal(b, &call.body)
		}
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls = append(r.calls, call)
		w.WriteHeader(r.answer(len(r.calls) - 1))
	}))
	t.Cleanup(r.Close)
	return r
}

// taken waits until nothing is under way and returns what came since the last time.
func (r *receiver) taken(w *world) []hookCall {
	w.t.Helper()
	if err := w.s.WaitDeliveries(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.calls
	r.calls = nil
	return out
}

func (w *world) endpoint(url, auth string) string {
	w.t.Helper()
	w.t.Cleanup(w.s.Close)
	return w.create("serviceendpoints", fmt.Sprintf(`{"name":"Hook","url":%q,"contract":8,%s}`, url, auth))
}

const headerAuth = `"authtype":5,"authvalue":"<settings><setting name=\"X-Secret\" value=\"s3cret\"/></settings>"`

// step is the body of a registration for a message on a table.
func (w *world) step(message, table, endpoint, more string) string {
	w.t.Helper()
	id := w.get("sdkmessages?$select=sdkmessageid&$filter=name%20eq%20'" + message + "'").must(200).rows()[0]["sdkmessageid"].(string)
	filters := w.get("sdkmessagefilters?$select=sdkmessagefilterid&$filter=primaryobjecttypecode%20eq%20'" + table + "'%20and%20_sdkmessageid_value%20eq%20" + id).must(200).rows()
	bind := ""
	if len(filters) > 0 {
		bind = fmt.Sprintf(`"sdkmessagefilterid@odata.bind":"/sdkmessagefilters(%s)",`, filters[0]["sdkmessagefilterid"])
	}
	return fmt.Sprintf(`{"name":"%s of %s","stage":40,"mode":1,"rank":1,"supporteddeployment":0,"asyncautodelete":true,%s"sdkmessageid@odata.bind":"/sdkmessages(%s)",%s
		"eventhandler_serviceendpoint@odata.bind":"/serviceendpoints(%s)"}`, message, table, more, id, bind, endpoint)
}

func TestWebhookDelivery(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	w.create("contacts", `{"lastname":"Before"}`) // nobody has registered
	e := w.endpoint(r.URL+"/in?x=1", headerAuth)
	for _, m := range []string{"Create", "Update", "Delete"} {
		w.create("sdkmessageprocessingsteps", w.step(m, "contact", e, ""))
	}
	if got := r.taken(w); got != nil {
		t.Fatalf("calls %v", got)
	}
	account := w.create("accounts", `{"name":"Acme"}`) // another table
	id := w.create("contacts", `{"lastname":"King","emailaddress1":"king@example.com","gendercode":2,"creditlimit":12.5,"parentcustomerid_account@odata.bind":"/accounts(`+account+`)"}`)
	calls := r.taken(w)
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	c := calls[0]
	want := map[string]string{
		"X-Secret": "s3cret", "X-Ms-Dynamics-Organization": strings.TrimPrefix(w.url, "http://"), "X-Ms-Dynamics-Entity-Name": "contact",
		"X-Ms-Dynamics-Request-Name": "Create", "Content-Type": "application/json", "X-Ms-Dynamics-Msg-Size-Exceeded": "",
	}
	for name, v := range want {
		if got := c.header.Get(name); got != v {
			t.Errorf("%s: %q, want %q", name, got, v)
		}
	}
	if c.query != "x=1" || c.header.Get("X-Ms-Correlation-Request-Id") == "" {
		t.Errorf("call %+v", c)
	}
	b := c.body
	if got := words(b["MessageName"], b["PrimaryEntityName"], b["PrimaryEntityId"], b["Stage"], b["Mode"], b["OrganizationId"]); got != "Create contact "+id+" 40 1 "+w.s.OrganizationID() {
		t.Errorf("context %s", got)
	}
	target := b["InputParameters"].([]any)[0].(map[string]any)["value"].(map[string]any)
	values := map[string]any{}
	for _, a := range target["Attributes"].([]any) {
		values[a.(map[string]any)["key"].(string)] = a.(map[string]any)["value"]
	}
	ns := ":http://schemas.microsoft.com/xrm/2011/Contracts"
	if target["__type"] != "Entity"+ns || values["lastname"] != "King" || values["contactid"] != id || values["modifiedon"] != "/Date(1772359200000)/" {
		t.Errorf("target %v", target)
	}
	if diff := cmp.Diff(map[string]any{"__type": "OptionSetValue" + ns, "Value": 2.0}, values["gendercode"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"__type": "Money" + ns, "Value": 12.5}, values["creditlimit"]); diff != "" {
		t.Error(diff)
	}
	if ref := values["parentcustomerid"].(map[string]any); ref["LogicalName"] != "account" || ref["Id"] != account {
		t.Errorf("reference %v", ref)
	}

	w.do("PATCH", "contacts("+id+")", `{"firstname":"Ann"}`).must(204)
	c = r.taken(w)[0]
	var keys []string
	for _, a := range c.body["InputParameters"].([]any)[0].(map[string]any)["value"].(map[string]any)["Attributes"].([]any) {
		keys = append(keys, a.(map[string]any)["key"].(string))
	}
	slices.Sort(keys)
	if words(c.body["MessageName"], keys) != "Update [contactid firstname modifiedby modifiedon]" {
		t.Errorf("update %v %v", c.body["MessageName"], keys)
	}
	w.do("DELETE", "contacts("+id+")", "").must(204)
	c = r.taken(w)[0]
	gone := c.body["InputParameters"].([]any)[0].(map[string]any)["value"].(map[string]any)
	if words(c.body["MessageName"], gone["LogicalName"], gone["Id"]) != "Delete contact "+id {
		t.Errorf("delete %v", gone)
	}

	// What is taken back is not told; what a batch commits is.
	w.do("POST", "contacts/Microsoft.Dynamics.CRM.CreateMultiple", `{"Targets":[{"@odata.type":"Microsoft.Dynamics.CRM.contact","lastname":"A"},{"@odata.type":"Microsoft.Dynamics.CRM.contact","nonsense":1}]}`).must(400)
	if got := r.taken(w); got != nil {
		t.Errorf("%d calls about what was taken back", len(got))
	}
	w.do("POST", "contacts/Microsoft.Dynamics.CRM.CreateMultiple", `{"Targets":[{"@odata.type":"Microsoft.Dynamics.CRM.contact","lastname":"A"},{"@odata.type":"Microsoft.Dynamics.CRM.contact","lastname":"B"}]}`).must(200)
	if got := r.taken(w); len(got) != 2 {
		t.Errorf("%d calls, want one a row", len(got))
	}
	if got := w.s.Deliveries(); got != (Deliveries{Delivered: 5}) {
		t.Errorf("deliveries %+v", got)
	}
}

func TestWebhookFilteringAttributes(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	e := w.endpoint(r.URL, `"authtype":4,"authvalue":"a b&c"`)
	id := w.create("contacts", `{"lastname":"King"}`)
	step := w.create("sdkmessageprocessingsteps", w.step("Update", "contact", e, `"filteringattributes":"emailaddress1, donotbulkemail",`))
	for body, calls := range map[string]int{
		`{"lastname":"Queen"}`:                             0,
		`{"emailaddress1":"q@example.com"}`:                1,
		`{"lastname":"Queen","donotbulkemail":false}`:      1, // sent, though it did not change
		`{"emailaddress1":null,"donotbulkemail":true}`:     1,
		`{"emailaddress2":"q@example.com","jobtitle":"x"}`: 0,
	} {
		w.do("PATCH", "contacts("+id+")", body).must(204)
		got := r.taken(w)
		if len(got) != calls {
			t.Errorf("%s: %d calls, want %d", body, len(got), calls)
		}
		for _, c := range got {
			if c.query != "code=a+b%26c" {
				t.Errorf("query %q", c.query)
			}
		}
	}
	change := func(fields string) {
		w.do("PATCH", "sdkmessageprocessingsteps("+step+")", fields, "If-Match", "*").must(204)
	}
	edit := func() int {
		w.do("PATCH", "contacts("+id+")", `{"emailaddress1":"q@example.com"}`).must(204)
		return len(r.taken(w))
	}
	change(`{"statecode":1,"statuscode":2}`)
	if n := edit(); n != 0 {
		t.Errorf("%d calls of a disabled step", n)
	}
	change(`{"statecode":0,"statuscode":1}`)
	other := newReceiver(t)
	w.do("PATCH", "serviceendpoints("+e+")", fmt.Sprintf(`{"url":%q,"authtype":6,"authvalue":"<settings><setting name=\"k\" value=\"v\"/></settings>"}`, other.URL), "If-Match", "*").must(204)
	if n := edit(); n != 0 {
		t.Errorf("%d calls to the former address", n)
	}
	if got := other.taken(w); len(got) != 1 || got[0].query != "k=v" {
		t.Errorf("calls %v", got)
	}
	w.do("DELETE", "serviceendpoints("+e+")", "").refused(405, "0x80040227")
	w.do("DELETE", "sdkmessageprocessingsteps("+step+")", "").must(204)
	w.do("DELETE", "serviceendpoints("+e+")", "").must(204)
	if edit(); len(other.taken(w)) != 0 {
		t.Error("a deleted registration is still called")
	}
}

func TestWebhookMembership(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	e := w.endpoint(r.URL, headerAuth)
	list := w.create("lists", `{"listname":"L","createdfromcode":2}`)
	a, b := w.create("contacts", `{"lastname":"A"}`), w.create("contacts", `{"lastname":"B"}`)
	for _, m := range []string{"AddMember", "AddListMembers", "RemoveMember", "Update"} {
		w.create("sdkmessageprocessingsteps", w.step(m, "list", e, ""))
	}
	bound := func(action, member string, status int) {
		w.do("POST", "lists("+list+")/Microsoft.Dynamics.CRM."+action, `{"EntityId":"`+member+`"}`).must(status)
	}
	told := func() string {
		var out []string
		for _, c := range r.taken(w) {
			p := c.body["InputParameters"].([]any)
			out = append(out, words(c.body["MessageName"], c.body["PrimaryEntityName"], p[0].(map[string]any)["value"] == list, p[1].(map[string]any)["value"]))
		}
		return strings.Join(out, "; ")
	}
	bound("AddMemberList", a, 200)
	if got := told(); got != "AddMember list true "+a {
		t.Errorf("told %s", got)
	}
	bound("AddMemberList", a, 200) // a member already
	w.do("POST", "AddListMembersList", fmt.Sprintf(`{"List":{"listid":%q,"@odata.type":"Microsoft.Dynamics.CRM.list"},"Members":[{"contactid":%q,"@odata.type":"Microsoft.Dynamics.CRM.contact"},{"contactid":%q,"@odata.type":"Microsoft.Dynamics.CRM.contact"}]}`, list, a, b)).must(204)
	if got := told(); got != fmt.Sprintf("AddListMembers list true [%s %s]", a, b) {
		t.Errorf("told %s", got)
	}
	bound("RemoveMemberList", b, 204)
	if got := told(); got != "RemoveMember list true "+b {
		t.Errorf("told %s", got)
	}
}

func TestWebhookSizeAndFailures(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	e := w.endpoint(r.URL, headerAuth)
	step := w.create("sdkmessageprocessingsteps", w.step("Create", "contact", e, ""))
	w.create("contacts", `{"lastname":"Small","description":"`+strings.Repeat("x", 2000)+`"}`)
	if c := r.taken(w)[0]; c.header.Get("X-Ms-Dynamics-Msg-Size-Exceeded") != "" || c.body["InputParameters"] == nil {
		t.Error("a small message was cut")
	}
	list := w.create("lists", `{"listname":"L","createdfromcode":2}`)
	w.create("sdkmessageprocessingsteps", w.step("AddListMembers", "list", e, ""))
	targets := strings.TrimSuffix(strings.Repeat(`{"@odata.type":"Microsoft.Dynamics.CRM.contact","lastname":"X"},`, 7000), ",")
	var members []string // each 39 bytes of the message
	for _, id := range w.do("POST", "contacts/Microsoft.Dynamics.CRM.CreateMultiple", `{"Targets":[`+targets+`]}`).must(200).json()["Ids"].([]any) {
		members = append(members, fmt.Sprintf(`{"contactid":%q,"@odata.type":"Microsoft.Dynamics.CRM.contact"}`, id))
	}
	if n := len(r.taken(w)); n != 7000 {
		t.Errorf("%d calls about 7000 rows", n)
	}
	w.do("POST", "AddListMembersList", fmt.Sprintf(`{"List":{"listid":%q,"@odata.type":"Microsoft.Dynamics.CRM.list"},"Members":[%s]}`, list, strings.Join(members, ","))).must(204)
	c := r.taken(w)[0]
	if c.header.Get("X-Ms-Dynamics-Msg-Size-Exceeded") != "true" || c.size > 2000 || c.body["PrimaryEntityId"] != list {
		t.Errorf("a message of %d bytes: %v", c.size, c.header)
	}
	for _, gone := range []string{"InputParameters", "ParentContext", "PreEntityImages", "PostEntityImages"} {
		if _, there := c.body[gone]; there {
			t.Errorf("%s is still there", gone)
		}
	}

	for _, tc := range []struct {
		statuses []int
		calls    int
		failed   int64
	}{
		{[]int{200}, 1, 0}, {[]int{503, 204}, 2, 0}, {[]int{502, 504}, 2, 1}, {[]int{500}, 1, 1}, {[]int{302}, 1, 1}, {[]int{429}, 1, 1}, {[]int{401}, 1, 1},
	} {
		r.taken(w)
		r.answer = func(n int) int { return tc.statuses[min(n, len(tc.statuses)-1)] }
		before := w.s.Deliveries().Failed
		w.create("contacts", `{"lastname":"X"}`)
		if got := r.taken(w); len(got) != tc.calls || w.s.Deliveries().Failed-before != tc.failed {
			t.Errorf("%v: %d calls, %d failed", tc.statuses, len(got), w.s.Deliveries().Failed-before)
		}
	}
	jobs := w.get("asyncoperations?$select=statuscode,message&$filter=_owningextensionid_value%20eq%20" + step).must(200).rows()
	if len(jobs) != 5 {
		t.Fatalf("%d system jobs, want those that failed", len(jobs))
	}
	for _, j := range jobs {
		if words(j["statuscode"]) != "31" || strings.Contains(j["message"].(string), "s3cret") {
			t.Errorf("job %v", j)
		}
	}
	r.Close()
	w.create("contacts", `{"lastname":"Nobody listens"}`)
	if err := w.s.WaitDeliveries(t.Context()); err != nil || w.s.Deliveries().Failed != 6 {
		t.Errorf("%v %+v", err, w.s.Deliveries())
	}
}

func TestWebhookRegistrationIsStrict(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("https://hooks.example.com/x", headerAuth)
	if row := w.get("serviceendpoints(" + e + ")").must(200).json(); row["authvalue"] != nil || row["url"] != "https://hooks.example.com/x" {
		t.Errorf("row %v", row)
	}
	w.get("serviceendpoints?$select=authvalue").must(400)
	w.get("serviceendpoints?$filter=authvalue%20ne%20null").must(400)
	secret := `"authvalue":"<settings><setting name=\"X-Secret\" value=\"s\"/></settings>"`
	for body, want := range map[string]string{
		`{"url":"https://a.example","contract":8,"authtype":5,` + secret + `}`:                                                                    "400 0x80040200",
		`{"name":"x","contract":8,"authtype":5,` + secret + `}`:                                                                                   "400 0x80040200",
		`{"name":"x","url":"http://a.example","contract":8,"authtype":5,` + secret + `}`:                                                          "400 0x80040203",
		`{"name":"x","url":"https://a.example:8443/","contract":8,"authtype":5,` + secret + `}`:                                                   "400 0x80040203",
		`{"name":"x","url":"ftp://a.example/","contract":8,"authtype":5,` + secret + `}`:                                                          "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":2,` + secret + `}`:                                                         "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":7,` + secret + `}`:                                                         "400 0x8004431A",
		`{"name":"x","url":"https://a.example","contract":2,"authtype":5,` + secret + `}`:                                                         "501 0x80040219",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":5,"authvalue":"secret"}`:                                                   "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":5,"authvalue":"<settings/>"}`:                                              "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":5,"authvalue":"<settings><setting name=\"a b\" value=\"s\"/></settings>"}`: "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":4}`:                                                                        "400 0x80040203",
		`{"name":"x","url":"https://a.example","contract":8,"authtype":4,"authvalue":"` + strings.Repeat("s", 2049) + `"}`:                        "400 0x80044331",
	} {
		if r := w.do("POST", "serviceendpoints", body); !refusedAs(r, want) {
			t.Errorf("%.120s: %d %s, want %s", body, r.status, r.body, want)
		}
	}
	good := func(message, more string) string { return w.step(message, "contact", e, more) }
	other := w.get("sdkmessagefilters?$select=sdkmessagefilterid&$filter=primaryobjecttypecode%20eq%20'contact'%20and%20name%20eq%20'Create'").rows()[0]["sdkmessagefilterid"].(string)
	update := good("Update", "")
	from := strings.Index(update, "/sdkmessagefilters(") + len("/sdkmessagefilters(")
	for body, want := range map[string]string{
		strings.Replace(good("Create", ""), `"stage":40`, `"stage":20`, 1):                                                  "400 0x80040203",
		strings.Replace(good("Create", ""), `"stage":40`, `"stage":45`, 1):                                                  "400 0x8004431A",
		strings.Replace(good("Create", ""), `"mode":1,`, `"mode":0,`, 1):                                                    "400 0x80040203",
		strings.Replace(strings.Replace(good("Create", ""), `"mode":1,`, `"mode":0,`, 1), `"asyncautodelete":true,`, "", 1): "501 0x80040219",
		strings.Replace(good("Create", ""), `"rank":1,`, "", 1):                                                             "400 0x80040200",
		strings.Replace(good("Create", ""), `"supporteddeployment":0`, `"supporteddeployment":2`, 1):                        "400 0x80040203",
		good("Create", `"filteringattributes":"lastname",`):                                                                 "400 0x80040203",
		good("Update", `"filteringattributes":"lastname,nonsense",`):                                                        "400 0x80040203",
		good("Retrieve", ""):                     "501 0x80040219",
		update[:from] + other + update[from+36:]: "400 0x80040203",
	} {
		if r := w.do("POST", "sdkmessageprocessingsteps", body); !refusedAs(r, want) {
			t.Errorf("%s: %d %s, want %s", body, r.status, r.body, want)
		}
	}
	for _, privilege := range []string{"prvCreateSdkMessageProcessingStep", "prvAppendToServiceEndpoint"} {
		if err := w.s.SetPrivilege(testApp, privilege, false); err != nil {
			t.Fatal(err)
		}
		w.do("POST", "sdkmessageprocessingsteps", good("Create", "")).refused(403, "0x80040220")
		if err := w.s.SetPrivilege(testApp, privilege, true); err != nil {
			t.Fatal(err)
		}
	}
	w.do("POST", "sdkmessageprocessingsteps", good("Create", "")).must(204)
}

func refusedAs(r *reply, want string) bool {
	status, code, _ := strings.Cut(want, " ")
	return words(r.status) == status && strings.Contains(string(r.body), code)
}
