//go:build !linux

package pgtest

import "syscall"

// endWithParent can't be had here: a test binary that is killed leaves its servers.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
