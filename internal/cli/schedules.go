package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

func (env *environment) schedules() *cobra.Command {
	var t target
	var account string
	c := &cobra.Command{
		Use:   "schedules",
		Short: "Show when each sync type runs by itself; change that",
		Example: `  lockstep schedules --data /var/lib/lockstep
  lockstep schedules set suppressions --interval 5m --ready-file ready.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return group(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return env.showSchedules(c.Context(), t, account) },
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; all when left out")
	c.AddCommand(env.schedulesSet(), env.schedulesNext())
	return c
}

func (env *environment) showSchedules(ctx context.Context, t target, account string) (err error) {
	c, done, err := env.dial(ctx, t, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	q := url.Values{}
	if account != "" {
		q.Set("account", account)
	}
	var answer struct {
		Items []lockstep.SyncSchedule `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, "/schedules", q, nil, &answer); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(answer)
	}
	names, err := c.accountNames(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.std.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ACCOUNT\tTYPE\tINTERVAL\tWINDOW\tLAST\tNEXT\tSTATE")
	for i := range answer.Items {
		s := &answer.Items[i]
		next, state := moment(s.Next), string(s.State)
		if s.Waits != "" {
			next = "-"
			if s.State == lockstep.SyncNone {
				state = "waits: " + s.Waits
			}
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", names[s.Account], s.Type, s.Interval, windowText(&s.Schedule), moment(s.Last), next, state)
	}
	return w.Flush()
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(timeFormat)
}

// windowText is a schedule's windows, or its time of day, as --window takes them.
func windowText(s *lockstep.Schedule) string {
	var parts []string
	for _, w := range s.Windows {
		var days []string
		for _, d := range w.Days {
			days = append(days, d.String())
		}
		text := w.From.String() + "-" + w.To.String()
		if len(days) > 0 {
			text = strings.Join(days, ",") + " " + text
		}
		if w.Zone != "" {
			text += " " + w.Zone
		}
		parts = append(parts, text)
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case s.Interval == lockstep.Daily || s.Interval == lockstep.Weekly:
		return strings.TrimSpace("at " + s.At.String() + " " + s.Zone)
	}
	return "any"
}

// planFlags are the flags that say a schedule.
type planFlags struct {
	interval, at, zone string
	windows            []string
}

func (p *planFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&p.interval, "interval", "", "manual, continuous, 5m, 10m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, daily or weekly")
	c.Flags().StringArrayVar(&p.windows, "window", nil, "when a run may begin: `\"[DAYS] FROM-TO [ZONE]\"`; can be repeated; at any time when left out")
	c.Flags().StringVar(&p.at, "at", "", "time of day of daily and weekly runs without a window, such as 02:00")
	c.Flags().StringVar(&p.zone, "zone", "", "time zone of --at, such as Europe/London; UTC when left out")
}

// body is the schedule as the API takes it.
func (p *planFlags) body() (map[string]any, error) {
	if p.interval == "" {
		return nil, usage("give --interval, such as --interval 4h", "how often?")
	}
	body := map[string]any{"interval": p.interval}
	if p.at != "" {
		body["at"] = p.at
	}
	if p.zone != "" {
		body["zone"] = p.zone
	}
	var windows []map[string]any
	for _, text := range p.windows {
		w, err := readWindow(text)
		if err != nil {
			return nil, err
		}
		windows = append(windows, w)
	}
	if windows != nil {
		body["windows"] = windows
	}
	return body, nil
}

