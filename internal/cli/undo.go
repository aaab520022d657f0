package cli

import (
	"context"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/lockstep-sync/lockstep"
)

// undoRequest is the body that starts an undo.
type undoRequest struct {
	Record string        `json:"record,omitempty"`
	Field  string        `json:"field,omitempty"`
	Mode   lockstep.Mode `json:"mode,omitempty"`
}

func (c *client) undo(ctx context.Context, id string, r undoRequest) (run lockstep.Run, err error) {
	err = c.call(ctx, http.MethodPost, "/runs/"+url.PathEscape(id)+"/undo", nil, r, &run)
	return run, err
}

func (env *environment) undo() *cobra.Command {
	var t target
	var r undoRequest
	var preview bool
	c := &cobra.Command{
		Use:   "undo RUN",
		Short: "Reverse a run, or what it did to one record or field",
		Long: `Writes back what a run replaced, where both sides are still as the run left them, and
takes memberships back. What was changed since stays and becomes a finding (moved).
Contacts and records that the run made stay, address books and data fields too, and an
opt-out is never taken back: each is said in a finding (not_undone).

The undo is a run of its own: it is shown with runs show, sync apply RUN writes what
--preview showed, and undoing it brings back what it undid. A run can be undone for
30 days.

Exit code 3: the undo is done and something stays as it is; see the findings.`,
		Example: `  lockstep undo 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --preview --ready-file ready.json
  lockstep undo 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --data /var/lib/lockstep
  lockstep undo 01a2048d-29ed-7f6f-a8b6-ef8b27584bef --record contact/8f0c2a6e-1d2b-4c3d-9e8f-001122334455 --field JOBTITLE --json --ready-file ready.json`,
		Args: arguments("the id of a run"),
		RunE: func(c *cobra.Command, args []string) error {
			if preview {
				r.Mode = lockstep.ModePreview
			}
			if r.Record != "" {
				if _, err := lockstep.ParseRef(r.Record); err != nil {
					return usage("give the table and the id, such as contact/8f0c2a6e-1d2b-4c3d-9e8f-001122334455", "--record cannot be %.80q", r.Record)
				}
			}
			return env.carryOut(c.Context(), t, "undo", func(ctx context.Context, c *client) (lockstep.Run, error) { return c.undo(ctx, args[0], r) })
		},
	}
	env.targetFlags(c, &t)
	env.jsonFlag(c)
	c.Flags().StringVar(&r.Record, "record", "", "only this record, as `TABLE/ID`")
	c.Flags().StringVar(&r.Field, "field", "", "only this data `LABEL` or CRM column; memberships are then left alone")
	c.Flags().BoolVar(&preview, "preview", false, "show what the undo would write, and write nothing")
	return c
}
