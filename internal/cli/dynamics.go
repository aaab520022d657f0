package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) dynamics() *cobra.Command {
	c := &cobra.Command{
		Use:   "dynamics",
		Short: "Add our tables, columns and webhooks to a Dynamics organization, or remove them",
		Example: `  lockstep dynamics install --preview --data /var/lib/lockstep
  lockstep dynamics install --ready-file ready.json
  lockstep dynamics uninstall --ready-file ready.json`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.dynamicsInstall(), env.dynamicsUninstall())
	return c
}

// schemaTime bounds one call that changes the schema of an organization. It ends
// between two steps, and publishing, one step, can take Dynamics many minutes.
const schemaTime = 30 * time.Minute

// schemaAnswer is what the API answers about our tables.
type schemaAnswer struct {
	Steps   []lockstep.SchemaStep `json:"steps"`
	Taken   []lockstep.SchemaStep `json:"taken"`
	Left    []lockstep.SchemaStep `json:"left"`
	Run     string                `json:"run"`
	Confirm string                `json:"confirm"`
	// URL and Registered are of webhooks.
	URL        string `json:"url"`
	Registered bool   `json:"registered"`
}

func (env *environment) dynamicsInstall() *cobra.Command {
	var t target
	var organization string
	var preview, webhooks bool
	var hook struct {
		URL       string `json:"url,omitempty"`
		NewSecret bool   `json:"new_secret,omitempty"`
	}
	c := &cobra.Command{
		Use:   "install",
		Short: "Add our tables and columns to a Dynamics organization",
		Long: `Adds the tables and columns in which Lockstep keeps who may not be mailed and who
chose what. What is there already stays as it is; an installation that was stopped
goes on where it was. The application user needs the role System Customizer or
System Administrator meanwhile.

With --webhooks nothing of that is done; instead Dynamics is asked to call Lockstep as
soon as a record or list changes, so that continuous syncs and that of the
suppressions look at once and not only at their next turn. --url is the public https
address of this Lockstep; it is needed the first time. The registration follows the
mappings by itself; do it again after somebody changed it in Dynamics.

Exit code 3 with --preview: something has to be repaired by hand first.`,
		Example: `  lockstep dynamics install --preview --data /var/lib/lockstep
  lockstep dynamics install --organization Contoso --server http://127.0.0.1:8080
  lockstep dynamics install --webhooks --url https://lockstep.example.com --server http://127.0.0.1:8080`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if webhooks {
				return env.withOrganization(c.Context(), t, organization, func(ctx context.Context, c *client, path string) error {
					if preview {
						return env.previewWebhook(ctx, c, path+"/webhook", url.Values{"url": {hook.URL}, "new_secret": {strconv.FormatBool(hook.NewSecret)}})
					}
					return env.changeWebhook(ctx, c, http.MethodPost, path+"/webhook", hook)
				})
			}
			if hook.URL != "" || hook.NewSecret {
				return usage("give --webhooks too", "--url and --new-secret are about webhooks")
			}
			return env.withSchema(c.Context(), t, organization, func(ctx context.Context, c *client, path string) error {
				if preview {
					return env.previewSchema(ctx, c, path)
				}
				return env.installSchema(ctx, c, path)
			})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&organization, "organization", "", "name or id of the organization; may be left out when there is only one")
	c.Flags().BoolVar(&preview, "preview", false, "show what would be added, and add nothing")
	c.Flags().BoolVar(&webhooks, "webhooks", false, "have Dynamics call Lockstep when something changes, and add no tables")
	c.Flags().StringVar(&hook.URL, "url", "", "`URL` under which Dynamics reaches this Lockstep, with --webhooks")
	c.Flags().BoolVar(&hook.NewSecret, "new-secret", false, "with --webhooks: use another secret from now on")
	return c
}

