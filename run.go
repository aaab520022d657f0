package lockstep

import "time"

// SyncType names one kind of synchronisation.
type SyncType string

// The sync types, in the order in which a cycle runs them.
const (
	SyncCRMMetadata    SyncType = "crm-metadata"
	SyncDataLabels     SyncType = "data-labels"
	SyncSuppressions   SyncType = "suppressions"
	SyncUnsubscribes   SyncType = "unsubscribes"
	SyncPreferences    SyncType = "preferences"
	SyncAddressBooksIn SyncType = "address-books-in"
	SyncMarketingLists SyncType = "marketing-lists"
	SyncEmailCampaigns SyncType = "email-campaigns"
	SyncScoring        SyncType = "contact-scoring"
	SyncOptIn          SyncType = "opt-in-status"
	SyncForms          SyncType = "forms"
	SyncWebBehaviour   SyncType = "web-behaviour"
	SyncInsightOut     SyncType = "insight-out"
)

// SyncUndo reverses a run. It is started from that run, never by itself or by a
// schedule.
const SyncUndo SyncType = "undo"

// Consent reports whether the type belongs to the consent lane, which runs ahead of
// and beside all other work.
func (t SyncType) Consent() bool {
	switch t {
	case SyncSuppressions, SyncUnsubscribes, SyncPreferences, SyncOptIn:
		return true
	}
	return false
}

// SyncTypes lists the sync types that this version carries out.
var SyncTypes = []SyncType{SyncCRMMetadata, SyncDataLabels, SyncSuppressions, SyncUnsubscribes, SyncPreferences, SyncAddressBooksIn, SyncMarketingLists, SyncOptIn}

// Mode is whether a run writes.
type Mode string

// The modes.
const (
	ModeApply   Mode = "apply"
	ModePreview Mode = "preview" // plans and stores every change, writes nothing
)

// RunStatus is where a run stands.
type RunStatus string

// The states of a run.
const (
	RunQueued              RunStatus = "queued"
	RunInProcess           RunStatus = "in_process"
	RunCompleted           RunStatus = "completed"
	RunCompletedWithErrors RunStatus = "completed_with_errors" // some records became findings
	RunFailed              RunStatus = "failed"
	RunCancelled           RunStatus = "cancelled"
	RunPreviewed           RunStatus = "previewed"
)

// Ended reports whether the run will not change any more.
func (s RunStatus) Ended() bool { return s != RunQueued && s != RunInProcess }

// Counts adds up what a run did. For people that were read,
// Read = Written + Equal + Conflicted + Rejected + Guarded.
type Counts struct {
	Read       int64 `json:"read"`
	Written    int64 `json:"written"`
	Equal      int64 `json:"equal"` // read and already the same on the other side, or out of scope
	Conflicted int64 `json:"conflicted"`
	Rejected   int64 `json:"rejected"` // refused by a rule or by the other side; each has a finding
	// Guarded were held back by a guard; people who would have been removed count as
	// read then, too.
	Guarded int64 `json:"guarded"`

	ContactsCreated int64 `json:"contacts_created"`
	ContactsUpdated int64 `json:"contacts_updated"`
	RecordsCreated  int64 `json:"records_created"`
	RecordsUpdated  int64 `json:"records_updated"`
	BookAdds        int64 `json:"book_adds"`
	BookRemovals    int64 `json:"book_removals"`
	ListAdds        int64 `json:"list_adds"`
	ListRemovals    int64 `json:"list_removals"`
	OptOutsSeen     int64 `json:"opt_outs_seen"`             // opt-outs that were not known before
	OptOutsMissed   int64 `json:"opt_outs_missed,omitempty"` // of those, the ones that the platform's feed had not told of
	OptOutsTold     int64 `json:"opt_outs_told"`             // opt-outs that reached everybody who has to know
	Findings        int64 `json:"findings"`
}

