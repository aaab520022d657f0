package query

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// encode percent-encodes a readable query string.
func encode(s string) string {
	var parts []string
	for p := range strings.SplitSeq(s, "&") {
		name, text, _ := strings.Cut(p, "=")
		parts = append(parts, url.QueryEscape(name)+"="+url.QueryEscape(text))
	}
	return strings.Join(parts, "&")
}

func TestFilters(t *testing.T) {
	tests := []struct{ filter, want string }{
		{"fullname eq 'ada king'", "1.1"},
		{"fullname eq 'A%G'", "1.1"},
		{"fullname ne 'Ada King'", "1.2 1.3 1.4 1.5"},
		{"fullname ne '%king'", "1.2 1.3 1.5"},
		{"emailaddress1 eq null", "1.3 1.5"},
		{"emailaddress1 ne null", "1.1 1.2 1.4"},
		{"contains(fullname,'KING')", "1.1 1.4"},
		{"not contains(fullname,'KING')", "1.2 1.3 1.5"},
		{"contains(fullname,'[%]')", "1.3"},
		{"contains(fullname,'%')", "1.1 1.2 1.3 1.4"},
		{"startswith(fullname,'_ob')", "1.2"},
		{"startswith(fullname,'[a-b]')", "1.1 1.2"},
		{"startswith(fullname,'[^a-b]')", "1.3 1.4"},
		{"endswith(fullname,'[5')", ""},
		{"endswith(emailaddress1,'@X.ORG')", "1.1 1.4"},
		{"fullname eq 'CÄSAR 50[%]'", "1.3"},
		{"nickname eq 'c[_]x'", "1.3"},
		{"emailaddress1 eq nickname", "1.1"},
		{"emailaddress1 ne nickname", "1.2 1.3 1.4 1.5"},
		{"statecode eq 0 and donotemail eq false", "1.1"},
		{"statecode eq 0 or score gt 25", "1.1 1.2 1.3"},
		{"not (statecode eq 0 or score gt 25)", "1.4"},
		{"not (score lt 20)", "1.2 1.3 1.4"},
		{"20 lt score", "1.3"},
		{"score gt 19.5", "1.2 1.3 1.4"},
		{"score eq 19.5", ""},
		{"score eq 20.0", "1.2 1.4"},
		{"creditlimit eq 50", "1.2"},
		{"creditlimit lt 1", "1.3"},
		{"weight ge 1.5", "1.1 1.2"},
		{"donotemail eq true", "1.2"},
		{"birthdate lt 1990-01-02", "1.1"},
		{"createdon ge 2026-03-11", "1.1 1.2"},
		{"createdon gt 2026-03-11T01:00:00%2B02:00", "1.1 1.2"},
		{"interests eq '2,1'", "1.1"},
		{"contactid eq " + id(1, 2).String(), "1.2"},
		{"contactid eq " + strings.ToUpper(id(1, 2).String()), "1.2"},
		{"_parentcustomerid_value eq " + id(2, 1).String(), "1.1 1.2"},
		{"_parentcustomerid_value ne " + id(2, 1).String(), "1.3 1.4 1.5"},
		{"parentcustomerid_account/name eq 'acme'", "1.1 1.2"},
		{"parentcustomerid_account/primarycontactid/fullname eq 'Dora King'", "1.4"},
		{"parentcustomerid_account/name eq null", "1.3 1.5"},
		{"listcontact_association/any()", "1.1 1.2 1.3"},
		{"not listcontact_association/any()", "1.4 1.5"},
		{"listcontact_association/any(l:l/listname eq 'customers')", "1.1 1.3"},
		{"listcontact_association/any(l:l/listid eq " + id(3, 1).String() + ")", "1.1 1.2"},
		{"listcontact_association/all(l:l/listname eq 'customers')", "1.3 1.4 1.5"},
		{"listcontact_association/any(l:l/listcontact_association/any(c:c/fullname eq 'bob ray'))", "1.1 1.2"},
		{"Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=['10','30'])", "1.1 1.3"},
		{`Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=["10","30"])`, "1.1 1.3"},
		{"Microsoft.Dynamics.CRM.NotIn(PropertyName='score',PropertyValues=['10','30'])", "1.2 1.4 1.5"},
		{"Microsoft.Dynamics.CRM.In(PropertyName='fullname',PropertyValues=['ADA KING','a%'])", "1.1"},
		{"Microsoft.Dynamics.CRM.Between(PropertyName='score',PropertyValues=['10','20'])", "1.1 1.2 1.4"},
		{"Microsoft.Dynamics.CRM.NotBetween(PropertyName='score',PropertyValues=['10','20'])", "1.3"},
		{"Microsoft.Dynamics.CRM.ContainValues(PropertyName='interests',PropertyValues=['2','3'])", "1.1 1.2 1.4"},
		{"Microsoft.Dynamics.CRM.DoesNotContainValues(PropertyName='interests',PropertyValues=['2','3'])", "1.3 1.5"},
		{"Microsoft.Dynamics.CRM.EqualUserId(PropertyName='ownerid')", "1.1 1.4"},
		{"Microsoft.Dynamics.CRM.NotEqualUserId(PropertyName='_ownerid_value')", "1.2 1.3 1.5"},
		{"Microsoft.Dynamics.CRM.EqualUserOrUserTeams(PropertyName='ownerid')", "1.1 1.3 1.4"},
		{"Microsoft.Dynamics.CRM.EqualUserLanguage(PropertyName='language')", "1.1"},
		{"Microsoft.Dynamics.CRM.On(PropertyName='createdon',PropertyValue='2026-03-11')", "1.2"},
		{"Microsoft.Dynamics.CRM.OnOrAfter(PropertyName='createdon',PropertyValue='2026-03-11')", "1.1 1.2"},
		{"Microsoft.Dynamics.CRM.OnOrBefore(PropertyName='createdon',PropertyValue='2026-03-11')", "1.2 1.3 1.4"},
		{"not Microsoft.Dynamics.CRM.Today(PropertyName='createdon')", "1.2 1.3 1.4"},
		{"Microsoft.Dynamics.CRM.Today(PropertyName='createdon')", "1.1"},
		{"Microsoft.Dynamics.CRM.Last7Days(PropertyName='createdon')", "1.1 1.2"},
		{"Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=6)", "1.1"},
		{"Microsoft.Dynamics.CRM.LastXMonths(PropertyName='createdon',PropertyValue='1')", "1.1 1.2 1.3"},
		{"Microsoft.Dynamics.CRM.OlderThanXMonths(PropertyName='createdon',PropertyValue=1)", "1.4"},
		{"Microsoft.Dynamics.CRM.LastMonth(PropertyName='createdon')", "1.3"},
		{"Microsoft.Dynamics.CRM.ThisYear(PropertyName='createdon')", "1.1 1.2 1.3"},
		{"score eq @p", "1.2 1.4"},
		{"emailaddress1 eq @missing", "1.3 1.5"},
		{"Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=@list)", "1.1 1.3"},
	}
	for _, indexed := range []bool{true, false} {
		m := company()
		m.unindexed = !indexed
		for _, tt := range tests {
			raw := "$filter=" + url.QueryEscape(tt.filter) + "&" + encode(`@p=20&@list=["10","30"]`)
			if strings.Contains(tt.filter, "%2B") {
				raw = "$filter=" + strings.ReplaceAll(tt.filter, " ", "+")
			}
			q, err := ParseOData(m, table(t, m, "contact"), raw)
			if err != nil {
				t.Errorf("%s: %v", tt.filter, err)
				continue
			}
			res, err := q.Run(m, Options{Env: env, Schema: m})
			if err != nil {
				t.Errorf("%s: %v", tt.filter, err)
				continue
			}
			if got := keysOf(q, res); got != tt.want {
				t.Errorf("%s (indexed %v): got %s, want %s", tt.filter, indexed, got, tt.want)
			}
			n, _, err := q.CountRows(m, Options{Env: env, Schema: m})
			if want := len(strings.Fields(tt.want)); err != nil || n != want {
				t.Errorf("%s: counted %d (%v), want %d", tt.filter, n, err, want)
			}
		}
	}
}

