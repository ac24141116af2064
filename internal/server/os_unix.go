//go:build unix

package server

import (
	"io/fs"
	"syscall"
)

// deviceOf tells file systems apart.
func deviceOf(info fs.FileInfo) (device uint64, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(s.Dev), true //nolint:unconvert // it is an int32 on macOS
}

// mayWrite asks the kernel whether this user may make files in a directory, and makes none.
func mayWrite(dir string) error {
	const write, search = 2, 1 // W_OK and X_OK of access(2)
	return syscall.Access(dir, write|search)
}

// openFileLimit is the limit in force, which a process may raise up to another one.
func openFileLimit() (files uint64, ok bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return l.Cur, true
}
