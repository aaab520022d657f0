package webapi

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// TestEveryChangeIsSeen reads changes that share their times, in pages of one to seven
// rows, with change tracking and without, and dies after any page, whether what the page
// said about going on was kept or not. Rows change meanwhile. Nobody may be missed.
func TestEveryChangeIsSeen(t *testing.T) {
	draws := 150
	if n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS")); err == nil {
		draws = max(n/100, 1)
	}
	w := newWorld(t, options{})
	c := w.open()
	const most = 20
	w.write(c, "contact", people(1, most))
	tab, err := c.lookUpTable(t.Context(), "contact")
	if err != nil {
		t.Fatal(err)
	}
	q := lockstep.RecordQuery{Table: "contact", Columns: []string{"firstname"}}
	died := errors.New("died")
	for seed := range uint64(draws) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		tab.tracked = rnd.IntN(2) == 0
		c.pageRows = pageRows
		_, start, err := read(t.Context(), c, q, "")
		if err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(time.Duration(rnd.IntN(30)) * time.Minute)
		want, edits := map[lockstep.ID]string{}, 0
		edit := func() {
			var rows []lockstep.RecordWrite
			for n := range rnd.IntN(most) {
				if rnd.IntN(3) == 0 {
					edits++
					want[id(n+1)] = fmt.Sprint("edit ", edits)
					rows = append(rows, lockstep.RecordWrite{ID: id(n + 1), Fields: []lockstep.ColumnValue{{Column: "firstname", Value: lockstep.TextValue(want[id(n+1)])}}})
				}
			}
			w.write(c, "contact", rows)
		}
		for range 1 + rnd.IntN(4) {
			edit() // at one time
			w.clock.Advance(time.Duration(rnd.IntN(2)) * time.Second)
		}
		c.pageRows = 1 + rnd.IntN(7)
		seen := map[lockstep.ID]string{}
		from, deaths, calm := start, 0, false
		for {
			kept := from
			end, err := c.Changes(t.Context(), q, from, func(p lockstep.RecordPage) error {
				for _, r := range p.Records {
					seen[r.ID] = r.Values[0].Text()
				}
				if calm {
					return nil
				}
				if rnd.IntN(8) == 0 {
					edit()
				}
				dies := deaths < 12 && rnd.IntN(3) == 0
				if p.Resume != "" && (!dies || rnd.IntN(2) == 0) {
					kept = p.Resume
				}
				if dies {
					deaths++
					return died
				}
				return nil
			})
			if errors.Is(err, died) {
				from = kept
				continue
			}
			if err != nil {
				t.Fatalf("draw %d: %v", seed, err)
			}
			if calm {
				break
			}
			from, calm = end, true // what changed while it was read is in the next read
		}
		for who, edited := range want {
			if seen[who] != edited {
				t.Errorf("draw %d: tracked %v, pages of %d, %d deaths: %s was last seen as %q, it says %q", seed, tab.tracked, c.pageRows, deaths, who, seen[who], edited)
			}
		}
	}
}
