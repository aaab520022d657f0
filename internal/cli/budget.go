package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) budget() *cobra.Command {
	var t target
	var hours string
	c := &cobra.Command{
		Use:   "budget",
		Short: "Show how many API calls are made to each connection, and bound them",
		Long: `Shows how many API calls were made to each organization and email account in the last
hour and day, and how many may be. Syncs that begin by themselves use up to 80 % of a
budget, what people ask for up to 95 %, and opt-outs all of it. Where no budget an hour is
set, what the email platform itself grants is one.`,
		Example: `  lockstep budget --data /var/lib/lockstep
  lockstep budget --hours Marketing --ready-file ready.json
  lockstep budget set Marketing --per-hour 1500 --ready-file ready.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return group(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return env.showBudgets(c.Context(), t, hours) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&hours, "hours", "", "show the calls of each hour of the last day to this `CONNECTION`, by name or id")
	c.AddCommand(env.budgetSet())
	return c
}

// connection finds a connection by id or name.
func (c *client) connection(ctx context.Context, which string) (app.CallUse, error) {
	all, err := c.budgets(ctx)
	if err != nil {
		return app.CallUse{}, err
	}
	var found []app.CallUse
	for _, u := range all {
		if u.Connection == which || u.Name == which {
			found = append(found, u)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return app.CallUse{}, usage("lockstep budget shows them", "there is no organization or email account %q", which)
	}
	return app.CallUse{}, usage("give the id, which lockstep budget --json shows", "several connections are called %q", which)
}

func (c *client) budgets(ctx context.Context) ([]app.CallUse, error) {
	var answer struct {
		Items []app.CallUse `json:"items"`
	}
	err := c.call(ctx, http.MethodGet, "/budgets", nil, nil, &answer)
	return answer.Items, err
}

func (env *environment) showBudgets(ctx context.Context, t target, hours string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if hours != "" {
		return env.showHours(ctx, c, hours)
	}
	all, err := c.budgets(ctx)
	if err != nil {
		return err
	}
	if env.json {
		return env.printJSON(struct {
			Items []app.CallUse `json:"items"`
		}{all})
	}
	return env.printBudgets(all)
}

func (env *environment) printBudgets(all []app.CallUse) error {
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CONNECTION\tLAST HOUR\tOF\tLAST DAY\tOF\tSYNCS\tPEOPLE\tOPT-OUTS\t")
	for i := range all {
		u := &all[i]
		hour := bound(u.PerHour)
		if u.PerHour == 0 && u.Granted > 0 {
			hour = thousands(int64(u.Granted)) + " granted"
		}
		waits := ""
		if !u.Until.IsZero() {
			waits = "syncs wait until " + moment(u.Until)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, thousands(u.Hour.Total), hour, thousands(u.Day.Total), bound(u.PerDay),
			thousands(u.Day.Schedule), thousands(u.Day.Person), thousands(u.Day.Consent), waits)
	}
	return w.Flush()
}

func bound(n int) string {
	if n == 0 {
		return "-"
	}
	return thousands(int64(n))
}

func (env *environment) showHours(ctx context.Context, c *client, which string) error {
	found, err := c.connection(ctx, which)
	if err != nil {
		return err
	}
	var u app.CallUse
	q := url.Values{"since": {time.Now().UTC().Add(-24 * time.Hour).Format(time.RFC3339)}}
	if err := c.call(ctx, http.MethodGet, "/budgets/"+url.PathEscape(found.Connection), q, nil, &u); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(u)
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "HOUR (UTC)\tCALLS\tSYNCS\tPEOPLE\tOPT-OUTS\tPOLLS\t")
	for _, s := range u.Slots {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t\n", s.At.UTC().Format("2006-01-02 15:04"), thousands(s.Total), thousands(s.Schedule), thousands(s.Person), thousands(s.Consent), thousands(s.Polls))
	}
	return w.Flush()
}

func (env *environment) budgetSet() *cobra.Command {
	var t target
	var perHour, perDay string
	c := &cobra.Command{
		Use:   "set CONNECTION",
		Short: "Bound how many API calls are made to an organization or email account",
		Example: `  lockstep budget set Marketing --per-hour 1500 --ready-file ready.json
  lockstep budget set Contoso --per-day 40000 --per-hour none --data /var/lib/lockstep`,
		Args: arguments("the name or id of an organization or email account"),
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&perHour, "per-hour", "", "the most `CALLS` in any 60 minutes, or none")
	c.Flags().StringVar(&perDay, "per-day", "", "the most `CALLS` in any 24 hours, or none")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		patch := map[string]any{}
		for name, text := range map[string]string{"per-hour": perHour, "per-day": perDay} {
			if !c.Flags().Changed(name) {
				continue
			}
			n := 0
			if text != "none" {
				if n, err = strconv.Atoi(text); err != nil {
					return usage("give a number of calls, or none", "--%s cannot be %q", name, text)
				}
			}
			patch[map[string]string{"per-hour": "per_hour", "per-day": "per_day"}[name]] = n
		}
		if len(patch) == 0 {
			return usage("give --per-hour, --per-day or both", "nothing was said to change")
		}
		api, done, err := env.dial(c.Context(), t, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		found, err := api.connection(c.Context(), args[0])
		if err != nil {
			return err
		}
		var u app.CallUse
		if err := api.call(c.Context(), http.MethodPatch, "/budgets/"+url.PathEscape(found.Connection), nil, patch, &u); err != nil {
			return err
		}
		if env.json {
			return env.printJSON(u)
		}
		return env.printBudgets([]app.CallUse{u})
	}
	return c
}
