package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/copse-authz/copse/internal/storage"
)

const (
	// FileName is the database in a data directory.
	FileName = "copse.db"
	lockName = "copse.lock"

	// readerCount bounds the reads at one time; more wait, as long as their contexts do.
	readerCount = 4
	// Older ones can corrupt a file when two connections meet at the reset of the write-ahead log.
	oldestSQLite = "3.51.3"
)

// Backend is a [storage.Backend] in one SQLite file.
type Backend struct {
	dir       string
	lock      *os.File
	followers storage.Followers
	writer    *writer
	readers   chan *reader // holds the idle ones
	copying   atomic.Int32 // backups that read the file
	migrated  string       // see Migrated
	scratch   string       // made by looking at the directory

	groups, changes atomic.Uint64 // transactions committed, and jobs in them

	// mu makes closing and counting a new call exclude each other: nothing is added once Close waits.
	mu     sync.RWMutex
	closed bool
	calls  sync.WaitGroup // under way; Close waits for them
}

var _ storage.Backend = (*Backend)(nil)

// Open opens the data directory dir, making it if it is not there, and bringing it to the newest format.
// Errors to tell apart: [ErrInUse], [ErrNewer], [ErrNotWritable], [ErrFull], [ErrUnsupported], [ErrCorrupt].
func Open(dir string) (*Backend, error) { return openAs(dir, newest()) }

// openAs takes the lock before it looks at anything, and a format, so that tests can make the files of former releases.
// After an error everything that was opened is closed, the lock included. The writer's goroutine starts last.
func openAs(dir string, f format) (_ *Backend, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	b := &Backend{dir: dir, readers: make(chan *reader, readerCount)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open data directory %s: %w", dir, err), b.release())
		}
	}()
	if err := makeDir(dir); err != nil {
		return nil, translateOS(err)
	}
	if err := checkFileSystem(dir); err != nil {
		return nil, err
	}
	if b.lock, err = lockFile(filepath.Join(dir, lockName)); err != nil {
		return nil, err
	}
	// Only under the lock is it sure that nobody is still writing to them.
	if err := removeScratch(dir); err != nil {
		return nil, translateOS(err)
	}
	path := filepath.Join(dir, FileName)
	if err := makeFile(path); err != nil {
		return nil, translateOS(err)
	}
	if b.writer, err = openWriter(b, path, f); err != nil {
		return nil, b.translate(err)
	}
	for range readerCount {
		r, err := openReader(path, nil)
		if err != nil {
			return nil, b.translate(err)
		}
		b.readers <- r
	}
	go b.writer.run()
	return b, nil
}

// OpenExisting is Open for a data directory that must be there: a misspelt name makes no new one.
func OpenExisting(dir string) (*Backend, error) {
	info, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("%s is not a data directory: %w", dir, err)
	}
	if info.Size() == 0 { // opened, it would become a new database that nothing is wrong with
		return nil, fmt.Errorf("%w: %s is empty", ErrCorrupt, FileName)
	}
	return Open(dir)
}

// makeDir makes dir for this user only, and makes sure that the name survives a crash.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	// The names of all directories that are made have to last, and not only that of the last.
	there := filepath.Dir(dir)
	for there != filepath.Dir(there) {
		if _, err := os.Stat(there); err == nil {
			break
		}
		there = filepath.Dir(there)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if err := syncDir(parent); err != nil || parent == there {
			return err
		}
	}
}

// makeFile makes the database file before SQLite would, so that it and the files SQLite puts beside
// it, which get the same mode, are this user's only.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(filepath.Dir(path)))
}

// syncDir makes the names in dir durable, which syncing a file does not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prepareFile checks that the file on c is ours and not newer, makes the tables of a new one, migrates
// an older one, and proves that it can be written. c is in exclusive possession of it, by the
// directory's lock.
func (b *Backend) prepareFile(c *conn, f format) error {
	if err := checkVersion(c, oldestSQLite); err != nil {
		return err
	}
	// Before anything is written: a file that is not ours is left as it is.
	isNew, version, err := identify(c, f)
	if err != nil {
		return err
	}
	if mode, err := c.value("PRAGMA journal_mode = WAL"); err != nil {
		return err
	} else if mode != "wal" {
		return fmt.Errorf("%w: it can't keep a write-ahead log (journal mode is %v)", ErrUnsupported, mode)
	}
	if !isNew && version < f.version() {
		if b.migrated, err = migrate(c, b.dir, version, f); err != nil {
			return err
		}
	}
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if isNew {
		// In one transaction with the tables: a crash leaves a new file or a whole one.
		if err := c.exec(fmt.Sprintf("%s PRAGMA application_id = %d; PRAGMA user_version = %d;", f.tables, applicationID, f.version())); err != nil {
			return err
		}
	}
	// A disk that is full or read-only is found here, at the start, and not by the first customer.
	if err := c.once(updateOpened, func(s *stmt) error {
		_, err := s.exec(time.Now().UnixNano())
		return err
	}); err != nil {
		return err
	}
	if err := c.exec("COMMIT"); err != nil {
		return err
	}
	// What a crash left in the log of an erasure goes now.
	return c.exec("PRAGMA wal_checkpoint(TRUNCATE)")
}

