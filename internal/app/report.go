package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"

	"github.com/lockstep-sync/lockstep"
)

// address matches what could be an email address; values that a database or a
// network library quotes in its messages may hold one.
var address = regexp.MustCompile(`[^\s"'<>()=,;]+@[^\s"'<>()=,;]+`)

// Report logs an internal error under a short random reference and returns the
// reference, which is all that a user is shown.
func (a *App) Report(err error) (reference string) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	reference = hex.EncodeToString(b[:])
	var e *lockstep.Error
	cause := err
	if errors.As(err, &e) && e.Err != nil {
		cause = fmt.Errorf("%w: %w", err, e.Err)
	}
	a.log.Error("internal error", "reference", reference, "error", address.ReplaceAllString(cause.Error(), "[address]"))
	return reference
}
