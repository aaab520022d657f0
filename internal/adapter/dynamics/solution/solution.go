// Package solution describes, as data, what Lockstep adds to a Dynamics organization,
// and compares an organization with it.
//
// Everything belongs to one unmanaged solution of our own publisher. Its version is
// raised last, so that a lower one marks an installation that has not come to its
// end.
//
// Limits of the service that shape the tables: a key has at most 16 columns and 900
// bytes, two for each character of a text, so the columns of keys are no longer than
// what they hold. A row in which a column of a key is empty is not bound by the key.
// Keys compare text as the database does, without regard to case and accents.
package solution

import (
	"fmt"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// The solution and its publisher.
const (
	Name         = "Lockstep" // unique name of the solution
	Title        = "Lockstep"
	Detail       = "Tables and columns in which Lockstep keeps who may not be mailed and who chose what."
	Version      = "1.0.0.0"
	Unfinished   = "0.1.0.0" // the version until the installation has come to its end
	Publisher    = "lockstep"
	Prefix       = "lockstep" // of the names of components
	OptionPrefix = 72_310     // of the numbers of options that users add
)

// Type is the type of a column, by the service's name.
type Type string

// The types that we use.
const (
	Text     Type = "String"
	Moment   Type = "DateTime" // independent of time zones
	Bool     Type = "Boolean"
	Picklist Type = "Picklist"
)

// Level says who insists on a value; the service itself enforces none of these.
type Level string

// The levels.
const (
	Optional    Level = "None"
	Recommended Level = "Recommended"
	Required    Level = "ApplicationRequired" // forms insist
)

// Column is a column to add. Name is the schema name; its lower-case form is the
// logical name.
type Column struct {
	Name, Label, Detail string
	Type                Type
	Length              int // characters of a text
	Level               Level
	Options             []lockstep.Option
}

// Logical is the logical name.
func (c *Column) Logical() string { return strings.ToLower(c.Name) }

func (c *Column) words() string {
	switch c.Type {
	case Text:
		return fmt.Sprintf("text of %d characters", c.Length)
	case Moment:
		return "date and time"
	case Bool:
		return "yes or no"
	case Picklist:
		labels := make([]string, len(c.Options))
		for i, o := range c.Options {
			labels[i] = o.Label
		}
		return "choice of " + strings.Join(labels, ", ")
	}
	return string(c.Type)
}

// Key is an alternate key. Columns are logical names.
type Key struct {
	Name, Label string
	Columns     []string
}

// Logical is the logical name.
func (k *Key) Logical() string { return strings.ToLower(k.Name) }

// Table is a table to add, or, with Existing, one of the organization's own that gets
// columns.
type Table struct {
	Name, Label, Plural, Detail string
	Existing                    bool
	Columns                     []Column // of a new table the first is the primary name
	Keys                        []Key
}

// Logical is the logical name.
func (t *Table) Logical() string { return strings.ToLower(t.Name) }

// Lengths of texts. An address has up to 320 characters, an id of ours 36.
const (
	addressLength    = 320
	idLength         = 36
	preferenceLength = 90 // with an address and an id it just fits into a key
)

func text(name, label string, length int, level Level, detail string) Column {
	return Column{Name: name, Label: label, Detail: detail, Type: Text, Length: length, Level: level}
}

func nameColumn(detail string) Column {
	return text("lockstep_Name", "Name", addressLength, Optional, detail)
}

func emailColumn(detail string) Column {
	return text("lockstep_Email", "Email", addressLength, Required, detail)
}

func accountColumn() Column {
	return text("lockstep_Account", "Email Account", idLength, Recommended, "Lockstep's id of the email account.")
}

func preferenceColumn() Column {
	return text("lockstep_PreferenceKey", "Preference Key", preferenceLength, Recommended, "The id of the preference on the email platform.")
}

func sinceColumn(detail string) Column {
	return Column{Name: "lockstep_Since", Label: "Since", Detail: detail, Type: Moment, Level: Optional}
}

func originColumn() Column {
	return text("lockstep_Origin", "Origin", 100, Optional, "Where the decision was made: in Dynamics, in Lockstep, or on which email account.")
}

func optInColumn() Column {
	return Column{
		Name: "lockstep_OptInType", Label: "Opt-in Type", Detail: "How the person agreed to receive email, as the email platform says.", Type: Picklist, Level: Optional,
		Options: []lockstep.Option{{Value: 0, Label: "Unknown"}, {Value: 1, Label: "Single"}, {Value: 2, Label: "Double"}, {Value: 3, Label: "Verified double"}},
	}
}

// Tables are what we add, in the order in which it is created.
var Tables = []Table{
	{
		Name: "lockstep_Suppression", Label: "Email Suppression", Plural: "Email Suppressions", Detail: "An address that an email account may not mail.",
		Columns: []Column{
			nameColumn("The address."), emailColumn("The address that may not be mailed."), accountColumn(),
			text("lockstep_Reason", "Reason", 100, Optional, "Why the address may not be mailed."), originColumn(), sinceColumn("When the address was closed."),
		},
		Keys: []Key{{"lockstep_SuppressionAddress", "Account and address", []string{lockstep.AccountColumn, lockstep.EmailTextColumn}}},
	},
	{
		Name: "lockstep_ListUnsubscriber", Label: "List Unsubscriber", Plural: "List Unsubscribers", Detail: "An address that left one marketing list by unsubscribing.",
		Columns: []Column{
			nameColumn("The address."), emailColumn("The address that left the list."), accountColumn(),
			text("lockstep_ListId", "Marketing List Id", idLength, Recommended, "The id of the marketing list."), text("lockstep_ListName", "Marketing List", 200, Optional, "The name of the marketing list when it was left."),
			text("lockstep_Reason", "Reason", 100, Optional, "Why the address left the list."), originColumn(), sinceColumn("When the address left the list."),
		},
		Keys: []Key{{"lockstep_UnsubscriberAddress", "Account, address and list", []string{lockstep.AccountColumn, lockstep.EmailTextColumn, lockstep.ListIDColumn}}},
	},
	{
		Name: "lockstep_Preference", Label: "Marketing Preference", Plural: "Marketing Preferences", Detail: "A marketing preference that people can choose.",
		Columns: []Column{
			nameColumn("The name of the preference, as people see it."), accountColumn(), preferenceColumn(),
			text("lockstep_Category", "Category", 200, Optional, "The group of preferences that it belongs to."),
		},
		Keys: []Key{{"lockstep_PreferenceOfAccount", "Account and preference", []string{lockstep.AccountColumn, lockstep.PreferenceColumn}}},
	},
	{
		Name: "lockstep_PreferenceChoice", Label: "Preference Choice", Plural: "Preference Choices", Detail: "What one address chose for one marketing preference.",
		Columns: []Column{
			nameColumn("The address."), emailColumn("The address that chose."), accountColumn(), preferenceColumn(),
			{Name: "lockstep_OptedIn", Label: "Opted In", Detail: "Whether the preference was chosen.", Type: Bool, Level: Optional, Options: []lockstep.Option{{Value: 0, Label: "No"}, {Value: 1, Label: "Yes"}}},
			originColumn(), sinceColumn("When the choice was made."),
		},
		Keys: []Key{{"lockstep_ChoiceOfAddress", "Account, address and preference", []string{lockstep.AccountColumn, lockstep.EmailTextColumn, lockstep.PreferenceColumn}}},
	},
	{Name: "Contact", Existing: true, Columns: []Column{optInColumn()}},
	{Name: "Lead", Existing: true, Columns: []Column{optInColumn()}},
	{Name: "Account", Existing: true, Columns: []Column{optInColumn()}},
}
