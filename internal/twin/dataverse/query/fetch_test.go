package query

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestFetchResults(t *testing.T) {
	list1 := "{" + strings.ToUpper(id(3, 1).String()) + "}"
	tests := []struct{ name, fetch, want string }{
		{
			"lookup and date names", `<fetch top="1"><entity name="contact"><attribute name="parentcustomerid"/><attribute name="birthdate"/></entity></fetch>`,
			"_parentcustomerid_value=2.1 birthdate=1980-05-17 contactid=1.1",
		},
		{"alias", `<fetch top="1"><entity name="contact"><attribute name="fullname" alias="who"/></entity></fetch>`, "who=Ada King contactid=1.1"},
		{
			"inner join", `<fetch><entity name="contact"><attribute name="fullname"/>
			<link-entity name="account" from="accountid" to="parentcustomerid" alias="a"><attribute name="name"/><attribute name="primarycontactid"/></link-entity></entity></fetch>`,
			"fullname=Ada King a.name=Acme a.primarycontactid=1.1 contactid=1.1; fullname=Bob Ray a.name=Acme a.primarycontactid=1.1 contactid=1.2; fullname=Dora King a.name=Beta a.primarycontactid=1.4 contactid=1.4",
		},
		{"outer join, default alias", `<fetch><entity name="contact"><attribute name="contactid"/><filter><condition attribute="score" operator="ge" value="30"/></filter>
			<link-entity name="account" from="accountid" to="parentcustomerid" link-type="outer"><attribute name="name"/></link-entity></entity></fetch>`, "contactid=1.3"},
		{"condition on an outer link", `<fetch><entity name="contact"><attribute name="contactid"/>
			<filter><condition entityname="a" attribute="accountid" operator="null"/></filter>
			<link-entity name="account" from="accountid" to="parentcustomerid" link-type="outer" alias="a"/></entity></fetch>`, "contactid=1.3; contactid=1.5"},
		{
			"filter of an outer link", `<fetch><entity name="contact"><attribute name="contactid"/>
			<link-entity name="account" from="accountid" to="parentcustomerid" link-type="outer" alias="a"><attribute name="name"/><filter><condition attribute="name" operator="eq" value="acme"/></filter></link-entity></entity></fetch>`,
			"contactid=1.1 a.name=Acme; contactid=1.2 a.name=Acme; contactid=1.3; contactid=1.4; contactid=1.5",
		},
		{
			"several rows a root", `<fetch><entity name="contact"><attribute name="contactid"/>
			<link-entity name="listmember" from="entityid" to="contactid" alias="m"><attribute name="listid"/></link-entity></entity></fetch>`,
			"contactid=1.1 m.listid=3.1; contactid=1.1 m.listid=3.2; contactid=1.2 m.listid=3.1; contactid=1.3 m.listid=3.2",
		},
		{"first match only", `<fetch><entity name="contact"><attribute name="contactid"/>
			<link-entity name="listmember" from="entityid" to="contactid" link-type="matchfirstrowusingcrossapply" alias="m"/></entity></fetch>`, "contactid=1.1; contactid=1.2; contactid=1.3"},
		{
			"members of a list", `<fetch><entity name="contact"><attribute name="fullname"/><filter><condition attribute="statecode" operator="eq" value="0"/></filter>
			<link-entity name="listmember" from="entityid" to="contactid"><filter><condition attribute="listid" operator="eq" value="` + list1 + `"/></filter></link-entity></entity></fetch>`,
			"fullname=Ada King contactid=1.1; fullname=Bob Ray contactid=1.2",
		},
		{
			"nested links", `<fetch distinct="true"><entity name="contact"><attribute name="contactid"/>
			<link-entity name="listmember" from="entityid" to="contactid"><link-entity name="list" from="listid" to="listid"><filter><condition attribute="listname" operator="begins-with" value="cust"/></filter></link-entity></link-entity></entity></fetch>`,
			"contactid=1.1; contactid=1.3",
		},
		{"distinct by key", `<fetch distinct="true"><entity name="contact"><attribute name="contactid"/><order attribute="fullname" descending="true"/>
			<link-entity name="listmember" from="entityid" to="contactid"/></entity></fetch>`, "contactid=1.3; contactid=1.2; contactid=1.1"},
		{"distinct values", `<fetch distinct="true"><entity name="contact"><attribute name="statecode"/></entity></fetch>`, "; statecode=0; statecode=1"},
		{"exists", `<fetch><entity name="contact"><attribute name="contactid"/><link-entity name="listmember" from="entityid" to="contactid" link-type="exists"/></entity></fetch>`, "contactid=1.1; contactid=1.2; contactid=1.3"},
		{"in", `<fetch><entity name="contact"><attribute name="contactid"/><link-entity name="listmember" from="entityid" to="contactid" link-type="in"><filter><condition attribute="listid" operator="eq" value="` + list1 + `"/></filter></link-entity></entity></fetch>`, "contactid=1.1; contactid=1.2"},
		{"any inside or", `<fetch><entity name="contact"><attribute name="contactid"/><filter type="or"><condition attribute="score" operator="null"/>
			<link-entity name="listmember" from="entityid" to="contactid" link-type="any"><filter><condition attribute="listid" operator="eq" value="` + list1 + `"/></filter></link-entity></filter></entity></fetch>`, "contactid=1.1; contactid=1.2; contactid=1.5"},
		{"not any", `<fetch><entity name="contact"><attribute name="contactid"/><filter><link-entity name="listmember" from="entityid" to="contactid" link-type="not any"/></filter></entity></fetch>`, "contactid=1.4; contactid=1.5"},
		{"all: linked, but none passes", `<fetch><entity name="contact"><attribute name="contactid"/><filter><link-entity name="listmember" from="entityid" to="contactid" link-type="all"><filter><condition attribute="listid" operator="eq" value="` + list1 + `"/></filter></link-entity></filter></entity></fetch>`, "contactid=1.3"},
		{"order by a link", `<fetch><entity name="contact"><attribute name="contactid"/><link-entity name="account" from="accountid" to="parentcustomerid" alias="a"><order attribute="name" descending="true"/></link-entity></entity></fetch>`, "contactid=1.4; contactid=1.1; contactid=1.2"},
		{"columns compared", `<fetch><entity name="contact"><attribute name="contactid"/><filter><condition attribute="emailaddress1" operator="eq" valueof="nickname"/></filter></entity></fetch>`, "contactid=1.1"},
		{"columns compared across a link", `<fetch><entity name="contact"><attribute name="contactid"/><filter><condition attribute="contactid" operator="eq" valueof="a.primarycontactid"/></filter>
			<link-entity name="account" from="accountid" to="parentcustomerid" alias="a"/></entity></fetch>`, "contactid=1.1; contactid=1.4"},
		{
			"aggregates", `<fetch aggregate="true"><entity name="contact"><attribute name="contactid" alias="n" aggregate="count"/><attribute name="emailaddress1" alias="mails" aggregate="countcolumn"/>
			<attribute name="score" alias="kinds" aggregate="countcolumn" distinct="true"/><attribute name="score" alias="mean" aggregate="avg"/><attribute name="creditlimit" alias="total" aggregate="sum"/><attribute name="weight" alias="least" aggregate="min"/></entity></fetch>`,
			"n=5 mails=3 kinds=3 mean=20 total=150.5000 least=-4.0",
		},
		{
			"groups over a join", `<fetch aggregate="true"><entity name="contact"><attribute name="contactid" alias="n" aggregate="count"/>
			<order alias="n" descending="true"/><link-entity name="listmember" from="entityid" to="contactid"><attribute name="listid" alias="l" groupby="true"/></link-entity></entity></fetch>`,
			"n=2 l=3.1; n=2 l=3.2",
		},
		{"date groups", `<fetch aggregate="true"><entity name="contact"><attribute name="createdon" alias="y" groupby="true" dategrouping="year"/><attribute name="createdon" alias="m" groupby="true" dategrouping="month"/>
			<attribute name="contactid" alias="n" aggregate="count"/><order alias="y" descending="true"/><order alias="m"/></entity></fetch>`, "y=2026 m=2 n=1; y=2026 m=3 n=2; y=2025 m=3 n=1; n=1"},
		{
			"weeks and quarters", `<fetch aggregate="true"><entity name="contact"><attribute name="createdon" alias="w" groupby="true" dategrouping="week"/><attribute name="createdon" alias="q" groupby="true" dategrouping="quarter"/><attribute name="createdon" alias="d" groupby="true" dategrouping="day"/></entity></fetch>`,
			"; w=8 q=1 d=18; w=11 q=1 d=11; w=12 q=1 d=17; w=12 q=1 d=18",
		},
		{"second page", `<fetch page="2" count="2"><entity name="contact"><attribute name="contactid"/></entity></fetch>`, "contactid=1.3; contactid=1.4"},
	}
	for _, indexed := range []bool{true, false} {
		m := company()
		m.unindexed = !indexed
		for _, tt := range tests {
			q, err := ParseFetch(m, table(t, m, "contact"), tt.fetch)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			res, err := q.Run(m, Options{Env: env, Schema: m})
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if got := textOf(q, res); got != tt.want {
				t.Errorf("%s (indexed %v):\n got %s\nwant %s", tt.name, indexed, got, tt.want)
			}
		}
	}
}

