package fault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

func TestAddNamesTheWrongField(t *testing.T) {
	for _, tc := range []struct {
		fault Fault
		want  string // part of the message; empty means accepted
	}{
		{Fault{Kind: Refuse}, ""},
		{Fault{Kind: "row-poison", Args: json.RawMessage(`{"id":"x"}`)}, ""},
		{Fault{Kind: LateApply, Args: json.RawMessage(`{"code":504,"delay":"2s","clock":"twin"}`)}, ""},
		{Fault{Kind: RetryAfter, Args: json.RawMessage(`{"value":null}`)}, ""},
		{Fault{Kind: Truncate, Args: json.RawMessage(`null`)}, ""},
		{Fault{}, "kind is missing"},
		{Fault{Kind: "earthquake"}, `kind "earthquake" is unknown`},
		{Fault{Kind: Hang, Twin: "mainframe"}, `twin "mainframe" is unknown`},
		{Fault{Kind: "delta-expired", Twin: Dotdigital}, "only on dataverse"},
		{Fault{Kind: Hang, Rate: 1.5}, "rate is 1.5"},
		{Fault{Kind: Hang, Rate: -0.1}, "rate is -0.1"},
		{Fault{Kind: Hang, Every: -1}, "every is -1"},
		{Fault{Kind: Hang, After: -1}, "after is -1"},
		{Fault{Kind: Hang, Count: -1}, "count is -1"},
		{Fault{Kind: "throttle", Args: json.RawMessage(`[1]`)}, "args is not a JSON object"},
		{Fault{Kind: Refuse, Args: json.RawMessage(`{"a":1}`)}, `unknown field "a"`},
		{Fault{Kind: Status}, "args.code"},
		{Fault{Kind: Status, Args: json.RawMessage(`{"code":"503"}`)}, "args.code cannot be a string"},
		{Fault{Kind: Status, Args: json.RawMessage(`{"code":503,"body":"pdf"}`)}, "args.body"},
		{Fault{Kind: Status, Args: json.RawMessage(`{"code":503,"headers":{"A":"b\nc"}}`)}, "args.headers"},
		{Fault{Kind: LateApply, Args: json.RawMessage(`{"code":200}`)}, "args.code is 200"},
		{Fault{Kind: LateApply, Args: json.RawMessage(`{"delay":"soon"}`)}, "is not a duration"},
		{Fault{Kind: LateApply, Args: json.RawMessage(`{"delay":"-1s"}`)}, "args.delay"},
		{Fault{Kind: LateApply, Args: json.RawMessage(`{"clock":"sun"}`)}, "args.clock"},
		{Fault{Kind: Hang, Args: json.RawMessage(`{"for":"-1s"}`)}, "args.for"},
		{Fault{Kind: SlowBody, Args: json.RawMessage(`{"bytes_per_second":0}`)}, "args.bytes_per_second"},
		{Fault{Kind: Truncate, Args: json.RawMessage(`{"at":-1}`)}, "args.at"},
		{Fault{Kind: Garbage, Args: json.RawMessage(`{"variant":"xml"}`)}, "args.variant"},
		{Fault{Kind: RetryAfter, Args: json.RawMessage(`{"code":500}`)}, "args.code is 500"},
		{Fault{Kind: RetryAfter, Args: json.RawMessage(`{"value":"a\r\nb"}`)}, "args.value"},
		{Fault{Kind: ClockSkew}, "args.skew"},
		{Fault{Kind: Huge, Args: json.RawMessage(`{"bytes":0}`)}, "args.bytes"},
		{Fault{Kind: Huge, Args: json.RawMessage(`{"bytes":1} {}`)}, "follows the object"},
	} {
		err := New(1, clock.New()).Add(tc.fault)
		if tc.want == "" && err != nil {
			t.Errorf("%s %s: %v", tc.fault.Kind, tc.fault.Args, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s %s: got %v, want %q", tc.fault.Kind, tc.fault.Args, err, tc.want)
		}
	}
}

func TestRulesCountCalls(t *testing.T) {
	hits := func(f Fault, calls int) string {
		f.Kind = "throttle"
		s := New(7, clock.New())
		if err := s.Add(f); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for range calls {
			if _, ok := s.Take(Dataverse, "throttle", "contact.read"); ok {
				b.WriteByte('x')
			} else {
				b.WriteByte('.')
			}
		}
		return b.String()
	}
	for _, tc := range []struct {
		fault Fault
		want  string
	}{
		{Fault{}, "xxxxxxxx"},
		{Fault{Twin: Dataverse, Operation: "contact.read"}, "xxxxxxxx"},
		{Fault{Operation: "contact.*"}, "xxxxxxxx"},
		{Fault{Operation: "contact"}, "........"},
		{Fault{Operation: "lead.*"}, "........"},
		{Fault{Twin: Dotdigital}, "........"},
		{Fault{Every: 3}, "..x..x.."},
		{Fault{After: 2}, "..xxxxxx"},
		{Fault{Count: 2}, "xx......"},
		{Fault{After: 1, Every: 2, Count: 2}, "..x.x..."},
	} {
		if got := hits(tc.fault, 8); got != tc.want {
			t.Errorf("%+v: got %s, want %s", tc.fault, got, tc.want)
		}
	}
}

func TestRateIsSeededPerRule(t *testing.T) {
	pattern := func(seed uint64, others int) string {
		s := New(seed, clock.New())
		add := func(f Fault) {
			if err := s.Add(f); err != nil {
				t.Fatal(err)
			}
		}
		add(Fault{Kind: "throttle", Rate: 0.3})
		for range others {
			add(Fault{Kind: "page-dup", Rate: 0.5})
		}
		var b strings.Builder
		for range 400 {
			for range others {
				s.Take(Dataverse, "page-dup", "x")
			}
			_, ok := s.Take(Dataverse, "throttle", "x")
			fmt.Fprint(&b, ok)
		}
		return b.String()
	}
	if pattern(1, 0) != pattern(1, 3) {
		t.Error("the draws of other rules move this rule's hits")
	}
	if pattern(1, 0) == pattern(2, 0) {
		t.Error("the seed does not matter")
	}
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.05, 0.95).Draw(t, "rate")
		s := New(rapid.Uint64().Draw(t, "seed"), clock.New())
		if err := s.Add(Fault{Kind: "throttle", Rate: rate}); err != nil {
			t.Fatal(err)
		}
		const n = 2000
		for range n {
			s.Take(Entra, "throttle", "")
		}
		if got := float64(s.States()[0].Hits) / n; got < rate-0.08 || got > rate+0.08 {
			t.Fatalf("rate %v hit %v of the calls", rate, got)
		}
	})
}

