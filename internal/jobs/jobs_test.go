//go:build unix

package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

// workEnv makes the test program the worker that TestKill kills: "path" or "url" of
// its database, a blank, its run.
const workEnv = "LOCKSTEP_TEST_WORK"

func TestMain(m *testing.M) {
	if work := os.Getenv(workEnv); work != "" {
		kind, where, _ := strings.Cut(work, " ")
		o := store.Options{Path: where}
		if kind == "url" {
			o = store.Options{URL: where}
		}
		s, err := store.Open(context.Background(), o)
		if err == nil {
			var j *Jobs
			if j, err = newJobs(context.Background(), s, counter{s, 3}, nil, nil, quick); err == nil {
				err = j.Start(context.Background())
			}
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		select {}
	}
	pgtest.Main(m)
}

// quick is usual at the speed of tests.
var quick = timing{
	slice: time.Second, softStop: 10 * time.Second,
	stall: 30 * time.Second, beat: 50 * time.Millisecond, deadAfter: 10 * time.Second,
	cancelGrace: 50 * time.Millisecond, watch: 20 * time.Millisecond, window: 50 * time.Millisecond, wake: 10 * time.Millisecond,
	firstPause: 10 * time.Millisecond, longPause: 40 * time.Millisecond, giveUp: time.Hour,
}

// runner is a Runner made of a function.
type runner func(ctx context.Context, run string, budget time.Duration) (bool, error)

func (r runner) Slice(ctx context.Context, run string, budget time.Duration) (bool, error) {
	return r(ctx, run, budget)
}

// counter commits one link batch a slice, with the next number, until there are six.
// It hangs after stop of them.
type counter struct {
	s    *store.Store
	stop int
}

const countTo = 6

func (c counter) Slice(ctx context.Context, id string, _ time.Duration) (bool, error) {
	run, err := c.s.Run(ctx, id)
	if err != nil {
		return false, err
	}
	progress, err := c.s.Progress(ctx, id)
	if err != nil {
		return false, err
	}
	n := byte(1)
	if len(progress) == 1 {
		n += progress[0]
	}
	if err := c.s.Commit(ctx, lockstep.Commit{Run: id, Account: run.Account, Links: [][]byte{{n}}, Progress: []byte{n}, Counts: lockstep.Counts{Read: 1, Written: 1}}); err != nil {
		return false, err
	}
	if int(n) == c.stop {
		fmt.Println("hanging")
		<-ctx.Done()
		return false, ctx.Err()
	}
	return n == countTo, nil
}

func engines(t *testing.T, test func(t *testing.T, o store.Options)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, store.Options{Path: t.TempDir()}) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, store.Options{URL: pgtest.Database(t)}) })
}

// fixture is an open store with an account, and a job runner on it.
type fixture struct {
	*Jobs
	s       *store.Store
	account string
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o store.Options) (*store.Store, string) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, o)
	ok(t, err)
	t.Cleanup(func() { _ = s.Close() })
	org, err := s.SaveOrganization(ctx, lockstep.Organization{ID: "org"})
	ok(t, err)
	a, err := s.SaveAccount(ctx, lockstep.EmailAccount{ID: "account", Organization: org.ID})
	ok(t, err)
	return s, a.ID
}

func setUp(t *testing.T, o store.Options, timing timing, r Runner) fixture {
	t.Helper()
	s, account := open(t, o)
	j, err := newJobs(context.Background(), s, r, nil, nil, timing)
	ok(t, err)
	return fixture{j, s, account}
}

func (f fixture) begin(t *testing.T) {
	t.Helper()
	ok(t, f.Start(context.Background()))
	t.Cleanup(func() { f.end(t) })
}

func (f fixture) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ok(t, f.Stop(ctx))
}

func (f fixture) enqueue(t *testing.T, list string) lockstep.Run {
	t.Helper()
	run, err := f.Enqueue(context.Background(), lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists, List: list})
	ok(t, err)
	return run
}

func (f fixture) wait(t *testing.T, id string) lockstep.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	run, err := f.Wait(ctx, id)
	if err != nil {
		t.Fatalf("run %+v: %v", run, err)
	}
	return run
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing happened")
	}
	return v
}

