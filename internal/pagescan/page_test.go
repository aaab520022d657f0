package pagescan

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func read(t testing.TB, text string, names ...string) ([][]Cell, *Page, error) {
	t.Helper()
	cols := NewColumns(names...)
	p := New(text, "value", cols)
	var rows [][]Cell
	for {
		cells := make([]Cell, cols.Len())
		ok, err := p.Next(cells)
		if err != nil || !ok {
			return rows, p, err
		}
		rows = append(rows, cells)
	}
}

func show(c Cell) string { return c.Kind().String() + " " + c.Text() }

func TestPage(t *testing.T) {
	text := ` {"@odata.context":"c","value":[
	 {"@odata.etag":"W/\"12\"","name":"a\u00e4\ud83d\ude00\n","n":-1.50e3,"yes":true,"no":false,"nil":null,"deep":{"x":[1,{"y":"}"}]}},
	 {"no":false},{}],"@odata.nextLink":"https://x/y?a=\u0026b"} `
	rows, p, err := read(t, text, "name", "n", "yes", "no", "nil", "deep", "gone", "@odata.etag")
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, r := range rows {
		var line []string
		for _, c := range r {
			line = append(line, show(c))
		}
		got = append(got, line)
	}
	absent := "absent "
	want := [][]string{
		{"string aä😀\n", "number -1.50e3", "true true", "false false", "null null", `object {"x":[1,{"y":"}"}]}`, absent, `string W/"12"`},
		{absent, absent, absent, "false false", absent, absent, absent, absent},
		{absent, absent, absent, absent, absent, absent, absent, absent},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := p.Member("@odata.nextLink").Text(); got != "https://x/y?a=&b" {
		t.Errorf("nextLink = %q", got)
	}
	if got, _ := Peek(text, "@odata.nextLink"); got != "https://x/y?a=&b" {
		t.Errorf("Peek = %q", got)
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	for name, text := range map[string]string{
		"empty":          ``,
		"null":           `null`,
		"array":          `[]`,
		"no rows":        `{}`,
		"rows no array":  `{"value":{}}`,
		"rows twice":     `{"value":[],"value":[]}`,
		"html":           `<html>`,
		"byte order":     "\ufeff" + `{"value":[]}`,
		"trailing":       `{"value":[]}x`,
		"cut":            `{"value":[{"a":"b`,
		"cut escape":     `{"value":[{"a":"\u00`,
		"cut utf-8":      "{\"value\":[{\"a\":\"\xc3\"}]}",
		"control":        "{\"value\":[{\"a\":\"\n\"}]}",
		"lone high":      `{"value":[{"a":"\ud800x"}]}`,
		"lone low":       `{"value":[{"a":"\udc00"}]}`,
		"bad escape":     `{"value":[{"a":"\x41"}]}`,
		"leading zero":   `{"value":[{"a":01}]}`,
		"plus":           `{"value":[{"a":+1}]}`,
		"bare point":     `{"value":[{"a":1.}]}`,
		"row no object":  `{"value":[1]}`,
		"trailing comma": `{"value":[{},]}`,
		"too deep":       `{"value":[{"a":` + deep + `}]}`,
		"too long":       `{"value":[{"a":"` + strings.Repeat("x", MaxRow) + `"}]}`,
		"too long 2":     `{"value":[{"a":[` + strings.Repeat("1,", MaxRow/2) + `1]}]}`,
	} {
		if _, _, err := read(t, text, "a"); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "xxxx") {
			t.Errorf("%s: the error quotes the page", name)
		}
	}
}

func TestMaxRow(t *testing.T) {
	row := `{"a":"` + strings.Repeat("x", 100) + `"}`
	p := New(`{"value":[`+row+`]}`, "value", NewColumns("a"))
	p.MaxRow = len(row)
	if ok, err := p.Next(make([]Cell, 1)); !ok || err != nil {
		t.Errorf("a row of exactly the limit: %v %v", ok, err)
	}
	p = New(`{"value":[`+row+`]}`, "value", NewColumns("a"))
	p.MaxRow = len(row) - 1
	if _, err := p.Next(make([]Cell, 1)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a row above the limit: %v", err)
	}
}

func TestNested(t *testing.T) {
	rows, _, err := read(t, `{"value":[{"contactId":7,"identifiers":{"email":"a@b.c"},"lists":[1,2],"dataFields":{"X\u0041":1,"B":null}}]}`, "identifiers", "lists", "dataFields")
	if err != nil {
		t.Fatal(err)
	}
	cell := make([]Cell, 1)
	if err := rows[0][0].Members(NewColumns("email"), cell); err != nil || cell[0].Text() != "a@b.c" {
		t.Errorf("Members = %v %v", cell, err)
	}
	var got []string
	_ = rows[0][1].Elements(func(c Cell) error { got = append(got, c.Raw()); return nil })
	_ = rows[0][2].EachMember(func(n string, c Cell) error { got = append(got, n+"="+c.Raw()); return nil })
	if d := cmp.Diff([]string{"1", "2", "XA=1", "B=null"}, got); d != "" {
		t.Error(d)
	}
}

func TestPeekNeedsConfirmation(t *testing.T) {
	if _, ok := Peek(`{"value":[{"a":"\"@odata.nextLink\":\"x"}]}`, "@odata.nextLink"); ok {
		t.Error("found inside a text value")
	}
}

// agree compares a page with what encoding/json makes of it.
func agree(t testing.TB, text string) {
	names := []string{"a", "b", "@odata.etag"}
	rows, p, err := read(t, text, names...)
	var want struct {
		Value []map[string]json.RawMessage
	}
	std := standard(text, &want.Value)
	if (err == nil) != std {
		t.Fatalf("accepted = %v (%v), encoding/json = %v: %q", err == nil, err, std, text)
	}
	if err != nil {
		return
	}
	if len(rows) != len(want.Value) {
		t.Fatalf("%d rows, want %d: %q", len(rows), len(want.Value), text)
	}
	for i, row := range rows {
		for k, c := range row {
			raw, there := want.Value[i][names[k]]
			if there != (c.Kind() != Absent) {
				t.Fatalf("row %d %s: %v, want there=%v: %q", i, names[k], c.Kind(), there, text)
			}
			var s string
			if there && c.Kind() == String && (json.Unmarshal(raw, &s) != nil || s != c.Text()) {
				t.Fatalf("row %d %s: %q, want %q", i, names[k], c.Text(), s)
			}
			if there && c.Kind() != String && c.Raw() != string(raw) {
				t.Fatalf("row %d %s: %q, want %q", i, names[k], c.Raw(), raw)
			}
		}
	}
	_ = p.Member("@odata.nextLink")
}

// standard is the strict subset of encoding/json that the scanner accepts.
func standard(text string, rows *[]map[string]json.RawMessage) bool {
	if !json.Valid([]byte(text)) || !utf8.ValidString(text) || loneSurrogate(text) || depth(text) > MaxDepth {
		return false
	}
	d := json.NewDecoder(strings.NewReader(text))
	tok, err := d.Token()
	if err != nil || tok != json.Delim('{') {
		return false
	}
	seen := false
	for d.More() {
		name, _ := d.Token()
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return false
		}
		if name != "value" || !bytes.HasPrefix(raw, []byte("[")) {
			continue
		}
		var list []json.RawMessage
		if seen || json.Unmarshal(raw, &list) != nil {
			return false
		}
		seen = true
		for _, e := range list {
			if !bytes.HasPrefix(e, []byte("{")) || len(e) > MaxRow {
				return false
			}
			m := map[string]json.RawMessage{}
			if json.Unmarshal(e, &m) != nil {
				return false
			}
			*rows = append(*rows, m)
		}
	}
	return seen
}

