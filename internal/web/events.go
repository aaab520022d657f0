package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/lockstep-sync/lockstep"
)

const (
	// maxStreams is how many live pages one process serves.
	maxStreams = 64
	// lookEvery is how often a live page's content is looked at.
	lookEvery = 500 * time.Millisecond
	// streamLife ends a stream, which the browser opens again: what is behind a
	// session, a proxy or a server that stops does not stay for ever.
	streamLife = 10 * time.Minute
	// sayEvery keeps a silent stream alive on its way through proxies.
	sayEvery = 15 * time.Second
	// writeTime is how long a browser may take to accept one fragment.
	writeTime = 10 * time.Second
)

// look returns what a live page shows now. An equal mark means an equal content.
type look func(ctx context.Context) (mark string, content templ.Component, last bool, err error)

// stream sends a fragment whenever the content changes, until it is the last one.
func (p *pages) stream(w http.ResponseWriter, r *http.Request, now look) error {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "too many pages are open", Hint: "close some", After: time.Minute}
	}
	ctx, stop := context.WithTimeout(r.Context(), streamLife)
	defer stop()
	out := &events{w: w, rc: http.NewResponseController(w)}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	lastMark, spoke := "", time.Now()
	for {
		if c, err := r.Cookie(p.cookieName(r)); err != nil {
			return nil
		} else if _, ok := p.sessions.user(c.Value, false); !ok {
			return nil
		}
		mark, content, last, err := now(ctx)
		if err != nil {
			if out.begun {
				if ctx.Err() == nil {
					p.app.Report(err)
				}
				return nil // the browser tries again and gets the error then
			}
			return err
		}
		switch {
		case mark != lastMark:
			var b bytes.Buffer
			if err := content.Render(ctx, &b); err != nil {
				return err
			}
			err = out.send("fragment", b.Bytes())
			lastMark, spoke = mark, time.Now()
		case time.Since(spoke) > sayEvery:
			err = out.send("", nil)
			spoke = time.Now()
		}
		if err == nil && last {
			err = out.send("end", nil)
		}
		if err != nil || last {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// events writes server-sent events.
type events struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

// send writes one event; without a name it is a comment that nobody sees.
func (e *events) send(name string, data []byte) error {
	if !e.begun {
		e.begun = true
		e.w.Header().Set("Content-Type", "text/event-stream")
		e.w.Header().Set("X-Accel-Buffering", "no")
	}
	_ = e.rc.SetWriteDeadline(time.Now().Add(writeTime)) // not every connection has one
	var b bytes.Buffer
	if name == "" {
		b.WriteString(": still here\n\n")
	} else {
		fmt.Fprintf(&b, "event: %s\n", name)
		for line := range bytes.Lines(append(data, '\n')) {
			fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
		}
		b.WriteByte('\n')
	}
	if _, err := e.w.Write(b.Bytes()); err != nil {
		return err
	}
	return e.rc.Flush()
}

// markOf tells states of a run apart as far as people see them.
func markOf(r lockstep.Run) string {
	return fmt.Sprintf("%s|%s|%s|%v|%v|%v;", r.ID, r.Status, r.Stage, r.Counts, r.Calls, r.CancelRequested)
}

func (p *pages) runsEvents(w http.ResponseWriter, r *http.Request) error {
	limit := latestRuns
	if r.FormValue("long") != "" {
		limit = pageOfRuns
	}
	return p.stream(w, r, func(ctx context.Context) (string, templ.Component, bool, error) {
		v, err := p.runsView(ctx, "", limit)
		var mark strings.Builder
		for _, run := range v.Runs {
			mark.WriteString(markOf(run))
		}
		return mark.String(), runsTable(v), false, err
	})
}

func (p *pages) runEvents(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	var d runData
	return p.stream(w, r, func(ctx context.Context) (string, templ.Component, bool, error) {
		run, err := p.app.Run(ctx, id)
		if err != nil {
			return "", nil, false, err
		}
		if mark := markOf(run); mark == markOf(d.Run) {
			return mark, runBody(d), false, nil
		}
		d, err = p.runData(ctx, id, "", "")
		return markOf(d.Run), runBody(d), d.Run.Status.Ended(), err
	})
}
