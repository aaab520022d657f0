package merge

import (
	"slices"
	"testing"
	"time"

	lockstep "github.com/lockstep-sync/lockstep"
	"pgregory.net/rapid"
)

func TestExcluded(t *testing.T) {
	filters := []lockstep.SubscriptionFilter{
		lockstep.FilterNone, lockstep.FilterBulkEmail, lockstep.FilterAnyOptOut, lockstep.FilterMaterial,
		lockstep.FilterListUnsubscribers, lockstep.FilterSuppressed, lockstep.FilterOptInAtLeast,
	}
	for _, c := range []struct {
		name     string
		optOut   lockstep.OptOut
		standing lockstep.Standing
		left     bool
		optIn    lockstep.OptInType
		want     string // one letter a filter: x = excluded
	}{
		{"nothing against it", 0, lockstep.Subscribed, false, lockstep.OptInDouble, "-------"},
		{"no email at all", lockstep.DoNotEmail, lockstep.Subscribed, false, lockstep.OptInDouble, "xxxxxxx"},
		{"no bulk email", lockstep.DoNotBulkEmail, lockstep.Subscribed, false, lockstep.OptInDouble, "-xxx---"},
		{"no material", lockstep.DoNotMaterial, lockstep.Subscribed, false, lockstep.OptInDouble, "---x---"},
		{"left the list", 0, lockstep.Subscribed, true, lockstep.OptInDouble, "----x--"},
		{"unsubscribed", 0, lockstep.Unsubscribed, false, lockstep.OptInDouble, "-----x-"},
		{"hard bounced", 0, lockstep.HardBounced, false, lockstep.OptInDouble, "-----x-"},
		{"soft bounced", 0, lockstep.SoftBounced, false, lockstep.OptInDouble, "-------"},
		{"has still to confirm", 0, lockstep.PendingOptIn, false, lockstep.OptInDouble, "-------"},
		{"single opt-in", 0, lockstep.Subscribed, false, lockstep.OptInSingle, "------x"},
		{"opt-in unknown", 0, lockstep.Subscribed, false, lockstep.OptInUnknown, "------x"},
		{"stronger opt-in", 0, lockstep.Subscribed, false, lockstep.OptInVerifiedDouble, "-------"},
	} {
		for i, f := range filters {
			reason, got := Excluded(f, lockstep.OptInDouble, c.optOut, c.standing, c.left, c.optIn)
			if want := c.want[i] == 'x'; got != want || got != (reason != "") {
				t.Errorf("%s, filter %s: excluded %v (%q), want %v", c.name, f, got, reason, want)
			}
		}
		if _, got := Excluded("", 0, c.optOut, c.standing, c.left, c.optIn); got != (c.want[2] == 'x') {
			t.Errorf("%s: no filter is not the default filter", c.name)
		}
	}
}

func TestConsentOrder(t *testing.T) {
	steps := []Consent{
		ConsentOf(lockstep.Subscribed, 0, false, false),
		ConsentOf(lockstep.PendingOptIn, 0, false, false),
		ConsentOf(lockstep.Subscribed, 0, false, true),
		ConsentOf(lockstep.Subscribed, 0, true, true),
		ConsentOf(lockstep.Subscribed, lockstep.DoNotBulkEmail, true, true),
		ConsentOf(lockstep.Subscribed, lockstep.DoNotEmail|lockstep.DoNotBulkEmail, true, true),
		ConsentOf(lockstep.Unsubscribed, lockstep.DoNotEmail, true, true),
		ConsentOf(lockstep.Complained, lockstep.DoNotEmail, true, true),
	}
	for i := 1; i < len(steps); i++ {
		if steps[i] <= steps[i-1] {
			t.Errorf("%v is not stricter than %v", steps[i], steps[i-1])
		}
	}
	for _, s := range []lockstep.Standing{lockstep.Suppressed, lockstep.HardBounced, lockstep.PlatformBlocked, lockstep.ContactDeleted} {
		if got := ConsentOf(s, 0, false, false); got != ConsentBlocked {
			t.Errorf("standing %v is consent %v", s, got)
		}
	}
}

func TestPrevailing(t *testing.T) {
	refused, given := Act{Consent: ConsentListRefused, At: early}, Act{Consent: ConsentGiven, At: late, Evidence: true}
	unproven, older, unknown := given, given, given
	unproven.Evidence = false
	older.At = early.Add(-1)
	unknown.At = time.Time{}
	for _, c := range []struct {
		name string
		b    Act
		want Consent
	}{
		{"newer and proven", given, ConsentGiven},
		{"without evidence", unproven, ConsentListRefused},
		{"older", older, ConsentListRefused},
		{"at an unknown time", unknown, ConsentListRefused},
	} {
		if got := Prevailing(refused, c.b); got.Consent != c.want {
			t.Errorf("%s: %v, want %v", c.name, got.Consent, c.want)
		}
		if got := Prevailing(c.b, refused); got.Consent != c.want {
			t.Errorf("%s, the other way round: %v, want %v", c.name, got.Consent, c.want)
		}
	}
}

func TestMasterIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		var cands []Candidate
		for i := range n {
			table := rapid.SampledFrom([]string{"contact", "lead", "account", "custom"}).Draw(t, "table")
			cands = append(cands, Candidate{
				Ref: lockstep.Ref{Table: table, ID: lockstep.ID{byte(i)}}, Rank: Rank(TableOrder, table),
				Member: rapid.Bool().Draw(t, "member"), Modified: rapid.Int64Range(0, 2).Draw(t, "modified"),
			})
		}
		best := cands[Best(cands)]
		shuffled := rapid.Permutation(cands).Draw(t, "order")
		if got := shuffled[Best(shuffled)]; got != best {
			t.Fatalf("%v in one order, %v in another", best, got)
		}
		slices.SortFunc(shuffled, func(a, b Candidate) int {
			if Less(a, b) == Less(b, a) {
				if a != b {
					t.Fatalf("%v and %v are not ordered", a, b)
				}
				return 0
			}
			if Less(a, b) {
				return -1
			}
			return 1
		})
		if shuffled[0] != best {
			t.Fatalf("sorted first %v, best %v", shuffled[0], best)
		}
	})
}

func TestLess(t *testing.T) {
	contact := Candidate{Ref: lockstep.Ref{Table: "contact", ID: lockstep.ID{9}}, Rank: Rank(TableOrder, "contact")}
	lead := Candidate{Ref: lockstep.Ref{Table: "lead", ID: lockstep.ID{1}}, Rank: Rank(TableOrder, "lead"), Member: true, Modified: 99}
	if !Less(contact, lead) {
		t.Error("a contact goes before a lead, whatever else")
	}
	member, newerOne := contact, contact
	member.Member = true
	newerOne.Modified = 5
	if !Less(member, newerOne) || !Less(newerOne, contact) {
		t.Error("membership goes before the later change, that before none")
	}
	lower := contact
	lower.Ref.ID = lockstep.ID{1}
	if !Less(lower, contact) || Less(contact, contact) {
		t.Error("the lower id goes first, and nothing before itself")
	}
	if Best(nil) != -1 {
		t.Error("nobody is the best of none")
	}
}
