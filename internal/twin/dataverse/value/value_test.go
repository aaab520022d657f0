package value

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"pgregory.net/rapid"
)

func TestSize(t *testing.T) {
	if got := unsafe.Sizeof(Value{}); got > 40 {
		t.Errorf("a Value has %d bytes", got)
	}
}

func TestJSON(t *testing.T) {
	id := MustID("{ABCDEF01-2345-6789-abcd-EF0123456789}")
	tests := []struct {
		v    Value
		want string
	}{
		{Null(), `null`},
		{Bool(true), `true`},
		{Bool(false), `false`},
		{Int(-5), `-5`},
		{Int(math.MaxInt64), `9223372036854775807`},
		{Decimal(200000000, 4), `20000.0000`},
		{Decimal(-5, 4), `-0.0005`},
		{Decimal(0, 2), `0.00`},
		{Decimal(7, 0), `7`},
		{Double(2), `2.0`},
		{Double(-0.25), `-0.25`},
		{Double(1e30), `1e+30`},
		{Double(math.NaN()), `null`},
		{Text("a\"b\\c\n\t\x01é"), `"a\"b\\c\n\t\u0001é"`},
		{Text("a\xffb"), `"a�b"`},
		{DateTime(time.Date(2026, 3, 1, 12, 0, 0, 999, time.FixedZone("", 7200))), `"2026-03-01T10:00:00Z"`},
		{Date(1980, 5, 17), `"1980-05-17"`},
		{Date(1753, 1, 1), `"1753-01-01"`},
		{GUID(id), `"abcdef01-2345-6789-abcd-ef0123456789"`},
		{MultiSelect(30, 2, 2, 1), `"1,2,30"`},
		{MultiSelect(), `null`},
	}
	for _, tt := range tests {
		if got := string(tt.v.AppendJSON(nil)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestParseJSON(t *testing.T) {
	tests := []struct {
		token string
		kind  Kind
		want  string // JSON of the value; "" for a refusal
	}{
		{`null`, KindInt, `null`},
		{`true`, KindBool, `true`},
		{`0`, KindBool, ``},
		{`1`, KindBool, ``},
		{`"true"`, KindBool, ``},
		{`5`, KindInt, `5`},
		{`5.0`, KindInt, `5`},
		{`5e2`, KindInt, `500`},
		{`5.5`, KindInt, ``},
		{`"5"`, KindInt, ``},
		{`05`, KindInt, ``},
		{`+5`, KindInt, ``},
		{`9223372036854775808`, KindInt, ``},
		{`1.50`, KindDecimal, `1.50`},
		{`12345678901234567890.1234567891`, KindDecimal, ``},
		{`100000000000.0000000001`, KindDecimal, `100000000000.0000000001`},
		{`1.12345678901`, KindDecimal, ``},
		{`"1.5"`, KindDecimal, ``},
		{`1.5`, KindDouble, `1.5`},
		{`1e999`, KindDouble, ``},
		{`"x"`, KindText, `"x"`},
		{`"\u00e9\n"`, KindText, `"é\n"`},
		{`5`, KindText, ``},
		{`true`, KindText, ``},
		{`{}`, KindText, ``},
		{`[]`, KindMultiSelect, ``},
		{`"2026-03-01T10:00:00Z"`, KindDateTime, `"2026-03-01T10:00:00Z"`},
		{`"2026-03-01T10:00:00.987+02:00"`, KindDateTime, `"2026-03-01T08:00:00Z"`},
		{`"2026-03-01T10:00Z"`, KindDateTime, `"2026-03-01T10:00:00Z"`},
		{`"2026-03-01"`, KindDateTime, `"2026-03-01T00:00:00Z"`},
		{`"2026-03-01T10:00:00"`, KindDateTime, ``},
		{`"01/03/2026"`, KindDateTime, ``},
		{`"1752-12-31T00:00:00Z"`, KindDateTime, ``},
		{`1772359200`, KindDateTime, ``},
		{`"2026-02-29"`, KindDate, ``},
		{`"2024-02-29"`, KindDate, `"2024-02-29"`},
		{`"2024-02-29T00:00:00Z"`, KindDate, ``},
		{`"ABCDEF01-2345-6789-ABCD-EF0123456789"`, KindGUID, `"abcdef01-2345-6789-abcd-ef0123456789"`},
		{`"{abcdef01-2345-6789-abcd-ef0123456789}"`, KindGUID, `"abcdef01-2345-6789-abcd-ef0123456789"`},
		{`"abcdef0123456789abcdef0123456789"`, KindGUID, ``},
		{`"{abcdef01-2345-6789-abcd-ef0123456789"`, KindGUID, ``},
		{`"3, 1,2"`, KindMultiSelect, `"1,2,3"`},
		{`""`, KindMultiSelect, `null`},
		{`"1,,2"`, KindMultiSelect, ``},
		{``, KindText, ``},
		{`"x`, KindText, ``},
	}
	for _, tt := range tests {
		v, err := ParseJSON([]byte(tt.token), tt.kind)
		if err != nil {
			if tt.want != "" {
				t.Errorf("%s as %s: %v", tt.token, tt.kind, err)
			}
			continue
		}
		if got := string(v.AppendJSON(nil)); got != tt.want {
			t.Errorf("%s as %s: got %s, want %q", tt.token, tt.kind, got, tt.want)
		}
	}
}

func TestRescale(t *testing.T) {
	tests := []struct {
		in    string
		scale int
		want  string
	}{
		{"1.25", 1, "1.3"}, {"-1.25", 1, "-1.3"}, {"1.24", 1, "1.2"}, {"-1.24", 1, "-1.2"}, {"5", 4, "5.0000"}, {"0.00005", 4, "0.0001"}, {"-0.00004", 4, "0.0000"},
	}
	for _, tt := range tests {
		v, err := ParseDecimal(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Rescale(tt.scale)
		if err != nil || got.String() != tt.want {
			t.Errorf("%s to %d places: %v, %v", tt.in, tt.scale, got, err)
		}
	}
	if v, err := Double(0.1).Rescale(4); err != nil || v.String() != "0.1000" {
		t.Errorf("double: %v %v", v, err)
	}
}

func TestArithmetic(t *testing.T) {
	if got := Add(Decimal(15, 1), Decimal(25, 2)); got.String() != "1.75" {
		t.Errorf("sum %v", got)
	}
	if got := Add(Null(), Int(3)); !Equal(got, Int(3)) {
		t.Errorf("sum with null %v", got)
	}
	for _, tt := range []struct {
		v    Value
		n    int64
		want string
	}{{Int(7), 2, "3"}, {Decimal(10, 0), 4, "3"}, {Decimal(100, 1), 3, "3.3"}, {Decimal(-100, 1), 8, "-1.3"}, {Decimal(100, 1), 8, "1.3"}, {Double(1), 4, "0.25"}} {
		if got := tt.v.DivInt(tt.n); got.String() != tt.want {
			t.Errorf("%v / %d: got %v, want %s", tt.v, tt.n, got, tt.want)
		}
	}
}

func TestOrder(t *testing.T) {
	ascending := [][]Value{
		{Null(), Bool(false), Bool(true)},
		{Int(-1), Decimal(-5, 1), Double(0.25), Decimal(3, 1), Int(1), Decimal(100000, 4), Int(11)},
		{Text(""), Text("a"), Text("B"), Text("c"), Text("É")},
		{Date(1900, 1, 1), Date(2026, 3, 1), DateTime(time.Date(2026, 3, 1, 0, 0, 1, 0, time.UTC)), Date(2026, 3, 2)},
		{GUID(MustID("00000000-0000-0000-0000-00000000000f")), GUID(MustID("00000000-0000-0000-0000-000000000010")), GUID(MustID("f0000000-0000-0000-0000-000000000000"))},
	}
	for _, list := range ascending {
		for i := range list {
			for j := range list {
				want := 0
				if i < j {
					want = -1
				} else if i > j {
					want = 1
				}
				if got := Compare(list[i], list[j]); got != want {
					t.Errorf("Compare(%v, %v) = %d, want %d", list[i], list[j], got, want)
				}
			}
		}
	}
	if !Equal(Text("STRASSE é"), Text("strasse É")) || Equal(Text("é"), Text("e")) || Equal(Text("a"), Text("a ")) {
		t.Error("text equality")
	}
}

func TestOptions(t *testing.T) {
	v := MultiSelect(30, 2)
	if !v.HasOption(30) || v.HasOption(3) || v.HasOption(0) {
		t.Error("HasOption")
	}
	if got := v.Options(); len(got) != 2 || got[0] != 2 || got[1] != 30 {
		t.Errorf("options %v", got)
	}
}

func drawDecimal(t *rapid.T) string {
	s := rapid.StringMatching(`-?[0-9]{1,14}(\.[0-9]{1,10})?`).Draw(t, "number")
	return s
}

func TestDecimalAgreesWithRat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawDecimal(t), drawDecimal(t)
		x, err := ParseDecimal(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := ParseDecimal(b)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := new(big.Rat).SetString(a)
		q, _ := new(big.Rat).SetString(b)
		if got, want := Compare(x, y), p.Cmp(q); got != want {
			t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
		}
		back, ok := new(big.Rat).SetString(x.String())
		if !ok || back.Cmp(p) != 0 {
			t.Errorf("%s written as %s", a, x)
		}
		sum, _ := new(big.Rat).SetString(Add(x, y).String())
		if sum.Cmp(new(big.Rat).Add(p, q)) != 0 {
			t.Errorf("%s + %s = %s", a, b, sum)
		}
		scale := rapid.IntRange(0, MaxScale).Draw(t, "scale")
		r, err := x.Rescale(scale)
		if want := p.FloatString(scale); err != nil || r.String() != want && strings.Trim(want, "-0.") != "" {
			t.Errorf("%s to %d places: %v (%v), want %s", a, scale, r, err, want)
		}
	})
}

func TestStringAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		token := AppendString(nil, s)
		var back string
		if err := json.Unmarshal(token, &back); err != nil || back != s {
			t.Fatalf("%q written as %s (%v)", s, token, err)
		}
		v, err := ParseJSON(token, KindText)
		if err != nil || v.Text() != s {
			t.Fatalf("%s read as %q (%v)", token, v.Text(), err)
		}
	})
}

