package lockstep

import (
	"context"
	"errors"
	"time"
)

// ErrBudget is why a call was not made that would have exceeded the budget of its
// connection. The error says in After when it may be.
var ErrBudget = errors.New("over budget")

// CallBudget bounds how many API calls Lockstep makes to one connection, so that the
// other programs that share its allowance get their part. Zero fields bound nothing.
type CallBudget struct {
	PerHour int `json:"per_hour,omitempty"` // in any 60 minutes
	PerDay  int `json:"per_day,omitempty"`  // in any 24 hours
}

// Caller says on whose behalf a call is made: who comes first when few are left.
type Caller string

// The callers, the most patient first.
const (
	CallerSchedule Caller = "schedule" // a sync that began by itself
	CallerPerson   Caller = "person"   // what somebody asked for
	CallerConsent  Caller = "consent"  // opt-outs
)

// Share is the part of a budget, in percent, up to which calls of the caller are made:
// the rest is kept back for those who come first.
func (c Caller) Share() int {
	switch c {
	case CallerSchedule:
		return 80
	case CallerPerson:
		return 95
	}
	return 100
}

type patientKey struct{}

// WithPatience returns a context whose calls leave a part of the budget to others, also
// when they are urgent. It is for what begins by itself and can wait.
func WithPatience(ctx context.Context) context.Context {
	return context.WithValue(ctx, patientKey{}, true)
}

// CallerFrom returns on whose behalf the calls of ctx are made.
func CallerFrom(ctx context.Context) Caller {
	if p, _ := ctx.Value(patientKey{}).(bool); p {
		return CallerSchedule
	}
	if Urgent(ctx) {
		return CallerConsent
	}
	return CallerPerson
}

// Price is how many API calls a run is expected to make.
type Price struct {
	CRM      int64 `json:"crm"`
	Platform int64 `json:"platform"`
	// Basis says what the price goes by: "runs" like it, of which it is the median; the
	// "preview" that is applied; or, of a first sync, the members of the "lists".
	Basis string `json:"basis"`
}

// CallCount is how many calls were made to a connection for one caller within the five
// minutes from At on.
type CallCount struct {
	Connection string    `json:"-"` // id of an organization or email account
	At         time.Time `json:"at"`
	Caller     Caller    `json:"caller"`
	Calls      int64     `json:"calls"` // polls apart
	Polls      int64     `json:"polls"` // questions about a job's progress
}

// CallSlot is the time that one CallCount is about.
const CallSlot = 5 * time.Minute

// AllowanceKnower is a connection that knows how many calls its service grants.
type AllowanceKnower interface {
	// HourlyAllowance returns how many calls the service grants in an hour; 0 = it has
	// not told, or grants them otherwise.
	HourlyAllowance() int
}
