package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) runs() *cobra.Command {
	var t target
	var account, syncType, status string
	limit := 20
	c := &cobra.Command{
		Use:   "runs",
		Short: "List runs, newest first",
		Example: `  lockstep runs --data /var/lib/lockstep
  lockstep runs --type marketing-lists --status completed_with_errors --limit 5 --json --ready-file ready.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return group(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > 500 {
				return usage("give a number from 1 to 500", "--limit cannot be %d", limit)
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, v := range map[string]string{"account": account, "type": syncType, "status": status} {
				if v != "" {
					q.Set(name, v)
				}
			}
			return env.showRuns(c.Context(), t, q)
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account")
	c.Flags().StringVar(&syncType, "type", "", "only runs of this sync type")
	c.Flags().StringVar(&status, "status", "", "only runs in this state: queued, in_process, completed, completed_with_errors, failed, cancelled or previewed")
	c.Flags().IntVar(&limit, "limit", limit, "how many, up to 500")
	c.AddCommand(env.runsShow())
	return c
}

func (env *environment) showRuns(ctx context.Context, t target, q url.Values) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var page struct {
		Items []lockstep.Run `json:"items"`
		Next  string         `json:"next,omitempty"`
	}
	if err := c.call(ctx, http.MethodGet, "/runs", q, nil, &page); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(page)
	}
	if len(page.Items) == 0 {
		env.notef("There are no such runs.\n")
		return nil
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "RUN\tTYPE\tSTATUS\tSTARTED\tREAD\tWRITTEN\tFINDINGS\tCALLS")
	for _, r := range page.Items {
		started := "-"
		if !r.Started.IsZero() {
			started = r.Started.Format(timeFormat)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Type, r.Status, started, thousands(r.Counts.Read), thousands(r.Counts.Written),
			thousands(r.Counts.Findings), thousands(r.Calls.CRM+r.Calls.Platform+r.Calls.Polls))
	}
	return w.Flush()
}

func (env *environment) runsShow() *cobra.Command {
	var t target
	var parts runParts
	c := &cobra.Command{
		Use:   "show RUN",
		Short: "Show one run, with every list, change and finding if asked",
		Example: `  lockstep runs show 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --changes --findings --data /var/lib/lockstep
  lockstep runs show 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --changes --json --ready-file ready.json`,
		Args: arguments("the id of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.showOneRun(c.Context(), t, args[0], parts)
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().BoolVar(&parts.lists, "lists", false, "show what came of each marketing list")
	c.Flags().BoolVar(&parts.changes, "changes", false, "show every change: what, old value, new value, why")
	c.Flags().BoolVar(&parts.findings, "findings", false, "show every finding: which record, what is wrong, what to do")
	return c
}

// runParts says what is shown of a run besides what it came to as a whole.
type runParts struct{ lists, changes, findings bool }

func (env *environment) showOneRun(ctx context.Context, t target, id string, parts runParts) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	run, err := c.run(ctx, id)
	if err != nil {
		return err
	}
	codes, err := c.findings(ctx, id)
	if err != nil {
		return err
	}
	path := "/runs/" + url.PathEscape(id)
	if env.json {
		return env.printRun(ctx, c, runResult{Run: run, Findings: codes}, path, parts)
	}
	env.showRun(run, codes)
	if parts.lists {
		if err := env.showRunLists(ctx, c, path); err != nil {
			return err
		}
	}
	if parts.changes {
		env.printf("\nChanges\n")
		err = paged(ctx, c, path+"/changes", large, func(x change) error {
			env.showChange(x)
			return nil
		})
	}
	if parts.findings && err == nil && len(codes) > 0 {
		env.printf("\nFindings\n")
		err = paged(ctx, c, path+"/findings", large, func(f lockstep.Finding) error {
			env.showFinding(f)
			return nil
		})
	}
	return err
}

// showRunLists shows what came of each list.
func (env *environment) showRunLists(ctx context.Context, c *client, path string) error {
	var lists struct {
		Items []app.ListOutcome `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, path+"/lists", nil, nil, &lists); err != nil {
		return err
	}
	env.printf("\nLists\n")
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "  LIST\tSTATUS\tTO BOOK\tFROM BOOK\tTO LIST\tFROM LIST\tREFUSED\tFINDINGS\tREASON")
	for _, l := range lists.Items {
		_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Status, thousands(l.BookAdds), thousands(l.BookRemovals), thousands(l.ListAdds), thousands(l.ListRemovals),
			thousands(l.Refused), thousands(l.Findings), l.Reason)
	}
	return w.Flush()
}

func subject(record lockstep.ID, contact string) string {
	if record.IsZero() {
		return "contact " + contact
	}
	return record.String()
}

func (env *environment) showChange(x change) {
	on := ""
	switch {
	case x.Record != nil && x.Record.Table != "":
		on = x.Record.String()
	case x.Contact != "":
		on = "contact " + x.Contact
	case x.Name != "":
		on = x.Name
	}
	env.printf("  %-15s %-12s %s", x.Kind, x.State, on)
	if x.Why != "" {
		env.printf("  (%s)", x.Why)
	}
	env.printf("\n")
	for _, f := range x.Fields {
		env.printf("      %s: %s → %s\n", f.Name, plainValue(f.Old), plainValue(f.New))
	}
	if x.Cause != "" {
		env.printf("      %s\n", x.Cause)
	}
}

func plainValue(v any) string {
	if v == nil {
		return "(empty)"
	}
	return fmt.Sprint(v)
}

// printRun prints a run as one JSON object. Changes and findings, which can be many,
// are written as they come.
func (env *environment) printRun(ctx context.Context, c *client, run runResult, path string, parts runParts) error {
	head, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return err
	}
	env.printf("%s", strings.TrimSuffix(string(head), "\n}"))
	if parts.lists {
		var lists struct {
			Items json.RawMessage `json:"items"`
		}
		if err := c.call(ctx, http.MethodGet, path+"/lists", nil, nil, &lists); err != nil {
			return err
		}
		env.printf(",\n  \"lists\": %s", lists.Items)
	}
	for _, part := range []struct {
		name string
		want bool
	}{{"changes", parts.changes}, {"findings", parts.findings}} {
		if !part.want {
			continue
		}
		env.printf(",\n  %q: [", part.name)
		between := "\n    "
		err := paged(ctx, c, path+"/"+part.name, large, func(item json.RawMessage) error {
			env.printf("%s%s", between, slices.Clip(item))
			between = ",\n    "
			return nil
		})
		if err != nil {
			return err
		}
		env.printf("\n  ]")
	}
	env.printf("\n}\n")
	return nil
}
