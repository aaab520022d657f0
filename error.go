package lockstep

import (
	"errors"
	"time"
)

// Code says what kind of failure an Error is; it decides exit codes, HTTP
// statuses and whether work is tried again.
type Code string

// The codes. Anything without one is internal.
const (
	CodeInvalid      Code = "invalid"      // the input is wrong; msg names the field, hint the fix
	CodeNotFound     Code = "not_found"    // it does not exist, or the caller may not see it
	CodeConflict     Code = "conflict"     // it exists already, or contradicts what is there
	CodeStale        Code = "stale"        // somebody else changed it since it was read
	CodeUnauthorized Code = "unauthorized" // the other side does not accept our credential
	CodeForbidden    Code = "forbidden"    // the credential is accepted but lacks a right
	CodeThrottled    Code = "throttled"    // a limit was reached; After tells when to go on
	CodeUnavailable  Code = "unavailable"  // nobody answered, or not in time, or not sensibly
	CodeUnsupported  Code = "unsupported"  // the other side cannot do this
	CodeExpired      Code = "expired"      // a cursor is too old to continue from
	CodeGuarded      Code = "guarded"      // a guard stopped the run before harm
	CodeCancelled    Code = "cancelled"    // a person or a shutdown stopped it
	CodeInternal     Code = "internal"     // our fault
)

// Scope tells how far the damage of an error goes.
type Scope uint8

// The scopes, narrow to wide.
const (
	ScopeRecord     Scope = iota // this record only: a finding, the batch goes on
	ScopeBatch                   // this call only: split or retry it
	ScopeConnection              // everything on this connection: pause
)

// Error is a failure that says what to do next. Msg and Hint are for people and
// hold no personal data beyond a record's id, no secrets and no upstream body.
type Error struct {
	Code  Code
	Op    string        // what was tried: "dynamics: update contact"
	Msg   string        // what happened
	Hint  string        // what to do about it; may be empty
	Field string        // the input field or column at fault; may be empty
	After time.Duration // with CodeThrottled and CodeUnavailable: when to try again
	Scope Scope
	// Unknown is set when the call may have taken effect although it failed:
	// the answer was lost after the request went out.
	Unknown bool
	// Upstream is the other side's own error code, such as "0x80040237".
	Upstream string
	Err      error
}

func (e *Error) Error() string {
	s := e.Msg
	if s == "" && e.Err != nil {
		s = e.Err.Error()
	}
	if s == "" {
		s = string(e.Code)
	}
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of err: "" for nil, CodeInternal when it carries none.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// ScopeOf returns how far err reaches. An error that carries no scope is taken
// to concern the whole connection.
func ScopeOf(err error) Scope {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Scope
	}
	return ScopeConnection
}

// AsError returns the *Error in err's chain, or wraps err as internal.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Msg: "Internal error.", Scope: ScopeConnection, Err: err}
}

// IsUnknown reports whether the failed call may have taken effect.
func IsUnknown(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Unknown
}
