//go:build unix

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lockstep-sync/lockstep"
)

// lockFolder takes the data folder for this process. The kernel holds the lock and
// lets go of it when the process ends, however that happens: there is nothing to
// expire and nothing to clean up.
func lockFolder(folder string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, "lockstep.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The data folder cannot be written to.", Hint: "Check its permissions.", Err: err}
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		// For people only: who holds it is up to the kernel.
		_ = f.Truncate(0)
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
		return f, nil
	}
	holder, _ := io.ReadAll(io.LimitReader(f, 20))
	_ = f.Close()
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The data folder cannot be locked.", Hint: "Use a local disk; some network file systems cannot lock.", Err: err}
	}
	return nil, taken(folder, strings.TrimSpace(string(holder)))
}
