package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// maxName is the longest name of a connection, in bytes.
const maxName = 200

// maxCreateCap bounds what one run may create in the CRM without approval.
const maxCreateCap = 1_000_000

// checked fills in an adapter's defaults and reports every wrong setting by its name,
// addresses that must not be called among them.
func (a *App) checked(adapterName string, s adapter.Settings) (adapter.Kind, adapter.Settings, error) {
	kind, err := a.adapters.Kind(adapterName)
	if err != nil {
		return kind, nil, err
	}
	if s, err = kind.Validate(s); err != nil {
		return kind, nil, err
	}
	return kind, s, kind.Guard(s, a.env())
}

func checkName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName {
		return name, invalid("name", fmt.Sprintf("a name has between 1 and %d characters", maxName), "")
	}
	return name, nil
}

func taken(field, what, name string) error {
	return &lockstep.Error{Code: lockstep.CodeConflict, Field: field, Msg: fmt.Sprintf("%s is connected already, as %q", what, name), Hint: "change that connection, or give another name"}
}

func anotherAnswers(what, was, is string) error {
	return &lockstep.Error{
		Code: lockstep.CodeGuarded, Field: "settings", Msg: fmt.Sprintf("another %s answers with these settings: %q, not %q", what, is, was),
		Hint: "a connection stays with what it was made for, so that nothing is removed by mistake; make a new connection",
	}
}

// ConnectOrganization signs in to a Dynamics organization and keeps the connection;
// secrets are sealed. An id names an organization that is connected anew; empty makes
// a new one. Without a name it takes the organization's own. CodeGuarded when another
// organization answers than the one that was connected; CodeConflict when it is
// connected already or the name is taken.
func (a *App) ConnectOrganization(ctx context.Context, id, name, adapterName string, s adapter.Settings) (lockstep.Organization, error) {
	org := lockstep.Organization{}
	kind, s, err := a.checked(adapterName, s)
	if err != nil {
		return org, err
	}
	if kind.OpenCRM == nil {
		return org, invalid("adapter", kind.Title+" is not a CRM", "")
	}
	if id != "" {
		if org, err = a.store.Organization(ctx, id); err != nil {
			return org, err
		}
	}
	crm, err := kind.OpenCRM(ctx, s, a.env())
	if err != nil {
		return org, notAccepted(err)
	}
	identity, err := crm.Identity(ctx)
	if err != nil {
		return org, notAccepted(whyNot(ctx, crm, err))
	}
	if org.Identity.ID != "" && org.Identity.ID != identity.ID {
		return org, anotherAnswers("organization", org.Identity.Name, identity.Name)
	}
	if name == "" {
		name = identity.Name
	}
	open, sealed := kind.Split(s)
	org.Name, org.Adapter, org.Settings, org.Identity = name, adapterName, open, identity
	if org, err = a.saveOrganization(ctx, org); err != nil {
		return org, err
	}
	return org, a.keepSecrets(ctx, store.OrganizationSecrets(org.ID), kind, sealed)
}

func (a *App) saveOrganization(ctx context.Context, org lockstep.Organization) (lockstep.Organization, error) {
	var err error
	if org.Name, err = checkName(org.Name); err != nil {
		return org, err
	}
	all, err := a.store.Organizations(ctx)
	if err != nil {
		return org, err
	}
	for _, o := range all {
		switch {
		case o.ID == org.ID:
		case o.Identity.ID == org.Identity.ID:
			return org, taken("settings", "the organization", o.Name)
		case strings.EqualFold(o.Name, org.Name):
			return org, taken("name", "an organization of that name", o.Name)
		}
	}
	return a.store.SaveOrganization(ctx, org)
}

// keepSecrets seals the secrets of a connection, and forgets those that it has none
// of any more.
func (a *App) keepSecrets(ctx context.Context, owner store.Owner, kind adapter.Kind, sealed map[string]string) error {
	all := map[string]string{}
	for _, o := range kind.Options {
		if o.Type == adapter.Secret {
			all[o.Name] = sealed[o.Name]
		}
	}
	return a.store.SetSecrets(ctx, owner, all)
}

// OrganizationPatch changes a connection to an organization; nil stays. Settings are
// by name: those left out stay, secrets too, and an empty one is forgotten.
type OrganizationPatch struct {
	Name     *string
	Settings adapter.Settings
}

// UpdateOrganization changes a connection. New settings are tried before they are
// kept; errors as of ConnectOrganization.
func (a *App) UpdateOrganization(ctx context.Context, id string, p OrganizationPatch) (lockstep.Organization, error) {
	org, err := a.store.Organization(ctx, id)
	if err != nil {
		return org, err
	}
	if p.Name != nil {
		if org.Name, err = checkName(*p.Name); err != nil {
			return org, err
		}
	}
	if len(p.Settings) == 0 {
		return a.saveOrganization(ctx, org)
	}
	settings, _, err := a.settings(ctx, org.Adapter, org.Settings, store.OrganizationSecrets(id))
	if err != nil {
		return org, err
	}
	maps.Copy(settings, p.Settings)
	return a.ConnectOrganization(ctx, id, org.Name, org.Adapter, settings)
}

