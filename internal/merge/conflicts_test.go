package merge

import (
	"os"
	"slices"
	"strings"
	"testing"

	lockstep "github.com/lockstep-sync/lockstep"
)

// TestConflicts checks the table of conflicts, testdata/conflicts.golden, as far as it
// is about values. What it says about deletions is no decision of this package; whole
// runs check it, with the rest of the table, in internal/e2e.
func TestConflicts(t *testing.T) {
	text, err := os.ReadFile("testdata/conflicts.golden")
	if err != nil {
		t.Fatal(err)
	}
	choices := func(s string) lockstep.Value { return lockstep.CanonicalValue(lockstep.Choices, s) }
	// The values that the table calls b, x and y.
	scalars := map[string][3]lockstep.Value{
		"text":   {lockstep.TextValue("b"), lockstep.TextValue("x"), lockstep.TextValue("y")},
		"number": {num("1.5"), num("0"), num("-2")},
		"option": {num("1"), num("2"), num("3")},
		"day":    {lockstep.CanonicalValue(lockstep.Date, "2001-01-31"), lockstep.CanonicalValue(lockstep.Date, "2002-02-28"), lockstep.CanonicalValue(lockstep.Date, "1753-01-01")},
		"time":   {lockstep.TimeValue(early), lockstep.TimeValue(late), lockstep.TimeValue(late.Add(1e9))},
	}
	multi := map[string][3]lockstep.Value{"multi-select": {choices("1,2"), choices("4"), choices("1,2,3")}}
	cells, section := map[string]int{}, ""
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "#" || f[0] == "CRM":
			continue
		case line[0] == '[':
			section = strings.Trim(strings.TrimSpace(line), "[]")
			continue
		case len(f) != 10:
			t.Fatalf("a row of %d columns: %s", len(f), line)
		}
		cells[section+" "+f[0]+" "+f[1]]++
		if f[0] == "deleted" || f[1] == "deleted" {
			continue
		}
		rule, kinds := NewRule(&lockstep.DataMapping{}, nil, absent, absent, false), multi
		if policy, ok := strings.CutPrefix(section, "policy "); ok {
			rule, kinds = twoWayRule(lockstep.Winner(policy)), scalars
		}
		for kind, v := range kinds {
			for _, later := range []string{"crm", "platform"} {
				if f[2] != "any" && f[2] != later {
					continue
				}
				if got := conflictRow(rule, f[0], f[1], later, v); !slices.Equal(got, f[3:8]) {
					t.Errorf("%s, %s: CRM %s, platform %s, later %s: got %q, want %q", section, kind, f[0], f[1], later, got, f[3:8])
				}
			}
		}
	}
	if len(cells) != 5*20 {
		t.Errorf("the table has %d cells, want 20 for each of four policies and for multi-selects", len(cells))
	}
}

// conflictRow is what each side says after a merge, what is written, who wins and
// what is kept, in the table's words.
func conflictRow(rule Rule, crm, platform, later string, v [3]lockstep.Value) []string {
	in := FieldInput{Rule: rule, Base: v[0], CRMAt: early, PlatformAt: late}
	if later == "crm" {
		in.CRMAt, in.PlatformAt = late, early
	}
	in.CRM = map[string]lockstep.Value{"same": v[0], "changed": v[1], "cleared": null}[crm]
	in.Platform = map[string]lockstep.Value{"same": v[0], "changed": v[2], "cleared": null, "equal": in.CRM}[platform]
	name := func(x lockstep.Value) string {
		if x.IsNull() {
			return "(empty)"
		}
		if i := slices.Index(v[:], x); i >= 0 {
			return "bxy"[i : i+1]
		}
		return "?" + x.Text()
	}
	out := Drift(in, Field(in))
	writes, conflict, kept := "-", "-", "-"
	switch {
	case out.WriteCRM && out.WritePlatform:
		writes = "both"
	case out.WriteCRM:
		writes = "crm=" + name(out.Value)
	case out.WritePlatform:
		writes = "platform=" + name(out.Value)
	}
	switch {
	case !out.Conflict && out.WritePlatform && !rule.In.Mapped:
		kept = name(in.Platform)
	case !out.Conflict:
	case out.Winner == CRM:
		conflict, kept = "crm", name(in.Platform)
	case out.Winner == Platform:
		conflict, kept = "platform", name(in.CRM)
	default:
		conflict, kept = "held", name(in.CRM)+","+name(in.Platform)
	}
	if out.WriteCRM {
		in.CRM = out.Value
	}
	if out.WritePlatform {
		in.Platform = out.Value
	}
	return []string{name(in.CRM), name(in.Platform), writes, conflict, kept}
}
