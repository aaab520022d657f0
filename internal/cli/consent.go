package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep/internal/app"
)

func (env *environment) consent() *cobra.Command {
	c := &cobra.Command{
		Use:   "consent",
		Short: "The ledger of opt-outs and opt-ins",
		Long: `The consent ledger keeps every opt-out and opt-in that Lockstep has seen, with who
said so, when, and which systems were told. It is only ever appended to; a change
made by other hands is found by “lockstep consent verify”.`,
		Example: `  lockstep consent show ada@example.com --data /var/lib/lockstep
  lockstep consent verify --data /var/lib/lockstep`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(env.consentVerify(), env.consentShow(), env.consentErase())
	return c
}

func (env *environment) consentVerify() *cobra.Command {
	var t target
	var head string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that nobody changed the consent ledger",
		Long: `Goes over the whole ledger. When a row was changed, removed, moved or put in, it
names the first one and ends with exit code 1.

Note the head that it prints somewhere else: given back with --head, it also shows
whether the whole ledger was written anew since.`,
		Example: `  lockstep consent verify --data /var/lib/lockstep
  lockstep consent verify --head 4711:9f86d081…0a08 --json --ready-file ready.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error { return env.verifyConsent(c.Context(), t, head) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&head, "head", "", "the head that an earlier verification printed")
	return c
}

func (env *environment) verifyConsent(ctx context.Context, t target, head string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	q := url.Values{}
	if head != "" {
		q.Set("head", head)
	}
	var report app.ConsentReport
	if err := c.call(ctx, http.MethodGet, "/consent/verification", q, nil, &report); err != nil {
		return err
	}
	switch {
	case env.json:
		err = env.printJSON(struct {
			Whole bool `json:"whole"`
			app.ConsentReport
		}{report.Broken == nil, report})
	case report.Broken == nil:
		env.printf("The consent ledger is whole: %d rows, %d of them of erased people.\nHead: %s\n", report.Entries, report.Erased, report.Head)
	default:
		env.printf("The consent ledger is broken. Row %d: %s.\nThe %d rows before it hold. Restore the database from a backup made before the change.\n", report.Broken.Seq, report.Broken.Why, report.Entries)
	}
	if err == nil && report.Broken != nil {
		err = errShown
	}
	return err
}

func (env *environment) consentShow() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:     "show EMAIL",
		Short:   "Why an address may be mailed or not, since when, and who was told",
		Example: `  lockstep consent show ada@example.com --data /var/lib/lockstep`,
		Args:    arguments("an email address"),
		RunE:    func(c *cobra.Command, args []string) error { return env.showConsent(c.Context(), t, args[0]) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	return c
}

func (env *environment) showConsent(ctx context.Context, t target, email string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var raw json.RawMessage
	if err := c.call(ctx, http.MethodPost, "/consent", nil, map[string]string{"email": email}, &raw); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(raw)
	}
	var p app.PersonConsent
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	env.printConsent(&p)
	return nil
}

// words are what the API's words say to people.
var words = map[string]string{
	"nothing_on_record": "nothing is on record", "given": "may be mailed", "unconfirmed": "not confirmed yet", "preference_refused": "one preference refused",
	"list_refused": "one list left", "bulk_email_refused": "no bulk email", "email_refused": "no email", "all_refused": "unsubscribed from everything", "blocked": "blocked",
}

func (env *environment) printConsent(p *app.PersonConsent) {
	if p.Erased {
		env.printf("The person was erased. What is not known any more is left out.\n\n")
	}
	for _, a := range p.Accounts {
		env.printf("%s: %s\n", cmpName(a.Name, a.Account), words[a.Word])
		for _, s := range a.Scopes {
			line := "  " + string(s.Scope)
			if s.Object != "" {
				line += " " + s.Object
			}
			line += ": " + words[s.Word]
			if s.Reason != "" {
				line += " (" + s.Reason + ")"
			}
			if s.OptIn != "" {
				line += " (" + s.OptIn + ")"
			}
			line += ", said in " + string(s.System) + " " + sinceWhen(s.Since, s.Seen)
			if s.Evidence != "" {
				line += "; " + s.Evidence
			}
			if s.Pending {
				line += "; others have still to be told"
			}
			if len(s.Told) > 0 {
				line += "; told: " + strings.Join(slices.Sorted(maps.Keys(s.Told)), ", ")
			}
			if !s.Asked.IsZero() {
				line += "; asked to confirm " + s.Asked.Format(time.RFC3339)
			}
			env.printf("%s\n", line)
		}
	}
	if len(p.Entries) == 0 {
		env.printf("\nThe ledger says nothing of this address.\n")
		return
	}
	env.printf("\n")
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ROW\tWHEN\tWHAT\tSCOPE\tSAID IN\tBY\tEVIDENCE\tTOLD")
	for _, e := range p.Entries {
		what := string(e.Act)
		if e.Reason != "" {
			what += " (" + e.Reason + ")"
		}
		var told []string
		for _, x := range e.Told {
			told = append(told, string(x.System)+" "+x.At.Format(time.RFC3339))
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Seq, sinceWhen(e.At, e.Seen), what, strings.TrimSpace(string(e.Scope)+" "+e.Object), e.System, dash(e.Actor), dash(e.Evidence), dash(strings.Join(told, ", ")))
	}
	_ = w.Flush()
	if p.Cut {
		env.printf("… and more.\n")
	}
}

// sinceWhen is when something happened, or else when it was seen.
func sinceWhen(at, seen time.Time) string {
	if at.IsZero() {
		return "seen " + seen.Format(time.RFC3339)
	}
	return at.Format(time.RFC3339)
}

func cmpName(name, id string) string {
	if name == "" {
		return id
	}
	return name
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (env *environment) consentErase() *cobra.Command {
	var t target
	var yes, force bool
	c := &cobra.Command{
		Use:   "erase EMAIL --yes",
		Short: "Erase the person behind an address from everything that Lockstep keeps",
		Long: `Blanks the person's values wherever Lockstep keeps them. What stays is a salted key
of the address, which closes every account to it, and the rows of the ledger without
the person. It cannot be undone.

Records in Dynamics and contacts on the platform are not touched. Erase the person
there first, or Lockstep reads them again.`,
		Example: `  lockstep consent erase ada@example.com --yes --data /var/lib/lockstep`,
		Args:    arguments("an email address"),
		RunE: func(c *cobra.Command, args []string) error {
			if !yes {
				return usage("give --yes when you are sure", "an erasure cannot be undone")
			}
			return env.eraseConsent(c.Context(), t, args[0], force)
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().BoolVar(&yes, "yes", false, "really erase")
	c.Flags().BoolVar(&force, "force", false, "also while an opt-out has still to be told to another system")
	return c
}

func (env *environment) eraseConsent(ctx context.Context, t target, email string, force bool) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var counts map[string]any
	if err := c.call(ctx, http.MethodPost, "/erasures", nil, map[string]any{"email": email, "force": force}, &counts); err != nil {
		return err
	}
	delete(counts, "$schema")
	if env.json {
		return env.printJSON(counts)
	}
	env.printf("Erased. What was blanked:\n")
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		env.printf("  %s: %v\n", strings.ReplaceAll(name, "_", " "), counts[name])
	}
	return nil
}