// Add adds d to c.
func (c *Counts) Add(d Counts) {
	c.Read += d.Read
	c.Written += d.Written
	c.Equal += d.Equal
	c.Conflicted += d.Conflicted
	c.Rejected += d.Rejected
	c.Guarded += d.Guarded
	c.ContactsCreated += d.ContactsCreated
	c.ContactsUpdated += d.ContactsUpdated
	c.RecordsCreated += d.RecordsCreated
	c.RecordsUpdated += d.RecordsUpdated
	c.BookAdds += d.BookAdds
	c.BookRemovals += d.BookRemovals
	c.ListAdds += d.ListAdds
	c.ListRemovals += d.ListRemovals
	c.OptOutsSeen += d.OptOutsSeen
	c.OptOutsMissed += d.OptOutsMissed
	c.OptOutsTold += d.OptOutsTold
	c.Findings += d.Findings
}

// Quiet reports that nothing was changed and no opt-out was heard or told.
func (c *Counts) Quiet() bool {
	return c.Written+c.Conflicted+c.ContactsCreated+c.ContactsUpdated+c.RecordsCreated+c.RecordsUpdated+
		c.BookAdds+c.BookRemovals+c.ListAdds+c.ListRemovals+c.OptOutsSeen+c.OptOutsTold == 0
}

// Negated returns what takes c back when it is added.
func (c *Counts) Negated() Counts {
	return Counts{
		Read: -c.Read, Written: -c.Written, Equal: -c.Equal, Conflicted: -c.Conflicted, Rejected: -c.Rejected, Guarded: -c.Guarded,
		ContactsCreated: -c.ContactsCreated, ContactsUpdated: -c.ContactsUpdated, RecordsCreated: -c.RecordsCreated, RecordsUpdated: -c.RecordsUpdated,
		BookAdds: -c.BookAdds, BookRemovals: -c.BookRemovals, ListAdds: -c.ListAdds, ListRemovals: -c.ListRemovals,
		OptOutsSeen: -c.OptOutsSeen, OptOutsMissed: -c.OptOutsMissed, OptOutsTold: -c.OptOutsTold, Findings: -c.Findings,
	}
}

// Calls is the number of API calls that a run made, status polls apart.
type Calls struct {
	CRM      int64 `json:"crm"`
	Platform int64 `json:"platform"`
	Polls    int64 `json:"polls"`
}

// Run is one execution of one sync.
type Run struct {
	ID      string   `json:"id"`
	Account string   `json:"account"`
	Type    SyncType `json:"type"`
	List    string   `json:"list,omitempty"` // list settings id; empty = all that are due
	Mode    Mode     `json:"mode"`
	Preview string   `json:"preview,omitempty"` // the preview that this run applies
	// ApprovedBy is who had the preview applied: "user NAME", "token NAME" or the name
	// that the command line was given.
	ApprovedBy string `json:"approved_by,omitempty"`
	// Undoes is the run that this one reverses. UndoRecord restricts that to one
	// record, "TABLE/ID", and UndoField to one data label or CRM column.
	Undoes     string    `json:"undoes,omitempty"`
	UndoRecord string    `json:"undo_record,omitempty"`
	UndoField  string    `json:"undo_field,omitempty"`
	Status     RunStatus `json:"status"`
	Stage      string    `json:"stage,omitempty"` // for people: what it is doing now
	Counts     Counts    `json:"counts"`
	Calls      Calls     `json:"calls"`
	// Price is how many calls the run was expected to make before it began; nil = nothing
	// is known to go by.
	Price   *Price    `json:"price,omitempty"`
	Created time.Time `json:"created"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	// Error says why the run failed, Code of what kind that is, and Hint what to do
	// about it.
	Error string `json:"error,omitempty"`
	Code  Code   `json:"code,omitempty"`
	Hint  string `json:"hint,omitempty"`
	// Scheduled is set when the run's schedule started it; else a person did, or a program.
	Scheduled bool `json:"scheduled,omitempty"`
	// Again is the id of the run that follows at once when this one has ended, because
	// somebody asked for it meanwhile.
	Again string `json:"again,omitempty"`
	// CancelRequested is set by a person; the run ends after its current batch.
	CancelRequested bool `json:"cancel_requested,omitempty"`
}

// Finding is a problem of one record that a person can act on.
type Finding struct {
	ID      string    `json:"id"`
	Run     string    `json:"run"`
	Account string    `json:"account"`
	Code    string    `json:"code"` // such as "no_email"; see the Finding codes
	Table   string    `json:"table,omitempty"`
	Record  ID        `json:"record,omitzero"`
	Contact ContactID `json:"contact,omitempty"`
	List    string    `json:"list,omitempty"`
	Field   string    `json:"field,omitempty"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
	At      time.Time `json:"at"`
	// Retry says when the record is tried again. Nil: it was taken since, or it is looked
	// at again once somebody changes it.
	Retry *Retry `json:"retry,omitempty"`
}

