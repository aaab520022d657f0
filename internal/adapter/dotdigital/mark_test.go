package dotdigital

import (
	"testing"
	"time"
)

// A change that becomes visible late is found by the next deep read.
func TestMarkGoesBackNowAndThen(t *testing.T) {
	start := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	since, m := mark{}.advance(start)
	if !since.IsZero() || m != (mark{start, start}) {
		t.Fatalf("the first read: since %v, mark %v", since, m)
	}
	covered := start.Add(-overlap) // everything that became visible late, up to here, was read
	for i := 1; i <= 60; i++ {
		now := start.Add(time.Duration(i) * time.Minute)
		since, next := m.advance(now)
		if since.After(m.read) {
			t.Fatalf("minute %d: reads since %v, the last read began at %v", i, since, m.read)
		}
		if !since.After(covered) && next.deep == now {
			covered = now.Add(-overlap)
		}
		if late := now.Sub(covered); late > deepEvery+overlap {
			t.Fatalf("minute %d: a late change of %v ago is not found yet", i, late)
		}
		parsed, err := parseCursor("test", next.cursor())
		if err != nil || parsed != next {
			t.Fatalf("the cursor %q reads as %v (%v)", next.cursor(), parsed, err)
		}
		m = next
	}
}
