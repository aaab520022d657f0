package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // only the benchmark's own binary offers profiles
	"os"
	"os/signal"
	"syscall"

	"github.com/lockstep-sync/lockstep/internal/cli"
)

// The benchmark starts itself again in other roles, so that what is measured is a
// process of its own.
const (
	roleVariable  = "LOCKSTEP_BENCH_ROLE"
	twinsVariable = "LOCKSTEP_BENCH_TWINS"
	pprofVariable = "LOCKSTEP_BENCH_PPROF"

	roleTwins    = "twins"
	roleProfiled = "profiled" // Lockstep with a profiler
)

func playRole(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch role {
	case roleTwins:
		if err := offerProfiles(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := serveTwins(context.Background(), os.Getenv(twinsVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	case roleProfiled:
		if err := offerProfiles(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return cli.Main(ctx, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	}
	fmt.Fprintln(os.Stderr, "unknown role", role)
	return 2
}

// offerProfiles serves profiles of this process where the benchmark asked for it.
func offerProfiles(ctx context.Context) error {
	socket := os.Getenv(pprofVariable)
	if socket == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	go http.Serve(l, nil) //nolint:errcheck,gosec // a socket for the benchmark alone; ends with the process
	return nil
}
