package cli

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
)

func TestDemoOnce(t *testing.T) {
	var res demoResult
	o := run(t, "demo", "--contacts", "200", "--seed", "7", "--once", "--json").want(t, ExitFindings)
	o.object(t, &res)
	if res.Run.Status != lockstep.RunCompletedWithErrors || res.Run.Counts.ContactsCreated == 0 || res.Lists == 0 || len(res.Findings) == 0 {
		t.Errorf("result: %+v", res)
	}
	var total int64
	for _, n := range res.Findings {
		total += n
	}
	if total != res.Run.Counts.Findings {
		t.Errorf("%d findings by code, the run counted %d", total, res.Run.Counts.Findings)
	}
	if strings.Contains(o.err, "{") {
		t.Errorf("JSON on standard error: %s", o.err)
	}
	if _, err := os.Stat(res.ReadyFile); err == nil {
		t.Errorf("the temporary folder of %s is still there", res.ReadyFile)
	}
}

func TestDemoGoesOnWithItsFolder(t *testing.T) {
	_, twins := company(t, 150)
	data := filepath.Join(t.TempDir(), "data")
	run(t, "demo", "--twins", twins, "--data", data, "--once").want(t, ExitFindings, "The first sync of", "Contacts created")
	o := run(t, "demo", "--twins", twins, "--data", data, "--once", "--json").want(t, ExitDone, "going on with it")
	var res demoResult
	o.object(t, &res)
	if res.Run.Counts.ContactsCreated != 0 || res.Run.Counts.BookAdds != 0 {
		t.Errorf("the second demo synced again: %+v", res.Run.Counts)
	}
	var listed struct{ Items []lockstep.Run }
	run(t, "runs", "--data", data, "--json").want(t, ExitDone).object(t, &listed)
	metadata := 0
	for _, r := range listed.Items {
		if r.Type == lockstep.SyncCRMMetadata {
			metadata++
		}
	}
	if metadata != 1 {
		t.Errorf("provisioned %d times", metadata)
	}

	run(t, "demo", "--data", data, "--once").want(t, ExitUsage, "its twins are not kept there", "--twins FILE")
	_, others := company(t, 150)
	run(t, "demo", "--twins", others, "--data", data, "--once").want(t, ExitUsage, "other twins")
}

