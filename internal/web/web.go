package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/a-h/templ"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

type pages struct {
	app      *app.App
	options  Options
	sessions *sessions
	sizes    *sizes
	streams  chan struct{} // a place for each live page
	mux      *http.ServeMux
	assets   assets
	files    map[string]file
}

// New returns the pages, for Handler.
func New(a *app.App, o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &pages{app: a, options: o, sessions: newSessions(o.Now), sizes: newSizes(a), streams: make(chan struct{}, maxStreams), mux: http.NewServeMux()}
	p.assets, p.files = loadAssets()
	p.mux.HandleFunc("GET /static/{name}", p.asset)
	p.mux.HandleFunc("GET /signin", p.signInForm)
	p.mux.HandleFunc("POST /signin", p.signIn)
	p.mux.HandleFunc("POST /signout", p.signOut)
	for pattern, page := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /{$}":                  p.overview,
		"GET /runs":                 p.runs,
		"GET /runs/{id}":            p.run,
		"GET /runs/{id}/lists":      p.runLists,
		"GET /conflicts":            p.conflicts,
		"GET /events/runs":          p.runsEvents,
		"GET /events/runs/{id}":     p.runEvents,
		"POST /runs":                p.startRun,
		"POST /runs/{id}/apply":     p.applyRun,
		"POST /findings/{id}/retry": p.retryFinding,
		"POST /runs/{id}/undo":      p.undoRun,
		"POST /runs/{id}/cancel":    p.cancelRun,
		"POST /lists/{id}":          p.changeList,
		"POST /conflicts/{id}":      p.decide,
		"/":                         p.nowhere,
	} {
		p.mux.HandleFunc(pattern, p.signedIn(func(w http.ResponseWriter, r *http.Request) {
			if err := page(w, r); err != nil {
				p.problem(w, r, err)
			}
		}))
	}
	return p
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares the same way
				panic(v)
			}
			p.problem(w, r, fmt.Errorf("panic: %v", v))
		}
	}()
	p.mux.ServeHTTP(w, r)
}

// render answers with a page, completely or with an error.
func (p *pages) render(w http.ResponseWriter, r *http.Request, status int, c templ.Component) error {
	var b bytes.Buffer
	if err := c.Render(r.Context(), &b); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

// frame fills in what every page has around its content.
func (p *pages) frame(ctx context.Context, title, tab string) (frame, error) {
	f := frame{Title: title, Tab: tab, User: userOf(ctx), Assets: p.assets}
	if f.User == "" {
		return f, nil
	}
	waiting, err := p.waiting(ctx, maxWaiting)
	f.Conflicts = len(waiting)
	return f, err
}

// statuses are the HTTP statuses of the failures that people can do something about.
var statuses = map[lockstep.Code]int{
	lockstep.CodeInvalid: http.StatusUnprocessableEntity, lockstep.CodeNotFound: http.StatusNotFound, lockstep.CodeConflict: http.StatusConflict,
	lockstep.CodeUnauthorized: http.StatusBadGateway, lockstep.CodeForbidden: http.StatusForbidden, lockstep.CodeThrottled: http.StatusTooManyRequests,
	lockstep.CodeUnavailable: http.StatusServiceUnavailable, lockstep.CodeUnsupported: http.StatusNotImplemented, lockstep.CodeExpired: http.StatusConflict,
	lockstep.CodeGuarded: http.StatusConflict, lockstep.CodeCancelled: http.StatusConflict,
}

var headings = map[int]string{
	http.StatusUnprocessableEntity: "This cannot be done as asked", http.StatusNotFound: "Not found", http.StatusConflict: "This cannot be done now",
	http.StatusForbidden: "Not allowed", http.StatusTooManyRequests: "Too many tries", http.StatusServiceUnavailable: "Not available at the moment",
	http.StatusMethodNotAllowed: "This address takes no such request",
}

// problem answers with a page that says what happened and what to do.
func (p *pages) problem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads the answer
	}
	var e *lockstep.Error
	var large *http.MaxBytesError
	status, d := http.StatusInternalServerError, problemData{}
	switch {
	case errors.As(err, &large):
		status, d.Detail = http.StatusRequestEntityTooLarge, "The form is too large."
	case errors.As(err, &e) && statuses[e.Code] != 0:
		status, d.Detail, d.Hint = statuses[e.Code], sentence(titled(e.Msg, string(e.Code))), sentence(e.Hint)
		if e.After > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int(e.After.Round(time.Second).Seconds()))))
		}
	default:
		reference := p.app.Report(err)
		d.Detail, d.Hint = "Something went wrong on our side.", "Look for the reference "+reference+" in Lockstep's log."
	}
	if d.Heading = headings[status]; d.Heading == "" {
		d.Heading = "This did not work"
	}
	d.frame = frame{Title: d.Heading, User: userOf(r.Context()), Assets: p.assets}
	if err := p.render(w, r, status, problemPage(d)); err != nil {
		plain(w, status, d.Detail+"\n")
	}
}

func (p *pages) nowhere(http.ResponseWriter, *http.Request) error {
	return &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no page at this address"}
}

func (p *pages) signInForm(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(p.cookieName(r)); err == nil {
		if _, ok := p.sessions.user(c.Value, true); ok {
			http.Redirect(w, r, localPath(r.FormValue("next")), http.StatusSeeOther)
			return
		}
	}
	p.askToSignIn(w, r, http.StatusOK, "", "")
}

func (p *pages) askToSignIn(w http.ResponseWriter, r *http.Request, status int, name, problem string) {
	d := signInData{frame: frame{Title: "Sign in", Assets: p.assets}, Next: localPath(r.FormValue("next")), Name: name, Problem: problem}
	if err := p.render(w, r, status, signInPage(d)); err != nil {
		p.problem(w, r, err)
	}
}

func (p *pages) signIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.problem(w, r, formError(err))
		return
	}
	user, password := r.PostForm.Get("user"), r.PostForm.Get("password")
	if wait := p.sessions.try(user); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(wait.Seconds()))))
		p.askToSignIn(w, r, http.StatusTooManyRequests, user, fmt.Sprintf("Too many tries. Wait %d minutes.", max(1, int(wait.Round(time.Minute).Minutes()))))
		return
	}
	switch err := p.app.CheckPassword(r.Context(), user, password); {
	case lockstep.CodeOf(err) == lockstep.CodeUnauthorized:
		p.askToSignIn(w, r, http.StatusUnauthorized, user, "The user name or the password is wrong.")
		return
	case err != nil:
		p.problem(w, r, err)
		return
	}
	p.sessions.forgive(user)
	if c, err := r.Cookie(p.cookieName(r)); err == nil {
		p.sessions.end(c.Value)
	}
	http.SetCookie(w, p.cookie(r, p.sessions.start(app.AdminUser)))
	http.Redirect(w, r, localPath(r.PostForm.Get("next")), http.StatusSeeOther) //nolint:gosec // localPath lets paths of this host pass and nothing else
}

func (p *pages) signOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(p.cookieName(r)); err == nil {
		p.sessions.end(c.Value)
	}
	http.SetCookie(w, p.cookie(r, ""))
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}

// formError is what a form that cannot be read means.
func formError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return &lockstep.Error{Code: lockstep.CodeInvalid, Msg: "the form cannot be read"}
}
