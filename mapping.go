package lockstep

import "strconv"

// DataLabel is a contact data field as Lockstep manages it for one email account.
type DataLabel struct {
	ID          string    `json:"id"`
	Account     string    `json:"account"`
	Name        string    `json:"name"`
	Type        FieldType `json:"type"`
	Private     bool      `json:"private"`
	Default     string    `json:"default,omitempty"`
	Description string    `json:"description,omitempty"`
	// Synced is true once the field exists on the platform; only then can the
	// label be mapped.
	Synced bool `json:"synced"`
	// Remade counts how often the field was made anew after somebody had deleted it
	// there, or given its name to another one: it is empty then, although nobody
	// cleared it, and what both sides agreed on before says nothing.
	Remade int `json:"remade,omitempty"`
}

// BaseName is what links call the label where they keep what both sides agreed on. Of a
// field that was made anew nothing is known that was agreed on with the old one, so the
// name is another one then; it sorts as the label does.
func (l *DataLabel) BaseName() string {
	if l.Remade == 0 {
		return l.Name
	}
	return l.Name + "\x01" + strconv.Itoa(l.Remade)
}

// Direction is the way information flows through a mapping.
type Direction string

// The directions. A two-way field is two mappings, one in each direction.
const (
	ToPlatform Direction = "to_platform"
	ToCRM      Direction = "to_crm"
)

// Winner says which side's value stays when a two-way field was changed
// differently on both sides.
type Winner string

// The policies.
const (
	WinnerNewest   Winner = "newest" // the later change; ties and unknown times go to the CRM
	WinnerCRM      Winner = "crm"
	WinnerPlatform Winner = "platform"
	WinnerHold     Winner = "hold" // neither is written until a person decides
)

// EmptyPolicy says what an empty value on the sending side does on the other.
type EmptyPolicy string

// The policies for empty values.
const (
	EmptyClear   EmptyPolicy = "clear"
	EmptyKeep    EmptyPolicy = "keep"
	EmptyDefault EmptyPolicy = "default" // write DataMapping.Default
)

// DataMapping carries one data label to or from one column of one CRM table.
type DataMapping struct {
	ID        string      `json:"id"`
	Account   string      `json:"account"`
	Label     string      `json:"label"` // name of the data label
	Table     string      `json:"table"`
	Direction Direction   `json:"direction"`
	Column    string      `json:"column"`
	Winner    Winner      `json:"winner"`
	Empty     EmptyPolicy `json:"empty"`
	Default   string      `json:"default,omitempty"`
	// Truncate cuts a text that is too long for the other side instead of
	// refusing it with a finding.
	Truncate bool `json:"truncate,omitempty"`
	// AsNumber sends an option's number instead of its label to a text label.
	AsNumber bool `json:"as_number,omitempty"`
	// Disabled says why the mapping is suspended, for example because its column
	// was deleted; empty means it works.
	Disabled string `json:"disabled,omitempty"`
}
