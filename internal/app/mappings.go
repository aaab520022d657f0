package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// Labels returns an account's data labels.
func (a *App) Labels(ctx context.Context, account string) ([]lockstep.DataLabel, error) {
	return a.store.Labels(ctx, account)
}

// SaveLabel makes a data label or changes its description, privacy and default.
// Name and type are fixed once it is made.
func (a *App) SaveLabel(ctx context.Context, l lockstep.DataLabel) (lockstep.DataLabel, error) {
	if l.ID == "" { // one that exists, such as FIRSTNAME, has a name that no new one may take
		name, err := transform.LabelName(l.Name)
		if err != nil {
			return l, err
		}
		l.Name = name
	}
	switch l.Type {
	case lockstep.FieldText, lockstep.FieldNumber, lockstep.FieldDate, lockstep.FieldBool:
	default:
		return l, invalid("type", fmt.Sprintf("%q is not a label type", l.Type), "use text, number, date or boolean")
	}
	if l.Default != "" {
		ok := true
		switch l.Type {
		case lockstep.FieldNumber:
			_, ok = lockstep.ParseNumber(l.Default)
		case lockstep.FieldDate:
			_, ok = lockstep.ParseDate(l.Default)
		case lockstep.FieldBool:
			ok = l.Default == "true" || l.Default == "false"
		}
		if !ok {
			return l, invalid("default", fmt.Sprintf("the default does not fit a %s label", l.Type), "")
		}
	}
	if l.ID == "" {
		l.Synced = false
		return a.store.SaveLabel(ctx, l)
	}
	all, err := a.store.Labels(ctx, l.Account)
	if err != nil {
		return l, err
	}
	for _, old := range all {
		if old.ID == l.ID {
			if old.Name != l.Name || old.Type != l.Type {
				return l, invalid("name", "a label's name and type cannot be changed", "make a new label")
			}
			l.Synced = old.Synced
			return a.store.SaveLabel(ctx, l)
		}
	}
	return l, &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no such label"}
}

// DeleteLabel forgets a label that no mapping uses. The field on the platform stays.
func (a *App) DeleteLabel(ctx context.Context, account, id string) error {
	labels, err := a.store.Labels(ctx, account)
	if err != nil {
		return err
	}
	mappings, err := a.store.Mappings(ctx, account)
	if err != nil {
		return err
	}
	for _, l := range labels {
		if l.ID != id {
			continue
		}
		for _, m := range mappings {
			if strings.EqualFold(m.Label, l.Name) {
				return &lockstep.Error{Code: lockstep.CodeConflict, Msg: fmt.Sprintf("the label %s is mapped for %s", l.Name, m.Table), Hint: "delete its mappings first"}
			}
		}
		return a.store.DeleteLabel(ctx, id)
	}
	return &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no such label"}
}

// Mappings returns an account's data mappings.
func (a *App) Mappings(ctx context.Context, account string) ([]lockstep.DataMapping, error) {
	return a.store.Mappings(ctx, account)
}

