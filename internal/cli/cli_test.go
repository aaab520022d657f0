package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep/internal/twin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what a command line came to.
type outcome struct {
	code     int
	out, err string
}

func lockstepIn(ctx context.Context, stdin string, args ...string) outcome {
	var out, errs bytes.Buffer
	code := Main(ctx, Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs}, args)
	return outcome{code, out.String(), errs.String()}
}

func run(t *testing.T, args ...string) outcome {
	t.Helper()
	return lockstepIn(t.Context(), "", args...)
}

// want checks the exit code and that the output holds these texts.
func (o outcome) want(t *testing.T, code int, texts ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.out, o.err)
	}
	for _, s := range texts {
		if !strings.Contains(o.out+o.err, s) {
			t.Errorf("the output lacks %q\nstdout: %s\nstderr: %s", s, o.out, o.err)
		}
	}
	return o
}

// object decodes standard output, which must be one JSON object and nothing else.
func (o outcome) object(t *testing.T, into any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(o.out))
	if err := dec.Decode(into); err != nil {
		t.Fatalf("standard output is not JSON: %v\n%s", err, o.out)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("something follows the JSON object on standard output:\n%s", o.out)
	}
	if !strings.HasPrefix(o.out, "{") {
		t.Fatalf("standard output is not an object:\n%s", o.out)
	}
}

// company starts twins and writes their ready file.
func company(t *testing.T, contacts int) (*twin.Twins, string) {
	t.Helper()
	tw, err := twin.Start(t.Context(), twin.Options{Contacts: contacts, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tw.Close(); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(t.TempDir(), "twins.json")
	if err := tw.WriteReady(path); err != nil {
		t.Fatal(err)
	}
	return tw, path
}

// signal is a writer that tells when a text has been written.
type signal struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen chan struct{}
	done bool
}

func (s *signal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p)
	if !s.done && strings.Contains(s.buf.String(), s.text) {
		s.done = true
		close(s.seen)
	}
	return len(p), nil
}

func (s *signal) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// started is a command that serves until it is stopped.
type started struct {
	out, err *signal
	cancel   context.CancelFunc
	ended    chan struct{}
	code     int
}

// start starts a command and returns when its output holds text; text is looked for
// on standard error with onErr, otherwise on standard output.
func start(t *testing.T, onErr bool, text string, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &started{out: &signal{text: "\x00", seen: make(chan struct{})}, err: &signal{text: "\x00", seen: make(chan struct{})}, cancel: cancel, ended: make(chan struct{})}
	wait := s.out
	if onErr {
		wait = s.err
	}
	wait.text = text
	go func() {
		defer close(s.ended)
		s.code = Main(ctx, Streams{In: strings.NewReader(""), Out: s.out, Err: s.err}, args)
	}()
	t.Cleanup(func() { s.stop(t) })
	select {
	case <-wait.seen:
	case <-s.ended:
		t.Fatalf("the command ended with %d\nstdout: %s\nstderr: %s", s.code, s.out, s.err)
	case <-time.After(time.Minute):
		t.Fatalf("the command says nothing like %q\nstdout: %s\nstderr: %s", text, s.out, s.err)
	}
	return s
}

func (s *started) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		t.Fatal("the command does not stop")
	}
}

