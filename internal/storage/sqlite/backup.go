package sqlite

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A backup file says what it is before the data: a line of text, a line of JSON (the [Manifest]), and
// then a whole database as SQLite writes it. It never holds the master key or the root key, which are
// files of their own.
const (
	backupLine   = "copse backup "
	backupFormat = 1
	// Files beginning so are copies under way, or of a process that was killed; Open removes them.
	scratchName = "copse-scratch-"

	// A line that is longer is no manifest: what is read as a backup may be any file.
	maxManifest = 64 << 10
)

// ErrNotABackup says that a file is no backup, or not whole, or not what was written.
var ErrNotABackup = errors.New("not a usable backup")

// ErrOccupied says that something is where a backup, or a data directory made of one, should come to be.
var ErrOccupied = errors.New("nothing is overwritten")

// Manifest describes a backup. The audit chain binds the head of every policy store, and with it each
// of its revisions, so two backups with the same audit row hold the same.
type Manifest struct {
	Schema     int64     `json:"schema"` // of the database
	MadeAt     time.Time `json:"madeAt"`
	Partitions int64     `json:"partitions"` // policy stores, those being erased among them, and the directory
	AuditSeq   int64     `json:"auditSeq"`
	AuditChain string    `json:"auditChain"`
	Size       int64     `json:"size"` // of the database, in bytes
	SHA256     string    `json:"sha256"`
}

// BackupReader is a backup ready to be copied to where it is kept.
// It is read once, from the start, by one goroutine. Close must follow, or the copy stays until the next Open.
type BackupReader struct {
	Manifest Manifest
	Size     int64 // of everything that will be read

	file *os.File
	io.Reader
}

// Close removes the copy in the data directory.
func (r *BackupReader) Close() error {
	return errors.Join(r.file.Close(), os.Remove(r.file.Name()))
}

