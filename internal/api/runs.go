package api

import (
	"context"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagRuns = "Runs"

type runCreate struct {
	Body struct {
		Account string            `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		Type    lockstep.SyncType `json:"type" maxLength:"80" doc:"The sync type." example:"marketing-lists"`
		List    string            `json:"list,omitempty" maxLength:"400" doc:"One marketing list by its id, its CRM id or its name; without it, all that are due."`
		Mode    lockstep.Mode     `json:"mode,omitempty" enum:"apply,preview" doc:"A preview plans and shows every change and writes nothing; apply when left out."`
	}
}

type runQuery struct {
	InAccount
	Paging
	Type         lockstep.SyncType  `query:"type" maxLength:"80"`
	Status       lockstep.RunStatus `query:"status" enum:"queued,in_process,completed,completed_with_errors,failed,cancelled,previewed"`
	StartedAfter time.Time          `query:"started_after" doc:"RFC 3339."`
}

type runPage struct {
	ByID
	Paging
}

type runUndo struct {
	ByID
	Body *struct {
		Record string        `json:"record,omitempty" maxLength:"200" doc:"Only this record, as TABLE/ID; all when left out." example:"contact/8f0c2a6e-1d2b-4c3d-9e8f-001122334455"`
		Field  string        `json:"field,omitempty" maxLength:"200" doc:"Only this data label or CRM column; without it all of them, and memberships."`
		Mode   lockstep.Mode `json:"mode,omitempty" enum:"apply,preview" doc:"A preview shows what would be written and writes nothing; apply when left out."`
	}
}

func (s *server) runs() {
	start := operation("start-run", http.MethodPost, "/runs", tagRuns, "Start a run", withBody...)
	start.DefaultStatus = http.StatusAccepted
	start.Description = "Answers as soon as the run is queued; when the same one is queued already, with that. 409 when it is in process, or queued in another mode."
	handle(s, start, func(ctx context.Context, in *runCreate) (*oneOut[lockstep.Run], error) {
		b := in.Body
		acc, err := s.app.Account(ctx, b.Account)
		if err != nil {
			return nil, err
		}
		if b.List != "" {
			l, err := s.app.List(ctx, acc.ID, b.List)
			if err != nil {
				return nil, err
			}
			b.List = l.ID
		}
		return one(s.app.StartRun(ctx, app.RunRequest{Account: acc.ID, Type: b.Type, List: b.List, Mode: b.Mode}))
	})
	handle(s, operation("list-runs", http.MethodGet, "/runs", tagRuns, "The runs, newest first"),
		func(ctx context.Context, in *runQuery) (*pageOut[lockstep.Run], error) {
			f := app.RunFilter{Type: in.Type, Status: in.Status, StartedAfter: in.StartedAfter, Before: in.Cursor, Limit: in.Limit + 1}
			if in.Account != "" {
				acc, err := s.app.Account(ctx, in.Account)
				if err != nil {
					return nil, err
				}
				f.Account = acc.ID
			}
			runs, err := s.app.Runs(ctx, f)
			return cut(runs, in.Limit, func(r lockstep.Run) string { return r.ID }), err
		})
	handle(s, operation("show-run", http.MethodGet, "/runs/{id}", tagRuns, "One run: status, stage, counts, API calls"),
		func(ctx context.Context, in *ByID) (*oneOut[lockstep.Run], error) { return one(s.app.Run(ctx, in.ID)) })
	handle(s, operation("list-run-changes", http.MethodGet, "/runs/{id}/changes", tagRuns, "Every change of a run: what, old value, new value, why"),
		func(ctx context.Context, in *runPage) (*pageOut[app.ShownChange], error) {
			changes, next, err := s.app.ChangesPage(ctx, in.ID, in.Cursor, in.Limit)
			return newPage(changes, next), err
		})
	handle(s, operation("list-run-findings", http.MethodGet, "/runs/{id}/findings", tagRuns, "Problems of single records that a person can act on"),
		func(ctx context.Context, in *runPage) (*pageOut[lockstep.Finding], error) {
			findings, err := s.app.Findings(ctx, in.ID, in.Cursor, in.Limit+1)
			return cut(findings, in.Limit, func(f lockstep.Finding) string { return f.ID }), err
		})
	lists := operation("list-run-lists", http.MethodGet, "/runs/{id}/lists", tagRuns, "What a run came to in each marketing list, in the order of synchronisation")
	lists.Description = "Status: in_process, completed, completed_with_errors or failed, as that of a run; previewed in a preview. The run's whole journal is read for it, which takes the longer the more the run wrote."
	handle(s, lists, func(ctx context.Context, in *ByID) (*pageOut[app.ListOutcome], error) {
		outcomes, err := s.app.RunLists(ctx, in.ID)
		return newPage(outcomes, ""), err
	})
	handle(s, operation("list-findings", http.MethodGet, "/findings", tagRuns, "Records that a side did not take and that are tried again: why, how often, when next"),
		func(ctx context.Context, in *struct {
			InAccount
			Paging
		},
		) (*pageOut[lockstep.Finding], error) {
			acc, err := s.app.Account(ctx, in.Account)
			if err != nil {
				return nil, err
			}
			findings, err := s.app.Waiting(ctx, acc.ID, in.Cursor, in.Limit+1)
			return cut(findings, in.Limit, func(f lockstep.Finding) string { return f.ID }), err
		})
	retry := operation("retry-finding", http.MethodPost, "/findings/{id}/retry", tagRuns, "Try again at once what a finding is about", http.StatusConflict)
	retry.DefaultStatus = http.StatusAccepted
	retry.Description = "Answers with the run that tries it: one of the sync that met the problem. It looks at the record whether it changed or not. 409 for what an undo did not take back."
	handle(s, retry, func(ctx context.Context, in *ByID) (*oneOut[lockstep.Run], error) {
		return one(s.app.RetryFinding(ctx, in.ID))
	})
	apply := operation("apply-run", http.MethodPost, "/runs/{id}/apply", tagRuns, "Write exactly what a preview showed", http.StatusConflict)
	apply.DefaultStatus = http.StatusAccepted
	handle(s, apply, func(ctx context.Context, in *ByID) (*oneOut[lockstep.Run], error) {
		return one(s.app.ApplyPreview(ctx, in.ID, caller(ctx)))
	})
	undo := operation("undo-run", http.MethodPost, "/runs/{id}/undo", tagRuns, "Reverse a run, or a part of it", withBody...)
	undo.DefaultStatus = http.StatusAccepted
	undo.Description = "Answers with the run that undoes: it writes old values back where both sides are as the run left them, and can itself be previewed, applied and undone. " +
		"What was changed since becomes a finding (moved), what cannot be taken back another (not_undone). 409 when the run cannot be undone, with the reason."
	handle(s, undo, func(ctx context.Context, in *runUndo) (*oneOut[lockstep.Run], error) {
		r := app.UndoRequest{Run: in.ID}
		if b := in.Body; b != nil {
			r.Record, r.Field, r.Mode = b.Record, b.Field, b.Mode
		}
		return one(s.app.UndoRun(ctx, r))
	})
	cancel := operation("cancel-run", http.MethodPost, "/runs/{id}/cancel", tagRuns, "End a run after its current batch", http.StatusConflict)
	cancel.DefaultStatus = http.StatusAccepted
	handle(s, cancel, func(ctx context.Context, in *ByID) (*oneOut[lockstep.Run], error) {
		return one(s.app.CancelRun(ctx, in.ID))
	})
}

const tagConflicts = "Conflicts"

type conflictQuery struct {
	InAccount
	Paging
	Run      string `query:"run" maxLength:"80" doc:"Found by this run."`
	Resolved string `query:"resolved" enum:"true,false" doc:"By whether a side was chosen; without it, both."`
}

func (s *server) conflicts() {
	handle(s, operation("list-conflicts", http.MethodGet, "/conflicts", tagConflicts, "Fields that were changed differently on both sides, newest first"),
		func(ctx context.Context, in *conflictQuery) (*pageOut[lockstep.Conflict], error) {
			f := app.ConflictFilter{Run: in.Run, Before: in.Cursor, Limit: in.Limit + 1}
			if in.Resolved != "" {
				yes := in.Resolved == "true"
				f.Resolved = &yes
			}
			if in.Account != "" {
				acc, err := s.app.Account(ctx, in.Account)
				if err != nil {
					return nil, err
				}
				f.Account = acc.ID
			}
			all, err := s.app.Conflicts(ctx, f)
			return cut(all, in.Limit, func(c lockstep.Conflict) string { return c.ID }), err
		})
	handle(s, operation("resolve-conflict", http.MethodPost, "/conflicts/{id}/resolve", tagConflicts, "Choose the side whose value stays; the next run writes it", withBody...),
		func(ctx context.Context, in *struct {
			ByID
			Body struct {
				Winner string `json:"winner" enum:"crm,platform"`
			}
		},
		) (*oneOut[lockstep.Conflict], error) {
			return one(s.app.ResolveConflict(ctx, in.ID, in.Body.Winner, caller(ctx)))
		})
}

const tagRecords = "Records"

func (s *server) explain() {
	get := operation("explain-record-by-query", http.MethodGet, "/records/explain", tagRecords, "Who an address is on each side, and why")
	get.Description = "Addresses in URLs end up in the logs of proxies: prefer the POST."
	handle(s, get, func(ctx context.Context, in *struct {
		Email   string `query:"email" required:"true" maxLength:"400"`
		Account string `query:"account" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
	},
	) (*oneOut[lockstep.Explanation], error) {
		return s.explained(ctx, in.Account, in.Email)
	})
	post := operation("explain-record", http.MethodPost, "/records/explain", tagRecords, "Who an address is on each side, and why", withBody...)
	post.Description = "Both sides, memberships and why, the last writes, findings and conflicts. Makes no call to either side."
	post.Metadata["scope"] = app.ScopeRead
	handle(s, post, func(ctx context.Context, in *struct {
		Body struct {
			Email   string `json:"email" maxLength:"400"`
			Account string `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		}
	},
	) (*oneOut[lockstep.Explanation], error) {
		return s.explained(ctx, in.Body.Account, in.Body.Email)
	})
}

func (s *server) explained(ctx context.Context, account, email string) (*oneOut[lockstep.Explanation], error) {
	acc, err := s.app.Account(ctx, account)
	if err != nil {
		return nil, err
	}
	return one(s.app.Explain(ctx, acc.ID, email))
}
