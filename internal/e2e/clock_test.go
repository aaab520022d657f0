package e2e

import (
	"sync/atomic"
	"testing"
	"time"
)

// A machine whose clock is wrong, or jumps while a run is under way, syncs like any
// other: what changed is decided by the clocks of the two services.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		skew func(reading int64) time.Duration
	}{
		{"an hour ahead", func(int64) time.Duration { return time.Hour }},
		{"an hour behind", func(int64) time.Duration { return -time.Hour }},
		{"a day behind", func(int64) time.Duration { return -24 * time.Hour }},
		{"jumps to and fro", func(n int64) time.Duration { return time.Duration(n/10%3-1) * time.Hour }},
		{"jumps back and stays", func(n int64) time.Duration { return -time.Duration(min(n/20, 1)) * time.Hour }},
		{"jumps ahead and stays", func(n int64) time.Duration { return time.Duration(min(n/20, 1)) * time.Hour }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			var readings atomic.Int64
			skew := func() time.Duration { return tc.skew(readings.Add(1)) }
			if err := s.app.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.haste.skew = skew
			s.open()
			for range 3 {
				s.edit()
				s.sync()
				s.whole(tc.name)
			}
			if err := s.app.Close(t.Context()); err != nil { // somebody sets the clock
				t.Fatal(err)
			}
			s.haste.skew = nil
			s.open()
			s.edit()
			s.sync()
			s.whole("once the clock is right again")
		})
	}
}
