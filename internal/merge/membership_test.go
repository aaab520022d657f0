package merge

import (
	"testing"

	lockstep "github.com/lockstep-sync/lockstep"
)

var actions = []lockstep.MembershipAction{lockstep.ActionIgnore, lockstep.ActionRemove, lockstep.ActionAllowKnown, lockstep.ActionCreateLead, lockstep.ActionCreateContact}

func TestMembershipCells(t *testing.T) {
	stranger := MembershipInput{InBook: true, WasInBook: true, Standing: lockstep.Subscribed, MirrorRemovals: true, CreateLeft: 10}
	known := stranger
	known.Matches = 1
	with := func(in MembershipInput, change func(*MembershipInput)) MembershipInput { change(&in); return in }
	row := func(ops ...Op) []Op { return ops } // ignore, remove, allow known, create lead, create contact, dynamic
	all := func(o Op) []Op { return row(o, o, o, o, o, o) }
	for _, c := range []struct {
		name string
		in   MembershipInput
		want []Op
	}{
		{"member not in the book", MembershipInput{InList: true}, all(AddToBook)},
		{"member in the book", MembershipInput{InList: true, InBook: true, Standing: lockstep.Subscribed}, all(Nothing)},
		{"member that the platform lost", MembershipInput{InList: true, WasInList: true, WasInBook: true, Standing: lockstep.Subscribed}, all(AddToBook)},
		{"member without email", MembershipInput{InList: true, NoEmail: true}, all(Nothing)},
		{"member without email any more", MembershipInput{InList: true, InBook: true, NoEmail: true}, all(RemoveFromBook)},
		{"excluded member in the book", MembershipInput{InList: true, InBook: true, Excluded: "x"}, all(RemoveFromBook)},
		{"excluded member first seen in the book", MembershipInput{InList: true, InBook: true, FirstSeen: true, Excluded: "x"}, all(RemoveFromBook)},
		{"excluded member without an address any more", MembershipInput{InList: true, InBook: true, NoEmail: true, Excluded: "x"}, all(RemoveFromBook)},
		{"excluded member not in the book", MembershipInput{InList: true, Excluded: "x"}, all(Nothing)},
		{"member who left the book", MembershipInput{InList: true, Unsubscribed: true, Standing: lockstep.Subscribed}, all(Nothing)},
		{"member who is suppressed", MembershipInput{InList: true, Standing: lockstep.Suppressed}, all(Nothing)},
		{"member deleted on the platform", MembershipInput{InList: true, Standing: lockstep.ContactDeleted}, all(Nothing)},
		{"member who has still to confirm", MembershipInput{InList: true, Standing: lockstep.PendingOptIn}, all(AddToBook)},
		{"in neither", MembershipInput{WasInList: true, WasInBook: true, MirrorRemovals: true}, all(Nothing)},

		{"unknown stranger", stranger, row(Nothing, RemoveFromBook, Nothing, CreateRecord, CreateRecord, RemoveFromBook)},
		{"unknown stranger, first seen", with(stranger, func(in *MembershipInput) { in.FirstSeen, in.WasInBook = true, false }), row(Nothing, Nothing, Nothing, CreateRecord, CreateRecord, RemoveFromBook)},
		{"unknown stranger, suppressed", with(stranger, func(in *MembershipInput) { in.Standing = lockstep.Suppressed }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"unknown stranger, has still to confirm", with(stranger, func(in *MembershipInput) { in.Standing = lockstep.PendingOptIn }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"unknown stranger, left the book", with(stranger, func(in *MembershipInput) { in.Unsubscribed = true }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"unknown stranger, excluded", with(stranger, func(in *MembershipInput) { in.Excluded = "x" }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"unknown stranger without email", with(stranger, func(in *MembershipInput) { in.NoEmail = true }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"unknown stranger, cap reached", with(stranger, func(in *MembershipInput) { in.CreateLeft = 0 }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},

		{"known stranger", known, row(Nothing, RemoveFromBook, AddToList, AddToList, AddToList, RemoveFromBook)},
		{"known stranger, first seen", with(known, func(in *MembershipInput) { in.FirstSeen, in.WasInBook = true, false }), row(Nothing, Nothing, AddToList, AddToList, AddToList, RemoveFromBook)},
		{"known stranger, cap reached", with(known, func(in *MembershipInput) { in.CreateLeft = 0 }), row(Nothing, RemoveFromBook, AddToList, AddToList, AddToList, RemoveFromBook)},
		{"known stranger, match is a member", with(known, func(in *MembershipInput) { in.Matches, in.MatchInList = 2, true }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"known stranger, no bulk email", with(known, func(in *MembershipInput) { in.MatchOptOut = lockstep.DoNotBulkEmail }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"known stranger, no material", with(known, func(in *MembershipInput) { in.MatchOptOut = lockstep.DoNotMaterial }), row(Nothing, RemoveFromBook, AddToList, AddToList, AddToList, RemoveFromBook)},
		{"known stranger, unsubscribed", with(known, func(in *MembershipInput) { in.Standing = lockstep.Unsubscribed }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"known stranger, excluded", with(known, func(in *MembershipInput) { in.Excluded = "x" }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},

		{"former member, mirrored", with(known, func(in *MembershipInput) { in.WasInList = true }), all(RemoveFromBook)},
		{"former member, not mirrored", with(known, func(in *MembershipInput) { in.WasInList, in.MirrorRemovals = true, false }), row(Nothing, RemoveFromBook, Nothing, Nothing, Nothing, RemoveFromBook)},
		{"former member who signed up anew", with(known, func(in *MembershipInput) { in.WasInList, in.WasInBook, in.FirstSeen = true, false, true }), row(Nothing, Nothing, AddToList, AddToList, AddToList, RemoveFromBook)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, want := range c.want {
				in := c.in
				if in.Dynamic = i == len(actions); !in.Dynamic {
					in.Action = actions[i]
				}
				if got := Membership(in); got.Op != want {
					t.Errorf("%s, dynamic %v: got %v (%s), want %v", in.Action, in.Dynamic, got.Op, got.Why, want)
				}
			}
		})
	}
}

func TestMembershipFindings(t *testing.T) {
	base := MembershipInput{Action: lockstep.ActionCreateLead, InBook: true, WasInBook: true, Standing: lockstep.Subscribed, CreateLeft: 1}
	for _, c := range []struct {
		name   string
		change func(*MembershipInput)
		want   string
	}{
		{"member without email", func(in *MembershipInput) { in.InList, in.NoEmail = true, true }, lockstep.FindingNoEmail},
		{"stranger without email", func(in *MembershipInput) { in.NoEmail = true }, lockstep.FindingNoEmail},
		{"two matches", func(in *MembershipInput) { in.Matches = 2 }, lockstep.FindingDuplicate},
		{"two matches, one is a member", func(in *MembershipInput) { in.Matches, in.MatchInList = 2, true }, lockstep.FindingDuplicate},
		{"one match", func(in *MembershipInput) { in.Matches = 1 }, ""},
		{"match opted out", func(in *MembershipInput) { in.Matches, in.MatchOptOut = 1, lockstep.DoNotEmail }, lockstep.FindingBlockedByConsent},
		{"match suppressed", func(in *MembershipInput) { in.Matches, in.Standing = 1, lockstep.Complained }, lockstep.FindingBlockedByConsent},
		{"unknown and suppressed", func(in *MembershipInput) { in.Standing = lockstep.Complained }, ""},
		{"cap", func(in *MembershipInput) { in.CreateLeft = 0 }, lockstep.FindingCreateCap},
		{"created", func(*MembershipInput) {}, ""},
	} {
		in := base
		c.change(&in)
		if got := Membership(in); got.Finding != c.want {
			t.Errorf("%s: finding %q (%s), want %q", c.name, got.Finding, got.Why, c.want)
		}
	}
}

// everyMembership calls each with every combination of what can be known.
func everyMembership(each func(MembershipInput)) {
	standings := []lockstep.Standing{lockstep.StandingUnknown, lockstep.Subscribed, lockstep.PendingOptIn, lockstep.Unsubscribed, lockstep.ContactDeleted}
	for bits := range 1 << 13 {
		on := func(i int) bool { return bits>>i&1 == 1 }
		in := MembershipInput{
			Dynamic: on(0), MirrorRemovals: on(1), InList: on(2), WasInList: on(3), InBook: on(4), WasInBook: on(5),
			FirstSeen: on(6), NoEmail: on(7), Unsubscribed: on(8), MatchInList: on(9),
		}
		if on(10) {
			in.Excluded = "x"
		}
		if on(11) {
			in.MatchOptOut = lockstep.DoNotBulkEmail
		}
		if on(12) {
			in.CreateLeft = 1
		}
		for in.Matches = range 3 {
			for _, in.Standing = range standings {
				for _, in.Action = range actions {
					each(in)
				}
			}
		}
	}
}

func TestMembershipLaws(t *testing.T) {
	failed := 0
	everyMembership(func(in MembershipInput) {
		got := Membership(in)
		law := ""
		writesCRM := got.Op == AddToList || got.Op == CreateRecord
		switch {
		case in.Dynamic && writesCRM:
			law = "a dynamic list never writes CRM membership"
		case !in.Dynamic && in.Action == lockstep.ActionIgnore && !in.MirrorRemovals && !in.InList && got.Op == RemoveFromBook:
			law = "ignore without mirroring never removes"
		case in.Action == lockstep.ActionIgnore && writesCRM, in.Action == lockstep.ActionRemove && writesCRM:
			law = "ignore and remove never write the CRM"
		case in.Action == lockstep.ActionAllowKnown && got.Op == CreateRecord:
			law = "allow known never creates"
		case writesCRM && (!in.Standing.Mailable() || in.Unsubscribed || in.Excluded != "" || in.NoEmail):
			law = "nobody who may not be mailed is added to a list"
		case got.Op == AddToBook && (in.Unsubscribed || in.Standing >= lockstep.Unsubscribed || in.Excluded != "" || in.NoEmail || !in.InList):
			law = "nobody who opted out is added to a book"
		case got.Op == CreateRecord && (in.CreateLeft <= 0 || in.Matches > 0):
			law = "no record is created beyond the cap or beside a known one"
		case got.Op == RemoveFromBook && (!in.InBook || in.InList && in.Excluded == "" && !in.NoEmail):
			law = "only people in the book are removed, and members only when excluded or without an address"
		case in.FirstSeen && !in.Dynamic && !in.InList && !in.WasInBook && got.Op == RemoveFromBook:
			law = "nobody is removed in the cycle that met them first"
		case in.InList && in.Excluded != "" && in.InBook && got.Op != RemoveFromBook:
			law = "an excluded member leaves the book"
		}
		if law != "" && failed < 5 {
			failed++
			t.Errorf("%s: %+v gave %v", law, in, got)
		}
	})
}

func TestMembershipSettles(t *testing.T) {
	failed := 0
	everyMembership(func(in MembershipInput) {
		got := Membership(in)
		next := in
		switch got.Op {
		case AddToBook:
			next.InBook = true
		case RemoveFromBook:
			next.InBook = false
		case AddToList:
			next.InList, next.MatchInList = true, true
		case CreateRecord:
			next.InList, next.MatchInList, next.Matches = true, true, 1
			next.CreateLeft--
		}
		if then := Membership(next); then.Op != Nothing && failed < 5 {
			failed++
			t.Errorf("%+v gave %v, then %v", in, got.Op, then.Op)
		}
		// The next cycle starts from what this one left behind.
		next.WasInList, next.WasInBook, next.FirstSeen = next.InList || in.WasInList && next.InBook, next.InBook, false
		then := Membership(next)
		late := got.Why == ReasonFirstSeen || !in.WasInBook // what was new is an old acquaintance now
		if then.Op != Nothing && !late && failed < 5 {
			failed++
			t.Errorf("%+v gave %v, then %v in the next cycle", in, got.Op, then.Op)
		}
	})
}

func TestCheckAction(t *testing.T) {
	for _, c := range []struct {
		action  lockstep.MembershipAction
		table   string
		dynamic bool
		ok      bool
	}{
		{lockstep.ActionIgnore, "account", false, true},
		{lockstep.ActionAllowKnown, "account", false, true},
		{lockstep.ActionCreateLead, "lead", false, true},
		{lockstep.ActionCreateLead, "contact", false, false},
		{lockstep.ActionCreateLead, "lead", true, false},
		{lockstep.ActionCreateContact, "contact", false, true},
		{lockstep.ActionCreateContact, "account", false, false},
		{lockstep.ActionRemove, "lead", true, true},
		{"purge", "lead", false, false},
	} {
		err := CheckAction(c.action, c.table, c.dynamic)
		if (err == nil) != c.ok {
			t.Errorf("%s on %s, dynamic %v: %v", c.action, c.table, c.dynamic, err)
		}
		if err != nil && lockstep.CodeOf(err) != lockstep.CodeInvalid {
			t.Errorf("%s: code %s", c.action, lockstep.CodeOf(err))
		}
	}
}