func loneSurrogate(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if i+6 <= len(text) && text[i+1] == 'u' {
			r, _ := hex4(text[i+2:])
			if utf16.IsSurrogate(r) {
				if i+12 > len(text) || text[i+6] != '\\' || text[i+7] != 'u' {
					return true
				}
				low, _ := hex4(text[i+8:])
				if utf16.DecodeRune(r, low) == utf8.RuneError {
					return true
				}
				i += 6
			}
		}
		i++
	}
	return false
}

func depth(text string) (most int) {
	d, in := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case in && c == '\\':
			i++
		case c == '"':
			in = !in
		case !in && (c == '{' || c == '['):
			d++
			most = max(most, d)
		case !in && (c == '}' || c == ']'):
			d--
		}
	}
	return most
}

// pages are small ones that hold everything there is to a page.
var pages = []string{
	`{"value":[]}`, `{"value":[{"a":1,"b":"x","@odata.etag":"W/\"1\""}],"@odata.nextLink":"l"}`,
	`{"@odata.nextLink":"l","value":[{"a":null},{"a":true,"a":false}]}`, `{"value":[{"\u0061":"\ud83d\ude00"}]}`,
	`{"value":[{"a":"\ud83d"}]}`, `{"value":1,"value":[{}]}`, ` { "value" : [ { "a" : -0.1E+2 } , { } ] } `,
	`{"value":[{"a":[[{}]],"b":{"a":{}}}]}`, `{"value":[{"a":00}]}`, `{"value":[{"a":"` + "\xff" + `"}]}`, `{"value":[{"a":tru}]}`, `{"value":null}`,
	`{"value":[{"a":` + strings.Repeat("[", 61) + strings.Repeat("]", 61) + `}]}`,
	`{"value":[{"a":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `}]}`,
}

func FuzzPage(f *testing.F) {
	for _, s := range pages {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { agree(t, s) })
}

// pieces are what a page is damaged with.
var pieces = []string{
	`"`, `\`, `{`, `}`, `[`, `]`, `,`, `:`, `0`, `-`, `.`, `e`, `+`, ` `, "\n", "\x00", "\x1f", "\xff", "\xc3", "é", "\U0001f600", `\u`, `\ud83d`, `\ude00`, `\u0061`, `\"`, `\x`, `null`, `true`, `false`,
	`"a":`, `"b":`, `"value":`, `"@odata.nextLink":`, `{}`, `[]`, `""`, `1e9`, `-0`, `01`, `{"a":1},`, `,"a":"x"`,
}

