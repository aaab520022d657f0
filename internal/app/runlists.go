package app

import (
	"context"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// ListOutcome is what a run came to in one marketing list.
type ListOutcome struct {
	List string `json:"list"` // list settings id
	Name string `json:"name"`
	// Status is in_process until the run has ended, then completed, failed when the
	// list was left alone, completed_with_errors when something about it was refused,
	// held back or found wrong. That of a preview is previewed unless the list failed.
	Status lockstep.RunStatus `json:"status"`
	// Reason says why it is not completed: the first of its findings.
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
	// Written, or in a preview to be written.
	BookAdds     int64 `json:"book_adds"`
	BookRemovals int64 `json:"book_removals"`
	ListAdds     int64 `json:"list_adds"`
	ListRemovals int64 `json:"list_removals"`
	Refused      int64 `json:"refused"` // changes that one of the sides did not take
	Findings     int64 `json:"findings"`
}

// leftAlone are the findings after which nothing else is done about a list in a run.
var leftAlone = []string{lockstep.FindingListUnreadable, lockstep.FindingIncomplete, lockstep.FindingNameReserved, lockstep.FindingNameTaken}

// RunLists returns what a run came to in each list that it was about, in the order of
// synchronisation. It reads the run's whole journal. CodeNotFound.
func (a *App) RunLists(ctx context.Context, id string) ([]ListOutcome, error) {
	run, err := a.store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	lists, err := a.store.Lists(ctx, run.Account)
	if err != nil {
		return nil, err
	}
	out := make([]ListOutcome, len(lists))
	seen := make([]bool, len(lists)) // the run was about it, or did something to it
	bySettings, byList, byBook := map[string]int{}, map[lockstep.ID]int{}, map[lockstep.BookID]int{}
	of := run.Type == lockstep.SyncMarketingLists || run.Type == lockstep.SyncAddressBooksIn
	for i, l := range lists {
		out[i] = ListOutcome{List: l.ID, Name: l.Name, Status: lockstep.RunInProcess}
		if run.Status.Ended() {
			out[i].Status = lockstep.RunCompleted
			if run.Mode == lockstep.ModePreview {
				out[i].Status = lockstep.RunPreviewed
			}
		}
		seen[i] = of && (run.List == l.ID || run.List == "" && l.Activated && !l.ManualOnly && !l.Gone)
		bySettings[l.ID], byList[l.CRMID], byBook[engine.NewBook(l.ID)] = i, i, i
		if l.Book != "" {
			byBook[l.Book] = i
		}
	}
	err = a.eachChange(ctx, id, func(c lockstep.Change) {
		counts := c.State == lockstep.Acknowledged || run.Mode == lockstep.ModePreview && c.State == lockstep.Planned
		tell := func(i int, ok bool, n *int64) {
			switch {
			case !ok:
			case counts:
				*n++
				seen[i] = true
			case c.State == lockstep.Refused:
				out[i].Refused++
				seen[i] = true
			}
		}
		var none ListOutcome
		at := func(i int, ok bool) *ListOutcome {
			if !ok {
				return &none
			}
			return &out[i]
		}
		switch c.Kind {
		case lockstep.WriteContact:
			for _, b := range c.Books {
				i, ok := byBook[b]
				tell(i, ok, &at(i, ok).BookAdds)
			}
		case lockstep.RemoveFromBook:
			i, ok := byBook[c.Book]
			tell(i, ok, &at(i, ok).BookRemovals)
		case lockstep.AddToList:
			i, ok := byList[c.List]
			tell(i, ok, &at(i, ok).ListAdds)
		case lockstep.RemoveFromList:
			i, ok := byList[c.List]
			tell(i, ok, &at(i, ok).ListRemovals)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := a.listFindings(ctx, &run, bySettings, out, seen); err != nil {
		return nil, err
	}
	kept := out[:0]
	for i := range out {
		o := out[i]
		if !seen[i] {
			continue
		}
		if o.Refused > 0 && o.Status == lockstep.RunCompleted {
			o.Status = lockstep.RunCompletedWithErrors
		}
		if run.Status == lockstep.RunFailed || run.Status == lockstep.RunCancelled {
			o.Status = run.Status
			if o.Reason == "" {
				o.Reason, o.Hint = run.Error, run.Hint
			}
		}
		kept = append(kept, o)
	}
	return kept, nil
}

// listFindings adds what a run found about its lists.
func (a *App) listFindings(ctx context.Context, run *lockstep.Run, bySettings map[string]int, out []ListOutcome, seen []bool) error {
	const page = 1000
	for after := ""; ; {
		findings, err := a.store.Findings(ctx, run.ID, after, page)
		if err != nil {
			return err
		}
		for _, f := range findings {
			i, ok := bySettings[f.List]
			if !ok {
				continue
			}
			o := &out[i]
			seen[i] = true
			if o.Findings++; o.Findings == 1 {
				o.Reason, o.Hint = f.Message, f.Hint
			}
			switch {
			case slices.Contains(leftAlone, f.Code) && o.Status != lockstep.RunFailed:
				o.Status, o.Reason, o.Hint = lockstep.RunFailed, f.Message, f.Hint
			case o.Status == lockstep.RunCompleted:
				o.Status = lockstep.RunCompletedWithErrors
			}
		}
		if len(findings) < page {
			return nil
		}
		after = findings[len(findings)-1].ID
	}
}

// eachChange reads the journal of a run, some batches at a time.
func (a *App) eachChange(ctx context.Context, run string, yield func(lockstep.Change)) error {
	for after := int64(0); ; {
		batches, err := a.store.Batches(ctx, run, after, 4)
		if err != nil || len(batches) == 0 {
			return err
		}
		for _, b := range batches {
			err := journal.Decode(b.Payload, func(c lockstep.Change) error { yield(c); return nil })
			if err != nil {
				return err
			}
			after = b.ID
		}
	}
}
