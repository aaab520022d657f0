package cli

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) serve() *cobra.Command {
	var cfg app.Config
	var address, ready string
	var behindTLS bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the web pages and the API, and work on runs",
		Long: `Serves the web pages and the HTTP API and works on runs until it is stopped. The
first start prints the administrator's password and an API token, once.

The first interrupt or SIGTERM ends calls and running batches in an orderly way;
what is left is continued by the next start. The second one ends at once.

Lockstep serves plain HTTP: put a proxy with TLS before it when it shall be reached
from other machines.`,
		Example: `  lockstep serve --listen 127.0.0.1:8080 --data /var/lib/lockstep
  LOCKSTEP_DATABASE_URL=postgres://lockstep@db/lockstep lockstep serve --data /etc/lockstep`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if cfg.DataDir == "" && cfg.DatabaseURL == "" {
				return usage("give --data DIR, or --database-url URL", "serve needs a place for its data")
			}
			return env.runServe(c.Context(), cfg, address, ready, behindTLS)
		},
	}
	env.dataFlags(c, &cfg)
	c.Flags().StringVar(&address, "listen", "127.0.0.1:8080", "`ADDRESS` of the web pages and the API")
	c.Flags().BoolVar(&behindTLS, "behind-tls", false, "people reach Lockstep over HTTPS, through a proxy: mark cookies accordingly")
	c.Flags().StringVar(&ready, "ready-file", "", "`FILE` to write the address, and at the first start the credentials, to once everything answers")
	return c
}

// dataFlags are the flags of every command that opens the data itself.
func (*environment) dataFlags(c *cobra.Command, cfg *app.Config) {
	c.Flags().StringVar(&cfg.DataDir, "data", "", "`DIR` that keeps the embedded database and the master key")
	c.Flags().StringVar(&cfg.DatabaseURL, "database-url", "", "PostgreSQL database to use instead of the embedded one; better given as LOCKSTEP_DATABASE_URL, because it may hold a password")
	c.Flags().StringSliceVar(&cfg.AllowHosts, "allow-host", nil, "internal or unencrypted `HOST` (its ports 80 and 443) or HOST:PORT that Lockstep may connect to all the same; can be repeated")
}

func (env *environment) openApp(ctx context.Context, cfg app.Config) (*app.App, error) {
	if cfg.DataDir != "" {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, err
		}
	}
	cfg.Log = env.log
	return app.Open(ctx, cfg)
}

const firstToken = "first start"

// garbage is by how many percent the memory may grow before the garbage collector
// runs. A large load is mostly waiting for other machines, so that collecting more
// often than Go's 100 costs little and makes the peak a quarter lower. GOGC in the
// environment goes before.
const garbage = 50

func (env *environment) runServe(ctx context.Context, cfg app.Config, address, ready string, behindTLS bool) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	cfg.Schedules = true
	a, err := env.openApp(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeApp(a)) }()
	server, err := listen(ctx, address, a, env.log, behindTLS)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.serve() }()
	defer func() { err = errors.Join(err, server.shutdown(), <-served) }()

	admin, err := a.EnsureAdmin(ctx)
	if err != nil {
		return err
	}
	access := lockstepReady{URL: server.url, User: admin.User, Password: admin.Password, PID: os.Getpid()}
	if admin.Password != "" {
		if access.Token, _, err = a.CreateToken(ctx, firstToken, app.Scopes, time.Time{}); err != nil {
			return err
		}
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	if err := answers(ctx, server.url); err != nil {
		return err
	}
	if ready != "" {
		if err := writeReady(ready, access); err != nil {
			return err
		}
	}
	env.printf("Lockstep answers on %s\n", server.url)
	if admin.Password != "" {
		env.printf("\nShown this once:\n  user      %s\n  password  %s\n  API token %s\n", admin.User, admin.Password, access.Token)
	}
	select {
	case <-ctx.Done():
		env.notef("Stopping.\n")
		// Runs and calls end side by side: one after the other they could take longer than
		// the 30 seconds that service managers usually grant.
		stopped := make(chan error, 1)
		go func() { stopped <- stopWork(a) }()
		return errors.Join(server.shutdown(), <-stopped)
	case err := <-served:
		served <- nil
		return err
	}
}