var dayNames = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// readWindow reads "mon-fri 18:00-08:00 Europe/London"; what the parts mean is checked
// by who computes the times.
func readWindow(text string) (map[string]any, error) {
	wrong := func() error {
		return usage(`write days, times and zone, such as "mon-fri 18:00-08:00 Europe/London" or "18:00-08:00"`, "%q is not a window", text)
	}
	w := map[string]any{}
	for i, part := range strings.Fields(text) {
		from, to, isRange := strings.Cut(part, "-")
		switch {
		case isRange && strings.Contains(from, ":") && w["from"] == nil:
			w["from"], w["to"] = from, to
		case i == 0:
			var days []string
			for d := range strings.SplitSeq(strings.ToLower(part), ",") {
				from, to, isRange := strings.Cut(d, "-")
				if !isRange {
					to = from
				}
				a, b := slices.Index(dayNames, from), slices.Index(dayNames, to)
				if a < 0 || b < 0 {
					return nil, wrong()
				}
				for n := 0; n <= (b-a+7)%7; n++ {
					days = append(days, dayNames[(a+n)%7])
				}
			}
			w["days"] = days
		case w["from"] != nil && w["zone"] == nil:
			w["zone"] = part
		default:
			return nil, wrong()
		}
	}
	if w["from"] == nil {
		return nil, wrong()
	}
	return w, nil
}

func (env *environment) schedulesSet() *cobra.Command {
	var t target
	var p planFlags
	var account string
	c := &cobra.Command{
		Use:   "set TYPE",
		Short: "Change when a sync type runs by itself",
		Long: `Changes when a sync type of an email account runs by itself. A run begins when the
interval is over and a window is open, else when one opens next. A window whose end is
not after its beginning goes on past midnight and belongs to the day on which it opens.`,
		Example: `  lockstep schedules set marketing-lists --interval continuous --data /var/lib/lockstep
  lockstep schedules set marketing-lists --interval 4h --window "mon-fri 18:00-08:00 Europe/London" --ready-file ready.json
  lockstep schedules set crm-metadata --interval daily --at 02:00 --ready-file ready.json`,
		Args: arguments("a sync type"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if !slices.Contains(lockstep.SyncTypes, lockstep.SyncType(args[0])) {
				return usage("use "+typeNames(), "%q is not a sync type of this version", args[0])
			}
			body, err := p.body()
			if err != nil {
				return err
			}
			body["type"] = args[0]
			if account != "" {
				body["account"] = account
			}
			api, done, err := env.dial(c.Context(), t, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			var saved json.RawMessage
			if err := api.call(c.Context(), http.MethodPut, "/schedules", nil, body, &saved); err != nil {
				return err
			}
			if env.json {
				return env.printJSON(saved)
			}
			var s lockstep.SyncSchedule
			if err := json.Unmarshal(saved, &s); err != nil {
				return err
			}
			env.printf("%s: %s, %s; next %s\n", s.Type, s.Interval, windowText(&s.Schedule), moment(s.Next))
			if s.Waits != "" {
				env.printf("Nothing begins yet: %s.\n", s.Waits)
			}
			return nil
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	p.register(c)
	c.Flags().StringVar(&account, "account", "", "name or id of the email account; may be left out when there is only one")
	return c
}

func (env *environment) schedulesNext() *cobra.Command {
	var t target
	var p planFlags
	var from string
	var count int
	c := &cobra.Command{
		Use:   "next",
		Short: "Compute the coming run times of a schedule",
		Example: `  lockstep schedules next --interval 4h --window "mon-fri 18:00-08:00" --count 9 --data /var/lib/lockstep
  lockstep schedules next --interval daily --at 02:30 --zone Europe/London --from 2027-03-27T00:00:00Z --json --ready-file ready.json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			body, err := p.body()
			if err != nil {
				return err
			}
			if from != "" {
				at, err := time.Parse(time.RFC3339, from)
				if err != nil {
					return usage("write it as 2027-03-27T00:00:00Z", "--from %q is not a time", from)
				}
				body["from"] = at
			}
			body["count"] = count
			api, done, err := env.dial(c.Context(), t, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			var answer struct {
				Times []time.Time `json:"times"`
			}
			if err := api.call(c.Context(), http.MethodPost, "/schedules/next", nil, body, &answer); err != nil {
				return err
			}
			if env.json {
				return env.printJSON(answer)
			}
			for _, at := range answer.Times {
				env.printf("%s\n", at.UTC().Format("Mon "+timeFormat))
			}
			return nil
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	p.register(c)
	c.Flags().StringVar(&from, "from", "", "when the last run began, as 2027-03-27T00:00:00Z; now when left out")
	c.Flags().IntVar(&count, "count", 10, "how many times to compute")
	return c
}
