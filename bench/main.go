// Command bench measures Lockstep against the figures that it promises, on the
// twins that ship with it, beside a program that does the least possible (see
// bench/floor), and writes the results to bench/RESULTS.md:
//
//	go run ./bench            # all of it: about an hour and 12 GB of memory
//	go run ./bench -quick     # 10,000 contacts, one run each; writes to standard output
//	go run ./bench -huge=false -only PF-1,PF-8
//
// The twins, Lockstep and the floor are processes of their own. Lockstep is the
// binary that users run, "lockstep serve" on a data folder that was set up before,
// with everything on; its processor time and peak memory are what the kernel says of
// its process. Calls are counted by the twins. It needs Linux and the go command.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(playRole(role))
	}
	b := &bench{}
	var quick bool
	var only string
	flag.BoolVar(&quick, "quick", false, "10,000 contacts and one run of each scenario, to see that the benchmark works")
	flag.IntVar(&b.contacts, "contacts", 100_000, "contacts of the usual scenarios")
	flag.IntVar(&b.large, "large", 1_000_000, "contacts of the large load")
	flag.IntVar(&b.runs, "runs", 5, "runs of each usual scenario, of which the median counts")
	flag.IntVar(&b.largeRuns, "large-runs", 5, "runs of the large load and of the comparison of memory")
	flag.BoolVar(&b.huge, "huge", true, "compare the memory at 200,000 and at 2,000,000 contacts")
	flag.IntVar(&b.optOuts, "opt-outs", 200, "opt-outs made while contacts are loaded, half of them on each side; a tenth as many in the large load")
	flag.DurationVar(&b.liveFor, "live", 10*time.Minute, "how long changes are made while syncs begin by their schedules; half as long the pair is idle")
	flag.StringVar(&only, "only", "", "the ids of the figures to measure, such as PF-1,PF-8 or workers; PF-1 brings PF-2 to PF-4 with it")
	flag.StringVar(&b.out, "out", filepath.Join("bench", "RESULTS.md"), "where the results go; - is standard output")
	flag.StringVar(&b.keep, "keep", "", "a folder for the profiles, which are otherwise thrown away")
	flag.Parse()
	b.command = "go run ./bench " + strings.Join(os.Args[1:], " ")
	b.small, b.big = 200_000, 2_000_000
	if quick {
		b.contacts, b.large, b.runs, b.largeRuns, b.huge, b.optOuts, b.liveFor = 10_000, 20_000, 1, 1, false, 20, 20*time.Second
		if !slices.ContainsFunc(os.Args[1:], func(a string) bool { return strings.HasPrefix(strings.TrimLeft(a, "-"), "out") }) {
			b.out = "-"
		}
	}
	if only != "" {
		b.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one invocation.
type bench struct {
	ctx                  context.Context
	contacts, large      int
	small, big           int
	runs, largeRuns      int
	optOuts              int
	liveFor              time.Duration
	huge                 bool
	only                 []string
	out, command, keep   string
	dir                  string // for everything that is made on the way
	self, lockstep, flor string // programs

	ids      []known // some contacts, to be changed
	results  []result
	sections []section
}

func (b *bench) wants(ids ...string) bool {
	return len(b.only) == 0 || slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(b.only, id) })
}

func (b *bench) run(ctx context.Context) (err error) {
	b.ctx = ctx
	if b.dir, err = os.MkdirTemp("", "lockstep-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	defer killAll()
	context.AfterFunc(ctx, killAll)
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.lockstep, err = b.build("lockstep", "./cmd/lockstep"); err != nil {
		return err
	}
	if b.flor, err = b.build("floor", "./bench/floor"); err != nil {
		return err
	}
	host := describeMachine()
	if err := b.meet(); err != nil {
		return err
	}
	for _, s := range []struct {
		ids []string
		run func() error
	}{
		{[]string{"PF-1", "PF-2", "PF-3", "PF-4", "PF-7", "PF-8"}, b.usual},
		{[]string{"PF-6"}, b.distantLoad},
		{[]string{"PF-5"}, b.largeLoad},
		{[]string{"PF-10"}, b.optOutsInLoads},
		{[]string{"PF-9", "PF-11", "PF-17"}, b.live},
		{[]string{"PF-12", "PF-13"}, b.throttled},
		{[]string{"PF-14"}, b.manyLists},
		{[]string{"workers"}, b.workers},
		{[]string{"PF-19"}, b.twinSpeed},
		{[]string{"PF-16"}, b.flatMemory},
	} {
		if !b.wants(s.ids...) {
			continue
		}
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.ids[0], errors.Join(err, ctx.Err()))
		}
		if b.out != "-" { // what is measured is not lost when a later one fails
			if err := b.write(host); err != nil {
				return err
			}
		}
	}
	return b.write(host)
}

// build compiles one of our programs as users do.
func (b *bench) build(name, pkg string) (string, error) {
	to := filepath.Join(b.dir, name)
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", to, pkg) //nolint:gosec // our own package
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return to, nil
}

// say tells a person how far it is.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
