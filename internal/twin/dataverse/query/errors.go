package query

import (
	"fmt"
	"net/http"
)

// Error is a refusal as the Web API words it.
type Error struct {
	Status  int    // HTTP status
	Code    string // such as "0x80060888"
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Codes of Dataverse's refusals of queries.
const (
	CodeODataQuery          = "0x80060888" // bad OData option, segment or property
	CodeInvalidArgument     = "0x80040203" // bad argument; also operators that the twin does not emulate
	CodeNoEntity            = "0x80041102" // QueryBuilderNoEntity
	CodeNoAttribute         = "0x80041103" // QueryBuilderNoAttribute
	CodeEntitiesDontMatch   = "0x80041128" // set and FetchXML root differ
	CodeInvalidQuery        = "0x80041130" // FetchXML that does not follow its schema
	CodeAggregateLimit      = "0x8004E023" // more than 50,000 source rows
	CodeSimplePaging        = "0x8004430A" // beyond 50,000 rows without a cookie
	CodeTooManyConditions   = "0x8004430C"
	CodeTooManyLinks        = "0x8004430D"
	CodeTooManyValues       = "0x8004430E"
	CodeInvalidPagingCookie = "0x80040203"
)

func refuse(code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Message: fmt.Sprintf(format, args...)}
}

// notEmulated says plainly that the real service would take this and the twin
// does not.
func notEmulated(format string, args ...any) *Error {
	return &Error{Status: http.StatusNotImplemented, Code: CodeInvalidArgument, Message: fmt.Sprintf(format, args...) + " is not emulated"}
}
