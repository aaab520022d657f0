package query

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// truth is SQL's three-valued logic, which the naive evaluator computes in.
type truth int

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// naive is a filter that evaluates itself by the book.
type naive struct {
	text string
	eval func(row *memRow) truth
}

func drawFilter(t *rapid.T, m *memory, depth int) naive {
	if depth > 0 {
		switch rapid.IntRange(0, 4).Draw(t, "shape") {
		case 0:
			a, b := drawFilter(t, m, depth-1), drawFilter(t, m, depth-1)
			return naive{"(" + a.text + " and " + b.text + ")", func(r *memRow) truth { return min(a.eval(r), b.eval(r)) }}
		case 1:
			a, b := drawFilter(t, m, depth-1), drawFilter(t, m, depth-1)
			return naive{"(" + a.text + " or " + b.text + ")", func(r *memRow) truth { return max(a.eval(r), b.eval(r)) }}
		case 2:
			a := drawFilter(t, m, depth-1)
			return naive{"not (" + a.text + ")", func(r *memRow) truth { return yes - a.eval(r) }}
		}
	}
	column := func(name string) int {
		c, _ := m.tables["contact"].Column(name)
		return c.Ordinal
	}
	switch rapid.IntRange(0, 5).Draw(t, "leaf") {
	case 0:
		op := rapid.SampledFrom([]string{"eq", "ne", "lt", "le", "gt", "ge"}).Draw(t, "op")
		n, at := rapid.IntRange(-2, 2).Draw(t, "n"), column("score")
		return naive{fmt.Sprintf("score %s %d", op, n), func(r *memRow) truth {
			v := r.values[at]
			if v.IsNull() {
				switch op {
				case "eq":
					return no
				case "ne":
					return yes
				}
				return unknown
			}
			x := int(v.Int())
			return truthOf(map[string]bool{"eq": x == n, "ne": x != n, "lt": x < n, "le": x <= n, "gt": x > n, "ge": x >= n}[op])
		}}
	case 1:
		name := rapid.SampledFrom([]string{"fullname", "emailaddress1"}).Draw(t, "column")
		at, negated := column(name), rapid.Bool().Draw(t, "ne")
		op := map[bool]string{false: "eq", true: "ne"}[negated]
		return naive{name + " " + op + " null", func(r *memRow) truth { return truthOf(r.values[at].IsNull() != negated) }}
	case 2:
		f := rapid.SampledFrom([]string{"contains", "startswith", "endswith"}).Draw(t, "f")
		s, at := rapid.StringMatching(`[abAB]{0,2}`).Draw(t, "s"), column("fullname")
		return naive{fmt.Sprintf("%s(fullname,'%s')", f, s), func(r *memRow) truth {
			if r.values[at].IsNull() {
				return no
			}
			x, y := strings.ToLower(r.values[at].Text()), strings.ToLower(s)
			return truthOf(map[string]bool{"contains": strings.Contains(x, y), "startswith": strings.HasPrefix(x, y), "endswith": strings.HasSuffix(x, y)}[f])
		}}
	case 3:
		negated, at := rapid.Bool().Draw(t, "not"), column("score")
		numbers := rapid.SliceOfN(rapid.IntRange(-2, 12), 1, 12).Draw(t, "set")
		var quoted []string
		for _, n := range numbers {
			quoted = append(quoted, fmt.Sprintf(`"%d"`, n))
		}
		f := map[bool]string{false: "In", true: "NotIn"}[negated]
		return naive{fmt.Sprintf("Microsoft.Dynamics.CRM.%s(PropertyName='score',PropertyValues=[%s])", f, strings.Join(quoted, ",")), func(r *memRow) truth {
			v := r.values[at]
			return truthOf((!v.IsNull() && slices.Contains(numbers, int(v.Int()))) != negated)
		}}
	case 4:
		at, other := column("fullname"), column("emailaddress1")
		return naive{"fullname eq emailaddress1", func(r *memRow) truth {
			a, b := r.values[at], r.values[other]
			return truthOf(!a.IsNull() && !b.IsNull() && strings.EqualFold(a.Text(), b.Text()))
		}}
	}
	n, at := rapid.IntRange(1, 3).Draw(t, "account"), column("parentcustomerid")
	if rapid.Bool().Draw(t, "path") {
		name := rapid.SampledFrom([]string{"Acme", "Beta"}).Draw(t, "name")
		return naive{"parentcustomerid_account/name eq '" + strings.ToLower(name) + "'", func(r *memRow) truth {
			v := r.values[at]
			return truthOf(v == guidOf(2, 1) && name == "Acme" || v == guidOf(2, 2) && name == "Beta")
		}}
	}
	return naive{"_parentcustomerid_value eq " + id(2, n).String(), func(r *memRow) truth { return truthOf(r.values[at] == guidOf(2, n)) }}
}

