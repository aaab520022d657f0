package twin

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// endpoint is one HTTP server of the twins.
type endpoint struct {
	name     string // for the log
	listener net.Listener
	server   *http.Server
}

// listen opens a port: the wanted one when it is free, else any.
func listen(host string, wanted int) (net.Listener, error) {
	var config net.ListenConfig
	if wanted != 0 {
		if l, err := config.Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(wanted))); err == nil {
			return l, nil
		}
	}
	return config.Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// address is the URL of a listener for a client on this machine.
func address(scheme, host string, l net.Listener) string {
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port(l)))
}

// handle gives the endpoint its server. A twin's answers carry the twins' time in
// their Date header, and its listener can refuse connections.
//
// There is no write timeout: a fault may make an answer last for minutes. A
// request body has ten minutes, enough for the largest import on a slow line.
func (e *endpoint) handle(h http.Handler, t *Twins, isTwin bool) {
	if isTwin {
		if t.wrap != nil {
			h = t.wrap(e.name, h)
		}
		inner := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", t.Clock.Now().Format(http.TimeFormat))
			inner.ServeHTTP(w, r)
		})
		e.listener = fault.Listener(e.listener, t.Faults, e.name)
	}
	e.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    128 << 10, // a Web API URL may have 32 KiB
		ErrorLog:          slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
}

// secure makes the endpoint speak TLS.
func (e *endpoint) secure(c *tls.Config) { e.listener = tls.NewListener(e.listener, c) }

func (e *endpoint) serve(log *slog.Logger) {
	if err := e.server.Serve(e.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("a twin's server ended", "twin", e.name, "error", err)
	}
}

// stop gives calls a moment to finish and then ends them.
func (e *endpoint) stop() {
	if e.server == nil {
		_ = e.listener.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	defer e.listener.Close() //nolint:errcheck // it may not be served yet; after Shutdown it is closed already
	if err := e.server.Shutdown(ctx); err != nil {
		_ = e.server.Close()
	}
}