func TestActiveAndClear(t *testing.T) {
	s := New(1, clock.New())
	one := Fault{Kind: "throttle", Count: 1, Args: json.RawMessage(`{"n":1}`)}
	two := Fault{Kind: "page-dup"}
	for _, f := range []Fault{one, two} {
		if err := s.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	hit, ok := s.Take(Dataverse, "throttle", "x")
	if !ok || string(hit.Args) != `{"n":1}` {
		t.Errorf("Take: %v %v", hit, ok)
	}
	if diff := cmp.Diff([]Fault{two}, s.Active()); diff != "" {
		t.Errorf("active after the first is spent: %s", diff)
	}
	if st := s.States(); len(st) != 2 || st[0].Hits != 1 || st[1].Matched != 0 {
		t.Errorf("states %+v", st)
	}
	s.Clear()
	if len(s.Active()) != 0 {
		t.Error("rules remain after Clear")
	}
	if _, ok := s.Take(Dataverse, "page-dup", "x"); ok {
		t.Error("a cleared rule fires")
	}
}

func TestNoneDoesNothing(t *testing.T) {
	if _, ok := (None{}).Take("", "", ""); ok {
		t.Error("None fires")
	}
	h := http.NotFoundHandler()
	if got := (None{}).Middleware("", nil, h); fmt.Sprintf("%p", got) != fmt.Sprintf("%p", h) {
		t.Error("None wraps")
	}
}
