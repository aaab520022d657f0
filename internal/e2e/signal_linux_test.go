package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// gate counts the calls that reach the twins and does something at one of them: before
// it is carried out, or after.
type gate struct {
	mu    sync.Mutex
	calls int
	at    int // 0 = at none
	do    func()
	after bool
	fired chan struct{}
	hold  chan struct{} // the call waits for this before it is carried out; nil = it does not
}

func (g *gate) arm(at int, after bool, hold chan struct{}, do func()) (fired chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls, g.at, g.after, g.hold, g.do, g.fired = 0, at, after, hold, do, make(chan struct{})
	return g.fired
}

func (g *gate) wrap(_ string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.calls++
		hit := g.calls == g.at
		after, do, hold, fired := g.after, g.do, g.hold, g.fired
		g.mu.Unlock()
		fire := func() {
			do()
			close(fired)
		}
		if hit && !after {
			fire()
		}
		if hit && hold != nil {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		next.ServeHTTP(w, r)
		if hit && after {
			fire()
		}
	})
}

// program is the real program at work.
type program struct {
	t        *testing.T
	cmd      *exec.Cmd
	stopping chan struct{} // closed when it says that it stops
	ended    chan struct{}
	mu       sync.Mutex
	said     bytes.Buffer
	ready    string
}

func serve(t *testing.T, exe string, w *world) *program {
	t.Helper()
	p := &program{t: t, stopping: make(chan struct{}), ended: make(chan struct{}), ready: filepath.Join(t.TempDir(), "ready.json")}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--data", w.cfg.DataDir, "--ready-file", p.ready}
	for _, h := range w.cfg.AllowHosts {
		args = append(args, "--allow-host", h)
	}
	p.cmd = exec.Command(exe, args...)
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		var once sync.Once
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.said, lines.Text())
			p.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "Stopping") {
				once.Do(func() { close(p.stopping) })
			}
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *program) signal() {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal: %v", err)
	}
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// wait waits for the program's end.
func (p *program) wait(limit time.Duration) syscall.WaitStatus {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("the program did not end within %s; it said:\n%s", limit, p.text())
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// access reads where the program answers, once it does.
func (p *program) access() (url, token string) {
	p.t.Helper()
	var r struct{ URL, Token string }
	p.until("the program answers", func() bool {
		text, err := os.ReadFile(p.ready)
		return err == nil && json.Unmarshal(text, &struct{ Lockstep any }{&r}) == nil && r.URL != ""
	})
	return r.URL, r.Token
}

// until looks again and again until something is so.
func (p *program) until(what string, so func() bool) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer stop()
	for look := time.NewTicker(20 * time.Millisecond); !so(); {
		select {
		case <-look.C:
		case <-p.ended:
			p.t.Fatalf("waiting until %s, the program ended: %s", what, p.text())
		case <-ctx.Done():
			p.t.Fatalf("%s: not within two minutes; it said:\n%s", what, p.text())
		}
	}
}

// queued sees to it that there is a run to be done: it opens the product without
// working on it.
func (w *world) queued(dice *rand.Rand) (run string) {
	w.t.Helper()
	a, err := app.Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.app = a
	defer func() {
		if err := a.Close(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}()
	runs, err := a.Runs(w.t.Context(), app.RunFilter{Type: lockstep.SyncMarketingLists, Limit: 5})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range runs {
		if !r.Status.Ended() {
			return r.ID
		}
	}
	if dice == nil {
		return ""
	}
	w.mischief(dice, 15)
	r, err := a.StartRun(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: lockstep.SyncMarketingLists})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.ID
}

func get(url string) (status int, body string, err error) {
	res, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// limitFiles makes every write of a process to a file fail, or ends that: a file may
// not grow beyond a limit that is nothing or everything.
func (p *program) limitFiles(none bool) {
	p.t.Helper()
	limit := syscall.Rlimit{Cur: ^uint64(0), Max: ^uint64(0)}
	if none {
		limit.Cur = 0
	}
	const fileSize = 1 // RLIMIT_FSIZE
	if _, _, e := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(p.cmd.Process.Pid), fileSize, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); e != 0 {
		p.t.Errorf("limit the files of the program: %v", e)
	}
}

