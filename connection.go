package lockstep

import (
	"cmp"
	"time"
)

// OrganizationIdentity says which Dynamics organization answered. It is compared
// before anything can be removed: a copied or moved database is not the original.
type OrganizationIdentity struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	URL     string `json:"url"`
	Version string `json:"version"`
	UserID  string `json:"user_id"`
}

// AccountIdentity says which account of the email platform answered.
type AccountIdentity struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
}

// Organization is a Dynamics organization that Lockstep is connected to.
type Organization struct {
	ID       string               `json:"id"`
	Name     string               `json:"name"`
	Adapter  string               `json:"adapter"`
	Settings map[string]string    `json:"settings"` // without secrets
	Identity OrganizationIdentity `json:"identity"`
	// Budget bounds the calls to the organization.
	Budget CallBudget `json:"budget,omitzero"`
}

// EmailAccount is a connected account of an email platform.
type EmailAccount struct {
	ID           string            `json:"id"`
	Organization string            `json:"organization"`
	Name         string            `json:"name"`
	Description  string            `json:"description,omitempty"`
	Adapter      string            `json:"adapter"`
	Settings     map[string]string `json:"settings"` // without secrets
	Identity     AccountIdentity   `json:"identity"`
	Default      bool              `json:"default"`
	// Priority is the order of tables when several CRM records share one address.
	Priority []string `json:"priority"`
	// CreateCap is the most records that one run may create in the CRM.
	CreateCap int `json:"create_cap"`
	// AloneWithSuppressions keeps the account out of the exchange of suppressions
	// between the organization's accounts: it neither gives nor takes any.
	AloneWithSuppressions bool `json:"alone_with_suppressions,omitempty"`
	// BulkOptOut is what it does when a CRM user does not allow bulk email any more;
	// empty = BulkListRemoval.
	BulkOptOut BulkOptOut `json:"bulk_opt_out,omitempty"`
	// Budget bounds the calls to the platform; without one, what the platform grants does.
	Budget CallBudget `json:"budget,omitzero"`
	// Automatic lets the account's syncs run by themselves, as their schedules say. A new
	// account begins without: nothing is written before somebody had a preview.
	Automatic bool `json:"automatic"`
	// Locked says why the account must not be written to; empty means it may. Unlocked
	// says who unlocked it last, when and why.
	Locked   string `json:"locked,omitempty"`
	Unlocked string `json:"unlocked,omitempty"`

	// A run that would remove or blank more than GuardPercent of the people known of a
	// list or table, or more than GuardRows of them, stops before the first one; up to
	// GuardFloor are always let through. Zero takes the default.
	GuardPercent int `json:"guard_percent"`
	GuardRows    int `json:"guard_rows"`
	GuardFloor   int `json:"guard_floor"`
	// BulkUntil is the end of a time in which most of a table may change at once.
	BulkUntil time.Time `json:"bulk_until,omitzero"`
	// ConfirmChanges makes changed mappings and rules of lists wait for a preview that a
	// person applied.
	ConfirmChanges bool `json:"confirm_changes"`
}

// The defaults of the guards.
const (
	DefaultGuardPercent = 5
	DefaultGuardRows    = 500
	DefaultGuardFloor   = 10
)

// Guarded returns the account with the numbers that its guards go by.
func (a EmailAccount) Guarded() EmailAccount {
	a.GuardPercent = cmp.Or(a.GuardPercent, DefaultGuardPercent)
	a.GuardRows = cmp.Or(a.GuardRows, DefaultGuardRows)
	a.GuardFloor = cmp.Or(a.GuardFloor, DefaultGuardFloor)
	return a
}

// GuardLimit is how many of known people one run may remove, blank or suppress
// without being asked.
func (a EmailAccount) GuardLimit(known int) int {
	a = a.Guarded()
	return max(a.GuardFloor, min(known*a.GuardPercent/100, a.GuardRows))
}

// DefaultPriority decides between records that share an address: contact, then lead, then account.
var DefaultPriority = []string{"contact", "lead", "account"}

// DefaultCreateCap is the most CRM records a run creates without approval.
const DefaultCreateCap = 500

// BulkOptOut is what a record's "do not bulk email" means for the email account.
type BulkOptOut string

// The policies.
const (
	BulkListRemoval BulkOptOut = "list_removal" // the contact leaves the address books whose filter says so
	BulkSuppress    BulkOptOut = "suppress"     // the address is blocked in the whole account
)
