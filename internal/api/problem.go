package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/lockstep-sync/lockstep"
)

// Problem is the body of every answer that is not a success: problem details as in
// RFC 9457, with what to do next.
type Problem struct {
	Title  string `json:"title" doc:"The HTTP status in words."`
	Status int    `json:"status" doc:"The HTTP status."`
	Detail string `json:"detail" doc:"What happened, for people."`
	Code   string `json:"code" doc:"What kind of failure it is, for programs." example:"not_found"`
	Hint   string `json:"hint,omitempty" doc:"What to do about it."`
	// Reference finds the log entry of an internal error.
	Reference string         `json:"reference,omitempty" doc:"Of an internal error: finds it in the log."`
	Errors    []ProblemField `json:"errors,omitempty" doc:"What is wrong with single inputs."`
}

// ProblemField is what is wrong with one input. The value itself is not repeated:
// it could be a secret.
type ProblemField struct {
	Location string `json:"location,omitempty" doc:"Where the input is." example:"body.type"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func newProblem(status int, code lockstep.Code, detail, hint string) *Problem {
	if detail == "" {
		detail = http.StatusText(status) + "."
	}
	return &Problem{Title: http.StatusText(status), Status: status, Detail: sentence(detail), Code: string(code), Hint: sentence(hint)}
}

// sentence makes a message look like one.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if c := s[0]; 'a' <= c && c <= 'z' {
		s = string(c-'a'+'A') + s[1:]
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}

func init() { //nolint:gochecknoinits // the library has one variable for all its interfaces: it is set once, before any is built
	// Huma makes the errors of its own checks, and the schema of errors, with this.
	huma.NewError = func(status int, msg string, details ...error) huma.StatusError {
		code := lockstep.CodeInvalid
		for c, s := range statuses {
			if s == status && c != lockstep.CodeConflict {
				code = c
			}
		}
		switch {
		case status == http.StatusConflict:
			code = lockstep.CodeConflict
		case status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable && status != http.StatusNotImplemented:
			code, msg, details = lockstep.CodeInternal, "", nil
		}
		p := newProblem(status, code, msg, "")
		for _, err := range details {
			var d huma.ErrorDetailer
			switch {
			case err == nil:
			case errors.As(err, &d):
				p.Errors = append(p.Errors, ProblemField{Location: d.ErrorDetail().Location, Message: d.ErrorDetail().Message})
			case status == http.StatusBadRequest:
				p.Errors = append(p.Errors, ProblemField{Message: "the input cannot be read"})
			}
		}
		return p
	}
}

// statuses are the HTTP statuses of the codes.
var statuses = map[lockstep.Code]int{
	lockstep.CodeInvalid:      http.StatusUnprocessableEntity,
	lockstep.CodeNotFound:     http.StatusNotFound,
	lockstep.CodeConflict:     http.StatusConflict,
	lockstep.CodeUnauthorized: http.StatusUnauthorized,
	lockstep.CodeForbidden:    http.StatusForbidden,
	lockstep.CodeThrottled:    http.StatusTooManyRequests,
	lockstep.CodeUnavailable:  http.StatusServiceUnavailable,
	lockstep.CodeUnsupported:  http.StatusNotImplemented,
	lockstep.CodeExpired:      http.StatusConflict,
	lockstep.CodeGuarded:      http.StatusConflict,
	lockstep.CodeCancelled:    http.StatusConflict,
	lockstep.CodeInternal:     http.StatusInternalServerError,
}

// problem turns a failure into an answer. report logs an internal one and returns
// its reference.
func problem(ctx context.Context, report func(error) string, err error) error {
	if ctx.Err() != nil {
		return newProblem(http.StatusServiceUnavailable, lockstep.CodeCancelled, "the request was given up", "")
	}
	all := causes(err)
	code := lockstep.CodeInternal
	if len(all) > 0 {
		code = all[0].Code
	}
	status, known := statuses[code]
	if !known || status == http.StatusInternalServerError {
		reference := report(err)
		p := newProblem(http.StatusInternalServerError, lockstep.CodeInternal, "something went wrong on our side", "Look for the reference "+reference+" in Lockstep's log.")
		p.Reference = reference
		return p
	}
	first := all[0]
	p := newProblem(status, code, cmpOr(first.Msg, string(code)), first.Hint)
	for _, e := range all {
		if e.Field != "" {
			p.Errors = append(p.Errors, ProblemField{Location: e.Field, Message: e.Msg, Hint: e.Hint})
		}
	}
	if first.After > 0 || code == lockstep.CodeThrottled {
		seconds := max(1, int(math.Ceil(first.After.Seconds())))
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {strconv.Itoa(seconds)}})
	}
	return p
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// causes lists the product's errors in err, first to last.
func causes(err error) []*lockstep.Error {
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case nil:
		return nil
	case *lockstep.Error:
		return []*lockstep.Error{e}
	case interface{ Unwrap() error }:
		return causes(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*lockstep.Error
		for _, one := range e.Unwrap() {
			all = append(all, causes(one)...)
		}
		return all
	}
	return nil
}

// write answers with an error outside of Huma.
func write(w http.ResponseWriter, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		p = newProblem(http.StatusInternalServerError, lockstep.CodeInternal, "", "")
	}
	if h, ok := errors.AsType[huma.HeadersError](err); ok {
		maps.Copy(w.Header(), h.GetHeaders())
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
