package merge

import (
	"testing"
	"time"

	lockstep "github.com/lockstep-sync/lockstep"
	"pgregory.net/rapid"
)

var (
	absent = lockstep.Value{}
	null   = lockstep.NullValue()
	early  = time.Date(2024, 3, 1, 10, 0, 0, 0, time.UTC)
	late   = early.Add(time.Hour)
)

func text(s string) lockstep.Value { return lockstep.TextValue(s) }

// show writes an outcome in the notation of the tables: "P=x" writes x to the
// platform, "C=x" to the CRM, "-" nothing; "!" in front marks a conflict, "?" one
// that is held.
func show(o FieldOutcome) string {
	s := "-"
	switch {
	case o.WritePlatform && o.WriteCRM:
		s = "both"
	case o.WritePlatform:
		s = "P=" + o.Value.Text()
	case o.WriteCRM:
		s = "C=" + o.Value.Text()
	}
	switch {
	case o.Conflict && o.Winner == Neither:
		s = "?" + s
	case o.Conflict:
		s = "!" + s
	}
	return s
}

func num(s string) lockstep.Value { return lockstep.CanonicalValue(lockstep.Number, s) }

func twoWayRule(policy lockstep.Winner) Rule {
	m := &lockstep.DataMapping{Winner: policy, Empty: lockstep.EmptyClear}
	return NewRule(m, m, absent, absent, false)
}

func TestField(t *testing.T) {
	mapping := func(empty lockstep.EmptyPolicy) *lockstep.DataMapping { return &lockstep.DataMapping{Empty: empty} }
	clears, keeps, fills := mapping(lockstep.EmptyClear), mapping(lockstep.EmptyKeep), mapping(lockstep.EmptyDefault)
	d := text("d")
	outOnly, inOnly := NewRule(clears, nil, absent, absent, false), NewRule(nil, clears, absent, absent, false)
	both := NewRule(clears, clears, absent, absent, false)
	b, x, y := text("b"), text("x"), text("y")
	for _, c := range []struct {
		name                string
		rule                Rule
		base, crm, platform lockstep.Value
		crmAt, platformAt   time.Time
		want                string
		wantBase            lockstep.Value
	}{
		{"first sync, out takes the CRM", outOnly, absent, x, y, early, late, "P=x", x},
		{"first sync, out, platform not read", outOnly, absent, x, absent, early, late, "P=x", x},
		{"first sync, in takes the platform", inOnly, absent, x, y, late, early, "C=y", y},
		{"first sync, in, platform empty", inOnly, absent, x, null, early, late, "-", absent},
		{"first sync, two-way, CRM empty", both, absent, null, y, early, late, "C=y", y},
		{"first sync, two-way, platform empty", both, absent, x, null, early, late, "P=x", x},
		{"first sync, two-way, both differ", both, absent, x, y, early, late, "!P=x", x},
		{"first sync, two-way, equal", both, absent, x, x, early, late, "-", x},
		{"first sync, two-way, both empty", both, absent, null, null, early, late, "-", null},
		{"first sync, two-way, platform not read", both, absent, x, absent, early, late, "-", absent},

		{"conflict, newer CRM", both, b, x, y, late, early, "!P=x", x},
		{"conflict, newer platform", both, b, x, y, early, late, "!C=y", y},
		{"conflict, tie goes to the CRM", both, b, x, y, early, early, "!P=x", x},
		{"conflict, CRM's time unknown", both, b, x, y, time.Time{}, late, "!P=x", x},
		{"conflict, platform's time unknown", both, b, x, y, early, time.Time{}, "!P=x", x},
		{"both made the same change", both, b, x, x, early, late, "-", x},

		{"not read means as the base: CRM", both, b, absent, y, early, late, "C=y", y},
		{"not read means as the base: platform", both, b, x, absent, early, late, "P=x", x},
		{"nothing read", both, b, absent, absent, early, late, "-", b},
		{"out, platform edited by itself", outOnly, b, b, y, early, late, "-", b},
		{"out, both edited", outOnly, b, x, y, early, late, "P=x", x},
		{"in, CRM edited by itself", inOnly, b, x, b, early, late, "-", b},
		{"in, both edited", inOnly, b, x, y, late, early, "C=y", y},
		{"not mapped", NewRule(nil, nil, absent, absent, false), b, x, y, early, late, "-", b},

		{"CRM cleared, clear", outOnly, b, null, b, early, late, "P=", null},
		{"CRM cleared, keep", NewRule(keeps, nil, absent, absent, false), b, null, b, early, late, "-", b},
		{"CRM cleared, default", NewRule(fills, nil, d, absent, false), b, null, b, early, late, "P=d", d},
		{"CRM never filled, default", NewRule(fills, nil, d, absent, false), absent, null, null, early, late, "P=d", d},
		{"CRM cleared, default there already", NewRule(fills, nil, d, absent, false), b, null, d, early, late, "-", d},
		{"CRM cleared, keep, platform changed, two-way", NewRule(keeps, clears, absent, absent, false), b, null, y, late, early, "C=y", y},

		{"platform cleared, clear", inOnly, b, b, null, early, late, "C=", null},
		{"platform cleared, keep", NewRule(nil, keeps, absent, absent, false), b, b, null, early, late, "-", b},
		{"platform cleared, default", NewRule(nil, fills, absent, d, false), b, b, null, early, late, "C=d", d},
		{"platform cleared, column required", NewRule(nil, clears, absent, absent, true), b, b, null, early, late, "-", b},
		{"platform cleared, CRM changed later", inOnly, b, x, null, late, early, "-", b},
		{"platform cleared after the CRM's change", inOnly, b, x, null, early, late, "C=", null},
		{"platform cleared, times unknown", inOnly, b, x, null, time.Time{}, time.Time{}, "-", b},
		{"platform cleared earlier, platform wins", twoWayRule(lockstep.WinnerPlatform), b, x, null, late, early, "!P=x", x},
		{"platform empty, base empty, CRM changed", both, null, x, null, early, late, "P=x", x},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Field(FieldInput{Rule: c.rule, Base: c.base, CRM: c.crm, Platform: c.platform, CRMAt: c.crmAt, PlatformAt: c.platformAt})
			if show(got) != c.want {
				t.Errorf("got %s, want %s", show(got), c.want)
			}
			if got.Base != c.wantBase {
				t.Errorf("new base %v, want %v", got.Base, c.wantBase)
			}
		})
	}
}