// damage puts a piece into the text, over a part of it, or takes a part out, once or
// some times, now and then none.
func damage(r *rand.Rand, text []byte) []byte {
	for range r.IntN(5) {
		from := r.IntN(len(text) + 1)
		to := min(len(text), from+r.IntN(4)*r.IntN(6))
		piece := ""
		if r.IntN(4) > 0 {
			piece = pieces[r.IntN(len(pieces))]
		}
		if r.IntN(8) == 0 { // a part of the page once more
			piece = string(text[from:to])
			to = from
		}
		text = slices.Replace(text, from, to, []byte(piece)...)
	}
	return text
}

var damaged = flag.Int("damaged", 200_000, "how many damaged pages both readers have to agree about")

// Damaged pages, many times as fast as a fuzzer makes them.
func TestDamagedPages(t *testing.T) {
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, uint64(worker)))
			var text []byte
			for i := worker; i < *damaged; i += workers {
				text = damage(r, append(text[:0], pages[r.IntN(len(pages))]...))
				agree(t, string(text))
			}
		})
	}
}

func TestAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		value := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Float64Range(-1e20, 1e20), func(f float64) any { return f }),
			rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Just[any](map[string]any{"a": []any{1, "]"}}))
		rows := rapid.SliceOfN(rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "@odata.etag"}), value), 0, 8).Draw(r, "rows")
		text, err := json.Marshal(map[string]any{"@odata.count": 1, "value": rows, "x": "y"})
		if err != nil {
			t.Fatal(err)
		}
		// Damage some pages: both readers must agree about these too.
		if rapid.Bool().Draw(r, "damage") {
			i := rapid.IntRange(0, len(text)-1).Draw(r, "at")
			text[i] = rapid.SampledFrom([]byte(`"\{}[],:0a `+"\x00\xff")).Draw(r, "byte")
		}
		agree(t, string(text))
	})
}

