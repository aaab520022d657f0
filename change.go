package lockstep

import "time"

// ChangeKind says what a Change does.
type ChangeKind uint8

// The kinds of change.
const (
	WriteContact     ChangeKind = iota + 1 // create or change a contact, add it to books
	RemoveFromBook                         // take a contact out of an address book
	CreateBook                             // make an address book for a marketing list
	RenameBook                             // follow a marketing list's new name
	CreateField                            // make a contact data field
	WriteRecord                            // change columns of a CRM record
	CreateRecord                           // make a CRM record for a stranger
	AddToList                              // add a record to a static marketing list
	RemoveFromList                         // take a record out of a static marketing list
	SuppressContact                        // block an address in the email account
	KeepRow                                // write a row of one of our own tables in the CRM
	ChoosePreference                       // write a person's choice to the email account
)

var changeKindNames = [...]string{"", "write_contact", "remove_from_book", "create_book", "rename_book", "create_field", "write_record", "create_record", "add_to_list", "remove_from_list", "suppress_contact", "keep_row", "choose_preference"}

func (k ChangeKind) String() string {
	if int(k) < len(changeKindNames) {
		return changeKindNames[k]
	}
	return "invalid"
}

// MarshalText returns the name.
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// ChangeState is how far a change, or a batch of them, has come.
type ChangeState uint8

// The states. A batch is journalled as Planned, marked Sent with the job's id,
// and Acknowledged once the other side's result was read. Unknown means that the
// answer was lost; it is reconciled before anything else is sent.
const (
	Planned ChangeState = iota + 1
	Sent
	Acknowledged
	Refused
	Unknown
	Dropped // superseded before it was sent, or moved between preview and apply
)

var changeStateNames = [...]string{"", "planned", "sent", "acknowledged", "refused", "unknown", "dropped"}

func (s ChangeState) String() string {
	if int(s) < len(changeStateNames) {
		return changeStateNames[s]
	}
	return "invalid"
}

// MarshalText returns the name.
func (s ChangeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// FieldChange is one field's old and new value. Old is Absent when it was not known.
type FieldChange struct {
	Name string `json:"name"`
	Old  Value  `json:"old"`
	New  Value  `json:"new"`
}

// Change is one planned write: what, old value, new value, why.
type Change struct {
	Kind    ChangeKind    `json:"kind"`
	State   ChangeState   `json:"state"`
	Ref     Ref           `json:"record,omitzero"`
	Contact ContactID     `json:"contact,omitempty"`
	Email   string        `json:"email,omitempty"` // of the contact after the change
	List    ID            `json:"list,omitzero"`
	Book    BookID        `json:"book,omitempty"`
	Books   []BookID      `json:"books,omitempty"` // books to add the contact to
	Name    string        `json:"name,omitempty"`  // of the book or field
	Fields  []FieldChange `json:"fields,omitempty"`
	Why     string        `json:"why"`
	// Cause says why it was refused or dropped.
	Cause string `json:"cause,omitempty"`
}

// Batch is one journalled group of changes that travel in one call.
type Batch struct {
	// ID is given by the store and grows with time within one database.
	ID      int64
	Run     string
	Account string
	Kind    ChangeKind
	State   ChangeState
	Job     JobID
	// Payload is the changes in the engine's own compact form.
	Payload []byte
	Rows    int
	Planned time.Time
	Ended   time.Time
}
