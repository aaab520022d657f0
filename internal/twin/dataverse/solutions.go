package dataverse

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

var (
	customizationPrefix = regexp.MustCompile(`^[a-z][a-z0-9]{1,7}$`)
	uniqueName          = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	solutionVersion     = regexp.MustCompile(`^\d{1,9}(\.\d{1,9}){1,3}$`)
)

// Kinds of solution components.
const (
	entityComponent    = 1
	attributeComponent = 2
	relationComponent  = 10
	keyComponent       = 14
)

// completePublisher checks a publisher's names.
func (c *call) completePublisher(t *schema.Table, cells []store.Cell, old *store.Row) error {
	bad := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, codeInvalidArgument, format, args...)
	}
	prefix := cellOf(t, cells, "customizationprefix").Value.Text()
	if !customizationPrefix.MatchString(prefix) || strings.HasPrefix(prefix, "mscrm") {
		return bad("The customization prefix '%.20s' must have 2 to 8 letters and digits, begin with a letter and not with mscrm.", prefix)
	}
	if cellOf(t, cells, "customizationoptionvalueprefix").Value.IsNull() {
		return bad("The publisher has no customization option value prefix.")
	}
	return c.uniqueName(t, cells, old)
}

// completeSolution checks a solution's name and version.
func (c *call) completeSolution(t *schema.Table, cells []store.Cell, old *store.Row) error {
	if v := cellOf(t, cells, "version").Value.Text(); !solutionVersion.MatchString(v) {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The version '%.40s' is not of the form major.minor.build.revision.", v)
	}
	return c.uniqueName(t, cells, old)
}

func (c *call) uniqueName(t *schema.Table, cells []store.Cell, old *store.Row) error {
	ord := int(t.Column("uniquename").Ord)
	name := cells[ord].Value.Text()
	if !uniqueName.MatchString(name) {
		return fail(http.StatusBadRequest, codeInvalidArgument, "The unique name '%.80s' may hold letters, digits and underscores only.", name)
	}
	if old != nil && value.Equal(old.Value(ord), cells[ord].Value) {
		return nil
	}
	if c.byUniqueName(t, name) != nil {
		return fail(http.StatusPreconditionFailed, codeDuplicateRecord, "A %s with the unique name %s already exists.", t.Name, name)
	}
	return nil
}

// byUniqueName finds a publisher or solution by its unique name.
func (c *call) byUniqueName(t *schema.Table, name string) *store.Row {
	ord := int(t.Column("uniquename").Ord)
	for _, r := range c.view.Page(nil, t.Name, value.ID{}, 10_000) {
		if value.EqualFold(r.Value(ord).Text(), name) {
			return r
		}
	}
	return nil
}

// solution returns the id of the solution that a change of definitions is to belong
// to, the zero id without the header, and checks that the new component's name has
// the prefix of the solution's publisher.
func (c *call) solution(schemaName string) (value.ID, error) {
	name := c.header.Get("MSCRM.SolutionUniqueName")
	if name == "" {
		return value.ID{}, nil
	}
	solutions, publishers := c.sch.Table("solution"), c.sch.Table("publisher")
	row := c.byUniqueName(solutions, name)
	if row == nil {
		return value.ID{}, fail(http.StatusBadRequest, codeInvalidArgument, "The solution '%.80s' does not exist.", name)
	}
	if row.Value(int(solutions.Column("ismanaged").Ord)).Bool() {
		return value.ID{}, fail(http.StatusBadRequest, codeInvalidOperation, "The solution '%.80s' is managed and takes no components.", name)
	}
	publisher := c.view.Get(publishers.Name, row.Value(int(solutions.Column("publisherid").Ord)).GUID())
	if prefix := publisher.Value(int(publishers.Column("customizationprefix").Ord)).Text(); schemaName != "" && !strings.HasPrefix(strings.ToLower(schemaName), prefix+"_") {
		return value.ID{}, fail(http.StatusBadRequest, codeInvalidArgument, "The schema name '%.80s' does not begin with the prefix %s of the publisher of the solution %.80s.", schemaName, prefix, name)
	}
	return row.ID, nil
}

func componentID(solution value.ID, object [16]byte) value.ID {
	return value.ID(schema.NameID("solutioncomponent", solution.String(), id(object)))
}

// belong puts a component into a solution.
func (s *Server) belong(solution value.ID, object [16]byte, kind int) error {
	if solution.IsZero() {
		return nil
	}
	return s.platform(func(p *call) error {
		p.insert("solutioncomponent", componentID(solution, object), map[string]any{"solutionid": solution, "objectid": value.ID(object), "componenttype": kind, "rootcomponentbehavior": 0})
		return nil
	})
}

// leaveSolutions takes a deleted component out of every solution.
func (s *Server) leaveSolutions(object [16]byte) error {
	return s.platform(func(p *call) error { p.dropComponents("objectid", value.ID(object)); return nil })
}

// dropComponents deletes the component rows in which a column has a value.
func (c *call) dropComponents(column string, is value.ID) {
	t := c.sch.Table("solutioncomponent")
	ord := int(t.Column(column).Ord)
	for _, r := range c.view.Page(nil, t.Name, value.ID{}, 1_000_000) {
		if r.Value(ord).GUID() == is {
			c.tx.Delete(t.Name, r.ID)
		}
	}
}

// forgetSolution prepares the deletion of a publisher or solution: a publisher with
// solutions stays, the components of an unmanaged solution stay where they are.
func (c *call) forgetSolution(t *schema.Table, row *store.Row) error {
	if t.Name == "solution" {
		c.dropComponents("solutionid", row.ID)
		return nil
	}
	solutions := c.sch.Table("solution")
	ord := int(solutions.Column("publisherid").Ord)
	for _, r := range c.view.Page(nil, solutions.Name, value.ID{}, 10_000) {
		if r.Value(ord).GUID() == row.ID {
			return fail(http.StatusBadRequest, codeCannotDelete, "The publisher cannot be deleted because there are solutions of it.")
		}
	}
	return nil
}
