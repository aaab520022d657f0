package dotdigital

import (
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// faults are the refused rows of an import, found by contact and by address.
type faults struct {
	rows      []faultRow
	byContact map[string]int
	byEmail   map[string]int
}

type faultRow struct {
	who       identity
	fault     *lockstep.Error
	delivered bool
}

// of returns the fault of a row and marks it as delivered. Of two rows about one contact,
// one that was to give it another address and one with the address that it has, each has
// its own.
func (f *faults) of(who identity) *lockstep.Error {
	if len(f.rows) == 0 {
		return nil
	}
	i, ok := f.byContact[who.contact]
	if ok && who.email != "" && f.rows[i].who.email != "" && f.rows[i].who.email != who.email {
		ok = false
	}
	if !ok || who.contact == "" {
		if i, ok = f.byEmail[who.email]; !ok || who.email == "" {
			return nil
		}
	}
	f.rows[i].delivered = true
	return f.rows[i].fault
}

func readFaults(list pagescan.Cell) (*faults, error) {
	f := &faults{byContact: map[string]int{}, byEmail: map[string]int{}}
	if list.Kind() != pagescan.Array {
		return f, nil
	}
	err := list.Elements(func(row pagescan.Cell) error {
		r := faultRow{}
		var codes []string
		if row.Kind() != pagescan.Object {
			return errNoObject
		}
		err := row.EachMember(func(name string, v pagescan.Cell) error {
			if name == "failures" && v.Kind() == pagescan.Array {
				return v.Elements(func(reason pagescan.Cell) error {
					if reason.Kind() != pagescan.Object {
						return nil
					}
					return reason.EachMember(func(name string, v pagescan.Cell) error {
						if name == "failureCode" && v.Kind() == pagescan.String && len(codes) < 8 {
							codes = append(codes, v.Text())
						}
						return nil
					})
				})
			}
			return r.who.member(name, v)
		})
		if err != nil {
			return err
		}
		r.fault = rowFault(codes)
		if r.who.contact != "" {
			f.byContact[r.who.contact] = len(f.rows)
		}
		if r.who.email != "" {
			f.byEmail[r.who.email] = len(f.rows)
		}
		f.rows = append(f.rows, r)
		return nil
	})
	return f, err
}

// reasons are the failure codes of an import in lower case: the documentation
// writes them with a large and with a small initial.
var reasons = map[string]verdict{
	"apischemaviolation":       {code: lockstep.CodeInvalid, msg: "a value has a form that Dotdigital does not take", hint: "compare the mapped columns with the types of their data fields"},
	"blocker":                  {code: lockstep.CodeForbidden, field: "email", msg: "the address is on Dotdigital's list of blocked addresses"},
	"globallysuppressed":       {code: lockstep.CodeForbidden, field: "email", msg: "the address is on a suppression list", hint: "only the holder of the address can change that"},
	"suppressedbydomain":       {code: lockstep.CodeForbidden, field: "email", msg: "the address belongs to a domain that the account suppresses", hint: "look at the suppressed domains in Dotdigital"},
	"duplicate":                {code: lockstep.CodeConflict, field: "email", msg: "another row or contact has the same address"},
	"duplicateidentifier":      {code: lockstep.CodeConflict, field: "email", msg: "another row or contact has the same address"},
	"invalidemail":             {code: lockstep.CodeInvalid, field: "email", msg: "Dotdigital does not take the address for one", hint: "correct the address"},
	"invaliddomain":            {code: lockstep.CodeInvalid, field: "email", msg: "the domain of the address receives no mail", hint: "correct the address"},
	"invalidcontactid":         {code: lockstep.CodeNotFound, field: "contact", msg: "Dotdigital does not know the contact any more"},
	"contactnotfound":          {code: lockstep.CodeNotFound, field: "contact", msg: "Dotdigital does not know the contact any more"},
	"invalidcontact":           {code: lockstep.CodeInvalid, msg: "Dotdigital refused the contact"},
	"invalidphonenumber":       {code: lockstep.CodeInvalid, field: "mobileNumber", msg: "Dotdigital does not take the telephone number for one", hint: "correct the number"},
	"invalidaddressbookids":    {code: lockstep.CodeNotFound, field: "books", msg: "an address book does not exist any more or cannot be written", hint: "check the address books of the marketing lists"},
	"invalidmatchidentifier":   {code: lockstep.CodeInternal, msg: "Dotdigital does not know what the row was matched by"},
	"novalididentifiers":       {code: lockstep.CodeInvalid, field: "email", msg: "nothing in the row identifies a contact"},
	"invalidcontactstatus":     {code: lockstep.CodeForbidden, msg: "the contact's subscription status does not allow this"},
	"consentrecordsnotapplied": {code: lockstep.CodeInvalid, msg: "the consent was not stored"},
}

// rowFault is the error of one row. Several reasons become one error: the first
// decides, the others are named.
func rowFault(codes []string) *lockstep.Error {
	e := &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dotdigital: import contacts", Scope: lockstep.ScopeRecord}
	var names, texts []string
	for i, code := range codes {
		name := token(code)
		if name != "" {
			names = append(names, name)
		}
		v, ok := reasons[strings.ToLower(code)]
		if !ok {
			v = verdict{code: lockstep.CodeInvalid, msg: "Dotdigital refused the row"}
			if name != "" {
				v.msg += " (" + name + ")"
			}
		}
		if i == 0 {
			e.Code, e.Field, e.Hint = v.code, v.field, v.hint
		}
		texts = append(texts, v.msg)
	}
	if e.Msg = strings.Join(texts, "; "); e.Msg == "" {
		e.Msg = "Dotdigital refused the row without a reason"
	}
	e.Upstream = strings.Join(names, ",")
	return e
}
