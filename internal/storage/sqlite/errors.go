package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	modernc "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/copse-authz/copse/internal/storage"
)

// What [Open] answers besides success, to be told apart with errors.Is; the text says which
// directory and what to do.
var (
	// Another process has it; nothing was touched.
	ErrInUse = errors.New("data directory in use")
	// It, or a backup, was written in a format that this copse does not know.
	ErrNewer = errors.New("data directory of a newer version")
	// Also what mutations of a Backend of [OpenReadOnly] answer.
	ErrNotWritable = errors.New("data directory not writable")
	ErrFull        = storage.ErrFull
	// A network file system, one that can't keep a write-ahead log, no Unix, or too old an SQLite.
	ErrUnsupported = errors.New("data directory on an unsupported file system")
	ErrCorrupt     = storage.ErrCorrupt // also comes from reads
)

// translate gives SQLite's failures the names of the contract. full reports whether the disk is.
// The driver's error stays in the chain. What is no failure of SQLite comes back as it is, answers of the
// contract among them, so translating twice does no harm.
func translate(err error, full func() bool) error {
	if err == nil {
		return nil
	}
	var failure *modernc.Error
	if !errors.As(err, &failure) {
		return err
	}
	// The low byte is the primary code; extended ones say more than is told apart here.
	switch failure.Code() & 0xff {
	case lib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN:
		// The shared-memory file and fsync report a full disk as a plain failure.
		if full() {
			return fmt.Errorf("%w: %w", storage.ErrFull, err)
		}
		return fmt.Errorf("%w: %w", storage.ErrFailing, err)
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case lib.SQLITE_READONLY, lib.SQLITE_PERM:
		return fmt.Errorf("%w: %w: %w", storage.ErrFailing, ErrNotWritable, err)
	}
	return err
}

// translateOS does the same for files that Open handles itself.
func translateOS(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS),
		errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	return err
}

// refused reports whether err is a mutation's own fault: an answer of the contract, found before
// anything failed.
// Such a mutation is taken back by its savepoint. Any other error may have left the transaction in a state
// nobody knows, and undoes the group.
func refused(err error) bool {
	for _, answer := range []error{
		storage.ErrNoHead, storage.ErrExists, storage.ErrConflict, storage.ErrInvalid,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}
