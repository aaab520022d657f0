package webapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/signin"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// Step is one step of a connection test. The steps after a failed one are not
// tried and are left out.
type Step struct {
	Name  string `json:"name"`            // stable: "reachable"
	Title string `json:"title"`           // for people
	OK    bool   `json:"ok"`              //
	Cause string `json:"cause,omitempty"` // what went wrong
	Fix   string `json:"fix,omitempty"`   // what to do about it
	Err   error  `json:"-"`               // the same as an error
}

// testedTables are the tables that a sync reads; list is checked apart.
var testedTables = []string{"contact", "lead", "account"}

// ConnectTest goes through the connection step by step: reachable, dynamics,
// sign-in, application-user, privileges, metadata, marketing-lists. It changes
// nothing. The last step tells whether the connection works.
func (c *Client) ConnectTest(ctx context.Context) []Step {
	var steps []Step
	step := func(name, title string, err error) bool {
		s := Step{Name: name, Title: title, OK: err == nil, Err: err}
		if err != nil {
			e := lockstep.AsError(err)
			s.Cause, s.Fix = e.Msg, e.Hint
			if s.Cause == "" {
				s.Cause = "an internal error"
			}
		}
		steps = append(steps, s)
		return err == nil
	}

	resp, err := c.http.Do(ctx, remote.Call{Op: "reach the organization", Method: http.MethodGet, URL: c.url("/api/data/v9.0/WhoAmI"), Route: "/WhoAmI", Repeatable: true, Anonymous: true, MaxBody: remote.ErrorBody})
	if err == nil && resp.Status >= 500 && resp.Status != http.StatusNotImplemented {
		err = &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection, Msg: "the server answers that it is not available at the moment", Hint: "try again later; the organization may be in administration mode"}
		_ = resp.Body.Close()
	}
	if !step("reachable", "The address can be reached", err) {
		return steps
	}
	_, challenged := signin.Challenge(resp.Header)
	_ = resp.Body.Close()
	if resp.Status != http.StatusUnauthorized || !challenged {
		step("dynamics", "The address is that of a Dynamics organization", notDynamics())
		return steps
	}
	step("dynamics", "The address is that of a Dynamics organization", nil)

	text, err := c.get(ctx, "ask who we are", "/WhoAmI", "WhoAmI()")
	e := &lockstep.Error{}
	if err != nil {
		e = lockstep.AsError(err)
	}
	// Entra refuses before Dynamics is asked; a 401 of Dynamics is about the token
	// that Entra gave: it is for another organization or tenant.
	if e.Code == lockstep.CodeUnauthorized || strings.HasPrefix(e.Upstream, "AADSTS") || strings.HasPrefix(e.Op, "sign-in") || e.Field == "authority" || e.Field == "tenant" {
		step("sign-in", "The application can sign in", err)
		return steps
	}
	if err != nil && e.Code != lockstep.CodeForbidden {
		step("sign-in", "The application can sign in", err)
		return steps
	}
	step("sign-in", "The application can sign in", nil)
	if err == nil {
		var who struct{ UserID string }
		if json.Unmarshal([]byte(text), &who) != nil || who.UserID == "" {
			err = notDynamics()
		}
	}
	if !step("application-user", "The organization has an application user with a role", err) {
		return steps
	}

	const privileges = "The application user may read contacts, leads, accounts and lists"
	lists := error(nil)
	for _, name := range append(testedTables, "list") {
		_, err := c.get(ctx, "read one "+name, "/"+name+"s", name+"s?$select="+name+"id&$top=1")
		switch {
		case err == nil:
		case lockstep.CodeOf(err) == lockstep.CodeNotFound && (name == "list" || name == "lead"):
			// An environment without the Sales app; the last step says so.
			if name == "list" {
				lists = &lockstep.Error{Code: lockstep.CodeUnsupported, Msg: "this organization has no marketing lists", Hint: "marketing lists come with the Sales or Marketing app of Dynamics: install it", Scope: lockstep.ScopeConnection}
			}
		default:
			step("privileges", privileges, err)
			return steps
		}
	}
	step("privileges", privileges, nil)

	_, err = c.lookUpTable(ctx, "contact")
	if !step("metadata", "The definitions of the tables can be read", err) {
		return steps
	}
	step("marketing-lists", "The organization has marketing lists", lists)
	return steps
}