// Backup copies the database as it is at one moment, while writes go on, into a file of the data
// directory, which needs as much free space, and returns what reads it. What was erased is not in the
// copy. A copy that has begun is carried out; ctx is looked at before and after it.
//
// It is no part of [storage.Backend]: what a backup is depends on what there is to copy, and a backend
// in memory has nothing to come back to.
func (b *Backend) Backup(ctx context.Context) (*BackupReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	// Until it is copied, the log can't be truncated: the writer would wait for it after every erasure,
	// and puts that off instead.
	b.copying.Add(1)
	r, err := pack(b.dir)
	b.copying.Add(-1)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// pack makes a backup of the database in dir, which others may be writing to.
// The copy is whole before it returns: a slow download is no long read of the database.
func pack(dir string) (_ *BackupReader, err error) {
	file, err := os.CreateTemp(dir, scratchName+"*")
	if err != nil {
		return nil, translateOS(err)
	}
	r := &BackupReader{file: file}
	defer func() {
		if err != nil {
			err = errors.Join(translate(err, func() bool { return diskFull(dir) }), r.Close())
		}
	}()
	if err := copyDatabase(filepath.Join(dir, FileName), file.Name()); err != nil {
		return nil, err
	}
	if r.Manifest, err = describe(file.Name()); err != nil {
		return nil, err
	}
	hash := sha256.New()
	if r.Manifest.Size, err = io.Copy(hash, file); err != nil {
		return nil, err
	}
	r.Manifest.SHA256 = hex.EncodeToString(hash.Sum(nil))
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(r.Manifest)
	if err != nil {
		return nil, err
	}
	preamble := fmt.Sprintf("%s%d\n%s\n", backupLine, backupFormat, manifest)
	r.Size = int64(len(preamble)) + r.Manifest.Size
	r.Reader = io.MultiReader(strings.NewReader(preamble), file)
	return r, nil
}

// copyDatabase writes what is in use of a database, and nothing of what was erased, into a file that is
// empty. It reads in a transaction of its own, beside a writer.
func copyDatabase(from, to string) error {
	c, err := openConn(from, nil, "busy_timeout = 5000", "cell_size_check = ON", "trusted_schema = OFF", "temp_store = MEMORY")
	if err != nil {
		return err
	}
	return errors.Join(c.once("VACUUM INTO ?", func(s *stmt) error {
		_, err := s.exec(to)
		return err
	}), c.close())
}

// describe reads what a manifest says from a database that nobody else has open.
// It does not fill in Size and SHA256, which are of the file and not in it; MadeAt is the time of the call.
func describe(path string) (m Manifest, err error) {
	c, err := openConn(path, nil, "query_only = ON", "cell_size_check = ON", "trusted_schema = OFF")
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	id, err := c.value("PRAGMA application_id")
	if err != nil {
		return Manifest{}, err
	}
	if id != int64(applicationID) {
		return Manifest{}, fmt.Errorf("%w: it holds no copse database", ErrNotABackup)
	}
	m.MadeAt = time.Now().UTC()
	for text, to := range map[string]*int64{
		"PRAGMA user_version":                        &m.Schema,
		"SELECT count(*) FROM head":                  &m.Partitions,
		"SELECT audit_seq FROM counter WHERE id = 1": &m.AuditSeq,
	} {
		v, err := c.value(text)
		if err != nil {
			return Manifest{}, err
		}
		n, ok := v.(int64)
		if !ok {
			return Manifest{}, corruptf("%s gives %v", text, v)
		}
		*to = n
	}
	chain, err := c.value("SELECT audit_chain FROM counter WHERE id = 1")
	if err != nil {
		return Manifest{}, err
	}
	bytes, _ := chain.([]byte)
	m.AuditChain = hex.EncodeToString(bytes)
	return m, nil
}

// ReadManifest reads the first two lines of a backup; the database follows in r.
// What it says is not verified. [ErrNotABackup], or [ErrNewer] for a format that this copse can't read.
func ReadManifest(r *bufio.Reader) (m Manifest, err error) {
	line, err := readLine(r)
	if err != nil || !strings.HasPrefix(line, backupLine) {
		return Manifest{}, fmt.Errorf("%w: it does not begin as a backup does", ErrNotABackup)
	}
	if format := strings.TrimPrefix(line, backupLine); format != fmt.Sprint(backupFormat) {
		return Manifest{}, fmt.Errorf("%w: the backup's format is %q, this copse knows %d; use the copse that made it, or a newer one", ErrNewer, format, backupFormat)
	}
	if line, err = readLine(r); err != nil {
		return Manifest{}, fmt.Errorf("%w: it ends in its description", ErrNotABackup)
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: its description can't be read: %w", ErrNotABackup, err)
	}
	if m.Schema > schemaVersion {
		return Manifest{}, fmt.Errorf("%w: the backup's database has format %d, this copse knows up to %d; use a copse at least as new as the one that made it",
			ErrNewer, m.Schema, schemaVersion)
	}
	return m, nil
}

// readLine is a line without its end, and an error past maxManifest, so that memory is bounded.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) < maxManifest {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return string(line), nil
		}
		line = append(line, c)
	}
	return "", errors.New("the line does not end")
}

// Restore makes the data directory dir, which must be empty or absent, from a backup. It is verified
// before it gets its name: the hash of what is written, SQLite's own checks, and that the database is
// the one described. After an error dir has no database.
func Restore(file, dir string) (m Manifest, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
	}()
	in, err := os.Open(file)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = in.Close() }()
	from := bufio.NewReaderSize(in, 1<<20)
	if m, err = ReadManifest(from); err != nil {
		return Manifest{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Manifest{}, err
	}
	if err := makeDir(dir); err != nil {
		return Manifest{}, translateOS(err)
	}
	if err := checkFileSystem(dir); err != nil {
		return Manifest{}, err
	}
	// Anything at all counts, a log or a master key too: it would be taken for the new database's.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Manifest{}, translateOS(err)
	}
	if len(entries) > 0 {
		return Manifest{}, fmt.Errorf("%w: %s is not empty (%s is in it); restore into a new directory", ErrOccupied, dir, entries[0].Name())
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, unlockFile(lock)) }()
	scratch := filepath.Join(dir, scratchName+"restore")
	err = errors.Join(writeVerified(scratch, from, m), verifyFile(scratch, m))
	if err == nil {
		err = os.Rename(scratch, filepath.Join(dir, FileName))
	}
	if err != nil {
		// The directory is again as it was, and the next attempt finds it empty.
		return Manifest{}, errors.Join(translateOS(err), os.Remove(scratch), os.Remove(filepath.Join(dir, lockName)))
	}
	return m, syncDir(dir)
}

