package store

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lockstep-sync/lockstep"
)

func TestConfigurationIsEditedAsAWhole(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		ctx := context.Background()
		s := mustOpen(t, o)
		acc := account(t, s)
		other, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: acc.Organization, Name: "Other", Adapter: "dotdigital"})
		ok(t, err)
		dropped, err := s.SaveLabel(ctx, lockstep.DataLabel{Account: acc.ID, Name: "OLD", Type: lockstep.FieldText})
		ok(t, err)
		mapped, err := s.SaveMapping(ctx, lockstep.DataMapping{Account: acc.ID, Label: "OLD", Table: "contact", Direction: lockstep.ToCRM, Column: "old"})
		ok(t, err)
		lists, err := s.SaveLists(ctx, lockstep.ListSettings{Account: acc.ID, CRMID: lockstep.ID{1}, Name: "List", Book: "7"})
		ok(t, err)
		before, err := s.Configuration(ctx, acc.ID)
		ok(t, err)
		list, renamed := lists[0], acc
		list.Activated, renamed.Description = true, "new"
		edit := func() Edit {
			return Edit{
				Account: &renamed, DropLabels: []string{dropped.ID}, DropMappings: []string{mapped.ID}, Lists: []lockstep.ListSettings{list},
				Labels:    []lockstep.DataLabel{{Account: acc.ID, Name: "NEW", Type: lockstep.FieldText}},
				Mappings:  []lockstep.DataMapping{{Account: acc.ID, Label: "NEW", Table: "contact", Direction: lockstep.ToCRM, Column: "new"}},
				Schedules: []lockstep.SyncSchedule{{Account: acc.ID, Type: lockstep.SyncOptIn, Schedule: lockstep.Schedule{Interval: "1h"}}},
			}
		}
		apply := func(e Edit) error {
			return s.InTx(ctx, func(tx Tx) error {
				if now, err := s.ConfigurationIn(ctx, tx, acc.ID); err != nil || !cmp.Equal(before, now, cmpopts.EquateEmpty()) {
					t.Errorf("within a transaction it is %+v, %v", now, err)
				}
				return s.EditIn(ctx, tx, acc.ID, e)
			})
		}
		for name, spoil := range map[string]func(*Edit){
			"a list of another account":    func(e *Edit) { e.Lists = append(e.Lists, lockstep.ListSettings{ID: "x", Account: other.ID}) },
			"a mapping of another account": func(e *Edit) { e.Mappings[0].Account = other.ID },
			"a label that exists":          func(e *Edit) { e.DropLabels, e.Labels[0].Name = nil, "old" },
			"another organization":         func(e *Edit) { moved := renamed; moved.Organization = "none"; e.Account = &moved },
		} {
			e := edit()
			spoil(&e)
			if err := apply(e); err == nil {
				t.Errorf("%s was stored", name)
			}
			after, err := s.Configuration(ctx, acc.ID)
			ok(t, err)
			equal(t, after, before)
		}
		ok(t, apply(edit()))
		after, err := s.Configuration(ctx, acc.ID)
		ok(t, err)
		switch {
		case len(after.Labels) != 1 || after.Labels[0].Name != "NEW" || after.Labels[0].ID == "", len(after.Mappings) != 1 || after.Mappings[0].Column != "new":
			t.Errorf("%+v", after)
		case !after.Lists[0].Activated || after.Lists[0].Book != "7", after.Account.Description != "new" || !after.Account.Default, len(after.Schedules) != 1:
			t.Errorf("%+v", after)
		}
		// What belongs to another account cannot be reached.
		theirs, err := s.SaveLabel(ctx, lockstep.DataLabel{Account: other.ID, Name: "THEIRS", Type: lockstep.FieldText})
		ok(t, err)
		ok(t, s.InTx(ctx, func(tx Tx) error { return s.EditIn(ctx, tx, acc.ID, Edit{DropLabels: []string{theirs.ID}}) }))
		if all, err := s.Labels(ctx, other.ID); err != nil || len(all) != 1 {
			t.Errorf("%+v, %v", all, err)
		}
		_, err = s.Configuration(ctx, "none")
		wantCode(t, err, lockstep.CodeNotFound)
	})
}
