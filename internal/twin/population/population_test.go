package population

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

var now = time.Date(2026, 5, 4, 13, 14, 15, 0, time.UTC)

// digest hashes both streams.
type digest struct{ h hash.Hash }

func (d digest) Begin(table string, cols []Column) error {
	fmt.Fprintln(d.h, table, cols)
	return nil
}

func (d digest) Row(id value.ID, vals []value.Value) error {
	d.h.Write(id[:])
	for _, v := range vals {
		d.h.Write(v.AppendJSON(nil))
		d.h.Write([]byte{'|'})
	}
	return nil
}

func (d digest) Members(list value.ID, table string, ids []value.ID) error {
	fmt.Fprintln(d.h, list, table, ids)
	return nil
}
func (d digest) DataField(name, kind string) error { fmt.Fprintln(d.h, name, kind); return nil }
func (d digest) AddressBook(name string) error     { fmt.Fprintln(d.h, name); return nil }
func (d digest) Contact(c PlatformContact) error   { fmt.Fprintln(d.h, c); return nil }
func (d digest) Campaign(c PlatformCampaign) error { fmt.Fprintln(d.h, c); return nil }

func sum(t *testing.T, opt Options) string {
	t.Helper()
	d := digest{sha256.New()}
	if _, err := Generate(opt, d, d); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(d.h.Sum(nil))
}