// identify tells a new file from one of ours, and refuses all others.
// An empty file is new, whoever made it; a database of another program has tables or an application_id.
func identify(c *conn, f format) (isNew bool, version int64, err error) {
	id, err := c.value("PRAGMA application_id")
	if err != nil {
		return false, 0, err
	}
	v, err := c.value("PRAGMA user_version")
	if err != nil {
		return false, 0, err
	}
	tables, err := c.value("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return false, 0, err
	}
	version = v.(int64)
	switch {
	case id == int64(0) && version == 0 && tables == int64(0):
		return true, 0, nil
	case id != int64(applicationID):
		return false, 0, fmt.Errorf("%w: %s is not a copse database", ErrCorrupt, FileName)
	case version > f.version():
		return false, 0, fmt.Errorf("%w: its format is %d, this copse knows up to %d; use a copse at least as new as the one that wrote it",
			ErrNewer, version, f.version())
	case version < oldestFormat:
		return false, 0, fmt.Errorf("%w: its format is %d", ErrCorrupt, version)
	}
	return false, version, nil
}

// checkVersion is about the library that is linked, not about the file.
func checkVersion(c *conn, oldest string) error {
	v, err := c.value("SELECT sqlite_version()")
	if err != nil {
		return err
	}
	if text, _ := v.(string); !atLeast(text, oldest) {
		return fmt.Errorf("%w: SQLite %s is linked, at least %s is needed; use an official build of copse", ErrUnsupported, text, oldest)
	}
	return nil
}

// atLeast compares dotted versions number by number.
// What can't be read as a number is too old.
func atLeast(version, oldest string) bool {
	have, want := strings.Split(version, "."), strings.Split(oldest, ".")
	for i := range want {
		if i >= len(have) {
			return false
		}
		h, err := strconv.Atoi(have[i])
		w, _ := strconv.Atoi(want[i])
		if err != nil || h < w {
			return false
		}
		if h > w {
			return true
		}
	}
	return true
}

// translate is the function of that name, for this Backend's disk.
func (b *Backend) translate(err error) error {
	return translate(err, func() bool { return diskFull(b.dir) })
}

// enter registers a call; leave must follow if there is no error.
func (b *Backend) enter() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return storage.ErrClosed
	}
	b.calls.Add(1)
	return nil
}

// leave ends what enter registered. Calls are short; only a Backup or an Integrity may keep Close waiting long.
func (b *Backend) leave() { b.calls.Done() }

// Follow implements [storage.Backend].
func (b *Backend) Follow(f func(storage.Change)) (stop func()) { return b.followers.Add(f) }

// Groups says how many transactions were committed since Open, each with one fsync, and how many changes
// they held together.
func (b *Backend) Groups() (groups, changes uint64) { return b.groups.Load(), b.changes.Load() }

// Close implements [storage.Backend].
// A second Close waits for the same calls, but may return before the first one has released everything.
func (b *Backend) Close() error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	b.calls.Wait()
	if again {
		return nil
	}
	if b.writer != nil {
		close(b.writer.queue)
		<-b.writer.stopped
	}
	return b.release()
}

// release closes what there is. The writer is last: the last connection to close checkpoints the log.
// The lock goes after that, so the next process never finds a file that is still being written.
func (b *Backend) release() error {
	var errs []error
	for len(b.readers) > 0 {
		errs = append(errs, (<-b.readers).conn.close())
	}
	if b.writer != nil {
		errs = append(errs, b.writer.conn.close())
	}
	if b.scratch != "" {
		if err := os.Remove(b.scratch); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if b.lock != nil {
		errs = append(errs, unlockFile(b.lock))
	}
	return errors.Join(errs...)
}
