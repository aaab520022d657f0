package cli

import (
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) settings() *cobra.Command {
	var t target
	var days int
	c := &cobra.Command{
		Use:   "settings",
		Short: "Show the settings of the installation, or change them",
		Long: `Shows the settings of the installation; with a flag, changes that one first.

What is older than the retention is deleted: runs, their findings, the losing values of
conflicts and the journal. What waits for a decision or for its end is kept longer, and
the consent ledger for ever. A run can be undone for as long as its journal is kept, up
to 30 days.`,
		Example: `  lockstep settings --data /var/lib/lockstep
  lockstep settings --retention-days 400 --ready-file ready.json`,
		Args: arguments(),
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().IntVar(&days, "retention-days", app.DefaultRetention, "for how many `DAYS` runs, findings and the journal are kept")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		api, done, err := env.dial(c.Context(), t, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		patch := map[string]any{}
		if c.Flags().Changed("retention-days") {
			patch["retention_days"] = days
		}
		var s app.Settings
		if len(patch) > 0 {
			err = api.call(c.Context(), http.MethodPatch, "/settings", nil, patch, &s)
		} else {
			err = api.call(c.Context(), http.MethodGet, "/settings", nil, nil, &s)
		}
		if err != nil {
			return err
		}
		if env.json {
			return env.printJSON(s)
		}
		env.printf("Retention  %d days\n", s.RetentionDays)
		return nil
	}
	return c
}