// Retry is a record that a side did not take, and that is tried again with a growing
// delay.
type Retry struct {
	Ref      Ref       `json:"-"`
	Finding  string    `json:"-"`        // the latest about it
	Attempts int       `json:"attempts"` // so far
	Next     time.Time `json:"next"`     // a run that begins later tries again
}

// RetryDelay is how long a record waits that a side did not take in so many attempts: five
// minutes, each time twice as long, and no longer than a day.
func RetryDelay(attempts int) time.Duration {
	if attempts < 1 {
		return 0
	}
	return min(5*time.Minute<<min(attempts-1, 10), MaxRetryDelay)
}

// MaxRetryDelay is the longest that a record waits to be tried again.
const MaxRetryDelay = 24 * time.Hour

// Finding codes.
const (
	FindingNoEmail          = "no_email"
	FindingMalformedEmail   = "malformed_email"
	FindingDuplicate        = "duplicate"          // several records share an address; the message names the group
	FindingBlockedByConsent = "blocked_by_consent" // a known stranger may not be added
	FindingRejected         = "rejected"           // the other side refused the record
	FindingConversion       = "conversion"         // a value does not fit the other side's type
	FindingTooLong          = "too_long"
	FindingMappingDisabled  = "mapping_disabled"
	FindingNameReserved     = "name_reserved"
	FindingNameTaken        = "name_taken" // an unlinked address book has the list's name
	FindingListUnreadable   = "list_unreadable"
	FindingListUnusable     = "list_unusable"  // locked or inactive, so it cannot be written
	FindingIncomplete       = "incomplete"     // fewer rows than known; removals were held back
	FindingListIdle         = "list_idle"      // nobody uses it: it will be, or was, made to sync only when asked for
	FindingMiscount         = "miscount"       // a counter of either side differs, time after time, from what can be read
	FindingOptOutMissed     = "opt_out_missed" // the platform's feed had not told of it
	FindingCreateCap        = "create_cap"
	FindingContactGone      = "contact_gone" // deleted on the platform; the link is closed
	FindingMoved            = "moved"        // changed between preview and apply; not written
	FindingConflict         = "conflict"
	FindingLoop             = "loop"            // other programs keep changing it on both sides; its fields are held for a while
	FindingNotUndone        = "not_undone"      // an undo cannot take this back, or must not
	FindingNotInstalled     = "not_installed"   // a table of ours that the CRM lacks
	FindingStillOptedOut    = "still_opted_out" // a user loosened what only the person may loosen
)

// Conflict is a field that was changed differently on both sides between two runs.
type Conflict struct {
	ID         string    `json:"id"`
	Run        string    `json:"run"`
	Account    string    `json:"account"`
	Ref        Ref       `json:"record"`
	Contact    ContactID `json:"contact"`
	Label      string    `json:"label"`
	Column     string    `json:"column"`
	Base       Value     `json:"base"`
	CRM        Value     `json:"crm"`
	Platform   Value     `json:"platform"`
	CRMAt      time.Time `json:"crm_at,omitzero"`
	PlatformAt time.Time `json:"platform_at,omitzero"`
	Policy     Winner    `json:"policy"`
	Winner     string    `json:"winner"` // "crm", "platform" or "held"
	Resolved   bool      `json:"resolved"`
	ResolvedBy string    `json:"resolved_by,omitempty"`
	DetectedAt time.Time `json:"detected_at"`
	ResolvedAt time.Time `json:"resolved_at,omitzero"`
}
