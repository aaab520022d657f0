package cli

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// A live page, which would stay open for minutes, does not hold up a server that
// stops.
func TestAnOpenPageDoesNotHoldUpTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	s := newServer(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("here\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		over <- context.Cause(r.Context())
	}), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	resp, err := http.Get(s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "here\n" {
		t.Fatalf("the page said %q: %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Errorf("the server waited for the page: %v", err)
		_ = s.server.Close()
	}
	<-over
	if err := <-served; err != nil {
		t.Error(err)
	}
}
