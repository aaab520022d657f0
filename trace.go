package lockstep

import "context"

// Trace is told what is done on behalf of one run, so that somebody can see where its
// time goes. What it is told is the same for everybody's data: texts of the program,
// names of tables, ids of lists, numbers; never an address, a value or the name of a list.
// Safe for concurrent use.
type Trace interface {
	// Step says that a part of the work begins, which ends the part before it. table and
	// list, the id of its settings, are empty when the part is about none.
	Step(name, table, list string)
	// Stored says what a commit within the step added to the run's counts.
	Stored(Counts)
	// Call says that one attempt of a call begins. What it returns must be ended.
	Call(TracedCall) TracedAnswer
}

// TracedCall is one attempt of a call.
type TracedCall struct {
	System  string // the adapter: "dynamics"
	Op      string // what is tried: "update contact"
	Method  string
	Route   string // the address without data: "/contacts"
	Attempt int    // 1 is the first
	Bytes   int64  // of the request's body
	Rows    int    // records in the request; 0 = none, or not told
	Poll    bool   // it asks for the progress of a job
}

// TracedAnswer receives how a call ended. Answered comes before End, if it comes.
type TracedAnswer interface {
	// Answered says which status was answered; 0 = none, for the reason that code names.
	Answered(status int, code Code, requestID string)
	// End says that the answer was read, bytes of it, or was given up.
	End(bytes int64)
}

type traceKey struct{}

// WithTrace returns a context whose work t is told of.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceFrom returns whom to tell of the work of ctx; nil when there is nobody.
func TraceFrom(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}