func TestUsage(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"frobnicate", `no command "frobnicate" in this version`},
		{"undo", "needs the id of a run"},
		{"undo 5 --record ann --data x", "--record cannot be"},
		{"explain", "needs an email address"},
		{"worker", "a worker shares a PostgreSQL database"},
		{"sync", "needs a command after it"},
		{"sync walk", `no command "walk"`},
		{"rnus", "did you mean runs?"},
		{"version now", `does not take "now"`},
		{"--frob", "unknown flag: --frob"},
		{"version --log-level loud", "is not a log level"},
		{"version --log-format xml", "is not a log format"},
		{"serve", "needs a place for its data"},
		{"sync run --type nothing --data x", "is not a sync type of this version"},
		{"sync run", "it is not clear which Lockstep is meant"},
		{"sync run --server nothing --token x", "the server's address is not one"},
		{"sync run --server http://127.0.0.1:1", "needs an API token"},
		{"sync apply", "needs the id of a preview"},
		{"runs show", "needs the id of a run"},
		{"runs --limit 0 --data x", "--limit cannot be 0"},
		{"runs --ready-file nowhere", "the ready file cannot be read"},
		{"runs --ready-file " + text, "does not say where Lockstep answers"},
		{"lists set x", "nothing to set"},
		{"demo --contacts 0", "cannot be made"},
		{"demo --contacts many", "invalid argument"},
		{"demo --twins nowhere", "ready file"},
		{"demo --twins nowhere --contacts 7", "--contacts and --seed"},
		{"twin --listen-host everywhere", "is not an address to listen on"},
		{"connect test dotdigital", "--user is missing"},
		{"connect test dynamics --url http://127.0.0.1:1", "--client-id is missing"},
		{"connect test dotdigital --user x --password-file nowhere", "the file with the secret cannot be read"},
		{"connect organization --url https://x.example", "needs a place to be kept in"},
		{"version --config nowhere", "the configuration file cannot be read"},
	} {
		o := run(t, strings.Fields(c.args)...).want(t, ExitUsage, c.want)
		if o.out != "" {
			t.Errorf("%s: standard output is not empty: %s", c.args, o.out)
		}
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		o := run(t, append(path, "--help")...).want(t, ExitDone, "Examples:\n  ", "Usage:")
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: the help names no example of the command itself:\n%s", c.CommandPath(), o.out)
		}
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk((&environment{}).root())
}

func TestVersion(t *testing.T) {
	run(t, "version").want(t, ExitDone, "lockstep ")
	var v versionInfo
	run(t, "version", "--json").want(t, ExitDone).object(t, &v)
	if v.Go == "" || v.Version == "" {
		t.Errorf("the version lacks something: %+v", v)
	}
}

func TestUnreachableServer(t *testing.T) {
	var failed struct {
		Error struct{ Code, Message, Hint string }
	}
	o := run(t, "runs", "--server", "http://127.0.0.1:1", "--token", "x", "--json").want(t, ExitFailed, "no answer from http://127.0.0.1:1")
	o.object(t, &failed)
	if failed.Error.Code != "unavailable" || failed.Error.Hint == "" {
		t.Errorf("error in JSON: %+v", failed.Error)
	}
}

func TestReadableFiguresAndWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
	for s, want := range map[string]string{"plain-1.x": "plain-1.x", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := quote(s); got != want {
			t.Errorf("quote(%s) = %s, want %s", s, got, want)
		}
	}
	if got := bar(50, 100); got != strings.Repeat("█", 12)+strings.Repeat("░", 12)+"  50%" {
		t.Errorf("bar: %s", got)
	}
	if got := bar(300, 100); !strings.HasSuffix(got, "100%") {
		t.Errorf("a bar beyond its end: %s", got)
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	p.begin("Syncing")
	p.update("reading", 1200, 0)
	p.update("reading", 1300, 0) // the same stage within seconds: not again
	p.update("writing", 1300, 0)
	p.end("done")
	if want := "Syncing …\n  0s: reading, 1,200 read\n  0s: writing, 1,300 read\nSyncing  done\n"; b.String() != want {
		t.Errorf("plain progress:\n%s\nwant:\n%s", b.String(), want)
	}
	b.Reset()
	p = newProgress(&b)
	p.terminal, p.width = true, 20
	p.begin("Syncing")
	p.update("reading something long", 5, 10)
	p.end("done")
	if s := b.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "\r\x1b[2K") || !strings.HasSuffix(s, "✓ Syncing  done\n") {
		t.Errorf("terminal progress: %q", s)
	}
}
