package dataverse

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Error codes, from the Web service error codes of Dataverse.
const (
	codeObjectDoesNotExist  = "0x80040217"
	codeKeyRecordNotFound   = "0x80060891"
	codeSegmentNotFound     = "0x8006088A"
	codeDuplicateRecord     = "0x80040237"
	codeDuplicateKey        = "0x80060892"
	codeManyByKey           = "0x8006089D"
	codeKeyNotDefined       = "0x80060890"
	codeVersionMismatch     = "0x80060882"
	codeNoOptimistic        = "0x8006088D"
	codeBadRequest          = "0x80060888"
	codePayload             = "0x80048d19"
	codeInvalidArgument     = "0x80040203"
	codeRequiredMissing     = "0x80040200"
	codeUnexpected          = "0x80040216"
	codeTextTooLong         = "0x80044331"
	codeIntegerRange        = "0x8004432F"
	codeDecimalRange        = "0x80044330"
	codeMoneyRange          = "0x80040317"
	codeOptionRange         = "0x8004431A"
	codeMinMax              = "0x80061004"
	codeTooManySelections   = "0x80050222"
	codeStateStatus         = "0x80048408"
	codeInactive            = "0x80040230"
	codePluginAborted       = "0x80040265"
	codePrivilege           = "0x80040220"
	codeCannotActOnBehalf   = "0x8004A110"
	codeNotMember           = "0x80072560"
	codeNoRoles             = "0x80042F09"
	codeUserDisabled        = "0x80040225"
	codeCannotDelete        = "0x80040227"
	codeInvalidOperation    = "0x8004023B"
	codeNotSupported        = "0x80040315"
	codeNotImplemented      = "0x80040219"
	codeMessageMissing      = "0x80044824"
	codeExpiredVersion      = "0x80044352"
	codeTrackingOff         = "0x80072491"
	codeTrackingIntersect   = "0x80072492"
	codeTooLarge            = "0x8004418A"
	codeMemberType          = "0x80040301"
	codeListLocked          = "0x80040302"
	codeDynamicList         = "0x8004F701"
	codeLockDynamic         = "0x8004F703"
	codeNotListMember       = "0x80048458"
	codeDuplicateSchemaName = "0x80047013"
	codeNameTaken           = "0x8004022A"
	codeThrottleRequests    = "0x80072322"
	codeThrottleTime        = "0x80072321"
	codeThrottleConcurrent  = "0x80072326"
)

// apiError is a refusal as the Web API words it.
type apiError struct {
	status  int
	code    string
	message string
	header  http.Header // additional answer headers
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, codeBadRequest, format, args...)
}

func payload(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, codePayload, "Error identified in Payload provided by the user for Entity: "+format, args...)
}

func notEmulated(what string) *apiError {
	return fail(http.StatusNotImplemented, codeNotImplemented, "%s is not emulated by this twin.", what)
}

func noSegment(name string) *apiError {
	return fail(http.StatusNotFound, codeSegmentNotFound, "Resource not found for the segment '%s'.", name)
}

func notFound(table string, id value.ID) *apiError {
	return fail(http.StatusNotFound, codeObjectDoesNotExist, "%s With Id = %s Does Not Exist", table, id)
}

func wrongMethod(method string) *apiError {
	return fail(http.StatusMethodNotAllowed, codeBadRequest, "The requested resource does not support http method '%s'.", method)
}

// asAPIError gives every error the shape of an answer. Errors of the query
// engine carry their own status and code.
func asAPIError(err error) *apiError {
	if own, ok := errors.AsType[*apiError](err); ok {
		return own
	}
	if q, ok := errors.AsType[*query.Error](err); ok {
		return &apiError{status: q.Status, code: q.Code, message: q.Message}
	}
	return fail(http.StatusInternalServerError, codeUnexpected, "An unexpected error occurred: %v", err)
}

// appendError writes the error body. On version 8 paths the older innererror is
// always there; elsewhere the details only when annotations were asked for.
func appendError(dst []byte, e *apiError, legacy, annotated bool) []byte {
	dst = append(dst, `{"error":{"code":`...)
	dst = value.AppendString(dst, e.code)
	dst = append(dst, `,"message":`...)
	dst = value.AppendString(dst, e.message)
	if legacy {
		dst = append(dst, `,"innererror":{"message":`...)
		dst = value.AppendString(dst, e.message)
		dst = append(dst, ",\"type\":\"System.ServiceModel.FaultException`1[[Microsoft.Xrm.Sdk.OrganizationServiceFault, Microsoft.Xrm.Sdk, Version=8.0.0.0, Culture=neutral, PublicKeyToken=31bf3856ad364e35]]\",\"stacktrace\":\"\"}"...)
	} else if annotated {
		dst = append(dst, `,"@Microsoft.PowerApps.CDS.ErrorDetails.OperationStatus":"0","@Microsoft.PowerApps.CDS.HelpLink":"http://go.microsoft.com/fwlink/?LinkID=398563","@Microsoft.PowerApps.CDS.InnerError.Message":`...)
		dst = value.AppendString(dst, e.message)
	}
	return append(dst, "}}"...)
}
