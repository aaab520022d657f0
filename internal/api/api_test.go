package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"

	"github.com/lockstep-sync/lockstep/internal/api"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

// client calls the API and holds every answer of a described operation against our
// own document.
type client struct {
	t       *testing.T
	handler http.Handler
	check   validator.Validator
	app     *app.App
	company apptest.Seeded
	token   string // of both scopes
	reader  string // read only
	log     *bytes.Buffer
}

func open(t *testing.T) *client {
	t.Helper()
	c := &client{t: t, log: &bytes.Buffer{}}
	c.app, c.company = apptest.Open(t, app.Config{Log: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c.handler = api.New(c.app, api.Options{Version: "1.2.3"})
	c.token, c.reader = mint(t, c.app, app.ScopeRead, app.ScopeWrite), mint(t, c.app, app.ScopeRead)
	doc, err := libopenapi.NewDocument(c.document())
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	if c.check, errs = validator.NewValidator(doc, config.WithFormatAssertions(), config.WithoutSecurityValidation()); len(errs) > 0 {
		t.Fatal(errs)
	}
	return c
}

func mint(t *testing.T, a *app.App, scopes ...string) string {
	t.Helper()
	token, _, err := a.CreateToken(t.Context(), "test "+strings.Join(scopes, " "), scopes, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (c *client) document() []byte {
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/openapi.json", nil))
	if w.Code != http.StatusOK {
		c.t.Fatalf("the OpenAPI document answered %d: %s", w.Code, w.Body)
	}
	return w.Body.Bytes()
}

func (c *client) send(token, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

// call sends with the full token and validates the answer.
func (c *client) call(method, path, body string) *httptest.ResponseRecorder {
	c.t.Helper()
	w := c.send(c.token, method, path, body)
	if w.Code == http.StatusNotImplemented || w.Code == http.StatusMethodNotAllowed || w.Code == http.StatusNotFound && strings.Contains(w.Body.String(), "nothing at this path") {
		return w // not an operation of the document
	}
	answer := w.Result()
	answer.Body = io.NopCloser(bytes.NewReader(w.Body.Bytes()))
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	if ok, errs := c.check.ValidateHttpResponse(request, answer); !ok {
		for _, e := range errs {
			c.t.Errorf("%s %s answered %d against our own document: %s: %s", method, path, w.Code, e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				c.t.Errorf("  %s at %s", s.Reason, s.FieldPath)
			}
		}
		c.t.Errorf("  answer: %.800s", w.Body)
	}
	return w
}

func TestCalls(t *testing.T) {
	c := open(t)
	s := c.company
	// In order: later calls build on earlier ones. Content must be in the answer;
	// content that begins with "!" must not.
	for _, tc := range []struct {
		method, path, body string
		status             int
		content            []string
	}{
		{"GET", "/api/v1/accounts", "", 200, []string{`"name":"Contoso mailings"`, `"endpoint":"https://r1-api.dotdigital.com"`, `"id":"` + s.Account.ID}},
		{"GET", "/api/v1/lists", "", 200, []string{`"Customers <EMEA>"`, `"crm_id":"` + s.Customers.CRMID.String(), `"member_table":"contact"`, `"dynamic":true`, `"address_book_id":"42"`, `"membership_action":"remove"`, `"min_opt_in":"unknown"`, `!"next"`}},
		{"GET", "/api/v1/lists?account=Contoso+mailings", "", 200, []string{`"Partners"`}},
		{"GET", "/api/v1/lists?account=nobody", "", 404, []string{`"code":"not_found"`, `"location":"account"`, `Contoso mailings`}},
		{"GET", "/api/v1/lists?acount=x", "", 422, []string{`unknown query parameter`}},
		{"PATCH", "/api/v1/lists/" + s.Partners.ID, `{"activated":true,"sync_order":3,"min_opt_in":"double","subscription_filter":"opt_in_at_least"}`, 200, []string{`"activated":true`, `"sync_order":3`, `"min_opt_in":"double"`, `"name":"Partners"`}},
		{"PATCH", "/api/v1/lists/" + s.Partners.ID, `{"membership_action":"create_lead"}`, 422, []string{`"code":"invalid"`}},
		{"PATCH", "/api/v1/lists/" + s.Partners.ID, `{"address_book_id":"42"}`, 409, []string{`"code":"conflict"`, "belongs to the list"}},
		{"PATCH", "/api/v1/lists/" + s.Partners.ID, `{"subscription_filter":"everyone"}`, 422, []string{`"location":"body.subscription_filter"`, "!everyone"}},
		{"PATCH", "/api/v1/lists/" + s.Partners.ID, `{"name":"x"}`, 422, []string{`unexpected property`}},
		{"PATCH", "/api/v1/lists/none", `{"activated":true}`, 404, nil},
		{"PATCH", "/api/v1/lists/none", `{"activated":`, 400, nil},

		{"GET", "/api/v1/tables", "", 200, []string{`"name":"contact"`, `"firstname"`, `"options":[{"value":1,"label":"Male"}`}},
		{"GET", "/api/v1/data-labels", "", 200, []string{`"FIRSTNAME"`, `"synced":true`}},
		{"POST", "/api/v1/data-labels", `{"name":"score","type":"number","default":"0"}`, 201, []string{`"name":"SCORE"`, `"synced":false`}},
		{"POST", "/api/v1/data-labels", `{"name":"SCORE","type":"number"}`, 409, nil},
		{"POST", "/api/v1/data-labels", `{"name":"CALLS","type":"number","default":"many"}`, 422, []string{`"location":"default"`, "!many"}},
		{"PATCH", "/api/v1/data-labels/" + s.Label.ID, `{"description":"In the shop","private":true}`, 200, []string{`"description":"In the shop"`, `"private":true`, `"type":"number"`}},
		{"PATCH", "/api/v1/data-labels/none", `{"private":true}`, 404, nil},
		{"DELETE", "/api/v1/data-labels/" + s.Label.ID, "", 409, []string{"is mapped"}},
		{"GET", "/api/v1/data-mappings?account=" + s.Account.ID, "", 200, []string{`"column":"numberofvisits"`, `"direction":"to_platform"`}},
		{"POST", "/api/v1/data-mappings", `{"label":"lastname","table":"contact","direction":"to_platform","column":"lastname"}`, 201, []string{`"label":"LASTNAME"`, `"winner":"newest"`, `"empty":"clear"`}},
		{"POST", "/api/v1/data-mappings", `{"label":"LASTNAME","table":"contact","direction":"to_platform","column":"lastname"}`, 409, nil},
		{"POST", "/api/v1/data-mappings", `{"label":"LASTNAME","table":"invoice","direction":"to_platform","column":"name"}`, 422, []string{"crm-metadata"}},
		{"PATCH", "/api/v1/data-mappings/" + s.Mapping.ID, `{"winner":"hold","truncate":true}`, 200, []string{`"winner":"hold"`, `"truncate":true`, `"column":"numberofvisits"`}},
		{"PATCH", "/api/v1/data-mappings/none", `{}`, 404, nil},
		{"DELETE", "/api/v1/data-mappings/" + s.Mapping.ID, "", 204, nil},
		{"DELETE", "/api/v1/data-mappings/" + s.Mapping.ID, "", 404, nil},
		{"DELETE", "/api/v1/data-labels/" + s.Label.ID, "", 204, nil},

		{"GET", "/api/v1/runs", "", 200, []string{`"status":"completed_with_errors"`, `"status":"previewed"`, `"status":"failed"`, `"error":"the platform did not answer"`, `"calls":{"crm":12,"platform":7,"polls":4}`}},
		{"GET", "/api/v1/runs?status=failed&type=data-labels&account=" + s.Account.ID, "", 200, []string{s.Failed.ID, "!" + s.Completed.ID}},
		{"GET", "/api/v1/runs?started_after=2100-01-01T00:00:00Z", "", 200, []string{`"items":[]`}},
		{"GET", "/api/v1/runs?started_after=yesterday", "", 422, nil},
		{"GET", "/api/v1/runs?status=done", "", 422, nil},
		{"GET", "/api/v1/runs?limit=1", "", 200, []string{s.Previewed.ID, `"next":"` + s.Previewed.ID}},
		{"GET", "/api/v1/runs?limit=1&cursor=" + s.Previewed.ID, "", 200, []string{s.Completed.ID}},
		{"GET", "/api/v1/runs?limit=1&cursor=" + s.Completed.ID, "", 200, []string{s.Failed.ID, `!"next"`}},
		{"GET", "/api/v1/runs?limit=5000", "", 422, nil},
		{"GET", "/api/v1/runs/" + s.Completed.ID, "", 200, []string{`"read":5000`, `"list":"` + s.Customers.ID}},
		{"GET", "/api/v1/runs/none", "", 404, []string{`"code":"not_found"`}},
		{"GET", "/api/v1/runs/" + s.Completed.ID + "/changes?limit=1", "", 200, []string{`"kind":"write_contact"`, `"state":"acknowledged"`, `"old":"Bob"`, `"new":"Robert 0"`, `"why":"changed in the CRM"`, `"old":null`, `"new":0`}},
		{"GET", "/api/v1/runs/" + s.Completed.ID + "/changes?cursor=x", "", 422, []string{"cursor"}},
		{"GET", "/api/v1/runs/none/changes", "", 404, nil},
		{"GET", "/api/v1/runs/" + s.Completed.ID + "/findings?limit=2", "", 200, []string{`"code":"rejected"`, `"hint":"correct it in the CRM"`, `"next"`}},
		{"GET", "/api/v1/runs/none/findings", "", 404, nil},
		{"GET", "/api/v1/runs/" + s.Completed.ID + "/lists", "", 200, []string{`"list":"` + s.Customers.ID, `"status":"completed_with_errors"`, `"book_adds":228`, `"refused":2`, `"findings":3`, "!" + s.Newsletter.ID}},
		{"GET", "/api/v1/runs/none/lists", "", 404, []string{`"code":"not_found"`}},
		{"GET", "/api/v1/findings", "", 200, []string{`"id":"finding-0"`, `"retry":{"attempts":3,"next":"2026-11-20T08:50:00Z"}`, "!finding-1"}},
		{"GET", "/api/v1/findings?account=nobody", "", 404, nil},
		{"POST", "/api/v1/findings/none/retry", "", 404, []string{`"code":"not_found"`}},
		{"POST", "/api/v1/runs", `{"type":"crm-metadata"}`, 202, []string{`"status":"queued"`, `"mode":"apply"`}},
		{"POST", "/api/v1/runs", `{"type":"crm-metadata"}`, 202, []string{`"status":"queued"`}}, // the same one
		{"GET", "/api/v1/runs?type=crm-metadata&limit=1", "", 200, []string{`!"next"`}},
		{"POST", "/api/v1/runs", `{"type":"crm-metadata","mode":"preview"}`, 409, []string{"is queued", `"hint":"Wait`}},
		{"POST", "/api/v1/runs", `{"type":"marketing-lists","mode":"preview","account":"Contoso mailings","list":"customers <emea>"}`, 202, []string{`"mode":"preview"`, s.Customers.ID}},
		{"POST", "/api/v1/runs", `{"type":"marketing-lists","list":"` + s.Newsletter.CRMID.String() + `"}`, 202, []string{s.Newsletter.ID}},
		{"POST", "/api/v1/runs", `{"type":"marketing-lists","list":"No such list"}`, 404, []string{`"location":"list"`}},
		{"POST", "/api/v1/runs", `{"type":"forms"}`, 422, []string{"sync type of this version"}},
		{"POST", "/api/v1/runs", `{"type":"marketing-lists","mode":"pretend"}`, 422, []string{"!pretend"}},
		{"POST", "/api/v1/runs", `{}`, 422, []string{"type"}},
		{"POST", "/api/v1/runs", ``, 400, nil},
		{"POST", "/api/v1/runs/" + s.Completed.ID + "/apply", "", 409, []string{"not a finished preview"}},
		{"POST", "/api/v1/runs/" + s.Previewed.ID + "/apply", "", 202, []string{`"preview":"` + s.Previewed.ID, `"mode":"apply"`}},
		{"POST", "/api/v1/runs/" + s.Completed.ID + "/cancel", "", 409, []string{"has ended"}},
		{"POST", "/api/v1/runs/" + s.Completed.ID + "/undo", `{"mode":"preview","record":"contact"}`, 422, []string{"names no record"}},
		{"POST", "/api/v1/runs/" + s.Completed.ID + "/undo", `{"mode":"preview","field":"FIRSTNAME"}`, 202, []string{`"type":"undo"`, `"undoes":"` + s.Completed.ID, `"undo_field":"FIRSTNAME"`, `"mode":"preview"`}},
		{"POST", "/api/v1/runs/" + s.Completed.ID + "/undo", "", 409, []string{"of the same sync is queued"}},
		{"POST", "/api/v1/runs/" + s.Previewed.ID + "/undo", "", 409, []string{"is a preview and wrote nothing"}},
		{"POST", "/api/v1/runs/" + s.Failed.ID + "/undo", "", 409, []string{"there is nothing to undo"}},
		{"POST", "/api/v1/runs/none/undo", "", 404, nil},

		{"GET", "/api/v1/conflicts", "", 200, []string{`"base":"Bob"`, `"crm":"Robert"`, `"platform":"Bobby"`, `"crm_at":"2026-11-20T08:30:00Z"`, `"winner":"held"`}},
		{"GET", "/api/v1/conflicts?resolved=true", "", 200, []string{`"items":[]`}},
		{"POST", "/api/v1/conflicts/" + s.Conflict.ID + "/resolve", `{"winner":"neither"}`, 422, nil},
		{"POST", "/api/v1/conflicts/" + s.Conflict.ID + "/resolve", `{"winner":"platform"}`, 200, []string{`"resolved":true`, `"resolved_by":"token test read write"`}},
		{"POST", "/api/v1/conflicts/" + s.Conflict.ID + "/resolve", `{"winner":"crm"}`, 409, nil},
		{"POST", "/api/v1/conflicts/none/resolve", `{"winner":"crm"}`, 404, nil},

		{"POST", "/api/v1/records/explain", `{"email":" ADA@example.com "}`, 200, []string{`"email":"ada@example.com"`, `"standing":"subscribed"`, `"in_list":true`, `"FIRSTNAME":"Robert"`, `"new":"Robert 0"`}},
		{"GET", "/api/v1/records/explain?email=ada%40example.com", "", 200, []string{`"speaks":true`}},
		{"GET", "/api/v1/records/explain", "", 422, nil},
		{"POST", "/api/v1/records/explain", `{"email":"nobody"}`, 422, []string{`"location":"email"`, "!nobody"}},
		{"POST", "/api/v1/connections/test", `{"adapter":"pigeon","settings":{}}`, 404, []string{"dotdigital"}},
		{"POST", "/api/v1/connections/test", `{"adapter":"dotdigital","settings":{"password":"hush"}}`, 422, []string{`"errors":[`, "!hush"}},

		{"GET", "/api/v1/organizations", "", 200, []string{`"name":"Contoso"`, `"url":"https://contoso.crm4.dynamics.com"`, `"id":"` + s.Organization.ID}},
		{"POST", "/api/v1/organizations", `{"settings":{"url":"https://contoso.crm4.dynamics.com","client_secret":"hush"}}`, 422, []string{`"location":"client_id"`, "!hush"}},
		{"POST", "/api/v1/organizations", `{"settings":{"url":"https://10.0.0.1","client_id":"c","client_secret":"hush","authority":"https://127.0.0.1"}}`, 409, []string{`"code":"guarded"`, `"location":"url"`, `"location":"authority"`, "!hush"}},
		{"POST", "/api/v1/organizations", `{"adapter":"dotdigital","settings":{"user":"u","password":"hush"}}`, 422, []string{`"location":"adapter"`, "!hush"}},
		{"POST", "/api/v1/organizations", `{"adapter":"pigeon","settings":{}}`, 404, []string{`"location":"adapter"`}},
		{"POST", "/api/v1/organizations", `{"name":"x"}`, 422, []string{"settings"}},
		{"PATCH", "/api/v1/organizations/" + s.Organization.ID, `{"name":" Contoso Europe "}`, 200, []string{`"name":"Contoso Europe"`, `"url":"https://contoso.crm4.dynamics.com"`}},
		{"PATCH", "/api/v1/organizations/" + s.Organization.ID, `{"name":" "}`, 422, []string{`"location":"name"`}},
		{"PATCH", "/api/v1/organizations/" + s.Organization.ID, `{"settings":{"url":"http://contoso.crm4.dynamics.com","client_id":"c","client_secret":"hush"}}`, 409, []string{`"location":"url"`, "!hush"}},
		{"PATCH", "/api/v1/organizations/none", `{"name":"x"}`, 404, nil},
		{"DELETE", "/api/v1/organizations/" + s.Organization.ID, "", 409, []string{"1 email accounts"}},
		{"DELETE", "/api/v1/organizations/none", "", 404, nil},
		{"POST", "/api/v1/accounts", `{"organization":"nobody","settings":{"user":"u","password":"hush"}}`, 404, []string{`"location":"organization"`, "!hush"}},
		{"POST", "/api/v1/accounts", `{"settings":{"user":"u"}}`, 422, []string{`"location":"password"`}},
		{"POST", "/api/v1/accounts", `{"settings":{"user":"u","password":"hush","endpoint":"https://localhost:8443"}}`, 409, []string{`"location":"endpoint"`, "!hush"}},
		{"POST", "/api/v1/accounts/none/provision", "", 404, nil},
		{"PATCH", "/api/v1/accounts/" + s.Account.ID, `{"name":"Mailings","description":"All of Europe","priority":["lead","contact","account"],"create_cap":20}`, 200, []string{`"name":"Mailings"`, `"priority":["lead","contact","account"]`, `"create_cap":20`, `"endpoint":"https://r1-api.dotdigital.com"`}},
		{"PATCH", "/api/v1/accounts/" + s.Account.ID, `{"priority":["lead"],"create_cap":-1,"default":false,"name":""}`, 422, []string{`"location":"priority"`, `"location":"create_cap"`, `"location":"default"`, `"location":"name"`}},
		{"PATCH", "/api/v1/accounts/" + s.Account.ID, `{"settings":{"colour":"blue"}}`, 422, []string{`"location":"colour"`}},
		{"PATCH", "/api/v1/accounts/" + s.Account.ID, `{"guard_percent":10,"guard_rows":200,"guard_floor":20,"confirm_changes":true}`, 200, []string{`"guard_percent":10`, `"guard_rows":200`, `"guard_floor":20`, `"confirm_changes":true`}},
		{"PATCH", "/api/v1/accounts/" + s.Account.ID, `{"guard_percent":101,"guard_rows":0,"guard_floor":10001,"bulk_until":"2199-01-01T00:00:00Z"}`, 422, []string{`"location":"guard_percent"`, `"location":"guard_rows"`, `"location":"guard_floor"`, `"location":"bulk_until"`}},
		{"POST", "/api/v1/accounts/" + s.Account.ID + "/lock", `{"reason":" "}`, 422, []string{`"location":"reason"`}},
		{"POST", "/api/v1/accounts/" + s.Account.ID + "/lock", `{"reason":"being restored"}`, 200, []string{`"locked":"being restored"`}},
		{"POST", "/api/v1/accounts/" + s.Account.ID + "/unlock", `{"reason":"restored","by":"Kim"}`, 200, []string{`"unlocked":"`, `by Kim (token `, `: restored"`, `!"locked"`}},
		{"POST", "/api/v1/accounts/none/unlock", `{"reason":"restored"}`, 404, nil},
		{"POST", "/api/v1/rearm", `{}`, 200, []string{`"items":[]`}},
		{"PATCH", "/api/v1/accounts/none", `{}`, 404, nil},
		{"DELETE", "/api/v1/accounts/" + s.Account.ID, "", 409, []string{"activated"}},
		{"DELETE", "/api/v1/accounts/none", "", 404, nil},

		{"GET", "/api/v1/schedules", "", 200, []string{`"type":"suppressions","interval":"5m"`, `"waits":"the account does not sync by itself"`}},
		{"PUT", "/api/v1/schedules", `{"type":"unsubscribes","interval":"4h","windows":[{"days":["mon","fri"],"from":"18:00","to":"08:00","zone":"Europe/London"}]}`, 200, []string{`"interval":"4h"`, `"days":["mon","fri"],"from":"18:00","to":"08:00","zone":"Europe/London"`, `"next":"`}},
		{"PUT", "/api/v1/schedules", `{"type":"unsubscribes","interval":"3h"}`, 422, []string{`"location":"interval"`, "4h"}},
		{"PUT", "/api/v1/schedules", `{"type":"unsubscribes","interval":"4h","windows":[{"from":"25:00","to":"08:00"}]}`, 422, []string{`"location":"windows[0].from"`}},
		{"PUT", "/api/v1/schedules", `{"type":"unsubscribes","interval":"4h","windows":[{"from":"08:00","to":"08:00","days":["monday"]}]}`, 422, []string{`"location":"windows[0].days"`}},
		{"PUT", "/api/v1/schedules", `{"type":"unsubscribes","interval":"4h","windows":[{"from":"08:00","to":"09:00","zone":"Local"}]}`, 422, []string{`"location":"windows[0].zone"`}},
		{"PUT", "/api/v1/schedules", `{"type":"undo","interval":"4h"}`, 422, []string{`"location":"type"`}},
		{"PUT", "/api/v1/schedules", `{"account":"none","type":"unsubscribes","interval":"4h"}`, 404, nil},
		{"POST", "/api/v1/schedules/next", `{"interval":"4h","windows":[{"days":["mon","tue","wed","thu","fri"],"from":"18:00","to":"08:00"}],"from":"2026-11-20T18:00:00Z","count":4}`, 200, []string{`{"times":["2026-11-20T22:00:00Z","2026-11-21T02:00:00Z","2026-11-21T06:00:00Z","2026-11-23T18:00:00Z"]}`}},
		{"GET", "/api/v1/budgets", "", 200, []string{`"kind":"account"`, `"last_hour":{"total":`}},
		{"GET", "/api/v1/budgets/nonsense", "", 404, []string{`"code":"not_found"`}},
		{"PATCH", "/api/v1/budgets/Mailings", `{"per_hour":-1}`, 422, []string{"per_hour"}},
		{"PATCH", "/api/v1/budgets/Mailings", `{"per_hour":1500}`, 200, []string{`"per_hour":1500`}},
		{"PATCH", "/api/v1/budgets/Mailings", `{"per_hour":0}`, 200, nil},
		{"POST", "/api/v1/schedules/next", `{"interval":"manual"}`, 200, []string{`{"times":[]}`}},
		{"POST", "/api/v1/schedules/next", `{"interval":"1h","count":1001}`, 422, nil},
		{"GET", "/api/v1/settings", "", 200, []string{`{"retention_days":30}`}},
		{"PATCH", "/api/v1/settings", `{"retention_days":400}`, 200, []string{`{"retention_days":400}`}},
		{"PATCH", "/api/v1/settings", `{}`, 200, []string{`{"retention_days":400}`}},
		{"PATCH", "/api/v1/settings", `{"retention_days":0}`, 422, []string{`"location":"retention_days"`}},
		{"GET", "/api/v1/configuration", "", 200, []string{`{"installation":{"retention_days":400},"organizations":[{"name":`, `"accounts":[{"name":"Mailings","settings":{"description":"All of Europe","default":true,"priority":["lead","contact","account"]`, `"mappings":[`, `"lists":[`, `"min_opt_in":"double"`, `{"type":"unsubscribes","interval":"4h","windows":[{"days":["mon","fri"]`, "!" + s.Account.ID, "!" + s.Customers.ID}},
		{"GET", "/api/v1/configuration?account=Mailings", "", 200, []string{`"name":"Mailings"`}},
		{"GET", "/api/v1/configuration?account=nobody", "", 404, nil},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"mailings"}]}}`, 200, []string{`"fingerprint":"`, `"changes":[]`}},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"mailings","settings":{"create_cap":21},"mappings":[],"schedules":[]}]}}`, 200, []string{`{"account":"Mailings","item":"settings","action":"changed","fields":[{"name":"create_cap","old":"20","new":"21"}]}`, `"item":"mapping"`, `"action":"deleted"`, `"item":"schedule","name":"unsubscribes"`}},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"Sandbox"}]}}`, 422, []string{`"location":"accounts[0].name"`}},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"Sandbox"}]},"account":"Mailings"}`, 200, nil},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"Mailings","labels":[{"name":"VISITS","kind":"text"}]}]}}`, 422, []string{`"location":"body.document.accounts[0].labels[0].kind"`}},
		{"POST", "/api/v1/configuration/plan", `{"document":{"accounts":[{"name":"Mailings","lists":[{"name":"None"}],"schedules":[{"type":"forms","interval":"1h"}]}]}}`, 422, []string{"2 problems", `"location":"accounts[0].lists[0].name"`, `"location":"accounts[0].schedules[0].type"`}},
		{"POST", "/api/v1/configuration/plan", `{}`, 422, nil},
		{"POST", "/api/v1/configuration/apply", `{"document":{"accounts":[{"name":"Mailings","settings":{"create_cap":21}}]},"plan":"0123"}`, 409, []string{`"code":"conflict"`, `"location":"plan"`}},
		{"POST", "/api/v1/configuration/apply", `{"document":{"accounts":[{"name":"Mailings","settings":{"create_cap":21}}]}}`, 200, []string{`"new":"21"`}},
		{"GET", "/api/v1/accounts", "", 200, []string{`"create_cap":21`}},
		{"GET", "/api/v1/timeline?table=contact", "", 501, nil},
		{"GET", "/api/v1/nonsense", "", 404, []string{"openapi.json"}},
		{"PUT", "/api/v1/runs", `{}`, 405, nil},
		{"DELETE", "/api/v1/lists/" + s.Partners.ID, "", 405, nil},
	} {
		name := fmt.Sprintf("%s %s %s", tc.method, tc.path, tc.body)
		w := c.call(tc.method, tc.path, tc.body)
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
		wantType := "application/json"
		if tc.status >= 400 {
			wantType = "application/problem+json"
		}
		if got := w.Header().Get("Content-Type"); tc.status != 204 && got != wantType {
			t.Errorf("%s: Content-Type %q, want %q", name, got, wantType)
		}
	}
	if strings.Contains(c.log.String(), "@") || strings.Contains(c.log.String(), "hush") {
		t.Errorf("an address or a secret reached the log: %s", c.log)
	}
}

func TestEveryChangeIsPagedOnce(t *testing.T) {
	c := open(t)
	for _, limit := range []int{1, 7, 100, 230, 500} {
		if limit == 1 && testing.Short() {
			continue
		}
		seen, cursor := map[string]bool{}, ""
		for pages := 0; ; pages++ {
			w := c.send(c.token, "GET", fmt.Sprintf("/api/v1/runs/%s/changes?limit=%d&cursor=%s", c.company.Completed.ID, limit, cursor), "")
			var page struct {
				Items []struct{ ID string }
				Next  string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			if len(page.Items) == 0 || len(page.Items) > limit {
				t.Fatalf("limit %d: page %d has %d items", limit, pages, len(page.Items))
			}
			for _, item := range page.Items {
				if seen[item.ID] {
					t.Fatalf("limit %d: change %s came twice", limit, item.ID)
				}
				seen[item.ID] = true
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if len(seen) != apptest.Changes {
			t.Errorf("limit %d: %d changes, want %d", limit, len(seen), apptest.Changes)
		}
	}
}

// described lists the operations of our document with ids filled in.
func (c *client) described() map[string][]string {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(c.document(), &doc); err != nil {
		c.t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		c.t.Errorf("openapi = %q, want 3.1.0", doc.OpenAPI)
	}
	all := map[string][]string{}
	for path, methods := range doc.Paths {
		for m := range methods {
			all[path] = append(all[path], strings.ToUpper(m))
		}
		slices.Sort(all[path])
	}
	return all
}

func TestDocumentNamesTheSurface(t *testing.T) {
	c := open(t)
	got := c.described()
	for path, methods := range map[string]string{
		"/api/v1/organizations": "GET POST", "/api/v1/organizations/{id}": "DELETE PATCH",
		"/api/v1/organizations/{id}/schema": "GET POST", "/api/v1/organizations/{id}/schema/removal": "GET POST", "/api/v1/organizations/{id}/webhook": "DELETE GET POST",
		"/api/v1/accounts": "GET POST", "/api/v1/accounts/{id}": "DELETE PATCH", "/api/v1/accounts/{id}/provision": "POST", "/api/v1/accounts/{id}/lock": "POST", "/api/v1/accounts/{id}/unlock": "POST", "/api/v1/rearm": "POST", "/api/v1/lists": "GET", "/api/v1/lists/{id}": "PATCH",
		"/api/v1/data-labels": "GET POST", "/api/v1/data-labels/{id}": "DELETE PATCH", "/api/v1/data-mappings": "GET POST", "/api/v1/data-mappings/{id}": "DELETE PATCH",
		"/api/v1/tables": "GET", "/api/v1/runs": "GET POST", "/api/v1/runs/{id}": "GET", "/api/v1/runs/{id}/changes": "GET", "/api/v1/runs/{id}/findings": "GET", "/api/v1/runs/{id}/lists": "GET", "/api/v1/findings": "GET", "/api/v1/findings/{id}/retry": "POST",
		"/api/v1/runs/{id}/apply": "POST", "/api/v1/runs/{id}/cancel": "POST", "/api/v1/runs/{id}/undo": "POST", "/api/v1/conflicts": "GET", "/api/v1/conflicts/{id}/resolve": "POST",
		"/api/v1/records/explain": "GET POST", "/api/v1/connections/test": "POST",
		"/api/v1/consent": "GET POST", "/api/v1/consent/verification": "GET", "/api/v1/suppressions": "GET POST", "/api/v1/suppressions/{id}": "DELETE", "/api/v1/suppressions/{id}/resubscribe": "POST", "/api/v1/erasures": "POST",
		"/api/v1/configuration": "GET", "/api/v1/configuration/plan": "POST", "/api/v1/configuration/apply": "POST",
		"/api/v1/settings": "GET PATCH", "/api/v1/schedules": "GET PUT", "/api/v1/schedules/next": "POST",
		"/api/v1/budgets": "GET", "/api/v1/budgets/{id}": "GET PATCH",
	} {
		if strings.Join(got[path], " ") != methods {
			t.Errorf("%s has %v, want %s", path, got[path], methods)
		}
		delete(got, path)
	}
	if len(got) > 0 {
		t.Errorf("the document describes more than this test knows: %v", got)
	}
	if ok, errs := c.check.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("the document is not valid OpenAPI: %s: %s", e.Message, e.Reason)
		}
	}
}

func TestEveryCallNeedsAToken(t *testing.T) {
	c := open(t)
	expired, _, err := c.app.CreateToken(t.Context(), "short", []string{app.ScopeRead}, time.Now().Add(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer stop()
	<-ctx.Done()
	paths := c.described()
	paths["/api/v1/nonsense"] = []string{"GET", "POST"}
	for path, methods := range paths {
		path = strings.ReplaceAll(path, "{id}", "none")
		for _, m := range methods {
			for _, token := range []string{"", "nonsense", "lockstep_" + strings.Repeat("0", 32) + "_AAAA", expired, c.token[:len(c.token)-4] + "AAAA"} {
				w := c.send(token, m, path, "{}")
				if w.Code != http.StatusUnauthorized || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") || w.Header().Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s %s with token %.20q answered %d %v %s", m, path, token, w.Code, w.Header(), w.Body)
				}
			}
			// Reading tokens read, and do nothing else.
			w := c.send(c.reader, m, path, "{}")
			if reads := m == http.MethodGet || path == "/api/v1/records/explain" || path == "/api/v1/consent" || path == "/api/v1/schedules/next" || path == "/api/v1/configuration/plan"; (w.Code == http.StatusForbidden) == reads && !strings.Contains(path, "nonsense") {
				t.Errorf("%s %s with a reading token answered %d %s", m, path, w.Code, w.Body)
			}
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/runs", nil)
	r.SetBasicAuth("admin", c.token)
	w := httptest.NewRecorder()
	if c.handler.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("another scheme answered %d", w.Code)
	}
}

func TestBodyIsBounded(t *testing.T) {
	c := open(t)
	w := c.call("POST", "/api/v1/records/explain", `{"email":"`+strings.Repeat("a", api.MaxBody)+`"}`)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit answered %d: %.300s", w.Code, w.Body)
	}
}

func TestInternalErrorsKeepTheirCause(t *testing.T) {
	c := open(t)
	if err := c.app.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Every use case fails now; what the caller sees is a reference into the log.
	w := c.send(c.token, "GET", "/api/v1/accounts", "")
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusInternalServerError || p.Reference == "" || p.Code != "internal" {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	if strings.Contains(w.Body.String(), "database") {
		t.Errorf("the cause is shown: %s", w.Body)
	}
	if !strings.Contains(c.log.String(), p.Reference) || !strings.Contains(c.log.String(), "database is closed") {
		t.Errorf("the log does not explain reference %s: %s", p.Reference, c.log)
	}
}
