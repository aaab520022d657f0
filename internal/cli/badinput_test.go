package cli

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// trouble is something wrong with a system or with what was entered, and what a
// person is told about it.
type trouble struct {
	name   string
	args   []string // of the command, besides those that work
	make   func(t *testing.T, tw *twin.Twins)
	mend   func(t *testing.T, tw *twin.Twins)
	says   string // the cause
	advice string
}

func inject(f fault.Fault) func(*testing.T, *twin.Twins) {
	return func(t *testing.T, tw *twin.Twins) {
		t.Helper()
		if err := tw.Faults.Add(f); err != nil {
			t.Fatal(err)
		}
	}
}

func privilege(name string, granted bool) func(*testing.T, *twin.Twins) {
	return func(t *testing.T, tw *twin.Twins) {
		t.Helper()
		if err := tw.Dataverse.SetPrivilege(tw.Ready().Dataverse.ClientID, name, granted); err != nil {
			t.Fatal(err)
		}
	}
}

func args(s string) json.RawMessage { return json.RawMessage(s) }

// Whatever is wrong with an organization, connecting it ends in one message that says
// what and what to do, at once, and nothing of it is kept.
func TestNothingIsKeptOfAConnectionThatFails(t *testing.T) {
	tw, file := company(t, 60)
	r := tw.Ready()
	stranger := entra.Application{ClientID: "22222222-0000-0000-0000-000000000002", Secrets: []entra.Secret{{Value: "not-a-user~0123456789"}}}
	if err := tw.Directory.AddApplication(stranger); err != nil {
		t.Fatal(err)
	}
	for _, c := range []trouble{
		{
			name: "wrong secret", args: []string{"--client-secret-file", write(t, "wrong", "wrong~secret\n")},
			says: "the client secret is wrong", advice: "paste the secret's Value, not its Secret ID; create a new secret if the value is lost",
		},
		{
			name: "expired secret", make: inject(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Args: args(`{"aadsts":7000222}`)}),
			says: "the client secret or certificate has expired", advice: "create a new one under Certificates & secrets of the app registration and enter it here",
		},
		{
			name: "nothing answers", args: []string{"--url", "http://127.0.0.1:1", "--allow-host", "127.0.0.1:1"},
			says: "the server cannot be reached: the connection was refused", advice: "check the address and whether the server runs",
		},
		{
			name: "no such host", args: []string{"--url", "https://contoso.crm4.dynamics.invalid"},
			says: "the host name cannot be found", advice: "check the address for a typing mistake",
		},
		{
			name: "not Dynamics", args: []string{"--url", r.Dotdigital.URL},
			says: "what answers at this address is not a Dynamics organization", advice: "enter the address that you see in the browser when Dynamics is open, such as https://contoso.crm4.dynamics.com",
		},
		{
			name: "no application user", args: []string{"--client-id", stranger.ClientID, "--client-secret-file", write(t, "stranger", "not-a-user~0123456789")},
			says: "the organization has no application user for this client id", advice: "add an application user for the app registration in the Power Platform admin center",
		},
		{
			name: "an answer of 5 GB", make: inject(fault.Fault{Twin: fault.Dataverse, Kind: fault.Huge, Operation: "whoami"}),
			says: "what answers at this address is not a Dynamics organization",
		},
		{
			name: "a web page instead of JSON", make: inject(fault.Fault{Twin: fault.Dataverse, Kind: fault.Garbage, Args: args(`{"variant":"html"}`)}),
			says: "what answers at this address is not a Dynamics organization",
		},
		{
			name: "a sign-in service of 5 GB", make: inject(fault.Fault{Twin: fault.Entra, Kind: fault.Huge}),
			says: "what answers at the authority is not a sign-in service", advice: "check the authority, and whether a proxy answers in its place",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.make != nil {
				c.make(t, tw)
				defer tw.Faults.Clear()
			}
			o := run(t, append([]string{"connect", "test", "dynamics", "--twins", file}, c.args...)...).
				want(t, ExitFailed, "Connection unavailable\n", "  cause: "+c.says, "  fix:   "+c.advice)
			t.Logf("%s%s", o.err, o.out)
			data := filepath.Join(t.TempDir(), "data")
			o = run(t, append([]string{"connect", "organization", "--twins", file, "--data", data}, c.args...)...).want(t, ExitFailed, c.says, c.advice)
			t.Logf("%s%s", o.err, o.out)
			if n := strings.Count(o.err, c.says); n != 1 || strings.Count(strings.TrimSpace(o.err), "\n") > 1 {
				t.Errorf("the message is not one message: %q", o.err)
			}
			run(t, "connect", "account", "--twins", file, "--data", data).want(t, ExitFailed, "no organization is connected")
			if strings.Contains(o.out+o.err, "~") {
				t.Errorf("a secret is shown: %+v", o)
			}
		})
	}
}

