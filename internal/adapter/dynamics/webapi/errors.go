package webapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// The codes of the service that steer us. The rest only choose words.
const (
	errNotFound         = 0x80040217
	errDuplicateID      = 0x80040237
	errAborted          = 0x80040265
	errTooLong          = 0x80044331
	errDeadlock         = 0x80044150
	errSQLTimeout       = 0x80044151
	errPluginTimeout    = 0x80081111
	errTooLarge         = 0x8004418A
	errExpiredVersion   = 0x80044352
	errTrackingOff      = 0x80072491
	errTrackingNever    = 0x80072492
	errNotImplemented   = 0x80040219
	errNoMessage        = 0x80044824
	errNotAMember       = 0x80048458
	errListLocked       = 0x80040302
	errListDynamic      = 0x8004F701
	errListDynamicLock  = 0x8004F703
	errNoQueryTable     = 0x80041102
	errNoQueryColumn    = 0x80041103
	errUndeclared       = 0x80048d19
	errTooManyToCount   = 0x8004E023
	errPrivilege        = 0x80040220
	errUnexpected       = 0x80040216
	errOrganizationDown = 0x8004A104
	errNoMember         = 0x80072560
	errNoRole           = 0x80042F09
	errKeyTaken         = 0x80060892
	errNameTaken        = 0x8004022A
	errColumnTaken      = 0x80047013
	errImporting        = 0x80048543
	errCustomizing      = 0x80071151
	errUnversioned      = 0x8006088D
)

type meaning struct {
	code  lockstep.Code
	scope lockstep.Scope
	msg   string
	hint  string
}

const (
	record = lockstep.ScopeRecord
	call   = lockstep.ScopeBatch
	all    = lockstep.ScopeConnection
)

