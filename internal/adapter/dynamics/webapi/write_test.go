package webapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

func TestWritesAreBulkCalls(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 1)) // learns the table
	if n := w.count(func() { w.write(c, "contact", people(1000, 1000)) }); n != 10 {
		t.Errorf("1,000 creates took %d calls, want 10", n)
	}
	var updates []lockstep.RecordWrite
	for _, i := range ids(1000, 1000) {
		updates = append(updates, lockstep.RecordWrite{ID: i, Fields: []lockstep.ColumnValue{{Column: "jobtitle", Value: lockstep.TextValue("CTO")}}})
	}
	if n := w.count(func() { w.write(c, "contact", updates) }); n != 10 {
		t.Errorf("1,000 updates took %d calls, want 10", n)
	}
	if n := w.count(func() { w.write(c, "contact", people(1000, 100)) }); n > 3 {
		t.Errorf("100 repeated creates took %d calls", n)
	}
	if n, err := c.CountRecords(t.Context(), "contact"); n != 1001 || err != nil {
		t.Errorf("%d records: %v", n, err)
	}
}

func TestOneBadRowOfAThousand(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 1))
	w.fault("row-poison", "", 0, fmt.Sprintf(`{"id":%q,"message":"Ask sales@example.com before you change this."}`, id(1500)))
	rows := people(1000, 1000)
	var results []*lockstep.Error
	var err error
	n := w.count(func() { results, err = c.WriteRecords(t.Context(), "contact", rows) })
	if err != nil || n > 35 {
		t.Fatalf("%d calls: %v", n, err)
	}
	bad := 0
	for i, e := range results {
		if e == nil {
			continue
		}
		bad++
		if rows[i].ID != id(1500) || e.Scope != lockstep.ScopeRecord || e.Upstream != "0x80040265" || !strings.Contains(e.Msg, "before you change") || strings.Contains(e.Error(), "@") {
			t.Errorf("row %d: %v (%s)", i, e, e.Upstream)
		}
	}
	if bad != 1 {
		t.Errorf("%d rows refused", bad)
	}
	if n, err := c.CountRecords(t.Context(), "contact"); n != 1000 || err != nil {
		t.Errorf("%d records, want 1,000: %v", n, err)
	}
}

