package value

import (
	"cmp"
	"unicode"
	"unicode/utf8"
)

// FoldRune returns the rune that stands for all spellings of r that differ only
// in case.
func FoldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	low := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		low = min(low, f)
	}
	if 'A' <= low && low <= 'Z' {
		low += 'a' - 'A'
	}
	return low
}

// EqualFold reports whether two texts are equal without regard to case.
func EqualFold(a, b string) bool { return CompareFold(a, b) == 0 }

// CompareFold orders two texts without regard to case.
func CompareFold(a, b string) int {
	for len(a) > 0 && len(b) > 0 {
		x, y := rune(a[0]), rune(b[0])
		if x < utf8.RuneSelf && y < utf8.RuneSelf {
			a, b = a[1:], b[1:]
		} else {
			var n int
			x, n = utf8.DecodeRuneInString(a)
			a = a[n:]
			y, n = utf8.DecodeRuneInString(b)
			b = b[n:]
		}
		if x == y {
			continue
		}
		if c := cmp.Compare(FoldRune(x), FoldRune(y)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// Fold returns the text that all spellings of s share: the key of an index on a
// text column. It returns s itself when nothing changes.
func Fold(s string) string {
	changed := false
	for i := 0; i < len(s) && !changed; i++ {
		changed = s[i] >= utf8.RuneSelf || 'A' <= s[i] && s[i] <= 'Z'
	}
	if !changed {
		return s
	}
	out := make([]byte, 0, len(s))
	for _, r := range s {
		out = utf8.AppendRune(out, FoldRune(r))
	}
	return string(out)
}
