package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// ErrOlder is a data directory that [Open] would bring to this copse's format.
var ErrOlder = errors.New("data directory of an older version")

// OpenReadOnly opens a data directory that no process has, to look at it and change nothing: it is not
// migrated, what a killed process left is not tidied, and every mutation answers [ErrNotWritable]. No
// other process can open it meanwhile. Errors to tell apart are those of [Open], and [ErrOlder].
func OpenReadOnly(dir string) (*Backend, error) { return readOnlyAs(dir, newest()) }

// readOnlyAs shares its lock with others who look, and keeps out a server, which would change what is looked at.
func readOnlyAs(dir string, f format) (_ *Backend, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	b := &Backend{dir: dir, readers: make(chan *reader, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("look at data directory %s: %w", dir, err), b.release())
		}
	}()
	path := filepath.Join(dir, FileName)
	if _, err := os.Stat(path); err != nil {
		return nil, translateOS(err)
	}
	if err := checkFileSystem(dir); err != nil {
		return nil, err
	}
	if b.lock, err = lockShared(filepath.Join(dir, lockName)); err != nil {
		return nil, err
	}
	parameters := b.lookAt(path)
	if err := checkFormat(path, parameters, f); err != nil {
		return nil, b.translate(err)
	}
	r, err := openReader(path, parameters)
	if err != nil {
		return nil, b.translate(err)
	}
	b.readers <- r
	return b, nil
}

// checkFormat is apart from the reader, whose statements an older format may not have.
// An empty file is damage here: there is nobody to make a database of it.
func checkFormat(path string, parameters url.Values, f format) (err error) {
	c, err := openConn(path, parameters)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	isNew, version, err := identify(c, f)
	switch {
	case err != nil:
		return err
	case isNew:
		return fmt.Errorf("%w: %s is empty", ErrCorrupt, FileName)
	case version < f.version():
		return fmt.Errorf("%w: its format is %d, that of this copse is %d", ErrOlder, version, f.version())
	}
	return nil
}

// lookAt are the parameters of a connection that leaves no trace. Without a write-ahead log the file is
// all there is. With one, which a killed process leaves, SQLite needs its index beside it: if there is
// none, the one it makes is removed again.
func (b *Backend) lookAt(path string) url.Values {
	log, err := os.Stat(path + "-wal")
	if err != nil || log.Size() == 0 {
		return url.Values{"mode": {"ro"}, "immutable": {"1"}}
	}
	if _, err := os.Stat(path + "-shm"); errors.Is(err, fs.ErrNotExist) {
		b.scratch = path + "-shm"
	}
	return url.Values{"mode": {"ro"}}
}

// QuickCheck is [Backend.Integrity] without the indexes' contents: it reads every page, and costs no more.
// It holds one of the readers for as long as it takes.
func (b *Backend) QuickCheck(ctx context.Context) (problems []string, err error) {
	err = b.read(ctx, func(r *reader) error {
		return r.conn.once("PRAGMA quick_check", func(s *stmt) error {
			return s.query(func(r *row) error {
				if text, _ := r.column().(string); text != "ok" {
					problems = append(problems, text)
				}
				return nil
			})
		})
	})
	return problems, err
}

// FreeBytes is the room on the disk of a directory for this user; false where that can't be known.
func FreeBytes(dir string) (bytes uint64, ok bool) { return free(dir) }
