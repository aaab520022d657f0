package prove

import (
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag    = flag.Int64("seed", -1, "the one seed to play")
	seedsFlag   = flag.Int("seeds", 0, "how many seeds to play, from -base on; 0 = as many as the ordinary tests play")
	baseFlag    = flag.Uint64("base", 1, "the first seed")
	actionsFlag = flag.Int("actions", 0, "actions of a seed; 0 = the usual number")
	dropFlag    = flag.String("drop", "", "what the shrinker took out of the seed's plan")
	traceFlag   = flag.String("trace", "", "print the changes of -seed that contain this, or everything that -seed's life says of this address")
	openFlag    = flag.Bool("open", true, "draw the actions too that decide who is who: merged records, moved and shared addresses, deleted contacts")
	backFlag    = flag.Bool("back", false, "people also take runs back and put backups of the product back")
	keepFlag    = flag.String("keep", "", "write the plan of -seed, without what -drop names, to this file of testdata/regressions")
	planFlag    = flag.String("plan", "", "a kept plan to play instead of -seed's, such as testdata/open/x.json")
	logFlag     = flag.Bool("log", false, "print every request and action of -seed")
	bodiesFlag  = flag.Bool("bodies", false, "with -log: what each request said and was answered")
	shrinkFlag  = flag.Int("shrink", 0, "play a failing seed up to so many times to make it smaller")
)

const (
	ordinarySeeds   = 200
	ordinaryActions = 200
)

func actionCount() int {
	if *actionsFlag > 0 {
		return *actionsFlag
	}
	return ordinaryActions
}

// needTemplate makes the template, which is removed with the test.
func needTemplate(t *testing.T) {
	t.Helper()
	collectRarely()
	template.dir = ramDir(t)
	makeTemplate(t, template.dir)
}

func sortByMoment(a []act) {
	slices.SortStableFunc(a, func(x, y act) int { return x.During - y.During })
}

// TestSeed plays seeds and checks every promise after each.
func TestSeed(t *testing.T) {
	needTemplate(t)
	if *seedFlag >= 0 || *planFlag != "" {
		p := newPlan(uint64(max(*seedFlag, 0)), actionCount(), *openFlag)
		p.Dropped = parseDrop(*dropFlag)
		if *planFlag != "" {
			b, err := os.ReadFile(*planFlag)
			if err != nil {
				t.Fatal(err)
			}
			var k regression
			if err := json.Unmarshal(b, &k); err != nil || k.Plan == nil {
				t.Fatalf("%s: %v", *planFlag, err)
			}
			t.Log(k.Why)
			p = k.Plan
		}
		if *keepFlag != "" {
			keep(t, *keepFlag, p)
		}
		s := simulate(t, p)
		if *logFlag {
			fmt.Println(strings.Join(s.log, "\n"))
		}
		if *traceFlag != "" {
			s.trace(*traceFlag)
		}
		if replay := report(t, s); replay != "" {
			t.Log(replay)
		}
		return
	}
	n := *seedsFlag
	if n == 0 {
		n = ordinarySeeds
	}
	began := time.Now()
	var failed failures
	t.Cleanup(func() {
		for _, line := range failed.lines() {
			t.Log(line)
		}
		if *seedsFlag > 0 {
			t.Logf("%d seeds of %d actions from %d on in %s: %.0f a minute", n, actionCount(), *baseFlag, time.Since(began).Round(time.Second), float64(n)/time.Since(began).Minutes())
			t.Log(coverage.String())
		}
	})
	for i := range n {
		seed := *baseFlag + uint64(i)
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			p := newPlan(seed, actionCount(), *openFlag)
			p.Dropped = parseDrop(*dropFlag)
			s := simulate(t, p)
			coverage.add(s)
			if replay := report(t, s); replay != "" {
				failed.add(seed, replay)
			}
		})
	}
}

// trace prints the changes that contain a text; of an address also those of the records
// and contacts that ever had it, and what the ledger says.
func (s *sim) trace(text string) {
	had := map[string]bool{}
	if strings.Contains(text, "@") {
		s.replay(func(_ int, x change, w *past) {
			if x.name == "emailaddress1" || x.name == "email" || x.name == "lockstep_email" {
				had[x.id] = had[x.id] || lower(x.new) == text || lower(x.old) == text
			}
		})
	}
	next := 0
	for i, c := range s.history.changes {
		for ; next < len(s.played) && s.played[next].from <= i; next++ {
			fmt.Println("      ", s.played[next].round, s.played[next].run.Mode, s.played[next].run.Type, s.played[next].run.Status)
		}
		if had[c.id] || strings.Contains(c.String(), text) {
			fmt.Println(c)
		}
	}
	if len(had) == 0 {
		return
	}
	fmt.Println(s.said)
}

