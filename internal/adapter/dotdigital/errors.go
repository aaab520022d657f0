package dotdigital

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// How long to wait where the service does not say.
const (
	capWait        = 5 * time.Minute  // the account-wide cap of the flat scheme
	busyListWait   = 30 * time.Second // another job holds the list
	importSlotWait = 15 * time.Second // all import slots of the account are taken
	limitWait      = time.Minute      // one window of the tiered scheme
	outageWait     = time.Minute
)

// errUnfit marks an answer that is none of Dotdigital's API, or none that helps.
var errUnfit = errors.New("an answer came that is of no use")

// refusal is what an error answer says, whichever of the API's two shapes it has.
type refusal struct {
	status int
	// code is "ERROR_CONTACT_NOT_FOUND" of v2 or "contacts:contactNotFound" of v3.
	code string
	// known is set when the answer had one of the two shapes.
	known bool
}

// readRefusal reads the body of an error answer. Its sentences may quote a person's
// data: only the code in them is taken.
func readRefusal(status int, body []byte) refusal {
	r := refusal{status: status}
	var shape struct {
		Message     *string `json:"message"`
		ErrorCode   *string `json:"errorCode"`
		Description *string `json:"description"`
	}
	if len(body) == 0 || json.Unmarshal(body, &shape) != nil {
		return r
	}
	switch {
	case shape.ErrorCode != nil:
		r.known = true
		r.code = token(*shape.ErrorCode)
		if shape.Description != nil { // a limit of the account speaks the older language
			if t := errorToken(*shape.Description); t != "" {
				r.code = t
			}
		}
	case shape.Message != nil:
		r.known = true
		r.code = errorToken(*shape.Message)
	}
	return r
}

// errorToken finds the machine-readable part of a v2 message: the last ERROR_… in
// the sentence.
func errorToken(text string) string {
	i := strings.LastIndex(text, "ERROR_")
	if i < 0 {
		return ""
	}
	end := i
	for end < len(text) && end-i < 80 && (text[end] == '_' || 'A' <= text[end] && text[end] <= 'Z' || '0' <= text[end] && text[end] <= '9') {
		end++
	}
	return text[i:end]
}

// token returns s when it is nothing but a machine-readable code, else "": an
// upstream text must not travel in an error.
func token(s string) string {
	if len(s) > 80 {
		return ""
	}
	for i := range len(s) {
		c := s[i]
		if c != ':' && c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return ""
		}
	}
	return s
}

// verdict is what a known error code means.
type verdict struct {
	code  lockstep.Code
	scope lockstep.Scope
	msg   string
	hint  string
	field string
	after time.Duration
}

const releaseHint = "ask the owner of the Dotdigital account or Dotdigital's support"

