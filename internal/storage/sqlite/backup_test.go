package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

func backedUp(t *testing.T, b *Backend) (file string, m Manifest) {
	t.Helper()
	r, err := b.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "b")
	m, err = SaveBackup(file, r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return file, m
}

// A backup in the middle of writes is one moment: for each policy store a revision that was acknowledged
// or under way, with exactly what was written up to it, and nothing of the policy store acknowledged
// before the backup began is missing.
func TestBackupIsOneMoment(t *testing.T) {
	b := open(t, t.TempDir())
	const stores = 4
	var partitions []storage.Partition
	var writers sync.WaitGroup
	stop := make(chan struct{})
	acknowledged := make([]uint64, stores)
	var mu sync.Mutex
	for n := range stores {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint("s", n)))
		partitions = append(partitions, p)
		i := createOne(t, b, p, "1")
		writers.Go(func() {
			for revision := uint64(2); ; revision++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := b.Commit(t.Context(), overwrite(p, i, fmt.Append(nil, revision))); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged[n] = revision
				mu.Unlock()
			}
		})
	}
	moved := 0
	for range 5 {
		mu.Lock()
		before := append([]uint64(nil), acknowledged...)
		mu.Unlock()
		file, m := backedUp(t, b)
		dir := filepath.Join(t.TempDir(), "new")
		if got, err := Restore(file, dir); err != nil || got != m {
			t.Fatalf("%+v, %v, want %+v", got, err, m)
		}
		restored := open(t, dir)
		for n, p := range partitions {
			s, err := restored.Load(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if s.Head.Revision < before[n] || string(s.Items[0].Body) != fmt.Sprint(s.Head.Revision) {
				t.Errorf("%v: revision %d with body %s, %d was acknowledged", p, s.Head.Revision, s.Items[0].Body, before[n])
			}
			if s.Head.Revision > before[n] {
				moved++
			}
			if err := storage.VerifyHistory(t.Context(), restored, p); err != nil {
				t.Error(err)
			}
		}
		if err := storage.VerifyAudit(t.Context(), restored); err != nil {
			t.Error(err)
		}
		if problems, err := restored.Integrity(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	}
	close(stop)
	writers.Wait()
	if moved == 0 {
		t.Error("no write came between the beginning and the moment of any backup")
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, scratchName+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Cut off or changed anywhere, a backup is refused, and the directory can be used for another.
func TestRestoreRefuses(t *testing.T) {
	dir, whole := written(t)
	file, _ := backedUp(t, open(t, dir))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	into := filepath.Join(t.TempDir(), "new")
	try := func(name string, changed []byte, want error) {
		t.Helper()
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(bad, into); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := SaveBackup(bad+"2", strings.NewReader(string(changed))); !errors.Is(err, want) {
			t.Errorf("saving %s: %v", name, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(bad)); len(entries) != 1 {
			t.Errorf("%s: saving left %v", name, entries)
		}
	}
	for at := 0; at < len(text); at += 997 {
		flipped := append([]byte(nil), text...)
		flipped[at] ^= 0x10
		if at > 300 { // behind the description
			try(fmt.Sprint("a bit flipped at ", at), flipped, ErrNotABackup)
			try(fmt.Sprint("cut at ", at), text[:at], ErrNotABackup)
		}
	}
	try("something behind it", append(append([]byte(nil), text...), 'x'), ErrNotABackup)
	try("nothing", nil, ErrNotABackup)
	try("another file", []byte("SQLite format 3\x00"), ErrNotABackup)
	try("a newer format", []byte(strings.Replace(string(text), "copse backup 1", "copse backup 2", 1)), ErrNewer)
	try("a newer database", []byte(strings.Replace(string(text), `"schema":1`, `"schema":9`, 1)), ErrNewer)
	if _, err := Restore(file, into); err != nil {
		t.Fatalf("the same directory, with the backup as it was: %v", err)
	}
	if _, err := Restore(file, into); !errors.Is(err, ErrOccupied) {
		t.Errorf("into a directory in use: %v", err)
	}
	if _, err := SaveBackup(file, strings.NewReader(string(text))); !errors.Is(err, ErrOccupied) {
		t.Errorf("onto a backup: %v", err)
	}
	restored := open(t, into)
	for p, want := range whole {
		got, err := restored.Load(t.Context(), p)
		if d := cmp.Diff(want, got, cmp.Comparer(func(x, y storage.Partition) bool { return x == y })); err != nil || d != "" {
			t.Errorf("%v: %v %s", p, err, d)
		}
	}
}

// What a killed process left of a backup goes at the next start: it holds what may be erased since.
func TestScratchIsRemoved(t *testing.T) {
	dir := made(t)
	left := filepath.Join(dir, scratchName+"1")
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A row that was changed, removed or moved is named.
func TestChangedAuditRowIsNamed(t *testing.T) {
	for change, row := range map[string]int{
		`UPDATE audit SET actor = x'6e6f626f6479' WHERE seq = 30`: 30,
		`UPDATE audit SET at = at + 1 WHERE seq = 1`:              1,
		`UPDATE audit SET chain = randomblob(32) WHERE seq = 40`:  40,
		`DELETE FROM audit WHERE seq = 50`:                        50,
		`UPDATE audit SET seq = -1 WHERE seq = 20; UPDATE audit SET seq = 20 WHERE seq = 21; UPDATE audit SET seq = 21 WHERE seq = -1`: 20,
	} {
		dir, _ := written(t)
		raw(t, dir, change)
		b := open(t, dir)
		named := fmt.Sprintf("row %d", row)
		if err := storage.VerifyAudit(t.Context(), b); err == nil || !strings.HasSuffix(err.Error(), named) {
			t.Errorf("%s: %v", change, err)
		}
		if _, err := b.Audit(t.Context(), uint64(row-1), 10); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: read all the same: %v", change, err)
		}
	}
}

// Rows that are missing at the end of the audit leave a chain that fits: the counter tells.
func TestAuditRowsMissingAtTheEnd(t *testing.T) {
	dir, _ := written(t)
	raw(t, dir, `DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)`)
	if err := storage.VerifyAudit(t.Context(), open(t, dir)); err == nil || !strings.Contains(err.Error(), "the audit rows end with number") {
		t.Error(err)
	}
}
