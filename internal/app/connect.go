package app

import (
	"context"
	"fmt"
	"maps"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// openCRM is an opened connection with the settings it was opened from: when they
// change, the connection is opened anew.
type openCRM struct {
	settings adapter.Settings
	crm      lockstep.CRM
}

type openPlatform struct {
	settings adapter.Settings
	platform lockstep.Platform
}

// connector opens the two sides for the engine.
type connector struct{ a *App }

func (c connector) CRM(ctx context.Context, org lockstep.Organization) (lockstep.CRM, error) {
	return c.a.crm(ctx, org)
}

func (c connector) Platform(ctx context.Context, account lockstep.EmailAccount) (lockstep.Platform, error) {
	return c.a.platform(ctx, account)
}

func (a *App) env() adapter.Env {
	return adapter.Env{Log: a.log, Now: a.now, Sleep: a.cfg.Sleep, Jitter: a.cfg.Jitter, PageRows: a.cfg.PageRows, Transport: a.cfg.Transport, AllowHosts: a.cfg.AllowHosts}
}

func (a *App) crm(ctx context.Context, org lockstep.Organization) (lockstep.CRM, error) {
	settings, kind, err := a.settings(ctx, org.Adapter, org.Settings, store.OrganizationSecrets(org.ID))
	if err != nil {
		return nil, err
	}
	calls, err := a.callsOfCRM(ctx, org)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o, ok := a.crms[org.ID]; ok && maps.Equal(o.settings, settings) {
		return o.crm, nil
	}
	if kind.OpenCRM == nil {
		return nil, invalid("adapter", kind.Title+" is not a CRM", "")
	}
	env := a.env()
	env.Admit = calls.admit
	crm, err := kind.OpenCRM(ctx, settings, env)
	if err != nil {
		return nil, err
	}
	a.crms[org.ID] = openCRM{settings, crm}
	return crm, nil
}

func (a *App) platform(ctx context.Context, account lockstep.EmailAccount) (lockstep.Platform, error) {
	settings, kind, err := a.settings(ctx, account.Adapter, account.Settings, store.AccountSecrets(account.ID))
	if err != nil {
		return nil, err
	}
	calls, err := a.callsOfPlatform(ctx, account)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o, ok := a.platforms[account.ID]; ok && maps.Equal(o.settings, settings) {
		return o.platform, nil
	}
	if kind.OpenPlatform == nil {
		return nil, invalid("adapter", kind.Title+" is not an email platform", "")
	}
	env := a.env()
	env.Admit = calls.admit
	p, err := kind.OpenPlatform(ctx, settings, env)
	if err != nil {
		return nil, err
	}
	if k, ok := p.(lockstep.AllowanceKnower); ok {
		calls.mu.Lock()
		calls.granted = k.HourlyAllowance
		calls.mu.Unlock()
	}
	a.platforms[account.ID] = openPlatform{settings, p}
	return p, nil
}

func (a *App) settings(ctx context.Context, name string, open map[string]string, owner store.Owner) (adapter.Settings, adapter.Kind, error) {
	kind, err := a.adapters.Kind(name)
	if err != nil {
		return nil, kind, err
	}
	secrets, err := a.store.Secrets(ctx, owner)
	if err != nil {
		return nil, kind, err
	}
	all := adapter.Settings{}
	maps.Copy(all, open)
	maps.Copy(all, secrets)
	return all, kind, nil
}

// tester is what an adapter offers for "connect test".
type tester interface {
	ConnectTest(ctx context.Context) []adapter.Step
}

// TestResult is the answer of a connection test.
type TestResult struct {
	OK    bool           `json:"ok"`
	Steps []adapter.Step `json:"steps"`
}

// TestConnection tries settings without keeping them.
func (a *App) TestConnection(ctx context.Context, adapterName string, s adapter.Settings) (TestResult, error) {
	kind, s, err := a.checked(adapterName, s)
	if err != nil {
		return TestResult{}, err
	}
	var side any
	if kind.OpenCRM != nil {
		side, err = kind.OpenCRM(ctx, s, a.env())
	} else {
		side, err = kind.OpenPlatform(ctx, s, a.env())
	}
	if err != nil {
		return TestResult{}, err
	}
	res := TestResult{OK: true}
	switch t := side.(type) {
	case tester:
		res.Steps = t.ConnectTest(ctx)
	case dynamics.Tester:
		for _, s := range t.ConnectTest(ctx) {
			res.Steps = append(res.Steps, adapter.Step{Name: s.Title, OK: s.OK, Detail: s.Cause, Fix: s.Fix})
		}
	default:
		return TestResult{}, &lockstep.Error{Code: lockstep.CodeUnsupported, Msg: kind.Title + " has no connection test"}
	}
	for _, step := range res.Steps {
		res.OK = res.OK && step.OK
	}
	return res, nil
}

// Organizations returns the connected organizations.
func (a *App) Organizations(ctx context.Context) ([]lockstep.Organization, error) {
	return a.store.Organizations(ctx)
}

// Organization finds an organization by id, by name, or, when which is empty, the
// only one. CodeNotFound.
func (a *App) Organization(ctx context.Context, which string) (lockstep.Organization, error) {
	all, err := a.Organizations(ctx)
	if err != nil {
		return lockstep.Organization{}, err
	}
	var names []string
	for _, o := range all {
		if o.ID == which || o.Name == which || which == "" && len(all) == 1 {
			return o, nil
		}
		names = append(names, fmt.Sprintf("%q", o.Name))
	}
	e := &lockstep.Error{Code: lockstep.CodeNotFound, Field: "organization", Msg: fmt.Sprintf("there is no organization %q", which), Hint: fmt.Sprintf("use one of %v", names)}
	switch {
	case len(all) == 0:
		e.Msg, e.Hint = "no organization is connected", "connect one first"
	case which == "":
		e.Msg = "several organizations are connected"
	}
	return lockstep.Organization{}, e
}

// Accounts returns the email accounts of all organizations.
func (a *App) Accounts(ctx context.Context) ([]lockstep.EmailAccount, error) {
	return a.store.Accounts(ctx, "")
}

// Account finds an email account by id, by name, or, when which is empty, the only
// or default one.
func (a *App) Account(ctx context.Context, which string) (lockstep.EmailAccount, error) {
	all, err := a.Accounts(ctx)
	if err != nil {
		return lockstep.EmailAccount{}, err
	}
	var names []string
	for _, acc := range all {
		if acc.ID == which || acc.Name == which || which == "" && (acc.Default || len(all) == 1) {
			return acc, nil
		}
		names = append(names, fmt.Sprintf("%q", acc.Name))
	}
	if len(all) == 0 {
		return lockstep.EmailAccount{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "account", Msg: "no email account is connected", Hint: "connect one first"}
	}
	return lockstep.EmailAccount{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "account", Msg: fmt.Sprintf("there is no email account %q", which), Hint: fmt.Sprintf("use one of %v", names)}
}
