package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lockstep-sync/lockstep"

// pkg is a package as go list tells it.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	Standard     bool
}

// short is the path within the module: "" for the root package.
func (p pkg) short() string { return short(p.ImportPath) }

func short(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// root returns the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("there is no go.mod above this folder")
		}
		dir = filepath.Dir(dir)
	}
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,Name,Imports,TestImports,XTestImports,GoFiles,Standard", "./...")
	cmd.Dir = root(t)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, errs.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages were found", len(all))
	}
	return all
}

// rule says what packages of ours a part of the repository may import.
type rule struct {
	part string // a package, or with /... all below it too
	may  []string
	why  string
}

// rules are looked at in order; the first whose part fits decides. "." is the root
// package. What fits no rule may not exist.
var rules = []rule{
	{".", nil, "the root package is the language of everything else and stands on nothing"},
	{"cmd/...", []string{"internal/cli"}, "main is signals and the exit code"},
	{"bench/...", []string{".", "bench/...", "internal/..."}, "the benchmarks look at everything"},
	{"internal/architecture", nil, "it only looks"},

	{"internal/merge", []string{"."}, "what decides about values is pure"},
	{"internal/transform", []string{"."}, "what decides about values is pure"},
	{"internal/schedule", []string{"."}, "what decides about times is pure"},
	{"internal/subject", []string{"."}, "a filter is pure"},
	{"internal/journal", []string{".", "internal/subject"}, "a record format is pure"},
	{"internal/crosswalk", []string{".", "internal/transform", "internal/subject"}, "a record format is pure"},
	{"internal/consent", []string{"."}, "the form of a ledger, and its check, are pure"},
	{"internal/pagescan", []string{"."}, "a parser is pure"},
	{"internal/configuration", []string{"."}, "the form of a document, and how two differ, are pure"},
	{"internal/engine", []string{".", "internal/merge", "internal/transform", "internal/crosswalk", "internal/journal"}, "the engine works through the ports, so that any CRM, platform and database will do"},

	{"internal/remote", []string{"."}, "the transport knows no vendor"},
	{"internal/secret", []string{"."}, "sealing knows no database"},
	{"internal/telemetry", []string{"."}, "logs and metrics know nobody"},
	{"internal/adapter", []string{".", "internal/remote"}, "the register knows no adapter, only what may be called"},
	{"internal/adapter/dynamics/...", []string{".", "internal/adapter", "internal/remote", "internal/secret", "internal/pagescan", "internal/adapter/dynamics/..."}, "an adapter knows its own vendor and no other part of the product"},
	{"internal/adapter/...", []string{".", "internal/adapter", "internal/remote", "internal/secret", "internal/pagescan"}, "an adapter knows its own vendor and no other part of the product"},
	{"internal/adaptertest", []string{".", "internal/adapter"}, "the conformance suites see an adapter through its port"},

	{"internal/store/pgtest", nil, "it starts a database for tests and nothing else"},
	{"internal/store", []string{".", "internal/secret", "internal/consent", "internal/crosswalk", "internal/journal", "internal/subject"}, "the store keeps what others decide; of the forms in which they keep it, it knows what an erasure must reach, and whom a piece is about"},
	{"internal/jobs", []string{".", "internal/store"}, "jobs decide when, the engine decides what"},
	{"internal/identity", []string{".", "internal/store"}, "who may do what does not depend on what there is to do"},

	{"internal/app/apptest", []string{".", "internal/..."}, "a world for tests"},
	{"internal/app", []string{
		".", "internal/adapter/...", "internal/configuration", "internal/consent", "internal/crosswalk", "internal/engine", "internal/identity", "internal/jobs", "internal/journal", "internal/merge",
		"internal/schedule", "internal/secret", "internal/store", "internal/subject", "internal/telemetry", "internal/transform",
	}, "app wires everything, but knows neither twins nor surfaces"},
	{"internal/api", []string{".", "internal/app", "internal/configuration"}, "a surface shows use cases and does nothing itself"},
	{"internal/web/...", []string{".", "internal/app", "internal/api", "internal/web/..."}, "a surface shows use cases and does nothing itself"},
	{"internal/cli", []string{".", "internal/app", "internal/configuration", "internal/adapter", "internal/web", "internal/twin", "internal/twin/population"}, "the command line starts servers and twins and otherwise shows use cases; of adapters it knows the register alone"},

	{"internal/twin/...", []string{"internal/twin/..."}, "a twin that shared code with the product would share its mistakes"},
	{"internal/e2e", []string{".", "internal/..."}, "the end-to-end tests see everything"},
	{"internal/prove", []string{".", "internal/..."}, "the simulation sees everything"},
}