// report fails the test with what was broken and returns how to see it again; "" when
// nothing was.
func report(t *testing.T, s *sim) string {
	t.Helper()
	if len(s.broken) == 0 {
		return ""
	}
	if *shrinkFlag > 0 {
		s = shrink(t, s, actionCount(), *shrinkFlag)
	}
	for _, b := range slices.Concat(s.alarms, s.broken[:min(len(s.broken), 12)]) {
		t.Error(b)
	}
	drop := ""
	if d := formatDrop(s.plan.Dropped); d != "" {
		drop = " -drop=" + d
	}
	return fmt.Sprintf("%d broken promises; replay: go test ./internal/prove -run TestSeed -v -seed=%d -actions=%d%s%s -log", len(s.broken), s.plan.Seed, actionCount(), map[bool]string{false: " -open=false"}[*openFlag]+map[bool]string{true: " -back"}[*backFlag], drop)
}

// failures are how to replay the seeds that failed. Of a life that is over nothing else
// is kept.
type failures struct {
	mu     sync.Mutex
	replay map[uint64]string
}

func (f *failures) add(seed uint64, replay string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.replay == nil {
		f.replay = map[uint64]string{}
	}
	f.replay[seed] = replay
}

func (f *failures) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, seed := range slices.Sorted(maps.Keys(f.replay)) {
		out = append(out, f.replay[seed])
	}
	return out
}

// regression is a plan that once failed. It is kept whole, so that it stays what it is when
// the table of actions changes.
type regression struct {
	Why  string
	Plan *plan
}

//go:embed testdata/regressions
var regressions embed.FS

// TestRegressions plays the plans that once failed: what they showed is mended.
func TestRegressions(t *testing.T) {
	needTemplate(t)
	files, err := regressions.ReadDir("testdata/regressions")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := regressions.ReadFile("testdata/regressions/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var k regression
		if err := json.Unmarshal(b, &k); err != nil || k.Plan == nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		t.Run(strings.TrimSuffix(f.Name(), ".json"), func(t *testing.T) {
			t.Parallel()
			if s := simulate(t, k.Plan); len(s.broken) > 0 {
				t.Errorf("%s\nis broken again: %s", k.Why, strings.Join(s.broken[:min(len(s.broken), 5)], "\n"))
			}
		})
	}
}

// keep writes a plan to a file of testdata/regressions.
func keep(t *testing.T, file string, p *plan) {
	t.Helper()
	for i, r := range p.Rounds {
		p.Rounds[i].Actions = slices.DeleteFunc(r.Actions, func(a act) bool {
			return p.drops("a", strconv.Itoa(a.Index)) || p.drops("r", strconv.Itoa(i))
		})
	}
	maps.DeleteFunc(p.Dropped, func(d string, _ bool) bool { return d[0] == 'a' })
	b, err := json.Marshal(regression{Why: "say what it showed", Plan: p})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// covered counts what happened in all seeds of a run of the tests.
type covered struct {
	mu       sync.Mutex
	lives    int
	faults   map[coverKey]int
	possible map[coverKey]int // in how many lives
	acts     map[string]int
	kills    int
	upgrades int
}

var coverage = covered{faults: map[coverKey]int{}, possible: map[coverKey]int{}, acts: map[string]int{}}

func (c *covered) add(s *sim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives++
	for k, n := range s.coverage {
		c.faults[k] += n
	}
	for k := range s.possible {
		c.possible[k]++
	}
	for a, n := range s.acted {
		c.acts[a] += n
	}
	c.kills += s.kills
	c.upgrades += s.upgrades
}

// String tells how often each kind of fault hit how many routes, and what people did.
func (c *covered) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	type sum struct{ hits, met, routes, rare int }
	kinds := map[string]*sum{}
	rare := 0
	for k := range c.possible {
		x := kinds[k.twin+" "+k.kind]
		if x == nil {
			x = &sum{}
			kinds[k.twin+" "+k.kind] = x
		}
		n := c.faults[k]
		x.hits += n
		x.routes++
		if n > 0 {
			x.met++
		}
		if 100*n < c.lives {
			x.rare++
			rare++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d kills, %d upgrades; %d pairs of fault and route met, of %d; %d of them fewer than 100 times in 10,000 lives:\n", c.kills, c.upgrades, len(c.faults), len(c.possible), rare)
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		x := kinds[k]
		fmt.Fprintf(&b, "  %-30s %7d hits on %3d of %3d routes, %3d of them fewer than 100 times in 10,000 lives\n", k, x.hits, x.met, x.routes, x.rare)
	}
	b.WriteString("what people did:\n")
	for _, a := range actions {
		fmt.Fprintf(&b, "  %-36s %7d\n", a.name, c.acts[a.name])
	}
	return b.String()
}
