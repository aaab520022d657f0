package lockstep

import "time"

// Explanation says what is known of one address: who it is on each side, where it
// belongs and why, and what was last written.
type Explanation struct {
	Email   string          `json:"email"`
	Account string          `json:"account"`
	Links   []ExplainedLink `json:"links"`
	// LastWrites are the newest journalled changes about these records and
	// contacts, newest first.
	LastWrites []ExplainedWrite `json:"last_writes"`
	Findings   []Finding        `json:"findings"`
	Conflicts  []Conflict       `json:"conflicts"`
}

// ExplainedLink is one CRM record and the contact it belongs to.
type ExplainedLink struct {
	Record      *Ref                  `json:"record,omitempty"` // nil: known on the platform only
	Contact     ContactID             `json:"contact"`
	Speaks      bool                  `json:"speaks"` // its values are the contact's
	Standing    string                `json:"standing"`
	OptIn       string                `json:"opt_in"`
	Agreed      map[string]Value      `json:"agreed"` // label → value that both sides last agreed on
	Memberships []ExplainedMembership `json:"memberships"`
}

// ExplainedMembership is a record's place in one list.
type ExplainedMembership struct {
	List          string `json:"list"`
	Name          string `json:"name"`
	InList        bool   `json:"in_list"`
	InAddressBook bool   `json:"in_address_book"`
	Excluded      bool   `json:"excluded"`
	Unsubscribed  bool   `json:"unsubscribed"`
}

// ExplainedWrite is one journalled change with its run.
type ExplainedWrite struct {
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
	Change Change    `json:"change"`
}