// TestStringByteByByte compares the writer, which looks at eight bytes at a time,
// with the simplest one.
func TestStringByteByByte(t *testing.T) {
	simple := func(s string) string {
		var b strings.Builder
		b.WriteByte('"')
		for i, r := range s {
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
				b.WriteString("\ufffd")
			case r == '"' || r == '\\':
				b.WriteString("\\" + string(r))
			case r == '\n':
				b.WriteString(`\n`)
			case r == '\r':
				b.WriteString(`\r`)
			case r == '\t':
				b.WriteString(`\t`)
			case r < ' ':
				fmt.Fprintf(&b, `\u%04x`, r)
			default:
				b.WriteRune(r)
			}
		}
		return b.String() + `"`
	}
	every := make([]byte, 0, 256*9)
	for c := range 256 {
		every = append(append(every, byte(c)), "abc\x7f ~!0"...)
	}
	for i := range every {
		if got, want := string(AppendString(nil, string(every[i:]))), simple(string(every[i:])); got != want {
			t.Fatalf("from %d: %s, want %s", i, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.OneOf(rapid.ByteRange(' ', '~'), rapid.Byte()), 0, 40).Draw(t, "text")
		if got, want := string(AppendString(nil, string(text))), simple(string(text)); got != want {
			t.Fatalf("%q: %s, want %s", text, got, want)
		}
	})
}

