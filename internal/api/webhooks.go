package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagWebhooks = "Webhooks"

type webhookChanged struct {
	Taken []lockstep.SchemaStep `json:"taken"`
}

func (s *server) webhooks() {
	handle(s, operation("plan-webhook", http.MethodGet, "/organizations/{id}/webhook", tagWebhooks, "How the organization is asked to tell of changes, and what registering it would do", http.StatusNotImplemented, http.StatusConflict),
		func(ctx context.Context, in *struct {
			ByID
			URL       string `query:"url" maxLength:"1000" doc:"As in the registration; without it, the address that is registered."`
			NewSecret bool   `query:"new_secret" doc:"As in the registration."`
		},
		) (*oneOut[app.Webhook], error) {
			return one(s.app.PlanWebhook(ctx, in.ID, app.WebhookRequest{URL: in.URL, NewSecret: in.NewSecret}))
		})
	register := operation("register-webhook", http.MethodPost, "/organizations/{id}/webhook", tagWebhooks, "Have the organization tell at once that something changed", append([]int{http.StatusNotImplemented}, withBody...)...)
	register.Description = "What is registered is compared first and only what differs is changed: call it again after somebody changed it in the CRM, and after a call that did not end."
	handle(s, register, func(ctx context.Context, in *struct {
		ByID
		Body struct {
			URL       string `json:"url,omitempty" maxLength:"1000" doc:"The address under which the organization reaches Lockstep, such as https://lockstep.example.com. Needed the first time."`
			NewSecret bool   `json:"new_secret,omitempty" doc:"Give it another secret."`
		}
	},
	) (*oneOut[webhookChanged], error) {
		taken, err := s.app.RegisterWebhook(ctx, in.ID, app.WebhookRequest{URL: in.Body.URL, NewSecret: in.Body.NewSecret})
		return one(webhookChanged{taken}, err)
	})
	handle(s, operation("remove-webhook", http.MethodDelete, "/organizations/{id}/webhook", tagWebhooks, "Take the registration away", http.StatusNotImplemented, http.StatusConflict),
		func(ctx context.Context, in *ByID) (*oneOut[webhookChanged], error) {
			taken, err := s.app.RemoveWebhook(ctx, in.ID)
			return one(webhookChanged{taken}, err)
		})
}

// maxHint is the largest body of a webhook call that is read. Dynamics leaves contents
// out above 256 KB.
const maxHint = 320 << 10

// Hooks answers the calls of organizations that something changed. A call is a hint:
// what it says is neither believed nor kept, so that one that comes twice, late or from
// somebody who knows the secret does no more than have the syncs look.
func Hooks(a *app.App) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, outcome := hint(a, w, r)
		a.HookCalled(outcome)
		if status != http.StatusNoContent {
			// What is left of the body is not waited for.
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(status)
	})
}

func hint(a *app.App, w http.ResponseWriter, r *http.Request) (status int, outcome string) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, app.HookMethod
	}
	organization, err := a.CheckHook(r.Context(), strings.TrimPrefix(r.URL.Path, app.HookPath), r.Header.Get(lockstep.WebhookHeader))
	switch lockstep.CodeOf(err) {
	case "":
	case lockstep.CodeNotFound:
		return http.StatusNotFound, app.HookUnknown
	case lockstep.CodeUnauthorized:
		return http.StatusUnauthorized, app.HookUnauthorized
	default:
		// Dynamics tries again when it gets this answer, once.
		return http.StatusServiceUnavailable, app.HookFailed
	}
	n, err := io.CopyN(io.Discard, r.Body, maxHint+1)
	switch {
	case n > maxHint && r.Header.Get("X-Ms-Dynamics-Msg-Size-Exceeded") != "true":
		return http.StatusRequestEntityTooLarge, app.HookOversized
	case n > maxHint:
		w.Header().Set("Connection", "close")
	case !errors.Is(err, io.EOF):
		return http.StatusBadRequest, app.HookBroken
	}
	a.Hint(organization)
	return http.StatusNoContent, app.HookAccepted
}
