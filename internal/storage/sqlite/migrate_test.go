package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/storage"
)

// later is a format that this copse does not have yet: a column more, and every row of a table written.
func later(between func(c *conn) error) format {
	return format{
		tables: schema + "ALTER TABLE counter ADD COLUMN colour BLOB NOT NULL DEFAULT x'00';",
		steps: append(newest().steps, func(c *conn) error {
			if err := c.exec("ALTER TABLE counter ADD COLUMN colour BLOB NOT NULL DEFAULT x'00'; UPDATE history SET at = at + 1"); err != nil {
				return err
			}
			return between(c)
		}),
	}
}

func nothing(*conn) error { return nil }

func backups(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.backup"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFormats(t *testing.T) {
	if newest().version() != schemaVersion {
		t.Errorf("%d steps lead to format %d, which is said to be %d", len(newest().steps), newest().version(), schemaVersion)
	}
}

func TestMigration(t *testing.T) {
	dir, whole := written(t)
	b, err := openAs(dir, later(nothing))
	if err != nil {
		t.Fatal(err)
	}
	wantLoads(t, b, whole)
	createOne(t, b, storage.PolicyStore("after"), "x")
	kept := b.Migrated()
	if names := backups(t, dir); len(names) != 1 || names[0] != kept {
		t.Errorf("kept: %v, said: %s", names, kept)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, dir, ErrNewer, "its format is 2, this copse knows up to 1")
	again := openFormat(t, dir, later(nothing))
	if v, err := again.writer.conn.value("PRAGMA user_version"); err != nil || v != int64(2) || again.Migrated() != "" || len(backups(t, dir)) != 1 {
		t.Errorf("opened again: format %v, %v, %v", v, err, backups(t, dir))
	}
	// The way back is the backup, for the copse that was.
	back := filepath.Join(t.TempDir(), "back")
	if _, err := Restore(kept, back); err != nil {
		t.Fatal(err)
	}
	wantLoads(t, open(t, back), whole)
	// A new file is what an old one becomes.
	fresh := openFormat(t, t.TempDir(), later(nothing))
	if fresh.Migrated() != "" {
		t.Errorf("a new file was migrated: %s", fresh.Migrated())
	}
	if _, err := fresh.writer.conn.value("SELECT colour FROM counter"); err != nil {
		t.Error(err)
	}
}

// The files as a process that is killed in mid-migration leaves them are a database for the copse that
// wrote it, and one that this copse migrates.
func TestKilledInMidMigration(t *testing.T) {
	dir, whole := written(t)
	crashed := [2]string{t.TempDir(), t.TempDir()}
	logged := int64(0)
	b, err := openAs(dir, later(func(c *conn) error {
		// With hardly a cache, what is not committed is in the log already.
		if err := c.exec("PRAGMA cache_size = 1; UPDATE history SET at = at - 1; UPDATE item SET body = zeroblob(length(body))"); err != nil {
			return err
		}
		for _, to := range crashed {
			if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
				return err
			}
		}
		if info, err := os.Stat(filepath.Join(crashed[0], FileName+"-wal")); err == nil {
			logged = info.Size()
		}
		return errors.New("pulled the plug")
	}))
	if err == nil {
		_ = b.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "migration from format 1 to 2") || !strings.Contains(err.Error(), "pulled the plug") || !strings.Contains(err.Error(), ".backup") {
		t.Fatalf("the migration: %v", err)
	}
	if logged == 0 {
		t.Error("nothing of the migration had reached the log")
	}
	wantLoads(t, open(t, dir), whole)
	wantLoads(t, open(t, crashed[0]), whole)
	migrated := openFormat(t, crashed[1], later(nothing))
	wantLoads(t, migrated, whole)
	if v, err := migrated.writer.conn.value("PRAGMA user_version"); err != nil || v != int64(2) || len(backups(t, crashed[1])) != 1 {
		t.Errorf("format %v, %v, %v", v, err, backups(t, crashed[1]))
	}
}

// A migration that fails each time is backed up once, a damaged backup is made again, and without a
// backup there is no migration.
func TestMigrationNeedsItsBackup(t *testing.T) {
	dir, whole := written(t)
	failing := later(func(*conn) error { return errors.New("no") })
	var kept string
	for range 3 {
		if b, err := openAs(dir, failing); err == nil {
			_ = b.Close()
			t.Fatal("it did not fail")
		}
		names := backups(t, dir)
		if len(names) != 1 || kept != "" && kept != names[0] {
			t.Fatalf("kept: %v", names)
		}
		kept = names[0]
	}
	if err := os.Truncate(kept, 1000); err != nil {
		t.Fatal(err)
	}
	_, err := openAs(dir, failing)
	if _, damaged := VerifyBackup(t.Context(), kept); err == nil || damaged != nil {
		t.Errorf("after the backup was damaged: %v, %v", err, damaged)
	}
	if err := errors.Join(os.Remove(kept), os.MkdirAll(filepath.Join(kept, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	called := false
	b, err := openAs(dir, later(func(*conn) error {
		called = true
		return nil
	}))
	if err == nil {
		_ = b.Close()
	}
	if err == nil || called || !strings.Contains(err.Error(), "backed up before") {
		t.Errorf("without a backup: %v (migrated: %v)", err, called)
	}
	wantLoads(t, open(t, dir), whole)
}
