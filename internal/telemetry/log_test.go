package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
)

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	shown := &Traces{}
	for name, c := range map[string]struct {
		traces *Traces
		write  func(*slog.Logger)
		run    any
		traced bool
	}{
		"by the context": {shown, func(l *slog.Logger) { l.InfoContext(WithRun(t.Context(), "r1"), "call") }, "r1", true},
		"by an attribute": {shown, func(l *slog.Logger) {
			l.InfoContext(WithRun(t.Context(), "r1"), "taking over", "process", "p", "run", "r2")
		}, "r2", true},
		"by its logger": {shown, func(l *slog.Logger) { l.With("run", "r3", "n", 1).With("m", 2).Info("x") }, "r3", true},
		"about no run":  {shown, func(l *slog.Logger) { l.Info("x", "n", 1) }, nil, false},
		"not traced":    {nil, func(l *slog.Logger) { l.InfoContext(WithRun(t.Context(), "r1"), "call") }, "r1", false},
	} {
		t.Run(name, func(t *testing.T) {
			out.Reset()
			c.write(Logger(slog.New(slog.NewJSONHandler(&out, nil)), c.traces))
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			var want any
			if c.traced {
				want = c.traces.ID(c.run.(string))
			}
			if got["run"] != c.run || got["trace_id"] != want {
				t.Errorf("%s: want run %v, trace %v", out.String(), c.run, want)
			}
			if n := bytes.Count(out.Bytes(), []byte(`"run"`)); c.run != nil && n != 1 {
				t.Errorf("the run is named %d times: %s", n, out.String())
			}
		})
	}
}

func TestRunsHaveTracesOfTheirOwn(t *testing.T) {
	traces := &Traces{}
	a, b := traces.ID("a"), traces.ID("b")
	if a == b || a != (&Traces{}).ID("a") || len(a) != 32 {
		t.Errorf("%s %s", a, b)
	}
	var none *Traces
	if none.ID("a") != "" || none.Close(t.Context()) != nil {
		t.Error("no traces have an id")
	}
}
