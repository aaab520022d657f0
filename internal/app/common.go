package app

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/configuration"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// common is what a document says beside its accounts, and what becomes of that.
type common struct {
	doc           *configuration.Document
	settings      Settings
	organizations []lockstep.Organization
	before        configuration.Document // as a document would say it

	wantSettings Settings
	want         []lockstep.Organization // those that change
}

func (a *App) readCommon(ctx context.Context, d *configuration.Document) (*common, error) {
	settings, err := a.Settings(ctx)
	if err != nil {
		return nil, err
	}
	organizations, err := a.store.Organizations(ctx)
	return newCommon(d, settings, organizations), err
}

// readCommonIn is readCommon within tx; nobody changes organizations meanwhile of which the
// document tells.
func (a *App) readCommonIn(ctx context.Context, tx store.Tx, d *configuration.Document) (*common, error) {
	text, err := a.store.SettingIn(ctx, tx, retentionSetting)
	if err != nil {
		return nil, err
	}
	settings, err := parseSettings(text)
	if err != nil {
		return nil, err
	}
	var organizations []lockstep.Organization
	if len(d.Organizations) > 0 {
		organizations, err = a.store.OrganizationsIn(ctx, tx)
	}
	return newCommon(d, settings, organizations), err
}

func newCommon(d *configuration.Document, settings Settings, organizations []lockstep.Organization) *common {
	c := &common{doc: d, settings: settings, organizations: organizations}
	c.before.Installation = &configuration.Installation{RetentionDays: new(settings.RetentionDays)}
	c.before.Organizations = configuration.OrganizationsOf(organizations)
	return c
}

// plan says what changes, and everything that stands in the way.
func (c *common) plan() (changes []configuration.Change, wrong []error) {
	problem := func(path string, err error) {
		if err != nil {
			e := *lockstep.AsError(err)
			e.Field = path
			wrong = append(wrong, &e)
		}
	}
	c.wantSettings, c.want = c.settings, nil
	if i := c.doc.Installation; i != nil {
		set(&c.wantSettings.RetentionDays, i.RetentionDays)
		problem("installation.retention_days", c.wantSettings.check())
	}
	after := append([]lockstep.Organization(nil), c.organizations...)
	named := map[string]bool{}
	for i, d := range c.doc.Organizations {
		path := "organizations[" + strconv.Itoa(i) + "]"
		var found []int
		for at := range after {
			if strings.EqualFold(after[at].Name, d.Name) {
				found = append(found, at)
			}
		}
		switch {
		case len(found) == 0:
			problem(path+".name", invalid("", fmt.Sprintf("there is no organization %q", d.Name), "connect it first, or leave it out"))
			continue
		case len(found) > 1:
			problem(path+".name", invalid("", fmt.Sprintf("several organizations are called %q", d.Name), "set their budgets with lockstep budget set"))
			continue
		case named[after[found[0]].ID]:
			problem(path+".name", invalid("", fmt.Sprintf("the organization %q is there twice", d.Name), "make one of both"))
			continue
		}
		o := &after[found[0]]
		named[o.ID] = true
		was := o.Budget
		set(&o.Budget.PerHour, d.CallsPerHour)
		set(&o.Budget.PerDay, d.CallsPerDay)
		if err := checkBudget(o.Budget, "calls_per_hour", "calls_per_day"); err != nil {
			problem(path+"."+lockstep.AsError(err).Field, err)
		}
		if o.Budget != was {
			c.want = append(c.want, *o)
		}
	}
	now := configuration.Document{Installation: &configuration.Installation{RetentionDays: &c.wantSettings.RetentionDays}, Organizations: configuration.OrganizationsOf(after)}
	return configuration.DiffShared(&c.before, &now), wrong
}

// editCommon stores what the plan says.
func (a *App) editCommon(ctx context.Context, tx store.Tx, c *common) error {
	if c.wantSettings != c.settings {
		if err := a.store.SetSettingIn(ctx, tx, retentionSetting, strconv.Itoa(c.wantSettings.RetentionDays)); err != nil {
			return err
		}
	}
	for _, o := range c.want {
		if err := a.store.SaveOrganizationIn(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}