func wantCode(t testing.TB, err error, code lockstep.Code) {
	t.Helper()
	if got := lockstep.CodeOf(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
}

func (f fixture) links(t *testing.T) (all []byte) {
	t.Helper()
	ok(t, f.s.Links(context.Background(), f.account, 0, func(b lockstep.StoredBlob) error { all = append(all, b.Payload...); return nil }))
	return all
}

func TestSlices(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		var f fixture
		f = setUp(t, o, quick, runner(func(ctx context.Context, id string, budget time.Duration) (bool, error) {
			if budget != quick.slice {
				t.Errorf("budget %v", budget)
			}
			return counter{s: f.s}.Slice(ctx, id, budget)
		}))
		f.begin(t)
		run := f.enqueue(t, "")
		got := f.wait(t, run.ID)
		if got.Status != lockstep.RunCompleted || got.Counts.Written != countTo {
			t.Fatalf("%+v", got)
		}
		if l := string(f.links(t)); l != "\x01\x02\x03\x04\x05\x06" {
			t.Fatalf("links %q", l)
		}
		if again := f.enqueue(t, ""); again.ID == run.ID {
			t.Fatal("an ended run is in the way of the next")
		}
	})
}

func TestOutcome(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		var f fixture
		f = setUp(t, o, quick, runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
			run, err := f.s.Run(ctx, id)
			if err != nil {
				return false, err
			}
			switch run.List {
			case "finding":
				err = f.s.Commit(ctx, lockstep.Commit{Run: id, Account: run.Account, Counts: lockstep.Counts{Read: 1, Rejected: 1}})
			case "own":
				_, err = f.s.EndRun(ctx, id, lockstep.RunCancelled, "by itself", "")
			case "broken":
				err = &lockstep.Error{Code: lockstep.CodeForbidden, Op: "dynamics: read", Msg: "The user lacks a right.", Hint: "Assign the role."}
			case "guarded":
				err = fmt.Errorf("engine: %w", &lockstep.Error{Code: lockstep.CodeGuarded, Msg: "Too many removals."})
			case "foreign":
				err = errors.New("no code, ada@contoso.com")
			case "cancelled":
				err = &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "Enough."}
			case "panic":
				panic("ada@contoso.com")
			}
			return true, err
		}))
		f.begin(t)
		for list, want := range map[string]lockstep.Run{
			"plain":     {Status: lockstep.RunCompleted},
			"finding":   {Status: lockstep.RunCompletedWithErrors},
			"own":       {Status: lockstep.RunCancelled, Error: "by itself"},
			"broken":    {Status: lockstep.RunFailed, Error: "The user lacks a right.", Hint: "Assign the role."},
			"guarded":   {Status: lockstep.RunFailed, Error: "Too many removals."},
			"foreign":   {Status: lockstep.RunFailed, Error: "Internal error."},
			"cancelled": {Status: lockstep.RunCancelled, Error: "Enough."},
			"panic":     {Status: lockstep.RunFailed, Error: "Internal error.", Hint: "See the log; this is a fault of Lockstep."},
		} {
			got := f.wait(t, f.enqueue(t, list).ID)
			if got.Status != want.Status || got.Error != want.Error || got.Hint != want.Hint {
				t.Errorf("%s: %+v", list, got)
			}
		}
		preview, err := f.Enqueue(context.Background(), lockstep.Run{Account: f.account, Type: lockstep.SyncDataLabels, Mode: lockstep.ModePreview})
		ok(t, err)
		if got := f.wait(t, preview.ID); got.Status != lockstep.RunPreviewed {
			t.Errorf("preview: %+v", got)
		}
	})
}

