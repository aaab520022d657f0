package webapi

import (
	"encoding/json"
	"encoding/xml"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// FuzzEmailFilter checks that a condition on addresses asks for exactly these
// addresses, whatever is in them, and never for anything else.
func FuzzEmailFilter(f *testing.F) {
	for _, s := range []string{
		"ann@example.com", "o'brien@example.com\nben@example.com", `"a\"]) or 1 eq 1"@example.com`, "%27) or (statecode eq 0", "a+b@example.com&$top=1#x", "\u00e4@b\u00fccher.example",
		"x@example.com\nx@example.com\n\n\x01y@example.com", "\u202e@example.com", "\U0001f600@example.com", strings.Repeat("long", 250) + "@example.com\nz@example.com",
	} {
		f.Add(s)
	}
	// A long address leaves room for a few hundred bytes of condition.
	base := "/api/data/v9.2/contacts?$select=contactid" + strings.Repeat(",fullname", (maxURL-800)/len(",fullname")) + "&$filter="
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return // what is read from JSON is valid
		}
		emails := strings.Split(text, "\n")
		var want, got []string
		seen := map[string]bool{}
		for _, e := range emails {
			if again := seen[e]; e != "" && !again && !strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				want = append(want, e)
			}
			seen[e] = true
		}
		for _, target := range emailsIn(base, emails) {
			u, err := url.Parse(target)
			if err != nil || u.Fragment != "" || u.Path != "/api/data/v9.2/contacts" {
				t.Fatalf("%q is another address: %v", target, err)
			}
			query, err := url.ParseQuery(u.RawQuery)
			if err != nil || len(query) != 2 || len(query["$filter"]) != 1 {
				t.Fatalf("%q has the parameters %v, %v", target, query, err)
			}
			list, ok := strings.CutPrefix(query.Get("$filter"), "Microsoft.Dynamics.CRM.In(PropertyName='emailaddress1',PropertyValues=")
			list, closed := strings.CutSuffix(list, ")")
			var asked []string
			if err := json.Unmarshal([]byte(list), &asked); !ok || !closed || err != nil || len(asked) == 0 {
				t.Fatalf("the condition %q: %v", query.Get("$filter"), err)
			}
			if len(asked) > 500 || len(asked) > 1 && len(target) > maxURL+len(asked)+len("%5D)") {
				t.Fatalf("%d addresses in %d bytes", len(asked), len(target))
			}
			got = append(got, asked...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("asked for (-want +got):\n%s", diff)
		}
	})
}

// FuzzListQuery checks that the query of a dynamic list is either refused or rewritten
// into one that is well-formed, that means the same when it is read again, and whose
// conditions are those of the original, in their order.
func FuzzListQuery(f *testing.F) {
	for _, inner := range []string{
		"", `<attribute name="fullname"/><order attribute="fullname"/>`, `<filter type="or"><condition attribute="statecode" operator="eq" value="0"/><filter/></filter>`,
		`<filter><condition attribute="a" operator="in"><value>1</value><value>&lt;&amp;&quot;</value></condition></filter>`, `<link-entity name="account" from="a" to="b" alias="c" link-type="outer"><filter><condition entityname="x" attribute="y" operator="null"/></filter></link-entity>`,
		`<filter><condition attribute="createdon" operator="last-x-days" value="3"/></filter>`, `<!-- x --><filter hint="union">text</filter>`, `<filter><link-entity name="l" link-type="any"/></filter>`, `<filter><condition attribute="&#10;&#x1F600;" operator="eq" value="]]&gt;"/></filter>`,
	} {
		f.Add(`<fetch version="1.0" distinct="true"><entity name="contact">` + inner + `</entity></fetch>`)
	}
	f.Add(`<!DOCTYPE fetch [<!ENTITY x "y">]><fetch><entity name="contact"/></fetch>`)
	f.Add(`<fetch><entity name="contact"/></fetch><fetch/>`)
	f.Add(`<fetch aggregate="1"><entity name="contact"/></fetch>`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseFetch(text, "contact")
		if err != nil {
			if lockstep.CodeOf(err) != lockstep.CodeInvalid || !utf8.ValidString(err.Error()) {
				t.Fatalf("%v", err)
			}
			return
		}
		ours := q.members("contactid", nil, 5000, 1, `<cookie page="1"/>`)
		again, err := parseFetch(ours, "contact")
		if err != nil {
			t.Fatalf("%s, rewritten as %s: %v", text, ours, err)
		}
		// An attribute that nobody knows keeps a query from being decided here, and is left out.
		if again.body != q.body || again.volatile != q.volatile || q.decided && !again.decided || !slices.Equal(again.tables, q.tables) {
			t.Fatalf("%s, rewritten as %s, is read as %s", text, ours, again.body)
		}
		if diff := cmp.Diff(conditions(text), conditions(ours)); diff != "" {
			t.Fatalf("%s, rewritten as %s (-original +rewritten):\n%s", text, ours, diff)
		}
	})
}

// conditions are the conditions of a query with what they compare, and the filters and
// links that hold them, read without the parser under test.
func conditions(text string) (out []string) {
	d := xml.NewDecoder(strings.NewReader(text))
	keep := map[string][]string{
		"condition": {"attribute", "operator", "value", "valueof", "entityname", "column"}, "filter": {"type", "hint"},
		"link-entity": {"name", "from", "to", "alias", "link-type", "intersect"},
	}
	for {
		token, err := d.Token()
		if err != nil {
			return out
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "fetch", "entity":
			continue
		case "condition", "filter", "link-entity":
			line := start.Name.Local
			for _, a := range start.Attr {
				if a.Name.Space == "" && slices.Contains(keep[start.Name.Local], a.Name.Local) {
					line += " " + a.Name.Local + "=" + a.Value
				}
			}
			out = append(out, line)
		case "value":
			var v string
			if d.DecodeElement(&v, &start) != nil {
				return out
			}
			out[len(out)-1] += " " + v
		default: // columns, order, layout
			if d.Skip() != nil {
				return out
			}
		}
	}
}
