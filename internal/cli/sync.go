package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) sync() *cobra.Command {
	c := &cobra.Command{
		Use:   "sync",
		Short: "Start a sync now, preview one, or apply a preview",
		Example: `  lockstep sync preview --type marketing-lists --data /var/lib/lockstep
  lockstep sync run --type marketing-lists --list "Company newsletter" --server http://127.0.0.1:8080`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.syncRun(lockstep.ModeApply), env.syncRun(lockstep.ModePreview), env.syncApply())
	return c
}

func (env *environment) syncRun(mode lockstep.Mode) *cobra.Command {
	var t target
	var r runRequest
	var syncType string
	c := &cobra.Command{
		Use:   "run",
		Short: "Start a sync and wait for its end",
		Long: `Starts one sync and shows its progress until it has ended. Lockstep is asked over
its API (--server, --ready-file), or its data is opened when no server runs (--data).

Exit code 3: the sync is done and some records need a person; see the findings.`,
		Example: `  lockstep sync run --type marketing-lists --data /var/lib/lockstep
  lockstep sync run --type marketing-lists --list "Company newsletter" --ready-file ready.json
  LOCKSTEP_TOKEN=… lockstep sync run --account Marketing --type data-labels --server http://127.0.0.1:8080 --json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			r.Type = lockstep.SyncType(syncType)
			if !slices.Contains(lockstep.SyncTypes, r.Type) {
				return usage("use "+typeNames(), "%q is not a sync type of this version", syncType)
			}
			return env.carryOut(c.Context(), t, string(r.Type), func(ctx context.Context, c *client) (lockstep.Run, error) { return c.startRun(ctx, r) })
		},
	}
	r.Mode = mode
	if mode == lockstep.ModePreview {
		c.Use, c.Short = "preview", "Show what a sync would write, and write nothing"
		c.Long = strings.Replace(c.Long, "Starts one sync", "Plans one sync, writes nothing,", 1) + "\nsync apply RUN writes exactly what a preview showed."
		c.Example = strings.ReplaceAll(c.Example, "sync run", "sync preview")
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&r.Account, "account", "", "name or id of the email account; may be left out when there is only one")
	c.Flags().StringVar(&syncType, "type", string(lockstep.SyncMarketingLists), "sync type: "+typeNames())
	c.Flags().StringVar(&r.List, "list", "", "name or id of one marketing list; all that are due when left out")
	return c
}

func typeNames() string {
	var names []string
	for _, t := range lockstep.SyncTypes {
		names = append(names, string(t))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func (env *environment) syncApply() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "apply RUN",
		Short: "Write exactly what a preview showed",
		Long: `Writes the changes of a finished preview and no others. What was changed on either
side since the preview is left alone and becomes a finding.`,
		Example: "  lockstep sync apply 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --ready-file ready.json",
		Args:    arguments("the id of a preview"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.carryOut(c.Context(), t, "apply", func(ctx context.Context, c *client) (lockstep.Run, error) { return c.applyPreview(ctx, args[0]) })
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	return c
}

// runResult is what --json prints of a run.
type runResult struct {
	lockstep.Run
	Findings map[string]int64 `json:"findings_by_code"`
}

// carryOut starts a run, shows its progress and prints its result.
func (env *environment) carryOut(ctx context.Context, t target, title string, start func(context.Context, *client) (lockstep.Run, error)) (err error) {
	c, done, err := env.dial(ctx, t, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	run, err := start(ctx, c)
	if err != nil {
		return err
	}
	p := newProgress(env.std.Err)
	expected := ""
	if run.Price != nil {
		expected = fmt.Sprintf(", about %s calls to Dynamics and %s to the platform", thousands(run.Price.CRM), thousands(run.Price.Platform))
	}
	p.begin("%s, run %s%s", title, run.ID, expected)
	again := run.Again
	if run, err = follow(ctx, p, run.ID, 0, c.run); err == nil && again != "" && run.Status != lockstep.RunCancelled {
		// It was under way when it was asked for: what was asked for comes now.
		p.end("%s; run %s follows", runLine(run), again)
		p.begin("%s, run %s", title, again)
		run, err = follow(ctx, p, again, 0, c.run)
	}
	if err == nil {
		err = runError(run)
	}
	if err != nil {
		p.stop()
		return err
	}
	p.end("%s", runLine(run))
	codes, err := c.findings(ctx, run.ID)
	if err != nil {
		return err
	}
	if env.json {
		err = env.printJSON(runResult{Run: run, Findings: codes})
	} else {
		env.showRun(run, codes)
	}
	if err == nil && (len(codes) > 0 || run.Status == lockstep.RunCompletedWithErrors) {
		err = errFindings
	}
	return err
}

// priceText is what a run was expected to take, in words.
func priceText(p *lockstep.Price) string {
	if p == nil {
		return ""
	}
	basis := map[string]string{"runs": "as the last runs like it took", "preview": "as its preview took and its changes take", "lists": "by the members of its lists"}[p.Basis]
	return fmt.Sprintf("%s Dynamics and %s platform were expected, %s", thousands(p.CRM), thousands(p.Platform), basis)
}

// showRun prints what a run did.
func (env *environment) showRun(run lockstep.Run, codes map[string]int64) {
	p := env.printf
	p("Run       %s\nType      %s (%s)\nStatus    %s\n", run.ID, run.Type, run.Mode, run.Status)
	if !run.Started.IsZero() {
		p("Started   %s\n", run.Started.Format(timeFormat))
	}
	if !run.Ended.IsZero() {
		p("Ended     %s\n", run.Ended.Format(timeFormat))
	}
	c := run.Counts
	p("Read      %s\n", thousands(c.Read))
	for _, n := range []struct {
		one, many string
		count     int64
	}{
		{"contact created", "contacts created", c.ContactsCreated},
		{"contact changed", "contacts changed", c.ContactsUpdated},
		{"CRM record created", "CRM records created", c.RecordsCreated},
		{"CRM record changed", "CRM records changed", c.RecordsUpdated},
		{"put on an address book", "put on address books", c.BookAdds},
		{"taken off an address book", "taken off address books", c.BookRemovals},
		{"added to a marketing list", "added to marketing lists", c.ListAdds},
		{"removed from a marketing list", "removed from marketing lists", c.ListRemovals},
		{"opt-out that is new", "opt-outs that are new", c.OptOutsSeen},
		{"opt-out that had been missed", "opt-outs that had been missed", c.OptOutsMissed},
		{"opt-out that everybody knows now", "opt-outs that everybody knows now", c.OptOutsTold},
		{"changed on both sides", "changed on both sides", c.Conflicted},
		{"refused", "refused", c.Rejected},
		{"held back by a guard", "held back by a guard", c.Guarded},
	} {
		switch n.count {
		case 0:
		case 1:
			p("          1 %s\n", n.one)
		default:
			p("          %s %s\n", thousands(n.count), n.many)
		}
	}
	p("API calls %s\n", fmt.Sprintf("%d Dynamics, %d platform, %d waiting for imports", run.Calls.CRM, run.Calls.Platform, run.Calls.Polls))
	if price := priceText(run.Price); price != "" {
		p("          %s\n", price)
	}
	if len(codes) > 0 {
		p("Findings\n")
		for _, code := range slices.Sorted(maps.Keys(codes)) {
			p("          %s %s\n", thousands(codes[code]), code)
		}
	}
	if run.Error != "" {
		p("Error     %s\n", run.Error)
	}
	if run.Hint != "" {
		p("          → %s\n", run.Hint)
	}
}

const timeFormat = "2006-01-02 15:04:05 UTC"
