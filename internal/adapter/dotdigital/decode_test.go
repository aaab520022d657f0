package dotdigital

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
)

func TestParseInstant(t *testing.T) {
	for in, want := range map[string]string{
		"2024-01-31T09:40:18.527Z":          "2024-01-31T09:40:18.527Z",
		"2024-01-31T09:40:18Z":              "2024-01-31T09:40:18Z",
		"2024-01-31T09:40:18":               "2024-01-31T09:40:18Z",
		"2016-08-01 10:09:22":               "2016-08-01T10:09:22Z",
		"2024-01-31T09:40:18.5270000+00:00": "2024-01-31T09:40:18.527Z",
		"2024-01-31T09:40:18+0100":          "2024-01-31T08:40:18Z",
		"2024-01-31T23:40:18-02:30":         "2024-02-01T02:10:18Z",
		"2024-02-29":                        "2024-02-29T00:00:00Z",
		"2024-01-31T09:40":                  "2024-01-31T09:40:00Z",
		"0001-01-01T00:00:00":               "0001-01-01T00:00:00Z",
		"2023-02-29":                        "", "2024-13-01": "", "2024-00-01": "", "2024-01-00": "", "2024-04-31": "",
		"2024-01-31T24:00:00": "", "2024-01-31T09:60:00": "", "2024-01-31T09:00:60": "", "2024-01-31T09:40:18.": "", "2024-01-31T09:40:18.5x": "",
		"31/01/2024 00:00": "", "": "", "2024-01-31T": "", "2024-01-31T09:40:18+1": "", "2024-01-31T09:40:18+99:00": "", "2024-01-31x09:40:18": "",
		"2024-01-31T09:40:18ZZ": "", "tomorrow at noon": "", "２０２４-01-31": "",
	} {
		got, ok := parseInstant(in)
		if ok != (want != "") || ok && got.Format(time.RFC3339Nano) != want {
			t.Errorf("parseInstant(%q) = %v, %t; want %q", in, got, ok, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		zone := time.FixedZone("", 60*rapid.IntRange(-14*60, 14*60).Draw(t, "zone"))
		layout := rapid.SampledFrom([]string{time.RFC3339Nano, time.RFC3339, "2006-01-02T15:04:05.0000000Z0700"}).Draw(t, "layout")
		local := at.In(zone)
		if local.Year() < 1 || local.Year() > 9999 {
			return
		}
		text := local.Format(layout)
		want, err := time.Parse(layout, text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parseInstant(text); !ok || !got.Equal(want) {
			t.Fatalf("parseInstant(%q) = %v, %t; want %v", text, got, ok, want)
		}
	})
}

func TestTyped(t *testing.T) {
	for _, tt := range []struct {
		typ  lockstep.FieldType
		in   string
		want lockstep.Value
	}{
		{lockstep.FieldText, "", lockstep.NullValue()},
		{lockstep.FieldText, "true", lockstep.TextValue("true")},
		{lockstep.FieldNumber, "12.50", lockstep.CanonicalValue(lockstep.Number, "12.5")},
		{lockstep.FieldNumber, "1E+2", lockstep.CanonicalValue(lockstep.Number, "100")},
		{lockstep.FieldNumber, "a lot", lockstep.TextValue("a lot")},
		{lockstep.FieldNumber, "", lockstep.NullValue()},
		{lockstep.FieldBool, "True", lockstep.BoolValue(true)},
		{lockstep.FieldBool, "false", lockstep.BoolValue(false)},
		{lockstep.FieldBool, "maybe", lockstep.TextValue("maybe")},
		{lockstep.FieldDate, "2016-08-01 10:09:22", lockstep.CanonicalValue(lockstep.DateTime, "2016-08-01T10:09:22Z")},
		{lockstep.FieldDate, "0001-01-01T00:00:00", lockstep.NullValue()},
		{lockstep.FieldDate, "soon", lockstep.TextValue("soon")},
	} {
		if got := typed(tt.typ, tt.in); got != tt.want {
			t.Errorf("typed(%s, %q) = %s %q, want %s %q", tt.typ, tt.in, got.Kind(), got, tt.want.Kind(), tt.want)
		}
	}
}

func TestStanding(t *testing.T) {
	for status, want := range map[string]lockstep.Standing{
		"subscribed": lockstep.Subscribed, "Subscribed": lockstep.Subscribed, "unsubscribed": lockstep.Unsubscribed,
		"softBounced": lockstep.SoftBounced, "hardBounced": lockstep.HardBounced, "ispComplained": lockstep.Complained,
		"directComplaint": lockstep.Complained, "knownComplainer": lockstep.Complained, "pendingOptIn": lockstep.PendingOptIn,
		"noSubscription": lockstep.PendingOptIn, "suppressed": lockstep.Suppressed, "deleted": lockstep.ContactDeleted, "binned": lockstep.ContactDeleted,
		"spamTrap": lockstep.PlatformBlocked, "blockedlocalpart": lockstep.PlatformBlocked, "sharedsuppression": lockstep.PlatformBlocked,
		"sharedDomainSuppression": lockstep.PlatformBlocked, "domainSuppressed": lockstep.PlatformBlocked, "purchased": lockstep.PlatformBlocked,
		"knownLitigator": lockstep.PlatformBlocked, "NotAvailableInThisVersion": lockstep.PlatformBlocked, "": lockstep.StandingUnknown,
	} {
		got := standingOf(status)
		if got != want {
			t.Errorf("status %q is %s, want %s", status, got, want)
		}
		if mailable := strings.EqualFold(status, "subscribed") || status == "softBounced" || status == ""; got.Mailable() != mailable {
			t.Errorf("status %q is mailable: %t", status, got.Mailable())
		}
	}
}

var pageFields = []lockstep.DataField{
	{Name: "FIRSTNAME", Type: lockstep.FieldText},
	{Name: "SCORE", Type: lockstep.FieldNumber},
	{Name: "BORN", Type: lockstep.FieldDate},
	{Name: "VIP", Type: lockstep.FieldBool},
	{Name: "GONE"},
}

func decodePage(t interface{ Fatalf(string, ...any) }, text string) []lockstep.Contact {
	contacts, _, err := newDecoder(pageFields, true).page(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return contacts
}

func TestDecodePage(t *testing.T) {
	got := decodePage(t, `{"_links":{"self":{"marker":""}},"_items":[
		{"contactId":9007199254740993,"status":"subscribed","created":"2024-01-31T09:40:18.527Z","updated":"2024-02-01 10:00:00",
		 "identifiers":{"mobileNumber":"447","email":"Ann\u002Bx@Example.com","crmid":"email"},
		 "dataFields":{"firstname":"Zo\u00eb \ud83d\ude00","SCORE":1.50e1,"BORN":"1999-12-31 00:00:00","VIP":true,"OTHER":{"a":[1]},"GONE":"x"},
		 "channelProperties":{"sms":{"status":"unsubscribed"},"email":{"emailType":"Html","optInType":"VerifiedDouble","status":"softBounced"}},
		 "lists":[{"id":2,"name":"N","status":"subscribed"},{"status":"suppressed","id":3},{"id":4,"status":"pending"},null]},
		{"contactId":2,"status":"suppressed","identifiers":{"email":null},"dataFields":{"SCORE":null,"BORN":"0001-01-01T00:00:00"},"lists":null,"channelProperties":{"email":null}},
		{"contactId":3,"status":"binned","identifiers":{},"channelProperties":{"email":{"status":"subscribed"}}}]}`)
	null, absent := lockstep.NullValue(), lockstep.Value{}
	want := []lockstep.Contact{
		{
			ID: "9007199254740993", Email: "Ann+x@Example.com", Standing: lockstep.SoftBounced, OptIn: lockstep.OptInVerifiedDouble,
			Created: time.Date(2024, 1, 31, 9, 40, 18, 527e6, time.UTC), Modified: time.Date(2024, 2, 1, 10, 0, 0, 0, time.UTC),
			Values: []lockstep.Value{lockstep.TextValue("Zoë 😀"), lockstep.CanonicalValue(lockstep.Number, "15"), lockstep.CanonicalValue(lockstep.DateTime, "1999-12-31T00:00:00Z"), lockstep.BoolValue(true), absent},
			Books:  []lockstep.Membership{{Book: "2"}, {Book: "3", Unsubscribed: true}, {Book: "4"}},
		},
		{ID: "2", Standing: lockstep.Suppressed, Values: []lockstep.Value{null, null, null, null, absent}, Books: []lockstep.Membership{}},
		{ID: "3", Standing: lockstep.ContactDeleted, Values: []lockstep.Value{absent, absent, absent, absent, absent}, Books: []lockstep.Membership{}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b lockstep.Value) bool { return a == b })); diff != "" {
		t.Errorf("contacts (-want +got):\n%s", diff)
	}
	for _, bad := range []string{
		``, `[]`, `null`, `{}`, `{"_items":null}`, `{"_items":[1]}`, `{"_items":[{}]}`, `{"_items":[{"contactId":"7"}]}`, `{"_items":[{"contactId":-7}]}`,
		`{"_items":[{"contactId":7}]`, `{"_items":[{"contactId":7}]}x`, "{\"_items\":[{\"contactId\":7,\"a\":\"\xff\"}]}",
	} {
		if _, _, err := newDecoder(pageFields, true).page(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestNextMarker(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"before":     {`{"_links":{"self":{"marker":"a"},"next":{"marker":"b","link":"https://evil.example/?marker=c"}},"_items":[]}`, "b"},
		"after":      {`{"_items":[],"_links":{"next":{"link":"x","marker":"b"},"first":{"marker":"a"}}}`, "b"},
		"link only":  {`{"_items":[],"_links":{"next":{"link":"https://r1-api.dotdigital.com/contacts/v3?limit=2&marker=b%3D"}}}`, "b="},
		"last page":  {`{"_items":[],"_links":{"self":{"marker":"a"}}}`, ""},
		"null":       {`{"_items":[],"_links":{"next":null}}`, ""},
		"no links":   {`{"_items":[]}`, ""},
		"in a value": {`{"_items":[{"contactId":1,"dataFields":{"A":"\"_links\":{\"next\":{\"marker\":\"evil\"}}"}}],"_links":{"next":{"marker":"b"}}}`, "b"},
		"nested":     {`{"_links":{"next":{"marker":"b"}},"_items":[{"contactId":1,"dataFields":{"_links":{"next":{"marker":"evil"}}}}]}`, "b"},
	} {
		_, got, err := newDecoder(nil, false).page(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
		if guess := peekMarker(tt.text); guess != tt.want && name != "nested" {
			t.Errorf("%s: guessed %q, want %q", name, guess, tt.want)
		}
	}
}

// TestDecodeAgreesWithEncodingJSON reads random pages in both ways.
func TestDecodeAgreesWithEncodingJSON(t *testing.T) {
	type item struct {
		ID          int64                     `json:"contactId"`
		Status      string                    `json:"status"`
		Updated     string                    `json:"updated"`
		Identifiers map[string]any            `json:"identifiers"`
		DataFields  map[string]any            `json:"dataFields"`
		Channels    map[string]map[string]any `json:"channelProperties"`
		Lists       []map[string]any          `json:"lists"`
	}
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z "\\/<>&+]{0,20}`))
	scalar := rapid.OneOf(rapid.Map(text, func(s string) any { return s }), rapid.Just[any](nil), rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Int64(), func(n int64) any { return n }))
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) item {
			it := item{
				ID: rapid.Int64Range(1, 1<<62).Draw(t, "id"), Status: rapid.SampledFrom([]string{"subscribed", "unsubscribed", "binned", "x"}).Draw(t, "status"),
				Updated: "2024-01-31T09:40:18.527Z", Identifiers: map[string]any{}, DataFields: map[string]any{},
			}
			if rapid.Bool().Draw(t, "has email") {
				it.Identifiers["email"] = text.Draw(t, "email")
			}
			for _, f := range pageFields[:4] {
				if rapid.Bool().Draw(t, "has "+f.Name) {
					it.DataFields[f.Name] = scalar.Draw(t, f.Name)
				}
			}
			if rapid.Bool().Draw(t, "channels") {
				it.Channels = map[string]map[string]any{"email": {"status": "unsubscribed", "optInType": "Double"}}
			}
			for _, id := range rapid.SliceOfN(rapid.IntRange(1, 9), 0, 3).Draw(t, "lists") {
				it.Lists = append(it.Lists, map[string]any{"id": id, "status": "subscribed"})
			}
			return it
		}), 0, 5).Draw(t, "items")
		page, err := json.Marshal(map[string]any{"_items": items})
		if err != nil {
			t.Fatal(err)
		}
		got := decodePage(t, string(page))
		if len(got) != len(items) {
			t.Fatalf("%d contacts of %d", len(got), len(items))
		}
		// What the standard library makes of the same text.
		var back struct {
			Items []item `json:"_items"`
		}
		dec := json.NewDecoder(strings.NewReader(string(page)))
		dec.UseNumber()
		if err := dec.Decode(&back); err != nil {
			t.Fatal(err)
		}
		for i, want := range back.Items {
			c := got[i]
			email, _ := want.Identifiers["email"].(string)
			if string(c.ID) != strconv.FormatInt(want.ID, 10) || c.Email != email || len(c.Books) != len(want.Lists) {
				t.Fatalf("contact %+v, want %+v", c, want)
			}
			for f, field := range pageFields[:4] {
				v, has := want.DataFields[field.Name]
				if !has || v == nil {
					if !c.Values[f].IsNull() {
						t.Fatalf("%s is %s, want null", field.Name, c.Values[f].Kind())
					}
					continue
				}
				if wantValue := typed(field.Type, fmt.Sprint(v)); c.Values[f] != wantValue {
					t.Fatalf("%s of %v is %s %q, want %s %q", field.Name, v, c.Values[f].Kind(), c.Values[f], wantValue.Kind(), wantValue)
				}
			}
		}
	})
}