// meanings classify by code; names and meanings follow Microsoft's list of
// Dataverse error codes.
var meanings = map[uint32]meaning{
	errNotFound: {lockstep.CodeNotFound, record, "the record does not exist", ""},
	0x80060891:  {lockstep.CodeNotFound, record, "no record has this key", ""},
	0x8006088A:  {lockstep.CodeNotFound, call, "Dynamics has no such table or function", "check that the app which brings it is installed"},

	errDuplicateID: {lockstep.CodeConflict, record, "a record with the same key exists already", ""},
	errKeyTaken:    {lockstep.CodeConflict, record, "a record with the same alternate key exists already", ""},
	0x80040333:     {lockstep.CodeConflict, record, "a duplicate detection rule of Dynamics stopped the record", "merge the duplicates or exempt the application user from the rule"},
	0x80060882:     {lockstep.CodeStale, record, "somebody else changed the record meanwhile", ""},
	errNameTaken:   {lockstep.CodeConflict, record, "the name is taken already", ""},
	errColumnTaken: {lockstep.CodeConflict, record, "the column exists already", ""},

	0x8006089D:     {lockstep.CodeInvalid, call, "several records have the same alternate key", "activate the key in Dynamics"},
	0x80060890:     {lockstep.CodeInvalid, call, "the columns are no alternate key", "define the key in Dynamics"},
	0x80060883:     {lockstep.CodeInvalid, call, "Dynamics asks for a version that was not sent", ""},
	errUnversioned: {lockstep.CodeInvalid, call, "the table has no optimistic concurrency", ""},

	0x80060888:        {lockstep.CodeInvalid, call, "Dynamics does not understand the request", "a mapped column may have been removed: read the tables again"},
	errUndeclared:     {lockstep.CodeInvalid, call, "a column that was sent does not exist or has another type", "a mapped column may have been removed: read the tables again"},
	errNoQueryTable:   {lockstep.CodeInvalid, call, "the query names a table that does not exist", "correct the query in Dynamics"},
	errNoQueryColumn:  {lockstep.CodeInvalid, call, "the query names a column that does not exist", "correct the query in Dynamics, or the mapping if it is ours"},
	0x80041128:        {lockstep.CodeInvalid, call, "the query is about another table", "correct the query in Dynamics"},
	errTooManyToCount: {lockstep.CodeInvalid, call, "the query counts more than 50,000 rows", "narrow the query"},
	0x8004430A:        {lockstep.CodeInvalid, call, "the query sorts in a way that stops at 50,000 rows", "remove the sorting by a related table"},
	0x8004430C:        {lockstep.CodeInvalid, call, "the query has more than 500 conditions", "simplify the query in Dynamics"},
	0x8004430D:        {lockstep.CodeInvalid, call, "the query has too many related tables", "simplify the query in Dynamics"},
	0x8004430E:        {lockstep.CodeInvalid, call, "a condition of the query has too many values", "simplify the query in Dynamics"},

	0x80040203:    {lockstep.CodeInvalid, record, "Dynamics refused a value", ""},
	0x80040200:    {lockstep.CodeInvalid, record, "a required column is empty", "map the column or give it a default"},
	errUnexpected: {lockstep.CodeInvalid, record, "Dynamics failed on the record without a reason", "look into the plug-in trace log of Dynamics"},
	errTooLong:    {lockstep.CodeInvalid, record, "a text is too long for its column", "shorten the value or lengthen the column"},
	0x8004432F:    {lockstep.CodeInvalid, record, "a whole number is out of the column's range", ""},
	0x80044330:    {lockstep.CodeInvalid, record, "a decimal number is out of the column's range", ""},
	0x80040317:    {lockstep.CodeInvalid, record, "an amount is out of the column's range", ""},
	0x8004431A:    {lockstep.CodeInvalid, record, "a choice is not among the column's options", "add the option in Dynamics or map the value"},
	0x80061004:    {lockstep.CodeInvalid, record, "a value is out of the column's range", ""},
	0x80061005:    {lockstep.CodeInvalid, record, "a choice is not among the column's options", "add the option in Dynamics or map the value"},
	0x8004431C:    {lockstep.CodeInvalid, record, "a yes-or-no value is neither", ""},
	0x80050222:    {lockstep.CodeInvalid, record, "too many choices at once", ""},
	0x80048408:    {lockstep.CodeInvalid, record, "the status reason does not belong to the state", ""},
	0x80041136:    {lockstep.CodeInvalid, record, "a number is too large", ""},
	0x80040230:    {lockstep.CodeInvalid, record, "the record is inactive and cannot be changed", "activate the record"},
	0x80040227:    {lockstep.CodeInvalid, record, "other records refer to the record", ""},

	errAborted:       {lockstep.CodeInvalid, record, "a business rule of this organization refused the record", "ask who maintains the plug-ins of the organization"},
	0x80040224:       {lockstep.CodeInvalid, record, "a plug-in of this organization failed on the record", "ask who maintains the plug-ins of the organization"},
	errPluginTimeout: {lockstep.CodeUnavailable, call, "a plug-in of this organization took longer than two minutes", "ask who maintains the plug-ins of the organization"},
	errDeadlock:      {lockstep.CodeUnavailable, call, "the database of Dynamics was busy", ""},
	errSQLTimeout:    {lockstep.CodeUnavailable, call, "the database of Dynamics did not answer in time", ""},
	errTooLarge:      {lockstep.CodeInvalid, call, "the request is too large", ""},

	errPrivilege: {lockstep.CodeForbidden, call, "the application user lacks a privilege", "give its security role the privilege"},
	0x80040231:   {lockstep.CodeForbidden, call, "the owner lacks a privilege", "give its security role the privilege"},
	0x80048306:   {lockstep.CodeForbidden, record, "the application user may not see or change this record", "widen the depth of its security role"},
	0x80048405:   {lockstep.CodeForbidden, call, "the application user may not do this", "widen its security role"},
	0x8004F502:   {lockstep.CodeForbidden, record, "a secured column may not be set", "add the application user to the column security profile"},
	0x8004F504:   {lockstep.CodeForbidden, record, "a secured column may not be read", "add the application user to the column security profile"},
	0x8004F507:   {lockstep.CodeForbidden, record, "a secured column may not be changed", "add the application user to the column security profile"},
	0x8004A110:   {lockstep.CodeForbidden, call, "the application user may not act for others", ""},
	errNoMember:  {lockstep.CodeForbidden, all, "the organization has no application user for this client id", "add an application user for the app registration in the Power Platform admin center"},
	errNoRole:    {lockstep.CodeForbidden, all, "the application user has no security role", "assign it a security role"},
	0x80040225:   {lockstep.CodeForbidden, all, "the application user is disabled", "enable it"},
	0x8004A112:   {lockstep.CodeForbidden, all, "the application user is disabled", "enable it"},

	0x8004A101:          {lockstep.CodeUnauthorized, all, "the access token has expired", ""},
	errOrganizationDown: {lockstep.CodeUnavailable, all, "the organization is disabled or in administration mode", "enable it in the Power Platform admin center"},
	errImporting:        {lockstep.CodeUnavailable, call, "another solution is being imported", "wait until the import is over"},
	0x8004F01F:          {lockstep.CodeConflict, call, "other components of the organization depend on it", "take it out of the forms, views and flows that use it"},
	errCustomizing:      {lockstep.CodeUnavailable, call, "somebody else is customizing the organization at this moment", "try again in some minutes"},

	0x8004023B:        {lockstep.CodeUnsupported, call, "Dynamics does not allow this operation", ""},
	0x80040315:        {lockstep.CodeUnsupported, call, "Dynamics does not support this operation", ""},
	errNotImplemented: {lockstep.CodeUnsupported, call, "this Dynamics does not have the operation", ""},
	errNoMessage:      {lockstep.CodeUnsupported, call, "this Dynamics does not have the operation for this table", ""},

	errExpiredVersion: {lockstep.CodeExpired, call, "the last position in the change feed is too old", ""},
	errTrackingOff:    {lockstep.CodeUnsupported, call, "change tracking is off for the table", "switch it on in the table's properties"},
	errTrackingNever:  {lockstep.CodeUnsupported, call, "the table cannot be change tracked", ""},

	0x80072321: {lockstep.CodeThrottled, all, "the execution time allowed by Dynamics is used up for the moment", ""},
	0x80072322: {lockstep.CodeThrottled, all, "the number of requests allowed by Dynamics is used up for the moment", ""},
	0x80072326: {lockstep.CodeThrottled, all, "too many requests to Dynamics at once", ""},

	0x80040301:         {lockstep.CodeInvalid, record, "the record is not of the list's member type", ""},
	errListLocked:      {lockstep.CodeInvalid, call, "the marketing list is locked", "unlock it in Dynamics"},
	errListDynamic:     {lockstep.CodeInvalid, call, "the members of a dynamic list follow from its query", ""},
	errListDynamicLock: {lockstep.CodeInvalid, call, "a dynamic list cannot be locked", ""},
	errNotAMember:      {lockstep.CodeNotFound, record, "the record is not a member of the list", ""},
}