// verdicts are the codes with a meaning of their own; families of codes follow
// in judge.
var verdicts = map[string]verdict{
	"ERROR_APIUSAGE_EXCEEDED": {
		code: lockstep.CodeThrottled, scope: lockstep.ScopeConnection, after: capWait,
		msg: "the account has used up its API calls of this hour", hint: "it goes on by itself; if this happens often, ask Dotdigital for a higher limit",
	},
	"ERROR_ADDRESSBOOK_IN_USE": {
		code: lockstep.CodeThrottled, scope: lockstep.ScopeBatch, after: busyListWait,
		msg: "another job holds the address book",
	},
	"ERROR_IMPORT_TOOMANYACTIVEIMPORTS": {
		code: lockstep.CodeThrottled, scope: lockstep.ScopeBatch, after: importSlotWait,
		msg: "the account has as many imports under way as it may",
	},
	"contacts:tooManyActiveImports": {
		code: lockstep.CodeThrottled, scope: lockstep.ScopeBatch, after: importSlotWait,
		msg: "the account has as many imports under way as it may",
	},
	"contacts:tooManyBulkDeleteJobs": {
		code: lockstep.CodeThrottled, scope: lockstep.ScopeBatch, after: importSlotWait,
		msg: "the account has as many deletions under way as it may",
	},
	"ERROR_SYSTEM_SERVICETEMPORARILYUNAVAILABLE": {
		code: lockstep.CodeUnavailable, scope: lockstep.ScopeConnection, after: outageWait,
		msg: "Dotdigital is under maintenance",
	},
	"ERROR_FEATURENOTACTIVE": {
		code: lockstep.CodeForbidden, scope: lockstep.ScopeBatch,
		msg: "this feature is not part of the account's package or the API user may not use it", hint: releaseHint,
	},
	"ERROR_ADDRESSBOOK_DUPLICATE": {
		code: lockstep.CodeConflict, scope: lockstep.ScopeBatch, field: "name",
		msg: "an address book or a segment has this name already", hint: "choose another name, or link the existing address book",
	},
	"ERROR_ADDRESSBOOK_NOTWRITABLE": {
		code: lockstep.CodeInvalid, scope: lockstep.ScopeBatch,
		msg: "this address book is Dotdigital's own and cannot be changed", hint: "choose another address book",
	},
	"ERROR_ADDRESSBOOK_LIMITEXCEEDED": {
		code: lockstep.CodeForbidden, scope: lockstep.ScopeBatch,
		msg: "the account may have no more address books", hint: "delete address books that are not needed, or ask Dotdigital for more",
	},
	"ERROR_ADDRESSBOOK_INVALID": {
		code: lockstep.CodeInvalid, scope: lockstep.ScopeBatch, field: "name",
		msg: "Dotdigital does not accept this name for an address book",
	},
	"ERROR_NON_UNIQUE_DATAFIELD": {
		code: lockstep.CodeConflict, scope: lockstep.ScopeBatch, field: "name",
		msg: "the data field exists already",
	},
	"ERROR_DATAFIELD_LIMITEXCEEDED": {
		code: lockstep.CodeForbidden, scope: lockstep.ScopeBatch,
		msg: "the account may have no more data fields", hint: "delete data fields that are not needed, or ask Dotdigital for more",
	},
	"ERROR_DATAFIELD_INVALID": {
		code: lockstep.CodeInvalid, scope: lockstep.ScopeBatch, field: "name",
		msg: "Dotdigital does not accept this data field",
	},
	"contacts:invalidFilter": {
		code: lockstep.CodeInvalid, scope: lockstep.ScopeBatch,
		msg: "Dotdigital does not accept what was asked for", hint: "check that the address book and the data fields still exist",
	},
	"contacts:idAlreadyExists": {
		code: lockstep.CodeConflict, scope: lockstep.ScopeRecord,
		msg: "another contact has this address",
	},
}

// judge turns an error answer into the error that the caller acts on. wrote says
// that the call may have changed something.
func judge(op string, r refusal, after time.Duration, wrote bool) *lockstep.Error {
	e := &lockstep.Error{Op: op, Upstream: r.code, Scope: lockstep.ScopeBatch}
	if v, ok := verdicts[r.code]; ok {
		e.Code, e.Scope, e.Msg, e.Hint, e.Field, e.After = v.code, v.scope, v.msg, v.hint, v.field, v.after
		if e.After > 0 && after > e.After {
			e.After = after
		}
		return e
	}
	switch {
	case r.status == http.StatusUnauthorized || signInCode(r.code):
		e.Code, e.Scope = lockstep.CodeUnauthorized, lockstep.ScopeConnection
		e.Msg = "Dotdigital does not accept the API user"
		e.Hint = "check user and password under Settings, Access, API users, and that the API user is enabled"
	case r.status == http.StatusForbidden:
		e.Code, e.Scope = lockstep.CodeForbidden, lockstep.ScopeConnection
		e.Msg = "Dotdigital does not let the API user do this"
		e.Hint = "check the permissions of the API user under Settings, Access, API users"
	case r.status == http.StatusTooManyRequests:
		e.Code, e.Scope, e.After = lockstep.CodeThrottled, lockstep.ScopeConnection, after
		if e.After == 0 {
			e.After = limitWait
		}
		e.Msg = "the account has used up its API calls of this minute"
	case r.status == http.StatusNotImplemented:
		e.Code = lockstep.CodeUnsupported
		e.Msg = "the service does not have this call"
	case r.status >= 500 || r.status == http.StatusRequestTimeout:
		e.Code, e.Scope, e.After, e.Unknown = lockstep.CodeUnavailable, lockstep.ScopeConnection, after, wrote
		e.Msg, e.Err = "Dotdigital answered with error "+strconv.Itoa(r.status), errUnfit
		e.Hint = "it is tried again; if it stays, look at Dotdigital's status page"
	case !r.known:
		// A proxy's "not found" page must not pass for "there is no such contact".
		e.Code, e.Scope, e.Err = lockstep.CodeUnavailable, lockstep.ScopeConnection, errUnfit
		e.Msg = fmt.Sprintf("an answer %d came that is not Dotdigital's", r.status)
		e.Hint = "check the API address and whether a proxy stands in between"
	case r.status == http.StatusNotFound && r.code == unknownError:
		// Nor must an error that the service cannot name: an opt-out would be dropped
		// because nobody seems to have the address.
		e.Code, e.Scope, e.Err = lockstep.CodeUnavailable, lockstep.ScopeConnection, errUnfit
		e.Msg = "Dotdigital answered 404 without saying what it does not know"
		e.Hint = "it is tried again; if it stays, look at Dotdigital's status page"
	case strings.HasSuffix(r.code, "NOT_FOUND") || strings.HasSuffix(r.code, "NOTFOUND") || strings.HasSuffix(r.code, "otFound") || r.status == http.StatusNotFound:
		e.Code = lockstep.CodeNotFound
		e.Msg = "Dotdigital does not know it (any more)"
	case strings.HasPrefix(r.code, "ERROR_NON_UNIQUE") || r.status == http.StatusConflict:
		e.Code = lockstep.CodeConflict
		e.Msg = "it exists already"
	case strings.HasSuffix(r.code, "LIMITEXCEEDED"):
		e.Code = lockstep.CodeForbidden
		e.Msg, e.Hint = "a limit of the account is reached", releaseHint
	case r.status == http.StatusRequestEntityTooLarge:
		e.Code = lockstep.CodeInvalid
		e.Msg, e.Hint = "the request is larger than Dotdigital accepts", "hand over fewer rows at once"
	default:
		e.Code = lockstep.CodeInvalid
		e.Msg = "Dotdigital refused the request with status " + strconv.Itoa(r.status)
		if r.code != "" {
			e.Msg += ", " + r.code
		}
	}
	return e
}

