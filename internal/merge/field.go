package merge

import (
	"time"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Side is one of the two systems, or neither.
type Side uint8

// The sides.
const (
	CRM Side = iota
	Platform
	Neither
)

func (s Side) String() string {
	switch s {
	case CRM:
		return "crm"
	case Platform:
		return "platform"
	}
	return "held"
}

// Way is the rule for one direction of flow.
type Way struct {
	// Mapped is whether values flow this way at all.
	Mapped bool
	// Empty says what an empty value of the sender does to the receiver. The zero
	// value means EmptyClear.
	Empty lockstep.EmptyPolicy
	// Default is written for an empty value under EmptyDefault, in label form.
	Default lockstep.Value
	// Cautious lets an empty value clear the receiver only where the base was not
	// empty and the sender's change is the newer one. The way into the CRM is
	// cautious: a value that the platform never had must not blank a record.
	Cautious bool
	// Required marks a receiver that cannot hold an empty value: nothing clears it.
	Required bool
}

// Rule is how one label of one table is merged. It is made once for a run.
type Rule struct {
	Out, In Way // CRM to platform, platform to CRM
	// Policy decides when both sides of a two-way field changed differently. The
	// zero value means WinnerNewest.
	Policy lockstep.Winner
	// Tie is the side that wins when times are equal or unknown, and at a first
	// sync where both sides have a value. It is CRM; the other value exists so
	// that the mirror image of a rule is a rule.
	Tie Side
}

// NewRule makes the rule of a label from its mapping in each direction, nil where
// there is none. The defaults are the mappings' defaults in label form; required
// says that the CRM column cannot be empty. Of two mappings with different
// policies the one that differs from the usual "newest" counts; if both do, the
// field is held.
func NewRule(out, in *lockstep.DataMapping, outDefault, inDefault lockstep.Value, required bool) Rule {
	r := Rule{In: Way{Cautious: true, Required: required}}
	unusual := func(m *lockstep.DataMapping) bool {
		return m != nil && m.Winner != "" && m.Winner != lockstep.WinnerNewest
	}
	if out != nil {
		r.Out.Mapped, r.Out.Empty, r.Out.Default = true, out.Empty, outDefault
	}
	if in != nil {
		r.In.Mapped, r.In.Empty, r.In.Default = true, in.Empty, inDefault
	}
	switch {
	case unusual(out) && unusual(in) && out.Winner != in.Winner:
		r.Policy = lockstep.WinnerHold
	case unusual(out):
		r.Policy = out.Winner
	case unusual(in):
		r.Policy = in.Winner
	default:
		r.Policy = lockstep.WinnerNewest
	}
	return r
}

// FieldInput is what is known about one label of one linked pair, all values in
// label form.
type FieldInput struct {
	Rule Rule
	// Base is the value that both sides last agreed on; Absent = they never did.
	Base lockstep.Value
	// Apart is what the CRM said when the two sides were left with different values: by
	// an undo, or because the platform changed a field by itself that only flows there.
	// Base is then what the platform said. Absent = they agreed.
	Apart lockstep.Value
	// CRM and Platform are the values as read now; Absent = not read, which is
	// taken to mean "as the base". A contact that does not exist yet has Null.
	CRM, Platform lockstep.Value
	// CRMAt and PlatformAt are the times of the two sides' last changes; zero =
	// unknown.
	CRMAt, PlatformAt time.Time
}

// FieldOutcome is what has to be done with one label.
type FieldOutcome struct {
	// WriteCRM and WritePlatform ask for Value to be written; at most one is set.
	WriteCRM, WritePlatform bool
	Value                   lockstep.Value
	// Base is the base once the write, if any, was acknowledged, and Apart what the
	// CRM says where the two sides are left different on purpose.
	Base, Apart lockstep.Value
	// Conflict is set when both sides had a different say. Winner is then the side
	// whose value stays, or Neither when the field is held.
	Conflict bool
	Winner   Side
}

// Field merges one label: a three-way merge against the base. A side that equals
// the base has nothing to say; one change is carried over; two equal changes only
// set the base; two different changes of a two-way field go by the policy and are
// reported. Equal values never cause a write or a conflict, whatever the base,
// except that a field nobody has filled gets its EmptyDefault.
//
// Without a base a one-way field takes its sender's value; a two-way field takes
// the side that is not empty, and the CRM's where both are not; when one of the
// two was not read, nothing is decided.
//
// Sides that are apart are left alone until one of them changes; then that change
// counts as one from what this side said.
func Field(in FieldInput) FieldOutcome {
	if !in.Apart.IsAbsent() {
		return parted(in)
	}
	r := &in.Rule
	out := FieldOutcome{Base: in.Base, Winner: Neither}
	if in.CRM == in.Platform && !in.CRM.IsAbsent() && !in.CRM.IsNull() {
		out.Base = in.CRM
		return out
	}
	if in.CRM.IsNull() && in.Platform.IsNull() {
		return bothEmpty(in, out)
	}
	crm, platform := say(in.CRM, in.Base, r.Out), say(in.Platform, in.Base, r.In)
	switch {
	case r.Out.Mapped && r.In.Mapped:
		return twoWay(in, crm, platform, out)
	case r.Out.Mapped:
		return oneWay(r.Out, in.Base, crm, in.Platform, newer(in.CRMAt, in.PlatformAt), Platform, out)
	case r.In.Mapped:
		return oneWay(r.In, in.Base, platform, in.CRM, newer(in.PlatformAt, in.CRMAt), CRM, out)
	}
	return out
}

// parted merges a label whose two sides were set to different values on purpose.
func parted(in FieldInput) FieldOutcome {
	r := &in.Rule
	crmSame := in.CRM.IsAbsent() || in.CRM == in.Apart
	platformSame := in.Platform.IsAbsent() || in.Platform == in.Base
	switch {
	case crmSame && platformSame && in.Apart != in.Base:
		return FieldOutcome{Base: in.Base, Apart: in.Apart, Winner: Neither}
	case crmSame:
		in.CRM, in.Base = in.Apart, in.Apart
		if said := say(in.Apart, in.Base, r.Out); !said.IsAbsent() {
			in.Base = said
		}
	case platformSame:
		in.Platform = in.Base
	case r.Out.Mapped && r.In.Mapped:
		crm, platform := say(in.CRM, in.Base, r.Out), say(in.Platform, in.Base, r.In)
		if in.CRM != in.Platform && crm != platform && !crm.IsAbsent() && !platform.IsAbsent() {
			return quarrel(in, crm, platform, FieldOutcome{Base: in.Base, Apart: in.Apart, Winner: Neither})
		}
	case r.Out.Mapped:
		in.Base = in.Apart
	}
	in.Apart = lockstep.Value{}
	return Field(in)
}

// bothEmpty gives a default to the receiver of a field that nobody has filled.
// Once the two sides of a two-way field agreed on nothing, it stays empty: a
// default would undo the clearing that led there.
func bothEmpty(in FieldInput, out FieldOutcome) FieldOutcome {
	outDefault, inDefault := defaults(in.Rule.Out), defaults(in.Rule.In)
	settled := in.Rule.Out.Mapped && in.Rule.In.Mapped && !in.Base.IsAbsent()
	switch {
	case outDefault && !inDefault && !settled:
		return write(Platform, in.Rule.Out.Default, out)
	case inDefault && !outDefault && !settled:
		return write(CRM, in.Rule.In.Default, out)
	}
	out.Base = lockstep.NullValue()
	return out
}

func defaults(w Way) bool {
	return w.Mapped && w.Empty == lockstep.EmptyDefault && w.Default.Kind() > lockstep.Null
}

// say returns what a sender's value means under the rule of its way: an empty
// value may stand for the default or for no statement at all (Absent).
func say(v, base lockstep.Value, w Way) lockstep.Value {
	if !v.IsNull() || !w.Mapped {
		return v
	}
	switch w.Empty {
	case lockstep.EmptyKeep:
		return lockstep.Value{}
	case lockstep.EmptyDefault:
		if defaults(w) {
			return w.Default
		}
		return lockstep.Value{} // a default that is empty itself changes nothing
	}
	if w.Required || w.Cautious && base.IsAbsent() {
		return lockstep.Value{}
	}
	return v
}

// oneWay carries a sender's change to the receiver. What the receiver changed by
// itself stays until the sender changes again.
func oneWay(w Way, base, from, to lockstep.Value, fromNewer bool, receiver Side, out FieldOutcome) FieldOutcome {
	if from.IsAbsent() || from == base {
		return out
	}
	if to.IsAbsent() {
		to = base
	}
	if from == to && !to.IsAbsent() {
		out.Base = to
		return out
	}
	if from.IsNull() && w.Cautious && to != base && !fromNewer {
		return out
	}
	return write(receiver, from, out)
}

// Drift completes the outcome of a field that only flows to the platform and that the
// platform changed by itself: nothing is written, but what it says is noted, so that
// the old value is known when the CRM's is written next.
func Drift(in FieldInput, out FieldOutcome) FieldOutcome {
	r := &in.Rule
	if !r.Out.Mapped || r.In.Mapped || out.WritePlatform || !out.Apart.IsAbsent() || out.Base.IsAbsent() || in.Platform.IsAbsent() || in.CRM.IsAbsent() {
		return out
	}
	if crm := say(in.CRM, out.Base, r.Out); in.Platform != out.Base && (crm == out.Base || crm.IsAbsent()) {
		out.Base, out.Apart = in.Platform, in.CRM
	}
	return out
}

func twoWay(in FieldInput, crm, platform lockstep.Value, out FieldOutcome) FieldOutcome {
	if in.Base.IsAbsent() {
		return first(in, out)
	}
	if crm.IsAbsent() {
		crm = in.Base
	}
	if platform.IsAbsent() {
		platform = in.Base
	}
	switch {
	case crm == platform:
		out.Base = crm
		return out
	case platform == in.Base:
		return write(Platform, crm, out)
	case crm == in.Base:
		return write(CRM, platform, out)
	}
	return quarrel(in, crm, platform, out)
}

// quarrel lets the policy decide between two different changes.
func quarrel(in FieldInput, crm, platform lockstep.Value, out FieldOutcome) FieldOutcome {
	out.Conflict = true
	switch out.Winner = winner(in); out.Winner {
	case CRM:
		if crm.IsNull() && in.Rule.Out.Cautious && !newer(in.CRMAt, in.PlatformAt) {
			out.Winner = Platform
		}
	case Platform:
		if platform.IsNull() && in.Rule.In.Cautious && !newer(in.PlatformAt, in.CRMAt) {
			out.Winner = CRM
		}
	}
	switch out.Winner {
	case CRM:
		return write(Platform, crm, out)
	case Platform:
		return write(CRM, platform, out)
	}
	return out
}

// first joins two sides that never agreed. The values count as they are, without
// the policies for empty values: a value always beats none.
func first(in FieldInput, out FieldOutcome) FieldOutcome {
	switch {
	case in.CRM.IsAbsent() || in.Platform.IsAbsent():
		return out
	case in.CRM.IsNull():
		return write(CRM, in.Platform, out)
	case in.Platform.IsNull():
		return write(Platform, in.CRM, out)
	}
	out.Conflict, out.Winner = true, in.Rule.Tie
	if in.Rule.Tie == Platform {
		return write(CRM, in.Platform, out)
	}
	out.Winner = CRM
	return write(Platform, in.CRM, out)
}

func write(receiver Side, v lockstep.Value, out FieldOutcome) FieldOutcome {
	out.WriteCRM, out.WritePlatform = receiver == CRM, receiver == Platform
	out.Value, out.Base, out.Apart = v, v, lockstep.Value{}
	return out
}

func winner(in FieldInput) Side {
	switch in.Rule.Policy {
	case lockstep.WinnerHold:
		return Neither
	case lockstep.WinnerCRM:
		return CRM
	case lockstep.WinnerPlatform:
		return Platform
	}
	switch {
	case newer(in.CRMAt, in.PlatformAt):
		return CRM
	case newer(in.PlatformAt, in.CRMAt):
		return Platform
	case in.Rule.Tie == Platform:
		return Platform
	}
	return CRM
}

// newer reports whether a is known to be later than b.
func newer(a, b time.Time) bool { return !a.IsZero() && !b.IsZero() && a.After(b) }
