package twin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client talks to started twins the way a program would: by the ready file.
type client struct {
	t     *testing.T
	ready Ready
	http  *http.Client
	token string
}

func start(t *testing.T, opt Options) (*Twins, *client) {
	t.Helper()
	twins, err := Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ready.json")
	if err := twins.WriteReady(path); err != nil {
		t.Fatal(err)
	}
	ready, err := ReadReady(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(twins.Ready(), ready); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ready file: %v %v", info.Mode(), err)
	}
	c := &client{t: t, ready: ready, http: &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		if err := twins.Close(); err != nil {
			t.Error(err)
		}
	})
	c.token = c.signIn(c.http, ready.Dataverse.TokenURL)
	return twins, c
}

func (c *client) signIn(h *http.Client, tokenURL string) string {
	c.t.Helper()
	res, err := h.PostForm(tokenURL, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {c.ready.Dataverse.ClientID},
		"client_secret": {c.ready.Dataverse.ClientSecret}, "scope": {c.ready.Dataverse.Scope},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil || res.StatusCode != http.StatusOK || body.Token == "" {
		c.t.Fatalf("token: %d %v", res.StatusCode, err)
	}
	return body.Token
}

func (c *client) do(method, address, body string, auth func(*http.Request), into any) int {
	c.t.Helper()
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	auth(req)
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			c.t.Fatalf("%s %s: %d %v: %.300s", method, address, res.StatusCode, err, b)
		}
	}
	if res.StatusCode >= 400 {
		c.t.Logf("%s %s: %d %.300s", method, address, res.StatusCode, b)
	}
	return res.StatusCode
}

func (c *client) crm(path string, into any) int {
	c.t.Helper()
	address := path
	if !strings.HasPrefix(path, "http") {
		address = c.ready.Dataverse.API + path
	}
	return c.do(http.MethodGet, address, "", func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+c.token)
		r.Header.Set("Prefer", "odata.maxpagesize=500")
	}, into)
}

func (c *client) email(method, path, body string, into any) int {
	c.t.Helper()
	return c.do(method, c.ready.Dotdigital.URL+path, body, func(r *http.Request) {
		r.SetBasicAuth(c.ready.Dotdigital.User, c.ready.Dotdigital.Password)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
	}, into)
}

func (c *client) control(method, path, body string, into any) int {
	c.t.Helper()
	return c.do(method, c.ready.Control.URL+path, body, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+c.ready.Control.Token)
	}, into)
}

type page struct {
	Value []map[string]any `json:"value"`
	Next  string           `json:"@odata.nextLink"`
}

// all counts the rows of a query over all its pages.
func (c *client) all(path string) int {
	c.t.Helper()
	n := 0
	for path != "" {
		var p page
		if code := c.crm(path, &p); code != 200 {
			c.t.Fatalf("%s: %d", path, code)
		}
		n += len(p.Value)
		path = p.Next
	}
	return n
}

