// Package fault injects failures into a twin: at the transport (connections
// refused, answers cut, acknowledgements lost) through Middleware and Listener,
// and inside a twin (a poisoned row, an expired delta token) through Take.
//
// A Set holds the rules. Which calls a rule hits depends only on the seed, the
// order in which rules were added and how many matching calls came before, so a
// test that makes the same calls meets the same faults.
//
// What a server inside one process cannot do: a refused port. The kind "refuse"
// accepts the connection and resets it at once, before anything is read; a
// client sees a reset where a closed port would say "connection refused".
package fault

import (
	"encoding/json"
	"net/http"
)

// Fault is one rule as the control API receives it.
type Fault struct {
	// Twin is "dataverse", "dotdigital", "entra" or empty for all.
	Twin string `json:"twin"`
	// Kind is one of the kinds of the control API, such as "ack-lost".
	Kind string `json:"kind"`
	// Rate is the seeded probability 0–1 that a matching call is hit; 0 means 1.
	Rate float64 `json:"rate"`
	// Every hits each n-th matching call; 0 means each one.
	Every int `json:"every"`
	// After skips the first n matching calls.
	After int `json:"after"`
	// Count ends the rule after n hits; 0 means never.
	Count int `json:"count"`
	// Operation restricts the rule to operations with this name or, with a
	// trailing *, this prefix. Empty means all.
	Operation string `json:"operation"`
	// Args refine the kind, for example {"code":503} for "status".
	Args json.RawMessage `json:"args,omitempty"`
}

// Hit is a rule that fired for one call.
type Hit struct {
	Kind string
	Args json.RawMessage
}

// Injector is what a twin needs of a Set. Nil-safe through None.
type Injector interface {
	// Take reports whether a twin-level rule of this kind fires for this call.
	Take(twin, kind, operation string) (Hit, bool)
	// Middleware applies the transport-level kinds around a twin's handler.
	// operation names the call before it is served.
	Middleware(twin string, operation func(*http.Request) string, next http.Handler) http.Handler
}

// None injects nothing.
type None struct{}

// Take never fires.
func (None) Take(string, string, string) (Hit, bool) { return Hit{}, false }

// Middleware returns next unchanged.
func (None) Middleware(_ string, _ func(*http.Request) string, next http.Handler) http.Handler {
	return next
}

var (
	_ Injector = None{}
	_ Injector = (*Set)(nil)
)