func TestEnqueue(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		working, goOn := make(chan string), make(chan bool)
		f := setUp(t, o, quick, runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
			working <- id
			<-goOn
			return true, nil
		}))
		// Many at once make one run and one job.
		runs := make([]lockstep.Run, 8)
		var wg sync.WaitGroup
		for i := range runs {
			wg.Go(func() {
				var err error
				if runs[i], err = f.Enqueue(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, r := range runs {
			if r.ID == "" || r.ID != runs[0].ID {
				t.Fatalf("runs %q and %q", runs[0].ID, r.ID)
			}
		}
		// Another mode is other work, and other lists do not mind.
		got, err := f.Enqueue(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
		wantCode(t, err, lockstep.CodeConflict)
		if got.ID != runs[0].ID {
			t.Fatalf("in the way is %q", got.ID)
		}
		other, err := f.Enqueue(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncDataLabels})
		ok(t, err)
		_, err = f.Enqueue(ctx, lockstep.Run{Account: "none", Type: lockstep.SyncMarketingLists})
		wantCode(t, err, lockstep.CodeNotFound)

		// Run and job are stored together or not at all.
		boom := errors.New("boom")
		err = f.s.InTx(ctx, func(tx store.Tx) error {
			if _, err := f.EnqueueIn(ctx, tx, lockstep.Run{ID: "gone", Account: f.account, Type: lockstep.SyncForms}); err != nil {
				t.Error(err)
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		f.begin(t)
		seen := map[string]bool{receive(t, working): true, receive(t, working): true}
		if len(seen) != 2 || !seen[other.ID] || !seen[runs[0].ID] {
			t.Fatalf("worked on %v", seen)
		}
		list := f.enqueue(t, "list") // waits: one run at a time works on an account's lists
		// What is asked for again while it is in process follows once, however often.
		var again lockstep.Run
		for range 3 {
			again, err = f.Enqueue(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists})
			ok(t, err)
			if again.ID != runs[0].ID || again.Status != lockstep.RunInProcess || again.Again == "" {
				t.Fatalf("%+v", again)
			}
		}
		_, err = f.Enqueue(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
		wantCode(t, err, lockstep.CodeConflict)
		close(goOn)
		for range 2 {
			if id := receive(t, working); id != again.Again && id != list.ID {
				t.Fatalf("worked on %s", id)
			}
		}
		for _, id := range []string{runs[0].ID, other.ID, list.ID, again.Again} {
			if got := f.wait(t, id); got.Status != lockstep.RunCompleted || id == again.Again && got.Again != "" {
				t.Errorf("%+v", got)
			}
		}
		_, err = f.s.Run(ctx, "gone")
		wantCode(t, err, lockstep.CodeNotFound)
	})
}

func TestTransient(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		var calls atomic.Int64
		var stages sync.Map
		timing := quick
		var f fixture
		f = setUp(t, o, timing, runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
			n := calls.Add(1)
			run, err := f.s.Run(ctx, id)
			if err != nil {
				return false, err
			}
			stages.Store(n, run.Stage)
			switch n {
			case 1:
				return false, &lockstep.Error{Code: lockstep.CodeThrottled, Msg: "Too many requests.", After: 20 * time.Millisecond}
			case 2:
				return false, fmt.Errorf("read: %w", &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "Nobody answers."})
			case 3:
				return false, nil
			case 4:
				return false, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "Nobody answers."}
			}
			return true, nil
		}))
		f.begin(t)
		got := f.wait(t, f.enqueue(t, "").ID)
		if got.Status != lockstep.RunCompleted || calls.Load() != 5 {
			t.Fatalf("%+v after %d slices", got, calls.Load())
		}
		if stage, _ := stages.Load(int64(2)); stage != "waiting 0s: Too many requests." {
			t.Fatalf("stage %q", stage)
		}
	})
}

func TestGiveUp(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		timing := quick
		timing.giveUp = 30 * time.Millisecond
		f := setUp(t, o, timing, runner(func(context.Context, string, time.Duration) (bool, error) {
			return false, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "Nobody answers.", Hint: "Check the network."}
		}))
		f.begin(t)
		got := f.wait(t, f.enqueue(t, "").ID)
		if got.Status != lockstep.RunFailed || got.Error != "Nobody answers." || got.Hint != "Check the network." {
			t.Fatalf("%+v", got)
		}
	})
}

func TestSliceTimeout(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		var calls atomic.Int64
		timing := quick
		timing.stall = 50 * time.Millisecond
		f := setUp(t, o, timing, runner(func(ctx context.Context, _ string, _ time.Duration) (bool, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return false, ctx.Err()
			}
			return true, nil
		}))
		f.begin(t)
		if got := f.wait(t, f.enqueue(t, "").ID); got.Status != lockstep.RunCompleted || calls.Load() != 2 {
			t.Fatalf("%+v after %d slices", got, calls.Load())
		}
	})
}

