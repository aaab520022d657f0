package lockstep

import "time"

// MarketingList is a marketing list as the CRM states it.
type MarketingList struct {
	ID          ID        `json:"id"`
	Name        string    `json:"name"`
	MemberTable string    `json:"member_table"` // account, contact or lead
	Dynamic     bool      `json:"dynamic"`
	Query       string    `json:"-"` // the stored query of a dynamic list
	Locked      bool      `json:"locked"`
	Inactive    bool      `json:"inactive"`
	Members     int       `json:"members"` // the CRM's own counter; a hint, not a proof
	Modified    time.Time `json:"modified"`
	// Used is when the list was last used in a campaign, or to create activities or
	// opportunities, as far as the CRM says; zero = never. To the day.
	Used    time.Time `json:"used,omitzero"`
	Version int64     `json:"-"`
}

// MembershipAction says what happens to strangers: people in the address book
// who are not in the marketing list. A dynamic list always mirrors.
type MembershipAction string

// The five membership actions.
const (
	ActionIgnore        MembershipAction = "ignore"
	ActionRemove        MembershipAction = "remove"
	ActionAllowKnown    MembershipAction = "allow_known"
	ActionCreateLead    MembershipAction = "create_lead"    // lead lists only
	ActionCreateContact MembershipAction = "create_contact" // contact lists only
)

// SubscriptionFilter is a rule that keeps members of a list from being sent to
// the platform, at entry and at exit.
type SubscriptionFilter string

// The filters. Each of FilterBulkEmail, FilterAnyOptOut and FilterMaterial
// includes the one before it.
const (
	FilterNone              SubscriptionFilter = "none"
	FilterBulkEmail         SubscriptionFilter = "bulk_email"
	FilterAnyOptOut         SubscriptionFilter = "any_opt_out" // the default
	FilterMaterial          SubscriptionFilter = "marketing_material"
	FilterListUnsubscribers SubscriptionFilter = "list_unsubscribers"
	FilterSuppressed        SubscriptionFilter = "suppressed"
	FilterOptInAtLeast      SubscriptionFilter = "opt_in_at_least" // with ListSettings.MinOptIn
)

// ListSettings is how one marketing list is kept in step with one email account.
type ListSettings struct {
	ID                 string             `json:"id"`
	Account            string             `json:"account"`
	CRMID              ID                 `json:"crm_id"`
	Name               string             `json:"name"`
	MemberTable        string             `json:"member_table"`
	Dynamic            bool               `json:"dynamic"`
	Book               BookID             `json:"address_book_id,omitempty"`
	Activated          bool               `json:"activated"`
	MembershipAction   MembershipAction   `json:"membership_action"`
	SubscriptionFilter SubscriptionFilter `json:"subscription_filter"`
	MinOptIn           OptInType          `json:"min_opt_in,omitempty"`
	MirrorRemovals     bool               `json:"mirror_removals"`
	ClearOnSend        bool               `json:"clear_on_send"`
	SyncOrder          int                `json:"sync_order"` // lower is earlier
	ManualOnly         bool               `json:"manual_only"`
	// KeepAutomatic keeps a static list from being made ManualOnly when nobody uses it.
	KeepAutomatic bool `json:"keep_automatic"`
	// InUse is when the list was last found to be used, to the day; zero = the next run
	// begins to count. IdleNotice is when a finding told that it will be made ManualOnly.
	InUse      time.Time `json:"in_use,omitzero"`
	IdleNotice time.Time `json:"idle_notice,omitzero"`
	// Gone is set when the list no longer exists in the CRM.
	Gone bool `json:"gone,omitempty"`
}

// ReservedBookNames cannot be the name of a list: the platform keeps them for
// itself. Compared without regard to case.
var ReservedBookNames = []string{"All contacts", "Test"}
