package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// A counter of either side that keeps differing from what can be read is told once it
// has done so twice, and the runs after that do not read everything again for it.
func TestCounterThatDiffers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, twin, operation, says, reads string }{
		{"list", fault.Dataverse, "list.read", "the CRM counts", "listmember.read"},
		{"address book", fault.Dotdigital, "address-books.list", "the platform counts", "contacts.list"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 300, Seed: 3, Plain: true}})
			w.sync()
			var list lockstep.ListSettings
			lists, err := w.app.Lists(t.Context(), w.account.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range lists {
				if !l.Dynamic && l.Activated && list.ID == "" {
					list = l
				}
			}
			var body any
			if tc.twin == fault.Dataverse {
				var page struct {
					Value []map[string]any `json:"value"`
				}
				w.crm("GET", "lists", nil, &page)
				for _, l := range page.Value {
					if l["listid"] == list.CRMID.String() {
						l["membercount"] = l["membercount"].(float64) + 3
					}
				}
				body = page
			} else {
				var books []map[string]any
				w.mail("GET", "/v2/address-books?select=1000", nil, &books)
				for _, b := range books {
					if fmt.Sprint(b["id"]) == string(list.Book) {
						b["contacts"] = b["contacts"].(float64) + 2
					}
				}
				body = books
			}
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			w.answer(tc.twin, tc.operation, string(b), 0)
			var reads []int64
			for run := 1; run <= 3; run++ {
				w.resetCalls()
				r := w.sync()
				findings, err := w.app.Findings(t.Context(), r.ID, "", 100)
				if err != nil {
					t.Fatal(err)
				}
				told := false
				for _, f := range findings {
					told = told || f.Code == lockstep.FindingMiscount && strings.Contains(f.Message, tc.says)
				}
				if told != (run == 2) {
					t.Errorf("run %d: told %t: %+v", run, told, findings)
				}
				reads = append(reads, w.calls(tc.twin)[tc.reads])
			}
			if reads[2] >= reads[0] {
				t.Errorf("calls of %s in each run: %v", tc.reads, reads)
			}
		})
	}
}
