package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/bench/work"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// product is a running "lockstep serve", set up to carry lists of the twins.
type product struct {
	process
	url, token string
	account    string
	pprof      string // address of the profiler, when there is one
	ready      string // its ready file
	command    command
}

// command is how a process was started.
type command struct {
	program string
	args    []string
	env     []string
}

// setup is what an administrator set up before the process starts.
type setup struct {
	lists    []string // activated in each account
	twoWay   string   // a label that the platform may change too
	database string   // URL; empty = embedded
}

// organization is the name of the connected CRM.
const organization = "Sample"

// prepared is what prepare leaves behind.
type prepared struct {
	token    string
	accounts []string
	hosts    []string // that the process may call
}

// prepare sets a data folder up the way an administrator does: connect, provision,
// label, map, activate lists. It runs in the benchmark's own process, so that the
// measured process starts with a finished configuration.
func prepare(ctx context.Context, dir string, t *twins, how setup) (out prepared, err error) {
	for _, a := range []string{t.ready.Dataverse.URL, t.ready.Dataverse.Authority, t.ready.Dotdigital.URL} {
		u, err := url.Parse(a)
		if err != nil {
			return out, err
		}
		out.hosts = append(out.hosts, u.Host)
	}
	a, err := app.Open(ctx, app.Config{DataDir: dir, DatabaseURL: how.database, AllowHosts: out.hosts})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, a.Close(ctx)) }()
	if err := a.Start(ctx); err != nil {
		return out, err
	}
	if _, err := a.EnsureAdmin(ctx); err != nil {
		return out, err
	}
	if out.token, _, err = a.CreateToken(ctx, "bench", app.Scopes, time.Time{}); err != nil {
		return out, err
	}
	d := t.ready.Dataverse
	org, err := a.ConnectOrganization(ctx, "", organization, "dynamics", adapter.Settings{
		"url": d.URL, "tenant": d.Tenant,
		"client_id": d.ClientID, "client_secret": d.ClientSecret, "authority": strings.TrimSuffix(d.Authority, "/"+d.Tenant),
	})
	if err != nil {
		return out, err
	}
	for i, m := range t.accounts() {
		name := "Marketing"
		if i > 0 {
			name = fmt.Sprintf("Marketing %d", i+1)
		}
		acc, err := a.ConnectAccount(ctx, "", org.ID, name, "dotdigital", adapter.Settings{"endpoint": m.URL, "user": m.User, "password": m.Password})
		if err != nil {
			return out, err
		}
		if err := prepareAccount(ctx, a, acc.ID, how); err != nil {
			return out, fmt.Errorf("account %s: %w", name, err)
		}
		out.accounts = append(out.accounts, acc.ID)
	}
	return out, nil
}

func prepareAccount(ctx context.Context, a *app.App, account string, how setup) error {
	if err := a.Provision(ctx, account); err != nil {
		return err
	}
	labels, err := a.Labels(ctx, account)
	if err != nil {
		return err
	}
	for _, f := range work.Fields {
		if slices.ContainsFunc(labels, func(l lockstep.DataLabel) bool { return l.Name == f.Label }) {
			continue // every account has this field from the start
		}
		if _, err := a.SaveLabel(ctx, lockstep.DataLabel{Account: account, Name: f.Label, Type: f.Type}); err != nil {
			return fmt.Errorf("label %s: %w", f.Label, err)
		}
	}
	if _, err := a.RunToEnd(ctx, app.RunRequest{Account: account, Type: lockstep.SyncDataLabels}); err != nil {
		return err
	}
	if err := mapFields(ctx, a, account, how.twoWay); err != nil {
		return err
	}
	for _, name := range how.lists {
		l, err := a.List(ctx, account, name)
		if err != nil {
			return err
		}
		yes := true
		if _, err = a.UpdateList(ctx, l.ID, app.ListPatch{Activated: &yes}); err != nil {
			return err
		}
	}
	return nil
}

func mapFields(ctx context.Context, a *app.App, account, twoWay string) error {
	old, err := a.Mappings(ctx, account)
	if err != nil {
		return err
	}
	for _, m := range old {
		if err := a.DeleteMapping(ctx, m.ID); err != nil {
			return err
		}
	}
	for _, f := range work.Fields {
		m := lockstep.DataMapping{Account: account, Label: f.Label, Table: "contact", Direction: lockstep.ToPlatform, Column: f.Column}
		if _, err := a.SaveMapping(ctx, m); err != nil {
			return fmt.Errorf("map %s: %w", f.Label, err)
		}
		if f.Label != twoWay {
			continue
		}
		m.Direction = lockstep.ToCRM
		if _, err := a.SaveMapping(ctx, m); err != nil {
			return fmt.Errorf("map %s back: %w", f.Label, err)
		}
	}
	return nil
}