// drawContact makes a row with few distinct values, so that filters hit.
func drawContact(t *rapid.T, n int) []value.Value {
	maybe := func(v value.Value) value.Value {
		if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			return value.Null()
		}
		return v
	}
	text := rapid.StringMatching(`[abAB]{0,3}`)
	row := make([]value.Value, 15)
	row[0] = guidOf(1, n)
	row[1] = maybe(value.Text(text.Draw(t, "fullname")))
	row[2] = maybe(value.Text(text.Draw(t, "email")))
	row[6] = maybe(value.Int(int64(rapid.IntRange(-2, 2).Draw(t, "score"))))
	row[11] = maybe(guidOf(2, rapid.IntRange(1, 2).Draw(t, "account")))
	return row
}

func TestFilterAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		m.unindexed = rapid.Bool().Draw(t, "unindexed")
		m.put("account", guidOf(2, 1), value.Text("ACME"))
		m.put("account", guidOf(2, 2), value.Text("beta"))
		for i := range rapid.IntRange(0, 12).Draw(t, "rows") {
			m.put("contact", drawContact(t, i+1)...)
		}
		f := drawFilter(t, m, 3)
		contacts, _ := m.TableByName("contact")
		q, err := ParseOData(m, contacts, "$select=contactid&$filter="+url.QueryEscape(f.text))
		if err != nil {
			t.Fatalf("%s: %v", f.text, err)
		}
		res, err := q.Run(m, Options{Env: env, Schema: m})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, r := range m.tables["contact"].rows {
			matches := f.eval(r) == yes
			if matches {
				want = append(want, short(r.values[0].GUID()))
			}
			if q.Match(m, env, r) != matches {
				t.Errorf("%s: Match differs on %v", f.text, r.values)
			}
		}
		if got := keysOf(q, res); got != strings.Join(want, " ") {
			t.Errorf("%s: got %s, want %s", f.text, got, strings.Join(want, " "))
		}
	})
}

// TestPagingSeesEachRowOnce changes the table between pages: rows that stay are
// seen exactly once, no result twice, all in order.
func TestPagingSeesEachRowOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		m.put("account", guidOf(2, 1), value.Text("Acme"))
		m.put("account", guidOf(2, 2), value.Text("Beta"))
		count := rapid.IntRange(0, 25).Draw(t, "rows")
		stays := map[string]bool{}
		for i := range count {
			m.put("contact", drawContact(t, 10*(i+1))...)
			stays[short(id(1, 10*(i+1)))] = true
		}
		contacts, _ := m.TableByName("contact")
		size := rapid.IntRange(1, 9).Draw(t, "page")
		descending := rapid.Bool().Draw(t, "descending")
		order := rapid.SampledFrom([]string{"", "score", "fullname", "parentcustomerid", "contactid"}).Draw(t, "order")
		var q *Query
		var err error
		if rapid.Bool().Draw(t, "fetch") {
			clause := ""
			if order != "" {
				clause = fmt.Sprintf(`<order attribute="%s" descending="%v"/>`, order, descending)
			}
			q, err = ParseFetch(m, contacts, `<fetch><entity name="contact"><attribute name="contactid"/>`+clause+`<link-entity name="account" from="accountid" to="parentcustomerid" link-type="outer" alias="a"><attribute name="name"/></link-entity></entity></fetch>`)
		} else {
			raw := "$select=contactid"
			if order != "" {
				name, direction := order, " asc"
				if order == "parentcustomerid" {
					name = "_parentcustomerid_value"
				}
				if descending {
					direction = " desc"
				}
				raw += "&$orderby=" + url.QueryEscape(name+direction)
			}
			q, err = ParseOData(m, contacts, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		var after, last Key
		for page := 1; ; page++ {
			res, err := q.Run(m, Options{Env: env, Schema: m, PageSize: size, After: after})
			if err != nil {
				t.Fatal(err)
			}
			for k := range strings.FieldsSeq(keysOf(q, res)) {
				seen[k]++
			}
			if res.Len() > size || res.More() && res.Len() < size {
				t.Fatalf("page of %d rows, more %v", res.Len(), res.More())
			}
			if first := res.FirstKey(); first != nil && last != nil && q.compareKeys(last, first) >= 0 {
				t.Fatalf("page %d starts at %v, not behind %v", page, first, last)
			}
			if !res.More() {
				break
			}
			last = res.LastKey()
			// The position travels as text, as it does between two requests.
			_, inner, _, err := ParseSkipToken(SkipToken(page+1, q.Cookie(page, res.FirstKey(), last), false))
			if err != nil {
				t.Fatal(err)
			}
			if after, err = q.ParseCookie(inner); err != nil {
				t.Fatal(err)
			}
			if slices.Compare(textKey(after), textKey(last)) != 0 {
				t.Fatalf("cookie read as %v, written from %v", after, last)
			}
			for range rapid.IntRange(0, 2).Draw(t, "changes") {
				n := rapid.IntRange(1, 10*(count+1)).Draw(t, "victim")
				if n%10 == 0 {
					m.remove("contact", id(1, n))
					delete(stays, short(id(1, n)))
				} else {
					m.put("contact", drawContact(t, n)...)
				}
			}
		}
		for k := range stays {
			if seen[k] != 1 {
				t.Errorf("row %s was seen %d times", k, seen[k])
			}
		}
	})
}

