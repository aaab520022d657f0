// Command termsvg turns what a command wrote to a terminal into a picture:
//
//	script -qec "lockstep demo --once" /dev/null | termsvg "lockstep demo --once" > demo.svg
//
// It knows what our own progress lines use: a carriage return with "erase line".
package main

import (
	"bufio"
	"fmt"
	"html"
	"os"
	"strings"
	"unicode/utf8"
)

const (
	charWidth  = 8.4
	lineHeight = 19
	margin     = 18
	bar        = 34
)

func main() {
	if err := draw(strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, "termsvg:", err)
		os.Exit(1)
	}
}

func draw(command string) error {
	lines := []string{"$ " + command}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		line := in.Text()
		parts := strings.Split(strings.TrimRight(line, "\r"), "\r\x1b[2K")
		lines = append(lines, parts[len(parts)-1])
	}
	if err := in.Err(); err != nil {
		return err
	}
	columns := 0
	for _, l := range lines {
		columns = max(columns, utf8.RuneCountInString(l))
	}
	width := int(float64(columns)*charWidth) + 2*margin
	height := bar + len(lines)*lineHeight + margin

	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" role="img" aria-label="%s in a terminal">`+"\n",
		width, height, width, html.EscapeString(command))
	// One dark terminal for both colour schemes, with an edge that shows on black.
	fmt.Fprintf(out, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" fill="#1b1f27" stroke="#57606a"/>`+"\n", width-1, height-1)
	for i, colour := range []string{"#ff5f56", "#ffbd2e", "#27c93f"} {
		fmt.Fprintf(out, `<circle cx="%d" cy="17" r="5.5" fill="%s"/>`+"\n", margin+i*18+2, colour)
	}
	fmt.Fprintln(out, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14" fill="#d7dce4">`)
	for i, l := range lines {
		if l == "" {
			continue
		}
		// Viewers fold blanks, and not all of them can be told not to.
		text := strings.ReplaceAll(html.EscapeString(l), " ", "\u00a0")
		switch {
		case i == 0:
			text = `<tspan fill="#7ee787">$</tspan><tspan font-weight="bold">` + strings.TrimPrefix(text, "$") + `</tspan>`
		case strings.HasPrefix(l, "✓"):
			text = `<tspan fill="#7ee787">✓</tspan>` + strings.TrimPrefix(text, "✓")
		}
		fmt.Fprintf(out, `<text x="%d" y="%d" textLength="%d" lengthAdjust="spacingAndGlyphs">%s</text>`+"\n", margin, bar+(i+1)*lineHeight-5,
			int(float64(utf8.RuneCountInString(l))*charWidth), text)
	}
	fmt.Fprintln(out, "</g>\n</svg>")
	return out.Flush()
}
