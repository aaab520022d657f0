package dotdigital

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshotRoundTrip(t *testing.T) {
	a := open(t, Options{Seed: 3})
	list := a.addList("News")
	pref := a.AddPreference("Offers", "o1")
	topics := a.AddCategory("Topics", "t")
	for _, name := range []string{"Shoes", "Hats"} {
		a.call("POST", "/v2/preferences", fmt.Sprintf(`{"publicName":%q,"privateName":"p","isPreference":true,"categoryId":%d,"order":"top"}`, name, topics)).want(200)
	}
	if err := a.AddCustomIdentifier("crmid"); err != nil {
		t.Fatal(err)
	}
	for k := range 2500 {
		a.add(NewContact{Email: fmt.Sprintf("P%d@example.com", k), Values: []Value{{"FIRSTNAME", "x"}}, Lists: []int32{list}})
	}
	a.call("PATCH", "/contacts/v3/contactId/1001", fmt.Sprintf(`{"identifiers":{"crmid":"c-1","mobileNumber":"447700900123"},"preferences":[{"id":%d,"isOptedIn":true}],
		"consentRecords":[{"text":"Yes","dateTimeConsented":"2024-01-31T09:00:00Z"}],"channelProperties":{"sms":{"status":"subscribed"}}}`, pref)).want(200)
	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"p1@example.com"}`).want(200)
	a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/unsubscribe", list), `{"email":"p2@example.com"}`).want(200)
	a.call("DELETE", "/contacts/v3/email/p3@example.com", nil).want(200)
	a.call("DELETE", "/contacts/v3/email/p4@example.com", nil).want(200)
	segment, err := a.AddSegment("Seg", SegmentRule{List: list})
	if err != nil {
		t.Fatal(err)
	}
	a.call("POST", fmt.Sprintf("/v2/segments/refresh/%d", segment), nil).want(202)
	camp := a.AddCampaign(NewCampaign{Name: "C", Tags: []string{"spring"}})
	a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[%d]}`, camp, list)).want(202)
	a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[%d],"sendDate":"2030-01-01"}`, camp, list)).want(202)
	if _, err := a.Recipients(camp, Shares{Opens: 0.1, Clicks: 0.1, PageViews: 0.1, Bounces: 0.1}); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	if err := a.SaveSnapshot(dir); err != nil {
		t.Fatal(err)
	}
	b := open(t, Options{Clock: a.time})
	if err := b.LoadSnapshot(dir); err != nil {
		t.Fatal(err)
	}
	b.SetEndpoint("")
	a.SetEndpoint("")
	for _, path := range []string{
		"/v2/preferences", fmt.Sprintf("/v2/contacts/with-preference/%d/opt-ins-since/2000-01-01", pref), "/v2/address-books", "/v2/data-fields", "/v2/segments", "/v2/contacts/suppressed-since/2000-01-01", "/configuration/v3/customIdentifiers",
		fmt.Sprintf("/v2/address-books/%d/contacts/unsubscribed-since/2000-01-01", list), "/contacts/v3/crmid/c-1", "/contacts/v3/mobileNumber/447700900123",
		fmt.Sprintf("/v2/campaigns/%d/summary", camp), fmt.Sprintf("/v2/campaigns/%d/activities", camp), fmt.Sprintf("/v2/campaigns/%d/opens", camp), "/v2/campaigns/filtered",
	} {
		if d := cmp.Diff(string(a.get(path).want(200).body), string(b.get(path).want(200).body)); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	const all = "/contacts/v3?data-fields=[[ALL]]&include=lists|channelProperties|preferences|consentRecords"
	if d := cmp.Diff(a.get(all).value("_items"), b.get(all).value("_items")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(a.Sends(), b.Sends()); d != "" {
		t.Error(d)
	}
	b.call("POST", "/contacts/v3", `{"identifiers":{"email":"p3@example.com"}}`).want(409)
	if x, y := a.addList("Next"), b.addList("Next"); x != y {
		t.Errorf("next list ids %d and %d", x, y)
	}
	if x, y := a.AddPreference("Next", "n"), b.AddPreference("Next", "n"); x != y {
		t.Errorf("next preference ids %d and %d", x, y)
	}
	if err := b.LoadSnapshot(dir); err == nil {
		t.Error("a used account took a snapshot")
	}
}

func TestSnapshotErrors(t *testing.T) {
	dir := t.TempDir()
	if err := New(Options{}).LoadSnapshot(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no snapshot: %v", err)
	}
	a := open(t, Options{})
	a.fill(10)
	if err := a.SaveSnapshot(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, snapshotFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{}).LoadSnapshot(dir); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a snapshot: %v", err)
	}
}

// TestContactsStayCompact guards the size of a stored contact: a million with a
// dozen values and three memberships have to fit into 900 MB with everything
// else that the process holds.
func TestContactsStayCompact(t *testing.T) {
	const people, budget = 50_000, 600
	s := New(Options{})
	var values []Value
	for k := range 12 {
		name := fmt.Sprintf("FIELD%d", k)
		if err := s.AddField(name, String); err != nil {
			t.Fatal(err)
		}
		values = append(values, Value{name, "some text"})
	}
	var lists []int32
	for k := range 3 {
		id, err := s.AddList(fmt.Sprintf("List %d", k), false)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, id)
	}
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	l := s.Loader()
	for k := range people {
		if _, err := l.Contact(NewContact{Email: fmt.Sprintf("person.number%d@example.com", k), Values: values, Lists: lists}); err != nil {
			t.Fatal(err)
		}
	}
	if each := (used() - before) / people; each > budget {
		t.Errorf("a contact takes %d bytes, more than %d", each, budget)
	}
	runtime.KeepAlive(s)
}
