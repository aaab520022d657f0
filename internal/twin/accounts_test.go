package twin

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// of calls one of the email accounts.
func (c *client) of(k int, method, path, body string, into any) int {
	c.t.Helper()
	a := c.ready.DotdigitalAccounts[k]
	return c.do(method, a.URL+path, body, func(r *http.Request) {
		r.SetBasicAuth(a.User, a.Password)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
	}, into)
}

type books []struct {
	ID   int32
	Name string
}

func (b books) names() []string {
	var out []string
	for _, x := range b {
		out = append(out, x.Name)
	}
	return out
}

func TestSeveralAccounts(t *testing.T) {
	dir := t.TempDir()
	twins, c := start(t, Options{Contacts: 300, Seed: 9, DataDir: dir, DotdigitalAccounts: 3})
	all := c.ready.DotdigitalAccounts
	if len(all) != 3 || len(twins.Accounts) != 3 || twins.Accounts[0] != twins.Dotdigital {
		t.Fatalf("accounts %v", all)
	}
	if first := c.ready.Dotdigital; all[0].URL != first.URL || all[0].User != first.User || all[0].Password != first.Password {
		t.Errorf("the first account is %v and %v", all[0], first)
	}
	mixed := map[string]bool{}
	for k := range all {
		var info struct{ ID int32 }
		if c.of(k, "GET", "/v2/account-info", "", &info); info.ID != int32(k+1) || all[k].AccountID != info.ID {
			t.Errorf("account %d says %d, the ready file %d", k, info.ID, all[k].AccountID)
		}
		name := fmt.Sprintf("Only in %d", k)
		if code := c.of(k, "POST", "/v2/address-books", fmt.Sprintf(`{"name":%q}`, name), nil); code != 201 {
			t.Errorf("account %d: %d", k, code)
		}
		if code := c.of(k, "POST", "/contacts/v3", `{"identifiers":{"email":"same@example.com"}}`, nil); code != 201 {
			t.Errorf("account %d: the address is taken by another account: %d", k, code)
		}
		var page struct {
			Items []struct {
				Identifiers struct{ Email string }
			} `json:"_items"`
		}
		c.of(k, "GET", "/contacts/v3", "", &page)
		if len(page.Items) < 4 {
			t.Errorf("account %d has %d contacts", k, len(page.Items))
		}
		mixed[page.Items[0].Identifiers.Email+page.Items[1].Identifiers.Email] = true
	}
	if len(mixed) != 3 {
		t.Errorf("accounts met the same people: %v", mixed)
	}
	other := all[0]
	other.User = all[1].User
	if code := c.do("GET", other.URL+"/v2/account-info", "", func(r *http.Request) { r.SetBasicAuth(other.User, other.Password) }, nil); code != 401 {
		t.Errorf("the password of another account: %d", code)
	}

	// A person acts in one account only.
	if code := c.control("POST", "/people", `{"account":2,"email":"same@example.com","act":"unsubscribe"}`, nil); code != 200 {
		t.Errorf("people: %d", code)
	}
	for k, want := range []string{"Subscribed", "Unsubscribed", "Subscribed"} {
		if got, _ := twins.Accounts[k].FindContact("same@example.com"); got.Status != want {
			t.Errorf("account %d: %s, want %s", k, got.Status, want)
		}
	}
	// Counters and faults are those of the twin.
	var counts map[string]struct{ Operations map[string]int }
	if c.control("GET", "/stats", "", &counts); counts["dotdigital"].Operations["address-books.create"] != 3 {
		t.Errorf("counted %v", counts["dotdigital"].Operations)
	}
	c.control("POST", "/faults", `{"twin":"dotdigital","operation":"server-time","kind":"status","args":{"code":503}}`, nil)
	for k := range all {
		if code := c.of(k, "GET", "/v2/server-time", "", nil); code != 503 {
			t.Errorf("account %d: %d", k, code)
		}
	}
	c.control("DELETE", "/faults", "", nil)

	c.http.CloseIdleConnections()
	if err := twins.Close(); err != nil {
		t.Fatal(err)
	}
	// What is found is used, and one account more is made.
	again, c := start(t, Options{Contacts: 300, Seed: 9, DataDir: dir, DotdigitalAccounts: 4})
	for k, a := range c.ready.DotdigitalAccounts {
		var got books
		c.of(k, "GET", "/v2/address-books", "", &got)
		if kept := slices.Contains(got.names(), fmt.Sprintf("Only in %d", k)); kept != (k < 3) {
			t.Errorf("account %d after the restart: %v", k, got.names())
		}
		if k < 3 && a != all[k] && (a.User != all[k].User || a.Password != all[k].Password) {
			t.Errorf("account %d has other credentials after the restart", k)
		}
	}
	c.http.CloseIdleConnections()
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	last, _ := start(t, Options{Contacts: 300, DataDir: dir})
	if len(last.Accounts) != 4 {
		t.Errorf("%d accounts after a restart that asked for one", len(last.Accounts))
	}

	if _, err := Start(t.Context(), Options{Contacts: 1, DotdigitalAccounts: 101, DataDir: filepath.Join(dir, "x")}); err == nil || !strings.Contains(err.Error(), "1 to 100") {
		t.Errorf("101 accounts: %v", err)
	}
}