// However long a slice takes, it is left alone as long as it makes calls.
func TestLongSlice(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		var calls, slices atomic.Int64
		timing := quick
		timing.stall = 400 * time.Millisecond
		f := setUp(t, o, timing, runner(func(ctx context.Context, _ string, _ time.Duration) (bool, error) {
			slices.Add(1)
			ctx = lockstep.WithMeter(ctx, &lockstep.Meter{}) // a run counts its own
			tick := time.NewTicker(timing.stall / 20)
			defer tick.Stop()
			for calls.Load() < 60 {
				select {
				case <-ctx.Done():
					return false, ctx.Err()
				case <-tick.C:
					calls.Add(1)
					lockstep.MeterFrom(ctx).Count(lockstep.SystemCRM, false)
				}
			}
			return true, nil
		}))
		f.begin(t)
		if got := f.wait(t, f.enqueue(t, "").ID); got.Status != lockstep.RunCompleted || slices.Load() != 1 {
			t.Fatalf("%+v after %d slices", got, slices.Load())
		}
	})
}

// Two processes share a database: what one works on is its own as long as it lives,
// and the other's soon after it does not; when it wakes up again, it can store nothing
// and takes nothing back.
func TestTakenOver(t *testing.T) {
	ctx := context.Background()
	o := store.Options{URL: pgtest.Database(t)}
	asleep, wake, refused := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first := setUp(t, o, quick, nil)
	first.runner = runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
		close(asleep)
		<-wake
		err := first.s.Commit(context.WithoutCancel(ctx), lockstep.Commit{Run: id, Account: first.account, Links: [][]byte{{99}}})
		refused <- err
		return false, err
	})
	first.begin(t)
	run := first.enqueue(t, "")
	receive(t, asleep)

	s, err := store.Open(ctx, o)
	ok(t, err)
	t.Cleanup(func() { _ = s.Close() })
	second := fixture{s: s, account: first.account}
	soon := quick
	soon.deadAfter = 2 * time.Second
	second.Jobs, err = newJobs(ctx, s, counter{s: s}, nil, nil, soon)
	ok(t, err)
	second.begin(t)
	// Both live for longer than it takes to be held for dead.
	for look := time.NewTicker(soon.beat); ; <-look.C {
		beats, err := s.Beats(ctx)
		ok(t, err)
		if len(second.links(t)) > 0 {
			t.Fatal("the run was taken from a process that lives")
		}
		if beats[second.queue.id()] > int64(2*soon.deadAfter/soon.beat) {
			look.Stop()
			break
		}
	}
	// The first one goes to sleep: no sign of life, and no other job.
	stop := first.life
	first.life = nil
	stop()
	stopped := make(chan error, 1)
	go func() { stopped <- first.queue.stop(ctx) }()
	if got := second.wait(t, run.ID); got.Status != lockstep.RunCompleted || got.Counts.Written != countTo {
		t.Fatalf("%+v", got)
	}
	close(wake)
	wantCode(t, receive(t, refused), lockstep.CodeConflict)
	ok(t, receive(t, stopped))
	if l := string(second.links(t)); l != "\x01\x02\x03\x04\x05\x06" {
		t.Fatalf("links %q", l)
	}
	if got, err := s.Run(ctx, run.ID); err != nil || got.Status != lockstep.RunCompleted {
		t.Fatalf("%+v, %v", got, err)
	}
}

// A job that looks busy although nobody works on it, because its end could not be
// stored, is taken up again by the process that had it.
func TestJobThatNobodyWorksOn(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		soon := quick
		soon.deadAfter = 500 * time.Millisecond
		f := setUp(t, o, soon, nil)
		f.runner = counter{s: f.s}
		run := f.enqueue(t, "")
		var job int64
		ok(t, f.s.InTx(ctx, func(tx store.Tx) (err error) {
			if job, err = f.s.RunJobIn(ctx, tx, run.ID); err != nil {
				return err
			}
			by := `ARRAY['` + f.queue.id() + `']`
			if f.s.Exclusive() {
				by = `jsonb('["` + f.queue.id() + `"]')`
			}
			_, err = tx.Exec(ctx, `UPDATE river_job SET state = 'running', attempt = 1, attempted_at = CURRENT_TIMESTAMP, attempted_by = `+by+` WHERE id = $1`, job)
			return err
		}))
		ok(t, f.queue.start(ctx)) // what Start finds running on SQLite, it takes at once
		f.live(ctx)
		t.Cleanup(func() { f.end(t) })
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCompleted || got.Counts.Written != countTo {
			t.Fatalf("%+v", got)
		}
	})
}

