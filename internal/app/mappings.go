package app

import (
	"cmp"
	"context"
	"errors"
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
	var old *lockstep.DataLabel
	if l.ID != "" {
		all, err := a.store.Labels(ctx, l.Account)
		if err != nil {
			return l, err
		}
		i := slices.IndexFunc(all, func(o lockstep.DataLabel) bool { return o.ID == l.ID })
		if i < 0 {
			return l, &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no such label"}
		}
		old = &all[i]
	}
	l, err := checkLabel(l, old)
	if err != nil {
		return l, err
	}
	return a.store.SaveLabel(ctx, l)
}

// maxWording bounds a description and a default, in bytes.
const maxWording = 2000

// checkLabel returns a label as it is kept, or everything about it that cannot be. old
// is what it was before; nil for a new one.
func checkLabel(l lockstep.DataLabel, old *lockstep.DataLabel) (lockstep.DataLabel, error) {
	var problems []error
	l.Synced, l.Remade = false, 0
	switch {
	case old == nil: // one that exists, such as FIRSTNAME, has a name that no new one may take
		name, err := transform.LabelName(l.Name)
		if err == nil {
			l.Name = name
		}
		problems = append(problems, err)
	case old.Name != l.Name:
		problems = append(problems, invalid("name", "a label's name and type cannot be changed", "make a new label"))
	case old.Type != l.Type:
		problems = append(problems, invalid("type", "a label's name and type cannot be changed", "make a new label"))
	default:
		l.Synced, l.Remade = old.Synced, old.Remade
	}
	switch l.Type {
	case lockstep.FieldText, lockstep.FieldNumber, lockstep.FieldDate, lockstep.FieldBool:
	default:
		problems = append(problems, invalid("type", fmt.Sprintf("%.40q is not a label type", l.Type), "use text, number, date or boolean"))
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
			problems = append(problems, invalid("default", fmt.Sprintf("the default does not fit a %s label", l.Type), ""))
		}
	}
	return l, errors.Join(append(problems, checkWording("default", l.Default), checkWording("description", l.Description))...)
}

func checkWording(field, text string) error {
	if len(text) > maxWording {
		return invalid(field, fmt.Sprintf("the text has more than %d characters", maxWording), "say it shorter")
	}
	return nil
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
	acc, err := a.store.Account(ctx, m.Account)
	if err != nil {
		return m, err
	}
	tables, err := a.store.Tables(ctx, acc.Organization)
	if err != nil {
		return m, err
	}
	labels, err := a.store.Labels(ctx, m.Account)
	if err != nil {
		return m, err
	}
	others, err := a.store.Mappings(ctx, m.Account)
	if err != nil {
		return m, err
	}
	tables, err = a.tablesBehind(ctx, acc.Organization, tables, m)
	if err != nil {
		return m, err
	}
	others = slices.DeleteFunc(others, func(o lockstep.DataMapping) bool { return m.ID != "" && o.ID == m.ID })
	checked := []lockstep.DataMapping{m}
	if err := checkMappings(tables, labels, others, checked)[0]; err != nil {
		return m, err
	}
	defer a.mappingsChanged()
	return a.store.SaveMapping(ctx, checked[0])
}

// completeMapping fills in what was left out of a mapping, and says what it cannot be.
func completeMapping(m *lockstep.DataMapping) error {
	m.Winner, m.Empty = cmp.Or(m.Winner, lockstep.WinnerNewest), cmp.Or(m.Empty, lockstep.EmptyClear)
	m.Disabled = ""
	m.Label = strings.ToUpper(strings.TrimSpace(m.Label))
	var problems []error
	if m.Direction != lockstep.ToPlatform && m.Direction != lockstep.ToCRM {
		problems = append(problems, invalid("direction", fmt.Sprintf("%.40q is not a direction", m.Direction), "use to_platform or to_crm"))
	}
	if m.Winner != lockstep.WinnerNewest && m.Winner != lockstep.WinnerCRM && m.Winner != lockstep.WinnerPlatform && m.Winner != lockstep.WinnerHold {
		problems = append(problems, invalid("winner", fmt.Sprintf("%.40q is not a policy", m.Winner), "use newest, crm, platform or hold"))
	}
	if m.Empty != lockstep.EmptyClear && m.Empty != lockstep.EmptyKeep && m.Empty != lockstep.EmptyDefault {
		problems = append(problems, invalid("empty", fmt.Sprintf("%.40q is not a policy for empty values", m.Empty), "use clear, keep or default"))
	}
	return errors.Join(append(problems, checkWording("default", m.Default))...)
}

