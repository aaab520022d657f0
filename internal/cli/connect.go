package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// connectFlag is one setting of an adapter on the command line.
type connectFlag struct {
	flag, setting string
	help          string
	// secret is the environment variable of a setting that has no flag of its own;
	// the flag then names a file.
	secret   string
	required bool
}

// connectKind is an adapter on the command line.
type connectKind struct {
	adapter, title string
	flags          []connectFlag
	example        string
	fromTwins      func(twin.Ready) map[string]string
}

var connectKinds = []connectKind{
	{
		adapter: "dynamics", title: "a Microsoft Dynamics organization",
		flags: []connectFlag{
			{flag: "url", setting: "url", required: true, help: "`ADDRESS` of the organization, like https://contoso.crm4.dynamics.com"},
			{flag: "tenant", setting: "tenant", help: "directory (tenant) id or domain; found by itself when left out"},
			{flag: "client-id", setting: "client_id", required: true, help: "application (client) id of the app registration"},
			{flag: "client-secret-file", setting: "client_secret", secret: "LOCKSTEP_CLIENT_SECRET", help: "`FILE` with the client secret, - for standard input; or set LOCKSTEP_CLIENT_SECRET"},
			{flag: "certificate-file", setting: "certificate", secret: "LOCKSTEP_CERTIFICATE", help: "instead of a secret: `FILE` with a certificate and its RSA key in PEM form"},
			{flag: "authority", setting: "authority", help: "`ADDRESS` of the sign-in service; found by itself when left out"},
		},
		example: "--url https://contoso.crm4.dynamics.com --client-id 22222222-0000-0000-0000-000000000002 --client-secret-file secret.txt",
		fromTwins: func(r twin.Ready) map[string]string {
			v := r.Dataverse
			return map[string]string{"url": v.URL, "tenant": v.Tenant, "client_id": v.ClientID, "client_secret": v.ClientSecret, "authority": strings.TrimSuffix(v.Authority, "/"+v.Tenant)}
		},
	},
	{
		adapter: "dotdigital", title: "a Dotdigital account",
		flags: []connectFlag{
			{flag: "endpoint", setting: "endpoint", help: "`ADDRESS` of the API; the account's region is found by itself"},
			{flag: "user", setting: "user", required: true, help: "API user, like apiuser-0123456789ab@apiconnector.com"},
			{flag: "password-file", setting: "password", secret: "LOCKSTEP_PASSWORD", help: "`FILE` with the API user's password, - for standard input; or set LOCKSTEP_PASSWORD"},
		},
		example: "--user apiuser-0123456789ab@apiconnector.com --password-file password.txt",
		fromTwins: func(r twin.Ready) map[string]string {
			return map[string]string{"endpoint": r.Dotdigital.URL, "user": r.Dotdigital.User, "password": r.Dotdigital.Password}
		},
	},
}