func TestIndexesSpareTheScan(t *testing.T) {
	for _, filter := range []string{
		"_parentcustomerid_value eq " + id(2, 1).String(),
		"contactid eq " + id(1, 2).String(),
		"listcontact_association/any(l:l/listid eq " + id(3, 1).String() + ")",
		"statecode eq 0 and Microsoft.Dynamics.CRM.In(PropertyName='ownerid',PropertyValues=['" + id(9, 1).String() + "'])",
	} {
		m := company()
		q, err := ParseOData(m, table(t, m, "contact"), encode("$filter="+filter))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Run(m, Options{Env: env, Schema: m}); err != nil {
			t.Fatal(err)
		}
		if m.scanned != 0 {
			t.Errorf("%s scanned %d rows", filter, m.scanned)
		}
	}
}

// TestRootsAreDistinct has a person twice in one list: an index leads to the
// same contact twice, but a test for existence gives it once.
func TestRootsAreDistinct(t *testing.T) {
	m := company()
	m.put("listmember", guidOf(4, 9), guidOf(3, 1), guidOf(1, 1))
	contacts := table(t, m, "contact")
	list := id(3, 1).String()
	byOData, err := ParseOData(m, contacts, encode("$filter=listcontact_association/any(l:l/listid eq "+list+")"))
	if err != nil {
		t.Fatal(err)
	}
	byFetch, err := ParseFetch(m, contacts, `<fetch><entity name="contact"><link-entity name="listmember" from="entityid" to="contactid" link-type="exists"><filter><condition attribute="listid" operator="eq" value="`+list+`"/></filter></link-entity></entity></fetch>`)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []*Query{byOData, byFetch} {
		res, err := q.Run(m, Options{Env: env, Schema: m})
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(q, res); got != "1.1 1.2" || m.scanned > 0 {
			t.Errorf("got %s after a scan of %d rows", got, m.scanned)
		}
	}
}

