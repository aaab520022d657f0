// Package cli is the command line. Each command is one file; this one holds what
// they share: the root command, exit codes, and how errors and results are printed.
//
// Results go to standard output and everything else, progress and logs, to
// standard error. With --json standard output holds exactly one JSON object.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lockstep-sync/lockstep"
)

// The exit codes.
const (
	ExitDone     = 0
	ExitFailed   = 1
	ExitUsage    = 2 // the command line or the configuration is wrong; nothing was done
	ExitFindings = 3 // done, but some records were refused; the findings say which
	ExitGuarded  = 7 // a guard stopped it, or the account is locked: a person has to look
)

// Streams are a process's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// errFindings ends a command that did its work and has findings to show.
var errFindings = errors.New("done with findings")

// errShown ends a command that failed and has said why.
var errShown = errors.New("failed")

// usageError is a wrong command line.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

func usage(hint, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), hint: hint}
}

// Main carries out one command line and returns the exit code. When ctx ends, the
// command ends in an orderly way.
func Main(ctx context.Context, std Streams, args []string) int {
	env := &environment{std: std}
	root := env.root()
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	err := root.ExecuteContext(ctx)
	var wrong *usageError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, errFindings):
		return ExitFindings
	case errors.Is(err, errShown):
		return ExitFailed
	case errors.As(err, &wrong):
		env.showError(wrong.msg, wrong.hint, "usage")
		return ExitUsage
	}
	if ctx.Err() != nil && lockstep.CodeOf(err) == lockstep.CodeInternal {
		err = &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "stopped"}
	}
	msg, hint := message(err)
	env.showError(msg, hint, string(lockstep.CodeOf(err)))
	if lockstep.CodeOf(err) == lockstep.CodeGuarded {
		return ExitGuarded
	}
	return ExitFailed
}

// environment is what the commands of one invocation share.
type environment struct {
	std       Streams
	config    string // path of the configuration file
	logLevel  string
	logFormat string
	json      bool // the command prints one JSON object
	log       *slog.Logger
}

func (env *environment) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lockstep",
		Short: "Keeps Microsoft Dynamics and an email marketing platform in step",
		Long: `Lockstep keeps Microsoft Dynamics and an email marketing platform in step.

Settings come from flags, then from the environment (LOCKSTEP_ and the flag's
name in capitals: LOCKSTEP_DATA, LOCKSTEP_LOG_LEVEL), then from the file that
--config names. Secrets come from files or the environment only.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with findings to look at;
7 stopped by a guard or a lock until a person has looked.`,
		Example: `  lockstep demo
  lockstep serve --listen 127.0.0.1:8080 --data /var/lib/lockstep
  lockstep sync preview --type marketing-lists --list "Company newsletter"`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE:              group,
		PersistentPreRunE: env.prepare,
	}
	f := root.PersistentFlags()
	f.StringVar(&env.config, "config", "", "YAML `FILE` with settings that neither a flag nor the environment gives")
	f.StringVar(&env.logLevel, "log-level", "warn", "what is logged to standard error: debug, info, warn or error")
	f.StringVar(&env.logFormat, "log-format", "text", "how it is logged: text or json")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("see "+c.CommandPath()+" --help", "%s", err)
	})
	root.AddCommand(env.demo(), env.twin(), env.serve(), env.worker(), env.sync(), env.runs(), env.findings(), env.undo(), env.explain(), env.lists(), env.schedules(), env.budget(), env.connect(), env.dynamics(), env.consent(), env.suppressions(), env.accounts(), env.rearm(), env.backup(), env.restore(), env.settings(), env.configuration(), env.version())
	return root
}

// group is what a command that only holds others does by itself.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		if c.HasParent() {
			return usage("see "+c.CommandPath()+" --help", "%s needs a command after it", c.CommandPath())
		}
		return c.Help()
	}
	hint := "see " + c.CommandPath() + " --help"
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(hint, "%s has no command %q in this version", c.CommandPath(), args[0])
}

// arguments demands exactly these positional arguments.
func arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("see "+c.CommandPath()+" --help", "%s needs %s", c.CommandPath(), names[len(args)])
		case len(args) > len(names):
			return usage("see "+c.CommandPath()+" --help", "%s does not take %q", c.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// prepare fills in settings and opens the log before a command runs.
func (env *environment) prepare(c *cobra.Command, _ []string) error {
	if err := fill(c); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(env.logLevel)); err != nil {
		return usage("use debug, info, warn or error", "%q is not a log level", env.logLevel)
	}
	opt := &slog.HandlerOptions{Level: level}
	switch env.logFormat {
	case "text":
		env.log = slog.New(slog.NewTextHandler(env.std.Err, opt))
	case "json":
		env.log = slog.New(slog.NewJSONHandler(env.std.Err, opt))
	default:
		return usage("use text or json", "%q is not a log format", env.logFormat)
	}
	return nil
}

// jsonFlag adds --json.
func (env *environment) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&env.json, "json", false, "print one JSON object and nothing else on standard output")
}

// printJSON prints a command's one JSON object.
func (env *environment) printJSON(v any) error {
	enc := json.NewEncoder(env.std.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printf prints a result for people.
func (env *environment) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(env.std.Out, format, args...)
}

// notef says something beside the result.
func (env *environment) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(env.std.Err, format, args...)
}

// message returns what an error says to a person. Several errors at once, such as
// all wrong settings of a connection, are one message of several lines.
func message(err error) (msg, hint string) {
	if many, ok := err.(interface{ Unwrap() []error }); ok { // one level at a time
		all := many.Unwrap()
		if len(all) == 1 {
			return message(all[0])
		}
		var lines []string
		for _, e := range all {
			m, h := message(e)
			if h != "" {
				m += " (" + h + ")"
			}
			lines = append(lines, m)
		}
		return strings.Join(lines, "\n          "), ""
	}
	var e *lockstep.Error
	if !errors.As(err, &e) {
		return err.Error(), ""
	}
	plain := *e
	plain.Hint = ""
	// What the callers have put before it belongs to the message.
	before, ok := strings.CutSuffix(err.Error(), e.Error())
	if !ok {
		before = ""
	}
	return before + plain.Error(), e.Hint
}

func (env *environment) showError(msg, hint, code string) {
	env.notef("lockstep: %s\n", msg)
	if hint != "" {
		env.notef("          → %s\n", hint)
	}
	if env.json {
		_ = env.printJSON(map[string]any{"error": map[string]string{"code": code, "message": msg, "hint": hint}})
	}
}

// isTerminal reports whether w is a terminal that can repaint a line.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}
