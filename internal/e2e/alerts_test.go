package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// reading is one line of a scrape.
type reading struct {
	labels map[string]string
	value  float64
}

// scrape is what an instance said at a time, by the names of the series.
type scrape struct {
	at     time.Time
	series map[string][]reading
}

// prometheus scrapes the product and evaluates the alert rules of deploy/, as far as they
// use it: comparisons of series, of series times a number and of max and sum by labels, over
// increase where one is needed, joined by "and". Everything else fails the test. increase
// does not extrapolate, so that it says less than the real one and never more.
type prometheus struct {
	t       *testing.T
	url     string
	now     func() time.Time
	history []scrape
	rules   map[string]alertRule
	since   map[string]time.Time // when the expression of a rule began to be true
}

type alertRule struct {
	Alert string        `yaml:"alert"`
	Expr  string        `yaml:"expr"`
	For   time.Duration `yaml:"for"`
}

func alertRules(t *testing.T) map[string]alertRule {
	t.Helper()
	text, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alertRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	out := map[string]alertRule{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			out[r.Alert] = r
		}
	}
	return out
}

// look scrapes and evaluates once.
func (p *prometheus) look() {
	p.t.Helper()
	s := scrape{at: p.now(), series: map[string][]reading{}}
	up := 0.0
	if resp, err := http.Get(p.url); err == nil {
		if resp.StatusCode == http.StatusOK {
			up = 1
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				p.line(s.series, lines.Text())
			}
		}
		_ = resp.Body.Close()
	}
	s.series["up"] = []reading{{map[string]string{"job": "lockstep"}, up}}
	p.history = append(p.history, s)
	for name, r := range p.rules {
		switch holds := len(p.eval(r.Expr)) > 0; {
		case !holds:
			delete(p.since, name)
		case p.since[name].IsZero():
			p.since[name] = s.at
		}
	}
}

func (p *prometheus) line(into map[string][]reading, line string) {
	p.t.Helper()
	if line == "" || line[0] == '#' {
		return
	}
	series, number, _ := strings.Cut(line, " ")
	if i := strings.LastIndex(line, "} "); i >= 0 {
		series, number = line[:i+1], line[i+2:]
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		p.t.Fatalf("metrics: %q", line)
	}
	name, labels := p.selector(series)
	into[name] = append(into[name], reading{labels, v})
}

// selector reads name{label="value",…}.
func (p *prometheus) selector(s string) (name string, labels map[string]string) {
	p.t.Helper()
	name, rest, has := strings.Cut(strings.TrimSpace(s), "{")
	labels = map[string]string{}
	if name == "" || strings.ContainsAny(name, " ()[]<>=*+-/") {
		p.t.Fatalf("%q is no series", s)
	}
	if !has {
		return name, labels
	}
	for pair := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), ",") {
		k, v, ok := strings.Cut(pair, "=")
		text, err := strconv.Unquote(v)
		if !ok || err != nil {
			p.t.Fatalf("%q is no series", s)
		}
		labels[k] = text
	}
	return name, labels
}

