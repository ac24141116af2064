package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Compact gives the space that nothing uses any more back to the disk, and with it the last copies of
// what was erased, in a data directory that no process has. It returns the size of the database before
// and after.
//
// The database is copied, the copy verified, and put in its place at one moment: a crash leaves the one or
// the other. That needs room for the copy. It is not done under a running server: there, SQLite would
// hold up every write until it is done, and need the room twice.
func Compact(ctx context.Context, dir string) (before, after int64, err error) {
	b, err := OpenExisting(dir)
	if err != nil {
		return 0, 0, err
	}
	dir = b.dir
	path, scratch := filepath.Join(dir, FileName), filepath.Join(dir, scratchName+"compact")
	// The lock stays while the file is closed: nobody may write to what is about to be replaced.
	lock := b.lock
	b.lock = nil
	defer func() {
		if err != nil && after == 0 { // the copy has not taken its place
			err = fmt.Errorf("compact %s: %w; nothing was changed", dir, translate(translateOS(err), func() bool { return diskFull(dir) }))
		}
		err = errors.Join(err, unlockFile(lock))
	}()
	// Close also puts the log into the file, so that the file alone is the database.
	if err := errors.Join(b.Close(), ctx.Err()); err != nil {
		return 0, 0, err
	}
	if before, after, err = rewrite(path, scratch); err != nil {
		if removed := os.Remove(scratch); !errors.Is(removed, os.ErrNotExist) {
			err = errors.Join(err, removed)
		}
		return 0, 0, err
	}
	if err := syncDir(dir); err != nil {
		return before, after, fmt.Errorf("compact %s: it is done, but the disk does not confirm it: %w", dir, translateOS(err))
	}
	return before, after, nil
}

// rewrite puts a copy of what a database holds in its place. Nobody has it open.
// The copy is on the disk before it is verified, and has its owner and its last byte before it has the name.
// The rename is the moment; the caller makes it durable.
func rewrite(path, scratch string) (before, after int64, err error) {
	// The log would be taken for that of the new file.
	if _, err := os.Lstat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		return 0, 0, errors.Join(fmt.Errorf("the write-ahead log could not be put into the database"), err)
	}
	old, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	out, err := os.OpenFile(scratch, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	err = errors.Join(keepOwner(old, out), copyDatabase(path, scratch), out.Sync())
	if err := errors.Join(err, out.Close()); err != nil {
		return 0, 0, err
	}
	if err := sameDatabase(path, scratch); err != nil {
		return 0, 0, err
	}
	info, err := os.Stat(scratch)
	if err != nil {
		return 0, 0, err
	}
	return old.Size(), info.Size(), os.Rename(scratch, path)
}

// sameDatabase has SQLite check a copy, and holds it against its original.
func sameDatabase(original, scratch string) error {
	want, err := describe(original)
	if err != nil {
		return err
	}
	got, err := describe(scratch)
	if err != nil {
		return err
	}
	want.MadeAt, got.MadeAt = time.Time{}, time.Time{}
	if got != want {
		return corruptf("the copy is not the database: %+v, should be %+v", got, want)
	}
	problems, err := integrity(scratch)
	if err == nil && len(problems) > 0 {
		err = corruptf("the copy: %s", problems[0])
	}
	return err
}