// startProduct starts Lockstep on the twins with one list. Profiled, it runs in this
// program's binary, which serves pprof besides; its figures are not used.
func (b *bench) startProduct(t *twins, list string, profiled bool) (*product, error) {
	return b.startWith(t, setup{lists: []string{list}}, profiled)
}

func (b *bench) startWith(t *twins, how setup, profiled bool) (*product, error) {
	dir, err := os.MkdirTemp(b.dir, "data-")
	if err != nil {
		return nil, err
	}
	set, err := prepare(b.ctx, dir, t, how)
	if err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	p := &product{token: set.token, account: set.accounts[0], ready: filepath.Join(dir, "serve.json")}
	p.command = command{program: b.lockstep, args: []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--ready-file", p.ready}}
	for _, h := range set.hosts {
		p.command.args = append(p.command.args, "--allow-host", h)
	}
	if profiled {
		p.pprof = filepath.Join(dir, "pprof")
		p.command.program, p.command.env = b.self, []string{roleVariable + "=" + roleProfiled, pprofVariable + "=" + p.pprof}
	}
	return p, p.serve()
}

// serve starts the process and waits until it answers.
func (p *product) serve() error {
	if err := os.Remove(p.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := p.start(p.command.program, p.command.args, p.command.env...); err != nil {
		return err
	}
	if err := p.waitFor(p.ready, time.Minute); err != nil {
		return errors.Join(err, p.stop())
	}
	var where struct {
		Lockstep struct {
			URL string `json:"url"`
		} `json:"lockstep"`
	}
	text, err := os.ReadFile(p.ready)
	if err == nil {
		err = json.Unmarshal(text, &where)
	}
	if err != nil {
		return errors.Join(err, p.stop())
	}
	p.url = where.Lockstep.URL
	return nil
}

func (p *product) api(method, path string, body, out any) error {
	return send(method, p.url+"/api/v1"+path, body, out, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+p.token) })
}

// begin starts the sync of marketing lists.
func (p *product) begin() (lockstep.Run, error) { return p.request(lockstep.SyncMarketingLists) }

// request asks for a run.
func (p *product) request(what lockstep.SyncType) (lockstep.Run, error) {
	var r lockstep.Run
	err := p.api(http.MethodPost, "/runs", map[string]string{"account": p.account, "type": string(what)}, &r)
	return r, err
}

// wait waits for a run's end.
func (p *product) wait(id string, every time.Duration) (lockstep.Run, error) {
	for told := time.Now(); ; {
		var r lockstep.Run
		if err := p.api(http.MethodGet, "/runs/"+id, nil, &r); err != nil {
			return r, fmt.Errorf("%w\n%s", err, p.out.Bytes())
		}
		if r.Status.Ended() {
			if r.Status != lockstep.RunCompleted {
				return r, fmt.Errorf("the run is %s: %s (%s)", r.Status, r.Error, r.Hint)
			}
			return r, nil
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			say("  still %s: %s", r.Status, r.Stage)
		}
		time.Sleep(every)
	}
}

// measured is one run's figures.
type measured struct {
	run   lockstep.Run
	wall  time.Duration // from the request of the run to its end
	cpu   time.Duration
	rss   float64 // peak of the process so far, MB
	calls map[string]counts
}

// sync carries out one run and measures it.
func (p *product) sync(t *twins) (measured, error) {
	var m measured
	if err := t.reset(); err != nil {
		return m, err
	}
	before, err := p.cpu()
	if err != nil {
		return m, err
	}
	r, err := p.begin()
	if err != nil {
		return m, err
	}
	if m.run, err = p.wait(r.ID, 10*time.Millisecond); err != nil {
		return m, err
	}
	m.wall = m.run.Ended.Sub(m.run.Created)
	after, err := p.cpu()
	if err != nil {
		return m, err
	}
	m.cpu = after - before
	if m.rss, err = p.peakRSS(); err != nil {
		return m, err
	}
	m.calls, err = t.stats()
	return m, err
}
