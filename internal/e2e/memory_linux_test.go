package e2e

import "syscall"

// spacious reports whether a folder is there and has room for what tests write.
func spacious(dir string) bool {
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && s.Bavail*uint64(s.Bsize) > 4<<30
}