func TestFetchOperators(t *testing.T) {
	tests := []struct{ condition, want string }{
		{`attribute="fullname" operator="eq" value="ADA king"`, "1.1"},
		{`attribute="fullname" operator="eq" value="ada%"`, ""},
		{`attribute="fullname" operator="ne" value="ADA king"`, "1.2 1.3 1.4 1.5"},
		{`attribute="fullname" operator="like" value="%king"`, "1.1 1.4"},
		{`attribute="fullname" operator="not-like" value="%king"`, "1.2 1.3 1.5"},
		{`attribute="fullname" operator="not-begin-with" value="a"`, "1.2 1.3 1.4 1.5"},
		{`attribute="fullname" operator="ends-with" value="ray"`, "1.2"},
		{`attribute="fullname" operator="not-end-with" value="ray"`, "1.1 1.3 1.4 1.5"},
		{`attribute="donotemail" operator="eq" value="1"`, "1.2"},
		{`attribute="donotemail" operator="ne" value="true"`, "1.1 1.3 1.4 1.5"},
		{`attribute="emailaddress1" operator="not-null"`, "1.1 1.2 1.4"},
		{`attribute="interests" operator="eq" value="2,1"`, "1.1"},
		{`attribute="createdon" operator="on" value="2026-03-11"`, "1.2"},
		{`attribute="createdon" operator="not-on" value="2026-03-11"`, "1.1 1.3 1.4 1.5"},
		{`attribute="createdon" operator="ge" value="2026-03-11 00:00:00"`, "1.1 1.2"},
		{`attribute="createdon" operator="last-x-hours" value="2"`, "1.1"},
		{`attribute="createdon" operator="last-x-hours" value="1"`, "1.1"},
		{`attribute="createdon" operator="olderthan-x-minutes" value="60"`, "1.1 1.2 1.3 1.4"},
		{`attribute="createdon" operator="olderthan-x-hours" value="24"`, "1.2 1.3 1.4"},
		{`attribute="createdon" operator="last-x-days" value="7"`, "1.1 1.2"},
		{`attribute="createdon" operator="last-x-weeks" value="4"`, "1.1 1.2 1.3"},
		{`attribute="createdon" operator="last-x-years" value="1"`, "1.1 1.2 1.3"},
		{`attribute="createdon" operator="olderthan-x-days" value="7"`, "1.3 1.4"},
		{`attribute="createdon" operator="olderthan-x-years" value="1"`, "1.4"},
		{`attribute="createdon" operator="this-week"`, "1.1"},
		{`attribute="createdon" operator="last-week"`, "1.2"},
		{`attribute="createdon" operator="this-month"`, "1.1 1.2"},
		{`attribute="createdon" operator="last-year"`, "1.4"},
		{`attribute="createdon" operator="yesterday"`, ""},
		{`attribute="createdon" operator="next-x-days" value="3"`, ""},
		{`attribute="createdon" operator="next-week"`, ""},
		{`attribute="ownerid" operator="eq-userid"`, "1.1 1.4"},
		{`attribute="ownerid" operator="ne-userid"`, "1.2 1.3 1.5"},
		{`attribute="ownerid" operator="eq-userteams"`, "1.3"},
		{`attribute="ownerid" operator="eq-businessid"`, ""},
	}
	m := company()
	for _, tt := range tests {
		q, err := ParseFetch(m, table(t, m, "contact"), `<fetch><entity name="contact"><filter><condition `+tt.condition+`/></filter></entity></fetch>`)
		if err != nil {
			t.Errorf("%s: %v", tt.condition, err)
			continue
		}
		res, err := q.Run(m, Options{Env: env, Schema: m})
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(q, res); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.condition, got, tt.want)
		}
	}
}

