package lockstep

import "context"

type urgentKey struct{}

// WithUrgency returns a context whose calls go ahead of others: they have a place of
// their own among the calls in flight and may use the part of a rate limit that is kept
// back from ordinary work. It is for opt-outs.
func WithUrgency(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

// Urgent reports whether ctx was made by WithUrgency.
func Urgent(ctx context.Context) bool {
	u, _ := ctx.Value(urgentKey{}).(bool)
	return u
}
