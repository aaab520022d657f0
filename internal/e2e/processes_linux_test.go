package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin"
)

// freePorts returns the first of n ports in a row that nobody listens on. They are below
// those that the kernel gives to whoever asks for any, and that other tests may be given
// before these are used.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 50 {
		first, all := 12_000+rand.IntN(20_000), true
		for port := first; port < first+n && all; port++ {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
			if all = err == nil; all {
				_ = l.Close()
			}
		}
		if all {
			return first
		}
	}
	t.Fatal("there are no ports")
	return 0
}

// The script of deploy/ starts what the compose file does: as many servers and workers,
// which all answer. Each of them could start what is due, and together they start it once:
// the pauses between the runs of a continuous sync are those of one scheduler.
func TestProcessesHaveOneScheduler(t *testing.T) {
	t.Parallel()
	var compose struct {
		Services map[string]struct {
			Command []string
			Deploy  struct{ Replicas int }
		}
	}
	text, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	servers, workers := compose.Services["serve"].Deploy.Replicas, compose.Services["worker"].Deploy.Replicas

	w := newStageOf(t, worldOptions{cfg: app.Config{DatabaseURL: pgtest.Database(t)}, twins: twin.Options{Seed: 3}})
	w.join(w.list("One", "contact", lockstep.ActionIgnore, ""), w.cast("contact", "ann@stage.example"))
	w.sync()
	for _, typ := range lockstep.SyncTypes {
		interval := lockstep.Manual
		if typ == lockstep.SyncMarketingLists {
			interval = lockstep.Continuous
		}
		if _, err := w.app.SetSchedule(t.Context(), w.account.ID, typ, lockstep.Schedule{Interval: interval}); err != nil {
			t.Fatal(err)
		}
	}
	yes := true
	if _, err := w.app.UpdateAccount(t.Context(), w.account.ID, app.AccountPatch{Automatic: &yes}); err != nil {
		t.Fatal(err)
	}
	w.reopen(false) // it works no more, and is asked what the others do

	port := freePorts(t, servers+workers)
	cmd := exec.Command("sh", "../../deploy/processes.sh", strconv.Itoa(port))
	cmd.Env = append(os.Environ(), "LOCKSTEP="+binary(t), "LOCKSTEP_DATABASE_URL="+w.cfg.DatabaseURL, "LOCKSTEP_DATA="+w.cfg.DataDir, "LOCKSTEP_ALLOW_HOST="+strings.Join(w.cfg.AllowHosts, ","))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil || strings.Contains(said.String(), "level=ERROR") {
				t.Errorf("the script ended with %v and said\n%s", err, said.String())
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Error("the script does not end")
		}
	})
	for i := range servers + workers {
		w.until(fmt.Sprintf("process %d answers", i+1), func() bool {
			select {
			case err := <-ended:
				ended <- err
				t.Fatal("the script has ended")
			default:
			}
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", port+i))
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	if pages, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/signin", port+servers-1)); err != nil || pages.StatusCode != http.StatusOK {
		t.Errorf("the last server has no pages: %v", err)
	}
	if pages, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/signin", port+servers)); err != nil || pages.StatusCode == http.StatusOK {
		t.Errorf("the first worker has pages: %v", err)
	}

	var runs []lockstep.Run
	w.until("five runs have ended", func() bool {
		runs = nil
		all, err := w.app.Runs(t.Context(), app.RunFilter{Account: w.account.ID, Type: lockstep.SyncMarketingLists, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range slices.Backward(all) {
			if r.Scheduled && r.Status.Ended() {
				runs = append(runs, r)
			}
		}
		return len(runs) >= 5
	})
	idle := 0
	for i, r := range runs {
		if r.Status != lockstep.RunCompleted {
			t.Errorf("run %d is %s: %s", i, r.Status, r.Error)
		}
		if i == 0 {
			continue
		}
		// While nothing happens each pause is twice the one before.
		if !runs[i-1].Counts.Quiet() {
			idle = 0
		}
		if got, least := r.Created.Sub(runs[i-1].Ended), time.Second<<idle-50*time.Millisecond; got < least {
			t.Errorf("run %d was started %s after the end of the one before, want %s at least", i, got, least)
		}
		if runs[i-1].Counts.Quiet() {
			idle++
		}
	}
}
