package telemetry

import (
	"context"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/lockstep-sync/lockstep"
)

// work makes spans of what a slice does. It implements lockstep.Trace.
type work struct {
	tracer trace.Tracer
	slice  context.Context

	mu     sync.Mutex
	part   context.Context // of the step, or of the slice before the first one
	step   trace.Span      // nil before the first step
	counts lockstep.Counts // stored within the step
}

// placeholders are what a step's text has in place of what differs from run to run.
var placeholders = strings.NewReplacer("%s", "…", "%d", "…", "%q", "…", "%v", "…")

// Step implements lockstep.Trace.
func (w *work) Step(name, table, list string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	var about []attribute.KeyValue
	if table != "" {
		about = append(about, attribute.String("lockstep.table", table))
	}
	if list != "" {
		about = append(about, attribute.String("lockstep.list", list))
	}
	w.part, w.step = w.tracer.Start(w.slice, placeholders.Replace(name), trace.WithAttributes(about...))
}

// Stored implements lockstep.Trace.
func (w *work) Stored(c lockstep.Counts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Add(c)
}

func (w *work) endStep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	w.part = w.slice
}

func (w *work) end() {
	if w.step != nil {
		w.step.SetAttributes(counted(w.counts)...)
		w.step.End()
		w.step, w.counts = nil, lockstep.Counts{}
	}
}

// Call implements lockstep.Trace.
func (w *work) Call(c lockstep.TracedCall) lockstep.TracedAnswer {
	w.mu.Lock()
	within := w.part
	w.mu.Unlock()
	about := []attribute.KeyValue{
		attribute.String("http.request.method", c.Method), attribute.String("url.template", c.Route), attribute.String("lockstep.system", c.System), attribute.String("lockstep.operation", c.Op),
	}
	if c.Attempt > 1 {
		about = append(about, attribute.Int("http.request.resend_count", c.Attempt-1))
	}
	if c.Bytes > 0 {
		about = append(about, attribute.Int64("http.request.body.size", c.Bytes))
	}
	if c.Rows > 0 {
		about = append(about, attribute.Int("lockstep.records", c.Rows))
	}
	if c.Poll {
		about = append(about, attribute.Bool("lockstep.poll", true))
	}
	_, span := w.tracer.Start(within, c.System+" "+c.Method+" "+c.Route, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(about...))
	return answer{span}
}

type answer struct{ span trace.Span }

// Answered implements lockstep.TracedAnswer.
func (a answer) Answered(status int, code lockstep.Code, requestID string) {
	if requestID != "" {
		a.span.SetAttributes(attribute.String("lockstep.request_id", requestID))
	}
	switch {
	case status == 0:
		a.span.SetAttributes(attribute.String("error.type", string(code)))
		a.span.SetStatus(codes.Error, string(code))
		return
	case status >= 400:
		a.span.SetStatus(codes.Error, "")
	}
	a.span.SetAttributes(attribute.Int("http.response.status_code", status))
}

// End implements lockstep.TracedAnswer.
func (a answer) End(bytes int64) {
	if bytes > 0 {
		a.span.SetAttributes(attribute.Int64("http.response.body.size", bytes))
	}
	a.span.End()
}