func TestFetchRefusals(t *testing.T) {
	entity := func(inner string) string { return `<fetch><entity name="contact">` + inner + `</entity></fetch>` }
	filter := func(inner string) string { return entity(`<filter>` + inner + `</filter>`) }
	link := func(inner string) string {
		return `<link-entity name="account" from="accountid" to="parentcustomerid">` + inner + `</link-entity>`
	}
	tests := []struct{ name, fetch, code, part string }{
		{"no XML", "SELECT", CodeInvalidQuery, "Invalid XML"},
		{"empty", "", CodeInvalidQuery, "Invalid XML"},
		{"unclosed", "<fetch><entity name='contact'>", CodeInvalidQuery, "Invalid XML"},
		{"document type", `<!DOCTYPE fetch [<!ENTITY x "y">]>` + entity(""), CodeInvalidQuery, "document type"},
		{"entity", entity("&x;"), CodeInvalidQuery, "Invalid XML"},
		{"two roots", entity("") + entity(""), CodeInvalidQuery, "more than one root"},
		{"other table", `<fetch><entity name="account"/></fetch>`, CodeEntitiesDontMatch, "does not match"},
		{"unknown table", `<fetch><entity name="nothing"/></fetch>`, CodeNoEntity, "nothing"},
		{"unknown column", entity(`<attribute name="Fullname"/>`), CodeNoAttribute, "Fullname"},
		{"unknown column in a condition", filter(`<condition attribute="x" operator="null"/>`), CodeNoAttribute, "x"},
		{"unknown linked table", entity(`<link-entity name="x" from="a" to="b"/>`), CodeNoEntity, "x"},
		{"unknown linked column", entity(`<link-entity name="account" from="x" to="parentcustomerid"/>`), CodeNoAttribute, "x"},
		{"link without columns", entity(`<link-entity name="account"/>`), CodeInvalidQuery, "'from' and 'to'"},
		{"link of other types", entity(`<link-entity name="account" from="name" to="score"/>`), CodeInvalidQuery, "different types"},
		{"unknown element", entity(`<colour/>`), CodeInvalidQuery, "colour"},
		{"unknown operator", filter(`<condition attribute="score" operator="about" value="1"/>`), CodeInvalidArgument, "about"},
		{"not emulated", filter(`<condition attribute="createdon" operator="this-fiscal-year"/>`), CodeInvalidArgument, "not emulated"},
		{"hierarchy", filter(`<condition attribute="parentcustomerid" operator="under" value="x"/>`), CodeInvalidArgument, "not emulated"},
		{"value missing", filter(`<condition attribute="score" operator="eq"/>`), CodeInvalidArgument, "0 values"},
		{"value too many", filter(`<condition attribute="score" operator="null" value="1"/>`), CodeInvalidArgument, "1 values"},
		{"value of another type", filter(`<condition attribute="score" operator="eq" value="x"/>`), CodeInvalidArgument, "not a valid"},
		{"between one", filter(`<condition attribute="score" operator="between"><value>1</value></condition>`), CodeInvalidArgument, "1 values"},
		{"like on a number", filter(`<condition attribute="score" operator="like" value="1"/>`), CodeInvalidArgument, "not valid for the column"},
		{"contain-values on text", filter(`<condition attribute="fullname" operator="contain-values" value="1"/>`), CodeInvalidArgument, "not valid for the column"},
		{"unknown alias", filter(`<condition entityname="x" attribute="name" operator="null"/>`), CodeInvalidQuery, "alias 'x'"},
		{"filter type", entity(`<filter type="xor"/>`), CodeInvalidQuery, "xor"},
		{"link type", entity(`<link-entity name="account" from="accountid" to="parentcustomerid" link-type="left"/>`), CodeInvalidQuery, "left"},
		{"any outside a filter", entity(`<link-entity name="account" from="accountid" to="parentcustomerid" link-type="any"/>`), CodeInvalidQuery, "inside a filter"},
		{"columns of exists", entity(`<link-entity name="account" from="accountid" to="parentcustomerid" link-type="exists"><attribute name="name"/></link-entity>`), CodeInvalidQuery, "only tests"},
		{"alias twice", entity(strings.Repeat(`<link-entity name="account" from="accountid" to="parentcustomerid" alias="a"/>`, 2)), CodeInvalidQuery, "more than once"},
		{"too many links", entity(strings.Repeat(link(""), 16)), CodeTooManyLinks, "15"},
		{"too many conditions", filter(strings.Repeat(`<condition attribute="score" operator="null"/>`, 501)), CodeTooManyConditions, "500"},
		{"too many values", filter(`<condition attribute="score" operator="in">` + strings.Repeat("<value>1</value>", 2001) + `</condition>`), CodeTooManyValues, "2001"},
		{"top with paging", `<fetch top="5" page="1"><entity name="contact"/></fetch>`, CodeInvalidQuery, "top"},
		{"count too large", `<fetch count="5001"><entity name="contact"/></fetch>`, CodeInvalidQuery, "count"},
		{"aggregate without alias", `<fetch aggregate="true"><entity name="contact"><attribute name="score" aggregate="sum"/></entity></fetch>`, CodeInvalidQuery, "alias"},
		{"aggregate of text", `<fetch aggregate="true"><entity name="contact"><attribute name="fullname" alias="a" aggregate="sum"/></entity></fetch>`, CodeInvalidArgument, "not valid"},
		{"plain column in an aggregate", `<fetch aggregate="true"><entity name="contact"><attribute name="score" alias="a"/></entity></fetch>`, CodeInvalidQuery, "either"},
		{"aggregate outside", entity(`<attribute name="score" alias="a" aggregate="sum"/>`), CodeInvalidQuery, "only allowed in an aggregate"},
		{"fiscal group", `<fetch aggregate="true"><entity name="contact"><attribute name="createdon" alias="a" groupby="true" dategrouping="fiscal-year"/></entity></fetch>`, CodeInvalidArgument, "not emulated"},
		{"order by alias", entity(`<order alias="x"/>`), CodeInvalidQuery, "alias 'x'"},
		{"too deep", entity(strings.Repeat("<filter>", 70) + strings.Repeat("</filter>", 70)), CodeInvalidQuery, "64"},
		{"too long", entity("<!--" + strings.Repeat("x", MaxFetchBytes) + "-->"), CodeInvalidQuery, "longer"},
	}
	m := company()
	for _, tt := range tests {
		_, err := ParseFetch(m, table(t, m, "contact"), tt.fetch)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.code)
			continue
		}
		if e.Code != tt.code || !strings.Contains(e.Message, tt.part) {
			t.Errorf("%s: got %v, want %s with %q", tt.name, e, tt.code, tt.part)
		}
	}
}

