package solution

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// State is what an organization has of the components that we add.
type State struct {
	Publisher *PublisherState // nil = there is none
	Solution  *SolutionState
	Tables    map[string]*TableState // by logical name; missing = there is none
}

// PublisherState is our publisher as it is there.
type PublisherState struct{ ID, Prefix string }

// SolutionState is our solution as it is there.
type SolutionState struct {
	ID, Version, Publisher string
	Managed                bool
}

// TableState is a table as it is there. Of tables that are not ours only our columns
// are in it.
type TableState struct {
	ID, Set, Ownership string
	Tracked            bool
	Columns            map[string]ColumnState // by logical name
	Keys               map[string]KeyState
}

// ColumnState is a column as it is there.
type ColumnState struct {
	ID, Type, Behavior string
	Length             int
	Options            []int64
}

// The states of a key's index.
const (
	KeyActive = "Active"
	KeyFailed = "Failed"
)

// KeyState is a key as it is there.
type KeyState struct {
	ID, Status string
	Columns    []string
}

// Step is a step with the component that it is about.
type Step struct {
	lockstep.SchemaStep
	Of     *Table // the table, that of a column or key
	Column *Column
	Key    *Key
	Option *lockstep.Option // one that is missing in a column
	ID     string           // of what is there already
}

func step(action lockstep.SchemaAction, kind lockstep.SchemaKind, table, name, detail string) lockstep.SchemaStep {
	return lockstep.SchemaStep{Action: action, Kind: kind, Table: table, Name: name, Detail: detail}
}

func blocked(s lockstep.SchemaStep, problem, hint string) Step {
	s.Action, s.Problem, s.Hint = lockstep.SchemaBlocked, problem, hint
	return Step{SchemaStep: s}
}

// Plan returns what is missing or different. A column that a customer has made longer,
// or given further options or other labels, is left as it is.
func Plan(s *State) []Step {
	var out []Step
	add := func(st Step) { out = append(out, st) }
	publisher := step(lockstep.SchemaCreate, lockstep.SchemaPublisher, "", Publisher, "prefix "+Prefix)
	switch p := s.Publisher; {
	case p == nil:
		add(Step{SchemaStep: publisher})
	case p.Prefix != Prefix:
		add(blocked(publisher, fmt.Sprintf("the publisher %s has the prefix %q, not %q", Publisher, p.Prefix, Prefix), "give it this prefix, or rename it, in the organization's solutions"))
	}
	sol := step(lockstep.SchemaCreate, lockstep.SchemaSolution, "", Name, "unmanaged, version "+Version)
	begin := len(out)
	switch have := s.Solution; {
	case have == nil:
		add(Step{SchemaStep: sol})
	case have.Managed:
		// A managed solution takes no components; what it lacks comes with a newer
		// package.
	case s.Publisher != nil && have.Publisher != s.Publisher.ID:
		add(blocked(sol, "there is a solution "+Name+" of another publisher", "delete or rename it, if it is not needed"))
	}
	for i := range Tables {
		out = append(out, s.planTable(&Tables[i])...)
	}
	if have := s.Solution; have != nil && have.Managed {
		if len(out) > begin {
			return []Step{blocked(sol, "the organization has the managed solution "+Name+" "+have.Version+", and it lacks components of "+Version, "import the package of this version")}
		}
		return nil
	}
	if len(out) > 0 || s.Solution.Version != Version {
		add(Step{SchemaStep: step(lockstep.SchemaPublish, lockstep.SchemaSolution, "", Name, "version "+Version)})
	}
	return out
}

func (s *State) planTable(t *Table) (out []Step) {
	add := func(st Step) { st.Of = t; out = append(out, st) }
	have := s.Tables[t.Logical()]
	switch {
	case have == nil && t.Existing:
		return nil // an organization without the Sales app has no leads
	case have == nil:
		columns := make([]string, len(t.Columns))
		for i := range t.Columns {
			columns[i] = t.Columns[i].Logical()
		}
		add(Step{SchemaStep: step(lockstep.SchemaCreate, lockstep.SchemaTable, "", t.Logical(), t.Label+", with the columns "+strings.Join(columns, ", "))})
		have = &TableState{Ownership: userOwned, Tracked: true}
	default:
		if !t.Existing && have.Ownership != userOwned {
			add(blocked(step("", lockstep.SchemaTable, "", t.Logical(), ""), "the table is not owned by users or teams, and that cannot be changed", "delete the table, or install into another organization"))
			return out
		}
		if !t.Existing && !have.Tracked {
			add(Step{SchemaStep: step(lockstep.SchemaChange, lockstep.SchemaTable, "", t.Logical(), "switch change tracking on"), ID: have.ID})
		}
		for i := range t.Columns {
			for _, st := range planColumn(t, &t.Columns[i], have) {
				add(st)
			}
		}
	}
	for i := range t.Keys {
		for _, st := range planKey(t, &t.Keys[i], have) {
			add(st)
		}
	}
	return out
}

