package dotdigital

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSuppressionTimes(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	a.add(NewContact{Email: "a@example.com", Lists: []int32{list}})
	row := func() (string, string) {
		r := a.get("/v2/contacts/suppressed-since/2000-01-01")
		if len(r.value().([]any)) == 0 {
			return "", ""
		}
		return r.value(0, "dateRemoved").(string), r.value(0, "reason").(string)
	}
	a.time.Advance(time.Hour)
	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"A@example.com"}`).want(200, "2026-03-02T10:00:00.000Z")
	a.time.Advance(time.Hour)
	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"a@example.com"}`).want(200, "2026-03-02T10:00:00.000Z")
	if at, why := row(); at != "2026-03-02T10:00:00.000Z" || why != "Unsubscribed" {
		t.Errorf("row %s %s", at, why)
	}
	a.call("PUT", "/v2/contacts/suppress-contacts", `[{"id":1001}]`).want(200)
	if at, why := row(); at != "2026-03-02T11:00:00.000Z" || why != "Suppressed" {
		t.Errorf("row %s %s", at, why)
	}
	// Out of the bin the suppression is still there, the membership is not.
	a.call("DELETE", "/contacts/v3/contactId/1001", nil).want(200)
	if at, _ := row(); at != "" {
		t.Error("a deleted contact is listed as suppressed")
	}
	a.call("PATCH", "/contacts/v3/email/a@example.com", `{}`).want(200, `"status":"suppressed"`, `"lists":[]`)
	if _, why := row(); why != "Suppressed" {
		t.Errorf("reason %q", why)
	}
	a.time.Advance(time.Hour)
	a.call("PATCH", "/contacts/v3/email/a@example.com", `{"channelProperties":{"email":{"status":"subscribed"}}}`).want(200, `"LASTSUBSCRIBED":"2026-03-02T12:00:00Z"`)
	if at, _ := row(); at != "" {
		t.Error("the row outlived the resubscription")
	}
	if got := a.Members(list); got != nil {
		t.Errorf("the resubscription brought memberships back: %v", got)
	}
}

func TestBounces(t *testing.T) {
	a := open(t, Options{})
	a.add(NewContact{Email: "soft@example.com"})
	a.add(NewContact{Email: "hard@example.com"})
	for range 19 {
		a.Bounce("soft@example.com", false)
	}
	if c, _ := a.FindContact("soft@example.com"); c.Status != "Subscribed" {
		t.Errorf("after 19 soft bounces: %s", c.Status)
	}
	a.Bounce("soft@example.com", false)
	a.Bounce("hard@example.com", true)
	for email, want := range map[string]string{"soft@example.com": "SoftBounced", "hard@example.com": "HardBounced"} {
		if c, _ := a.FindContact(email); c.Status != want {
			t.Errorf("%s: %s", email, c.Status)
		}
	}
	a.call("POST", "/v2/contacts/resubscribe-with-no-challenge", `{"unsubscribedContact":{"email":"hard@example.com"}}`).want(200, "ContactCannotBeUnsuppressed")
	a.call("POST", "/v2/contacts/resubscribe-with-no-challenge", `{"unsubscribedContact":{"email":"soft@example.com"}}`).want(200, "ContactAdded")
}

