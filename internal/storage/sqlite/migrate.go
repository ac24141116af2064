package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// oldestFormat is that of the first release.
const oldestFormat = 1

// A format is how the tables of a database are laid out. A file says which one it has, in its
// user_version, and [Open] takes it to the newest: forward only, one step after the other.
type format struct {
	tables string // what makes those of a new file
	// steps[n] takes a file of format n+1 to format n+2. One that a release had is never changed again.
	steps []func(c *conn) error
}

// newest is the format of this copse. The tables are still those of the first release.
func newest() format { return format{tables: schema} }

func (f format) version() int64 { return oldestFormat + int64(len(f.steps)) }

// migrate takes a file to format f and returns the backup that it made before: beside the database, and
// never removed by copse. All steps are one transaction. A crash before its end leaves the file as it
// was, for the copse that wrote it as for this one; after it, this one goes on.
func migrate(c *conn, dir string, from int64, f format) (backup string, err error) {
	if backup, err = keepBefore(dir, from); err != nil {
		return "", fmt.Errorf("the database has format %d, and is backed up before it is brought to format %d: %w", from, f.version(), err)
	}
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return "", err
	}
	for n := from; n < f.version(); n++ {
		if err := f.steps[n-oldestFormat](c); err != nil {
			// The end of the connection undoes the transaction.
			return "", fmt.Errorf("migration from format %d to %d; the database is as it was, go on with the copse that wrote it (backup: %s): %w",
				n, n+1, backup, err)
		}
	}
	if err := c.exec(fmt.Sprintf("PRAGMA user_version = %d; COMMIT", f.version())); err != nil {
		return "", err
	}
	return backup, nil
}

// keepBefore makes the backup. It is named after what it holds, the end of the audit chain, so that a
// start that fails again and again makes one and not one each time.
func keepBefore(dir string, from int64) (path string, err error) {
	r, err := pack(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	path = filepath.Join(dir, fmt.Sprintf("copse-format-%d-%d-%.8s.backup", from, r.Manifest.AuditSeq, r.Manifest.AuditChain))
	switch made, err := VerifyBackup(context.Background(), path); {
	case err == nil && made.AuditChain == r.Manifest.AuditChain:
		return path, nil
	case errors.Is(err, ErrNotABackup): // damaged since
		if err := os.Remove(path); err != nil {
			return "", translateOS(err)
		}
	}
	_, err = SaveBackup(path, r)
	return path, err
}

// Migrated is the backup that [Open] made before it brought an older database to this format; empty when
// there was nothing to do.
func (b *Backend) Migrated() string { return b.migrated }