func TestPolicyOfTwoMappings(t *testing.T) {
	for _, c := range []struct{ out, in, want lockstep.Winner }{
		{"", "", lockstep.WinnerNewest},
		{lockstep.WinnerNewest, lockstep.WinnerPlatform, lockstep.WinnerPlatform},
		{lockstep.WinnerCRM, "", lockstep.WinnerCRM},
		{lockstep.WinnerCRM, lockstep.WinnerCRM, lockstep.WinnerCRM},
		{lockstep.WinnerCRM, lockstep.WinnerPlatform, lockstep.WinnerHold},
	} {
		got := NewRule(&lockstep.DataMapping{Winner: c.out}, &lockstep.DataMapping{Winner: c.in}, absent, absent, false).Policy
		if got != c.want {
			t.Errorf("out %q, in %q: got %q, want %q", c.out, c.in, got, c.want)
		}
	}
}

func drawWay(t *rapid.T, label string) Way {
	return Way{
		Mapped:   rapid.Bool().Draw(t, label+" mapped"),
		Empty:    rapid.SampledFrom([]lockstep.EmptyPolicy{"", lockstep.EmptyClear, lockstep.EmptyKeep, lockstep.EmptyDefault}).Draw(t, label+" empty"),
		Default:  rapid.SampledFrom([]lockstep.Value{absent, text("d"), text("a")}).Draw(t, label+" default"),
		Cautious: rapid.Bool().Draw(t, label+" cautious"),
		Required: rapid.Bool().Draw(t, label+" required"),
	}
}