func TestRefusedRows(t *testing.T) {
	for _, bulk := range []bool{true, false} {
		w := newWorld(t, options{})
		if err := w.org.SetBulkMessages("contact", bulk); err != nil {
			t.Fatal(err)
		}
		c := w.open()
		w.write(c, "contact", people(1, 3))
		set := func(n int, column string, v lockstep.Value) lockstep.RecordWrite {
			return lockstep.RecordWrite{ID: id(n), Fields: []lockstep.ColumnValue{{Column: column, Value: v}}}
		}
		results, err := c.WriteRecords(t.Context(), "contact", []lockstep.RecordWrite{
			set(1, "jobtitle", lockstep.TextValue("fits")),
			set(2, "jobtitle", lockstep.TextValue(strings.Repeat("x", 101))),
			set(99, "jobtitle", lockstep.TextValue("nobody")),
			set(3, "gendercode", lockstep.CanonicalValue(lockstep.Number, "77")),
			{ID: id(4), Create: true, Fields: []lockstep.ColumnValue{{Column: "nosuch", Value: lockstep.TextValue("x")}}},
			{ID: id(5), Create: true, Fields: []lockstep.ColumnValue{{Column: "gendercode", Value: lockstep.TextValue("male")}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range results {
			if e == nil {
				got = append(got, "written")
				continue
			}
			got = append(got, fmt.Sprint(e.Code, " ", e.Field, " ", e.Upstream, " ", e.Scope == lockstep.ScopeRecord))
		}
		want := []string{"written", "invalid jobtitle 0x80044331 true", "not_found  0x80040217 true", "invalid  0x8004431A true", "invalid nosuch  true", "invalid gendercode  true"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("bulk=%v\n%s", bulk, d)
		}
		if n, _ := c.CountRecords(t.Context(), "contact"); n != 3 {
			t.Errorf("bulk=%v: %d records: an update created one", bulk, n)
		}
	}
}

func TestWritesOfOneRecordKeepTheirOrder(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	rows := []lockstep.RecordWrite{person(1)}
	for i := range 5 {
		rows = append(rows, lockstep.RecordWrite{ID: id(1), Fields: []lockstep.ColumnValue{{Column: "jobtitle", Value: lockstep.TextValue(fmt.Sprint(i))}}})
	}
	w.write(c, "contact", rows)
	_ = c.Records(t.Context(), lockstep.RecordQuery{Table: "contact", Columns: []string{"jobtitle"}}, ids(1, 1), func(r []lockstep.Record) error {
		if r[0].Values[0].Text() != "4" {
			t.Errorf("jobtitle %v", r[0].Values[0])
		}
		return nil
	})
}

func TestBusyDatabase(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 1))
	w.fault("row-poison", "contact.create-multiple", 1, `{"code":"0x80044150","status":500}`)
	w.write(c, "contact", people(10, 40))
	if n, _ := c.CountRecords(t.Context(), "contact"); n != 41 {
		t.Errorf("%d records", n)
	}
}

// Every route that writes: the answer is lost after the work was done, and the
// effect is that of one call.
func TestLostAnswersOfWrites(t *testing.T) {
	for _, bulk := range []bool{true, false} {
		w := newWorld(t, options{})
		if err := w.org.SetBulkMessages("contact", bulk); err != nil {
			t.Fatal(err)
		}
		c := w.open()
		w.write(c, "contact", people(1, 1))
		list := w.newList("List", "contact", "")
		lose := func() { w.faults.Clear(); w.fault("ack-lost", "", 1, "") }
		lose()
		w.write(c, "contact", people(10, 30))
		lose()
		w.write(c, "contact", []lockstep.RecordWrite{
			{ID: id(10), Fields: []lockstep.ColumnValue{{Column: "jobtitle", Value: lockstep.TextValue("a")}}},
			{ID: id(11), Fields: []lockstep.ColumnValue{{Column: "jobtitle", Value: lockstep.TextValue("b")}}},
		})
		lose()
		written(t, 30)(c.AddMembers(t.Context(), list, "contact", ids(10, 30)))
		lose()
		written(t, 10)(c.RemoveMembers(t.Context(), list, ids(10, 10)))
		w.faults.Clear()
		if n, _ := c.CountRecords(t.Context(), "contact"); n != 31 {
			t.Errorf("bulk=%v: %d records, want 31", bulk, n)
		}
		if got := members(t, c, lockstep.MemberQuery{Lists: []lockstep.ID{list}}); len(got) != 20 {
			t.Errorf("bulk=%v: %d members, want 20", bulk, len(got))
		}
	}
}

func written(t *testing.T, n int) func([]*lockstep.Error, error) {
	return func(results []*lockstep.Error, err error) {
		t.Helper()
		if err != nil || len(results) != n {
			t.Fatalf("%d results: %v", len(results), err)
		}
		for i, e := range results {
			if e != nil {
				t.Fatalf("row %d: %v", i, e)
			}
		}
	}
}

func members(t *testing.T, c *Client, q lockstep.MemberQuery) (out []lockstep.ListMember) {
	t.Helper()
	if err := c.StaticMembers(t.Context(), q, func(m []lockstep.ListMember) error { out = append(out, m...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStaticLists(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	w.write(c, "contact", people(1, 1200))
	list := w.newList("Customers", "contact", "")
	other := w.newList("Others", "contact", "")
	if n := w.count(func() { written(t, 1200)(c.AddMembers(t.Context(), list, "contact", ids(1, 1200))) }); n != 2 {
		t.Errorf("1,200 members took %d calls, want 2", n)
	}
	written(t, 5)(c.AddMembers(t.Context(), list, "contact", ids(1, 5))) // again
	written(t, 2)(c.AddMembers(t.Context(), other, "contact", ids(1, 2)))
	got := members(t, c, lockstep.MemberQuery{Lists: []lockstep.ID{list}})
	if len(got) != 1200 || got[0].List != list || got[0].Version == 0 {
		t.Fatalf("%d members", len(got))
	}
	var newest int64
	for _, m := range got {
		newest = max(newest, m.Version)
	}
	if later := members(t, c, lockstep.MemberQuery{Lists: []lockstep.ID{list, other}, AfterVersion: newest}); len(later) != 2 || later[0].List != other {
		t.Errorf("after version %d: %v", newest, later)
	}
	c.pageRows = pageSize
	if n := w.count(func() { members(t, c, lockstep.MemberQuery{Lists: append(ids(5000, 30), list, other)}) }); n != 1 {
		t.Errorf("a sweep of 32 lists took %d calls, want 1", n)
	}
	if n := w.count(func() { written(t, 200)(c.RemoveMembers(t.Context(), list, ids(1, 200))) }); n != 2 {
		t.Errorf("200 removals took %d calls, want 2", n)
	}
	written(t, 3)(c.RemoveMembers(t.Context(), list, ids(1, 3))) // no members any more
	results, err := c.AddMembers(t.Context(), list, "contact", append(ids(1, 3), id(9999)))
	if err != nil || results[0] != nil || results[3] == nil || results[3].Scope != lockstep.ScopeRecord {
		t.Errorf("one missing record: %v %v", results, err)
	}
	if got := members(t, c, lockstep.MemberQuery{Lists: []lockstep.ID{list}}); len(got) != 1003 {
		t.Errorf("%d members, want 1,003", len(got))
	}
	if _, err := c.AddMembers(t.Context(), id(77777), "contact", ids(1, 3)); lockstep.CodeOf(err) != lockstep.CodeNotFound {
		t.Errorf("a list that is missing: %v", err)
	}
	w.post("PATCH", "lists("+list.String()+")", `{"lockstatus":true}`)
	if _, err := c.AddMembers(t.Context(), list, "contact", ids(1, 3)); err == nil || lockstep.AsError(err).Upstream != "0x80040302" {
		t.Errorf("a locked list: %v", err)
	}
	if _, err := c.RemoveMembers(t.Context(), list, ids(300, 3)); err == nil || lockstep.AsError(err).Upstream != "0x80040302" {
		t.Errorf("a locked list: %v", err)
	}
	lists, err := c.Lists(t.Context())
	if err != nil || len(lists) != 2 {
		t.Fatalf("%v %v", lists, err)
	}
	for _, l := range lists {
		if l.ID == list && (l.Name != "Customers" || l.MemberTable != "contact" || l.Dynamic || !l.Locked || l.Inactive || l.Members != 1003 || l.Modified.IsZero() || l.Version == 0) {
			t.Errorf("%+v", l)
		}
	}
}

func TestDynamicLists(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	rows := people(1, 140)
	for i := range rows {
		city := "London"
		if i%10 == 0 {
			city = "Bath & <Wells>"
		}
		rows[i].Fields = append(rows[i].Fields, lockstep.ColumnValue{Column: "address1_city", Value: lockstep.TextValue(city)})
	}
	w.write(c, "contact", rows)
	query := `<fetch version="1.0" top="3" mapping="logical"><entity name="contact"><attribute name="fullname"/><order attribute="fullname"/><filter type="and"><condition attribute="address1_city" operator="%s" value="Bath &amp; &lt;Wells&gt;"/></filter></entity></fetch>`
	few := w.newList("Few", "contact", fmt.Sprintf(query, "eq"))
	most := w.newList("Everybody", "contact", `<fetch><entity name="contact"><filter><condition attribute="lastname" operator="not-null"/></filter></entity></fetch>`)
	lists, err := c.Lists(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		seen := map[lockstep.ID]bool{}
		var err error
		n := w.count(func() {
			err = c.DynamicMembers(t.Context(), l, "", func(p lockstep.IDPage) error {
				for _, i := range p.IDs {
					seen[i] = true
				}
				return nil
			})
		})
		want, calls := 14, int64(1)
		if l.ID == most {
			want, calls = 140, 2
		}
		if err != nil || len(seen) != want || n != calls || !l.Dynamic {
			t.Errorf("%s: %d members in %d calls: %v", l.Name, len(seen), n, err)
		}
	}
	_ = few
	bad := lockstep.MarketingList{ID: id(1), MemberTable: "contact", Dynamic: true, Query: `<fetch><entity name="contact"><filter><condition attribute="nosuch" operator="eq" value="1"/></filter></entity></fetch>`}
	err = c.DynamicMembers(t.Context(), bad, "", func(lockstep.IDPage) error { return nil })
	if lockstep.CodeOf(err) != lockstep.CodeInvalid || lockstep.ScopeOf(err) == lockstep.ScopeConnection {
		t.Errorf("a deleted column: %v", err)
	}
	long := `<fetch><entity name="contact"><filter><condition attribute="lastname" operator="in">` + strings.Repeat("<value>somebody with a long name</value>", 700) + `<value>Last 7</value></condition></filter></entity></fetch>`
	got := 0
	if err := c.DynamicMembers(t.Context(), lockstep.MarketingList{MemberTable: "contact", Query: long}, "", func(p lockstep.IDPage) error { got += len(p.IDs); return nil }); err != nil || got != 1 {
		t.Errorf("a long query: %d members, %v", got, err)
	}
}

func TestQueries(t *testing.T) {
	entity := func(inner string) string { return `<fetch><entity name="contact">` + inner + `</entity></fetch>` }
	deep := strings.Repeat("<filter>", 70) + strings.Repeat("</filter>", 70)
	for name, q := range map[string]string{
		"empty": "", "number": "4711", "json": "{}", "not closed": "<fetch><entity name='contact'>", "other root": "<view/>", "other table": `<fetch><entity name="lead"/></fetch>`,
		"aggregate": `<fetch aggregate="true"><entity name="contact"/></fetch>`, "no entity": "<fetch/>", "doctype": `<!DOCTYPE fetch [<!ENTITY x SYSTEM "file:///etc/passwd">]><fetch><entity name="contact"><filter><condition attribute="a" operator="eq" value="&x;"/></filter></entity></fetch>`,
		"laughs": `<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><fetch><entity name="contact"/></fetch>`, "entity": entity(`<filter><condition attribute="a" operator="eq" value="&lol;"/></filter>`),
		"deep": entity(deep), "long": entity(strings.Repeat(" ", 1<<20)), "unknown filter": entity(`<filter><surprise/></filter>`), "two": `<fetch><entity name="contact"/></fetch><fetch/>`,
		"links": entity(strings.Repeat(`<link-entity name="account" from="a" to="b"/>`, 16)), "conditions": entity("<filter>" + strings.Repeat(`<condition attribute="a" operator="null"/>`, 501) + "</filter>"),
		"foreign": `<x:fetch xmlns:x="urn:x"><entity name="contact"/></x:fetch>`, "deep columns": entity(strings.Repeat("<a>", 70) + strings.Repeat("</a>", 70)),
	} {
		if _, err := parseFetch(q, "contact"); lockstep.CodeOf(err) != lockstep.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := &Client{}
	tables, volatile, err := c.QueryTables(lockstep.MarketingList{MemberTable: "contact", Query: entity(`<layout><cell/></layout><link-entity name="account" from="accountid" to="parentcustomerid"><attribute name="name"/><filter><condition attribute="name" operator="eq" value="x"/></filter><link-entity name="lead" from="a" to="b" link-type="outer"/></link-entity><link-entity name="account" from="x" to="y"/>`)})
	if err != nil || volatile || !cmp.Equal(tables, []string{"contact", "account", "lead"}) {
		t.Errorf("%v %v %v", tables, volatile, err)
	}
	for op, want := range map[string]bool{"eq": false, "last-x-days": true, "today": true, "olderthan-x-months": true, "eq-userid": true, "this-month": true, "next-seven-days": true, "on-or-after": false, "like": false, "last-week": true, "eq-businessid": true} {
		if _, v, err := c.QueryTables(lockstep.MarketingList{MemberTable: "contact", Query: entity(`<filter><filter type="or"><condition attribute="createdon" operator="` + op + `" value="3"/></filter></filter>`)}); v != want || err != nil {
			t.Errorf("%s: volatile %v %v", op, v, err)
		}
	}
}

// A table that cannot compare versions is written all the same; it is asked once.
func TestVersionsWhereATableHasNone(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	q := lockstep.RecordQuery{Table: "transactioncurrency", Columns: []string{"currencyname"}}
	records, _, err := read(t.Context(), c, q, "")
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, name := range []string{"Crowns", "Shillings"} {
		rows := []lockstep.RecordWrite{{ID: records[0].ID, Version: 1, Fields: []lockstep.ColumnValue{{Column: "currencyname", Value: lockstep.TextValue(name)}}}}
		n := w.count(func() { w.write(c, "transactioncurrency", rows) })
		if i == 1 && n != 1 {
			t.Errorf("the second write took %d calls", n)
		}
		if got, _, err := read(t.Context(), c, q, ""); err != nil || got[0].Values[0].Text() != name {
			t.Errorf("%v %v, want %s", got, err, name)
		}
	}
}
