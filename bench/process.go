package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// process is a child of the benchmark.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   bytes.Buffer // what it says; shown when it fails
	ended chan struct{}
	err   error
}

// start starts a program. It gets a standard input that ends when the benchmark does.
func (p *process) start(program string, args []string, env ...string) error {
	p.cmd = exec.CommandContext(context.Background(), program, args...) //nolint:gosec // our own programs
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() { p.err = p.cmd.Wait(); close(p.ended) }()
	running = append(running, p)
	return nil
}

// running are all children, so that none outlives the benchmark.
var running []*process

func killAll() {
	for _, p := range running {
		select {
		case <-p.ended:
		default:
			_ = p.cmd.Process.Kill()
		}
	}
}

// waitFor waits until the process has written a file.
func (p *process) waitFor(file string, patience time.Duration) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %v\n%s", p.cmd.Path, p.err, p.out.Bytes()) //nolint:errorlint // it may have ended without an error
		default:
		}
	}
	return fmt.Errorf("%s did not get ready in %v", p.cmd.Path, patience)
}

// stop asks the process to end and waits for it.
func (p *process) stop() error {
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return errors.New(p.cmd.Path + " had to be killed")
	}
	return nil
}

// peakRSS is the most memory the process had resident so far, in MB of 10^6 bytes.
func (p *process) peakRSS() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("the benchmark needs Linux: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, errors.New("the kernel does not tell the peak of a process's memory")
}

// clockTick is the unit of processor times in /proc, fixed by Linux's interface.
const clockTick = 10 * time.Millisecond

// cpu is the processor time that the process took so far.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the program's name may hold blanks
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, errors.New("the kernel's figures of a process cannot be read")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
