package value

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// MaxScale is the largest number of decimal places of a decimal column.
const MaxScale = 10

// maxDigits keeps a rescaled decimal inside 128 bits: 28 digits and 10 places.
const maxDigits = 28

// MoneyScale is the number of decimal places in which money is stored.
const MoneyScale = 4

// ErrDecimalRange is returned for a number with more than 28 digits.
var ErrDecimalRange = errors.New("the number has more digits than a decimal can hold")

// int128 is a two's complement integer of 128 bits.
type int128 struct {
	hi int64
	lo uint64
}

func (v Value) dec() int128 { return int128{v.hi, v.lo} }

func (a int128) neg() int128 {
	lo, borrow := bits.Sub64(0, a.lo, 0)
	hi, _ := bits.Sub64(0, uint64(a.hi), borrow)
	return int128{int64(hi), lo}
}

func (a int128) cmp(b int128) int {
	switch {
	case a.hi < b.hi || a.hi == b.hi && a.lo < b.lo:
		return -1
	case a == b:
		return 0
	}
	return 1
}

func (a int128) add(b int128) int128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(uint64(a.hi), uint64(b.hi), carry)
	return int128{int64(hi), lo}
}

// mul multiplies by a small positive factor.
func (a int128) mul(f uint64) int128 {
	negative := a.hi < 0
	if negative {
		a = a.neg()
	}
	hi, lo := bits.Mul64(a.lo, f)
	hi += uint64(a.hi) * f
	r := int128{int64(hi), lo}
	if negative {
		r = r.neg()
	}
	return r
}

// quoRem divides towards zero by a small positive divisor.
func (a int128) quoRem(d uint64) (int128, int64) {
	negative := a.hi < 0
	if negative {
		a = a.neg()
	}
	qhi := uint64(a.hi) / d
	qlo, rem := bits.Div64(uint64(a.hi)%d, a.lo, d)
	q := int128{int64(qhi), qlo}
	if negative {
		return q.neg(), -int64(rem)
	}
	return q, int64(rem)
}

func (a int128) int64() (int64, bool) {
	if a.hi == 0 && a.lo <= math.MaxInt64 || a.hi == -1 && a.lo > math.MaxInt64 {
		return int64(a.lo), true
	}
	return 0, false
}

func (a int128) float() float64 {
	negative := a.hi < 0
	if negative {
		a = a.neg()
	}
	f := float64(uint64(a.hi))*(1<<64) + float64(a.lo)
	if negative {
		return -f
	}
	return f
}

var pow10 = [...]uint64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

func (a int128) mulPow10(n uint8) int128 { return a.mul(pow10[n]) }

func (a int128) divPow10(n uint8) (int128, int64) { return a.quoRem(pow10[n]) }

// Decimal returns unscaled·10^-scale. scale must be at most MaxScale.
func Decimal(unscaled int64, scale int) Value {
	if scale < 0 || scale > MaxScale {
		panic(fmt.Sprintf("value.Decimal: scale %d", scale))
	}
	hi := int64(0)
	if unscaled < 0 {
		hi = -1
	}
	return Value{kind: KindDecimal, hi: hi, lo: uint64(unscaled), scale: uint8(scale)}
}

// Scale returns the decimal places of a decimal, 0 for other kinds.
func (v Value) Scale() int { return int(v.scale) }

// Rescale returns a number of any numeric kind as a decimal with scale places,
// rounded half away from zero as SQL Server does. It fails on a number outside
// of 28 digits; a value without number is returned unchanged.
func (v Value) Rescale(scale int) (Value, error) {
	if scale < 0 || scale > MaxScale {
		return Value{}, fmt.Errorf("scale %d is outside of 0 to %d", scale, MaxScale)
	}
	if v.kind == KindDouble {
		d, err := ParseDecimal(strconv.FormatFloat(v.Float(), 'f', MaxScale, 64))
		if err != nil {
			return Value{}, err
		}
		v = d
	}
	if !v.isNumber() {
		return v, nil
	}
	v = v.asDecimal()
	want := uint8(scale)
	n := v.dec()
	switch {
	case want > v.scale:
		n = n.mulPow10(want - v.scale)
	case want < v.scale:
		half := pow10[v.scale-want] / 2
		if n.hi < 0 {
			n = n.add(int128{-1, -half})
		} else {
			n = n.add(int128{0, half})
		}
		n, _ = n.divPow10(v.scale - want)
	}
	return Value{kind: KindDecimal, hi: n.hi, lo: n.lo, scale: want}, nil
}

