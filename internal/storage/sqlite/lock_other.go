//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package sqlite

import (
	"fmt"
	"os"
)

// lockFile refuses: without flock two processes could open one directory.
func lockFile(string) (*os.File, error) {
	return nil, fmt.Errorf("%w: data directories need a Unix system", ErrUnsupported)
}

// lockShared and what follows is there to compile: without a lock nothing gets that far.
func lockShared(path string) (*os.File, error) { return lockFile(path) }

func unlockFile(f *os.File) error { return f.Close() }

func keepOwner(os.FileInfo, *os.File) error { return nil }
