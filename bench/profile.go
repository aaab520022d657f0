package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// profiles repeats a load with a profiler when one of the figures misses its target,
// and says where the time and the memory went. The repetition counts in no figure.
func (b *bench) profiles(c twinsConfig, ids ...string) (err error) {
	missed := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !b.missed(id) })
	if len(missed) == 0 {
		return nil
	}
	say("  %s missed; once more with a profiler", strings.Join(missed, ", "))
	t, err := b.startTwins(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startProduct(t, dynamicList, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	dir := filepath.Join(cmp.Or(b.keep, b.dir), "profile-"+ids[0])
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	pprof := profiler{p.pprof}
	// A profile of processor time lasts as long as was asked for; idle time at its
	// end adds nothing to it.
	seconds := 3 + c.Contacts/50_000
	timeFile := filepath.Join(dir, "cpu")
	taken := make(chan error, 1)
	go func() { taken <- pprof.fetch(fmt.Sprintf("profile?seconds=%d", seconds), timeFile) }()
	time.Sleep(100 * time.Millisecond) // the profiler is on before the run begins
	if err := t.reset(); err != nil {
		return err
	}
	run, err := p.begin()
	if err != nil {
		return err
	}
	heap, most, stages, err := pprof.watch(p, run.ID, dir)
	if err != nil {
		return err
	}
	if err := <-taken; err != nil {
		return err
	}
	calls, err := t.stats()
	if err != nil {
		return err
	}
	cpu, err := top(timeFile, 15, "-flat")
	if err != nil {
		return err
	}
	cum, err := top(timeFile, 45, "-cum")
	if err != nil {
		return err
	}
	mem, err := top(heap, 12, "-sample_index=inuse_space")
	if err != nil {
		return err
	}
	b.note("Profile: "+strings.Join(missed, ", "), "A load of %s contacts with a profiler. Calls: %s. Stages, by the seconds that each was seen: %s.\n\nProcessor time, by function:\n\n```\n%s\n```\n\nBy what was called, ours only:\n\n```\n%s\n```\n\nMemory in use when it was most (%.0f MB of live and not yet collected objects; the rest of the process is the runtime's and the program's own):\n\n```\n%s\n```",
		thousands(c.Contacts), measured{calls: calls}.operations(), stages, cpu, ours(cum), float64(most)/1e6, mem)
	return nil
}

// memoryProfiles repeats the loads whose memory is compared and sets side by side
// what was in use when it was most, which shows what grows with the number of
// contacts.
func (b *bench) memoryProfiles() error {
	if !b.missed("PF-16") {
		return nil
	}
	say("  PF-16 missed; once more with a profiler")
	var text strings.Builder
	for _, n := range []int{b.small, b.big} {
		if err := b.memoryProfile(&text, n); err != nil {
			return err
		}
	}
	b.note("Profile: PF-16", "%s", strings.TrimSpace(text.String()))
	return nil
}

func (b *bench) memoryProfile(text *strings.Builder, contacts int) (err error) {
	t, err := b.startTwins(twinsConfig{Contacts: contacts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startProduct(t, dynamicList, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	dir := filepath.Join(cmp.Or(b.keep, b.dir), "profile-PF-16-"+strconv.Itoa(contacts))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	run, err := p.begin()
	if err != nil {
		return err
	}
	heap, most, stages, err := profiler{p.pprof}.watch(p, run.ID, dir)
	if err != nil {
		return err
	}
	mem, err := top(heap, 15, "-sample_index=inuse_space")
	if err != nil {
		return err
	}
	fmt.Fprintf(text, "Memory in use when it was most in a load of %s contacts (%.0f MB of live and not yet collected objects; stages, by the seconds that each was seen: %s):\n\n```\n%s\n```\n\n",
		thousands(contacts), float64(most)/1e6, stages, mem)
	return nil
}

// twinProfile says where the processor time of the twins goes while work is done.
func (b *bench) twinProfile(t *twins, what string, work func() error) error {
	say("  PF-19 missed; once more with a profiler")
	dir := filepath.Join(cmp.Or(b.keep, b.dir), "profile-PF-19")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	const seconds = 5
	file, taken := filepath.Join(dir, "cpu"), make(chan error, 1)
	go func() { taken <- profiler{t.pprof}.fetch(fmt.Sprintf("profile?seconds=%d", seconds), file) }()
	for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); {
		if err := work(); err != nil {
			return errors.Join(err, <-taken)
		}
	}
	if err := <-taken; err != nil {
		return err
	}
	cpu, err := top(file, 15, "-flat")
	if err != nil {
		return err
	}
	cum, err := top(file, 60, "-cum")
	if err != nil {
		return err
	}
	b.note("Profile: PF-19", "The twins' process, %s. Processor time, by function:\n\n```\n%s\n```\n\nBy what was called, ours only:\n\n```\n%s\n```", what, cpu, ours(cum))
	return nil
}

// deltaProfile says where the time of small changes goes.
func (b *bench) deltaProfile(c twinsConfig) (err error) {
	if !b.missed("PF-8") {
		return nil
	}
	say("  PF-8 missed; once more with a profiler")
	t, err := b.startTwins(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startProduct(t, dynamicList, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.sync(t); err != nil {
		return err
	}
	dir := filepath.Join(cmp.Or(b.keep, b.dir), "profile-PF-8")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	file, taken := filepath.Join(dir, "cpu"), make(chan error, 1)
	const deltas = 20
	if err := t.anHourLater(); err != nil {
		return err
	}
	go func() { taken <- profiler{p.pprof}.fetch("profile?seconds=8", file) }()
	for i := range deltas {
		if err := t.change(b.ids, fmt.Sprintf("Profile %d", i), changedRows); err != nil {
			return err
		}
		run, err := p.begin()
		if err != nil {
			return err
		}
		if _, err := p.wait(run.ID, 5*time.Millisecond); err != nil {
			return err
		}
	}
	if err := <-taken; err != nil {
		return err
	}
	cpu, err := top(file, 15, "-flat")
	if err != nil {
		return err
	}
	cum, err := top(file, 60, "-cum")
	if err != nil {
		return err
	}
	b.note("Profile: PF-8", "%d runs with %d changes each. Processor time, by function:\n\n```\n%s\n```\n\nBy what was called, ours only:\n\n```\n%s\n```", deltas, changedRows, cpu, ours(cum))
	return nil
}

type profiler struct{ socket string }

func (p profiler) fetch(what, file string) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://profiler/debug/pprof/"+what, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("profile %s: %s", what, res.Status)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

var total = regexp.MustCompile(`of ([0-9.]+)([kMG]?B) total`)

// watch follows a run to its end, looks at the heap again and again and keeps the
// profile in which most was in use.
func (p profiler) watch(product *product, run, dir string) (heap string, most int64, stages string, err error) {
	file := func(n int) string { return filepath.Join(dir, "heap-"+strconv.Itoa(n)) }
	seen := map[string]time.Duration{}
	var order []string
	last := time.Now()
	for n := 0; ; n++ {
		if err := p.fetch("heap", file(n)); err != nil {
			return "", 0, "", err
		}
		text, err := top(file(n), 1, "-sample_index=inuse_space", "-unit=B")
		if err != nil {
			return "", 0, "", err
		}
		if m := total.FindStringSubmatch(text); m != nil {
			if v, err := strconv.ParseFloat(m[1], 64); err == nil && int64(v) > most {
				most, heap = int64(v), file(n)
			}
		}
		if heap == "" {
			heap = file(n)
		}
		var r lockstep.Run
		if err := product.api(http.MethodGet, "/runs/"+run, nil, &r); err != nil {
			return "", 0, "", err
		}
		if _, ok := seen[r.Stage]; !ok && r.Stage != "" {
			order = append(order, r.Stage)
		}
		seen[r.Stage] += time.Since(last)
		last = time.Now()
		if r.Status.Ended() {
			var out []string
			for _, s := range order {
				out = append(out, fmt.Sprintf("%s %.1f", s, seen[s].Seconds()))
			}
			return heap, most, strings.Join(out, "; "), nil
		}
	}
}

// top is the table of go tool pprof.
func top(file string, n int, args ...string) (string, error) {
	args = append(append([]string{"tool", "pprof", "-top", "-nodecount=" + strconv.Itoa(n)}, args...), file)
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "go", args...) //nolint:gosec // its arguments are ours
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go tool pprof: %w: %s", err, problems.Bytes())
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "File:") || strings.HasPrefix(line, "Build ID:") || strings.HasPrefix(line, "Time:") || strings.HasPrefix(line, "Type:") {
			continue
		}
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n"), nil
}

// ours keeps the lines about functions of this module.
func ours(table string) string {
	const n = 20
	var out []string
	for i, line := range strings.Split(table, "\n") {
		if (i < 3 || strings.Contains(line, "lockstep-sync/lockstep")) && len(out) < n {
			out = append(out, strings.ReplaceAll(line, "github.com/lockstep-sync/lockstep/", ""))
		}
	}
	return strings.Join(out, "\n")
}
