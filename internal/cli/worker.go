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
	var address string
	c := &cobra.Command{
		Use:   "worker",
		Short: "Work on runs beside other processes on the same PostgreSQL database",
		Long: `Works on runs, and starts those that are due, until it is stopped; it has no pages.
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
			return env.runWorker(c.Context(), cfg, address)
		},
	}
	env.dataFlags(c, &cfg)
	c.Flags().StringVar(&address, "listen", "", "`ADDRESS` of the probes /healthz and /readyz and of /metrics; none when left out")
	return c
}

func (env *environment) runWorker(ctx context.Context, cfg app.Config, address string) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	cfg.Schedules = true
	a, err := env.openApp(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeApp(a)) }()
	if address != "" {
		server, failed := listenProbes(ctx, address, a, env.log)
		if failed != nil {
			return failed
		}
		served := make(chan error, 1)
		go func() { served <- server.serve() }()
		defer func() { err = errors.Join(err, server.shutdown(), <-served) }()
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	env.notef("Working on runs.\n")
	<-ctx.Done()
	env.notef("Stopping.\n")
	return stopWork(a)
}
