package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) findings() *cobra.Command {
	c := &cobra.Command{
		Use:   "findings",
		Short: "Records that a side did not take, and when they are tried again",
		Example: `  lockstep findings list --data /var/lib/lockstep
  lockstep findings retry 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --data /var/lib/lockstep`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.findingsList(), env.findingsRetry())
	return c
}

func (env *environment) findingsList() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "list",
		Short: "List records that wait for another attempt",
		Long: `Lists the latest finding about each record that a side did not take and that is tried
again. A record is also tried again as soon as it changes. All findings of one run:
lockstep runs show RUN --findings.`,
		Example: `  lockstep findings list --data /var/lib/lockstep
  lockstep findings list --account "Contoso mailings" --json --ready-file ready.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error { return env.listFindings(c.Context(), t, account) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; may be left out when there is only one")
	return c
}

func (env *environment) listFindings(ctx context.Context, t target, account string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	q := url.Values{"limit": {"500"}}
	if account != "" {
		q.Set("account", account)
	}
	if env.json {
		all := []json.RawMessage{}
		if err := paged(ctx, c, "/findings", q, func(f json.RawMessage) error {
			all = append(all, f)
			return nil
		}); err != nil {
			return err
		}
		return env.printJSON(map[string]any{"items": all})
	}
	none := true
	err = paged(ctx, c, "/findings", q, func(f lockstep.Finding) error {
		none = false
		env.showFinding(f)
		return nil
	})
	if err == nil && none {
		env.notef("No record waits for another attempt.\n")
	}
	return err
}

func (env *environment) findingsRetry() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "retry FINDING",
		Short: "Try again at once what a finding is about",
		Long: `Starts a run of the sync that met the problem. It looks at the record whether it changed
or not.

Exit code 3: the run is done and some records need a person; see the findings.`,
		Example: "  lockstep findings retry 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --data /var/lib/lockstep",
		Args:    arguments("the id of a finding"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.carryOut(c.Context(), t, "retry", func(ctx context.Context, c *client) (run lockstep.Run, err error) {
				return run, c.call(ctx, http.MethodPost, "/findings/"+url.PathEscape(args[0])+"/retry", nil, nil, &run)
			})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	return c
}

// showFinding prints one finding: which record, what is wrong, what to do, and when it is
// tried again.
func (env *environment) showFinding(f lockstep.Finding) {
	env.printf("  %-18s %s %s: %s\n", f.Code, f.Table, subject(f.Record, string(f.Contact)), f.Message)
	if f.Hint != "" {
		env.printf("  %-18s → %s\n", "", f.Hint)
	}
	if r := f.Retry; r != nil {
		times := "once"
		if r.Attempts != 1 {
			times = fmt.Sprintf("%d times", r.Attempts)
		}
		env.printf("  %-18s tried %s, again from %s; at once: lockstep findings retry %s\n", "", times, r.Next.Format(timeFormat), f.ID)
	}
}
