package subject_test

import (
	"fmt"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/subject"
	"pgregory.net/rapid"
)

func TestNobodyIsMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []subject.Hash
		for _, name := range rapid.SliceOf(rapid.String()).Draw(t, "names") {
			all = append(all, subject.Of(name))
		}
		filter := subject.Filter(all)
		for i := range all {
			if !subject.MayConcern(filter, all[i:i+1]) {
				t.Fatalf("subject %d is missed", i)
			}
		}
		if subject.MayConcern(filter, nil) {
			t.Fatal("a filter concerns nobody in particular")
		}
	})
}

func TestFewStrangersPass(t *testing.T) {
	var all []subject.Hash
	for i := range 10_000 {
		all = append(all, subject.Of(fmt.Sprint(i)))
	}
	filter := subject.Filter(all)
	passed := 0
	for i := range 10_000 {
		if subject.MayConcern(filter, []subject.Hash{subject.Of(fmt.Sprint(20_000 + i))}) {
			passed++
		}
	}
	if passed > 100 {
		t.Errorf("%d of 10,000 strangers pass, want some 30", passed)
	}
	if len(filter) > 2*len(all) {
		t.Errorf("the filter takes %d bytes for %d subjects", len(filter), len(all))
	}
}

func TestWhatIsNotUnderstoodConcernsEverybody(t *testing.T) {
	for _, filter := range [][]byte{nil, {'S'}, {'S', 1}, {'S', 2, 0, 0, 0, 0, 0, 0, 0, 0}, {'S', 1, 0}} {
		if !subject.MayConcern(filter, []subject.Hash{subject.Of("1")}) {
			t.Errorf("%q excludes somebody", filter)
		}
	}
}
