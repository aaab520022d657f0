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

// product is a running "lockstep serve", set up to carry one list of the twins.
type product struct {
	process
	url, token string
	account    string
	pprof      string // address of the profiler, when there is one
}

// organization is the name of the connected CRM.
const organization = "Sample"

// prepare sets a data folder up the way an administrator does: connect, provision,
// label, map, activate one list. It runs in the benchmark's own process, so that
// the measured process starts with a finished configuration.
func prepare(ctx context.Context, dir string, t *twins, list string) (token, account string, hosts []string, err error) {
	for _, a := range []string{t.ready.Dataverse.URL, t.ready.Dataverse.Authority, t.ready.Dotdigital.URL} {
		u, err := url.Parse(a)
		if err != nil {
			return "", "", nil, err
		}
		hosts = append(hosts, u.Host)
	}
	a, err := app.Open(ctx, app.Config{DataDir: dir, AllowHosts: hosts})
	if err != nil {
		return "", "", nil, err
	}
	defer func() { err = errors.Join(err, a.Close(ctx)) }()
	if err := a.Start(ctx); err != nil {
		return "", "", nil, err
	}
	if _, err := a.EnsureAdmin(ctx); err != nil {
		return "", "", nil, err
	}
	if token, _, err = a.CreateToken(ctx, "bench", app.Scopes, time.Time{}); err != nil {
		return "", "", nil, err
	}
	d := t.ready.Dataverse
	org, err := a.ConnectOrganization(ctx, "", organization, "dynamics", adapter.Settings{
		"url": d.URL, "tenant": d.Tenant,
		"client_id": d.ClientID, "client_secret": d.ClientSecret, "authority": strings.TrimSuffix(d.Authority, "/"+d.Tenant),
	})
	if err != nil {
		return "", "", nil, err
	}
	m := t.ready.Dotdigital
	acc, err := a.ConnectAccount(ctx, "", org.ID, "Marketing", "dotdigital", adapter.Settings{"endpoint": m.URL, "user": m.User, "password": m.Password})
	if err != nil {
		return "", "", nil, err
	}
	if err := a.Provision(ctx, acc.ID); err != nil {
		return "", "", nil, err
	}
	labels, err := a.Labels(ctx, acc.ID)
	if err != nil {
		return "", "", nil, err
	}
	for _, f := range work.Fields {
		if slices.ContainsFunc(labels, func(l lockstep.DataLabel) bool { return l.Name == f.Label }) {
			continue // every account has this field from the start
		}
		if _, err := a.SaveLabel(ctx, lockstep.DataLabel{Account: acc.ID, Name: f.Label, Type: f.Type}); err != nil {
			return "", "", nil, fmt.Errorf("label %s: %w", f.Label, err)
		}
	}
	if _, err := a.RunToEnd(ctx, app.RunRequest{Account: acc.ID, Type: lockstep.SyncDataLabels}); err != nil {
		return "", "", nil, err
	}
	if err := mapFields(ctx, a, acc.ID); err != nil {
		return "", "", nil, err
	}
	l, err := a.List(ctx, acc.ID, list)
	if err != nil {
		return "", "", nil, err
	}
	yes := true
	_, err = a.UpdateList(ctx, l.ID, app.ListPatch{Activated: &yes})
	return token, acc.ID, hosts, err
}

func mapFields(ctx context.Context, a *app.App, account string) error {
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
	}
	return nil
}

// startProduct starts Lockstep on the twins. Profiled, it runs in this program's
// binary, which serves pprof besides; its figures are not used.
func (b *bench) startProduct(t *twins, list string, profiled bool) (*product, error) {
	dir, err := os.MkdirTemp(b.dir, "data-")
	if err != nil {
		return nil, err
	}
	p := &product{}
	var hosts []string
	if p.token, p.account, hosts, err = prepare(b.ctx, dir, t, list); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	ready := filepath.Join(dir, "serve.json")
	args := []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--ready-file", ready}
	for _, h := range hosts {
		args = append(args, "--allow-host", h)
	}
	program, env := b.lockstep, []string(nil)
	if profiled {
		p.pprof = filepath.Join(dir, "pprof")
		program, env = b.self, []string{roleVariable + "=" + roleProfiled, pprofVariable + "=" + p.pprof}
	}
	if err := p.start(program, args, env...); err != nil {
		return nil, err
	}
	if err := p.waitFor(ready, time.Minute); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	var where struct {
		Lockstep struct {
			URL string `json:"url"`
		} `json:"lockstep"`
	}
	text, err := os.ReadFile(ready)
	if err == nil {
		err = json.Unmarshal(text, &where)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.url = where.Lockstep.URL
	return p, nil
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
	for {
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
