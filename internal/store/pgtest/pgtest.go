//go:build unix

// Package pgtest gives tests a PostgreSQL server of their own: one server for a
// test run, one empty database for a test. Nothing in the product imports it.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// EnvURL names a server to use instead of starting one. Its user must be allowed to
// create databases, which are not removed.
const EnvURL = "LOCKSTEP_TEST_POSTGRES"

var (
	shared  server
	numbers atomic.Int64
)

type server struct {
	once sync.Once
	base *url.URL
	err  error

	alive io.WriteCloser // the server lives until this is closed
	done  chan struct{}
}

// Main runs the tests and stops the server afterwards. Call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if shared.alive != nil {
		_ = shared.alive.Close()
		<-shared.done
	}
	os.Exit(code)
}

// Database returns the URL of a new, empty database. The test fails when there is
// no server to make it on.
func Database(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() { shared.err = shared.start() })
	if shared.err != nil {
		t.Fatalf("%v\nInstall the PostgreSQL server (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql), or set %s to the URL of a server on which databases may be created.", shared.err, EnvURL)
	}
	database, err := shared.create()
	if err != nil {
		t.Fatal(err)
	}
	return database
}

// Serve is Database for a program that is no test: it returns the URL of an empty
// database on a server of its own, which lives until stop is called.
func Serve() (database string, stop func(), err error) {
	s := &server{}
	if err := s.start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		if s.alive != nil {
			_ = s.alive.Close()
			<-s.done
		}
	}
	if database, err = s.create(); err != nil {
		stop()
		return "", nil, err
	}
	return database, stop, nil
}

// create makes an empty database.
func (s *server) create() (database string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.base.String())
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("lockstep_test_%d_%d", os.Getpid(), numbers.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	u := *s.base
	u.Path = "/" + name
	return u.String(), nil
}

// keeper runs the server until its standard input ends, which also happens when the
// test process is killed, and then removes the server's folder.
const keeper = `"$1" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=200 -c shared_buffers=32MB </dev/null &
server=$!
read -r _
kill -INT $server
wait $server
rm -rf "$2"`

func (s *server) start() error {
	if given := os.Getenv(EnvURL); given != "" {
		u, err := url.Parse(given)
		if err != nil {
			return fmt.Errorf("%s is not a URL", EnvURL)
		}
		s.base = u
		return nil
	}
	postgres, initdb, err := binaries()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "lspg") // short: a socket's path has at most 107 bytes
	if err != nil {
		return err
	}
	as, err := unprivileged(folder)
	if err != nil {
		return err
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = folder
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
		return cmd
	}
	if out, err := run(initdb, "-D", filepath.Join(folder, "data"), "-U", "lockstep", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := run("/bin/sh", "-c", keeper, "sh", postgres, folder)
	cmd.Stdout, cmd.Stderr = &log, &log
	if s.alive, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(s.done)
	}()
	s.base = &url.URL{Scheme: "postgres", User: url.User("lockstep"), Path: "/postgres", RawQuery: url.Values{"host": {folder}}.Encode()}
	deadline := time.After(60 * time.Second)
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := pgx.Connect(context.Background(), s.base.String())
		if err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-retry.C:
		case <-s.done:
			return fmt.Errorf("the PostgreSQL server did not start:\n%s", log.String())
		case <-deadline:
			return fmt.Errorf("the PostgreSQL server does not answer: %w", err)
		}
	}
}

// binaries finds the newest installed server.
func binaries() (postgres, initdb string, err error) {
	folders, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(folders, func(a, b string) int { return version(b) - version(a) })
	more, _ := filepath.Glob("/opt/homebrew/opt/postgresql*/bin")
	folders = append(folders, more...)
	folders = append(folders, "/usr/local/bin", "/usr/local/pgsql/bin", "/usr/pgsql/bin")
	folders = append(folders, filepath.SplitList(os.Getenv("PATH"))...)
	for _, f := range folders {
		postgres, initdb = filepath.Join(f, "postgres"), filepath.Join(f, "initdb")
		if executable(postgres) && executable(initdb) {
			return postgres, initdb, nil
		}
	}
	return "", "", errors.New("PostgreSQL's server programs (postgres, initdb) are not installed")
}

func version(folder string) int {
	n, _ := strconv.Atoi(strings.Split(filepath.Base(filepath.Dir(folder)), ".")[0])
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// unprivileged returns the user to run the server as, which must not be root, and
// gives folder to it; nil = the user of the test.
func unprivileged(folder string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(folder, int(uid), int(gid))
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}
