package prove

import (
	"encoding/json"
	"fmt"

	"github.com/lockstep-sync/lockstep"
)

// setupActions change what the two systems are made of, behind the product's back, and
// what the product maps. None of it may stop what it does not touch.
var setupActions = []action{
	{"rename a mapped column, or back", 1, func(w *people) string {
		from, to := "address1_country", "address1_land"
		if w.renamed {
			from, to = to, from
		}
		w.alter(cols{"table": "contact", "column": from, "change": "rename", "to": to})
		w.renamed = !w.renamed
		return fmt.Sprintf("the column %s of contacts is called %s", from, to)
	}, false},
	{"map what never fits, or end that", 1, func(w *people) string {
		if w.during {
			return ""
		}
		all, err := w.app.Mappings(w.ctx, w.account)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, m := range all {
			if m.Label == misfit {
				return fmt.Sprintf("%s is not mapped any more: %v", misfit, w.app.DeleteMapping(w.ctx, m.ID))
			}
		}
		_, err = w.app.SaveMapping(w.ctx, lockstep.DataMapping{Account: w.account, Label: misfit, Table: "contact", Direction: lockstep.ToPlatform, Column: "lastname"})
		return fmt.Sprintf("%s is mapped: %v", misfit, err)
	}, false},
}

// misfit is a data field for numbers. The names that a mapping fills it with are none.
const misfit = "SCORE"

// alter changes the schema of the CRM, as an administrator does.
func (s *sim) alter(change cols) {
	args, err := json.Marshal(change)
	if err != nil {
		s.t.Fatal(err)
	}
	was := s.injector.current
	s.injector.current = &hit{kind: "metadata-change", args: args}
	defer func() { s.injector.current = was }()
	s.crm("GET", "WhoAmI()", nil, nil)
}
