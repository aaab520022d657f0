package fault

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

// Set is the live collection of rules of one group of twins. It is safe for
// concurrent use. Close it to end answers that hang and to drop calls that wait
// to be applied late.
type Set struct {
	seed  uint64
	clock *clock.Clock

	// idle is true while there are no rules, so that an undisturbed twin pays
	// one atomic load a call.
	idle atomic.Bool

	mu      sync.Mutex
	rules   []*rule
	added   uint64
	cleared chan struct{} // closed by Clear: hanging and slow answers end

	closed  bool
	closing chan struct{} // closed by Close
	late    sync.WaitGroup

	// fresh holds connections whose acceptance was already judged by a
	// Listener, so that a refuse rule does not count their first call again.
	fresh sync.Map // key string
}

type rule struct {
	Fault
	number  uint64
	args    any
	matched int
	hits    int
}

// New returns an empty set. seed decides which calls a rule with a rate hits.
func New(seed uint64, c *clock.Clock) *Set {
	s := &Set{seed: seed, clock: c, cleared: make(chan struct{}), closing: make(chan struct{})}
	s.idle.Store(true)
	return s
}

// Add appends a rule. Its error names the field that is wrong.
func (s *Set) Add(f Fault) error {
	args, err := validate(f)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Args = slices.Clone(f.Args)
	s.rules = append(s.rules, &rule{Fault: f, number: s.added, args: args})
	s.added++
	s.idle.Store(false)
	return nil
}

// Clear removes all rules and ends answers that hang or trickle. Calls that were
// promised to be applied late still are.
func (s *Set) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules, s.added = nil, 0
	s.idle.Store(true)
	close(s.cleared)
	s.cleared = make(chan struct{})
}

// Close clears the set, drops calls that wait to be applied late and returns
// when none is running.
func (s *Set) Close() {
	s.Clear()
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.late.Wait()
}

// Settle returns when every call that was to be applied late has been. Those that
// wait for the twins' clock need it to be moved before.
func (s *Set) Settle() { s.late.Wait() }

// later runs f in the background, unless the set is closed already.
func (s *Set) later(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.late.Go(f)
	}
}

// Active returns the rules that can still fire, in the order they were added.
func (s *Set) Active() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, r := range s.rules {
		if !r.spent() {
			out = append(out, r.Fault)
		}
	}
	return out
}

// State is a rule with what it has done so far.
type State struct {
	Fault
	// Matched counts the calls that the rule looked at.
	Matched int `json:"matched"`
	// Hits counts the calls that it hit.
	Hits int `json:"hits"`
}

// States returns all rules since the last Clear, spent ones too, with their counts.
func (s *Set) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, len(s.rules))
	for i, r := range s.rules {
		out[i] = State{Fault: r.Fault, Matched: r.matched, Hits: r.hits}
	}
	return out
}

// Take implements Injector: the first rule of this kind that fires, in the order
// they were added. Rules after it do not see the call.
func (s *Set) Take(twin, kind, operation string) (Hit, bool) {
	if s.idle.Load() {
		return Hit{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.Kind == kind && r.matches(twin, operation) && r.fires(s.seed) {
			return Hit{Kind: kind, Args: orEmpty(r.Args)}, true
		}
	}
	return Hit{}, false
}

func (r *rule) spent() bool { return r.Count > 0 && r.hits >= r.Count }

func (r *rule) matches(twin, operation string) bool {
	if r.Twin != "" && r.Twin != twin {
		return false
	}
	if prefix, ok := strings.CutSuffix(r.Operation, "*"); ok {
		return strings.HasPrefix(operation, prefix)
	}
	return r.Operation == "" || r.Operation == operation
}

// fires counts a matching call and decides it. The caller holds the set's lock.
func (r *rule) fires(seed uint64) bool {
	if r.spent() {
		return false
	}
	r.matched++
	n := r.matched - r.After
	if n <= 0 {
		return false
	}
	if r.Every > 1 && n%r.Every != 0 {
		return false
	}
	if r.Rate > 0 && r.Rate < 1 {
		// A draw of its own for each call keeps the n-th decision independent of
		// how many draws other rules made.
		draw := rand.New(rand.NewPCG(seed^(r.number*0x9E3779B97F4A7C15), uint64(r.matched))).Float64()
		if draw >= r.Rate {
			return false
		}
	}
	r.hits++
	return true
}

// judged is what the transport rules decided for one call.
type judged struct {
	action string // the kind that replaces the answer; empty: serve it
	args   any
	slow   *slowArgs
	cut    *truncateArgs
	retry  *retryArgs
	skew   *clockArgs
	done   <-chan struct{} // closed by Clear
}

// judge asks every transport rule. Of the kinds that replace the answer the
// first that fires wins and later ones do not see the call; the kinds that
// change an answer (slow-body, truncate, retry-after, clock) combine with it.
func (s *Set) judge(twin, operation string, refuseJudged bool) judged {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := judged{done: s.cleared}
	for _, r := range s.rules {
		if r.args == nil || !r.matches(twin, operation) {
			continue
		}
		if r.Kind == Refuse && r.Operation == "" && refuseJudged {
			continue
		}
		switch a := r.args.(type) {
		case slowArgs:
			if j.slow == nil && r.fires(s.seed) {
				j.slow = &a
			}
		case truncateArgs:
			if j.cut == nil && r.fires(s.seed) {
				j.cut = &a
			}
		case clockArgs:
			if j.skew == nil && r.fires(s.seed) {
				j.skew = &a
			}
		case retryArgs:
			if j.retry == nil && r.fires(s.seed) {
				j.retry = &a
				if a.Code != 0 && j.action == "" {
					j.action, j.args = Status, statusArgs{Code: a.Code, Body: "json"}
				}
			}
		default:
			if j.action == "" && r.fires(s.seed) {
				j.action, j.args = r.Kind, r.args
			}
		}
	}
	return j
}

// refuses decides about a connection that was just accepted: only rules for the
// whole twin apply, as no operation is known yet.
func (s *Set) refuses(twin string) bool {
	if s.idle.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.Kind == Refuse && r.Operation == "" && r.matches(twin, "") && r.fires(s.seed) {
			return true
		}
	}
	return false
}