func TestTheTwinsAnswer(t *testing.T) {
	twins, c := start(t, Options{Contacts: 2000, Seed: 11})

	var who struct {
		UserID         string `json:"UserId"`
		OrganizationID string `json:"OrganizationId"`
	}
	if code := c.crm("WhoAmI", &who); code != 200 || who.UserID == "" || who.OrganizationID == "" {
		t.Errorf("WhoAmI: %d %+v", code, who)
	}
	var first page
	if code := c.crm("contacts?$select=fullname,emailaddress1,donotbulkemail,birthdate,_parentcustomerid_value,_ownerid_value", &first); code != 200 || len(first.Value) != 500 || first.Next == "" {
		t.Fatalf("contacts: %d, %d rows, next %q", code, len(first.Value), first.Next)
	}
	if name, _ := first.Value[0]["fullname"].(string); !strings.Contains(name, " ") {
		t.Errorf("full name %q", name)
	}
	for set, want := range map[string]int{"contacts": 2000, "accounts": 111, "leads": 600, "lsx_subscriptions": 400, "campaigns": 8} {
		id := strings.TrimSuffix(set, "s") + "id"
		if got := c.all(set + "?$select=" + id); got != want {
			t.Errorf("%d %s, want %d", got, set, want)
		}
	}
	var books []struct{ Name string }
	if code := c.email("GET", "/v2/address-books", "", &books); code != 200 || len(books) < 5 {
		t.Errorf("address books: %d %v", code, books)
	}
	var listing struct {
		Items []struct {
			ContactID int64 `json:"contactId"`
		} `json:"_items"`
	}
	if code := c.email("GET", "/contacts/v3?limit=100", "", &listing); code != 200 || len(listing.Items) != 40 {
		t.Errorf("contacts of the email account: %d, %d", code, len(listing.Items))
	}
	var stats map[string]struct {
		Calls      int64
		Operations map[string]int64
		BytesOut   int64 `json:"bytes_out"`
	}
	if code := c.control("GET", "/stats", "", &stats); code != 200 {
		t.Fatalf("stats: %d", code)
	}
	for name, least := range map[string]int64{"dataverse": 10, "dotdigital": 2, "entra": 1} {
		if s := stats[name]; s.Calls < least || len(s.Operations) == 0 || s.BytesOut == 0 {
			t.Errorf("stats of %s: %+v", name, s)
		}
	}
	if twins.Plan.Lists == nil {
		t.Error("no plan")
	}
}

func TestListsHaveTheirMembers(t *testing.T) {
	twins, c := start(t, Options{Contacts: 2000, Seed: 11})
	sets := map[string]string{"contact": "contacts", "lead": "leads", "account": "accounts"}
	for _, l := range twins.Plan.Lists {
		var list struct {
			Name   string `json:"listname"`
			Query  string `json:"query"`
			Type   bool   `json:"type"`
			Count  int    `json:"membercount"`
			Locked bool   `json:"lockstatus"`
			State  int    `json:"statecode"`
		}
		if code := c.crm("lists("+l.ID.String()+")", &list); code != 200 || list.Name != l.Name || list.Type != l.Dynamic || list.Locked != l.Locked || (list.State == 1) != l.Inactive {
			t.Errorf("%s: %d %+v", l.Name, code, list)
			continue
		}
		if !l.Dynamic {
			got := c.all("listmembers?$select=_entityid_value&$filter=_listid_value%20eq%20" + l.ID.String())
			if got != list.Count || (got == 0) != (l.Name == "Webinar waiting list") {
				t.Errorf("%s: %d members, membercount %d", l.Name, got, list.Count)
			}
			continue
		}
		var p page
		code := c.crm(sets[l.MemberTable]+"?fetchXml="+url.QueryEscape(list.Query), &p)
		if code != 200 || len(p.Value) == 0 && l.Name != "My customers" {
			t.Errorf("%s: %d, %d rows", l.Name, code, len(p.Value))
		}
	}
}

func TestPlainPopulation(t *testing.T) {
	twins, c := start(t, Options{Contacts: 300, Plain: true})
	if got := c.all("contacts?$select=contactid"); got != 300 {
		t.Errorf("%d contacts", got)
	}
	var names []string
	for _, l := range twins.Plan.Lists {
		names = append(names, l.Name)
	}
	if diff := cmp.Diff([]string{"Everyone (static)", "Everyone"}, names); diff != "" {
		t.Error(diff)
	}
	var listing struct {
		Items []any `json:"_items"`
	}
	if c.email("GET", "/contacts/v3", "", &listing); len(listing.Items) != 0 {
		t.Errorf("the email account holds %d contacts", len(listing.Items))
	}
}

