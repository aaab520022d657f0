// Package clock is the twins' time: wall time plus an offset that a test or a
// person moves forward through the control API. One Clock is shared by all
// twins of a process so that they agree on "now".
package clock

import (
	"sync"
	"time"
)

// Clock tells the twins' time. The zero value is not usable; call New.
type Clock struct {
	mu     sync.Mutex
	base   func() time.Time
	offset time.Duration
	moved  chan struct{}
}

// New returns a clock that runs with the machine's clock.
func New() *Clock { return &Clock{base: time.Now, moved: make(chan struct{})} }

// NewFixed returns a clock that stands at t until Advance moves it.
func NewFixed(t time.Time) *Clock {
	return &Clock{base: func() time.Time { return t }, moved: make(chan struct{})}
}

// Now returns the twins' time in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.offset).UTC()
}

// Advance moves the clock by d (which may be negative) and returns the new time.
func (c *Clock) Advance(d time.Duration) time.Time {
	c.mu.Lock()
	c.offset += d
	now := c.base().Add(c.offset).UTC()
	close(c.moved)
	c.moved = make(chan struct{})
	c.mu.Unlock()
	return now
}

// Moved returns a channel that is closed at the next Advance, for waiters that
// sleep on a deadline in the twins' time.
func (c *Clock) Moved() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}
