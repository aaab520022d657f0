package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// client speaks to Lockstep's HTTP API.
type client struct {
	base, token string
	http        *http.Client
	patience    time.Duration // of one call; 0 = callTime
}

// callTime bounds one call; a call waits for no run.
const callTime = 2 * time.Minute

// maxAnswer bounds an answer: a page of changes, each with its fields.
const maxAnswer = 256 << 20

// call makes one call. body and out may be nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.patience, callTime))
	defer cancel()
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	address := c.base + "/api/v1" + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, payload)
	if err != nil {
		return usage("give it like http://127.0.0.1:8080", "the server's address is not one: %s", c.base)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	limited := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode >= 300 {
		return c.problem(resp.StatusCode, limited)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(limited).Decode(out); err != nil {
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: c.base + " does not answer like Lockstep", Hint: "check the address; a proxy or another program may answer there", Err: err}
	}
	return nil
}

func (c *client) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: fmt.Sprintf("no answer from %s: %s", c.base, err), Hint: "is lockstep serve running there? Or give --data DIR to open the data without it", Err: err}
}

// problem reads problem details as in RFC 9457.
func (c *client) problem(status int, body io.Reader) error {
	var p struct {
		Detail, Code, Hint string
		Errors             []struct{ Location, Message, Hint string }
	}
	if err := json.NewDecoder(body).Decode(&p); err != nil || p.Code == "" {
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: fmt.Sprintf("%s answers %d and not like Lockstep", c.base, status), Hint: "check the address; a proxy or another program may answer there"}
	}
	e := &lockstep.Error{Code: lockstep.Code(p.Code), Msg: p.Detail, Hint: p.Hint}
	if e.Code == lockstep.CodeUnauthorized && e.Hint == "" {
		e.Hint = "give a valid API token in LOCKSTEP_TOKEN or with --token-file"
	}
	var more []error
	for _, f := range p.Errors {
		if !strings.Contains(strings.ToLower(p.Detail), strings.ToLower(strings.TrimRight(f.Message, "."))) {
			more = append(more, &lockstep.Error{Code: e.Code, Field: f.Location, Msg: f.Location + ": " + f.Message, Hint: f.Hint})
		}
	}
	if len(more) > 0 {
		return errors.Join(append([]error{e}, more...)...)
	}
	return e
}

// paged calls each for every item of a collection.
func paged[T any](ctx context.Context, c *client, path string, query url.Values, each func(T) error) error {
	q := url.Values{}
	maps.Copy(q, query)
	for {
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}
		if err := c.call(ctx, http.MethodGet, path, q, nil, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := each(item); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Set("cursor", page.Next)
	}
}

func (c *client) run(ctx context.Context, id string) (run lockstep.Run, err error) {
	err = c.call(ctx, http.MethodGet, "/runs/"+url.PathEscape(id), nil, nil, &run)
	return run, err
}

type runRequest struct {
	Account string            `json:"account,omitempty"`
	Type    lockstep.SyncType `json:"type"`
	List    string            `json:"list,omitempty"`
	Mode    lockstep.Mode     `json:"mode,omitempty"`
}

func (c *client) startRun(ctx context.Context, r runRequest) (run lockstep.Run, err error) {
	err = c.call(ctx, http.MethodPost, "/runs", nil, r, &run)
	return run, err
}

func (c *client) applyPreview(ctx context.Context, id string) (run lockstep.Run, err error) {
	err = c.call(ctx, http.MethodPost, "/runs/"+url.PathEscape(id)+"/apply", nil, nil, &run)
	return run, err
}

// findings counts a run's findings by code.
func (c *client) findings(ctx context.Context, id string) (map[string]int64, error) {
	codes := map[string]int64{}
	err := paged(ctx, c, "/runs/"+url.PathEscape(id)+"/findings", large, func(f lockstep.Finding) error {
		codes[f.Code]++
		return nil
	})
	return codes, err
}

// large asks for the longest pages.
var large = url.Values{"limit": {"500"}}

