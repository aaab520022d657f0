package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/configuration"
)

func (env *environment) configuration() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Export, review and apply the configuration as YAML",
		Long: `Writes everything that was decided for the email accounts (settings, labels, mappings,
lists, schedules) as a YAML document without secrets, and changes the configuration to
what such a document says.`,
		Example: `  lockstep config export --data /var/lib/lockstep > lockstep.yaml
  lockstep config plan lockstep.yaml --data /var/lib/lockstep
  lockstep config apply lockstep.yaml --plan FINGERPRINT --data /var/lib/lockstep`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.configExport(), env.configPlan(), env.configApply())
	return c
}

func (env *environment) configExport() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "export",
		Short: "Print the configuration",
		Long: `Prints the configuration of all email accounts, or of one. The same configuration gives
the same bytes. Connections, secrets, locks and address books are not part of it.`,
		Example: `  lockstep config export --data /var/lib/lockstep > lockstep.yaml
  lockstep config export --account "Contoso mailings" --ready-file ready.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			api, done, err := env.dial(c.Context(), t, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			q := url.Values{}
			if account != "" {
				q.Set("account", account)
			}
			var d configuration.Document
			if err := api.call(c.Context(), http.MethodGet, "/configuration", q, nil, &d); err != nil {
				return err
			}
			if env.json {
				return env.printJSON(d)
			}
			_, err = env.std.Out.Write(d.Text())
			return err
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; all when left out")
	return c
}

func (env *environment) configPlan() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "plan FILE",
		Short: "Show what applying a document would change",
		Long: `Compares a document with what is configured and shows each difference; writes nothing.
FILE can be - for standard input. What the document leaves out: a section that is absent
is left alone; of labels, mappings and schedules, a section that is present is the whole
truth; lists and settings that are not named stay.`,
		Example: `  lockstep config plan lockstep.yaml --data /var/lib/lockstep
  lockstep config plan sandbox.yaml --account "Contoso mailings" --json --ready-file ready.json`,
		Args: arguments("the file with the document"),
		RunE: func(c *cobra.Command, args []string) error {
			plan, err := env.sendDocument(c, t, args[0], "/configuration/plan", map[string]any{}, account)
			switch {
			case err != nil:
				return err
			case env.json:
				return env.printJSON(plan)
			case len(plan.Changes) == 0:
				env.printf("No difference: what is configured is what the document says.\n")
				return nil
			}
			env.showChanges(plan.Changes)
			again := ""
			if account != "" {
				again = fmt.Sprintf(" --account %q", account)
			}
			env.printf("\n%s. Nothing was written; to make just these changes:\n  lockstep config apply %s%s --plan %s\n", changes(len(plan.Changes)), args[0], again, plan.Fingerprint)
			return nil
		},
	}
	env.documentFlags(c, &t, &account)
	return c
}

func (env *environment) configApply() *cobra.Command {
	var t target
	var account, plan string
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Change the configuration to what a document says",
		Long: `Makes the changes that lockstep config plan shows for the document, all of them or none.
With --plan it refuses when the document or the configuration has changed since that plan.`,
		Example: `  lockstep config apply lockstep.yaml --data /var/lib/lockstep
  lockstep config apply sandbox.yaml --account "Contoso mailings" --plan 3f2a… --ready-file ready.json`,
		Args: arguments("the file with the document"),
		RunE: func(c *cobra.Command, args []string) error {
			more := map[string]any{}
			if plan != "" {
				more["plan"] = plan
			}
			done, err := env.sendDocument(c, t, args[0], "/configuration/apply", more, account)
			switch {
			case err != nil:
				return err
			case env.json:
				return env.printJSON(done)
			case len(done.Changes) == 0:
				env.printf("No difference: nothing had to be changed.\n")
				return nil
			}
			env.showChanges(done.Changes)
			env.printf("\n%s, all applied.\n", changes(len(done.Changes)))
			return nil
		},
	}
	env.documentFlags(c, &t, &account)
	c.Flags().StringVar(&plan, "plan", "", "`FINGERPRINT` of the plan that was looked at; whatever the plan is now when left out")
	return c
}

func (env *environment) documentFlags(c *cobra.Command, t *target, account *string) {
	env.targetFlags(c, t)
	env.jsonFlag(c)
	c.Flags().StringVar(account, "account", "", "name or id of the email account that a document of one account is about, in place of the one that it names")
}

func changes(n int) string {
	if n == 1 {
		return "1 change"
	}
	return fmt.Sprintf("%d changes", n)
}

func (env *environment) showChanges(all []configuration.Change) {
	account := ""
	for i := range all {
		if all[i].Account != account {
			account = all[i].Account
			env.printf("%s\n", account)
		}
		env.printf("  %s\n", strings.ReplaceAll(all[i].String(), "\n", "\n  "))
	}
}

// sendDocument reads a document and has the API plan or apply it.
func (env *environment) sendDocument(c *cobra.Command, t target, file, path string, body map[string]any, account string) (plan app.ConfigurationPlan, err error) {
	text, err := env.readDocument(file)
	if err != nil {
		return plan, usage("give the path of a YAML file, or - for standard input", "the document cannot be read: %s", err)
	}
	d, err := configuration.Parse(text)
	if err != nil {
		e := lockstep.AsError(err)
		return plan, usage(e.Hint, "%s: %s", file, e.Msg)
	}
	body["document"] = d
	if account != "" {
		body["account"] = account
	}
	api, done, err := env.dial(c.Context(), t, false)
	if err != nil {
		return plan, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return plan, inFile(api.call(c.Context(), http.MethodPost, path, nil, body, &plan), file, configuration.Lines(text))
}

func (env *environment) readDocument(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(env.std.In, configuration.MaxText+1))
	}
	return readSmall(file)
}

// inFile says on which line of a file each problem of a document is.
func inFile(err error, file string, line func(path string) int) error {
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		var told []error
		for _, one := range all.Unwrap() {
			told = append(told, inFile(one, file, line))
		}
		return errors.Join(told...)
	}
	var e *lockstep.Error
	if !errors.As(err, &e) {
		return err
	}
	path := strings.TrimPrefix(e.Field, "body.document.")
	n := line(path)
	if n == 0 {
		return err
	}
	located := *e
	located.Msg = fmt.Sprintf("%s:%d: %s", file, n, strings.TrimPrefix(e.Msg, "body.document."))
	return &located
}
