package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const (
	latestRuns   = 8   // on the overview
	pageOfRuns   = 50  // on the page of all runs
	pageOfRows   = 100 // changes or findings of a run
	maxWaiting   = 99  // conflicts that are counted
	shownWaiting = 5   // conflicts on the overview
)

func (p *pages) overview(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	f, err := p.frame(ctx, "Overview", "overview")
	if err != nil {
		return err
	}
	d := overviewData{frame: f}
	organizations, err := p.app.Organizations(ctx)
	if err != nil {
		return err
	}
	accounts, err := p.app.Accounts(ctx)
	if err != nil {
		return err
	}
	for _, acc := range accounts {
		v := accountView{EmailAccount: acc}
		for _, o := range organizations {
			if o.ID == acc.Organization {
				v.Organization = o
			}
		}
		lists, err := p.app.Lists(ctx, acc.ID)
		if err != nil {
			return err
		}
		for _, l := range slices.Concat(activated(lists, true), activated(lists, false)) {
			size, known, err := p.sizes.of(ctx, l)
			if err != nil {
				return err
			}
			v.Lists = append(v.Lists, listView{ListSettings: l, Known: known, InList: size.InList, InBook: size.InBook})
		}
		d.Accounts = append(d.Accounts, v)
	}
	if d.Runs, err = p.runsView(ctx, "", latestRuns); err != nil {
		return err
	}
	waiting, err := p.waiting(ctx, shownWaiting+1)
	if err != nil {
		return err
	}
	if d.Waiting, err = p.conflictsView(ctx, waiting, shownWaiting, "/"); err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, overviewPage(d))
}

// activated picks the lists that are, or are not, activated, in their order: those
// in use are shown first.
func activated(lists []lockstep.ListSettings, is bool) (out []lockstep.ListSettings) {
	for _, l := range lists {
		if l.Activated == is {
			out = append(out, l)
		}
	}
	return out
}

func (p *pages) runsView(ctx context.Context, before string, limit int) (runsView, error) {
	v := runsView{Now: p.options.Now()}
	var err error
	if v.Runs, err = p.app.Runs(ctx, app.RunFilter{Before: before, Limit: limit + 1}); err != nil {
		return v, err
	}
	if len(v.Runs) > limit {
		v.Runs = v.Runs[:limit]
		v.More = "/runs?before=" + url.QueryEscape(v.Runs[limit-1].ID)
	}
	v.Lists, err = p.listNames(ctx)
	return v, err
}

func (p *pages) listNames(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	accounts, err := p.app.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, acc := range accounts {
		lists, err := p.app.Lists(ctx, acc.ID)
		if err != nil {
			return nil, err
		}
		for _, l := range lists {
			names[l.ID] = l.Name
		}
	}
	return names, nil
}

// organizationURLs are the addresses of Dynamics by email account.
func (p *pages) organizationURLs(ctx context.Context) (map[string]string, error) {
	organizations, err := p.app.Organizations(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := p.app.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	urls := map[string]string{}
	for _, acc := range accounts {
		for _, o := range organizations {
			if o.ID == acc.Organization {
				urls[acc.ID] = o.Identity.URL
			}
		}
	}
	return urls, nil
}

func (p *pages) runs(w http.ResponseWriter, r *http.Request) error {
	f, err := p.frame(r.Context(), "Runs", "runs")
	if err != nil {
		return err
	}
	before := r.FormValue("before")
	v, err := p.runsView(r.Context(), before, pageOfRuns)
	if err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, runsPage(runsData{frame: f, Runs: v, Live: before == ""}))
}

func (p *pages) run(w http.ResponseWriter, r *http.Request) error {
	d, err := p.runData(r.Context(), r.PathValue("id"), r.FormValue("changes"), r.FormValue("findings"))
	if err != nil {
		return err
	}
	if d.frame, err = p.frame(r.Context(), runTitle(d.Run, d.Lists), "runs"); err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, runPage(d))
}

func (p *pages) runLists(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	d := runListsData{}
	var err error
	if d.Run, err = p.app.Run(ctx, id); err != nil {
		return err
	}
	names, err := p.listNames(ctx)
	if err != nil {
		return err
	}
	d.Title = runTitle(d.Run, names)
	if d.Lists, err = p.app.RunLists(ctx, id); err != nil {
		return err
	}
	if d.frame, err = p.frame(ctx, d.Title+" by list", "runs"); err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, runListsPage(d))
}

