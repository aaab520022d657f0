package webapi

import (
	"context"
	"net/http"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/solution"
)

// PlanSchemaRemoval names what is deleted and counts the rows that are lost.
func (c *Client) PlanSchemaRemoval(ctx context.Context) ([]lockstep.SchemaStep, error) {
	state, err := c.readSchema(ctx)
	if err != nil {
		return nil, schemaError(err)
	}
	steps := solution.Removal(state)
	for i := range steps {
		s := &steps[i]
		if s.Of == nil || s.Action != lockstep.SchemaDelete {
			continue
		}
		if s.Rows, err = c.rowsWith(ctx, s, state.Tables[s.Of.Logical()].Set); err != nil {
			return nil, schemaError(err)
		}
	}
	return schemaSteps(steps), nil
}

// maxCounted is where the service stops to count on the spot.
const maxCounted = 5000

// rowsWith counts the rows that a deletion takes something from. A table with more
// than the service counts on the spot is told by its daily count.
func (c *Client) rowsWith(ctx context.Context, s *solution.Step, set string) (int64, error) {
	op := "count rows of " + s.Of.Logical()
	path := set + "?$select=" + s.Of.Logical() + "id&$count=true&$top=1"
	if s.Column != nil {
		path += "&$filter=" + s.Column.Logical() + "%20ne%20null"
	}
	text, err := c.get(ctx, op, "/"+set, path)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Count *int64 `json:"@odata.count"`
	}
	if !decodeJSON(text, &answer) || answer.Count == nil {
		return 0, garbled(op)
	}
	if *answer.Count < maxCounted {
		return *answer.Count, nil
	}
	if s.Column != nil {
		s.Detail += "; at least so many rows, Dynamics counts no further"
		return *answer.Count, nil
	}
	n, err := c.CountRecords(ctx, s.Of.Logical())
	return max(n, *answer.Count), err
}

// RemoveSchema deletes our components, whatever is in them. It can be stopped and
// begun again.
func (c *Client) RemoveSchema(ctx context.Context, each func(lockstep.SchemaStep) error) error {
	state, err := c.readSchema(ctx)
	if err != nil {
		return schemaError(err)
	}
	in := &installer{c: c, state: state, each: each}
	defer c.forgetSchema()
	for _, s := range solution.Removal(state) {
		if s.Action == lockstep.SchemaBlocked {
			return &lockstep.Error{Code: lockstep.CodeConflict, Op: "dynamics: remove our tables", Scope: lockstep.ScopeBatch, Msg: s.SchemaStep.String(), Hint: s.Hint}
		}
		if err := each(s.SchemaStep); err != nil {
			return err
		}
		if err := in.drop(ctx, s); err != nil && lockstep.CodeOf(err) != lockstep.CodeNotFound {
			return schemaError(err)
		}
	}
	return nil
}

func (in *installer) drop(ctx context.Context, s solution.Step) error {
	path, route := "", "/EntityDefinitions"
	switch s.Kind {
	case lockstep.SchemaTable:
		path = "EntityDefinitions(" + s.ID + ")"
	case lockstep.SchemaColumn:
		path = definition(s.Of) + "/Attributes(" + s.ID + ")"
	case lockstep.SchemaSolution:
		path, route = "solutions("+s.ID+")", "/solutions"
	case lockstep.SchemaPublisher:
		path, route = "publishers("+s.ID+")", "/publishers"
	}
	return in.change(ctx, s.SchemaStep.String(), request{method: http.MethodDelete, target: path, route: route, repeatable: true})
}