func (env *environment) connect() *cobra.Command {
	c := &cobra.Command{
		Use:   "connect",
		Short: "Connect an organization and an email account, or test a connection",
		Example: `  lockstep connect test dynamics --url https://contoso.crm4.dynamics.com --client-id … --client-secret-file secret.txt
  lockstep connect organization --data /var/lib/lockstep --url https://contoso.crm4.dynamics.com --client-id … --client-secret-file secret.txt
  lockstep connect account --data /var/lib/lockstep --user apiuser-…@apiconnector.com --password-file password.txt`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	test := &cobra.Command{
		Use:   "test",
		Short: "Try a connection step by step, without keeping anything",
		Example: `  lockstep connect test dynamics --url https://contoso.crm4.dynamics.com --client-id … --client-secret-file secret.txt
  lockstep connect test dotdigital --user apiuser-…@apiconnector.com --password-file password.txt`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	for _, k := range connectKinds {
		test.AddCommand(env.connectTest(k))
	}
	c.AddCommand(test, env.connectOrganization(connectKinds[0]), env.connectAccount(connectKinds[1]))
	return c
}

// settings collects an adapter's settings from flags, files and the environment.
type settings struct {
	env    *environment
	kind   connectKind
	values map[string]*string // by flag
	twins  string
}

func (env *environment) settingFlags(f *pflag.FlagSet, k connectKind) *settings {
	s := &settings{env: env, kind: k, values: map[string]*string{}}
	for _, o := range k.flags {
		s.values[o.flag] = f.String(o.flag, "", o.help)
	}
	f.StringVar(&s.twins, "twins", "", "take what is not given from the ready `FILE` of running twins, and allow their addresses")
	return s
}

// read returns the settings by their names, and the twins' hosts.
func (s *settings) read() (values map[string]string, hosts []string, err error) {
	values = map[string]string{}
	if s.twins != "" {
		r, err := twin.ReadReady(s.twins)
		if err != nil {
			return nil, nil, usage("give the ready file that lockstep twin wrote", "%s", err)
		}
		values = s.kind.fromTwins(r)
		if hosts, err = hostsOf(r.Dataverse.URL, r.Dataverse.Authority, r.Dotdigital.URL); err != nil {
			return nil, nil, err
		}
	}
	for _, o := range s.kind.flags {
		v := *s.values[o.flag]
		if o.secret != "" {
			if v, err = s.env.secret(v, o.secret); err != nil {
				return nil, nil, err
			}
		}
		if v != "" {
			values[o.setting] = v
		}
		if o.required && values[o.setting] == "" {
			return nil, nil, usage("see --help", "--%s is missing", o.flag)
		}
	}
	return values, hosts, nil
}

// loopback returns the hosts among the settings that are this machine. Whoever can
// type a command here can reach them anyway.
func loopback(values map[string]string) []string {
	var hosts []string
	for _, v := range values {
		u, err := url.Parse(v)
		if err != nil || u.Host == "" {
			continue
		}
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}

func (env *environment) connectTest(k connectKind) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   k.adapter,
		Short: "Try a connection to " + k.title,
		Long: `Tries a connection to ` + k.title + ` step by step and prints "connection available", or
"Connection unavailable" with the step that fails, its cause and what to do. Nothing
is kept or changed. With --server or --ready-file the running Lockstep tries it.`,
		Example: "  lockstep connect test " + k.adapter + " " + k.example,
		Args:    arguments(),
	}
	s := env.settingFlags(c.Flags(), k)
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		values, hosts, err := s.read()
		if err != nil {
			return err
		}
		t.cfg.AllowHosts = append(append(t.cfg.AllowHosts, hosts...), loopback(values)...)
		return env.testConnection(c.Context(), t, k, values)
	}
	return c
}

func (env *environment) testConnection(ctx context.Context, t target, k connectKind, values map[string]string) (err error) {
	if !t.given() {
		// The test needs no data of ours, only a place to open an empty product in.
		dir, err := os.MkdirTemp("", "lockstep-connect-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // best effort
		t.cfg.DataDir = dir
	}
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	res, err := c.testConnection(ctx, k.adapter, values)
	if err != nil {
		// The settings do not even make a connection.
		var e *lockstep.Error
		if !errors.As(err, &e) || e.Code != lockstep.CodeInvalid && e.Code != lockstep.CodeGuarded {
			return err
		}
		msg, hint := message(err)
		return env.unavailable(app.TestResult{Steps: []adapter.Step{}}, "Check the settings", msg, hint)
	}
	for _, step := range res.Steps {
		mark := "✓"
		if !step.OK {
			mark = "✗"
		}
		env.notef("%s %s\n", mark, step.Name)
	}
	if res.OK {
		if env.json {
			return env.printJSON(res)
		}
		env.printf("connection available\n")
		return nil
	}
	last := res.Steps[len(res.Steps)-1] // a test ends with the step that fails
	return env.unavailable(res, last.Name, last.Detail, last.Fix)
}

func (env *environment) unavailable(res app.TestResult, step, cause, fix string) error {
	if env.json {
		if err := env.printJSON(struct {
			app.TestResult
			Step  string `json:"step"`
			Cause string `json:"cause"`
			Fix   string `json:"fix"`
		}{res, step, cause, fix}); err != nil {
			return err
		}
		return errShown
	}
	env.printf("Connection unavailable\n  step:  %s\n  cause: %s\n", step, cause)
	if fix != "" {
		env.printf("  fix:   %s\n", fix)
	}
	return errShown
}

func (env *environment) connectOrganization(k connectKind) *cobra.Command {
	var cfg app.Config
	var name string
	c := &cobra.Command{
		Use:   "organization",
		Short: "Connect " + k.title + ", or connect it anew",
		Long: `Signs in to ` + k.title + ` and keeps the connection; secrets are sealed. An
organization with the same name is connected anew. Stop lockstep serve first when
the data is in a folder.`,
		Example: "  lockstep connect organization --data /var/lib/lockstep " + k.example,
		Args:    arguments(),
	}
	s := env.settingFlags(c.Flags(), k)
	env.dataFlags(c, &cfg)
	env.jsonFlag(c)
	c.Flags().StringVar(&name, "name", "", "name to show; that of the organization itself when left out")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return env.withApp(c.Context(), cfg, s, func(ctx context.Context, a *app.App, values map[string]string) error {
			orgs, err := a.Organizations(ctx)
			if err != nil {
				return err
			}
			id := ""
			for _, o := range orgs {
				if name != "" && o.Name == name || name == "" && o.Settings["url"] == values["url"] {
					id, name = o.ID, o.Name
				}
			}
			org, err := a.ConnectOrganization(ctx, id, name, k.adapter, values)
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(org)
			}
			env.printf("connected: %s (%s), version %s\n", org.Name, org.Identity.URL, org.Identity.Version)
			return nil
		})
	}
	return c
}

