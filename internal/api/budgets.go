package api

import (
	"context"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagBudgets = "Budgets"

// InConnection names a connection.
type InConnection struct {
	ID string `path:"id" maxLength:"200" doc:"Id of the organization or email account."`
}

type budgetHours struct {
	InConnection
	Since time.Time `query:"since" doc:"From when on; a day ago when left out. Calls are counted for as long as the audit is kept."`
}

type budgetPatch struct {
	InConnection
	Body struct {
		PerHour *int `json:"per_hour,omitempty" doc:"The most calls in any 60 minutes; 0 = none but what the service grants."`
		PerDay  *int `json:"per_day,omitempty" doc:"The most calls in any 24 hours; 0 = none."`
	}
}

func (s *server) budgets() {
	list := operation("list-budgets", http.MethodGet, "/budgets", tagBudgets, "How many API calls may be made to each connection, and how many were")
	list.Description = "Syncs that begin by themselves use up to 80 % of a budget, what people ask for up to 95 %, and opt-outs all of it."
	handle(s, list, func(ctx context.Context, _ *struct{}) (*pageOut[app.CallUse], error) {
		all, err := s.app.Budgets(ctx)
		if err != nil {
			return nil, err
		}
		return newPage(all, ""), nil
	})
	handle(s, operation("show-budget", http.MethodGet, "/budgets/{id}", tagBudgets, "The calls of each hour to one connection"),
		func(ctx context.Context, in *budgetHours) (*oneOut[app.CallUse], error) {
			since := in.Since
			if since.IsZero() {
				since = time.Now().Add(-24 * time.Hour)
			}
			return one(s.app.BudgetHours(ctx, in.ID, since))
		})
	handle(s, operation("change-budget", http.MethodPatch, "/budgets/{id}", tagBudgets, "Change how many API calls may be made to a connection; what is left out stays", withBody...),
		func(ctx context.Context, in *budgetPatch) (*oneOut[app.CallUse], error) {
			return one(s.app.SetBudget(ctx, in.ID, in.Body.PerHour, in.Body.PerDay))
		})
}
