package api

import (
	"context"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagSchema = "Tables in the CRM"

// schemaTime is how long one call changes the schema of an organization: then it
// answers, and the caller calls again.
const schemaTime = 45 * time.Second

type schemaPlan struct {
	Installed bool                  `json:"installed" doc:"Nothing is missing."`
	Steps     []lockstep.SchemaStep `json:"steps"`
}

type schemaRemoval struct {
	Steps   []lockstep.SchemaStep `json:"steps" doc:"What would be deleted; rows is how many rows lose something."`
	Confirm string                `json:"confirm" doc:"Give it back to carry this out."`
}

type schemaChanged struct {
	app.SchemaProgress
	Run string `json:"run,omitempty" doc:"The run that reads the tables anew, once nothing is left."`
}

func (s *server) schema() {
	handle(s, operation("plan-schema", http.MethodGet, "/organizations/{id}/schema", tagSchema, "What installing our tables and columns would add to the organization", http.StatusNotImplemented),
		func(ctx context.Context, in *ByID) (*oneOut[schemaPlan], error) {
			steps, err := s.app.PlanSchema(ctx, in.ID)
			if steps == nil {
				steps = []lockstep.SchemaStep{}
			}
			return one(schemaPlan{Installed: err == nil && len(steps) == 0, Steps: steps}, err)
		})
	install := operation("install-schema", http.MethodPost, "/organizations/{id}/schema", tagSchema, "Add our tables and columns to the organization", http.StatusConflict, http.StatusNotImplemented)
	install.Description = "Answers after about a minute at most. While left is not empty, call again; what is there already is not touched."
	handle(s, install, func(ctx context.Context, in *ByID) (*oneOut[schemaChanged], error) {
		done, err := s.app.InstallSchema(ctx, in.ID, schemaTime)
		return s.schemaChanged(ctx, in.ID, done, err)
	})
	handle(s, operation("plan-schema-removal", http.MethodGet, "/organizations/{id}/schema/removal", tagSchema, "What removing our tables and columns would delete", http.StatusNotImplemented),
		func(ctx context.Context, in *ByID) (*oneOut[schemaRemoval], error) {
			steps, confirm, err := s.app.PlanSchemaRemoval(ctx, in.ID)
			if steps == nil {
				steps = []lockstep.SchemaStep{}
			}
			return one(schemaRemoval{Steps: steps, Confirm: confirm}, err)
		})
	remove := operation("remove-schema", http.MethodPost, "/organizations/{id}/schema/removal", tagSchema, "Delete our tables and columns with everything in them", append([]int{http.StatusNotImplemented}, withBody...)...)
	remove.Description = "Answers after about a minute at most. While left is not empty, call again with the confirm of the answer."
	handle(s, remove, func(ctx context.Context, in *struct {
		ByID
		Body struct {
			Confirm string `json:"confirm" maxLength:"80" doc:"confirm of the plan of the removal."`
		}
	},
	) (*oneOut[schemaChanged], error) {
		done, err := s.app.RemoveSchema(ctx, in.ID, in.Body.Confirm, schemaTime)
		return s.schemaChanged(ctx, in.ID, done, err)
	})
}

// schemaChanged has the tables read anew once the last step is taken.
func (s *server) schemaChanged(ctx context.Context, organization string, done app.SchemaProgress, err error) (*oneOut[schemaChanged], error) {
	out := schemaChanged{SchemaProgress: done}
	if err == nil && len(done.Left) == 0 && len(done.Taken) > 0 {
		var run lockstep.Run
		run, err = s.app.RefreshMetadata(ctx, organization)
		out.Run = run.ID
	}
	return one(out, err)
}