const userOwned = "UserOwned"

func planColumn(t *Table, c *Column, have *TableState) []Step {
	name := c.Logical()
	is, there := have.Columns[name]
	s := step(lockstep.SchemaCreate, lockstep.SchemaColumn, t.Logical(), name, c.words())
	switch {
	case !there:
		return []Step{{SchemaStep: s, Column: c}}
	case is.Type != string(c.Type):
		return []Step{blocked(s, fmt.Sprintf("the column is of the type %s, and a column's type cannot be changed", is.Type), "delete the column, if its values are not needed, and install again")}
	case c.Type == Moment && is.Behavior != TimeZoneIndependent:
		return []Step{blocked(s, fmt.Sprintf("the column's behaviour is %s, not %s", is.Behavior, TimeZoneIndependent), "delete the column, if its values are not needed, and install again")}
	case c.Type == Text && is.Length < c.Length:
		s.Action, s.Detail = lockstep.SchemaChange, fmt.Sprintf("lengthen from %d to %d characters", is.Length, c.Length)
		return []Step{{SchemaStep: s, Column: c, ID: is.ID}}
	case c.Type == Picklist:
		var out []Step
		for i, o := range c.Options {
			if slices.Contains(is.Options, o.Value) {
				continue
			}
			s.Action, s.Detail = lockstep.SchemaChange, fmt.Sprintf("add the option %d %s", o.Value, o.Label)
			out = append(out, Step{SchemaStep: s, Column: c, Option: &c.Options[i], ID: is.ID})
		}
		return out
	}
	return nil
}

// TimeZoneIndependent is the behaviour of dates and times that are the same for every
// user.
const TimeZoneIndependent = "TimeZoneIndependent"

func planKey(t *Table, k *Key, have *TableState) []Step {
	s := step(lockstep.SchemaCreate, lockstep.SchemaKey, t.Logical(), k.Logical(), strings.Join(k.Columns, ", "))
	is, there := have.Keys[k.Logical()]
	switch {
	case !there:
		return []Step{{SchemaStep: s, Key: k}}
	case !sameColumns(is.Columns, k.Columns):
		return []Step{blocked(s, "the key is of the columns "+strings.Join(is.Columns, ", "), "delete the key and install again")}
	case is.Status == KeyFailed:
		return []Step{blocked(s, "the index of the key could not be built: rows repeat the values of its columns", "delete the rows that are double, then activate the key again in the table's keys")}
	case is.Status != KeyActive:
		s.Action = lockstep.SchemaWait
		return []Step{{SchemaStep: s, Key: k, ID: is.ID}}
	}
	return nil
}

func sameColumns(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c string) bool { return !slices.Contains(b, c) })
}

// Removal returns what deleting our components takes, what depends on others last.
func Removal(s *State) []Step {
	var out []Step
	if s.Solution != nil && s.Solution.Managed {
		return []Step{blocked(step("", lockstep.SchemaSolution, "", Name, ""), "the solution was imported as a managed package", "delete the solution in the organization, which deletes what is in it")}
	}
	for i := range slices.Backward(Tables) {
		t := &Tables[i]
		have := s.Tables[t.Logical()]
		if have == nil {
			continue
		}
		if !t.Existing {
			out = append(out, Step{SchemaStep: step(lockstep.SchemaDelete, lockstep.SchemaTable, "", t.Logical(), t.Label+" and all its rows"), Of: t, ID: have.ID})
			continue
		}
		for j := range t.Columns {
			c := &t.Columns[j]
			if is, ok := have.Columns[c.Logical()]; ok {
				out = append(out, Step{SchemaStep: step(lockstep.SchemaDelete, lockstep.SchemaColumn, t.Logical(), c.Logical(), c.Label+" and all its values"), Of: t, Column: c, ID: is.ID})
			}
		}
	}
	if s.Solution != nil {
		out = append(out, Step{SchemaStep: step(lockstep.SchemaDelete, lockstep.SchemaSolution, "", Name, ""), ID: s.Solution.ID})
	}
	if s.Publisher != nil && s.Publisher.Prefix == Prefix {
		out = append(out, Step{SchemaStep: step(lockstep.SchemaDelete, lockstep.SchemaPublisher, "", Publisher, ""), ID: s.Publisher.ID})
	}
	return out
}