func TestAHundredThousandContacts(t *testing.T) {
	_, c := start(t, Options{Contacts: 100_000, Seed: 1})
	var counts struct {
		Collection struct {
			Keys   []string
			Values []int
		} `json:"EntityRecordCountCollection"`
	}
	if code := c.crm("RetrieveTotalRecordCount(EntityNames=@p1)?@p1="+url.QueryEscape(`["contact","lead"]`), &counts); code != 200 {
		t.Fatal(code)
	}
	if diff := cmp.Diff([]int{100_000, 30_000}, counts.Collection.Values); diff != "" {
		t.Error(diff)
	}
}

func TestSignInOverTLS(t *testing.T) {
	_, c := start(t, Options{Contacts: 10})
	pem, err := os.ReadFile(c.ready.Dataverse.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the file")
	}
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer secure.CloseIdleConnections()
	c.token = c.signIn(secure, c.ready.Dataverse.AuthorityTLS+"/oauth2/v2.0/token")
	if code := c.crm("WhoAmI", nil); code != 200 {
		t.Errorf("a token got over TLS: %d", code)
	}
	if _, err := c.http.Get(c.ready.Dataverse.AuthorityTLS); err == nil {
		t.Error("the certificate is trusted without its authority")
	}
}

func TestFaultsAndClockReachTheTwins(t *testing.T) {
	_, c := start(t, Options{Contacts: 10})
	if users := c.all("systemusers?$select=systemuserid&$filter=_businessunitid_value%20eq%20null"); users != 0 {
		t.Errorf("%d users without business unit", users)
	}
	for _, twin := range []string{"dataverse", "dotdigital"} {
		if code := c.control("POST", "/faults", fmt.Sprintf(`{"twin":%q,"kind":"status","count":1,"args":{"code":502}}`, twin), nil); code != 200 {
			t.Fatalf("faults: %d", code)
		}
	}
	if code := c.crm("WhoAmI", nil); code != 502 {
		t.Errorf("dataverse: %d", code)
	}
	if code := c.email("GET", "/v2/address-books", "", nil); code != 502 {
		t.Errorf("dotdigital: %d", code)
	}
	if code := c.crm("WhoAmI", nil); code != 200 {
		t.Errorf("after the fault: %d", code)
	}
	c.control("POST", "/faults", `{"twin":"dataverse","kind":"refuse"}`, nil)
	if res, err := c.http.Get(c.ready.Dataverse.API); err == nil {
		res.Body.Close()
		t.Error("a refused call was answered")
	}
	c.control("DELETE", "/faults", "", nil)
	if code := c.crm("WhoAmI", nil); code != 200 {
		t.Errorf("after DELETE /faults: %d", code)
	}
	c.control("POST", "/clock", `{"advance":"2h"}`, nil) // the token's life is one hour
	if code := c.crm("WhoAmI", nil); code != 401 {
		t.Errorf("with an old token: %d", code)
	}
	c.token = c.signIn(c.http, c.ready.Dataverse.TokenURL)
	if code := c.crm("WhoAmI", nil); code != 200 {
		t.Errorf("with a new token: %d", code)
	}
	res, err := c.http.Get(c.ready.Dataverse.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if date, err := http.ParseTime(res.Header.Get("Date")); err != nil || time.Until(date) < 119*time.Minute {
		t.Errorf("Date %v %v", date, err)
	}
}

// write makes a call with a body to the organization.
func (c *client) write(method, path, body string) int {
	c.t.Helper()
	return c.do(method, c.ready.Dataverse.API+path, body, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+c.token)
		r.Header.Set("Content-Type", "application/json")
	}, nil)
}

