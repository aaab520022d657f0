package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// The limits of both services are kept for real: a run that reaches them waits as
// long as it is told, not less, and gets everything done.
func TestLimitsOfTheServices(t *testing.T) {
	t.Parallel()
	crm := func(l dataverse.Limits) func(*stormy) { return func(s *stormy) { s.twins.Dataverse.SetLimits(l) } }
	mail := func(l dotdigital.RateLimit) func(*stormy) {
		return func(s *stormy) { s.twins.Dotdigital.SetRateLimit(l) }
	}
	for _, tc := range []struct {
		name  string
		limit func(*stormy)
		code  int // of a refusal; 0: the service says how much is left, so it never comes to one
		least time.Duration
	}{
		{"requests", crm(dataverse.Limits{Requests: 6}), http.StatusTooManyRequests, time.Second},
		{"requests on two servers", crm(dataverse.Limits{Requests: 4, Servers: 2}), http.StatusTooManyRequests, time.Second},
		{"execution time", func(s *stormy) {
			s.twins.Dataverse.SetLimits(dataverse.Limits{Execution: 300 * time.Millisecond})
			s.exhaust()
		}, http.StatusTooManyRequests, time.Second},
		{"all three", crm(dataverse.Limits{Requests: 8, Execution: 10 * time.Second, Concurrent: 1}), http.StatusTooManyRequests, time.Second},
		{"tiers", mail(dotdigital.RateLimit{Scheme: dotdigital.Tiered, Low: 2, Medium: 2, High: 2}), 0, time.Minute},
		{"flat", mail(dotdigital.RateLimit{Scheme: dotdigital.Flat, Hourly: 12}), http.StatusBadRequest, 5 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			s.edit()
			tc.limit(s)
			s.haste.forget()
			began := s.haste.Now()
			run := s.sync()
			run2 := s.sync()
			if run.Status == lockstep.RunFailed || run2.Status == lockstep.RunFailed {
				t.Errorf("%q, %q", run.Error, run2.Error)
			}
			took := s.haste.Now().Sub(began)
			switch refused, _ := s.haste.repeats(http.StatusTooManyRequests); {
			case tc.code != 0:
				s.haste.patient(t, tc.least, tc.code)
			case len(refused) > 0 || took < tc.least:
				t.Errorf("%d calls were refused, and the runs took %s: the limit was not kept by waiting", len(refused), took)
			}
			t.Logf("two runs took %s", took.Round(time.Second))
			s.twins.Dataverse.SetLimits(dataverse.Limits{})
			s.twins.Dotdigital.SetRateLimit(dotdigital.RateLimit{})
			s.whole("after " + tc.name)
		})
	}
}

// exhaust uses the CRM's limits up, as another program of the same user does.
func (s *stormy) exhaust() {
	s.t.Helper()
	for range 100_000 {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.ready.Dataverse.API+"contacts", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.bearer())
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			return
		}
	}
	s.t.Fatal("there is no limit")
}

// A pause is as long as a server asks for, whatever it writes: at least a second
// where it means one, at most ten minutes.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		for _, name := range []string{fault.Dataverse, fault.Dotdigital} {
			t.Run(fmt.Sprint(name, " ", code), func(t *testing.T) {
				t.Parallel()
				s := newStormy(t)
				routes := s.routes()[name]
				date := func(d time.Duration) string { return s.haste.Now().Add(d).Format(http.TimeFormat) }
				unsaid := time.Second // when the answer asks for nothing that can be read
				if code == http.StatusServiceUnavailable {
					unsaid = 0
				}
				for _, tc := range []struct {
					what  string
					value any // nil: no header
					least time.Duration
				}{
					{"missing", nil, unsaid},
					{"zero", "0", time.Second},
					{"negative", "-5", time.Second},
					{"endless", "1000000000", 10 * time.Minute},
					{"a date", date(240 * time.Hour), 10 * time.Minute},
					{"a date in the past", date(-time.Hour), time.Second},
					{"fractional", "2.5", 2500 * time.Millisecond},
					{"garbage", "soon", unsaid},
				} {
					s.edit()
					args, err := json.Marshal(map[string]any{"code": code, "value": tc.value})
					if err != nil {
						t.Fatal(err)
					}
					for _, op := range routes {
						if err := s.twins.Faults.Add(fault.Fault{Twin: name, Kind: fault.RetryAfter, Operation: op, Count: 1, Args: args}); err != nil {
							t.Fatal(err)
						}
					}
					s.haste.forget()
					if run := s.attempt(); run.Status == lockstep.RunFailed {
						t.Errorf("%s: %s", tc.what, run.Error)
					}
					s.haste.patient(t, tc.least, code)
					s.whole(tc.what)
					if t.Failed() {
						t.Fatal(strings.ToUpper(tc.what))
					}
				}
			})
		}
	}
}
