package engine

import "syscall"

// giveWay lets threads that wait for this processor go first. A thread that has computed for long is not
// interrupted by one that wakes up on its processor to answer a cheap request, for milliseconds, even
// where another processor is idle. What is decided does not depend on it.
//
// It does not let goroutines go first: then any number of large requests would be half read at once, and
// their memory be held. Nor does it tell the scheduler that this is a system call, for the same reason.
func giveWay() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) } // it can't fail
