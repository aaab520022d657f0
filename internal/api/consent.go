package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagConsent = "Consent"

type consentQuery struct {
	Email string `query:"email" required:"true" maxLength:"320" doc:"One whole address."`
}

type consentLookup struct {
	Body struct {
		Email string `json:"email" maxLength:"320" doc:"One whole address."`
	}
}

type ledgerQuery struct {
	Head string `query:"head" maxLength:"100" doc:"The head that an earlier verification named: whether it is still part of the ledger is checked too."`
}

type suppressionQuery struct {
	InAccount
	Paging
	Q     string `query:"q" maxLength:"320" doc:"One whole address."`
	State string `query:"state" enum:"pending,told,asked" doc:"pending: some destination has still to be told. told: everybody knows. asked: a resubscription waits for the person."`
}

type suppressionCreate struct {
	Body struct {
		Account  string `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		Email    string `json:"email" maxLength:"320" doc:"One whole address."`
		Reason   string `json:"reason,omitempty" maxLength:"80" doc:"unsubscribed, suppressed (also when left out), hard_bounced or complained."`
		Evidence string `json:"evidence" maxLength:"2000" doc:"What proves it, in words. It is kept with the entry of the ledger."`
	}
}

type suppressionMade struct {
	Status int
	Body   app.Suppression
}

type erasureCreate struct {
	Body struct {
		Email string `json:"email" maxLength:"320" doc:"One whole address."`
		Force bool   `json:"force,omitempty" doc:"Erase although an opt-out has still to be told to another system, which can then no longer be done."`
	}
}

func (s *server) consent() {
	ask := operation("read-consent", http.MethodGet, "/consent", tagConsent, "Why an address may be mailed or not, since when, and who was told")
	ask.Description = "The address is part of the URL here, which proxies may log; POST /consent answers the same without."
	handle(s, ask, func(ctx context.Context, in *consentQuery) (*oneOut[app.PersonConsent], error) {
		return one(s.app.Consent(ctx, in.Email))
	})
	lookup := operation("look-up-consent", http.MethodPost, "/consent", tagConsent, "The same as GET /consent, with the address in the body", withBody...)
	lookup.Metadata["scope"] = app.ScopeRead
	handle(s, lookup, func(ctx context.Context, in *consentLookup) (*oneOut[app.PersonConsent], error) {
		return one(s.app.Consent(ctx, in.Body.Email))
	})
	verify := operation("verify-consent", http.MethodGet, "/consent/verification", tagConsent, "Go over the whole consent ledger")
	verify.Description = "Names the first row that was changed, removed, moved or put in; \"broken\" is absent when there is none."
	handle(s, verify, func(ctx context.Context, in *ledgerQuery) (*oneOut[app.ConsentReport], error) {
		return one(s.app.VerifyConsent(ctx, in.Head))
	})

	handle(s, operation("list-suppressions", http.MethodGet, "/suppressions", tagConsent, "Standing opt-outs of every scope"),
		func(ctx context.Context, in *suppressionQuery) (*pageOut[app.Suppression], error) {
			f := app.SuppressionFilter{Email: in.Q, State: in.State, After: in.Cursor, Limit: in.Limit + 1}
			if in.Account != "" {
				acc, err := s.app.Account(ctx, in.Account)
				if err != nil {
					return nil, err
				}
				f.Account = acc.ID
			}
			all, err := s.app.Suppressions(ctx, f)
			if err != nil {
				return nil, err
			}
			return cut(all, in.Limit, func(x app.Suppression) string { return x.ID }), nil
		})
	add := operation("add-suppression", http.MethodPost, "/suppressions", tagConsent, "Close an email account to an address", withBody...)
	add.Description = "The ledger gets an entry with the token's name as the actor. The CRM and the platform are told by a run that is started at once. 200 when the account was closed to the address already; the stricter reason stays."
	add.DefaultStatus = http.StatusCreated
	add.Responses = map[string]*huma.Response{"200": {Description: "The account was closed to the address already."}}
	handle(s, add, func(ctx context.Context, in *suppressionCreate) (*suppressionMade, error) {
		b := in.Body
		acc, err := s.app.Account(ctx, b.Account)
		if err != nil {
			return nil, err
		}
		x, made, err := s.app.Suppress(ctx, app.SuppressRequest{Account: acc.ID, Email: b.Email, Reason: b.Reason, Evidence: b.Evidence, Actor: caller(ctx)})
		if err != nil {
			return nil, err
		}
		status := http.StatusCreated
		if !made {
			status = http.StatusOK
		}
		return &suppressionMade{status, x}, nil
	})
	keep := operation("delete-suppression", http.MethodDelete, "/suppressions/{id}", tagConsent, "Says why an opt-out cannot be deleted, and what to do instead", http.StatusConflict)
	keep.Description = "An opt-out is lifted only by the person's own wish, through the platform's own flow. The answer is always 409, or 404 for an unknown id."
	handle(s, keep, func(ctx context.Context, in *ByID) (*struct{}, error) {
		return nil, s.app.KeepSuppression(ctx, in.ID)
	})
	back := operation("resubscribe", http.MethodPost, "/suppressions/{id}/resubscribe", tagConsent, "Ask the platform to mail an address again, at the person's wish", withBody...)
	back.Description = "The wish, its evidence and the token's name go to the consent ledger; then the platform is asked by its own flow, which usually writes to the person. The restriction stands until the platform says that the person is back."
	handle(s, back, func(ctx context.Context, in *resubscribeRequest) (*oneOut[app.Resubscription], error) {
		return one(s.app.Resubscribe(ctx, in.ID, in.Body.Evidence, caller(ctx)))
	})

	erase := operation("erase-person", http.MethodPost, "/erasures", tagConsent, "Erase the person behind an address", withBody...)
	erase.Description = "Blanks the person's values in everything that Lockstep keeps. A salted key of the address stays and closes every account to it. Records in the CRM and contacts on the platform are not touched: erase the person there first, or they are read again."
	handle(s, erase, func(ctx context.Context, in *erasureCreate) (*oneOut[app.Erasure], error) {
		return one(s.app.Erase(ctx, in.Body.Email, caller(ctx), in.Body.Force))
	})
}

type resubscribeRequest struct {
	ByID
	Body struct {
		Evidence string `json:"evidence,omitempty" doc:"How it is known that the person wishes to be mailed again, in words." example:"asked by telephone on 3 May 2026, case CAS-0123"`
	}
}
