package pgtest

import "syscall"

// endWithParent has a server end at once when the test binary is killed and can't end it.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
}
