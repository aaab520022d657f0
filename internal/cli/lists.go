package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) lists() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "lists",
		Short: "List marketing lists with their email settings",
		Example: `  lockstep lists --data /var/lib/lockstep
  lockstep lists --json --ready-file ready.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return group(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return env.showLists(c.Context(), t, account) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; all when left out")
	c.AddCommand(env.listsSet())
	return c
}

func (env *environment) showLists(ctx context.Context, t target, account string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if env.json {
		q := url.Values{}
		if account != "" {
			q.Set("account", account)
		}
		all := []json.RawMessage{}
		if err := paged(ctx, c, "/lists", q, func(l json.RawMessage) error {
			all = append(all, l)
			return nil
		}); err != nil {
			return err
		}
		return env.printJSON(map[string]any{"items": all})
	}
	rows, err := c.lists(ctx, account)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tMEMBERS\tKIND\tACTIVATED\tMEMBERSHIP ACTION\tFILTER\tADDRESS BOOK")
	for _, l := range rows {
		kind, active, book := "static", "no", "-"
		if l.Dynamic {
			kind = "dynamic"
		}
		if l.Activated {
			active = "yes"
		}
		if l.Book != "" {
			book = l.Book
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.MemberTable, kind, active, l.MembershipAction, l.SubscriptionFilter, book)
	}
	return w.Flush()
}

func (env *environment) listsSet() *cobra.Command {
	var t target
	var account, action, filter, optIn, book string
	var activate, mirror, clearOnSend, manual, keep bool
	var order int
	c := &cobra.Command{
		Use:   "set LIST",
		Short: "Change a marketing list's email settings",
		Long:  "Changes the email settings of one marketing list, named by its name or id. What no flag names stays.",
		Example: `  lockstep lists set "Company newsletter" --activate --action remove --data /var/lib/lockstep
  lockstep lists set "Press and investors" --activate=false --ready-file ready.json`,
		Args: arguments("the name or id of a marketing list"),
	}
	f := c.Flags()
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	f.StringVar(&account, "account", "", "name or id of the email account")
	f.BoolVar(&activate, "activate", false, "keep the list in step")
	f.StringVar(&action, "action", "", "what happens to strangers in the address book: ignore, remove, allow_known, create_lead or create_contact")
	f.StringVar(&filter, "filter", "", "who is not sent: none, bulk_email, any_opt_out, marketing_material, list_unsubscribers, suppressed or opt_in_at_least")
	f.StringVar(&optIn, "min-opt-in", "", "with --filter opt_in_at_least: single, double or verified_double")
	f.BoolVar(&mirror, "mirror-removals", false, "who leaves the marketing list leaves the address book")
	f.BoolVar(&clearOnSend, "clear-on-send", false, "empty the marketing list after a campaign was sent to it")
	f.BoolVar(&manual, "manual-only", false, "sync the list only when it is asked for")
	f.BoolVar(&keep, "keep-automatic", false, "go on syncing the static list by itself when nobody uses it for 90 days")
	f.IntVar(&order, "order", 0, "lower is earlier")
	f.StringVar(&book, "address-book", "", "id of an existing address book to link the list to")
	c.RunE = func(c *cobra.Command, args []string) error {
		patch := map[string]any{}
		for flag, field := range map[string]struct {
			name  string
			value any
		}{
			"activate": {"activated", activate}, "action": {"membership_action", action}, "filter": {"subscription_filter", filter}, "min-opt-in": {"min_opt_in", optIn},
			"mirror-removals": {"mirror_removals", mirror}, "clear-on-send": {"clear_on_send", clearOnSend}, "manual-only": {"manual_only", manual}, "keep-automatic": {"keep_automatic", keep},
			"order": {"sync_order", order}, "address-book": {"address_book_id", book},
		} {
			if f.Changed(flag) {
				patch[field.name] = field.value
			}
		}
		if len(patch) == 0 {
			return usage("see "+c.CommandPath()+" --help", "nothing to set")
		}
		return env.setList(c.Context(), t, account, args[0], patch)
	}
	return c
}

func (env *environment) setList(ctx context.Context, t target, account, which string, patch map[string]any) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	l, err := c.list(ctx, account, which)
	if err != nil {
		return err
	}
	var saved json.RawMessage
	if err := c.call(ctx, http.MethodPatch, "/lists/"+url.PathEscape(l.ID), nil, patch, &saved); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(saved)
	}
	env.printf("%s: saved\n", l.Name)
	return nil
}

// list finds a marketing list by its name or one of its ids.
func (c *client) list(ctx context.Context, account, which string) (listRow, error) {
	rows, err := c.lists(ctx, account)
	if err != nil {
		return listRow{}, err
	}
	var found []listRow
	for _, l := range rows {
		if l.ID == which || strings.EqualFold(l.CRMID, which) && account != "" {
			return l, nil
		}
		if strings.EqualFold(l.Name, which) || strings.EqualFold(l.CRMID, which) {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return listRow{}, &lockstep.Error{Code: lockstep.CodeNotFound, Msg: fmt.Sprintf("there is no marketing list %q", which), Hint: "lockstep lists shows them all"}
	}
	return listRow{}, &lockstep.Error{Code: lockstep.CodeConflict, Msg: fmt.Sprintf("%d marketing lists are called %q", len(found), which), Hint: "give --account, or the id from lockstep lists --json"}
}