// refusal classifies an answer of status 400 and above. The texts of the service
// are in the language of the user and hold people's data: only names of columns
// and privileges, numbers, and the message of a customer's own plug-in are taken
// from them.
func refusal(status int, body string) *lockstep.Error {
	var answer struct {
		Error struct {
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		} `json:"error"`
	}
	isJSON := json.Unmarshal([]byte(strings.TrimPrefix(body, "\ufeff")), &answer) == nil && answer.Error.Code != nil
	number, known := parseCode(string(answer.Error.Code))
	m, classified := meanings[number]
	if number == errUnexpected && status != http.StatusBadRequest {
		classified = false // the code for anything says less than the status
	}
	if !known || !classified {
		m = byStatus(status, isJSON)
	}
	e := &lockstep.Error{Code: m.code, Scope: m.scope, Msg: m.msg, Hint: m.hint}
	if known && number != 0 {
		e.Upstream = fmt.Sprintf("0x%08X", number)
	}
	switch {
	case number == errTooLong:
		column, limit := tooLong(answer.Error.Message)
		if column != "" {
			e.Field = column
			e.Msg = fmt.Sprintf("the text is too long for the column %s, which takes %d characters", column, limit)
		}
	case number == errPrivilege || number == 0x80040231:
		if p := privilegeName.FindString(answer.Error.Message); p != "" {
			e.Field = p
			e.Msg += " (" + p + ")"
			e.Hint = "give its security role the privilege " + p
		}
	case number == errAborted:
		if t := plugInText(answer.Error.Message); t != "" {
			e.Msg = "a business rule of this organization refused the record: " + t
		}
	}
	if e.Code == lockstep.CodeThrottled && e.After == 0 {
		e.After = remote.MinPause
	}
	if !classified && e.Upstream != "" {
		e.Msg += " (" + e.Upstream + ")"
	}
	return e
}