func TestEveryKindReachesItsTwins(t *testing.T) {
	twins, c := start(t, Options{Contacts: 2000, Seed: 2})
	var books []struct {
		ID   int64
		Name string
	}
	var campaigns []struct{ ID int64 }
	c.email("GET", "/v2/address-books", "", &books)
	c.email("GET", "/v2/campaigns", "", &campaigns)
	c.email("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignID":%d,"addressBookIDs":[%d],"contactIDs":[]}`, campaigns[0].ID, books[len(books)-1].ID), nil)
	c.control("POST", "/clock", `{"advance":"30m"}`, nil)
	c.control("POST", "/recipients", fmt.Sprintf(`{"campaign":%d,"opens":1}`, campaigns[0].ID), nil)
	var tracked struct {
		Value []struct{ ContactID string }
		Delta string `json:"@odata.deltaLink"`
	}
	c.do("GET", c.ready.Dataverse.API+"contacts?$select=fullname", "", func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+c.token)
		r.Header.Set("Prefer", "odata.track-changes")
	}, &tracked)
	if tracked.Delta == "" || len(tracked.Value) == 0 {
		t.Fatal("no delta link")
	}
	var p page
	c.crm("contacts?$select=fullname", &p)
	next := p.Next
	calls := map[string]func(){
		"dataverse": func() {
			c.crm("contacts?$select=fullname", nil)
			c.crm(next, nil)
			c.crm(tracked.Delta, nil)
			c.write("PATCH", "contacts("+tracked.Value[0].ContactID+")", `{"jobtitle":"Buyer"}`)
		},
		"dotdigital": func() {
			c.email("GET", "/v2/contacts?select=10&skip=10", "", nil)
			c.email("PUT", "/contacts/v3/import", `{"mode":"createOrUpdate","contacts":[{"matchIdentifier":"email","identifiers":{"email":"new@example.com"}}]}`, nil)
			c.email("GET", fmt.Sprintf("/v2/campaigns/%d/opens?select=10", campaigns[0].ID), "", nil)
		},
		"entra": func() { c.signIn(c.http, c.ready.Dataverse.TokenURL) },
	}
	transport := map[string]bool{
		"refuse": true, "reset-before": true, "ack-lost": true, "late-apply": true, "hang": true, "slow-body": true,
		"truncate": true, "garbage": true, "status": true, "retry-after": true, "clock": true, "huge": true,
	}
	for _, kind := range fault.Kinds() {
		if transport[kind] {
			continue // tested where they are made
		}
		for _, twin := range fault.TwinsOf(kind) {
			t.Run(twin+" "+kind, func(t *testing.T) {
				if err := twins.Faults.Add(fault.Fault{Twin: twin, Kind: kind}); err != nil {
					t.Fatal(err)
				}
				calls[twin]()
				if s := twins.Faults.States()[0]; s.Hits == 0 {
					t.Error("the twin never asked for it")
				}
				twins.Faults.Clear()
				if code := c.crm("WhoAmI", nil); code != 200 {
					t.Errorf("afterwards WhoAmI answers %d", code)
				}
			})
		}
	}
}

func TestSendsAndRecipients(t *testing.T) {
	_, c := start(t, Options{Contacts: 2000, Seed: 4})
	var campaigns []struct{ ID int64 }
	if code := c.email("GET", "/v2/campaigns", "", &campaigns); code != 200 || len(campaigns) == 0 {
		t.Fatalf("campaigns: %d %v", code, campaigns)
	}
	var books []struct {
		ID       int64
		Name     string
		Contacts int
	}
	c.email("GET", "/v2/address-books", "", &books)
	size := 0
	for _, b := range books {
		if b.Name == "Website sign-ups" {
			size = b.Contacts
			code := c.email("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignID":%d,"addressBookIDs":[%d],"contactIDs":[]}`, campaigns[0].ID, b.ID), nil)
			if code != 201 && code != 200 && code != 202 {
				t.Fatalf("send: %d", code)
			}
		}
	}
	c.control("POST", "/clock", `{"advance":"1h"}`, nil)
	var sent struct {
		Sends []struct {
			Campaign   int64
			Recipients []string
		}
	}
	if code := c.control("GET", "/sends", "", &sent); code != 200 || len(sent.Sends) != 1 || sent.Sends[0].Campaign != campaigns[0].ID || len(sent.Sends[0].Recipients) != size || size == 0 {
		t.Fatalf("sends: %d %+v, want %d recipients", code, sent, size)
	}
	var reaction struct{ Recipients, Opens, Unsubscribes int }
	if code := c.control("POST", "/recipients", fmt.Sprintf(`{"campaign":%d,"opens":1}`, campaigns[0].ID), &reaction); code != 200 || reaction.Recipients != size || reaction.Opens != size {
		t.Errorf("recipients: %d %+v", code, reaction)
	}
	if code := c.control("POST", "/recipients", `{"campaign":4711,"opens":1}`, nil); code != 409 {
		t.Errorf("an unknown campaign: %d", code)
	}
}

