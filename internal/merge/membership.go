package merge

import (
	"fmt"

	lockstep "github.com/lockstep-sync/lockstep"
)

// Op is the one write that a membership decision asks for.
type Op uint8

// The operations.
const (
	Nothing Op = iota
	AddToBook
	RemoveFromBook
	AddToList    // the preferred one of the known records, see Best
	CreateRecord // and add it to the list
)

func (o Op) String() string {
	return [...]string{"nothing", "add_to_book", "remove_from_book", "add_to_list", "create_record"}[o]
}

// The reasons of a membership outcome, for the why of a change.
const (
	ReasonMember          = "member of the marketing list"
	ReasonLeftList        = "left the marketing list"
	ReasonStranger        = "not a member of the marketing list"
	ReasonNotInQuery      = "not in the result of the dynamic list"
	ReasonKnown           = "in the address book and known to the CRM"
	ReasonUnknown         = "in the address book and not known to the CRM"
	ReasonFirstSeen       = "seen for the first time in this cycle"
	ReasonNoEmail         = "no usable email address"
	ReasonNotMailable     = "the platform may not mail this contact"
	ReasonLeftBook        = "unsubscribed from the address book"
	ReasonRemovedInCRM    = "was taken out of the marketing list in the CRM"
	ReasonMatchInList     = "another record with this address is a member"
	ReasonCreateCap       = "the limit of new records for one run is reached"
	ReasonUndone          = "an undo put it so; it stays until the membership of the marketing list changes"
	ReasonOptedOutRecords = "a CRM record with this address does not allow bulk email"
)

// MembershipInput is what is known about one person and one list.
type MembershipInput struct {
	Dynamic        bool
	Action         lockstep.MembershipAction
	MirrorRemovals bool

	// InList is membership of the CRM list now; WasInList at the last sync, or
	// earlier when the person has stayed in the book since.
	InList, WasInList bool
	// InBook is membership of the address book now; WasInBook at the last sync.
	InBook, WasInBook bool
	// Kept is set when an undo put the person into the book, or took it out, while its
	// membership of the list was what it is now: that is then left alone.
	Kept bool
	// FirstSeen is set in the cycle that meets the person in the book for the
	// first time.
	FirstSeen bool

	// NoEmail is set when there is no address that could be mailed.
	NoEmail bool
	// Excluded is the reason given by Excluded, empty when there is none.
	Excluded string
	// Standing of the contact; StandingUnknown when there is no contact yet.
	Standing lockstep.Standing
	// Unsubscribed is set when the contact left this address book by itself.
	Unsubscribed bool

	// Matches is the number of active CRM records of the list's table that have
	// the person's address. MatchInList is set when one of them is in the list,
	// MatchOptOut holds the flags of all of them together.
	Matches     int
	MatchInList bool
	MatchOptOut lockstep.OptOut
	// CreateLeft is how many records this run may still create.
	CreateLeft int
}

// MembershipOutcome is the decision for one person and one list.
type MembershipOutcome struct {
	Op      Op
	Why     string
	Finding string // a finding code, or empty
}

// Membership decides what happens to one person and one list.
//
// Members are added to the address book whatever the action, unless they have no
// address, are excluded or have opted out; an excluded member leaves the book, and so
// does one that lost its address.
// Strangers are treated as the action says. A member that left the list leaves
// the book too when removals are mirrored, and is never brought back from there.
// A dynamic list removes every stranger and never touches the CRM. What an undo did
// stays until the person's membership of the list changes; consent counts all the
// same.
func Membership(in MembershipInput) MembershipOutcome {
	if in.InList {
		return member(in)
	}
	if !in.InBook {
		return MembershipOutcome{}
	}
	if in.Kept {
		return MembershipOutcome{Why: ReasonUndone}
	}
	if in.Dynamic {
		return MembershipOutcome{Op: RemoveFromBook, Why: ReasonNotInQuery}
	}
	// Somebody who was not in the book at the last sync has come anew: what was
	// before does not make them a former member.
	if former := in.WasInList && in.WasInBook; former {
		switch {
		case in.MirrorRemovals:
			return MembershipOutcome{Op: RemoveFromBook, Why: ReasonLeftList}
		case in.Action != lockstep.ActionRemove:
			return MembershipOutcome{Why: ReasonRemovedInCRM}
		}
	}
	return stranger(in)
}