func TestFetchTolerates(t *testing.T) {
	m := company()
	fetch := `<?xml version="1.0"?><fetch version="1.0" mapping="logical" output-format="xml-platform" no-lock="false" distinct="false"><!-- made by a person -->
		<entity name="contact" enableprefiltering="1"><attribute name="fullname" uiname="Full"/><filter type="and" isquickfindfields="0">
		<condition attribute="parentcustomerid" operator="eq" uiname="Acme" uitype="account" value="{` + id(2, 1).String() + `}"/></filter></entity></fetch>`
	q, err := ParseFetch(m, table(t, m, "contact"), fetch)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := q.Run(m, Options{Env: env, Schema: m}); err != nil || keysOf(q, res) != "1.1 1.2" {
		t.Errorf("got %v", err)
	}
	if name, err := FetchEntity(fetch); name != "contact" || err != nil {
		t.Errorf("entity %s, %v", name, err)
	}
}

func TestAggregateLimit(t *testing.T) {
	m := company()
	q, err := ParseFetch(m, table(t, m, "contact"), `<fetch aggregate="true" aggregatelimit="4"><entity name="contact"><attribute name="contactid" alias="n" aggregate="count"/></entity></fetch>`)
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err = q.Run(m, Options{Env: env, Schema: m}); !errors.As(err, &e) || e.Code != CodeAggregateLimit {
		t.Errorf("got %v", err)
	}
}

