package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (env *environment) version() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  lockstep version",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if env.json {
				return env.printJSON(v)
			}
			env.printf("lockstep %s (%s, %s)\n", v.Version, v.Revision, v.Go)
			return nil
		},
	}
	env.jsonFlag(c)
	return c
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	System   string `json:"system"`
}

// buildVersion is what the Go toolchain stamped into the binary.
func buildVersion() versionInfo {
	v := versionInfo{Version: "devel", Revision: "unknown", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			v.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			v.Revision += " with changes"
		}
	}
	return v
}
