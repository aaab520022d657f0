package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lockstep-sync/lockstep"
)

// lockFolder takes the data folder for this process: the lock file is opened
// without sharing, which Windows ends when the process does.
func lockFolder(folder string) (*os.File, error) {
	path := filepath.Join(folder, "lockstep.lock")
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	const errorSharingViolation = syscall.Errno(32)
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errorSharingViolation) {
		return nil, taken(folder, "")
	}
	if err != nil {
		return nil, &lockstep.Error{Code: lockstep.CodeUnavailable, Msg: "The data folder cannot be written to.", Hint: "Check its permissions.", Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}