func byStatus(status int, isJSON bool) meaning {
	switch {
	case status == http.StatusUnauthorized:
		return meaning{lockstep.CodeUnauthorized, all, "Dynamics does not accept the access token", "check that the tenant is the organization's own, and the address of the organization"}
	case status == http.StatusForbidden:
		return meaning{lockstep.CodeForbidden, call, "Dynamics refuses access", "check the application user and its security role"}
	case status == http.StatusNotFound && !isJSON:
		return meaning{lockstep.CodeNotFound, all, "what answers at this address is not a Dynamics organization", "check the organization's address"}
	case status == http.StatusNotFound:
		return meaning{lockstep.CodeNotFound, call, "Dynamics has no such table, function or record", ""}
	case status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented:
		return meaning{lockstep.CodeUnsupported, call, "Dynamics does not support this operation", ""}
	case status == http.StatusConflict || status == http.StatusPreconditionFailed:
		return meaning{lockstep.CodeConflict, record, "the record conflicts with what Dynamics holds", ""}
	case status == http.StatusGone:
		return meaning{lockstep.CodeExpired, call, "the last position in the change feed is too old", ""}
	case status == http.StatusRequestEntityTooLarge || status == http.StatusRequestURITooLong:
		return meaning{lockstep.CodeInvalid, call, "the request is too large", ""}
	case status == http.StatusTooManyRequests:
		return meaning{lockstep.CodeThrottled, all, "Dynamics asks to slow down", ""}
	case status == http.StatusRequestTimeout || status >= 500:
		return meaning{lockstep.CodeUnavailable, all, fmt.Sprintf("Dynamics is not available at the moment (%d)", status), ""}
	}
	return meaning{lockstep.CodeInvalid, call, fmt.Sprintf("Dynamics refused the request (%d)", status), ""}
}

// parseCode reads "0x80040217", "80040217", "-2147220969" and the same unquoted.
func parseCode(raw string) (uint32, bool) {
	s := strings.ToLower(strings.Trim(raw, `" `))
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		return uint32(n), err == nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n < 0 && n >= -1<<31 {
		return uint32(int32(n)), true
	}
	if len(s) == 8 {
		if n, err := strconv.ParseUint(s, 16, 32); err == nil {
			return uint32(n), true
		}
	}
	return 0, false
}

// partly marks the error of a call of which some part may have been done.
func partly(err error, some bool) error {
	if err == nil || !some {
		return err
	}
	e := *lockstep.AsError(err)
	e.Unknown = true
	return &e
}

// codeOf returns the service's own code of an error, 0 when it has none.
func codeOf(err error) uint32 {
	if err == nil {
		return 0
	}
	n, _ := parseCode(lockstep.AsError(err).Upstream)
	return n
}

var (
	privilegeName = regexp.MustCompile(`\bprv[A-Za-z0-9_]{1,100}`)
	quotedWord    = regexp.MustCompile(`'([^']{1,128})'`)
	logicalName   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,127}$`)
)

// tooLong finds column and limit in the quoted parts of the message, whatever
// language the rest is in.
func tooLong(message string) (column string, limit int) {
	for _, m := range quotedWord.FindAllStringSubmatch(message, 8) {
		if n, err := strconv.Atoi(m[1]); err == nil {
			limit = n
		} else if column == "" && logicalName.MatchString(m[1]) {
			column = m[1]
		}
	}
	if limit == 0 {
		return "", 0
	}
	return column, limit
}

// plugInText is what a customer's own rule says to the user, cut to a line and
// without anything that looks like an address.
func plugInText(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if strings.Contains(w, "@") {
			words[i] = "…"
		}
	}
	s = strings.Join(words, " ")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 200 {
		s = string(r[:200]) + "…"
	}
	return s
}
