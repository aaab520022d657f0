package telemetry

import (
	"context"
	"log/slog"
)

// runAttr is the field of log lines about a run.
const runAttr = "run"

type runKey struct{}

// WithRun returns a context whose log lines are about a run.
func WithRun(ctx context.Context, run string) context.Context {
	return context.WithValue(ctx, runKey{}, run)
}

// Logger adds to each line that is written on behalf of a run the run's id, and to each
// line about a run the id of its trace, when t shows traces.
func Logger(log *slog.Logger, t *Traces) *slog.Logger {
	return slog.New(&handler{Handler: log.Handler(), traces: t})
}

type handler struct {
	slog.Handler
	traces *Traces
	run    string // that lines are about, by the attributes of their logger
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	run := h.run
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == runAttr {
			run = a.Value.String()
		}
		return run == ""
	})
	if run == "" {
		if run, _ = ctx.Value(runKey{}).(string); run != "" {
			r = r.Clone()
			r.AddAttrs(slog.String(runAttr, run))
		}
	}
	if id := h.traces.ID(run); run != "" && id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	run := h.run
	for _, a := range attrs {
		if a.Key == runAttr {
			run = a.Value.String()
		}
	}
	return &handler{Handler: h.Handler.WithAttrs(attrs), traces: h.traces, run: run}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), traces: h.traces, run: h.run}
}
