package prove

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a plan can do without is named like this: "a17" is an action, "k4" the kill of
// a round, "r4" the whole round, "f3.12" the fault of a request; "faults", "kills", "mid"
// and "pages" are all faults, all kills, that people act during a cycle instead of before
// it, and that pages and imports are small.

func (p *plan) drops(what, id string) bool { return p.Dropped[what+id] }

// parseDrop reads what -drop says: names with commas, "a3-9" for a range of actions.
func parseDrop(text string) map[string]bool {
	out := map[string]bool{}
	for d := range strings.SplitSeq(text, ",") {
		from, to, many := strings.Cut(d, "-")
		lo, err1 := strconv.Atoi(strings.TrimPrefix(from, "a"))
		hi, err2 := strconv.Atoi(to)
		if many && err1 == nil && err2 == nil {
			for i := lo; i <= hi; i++ {
				out["a"+strconv.Itoa(i)] = true
			}
		} else if d != "" {
			out[d] = true
		}
	}
	return out
}

// formatDrop is the opposite of parseDrop.
func formatDrop(dropped map[string]bool) string {
	var numbers []int
	var out []string
	for d := range dropped {
		if n, err := strconv.Atoi(strings.TrimPrefix(d, "a")); err == nil && d[0] == 'a' {
			numbers = append(numbers, n)
			continue
		}
		out = append(out, d)
	}
	slices.Sort(out)
	slices.Sort(numbers)
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprintf("a%d", numbers[i]))
		} else {
			out = append(out, fmt.Sprintf("a%d-%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}

// shrink takes out of a failing plan what it fails without, in at most tries plays. What
// remains fails in the same way, if of other people.
func shrink(t *testing.T, failed *sim, n, tries int) *sim {
	t.Helper()
	best := failed
	try := func(drop ...string) bool {
		if tries--; tries < 0 {
			return false
		}
		p := newPlan(failed.plan.Seed, n, *openFlag)
		p.Dropped = maps.Clone(best.plan.Dropped)
		for _, d := range drop {
			p.Dropped[d] = true
		}
		s := simulate(t, p)
		if slices.Contains(s.kinds, failed.kinds[0]) {
			best = s
			return true
		}
		return false
	}
	for _, all := range []string{"faults", "kills", "mid", "pages"} {
		try(all)
	}
	reduce := func(items []string) {
		for size := max(1, len(items)/2); ; size /= 2 {
			for i := 0; i < len(items); {
				j := min(i+size, len(items))
				if try(items[i:j]...) {
					items = slices.Delete(items, i, j)
				} else {
					i = j
				}
			}
			if size <= 1 || tries <= 0 {
				return
			}
		}
	}
	var rounds []string
	for i := range failed.plan.Rounds {
		rounds = append(rounds, fmt.Sprintf("r%d", i))
	}
	reduce(rounds)
	var acts, kills []string
	for i, r := range failed.plan.Rounds {
		if best.plan.drops("r", strconv.Itoa(i)) {
			continue
		}
		for _, a := range r.Actions {
			acts = append(acts, fmt.Sprintf("a%d", a.Index))
		}
		if r.Kill != nil {
			kills = append(kills, fmt.Sprintf("k%d", i))
		}
	}
	reduce(acts)
	if !best.plan.Dropped["kills"] {
		reduce(kills)
	}
	if !best.plan.Dropped["faults"] {
		faults := slices.Clone(best.struck)
		for i := range faults {
			faults[i] = "f" + faults[i]
		}
		reduce(faults)
	}
	return best
}
