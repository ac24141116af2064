//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// lockFile takes the exclusive lock that makes this process the directory's only user; it goes with
// the process, however that ends. The file says who holds it, for the message only.
func lockFile(path string) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, translateOS(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := flock(f, syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, translateOS(err)
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		return nil, translateOS(err)
	}
	return f, nil
}

// lockShared keeps others from taking the directory without taking it, and writes nothing. Nil where no
// process ever had it.
func lockShared(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, translateOS(err)
	}
	if err := flock(f, syscall.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// flock never waits: who can't have the lock at once gets [ErrInUse] with what the holder wrote, if anything.
func flock(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 100))
		return fmt.Errorf("%w by another copse (process %s); stop it, or choose another directory",
			ErrInUse, strings.TrimSpace(string(holder)))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// unlockFile gives the lock back at once. Closing alone would wait for a process that is being started
// right now, which has a copy of the file until it runs its own program.
func unlockFile(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// keepOwner gives a file that replaces another to whom the other belonged: an administrator's hand must
// not take the database away from the server's user.
func keepOwner(old os.FileInfo, file *os.File) error {
	was, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(was.Uid) == os.Geteuid() && int(was.Gid) == os.Getegid() {
		return nil
	}
	return file.Chown(int(was.Uid), int(was.Gid))
}