func textKey(k Key) []string {
	var out []string
	for _, v := range k {
		out = append(out, v.Kind().String()+v.String())
	}
	return out
}

func TestLikeAgreesWithRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var like, re strings.Builder
		re.WriteString(`(?is)\A`)
		for range rapid.IntRange(0, 6).Draw(t, "tokens") {
			switch rapid.IntRange(0, 4).Draw(t, "token") {
			case 0:
				like.WriteString("%")
				re.WriteString(".*")
			case 1:
				like.WriteString("_")
				re.WriteString(".")
			case 2:
				like.WriteString("[a-c]")
				re.WriteString("[a-c]")
			case 3:
				like.WriteString("[^bß]")
				re.WriteString("[^bß]")
			default:
				s := rapid.SampledFrom([]string{"a", "B", "c", "é", "."}).Draw(t, "literal")
				like.WriteString(s)
				re.WriteString(regexp.QuoteMeta(s))
			}
		}
		re.WriteString(`\z`)
		text := rapid.StringMatching(`[abcABCéÉ.ß]{0,8}`).Draw(t, "text")
		if got, want := compileLike(like.String()).match(text), regexp.MustCompile(re.String()).MatchString(text); got != want {
			t.Errorf("%q like %q: got %v, want %v", text, like.String(), got, want)
		}
	})
}

func FuzzOData(f *testing.F) {
	for _, seed := range []string{
		"$select=fullname&$filter=score eq 1 and (contains(fullname,'x') or not donotemail eq true)&$orderby=fullname desc&$top=3&$count=true",
		"$filter=listcontact_association/any(l:l/listname eq 'x')&$expand=parentcustomerid_account($select=name;$expand=primarycontactid)",
		"$filter=Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=[\"1\",'2'])&@p=1",
		"$apply=filter(score gt @p)/groupby((statecode,parentcustomerid_account/name),aggregate($count as n,score with sum as s))&@p=5",
		"$filter=@a eq @b", "$filter=''''", "$expand=a(b=(;", "$orderby=,", "$select=,", "$filter=a/any(", "$filter=score eq [",
	} {
		f.Add(encode(seed))
	}
	m := company()
	contacts, _ := m.TableByName("contact")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := ParseOData(m, contacts, raw)
		if err != nil {
			return
		}
		opt := Options{Env: env, Schema: m}
		res, err := q.Run(m, opt)
		if err != nil {
			return
		}
		_ = textOf(q, res)
		_ = q.Cookie(1, res.FirstKey(), res.LastKey())
	})
}

func FuzzFetch(f *testing.F) {
	for _, seed := range []string{
		`<fetch distinct="true"><entity name="contact"><all-attributes/><order attribute="fullname"/><filter type="or"><condition attribute="createdon" operator="last-x-days" value="7"/></filter></entity></fetch>`,
		`<fetch aggregate="true"><entity name="contact"><attribute name="createdon" alias="a" groupby="true" dategrouping="week"/><attribute name="score" alias="b" aggregate="avg"/></entity></fetch>`,
		`<fetch page="2" count="1" paging-cookie="&lt;cookie page=&quot;1&quot;&gt;&lt;contactid last=&quot;{00000001-0000-4abc-8def-000000000001}&quot;/&gt;&lt;/cookie&gt;"><entity name="contact"/></fetch>`,
		`<fetch><entity name="contact"><filter><link-entity name="listmember" from="entityid" to="contactid" link-type="all"/></filter><link-entity name="account" from="accountid" to="parentcustomerid" link-type="outer"><link-entity name="contact" from="contactid" to="primarycontactid"/></link-entity></entity></fetch>`,
		`<fetch><entity name="contact"><filter><condition/></filter></entity></fetch>`, `<fetch/>`, `<fetch><entity/></fetch>`,
	} {
		f.Add(seed)
	}
	m := company()
	contacts, _ := m.TableByName("contact")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseFetch(m, contacts, text)
		if err != nil {
			return
		}
		res, err := q.Run(m, Options{Env: env, Schema: m})
		if err != nil {
			return
		}
		_ = textOf(q, res)
		if cookie := q.Cookie(1, res.FirstKey(), res.LastKey()); cookie != "" {
			if _, err := q.ParseCookie(cookie); err != nil {
				t.Errorf("own cookie %s: %v", cookie, err)
			}
		}
	})
}
