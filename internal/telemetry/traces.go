// Package telemetry shows runs to those who operate Lockstep: as traces for an
// OpenTelemetry collector, when the environment names one, and as fields of log lines.
//
// A run is one trace, whatever number of slices and processes it takes: the ids of the
// trace and of its topmost span follow from the run's id. Below it are the slices, below
// them the parts of the work, and the calls of both systems. What is shown are texts of
// the program, ids of runs, accounts and lists, names of tables, routes without data and
// numbers; nothing that belongs to a person.
//
// Environment variables, spans and attribute names follow the OpenTelemetry
// specification ("OTLP exporter configuration", "Semantic conventions for HTTP spans").
package telemetry

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/lockstep-sync/lockstep"
)

// Traces hands traces to a collector. A nil *Traces does nothing.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// complaints is how often it is logged that the collector cannot be reached.
const complaints = time.Minute

// Open begins to hand traces to the collector that OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT names, and returns nil when neither is set or
// OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says not to. CodeInvalid: they ask for what
// there is not. A collector that does not answer holds nothing up; what it does not take
// is lost, and logged.
func Open(ctx context.Context, log *slog.Logger) (*Traces, error) {
	if cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) == "" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch kind := os.Getenv("OTEL_TRACES_EXPORTER"); kind {
	case "none":
		return nil, nil
	case "", "otlp":
	default:
		return nil, unsupported("OTEL_TRACES_EXPORTER", kind, "otlp or none")
	}
	if p := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf"); p != "http/protobuf" {
		return nil, unsupported("OTEL_EXPORTER_OTLP_PROTOCOL", p, "http/protobuf")
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "open traces", Msg: "the OpenTelemetry settings cannot be used", Hint: "check the variables that begin with OTEL_", Err: err}
	}
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "lockstep"), attribute.String("service.version", version)),
		resource.WithProcessPID(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "open traces", Msg: "OTEL_RESOURCE_ATTRIBUTES cannot be read", Hint: "write it as name=value,name=value", Err: err}
	}
	var last atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if now := time.Now().UnixNano(); now-last.Load() > int64(complaints) {
			last.Store(now)
			log.Warn("traces could not be handed over and are lost", "err", err)
		}
	}))
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about), sdktrace.WithIDGenerator(ids{}))
	return &Traces{provider: p, tracer: p.Tracer("github.com/lockstep-sync/lockstep")}, nil
}

func unsupported(name, value, known string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "open traces", Field: name, Msg: name + " is " + strconv.Quote(value) + ", which this version cannot do", Hint: "set it to " + known}
}

// Close hands over what is left, for as long as ctx allows.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// ID is the id of a run's trace; "" when there are no traces.
func (t *Traces) ID(run string) string {
	if t == nil {
		return ""
	}
	id, _ := idsOf(run)
	return id.String()
}

// idsOf are the ids of a run's trace and of its topmost span. They are hashed because
// samplers decide by the bits of the trace's id, which are random then.
func idsOf(run string) (t trace.TraceID, s trace.SpanID) {
	sum := sha256.Sum256([]byte("lockstep run " + run))
	copy(t[:], sum[:16])
	copy(s[:], sum[16:])
	return t, s
}

type idsKey struct{}

// ids gives a run's topmost span the ids that follow from the run, and all others ids at
// random.
type ids struct{}

// NewIDs implements sdktrace.IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if run, ok := ctx.Value(idsKey{}).(string); ok {
		return idsOf(run)
	}
	var t trace.TraceID
	_, _ = rand.Read(t[:])
	return t, ids{}.NewSpanID(ctx, t)
}

// NewSpanID implements sdktrace.IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) (s trace.SpanID) {
	for s == (trace.SpanID{}) {
		_, _ = rand.Read(s[:])
	}
	return s
}

// top begins the topmost span of a run. It becomes known by being ended; until then it
// tells whether the run is sampled.
func (t *Traces) top(run *lockstep.Run, begun time.Time) trace.Span {
	_, span := t.tracer.Start(context.WithValue(context.Background(), idsKey{}, run.ID), "run "+string(run.Type),
		trace.WithNewRoot(), trace.WithTimestamp(begun), trace.WithAttributes(who(run)...))
	return span
}

func who(run *lockstep.Run) []attribute.KeyValue {
	all := []attribute.KeyValue{
		attribute.String("lockstep.run", run.ID), attribute.String("lockstep.account", run.Account),
		attribute.String("lockstep.type", string(run.Type)), attribute.String("lockstep.mode", string(run.Mode)),
	}
	if run.List != "" {
		all = append(all, attribute.String("lockstep.list", run.List))
	}
	return all
}

// Slice returns the context in which a slice of a run works, and what says how it ended.
func (t *Traces) Slice(ctx context.Context, run lockstep.Run) (context.Context, func(done bool, err error)) {
	if t == nil {
		return ctx, func(bool, error) {}
	}
	top := t.top(&run, time.Now()).SpanContext()
	if !top.IsSampled() {
		return ctx, func(bool, error) {}
	}
	within, span := t.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, top), "slice", trace.WithAttributes(who(&run)...))
	w := &work{tracer: t.tracer, slice: within, part: within}
	return lockstep.WithTrace(within, w), func(done bool, err error) {
		w.endStep()
		span.SetAttributes(attribute.Bool("lockstep.done", done))
		fail(span, err)
		span.End()
	}
}

// Ended shows a run that has ended.
func (t *Traces) Ended(run lockstep.Run) {
	if t == nil {
		return
	}
	begun := run.Started
	if begun.IsZero() {
		begun = run.Created
	}
	span := t.top(&run, begun)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("lockstep.status", string(run.Status)), attribute.Bool("lockstep.scheduled", run.Scheduled),
		attribute.Int64("lockstep.calls.crm", run.Calls.CRM), attribute.Int64("lockstep.calls.platform", run.Calls.Platform), attribute.Int64("lockstep.calls.polls", run.Calls.Polls))
	span.SetAttributes(counted(run.Counts)...)
	if run.Status == lockstep.RunFailed {
		span.SetStatus(codes.Error, string(cmp.Or(run.Code, lockstep.CodeInternal)))
	}
	span.End(trace.WithTimestamp(run.Ended))
}

// fail marks a span with the kind of an error. Its text is for the log, and for those who
// may see the run.
func fail(span trace.Span, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	span.SetStatus(codes.Error, string(lockstep.CodeOf(err)))
}

// counted are the counts that are not zero, under the names that the API has for them.
func counted(c lockstep.Counts) []attribute.KeyValue {
	text, err := json.Marshal(c)
	all := map[string]int64{}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil
	}
	var out []attribute.KeyValue
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] != 0 {
			out = append(out, attribute.Int64("lockstep.counts."+name, all[name]))
		}
	}
	return out
}