// DeleteOrganization forgets a connection to an organization and what was read of
// its metadata. CodeConflict while it has email accounts. Nothing is changed in the
// organization itself.
func (a *App) DeleteOrganization(ctx context.Context, id string) error {
	if err := a.store.DeleteOrganization(ctx, id); err != nil {
		return err
	}
	if err := a.forgetWebhook(ctx, id); err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.crms, id)
	delete(a.callings, id)
	a.mu.Unlock()
	return nil
}

// ConnectAccount signs in to an email account and keeps the connection; secrets are
// sealed. An id names an account that is connected anew and keeps its other settings;
// empty makes a new one, which Provision prepares for use. Errors as of
// ConnectOrganization.
func (a *App) ConnectAccount(ctx context.Context, id, organization, name, adapterName string, s adapter.Settings) (lockstep.EmailAccount, error) {
	acc := lockstep.EmailAccount{Organization: organization, Priority: slices.Clone(lockstep.DefaultPriority), CreateCap: lockstep.DefaultCreateCap, ConfirmChanges: true}.Guarded()
	kind, s, err := a.checked(adapterName, s)
	if err != nil {
		return acc, err
	}
	if kind.OpenPlatform == nil {
		return acc, invalid("adapter", kind.Title+" is not an email platform", "")
	}
	if id != "" {
		if acc, err = a.store.Account(ctx, id); err != nil {
			return acc, err
		}
	}
	if _, err := a.store.Organization(ctx, organization); err != nil {
		return acc, named(err, "organization")
	}
	p, err := kind.OpenPlatform(ctx, s, a.env())
	if err != nil {
		return acc, notAccepted(err)
	}
	identity, err := p.Identity(ctx)
	if err != nil {
		return acc, notAccepted(err)
	}
	if acc.Identity.ID != "" && acc.Identity.ID != identity.ID {
		return acc, anotherAnswers("email account", acc.Identity.Name, identity.Name)
	}
	if name == "" {
		name = identity.Name
	}
	open, sealed := kind.Split(s)
	acc.Organization, acc.Name, acc.Adapter, acc.Settings, acc.Identity = organization, name, adapterName, open, identity
	if acc, err = a.saveAccount(ctx, acc); err != nil {
		return acc, err
	}
	return acc, a.keepSecrets(ctx, store.AccountSecrets(acc.ID), kind, sealed)
}

// whyNot asks a connection that failed with err for the step that fails, which says
// more: a wrong address is told as such and not as what it led to.
func whyNot(ctx context.Context, crm lockstep.CRM, err error) error {
	if t, ok := crm.(dynamics.Tester); ok {
		for _, step := range t.ConnectTest(ctx) {
			if step.Err != nil {
				return step.Err
			}
		}
	}
	return err
}

// notAccepted makes a sign-in that the other side refused a matter of the settings:
// the one who called us is not the one who is unauthorized.
func notAccepted(err error) error {
	switch lockstep.CodeOf(err) {
	case lockstep.CodeUnauthorized, lockstep.CodeForbidden:
		e := *lockstep.AsError(err)
		e.Code, e.Field = lockstep.CodeInvalid, "settings"
		return &e
	}
	return err
}

// named says which input an error is about.
func named(err error, field string) error {
	e := *lockstep.AsError(err)
	e.Field = field
	return &e
}

func (a *App) saveAccount(ctx context.Context, acc lockstep.EmailAccount) (lockstep.EmailAccount, error) {
	var err error
	if acc.Name, err = checkName(acc.Name); err != nil {
		return acc, err
	}
	all, err := a.store.Accounts(ctx, acc.Organization)
	if err != nil {
		return acc, err
	}
	for _, o := range all {
		switch {
		case o.ID == acc.ID:
		case o.Identity.ID == acc.Identity.ID && o.Adapter == acc.Adapter:
			return acc, taken("settings", "the email account", o.Name)
		case strings.EqualFold(o.Name, acc.Name):
			return acc, taken("name", "an email account of that name", o.Name)
		}
	}
	return a.store.SaveAccount(ctx, acc)
}

// AccountPatch changes an email account; nil stays. Settings are as in
// OrganizationPatch.
type AccountPatch struct {
	Name, Description *string
	Settings          adapter.Settings
	// Default can only be set: another account becomes the default by being set.
	Default *bool
	// Priority is all three member tables in the order in which they speak for an
	// address that several records share.
	Priority  *[]string
	CreateCap *int
	// BulkOptOut and AloneWithSuppressions: see lockstep.EmailAccount.
	BulkOptOut            *lockstep.BulkOptOut
	AloneWithSuppressions *bool
	// Automatic lets the account's syncs run by themselves, or not.
	Automatic *bool
	// CallsPerHour and CallsPerDay: see lockstep.CallBudget.
	CallsPerHour, CallsPerDay *int
	Guards                    GuardPatch
}