// unknownError is what the service says of an error that it has no name for.
const unknownError = "ERROR_UNKNOWN"

func signInCode(code string) bool {
	switch code {
	case "ERROR_INVALID_LOGIN", "ERROR_APIUSER_INVALID", "ERROR_OAUTH_TOKEN_INVALID", "ERROR_ACCOUNT_INVALID", "ERROR_UNKNOWN_ACCOUNT", "ERROR_USERACCOUNT_UNKNOWN", "ERROR_MANAGED_USER_INVALID":
		return true
	}
	return false
}

// pauseAsked reads how long an answer asks to wait: Retry-After, else the end of
// the rate limit's window, which is compared with the answer's own Date and not
// with our clock. 0 = it does not say, or nonsense.
func pauseAsked(h http.Header) time.Duration {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		date = time.Time{}
	}
	if d, ok := remote.RetryAfter(h, date); ok {
		return d
	}
	return windowLeft(h)
}

// windowLeft is the time until the window of the rate limit ends.
func windowLeft(h http.Header) time.Duration {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	d := time.Unix(reset, 0).Sub(date)
	if d < 0 {
		return 0
	}
	// Both clocks count whole seconds: one more is certain to be past the edge.
	// More than a window is not believed.
	return min(d, limitWait) + time.Second
}

// senseless is the error for an answer that cannot be Dotdigital's, or is one cut
// short.
func senseless(q *call, what string, cause error) *lockstep.Error {
	return &lockstep.Error{
		Code: lockstep.CodeUnavailable, Op: q.name(), Scope: lockstep.ScopeConnection, Msg: what, Unknown: q.writes(),
		Hint: "it is tried again; if it stays, check the API address and whether a proxy stands in between", Err: errors.Join(errUnfit, cause),
	}
}

// notEnded is the error of waiting for a job until the caller's patience ended.
// last is what the last failed question about it met.
func notEnded(ctx context.Context, op, job string, last error) *lockstep.Error {
	e := &lockstep.Error{
		Code: lockstep.CodeUnavailable, Op: op, Scope: lockstep.ScopeBatch, Err: errors.Join(ctx.Err(), last),
		Msg: "Dotdigital has not ended the job " + job + " yet", Hint: "ask again later",
	}
	if last != nil {
		e.Msg = "Dotdigital has not told whether the job " + job + " has ended"
	}
	return e
}

func invalid(op, field, msg, hint string) *lockstep.Error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: op, Field: field, Msg: msg, Hint: hint, Scope: lockstep.ScopeBatch}
}