func member(in MembershipInput) MembershipOutcome {
	switch {
	case in.Excluded != "" && in.InBook:
		return MembershipOutcome{Op: RemoveFromBook, Why: in.Excluded}
	case in.Excluded != "":
		return MembershipOutcome{Why: in.Excluded}
	case in.NoEmail && in.InBook:
		// The contact still has the address that was taken off the record.
		return MembershipOutcome{Op: RemoveFromBook, Why: ReasonNoEmail, Finding: lockstep.FindingNoEmail}
	case in.NoEmail:
		return MembershipOutcome{Why: ReasonNoEmail, Finding: lockstep.FindingNoEmail}
	case in.InBook:
		return MembershipOutcome{}
	case in.Unsubscribed:
		return MembershipOutcome{Why: ReasonLeftBook}
	case in.Kept:
		return MembershipOutcome{Why: ReasonUndone}
	case in.Standing > lockstep.PendingOptIn: // waiting for a confirmation is no refusal
		return MembershipOutcome{Why: ReasonNotMailable}
	}
	return MembershipOutcome{Op: AddToBook, Why: ReasonMember}
}

func stranger(in MembershipInput) MembershipOutcome {
	create := false
	switch in.Action {
	case lockstep.ActionRemove:
		if in.FirstSeen {
			// They may have signed up after the CRM list was read.
			return MembershipOutcome{Why: ReasonFirstSeen}
		}
		return MembershipOutcome{Op: RemoveFromBook, Why: ReasonStranger}
	case lockstep.ActionAllowKnown:
	case lockstep.ActionCreateLead, lockstep.ActionCreateContact:
		create = true
	default: // ignore, and anything unknown: leave both systems alone
		return MembershipOutcome{}
	}
	if in.Matches == 0 && !create {
		return MembershipOutcome{}
	}
	var refused string
	switch {
	case in.NoEmail:
		return MembershipOutcome{Why: ReasonNoEmail, Finding: lockstep.FindingNoEmail}
	case in.Matches > 0 && in.MatchInList:
		return MembershipOutcome{Why: ReasonMatchInList, Finding: duplicate(in)}
	case in.Excluded != "":
		refused = in.Excluded
	case in.Unsubscribed:
		refused = ReasonLeftBook
	case !in.Standing.Mailable():
		refused = ReasonNotMailable
	case in.Matches > 0 && in.MatchOptOut&(lockstep.DoNotEmail|lockstep.DoNotBulkEmail) != 0:
		refused = ReasonOptedOutRecords
	}
	switch {
	case refused != "" && in.Matches > 0:
		return MembershipOutcome{Why: refused, Finding: lockstep.FindingBlockedByConsent}
	case refused != "":
		return MembershipOutcome{Why: refused}
	case in.Matches > 0:
		return MembershipOutcome{Op: AddToList, Why: ReasonKnown, Finding: duplicate(in)}
	case in.CreateLeft <= 0:
		return MembershipOutcome{Why: ReasonCreateCap, Finding: lockstep.FindingCreateCap}
	}
	return MembershipOutcome{Op: CreateRecord, Why: ReasonUnknown}
}

func duplicate(in MembershipInput) string {
	if in.Matches > 1 {
		return lockstep.FindingDuplicate
	}
	return ""
}

// CheckAction says why a list cannot have a membership action, nil if it can.
func CheckAction(action lockstep.MembershipAction, memberTable string, dynamic bool) error {
	refuse := func(msg, hint string) error {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "membership_action", Msg: msg, Hint: hint}
	}
	var wants string
	switch action {
	case lockstep.ActionIgnore, lockstep.ActionRemove, lockstep.ActionAllowKnown:
		return nil
	case lockstep.ActionCreateLead:
		wants = "lead"
	case lockstep.ActionCreateContact:
		wants = "contact"
	default:
		return refuse(fmt.Sprintf("%.40q is not a membership action", action), "choose ignore, remove, allow_known, create_lead or create_contact")
	}
	if dynamic {
		return refuse("a dynamic list cannot create records: its members are the result of its query", "choose another action; a dynamic list always mirrors its query")
	}
	if memberTable != wants {
		return refuse(fmt.Sprintf("%s needs a list of %ss, this one has members of type %.40q", action, wants, memberTable), "choose ignore, remove or allow_known")
	}
	return nil
}
