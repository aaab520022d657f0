package cli

import (
	"context"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/twin"
)

func (env *environment) twin() *cobra.Command {
	var o twin.Options
	var ready string
	c := &cobra.Command{
		Use:   "twin",
		Short: "Start only the twins: local emulators with a sample company",
		Long: `Starts local emulators of a Dynamics organization with its sign-in service and of
an email account, filled with a made-up company, and serves them until it is
stopped. With --data the next start goes on with the same records and addresses;
without it everything is gone.`,
		Example: `  lockstep twin --contacts 5000 --seed 7 --ready-file twins.json
  lockstep demo --twins twins.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if err := checkTwins(o); err != nil {
				return err
			}
			if o.DataDir != "" {
				if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
					return err
				}
			}
			o.Log = env.log
			p := newProgress(env.std.Err)
			p.begin("Making a company of %s contacts", thousands(int64(o.Contacts)))
			t, err := twin.Start(ctx, o)
			if err != nil {
				p.stop()
				return err
			}
			p.end("done")
			if ready != "" {
				err = t.WriteReady(ready)
			}
			if err == nil {
				env.showTwins(t.Ready(), ready)
				<-ctx.Done()
			}
			if cerr := t.Close(); err == nil {
				err = cerr
			}
			return err
		},
	}
	env.twinFlags(c, &o)
	c.Flags().StringVar(&o.DataDir, "data", "", "`DIR` that keeps records, addresses and credentials over a restart; what is there is used, whatever --contacts and --seed say")
	c.Flags().StringVar(&ready, "ready-file", "", "`FILE` to write addresses and credentials to once everything answers")
	c.Flags().IntVar(&o.DotdigitalAccounts, "dotdigital-accounts", 1, "`NUMBER` of email accounts under one address, from 1 to 100, each with its own credentials, contacts and lists")
	c.Flags().IntVar(&o.History, "history", 0, "`NUMBER` of writes to remember for GET /history of the control API, from 0 (none) to 10,000,000")
	c.Flags().BoolVar(&o.Plain, "plain", false, "make the regular company of benchmarks: every contact active with a valid address")
	c.Flags().StringVar(&o.Host, "listen-host", "127.0.0.1", "`ADDRESS` to listen on; who reaches it and knows the credentials can change everything")
	return c
}

// twinFlags are the flags of every command that starts twins.
func (*environment) twinFlags(c *cobra.Command, o *twin.Options) {
	c.Flags().IntVar(&o.Contacts, "contacts", twin.DefaultContacts, "size of the sample company, from 1 to 20,000,000")
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "chooses one of many sample companies; the same seed, size and day give the same one")
}

const (
	maxTwinContacts = 20_000_000
	maxHistory      = 10_000_000
)

func checkTwins(o twin.Options) error {
	if o.Contacts < 1 || o.Contacts > maxTwinContacts {
		return usage("give a number from 1 to 20000000", "a company of %d contacts cannot be made", o.Contacts)
	}
	if o.DotdigitalAccounts < 0 || o.DotdigitalAccounts > twin.MaxAccounts {
		return usage("give a number from 1 to 100", "%d email accounts cannot be made", o.DotdigitalAccounts)
	}
	if o.History < 0 || o.History > maxHistory {
		return usage("give a number from 0 to 10000000", "a history of %d writes cannot be kept", o.History)
	}
	if o.Host != "" && net.ParseIP(o.Host) == nil {
		return usage("give one like 127.0.0.1", "%q is not an address to listen on", o.Host)
	}
	return nil
}

func (env *environment) showTwins(r twin.Ready, ready string) {
	env.printf("The twins answer:\n")
	env.printf("  Dynamics    %s\n  sign-in     %s\n  Dotdigital  %s\n  control     %s\n", r.Dataverse.API, r.Dataverse.Authority, r.Dotdigital.URL, r.Control.URL)
	if ready == "" {
		env.printf("Give --ready-file FILE to have addresses and credentials written down.\n")
	} else {
		env.printf("Addresses and credentials are in %s.\n", ready)
	}
	env.printf("Stop with Ctrl-C.\n")
}

// startTwins starts twins, or uses running ones when from names their ready file;
// then started is nil.
func startTwins(ctx context.Context, from string, o twin.Options) (ready twin.Ready, started *twin.Twins, err error) {
	if from != "" {
		if ready, err = twin.ReadReady(from); err != nil {
			err = usage("give the ready file that lockstep twin wrote", "%s", err)
		}
		return ready, nil, err
	}
	if started, err = twin.Start(ctx, o); err != nil {
		return ready, nil, err
	}
	return started.Ready(), started, nil
}
