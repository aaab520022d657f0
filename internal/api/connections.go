package api

import (
	"context"
	"net/http"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagConnections = "Connections"

func (s *server) connections() {
	handle(s, operation("list-accounts", http.MethodGet, "/accounts", tagConnections, "The connected email accounts"),
		func(ctx context.Context, _ *struct{}) (*pageOut[lockstep.EmailAccount], error) {
			all, err := s.app.Accounts(ctx)
			for i := range all {
				if all[i].Settings == nil {
					all[i].Settings = map[string]string{}
				}
				if all[i].Priority == nil {
					all[i].Priority = []string{}
				}
			}
			return newPage(all, ""), err
		})
	handle(s, operation("list-tables", http.MethodGet, "/tables", tagConnections, "The CRM tables that can be mapped, with their columns"),
		func(ctx context.Context, in *struct {
			Account string `query:"account" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		},
		) (*pageOut[lockstep.Table], error) {
			acc, err := s.app.Account(ctx, in.Account)
			if err != nil {
				return nil, err
			}
			all, err := s.app.Tables(ctx, acc.ID)
			for i := range all {
				if all[i].Columns == nil {
					all[i].Columns = []lockstep.Column{}
				}
			}
			return newPage(all, ""), err
		})
	op := operation("test-connection", http.MethodPost, "/connections/test", tagConnections, "Try settings without keeping them", withBody...)
	op.Description = "Ends with the first step that fails; the step says why and what to do. ok is false then, and the answer is still 200."
	op.Errors = append(op.Errors, http.StatusNotImplemented)
	handle(s, op, func(ctx context.Context, in *struct {
		Body struct {
			Adapter  string            `json:"adapter" maxLength:"80" example:"dotdigital"`
			Settings map[string]string `json:"settings" doc:"The adapter's settings by name, secrets included."`
		}
	},
	) (*oneOut[app.TestResult], error) {
		return one(s.app.TestConnection(ctx, in.Body.Adapter, in.Body.Settings))
	})
}
