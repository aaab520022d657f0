package engine

import (
	"cmp"
	"context"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// keptList is a store with one list and its members.
type keptList struct {
	Store
	set     lockstep.ListSettings
	members []crosswalk.Member
}

func (k *keptList) Lists(context.Context, string) ([]lockstep.ListSettings, error) {
	return []lockstep.ListSettings{k.set}, nil
}

func (k *keptList) Cursor(context.Context, string, string) (lockstep.Cursor, error) { return "", nil }

func (k *keptList) Members(_ context.Context, _ string, each func(lockstep.StoredBlob) error) error {
	b := crosswalk.NewMemberBatch()
	for _, m := range k.members {
		b.Append(m)
	}
	return each(lockstep.StoredBlob{ID: 1, Payload: b.Bytes()})
}

// A recovered import that gave a record another contact leaves the one that the record
// had in the book as somebody who has to go, although its link has ended already.
func TestRecoveredImportLeavesNobodyBehind(t *testing.T) {
	record := lockstep.ID{1}
	for name, tc := range map[string]struct{ before, after []crosswalk.Member }{
		"another contact": {
			[]crosswalk.Member{{Record: record, Contact: "7", InList: true, InBook: true}},
			[]crosswalk.Member{{Contact: "7", InBook: true, Former: true}, {Record: record, Contact: "8", InList: true, InBook: true}},
		},
		"another contact, the first one in no book": {
			[]crosswalk.Member{{Record: record, Contact: "7", InList: true}},
			[]crosswalk.Member{{Record: record, Contact: "8", InList: true, InBook: true}},
		},
		"the same contact": {
			[]crosswalk.Member{{Record: record, Contact: "8", InList: true, InBook: true}},
			[]crosswalk.Member{{Record: record, Contact: "8", InList: true, InBook: true}},
		},
		"a new member": {nil, []crosswalk.Member{{Record: record, Contact: "8", InList: true, InBook: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := &keptList{set: lockstep.ListSettings{ID: "one", MemberTable: "lead", Book: "5"}, members: tc.before}
			s := &session{e: &Engine{Config: Config{Store: kept}}, ctx: t.Context(), sync: newListSync()}
			s.sync.links = crosswalk.NewIndex()
			change := lockstep.Change{Kind: lockstep.WriteContact, State: lockstep.Acknowledged, Ref: lockstep.Ref{Table: "lead", ID: record}, Contact: "8", Books: []lockstep.BookID{"5"}}
			var into lockstep.Commit
			if err := s.recoverMembers([]lockstep.Change{change}, &into); err != nil {
				t.Fatal(err)
			}
			var after []crosswalk.Member
			for _, b := range into.Members {
				if err := crosswalk.DecodeMembers(b.Payload, func(m crosswalk.Member) error { after = append(after, m); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			slices.SortFunc(after, func(a, b crosswalk.Member) int { return cmp.Compare(a.Contact, b.Contact) })
			if diff := gocmp.Diff(tc.after, after); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}