// Add returns the sum of two numbers: an int when both are, a double when one
// is, a decimal of the larger scale otherwise. A null operand counts as nothing.
func Add(a, b Value) Value {
	switch {
	case a.IsNull():
		return b
	case b.IsNull():
		return a
	case a.kind == KindInt && b.kind == KindInt:
		return Int(a.hi + b.hi)
	case a.kind == KindDouble || b.kind == KindDouble:
		return Double(a.Float() + b.Float())
	}
	a, b = a.asDecimal(), b.asDecimal()
	scale := max(a.scale, b.scale)
	n := a.dec().mulPow10(scale - a.scale).add(b.dec().mulPow10(scale - b.scale))
	return Value{kind: KindDecimal, hi: n.hi, lo: n.lo, scale: scale}
}

// DivInt returns the number v divided by n > 0: whole division for an int (as
// SQL Server averages whole numbers), otherwise v's own kind; a decimal keeps
// its scale, rounded half away from zero.
func (v Value) DivInt(n int64) Value {
	switch v.kind {
	case KindInt:
		return Int(v.hi / n)
	case KindDouble:
		return Double(v.Float() / float64(n))
	case KindDecimal:
		q, rem := v.dec().quoRem(uint64(n))
		if rem >= n-rem && rem > 0 {
			q = q.add(int128{0, 1})
		} else if -rem >= n+rem && rem < 0 {
			q = q.add(int128{-1, math.MaxUint64})
		}
		return Value{kind: KindDecimal, hi: q.hi, lo: q.lo, scale: v.scale}
	}
	return Value{}
}

func (v Value) asDecimal() Value {
	if v.kind == KindInt {
		return Decimal(v.hi, 0)
	}
	return v
}

func compareDecimals(a, b Value) int {
	x, y := a.dec(), b.dec()
	if a.scale < b.scale {
		x = x.mulPow10(b.scale - a.scale)
	} else {
		y = y.mulPow10(a.scale - b.scale)
	}
	return x.cmp(y)
}

// ParseDecimal reads a plain or exponential decimal number exactly. Its scale is
// the number of places written, at most MaxScale: further places must be zero,
// because a decimal column has no room for them and the caller decides whether
// to round (see Rescale).
func ParseDecimal(s string) (Value, error) {
	bad := func() (Value, error) {
		return Value{}, fmt.Errorf("%.40q is not a decimal number", s)
	}
	i, negative := 0, false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		negative = s[i] == '-'
		i++
	}
	var n int128
	digits, places, significant, point := 0, 0, 0, false
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		digits++
		if point && places >= MaxScale {
			if c != '0' {
				return Value{}, fmt.Errorf("%.40q has more than %d decimal places", s, MaxScale)
			}
			continue
		}
		if point {
			places++
		}
		if significant > 0 || c != '0' {
			if significant++; significant > maxDigits {
				return Value{}, ErrDecimalRange
			}
		}
		n = n.mul(10).add(int128{0, uint64(c - '0')})
	}
	if digits == 0 || s[i-1] == '.' {
		return bad()
	}
	if i < len(s) {
		if s[i] != 'e' && s[i] != 'E' {
			return bad()
		}
		exp, err := strconv.Atoi(s[i+1:])
		if err != nil {
			return bad()
		}
		places -= exp
		for places < 0 && n != (int128{}) {
			if significant++; significant > maxDigits {
				return Value{}, ErrDecimalRange
			}
			n, places = n.mul(10), places+1
		}
		for places > MaxScale && n != (int128{}) {
			q, rem := n.quoRem(10)
			if rem != 0 {
				return Value{}, fmt.Errorf("%.40q has more than %d decimal places", s, MaxScale)
			}
			n, places = q, places-1
		}
		places = min(max(places, 0), MaxScale)
	}
	if negative {
		n = n.neg()
	}
	return Value{kind: KindDecimal, hi: n.hi, lo: n.lo, scale: uint8(places)}, nil
}

func appendDecimal(dst []byte, v Value) []byte {
	n := v.dec()
	if n.hi < 0 {
		dst = append(dst, '-')
		n = n.neg()
	}
	var buf [48]byte
	i := len(buf)
	for places := int(v.scale); ; places-- {
		if places == 0 && v.scale > 0 {
			i--
			buf[i] = '.'
		}
		if places <= 0 && n == (int128{}) && i < len(buf) && buf[i] != '.' {
			break
		}
		q, rem := n.quoRem(10)
		i--
		buf[i] = byte('0' + rem)
		n = q
	}
	return append(dst, buf[i:]...)
}
