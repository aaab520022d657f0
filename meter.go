package lockstep

import (
	"context"
	"sync/atomic"
)

// System names the side of a call.
type System uint8

// The systems.
const (
	SystemCRM System = iota + 1
	SystemPlatform
)

// Meter adds up the API calls made on behalf of one run. The zero value is ready.
type Meter struct {
	crm, platform, polls atomic.Int64
	outer                *Meter // counts the same calls
}

// Count records one call; poll marks a question about a job's progress.
func (m *Meter) Count(s System, poll bool) {
	if m == nil {
		return
	}
	m.outer.Count(s, poll)
	switch {
	case poll:
		m.polls.Add(1)
	case s == SystemCRM:
		m.crm.Add(1)
	default:
		m.platform.Add(1)
	}
}

// Calls returns the totals so far.
func (m *Meter) Calls() Calls {
	return Calls{CRM: m.crm.Load(), Platform: m.platform.Load(), Polls: m.polls.Load()}
}

type meterKey struct{}

// WithMeter returns a context whose calls are counted on m, and on the meter that ctx
// has already. m must not be counted on yet.
func WithMeter(ctx context.Context, m *Meter) context.Context {
	if outer := MeterFrom(ctx); outer != m {
		m.outer = outer
	}
	return context.WithValue(ctx, meterKey{}, m)
}

// MeterFrom returns the meter of ctx; nil when there is none (a nil Meter may be
// counted on).
func MeterFrom(ctx context.Context) *Meter {
	m, _ := ctx.Value(meterKey{}).(*Meter)
	return m
}
