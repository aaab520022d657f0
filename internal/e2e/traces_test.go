package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// receiver is a collector of traces that keeps what it is given.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	names []string // of the services
	raw   []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		text, err := io.ReadAll(body)
		var got collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(text, &got)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" || req.Header.Get("Key") != "to the door" {
			t.Errorf("%s %s %v: %v", req.Method, req.URL, req.Header, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw = append(r.raw, text...)
		for _, of := range got.ResourceSpans {
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					r.names = append(r.names, a.Value.GetStringValue())
				}
			}
			for _, s := range of.ScopeSpans {
				r.spans = append(r.spans, s.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=to%20the%20door")
	return r
}

func text(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func whole(s *otlp.Span, key string) int64 {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetIntValue()
		}
	}
	return 0
}

// lines are log lines as JSON, for many goroutines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// A collector is shown each run as one trace, across slices and processes: the parts of
// the work with what they did, and every call; and nothing about people. The log leads
// there.
func TestTraces(t *testing.T) {
	r := newReceiver(t)
	log := &lines{}
	var late atomic.Int64
	var slow atomic.Bool
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	w := newStageWith(t, app.Config{
		Now: now, Ticks: now, ImportRows: 5, Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnStep: func(name string) {
			if name == "await.after" && slow.Load() {
				late.Add(int64(25 * time.Second)) // the slice is over
			}
		},
	})
	l := w.list("Readers of Confidential Things", "contact", lockstep.ActionRemove, "")
	ids := w.crowd(23)
	w.join(l, ids...)
	slow.Store(true)
	first := w.sync()
	slow.Store(false)
	w.quit(l, ids[0])
	w.optOut("p002@stage.example")
	w.editRecord("contact", ids[3], cols{"address1_city": "Linz"})
	second := w.sync()
	heard := w.run(lockstep.SyncSuppressions)
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open() // another process
	third := w.sync()
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.names) == 0 || slices.ContainsFunc(r.names, func(n string) bool { return n != "lockstep" }) {
		t.Errorf("services %v", r.names)
	}
	byID := map[string]*otlp.Span{}
	for _, s := range r.spans {
		byID[string(s.SpanId)] = s
	}
	for i, run := range []lockstep.Run{first, second, heard, third} {
		var top *otlp.Span
		for _, s := range r.spans {
			if s.Name == "run "+string(run.Type) && text(s, "lockstep.run") == run.ID {
				if top != nil {
					t.Errorf("run %d has two topmost spans", i)
				}
				top = s
			}
		}
		if top == nil || len(top.ParentSpanId) != 0 || text(top, "lockstep.account") != run.Account || text(top, "lockstep.status") != string(run.Status) || top.EndTimeUnixNano < top.StartTimeUnixNano {
			t.Fatalf("run %d: the topmost span is %v", i, top)
		}
		parts := map[string]int{}
		var stored, calls int64
		for _, s := range r.spans {
			if !bytes.Equal(s.TraceId, top.TraceId) || s == top {
				continue
			}
			above := s
			for above != nil && above != top {
				above = byID[string(above.ParentSpanId)]
			}
			if above == nil {
				t.Errorf("run %d: %q hangs in the air", i, s.Name)
			}
			switch {
			case s.Kind == otlp.Span_SPAN_KIND_CLIENT:
				calls++
				if !strings.Contains(s.Name, text(s, "url.template")) || whole(s, "http.response.status_code") == 0 && text(s, "error.type") == "" {
					t.Errorf("run %d: the call %v", i, s)
				}
				if s.Name == "dotdigital PUT /contacts/v3/import" && whole(s, "lockstep.records") == 0 {
					t.Errorf("run %d: an import of how many? %v", i, s)
				}
			case s.Name == "slice":
				if !bytes.Equal(s.ParentSpanId, top.SpanId) {
					t.Errorf("run %d: a slice is below %x", i, s.ParentSpanId)
				}
				parts[s.Name]++
			default:
				parts[s.Name]++
				stored += whole(s, "lockstep.counts.contacts_created") + whole(s, "lockstep.counts.contacts_updated") + whole(s, "lockstep.counts.book_adds") + whole(s, "lockstep.counts.book_removals")
			}
		}
		c := run.Counts
		if want := c.ContactsCreated + c.ContactsUpdated + c.BookAdds + c.BookRemovals; stored != want {
			t.Errorf("run %d: the parts %v stored %d, the run %d", i, parts, stored, want)
		}
		if want := run.Calls.CRM + run.Calls.Platform + run.Calls.Polls; calls != want {
			t.Errorf("run %d: %d calls shown, %d made", i, calls, want)
		}
		if i == 0 && parts["slice"] < 2 {
			t.Errorf("the first run was one of some slices, which are shown as %v", parts)
		}
		if i == 1 && parts["removing from …"] == 0 {
			t.Errorf("parts of the second run: %v", parts)
		}
		// The log leads from the run to its trace.
		found := 0
		for line := range strings.Lines(log.text.String()) {
			var says struct {
				Run   string
				Trace string `json:"trace_id"`
				Msg   string
			}
			if err := json.Unmarshal([]byte(line), &says); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if says.Run != run.ID {
				continue
			}
			if found++; says.Trace != hex.EncodeToString(top.TraceId) {
				t.Errorf("%s is of the trace %x", line, top.TraceId)
			}
		}
		if int64(found) < calls {
			t.Errorf("run %d: %d lines of the log name it, it made %d calls", i, found, calls)
		}
	}
	for _, private := range []string{"stage.example", "Linz", "Graz", "Confidential", w.ready.Dataverse.ClientSecret, w.ready.Dotdigital.Password, w.ready.Dotdigital.User, ids[3]} {
		if bytes.Contains(r.raw, []byte(private)) {
			t.Errorf("%q was shown to the collector", private)
		}
	}
}

// Without a collector, or with one that is gone, syncs go on all the same.
func TestTracesWithoutACollector(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, env := range map[string]map[string]string{
		"gone":         {"OTEL_EXPORTER_OTLP_ENDPOINT": gone.URL},
		"unsupported":  {"OTEL_EXPORTER_OTLP_ENDPOINT": gone.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
		"switched off": {"OTEL_EXPORTER_OTLP_ENDPOINT": gone.URL, "OTEL_SDK_DISABLED": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			log := &lines{}
			w := newStageWith(t, app.Config{Log: slog.New(slog.NewTextHandler(log, nil))})
			l := w.list("Readers", "contact", lockstep.ActionIgnore, "")
			w.join(l, w.crowd(3)...)
			if run := w.sync(); run.Counts.BookAdds != 3 {
				t.Errorf("%+v", run.Counts)
			}
			begin := time.Now()
			if err := w.app.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if d := time.Since(begin); d > 20*time.Second {
				t.Errorf("the end took %s", d)
			}
			if said := strings.Contains(log.text.String(), "traces"); said == (name == "switched off") {
				t.Errorf("the log: %s", log.text.String())
			}
		})
	}
}