// withSchema finds the organization and hands the path of its schema in the API on.
func (env *environment) withSchema(ctx context.Context, t target, organization string, do func(context.Context, *client, string) error) error {
	return env.withOrganization(ctx, t, organization, func(ctx context.Context, c *client, path string) error { return do(ctx, c, path+"/schema") })
}

// withOrganization finds the organization and hands its path in the API on.
func (env *environment) withOrganization(ctx context.Context, t target, organization string, do func(context.Context, *client, string) error) (err error) {
	c, done, err := env.dial(ctx, t, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	c.patience = schemaTime
	var orgs []lockstep.Organization
	if err := paged(ctx, c, "/organizations", nil, func(o lockstep.Organization) error { orgs = append(orgs, o); return nil }); err != nil {
		return err
	}
	var names []string
	for _, o := range orgs {
		if o.ID == organization || o.Name == organization || organization == "" && len(orgs) == 1 {
			return do(ctx, c, "/organizations/"+url.PathEscape(o.ID))
		}
		names = append(names, fmt.Sprintf("%q", o.Name))
	}
	if len(orgs) == 0 {
		return &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "no organization is connected", Hint: "run lockstep connect organization first"}
	}
	return usage("give --organization with one of "+strings.Join(names, ", "), "it is not clear which organization is meant")
}

func (env *environment) previewWebhook(ctx context.Context, c *client, path string, query url.Values) error {
	var plan schemaAnswer
	if err := c.call(ctx, http.MethodGet, path, query, nil, &plan); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(map[string]any{"steps": plan.Steps, "registered": plan.Registered, "url": plan.URL})
	}
	for _, s := range plan.Steps {
		env.printf("%s\n", s)
	}
	switch {
	case plan.Registered:
		env.printf("webhooks are registered: Dynamics calls %s\n", plan.URL)
	case plan.URL == "":
		env.printf("no webhooks are registered; give --url to see what would be\n")
	}
	return nil
}

// changeWebhook registers webhooks, or takes them away.
func (env *environment) changeWebhook(ctx context.Context, c *client, method, path string, body any) error {
	var got schemaAnswer
	if err := c.call(ctx, method, path, nil, body, &got); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(map[string]any{"taken": got.Taken})
	}
	for _, s := range got.Taken {
		env.notef("✓ %s\n", s)
	}
	switch {
	case method == http.MethodDelete && len(got.Taken) == 0:
		env.printf("no webhooks were registered\n")
	case method == http.MethodDelete:
		env.printf("webhooks are removed; changes are noticed when syncs look\n")
	case len(got.Taken) == 0:
		env.printf("webhooks were registered already\n")
	default:
		env.printf("webhooks are registered: %d steps\n", len(got.Taken))
	}
	return nil
}

func (env *environment) previewSchema(ctx context.Context, c *client, path string) error {
	var plan schemaAnswer
	if err := c.call(ctx, http.MethodGet, path, nil, nil, &plan); err != nil {
		return err
	}
	blocked := false
	for _, s := range plan.Steps {
		blocked = blocked || s.Action == lockstep.SchemaBlocked
	}
	if env.json {
		if err := env.printJSON(map[string]any{"steps": plan.Steps, "installed": len(plan.Steps) == 0}); err != nil {
			return err
		}
	} else {
		for _, s := range plan.Steps {
			env.printf("%s\n", s)
			if s.Hint != "" {
				env.printf("  %s\n", s.Hint)
			}
		}
		if len(plan.Steps) == 0 {
			env.printf("everything is installed\n")
		}
	}
	if blocked {
		return errFindings
	}
	return nil
}

func (env *environment) installSchema(ctx context.Context, c *client, path string) error {
	taken, run := []lockstep.SchemaStep{}, ""
	for more := true; more; {
		var got schemaAnswer
		if err := c.call(ctx, http.MethodPost, path, nil, nil, &got); err != nil {
			return err
		}
		for _, s := range got.Taken {
			env.notef("✓ %s\n", s)
		}
		taken, more = append(taken, got.Taken...), len(got.Left) > 0
		if got.Run != "" {
			run = got.Run
		}
	}
	if err := env.readAnew(ctx, c, run); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(map[string]any{"taken": taken, "run": run})
	}
	if len(taken) == 0 {
		env.printf("everything was installed already\n")
		return nil
	}
	env.printf("installed: %d steps\n", len(taken))
	return nil
}