func (env *environment) connectAccount(k connectKind) *cobra.Command {
	var cfg app.Config
	var name, organization string
	c := &cobra.Command{
		Use:   "account",
		Short: "Connect " + k.title + ", or connect it anew, and provision it",
		Long: `Signs in to ` + k.title + ` and keeps the connection; secrets are sealed. Then reads
the CRM's tables and marketing lists and the account's data fields, and makes the
default mappings of names. An account with the same name is connected anew.`,
		Example: "  lockstep connect account --data /var/lib/lockstep " + k.example,
		Args:    arguments(),
	}
	s := env.settingFlags(c.Flags(), k)
	env.dataFlags(c, &cfg)
	env.jsonFlag(c)
	c.Flags().StringVar(&name, "name", "Marketing", "name to show")
	c.Flags().StringVar(&organization, "organization", "", "name or id of the organization; may be left out when there is only one")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return env.withApp(c.Context(), cfg, s, func(ctx context.Context, a *app.App, values map[string]string) error {
			org, err := a.Organization(ctx, organization)
			if err != nil {
				return err
			}
			accounts, err := a.Accounts(ctx)
			if err != nil {
				return err
			}
			id := ""
			for _, acc := range accounts {
				if acc.Name == name && acc.Organization == org.ID {
					id = acc.ID
				}
			}
			acc, err := a.ConnectAccount(ctx, id, org.ID, name, k.adapter, values)
			if err != nil {
				return err
			}
			p := newProgress(env.std.Err)
			p.begin("Reading tables, labels and lists")
			if err := a.Start(ctx); err != nil {
				return err
			}
			if err := a.Provision(ctx, acc.ID); err != nil {
				p.stop()
				return fmt.Errorf("the account is connected, but not provisioned: %w", err)
			}
			p.end("done")
			if env.json {
				return env.printJSON(acc)
			}
			env.printf("connected: %s (account %s)\n", acc.Name, acc.Identity.ID)
			return nil
		})
	}
	return c
}

// withApp opens the data for a command that keeps a connection.
func (env *environment) withApp(ctx context.Context, cfg app.Config, s *settings, do func(context.Context, *app.App, map[string]string) error) (err error) {
	if cfg.DataDir == "" && cfg.DatabaseURL == "" {
		return usage("give --data DIR, or --database-url URL", "a connection needs a place to be kept in")
	}
	values, hosts, err := s.read()
	if err != nil {
		return err
	}
	cfg.AllowHosts = append(cfg.AllowHosts, hosts...)
	a, err := env.openApp(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeApp(a)) }()
	return do(ctx, a, values)
}