func TestDemoKeepsItsTwins(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	run(t, "demo", "--contacts", "100", "--data", data, "--once").want(t, ExitFindings, "The first sync of")
	var res demoResult
	run(t, "demo", "--data", data, "--once", "--json").want(t, ExitDone, "going on with it").object(t, &res)
	if res.Run.Counts.ContactsCreated != 0 || res.Run.Counts.BookAdds != 0 {
		t.Errorf("the second demo synced again: %+v", res.Run.Counts)
	}
	// Twins that lost their records are noticed.
	for _, dir := range []string{"dataverse", "dotdigital"} {
		if err := os.RemoveAll(filepath.Join(data, "twins", dir)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "demo", "--data", data, "--once").want(t, ExitUsage, "know nothing of what was synced")
}

// ready reads a ready file and checks that its owner alone can.
func ready(t *testing.T, path string) readyFile {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the ready file: %v", info.Mode())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r readyFile
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// One demo that serves, and the commands that speak to it.
func TestCommandsOnARunningDemo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	d := start(t, true, "Serving until", "demo", "--contacts", "200", "--seed", "7", "--ready-file", file)
	r := ready(t, file)
	if r.Lockstep == nil || r.Lockstep.PID != os.Getpid() || r.Dataverse.URL == "" || r.Dotdigital.Password == "" || r.Control.Token == "" {
		t.Fatalf("ready file: %+v", r)
	}
	for _, u := range []string{r.Lockstep.URL + "/readyz", r.Dataverse.Authority + "/v2.0/.well-known/openid-configuration"} {
		resp, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s answers %s", u, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{"Try next", "consent show", "sync preview --type marketing-lists --ready-file " + file, r.Lockstep.Password, "contacts("} {
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, d.out)
		}
	}

	t.Run("runs", func(t *testing.T) {
		var page struct{ Items []lockstep.Run }
		run(t, "runs", "--type", "marketing-lists", "--limit", "5", "--json", "--ready-file", file).want(t, ExitDone).object(t, &page)
		if len(page.Items) != 1 {
			t.Fatalf("%d runs", len(page.Items))
		}
		id := page.Items[0].ID
		run(t, "runs", "--ready-file", file).want(t, ExitDone, id, "crm-metadata", "completed_with_errors")
		run(t, "runs", "show", id, "--changes", "--findings", "--ready-file", file).want(t, ExitDone, "write_contact", "acknowledged", "no_email")
		var shown struct {
			ID       string
			Changes  []change
			Findings []lockstep.Finding
			ByCode   map[string]int64 `json:"findings_by_code"`
		}
		run(t, "runs", "show", id, "--changes", "--findings", "--json", "--ready-file", file).want(t, ExitDone).object(t, &shown)
		if shown.ID != id || len(shown.Changes) == 0 || int64(len(shown.Findings)) != page.Items[0].Counts.Findings || len(shown.ByCode) == 0 {
			t.Errorf("shown: %d changes, %d findings, %v", len(shown.Changes), len(shown.Findings), shown.ByCode)
		}
		run(t, "runs", "show", "01a20493-0000-0000-0000-000000000000", "--ready-file", file).want(t, ExitFailed, "no run")
		run(t, "runs", "--server", r.Lockstep.URL, "--token", "wrong", "--json").want(t, ExitFailed, "not valid")
		run(t, "runs", "--server", r.Lockstep.URL, "--token-file", write(t, "token", r.Lockstep.Token+"\n")).want(t, ExitDone, id)
		run(t, "runs", "--server", r.Dotdigital.URL, "--token", "x").want(t, ExitFailed, "not like Lockstep")
	})
	t.Run("lists", func(t *testing.T) {
		run(t, "lists", "--ready-file", file).want(t, ExitDone, "Company newsletter", "dynamic")
		var saved struct {
			Activated bool   `json:"activated"`
			Action    string `json:"membership_action"`
		}
		run(t, "lists", "set", "web enquiries", "--activate", "--action", "allow_known", "--json", "--ready-file", file).want(t, ExitDone).object(t, &saved)
		if !saved.Activated || saved.Action != "allow_known" {
			t.Errorf("saved: %+v", saved)
		}
		run(t, "lists", "set", "No such list", "--activate", "--ready-file", file).want(t, ExitFailed, `no marketing list "No such list"`, "lockstep lists")
		run(t, "lists", "set", "Company newsletter", "--action", "create_lead", "--ready-file", file).want(t, ExitFailed, "list of leads")
	})
	t.Run("sync", func(t *testing.T) {
		run(t, "sync", "run", "--list", "No such list", "--ready-file", file).want(t, ExitFailed, `no marketing list "No such list"`)
		run(t, "sync", "run", "--account", "Nobody", "--ready-file", file).want(t, ExitFailed, `no email account "Nobody"`, "Marketing")
		run(t, "sync", "run", "--list", "My customers", "--ready-file", file).want(t, ExitFailed, "not activated")
		var preview, applied runResult
		o := run(t, "sync", "preview", "--list", "Web enquiries", "--json", "--ready-file", file)
		if o.code != ExitDone && o.code != ExitFindings {
			t.Fatalf("%+v", o)
		}
		o.object(t, &preview)
		if preview.Status != lockstep.RunPreviewed || preview.Counts.BookAdds == 0 {
			t.Fatalf("preview: %+v", preview)
		}
		o = run(t, "sync", "apply", preview.ID, "--json", "--ready-file", file)
		if o.code != ExitDone && o.code != ExitFindings {
			t.Fatalf("%+v", o)
		}
		o.object(t, &applied)
		if applied.Counts.BookAdds != preview.Counts.BookAdds {
			t.Errorf("the preview showed %d, %d were written", preview.Counts.BookAdds, applied.Counts.BookAdds)
		}
		run(t, "sync", "apply", applied.ID, "--ready-file", file).want(t, ExitFailed, "not a finished preview")
		run(t, "sync", "run", "--ready-file", file).want(t, ExitDone, "Status    completed", "API calls")
	})
	d.stop(t)
	if d.code != ExitDone {
		t.Errorf("a stopped demo ends with %d: %s", d.code, d.err)
	}
}

func TestTwinCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "twins.json")
	d := start(t, false, "Stop with Ctrl-C", "twin", "--contacts", "50", "--data", filepath.Join(t.TempDir(), "twins"), "--ready-file", file)
	if r := ready(t, file); r.Lockstep != nil || r.Dataverse.ClientSecret == "" {
		t.Errorf("ready file: %+v", r)
	}
	d.stop(t)
	if d.code != ExitDone {
		t.Errorf("exit code %d: %s", d.code, d.err)
	}
}

func TestServe(t *testing.T) {
	data, file := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "ready.json")
	d := start(t, false, "API token", "serve", "--listen", "127.0.0.1:0", "--data", data, "--ready-file", file)
	r := ready(t, file)
	for _, want := range []string{"Shown this once", r.Lockstep.Password, r.Lockstep.Token} {
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("the first start does not say %q", want)
		}
	}
	run(t, "runs", "--ready-file", file).want(t, ExitDone, "no such runs")
	run(t, "runs", "--data", data).want(t, ExitFailed, "uses the data folder")
	run(t, "serve", "--listen", strings.TrimPrefix(r.Lockstep.URL, "http://"), "--data", filepath.Join(t.TempDir(), "other")).want(t, ExitFailed, "address already in use")
	d.stop(t)
	if d.code != ExitDone {
		t.Errorf("exit code %d: %s", d.code, d.err)
	}
	d = start(t, false, "answers on", "serve", "--listen", "127.0.0.1:0", "--data", data)
	if strings.Contains(d.out.String(), "password") {
		t.Errorf("the second start shows the password: %s", d.out)
	}
	d.stop(t)
}

