package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is one figure: the values of all runs, of which the median counts.
type result struct {
	id, what, unit  string
	values, floor   []float64
	target, stretch float64
	higher          bool // more is better
	note            string
}

func (r result) met(goal float64) bool {
	if r.higher {
		return median(r.values) >= goal
	}
	return median(r.values) <= goal
}

// section is a text below the table.
type section struct{ title, text string }

func (b *bench) add(r ...result) { b.results = append(b.results, r...) }

func (b *bench) note(title, text string, args ...any) {
	b.sections = append(b.sections, section{title, fmt.Sprintf(text, args...)})
}

// missed reports whether one of the figures misses its target.
func (b *bench) missed(id string) bool {
	return slices.ContainsFunc(b.results, func(r result) bool { return r.id == id && !r.met(r.target) })
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// format writes a figure with three significant digits, whole numbers as they are.
func format(v float64) string {
	switch {
	case math.IsNaN(v):
		return ""
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), 64)
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

type machine struct {
	cpu, memory, kernel, load string
	at                        time.Time
}

func describeMachine() machine {
	m := machine{at: time.Now().UTC(), load: loadAverage()}
	for line := range strings.Lines(readText("/proc/cpuinfo")) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.cpu = strings.TrimSpace(v)
			break
		}
	}
	for line := range strings.Lines(readText("/proc/meminfo")) {
		if v, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
			m.memory = fmt.Sprintf("%.0f GB", kb*1024/1e9)
		}
	}
	m.kernel = strings.TrimSpace(readText("/proc/sys/kernel/osrelease"))
	return m
}

func readText(path string) string {
	b, _ := os.ReadFile(path) // what the kernel does not tell stays empty
	return string(b)
}

func loadAverage() string {
	f := strings.Fields(readText("/proc/loadavg"))
	if len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// commit names the sources that were measured.
func commit() string {
	id, err := exec.CommandContext(context.Background(), "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	out := string(bytes.TrimSpace(id))
	if dirty, err := exec.CommandContext(context.Background(), "git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)bench/RESULTS.md").Output(); err == nil && len(dirty) > 0 {
		out += " with uncommitted changes"
	}
	return out
}

// write writes the results.
func (b *bench) write(m machine) error {
	var w bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&w, format+"\n", args...) }
	p("# Benchmark results\n")
	p("Written by `%s` on %s, commit %s.\n", strings.TrimSpace(b.command), m.at.Format("2006-01-02 15:04 MST"), commit())
	p("Machine: %s, %d cores for everything (twins, Lockstep and the benchmark), %s, Linux %s, %s. Load average at the start %s, at the end %s;\nother work on the machine makes times longer.\n",
		m.cpu, runtime.NumCPU(), m.memory, m.kernel, runtime.Version(), m.load, loadAverage())
	p("Every figure is measured in this session: the median of its runs, which stand behind it. Lockstep is `lockstep serve`, the default build, in a process of its")
	p("own on the embedded database, on twins in another process over loopback. *Floor* is `bench/floor`, the least that any program has to do: it reads every")
	p("contact 5,000 at a time, maps ten fields, imports and follows the delta link. It keeps no state.\nLockstep does strictly more, and all of it was on: the list's members, the crosswalk with the values both sides agreed on, comparison with them,")
	p("consent and opt-out checks, a journal of every change before its call and after its answer (the audit), reading each import's faults, and reading back what")
	p("was written. Memory is the peak of the process since its start; calls are counted by the twins, status polls apart. MB are 10^6 bytes.\n")
	p("| id | figure | Lockstep | floor | ratio | target | stretch | met | runs |")
	p("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |")
	for _, r := range b.results {
		met := "**no**"
		if r.met(r.target) {
			met = "yes"
		}
		if r.stretch != r.target && r.met(r.stretch) {
			met = "stretch"
		}
		floor, ratio := "", ""
		if len(r.floor) > 0 {
			floor = format(median(r.floor)) + " " + r.unit
			ratio = format(median(r.values) / median(r.floor))
		}
		sign := "≤ "
		if r.higher {
			sign = "≥ "
		}
		var runs []string
		for _, v := range r.values {
			runs = append(runs, format(v))
		}
		what := r.what
		if r.note != "" {
			what += " (" + r.note + ")"
		}
		p("| %s | %s | **%s %s** | %s | %s | %s%s | %s%s | %s | %s |", r.id, what, format(median(r.values)), r.unit, floor, ratio, sign, format(r.target), sign, format(r.stretch), met, strings.Join(runs, " "))
	}
	for _, s := range b.sections {
		p("\n## %s\n\n%s", s.title, s.text)
	}
	if b.out == "-" {
		_, err := os.Stdout.Write(w.Bytes())
		return err
	}
	return os.WriteFile(b.out, w.Bytes(), 0o644) //nolint:gosec // results are for everybody to read
}
