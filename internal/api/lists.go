package api

import (
	"context"
	"net/http"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagLists = "Marketing lists"

// list is a marketing list with its email settings.
type list struct {
	lockstep.ListSettings
	MinOptIn string `json:"min_opt_in" enum:"unknown,single,double,verified_double" doc:"With the filter opt_in_at_least."`
}

func shown(l lockstep.ListSettings) list { return list{l, l.MinOptIn.String()} }

type listPatch struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Activated          *bool                        `json:"activated,omitempty" doc:"Whether the list is kept in step."`
		MembershipAction   *lockstep.MembershipAction   `json:"membership_action,omitempty" enum:"ignore,remove,allow_known,create_lead,create_contact" doc:"What happens to people in the address book who are not in the list."`
		SubscriptionFilter *lockstep.SubscriptionFilter `json:"subscription_filter,omitempty" enum:"none,bulk_email,any_opt_out,marketing_material,list_unsubscribers,suppressed,opt_in_at_least" doc:"Who is kept from being sent to the platform."`
		MinOptIn           *string                      `json:"min_opt_in,omitempty" enum:"unknown,single,double,verified_double" doc:"With the filter opt_in_at_least."`
		MirrorRemovals     *bool                        `json:"mirror_removals,omitempty"`
		ClearOnSend        *bool                        `json:"clear_on_send,omitempty"`
		SyncOrder          *int                         `json:"sync_order,omitempty" minimum:"0" maximum:"1000000" doc:"Lower is earlier."`
		ManualOnly         *bool                        `json:"manual_only,omitempty" doc:"Synced only when asked for by name."`
		KeepAutomatic      *bool                        `json:"keep_automatic,omitempty" doc:"A static list that nobody uses for 90 days is made manual_only, after a notice; true exempts it."`
		Book               *lockstep.BookID             `json:"address_book_id,omitempty" maxLength:"80" doc:"Links the list to an existing address book."`
	}
}

func (s *server) lists() {
	handle(s, operation("list-lists", http.MethodGet, "/lists", tagLists, "The marketing lists with their email settings"),
		func(ctx context.Context, in *InAccount) (*pageOut[list], error) {
			return ofAccounts(ctx, s, in.Account, func(ctx context.Context, account string) ([]list, error) {
				all, err := s.app.Lists(ctx, account)
				out := make([]list, len(all))
				for i, l := range all {
					out[i] = shown(l)
				}
				return out, err
			})
		})
	handle(s, operation("change-list", http.MethodPatch, "/lists/{id}", tagLists, "Change a list's email settings; what is left out stays", withBody...),
		func(ctx context.Context, in *listPatch) (*oneOut[list], error) {
			b := in.Body
			p := app.ListPatch{
				Activated: b.Activated, MembershipAction: b.MembershipAction, SubscriptionFilter: b.SubscriptionFilter,
				MirrorRemovals: b.MirrorRemovals, ClearOnSend: b.ClearOnSend, SyncOrder: b.SyncOrder, ManualOnly: b.ManualOnly, KeepAutomatic: b.KeepAutomatic, Book: b.Book,
			}
			if b.MinOptIn != nil {
				for o := lockstep.OptInUnknown; o <= lockstep.OptInVerifiedDouble; o++ {
					if o.String() == *b.MinOptIn {
						p.MinOptIn = &o
					}
				}
			}
			l, err := s.app.UpdateList(ctx, in.ID, p)
			return one(shown(l), err)
		})
}