// SaveMapping makes or changes a mapping. What does not fit is refused here and
// not at run time.
func (a *App) SaveMapping(ctx context.Context, m lockstep.DataMapping) (lockstep.DataMapping, error) {
	if m.Winner == "" {
		m.Winner = lockstep.WinnerNewest
	}
	if m.Empty == "" {
		m.Empty = lockstep.EmptyClear
	}
	m.Disabled = ""
	m.Label = strings.ToUpper(strings.TrimSpace(m.Label))
	switch {
	case m.Direction != lockstep.ToPlatform && m.Direction != lockstep.ToCRM:
		return m, invalid("direction", fmt.Sprintf("%q is not a direction", m.Direction), "use to_platform or to_crm")
	case m.Winner != lockstep.WinnerNewest && m.Winner != lockstep.WinnerCRM && m.Winner != lockstep.WinnerPlatform && m.Winner != lockstep.WinnerHold:
		return m, invalid("winner", fmt.Sprintf("%q is not a policy", m.Winner), "use newest, crm, platform or hold")
	case m.Empty != lockstep.EmptyClear && m.Empty != lockstep.EmptyKeep && m.Empty != lockstep.EmptyDefault:
		return m, invalid("empty", fmt.Sprintf("%q is not a policy for empty values", m.Empty), "use clear, keep or default")
	}
	acc, err := a.store.Account(ctx, m.Account)
	if err != nil {
		return m, err
	}
	tables, err := a.store.Tables(ctx, acc.Organization)
	if err != nil {
		return m, err
	}
	var table *lockstep.Table
	for i := range tables {
		if tables[i].Name == m.Table && !slices.Contains(lockstep.OwnTables, m.Table) {
			table = &tables[i]
		}
	}
	if table == nil || !slices.Contains(engine.MemberTables, m.Table) {
		return m, invalid("table", fmt.Sprintf("%q is not a table that can be mapped", m.Table), "use account, contact or lead; run crm-metadata if the organization was just connected")
	}
	labels, err := a.store.Labels(ctx, m.Account)
	if err != nil {
		return m, err
	}
	mappings, err := a.store.Mappings(ctx, m.Account)
	if err != nil {
		return m, err
	}
	all := []lockstep.DataMapping{m}
	for _, o := range mappings {
		if o.ID != m.ID && o.Disabled == "" {
			all = append(all, o)
		}
		if o.ID != m.ID && o.Table == m.Table && o.Direction == m.Direction && strings.EqualFold(o.Label, m.Label) {
			return m, &lockstep.Error{Code: lockstep.CodeConflict, Field: "label", Msg: fmt.Sprintf("the label %s is mapped for %s in this direction already", m.Label, m.Table), Hint: "change or delete that mapping"}
		}
	}
	if tables, err = a.tablesBehind(ctx, acc.Organization, table, tables, m.Column); err != nil {
		return m, err
	}
	_, problems := transform.Compile(table, labels, all, transform.Options{Related: transform.Related(table, tables)})
	for _, p := range problems {
		if p.Mapping.ID == m.ID && p.Mapping.Label == m.Label && p.Mapping.Direction == m.Direction && p.Mapping.Column == m.Column {
			return m, p.Err
		}
	}
	return a.store.SaveMapping(ctx, m)
}

// tablesBehind returns the tables with those that "lookup.column" leads to: they are
// read when the first mapping goes through them.
func (a *App) tablesBehind(ctx context.Context, organization string, t *lockstep.Table, tables []lockstep.Table, column string) ([]lockstep.Table, error) {
	lookup, _, hop := strings.Cut(column, ".")
	unread := transform.Unread(t, tables, lookup)
	if !hop || len(unread) == 0 {
		return tables, nil
	}
	org, err := a.store.Organization(ctx, organization)
	if err != nil {
		return nil, err
	}
	crm, err := a.crm(ctx, org)
	if err != nil {
		return nil, err
	}
	found, err := crm.Tables(ctx, unread)
	if err != nil {
		return nil, err
	}
	tables = append(slices.Clone(tables), found...)
	return tables, a.store.SaveTables(ctx, organization, tables)
}

// DeleteMapping deletes a mapping; values already written stay.
func (a *App) DeleteMapping(ctx context.Context, id string) error {
	return a.store.DeleteMapping(ctx, id)
}

// Tables returns the metadata of the tables that can be mapped.
func (a *App) Tables(ctx context.Context, account string) ([]lockstep.Table, error) {
	acc, err := a.store.Account(ctx, account)
	if err != nil {
		return nil, err
	}
	tables, err := a.store.Tables(ctx, acc.Organization)
	return slices.DeleteFunc(tables, func(t lockstep.Table) bool { return slices.Contains(lockstep.OwnTables, t.Name) }), err
}
