package app

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lockstep-sync/lockstep"
)

// metrics are what this process counts itself. Labels are ids of accounts, sync types
// and names of outcomes: nothing personal, and few.
type metrics struct {
	registry *prometheus.Registry
	runs     *prometheus.CounterVec
	duration *prometheus.HistogramVec
	changes  *prometheus.CounterVec
	calls    *prometheus.CounterVec
	// Calls of webhooks by outcome, and how often syncs were told by organization.
	hookCalls, hurried *prometheus.CounterVec
}

func newMetrics(a *App) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		runs:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_runs_ended_total", Help: "Runs that ended in this process."}, []string{"account", "type", "mode", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockstep_run_duration_seconds", Help: "From the beginning of a run to its end, waits for windows and throttling included.",
			Buckets: []float64{0.25, 1, 5, 15, 60, 300, 900, 3600, 14400},
		}, []string{"type"}),
		changes:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_changes_total", Help: "What runs that ended in this process did, by kind."}, []string{"account", "type", "kind"}),
		calls:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_api_calls_total", Help: "API calls of runs that ended in this process; polls are questions about a job's progress."}, []string{"account", "system"}),
		hookCalls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_webhook_calls_total", Help: "Calls of webhooks to this process, by outcome: accepted, or refused and why."}, []string{"outcome"}),
		hurried:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lockstep_webhook_wakes_total", Help: "Times that this process had the continuous syncs of an organization look at once."}, []string{"organization"}),
	}
	for _, outcome := range []string{HookAccepted, HookUnauthorized, HookUnknown, HookMethod, HookOversized, HookBroken, HookFailed} {
		m.hookCalls.WithLabelValues(outcome) // so that the first one is an increase
	}
	m.registry.MustRegister(m.runs, m.duration, m.changes, m.calls, m.hookCalls, m.hurried, state{a}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ended counts a run that has ended.
func (m *metrics) ended(run *lockstep.Run) {
	t := string(run.Type)
	m.runs.WithLabelValues(run.Account, t, string(run.Mode), string(run.Status)).Inc()
	if !run.Started.IsZero() {
		m.duration.WithLabelValues(t).Observe(run.Ended.Sub(run.Started).Seconds())
	}
	for system, n := range map[string]int64{"crm": run.Calls.CRM, "platform": run.Calls.Platform, "polls": run.Calls.Polls} {
		m.calls.WithLabelValues(run.Account, system).Add(float64(n))
	}
	if run.Mode == lockstep.ModePreview {
		return
	}
	c := &run.Counts
	for kind, n := range map[string]int64{
		"contact_created": c.ContactsCreated, "contact_updated": c.ContactsUpdated, "record_created": c.RecordsCreated, "record_updated": c.RecordsUpdated,
		"book_added": c.BookAdds, "book_removed": c.BookRemovals, "list_added": c.ListAdds, "list_removed": c.ListRemovals,
		"conflict": c.Conflicted, "rejected": c.Rejected, "guarded": c.Guarded, "finding": c.Findings, "opt_out_heard": c.OptOutsSeen, "opt_out_missed": c.OptOutsMissed, "opt_out_told": c.OptOutsTold,
	} {
		if n > 0 {
			m.changes.WithLabelValues(run.Account, t, kind).Add(float64(n))
		}
	}
}

// state tells, when it is asked, how the database stands: the same from every process
// that shares it.
type state struct{ *App }

var (
	queuedDesc  = prometheus.NewDesc("lockstep_runs", "Runs that wait or are worked on.", []string{"type", "status"}, nil)
	queueAge    = prometheus.NewDesc("lockstep_queue_age_seconds", "For how long the oldest queued run of a lane has been waiting; 0 when none is.", []string{"lane"}, nil)
	untold      = prometheus.NewDesc("lockstep_consent_untold", "Opt-outs that somebody has not been told of yet.", []string{"account"}, nil)
	consentLag  = prometheus.NewDesc("lockstep_consent_lag_seconds", "For how long the oldest opt-out has been known that somebody has not been told of; 0 when there is none.", []string{"account"}, nil)
	lastSuccess = prometheus.NewDesc("lockstep_last_success_timestamp_seconds", "When the latest run began that did not fail.", []string{"account", "type"}, nil)
	overdue     = prometheus.NewDesc("lockstep_schedule_overdue_seconds", "For how long a scheduled sync has been due without having begun; 0 when it is not.", []string{"account", "type"}, nil)
	callsHour   = prometheus.NewDesc("lockstep_api_calls_last_hour", "Calls to an organization or email account in the last hour, polls apart.", []string{"connection"}, nil)
	budgetHour  = prometheus.NewDesc("lockstep_api_budget_per_hour", "How many calls an hour may be made to it, of which syncs use up to four fifths; 0 = any number.", []string{"connection"}, nil)
	lockedDesc  = prometheus.NewDesc("lockstep_account_locked", "1 while an account must not be written to.", []string{"account"}, nil)
)

// Describe names what is told.
func (state) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queuedDesc, queueAge, untold, consentLag, lastSuccess, overdue, lockedDesc, callsHour, budgetHour} {
		c <- d
	}
}

