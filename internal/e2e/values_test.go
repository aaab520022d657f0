package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// Texts of all kinds arrive letter by letter, in both directions.
func TestTextsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	texts := []string{
		"Ærøskøbing", "日本語の肩書き", "𝔐𝔞𝔱𝔥 𠜎𠜱", "👩🏽‍🚀 in orbit 🇳🇴", "مدير المبيعات", "שלום – mixed abc", "e\u0301 and é", "tab\tand \"quotes\" \\ and, commas; 'single'",
		"<script>alert(1)</script> &amp; {{x}} [[ALL]]", "=1+1", "null", "0", "false", "   padded", strings.Repeat("ä", 100), strings.Repeat("🦊", 50),
	}
	ids := make([]string, len(texts))
	email := func(i int) string { return "t" + string(rune('a'+i)) + "@stage.example" }
	for i, text := range texts {
		ids[i] = w.cast("contact", email(i), cols{"jobtitle": text})
		w.join(l, ids[i])
	}
	w.sync()
	for i, text := range texts {
		if got := w.field(email(i), "JOBTITLE"); got != text {
			t.Errorf("to the platform: %q became %q", text, got)
		}
		w.editContact(email(i), cols{"FIRSTNAME": first(text, 50)})
	}
	w.sync()
	for i, text := range texts {
		if got := w.record("contact", ids[i], "firstname").str("firstname"); got != first(text, 50) {
			t.Errorf("to the CRM: %q became %q", first(text, 50), got)
		}
	}
	w.sync() // full names follow
	w.quiet()
}

// first cuts a text to n UTF-16 units, as the CRM counts them, at a letter.
func first(s string, n int) string {
	units := 0
	for i, r := range s {
		size := 1
		if r > 0xffff {
			size = 2
		}
		if units+size > n {
			return s[:i]
		}
		units += size
	}
	return s
}

// Numbers, dates, choices and yes/no keep their exact value in both directions; what
// the CRM's column cannot hold is told and leaves the record as it was, and the rest
// of the record goes on.
func TestTypedValuesTravelExactly(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	w.labels(map[string]lockstep.FieldType{
		"CHILDREN": lockstep.FieldNumber, "CREDIT": lockstep.FieldNumber, "SINCE": lockstep.FieldDate,
		"ON_HOLD": lockstep.FieldBool, "FAMILY": lockstep.FieldText, "FAX": lockstep.FieldText, "PAGER": lockstep.FieldText,
	})
	for label, column := range map[string]string{
		"CHILDREN": "numberofchildren", "CREDIT": "creditlimit", "SINCE": "anniversary", "ON_HOLD": "creditonhold",
		"FAMILY": "familystatuscode", "FAX": "fax",
	} {
		w.twoWay(label, column)
	}
	w.twoWay("PAGER", "pager", func(m *lockstep.DataMapping) { m.Truncate = true })
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{
		"numberofchildren": 3, "creditlimit": 1234567.89, "anniversary": "1999-12-31", "creditonhold": false,
		"familystatuscode": 4, "fax": "1", "pager": "1",
	})
	w.join(l, ann)
	w.sync()
	c := rec(w.contact("ann@stage.example").DataFields)
	for label, want := range map[string]string{"CHILDREN": "3", "CREDIT": "1234567.8900", "ON_HOLD": "false", "FAMILY": "Widowed"} {
		if got := c.str(label); got != want {
			t.Errorf("to the platform: %s is %q, want %q", label, got, want)
		}
	}
	if got := c.str("SINCE"); !strings.HasPrefix(got, "1999-12-31T00:00:00") {
		t.Errorf("to the platform: SINCE is %q", got)
	}
	columns := "numberofchildren,creditlimit,anniversary,creditonhold,familystatuscode,fax,pager,firstname"
	check := func(when string, want map[string]string) {
		t.Helper()
		r := w.record("contact", ann, columns)
		for column, v := range want {
			if got := r.str(column); got != v {
				t.Errorf("%s: %s is %q, want %q", when, column, got, v)
			}
		}
	}
	w.editContact("ann@stage.example", cols{"CHILDREN": 0, "CREDIT": 0.01, "SINCE": "2000-02-29T00:00:00", "ON_HOLD": true, "FAMILY": " married ", "FAX": strings.Repeat("9", 50), "PAGER": strings.Repeat("7", 60)})
	w.sync()
	fits := map[string]string{
		"numberofchildren": "0", "creditlimit": "0.0100", "anniversary": "2000-02-29", "creditonhold": "true", "familystatuscode": "2",
		"fax": strings.Repeat("9", 50), "pager": strings.Repeat("7", 50),
	}
	check("what fits", fits)
	w.quiet()
	if got := w.field("ann@stage.example", "PAGER"); got != strings.Repeat("7", 60) {
		t.Errorf("cutting for the CRM changed the platform's text to %q", got)
	}
	// Nothing of this fits.
	w.editContact("ann@stage.example", cols{"CHILDREN": 2.5, "CREDIT": 1e15, "FAMILY": "Complicated", "FAX": strings.Repeat("9", 51), "FIRSTNAME": "Ann"})
	run := w.sync()
	fits["firstname"] = "Ann"
	check("what does not fit", fits)
	told := map[string]string{}
	for _, f := range w.findings(run) {
		if f.Record.String() == ann {
			told[f.Field] = f.Code
		}
	}
	for field, code := range map[string]string{"CHILDREN": lockstep.FindingConversion, "CREDIT": lockstep.FindingConversion, "FAMILY": lockstep.FindingConversion, "FAX": lockstep.FindingTooLong} {
		if told[field] != code {
			t.Errorf("about %s somebody was told %q, want %q", field, told[field], code)
		}
	}
	w.sync()
	w.quiet()
	w.editContact("ann@stage.example", cols{"CHILDREN": 2, "CREDIT": 100, "FAMILY": "Single", "FAX": "short"})
	w.sync()
	check("corrected", map[string]string{"numberofchildren": "2", "creditlimit": "100", "familystatuscode": "1", "fax": "short", "firstname": "Ann"})
	w.quiet()
}

