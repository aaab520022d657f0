package dotdigital

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// readV3 pages through a listing and returns the ids in order of arrival.
func (a *account) readV3(query string, between func(page int)) []int64 {
	a.t.Helper()
	var ids []int64
	marker := ""
	for page := range 50 {
		var out struct {
			Items []struct{ ContactID int64 } `json:"_items"`
			Links struct {
				Next *struct{ Marker, Link string }
			} `json:"_links"`
		}
		a.get("/contacts/v3?" + query + "&marker=" + marker).want(200).into(&out)
		for _, item := range out.Items {
			ids = append(ids, item.ContactID)
		}
		if out.Links.Next == nil {
			return ids
		}
		marker = out.Links.Next.Marker
		if between != nil {
			between(page)
		}
	}
	return ids
}

func (a *account) fill(n int) {
	a.t.Helper()
	l := a.Loader()
	for k := range n {
		if _, err := l.Contact(NewContact{Email: fmt.Sprintf("p%d@example.com", k)}); err != nil {
			a.t.Fatal(err)
		}
	}
}

func TestListingIsStableAndComplete(t *testing.T) {
	a := open(t, Options{})
	a.fill(10)
	want := []int64{1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010}
	if d := cmp.Diff(want, a.readV3("limit=3", nil)); d != "" {
		t.Error(d)
	}
	// The last full page has no successor.
	if got := a.get("/contacts/v3?limit=10").value("_links", "next"); got != nil {
		t.Errorf("a next page after the last row: %v", got)
	}
	// A deletion behind the reader moves nothing.
	got := a.readV3("limit=3", func(page int) {
		if page == 0 {
			a.call("DELETE", "/contacts/v3/contactId/1002", nil).want(200)
		}
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestV2PagesShift(t *testing.T) {
	a := open(t, Options{})
	a.fill(6)
	page := func(skip int) []any {
		return a.get(fmt.Sprintf("/v2/contacts?select=3&skip=%d", skip)).want(200).value().([]any)
	}
	first := page(0)
	a.call("DELETE", "/v2/contacts/1001", nil).want(204)
	second := page(3)
	if len(first) != 3 || len(second) != 2 || second[0].(map[string]any)["id"] != float64(1005) {
		t.Errorf("contact 1004 should have been skipped: %v", second)
	}
	a.time.Advance(time.Hour)
	since := "/v2/contacts/modified-since/" + epoch.Add(time.Minute).Format(time.RFC3339)
	a.call("PATCH", "/contacts/v3/contactId/1006", `{}`).want(200)
	before := a.get(since+"?select=1&skip=0").value(0, "id")
	a.call("PATCH", "/contacts/v3/contactId/1003", `{}`).want(200)
	after := a.get(since+"?select=1&skip=1").value(0, "id")
	if before != float64(1006) || after != float64(1006) {
		t.Errorf("a row that enters the selection should push %v onto the next page, got %v", before, after)
	}
	if got := len(a.get("/v2/contacts/modified-since/2020-01-01").value().([]any)); got != 5 {
		t.Errorf("modified-since without select gave %d rows", got)
	}
}

func TestPagingFaults(t *testing.T) {
	for kind, want := range map[string][]int64{
		"page-dup":  {1001, 1002, 1002, 1003, 1003, 1004},
		"page-skip": {1001, 1002, 1004},
	} {
		a := open(t, Options{Faults: oneFault{kind: kind}})
		a.fill(4)
		got := a.readV3("limit=2", nil)
		if kind == "page-dup" {
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", kind, d)
			}
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
		rows := a.get("/v2/contacts?select=2&skip=2").value().([]any)
		first := rows[0].(map[string]any)["id"]
		if kind == "page-dup" && first != float64(1002) || kind == "page-skip" && first != float64(1004) {
			t.Errorf("%s: second v2 page starts with %v", kind, first)
		}
	}
	a := open(t, Options{Faults: oneFault{kind: "page-dup", args: `{"mode":"loop"}`}})
	a.fill(5)
	if got := a.readV3("limit=2", nil); len(got) < 50 {
		t.Errorf("the loop ended after %d rows", len(got))
	}
	a = open(t, Options{Faults: oneFault{kind: "page-drift", args: `{"contactId":1001}`}})
	a.fill(3)
	a.time.Advance(time.Hour)
	a.get("/contacts/v3").want(200)
	if c, _ := a.FindContact("p0@example.com"); !c.Updated.Equal(epoch.Add(time.Hour)) {
		t.Errorf("drift did not touch the contact: %v", c.Updated)
	}
}

func TestFilters(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	a.fill(3)
	a.time.Advance(time.Hour)
	a.call("PATCH", "/contacts/v3/contactId/1002", fmt.Sprintf(`{"lists":[%d]}`, list)).want(200)
	a.call("PATCH", "/contacts/v3/email/new@example.com", `{}`).want(201)
	at := func(name string) string {
		return name + "=gte::" + epoch.Add(time.Hour).Format(time.RFC3339)
	}
	for query, want := range map[string][]int64{
		at("~modified"):                              {1002, 1004},
		at("~created"):                               {1004},
		fmt.Sprintf("~listId=%d", list):              {1002},
		fmt.Sprintf("~listId=2&%s", at("~modified")): {1002, 1004},
		"~modified=gte::2026-03-02T11:00:00%2B01:00": {1002, 1004},
		"~modified=gte::2026-03-02T10:00:00.001Z":    nil,
	} {
		if d := cmp.Diff(want, a.readV3(query, nil)); d != "" {
			t.Errorf("%s: %s", query, d)
		}
	}
}

func TestRateLimits(t *testing.T) {
	a := open(t, Options{RateLimit: RateLimit{Scheme: Tiered, Low: 2, Medium: 1, High: 5}})
	first := a.get("/v2/address-books").want(200)
	wantHeader := func(r answer, name, want string) {
		t.Helper()
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %s is %q, want %q", r.call, name, got, want)
		}
	}
	wantHeader(first, "X-RateLimit-Limit", "2")
	wantHeader(first, "X-RateLimit-Remaining", "1")
	wantHeader(first, "X-RateLimit-Scope", "lowCallRate")
	wantHeader(first, "X-RateLimit-Reset", fmt.Sprint(epoch.Add(time.Minute).Unix()))
	a.get("/contacts/v3").want(200)
	refused := a.get("/contacts/v3").want(429, "contacts:tooManyRequests")
	wantHeader(refused, "X-RateLimit-Remaining", "0")
	a.get("/v2/address-books").want(429, `"message"`)
	a.get("/v2/contacts/count").want(200)
	for range 9 {
		a.get("/contacts/v3/import/none").want(404)
	}
	a.time.Advance(time.Minute)
	a.get("/contacts/v3").want(200)

	a.SetRateLimit(RateLimit{Scheme: Flat, Hourly: 3})
	camp := a.AddCampaign(NewCampaign{Name: "C"})
	for range 3 {
		r := a.get("/v2/server-time").want(200)
		wantHeader(r, "X-RateLimit-Limit", "")
	}
	a.get("/v2/server-time").want(400, "ERROR_APIUSAGE_EXCEEDED")
	a.get("/contacts/v3").want(400, "ERROR_APIUSAGE_EXCEEDED")
	a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[2]}`, camp)).want(202)
	a.time.Advance(61 * time.Minute)
	a.get("/v2/account-info").want(200, `{"name":"ApiCallsInLastHour","type":"Int","value":"1"}`, `{"name":"ApiCallsRemaining","type":"Int","value":"2"}`)

	a = open(t, Options{Faults: oneFault{kind: "throttle"}})
	a.get("/v2/contacts").want(429)
	a = open(t, Options{Faults: oneFault{kind: "throttle", args: `{"scheme":"flat"}`}})
	a.get("/v2/contacts").want(400, "ERROR_APIUSAGE_EXCEEDED")
}

func TestRegionSlashesAndCounters(t *testing.T) {
	a := open(t, Options{WrongRegion: true})
	a.get("/v2/account-info/").want(200, `"value":"`+a.url+`"`)
	a.get("/v2/contacts").want(403, "Forbidden: Access is denied")
	a.get("/contacts/v3").want(403, "contacts:forbidden")

	faults := fault.New(1, a.time)
	t.Cleanup(faults.Close)
	a = open(t, Options{Faults: faults})
	a.call("POST", "/V2/Address-Books/", `{"name":"News"}`).want(201)
	a.get("/v2/address-books?SELECT=1").want(200)
	a.get("/v2/address-books/77").want(404)
	if err := faults.Add(fault.Fault{Twin: "dotdigital", Kind: "ack-lost", Operation: "contacts.create", Count: 1}); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodPost, a.url+"/contacts/v3", nil)
	req.SetBasicAuth(testUser, testPassword)
	req.Header.Set("Content-Type", "application/json")
	if resp, err := a.client.Do(req); err == nil {
		t.Errorf("the answer should have been lost, got %s", resp.Status)
	}
	got := a.stats.Snapshot()
	for deadline := time.Now().Add(10 * time.Second); got.Calls < 4 && time.Now().Before(deadline); got = a.stats.Snapshot() {
		runtime.Gosched() // a call is counted when it is over, a moment after its answer
	}
	want := map[string]int64{"address-books.create": 1, "address-books.list": 1, "address-books.get": 1, "contacts.create": 1}
	if d := cmp.Diff(want, got.Operations); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int64{"404": 1, "connection-lost": 1}, got.Errors); d != "" {
		t.Error(d)
	}
	if got.BytesIn != int64(len(`{"name":"News"}`)) || got.BytesOut == 0 {
		t.Errorf("bytes in %d out %d", got.BytesIn, got.BytesOut)
	}
}

// TestSlowReaderHoldsNobodyUp asks for much and reads nothing of it.
func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	a := open(t, Options{})
	a.fill(5000)
	conn, err := net.Dial("tcp", a.url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req, _ := http.NewRequest(http.MethodGet, a.url+"/v2/contacts?withFullData=true", nil)
	req.SetBasicAuth(testUser, testPassword)
	// Many answers of a third of a megabyte fill every buffer on the way.
	for range 40 {
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
	}
	// Once no further answer is finished, one is stuck on its way out.
	for same, last := 0, int64(0); last == 0 || same < 200; same++ {
		a.get("/v2/server-time").want(200)
		if n := a.stats.Snapshot().Operations["contacts.list-v2"]; n != last {
			same, last = 0, n
		}
	}
	a.client.Timeout = 10 * time.Second
	a.call("POST", "/v2/address-books", `{"name":"News"}`).want(201)
}
