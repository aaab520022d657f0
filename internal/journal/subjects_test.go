package journal_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"pgregory.net/rapid"
)

func TestNobodyIsMissedByAFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		changes := rapid.SliceOfN(rapid.Custom(drawChange), 0, 12).Draw(t, "changes")
		filter := journal.Subjects(journal.Encode(changes))
		for _, c := range changes {
			if c.Ref.Table != "" && !journal.MayConcern(filter, []journal.Subject{journal.OfRecord(c.Ref.ID)}) {
				t.Fatalf("record %s is missed", c.Ref)
			}
			if c.Contact != "" && !journal.MayConcern(filter, []journal.Subject{journal.OfContact(c.Contact)}) {
				t.Fatalf("contact %s is missed", c.Contact)
			}
		}
	})
}

func TestFewOthersPassAFilter(t *testing.T) {
	var changes []lockstep.Change
	for i := range 10_000 {
		id := lockstep.NewID(time.Unix(int64(i), 0))
		changes = append(changes, lockstep.Change{Kind: lockstep.WriteContact, Ref: lockstep.Ref{Table: "contact", ID: id}, Contact: lockstep.ContactID(fmt.Sprint(i))})
	}
	filter := journal.Subjects(journal.Encode(changes))
	passed := 0
	for i := range 10_000 {
		if journal.MayConcern(filter, []journal.Subject{journal.OfContact(lockstep.ContactID(fmt.Sprint(20_000 + i)))}) {
			passed++
		}
	}
	if passed > 100 {
		t.Errorf("%d of 10,000 strangers pass, want some 30", passed)
	}
	if perChange := len(filter) / len(changes); perChange > 3 {
		t.Errorf("the filter takes %d bytes a change", perChange)
	}
}

func TestAFilterThatIsNotUnderstoodConcernsEverybody(t *testing.T) {
	for _, filter := range [][]byte{nil, {'S'}, {'S', 1}, {'S', 2, 0, 0, 0, 0, 0, 0, 0, 0}, {'S', 1, 0}} {
		if !journal.MayConcern(filter, []journal.Subject{journal.OfContact("1")}) {
			t.Errorf("%q excludes somebody", filter)
		}
	}
	if journal.Subjects([]byte("not a payload")) != nil {
		t.Error("a damaged payload has a filter")
	}
}
