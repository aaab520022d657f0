package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// applyPreview previews a run and applies the preview: what is written is exactly
// what was shown.
func (w *stage) applyPreview() {
	w.t.Helper()
	preview, err := w.app.RunToEnd(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	if err != nil {
		w.t.Fatal(err)
	}
	apply, err := w.app.ApplyPreview(w.t.Context(), preview.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	if apply, err = w.app.Wait(w.t.Context(), apply.ID); err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(w.changes(preview.ID), w.changes(apply.ID)); diff != "" {
		w.t.Errorf("previewed and written (-previewed +written):\n%s", diff)
	}
}

// Two people swap their addresses: it settles, and nobody's data ends up under the
// other's address.
func TestTwoPeopleSwapAddresses(t *testing.T) {
	for _, where := range []string{"crm", "platform"} {
		t.Run(where, func(t *testing.T) {
			w := newStage(t)
			l := w.list("One", "contact", lockstep.ActionRemove, "")
			ids := map[string]string{}
			for _, who := range []string{"ann", "ben"} {
				ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "City of " + who})
			}
			w.join(l, ids["ann"], ids["ben"])
			w.sync()
			if where == "crm" {
				w.editRecord("contact", ids["ann"], cols{"emailaddress1": "ben@stage.example"})
				w.editRecord("contact", ids["ben"], cols{"emailaddress1": "ann@stage.example"})
			} else {
				a, b := w.contact("ann@stage.example").ContactID, w.contact("ben@stage.example").ContactID
				w.readdress(a, "between@stage.example")
				w.readdress(b, "ann@stage.example")
				w.readdress(a, "ben@stage.example")
			}
			w.applyPreview()
			for range 2 {
				w.sync()
			}
			for _, who := range []string{"ann", "ben"} {
				r := w.record("contact", ids[who], "emailaddress1,jobtitle,address1_city,lastname")
				c := w.contact(r.str("emailaddress1"))
				got := []any{c.DataFields["JOBTITLE"], c.DataFields["CITY"], c.DataFields["LASTNAME"]}
				want := []any{"Job of " + who, "City of " + who, who}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s has the address %s (-want +got):\n%s", who, r.str("emailaddress1"), diff)
				}
				if r.str("jobtitle") != "Job of "+who {
					t.Errorf("%s's record is %v", who, r)
				}
			}
			a, b := w.record("contact", ids["ann"], "emailaddress1").str("emailaddress1"), w.record("contact", ids["ben"], "emailaddress1").str("emailaddress1")
			if a != "ben@stage.example" || b != "ann@stage.example" {
				t.Errorf("in the CRM Ann has %s and Ben %s", a, b)
			}
			w.wantIn("after the swap", l, "ann", "ben")
			w.quiet()
			w.editRecord("contact", ids["ann"], cols{"address1_city": "Elsewhere"})
			w.sync()
			if c := w.contact("ben@stage.example"); c.DataFields["CITY"] != "Elsewhere" {
				t.Errorf("an edit afterwards did not arrive: %+v", c)
			}
			if c := w.contact("ann@stage.example"); c.DataFields["CITY"] != "City of ben" {
				t.Errorf("an edit afterwards arrived at the wrong person: %+v", c)
			}
			w.quiet()
		})
	}
}

// An address is passed on: from one record to another, to a new record, and along a
// chain of three. Each contact keeps its own person.
func TestAddressPassedOn(t *testing.T) {
	w := newStage(t)
	l := w.list("One", "contact", lockstep.ActionRemove, "")
	ids := map[string]string{}
	for _, who := range []string{"ann", "ben", "cleo", "dora", "emil", "fay"} {
		ids[who] = w.cast("contact", who+"@stage.example", cols{"jobtitle": "Job of " + who, "address1_city": "City of " + who})
		w.join(l, ids[who])
	}
	w.sync()
	contact := map[string]int64{}
	for who := range ids {
		contact[who] = w.contact(who + "@stage.example").ContactID
	}
	now := map[string]string{"ann": "ben", "ben": "ben.new", // to another record
		"cleo": "cleo.new", "gus": "cleo", // to a new record
		"dora": "emil", "emil": "fay", "fay": "fay.new"} // along a chain
	ids["gus"] = w.cast("contact", "", cols{"lastname": "gus", "jobtitle": "Job of gus", "address1_city": "City of gus"})
	w.join(l, ids["gus"])
	for who, email := range now {
		w.editRecord("contact", ids[who], cols{"emailaddress1": email + "@stage.example"})
	}
	w.applyPreview()
	for range 2 {
		w.sync()
	}
	for who, email := range now {
		r := w.record("contact", ids[who], "emailaddress1,jobtitle,address1_city,lastname")
		c := w.contact(email + "@stage.example")
		got := []any{r.str("emailaddress1"), r.str("jobtitle"), c.DataFields["JOBTITLE"], c.DataFields["CITY"], c.DataFields["LASTNAME"]}
		want := []any{email + "@stage.example", "Job of " + who, "Job of " + who, "City of " + who, who}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s has the address %s (-want +got):\n%s", who, email, diff)
		}
		if contact[who] != 0 && c.ContactID != contact[who] {
			t.Errorf("%s was contact %d and is %d", who, contact[who], c.ContactID)
		}
	}
	w.wantIn("afterwards", l, "ben", "ben.new", "cleo", "cleo.new", "emil", "fay", "fay.new")
	w.quiet()
}