func fits(path, part string) bool {
	if tree, ok := strings.CutSuffix(part, "/..."); ok {
		return path == tree || strings.HasPrefix(path, tree+"/")
	}
	if part == "." {
		part = ""
	}
	return path == part
}

// checkImports returns what is wrong with the imports of a package.
func checkImports(p pkg) []string {
	i := slices.IndexFunc(rules, func(r rule) bool { return fits(p.short(), r.part) })
	if i < 0 {
		return []string{p.ImportPath + " has no rule: add one to internal/architecture and say why"}
	}
	r := rules[i]
	var wrong []string
	for _, path := range p.Imports {
		if ours(path) && !slices.ContainsFunc(r.may, func(part string) bool { return fits(short(path), part) }) {
			wrong = append(wrong, p.ImportPath+" must not import "+path+": "+r.why)
		}
		if p.short() == "" && strings.Contains(path, ".") {
			wrong = append(wrong, "the root package must not import "+path+": it stands on the standard library alone")
		}
		if strings.HasPrefix(path, "github.com/riverqueue/") && p.short() != "internal/jobs" {
			wrong = append(wrong, p.ImportPath+" must not import "+path+": internal/jobs alone knows how runs are queued")
		}
	}
	// A twin's tests may not look at the product either.
	if fits(p.short(), "internal/twin/...") {
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if ours(path) && !fits(short(path), "internal/twin/...") {
				wrong = append(wrong, "tests of "+p.ImportPath+" must not import "+path+": "+r.why)
			}
		}
	}
	return wrong
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, problem := range checkImports(p) {
			t.Error(problem)
		}
	}
}

// The rules must be able to refuse.
func TestRulesRefuse(t *testing.T) {
	for _, p := range []pkg{
		{ImportPath: module, Imports: []string{"github.com/spf13/cobra"}},
		{ImportPath: module, Imports: []string{module + "/internal/merge"}},
		{ImportPath: module + "/internal/merge", Imports: []string{module + "/internal/store"}},
		{ImportPath: module + "/internal/engine", Imports: []string{module + "/internal/adapter/dotdigital"}},
		{ImportPath: module + "/internal/engine", Imports: []string{module + "/internal/store"}},
		{ImportPath: module + "/internal/adapter/dotdigital", Imports: []string{module + "/internal/adapter/dynamics"}},
		{ImportPath: module + "/internal/adapter/dynamics/webapi", Imports: []string{module + "/internal/store"}},
		{ImportPath: module + "/internal/twin/dataverse", Imports: []string{module}},
		{ImportPath: module + "/internal/twin/dataverse", TestImports: []string{module + "/internal/adapter/dynamics"}},
		{ImportPath: module + "/internal/cli", Imports: []string{module + "/internal/store"}},
		{ImportPath: module + "/internal/web", Imports: []string{module + "/internal/engine"}},
		{ImportPath: module + "/internal/app", Imports: []string{module + "/internal/twin"}},
		{ImportPath: module + "/internal/store", Imports: []string{"github.com/riverqueue/river"}},
		{ImportPath: module + "/internal/unheard"},
	} {
		if len(checkImports(p)) == 0 {
			t.Errorf("the rules allow %s to import %v", p.ImportPath, slices.Concat(p.Imports, p.TestImports))
		}
	}
	if problems := checkImports(pkg{ImportPath: module + "/internal/api", Imports: []string{"net/http", module, module + "/internal/app"}}); problems != nil {
		t.Errorf("the rules refuse what is right: %v", problems)
	}
}