func TestConnect(t *testing.T) {
	tw, file := company(t, 60)
	r := tw.Ready()
	stranger := entra.Application{ClientID: "22222222-0000-0000-0000-000000000002", Secrets: []entra.Secret{{Value: "not-a-user~0123456789"}}}
	if err := tw.Directory.AddApplication(stranger); err != nil {
		t.Fatal(err)
	}
	dynamics := []string{"connect", "test", "dynamics", "--twins", file}
	dotdigital := []string{"connect", "test", "dotdigital", "--twins", file}
	wrong := write(t, "wrong", "wrong~secret\n")
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"wrong secret", append(slices.Clone(dynamics), "--client-secret-file", wrong), []string{"client secret"}},
		{"unreachable", append(slices.Clone(dynamics), "--url", "http://127.0.0.1:1"), []string{"reached"}},
		{"not Dynamics", append(slices.Clone(dynamics), "--url", r.Dotdigital.URL), []string{"Dynamics"}},
		{"no application user", append(slices.Clone(dynamics), "--client-id", stranger.ClientID, "--client-secret-file", write(t, "s", stranger.Secrets[0].Value)), []string{"application user"}},
		{"internal address", append(slices.Clone(dynamics), "--url", "http://10.1.2.3"), []string{"https://"}},
		{"wrong password", append(slices.Clone(dotdigital), "--password-file", wrong), []string{"does not accept the API user"}},
		{"not Dotdigital", append(slices.Clone(dotdigital), "--endpoint", r.Dataverse.URL), []string{"not Dotdigital's"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := run(t, c.args...).want(t, ExitFailed, append(c.want, "Connection unavailable\n", "  step:  ", "  cause: ", "  fix:   ")...)
			if strings.Contains(o.out+o.err, r.Dataverse.ClientSecret) || strings.Contains(o.out+o.err, "wrong~secret") {
				t.Errorf("a secret is shown: %+v", o)
			}
		})
	}
	var failed struct {
		OK               bool
		Step, Cause, Fix string
	}
	run(t, append(slices.Clone(dotdigital), "--password-file", wrong, "--json")...).want(t, ExitFailed).object(t, &failed)
	if failed.OK || failed.Step == "" || failed.Cause == "" || failed.Fix == "" {
		t.Errorf("in JSON: %+v", failed)
	}
	run(t, dynamics...).want(t, ExitDone, "connection available\n")
	run(t, dotdigital...).want(t, ExitDone, "connection available\n")
	t.Setenv("LOCKSTEP_PASSWORD", r.Dotdigital.Password)
	run(t, "connect", "test", "dotdigital", "--endpoint", r.Dotdigital.URL, "--user", r.Dotdigital.User).want(t, ExitDone, "connection available\n")
	o := lockstepIn(t.Context(), r.Dataverse.ClientSecret+"\n", "connect", "test", "dynamics", "--url", r.Dataverse.URL, "--client-id", r.Dataverse.ClientID, "--client-secret-file", "-",
		"--allow-host", strings.TrimPrefix(strings.TrimSuffix(r.Dataverse.Authority, "/"+r.Dataverse.Tenant), "http://"))
	o.want(t, ExitDone, "connection available\n")
}

// The whole way by hand: connect both sides, activate a list, sync.
func TestConnectAndSyncWithoutAServer(t *testing.T) {
	tw, file := company(t, 120)
	data := filepath.Join(t.TempDir(), "data")
	run(t, "connect", "account", "--twins", file, "--data", data).want(t, ExitFailed, "no organization is connected")
	run(t, "connect", "organization", "--twins", file, "--data", data).want(t, ExitDone, "connected: ")
	for range 2 { // connecting anew is no second account
		var acc lockstep.EmailAccount
		run(t, "connect", "account", "--twins", file, "--data", data, "--json").want(t, ExitDone).object(t, &acc)
	}
	run(t, "lists", "set", "Hot leads", "--activate", "--data", data).want(t, ExitDone, "saved")
	hosts, err := hostsOf(tw.Ready().Dataverse.URL, tw.Ready().Dataverse.Authority, tw.Ready().Dotdigital.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := run(t, "sync", "run", "--type", "marketing-lists", "--list", "Hot leads", "--data", data, "--allow-host", strings.Join(hosts, ","), "--json")
	if o.code != ExitDone && o.code != ExitFindings {
		t.Fatalf("%+v", o)
	}
	var res runResult
	o.object(t, &res)
	if res.Counts.BookAdds == 0 {
		t.Errorf("nothing was synced: %+v", res.Counts)
	}
	// The key and the database are for their owner alone.
	err = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && e.IsDir() && info.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
