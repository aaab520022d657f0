package cli

import (
	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) backup() *cobra.Command {
	var cfg app.Config
	var to string
	c := &cobra.Command{
		Use:   "backup",
		Short: "Copy the embedded database to a file, also while it is in use",
		Long: `Copies the embedded database of a data folder to a file: one consistent moment, while
a server uses the folder or not; runs go on meanwhile. The file appears once it is
complete, checked and on disk; one that exists is not replaced. The master key is not in
it: keep a copy of master.key elsewhere, because whoever has both reads the credentials.

For PostgreSQL use pg_dump.`,
		Example: `  lockstep backup --data /var/lib/lockstep --to /backup/lockstep-$(date +%F).db`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				return usage("give --to FILE", "backup needs a file to write")
			}
			if err := embedded(&cfg); err != nil {
				return err
			}
			size, err := app.Backup(c.Context(), cfg, to)
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(map[string]any{"file": to, "bytes": size})
			}
			env.printf("%s holds the database, %d bytes.\n", to, size)
			return nil
		},
	}
	folderFlags(c, &cfg)
	env.jsonFlag(c)
	c.Flags().StringVar(&to, "to", "", "`FILE` to write; it must not exist")
	return c
}

func (env *environment) restore() *cobra.Command {
	var cfg app.Config
	var from string
	c := &cobra.Command{
		Use:   "restore",
		Short: "Put a backup in the place of the embedded database",
		Long: `Puts a file that "lockstep backup" made in the place of the embedded database of a data
folder, which no process may be using. The database that is there stays beside it under
another name. The folder also needs the master.key of the time of the backup.

In a folder other than the one that the backup was made of every account is locked until
you say, with "lockstep rearm", that this is the one that acts.`,
		Example: `  lockstep restore --data /var/lib/lockstep --from /backup/lockstep-2026-11-20.db`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if from == "" {
				return usage("give --from FILE", "restore needs a backup")
			}
			if err := embedded(&cfg); err != nil {
				return err
			}
			r, err := app.Restore(c.Context(), cfg, from)
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(r)
			}
			env.printf("%s is the database of %s now.\n", from, cfg.DataDir)
			if r.Aside != "" {
				env.printf("The one before is kept as %s; delete it when you do not need it.\n", r.Aside)
			}
			if !r.MasterKey {
				env.printf("Put the master.key of the time of the backup into the folder before you start.\n")
			}
			if r.Rearm {
				env.printf("After the start every account is locked until you run lockstep rearm.\n")
			}
			env.printf("Preview the first sync: lockstep sync preview --type marketing-lists\n")
			return nil
		},
	}
	folderFlags(c, &cfg)
	env.jsonFlag(c)
	c.Flags().StringVar(&from, "from", "", "`FILE` that lockstep backup made")
	return c
}

// folderFlags are the flags of a command about the files of a data folder.
func folderFlags(c *cobra.Command, cfg *app.Config) {
	c.Flags().StringVar(&cfg.DataDir, "data", "", "`DIR` that keeps the embedded database")
	c.Flags().StringVar(&cfg.DatabaseURL, "database-url", "", "")
	_ = c.Flags().MarkHidden("database-url") // understood, so that the answer can be to use pg_dump
}

// embedded demands a data folder, unless PostgreSQL is given, of which the use case says
// what to do.
func embedded(cfg *app.Config) error {
	if cfg.DataDir == "" && cfg.DatabaseURL == "" {
		return usage("give --data DIR", "the data folder is missing")
	}
	return nil
}