func TestSameOptionsSameBytes(t *testing.T) {
	base := Options{Contacts: 3000, Seed: 5, Now: now}
	want := sum(t, base)
	if got := sum(t, base); got != want {
		t.Error("two runs differ")
	}
	later := base
	later.Now = now.Add(time.Hour)
	if sum(t, later) != want {
		t.Error("the hour of the day matters")
	}
	for name, other := range map[string]Options{
		"seed":  {Contacts: 3000, Seed: 6, Now: now},
		"size":  {Contacts: 3001, Seed: 5, Now: now},
		"plain": {Contacts: 3000, Seed: 5, Now: now, Plain: true},
		"day":   {Contacts: 3000, Seed: 5, Now: now.AddDate(0, 0, 1)},
	} {
		if sum(t, other) == want {
			t.Errorf("%s does not matter", name)
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	for _, opt := range []Options{{Now: now}, {Contacts: MaxContacts + 1, Now: now}, {Contacts: 1}, {Contacts: 1, Now: now, PlatformShare: 2}} {
		if _, err := Generate(opt, digest{sha256.New()}, nil); err == nil {
			t.Errorf("%+v was accepted", opt)
		}
	}
}

// world keeps a small population and checks each record against the schema.
type world struct {
	t       *testing.T
	schema  *schema.Schema
	table   *schema.Table
	cols    []Column
	rows    map[string]map[value.ID]map[string]value.Value
	order   map[string][]value.ID
	members map[value.ID]map[value.ID]bool
	fields  map[string]string
	books   map[string]bool
	people  []PlatformContact
}

func newWorld(t *testing.T, opt Options) (*world, Plan) {
	t.Helper()
	w := &world{
		t: t, schema: schema.Standard(schema.Apps{Sales: true, Subscriptions: true}),
		rows: map[string]map[value.ID]map[string]value.Value{}, order: map[string][]value.ID{}, members: map[value.ID]map[value.ID]bool{},
		fields: map[string]string{"FIRSTNAME": "String", "LASTNAME": "String", "POSTCODE": "String"}, books: map[string]bool{},
	}
	plan, err := Generate(opt, w, w)
	if err != nil {
		t.Fatal(err)
	}
	return w, plan
}

func (w *world) Begin(table string, cols []Column) error {
	w.table, w.cols = w.schema.Table(table), cols
	if w.table == nil {
		w.t.Fatalf("no table %s", table)
	}
	w.rows[table] = map[value.ID]map[string]value.Value{}
	for _, c := range cols {
		sc := w.table.Column(c.Name)
		if sc == nil {
			w.t.Fatalf("no column %s.%s", table, c.Name)
		}
		if sc.Type.IsLookup() != (c.Target != "") {
			w.t.Errorf("%s.%s has target %q", table, c.Name, c.Target)
		}
	}
	return nil
}

var kinds = map[schema.Type]value.Kind{
	schema.String: value.KindText, schema.Memo: value.KindText, schema.Integer: value.KindInt, schema.Decimal: value.KindDecimal,
	schema.Money: value.KindDecimal, schema.Double: value.KindDouble, schema.Boolean: value.KindBool, schema.Picklist: value.KindInt,
	schema.State: value.KindInt, schema.Status: value.KindInt, schema.Lookup: value.KindGUID, schema.Customer: value.KindGUID,
	schema.Owner: value.KindGUID, schema.MultiSelect: value.KindMultiSelect,
}

func (w *world) Row(id value.ID, vals []value.Value) error {
	name := w.table.Name
	if w.rows[name][id] != nil {
		w.t.Errorf("%s %s twice", name, id)
	}
	row := map[string]value.Value{}
	for i, v := range vals {
		c := w.table.Column(w.cols[i].Name)
		if v.IsNull() {
			continue
		}
		row[c.Name] = v
		want := kinds[c.Type]
		if c.Type == schema.DateTime {
			want = value.KindDateTime
			if c.IsDate() {
				want = value.KindDate
			}
		}
		if v.Kind() != want {
			w.t.Errorf("%s.%s is %s, want %s", name, c.Name, v.Kind(), want)
		}
		if c.Type.IsText() && (utf8.RuneCountInString(v.Text()) > c.MaxLength || !utf8.ValidString(v.Text()) || v.Text() == "") {
			w.t.Errorf("%s.%s is %q, at most %d characters", name, c.Name, v.Text(), c.MaxLength)
		}
		if c.Type.IsOption() {
			if _, ok := c.Option(int32(v.Int())); !ok {
				w.t.Errorf("%s.%s has no option %d", name, c.Name, v.Int())
			}
		}
		if c.Type == schema.Status {
			if o, _ := c.Option(int32(v.Int())); int64(o.State) != row["statecode"].Int() {
				w.t.Errorf("%s: status %d in state %d", name, v.Int(), row["statecode"].Int())
			}
		}
		if c.Type == schema.MultiSelect {
			for _, o := range v.Options() {
				if _, ok := c.Option(int32(o)); !ok {
					w.t.Errorf("%s.%s has no option %d", name, c.Name, o)
				}
			}
		}
		if c.Type == schema.Integer || c.Type == schema.Money || c.Type == schema.Decimal || c.Type == schema.Double {
			if f := v.Float(); f < c.Min || f > c.Max {
				w.t.Errorf("%s.%s is %v, from %v to %v", name, c.Name, f, c.Min, c.Max)
			}
		}
		if target := w.cols[i].Target; target != "" && w.rows[target][v.GUID()] == nil {
			w.t.Errorf("%s.%s points to %s %s, which is not there yet", name, c.Name, target, v.GUID())
		}
	}
	if c, ok := row["createdon"]; ok {
		if m := row["modifiedon"]; m.Unix() < c.Unix() || m.Time().After(now) {
			w.t.Errorf("%s: created %v, modified %v", name, c.Time(), m.Time())
		}
	}
	w.rows[name][id] = row
	w.order[name] = append(w.order[name], id)
	return nil
}

func (w *world) Members(list value.ID, table string, ids []value.ID) error {
	if w.rows["list"][list] == nil {
		w.t.Errorf("members of no list")
	}
	if w.members[list] == nil {
		w.members[list] = map[value.ID]bool{}
	}
	for _, id := range ids {
		if w.rows[table][id] == nil || w.members[list][id] {
			w.t.Errorf("member %s of %s is no record or twice in", id, table)
		}
		w.members[list][id] = true
	}
	return nil
}

func (w *world) DataField(name, kind string) error { w.fields[name] = kind; return nil }
func (w *world) Campaign(c PlatformCampaign) error {
	if !strings.Contains(c.HTML, "$UNSUB$") || !strings.Contains(c.Text, "$UNSUB$") {
		w.t.Errorf("campaign %s lets nobody unsubscribe", c.Name)
	}
	return nil
}
func (w *world) AddressBook(name string) error { w.books[name] = true; return nil }
func (w *world) Contact(c PlatformContact) error {
	for _, f := range c.Fields {
		kind := map[string]string{"string": "String", "float64": "Numeric", "bool": "Boolean", "time.Time": "Date"}[fmt.Sprintf("%T", f.Value)]
		if w.fields[f.Name] != kind {
			w.t.Errorf("field %s takes %s, got %T", f.Name, w.fields[f.Name], f.Value)
		}
	}
	for _, b := range c.Books {
		if !w.books[b] {
			w.t.Errorf("no address book %s", b)
		}
	}
	if (c.Status == "subscribed") != c.StatusAt.IsZero() {
		w.t.Errorf("%s since %v", c.Status, c.StatusAt)
	}
	c.Fields, c.Books = append([]PlatformField(nil), c.Fields...), append([]string(nil), c.Books...)
	w.people = append(w.people, c)
	return nil
}

func between(t *testing.T, what string, got, of int, low, high float64) {
	t.Helper()
	if share := float64(got) / float64(of); share < low || share > high {
		t.Errorf("%s: %d of %d (%.4f), want %v to %v", what, got, of, share, low, high)
	}
}

func TestSampleCompanyIsBelievable(t *testing.T) {
	const n = 30_000
	w, plan := newWorld(t, Options{Contacts: n, Seed: 1, Now: now})

	for table, want := range map[string]int{"contact": n, "account": n / 18, "lead": n * 3 / 10, "lsx_subscription": n / 5, "campaign": len(campaigns), "systemuser": 60} {
		if got := len(w.rows[table]); got != want {
			t.Errorf("%d %s rows, want %d", got, table, want)
		}
	}
	var missing, malformed, padded, upper, inactive, bulk, rtl, alone, long int
	seen := map[string]int{}
	contactMails := map[string]bool{}
	for _, id := range w.order["contact"] {
		r := w.rows["contact"][id]
		m := r["emailaddress1"].Text()
		trimmed := strings.TrimSpace(m)
		switch _, err := mail.ParseAddress(trimmed); {
		case m == "":
			missing++
		case err != nil:
			malformed++
		default:
			if host := trimmed[strings.LastIndexByte(trimmed, '@')+1:]; !reserved(strings.ToLower(host)) {
				t.Errorf("domain of %s could belong to someone", m)
			}
			seen[strings.ToLower(trimmed)]++
			contactMails[strings.ToLower(trimmed)] = true
		}
		if trimmed != m {
			padded++
		}
		if strings.ToLower(m) != m {
			upper++
		}
		if len(m) == 100 {
			long++
		}
		if r["statecode"].Int() == 1 {
			inactive++
		}
		if r["donotbulkemail"].Bool() {
			bulk++
		}
		if s := r["lastname"].Text(); s != "" && strings.ContainsAny(s, "אבגדהוזחטיכלמנסעפצקרשתابتثجحخدذرزسشصضطظعغفقكلمنهوي") {
			rtl++
		}
		if r["parentcustomerid"].IsNull() {
			alone++
		}
	}
	shared := 0
	for _, k := range seen {
		if k > 1 {
			shared += k
		}
	}
	between(t, "missing addresses", missing, n, 0.025, 0.035)
	between(t, "malformed addresses", malformed, n, 0.003, 0.007)
	between(t, "padded addresses", padded, n, 0.007, 0.013)
	between(t, "mixed-case addresses", upper, n, 0.015, 0.025)
	between(t, "addresses of 100 characters", long, n, 0.0001, 0.001)
	between(t, "shared addresses", shared, n, 0.01, 0.03)
	between(t, "inactive", inactive, n, 0.03, 0.05)
	between(t, "no bulk mail", bulk, n, 0.05, 0.07)
	between(t, "right to left", rtl, n, 0.01, 0.06)
	between(t, "without account", alone, n, 0.12, 0.2)

	both := 0
	for _, r := range w.rows["lead"] {
		if contactMails[strings.ToLower(strings.TrimSpace(r["emailaddress1"].Text()))] {
			both++
		}
	}
	between(t, "leads known as contacts", both, len(w.rows["lead"]), 0.03, 0.06)

	size := map[string]int{}
	actions := map[string]bool{}
	dynamic, locked, off := 0, 0, 0
	for _, l := range plan.Lists {
		r := w.rows["list"][l.ID]
		if r == nil || r["listname"].Text() != l.Name || r["type"].Bool() != l.Dynamic || r["lockstatus"].Bool() != l.Locked {
			t.Errorf("plan and list differ: %+v", l)
			continue
		}
		size[l.Name] = len(w.members[l.ID])
		actions[l.MemberTable+" "+l.Action] = true
		if l.Dynamic {
			dynamic++
			if err := xml.NewDecoder(strings.NewReader(r["query"].Text())).Decode(new(struct{ XMLName xml.Name })); err != nil {
				t.Errorf("%s: %v", l.Name, err)
			}
		}
		if l.Locked {
			locked++
		}
		if l.Inactive {
			off++
		}
		if l.AddressBook != "" && !w.books[l.AddressBook] {
			t.Errorf("%s: no address book %s", l.Name, l.AddressBook)
		}
	}
	between(t, "the large list", size["Company newsletter"], n, 0.48, 0.52)
	if size["Webinar waiting list"] != 0 || size["Customer advisory board"] < 10 || size["Newsletter – Germany"] < n/20 || size["Trade fair leads 2026"] == 0 || size["Key accounts"] == 0 {
		t.Errorf("sizes %v", size)
	}
	for _, a := range []string{"contact ignore", "contact remove", "contact allow_known", "contact create_contact", "lead create_lead"} {
		if !actions[a] {
			t.Errorf("no list with %s", a)
		}
	}
	if dynamic < 5 || locked != 1 || off != 1 {
		t.Errorf("%d dynamic, %d locked, %d inactive lists", dynamic, locked, off)
	}

	known, left := 0, 0
	unique := map[string]bool{}
	for _, p := range w.people {
		if unique[p.Email] {
			t.Errorf("%s twice in the email account", p.Email)
		}
		unique[p.Email] = true
		if contactMails[p.Email] {
			known++
		}
		if p.Status != "subscribed" {
			left++
		}
	}
	if len(w.people) != n/50 {
		t.Errorf("%d contacts in the email account", len(w.people))
	}
	between(t, "contacts that the CRM knows", known, len(w.people), 0.5, 0.65)
	between(t, "contacts that left", left, len(w.people), 0.08, 0.17)
}

func reserved(host string) bool {
	return strings.HasSuffix(host, ".example") || host == "example.com" || host == "example.org" || host == "example.net"
}

func TestPlainPopulation(t *testing.T) {
	const n = 5000
	w, plan := newWorld(t, Options{Contacts: n, Seed: 3, Now: now, Plain: true})
	seen := map[string]bool{}
	for _, r := range w.rows["contact"] {
		m := r["emailaddress1"].Text()
		if _, err := mail.ParseAddress(m); err != nil || seen[m] || m != strings.ToLower(m) {
			t.Errorf("address %q: %v, seen %v", m, err, seen[m])
		}
		seen[m] = true
		if r["statecode"].Int() != 0 || len(r) < len(plainColumns) {
			t.Errorf("row %v", r)
		}
	}
	if len(w.rows["contact"]) != n || len(w.rows["lead"]) != 0 || len(w.people) != 0 || len(w.books) != 0 {
		t.Errorf("%d contacts, %d leads, %d people, %d books", len(w.rows["contact"]), len(w.rows["lead"]), len(w.people), len(w.books))
	}
	var names []string
	for _, l := range plan.Lists {
		names = append(names, fmt.Sprint(l.Name, " ", l.Dynamic, " ", len(w.members[l.ID])))
	}
	if diff := cmp.Diff([]string{"Everyone (static) false 5000", "Everyone true 0"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestTinyPopulations(t *testing.T) {
	for n := 1; n <= 40; n++ {
		newWorld(t, Options{Contacts: n, Seed: uint64(n), Now: now, PlatformShare: 1})
	}
}

func TestPlanOfMatchesGenerate(t *testing.T) {
	opt := Options{Contacts: 100, Seed: 9, Now: now}
	made, err := Generate(opt, digest{sha256.New()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	planned, err := PlanOf(opt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, planned); diff != "" {
		t.Error(diff)
	}
}

func TestAReceiversErrorEndsTheStream(t *testing.T) {
	f := &failing{after: 500}
	if _, err := Generate(Options{Contacts: 1000, Now: now}, f, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
	if f.rows != f.after {
		t.Errorf("%d rows after the error", f.rows-f.after)
	}
}

type failing struct {
	digest
	rows, after int
}

func (f *failing) Begin(string, []Column) error { return nil }
func (f *failing) Row(value.ID, []value.Value) error {
	if f.rows++; f.rows == f.after {
		return io.ErrShortWrite
	}
	return nil
}

// discard receives without looking.
type discard struct{}

func (discard) Begin(string, []Column) error               { return nil }
func (discard) Row(value.ID, []value.Value) error          { return nil }
func (discard) Members(value.ID, string, []value.ID) error { return nil }

func BenchmarkGenerate(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Generate(Options{Contacts: 100_000, Seed: 1, Now: now}, discard{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
