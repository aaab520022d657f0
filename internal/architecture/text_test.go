package architecture

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// emptyNames say nothing about what a package is for.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types", "models"}

func TestPackagesHaveNamesAndComments(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(emptyNames, p.Name) {
			t.Errorf("%s: the name %s does not say what is in it; name it after what it is about", p.ImportPath, p.Name)
		}
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if n := packageComments(t, p, want); n != 1 {
			t.Errorf("%s: %d package comments begin with %q, want one", p.ImportPath, n, want)
		}
	}
}

// packageComments counts the package comments that begin with prefix.
func packageComments(t *testing.T, p pkg, prefix string) int {
	t.Helper()
	n := 0
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil && strings.HasPrefix(f.Doc.Text(), prefix) {
			n++
		}
	}
	return n
}

// banned is a text that must not be in a file.
type banned struct {
	what *regexp.Regexp
	in   func(path string) bool
	why  string
	// except is found in files where the text means something else.
	except *regexp.Regexp
}

func goFile(path string) bool   { return strings.HasSuffix(path, ".go") }
func goTest(path string) bool   { return strings.HasSuffix(path, "_test.go") }
func anywhere(path string) bool { return !strings.HasPrefix(path, "internal/architecture/") }

func internalCode(path string) bool {
	return goFile(path) && !goTest(path) && strings.HasPrefix(path, "internal/") && anywhere(path)
}

var bannedTexts = []banned{
	{what: regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`), in: anywhere, why: "do it, or say in words what is not done"},
	{what: regexp.MustCompile(`"github.com/stretchr/testify`), in: func(p string) bool { return goFile(p) && anywhere(p) }, why: "plain comparisons and go-cmp say more"},
	{what: regexp.MustCompile(`\btime\.Sleep\(`), in: func(p string) bool { return goTest(p) && anywhere(p) }, why: "a test that waits for time is slow or flaky; wait for what must happen, or use testing/synctest", except: regexp.MustCompile(`synctest\.Test`)},
	{what: regexp.MustCompile(`\bt\.Skip(Now|f)?\(`), in: func(p string) bool { return goTest(p) && anywhere(p) }, why: "a test that is skipped proves nothing; fail and say what is missing", except: regexp.MustCompile(`\*rapid\.T`)},
	{what: regexp.MustCompile(`\bfmt\.Print(f|ln)?\(`), in: internalCode, why: "standard output belongs to the command line, which prints to its own writer"},
	{what: regexp.MustCompile(`\blog\.(Print|Fatal|Panic)(f|ln)?\(`), in: internalCode, why: "logs go to the *slog.Logger that was handed in"},
	{what: regexp.MustCompile(`\bpanic\("(not implemented|unimplemented)`), in: goFile, why: "what is not there says so with an error"},
	{what: regexp.MustCompile(`(?i)\b(registry|proxy|mirror|packages)\.[a-z0-9-]+\.(org|com|io|dev)\b`), in: anywhere, why: "which package registry is used is the user's own setting"},
	{what: regexp.MustCompile(`(^|[\s"'(=])/(home|Users|root)/[a-z]`), in: anywhere, why: "paths of one machine mean nothing elsewhere"},
}

// files returns what git keeps, and what it would.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err == nil && len(out) > 0 {
		return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	}
	// Not a checkout, but an archive of the source.
	var all []string
	err = filepath.WalkDir(root(t), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root(t), path)
		all = append(all, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func text(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), path))
	if os.IsNotExist(err) {
		return nil // deleted and not committed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
		return nil // not text
	}
	return b
}

func TestTexts(t *testing.T) {
	for _, path := range files(t) {
		content := text(t, path)
		if content == nil || strings.HasSuffix(path, ".sum") || path == "LICENSE" {
			continue
		}
		for _, b := range bannedTexts {
			if !b.in(path) || b.except != nil && b.except.Match(content) {
				continue
			}
			for _, at := range b.what.FindAllIndex(content, 3) {
				line := 1 + bytes.Count(content[:at[0]], []byte("\n"))
				t.Errorf("%s:%d: %q: %s", path, line, content[at[0]:at[1]], b.why)
			}
		}
	}
}

// A file that is longer than this is about more than one thing.
const longest = 850

func TestFilesAreShort(t *testing.T) {
	for _, path := range files(t) {
		if !goFile(path) || strings.HasSuffix(path, "_templ.go") {
			continue
		}
		if n := bytes.Count(text(t, path), []byte("\n")); n > longest {
			t.Errorf("%s has %d lines: part it by subject", path, n)
		}
	}
}

var markdownLink = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)|(?:src|srcset)="([^"]+)"`)

// Links between the documents lead somewhere.
func TestDocumentLinks(t *testing.T) {
	seen := 0
	for _, path := range files(t) {
		if !strings.HasSuffix(path, ".md") {
			continue
		}
		for _, m := range markdownLink.FindAllStringSubmatch(string(text(t, path)), -1) {
			link := m[1] + m[3]
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(root(t), filepath.Dir(path), filepath.FromSlash(link))); err != nil {
				t.Errorf("%s links to %s, which is not there", path, link)
			}
		}
	}
	if seen == 0 {
		t.Error("no links were found: the test looks at nothing")
	}
}
