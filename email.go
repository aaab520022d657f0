package lockstep

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxEmail is the longest address that either side takes, in bytes (RFC 5321
// allows 254 in a path).
const MaxEmail = 254

// NormalizeEmail returns the form of an address that is compared: outer white
// space cut, letters lower-cased one rune at a time. Nothing else is folded: plus
// tags, dots and look-alike letters stay, so two deliverable addresses never
// become one. It is idempotent.
func NormalizeEmail(s string) string {
	s = strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '\u200b' || r == '\ufeff' })
	lower := true
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			lower = false
			break
		}
	}
	if lower {
		return s
	}
	// A letter is folded only when the fold can be undone: the dotted capital I, the
	// Kelvin sign and their like have the lower case of another letter, and folding
	// them would make distinct addresses equal.
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); unicode.ToUpper(l) == r {
			return l
		}
		return r
	}, s)
}

// CheckEmail says why an address, already normalised, cannot be mailed; the empty
// string means it can be tried. It accepts what a mailbox can be, not only the
// usual: the platform has the last word.
func CheckEmail(s string) string {
	switch {
	case s == "":
		return "no email address"
	case len(s) > MaxEmail:
		return "the address is longer than 254 bytes"
	case !utf8.ValidString(s):
		return "the address is not valid text"
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 {
		return "the address has no name or no domain around the @"
	}
	local, domain := s[:at], s[at+1:]
	quoted := len(local) > 1 && local[0] == '"' && local[len(local)-1] == '"'
	if len(local) > 64 {
		return "the part before the @ is longer than 64 bytes"
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.IsSpace(r) && !quoted {
			return "the address contains white space or a control character"
		}
	}
	if !quoted && (strings.ContainsAny(local, `@,;:<>()[]\"`) || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..")) {
		return "the part before the @ contains a character or a dot that does not belong there"
	}
	if !strings.Contains(domain, ".") || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") ||
		strings.HasPrefix(domain, "-") || strings.ContainsAny(domain, " ,;:<>()[]\\\"'/_") {
		return "the domain after the @ is not one"
	}
	return ""
}
