package dotdigital

import (
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks over JSON text in place. valid checks a text once; the other
// methods then rely on it being well formed.
type scanner struct {
	b []byte
	i int
}

const maxDepth = 64

// valid reports whether b is one JSON value in valid UTF-8.
func valid(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	s := scanner{b: b}
	if !s.check(0) {
		return false
	}
	s.space()
	return s.i == len(b)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

func (s *scanner) check(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch s.peek() {
	case '{':
		s.i++
		if s.take('}') {
			return true
		}
		for {
			if s.peek() != '"' || !s.checkString() || !s.take(':') || !s.check(depth+1) {
				return false
			}
			if s.take('}') {
				return true
			}
			if !s.take(',') {
				return false
			}
		}
	case '[':
		s.i++
		if s.take(']') {
			return true
		}
		for {
			if !s.check(depth + 1) {
				return false
			}
			if s.take(']') {
				return true
			}
			if !s.take(',') {
				return false
			}
		}
	case '"':
		return s.checkString()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.checkNumber()
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	return s.i > start
}

func (s *scanner) checkNumber() bool {
	if s.i < len(s.b) && s.b[s.i] == '-' {
		s.i++
	}
	first := s.i
	if !s.digits() || s.b[first] == '0' && s.i > first+1 {
		return false
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) checkString() bool {
	s.i++
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return true
		case c < 0x20:
			return false
		case c != '\\':
			s.i++
		default:
			if s.i+1 >= len(s.b) {
				return false
			}
			switch s.b[s.i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.i += 2
			case 'u':
				if _, ok := hex4(s.b[s.i+2:]); !ok {
					return false
				}
				s.i += 6
			default:
				return false
			}
		}
	}
	return false
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// value skips one value of a checked text and returns it.
func (s *scanner) value() []byte {
	s.space()
	start := s.i
	depth := 0
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			if depth == 0 {
				return s.b[start:s.i]
			}
			depth--
			s.i++
		case ',', ' ', '\t', '\r', '\n', ':':
			if depth == 0 {
				return s.b[start:s.i]
			}
			s.i++
			continue
		default:
			s.i++
			continue
		}
		if depth == 0 {
			return s.b[start:s.i]
		}
	}
	return s.b[start:s.i]
}

func (s *scanner) skipString() {
	b, i := s.b, s.i+1
	for b[i] != '"' {
		if b[i] == '\\' {
			i++
		}
		i++
	}
	s.i = i + 1
}

// member advances to the next member of an object and returns its name, with
// the scanner at its value. first begins the object at '{'.
func (s *scanner) member(first bool) (name []byte, ok bool) {
	if first {
		s.take('{')
	} else {
		s.take(',')
	}
	if s.peek() != '"' {
		s.take('}')
		return nil, false
	}
	start := s.i
	s.skipString()
	name = unquote(s.b[start:s.i])
	s.take(':')
	s.space()
	return name, true
}

// element advances to the next element of an array.
func (s *scanner) element(first bool) bool {
	if first {
		s.take('[')
	} else {
		s.take(',')
	}
	if s.peek() == ']' {
		s.i++
		return false
	}
	return true
}

// unquote returns the text of a checked string literal, without copying when
// it holds no escape.
func unquote(lit []byte) []byte {
	in := lit[1 : len(lit)-1]
	for i, c := range in {
		if c == '\\' {
			return unescape(in, i)
		}
	}
	return in
}

func unescape(in []byte, i int) []byte {
	out := append(make([]byte, 0, len(in)), in[:i]...)
	for i < len(in) {
		c := in[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		switch c = in[i+1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(in[i+2:])
			i += 4
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if i+4 <= len(in) && in[i+2] == '\\' && i+3 < len(in) && in[i+3] == 'u' {
					low, ok = hex4(in[i+4:])
				}
				if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
					r = pair
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
		i += 2
	}
	return out
}

// appendQuoted appends text as a JSON string.
func appendQuoted[T string | []byte](b []byte, text T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(text) {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		start = i + 1
	}
	b = append(b, text[start:]...)
	return append(b, '"')
}
