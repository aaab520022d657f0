package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/merge"
)

// Lists returns an account's marketing lists in the order in which they are synced.
func (a *App) Lists(ctx context.Context, account string) ([]lockstep.ListSettings, error) {
	return a.store.Lists(ctx, account)
}

// List finds a list by its id, its CRM id or its name.
func (a *App) List(ctx context.Context, account, which string) (lockstep.ListSettings, error) {
	lists, err := a.store.Lists(ctx, account)
	if err != nil {
		return lockstep.ListSettings{}, err
	}
	var found []lockstep.ListSettings
	for _, l := range lists {
		if l.ID == which || l.CRMID.String() == strings.ToLower(which) {
			return l, nil
		}
		if strings.EqualFold(l.Name, which) {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return lockstep.ListSettings{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "list", Msg: fmt.Sprintf("there is no marketing list %q", which), Hint: "give its name or id as the list of lists shows it"}
	}
	return lockstep.ListSettings{}, &lockstep.Error{Code: lockstep.CodeConflict, Field: "list", Msg: fmt.Sprintf("%d marketing lists are called %q", len(found), which), Hint: "give the id instead"}
}

// DiscoverLists reads the CRM's marketing lists and keeps settings for each; new
// ones are not activated.
func (a *App) DiscoverLists(ctx context.Context, account string) error {
	acc, err := a.store.Account(ctx, account)
	if err != nil {
		return err
	}
	org, err := a.store.Organization(ctx, acc.Organization)
	if err != nil {
		return err
	}
	crm, err := a.crm(ctx, org)
	if err != nil {
		return err
	}
	found, err := crm.Lists(ctx)
	if err != nil {
		return err
	}
	known, err := a.store.Lists(ctx, account)
	if err != nil {
		return err
	}
	have := map[lockstep.ID]bool{}
	for _, l := range known {
		have[l.CRMID] = true
	}
	var add []lockstep.ListSettings
	for _, l := range found {
		if !have[l.ID] {
			add = append(add, engine.NewListSettings(account, l))
		}
	}
	_, err = a.store.SaveLists(ctx, add...)
	return err
}

// ListPatch changes a list's email settings; nil fields stay.
type ListPatch struct {
	Activated          *bool
	MembershipAction   *lockstep.MembershipAction
	SubscriptionFilter *lockstep.SubscriptionFilter
	MinOptIn           *lockstep.OptInType
	MirrorRemovals     *bool
	ClearOnSend        *bool
	SyncOrder          *int
	ManualOnly         *bool
	KeepAutomatic      *bool
	// Book links the list to an existing address book.
	Book *lockstep.BookID
}

// maxSyncOrder bounds a list's place in the order.
const maxSyncOrder = 1_000_000

var filters = []lockstep.SubscriptionFilter{
	lockstep.FilterNone, lockstep.FilterBulkEmail, lockstep.FilterAnyOptOut, lockstep.FilterMaterial,
	lockstep.FilterListUnsubscribers, lockstep.FilterSuppressed, lockstep.FilterOptInAtLeast,
}

// UpdateList changes a list's email settings.
func (a *App) UpdateList(ctx context.Context, id string, p ListPatch) (lockstep.ListSettings, error) {
	l, err := a.store.List(ctx, id)
	if err != nil {
		return l, err
	}
	all, err := a.store.Lists(ctx, l.Account)
	if err != nil {
		return l, err
	}
	if err := p.apply(&l, all); err != nil {
		return l, err
	}
	saved, err := a.store.SaveLists(ctx, l)
	if err != nil {
		return l, err
	}
	return saved[0], nil
}

// apply changes a list, one of all of an account, and says everything about the result
// that cannot be.
func (p *ListPatch) apply(l *lockstep.ListSettings, all []lockstep.ListSettings) error {
	was := *l
	set(&l.Activated, p.Activated)
	set(&l.MembershipAction, p.MembershipAction)
	set(&l.SubscriptionFilter, p.SubscriptionFilter)
	set(&l.MinOptIn, p.MinOptIn)
	set(&l.MirrorRemovals, p.MirrorRemovals)
	set(&l.ClearOnSend, p.ClearOnSend)
	set(&l.SyncOrder, p.SyncOrder)
	set(&l.ManualOnly, p.ManualOnly)
	set(&l.KeepAutomatic, p.KeepAutomatic)
	set(&l.Book, p.Book)
	if l.Activated != was.Activated || l.ManualOnly != was.ManualOnly || l.KeepAutomatic != was.KeepAutomatic {
		l.InUse, l.IdleNotice = time.Time{}, time.Time{} // somebody has it in mind
	}
	problems := []error{merge.CheckAction(l.MembershipAction, l.MemberTable, l.Dynamic)}
	if !slices.Contains(filters, l.SubscriptionFilter) {
		problems = append(problems, invalid("subscription_filter", fmt.Sprintf("%.40q is not a subscription filter", l.SubscriptionFilter), fmt.Sprintf("use one of %v", filters)))
	}
	if p.SyncOrder != nil && (l.SyncOrder < 0 || l.SyncOrder > maxSyncOrder) {
		problems = append(problems, invalid("sync_order", fmt.Sprintf("the order is between 0 and %d", maxSyncOrder), "lower is earlier"))
	}
	if l.Activated && p.Activated != nil {
		for _, r := range lockstep.ReservedBookNames {
			if strings.EqualFold(strings.TrimSpace(l.Name), r) {
				problems = append(problems, invalid("activated", fmt.Sprintf("the platform keeps the name %q for itself", l.Name), "rename the marketing list in the CRM first"))
			}
		}
		if l.Gone {
			problems = append(problems, invalid("activated", "the marketing list no longer exists in the CRM", ""))
		}
	}
	if p.Book != nil {
		for _, other := range all {
			if other.ID != l.ID && other.Book != "" && other.Book == l.Book {
				problems = append(problems, &lockstep.Error{Code: lockstep.CodeConflict, Field: "address_book_id", Msg: fmt.Sprintf("the address book belongs to the list %q already", other.Name)})
			}
		}
	}
	return errors.Join(problems...)
}

func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}
