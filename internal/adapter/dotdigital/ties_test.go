package dotdigital

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

// TestEveryChangeIsSeen reads contacts that share their times of change, in pages of one
// to seven, and dies after any page; contacts appear meanwhile, one of them at the very
// time that the cursor names. Nobody may be missed.
func TestEveryChangeIsSeen(t *testing.T) {
	draws := 12
	if n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS")); err == nil {
		draws = max(n/2000, 1)
	}
	died := errors.New("died")
	a := open(t)
	var since lockstep.Cursor
	made := 0
	for seed := range uint64(draws) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		a.time.Advance(time.Duration(rnd.IntN(15)) * time.Minute)
		want := map[string]bool{}
		add := func() {
			for range rnd.IntN(6) {
				made++
				email := fmt.Sprintf("c%d@example.com", made)
				want[email] = true
				a.post(t, "/v2/contacts", map[string]string{"email": email})
			}
		}
		for range 1 + rnd.IntN(3) {
			add() // at one time
			a.time.Advance(time.Duration(rnd.IntN(2)) * time.Millisecond)
		}
		a.pageSize = 1 + rnd.IntN(7)
		seen := map[string]bool{}
		for deaths, calm := 0, false; ; {
			end, err := a.Contacts(t.Context(), lockstep.ContactQuery{Since: since}, func(page []lockstep.Contact) error {
				for _, c := range page {
					seen[c.Email] = true
				}
				if !calm && rnd.IntN(4) == 0 {
					add()
				}
				if deaths < 6 && rnd.IntN(4) == 0 {
					deaths++
					return died
				}
				return nil
			})
			if errors.Is(err, died) {
				continue // from the cursor that was kept before
			}
			if err != nil {
				t.Fatalf("draw %d: %v", seed, err)
			}
			since = end
			if calm {
				break
			}
			add() // at the time of the cursor
			calm = true
		}
		for email := range want {
			if !seen[email] {
				t.Errorf("draw %d, pages of %d: %s was never seen", seed, a.pageSize, email)
			}
		}
	}
}
