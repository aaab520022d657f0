package transform

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	lockstep "github.com/lockstep-sync/lockstep"
)

// fits tells whether a column type and a label type go together in each
// direction.
func fits(c lockstep.ColumnType, f lockstep.FieldType) (out, in bool) {
	switch c {
	case lockstep.ColumnText:
		return f == lockstep.FieldText, f == lockstep.FieldText
	case lockstep.ColumnWhole, lockstep.ColumnBigInt, lockstep.ColumnDecimal, lockstep.ColumnDouble, lockstep.ColumnMoney:
		return f == lockstep.FieldText || f == lockstep.FieldNumber, f == lockstep.FieldNumber
	case lockstep.ColumnBool:
		return f == lockstep.FieldText || f == lockstep.FieldBool, f == lockstep.FieldBool
	case lockstep.ColumnDateTime, lockstep.ColumnDate:
		return f == lockstep.FieldText || f == lockstep.FieldDate, f == lockstep.FieldDate
	case lockstep.ColumnOption, lockstep.ColumnState, lockstep.ColumnStatus:
		ok := f == lockstep.FieldText || f == lockstep.FieldNumber
		return ok, ok
	case lockstep.ColumnMultiOption, lockstep.ColumnLookup, lockstep.ColumnID:
		return f == lockstep.FieldText, false
	}
	return false, false
}

// expected names the label types that a column can be mapped with.
func expected(c lockstep.ColumnType, dir lockstep.Direction) string {
	var names []string
	for _, f := range []lockstep.FieldType{lockstep.FieldText, lockstep.FieldNumber, lockstep.FieldDate, lockstep.FieldBool} {
		if out, in := fits(c, f); dir == lockstep.ToPlatform && out || dir == lockstep.ToCRM && in {
			names = append(names, string(f))
		}
	}
	return strings.Join(names, " or ")
}

func refuse(field, msg, hint string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "check mapping", Field: field, Msg: msg, Hint: hint}
}

// CheckMapping says why a label cannot be mapped to a column in a direction; nil
// if it can. secondHop tells that the column belongs to a record that the table's
// own record looks up.
func CheckMapping(label lockstep.DataLabel, col lockstep.Column, dir lockstep.Direction, secondHop bool) error {
	if dir != lockstep.ToPlatform && dir != lockstep.ToCRM {
		return refuse("direction", fmt.Sprintf("%.40q is no direction", dir), "choose to_platform or to_crm")
	}
	if !label.Synced {
		return refuse("label", fmt.Sprintf("data label %s does not exist on the email platform yet", label.Name), "run the data label sync first")
	}
	if secondHop && dir == lockstep.ToCRM {
		return refuse("column", fmt.Sprintf("data label %s cannot flow into %s: the column belongs to a looked-up record", label.Name, col.Name),
			"map a column of the table itself, or only to the platform")
	}
	out, in := fits(col.Type, label.Type)
	if dir == lockstep.ToPlatform && !out || dir == lockstep.ToCRM && !in {
		want := expected(col.Type, dir)
		if want == "" {
			other := lockstep.ToPlatform
			if dir == other {
				other = lockstep.ToCRM
			}
			if expected(col.Type, other) == "" {
				return refuse("column", fmt.Sprintf("column %s (%s) cannot be mapped to data label %s: values of this type cannot leave the CRM", col.Name, col.Type, label.Name), "choose another column")
			}
			return refuse("direction", fmt.Sprintf("column %s (%s) can only be mapped to the platform, not from data label %s", col.Name, col.Type, label.Name), "choose the direction to_platform")
		}
		return refuse("column", fmt.Sprintf("data label %s is of type %s, but column %s (%s) needs a label of type %s in this direction", label.Name, label.Type, col.Name, col.Type, want),
			"choose a column or a label of the expected type")
	}
	if !col.Readable {
		return refuse("column", fmt.Sprintf("column %s, wanted for data label %s, cannot be read", col.Name, label.Name), "grant the connection the right to read it, or choose another column")
	}
	if dir == lockstep.ToCRM && !col.Updatable {
		return refuse("column", fmt.Sprintf("column %s, wanted for data label %s, cannot be written", col.Name, label.Name), "map it to the platform only, or choose another column")
	}
	return nil
}

// ReservedLabelNames cannot be the names of new data labels: every account has
// fields of these names from the start.
var ReservedLabelNames = []string{"EMAIL", "FIRSTNAME", "LASTNAME", "FULLNAME", "GENDER", "POSTCODE"}

// MaxLabelName is the most characters of a label's name.
const MaxLabelName = 20

// LabelName returns the form in which a new data label's name is kept, upper
// case, or why it cannot be one.
func LabelName(name string) (string, error) {
	name = strings.ToUpper(name)
	bad := func(msg string) (string, error) {
		return "", refuse("name", msg, "use up to 20 of the characters A–Z, 0–9 and _")
	}
	if name == "" {
		return bad("the data label has no name")
	}
	if utf8.RuneCountInString(name) > MaxLabelName {
		return bad("the name of the data label is longer than 20 characters")
	}
	for _, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return bad("the name of the data label contains a character that the platform does not take")
		}
	}
	if slices.Contains(ReservedLabelNames, name) {
		return "", refuse("name", name+" is reserved: every account has this field already", "choose another name, or map the existing field")
	}
	return name, nil
}

// CheckBookName says why a marketing list's name cannot be that of an address
// book; nil if it can.
func CheckBookName(name string) error {
	for _, r := range lockstep.ReservedBookNames {
		if strings.EqualFold(strings.TrimSpace(name), r) {
			return refuse("name", fmt.Sprintf("%q is reserved by the email platform", r), "rename the marketing list")
		}
	}
	if n := utf8.RuneCountInString(name); strings.TrimSpace(name) == "" || n > 128 {
		return refuse("name", "the name of an address book has 1 to 128 characters", "rename the marketing list")
	}
	return nil
}
