package cli

import (
	"context"
	"errors"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) worker() *cobra.Command {
	var cfg app.Config
	c := &cobra.Command{
		Use:   "worker",
		Short: "Work on runs beside other processes on the same PostgreSQL database",
		Long: `Works on runs, and starts those that are due, until it is stopped; it serves nothing.
Start as many as you like beside "lockstep serve", on any machine that reaches the
PostgreSQL database. What a lost worker was at is taken over by the others within a
minute. All of them need the same master key: LOCKSTEP_MASTER_KEY, or --data with a
copy of the file master.key.

The first interrupt or SIGTERM ends running batches in an orderly way; the second one
ends at once.`,
		Example: `  LOCKSTEP_DATABASE_URL=postgres://lockstep@db/lockstep LOCKSTEP_MASTER_KEY=… lockstep worker
  LOCKSTEP_DATABASE_URL=postgres://lockstep@db/lockstep lockstep worker --data /etc/lockstep`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if cfg.DatabaseURL == "" {
				return usage("give --database-url, or LOCKSTEP_DATABASE_URL", "a worker shares a PostgreSQL database with others; the embedded database belongs to one process, which works on its runs itself")
			}
			return env.runWorker(c.Context(), cfg)
		},
	}
	env.dataFlags(c, &cfg)
	return c
}

func (env *environment) runWorker(ctx context.Context, cfg app.Config) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	cfg.Schedules = true
	a, err := env.openApp(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeApp(a)) }()
	if err := a.Start(ctx); err != nil {
		return err
	}
	env.notef("Working on runs.\n")
	<-ctx.Done()
	env.notef("Stopping.\n")
	return stopWork(a)
}
