package lockstep

import "time"

// Explanation says what is known of one address: who it is on each side, where it
// belongs and why, what was written and is still to be written, and whether it may be
// mailed.
type Explanation struct {
	Email   string          `json:"email"`
	Account string          `json:"account"`
	Links   []ExplainedLink `json:"links"`
	// Consent is what is known today of whether the person may be mailed.
	Consent ExplainedConsent `json:"consent"`
	// LastWrites are the newest changes about these records and contacts that were
	// carried out or refused, newest first; Pending those whose end is not known yet.
	LastWrites []ExplainedWrite `json:"last_writes"`
	Pending    []ExplainedWrite `json:"pending"`
	Findings   []Finding        `json:"findings"`  // newest first
	Conflicts  []Conflict       `json:"conflicts"` // those that nobody has decided first
	NextRun    ExplainedRun     `json:"next_run"`
}

// ExplainedLink is one CRM record and the contact it belongs to.
type ExplainedLink struct {
	Record   *Ref             `json:"record,omitempty"` // nil: known on the platform only
	Contact  ContactID        `json:"contact,omitempty"`
	Speaks   bool             `json:"speaks"` // its values are the contact's
	Standing string           `json:"standing"`
	OptIn    string           `json:"opt_in"`
	OptOuts  []string         `json:"opt_outs,omitempty"` // what the record says against being mailed
	Agreed   map[string]Value `json:"agreed"`             // label → value that both sides last agreed on
	// Apart are labels on which an undo left the two sides different; they stay so until
	// one side is edited.
	Apart       map[string]ExplainedApart `json:"apart,omitempty"`
	Memberships []ExplainedMembership     `json:"memberships"`
}

// ExplainedApart is what the two sides say of one label.
type ExplainedApart struct {
	CRM      Value `json:"crm"`
	Platform Value `json:"platform"`
}

// ExplainedMembership is a record's place in one list, as of the last sync.
type ExplainedMembership struct {
	List          string `json:"list"`
	Name          string `json:"name"`
	InList        bool   `json:"in_list"`
	InAddressBook bool   `json:"in_address_book"`
	Excluded      bool   `json:"excluded"`
	Unsubscribed  bool   `json:"unsubscribed"`
	Why           string `json:"why"` // in words
	// The rules of the list.
	Dynamic            bool               `json:"dynamic"`
	MembershipAction   MembershipAction   `json:"membership_action"`
	SubscriptionFilter SubscriptionFilter `json:"subscription_filter"`
	MirrorRemovals     bool               `json:"mirror_removals"`
}

// ExplainedConsent says whether an address may be mailed and what says so.
type ExplainedConsent struct {
	Mailable bool     `json:"mailable"`
	Why      []string `json:"why"` // what each record and the platform say, in words
}

// ExplainedWrite is one journalled change with its run.
type ExplainedWrite struct {
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
	Change Change    `json:"change"`
}

// ExplainedRun says when what is still different will be carried over.
type ExplainedRun struct {
	Run    string    `json:"run,omitempty"` // one that is queued or in process
	Status RunStatus `json:"status,omitempty"`
	Text   string    `json:"text"` // in words
}