func TestCancel(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		working := make(chan string, 10)
		goOn := make(chan bool)
		timing := quick
		timing.cancelGrace = 200 * time.Millisecond
		var f fixture
		f = setUp(t, o, timing, runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
			run, err := f.s.Run(ctx, id)
			if err != nil {
				return false, err
			}
			working <- id
			switch run.List {
			case "batch": // ends its batch, then the slice
				<-goOn
				return false, f.s.Commit(ctx, lockstep.Commit{Run: id, Account: run.Account, Links: [][]byte{{1}}})
			case "hang":
				<-ctx.Done()
				return false, ctx.Err()
			case "pause":
				return false, &lockstep.Error{Code: lockstep.CodeThrottled, Msg: "Later.", After: time.Hour}
			}
			return true, nil
		}))
		queued := f.enqueue(t, "queued")
		got, err := f.Cancel(ctx, queued.ID)
		ok(t, err)
		if got.Status != lockstep.RunCancelled {
			t.Fatalf("a queued run: %+v", got)
		}
		_, err = f.Cancel(ctx, queued.ID)
		wantCode(t, err, lockstep.CodeConflict)
		_, err = f.Cancel(ctx, "none")
		wantCode(t, err, lockstep.CodeNotFound)
		f.begin(t)

		batch := f.enqueue(t, "batch")
		receive(t, working)
		got, err = f.Cancel(ctx, batch.ID)
		ok(t, err)
		if got.Status != lockstep.RunInProcess || !got.CancelRequested {
			t.Fatalf("a run in process: %+v", got)
		}
		close(goOn)
		if got = f.wait(t, batch.ID); got.Status != lockstep.RunCancelled || len(f.links(t)) != 1 {
			t.Fatalf("%+v, links %v", got, f.links(t))
		}

		hang := f.enqueue(t, "hang")
		receive(t, working)
		_, err = f.Cancel(ctx, hang.ID)
		ok(t, err)
		if got = f.wait(t, hang.ID); got.Status != lockstep.RunCancelled {
			t.Fatalf("%+v", got)
		}

		pause := f.enqueue(t, "pause")
		receive(t, working)
		// Whether the job is still ending its slice or already put aside, the run
		// ends now and not in an hour.
		for { // until the job is put aside
			var running bool
			ok(t, f.s.InTx(ctx, func(tx store.Tx) error {
				job, err := f.s.RunJobIn(ctx, tx, pause.ID)
				if err == nil {
					running, err = f.queue.running(ctx, tx, job)
				}
				return err
			}))
			if !running {
				break
			}
		}
		got, err = f.Cancel(ctx, pause.ID)
		ok(t, err)
		if got.Status != lockstep.RunCancelled {
			t.Fatalf("a paused run: %+v", got)
		}
		if id := f.wait(t, f.enqueue(t, "queued").ID); id.Status != lockstep.RunCompleted {
			t.Fatalf("%+v", id)
		}
		close(working)
		for id := range working {
			if id == queued.ID {
				t.Fatal("a cancelled run was worked on")
			}
		}
	})
}

func TestStop(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		working, goOn := make(chan bool), make(chan bool)
		var f fixture
		f = setUp(t, o, quick, runner(func(ctx context.Context, id string, _ time.Duration) (bool, error) {
			working <- true
			<-goOn
			return false, f.s.Commit(ctx, lockstep.Commit{Run: id, Account: f.account, Links: [][]byte{{1}}})
		}))
		ok(t, f.Start(context.Background()))
		run := f.enqueue(t, "")
		receive(t, working)
		stopped := make(chan error)
		go func() { stopped <- f.Stop(context.Background()) }()
		goOn <- true // the slice may end
		ok(t, receive(t, stopped))
		got, err := f.s.Run(context.Background(), run.ID)
		ok(t, err)
		if got.Status != lockstep.RunInProcess || len(f.links(t)) != 1 {
			t.Fatalf("after a stop: %+v", got)
		}

		// A slice that does not end is cancelled; the run is continued by the next.
		next, err := newJobs(context.Background(), f.s, runner(func(ctx context.Context, _ string, _ time.Duration) (bool, error) {
			working <- true
			<-ctx.Done()
			return false, ctx.Err()
		}), nil, nil, quick)
		ok(t, err)
		ok(t, next.Start(context.Background()))
		receive(t, working)
		second, cancel := context.WithCancel(context.Background())
		go func() { stopped <- next.Stop(second) }()
		cancel()
		ok(t, receive(t, stopped))

		f.Jobs, err = newJobs(context.Background(), f.s, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }), nil, nil, quick)
		ok(t, err)
		f.begin(t)
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCompleted {
			t.Fatalf("%+v", got)
		}
	})
}

