package dotdigital

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
)

// Identity asks who answers: account-info, one call.
func (c *Client) Identity(ctx context.Context) (lockstep.AccountIdentity, error) {
	id, _, err := c.accountInfo(ctx, "read the account", false)
	return id, err
}

// grants is what the service told of how many calls it allows. Older API users have an
// allowance an hour, which account-info tells; newer ones a limit a minute for each
// kind of call, which every answer's header tells (developer hub, "Call rate limits").
type grants struct {
	hourly atomic.Int64
	tiered atomic.Bool
}

var _ lockstep.AllowanceKnower = (*Client)(nil)

// HourlyAllowance returns the account's allowance of calls an hour, which all its API
// users share, once account-info was read; 0 where the service limits otherwise.
func (c *Client) HourlyAllowance() int {
	if c.grants.tiered.Load() {
		return 0
	}
	return int(c.grants.hourly.Load())
}

type accountInfo struct {
	ID         *int64 `json:"id"`
	Properties []struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	} `json:"properties"`
}

func (a *accountInfo) property(name string) string {
	for _, p := range a.Properties {
		if s, ok := p.Value.(string); ok && strings.EqualFold(p.Name, name) {
			return s
		}
	}
	return ""
}

// accountInfo reads the account and takes the API address that it names. Region
// r1 answers this call for accounts of all regions.
func (c *Client) accountInfo(ctx context.Context, op string, single bool) (lockstep.AccountIdentity, *link, error) {
	var info accountInfo
	q := call{op: op, method: http.MethodGet, path: "/v2/account-info", home: true, repeat: true, single: single}
	err := c.do(ctx, q, object(&q, &info, func() bool { return info.ID != nil && len(info.Properties) > 0 }))
	if err != nil {
		return lockstep.AccountIdentity{}, nil, err
	}
	at, err := c.settle(q.name(), info.property("ApiEndpoint"))
	if err != nil {
		return lockstep.AccountIdentity{}, nil, err
	}
	used, errUsed := strconv.Atoi(info.property("ApiCallsInLastHour"))
	left, errLeft := strconv.Atoi(info.property("ApiCallsRemaining"))
	if errUsed == nil && errLeft == nil && used >= 0 && left >= 0 {
		c.grants.hourly.Store(int64(used) + int64(left))
	}
	return lockstep.AccountIdentity{ID: strconv.FormatInt(*info.ID, 10), Name: info.property("Name"), Endpoint: at.base.String()}, at, nil
}

// serverTime asks the service for its time: what changed since then is known in
// the service's time, never in ours.
func (c *Client) serverTime(ctx context.Context) (time.Time, error) {
	var t time.Time
	q := call{op: "read the server's time", method: http.MethodGet, path: "/v2/server-time", repeat: true}
	err := c.do(ctx, q, func(body []byte) error {
		body = bytes.TrimSpace(body)
		text := string(body) // documented as JSON and as plain text
		if strings.HasPrefix(text, `"`) && json.Unmarshal(body, &text) != nil {
			text = ""
		}
		if strings.HasPrefix(text, "{") {
			if r := readRefusal(http.StatusBadRequest, body); r.known {
				return judge(q.name(), r, 0, false)
			}
		}
		var ok bool
		if t, ok = parseInstant(text); !ok || t.Year() < 2000 {
			return senseless(&q, "the answer is no time: "+shapeOf(body), nil)
		}
		return nil
	})
	return t, err
}

// ConnectTest tries the connection step by step and stops at the first step that
// fails. It changes nothing and makes at most three calls.
func (c *Client) ConnectTest(ctx context.Context) []adapter.Step {
	const (
		reach    = "Reach the API address"
		isDD     = "Dotdigital answers"
		accepted = "API user is accepted"
		account  = "Account and region"
	)
	ok := func(name, detail string) adapter.Step { return adapter.Step{Name: name, OK: true, Detail: detail} }
	failed := func(name string, e *lockstep.Error) adapter.Step {
		return adapter.Step{Name: name, Detail: e.Msg, Fix: e.Hint}
	}
	id, at, err := c.accountInfo(ctx, "test the connection", true)
	if err == nil {
		steps := []adapter.Step{ok(reach, c.entered.Host), ok(isDD, ""), ok(accepted, "")}
		// The region itself must answer too, not only the address that knows it.
		if _, err = c.serverTime(ctx); err != nil {
			return append(steps, failed(account, lockstep.AsError(err)))
		}
		return append(steps, ok(account, fmt.Sprintf("account %s %q at %s", id.ID, id.Name, at.base.Host)))
	}
	e := lockstep.AsError(err)
	switch {
	case e.Code == lockstep.CodeUnauthorized || e.Code == lockstep.CodeForbidden:
		return []adapter.Step{ok(reach, c.entered.Host), ok(isDD, ""), failed(accepted, e)}
	case e.Code == lockstep.CodeGuarded || e.Code == lockstep.CodeThrottled:
		return []adapter.Step{ok(reach, c.entered.Host), ok(isDD, ""), ok(accepted, ""), failed(account, e)}
	case errors.Is(err, errUnfit) || e.Upstream != "":
		return []adapter.Step{ok(reach, c.entered.Host), failed(isDD, e)}
	}
	return []adapter.Step{failed(reach, e)}
}