func TestCloseEndsHangingCalls(t *testing.T) {
	twins, c := start(t, Options{Contacts: 10})
	c.control("POST", "/faults", `{"twin":"dataverse","kind":"hang"}`, nil)
	done := make(chan error, 1)
	go func() {
		res, err := c.http.Get(c.ready.Dataverse.API + "WhoAmI")
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	for twins.Faults.States()[0].Hits == 0 {
		runtime.Gosched() // until the call hangs
	}
	if err := twins.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("the call was answered")
	}
}

func TestStartCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{Contacts: 50_000}); err == nil {
		t.Error("a cancelled start succeeded")
	}
}

func TestStartRefusesNonsense(t *testing.T) {
	for name, opt := range map[string]Options{
		"contacts": {Contacts: -1}, "too many": {Contacts: population.MaxContacts + 1}, "host": {Contacts: 1, Host: "192.0.2.1"},
		"folder": {Contacts: 1, DataDir: filepath.Join(t.TempDir(), "missing")},
	} {
		if twins, err := Start(t.Context(), opt); err == nil {
			twins.Close()
			t.Errorf("%s: started", name)
		}
	}
}

func TestRestartKeepsAddressesAndCredentials(t *testing.T) {
	dir := t.TempDir()
	twins, err := Start(t.Context(), Options{Contacts: 10, DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	before := twins.Ready()
	twins.Clock.Advance(48 * time.Hour)
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Start(t.Context(), Options{Contacts: 10, DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if diff := cmp.Diff(before, again.Ready()); diff != "" {
		t.Error(diff)
	}
	if ahead := time.Until(again.Clock.Now()); ahead < 47*time.Hour {
		t.Errorf("the clock is %v ahead", ahead)
	}
}

// With a data folder the twins go on with what was written, not with a new company.
func TestRecordsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	twins, c := start(t, Options{Contacts: 300, Seed: 9, DataDir: dir})
	var p page
	c.crm("contacts?$select=fullname&$top=1", &p)
	id := fmt.Sprint(p.Value[0]["contactid"])
	if code := c.write("PATCH", "contacts("+id+")", `{"jobtitle":"Snapshot keeper"}`); code != 204 {
		t.Fatalf("edit: %d", code)
	}
	c.email("POST", "/v2/address-books", `{"name":"Kept over a restart"}`, nil)
	c.control("POST", "/snapshot", "", nil)
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
	again, c := start(t, Options{Contacts: 77, Seed: 1, DataDir: dir})
	if len(again.Plan.Lists) != len(twins.Plan.Lists) {
		t.Errorf("the plan has %d lists, %d before", len(again.Plan.Lists), len(twins.Plan.Lists))
	}
	var one struct{ Jobtitle string }
	if code := c.crm("contacts("+id+")?$select=jobtitle", &one); code != 200 || one.Jobtitle != "Snapshot keeper" {
		t.Errorf("after the restart: %d, %+v", code, one)
	}
	var books []struct{ Name string }
	c.email("GET", "/v2/address-books", "", &books)
	if !slices.ContainsFunc(books, func(b struct{ Name string }) bool { return b.Name == "Kept over a restart" }) {
		t.Errorf("the address book is gone: %v", books)
	}
}