// UpdateAccount changes an email account. New settings are tried before they are
// kept; errors as of ConnectAccount.
func (a *App) UpdateAccount(ctx context.Context, id string, p AccountPatch) (lockstep.EmailAccount, error) {
	acc, err := a.store.Account(ctx, id)
	if err != nil {
		return acc, err
	}
	if err := p.apply(&acc, a.now()); err != nil {
		return acc, err
	}
	if len(p.Settings) > 0 {
		settings, _, err := a.settings(ctx, acc.Adapter, acc.Settings, store.AccountSecrets(id))
		if err != nil {
			return acc, err
		}
		maps.Copy(settings, p.Settings)
		connected, err := a.ConnectAccount(ctx, id, acc.Organization, acc.Name, acc.Adapter, settings)
		if err != nil {
			return acc, err
		}
		acc.Settings, acc.Identity = connected.Settings, connected.Identity
	}
	acc, err = a.saveAccount(ctx, acc)
	if p.Automatic != nil {
		a.jobs.Wake()
	}
	return acc, err
}

// apply changes all of an account but the settings of its connection, and says
// everything that cannot be.
func (p *AccountPatch) apply(acc *lockstep.EmailAccount, now time.Time) error {
	var problems []error
	if p.Name != nil {
		var err error
		acc.Name, err = checkName(*p.Name)
		problems = append(problems, err)
	}
	if p.Description != nil {
		problems = append(problems, checkWording("description", *p.Description))
		acc.Description = *p.Description
	}
	if p.Default != nil {
		if acc.Default && !*p.Default {
			problems = append(problems, invalid("default", "an organization has one default account", "make another account the default instead"))
		}
		acc.Default = *p.Default
	}
	if p.Priority != nil {
		if !slices.Equal(slices.Sorted(slices.Values(*p.Priority)), slices.Sorted(slices.Values(lockstep.DefaultPriority))) {
			problems = append(problems, invalid("priority", "the priority is an order of "+strings.Join(lockstep.DefaultPriority, ", "), "name each of them once"))
		}
		acc.Priority = *p.Priority
	}
	if p.CreateCap != nil {
		if *p.CreateCap < 0 || *p.CreateCap > maxCreateCap {
			problems = append(problems, invalid("create_cap", fmt.Sprintf("the cap is between 0 and %d records", maxCreateCap), ""))
		}
		acc.CreateCap = *p.CreateCap
	}
	if p.BulkOptOut != nil {
		if *p.BulkOptOut != lockstep.BulkListRemoval && *p.BulkOptOut != lockstep.BulkSuppress {
			problems = append(problems, invalid("bulk_opt_out", fmt.Sprintf("%.40q is not what a bulk email opt-out can do", *p.BulkOptOut), fmt.Sprintf("use %s or %s", lockstep.BulkListRemoval, lockstep.BulkSuppress)))
		}
		acc.BulkOptOut = *p.BulkOptOut
	}
	if p.AloneWithSuppressions != nil {
		acc.AloneWithSuppressions = *p.AloneWithSuppressions
	}
	if p.Automatic != nil {
		acc.Automatic = *p.Automatic
	}
	if p.CallsPerHour != nil || p.CallsPerDay != nil {
		set(&acc.Budget.PerHour, p.CallsPerHour)
		set(&acc.Budget.PerDay, p.CallsPerDay)
		problems = append(problems, checkBudget(acc.Budget, "calls_per_hour", "calls_per_day"))
	}
	return errors.Join(append(problems, p.Guards.apply(acc, now))...)
}

// DeleteAccount forgets an email account with everything that is kept for it: lists'
// settings, labels, mappings, links, runs. The consent ledger stays. CodeConflict while
// a list is activated, a run has not ended or an opt-out waits to be carried over.
// Nothing is changed on either side.
func (a *App) DeleteAccount(ctx context.Context, id string) error {
	lists, err := a.store.Lists(ctx, id)
	if err != nil {
		return err
	}
	active := 0
	for _, l := range lists {
		if l.Activated {
			active++
		}
	}
	if active > 0 {
		return &lockstep.Error{Code: lockstep.CodeConflict, Op: "delete email account", Msg: fmt.Sprintf("%d marketing lists of the account are activated", active), Hint: "deactivate them first"}
	}
	if err := a.store.DeleteAccount(ctx, id); err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.platforms, id)
	delete(a.callings, id)
	a.mu.Unlock()
	return nil
}