// The real program is told to stop while a call of a run is on its way, is told twice,
// and loses its disk for a while. It ends in order and in time, or at once, or goes on
// when there is room again; whoever comes after it finishes the work.
func TestSignalsAndFullDiskOfTheBinary(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "lockstep")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "github.com/lockstep-sync/lockstep/cmd/lockstep").CombinedOutput(); err != nil {
		t.Fatalf("build lockstep: %v\n%s", err, out)
	}
	g := &gate{}
	w := newWorld(t, worldOptions{twins: twin.Options{Contacts: 200, Seed: 31, PlatformShare: 0.1, Wrap: g.wrap}})
	before := w.booksNow()
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(*drawn, 31))

	// Told once.
	rounds, reach := 5, 12
	if *thorough {
		rounds, reach = 60, 40
	}
	during := 0
	for i := range rounds {
		at, after := 1+i%reach, i%2 == 1
		if !*thorough {
			at = 1 + dice.IntN(reach)
		}
		w.queued(dice)
		var p *program
		started := make(chan struct{})
		fired := g.arm(at, after, nil, func() { <-started; p.signal() })
		p = serve(t, exe, w)
		close(started)
		select {
		case <-fired:
			during++
		case <-time.After(10 * time.Second): // a run of fewer calls; it has nothing to do
			g.arm(0, false, nil, nil)
			p.signal()
		}
		began := time.Now()
		if status := p.wait(30 * time.Second); status.ExitStatus() != 0 {
			t.Errorf("told to stop at call %d, it ended with %d: %s", at, status.ExitStatus(), p.text())
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("told to stop at call %d, it took %s", at, took)
		}
	}
	if during < rounds/2 {
		t.Errorf("only %d of %d signals came during a run", during, rounds)
	}

	// Told twice: the other side does not answer, and nobody wants to wait any more.
	w.queued(dice)
	hold := make(chan struct{})
	fired := g.arm(4, false, hold, func() {})
	p := serve(t, exe, w)
	<-fired
	p.signal()
	<-p.stopping
	began := time.Now()
	for again := time.NewTicker(50 * time.Millisecond); ; { // the first one may still be on its way to having its effect
		p.signal()
		select {
		case <-again.C:
			continue
		case <-p.ended:
		}
		break
	}
	status := p.wait(time.Second)
	if !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("told twice to stop, it ended with %v: %s", status, p.text())
	}
	t.Logf("%d of %d signals came during a run; told twice, it took %s", during, rounds, time.Since(began))
	close(hold)

	if *thorough {
		w.stopsInTime(exe, g)
	}

	// No room: the readiness probe says so, and nothing is written to either side.
	w.queued(dice)
	hold = make(chan struct{})
	fired = g.arm(6, false, hold, func() {})
	p = serve(t, exe, w)
	url, _ := p.access()
	<-fired
	p.limitFiles(true)
	w.resetCalls()
	close(hold)
	var answer string
	p.until("the probe tells of the disk", func() bool {
		status, body, err := get(url + "/readyz")
		answer = body
		return err == nil && status == http.StatusServiceUnavailable
	})
	if !strings.HasPrefix(answer, "not ready: The d") {
		t.Errorf("the probe says %q", answer)
	}
	wrote := w.allWrites()
	for range 20 {
		if status, body, err := get(url + "/readyz"); err != nil || status != http.StatusServiceUnavailable {
			t.Errorf("without room the probe says %d %q, %v", status, body, err)
		}
	}
	if n := w.allWrites() - wrote; n != 0 {
		t.Errorf("%d writes while nothing could be stored", n)
	}
	p.limitFiles(false)
	p.until("it is ready again", func() bool {
		status, _, err := get(url + "/readyz")
		return err == nil && status == http.StatusOK
	})
	if *thorough { // a job whose end could not be stored is taken over after 40 seconds
		p.until("the twins hear of it again", func() bool { return w.calls("dataverse")["contact.delta"] > 0 })
	}
	p.signal()
	if status := p.wait(30 * time.Second); status.ExitStatus() != 0 {
		t.Errorf("after the disk was full, it ended with %d: %s", status.ExitStatus(), p.text())
	}

	live := w.queued(nil)
	w.open()
	if live != "" {
		run, err := w.app.Wait(t.Context(), live)
		if err != nil {
			t.Fatal(err)
		}
		addsUp(t, run)
	}
	w.sync()
	w.sync()
	w.agree(before)
	w.silent("signals and a full disk")
}

// stopsInTime tells the program to stop while the other side does not answer and a
// client is slow: it ends in order within the 30 seconds that service managers grant.
func (w *world) stopsInTime(exe string, g *gate) {
	w.t.Helper()
	w.queued(rand.New(rand.NewPCG(*drawn, 32)))
	hold := make(chan struct{})
	defer close(hold)
	fired := g.arm(4, false, hold, func() {})
	p := serve(w.t, exe, w)
	url, _ := p.access()
	slow, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "POST /api/v1/consent HTTP/1.1\r\nHost: "+strings.TrimPrefix(url, "http://")+"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		w.t.Fatal(err)
	}
	<-fired
	p.signal()
	began := time.Now()
	if status := p.wait(30 * time.Second); status.ExitStatus() != 0 {
		w.t.Errorf("told to stop while the other side does not answer, it ended with %v: %s", status, p.text())
	}
	w.t.Logf("told to stop while the other side does not answer, it took %s", time.Since(began))
}
