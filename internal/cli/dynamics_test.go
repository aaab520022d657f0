package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// Our tables come and go by command, without a server.
func TestDynamicsInstallAndUninstall(t *testing.T) {
	tw, file := company(t, 120)
	data := filepath.Join(t.TempDir(), "data")
	hosts, err := hostsOf(tw.Ready().Dataverse.URL, tw.Ready().Dataverse.Authority, tw.Ready().Dotdigital.URL)
	if err != nil {
		t.Fatal(err)
	}
	dynamics := func(args ...string) outcome {
		return run(t, append(append([]string{"dynamics"}, args...), "--data", data, "--allow-host", strings.Join(hosts, ","))...)
	}
	dynamics("install").want(t, ExitFailed, "no organization is connected")
	run(t, "connect", "organization", "--twins", file, "--data", data).want(t, ExitDone, "connected: ")
	dynamics("install", "--organization", "Nobody").want(t, ExitUsage, "it is not clear which organization is meant")
	dynamics("uninstall").want(t, ExitDone, "nothing of ours is there")
	dynamics("install", "--preview").want(t, ExitDone, "create table lockstep_suppression: Email Suppression", "create column contact.lockstep_optintype")

	// Without an account there is no run that could read the tables anew.
	var installed schemaAnswer
	dynamics("install", "--json").want(t, ExitDone, "✓ create table lockstep_preference").object(t, &installed)
	if len(installed.Taken) != 14 || installed.Run != "" {
		t.Errorf("%d steps, run %q", len(installed.Taken), installed.Run)
	}
	dynamics("install").want(t, ExitDone, "everything was installed already")
	dynamics("install", "--preview").want(t, ExitDone, "everything is installed")

	run(t, "connect", "account", "--twins", file, "--data", data).want(t, ExitDone, "connected: ")
	var plan schemaAnswer
	dynamics("uninstall", "--json").want(t, ExitDone).object(t, &plan)
	if len(plan.Steps) != 9 || plan.Confirm == "" {
		t.Fatalf("%+v", plan)
	}
	dynamics("uninstall").want(t, ExitDone, "delete table lockstep_suppression: Email Suppression and all its rows", "--confirm "+plan.Confirm)
	dynamics("uninstall", "--confirm", "yes").want(t, ExitFailed, "does not confirm what is there to be deleted")
	dynamics("install", "--preview").want(t, ExitDone, "everything is installed")
	var removed schemaAnswer
	dynamics("uninstall", "--confirm", plan.Confirm, "--json").want(t, ExitDone, "✓ delete table").object(t, &removed)
	if len(removed.Taken) != 9 || removed.Run == "" {
		t.Errorf("%+v", removed)
	}
	dynamics("uninstall").want(t, ExitDone, "nothing of ours is there")
	dynamics("install").want(t, ExitDone, "Reading tables anew", "installed: 14 steps")
}

// Webhooks come and go by command, and leave the tables alone.
func TestDynamicsWebhooks(t *testing.T) {
	tw, file := company(t, 60)
	data := filepath.Join(t.TempDir(), "data")
	hosts, err := hostsOf(tw.Ready().Dataverse.URL, tw.Ready().Dataverse.Authority, tw.Ready().Dotdigital.URL)
	if err != nil {
		t.Fatal(err)
	}
	dynamics := func(args ...string) outcome {
		return run(t, append(append([]string{"dynamics"}, args...), "--data", data, "--allow-host", strings.Join(hosts, ","))...)
	}
	run(t, "connect", "organization", "--twins", file, "--data", data).want(t, ExitDone, "connected: ")
	const url = "https://lockstep.example.com"
	dynamics("install", "--url", url).want(t, ExitUsage, "give --webhooks too")
	dynamics("install", "--webhooks", "--url", url).want(t, ExitFailed, "have not been read yet")
	run(t, "connect", "account", "--twins", file, "--data", data).want(t, ExitDone, "connected: ")

	dynamics("install", "--webhooks", "--preview").want(t, ExitDone, "no webhooks are registered")
	dynamics("install", "--webhooks").want(t, ExitFailed, "under which address")
	dynamics("install", "--webhooks", "--url", "http://lockstep.example.com").want(t, ExitFailed, "cannot call Lockstep at this address", "https")
	dynamics("install", "--webhooks", "--url", url, "--preview").want(t, ExitDone, "create webhook Lockstep: "+url+"/hooks/dynamics/", "create message contact.Update: donotbulkemail, donotemail,")
	var got schemaAnswer
	dynamics("install", "--webhooks", "--url", url+"/", "--json").want(t, ExitDone).object(t, &got)
	if len(got.Taken) != 16 {
		t.Errorf("%+v", got.Taken)
	}
	dynamics("install", "--webhooks").want(t, ExitDone, "webhooks were registered already")
	dynamics("install", "--webhooks", "--preview").want(t, ExitDone, "webhooks are registered: Dynamics calls "+url+"/hooks/dynamics/")
	dynamics("install", "--webhooks", "--new-secret", "--preview").want(t, ExitDone, "change webhook Lockstep: another secret")
	dynamics("install", "--webhooks", "--new-secret").want(t, ExitDone, "✓ change webhook", "registered: 1 steps")
	dynamics("uninstall").want(t, ExitDone, "nothing of ours is there") // of tables
	dynamics("uninstall", "--webhooks").want(t, ExitDone, "✓ delete message", "webhooks are removed")
	dynamics("uninstall", "--webhooks").want(t, ExitDone, "no webhooks were registered")
}

// The demo adds our tables; without the right to do so it says what is missing and
// goes on.
func TestDemoInstallsTables(t *testing.T) {
	tw, file := company(t, 60)
	app := tw.Ready().Dataverse.ClientID
	if err := tw.Dataverse.SetPrivilege(app, "prvCreatePublisher", false); err != nil {
		t.Fatal(err)
	}
	without := filepath.Join(t.TempDir(), "without")
	o := run(t, "demo", "--twins", file, "--once", "--data", without)
	o.want(t, o.code, "Adding our tables to Dynamics", "prvCreatePublisher", "System Customizer", "syncing works all the same", "The first sync of")
	if o.code != ExitDone && o.code != ExitFindings {
		t.Errorf("exit code %d", o.code)
	}
	_, file = company(t, 60)
	with := filepath.Join(t.TempDir(), "with")
	o = run(t, "demo", "--twins", file, "--once", "--data", with)
	o.want(t, o.code, "Adding our tables to Dynamics", "14 steps")
	// What the metadata run reads, our tables are among.
	read := func(data string) int64 {
		var listed struct{ Items []lockstep.Run }
		run(t, "runs", "--type", "crm-metadata", "--data", data, "--json").want(t, ExitDone).object(t, &listed)
		if len(listed.Items) != 1 {
			t.Fatalf("%d metadata runs", len(listed.Items))
		}
		return listed.Items[0].Counts.Read
	}
	if more := read(with) - read(without); more < 40 {
		t.Errorf("with our tables %d more columns were read", more)
	}
}