// A mapping made later fills the field of everybody who is in a list.
func TestNewMappingFillsTheField(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	for _, who := range []string{"ann", "ben", "cleo"} {
		w.join(l, w.cast("contact", who+"@stage.example", cols{"nickname": "Nick " + who}))
	}
	w.sync()
	w.quiet()
	w.labels(map[string]lockstep.FieldType{"NICK": lockstep.FieldText})
	w.editContact("cleo@stage.example", cols{"NICK": "Her own"})
	w.twoWay("NICK", "nickname")
	before := w.state()
	w.sync()
	for _, who := range []string{"ann", "ben", "cleo"} {
		if got := w.field(who+"@stage.example", "NICK"); got != "Nick "+who {
			t.Errorf("%s has NICK %q", who, got)
		}
	}
	for _, c := range changed(before, w.state()) {
		if !strings.Contains(c, "NICK") {
			t.Errorf("changed as well: %s", c)
		}
	}
	w.quiet()
	w.editContact("ann@stage.example", cols{"NICK": "Annie"})
	w.sync()
	for _, r := range w.people("contact") {
		if r.str("emailaddress1") == "ann@stage.example" {
			if got := w.record("contact", r.str("contactid"), "nickname").str("nickname"); got != "Annie" {
				t.Errorf("the CRM has %q", got)
			}
		}
	}
	w.quiet()
}

// alter changes the CRM's metadata behind the product's back.
func (w *stage) alter(args string) {
	w.t.Helper()
	if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dataverse, Kind: "metadata-change", Count: 1, Args: json.RawMessage(args)}); err != nil {
		w.t.Fatal(err)
	}
	w.crm("GET", "WhoAmI", nil, nil)
}

// A mapped column that is deleted in the CRM suspends its mappings, with a finding;
// the others go on, and what was written stays.
func TestMappedColumnDeleted(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot", "address1_city": "Oslo"})
	w.join(l, ann)
	w.sync()
	w.alter(`{"table":"contact","column":"jobtitle","change":"remove"}`)
	w.crm("PATCH", "contacts("+ann+")", cols{"address1_city": "Bergen"}, nil)
	run := w.run(lockstep.SyncCRMMetadata)
	told := 0
	for _, f := range w.findings(run) {
		if f.Code == lockstep.FindingMappingDisabled && f.Field == "jobtitle" {
			told++
		}
	}
	if told == 0 {
		t.Error("nobody was told")
	}
	w.sync()
	c := w.contact("ann@stage.example")
	if c.DataFields["CITY"] != "Bergen" || c.DataFields["JOBTITLE"] != "Pilot" {
		t.Errorf("the contact is %v", c.DataFields)
	}
	mappings, err := w.app.Mappings(t.Context(), w.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mappings {
		if (m.Disabled != "") != (m.Table == "contact" && m.Column == "jobtitle") {
			t.Errorf("mapping %s %s %s: disabled %q", m.Label, m.Table, m.Column, m.Disabled)
		}
	}
	w.sync()
	w.resetCalls()
	if run := w.sync(); run.Counts.Written != 0 || writes(w.calls("dotdigital")) != 0 {
		t.Errorf("not quiet: %+v", run.Counts)
	}
}

// A text column that was shortened takes what fits and refuses the rest with a
// finding.
func TestMappedColumnShortened(t *testing.T) {
	t.Parallel()
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionIgnore, "")
	ann := w.cast("contact", "ann@stage.example", cols{"jobtitle": "Pilot"})
	w.join(l, ann)
	w.sync()
	w.alter(`{"table":"contact","column":"jobtitle","change":"max-length","max_length":10}`)
	w.editContact("ann@stage.example", cols{"JOBTITLE": "Longer than ten", "FIRSTNAME": "Ann"})
	run := w.sync() // the metadata is not known to have changed
	w.told(run, lockstep.FindingRejected, ann)
	w.run(lockstep.SyncCRMMetadata)
	run = w.sync()
	w.told(run, lockstep.FindingTooLong, ann)
	w.sync()
	if r := w.record("contact", ann, "jobtitle,firstname"); r.str("jobtitle") != "Pilot" || r.str("firstname") != "Ann" {
		t.Errorf("the record is %v", r)
	}
	w.editContact("ann@stage.example", cols{"JOBTITLE": "Short"})
	w.sync()
	if got := w.record("contact", ann, "jobtitle").str("jobtitle"); got != "Short" {
		t.Errorf("the record has %q", got)
	}
	w.sync()
	w.quiet()
}
