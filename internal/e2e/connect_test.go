package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/api"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// caller calls the HTTP API of the product.
type caller struct {
	t       *testing.T
	handler http.Handler
	token   string
	said    bytes.Buffer // all answers
}

func newCaller(t *testing.T, a *app.App) *caller {
	t.Helper()
	token, _, err := a.CreateToken(t.Context(), "tester", app.Scopes, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, handler: api.New(a, api.Options{}), token: token}
}

// call expects a status and decodes the answer into out when that is not nil.
func (c *caller) call(method, path string, body any, status int, out any) {
	c.t.Helper()
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	r := httptest.NewRequestWithContext(c.t.Context(), method, "/api/v1"+path, bytes.NewReader(b))
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	c.said.Write(w.Body.Bytes())
	if w.Code != status {
		c.t.Fatalf("%s %s answered %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			c.t.Fatal(err)
		}
	}
}

// A whole connection is made, used, changed and given up over the HTTP API alone; no
// secret is ever answered.
func TestConnectOverTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 20, Seed: 3}, bare: true})
	w.cfg.DataDir = t.TempDir() // a product that knows nothing
	w.open()
	c := newCaller(t, w.app)
	d, m := w.ready.Dataverse, w.ready.Dotdigital
	crm := map[string]string{"url": d.URL, "tenant": d.Tenant, "client_id": d.ClientID, "client_secret": d.ClientSecret, "authority": strings.TrimSuffix(d.Authority, "/"+d.Tenant)}
	mail := map[string]string{"endpoint": m.URL, "user": m.User, "password": m.Password}

	var refused api.Problem
	c.call("POST", "/accounts", cols{"settings": mail}, 404, nil) // no organization yet
	var org lockstep.Organization
	c.call("POST", "/organizations", cols{"name": "Sample", "settings": crm}, 201, &org)
	c.call("POST", "/organizations", cols{"name": "Again", "settings": crm}, 409, nil)
	c.call("POST", "/accounts", cols{"settings": cols{"endpoint": m.URL, "user": m.User, "password": "wrong-hush"}}, 422, &refused)
	if len(refused.Errors) != 1 || refused.Errors[0].Location != "settings" {
		t.Errorf("a wrong password was told as %+v", refused)
	}
	var acc lockstep.EmailAccount
	c.call("POST", "/accounts", cols{"name": "Marketing", "settings": mail}, 201, &acc)
	if acc.Organization != org.ID || acc.Identity.ID == "" || !acc.Default || acc.CreateCap != lockstep.DefaultCreateCap {
		t.Errorf("connected %+v", acc)
	}
	c.call("POST", "/accounts", cols{"name": "Twice", "settings": mail}, 409, nil)
	c.call("POST", "/accounts/"+acc.ID+"/provision", nil, 200, nil)
	var lists struct {
		Items []struct{ ID, Name string }
	}
	c.call("GET", "/lists", nil, 200, &lists)
	if len(lists.Items) == 0 {
		t.Fatal("provisioning found no lists")
	}
	list := "/lists/" + lists.Items[0].ID
	c.call("PATCH", list, cols{"activated": true}, 200, nil)

	// Settings that do not work are not kept; others are, and the rest stays.
	c.call("PATCH", "/accounts/"+acc.ID, cols{"settings": cols{"password": "wrong-hush"}}, 422, nil)
	c.call("PATCH", "/organizations/"+org.ID, cols{"settings": cols{"client_id": ""}}, 422, nil)
	c.call("PATCH", "/accounts/"+acc.ID, cols{"create_cap": 7, "settings": cols{"password": m.Password}}, 200, &acc)
	c.call("PATCH", "/organizations/"+org.ID, cols{"settings": cols{"client_secret": d.ClientSecret}}, 200, nil)
	if acc.CreateCap != 7 || acc.Settings["user"] != m.User {
		t.Errorf("changed to %+v", acc)
	}
	run, err := w.app.RunToEnd(t.Context(), app.RunRequest{Account: acc.ID, Type: lockstep.SyncMarketingLists})
	if err != nil || run.Status != lockstep.RunCompleted && run.Status != lockstep.RunCompletedWithErrors {
		t.Fatalf("the sync ended %s: %v", run.Status, err)
	}

	// Giving it up takes nothing from either side.
	books := func() string {
		var all []struct {
			Name     string
			Contacts int
		}
		w.mail("GET", "/v2/address-books?select=1000", nil, &all)
		return fmt.Sprint(all)
	}
	before := books()
	c.call("DELETE", "/accounts/"+acc.ID, nil, 409, nil)
	c.call("PATCH", list, cols{"activated": false}, 200, nil)
	c.call("DELETE", "/organizations/"+org.ID, nil, 409, nil)
	c.call("DELETE", "/accounts/"+acc.ID, nil, 204, nil)
	c.call("DELETE", "/accounts/"+acc.ID, nil, 404, nil)
	c.call("GET", "/runs/"+run.ID, nil, 404, nil)
	c.call("DELETE", "/organizations/"+org.ID, nil, 204, nil)
	if after := books(); after != before {
		t.Errorf("address books were %s and are %s", before, after)
	}
	for _, secret := range []string{d.ClientSecret, m.Password, "wrong-hush"} {
		if strings.Contains(c.said.String(), secret) {
			t.Error("an answer holds a secret")
		}
	}

	// The same connection can be made again, and a different one cannot take its place.
	c.call("POST", "/organizations", cols{"settings": crm}, 201, &org)
	c.call("POST", "/accounts", cols{"settings": mail}, 201, &acc)
	for name, x := range map[string]struct{ path, operation, body string }{
		fault.Dataverse:  {"/organizations/" + org.ID, "whoami", `{"BusinessUnitId":"11111111-1111-1111-1111-111111111111","UserId":"22222222-2222-2222-2222-222222222222","OrganizationId":"33333333-3333-3333-3333-333333333333"}`},
		fault.Dotdigital: {"/accounts/" + acc.ID, "account-info", `{"id":987654,"properties":[{"name":"ApiEndpoint","type":"String","value":"` + m.URL + `"}]}`},
	} {
		w.answer(name, x.operation, x.body, 5)
		settings := crm
		if name == fault.Dotdigital {
			settings = mail
		}
		c.call("PATCH", x.path, cols{"settings": settings}, 409, &refused)
		if refused.Code != string(lockstep.CodeGuarded) {
			t.Errorf("another system answered for %s: %+v", name, refused)
		}
	}
}
