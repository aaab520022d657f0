package journal_test

import (
	"testing"

	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/subject"
	"pgregory.net/rapid"
)

func TestNobodyIsMissedByAFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		changes := rapid.SliceOfN(rapid.Custom(drawChange), 0, 12).Draw(t, "changes")
		filter := journal.Subjects(journal.Encode(changes))
		for _, c := range changes {
			if c.Ref.Table != "" && !subject.MayConcern(filter, []subject.Hash{subject.Record(c.Ref.ID)}) {
				t.Fatalf("record %s is missed", c.Ref)
			}
			if c.Contact != "" && !subject.MayConcern(filter, []subject.Hash{subject.Of(string(c.Contact))}) {
				t.Fatalf("contact %s is missed", c.Contact)
			}
		}
	})
}

func TestADamagedPayloadHasNoFilter(t *testing.T) {
	payload := journal.Encode(nil)
	payload[0] = 'X'
	if journal.Subjects(payload) != nil {
		t.Error("a damaged payload has a filter")
	}
}
