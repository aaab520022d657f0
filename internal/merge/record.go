package merge

import (
	"time"

	lockstep "github.com/lockstep-sync/lockstep"
)

// RecordInput is what happened to a linked pair as a whole when one of its halves
// was deleted.
type RecordInput struct {
	CRMDeleted, PlatformDeleted bool
	// CRMChanged and PlatformChanged tell whether any mapped field differs from
	// the base, a cleared one included.
	CRMChanged, PlatformChanged bool
	// DeleteContact is the account's wish that contacts follow their CRM record
	// into deletion. Without it they only leave the address books.
	DeleteContact bool
	Policy        lockstep.Winner // of the account; zero = WinnerNewest
	// CRMAt and PlatformAt are the times of the deletion or last change; zero =
	// unknown.
	CRMAt, PlatformAt time.Time
}

// RecordOutcome is what has to be done with the pair.
type RecordOutcome struct {
	CloseLink bool
	// LeaveBooks takes the contact out of every address book that Lockstep keeps:
	// a record that is gone is in no marketing list.
	LeaveBooks    bool
	DeleteContact bool
	// Finding is the code to report, or empty.
	Finding string
	// Conflict is set when one side deleted what the other had changed. Winner is
	// the side whose doing stands, or Neither when a person has to decide.
	Conflict bool
	Winner   Side
}

// Record decides about a pair of which one half was deleted. A change survives a
// deletion on the other side unless the policy says otherwise, and never
// silently. A CRM record is never deleted, nor a deleted contact made anew: the
// deletion may be the person's own wish.
func Record(in RecordInput) RecordOutcome {
	out := RecordOutcome{Winner: Neither}
	switch {
	case in.CRMDeleted && in.PlatformDeleted:
		out.CloseLink = true
	case in.PlatformDeleted:
		out.CloseLink, out.Finding = true, lockstep.FindingContactGone
		if in.CRMChanged {
			out.Conflict, out.Winner = true, CRM
		}
	case in.CRMDeleted:
		out.CloseLink, out.LeaveBooks = true, true
		if !in.PlatformChanged {
			out.DeleteContact = in.DeleteContact
			return out
		}
		out.Conflict, out.Winner = true, Platform
		if !in.DeleteContact {
			return out
		}
		switch {
		case in.Policy == lockstep.WinnerHold:
			out.CloseLink, out.Winner = false, Neither // the person's decision needs the pair
		case in.Policy == lockstep.WinnerCRM,
			in.Policy != lockstep.WinnerPlatform && newer(in.CRMAt, in.PlatformAt):
			out.DeleteContact, out.Winner = true, CRM
		}
	}
	return out
}
