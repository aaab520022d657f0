package web

import (
	"net/http"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

func toRun(w http.ResponseWriter, r *http.Request, run lockstep.Run, err error) error {
	if err == nil {
		http.Redirect(w, r, "/runs/"+run.ID, http.StatusSeeOther)
	}
	return err
}

func (p *pages) startRun(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return formError(err)
	}
	f := r.PostForm
	run, err := p.app.StartRun(r.Context(), app.RunRequest{Account: f.Get("account"), Type: lockstep.SyncType(f.Get("type")), List: f.Get("list"), Mode: lockstep.Mode(f.Get("mode"))})
	if lockstep.CodeOf(err) == lockstep.CodeConflict && run.ID != "" {
		err = nil // it is under way already: that is where to look
	}
	return toRun(w, r, run, err)
}

func (p *pages) applyRun(w http.ResponseWriter, r *http.Request) error {
	run, err := p.app.ApplyPreview(r.Context(), r.PathValue("id"), "user "+userOf(r.Context()))
	return toRun(w, r, run, err)
}

// undoRun shows what an undo would write; its page applies it.
func (p *pages) undoRun(w http.ResponseWriter, r *http.Request) error {
	run, err := p.app.UndoRun(r.Context(), app.UndoRequest{Run: r.PathValue("id"), Mode: lockstep.ModePreview})
	return toRun(w, r, run, err)
}

func (p *pages) retryFinding(w http.ResponseWriter, r *http.Request) error {
	run, err := p.app.RetryFinding(r.Context(), r.PathValue("id"))
	return toRun(w, r, run, err)
}

func (p *pages) cancelRun(w http.ResponseWriter, r *http.Request) error {
	run, err := p.app.CancelRun(r.Context(), r.PathValue("id"))
	return toRun(w, r, run, err)
}

func (p *pages) changeList(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return formError(err)
	}
	var activated bool
	switch r.PostForm.Get("activated") {
	case "true":
		activated = true
	case "false":
	default:
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "activated", Msg: "the form does not say whether the list is to be activated"}
	}
	l, err := p.app.UpdateList(r.Context(), r.PathValue("id"), app.ListPatch{Activated: &activated})
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/#list-"+l.ID, http.StatusSeeOther)
	return nil
}

func (p *pages) decide(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return formError(err)
	}
	if _, err := p.app.ResolveConflict(r.Context(), r.PathValue("id"), r.PostForm.Get("winner"), userOf(r.Context())); err != nil {
		return err
	}
	http.Redirect(w, r, localPath(r.PostForm.Get("back")), http.StatusSeeOther) //nolint:gosec // localPath lets paths of this host pass and nothing else
	return nil
}