// readAnew follows the run that reads the organization's tables; there is none when
// nothing was changed or no account is connected.
func (env *environment) readAnew(ctx context.Context, c *client, run string) error {
	if run == "" {
		return nil
	}
	p := newProgress(env.std.Err)
	p.begin("Reading tables anew")
	ended, err := follow(ctx, p, run, 0, c.run)
	if err == nil {
		err = runError(ended)
	}
	if err != nil {
		p.stop()
		return err
	}
	p.end("done")
	return nil
}

func (env *environment) dynamicsUninstall() *cobra.Command {
	var t target
	var organization, confirm string
	var webhooks bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Show what removing our tables and columns would delete, or delete it",
		Long: `Shows which of our tables and columns would be deleted, how many rows would be lost,
and a word that confirms just that. With --confirm WORD they are deleted, with
everything in them; there is no way back. Lockstep's own records of consent stay.

With --webhooks the tables stay, and Dynamics stops to call Lockstep at once.`,
		Example: `  lockstep dynamics uninstall --data /var/lib/lockstep
  lockstep dynamics uninstall --confirm 9f86d08188 --data /var/lib/lockstep
  lockstep dynamics uninstall --webhooks --data /var/lib/lockstep`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if webhooks {
				return env.withOrganization(c.Context(), t, organization, func(ctx context.Context, c *client, path string) error {
					return env.changeWebhook(ctx, c, http.MethodDelete, path+"/webhook", nil)
				})
			}
			return env.withSchema(c.Context(), t, organization, func(ctx context.Context, c *client, path string) error {
				if confirm == "" {
					return env.previewRemoval(ctx, c, path)
				}
				return env.removeSchema(ctx, c, path, confirm)
			})
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&organization, "organization", "", "name or id of the organization; may be left out when there is only one")
	c.Flags().StringVar(&confirm, "confirm", "", "the `WORD` that the command shows without this flag: delete")
	c.Flags().BoolVar(&webhooks, "webhooks", false, "take the webhooks away, and leave the tables")
	return c
}

func (env *environment) previewRemoval(ctx context.Context, c *client, path string) error {
	var plan schemaAnswer
	if err := c.call(ctx, http.MethodGet, path+"/removal", nil, nil, &plan); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(map[string]any{"steps": plan.Steps, "confirm": plan.Confirm})
	}
	if len(plan.Steps) == 0 {
		env.printf("nothing of ours is there\n")
		return nil
	}
	for _, s := range plan.Steps {
		lost := ""
		if s.Rows > 0 {
			lost = fmt.Sprintf(" (%s rows)", thousands(s.Rows))
		}
		env.printf("%s%s\n", s, lost)
	}
	env.notef("Nothing was deleted. To delete it, run this again with --confirm %s\n", plan.Confirm)
	return nil
}

func (env *environment) removeSchema(ctx context.Context, c *client, path, confirm string) error {
	taken, run := []lockstep.SchemaStep{}, ""
	for confirm != "" {
		var got schemaAnswer
		if err := c.call(ctx, http.MethodPost, path+"/removal", nil, map[string]string{"confirm": confirm}, &got); err != nil {
			return err
		}
		for _, s := range got.Taken {
			env.notef("✓ %s\n", s)
		}
		taken, confirm, run = append(taken, got.Taken...), got.Confirm, got.Run
	}
	if err := env.readAnew(ctx, c, run); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(map[string]any{"taken": taken, "run": run})
	}
	env.printf("deleted: %d components\n", len(taken))
	return nil
}