func drawField(t *rapid.T) FieldInput {
	value := rapid.SampledFrom([]lockstep.Value{absent, null, text("a"), text("b"), text("c"), num("1"), lockstep.BoolValue(false)})
	at := rapid.SampledFrom([]time.Time{{}, early, late})
	return FieldInput{
		Rule: Rule{
			Out: drawWay(t, "out"), In: drawWay(t, "in"),
			Policy: rapid.SampledFrom([]lockstep.Winner{"", lockstep.WinnerNewest, lockstep.WinnerCRM, lockstep.WinnerPlatform, lockstep.WinnerHold}).Draw(t, "policy"),
			Tie:    rapid.SampledFrom([]Side{CRM, Platform}).Draw(t, "tie"),
		},
		Base: value.Draw(t, "base"), CRM: value.Draw(t, "crm"), Platform: value.Draw(t, "platform"),
		CRMAt: at.Draw(t, "crm at"), PlatformAt: at.Draw(t, "platform at"),
	}
}

func TestFieldIsDeterministicAndSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawField(t)
		got := Field(in)
		if again := Field(in); again != got {
			t.Fatalf("two answers to one question: %+v and %+v", got, again)
		}
		if got.WriteCRM && got.WritePlatform {
			t.Fatalf("both sides written: %+v", got)
		}
		if got.WriteCRM && !in.Rule.In.Mapped || got.WritePlatform && !in.Rule.Out.Mapped {
			t.Fatalf("a write against the mapped direction: %+v", got)
		}
		if (got.WriteCRM || got.WritePlatform) && (got.Value.IsAbsent() || got.Value != got.Base) {
			t.Fatalf("wrote %v with base %v", got.Value, got.Base)
		}
		next := in
		next.Base = got.Base
		if got.WriteCRM {
			next.CRM = got.Value
		}
		if got.WritePlatform {
			next.Platform = got.Value
		}
		then := Field(next)
		if then.WriteCRM || then.WritePlatform {
			t.Fatalf("first %s with base %v, then %s", show(got), got.Base, show(then))
		}
		if then.Conflict && got.Winner != Neither {
			t.Fatalf("a settled conflict came back: %s, then %s", show(got), show(then))
		}
		if then.Base != got.Base {
			t.Fatalf("the base moved from %v to %v without a change", got.Base, then.Base)
		}
	})
}

func TestFieldMirrors(t *testing.T) {
	swap := func(s Side) Side {
		if s == Neither {
			return s
		}
		return CRM + Platform - s
	}
	policies := map[lockstep.Winner]lockstep.Winner{lockstep.WinnerCRM: lockstep.WinnerPlatform, lockstep.WinnerPlatform: lockstep.WinnerCRM}
	rapid.Check(t, func(t *rapid.T) {
		in := drawField(t)
		m := FieldInput{
			Rule: Rule{Out: in.Rule.In, In: in.Rule.Out, Policy: in.Rule.Policy, Tie: swap(in.Rule.Tie)},
			Base: in.Base, CRM: in.Platform, Platform: in.CRM, CRMAt: in.PlatformAt, PlatformAt: in.CRMAt,
		}
		if p, ok := policies[in.Rule.Policy]; ok {
			m.Rule.Policy = p
		}
		want := Field(in)
		want.WriteCRM, want.WritePlatform, want.Winner = want.WritePlatform, want.WriteCRM, swap(want.Winner)
		if got := Field(m); got != want {
			t.Fatalf("mirror image %+v, want %+v", got, want)
		}
	})
}

func TestEqualSidesNeverAct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawField(t)
		in.Platform = in.CRM
		filled := in.CRM.IsNull() && (defaults(in.Rule.Out) != defaults(in.Rule.In)) // two empty sides may get a default
		if got := Field(in); got.Conflict || !filled && show(got) != "-" {
			t.Fatalf("equal sides: %s", show(got))
		}
	})
}

func TestEmptyPlatformNeverBlanksWhatItNeverHad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawField(t)
		in.Rule.In.Cautious = true
		in.Rule.Tie = CRM
		in.Platform = null
		got := Field(in)
		if got.WriteCRM && got.Value != in.Rule.In.Default && (!got.Value.IsNull() || in.Base.Kind() <= lockstep.Null) {
			t.Fatalf("an empty platform value with base %v wrote %v to the CRM", in.Base, got.Value)
		}
		if got.WriteCRM && got.Value.IsNull() && in.CRM != in.Base && !in.CRM.IsAbsent() && !newer(in.PlatformAt, in.CRMAt) {
			t.Fatal("an older empty value cleared the CRM")
		}
	})
}