func TestDoubleOptInAndListChallenge(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	a.call("PATCH", "/contacts/v3/email/a@example.com", fmt.Sprintf(`{"channelProperties":{"email":{"optInType":"verifiedDouble"}},"lists":[%d]}`, list)).
		want(201, `"status":"pendingOptIn"`, `"status":"pending"`)
	camp := a.AddCampaign(NewCampaign{Name: "C"})
	a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[%d]}`, camp, list)).want(202)
	if got := a.Sends()[0].Recipients; got != nil {
		t.Errorf("an unconfirmed contact was mailed: %v", got)
	}
	if !a.Confirm("a@example.com") || a.Confirm("a@example.com") {
		t.Error("Confirm should work once")
	}
	a.get("/contacts/v3/email/a@example.com").want(200, `"optInType":"VerifiedDouble","status":"subscribed"`)
	books := fmt.Sprintf("/v2/address-books/%d/contacts/", list)
	a.call("POST", books+"unsubscribe", `{"email":"a@example.com"}`).want(200)
	a.call("POST", books+"resubscribe", `{"unsubscribedContact":{"email":"a@example.com"}}`).want(200, "ContactChallenged")
	if got := a.Members(list); got != nil {
		t.Errorf("member before the challenge was answered: %v", got)
	}
	a.Confirm("a@example.com")
	if d := cmp.Diff([]int64{1001}, a.Members(list)); d != "" {
		t.Error(d)
	}
}

func TestSendsAndEngagement(t *testing.T) {
	a := open(t, Options{SendTime: time.Minute, Seed: 7})
	list := a.addList("News")
	l := a.Loader()
	for k := range 100 {
		if _, err := l.Contact(NewContact{Email: fmt.Sprintf("p%d@example.com", k), Lists: []int32{list}}); err != nil {
			t.Fatal(err)
		}
	}
	a.add(NewContact{Email: "out@example.com", Status: "Suppressed"})
	camp := a.AddCampaign(NewCampaign{Name: "Spring"})
	if _, err := a.Recipients(camp, Shares{Opens: 1}); err == nil {
		t.Error("an unsent campaign had recipients")
	}
	path := fmt.Sprintf("/v2/campaigns/%d", camp)
	id := a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[2],"sendDate":"2026-03-02T10:00:00Z"}`, camp)).want(202).value("id").(string)
	a.get("/v2/campaigns/send/"+id).want(200, "Scheduled")
	a.get(path+"/summary").want(200, `"numSent":0`)
	a.add(NewContact{Email: "late@example.com"})
	a.time.Advance(time.Hour)
	a.get("/v2/campaigns/send/"+id).want(200, "Sending")
	a.add(NewContact{Email: "too-late@example.com"})
	a.time.Advance(time.Minute)
	a.get(path).want(200, `"status":"Sent"`)
	sends := a.Sends()
	if len(sends) != 1 || len(sends[0].Recipients) != 101 || sends[0].ID != id {
		t.Fatalf("%d sends, %d recipients", len(sends), len(sends[0].Recipients))
	}
	a.time.Advance(24 * time.Hour)
	since := a.clock.Now().Format(time.RFC3339)
	a.get("/v2/campaigns/with-activity-since/"+since).want(200, "[]")
	got, err := a.Recipients(camp, Shares{Opens: 0.4, Clicks: 0.2, Bounces: 0.1, Unsubscribes: 0.05, PageViews: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	want := Behaviour{Audience: 101, Opened: 40, Clicked: 20, Bounced: 10, Unsubscribed: 5, Viewed: 10}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	a.get("/v2/campaigns/with-activity-since/"+since).want(200, "Spring")
	a.get(path+"/summary").want(200, `"numSent":101`, `"numDelivered":91`, `"numUniqueOpens":40`, `"numRecipientsClicked":20`, `"numHardBounces":10`, `"numUnsubscribes":5`, `"numPageViews":10`)
	count := func(p string) int { return len(a.get(p).want(200).value().([]any)) }
	if n := count(path + "/activities"); n != 101 {
		t.Errorf("%d activity rows", n)
	}
	if n := count(path + "/activities/since-date/" + since); n != 50 {
		t.Errorf("%d recipients were active", n)
	}
	opens := count(path + "/opens/since-date/" + since)
	a.get(path+"/summary").want(200, fmt.Sprintf(`"numOpens":%d`, opens))
	if n := count("/v2/contacts/suppressed-since/" + since); n != 15 {
		t.Errorf("%d suppressions after 10 bounces and 5 unsubscribes", n)
	}
	if n := len(a.Members(list)); n < 85 || n > 86 {
		t.Errorf("%d members left", n)
	}
}

func TestReorderedEvents(t *testing.T) {
	a := open(t, Options{Faults: oneFault{kind: "reorder", args: `{"mode":"duplicate"}`}})
	a.add(NewContact{Email: "a@example.com"})
	a.add(NewContact{Email: "b@example.com"})
	camp := a.AddCampaign(NewCampaign{Name: "C"})
	for id := 1001; id <= 1002; id++ {
		a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"contactIds":[%d]}`, camp, id)).want(202)
		if _, err := a.Recipients(camp, Shares{Clicks: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var got []int64
	var rows []struct{ ContactID int64 }
	a.get(fmt.Sprintf("/v2/campaigns/%d/clicks", camp)).want(200).into(&rows)
	for _, r := range rows {
		got = append(got, r.ContactID)
	}
	if d := cmp.Diff([]int64{1002, 1001, 1002, 1001}, got); d != "" {
		t.Error(d)
	}
}

func TestSegmentsStandStillBetweenRefreshes(t *testing.T) {
	a := open(t, Options{})
	a.add(NewContact{Email: "a@example.com", Values: []Value{{"FIRSTNAME", "Ann"}}})
	id, err := a.AddSegment("Anns", SegmentRule{Conditions: []Condition{{"firstname", "equals", "ann"}}})
	if err != nil {
		t.Fatal(err)
	}
	a.call("POST", fmt.Sprintf("/v2/segments/refresh/%d", id), nil).want(202)
	a.add(NewContact{Email: "b@example.com", Values: []Value{{"FIRSTNAME", "Ann"}}})
	a.get("/v2/segments").want(200, `"contacts":1`)
	a.call("POST", fmt.Sprintf("/v2/segments/refresh/%d", id), nil).want(202)
	a.get("/v2/segments").want(200, `"contacts":2`)
	if _, err := a.AddList("anns", false); err == nil {
		t.Error("a list took the name of a segment")
	}
}

func TestV2ImportSkipsSuppressedAndCountsReasons(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	for _, status := range []string{"Unsubscribed", "HardBounced", "Suppressed", "IspComplained"} {
		a.add(NewContact{Email: strings.ToLower(status) + "@example.com", Status: status})
	}
	a.add(NewContact{Email: "known@example.com", Values: []Value{{"FIRSTNAME", "Old"}, {"LASTNAME", "Old"}}})
	body := fmt.Sprintf(`{"addressBookIds":[%d],"mergeOption":"OnlyOverwriteIfContactDataNotPopulated","contacts":[
		{"email":"unsubscribed@example.com"},{"email":"hardbounced@example.com"},{"email":"suppressed@example.com"},{"email":"ispcomplained@example.com"},
		{"email":"known@example.com","dataFields":[{"key":"FIRSTNAME","value":"New"},{"key":"gender","value":"x"}]},
		{"email":"KNOWN@example.com"},{"email":"new@example.com"},{"email":"bad"}]}`, list)
	id := a.call("POST", "/v2/contacts/import-collection", body).want(202, "NotFinished").value("id").(string)
	a.get("/v2/contacts/import/"+id+"/report").want(200, `"newContacts":1`, `"updatedContacts":1`, `"unsubscribed":1`, `"hardBounced":1`,
		`"suppressedContacts":1`, `"ispComplaints":1`, `"duplicateEmails":1`, `"invalidEntries":1`)
	faults := string(a.get("/v2/contacts/import/" + id + "/report-faults").want(200).body)
	if got := strings.Count(faults, "\n"); got != 7 {
		t.Errorf("fault report: %s", faults)
	}
	known, _ := a.FindContact("known@example.com")
	if d := cmp.Diff(map[string]string{"FIRSTNAME": `"Old"`, "LASTNAME": `"Old"`, "GENDER": `"x"`}, known.Values); d != "" {
		t.Error(d)
	}
	if got := len(a.Members(list)); got != 2 {
		t.Errorf("%d members", got)
	}
}

func TestIdentifiers(t *testing.T) {
	a := open(t, Options{})
	if err := a.AddCustomIdentifier("crmid"); err != nil {
		t.Fatal(err)
	}
	a.call("PATCH", "/contacts/v3/crmid/c-1", `{"identifiers":{"email":"a@example.com"}}`).want(201, `"crmid":"c-1"`)
	a.call("PATCH", "/contacts/v3/crmid/c-1", `{"identifiers":{"email":"b@example.com","mobileNumber":null}}`).want(200, `"email":"b@example.com"`)
	a.get("/contacts/v3/email/a@example.com").want(404)
	a.call("PATCH", "/contacts/v3/email/b@example.com", `{"identifiers":{"crmid":"c-2"}}`).want(200)
	a.get("/contacts/v3/crmid/c-1").want(404)
	a.call("POST", "/contacts/v3", `{"identifiers":{"mobileNumber":"447700900123"}}`).want(201, `"status":"noSubscription"`)
	a.call("PATCH", "/contacts/v3/mobileNumber/447700900123", `{"identifiers":{"email":"m@example.com"}}`).want(200, `"status":"subscribed"`)
	// A deleted contact keeps its identifiers and its id.
	a.call("DELETE", "/contacts/v3/email/b@example.com", nil).want(200)
	a.call("POST", "/contacts/v3", `{"identifiers":{"email":"b@example.com"}}`).want(409)
	a.call("PATCH", "/contacts/v3/email/b@example.com", `{}`).want(200, `"contactId":1001`)
	a.call("DELETE", "/contacts/v3/email/b@example.com", nil).want(200)
	a.call("POST", "/v2/accounts/empty-recycle-bin", nil).want(202)
	a.call("PATCH", "/contacts/v3/email/b@example.com", `{}`).want(201)
}

func TestHistory(t *testing.T) {
	var got []string
	a := open(t, Options{History: func(w Write) {
		line := fmt.Sprint(w.Kind, " ", w.ContactID, " ", w.List, " ", w.Source)
		for _, c := range w.Changes {
			line += fmt.Sprintf(" %s:%s>%s", c.Name, c.Old, c.New)
		}
		got = append(got, line)
	}})
	list := a.addList("News")
	a.importRows(fmt.Sprintf(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"a@example.com"},"dataFields":{"FIRSTNAME":"A"},"lists":[%d]}]}`, list))
	a.call("PATCH", "/contacts/v3/email/a@example.com", `{"dataFields":{"FIRSTNAME":null}}`).want(200)
	a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/delete", list), `[1001]`).want(202)
	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"a@example.com"}`).want(200)
	a.call("DELETE", "/contacts/v3/email/a@example.com", nil).want(200)
	want := []string{
		`create 1001 0 import email:>"a@example.com" FIRSTNAME:>"A"`, `join-list 1001 3 import`,
		`update 1001 0 api FIRSTNAME:"A">`, `leave-list 1001 3 list-removal`,
		`status 1001 0 api status:"subscribed">"unsubscribed"`, `delete 1001 0 api`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestScannerAgreesWithEncodingJSON holds the hand-written reader against the
// standard library.
func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	piece := rapid.SampledFrom([]string{
		"{", "}", "[", "]", ",", ":", `"a"`, `"\u00e9\ud83d\ude00\ud800x"`, `"\n\"\\"`, "1", "-0.5e+3", "01", "1.", "true", "false", "null", " ", "\t", `"`, "\\", "nul", `"\x"`, "é",
	})
	rapid.Check(t, func(rt *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOfN(piece, 1, 12).Draw(rt, "pieces"), ""))
		if got, want := valid(text), json.Valid(text); got != want {
			rt.Fatalf("valid(%s) = %v, want %v", text, got, want)
		}
	})
	values := rapid.Custom(func(rt *rapid.T) map[string]string {
		return rapid.MapOf(rapid.String(), rapid.String()).Draw(rt, "object")
	})
	rapid.Check(t, func(rt *rapid.T) {
		in := values.Draw(rt, "in")
		text, err := json.Marshal(in)
		if err != nil {
			rt.Fatal(err)
		}
		var own, std map[string]string
		own = map[string]string{}
		sc := scanner{b: text}
		for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
			v := unquote(sc.value())
			own[string(name)] = string(v)
			var back string
			if err := json.Unmarshal(appendQuoted(nil, v), &back); err != nil || back != string(v) {
				rt.Fatalf("appendQuoted(%q) reads back as %q: %v", v, back, err)
			}
		}
		if err := json.Unmarshal(text, &std); err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(std, own); d != "" {
			rt.Fatal(d)
		}
	})
}