func TestFiltersDoNotAllocate(t *testing.T) {
	m := company()
	row, _ := m.Get(table(t, m, "contact"), id(1, 1))
	for _, filter := range []string{
		"fullname eq 'ADA KING' and score gt 5", "contains(fullname,'king') or startswith(emailaddress1,'b')",
		"Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=['10','20'])", "Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=7)",
		"parentcustomerid_account/name eq 'acme'", "_parentcustomerid_value ne null and donotemail eq false",
	} {
		q, err := ParseOData(m, table(t, m, "contact"), encode("$filter="+filter))
		if err != nil {
			t.Fatal(err)
		}
		bound, x, tuple := q.plan.filter.bind(&env), &exec{src: m, schema: m}, []Row{row}
		if !bound.match(x, tuple) {
			t.Errorf("%s does not match", filter)
		}
		if n := testing.AllocsPerRun(100, func() { bound.match(x, tuple) }); n > 0 {
			t.Errorf("%s allocates %v times a row", filter, n)
		}
	}
}

func TestODataResults(t *testing.T) {
	tests := []struct{ table, query, want string }{
		{"contact", "$select=fullname,_parentcustomerid_value&$top=2", "fullname=Ada King _parentcustomerid_value=2.1 contactid=1.1; fullname=Bob Ray _parentcustomerid_value=2.1 contactid=1.2"},
		{"contact", "$select=score&$orderby=score desc,fullname", "score=30 contactid=1.3; score=20 contactid=1.2; score=20 contactid=1.4; score=10 contactid=1.1; contactid=1.5"},
		{"contact", "$select=contactid&$orderby=_ownerid_value desc", "contactid=1.1; contactid=1.4; contactid=1.2; contactid=1.3; contactid=1.5"},
		{"contact", "$select=contactid&$orderby=parentcustomerid_account/name desc", "contactid=1.4; contactid=1.1; contactid=1.2; contactid=1.3; contactid=1.5"},
		{"contact", "$select=contactid&$orderby=@o&@o=fullname&$filter=fullname ne null", "contactid=1.1; contactid=1.2; contactid=1.3; contactid=1.4"},
		{
			"contact", "$apply=aggregate($count as n,score with sum as total,score with average as mean,creditlimit with max as most,score with countdistinct as kinds)",
			"n=5 total=80 mean=20 most=100.0000 kinds=3",
		},
		{
			"contact", "$apply=groupby((statecode),aggregate($count as n,createdon with min as first))",
			"n=1; statecode=0 n=2 first=2026-03-11T00:00:00Z; statecode=1 n=2 first=2025-03-17T12:00:00Z",
		},
		{"contact", "$apply=filter(score eq 20)/groupby((parentcustomerid_account/name),aggregate($count as n))", "account_name=Acme n=1; account_name=Beta n=1"},
		{"contact", "$apply=filter(score eq 99)/aggregate($count as n,score with sum as s)", "n=0"},
		{"contact", "$apply=groupby((score))", "; score=10; score=20; score=30"},
		{"account", "$apply=groupby((primarycontactid/fullname))", "; contact_fullname=Ada King; contact_fullname=Dora King"},
	}
	for _, tt := range tests {
		m := company()
		q, err := ParseOData(m, table(t, m, tt.table), encode(tt.query))
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		res, err := q.Run(m, Options{Env: env, Schema: m})
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		if got := textOf(q, res); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.query, got, tt.want)
		}
	}
}