func TestCookies(t *testing.T) {
	m := company()
	fetch := `<fetch count="2"%s><entity name="contact"><attribute name="contactid"/><order attribute="emailaddress1" descending="true"/></entity></fetch>`
	q, err := ParseFetch(m, table(t, m, "contact"), fmt.Sprintf(fetch, ""))
	if err != nil {
		t.Fatal(err)
	}
	res, err := q.Run(m, Options{Env: env, Schema: m})
	if err != nil || !res.More() {
		t.Fatal(err)
	}
	inner := q.Cookie(1, res.FirstKey(), res.LastKey())
	upper := func(n int) string { return "{" + strings.ToUpper(id(1, n).String()) + "}" }
	want := `<cookie page="1"><emailaddress1 last="bob@y.org" first="DORA@x.org" /><contactid last="` + upper(2) + `" first="` + upper(4) + `" /></cookie>`
	if inner != want {
		t.Errorf("cookie\n got %s\nwant %s", inner, want)
	}
	token := SkipToken(2, inner, false)
	if !strings.HasPrefix(token, `<cookie pagenumber="2" pagingcookie="%253Ccookie%2520page%253D%25221%2522%253E`) || !strings.HasSuffix(token, `" istracking="False" />`) {
		t.Errorf("token %s", token)
	}
	page, back, tracking, err := ParseSkipToken(token)
	if page != 2 || back != inner || tracking || err != nil {
		t.Errorf("token read as %d %s %v %v", page, back, tracking, err)
	}
	escaped := strings.NewReplacer("<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(inner)
	q, err = ParseFetch(m, table(t, m, "contact"), fmt.Sprintf(fetch, ` page="2" paging-cookie="`+escaped+`"`))
	if err != nil {
		t.Fatal(err)
	}
	res, err = q.Run(m, Options{Env: env, Schema: m})
	if err != nil {
		t.Fatal(err)
	}
	if got := keysOf(q, res); got != "1.1 1.3" {
		t.Errorf("second page %s", got)
	}
	if last := q.Cookie(2, res.FirstKey(), res.LastKey()); !strings.Contains(last, `<emailaddress1 lastnull="1" first="ada@x.org" />`) {
		t.Errorf("null in %s", last)
	}
	for _, bad := range []string{"x", "<cookie/>", `<cookie page="1"><contactid last="{}" first=""/></cookie>`, `<cookie page="1"><contactid last="a"/><emailaddress1 last="b"/></cookie>`} {
		if _, err := q.ParseCookie(bad); err == nil {
			t.Errorf("cookie %s was taken", bad)
		}
	}
	for _, bad := range []string{"", "x", `<cookie pagenumber="1" pagingcookie="" istracking="False" />`, `<cookie pagenumber="2" pagingcookie="%zz" istracking="False" />`, `<cookie pagenumber="2" pagingcookie="" />`} {
		if _, _, _, err := ParseSkipToken(bad); err == nil {
			t.Errorf("token %s was taken", bad)
		}
	}
}
