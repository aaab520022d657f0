package jobs

import "time"

// lookout tells processes that live from those that do not by their signs of life, numbers
// that rise. It goes by its own clock alone: those of different machines are not compared.
type lookout struct {
	patience time.Duration // after so much silence a process is held for dead
	beat     time.Duration // how often it looks
	looked   time.Time
	seen     map[string]sign
}

// sign is the last sign of life of a process, and for how long there was no other.
type sign struct {
	beat   int64
	silent time.Duration
}

func newLookout(t timing) *lookout {
	return &lookout{patience: t.deadAfter, beat: t.beat, seen: map[string]sign{}}
}

// look takes in the signs that were asked for at a moment. Of the time since it looked
// last no more counts than two of its intervals: who did not look for longer was itself
// stopped, perhaps together with those it watches, and has to give them time to go on.
func (w *lookout) look(signs map[string]int64, at time.Time) {
	awake := max(0, min(at.Sub(w.looked), 2*w.beat))
	w.looked = at
	for id, beat := range signs {
		was, known := w.seen[id]
		if !known || was.beat != beat {
			w.seen[id] = sign{beat: beat}
		} else {
			w.seen[id] = sign{beat, was.silent + awake}
		}
	}
	for id := range w.seen {
		if _, known := signs[id]; !known {
			delete(w.seen, id)
		}
	}
}

// dead reports whether a process, which shows up among the signs, has been silent for too
// long.
func (w *lookout) dead(id string) bool { return w.seen[id].silent >= w.patience }