func TestODataRefusals(t *testing.T) {
	tests := []struct{ query, code, part string }{
		{"$skip=1", CodeODataQuery, "$skip is not supported"},
		{"$search=x", CodeODataQuery, "not supported"},
		{"$Filter=score eq 1", CodeODataQuery, "$Filter"},
		{"color=red", CodeODataQuery, "color"},
		{"$top=1&$top=2", CodeODataQuery, "more than once"},
		{"$select=Fullname", CodeODataQuery, "Could not find a property named 'Fullname'"},
		{"$select=parentcustomerid", CodeODataQuery, "'parentcustomerid'"},
		{"$select=_fullname_value", CodeODataQuery, "'_fullname_value'"},
		{"$select=parentcustomerid_account", CodeODataQuery, "Could not find"},
		{"$select=*", CodeODataQuery, "Could not find"},
		{"$filter=nothing eq 1", CodeODataQuery, "'nothing' on type 'Microsoft.Dynamics.CRM.contact'"},
		{"$filter=", CodeODataQuery, "Syntax error"},
		{"$filter=score eq", CodeODataQuery, "Syntax error"},
		{"$filter=score eq 1 and", CodeODataQuery, "Syntax error"},
		{"$filter=(score eq 1", CodeODataQuery, "Syntax error"},
		{"$filter=score eq 1)", CodeODataQuery, "Syntax error"},
		{"$filter=score add 1 eq 2", CodeODataQuery, "Syntax error"},
		{"$filter=score EQ 1", CodeODataQuery, "Syntax error"},
		{"$filter=score eq '1'", CodeODataQuery, "incompatible types"},
		{"$filter=fullname eq 1", CodeODataQuery, "incompatible types"},
		{"$filter=donotemail eq 1", CodeODataQuery, "incompatible types"},
		{"$filter=donotemail gt true", CodeODataQuery, "incompatible types"},
		{"$filter=donotemail", CodeODataQuery, "Syntax error"},
		{"$filter=contactid eq 'x'", CodeODataQuery, "incompatible types"},
		{"$filter=birthdate eq 1980-02-30", CodeODataQuery, "incompatible types"},
		{"$filter=score gt null", CodeODataQuery, "null literal"},
		{"$filter=" + strings.Repeat("score eq 1 or ", 500) + "score eq 2", CodeTooManyConditions, "500"},
		{"$filter=" + strings.Repeat("(", 200) + "score eq 1" + strings.Repeat(")", 200), CodeODataQuery, "too deeply"},
		{"$filter=" + strings.Repeat("not ", 200) + "score eq 1", CodeODataQuery, "too deeply"},
		{"$filter=1 eq 1", CodeODataQuery, "at least one side"},
		{"$filter=score eq fullname", CodeODataQuery, "incompatible types"},
		{"$filter=fullname eq 'x", CodeODataQuery, "unterminated"},
		{"$filter=tolower(fullname) eq 'x'", CodeODataQuery, "unknown function with name 'tolower'"},
		{"$filter=contains(score,'1')", CodeODataQuery, "No function signature"},
		{"$filter=contains(fullname,1)", CodeODataQuery, "No function signature"},
		{"$filter=listcontact_association/listname eq 'x'", CodeODataQuery, "any() or all()"},
		{"$filter=listcontact_association/any(l:listname eq 'x')", CodeODataQuery, "lambda variable"},
		{"$filter=listcontact_association/any(l:l/listid eq 1)", CodeODataQuery, "incompatible types"},
		{"$filter=listcontact_association/all()", CodeODataQuery, "Syntax error"},
		{"$filter=parentcustomerid_account/contact_customer_accounts/any()", CodeODataQuery, "single-valued path"},
		{"$filter=parentcustomerid_account/any()", CodeODataQuery, "collection-valued"},
		{"$filter=Microsoft.Dynamics.CRM.Nope(PropertyName='score')", CodeODataQuery, "unknown function"},
		{"$filter=Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=[1,2])", CodeODataQuery, "must be strings"},
		{"$filter=Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=[])", CodeInvalidArgument, "does not take 0 values"},
		{"$filter=Microsoft.Dynamics.CRM.In(PropertyName='score',PropertyValues=['x'])", CodeInvalidArgument, "not a valid"},
		{"$filter=Microsoft.Dynamics.CRM.LastXDays(PropertyName='score',PropertyValue=1)", CodeInvalidArgument, "not valid for the column"},
		{"$filter=Microsoft.Dynamics.CRM.LastXHours(PropertyName='birthdate',PropertyValue=1)", CodeInvalidArgument, "not valid for the column"},
		{"$filter=Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=0)", CodeInvalidArgument, "whole number"},
		{"$filter=Microsoft.Dynamics.CRM.InFiscalYear(PropertyName='createdon',PropertyValue=2026)", CodeInvalidArgument, "not emulated"},
		{"$filter=score eq @a&@a=@b&@b=1", CodeODataQuery, "another alias"},
		{"$orderby=fullname up", CodeODataQuery, "$orderby"},
		{"$orderby=interests", CodeODataQuery, "cannot be used in the order"},
		{"$top=0", CodeODataQuery, "$top"},
		{"$top=x", CodeODataQuery, "$top"},
		{"$count=yes", CodeODataQuery, "$count"},
		{"$expand=nothing", CodeODataQuery, "Could not find"},
		{"$expand=parentcustomerid_account($levels=2)", CodeODataQuery, "$levels"},
		{"$expand=parentcustomerid_account($count=true)", CodeODataQuery, "$count"},
		{"$expand=parentcustomerid_account($filter=name eq 'x')", CodeODataQuery, "single-valued"},
		{"$expand=listcontact_association/$ref", CodeODataQuery, "$ref"},
		{"$expand=listcontact_association,parentcustomerid_account", CodeODataQuery, "together"},
		{"$expand=listcontact_association($expand=listcontact_association)", CodeODataQuery, "nested"},
		{"$expand=listcontact_association($filter=listname eq @p)&@p='x'", CodeODataQuery, "aliases"},
		{"$expand=parentcustomerid_account($expand=contact_customer_accounts($expand=parentcustomerid_account;$top=1))", CodeODataQuery, "$top"},
		{"$expand=parentcustomerid_account(", CodeODataQuery, "Unbalanced"},
		{"$apply=aggregate(score with median as m)", CodeODataQuery, "median"},
		{"$apply=aggregate(fullname with sum as s)", CodeInvalidArgument, "not valid"},
		{"$apply=groupby((score))&$orderby=score", CodeODataQuery, "$apply"},
		{"$apply=expand(x)", CodeODataQuery, "Syntax error"},
	}
	m := company()
	for _, tt := range tests {
		_, err := ParseOData(m, table(t, m, "contact"), encode(tt.query))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want %s", tt.query, err, tt.code)
			continue
		}
		if e.Code != tt.code || !strings.Contains(e.Message, tt.part) || e.Status != 400 && e.Status != 501 {
			t.Errorf("%s: got %d %v, want %s with %q", tt.query, e.Status, e, tt.code, tt.part)
		}
	}
	if _, err := ParseOData(m, table(t, m, "contact"), "$filter=%zz"); err == nil {
		t.Error("a broken percent-encoding was taken")
	}
}

