package dataverse

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// load fills contacts with n rows named C0001 … and returns nothing: the ids are
// read back through the API.
func (w *world) load(n int) {
	w.t.Helper()
	l, err := w.s.Loader("contact", []string{"firstname", "lastname", "emailaddress1", "numberofchildren"})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		if err := l.Append(value.Text("C"), value.Text(fmt.Sprintf("%05d", i)), value.Text(fmt.Sprintf("c%d@x.org", i)), value.Int(int64(i%7))); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// pages follows next links and returns the ids of all rows, the sizes of the
// pages and the delta link.
func (w *world) pages(path string, headers ...string) (ids []string, sizes []int, delta string) {
	w.t.Helper()
	for path != "" {
		r := w.get(path, headers...).must(200)
		rows := r.rows()
		sizes = append(sizes, len(rows))
		for _, row := range rows {
			id, ok := row["contactid"].(string)
			if !ok {
				id = "-" + row["id"].(string)
			}
			ids = append(ids, id)
		}
		top := r.json()
		path, _ = top["@odata.nextLink"].(string)
		delta, _ = top["@odata.deltaLink"].(string)
		if path != "" && delta != "" {
			w.t.Fatal("a delta link before the last page")
		}
	}
	return ids, sizes, delta
}

func distinct(ids []string) int {
	set := map[string]bool{}
	for _, id := range ids {
		set[id] = true
	}
	return len(set)
}

// An alternative to a condition on an indexed lookup is not forgotten.
func TestFilterAlternativeToLookup(t *testing.T) {
	w := newWorld(t)
	a, b := w.create("accounts", `{"name":"A"}`), w.create("accounts", `{"name":"B"}`)
	w.create("contacts", `{"lastname":"One","parentcustomerid_account@odata.bind":"/accounts(`+a+`)"}`)
	w.create("contacts", `{"lastname":"Two","parentcustomerid_account@odata.bind":"/accounts(`+b+`)"}`)
	for filter, n := range map[string]int{
		"_parentcustomerid_value eq " + b:                                       1,
		"_parentcustomerid_value eq " + b + " or lastname eq 'One'":             2,
		"_parentcustomerid_value eq " + b + " or startswith(lastname,'One')":    2,
		"lastname eq 'One' or _parentcustomerid_value eq " + b:                  2,
		"_parentcustomerid_value eq " + b + " and not startswith(lastname,'T')": 0,
	} {
		if got := len(w.get("contacts?$filter=" + url.PathEscape(filter)).must(200).rows()); got != n {
			t.Errorf("%s: %d rows, want %d", filter, got, n)
		}
	}
}

func TestPaging(t *testing.T) {
	w := newWorld(t)
	w.load(5003)
	ids, sizes, _ := w.pages("contacts?$select=lastname")
	if diff := cmp.Diff([]int{5000, 3}, sizes); diff != "" || distinct(ids) != 5003 {
		t.Errorf("%s %d", diff, distinct(ids))
	}
	_, sizes, _ = w.pages("contacts?$select=lastname&$top=1", "Prefer", "odata.maxpagesize=2000")
	if diff := cmp.Diff([]int{2000, 2000, 1003}, sizes); diff != "" {
		t.Errorf("the page size rules over $top: %s", diff)
	}
	if rows := w.get("contacts?$select=lastname&$top=2&$orderby=lastname%20desc").rows(); len(rows) != 2 || rows[0]["lastname"] != "05002" {
		t.Errorf("rows %v", rows)
	}
	r := w.get("contacts?$select=lastname&$top=1&$count=true", "Prefer", `odata.include-annotations="*"`).json()
	if words(r["@odata.count"], r["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"]) != "5000 true" {
		t.Errorf("counts %v", r)
	}
	if got := string(w.get("contacts/$count").must(200).body); got != "\ufeff5000" {
		t.Errorf("count %q", got)
	}
	if got := string(w.get("contacts/$count?$filter=numberofchildren%20eq%203").must(200).body); got != "\ufeff715" {
		t.Errorf("count %q", got)
	}
	total := w.get("RetrieveTotalRecordCount(EntityNames=@p1)?@p1=" + url.QueryEscape(`["contact","lead"]`)).must(200).json()["EntityRecordCountCollection"].(map[string]any)
	if words(total["Keys"], total["Values"]) != "[contact lead] [5003 0]" {
		t.Errorf("total %v", total)
	}
	for _, bad := range []string{"$skip=1", "$search=x", "$top=-1", "$select=nope", "$filter=nope%20eq%201", "$format=json"} {
		if r := w.get("contacts?" + bad); r.status != 400 {
			t.Errorf("%s answered %d", bad, r.status)
		}
	}
}

// TestPageBytes compares pages with what a writer makes of them that takes one
// value after the other.
func TestPageBytes(t *testing.T) {
	w := newWorld(t)
	w.load(3*store.WarmRows + 5)
	w.create("contacts", `{"lastname":"O\"Hara \\ König","firstname":"Ünï 😀\n\t","birthdate":"1980-02-29","donotbulkemail":true,"address1_latitude":51.5}`)
	sch := w.s.sch.Load().Table("contact")
	columns := []string{"lastname", "firstname", "numberofchildren", "birthdate", "modifiedon", "donotbulkemail", "statuscode", "_ownerid_value", "address1_latitude", "versionnumber"}
	want := []byte("[")
	for _, row := range w.s.store.View().Page(nil, "contact", value.ID{}, 1000) {
		if len(want) > 1 {
			want = append(want, ',')
		}
		want = fmt.Appendf(want, `{"@odata.etag":"W/\"%d\""`, row.Version)
		for _, name := range append(columns, "contactid") {
			want = fmt.Appendf(want, `,"%s":`, name)
			want = row.Value(int(sch.WireColumn(name).Ord)).AppendJSON(want)
		}
		want = append(want, '}')
	}
	want = append(want, ']')
	for _, headers := range [][]string{{"Accept-Encoding", "identity"}, {}, {"Prefer", "odata.track-changes"}} {
		for range 2 { // buffers and compressors are used again
			body := w.get("contacts?$select="+strings.Join(columns, ","), headers...).must(200).body
			_, got, _ := bytes.Cut(body, []byte(`"value":`))
			if !bytes.HasPrefix(got, want) {
				t.Fatalf("%v: page\n%s\nwant\n%s", headers, got, want)
			}
		}
	}
}

func TestPagesUnderWrites(t *testing.T) {
	w := newWorld(t)
	w.load(100)
	first := w.get("contacts?$select=lastname", "Prefer", "odata.maxpagesize=40").must(200)
	seen := map[string]bool{}
	for _, row := range first.rows() {
		seen[row["contactid"].(string)] = true
	}
	for id := range seen { // rows already read change and vanish
		w.do("DELETE", "contacts("+id+")", "").must(204)
	}
	ids, _, _ := w.pages(first.json()["@odata.nextLink"].(string), "Prefer", "odata.maxpagesize=40")
	if len(ids) != 60 || distinct(ids) != 60 {
		t.Errorf("%d rows follow, %d distinct; want 60", len(ids), distinct(ids))
	}
}

func TestFetch(t *testing.T) {
	w := newWorld(t)
	w.load(25)
	fetch := func(set, xml string, headers ...string) *reply {
		return w.get(set+"?fetchXml="+url.QueryEscape(xml), headers...)
	}
	r := fetch("contacts", `<fetch count="10" page="1"><entity name="contact"><attribute name="lastname"/><attribute name="jobtitle"/></entity></fetch>`,
		"Prefer", `odata.include-annotations="Microsoft.Dynamics.CRM.fetchxmlpagingcookie,Microsoft.Dynamics.CRM.morerecords"`).must(200)
	top := r.json()
	cookie, _ := top["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"].(string)
	if len(r.rows()) != 10 || !strings.HasPrefix(cookie, `<cookie pagenumber="2" pagingcookie="`) || top["@Microsoft.Dynamics.CRM.morerecords"] != true {
		t.Errorf("page %s", r.body)
	}
	if strings.Contains(string(r.body), "jobtitle") {
		t.Error("nulls are left out of FetchXML answers")
	}
	_, rest, _ := strings.Cut(cookie, `pagingcookie="`)
	inner, _, _ := strings.Cut(rest, `"`)
	for range 2 {
		inner, _ = url.QueryUnescape(inner)
	}
	seen := map[any]bool{}
	for _, row := range r.rows() {
		seen[row["contactid"]] = true
	}
	escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(inner)
	r = fetch("contacts", `<fetch count="20" page="2" paging-cookie="`+escaped+`"><entity name="contact"><attribute name="lastname"/></entity></fetch>`,
		"Prefer", `odata.include-annotations="Microsoft.Dynamics.CRM.morerecords"`).must(200)
	for _, row := range r.rows() {
		if seen[row["contactid"]] {
			t.Error("a row came twice")
		}
	}
	if _, ok := r.json()["@Microsoft.Dynamics.CRM.morerecords"]; ok || len(r.rows()) != 15 {
		t.Errorf("last page %s", r.body)
	}
	fetch("accounts", `<fetch><entity name="contact"/></fetch>`).refused(400, "0x80041128")
	fetch("contacts", `<fetch><entity name="contact"><attribute name="nope"/></entity></fetch>`).refused(400, "0x80041103")
	r = fetch("contacts", `<fetch aggregate="true"><entity name="contact"><attribute name="contactid" alias="n" aggregate="count"/></entity></fetch>`).must(200)
	if words(r.rows()[0]["n"]) != "25" {
		t.Errorf("aggregate %s", r.body)
	}
}

func TestChangeTracking(t *testing.T) {
	w := newWorld(t)
	w.load(7)
	track := []string{"Prefer", "odata.track-changes,odata.maxpagesize=3"}
	r := w.get("contacts?$select=lastname,emailaddress1", track...).must(200)
	if got := r.header.Get("Preference-Applied"); got != "odata.track-changes, odata.maxpagesize=3" {
		t.Errorf("applied %q", got)
	}
	ids, sizes, delta := w.pages("contacts?$select=lastname,emailaddress1", track...)
	if diff := cmp.Diff([]int{3, 3, 1}, sizes); diff != "" || delta == "" {
		t.Fatalf("%s %q", diff, delta)
	}
	if !strings.Contains(delta, "$select=lastname,emailaddress1&$deltatoken=") || !strings.Contains(delta, "%21") {
		t.Errorf("delta link %q", delta)
	}
	r = w.get(delta).must(200)
	if len(r.rows()) != 0 || r.json()["@odata.deltaLink"] == nil {
		t.Errorf("empty delta %s", r.body)
	}
	w.do("PATCH", "contacts("+ids[4]+")", `{"firstname":"Changed"}`).must(204)
	w.do("PATCH", "contacts("+ids[1]+")", `{"firstname":"Changed"}`).must(204)
	w.do("PATCH", "contacts("+ids[4]+")", `{"firstname":"Again"}`).must(204)
	w.do("DELETE", "contacts("+ids[0]+")", "").must(204)
	fresh := w.create("contacts", `{"lastname":"New"}`)
	brief := w.create("contacts", `{"lastname":"Brief"}`)
	w.do("DELETE", "contacts("+brief+")", "").must(204)
	if got := string(w.get(strings.Replace(delta, "contacts?$select=lastname,emailaddress1&", "contacts/$count?", 1)).must(200).body); got != "\ufeff5" {
		t.Errorf("count of changes %q", got)
	}
	r = w.get(delta).must(200)
	rows := r.rows()
	if r.json()["@odata.context"] != w.api+"$metadata#contacts(lastname,emailaddress1)/$delta" {
		t.Errorf("context %v", r.json()["@odata.context"])
	}
	if rows[0]["emailaddress1"] == nil || rows[0]["lastname"] == nil {
		t.Errorf("a changed row carries all selected columns: %v", rows[0])
	}
	gone := rows[len(rows)-1]
	if gone["@odata.context"] != w.api+"$metadata#contacts/$deletedEntity" || gone["reason"] != "deleted" {
		t.Errorf("deletion %v", gone)
	}
	got, _, next := w.pages(delta, "Prefer", "odata.maxpagesize=2")
	if diff := cmp.Diff([]string{ids[1], ids[4], fresh, "-" + ids[0], "-" + brief}, got); diff != "" {
		t.Error(diff)
	}
	if rest, _, _ := w.pages(next); len(rest) != 0 {
		t.Errorf("nothing changed, got %v", rest)
	}
	for _, option := range []string{"$filter=statecode%20eq%200", "$orderby=lastname", "$top=1", "$expand=parentcustomerid_account"} {
		w.get("contacts?$select=lastname&"+option, track...).refused(400, "0x80060888")
	}
	w.get("listmembers", track...).refused(400, "0x80072492")
	w.get("roles", track...).refused(400, "0x80072491")
	w.clock.Advance(6 * 24 * time.Hour)
	w.get(next).must(200)
	w.clock.Advance(25 * time.Hour)
	w.get(next).refused(400, "0x80044352")
}

func TestChangesDuringBaselineAreNotLost(t *testing.T) {
	w := newWorld(t)
	w.load(6)
	track := []string{"Prefer", "odata.track-changes,odata.maxpagesize=4"}
	first := w.get("contacts?$select=lastname", track...).must(200)
	early := first.rows()[0]["contactid"].(string)
	w.do("PATCH", "contacts("+early+")", `{"firstname":"Late edit"}`).must(204)
	_, _, delta := w.pages(first.json()["@odata.nextLink"].(string), track...)
	ids, _, _ := w.pages(delta)
	if diff := cmp.Diff([]string{early}, ids); diff != "" {
		t.Errorf("an edit between two baseline pages must be in the first delta: %s", diff)
	}
}

func TestVersionNumberFilter(t *testing.T) {
	w := newWorld(t)
	w.load(3000)
	var version int64
	fmt.Sscanf(w.get("contacts?$top=1&$orderby=versionnumber%20desc").rows()[0]["@odata.etag"].(string), `W/"%d"`, &version)
	id := w.create("contacts", `{"lastname":"New"}`)
	rows := w.get(fmt.Sprintf("contacts?$select=lastname&$filter=versionnumber%%20gt%%20%d", version)).must(200).rows()
	if len(rows) != 1 || rows[0]["contactid"] != id {
		t.Errorf("rows %v", rows)
	}
}

func TestReadFaults(t *testing.T) {
	w := newWorld(t)
	w.load(6)
	add := func(f fault.Fault) {
		t.Helper()
		if err := w.faults.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	const two = "odata.maxpagesize=3"
	add(fault.Fault{Twin: "dataverse", Kind: "page-dup", Count: 1})
	if ids, _, _ := w.pages("contacts?$select=lastname", "Prefer", two); len(ids) <= 6 || distinct(ids) != 6 {
		t.Errorf("page-dup: %d rows, %d distinct", len(ids), distinct(ids))
	}
	w.faults.Clear()
	for _, prefer := range []string{two, two + ",odata.track-changes"} {
		for variant, check := range map[string]func(next string, rows int) bool{
			"loop":  func(next string, rows int) bool { return next == w.api+"contacts?$select=lastname" && rows == 3 },
			"empty": func(next string, rows int) bool { return next == w.api+"contacts?$select=lastname" && rows == 0 },
			"host": func(next string, rows int) bool {
				return strings.HasPrefix(next, "https://elsewhere.invalid/api/data/v9.2/contacts?") && rows == 3
			},
		} {
			add(fault.Fault{Twin: "dataverse", Kind: "page-dup", Count: 1, Args: []byte(`{"variant":"` + variant + `"}`)})
			r := w.get("contacts?$select=lastname", "Prefer", prefer).must(200)
			if next, _ := r.json()["@odata.nextLink"].(string); !check(next, len(r.rows())) {
				t.Errorf("page-dup %s with %s: %s", variant, prefer, r.body)
			}
			w.faults.Clear()
		}
	}
	add(fault.Fault{Twin: "dataverse", Kind: "page-skip", Count: 1})
	if ids, _, _ := w.pages("contacts?$select=lastname", "Prefer", two); len(ids) != 5 {
		t.Errorf("page-skip: %d rows", len(ids))
	}
	w.faults.Clear()
	_, _, delta := w.pages("contacts?$select=lastname", "Prefer", "odata.track-changes")
	add(fault.Fault{Twin: "dataverse", Kind: "delta-expired", Count: 1})
	w.get(delta).refused(400, "0x80044352")
	w.get(delta).must(200)
	w.faults.Clear()
	add(fault.Fault{Twin: "dataverse", Kind: "page-drift", Count: 1, Args: []byte(`{"updates":1,"inserts":1,"deletes":1}`)})
	w.get(delta).must(200)
	if ids, _, _ := w.pages(delta); len(ids) != 3 {
		t.Errorf("page-drift: changes %v", ids)
	}
	w.faults.Clear()
	add(fault.Fault{Twin: "dataverse", Kind: "metadata-change", Count: 1, Args: []byte(`{"table":"contact","column":"jobtitle","change":"remove"}`)})
	w.get("contacts?$select=jobtitle").must(400)
	w.get(delta).refused(400, "0x80044352")
	w.do("POST", "contacts", `{"jobtitle":"CTO"}`).refused(400, "0x80048d19")
	w.faults.Clear()
	ids, _, _ := w.pages("contacts?$select=lastname")
	made := w.create("contacts", `{"lastname":"After the backup"}`)
	w.do("DELETE", "contacts("+ids[0]+")", "").must(204)
	add(fault.Fault{Twin: "dataverse", Kind: "env-restore", Count: 1, Args: []byte(`{"writes":2}`)})
	w.get("contacts("+made+")").refused(404, "0x80040217")
	w.get("contacts(" + ids[0] + ")").must(200)
}