func sampleRows(n, fields int) ([]string, []lockstep.ContactWrite) {
	names := make([]string, fields)
	for f := range names {
		names[f] = fmt.Sprintf("FIELD_%d", f)
	}
	rows := make([]lockstep.ContactWrite, n)
	for i := range rows {
		values := make([]lockstep.Value, fields)
		for f := range values {
			switch f % 4 {
			case 0:
				values[f] = lockstep.TextValue(fmt.Sprintf("value %d of Zoë", i))
			case 1:
				values[f] = lockstep.CanonicalValue(lockstep.Number, strconv.Itoa(i))
			case 2:
				values[f] = lockstep.CanonicalValue(lockstep.DateTime, "2024-02-29T23:59:58Z")
			case 3:
				values[f] = lockstep.BoolValue(i%2 == 0)
			}
		}
		rows[i] = lockstep.ContactWrite{Email: fmt.Sprintf("person.%d@example.com", i), Values: values, Books: []lockstep.BookID{"12", "13"}}
	}
	return names, rows
}

func TestEncoderAllocatesNothingPerRow(t *testing.T) {
	names, rows := sampleRows(500, 10)
	enc := newImportEncoder(names)
	buf, n := enc.body(nil, rows, maxImportBody)
	if n != len(rows) {
		t.Fatalf("%d of %d rows", n, len(rows))
	}
	if got := testing.AllocsPerRun(10, func() { buf, _ = enc.body(buf[:0], rows, maxImportBody) }); got != 0 {
		t.Errorf("%v allocations for %d rows", got, len(rows))
	}
}