// change is one change of a run as the API tells it.
type change struct {
	ID      string        `json:"id"`
	Kind    string        `json:"kind"`
	State   string        `json:"state"`
	Record  *lockstep.Ref `json:"record"`
	Contact string        `json:"contact"`
	Name    string        `json:"name"`
	Book    string        `json:"book"`
	Fields  []struct {
		Name     string
		Old, New any
	} `json:"fields"`
	Why   string `json:"why"`
	Cause string `json:"cause"`
}

// listRow is a marketing list as the API tells it.
type listRow struct {
	ID                 string `json:"id"`
	Account            string `json:"account"`
	CRMID              string `json:"crm_id"`
	Name               string `json:"name"`
	MemberTable        string `json:"member_table"`
	Dynamic            bool   `json:"dynamic"`
	Book               string `json:"address_book_id"`
	Activated          bool   `json:"activated"`
	MembershipAction   string `json:"membership_action"`
	SubscriptionFilter string `json:"subscription_filter"`
}

func (c *client) lists(ctx context.Context, account string) (rows []listRow, err error) {
	q := url.Values{}
	if account != "" {
		q.Set("account", account)
	}
	err = paged(ctx, c, "/lists", q, func(l listRow) error {
		rows = append(rows, l)
		return nil
	})
	return rows, err
}

// accountNames are the names of the email accounts by id.
func (c *client) accountNames(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	err := paged(ctx, c, "/accounts", nil, func(a struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	},
	) error {
		names[a.ID] = a.Name
		return nil
	})
	return names, err
}

func (c *client) testConnection(ctx context.Context, adapter string, settings map[string]string) (res app.TestResult, err error) {
	err = c.call(ctx, http.MethodPost, "/connections/test", nil, map[string]any{"adapter": adapter, "settings": settings}, &res)
	return res, err
}

// target says which Lockstep a command speaks to.
type target struct {
	server, token, tokenFile, ready string
	cfg                             app.Config
}

func (env *environment) targetFlags(c *cobra.Command, t *target) {
	c.Flags().StringVar(&t.server, "server", "", "`URL` of a running Lockstep")
	c.Flags().StringVar(&t.token, "token", "", "API token for --server; better given as LOCKSTEP_TOKEN, because others can read a command line")
	c.Flags().StringVar(&t.tokenFile, "token-file", "", "`FILE` with the API token for --server")
	c.Flags().StringVar(&t.ready, "ready-file", "", "ready `FILE` of a running lockstep demo or serve: its address and token")
	env.dataFlags(c, &t.cfg)
}

func (t *target) given() bool {
	return t.server != "" || t.ready != "" || t.cfg.DataDir != "" || t.cfg.DatabaseURL != ""
}

// dial returns a client of the Lockstep that t names. work says that runs must be
// carried out if nobody else does. done must be called.
func (env *environment) dial(ctx context.Context, t target, work bool) (c *client, done func() error, err error) {
	nothing := func() error { return nil }
	switch {
	case t.server != "":
		token := t.token
		if t.tokenFile != "" {
			if token, err = env.secret(t.tokenFile, ""); err != nil {
				return nil, nil, err
			}
		}
		if u, err := url.Parse(t.server); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, nil, usage("give it like http://127.0.0.1:8080", "the server's address is not one: %s", strconv.Quote(t.server))
		}
		if token == "" {
			return nil, nil, usage("set LOCKSTEP_TOKEN or give --token-file FILE", "--server needs an API token")
		}
		return &client{base: strings.TrimRight(t.server, "/"), token: token, http: plainClient()}, nothing, nil
	case t.ready != "":
		r, err := readServer(t.ready)
		if err != nil {
			return nil, nil, err
		}
		return &client{base: r.URL, token: r.Token, http: plainClient()}, nothing, nil
	case t.cfg.DataDir != "" || t.cfg.DatabaseURL != "":
		return env.openClient(ctx, t.cfg, work)
	}
	return nil, nil, usage("give --server URL with LOCKSTEP_TOKEN, --ready-file FILE, or --data DIR when no server runs", "it is not clear which Lockstep is meant")
}

// plainClient follows no redirects: they would carry the token elsewhere.
func plainClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
