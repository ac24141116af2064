package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// written is a directory with a few partitions, closed, and what they hold.
func written(t *testing.T) (dir string, whole map[storage.Partition]storage.Snapshot) {
	t.Helper()
	dir = t.TempDir()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	whole = make(map[storage.Partition]storage.Snapshot)
	for n := range 8 {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint("store", n)))
		i := createOne(t, b, p, "permit (principal, action, resource);")
		for k := range 12 {
			c := overwrite(p, i, fmt.Appendf(nil, "forbid (principal, action, resource) when { %d == %d };", n, k))
			c.Writes[0].Key.ID = fmt.Sprint(k)
			if _, err := b.Commit(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if whole[p], err = b.Load(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, whole
}

func TestDamageByNameIsNoticed(t *testing.T) {
	p := storage.PolicyStore("store3")
	for name, damage := range map[string]struct {
		statement string
		read      func(b *Backend) error
	}{
		"changed body": {`UPDATE item SET body = x'00' WHERE partition = CAST('p/store3' AS BLOB) AND id = CAST('1' AS BLOB)`, func(b *Backend) error {
			_, err := b.Get(t.Context(), p, one)
			return err
		}},
		"changed body, scanned": {`UPDATE item SET body = x'00' WHERE partition = CAST('p/store3' AS BLOB) AND id = CAST('1' AS BLOB)`, func(b *Backend) error {
			_, err := b.Scan(t.Context(), p, "policy", "", 100)
			return err
		}},
		"lost item": {`DELETE FROM item WHERE partition = CAST('p/store3' AS BLOB) AND id = CAST('1' AS BLOB)`, func(b *Backend) error {
			_, err := b.Load(t.Context(), p)
			return err
		}},
		"lost item, looked for": {`DELETE FROM item WHERE partition = CAST('p/store3' AS BLOB) AND id = CAST('1' AS BLOB)`, func(b *Backend) error {
			return b.Whole(t.Context(), p)
		}},
		"item of another partition": {`UPDATE OR REPLACE item SET partition = CAST('p/store3' AS BLOB) WHERE partition = CAST('p/store2' AS BLOB) AND id = CAST('1' AS BLOB)`, func(b *Backend) error {
			_, err := b.Get(t.Context(), p, one)
			return err
		}},
		"changed head": {`UPDATE head SET state = 1, revision = 5 WHERE partition = CAST('p/store3' AS BLOB)`, func(b *Backend) error {
			_, err := b.Head(t.Context(), p)
			return err
		}},
		"changed head, listed": {`UPDATE head SET incarnation = zeroblob(16) WHERE partition = CAST('p/store3' AS BLOB)`, func(b *Backend) error {
			_, err := b.Heads(t.Context(), "", 100)
			return err
		}},
		"changed head, written": {`UPDATE head SET revision = 1 WHERE partition = CAST('p/store3' AS BLOB)`, func(b *Backend) error {
			return b.Fence(t.Context(), p, copse.NewIncarnation(), "tester")
		}},
		"changed history": {`UPDATE history SET body = x'00' WHERE partition = CAST('p/store3' AS BLOB) AND revision = 2`, func(b *Backend) error {
			_, err := b.History(t.Context(), p, 0, 100)
			return err
		}},
		"changed audit": {`UPDATE audit SET actor = CAST('nobody' AS BLOB) WHERE seq = 5`, func(b *Backend) error {
			_, err := b.Audit(t.Context(), 4, 1)
			return err
		}},
		"lost audit": {`DELETE FROM audit WHERE seq = 5`, func(b *Backend) error {
			_, err := b.Audit(t.Context(), 0, 100)
			return err
		}},
		"changed feed": {`UPDATE feed SET revision = 99 WHERE seq = 5`, func(b *Backend) error {
			_, err := b.Feed(t.Context(), 0, 100)
			return err
		}},
		"wrong size": {`UPDATE head SET chain = x'00' WHERE partition = CAST('p/store3' AS BLOB)`, func(b *Backend) error {
			_, err := b.Load(t.Context(), p)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := written(t)
			raw(t, dir, damage.statement)
			if err := damage.read(open(t, dir)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("reading gives %v", err)
			}
		})
	}
}

// TestFlippedBitsAreNeverAnswers damages the file one bit at a time. Whatever SQLite makes of that, a
// policy store is read as it was, or not at all.
func TestFlippedBitsAreNeverAnswers(t *testing.T) {
	const flips = 60
	dir, whole := written(t)
	original, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 3))
	refusedToOpen, refusedToRead, harmless := 0, 0, 0
	for range flips {
		damaged := append([]byte(nil), original...)
		at := random.IntN(len(damaged) * 8)
		damaged[at/8] ^= 1 << (at % 8)
		// A fresh directory, or the log of the former file would be applied to this one.
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(dir)
		if err != nil {
			refusedToOpen++
			continue
		}
		errorsSeen := 0
		for p, want := range whole {
			got, err := b.Load(t.Context(), p)
			if err != nil {
				errorsSeen++
			} else if d := cmp.Diff(want, got, cmp.Comparer(func(x, y storage.Partition) bool { return x == y })); d != "" {
				t.Errorf("bit %d: %v is wrong:\n%s", at, p, d)
			}
			for _, item := range want.Items {
				if got, err := b.Get(t.Context(), p, item.Key); err == nil {
					if d := cmp.Diff(item, got); d != "" {
						t.Errorf("bit %d: %v: %s", at, p, d)
					}
				}
			}
		}
		if errorsSeen > 0 {
			refusedToRead++
		} else {
			harmless++
		}
		_ = b.Close() // may have noticed the damage, too
	}
	t.Logf("%d refused to open, %d to read, %d harmless", refusedToOpen, refusedToRead, harmless)
	if refusedToRead < flips/20 || refusedToOpen+refusedToRead+harmless != flips {
		t.Errorf("too few flips hit anything")
	}
}
