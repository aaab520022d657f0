package journal_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"pgregory.net/rapid"
)

var values = cmp.Comparer(func(a, b lockstep.Value) bool { return a == b })

func drawValue(t *rapid.T) lockstep.Value {
	return lockstep.CanonicalValue(lockstep.Kind(rapid.IntRange(0, 7).Draw(t, "kind")), rapid.StringN(1, 8, 40).Draw(t, "text"))
}

func drawChange(t *rapid.T) lockstep.Change {
	c := lockstep.Change{
		Kind:  lockstep.ChangeKind(rapid.IntRange(1, 9).Draw(t, "change kind")),
		State: lockstep.ChangeState(rapid.IntRange(1, 6).Draw(t, "state")),
		Why:   rapid.String().Draw(t, "why"),
		Cause: rapid.String().Draw(t, "cause"),
		Name:  rapid.String().Draw(t, "name"),
		Book:  lockstep.BookID(rapid.StringMatching(`[0-9]{0,3}`).Draw(t, "book")),
		Email: rapid.String().Draw(t, "email"),
	}
	if rapid.Bool().Draw(t, "ref") {
		c.Ref = lockstep.Ref{Table: "contact", ID: lockstep.NameID(lockstep.ID{}, c.Name)}
		c.List = lockstep.NameID(lockstep.ID{}, c.Why)
		c.Contact = "17"
	}
	for range rapid.IntRange(0, 3).Draw(t, "books") {
		c.Books = append(c.Books, lockstep.BookID(rapid.StringMatching(`[0-9]{1,3}`).Draw(t, "in book")))
	}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		c.Fields = append(c.Fields, lockstep.FieldChange{Name: rapid.StringMatching(`[A-Z]{1,4}`).Draw(t, "field"), Old: drawValue(t), New: drawValue(t)})
	}
	return c
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.Custom(drawChange), 0, 12).Draw(t, "changes")
		out, err := journal.Changes(journal.Encode(in))
		if err != nil {
			t.Fatal(err)
		}
		if len(in) == 0 && len(out) == 0 {
			return
		}
		if d := cmp.Diff(in, out, values); d != "" {
			t.Fatalf("changes differ (-in +out):\n%s", d)
		}
	})
}

func TestDamageIsDetected(t *testing.T) {
	payload := journal.Encode([]lockstep.Change{{
		Kind: lockstep.WriteContact, State: lockstep.Planned, Why: "changed", Email: "a@example.com",
		Fields: []lockstep.FieldChange{{Name: "FIRSTNAME", New: lockstep.TextValue("Ann")}},
	}})
	for i := range payload {
		bad := append([]byte(nil), payload...)
		bad[i] ^= 0x10
		if _, err := journal.Changes(bad); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
		if _, err := journal.Changes(payload[:i]); err == nil {
			t.Errorf("a payload cut at byte %d went unnoticed", i)
		}
	}
}

// Of a journal that was cut off anywhere, nothing is acted upon. make properties cuts
// one of a megabyte at every byte.
func TestCutOffAnywhere(t *testing.T) {
	size := 32 << 10
	if n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS")); err == nil {
		size = max(size, min(n, 1<<20))
	}
	var w journal.Writer
	for i, length := 0, 0; length < size; i++ {
		c := lockstep.Change{
			Kind: lockstep.ChangeKind(1 + i%12), State: lockstep.ChangeState(1 + i%6), Why: fmt.Sprint("reason ", i%7), Name: fmt.Sprint("name ", i),
			Ref: lockstep.Ref{Table: "contact", ID: lockstep.ID{byte(i), byte(i >> 8)}}, Contact: lockstep.ContactID(fmt.Sprint(i)), Email: fmt.Sprintf("p%d@example.com", i),
			Books: []lockstep.BookID{"1", "2"}, Fields: []lockstep.FieldChange{{Name: "JOBTITLE", Old: lockstep.NullValue(), New: lockstep.TextValue(fmt.Sprint("job ", i))}},
		}
		w.Add(&c)
		length += 60
	}
	payload := w.Payload()
	if len(payload) < size*9/10 {
		t.Fatalf("the journal has %d bytes only", len(payload))
	}
	if n, err := journal.Changes(payload); err != nil || len(n) != w.Len() {
		t.Fatalf("%d changes of %d, %v", len(n), w.Len(), err)
	}
	for n := range payload {
		taken := 0
		if err := journal.Decode(payload[:n], func(lockstep.Change) error { taken++; return nil }); lockstep.CodeOf(err) != lockstep.CodeInternal || taken > 0 {
			t.Fatalf("cut off after %d bytes of %d: %d changes, %v", n, len(payload), taken, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(journal.Encode([]lockstep.Change{{Kind: lockstep.AddToList, State: lockstep.Acknowledged, Why: "member", Books: []lockstep.BookID{"1"}}}))
	f.Add([]byte("J\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = journal.Changes(b) })
}
