package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

func wantLoads(t *testing.T, b *Backend, want map[storage.Partition]storage.Snapshot) {
	t.Helper()
	for p, w := range want {
		got, err := b.Load(t.Context(), p)
		if d := cmp.Diff(w, got, cmp.Comparer(func(x, y storage.Partition) bool { return x == y })); err != nil || d != "" {
			t.Errorf("%v: %v %s", p, err, d)
		}
	}
	if err := storagetest.CheckChains(t.Context(), b); err != nil {
		t.Error(err)
	}
}

// erasedMost is a closed directory whose database was many times as large, and has not been swept.
func erasedMost(t *testing.T, secret string) (dir string, kept map[storage.Partition]storage.Snapshot) {
	t.Helper()
	dir = t.TempDir()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b.writer.sweepPages = 0 // as if it were larger than what is rewritten while the server runs
	const stores, rounds, stays = 60, 5, 6
	incarnations := map[storage.Partition]copse.Incarnation{}
	kept = map[storage.Partition]storage.Snapshot{}
	for round := range rounds {
		for n := range stores {
			// Those that stay are on pages with those that go, and rows come between others: as pages fill,
			// SQLite moves rows to new ones.
			p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprintf("store%02d", n)))
			text := secret
			if n%stays == 0 {
				text = "this stays;"
			}
			c := storage.Commit{Partition: p, Incarnation: incarnations[p]}
			if c.Create = round == 0; c.Create {
				c.Incarnation = copse.NewIncarnation()
				incarnations[p] = c.Incarnation
			}
			for k := range 12 {
				c.Writes = append(c.Writes, storage.Write{Key: storage.Key{Kind: "policy", ID: fmt.Sprintf("%03d", (k*31+round*7)%1000)},
					Body: []byte(strings.Repeat(text, 1+(k+n)%9)), Expect: storage.Any()})
			}
			if _, err := b.Commit(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range stores {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprintf("store%02d", n)))
		if n%stays == 0 {
			forgotten(t, b, p, incarnations[p], secret)
			if kept[p], err = b.Load(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := b.Fence(t.Context(), p, incarnations[p], "tester"); err != nil {
			t.Fatal(err)
		}
		for done := false; !done; {
			if done, err = b.Erase(t.Context(), p, incarnations[p], 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, kept
}

// forgotten writes, deletes and forgets items between those of a partition that stays, as it happens to
// tenants' rows in the directory. What is left of them is in the unused parts of pages.
func forgotten(t *testing.T, b *Backend, p storage.Partition, i copse.Incarnation, secret string) {
	t.Helper()
	for k := range 30 {
		c := overwrite(p, i, []byte(strings.Repeat(secret, 1+k%9)))
		c.Writes[0].Key.ID = fmt.Sprintf("%03d %s", k*37%1000, secret)
		if _, err := b.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if k%2 == 0 {
			continue
		}
		for _, body := range [][]byte{nil, []byte("x"), nil} {
			c.Writes[0].Body = body
			if _, err := b.Commit(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k := range 30 {
		c := overwrite(p, i, nil)
		c.Writes[0].Key.ID = fmt.Sprintf("%03d %s", k*37%1000, secret)
		if _, err := b.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := b.Forget(t.Context(), p, c.Writes[0].Key, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestCompact(t *testing.T) {
	const secret = "the-secret-of-the-tenant;"
	dir, kept := erasedMost(t, secret)
	path := filepath.Join(dir, FileName)
	was := read(t, path)
	if !bytes.Contains(was, []byte(secret)) {
		t.Error("nothing of what was erased is left for it to remove")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 12346); err != nil {
			t.Fatal(err)
		}
	}
	before, after, err := Compact(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	now := read(t, path)
	if before != int64(len(was)) || after != int64(len(now)) || after > before/3 {
		t.Errorf("%d before (really %d), %d after (really %d)", before, len(was), after, len(now))
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{path, filepath.Join(dir, lockName)}; err != nil || !cmp.Equal(names, want) {
		t.Errorf("in the directory: %v, %v", names, err)
	}
	if bytes.Contains(now, []byte(secret)) {
		t.Error("what was erased is still there")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (owner.Uid != 12345 || owner.Gid != 12346) {
		t.Errorf("it belongs to %d:%d", owner.Uid, owner.Gid)
	}
	b := open(t, dir)
	wantLoads(t, b, kept)
	p := storage.PolicyStore("new")
	createOne(t, b, p, "x")
	if _, err := b.Load(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestCompactRefuses(t *testing.T) {
	dir, whole := written(t)
	path := filepath.Join(dir, FileName)
	b := open(t, dir)
	if _, _, err := Compact(t.Context(), dir); !errors.Is(err, ErrInUse) {
		t.Errorf("of a server that runs: %v", err)
	}
	wantLoads(t, b, whole)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Compact(t.Context(), filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	// A log that stays would be applied to the new file.
	if err := os.WriteFile(path+"-wal", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	was := read(t, path)
	if _, _, err := rewrite(path, path+"-scratch"); err == nil || !bytes.Equal(was, read(t, path)) {
		t.Errorf("with a log: %v", err)
	}
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	// A damaged page: the file that is there is the best there is, and is left alone.
	damaged := append([]byte(nil), was...)
	for n := len(damaged) - 4096; n < len(damaged); n++ {
		damaged[n] ^= 0x5a
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Compact(t.Context(), dir)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("of a damaged file: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, scratchName+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