// TestEncodeAgreesWithEncodingJSON reads what the encoder wrote with the standard
// library.
func TestEncodeAgreesWithEncodingJSON(t *testing.T) {
	value := rapid.OneOf(
		rapid.Just(lockstep.Value{}), rapid.Just(lockstep.NullValue()), rapid.Map(rapid.Bool(), lockstep.BoolValue), rapid.Map(rapid.String(), lockstep.TextValue),
		rapid.Map(rapid.Int64(), func(n int64) lockstep.Value {
			return lockstep.CanonicalValue(lockstep.Number, strconv.FormatInt(n, 10))
		}),
		rapid.Map(rapid.Int64Range(0, 4e9), func(s int64) lockstep.Value { return lockstep.TimeValue(time.Unix(s, 0)) }),
		rapid.Just(lockstep.CanonicalValue(lockstep.Date, "1999-12-31")), rapid.Just(lockstep.CanonicalValue(lockstep.Choices, "1,4,7")))
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Z_]{1,6}`), 0, 5, rapid.ID).Draw(t, "names")
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) lockstep.ContactWrite {
			w := lockstep.ContactWrite{Values: rapid.SliceOfN(value, len(names), len(names)).Draw(t, "values")}
			w.Email = rapid.String().Draw(t, "email")
			if w.Email == "" || rapid.Bool().Draw(t, "by contact") {
				w.Contact = lockstep.ContactID(strconv.Itoa(rapid.IntRange(1, 1e9).Draw(t, "contact")))
			}
			for _, b := range rapid.SliceOfN(rapid.IntRange(1, 99), 0, 3).Draw(t, "books") {
				w.Books = append(w.Books, lockstep.BookID(strconv.Itoa(b)))
			}
			return w
		}), 1, 4).Draw(t, "rows")
		body, n := newImportEncoder(names).body(nil, rows, maxImportBody)
		var got struct {
			MergeOption string `json:"mergeOption"`
			Contacts    []struct {
				Match       string `json:"matchIdentifier"`
				Identifiers struct {
					Contact json.Number `json:"contactId"`
					Email   string      `json:"email"`
				} `json:"identifiers"`
				DataFields map[string]json.RawMessage `json:"dataFields"`
				Lists      []json.Number              `json:"lists"`
			} `json:"contacts"`
		}
		dec := json.NewDecoder(strings.NewReader(string(body)))
		dec.DisallowUnknownFields() // no status, no resubscribe options, nothing else
		if err := dec.Decode(&got); err != nil || n != len(rows) || got.MergeOption != "overwrite" || len(got.Contacts) != len(rows) {
			t.Fatalf("%v, %d rows in %s", err, n, body)
		}
		for i, w := range rows {
			c := got.Contacts[i]
			match := "email"
			if w.Contact != "" {
				match = "contactId"
			}
			if c.Match != match || string(c.Identifiers.Contact) != string(w.Contact) || c.Identifiers.Email != w.Email || len(c.Lists) != len(w.Books) {
				t.Fatalf("row %+v became %+v", w, c)
			}
			for f, v := range w.Values {
				raw, has := c.DataFields[names[f]]
				if has == v.IsAbsent() {
					t.Fatalf("%s: %s was sent: %t", names[f], v.Kind(), has)
				}
				if !has {
					continue
				}
				var want string
				switch v.Kind() {
				case lockstep.Null, lockstep.Bool, lockstep.Number:
					text, _ := v.MarshalJSON()
					want = string(text)
				case lockstep.DateTime:
					want = strconv.Quote(strings.TrimSuffix(v.Text(), "Z"))
				case lockstep.Date:
					want = strconv.Quote(v.Text() + "T00:00:00")
				default:
					var s string
					if json.Unmarshal(raw, &s) != nil || s != v.Text() {
						t.Fatalf("%s: %s for %q", names[f], raw, v.Text())
					}
					continue
				}
				if string(raw) != want {
					t.Fatalf("%s: %s, want %s", names[f], raw, want)
				}
			}
		}
	})
}

func TestLargeImportIsSentInPortions(t *testing.T) {
	a := open(t)
	names, rows := sampleRows(300, 4)
	for _, n := range names {
		f := lockstep.DataField{Name: n, Type: []lockstep.FieldType{lockstep.FieldText, lockstep.FieldNumber, lockstep.FieldDate, lockstep.FieldBool}[slices.Index(names, n)]}
		if err := a.CreateField(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for i := range rows {
		rows[i].Books = nil
	}
	a.maxBody = 20_000
	job, err := a.Import(t.Context(), names, rows)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	err = a.AwaitImport(t.Context(), job, func(rs []lockstep.ContactResult) error {
		for _, r := range rs {
			if told[r.Email] || r.Fault != nil {
				t.Errorf("row %+v", r)
			}
			told[r.Email] = true
		}
		return nil
	})
	if err != nil || len(told) != len(rows) {
		t.Errorf("%d of %d rows were told: %v", len(told), len(rows), err)
	}
	if got := a.calls("contacts.import"); got < 3 || got > 5 || int64(strings.Count(string(job), ","))+1 != got {
		t.Errorf("%d imports for job %s", got, job)
	}
	a.maxBody = 100
	if _, err = a.Import(t.Context(), names, rows[:1]); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Errorf("a row that is too large: %v", err)
	}
}

func BenchmarkDecodePage(b *testing.B) {
	var sb strings.Builder
	sb.WriteString(`{"_items":[`)
	for i := range contactPage {
		if i > 0 {
			sb.WriteByte(',')
		}
		fmt.Fprintf(&sb, `{"contactId":%d,"status":"subscribed","created":"2024-01-31T09:40:18.527Z","updated":"2024-02-01T10:00:00.123Z","identifiers":{"email":"person.%d@example.com"},"dataFields":{`, i+1, i)
		for f := range 10 {
			if f > 0 {
				sb.WriteByte(',')
			}
			switch f % 4 {
			case 0:
				fmt.Fprintf(&sb, `"FIELD_%d":"value %d of Zoë"`, f, i)
			case 1:
				fmt.Fprintf(&sb, `"FIELD_%d":%d`, f, i)
			case 2:
				fmt.Fprintf(&sb, `"FIELD_%d":"2024-02-29T23:59:58Z"`, f)
			case 3:
				fmt.Fprintf(&sb, `"FIELD_%d":true`, f)
			}
		}
		sb.WriteString(`},"channelProperties":{"email":{"emailType":"Html","optInType":"Single","status":"subscribed"}},"lists":[{"id":2,"name":"Newsletter","status":"subscribed"}]}`)
	}
	sb.WriteString(`],"_links":{"self":{"marker":""}}}`)
	text := sb.String()
	fields := make([]lockstep.DataField, 10)
	for f := range fields {
		fields[f] = lockstep.DataField{Name: fmt.Sprintf("FIELD_%d", f), Type: []lockstep.FieldType{lockstep.FieldText, lockstep.FieldNumber, lockstep.FieldDate, lockstep.FieldBool}[f%4]}
	}
	d := newDecoder(fields, true)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		contacts, _, err := d.page(text)
		if err != nil || len(contacts) != contactPage {
			b.Fatal(len(contacts), err)
		}
	}
}

func BenchmarkEncodeImport(b *testing.B) {
	names, rows := sampleRows(maxImport, 10)
	enc := newImportEncoder(names)
	var buf []byte
	buf, _ = enc.body(buf, rows, maxImportBody)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = enc.body(buf[:0], rows, maxImportBody)
	}
}

// exactness of numbers is what the canonical form promises.
func TestNumbersStayExact(t *testing.T) {
	const long = "123456789012345678.123456789"
	got := decodePage(t, `{"_items":[{"contactId":1,"dataFields":{"SCORE":`+long+`}}]}`)[0].Values[1]
	want, _ := new(big.Rat).SetString(long)
	have, ok := new(big.Rat).SetString(got.Text())
	if !ok || have.Cmp(want) != 0 {
		t.Errorf("%s became %s", long, got)
	}
}
