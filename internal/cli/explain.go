package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

// explanation is what the API tells of an address.
type explanation struct {
	Email string `json:"email"`
	Links []struct {
		Record  *lockstep.Ref  `json:"record"`
		Contact string         `json:"contact"`
		Speaks  bool           `json:"speaks"`
		Agreed  map[string]any `json:"agreed"`
		Apart   map[string]struct {
			CRM      any `json:"crm"`
			Platform any `json:"platform"`
		} `json:"apart"`
		Memberships []struct {
			Name string `json:"name"`
			Why  string `json:"why"`
			In   bool   `json:"in_address_book"`
		} `json:"memberships"`
	} `json:"links"`
	Consent struct {
		Mailable bool     `json:"mailable"`
		Why      []string `json:"why"`
	} `json:"consent"`
	LastWrites []explainedWrite   `json:"last_writes"`
	Pending    []explainedWrite   `json:"pending"`
	Findings   []lockstep.Finding `json:"findings"`
	Conflicts  []struct {
		ID       string `json:"id"`
		Label    string `json:"label"`
		CRM      any    `json:"crm"`
		Platform any    `json:"platform"`
		Winner   string `json:"winner"`
		Resolved bool   `json:"resolved"`
	} `json:"conflicts"`
	NextRun struct {
		Text string `json:"text"`
	} `json:"next_run"`
}

type explainedWrite struct {
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
	Change change    `json:"change"`
}

func (env *environment) explain() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "explain EMAIL",
		Short: "Say who an address is on each side, where it belongs and why",
		Long: `Says which CRM records and which contact have an address, every membership and why,
whether the person may be mailed, what was last written and what is still to be
written, open conflicts and findings. It asks neither side: it tells what Lockstep
knows since the last sync.`,
		Example: `  lockstep explain ann@example.com --data /var/lib/lockstep
  lockstep explain ann@example.com --json --ready-file ready.json`,
		Args: arguments("an email address"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.showExplanation(c.Context(), t, account, args[0])
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; may be left out when there is only one")
	return c
}

func (env *environment) showExplanation(ctx context.Context, t target, account, email string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	body := map[string]string{"email": email}
	if account != "" {
		body["account"] = account
	}
	var raw json.RawMessage // an address in a URL would end up in logs: it is sent as a body
	if err := c.call(ctx, http.MethodPost, "/records/explain", nil, body, &raw); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(raw)
	}
	var x explanation
	if err := json.Unmarshal(raw, &x); err != nil {
		return err
	}
	env.printExplanation(&x)
	return nil
}

func (env *environment) printExplanation(x *explanation) {
	p := env.printf
	p("%s\n", x.Email)
	if len(x.Links) == 0 {
		p("  Lockstep knows nobody with this address: no record of an activated list has it, and no contact of the email account.\n")
	}
	for _, l := range x.Links {
		who := "no CRM record"
		if l.Record != nil {
			who = l.Record.Path()
		}
		p("\n%s ↔ contact %s", who, cmp.Or(l.Contact, "none"))
		if l.Speaks {
			p("  (its values are the contact's)")
		}
		p("\n")
		for _, label := range slices.Sorted(maps.Keys(l.Agreed)) {
			p("  %-20s %s\n", label, plainValue(l.Agreed[label]))
		}
		for _, label := range slices.Sorted(maps.Keys(l.Apart)) {
			p("  %-20s CRM %s, platform %s  (set apart by an undo)\n", label, plainValue(l.Apart[label].CRM), plainValue(l.Apart[label].Platform))
		}
		for _, m := range l.Memberships {
			in := "not in the address book"
			if m.In {
				in = "in the address book"
			}
			p("  list %s: %s; %s\n", m.Name, in, m.Why)
		}
	}
	mailable := "may not be mailed"
	if x.Consent.Mailable {
		mailable = "may be mailed"
	}
	p("\nConsent   %s: %s\n", mailable, strings.Join(x.Consent.Why, "; "))
	for _, part := range []struct {
		title  string
		writes []explainedWrite
	}{{"Still to be confirmed", x.Pending}, {"Last writes", x.LastWrites}} {
		if len(part.writes) > 0 {
			p("\n%s\n", part.title)
		}
		for _, w := range part.writes {
			p("%s run %s\n", w.At.UTC().Format(timeFormat), w.Run)
			env.showChange(w.Change)
		}
	}
	for _, c := range x.Conflicts {
		state := "held"
		if c.Resolved || c.Winner != "held" {
			state = c.Winner + " stays"
		}
		p("\nConflict  %s: CRM %s, platform %s; %s (%s)\n", c.Label, plainValue(c.CRM), plainValue(c.Platform), state, c.ID)
	}
	for _, f := range x.Findings {
		p("\nFinding   %s: %s\n", f.Code, f.Message)
		if f.Hint != "" {
			p("          → %s\n", f.Hint)
		}
	}
	p("\nNext run  %s\n", x.NextRun.Text)
}