func TestCanonicalValues(t *testing.T) {
	num, date, boolean, text := &field{typ: Numeric, name: "N"}, &field{typ: Date, name: "D"}, &field{typ: Boolean, name: "B"}, &field{typ: String, name: "S"}
	tests := []struct {
		f     *field
		lit   string
		loose bool
		want  string
		err   error
	}{
		{num, `1.500`, false, `1.5`, nil},
		{num, `-0.0`, false, `0`, nil},
		{num, `1e3`, false, `1000`, nil},
		{num, `"12"`, true, `12`, nil},
		{num, `"12"`, false, ``, errWrongType},
		{num, `""`, true, ``, nil},
		{num, `999999999999999999`, false, `999999999999999999`, nil},
		{num, `1000000000000000000`, false, ``, errOverflow},
		{num, `1e18`, false, ``, errOverflow},
		{num, `null`, false, ``, nil},
		{date, `"2024-02-29"`, false, `"2024-02-29T00:00:00"`, nil},
		{date, `"2024-02-29T10:11:12Z"`, false, `"2024-02-29T10:11:12"`, nil},
		{date, `"2024-02-28T10:11:12+02:00"`, false, `"2024-02-28T08:11:12"`, nil},
		{date, `"2023-02-29"`, false, ``, errWrongType},
		{date, `"1700-01-01"`, false, ``, errOverflow},
		{date, `1700`, false, ``, errWrongType},
		{date, `"2024-01-31T24:00:00"`, false, ``, errWrongType},
		{date, `"2024-01-15 10:11:12.123"`, false, `"2024-01-15T10:11:12"`, nil},
		{boolean, `true`, false, `true`, nil},
		{boolean, `"True"`, true, `true`, nil},
		{boolean, `"yes"`, true, ``, errWrongType},
		{boolean, `1`, true, ``, errWrongType},
		{text, `"a\u0062"`, false, `"ab"`, nil},
		{text, `""`, false, ``, nil},
		{text, `5`, true, `"5"`, nil},
		{text, `{}`, true, ``, errWrongType},
	}
	for _, tt := range tests {
		got, err := tt.f.canon(nil, []byte(tt.lit), tt.loose)
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s %s (loose %v): %s, %v; want %s, %v", tt.f.typ, tt.lit, tt.loose, got, err, tt.want, tt.err)
		}
	}
}