// Whatever is wrong when a sync begins ends in one message that says what and what to
// do; nothing is written to either side.
func TestNothingIsWrittenByASyncThatCannotBegin(t *testing.T) {
	tw, file := company(t, 120)
	data := filepath.Join(t.TempDir(), "data")
	run(t, "connect", "organization", "--twins", file, "--data", data).want(t, ExitDone)
	run(t, "connect", "account", "--twins", file, "--data", data).want(t, ExitDone)
	run(t, "lists", "set", "Hot leads", "--activate", "--data", data).want(t, ExitDone, "saved")
	hosts, err := hostsOf(tw.Ready().Dataverse.URL, tw.Ready().Dataverse.Authority, tw.Ready().Dotdigital.URL)
	if err != nil {
		t.Fatal(err)
	}
	fine := func(_ *testing.T, tw *twin.Twins) { tw.Faults.Clear() }
	for _, c := range []trouble{
		{name: "unknown list", args: []string{"--list", "No such list"}, says: `There is no marketing list "No such list".`, advice: "Give its name or id as the list of lists shows it"},
		{
			name: "expired secret", make: inject(fault.Fault{Twin: fault.Entra, Kind: "token-expire", Args: args(`{"aadsts":7000222}`)}), mend: fine,
			says: "the client secret or certificate has expired", advice: "create a new one under Certificates & secrets of the app registration and enter it here",
		},
		{
			name: "no privilege to read leads", make: privilege("prvReadLead", false), mend: privilege("prvReadLead", true),
			says: "the application user lacks a privilege (prvReadLead)", advice: "give its security role the privilege prvReadLead",
		},
		{
			name: "no privilege to read lists", make: privilege("prvReadList", false), mend: privilege("prvReadList", true),
			says: "the application user lacks a privilege (prvReadList)", advice: "give its security role the privilege prvReadList",
		},
		{
			name: "the API user is switched off", make: inject(fault.Fault{Twin: fault.Dotdigital, Kind: fault.Status, Args: args(`{"code":401}`)}), mend: fine,
			says: "Dotdigital does not accept the API user", advice: "check user and password under Settings, Access, API users, and that the API user is enabled",
		},
		{
			name: "the API user may not do this", make: inject(fault.Fault{Twin: fault.Dotdigital, Kind: fault.Status, Args: args(`{"code":403}`)}), mend: fine,
			says: "Dotdigital does not let the API user do this", advice: "check the permissions of the API user under Settings, Access, API users",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.make != nil {
				c.make(t, tw)
				defer c.mend(t, tw)
			}
			for _, n := range tw.Counters {
				n.Reset()
			}
			o := run(t, append([]string{"sync", "run", "--type", "marketing-lists", "--data", data, "--allow-host", strings.Join(hosts, ",")}, c.args...)...).
				want(t, ExitFailed, c.says, c.advice)
			t.Logf("%s%s", o.err, o.out)
			if n := strings.Count("\n"+o.err, "\nlockstep: "); n != 1 {
				t.Errorf("there are %d messages:\n%s%s", n, o.err, o.out)
			}
			for name, n := range tw.Counters {
				for op := range n.Snapshot().Operations {
					if op == "address-books.create" { // an empty book that the next sync fills
						continue
					}
					if slices.ContainsFunc([]string{"create", "update", "delete", "add-", "remove", "import", "upsert"}, func(verb string) bool { return strings.Contains(op, verb) }) {
						t.Errorf("%s was called on %s", op, name)
					}
				}
			}
		})
	}
	o := run(t, "sync", "run", "--type", "marketing-lists", "--data", data, "--allow-host", strings.Join(hosts, ","))
	if o.code != ExitDone && o.code != ExitFindings {
		t.Fatalf("once all is mended: %+v", o)
	}
}
