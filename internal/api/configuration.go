package api

import (
	"context"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/configuration"
)

const tagConfiguration = "Configuration"

// schemaName names a schema after its type; the parts of a configuration are called as
// other things are.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.PkgPath() == reflect.TypeFor[configuration.Document]().PkgPath() && !strings.HasPrefix(name, tagConfiguration) {
		return tagConfiguration + name
	}
	return name
}

type configurationPlan struct {
	Body struct {
		Document configuration.Document `json:"document"`
		Account  string                 `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account that a document of one account is about, in place of the one that it names."`
	}
}

type configurationApply struct {
	Body struct {
		Document configuration.Document `json:"document"`
		Account  string                 `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account that a document of one account is about, in place of the one that it names."`
		Plan     string                 `json:"plan,omitempty" maxLength:"80" doc:"Fingerprint of the plan that was looked at: 409 when what it shows is not what would be done any more."`
	}
}

func (s *server) configuration() {
	show := operation("show-configuration", http.MethodGet, "/configuration", tagConfiguration, "Everything that was decided for the email accounts, as one document")
	show.Description = "Without secrets, connections, address books, and ids, except those of marketing lists that share a name. The same configuration gives the same document."
	handle(s, show, func(ctx context.Context, in *InAccount) (*oneOut[configuration.Document], error) {
		return one(s.app.Configuration(ctx, in.Account))
	})
	plan := operation("plan-configuration", http.MethodPost, "/configuration/plan", tagConfiguration, "What applying a document would change; nothing is written", withBody...)
	plan.Description = "A section that is absent is left alone. Labels, mappings and schedules that are present are the whole truth: what is not among them is deleted, and a schedule goes back to its default. " +
		"Lists, and settings that are not named, stay. Every problem is told with its path in the document."
	plan.Metadata["scope"] = app.ScopeRead
	handle(s, plan, func(ctx context.Context, in *configurationPlan) (*oneOut[app.ConfigurationPlan], error) {
		return one(s.app.PlanConfiguration(ctx, in.Body.Document, in.Body.Account))
	})
	apply := operation("apply-configuration", http.MethodPost, "/configuration/apply", tagConfiguration, "Change the configuration to what a document says, all of it or nothing", withBody...)
	apply.Description = "Answers with the changes that were made; they are those of the plan of the same document."
	handle(s, apply, func(ctx context.Context, in *configurationApply) (*oneOut[app.ConfigurationPlan], error) {
		return one(s.app.ApplyConfiguration(ctx, in.Body.Document, in.Body.Account, in.Body.Plan))
	})
}