// However a page is made, reading it takes no more memory than four times its length.
func TestMemoryIsBounded(t *testing.T) {
	cols := NewColumns("a", "b", "@odata.etag")
	cells := make([]Cell, cols.Len())
	piece := rapid.SampledFrom([]string{
		`{}`, `{"a":"\u00e4\ud83d\ude00"}`, `{"a":"` + strings.Repeat(`\u0041`, 500) + `","b":"` + strings.Repeat(`\n`, 900) + `"}`, `{"\u0061":"\"","\u0062":1}`, `{"a":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}`,
		`{"a":{"x":"\u0041"},"b":[` + strings.Repeat(`"\t",`, 300) + `1]}`, `{"x":null,"y":0,"z":true,"a":-1.5e300}`, `{"a":1,"a":2,"a":"\r","b":"","@odata.etag":"W/\"1\""}`, `{"a":"` + strings.Repeat("\u00e4", 700) + `"}`, `{"a":}`, `{"a":"\x"}`,
	})
	rapid.Check(t, func(r *rapid.T) {
		text := `{"@odata.nextLink":"\u0078","value":[` + strings.Join(rapid.SliceOfN(piece, 0, 60).Draw(r, "rows"), ",") + `]}`
		if rapid.IntRange(0, 3).Draw(r, "cut") == 0 {
			text = text[:rapid.IntRange(0, len(text)).Draw(r, "at")]
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p := New(text, "value", cols)
		for {
			ok, err := p.Next(cells)
			if err != nil || !ok {
				break
			}
			for _, c := range cells {
				if c.Kind() != Absent {
					_ = c.Text()
				}
			}
		}
		_ = p.Member("@odata.nextLink").Text()
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(4*len(text)+4096) {
			r.Fatalf("%d bytes for a page of %d: %.300q", used, len(text), text)
		}
	})
}

// bigPage is a page of 5,000 rows as a sync reads them.
func bigPage() string {
	var b strings.Builder
	b.WriteString(`{"@odata.context":"https://org/api/data/v9.2/$metadata#contacts","value":[`)
	for i := range 5000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"@odata.etag":"W/\"%d\"","emailaddress1":"person.%d@example.com","firstname":"Ada","lastname":"King","jobtitle":null,"telephone1":"+44 20 7946 %04d","address1_city":"London","address1_country":"United Kingdom","statecode":0,"donotemail":false,"donotbulkemail":false,"donotsendmm":false,"createdon":"2026-03-01T10:00:00Z","modifiedon":"2026-03-01T10:00:00Z","contactid":"22222222-0000-0000-0000-%012d"}`, i, i, i, i)
	}
	b.WriteString(`]}`)
	return b.String()
}

var wanted = []string{"@odata.etag", "emailaddress1", "firstname", "lastname", "jobtitle", "telephone1", "address1_city", "statecode", "donotemail", "donotbulkemail", "createdon", "modifiedon", "contactid"}

func TestAllocations(t *testing.T) {
	text := bigPage()
	cols := NewColumns(wanted...)
	cells := make([]Cell, cols.Len())
	n := testing.AllocsPerRun(2, func() {
		p := New(text, "value", cols)
		for {
			if ok, err := p.Next(cells); err != nil {
				t.Fatal(err)
			} else if !ok {
				return
			}
		}
	})
	if n > 20 {
		t.Errorf("%v allocations for a page of 5,000 rows, want 20 at most", n)
	}
}

func BenchmarkPage(b *testing.B) {
	text := bigPage()
	cols := NewColumns(wanted...)
	cells := make([]Cell, cols.Len())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		p := New(text, "value", cols)
		for {
			if ok, _ := p.Next(cells); !ok {
				break
			}
		}
	}
}