func fits(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// eval returns the samples for which an expression holds.
func (p *prometheus) eval(expr string) []reading {
	p.t.Helper()
	var out []reading
	for i, part := range strings.Split(expr, " and ") {
		found := p.compare(part)
		if i == 0 {
			out = found
			continue
		}
		out = slices.DeleteFunc(out, func(s reading) bool {
			return !slices.ContainsFunc(found, func(o reading) bool { return maps.Equal(s.labels, o.labels) })
		})
	}
	return out
}

func (p *prometheus) compare(expr string) []reading {
	p.t.Helper()
	for _, op := range []string{" >= ", " == ", " > "} {
		left, right, ok := strings.Cut(expr, op)
		if !ok {
			continue
		}
		if n, err := strconv.ParseFloat(strings.TrimSpace(right), 64); err == nil {
			return slices.DeleteFunc(p.operand(left), func(s reading) bool { return !holds(s.value, op, n) })
		}
		bound := p.operand(right)
		return slices.DeleteFunc(p.operand(left), func(s reading) bool {
			return !slices.ContainsFunc(bound, func(o reading) bool { return maps.Equal(s.labels, o.labels) && holds(s.value, op, o.value) })
		})
	}
	p.t.Fatalf("%q is no comparison", expr)
	return nil
}

func holds(a float64, op string, b float64) bool {
	switch strings.TrimSpace(op) {
	case ">=":
		return a >= b
	case ">":
		return a > b
	}
	return a == b
}

func (p *prometheus) operand(expr string) []reading {
	p.t.Helper()
	expr = strings.TrimSpace(expr)
	if number, series, ok := strings.Cut(expr, " * "); ok {
		factor, err := strconv.ParseFloat(number, 64)
		if err != nil {
			p.t.Fatalf("%q is no number", number)
		}
		out := p.operand(series)
		for i := range out {
			out[i].value *= factor
		}
		return out
	}
	for _, agg := range []string{"max", "sum"} {
		if rest, ok := strings.CutPrefix(expr, agg+"("); ok {
			return p.aggregate(agg, nil, strings.TrimSuffix(rest, ")"))
		}
		if rest, ok := strings.CutPrefix(expr, agg+" by ("); ok {
			by, inner, _ := strings.Cut(rest, ") (")
			return p.aggregate(agg, strings.Split(by, ", "), strings.TrimSuffix(inner, ")"))
		}
	}
	if rest, ok := strings.CutPrefix(expr, "increase("); ok {
		series, window, _ := strings.Cut(strings.TrimSuffix(rest, "])"), "[")
		d, err := time.ParseDuration(window)
		if err != nil {
			p.t.Fatal(err)
		}
		return p.increase(series, d)
	}
	name, want := p.selector(expr)
	var out []reading
	for _, s := range p.history[len(p.history)-1].series[name] {
		if fits(s.labels, want) {
			out = append(out, s)
		}
	}
	return out
}

func (p *prometheus) aggregate(agg string, by []string, inner string) []reading {
	p.t.Helper()
	groups := map[string]*reading{}
	var keys []string
	for _, s := range p.operand(inner) {
		labels := map[string]string{}
		for _, k := range by {
			labels[k] = s.labels[k]
		}
		key := fmt.Sprint(labels)
		switch g := groups[key]; {
		case g == nil:
			groups[key] = &reading{labels, s.value}
			keys = append(keys, key)
		case agg == "max":
			g.value = max(g.value, s.value)
		default:
			g.value += s.value
		}
	}
	var out []reading
	for _, k := range keys {
		out = append(out, *groups[k])
	}
	return out
}

// increase is by how much counters grew; one that is there for the first time did not.
func (p *prometheus) increase(series string, window time.Duration) []reading {
	p.t.Helper()
	name, want := p.selector(series)
	type grown struct {
		reading
		last float64
		n    int
	}
	by := map[string]*grown{}
	from := p.history[len(p.history)-1].at.Add(-window)
	for _, h := range p.history {
		if !h.at.After(from) {
			continue
		}
		for _, s := range h.series[name] {
			if !fits(s.labels, want) {
				continue
			}
			key := fmt.Sprint(s.labels)
			g := by[key]
			if g == nil {
				g = &grown{reading: reading{labels: s.labels}}
				by[key] = g
			} else if s.value >= g.last {
				g.value += s.value - g.last
			} else {
				g.value += s.value // the process began anew
			}
			g.last = s.value
			g.n++
		}
	}
	var out []reading
	for _, g := range by {
		if g.n > 1 {
			out = append(out, g.reading)
		}
	}
	return out
}

func (p *prometheus) fires(alert string) bool {
	since, active := p.since[alert]
	return active && p.now().Sub(since) >= p.rules[alert].For
}

// alerted is a stage that is watched.
type alerted struct {
	*stage
	*prometheus
	clock *ahead
	t     *testing.T
}

// pass lets time go by, with a look a minute.
func (a *alerted) pass(d time.Duration) {
	a.t.Helper()
	for ; d > 0; d -= time.Minute {
		a.clock.pass(time.Minute)
		a.look()
	}
}

// Each alert is raised by what it is about and cleared when that is over, by what a
// process really tells.
func TestAlerts(t *testing.T) {
	t.Parallel()
	down := map[string]bool{}
	cases := map[string]struct{ raise, clear func(a *alerted) }{
		"LockstepOptOutsNotTold": {func(a *alerted) {
			a.lock()
			a.optOut("ann@stage.example")
			a.run(lockstep.SyncSuppressions)
			a.pass(4 * time.Minute)
		}, func(a *alerted) {
			a.unlock()
			a.run(lockstep.SyncSuppressions)
		}},
		"LockstepConsentWaits": {func(a *alerted) {
			a.reopen(false)
			if _, err := a.app.StartRun(a.t.Context(), app.RunRequest{Account: a.account.ID, Type: lockstep.SyncSuppressions}); err != nil {
				a.t.Fatal(err)
			}
			a.pass(4 * time.Minute)
		}, func(a *alerted) {
			if err := a.app.Start(a.t.Context()); err != nil {
				a.t.Fatal(err)
			}
			a.run(lockstep.SyncSuppressions)
		}},
		"LockstepScheduleOverdue": {func(a *alerted) {
			yes := true
			if _, err := a.app.UpdateAccount(a.t.Context(), a.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
				a.t.Fatal(err)
			}
			if _, err := a.app.SetSchedule(a.t.Context(), a.account.ID, lockstep.SyncMarketingLists, lockstep.Schedule{Interval: "5m"}); err != nil {
				a.t.Fatal(err)
			}
			a.pass(25 * time.Minute)
		}, func(a *alerted) {
			a.cfg.Schedules = true
			a.reopen(true)
			a.until("what is due begins", func() bool { a.look(); return !a.fires("LockstepScheduleOverdue") })
		}},
		"LockstepRunsFail": {func(a *alerted) {
			if err := a.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "status", Args: []byte(`{"code":403}`)}); err != nil {
				a.t.Fatal(err)
			}
			for range 3 {
				if run, _ := a.app.RunToEnd(a.t.Context(), app.RunRequest{Account: a.account.ID, Type: lockstep.SyncMarketingLists}); run.Status != lockstep.RunFailed {
					a.t.Fatalf("the run is %s", run.Status)
				}
				a.pass(5 * time.Minute)
			}
			a.twins.Faults.Clear()
		}, func(a *alerted) { a.pass(31 * time.Minute) }},
		"LockstepAccountLocked": {func(a *alerted) {
			a.lock()
			a.pass(6 * time.Minute)
		}, func(a *alerted) { a.unlock() }},
		"LockstepGuardHolds": {func(a *alerted) {
			l := a.list("Readers", "contact", lockstep.ActionIgnore, "")
			ids := a.crowd(40)
			a.join(l, ids...)
			a.sync()
			a.look()
			for _, id := range ids[:11] {
				a.quit(l, id)
			}
			a.guardedRun(lockstep.SyncMarketingLists)
		}, func(a *alerted) {
			a.approve(lockstep.SyncMarketingLists)
			a.pass(61 * time.Minute)
		}},
		"LockstepOptOutMissed": {func(a *alerted) {
			a.join(a.list("Readers", "contact", lockstep.ActionIgnore, ""), a.cast("contact", "ben@stage.example"))
			a.sync()
			a.run(lockstep.SyncSuppressions)
			a.conceal("contacts.suppressed-since", "/v2/contacts/suppressed-since/2000-01-01", a.optOut)
			a.run(lockstep.SyncSuppressions)
			a.pass(65 * time.Minute)
			a.run(lockstep.SyncSuppressions)
		}, func(a *alerted) { a.pass(61 * time.Minute) }},
		"LockstepBudgetUsedUp": {func(a *alerted) {
			all, err := a.app.Budgets(a.t.Context())
			if err != nil {
				a.t.Fatal(err)
			}
			for _, u := range all {
				if limit := int(u.Hour.Total); u.Kind == "account" {
					if _, err := a.app.SetBudget(a.t.Context(), u.Connection, &limit, nil); err != nil {
						a.t.Fatal(err)
					}
				}
			}
			a.pass(17 * time.Minute)
		}, func(a *alerted) {
			much := 1_000_000
			if _, err := a.app.SetBudget(a.t.Context(), a.account.Name, &much, nil); err != nil {
				a.t.Fatal(err)
			}
		}},
		"LockstepDown": {func(a *alerted) {
			down[a.url] = true
			a.pass(3 * time.Minute)
		}, func(a *alerted) { down[a.url] = false }},
	}
	rules := alertRules(t)
	if got, want := slices.Sorted(maps.Keys(cases)), slices.Sorted(maps.Keys(rules)); !slices.Equal(got, want) {
		t.Fatalf("there are tests of the alerts\n%v, and the alerts\n%v", got, want)
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			clock := &ahead{}
			w := newStageWith(t, app.Config{Now: clock.now})
			var a *alerted
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if down[a.url] {
					http.Error(rw, "", http.StatusServiceUnavailable)
					return
				}
				a.app.Metrics().ServeHTTP(rw, r)
			}))
			t.Cleanup(server.Close)
			a = &alerted{w, &prometheus{t: t, url: server.URL, now: clock.now, rules: rules, since: map[string]time.Time{}}, clock, t}
			w.join(w.list("One", "contact", lockstep.ActionIgnore, ""), w.cast("contact", "ann@stage.example"))
			w.sync()
			a.pass(2 * time.Minute)
			if len(a.since) > 0 {
				t.Fatalf("alerts about nothing: %v", a.since)
			}
			cases[name].raise(a)
			if a.look(); !a.fires(name) {
				t.Fatalf("it is not raised: %s", rules[name].Expr)
			}
			cases[name].clear(a)
			if a.look(); a.fires(name) {
				t.Fatalf("it is not cleared: %s", rules[name].Expr)
			}
		})
	}
}

// reopen ends the product and opens it again, to work or to be asked only.
func (w *stage) reopen(works bool) {
	w.t.Helper()
	if err := w.app.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if works {
		w.open()
		return
	}
	a, err := app.Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.app = a
	w.t.Cleanup(func() { _ = a.Close(context.Background()) })
}
