package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a secret in memory. Whatever formats, logs or encodes it gets
// "[redacted]"; only Reveal gives it away.
type Text string

// Reveal returns the secret itself, for the one call that needs it.
func (t Text) Reveal() string { return string(t) }

// String hides the secret.
func (Text) String() string { return redacted }

// Format hides the secret from every verb, the wrong ones included.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the secret from logs.
func (Text) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from JSON, YAML and the like.
func (Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }
