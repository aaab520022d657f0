package query

import (
	"strings"
	"unicode/utf8"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// pattern is a SQL LIKE pattern: % any run, _ one character, [a-f] and [^a-f]
// one of a set; letters match in any case. A pattern with an unclosed bracket
// matches nothing, as in SQL Server.
type pattern []token

type token struct {
	kind   tokenKind
	r      rune   // literal, folded
	ranges []rune // pairs, folded
}

type tokenKind uint8

const (
	literal tokenKind = iota
	anyOne
	anyRun
	oneOf
	noneOf
	never
)

func compileLike(s string) pattern {
	var p pattern
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch r {
		case '%':
			if len(p) == 0 || p[len(p)-1].kind != anyRun {
				p = append(p, token{kind: anyRun})
			}
		case '_':
			p = append(p, token{kind: anyOne})
		case '[':
			// A bracket directly after the opening one closes nothing: []] is
			// not a set in SQL Server, so the first ] ends it.
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return pattern{{kind: never}}
			}
			p = append(p, set(s[:end]))
			s = s[end+1:]
		default:
			p = append(p, token{r: value.FoldRune(r)})
		}
	}
	return p
}

func set(s string) token {
	t := token{kind: oneOf}
	if strings.HasPrefix(s, "^") {
		t.kind = noneOf
		s = s[1:]
	}
	rs := []rune(s)
	for i := 0; i < len(rs); i++ {
		from, to := rs[i], rs[i]
		if i+2 < len(rs) && rs[i+1] == '-' {
			to = rs[i+2]
			i += 2
		}
		t.ranges = append(t.ranges, value.FoldRune(from), value.FoldRune(to))
	}
	return t
}

// hasWildcard reports whether a compiled text is more than literal characters.
func (p pattern) hasWildcard() bool {
	for i := range p {
		if p[i].kind != literal {
			return true
		}
	}
	return false
}

func (t *token) accepts(r rune) bool {
	switch t.kind {
	case literal:
		return r == t.r || value.FoldRune(r) == t.r
	case anyOne:
		return true
	case oneOf, noneOf:
		r = value.FoldRune(r)
		for i := 0; i < len(t.ranges); i += 2 {
			if t.ranges[i] <= r && r <= t.ranges[i+1] {
				return t.kind == oneOf
			}
		}
		return t.kind == noneOf
	}
	return false
}

// match walks the text once, going back only to the latest %.
func (p pattern) match(s string) bool {
	at := 0                   // in p
	retryAt, retryS := -1, "" // after the latest %
	for {
		if at < len(p) && p[at].kind == anyRun {
			at++
			if at == len(p) {
				return true
			}
			retryAt, retryS = at, s
			continue
		}
		if at == len(p) && s == "" {
			return true
		}
		if at < len(p) && s != "" {
			r, n := utf8.DecodeRuneInString(s)
			if p[at].accepts(r) {
				at, s = at+1, s[n:]
				continue
			}
		}
		if retryAt < 0 || retryS == "" {
			return false
		}
		_, n := utf8.DecodeRuneInString(retryS)
		retryS = retryS[n:]
		at, s = retryAt, retryS
	}
}
