package sqlite

import (
	"testing"

	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

// open opens dir and closes it with the test.
func open(t testing.TB, dir string) *Backend {
	t.Helper()
	return openFormat(t, dir, newest())
}

func openFormat(t testing.TB, dir string, f format) *Backend {
	t.Helper()
	b, err := openAs(dir, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Backend { return open(t, t.TempDir()) })
}

func TestRandomWithReopening(t *testing.T) {
	dir, reopened := t.TempDir(), 0
	storagetest.Random(t, storagetest.RandomConfig{
		Backend: open(t, dir), Seed: 2, Operations: 2500,
		Reopen: func(b storage.Backend) storage.Backend {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			reopened++
			return open(t, dir)
		},
	})
	if reopened < 10 {
		t.Fatalf("reopened %d times only", reopened)
	}
}
