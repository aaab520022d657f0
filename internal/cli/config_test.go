package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
	"github.com/lockstep-sync/lockstep/internal/configuration"
)

func TestConfigCommands(t *testing.T) {
	dir := t.TempDir()
	a, company := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	exported := run(t, "config", "export", "--data", dir).want(t, ExitDone, "accounts:\n  - name: Contoso mailings\n", `- name: "Customers <EMEA>"`, "interval: continuous")
	if exported.err != "" {
		t.Errorf("beside the document it says %q", exported.err)
	}
	file := filepath.Join(t.TempDir(), "lockstep.yaml")
	keep := func(pairs ...string) {
		t.Helper()
		text := strings.NewReplacer(pairs...).Replace(exported.out)
		if len(pairs) > 0 && text == exported.out {
			t.Fatalf("%q changes nothing", pairs)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep()
	run(t, "config", "plan", file, "--data", dir).want(t, ExitDone, "No difference: what is configured is what the document says.\n")
	run(t, "config", "apply", file, "--data", dir).want(t, ExitDone, "No difference")
	lockstepIn(t.Context(), exported.out, "config", "plan", "-", "--data", dir).want(t, ExitDone, "No difference")

	keep("winner: newest", "winner: crm")
	o := run(t, "config", "plan", file, "--data", dir).want(t, ExitDone, "Contoso mailings\n  mapping VISITS to_platform of contact: changed\n    winner: newest → crm\n", "1 change. Nothing was written", "lockstep config apply "+file+" --plan ")
	_, fingerprint, _ := strings.Cut(strings.TrimSpace(o.out), "--plan ")
	var plan app.ConfigurationPlan
	run(t, "config", "plan", file, "--json", "--data", dir).want(t, ExitDone).object(t, &plan)
	if plan.Fingerprint != fingerprint || len(plan.Changes) != 1 || plan.Changes[0].Action != configuration.Changed {
		t.Errorf("%+v, the text says %s", plan, fingerprint)
	}
	run(t, "config", "apply", file, "--plan", "0000", "--data", dir).want(t, ExitFailed, "has changed since", "Plan again")
	if now := run(t, "config", "export", "--data", dir); now.out != exported.out {
		t.Errorf("something was written:\n%s", now.out)
	}
	run(t, "config", "apply", file, "--plan", fingerprint, "--data", dir).want(t, ExitDone, "winner: newest → crm", "1 change, all applied.")
	run(t, "config", "plan", file, "--json", "--data", dir).want(t, ExitDone).object(t, &plan)
	if len(plan.Changes) != 0 {
		t.Errorf("%+v", plan.Changes)
	}
	var d configuration.Document
	run(t, "config", "export", "--json", "--account", company.Account.ID, "--data", dir).want(t, ExitDone).object(t, &d)
	_, accounts, _ := strings.Cut(exported.out, "\naccounts:") // what all share is not in the document of one
	if len(d.Accounts) != 1 || string(d.Text()) != "accounts:"+strings.Replace(accounts, "winner: newest", "winner: crm", 1) {
		t.Errorf("the document as JSON is another one: %s", d.Text())
	}

	// What the product refuses is told with the file's lines.
	keep("guard_percent: 5", "guard_percent: 500", "interval: continuous", "interval: sometimes", "- name: Partners", "- name: Strangers")
	line := func(text string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(string(b), text)
		return file + ":" + strconv.Itoa(1+strings.Count(before, "\n")) + ": "
	}
	for _, command := range []string{"plan", "apply"} {
		run(t, "config", command, file, "--data", dir).want(t, ExitFailed, "There are 4 problems in the document; nothing was written",
			line("guard_percent")+"accounts[0].settings.guard_percent: the limit is between 1 and 100", line("- name: Strangers")+`accounts[0].lists[2].name: the CRM has no marketing list "Strangers"`,
			line("interval: sometimes")+`accounts[0].schedules[5].interval: "sometimes" is not an interval`, "use one of manual, continuous")
	}
	keep("- name: Contoso mailings", "- name: Sandbox")
	run(t, "config", "plan", file, "--data", dir).want(t, ExitFailed, line("- name: Sandbox")+`accounts[0].name: there is no email account "Sandbox"`, `use one of "Contoso mailings"`)
	run(t, "config", "plan", file, "--account", "Contoso mailings", "--data", dir).want(t, ExitDone, "winner: crm → newest", `--account "Contoso mailings" --plan`)

	// What is no document is wrong usage.
	keep("    labels:\n", "    lables:\n")
	run(t, "config", "apply", file, "--data", dir).want(t, ExitUsage, `unknown field "lables"`, "lables:")
	keep("    labels:\n", "    labels:\n\t")
	run(t, "config", "plan", file, "--data", dir).want(t, ExitUsage, file)
	run(t, "config", "plan", filepath.Join(dir, "none.yaml"), "--data", dir).want(t, ExitUsage, "cannot be read")
	run(t, "config", "plan", "--data", dir).want(t, ExitUsage, "needs the file with the document")
	run(t, "config", "apply", file, file, "--data", dir).want(t, ExitUsage, "does not take")
	run(t, "config", "--data", dir).want(t, ExitUsage)
	run(t, "config", "import", file).want(t, ExitUsage, `no command "import"`)
	run(t, "config", "export").want(t, ExitUsage, "which Lockstep is meant")
}
