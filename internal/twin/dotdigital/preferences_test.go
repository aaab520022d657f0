package dotdigital

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree writes a definitions answer as one line: names in order, those of a
// category in parentheses, with what a contact says about them.
func tree(v any) string {
	var out []string
	for _, e := range v.([]any) {
		m := e.(map[string]any)
		text := m["publicName"].(string) + m["order"].(string)
		if said, ok := m["isOptedIn"]; ok {
			text += fmt.Sprintf("=%v", said)
		}
		if below, ok := m["preferences"]; ok {
			text += "(" + tree(below) + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestPreferenceDefinitions(t *testing.T) {
	a := open(t, Options{})
	topics := a.AddCategory("Topics", "t")
	shoes, ok := a.AddPreferenceIn(topics, "Shoes", "s")
	if !ok {
		t.Fatal("no preference was added")
	}
	hats, _ := a.AddPreferenceIn(topics, "Hats", "h")
	letter := a.AddPreference("Letter", "l")
	if _, ok := a.AddPreferenceIn(letter, "X", "x"); ok {
		t.Error("a preference is no category")
	}
	for _, step := range []struct {
		id         int32
		body, want string
	}{
		{hats, `{"order":"top"}`, "Topics0(Hats0 Shoes1) Letter1"},
		{letter, `{"order":"0"}`, "Letter0 Topics1(Hats0 Shoes1)"},
		{hats, `{"publicName":"Caps","order":99}`, "Letter0 Topics1(Shoes0 Caps1)"},
		{letter, fmt.Sprintf(`{"categoryId":%d,"order":1}`, topics), "Topics0(Shoes0 Letter1 Caps2)"},
		{letter, `{"categoryId":0}`, "Topics0(Shoes0 Caps1) Letter1"},
		{letter, `{"isPublic":false}`, "Topics0(Shoes0 Caps1) Letter1"},
	} {
		a.call("PUT", fmt.Sprintf("/v2/preferences/%d", step.id), step.body).want(200)
		if got := tree(a.get("/v2/preferences").want(200).value()); got != step.want {
			t.Errorf("%s: %s, want %s", step.body, got, step.want)
		}
	}
	a.time.Advance(time.Hour)
	since := "/v2/preferences/modified-since/" + a.time.Now().Format(time.RFC3339)
	a.call("PUT", fmt.Sprintf("/v2/preferences/%d", shoes), `{"privateName":"s2"}`).want(200)
	// A changed preference stands alone when its category has not changed.
	if got := tree(a.get(since).want(200).value()); got != "Shoes0" {
		t.Errorf("modified: %s", got)
	}
	a.call("PUT", fmt.Sprintf("/v2/preferences/%d", topics), `{"privateName":"t2"}`).want(200)
	if got := tree(a.get(since).want(200).value()); got != "Topics0(Shoes0)" {
		t.Errorf("modified: %s", got)
	}

	a.call("POST", "/contacts/v3", fmt.Sprintf(`{"identifiers":{"email":"a@example.com"},"preferences":[{"id":%d,"isOptedIn":true},{"id":%d,"isOptedIn":false}]}`, shoes, letter)).want(201)
	a.call("DELETE", fmt.Sprintf("/v2/preferences/%d", topics), nil).want(200)
	if got := tree(a.get("/v2/preferences").want(200).value()); got != "Letter0" {
		t.Errorf("a category takes its preferences with it: %s", got)
	}
	c, _ := a.FindContact("a@example.com")
	if diff := cmp.Diff(map[int32]bool{letter: false}, c.Preferences); diff != "" {
		t.Error(diff)
	}
	a.call("POST", "/v2/preferences", `{"publicName":"New","privateName":"n","isPreference":true}`).want(200, fmt.Sprintf(`"id":%d`, letter+1))
}

func TestChoices(t *testing.T) {
	a := open(t, Options{})
	topics := a.AddCategory("Topics", "t")
	shoes, _ := a.AddPreferenceIn(topics, "Shoes", "s")
	letter := a.AddPreference("Letter", "l")
	list := a.addList("News")
	id := a.add(NewContact{Email: "ann@example.com", Lists: []int32{list}})
	updated := func() string { return a.get("/contacts/v3/email/ann@example.com").want(200).value("updated").(string) }
	before := updated()
	a.time.Advance(time.Hour)
	first := a.time.Now()

	if got := tree(a.get("/v2/contacts/ann@example.com/preferences").want(200).value()); got != "Topics0(Shoes0=false) Letter1=false" {
		t.Errorf("nothing said: %s", got)
	}
	if got := a.get("/v2/contacts/ann@example.com/subscriptions").want(200).value("marketingPreferenceOptIns").([]any); len(got) != 0 {
		t.Errorf("nothing said: %v", got)
	}
	if got := a.call("PUT", fmt.Sprintf("/v2/contacts/%d/preferences", id), fmt.Sprintf(`[{"id":%d,"isOptedIn":true}]`, shoes)).want(200); len(got.body) != 0 {
		t.Errorf("answer %s", got.body)
	}
	a.time.Advance(time.Hour)
	second := a.time.Now()
	a.call("PUT", "/v2/contacts/ann@example.com/preferences", fmt.Sprintf(`[{"id":%d,"preferences":[{"id":%d,"isOptedIn":true}]},{"id":%d,"isOptedIn":false}]`, topics, shoes, letter)).want(200)
	// What is not mentioned stays, and the same answer again is no change.
	if got := tree(a.get("/v2/contact/ann@example.com/preferences").want(200).value()); got != "Topics0(Shoes0=true) Letter1=false" {
		t.Errorf("said: %s", got)
	}
	rows := a.get("/v2/contacts/ann@example.com/subscriptions").want(200).value("marketingPreferenceOptIns").([]any)
	if len(rows) != 2 || rows[0].(map[string]any)["dateModifed"] != first.Format(wireTime) || rows[1].(map[string]any)["dateModifed"] != second.Format(wireTime) {
		t.Errorf("rows %v", rows)
	}
	if got := updated(); got != before {
		t.Errorf("updated moved from %s to %s by a preference alone", before, got)
	}
	since := func(p int32, at time.Time) int {
		return len(a.get(fmt.Sprintf("/v2/contacts/with-preference/%d/opt-ins-since/%s", p, at.Format(time.RFC3339))).want(200).value().([]any))
	}
	if since(shoes, first) != 1 || since(shoes, second) != 0 || since(letter, second) != 1 {
		t.Error("opt-ins-since tells every change of mind, also to no, and nothing else")
	}
	if got := a.get(fmt.Sprintf("/v2/contacts/with-preference/%d", letter)).want(200).value().([]any); len(got) != 0 {
		t.Errorf("with-preference tells %v, who said no", got)
	}
	other := a.addList("Other")
	if got := a.get(fmt.Sprintf("/v2/address-books/%d/contacts/with-preference/%d", other, shoes)).want(200).value().([]any); len(got) != 0 {
		t.Errorf("not on the list: %v", got)
	}
	a.get(fmt.Sprintf("/v2/address-books/%d/contacts/with-preference/%d/opt-ins-since/2020-01-01", list, shoes)).want(200, "ann@example.com")

	// One bad entry refuses all of a call.
	a.call("PUT", "/v2/contacts/ann@example.com/preferences", fmt.Sprintf(`[{"id":%d,"isOptedIn":false},{"id":99,"isOptedIn":true}]`, shoes)).want(404)
	c, _ := a.FindContact("ann@example.com")
	if diff := cmp.Diff(map[int32]bool{shoes: true, letter: false}, c.Preferences); diff != "" {
		t.Error(diff)
	}
	if err := a.Act(Act{Email: "ann@example.com", Kind: Unsubscribe}); err != nil {
		t.Fatal(err)
	}
	if since(shoes, first) != 0 {
		t.Error("v2 does not show who is suppressed")
	}
	a.get("/contacts/v3?include=preferences").want(200, `"preferences":[{"id":`+fmt.Sprint(shoes)+`,"isOptedIn":true`)
}

func TestPreferenceKeyset(t *testing.T) {
	a := open(t, Options{})
	p := a.AddPreference("P", "p")
	for i := range 2345 {
		a.add(NewContact{Email: fmt.Sprintf("c%d@example.com", i)})
	}
	a.mu.Lock()
	w := a.person("test")
	for i := range a.count {
		w.choose(i, a.prefs.byID[p], i%2 == 0)
	}
	a.mu.Unlock()
	for _, path := range []string{"/v2/contacts/with-preference/%d", "/v2/contacts/with-preference/%d/opt-ins-since/2020-01-01"} {
		seen, sizes := map[int]bool{}, []int{}
		for from := 0; ; {
			rows := a.get(fmt.Sprintf(path+"?minContactId=%d", p, from)).want(200).value().([]any)
			sizes = append(sizes, len(rows))
			for _, r := range rows {
				m := r.(map[string]any)
				if c, ok := m["contact"]; ok {
					m = c.(map[string]any)
				}
				id := int(m["id"].(float64))
				if id < from || seen[id] {
					t.Fatalf("%s: contact %d again, or before %d", path, id, from)
				}
				seen[id], from = true, id+1
			}
			if len(rows) < 1000 {
				break
			}
		}
		want := []int{1000, 173}
		if strings.Contains(path, "since") {
			want = []int{1000, 1000, 345}
		}
		if diff := cmp.Diff(want, sizes); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

func TestPreferenceImports(t *testing.T) {
	a := open(t, Options{})
	topics := a.AddCategory("Topics", "t")
	shoes, _ := a.AddPreferenceIn(topics, "Shoes", "s")
	letter := a.AddPreference("Letter", "l")
	imp := a.multipartFile("/v2/contacts/import", "a.csv", "Email,preference:topics > shoes,Preference:Letter,Preference:Shoes,ConsentText,ConsentURL,ConsentDateTime\n"+
		"a@example.com,True,,True,Yes please,https://x.example,2026-01-02T03:04:05Z\nb@example.com,FALSE,true,,,,\nc@example.com,perhaps,,,,,\nd@example.com,True,,,,https://x.example,\n").want(202).value("id").(string)
	if got := string(a.get("/v2/contacts/import/" + imp + "/report-faults").want(200).body); !strings.Contains(got, "\nInvalid Entries,c@example.com") || !strings.Contains(got, "\nInvalid Entries,d@example.com") || strings.Count(got, "\n") != 3 {
		t.Errorf("faults %q", got)
	}
	for email, want := range map[string]map[int32]bool{"a@example.com": {shoes: true}, "b@example.com": {shoes: false, letter: true}} {
		c, ok := a.FindContact(email)
		if diff := cmp.Diff(want, c.Preferences); !ok || diff != "" {
			t.Errorf("%s: %s", email, diff)
		}
	}
	a.get("/contacts/v3/email/a@example.com").want(200, `"consentRecords":[{"text":"Yes please","dateTimeConsented":"2026-01-02T03:04:05.000Z","url":"https://x.example","dateTimeCreated"`)
	a.call("POST", "/v2/contacts/import-collection", `{"contacts":[{"email":"e@example.com","dataFields":[{"key":"Preference:Topics>Shoes","value":"True"}],"consentFields":[{"key":"consenttext","value":"Sure"}]}]}`).want(202)
	c, _ := a.FindContact("e@example.com")
	if diff := cmp.Diff(map[int32]bool{shoes: true}, c.Preferences); diff != "" {
		t.Error(diff)
	}
	a.get("/contacts/v3/email/e@example.com").want(200, `"text":"Sure"`)
	a.call("POST", "/v2/contacts/import-collection", `{"contacts":[{"email":"f@example.com","dataFields":[{"key":"Preference:Nope","value":"True"}]}]}`).want(400, "ERROR_DATAFIELD_NOTFOUND")

	id := a.call("PUT", "/contacts/v3/import", fmt.Sprintf(`{"contacts":[
		{"matchIdentifier":"email","identifiers":{"email":"g@example.com"},"preferences":[{"id":%d,"isOptedIn":true}]},
		{"matchIdentifier":"email","identifiers":{"email":"h@example.com"},"preferences":[{"id":%d,"isOptedIn":true}]}]}`, letter, topics)).want(202).value("importId").(string)
	a.get("/contacts/v3/import/"+id).want(200, `"newContacts":2`, `"h@example.com"},"failures":[{"failureCode":"InvalidContact"`)
	c, _ = a.FindContact("g@example.com")
	if diff := cmp.Diff(map[int32]bool{letter: true}, c.Preferences); diff != "" {
		t.Error(diff)
	}
}