func TestExpandLimit(t *testing.T) {
	m := company()
	text := "parentcustomerid_account"
	for range MaxExpands {
		text = "parentcustomerid_account($expand=primarycontactid($expand=" + text + "))"
	}
	if _, err := ParseOData(m, table(t, m, "contact"), encode("$expand="+text)); err == nil || !strings.Contains(err.Error(), "15") {
		t.Errorf("got %v", err)
	}
}

func TestExpand(t *testing.T) {
	m := company()
	q, err := ParseOData(m, table(t, m, "account"), encode("$select=name&$expand=primarycontactid($select=fullname),contact_customer_accounts($select=fullname;$filter=score gt 5;$orderby=fullname desc;$top=1)"))
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Env: env, Schema: m}
	res, err := q.Run(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for res.Next() {
		row := res.Record().Row()
		for i := range q.Expands {
			x := &q.Expands[i]
			related, err := q.RunExpand(m, opt, x, row)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, x.Navigation.Name+": "+textOf(x.Query, related))
		}
	}
	want := []string{
		"primarycontactid: fullname=Ada King contactid=1.1", "contact_customer_accounts: fullname=Bob Ray contactid=1.2",
		"primarycontactid: fullname=Dora King contactid=1.4", "contact_customer_accounts: fullname=Dora King contactid=1.4",
		"primarycontactid: ", "contact_customer_accounts: ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestScope(t *testing.T) {
	m := company()
	lists, accounts := table(t, m, "list"), table(t, m, "account")
	members, _ := lists.Navigation("listcontact_association")
	contacts, _ := accounts.Navigation("contact_customer_accounts")
	primary, _ := accounts.Navigation("primarycontactid")
	tests := []struct {
		scope Scope
		query string
		want  string
	}{
		{Scope{members, lists, id(3, 2)}, "", "1.1 1.3"},
		{Scope{members, lists, id(3, 2)}, "$filter=statecode eq 1", "1.3"},
		{Scope{members, lists, id(3, 9)}, "", ""},
		{Scope{contacts, accounts, id(2, 1)}, "$orderby=fullname desc", "1.2 1.1"},
		{Scope{primary, accounts, id(2, 2)}, "", "1.4"},
	}
	for _, tt := range tests {
		q, err := ParseOData(m, table(t, m, "contact"), encode(tt.query))
		if tt.query == "" {
			q, err = ParseOData(m, table(t, m, "contact"), "")
		}
		if err != nil {
			t.Fatal(err)
		}
		res, err := q.Run(m, Options{Env: env, Schema: m, Scope: &tt.scope})
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(q, res); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.scope.Navigation.Name, tt.query, got, tt.want)
		}
	}
}

