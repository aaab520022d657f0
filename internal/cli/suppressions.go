package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) suppressions() *cobra.Command {
	c := &cobra.Command{
		Use:   "suppressions",
		Short: "People who may not be mailed",
		Example: `  lockstep suppressions list --data /var/lib/lockstep
  lockstep suppressions add ada@example.com --evidence "letter of 3 May" --data /var/lib/lockstep`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.suppressionsList(), env.suppressionsAdd())
	return c
}

func (env *environment) suppressionsList() *cobra.Command {
	var t target
	var account, state string
	c := &cobra.Command{
		Use:   "list",
		Short: "List standing opt-outs",
		Long:  "Lists standing opt-outs of every scope. For one address, lockstep consent show says more.",
		Example: `  lockstep suppressions list --data /var/lib/lockstep
  lockstep suppressions list --state pending --account "Contoso mailings" --json --ready-file ready.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{"limit": {"500"}}
			for name, v := range map[string]string{"account": account, "state": state} {
				if v != "" {
					q.Set(name, v)
				}
			}
			return env.listSuppressions(c.Context(), t, q)
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; all when left out")
	c.Flags().StringVar(&state, "state", "", "pending (some system has still to be told), told, or asked (a resubscription waits for the person)")
	return c
}

func (env *environment) listSuppressions(ctx context.Context, t target, q url.Values) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if env.json {
		all := []json.RawMessage{}
		if err := paged(ctx, c, "/suppressions", q, func(s json.RawMessage) error {
			all = append(all, s)
			return nil
		}); err != nil {
			return err
		}
		return env.printJSON(map[string]any{"items": all})
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ADDRESS\tSCOPE\tWORD\tREASON\tSAID IN\tSINCE\tTOLD\tID")
	if err := paged(ctx, c, "/suppressions", q, func(s app.Suppression) error {
		told := "everybody"
		if s.Pending {
			told = "not everybody"
		}
		address := s.Email
		if address == "" {
			address = "(erased)"
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", address, s.Scope, words[s.Word], dash(s.Reason), s.System, sinceWhen(s.At, s.Seen), told, s.ID)
		return err
	}); err != nil {
		return err
	}
	return w.Flush()
}

func (env *environment) suppressionsAdd() *cobra.Command {
	var t target
	var account, reason, evidence string
	c := &cobra.Command{
		Use:   "add EMAIL",
		Short: "Close an email account to an address",
		Long: `Closes an email account to an address. The ledger keeps the evidence; Dynamics and
the platform are told by the next run of suppressions. It is lifted only by the
person's own wish.`,
		Example: `  lockstep suppressions add ada@example.com --evidence "letter of 3 May" --data /var/lib/lockstep`,
		Args:    arguments("an email address"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.addSuppression(c.Context(), t, map[string]string{"account": account, "email": args[0], "reason": reason, "evidence": evidence})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; may be left out when there is only one")
	c.Flags().StringVar(&reason, "reason", "", "unsubscribed, suppressed (also when left out), hard_bounced or complained")
	c.Flags().StringVar(&evidence, "evidence", "", "what proves it, in words")
	return c
}

func (env *environment) addSuppression(ctx context.Context, t target, body map[string]string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var raw json.RawMessage
	if err := c.call(ctx, http.MethodPost, "/suppressions", nil, body, &raw); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(raw)
	}
	var s app.Suppression
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	env.printf("%s: %s (%s) since %s\n", s.Email, words[s.Word], s.Reason, sinceWhen(s.At, s.Seen))
	return nil
}
