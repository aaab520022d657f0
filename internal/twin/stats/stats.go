// Package stats counts what reaches a twin. Tests and the control API read it:
// it is the independent record of how many calls a program really made.
package stats

import (
	"maps"
	"sync"
)

// Counts is a snapshot of one twin's counters since start or the last Reset.
type Counts struct {
	Calls      int64            `json:"calls"`
	Operations map[string]int64 `json:"operations"`
	Errors     map[string]int64 `json:"errors"`
	BytesIn    int64            `json:"bytes_in"`
	BytesOut   int64            `json:"bytes_out"`
}

// Counter collects the counters of one twin. Safe for concurrent use.
type Counter struct {
	mu sync.Mutex
	c  Counts
}

// New returns an empty counter.
func New() *Counter {
	s := &Counter{}
	s.Reset()
	return s
}

// Call records one finished request. operation is a low-cardinality name such
// as "contact.read"; status is the answered HTTP status as text ("429"),
// counted under errors when it is 400 or above, or the name of a transport fault.
func (s *Counter) Call(operation, status string, bytesIn, bytesOut int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Calls++
	s.c.Operations[operation]++
	if status >= "4" {
		s.c.Errors[status]++
	}
	s.c.BytesIn += bytesIn
	s.c.BytesOut += bytesOut
}

// Snapshot returns a copy of the counters.
func (s *Counter) Snapshot() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.c
	out.Operations = maps.Clone(s.c.Operations)
	out.Errors = maps.Clone(s.c.Errors)
	return out
}

// Reset sets every counter to zero.
func (s *Counter) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c = Counts{Operations: map[string]int64{}, Errors: map[string]int64{}}
}
