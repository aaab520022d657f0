package merge

import (
	"testing"

	lockstep "github.com/lockstep-sync/lockstep"
	"pgregory.net/rapid"
)

// After an undo the platform says "old" and the CRM "new", on purpose.
func TestSidesSetApart(t *testing.T) {
	out, in := Way{Mapped: true}, Way{Mapped: true, Cautious: true}
	rules := map[string]Rule{
		"two ways": {Out: out, In: in, Policy: lockstep.WinnerNewest},
		"held":     {Out: out, In: in, Policy: lockstep.WinnerHold},
		"outward":  {Out: out},
		"inward":   {In: in},
	}
	for _, c := range []struct {
		rule          string
		crm, platform lockstep.Value
		want          string
		apart         bool
	}{
		{"two ways", text("new"), text("old"), "-", true},
		{"two ways", text("new"), absent, "-", true},
		{"two ways", absent, text("old"), "-", true},
		{"two ways", text("newer"), text("old"), "P=newer", false},
		{"two ways", text("newer"), absent, "P=newer", false},
		{"two ways", null, text("old"), "P=", false},
		{"two ways", text("new"), text("else"), "C=else", false},
		{"two ways", text("new"), text("new"), "-", false},
		{"two ways", text("old"), text("old"), "-", false},
		{"two ways", text("newer"), text("else"), "!C=else", false},
		{"two ways", text("old"), text("new"), "!C=new", false}, // each took the other's: that is a quarrel
		{"held", text("newer"), text("else"), "?-", true},
		{"outward", text("new"), text("old"), "-", true},
		{"outward", text("new"), text("else"), "-", false},
		{"outward", text("newer"), text("old"), "P=newer", false},
		{"outward", text("newer"), text("else"), "P=newer", false},
		{"inward", text("new"), text("old"), "-", true},
		{"inward", text("newer"), text("old"), "-", false},
		{"inward", text("new"), text("else"), "C=else", false},
	} {
		got := Field(FieldInput{Rule: rules[c.rule], Base: text("old"), Apart: text("new"), CRM: c.crm, Platform: c.platform, CRMAt: early, PlatformAt: late})
		if show(got) != c.want || got.Apart.IsAbsent() == c.apart {
			t.Errorf("%s, CRM %s, platform %s: %s, apart %v; want %s, apart %v", c.rule, c.crm, c.platform, show(got), got.Apart, c.want, c.apart)
		}
	}
}

// Whatever two sides say, once a merge was carried out, merging again does nothing.
func TestApartSettles(t *testing.T) {
	values := []lockstep.Value{absent, null, text("a"), text("b"), text("c")}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) lockstep.Value { return rapid.SampledFrom(values).Draw(t, name) }
		way := func(name string) Way { return Way{Mapped: rapid.Bool().Draw(t, name)} }
		in := FieldInput{
			Rule: Rule{Out: way("out"), In: way("in"), Policy: rapid.SampledFrom([]lockstep.Winner{lockstep.WinnerNewest, lockstep.WinnerHold, lockstep.WinnerCRM}).Draw(t, "policy")},
			Base: rapid.SampledFrom(values[1:]).Draw(t, "base"), Apart: rapid.SampledFrom(values[1:]).Draw(t, "apart"), CRM: draw("crm"), Platform: draw("platform"), CRMAt: early, PlatformAt: late,
		}
		in.Rule.In.Cautious = true
		out := Field(in)
		if in.CRM.IsAbsent() {
			in.CRM = in.Apart
		}
		if in.Platform.IsAbsent() {
			in.Platform = in.Base
		}
		if out.WriteCRM {
			in.CRM = out.Value
		}
		if out.WritePlatform {
			in.Platform = out.Value
		}
		in.Base, in.Apart = out.Base, out.Apart
		again := Field(in)
		if again.WriteCRM || again.WritePlatform {
			t.Fatalf("after %s the same again says %s: %+v", show(out), show(again), in)
		}
	})
}

func TestWhatAnUndoPutInOrOutOfABookStays(t *testing.T) {
	for name, c := range map[string]struct {
		in   MembershipInput
		want Op
	}{
		"taken out, still a member":       {MembershipInput{InList: true, WasInList: true, Kept: true}, Nothing},
		"taken out, then signed up again": {MembershipInput{InList: true, WasInList: true, InBook: true, Kept: true}, Nothing},
		"put back, not a member":          {MembershipInput{InBook: true, WasInBook: true, MirrorRemovals: true, Action: lockstep.ActionRemove, Kept: true}, Nothing},
		"put back into a dynamic list":    {MembershipInput{Dynamic: true, InBook: true, WasInBook: true, Kept: true}, Nothing},
		"opted out since":                 {MembershipInput{InList: true, WasInList: true, InBook: true, Excluded: "opted out", Kept: true}, RemoveFromBook},
		"not kept":                        {MembershipInput{InList: true, WasInList: true}, AddToBook},
	} {
		if got := Membership(c.in); got.Op != c.want {
			t.Errorf("%s: %s, want %s", name, got.Op, c.want)
		}
	}
}

// A field that only flows to the platform: what the platform makes of it is known.
func TestDrift(t *testing.T) {
	outward := Rule{Out: Way{Mapped: true}}
	withDefault := Rule{Out: Way{Mapped: true, Empty: lockstep.EmptyDefault, Default: text("d")}}
	for _, c := range []struct {
		rule                 Rule
		base, crm, platform  lockstep.Value
		want                 string
		wantBase, wantParted lockstep.Value
	}{
		{outward, text("b"), text("b"), text("y"), "-", text("y"), text("b")},
		{outward, text("b"), text("b"), text("b"), "-", text("b"), absent},
		{outward, text("b"), text("b"), absent, "-", text("b"), absent},
		{outward, text("b"), text("x"), text("y"), "P=x", text("x"), absent},
		{withDefault, text("d"), null, text("y"), "-", text("y"), null},
		{Rule{Out: Way{Mapped: true}, In: Way{Mapped: true}}, text("b"), text("b"), text("y"), "C=y", text("y"), absent},
	} {
		in := FieldInput{Rule: c.rule, Base: c.base, CRM: c.crm, Platform: c.platform}
		out := Drift(in, Field(in))
		if show(out) != c.want || out.Base != c.wantBase || out.Apart != c.wantParted {
			t.Errorf("%+v: %s, base %v, apart %v", c, show(out), out.Base, out.Apart)
		}
		if out.Apart.IsAbsent() {
			continue
		}
		// The same again, and another edit on the platform: still nothing is written.
		for _, platform := range []lockstep.Value{c.platform, text("z")} {
			again := FieldInput{Rule: c.rule, Base: out.Base, Apart: out.Apart, CRM: c.crm, Platform: platform}
			if next := Drift(again, Field(again)); show(next) != "-" || next.Base != platform {
				t.Errorf("%+v: then %v: %s, base %v", c, platform, show(next), next.Base)
			}
		}
	}
}
