package web

import (
	"net/http"

	"github.com/lockstep-sync/lockstep/internal/app"
)

// New returns the pages.
func New(a *app.App, o Options) http.Handler {
	return http.NotFoundHandler()
}
