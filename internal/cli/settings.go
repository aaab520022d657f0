package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settingsFile is the configuration file. Its names are those of the flags; a
// command takes from it what it knows and leaves the rest to others.
type settingsFile struct {
	Account     *string  `yaml:"account"`
	AllowHost   []string `yaml:"allow-host"`
	Data        *string  `yaml:"data"`
	DatabaseURL *string  `yaml:"database-url"`
	Listen      *string  `yaml:"listen"`
	LogFormat   *string  `yaml:"log-format"`
	LogLevel    *string  `yaml:"log-level"`
	ReadyFile   *string  `yaml:"ready-file"`
	Server      *string  `yaml:"server"`
	TokenFile   *string  `yaml:"token-file"`
	Twins       *string  `yaml:"twins"`
}

func (s settingsFile) values() map[string][]string {
	out := map[string][]string{}
	for name, v := range map[string]*string{
		"account": s.Account, "data": s.Data, "database-url": s.DatabaseURL, "listen": s.Listen, "log-format": s.LogFormat,
		"log-level": s.LogLevel, "ready-file": s.ReadyFile, "server": s.Server, "token-file": s.TokenFile, "twins": s.Twins,
	} {
		if v != nil {
			out[name] = []string{*v}
		}
	}
	if s.AllowHost != nil {
		out["allow-host"] = s.AllowHost
	}
	return out
}

// maxSettings bounds the configuration file and files with secrets.
const maxSettings = 1 << 20

// envName is the variable that stands for a flag.
func envName(flag string) string {
	return "LOCKSTEP_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fill sets the flags that the command line left out: from the environment, then
// from the configuration file.
func fill(c *cobra.Command) error {
	var problems []error
	set := func(f *pflag.Flag, source string, values ...string) {
		for _, v := range values {
			if err := c.Flags().Set(f.Name, v); err != nil {
				problems = append(problems, usage("", "%s: %s cannot be %q", source, f.Name, v))
			}
		}
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if v, ok := os.LookupEnv(envName(f.Name)); ok && !f.Changed && f.Name != "help" {
			set(f, envName(f.Name), v)
		}
	})
	path, _ := c.Flags().GetString("config")
	if path == "" || len(problems) > 0 {
		return errors.Join(problems...)
	}
	text, err := readSmall(path)
	if err != nil {
		return usage("give the path of a YAML file", "the configuration file cannot be read: %s", err)
	}
	var file settingsFile
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return usage("", "%s:\n%s", path, strings.TrimRight(yaml.FormatError(err, false, true), "\n"))
	}
	values := file.values()
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if v, ok := values[f.Name]; ok && !f.Changed {
			set(f, path, v...)
		}
	})
	return errors.Join(problems...)
}

// readSmall reads a file that a person wrote.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(b) > maxSettings {
		err = fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return b, err
}

// secret returns a secret from the file that a flag names ("-" is standard input),
// or else from the environment. Secrets have no flag of their own: other users of
// the machine can read a process's command line.
func (env *environment) secret(file, variable string) (string, error) {
	var b []byte
	var err error
	switch file {
	case "":
		return os.Getenv(variable), nil
	case "-":
		b, err = io.ReadAll(io.LimitReader(env.std.In, maxSettings))
	default:
		b, err = readSmall(file)
	}
	if err != nil {
		return "", usage("", "the file with the secret cannot be read: %s", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", usage("", "the file with the secret is empty: %s", file)
	}
	return s, nil
}
