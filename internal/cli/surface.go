package cli

import (
	"log/slog"
	"net/http"

	"github.com/lockstep-sync/lockstep/internal/app"
)

// surface is everything that Lockstep answers over HTTP.
func surface(a *app.App, _ *slog.Logger) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if a.Ready(r.Context()) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	return mux, nil
}
