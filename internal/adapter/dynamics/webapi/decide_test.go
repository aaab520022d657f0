package webapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
)

// A list that is decided from the records has the members that the service finds.
func TestDecideMembers(t *testing.T) {
	w := newWorld(t, options{})
	c := w.open()
	rows := people(1, 30)
	w.write(c, "contact", rows)
	for i := 0; i < len(rows); i += 3 {
		w.post("PATCH", "contacts("+rows[i].ID.String()+")", `{"statecode":1,"statuscode":2}`)
	}
	q := func(inner string) lockstep.MarketingList {
		return lockstep.MarketingList{MemberTable: "contact", Dynamic: true, Query: `<fetch><entity name="contact">` + inner + `</entity></fetch>`}
	}
	const active, inactive = `<condition attribute="statecode" operator="eq" value="0"/>`, `<condition attribute="statecode" operator="ne" value="0"/>`
	var records []lockstep.Record
	if _, err := c.Changes(t.Context(), lockstep.RecordQuery{Table: "contact"}, "", func(p lockstep.RecordPage) error {
		records = append(records, p.Records...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		inner string
		n     int
	}{
		{"", 30},
		{`<attribute name="fullname"/><order attribute="fullname"/><filter type="and">` + active + `</filter>`, 20},
		{`<filter><condition attribute="statecode" operator="in"><value>0</value></condition></filter>`, 20},
		{`<filter>` + inactive + `</filter>`, 10},
		{`<filter type="or">` + inactive + active + `</filter>`, 30},
		{`<filter type="and">` + inactive + active + `</filter>`, 0},
		{`<filter>` + active + `</filter><filter>` + inactive + `</filter>`, 0},
		{`<filter type="or"><filter>` + active + inactive + `</filter>` + inactive + `</filter>`, 10},
	} {
		list := q(tc.inner)
		decide := c.DecideMembers(list)
		if decide == nil {
			t.Errorf("not decided: %s", tc.inner)
			continue
		}
		decided, evaluated := map[lockstep.ID]bool{}, map[lockstep.ID]bool{}
		for i := range records {
			if decide(&records[i]) {
				decided[records[i].ID] = true
			}
		}
		if err := c.DynamicMembers(t.Context(), list, "", func(p lockstep.IDPage) error {
			for _, i := range p.IDs {
				evaluated[i] = true
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(decided, evaluated) || len(decided) != tc.n {
			t.Errorf("%s: %d members, not %d: the service finds %d", tc.inner, len(decided), tc.n, len(evaluated))
		}
		if decide(&lockstep.Record{Deleted: true}) {
			t.Errorf("%s: a deleted record is a member", tc.inner)
		}
	}
	for _, inner := range []string{
		`<filter><condition attribute="address1_city" operator="eq" value="London"/></filter>`,
		`<filter>` + active + `<condition attribute="emailaddress1" operator="not-null"/></filter>`,
		`<filter>` + active + `<condition attribute="createdon" operator="last-x-days" value="3"/></filter>`,
		`<filter><condition attribute="donotbulkemail" operator="eq" value="0"/></filter>`,
		`<filter><condition attribute="statecode" operator="eq" value="1"/></filter>`,
		`<filter><condition attribute="statecode" operator="in"><value>0</value><value>1</value></condition></filter>`,
		`<filter><condition entityname="other" attribute="statecode" operator="eq" value="0"/></filter>`,
		`<filter><condition attribute="statecode" operator="eq" valueof="statuscode"/></filter>`,
		`<filter isquickfindfields="1">` + active + `</filter>`,
		`<filter type="nor">` + active + `</filter>`,
		`<filter></filter>`,
		`<filter>` + active + `<link-entity name="account" from="accountid" to="parentcustomerid" link-type="any"/></filter>`,
		`<link-entity name="account" from="accountid" to="parentcustomerid"/><filter>` + active + `</filter>`,
	} {
		if c.DecideMembers(q(inner)) != nil {
			t.Errorf("decided: %s", inner)
		}
	}
	if c.DecideMembers(lockstep.MarketingList{MemberTable: "contact", Query: "<view/>"}) != nil {
		t.Error("decided a query that is none")
	}
}
