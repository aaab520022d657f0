package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func TestConsentCalls(t *testing.T) {
	c := open(t)
	var made app.Suppression
	const canary = "canary.person@example.com"
	for _, tc := range []struct {
		method, path, body string
		status             int
		content            []string
	}{
		{"GET", "/api/v1/consent?email=" + canary, "", 200, []string{`"email":"` + canary + `"`, `"word":"nothing_on_record"`, `"entries":[]`, `"erased":false`}},
		{"GET", "/api/v1/consent", "", 422, []string{"email"}},
		{"GET", "/api/v1/consent?email=nobody", "", 422, []string{`"location":"email"`, "!nobody"}},
		{"POST", "/api/v1/consent", `{"email":"no@body"}`, 422, []string{`"location":"email"`, "!no@body"}},
		{"GET", "/api/v1/suppressions", "", 200, []string{`"items":[]`}},
		{"GET", "/api/v1/suppressions?q=nobody", "", 422, []string{`"location":"email"`}},
		{"GET", "/api/v1/suppressions?state=gone", "", 422, nil},
		{"GET", "/api/v1/suppressions?cursor=x", "", 422, []string{"cursor"}},
		{"GET", "/api/v1/suppressions?account=nobody", "", 404, []string{"Contoso mailings"}},

		{"POST", "/api/v1/suppressions", `{"email":"no address","evidence":"a letter"}`, 422, []string{`"location":"email"`, "!no address"}},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `"}`, 422, []string{"evidence", "!" + canary}},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `","evidence":"  "}`, 422, []string{`"location":"evidence"`}},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `","evidence":"a letter","reason":"bored"}`, 422, []string{`"location":"reason"`, "unsubscribed, suppressed, hard_bounced, complained"}},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `","evidence":"a letter","account":"nobody"}`, 404, []string{`"location":"account"`}},
		{
			"POST", "/api/v1/suppressions", `{"email":" Canary.Person@example.com ","evidence":"a letter","reason":"complained"}`, 201,
			[]string{`"email":"` + canary + `"`, `"reason":"complained"`, `"word":"blocked"`, `"pending":true`, `"system":"lockstep"`, `"actor":"token test read write"`, `"evidence":"a letter"`},
		},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `","evidence":"a call","reason":"unsubscribed"}`, 200, []string{`"reason":"complained"`, `"evidence":"a letter"`}},
		{"GET", "/api/v1/suppressions?q=" + canary + "&account=Contoso+mailings&state=pending", "", 200, []string{`"reason":"complained"`, `!"next"`}},
		{"GET", "/api/v1/suppressions?state=told", "", 200, []string{`"items":[]`}},
		{"POST", "/api/v1/consent", `{"email":"` + canary + `"}`, 200, []string{`"word":"blocked"`, `"seq":1`, `"seq":2`, `"evidence":"a call"`, `"act":"restricted"`, `"suppression":"`}},
		{"GET", "/api/v1/consent/verification", "", 200, []string{`"entries":2`, `"head":"2:`, `!"broken"`}},
		{"GET", "/api/v1/consent/verification?head=x", "", 422, []string{`"location":"head"`}},
		{"GET", "/api/v1/consent/verification?head=1:" + strings.Repeat("00", 32), "", 200, []string{`"broken":{`, `"seq":1`}},
		{"DELETE", "/api/v1/suppressions/none", "", 404, nil},
		{"DELETE", "/api/v1/suppressions/00000000-0000-0000-0000-000000000001", "", 404, nil},
		{"POST", "/api/v1/erasures", `{"email":"nobody"}`, 422, []string{`"location":"email"`}},
		{"POST", "/api/v1/erasures", `{"email":"` + canary + `"}`, 409, []string{"has still to be told"}},
		{"POST", "/api/v1/erasures", `{"email":"` + canary + `","force":true}`, 200, []string{`"entries":2`, `"restrictions":1`}},
		{"GET", "/api/v1/consent?email=" + canary, "", 200, []string{`"erased":true`, `"word":"blocked"`, `"act":"erased"`, "!a letter"}},
		{"GET", "/api/v1/suppressions", "", 200, []string{"!" + canary, `"reason":"complained"`}},
		{"GET", "/api/v1/consent/verification", "", 200, []string{`"entries":3`, `"erased":2`, `!"broken"`}},
		{"GET", "/api/v1/runs?type=suppressions", "", 200, []string{`"status":"queued"`}},
	} {
		w := c.call(tc.method, tc.path, tc.body)
		name := tc.method + " " + tc.path + " " + tc.body
		if w.Code != tc.status {
			t.Errorf("%s answered %d, want %d: %.600s", name, w.Code, tc.status, w.Body)
			continue
		}
		for _, want := range tc.content {
			not, want := strings.HasPrefix(want, "!"), strings.TrimPrefix(want, "!")
			if strings.Contains(w.Body.String(), want) == not {
				t.Errorf("%s: content %q wrong (unwanted: %v) in %.1200s", name, want, not, w.Body)
			}
		}
		if w.Code == 201 {
			if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
				t.Fatal(err)
			}
			// Deleting is refused with what to do instead.
			w := c.call("DELETE", "/api/v1/suppressions/"+made.ID, "")
			if w.Code != 409 || !strings.Contains(w.Body.String(), "/suppressions/"+made.ID+"/resubscribe") {
				t.Errorf("DELETE answered %d: %s", w.Code, w.Body)
			}
		}
	}
	if made.At.IsZero() || time.Since(made.At) > time.Hour {
		t.Errorf("the suppression was made at %v", made.At)
	}
	if log := c.log.String(); strings.Contains(log, "canary") || strings.Contains(log, "@") {
		t.Errorf("an address reached the log: %s", log)
	}
	// What the calls need.
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/v1/consent", `{"email":"` + canary + `"}`, 200},
		{"POST", "/api/v1/suppressions", `{"email":"` + canary + `","evidence":"a letter"}`, 403},
		{"POST", "/api/v1/erasures", `{"email":"` + canary + `"}`, 403},
	} {
		if w := c.send(c.reader, tc.method, tc.path, tc.body); w.Code != tc.status {
			t.Errorf("%s %s with a reader's token answered %d, want %d", tc.method, tc.path, w.Code, tc.status)
		}
	}
}

func TestSuppressionsArePaged(t *testing.T) {
	c := open(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if w := c.call("POST", "/api/v1/suppressions", `{"email":"`+name+`@example.com","evidence":"a letter"}`); w.Code != 201 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
	}
	seen, cursor := map[string]bool{}, ""
	for range 5 {
		var page struct {
			Items []app.Suppression
			Next  string
		}
		w := c.call("GET", "/api/v1/suppressions?limit=2&cursor="+cursor, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Items {
			seen[s.Email] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 5 || cursor != "" {
		t.Errorf("the pages held %v, cursor %q", seen, cursor)
	}
}
