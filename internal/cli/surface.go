package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/web"
)

// surface is everything that Lockstep answers over HTTP.
func surface(a *app.App, log *slog.Logger, behindTLS bool) http.Handler {
	return web.Handler(a, log, web.Options{Version: buildVersion().Version, Secure: behindTLS})
}

// openClient opens Lockstep's data in this process and returns a client of its API:
// commands speak HTTP whether a server runs or not. work also carries out runs.
// done ends it all.
func (env *environment) openClient(ctx context.Context, cfg app.Config, work bool) (c *client, done func() error, err error) {
	a, err := env.openApp(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	secret, token, err := a.CreateToken(ctx, "command line", app.Scopes, time.Now().Add(24*time.Hour))
	if err == nil && work {
		err = a.Start(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, closeApp(a))
	}
	pipe := newPipeListener()
	server := &http.Server{Handler: surface(a, env.log, false), ReadHeaderTimeout: headerTime}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipe) })
	transport := &http.Transport{DialContext: pipe.dial}
	done = func() error {
		transport.CloseIdleConnections()
		_ = server.Close()
		serving.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		return errors.Join(a.DeleteToken(ctx, token.ID), closeApp(a))
	}
	return &client{base: "http://lockstep.invalid", token: secret, http: &http.Client{Transport: transport}}, done, nil
}

// pipeListener accepts connections from within the process.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), ended: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.ended:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept returns the next connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, io.EOF
	}
}

// Close ends Accept.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.ended) })
	return nil
}

// Addr returns an address for the server's messages.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
