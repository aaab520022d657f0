// Command lockstep keeps Microsoft Dynamics and an email marketing platform in step.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // schedules name time zones, and a container may have no database of them

	"github.com/lockstep-sync/lockstep/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends work in an orderly way; from then on a signal has its
	// usual effect, which is to end the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Main(ctx, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:]))
}
