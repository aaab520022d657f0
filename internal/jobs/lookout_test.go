package jobs

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Processes show signs of life and are stopped, alone or together with whoever looks out
// for them. Nobody is held for dead who showed a sign within the time that the lookout was
// awake; who shows none any more is, as soon as it may be.
func TestLookout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const beat, patience = time.Second, 8 * time.Second
		w := newLookout(timing{beat: beat, deadAfter: patience})
		ids := []string{"a", "b", "c"}
		now := time.Unix(0, 0)
		signs, gone := map[string]int64{}, map[string]bool{}
		awake := map[string]time.Duration{} // of the lookout, since it last saw a new sign
		shown, last := map[string]int64{}, now
		look := func() {
			w.look(signs, now)
			since := min(now.Sub(last), 2*beat)
			last = now
			for id, sign := range signs {
				if old, known := shown[id]; !known || old != sign {
					shown[id], awake[id] = sign, 0
				} else {
					awake[id] += since
				}
				if w.dead(id) != (awake[id] >= patience) {
					t.Fatalf("%s is held for dead: %t, silent for %s of the lookout's time", id, w.dead(id), awake[id])
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0: // everything stands still: a machine is suspended
				now = now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "suspended")) * time.Second)
				before := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, known := signs[id]; return !known || awake[id] >= patience-2*beat })
				look() // the lookout goes on first
				for _, id := range before {
					if w.dead(id) {
						t.Fatalf("%s was suspended with the lookout and is held for dead", id)
					}
				}
			case 1:
				gone[rapid.SampledFrom(ids).Draw(t, "stopped")] = true
			default:
				now = now.Add(beat)
				for _, id := range ids {
					if !gone[id] {
						signs[id]++
					}
				}
				look()
				for _, id := range ids {
					if _, known := signs[id]; known && !gone[id] && w.dead(id) {
						t.Fatalf("%s shows signs of life and is held for dead", id)
					}
				}
			}
		}
		for range int(patience/beat) + 2 {
			now = now.Add(beat)
			look()
		}
		for id := range signs {
			if !w.dead(id) {
				t.Fatalf("%s has been silent for %s and is not held for dead", id, patience)
			}
		}
		signs = map[string]int64{}
		look()
		if len(w.seen) > 0 {
			t.Fatalf("who is gone is remembered: %v", w.seen)
		}
	})
}