func (p *pages) runData(ctx context.Context, id, changes, findings string) (d runData, err error) {
	d.Now = p.options.Now()
	if d.Run, err = p.app.Run(ctx, id); err != nil {
		return d, err
	}
	if d.Lists, err = p.listNames(ctx); err != nil {
		return d, err
	}
	urls, err := p.organizationURLs(ctx)
	if err != nil {
		return d, err
	}
	d.Organization = urls[d.Run.Account]
	undone, err := p.app.UndoneBy(ctx, id)
	if err != nil {
		return d, err
	}
	d.UndoneBy = undone.ID
	d.Undoable = undone.ID == "" && d.Run.Mode == lockstep.ModeApply && d.Run.Status.Ended() && d.Run.Counts.Written > 0 && !d.Run.Type.Consent() &&
		d.Now.Sub(d.Run.Ended) < app.UndoWindow
	// Each part keeps the page that the other is on.
	address := func(changes, findings string) string {
		q := url.Values{}
		if changes != "" {
			q.Set("changes", changes)
		}
		if findings != "" {
			q.Set("findings", findings)
		}
		return (&url.URL{Path: "/runs/" + d.Run.ID, RawQuery: q.Encode()}).String()
	}
	var next string
	if d.Changes, next, err = p.app.ChangesPage(ctx, id, changes, pageOfRows); err != nil {
		return d, err
	}
	if next != "" {
		d.NextChanges = address(next, findings)
	}
	if changes != "" {
		d.FirstChanges = address("", findings)
	}
	if d.Findings, err = p.app.Findings(ctx, id, findings, pageOfRows+1); err != nil {
		return d, err
	}
	if len(d.Findings) > pageOfRows {
		d.Findings = d.Findings[:pageOfRows]
		d.NextFindings = address(changes, d.Findings[pageOfRows-1].ID)
	}
	if findings != "" {
		d.FirstFinding = address(changes, "")
	}
	return d, nil
}

// waiting returns the newest conflicts that no person has decided.
func (p *pages) waiting(ctx context.Context, limit int) ([]lockstep.Conflict, error) {
	no := false
	return p.app.Conflicts(ctx, app.ConflictFilter{Resolved: &no, Limit: limit})
}

func (p *pages) conflictsView(ctx context.Context, all []lockstep.Conflict, limit int, back string) (conflictsView, error) {
	v := conflictsView{Conflicts: all, Back: back}
	if len(all) > limit {
		v.Conflicts = all[:limit]
		v.More = "/conflicts?before=" + url.QueryEscape(all[limit-1].ID)
	}
	var err error
	v.Organizations, err = p.organizationURLs(ctx)
	return v, err
}

func (p *pages) conflicts(w http.ResponseWriter, r *http.Request) error {
	f, err := p.frame(r.Context(), "Conflicts", "conflicts")
	if err != nil {
		return err
	}
	d := conflictsData{frame: f, Decided: r.FormValue("decided") != ""}
	all, err := p.app.Conflicts(r.Context(), app.ConflictFilter{Resolved: &d.Decided, Before: r.FormValue("before"), Limit: pageOfRuns + 1})
	if err != nil {
		return err
	}
	if d.View, err = p.conflictsView(r.Context(), all, pageOfRuns, "/conflicts"); err != nil {
		return err
	}
	if d.Decided && d.View.More != "" {
		d.View.More += "&decided=1"
	}
	return p.render(w, r, http.StatusOK, conflictsPage(d))
}

// sizes remembers how many people the lists have until the next run of lists.
type sizes struct {
	app  *app.App
	mu   sync.Mutex
	kept map[string]size // by list settings id
}

type size struct {
	app.ListSize
	as string // of which run
}

func newSizes(a *app.App) *sizes { return &sizes{app: a, kept: map[string]size{}} }

// of returns a list's size as of its last sync; known is false before the first.
func (s *sizes) of(ctx context.Context, l lockstep.ListSettings) (n app.ListSize, known bool, err error) {
	if l.Book == "" {
		return n, false, nil
	}
	runs, err := s.app.Runs(ctx, app.RunFilter{Account: l.Account, Type: lockstep.SyncMarketingLists, Limit: 1})
	if err != nil || len(runs) == 0 {
		return n, false, err
	}
	as := runs[0].ID + string(runs[0].Status)
	s.mu.Lock()
	kept, ok := s.kept[l.ID]
	s.mu.Unlock()
	if ok && (kept.as == as || !runs[0].Status.Ended()) {
		return kept.ListSize, true, nil
	}
	if n, err = s.app.ListSize(ctx, l.ID); err != nil {
		return n, false, err
	}
	s.mu.Lock()
	s.kept[l.ID] = size{n, as}
	s.mu.Unlock()
	return n, true, nil
}
