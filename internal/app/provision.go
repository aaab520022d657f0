package app

import (
	"context"
	"fmt"

	"github.com/lockstep-sync/lockstep"
)

// defaultMappings are the mappings that provisioning sets up: names outward for
// contacts and leads, and an account's name as the full name. The address itself
// is the key and needs none.
var defaultMappings = []struct{ label, table, column string }{
	{"FIRSTNAME", "contact", "firstname"},
	{"LASTNAME", "contact", "lastname"},
	{"FULLNAME", "contact", "fullname"},
	{"FIRSTNAME", "lead", "firstname"},
	{"LASTNAME", "lead", "lastname"},
	{"FULLNAME", "lead", "fullname"},
	{"FULLNAME", "account", "name"},
}

// Provision brings a newly connected account to the point where lists can be
// activated: metadata read, labels compared, default mappings made. It can be
// repeated; what is there already stays as it is.
func (a *App) Provision(ctx context.Context, account string) error {
	for _, t := range []lockstep.SyncType{lockstep.SyncCRMMetadata, lockstep.SyncDataLabels} {
		if _, err := a.RunToEnd(ctx, RunRequest{Account: account, Type: t}); err != nil {
			return err
		}
	}
	labels, err := a.store.Labels(ctx, account)
	if err != nil {
		return err
	}
	synced := map[string]bool{}
	for _, l := range labels {
		synced[l.Name] = l.Synced
	}
	for _, m := range defaultMappings {
		if !synced[m.label] {
			continue
		}
		_, err := a.SaveMapping(ctx, lockstep.DataMapping{Account: account, Label: m.label, Table: m.table, Direction: lockstep.ToPlatform, Column: m.column})
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict && lockstep.CodeOf(err) != lockstep.CodeInvalid {
			return fmt.Errorf("default mapping of %s for %s: %w", m.label, m.table, err)
		}
	}
	return a.DiscoverLists(ctx, account)
}
