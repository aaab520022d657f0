package lockstep

import "time"

// ContactID identifies a contact on the email platform, in the platform's own
// text form (Dotdigital: a decimal number). Empty means "not known yet".
type ContactID string

// Standing is whether the platform may mail a contact, and if not, why.
type Standing uint8

// The standings, from mailable to blocked for good.
const (
	StandingUnknown Standing = iota // not read
	Subscribed                      // mailable
	SoftBounced                     // mailable; a mailbox was full or away
	PendingOptIn                    // waits for the holder's confirmation
	Unsubscribed                    // opted out
	Suppressed                      // blocked by the account owner
	HardBounced                     // the address does not exist
	Complained                      // reported our mail as spam
	PlatformBlocked                 // blocked by the platform itself: shared lists, domains, forbidden names
	ContactDeleted                  // in the platform's recycle bin
)

var standingNames = [...]string{"unknown", "subscribed", "soft_bounced", "pending_opt_in", "unsubscribed", "suppressed", "hard_bounced", "complained", "platform_blocked", "deleted"}

func (s Standing) String() string {
	if int(s) < len(standingNames) {
		return standingNames[s]
	}
	return "invalid"
}

// Mailable reports whether the platform would mail a contact of this standing.
func (s Standing) Mailable() bool { return s <= SoftBounced }

// OptInType is how a contact agreed to be mailed; larger is stronger.
type OptInType uint8

// The opt-in types in their order.
const (
	OptInUnknown OptInType = iota
	OptInSingle
	OptInDouble
	OptInVerifiedDouble
)

var optInNames = [...]string{"unknown", "single", "double", "verified_double"}

func (o OptInType) String() string {
	if int(o) < len(optInNames) {
		return optInNames[o]
	}
	return "invalid"
}

// Membership is a contact's place in one address book.
type Membership struct {
	Book BookID
	// Unsubscribed is set when the contact left this book by unsubscribing from it.
	Unsubscribed bool
}

// Contact is one contact of the email platform as read.
type Contact struct {
	ID       ContactID
	Email    string // as stored; may be empty for a contact known by telephone only
	Standing Standing
	OptIn    OptInType
	Created  time.Time
	Modified time.Time
	// Values has one value for each data field of the query.
	Values []Value
	// Books is filled only when the query asked for memberships.
	Books []Membership
}

// FieldType is the type of a contact data field.
type FieldType string

// The field types.
const (
	FieldText   FieldType = "text"
	FieldNumber FieldType = "number"
	FieldDate   FieldType = "date"
	FieldBool   FieldType = "boolean"
)

// DataField is one contact data field of the platform.
type DataField struct {
	Name    string    `json:"name"`
	Type    FieldType `json:"type"`
	Private bool      `json:"private"`
	Default Value     `json:"default"`
	System  bool      `json:"system"` // kept by the platform, not writable
}

// BookID identifies an address book in the platform's own text form.
type BookID string

// AddressBook is one address book (list) of the platform.
type AddressBook struct {
	ID      BookID `json:"id"`
	Name    string `json:"name"`
	Members int    `json:"members"`
	System  bool   `json:"system"` // the platform's own; not writable
}