func TestFoldAgreesWithStrings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.String().Draw(t, "a")
		b := rapid.SampledFrom([]string{strings.ToUpper(a), strings.ToLower(a), a + "x", rapid.String().Draw(t, "other")}).Draw(t, "b")
		want := strings.EqualFold(a, b)
		if EqualFold(a, b) != want || (Fold(a) == Fold(b)) != want || (CompareFold(a, b) == 0) != want {
			t.Errorf("%q and %q: EqualFold %v, Fold %q %q, want %v", a, b, EqualFold(a, b), Fold(a), Fold(b), want)
		}
		if CompareFold(a, b) != -CompareFold(b, a) {
			t.Errorf("CompareFold(%q, %q) is not antisymmetric", a, b)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`null`, `"x"`, `1e400`, `-0.0`, `"2026-03-01"`, `"{"`, `"1,2"`, `1e-400`, `0e99999`} {
		for k := KindBool; k <= KindMultiSelect; k++ {
			f.Add([]byte(s), uint8(k))
		}
	}
	f.Fuzz(func(t *testing.T, token []byte, kind uint8) {
		v, err := ParseJSON(token, Kind(kind))
		if err == nil && !json.Valid(v.AppendJSON(nil)) {
			t.Errorf("%s is written as %s", token, v.AppendJSON(nil))
		}
	})
}
