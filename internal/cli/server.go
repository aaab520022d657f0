package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/web"
)

// httpServer serves the pages and the API.
type httpServer struct {
	url      string
	listener net.Listener
	server   *http.Server
}

// What a client may take and send. Answers that stream have no limit as a whole.
const (
	headerTime = 10 * time.Second
	readTime   = time.Minute
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	// Once the server stops, calls have answerTime to end by themselves, and as long as
	// stopTime altogether.
	answerTime = time.Second
	stopTime   = 10 * time.Second
)

// listen opens the address; serve answers on it.
func listen(ctx context.Context, address string, a *app.App, log *slog.Logger, behindTLS bool) (*httpServer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Op: "listen", Msg: err.Error(), Hint: "another program may use the port; give another one with --listen"}
	}
	return newServer(l, surface(a, log, behindTLS), log), nil
}

// listenProbes opens the address for the probes of a process without pages.
func listenProbes(ctx context.Context, address string, a *app.App, log *slog.Logger) (*httpServer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Op: "listen", Msg: err.Error(), Hint: "another program may use the port; give another one with --listen"}
	}
	return newServer(l, web.Probes(a, log), log), nil
}

// newServer answers on l with h. The context of its calls ends soon after it began to
// shut down: a live page stays open for as long as it may, and would hold it up.
func newServer(l net.Listener, h http.Handler, log *slog.Logger) *httpServer {
	base, end := context.WithCancel(context.Background())
	s := &httpServer{
		url: "http://" + reachable(l.Addr()), listener: l,
		server: &http.Server{
			Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return base },
		},
	}
	s.server.RegisterOnShutdown(func() { time.AfterFunc(answerTime, end) })
	return s
}

// reachable is an address to open in a browser: the machine itself when the server
// listens everywhere.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}

func (s *httpServer) serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// shutdown lets calls under way end, for a while.
func (s *httpServer) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return s.server.Close()
	}
	return nil
}

// closeTime is how long a running slice of work may take to end in an orderly way.
const closeTime = 40 * time.Second

// stopWork lets the slices under way end.
func stopWork(a *app.App) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return a.Stop(ctx)
}

func closeApp(a *app.App) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return a.Close(ctx)
}

// answers asks the server whether it is ready.
func answers(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "the server does not get ready: " + resp.Status}
	}
	return nil
}
