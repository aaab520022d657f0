// Package pagescan reads the pages of a JSON API for the few members that are
// wanted. A page is one string; the cells are cut out of it and stay valid as
// long as they are held, because the string is never written to. Nothing is
// allocated for members that nobody asked for, and nothing for a cell unless its
// text holds an escape.
//
// It accepts a subset of what encoding/json accepts: the text must be valid
// UTF-8, escaped surrogates must come in pairs, values nest at most 64 deep and a
// row is at most 1 MB long. Numbers stay text. Of members with the same name the
// last one counts.
package pagescan

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The limits of a page.
const (
	MaxDepth = 64
	MaxRow   = 1 << 20 // bytes of one row, unless Page.MaxRow says otherwise
)

// Kind tells what a Cell is.
type Kind uint8

// The kinds. Absent means that the object had no such member.
const (
	Absent Kind = iota
	Null
	String
	Number
	True
	False
	Object
	Array
)

var kindNames = [...]string{"absent", "null", "string", "number", "true", "false", "object", "array"}

func (k Kind) String() string { return kindNames[k] }

// Cell is one JSON value, cut out of the page.
type Cell struct {
	kind    Kind
	escaped bool
	raw     string // without the quotes of a string
}

// Kind tells what the cell is.
func (c Cell) Kind() Kind { return c.kind }

// Raw returns the JSON text; of a string what stands between its quotes.
func (c Cell) Raw() string { return c.raw }

// Text returns the text of a string, or the JSON text of anything else. It shares
// the page's memory unless the string holds an escape.
func (c Cell) Text() string {
	if c.escaped {
		return unescape(c.raw)
	}
	return c.raw
}

// SyntaxError says where a page stops being what it should be. It quotes nothing
// of the page, which holds people's data.
type SyntaxError struct {
	Offset int
	What   string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the answer is not the JSON that was expected: %s at byte %d", e.What, e.Offset)
}

// scanner walks over JSON text. All its methods stop at the end of the text.
type scanner struct {
	s   string
	pos int
}

func (s *scanner) fail(what string) error { return &SyntaxError{Offset: s.pos, What: what} }

func (s *scanner) space() {
	for s.pos < len(s.s) {
		switch s.s[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.s) {
		return s.s[s.pos]
	}
	return 0
}

// plain marks the bytes that a string may hold as they are and that end nothing.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads a string, the opening quote at pos, and returns what stands between
// the quotes.
func (s *scanner) str() (raw string, escaped bool, err error) {
	text := s.s
	i := s.pos + 1
	start := i
	for {
		for i < len(text) && plain[text[i]] {
			i++
		}
		if i >= len(text) {
			s.pos = i
			return "", false, s.fail("a string does not end")
		}
		switch text[i] {
		case '"':
			s.pos = i + 1
			return text[start:i], escaped, nil
		case '\\':
			escaped = true
			n, what := escape(text[i:])
			if what != "" {
				s.pos = i
				return "", false, s.fail(what)
			}
			i += n
		default:
			s.pos = i
			return "", false, s.fail("a control character stands in a string")
		}
	}
}

// escape returns the length of the escape that t begins with.
func escape(t string) (n int, what string) {
	if len(t) < 2 {
		return 0, "a string does not end"
	}
	switch t[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, ""
	case 'u':
	default:
		return 0, "an unknown escape"
	}
	r, ok := hex4(t[2:])
	if !ok {
		return 0, "an incomplete escape"
	}
	if !utf16.IsSurrogate(r) {
		return 6, ""
	}
	if len(t) < 12 || t[6] != '\\' || t[7] != 'u' {
		return 0, "half a surrogate pair"
	}
	low, ok := hex4(t[8:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0, "half a surrogate pair"
	}
	return 12, ""
}

func hex4(t string) (r rune, ok bool) {
	if len(t) < 4 {
		return 0, false
	}
	for i := range 4 {
		c := t[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape is only called on text that str accepted.
func unescape(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for {
		i := strings.IndexByte(raw, '\\')
		if i < 0 {
			b.WriteString(raw)
			return b.String()
		}
		b.WriteString(raw[:i])
		n, _ := escape(raw[i:])
		switch raw[i+1] {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r, _ := hex4(raw[i+2:])
			if n == 12 {
				low, _ := hex4(raw[i+8:])
				r = utf16.DecodeRune(r, low)
			}
			b.WriteRune(r)
		default:
			b.WriteByte(raw[i+1])
		}
		raw = raw[i+n:]
	}
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.s) && s.s[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.fail("an incomplete number")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("an incomplete number")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.fail("an incomplete number")
		}
	}
	return nil
}

func (s *scanner) word(w string) error {
	if !strings.HasPrefix(s.s[s.pos:], w) {
		return s.fail("an unknown value")
	}
	s.pos += len(w)
	return nil
}

// value reads one value of any kind; depth is how many values it stands in.
func (s *scanner) value(depth int) (c Cell, err error) {
	start := s.pos
	switch b := s.peek(); b {
	case '"':
		c.kind = String
		c.raw, c.escaped, err = s.str()
		return c, err
	case '{':
		c.kind, err = Object, s.skipObject(depth+1)
	case '[':
		c.kind, err = Array, s.skipArray(depth+1)
	case 't':
		c.kind, err = True, s.word("true")
	case 'f':
		c.kind, err = False, s.word("false")
	case 'n':
		c.kind, err = Null, s.word("null")
	default:
		if b != '-' && b-'0' > 9 {
			return c, s.fail("a value is missing")
		}
		c.kind, err = Number, s.number()
	}
	c.raw = s.s[start:s.pos]
	return c, err
}

func (s *scanner) skipObject(depth int) error {
	more, err := s.open('{', '}', depth)
	for more && err == nil {
		if _, _, err = s.key(); err != nil {
			break
		}
		if _, err = s.value(depth); err != nil {
			break
		}
		more, err = s.more('}')
	}
	return err
}

func (s *scanner) skipArray(depth int) error {
	more, err := s.open('[', ']', depth)
	for more && err == nil {
		if _, err = s.value(depth); err != nil {
			break
		}
		more, err = s.more(']')
	}
	return err
}

// open enters an object or array and reports whether it holds anything.
func (s *scanner) open(begin, end byte, depth int) (bool, error) {
	if depth > MaxDepth {
		return false, s.fail("values nest too deep")
	}
	if s.peek() != begin {
		return false, s.fail("another kind of value was expected")
	}
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		return false, nil
	}
	return true, nil
}

// more goes past a comma or the end and reports whether another element follows.
func (s *scanner) more(end byte) (bool, error) {
	s.space()
	switch c := s.peek(); {
	case c == ',':
		s.pos++
		s.space()
		return true, nil
	case c == end && s.pos < len(s.s):
		s.pos++
		return false, nil
	}
	return false, s.fail("a comma or an end is missing")
}

// key reads a member's name and the colon, up to the value.
func (s *scanner) key() (raw string, escaped bool, err error) {
	if s.peek() != '"' {
		return "", false, s.fail("a member name is missing")
	}
	if raw, escaped, err = s.str(); err != nil {
		return "", false, err
	}
	s.space()
	if s.peek() != ':' {
		return "", false, s.fail("a colon is missing")
	}
	s.pos++
	s.space()
	return raw, escaped, nil
}
