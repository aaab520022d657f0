package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) accounts() *cobra.Command {
	c := &cobra.Command{
		Use:   "accounts",
		Short: "List the email accounts; start one, pause it, lock it",
		Example: `  lockstep accounts list --data /var/lib/lockstep
  lockstep accounts unlock Marketing --by "Kim Abel" --reason "the environment was restored on purpose" --ready-file ready.json`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.accountsList(), env.accountsAutomatic(true), env.accountsAutomatic(false), env.accountsLock(), env.accountsUnlock())
	return c
}

func (env *environment) accountsList() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the email accounts, and which are locked",
		Example: "  lockstep accounts list --json --data /var/lib/lockstep",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			return env.callAccounts(c.Context(), t, http.MethodGet, "/accounts", nil)
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	return c
}

func (env *environment) accountsAutomatic(on bool) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "start ACCOUNT",
		Short: "Let an email account's syncs run by themselves, as their schedules say",
		Long: `Lets an email account's syncs run by themselves, as "lockstep schedules" shows. A new
account begins without: preview first what the syncs will write.`,
		Example: `  lockstep accounts start Marketing --ready-file ready.json`,
		Args:    arguments("the name or id of an email account"),
	}
	if !on {
		c.Use, c.Short = "pause ACCOUNT", "Let an email account's syncs run only when somebody asks"
		c.Long = `Keeps an email account's syncs from running by themselves; a run that is under way goes
on to its end. Nothing is exchanged until somebody starts a sync, opt-outs included.`
		c.Example = `  lockstep accounts pause Marketing --ready-file ready.json`
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return env.callAccounts(c.Context(), t, http.MethodPatch, "/accounts/"+url.PathEscape(args[0]), map[string]bool{"automatic": on})
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	return c
}

func (env *environment) accountsLock() *cobra.Command {
	var t target
	var reason string
	c := &cobra.Command{
		Use:   "lock ACCOUNT",
		Short: "Keep an email account from being written to",
		Long: `Locks an email account: until it is unlocked nothing is written to it or to its
organization, and syncs end with exit code 7. Opt-outs are still taken in.`,
		Example: `  lockstep accounts lock Marketing --reason "the environment is being restored" --ready-file ready.json`,
		Args:    arguments("the name or id of an email account"),
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return usage("say what is to be checked before anything is written again", "give --reason")
			}
			return env.callAccounts(c.Context(), t, http.MethodPost, "/accounts/"+url.PathEscape(args[0])+"/lock", map[string]string{"reason": reason})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&reason, "reason", "", "what is to be checked before anything is written again")
	return c
}

func (env *environment) accountsUnlock() *cobra.Command {
	var t target
	var by, reason string
	c := &cobra.Command{
		Use:   "unlock ACCOUNT",
		Short: "Let a locked email account be written to again",
		Long: `Unlocks an email account. Who did so and why is kept with the account. Opt-outs that
came in while it was locked are told by the next sync of suppressions.`,
		Example: `  lockstep accounts unlock Marketing --by "Kim Abel" --reason "the environment was restored on purpose" --ready-file ready.json`,
		Args:    arguments("the name or id of an email account"),
		RunE: func(c *cobra.Command, args []string) error {
			if by == "" || reason == "" {
				return usage("say who takes responsibility and what was checked", "give --by and --reason")
			}
			return env.callAccounts(c.Context(), t, http.MethodPost, "/accounts/"+url.PathEscape(args[0])+"/unlock", map[string]string{"by": by, "reason": reason})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&by, "by", "", "`NAME` of who takes responsibility")
	c.Flags().StringVar(&reason, "reason", "", "what was checked")
	return c
}

func (env *environment) rearm() *cobra.Command {
	var t target
	var by string
	c := &cobra.Command{
		Use:   "rearm",
		Short: "Let a copied or restored database act from where it is now",
		Long: `A database that was copied, or restored in another place, locks every account when
it is opened, so that two of them never write to the same people. rearm makes the place
where it is now its own and unlocks those accounts. Make sure first that the original
does not run any more.`,
		Example: `  lockstep rearm --by "Kim Abel" --data /var/lib/lockstep`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if by == "" {
				return usage("say who takes responsibility", "give --by")
			}
			return env.callAccounts(c.Context(), t, http.MethodPost, "/rearm", map[string]string{"by": by})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&by, "by", "", "`NAME` of who takes responsibility")
	return c
}

// callAccounts makes a call that answers with email accounts, and prints them.
func (env *environment) callAccounts(ctx context.Context, t target, method, path string, body any) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var answer struct {
		lockstep.EmailAccount
		Items *[]lockstep.EmailAccount `json:"items"`
	}
	if err := c.call(ctx, method, path, nil, body, &answer); err != nil {
		return err
	}
	all := []lockstep.EmailAccount{answer.EmailAccount}
	if answer.Items != nil {
		all = *answer.Items
	}
	if env.json {
		return env.printJSON(map[string]any{"items": all})
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ACCOUNT\tPLATFORM\tID\tSTATE")
	for _, a := range all {
		state := "syncs when asked"
		if a.Automatic {
			state = "syncs by itself"
		}
		if a.Locked != "" {
			state = "locked: " + a.Locked
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", a.Name, a.Adapter, a.ID, state)
	}
	return w.Flush()
}
