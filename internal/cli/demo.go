package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

type demoOptions struct {
	twins  twin.Options
	from   string // ready file of twins that run already
	data   string
	listen string
	ready  string
	once   bool
}

func (env *environment) demo() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try Lockstep on a sample company, without any set-up",
		Long: `Starts the twins (local emulators of Dynamics and of an email account) with a
made-up company, connects Lockstep to both, maps some fields, activates marketing
lists, carries out the first full sync, shows what came of it, and keeps serving.

Nothing leaves this machine. With --data the next demo goes on where this one ended;
without it everything is gone.`,
		Example: `  lockstep demo
  lockstep demo --contacts 50000 --seed 7 --listen 127.0.0.1:8080
  lockstep demo --once --json
  lockstep demo --data ./demo --twins twins.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkTwins(o.twins); err != nil {
				return err
			}
			if o.from != "" && (c.Flags().Changed("contacts") || c.Flags().Changed("seed")) {
				return usage("leave --contacts and --seed out", "--twins uses a company that is there already")
			}
			return env.runDemo(c.Context(), o)
		},
	}
	env.twinFlags(c, &o.twins)
	env.jsonFlag(c)
	c.Flags().StringVar(&o.from, "twins", "", "use twins that run already; `FILE` is their ready file")
	c.Flags().StringVar(&o.data, "data", "", "`DIR` that keeps the data of Lockstep and of the twins (default: a temporary folder)")
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:0", "`ADDRESS` of the web pages and the API; port 0 takes a free one")
	c.Flags().StringVar(&o.ready, "ready-file", "", "`FILE` to write addresses and credentials to after the first sync")
	c.Flags().BoolVar(&o.once, "once", false, "end after the first full sync")
	return c
}

func (env *environment) runDemo(ctx context.Context, o demoOptions) (err error) {
	d := demo{env: env, demoOptions: o, progress: newProgress(env.std.Err), began: time.Now()}
	defer func() {
		if err != nil && !errors.Is(err, errFindings) {
			d.progress.stop()
		}
		err = errors.Join(err, d.close())
	}()
	if err := d.openFolder(); err != nil {
		return err
	}
	if err := d.openTwins(ctx); err != nil {
		return err
	}
	if err := d.openApp(ctx); err != nil {
		return err
	}
	served := make(chan error, 1)
	server, err := listen(ctx, d.listen, d.app, env.log, false)
	if err != nil {
		return err
	}
	go func() { served <- server.serve() }()
	defer func() { err = errors.Join(err, server.shutdown(), <-served) }()

	if err := d.connect(ctx); err != nil {
		return err
	}
	run, err := d.sync(ctx)
	if err != nil {
		return err
	}
	if d.own != nil && d.data != "" {
		// A demo that is killed from here on can still be continued.
		if err := d.own.Snapshot(); err != nil {
			return err
		}
	}
	access, err := demoAccess(ctx, d.app, server.url)
	if err != nil {
		return err
	}
	if err := answers(ctx, server.url); err != nil {
		return err
	}
	if err := twin.WriteReady(d.ready, readyFile{Lockstep: &access, Ready: d.twinsReady}); err != nil {
		return err
	}
	findings, err := d.summary(ctx, run, access)
	if err != nil {
		return err
	}
	if !o.once {
		env.notef("Serving until it is stopped (Ctrl-C).\n")
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			served <- nil
			return err
		}
	}
	if findings > 0 {
		return errFindings
	}
	return nil
}

// demo is one demo while it is prepared.
type demo struct {
	demoOptions
	env        *environment
	progress   *progress
	began      time.Time
	folder     string // of Lockstep's data
	marked     bool   // an earlier demo has set the folder up
	twinsReady twin.Ready
	own        *twin.Twins // nil when they ran already
	app        *app.App
	account    lockstep.EmailAccount
	closers    []func() error
}

func (d *demo) close() error {
	var all error
	for _, end := range slices.Backward(d.closers) {
		all = errors.Join(all, end())
	}
	return all
}

func (d *demo) openFolder() error {
	d.folder = d.data
	if d.folder == "" {
		dir, err := os.MkdirTemp("", "lockstep-demo-")
		if err != nil {
			return err
		}
		d.folder = dir
		d.closers = append(d.closers, func() error { return os.RemoveAll(dir) })
	} else if err := os.MkdirAll(d.folder, 0o700); err != nil {
		return err
	}
	if d.ready == "" {
		d.ready = filepath.Join(d.folder, "ready.json")
	}
	abs, err := filepath.Abs(d.ready)
	d.ready = abs
	return err
}

func (d *demo) openTwins(ctx context.Context) error {
	if d.from == "" && d.data != "" {
		d.twins.DataDir = filepath.Join(d.folder, "twins")
		if err := d.checkOwnTwins(); err != nil {
			return err
		}
		if err := os.MkdirAll(d.twins.DataDir, 0o700); err != nil {
			return err
		}
	}
	if d.from == "" {
		d.progress.begin("Making a company of %s contacts", thousands(int64(d.twins.Contacts)))
	} else {
		d.progress.begin("Asking the twins of %s", d.from)
	}
	d.twins.Log = d.env.log
	var err error
	if d.twinsReady, d.own, err = startTwins(ctx, d.from, d.twins); err != nil {
		return err
	}
	if d.own != nil {
		d.closers = append(d.closers, d.own.Close)
	}
	if err := d.checkMark(ctx); err != nil {
		return err
	}
	d.progress.end("done")
	return nil
}

func (d *demo) openApp(ctx context.Context) error {
	hosts, err := hostsOf(d.twinsReady.Dataverse.URL, d.twinsReady.Dataverse.Authority, d.twinsReady.Dataverse.AuthorityTLS, d.twinsReady.Dotdigital.URL)
	if err != nil {
		return err
	}
	if d.app, err = app.Open(ctx, app.Config{DataDir: d.folder, Log: d.env.log, AllowHosts: hosts, Schedules: !d.once}); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { return closeApp(d.app) })
	return d.app.Start(ctx)
}

// connect connects both sides and sets the account up, unless an earlier demo on
// this folder has done so.
func (d *demo) connect(ctx context.Context) error {
	accounts, err := d.app.Accounts(ctx)
	if err != nil {
		return err
	}
	orgs, err := d.app.Organizations(ctx)
	if err != nil {
		return err
	}
	var org lockstep.Organization
	if len(accounts) > 0 && len(orgs) > 0 {
		org, d.account = orgs[0], accounts[0]
	}
	d.progress.begin("Connecting Dynamics and Dotdigital")
	v := d.twinsReady.Dataverse
	org, err = d.app.ConnectOrganization(ctx, org.ID, "Sample company", "dynamics", map[string]string{
		"url": v.URL, "tenant": v.Tenant, "client_id": v.ClientID, "client_secret": v.ClientSecret, "authority": strings.TrimSuffix(v.Authority, "/"+v.Tenant),
	})
	if err != nil {
		return fmt.Errorf("connect Dynamics: %w", err)
	}
	m := d.twinsReady.Dotdigital
	d.account, err = d.app.ConnectAccount(ctx, d.account.ID, org.ID, "Marketing", "dotdigital", map[string]string{
		"endpoint": m.URL, "user": m.User, "password": m.Password,
	})
	if err != nil {
		return fmt.Errorf("connect Dotdigital: %w", err)
	}
	d.progress.end("done")
	if d.marked {
		d.env.notef("This folder was set up by an earlier demo; going on with it.\n")
		return nil
	}
	return d.setUp(ctx)
}

// optOuts exchanges opt-outs: they travel before anything else.
func (d *demo) optOuts(ctx context.Context) error {
	d.progress.begin("Exchanging opt-outs")
	run, err := d.app.StartRun(ctx, app.RunRequest{Account: d.account.ID, Type: lockstep.SyncSuppressions})
	if err != nil {
		return err
	}
	if run, err = d.app.Wait(ctx, run.ID); err != nil {
		return err
	}
	d.progress.end("%s new, %s CRM records closed to bulk email", thousands(run.Counts.OptOutsSeen), thousands(run.Counts.RecordsUpdated))
	return nil
}

// sync carries out the sync of all activated lists.
func (d *demo) sync(ctx context.Context) (lockstep.Run, error) {
	if err := d.optOuts(ctx); err != nil {
		return lockstep.Run{}, err
	}
	run, err := d.app.StartRun(ctx, app.RunRequest{Account: d.account.ID, Type: lockstep.SyncMarketingLists})
	if err != nil {
		return run, err
	}
	d.progress.begin("Syncing marketing lists")
	if run, err = follow(ctx, d.progress, run.ID, d.people(), d.app.Run); err == nil {
		err = runError(run)
	}
	if err != nil {
		return run, err
	}
	d.progress.end("%s", runLine(run))
	return run, nil
}

// people estimates how many people the first sync reads: contacts, leads, accounts
// and the email account's own. 0 when the company is not known.
func (d *demo) people() int64 {
	if d.own == nil || d.marked {
		return 0
	}
	n := int64(d.twins.Contacts)
	return n + n*3/10 + n/18 + n/50
}

// demoAccess returns how to sign in. An earlier demo's password is not known any
// more, so there is a new one each time.
func demoAccess(ctx context.Context, a *app.App, base string) (lockstepReady, error) {
	admin, err := a.ResetAdmin(ctx)
	if err != nil {
		return lockstepReady{}, err
	}
	old, err := a.Tokens(ctx)
	if err != nil {
		return lockstepReady{}, err
	}
	for _, t := range old {
		if t.Name == demoToken {
			if err := a.DeleteToken(ctx, t.ID); err != nil {
				return lockstepReady{}, err
			}
		}
	}
	token, _, err := a.CreateToken(ctx, demoToken, app.Scopes, time.Time{})
	return lockstepReady{URL: base, User: admin.User, Password: admin.Password, Token: token, PID: os.Getpid()}, err
}

const demoToken = "demo"

// hostsOf returns the hosts of addresses, with their ports.
func hostsOf(addresses ...string) ([]string, error) {
	var hosts []string
	for _, a := range addresses {
		if a == "" {
			continue
		}
		u, err := url.Parse(a)
		if err != nil || u.Host == "" {
			return nil, usage("give the ready file that lockstep twin wrote", "the ready file has no usable address where one belongs")
		}
		hosts = append(hosts, u.Host)
	}
	return hosts, nil
}