// writeVerified copies the database behind a manifest, durably, and holds it against size and hash.
func writeVerified(path string, from io.Reader, m Manifest) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	hash := sha256.New()
	// All of it is written before the hash is known, so the caller gives it a name only afterwards.
	n, err := io.Copy(io.MultiWriter(out, hash), from)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if n != m.Size {
		return fmt.Errorf("%w: it has %d bytes of data and should have %d; it was cut off, or added to", ErrNotABackup, n, m.Size)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != m.SHA256 {
		return fmt.Errorf("%w: its SHA-256 is %s and should be %s; it is damaged: use another backup", ErrNotABackup, got, m.SHA256)
	}
	return nil
}

// verifyFile holds a database against its manifest, and has SQLite check it.
// The hash says that the file is as it was written; this says that what was written is the database described.
func verifyFile(path string, m Manifest) error {
	got, err := describe(path)
	if err != nil {
		return translate(err, func() bool { return false })
	}
	got.MadeAt, got.Size, got.SHA256 = m.MadeAt, m.Size, m.SHA256
	if got != m {
		return fmt.Errorf("%w: the database is not the one it describes: %+v, should be %+v", ErrNotABackup, got, m)
	}
	problems, err := integrity(path)
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%w: %s", ErrCorrupt, problems[0])
	}
	return err
}

// integrity is what SQLite finds wrong with a database: at most a hundred lines. Nothing may be
// writing to it.
func integrity(path string) (problems []string, err error) {
	c, err := openConn(path, nil, "busy_timeout = 5000", "query_only = ON", "cell_size_check = ON", "trusted_schema = OFF")
	if err != nil {
		return nil, translate(err, func() bool { return false })
	}
	err = c.once("PRAGMA integrity_check", func(s *stmt) error {
		return s.query(func(r *row) error {
			if text, _ := r.column().(string); text != "ok" {
				problems = append(problems, text)
			}
			return nil
		})
	})
	return problems, errors.Join(translate(err, func() bool { return false }), c.close())
}

// Integrity is what SQLite itself finds wrong with the file: its pages, its order, its indexes. It reads
// all of it, while writes go on.
func (b *Backend) Integrity(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	return integrity(filepath.Join(b.dir, FileName))
}

// SaveBackup puts a backup where it is to be kept: under another name until all of it is on the disk
// and is whole, so that what has the name path is a backup. A file that is there is left alone.
func SaveBackup(path string, from io.Reader) (m Manifest, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return Manifest{}, err
	}
	if _, err := os.Lstat(path); err == nil {
		return Manifest{}, fmt.Errorf("%w: %s is there already; choose another name", ErrOccupied, path)
	}
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return Manifest{}, translateOS(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(translateOS(err), os.Remove(out.Name()))
		}
	}()
	_, err = io.Copy(out, from)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return Manifest{}, err
	}
	if m, err = VerifyBackup(context.Background(), out.Name()); err != nil {
		return Manifest{}, err
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return Manifest{}, err
	}
	return m, syncDir(filepath.Dir(path))
}

// VerifyBackup reads a backup and holds it against its own size and hash. It ends with ctx.
// It does not open the database; [Restore] does, before anything comes of it.
func VerifyBackup(ctx context.Context, file string) (Manifest, error) {
	in, err := os.Open(file)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = in.Close() }()
	from := bufio.NewReaderSize(in, 1<<20)
	m, err := ReadManifest(from)
	if err != nil {
		return Manifest{}, err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, untilDone{ctx, from})
	if err == nil && (n != m.Size || hex.EncodeToString(hash.Sum(nil)) != m.SHA256) {
		err = fmt.Errorf("%w: %d bytes of data, should be %d, with SHA-256 %s; make another", ErrNotABackup, n, m.Size, m.SHA256)
	}
	return m, err
}

// untilDone is a reader that ends with a context.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r untilDone) Read(buffer []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(buffer)
}

// removeScratch removes copies that a killed process left behind: they hold policies that may have
// been erased since. The caller has the directory's lock.
func removeScratch(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, scratchName+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