func TestTopAndPageSize(t *testing.T) {
	m := company()
	q, err := ParseOData(m, table(t, m, "contact"), "$top=2")
	if err != nil {
		t.Fatal(err)
	}
	res, err := q.Run(m, Options{Env: env, Schema: m})
	if err != nil || res.Len() != 2 || res.More() {
		t.Errorf("$top: %d rows, more %v, %v", res.Len(), res.More(), err)
	}
	// A page size makes $top ineffective.
	res, err = q.Run(m, Options{Env: env, Schema: m, PageSize: 3})
	if err != nil || res.Len() != 3 || !res.More() {
		t.Errorf("page size: %d rows, more %v, %v", res.Len(), res.More(), err)
	}
	if _, err := q.Run(m, Options{Env: env, Schema: m, PageSize: 5000, Skip: 50_000}); err == nil {
		t.Error("paging by number went beyond 50,000 rows")
	}
}

func TestRefuseTracking(t *testing.T) {
	m := company()
	for raw, option := range map[string]string{
		"$select=fullname": "", "$count=true": "", "$filter=score eq 1": "$filter", "$orderby=score": "$orderby", "$top=1": "$top",
		"$expand=parentcustomerid_account": "$expand", "$apply=groupby((score))": "$apply",
	} {
		q, err := ParseOData(m, table(t, m, "contact"), encode(raw))
		if err != nil {
			t.Fatal(err)
		}
		err = q.RefuseTracking()
		if (err != nil) != (option != "") || err != nil && !strings.Contains(err.Error(), option+" ") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestCountIsCapped(t *testing.T) {
	m := newMemory()
	for i := range MaxPage + 3 {
		m.tables["systemuser"].rows = append(m.tables["systemuser"].rows, &memRow{[]value.Value{guidOf(9, i+1), value.Null()}})
	}
	q, err := ParseOData(m, table(t, m, "systemuser"), "$count=true")
	if err != nil {
		t.Fatal(err)
	}
	if n, exceeded, err := q.CountRows(m, Options{Env: env, Schema: m}); n != MaxPage || !exceeded || err != nil {
		t.Errorf("got %d %v %v", n, exceeded, err)
	}
	if res, err := q.Run(m, Options{Env: env, Schema: m}); err != nil || res.Len() != MaxPage || !res.More() {
		t.Errorf("page of %d, more %v, %v", res.Len(), res.More(), err)
	}
}
