// Package adapter is the register of the systems that Lockstep can be connected
// to. One Kind describes an adapter: the connection form, the command-line flags,
// validation, documentation and the redaction of secrets all derive from it.
package adapter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// OptionType is how an option is entered and checked.
type OptionType string

// The option types.
const (
	Text   OptionType = "text"
	URL    OptionType = "url"
	Choice OptionType = "choice"
	Secret OptionType = "secret"
)

// Option is one setting of an adapter.
type Option struct {
	Name     string // "client_id"
	Title    string // "Client id"
	Help     string
	Type     OptionType
	Required bool
	Default  string
	Choices  []string
	Example  string
}

// Settings are an adapter's option values by name, secrets included. Never log them.
type Settings map[string]string

// LogValue keeps settings out of logs.
func (Settings) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Env is what the surroundings give an adapter; adapters make none of it themselves.
type Env struct {
	Log *slog.Logger
	Now func() time.Time
	// Sleep waits for a time, or until the context ends, whose cause it then
	// returns; nil waits in real time. Tests let the time pass at once.
	Sleep func(context.Context, time.Duration) error
	// Jitter returns a number from 0 to below n, with which waits are spread; nil
	// draws it at random.
	Jitter func(n int64) int64
	// Admit keeps the calls within the connection's budget; see remote.Options.Admit.
	Admit remote.Admitter
	// PageRows is how many rows of a feed to ask for at a time; 0 takes the most that
	// the service gives. For tests.
	PageRows int
	// Transport sends requests; nil means a guarded transport of the adapter's
	// own choosing that refuses internal addresses.
	Transport http.RoundTripper
	// AllowHosts are hosts, "name" or "name:port", that an administrator
	// entered explicitly and that may therefore be internal.
	AllowHosts []string
}

// Kind describes one adapter. Exactly one of OpenCRM and OpenPlatform is set.
type Kind struct {
	Name         string // "dynamics"
	Title        string // "Microsoft Dynamics"
	Options      []Option
	OpenCRM      func(ctx context.Context, s Settings, env Env) (lockstep.CRM, error)
	OpenPlatform func(ctx context.Context, s Settings, env Env) (lockstep.Platform, error)
}

// Set is a register of kinds. It is built once at start and then only read.
type Set struct{ kinds []Kind }

// NewSet returns a register of these kinds.
func NewSet(kinds ...Kind) *Set { return &Set{kinds: kinds} }

// Kinds returns all kinds.
func (s *Set) Kinds() []Kind { return slices.Clone(s.kinds) }

// Kind returns the kind with this name. CodeNotFound names the ones there are.
func (s *Set) Kind(name string) (Kind, error) {
	names := make([]string, 0, len(s.kinds))
	for _, k := range s.kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "adapter", Msg: fmt.Sprintf("there is no adapter %q", name), Hint: "use one of " + strings.Join(names, ", ")}
}

// Validate fills defaults in and reports every wrong setting at once.
func (k Kind) Validate(in Settings) (Settings, error) {
	out := Settings{}
	var problems []error
	bad := func(field, msg, hint string) {
		problems = append(problems, &lockstep.Error{Code: lockstep.CodeInvalid, Field: field, Msg: msg, Hint: hint})
	}
	for name := range in {
		if !slices.ContainsFunc(k.Options, func(o Option) bool { return o.Name == name }) {
			bad(name, fmt.Sprintf("%s has no setting %q", k.Title, name), "")
		}
	}
	for _, o := range k.Options {
		v := strings.TrimSpace(in[o.Name])
		if o.Type == Secret {
			v = in[o.Name]
		}
		if v == "" {
			v = o.Default
		}
		switch {
		case v == "" && o.Required:
			bad(o.Name, o.Title+" is missing", o.Help)
		case v == "":
		case o.Type == URL:
			u, err := url.Parse(v)
			if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
				bad(o.Name, o.Title+" is not a web address", "give it like "+o.Example)
			}
		case o.Type == Choice && !slices.Contains(o.Choices, v):
			bad(o.Name, fmt.Sprintf("%s cannot be %q", o.Title, v), "use one of "+strings.Join(o.Choices, ", "))
		}
		if v != "" {
			out[o.Name] = v
		}
	}
	return out, errors.Join(problems...)
}

// Guard reports every address among the settings that must not be called, by the name
// of its setting. Names are not resolved: the transport checks what they resolve to.
func (k Kind) Guard(s Settings, env Env) error {
	var problems []error
	for _, o := range k.Options {
		if o.Type != URL || s[o.Name] == "" {
			continue
		}
		if err := remote.CheckURL(s[o.Name], env.AllowHosts); err != nil {
			e := *lockstep.AsError(err)
			e.Field = o.Name
			problems = append(problems, &e)
		}
	}
	return errors.Join(problems...)
}

// Split parts settings into what may be shown and what must be sealed.
func (k Kind) Split(s Settings) (open, sealed map[string]string) {
	open, sealed = map[string]string{}, map[string]string{}
	for _, o := range k.Options {
		v, ok := s[o.Name]
		switch {
		case !ok:
		case o.Type == Secret:
			sealed[o.Name] = v
		default:
			open[o.Name] = v
		}
	}
	return open, sealed
}