// A worker killed in the middle of a run costs nothing but time: the next process
// goes on behind the last commit, on PostgreSQL once the other shows no sign of life.
func TestKill(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		f := setUp(t, o, quick, nil)
		run := f.enqueue(t, "")
		ok(t, f.s.Close())

		program, err := os.Executable()
		ok(t, err)
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), workEnv+"=path "+o.Path)
		if o.URL != "" {
			cmd.Env = append(os.Environ(), workEnv+"=url "+o.URL)
		}
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		defer cmd.Process.Kill()
		line := make([]byte, len("hanging"))
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "hanging" {
			rest, _ := io.ReadAll(out)
			t.Fatalf("the worker says %q, %v", string(line)+string(rest), err)
		}
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()

		s, err := store.Open(ctx, o)
		ok(t, err)
		t.Cleanup(func() { _ = s.Close() })
		f.s = s
		soon := quick
		soon.deadAfter = 500 * time.Millisecond
		f.Jobs, err = newJobs(ctx, s, counter{s: s}, nil, nil, soon)
		ok(t, err)
		if got, err := s.Run(ctx, run.ID); err != nil || got.Status != lockstep.RunInProcess {
			t.Fatalf("%+v, %v", got, err)
		}
		f.begin(t)
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCompleted || got.Counts.Written != countTo {
			t.Fatalf("%+v", got)
		}
		if l := string(f.links(t)); l != "\x01\x02\x03\x04\x05\x06" {
			t.Fatalf("links %q", l)
		}
	})
}

// A run that was cancelled while its worker died is not worked on again.
func TestCancelledWhileAway(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		f := setUp(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) {
			t.Error("a cancelled run was worked on")
			return true, nil
		}))
		run := f.enqueue(t, "")
		_, _, err := f.s.StartRun(ctx, run.ID)
		ok(t, err)
		_, err = f.s.RequestCancel(ctx, run.ID)
		ok(t, err)
		f.begin(t)
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCancelled {
			t.Fatalf("%+v", got)
		}
	})
}

// A run whose job is lost, for example because an administrator deleted it, gets
// another at the next start.
func TestLostJob(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o store.Options) {
		f := setUp(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }))
		run, err := f.s.CreateRun(ctx, lockstep.Run{Account: f.account, Type: lockstep.SyncMarketingLists})
		ok(t, err)
		f.begin(t)
		if got := f.wait(t, run.ID); got.Status != lockstep.RunCompleted {
			t.Fatalf("%+v", got)
		}
	})
}

func TestWait(t *testing.T) {
	engines(t, func(t *testing.T, o store.Options) {
		f := setUp(t, o, quick, nil)
		run := f.enqueue(t, "")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := f.Wait(ctx, run.ID)
		wantCode(t, err, lockstep.CodeCancelled)
		_, err = f.Wait(context.Background(), "none")
		wantCode(t, err, lockstep.CodeNotFound)
		// The end of a run that another process worked on is seen in its row.
		ended := make(chan lockstep.Run)
		go func() {
			run, _ := f.Wait(context.Background(), run.ID)
			ended <- run
		}()
		_, err = f.s.EndRun(context.Background(), run.ID, lockstep.RunFailed, "x", "")
		ok(t, err)
		if got := receive(t, ended); got.Status != lockstep.RunFailed {
			t.Fatalf("%+v", got)
		}
	})
}

// Several processes may start on one new PostgreSQL database at the same time.
func TestStartTogether(t *testing.T) {
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := store.Open(context.Background(), store.Options{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := New(context.Background(), s, nil, nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestNothingLeftRunning(t *testing.T) {
	for name, o := range map[string]store.Options{"sqlite": {Path: t.TempDir()}, "postgres": {URL: pgtest.Database(t)}} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			f := setUp(t, o, quick, runner(func(context.Context, string, time.Duration) (bool, error) { return true, nil }))
			ok(t, f.Start(context.Background()))
			f.wait(t, f.enqueue(t, "").ID)
			f.end(t)
			ok(t, f.s.Close())
		})
	}
}
