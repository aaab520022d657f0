// Package web is what a browser and a load balancer see of Lockstep: server-rendered
// pages for people who have signed in, the HTTP API beside them, and the probes.
//
// Pages work with plain links and forms. One small script of our own replaces parts
// of a page while a run goes on; no third party's script, style or font is loaded,
// and a content security policy holds that for the future.
package web

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/api"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// Options say how the product is served.
type Options struct {
	// Version is that of the product; "dev" when empty.
	Version string
	// Secure says that people reach the server over HTTPS although it speaks HTTP
	// itself, behind a proxy that ends TLS. Cookies are marked accordingly.
	Secure bool
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// Handler serves everything: pages at /, the API under /api/, the webhooks of
// organizations under /hooks/dynamics/, the probes /healthz and /readyz, and
// /metrics for holders of a token that may read. A server around it should set ReadHeaderTimeout and
// IdleTimeout, may set WriteTimeout, which the event streams of live
// pages extend for themselves, and should have a BaseContext that ends when it is shut
// down: Shutdown waits for open pages otherwise.
func Handler(a *app.App, log *slog.Logger, o Options) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", api.New(a, api.Options{Version: o.Version}))
	mux.Handle(app.HookPath, api.Hooks(a))
	mux.Handle("/", New(a, o))
	probes(mux, a, log)
	return logged(log, guarded(o, http.NewCrossOriginProtection().Handler(mux)))
}

// Probes serves /healthz, /readyz and /metrics alone, for a process without pages.
func Probes(a *app.App, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	probes(mux, a, log)
	return logged(log, mux)
}

func probes(mux *http.ServeMux, a *app.App, log *slog.Logger) {
	mux.Handle("GET /metrics", api.Metrics(a))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Ready(r.Context()); err != nil {
			log.Warn("not ready", "code", errorCode(err))
			plain(w, http.StatusServiceUnavailable, notReady(err))
			return
		}
		plain(w, http.StatusOK, "ready\n")
	})
}

// notReady says why, where it is the disk: whoever watches the probe can then help.
func notReady(err error) string {
	e := lockstep.AsError(err)
	if e.Code != lockstep.CodeUnavailable || e.Msg == "" {
		return "not ready\n"
	}
	return strings.TrimSpace("not ready: "+e.Msg+" "+e.Hint) + "\n"
}
