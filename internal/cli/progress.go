package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// progress shows how far long work has come: one repainted line on a terminal, a
// plain line for each stage and every plainEvery elsewhere.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	width    int
	began    time.Time
	title    string
	shown    string // on a terminal: what the line shows; elsewhere: the last stage
	printed  time.Time
}

const plainEvery = 10 * time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, terminal: isTerminal(w), width: 100}
	if f, ok := w.(interface{ Fd() uintptr }); ok && p.terminal {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 20 {
			p.width = n
		}
	}
	return p
}

// begin starts a piece of work.
func (p *progress) begin(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began, p.title, p.shown, p.printed = time.Now(), fmt.Sprintf(format, args...), "", time.Now()
	if p.terminal {
		p.repaint(p.title)
		return
	}
	_, _ = fmt.Fprintf(p.w, "%s …\n", p.title)
}

// update says how far the work has come. total is 0 when nobody knows it.
func (p *progress) update(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.began).Round(time.Second)
	if p.terminal {
		p.repaint(fmt.Sprintf("%s %s %s %s", p.title, bar(done, total), stage, took))
		return
	}
	if stage == "" || stage == p.shown && time.Since(p.printed) < plainEvery {
		return
	}
	p.shown, p.printed = stage, time.Now()
	_, _ = fmt.Fprintf(p.w, "  %s: %s, %s read\n", took, stage, thousands(done))
}

// end closes the line with what came out.
func (p *progress) end(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%s  %s", p.title, fmt.Sprintf(format, args...))
	if p.terminal {
		p.repaint("✓ " + line)
		_, _ = fmt.Fprintln(p.w)
		return
	}
	_, _ = fmt.Fprintf(p.w, "%s\n", line)
}

// stop leaves the line as it is, for an error to follow.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.shown != "" {
		_, _ = fmt.Fprintln(p.w)
	}
}

func (p *progress) repaint(line string) {
	if n := utf8.RuneCountInString(line); n >= p.width {
		line = string([]rune(line)[:p.width-2]) + "…"
	}
	if line != p.shown {
		p.shown = line
		_, _ = fmt.Fprintf(p.w, "\r\x1b[2K%s", line)
	}
}

const barWidth = 24

// bar draws a share; nothing when the total is not known.
func bar(done, total int64) string {
	if total <= 0 {
		return thousands(done)
	}
	n := int(min(done, total) * barWidth / total)
	return fmt.Sprintf("%s%s %3d%%", strings.Repeat("█", n), strings.Repeat("░", barWidth-n), min(done, total)*100/total)
}

// thousands writes a number for people: 12,345.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
