package cli

import (
	"context"
	"fmt"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

// demoLabels are the data labels that the demo adds to those that the email account
// has from the start.
var demoLabels = []lockstep.DataLabel{
	{Name: "JOBTITLE", Type: lockstep.FieldText, Private: true, Description: "Job title"},
	{Name: "CITY", Type: lockstep.FieldText, Private: true, Description: "City of the first address"},
	{Name: "PHONE", Type: lockstep.FieldText, Private: true, Description: "Business telephone"},
	{Name: "BIRTHDATE", Type: lockstep.FieldDate, Private: true, Description: "Birthday"},
	{Name: "INCOME", Type: lockstep.FieldNumber, Private: true, Description: "Annual income"},
	{Name: "CONTACTMETHOD", Type: lockstep.FieldText, Private: true, Description: "Preferred method of contact"},
}

// demoMappings are added to those that provisioning makes (names, outward).
var demoMappings = []lockstep.DataMapping{
	inward("contact", "FIRSTNAME", "firstname"),
	inward("contact", "LASTNAME", "lastname"),
	outward("contact", "JOBTITLE", "jobtitle"),
	inward("contact", "JOBTITLE", "jobtitle"),
	outward("contact", "CITY", "address1_city"),
	outward("contact", "COUNTRY", "address1_country"),
	outward("contact", "PHONE", "telephone1"),
	outward("contact", "BIRTHDATE", "birthdate"),
	outward("contact", "INCOME", "annualincome"),
	outward("contact", "CONTACTMETHOD", "preferredcontactmethodcode"),

	outward("lead", "JOBTITLE", "jobtitle"),
	outward("lead", "CITY", "address1_city"),
	outward("lead", "COUNTRY", "address1_country"),
	outward("lead", "PHONE", "telephone1"),

	outward("account", "CITY", "address1_city"),
	outward("account", "COUNTRY", "address1_country"),
	outward("account", "PHONE", "telephone1"),
}

func outward(table, label, column string) lockstep.DataMapping {
	return lockstep.DataMapping{Table: table, Label: label, Column: column, Direction: lockstep.ToPlatform}
}

func inward(table, label, column string) lockstep.DataMapping {
	m := outward(table, label, column)
	m.Direction = lockstep.ToCRM
	return m
}

// setUp does what an administrator does once: provision, label, map, activate.
func (d *demo) setUp(ctx context.Context) error {
	if err := d.installTables(ctx); err != nil {
		return err
	}
	d.progress.begin("Reading tables, labels and lists")
	if err := d.app.Provision(ctx, d.account.ID); err != nil {
		return err
	}
	d.progress.end("done")
	d.progress.begin("Mapping fields")
	for _, l := range demoLabels {
		l.Account = d.account.ID
		if _, err := d.app.SaveLabel(ctx, l); err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
			return fmt.Errorf("data label %s: %w", l.Name, err)
		}
	}
	if _, err := d.app.RunToEnd(ctx, app.RunRequest{Account: d.account.ID, Type: lockstep.SyncDataLabels}); err != nil {
		return err
	}
	if err := d.mapFields(ctx); err != nil {
		return err
	}
	if err := d.activate(ctx); err != nil {
		return err
	}
	return d.mark()
}

// installTables adds our tables to the organization. Without the right to do so the
// demo goes on: syncing does not need them.
func (d *demo) installTables(ctx context.Context) error {
	d.progress.begin("Adding our tables to Dynamics")
	done, err := d.app.InstallSchema(ctx, d.account.Organization, 0)
	if lockstep.CodeOf(err) == lockstep.CodeForbidden {
		msg, hint := message(err)
		d.progress.end("left out: %s", msg)
		d.env.notef("%s\n", hint)
		return nil
	}
	if err != nil {
		return fmt.Errorf("add our tables to Dynamics: %w", err)
	}
	d.progress.end("%d steps", len(done.Taken))
	return nil
}

func (d *demo) mapFields(ctx context.Context) error {
	labels, err := d.app.Labels(ctx, d.account.ID)
	if err != nil {
		return err
	}
	synced := map[string]bool{}
	for _, l := range labels {
		synced[l.Name] = l.Synced
	}
	n := 0
	for _, m := range demoMappings {
		if !synced[m.Label] {
			continue // the company of benchmarks has an account without COUNTRY
		}
		m.Account = d.account.ID
		if _, err := d.app.SaveMapping(ctx, m); err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
			return fmt.Errorf("map %s of %s: %w", m.Label, m.Table, err)
		}
		n++
	}
	all, err := d.app.Mappings(ctx, d.account.ID)
	if err != nil {
		return err
	}
	d.progress.end("%d mappings", len(all))
	return nil
}

// activate activates the lists that the sample company's plan suggests. They are
// found by name, because twins that run already do not tell their plan.
func (d *demo) activate(ctx context.Context) error {
	d.progress.begin("Activating marketing lists")
	planned := map[string]population.PlannedList{}
	for _, plain := range []bool{true, false} {
		plan, err := population.PlanOf(population.Options{Contacts: 1, Plain: plain, Now: d.began})
		if err != nil {
			return err
		}
		for _, l := range plan.Lists {
			planned[l.Name] = l
		}
	}
	lists, err := d.app.Lists(ctx, d.account.ID)
	if err != nil {
		return err
	}
	n, yes := 0, true
	for _, l := range lists {
		p, ok := planned[l.Name]
		if !ok || !p.Activate || l.Gone {
			continue
		}
		action := lockstep.MembershipAction(p.Action)
		if _, err := d.app.UpdateList(ctx, l.ID, app.ListPatch{Activated: &yes, MembershipAction: &action}); err != nil {
			return fmt.Errorf("activate the list %q: %w", l.Name, err)
		}
		n++
	}
	d.progress.end("%d of %d", n, len(lists))
	return nil
}
