package lockstep

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
	// Locked says why the account must not be written to; empty means it may.
	Locked string `json:"locked,omitempty"`
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
