package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Flags come before the environment, and that before the file.
func TestSettingsInTheirOrder(t *testing.T) {
	file := write(t, "lockstep.yaml", "data: from-file\nlisten: 127.0.0.1:1\nallow-host: [a.example, \"b.example:8080\"]\naccount: of another command\n")
	t.Setenv("LOCKSTEP_CONFIG", file)
	t.Setenv("LOCKSTEP_LISTEN", "127.0.0.1:2")
	t.Setenv("LOCKSTEP_DATABASE_URL", "from-environment")
	var got map[string]string
	root := (&environment{}).root()
	for _, c := range root.Commands() {
		if c.Name() != "serve" {
			continue
		}
		c.RunE = func(c *cobra.Command, _ []string) error {
			got = map[string]string{}
			for _, name := range []string{"data", "listen", "database-url", "allow-host", "ready-file"} {
				got[name] = c.Flag(name).Value.String()
			}
			return nil
		}
	}
	root.SetArgs([]string{"serve", "--database-url", "from-flag"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"data": "from-file", "listen": "127.0.0.1:2", "database-url": "from-flag", "allow-host": "[a.example,b.example:8080]", "ready-file": ""} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestSettingsFileIsStrict(t *testing.T) {
	o := run(t, "version", "--config", write(t, "c.yaml", "data: x\nlissten: y\n")).want(t, ExitUsage, "lissten", "2 |")
	if o.out != "" {
		t.Errorf("standard output: %s", o.out)
	}
	run(t, "version", "--config", write(t, "c.yaml", "log-level: [a]\n")).want(t, ExitUsage, "log-level")
	run(t, "version", "--config", write(t, "c.yaml", "log-level: loud\n")).want(t, ExitUsage, "is not a log level")
	run(t, "version", "--config", write(t, "c.yaml", "")).want(t, ExitDone)
	run(t, "version", "--config", write(t, "c.yaml", "data: "+strings.Repeat("x", maxSettings))).want(t, ExitUsage, "larger than 1 MiB")
}

func TestSettingsFromTheEnvironmentAreChecked(t *testing.T) {
	t.Setenv("LOCKSTEP_CONTACTS", "many")
	run(t, "demo").want(t, ExitUsage, "LOCKSTEP_CONTACTS", "many")
}

// The flags of connect are the settings that the adapters take, no more and no fewer.
func TestConnectFlagsAreTheAdaptersSettings(t *testing.T) {
	a, err := app.Open(t.Context(), app.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeApp(a); err != nil {
			t.Error(err)
		}
	})
	for _, kind := range a.Adapters().Kinds() {
		at := slices.IndexFunc(connectKinds, func(k connectKind) bool { return k.adapter == kind.Name })
		if at < 0 {
			t.Errorf("%s has no command", kind.Name)
			continue
		}
		var want, got []string
		for _, o := range kind.Options {
			want = append(want, o.Name)
		}
		for _, f := range connectKinds[at].flags {
			got = append(got, f.setting)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: flags for %v, the adapter takes %v", kind.Name, got, want)
		}
		for _, o := range kind.Options {
			for _, f := range connectKinds[at].flags {
				if f.setting == o.Name && (o.Type == "secret") != (f.secret != "") {
					t.Errorf("%s: --%s and the setting disagree about being secret", kind.Name, f.flag)
				}
			}
		}
	}
}
