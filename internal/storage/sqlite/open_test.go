package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/storage"
)

// wantOpenError opens dir, which must fail with want and a text that has all of the words.
func wantOpenError(t *testing.T, dir string, want error, words ...string) {
	t.Helper()
	b, err := Open(dir)
	if err == nil {
		_ = b.Close()
	}
	if !errors.Is(err, want) {
		t.Fatalf("Open = %v, want %v", err, want)
	}
	for _, word := range append(words, dir) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// raw changes the closed file in dir behind the backend's back.
func raw(t *testing.T, dir, statements string) {
	t.Helper()
	c, err := openConn(filepath.Join(dir, FileName), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.exec(statements), c.close()); err != nil {
		t.Fatal(err)
	}
}

func made(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenInUse(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	wantOpenError(t, dir, ErrInUse, fmt.Sprintf("process %d", os.Getpid()))
	// The one that has it is none the worse, and the next one gets it.
	if _, err := b.Heads(t.Context(), "", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestOpenNewer(t *testing.T) {
	dir := made(t)
	raw(t, dir, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion+1))
	wantOpenError(t, dir, ErrNewer, "format")
	raw(t, dir, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
	open(t, dir)
}

func TestOpenWhatIsNotOurs(t *testing.T) {
	dir := made(t)
	raw(t, dir, "PRAGMA application_id = 1")
	wantOpenError(t, dir, ErrCorrupt, "not a copse database")
	raw(t, dir, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = 0", applicationID))
	wantOpenError(t, dir, ErrCorrupt)

	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, dir, ErrCorrupt)

	dir = t.TempDir()
	raw(t, dir, "CREATE TABLE mine (x)")
	wantOpenError(t, dir, ErrCorrupt, "not a copse database")
}

func TestOpenNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, file, ErrNotWritable)
	wantOpenError(t, filepath.Join(file, "below"), ErrNotWritable)
	dir := made(t)
	// Not by permissions, which do not bind root: a directory stands where a file has to be made.
	for _, name := range []string{lockName, FileName} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, "away")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		wantOpenError(t, dir, ErrNotWritable)
		if err := errors.Join(os.Remove(filepath.Join(dir, name)), os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		wantOpenError(t, dir, ErrNotWritable)
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
}

func TestOpenMakesPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b ? # % copse")
	b := open(t, dir)
	createOne(t, b, storage.PolicyStore("a"), "x")
	for _, name := range []string{"", FileName, FileName + "-wal", FileName + "-shm", lockName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has mode %o", info.Name(), mode)
		}
	}
}

// TestCloseLeavesOneFile notices a connection that stays behind: the log is merged by the last to go.
func TestCloseLeavesOneFile(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	createOne(t, b, storage.PolicyStore("a"), "x")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{filepath.Join(dir, FileName), filepath.Join(dir, lockName)}; err != nil || !slices.Equal(files, want) {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{
		"3.51.3": true, "3.51.10": true, "3.54.1": true, "4.0": true, "4": true, "3.51.3.1": true,
		"3.51.2": false, "3.9.9": false, "3.51": false, "": false, "x": false, "2.99.99": false,
	} {
		if got := atLeast(version, oldestSQLite); got != want {
			t.Errorf("atLeast(%q) = %v", version, got)
		}
	}
}

func TestOldSQLiteIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	if err := checkVersion(b.writer.conn, "999.1"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "at least 999.1 is needed") {
		t.Errorf("got %v", err)
	}
}

func TestSettings(t *testing.T) {
	b := open(t, t.TempDir())
	for setting, want := range map[string]any{
		"journal_mode": "wal", "synchronous": int64(2), "secure_delete": int64(1), "application_id": int64(applicationID),
		"user_version": int64(schemaVersion), "cell_size_check": int64(1),
	} {
		if got, err := b.writer.conn.value("PRAGMA " + setting); err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", setting, got, err, want)
		}
	}
	r := <-b.readers
	defer func() { b.readers <- r }()
	if err := r.conn.exec("DELETE FROM item"); err == nil {
		t.Error("a reader can write")
	}
}

// Forget must not read more than it forgets, however long the history: an offboarding forgets several
// keys, and the writer that all tenants share carries it out.
func TestForgetIsALookup(t *testing.T) {
	b := open(t, t.TempDir())
	var plan []string
	err := b.writer.conn.once("EXPLAIN QUERY PLAN "+forgetRows, func(s *stmt) error {
		return s.query(func(r *row) error {
			plan = append(plan, fmt.Sprint(r.values[3]))
			return nil
		}, make([]driver.Value, 5)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	lookups := 0
	for _, step := range plan {
		switch {
		case strings.HasPrefix(step, "SEARCH history USING") && strings.Contains(step, "INDEX history_key (partition=? AND kind=? AND id=? AND revision<?)"):
			lookups++
		case strings.HasPrefix(step, "SEARCH history USING PRIMARY KEY (partition=? AND revision=? AND n=?)"):
			lookups++
		case strings.HasPrefix(step, "SEARCH"), strings.HasPrefix(step, "SCAN"):
			t.Errorf("it reads more than it forgets: %s", step)
		}
	}
	if lookups != 2 {
		t.Errorf("%d lookups in the plan %q", lookups, plan)
	}
}

// TestNoStatementScansATable holds every statement to its index: at a million partitions a scan is an
// outage. SQLite's plan says SCAN when it goes through all rows.
func TestNoStatementScansATable(t *testing.T) {
	b := open(t, t.TempDir())
	plans := 0
	for _, text := range []string{
		selectHead, selectHeads, selectItem, selectKind, selectItems, selectPast, selectCommit, selectAudit, selectChain,
		selectFeed, selectVersion, upsertHead, upsertItem, deleteItem, updateCounter, selectCounter, updateOpened,
		eraseItems, eraseHistory, eraseFeed, eraseHead, forgetRows, trimFeed,
	} {
		err := b.writer.conn.once("EXPLAIN QUERY PLAN "+text, func(s *stmt) error {
			return s.query(func(r *row) error {
				detail := fmt.Sprint(r.values[3])
				plans++
				// Trimming walks the feed from its start, up to a LIMIT; a subquery's result is small.
				if strings.HasPrefix(detail, "SCAN") && text != trimFeed && !strings.HasPrefix(detail, "SCAN (subquery") {
					t.Errorf("%s\n%s", text, detail)
				}
				if strings.Contains(detail, "TEMP B-TREE") {
					t.Errorf("%s\nsorts: %s", text, detail)
				}
				return nil
			}, make([]driver.Value, strings.Count(text, "?"))...)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if plans < 20 {
		t.Fatalf("only %d steps of plans were seen", plans)
	}
}
