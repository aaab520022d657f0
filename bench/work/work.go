// Package work says what both programs of the benchmark do: which columns of a CRM
// contact become which data fields.
package work

import "github.com/lockstep-sync/lockstep"

// Field is one mapped field.
type Field struct {
	Label  string
	Type   lockstep.FieldType
	Column string
}

// Fields are the ten mapped fields, besides the address.
var Fields = []Field{
	{"FIRSTNAME", lockstep.FieldText, "firstname"},
	{"LASTNAME", lockstep.FieldText, "lastname"},
	{"FULLNAME", lockstep.FieldText, "fullname"},
	{"JOBTITLE", lockstep.FieldText, "jobtitle"},
	{"PHONE", lockstep.FieldText, "telephone1"},
	{"CITY", lockstep.FieldText, "address1_city"},
	{"COUNTRY", lockstep.FieldText, "address1_country"},
	{"CHILDREN", lockstep.FieldNumber, "numberofchildren"},
	{"NOBULK", lockstep.FieldBool, "donotbulkemail"},
	{"CRMMODIFIED", lockstep.FieldDate, "modifiedon"},
}

// Email is the column with the address.
const Email = "emailaddress1"

// PageRows is the number of rows of a page of the CRM, its maximum.
const PageRows = 5000