func sameTarget(a, b lockstep.DataMapping) bool {
	return a.Table == b.Table && a.Direction == b.Direction && strings.EqualFold(a.Label, b.Label)
}

// checkMappings completes mappings of one account that are new or changed, and says for
// each why it cannot be beside those that stay and the others; nil where it can.
func checkMappings(tables []lockstep.Table, labels []lockstep.DataLabel, stay, changed []lockstep.DataMapping) []error {
	errs := make([]error, len(changed))
	fit := map[string][]int{} // the changed ones that may be compiled, by table
	for i := range changed {
		m := &changed[i]
		switch err := completeMapping(m); {
		case err != nil:
			errs[i] = err
		case !slices.Contains(engine.MemberTables, m.Table) || tableOf(tables, m.Table) == nil:
			errs[i] = invalid("table", fmt.Sprintf("%.80q is not a table that can be mapped", m.Table), "use account, contact or lead; run crm-metadata if the organization was just connected")
		case slices.ContainsFunc(stay, func(o lockstep.DataMapping) bool { return sameTarget(o, *m) }),
			slices.ContainsFunc(changed[:i], func(o lockstep.DataMapping) bool { return sameTarget(o, *m) }):
			errs[i] = &lockstep.Error{Code: lockstep.CodeConflict, Field: "label", Msg: fmt.Sprintf("the label %s is mapped for %s in this direction already", m.Label, m.Table), Hint: "change or delete that mapping"}
		default:
			fit[m.Table] = append(fit[m.Table], i)
		}
	}
	for name, which := range fit {
		table := tableOf(tables, name)
		all := slices.Clone(stay)
		for _, i := range which {
			all = append(all, changed[i])
		}
		_, problems := transform.Compile(table, labels, all, transform.Options{Related: transform.Related(table, tables)})
		for _, p := range problems {
			for _, i := range which {
				if sameTarget(changed[i], p.Mapping) {
					errs[i] = p.Err
				}
			}
		}
	}
	return errs
}

func tableOf(tables []lockstep.Table, name string) *lockstep.Table {
	if i := slices.IndexFunc(tables, func(t lockstep.Table) bool { return t.Name == name }); i >= 0 {
		return &tables[i]
	}
	return nil
}

// tablesBehind returns the tables with those that "lookup.column" of mappings leads to:
// they are read, and kept, when the first mapping goes through them.
func (a *App) tablesBehind(ctx context.Context, organization string, tables []lockstep.Table, mappings ...lockstep.DataMapping) ([]lockstep.Table, error) {
	all, err := a.readBehind(ctx, organization, tables, mappings...)
	if err != nil || len(all) == len(tables) {
		return tables, err
	}
	return all, a.store.SaveTables(ctx, organization, all)
}

// readBehind is tablesBehind that keeps nothing.
func (a *App) readBehind(ctx context.Context, organization string, tables []lockstep.Table, mappings ...lockstep.DataMapping) ([]lockstep.Table, error) {
	var unread []string
	for _, m := range mappings {
		table := tableOf(tables, m.Table)
		for column := range strings.SplitSeq(m.Column, ",") {
			if lookup, _, hop := strings.Cut(strings.TrimSpace(column), "."); hop && table != nil {
				unread = append(unread, transform.Unread(table, tables, lookup)...)
			}
		}
	}
	if len(unread) == 0 {
		return tables, nil
	}
	slices.Sort(unread)
	org, err := a.store.Organization(ctx, organization)
	if err != nil {
		return nil, err
	}
	crm, err := a.crm(ctx, org)
	if err != nil {
		return nil, err
	}
	found, err := crm.Tables(ctx, slices.Compact(unread))
	return append(slices.Clone(tables), found...), err
}

// DeleteMapping deletes a mapping; values already written stay.
func (a *App) DeleteMapping(ctx context.Context, id string) error {
	defer a.mappingsChanged()
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