// Collect tells how things stand.
func (a state) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.collect(ctx, func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}); err != nil {
		c <- prometheus.NewInvalidMetric(queuedDesc, err)
	}
}

func (a state) collect(ctx context.Context, gauge func(d *prometheus.Desc, v float64, labels ...string)) error {
	f, err := a.store.Figures(ctx)
	if err != nil {
		return err
	}
	accounts, err := a.store.Accounts(ctx, "")
	if err != nil {
		return err
	}
	schedules, err := a.store.Schedules(ctx, "")
	if err != nil {
		return err
	}
	budgets, err := a.countedCalls(ctx)
	if err != nil {
		return err
	}
	for i := range budgets {
		u := &budgets[i]
		gauge(callsHour, float64(u.Hour.Total), u.Connection)
		gauge(budgetHour, float64(cmp.Or(u.PerHour, u.Granted)), u.Connection)
	}
	now := a.now()
	age := map[string]float64{"consent": 0, "runs": 0}
	for _, q := range f.Waiting {
		gauge(queuedDesc, float64(q.Count), string(q.Type), "queued")
		lane := "runs"
		if q.Type.Consent() {
			lane = "consent"
		}
		age[lane] = max(age[lane], now.Sub(q.Oldest).Seconds())
	}
	for lane, seconds := range age {
		gauge(queueAge, seconds, lane)
	}
	for _, q := range f.Working {
		gauge(queuedDesc, float64(q.Count), string(q.Type), "in_process")
	}
	for _, e := range f.Ended {
		gauge(lastSuccess, float64(e.Started.UnixMilli())/1000, e.Account, string(e.Type))
	}
	for _, acc := range accounts {
		count, lag, locked := 0.0, 0.0, 0.0
		for _, u := range f.Untold {
			if u.Account == acc.ID {
				count = float64(u.Count)
				if !u.Oldest.IsZero() {
					lag = max(0, now.Sub(u.Oldest).Seconds())
				}
			}
		}
		if acc.Locked != "" {
			locked = 1
		}
		gauge(untold, count, acc.ID)
		gauge(consentLag, lag, acc.ID)
		gauge(lockedDesc, locked, acc.ID)
		for i := range schedules {
			sc := &schedules[i]
			if sc.Account != acc.ID || waits(acc, sc, schedules) != "" || sc.Next.IsZero() || sc.Run != "" {
				continue
			}
			gauge(overdue, max(0, now.Sub(sc.Next).Seconds()), acc.ID, string(sc.Type))
		}
	}
	return nil
}

// begin shows what alerts count of an account from zero on: of a counter that appears with
// its first event nobody can tell that it grew.
func (m *metrics) begin(account string) {
	for _, t := range lockstep.SyncTypes {
		m.runs.WithLabelValues(account, string(t), string(lockstep.ModeApply), string(lockstep.RunFailed))
		m.changes.WithLabelValues(account, string(t), "guarded")
		if t.Consent() {
			m.changes.WithLabelValues(account, string(t), "opt_out_missed")
		}
	}
}

// Metrics answers with everything that is counted, in the text format of Prometheus.
func (a *App) Metrics() http.Handler {
	all := promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if accounts, err := a.store.Accounts(r.Context(), ""); err == nil { // else the state below tells of it
			for i := range accounts {
				a.metrics.begin(accounts[i].ID)
			}
		}
		all.ServeHTTP(w, r)
	})
}
