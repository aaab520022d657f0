package lockstep

import (
	"fmt"
	"strings"
	"time"
)

// EmailColumn is the CRM column that holds the address of an account, contact or
// lead. It is the first of three in Dynamics; the others are not followed.
const EmailColumn = "emailaddress1"

// BulkEmailColumn is the CRM column of DoNotBulkEmail.
const BulkEmailColumn = "donotbulkemail"

// AllEmailColumn is the CRM column of DoNotEmail.
const AllEmailColumn = "donotemail"

// StateColumn is the CRM column that says whether a record is active (0) or not (1).
const StateColumn = "statecode"

// Ref names a CRM record.
type Ref struct {
	Table string `json:"table"`
	ID    ID     `json:"id"`
}

func (r Ref) String() string { return r.Table + " " + r.ID.String() }

// Path is the reference as people type it: "contact/8f0c…".
func (r Ref) Path() string { return r.Table + "/" + r.ID.String() }

// ParseRef reads a reference as Path writes it. CodeInvalid.
func ParseRef(s string) (Ref, error) {
	table, id, _ := strings.Cut(s, "/")
	parsed, err := ParseID(id)
	if table == "" || err != nil {
		return Ref{}, &Error{Code: CodeInvalid, Field: "record", Msg: fmt.Sprintf("%.80q names no record", s), Hint: "give the table and the id, such as contact/8f0c2a6e-1d2b-4c3d-9e8f-001122334455"}
	}
	return Ref{table, parsed}, nil
}

// OptOut holds the CRM's own "do not …" flags of a record.
type OptOut uint8

// The flags. In Dynamics a set flag means "do not allow".
const (
	DoNotEmail     OptOut = 1 << iota // no email at all
	DoNotBulkEmail                    // no bulk email
	DoNotMaterial                     // no marketing material
)

// Record is one CRM record as read: what every sync needs, then the columns that
// were asked for, in the order of the query.
type Record struct {
	Ref
	// Version orders changes within the organization; larger is newer. 0 = unknown.
	Version  int64
	Deleted  bool // only Ref is set
	Inactive bool
	// MergedInto is the surviving record when this one lost a merge.
	MergedInto ID
	OptOut     OptOut
	Email      string // as stored; compare NormalizeEmail(Email)
	Created    time.Time
	Modified   time.Time
	// Values has one value for each column of the query, Absent where the record
	// did not carry it.
	Values []Value
}

// ColumnType is the type of a CRM column.
type ColumnType string

// The column types of Dataverse that can be mapped, and Other for the rest.
const (
	ColumnText        ColumnType = "text" // String, Memo
	ColumnWhole       ColumnType = "whole number"
	ColumnBigInt      ColumnType = "big integer"
	ColumnDecimal     ColumnType = "decimal"
	ColumnDouble      ColumnType = "floating point"
	ColumnMoney       ColumnType = "money"
	ColumnBool        ColumnType = "two options"
	ColumnDateTime    ColumnType = "date and time"
	ColumnDate        ColumnType = "date only"
	ColumnOption      ColumnType = "option set"
	ColumnState       ColumnType = "state"
	ColumnStatus      ColumnType = "status reason"
	ColumnMultiOption ColumnType = "multi-select option set"
	ColumnLookup      ColumnType = "lookup"
	ColumnID          ColumnType = "unique identifier"
	ColumnOther       ColumnType = "other"
)

// Option is one choice of an option column.
type Option struct {
	Value int64  `json:"value"`
	Label string `json:"label"`
}

// Column describes one column of a CRM table as its metadata states it.
type Column struct {
	Table       string     `json:"table"`
	Name        string     `json:"name"` // logical name
	DisplayName string     `json:"display_name"`
	Description string     `json:"description,omitempty"`
	Type        ColumnType `json:"type"`
	MaxLength   int        `json:"max_length,omitempty"` // characters; 0 = no limit stated
	Precision   int        `json:"precision,omitempty"`  // digits after the point
	Min         string     `json:"min,omitempty"`        // canonical number; empty = no limit stated
	Max         string     `json:"max,omitempty"`
	Options     []Option   `json:"options,omitempty"`
	Targets     []string   `json:"targets,omitempty"` // tables that a lookup points to
	Readable    bool       `json:"readable"`
	Creatable   bool       `json:"creatable"`
	Updatable   bool       `json:"updatable"`
	Required    bool       `json:"required"` // the server refuses a create without it
}

// Table describes one CRM table.
type Table struct {
	Name          string   `json:"name"`
	DisplayName   string   `json:"display_name"`
	PrimaryName   string   `json:"primary_name"` // column that names a record
	ChangeTracked bool     `json:"change_tracked"`
	Columns       []Column `json:"columns"`
}

// Column returns the column with this logical name.
func (t *Table) Column(name string) (*Column, bool) {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i], true
		}
	}
	return nil, false
}
